//! Functions of lists and structs.

pub(super) mod eval;
mod sets;
mod sums;
mod total;

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, ListArray, RecordBatch, StringBuilder, StructArray, UInt32Array,
    make_comparator,
};
use arrow::buffer::{BooleanBuffer, NullBuffer, OffsetBuffer};
use arrow::compute::{SortOptions, interleave, take};
use arrow::datatypes::{DataType, Field, Fields, Int64Type, Schema};
use datafusion_common::ScalarValue;
use mill_frame::types::canonical_array;
use mill_protocol::{Error, Result};

use super::arguments::{as_int64, as_list, constant_bool, constant_str, first, mapped, needs, of_datafusion, zipped};
use super::{ANY, Function, free, method};
use crate::compiled::bind::{Typed, meet};
use crate::compiled::{Node, compare};
use crate::compiled::value::failed;
use crate::expr::BinaryOp;
use crate::suggest::{did_you_mean, listed};
use crate::types::is_string;

pub(super) const FUNCTIONS: &[Function] = &[
    method("list.len", 1, 1, len),
    method("list.get", 2, 3, get),
    method("list.first", 1, 1, get),
    method("list.last", 1, 1, get),
    method("list.contains", 2, 2, contains),
    method("list.join", 2, 2, join),
    method("list.sum", 1, 1, sums::sum),
    method("list.mean", 1, 1, sums::sum),
    method("list.min", 1, 1, extreme),
    method("list.max", 1, 1, extreme),
    method("list.sort", 1, 2, sort),
    method("list.unique", 1, 1, sets::unique),
    method("list.reverse", 1, 1, reverse),
    method("list.slice", 2, 3, slice),
    method("list.head", 2, 2, slice),
    method("list.tail", 2, 2, slice),
    method("list.set_union", 2, 2, sets::set),
    method("list.set_intersection", 2, 2, sets::set),
    method("list.set_difference", 2, 2, sets::set),
    method("list.mode", 1, 1, mode),
    free("concat_list", 1, ANY, concat_list),
    method("by_pair", 2, 2, by_pair),
    method("struct.field", 2, 2, struct_field),
];

fn len(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let (arg, _) = as_list(name, first(args)?)?;
    let kernel = mapped(|array| {
        let list = array.as_list::<i32>();
        let lengths: Vec<i64> = list.value_offsets().windows(2).map(|pair| i64::from(pair[1] - pair[0])).collect();
        Ok(Arc::new(Int64Array::new(lengths.into(), list.nulls().cloned())) as _)
    });
    Typed::call(kernel, vec![arg], DataType::Int64, text)
}

/// `get(index, null_on_oob=False)`, `first()`, `last()`; a negative index counts from the end.
fn get(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let is_lenient = constant_bool(name, "null_on_oob", args.get(2), false)? || name != "list.get";
    let mut args = args.into_iter();
    let (list, element) = match args.next() {
        Some(arg) => as_list(name, arg)?,
        None => return Err(Error::internal("list.get without a list")),
    };
    let index = match (name, args.next()) {
        ("list.get", Some(index)) => as_int64(name, index)?,
        ("list.last", _) => Typed::literal(ScalarValue::Int64(Some(-1)))?,
        _ => Typed::literal(ScalarValue::Int64(Some(0)))?,
    };
    let kernel = zipped(move |arrays| {
        let list = arrays[0].as_list::<i32>();
        let indices = arrays[1].as_primitive::<Int64Type>();
        let mut places: Vec<Option<u32>> = Vec::with_capacity(list.len());
        for (row, pair) in list.value_offsets().windows(2).enumerate() {
            if list.is_null(row) || indices.is_null(row) {
                places.push(None);
                continue;
            }
            let (start, length, index) = (i64::from(pair[0]), i64::from(pair[1] - pair[0]), indices.value(row));
            let at = if index < 0 { length + index } else { index };
            if (0..length).contains(&at) {
                places.push(Some((start + at) as u32));
            } else if is_lenient {
                places.push(None);
            } else {
                return Err(Error::data(format!(
                    "index {index} is out of bounds of a list of {length}; null_on_oob=True makes it null"
                )));
            }
        }
        take(list.values(), &UInt32Array::from(places), None).map_err(failed)
    });
    Typed::call(kernel, vec![list, index], element, text)
}

/// The row of each element.
fn rows_of(list: &ListArray) -> UInt32Array {
    let mut rows = vec![0_u32; list.values().len()];
    for (row, pair) in list.value_offsets().windows(2).enumerate() {
        rows[pair[0] as usize..pair[1] as usize].fill(row as u32);
    }
    UInt32Array::from(rows)
}

fn contains(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let mut args = args.into_iter();
    let (Some(list), Some(item)) = (args.next(), args.next()) else {
        return Err(Error::internal("list.contains without arguments"));
    };
    let (list, element) = as_list(name, list)?;
    let refused = || Error::schema(format!("{name}() looks for {} in {}", item.describe(), list.describe()));
    // Both sides are compared by the rules of `==`, as columns of one row an element.
    let side = |at: usize, data_type: &DataType| {
        let node = Node::Column(at);
        Typed { node, data_type: data_type.clone(), constant: None, is_literal: false, text: Arc::clone(text) }
    };
    meet(&side(0, &element), &item).filter(|met| !met.is_nested() && is_string(met) == is_string(&element)).ok_or_else(refused)?;
    let wanted = if item.constant.is_some() { item.duplicate()? } else { side(1, &item.data_type) };
    let equal = compare::bind(BinaryOp::EqMissing, side(0, &element), wanted, text).map_err(|_| refused())?.node;
    let fields = vec![Field::new("element", element, true), Field::new("item", item.data_type.clone(), true)];
    let schema = Arc::new(Schema::new(fields));
    let kernel = zipped(move |arrays| {
        let list = arrays[0].as_list::<i32>();
        if list.is_empty() || list.values().is_empty() {
            return Ok(Arc::new(BooleanArray::new(BooleanBuffer::new_unset(list.len()), list.nulls().cloned())) as _);
        }
        let items = take(&arrays[1], &rows_of(list), None).map_err(failed)?;
        let batch = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::clone(list.values()), items]).map_err(failed)?;
        let equal = equal.run(&batch)?.into_array(batch.num_rows())?;
        let equal = equal.as_boolean();
        let offsets = list.value_offsets();
        let found = BooleanBuffer::collect_bool(list.len(), |row| {
            (offsets[row] as usize..offsets[row + 1] as usize).any(|at| equal.value(at))
        });
        Ok(Arc::new(BooleanArray::new(found, list.nulls().cloned())) as ArrayRef)
    });
    Typed::call(kernel, vec![list, item], DataType::Boolean, text)
}

/// The elements as one string; nulls are left out.
fn join(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let separator = constant_str(name, "separator", &args[1])?.unwrap_or_default();
    let (list, element) = as_list(name, first(args)?)?;
    if !is_string(&element) {
        return Err(needs(name, "a list of strings", &list));
    }
    let list = list.coerce(&DataType::new_list(DataType::Utf8, true))?;
    let kernel = mapped(move |array| {
        let list = array.as_list::<i32>();
        let texts = list.values().as_string::<i32>();
        let mut result = StringBuilder::with_capacity(list.len(), texts.value_data().len());
        let mut joined = String::new();
        for (row, pair) in list.value_offsets().windows(2).enumerate() {
            if list.is_null(row) {
                result.append_null();
                continue;
            }
            joined.clear();
            let mut is_first = true;
            for at in (pair[0] as usize..pair[1] as usize).filter(|&at| texts.is_valid(at)) {
                if !std::mem::replace(&mut is_first, false) {
                    joined.push_str(&separator);
                }
                joined.push_str(texts.value(at));
            }
            result.append_value(&joined);
        }
        Ok(Arc::new(result.finish()) as _)
    });
    Typed::call(kernel, vec![list], DataType::Utf8, text)
}

/// The smallest or largest element; nulls are left out.
fn extreme(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let smallest = name == "list.min";
    let (list, element) = as_list(name, first(args)?)?;
    if element.is_nested() {
        return Err(needs(name, "a list of values with an order", &list));
    }
    let kernel = mapped(move |array| {
        let list = array.as_list::<i32>();
        let values = list.values();
        let compare = make_comparator(values, values, SortOptions::default()).map_err(failed)?;
        let best = |pair: &[i32]| {
            let there = (pair[0] as usize..pair[1] as usize).filter(|&at| values.is_valid(at));
            match smallest {
                true => there.min_by(|&a, &b| compare(a, b)),
                false => there.max_by(|&a, &b| compare(a, b)),
            }
        };
        let rows = list.value_offsets().windows(2).enumerate();
        let places: UInt32Array =
            rows.map(|(row, pair)| if list.is_valid(row) { best(pair).map(|at| at as u32) } else { None }).collect();
        take(values, &places, None).map_err(failed)
    });
    Typed::call(kernel, vec![list], element, text)
}

/// `sort(descending=False)`; nulls come first.
fn sort(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let descending = constant_bool(name, "descending", args.get(1), false)?;
    let (list, element) = as_list(name, first(args)?)?;
    if element.is_nested() {
        return Err(needs(name, "a list of values with an order", &list));
    }
    let data_type = list.data_type.clone();
    let kernel = mapped(move |array| {
        let list = array.as_list::<i32>();
        let values = list.values();
        let options = SortOptions { descending, nulls_first: true };
        let compare = make_comparator(values, values, options).map_err(failed)?;
        let mut places: Vec<u32> = Vec::with_capacity(values.len());
        rebuilt(list, &mut places, |pair, places| {
            let start = places.len();
            places.extend(pair[0] as u32..pair[1] as u32);
            places[start..].sort_by(|&a, &b| compare(a as usize, b as usize));
        })
    });
    Typed::call(kernel, vec![list], data_type, text)
}

/// A list of the elements at the places that `pick` returns for each row.
fn rebuilt(list: &ListArray, places: &mut Vec<u32>, pick: impl Fn(&[i32], &mut Vec<u32>)) -> Result<ArrayRef> {
    let mut offsets: Vec<i32> = Vec::with_capacity(list.len() + 1);
    offsets.push(0);
    for (row, pair) in list.value_offsets().windows(2).enumerate() {
        if list.is_valid(row) {
            pick(pair, places);
        }
        offsets.push(places.len() as i32);
    }
    let values = take(list.values(), &UInt32Array::from(std::mem::take(places)), None).map_err(failed)?;
    let DataType::List(field) = list.data_type() else { return Err(Error::internal("a list that is none")) };
    let result = ListArray::try_new(Arc::clone(field), OffsetBuffer::new(offsets.into()), values, list.nulls().cloned());
    Ok(Arc::new(result.map_err(failed)?))
}

/// `slice(offset, length=None)`, `head(n)`, `tail(n)`.
fn slice(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let short = name.trim_start_matches("list.").to_owned();
    let mut args = args.into_iter();
    let (list, _) = match args.next() {
        Some(arg) => as_list(name, arg)?,
        None => return Err(Error::internal("list.slice without a list")),
    };
    let mut all = vec![list];
    for arg in args {
        all.push(as_int64(name, arg)?);
    }
    let data_type = all[0].data_type.clone();
    let kernel = zipped(move |arrays| {
        let list = arrays[0].as_list::<i32>();
        let number = |at: usize, row: usize| {
            let numbers = arrays.get(at)?.as_primitive::<Int64Type>();
            numbers.is_valid(row).then(|| numbers.value(row))
        };
        let mut places = Vec::with_capacity(list.values().len());
        let row = std::cell::Cell::new(0);
        let offsets = list.value_offsets();
        rebuilt(list, &mut places, |pair, places| {
            // Rows come in order, but null ones are left out.
            while !std::ptr::eq(&offsets[row.get()], &pair[0]) {
                row.set(row.get() + 1);
            }
            let length = i64::from(pair[1] - pair[0]);
            let first = number(1, row.get()).unwrap_or(0);
            let (start, count) = match short.as_str() {
                "head" => (0, if first < 0 { (length + first).max(0) } else { first }),
                "tail" if first < 0 => ((-first).min(length), length),
                "tail" => ((length - first).max(0), first),
                _ => {
                    let start = if first < 0 { length + first } else { first };
                    let count = number(2, row.get()).unwrap_or(i64::MAX).max(0);
                    // What is before the list is cut off the count.
                    (start.max(0), if start < 0 && count < i64::MAX { (count + start).max(0) } else { count })
                }
            };
            let (start, end) = (start.min(length), start.saturating_add(count).min(length));
            places.extend((i64::from(pair[0]) + start) as u32..(i64::from(pair[0]) + end.max(start)) as u32);
        })
    });
    Typed::call(kernel, all, data_type, text)
}

/// The elements from the last to the first.
fn reverse(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let (list, _) = as_list(name, first(args)?)?;
    let data_type = list.data_type.clone();
    of_datafusion(&datafusion_functions_nested::reverse::array_reverse_udf(), vec![list], text)?.coerce(&data_type)
}

fn struct_field(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let wanted = constant_str(name, "name", &args[1])?.unwrap_or_default();
    let arg = first(args)?;
    let DataType::Struct(fields) = arg.data_type.clone() else { return Err(needs(name, "a struct", &arg)) };
    let Some(at) = fields.iter().position(|field| field.name() == &wanted) else {
        let names: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
        return Err(Error::schema(format!(
            "{} has no field {wanted:?}{} fields: {}",
            arg.text,
            did_you_mean(&wanted, names.iter().copied()),
            listed(&names)
        )));
    };
    let data_type = Field::data_type(&fields[at]).clone();
    let kernel = mapped(move |array| {
        let structs: &StructArray = array.as_struct();
        let values = structs.column(at);
        // A field of a struct that is null is null.
        let Some(own) = structs.nulls() else { return Ok(Arc::clone(values)) };
        let nulls = NullBuffer::union(Some(own), values.logical_nulls().as_ref());
        let data = values.to_data().into_builder().nulls(nulls).build().map_err(failed)?;
        Ok(arrow::array::make_array(data))
    });
    Typed::call(kernel, vec![arg], data_type, text)
}

/// The values that are there most often, in their order; nulls do not count.
fn mode(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let (list, element) = as_list(name, first(args)?)?;
    if element.is_nested() {
        return Err(needs(name, "a list of values with an order", &list));
    }
    let data_type = list.data_type.clone();
    let kernel = mapped(move |array| {
        let list = array.as_list::<i32>();
        // One NaN and one zero, as keys have them.
        let keys = canonical_array(list.values()).map_err(|e| Error::internal(e.to_string()))?;
        let compare = make_comparator(&keys, &keys, SortOptions::default()).map_err(failed)?;
        let mut places: Vec<u32> = Vec::new();
        rebuilt(list, &mut places, |pair, places| {
            let mut there: Vec<usize> = (pair[0] as usize..pair[1] as usize).filter(|&at| keys.is_valid(at)).collect();
            there.sort_by(|&a, &b| compare(a, b));
            let runs: Vec<&[usize]> = there.chunk_by(|&a, &b| compare(a, b).is_eq()).collect();
            let most = runs.iter().map(|run| run.len()).max();
            places.extend(runs.iter().filter(|run| Some(run.len()) == most).map(|run| run[0] as u32));
        })
    });
    Typed::call(kernel, vec![list], data_type, text)
}

/// A list of the values of each row.
fn concat_list(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let mut element = args[0].data_type.clone();
    for arg in &args[1..] {
        let met = meet(&Typed { data_type: element.clone(), ..args[0].like() }, arg);
        element = met.ok_or_else(|| Error::schema(format!("{name}() needs values of one type, found {}", arg.describe())))?;
    }
    let args = args.into_iter().map(|arg| arg.coerce_exactly(&element)).collect::<Result<Vec<_>>>()?;
    let field = Arc::new(Field::new("item", element.clone(), true));
    let data_type = DataType::List(Arc::clone(&field));
    let kernel = zipped(move |arrays| {
        let rows = arrays[0].len();
        let parts: Vec<&dyn Array> = arrays.iter().map(AsRef::as_ref).collect();
        let places: Vec<(usize, usize)> = (0..rows).flat_map(|row| (0..parts.len()).map(move |of| (of, row))).collect();
        let values = interleave(&parts, &places).map_err(failed)?;
        let offsets = OffsetBuffer::from_lengths(std::iter::repeat_n(parts.len(), rows));
        Ok(Arc::new(ListArray::try_new(Arc::clone(&field), offsets, values, None).map_err(failed)?) as _)
    });
    Typed::call(kernel, args, data_type, text)
}

/// What `min_by` and `max_by` aggregate: a value, and before it what decides.
fn by_pair(_name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let fields: Fields = [("by", &args[1]), ("value", &args[0])].map(|(name, arg)| Field::new(name, arg.data_type.clone(), true)).into_iter().collect();
    let data_type = DataType::Struct(fields.clone());
    let kernel = zipped(move |arrays| {
        let columns = vec![Arc::clone(&arrays[1]), Arc::clone(&arrays[0])];
        Ok(Arc::new(StructArray::try_new(fields.clone(), columns, None).map_err(failed)?) as _)
    });
    Typed::call(kernel, args, data_type, text)
}
