//! Functions of the records of a key: `reduce`, and aggregates of the user's.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field};
use mill_frame::text::{record_json, shortened};
use mill_plan::{AggregateCall, AggregateFunction, AggregateKind, Expr, ReduceFunction, ScalarValue};
use mill_protocol::{Error, ErrorKind, Result};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use super::{Adapter, lists};
use crate::attach::{attach, call, call_method};
use crate::error;
use crate::expr::RawExpr;
use crate::from_python::{rows_to_batch, values_to_array};
use crate::to_python::column_to_list;
use crate::types::PyDataType;

/// A fold of records in Python: `reduce`.
#[derive(Debug)]
pub struct FoldFunction {
    adapter: Adapter,
}

impl FoldFunction {
    /// Makes a fold of an adapter.
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
                let row = call(self.adapter.call.bind(py), (before, lists(py, rows, None)?))?;
                PyList::new(py, [row])
            };
            let row = called().map_err(|exception| {
                let raised = error::describe(py, &exception);
                let message = format!("{what} raised {raised}; first record of the group: {}", shortened(&record_json(rows, 0)));
                let traceback = error::traceback(py, &exception);
                let kind = error::kind_of(py, &exception, ErrorKind::UserFunction);
                Error::new(kind, message).traced(traceback).because(exception)
            })?;
            rows_to_batch(&row, &schema).map_err(|misfit| {
                error::misfit(what, &format!("reduce returns a record with the columns it takes, and {}", misfit.message))
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
                let state = call_method(self.adapter.call.bind(py), method, arguments)?;
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
            let value = call_method(self.adapter.call.bind(py), "finish", (bytes(py, state),));
            let value = value.map_err(|exception| error::from_python(py, exception, what))?;
            let array = values_to_array(std::slice::from_ref(&value), &self.returns)
                .map_err(|misfit| error::misfit(what, &misfit.message))?;
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
