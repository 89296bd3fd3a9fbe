//! Running jobs from Python.
//!
//! The interpreter is released whenever the engine runs or is waited for. Waiting is cut into pieces of at most 100 ms,
//! between which signals are looked at, so that Ctrl-C ends a script or a cell within a second. What cannot be cut, such
//! as the recovery of a large state, runs on a thread of its own meanwhile ([`interruptible`]).
//!
//! ```text
//!   Ctrl-C ──► stop ──600 ms──► cancel ──100 ms──► KeyboardInterrupt in the job's functions ──300 ms──► let go, and say
//!                 └── ended ──────┴── ended ─────────────────┴── ended, or Ctrl-C again ──────────► KeyboardInterrupt here
//! ```

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, bounded};

use arrow::datatypes::SchemaRef;
use mill_plan::{Mode, OnError, SinkNode};
use millstream::connectors::{CollectReceiver, CollectSink, LatestRows, Received};
use millstream::{AllowNew, CheckpointOptions, Held, Job, JobState, OnHeld, OnText, Options, Overdue, Owner, Paused, Restart, Simulation, spawn_thread};
use parking_lot::Mutex;
use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use pyo3_arrow::PyRecordBatch;

use crate::attach::{self, attach};
use crate::error::{IntoPython, MillstreamError, PlanError, to_python};
use crate::faults::RawDisk;
use crate::stream::{RawSink, RawStream};
use crate::table::RawTable;

/// How long a wait goes without looking at signals.
const WAIT_MAX: Duration = Duration::from_millis(100);
/// How long Ctrl-C waits for the job's last checkpoint before it cancels.
const STOP_MAX: Duration = Duration::from_millis(600);
/// How long a job whose functions were interrupted is waited for.
const INTERRUPTED_MAX: Duration = Duration::from_millis(300);
/// How long a job that nobody holds any more is waited for.
const DROP_MAX: Duration = Duration::from_secs(3);
/// How many batches wait for a consumer that is slower than the job.
const WAITING_BATCHES_MAX: usize = 16;

/// How a job is to be run, as Python says it.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct Settings {
    checkpoint: Option<String>,
    every_us: u64,
    mode: String,
    retain: usize,
    restore_from: Option<String>,
    restart_over: bool,
    /// The names of steps that may be new; `None` for all.
    allow_new: Option<Vec<String>>,
    drop: Vec<String>,
    parallelism: Option<usize>,
    /// Attempts, first pause and longest pause in microseconds; a pause that does not grow has both equal.
    restart: Option<(u32, u64, u64)>,
    on_error: String,
    until_us: Option<u64>,
    frame_rows: Option<usize>,
    is_chaining: bool,
    /// Whether nobody waits for the job, so that its failure is logged.
    is_background: bool,
}

impl Settings {
    /// The options of the engine.
    pub fn options(&self) -> PyResult<Options> {
        let mode = match self.mode.as_str() {
            "exactly_once" => Mode::ExactlyOnce,
            "at_least_once" => Mode::AtLeastOnce,
            "dedup" => Mode::Dedup,
            "none" => Mode::None,
            other => {
                return Err(PlanError::new_err(format!(
                    "mode is {other:?}; it is \"exactly_once\", \"at_least_once\", \"dedup\" or \"none\""
                )));
            }
        };
        let on_error = match self.on_error.as_str() {
            "fail" => OnError::Fail,
            "skip" => OnError::Skip,
            "route" => OnError::Route,
            other => {
                return Err(PlanError::new_err(format!("on_error is {other:?}; it is \"fail\", \"skip\" or \"route\"")));
            }
        };
        let checkpoint = self.checkpoint.as_ref().map(|path| CheckpointOptions {
            every: Duration::from_micros(self.every_us),
            mode,
            retain: self.retain,
            restore_from: self.restore_from.as_ref().map(Into::into),
            restart: self.restart_over,
            allow_new: match &self.allow_new {
                None => AllowNew::Everything,
                Some(names) if names.is_empty() => AllowNew::Nothing,
                Some(names) => AllowNew::Named(names.clone()),
            },
            drop: self.drop.clone(),
            ..CheckpointOptions::new(path)
        });
        let restart = match self.restart {
            None => Restart::Never,
            Some((attempts, first, longest)) if first == longest => {
                Restart::FixedDelay { attempts, delay: Duration::from_micros(first) }
            }
            Some((attempts, first, longest)) => Restart::ExponentialDelay {
                attempts,
                initial: Duration::from_micros(first),
                max: Duration::from_micros(longest),
            },
        };
        Ok(Options {
            checkpoint,
            parallelism: self.parallelism,
            restart,
            on_error,
            until: self.until_us.map(Duration::from_micros),
            frame_rows: self.frame_rows,
            is_chaining: self.is_chaining,
            on_held: Some(OnHeld(Arc::new(say_held))),
            on_wait: Some(OnText(Arc::new(|text| say("say_note", text)))),
            on_note: Some(OnText(Arc::new(|text| say("say_note", text)))),
            on_failed: self.is_background.then(|| OnText(Arc::new(|text| say("say_failed", text)))),
        })
    }
}

/// Runs what takes long and cannot be cut, so that Ctrl-C is heard meanwhile. Then a function of the user's that the call is in
/// is interrupted, and the call is waited for no longer than that takes: what comes of it is dropped.
pub fn interruptible<T: Send + 'static>(
    py: Python<'_>,
    call: impl FnOnce() -> mill_protocol::Result<T> + Send + 'static,
) -> PyResult<T> {
    let (send, receive) = bounded(1);
    let told = send.clone();
    let run = move || drop(send.send(call()));
    let owner = Owner::new();
    spawn_thread("mill-call", owner, run, move |error| drop(told.send(Err(error)))).into_python()?;
    loop {
        match py.detach(|| receive.recv_timeout(WAIT_MAX)) {
            Ok(result) => return result.into_python(),
            Err(RecvTimeoutError::Timeout) => {
                let Err(interrupt) = py.check_signals() else { continue };
                attach::interrupt(py.get_type::<PyKeyboardInterrupt>().as_any(), Some(owner));
                match py.detach(|| receive.recv_timeout(INTERRUPTED_MAX)) {
                    // Started after all: to drop a job may take long.
                    Ok(Ok(result)) => drop(spawn_thread("mill-call", owner, move || drop(result), |_| {})),
                    Ok(Err(_)) => {}
                    Err(_) => say_busy(py),
                }
                return Err(interrupt);
            }
            Err(RecvTimeoutError::Disconnected) => return Err(MillstreamError::new_err("a call of the engine did not answer")),
        }
    }
}

/// A running job. Dropped, it is cancelled; one that was told to stop may stop first.
#[pyclass(frozen, skip_from_py_object, module = "millstream._millstream")]
pub struct RawJob {
    job: Mutex<Option<Arc<Job>>>,
    /// Whether it was told to stop, and not to cancel since.
    is_stopping: AtomicBool,
}

impl RawJob {
    fn new(job: Job) -> RawJob {
        RawJob { job: Mutex::new(Some(Arc::new(job))), is_stopping: AtomicBool::new(false) }
    }

    fn job(&self) -> Arc<Job> {
        self.job.lock().as_ref().map(Arc::clone).expect("the job is taken out in drop only")
    }
}

impl Drop for RawJob {
    fn drop(&mut self) {
        let Some(job) = self.job.lock().take() else { return };
        // A job knows best what to do on its own threads, in a forked process, and when it has ended.
        if !job.is_held() || job.check_wait().is_err() {
            return;
        }
        attach::in_drop(|py, raised| {
            // Ctrl-C may be heard before anybody waits for the job.
            if raised.is_some_and(|raised| raised.is_instance_of::<PyKeyboardInterrupt>(py)) {
                end(py, &job);
            } else {
                // Of an exception that drops the job its user hears anyway.
                match end_dropped(py, &job, self.is_stopping(), raised.is_none()) {
                    Ok(true) => {}
                    Ok(false) => let_go(py, &job),
                    Err(_) => {
                        py.detach(|| job.let_go());
                        // An exception cannot leave from here: the interrupt is raised again where one can.
                        let again = py.import("_thread").and_then(|module| module.call_method0("interrupt_main"));
                        if let Err(exception) = again {
                            exception.write_unraisable(py, None);
                        }
                    }
                }
            }
            py.detach(|| drop(job));
        });
    }
}

/// Starts a job.
#[pyfunction]
pub fn start(py: Python<'_>, sinks: Vec<PyRef<'_, RawSink>>, settings: &Bound<'_, PyDict>) -> PyResult<RawJob> {
    let nodes: Vec<SinkNode> = sinks.iter().map(|sink| sink.node.clone()).collect();
    let options = settings.extract::<Settings>()?.options()?;
    interruptible(py, move || millstream::start(&nodes, options)).map(RawJob::new)
}

/// Checks whether a job could start on a state directory that another one is using; returns whether there is a checkpoint there.
#[pyfunction]
pub fn check_start(py: Python<'_>, sinks: Vec<PyRef<'_, RawSink>>, settings: &Bound<'_, PyDict>) -> PyResult<bool> {
    let nodes: Vec<SinkNode> = sinks.iter().map(|sink| sink.node.clone()).collect();
    let options = settings.extract::<Settings>()?.options()?;
    interruptible(py, move || millstream::check(&nodes, &options))
}

/// Starts a job that hands its records to the caller.
#[pyfunction]
#[pyo3(signature = (stream, limit, settings))]
pub fn receive(
    py: Python<'_>,
    stream: PyRef<'_, RawStream>,
    limit: Option<u64>,
    settings: &Bound<'_, PyDict>,
) -> PyResult<RawReceiver> {
    let (sink, receiver) = CollectSink::new(limit, WAITING_BATCHES_MAX);
    let schema = stream.stream.schema();
    let node = stream.stream.sink(Arc::new(sink)).into_python()?;
    let options = settings.extract::<Settings>()?.options()?;
    let job = interruptible(py, move || millstream::start(&[node], options)).map(RawJob::new)?;
    Ok(RawReceiver { schema, job, receiver: Mutex::new(Some(receiver)) })
}

/// Runs a job by hand on this thread, in an order drawn from a seed; `None` if it has not ended after that many steps.
#[pyfunction]
#[pyo3(signature = (sinks, settings, seed, steps, disk=None, is_clock_jumping=false))]
pub fn simulate(
    py: Python<'_>,
    sinks: Vec<PyRef<'_, RawSink>>,
    settings: &Bound<'_, PyDict>,
    seed: u64,
    steps: Option<u64>,
    disk: Option<PyRef<'_, RawDisk>>,
    is_clock_jumping: bool,
) -> PyResult<Option<Py<PyDict>>> {
    let simulation = Simulation { seed, steps, disk: disk.map(|disk| disk.disk.clone()), is_clock_jumping };
    let nodes: Vec<SinkNode> = sinks.iter().map(|sink| sink.node.clone()).collect();
    let options = settings.extract::<Settings>()?.options()?;
    let outcome = py.detach(|| millstream::simulate(&nodes, &options, &simulation)).into_python()?;
    outcome.map(|outcome| Ok(report(py, &outcome)?.unbind())).transpose()
}

/// Waits for the end of a job in pieces, looking at signals; `None` when the time is over.
fn wait_for(py: Python<'_>, job: &Job, timeout: Option<Duration>) -> PyResult<Option<Py<PyDict>>> {
    let until = timeout.map(|timeout| Instant::now() + timeout);
    loop {
        let left = until.map_or(WAIT_MAX, |until| until.saturating_duration_since(Instant::now()).min(WAIT_MAX));
        if let Some(outcome) = py.detach(|| job.wait(Some(left))) {
            return Ok(Some(report(py, &outcome.into_python()?)?.unbind()));
        }
        if let Err(interrupt) = py.check_signals() {
            end(py, job);
            return Err(interrupt);
        }
        if until.is_some_and(|until| Instant::now() >= until) {
            return Ok(None);
        }
    }
}

/// Ends a job that nothing refers to any more; returns whether it has ended. One that was told to stop is not cut short at once: its
/// last checkpoint and commit may be under way.
///
/// # Errors
/// Of a signal meanwhile.
fn end_dropped(py: Python<'_>, job: &Job, is_stopping: bool, is_said: bool) -> PyResult<bool> {
    if is_stopping && wait_watching(py, job, DROP_MAX)? {
        return Ok(true);
    }
    let has_run = matches!(job.status().state, JobState::Starting | JobState::Running | JobState::Restarting);
    py.detach(|| drop(job.cancel()));
    if has_run && is_said {
        py.import("millstream._live")?.call_method1("say_dropped", (is_stopping,))?;
    }
    wait_watching(py, job, DROP_MAX)
}

/// Ends a job for Ctrl-C, as the picture at the top has it. A second Ctrl-C meanwhile lets go of it at once.
fn end(py: Python<'_>, job: &Job) {
    let ended = || -> PyResult<bool> {
        py.detach(|| drop(job.stop()));
        if wait_watching(py, job, STOP_MAX)? {
            return Ok(true);
        }
        py.detach(|| drop(job.cancel()));
        if wait_watching(py, job, WAIT_MAX)? {
            return Ok(true);
        }
        if let Some(owner) = job.owner() {
            attach::interrupt(py.get_type::<PyKeyboardInterrupt>().as_any(), Some(owner));
        }
        wait_watching(py, job, INTERRUPTED_MAX)
    };
    match ended() {
        Ok(true) => {}
        Ok(false) => let_go(py, job),
        Err(_) => py.detach(|| job.let_go()),
    }
}

/// Waits for the end of a job at most this long; returns whether it has come.
///
/// # Errors
/// Of a signal meanwhile.
fn wait_watching(py: Python<'_>, job: &Job, longest: Duration) -> PyResult<bool> {
    let until = Instant::now() + longest;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        // How the job ended matters less than that it did.
        if py.detach(|| job.wait(Some(left.min(WAIT_MAX / 2)))).is_some() {
            return Ok(true);
        }
        py.check_signals()?;
        if left.is_zero() {
            return Ok(false);
        }
    }
}

/// Lets go of a job that does not end, and says what it is in.
fn let_go(py: Python<'_>, job: &Job) {
    py.detach(|| job.let_go());
    say_busy(py);
}

/// Logs that a split has held back the watermark of a step for some seconds; the handlers of the log are the user's.
fn say_held(step: &str, held: &Held) {
    attach(|py| {
        let report = py.import("millstream.report");
        let said = report.and_then(|report| attach::call_method(&report, "say_held", (step, held_as_tuple(held))));
        if let Err(exception) = said {
            exception.write_unraisable(py, None);
        }
    });
}

/// Logs a sentence by this function of `millstream.report`.
fn say(function: &str, text: &str) {
    attach(|py| {
        let report = py.import("millstream.report");
        let said = report.and_then(|report| attach::call_method(&report, function, (text,)));
        if let Err(exception) = said {
            exception.write_unraisable(py, None);
        }
    });
}

/// How many splits pause, one of them and its watermark, the slowest split and its watermark, in microseconds.
fn paused_as_tuple(paused: &Paused) -> (usize, String, i64, String, Option<i64>) {
    let slowest_us = paused.slowest_watermark.map(|at| at.0);
    (paused.splits, paused.split.clone(), paused.watermark.0, paused.slowest.clone(), slowest_us)
}

/// Split, its watermark, how far others have come, and for how long it has held, in microseconds.
fn held_as_tuple(held: &Held) -> (String, Option<i64>, Option<i64>, u64) {
    (held.split.clone(), held.watermark.map(|at| at.0), held.others.map(|at| at.0), held.since.as_micros() as u64)
}

/// Says which functions of the user's the engine is still in.
fn say_busy(py: Python<'_>) {
    let said = py.import("millstream._live").and_then(|live| live.call_method0("say_busy"));
    if let Err(exception) = said {
        exception.write_unraisable(py, None);
    }
}

#[pymethods]
impl RawJob {
    /// Returns the state, the number of restarts, the notes, and why the job has failed.
    fn status(&self, py: Python<'_>) -> (String, u32, Vec<String>, Option<String>) {
        let job = self.job();
        let status = py.detach(|| job.status());
        (status.state.as_str().to_owned(), status.restarts, status.notes, status.error)
    }

    /// Returns the notes that were logged when they were made.
    fn logged_notes(&self, py: Python<'_>) -> Vec<String> {
        let job = self.job();
        py.detach(|| job.told_notes())
    }

    /// Returns the figures of the run so far; None before it has begun.
    fn metrics<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        let job = self.job();
        py.detach(|| job.metrics()).map(|metrics| figures(py, &metrics)).transpose()
    }

    fn checkpoint_now(&self, py: Python<'_>) -> PyResult<()> {
        let job = self.job();
        job.check_ask().into_python()?;
        interruptible(py, move || job.checkpoint_now())
    }

    fn savepoint(&self, py: Python<'_>, path: &str) -> PyResult<()> {
        let (job, path) = (self.job(), PathBuf::from(path));
        job.check_ask().into_python()?;
        interruptible(py, move || job.savepoint(&path))
    }

    fn stop(&self, py: Python<'_>) -> PyResult<()> {
        let job = self.job();
        self.is_stopping.store(true, Ordering::Relaxed);
        py.detach(|| job.stop()).into_python()
    }

    fn cancel(&self, py: Python<'_>) -> PyResult<()> {
        let job = self.job();
        self.is_stopping.store(false, Ordering::Relaxed);
        py.detach(|| job.cancel()).into_python()
    }

    /// Whether the job was told to stop, and not to cancel since.
    fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Relaxed)
    }

    /// Whether the job has neither been seen to end nor been let go.
    fn is_held(&self, py: Python<'_>) -> bool {
        let job = self.job();
        py.detach(|| job.is_held())
    }

    /// Cancels the job, which is then not waited for any more.
    fn let_go(&self, py: Python<'_>) {
        let job = self.job();
        py.detach(|| job.let_go());
    }

    /// Waits for the end and returns the report; None when the time is over before.
    #[pyo3(signature = (timeout_us))]
    fn wait(&self, py: Python<'_>, timeout_us: Option<u64>) -> PyResult<Option<Py<PyDict>>> {
        let job = self.job();
        wait_for(py, &job, timeout_us.map(Duration::from_micros))
    }
}

/// A job whose records come to the caller.
#[pyclass(frozen, skip_from_py_object, module = "millstream._millstream")]
pub struct RawReceiver {
    schema: SchemaRef,
    job: RawJob,
    receiver: Mutex<Option<CollectReceiver>>,
}

impl RawReceiver {
    /// The next records; `None` when there are no more.
    fn receive(&self, py: Python<'_>) -> PyResult<Option<millstream::connectors::Collected>> {
        let job = self.job.job();
        let mut is_over = false;
        loop {
            let received = py.detach(|| match self.receiver.lock().as_ref() {
                Some(receiver) => receiver.receive(if is_over { Duration::ZERO } else { WAIT_MAX }),
                None => Received::Finished,
            });
            match received {
                Received::Batch(batch) => return Ok(Some(batch)),
                Received::Finished => {
                    self.close(py)?;
                    return Ok(None);
                }
                Received::Nothing | Received::Ended if is_over => return Ok(None),
                Received::Nothing => is_over = self.look(py, &job, Duration::ZERO)?,
                Received::Ended => is_over = self.look(py, &job, WAIT_MAX)?,
            }
        }
    }

    /// All records.
    fn receive_all(&self, py: Python<'_>) -> PyResult<Vec<millstream::connectors::Collected>> {
        let job = self.job.job();
        let mut all = Vec::new();
        let mut is_over = false;
        loop {
            let received = py.detach(|| match self.receiver.lock().as_ref() {
                Some(receiver) => receiver.receive_all(if is_over { Duration::ZERO } else { WAIT_MAX }, &mut all),
                None => Received::Finished,
            });
            match received {
                Received::Finished => {
                    self.close(py)?;
                    return Ok(all);
                }
                _ if is_over => return Ok(all),
                Received::Ended => is_over = self.look(py, &job, WAIT_MAX)?,
                _ => is_over = self.look(py, &job, Duration::ZERO)?,
            }
        }
    }

    /// Looks at signals and at the job, waiting up to this long for its end; returns whether it is over. What is still in the
    /// queue is to be taken after that.
    fn look(&self, py: Python<'_>, job: &Job, wait: Duration) -> PyResult<bool> {
        if let Err(interrupt) = py.check_signals() {
            self.receiver.lock().take();
            end(py, job);
            return Err(interrupt);
        }
        match py.detach(|| job.wait(Some(wait))) {
            Some(Ok(_)) => Ok(true),
            Some(Err(error)) => Err(to_python(error)),
            None => Ok(false),
        }
    }
}

#[pymethods]
impl RawReceiver {
    /// Returns the next batch as `pyarrow.RecordBatch`; None when there are no more.
    fn next<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        match self.receive(py)? {
            Some(collected) => PyRecordBatch::new(collected.data).into_pyarrow(py).map(Some),
            None => Ok(None),
        }
    }

    /// Returns all records; of an updating stream the latest row of each key.
    fn collect(&self, py: Python<'_>) -> PyResult<RawTable> {
        let key = self.receiver.lock().as_ref().and_then(CollectReceiver::key);
        let Some(key) = key else {
            let batches = self.receive_all(py)?.into_iter().map(|collected| collected.data).collect();
            return Ok(RawTable::new(self.schema.clone(), batches));
        };
        let mut latest = LatestRows::new(self.schema.clone(), &key).into_python()?;
        while let Some(collected) = self.receive(py)? {
            latest.push(collected.data, collected.deletes.as_ref()).into_python()?;
        }
        let batch = latest.finish().into_python()?;
        Ok(RawTable::new(self.schema.clone(), vec![batch]))
    }

    /// Ends the job; what has not been taken is dropped.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let receiver = self.receiver.lock().take();
        let job = self.job.job();
        let is_held = py.detach(|| {
            drop(receiver);
            job.is_held()
        });
        if !is_held || py.detach(|| job.stop()).is_err() {
            return Ok(());
        }
        match wait_watching(py, &job, STOP_MAX) {
            Ok(true) => {}
            Ok(false) => py.detach(|| drop(job.cancel())),
            Err(interrupt) => {
                py.detach(|| job.let_go());
                return Err(interrupt);
            }
        }
        Ok(())
    }

    /// Cancels the job without waiting for it.
    fn cancel(&self, py: Python<'_>) {
        let receiver = self.receiver.lock().take();
        let job = self.job.job();
        py.detach(|| {
            drop(receiver);
            drop(job.cancel());
        });
    }

    /// Waits for the end of the job, unless it was let go; returns whether it has come in time.
    fn ends(&self, py: Python<'_>, timeout_us: u64) -> PyResult<bool> {
        let job = self.job.job();
        if py.detach(|| job.is_held()) { wait_watching(py, &job, Duration::from_micros(timeout_us)) } else { Ok(true) }
    }

    /// Cancels the job, which is then not waited for any more.
    fn let_go(&self, py: Python<'_>) {
        self.job.let_go(py);
    }
}

/// Notes that the interpreter ends: no thread of the engine enters it from now on.
#[pyfunction]
pub fn end_interpreter(py: Python<'_>) {
    attach::end(py);
}

/// The numbers of the engine's threads that have been in the interpreter.
#[pyfunction]
pub fn engine_threads() -> Vec<std::ffi::c_long> {
    attach::threads()
}

/// Raises an exception of this type in all threads of the engine when they next run Python code.
#[pyfunction]
pub fn interrupt_threads(exception: &Bound<'_, PyAny>) {
    attach::interrupt(exception, None);
}

/// The figures of a run as a dict.
fn figures<'py>(py: Python<'py>, metrics: &millstream::Metrics) -> PyResult<Bound<'py, PyDict>> {
    let out = PyDict::new(py);
    let steps = PyList::empty(py);
    for step in &metrics.steps {
        let one = PyDict::new(py);
        one.set_item("name", &step.name)?;
        one.set_item("step", &step.step)?;
        one.set_item("rows_in", step.rows_in)?;
        one.set_item("rows_out", step.rows_out)?;
        one.set_item("rows_late", step.rows_late)?;
        one.set_item("rows_skipped", step.rows_skipped)?;
        one.set_item("rows_routed", step.rows_routed)?;
        one.set_item("truncations", step.truncations)?;
        one.set_item("bytes_lost", step.bytes_lost)?;
        one.set_item("watermark_us", step.watermark.map(|watermark| watermark.0))?;
        one.set_item("checkpoint_bytes", step.checkpoint_bytes)?;
        one.set_item("held", step.held.as_ref().map(held_as_tuple))?;
        one.set_item("paused", step.paused.as_ref().map(paused_as_tuple))?;
        steps.append(one)?;
    }
    out.set_item("steps", steps)?;
    let queues = metrics.edges.iter().map(|edge| (&edge.from, &edge.to, edge.fill, edge.capacity));
    out.set_item("queues", queues.collect::<Vec<_>>())?;
    out.set_item("rows_in", metrics.progress.rows_read)?;
    out.set_item("rows_total", metrics.progress.rows_total)?;
    let checkpoints = &metrics.checkpoints;
    out.set_item("checkpoints_taken", checkpoints.completed)?;
    out.set_item("checkpoints_failed", checkpoints.failed)?;
    out.set_item("checkpoint_bytes", checkpoints.last_bytes)?;
    out.set_item("checkpoint_us", checkpoints.last_duration.as_micros() as u64)?;
    out.set_item("checkpoint_error", checkpoints.last_error.as_deref())?;
    let overdue = |overdue: &Overdue| (overdue.id, overdue.since.as_micros() as u64, overdue.waits_for.clone());
    out.set_item("checkpoint_overdue", checkpoints.overdue.as_ref().map(overdue))?;
    Ok(out)
}

/// The report of a run as a dict.
pub fn report<'py>(py: Python<'py>, report: &millstream::Report) -> PyResult<Bound<'py, PyDict>> {
    let out = figures(py, &report.metrics)?;
    out.set_item("status", format!("{:?}", report.status).to_lowercase())?;
    out.set_item("notes", report.notes.clone())?;
    out.set_item("duration_us", report.duration.as_micros() as u64)?;
    out.set_item("restored", report.restored)?;
    out.set_item("checkpoint", report.checkpoint)?;
    Ok(out)
}
