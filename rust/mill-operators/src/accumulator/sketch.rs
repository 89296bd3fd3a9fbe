//! Sketches: numbers of distinct values and quantiles in bounded memory.
//!
//! Both are functions of the set (or multiset) of values alone: whatever the order and however they were merged, the same
//! values give the same sketch, so that results stay independent of schedule and parallelism.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch};
use arrow::buffer::{BooleanBuffer, ScalarBuffer};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use mill_frame::hash::hash_columns;
use mill_protocol::{Error, Result};
use mill_state::{LayoutBuilder, Rows, RowsRead, Select};

use super::double::Double;
use super::input::{Input, passes};
use super::moments::as_units;
use super::{Accumulator, Problems, Selection};

mod buckets;
mod registers;

/// The number of distinct values, by HyperLogLog.
pub(super) struct ApproxDistinct {
    input: Input,
    cell: usize,
    hashes: Vec<u64>,
    filter: Option<BooleanBuffer>,
}

impl ApproxDistinct {
    pub(super) fn new(input: Input, layout: &mut LayoutBuilder) -> ApproxDistinct {
        ApproxDistinct { input, cell: layout.cell(), hashes: Vec::new(), filter: None }
    }
}

impl Accumulator for ApproxDistinct {
    fn prepare(&mut self, batch: &RecordBatch, _hashes: &[u64]) -> Result<()> {
        let values = self.input.plain(batch, 0)?;
        hash_columns(&[values], &mut self.hashes).map_err(|error| Error::schema(error.to_string()))?;
        self.filter = self.input.filter(batch)?;
        Ok(())
    }

    fn update(&mut self, rows: &mut Rows<'_>, select: Selection<'_>, _problems: &mut Problems) -> Result<()> {
        for i in 0..select.len() {
            let record = select.at(i);
            if passes(self.filter.as_ref(), record) {
                registers::add(rows.cell_mut(i, self.cell), self.hashes[record]);
            }
        }
        Ok(())
    }

    fn finish(&self, rows: &RowsRead<'_>) -> Result<ArrayRef> {
        let estimate = |row| rows.cell(row, self.cell).map_or(0, registers::estimate);
        Ok(Arc::new(Int64Array::from_iter_values((0..rows.len()).map(estimate))))
    }
}

/// A quantile within one percent of its value, by DDSketch.
pub(super) struct ApproxQuantile {
    input: Input,
    at: f64,
    output: DataType,
    cell: usize,
    values: Option<ScalarBuffer<f64>>,
    mask: Option<BooleanBuffer>,
}

impl ApproxQuantile {
    pub(super) fn new(input: Input, at: f64, output: &DataType, layout: &mut LayoutBuilder) -> ApproxQuantile {
        ApproxQuantile { input, at, output: output.clone(), cell: layout.cell(), values: None, mask: None }
    }
}

impl Accumulator for ApproxQuantile {
    fn prepare(&mut self, batch: &RecordBatch, _hashes: &[u64]) -> Result<()> {
        let values = match self.output {
            // The count of units, which then are rounded to floats.
            DataType::Duration(_) => cast(&self.input.column(batch, 0, &DataType::Int64)?, &DataType::Float64)
                .map_err(|e| Error::internal("a count of units is a number").because(e))?,
            _ => self.input.column(batch, 0, &DataType::Float64)?,
        };
        self.mask = self.input.mask(batch, values.as_ref())?;
        self.values = Some(values.as_primitive::<Float64Type>().values().clone());
        Ok(())
    }

    fn update(&mut self, rows: &mut Rows<'_>, select: Selection<'_>, _problems: &mut Problems) -> Result<()> {
        let values = self.values.as_ref().expect("prepared");
        for i in 0..select.len() {
            let record = select.at(i);
            if passes(self.mask.as_ref(), record) {
                buckets::add(rows.cell_mut(i, self.cell), values[record]);
            }
        }
        Ok(())
    }

    fn finish(&self, rows: &RowsRead<'_>) -> Result<ArrayRef> {
        let quantile = |row| rows.cell(row, self.cell).and_then(|bytes| buckets::quantile(bytes, self.at));
        if self.output != DataType::Float64 {
            // An estimate may be beyond the largest value.
            let unit = |estimate| Double::of(estimate).nearest(0).clamp(i64::MIN.into(), i64::MAX.into());
            return as_units((0..rows.len()).map(|row| quantile(row).map(unit)), &self.output);
        }
        Ok(Arc::new((0..rows.len()).map(quantile).collect::<Float64Array>()))
    }
}

#[cfg(test)]
mod tests;
