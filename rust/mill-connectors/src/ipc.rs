//! Arrow IPC: files, which are also called Feather, and streams.
//!
//! ```text
//!   file     ARROW1 [schema][batch 0][batch 1] … [footer: where dictionaries and batches are] ARROW1
//!   stream          [schema][batch 0][batch 1] … [end mark]
//!   split    whole when ordered or small; else runs of batches of some size
//! ```
//!
//! Only the columns asked for are decoded. The schema is one that holds the values of all files exactly, or the one declared,
//! as for [Parquet](crate::ParquetSource). A position is the number of rows of the split that were read.

mod file;
mod reader;

use std::collections::HashSet;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use mill_frame::types::check_fields;
use mill_protocol::{Discovery, Error, Result, Source, SourceProperties, Split, SplitReader, SplitState};

use crate::columns::{match_columns, schema_of};
use crate::file::{FileIdentity, FileOptions, FileSet, FileSplit, Growth, Known, PathSpec, range_bytes};
use crate::objects::check_read;
use file::OpenFile;
use reader::{BatchReader, Wanted};

/// With more files than this, rows are not counted beforehand.
const COUNTED_FILES_MAX: usize = 256;

/// How Arrow IPC is read.
#[derive(Clone, Debug, Default)]
pub struct ArrowOptions {
    /// What all readers of files have.
    pub files: FileOptions,
}

/// Arrow IPC files and streams as a source.
#[derive(Clone)]
pub struct ArrowSource {
    files: FileSet,
    schema: SchemaRef,
    /// The columns of the files that were looked at, where the user has named none: a file with another one is refused.
    known: Option<Arc<HashSet<String>>>,
    opened: Arc<Known<OpenFile>>,
}

impl ArrowSource {
    /// The rows of these files; with a schema only its columns, in its types.
    ///
    /// # Errors
    /// When a file does not exist or is not Arrow IPC; when columns or types of the files do not go together, or are not
    /// those of the schema.
    pub fn new(paths: PathSpec, schema: Option<SchemaRef>, options: ArrowOptions) -> Result<ArrowSource> {
        let files = FileSet::new("read_arrow", paths, &options.files, String::new())?;
        let is_declared = schema.is_some();
        schema.as_ref().map_or(Ok(()), |schema| check_read("read_arrow", schema))?;
        let schema = schema.unwrap_or_else(|| Arc::new(Schema::empty()));
        let mut source = ArrowSource { files, schema, known: None, opened: Arc::default() };
        match source.files.files.first().cloned() {
            Some(path) if is_declared => {
                check_fields(source.schema.fields()).map_err(|e| Error::schema(e.to_string()))?;
                let (_, file) = source.open_file(&path)?;
                match_columns(&path, &source.schema, &file.schema, None, source.files.inserts_missing_columns())?;
            }
            None if is_declared => {}
            Some(_) => {
                let schema_of_file = |path: &Path| source.open_file(path).map(|(_, file)| Arc::clone(&file.schema));
                source.schema = schema_of(&source.files.files, source.files.inserts_missing_columns(), schema_of_file)?;
                let names = source.schema.fields().iter().map(|field| field.name().clone());
                source.known = Some(Arc::new(names.collect()));
            }
            None => {
                return Err(Error::plan(format!(
                    "read_arrow({}): there is no file yet to take the columns from; give schema=",
                    source.files.paths
                )));
            }
        }
        Ok(source)
    }

    /// The source as the options of all readers of files want it.
    ///
    /// # Errors
    /// When a column is named that it does not have; when partitions are not those of all files.
    pub fn with_options(self) -> Result<Arc<dyn Source>> {
        self.files.clone().apply(self)
    }

    fn open_file(&self, path: &Path) -> Result<(FileIdentity, Arc<OpenFile>)> {
        self.opened.open(path, |identity| OpenFile::look(path, identity))
    }

    /// Opens a file or a range of its batches after so many of the rows.
    fn open_at(&self, path: &Path, range: Option<(u64, u64)>, passed: u64) -> Result<Box<dyn SplitReader>> {
        let (identity, file) = self.open_file(path)?;
        let places = match_columns(path, &self.schema, &file.schema, self.known.as_deref(), self.files.inserts_missing_columns())?;
        let is_missing = places.iter().map(Option::is_none).collect();
        let mut places: Vec<usize> = places.into_iter().flatten().collect();
        places.sort_unstable();
        let wanted = Wanted { path: path.to_owned(), schema: Arc::clone(&self.schema), places, is_missing };
        let batches = file.batches.len();
        let range = match range {
            None => 0..batches,
            Some((start, end)) if end <= batches as u64 => start as usize..end as usize,
            Some(_) => {
                return Err(Error::connector(format!(
                    "{path:?} has only {batches} batches: it is another file than when the checkpoint was taken"
                )));
            }
        };
        Ok(Box::new(BatchReader::open(wanted, identity, Arc::clone(&file), range, passed)?))
    }

    /// Runs of batches of about [`range_bytes`]; none for a file that is smaller than that.
    fn ranges(&self, path: &Path) -> Result<Vec<(u64, u64)>> {
        let size = std::fs::metadata(path).map_err(|e| Error::connector(format!("cannot stat {path:?}: {e}")).because(e))?;
        let range_bytes = range_bytes(size.len());
        if size.len() <= range_bytes {
            return Ok(Vec::new());
        }
        let (_, file) = self.open_file(path)?;
        let batches = &file.batches;
        let mut ranges = Vec::new();
        let (mut start, mut bytes) = (0, 0);
        for (index, batch) in batches.iter().enumerate() {
            bytes += batch.bytes();
            if bytes >= range_bytes {
                ranges.push((start, index as u64 + 1));
                (start, bytes) = (index as u64 + 1, 0);
            }
        }
        if start < batches.len() as u64 {
            ranges.push((start, batches.len() as u64));
        }
        Ok(ranges)
    }
}

impl fmt::Debug for ArrowSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

impl Source for ArrowSource {
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

    fn splits(&self, is_ordered: bool) -> Result<Vec<Split>> {
        self.files.splits_by(|path, found| {
            let ranges = if is_ordered { Vec::new() } else { self.ranges(path)? };
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
        Some(Arc::new(ArrowSource { schema, ..self.clone() }))
    }

    fn rows_hint(&self) -> Option<u64> {
        if self.files.is_followed || self.files.files.len() > COUNTED_FILES_MAX {
            return None;
        }
        let rows = self.files.files.iter().map(|path| {
            let (_, file) = self.open_file(path).ok()?;
            Some(file.batches.iter().map(|batch| batch.rows).sum::<u64>())
        });
        rows.sum()
    }
}
