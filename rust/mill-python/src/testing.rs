//! The test kit: a source that is pushed into, a clock that is moved by hand, results, and the job between them.

use std::sync::Arc;

use arrow::array::RecordBatch;
use mill_plan::SinkNode;
use mill_protocol::{Clock, Mark, Watermark};
use millstream::connectors::{Allowance, Change, Entries, Ledger, LedgerSink, PushedSource};
use millstream::{HandJob, ManualClock, Standing};
use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::error::{IntoPython, MillstreamError, SchemaError};
use crate::faults::RawDisk;
use crate::functions::conform;
use crate::import;
use crate::job::{Settings, report};
use crate::stream::{RawSink, RawStream};
use crate::table::RawTable;
use crate::types::RawSchema;

/// How many steps a job takes between two looks at signals.
const STEPS_PER_LOOK: u64 = 5_000;

/// Processing time that is moved by hand.
#[pyclass(frozen, skip_from_py_object, module = "millstream._millstream")]
pub struct RawClock {
    clock: Arc<ManualClock>,
}

#[pymethods]
impl RawClock {
    #[new]
    fn new(now_us: i64) -> RawClock {
        let clock = ManualClock::default();
        clock.set(now_us);
        RawClock { clock: Arc::new(clock) }
    }

    fn now(&self) -> i64 {
        self.clock.now()
    }

    fn set(&self, now_us: i64) {
        self.clock.set(now_us);
    }
}

/// A source that is pushed into by hand.
#[pyclass(frozen, skip_from_py_object, module = "millstream._millstream")]
pub struct RawPushedSource {
    source: PushedSource,
    schema: RawSchema,
}

#[pymethods]
impl RawPushedSource {
    #[new]
    fn new(name: String, schema: PyRef<'_, RawSchema>, splits: usize, is_bounded: bool) -> PyResult<RawPushedSource> {
        let source = PushedSource::new(name, &schema.schema, splits, is_bounded).into_python()?;
        Ok(RawPushedSource { source, schema: RawSchema { schema: Arc::clone(&schema.schema) } })
    }

    fn stream(&self) -> PyResult<RawStream> {
        RawStream::of(self.source.clone()).into_python()
    }

    /// Adds the rows of a table of the engine's.
    fn push_table(&self, split: usize, table: PyRef<'_, RawTable>) -> PyResult<()> {
        table.parts().1.iter().try_for_each(|batch| self.source.push(split, batch)).into_python()
    }

    /// Adds the rows of anything with an Arrow interface, whose values must fit the columns exactly.
    fn push_arrow(&self, split: usize, table: &Bound<'_, PyAny>) -> PyResult<()> {
        let (batches, _) = import::table(table)?;
        let mut fitting = Vec::with_capacity(batches.len());
        for batch in &batches {
            let fitted = conform(batch, &self.schema.schema, None).map_err(|unfit| {
                SchemaError::new_err(format!("push() of a table that does not fit: {}", unfit.message(0)))
            });
            fitting.push(fitted?);
        }
        fitting.iter().try_for_each(|batch| self.source.push(split, batch)).into_python()
    }

    fn watermark(&self, split: usize, at_us: i64) -> PyResult<()> {
        self.source.mark(split, Mark::Watermark(Watermark(at_us))).into_python()
    }

    fn idle(&self, split: usize) -> PyResult<()> {
        self.source.mark(split, Mark::Idle).into_python()
    }

    fn end(&self, split: usize) -> PyResult<()> {
        self.source.end(split).into_python()
    }

    fn has_ended(&self, split: usize) -> bool {
        self.source.has_ended(split)
    }
}

/// What has come out of one stream of a job.
#[pyclass(frozen, skip_from_py_object, module = "millstream._millstream")]
pub struct RawLedger {
    stream: RawStream,
    sink: Arc<LedgerSink>,
    ledger: Mutex<Ledger>,
}

/// A table, and what each of its rows does to its key in an updating stream.
type Changes = (RawTable, Option<Vec<&'static str>>);

#[pymethods]
impl RawLedger {
    #[new]
    fn new(stream: PyRef<'_, RawStream>, is_immediate: bool) -> PyResult<RawLedger> {
        let (schema, key) = (stream.stream.schema(), stream.stream.is_updating());
        let (sink, ledger) = LedgerSink::new(schema, key, is_immediate).into_python()?;
        Ok(RawLedger { stream: stream.clone(), sink: Arc::new(sink), ledger: Mutex::new(ledger) })
    }

    /// Makes the sink of a run; all of them write here.
    fn sink(&self) -> PyResult<RawSink> {
        Ok(RawSink { node: self.stream.stream.sink(Arc::clone(&self.sink) as _).into_python()? })
    }

    /// Tells whether it is of this stream.
    fn is_of(&self, stream: PyRef<'_, RawStream>) -> bool {
        self.stream.stream.is_same(&stream.stream)
    }

    /// Returns what has been committed since the last call.
    fn take(&self) -> PyResult<Changes> {
        let entries = self.ledger.lock().take().into_python()?;
        Ok(self.changes(entries))
    }

    /// Returns what is not committed yet.
    fn pending(&self) -> PyResult<Changes> {
        let entries = self.ledger.lock().pending(self.stream.stream.is_updating()).into_python()?;
        Ok(self.changes(entries))
    }

    /// Returns the table that the rows taken so far leave; None unless the stream is an updating one.
    fn latest(&self) -> PyResult<Option<RawTable>> {
        let table = self.ledger.lock().latest().into_python()?;
        Ok(table.map(|table| self.table(vec![table])))
    }
}

impl RawLedger {
    fn table(&self, batches: Vec<RecordBatch>) -> RawTable {
        RawTable::new(self.stream.stream.schema(), batches)
    }

    fn changes(&self, entries: Entries) -> Changes {
        let changes = entries.changes.map(|changes| changes.into_iter().map(Change::as_str).collect());
        (self.table(entries.batches), changes)
    }
}

/// A job that is driven by hand.
#[pyclass(frozen, skip_from_py_object, module = "millstream._millstream")]
pub struct RawHandJob {
    job: Mutex<Option<HandJob>>,
}

impl RawHandJob {
    /// Calls the job with the interpreter released; its own functions may not call it in turn.
    fn call<T: Send>(&self, py: Python<'_>, call: impl FnOnce(&HandJob) -> mill_protocol::Result<T> + Send) -> PyResult<T> {
        py.detach(|| {
            let Some(job) = self.job.try_lock() else {
                return Err(MillstreamError::new_err("a function of a job cannot drive that job"));
            };
            match job.as_ref() {
                Some(job) => call(job).into_python(),
                None => Err(MillstreamError::new_err("the job is closed")),
            }
        })
    }

    fn take(&self, py: Python<'_>) -> PyResult<Option<HandJob>> {
        py.detach(|| match self.job.try_lock() {
            Some(mut job) => Ok(job.take()),
            None => Err(MillstreamError::new_err("a function of a job cannot close that job")),
        })
    }
}

#[pymethods]
impl RawHandJob {
    /// Opens a job on a disk in memory.
    #[new]
    fn new(
        py: Python<'_>,
        sinks: Vec<PyRef<'_, RawSink>>,
        settings: &Bound<'_, PyDict>,
        seed: u64,
        disk: PyRef<'_, RawDisk>,
        clock: PyRef<'_, RawClock>,
    ) -> PyResult<RawHandJob> {
        let nodes: Vec<SinkNode> = sinks.iter().map(|sink| sink.node.clone()).collect();
        let options = settings.extract::<Settings>()?.options()?;
        let (disk, clock) = (disk.disk.clone(), Arc::clone(&clock.clock));
        let job = py.detach(|| HandJob::open(&nodes, &options, seed, &disk, &clock)).into_python()?;
        Ok(RawHandJob { job: Mutex::new(Some(job)) })
    }

    /// Runs until the job is quiet or over, or these sources have handed out that many records; tells whether it is over, and
    /// how many records are missing.
    #[pyo3(signature = (sources, records))]
    fn run(
        &self,
        py: Python<'_>,
        sources: Vec<PyRef<'_, RawPushedSource>>,
        records: Option<u64>,
    ) -> PyResult<(bool, u64)> {
        let sources: Vec<PushedSource> = sources.iter().map(|source| source.source.clone()).collect();
        let allowance = records.map(Allowance::new);
        sources.iter().for_each(|source| source.allow(allowance.clone()));
        let left = || allowance.as_ref().map_or(0, Allowance::left);
        let is_enough = || allowance.is_some() && left() == 0;
        let ran = loop {
            let standing = self.call(py, |job| job.run(STEPS_PER_LOOK, is_enough));
            match standing {
                Ok(Standing::Busy) if !is_enough() => {
                    if let Err(interrupt) = py.check_signals() {
                        break Err(interrupt);
                    }
                }
                Ok(standing) => break Ok((standing == Standing::Over, left())),
                Err(error) => break Err(error),
            }
        };
        sources.iter().for_each(|source| source.allow(None));
        ran
    }

    fn next_time(&self, py: Python<'_>) -> PyResult<Option<i64>> {
        self.call(py, |job| Ok(job.next_time()))
    }

    /// Takes a checkpoint; these sources hand out no record meanwhile.
    fn checkpoint(&self, py: Python<'_>, sources: Vec<PyRef<'_, RawPushedSource>>) -> PyResult<()> {
        let sources: Vec<PushedSource> = sources.iter().map(|source| source.source.clone()).collect();
        sources.iter().for_each(|source| source.allow(Some(Allowance::new(0))));
        let taken = self.call(py, HandJob::checkpoint);
        sources.iter().for_each(|source| source.allow(None));
        taken
    }

    /// Returns the report of a job that is over.
    fn report<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let outcome = self.call(py, HandJob::report)?;
        report(py, &outcome)
    }

    /// Leaves the job as a kill of the process would.
    fn kill(&self, py: Python<'_>) -> PyResult<()> {
        let job = self.take(py)?;
        py.detach(|| drop(job));
        Ok(())
    }

    /// Ends the job as of its last checkpoint.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let job = self.take(py)?;
        py.detach(|| job.map(HandJob::cancel));
        Ok(())
    }
}
