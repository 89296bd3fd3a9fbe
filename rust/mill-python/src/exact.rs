//! Conversions of Arrow columns under which every value stays the same.
//!
//! The rule for what functions and readers of the user's return, and for what is made of Python values by way of a like
//! type. Types of different kinds (numbers, truth values, texts, times with and without a zone) do not mix. Within a kind a
//! column is cast as a whole and cast back: a value that comes back as another one does not fit. Only floats to narrower
//! floats and decimals to floats are rounded to the nearest one, as floats always are, and may not become infinite.

use std::cmp::Ordering;

use arrow::array::{Array, ArrayRef, AsArray, make_comparator};
use arrow::compute::{CastOptions, SortOptions, cast_with_options};
use arrow::datatypes::{DataType, Float64Type};
use arrow::util::display::array_value_to_string;

/// The first value that does not fit another type.
#[derive(Debug)]
pub struct Inexact {
    /// Its row.
    pub row: usize,
    /// The value as text.
    pub value: String,
    /// Why it does not fit.
    pub reason: String,
}

/// Kinds of types; values of different kinds are never the same.
#[derive(PartialEq, Eq)]
enum Kind {
    Nothing,
    Number,
    Truth,
    Text,
    Bytes,
    Date,
    TimeOfDay,
    Duration,
    Moment { has_zone: bool },
    List,
    Other,
}

fn kind(data_type: &DataType) -> Kind {
    match data_type {
        DataType::Null => Kind::Nothing,
        DataType::Boolean => Kind::Truth,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Kind::Text,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => Kind::Bytes,
        DataType::Date32 | DataType::Date64 => Kind::Date,
        DataType::Time32(_) | DataType::Time64(_) => Kind::TimeOfDay,
        DataType::Duration(_) => Kind::Duration,
        DataType::Timestamp(_, zone) => Kind::Moment { has_zone: zone.is_some() },
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(_, _) => Kind::List,
        DataType::Dictionary(_, values) => kind(values),
        other if other.is_numeric() => Kind::Number,
        _ => Kind::Other,
    }
}

/// Whether values of two types can be the same at all.
fn is_alike(from: &DataType, to: &DataType) -> bool {
    if from == to || from == &DataType::Null {
        return true;
    }
    match (from, to) {
        (
            DataType::List(a) | DataType::LargeList(a) | DataType::FixedSizeList(a, _),
            DataType::List(b) | DataType::LargeList(b) | DataType::FixedSizeList(b, _),
        ) => is_alike(a.data_type(), b.data_type()),
        (DataType::Struct(a), DataType::Struct(b)) => {
            a.len() == b.len()
                && a.iter().zip(b).all(|(a, b)| a.name() == b.name() && is_alike(a.data_type(), b.data_type()))
        }
        _ => kind(from) == kind(to) && kind(from) != Kind::Other,
    }
}

/// Whether every value of a type is one of the other, so that nothing has to be looked at.
fn is_wider(from: &DataType, to: &DataType) -> bool {
    let bits = |data_type: &DataType| data_type.primitive_width().unwrap_or(0) * 8;
    match (from, to) {
        (DataType::Null, _) => true,
        (a, b) if a.is_signed_integer() && b.is_signed_integer() => bits(a) <= bits(b),
        (a, b) if a.is_unsigned_integer() && b.is_unsigned_integer() => bits(a) <= bits(b),
        (a, b) if a.is_unsigned_integer() && b.is_signed_integer() => bits(a) < bits(b),
        (a, DataType::Float64) if a.is_integer() => bits(a) <= 32,
        (a, b) if a.is_floating() && b.is_floating() => bits(a) <= bits(b),
        (a, b) => kind(a) == Kind::Text && kind(b) == Kind::Text,
    }
}

/// The column in another type, if every value stays the same.
pub fn exact(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, Inexact> {
    let from = array.data_type();
    let inexact = |row: usize, reason: &str| {
        let text = array_value_to_string(array, row).ok().filter(|text| !text.contains("<invalid>"));
        let value = text.unwrap_or_else(|| "a value that has no text".to_owned());
        let value = if kind(from) == Kind::Text { format!("{value:?}") } else { value };
        Inexact { row, value, reason: reason.to_owned() }
    };
    if from == to {
        return Ok(array.clone());
    }
    let first = (0..array.len()).find(|&row| array.is_valid(row));
    if !is_alike(from, to) {
        return match first {
            Some(row) => Err(inexact(row, "values of these types are never the same; convert it in the function")),
            None => Ok(arrow::array::new_null_array(to, array.len())),
        };
    }
    let options = CastOptions { safe: true, ..CastOptions::default() };
    let cast = |array: &ArrayRef, to: &DataType| {
        cast_with_options(array, to, &options).map_err(|error| inexact(first.unwrap_or(0), &error.to_string()))
    };
    let there = cast(array, to)?;
    if is_wider(from, to) {
        return Ok(there);
    }
    if let Some(row) = (0..array.len()).find(|&row| array.is_valid(row) && there.is_null(row)) {
        return Err(inexact(row, "it is out of range"));
    }
    if to.is_floating() && (from.is_floating() || from.is_decimal()) {
        let (before, after) = (cast(array, &DataType::Float64)?, cast(&there, &DataType::Float64)?);
        let (before, after) = (before.as_primitive::<Float64Type>(), after.as_primitive::<Float64Type>());
        let became_infinite = |&row: &usize| {
            after.is_valid(row) && after.value(row).is_infinite() && (from.is_decimal() || before.value(row).is_finite())
        };
        return match (0..array.len()).find(became_infinite) {
            Some(row) => Err(inexact(row, "it is out of range")),
            None => Ok(there),
        };
    }
    let back = cast(&there, from)?;
    let compare = make_comparator(array, &back, SortOptions::default()).map_err(|error| inexact(0, &error.to_string()))?;
    let is_same = |row: usize| compare(row, row) == Ordering::Equal || is_zero(array, row) && is_zero(&back, row);
    match (0..array.len()).find(|&row| array.is_valid(row) && !is_same(row)) {
        Some(row) => Err(inexact(row, "it would not be the same value")),
        None => Ok(there),
    }
}

/// Whether a float is a zero of either sign: they are the same whole number.
fn is_zero(array: &dyn Array, row: usize) -> bool {
    match array.data_type() {
        DataType::Float64 => array.as_primitive::<Float64Type>().value(row) == 0.0,
        DataType::Float32 => array.as_primitive::<arrow::datatypes::Float32Type>().value(row) == 0.0,
        _ => false,
    }
}
