use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray, UInt32Array};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Field};

use super::*;

/// What a copy of these rows alone takes, as Arrow counts it; it counts one offset more than there are rows, of each list and text.
fn copied(column: &ArrayRef) -> usize {
    let rows: UInt32Array = (0..column.len() as u32).collect::<Vec<_>>().into();
    take(column, &rows, None).unwrap().to_data().get_slice_memory_size().unwrap()
}

fn columns() -> Vec<ArrayRef> {
    let texts: ArrayRef = Arc::new(StringArray::from_iter((0..200).map(|n| (n % 7 != 0).then(|| "text ".repeat(n % 11)))));
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..200));
    let list = DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)));
    let fields = RecordBatch::try_from_iter([("a", Arc::clone(&texts)), ("b", Arc::clone(&numbers))]).unwrap();
    let mut found: Vec<ArrayRef> = [DataType::LargeUtf8, DataType::Binary, list].iter().map(|to| cast(&texts, to).unwrap()).collect();
    found.extend([
        texts,
        numbers,
        Arc::new(Int32Array::from_iter((0..200).map(|n| (n % 3 > 0).then_some(n)))) as ArrayRef,
        Arc::new(Float64Array::from_iter_values((0..200).map(f64::from))),
        Arc::new(BooleanArray::from_iter((0..200).map(|n| Some(n % 2 == 0)))),
        Arc::new(arrow::array::StructArray::from(fields)),
    ]);
    found
}

#[test]
fn a_slice_is_as_large_as_a_copy_of_its_rows() {
    for column in columns() {
        for (start, len) in [(0, 200), (0, 0), (13, 1), (13, 100), (150, 50)] {
            let slice = column.slice(start, len);
            let (found, wanted) = (shown_bytes(&slice), copied(&slice));
            assert!(found.abs_diff(wanted) <= 24 + len / 4, "{:?} {start} {len}: {found}, copied {wanted}", column.data_type());
        }
    }
}

#[test]
fn long_texts_of_views_count_and_short_ones_lie_in_the_view() {
    let texts = StringArray::from(vec!["short", "a text that is long", "another text that is long"]);
    let views = cast(&texts, &DataType::Utf8View).unwrap();
    assert_eq!(shown_bytes(&views), 3 * 16 + 19 + 25);
    assert_eq!(shown_bytes(&views.slice(0, 2)), 2 * 16 + 19);
}

#[test]
fn of_a_list_only_the_items_of_the_slice_count() {
    let items = DataType::List(Arc::new(Field::new_list_field(DataType::Int64, true)));
    let lists = cast(&(Arc::new(Int64Array::from_iter_values(0..1000)) as ArrayRef), &items).unwrap();
    assert_eq!(shown_bytes(&lists.slice(10, 3)), 3 * 4 + 3 * 8);
}
