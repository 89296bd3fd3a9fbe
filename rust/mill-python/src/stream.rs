//! Streams for Python: thin wrappers of [`mill_plan::Stream`], one call per step.
//!
//! An error in a step is an exception of the call that adds it, so it points at the user's line.

use std::sync::Arc;

use arrow::datatypes::DataType;
use mill_frame::types::check_fields;
use mill_plan::{
    AsyncCalls, Drift, SinkNode, Stream, UserStepKind, WatermarkStrategy, WatermarksFrom,
};
use mill_protocol::{Error, Result, Source, SourceProperties};
use millstream::connectors::{GenerateSource, MemorySource, NexmarkKind, NexmarkOptions, NexmarkSource};
use pyo3::prelude::*;

use crate::error::{IntoPython, PlanError, SchemaError};
use crate::expr::{RawExpr, expressions};
use crate::functions::{ArrowFunction, PythonAsync, RawWatermarkFunction, RecordFunction};
use crate::sinks::{PythonSink, sink_kind};
use crate::import::{self, Import, validate};
use crate::join::RawJoin;
use crate::keyed::RawKeyedStream;
use crate::sources::{PythonSource, ReaderSource};
use crate::table::RawTable;
use crate::types::{PyDataType, RawSchema};
use crate::window::RawWindow;

/// What watermarks are made from.
#[derive(FromPyObject)]
enum Watermarks<'py> {
    /// How far they lag, in microseconds.
    Bound(i64),
    /// A column.
    Column(String),
    /// A function of the user's.
    Function(PyRef<'py, RawWatermarkFunction>),
}

/// A stream of records.
#[pyclass(frozen, skip_from_py_object, module = "millstream._millstream")]
#[derive(Clone)]
pub struct RawStream {
    /// The stream as the plan has it.
    pub stream: Stream,
    /// Whether everything it comes from can be read once more, to see its first records.
    pub(crate) is_sampleable: bool,
}

impl RawStream {
    /// The stream of a source.
    ///
    /// # Errors
    /// When the source has columns that no stream carries.
    pub fn of(source: impl Source + 'static) -> Result<RawStream> {
        RawStream::of_shared(Arc::new(source))
    }

    /// The same of one that is shared already.
    ///
    /// # Errors
    /// When the source has columns that no stream carries.
    pub fn of_shared(source: Arc<dyn Source>) -> Result<RawStream> {
        check_fields(source.schema().fields()).map_err(|error| Error::schema(error.to_string()))?;
        let is_sampleable = source.properties().is_replayable;
        Ok(RawStream { stream: Stream::source(source), is_sampleable })
    }

    /// A stream that comes from this one and another.
    fn joined(&self, other: &RawStream, stream: Result<Stream>) -> PyResult<RawStream> {
        let mut joined = self.step(stream)?;
        joined.is_sampleable &= other.is_sampleable;
        Ok(joined)
    }

    /// A stream that comes from this one.
    fn step(&self, stream: Result<Stream>) -> PyResult<RawStream> {
        RawStream::made(stream, self.is_sampleable)
    }

    /// A stream that a step has made.
    pub(crate) fn made(stream: Result<Stream>, is_sampleable: bool) -> PyResult<RawStream> {
        Ok(RawStream { stream: stream.into_python()?, is_sampleable })
    }
}

/// A sink with the stream that goes into it.
#[pyclass(frozen, skip_from_py_object, module = "millstream._millstream")]
pub struct RawSink {
    /// The sink as the plan has it.
    pub node: SinkNode,
}

#[pymethods]
impl RawSink {
    fn name(&self) -> String {
        self.node.sink().name()
    }

    /// The stream that goes into it.
    fn stream(&self) -> RawStream {
        // Whether its sources can be read once more is not known any more.
        RawStream { stream: self.node.input().clone(), is_sampleable: false }
    }

    /// Returns the same sink under a name, which is the identity of what it has written.
    #[pyo3(signature = (name, was))]
    fn named(&self, name: &str, was: Option<&str>) -> RawSink {
        let node = self.node.clone().named(name);
        RawSink {
            node: match was {
                Some(was) => node.formerly(was),
                None => node,
            },
        }
    }
}

#[pymethods]
impl RawStream {
    // -- sources -----------------------------------------------------------------------------------------------------

    /// Reads a table in memory.
    #[staticmethod]
    fn from_table(table: &Bound<'_, PyAny>, name: String) -> PyResult<RawStream> {
        let (batches, schema) = import::table(table)?;
        batches.iter().try_for_each(|batch| validate(batch, &name).into_python())?;
        let source = MemorySource::new(schema, batches).into_python()?.with_name(name);
        RawStream::of(source).into_python()
    }

    /// Reads a stream of Arrow batches once, as they come.
    #[staticmethod]
    fn from_reader(reader: &Bound<'_, PyAny>, name: String) -> PyResult<RawStream> {
        let source = ReaderSource::new(name, Box::new(Import::of_stream(reader)?)).into_python()?;
        RawStream::of(source).into_python()
    }

    /// Reads a source that is written in Python.
    #[staticmethod]
    fn from_python(
        adapter: Py<PyAny>,
        name: String,
        schema: PyRef<'_, RawSchema>,
        is_bounded: bool,
        is_replayable: bool,
    ) -> PyResult<RawStream> {
        let properties = SourceProperties { is_bounded, is_replayable, discovers_splits: false, may_block: true };
        let schema = Arc::clone(&schema.schema);
        RawStream::of(PythonSource { name, adapter, schema, properties }).into_python()
    }

    /// Makes records of the numbers 0, 1, 2, …
    #[staticmethod]
    #[pyo3(signature = (rows, rate, columns))]
    fn generate(rows: Option<u64>, rate: Option<f64>, columns: Vec<PyRef<'_, RawExpr>>) -> PyResult<RawStream> {
        let source = GenerateSource::new(rows, rate).into_python()?;
        let stream = Stream::generate(Arc::new(source), expressions(&columns)).into_python()?;
        Ok(RawStream { stream, is_sampleable: true })
    }

    /// Makes the events of an auction after the rules of Nexmark, of one kind.
    #[staticmethod]
    #[pyo3(signature = (kind, events, rate, event_rate, seed, splits, delay_ms_max))]
    fn nexmark(
        kind: &str,
        events: Option<u64>,
        rate: Option<f64>,
        event_rate: f64,
        seed: u64,
        splits: u64,
        delay_ms_max: u64,
    ) -> PyResult<RawStream> {
        let kind = match kind {
            "persons" => NexmarkKind::Persons,
            "auctions" => NexmarkKind::Auctions,
            "bids" => NexmarkKind::Bids,
            _ => return Err(PlanError::new_err(format!("nexmark has no {kind:?}"))),
        };
        let options = NexmarkOptions { events, rate, event_rate, seed, splits, delay_ms_max };
        RawStream::of(NexmarkSource::new(kind, options).into_python()?).into_python()
    }

    // -- what it is --------------------------------------------------------------------------------------------------

    fn schema(&self) -> RawSchema {
        RawSchema { schema: self.stream.schema() }
    }

    /// Tells whether it can be read once more, to see its first records.
    fn is_sampleable(&self) -> bool {
        self.is_sampleable
    }

    fn is_bounded(&self) -> bool {
        self.stream.is_bounded()
    }

    /// Returns the key of an updating stream; None if the stream is append-only.
    fn updating_key(&self) -> Option<Vec<String>> {
        self.stream.is_updating().map(<[String]>::to_vec)
    }

    /// Tells whether rows of an updating stream may withdraw their key.
    fn withdraws(&self) -> bool {
        self.stream.withdraws()
    }

    /// Returns the column with the event time; None if there is none, or it has been dropped.
    fn event_time_column(&self) -> Option<String> {
        self.stream.event_time_column()
    }

    fn has_event_time(&self) -> bool {
        self.stream.has_event_time()
    }

    // -- steps -------------------------------------------------------------------------------------------------------

    fn select(&self, exprs: Vec<PyRef<'_, RawExpr>>) -> PyResult<RawStream> {
        self.step(self.stream.select(expressions(&exprs)))
    }

    fn with_columns(&self, exprs: Vec<PyRef<'_, RawExpr>>) -> PyResult<RawStream> {
        self.step(self.stream.with_columns(expressions(&exprs)))
    }

    fn drop(&self, names: Vec<String>) -> PyResult<RawStream> {
        self.step(self.stream.drop(&names))
    }

    fn rename(&self, names: Vec<(String, String)>) -> PyResult<RawStream> {
        self.step(self.stream.rename(&names))
    }

    fn cast(&self, types: Vec<(String, PyRef<'_, PyDataType>)>) -> PyResult<RawStream> {
        if let Some((name, _)) = types.iter().find(|(_, kind)| kind.holds_objects()) {
            return Err(SchemaError::new_err(format!(
                "cast() makes no Python objects of column {name:?}: use map() with schema={{...: object}}, whose function returns them"
            )));
        }
        let types: Vec<(String, DataType)> =
            types.into_iter().map(|(name, kind)| (name, kind.data_type().clone())).collect();
        self.step(self.stream.cast(&types))
    }

    fn filter(&self, predicate: PyRef<'_, RawExpr>) -> PyResult<RawStream> {
        self.step(self.stream.filter(predicate.expr.clone()))
    }

    fn branch(&self, predicate: PyRef<'_, RawExpr>) -> PyResult<(RawStream, RawStream)> {
        let (yes, no) = self.stream.branch(predicate.expr.clone()).into_python()?;
        Ok((self.step(Ok(yes))?, self.step(Ok(no))?))
    }

    fn explode(&self, column: &str, keep_empty: bool) -> PyResult<RawStream> {
        self.step(self.stream.explode(column, keep_empty))
    }

    fn unnest(&self, column: &str) -> PyResult<RawStream> {
        self.step(self.stream.unnest(column))
    }

    fn limit(&self, rows: u64) -> PyResult<RawStream> {
        self.step(self.stream.limit(rows))
    }

    fn union(&self, others: Vec<PyRef<'_, RawStream>>) -> PyResult<RawStream> {
        let streams: Vec<Stream> = others.iter().map(|other| other.stream.clone()).collect();
        let mut union = self.step(self.stream.union(&streams))?;
        union.is_sampleable &= others.iter().all(|other| other.is_sampleable);
        Ok(union)
    }

    fn join_interval(&self, other: PyRef<'_, RawStream>, join: PyRef<'_, RawJoin>, lower_us: i64, upper_us: i64) -> PyResult<RawStream> {
        self.joined(&other, self.stream.join_interval(&other.stream, join.0.clone(), lower_us, upper_us))
    }

    fn join_window(&self, other: PyRef<'_, RawStream>, join: PyRef<'_, RawJoin>, window: PyRef<'_, RawWindow>) -> PyResult<RawStream> {
        self.joined(&other, self.stream.join_window(&other.stream, join.0.clone(), window.kind()))
    }

    fn join_regular(&self, other: PyRef<'_, RawStream>, join: PyRef<'_, RawJoin>, ttl_us: Option<i64>) -> PyResult<RawStream> {
        self.joined(&other, self.stream.join_regular(&other.stream, join.0.clone(), ttl_us))
    }

    fn join_asof(&self, other: PyRef<'_, RawStream>, join: PyRef<'_, RawJoin>, tolerance_us: Option<i64>) -> PyResult<RawStream> {
        self.joined(&other, self.stream.join_asof(&other.stream, join.0.clone(), tolerance_us))
    }

    fn enrich(&self, table: PyRef<'_, RawStream>, join: PyRef<'_, RawJoin>) -> PyResult<RawStream> {
        self.joined(&table, self.stream.enrich(&table.stream, join.0.clone()))
    }

    fn rebalance(&self) -> PyResult<RawStream> {
        self.step(self.stream.rebalance())
    }

    #[pyo3(signature = (name, was))]
    fn name(&self, name: &str, was: Option<&str>) -> PyResult<RawStream> {
        let named = self.stream.name(name);
        self.step(match was {
            Some(was) => named.and_then(|named| named.was(was)),
            None => named,
        })
    }

    /// Takes event time from a column. Watermarks follow it at a bound in microseconds, or come from a column or a function.
    /// Without an idleness the source decides, unless every split is waited for. `drift` is how far splits may be apart in
    /// microseconds, and the name of the group that keeps together, if it has one.
    #[pyo3(signature = (column, watermarks, idleness_us, waits_for_ever, drift))]
    fn event_time(
        &self,
        column: &str,
        watermarks: Watermarks<'_>,
        idleness_us: Option<i64>,
        waits_for_ever: bool,
        drift: Option<(i64, Option<String>)>,
    ) -> PyResult<RawStream> {
        let from = match watermarks {
            Watermarks::Bound(us) => WatermarksFrom::Bound(us),
            Watermarks::Column(column) => WatermarksFrom::Column(column),
            Watermarks::Function(function) => WatermarksFrom::Function(Arc::clone(&function.function) as _),
        };
        let idleness_us = if waits_for_ever { Some(WatermarkStrategy::WAITS_FOR_EVER) } else { idleness_us };
        let drift = drift.map(|(us_max, group)| Drift { us_max, group });
        self.step(self.stream.event_time(column, WatermarkStrategy { from, idleness_us, drift }))
    }

    /// Calls a function once a record; `used` says which columns it gets.
    #[pyo3(signature = (kind, name, adapter, schema, used))]
    fn apply(
        &self,
        kind: &str,
        name: String,
        adapter: Py<PyAny>,
        schema: PyRef<'_, RawSchema>,
        used: Option<Vec<bool>>,
    ) -> PyResult<RawStream> {
        let kind = match kind {
            "map" => UserStepKind::Map,
            "flat_map" => UserStepKind::FlatMap,
            "filter" => UserStepKind::Filter,
            "inspect" => UserStepKind::Inspect,
            _ => return Err(PlanError::new_err(format!("no step {kind:?}"))),
        };
        let schema = Arc::clone(&schema.schema);
        let function = RecordFunction::new(name, adapter, kind, Arc::clone(&schema), used);
        self.step(self.stream.apply(kind, Arc::new(function), schema))
    }

    /// Calls a function once a frame, or for so many rows of one.
    #[pyo3(signature = (name, adapter, schema, batch_rows, is_lookup = false))]
    fn map_batches(
        &self,
        name: String,
        adapter: Py<PyAny>,
        schema: PyRef<'_, RawSchema>,
        batch_rows: Option<usize>,
        is_lookup: bool,
    ) -> PyResult<RawStream> {
        let schema = Arc::clone(&schema.schema);
        let function = ArrowFunction::new(name, adapter, Arc::clone(&schema), batch_rows, is_lookup);
        let kind = if is_lookup { UserStepKind::Lookup } else { UserStepKind::MapBatches };
        self.step(self.stream.apply(kind, Arc::new(function), schema))
    }

    /// Calls an asynchronous function, once a record, or with batches of so many at most.
    #[pyo3(signature = (name, adapter, schema, capacity, batch_rows, is_ordered, is_lookup = false))]
    #[expect(clippy::too_many_arguments, reason = "how it is called, each by name in Python")]
    fn map_async(
        &self,
        name: String,
        adapter: Py<PyAny>,
        schema: PyRef<'_, RawSchema>,
        capacity: usize,
        batch_rows: Option<usize>,
        is_ordered: bool,
        is_lookup: bool,
    ) -> PyResult<RawStream> {
        let schema = Arc::clone(&schema.schema);
        let calls = AsyncCalls { capacity, batch_rows, is_ordered, is_lookup };
        let function = PythonAsync::new(name, adapter, Arc::clone(&schema), calls, self.stream.has_event_time());
        self.step(self.stream.map_async(Arc::new(function), calls, schema))
    }

    fn key_by(&self, exprs: Vec<PyRef<'_, RawExpr>>) -> PyResult<RawKeyedStream> {
        let stream = self.stream.key_by(expressions(&exprs)).into_python()?;
        Ok(RawKeyedStream { stream, is_sampleable: self.is_sampleable })
    }

    fn ungrouped(&self) -> RawKeyedStream {
        RawKeyedStream { stream: self.stream.ungrouped(), is_sampleable: self.is_sampleable }
    }

    fn to_changelog(&self, op: &str) -> PyResult<RawStream> {
        self.step(self.stream.to_changelog(op))
    }

    fn from_changelog(&self, key: Vec<String>, op: &str) -> PyResult<RawStream> {
        self.step(self.stream.from_changelog(&key, op))
    }

    /// An output of the step by its name.
    fn side_output(&self, name: &str) -> PyResult<RawStream> {
        self.step(self.stream.side_output(name))
    }

    fn late(&self) -> PyResult<RawStream> {
        self.step(self.stream.late())
    }

    fn late_right(&self) -> PyResult<RawStream> {
        self.step(self.stream.late_right())
    }

    /// The errors of all steps that these streams come from, each step once.
    #[staticmethod]
    fn all_errors(streams: Vec<PyRef<'_, RawStream>>) -> PyResult<RawStream> {
        let is_sampleable = streams.iter().all(|stream| stream.is_sampleable);
        let streams: Vec<Stream> = streams.iter().map(|stream| stream.stream.clone()).collect();
        RawStream::made(Stream::all_errors_of(&streams), is_sampleable)
    }

    fn errors(&self) -> PyResult<RawStream> {
        self.step(self.stream.errors())
    }

    // -- sinks -------------------------------------------------------------------------------------------------------

    /// Writes to a sink that is written in Python.
    #[pyo3(signature = (adapter, name, kind, takes_lists, takes_updates, withdrawals, parallelism_max, refuses_checkpoints = None))]
    #[expect(clippy::too_many_arguments, reason = "what a sink says of itself, each by name in Python")]
    fn write_python(
        &self,
        adapter: Py<PyAny>,
        name: String,
        kind: &str,
        takes_lists: bool,
        takes_updates: bool,
        withdrawals: Option<String>,
        parallelism_max: Option<usize>,
        refuses_checkpoints: Option<String>,
    ) -> PyResult<RawSink> {
        if let Some(advice) = withdrawals.filter(|_| self.stream.withdraws() && takes_updates) {
            return Err(PlanError::new_err(format!(
                "{name} cannot take a stream that withdraws rows: a filter of an updating stream, or from_changelog(), deletes \
                 the row of a key; {advice}"
            )));
        }
        let kind = sink_kind(kind).ok_or_else(|| {
            PlanError::new_err(format!(
                "{name} says its kind is {kind:?}; a sink is \"idempotent\", \"transactional\" or \"write-ahead\""
            ))
        })?;
        let key = self.stream.is_updating().map(<[String]>::to_vec).unwrap_or_default();
        let sink = PythonSink { name, adapter, kind, takes_lists, takes_updates, key, parallelism_max, refuses_checkpoints };
        Ok(RawSink { node: self.stream.sink(Arc::new(sink)).into_python()? })
    }

    fn __repr__(&self) -> String {
        format!("{:?}", self.stream)
    }
}

/// A stream over a table that Python made of records.
#[pyfunction]
pub fn stream_of_table(table: PyRef<'_, RawTable>, name: String) -> PyResult<RawStream> {
    let (schema, batches) = table.parts();
    let source = MemorySource::new(schema, batches).into_python()?.with_name(name);
    RawStream::of(source).into_python()
}
