//! Standard output: rows are written as they arrive, each batch at once.
//!
//! The reader of the output may stop at any time, as `head` does. Then the write fails with `EPIPE`, and the sink needs no
//! further input: the job ends as at a limit. Written output cannot be taken back, so a job that continues after a failure
//! writes some rows again.

use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ::arrow::datatypes::SchemaRef;
use arrow_ipc::writer::StreamWriter;
use mill_frame::Batch;
use mill_protocol::{
    Commit, Committer, Delivery, Epoch, Error, PreCommit, Recovered, Result, Sink, SinkKind, SinkWriter, TaskContext,
};

use super::options::{Compressed, WriteOptions};
use super::{Encoder, FileFormat, arrow, csv, json};
use crate::objects::check_written;
use crate::updating::check_key;

/// Whether a job is writing there: lines of two would come in one another.
static IS_TAKEN: AtomicBool = AtomicBool::new(false);

/// Rows to standard output.
#[derive(Clone)]
pub struct StdoutSink {
    format: FileFormat,
    options: Arc<WriteOptions>,
    compressed: Compressed,
}

impl StdoutSink {
    /// Rows in this format.
    ///
    /// # Errors
    /// When the format is written from its end, or an option is about files.
    pub fn new(format: FileFormat, options: WriteOptions) -> Result<StdoutSink> {
        let name = format.extension();
        if format == FileFormat::Parquet {
            return Err(Error::plan(
                "write_parquet(\"-\"): a Parquet file is written as a whole, and standard output takes rows as they come: use \
                 write_arrow(\"-\"), write_csv(\"-\") or write_json(\"-\"), or name a file",
            ));
        }
        let set = [
            ("partition_by", !options.partition_by.is_empty()),
            ("max_rows_per_file", options.max_rows_per_file.is_some()),
            ("approximate_bytes_per_file", options.approximate_bytes_per_file.is_some()),
        ];
        if let Some((option, _)) = set.iter().find(|(_, is_set)| *is_set) {
            return Err(Error::plan(format!("write_{name}(\"-\"): {option} is about files, and standard output is none; leave it out")));
        }
        options.check(format, true)?;
        let compressed = options.compressed(format, None)?;
        Ok(StdoutSink { format, options: Arc::new(options), compressed })
    }
}

impl fmt::Debug for StdoutSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

impl Sink for StdoutSink {
    fn name(&self) -> String {
        format!("write_{}(\"-\"{})", self.format.extension(), self.options.text())
    }

    fn identity(&self) -> Option<String> {
        Some(format!("write_{}(standard output{})", self.format.extension(), self.options.text()))
    }

    fn kind(&self) -> SinkKind {
        SinkKind::Immediate
    }

    fn keeps(&self, delivery: Option<Delivery>) -> Option<&'static str> {
        delivery.is_none().then_some("none (no checkpoint): written as it comes")
    }

    fn check(&self, schema: &SchemaRef, key: Option<&[String]>) -> Result<()> {
        check_key(key, None)?;
        if schema.fields().is_empty() {
            return Err(Error::schema(format!("{}: the stream has no columns", self.name())));
        }
        check_written(schema)?;
        self.format.check(schema, &self.options)
    }

    fn parallelism_max(&self) -> Option<usize> {
        Some(1)
    }

    fn writer(&self, schema: &SchemaRef, context: &TaskContext) -> Result<Box<dyn SinkWriter>> {
        // Acquire pairs with the Release of a writer that is dropped: what it had written comes first.
        if IS_TAKEN.swap(true, Ordering::Acquire) {
            return Err(Error::connector("another sink or job is writing to standard output; unite the streams before, or name a file"));
        }
        let taken = Taken;
        let rows = self.rows(schema, context.threads)?;
        Ok(Box::new(StdoutWriter { rows: Some(rows), is_closed: false, _taken: taken }))
    }

    fn committer(&self) -> Result<Box<dyn Committer>> {
        Ok(Box::new(NothingToCommit))
    }
}

impl StdoutSink {
    fn rows(&self, schema: &SchemaRef, threads: usize) -> Result<Rows> {
        let file = io::stdout().as_fd().try_clone_to_owned().map(File::from).map_err(failed)?;
        Ok(match (self.format, self.compressed) {
            (FileFormat::Csv, Compressed::Text(packing)) => {
                Rows::Text(Box::new(csv::CsvEncoder::new(schema, file, packing, &self.options.csv, threads)?))
            }
            (FileFormat::Json, Compressed::Text(packing)) => Rows::Text(Box::new(json::JsonEncoder::new(schema, file, packing, threads)?)),
            (FileFormat::Arrow, Compressed::Buffers(buffers)) => {
                let schema = arrow::file_schema(schema);
                let options = arrow::write_options(buffers)?;
                let writer = StreamWriter::try_new_with_options(Broken { file, is_closed: false }, &schema, options);
                Rows::Arrow(Box::new(writer.map_err(|e| failed(io::Error::other(e)))?), schema)
            }
            _ => return Err(Error::internal("a format is compressed in its own way")),
        })
    }
}

fn failed(e: io::Error) -> Error {
    Error::connector(format!("cannot write to standard output: {e}")).because(e)
}

/// Whether an error says that nobody reads any more.
fn is_broken(error: &Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
    source.is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

/// Frees standard output for the next.
struct Taken;

impl Drop for Taken {
    fn drop(&mut self) {
        // Pairs with the Acquire of whoever takes it.
        IS_TAKEN.store(false, Ordering::Release);
    }
}

/// Where Arrow is written to; notes that nobody reads any more instead of failing.
struct Broken {
    file: File,
    is_closed: bool,
}

impl Write for Broken {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self.file.write(data) {
            Err(e) if e.kind() == ErrorKind::BrokenPipe => {
                self.is_closed = true;
                Ok(data.len())
            }
            written => written,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// What makes bytes of rows.
enum Rows {
    Text(Box<dyn Encoder>),
    Arrow(Box<StreamWriter<Broken>>, SchemaRef),
}

struct StdoutWriter {
    /// `None` after the end.
    rows: Option<Rows>,
    is_closed: bool,
    _taken: Taken,
}

impl StdoutWriter {
    /// Notes that nobody reads any more, which is no failure.
    fn noted(&mut self, result: Result<()>) -> Result<()> {
        match result {
            Err(error) if is_broken(&error) => {
                self.is_closed = true;
                Ok(())
            }
            result => result,
        }
    }
}

impl SinkWriter for StdoutWriter {
    fn write(&mut self, batch: Batch) -> Result<()> {
        let written = match &mut self.rows {
            _ if self.is_closed => return Ok(()),
            None => return Err(Error::internal("rows come after the end")),
            Some(Rows::Text(encoder)) => encoder.write(batch.data()).and_then(|()| encoder.flush()),
            Some(Rows::Arrow(writer, schema)) => {
                let rows = arrow::in_file(batch.data(), schema)?;
                writer.write(&rows).and_then(|()| writer.flush()).map_err(|e| failed(io::Error::other(e)))?;
                self.is_closed = writer.get_ref().is_closed;
                Ok(())
            }
        };
        self.noted(written)
    }

    fn end(&mut self) -> Result<()> {
        let written = match self.rows.take() {
            None => Ok(()),
            Some(Rows::Text(encoder)) => encoder.finish().map(drop),
            Some(Rows::Arrow(mut writer, _)) => writer.finish().map_err(|e| failed(io::Error::other(e))),
        };
        self.noted(written)
    }

    fn pre_commit(&mut self, _epoch: Epoch) -> Result<Option<PreCommit>> {
        Ok(None)
    }

    fn is_finished(&self) -> bool {
        self.is_closed
    }
}

struct NothingToCommit;

impl Committer for NothingToCommit {
    fn commit(&mut self, _commits: &[Commit]) -> Result<()> {
        Ok(())
    }

    fn recover(&mut self, _recovered: &Recovered<'_>) -> Result<()> {
        Ok(())
    }

    fn abort(&mut self) -> Result<()> {
        Ok(())
    }
}
