//! Streams with a key as Python holds them.

use std::sync::Arc;

use arrow::datatypes::DataType;
use mill_plan::{BroadcastCall, Emit, Expr, KeyedStream, Stream, Trigger, WindowKind};
use mill_protocol::Result;
use pyo3::prelude::*;

use crate::error::{IntoPython, PlanError};
use crate::expr::{RawExpr, expressions};
use crate::functions::{Declared, FoldFunction, PythonProcess, state_specs};
use crate::stream::RawStream;
use crate::types::RawSchema;
use crate::window::{RawWindow, RawWindowedStream, firing};

/// A stream with a key.
#[pyclass(frozen, skip_from_py_object, module = "millstream._millstream")]
pub struct RawKeyedStream {
    pub(crate) stream: KeyedStream,
    /// As of [`RawStream`].
    pub(crate) is_sampleable: bool,
}

impl RawKeyedStream {
    fn step(&self, stream: Result<Stream>) -> PyResult<RawStream> {
        RawStream::made(stream, self.is_sampleable)
    }
}

/// `default`, `end`, `checkpoint`, `each`, or an interval in microseconds.
fn emit(name: &str, interval_us: Option<i64>) -> PyResult<Emit> {
    Ok(match (name, interval_us) {
        ("default", _) => Emit::Default,
        ("end", _) => Emit::End,
        ("checkpoint", _) => Emit::Checkpoint,
        ("each", _) => Emit::Each,
        ("every", Some(interval)) => Emit::Every(interval),
        _ => return Err(PlanError::new_err(format!("no emit {name:?}"))),
    })
}

fn ordering(by: &[(PyRef<'_, RawExpr>, bool)]) -> Vec<(Expr, bool)> {
    by.iter().map(|(expr, is_descending)| (expr.expr.clone(), *is_descending)).collect()
}

#[pymethods]
impl RawKeyedStream {
    fn keys(&self) -> Vec<String> {
        self.stream.keys().to_vec()
    }

    fn stream(&self) -> RawStream {
        RawStream { stream: self.stream.stream().clone(), is_sampleable: self.is_sampleable }
    }

    #[pyo3(signature = (aggregates, emit_name, interval_us))]
    fn agg(
        &self,
        aggregates: Vec<PyRef<'_, RawExpr>>,
        emit_name: &str,
        interval_us: Option<i64>,
    ) -> PyResult<RawStream> {
        self.step(self.stream.agg(expressions(&aggregates), emit(emit_name, interval_us)?))
    }

    #[pyo3(signature = (name, adapter, emit_name, interval_us))]
    fn reduce(
        &self,
        name: String,
        adapter: Py<PyAny>,
        emit_name: &str,
        interval_us: Option<i64>,
    ) -> PyResult<RawStream> {
        let function = Arc::new(FoldFunction::new(name, adapter));
        self.step(self.stream.reduce(function, emit(emit_name, interval_us)?))
    }

    /// Calls a function with the records and timers of each key; `used` says which columns of a record it gets.
    #[pyo3(signature = (name, adapter, used, states, schema, sides, has_end, broadcast))]
    #[expect(clippy::too_many_arguments, reason = "what a function says of itself, each by name in Python")]
    fn process(
        &self,
        name: String,
        adapter: Py<PyAny>,
        used: Option<Vec<bool>>,
        states: Vec<Declared<'_>>,
        schema: PyRef<'_, RawSchema>,
        sides: Vec<(String, PyRef<'_, RawSchema>)>,
        has_end: bool,
        broadcast: Option<(PyRef<'_, RawStream>, Vec<Declared<'_>>)>,
    ) -> PyResult<RawStream> {
        let states = state_specs(&states);
        let schema = Arc::clone(&schema.schema);
        let sides: Vec<_> = sides.into_iter().map(|(name, side)| (name, Arc::clone(&side.schema))).collect();
        let outputs = std::iter::once(&schema).chain(sides.iter().map(|(_, side)| side)).cloned().collect();
        let is_sampleable = self.is_sampleable && broadcast.as_ref().is_none_or(|(stream, _)| stream.is_sampleable);
        let broadcast = broadcast
            .map(|(stream, states)| BroadcastCall { stream: stream.stream.clone(), states: state_specs(&states) });
        let of_broadcast = broadcast.as_ref().map(|broadcast| &broadcast.states[..]).unwrap_or_default();
        let function = Arc::new(PythonProcess::new(name, adapter, used, [&states, of_broadcast], outputs, has_end));
        RawStream::made(self.stream.process(function, states, schema, sides, broadcast), is_sampleable)
    }

    /// The zone of event times, if they have one.
    fn event_time_zone(&self) -> Option<String> {
        match self.stream.event_time_type() {
            Some(DataType::Timestamp(_, Some(zone))) => Some(zone.to_string()),
            _ => None,
        }
    }

    /// Keeps the first rows of each key; `by` are expressions, each with whether the greatest comes first.
    #[pyo3(signature = (rows, by, emit_name, interval_us))]
    fn top_n(
        &self,
        rows: u64,
        by: Vec<(PyRef<'_, RawExpr>, bool)>,
        emit_name: &str,
        interval_us: Option<i64>,
    ) -> PyResult<RawStream> {
        self.step(self.stream.top_n(rows, ordering(&by), emit(emit_name, interval_us)?))
    }

    /// The same of each window.
    fn top_n_within(
        &self,
        rows: u64,
        by: Vec<(PyRef<'_, RawExpr>, bool)>,
        window: PyRef<'_, RawWindow>,
        allowed_lateness_us: i64,
    ) -> PyResult<RawStream> {
        let WindowKind::Aligned(window) = *window.kind() else {
            return Err(PlanError::new_err(
                "top_n(): within takes windows whose bounds follow from time: mill.tumbling(), mill.sliding() or mill.cumulative()",
            ));
        };
        self.step(self.stream.top_n_within(rows, ordering(&by), window, allowed_lateness_us))
    }

    #[pyo3(signature = (within_us))]
    fn deduplicate(&self, within_us: Option<i64>) -> PyResult<RawStream> {
        self.step(self.stream.deduplicate(within_us))
    }

    fn shift(&self, rows: u64, columns: Vec<PyRef<'_, RawExpr>>) -> PyResult<RawStream> {
        self.step(self.stream.shift(rows, expressions(&columns)))
    }

    fn diff(&self, rows: u64, columns: Vec<PyRef<'_, RawExpr>>) -> PyResult<RawStream> {
        self.step(self.stream.diff(rows, expressions(&columns)))
    }

    fn rolling(&self, length_us: i64, aggregates: Vec<PyRef<'_, RawExpr>>) -> PyResult<RawStream> {
        self.step(self.stream.rolling(length_us, expressions(&aggregates)))
    }

    #[pyo3(signature = (window, allowed_lateness_us, early, late))]
    fn window(
        &self,
        window: PyRef<'_, RawWindow>,
        allowed_lateness_us: i64,
        early: Option<(String, i64)>,
        late: Option<(String, i64)>,
    ) -> PyResult<RawWindowedStream> {
        let trigger = Trigger { early: early.map(firing).transpose()?, late: late.map(firing).transpose()? };
        let stream = self.stream.window(window.kind().clone(), allowed_lateness_us).into_python()?;
        let stream = stream.trigger(trigger).into_python()?;
        Ok(RawWindowedStream { stream, is_sampleable: self.is_sampleable })
    }
}
