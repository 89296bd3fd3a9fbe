//! Dates, times of day, points in time and lengths of time as columns.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Date32Array, PrimitiveArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int64Type, TimeUnit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDate, PyDateTime, PyDelta, PyInt, PyTime};

use super::{Fit, Misfit, misfit};
use crate::error::record_text;
use crate::to_python::epoch;

pub(super) fn dates(values: &[Bound<'_, PyAny>], field: &Field) -> Fit<ArrayRef> {
    let mut days: Vec<Option<i32>> = Vec::with_capacity(values.len());
    for (row, value) in values.iter().enumerate() {
        days.push(if value.is_none() {
            None
        } else if value.cast::<PyDate>().is_ok() {
            let ordinal = value.call_method0(intern!(value.py(), "toordinal")).and_then(|o| o.extract::<i32>());
            Some(ordinal.map_err(|_| misfit(row, field, value))? - 719_163)
        } else {
            return Err(misfit(row, field, value));
        });
    }
    Ok(Arc::new(Date32Array::from(days)))
}

/// The microseconds of a `timedelta`.
fn delta_microseconds(delta: &Bound<'_, PyAny>) -> PyResult<i64> {
    let py = delta.py();
    let part = |name| delta.getattr(name)?.extract::<i64>();
    let seconds = part(intern!(py, "days"))? * 86_400 + part(intern!(py, "seconds"))?;
    Ok(seconds * 1_000_000 + part(intern!(py, "microseconds"))?)
}

/// Microseconds in another unit; `None` when it does not fit.
fn rescale(microseconds: i64, unit: TimeUnit) -> Option<i64> {
    match unit {
        TimeUnit::Second => Some(microseconds.div_euclid(1_000_000)),
        TimeUnit::Millisecond => Some(microseconds.div_euclid(1_000)),
        TimeUnit::Microsecond => Some(microseconds),
        TimeUnit::Nanosecond => microseconds.checked_mul(1_000),
    }
}

pub(super) fn timestamps(
    values: &[Bound<'_, PyAny>],
    field: &Field,
    unit: TimeUnit,
    zone: Option<&str>,
) -> Fit<ArrayRef> {
    let Some(first) = values.first() else { return retyped(Vec::new(), field) };
    let py = first.py();
    let failed = |error: PyErr| Misfit { row: 0, message: format!("column {:?}: {error}", field.name()) };
    let (start, _) = epoch(py, zone).map_err(failed)?;
    let mut out: Vec<Option<i64>> = Vec::with_capacity(values.len());
    for (row, value) in values.iter().enumerate() {
        if value.is_none() {
            out.push(None);
        } else if value.cast::<PyDateTime>().is_ok() {
            let since = value.sub(&start).map_err(|_| Misfit {
                row,
                message: match zone {
                    None => format!(
                        "column {:?} holds times without a zone and cannot hold {}, which has one; declare \
                         mill.Timestamp(\"us\", tz=\"UTC\")",
                        field.name(),
                        record_text(value)
                    ),
                    Some(zone) => format!(
                        "column {:?} holds times of the zone {zone} and cannot hold {}, which has none",
                        field.name(),
                        record_text(value)
                    ),
                },
            })?;
            let microseconds = delta_microseconds(&since).map_err(|_| misfit(row, field, value))?;
            out.push(Some(rescale(microseconds, unit).ok_or_else(|| misfit(row, field, value))?));
        } else if value.cast::<PyInt>().is_ok() {
            out.push(Some(value.extract().map_err(|_| misfit(row, field, value))?));
        } else {
            return Err(misfit(row, field, value));
        }
    }
    retyped(out, field)
}

pub(super) fn durations(values: &[Bound<'_, PyAny>], field: &Field, unit: TimeUnit) -> Fit<ArrayRef> {
    let mut out: Vec<Option<i64>> = Vec::with_capacity(values.len());
    for (row, value) in values.iter().enumerate() {
        if value.is_none() {
            out.push(None);
        } else if value.cast::<PyDelta>().is_ok() {
            let microseconds = delta_microseconds(value).map_err(|_| misfit(row, field, value))?;
            out.push(Some(rescale(microseconds, unit).ok_or_else(|| misfit(row, field, value))?));
        } else {
            return Err(misfit(row, field, value));
        }
    }
    retyped(out, field)
}

pub(super) fn times(values: &[Bound<'_, PyAny>], field: &Field) -> Fit<ArrayRef> {
    let mut out: Vec<Option<i64>> = Vec::with_capacity(values.len());
    for (row, value) in values.iter().enumerate() {
        if value.is_none() {
            out.push(None);
        } else if value.cast::<PyTime>().is_ok() {
            let part = |name: &str| value.getattr(name).and_then(|part| part.extract::<i64>());
            let all = || -> PyResult<i64> {
                Ok(((part("hour")? * 60 + part("minute")?) * 60 + part("second")?) * 1_000_000 + part("microsecond")?)
            };
            out.push(Some(all().map_err(|_| misfit(row, field, value))?));
        } else {
            return Err(misfit(row, field, value));
        }
    }
    let micro = DataType::Time64(TimeUnit::Microsecond);
    let array = retyped(out, &field.clone().with_data_type(micro))?;
    cast(&array, field.data_type()).map_err(|error| Misfit { row: 0, message: error.to_string() })
}

/// Whole numbers as the time-like type of the column.
fn retyped(values: Vec<Option<i64>>, field: &Field) -> Fit<ArrayRef> {
    let numbers = PrimitiveArray::<Int64Type>::from(values);
    let data = numbers.into_data().into_builder().data_type(field.data_type().clone()).build();
    data.map(arrow::array::make_array).map_err(|error| Misfit { row: 0, message: error.to_string() })
}
