use std::sync::Arc;
use std::thread;
use std::time::Duration;

use arrow::array::{Int64Array, RecordBatch};
use mill_protocol::{Batch, Sink, SinkWriter, TaskContext};

use super::{CollectReceiver, CollectSink, Received};

fn batch(rows: i64) -> Batch {
    let x = Arc::new(Int64Array::from_iter_values(0..rows)) as _;
    Batch::new(RecordBatch::try_from_iter([("x", x)]).unwrap())
}

fn writer(sink: &CollectSink) -> Box<dyn SinkWriter> {
    let context =
        TaskContext { step: "s".into(), index: 0, parallelism: 1, threads: 1, groups: 0..128, is_persistent: false, waker: std::task::Waker::noop().clone() };
    sink.writer(&batch(1).schema(), &context).unwrap()
}

fn rows(receiver: &CollectReceiver) -> Option<usize> {
    match receiver.receive(Duration::from_secs(5)) {
        Received::Batch(collected) => Some(collected.data.num_rows()),
        _ => None,
    }
}

#[test]
fn the_limit_is_exact_over_all_writers() {
    let (sink, receiver) = CollectSink::new(Some(5), 8);
    let (mut a, mut b) = (writer(&sink), writer(&sink));
    a.write(batch(3)).unwrap();
    b.write(batch(3)).unwrap();
    a.write(batch(3)).unwrap();
    assert!(a.is_finished() && b.is_finished());
    assert_eq!([rows(&receiver), rows(&receiver), rows(&receiver)], [Some(3), Some(2), None]);
    assert!(matches!(receiver.receive(Duration::ZERO), Received::Finished));
}

#[test]
fn a_full_queue_holds_the_writer_back_and_a_gone_reader_frees_it() {
    let (sink, receiver) = CollectSink::new(None, 1);
    let mut first = writer(&sink);
    first.write(batch(1)).unwrap();
    assert!(!first.is_ready());
    let blocked = thread::spawn(move || {
        first.write(batch(2)).unwrap();
        first.write(batch(3)).unwrap();
        first.is_finished()
    });
    assert_eq!(rows(&receiver), Some(1));
    assert_eq!(rows(&receiver), Some(2));
    drop(receiver);
    let _ = blocked.join().unwrap();
    assert!(writer(&sink).is_finished());
}

#[test]
fn a_second_start_after_records_were_taken_is_refused() {
    let (sink, receiver) = CollectSink::new(None, 4);
    let mut committer = sink.committer().unwrap();
    committer.begin().unwrap();
    writer(&sink).write(batch(1)).unwrap();
    committer.begin().unwrap();
    // What was written before is gone, and so is who wrote it.
    assert!(matches!(receiver.receive(Duration::ZERO), Received::Ended));
    writer(&sink).write(batch(1)).unwrap();
    assert_eq!(rows(&receiver), Some(1));
    assert!(committer.begin().is_err());
}

#[test]
fn the_last_writer_that_goes_wakes_the_receiver() {
    let (sink, receiver) = CollectSink::new(None, 4);
    let (mut first, second) = (writer(&sink), writer(&sink));
    first.write(batch(2)).unwrap();
    let ending = thread::spawn(move || {
        drop(first);
        drop(second);
    });
    let mut all = Vec::new();
    // Without being woken it would wait for a minute, which a test run does not survive.
    while !matches!(receiver.receive_all(Duration::from_secs(60), &mut all), Received::Ended) {}
    assert_eq!(all.iter().map(|collected| collected.data.num_rows()).sum::<usize>(), 2);
    assert!(matches!(receiver.receive(Duration::from_secs(60)), Received::Ended));
    ending.join().unwrap();
}

#[test]
fn who_takes_everything_does_not_hold_the_writers_back() {
    let (sink, receiver) = CollectSink::new(None, 1);
    let mut writer = writer(&sink);
    let mut all = Vec::new();
    assert!(matches!(receiver.receive_all(Duration::ZERO, &mut all), Received::Nothing));
    for rows in 1..=3 {
        assert!(writer.is_ready());
        writer.write(batch(rows)).unwrap();
    }
    receiver.receive_all(Duration::ZERO, &mut all);
    assert_eq!(all.len(), 3);
}
