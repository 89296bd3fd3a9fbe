//! Functions of values in expressions, called once a row: `udf`.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field};
use mill_plan::{ColumnFunction, Rung};
use mill_protocol::Result;
use pyo3::prelude::*;
use pyo3::types::PyList;

use super::Adapter;
use crate::attach::{attach, call};
use crate::error;
use crate::expr::RawExpr;
use crate::from_python::{plain_numbers, values_to_array};
use crate::to_python::column_to_sequence;
use crate::types::PyDataType;

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
                call(self.adapter.call.bind(py), (columns?, rows))?.extract()
            };
            let (values, failure) = called().map_err(|exception| error::from_python(py, exception, what))?;
            if let Some(exception) = failure {
                return Err(error::from_python(py, PyErr::from_value(exception), what));
            }
            if let Some(array) = plain_numbers(&values, &self.returns) {
                return Ok(array);
            }
            let values: Vec<Bound<'_, PyAny>> = values.iter().collect();
            values_to_array(&values, &self.returns).map_err(|misfit| error::misfit(what, &misfit.message))
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
    RawExpr::of_function(Arc::new(function), &args)
}

