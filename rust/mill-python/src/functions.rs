//! User code in Python, behind the traits of the plan.
//!
//! The interpreter is taken once a frame: columns become lists, an adapter in `millstream.functions` loops over them in C
//! (`list.extend(map(function, rows))`), and the results become columns again.
//!
//! ```text
//!   frame ─► lists ─► adapter(lists, rows) ─► (results, origin, failures) ─► frame + rejected
//! ```

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{cast, concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Field, SchemaRef};
use mill_plan::{
    AggregateCall, AggregateFunction, AggregateKind, BatchFunction, ColumnFunction, Expr, Origin, ReduceFunction, Rung,
    ScalarValue, UserOutput, UserStepKind,
};
use mill_protocol::{Error, ErrorKind, Rejected, Result};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyList};
use pyo3_arrow::{PyRecordBatch, PyTable};

use crate::attach::attach;
use crate::error;
use crate::expr::RawExpr;
use crate::from_python::{plain_numbers, rows_to_batch, values_to_array};
use crate::to_python::{column_to_list, column_to_sequence};
use crate::types::PyDataType;

/// What every Python function has: what it is called, and the adapter that loops over it.
struct Adapter {
    name: String,
    call: Py<PyAny>,
}

impl fmt::Debug for Adapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

fn arrow_error(error: arrow::error::ArrowError) -> Error {
    Error::internal(format!("arrow: {error}"))
}

/// A frame's columns as sequences; `None` stands for a column that the function never looks at.
fn lists<'py>(py: Python<'py>, batch: &RecordBatch, used: Option<&[bool]>) -> PyResult<Bound<'py, PyList>> {
    let out = PyList::empty(py);
    for (index, (column, field)) in batch.columns().iter().zip(batch.schema().fields()).enumerate() {
        if used.is_some_and(|used| !used.get(index).copied().unwrap_or(true)) {
            continue;
        }
        out.append(column_to_sequence(py, column, field)?)?;
    }
    Ok(out)
}

/// One record as a dict, for messages.
fn record<'py>(py: Python<'py>, batch: &RecordBatch, row: usize) -> PyResult<Bound<'py, PyAny>> {
    let out = PyDict::new(py);
    let one = batch.slice(row, 1);
    for (column, field) in one.columns().iter().zip(batch.schema().fields()) {
        out.set_item(field.name(), column_to_list(py, column, field)?.get_item(0)?)?;
    }
    Ok(out.into_any())
}

/// What an adapter gives: results (of a filter: whether each row stays), the row each stems from (row by row if absent),
/// and the rows that raised.
type Answer<'py> = (Bound<'py, PyList>, Option<Vec<u32>>, Vec<(usize, Bound<'py, PyAny>)>);

/// The rows for which a filter gave something true; `origin` says which row each answer is of.
fn kept(answers: &Bound<'_, PyList>, origin: Option<&[u32]>) -> PyResult<UInt32Array> {
    let mut rows = Vec::with_capacity(answers.len());
    for (place, answer) in answers.iter().enumerate() {
        let is_kept = match answer.cast_exact::<PyBool>() {
            Ok(answer) => answer.is_true(),
            Err(_) => answer.is_truthy()?,
        };
        if is_kept {
            rows.push(origin.map_or(place as u32, |origin| origin[place]));
        }
    }
    Ok(UInt32Array::from(rows))
}

/// A function that is called once a record: `map`, `flat_map`, `filter`, `inspect`.
#[derive(Debug)]
pub struct RecordFunction {
    adapter: Adapter,
    kind: UserStepKind,
    schema: SchemaRef,
    /// Which columns of the input the function can see, if that is known.
    used: Option<Vec<bool>>,
}

impl RecordFunction {
    /// Puts an adapter behind a step of this kind; `used` are the places of the columns that it asks for.
    pub fn new(
        name: String,
        call: Py<PyAny>,
        kind: UserStepKind,
        schema: SchemaRef,
        used: Option<Vec<bool>>,
    ) -> RecordFunction {
        RecordFunction { adapter: Adapter { name, call }, kind, schema, used }
    }

    fn answer<'py>(&self, py: Python<'py>, batch: &RecordBatch) -> PyResult<Answer<'py>> {
        let lists = lists(py, batch, self.used.as_deref())?;
        self.adapter.call.bind(py).call1((lists, batch.num_rows()))?.extract().map_err(PyErr::from)
    }

    /// Turns results into columns; those that don't fit are rejected one by one.
    fn convert(
        &self,
        py: Python<'_>,
        batch: &RecordBatch,
        values: &Bound<'_, PyList>,
        origin: Option<Vec<u32>>,
        rejected: &mut Vec<Rejected>,
    ) -> Result<(RecordBatch, Option<Vec<u32>>)> {
        if let Ok(data) = rows_to_batch(values, &self.schema) {
            return Ok((data, origin));
        }
        let failed = |error: PyErr| error::from_python(py, error, &self.adapter.name);
        let mut parts = vec![RecordBatch::new_empty(Arc::clone(&self.schema))];
        let mut kept = Vec::new();
        for (place, value) in values.iter().enumerate() {
            let row = origin.as_ref().map_or(place as u32, |origin| origin[place]);
            let one = PyList::new(py, [value]).map_err(failed)?;
            match rows_to_batch(&one, &self.schema) {
                Ok(part) => {
                    parts.push(part);
                    kept.push(row);
                }
                Err(misfit) => {
                    let record = record(py, batch, row as usize).map_err(failed)?;
                    let error = format!("{} gave a result that does not fit: {}", self.adapter.name, misfit.message);
                    let cause: PyErr = error::SchemaError::new_err(misfit.message);
                    rejected.push(Rejected {
                        error,
                        traceback: String::new(),
                        record: error::record_text(&record),
                        cause: Some(Arc::new(cause)),
                    });
                }
            }
        }
        Ok((concat_batches(&self.schema, &parts).map_err(arrow_error)?, Some(kept)))
    }
}

impl BatchFunction for RecordFunction {
    fn name(&self) -> String {
        self.adapter.name.clone()
    }

    fn call(&self, batch: &RecordBatch) -> Result<UserOutput> {
        attach(|py| {
            let what = &self.adapter.name;
            let (values, origin, failures) =
                self.answer(py, batch).map_err(|exception| error::from_python(py, exception, what))?;
            let mut rejected = Vec::with_capacity(failures.len());
            for (row, exception) in failures {
                let record = record(py, batch, row).map_err(|exception| error::from_python(py, exception, what))?;
                rejected.push(error::rejected(py, what, PyErr::from_value(exception), &record));
            }
            if self.kind == UserStepKind::Filter {
                let rows = kept(&values, origin.as_deref()).map_err(|exception| error::from_python(py, exception, what))?;
                let data = take_record_batch(batch, &rows).map_err(arrow_error)?;
                return Ok(UserOutput { data, origin: Origin::Rows(rows), rejected });
            }
            if self.kind == UserStepKind::Inspect {
                let Some(rows) = origin else {
                    return Ok(UserOutput { data: batch.clone(), origin: Origin::Same, rejected });
                };
                let rows = UInt32Array::from(rows);
                let data = take_record_batch(batch, &rows).map_err(arrow_error)?;
                return Ok(UserOutput { data, origin: Origin::Rows(rows), rejected });
            }
            let (data, origin) = self.convert(py, batch, &values, origin, &mut rejected)?;
            let origin = origin.map_or(Origin::Same, |rows| Origin::Rows(UInt32Array::from(rows)));
            Ok(UserOutput { data, origin, rejected })
        })
    }

    fn rung(&self) -> Rung {
        Rung::Record
    }
}

/// A function that is called once a frame with a `pyarrow.RecordBatch`.
#[derive(Debug)]
pub struct ArrowFunction {
    adapter: Adapter,
    schema: SchemaRef,
}

impl ArrowFunction {
    /// Puts an adapter behind `map_batches`.
    pub fn new(name: String, call: Py<PyAny>, schema: SchemaRef) -> ArrowFunction {
        ArrowFunction { adapter: Adapter { name, call }, schema }
    }
}

impl BatchFunction for ArrowFunction {
    fn name(&self) -> String {
        self.adapter.name.clone()
    }

    fn call(&self, batch: &RecordBatch) -> Result<UserOutput> {
        attach(|py| {
            let what = &self.adapter.name;
            let given = || -> PyResult<RecordBatch> {
                let argument = PyRecordBatch::new(batch.clone()).into_pyarrow(py)?;
                let given = self.adapter.call.bind(py).call1((argument,))?;
                arrow_batch(&given)
            };
            let data = given().map_err(|exception| error::from_python(py, exception, what))?;
            let data = conform(&data, &self.schema)
                .map_err(|message| Error::new(ErrorKind::UserFunction, format!("{what} gave a batch that does not fit: {message}")))?;
            let origin = if data.num_rows() == batch.num_rows() { Origin::Same } else { Origin::Unknown };
            Ok(UserOutput { data, origin, rejected: Vec::new() })
        })
    }
}

/// Takes a batch from anything that gives one through Arrow's C interface.
pub fn arrow_batch(given: &Bound<'_, PyAny>) -> PyResult<RecordBatch> {
    if let Ok(batch) = given.extract::<PyRecordBatch>() {
        return Ok(batch.into_inner());
    }
    let (batches, schema) = given.extract::<PyTable>()?.into_inner();
    concat_batches(&schema, &batches).map_err(|error| error::SchemaError::new_err(error.to_string()))
}

/// The batch with exactly these columns and types.
pub fn conform(batch: &RecordBatch, schema: &SchemaRef) -> std::result::Result<RecordBatch, String> {
    let found = batch.schema();
    if let Some(extra) = found.fields().iter().find(|field| schema.field_with_name(field.name()).is_err()) {
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        return Err(format!("unknown column {:?}; the schema has {}", extra.name(), names.join(", ")));
    }
    let mut columns = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        let column = batch.column_by_name(field.name()).ok_or_else(|| format!("column {:?} is missing", field.name()))?;
        columns.push(if column.data_type() == field.data_type() {
            Arc::clone(column)
        } else {
            cast(column, field.data_type()).map_err(|error| format!("column {:?}: {error}", field.name()))?
        });
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options).map_err(|error| error.to_string())
}

/// A `udf`: a function of values, called once a row.
#[derive(Debug)]
pub struct ValueFunction {
    adapter: Adapter,
    returns: Field,
}

impl ColumnFunction for ValueFunction {
    fn name(&self) -> String {
        self.adapter.name.clone()
    }

    fn return_type(&self, _args: &[DataType]) -> Result<DataType> {
        Ok(self.returns.data_type().clone())
    }

    fn call(&self, args: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
        attach(|py| {
            let what = &self.adapter.name;
            let field = |array: &ArrayRef| Field::new("value", array.data_type().clone(), true);
            let called = || -> PyResult<(Bound<'_, PyList>, Option<Bound<'_, PyAny>>)> {
                let columns: PyResult<Vec<_>> = args.iter().map(|array| column_to_sequence(py, array, &field(array))).collect();
                self.adapter.call.bind(py).call1((columns?, rows))?.extract().map_err(PyErr::from)
            };
            let (values, failure) = called().map_err(|exception| error::from_python(py, exception, what))?;
            if let Some(exception) = failure {
                return Err(error::from_python(py, PyErr::from_value(exception), what));
            }
            if let Some(array) = plain_numbers(&values, &self.returns) {
                return Ok(array);
            }
            let values: Vec<Bound<'_, PyAny>> = values.iter().collect();
            values_to_array(&values, &self.returns).map_err(|misfit| {
                Error::new(ErrorKind::UserFunction, format!("{what} gave a result that does not fit: {}", misfit.message))
            })
        })
    }

    fn rung(&self) -> Rung {
        Rung::Record
    }
}

/// Calls a `udf` in an expression.
#[pyfunction]
pub fn column_function(
    name: String,
    adapter: Py<PyAny>,
    returns: PyRef<'_, PyDataType>,
    args: Vec<PyRef<'_, RawExpr>>,
) -> RawExpr {
    let returns = returns.named(&name);
    let function = ValueFunction { adapter: Adapter { name, call: adapter }, returns };
    let args = args.iter().map(|arg| arg.expr.clone()).collect();
    Expr::User { function: Arc::new(function), args }.into()
}

/// A fold of records in Python: `reduce`.
#[derive(Debug)]
pub struct FoldFunction {
    adapter: Adapter,
}

impl FoldFunction {
    /// Puts an adapter behind `reduce`.
    pub fn new(name: String, call: Py<PyAny>) -> FoldFunction {
        FoldFunction { adapter: Adapter { name, call } }
    }
}

impl ReduceFunction for FoldFunction {
    fn name(&self) -> String {
        self.adapter.name.clone()
    }

    fn reduce(&self, accumulator: Option<&RecordBatch>, rows: &RecordBatch) -> Result<RecordBatch> {
        attach(|py| {
            let what = &self.adapter.name;
            let schema = rows.schema();
            let called = || -> PyResult<Bound<'_, PyList>> {
                let before = accumulator.map(|row| lists(py, row, None)).transpose()?;
                let row = self.adapter.call.bind(py).call1((before, lists(py, rows, None)?))?;
                PyList::new(py, [row])
            };
            let row = called().map_err(|exception| {
                let shown = record(py, rows, 0).map(|record| error::record_text(&record)).unwrap_or_default();
                let raised = error::describe(py, &exception);
                let message = format!("{what} raised {raised}; first record of the group: {shown}");
                Error::new(ErrorKind::UserFunction, message).because(exception)
            })?;
            rows_to_batch(&row, &schema).map_err(|misfit| {
                Error::new(
                    ErrorKind::UserFunction,
                    format!("{what} must give a record with the columns it takes: {}", misfit.message),
                )
            })
        })
    }
}

/// An aggregate in Python; its state is pickled.
#[derive(Debug)]
pub struct PickledAggregate {
    adapter: Adapter,
    returns: Field,
}

impl PickledAggregate {
    fn state(&self, method: &str, arguments: impl FnOnce(Python<'_>) -> PyResult<Py<PyAny>>) -> Result<Vec<u8>> {
        attach(|py| {
            let called = || -> PyResult<Vec<u8>> {
                let arguments = arguments(py)?.into_bound(py).cast_into::<pyo3::types::PyTuple>()?;
                let state = self.adapter.call.bind(py).call_method1(method, arguments)?;
                Ok(state.cast::<PyBytes>()?.as_bytes().to_vec())
            };
            called().map_err(|exception| error::from_python(py, exception, &self.adapter.name))
        })
    }
}

fn bytes<'py>(py: Python<'py>, state: Option<&[u8]>) -> Option<Bound<'py, PyBytes>> {
    state.map(|state| PyBytes::new(py, state))
}

impl AggregateFunction for PickledAggregate {
    fn name(&self) -> String {
        self.adapter.name.clone()
    }

    fn return_type(&self, _input: &DataType) -> Result<DataType> {
        Ok(self.returns.data_type().clone())
    }

    fn update(&self, state: Option<&[u8]>, values: &ArrayRef) -> Result<Vec<u8>> {
        let field = Field::new("value", values.data_type().clone(), true);
        self.state("update", |py| {
            let values = column_to_list(py, values, &field)?;
            Ok((bytes(py, state), values).into_pyobject(py)?.into_any().unbind())
        })
    }

    fn merge(&self, a: &[u8], b: &[u8]) -> Result<Vec<u8>> {
        self.state("merge", |py| Ok((PyBytes::new(py, a), PyBytes::new(py, b)).into_pyobject(py)?.into_any().unbind()))
    }

    fn finish(&self, state: Option<&[u8]>) -> Result<ScalarValue> {
        attach(|py| {
            let what = &self.adapter.name;
            let value = self.adapter.call.bind(py).call_method1("finish", (bytes(py, state),));
            let value = value.map_err(|exception| error::from_python(py, exception, what))?;
            let array = values_to_array(std::slice::from_ref(&value), &self.returns).map_err(|misfit| {
                Error::new(ErrorKind::UserFunction, format!("{what} gave a result that does not fit: {}", misfit.message))
            })?;
            ScalarValue::try_from_array(&array, 0).map_err(|error| Error::internal(error.to_string()))
        })
    }
}

/// Uses a class of the user's as an aggregate.
#[pyfunction]
pub fn aggregate_function(
    name: String,
    adapter: Py<PyAny>,
    returns: PyRef<'_, PyDataType>,
    input: PyRef<'_, RawExpr>,
) -> RawExpr {
    let returns = returns.named(&name);
    let function = PickledAggregate { adapter: Adapter { name, call: adapter }, returns };
    let kind = AggregateKind::User(Arc::new(function));
    Expr::Aggregate(AggregateCall { kind, input: Some(Box::new(input.expr.clone())), filter: None }).into()
}
