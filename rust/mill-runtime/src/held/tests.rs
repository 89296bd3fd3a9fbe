use mill_protocol::ManualClock;

use super::*;

const SECOND: i64 = 1_000_000;

struct World {
    clock: ManualClock,
    steps: Vec<HeldStep>,
    writers: Vec<Vec<HeldWriter>>,
}

impl World {
    /// Steps of that many tasks, each with the number of its meeting.
    fn new(steps: &[(usize, usize)]) -> World {
        let mut world = World { clock: ManualClock::default(), steps: Vec::new(), writers: Vec::new() };
        for (step, &(tasks, meeting)) in steps.iter().enumerate() {
            let notes: Vec<Arc<HeldNote>> = (0..tasks).map(|_| Arc::default()).collect();
            world.writers.push(notes.iter().map(|note| HeldWriter::new(note.clone())).collect());
            world.steps.push(HeldStep { step, meeting, notes, seen: Mutex::default() });
        }
        world
    }

    /// At this second a task of a step waits for a split.
    fn note(&mut self, second: i64, (step, task): (usize, usize), furthest: i64, split: Option<(&str, i64)>) {
        self.clock.set(second * SECOND);
        let split_at = split.map(|(name, at)| (SplitId::of(name), Watermark(at)));
        let waiting = Some(Waiting { furthest: Watermark(furthest), split: split_at });
        self.writers[step][task].note(waiting, &self.clock, |id| {
            split.map(|(name, _)| name).filter(|name| SplitId::of(name) == id)
        });
    }

    fn held(&self, second: i64) -> Vec<(usize, String, Option<i64>, Option<i64>, u64)> {
        let held = held(&self.steps, second * SECOND).into_iter();
        held.map(|(step, held)| {
            (step, held.split, held.watermark.map(|at| at.0), held.others.map(|at| at.0), held.since.as_secs())
        })
        .collect()
    }
}

#[test]
fn the_slowest_split_is_named_once_it_has_stood_still_for_five_seconds() {
    let mut world = World::new(&[(2, 0)]);
    world.note(1, (0, 0), 50, Some(("a", 10)));
    world.note(1, (0, 1), 30, Some(("b", 30)));
    assert_eq!(world.held(5), []);
    assert_eq!(world.held(6), [(0, "a".to_owned(), Some(10), Some(50), 5)]);
    // Others go on: it is still the one.
    world.note(7, (0, 0), 90, Some(("a", 10)));
    assert_eq!(world.held(8), [(0, "a".to_owned(), Some(10), Some(90), 7)]);
    // It goes on: the other task has waited for longer, but does not hold the step.
    world.note(9, (0, 0), 90, Some(("a", 20)));
    assert_eq!(world.held(10), []);
    world.note(11, (0, 0), 90, Some(("a", 40)));
    // Now that one does, from the time on at which the watermark came to it.
    assert_eq!(world.held(12), []);
    assert_eq!(world.held(16), []);
    assert_eq!(world.held(17), [(0, "b".to_owned(), Some(30), Some(90), 5)]);
}

#[test]
fn another_split_at_the_same_time_goes_on_with_the_wait() {
    let mut world = World::new(&[(1, 0)]);
    world.note(0, (0, 0), 50, Some(("a", 10)));
    world.note(4, (0, 0), 50, Some(("b", 10)));
    assert_eq!(world.held(6), [(0, "b".to_owned(), Some(10), Some(50), 6)]);
    world.note(7, (0, 0), 50, Some(("c", 11)));
    assert_eq!(world.held(11), []);
}

#[test]
fn a_split_without_records_and_one_that_nobody_is_ahead_of() {
    let mut world = World::new(&[(1, 0)]);
    world.note(0, (0, 0), 50, Some(("new", i64::MIN)));
    assert_eq!(world.held(5), [(0, "new".to_owned(), None, Some(50), 5)]);
    world.note(6, (0, 0), 50, Some(("new", 50)));
    assert_eq!(world.held(6), []);
    assert_eq!(world.held(11), [(0, "new".to_owned(), Some(50), None, 5)]);
    // All are idle, or none is left.
    world.note(12, (0, 0), 50, None);
    assert_eq!(world.held(100), []);
}

#[test]
fn inputs_that_meet_are_compared_and_others_are_not() {
    let mut world = World::new(&[(1, 0), (1, 0), (1, 1)]);
    world.note(0, (0, 0), 10, Some(("a", 10)));
    world.note(0, (1, 0), 70, None);
    world.note(0, (2, 0), 900, Some(("c", 900)));
    assert_eq!(
        world.held(9),
        [(0, "a".to_owned(), Some(10), Some(70), 9), (2, "c".to_owned(), Some(900), None, 9)]
    );
}
