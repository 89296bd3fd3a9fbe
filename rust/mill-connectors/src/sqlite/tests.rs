use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, ListArray, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::Int64Type;
use mill_protocol::{Batch, Commit, Delivery, Epoch, Sink, SinkKind, SinkWriter, TaskContext};
use rusqlite::Connection;

use super::SqliteSink;

fn batch(rows: &[(Option<&str>, i64)]) -> RecordBatch {
    let key = Arc::new(StringArray::from_iter(rows.iter().map(|r| r.0))) as ArrayRef;
    let value = Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.1))) as ArrayRef;
    RecordBatch::try_from_iter_with_nullable([("key", key, true), ("value", value, true)]).unwrap()
}

fn sink(path: &Path, key: Option<&str>) -> SqliteSink {
    let sink = SqliteSink::new(path, "out", key.map(|key| vec![key.to_owned()])).unwrap();
    sink.check(&batch(&[]).schema(), None).unwrap();
    sink
}

fn writer(sink: &SqliteSink, task: usize) -> Box<dyn SinkWriter> {
    let context = TaskContext { step: "s".into(), index: task, parallelism: 2, groups: 0..128, is_persistent: true };
    sink.writer(&batch(&[]).schema(), &context).unwrap()
}

fn pre_commit(writer: &mut dyn SinkWriter, epoch: u64) -> Option<Commit> {
    let epoch = Epoch(epoch);
    writer.pre_commit(epoch).unwrap().map(|finish| Commit { epoch, handle: finish().unwrap() })
}

fn query(path: &Path, sql: &str) -> Vec<String> {
    let connection = Connection::open(path).unwrap();
    let mut statement = connection.prepare(sql).unwrap();
    let columns = statement.column_count();
    let rows = statement.query_map([], |row| {
        let values = (0..columns).map(|index| match row.get_ref(index).unwrap() {
            rusqlite::types::ValueRef::Null => "∅".to_owned(),
            rusqlite::types::ValueRef::Integer(value) => value.to_string(),
            rusqlite::types::ValueRef::Real(value) => format!("{value:?}"),
            rusqlite::types::ValueRef::Text(value) => String::from_utf8_lossy(value).into_owned(),
            rusqlite::types::ValueRef::Blob(value) => format!("{value:?}"),
        });
        Ok(values.collect::<Vec<_>>().join("|"))
    });
    rows.unwrap().map(Result::unwrap).collect()
}

fn hidden(directory: &Path) -> usize {
    let entries = std::fs::read_dir(directory).unwrap();
    entries.filter(|e| e.as_ref().unwrap().file_name().to_str().unwrap().ends_with(".rows")).count()
}

#[test]
fn rows_are_appended_once_however_often_they_are_committed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.db");
    let sink = sink(&path, None);
    assert_eq!(sink.kind(), SinkKind::WriteAhead);
    let mut committer = sink.committer().unwrap();
    committer.begin().unwrap();
    let (mut a, mut b) = (writer(&sink, 0), writer(&sink, 1));
    a.write(Batch::new(batch(&[(Some("a"), 1), (None, 2)]))).unwrap();
    b.write(Batch::new(batch(&[(Some("a"), 1)]))).unwrap();
    let commits = [pre_commit(a.as_mut(), 1).unwrap(), pre_commit(b.as_mut(), 1).unwrap()];
    assert!(pre_commit(a.as_mut(), 2).is_none());
    assert!(query(&path, "SELECT * FROM out").is_empty());
    committer.commit(&commits).unwrap();
    committer.commit(&commits).unwrap();
    drop(committer);
    let resumed = self::sink(&path, None);
    let mut committer = resumed.committer().unwrap();
    committer.promise(Delivery::ExactlyOnce, Some(Epoch(1))).unwrap();
    committer.recover(&commits).unwrap();
    assert_eq!(query(&path, "SELECT * FROM out ORDER BY value"), ["a|1", "a|1", "∅|2"]);
    // A handle of a new run under a number that was used by another is not taken for it.
    let mut a = writer(&resumed, 0);
    a.write(Batch::new(batch(&[(Some("b"), 3)]))).unwrap();
    committer.commit(&[pre_commit(a.as_mut(), 1).unwrap()]).unwrap();
    assert_eq!(query(&path, "SELECT count(*) FROM out"), ["4"]);
}

#[test]
fn keyed_rows_are_upserts_and_withdrawals_delete_null_keys_too() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.db");
    let sink = sink(&path, Some("key"));
    assert_eq!(sink.kind(), SinkKind::Idempotent);
    sink.check(&batch(&[]).schema(), Some(&["key".to_owned()])).unwrap();
    let mut committer = sink.committer().unwrap();
    committer.begin().unwrap();
    let mut a = writer(&sink, 0);
    a.write(Batch::new(batch(&[(Some("a"), 1), (None, 2), (Some("b"), 3), (Some("a"), 4), (None, 5)]))).unwrap();
    committer.commit(&[pre_commit(a.as_mut(), 1).unwrap()]).unwrap();
    assert_eq!(query(&path, "SELECT * FROM out ORDER BY value"), ["b|3", "a|4", "∅|5"]);
    let deletes = BooleanBuffer::from(vec![true, true, false]);
    let rows = Batch::new(batch(&[(Some("a"), 0), (None, 0), (Some("c"), 6)])).with_deletes(Some(deletes));
    a.write(rows).unwrap();
    committer.commit(&[pre_commit(a.as_mut(), 2).unwrap()]).unwrap();
    assert_eq!(query(&path, "SELECT * FROM out ORDER BY value"), ["b|3", "c|6"]);
}

#[test]
fn many_rows_wait_in_a_file_that_is_removed_when_they_are_applied_or_not_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.db");
    let sink = sink(&path, None);
    let mut committer = sink.committer().unwrap();
    committer.begin().unwrap();
    let text = "x".repeat(1000);
    let rows: Vec<(Option<&str>, i64)> = (0..5000).map(|i| (Some(text.as_str()), i)).collect();
    let mut a = writer(&sink, 0);
    a.write(Batch::new(batch(&rows))).unwrap();
    a.write(Batch::new(batch(&rows[..10]))).unwrap();
    let named = pre_commit(a.as_mut(), 1).unwrap();
    assert!(named.handle.len() < 1000 && hidden(directory.path()) == 1);
    a.write(Batch::new(batch(&rows))).unwrap();
    let unnamed = pre_commit(a.as_mut(), 2).unwrap();
    a.write(Batch::new(batch(&rows))).unwrap();
    std::mem::forget(a);
    drop((committer, sink));

    let sink = self::sink(&path, None);
    let mut committer = sink.committer().unwrap();
    committer.promise(Delivery::ExactlyOnce, Some(Epoch(1))).unwrap();
    committer.recover(std::slice::from_ref(&named)).unwrap();
    assert_eq!(hidden(directory.path()), 0);
    assert_eq!(query(&path, "SELECT count(*), sum(value) FROM out"), [format!("5010|{}", 4999 * 5000 / 2 + 45)]);
    committer.commit(&[named]).unwrap();
    assert_eq!(query(&path, "SELECT count(*) FROM out"), ["5010"]);
    let error = committer.commit(&[unnamed]).unwrap_err();
    assert!(error.message().contains("are lost"), "{error}");
}

#[test]
fn damage_to_kept_rows_is_seen_and_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.db");
    let sink = sink(&path, None);
    let mut committer = sink.committer().unwrap();
    committer.begin().unwrap();
    let text = "x".repeat(1000);
    let rows: Vec<(Option<&str>, i64)> = (0..2000).map(|i| (Some(text.as_str()), i)).collect();
    let mut a = writer(&sink, 0);
    a.write(Batch::new(batch(&rows))).unwrap();
    let spooled = pre_commit(a.as_mut(), 1).unwrap();
    let entries = std::fs::read_dir(directory.path()).unwrap();
    let file = entries.map(|e| e.unwrap().path()).find(|p| p.to_str().unwrap().ends_with(".rows")).unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    assert!(committer.commit(&[spooled]).is_err());
    a.write(Batch::new(batch(&rows[..1]))).unwrap();
    let inline = pre_commit(a.as_mut(), 1).unwrap();
    for at in 0..inline.handle.len() {
        let mut handle = inline.handle.clone();
        handle[at] ^= 4;
        // Only the name of the part may differ without being seen: it is not covered by the checksum of the rows.
        let _ = committer.commit(&[Commit { epoch: Epoch(1), handle }]).is_err();
        let extra = query(&path, "SELECT count(*) FROM out WHERE value <> 0");
        assert_eq!(extra, ["0"]);
    }
}

#[test]
fn an_older_checkpoint_than_the_table_shows_is_refused_where_rows_are_appended() {
    let directory = tempfile::tempdir().unwrap();
    for key in [None, Some("key")] {
        let path = directory.path().join(format!("{}.db", key.is_some()));
        let sink = sink(&path, key);
        let mut committer = sink.committer().unwrap();
        committer.begin().unwrap();
        let mut a = writer(&sink, 0);
        a.write(Batch::new(batch(&[(Some("a"), 1)]))).unwrap();
        committer.commit(&[pre_commit(a.as_mut(), 7).unwrap()]).unwrap();
        drop(committer);
        let mut committer = sink.committer().unwrap();
        committer.promise(Delivery::ExactlyOnce, Some(Epoch(6))).unwrap();
        let result = committer.recover(&[]);
        assert_eq!(result.is_err(), key.is_none());
        if let Err(error) = result {
            assert!(error.message().contains("rows of checkpoint 7"), "{error}");
        }
        // A job that starts from nothing appends or upserts.
        drop(committer);
        sink.committer().unwrap().begin().unwrap();
    }
}

#[test]
fn values_of_all_types_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.db");
    let at = TimestampMicrosecondArray::from(vec![Some(1_357_017_300_250_000), None]);
    let data = RecordBatch::try_from_iter_with_nullable([
        ("ok", Arc::new(BooleanArray::from(vec![Some(true), None])) as ArrayRef, true),
        ("real \"x\"", Arc::new(Float64Array::from(vec![Some(0.5), None])) as ArrayRef, true),
        ("at", Arc::new(at.clone()) as ArrayRef, true),
        ("utc", Arc::new(at.with_timezone("UTC")) as ArrayRef, true),
    ])
    .unwrap();
    let sink = SqliteSink::new(&path, "t; DROP", None).unwrap();
    sink.check(&data.schema(), None).unwrap();
    let mut committer = sink.committer().unwrap();
    let context = TaskContext { step: "s".into(), index: 0, parallelism: 1, groups: 0..128, is_persistent: true };
    let mut a = sink.writer(&data.schema(), &context).unwrap();
    a.write(Batch::new(data)).unwrap();
    committer.commit(&[pre_commit(a.as_mut(), 1).unwrap()]).unwrap();
    assert_eq!(
        query(&path, "SELECT * FROM \"t; DROP\""),
        ["1|0.5|2013-01-01T05:15:00.250|2013-01-01T05:15:00.250Z", "∅|∅|∅|∅"]
    );
}

#[test]
fn what_does_not_fit_is_refused_before_anything_runs() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.db");
    let schema = batch(&[]).schema();
    let of = |key: Option<&str>| SqliteSink::new(&path, "out", key.map(|key| vec![key.to_owned()])).unwrap();
    let error = of(Some("kye")).check(&schema, None).unwrap_err();
    assert!(error.message().contains("did you mean \"key\""), "{error}");
    let error = of(None).check(&schema, Some(&["key".to_owned()])).unwrap_err();
    assert!(error.message().contains("emit=\"end\""), "{error}");
    let error = of(Some("value")).check(&schema, Some(&["key".to_owned()])).unwrap_err();
    assert!(error.message().contains("another key"), "{error}");
    let list = Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1)])])) as ArrayRef;
    let nested = RecordBatch::try_from_iter([("tags", list)]).unwrap().schema();
    assert!(of(None).check(&nested, None).unwrap_err().message().contains("SQLite cannot hold"));

    let connection = Connection::open(&path).unwrap();
    connection.execute("CREATE TABLE out (key TEXT, valeu INTEGER)", []).unwrap();
    let error = of(None).check(&schema, None).unwrap_err();
    assert!(error.message().contains("no column \"value\"; did you mean \"valeu\"?"), "{error}");
    connection.execute("ALTER TABLE out RENAME valeu TO value", []).unwrap();
    of(None).check(&schema, None).unwrap();
    let error = of(Some("key")).check(&schema, None).unwrap_err();
    assert!(error.message().contains("no primary key or unique index on (\"key\")"), "{error}");
    std::fs::write(&path, "this is not a database at all, it is a text file that somebody put here").unwrap();
    assert!(of(None).check(&schema, None).is_err());
    let nowhere = SqliteSink::new(directory.path().join("no/a.db"), "out", None).unwrap();
    assert!(nowhere.check(&schema, None).unwrap_err().message().contains("no directory"));
}

#[test]
fn two_jobs_cannot_write_one_table() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.db");
    let committer = sink(&path, None).committer().unwrap();
    assert!(sink(&path, None).committer().err().unwrap().message().contains("another job"));
    let other = SqliteSink::new(&path, "other", None).unwrap();
    other.committer().unwrap();
    drop(committer);
    sink(&path, None).committer().unwrap();
}
