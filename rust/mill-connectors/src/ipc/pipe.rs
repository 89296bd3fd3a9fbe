//! Arrow IPC from standard input: a stream of messages, decoded as they come.

use std::collections::VecDeque;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::buffer::Buffer;
use arrow::datatypes::{Field, SchemaRef};
use arrow::error::ArrowError;
use arrow_ipc::reader::StreamDecoder;
use mill_frame::schema::foreign_schema;
use mill_frame::types::plain_schema;
use mill_protocol::{Error, Position, Read, Result, Source, SourceProperties, Split, SplitReader, SplitState};

use super::file::MAGIC;
use crate::columns::{columns_of, match_columns};
use crate::file::pipe::{self, PipeBytes, STANDARD_INPUT};
use crate::file::FileSet;
use crate::fit::{self, Fit};
use crate::guard::guarded;

/// How much is looked at for the columns at first.
const HEAD_BYTES: usize = 1;

/// Arrow IPC as it comes.
#[derive(Clone)]
pub(super) struct PipeSource {
    files: FileSet,
    schema: SchemaRef,
}

impl PipeSource {
    pub(super) fn new(files: FileSet, schema: Option<SchemaRef>) -> Result<PipeSource> {
        let (schema, _) = columns_of("read_arrow", &files, schema, |_| {
            let found = columns()?;
            Ok(Arc::new(plain_schema(&foreign_schema(&found))))
        })?;
        Ok(PipeSource { files, schema })
    }
}

/// The columns, for which the first message is waited for.
fn columns() -> Result<SchemaRef> {
    let decode = |data: &[u8]| {
        let mut decoder = StreamDecoder::new();
        let mut bytes = Buffer::from(data);
        // What comes after the schema is of no interest, and may be incomplete.
        let decoded = decoder.decode(&mut bytes);
        decoder.schema().map_or_else(|| decoded.map(|_| None), |schema| Ok(Some(schema)))
    };
    let path = Path::new(STANDARD_INPUT);
    let (data, is_whole) = pipe::look(HEAD_BYTES, |data| data.starts_with(MAGIC) || !matches!(decode(data), Ok(None)))?;
    if data.starts_with(MAGIC) {
        return Err(Error::connector(format!(
            "{STANDARD_INPUT} is an Arrow file, which is read from its end: write a stream, as pyarrow.ipc.new_stream() and polars' \
             write_ipc_stream() do, or name the file"
        )));
    }
    if data.is_empty() && is_whole {
        return Err(Error::connector(format!("{STANDARD_INPUT} is empty: there is no Arrow stream")));
    }
    let found = guarded(path, "read", || decode(&data)).map_err(not_arrow)?;
    found.ok_or_else(|| Error::connector(format!("{STANDARD_INPUT} is no Arrow stream, or ends within its schema")))
}

fn not_arrow(error: Error) -> Error {
    Error::connector(format!("{STANDARD_INPUT} is no Arrow stream, or is damaged")).because(error)
}

impl fmt::Debug for PipeSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

impl Source for PipeSource {
    fn name(&self) -> String {
        self.files.name("read_arrow")
    }

    fn identity(&self) -> Option<String> {
        Some(self.files.identity("read_arrow"))
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn properties(&self) -> SourceProperties {
        self.files.properties()
    }

    fn splits(&self, _is_ordered: bool) -> Result<Vec<Split>> {
        Ok(vec![Split::new(STANDARD_INPUT)])
    }

    fn resume(&self, is_ordered: bool, _left: Vec<SplitState>) -> Result<Vec<SplitState>> {
        Ok(self.splits(is_ordered)?.into_iter().map(SplitState::unread).collect())
    }

    fn open(&self, _split: &Split, _position: Option<&[u8]>) -> Result<Box<dyn SplitReader>> {
        let (bytes, decoder) = (PipeBytes::take()?, StreamDecoder::new());
        let schema = Arc::clone(&self.schema);
        Ok(Box::new(PipeReader { bytes, decoder, schema, decoded: VecDeque::new(), rows: 0 }))
    }

    fn project(&self, columns: &[usize]) -> Option<Arc<dyn Source>> {
        let schema = Arc::new(self.schema.project(columns).ok()?);
        Some(Arc::new(PipeSource { schema, ..self.clone() }))
    }
}

struct PipeReader {
    bytes: PipeBytes,
    decoder: StreamDecoder,
    schema: SchemaRef,
    /// Batches that have not been returned.
    decoded: VecDeque<RecordBatch>,
    /// How many rows were returned.
    rows: u64,
}

impl PipeReader {
    /// Decodes what has come.
    fn decode(&mut self) -> Result<()> {
        let Self { bytes, decoder, decoded, .. } = self;
        let data = bytes.data();
        let done = guarded(Path::new(STANDARD_INPUT), "read", || {
            let mut buffer = Buffer::from(data);
            while let Some(batch) = decoder.decode(&mut buffer)? {
                decoded.push_back(batch);
            }
            Ok::<_, ArrowError>(data.len() - buffer.len())
        });
        let done = done.map_err(not_arrow)?;
        bytes.consume(done);
        Ok(())
    }

    /// Whether the end mark of the stream has come.
    fn is_finished(&mut self) -> bool {
        // The decoder takes a byte between two messages, and none after the end mark.
        self.decoder.finish().is_ok() && self.decoder.decode(&mut Buffer::from(&[0u8][..])).is_err()
    }

    /// Rows in the order and types of the schema.
    fn fit(&self, batch: &RecordBatch) -> Result<Read> {
        let path = Path::new(STANDARD_INPUT);
        match_columns(path, &self.schema, &plain_schema(&foreign_schema(&batch.schema())), None, false)?;
        let column = |rows: &RecordBatch, field: &Field| -> Result<Fit<ArrayRef>> {
            let column = rows.column_by_name(field.name());
            let column = column.ok_or_else(|| Error::internal(format!("column {:?} is not there", field.name())))?;
            fit::column(path, Arc::clone(column), field)
        };
        let is_missing = vec![false; self.schema.fields().len()];
        fit::read(path, &self.schema, batch, |row| self.rows + row as u64 + 1, fit::record, |rows, _| {
            fit::rows(path, &self.schema, &is_missing, rows.num_rows(), |field| column(rows, field))
        })
    }
}

impl SplitReader for PipeReader {
    fn next(&mut self, rows_max: usize) -> Result<Read> {
        loop {
            if let Some(batch) = self.decoded.pop_front() {
                let rows = batch.num_rows().min(rows_max.max(1));
                if rows < batch.num_rows() {
                    self.decoded.push_front(batch.slice(rows, batch.num_rows() - rows));
                }
                let read = self.fit(&batch.slice(0, rows))?;
                self.rows += rows as u64;
                return Ok(read);
            }
            if !self.bytes.data().is_empty() {
                self.decode()?;
                if !self.decoded.is_empty() {
                    continue;
                }
            }
            if self.bytes.is_at_end() {
                return match self.is_finished() {
                    true => Ok(Read::End),
                    false => Err(Error::connector(format!(
                        "{STANDARD_INPUT} has no end mark of an Arrow stream: whoever wrote it was cut off"
                    ))),
                };
            }
            if !self.bytes.fill()? {
                return Ok(Read::Pending(Duration::ZERO));
            }
        }
    }

    fn position(&self) -> Position {
        Position::new()
    }
}
