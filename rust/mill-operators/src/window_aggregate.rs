//! `window(tumbling).agg`: one result a key and window.
//!
//! ```text
//!   records ──window_start──► pane ──► row of the key            one table a pane
//!   watermark > window_end - 1 + allowed lateness ──► the pane's rows go out, the pane is dropped
//!   late records ──► port 1, as they came
//! ```
//!
//! A window gives its results once. Panes fire in order of time, each in chunks; the watermark passes on when the last one
//! it completes is out, and never beyond the results that windows may still have which wait for late records: those are
//! not late for the next step. Where partial results come in, their maker has decided about lateness.

use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, SchemaRef, TimeUnit};
use mill_plan::{AggregateSpec, Stage, type_name};
use mill_protocol::{
    Batch, Error, Operator, Outbox, Progress, Restored, Result, Snapshot, TaskContext, Watermark,
};
use mill_state::{Cursor, Span, TableOptions};

use crate::accumulator::{GroupOptions, Groups, records};
use crate::aggregate::EMIT_ROWS;
use crate::description::{Described, Description, Shape, own};
use crate::slice::{Slicer, Slices, push_late};

/// Keeps one row of accumulators a key and open window.
pub(crate) struct WindowAggregate {
    groups: Groups,
    schema: SchemaRef,
    keys: usize,
    is_partial: bool,
    slicer: Slicer,
    watermark: Watermark,
    described: Described,
    /// The pane that is going out, and how far it is.
    firing: Option<(i64, Cursor)>,
}

impl WindowAggregate {
    pub(crate) fn new(
        stage: &Stage,
        context: &TaskContext,
        keys: &[usize],
        aggregates: &[AggregateSpec],
        is_partial: bool,
        slicer: Slicer,
    ) -> Result<WindowAggregate> {
        let key_types: Vec<_> =
            stage.schema.fields()[..keys.len()].iter().map(|field| field.data_type().clone()).collect();
        let options = GroupOptions {
            table: TableOptions {
                groups: context.groups.clone(),
                part: 0,
                is_persistent: context.is_persistent,
                tracks_changes: false,
            },
            is_partial,
            keeps_pending: false,
            is_ahead: false,
        };
        let groups = Groups::new(keys, &key_types, aggregates, &options)?;
        let schema = stage.schema.clone();
        let watermark = Watermark::MIN;
        let keys = keys.len();
        let shape = Shape::Aggregate { keys, aggregates: aggregates.to_vec(), window: Some(slicer.window) };
        let described = Description { schema: schema.clone(), keeps_pending: false, shape }.described();
        Ok(WindowAggregate { groups, schema, keys, is_partial, slicer, watermark, described, firing: None })
    }

    /// The windows that the maker of partial results has named.
    fn slices_of_partials(&self, batch: &Batch) -> Result<Slices> {
        let starts = batch.column(0).as_primitive_opt::<Int64Type>();
        let starts = starts.ok_or_else(|| Error::internal("partial results begin with the start of their window"))?;
        let is_late = |start| self.watermark != Watermark::MIN && self.slicer.is_complete(start, self.watermark);
        let starts = starts.values();
        let mut slices = Slices::default();
        // Results come window by window, mostly of one: it is asked for once for all that follow each other.
        if let Some(&first) = starts.first()
            && !is_late(first)
            && starts.iter().all(|&start| start == first)
        {
            slices.whole = Some(first);
            return Ok(slices);
        }
        let mut records = 0..0;
        for run in starts.chunk_by(|one, next| one == next) {
            let start = run[0];
            records = records.end..records.end + run.len() as u32;
            if is_late(start) {
                slices.late.extend(records.clone());
                continue;
            }
            match slices.windows.iter_mut().rev().find(|(of, _)| *of == start) {
                Some((_, window)) => window.extend(records.clone()),
                None => slices.windows.push((start, records.clone().collect())),
            }
        }
        Ok(slices)
    }

    fn fire(&mut self, out: &mut Outbox) -> Result<Progress> {
        loop {
            let (pane, mut cursor) = match self.firing.take() {
                Some(firing) => firing,
                None => match self.groups.panes().first() {
                    Some(first) if self.slicer.is_complete(first, self.watermark) => (first, Cursor::default()),
                    _ => return Ok(Progress::Done),
                },
            };
            let Some((mut columns, results)) = self.groups.results(pane, &mut cursor, EMIT_ROWS, false)? else {
                self.groups.close(pane);
                continue;
            };
            let rows = results.first().or(columns.first()).map_or(0, |column| column.len());
            let end = self.slicer.window.end_of(pane);
            columns.push(time_column(pane, rows, self.schema.field(self.keys).data_type())?);
            columns.push(time_column(end, rows, self.schema.field(self.keys + 1).data_type())?);
            columns.extend(results);
            let times = std::iter::repeat_n(end.saturating_sub(1), rows).collect();
            out.push(records(&self.schema, columns)?.with_times(Some(times)));
            self.firing = Some((pane, cursor));
            return Ok(Progress::More);
        }
    }
}

/// A time in microseconds as a column of this type.
fn time_column(time_us: i64, rows: usize, data_type: &DataType) -> Result<ArrayRef> {
    let time = match data_type {
        DataType::Timestamp(TimeUnit::Second, _) => Some(time_us.div_euclid(1_000_000)),
        DataType::Timestamp(TimeUnit::Millisecond, _) => Some(time_us.div_euclid(1000)),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => time_us.checked_mul(1000),
        _ => Some(time_us),
    };
    let time = time.ok_or_else(|| {
        Error::data(format!(
            "a window that begins or ends {time_us} microseconds from 1970 is out of range for {}; cast the event time to \
             mill.Timestamp(\"us\") before event_time()",
            type_name(data_type)
        ))
    })?;
    let array: ArrayRef = std::sync::Arc::new(Int64Array::from_value(time, rows));
    cast(&array, data_type).map_err(|error| Error::internal(error.to_string()))
}

impl Operator for WindowAggregate {
    fn on_batch(&mut self, _input: usize, batch: Batch, out: &mut Outbox) -> Result<Progress> {
        let slices =
            if self.is_partial { self.slices_of_partials(&batch)? } else { self.slicer.slice(&batch, self.watermark)? };
        self.groups.prepare(batch.data())?;
        if let Some(pane) = slices.whole {
            self.groups.update_span(pane, Span { start: 0, len: batch.rows() })?;
        }
        for (pane, records) in &slices.windows {
            self.groups.update_picked(*pane, records)?;
        }
        self.groups.reject_problems(batch.data(), out);
        if self.is_partial {
            out.count_late(slices.late.len() as u64);
        } else {
            push_late(&batch, slices.late, out)?;
        }
        Ok(Progress::Done)
    }

    fn on_watermark(&mut self, _input: usize, at: Watermark, out: &mut Outbox) -> Result<Progress> {
        self.watermark = self.watermark.max(at);
        self.fire(out)
    }

    fn earliest_result(&self) -> Watermark {
        self.slicer.earliest_result(self.watermark)
    }

    fn on_end(&mut self, out: &mut Outbox) -> Result<Progress> {
        self.on_watermark(0, Watermark::MAX, out)
    }

    fn resume(&mut self, out: &mut Outbox) -> Result<Progress> {
        self.fire(out)
    }

    fn snapshot(&mut self, snapshot: &mut Snapshot) -> Result<()> {
        self.groups.snapshot(snapshot);
        snapshot.bytes = Some(self.described.of(&self.watermark.0.to_le_bytes()));
        Ok(())
    }

    fn restore(&mut self, restored: &Restored) -> Result<()> {
        let mut least: Option<i64> = None;
        for bytes in &restored.bytes {
            let own = own(bytes)?;
            let bytes: [u8; 8] = own.try_into().map_err(|_| {
                Error::checkpoint(format!("the watermark of a window has 8 bytes, found {}", own.len()))
            })?;
            let at = i64::from_le_bytes(bytes);
            least = Some(least.map_or(at, |least| least.min(at)));
        }
        // At an aligned barrier all instances have the same; without alignment nothing may be lost.
        self.watermark = least.map_or(Watermark::MIN, Watermark);
        self.groups.restore(restored)
    }
}

#[cfg(test)]
mod tests;
