//! Parquet files.
//!
//! ```text
//!   file   [row group 0][row group 1][row group 2] … [footer]
//!   split  whole file when ordered or small; else runs of row groups of some size
//! ```
//!
//! Only the columns asked for are read, page by page, so memory follows the page size and not the file's; and of rows that
//! cannot meet the conditions told, as little as possible ([`reader`], [`prune`]). The schema is one that holds the values
//! of all files exactly ([`columns`](crate::columns)), or the one declared; a file whose types differ is converted where each value survives
//! that, and is an error that names file, row, column and value where one does not. A position is the number of rows of the split that were read; the fingerprint covers the file's
//! end, which in Parquet names everything in the file.

mod footer;
mod int96;
mod layout;
mod mend;
mod prune;
mod reader;

use std::collections::HashSet;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use mill_protocol::{Condition, Discovery, Error, Result, Source, SourceProperties, Split, SplitReader, SplitState};

use crate::columns::{columns_of, match_columns};
use crate::file::{FileIdentity, FileOptions, FileSet, FileSplit, Growth, Known, PathSpec};
use footer::OpenFile;
use prune::Told;
use reader::{DECODED_ROWS, ParquetReader};

/// With more files than this, rows are not counted beforehand.
const COUNTED_FILES_MAX: usize = 256;
/// The column of row numbers, where they are asked for.
const ROW_COLUMN: &str = "\0row";

/// How Parquet is read.
#[derive(Clone, Debug, Default)]
pub struct ParquetOptions {
    /// What all readers of files have.
    pub files: FileOptions,
}

/// Parquet files as a source.
#[derive(Clone)]
pub struct ParquetSource {
    files: FileSet,
    schema: SchemaRef,
    /// The columns of the files that were looked at, where the user has named none: a file with another one is refused.
    known: Option<Arc<HashSet<String>>>,
    told: Told,
    footers: Arc<Known<OpenFile>>,
}

impl ParquetSource {
    /// The rows of these files; with a schema only its columns, in its types.
    ///
    /// # Errors
    /// When a file does not exist or is not Parquet; when columns or types of the files do not go together, or are not
    /// those of the schema.
    pub fn new(paths: PathSpec, schema: Option<SchemaRef>, options: ParquetOptions) -> Result<ParquetSource> {
        if paths.is_pipe("read_parquet")? {
            return Err(Error::plan(
                "read_parquet(\"-\"): Parquet is read from its end, and standard input has none before it ends: write it into a file \
                 first, or send Arrow and use read_arrow(\"-\")",
            ));
        }
        let files = FileSet::new("read_parquet", paths, &options.files, String::new())?;
        let (told, footers) = (Told::default(), Arc::<Known<OpenFile>>::default());
        let schema_of_file = |path: &Path| open_file(&footers, path, false).map(|(_, file)| Arc::clone(&file.schema));
        let (schema, known) = columns_of("read_parquet", &files, schema, schema_of_file)?;
        Ok(ParquetSource { files, schema, known, told, footers })
    }

    fn open_file(&self, path: &Path) -> Result<(FileIdentity, Arc<OpenFile>)> {
        open_file(&self.footers, path, !self.told.conditions.is_empty())
    }

    /// Opens a file or a range of its row groups after so many of the rows.
    fn open_at(&self, path: &Path, range: Option<(u64, u64)>, passed: u64) -> Result<Box<dyn SplitReader>> {
        let (identity, file) = self.open_file(path)?;
        let metadata = file.metadata.metadata();
        let places = match_columns(path, &self.schema, &file.schema, self.known.as_deref(), self.files.inserts_missing_columns())?;
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
        let is_missing = places.iter().map(Option::is_none).collect();
        let places = places.into_iter().flatten().collect();
        let rows = groups.clone().map(|group| metadata.row_group(group).num_rows() as u64).sum();
        let pruning = reader::pruning(path, &file, &self.schema, &self.told)?;
        let schema = Arc::clone(&self.schema);
        let path = path.to_owned();
        let first = (0..groups.start).map(|group| metadata.row_group(group).num_rows() as u64).sum();
        let (run, decoded_rows) = (None, DECODED_ROWS);
        Ok(Box::new(ParquetReader {
            path,
            identity,
            file,
            schema,
            places,
            is_missing,
            groups,
            pruning,
            first,
            rows,
            passed,
            run,
            decoded_rows,
        }))
    }
}

/// Opens a file, whose footer is read only if it is not known yet.
fn open_file(footers: &Known<OpenFile>, path: &Path, has_pages: bool) -> Result<(FileIdentity, Arc<OpenFile>)> {
    footers.open(path, |identity| footer::read(path, identity, has_pages))
}

impl ParquetSource {
    /// The source as the options of all readers of files want it.
    ///
    /// # Errors
    /// When a column is named that it does not have; when partitions are not those of all files.
    pub fn with_options(self) -> Result<Arc<dyn Source>> {
        self.files.clone().apply(self)
    }
}

impl fmt::Debug for ParquetSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

impl Source for ParquetSource {
    fn name(&self) -> String {
        let mut name = self.files.name("read_parquet");
        for (i, condition) in self.told.conditions.iter().enumerate() {
            name.push_str(&format!(" {} {condition}", if i == 0 { "where" } else { "and" }));
        }
        name
    }

    fn identity(&self) -> Option<String> {
        Some(self.files.identity("read_parquet"))
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn properties(&self) -> SourceProperties {
        self.files.properties()
    }

    fn splits(&self, is_ordered: bool) -> Result<Vec<Split>> {
        self.files.splits_of_parts(is_ordered, |path| {
            let (_, file) = self.open_file(path)?;
            Ok(file.metadata.metadata().row_groups().iter().map(|group| group.compressed_size().max(0) as u64).collect())
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

#[cfg(test)]
mod tests;
