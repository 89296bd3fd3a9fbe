//! Parquet files.
//!
//! ```text
//!   file   [row group 0][row group 1][row group 2] … [footer]
//!   split  whole file when ordered or small; else runs of row groups of some size
//! ```
//!
//! Only the columns asked for are read, page by page, so memory follows the page size and not the file's; and of rows that
//! cannot meet the conditions told, as little as possible ([`reader`], [`prune`]). The schema is that of the first file,
//! with text and binary in their plain layouts; other files must have its columns by name, and are cast where their types
//! differ. A position is the number of rows of the split that lie behind the reader; the fingerprint covers the file's
//! end, which in Parquet names everything in the file.

mod prune;
mod reader;

use std::collections::HashMap;
use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ::parquet::arrow::RowNumber;
use ::parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use ::parquet::file::metadata::PageIndexPolicy;
use arrow::compute::can_cast_types;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use mill_protocol::{Condition, Discovery, Error, Result, Source, SourceProperties, Split, SplitReader, SplitState};

use crate::file::{FileIdentity, FileSet, FileSplit, Growth, PathSpec, range_bytes};
use crate::nearest::{did_you_mean, quoted};
use prune::Told;
use reader::ParquetReader;

/// With more files than this, rows are not counted beforehand.
const COUNTED_FILES_MAX: usize = 256;
/// Of so many files the footers are kept, so that a file is not asked again for each of its splits.
const FOOTERS_MAX: usize = 64;
/// The column of row numbers, where they are asked for.
const ROW_COLUMN: &str = "\0row";

/// How Parquet is read.
#[derive(Clone, Debug, Default)]
pub struct ParquetOptions {
    /// Whether to go on with new files, without end.
    pub follow: bool,
}

/// Parquet files as a source.
#[derive(Clone)]
pub struct ParquetSource {
    files: FileSet,
    schema: SchemaRef,
    told: Told,
    footers: Arc<Mutex<HashMap<PathBuf, Arc<OpenFile>>>>,
}

/// What is known of a file once its footer was read.
struct OpenFile {
    /// Device, inode, size and time of change: another file has others.
    stamp: (u64, u64, u64, i64, i64),
    /// Text and binary in their plain layouts at once, rather than cast later.
    metadata: ArrowReaderMetadata,
    /// The same with row numbers.
    with_rows: ArrowReaderMetadata,
    has_row_numbers: bool,
}

impl ParquetSource {
    /// The rows of these files; with a schema only its columns, cast to its types.
    ///
    /// # Errors
    /// When a file does not exist or is not Parquet; when the schema names a column that the first file does not have.
    pub fn new(paths: PathSpec, schema: Option<SchemaRef>, options: ParquetOptions) -> Result<ParquetSource> {
        let files = FileSet::new(paths, options.follow)?;
        let schema = match (schema, files.files.first()) {
            (Some(schema), None) => schema,
            (Some(schema), Some(path)) => {
                match_columns(path, &schema, &open_metadata(path)?)?;
                schema
            }
            (None, Some(path)) => {
                let metadata = open_metadata(path)?;
                let fields: Fields = metadata.schema().fields().iter().map(plain_field).collect();
                Arc::new(Schema::new(fields))
            }
            (None, None) => {
                return Err(Error::plan(format!(
                    "read_parquet({}): there is no file yet to take the columns from; give schema=",
                    files.paths
                )));
            }
        };
        Ok(ParquetSource { files, schema, told: Told::default(), footers: Arc::default() })
    }

    /// Opens a file, whose footer is read only if it is not known yet.
    fn open_file(&self, path: &Path) -> Result<(FileIdentity, Arc<OpenFile>)> {
        let identity = FileIdentity::open(path)?;
        let found = identity.file().metadata();
        let found = found.map_err(|e| Error::connector(format!("cannot stat {path:?}: {e}")).because(e))?;
        let stamp = (found.dev(), found.ino(), found.size(), found.mtime(), found.mtime_nsec());
        // Each change is a single insertion or removal, so a panic elsewhere leaves the map whole.
        let footers = || self.footers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = footers().get(path).filter(|file| file.stamp == stamp) {
            return Ok((identity, Arc::clone(file)));
        }
        let metadata = read_footer(path, &identity, !self.told.conditions.is_empty())?;
        let failed = |e: ::parquet::errors::ParquetError| {
            Error::connector(format!("cannot read {path:?} in plain layouts: {e}")).because(e)
        };
        let fields: Fields = metadata.schema().fields().iter().map(|field| relaid(field)).collect();
        let plain = Arc::new(Schema::new_with_metadata(fields, metadata.schema().metadata().clone()));
        let options = ArrowReaderOptions::new();
        let options = if plain == *metadata.schema() { options } else { options.with_schema(plain) };
        let numbered = Field::new(ROW_COLUMN, DataType::Int64, false).with_extension_type(RowNumber);
        let with_rows = options.clone().with_virtual_columns(vec![Arc::new(numbered)]).map_err(failed)?;
        let whole = Arc::clone(metadata.metadata());
        let file = Arc::new(OpenFile {
            stamp,
            has_row_numbers: whole.row_groups().iter().all(|group| group.ordinal().is_some()),
            metadata: ArrowReaderMetadata::try_new(Arc::clone(&whole), options).map_err(failed)?,
            with_rows: ArrowReaderMetadata::try_new(whole, with_rows).map_err(failed)?,
        });
        let mut footers = footers();
        if footers.len() >= FOOTERS_MAX {
            footers.clear();
        }
        footers.insert(path.to_owned(), Arc::clone(&file));
        Ok((identity, file))
    }

    /// Opens a file or a range of its row groups after so many of the rows.
    fn open_at(&self, path: &Path, range: Option<(u64, u64)>, passed: u64) -> Result<Box<dyn SplitReader>> {
        let (identity, file) = self.open_file(path)?;
        let metadata = file.metadata.metadata();
        let places = match_columns(path, &self.schema, &file.metadata)?;
        let groups = metadata.num_row_groups();
        let groups = match range {
            None => 0..groups,
            Some((start, end)) if end <= groups as u64 => start as usize..end as usize,
            Some(_) => {
                return Err(Error::connector(format!(
                    "{path:?} has only {groups} row groups: it is another file than when the checkpoint was taken"
                )));
            }
        };
        let rows = groups.clone().map(|group| metadata.row_group(group).num_rows() as u64).sum();
        let pruning = reader::pruning(&file, &self.schema, &self.told)?;
        let schema = Arc::clone(&self.schema);
        let path = path.to_owned();
        Ok(Box::new(ParquetReader { path, identity, file, schema, places, groups, pruning, rows, passed, run: None }))
    }

    /// Runs of row groups of about [`range_bytes`] on disk; none for a file that is smaller than that.
    fn row_group_ranges(&self, path: &Path) -> Result<Vec<(u64, u64)>> {
        let size = std::fs::metadata(path).map_err(|e| Error::connector(format!("cannot stat {path:?}: {e}")).because(e))?;
        let range_bytes = range_bytes(size.len());
        if size.len() <= range_bytes {
            return Ok(Vec::new());
        }
        let (_, file) = self.open_file(path)?;
        let metadata = file.metadata.metadata();
        let mut ranges = Vec::new();
        let (mut start, mut bytes) = (0, 0);
        for (index, group) in metadata.row_groups().iter().enumerate() {
            bytes += group.compressed_size().max(0) as u64;
            if bytes >= range_bytes {
                ranges.push((start, index as u64 + 1));
                (start, bytes) = (index as u64 + 1, 0);
            }
        }
        let end = metadata.num_row_groups() as u64;
        if start < end {
            ranges.push((start, end));
        }
        Ok(ranges)
    }
}

/// A field with text and binary in their plain layouts, at any depth.
fn plain_field(field: &FieldRef) -> FieldRef {
    let plain = Field::new(field.name(), plain_type(field.data_type()), true);
    Arc::new(plain.with_metadata(field.metadata().clone()))
}

fn plain_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView => DataType::Binary,
        DataType::List(item) | DataType::LargeList(item) | DataType::ListView(item) | DataType::LargeListView(item) => {
            DataType::List(plain_field(item))
        }
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(plain_field).collect()),
        DataType::Dictionary(key, value) => DataType::Dictionary(key.clone(), Box::new(plain_type(value))),
        other => other.clone(),
    }
}

fn open_metadata(path: &Path) -> Result<ArrowReaderMetadata> {
    read_footer(path, &FileIdentity::open(path)?, false)
}

/// Reads the footer, with the index of pages if it is wanted and there.
fn read_footer(path: &Path, identity: &FileIdentity, has_pages: bool) -> Result<ArrowReaderMetadata> {
    let policy = if has_pages { PageIndexPolicy::Optional } else { PageIndexPolicy::Skip };
    ArrowReaderMetadata::load(identity.file(), ArrowReaderOptions::new().with_page_index_policy(policy)).map_err(|e| {
        Error::connector(format!(
            "{path:?} is not a complete Parquet file; write such files under a name beginning with '.' and rename them \
             when they are complete: {e}"
        ))
        .because(e)
    })
}

/// For each column of the schema its place in the file.
fn match_columns(path: &Path, schema: &Schema, metadata: &ArrowReaderMetadata) -> Result<Vec<usize>> {
    let found = metadata.schema().fields();
    let names: Vec<&str> = found.iter().map(|field| field.name().as_str()).collect();
    let mut places = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        let Some(place) = names.iter().position(|name| name == field.name()) else {
            let near = did_you_mean(field.name(), names.iter().copied());
            return Err(Error::schema(format!(
                "{path:?} has no column {:?}{near} (it has {})",
                field.name(),
                quoted(&names, ", ")
            )));
        };
        let from = found[place].data_type();
        if from != field.data_type() && !can_cast_types(from, field.data_type()) {
            return Err(Error::schema(format!(
                "{path:?}: column {:?} is {from} and cannot be read as {}",
                field.name(),
                field.data_type()
            )));
        }
        places.push(place);
    }
    Ok(places)
}

impl fmt::Debug for ParquetSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

impl Source for ParquetSource {
    fn name(&self) -> String {
        let mut name =
            format!("read_parquet({}{})", self.files.paths, if self.files.is_followed { ", follow=True" } else { "" });
        for (i, condition) in self.told.conditions.iter().enumerate() {
            name.push_str(&format!(" {} {condition}", if i == 0 { "where" } else { "and" }));
        }
        name
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn properties(&self) -> SourceProperties {
        self.files.properties()
    }

    fn splits(&self, is_ordered: bool) -> Result<Vec<Split>> {
        self.files.splits_by(|path, found| {
            let ranges = if is_ordered { Vec::new() } else { self.row_group_ranges(path)? };
            let whole = FileSplit::whole(path.to_owned());
            if ranges.len() <= 1 {
                found.push(whole);
            } else {
                found.extend(ranges.into_iter().map(|range| FileSplit { range: Some(range), ..whole.clone() }));
            }
            Ok(())
        })
    }

    fn resume(&self, is_ordered: bool, left: Vec<SplitState>) -> Result<Vec<SplitState>> {
        self.files.resume(self.splits(is_ordered)?, left, Growth::None)
    }

    fn discovery(&self, begun_with: &[SplitState]) -> Result<Option<Box<dyn Discovery>>> {
        self.files.discovery(begun_with)
    }

    fn reads(&self, path: &Path) -> bool {
        self.files.paths.has(path)
    }

    fn open(&self, split: &Split, position: Option<&[u8]>) -> Result<Box<dyn SplitReader>> {
        let (source, range) = (self.clone(), FileSplit::of(split)?.range);
        self.files.open_whole(split, position, Box::new(move |path, passed| source.open_at(path, range, passed)))
    }

    fn project(&self, columns: &[usize]) -> Option<Arc<dyn Source>> {
        let schema = Arc::new(self.schema.project(columns).ok()?);
        Some(Arc::new(ParquetSource { schema, ..self.clone() }))
    }

    fn filter(&self, conditions: &[Condition]) -> Option<Arc<dyn Source>> {
        Some(Arc::new(ParquetSource { told: Told::new(conditions), footers: Arc::default(), ..self.clone() }))
    }

    fn rows_hint(&self) -> Option<u64> {
        if self.files.is_followed || self.files.files.len() > COUNTED_FILES_MAX || !self.told.conditions.is_empty() {
            return None;
        }
        let rows = self.files.files.iter().map(|path| {
            self.open_file(path).ok().map(|(_, file)| file.metadata.metadata().file_metadata().num_rows() as u64)
        });
        rows.sum()
    }
}

/// A field of the file with text and binary in their plain layouts; nullability as the file has it.
fn relaid(field: &FieldRef) -> FieldRef {
    let relaid = Field::clone(field).with_data_type(match field.data_type() {
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView => DataType::Binary,
        other => other.clone(),
    });
    Arc::new(relaid)
}

#[cfg(test)]
mod tests;
