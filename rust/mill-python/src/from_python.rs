//! Python objects as Arrow columns.
//!
//! ```text
//!   rows: list of dict | tuple | dataclass | Row | value ──gather──► one list a column ──fill──► Arrow arrays
//! ```
//!
//! Gathering decides the shape once a type of row, filling decides the type once a column; both loops then run without
//! a choice. What does not fit is an error that names row, column and value.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryBuilder, BooleanBuilder, Date32Array, Decimal128Array, ListArray, NullArray, PrimitiveArray,
    RecordBatch, RecordBatchOptions, StringBuilder, StructArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::cast;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Field, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, SchemaRef, TimeUnit,
    UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{
    PyByteArray, PyBytes, PyDate, PyDateTime, PyDelta, PyDict, PyFloat, PyInt, PyList, PyMapping, PyString, PyTime, PyTuple,
    PyType,
};

use crate::error::record_text;
use crate::to_python::epoch;
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

/// How the columns are found in a row of some type.
enum Shape {
    /// By key, in a dict.
    Dict,
    /// By key, in another mapping.
    Mapping,
    /// By name, in a tuple with names: the place of each column.
    Named(Vec<usize>),
    /// By place.
    Positional,
    /// By attribute.
    Attributes,
    /// The row is the value of the one column.
    Scalar,
}

fn gather<'py>(rows: Vec<Bound<'py, PyAny>>, schema: &SchemaRef) -> Fit<Vec<Vec<Bound<'py, PyAny>>>> {
    let mut shapes = Shapes::default();
    let is_scalar = |row: &Bound<'py, PyAny>| matches!(shapes.of(row, schema), Ok(Shape::Scalar));
    if schema.fields().len() == 1 && rows.iter().all(is_scalar) {
        return Ok(vec![rows]);
    }
    let mut columns: Vec<Vec<Bound<'py, PyAny>>> =
        schema.fields().iter().map(|_| Vec::with_capacity(rows.len())).collect();
    let Some(first) = rows.first() else { return Ok(columns) };
    let py = first.py();
    // Interned, as the names in the user's code are, so that a dict finds them by identity.
    let names: Vec<Bound<'py, PyString>> =
        schema.fields().iter().map(|field| PyString::intern(py, field.name())).collect();
    for (place, row) in rows.iter().enumerate() {
        let taken = shapes.of(row, schema).and_then(|shape| take_apart(row, shape, &names, &mut columns));
        taken.map_err(|message| Misfit { row: place, message })?;
    }
    Ok(columns)
}

/// The shapes of the types of rows seen so far; the last one seen stands at the end.
#[derive(Default)]
struct Shapes<'py> {
    known: Vec<(Bound<'py, PyType>, Shape)>,
}

impl<'py> Shapes<'py> {
    fn of(&mut self, row: &Bound<'py, PyAny>, schema: &SchemaRef) -> Result<&Shape, String> {
        let class = row.get_type_ptr();
        let found = self.known.iter().rposition(|(of, _)| of.as_type_ptr() == class);
        let last = self.known.len().wrapping_sub(1);
        match found {
            Some(place) if place != last => self.known.swap(place, last),
            Some(_) => {}
            None => {
                let class = row.get_type();
                let shape = shape_of(row, &class, schema)?;
                self.known.push((class, shape));
            }
        }
        self.known.last().map(|(_, shape)| shape).ok_or_else(String::new)
    }
}

fn take_apart<'py>(
    row: &Bound<'py, PyAny>,
    shape: &Shape,
    names: &[Bound<'py, PyString>],
    columns: &mut [Vec<Bound<'py, PyAny>>],
) -> Result<(), String> {
    let py = row.py();
    let none = || py.None().into_bound(py);
    let failed = |error: PyErr| error.to_string();
    match shape {
        Shape::Scalar => columns[0].push(row.clone()),
        Shape::Dict => {
            let row = row.cast::<PyDict>().map_err(|error| error.to_string())?;
            let mut found = 0;
            for (name, column) in names.iter().zip(columns) {
                let value = row.get_item(name).map_err(failed)?;
                found += usize::from(value.is_some());
                column.push(value.unwrap_or_else(none));
            }
            if found != row.len() {
                return Err(unknown_keys(row.as_any(), names));
            }
        }
        Shape::Mapping => {
            let row = row.cast::<PyMapping>().map_err(|error| error.to_string())?;
            let mut found = 0;
            for (name, column) in names.iter().zip(columns) {
                let is_there = row.contains(name).map_err(failed)?;
                found += usize::from(is_there);
                column.push(if is_there { row.get_item(name).map_err(failed)? } else { none() });
            }
            if found != row.len().map_err(failed)? {
                return Err(unknown_keys(row.as_any(), names));
            }
        }
        Shape::Named(places) => {
            let row = row.cast::<PyTuple>().map_err(|error| error.to_string())?;
            for (&place, column) in places.iter().zip(columns) {
                column.push(row.get_item(place).map_err(failed)?);
            }
        }
        Shape::Positional => {
            let length = row.len().map_err(failed)?;
            if length != columns.len() {
                return Err(format!("{} values for {} columns ({})", length, columns.len(), joined(names)));
            }
            match row.cast::<PyTuple>() {
                Ok(row) => {
                    for (place, column) in columns.iter_mut().enumerate() {
                        column.push(row.get_item(place).map_err(failed)?);
                    }
                }
                Err(_) => {
                    for (place, column) in columns.iter_mut().enumerate() {
                        column.push(row.get_item(place).map_err(failed)?);
                    }
                }
            }
        }
        Shape::Attributes => {
            for (name, column) in names.iter().zip(columns) {
                column.push(row.getattr(name).map_err(failed)?);
            }
        }
    }
    Ok(())
}

fn joined(names: &[Bound<'_, PyString>]) -> String {
    names.iter().map(|name| name.to_string_lossy().into_owned()).collect::<Vec<_>>().join(", ")
}

fn unknown_keys(row: &Bound<'_, PyAny>, names: &[Bound<'_, PyString>]) -> String {
    let mut unknown = Vec::new();
    if let Ok(keys) = row.try_iter() {
        for key in keys.flatten() {
            if !names.iter().any(|name| name.as_any().eq(&key).unwrap_or(false)) {
                unknown.push(record_text(&key));
            }
        }
    }
    format!("unknown column {}; the schema has {}", unknown.join(", "), joined(names))
}

fn shape_of(row: &Bound<'_, PyAny>, class: &Bound<'_, PyType>, schema: &SchemaRef) -> Result<Shape, String> {
    let py = row.py();
    let only = match schema.fields().as_ref() {
        [field] => Some(field),
        _ => None,
    };
    let is_whole_struct = |has_column: bool| {
        only.is_some_and(|field| !has_column && matches!(field.data_type(), DataType::Struct(_)) || only_object(only))
    };
    if let Ok(row) = row.cast::<PyDict>() {
        let has_column = only.is_some_and(|field| row.contains(field.name()).unwrap_or(false));
        return Ok(if is_whole_struct(has_column) && !has_column { Shape::Scalar } else { Shape::Dict });
    }
    let fields = class.getattr(intern!(py, "_fields")).ok().and_then(|fields| fields.extract::<Vec<String>>().ok());
    if let (Ok(_), Some(fields)) = (row.cast::<PyTuple>(), fields) {
        let place = |name: &String| fields.iter().position(|field| field == name);
        let places: Option<Vec<usize>> = schema.fields().iter().map(|field| place(field.name())).collect();
        return match places {
            Some(places) => Ok(Shape::Named(places)),
            None if fields.len() == schema.fields().len() => Ok(Shape::Positional),
            None => Err(format!("a record with the fields {} does not have all columns", fields.join(", "))),
        };
    }
    if let Some(field) = only {
        let is_list = matches!(field.data_type(), DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(_, _));
        let is_sequence = row.cast::<PyTuple>().is_ok() || row.cast::<PyList>().is_ok();
        let is_record = class.hasattr(intern!(py, "__dataclass_fields__")).unwrap_or(false);
        if only_object(only) || (!is_record && (is_list || !is_sequence)) {
            return Ok(Shape::Scalar);
        }
        if is_record && matches!(field.data_type(), DataType::Struct(_)) && !row.hasattr(field.name().as_str()).unwrap_or(false) {
            return Ok(Shape::Scalar);
        }
    }
    if row.cast::<PyTuple>().is_ok() || row.cast::<PyList>().is_ok() {
        return Ok(Shape::Positional);
    }
    if row.cast::<PyMapping>().is_ok() {
        return Ok(Shape::Mapping);
    }
    let has_all = schema.fields().iter().all(|field| row.hasattr(field.name().as_str()).unwrap_or(false));
    if has_all && row.cast::<PyString>().is_err() {
        return Ok(Shape::Attributes);
    }
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    Err(format!(
        "{} is no record of the columns {}; give a dict, a tuple or a dataclass",
        record_text(row),
        names.join(", ")
    ))
}

fn only_object(field: Option<&Arc<Field>>) -> bool {
    field.is_some_and(|field| is_object(field))
}

/// Python values as a column.
pub fn values_to_array(values: &[Bound<'_, PyAny>], field: &Field) -> Fit<ArrayRef> {
    if is_object(field) {
        return objects(values, field);
    }
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
        DataType::Time64(_) | DataType::Time32(_) => times(values, field),
        DataType::Decimal128(precision, scale) => decimals(values, field, *precision, *scale),
        DataType::List(item) => lists(values, field, item),
        DataType::Struct(_) => structs(values, field),
        DataType::Float32 | DataType::Float16 => through(values, field, DataType::Float64),
        DataType::LargeUtf8 | DataType::Utf8View => through(values, field, DataType::Utf8),
        DataType::Dictionary(_, inner) => through(values, field, inner.as_ref().clone()),
        DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => through(values, field, DataType::Binary),
        DataType::Date64 => through(values, field, DataType::Date32),
        DataType::LargeList(item) | DataType::FixedSizeList(item, _) => through(values, field, DataType::List(Arc::clone(item))),
        other => Err(Misfit {
            row: 0,
            message: format!("column {:?} has the type {other:?}, which cannot be made of Python values", field.name()),
        }),
    }
}

/// Fills a column of a like type, then casts as a whole.
fn through(values: &[Bound<'_, PyAny>], field: &Field, by: DataType) -> Fit<ArrayRef> {
    let array = values_to_array(values, &field.clone().with_data_type(by))?;
    cast(&array, field.data_type())
        .map_err(|error| Misfit { row: 0, message: format!("column {:?}: {error}", field.name()) })
}

#[cold]
fn misfit(row: usize, field: &Field, value: &Bound<'_, PyAny>) -> Misfit {
    let class = value.get_type().name().map_or_else(|_| "object".to_owned(), |name| name.to_string());
    let message =
        format!("column {:?} is {} and cannot hold {} ({class})", field.name(), type_name(field), record_text(value));
    Misfit { row, message }
}

fn nulls(values: &[Bound<'_, PyAny>], field: &Field) -> Fit<ArrayRef> {
    match values.iter().position(|value| !value.is_none()) {
        Some(row) => Err(misfit(row, field, &values[row])),
        None => Ok(Arc::new(NullArray::new(values.len()))),
    }
}

fn booleans(values: &[Bound<'_, PyAny>], field: &Field) -> Fit<ArrayRef> {
    let mut builder = BooleanBuilder::with_capacity(values.len());
    for (row, value) in values.iter().enumerate() {
        if value.is_none() {
            builder.append_null();
        } else {
            builder.append_value(value.extract::<bool>().map_err(|_| misfit(row, field, value))?);
        }
    }
    Ok(Arc::new(builder.finish()))
}

fn integers<T>(values: &[Bound<'_, PyAny>], field: &Field) -> Fit<ArrayRef>
where
    T: ArrowPrimitiveType,
    T::Native: TryFrom<i128>,
    for<'a, 'py> T::Native: FromPyObject<'a, 'py>,
{
    let mut out: Vec<T::Native> = Vec::with_capacity(values.len());
    let mut validity: Option<Vec<bool>> = None;
    for (row, value) in values.iter().enumerate() {
        if value.is_none() {
            validity.get_or_insert_with(|| vec![true; row]).push(false);
            out.push(T::Native::default());
            continue;
        }
        out.push(value.extract::<T::Native>().map_err(|_| misfit(row, field, value))?);
        if let Some(validity) = &mut validity {
            validity.push(true);
        }
    }
    Ok(Arc::new(PrimitiveArray::<T>::new(out.into(), validity.map(NullBuffer::from))))
}

fn floats(values: &[Bound<'_, PyAny>], field: &Field) -> Fit<ArrayRef> {
    let mut out: Vec<f64> = Vec::with_capacity(values.len());
    let mut validity: Option<Vec<bool>> = None;
    for (row, value) in values.iter().enumerate() {
        if value.is_none() {
            validity.get_or_insert_with(|| vec![true; row]).push(false);
            out.push(0.0);
            continue;
        }
        let number = match value.cast_exact::<PyFloat>() {
            Ok(number) => number.value(),
            Err(_) => value.extract::<f64>().map_err(|_| misfit(row, field, value))?,
        };
        out.push(number);
        if let Some(validity) = &mut validity {
            validity.push(true);
        }
    }
    Ok(Arc::new(PrimitiveArray::<Float64Type>::new(out.into(), validity.map(NullBuffer::from))))
}

fn texts(values: &[Bound<'_, PyAny>], field: &Field) -> Fit<ArrayRef> {
    let mut builder = StringBuilder::with_capacity(values.len(), values.len() * 8);
    for (row, value) in values.iter().enumerate() {
        if value.is_none() {
            builder.append_null();
            continue;
        }
        let text = value.cast::<PyString>().map_err(|_| misfit(row, field, value))?;
        builder.append_value(text.to_str().map_err(|_| misfit(row, field, value))?);
    }
    Ok(Arc::new(builder.finish()))
}

fn binaries(values: &[Bound<'_, PyAny>], field: &Field) -> Fit<ArrayRef> {
    let mut builder = BinaryBuilder::with_capacity(values.len(), values.len() * 8);
    for (row, value) in values.iter().enumerate() {
        if value.is_none() {
            builder.append_null();
        } else if let Ok(value) = value.cast::<PyBytes>() {
            builder.append_value(value.as_bytes());
        } else if let Ok(value) = value.cast::<PyByteArray>() {
            builder.append_value(value.to_vec());
        } else {
            return Err(misfit(row, field, value));
        }
    }
    Ok(Arc::new(builder.finish()))
}

fn objects(values: &[Bound<'_, PyAny>], field: &Field) -> Fit<ArrayRef> {
    static DUMPS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let mut builder = BinaryBuilder::with_capacity(values.len(), values.len() * 32);
    for (row, value) in values.iter().enumerate() {
        if value.is_none() {
            builder.append_null();
            continue;
        }
        let failed = |error: PyErr| Misfit {
            row,
            message: format!("column {:?} holds Python objects and {} cannot be pickled: {error}", field.name(), record_text(value)),
        };
        let dumps = DUMPS.import(value.py(), "pickle", "dumps").map_err(failed)?;
        let pickled = dumps.call1((value, 5)).map_err(failed)?;
        builder.append_value(pickled.cast::<PyBytes>().map_err(|_| misfit(row, field, value))?.as_bytes());
    }
    Ok(Arc::new(builder.finish()))
}

fn dates(values: &[Bound<'_, PyAny>], field: &Field) -> Fit<ArrayRef> {
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

fn timestamps(values: &[Bound<'_, PyAny>], field: &Field, unit: TimeUnit, zone: Option<&str>) -> Fit<ArrayRef> {
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

fn durations(values: &[Bound<'_, PyAny>], field: &Field, unit: TimeUnit) -> Fit<ArrayRef> {
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

fn times(values: &[Bound<'_, PyAny>], field: &Field) -> Fit<ArrayRef> {
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

fn decimals(values: &[Bound<'_, PyAny>], field: &Field, precision: u8, scale: i8) -> Fit<ArrayRef> {
    static SCALED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let mut out: Vec<Option<i128>> = Vec::with_capacity(values.len());
    for (row, value) in values.iter().enumerate() {
        if value.is_none() {
            out.push(None);
            continue;
        }
        let number = SCALED
            .import(value.py(), "millstream._zones", "scaled_decimal")
            .and_then(|scaled| scaled.call1((value, precision, scale)))
            .and_then(|number| number.extract::<i128>());
        out.push(Some(number.map_err(|_| misfit(row, field, value))?));
    }
    let array = Decimal128Array::from(out).with_precision_and_scale(precision, scale);
    Ok(Arc::new(array.map_err(|error| Misfit { row: 0, message: error.to_string() })?))
}

fn lists(values: &[Bound<'_, PyAny>], field: &Field, item: &Arc<Field>) -> Fit<ArrayRef> {
    let mut offsets: Vec<i32> = Vec::with_capacity(values.len() + 1);
    offsets.push(0);
    let mut validity: Vec<bool> = Vec::with_capacity(values.len());
    let mut flat: Vec<Bound<'_, PyAny>> = Vec::new();
    let mut owner: Vec<usize> = Vec::new();
    for (row, value) in values.iter().enumerate() {
        validity.push(!value.is_none());
        if !value.is_none() {
            let is_text = value.cast::<PyString>().is_ok() || value.cast::<PyBytes>().is_ok() || value.cast::<PyDict>().is_ok();
            if is_text {
                return Err(misfit(row, field, value));
            }
            for element in value.try_iter().map_err(|_| misfit(row, field, value))? {
                flat.push(element.map_err(|_| misfit(row, field, value))?);
                owner.push(row);
            }
        }
        offsets.push(i32::try_from(flat.len()).map_err(|_| misfit(row, field, value))?);
    }
    let named = item.as_ref().clone().with_name(field.name());
    let array = values_to_array(&flat, &named)
        .map_err(|error| Misfit { row: owner.get(error.row).copied().unwrap_or(0), message: error.message })?;
    let nulls = Some(NullBuffer::from(validity)).filter(|nulls| nulls.null_count() > 0);
    let array = ListArray::try_new(Arc::clone(item), OffsetBuffer::new(offsets.into()), array, nulls);
    Ok(Arc::new(array.map_err(|error| Misfit { row: 0, message: error.to_string() })?))
}

fn structs(values: &[Bound<'_, PyAny>], field: &Field) -> Fit<ArrayRef> {
    let DataType::Struct(fields) = field.data_type() else {
        return Err(Misfit { row: 0, message: format!("column {:?} is no struct", field.name()) });
    };
    let schema: SchemaRef = Arc::new(arrow::datatypes::Schema::new(fields.clone()));
    let present: Vec<Bound<'_, PyAny>> = values.iter().filter(|value| !value.is_none()).cloned().collect();
    let places: Vec<usize> = values.iter().enumerate().filter(|(_, v)| !v.is_none()).map(|(row, _)| row).collect();
    let of_row = |error: Misfit| Misfit {
        row: places.get(error.row).copied().unwrap_or(0),
        message: format!("column {:?}: {}", field.name(), error.message),
    };
    let mut columns = gather(present, &schema).map_err(of_row)?;
    if places.len() != values.len() {
        let Some(none) = values.iter().find(|value| value.is_none()) else { return nulls(values, field) };
        for column in &mut columns {
            let mut found = std::mem::take(column).into_iter();
            *column = values.iter().map(|v| if v.is_none() { none.clone() } else { found.next().unwrap_or_else(|| none.clone()) }).collect();
        }
    }
    let arrays: Fit<Vec<ArrayRef>> =
        columns.iter().zip(fields).map(|(values, field)| values_to_array(values, field)).collect();
    let arrays = arrays.map_err(|error| Misfit { message: format!("column {:?}: {}", field.name(), error.message), ..error })?;
    let nulls = Some(NullBuffer::from_iter(values.iter().map(|value| !value.is_none()))).filter(|n| n.null_count() > 0);
    let array = StructArray::try_new_with_length(fields.clone(), arrays, nulls, values.len());
    Ok(Arc::new(array.map_err(|error| Misfit { row: 0, message: error.to_string() })?))
}
