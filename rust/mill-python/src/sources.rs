//! Sources written in Python, and streams of Arrow batches that are read as they come.
//!
//! Reading may block, so the runtime starts a thread for each reader; the interpreter is held only inside one call
//! of `next`, which returns records and position together.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{RecordBatch, RecordBatchReader};
use arrow::compute::concat_batches;
use arrow::datatypes::{Field, Schema, SchemaRef};
use mill_frame::types::{check_fields, plain_batch, plain_schema};
use mill_protocol::{
    Error, Position, Read, Rejected, Result, Source, SourceProperties, Split, SplitReader,
};
use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use crate::attach::{attach, call_method, in_drop};
use crate::error::connector;
use crate::functions::value_json;
use crate::from_python::rows_to_batch;
use crate::functions::{arrow_batch, conform};
use crate::import::validate;
use crate::types::type_name;

/// How long a reader waits after it had nothing, at most.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// A source whose splits and readers are Python objects.
pub struct PythonSource {
    /// What it is, for messages.
    pub name: String,
    /// `splits()` and `open(split, position)`.
    pub adapter: Py<PyAny>,
    /// The columns.
    pub schema: SchemaRef,
    /// What it promises.
    pub properties: SourceProperties,
}

impl fmt::Debug for PythonSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Source for PythonSource {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn properties(&self) -> SourceProperties {
        self.properties
    }

    fn splits(&self, _is_ordered: bool) -> Result<Vec<Split>> {
        attach(|py| {
            let names = call_method(self.adapter.bind(py), "splits", ()).and_then(|names| names.extract::<Vec<String>>());
            let names = names.map_err(|exception| connector(py, exception, &self.name))?;
            Ok(names.into_iter().map(Split::new).collect())
        })
    }

    fn open(&self, split: &Split, position: Option<&[u8]>) -> Result<Box<dyn SplitReader>> {
        attach(|py| {
            let start = position.map(|position| PyBytes::new(py, position));
            let reader = call_method(self.adapter.bind(py), "open", (&split.name, start));
            let reader = reader.map_err(|exception| connector(py, exception, &self.name))?.unbind();
            Ok(Box::new(PythonReader {
                name: self.name.clone(),
                reader,
                schema: Arc::clone(&self.schema),
                position: position.map(<[u8]>::to_vec).unwrap_or_default(),
            }) as Box<dyn SplitReader>)
        })
    }
}

struct PythonReader {
    name: String,
    /// `next(rows_max)`: `(kind, payload, position)`.
    reader: Py<PyAny>,
    schema: SchemaRef,
    position: Position,
}

impl Drop for PythonReader {
    fn drop(&mut self) {
        // At the end of the process there may be no interpreter any more, and nothing left to close.
        in_drop(|py, _| {
            if let Err(exception) = call_method(self.reader.bind(py), "close", ()) {
                exception.write_unraisable(py, None);
            }
        });
    }
}

impl SplitReader for PythonReader {
    fn next(&mut self, rows_max: usize) -> Result<Read> {
        attach(|py| {
            let called = || -> PyResult<(String, Bound<'_, PyAny>, Vec<u8>)> {
                call_method(self.reader.bind(py), "next", (rows_max,))?.extract().map_err(PyErr::from)
            };
            let (kind, payload, position) = called().map_err(|exception| connector(py, exception, &self.name))?;
            let read = match kind.as_str() {
                "rows" => {
                    let rows = payload.cast::<PyList>().map_err(|error| Error::connector(error.to_string()))?;
                    read_rows(rows, &self.schema, &self.name)?
                }
                "arrow" => {
                    let batch = arrow_batch(&payload).map_err(|exception| connector(py, exception, &self.name))?;
                    let batch = conform(&batch, &self.schema, None)
                        .map_err(|unfit| Error::connector(format!("{} returned a batch that does not fit: {}", self.name, unfit.message(0))))?;
                    Read::Batch(batch)
                }
                "pending" => {
                    let seconds: f64 = payload.extract().unwrap_or(0.01);
                    Read::Pending(Duration::from_secs_f64(seconds.clamp(0.0, PAUSE_MAX.as_secs_f64())))
                }
                _ => Read::End,
            };
            self.position = position;
            Ok(read)
        })
    }

    fn position(&self) -> Position {
        self.position.clone()
    }
}

/// Records as a batch; those that don't fit are handed over one by one.
fn read_rows(rows: &Bound<'_, PyList>, schema: &SchemaRef, name: &str) -> Result<Read> {
    if let Ok(batch) = rows_to_batch(rows, schema) {
        return Ok(Read::Batch(batch));
    }
    let py = rows.py();
    let mut parts = vec![RecordBatch::new_empty(Arc::clone(schema))];
    let mut rejected = Vec::new();
    for row in rows.iter() {
        let one = PyList::new(py, [&row]).map_err(|exception| connector(py, exception, name))?;
        match rows_to_batch(&one, schema) {
            Ok(part) => parts.push(part),
            Err(misfit) => rejected.push(Rejected::new(format!("{name}: {}", misfit.message), value_json(&row))),
        }
    }
    let batch = concat_batches(schema, &parts).map_err(|error| Error::internal(error.to_string()))?;
    Ok(Read::Partial(batch, rejected))
}

/// A stream of Arrow batches (a `RecordBatchReader`) that is read as it comes, once. Its position is how many rows it has
/// returned, so that a later run, which gets the stream anew, continues after those.
pub struct ReaderSource {
    name: String,
    schema: SchemaRef,
    /// Taken by the first run; a stream can be read only once.
    reader: Mutex<Option<Box<dyn RecordBatchReader + Send>>>,
}

impl ReaderSource {
    /// Reads this stream of batches.
    ///
    /// # Errors
    /// When it has columns that no stream carries.
    pub fn new(name: String, reader: Box<dyn RecordBatchReader + Send>) -> Result<ReaderSource> {
        let schema = reader.schema();
        check_fields(schema.fields()).map_err(|error| Error::schema(error.to_string()))?;
        Ok(ReaderSource { name, schema: Arc::new(plain_schema(&schema)), reader: Mutex::new(Some(reader)) })
    }
}

impl fmt::Debug for ReaderSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Source for ReaderSource {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn properties(&self) -> SourceProperties {
        SourceProperties { is_bounded: true, is_replayable: false, discovers_splits: false, may_block: true }
    }

    fn splits(&self, _is_ordered: bool) -> Result<Vec<Split>> {
        Ok(vec![Split::new("reader")])
    }

    fn open(&self, _split: &Split, position: Option<&[u8]>) -> Result<Box<dyn SplitReader>> {
        let rows = position.map(|position| decode_rows(position, &self.name)).transpose()?.unwrap_or(0);
        let reader = self.reader.lock().take().ok_or_else(|| {
            Error::connector(format!(
                "{} has been read already; a reader returns its batches once: make a new one, or pass a table",
                self.name
            ))
        })?;
        let mut reader = ArrowReader { name: self.name.clone(), reader, schema: Arc::clone(&self.schema), rest: None, rows: 0 };
        reader.skip(rows)?;
        Ok(Box::new(reader))
    }
}

/// What a position begins with: it counts rows. Positions that counted batches had eight bytes.
const ROWS_MARK: u8 = b'r';

fn decode_rows(position: &[u8], name: &str) -> Result<u64> {
    match position.split_first() {
        Some((&ROWS_MARK, rows)) if rows.len() == 8 => Ok(u64::from_le_bytes(rows.try_into().expect("eight bytes"))),
        _ => Err(Error::checkpoint(format!(
            "the state directory was written by an older version, which did not count the rows of {name}; give another \
             directory"
        ))),
    }
}

struct ArrowReader {
    name: String,
    reader: Box<dyn RecordBatchReader + Send>,
    schema: SchemaRef,
    rest: Option<RecordBatch>,
    /// How many were returned or skipped.
    rows: u64,
}

impl ArrowReader {
    /// The next records as they come.
    fn batch(&mut self) -> Result<Option<RecordBatch>> {
        if let Some(rest) = self.rest.take() {
            return Ok(Some(rest));
        }
        let next = self.reader.next().transpose();
        let next = next.map_err(|error| Error::connector(format!("{}: {error}", self.name)))?;
        next.map(|batch| {
            validate(&batch, &self.name)?;
            self.plain(&batch)
        })
        .transpose()
    }

    /// Passes over rows that an earlier run has had.
    fn skip(&mut self, rows: u64) -> Result<()> {
        while self.rows < rows {
            let Some(batch) = self.batch()? else {
                return Err(Error::checkpoint(format!(
                    "{} ends after {} rows, and an earlier run has read {rows} of it; give the same stream, or another state \
                     directory",
                    self.name, self.rows
                )));
            };
            let taken = batch.num_rows().min(usize::try_from(rows - self.rows).unwrap_or(usize::MAX));
            self.take(&batch, taken);
        }
        Ok(())
    }

    /// Counts so many rows of a batch as given, and keeps the rest of it.
    fn take(&mut self, batch: &RecordBatch, taken: usize) {
        self.rows += taken as u64;
        if taken < batch.num_rows() {
            self.rest = Some(batch.slice(taken, batch.num_rows() - taken));
        }
    }

    /// The batch in the types of the stream; a reader may change the types that it returns as it goes.
    fn plain(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let failed = |what: String| Error::connector(format!("{}: the batch after {} rows: {what}", self.name, self.rows));
        let found = plain_schema(&batch.schema());
        let is_same = |(a, b): (&Arc<Field>, &Arc<Field>)| a.name() == b.name() && a.data_type() == b.data_type();
        let count = self.schema.fields().len();
        if found.fields().len() != count || !found.fields().iter().zip(self.schema.fields()).all(is_same) {
            let columns = |schema: &Schema| {
                let columns = schema.fields().iter().map(|field| format!("{}: {}", field.name(), type_name(field)));
                columns.collect::<Vec<_>>().join(", ")
            };
            return Err(failed(format!("it has the columns ({}), the reader promised ({})", columns(&found), columns(&self.schema))));
        }
        plain_batch(batch, &self.schema).map_err(|error| failed(error.to_string()))
    }
}

impl SplitReader for ArrowReader {
    fn next(&mut self, rows_max: usize) -> Result<Read> {
        let Some(batch) = self.batch()? else { return Ok(Read::End) };
        let taken = batch.num_rows().min(rows_max.max(1));
        self.take(&batch, taken);
        Ok(Read::Batch(batch.slice(0, taken)))
    }

    fn position(&self) -> Position {
        [&[ROWS_MARK][..], &self.rows.to_le_bytes()].concat()
    }
}
