//! CSV files, plain or compressed, with types inferred or given.
//!
//! ```text
//!   bytes ─► tokens: records and fields, with quotes ─► column by column into Arrow ─► rows with a bad field left out
//! ```
//!
//! The columns of a file are matched by the names in its header, so files may order them differently. An empty field is
//! null, an empty quoted field is empty text. A record may stretch over lines inside quotes; a file in which none does is
//! cut into ranges ([`cut`]).

mod column;
mod cut;
mod format;
mod infer;
mod options;
mod tokens;

use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use arrow::datatypes::{Field, Schema, SchemaRef};
use mill_frame::types::type_name;
use mill_protocol::{Discovery, Error, Result, Source, SourceProperties, Split, SplitReader, SplitState};

use crate::file::sample::{self, Head, OTHERS_BYTES};
use crate::file::{Content, FileOptions, FileSet, Growth, PathSpec, cut_lines};
use crate::infer::Common;
use crate::nearest::{did_you_mean, quoted};
use crate::objects::check_read;
use format::{Begin, CsvFormat, read_header};
use infer::infer_columns;
use tokens::{Tokens, tokenize};

/// How CSV is read.
#[derive(Clone, Debug)]
pub struct CsvOptions {
    /// What separates fields.
    pub separator: u8,
    /// What encloses fields; a doubled one inside is one of the text. `None`: no field is enclosed.
    pub quote: Option<u8>,
    /// Within quotes, what makes the next byte stand for itself.
    pub escape: Option<u8>,
    /// Whether the first record of each file names the columns; else they are `column_1`, `column_2`, …
    pub has_header: bool,
    /// The names of the columns, instead of those of the header.
    pub new_columns: Option<Vec<String>>,
    /// How many lines are skipped at the start of each file, whatever is in them.
    pub skip_lines: usize,
    /// How many rows are skipped after these, and after the header.
    pub skip_rows: usize,
    /// How many rows are skipped after the header.
    pub skip_rows_after_header: usize,
    /// What a line begins with that is not read.
    pub comment_prefix: Option<String>,
    /// Fields that mean null, beside the empty one.
    pub null_values: Vec<String>,
    /// The same for single columns.
    pub column_nulls: Vec<(String, Vec<String>)>,
    /// Whether fields that are too many are dropped, and those that are missing are null.
    pub truncate_ragged_lines: bool,
    /// Whether dates and times are recognised where columns are inferred.
    pub try_parse_dates: bool,
    /// Whether numbers have a comma where others have a point.
    pub decimal_comma: bool,
    /// Whether bytes that are not UTF-8 are replaced by U+FFFD.
    pub is_lossy: bool,
    /// What all readers of files have.
    pub files: FileOptions,
}

impl Default for CsvOptions {
    fn default() -> CsvOptions {
        CsvOptions {
            separator: b',',
            quote: Some(b'"'),
            escape: None,
            has_header: true,
            new_columns: None,
            skip_lines: 0,
            skip_rows: 0,
            skip_rows_after_header: 0,
            comment_prefix: None,
            null_values: Vec::new(),
            column_nulls: Vec::new(),
            truncate_ragged_lines: false,
            try_parse_dates: true,
            decimal_comma: false,
            is_lossy: false,
            files: FileOptions::default(),
        }
    }
}

/// CSV files as a source.
#[derive(Clone)]
pub struct CsvSource {
    files: FileSet,
    options: Arc<CsvOptions>,
    /// All columns of the files.
    columns: SchemaRef,
    /// Those that are read.
    schema: SchemaRef,
    is_inferred: bool,
    header: KnownHeader,
}

/// The header that all files have where the user renames the columns; that of the first file that was looked at.
type KnownHeader = Arc<OnceLock<Vec<String>>>;

impl CsvSource {
    /// The records of these files; without a schema it is inferred from samples of some of them.
    ///
    /// # Errors
    /// When a file does not exist; when the header of the first file and the schema name other columns; when a type
    /// cannot be read from text.
    pub fn new(paths: PathSpec, schema: Option<SchemaRef>, options: CsvOptions) -> Result<CsvSource> {
        options.check()?;
        let files = FileSet::new("read_csv", paths, &options.files, options.text())?;
        let is_inferred = schema.is_none();
        let header = KnownHeader::default();
        let columns = match (schema, files.files.first()) {
            (Some(schema), first) => {
                check_read("read_csv", &schema)?;
                check_types(&schema)?;
                if let Some(path) = first {
                    read_header(Content::open(path)?, &schema, &options, &header)?;
                }
                schema
            }
            (None, Some(_)) => infer_schema(&files, &options)?,
            (None, None) => {
                return Err(Error::plan(format!(
                    "read_csv({}): there is no file yet to infer the columns from; give schema=",
                    files.paths
                )));
            }
        };
        options.check_names(&columns)?;
        Ok(CsvSource { files, options: Arc::new(options), schema: Arc::clone(&columns), columns, is_inferred, header })
    }
}

fn check_types(schema: &Schema) -> Result<()> {
    for field in schema.fields() {
        if !column::can_read(field.data_type()) {
            return Err(Error::schema(format!(
                "column {:?}: {} cannot be read from CSV; read it as text, or use JSON or Parquet",
                field.name(),
                mill_frame::words::with_article(type_name(field.data_type()))
            )));
        }
    }
    Ok(())
}

/// The columns that samples of the files show: their names from the first file that has a header, and their types from
/// all that are looked at. A file without records decides nothing.
fn infer_schema(files: &FileSet, options: &CsvOptions) -> Result<SchemaRef> {
    let mut columns: Vec<(String, Common)> = Vec::new();
    let mut add = |path: &Path, bytes: usize, pieces: u64| -> Result<bool> {
        let is_first = columns.is_empty();
        match infer_file(path, bytes, pieces, options) {
            Ok(found) if is_first => columns = found,
            Ok(found) => {
                for (name, common) in found {
                    match columns.iter_mut().find(|(other, _)| *other == name) {
                        Some((_, known)) => *known = std::mem::replace(known, Common::Nothing).and(common),
                        None if options.files.insert_missing_columns => columns.push((name, common)),
                        None => {}
                    }
                }
            }
            // Of another file only the types are wanted; what else is wrong with it is reported when it is read.
            Err(error) if is_first => return Err(error),
            Err(_) => {}
        }
        Ok(columns.iter().any(|(_, common)| *common != Common::Nothing))
    };
    let mut is_decided = false;
    for (path, bytes, pieces) in sample::chosen(&files.files) {
        is_decided = add(path, bytes, pieces)?;
    }
    let mut others = sample::others(&files.files);
    while !is_decided && let Some(path) = others.next() {
        is_decided = add(path, OTHERS_BYTES, 0)?;
    }
    if columns.is_empty() {
        let why = match options.skipped() {
            None => "is empty: there is nothing to infer the columns from".to_owned(),
            Some(skipped) => format!("has no line after those that {skipped} skips"),
        };
        return Err(Error::schema(format!("read_csv({}) {why}; give schema=", files.paths)));
    }
    let names: Vec<String> = columns.iter().map(|(name, _)| name.clone()).collect();
    files.check_chosen("read_csv", &names)?;
    // Without a header, columns are known by their place among all.
    if let (Some(chosen), true) = (files.chosen(), options.has_header) {
        columns.retain(|(name, _)| chosen.contains(name));
    }
    Ok(Arc::new(Schema::new(columns.iter().map(|(name, t)| Field::new(name, t.data_type(), true)).collect::<Vec<_>>())))
}

/// The names of a file's columns and what its samples have in common; nothing of an empty file.
fn infer_file(path: &Path, bytes: usize, pieces: u64, options: &CsvOptions) -> Result<Vec<(String, Common)>> {
    let dialect = options.dialect();
    let mut tokens = Tokens::default();
    let head = sample::head(path, bytes, |data| {
        let Ok(Some(begin)) = Begin::of(data, false, options, path) else { return false };
        let mut tokens = Tokens::default();
        tokenize(&data[begin.bytes..], dialect, None, false, 1, &mut tokens);
        tokens.records.len() + tokens.malformed.len() > 0
    })?;
    let Head { data, is_whole, .. } = &head;
    let Some(begin) = Begin::of(data, *is_whole, options, path)? else { return Ok(Vec::new()) };
    let data = &data[begin.bytes..];
    tokenize(data, dialect, begin.names.as_ref().map(Vec::len), *is_whole, usize::MAX, &mut tokens);
    let names = match begin.names {
        Some(names) => options.renamed(names, path)?,
        None if tokens.records.is_empty() => return Ok(Vec::new()),
        None => {
            let columns = tokens.fields.len() / tokens.records.len();
            options.renamed((1..=columns).map(|number| format!("column_{number}")).collect(), path)?
        }
    };
    let nulls: Vec<Vec<String>> = names.iter().map(|name| options.nulls_of(name).into_owned()).collect();
    let mut common = infer_columns(data, &tokens.fields, &nulls, options);
    for piece in sample::pieces(path, &head, pieces)? {
        // Whether a line begins within quotes cannot be seen from a piece that has any.
        if dialect.find_quote(&piece).is_some() {
            continue;
        }
        tokenize(&piece, dialect, Some(names.len()), true, usize::MAX, &mut tokens);
        let found = infer_columns(&piece, &tokens.fields, &nulls, options);
        common = common.into_iter().zip(found).map(|(known, found)| known.and(found)).collect();
    }
    Ok(names.into_iter().zip(common).collect())
}

impl CsvSource {
    /// The source as the options of all readers of files want it.
    ///
    /// # Errors
    /// When a column is named that it does not have; when partitions are not those of all files.
    pub fn with_options(self) -> Result<Arc<dyn Source>> {
        self.files.clone().apply(self)
    }
}

impl fmt::Debug for CsvSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

impl Source for CsvSource {
    fn name(&self) -> String {
        self.files.name("read_csv")
    }

    fn identity(&self) -> Option<String> {
        Some(self.files.identity("read_csv"))
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn properties(&self) -> SourceProperties {
        self.files.properties()
    }

    fn splits(&self, is_ordered: bool) -> Result<Vec<Split>> {
        self.files.splits_by(|path, found| cut_lines(path, is_ordered, |path| cut::can_cut(path, self.options.dialect()), found))
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
        let format = CsvFormat::new(self);
        self.files.open(split, position, format)
    }

    fn project(&self, columns: &[usize]) -> Option<Arc<dyn Source>> {
        let schema = Arc::new(self.schema.project(columns).ok()?);
        Some(Arc::new(CsvSource { schema, ..self.clone() }))
    }
}

/// The error for a file whose columns are not those of the schema.
fn other_columns(path: &Path, names: &[String], schema: &Schema, files: &FileOptions) -> Option<Error> {
    let (chosen, may_lack) = (files.columns.as_ref(), files.insert_missing_columns);
    let is_read = |name: &&str| chosen.is_none_or(|chosen| chosen.iter().any(|chosen| chosen == name));
    let expected: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).filter(is_read).collect();
    let found: Vec<&str> = names.iter().map(String::as_str).collect();
    if let Some(missing) = expected.iter().find(|name| !may_lack && !found.contains(name)) {
        let near = did_you_mean(missing, found.iter().copied().filter(|name| !expected.contains(name)));
        return Some(Error::schema(format!(
            "{path:?} has no column {missing:?}{near} (it has {}); missing_columns=\"insert\" reads null for it",
            quoted(&found, ", ")
        )));
    }
    let extra: Vec<&str> = found.iter().copied().filter(|name| !expected.contains(name)).collect();
    if extra.is_empty() || chosen.is_some() {
        return None;
    }
    let near = did_you_mean(extra[0], expected.iter().copied());
    Some(Error::schema(format!(
        "{path:?} has columns that the schema does not have: {}{near}; name those to read with columns=, or add \
         them to the schema",
        quoted(&extra, ", ")
    )))
}

#[cfg(test)]
mod tests;
