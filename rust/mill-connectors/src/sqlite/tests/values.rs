//! What becomes of values and of keys.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array, NullArray, RecordBatch,
    StringArray, Time64MicrosecondArray, TimestampMicrosecondArray, UInt8Array, UInt64Array,
};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use mill_protocol::{Batch, ErrorKind, Sink, TaskContext};
use rusqlite::Connection;

use super::super::SqliteSink;
use super::{opened, pre_commit, query};

/// Upserts rows of one key column and a counter, each of them in an epoch of its own.
fn upsert_each(path: &Path, keys: &[ArrayRef]) -> Result<(), mill_protocol::Error> {
    let names: Vec<String> = (0..keys.len()).map(|index| format!("k{index}")).collect();
    let rows = keys[0].len();
    let value = Arc::new(Int64Array::from_iter_values(0..rows as i64)) as ArrayRef;
    let columns = names.iter().map(String::as_str).zip(keys.iter().cloned()).map(|(name, array)| (name, array, true));
    let data = RecordBatch::try_from_iter_with_nullable(columns.chain([("x", value, true)])).unwrap();
    let sink = SqliteSink::new(path, "out", Some(names.clone())).unwrap();
    sink.check(&data.schema(), Some(&names))?;
    let mut committer = opened(&sink, None);
    committer.begin()?;
    let context = TaskContext { step: "s".into(), index: 0, parallelism: 1, threads: 1, groups: 0..128, is_persistent: true, waker: std::task::Waker::noop().clone() };
    let mut a = sink.writer(&data.schema(), &context).unwrap();
    for row in 0..rows {
        a.write(Batch::new(data.slice(row, 1)))?;
        committer.commit(&[pre_commit(a.as_mut(), 1 + row as u64).unwrap()])?;
    }
    Ok(())
}

#[test]
fn null_and_nan_keys_of_every_type_are_one_row_that_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let text = Arc::new(StringArray::from(vec![Some("t"), None, None, Some("t")])) as ArrayRef;
    let keys: Vec<(&str, ArrayRef)> = vec![
        ("int", Arc::new(Int64Array::from(vec![Some(1), None, None, Some(1)]))),
        ("small", Arc::new(UInt8Array::from(vec![Some(1), None, None, Some(1)]))),
        ("bool", Arc::new(BooleanArray::from(vec![Some(true), None, None, Some(true)]))),
        ("float", Arc::new(Float64Array::from(vec![Some(0.5), None, None, Some(0.5)]))),
        ("nan", Arc::new(Float64Array::from(vec![Some(0.5), Some(f64::NAN), Some(-f64::NAN), Some(0.5)]))),
        ("zero", Arc::new(Float64Array::from(vec![Some(0.0), None, None, Some(-0.0)]))),
        ("text", Arc::clone(&text)),
        ("date", Arc::new(Date32Array::from(vec![Some(4), None, None, Some(4)]))),
        ("decimal", Arc::new(Decimal128Array::from(vec![Some(150), None, None, Some(150)]).with_precision_and_scale(5, 2).unwrap())),
        ("binary", Arc::new(BinaryArray::from(vec![Some(&b"b"[..]), None, None, Some(b"b")]))),
        ("dictionary", cast(&text, &DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8))).unwrap()),
    ];
    for (name, key) in &keys {
        let path = directory.path().join(format!("{name}.db"));
        upsert_each(&path, std::slice::from_ref(key)).unwrap();
        assert_eq!(query(&path, "SELECT x FROM out ORDER BY x"), ["2", "3"], "{name}");
        assert_eq!(query(&path, "SELECT k0 IS NULL FROM out ORDER BY x"), ["1", "0"], "{name}");
        for (other, second) in &keys {
            let path = directory.path().join(format!("{name}-{other}.db"));
            upsert_each(&path, &[Arc::clone(key), Arc::clone(second)]).unwrap();
            assert_eq!(query(&path, "SELECT x FROM out ORDER BY x"), ["2", "3"], "{name} {other}");
        }
    }
    let nothing = Arc::new(NullArray::new(3)) as ArrayRef;
    let path = directory.path().join("nothing.db");
    upsert_each(&path, &[nothing]).unwrap();
    assert_eq!(query(&path, "SELECT k0, x FROM out"), ["∅|2"]);
}

#[test]
fn nan_and_null_keys_that_would_become_one_row_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let nan = f64::NAN;
    let same = || Arc::new(Int64Array::from(vec![1; 2])) as ArrayRef;
    let mixed: Vec<Vec<ArrayRef>> = vec![
        vec![Arc::new(Float64Array::from(vec![Some(nan), None]))],
        vec![Arc::new(Float64Array::from(vec![None, Some(nan)]))],
        vec![same(), Arc::new(Float64Array::from(vec![None, Some(nan)]))],
        vec![Arc::new(Float64Array::from(vec![Some(nan), None])), Arc::new(Float64Array::from(vec![None, Some(nan)]))],
    ];
    for (at, keys) in mixed.iter().enumerate() {
        let path = directory.path().join(format!("mixed-{at}.db"));
        let error = upsert_each(&path, keys).unwrap_err();
        assert!(error.message().contains("NaN and null") && error.kind() == ErrorKind::Data, "{error}");
        assert_eq!(query(&path, "SELECT x FROM out"), ["0"], "the first row stays");
    }
    // Beside another key they are rows of their own.
    let path = directory.path().join("apart.db");
    let keys: [ArrayRef; 2] =
        [Arc::new(Int64Array::from(vec![1, 2])), Arc::new(Float64Array::from(vec![Some(nan), None]))];
    upsert_each(&path, &keys).unwrap();
    assert_eq!(query(&path, "SELECT k0, k1 FROM out ORDER BY x"), ["1|∅", "2|∅"]);
}

/// Appends rows and returns them as SQLite has them.
fn appended(path: &Path, array: ArrayRef) -> Result<Vec<String>, mill_protocol::Error> {
    let data = RecordBatch::try_from_iter_with_nullable([("x", array, true)]).unwrap();
    let sink = SqliteSink::new(path, "out", None).unwrap();
    sink.check(&data.schema(), None)?;
    let mut committer = opened(&sink, None);
    committer.begin()?;
    let context = TaskContext { step: "s".into(), index: 0, parallelism: 1, threads: 1, groups: 0..128, is_persistent: true, waker: std::task::Waker::noop().clone() };
    let mut a = sink.writer(&data.schema(), &context).unwrap();
    a.write(Batch::new(data))?;
    committer.commit(&[pre_commit(a.as_mut(), 1).unwrap()])?;
    Ok(query(path, "SELECT x FROM out"))
}

#[test]
fn values_are_exact_or_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let mut number = 0;
    let mut path = || {
        number += 1;
        directory.path().join(format!("{number}.db"))
    };
    let days = |days: i32| Arc::new(Date32Array::from(vec![days])) as ArrayRef;
    for (array, expected) in [
        (Arc::new(NullArray::new(2)) as ArrayRef, vec!["∅", "∅"]),
        (Arc::new(UInt64Array::from(vec![i64::MAX as u64])), vec!["9223372036854775807"]),
        (Arc::new(Int64Array::from(vec![i64::MIN])), vec!["-9223372036854775808"]),
        (Arc::new(Float64Array::from(vec![f64::INFINITY, f64::NAN])), vec!["inf", "∅"]),
        (Arc::new(Decimal128Array::from(vec![-150, 5]).with_precision_and_scale(20, 2).unwrap()), vec!["-1.50", "0.05"]),
        (days(2_932_897), vec!["+10000-01-01"]),
        (days(-719_529), vec!["-0001-12-31"]),
        (Arc::new(Time64MicrosecondArray::from(vec![86_399_999_999])), vec!["23:59:59.999999"]),
        (Arc::new(StringArray::from(vec!["007", ""])), vec!["007", ""]),
    ] {
        let name = format!("{:?}", array.data_type());
        assert_eq!(appended(&path(), array).unwrap(), expected, "{name}");
    }
    let error = appended(&path(), Arc::new(UInt64Array::from(vec![1, u64::MAX]))).unwrap_err();
    assert!(error.message().contains("\"x\": 18446744073709551615 is larger"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Data);
}

#[test]
fn a_table_that_would_change_values_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.db");
    let connection = Connection::open(&path).unwrap();
    let decimal = || Arc::new(Decimal128Array::from(vec![150]).with_precision_and_scale(20, 2).unwrap()) as ArrayRef;
    let large = || Arc::new(Int64Array::from(vec![i64::MAX])) as ArrayRef;
    let text = || Arc::new(StringArray::from(vec!["007"])) as ArrayRef;
    let real = || Arc::new(Float64Array::from(vec![0.1 + 0.2])) as ArrayRef;
    for (declared, array, expected) in [
        ("INTEGER", text(), Err("007")),
        ("NUMERIC", decimal(), Err("exact decimals")),
        ("DOUBLE", large(), Err("large integers")),
        ("VARCHAR(9)", real(), Err("15 digits")),
        ("VARCHAR(9)", text(), Ok("007")),
        ("", decimal(), Ok("1.50")),
        ("BIGINT", large(), Ok("9223372036854775807")),
        ("NUMERIC", large(), Ok("9223372036854775807")),
        ("NUMERIC", real(), Ok("0.30000000000000004")),
        ("DATETIME", Arc::new(Date32Array::from(vec![0])) as ArrayRef, Ok("1970-01-01")),
    ] {
        connection.execute_batch(&format!("DROP TABLE IF EXISTS out; CREATE TABLE out (x {declared})")).unwrap();
        match (appended(&path, array), expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, [expected], "{declared}"),
            (Err(error), Err(expected)) => assert!(error.message().contains(expected), "{declared}: {error}"),
            (found, expected) => panic!("{declared}: {found:?}, not {expected:?}"),
        }
    }
    // A null in another name of the rowid would become a number.
    connection.execute_batch("DROP TABLE out; CREATE TABLE out (x INTEGER PRIMARY KEY)").unwrap();
    let error = appended(&path, Arc::new(Int64Array::from(vec![Some(5), None]))).unwrap_err();
    assert!(error.message().contains("INT PRIMARY KEY"), "{error}");
    assert!(query(&path, "SELECT x FROM out").is_empty());
    connection.execute_batch("DROP TABLE out; CREATE TABLE out (k0 TEXT COLLATE NOCASE UNIQUE, x)").unwrap();
    let error = upsert_each(&path, &[text()]).unwrap_err();
    assert!(error.message().contains("NOCASE"), "{error}");
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
    let mut committer = opened(&sink, None);
    let context = TaskContext { step: "s".into(), index: 0, parallelism: 1, threads: 1, groups: 0..128, is_persistent: true, waker: std::task::Waker::noop().clone() };
    let mut a = sink.writer(&data.schema(), &context).unwrap();
    a.write(Batch::new(data)).unwrap();
    committer.commit(&[pre_commit(a.as_mut(), 1).unwrap()]).unwrap();
    assert_eq!(
        query(&path, "SELECT * FROM \"t; DROP\""),
        ["1|0.5|2013-01-01T05:15:00.250|2013-01-01T05:15:00.250Z", "∅|∅|∅|∅"]
    );
}
