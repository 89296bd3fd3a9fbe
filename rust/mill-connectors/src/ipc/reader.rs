//! Reads the rows of Arrow IPC files and streams.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{Field, SchemaRef};
use mill_protocol::{Error, Position, Read, Result, SplitReader};

use super::file::{Decoder, OpenFile};
use crate::file::FileIdentity;
use crate::fit::{self, Fit};
use crate::guard::guarded;

/// What is read of a file.
pub(super) struct Wanted {
    pub(super) path: PathBuf,
    pub(super) schema: SchemaRef,
    /// The places in the file of the columns of the schema that it has, in order.
    pub(super) places: Vec<usize>,
    /// For each column of the schema whether the file does not have it.
    pub(super) is_missing: Vec<bool>,
}

impl Wanted {
    /// Rows in the order and types of the schema, of which this many of the file come before the first.
    fn fit(&self, batch: &RecordBatch, before: u64) -> Result<Read> {
        let number = |row: usize| before + row as u64 + 1;
        fit::read(&self.path, &self.schema, batch, number, fit::record, |rows, _| {
            fit::rows(&self.path, &self.schema, &self.is_missing, rows.num_rows(), |field| self.column(rows, field))
        })
    }

    fn column(&self, rows: &RecordBatch, field: &Field) -> Result<Fit<ArrayRef>> {
        let column = rows.column_by_name(field.name());
        let column = column.ok_or_else(|| Error::internal(format!("column {:?} was projected away", field.name())))?;
        fit::column(&self.path, Arc::clone(column), field)
    }
}

/// Reads some batches of a file.
pub(super) struct BatchReader {
    wanted: Wanted,
    identity: FileIdentity,
    file: Arc<OpenFile>,
    decoder: Decoder,
    /// The batches that have not been decoded.
    left: Range<usize>,
    /// Rows of the file before the split.
    first: u64,
    /// Rows of the split, and how many the reader has passed.
    rows: u64,
    passed: u64,
    /// What has been decoded and not returned yet; never empty.
    rest: Option<RecordBatch>,
}

impl BatchReader {
    /// Opens these batches after so many of their rows.
    pub(super) fn open(
        wanted: Wanted,
        identity: FileIdentity,
        file: Arc<OpenFile>,
        batches: Range<usize>,
        passed: u64,
    ) -> Result<BatchReader> {
        let rows_of = |range: Range<usize>| file.batches[range].iter().map(|batch| batch.rows).sum::<u64>();
        let (first, rows) = (rows_of(0..batches.start), rows_of(batches.clone()));
        let (mut left, mut before) = (batches, 0);
        while !left.is_empty() && before + file.batches[left.start].rows <= passed {
            before += file.batches[left.start].rows;
            left.start += 1;
        }
        let decoder = file.decoder(wanted.places.clone());
        let mut reader = BatchReader { wanted, identity, file, decoder, left, first, rows, passed, rest: None };
        if passed > before && !reader.left.is_empty() {
            reader.decode((passed - before) as usize)?;
        }
        Ok(reader)
    }

    /// Decodes the next batch, without its first rows.
    fn decode(&mut self, without: usize) -> Result<()> {
        let Self { wanted, identity, file, decoder, left, .. } = self;
        let batch = guarded(&wanted.path, "read", || decoder.batch(file, identity, left.start))?;
        left.start += 1;
        let rows = batch.num_rows() - without;
        self.rest = (rows > 0).then(|| batch.slice(without, rows));
        Ok(())
    }

    /// At most so many of the rows that have been decoded.
    fn take(&mut self, rows_max: usize) -> Option<RecordBatch> {
        let batch = self.rest.take()?;
        if batch.num_rows() <= rows_max {
            return Some(batch);
        }
        self.rest = Some(batch.slice(rows_max, batch.num_rows() - rows_max));
        Some(batch.slice(0, rows_max))
    }
}

impl SplitReader for BatchReader {
    fn next(&mut self, rows_max: usize) -> Result<Read> {
        loop {
            if let Some(batch) = self.take(rows_max.max(1)) {
                let read = self.wanted.fit(&batch, self.first + self.passed)?;
                self.passed += batch.num_rows() as u64;
                return Ok(read);
            }
            if self.left.is_empty() {
                return Ok(Read::End);
            }
            self.decode(0)?;
        }
    }

    fn position(&self) -> Position {
        self.identity.whole_position(self.passed, self.rows).encode()
    }
}
