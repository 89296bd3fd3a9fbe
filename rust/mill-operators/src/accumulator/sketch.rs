//! Sketches: numbers of distinct values and quantiles in bounded memory.
//!
//! Both are functions of the set (or multiset) of values alone: whatever the order and however they were merged, the same
//! values give the same sketch, so that results stay independent of schedule and parallelism.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, Float64Array, Int64Array, RecordBatch};
use arrow::buffer::{BooleanBuffer, ScalarBuffer};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use mill_frame::hash::hash_columns;
use mill_protocol::{Error, Result};
use mill_state::{LayoutBuilder, Rows, RowsRead, Select};

use super::double::Double;
use super::input::{Input, passes};
use super::moments::as_units;
use super::{Accumulator, Problems, Selection, with_selection};

mod buckets;
mod registers;

/// The number of distinct values, by HyperLogLog.
pub(super) struct ApproxDistinct {
    input: Input,
    is_partial: bool,
    cell: usize,
    hashes: Vec<u64>,
    filter: Option<BooleanBuffer>,
    /// Instead of hashes, where partial results are merged.
    sketches: Option<BinaryArray>,
}

impl ApproxDistinct {
    pub(super) fn new(input: Input, is_partial: bool, layout: &mut LayoutBuilder) -> ApproxDistinct {
        ApproxDistinct { input, is_partial, cell: layout.cell(), hashes: Vec::new(), filter: None, sketches: None }
    }
}

impl Accumulator for ApproxDistinct {
    fn prepare(&mut self, batch: &RecordBatch, _hashes: &[u64]) -> Result<()> {
        if self.is_partial {
            self.sketches = Some(sketches(&self.input, batch)?);
            return Ok(());
        }
        let values = self.input.plain(batch, 0)?;
        hash_columns(&[values], &mut self.hashes).map_err(|error| Error::schema(error.to_string()))?;
        self.filter = self.input.filter(batch)?;
        Ok(())
    }

    fn update(&mut self, rows: &mut Rows<'_>, select: Selection<'_>, _problems: &mut Problems) -> Result<()> {
        if let Some(sketches) = &self.sketches {
            merge(rows, self.cell, select, sketches, registers::merge);
            return Ok(());
        }
        let (hashes, filter) = (self.hashes.as_slice(), self.filter.as_ref());
        with_selection!(select, s => by_run(rows, |rows, run| {
            let records = run.clone().map(|i| s.at(i)).filter(|&record| passes(filter, record));
            registers::add_all(rows.cell_mut(run.start, self.cell), records.map(|record| hashes[record]));
        }));
        Ok(())
    }

    fn finish(&self, rows: &RowsRead<'_>) -> Result<ArrayRef> {
        let estimate = |row| rows.cell(row, self.cell).map_or(0, registers::estimate);
        Ok(Arc::new(Int64Array::from_iter_values((0..rows.len()).map(estimate))))
    }

    fn partial(&self, rows: &RowsRead<'_>) -> Result<Vec<ArrayRef>> {
        Ok(partial(rows, self.cell))
    }

    fn singles(&self) -> Result<Vec<ArrayRef>> {
        let single = |(record, &hash)| passes(self.filter.as_ref(), record).then(|| registers::single(hash));
        let singles: BinaryArray = self.hashes.iter().enumerate().map(single).collect();
        Ok(vec![Arc::new(singles)])
    }
}

/// Calls `take` for each run of records that have one row.
#[inline(always)]
fn by_run(rows: &mut Rows<'_>, mut take: impl FnMut(&mut Rows<'_>, Range<usize>)) {
    let mut start = 0;
    while start < rows.len() {
        let identity = rows.identity(start);
        let end = (start + 1..rows.len()).find(|&i| rows.identity(i) != identity).unwrap_or(rows.len());
        take(rows, start..end);
        start = end;
    }
}

/// The column of partial results.
fn sketches(input: &Input, batch: &RecordBatch) -> Result<BinaryArray> {
    Ok(input.column(batch, 0, &DataType::Binary)?.as_binary::<i32>().clone())
}

/// Merges partial results into the cells of their rows.
fn merge(rows: &mut Rows<'_>, cell: usize, select: Selection<'_>, sketches: &BinaryArray, merge: impl Fn(&mut Vec<u8>, &[u8])) {
    for i in 0..select.len() {
        let record = select.at(i);
        if sketches.is_valid(record) {
            merge(rows.cell_mut(i, cell), sketches.value(record));
        }
    }
}

/// The cells of rows as partial results.
fn partial(rows: &RowsRead<'_>, cell: usize) -> Vec<ArrayRef> {
    let cells: BinaryArray = (0..rows.len()).map(|row| rows.cell(row, cell)).collect();
    vec![Arc::new(cells)]
}

/// A quantile within one percent of its value, by DDSketch.
pub(super) struct ApproxQuantile {
    input: Input,
    at: f64,
    output: DataType,
    is_partial: bool,
    cell: usize,
    values: Option<ScalarBuffer<f64>>,
    mask: Option<BooleanBuffer>,
    /// Instead of values, where partial results are merged.
    sketches: Option<BinaryArray>,
}

impl ApproxQuantile {
    pub(super) fn new(input: Input, at: f64, output: &DataType, is_partial: bool, layout: &mut LayoutBuilder) -> ApproxQuantile {
        let (output, cell) = (output.clone(), layout.cell());
        ApproxQuantile { input, at, output, is_partial, cell, values: None, mask: None, sketches: None }
    }
}

impl Accumulator for ApproxQuantile {
    fn prepare(&mut self, batch: &RecordBatch, _hashes: &[u64]) -> Result<()> {
        if self.is_partial {
            self.sketches = Some(sketches(&self.input, batch)?);
            return Ok(());
        }
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
        if let Some(sketches) = &self.sketches {
            merge(rows, self.cell, select, sketches, buckets::merge);
            return Ok(());
        }
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

    fn partial(&self, rows: &RowsRead<'_>) -> Result<Vec<ArrayRef>> {
        Ok(partial(rows, self.cell))
    }

    fn singles(&self) -> Result<Vec<ArrayRef>> {
        let values = self.values.as_ref().expect("prepared");
        let single = |(record, &value)| passes(self.mask.as_ref(), record).then(|| buckets::single(value));
        let singles: BinaryArray = values.iter().enumerate().map(single).collect();
        Ok(vec![Arc::new(singles)])
    }
}

#[cfg(test)]
mod tests;
