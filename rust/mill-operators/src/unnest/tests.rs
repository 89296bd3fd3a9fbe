use std::sync::Arc;

use arrow::array::StructArray;
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, Fields, Schema};
use mill_protocol::testkit::{Compare, batch, check, integers, texts};

use super::*;
use crate::fixture::input;

#[test]
fn fields_take_the_place_of_the_struct_and_a_null_struct_gives_nulls() {
    let fields = Fields::from(vec![
        Field::new("city", DataType::Utf8, true),
        Field::new("zip", DataType::Int64, true),
    ]);
    let columns = vec![texts(&[Some("Rome"), Some("lost"), None]), integers(&[Some(1), Some(2), Some(3)])];
    let nulls = NullBuffer::from(vec![true, false, true]);
    let address: ArrayRef = Arc::new(StructArray::new(fields.clone(), columns, Some(nulls)));
    let ids = integers(&[Some(1), Some(2), Some(3)]);
    let rows = batch(&[("a", Arc::clone(&ids)), ("address", address), ("b", ids)]);
    let field = |name: &str| Field::new(name, DataType::Int64, true);
    let schema =
        Arc::new(Schema::new(vec![field("a"), fields[0].as_ref().clone(), fields[1].as_ref().clone(), field("b")]));
    let make = || -> Box<dyn Operator> { Box::new(Unnest::new(1, Arc::clone(&schema))) };
    let given = check(make, &input(rows), &Compare::Ordered);
    assert_eq!(given.rows, ["0: 1, \"Rome\", 1, 1", "0: 2, null, null, 2", "0: 3, null, 3, 3"]);
}
