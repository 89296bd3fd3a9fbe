//! Arrow columns as lists of Python objects.
//!
//! One list a column, filled by one loop a type: this is the way of every record into a Python function, so nothing is
//! decided per value. A map becomes a list of pairs of key and value, as in pyarrow: its keys may repeat and need not be
//! hashable, so it is no dict. Repeated dictionary values become one object that all rows share.
//!
//! Python's times have the years 1 to 9999 and microseconds. A value that they cannot hold is an error that names the
//! column and the value ([`times`]): none is cut or left out.

mod times;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray};
use arrow::compute::take;
use arrow::datatypes::{
    DataType, Decimal128Type, Decimal256Type, Field, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyList, PyString};

pub use self::times::epoch;
use crate::error::{DataError, SchemaError};
use crate::types::{is_object, type_name};

/// Why a column has no form as Python objects.
enum Failure {
    /// A value that no object of Python's can be.
    Unfit(String),
    /// Making an object failed.
    Raised(PyErr),
}

impl From<PyErr> for Failure {
    fn from(error: PyErr) -> Failure {
        Failure::Raised(error)
    }
}

type Listed<'py> = Result<Bound<'py, PyList>, Failure>;

/// The values of a column as Python objects.
///
/// # Errors
/// A `DataError` that names the column and the value, where Python has no such value.
pub fn column_to_list<'py>(py: Python<'py>, array: &ArrayRef, field: &Field) -> PyResult<Bound<'py, PyList>> {
    values(py, array, field).map_err(|failure| match failure {
        Failure::Unfit(message) => DataError::new_err(format!("column {:?} holds {message}", field.name())),
        Failure::Raised(error) => error,
    })
}

fn values<'py>(py: Python<'py>, array: &ArrayRef, field: &Field) -> Listed<'py> {
    let array = array.as_ref();
    if is_object(field) {
        return Ok(objects(py, array)?);
    }
    match array.data_type() {
        DataType::Null => Ok(PyList::new(py, (0..array.len()).map(|_| py.None()))?),
        DataType::Boolean => {
            let array = array.as_boolean();
            let value = |row: usize| (!array.is_null(row)).then(|| PyBool::new(py, array.value(row)));
            Ok(PyList::new(py, (0..array.len()).map(value))?)
        }
        DataType::Int8 => Ok(integers::<Int8Type>(py, array.as_primitive())?),
        DataType::Int16 => Ok(integers::<Int16Type>(py, array.as_primitive())?),
        DataType::Int32 => Ok(integers::<Int32Type>(py, array.as_primitive())?),
        DataType::Int64 => Ok(integers::<Int64Type>(py, array.as_primitive())?),
        DataType::UInt8 => Ok(integers::<UInt8Type>(py, array.as_primitive())?),
        DataType::UInt16 => Ok(integers::<UInt16Type>(py, array.as_primitive())?),
        DataType::UInt32 => Ok(integers::<UInt32Type>(py, array.as_primitive())?),
        DataType::UInt64 => Ok(integers::<UInt64Type>(py, array.as_primitive())?),
        DataType::Float16 => Ok(each(py, array.as_primitive::<Float16Type>(), |v| Ok(PyFloat::new(py, v.to_f64()).into_any()))?),
        DataType::Float32 => Ok(each(py, array.as_primitive::<Float32Type>(), |v| Ok(PyFloat::new(py, v.into()).into_any()))?),
        DataType::Float64 => Ok(floats(py, array.as_primitive::<Float64Type>())?),
        DataType::Utf8 => Ok(texts(py, array.as_string::<i32>().iter())?),
        DataType::LargeUtf8 => Ok(texts(py, array.as_string::<i64>().iter())?),
        DataType::Utf8View => Ok(texts(py, array.as_string_view().iter())?),
        DataType::Binary => Ok(bytes(py, array.as_binary::<i32>().iter())?),
        DataType::LargeBinary => Ok(bytes(py, array.as_binary::<i64>().iter())?),
        DataType::BinaryView => Ok(bytes(py, array.as_binary_view().iter())?),
        DataType::FixedSizeBinary(_) => Ok(bytes(py, array.as_fixed_size_binary().iter())?),
        DataType::Date32 | DataType::Date64 => times::dates(py, array),
        DataType::Timestamp(_, zone) => times::timestamps(py, array, zone.as_deref()),
        DataType::Duration(_) => times::durations(py, array),
        DataType::Time32(_) | DataType::Time64(_) => times::times(py, array),
        DataType::Decimal128(..) => {
            Ok(decimals(py, array.as_primitive::<Decimal128Type>(), |v, row| v.value_as_string(row))?)
        }
        DataType::Decimal256(..) => {
            Ok(decimals(py, array.as_primitive::<Decimal256Type>(), |v, row| v.value_as_string(row))?)
        }
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
            let columns: Result<Vec<_>, Failure> =
                array.columns().iter().zip(fields).map(|(column, field)| values(py, column, field)).collect();
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
        DataType::Map(entries, _) => {
            let array = array.as_map();
            let offsets: Vec<usize> = array.offsets().iter().map(|&o| o as usize).collect();
            let DataType::Struct(parts) = entries.data_type() else { return Err(no_form(field).into()) };
            let keys = values(py, array.keys(), &parts[0])?;
            let mapped = values(py, array.values(), &parts[1])?;
            let pairs = PyList::new(py, keys.iter().zip(mapped.iter()))?;
            let value = |row: usize| (!array.is_null(row)).then(|| pairs.get_slice(offsets[row], offsets[row + 1]));
            Ok(PyList::new(py, (0..array.len()).map(value))?)
        }
        DataType::Dictionary(_, kind) => {
            let array = array.as_any_dictionary();
            let value_field = Field::new("", kind.as_ref().clone(), true);
            let known: Vec<Bound<'_, PyAny>> = match values(py, array.values(), &value_field) {
                Ok(known) => known.iter().collect(),
                // A value that Python does not have may be one that no row has: the rows decide.
                Err(_) => {
                    let plain = take(array.values(), array.keys(), None)
                        .map_err(|error| Failure::Raised(SchemaError::new_err(error.to_string())))?;
                    return values(py, &plain, &value_field);
                }
            };
            let none = py.None().into_bound(py);
            if known.is_empty() {
                return Ok(PyList::new(py, vec![none; array.len()])?);
            }
            let keys = array.normalized_keys();
            let value = |row: usize| if array.is_null(row) { none.clone() } else { known[keys[row]].clone() };
            Ok(PyList::new(py, (0..array.len()).map(value))?)
        }
        _ => Err(no_form(field).into()),
    }
}

fn no_form(field: &Field) -> PyErr {
    SchemaError::new_err(format!(
        "column {:?} has the type {}, which has no Python form; drop it, cast it to str, or take it as Arrow, with to_arrow()",
        field.name(),
        type_name(field)
    ))
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

fn decimals<'py, T: ArrowPrimitiveType>(
    py: Python<'py>,
    array: &PrimitiveArray<T>,
    text: impl Fn(&PrimitiveArray<T>, usize) -> String,
) -> PyResult<Bound<'py, PyList>> {
    static DECIMAL: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let class = DECIMAL.import(py, "decimal", "Decimal")?;
    let mut values = Vec::with_capacity(array.len());
    for row in 0..array.len() {
        values.push(if array.is_null(row) {
            py.None().into_bound(py)
        } else {
            class.call1((text(array, row),))?
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
) -> Listed<'py> {
    // The elements of these rows only: a slice shares its elements with rows that are not asked for.
    let (start, end) = (offsets[0], offsets[array.len()]);
    let elements = self::values(py, &values.slice(start, end - start), item)?;
    let place = |row: usize| offsets[row] - start;
    let value = |row: usize| (!array.is_null(row)).then(|| elements.get_slice(place(row), place(row + 1)));
    Ok(PyList::new(py, (0..array.len()).map(value))?)
}
