//! JSON files, an object a line, plain or compressed, with types inferred or given.
//!
//! ```text
//!   bytes ─► scan: where the values of each line are ─► column by column into Arrow ─► records with a bad value left out
//! ```
//!
//! A value is its column's to the last digit, or its record is malformed: numbers are read from their source and neither
//! cut nor rounded (but decimals into floats), and a column of text takes any value as its source. A column without a key
//! is null. A key that a given schema does not have is passed over; one that inferred columns do not have is an error, as
//! is a key that an object has twice.

mod column;
mod format;
mod infer;
mod scan;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use mill_frame::types::type_name;
use mill_protocol::{Discovery, Error, Result, Source, SourceProperties, Split, SplitReader, SplitState};

use crate::file::sample::{self, NAMES_BYTES, OTHERS_BYTES};
use crate::file::{FileSet, Growth, PathSpec, cut_lines};
use crate::nearest::nearest;
use crate::objects::check_read;
pub(crate) use format::JsonFormat;
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
    /// All columns.
    columns: SchemaRef,
    /// Those that are read.
    schema: SchemaRef,
    is_inferred: bool,
}

impl JsonSource {
    /// The records of these files; without a schema it is inferred from samples of some of them.
    ///
    /// # Errors
    /// When a file does not exist; when the schema has a type that JSON has no values for, or a column that no record of
    /// the first file's head has while they have one of nearly that name; when no line of a sample is a JSON object.
    pub fn new(paths: PathSpec, schema: Option<SchemaRef>, options: JsonOptions) -> Result<JsonSource> {
        let files = FileSet::new(paths, options.follow)?;
        let is_inferred = schema.is_none();
        let schema = match schema {
            Some(schema) => {
                check_read("read_json", &schema)?;
                check_types(&schema)?;
                if let Some(first) = files.files.first() {
                    let mut shape = Shape::default();
                    add_sample(&mut shape, first, NAMES_BYTES, 0)?;
                    check_names(first, &schema, &shape)?;
                }
                schema
            }
            None if files.files.is_empty() => {
                return Err(Error::plan(format!(
                    "read_json({}): there is no file yet to infer the columns from; give schema=",
                    files.paths
                )));
            }
            None => infer_schema(&files)?,
        };
        Ok(JsonSource { files, schema: Arc::clone(&schema), columns: schema, is_inferred })
    }
}

/// The columns that samples of the files show. A file without records decides nothing.
fn infer_schema(files: &FileSet) -> Result<SchemaRef> {
    let mut shape = Shape::default();
    for (number, (path, bytes, pieces)) in sample::chosen(&files.files).enumerate() {
        match add_sample(&mut shape, path, bytes, pieces) {
            // What is wrong with another file is told when it is read.
            Err(error) if number == 0 => return Err(error),
            _ => {}
        }
    }
    let mut others = sample::others(&files.files);
    while shape.is_empty() && let Some(path) = others.next() {
        add_sample(&mut shape, path, OTHERS_BYTES, 0)?;
    }
    if shape.is_empty() {
        return Err(Error::schema(format!(
            "read_json({}): there is no record to infer the columns from; give schema=",
            files.paths
        )));
    }
    Ok(Arc::new(Schema::new(shape.fields())))
}

/// Adds records of a file to what is known of their shape: those of its head, and of some pieces of the rest.
fn add_sample(shape: &mut Shape, path: &Path, bytes: usize, pieces: u64) -> Result<()> {
    let head = sample::head(path, bytes, |data| memchr::memchr(b'\n', data).is_some())?;
    if head.data.trim_ascii_start().starts_with(b"[") {
        return Err(Error::schema(format!(
            "{path:?} is one JSON array; read_json takes an object a line (jq -c '.[]' makes that of it)"
        )));
    }
    let complete = match head.is_whole {
        true => head.data.len(),
        false => memchr::memrchr(b'\n', &head.data).map_or(0, |at| at + 1),
    };
    let before = shape.records();
    let mut first_fault = None;
    for (number, line) in head.data[..complete].split(|byte| *byte == b'\n').enumerate() {
        if line.trim_ascii().is_empty() {
            continue;
        }
        // A malformed line is told when it is read.
        if let Err(message) = shape.add(line) {
            first_fault.get_or_insert((number + 1, message));
        }
    }
    if let (Some((line, message)), true) = (first_fault, shape.records() == before) {
        return Err(Error::schema(format!(
            "{path:?} line {line}: {message}; no line of the file's head is a JSON object, and read_json takes an object a \
             line"
        )));
    }
    for piece in sample::pieces(path, &head, pieces)? {
        for line in piece.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
            let _ = shape.add(line);
        }
    }
    Ok(())
}

pub(crate) fn check_types(schema: &SchemaRef) -> Result<()> {
    for field in schema.fields() {
        if !column::is_readable(field.data_type()) {
            let hint = match field.data_type() {
                DataType::Dictionary(_, values) => format!("; read it as {}", type_name(values)),
                _ => String::new(),
            };
            return Err(Error::schema(format!(
                "column {:?}: a {} cannot be read from JSON{hint}",
                field.name(),
                type_name(field.data_type())
            )));
        }
    }
    Ok(())
}

/// A column that no record has is most likely misspelt if they have another that the schema does not.
fn check_names(path: &Path, schema: &Schema, shape: &Shape) -> Result<()> {
    for field in schema.fields() {
        if shape.is_empty() || shape.names().any(|name| name == field.name()) {
            continue;
        }
        let unknown = shape.names().filter(|name| schema.field_with_name(name).is_err());
        if let Some(near) = nearest(field.name(), unknown).first() {
            return Err(Error::schema(format!(
                "no record at the head of {:?} has {:?}, but they have {near:?}; did you mean that? \
                 (rename() it afterwards to call it {:?})",
                path,
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

    fn identity(&self) -> Option<String> {
        Some(self.files.identity("read_json"))
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
        let format = JsonFormat::new(&self.columns, Arc::clone(&self.schema), self.is_inferred);
        self.files.open(split, position, format)
    }

    fn project(&self, columns: &[usize]) -> Option<Arc<dyn Source>> {
        let schema = Arc::new(self.schema.project(columns).ok()?);
        // Without any column a malformed record would pass; and nothing is saved, as each line is read all the same.
        (!columns.is_empty()).then(|| Arc::new(JsonSource { schema, ..self.clone() }) as _)
    }
}

#[cfg(test)]
mod tests;
