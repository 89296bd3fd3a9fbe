use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, ListArray, RecordBatch, StringArray};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::Int64Type;
use mill_protocol::{Batch, Commit, Committer, Epoch, ErrorKind, Recovered, Run, Sink, SinkKind, SinkWriter, TaskContext};
use rusqlite::Connection;

use super::SqliteSink;
use super::committer::SqliteCommitter;

mod values;

fn batch(rows: &[(Option<&str>, i64)]) -> RecordBatch {
    let key = Arc::new(StringArray::from_iter(rows.iter().map(|r| r.0))) as ArrayRef;
    let value = Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.1))) as ArrayRef;
    RecordBatch::try_from_iter_with_nullable([("key", key, true), ("value", value, true)]).unwrap()
}

/// More rows than a handle holds: they wait in a file.
fn many() -> RecordBatch {
    let text = "x".repeat(1000);
    batch(&(0..2000).map(|i| (Some(text.as_str()), i)).collect::<Vec<_>>())
}

fn sink(path: &Path, key: Option<&str>) -> SqliteSink {
    let sink = SqliteSink::new(path, "out", key.map(|key| vec![key.to_owned()])).unwrap();
    sink.check(&batch(&[]).schema(), None).unwrap();
    sink
}

fn writer(sink: &SqliteSink, task: usize) -> Box<dyn SinkWriter> {
    let context = TaskContext { step: "s".into(), index: task, parallelism: 2, threads: 2, groups: 0..128, is_persistent: true, waker: std::task::Waker::noop().clone() };
    sink.writer(&batch(&[]).schema(), &context).unwrap()
}

fn pre_commit(writer: &mut dyn SinkWriter, epoch: u64) -> Option<Commit> {
    let epoch = Epoch(epoch);
    writer.pre_commit(epoch).unwrap().map(|finish| Commit { epoch, handle: finish().unwrap() })
}

/// The committer of a run of job 1 after this checkpoint; `None`: from nothing.
fn opened(sink: &SqliteSink, restored: Option<u64>) -> Box<dyn Committer> {
    opened_by(sink, Some(1), restored)
}

fn opened_by(sink: &SqliteSink, job: Option<u64>, restored: Option<u64>) -> Box<dyn Committer> {
    let mut committer = sink.committer().unwrap();
    committer.promise(&Run { job, sink: "sink", restored: restored.map(Epoch), ..Run::default() }).unwrap();
    committer
}

fn named(commits: &[Commit]) -> Recovered<'_> {
    Recovered { commits, ..Recovered::default() }
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
    let mut committer = opened(&sink, None);
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
    let mut committer = opened(&resumed, Some(1));
    committer.recover(&named(&commits)).unwrap();
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
    let mut committer = opened(&sink, None);
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
    let mut committer = opened(&sink, None);
    committer.begin().unwrap();
    let text = "x".repeat(1000);
    let rows: Vec<(Option<&str>, i64)> = (0..5000).map(|i| (Some(text.as_str()), i)).collect();
    let mut a = writer(&sink, 0);
    a.write(Batch::new(batch(&rows))).unwrap();
    a.write(Batch::new(many().slice(0, 10))).unwrap();
    let pending = pre_commit(a.as_mut(), 1).unwrap();
    assert!(pending.handle.len() < 1000 && hidden(directory.path()) == 1);
    a.write(Batch::new(batch(&rows))).unwrap();
    let unnamed = pre_commit(a.as_mut(), 2).unwrap();
    a.write(Batch::new(batch(&rows))).unwrap();
    std::mem::forget(a);
    drop((committer, sink));

    let sink = self::sink(&path, None);
    let mut committer = opened(&sink, Some(1));
    committer.recover(&named(std::slice::from_ref(&pending))).unwrap();
    assert_eq!(hidden(directory.path()), 0);
    assert_eq!(query(&path, "SELECT count(*), sum(value) FROM out"), [format!("5010|{}", 4999 * 5000 / 2 + 45)]);
    committer.commit(&[pending]).unwrap();
    assert_eq!(query(&path, "SELECT count(*) FROM out"), ["5010"]);
    let error = committer.commit(&[unnamed]).unwrap_err();
    assert!(error.message().contains("are lost"), "{error}");
}

#[test]
fn damage_to_kept_rows_is_seen_and_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.db");
    let sink = sink(&path, None);
    let mut committer = opened(&sink, None);
    committer.begin().unwrap();
    let mut a = writer(&sink, 0);
    a.write(Batch::new(many())).unwrap();
    let spooled = pre_commit(a.as_mut(), 1).unwrap();
    let entries = std::fs::read_dir(directory.path()).unwrap();
    let file = entries.map(|e| e.unwrap().path()).find(|p| p.to_str().unwrap().ends_with(".rows")).unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    assert!(committer.commit(&[spooled]).is_err());
    a.write(Batch::new(many().slice(0, 1))).unwrap();
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
        let mut committer = opened(&sink, None);
        committer.begin().unwrap();
        let mut a = writer(&sink, 0);
        a.write(Batch::new(batch(&[(Some("a"), 1)]))).unwrap();
        committer.commit(&[pre_commit(a.as_mut(), 7).unwrap()]).unwrap();
        drop(committer);
        let mut committer = opened(&sink, Some(6));
        let result = committer.recover(&Recovered::default());
        assert_eq!(result.is_err(), key.is_none());
        if let Err(error) = result {
            assert!(error.message().contains("rows of checkpoint 7"), "{error}");
        }
        // A job that starts from nothing appends or upserts.
        drop(committer);
        opened_by(&sink, Some(2), None).begin().unwrap();
    }
}

/// A database with the rows of epochs 1 to `epochs` of job 1, and the receipt of each.
fn committed(path: &Path, key: Option<&str>, epochs: u64) -> Vec<String> {
    let sink = sink(path, key);
    let mut committer = opened(&sink, None);
    committer.begin().unwrap();
    let mut a = writer(&sink, 0);
    (1..=epochs)
        .map(|epoch| {
            a.write(Batch::new(batch(&[(Some("a"), epoch as i64)]))).unwrap();
            committer.commit(&[pre_commit(a.as_mut(), epoch).unwrap()]).unwrap();
            committer.receipt().unwrap()
        })
        .collect()
}

#[test]
fn a_database_that_lacks_committed_epochs_is_refused_again_and_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.db");
    for key in [None, Some("key")] {
        let copy = directory.path().join("copy.db");
        let receipts = committed(&path, key, 2);
        std::fs::copy(&path, &copy).unwrap();
        let sink = sink(&path, key);
        let check = |receipt: &str| {
            let result = opened(&sink, Some(9)).recover(&Recovered { receipt: Some(receipt), ..Recovered::default() });
            result.map_err(|error| {
                assert_eq!(error.kind(), ErrorKind::Checkpoint, "{error}");
                error.message().to_owned()
            })
        };
        check(&receipts[0]).unwrap();
        check(&receipts[1]).unwrap();
        let later = receipts[1].replace(":2", ":3");
        assert!(check(&later).unwrap_err().contains("epochs up to 2 only"));
        let other_run = format!("{:016x}:1", 5);
        assert!(check(&other_run).unwrap_err().contains("epochs up to 2 only"));
        for (sql, what) in [
            ("DELETE FROM _millstream", "no note of any epoch"),
            ("DROP TABLE _millstream", "no notes of what was applied"),
            ("DROP TABLE out", "no table \"out\" any more"),
        ] {
            std::fs::copy(&copy, &path).unwrap();
            Connection::open(&path).unwrap().execute(sql, []).unwrap();
            let error = check(&receipts[1]).unwrap_err();
            assert!(error.contains(what) && error.contains("put the database back"), "{sql}: {error}");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(check(&receipts[1]).unwrap_err().contains("did not exist"));
        assert!(check(&receipts[1]).unwrap_err().contains("no note of any epoch"), "it stays refused");
        let elsewhere = self::sink(&directory.path().join("b.db"), key);
        std::fs::copy(&copy, &path).unwrap();
        let target = sink.target().unwrap();
        let recovered = Recovered { receipt: Some(&receipts[1]), target: Some(&target), ..Recovered::default() };
        let error = opened(&elsewhere, Some(9)).recover(&recovered).unwrap_err();
        assert!(error.message().contains("a.db\" when") && error.message().contains("b.db\":"), "{error}");
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn epochs_that_waited_for_thousands_of_failed_checkpoints_are_applied_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.db");
    let sink = sink(&path, None);
    let mut committer = opened(&sink, None);
    committer.begin().unwrap();
    let mut a = writer(&sink, 0);
    let pending: Vec<Commit> = (1..=3000)
        .map(|epoch| {
            a.write(Batch::new(batch(&[(Some("a"), epoch as i64)]))).unwrap();
            pre_commit(a.as_mut(), epoch).unwrap()
        })
        .collect();
    committer.commit(&pending).unwrap();
    let receipt = committer.receipt();
    drop(committer);
    let resumed = self::sink(&path, None);
    let mut committer = opened(&resumed, Some(3000));
    let receipt = receipt.as_deref();
    committer.recover(&Recovered { receipt, ..named(&pending) }).unwrap();
    assert_eq!(query(&path, "SELECT count(*), count(DISTINCT value), max(value) FROM out"), ["3000|3000|3000"]);
    assert_eq!(query(&path, "SELECT count(*) FROM _millstream"), ["1"]);
}

#[test]
fn notes_and_hidden_files_of_other_jobs_and_sinks_on_the_same_table_are_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.db");
    let first = sink(&path, None);
    let mut committer = opened(&first, None);
    committer.begin().unwrap();
    let mut a = writer(&first, 0);
    a.write(Batch::new(many().slice(0, 10))).unwrap();
    let done = pre_commit(a.as_mut(), 1).unwrap();
    committer.commit(std::slice::from_ref(&done)).unwrap();
    let receipt = committer.receipt();
    a.write(Batch::new(many())).unwrap();
    let spooled = pre_commit(a.as_mut(), 2).unwrap();
    drop((committer, a));
    // Other jobs, one of them without state, and another sink of the same job write the same table meanwhile.
    for (job, name) in [(Some(2), "sink"), (None, "sink"), (Some(1), "other")] {
        let sink = sink(&path, None);
        let mut committer = sink.committer().unwrap();
        committer.promise(&Run { job, sink: name, ..Run::default() }).unwrap();
        committer.begin().unwrap();
        let mut a = writer(&sink, 0);
        a.write(Batch::new(many())).unwrap();
        committer.commit(&[pre_commit(a.as_mut(), 1).unwrap()]).unwrap();
        committer.abort().unwrap();
        assert_eq!(hidden(directory.path()), 1, "{job:?} {name}");
    }
    let resumed = sink(&path, None);
    let pending = [done, spooled];
    let recovered = Recovered { receipt: receipt.as_deref(), ..named(&pending) };
    opened(&resumed, Some(2)).recover(&recovered).unwrap();
    assert_eq!(hidden(directory.path()), 0);
    assert_eq!(query(&path, "SELECT count(*) FROM out"), ["8010"]);
    let locks = std::fs::read_dir(directory.path()).unwrap().filter(|e| {
        e.as_ref().unwrap().file_name().to_str().unwrap().ends_with("-lock")
    });
    assert_eq!(locks.count(), 0, "a lock goes with its owner");
}

#[test]
fn what_a_killed_job_without_state_has_left_is_removed_by_the_next() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.db");
    let killed = sink(&path, None);
    let mut committer = opened_by(&killed, None, None);
    committer.begin().unwrap();
    let mut a = writer(&killed, 0);
    a.write(Batch::new(many())).unwrap();
    std::mem::forget(pre_commit(a.as_mut(), 1));
    assert_eq!(hidden(directory.path()), 1);
    drop(opened_by(&sink(&path, None), None, None));
    assert_eq!(hidden(directory.path()), 1, "its owner is still at work");
    drop(committer);
    std::fs::write(lock_of(directory.path(), "run-0123456789abcdef"), "").unwrap();
    let left = ".a.db-millstream-run-0123456789abcdef-0123456789abcdef-0-1.rows";
    std::fs::write(directory.path().join(left), "left").unwrap();
    drop(opened_by(&sink(&path, None), None, None));
    assert!(!directory.path().join(left).exists());
    assert!(query(&path, "SELECT name FROM sqlite_schema WHERE name = '_millstream'").is_empty());
}

fn lock_of(directory: &Path, owner: &str) -> std::path::PathBuf {
    directory.join(format!(".a.db-millstream-{owner}-lock"))
}

#[test]
fn a_handle_names_only_the_file_of_its_own_part() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.db");
    let sink = sink(&path, None);
    let mut committer = opened(&sink, None);
    committer.begin().unwrap();
    let mut a = writer(&sink, 0);
    a.write(Batch::new(many())).unwrap();
    let commit = pre_commit(a.as_mut(), 1).unwrap();
    let length = u32::from_le_bytes(commit.handle[..4].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&commit.handle[4..4 + length]).unwrap();
    let own = header["spooled"]["file"].as_str().unwrap().to_owned();
    std::fs::write(directory.path().join(".bashrc"), "").unwrap();
    std::fs::write(directory.path().join(own.replace("-0-", "-7-")), "").unwrap();
    let empty = 0x2D06_8005_38D3_94C2_u64;
    for (file, bytes) in [
        (".bashrc".to_owned(), 0), ("../a".to_owned(), 0), (format!("./{own}"), 9), (own.replace("-0-", "-7-"), 0),
        (own.clone(), 0), (own.clone(), 7),
    ] {
        let mut header = header.clone();
        header["spooled"] = serde_json::json!({"file": file, "bytes": bytes, "hash": empty});
        let header = serde_json::to_vec(&header).unwrap();
        let mut handle = (header.len() as u32).to_le_bytes().to_vec();
        handle.extend(&header);
        handle.extend(empty.to_le_bytes());
        let error = committer.commit(&[Commit { epoch: Epoch(1), handle }]).unwrap_err();
        assert!(error.message().contains("damaged"), "{file} {bytes}: {error}");
    }
    assert!(directory.path().join(".bashrc").exists());
    // A link of that name is not what was written.
    let real = directory.path().join("real");
    std::fs::rename(directory.path().join(&own), &real).unwrap();
    std::os::unix::fs::symlink(&real, directory.path().join(&own)).unwrap();
    assert!(committer.commit(std::slice::from_ref(&commit)).unwrap_err().message().contains("damaged"));
    std::fs::remove_file(directory.path().join(&own)).unwrap();
    std::fs::rename(&real, directory.path().join(&own)).unwrap();
    committer.commit(&[commit]).unwrap();
    assert_eq!(query(&path, "SELECT count(*) FROM out"), ["2000"]);
}

#[test]
fn a_locked_database_is_an_error_that_says_that_nothing_was_changed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.db");
    let sink = sink(&path, None);
    let mut committer = SqliteCommitter::new(Arc::clone(&sink.shared));
    committer.promise(&Run { job: Some(1), sink: "sink", ..Run::default() }).unwrap();
    committer.begin().unwrap();
    committer.connection().unwrap().busy_timeout(std::time::Duration::ZERO).unwrap();
    let mut a = writer(&sink, 0);
    a.write(Batch::new(batch(&[(Some("a"), 1)]))).unwrap();
    let pending = [pre_commit(a.as_mut(), 1).unwrap()];
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = committer.commit(&pending).unwrap_err();
    assert!(error.message().contains("nothing was changed") && error.message().contains("another program"), "{error}");
    other.execute_batch("ROLLBACK").unwrap();
    committer.commit(&pending).unwrap();
    assert_eq!(query(&path, "SELECT count(*) FROM out"), ["1"]);
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
    assert_eq!(error.message(), "it only adds rows", "the plan adds what to do");
    let error = of(Some("value")).check(&schema, Some(&["key".to_owned()])).unwrap_err();
    assert_eq!(error.message(), "it has another key (\"value\"): pass key=[\"key\"]");
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
fn two_runs_of_one_job_cannot_write_one_table() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.db");
    let first = sink(&path, None);
    let committer = opened(&first, None);
    let second = sink(&path, None);
    let error = second.committer().unwrap().promise(&Run { job: Some(1), sink: "sink", ..Run::default() }).unwrap_err();
    assert!(error.message().contains("another run of this job"), "{error}");
    drop(opened_by(&second, Some(2), None));
    drop(committer);
    drop(opened(&second, None));
}
