//! Sinks written in Python: callbacks, and classes of the user's with one of the three kinds of guarantee.
//!
//! A writer takes the interpreter once a frame; commits run on the coordinator's thread.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use mill_frame::text::{record_json, shortened};
use mill_frame::types::{canonical_array, canonical_type};
use mill_protocol::{
    Batch, Commit, Committer, Delivery, Ending, Epoch, Error, ErrorKind, PreCommit, Recovered, Result, Run, Sink, SinkKind,
    SinkWriter, TaskContext,
};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};
use pyo3_arrow::PyRecordBatch;

use crate::attach::{attach, call, call_method, in_drop};
use crate::error::{connector, describe, from_python, kind_of};
use crate::to_python::column_to_list;

/// A sink whose writers and committer are Python objects.
pub struct PythonSink {
    /// What it is, for messages.
    pub name: String,
    /// `writer(index, parallelism)` and `committer()`.
    pub adapter: Py<PyAny>,
    /// How it keeps its guarantee.
    pub kind: SinkKind,
    /// Whether a frame is given as lists of values rather than as a `pyarrow.RecordBatch`.
    pub takes_lists: bool,
    /// Whether it can take an updating stream.
    pub takes_updates: bool,
    /// The key of the updating stream that it takes; empty if it takes another one.
    pub key: Vec<String>,
    /// The highest parallelism.
    pub parallelism_max: Option<usize>,
    /// Why no job with checkpoints can write it.
    pub refuses_checkpoints: Option<String>,
}

impl fmt::Debug for PythonSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Whether the run of a sink is to end, for methods of the sink that wait.
#[pyclass(frozen, module = "millstream._millstream")]
pub struct RawEnding(Ending);

#[pymethods]
impl RawEnding {
    /// Whether the job was cancelled or has failed, so that nothing is to be waited for any more.
    fn is_set(&self) -> bool {
        self.0.is_set()
    }
}

/// The kind with this name.
pub fn sink_kind(name: &str) -> Option<SinkKind> {
    Some(match name {
        "idempotent" => SinkKind::Idempotent,
        "transactional" => SinkKind::Transactional,
        "write-ahead" => SinkKind::WriteAhead,
        "write-ahead-at-least-once" => SinkKind::WriteAheadAtLeastOnce,
        "immediate" => SinkKind::Immediate,
        _ => return None,
    })
}

impl Sink for PythonSink {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn kind(&self) -> SinkKind {
        self.kind
    }

    fn check(&self, _schema: &SchemaRef, key: Option<&[String]>) -> Result<()> {
        match key {
            Some(_) if !self.takes_updates => Err(Error::plan(format!(
                "{} appends, and this stream updates: a row replaces the row of its key",
                self.name
            ))),
            _ => Ok(()),
        }
    }

    fn parallelism_max(&self) -> Option<usize> {
        self.parallelism_max
    }

    fn calls_user_code(&self) -> bool {
        true
    }

    fn refuses_checkpoints(&self) -> Option<&str> {
        self.refuses_checkpoints.as_deref()
    }

    fn of_run(&self) -> Result<Option<Arc<dyn Sink>>> {
        attach(|py| {
            let adapter = self.adapter.bind(py);
            // Sinks of the user's are one object, which runs share.
            let Some(make) = adapter.getattr_opt("of_run").map_err(|exception| connector(py, exception, &self.name))? else { return Ok(None) };
            let adapter = call(&make, ()).map_err(|exception| connector(py, exception, &self.name))?.unbind();
            let PythonSink { name, key, refuses_checkpoints, .. } = self;
            Ok(Some(Arc::new(PythonSink {
                name: name.clone(),
                adapter,
                kind: self.kind,
                takes_lists: self.takes_lists,
                takes_updates: self.takes_updates,
                key: key.clone(),
                parallelism_max: self.parallelism_max,
                refuses_checkpoints: refuses_checkpoints.clone(),
            }) as Arc<dyn Sink>))
        })
    }

    fn writer(&self, schema: &SchemaRef, context: &TaskContext) -> Result<Box<dyn SinkWriter>> {
        let last = LastOfKey::new(schema, &self.key)?;
        attach(|py| {
            let writer = call_method(self.adapter.bind(py), "writer", (context.index, context.parallelism));
            let writer = writer.map_err(|exception| connector(py, exception, &self.name))?.unbind();
            let (name, kind, takes_lists) = (self.name.clone(), self.kind, self.takes_lists);
            Ok(Box::new(PythonWriter { name, writer, kind, takes_lists, last }) as Box<dyn SinkWriter>)
        })
    }

    fn committer(&self) -> Result<Box<dyn Committer>> {
        attach(|py| {
            let committer = call_method(self.adapter.bind(py), "committer", ());
            let committer = committer.map_err(|exception| connector(py, exception, &self.name))?.unbind();
            Ok(Box::new(PythonCommitter { name: self.name.clone(), committer }) as Box<dyn Committer>)
        })
    }
}

struct PythonWriter {
    name: String,
    /// `write(frame)` or `write(lists, rows)`, `delete` with the same of an updating stream, and `pre_commit(epoch)`.
    writer: Py<PyAny>,
    kind: SinkKind,
    takes_lists: bool,
    last: LastOfKey,
}

impl PythonWriter {
    /// Calls a method of the writer with these rows, if there are any.
    fn call(&self, method: &str, data: &RecordBatch) -> Result<()> {
        if data.num_rows() == 0 {
            return Ok(());
        }
        attach(|py| {
            let writer = self.writer.bind(py);
            let called = || -> PyResult<()> {
                if !self.takes_lists {
                    call_method(writer, method, (PyRecordBatch::new(data.clone()).into_pyarrow(py)?,))?;
                    return Ok(());
                }
                let lists = PyList::empty(py);
                for (column, field) in data.columns().iter().zip(data.schema().fields()) {
                    lists.append(column_to_list(py, column, field)?)?;
                }
                call_method(writer, method, (lists, data.num_rows()))?;
                Ok(())
            };
            called().map_err(|exception| match self.kind {
                // A callback is a function of the user's, not a system that failed.
                SinkKind::Immediate => failed_callback(py, exception, &self.name, data),
                _ => connector(py, exception, &self.name),
            })
        })
    }
}

/// Finds what a frame of an updating stream leaves of each key: its last row, or nothing.
struct LastOfKey {
    key: Vec<usize>,
    converter: RowConverter,
}

impl LastOfKey {
    fn new(schema: &SchemaRef, key: &[String]) -> Result<LastOfKey> {
        let place = |name: &String| schema.index_of(name).map_err(|error| Error::schema(error.to_string()));
        let key = key.iter().map(place).collect::<Result<Vec<usize>>>()?;
        let field = |&index: &usize| SortField::new(canonical_type(schema.field(index).data_type()));
        let converter = RowConverter::new(key.iter().map(field).collect())
            .map_err(|error| Error::schema(format!("a column of this type cannot be a key: {error}")))?;
        Ok(LastOfKey { key, converter })
    }

    /// The rows that are set and those that are withdrawn, a row a key.
    fn split(&self, batch: &Batch) -> Result<(RecordBatch, RecordBatch)> {
        let internal = |error: ArrowError| Error::internal(error.to_string());
        let columns = self.key.iter().map(|&index| canonical_array(batch.column(index)));
        let columns = columns.collect::<std::result::Result<Vec<_>, _>>().map_err(|error| Error::internal(error.to_string()))?;
        let rows = if columns.is_empty() { None } else { Some(self.converter.convert_columns(&columns).map_err(internal)?) };
        let mut seen = HashSet::new();
        let (mut set, mut withdrawn) = (vec![false; batch.rows()], vec![false; batch.rows()]);
        for row in (0..batch.rows()).rev() {
            // Without key columns all rows are of one key.
            if !seen.insert(rows.as_ref().map(|rows| rows.row(row))) {
                continue;
            }
            let is_withdrawn = batch.deletes().is_some_and(|deletes| deletes.value(row));
            (if is_withdrawn { &mut withdrawn } else { &mut set })[row] = true;
        }
        let kept = |rows: Vec<bool>| filter_record_batch(batch.data(), &BooleanArray::from(rows)).map_err(internal);
        Ok((kept(set)?, kept(withdrawn)?))
    }
}

impl SinkWriter for PythonWriter {
    fn write(&mut self, batch: Batch) -> Result<()> {
        if batch.deletes().is_some() {
            let (set, withdrawn) = self.last.split(&batch)?;
            self.call("write", &set)?;
            return self.call("delete", &withdrawn);
        }
        self.call("write", batch.data())
    }

    fn pre_commit(&mut self, epoch: Epoch) -> Result<Option<PreCommit>> {
        if self.kind == SinkKind::Immediate {
            return Ok(None);
        }
        attach(|py| {
            let handle = call_method(self.writer.bind(py), "pre_commit", (epoch.0,)).and_then(|h| h.extract::<Option<Vec<u8>>>());
            let handle = handle.map_err(|exception| connector(py, exception, &self.name))?;
            Ok(handle.map(|handle| Box::new(move || Ok(handle)) as PreCommit))
        })
    }
}

/// The failure of a callback; the adapter has put the number of the record on the exception, if it knew it.
fn failed_callback(py: Python<'_>, exception: PyErr, name: &str, data: &RecordBatch) -> Error {
    let row = exception.value(py).getattr("_millstream_row").and_then(|row| row.extract::<usize>());
    match row {
        Ok(row) if row < data.num_rows() => {
            let message = format!("{name} raised {}; record: {}", describe(py, &exception), shortened(&record_json(data, row)));
            Error::new(kind_of(py, &exception, ErrorKind::UserFunction), message).because(exception)
        }
        _ => from_python(py, exception, name),
    }
}

struct PythonCommitter {
    name: String,
    /// `promise(delivery, restored, newest, is_persistent, ending)`, `commit(handles)`, `recover(handles)` and `abort(handles)`.
    committer: Py<PyAny>,
}

impl Drop for PythonCommitter {
    fn drop(&mut self) {
        // At the end of the process there may be no interpreter any more, and nothing left to close.
        in_drop(|py, _| {
            if let Err(exception) = call_method(self.committer.bind(py), "close", ()) {
                exception.write_unraisable(py, None);
            }
        });
    }
}

impl PythonCommitter {
    fn call(&self, method: &str, commits: &[Commit]) -> Result<()> {
        attach(|py| {
            let handles: Vec<(u64, Bound<'_, PyBytes>)> =
                commits.iter().map(|commit| (commit.epoch.0, PyBytes::new(py, &commit.handle))).collect();
            let called = call_method(self.committer.bind(py), method, (handles,));
            called.map(drop).map_err(|exception| connector(py, exception, &self.name))
        })
    }
}

impl Committer for PythonCommitter {
    fn promise(&mut self, run: &Run<'_>) -> Result<()> {
        let delivery = match run.delivery {
            Delivery::ExactlyOnce => "exactly_once",
            Delivery::AtLeastOnce => "at_least_once",
            Delivery::AtMostOnce => "none",
        };
        let number = |epoch: Option<Epoch>| epoch.map(|epoch| epoch.0);
        attach(|py| {
            let ending = RawEnding(run.ending.cloned().unwrap_or_default());
            let arguments = (delivery, number(run.restored), number(run.newest), run.job.is_some(), ending);
            let told = call_method(self.committer.bind(py), "promise", arguments);
            told.map(drop).map_err(|exception| connector(py, exception, &self.name))
        })
    }

    fn commit(&mut self, commits: &[Commit]) -> Result<()> {
        self.call("commit", commits)
    }

    fn recover(&mut self, recovered: &Recovered<'_>) -> Result<()> {
        self.call("recover", recovered.commits)
    }

    fn abort(&mut self) -> Result<()> {
        self.call("abort", &[])
    }
}
