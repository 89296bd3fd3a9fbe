//! Dates, times of day, points in time and lengths of time as Python has them.

use arrow::array::{Array, AsArray, PrimitiveArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Date32Type, Date64Type, Int64Type, TimeUnit};
use mill_frame::convert::show;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyList;

use super::{Failure, Listed};
use crate::error::SchemaError;

const MICROSECONDS_PER_DAY: i128 = 86_400_000_000;
const MICROSECONDS_PER_SECOND: i128 = 1_000_000;
const MILLISECONDS_PER_DAY: i64 = 86_400_000;
/// The value of `date.toordinal()` for 1970-01-01.
const EPOCH_ORDINAL: i64 = 719_163;

pub(super) fn dates<'py>(py: Python<'py>, array: &dyn Array) -> Listed<'py> {
    static DATE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let from_ordinal = DATE.import(py, "datetime", "date")?.getattr("fromordinal")?;
    let days = |row: usize| match array.data_type() {
        DataType::Date32 => i64::from(array.as_primitive::<Date32Type>().value(row)),
        _ => array.as_primitive::<Date64Type>().value(row).div_euclid(MILLISECONDS_PER_DAY),
    };
    each(py, array, "no date of Python's is before year 1 or after 9999", |row| {
        from_ordinal.call1((days(row) + EPOCH_ORDINAL,))
    })
}

/// A length of time in microseconds as a `timedelta`.
fn timedelta<'py>(class: &Bound<'py, PyAny>, microseconds: i128) -> PyResult<Bound<'py, PyAny>> {
    let days = microseconds.div_euclid(MICROSECONDS_PER_DAY);
    let rest = microseconds.rem_euclid(MICROSECONDS_PER_DAY);
    class.call1((days as i64, (rest / MICROSECONDS_PER_SECOND) as i64, (rest % MICROSECONDS_PER_SECOND) as i64))
}

fn timedelta_type(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static TIMEDELTA: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    TIMEDELTA.import(py, "datetime", "timedelta")
}

/// The start of 1970 as a `datetime` of this zone's kind, and the zone if it is not UTC.
pub fn epoch<'py>(py: Python<'py>, zone: Option<&str>) -> PyResult<(Bound<'py, PyAny>, Option<Bound<'py, PyAny>>)> {
    static DATETIME: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    static UTC: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let datetime = DATETIME.import(py, "datetime", "datetime")?;
    let Some(zone) = zone else { return Ok((datetime.call1((1970, 1, 1))?, None)) };
    let utc = UTC.get_or_try_init(py, || Ok::<_, PyErr>(py.import("datetime")?.getattr("timezone")?.getattr("utc")?.unbind()))?;
    let epoch = datetime.call1((1970, 1, 1, 0, 0, 0, 0, utc))?;
    if matches!(zone, "UTC" | "utc" | "+00:00" | "Z") {
        return Ok((epoch, None));
    }
    Ok((epoch, Some(py.import("millstream._zones")?.getattr("zone")?.call1((zone,))?)))
}

pub(super) fn timestamps<'py>(py: Python<'py>, array: &dyn Array, zone: Option<&str>) -> Listed<'py> {
    let (epoch, zone) = epoch(py, zone)?;
    let class = timedelta_type(py)?;
    let microseconds = Microseconds::new(array)?;
    each(py, array, "no datetime of Python's is before year 1 or after 9999", |row| {
        let at = epoch.add(timedelta(class, microseconds.value(row))?)?;
        match &zone {
            Some(zone) => at.call_method1("astimezone", (zone,)),
            None => Ok(at),
        }
    })
}

pub(super) fn durations<'py>(py: Python<'py>, array: &dyn Array) -> Listed<'py> {
    let class = timedelta_type(py)?;
    let microseconds = Microseconds::new(array)?;
    each(py, array, "no timedelta of Python's is longer than 999999999 days", |row| {
        timedelta(class, microseconds.value(row))
    })
}

pub(super) fn times<'py>(py: Python<'py>, array: &dyn Array) -> Listed<'py> {
    let class = py.import("datetime")?.getattr("time")?;
    let microseconds = Microseconds::new(array)?;
    each(py, array, "a time of day is from 00:00:00 to 23:59:59.999999", |row| {
        let value = microseconds.value(row);
        let seconds = value.div_euclid(MICROSECONDS_PER_SECOND) as i64;
        let rest = value.rem_euclid(MICROSECONDS_PER_SECOND) as i64;
        class.call1((seconds.div_euclid(3600), seconds.div_euclid(60).rem_euclid(60), seconds.rem_euclid(60), rest))
    })
}

/// The whole microseconds of times of any unit.
struct Microseconds {
    ticks: PrimitiveArray<Int64Type>,
    per_second: i128,
}

impl Microseconds {
    /// Reads times, all of which are whole microseconds.
    fn new(array: &dyn Array) -> Result<Microseconds, Failure> {
        let (DataType::Timestamp(unit, _) | DataType::Duration(unit) | DataType::Time32(unit) | DataType::Time64(unit)) =
            array.data_type()
        else {
            return Err(Failure::Unfit("no times".to_owned()));
        };
        let arrow_error = |error: arrow::error::ArrowError| Failure::Raised(SchemaError::new_err(error.to_string()));
        let ticks = match array.data_type() {
            DataType::Time32(_) => {
                let narrow = cast(array, &DataType::Int32).map_err(arrow_error)?;
                cast(&narrow, &DataType::Int64).map_err(arrow_error)?
            }
            _ => cast(array, &DataType::Int64).map_err(arrow_error)?,
        };
        let ticks = ticks.as_primitive::<Int64Type>().clone();
        if *unit == TimeUnit::Nanosecond
            && let Some(row) = (0..ticks.len()).find(|&row| !ticks.is_null(row) && ticks.value(row) % 1000 != 0)
        {
            return Err(unfit(array, row, "Python's times have microseconds"));
        }
        let per_second = match unit {
            TimeUnit::Second => 1,
            TimeUnit::Millisecond => 1_000,
            TimeUnit::Microsecond => 1_000_000,
            TimeUnit::Nanosecond => 1_000_000_000,
        };
        Ok(Microseconds { ticks, per_second })
    }

    fn value(&self, row: usize) -> i128 {
        i128::from(self.ticks.value(row)) * MICROSECONDS_PER_SECOND / self.per_second
    }
}

/// Makes an object of each row; a row for which Python refuses does not fit, for the reason given.
fn each<'py>(
    py: Python<'py>,
    array: &dyn Array,
    reason: &str,
    mut convert: impl FnMut(usize) -> PyResult<Bound<'py, PyAny>>,
) -> Listed<'py> {
    let mut values = Vec::with_capacity(array.len());
    for row in 0..array.len() {
        values.push(match array.is_null(row) {
            true => py.None().into_bound(py),
            false => convert(row).map_err(|_| unfit(array, row, reason))?,
        });
    }
    Ok(PyList::new(py, values)?)
}

/// A value that Python has no object for.
#[cold]
fn unfit(array: &dyn Array, row: usize, reason: &str) -> Failure {
    // Arrow has no text for a value beyond its own calendar; its number is shown then.
    let slice = array.slice(row, 1);
    let number = || cast(&slice, &DataType::Int64).map(|ticks| format!("the number {}", show(&ticks, 0)));
    let value = Some(show(&slice, 0)).filter(|text| !text.contains("<invalid>") && !text.starts_with("a value of"));
    let value = value.or_else(|| number().ok()).unwrap_or_else(|| "a time".to_owned());
    Failure::Unfit(format!(
        "{value}, and {reason}; take it as Arrow (to_arrow(), to_polars(), map_batches), or convert the column before: \
         .cast(str), .dt.epoch(), .dt.cast_time_unit(\"us\")"
    ))
}
