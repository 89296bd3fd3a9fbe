//! Reads the rows of some row groups, without those that conditions rule out.
//!
//! ```text
//!   row groups   [0 ruled out][1][2][3 ruled out][4]     by the least and greatest values in the footer
//!   runs                      [─────]            [─]     read one after another, a Parquet reader each
//!   within a run     pages, by their least and greatest values ─► columns of conditions ─► rows that meet them
//!                    ─► the other columns of these rows
//! ```
//!
//! The position is the number of rows of the split that lie behind the reader, whether they were given or left out. In a
//! run with conditions it follows from the number of the last row given, which the Parquet reader tells as a column more.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use ::parquet::arrow::ProjectionMask;
use ::parquet::arrow::arrow_reader::{
    ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder, RowSelection, RowSelector,
};
use ::parquet::errors::ParquetError;
use arrow::array::{ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{Int64Type, SchemaRef};
use mill_protocol::{Error, Position, Read, Result, SplitReader};

use super::prune::{self, Pruning};
use super::{OpenFile, ROW_COLUMN};
use crate::file::FileIdentity;

/// A run with conditions ends behind about so many rows: their columns are read for all of them before the first is given.
const RUN_ROWS: u64 = 128 << 10;

pub(super) struct ParquetReader {
    pub(super) path: PathBuf,
    pub(super) identity: FileIdentity,
    pub(super) file: Arc<OpenFile>,
    pub(super) schema: SchemaRef,
    /// For each column of the schema its place in the file.
    pub(super) places: Vec<usize>,
    pub(super) groups: Range<usize>,
    pub(super) pruning: Pruning,
    /// Rows of the split, and how many lie behind the reader.
    pub(super) rows: u64,
    pub(super) passed: u64,
    pub(super) run: Option<Run>,
}

/// Row groups that are being read.
pub(super) struct Run {
    reader: ParquetRecordBatchReader,
    /// Rows of the split up to its end.
    end: u64,
    is_filtered: bool,
}

impl ParquetReader {
    fn failed(&self, error: ParquetError) -> Error {
        Error::connector(format!("cannot read {:?}: {error}", self.path)).because(error)
    }

    fn rows_of(&self, group: usize) -> u64 {
        self.file.metadata.metadata().row_group(group).num_rows().max(0) as u64
    }

    /// Passes row groups that are ruled out, and opens those that come next; `None` at the end.
    fn start(&mut self, rows_max: usize) -> Result<Option<Run>> {
        let (mut group, mut start) = (self.groups.start, 0);
        while group < self.groups.end {
            let end = start + self.rows_of(group);
            if self.passed < end && !self.pruning.is_ruled_out(group) {
                break;
            }
            self.passed = self.passed.max(end);
            (group, start) = (group + 1, end);
        }
        if group == self.groups.end {
            return Ok(None);
        }
        let is_filtered = self.pruning.is_worth_filtering();
        let (mut last, mut end) = (group, start);
        while last < self.groups.end
            && !self.pruning.is_ruled_out(last)
            && (!is_filtered || last == group || end - self.passed < RUN_ROWS)
        {
            end += self.rows_of(last);
            last += 1;
        }
        let file = self.identity.file().try_clone().map_err(|e| {
            Error::connector(format!("cannot open {:?} once more: {e}", self.path)).because(e)
        })?;
        let metadata = if is_filtered { &self.file.with_rows } else { &self.file.metadata };
        let mask = ProjectionMask::roots(metadata.parquet_schema(), self.places.iter().copied());
        let mut builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata.clone())
            .with_projection(mask)
            .with_row_groups((group..last).collect())
            .with_batch_size(rows_max);
        if let Some(selection) = self.selection(group..last, start, is_filtered)? {
            builder = builder.with_row_selection(selection);
        }
        if is_filtered {
            builder = builder.with_row_filter(self.pruning.row_filter(metadata.parquet_schema()));
        }
        let reader = builder.build().map_err(|e| self.failed(e))?;
        Ok(Some(Run { reader, end, is_filtered }))
    }

    /// The rows to be looked at in these row groups, of which the first begins behind `start` rows of the split; `None` for
    /// all.
    fn selection(&self, groups: Range<usize>, start: u64, is_filtered: bool) -> Result<Option<RowSelection>> {
        let rows = groups.clone().map(|group| self.rows_of(group)).sum::<u64>() as usize;
        let skipped = (self.passed - start) as usize;
        let not_passed = (skipped > 0)
            .then(|| RowSelection::from(vec![RowSelector::skip(skipped), RowSelector::select(rows - skipped)]));
        if !is_filtered {
            return Ok(not_passed);
        }
        let mut selectors: Vec<RowSelector> = Vec::new();
        for group in groups {
            match self.pruning.pages(group).map_err(|e| self.failed(e))? {
                Some(pages) => selectors.extend(Vec::from(pages)),
                None => selectors.push(RowSelector::select(self.rows_of(group) as usize)),
            }
        }
        let pages = RowSelection::from(selectors);
        Ok(Some(match not_passed {
            None => pages,
            Some(not_passed) => pages.intersection(&not_passed),
        }))
    }

    /// How many rows of the split lie up to the last row of this batch.
    fn passed_by(&self, batch: &RecordBatch) -> Result<u64> {
        let first = (0..self.groups.start).map(|group| self.rows_of(group)).sum::<u64>();
        let rows = batch.column_by_name(ROW_COLUMN).and_then(|rows| rows.as_primitive_opt::<Int64Type>());
        let last = rows.and_then(|rows| rows.values().last()).and_then(|&last| u64::try_from(last).ok());
        last.map(|last| last + 1 - first)
            .filter(|&passed| passed > self.passed && passed <= self.rows)
            .ok_or_else(|| Error::internal(format!("rows of {:?} are numbered otherwise than expected", self.path)))
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

impl SplitReader for ParquetReader {
    fn next(&mut self, rows_max: usize) -> Result<Read> {
        loop {
            let mut run = match self.run.take() {
                Some(run) => run,
                None => match self.start(rows_max.max(1))? {
                    Some(run) => run,
                    None => return Ok(Read::End),
                },
            };
            match run.reader.next() {
                Some(batch) => {
                    let batch =
                        batch.map_err(|e| Error::connector(format!("cannot read {:?}: {e}", self.path)).because(e))?;
                    let given = self.fit(&batch)?;
                    self.passed =
                        if run.is_filtered { self.passed_by(&batch)? } else { self.passed + batch.num_rows() as u64 };
                    self.run = Some(run);
                    return Ok(Read::Batch(given));
                }
                None if run.is_filtered => {
                    self.passed = run.end;
                    // Looking through a run takes time: whoever asked gets a chance to do something else.
                    return Ok(Read::Batch(RecordBatch::new_empty(Arc::clone(&self.schema))));
                }
                None if self.passed < run.end => {
                    return Err(Error::connector(format!(
                        "{:?} ended after {} of {} rows: the file is damaged or was replaced while it was read",
                        self.path, self.passed, self.rows
                    )));
                }
                None => {}
            }
        }
    }

    fn position(&self) -> Position {
        self.identity.whole_position(self.passed, self.rows).encode()
    }
}

/// What conditions say about the row groups of this file.
pub(super) fn pruning(file: &OpenFile, schema: &SchemaRef, conditions: &prune::Told) -> Result<Pruning> {
    Pruning::new(&file.metadata, file.has_row_numbers, schema, conditions)
        .map_err(|e| Error::connector(format!("cannot compare the statistics of a Parquet file: {e}")).because(e))
}
