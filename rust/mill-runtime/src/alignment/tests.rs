use mill_queue::Parker;

use super::*;

const A: SplitId = SplitId(1);
const B: SplitId = SplitId(2);

fn name(split: SplitId) -> Option<&'static str> {
    Some(if split == A { "a" } else { "b" })
}

/// Whether the worker of this parker was woken since it was last asked.
fn is_woken(parker: &mut Parker) -> bool {
    parker.park_timeout(std::time::Duration::ZERO)
}

#[test]
fn who_has_read_nothing_yet_is_the_slowest() {
    let board = Arc::new(AlignmentBoard::default());
    let (first, second) = (Parker::new(), Parker::new());
    let mut one = board.add("one", 10, first.unparker());
    let mut two = board.add("two", 50, second.unparker());
    one.report(Some((A, Watermark(100))), name);
    assert_eq!(one.limit(), Some(Watermark(i64::MIN + 10)));
    assert!(!one.pause(Some((1, A, Watermark(100))), |_| "a".into()));
    let paused = board.paused(&[0]).expect("it pauses");
    assert_eq!((paused.slowest.as_str(), paused.slowest_watermark), ("two", None));
    two.report(Some((B, Watermark(20))), name);
    assert_eq!((one.limit(), two.limit()), (Some(Watermark(30)), Some(Watermark(70))));
    let paused = board.paused(&[0]).expect("it pauses");
    assert_eq!((paused.splits, paused.split.as_str(), paused.watermark), (1, "a", Watermark(100)));
    assert_eq!((paused.slowest.as_str(), paused.slowest_watermark), ("b", Some(Watermark(20))));
    assert_eq!(board.paused(&[1]), None);
}

#[test]
fn a_task_that_pauses_is_woken_when_it_may_go_on_and_not_before() {
    let board = Arc::new(AlignmentBoard::default());
    let (mut fast, slow) = (Parker::new(), Parker::new());
    let mut one = board.add("one", 10, fast.unparker());
    let mut two = board.add("two", 10, slow.unparker());
    one.report(Some((A, Watermark(100))), name);
    two.report(Some((B, Watermark(20))), name);
    assert!(!one.pause(Some((1, A, Watermark(100))), |_| "a".into()));
    two.report(Some((B, Watermark(89))), name);
    assert!(!is_woken(&mut fast), "89 + 10 is less than 100");
    two.report(Some((B, Watermark(90))), name);
    assert!(is_woken(&mut fast));
    assert!(one.pause(Some((1, A, Watermark(100))), |_| "a".into()), "it may go on");
}

#[test]
fn those_who_are_idle_or_have_ended_are_not_waited_for() {
    let board = Arc::new(AlignmentBoard::default());
    let (mut fast, slow) = (Parker::new(), Parker::new());
    let mut one = board.add("one", 10, fast.unparker());
    let mut two = board.add("two", 10, slow.unparker());
    one.report(Some((A, Watermark(100))), name);
    two.report(Some((B, Watermark(20))), name);
    assert!(!one.pause(Some((1, A, Watermark(100))), |_| "a".into()));
    two.report(None, name);
    assert!(is_woken(&mut fast));
    assert_eq!(one.limit(), Some(Watermark(110)), "its own splits keep together as well");
    one.report(None, name);
    assert_eq!((one.limit(), two.limit()), (None, None), "nobody counts");
    assert!(one.pause(Some((1, A, Watermark(100))), |_| "a".into()));
    assert_eq!(board.paused(&[0]), None, "there is nobody to wait for");
}
