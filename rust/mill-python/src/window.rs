//! Windows, triggers and windowed streams as Python holds them.

use std::sync::Arc;

use mill_plan::{CountWindow, Firing, Gap, Stream, Window, WindowKind, WindowedStream};
use mill_protocol::Result;
use pyo3::prelude::*;

use crate::error::{IntoPython, PlanError};
use crate::expr::{RawExpr, expressions};
use crate::functions::{FoldFunction, WholeWindowFunction};
use crate::stream::RawStream;
use crate::types::RawSchema;

/// How often a window has results, of its name and number.
pub(crate) fn firing((name, number): (String, i64)) -> PyResult<Firing> {
    Ok(match name.as_str() {
        "interval" => Firing::Every(number),
        "rows" => Firing::Rows(number.unsigned_abs()),
        "each" => Firing::Each,
        _ => return Err(PlanError::new_err(format!("no trigger {name:?}"))),
    })
}

/// Windows that can be.
#[pyclass(frozen, skip_from_py_object, module = "millstream._millstream")]
pub struct RawWindow(WindowKind);

impl RawWindow {
    /// The windows as the plan has them.
    pub(crate) fn kind(&self) -> &WindowKind {
        &self.0
    }

    fn of(window: impl Into<WindowKind>) -> PyResult<RawWindow> {
        let window = window.into();
        window.clone().checked().into_python()?;
        // As the user wrote it: so it is named where the unit of the event time cannot hold it.
        Ok(RawWindow(window))
    }
}

#[pymethods]
impl RawWindow {
    #[staticmethod]
    fn tumbling(size_us: i64, offset_us: i64) -> PyResult<RawWindow> {
        RawWindow::of(Window::Tumbling { size_us, offset_us })
    }

    #[staticmethod]
    fn sliding(size_us: i64, slide_us: i64, offset_us: i64) -> PyResult<RawWindow> {
        RawWindow::of(Window::Sliding { size_us, slide_us, offset_us })
    }

    #[staticmethod]
    fn cumulative(step_us: i64, size_us: i64, offset_us: i64) -> PyResult<RawWindow> {
        RawWindow::of(Window::Cumulative { step_us, size_us, offset_us })
    }

    #[staticmethod]
    fn session(gap_us: i64) -> PyResult<RawWindow> {
        RawWindow::of(WindowKind::Session(Gap::Fixed(gap_us)))
    }

    #[staticmethod]
    fn session_each(gap: PyRef<'_, RawExpr>) -> PyResult<RawWindow> {
        RawWindow::of(WindowKind::Session(Gap::Each(gap.expr.clone())))
    }

    #[staticmethod]
    fn count(rows: u64, slide: u64, is_partial: bool) -> PyResult<RawWindow> {
        RawWindow::of(WindowKind::Count(CountWindow { rows, slide, is_partial }))
    }

    #[staticmethod]
    fn global_window() -> PyResult<RawWindow> {
        RawWindow::of(WindowKind::Global)
    }
}

/// A stream with a key, cut into windows.
#[pyclass(frozen, skip_from_py_object, module = "millstream._millstream")]
pub struct RawWindowedStream {
    pub(crate) stream: WindowedStream,
    /// As of [`RawStream`].
    pub(crate) is_sampleable: bool,
}

impl RawWindowedStream {
    fn step(&self, stream: Result<Stream>) -> PyResult<RawStream> {
        RawStream::made(stream, self.is_sampleable)
    }
}

#[pymethods]
impl RawWindowedStream {
    fn stream(&self) -> RawStream {
        RawStream { stream: self.stream.stream().clone(), is_sampleable: self.is_sampleable }
    }

    fn agg(&self, aggregates: Vec<PyRef<'_, RawExpr>>) -> PyResult<RawStream> {
        self.step(self.stream.agg(expressions(&aggregates)))
    }

    fn reduce(&self, name: String, adapter: Py<PyAny>) -> PyResult<RawStream> {
        self.step(self.stream.reduce(Arc::new(FoldFunction::new(name, adapter))))
    }

    fn apply(&self, name: String, adapter: Py<PyAny>, schema: PyRef<'_, RawSchema>) -> PyResult<RawStream> {
        let schema = Arc::clone(&schema.schema);
        let function = Arc::new(WholeWindowFunction::new(name, adapter, Arc::clone(&schema)));
        self.step(self.stream.apply(function, &schema))
    }
}
