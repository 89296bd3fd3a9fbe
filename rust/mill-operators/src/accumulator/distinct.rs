//! Exact numbers of distinct values: a table of the pairs of key and value beside the step's own.
//!
//! A pair that is new adds one to its key's count. So the result is a word of the row, an update is two look-ups, and
//! the pairs are checkpointed, rescaled and dropped like any other state: row by row as they change. A pair lives in the
//! key group of its key.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::DataType;
use mill_frame::block::{Blocks, RestoredBlock};
use mill_protocol::Result;
use mill_state::{KeyEncoder, LayoutBuilder, PaneTables, RowLayout, Rows, RowsRead, Select, TableOptions};

use super::input::{Input, passes, state_error};
use super::{Accumulator, Problems, Selection};

/// The number of distinct values; null is a value, as is NaN.
pub(super) struct Distinct {
    input: Input,
    keys: Vec<usize>,
    word: usize,
    encoder: KeyEncoder,
    pairs: PaneTables,
    pane: i64,
    filter: Option<BooleanBuffer>,
    picked: Vec<u32>,
    places: Vec<u32>,
}

impl Distinct {
    /// `types` are those of the keys and, after them, of the value.
    pub(super) fn new(
        input: Input,
        keys: &[usize],
        types: &[DataType],
        options: TableOptions,
        layout: &mut LayoutBuilder,
    ) -> Result<Distinct> {
        let encoder = KeyEncoder::new(types).map_err(state_error)?;
        let of_pairs = RowLayout::builder(encoder.kind().clone()).finish("pairs").map_err(state_error)?;
        Ok(Distinct {
            input,
            keys: keys.to_vec(),
            word: layout.words(1),
            encoder,
            pairs: PaneTables::new(Arc::new(of_pairs), options),
            pane: 0,
            filter: None,
            picked: Vec::new(),
            places: Vec::new(),
        })
    }
}

impl Accumulator for Distinct {
    fn prepare(&mut self, batch: &RecordBatch, hashes: &[u64]) -> Result<()> {
        let mut columns: Vec<ArrayRef> = self.keys.iter().map(|&key| Arc::clone(batch.column(key))).collect();
        columns.push(self.input.plain(batch, 0)?);
        self.encoder.encode(&columns, batch.num_rows()).map_err(state_error)?.adopt_groups(hashes);
        self.filter = self.input.filter(batch)?;
        Ok(())
    }

    fn update(&mut self, rows: &mut Rows<'_>, select: Selection<'_>, _problems: &mut Problems) -> Result<()> {
        self.picked.clear();
        self.places.clear();
        for i in 0..select.len() {
            if passes(self.filter.as_ref(), select.at(i)) {
                self.picked.push(select.at(i) as u32);
                self.places.push(i as u32);
            }
        }
        let found = self.pairs.open(self.pane).find_or_insert(self.encoder.batch(), self.picked.as_slice());
        for &new in found.inserted() {
            rows.row(self.places[new as usize] as usize)[self.word] += 1;
        }
        Ok(())
    }

    fn finish(&self, rows: &RowsRead<'_>) -> Result<ArrayRef> {
        let counts = (0..rows.len()).map(|row| rows.word(row, self.word) as i64);
        Ok(Arc::new(Int64Array::from_iter_values(counts)))
    }

    fn open(&mut self, pane: i64) {
        self.pane = pane;
    }

    fn close(&mut self, pane: i64) {
        self.pairs.close(pane);
    }

    fn snapshot(&mut self, is_full: bool, out: &mut Blocks) {
        self.pairs.snapshot(is_full, out);
    }

    fn restore(&mut self, blocks: &[RestoredBlock]) -> Result<()> {
        self.pairs.restore(blocks).map_err(state_error)
    }
}
