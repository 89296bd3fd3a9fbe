//! Functions of whole windows: `window(…).apply(…)`.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{Field, SchemaRef};
use mill_plan::{WindowFunction, WindowRecords};
use mill_protocol::{Error, ErrorKind, Result};
use pyo3::prelude::*;
use pyo3::types::PyList;
use pyo3_arrow::PyRecordBatch;

use super::batches::{arrow_batch, conform};
use super::{Adapter, lists};
use crate::attach::{attach, call};
use crate::error;
use crate::from_python::rows_to_batch;
use crate::to_python::column_to_list;

/// A function of a key, the bounds of a window and its records.
#[derive(Debug)]
pub struct WholeWindowFunction {
    adapter: Adapter,
    schema: SchemaRef,
}

impl WholeWindowFunction {
    /// Makes an `apply` of an adapter; `schema` is what the function returns.
    pub fn new(name: String, call: Py<PyAny>, schema: SchemaRef) -> WholeWindowFunction {
        WholeWindowFunction { adapter: Adapter { name, call }, schema }
    }
}

/// The one value of a column.
fn value<'py>(py: Python<'py>, column: &ArrayRef) -> PyResult<Bound<'py, PyAny>> {
    let field = Field::new("bound", column.data_type().clone(), true);
    column_to_list(py, column, &field)?.get_item(0)
}

impl WindowFunction for WholeWindowFunction {
    fn name(&self) -> String {
        self.adapter.name.clone()
    }

    fn apply(&self, window: &WindowRecords<'_>) -> Result<RecordBatch> {
        attach(|py| {
            let what = &self.adapter.name;
            let called = || -> PyResult<Bound<'_, PyAny>> {
                let key = lists(py, window.key, None)?;
                let bounds = match window.bounds {
                    Some([start, end]) => Some((value(py, start)?, value(py, end)?)),
                    None => None,
                };
                let rows = PyRecordBatch::new(window.rows.clone()).into_pyarrow(py)?;
                call(self.adapter.call.bind(py), (key, bounds, rows))
            };
            let given = called().map_err(|exception| error::from_python(py, exception, what))?;
            if let Ok(rows) = given.cast::<PyList>() {
                return rows_to_batch(rows, &self.schema).map_err(|misfit| error::misfit(what, &misfit.message));
            }
            let batch = arrow_batch(&given).map_err(|exception| error::from_python(py, exception, what))?;
            conform(&batch, &self.schema, Some(&window.rows)).map_err(|unfit| {
                let message = format!("{what} returned a batch that does not fit: {}", unfit.message(0));
                Error::new(ErrorKind::UserFunction, message)
            })
        })
    }
}
