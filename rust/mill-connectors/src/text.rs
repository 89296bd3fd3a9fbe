//! Text files: a record a line, in one column `line`.
//!
//! Lines are copied once, from the bytes read straight into the column's values; a whole batch is checked to be UTF-8
//! in one pass, and only a batch that is not is looked through line by line.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, StringArray};
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use mill_protocol::{Discovery, Error, Result, Source, SourceProperties, Split, SplitReader, SplitState};

use crate::file::{BadRecord, FileOptions, FileSet, Growth, LineFormat, Parsed, PathSpec, cut_lines};
use crate::marks::Marks;

/// What is assumed of a line's length when room is made.
const LINE_BYTES_EXPECTED: usize = 64;
/// How many bytes of a short line are copied at once.
const LINE_BYTES_COPIED: usize = 64;

/// How text files are read.
#[derive(Clone, Debug, Default)]
pub struct TextOptions {
    /// What all readers of files have.
    pub files: FileOptions,
}

/// Text files as a source of lines.
#[derive(Clone)]
pub struct TextSource {
    files: FileSet,
    schema: SchemaRef,
}

impl TextSource {
    /// The lines of these files.
    ///
    /// # Errors
    /// When a file does not exist, or there is none.
    pub fn new(paths: PathSpec, options: TextOptions) -> Result<TextSource> {
        let schema = Schema::new(vec![Field::new("line", DataType::Utf8, true)]);
        Ok(TextSource { files: FileSet::new("read_text", paths, &options.files, String::new())?, schema: Arc::new(schema) })
    }
}

impl TextSource {
    /// The source as the options of all readers of files want it.
    ///
    /// # Errors
    /// When a column is named that it does not have; when partitions are not those of all files.
    pub fn with_options(self) -> Result<Arc<dyn Source>> {
        self.files.clone().apply(self)
    }
}

impl fmt::Debug for TextSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

impl Source for TextSource {
    fn name(&self) -> String {
        self.files.name("read_text")
    }

    fn identity(&self) -> Option<String> {
        Some(self.files.identity("read_text"))
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn properties(&self) -> SourceProperties {
        self.files.properties()
    }

    fn splits(&self, is_ordered: bool) -> Result<Vec<Split>> {
        self.files.splits_by(|path, found| cut_lines(path, is_ordered, |_| Ok(true), found))
    }

    fn resume(&self, is_ordered: bool, left: Vec<SplitState>) -> Result<Vec<SplitState>> {
        self.files.resume(self.splits(is_ordered)?, left, Growth::Lines)
    }

    fn discovery(&self, begun_with: &[SplitState]) -> Result<Option<Box<dyn Discovery>>> {
        self.files.discovery(begun_with)
    }

    fn reads(&self, path: &Path) -> bool {
        self.files.paths.has(path)
    }

    fn open(&self, split: &Split, position: Option<&[u8]>) -> Result<Box<dyn SplitReader>> {
        self.files.open(split, position, TextFormat { schema: Arc::clone(&self.schema) })
    }

    fn project(&self, columns: &[usize]) -> Option<Arc<dyn Source>> {
        let schema = Arc::new(self.schema.project(columns).ok()?);
        (columns.len() <= 1).then(|| Arc::new(TextSource { files: self.files.clone(), schema }) as _)
    }
}

struct TextFormat {
    schema: SchemaRef,
}

impl LineFormat for TextFormat {
    fn parse(&mut self, data: &[u8], is_last: bool, rows_max: usize) -> Result<Parsed> {
        let lines = Lines::take(data, is_last, rows_max);
        let bytes = lines.bytes;
        let (lines, rejected) = match lines.into_array() {
            Ok(array) => (array, Vec::new()),
            Err(()) => take_valid_lines(&data[..bytes])?,
        };
        let options = RecordBatchOptions::new().with_row_count(Some(arrow::array::Array::len(&lines)));
        let columns: Vec<ArrayRef> =
            if self.schema.fields().is_empty() { Vec::new() } else { vec![Arc::new(lines)] };
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)
            .map_err(|e| Error::internal("lines do not fit their schema").because(e))?;
        Ok(Parsed { bytes, batch, rejected })
    }
}

/// Lines laid out as a string column, not yet checked to be text.
struct Lines {
    values: Vec<u8>,
    offsets: Vec<i32>,
    bytes: usize,
}

impl Lines {
    fn take(data: &[u8], is_last: bool, rows_max: usize) -> Lines {
        let rows_expected = rows_max.min(data.len() / 8 + 1);
        let mut lines = Lines {
            values: Vec::with_capacity(data.len().min(rows_expected * LINE_BYTES_EXPECTED) + LINE_BYTES_COPIED),
            offsets: Vec::with_capacity(rows_expected + 1),
            bytes: 0,
        };
        lines.offsets.push(0);
        Marks::new(b'\n', b'\n').each(data, |end| {
            lines.push(data, end);
            lines.bytes = end + 1;
            lines.offsets.len() <= rows_max
        });
        if is_last && lines.offsets.len() <= rows_max && lines.bytes < data.len() {
            lines.push(data, data.len());
            lines.bytes = data.len();
        }
        lines
    }

    /// Takes what is between the lines so far and `end`.
    #[inline(always)]
    fn push(&mut self, data: &[u8], end: usize) {
        let line = without_return(&data[self.bytes..end]);
        match data[self.bytes..].first_chunk::<LINE_BYTES_COPIED>() {
            // A copy of a fixed length is a few instructions; what is too much is cut off again.
            Some(chunk) if line.len() <= LINE_BYTES_COPIED => {
                let kept = self.values.len() + line.len();
                self.values.extend_from_slice(chunk);
                self.values.truncate(kept);
            }
            _ => self.values.extend_from_slice(line),
        }
        self.offsets.push(self.values.len() as i32);
    }

    fn into_array(self) -> std::result::Result<StringArray, ()> {
        let offsets = OffsetBuffer::new(ScalarBuffer::from(self.offsets));
        StringArray::try_new(offsets, Buffer::from_vec(self.values), None).map_err(|_| ())
    }
}

/// A line without the return that some systems put before the line end.
pub(crate) fn without_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// The lines that are UTF-8, and those that are not.
fn take_valid_lines(data: &[u8]) -> Result<(StringArray, Vec<BadRecord>)> {
    let mut good: Vec<&str> = Vec::new();
    let mut bad = Vec::new();
    let mut start = 0;
    while start < data.len() {
        let end = memchr::memchr(b'\n', &data[start..]).map_or(data.len(), |at| start + at);
        match std::str::from_utf8(without_return(&data[start..end])) {
            Ok(line) => good.push(line),
            Err(e) => {
                let message = format!("the line is not UTF-8 (byte {})", e.valid_up_to() + 1);
                bad.push(BadRecord { start, end, message });
            }
        }
        start = end + 1;
    }
    Ok((StringArray::from_iter_values(good), bad))
}

#[cfg(test)]
mod tests;
