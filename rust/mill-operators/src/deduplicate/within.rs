//! `deduplicate(within=…)`: a row passes unless a row of its key has passed whose event time is less than that away.
//!
//! ```text
//!   time        │── pane ──│── pane ──│── pane ──│        each as long as `within`
//!   passed           p          q                          at most one time a key and pane
//!   a row at t                    t                        is compared with what has passed in its pane and the two beside
//! ```
//!
//! Rows that pass are at least `within` apart, so a pane has at most one of each key, and any row of a key that has passed
//! in a pane keeps all others of the key out of it. A pane is dropped as a whole when no row can be near it any more: a row
//! that is earlier than the watermark of its split is late and goes to port 1, so that what passes does not depend on when
//! state is dropped. Rows are judged in the order they come.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use mill_plan::Stage;
use mill_protocol::{Batch, Error, Operator, Outbox, Progress, Restored, Result, Snapshot, TaskContext, Watermark};
use mill_state::{Cursor, KeyDecoder, KeyEncoder, LOOKUP_ROWS_MAX, PaneTables, RowLayout, TableOptions};

use super::{encode, key_fields, pass, types_of, unknown};
use crate::accumulator::{records, state_error};
use crate::aggregate::EMIT_ROWS;
use crate::description::{Described, Description, Shape, restored_watermark};
use crate::windows::{push_late, within_reach};

/// The event time of the row that has passed, as state is read.
pub(crate) const PASSED: &str = "passed_at";

/// Lets a row of each key pass every so often.
pub(crate) struct DeduplicateWithin {
    keys: Vec<usize>,
    within: i64,
    /// The key columns and the time, as state is read.
    schema: SchemaRef,
    encoder: KeyEncoder,
    /// By the start of the pane: a row for each key that has passed in it.
    panes: PaneTables,
    /// The word with the time of what has passed.
    time: usize,
    watermark: Watermark,
    described: Described,
}

impl DeduplicateWithin {
    pub(crate) fn new(stage: &Stage, context: &TaskContext, keys: &[usize], within: i64) -> Result<DeduplicateWithin> {
        let mut fields = key_fields(stage, keys);
        fields.push(Field::new(PASSED, DataType::Timestamp(TimeUnit::Microsecond, None), false));
        let schema: SchemaRef = Arc::new(Schema::new(fields));
        let encoder = KeyEncoder::new(&types_of(stage, keys)).map_err(state_error)?;
        let mut layout = RowLayout::builder(encoder.kind().clone());
        let time = layout.words(1);
        let layout = layout.finish(&format!("deduplicate within {within}")).map_err(state_error)?;
        let options = TableOptions {
            groups: context.groups.clone(),
            state: 0,
            is_persistent: context.is_persistent,
            tracks_changes: false,
        };
        let panes = PaneTables::new(Arc::new(layout), options);
        let shape = Shape::Deduplicate { keys: keys.len(), within_us: Some(within) };
        let described = Description { schema: Arc::clone(&schema), keeps_pending: false, shape }.described();
        let (keys, watermark) = (keys.to_vec(), Watermark::MIN);
        Ok(DeduplicateWithin { keys, within, schema, encoder, panes, time, watermark, described })
    }

    /// The start of the pane that holds this time.
    fn pane(&self, time: i64) -> i64 {
        time.saturating_sub(time.rem_euclid(self.within))
    }

    /// Judges records of one pane, none of them late; those that pass are added to `passing`.
    fn judge(&mut self, pane: i64, times: &[i64], mut picked: Vec<u32>, passing: &mut Vec<u32>) {
        let before = pane.checked_sub(1).map(|time| self.pane(time));
        let after = pane.checked_add(self.within).map(|time| self.pane(time));
        for beside in [before, after].into_iter().flatten() {
            let Some(table) = self.panes.pane(beside) else { continue };
            let (rows, found) = table.find_selected(self.encoder.batch(), &picked[..]);
            let is_near = |(row, record): (usize, &u32)| {
                let passed = rows.word(row, self.time) as i64;
                let apart = times[*record as usize].saturating_sub(passed).saturating_abs();
                (apart < self.within).then_some(*record)
            };
            let mut near = found.iter().enumerate().filter_map(is_near).peekable();
            picked.retain(|record| near.next_if_eq(record).is_none());
        }
        for picked in picked.chunks(LOOKUP_ROWS_MAX) {
            let table = self.panes.open(pane);
            let unknown = unknown(table, &self.encoder, picked);
            let mut rows = table.find_or_insert(self.encoder.batch(), &unknown[..]);
            let inserted = rows.inserted().to_vec();
            for index in inserted {
                let record = unknown[index as usize];
                rows.row(index as usize)[self.time] = times[record as usize] as u64;
                passing.push(record);
            }
        }
    }

    /// Drops the panes that no row can be near to any more.
    fn drop_panes(&mut self) {
        let reach = self.within.saturating_mul(2) - 1;
        while let Some(first) = self.panes.first()
            && (self.watermark == Watermark::MAX || first.saturating_add(reach) <= self.watermark.0)
        {
            self.panes.close(first);
        }
    }

    /// The keys that are kept, and when their row has passed.
    pub(crate) fn kept(&mut self) -> Result<Vec<RecordBatch>> {
        let types: Vec<DataType> =
            self.schema.fields()[..self.keys.len()].iter().map(|field| field.data_type().clone()).collect();
        let decoder = KeyDecoder::new(&types).map_err(state_error)?;
        let starts: Vec<i64> = self.panes.starts().collect();
        let mut batches = Vec::new();
        for start in starts {
            let mut cursor = Cursor::default();
            loop {
                let rows = self.panes.open(start).scan(&mut cursor, EMIT_ROWS);
                if rows.is_empty() {
                    break;
                }
                let mut columns = decoder.decode(&rows).map_err(state_error)?;
                let times: Vec<i64> = rows.words(self.time).into_iter().map(|word| word as i64).collect();
                let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(times));
                columns.push(times);
                batches.push(records(&self.schema, columns)?.data().clone());
            }
        }
        Ok(batches)
    }
}

impl Operator for DeduplicateWithin {
    fn on_batch(&mut self, _input: usize, batch: Batch, out: &mut Outbox) -> Result<Progress> {
        let batch = within_reach(batch, self.within.saturating_mul(2), None, out)?;
        encode(&mut self.encoder, &self.keys, &batch)?;
        let times = batch.times().ok_or_else(|| Error::internal("deduplicate(within=…) needs event time"))?.clone();
        let (mut passing, mut late) = (Vec::new(), Vec::new());
        let (mut pane, mut picked) = (0, Vec::new());
        for (record, &time) in times.iter().enumerate() {
            let behind = batch.behind().map_or(i64::MIN, |behind| behind[record]);
            if time < behind.max(self.watermark.0) {
                late.push(record as u32);
                continue;
            }
            let of = if !picked.is_empty() && time >= pane && time.saturating_sub(pane) < self.within { pane } else { self.pane(time) };
            if of != pane && !picked.is_empty() {
                self.judge(pane, &times, std::mem::take(&mut picked), &mut passing);
            }
            pane = of;
            picked.push(record as u32);
        }
        if !picked.is_empty() {
            self.judge(pane, &times, picked, &mut passing);
        }
        push_late(&batch, late, out)?;
        pass(batch, passing, out)?;
        Ok(Progress::Done)
    }

    fn on_watermark(&mut self, _input: usize, at: Watermark, _out: &mut Outbox) -> Result<Progress> {
        self.watermark = self.watermark.max(at);
        self.drop_panes();
        Ok(Progress::Done)
    }

    fn snapshot(&mut self, snapshot: &mut Snapshot) -> Result<()> {
        self.panes.snapshot(snapshot.is_full, &mut snapshot.blocks);
        snapshot.bytes = Some(self.described.of(&self.watermark.0.to_le_bytes()));
        Ok(())
    }

    fn restore(&mut self, restored: &Restored) -> Result<()> {
        self.watermark = restored_watermark(restored)?;
        self.panes.restore(&restored.blocks).map_err(state_error)
    }
}
