use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, RecordBatchOptions};
use arrow::datatypes::Schema;

use super::*;

/// Five records: value, time, behind and delete mark of each follow from its place.
fn batch() -> Batch {
    let values: ArrayRef = Arc::new(Int64Array::from_iter_values(0..5));
    Batch::new(RecordBatch::try_from_iter([("v", values)]).unwrap())
        .with_times(Some((0..5).map(|i| i * 10).collect()))
        .with_behind(Some((0..5).map(|i| i * 100).collect()))
        .with_deletes(Some((0..5).map(|i| i % 2 == 0).collect()))
        .with_split(SplitId::of("a"))
}

/// The batch has these of the five records, with all that is beside them.
fn assert_records(batch: &Batch, expected: &[i64]) {
    assert_eq!(batch.column(0).as_primitive::<Int64Type>().values().as_ref(), expected);
    assert!(batch.times().unwrap().iter().zip(expected).all(|(time, v)| *time == v * 10));
    assert!(batch.behind().unwrap().iter().zip(expected).all(|(behind, v)| *behind == v * 100));
    assert!(batch.deletes().unwrap().iter().zip(expected).all(|(is_deleted, v)| is_deleted == (v % 2 == 0)));
    assert_eq!(batch.times().unwrap().len(), expected.len());
    assert_eq!(batch.split(), SplitId::of("a"));
}

#[test]
fn what_is_beside_the_columns_moves_with_the_rows() {
    assert_records(&batch(), &[0, 1, 2, 3, 4]);
    assert_records(&batch().slice(1, 3), &[1, 2, 3]);
    assert_records(&batch().slice(1, 4).slice(2, 1), &[3]);
    assert_records(&batch().take(&vec![4, 0, 0, 2].into()).unwrap(), &[4, 0, 0, 2]);
    assert_records(&batch().slice(1, 4).take(&vec![3, 1].into()).unwrap(), &[4, 2]);
    let mask = BooleanArray::from(vec![Some(true), None, Some(false), Some(true), Some(true)]);
    assert_records(&batch().filter(&mask).unwrap(), &[0, 3, 4]);
}

#[test]
fn rows_without_columns_are_counted() {
    let options = RecordBatchOptions::new().with_row_count(Some(5));
    let data = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options).unwrap();
    let batch = Batch::new(data);
    assert_eq!(batch.take(&vec![4, 0].into()).unwrap().rows(), 2);
    assert_eq!(batch.filter(&BooleanArray::from(vec![true, false, false, true, true])).unwrap().rows(), 3);
    assert_eq!(batch.slice(2, 3).rows(), 3);
}

#[test]
#[should_panic(expected = "times must have one entry a row")]
fn a_time_too_few_is_a_bug() {
    let _ = batch().with_times(Some(vec![1].into()));
}

#[test]
#[should_panic(expected = "with_data keeps the rows")]
fn other_data_must_have_as_many_rows() {
    let other = batch().slice(0, 2).data().clone();
    let _ = batch().with_data(other);
}

#[test]
fn the_identity_of_a_split_never_changes() {
    // It is in checkpoints.
    assert_eq!(SplitId::of("flights.csv"), SplitId(818_592_921_833_540_470));
    assert_ne!(SplitId::of(""), SplitId::NONE);
}
