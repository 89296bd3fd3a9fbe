//! Dates, times of day, points in time and lengths of time as columns.
//!
//! Exact, or a misfit: a value with digits below the unit of the column, or beyond its range, is refused. What is no
//! `datetime`, `date`, `time` or `timedelta` of Python's own (numpy's and pandas' times) is counted by
//! `millstream._foreign`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Date32Array, PrimitiveArray};
use arrow::datatypes::{DataType, Field, Int64Type, TimeUnit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDate, PyDateTime, PyDelta, PyTime};

use super::{Fit, Misfit, misfit, misfit_because};
use crate::error::repr_text;
use crate::to_python::epoch;

const MICROSECONDS_PER_SECOND: i128 = 1_000_000;
/// The value of `date.toordinal()` for 1970-01-01.
const EPOCH_ORDINAL: i32 = 719_163;

pub(super) fn dates(values: &[Bound<'_, PyAny>], field: &Field) -> Fit<ArrayRef> {
    let mut days: Vec<Option<i32>> = Vec::with_capacity(values.len());
    for (row, value) in values.iter().enumerate() {
        days.push(if value.is_none() {
            None
        } else if value.is_exact_instance_of::<PyDate>() || (is_date(value) && is_midnight(value)) {
            let ordinal = value.call_method0(intern!(value.py(), "toordinal")).and_then(|o| o.extract::<i32>());
            Some(ordinal.map_err(|_| misfit(row, field, value))? - EPOCH_ORDINAL)
        } else if value.cast::<PyDateTime>().is_ok() {
            return Err(misfit_because(row, field, value, "it has a time of day or a zone; take its .date()"));
        } else {
            let count = foreign(value, "date").map_err(|reason| misfit_because(row, field, value, &reason))?;
            Some(i32::try_from(count).map_err(|_| misfit_because(row, field, value, "it is out of range"))?)
        });
    }
    Ok(Arc::new(Date32Array::from(days)))
}

fn is_date(value: &Bound<'_, PyAny>) -> bool {
    value.cast::<PyDate>().is_ok()
}

/// Whether a date, or a datetime, is the start of a day without a zone.
fn is_midnight(value: &Bound<'_, PyAny>) -> bool {
    if value.cast::<PyDateTime>().is_err() {
        return true;
    }
    let is_zero = |name: &str| value.getattr(name).is_ok_and(|part| part.extract::<i64>().is_ok_and(|part| part == 0));
    let has_nanoseconds = value.hasattr("nanosecond").unwrap_or(false) && !is_zero("nanosecond");
    let is_naive = value.getattr("tzinfo").is_ok_and(|zone| zone.is_none());
    is_naive && !has_nanoseconds && ["hour", "minute", "second", "microsecond"].into_iter().all(is_zero)
}

/// A time of numpy's or pandas' as a number of the column's units.
fn foreign(value: &Bound<'_, PyAny>, unit: &str) -> Result<i64, String> {
    static COUNT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = value.py();
    let count = COUNT.import(py, "millstream._foreign", "count").and_then(|count| count.call1((value, unit)));
    let count = count.map_err(|error| crate::error::message(py, &error))?;
    count.extract().map_err(|_| "it is out of range".to_owned())
}

/// The microseconds of a `timedelta`.
fn delta_microseconds(delta: &Bound<'_, PyAny>) -> PyResult<i128> {
    let py = delta.py();
    let part = |name| delta.getattr(name)?.extract::<i64>();
    let seconds = i128::from(part(intern!(py, "days"))?) * 86_400 + i128::from(part(intern!(py, "seconds"))?);
    Ok(seconds * MICROSECONDS_PER_SECOND + i128::from(part(intern!(py, "microseconds"))?))
}

fn per_second(unit: TimeUnit) -> i128 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

/// What numpy and pandas call a unit.
fn unit_name(unit: TimeUnit) -> &'static str {
    match unit {
        TimeUnit::Second => "s",
        TimeUnit::Millisecond => "ms",
        TimeUnit::Microsecond => "us",
        TimeUnit::Nanosecond => "ns",
    }
}

/// Microseconds in another unit, if they are whole ones and in range.
fn rescale(microseconds: i128, unit: TimeUnit) -> Result<i64, &'static str> {
    let scaled = microseconds * per_second(unit);
    if scaled % MICROSECONDS_PER_SECOND != 0 {
        return Err("it has digits below that unit; declare a finer one, such as mill.Timestamp(\"us\")");
    }
    i64::try_from(scaled / MICROSECONDS_PER_SECOND).map_err(|_| "it is out of range")
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
        let because = |reason: &str| misfit_because(row, field, value, reason);
        out.push(if value.is_none() {
            None
        } else if value.is_exact_instance_of::<PyDateTime>() || is_own(value) {
            let since = value.sub(&start).map_err(|_| zone_misfit(row, field, value, zone))?;
            let microseconds = delta_microseconds(&since).map_err(|_| misfit(row, field, value))?;
            Some(rescale(microseconds, unit).map_err(because)?)
        } else {
            let count = foreign(value, unit_name(unit)).map_err(|reason| because(&reason))?;
            let is_zoned = value.getattr("tzinfo").is_ok_and(|zone| !zone.is_none());
            if is_zoned != zone.is_some() {
                return Err(zone_misfit(row, field, value, zone));
            }
            Some(count)
        });
    }
    retyped(out, field)
}

/// Whether a value of a subclass of `datetime` is a plain one: pandas' has nanoseconds.
fn is_own(value: &Bound<'_, PyAny>) -> bool {
    value.cast::<PyDateTime>().is_ok() && !value.hasattr("nanosecond").unwrap_or(true)
}

fn zone_misfit(row: usize, field: &Field, value: &Bound<'_, PyAny>, zone: Option<&str>) -> Misfit {
    let (name, value) = (field.name(), repr_text(value));
    let message = match zone {
        None => format!(
            "column {name:?} holds times without a zone and cannot hold {value}, which has one; declare \
             mill.Timestamp(\"us\", tz=\"UTC\")"
        ),
        Some(zone) => format!("column {name:?} holds times of the zone {zone} and cannot hold {value}, which has none"),
    };
    Misfit { row, message }
}

pub(super) fn durations(values: &[Bound<'_, PyAny>], field: &Field, unit: TimeUnit) -> Fit<ArrayRef> {
    let mut out: Vec<Option<i64>> = Vec::with_capacity(values.len());
    for (row, value) in values.iter().enumerate() {
        let because = |reason: &str| misfit_because(row, field, value, reason);
        let is_own = value.is_exact_instance_of::<PyDelta>()
            || (value.cast::<PyDelta>().is_ok() && !value.hasattr("nanoseconds").unwrap_or(true));
        out.push(if value.is_none() {
            None
        } else if is_own {
            let microseconds = delta_microseconds(value).map_err(|_| misfit(row, field, value))?;
            Some(rescale(microseconds, unit).map_err(because)?)
        } else {
            Some(foreign(value, unit_name(unit)).map_err(|reason| because(&reason))?)
        });
    }
    retyped(out, field)
}

pub(super) fn times(values: &[Bound<'_, PyAny>], field: &Field, unit: TimeUnit) -> Fit<ArrayRef> {
    let mut out: Vec<Option<i64>> = Vec::with_capacity(values.len());
    for (row, value) in values.iter().enumerate() {
        if value.is_none() {
            out.push(None);
        } else if value.cast::<PyTime>().is_ok() {
            let part = |name: &str| value.getattr(name).and_then(|part| part.extract::<i128>());
            let all = || -> PyResult<i128> {
                let seconds = (part("hour")? * 60 + part("minute")?) * 60 + part("second")?;
                Ok(seconds * MICROSECONDS_PER_SECOND + part("microsecond")?)
            };
            if value.getattr("tzinfo").is_ok_and(|zone| !zone.is_none()) {
                return Err(misfit_because(row, field, value, "it has a zone; take it off with .replace(tzinfo=None)"));
            }
            let microseconds = all().map_err(|_| misfit(row, field, value))?;
            out.push(Some(rescale(microseconds, unit).map_err(|reason| misfit_because(row, field, value, reason))?));
        } else {
            return Err(misfit(row, field, value));
        }
    }
    if let DataType::Time32(_) = field.data_type() {
        let narrow = out.into_iter().map(|count| count.map(|count| count as i32));
        let data = PrimitiveArray::<arrow::datatypes::Int32Type>::from_iter(narrow).into_data();
        return finished(data, field);
    }
    retyped(out, field)
}

/// Whole numbers as the time-like type of the column.
fn retyped(values: Vec<Option<i64>>, field: &Field) -> Fit<ArrayRef> {
    finished(PrimitiveArray::<Int64Type>::from(values).into_data(), field)
}

fn finished(data: arrow::array::ArrayData, field: &Field) -> Fit<ArrayRef> {
    let data = data.into_builder().data_type(field.data_type().clone()).build();
    data.map(arrow::array::make_array).map_err(|error| Misfit { row: 0, message: error.to_string() })
}
