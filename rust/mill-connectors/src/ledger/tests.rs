use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch};
use arrow::buffer::BooleanBuffer;
use mill_protocol::{Batch, Commit, Epoch, Recovered, Sink, SinkWriter, TaskContext};

use super::{Entries, Ledger, LedgerSink};
use crate::latest::Change;
use crate::testing::rows_of;

fn batch(values: &[i64]) -> Batch {
    let x = Arc::new(Int64Array::from(values.to_vec())) as _;
    Batch::new(RecordBatch::try_from_iter([("x", x)]).unwrap())
}

fn ledger(key: Option<&[String]>, is_immediate: bool) -> (LedgerSink, Ledger) {
    LedgerSink::new(batch(&[]).schema(), key, is_immediate).unwrap()
}

fn writer(sink: &LedgerSink) -> Box<dyn SinkWriter> {
    let waker = std::task::Waker::noop().clone();
    let context = TaskContext { step: "s".into(), index: 0, parallelism: 1, threads: 1, groups: 0..128, is_persistent: true, waker };
    sink.writer(&batch(&[]).schema(), &context).unwrap()
}

fn values(entries: &Entries) -> Vec<String> {
    entries.batches.iter().flat_map(rows_of).collect()
}

fn prepare(writer: &mut dyn SinkWriter, epoch: u64) -> Option<Commit> {
    let handle = writer.pre_commit(Epoch(epoch)).unwrap()?;
    Some(Commit { epoch: Epoch(epoch), handle: handle().unwrap() })
}

#[test]
fn rows_are_pending_until_their_handle_is_committed() {
    let (sink, mut ledger) = ledger(None, false);
    let (mut a, mut b) = (writer(&sink), writer(&sink));
    let mut committer = sink.committer().unwrap();
    committer.begin().unwrap();
    a.write(batch(&[1])).unwrap();
    b.write(batch(&[2])).unwrap();
    a.write(batch(&[3])).unwrap();
    let commits: Vec<Commit> = [&mut a, &mut b].into_iter().filter_map(|writer| prepare(&mut **writer, 1)).collect();
    assert_eq!(commits.len(), 2);
    assert!(prepare(&mut *a, 2).is_none());
    a.write(batch(&[4])).unwrap();
    assert_eq!(values(&ledger.take().unwrap()), [""; 0]);
    committer.commit(&commits).unwrap();
    committer.commit(&commits).unwrap();
    assert_eq!(values(&ledger.pending(None).unwrap()), ["4"]);
    assert_eq!(values(&ledger.take().unwrap()), ["1", "2", "3"]);
    assert_eq!(values(&ledger.take().unwrap()), [""; 0]);
}

#[test]
fn a_restart_commits_what_the_checkpoint_names_and_removes_the_rest() {
    let (sink, mut ledger) = ledger(None, false);
    let mut a = writer(&sink);
    a.write(batch(&[1])).unwrap();
    let named = prepare(&mut *a, 1).unwrap();
    a.write(batch(&[2])).unwrap();
    prepare(&mut *a, 2).unwrap();
    a.write(batch(&[3])).unwrap();
    drop(a);
    let commits = [named];
    let mut committer = sink.committer().unwrap();
    committer.recover(&Recovered { commits: &commits, ..Recovered::default() }).unwrap();
    assert_eq!(values(&ledger.take().unwrap()), ["1"]);
    assert_eq!(values(&ledger.pending(None).unwrap()), [""; 0]);
}

#[test]
fn an_immediate_sink_shows_rows_as_they_come_and_keeps_them() {
    let (sink, mut ledger) = ledger(None, true);
    writer(&sink).write(batch(&[1])).unwrap();
    sink.committer().unwrap().begin().unwrap();
    writer(&sink).write(batch(&[1])).unwrap();
    assert_eq!(values(&ledger.take().unwrap()), ["1", "1"]);
}

#[test]
fn rows_of_an_updating_stream_are_changes_of_their_key() {
    let key = ["x".to_owned()];
    let (sink, mut ledger) = ledger(Some(&key), false);
    let mut a = writer(&sink);
    let mut committer = sink.committer().unwrap();
    a.write(batch(&[1, 2, 1])).unwrap();
    let first = prepare(&mut *a, 1).unwrap();
    a.write(batch(&[2, 3]).with_deletes(Some(BooleanBuffer::from(vec![true, false])))).unwrap();
    use Change::{Delete, Insert, Update};
    committer.commit(&[first]).unwrap();
    // What is pending follows what is committed, taken or not.
    assert_eq!(ledger.pending(Some(&key)).unwrap().changes, Some(vec![Delete, Insert]));
    assert_eq!(ledger.take().unwrap().changes, Some(vec![Insert, Insert, Update]));
    assert_eq!(ledger.pending(Some(&key)).unwrap().changes, Some(vec![Delete, Insert]));
    assert_eq!(rows_of(&ledger.latest().unwrap().unwrap()), ["2", "1"]);
    let second = prepare(&mut *a, 2).unwrap();
    committer.commit(&[second]).unwrap();
    assert_eq!(ledger.take().unwrap().changes, Some(vec![Delete, Insert]));
    assert_eq!(rows_of(&ledger.latest().unwrap().unwrap()), ["1", "3"]);
}
