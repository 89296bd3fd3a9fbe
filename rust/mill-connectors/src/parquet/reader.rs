//! Reads the rows of some row groups, without those that conditions rule out.
//!
//! ```text
//!   row groups   [0 ruled out][1][2][3 ruled out][4]     by the least and greatest values in the footer
//!   runs                      [─────]            [─]     read one after another, a Parquet reader each
//!   within a run     pages, by their least and greatest values ─► columns of conditions ─► rows that meet them
//!                    ─► the other columns of these rows
//! ```
//!
//! Rows are decoded in batches of as many as a read may ask for; a read that asks for fewer gets the front of what is left
//! of one.
//!
//! The position is the number of rows of the split that the reader has passed, whether they were returned or left out. In a
//! run with conditions it follows from the number of the last row returned, which the Parquet reader tells as a column more.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::parquet::arrow::ProjectionMask;
use ::parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder, RowSelection, RowSelector,
};
use ::parquet::errors::ParquetError;
use arrow::array::{ArrayRef, AsArray, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{Field, Int64Type, SchemaRef};
use mill_frame::convert::show;
use mill_protocol::{Error, Position, Read, Result, SplitReader};

use super::int96::{Failure, settle};
use super::prune::{self, Pruning};
use super::{OpenFile, ROW_COLUMN};
use crate::file::FileIdentity;
use crate::fit::{self, Fit};
use crate::guard::guarded;
use crate::object::is_object;

/// How many rows are decoded at once, unless the reader is told how many a read asks for at most.
pub(super) const DECODED_ROWS: usize = 8192;
/// A run with conditions ends after about so many rows: their columns are read for all of them before the first is returned.
const RUN_ROWS: u64 = 128 << 10;

/// Between pieces of an object that are no farther apart than this, what is between them is fetched with them.
const NEAR_BYTES: u64 = 1 << 20;

pub(super) struct ParquetReader {
    pub(super) path: PathBuf,
    pub(super) identity: FileIdentity,
    pub(super) file: Arc<OpenFile>,
    pub(super) schema: SchemaRef,
    /// The places in the file of the columns of the schema that it has.
    pub(super) places: Vec<usize>,
    /// For each column of the schema whether the file does not have it.
    pub(super) is_missing: Vec<bool>,
    pub(super) groups: Range<usize>,
    pub(super) pruning: Pruning,
    /// Rows of the file before the split.
    pub(super) first: u64,
    /// Rows of the split, and how many the reader has passed.
    pub(super) rows: u64,
    pub(super) passed: u64,
    pub(super) run: Option<Run>,
    /// How many rows are decoded at once.
    pub(super) decoded_rows: usize,
}

/// Row groups that are being read.
pub(super) struct Run {
    reader: ParquetRecordBatchReader,
    /// Reads the columns of `INT96` times once more, in nanoseconds, batch by batch beside the other.
    nanos: Option<ParquetRecordBatchReader>,
    /// What has been decoded and not returned yet; never empty.
    rest: Option<Decoded>,
    /// Rows of the split up to its end.
    end: u64,
    is_filtered: bool,
}

/// Rows as the file has them, and their `INT96` times in nanoseconds.
type Decoded = (RecordBatch, Option<RecordBatch>);

impl ParquetReader {
    fn rows_of(&self, group: usize) -> u64 {
        self.file.metadata.metadata().row_group(group).num_rows().max(0) as u64
    }

    /// Where the columns that are read are in a row group; pieces that are near each other are one.
    fn chunks(&self, group: usize) -> Vec<(u64, u64)> {
        let metadata = &self.file.metadata;
        let mask = ProjectionMask::roots(metadata.parquet_schema(), self.places.iter().copied());
        let columns = metadata.metadata().row_group(group).columns().iter().enumerate();
        let ranges = columns.filter(|(leaf, _)| mask.leaf_included(*leaf)).map(|(_, column)| column.byte_range());
        let mut ranges: Vec<(u64, u64)> = ranges.map(|(start, bytes)| (start, start.saturating_add(bytes))).collect();
        ranges.sort_unstable();
        let mut merged: Vec<(u64, u64)> = Vec::with_capacity(ranges.len());
        for (start, end) in ranges {
            match merged.last_mut() {
                Some(last) if start <= last.1.saturating_add(NEAR_BYTES) => last.1 = last.1.max(end),
                _ => merged.push((start, end)),
            }
        }
        merged
    }

    /// Passes row groups that are ruled out, and opens those that come next; `None` at the end.
    fn start(&mut self) -> Result<Option<Run>> {
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
        // Times that are read in two ways must come in the same batches in both.
        let int96: Vec<usize> = self.places.iter().copied().filter(|&place| self.file.has_int96[place]).collect();
        let is_filtered = int96.is_empty() && self.pruning.is_worth_filtering();
        // What is read of an object is fetched a row group at a time.
        let is_object = is_object(&self.path);
        let (mut last, mut end) = (group, start);
        while last < self.groups.end
            && !self.pruning.is_ruled_out(last)
            && (!is_object || last == group)
            && (!is_filtered || last == group || end - self.passed < RUN_ROWS)
        {
            end += self.rows_of(last);
            last += 1;
        }
        if is_object && !is_filtered {
            self.identity.file().want(self.chunks(group))?;
        }
        let selection = self.selection(group..last, start, is_filtered)?;
        let build = |metadata: &ArrowReaderMetadata, places: &[usize]| {
            let file = self.identity.shared();
            guarded(&self.path, "read", || {
                let mask = ProjectionMask::roots(metadata.parquet_schema(), places.iter().copied());
                let mut builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata.clone())
                    .with_projection(mask)
                    .with_row_groups((group..last).collect())
                    .with_batch_size(self.decoded_rows);
                if let Some(selection) = &selection {
                    builder = builder.with_row_selection(selection.clone());
                }
                if is_filtered {
                    builder = builder.with_row_filter(self.pruning.row_filter(metadata.parquet_schema()));
                }
                builder.build()
            })
        };
        let reader = build(if is_filtered { &self.file.with_rows } else { &self.file.metadata }, &self.places)?;
        let nanos = match &self.file.nanos {
            Some(metadata) if !int96.is_empty() => Some(build(metadata, &int96)?),
            _ => None,
        };
        Ok(Some(Run { reader, nanos, rest: None, end, is_filtered }))
    }

    /// The rows to be looked at in these row groups, of which the first begins after `start` rows of the split; `None` for
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
            match guarded(&self.path, "read the statistics of", || self.pruning.pages(group))? {
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

    /// The next rows of a run, at most so many.
    fn read(&self, run: &mut Run, rows_max: usize) -> Result<Option<Decoded>> {
        let decoded = match run.rest.take() {
            Some(rest) => Some(rest),
            None => self.decode(run)?,
        };
        let Some((batch, nanos)) = decoded else { return Ok(None) };
        let rows = batch.num_rows();
        if rows <= rows_max {
            return Ok(Some((batch, nanos)));
        }
        let slice = |start: usize, len: usize| {
            let nanos = nanos.as_ref().map(|nanos| nanos.slice(start, len));
            (batch.slice(start, len), nanos)
        };
        run.rest = Some(slice(rows_max, rows - rows_max));
        Ok(Some(slice(0, rows_max)))
    }

    /// The next batch of a run.
    fn decode(&self, run: &mut Run) -> Result<Option<Decoded>> {
        guarded(&self.path, "read", || {
            let Some(batch) = run.reader.next().transpose()? else { return Ok(None) };
            let Some(nanos) = &mut run.nanos else { return Ok(Some((batch, None))) };
            match nanos.next().transpose()? {
                Some(nanos) if nanos.num_rows() == batch.num_rows() => Ok(Some((batch, Some(nanos)))),
                _ => Err(ParquetError::General("its columns end after different numbers of rows".to_owned())),
            }
        })
    }

    /// How many rows of the split lie up to each row of a batch with row numbers; the batch is never empty.
    fn numbers(&self, batch: &RecordBatch) -> Result<Vec<u64>> {
        let rows = batch.column_by_name(ROW_COLUMN).and_then(|rows| rows.as_primitive_opt::<Int64Type>());
        let numbers = rows.map(|rows| rows.values().iter().map(|&row| (row as u64 + 1).saturating_sub(self.first)).collect());
        numbers
            .filter(|numbers: &Vec<u64>| numbers.last().is_some_and(|&last| last > self.passed && last <= self.rows))
            .ok_or_else(|| Error::internal(format!("rows of {:?} are numbered otherwise than expected", self.path)))
    }

    /// The columns in the order and types of the schema. If a value does not survive that, the rows that do, and the
    /// others one by one. `row` is the number in the split of a row of the batch, from 1.
    fn fit(&self, batch: &RecordBatch, nanos: Option<&RecordBatch>, row: impl Fn(usize) -> u64) -> Result<Read> {
        fit::read(&self.path, &self.schema, batch, |index| self.first + row(index), record, |rows, index| {
            let nanos = match (nanos, index) {
                (Some(nanos), Some(index)) => Some(fit::alone(nanos, index)?),
                (nanos, _) => nanos.cloned(),
            };
            fit::rows(&self.path, &self.schema, &self.is_missing, rows.num_rows(), |field| {
                self.column(rows, nanos.as_ref(), field)
            })
        })
    }

    fn column(&self, rows: &RecordBatch, nanos: Option<&RecordBatch>, field: &Field) -> Result<Fit<ArrayRef>> {
        let name = field.name();
        let column = rows.column_by_name(name);
        let mut column = Arc::clone(column.ok_or_else(|| Error::internal(format!("column {name:?} was projected away")))?);
        if let Some(nanos) = nanos.and_then(|nanos| nanos.column_by_name(name)) {
            column = match settle(&column, nanos, field.data_type()) {
                Ok(settled) => settled,
                Err(Failure::Misfit(misfit)) => {
                    let time: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![misfit.micros]));
                    return Ok(Fit::Not(format!("column {name:?}: the time {} {}", show(&time, 0), misfit.reason)));
                }
                Err(Failure::Arrow(error)) => {
                    return Err(Error::data(format!("cannot read {:?}: column {name:?} is damaged: {error}", self.path)));
                }
            };
        }
        fit::column(&self.path, column, field)
    }
}

/// A row as JSON, of which something could not be read.
fn record(row: &RecordBatch) -> String {
    let columns: Vec<usize> = (0..row.num_columns()).filter(|&at| row.schema_ref().field(at).name() != ROW_COLUMN).collect();
    row.project(&columns).map(|row| fit::record(&row)).unwrap_or_default()
}

impl SplitReader for ParquetReader {
    fn set_rows_most(&mut self, rows: usize) {
        self.decoded_rows = rows.max(1);
    }

    fn next(&mut self, rows_max: usize) -> Result<Read> {
        loop {
            let mut run = match self.run.take() {
                Some(run) => run,
                None => match self.start()? {
                    Some(run) => run,
                    None => return Ok(Read::End),
                },
            };
            match self.read(&mut run, rows_max.max(1))? {
                Some((batch, nanos)) => {
                    let (read, passed) = if run.is_filtered {
                        let numbers = self.numbers(&batch)?;
                        (self.fit(&batch, None, |row| numbers[row])?, numbers[numbers.len() - 1])
                    } else {
                        let read = self.fit(&batch, nanos.as_ref(), |row| self.passed + row as u64 + 1)?;
                        (read, self.passed + batch.num_rows() as u64)
                    };
                    self.passed = passed;
                    self.run = Some(run);
                    return Ok(read);
                }
                None if run.is_filtered => {
                    self.passed = run.end;
                    // Looking through a run takes time: whoever asked gets a chance to do something else.
                    return Ok(Read::Batch(RecordBatch::new_empty(Arc::clone(&self.schema))));
                }
                None if self.passed < run.end => {
                    return Err(Error::connector(format!(
                        "{:?} ended after {} of {}: the file is damaged or was replaced while it was read",
                        self.path,
                        self.passed,
                        mill_frame::words::counted(self.rows, "row")
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
pub(super) fn pruning(path: &Path, file: &OpenFile, schema: &SchemaRef, conditions: &prune::Told) -> Result<Pruning> {
    guarded(path, "compare the statistics of", || Pruning::new(file, schema, conditions))
}
