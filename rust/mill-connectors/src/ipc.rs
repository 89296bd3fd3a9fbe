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
mod pipe;
mod reader;

use std::collections::HashSet;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use mill_protocol::{Discovery, Error, Result, Source, SourceProperties, Split, SplitReader, SplitState};

use crate::columns::{columns_of, match_columns};
use crate::file::{FileIdentity, FileOptions, FileSet, FileSplit, Growth, Known, PathSpec};
use file::{Batch, OpenFile};
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
    pub fn open(paths: PathSpec, schema: Option<SchemaRef>, options: ArrowOptions) -> Result<Arc<dyn Source>> {
        if paths.is_pipe("read_arrow")? {
            let files = FileSet::new("read_arrow", paths, &options.files, String::new())?;
            return files.clone().apply(pipe::PipeSource::new(files, schema)?);
        }
        ArrowSource::new(paths, schema, options)?.with_options()
    }

    /// The same, without what all readers of files have, and of files alone.
    ///
    /// # Errors
    /// As [`open`](ArrowSource::open).
    pub fn new(paths: PathSpec, schema: Option<SchemaRef>, options: ArrowOptions) -> Result<ArrowSource> {
        let files = FileSet::new("read_arrow", paths, &options.files, String::new())?;
        let opened: Arc<Known<OpenFile>> = Arc::default();
        let schema_of_file = |path: &Path| open_file(&opened, path).map(|(_, file)| Arc::clone(&file.schema));
        let (schema, known) = columns_of("read_arrow", &files, schema, schema_of_file)?;
        Ok(ArrowSource { files, schema, known, opened })
    }

    /// The source as the options of all readers of files want it.
    ///
    /// # Errors
    /// When a column is named that it does not have; when partitions are not those of all files.
    pub fn with_options(self) -> Result<Arc<dyn Source>> {
        self.files.clone().apply(self)
    }

    fn open_file(&self, path: &Path) -> Result<(FileIdentity, Arc<OpenFile>)> {
        open_file(&self.opened, path)
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
                    "{path:?} has fewer batches than when the checkpoint was taken ({batches}): it is another file"
                )));
            }
        };
        Ok(Box::new(BatchReader::open(wanted, identity, Arc::clone(&file), range, passed)?))
    }
}

/// Opens a file, which is looked into only if it is not known yet.
fn open_file(opened: &Known<OpenFile>, path: &Path) -> Result<(FileIdentity, Arc<OpenFile>)> {
    opened.open(path, |identity| OpenFile::look(path, identity))
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
        self.files.splits_of_parts(is_ordered, |path| Ok(self.open_file(path)?.1.batches.iter().map(Batch::bytes).collect()))
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
