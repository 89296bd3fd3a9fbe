//! Types and schemas for Python: thin wrappers of Arrow fields.
//!
//! A type is kept as a field without a name, because `object` is not an Arrow type but a binary column with a mark in
//! its metadata.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit};
use mill_frame::schema::{TYPE_KEY as OBJECT_KEY, TYPE_OBJECT as OBJECT_VALUE, foreign_field, holds_objects};
pub use mill_frame::schema::is_object;
use mill_frame::types::{canonical_type, check_fields, is_same_zone, plain_type};
use mill_frame::zone::Zone;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyType};
use pyo3_arrow::ffi::to_schema_pycapsule;
use pyo3_arrow::{PyField, PySchema};

use crate::error::SchemaError;
use crate::import;

/// The type of a column.
#[pyclass(frozen, skip_from_py_object, module = "millstream._millstream", name = "DataType")]
#[derive(Clone, Debug)]
pub struct PyDataType {
    field: FieldRef,
}

impl PyDataType {
    /// The type as a field without a name.
    pub fn new(data_type: DataType) -> PyDataType {
        PyDataType { field: Arc::new(Field::new("", data_type, true)) }
    }

    fn of_field(field: &Field) -> PyDataType {
        let metadata: HashMap<String, String> =
            field.metadata().iter().filter(|(key, _)| key.as_str() == OBJECT_KEY).map(|(k, v)| (k.clone(), v.clone())).collect();
        PyDataType { field: Arc::new(Field::new("", plain_type(field.data_type()), true).with_metadata(metadata)) }
    }

    /// The Arrow type.
    pub fn data_type(&self) -> &DataType {
        self.field.data_type()
    }

    /// Whether values of the type are Python objects, or hold such.
    pub fn holds_objects(&self) -> bool {
        holds_objects(&self.field)
    }

    /// A nullable column of this type.
    pub fn named(&self, name: &str) -> Field {
        self.field.as_ref().clone().with_name(name)
    }
}

/// Refuses columns that no stream carries: two of one name, types that nest too deep.
pub fn check_columns(fields: &Fields) -> PyResult<()> {
    check_fields(fields).map_err(|error| SchemaError::new_err(error.to_string()))
}

/// The type of a column, unless it nests too deep.
fn checked(data_type: DataType) -> PyResult<PyDataType> {
    let kind = PyDataType::new(data_type);
    check_fields(&Fields::from(vec![kind.named("type")]))
        .map_err(|error| SchemaError::new_err(error.to_string().replace("column \"type\"", "the type")))?;
    Ok(kind)
}

#[pymethods]
impl PyDataType {
    /// Returns the type with this name.
    #[staticmethod]
    fn parse(name: &str) -> PyResult<PyDataType> {
        if name == OBJECT_VALUE {
            let metadata = HashMap::from([(OBJECT_KEY.to_owned(), OBJECT_VALUE.to_owned())]);
            let field = Field::new("", DataType::Binary, true).with_metadata(metadata);
            return Ok(PyDataType { field: Arc::new(field) });
        }
        let data_type = match name {
            "null" => DataType::Null,
            "bool" | "boolean" => DataType::Boolean,
            "int8" => DataType::Int8,
            "int16" => DataType::Int16,
            "int32" => DataType::Int32,
            "int64" | "int" => DataType::Int64,
            "uint8" => DataType::UInt8,
            "uint16" => DataType::UInt16,
            "uint32" => DataType::UInt32,
            "uint64" => DataType::UInt64,
            "float16" => DataType::Float16,
            "float32" => DataType::Float32,
            "float64" | "float" => DataType::Float64,
            "utf8" | "str" | "string" => DataType::Utf8,
            "large_utf8" => DataType::LargeUtf8,
            "binary" | "bytes" => DataType::Binary,
            "date" | "date32" => DataType::Date32,
            "timestamp" | "timestamp[us]" => DataType::Timestamp(TimeUnit::Microsecond, None),
            "timestamp[ms]" => DataType::Timestamp(TimeUnit::Millisecond, None),
            "timestamp[s]" => DataType::Timestamp(TimeUnit::Second, None),
            "timestamp[ns]" => DataType::Timestamp(TimeUnit::Nanosecond, None),
            "duration" | "duration[us]" => DataType::Duration(TimeUnit::Microsecond),
            "duration[ms]" => DataType::Duration(TimeUnit::Millisecond),
            "duration[s]" => DataType::Duration(TimeUnit::Second),
            "duration[ns]" => DataType::Duration(TimeUnit::Nanosecond),
            "time64[us]" | "time" => DataType::Time64(TimeUnit::Microsecond),
            "dictionary" => DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)),
            _ => {
                return Err(PyValueError::new_err(format!(
                    "{name:?} is no type; types by name are bool, int8 to int64, uint8 to uint64, float32, float64, str, \
                     binary, date, timestamp[us], duration[us], time and object"
                )));
            }
        };
        Ok(PyDataType::new(data_type))
    }

    /// Returns the type of a point in time.
    #[staticmethod]
    #[pyo3(signature = (unit, tz=None))]
    fn timestamp(unit: &str, tz: Option<&str>) -> PyResult<PyDataType> {
        if let Some(zone) = tz.filter(|zone| zone.parse::<Zone>().is_err()) {
            return Err(SchemaError::new_err(format!("a timestamp {}", import::unknown_zone(zone))));
        }
        Ok(PyDataType::new(DataType::Timestamp(time_unit(unit)?, tz.map(Arc::from))))
    }

    /// Returns the type of a length of time.
    #[staticmethod]
    fn duration(unit: &str) -> PyResult<PyDataType> {
        Ok(PyDataType::new(DataType::Duration(time_unit(unit)?)))
    }

    /// Returns the type of a decimal number.
    #[staticmethod]
    fn decimal(precision: u8, scale: i8) -> PyResult<PyDataType> {
        if !(1..=38).contains(&precision) || scale < 0 || scale as u8 > precision {
            return Err(SchemaError::new_err(format!(
                "a decimal has 1 to 38 digits and no more of them after the point than that, not ({precision}, {scale})"
            )));
        }
        Ok(PyDataType::new(DataType::Decimal128(precision, scale)))
    }

    /// Returns the type of a list.
    #[staticmethod]
    fn list(item: PyRef<'_, PyDataType>) -> PyResult<PyDataType> {
        checked(DataType::List(Arc::new(item.named("item"))))
    }

    /// Returns the type of a map: pairs of key and value, in order.
    #[staticmethod]
    fn map(key: PyRef<'_, PyDataType>, value: PyRef<'_, PyDataType>) -> PyResult<PyDataType> {
        let parts = Fields::from(vec![key.named("key").with_nullable(false), value.named("value")]);
        let entries = Field::new("entries", DataType::Struct(parts), false);
        checked(DataType::Map(Arc::new(entries), false))
    }

    /// Returns the type of a struct.
    #[staticmethod]
    fn r#struct(fields: Vec<(String, PyRef<'_, PyDataType>)>) -> PyResult<PyDataType> {
        checked(DataType::Struct(fields.iter().map(|(name, kind)| Arc::new(kind.named(name))).collect()))
    }

    /// Returns the type of anything with `__arrow_c_schema__`. None of these is `object`, whatever its metadata says.
    #[staticmethod]
    fn from_arrow(kind: PyField) -> PyResult<PyDataType> {
        let field = foreign_field(&kind.into_inner());
        check_columns(&Fields::from(vec![Arc::clone(&field)]))?;
        Ok(PyDataType::of_field(&field))
    }

    /// Returns the type of the values of anything with `__arrow_c_array__` or `__arrow_c_stream__`.
    #[staticmethod]
    fn from_arrow_array(array: &Bound<'_, PyAny>) -> PyResult<PyDataType> {
        let field = import::field(array)?;
        check_columns(&Fields::from(vec![Arc::clone(&field)]))?;
        Ok(PyDataType::of_field(&field))
    }

    /// Returns the type of the elements of a list; None for other types.
    fn item(&self) -> Option<PyDataType> {
        match self.field.data_type() {
            DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
                Some(PyDataType::of_field(item))
            }
            _ => None,
        }
    }

    /// Returns the fields of a struct; None for other types.
    fn fields(&self) -> Option<Vec<(String, PyDataType)>> {
        match self.field.data_type() {
            DataType::Struct(fields) => {
                Some(fields.iter().map(|field| (field.name().clone(), PyDataType::of_field(field))).collect())
            }
            _ => None,
        }
    }

    fn __repr__(&self) -> String {
        type_name(&self.field)
    }

    fn __eq__(&self, py: Python<'_>, other: &Bound<'_, PyAny>) -> PyResult<bool> {
        if let Ok(other) = other.cast::<PyDataType>() {
            return Ok(same(&self.field, &other.get().field));
        }
        // Python and Arrow types may stand for themselves: `schema["x"] == int`.
        let converted = py.import("millstream.types")?.getattr("data_type")?.call1((other,));
        let Ok(converted) = converted else { return Ok(false) };
        Ok(converted.cast::<PyDataType>().is_ok_and(|other| same(&self.field, &other.get().field)))
    }

    fn __hash__(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        match self.field.data_type() {
            DataType::Timestamp(unit, Some(zone)) if is_same_zone(zone, "UTC") => {
                DataType::Timestamp(*unit, Some("UTC".into())).hash(&mut hasher);
            }
            other => canonical_type(other).hash(&mut hasher),
        }
        is_object(&self.field).hash(&mut hasher);
        hasher.finish()
    }

    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        Ok(to_schema_pycapsule(py, self.field.as_ref())?)
    }
}

/// Whether two types are one: layouts of text and names of one time zone make no difference.
fn same(a: &Field, b: &Field) -> bool {
    let is_one = match (a.data_type(), b.data_type()) {
        (DataType::Timestamp(u1, Some(z1)), DataType::Timestamp(u2, Some(z2))) => u1 == u2 && is_same_zone(z1, z2),
        (DataType::Dictionary(..), other) | (other, DataType::Dictionary(..)) => {
            matches!(other, DataType::Dictionary(..)) && canonical_type(a.data_type()) == canonical_type(b.data_type())
        }
        (a, b) => a == b || canonical_type(a) == canonical_type(b),
    };
    is_one && is_object(a) == is_object(b)
}

fn time_unit(unit: &str) -> PyResult<TimeUnit> {
    match unit {
        "s" => Ok(TimeUnit::Second),
        "ms" => Ok(TimeUnit::Millisecond),
        "us" => Ok(TimeUnit::Microsecond),
        "ns" => Ok(TimeUnit::Nanosecond),
        _ => Err(SchemaError::new_err(format!("{unit:?} is no unit of time; use \"s\", \"ms\", \"us\" or \"ns\""))),
    }
}

/// The name of a column's type as users see it.
pub fn type_name(field: &Field) -> String {
    if is_object(field) { OBJECT_VALUE.to_owned() } else { mill_plan::type_name(field.data_type()) }
}

/// The columns of a stream.
#[pyclass(frozen, skip_from_py_object, module = "millstream._millstream")]
#[derive(Clone, Debug)]
pub struct RawSchema {
    /// The Arrow schema.
    pub schema: SchemaRef,
}

#[pymethods]
impl RawSchema {
    #[new]
    fn new(columns: Vec<(String, PyRef<'_, PyDataType>)>) -> PyResult<RawSchema> {
        let fields: Vec<Field> = columns.iter().map(|(name, kind)| kind.named(name)).collect();
        let schema = Schema::new(fields);
        check_columns(schema.fields())?;
        Ok(RawSchema { schema: Arc::new(schema) })
    }

    /// Takes a schema from anything with `__arrow_c_schema__`; a type that is not a struct becomes one column.
    #[classmethod]
    fn from_arrow(_class: &Bound<'_, PyType>, schema: &Bound<'_, PyAny>, scalar: &str) -> PyResult<RawSchema> {
        let fields: Vec<Field> = match schema.extract::<PySchema>() {
            Ok(schema) => {
                let schema = schema.into_inner();
                check_columns(schema.fields())?;
                let fields = schema.fields().iter().map(foreign_field);
                fields.map(|field| PyDataType::of_field(&field).named(field.name())).collect()
            }
            Err(_) => vec![PyDataType::from_arrow(schema.extract::<PyField>()?)?.named(scalar)],
        };
        if fields.is_empty() {
            return Err(SchemaError::new_err("the schema has no columns; name at least one"));
        }
        Ok(RawSchema { schema: Arc::new(Schema::new(fields)) })
    }

    fn names(&self) -> Vec<String> {
        self.schema.fields().iter().map(|field| field.name().clone()).collect()
    }

    fn types(&self) -> Vec<PyDataType> {
        self.schema.fields().iter().map(|field| PyDataType::of_field(field)).collect()
    }

    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        Ok(to_schema_pycapsule(py, self.schema.as_ref())?)
    }
}
