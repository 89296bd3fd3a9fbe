//! Arrow data of other libraries: `__arrow_c_array__` and `__arrow_c_stream__`.
//!
//! The bytes are taken as they are, without a copy. Two things that other libraries may do are put in order first, as
//! arrow-rs takes them wrongly:
//!
//! * *An offset of a struct in a struct.* A slice moves only the offset of the outermost struct. arrow-rs pushes it into
//!   the fields, and for those that are structs themselves once more; the same holds for lists of a fixed size. [`aligned`]
//!   pushes it down once.
//! * *A buffer of a column of nulls.* There is nothing in it, and Arrow's format has none; Polars hands over an empty one,
//!   which arrow-rs refuses. [`without_buffers_of_nulls`] leaves it out.
//!
//! A column of bytes stays one, even if its metadata says that they are Python objects ([`foreign_field`]).
//!
//! Nobody has looked at the bytes yet, and everything downstream trusts them: [`validate`] refuses columns that contradict
//! themselves, such as text that is not UTF-8, offsets or codes that point outside, and decimals with more digits than their
//! type. It makes one pass over text and decimals, and takes next to no time for other numbers.

use std::ffi::{CStr, c_char};
use std::sync::Arc;

use arrow::array::{Array, ArrayData, ArrayRef, RecordBatch, RecordBatchOptions, RecordBatchReader, StructArray, make_array};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ffi::{FFI_ArrowArray, FFI_ArrowSchema, from_ffi_and_data_type};
use arrow::ffi_stream::FFI_ArrowArrayStream;
use mill_frame::schema::foreign_field;
use mill_frame::types::{children, too_many_digits};
use mill_frame::zone::Zone;
use mill_protocol::Error;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyTuple};

use crate::error::{MillstreamError, SchemaError, message, to_python};
use crate::types::type_name;

/// What is said of a column without a table around it.
const NO_NAMES: &str = "a column by itself has no name: give a table, or a batch";

/// A stream of batches, or of chunks of a column.
pub struct Import {
    stream: FFI_ArrowArrayStream,
    field: FieldRef,
    schema: SchemaRef,
}

impl Import {
    /// Takes what `__arrow_c_stream__` returns.
    pub fn of_stream(object: &Bound<'_, PyAny>) -> PyResult<Import> {
        let capsule = exported(object, "__arrow_c_stream__")?.cast_into::<PyCapsule>()?;
        let pointer = capsule.pointer_checked(Some(c"arrow_array_stream"))?.cast::<FFI_ArrowArrayStream>();
        // SAFETY: a capsule of this name holds a stream of Arrow's C interface; `from_raw` moves it out and leaves one that
        // is released in its place, which the destructor of the capsule passes over.
        let mut stream = unsafe { FFI_ArrowArrayStream::from_raw(pointer.as_ptr()) };
        let get_schema = stream.get_schema.filter(|_| stream.release.is_some());
        let get_schema = get_schema.ok_or_else(|| SchemaError::new_err("this stream of Arrow data has been read already"))?;
        let mut schema = FFI_ArrowSchema::empty();
        // SAFETY: the stream is not released, and the callback fills in a schema that we own.
        if unsafe { get_schema(&raw mut stream, &raw mut schema) } != 0 {
            return Err(SchemaError::new_err(last_error(&mut stream)));
        }
        let field = known_field(&schema)?;
        let of_columns = match field.data_type() {
            DataType::Struct(fields) => Schema::new(fields.clone()).with_metadata(field.metadata().clone()),
            _ => Schema::empty(),
        };
        Ok(Import { stream, field, schema: Arc::new(of_columns) })
    }

    /// What one element is: a struct of the columns, if this is a stream of batches.
    pub fn field(&self) -> &FieldRef {
        &self.field
    }
}

fn last_error(stream: &mut FFI_ArrowArrayStream) -> String {
    let get_last_error = stream.get_last_error;
    let message = |get: unsafe extern "C" fn(*mut FFI_ArrowArrayStream) -> *const c_char| {
        // SAFETY: the stream is not released; what it returns is null or text that lives until the next call.
        let text = unsafe { get(stream) };
        // SAFETY: as above.
        (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
    };
    get_last_error.and_then(message).unwrap_or_else(|| "the stream of Arrow data failed and does not say why".to_owned())
}

impl Iterator for Import {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        let get_next = self.stream.get_next?;
        let mut array = FFI_ArrowArray::empty();
        // SAFETY: the stream is not released before it is dropped, and the callback fills in an array that we own.
        if unsafe { get_next(&raw mut self.stream, &raw mut array) } != 0 {
            return Some(Err(ArrowError::CDataInterface(last_error(&mut self.stream))));
        }
        if array.is_released() {
            return None;
        }
        Some(imported(array, self.field.data_type()).and_then(|array| batch(&array, &self.schema)))
    }
}

impl RecordBatchReader for Import {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}

/// A table of anything with `__arrow_c_stream__` or `__arrow_c_array__`.
pub fn table(object: &Bound<'_, PyAny>) -> PyResult<(Vec<RecordBatch>, SchemaRef)> {
    if !object.hasattr("__arrow_c_stream__")? {
        let (array, field) = array(object)?;
        let DataType::Struct(fields) = field.data_type() else {
            return Err(SchemaError::new_err(NO_NAMES));
        };
        let schema = Arc::new(Schema::new(fields.clone()).with_metadata(field.metadata().clone()));
        return Ok((vec![batch(&array, &schema).map_err(failed)?], schema));
    }
    let mut import = Import::of_stream(object)?;
    if !matches!(import.field.data_type(), DataType::Struct(_)) {
        return Err(SchemaError::new_err(NO_NAMES));
    }
    let batches: Result<Vec<_>, _> = import.by_ref().collect();
    Ok((batches.map_err(failed)?, import.schema()))
}

/// The type of anything with `__arrow_c_array__` or `__arrow_c_stream__`.
pub fn field(object: &Bound<'_, PyAny>) -> PyResult<FieldRef> {
    if object.hasattr("__arrow_c_array__")? {
        let (schema, _) = capsules(object)?;
        field_of(&schema)
    } else {
        Ok(Arc::clone(Import::of_stream(object)?.field()))
    }
}

/// What `__arrow_c_array__` returns.
pub fn array(object: &Bound<'_, PyAny>) -> PyResult<(ArrayRef, FieldRef)> {
    let (schema, array) = capsules(object)?;
    let field = field_of(&schema)?;
    let pointer = array.pointer_checked(Some(c"arrow_array"))?.cast::<FFI_ArrowArray>();
    // SAFETY: as in `Import::of_stream`, of an array.
    let array = unsafe { FFI_ArrowArray::from_raw(pointer.as_ptr()) };
    Ok((imported(array, field.data_type()).map_err(failed)?, field))
}

/// What a library exports, or why it cannot: pandas, for one, refuses columns that mix kinds, with an error of its own.
fn exported<'py>(object: &Bound<'py, PyAny>, method: &str) -> PyResult<Bound<'py, PyAny>> {
    object.call_method0(method).map_err(|error| {
        let py = object.py();
        if !error.is_instance_of::<PyException>(py) || error.is_instance_of::<MillstreamError>(py) {
            return error;
        }
        let name = object.get_type().name().map_or_else(|_| "object".to_owned(), |name| name.to_string());
        let refused = SchemaError::new_err(format!(
            "this {name} cannot be exported as Arrow data: {}; make each of its columns one type that Arrow has, and no two of \
             one name",
            message(py, &error)
        ));
        refused.set_cause(py, Some(error));
        refused
    })
}

fn capsules<'py>(object: &Bound<'py, PyAny>) -> PyResult<(Bound<'py, PyCapsule>, Bound<'py, PyCapsule>)> {
    let both = exported(object, "__arrow_c_array__")?.cast_into::<PyTuple>()?;
    Ok((both.get_item(0)?.cast_into()?, both.get_item(1)?.cast_into()?))
}

fn field_of(capsule: &Bound<'_, PyCapsule>) -> PyResult<FieldRef> {
    let pointer = capsule.pointer_checked(Some(c"arrow_schema"))?.cast::<FFI_ArrowSchema>();
    // SAFETY: a capsule of this name holds a schema of Arrow's C interface, which lives as long as the capsule.
    known_field(unsafe { pointer.as_ref() })
}

/// The field that a schema describes, if its values keep their meaning here.
fn known_field(schema: &FFI_ArrowSchema) -> PyResult<FieldRef> {
    let field = match Field::try_from(schema) {
        Ok(field) => foreign_field(&Arc::new(field)),
        Err(error) => {
            let found = unknown_format(schema, "").map(|(column, format)| no_such_type(&column, &format));
            return Err(SchemaError::new_err(found.unwrap_or_else(|| error.to_string())));
        }
    };
    let columns = match field.data_type() {
        DataType::Struct(fields) => fields.iter().cloned().collect(),
        _ => vec![Arc::clone(&field)],
    };
    for column in columns {
        if let Some(reason) = without_meaning(&column) {
            return Err(SchemaError::new_err(format!("column {:?} {reason}", column.name())));
        }
    }
    Ok(field)
}

/// The first column with a format that Arrow's specification does not have, and that format.
fn unknown_format(schema: &FFI_ArrowSchema, column: &str) -> Option<(String, String)> {
    let inner = || {
        schema.children().chain(schema.dictionary()).find_map(|child| {
            // Fields within a column are told by the name of the column.
            let name = if column.is_empty() { child.name().unwrap_or_default() } else { column };
            unknown_format(child, name)
        })
    };
    let own = || {
        let format = schema.format();
        let is_own = DataType::try_from(schema).is_err();
        is_own.then(|| (column.to_owned(), format.to_owned()))
    };
    inner().or_else(own)
}

fn no_such_type(column: &str, format: &str) -> String {
    match format {
        "_pli128" | "_plu128" => {
            let name = if format == "_pli128" { "Int128" } else { "UInt128" };
            format!(
                "column {column:?} is {name}, a type of Polars that Arrow does not have: cast it before, as in \
                 pl.col({column:?}).cast(pl.Int64), or to pl.Decimal(38, 0), which holds more digits"
            )
        }
        _ => format!("column {column:?} has the type {format:?} of Arrow's C interface, which is not supported: cast it before"),
    }
}

/// Why the values of a column would be taken for something else than they are, and what to do.
fn without_meaning(field: &Field) -> Option<String> {
    let found = match (field.extension_type_name(), field.data_type()) {
        (Some("pandas.period"), _) => Some(
            "holds periods of pandas, of which Arrow has only the numbers: convert it before, as in df[name].dt.to_timestamp()".to_owned(),
        ),
        (Some("pandas.interval"), _) => Some(
            "holds intervals of pandas, of which Arrow does not have the ends that are closed: make two columns of it, as in \
             df[name].array.left and df[name].array.right"
                .to_owned(),
        ),
        (_, DataType::Timestamp(_, Some(zone))) if zone.parse::<Zone>().is_err() => Some(unknown_zone(zone)),
        _ => None,
    };
    found.or_else(|| match field.data_type() {
        DataType::List(inner)
        | DataType::LargeList(inner)
        | DataType::ListView(inner)
        | DataType::LargeListView(inner)
        | DataType::FixedSizeList(inner, _)
        | DataType::Map(inner, _)
        | DataType::RunEndEncoded(_, inner) => without_meaning(inner),
        DataType::Struct(fields) => fields.iter().find_map(|inner| without_meaning(inner)),
        DataType::Dictionary(_, values) => without_meaning(&Field::new("", values.as_ref().clone(), true)),
        _ => None,
    })
}

/// What is said of times in a zone that nobody knows.
pub fn unknown_zone(zone: &str) -> String {
    format!("has the time zone {zone:?}, which is not known; use a name such as \"Europe/Berlin\" or \"UTC\", or an offset such as \"+02:00\"")
}

fn failed(error: ArrowError) -> PyErr {
    to_python(match error {
        ArrowError::CDataInterface(what) => Error::data(what),
        other => Error::data(other.to_string()),
    })
}

fn batch(array: &ArrayRef, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let rows = array.as_any().downcast_ref::<StructArray>();
    let rows = rows.ok_or_else(|| ArrowError::CDataInterface(NO_NAMES.to_owned()))?;
    if let Some(row) = rows.nulls().and_then(|nulls| nulls.iter().position(|is_valid| !is_valid)) {
        return Err(ArrowError::CDataInterface(format!("row {row} is null, which a row of a table cannot be")));
    }
    let options = RecordBatchOptions::new().with_row_count(Some(array.len()));
    RecordBatch::try_new_with_options(Arc::clone(schema), rows.columns().to_vec(), &options)
}

fn imported(mut array: FFI_ArrowArray, data_type: &DataType) -> Result<ArrayRef, ArrowError> {
    without_buffers_of_nulls(&mut array, data_type);
    // SAFETY: the array comes from a library that keeps to Arrow's C interface, with a schema of this type.
    let data = unsafe { from_ffi_and_data_type(array, data_type.clone()) }?;
    Ok(make_array(aligned(data)))
}

/// Leaves out the buffers of columns of nulls.
fn without_buffers_of_nulls(array: &mut FFI_ArrowArray, data_type: &DataType) {
    if data_type == &DataType::Null {
        // What frees the array goes by its private data: the interface lets a consumer move the struct, and so change it.
        array.n_buffers = 0;
    }
    let fields = match data_type {
        // Its values are no child here.
        DataType::Dictionary(..) => Vec::new(),
        other => children(other),
    };
    if array.children.is_null() || usize::try_from(array.n_children) != Ok(fields.len()) {
        return;
    }
    for (place, data_type) in fields.into_iter().enumerate() {
        // SAFETY: an array that is not released has `n_children` children, which nobody else looks at, for we own it.
        let child = unsafe { (*array.children.add(place)).as_mut() };
        if let Some(child) = child {
            without_buffers_of_nulls(child, data_type);
        }
    }
}

/// The same values, with offsets of structs and lists of a fixed size pushed into their fields, at all depths.
fn aligned(data: ArrayData) -> ArrayData {
    if data.child_data().is_empty() {
        return data;
    }
    let (offset, len) = (data.offset(), data.len());
    let inside = match data.data_type() {
        DataType::Struct(_) => Some((offset, len)),
        DataType::FixedSizeList(_, size) => Some((offset * *size as usize, len * *size as usize)),
        _ => None,
    };
    let children = data.child_data().iter().map(|child| match inside {
        Some((offset, len)) if offset != 0 || len != child.len() => cut(aligned(child.clone()), offset, len),
        _ => aligned(child.clone()),
    });
    let children = children.collect();
    let nulls = data.nulls().cloned();
    let moved = data.into_builder().child_data(children).nulls(nulls);
    let moved = if inside.is_some() { moved.offset(0) } else { moved };
    // SAFETY: the same bytes, seen at the same places; `validate` looks at them afterwards.
    unsafe { moved.build_unchecked() }
}

/// A part of data that is aligned, aligned.
fn cut(data: ArrayData, offset: usize, len: usize) -> ArrayData {
    let inside = match data.data_type() {
        DataType::Struct(_) => (offset, len),
        DataType::FixedSizeList(_, size) => (offset * *size as usize, len * *size as usize),
        _ => return data.slice(offset, len),
    };
    let children = data.child_data().iter().map(|child| cut(child.clone(), inside.0, inside.1)).collect();
    let nulls = data.nulls().map(|nulls| nulls.slice(offset, len));
    // SAFETY: as in `aligned`.
    unsafe { data.into_builder().len(len).child_data(children).nulls(nulls).build_unchecked() }
}

/// Refuses columns that contradict themselves.
///
/// # Errors
/// With the first column that is not valid.
pub fn validate(batch: &RecordBatch, name: &str) -> Result<(), Error> {
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        column.to_data().validate_full().map_err(|error| {
            Error::data(format!("{name}: column {:?} is not valid {}: {error}", field.name(), type_name(field)))
        })?;
        if let Some(digits) = too_many_digits(column) {
            return Err(Error::data(format!(
                "{name}: column {:?}, row {}: {}; cast the column before, to a decimal with fewer digits, a float or text",
                field.name(),
                digits.row,
                digits.message
            )));
        }
    }
    Ok(())
}
