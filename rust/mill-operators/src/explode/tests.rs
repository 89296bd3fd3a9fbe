use std::sync::Arc;

use arrow::array::{FixedSizeListArray, Int64Array, LargeListArray, ListArray};
use arrow::datatypes::{Field, Int64Type, Schema};
use mill_protocol::testkit::{Compare, batch, check, integers};
use mill_protocol::testkit::Transcript;

use super::*;
use crate::fixture::input;

fn exploded(lists: ArrayRef, keep_empty: bool) -> Transcript {
    let ids = integers(&(0..lists.len() as i64).map(Some).collect::<Vec<_>>());
    let times = (0..lists.len() as i64).collect();
    let rows = batch(&[("id", ids), ("list", lists)]).with_times(Some(times));
    let field = |name: &str| Field::new(name, DataType::Int64, true);
    let schema = Arc::new(Schema::new(vec![field("id"), field("list")]));
    let make = || -> Box<dyn Operator> { Box::new(Explode::new(1, keep_empty, Arc::clone(&schema))) };
    check(make, &input(rows), &Compare::Ordered)
}

fn sample() -> Vec<Option<Vec<Option<i64>>>> {
    vec![Some(vec![Some(7), None]), Some(vec![]), None, Some(vec![Some(9)])]
}

#[test]
fn each_element_becomes_a_record() {
    let lists = Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(sample()));
    assert_eq!(exploded(lists, false).rows, ["0: 0, 7 @0", "0: 0, null @0", "0: 3, 9 @3"]);
}

#[test]
fn empty_lists_are_kept_on_request() {
    let lists = Arc::new(LargeListArray::from_iter_primitive::<Int64Type, _, _>(sample()));
    let expected = ["0: 0, 7 @0", "0: 0, null @0", "0: 1, null @1", "0: 2, null @2", "0: 3, 9 @3"];
    assert_eq!(exploded(lists, true).rows, expected);
}

#[test]
fn elements_of_a_null_list_are_not_shown() {
    let pairs = vec![Some(vec![Some(1), Some(2)]), None, Some(vec![Some(5), Some(6)])];
    let lists = Arc::new(FixedSizeListArray::from_iter_primitive::<Int64Type, _, _>(pairs, 2));
    assert_eq!(exploded(lists, false).rows, ["0: 0, 1 @0", "0: 0, 2 @0", "0: 2, 5 @2", "0: 2, 6 @2"]);
}

#[test]
fn large_output_is_given_in_pieces() {
    let length = 20_000;
    let lists: Vec<_> = (0..40).map(|_| Some((0..length).map(Some).collect::<Vec<_>>())).collect();
    let lists: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(lists));
    let field = Field::new("list", DataType::Int64, true);
    let mut explode = Explode::new(0, false, Arc::new(Schema::new(vec![field])));
    let mut out = Outbox::default();
    let mut progress = explode.on_batch(0, batch(&[("list", lists)]), &mut out).expect("lists of integers");
    let mut sum = 0;
    loop {
        assert!(out.len() <= PIECES_MAX, "{} batches wait", out.len());
        while let Some(mill_protocol::Emission::Batch(0, piece)) = out.pop() {
            assert!(piece.rows() <= ROWS_PER_PIECE);
            let values: &Int64Array = piece.column(0).as_primitive();
            sum += values.values().iter().sum::<i64>();
        }
        if progress == Progress::Done {
            break;
        }
        progress = explode.resume(&mut out).expect("lists of integers");
    }
    assert_eq!(sum, 40 * (length * (length - 1) / 2));
}
