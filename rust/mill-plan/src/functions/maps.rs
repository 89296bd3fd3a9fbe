//! Functions of maps.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, ListArray, MapArray, RecordBatch, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Schema};
use mill_protocol::{Error, Result};

use super::arguments::{first, mapped, needs, zipped};
use super::{Function, method};
use crate::compiled::bind::{Typed, meet};
use crate::compiled::value::failed;
use crate::compiled::{Node, compare};
use crate::expr::BinaryOp;
use crate::types::is_string;

pub(super) const FUNCTIONS: &[Function] = &[
    method("map.get", 2, 2, get),
    method("map.contains_key", 2, 2, get),
    method("map.keys", 1, 1, part),
    method("map.values", 1, 1, part),
    method("map.len", 1, 1, len),
];

/// The types of the keys and of the values.
fn types(name: &str, arg: &Typed) -> Result<(DataType, DataType)> {
    match &arg.data_type {
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) if fields.len() == 2 => Ok((fields[0].data_type().clone(), fields[1].data_type().clone())),
            _ => Err(Error::internal("a map without keys and values")),
        },
        _ => Err(needs(name, "a map", arg)),
    }
}

/// `keys()` and `values()`, as lists in the order of the map.
fn part(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let arg = first(args)?;
    let (keys, values) = types(name, &arg)?;
    let (column, element) = if name == "map.keys" { (0, keys) } else { (1, values) };
    let field = Arc::new(Field::new("item", element, true));
    let data_type = DataType::List(Arc::clone(&field));
    let kernel = mapped(move |array| {
        let map = array.as_map();
        let elements = Arc::clone(map.entries().column(column));
        let list = ListArray::try_new(Arc::clone(&field), map.offsets().clone(), elements, map.nulls().cloned());
        Ok(Arc::new(list.map_err(failed)?) as ArrayRef)
    });
    Typed::call(kernel, vec![arg], data_type, text)
}

fn len(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let arg = first(args)?;
    types(name, &arg)?;
    let kernel = mapped(|array| {
        let map = array.as_map();
        let lengths: Vec<i64> = map.value_offsets().windows(2).map(|pair| i64::from(pair[1] - pair[0])).collect();
        Ok(Arc::new(Int64Array::new(lengths.into(), map.nulls().cloned())) as _)
    });
    Typed::call(kernel, vec![arg], DataType::Int64, text)
}

/// The row of each entry.
fn rows_of(map: &MapArray) -> UInt32Array {
    let mut rows = vec![0_u32; map.entries().len()];
    for (row, pair) in map.value_offsets().windows(2).enumerate() {
        rows[pair[0] as usize..pair[1] as usize].fill(row as u32);
    }
    UInt32Array::from(rows)
}

/// `get(key)`: the value of a key, null if the map does not have it; of a key that it has twice, that of the last.
/// `contains_key(key)`: whether it has it.
fn get(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let mut args = args.into_iter();
    let (Some(map), Some(key)) = (args.next(), args.next()) else {
        return Err(Error::internal("map.get without arguments"));
    };
    let (key_type, value_type) = types(name, &map)?;
    let refused = || Error::schema(format!("{name}() looks for {} in {}", key.describe(), map.describe()));
    // Both sides are compared by the rules of `==`, as columns of one row an entry.
    let side = |at: usize, data_type: &DataType| {
        let node = Node::Column(at);
        Typed { node, data_type: data_type.clone(), constant: None, is_literal: false, text: Arc::clone(text) }
    };
    meet(&side(0, &key_type), &key).filter(|met| !met.is_nested() && is_string(met) == is_string(&key_type)).ok_or_else(refused)?;
    let wanted = if key.constant.is_some() { key.duplicate()? } else { side(1, &key.data_type) };
    let equal = compare::bind(BinaryOp::EqMissing, side(0, &key_type), wanted, text).map_err(|_| refused())?.node;
    let fields = vec![Field::new("key", key_type, true), Field::new("wanted", key.data_type.clone(), true)];
    let schema = Arc::new(Schema::new(fields));
    let is_get = name == "map.get";
    let kernel = zipped(move |arrays| {
        let map = arrays[0].as_map();
        let wanted = take(&arrays[1], &rows_of(map), None).map_err(failed)?;
        let entries = map.entries();
        let batch = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::clone(entries.column(0)), wanted]).map_err(failed)?;
        let equal = equal.run(&batch)?.into_array(batch.num_rows())?;
        let equal = equal.as_boolean();
        let offsets = map.value_offsets();
        let place = |row: usize| (offsets[row] as usize..offsets[row + 1] as usize).rev().find(|&at| equal.value(at));
        if is_get {
            let places: UInt32Array =
                (0..map.len()).map(|row| if map.is_valid(row) { place(row).map(|at| at as u32) } else { None }).collect();
            return take(entries.column(1), &places, None).map_err(failed);
        }
        let found: BooleanArray = (0..map.len()).map(|row| map.is_valid(row).then(|| place(row).is_some())).collect();
        Ok(Arc::new(found) as ArrayRef)
    });
    let data_type = if is_get { value_type } else { DataType::Boolean };
    Typed::call(kernel, vec![map, key], data_type, text)
}
