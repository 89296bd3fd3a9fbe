use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};

use super::*;

fn sample(values: &[i64]) -> Batch {
    let values: ArrayRef = Arc::new(Int64Array::from(values.to_vec()));
    Batch::new(RecordBatch::try_from_iter([("v", values)]).unwrap())
}

#[test]
fn joined_batches_keep_what_is_known_of_each_record() {
    let a = sample(&[1, 2]).with_times(Some(vec![10, 20].into())).with_behind(Some(vec![5, 25].into()));
    let b = sample(&[3]).with_times(Some(vec![30].into())).with_deletes(Some(BooleanBuffer::new_set(1)));
    let joined = join(&[a, b]).unwrap();
    assert_eq!(joined.data(), sample(&[1, 2, 3]).data());
    assert_eq!(joined.times().unwrap().as_ref(), [10, 20, 30]);
    assert_eq!(joined.behind().unwrap().as_ref(), [5, 25, i64::MIN]);
    assert_eq!(joined.deletes().unwrap().iter().collect::<Vec<_>>(), [false, false, true]);
    assert!(join(&[sample(&[1]), sample(&[2])]).unwrap().times().is_none());
}

#[test]
fn a_frame_gives_its_records_back() {
    let sent = sample(&[1, 2, 3]).with_times(Some(vec![1, 2, 3].into()));
    let received = batch(&Frame::encode(&sent).unwrap()).unwrap();
    assert_eq!(received.data(), sent.data());
    assert_eq!(received.times(), sent.times());
}
