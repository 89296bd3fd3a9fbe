//! Arrow columns as lists of Python objects.
//!
//! One list a column, filled by one loop a type: this is the way of every record into a Python function, so nothing is
//! decided per value. Repeated dictionary values become one object that all rows share.

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Field, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, TimeUnit, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyList, PyString};

use crate::error::SchemaError;
use crate::types::is_object;

const MICROSECONDS_PER_DAY: i64 = 86_400_000_000;
const MICROSECONDS_PER_SECOND: i64 = 1_000_000;
/// What `date.toordinal()` gives for 1970-01-01.
const EPOCH_ORDINAL: i64 = 719_163;

/// The values of a column as Python objects.
pub fn column_to_list<'py>(py: Python<'py>, array: &ArrayRef, field: &Field) -> PyResult<Bound<'py, PyList>> {
    let array = array.as_ref();
    if is_object(field) {
        return objects(py, array);
    }
    match array.data_type() {
        DataType::Null => PyList::new(py, (0..array.len()).map(|_| py.None())),
        DataType::Boolean => {
            let array = array.as_boolean();
            let value = |row: usize| (!array.is_null(row)).then(|| PyBool::new(py, array.value(row)));
            PyList::new(py, (0..array.len()).map(value))
        }
        DataType::Int8 => integers::<Int8Type>(py, array.as_primitive()),
        DataType::Int16 => integers::<Int16Type>(py, array.as_primitive()),
        DataType::Int32 => integers::<Int32Type>(py, array.as_primitive()),
        DataType::Int64 => integers::<Int64Type>(py, array.as_primitive()),
        DataType::UInt8 => integers::<UInt8Type>(py, array.as_primitive()),
        DataType::UInt16 => integers::<UInt16Type>(py, array.as_primitive()),
        DataType::UInt32 => integers::<UInt32Type>(py, array.as_primitive()),
        DataType::UInt64 => integers::<UInt64Type>(py, array.as_primitive()),
        DataType::Float16 => each(py, array.as_primitive::<Float16Type>(), |v| Ok(PyFloat::new(py, v.to_f64()).into_any())),
        DataType::Float32 => each(py, array.as_primitive::<Float32Type>(), |v| Ok(PyFloat::new(py, v.into()).into_any())),
        DataType::Float64 => floats(py, array.as_primitive::<Float64Type>()),
        DataType::Utf8 => texts(py, array.as_string::<i32>().iter()),
        DataType::LargeUtf8 => texts(py, array.as_string::<i64>().iter()),
        DataType::Utf8View => texts(py, array.as_string_view().iter()),
        DataType::Binary => bytes(py, array.as_binary::<i32>().iter()),
        DataType::LargeBinary => bytes(py, array.as_binary::<i64>().iter()),
        DataType::BinaryView => bytes(py, array.as_binary_view().iter()),
        DataType::FixedSizeBinary(_) => bytes(py, array.as_fixed_size_binary().iter()),
        DataType::Date32 => dates(py, array.as_primitive()),
        DataType::Date64 => dates(py, cast(array, &DataType::Date32).map_err(arrow_error)?.as_primitive()),
        DataType::Timestamp(_, zone) => timestamps(py, array, zone.as_deref()),
        DataType::Duration(_) => durations(py, array),
        DataType::Time32(_) | DataType::Time64(_) => times(py, array),
        DataType::Decimal128(_, _) => decimals(py, array.as_primitive()),
        DataType::List(item) => {
            let array = array.as_list::<i32>();
            let offsets: Vec<usize> = array.offsets().iter().map(|&o| o as usize).collect();
            lists(py, array.values(), item, &offsets, array)
        }
        DataType::LargeList(item) => {
            let array = array.as_list::<i64>();
            let offsets: Vec<usize> = array.offsets().iter().map(|&o| o as usize).collect();
            lists(py, array.values(), item, &offsets, array)
        }
        DataType::FixedSizeList(item, size) => {
            let array = array.as_fixed_size_list();
            let offsets: Vec<usize> = (0..=array.len()).map(|row| row * *size as usize).collect();
            lists(py, array.values(), item, &offsets, array)
        }
        DataType::Struct(fields) => {
            let array = array.as_struct();
            let columns: PyResult<Vec<_>> =
                array.columns().iter().zip(fields).map(|(column, field)| column_to_list(py, column, field)).collect();
            let (columns, out) = (columns?, PyList::empty(py));
            let names: Vec<Bound<'_, PyString>> = fields.iter().map(|field| PyString::new(py, field.name())).collect();
            for row in 0..array.len() {
                if array.is_null(row) {
                    out.append(py.None())?;
                    continue;
                }
                let value = PyDict::new(py);
                for (name, column) in names.iter().zip(&columns) {
                    value.set_item(name, column.get_item(row)?)?;
                }
                out.append(value)?;
            }
            Ok(out)
        }
        DataType::Dictionary(_, values) => {
            let array = array.as_any_dictionary();
            let value_field = Field::new("", values.as_ref().clone(), true);
            let values = column_to_list(py, array.values(), &value_field)?;
            let values: Vec<Bound<'_, PyAny>> = values.iter().collect();
            let keys = array.normalized_keys();
            let none = py.None().into_bound(py);
            let value = |row: usize| if array.is_null(row) { none.clone() } else { values[keys[row]].clone() };
            PyList::new(py, (0..array.len()).map(value))
        }
        other => Err(SchemaError::new_err(format!(
            "column {:?} has the type {other:?}, which has no Python form; cast it first",
            field.name()
        ))),
    }
}

/// The values of a column as a sequence: plain numbers stay numbers, in an `array.array` that makes an object of each only
/// while a loop stands on it; everything else is a list.
pub fn column_to_sequence<'py>(py: Python<'py>, array: &ArrayRef, field: &Field) -> PyResult<Bound<'py, PyAny>> {
    static ARRAY: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let Some(code) = type_code(array.data_type()).filter(|_| array.null_count() == 0 && !is_object(field)) else {
        return column_to_list(py, array, field).map(Bound::into_any);
    };
    let data = array.to_data();
    let width = data.data_type().primitive_width().unwrap_or(1);
    let bytes = &data.buffers()[0].as_slice()[data.offset() * width..][..data.len() * width];
    ARRAY.import(py, "array", "array")?.call1((code, PyBytes::new(py, bytes)))
}

/// What `array.array` calls numbers of this type.
fn type_code(data_type: &DataType) -> Option<&'static str> {
    Some(match data_type {
        DataType::Int8 => "b",
        DataType::Int16 => "h",
        DataType::Int32 => "i",
        DataType::Int64 => "q",
        DataType::UInt8 => "B",
        DataType::UInt16 => "H",
        DataType::UInt32 => "I",
        DataType::UInt64 => "Q",
        DataType::Float32 => "f",
        DataType::Float64 => "d",
        _ => return None,
    })
}

fn arrow_error(error: arrow::error::ArrowError) -> PyErr {
    SchemaError::new_err(error.to_string())
}

fn integers<'py, T>(py: Python<'py>, array: &PrimitiveArray<T>) -> PyResult<Bound<'py, PyList>>
where
    T: ArrowPrimitiveType,
    T::Native: IntoPyObject<'py>,
{
    if array.null_count() == 0 {
        return PyList::new(py, array.values().iter().copied());
    }
    PyList::new(py, (0..array.len()).map(|row| (!array.is_null(row)).then(|| array.value(row))))
}

fn floats<'py>(py: Python<'py>, array: &PrimitiveArray<Float64Type>) -> PyResult<Bound<'py, PyList>> {
    if array.null_count() == 0 {
        return PyList::new(py, array.values().iter().copied());
    }
    PyList::new(py, (0..array.len()).map(|row| (!array.is_null(row)).then(|| array.value(row))))
}

fn texts<'py, 'a>(
    py: Python<'py>,
    values: impl ExactSizeIterator<Item = Option<&'a str>>,
) -> PyResult<Bound<'py, PyList>> {
    PyList::new(py, values.map(|value| value.map(|value| PyString::new(py, value))))
}

fn bytes<'py, 'a>(
    py: Python<'py>,
    values: impl ExactSizeIterator<Item = Option<&'a [u8]>>,
) -> PyResult<Bound<'py, PyList>> {
    PyList::new(py, values.map(|value| value.map(|value| PyBytes::new(py, value))))
}

/// Converts value by value where one Python call a value is needed anyway.
fn each<'py, T: ArrowPrimitiveType>(
    py: Python<'py>,
    array: &PrimitiveArray<T>,
    mut convert: impl FnMut(T::Native) -> PyResult<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyList>> {
    let mut values = Vec::with_capacity(array.len());
    for row in 0..array.len() {
        values.push(if array.is_null(row) { py.None().into_bound(py) } else { convert(array.value(row))? });
    }
    PyList::new(py, values)
}

fn objects<'py>(py: Python<'py>, array: &dyn Array) -> PyResult<Bound<'py, PyList>> {
    static LOADS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let loads = LOADS.import(py, "pickle", "loads")?;
    let array = array.as_binary::<i32>();
    let mut values = Vec::with_capacity(array.len());
    for value in array.iter() {
        values.push(match value {
            Some(value) => loads.call1((PyBytes::new(py, value),))?,
            None => py.None().into_bound(py),
        });
    }
    PyList::new(py, values)
}

fn dates<'py>(py: Python<'py>, array: &PrimitiveArray<Date32Type>) -> PyResult<Bound<'py, PyList>> {
    static DATE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let from_ordinal = DATE.import(py, "datetime", "date")?.getattr("fromordinal")?;
    each(py, array, |days| from_ordinal.call1((i64::from(days) + EPOCH_ORDINAL,)))
}

fn timedelta_type(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static TIMEDELTA: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    TIMEDELTA.import(py, "datetime", "timedelta")
}

/// A length of time in microseconds as a `timedelta`.
fn timedelta<'py>(class: &Bound<'py, PyAny>, microseconds: i64) -> PyResult<Bound<'py, PyAny>> {
    let days = microseconds.div_euclid(MICROSECONDS_PER_DAY);
    let rest = microseconds.rem_euclid(MICROSECONDS_PER_DAY);
    class.call1((days, rest / MICROSECONDS_PER_SECOND, rest % MICROSECONDS_PER_SECOND))
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

fn timestamps<'py>(py: Python<'py>, array: &dyn Array, zone: Option<&str>) -> PyResult<Bound<'py, PyList>> {
    let (epoch, zone) = epoch(py, zone)?;
    let class = timedelta_type(py)?;
    each(py, &microseconds(array)?, |value| {
        let at = epoch.add(timedelta(class, value)?)?;
        match &zone {
            Some(zone) => at.call_method1("astimezone", (zone,)),
            None => Ok(at),
        }
    })
}

fn durations<'py>(py: Python<'py>, array: &dyn Array) -> PyResult<Bound<'py, PyList>> {
    let class = timedelta_type(py)?;
    each(py, &microseconds(array)?, |value| timedelta(class, value))
}

/// Times, durations and times of day in whole microseconds.
fn microseconds(array: &dyn Array) -> PyResult<PrimitiveArray<Int64Type>> {
    let scaled = match array.data_type() {
        DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Microsecond, zone.clone()),
        DataType::Duration(_) => DataType::Duration(TimeUnit::Microsecond),
        _ => DataType::Time64(TimeUnit::Microsecond),
    };
    let scaled = cast(array, &scaled).and_then(|scaled| cast(&scaled, &DataType::Int64)).map_err(arrow_error)?;
    Ok(scaled.as_primitive().clone())
}

fn times<'py>(py: Python<'py>, array: &dyn Array) -> PyResult<Bound<'py, PyList>> {
    let class = py.import("datetime")?.getattr("time")?;
    each(py, &microseconds(array)?, |value| {
        let seconds = value / MICROSECONDS_PER_SECOND;
        class.call1((seconds / 3600, seconds / 60 % 60, seconds % 60, value % MICROSECONDS_PER_SECOND))
    })
}

fn decimals<'py>(py: Python<'py>, array: &PrimitiveArray<Decimal128Type>) -> PyResult<Bound<'py, PyList>> {
    static DECIMAL: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let class = DECIMAL.import(py, "decimal", "Decimal")?;
    let mut values = Vec::with_capacity(array.len());
    for row in 0..array.len() {
        values.push(if array.is_null(row) {
            py.None().into_bound(py)
        } else {
            class.call1((array.value_as_string(row),))?
        });
    }
    PyList::new(py, values)
}

fn lists<'py>(
    py: Python<'py>,
    values: &ArrayRef,
    item: &Field,
    offsets: &[usize],
    array: &dyn Array,
) -> PyResult<Bound<'py, PyList>> {
    let values = column_to_list(py, values, item)?;
    let value = |row: usize| (!array.is_null(row)).then(|| values.get_slice(offsets[row], offsets[row + 1]));
    PyList::new(py, (0..array.len()).map(value))
}
