//! Functions of the records and timers of each key: `process`.
//!
//! ```text
//!   states as columns ──lists──► task.records(…), .timers(…), .end(…), .expire(…) ──► results, changed states, timers
//! ```
//!
//! A task is an object of `millstream._process`: the user's function with its states, for one parallel instance. It is called
//! once a piece of a frame, with lists, and loops over the records. It keeps nothing from one call to the next.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::datatypes::{Field, FieldRef, Schema, SchemaRef};
use mill_plan::{
    BroadcastStates, Migration, ProcessCall, ProcessEvents, ProcessFailure, ProcessFunction, ProcessOrigin, ProcessOutput, ProcessRows, ProcessTask,
    StateSpec, TimerAction, TimerChange, TimerClock, Ttl,
};
use mill_protocol::{Error, ErrorKind, Result};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};

use super::{Adapter, lists};
use crate::attach::{attach, call_method, in_drop};
use crate::error;
use crate::from_python::{plain_numbers, rows_to_batch, values_to_array};
use crate::to_python::{column_to_list, column_to_sequence};
use crate::types::RawSchema;

/// A function of records and timers in Python.
#[derive(Debug)]
pub struct PythonProcess {
    /// Its `open` makes a task.
    adapter: Adapter,
    has_end: bool,
    parts: Arc<Parts>,
}

/// What all tasks of a function know.
#[derive(Debug)]
struct Parts {
    name: String,
    /// The columns of the outputs, the result first.
    outputs: Vec<SchemaRef>,
    /// The columns of the states.
    states: SchemaRef,
    /// The columns of the states that every task has.
    broadcast: SchemaRef,
    /// Which columns of a record the function can see, if that is known.
    used: Option<Vec<bool>>,
}

/// A state as Python declares it: name, kind, columns, its default as text, time to live in microseconds, whether that is processing time, and the
/// column with the time of writing, and what becomes of values of another type: 0 nothing, 1 fields are added, 2 it says all.
pub type Declared<'py> = (String, String, PyRef<'py, RawSchema>, Option<String>, Option<i64>, bool, usize, u8);

/// The states that a function declares.
pub fn state_specs(declared: &[Declared<'_>]) -> Vec<StateSpec> {
    let spec = |(name, kind, columns, default, ttl, is_processing, written, migration): &Declared<'_>| {
        let columns: Vec<FieldRef> = columns.schema.fields().iter().cloned().collect();
        let clock = if *is_processing { TimerClock::Processing } else { TimerClock::Event };
        let ttl = ttl.map(|us| Ttl { us, clock, written: *written });
        let migration = [Migration::None, Migration::Fields, Migration::Any][usize::from(*migration).min(2)];
        StateSpec { name: name.clone(), kind: kind.clone(), columns, default: default.clone(), ttl, migration }
    };
    declared.iter().map(spec).collect()
}

impl PythonProcess {
    /// Makes a function of an adapter, with the states of keys and those of a broadcast stream; `used` marks the columns that it asks
    /// for, `outputs` are the columns of the result and of
    /// the side outputs.
    pub fn new(
        name: String,
        adapter: Py<PyAny>,
        used: Option<Vec<bool>>,
        [states, broadcast]: [&[StateSpec]; 2],
        outputs: Vec<SchemaRef>,
        has_end: bool,
    ) -> PythonProcess {
        let columns = |states: &[StateSpec]| -> SchemaRef {
            let columns: Vec<FieldRef> = states.iter().flat_map(|state| state.columns.iter().cloned()).collect();
            Arc::new(Schema::new(columns))
        };
        let parts = Parts { name: name.clone(), outputs, states: columns(states), broadcast: columns(broadcast), used };
        PythonProcess { adapter: Adapter { name, call: adapter }, has_end, parts: Arc::new(parts) }
    }
}

impl ProcessFunction for PythonProcess {
    fn name(&self) -> String {
        self.adapter.name.clone()
    }

    fn open(&self) -> Result<Box<dyn ProcessTask>> {
        attach(|py| {
            let task = call_method(self.adapter.call.bind(py), "open", ());
            let task = task.map_err(|exception| error::from_python(py, exception, &format!("{}.open()", self.adapter.name)))?;
            let task: Box<dyn ProcessTask> = Box::new(Task { task: task.unbind(), parts: Arc::clone(&self.parts), version: None });
            Ok(task)
        })
    }

    fn has_end(&self) -> bool {
        self.has_end
    }
}

/// A function at work.
struct Task {
    task: Py<PyAny>,
    parts: Arc<Parts>,
    /// Which broadcast states it has, if it has not changed them since.
    version: Option<u64>,
}

impl Drop for Task {
    fn drop(&mut self) {
        // An interpreter that has ended needs nothing closed.
        in_drop(|py, _| {
            if let Err(exception) = call_method(self.task.bind(py), "close", ()) {
                exception.write_unraisable(py, Some(self.task.bind(py)));
            }
        });
    }
}

/// What a task returns: events done, results, the number of results after each event or the event time of each result,
/// results of side outputs, changed keys, their states by column, changes of timers, timers that are left.
type Answer<'py> = (
    usize,
    Bound<'py, PyList>,
    Vec<i64>,
    Vec<(usize, Bound<'py, PyList>, Vec<i64>)>,
    Vec<u32>,
    Vec<Bound<'py, PyList>>,
    Vec<(u32, bool, i64, u8, i64)>,
    Vec<(i64, u32, i64)>,
);

fn numbers<'py>(py: Python<'py>, values: ArrayRef) -> PyResult<Bound<'py, PyAny>> {
    let field = Field::new("", values.data_type().clone(), false);
    column_to_sequence(py, &values, &field)
}

fn times<'py>(py: Python<'py>, values: &[i64]) -> PyResult<Bound<'py, PyAny>> {
    numbers(py, Arc::new(Int64Array::from(values.to_vec())))
}

impl ProcessTask for Task {
    fn call(&mut self, call: &ProcessCall<'_>) -> std::result::Result<ProcessOutput, ProcessFailure> {
        attach(|py| {
            let task = self.task.bind(py);
            let loaded = self.load(py, task, call);
            self.version = match &call.events {
                ProcessEvents::Broadcast { .. } => None,
                _ => call.broadcast.map(|broadcast| broadcast.version).filter(|_| loaded.is_ok()),
            };
            match loaded.and_then(|()| self.answer(py, task, call)) {
                Ok(answer) => self.output(call, answer),
                Err(exception) => {
                    let at = task.getattr("failed_at").ok().and_then(|at| at.extract::<usize>().ok());
                    Err(ProcessFailure { error: error::from_python(py, exception, &self.parts.name), at })
                }
            }
        })
    }

    fn migrate(&mut self, state: &StateSpec, former: &FieldRef, values: &ArrayRef) -> Result<ArrayRef> {
        attach(|py| self.migrated(py, state, former, values))
    }
}

impl Task {
    /// Has Python make values of a state of old ones.
    fn migrated(&self, py: Python<'_>, state: &StateSpec, former: &FieldRef, values: &ArrayRef) -> Result<ArrayRef> {
        let what = format!("{}, migrate= of state {:?}", self.parts.name, state.name);
        let failed = |exception: PyErr| error::from_python(py, exception, &what);
        let old = column_to_list(py, values, former).map_err(failed)?;
        let new = call_method(self.task.bind(py), "migrate", (&state.name, old)).map_err(failed)?;
        let new: Vec<Bound<'_, PyAny>> = new.try_iter().and_then(Iterator::collect).map_err(failed)?;
        let now = state.columns.first().ok_or_else(|| Error::internal("a state without a column"))?;
        let array = values_to_array(&new, now).map_err(|misfit| {
            let text = format!("{what} returned a value that does not fit: {}", misfit.message);
            Error::new(ErrorKind::UserFunction, text).because(error::SchemaError::new_err(misfit.message))
        })?;
        match array.len() == values.len() {
            true => Ok(array),
            false => Err(Error::internal(format!("{what} returned {} values for {}", array.len(), values.len()))),
        }
    }

    /// Passes on broadcast states that are others than the task has.
    fn load<'py>(&self, py: Python<'py>, task: &Bound<'py, PyAny>, called: &ProcessCall<'_>) -> PyResult<()> {
        let Some(BroadcastStates { version, row }) = called.broadcast.filter(|of| self.version != Some(of.version)) else {
            return Ok(());
        };
        debug_assert!(self.version < Some(version));
        let states = PyList::empty(py);
        for (column, field) in row.columns().iter().zip(self.parts.broadcast.fields()) {
            states.append(column_to_list(py, column, field)?)?;
        }
        call_method(task, "load_broadcast", (states,)).map(|_| ())
    }

    fn answer<'py>(&self, py: Python<'py>, task: &Bound<'py, PyAny>, called: &ProcessCall<'_>) -> PyResult<Answer<'py>> {
        if let ProcessEvents::Broadcast { rows, times: of } = &called.events {
            let of = of.map(|of| times(py, of)).transpose()?;
            let given = call_method(task, "broadcast", (lists(py, rows, None)?, rows.num_rows(), of))?;
            return given.cast_into::<PyTuple>()?.extract();
        }
        let states = PyList::empty(py);
        for (column, field) in called.states.columns().iter().zip(self.parts.states.fields()) {
            states.append(column_to_list(py, column, field)?)?;
        }
        let keys = lists(py, called.keys, None)?;
        let rows = called.states.num_rows();
        let common = (rows, keys, states, called.watermark, called.floor, called.now, called.is_draining);
        let given = match &called.events {
            ProcessEvents::Records { rows, keys, times: of } => {
                let columns = lists(py, rows, self.parts.used.as_deref())?;
                let keys = numbers(py, Arc::new(UInt32Array::from(keys.to_vec())))?;
                let of = of.map(|of| times(py, of)).transpose()?;
                call_method(task, "records", (common, columns, rows.num_rows(), keys, of))?
            }
            ProcessEvents::Timers { clock, times: at, keys, stamps, until } => {
                let keys = numbers(py, Arc::new(UInt32Array::from(keys.to_vec())))?;
                let is_processing = *clock == TimerClock::Processing;
                call_method(task, "timers", (common, is_processing, times(py, at)?, keys, times(py, stamps)?, *until))?
            }
            ProcessEvents::End { stamps } => call_method(task, "end", (common, times(py, stamps)?))?,
            ProcessEvents::Expire { clock } => {
                call_method(task, "expire", (common, *clock == TimerClock::Processing))?
            }
            ProcessEvents::Broadcast { .. } => unreachable!("records of a broadcast stream were passed on above"),
        };
        given.cast_into::<PyTuple>()?.extract()
    }

    fn output(
        &self,
        call: &ProcessCall<'_>,
        (done, results, places, sides, changed, states, timers, left): Answer<'_>,
    ) -> std::result::Result<ProcessOutput, ProcessFailure> {
        let is_of_records = matches!(call.events, ProcessEvents::Records { .. });
        let mut rows = Vec::new();
        if !results.is_empty() {
            let origin = match is_of_records {
                true => ProcessOrigin::Records(records_of(&places, results.len())),
                false => ProcessOrigin::Times(places),
            };
            rows.push(self.rows(0, &results, origin)?);
        }
        for (port, values, places) in sides {
            let origin = match is_of_records {
                true => ProcessOrigin::Records(places.into_iter().map(|place| place as u32).collect()),
                false => ProcessOrigin::Times(places),
            };
            rows.push(self.rows(port, &values, origin)?);
        }
        let schema = if matches!(call.events, ProcessEvents::Broadcast { .. }) { &self.parts.broadcast } else { &self.parts.states };
        let states = if changed.is_empty() { None } else { Some(self.states(schema, &states, changed.len())?) };
        let timers = timers.into_iter().map(|(key, is_processing, at, action, stamp)| TimerChange {
            key,
            clock: if is_processing { TimerClock::Processing } else { TimerClock::Event },
            at,
            action: match action {
                0 => TimerAction::Delete,
                1 => TimerAction::Set { stamp },
                _ => TimerAction::SetForNext { stamp },
            },
        });
        Ok(ProcessOutput { done, left, rows, changed, states, timers: timers.collect() })
    }

    fn rows(
        &self,
        port: usize,
        values: &Bound<'_, PyList>,
        origin: ProcessOrigin,
    ) -> std::result::Result<ProcessRows, ProcessFailure> {
        let what = &self.parts.name;
        let Some(schema) = self.parts.outputs.get(port) else {
            return Err(Error::internal(format!("{what} has no output {port}")).into());
        };
        match rows_to_batch(values, schema) {
            Ok(data) => Ok(ProcessRows { port, data, origin }),
            Err(misfit) => {
                let at = match &origin {
                    ProcessOrigin::Records(records) => records.get(misfit.row).map(|&record| record as usize),
                    ProcessOrigin::Times(_) => None,
                };
                Err(ProcessFailure { error: error::misfit(what, &misfit.message), at })
            }
        }
    }

    fn states(
        &self,
        schema: &SchemaRef,
        columns: &[Bound<'_, PyList>],
        rows: usize,
    ) -> std::result::Result<RecordBatch, ProcessFailure> {
        let what = &self.parts.name;
        let column = |(values, field): (&Bound<'_, PyList>, &FieldRef)| match plain_numbers(values, field) {
            Some(array) => Ok(array),
            None => {
                let values: Vec<Bound<'_, PyAny>> = values.iter().collect();
                values_to_array(&values, field).map_err(|misfit| {
                    let name = field.name().split('@').next().unwrap_or_default();
                    let message = misfit.message.replacen("column ", "state ", 1).replace(field.name().as_str(), name);
                    let text = format!("{what} has put a value into a state that does not fit: {message}");
                    let failure = Error::new(ErrorKind::UserFunction, text);
                    ProcessFailure::from(failure.because(error::SchemaError::new_err(message)))
                })
            }
        };
        let arrays = columns.iter().zip(schema.fields()).map(column);
        let arrays = arrays.collect::<std::result::Result<Vec<ArrayRef>, ProcessFailure>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(Arc::clone(schema), arrays, &options)
            .map_err(|error| Error::internal(format!("states do not fit their columns: {error}")).into())
    }
}

/// The record of each result, where `ends` has how many results there are after each record.
fn records_of(ends: &[i64], results: usize) -> Vec<u32> {
    let mut records = Vec::with_capacity(results);
    for (record, &end) in ends.iter().enumerate() {
        records.resize(usize::try_from(end).unwrap_or_default().max(records.len()), record as u32);
    }
    records
}
