//! Parquet files.
//!
//! ```text
//!   file   [row group 0][row group 1][row group 2] … [footer]
//!   split  whole file when ordered or small; else runs of row groups of some size
//! ```
//!
//! Only the columns asked for are read, page by page, so memory follows the page size and not the file's. The schema is
//! that of the first file, with text and binary in their plain layouts; other files must have its columns by name, and
//! are cast where their types differ. A position is the number of rows given in the split; the fingerprint covers the
//! file's end, which in Parquet names everything in the file.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::parquet::arrow::ProjectionMask;
use ::parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::{CastOptions, can_cast_types, cast_with_options};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use mill_protocol::{Error, Position, Read, Result, Source, SourceProperties, Split, SplitReader};

use crate::file::{FileIdentity, FilePosition, FileSet, FileSplit, PathSpec, range_bytes};
use crate::nearest::{did_you_mean, quoted};

/// With more files than this, rows are not counted beforehand.
const COUNTED_FILES_MAX: usize = 256;

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
                match_columns(path, &schema, &open_metadata(path)?.1)?;
                schema
            }
            (None, Some(path)) => {
                let (_, metadata) = open_metadata(path)?;
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
        Ok(ParquetSource { files, schema })
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

fn open_metadata(path: &Path) -> Result<(FileIdentity, ArrowReaderMetadata)> {
    let identity = FileIdentity::open_whole(path)?;
    let metadata = ArrowReaderMetadata::load(identity.file(), ArrowReaderOptions::new()).map_err(|e| {
        Error::connector(format!(
            "{path:?} is not a complete Parquet file; write such files under a name beginning with '.' and rename them \
             when they are complete: {e}"
        ))
        .because(e)
    })?;
    Ok((identity, metadata))
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
        format!("read_parquet({}{})", self.files.paths, if self.files.is_followed { ", follow=True" } else { "" })
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn properties(&self) -> SourceProperties {
        self.files.properties()
    }

    fn splits(&self, is_ordered: bool) -> Result<Vec<Split>> {
        let mut splits = Vec::new();
        for path in self.files.current()? {
            let ranges = if is_ordered { Vec::new() } else { row_group_ranges(&path)? };
            if ranges.len() <= 1 {
                splits.push(FileSplit { path, range: None }.to_split()?);
                continue;
            }
            for range in ranges {
                splits.push(FileSplit { path: path.clone(), range: Some(range) }.to_split()?);
            }
        }
        Ok(splits)
    }

    fn open(&self, split: &Split, position: Option<&[u8]>) -> Result<Box<dyn SplitReader>> {
        let FileSplit { path, range } = FileSplit::of(split);
        let (identity, metadata) = open_metadata(&path)?;
        let places = match_columns(&path, &self.schema, &metadata)?;
        let groups = metadata.metadata().num_row_groups();
        let groups = match range {
            None => 0..groups,
            Some((start, end)) if end <= groups as u64 => start as usize..end as usize,
            Some(_) => {
                return Err(Error::connector(format!(
                    "{path:?} has only {groups} row groups: it is another file than when the checkpoint was taken"
                )));
            }
        };
        let given = match position {
            None => 0,
            Some(bytes) => {
                let position = FilePosition::decode(bytes, &split.name)?;
                identity.verify(&position)?;
                position.offset
            }
        };
        let rows = groups.clone().map(|group| metadata.metadata().row_group(group).num_rows() as u64).sum();
        Ok(Box::new(ParquetReader {
            path,
            identity,
            metadata,
            schema: Arc::clone(&self.schema),
            places,
            groups: groups.collect(),
            rows,
            given,
            reader: None,
        }))
    }

    fn project(&self, columns: &[usize]) -> Option<Arc<dyn Source>> {
        let schema = Arc::new(self.schema.project(columns).ok()?);
        Some(Arc::new(ParquetSource { files: self.files.clone(), schema }))
    }

    fn rows_hint(&self) -> Option<u64> {
        if self.files.is_followed || self.files.files.len() > COUNTED_FILES_MAX {
            return None;
        }
        let rows = self.files.files.iter().map(|path| {
            open_metadata(path).ok().map(|(_, metadata)| metadata.metadata().file_metadata().num_rows() as u64)
        });
        rows.sum()
    }
}

/// Runs of row groups of about [`range_bytes`] on disk; none for a file that is smaller than that.
fn row_group_ranges(path: &Path) -> Result<Vec<(u64, u64)>> {
    let size = std::fs::metadata(path).map_err(|e| Error::connector(format!("cannot stat {path:?}: {e}")).because(e))?;
    let range_bytes = range_bytes(size.len());
    if size.len() <= range_bytes {
        return Ok(Vec::new());
    }
    let (_, metadata) = open_metadata(path)?;
    let mut ranges = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (index, group) in metadata.metadata().row_groups().iter().enumerate() {
        bytes += group.compressed_size().max(0) as u64;
        if bytes >= range_bytes {
            ranges.push((start, index as u64 + 1));
            (start, bytes) = (index as u64 + 1, 0);
        }
    }
    let end = metadata.metadata().num_row_groups() as u64;
    if start < end {
        ranges.push((start, end));
    }
    Ok(ranges)
}

struct ParquetReader {
    path: PathBuf,
    identity: FileIdentity,
    metadata: ArrowReaderMetadata,
    schema: SchemaRef,
    /// For each column of the schema its place in the file.
    places: Vec<usize>,
    groups: Vec<usize>,
    /// Rows of the split, and how many were given.
    rows: u64,
    given: u64,
    reader: Option<ParquetRecordBatchReader>,
}

impl ParquetReader {
    /// Opens the columns at the row that comes next.
    fn start(&self, rows_max: usize) -> Result<ParquetRecordBatchReader> {
        let failed = |e: ::parquet::errors::ParquetError| {
            Error::connector(format!("cannot read {:?}: {e}", self.path)).because(e)
        };
        // Text is decoded in its plain layout at once, rather than cast later.
        let found = self.metadata.schema();
        let fields: Fields = found.fields().iter().map(|field| relaid(field)).collect();
        let wanted = Arc::new(Schema::new_with_metadata(fields, found.metadata().clone()));
        let metadata = if wanted == *found {
            self.metadata.clone()
        } else {
            let options = ArrowReaderOptions::new().with_schema(wanted);
            ArrowReaderMetadata::try_new(Arc::clone(self.metadata.metadata()), options).map_err(failed)?
        };
        let file = self.identity.file().try_clone().map_err(|e| {
            Error::connector(format!("cannot open {:?} once more: {e}", self.path)).because(e)
        })?;
        let mask = ProjectionMask::roots(metadata.parquet_schema(), self.places.iter().copied());
        ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata)
            .with_projection(mask)
            .with_row_groups(self.groups.clone())
            .with_offset(self.given as usize)
            .with_batch_size(rows_max)
            .build()
            .map_err(failed)
    }

    /// The columns in the order and types of the schema.
    fn fit(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.places.len());
        for field in self.schema.fields() {
            let column = batch
                .column_by_name(field.name())
                .ok_or_else(|| Error::internal(format!("column {:?} was projected away", field.name())))?;
            if column.data_type() == field.data_type() {
                columns.push(Arc::clone(column));
                continue;
            }
            let options = CastOptions { safe: false, ..CastOptions::default() };
            columns.push(cast_with_options(column, field.data_type(), &options).map_err(|e| {
                Error::data(format!("{:?}: column {:?} cannot be cast: {e}", self.path, field.name())).because(e)
            })?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)
            .map_err(|e| Error::schema(format!("{:?} does not fit its schema: {e}", self.path)).because(e))
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

impl SplitReader for ParquetReader {
    fn next(&mut self, rows_max: usize) -> Result<Read> {
        if self.given >= self.rows {
            return Ok(Read::End);
        }
        let mut reader = match self.reader.take() {
            Some(reader) => reader,
            None => self.start(rows_max.max(1))?,
        };
        let batch = match reader.next() {
            None => {
                return Err(Error::connector(format!(
                    "{:?} ended after {} of {} rows: the file is damaged or was replaced while it was read",
                    self.path, self.given, self.rows
                )));
            }
            Some(batch) => batch.map_err(|e| Error::connector(format!("cannot read {:?}: {e}", self.path)).because(e))?,
        };
        let batch = self.fit(&batch)?;
        self.given += batch.num_rows() as u64;
        self.reader = Some(reader);
        Ok(Read::Batch(batch))
    }

    fn position(&self) -> Position {
        self.identity.position(self.given).encode()
    }
}

#[cfg(test)]
mod tests;
