//! JSON files, an object a line, plain or compressed, with types inferred or given.
//!
//! ```text
//!   lines ─► one pass over the whole chunk (arrow-json) ─► batch
//!                 └─ if anything is wrong: line by line, the bad ones told, the good ones kept
//! ```
//!
//! The fast pass may not decide what a record is: it takes any sequence of objects, whatever their lines. So its result
//! counts only if every line begins with `{`, ends with `}` and gave one row; else each line is read for itself. What a
//! line gives thus depends on the line alone, wherever the bytes were cut.
//!
//! A key that the schema does not have is passed over, a column without a key is null.

mod infer;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::compute::concat_batches;
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::json::ReaderBuilder;
use memchr::memchr;
use mill_protocol::{Discovery, Error, Result, Source, SourceProperties, Split, SplitReader, SplitState};

use crate::file::{BadRecord, FileSet, Growth, LineFormat, Parsed, PathSpec, cut_lines, sample};
use crate::nearest::nearest;
use infer::Shape;

/// How JSON is read.
#[derive(Clone, Debug, Default)]
pub struct JsonOptions {
    /// Whether to go on with new and growing files, without end.
    pub follow: bool,
}

/// JSON files as a source.
#[derive(Clone)]
pub struct JsonSource {
    files: FileSet,
    schema: SchemaRef,
}

impl JsonSource {
    /// The records of these files; without a schema it is inferred from the heads of the first and the last file.
    ///
    /// # Errors
    /// When a file does not exist; when the schema has a type that JSON cannot give, or a column that no record of the
    /// first file's head has while they have one of nearly that name.
    pub fn new(paths: PathSpec, schema: Option<SchemaRef>, options: JsonOptions) -> Result<JsonSource> {
        let files = FileSet::new(paths, options.follow)?;
        let mut shape = Shape::default();
        if let Some(first) = files.files.first() {
            add_sample(&mut shape, first)?;
        }
        let schema = match schema {
            Some(schema) => {
                check_types(&schema)?;
                check_names(&files, &schema, &shape)?;
                schema
            }
            None if files.files.is_empty() => {
                return Err(Error::plan(format!(
                    "read_json({}): there is no file yet to infer the columns from; give schema=",
                    files.paths
                )));
            }
            None => {
                if let [_, .., last] = files.files.as_slice() {
                    // What is wrong with another file is said when it is read.
                    let _ = add_sample(&mut shape, last);
                }
                let fields = shape.fields();
                if fields.is_empty() {
                    return Err(Error::schema(format!(
                        "read_json({}): there is no record to infer the columns from; give schema=",
                        files.paths
                    )));
                }
                Arc::new(Schema::new(fields))
            }
        };
        Ok(JsonSource { files, schema })
    }
}

/// Adds the records in the head of a file to what is known of their shape.
fn add_sample(shape: &mut Shape, path: &Path) -> Result<()> {
    let (head, is_whole) = sample(path)?;
    let first = head.trim_ascii_start();
    if first.starts_with(b"[") {
        return Err(Error::schema(format!(
            "{path:?} is one JSON array; read_json takes an object a line (jq -c '.[]' makes that of it)"
        )));
    }
    let mut lines = 0;
    for line in head.split(|byte| *byte == b'\n') {
        let is_cut = !is_whole && line.as_ptr_range().end == head.as_ptr_range().end;
        if is_cut || line.trim_ascii().is_empty() {
            continue;
        }
        lines += 1;
        // A malformed line is told when it is read.
        shape.add(line);
    }
    if lines > 0 && shape.is_empty() {
        return Err(Error::schema(format!(
            "{path:?}: no line of its head is a JSON object; read_json takes an object a line"
        )));
    }
    Ok(())
}

fn check_types(schema: &SchemaRef) -> Result<()> {
    for field in schema.fields() {
        let one = Arc::new(Schema::new(vec![Field::clone(field)]));
        ReaderBuilder::new(one).build_decoder().map_err(|e| {
            Error::schema(format!("column {:?}: a {} cannot be read from JSON: {e}", field.name(), field.data_type()))
        })?;
    }
    Ok(())
}

/// A column that no record has is most likely misspelt if they have another that the schema does not.
fn check_names(files: &FileSet, schema: &Schema, shape: &Shape) -> Result<()> {
    for field in schema.fields() {
        if shape.is_empty() || shape.names().any(|name| name == field.name()) {
            continue;
        }
        let unknown = shape.names().filter(|name| schema.field_with_name(name).is_err());
        if let Some(near) = nearest(field.name(), unknown).first() {
            return Err(Error::schema(format!(
                "no record at the head of {:?} has {:?}, but they have {near:?}; did you mean that? \
                 (rename() it afterwards to call it {:?})",
                files.files[0],
                field.name(),
                field.name()
            )));
        }
    }
    Ok(())
}

impl fmt::Debug for JsonSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

impl Source for JsonSource {
    fn name(&self) -> String {
        format!("read_json({}{})", self.files.paths, if self.files.is_followed { ", follow=True" } else { "" })
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn properties(&self) -> SourceProperties {
        self.files.properties()
    }

    fn splits(&self, is_ordered: bool) -> Result<Vec<Split>> {
        // A line end within a JSON string is escaped: every line end in the file ends a line.
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
        self.files.open(split, position, JsonFormat { schema: Arc::clone(&self.schema) })
    }

    fn project(&self, columns: &[usize]) -> Option<Arc<dyn Source>> {
        let schema = Arc::new(self.schema.project(columns).ok()?);
        // Without any column a malformed record would pass; and nothing is saved, as each line is read all the same.
        (!columns.is_empty()).then(|| Arc::new(JsonSource { files: self.files.clone(), schema }) as _)
    }
}

struct JsonFormat {
    schema: SchemaRef,
}

/// Where lines lie that are not blank, and what the whole of them takes.
struct Lines {
    lines: Vec<(usize, usize)>,
    bytes: usize,
    /// Whether each looks like one object.
    are_objects: bool,
}

impl Lines {
    fn take(data: &[u8], is_last: bool, rows_max: usize) -> Lines {
        let mut lines = Lines { lines: Vec::with_capacity(rows_max.min(data.len() / 16 + 1)), bytes: 0, are_objects: true };
        while lines.bytes < data.len() && lines.lines.len() < rows_max {
            let start = lines.bytes;
            let end = match memchr(b'\n', &data[start..]) {
                Some(at) => start + at,
                None if is_last => data.len(),
                None => break,
            };
            lines.bytes = (end + 1).min(data.len());
            let line = data[start..end].trim_ascii();
            if !line.is_empty() {
                lines.are_objects &= line.starts_with(b"{") && line.ends_with(b"}");
                lines.lines.push((start, end));
            }
        }
        lines
    }
}

impl JsonFormat {
    /// All of the bytes at once; `None` unless they are `rows` good records.
    fn read(&self, data: &[u8], rows: usize) -> Option<std::result::Result<RecordBatch, String>> {
        let told = |e: arrow::error::ArrowError| e.to_string().trim_start_matches("Json error: ").to_owned();
        let builder = ReaderBuilder::new(Arc::clone(&self.schema)).with_batch_size(rows + 1);
        let mut decoder = match builder.build_decoder() {
            Ok(decoder) => decoder,
            Err(e) => return Some(Err(told(e))),
        };
        let used = match decoder.decode(data) {
            Ok(used) => used,
            Err(e) => return Some(Err(told(e))),
        };
        if used < data.len() || decoder.has_partial_record() {
            return Some(Err("the line is not one complete JSON object".to_owned()));
        }
        match decoder.flush() {
            Err(e) => Some(Err(told(e))),
            Ok(Some(batch)) if batch.num_rows() == rows => Some(Ok(batch)),
            Ok(_) => None,
        }
    }

    fn read_line(&self, line: &[u8]) -> std::result::Result<RecordBatch, String> {
        let text = std::str::from_utf8(line).map_err(|_| "the line is not UTF-8".to_owned())?;
        if !text.trim_ascii().starts_with('{') {
            return Err("the line is not a JSON object".to_owned());
        }
        match self.read(line, 1) {
            Some(Ok(batch)) => Ok(batch),
            Some(Err(message)) => Err(message),
            None => Err("the line is not one JSON object".to_owned()),
        }
    }
}

impl LineFormat for JsonFormat {
    fn parse(&mut self, data: &[u8], is_last: bool, rows_max: usize) -> Result<Parsed> {
        let lines = Lines::take(data, is_last, rows_max);
        let options = RecordBatchOptions::new().with_row_count(Some(0));
        let mut batch = RecordBatch::try_new_with_options(
            Arc::clone(&self.schema),
            self.schema.fields().iter().map(|field| arrow::array::new_empty_array(field.data_type())).collect(),
            &options,
        )
        .map_err(|e| Error::internal("empty columns fit their schema").because(e))?;
        let mut rejected = Vec::new();
        if lines.lines.is_empty() {
            return Ok(Parsed { bytes: lines.bytes, batch, rejected });
        }
        let whole = lines.are_objects.then(|| self.read(&data[..lines.bytes], lines.lines.len())).flatten();
        if let Some(Ok(batch)) = whole {
            return Ok(Parsed { bytes: lines.bytes, batch, rejected });
        }
        let mut good = Vec::new();
        for (start, end) in lines.lines {
            match self.read_line(&data[start..end]) {
                Ok(row) => good.push(row),
                Err(message) => rejected.push(BadRecord { start, end, message }),
            }
        }
        if !good.is_empty() {
            batch = concat_batches(&self.schema, &good)
                .map_err(|e| Error::internal("rows of one schema can be put together").because(e))?;
        }
        Ok(Parsed { bytes: lines.bytes, batch, rejected })
    }
}


#[cfg(test)]
mod tests;
