//! Python objects as Arrow columns.
//!
//! ```text
//!   rows: list of dict | tuple | dataclass | Row | value ──gather──► one list a column ──fill──► Arrow arrays
//! ```
//!
//! Gathering decides the shape once a type of row, filling decides the type once a column; both loops then run without
//! a choice. What does not fit is an error that names row, column and value: a value is the same in its column, or it is
//! refused. What numpy and pandas have for a missing value is null. [`rows`] gathers; [`values`], [`times`] and
//! [`nested`] fill.

mod nested;
mod rows;
mod times;
mod values;

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, PrimitiveArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{
    DECIMAL128_MAX_PRECISION, DataType, Field, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, SchemaRef, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use mill_frame::convert::exact;
use pyo3::prelude::*;
use pyo3::types::{PyFloat, PyInt, PyList};

use self::nested::{lists, maps, structs};
use self::rows::gather;
use self::times::{dates, durations, times, timestamps};
use self::values::{binaries, booleans, decimals, floats, integers, nulls, objects, texts};
use crate::error::repr_text;
use crate::types::{is_object, type_name};

/// A value that does not fit its column.
#[derive(Debug)]
pub struct Misfit {
    /// The place of the row.
    pub row: usize,
    /// What is wrong, naming column and value.
    pub message: String,
}

type Fit<T> = Result<T, Misfit>;

/// Records as a batch of these columns.
pub fn rows_to_batch(rows: &Bound<'_, PyList>, schema: &SchemaRef) -> Fit<RecordBatch> {
    let count = rows.len();
    if let [field] = schema.fields().as_ref()
        && let Some(array) = plain_numbers(rows, field)
    {
        return RecordBatch::try_new(Arc::clone(schema), vec![array])
            .map_err(|error| Misfit { row: 0, message: error.to_string() });
    }
    let columns = gather(rows.iter().collect(), schema)?;
    let arrays: Fit<Vec<ArrayRef>> =
        columns.iter().zip(schema.fields()).map(|(values, field)| values_to_array(values, field)).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(count));
    RecordBatch::try_new_with_options(Arc::clone(schema), arrays?, &options)
        .map_err(|error| Misfit { row: 0, message: error.to_string() })
}

/// A list of nothing but floats, or nothing but integers that fit, as the column of that type, straight from the list;
/// `None` for anything else, which then goes the way of every value.
pub fn plain_numbers(values: &Bound<'_, PyList>, field: &Field) -> Option<ArrayRef> {
    let rows = values.len();
    match field.data_type() {
        DataType::Float64 if !is_object(field) => {
            let mut out: Vec<f64> = Vec::with_capacity(rows);
            for row in 0..rows {
                out.push(values.get_item(row).ok()?.cast_exact::<PyFloat>().ok()?.value());
            }
            Some(Arc::new(PrimitiveArray::<Float64Type>::new(out.into(), None)))
        }
        DataType::Int64 if !is_object(field) => {
            let mut out: Vec<i64> = Vec::with_capacity(rows);
            for row in 0..rows {
                out.push(values.get_item(row).ok()?.cast_exact::<PyInt>().ok()?.extract().ok()?);
            }
            Some(Arc::new(PrimitiveArray::<Int64Type>::new(out.into(), None)))
        }
        _ => None,
    }
}

/// Python values as a column.
pub fn values_to_array(values: &[Bound<'_, PyAny>], field: &Field) -> Fit<ArrayRef> {
    if is_object(field) {
        return objects(values, field);
    }
    let misfit = match filled(values, field) {
        Ok(array) => return Ok(array),
        Err(misfit) => misfit,
    };
    // `NaT` and `NA` are looked for only where a value does not fit: no other column pays for them.
    match without_missing(values) {
        Some(values) => filled(&values, field),
        None => Err(misfit),
    }
}

/// The values with None for what numpy and pandas have for a missing one; `None` if there is no such value.
#[cold]
fn without_missing<'py>(values: &[Bound<'py, PyAny>]) -> Option<Vec<Bound<'py, PyAny>>> {
    let py = values.first()?.py();
    let is_missing = py.import("millstream._foreign").and_then(|module| module.getattr("is_missing")).ok()?;
    let is_missing = |value: &Bound<'py, PyAny>| {
        is_missing.call1((value,)).and_then(|found| found.extract::<bool>()).unwrap_or(false)
    };
    let missing: Vec<bool> = values.iter().map(is_missing).collect();
    let value = |(value, &is_missing): (&Bound<'py, PyAny>, &bool)| match is_missing {
        true => py.None().into_bound(py),
        false => value.clone(),
    };
    missing.contains(&true).then(|| values.iter().zip(&missing).map(value).collect())
}

/// Python values as a column, by one loop for its type.
fn filled(values: &[Bound<'_, PyAny>], field: &Field) -> Fit<ArrayRef> {
    match field.data_type() {
        DataType::Null => nulls(values, field),
        DataType::Boolean => booleans(values, field),
        DataType::Int8 => integers::<Int8Type>(values, field),
        DataType::Int16 => integers::<Int16Type>(values, field),
        DataType::Int32 => integers::<Int32Type>(values, field),
        DataType::Int64 => integers::<Int64Type>(values, field),
        DataType::UInt8 => integers::<UInt8Type>(values, field),
        DataType::UInt16 => integers::<UInt16Type>(values, field),
        DataType::UInt32 => integers::<UInt32Type>(values, field),
        DataType::UInt64 => integers::<UInt64Type>(values, field),
        DataType::Float64 => floats(values, field),
        DataType::Utf8 => texts(values, field),
        DataType::Binary => binaries(values, field),
        DataType::Date32 => dates(values, field),
        DataType::Timestamp(unit, zone) => timestamps(values, field, *unit, zone.as_deref()),
        DataType::Duration(unit) => durations(values, field, *unit),
        DataType::Time64(unit) | DataType::Time32(unit) => times(values, field, *unit),
        DataType::Decimal128(precision, scale) => decimals(values, field, *precision, *scale),
        DataType::List(item) => lists(values, field, item),
        DataType::Struct(_) => structs(values, field),
        DataType::Map(entries, _) => maps(values, field, entries),
        DataType::Float32 | DataType::Float16 => through(values, field, DataType::Float64),
        DataType::LargeUtf8 | DataType::Utf8View => through(values, field, DataType::Utf8),
        DataType::Dictionary(_, inner) => through(values, field, inner.as_ref().clone()),
        DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            through(values, field, DataType::Binary)
        }
        DataType::Decimal256(precision, scale) => {
            through(values, field, DataType::Decimal128((*precision).min(DECIMAL128_MAX_PRECISION), *scale))
        }
        DataType::Date64 => through(values, field, DataType::Date32),
        DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            through(values, field, DataType::List(Arc::clone(item)))
        }
        _ => Err(Misfit {
            row: 0,
            message: format!(
                "column {:?} has the type {}, which cannot be made of Python values",
                field.name(),
                type_name(field)
            ),
        }),
    }
}

/// Fills a column of a like type, then converts it as a whole, exactly.
fn through(values: &[Bound<'_, PyAny>], field: &Field, by: DataType) -> Fit<ArrayRef> {
    let array = values_to_array(values, &field.clone().with_data_type(by))?;
    if let DataType::Float32 | DataType::Float16 = field.data_type() {
        whole_numbers_fit(values, field, &array)?;
    }
    exact(&array, field.data_type()).map_err(|inexact| match values.get(inexact.row) {
        Some(value) => misfit_because(inexact.row, field, value, &format!("it {}", inexact.reason)),
        None => Misfit { row: inexact.row, message: format!("column {:?}: {}", field.name(), inexact.reason) },
    })
}

/// Refuses whole numbers that a small float does not hold: only floats are rounded to it.
fn whole_numbers_fit(values: &[Bound<'_, PyAny>], field: &Field, wide: &ArrayRef) -> Fit<()> {
    let wide = wide.as_primitive::<Float64Type>();
    for (row, value) in values.iter().enumerate() {
        if value.is_instance_of::<PyInt>() {
            let number = wide.value(row);
            let fits = match field.data_type() {
                DataType::Float32 => f64::from(number as f32) == number,
                _ => exact(&(Arc::new(Int64Array::from(vec![number as i64])) as ArrayRef), field.data_type()).is_ok(),
            };
            if !fits {
                return Err(misfit_because(row, field, value, "it has more digits than such a float holds"));
            }
        }
    }
    Ok(())
}

#[cold]
fn misfit(row: usize, field: &Field, value: &Bound<'_, PyAny>) -> Misfit {
    let class = value.get_type().name().map_or_else(|_| "object".to_owned(), |name| name.to_string());
    let message =
        format!("column {:?} is {} and cannot hold {} ({class})", field.name(), type_name(field), repr_text(value));
    Misfit { row, message }
}

#[cold]
fn misfit_because(row: usize, field: &Field, value: &Bound<'_, PyAny>, reason: &str) -> Misfit {
    let Misfit { row, message } = misfit(row, field, value);
    Misfit { row, message: format!("{message}: {reason}") }
}
