//! `window(tumbling | sliding | cumulative).agg`: one result a key and window.
//!
//! ```text
//!   records ──assign──► window tables: row of the key             of one window each
//!                └────► pane tables: row of the key ──combine──►  shared by windows that overlap
//!   watermark > window_end - 1 + allowed lateness ──► the window's rows go out; panes that no window needs are dropped
//!   late records ──► port 1, as they came
//! ```
//!
//! A window has its results once. Windows fire in the order of their ends, each in chunks; the watermark passes on when
//! the last one it completes is out, and never beyond the results that windows may still have which wait for late
//! records: those are not late for the next step. Where partial results come in, their maker has decided about lateness.
//!
//! Overlapping windows share panes if their aggregates can be merged. If not, a record goes into a table of each of its
//! windows.

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, SchemaRef, TimeUnit};
use mill_plan::{AggregateSpec, Stage, WindowSpec, type_name};
use mill_protocol::{
    Batch, Error, Operator, Outbox, Progress, Restored, Result, Snapshot, TaskContext, Watermark,
};
use mill_state::{Cursor, Span, TableOptions};

use crate::accumulator::{GroupOptions, Groups, records};
use crate::aggregate::EMIT_ROWS;
use crate::description::{Described, Description, Shape, own};
use crate::windows::{Aligned, Assigned, Assigner, Combiner, Part, push_late, shares_panes};

/// Keeps one row of accumulators a key and open window, or a key and pane.
pub(crate) struct WindowAggregate {
    /// Tables of single windows, by their id.
    windows: Groups,
    /// Tables of panes, by their start, if windows share them.
    shared: Option<Shared>,
    schema: SchemaRef,
    keys: usize,
    is_partial: bool,
    assigner: Assigner,
    watermark: Watermark,
    described: Described,
    firing: Option<Firing>,
}

/// Panes that windows share.
struct Shared {
    panes: Groups,
    combiner: Combiner,
    /// Windows with ends up to this one have had their results.
    fired: i64,
}

/// The window that is going out, and how far it is.
struct Firing {
    end: i64,
    cursor: Cursor,
    from: From,
}

/// Where the rows of a window are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum From {
    /// In the table of the window.
    Window,
    /// In the total of the combiner.
    Total,
    /// In that total with the table of the window added.
    Mixed,
}

impl WindowAggregate {
    pub(crate) fn new(
        stage: &Stage,
        context: &TaskContext,
        keys: &[usize],
        aggregates: &[AggregateSpec],
        is_partial: bool,
        spec: &WindowSpec,
    ) -> Result<WindowAggregate> {
        let windows = Aligned::of(spec);
        let assigner = Assigner { windows, shares_panes: shares_panes(&windows, aggregates) };
        let key_types: Vec<_> =
            stage.schema.fields()[..keys.len()].iter().map(|field| field.data_type().clone()).collect();
        let groups = |state| {
            let table = TableOptions {
                groups: context.groups.clone(),
                state,
                is_persistent: context.is_persistent,
                tracks_changes: false,
            };
            let options = GroupOptions { table, is_partial, keeps_pending: false, is_ahead: false, carries_at: None };
            Groups::new(keys, &key_types, aggregates, &options)
        };
        let shared = if assigner.shares_panes {
            let combiner = Combiner::new(&key_types, aggregates, windows.is_cumulative())?;
            Some(Shared { panes: groups(1)?, combiner, fired: i64::MIN })
        } else {
            None
        };
        let shape = Shape::Aggregate { keys: keys.len(), aggregates: aggregates.to_vec(), window: Some(*spec) };
        Ok(WindowAggregate {
            windows: groups(0)?,
            shared,
            schema: stage.schema.clone(),
            keys: keys.len(),
            is_partial,
            assigner,
            watermark: Watermark::MIN,
            described: Description { schema: stage.schema.clone(), keeps_pending: false, shape }.described(),
            firing: None,
        })
    }

    /// The tables that the maker of partial results has named.
    fn parts_of_partials(&self, batch: &Batch) -> Result<Assigned> {
        let starts = batch.column(0).as_primitive_opt::<Int64Type>();
        let starts = starts.ok_or_else(|| Error::internal("partial results begin with the start of their window"))?;
        let starts = starts.values();
        // Windows that overlap have a column that says whether the start is that of a window, and not of a pane.
        let is_window = match &self.shared {
            None => None,
            Some(_) => {
                let column = batch.column(1).as_boolean_opt();
                let column = column.ok_or_else(|| Error::internal("partial results of panes say which are of windows"))?;
                (column.true_count() > 0).then(|| column.values().clone())
            }
        };
        let windows = &self.assigner.windows;
        let parts_of = |start: i64, is_window: bool, parts: &mut Vec<Part>| {
            parts.clear();
            if self.shared.is_some() && !is_window {
                self.assigner.parts_of_pane(start, self.watermark, parts);
            } else if !windows.is_complete(windows.end_of(start), self.watermark) {
                parts.push(Part::Window(start));
            }
        };
        let mut parts = Vec::new();
        // Results come part by part, mostly of one: it is asked for once for all that follow each other.
        if let Some(&first) = starts.first()
            && is_window.is_none()
            && starts.iter().all(|&start| start == first)
        {
            parts_of(first, false, &mut parts);
            if let [part] = parts[..] {
                return Ok(Assigned { whole: Some(part), ..Assigned::default() });
            }
        }
        let mut assigned = Assigned::default();
        let kind = |row: usize| is_window.as_ref().is_some_and(|is_window| is_window.value(row));
        let mut row = 0;
        while row < starts.len() {
            let first = row;
            while row < starts.len() && starts[row] == starts[first] && kind(row) == kind(first) {
                row += 1;
            }
            let records = first as u32..row as u32;
            parts_of(starts[first], kind(first), &mut parts);
            if parts.is_empty() {
                assigned.late.extend(records.clone());
            }
            for &part in &parts {
                match assigned.parts.iter_mut().rev().find(|(of, _)| *of == part) {
                    Some((_, of)) => of.extend(records.clone()),
                    None => assigned.parts.push((part, records.clone().collect())),
                }
            }
        }
        Ok(assigned)
    }

    fn update(&mut self, batch: &Batch, assigned: &Assigned, out: &mut Outbox) -> Result<()> {
        let is_of_pane = |part: &Part| matches!(part, Part::Pane(_));
        let is_of_window = |part: &Part| !is_of_pane(part);
        let parts = || assigned.whole.iter().chain(assigned.parts.iter().map(|(part, _)| part));
        if let Some(shared) = &mut self.shared
            && parts().any(is_of_pane)
        {
            update(&mut shared.panes, batch, assigned, is_of_pane)?;
            shared.panes.reject_problems(batch.data(), out);
        }
        if parts().any(is_of_window) {
            update(&mut self.windows, batch, assigned, is_of_window)?;
            self.windows.reject_problems(batch.data(), out);
        }
        Ok(())
    }

    /// The end of the next window that is complete and may have results.
    fn next_complete(&mut self) -> Option<i64> {
        let windows = &self.assigner.windows;
        let mut next = self.windows.panes().first().map(|id| windows.end_of(id));
        if let Some(shared) = &mut self.shared {
            // Panes whose windows have all fired are of no more use.
            while let Some(first) = shared.panes.panes().first()
                && windows.last_end(first) <= shared.fired
            {
                shared.panes.close(first);
            }
            if let Some(first) = shared.panes.panes().first() {
                let after = if shared.fired == i64::MIN { i64::MIN } else { windows.next_end(shared.fired) };
                let end = windows.pane(first).first_end.max(after);
                next = Some(next.map_or(end, |next| next.min(end)));
            }
        }
        next.filter(|&end| windows.is_complete(end, self.watermark))
    }

    /// Begins to emit the window with this end.
    fn begin(&mut self, end: i64, out: &mut Outbox) -> Result<Firing> {
        let windows = &self.assigner.windows;
        let id = windows.id_of(end);
        let has_own = self.windows.panes().has(id);
        let from = match &mut self.shared {
            None => From::Window,
            Some(shared) => {
                shared.combiner.advance(&mut shared.panes, windows.start_of(end), end, out)?;
                shared.fired = end;
                if has_own {
                    shared.combiner.mix(&mut self.windows, id, out)?;
                    From::Mixed
                } else {
                    From::Total
                }
            }
        };
        Ok(Firing { end, cursor: Cursor::default(), from })
    }

    fn fire(&mut self, out: &mut Outbox) -> Result<Progress> {
        loop {
            let mut firing = match self.firing.take() {
                Some(firing) => firing,
                None => match self.next_complete() {
                    Some(end) => self.begin(end, out)?,
                    None => return Ok(Progress::Done),
                },
            };
            let id = self.assigner.windows.id_of(firing.end);
            let (groups, place) = match (&mut self.shared, firing.from) {
                (Some(shared), From::Total | From::Mixed) => shared.combiner.result(firing.from == From::Mixed),
                _ => (&mut self.windows, id),
            };
            let results = groups.results(place, &mut firing.cursor, EMIT_ROWS, false)?;
            groups.reject_unfit(&self.schema, out)?;
            let Some((mut columns, results)) = results else {
                self.windows.close(id);
                continue;
            };
            let (start, end) = (self.assigner.windows.start_of(firing.end), firing.end);
            let rows = results.first().or(columns.first()).map_or(0, |column| column.len());
            columns.push(time_column(start, rows, self.schema.field(self.keys).data_type())?);
            columns.push(time_column(end, rows, self.schema.field(self.keys + 1).data_type())?);
            columns.extend(results);
            let times = std::iter::repeat_n(end.saturating_sub(1), rows).collect();
            out.push(records(&self.schema, columns)?.with_times(Some(times)));
            self.firing = Some(firing);
            return Ok(Progress::More);
        }
    }
}

/// Takes the records of those parts that these groups keep.
fn update(groups: &mut Groups, batch: &Batch, assigned: &Assigned, is_kept: impl Fn(&Part) -> bool) -> Result<()> {
    let (Part::Pane(place) | Part::Window(place)) = assigned.whole.unwrap_or(Part::Window(0));
    groups.prepare(batch.data())?;
    if assigned.whole.is_some() {
        groups.update_span(place, Span { start: 0, len: batch.rows() })?;
    }
    for (part, records) in assigned.parts.iter().filter(|(part, _)| is_kept(part)) {
        let (Part::Pane(place) | Part::Window(place)) = *part;
        groups.update_picked(place, records)?;
    }
    Ok(())
}

/// A time in microseconds as a column of this type.
pub(crate) fn time_column(time_us: i64, rows: usize, data_type: &DataType) -> Result<ArrayRef> {
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
        let assigned = if self.is_partial {
            self.parts_of_partials(&batch)?
        } else {
            self.assigner.assign(&batch, self.watermark)?
        };
        self.update(&batch, &assigned, out)?;
        if self.is_partial {
            out.count_late(assigned.late.len() as u64);
        } else {
            push_late(&batch, assigned.late, out)?;
        }
        Ok(Progress::Done)
    }

    fn on_watermark(&mut self, _input: usize, at: Watermark, out: &mut Outbox) -> Result<Progress> {
        self.watermark = self.watermark.max(at);
        self.fire(out)
    }

    fn earliest_result(&self) -> Watermark {
        self.assigner.windows.earliest_result(self.watermark)
    }

    fn on_end(&mut self, out: &mut Outbox) -> Result<Progress> {
        self.on_watermark(0, Watermark::MAX, out)
    }

    fn resume(&mut self, out: &mut Outbox) -> Result<Progress> {
        self.fire(out)
    }

    fn snapshot(&mut self, snapshot: &mut Snapshot) -> Result<()> {
        self.windows.snapshot(snapshot);
        if let Some(shared) = &mut self.shared {
            shared.panes.snapshot(snapshot);
        }
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
        self.windows.restore(restored)?;
        let Some(shared) = &mut self.shared else { return Ok(()) };
        shared.panes.restore(restored)?;
        shared.combiner.clear();
        // Windows that were complete have fired before the snapshot.
        shared.fired = self.assigner.windows.last_complete(self.watermark);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
