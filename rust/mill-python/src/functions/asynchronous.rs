//! Asynchronous functions: `map_async` and `map_batches_async`.
//!
//! ```text
//!   engine                                         thread of the event loop (millstream._async)
//!   start: columns as lists, once a frame ───────► a task a record
//!   take:  results since the last take   ◄──────── published, then RawWaker.wake()
//! ```
//!
//! The interpreter is taken once for all records that are started together, and once for all results that have come since. A
//! result that does not fit the schema fails its record, as of `map`; so does a record that Python cannot hold.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::task::Waker;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use mill_plan::{AsyncAnswers, AsyncCalls, AsyncFunction, AsyncTask, Rung};
use mill_protocol::{Error, Rejected, Result};
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::types::PyList;
use pyo3_arrow::PyRecordBatch;

use super::batches::{arrow_batch, conform, fitting, misfit};
use super::{Adapter, lists};
use crate::attach::{aside, attach, call_method, try_attach};
use crate::error;
use crate::from_python::rows_to_batch;

/// Wakes a task of the engine, from any thread.
#[pyclass(frozen, skip_from_py_object, module = "millstream._millstream")]
pub struct RawWaker(Waker);

#[pymethods]
impl RawWaker {
    /// Lets the engine take what has been published.
    fn wake(&self) {
        self.0.wake_by_ref();
    }
}

/// An asynchronous function in Python.
#[derive(Debug)]
pub struct PythonAsync {
    /// Its `open` makes a task.
    adapter: Adapter,
    parts: Arc<Parts>,
}

/// What all tasks of a function know.
#[derive(Debug)]
struct Parts {
    name: String,
    schema: SchemaRef,
    calls: AsyncCalls,
    /// Whether records have an event time.
    is_timed: bool,
}

impl PythonAsync {
    /// Makes a function of an adapter.
    pub fn new(name: String, adapter: Py<PyAny>, schema: SchemaRef, calls: AsyncCalls, is_timed: bool) -> PythonAsync {
        let parts = Parts { name: name.clone(), schema, calls, is_timed };
        PythonAsync { adapter: Adapter { name, call: adapter }, parts: Arc::new(parts) }
    }
}

impl AsyncFunction for PythonAsync {
    fn name(&self) -> String {
        self.adapter.name.clone()
    }

    fn open(&self, waker: Waker) -> Result<Box<dyn AsyncTask>> {
        attach(|py| {
            let opened = || call_method(self.adapter.call.bind(py), "open", (Bound::new(py, RawWaker(waker))?,));
            let task = opened().map_err(|exception| error::from_python(py, exception, &self.adapter.name))?;
            let parts = Arc::clone(&self.parts);
            Ok(Box::new(Task { task: task.unbind(), parts, given: HashMap::new(), refused: Vec::new() }) as Box<dyn AsyncTask>)
        })
    }

    fn rung(&self) -> Rung {
        if self.parts.calls.batch_rows.is_some() { Rung::Batch } else { Rung::Record }
    }
}

/// A function at work.
struct Task {
    task: Py<PyAny>,
    parts: Arc<Parts>,
    /// The batches in flight, by the ticket of their first record.
    given: HashMap<u64, RecordBatch>,
    /// Records that Python cannot hold; they are answers to be taken.
    refused: Vec<(Range<u64>, Rejected)>,
}

impl Drop for Task {
    fn drop(&mut self) {
        // An interpreter that has ended has no event loop.
        try_attach(|py| {
            aside(py, || {
                if let Err(exception) = call_method(self.task.bind(py), "close", ()) {
                    exception.write_unraisable(py, Some(self.task.bind(py)));
                }
            });
        });
    }
}

/// What a task returns: of records that have results their tickets and these; tickets and exceptions of those that failed.
type Answer<'py> = (Vec<u64>, Bound<'py, PyList>, Vec<(u64, Bound<'py, PyAny>)>);

impl AsyncTask for Task {
    fn start(&mut self, first: u64, records: &RecordBatch) -> Result<()> {
        attach(|py| {
            let started = match self.parts.calls.batch_rows {
                Some(_) => self.start_batch(py, first, records),
                None => self.start_records(py, first, records),
            };
            started.map_err(|exception| self.failed(py, exception))
        })
    }

    fn take(&mut self) -> Result<AsyncAnswers> {
        attach(|py| {
            let taken = call_method(self.task.bind(py), "take", ());
            let answer = taken.and_then(|answer| answer.extract::<Answer<'_>>());
            let (tickets, values, failures) = answer.map_err(|exception| self.failed(py, exception))?;
            let mut answers = AsyncAnswers::default();
            answers.calls = tickets.len() + failures.len() + self.refused.len();
            answers.answered.extend(self.refused.iter().map(|(tickets, _)| tickets.clone()));
            answers.failed = std::mem::take(&mut self.refused);
            for (ticket, exception) in failures {
                let failure = self.failure(py, PyErr::from_value(exception))?;
                let tickets = self.tickets_of(ticket);
                answers.answered.push(tickets.clone());
                answers.failed.push((tickets, failure));
            }
            match self.parts.calls.batch_rows {
                Some(_) => {
                    for (ticket, value) in tickets.into_iter().zip(values) {
                        self.take_batch(py, ticket, &value, &mut answers)?;
                    }
                }
                None => self.take_records(py, tickets, &values, &mut answers)?,
            }
            Ok(answers)
        })
    }
}

impl Task {
    fn failed(&self, py: Python<'_>, exception: PyErr) -> Error {
        error::from_python(py, exception, &self.parts.name)
    }

    /// Why a record failed. What is no `Exception` (an interrupt, an exit) ends the job.
    fn failure(&self, py: Python<'_>, exception: PyErr) -> Result<Rejected> {
        let is_of_record = exception.is_instance_of::<PyException>(py);
        let error = self.failed(py, exception);
        if is_of_record { Ok(Rejected::of(error, "")) } else { Err(error) }
    }

    /// The tickets of the call that begins with this one. The call has ended.
    fn tickets_of(&mut self, first: u64) -> Range<u64> {
        let rows = self.given.remove(&first).map_or(1, |batch| batch.num_rows() as u64);
        first..first + rows
    }

    fn start_records(&mut self, py: Python<'_>, first: u64, records: &RecordBatch) -> PyResult<()> {
        let start = |first: u64, records: &RecordBatch| -> PyResult<Bound<'_, PyAny>> {
            call_method(self.task.bind(py), "start", (first, lists(py, records, None)?, records.num_rows()))
        };
        if let Ok(columns) = lists(py, records, None) {
            return call_method(self.task.bind(py), "start", (first, columns, records.num_rows())).map(drop);
        }
        for row in 0..records.num_rows() {
            let (ticket, record) = (first + row as u64, records.slice(row, 1));
            match lists(py, &record, None) {
                Ok(_) => drop(start(ticket, &record)?),
                Err(exception) => {
                    let text = format!("{} cannot be called: {}", self.parts.name, error::message(py, &exception));
                    self.refused.push((ticket..ticket + 1, Rejected::new(text, "")));
                }
            }
        }
        if !self.refused.is_empty() {
            call_method(self.task.bind(py), "wake", ())?;
        }
        Ok(())
    }

    fn start_batch(&mut self, py: Python<'_>, first: u64, records: &RecordBatch) -> PyResult<()> {
        let batch = PyRecordBatch::new(records.clone()).into_pyarrow(py)?;
        call_method(self.task.bind(py), "start", (first, batch))?;
        self.given.insert(first, records.clone());
        Ok(())
    }

    fn take_records(
        &self,
        py: Python<'_>,
        tickets: Vec<u64>,
        values: &Bound<'_, PyList>,
        answers: &mut AsyncAnswers,
    ) -> Result<()> {
        answers.answered.extend(tickets.iter().map(|&ticket| ticket..ticket + 1));
        if tickets.is_empty() {
            return Ok(());
        }
        if let Ok(data) = rows_to_batch(values, &self.parts.schema) {
            answers.results.push((data, tickets));
            return Ok(());
        }
        for (ticket, value) in tickets.into_iter().zip(values) {
            let one = PyList::new(py, [value]).map_err(|exception| self.failed(py, exception))?;
            match rows_to_batch(&one, &self.parts.schema) {
                Ok(data) => answers.results.push((data, vec![ticket])),
                Err(unfit) => {
                    let failure = Rejected::of(error::misfit(&self.parts.name, &unfit.message), "");
                    answers.failed.push((ticket..ticket + 1, failure));
                }
            }
        }
        Ok(())
    }

    fn take_batch(
        &mut self,
        py: Python<'_>,
        ticket: u64,
        value: &Bound<'_, PyAny>,
        answers: &mut AsyncAnswers,
    ) -> Result<()> {
        let Parts { name, schema, is_timed, .. } = &*Arc::clone(&self.parts);
        let given = self.given.get(&ticket).cloned();
        let given = given.ok_or_else(|| Error::internal(format!("{name} has answered a batch that was not given")))?;
        let tickets = self.tickets_of(ticket);
        answers.answered.push(tickets.clone());
        let data = match arrow_batch(value) {
            Ok(data) => data,
            Err(exception) => {
                answers.failed.push((tickets, self.failure(py, exception)?));
                return Ok(());
            }
        };
        let is_row_for_row = data.num_rows() == given.num_rows();
        if !is_row_for_row && *is_timed {
            let text = format!(
                "it has {} rows for {} records, so their event time is not known; in a stream with event time it has a row for each",
                data.num_rows(),
                given.num_rows()
            );
            answers.failed.push((tickets, Rejected::of(misfit(name, &text), "")));
            return Ok(());
        }
        match conform(&data, schema, Some(&given)) {
            Ok(data) => {
                let origin = (0..data.num_rows() as u64).map(|row| ticket + if is_row_for_row { row } else { 0 });
                let origin = origin.collect();
                answers.results.push((data, origin));
            }
            Err(unfit) if unfit.row.is_some() && is_row_for_row => {
                let found = fitting(name, &data, schema, &given)?;
                let origin = found.rows.iter().map(|&row| ticket + u64::from(row)).collect();
                answers.results.push((found.data, origin));
                let misfits = found.misfits.into_iter().map(|(row, misfit)| {
                    let ticket = ticket + row as u64;
                    (ticket..ticket + 1, Rejected::of(misfit, ""))
                });
                answers.failed.extend(misfits);
            }
            Err(unfit) => answers.failed.push((tickets, Rejected::of(misfit(name, &unfit.message(0)), ""))),
        }
        Ok(())
    }
}
