use std::sync::Arc;

use arrow::array::{Decimal128Array, Decimal256Array, DictionaryArray, Int32Array, ListArray, StructArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{Field, Int32Type, i256};

use super::*;

/// A column of this precision, whatever the values.
fn decimals(values: Vec<Option<i128>>, precision: u8, scale: i8) -> ArrayRef {
    Arc::new(Decimal128Array::from(values).with_precision_and_scale(precision, scale).unwrap())
}

#[test]
fn a_decimal_longer_than_its_type_is_found_with_all_its_digits() {
    let huge = decimals(vec![Some(1), None, Some(i128::MAX)], 38, 0);
    let found = too_many_digits(&huge).unwrap();
    assert_eq!(found.row, 2);
    assert_eq!(found.message, "170141183460469231731687303715884105727 has 39 digits, and decimal[38, 0] holds 38");
    assert_eq!(too_many_digits(&huge.slice(0, 2)), None);
    assert_eq!(too_many_digits(&huge.slice(2, 1)).unwrap().row, 0);

    let scaled = too_many_digits(&decimals(vec![Some(-1_234)], 3, 3)).unwrap();
    assert_eq!(scaled.message, "-1.234 has 4 digits, and decimal[3, 3] holds 3");
    let small = too_many_digits(&decimals(vec![Some(100)], 2, -1)).unwrap();
    assert_eq!(small.message, "100e1 has 3 digits, and decimal[2, -1] holds 2");

    let wide: ArrayRef = Arc::new(Decimal256Array::from(vec![i256::MAX]).with_precision_and_scale(76, 0).unwrap());
    assert!(too_many_digits(&wide).unwrap().message.contains("has 77 digits, and decimal[76, 0] holds 76"));
}

#[test]
fn what_no_row_has_does_not_count() {
    // A null over a value that is too long.
    let hidden = Decimal128Array::new(vec![100].into(), Some(NullBuffer::new_null(1))).with_precision_and_scale(2, 0).unwrap();
    assert_eq!(too_many_digits(&(Arc::new(hidden) as ArrayRef)), None);

    let item = Arc::new(Field::new_list_field(DataType::Decimal128(2, 0), true));
    let elements = decimals(vec![Some(1), Some(100), Some(2)], 2, 0);
    let nulls = NullBuffer::from(vec![true, false, true]);
    let lists: ArrayRef =
        Arc::new(ListArray::new(item, OffsetBuffer::new(vec![0, 1, 2, 3].into()), elements, Some(nulls)));
    assert_eq!(too_many_digits(&lists), None);
}

#[test]
fn decimals_within_others_are_found_with_the_row_of_the_column() {
    let item = Arc::new(Field::new_list_field(DataType::Decimal128(2, 0), true));
    let elements = decimals(vec![Some(1), Some(2), Some(100)], 2, 0);
    let lists: ArrayRef =
        Arc::new(ListArray::new(item, OffsetBuffer::new(vec![0, 2, 2, 3].into()), Arc::clone(&elements), None));
    assert_eq!(too_many_digits(&lists).unwrap().row, 2);

    let field = Arc::new(Field::new("x", DataType::Decimal128(2, 0), true));
    let structs: ArrayRef = Arc::new(StructArray::from(vec![(field, Arc::clone(&elements))]));
    assert_eq!(too_many_digits(&structs).unwrap().row, 2);

    let codes = Int32Array::from(vec![Some(0), None, Some(2), Some(1)]);
    let coded: ArrayRef = Arc::new(DictionaryArray::<Int32Type>::new(codes.clone(), Arc::clone(&elements)));
    assert_eq!(too_many_digits(&coded).unwrap().row, 2);
    let coded: ArrayRef = Arc::new(DictionaryArray::<Int32Type>::new(codes.slice(0, 2), elements));
    assert_eq!(too_many_digits(&coded), None);
}
