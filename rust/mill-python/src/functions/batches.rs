//! Functions that are called once a frame with a `pyarrow.RecordBatch`: `map_batches`.
//!
//! What a function returns is held to the declared columns by the one rule for conversions ([`mill_frame::convert`]): a
//! value is the same afterwards, or it is an error that names column, row and value. Of a result that is row for row, the
//! rows that don't fit are rejected and the others go on; a batch that fails otherwise is rejected as a whole, record by
//! record, so that every record is in the result or in `.errors`.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, UInt32Array, make_array};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use mill_frame::convert::exact;
use mill_frame::schema::{holds_objects, is_object};
use mill_frame::text::record_json;
use mill_frame::types::check_fields;
use mill_plan::{BatchFunction, Origin, UserCall, UserOutput};
use mill_protocol::{Error, Rejected, Result};
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3_arrow::PyRecordBatch;

use super::{Adapter, arrow_error};
use crate::attach::{attach, call};
use crate::error::{self, IntoPython};
use crate::import::{self, validate};
use crate::types::type_name;

/// A function that is called once a frame.
#[derive(Debug)]
pub struct ArrowFunction {
    adapter: Adapter,
    schema: SchemaRef,
    batch_rows: Option<usize>,
    /// Whether it looks each record up for itself, so that those that fail can be told from the others.
    is_lookup: bool,
}

impl ArrowFunction {
    /// Makes a `map_batches`, or a look-up, of an adapter, whose calls get at most so many rows.
    pub fn new(name: String, call: Py<PyAny>, schema: SchemaRef, batch_rows: Option<usize>, is_lookup: bool) -> ArrowFunction {
        ArrowFunction { adapter: Adapter { name, call }, schema, batch_rows, is_lookup }
    }

    /// What becomes of a frame in which some record fails, half by half.
    fn in_halves(&self, batch: &RecordBatch) -> Result<UserOutput> {
        let half = batch.num_rows() / 2;
        let (mut parts, mut rows, mut rejected) = (Vec::with_capacity(2), Vec::new(), Vec::new());
        for (start, len) in [(0, half), (half, batch.num_rows() - half)] {
            let UserCall::Whole(output) = self.call(&batch.slice(start, len))? else {
                return Err(Error::internal("a look-up gives all results at once"));
            };
            match output.origin {
                Origin::Same => rows.extend((start..start + len).map(|row| row as u32)),
                Origin::Rows(places) => rows.extend(places.values().iter().map(|&row| row + start as u32)),
                Origin::Unknown => return Err(Error::internal("a look-up has one result a record")),
            }
            parts.push(output.data);
            rejected.extend(output.rejected);
        }
        let data = concat_batches(&self.schema, &parts).map_err(arrow_error)?;
        Ok(UserOutput { data, origin: Origin::Rows(UInt32Array::from(rows)), rejected })
    }

    /// All records of a frame as rejected for one reason.
    fn reject_all(&self, batch: &RecordBatch, error: Error) -> UserOutput {
        let reason = Rejected::of(error, String::new());
        let of_row = |row| Rejected { record: record_json(batch, row), ..reason.clone() };
        UserOutput {
            data: RecordBatch::new_empty(Arc::clone(&self.schema)),
            origin: Origin::Rows(UInt32Array::from(Vec::<u32>::new())),
            rejected: (0..batch.num_rows()).map(of_row).collect(),
        }
    }

    /// The rows of a result that fit; the others are rejected.
    fn fitting(&self, batch: &RecordBatch, data: &RecordBatch) -> Result<UserOutput> {
        let Fitting { data, rows, misfits } = fitting(&self.adapter.name, data, &self.schema, batch)?;
        let rejected = misfits.into_iter().map(|(row, misfit)| Rejected::of(misfit, record_json(batch, row))).collect();
        Ok(UserOutput { data, origin: Origin::Rows(UInt32Array::from(rows)), rejected })
    }
}

/// A batch that a function returned and that does not fit.
pub fn misfit(name: &str, message: &str) -> Error {
    let text = format!("{name} returned a batch that does not fit: {message}");
    Error::new(mill_protocol::ErrorKind::UserFunction, text).because(error::SchemaError::new_err(message.to_owned()))
}

/// The rows of a result that fit its columns, and those that don't.
pub struct Fitting {
    /// Those that fit.
    pub data: RecordBatch,
    /// Which rows they are.
    pub rows: Vec<u32>,
    /// The others, with the reason.
    pub misfits: Vec<(usize, Error)>,
}

/// Finds the rows of a result that fit, by halves. It was made of `given`, row for row.
pub fn fitting(name: &str, data: &RecordBatch, schema: &SchemaRef, given: &RecordBatch) -> Result<Fitting> {
    let mut parts = vec![RecordBatch::new_empty(Arc::clone(schema))];
    let (mut rows, mut misfits) = (Vec::new(), Vec::new());
    let mut spans = vec![(0, data.num_rows())];
    while let Some((start, len)) = spans.pop() {
        match conform(&data.slice(start, len), schema, Some(given)) {
            Ok(part) => {
                parts.push(part);
                rows.extend((start..start + len).map(|row| row as u32));
            }
            Err(unfit) if len == 1 => misfits.push((start, misfit(name, &unfit.message(start)))),
            Err(_) => {
                spans.push((start + len / 2, len - len / 2));
                spans.push((start, len / 2));
            }
        }
    }
    let data = concat_batches(schema, &parts).map_err(arrow_error)?;
    Ok(Fitting { data, rows, misfits })
}

impl BatchFunction for ArrowFunction {
    fn name(&self) -> String {
        self.adapter.name.clone()
    }

    fn batch_rows(&self) -> Option<usize> {
        self.batch_rows
    }

    fn call(&self, batch: &RecordBatch) -> Result<UserCall> {
        attach(|py| {
            let given = || -> PyResult<RecordBatch> {
                let argument = PyRecordBatch::new(batch.clone()).into_pyarrow(py)?;
                let given = call(self.adapter.call.bind(py), (argument,))?;
                arrow_batch(&given)
            };
            let data = match given() {
                Ok(data) => data,
                // What cannot be asked fails the job: no record is to blame.
                Err(exception) if self.is_lookup && exception.is_instance_of::<error::ConnectorError>(py) => {
                    return Err(error::connector(py, exception, &self.adapter.name));
                }
                Err(exception) => {
                    let is_of_records = exception.is_instance_of::<PyException>(py);
                    // The row of one key is to blame, so the others are asked for again. Functions of the user's do not raise this:
                    // they would be called a second time for the same keys, and may answer otherwise then.
                    let is_of_one_key = self.is_lookup && exception.is_instance_of::<error::OneKeyError>(py);
                    if is_of_one_key && batch.num_rows() > 1 {
                        return self.in_halves(batch).map(UserCall::Whole);
                    }
                    // What a table holds is data; what a function raises is the user's.
                    let error = match is_of_one_key {
                        true => Error::data(error::message(py, &exception)),
                        false => error::from_python(py, exception, &self.adapter.name),
                    };
                    return if is_of_records { Ok(UserCall::Whole(self.reject_all(batch, error))) } else { Err(error) };
                }
            };
            let is_row_for_row = data.num_rows() == batch.num_rows();
            let output = match conform(&data, &self.schema, Some(batch)) {
                Ok(data) => {
                    let origin = if is_row_for_row { Origin::Same } else { Origin::Unknown };
                    UserOutput { data, origin, rejected: Vec::new() }
                }
                Err(misfit) if misfit.row.is_some() && is_row_for_row => self.fitting(batch, &data)?,
                Err(misfit) => self.reject_all(batch, self::misfit(&self.adapter.name, &misfit.message(0))),
            };
            Ok(UserCall::Whole(output))
        })
    }
}

/// Takes a batch from anything that hands one over through Arrow's C interface.
pub fn arrow_batch(given: &Bound<'_, PyAny>) -> PyResult<RecordBatch> {
    let (batches, schema) = import::table(given)?;
    let whole = match batches.as_slice() {
        [batch] => batch.clone(),
        _ => concat_batches(&schema, &batches).map_err(|error| error::SchemaError::new_err(error.to_string()))?,
    };
    validate(&whole, "the result").into_python()?;
    Ok(whole)
}

/// Why a batch does not have the columns that were declared.
pub struct Unfit {
    /// The first row that does not fit; `None` where the columns themselves don't.
    pub row: Option<usize>,
    reason: String,
}

impl Unfit {
    /// The reason, with the row as of a batch that starts at this row.
    pub fn message(&self, start: usize) -> String {
        match self.row {
            Some(row) => format!("row {}: {}", start + row, self.reason),
            None => self.reason.clone(),
        }
    }
}

/// The batch with exactly these columns and types, its values unchanged. Columns of Python objects hold objects of `given`,
/// and no others: what a function returns is bytes, which are unpickled only if they were pickled here.
pub fn conform(
    batch: &RecordBatch,
    schema: &SchemaRef,
    given: Option<&RecordBatch>,
) -> std::result::Result<RecordBatch, Unfit> {
    let found = batch.schema();
    check_fields(found.fields()).map_err(|error| Unfit { row: None, reason: error.to_string() })?;
    check_names(&found, schema).map_err(|reason| Unfit { row: None, reason })?;
    let mut columns = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        let place = found.index_of(field.name()).map_err(|error| Unfit { row: None, reason: error.to_string() })?;
        let column = batch.column(place);
        let column = match (column.data_type(), field.data_type()) {
            // The same values without their dictionary.
            (DataType::Dictionary(_, values), to) if !matches!(to, DataType::Dictionary(..)) => {
                cast(column, values).map_err(|error| Unfit { row: None, reason: error.to_string() })?
            }
            _ => Arc::clone(column),
        };
        columns.push(if column.data_type() == field.data_type() {
            column
        } else {
            exact(&column, field.data_type()).map_err(|inexact| Unfit {
                row: Some(inexact.row),
                reason: format!(
                    "column {:?} is {} and cannot hold {}: it {}",
                    field.name(),
                    type_name(field),
                    inexact.value,
                    inexact.reason
                ),
            })?
        });
    }
    check_objects(&columns, schema, given)?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
        .map_err(|error| Unfit { row: None, reason: error.to_string() })
}

/// Refuses bytes in columns of Python objects that are none of the objects given.
fn check_objects(
    columns: &[ArrayRef],
    schema: &SchemaRef,
    given: Option<&RecordBatch>,
) -> std::result::Result<(), Unfit> {
    if !schema.fields().iter().any(|field| holds_objects(field)) {
        return Ok(());
    }
    let mut known = HashSet::new();
    if let Some(given) = given {
        let mut pickled = Vec::new();
        given.columns().iter().zip(given.schema_ref().fields()).for_each(|(column, field)| objects(column, field, &mut pickled));
        known.extend(pickled.iter().flat_map(|values| values.as_binary::<i32>().iter().flatten().map(<[u8]>::to_vec)));
    }
    for (column, field) in columns.iter().zip(schema.fields()) {
        let mut pickled = Vec::new();
        objects(column, field, &mut pickled);
        for values in pickled {
            let unknown = values.as_binary::<i32>().iter().position(|value| value.is_some_and(|value| !known.contains(value)));
            if let Some(place) = unknown {
                return Err(Unfit {
                    // Elements of a list are counted otherwise than rows.
                    row: is_object(field).then_some(place),
                    reason: format!(
                        "column {:?} holds Python objects, and these bytes are none of the objects that came in: a function of \
                         batches can hand objects on, and map() or flat_map() can make new ones",
                        field.name()
                    ),
                });
            }
        }
    }
    Ok(())
}

/// The pickled objects of a column, at all depths.
fn objects(column: &ArrayRef, field: &Field, out: &mut Vec<ArrayRef>) {
    if is_object(field) {
        out.push(Arc::clone(column));
    } else if holds_objects(field) {
        let inside = column.to_data();
        let children = inside.child_data().iter().cloned().map(make_array);
        children.zip(fields_within(field.data_type())).for_each(|(child, field)| objects(&child, field, out));
    }
}

/// The fields of a type whose columns are the children of its own.
fn fields_within(data_type: &DataType) -> Vec<&FieldRef> {
    match data_type {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) | DataType::Map(item, _) => vec![item],
        DataType::Struct(fields) => fields.iter().collect(),
        _ => Vec::new(),
    }
}

/// Refuses columns that are missing, unknown or there twice.
fn check_names(found: &Schema, wanted: &Schema) -> std::result::Result<(), String> {
    for (place, field) in found.fields().iter().enumerate() {
        if wanted.field_with_name(field.name()).is_err() {
            let names: Vec<&str> = wanted.fields().iter().map(|field| field.name().as_str()).collect();
            return Err(format!("unknown column {:?}; the schema has {}", field.name(), names.join(", ")));
        }
        if found.fields()[..place].iter().any(|before| before.name() == field.name()) {
            return Err(format!("two columns have the name {:?}", field.name()));
        }
    }
    match wanted.fields().iter().find(|field| found.field_with_name(field.name()).is_err()) {
        Some(missing) => Err(format!("column {:?} is missing", missing.name())),
        None => Ok(()),
    }
}
