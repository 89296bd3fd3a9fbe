//! The latest row of each key of an updating stream, so that a row which moves from one join key to another leaves the first.
//!
//! ```text
//!   row of a key      kept before              emitted                              kept after
//!   sets it           nothing                  the row                              the row
//!   sets it           the same                 nothing                              the row
//!   sets it           another                  the row                              the row
//!   sets it           one of another join key  that row withdrawn, then the row     the row
//!   withdraws it      a row                    that row withdrawn                   nothing
//!   withdraws it      nothing                  nothing                              nothing
//! ```
//!
//! A withdrawn row goes out with the columns that it had, so that it finds its way to the task of its join key.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::interleave;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow_row::{RowConverter, SortField};
use mill_plan::Stage;
use mill_protocol::{Batch, Error, Operator, Outbox, Progress, Restored, Result, Snapshot, TaskContext};
use mill_state::Cell;

use super::ToChangelog;

/// Keeps the latest row of each key.
pub(crate) struct LatestRows {
    latest: ToChangelog,
    /// The columns of which the join key is made.
    by: Vec<usize>,
    converter: RowConverter,
}

/// A row of the result before it is known whether a row has moved.
struct Change {
    /// The record that made it.
    record: usize,
    /// Whether the record sets its key.
    is_set: bool,
    /// Which of the rows that were kept before it takes the place of.
    before: Option<usize>,
}

impl LatestRows {
    pub(crate) fn new(stage: &Stage, context: &TaskContext, keys: &[usize], by: &[usize]) -> Result<LatestRows> {
        let schema: SchemaRef = Arc::clone(&stage.schema);
        let types = by.iter().map(|&column| SortField::new(schema.field(column).data_type().clone())).collect();
        let converter = RowConverter::new(types).map_err(|error| Error::schema(format!("rows cannot be joined by this: {error}")))?;
        let latest = ToChangelog::new(Arc::clone(&schema), schema, context, keys)?;
        Ok(LatestRows { latest, by: by.to_vec(), converter })
    }

    /// The changes that a batch makes, and the rows whose place they take.
    fn changes(&mut self, batch: &Batch) -> Result<(Vec<Change>, Vec<Cell>)> {
        let (mut changes, mut kept) = (Vec::with_capacity(batch.rows()), Vec::new());
        self.latest.apply(batch, |record, is_set, row| {
            let before = (!row.is_empty()).then(|| {
                kept.push(row.take());
                kept.len() - 1
            });
            if is_set || before.is_some() {
                changes.push(Change { record, is_set, before });
            }
        })?;
        Ok((changes, kept))
    }

    /// The rows of the result.
    fn emitted(&self, batch: &Batch, changes: &[Change], kept: &[Cell]) -> Result<Batch> {
        let broken = |error: ArrowError| Error::internal(error.to_string());
        let data = batch.data();
        if kept.is_empty() {
            let records = UInt32Array::from_iter_values(changes.iter().map(|change| change.record as u32));
            return Ok(batch.take(&records).map_err(broken)?.with_deletes(None));
        }
        let before = self.latest.codec.decode(kept.iter().filter_map(Cell::bytes))?;
        let by = |rows: &RecordBatch| {
            let columns: Vec<ArrayRef> = self.by.iter().map(|&column| Arc::clone(rows.column(column))).collect();
            self.converter.convert_columns(&columns).map_err(broken)
        };
        let (by_now, by_before) = (by(data)?, by(&before)?);
        let (mut places, mut deletes, mut records) = (Vec::new(), Vec::new(), Vec::new());
        for change in changes {
            let mut push = |place: (usize, usize), is_delete: bool| {
                places.push(place);
                deletes.push(is_delete);
                records.push(change.record as u32);
            };
            if let Some(row) = change.before
                && !(change.is_set && by_before.row(row) == by_now.row(change.record))
            {
                push((1, row), true);
            }
            if change.is_set {
                push((0, change.record), false);
            }
        }
        let columns = data.columns().iter().zip(before.columns());
        let columns = columns.map(|(now, before)| interleave(&[now.as_ref(), before.as_ref()], &places));
        let columns = columns.collect::<std::result::Result<Vec<ArrayRef>, ArrowError>>().map_err(broken)?;
        let rows = RecordBatch::try_new(Arc::clone(&self.latest.schema), columns).map_err(broken)?;
        let deletes: Option<BooleanBuffer> = deletes.contains(&true).then(|| deletes.into());
        Ok(batch.reindex(rows, &UInt32Array::from(records)).map_err(broken)?.with_deletes(deletes))
    }
}

impl Operator for LatestRows {
    fn on_batch(&mut self, _input: usize, batch: Batch, out: &mut Outbox) -> Result<Progress> {
        let (changes, kept) = self.changes(&batch)?;
        if !changes.is_empty() {
            out.push(self.emitted(&batch, &changes, &kept)?);
        }
        Ok(Progress::Done)
    }

    fn snapshot(&mut self, snapshot: &mut Snapshot) -> Result<()> {
        self.latest.snapshot(snapshot)
    }

    fn restore(&mut self, restored: &Restored) -> Result<()> {
        self.latest.restore(restored)
    }
}

#[cfg(test)]
mod tests;
