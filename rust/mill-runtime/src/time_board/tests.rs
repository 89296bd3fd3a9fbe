use mill_queue::Parker;

use super::*;

/// A board with inputs of so many makers each.
fn slots(inputs: &[usize]) -> Vec<Vec<Slot>> {
    let inputs: Vec<(usize, bool)> = inputs.iter().map(|&makers| (makers, false)).collect();
    slots_of(&inputs)
}

/// The same, with whether each input is shared.
fn slots_of(inputs: &[(usize, bool)]) -> Vec<Vec<Slot>> {
    let board = Arc::new(TimeBoard::default());
    let unparkers = |makers: usize| (0..makers).map(|_| Parker::new().unparker()).collect();
    inputs.iter().map(|&(makers, is_shared)| board.add_input(unparkers(makers), is_shared)).collect()
}

fn active(at: i64) -> Standing {
    Standing::Active(Watermark(at))
}

fn idle(at: i64) -> Standing {
    Standing::Idle(Watermark(at))
}

fn empty(at: i64) -> Standing {
    Standing::Empty(Watermark(at))
}

#[test]
fn a_task_without_splits_follows_the_slowest_of_its_input() {
    let mut slots = slots(&[3, 1]);
    slots[0][2].report(empty(i64::MIN));
    assert_eq!(slots[0][2].follow(), None, "nobody has come anywhere");
    slots[0][0].report(active(50));
    slots[0][1].report(active(70));
    // The other input lags, which is nothing to this one.
    slots[1][0].report(active(10));
    assert_eq!(slots[0][2].follow(), Some(Watermark(50)));
    assert_eq!(slots[0][2].follow(), None, "it was told so already");
    slots[0][2].report(active(50));
    slots[0][0].report(active(90));
    assert_eq!(slots[0][2].follow(), None, "it has splits of its own now");
}

#[test]
fn an_input_without_any_split_stands_still() {
    let mut slots = slots(&[2, 1]);
    slots[0][0].report(active(40));
    slots[0][0].report(empty(40));
    slots[0][1].report(empty(30));
    slots[1][0].report(active(100));
    assert_eq!(slots[0][1].follow(), Some(Watermark(40)));
    slots[1][0].report(active(200));
    assert_eq!(slots[0][1].follow(), None);
}

#[test]
fn an_idle_input_follows_those_it_meets() {
    let mut slots = slots(&[2, 2]);
    slots[0][0].report(idle(20));
    slots[0][1].report(idle(30));
    slots[1][0].report(active(5));
    slots[1][1].report(active(8));
    assert_eq!(slots[0][0].follow(), Some(Watermark(5)));
    slots[1][0].report(active(60));
    assert_eq!(slots[0][0].follow(), Some(Watermark(8)));
}

#[test]
fn when_all_are_idle_time_is_the_greatest_whichever_went_idle_first() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [0, 2, 1]] {
        let mut slots: Vec<Slot> = slots(&[2, 1]).into_iter().flatten().collect();
        let times = [25, 2, 7];
        for (slot, at) in slots.iter_mut().zip(times) {
            slot.report(active(at));
        }
        let mut sent = times;
        for who in order {
            slots[who].report(idle(times[who]));
            for (slot, sent) in slots.iter().zip(&mut sent) {
                *sent = slot.follow().map_or(*sent, |at| at.0);
            }
        }
        assert_eq!(sent, [25, 25, 25], "{order:?}");
    }
}

#[test]
fn what_has_ended_holds_nobody_and_counts_once_the_others_are_idle() {
    let mut slots = slots(&[1, 1]);
    slots[0][0].report(active(25));
    slots[1][0].report(active(3));
    slots[0][0].end();
    assert_eq!(slots[1][0].follow(), None);
    slots[1][0].report(idle(3));
    assert_eq!(slots[1][0].follow(), Some(Watermark(25)));
}

#[test]
fn one_that_wakes_is_waited_for_again() {
    let mut slots = slots(&[1, 1, 1]);
    slots[0][0].report(idle(10));
    slots[1][0].report(active(100));
    slots[2][0].report(idle(0));
    assert_eq!(slots[2][0].follow(), Some(Watermark(100)));
    slots[0][0].report(active(100));
    slots[1][0].report(active(300));
    assert_eq!(slots[2][0].follow(), None, "the one that woke holds time where it took it up");
}

#[test]
fn no_task_of_a_shared_input_is_ahead_of_the_others() {
    let mut slots = slots_of(&[(2, true), (1, false)]);
    slots[1][0].report(active(10));
    assert_eq!(slots[1][0].follow(), None, "it sends its own time");
    slots[0][0].report(active(100));
    assert_eq!(slots[0][0].follow(), None, "the other has come nowhere");
    slots[0][1].report(active(20));
    assert_eq!(slots[0][1].follow(), Some(Watermark(20)));
    assert_eq!(slots[0][0].follow(), Some(Watermark(20)));
    assert_eq!(slots[0][0].follow(), None, "it was told so already");
    slots[0][1].report(active(300));
    assert_eq!(slots[0][0].follow(), Some(Watermark(100)));
    assert_eq!(slots[0][1].follow(), Some(Watermark(100)));
    // Once it has ended or turned idle, nobody waits for it.
    slots[0][0].report(idle(100));
    assert_eq!(slots[0][1].follow(), Some(Watermark(300)));
    assert_eq!(slots[0][0].follow(), Some(Watermark(300)));
    slots[0][0].end();
    slots[0][1].report(active(400));
    assert_eq!(slots[0][1].follow(), Some(Watermark(400)));
}

#[test]
fn tasks_of_a_shared_input_wake_each_other() {
    let board = Arc::new(TimeBoard::default());
    let mut parker = Parker::new();
    let mut slots = board.add_input(vec![parker.unparker(), Parker::new().unparker()], true);
    slots[0].report(active(100));
    slots[0].wake_followers();
    assert!(!parker.park_timeout(std::time::Duration::ZERO), "nothing has gone on");
    slots[1].report(active(50));
    slots[1].wake_followers();
    assert!(parker.park_timeout(std::time::Duration::ZERO));
}
