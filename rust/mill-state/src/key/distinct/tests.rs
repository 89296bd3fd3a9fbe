use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray};
use arrow::datatypes::DataType;

use crate::key::KeyEncoder;
use crate::select::Span;

fn numbers(types: &[DataType], columns: &[ArrayRef], span: Span) -> (Vec<u32>, Vec<u32>) {
    let mut encoder = KeyEncoder::new(types).unwrap();
    encoder.encode(columns, columns[0].len()).unwrap();
    let kind = encoder.kind().clone();
    let keys = encoder.batch().distinct(&kind, span);
    (keys.of_records, keys.firsts)
}

#[test]
fn keys_are_numbered_in_the_order_of_their_first_records() {
    let words: ArrayRef = Arc::new(Int64Array::from(vec![Some(9), Some(5), None, Some(5), Some(0), None, Some(9)]));
    let all = Span { start: 0, len: 7 };
    assert_eq!(numbers(&[DataType::Int64], &[Arc::clone(&words)], all), (vec![0, 1, 2, 1, 3, 2, 0], vec![0, 1, 2, 4]));
    assert_eq!(numbers(&[DataType::Int64], &[words], Span { start: 3, len: 3 }), (vec![0, 1, 2], vec![3, 4, 5]));
}

#[test]
fn texts_are_compared_by_their_bytes() {
    let long = "a text that is much too long to lie within a view";
    let texts: ArrayRef = Arc::new(StringArray::from(vec![Some(long), Some("a"), None, Some(""), Some(long), Some("a"), None]));
    let all = Span { start: 0, len: 7 };
    assert_eq!(numbers(&[DataType::Utf8], &[texts], all), (vec![0, 1, 2, 3, 0, 1, 2], vec![0, 1, 2, 3]));
}

#[test]
fn several_columns_are_one_key() {
    let a: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), Some(1), None, Some(1)]));
    let b: ArrayRef = Arc::new(Int64Array::from(vec![Some(2), None, Some(2), Some(2)]));
    let all = Span { start: 0, len: 4 };
    assert_eq!(numbers(&[DataType::Int64, DataType::Int64], &[a, b], all), (vec![0, 1, 2, 0], vec![0, 1, 2]));
}
