//! JSON files, an object a line or values of any layout ([`values`]), plain or compressed, with types inferred or given.
//!
//! ```text
//!   bytes ─► scan: where the values of each line are ─► column by column into Arrow ─► records with a bad value left out
//! ```
//!
//! A value fits its column exactly, or its record is malformed: numbers are read from their source and neither cut nor
//! rounded (except decimals into floats), and a column of text takes any value as its source. A column without a key is
//! null. A key that a given schema does not have is skipped; one that inferred columns do not have is an error, as is a key
//! that an object has twice.

mod format;
mod infer;
mod values;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use mill_frame::json::is_readable;
use mill_frame::types::type_name;
use mill_protocol::{Discovery, Error, Result, Source, SourceProperties, Split, SplitReader, SplitState};

use crate::columns::chosen;
use crate::file::sample::{self, NAMES_BYTES, OTHERS_BYTES};
use crate::file::{Content, FileOptions, FileSet, Growth, PathSpec, cut_lines};
use crate::nearest::nearest;
use crate::objects::check_read;
pub(crate) use format::JsonFormat;
use infer::Shape;
use values::{Layout, cut, layout_of};

/// How the records of a file are told apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum JsonLayout {
    /// The items of an array if the file begins with one, else lines.
    #[default]
    Auto,
    /// A record a line.
    Lines,
    /// Values one after another or in an array, whatever their line breaks.
    Values,
}

/// How JSON is read.
#[derive(Clone, Debug, Default)]
pub struct JsonOptions {
    /// How the records of a file are told apart.
    pub layout: JsonLayout,
    /// What all readers of files have.
    pub files: FileOptions,
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
    layout: JsonLayout,
}

impl JsonSource {
    /// The records of these files; without a schema it is inferred from samples of some of them.
    ///
    /// # Errors
    /// When a file does not exist; when the schema has a type that JSON has no values for, or a column that no record of
    /// the first file's head has while they have one of nearly that name; when no line of a sample is a JSON object.
    pub fn new(paths: PathSpec, schema: Option<SchemaRef>, options: JsonOptions) -> Result<JsonSource> {
        let files = FileSet::new("read_json", paths, &options.files, options.layout.text())?;
        let layout = options.layout;
        if layout == JsonLayout::Values && options.files.follow {
            return Err(Error::plan("read_json: files that are followed grow by lines; leave out one of format=\"values\" and follow"));
        }
        let is_inferred = schema.is_none();
        let schema: SchemaRef = match schema {
            Some(schema) => {
                check_read("read_json", &schema)?;
                check_types(&schema)?;
                if let Some(first) = files.files.first() {
                    let mut shape = Shape::default();
                    add_sample(&mut shape, first, NAMES_BYTES, 0, layout)?;
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
            None => infer_schema(&files, layout)?,
        };
        let names: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
        files.check_chosen("read_json", &names)?;
        let schema = chosen(&schema, files.chosen());
        Ok(JsonSource { files, schema: Arc::clone(&schema), columns: schema, is_inferred, layout })
    }
}

/// The columns that samples of the files show. A file without records decides nothing.
fn infer_schema(files: &FileSet, layout: JsonLayout) -> Result<SchemaRef> {
    let mut shape = Shape::default();
    for (number, (path, bytes, pieces)) in sample::chosen(&files.files).enumerate() {
        match add_sample(&mut shape, path, bytes, pieces, layout) {
            // What is wrong with another file is reported when it is read.
            Err(error) if number == 0 => return Err(error),
            _ => {}
        }
    }
    let mut others = sample::others(&files.files);
    while shape.is_empty() && let Some(path) = others.next() {
        add_sample(&mut shape, path, OTHERS_BYTES, 0, layout)?;
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
fn add_sample(shape: &mut Shape, path: &Path, bytes: usize, pieces: u64, layout: JsonLayout) -> Result<()> {
    let (layout, first) = layout_of(Content::open(path)?, layout)?;
    if layout != Layout::Lines {
        return add_values(shape, path, bytes, layout, first);
    }
    let head = sample::head(path, bytes, |data| memchr::memchr(b'\n', data).is_some())?;
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
        // A malformed line is reported when it is read.
        if let Err(message) = shape.add(line) {
            first_fault.get_or_insert((number + 1, message));
        }
    }
    if let (Some((line, message)), true) = (first_fault, shape.records() == before) {
        return Err(Error::schema(format!(
            "{path:?} line {line}: {message}; no line of the file's head is a JSON object, and read_json takes an object a \
             line, or with format=\"values\" objects that are broken into lines"
        )));
    }
    for piece in sample::pieces(path, &head, pieces)? {
        for line in piece.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
            let _ = shape.add(line);
        }
    }
    Ok(())
}

/// The same of a file whose records are not lines; the first of them begins at this offset.
fn add_values(shape: &mut Shape, path: &Path, bytes: usize, layout: Layout, first: u64) -> Result<()> {
    // The head is without a byte order mark, which `first` counts.
    let begin = |data: &[u8]| match layout {
        Layout::Array => memchr::memchr(b'[', data).map_or(data.len(), |at| at + 1),
        _ => usize::try_from(first).unwrap_or(0).min(data.len()),
    };
    let head = sample::head(path, bytes, |data| {
        cut(&data[begin(data)..], layout, false, false, 1).is_ok_and(|cut| !cut.values.is_empty() || cut.is_closed)
    })?;
    let data = &head.data[begin(&head.data)..];
    let found = match cut(data, layout, false, head.is_whole, usize::MAX) {
        Ok(found) => found,
        // What is wrong with the file is reported when it is read up to there.
        Err((at, _)) => cut(&data[..at], layout, false, false, usize::MAX).unwrap_or_default(),
    };
    let before = shape.records();
    let mut first_fault = None;
    for &(start, end) in &found.values {
        if let Err(message) = shape.add(&data[start..end]) {
            first_fault.get_or_insert(message);
        }
    }
    match first_fault {
        Some(message) if shape.records() == before => Err(Error::schema(format!("{path:?}: {}", message.replace("line", "value")))),
        _ => Ok(()),
    }
}

impl JsonLayout {
    /// As Python spells it, if it is not what it is by default.
    fn text(self) -> String {
        match self {
            JsonLayout::Auto => String::new(),
            JsonLayout::Lines => ", format=\"lines\"".to_owned(),
            JsonLayout::Values => ", format=\"values\"".to_owned(),
        }
    }
}

pub(crate) fn check_types(schema: &SchemaRef) -> Result<()> {
    for field in schema.fields() {
        if !is_readable(field.data_type()) {
            let hint = match field.data_type() {
                DataType::Dictionary(_, values) => format!("; read it as {}", type_name(values)),
                _ => String::new(),
            };
            return Err(Error::schema(format!(
                "column {:?}: {} cannot be read from JSON{hint}",
                field.name(),
                mill_frame::words::with_article(type_name(field.data_type()))
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

impl JsonSource {
    /// The source as the options of all readers of files want it.
    ///
    /// # Errors
    /// When a column is named that it does not have; when partitions are not those of all files.
    pub fn with_options(self) -> Result<Arc<dyn Source>> {
        self.files.clone().apply(self)
    }
}

impl fmt::Debug for JsonSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

impl Source for JsonSource {
    fn name(&self) -> String {
        self.files.name("read_json")
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
        let is_lines = |path: &Path| Ok(layout_of(Content::open(path)?, self.layout)?.0 == Layout::Lines);
        self.files.splits_by(|path, found| cut_lines(path, is_ordered, is_lines, found))
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
        let format = JsonFormat::new(&self.columns, Arc::clone(&self.schema), self.is_inferred).of_layout(self.layout);
        let format = format.of_some_columns(self.files.chosen().is_some());
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
