use super::*;

#[test]
fn watermark_is_the_least_of_the_open_inputs() {
    let mut merge = Merge::new(2);
    assert_eq!(merge.on_watermark(0, Watermark(10)), None);
    assert_eq!(merge.on_watermark(1, Watermark(4)), Some(Watermark(4)));
    assert_eq!(merge.on_watermark(1, Watermark(3)), None, "the watermark never goes back");
    assert_eq!(merge.on_watermark(1, Watermark(6)), Some(Watermark(6)));
    assert_eq!(merge.on_end(1).watermark, Some(Watermark(10)));
}

#[test]
fn barrier_waits_for_every_input() {
    let mut merge = Merge::new(3);
    assert_eq!(merge.on_barrier(0, Epoch(7)), None);
    assert!(merge.is_held_back(0));
    assert_eq!(merge.on_barrier(2, Epoch(7)), None);
    let ended = merge.on_end(1);
    assert_eq!(ended.barrier, Some(Epoch(7)));
    assert!(!ended.is_end && !merge.is_held_back(0));
}

#[test]
fn end_of_all_inputs_is_the_end_of_time() {
    let mut merge = Merge::new(2);
    assert!(!merge.on_end(0).is_end);
    let ended = merge.on_end(1);
    assert!(ended.is_end);
    assert_eq!(ended.watermark, Some(Watermark::MAX));
}

/// A task that had nothing to read ended its time while the other, between its last record and its own end, was idle:
/// the windows of the other were fired, and what it still held back for them counted as late.
#[test]
fn the_end_of_one_input_does_not_end_the_time_of_another() {
    let mut merge = Merge::new(2);
    assert_eq!(merge.on_watermark(0, Watermark(5)), None);
    assert_eq!(merge.on_watermark(1, Watermark::MAX), Some(Watermark(5)));
    assert_eq!(merge.on_end(1).watermark, None);
    assert_eq!(merge.on_watermark(0, Watermark::MAX), Some(Watermark::MAX));
}
