//! Sinks written in Python: callbacks, and classes of the user's with one of the three kinds of guarantee.
//!
//! A writer takes the interpreter once a frame; commits run on the coordinator's thread.

use std::fmt;

use arrow::datatypes::SchemaRef;
use mill_protocol::{
    Batch, Commit, Committer, Delivery, Epoch, Error, ErrorKind, PreCommit, Recovered, Result, Run, Sink, SinkKind,
    SinkWriter, TaskContext,
};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};
use pyo3_arrow::PyRecordBatch;

use crate::attach::{attach, call_method, try_attach};
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
    /// The highest parallelism.
    pub parallelism_max: Option<usize>,
}

impl fmt::Debug for PythonSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
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

    fn writer(&self, _schema: &SchemaRef, context: &TaskContext) -> Result<Box<dyn SinkWriter>> {
        attach(|py| {
            let writer = call_method(self.adapter.bind(py), "writer", (context.index, context.parallelism));
            let writer = writer.map_err(|exception| connector(py, exception, &self.name))?.unbind();
            Ok(Box::new(PythonWriter { name: self.name.clone(), writer, kind: self.kind, takes_lists: self.takes_lists })
                as Box<dyn SinkWriter>)
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
    /// `write(frame)` or `write(lists, rows)`, and `pre_commit(epoch)`.
    writer: Py<PyAny>,
    kind: SinkKind,
    takes_lists: bool,
}

impl SinkWriter for PythonWriter {
    fn write(&mut self, batch: Batch) -> Result<()> {
        attach(|py| {
            let writer = self.writer.bind(py);
            let data = batch.data();
            let called = || -> PyResult<()> {
                if !self.takes_lists {
                    call_method(writer, "write", (PyRecordBatch::new(data.clone()).into_pyarrow(py)?,))?;
                    return Ok(());
                }
                let lists = PyList::empty(py);
                for (column, field) in data.columns().iter().zip(data.schema().fields()) {
                    lists.append(column_to_list(py, column, field)?)?;
                }
                call_method(writer, "write", (lists, data.num_rows()))?;
                Ok(())
            };
            called().map_err(|exception| match self.kind {
                // A callback is a function of the user's, not a system that failed.
                SinkKind::Immediate => failed_callback(py, exception, &self.name),
                _ => connector(py, exception, &self.name),
            })
        })
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

/// The failure of a callback; the adapter has put the record on the exception, if it knew it.
fn failed_callback(py: Python<'_>, exception: PyErr, name: &str) -> Error {
    let record = exception.value(py).getattr("_millstream_record").and_then(|record| record.extract::<String>());
    match record {
        Ok(record) => {
            let message = format!("{name} raised {}; record: {record}", describe(py, &exception));
            Error::new(kind_of(py, &exception, ErrorKind::UserFunction), message).because(exception)
        }
        Err(_) => from_python(py, exception, name),
    }
}

struct PythonCommitter {
    name: String,
    /// `promise(delivery, restored, newest, is_persistent)`, `commit(handles)`, `recover(handles)` and `abort(handles)`.
    committer: Py<PyAny>,
}

impl Drop for PythonCommitter {
    fn drop(&mut self) {
        // At the end of the process there may be no interpreter any more, and nothing left to close.
        try_attach(|py| {
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
            let arguments = (delivery, number(run.restored), number(run.newest), run.job.is_some());
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
