use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, RecordBatch};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::Int64Type;

use super::LatestRows;

fn batch(rows: &[(i64, i64)]) -> RecordBatch {
    let key = Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.0))) as _;
    let value = Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.1))) as _;
    RecordBatch::try_from_iter([("key", key), ("value", value)]).unwrap()
}

#[test]
fn the_last_row_of_a_key_counts_and_a_delete_removes_it() {
    let first = batch(&[(1, 10), (2, 20), (1, 11)]);
    let mut table = LatestRows::new(first.schema(), &["key".to_owned()]).unwrap();
    table.push(first, None).unwrap();
    table.push(batch(&[(2, 0), (3, 30)]), Some(&BooleanBuffer::from(vec![true, false]))).unwrap();
    assert_eq!(table.finish().unwrap(), batch(&[(1, 11), (3, 30)]));
}

#[test]
fn memory_follows_the_keys_and_not_the_updates() {
    let mut oracle = BTreeMap::new();
    let mut table = LatestRows::new(batch(&[]).schema(), &["key".to_owned()]).unwrap();
    for round in 0..200 {
        let rows: Vec<(i64, i64)> = (0..1000).map(|i| ((i * 7 + round) % 500, round * 1000 + i)).collect();
        oracle.extend(rows.iter().copied());
        table.push(batch(&rows), None).unwrap();
        assert!(table.rows < 2 * 500 + super::SUPERSEDED_ROWS_MAX + 1000);
    }
    let found = table.finish().unwrap();
    let keys = found.column(0).as_primitive::<Int64Type>();
    let values = found.column(1).as_primitive::<Int64Type>();
    let found: BTreeMap<i64, i64> = keys.values().iter().copied().zip(values.values().iter().copied()).collect();
    assert_eq!(found, oracle);
}

#[test]
fn a_key_that_is_no_column_is_named() {
    let error = LatestRows::new(batch(&[]).schema(), &["kye".to_owned()]).unwrap_err();
    assert!(error.message().contains("did you mean \"key\""), "{error}");
}
