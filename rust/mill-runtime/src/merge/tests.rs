use super::*;

/// Events as text: a watermark of input 1 as `1w5`, its end as `1end`, a barrier as `b1`, the end as `end`.
fn text(events: impl IntoIterator<Item = Event>) -> Vec<String> {
    let text = |event| match event {
        Event::Watermark(input, Watermark::MAX) => format!("{input}wMAX"),
        Event::Watermark(input, at) => format!("{input}w{}", at.0),
        Event::InputEnd(input) => format!("{input}end"),
        Event::Barrier(epoch) => format!("b{}", epoch.0),
        Event::End => "end".to_owned(),
        other => unreachable!("a merge makes no {other:?}"),
    };
    events.into_iter().map(text).collect()
}

fn end(merge: &mut Merge, channel: usize) -> Vec<String> {
    text(merge.on_end(channel).into_iter().flatten())
}

#[test]
fn watermark_is_the_least_of_the_open_channels() {
    let mut merge = Merge::new(1, [0, 0]);
    assert!(merge.on_watermark(0, Watermark(10)).is_none());
    assert_eq!(text(merge.on_watermark(1, Watermark(4))), ["0w4"]);
    assert!(merge.on_watermark(1, Watermark(3)).is_none(), "the watermark never goes back");
    assert_eq!(text(merge.on_watermark(1, Watermark(6))), ["0w6"]);
    assert_eq!(end(&mut merge, 1), ["0w10"]);
}

#[test]
fn inputs_have_watermarks_and_ends_of_their_own() {
    let mut merge = Merge::new(2, [0, 1, 1]);
    assert_eq!(text(merge.on_watermark(0, Watermark(10))), ["0w10"]);
    assert!(merge.on_watermark(1, Watermark(3)).is_none());
    assert_eq!(text(merge.on_watermark(2, Watermark(5))), ["1w3"]);
    assert_eq!(end(&mut merge, 1), ["1w5"]);
    assert_eq!(end(&mut merge, 0), ["0wMAX", "0end"]);
    assert!(end(&mut merge, 0).is_empty(), "an end that comes twice means nothing");
    assert_eq!(end(&mut merge, 2), ["1wMAX", "1end", "end"]);
}

#[test]
fn an_input_without_channels_has_ended() {
    assert_eq!(text(Merge::new(2, [1]).absent()), ["0wMAX", "0end"]);
    assert_eq!(text(Merge::new(1, []).absent()), ["0wMAX", "0end", "end"]);
    assert!(Merge::new(2, [1, 0]).absent().is_empty());
}

#[test]
fn barrier_waits_for_every_channel_of_every_input() {
    let mut merge = Merge::new(2, [0, 1, 0]);
    assert!(merge.on_barrier(0, Epoch(7)).is_none());
    assert!(merge.is_held_back(0));
    assert!(merge.on_barrier(2, Epoch(7)).is_none());
    assert_eq!(end(&mut merge, 1), ["b7", "1wMAX", "1end"]);
    assert!(!merge.is_held_back(0));
    assert!(merge.on_barrier(1, Epoch(8)).is_none(), "a channel that has ended brings none");
    assert!(merge.on_barrier(0, Epoch(8)).is_none());
    assert_eq!(text(merge.on_barrier(2, Epoch(8))), ["b8"]);
}

#[test]
fn end_of_all_channels_is_the_end_of_time() {
    let mut merge = Merge::new(1, [0, 0]);
    assert!(end(&mut merge, 0).is_empty());
    assert_eq!(end(&mut merge, 1), ["0wMAX", "0end", "end"]);
}

/// A task that had nothing to read ended its time while the other, between its last record and its own end, was idle:
/// the windows of the other were fired, and what it still held back for them counted as late.
#[test]
fn the_end_of_one_channel_does_not_end_the_time_of_another() {
    let mut merge = Merge::new(1, [0, 0]);
    assert!(merge.on_watermark(0, Watermark(5)).is_none());
    assert_eq!(text(merge.on_watermark(1, Watermark::MAX)), ["0w5"]);
    assert!(end(&mut merge, 1).is_empty());
    assert_eq!(text(merge.on_watermark(0, Watermark::MAX)), ["0wMAX"]);
}
