//! A user's own way to make watermarks: a generator a split, called once a frame.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::Field;
use mill_plan::{WatermarkFunction, WatermarkGenerator, Watermarked};
use mill_protocol::Result;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use pyo3_arrow::{PyArray, PyRecordBatch};

use super::Adapter;
use super::batches::arrow_batch;
use crate::attach::{attach, call_method};
use crate::error;

/// A class of the user's that makes watermarks.
#[pyclass(frozen, skip_from_py_object, module = "millstream._millstream")]
pub struct RawWatermarkFunction {
    /// The function as the plan has it.
    pub function: Arc<PythonWatermarks>,
}

#[pymethods]
impl RawWatermarkFunction {
    /// `adapter.open(state)` makes the generator of a split.
    #[new]
    #[pyo3(signature = (name, adapter, columns, period_us))]
    fn new(name: String, adapter: Py<PyAny>, columns: Option<Vec<String>>, period_us: Option<i64>) -> RawWatermarkFunction {
        let adapter = Adapter { name, call: adapter };
        RawWatermarkFunction { function: Arc::new(PythonWatermarks { adapter, columns, period_us }) }
    }
}

/// Watermarks made in Python.
#[derive(Debug)]
pub struct PythonWatermarks {
    adapter: Adapter,
    columns: Option<Vec<String>>,
    period_us: Option<i64>,
}

impl WatermarkFunction for PythonWatermarks {
    fn name(&self) -> String {
        self.adapter.name.clone()
    }

    fn columns(&self) -> Option<&[String]> {
        self.columns.as_deref()
    }

    fn period_us(&self) -> Option<i64> {
        self.period_us
    }

    fn open(&self, state: Option<&[u8]>) -> Result<Box<dyn WatermarkGenerator>> {
        attach(|py| {
            let state = state.map(|state| PyBytes::new(py, state));
            let generator = call_method(self.adapter.call.bind(py), "open", (state,));
            let generator = generator.map_err(|exception| error::from_python(py, exception, &self.adapter.name))?;
            let call = generator.unbind();
            Ok(Box::new(PythonGenerator { adapter: Adapter { name: self.adapter.name.clone(), call } }) as Box<dyn WatermarkGenerator>)
        })
    }
}

/// The generator of one split.
struct PythonGenerator {
    adapter: Adapter,
}

impl PythonGenerator {
    /// Calls a method, and makes something of what it returned.
    fn with<R>(
        &self,
        then: impl for<'py> FnOnce(Python<'py>, &Bound<'py, PyAny>) -> PyResult<R>,
    ) -> Result<R> {
        attach(|py| {
            let name = &self.adapter.name;
            then(py, self.adapter.call.bind(py)).map_err(|exception| error::from_python(py, exception, name))
        })
    }
}

impl WatermarkGenerator for PythonGenerator {
    fn on_batch(&mut self, times: &ArrayRef, columns: &RecordBatch) -> Result<Watermarked> {
        self.with(|py, generator| {
            let field = Arc::new(Field::new("time", times.data_type().clone(), true));
            let times = PyArray::new(Arc::clone(times), field);
            let times = times.to_pyarrow(py)?;
            let columns = PyRecordBatch::new(columns.clone()).into_pyarrow(py)?;
            let returned = call_method(generator, "on_batch", (times, columns))?;
            if returned.is_none() {
                return Ok(Watermarked::No);
            }
            if let Ok(at) = returned.extract::<i64>() {
                return Ok(Watermarked::AfterAll(at));
            }
            let one_each = arrow_batch(&returned)?;
            Ok(Watermarked::AfterEach(Arc::clone(one_each.column(0))))
        })
    }

    fn on_periodic(&mut self) -> Result<Option<i64>> {
        self.with(|_, generator| call_method(generator, "on_periodic", ())?.extract())
    }

    fn state(&self) -> Result<Vec<u8>> {
        self.with(|_, generator| {
            let state = call_method(generator, "state", ())?;
            Ok(state.cast::<PyBytes>().map_err(PyErr::from)?.as_bytes().to_vec())
        })
    }
}
