//! What sums have beyond their words: how often they wrapped around, by key.
//!
//! ```text
//!   before the exchange    a value that would make its row's sum wrap around travels by itself, as a partial result
//!   where rows are kept      the sum wraps around, and a row of the key in a table beside the rows counts that
//!                              sum = word + times * 2^64 (integers), * 10^38 (decimals), * 2^1024 (floats)
//! ```
//!
//! So rows are no wider than the sums that nearly all of them hold, and only the total decides whether it fits. The table
//! is empty as long as no sum has left its range. It is checkpointed, rescaled and dropped like any other state, as the
//! state with the highest number of its step. Partial results of rows that are kept (of panes, which windows add up)
//! take the counts along in columns of their own, one an aggregate that has some.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type};
use mill_frame::block::{Blocks, RestoredBlock};
use mill_protocol::{Error, Result};
use mill_state::{KeyBatch, KeyEncoder, PaneTables, RowLayout, Select, TableOptions};

use super::Accumulator;
use super::groups::own;
use super::input::state_error;

/// Rows of results that do not fit their type, and why.
pub(crate) type Unfit = Vec<(usize, Error)>;

/// The records of one update whose value made a sum wrap around, and how often.
pub(crate) struct Wraps {
    records: Vec<(usize, i64)>,
    is_ahead: bool,
}

impl Wraps {
    pub(super) fn new(is_ahead: bool) -> Wraps {
        Wraps { records: Vec::new(), is_ahead }
    }

    /// Notes a record; whether its value goes into the row all the same, as before the exchange it does not.
    #[cold]
    pub(super) fn note(&mut self, record: usize, times: i64) -> bool {
        self.records.push((record, times));
        !self.is_ahead
    }

    /// What has been noted, which is then forgotten.
    pub(super) fn take(&mut self) -> Vec<(usize, i64)> {
        std::mem::take(&mut self.records)
    }
}

/// Encodes keys, each in the key group that it belongs to.
fn encode(
    encoder: &mut KeyEncoder,
    owners: &mut Option<(usize, Vec<u64>)>,
    columns: &[ArrayRef],
    rows: usize,
) -> Result<()> {
    let keys = encoder.encode(columns, rows).map_err(state_error)?;
    match owners {
        Some((owners, hashes)) => own(keys, &columns[..*owners], hashes),
        None => Ok(()),
    }
}

/// The counts of one step's rows.
pub(super) struct Carries {
    panes: PaneTables,
    encoder: KeyEncoder,
    /// If fewer columns than all say to which key group a key belongs: these, and the hashes of them.
    owners: Option<(usize, Vec<u64>)>,
    /// The accumulators that may wrap around; the place of one here is that of its word and its column.
    of: Vec<usize>,
    first_word: usize,
    /// Where counts stand in what is merged, if they do.
    first_column: Option<usize>,
    /// The columns of the prepared frame that have any.
    merged: Vec<(usize, Int64Array)>,
}

impl Carries {
    /// For these accumulators; `None` if none of them can wrap around.
    pub(super) fn new(
        accumulators: &mut [Box<dyn Accumulator>],
        key_types: &[DataType],
        options: &TableOptions,
        first_column: Option<usize>,
        owners: Option<usize>,
    ) -> Result<Option<Carries>> {
        let of: Vec<usize> =
            accumulators.iter_mut().enumerate().filter_map(|(place, it)| it.wraps().map(|_| place)).collect();
        if of.is_empty() {
            return Ok(None);
        }
        let encoder = KeyEncoder::new(key_types).map_err(state_error)?;
        let mut layout = RowLayout::builder(encoder.kind().clone());
        let first_word = layout.words(of.len());
        let layout = layout.finish(&format!("carries of {of:?}")).map_err(state_error)?;
        // Far from those that aggregates count up from 1, and another one for each of the tables of a step.
        let options = TableOptions { state: u16::MAX - options.state, tracks_changes: false, ..options.clone() };
        let panes = PaneTables::new(Arc::new(layout), options);
        let owners = owners.map(|columns| (columns, Vec::new()));
        Ok(Some(Carries { panes, encoder, owners, of, first_word, first_column, merged: Vec::new() }))
    }

    /// The columns in which counts travel with partial results.
    pub(super) fn fields(&self) -> Vec<Field> {
        self.of.iter().map(|place| Field::new(format!("carry {place}"), DataType::Int64, true)).collect()
    }

    /// Takes up the counts of a frame of partial results.
    pub(super) fn prepare(&mut self, batch: &RecordBatch) {
        self.merged.clear();
        let Some(first) = self.first_column else { return };
        for (index, column) in batch.columns()[first..].iter().take(self.of.len()).enumerate() {
            if column.null_count() < column.len() {
                self.merged.push((index, column.as_primitive::<Int64Type>().clone()));
            }
        }
    }

    /// Whether the prepared frame has counts.
    pub(super) fn has_merged(&self) -> bool {
        !self.merged.is_empty()
    }

    /// Adds the counts of these records of the prepared frame.
    pub(super) fn merge<S: Select>(&mut self, pane: i64, keys: &KeyBatch, select: S) {
        for (index, counts) in std::mem::take(&mut self.merged) {
            let all = (0..select.len()).map(|i| select.at(i));
            let some = all.filter(|&record| counts.is_valid(record)).map(|record| (record, counts.value(record)));
            self.add_to(pane, keys, index, &some.collect::<Vec<_>>());
            self.merged.push((index, counts));
        }
    }

    /// Adds how often sums of an accumulator wrapped around.
    pub(super) fn add(&mut self, pane: i64, keys: &KeyBatch, accumulator: usize, wraps: &[(usize, i64)]) {
        let index = self.of.iter().position(|&place| place == accumulator);
        self.add_to(pane, keys, index.expect("only those that may wrap around do"), wraps);
    }

    fn add_to(&mut self, pane: i64, keys: &KeyBatch, index: usize, counts: &[(usize, i64)]) {
        if counts.is_empty() {
            return;
        }
        let records: Vec<u32> = counts.iter().map(|&(record, _)| record as u32).collect();
        let mut rows = self.panes.open(pane).find_or_insert(keys, records.as_slice());
        rows.each::<1>(self.first_word + index, |i, word| word[0] = word[0].wrapping_add(counts[i].1 as u64));
    }

    /// Whether any sum of a pane may have wrapped around.
    pub(super) fn has(&self, pane: i64) -> bool {
        self.panes.has(pane)
    }

    /// The counts of these keys: of each accumulator that may have some, one a key.
    pub(super) fn of_keys(&mut self, pane: i64, keys: &[ArrayRef], rows: usize) -> Result<Vec<(usize, Vec<i64>)>> {
        let mut counts: Vec<(usize, Vec<i64>)> = self.of.iter().map(|&place| (place, vec![0; rows])).collect();
        encode(&mut self.encoder, &mut self.owners, keys, rows)?;
        let (found, places) = self.panes.open(pane).find(self.encoder.batch());
        for (row, &place) in places.iter().enumerate() {
            for (index, (_, counts)) in counts.iter_mut().enumerate() {
                counts[place as usize] = found.word(row, self.first_word + index) as i64;
            }
        }
        Ok(counts)
    }

    /// The counts of these keys as columns for partial results.
    pub(super) fn columns(&mut self, pane: i64, keys: &[ArrayRef], rows: usize) -> Result<Vec<ArrayRef>> {
        if !self.has(pane) {
            return Ok(self.of.iter().map(|_| Arc::new(Int64Array::new_null(rows)) as ArrayRef).collect());
        }
        let counts = self.of_keys(pane, keys, rows)?.into_iter();
        Ok(counts.map(|(_, counts)| Arc::new(Int64Array::from(counts)) as ArrayRef).collect())
    }

    /// Forgets the counts of those keys of a pane for which this holds.
    pub(super) fn remove(&mut self, pane: i64, keys: &[ArrayRef], is_gone: impl Fn(usize) -> bool, rows: usize) -> Result<()> {
        if !self.has(pane) {
            return Ok(());
        }
        encode(&mut self.encoder, &mut self.owners, keys, rows)?;
        let keys = self.encoder.batch();
        let table = self.panes.open(pane);
        (0..rows).filter(|&record| is_gone(record)).for_each(|record| {
            table.remove(keys, record);
        });
        Ok(())
    }

    /// Forgets a pane.
    pub(super) fn close(&mut self, pane: i64) {
        self.panes.close(pane);
    }

    pub(super) fn snapshot(&mut self, is_full: bool, out: &mut Blocks) {
        self.panes.snapshot(is_full, out);
    }

    pub(super) fn restore(&mut self, blocks: &[RestoredBlock]) -> Result<()> {
        self.panes.restore(blocks).map_err(state_error)
    }
}
