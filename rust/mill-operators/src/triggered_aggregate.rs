//! `window(…, trigger=).agg`, and `.agg` of windows that no watermark completes: one row of accumulators a key and window.
//!
//! ```text
//!   record ──assign──► row of (key, window): accumulators, and how many records it is of      `assign`, `Groups::update_counted`
//!                           ├──► a result after so many records, amid the batch if need be
//!                           └──► noted as changed ──► a result after the batch, or by processing time       `windows::Triggers`
//!
//!   watermark ──► windows that have ended ──► a result each, if late records lead to others                  `open`
//!            └──► windows that take no more records ──► what has not been emitted; their rows go
//! ```
//!
//! It serves windows whose bounds follow from the time of a record, with a trigger; the global window; and windows of so many
//! records that do not overlap. A result costs what one row costs, however many records it is of. For aggregates that keep all
//! their values, and for functions of whole windows, there is [`kept_windows`](crate::kept_windows); what a trigger emits is
//! the same there.
//!
//! Invariants:
//!
//! - Rows are all that a checkpoint holds: which windows are open and which have changed follows from them.
//! - Each row of a window of event time is listed under its window once. No row outlives its window.
//! - A row that has changed and waits for a trigger is noted with that trigger, though it may be noted in vain.

mod assign;
mod open;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::compute::concat;
use arrow::datatypes::{DataType, Int64Type, SchemaRef};
use mill_plan::{AggregateSpec, CountWindow, Firing, KeptWindow, KeptWindowSpec, Stage};
use mill_protocol::{Batch, Error, Operator, Outbox, Progress, Restored, Result, Snapshot, TaskContext, Watermark};
use mill_state::{Cursor, TableOptions};

use crate::accumulator::{GroupOptions, Groups, Results, Tally, UnfitRow, records};
use crate::aggregate::EMIT_ROWS;
use crate::description::{Described, Description, Shape, own};
use crate::windows::{Aligned, Timing, Triggers, push_late, time_values, within_reach};
use assign::assign;
use open::{Listed, OpenWindows};

/// How many columns come between the keys and the results of an emission: the number of the result and its timing.
const BESIDE: usize = 2;

/// Keeps one row of accumulators a key and window.
pub(crate) struct TriggeredAggregate {
    /// The key columns of the input.
    keys: Vec<usize>,
    spec: KeptWindowSpec,
    /// Of windows of event time.
    aligned: Option<Aligned>,
    schema: SchemaRef,
    /// The last key column is the end of the window, of windows of event time.
    groups: Groups,
    open: OpenWindows,
    triggers: Triggers<Listed>,
    watermark: Watermark,
    work: Option<Work>,
    described: Described,
}

/// What is under way while the operator says that there is more.
enum Work {
    /// Windows that the watermark completes, or whose end it has reached.
    Due,
    /// Rows that a trigger fires, the last list first, and how many rows of that have been.
    Changed(Vec<(Timing, Listed)>, usize),
    /// All rows, at the end.
    End(Cursor),
}

impl TriggeredAggregate {
    pub(crate) fn new(
        stage: &Stage,
        context: &TaskContext,
        keys: &[usize],
        aggregates: &[AggregateSpec],
        spec: &KeptWindowSpec,
    ) -> Result<TriggeredAggregate> {
        if !spec.is_of_rows(aggregates) {
            return Err(Error::internal("these windows keep their records"));
        }
        let aligned = match spec.window {
            KeptWindow::Aligned(window) => Some(Aligned::new(window, spec.allowed_lateness_us)),
            _ => None,
        };
        let mut types: Vec<DataType> = stage.schema.fields()[..keys.len()].iter().map(|field| field.data_type().clone()).collect();
        let mut places = keys.to_vec();
        if aligned.is_some() {
            types.push(DataType::Int64);
            // The end is none of the record's columns.
            places.push(usize::MAX);
        }
        let options = GroupOptions {
            table: TableOptions {
                groups: context.groups.clone(),
                state: 0,
                is_persistent: context.is_persistent,
                tracks_changes: false,
            },
            is_partial: false,
            keeps_pending: false,
            is_ahead: false,
            is_timed: aligned.is_some(),
            owner_columns: Some(keys.len()),
            has_tally: true,
            carries_at: None,
        };
        let shape = Shape::Triggered { keys: keys.len(), spec: *spec, aggregates: aggregates.to_vec() };
        Ok(TriggeredAggregate {
            keys: keys.to_vec(),
            spec: *spec,
            aligned,
            schema: Arc::clone(&stage.schema),
            groups: Groups::new(&places, &types, aggregates, &options)?,
            open: OpenWindows::default(),
            triggers: Triggers::new(spec.trigger),
            watermark: Watermark::MIN,
            work: None,
            described: Description { schema: Arc::clone(&stage.schema), keeps_pending: false, shape }.described(),
        })
    }

    /// Whether results have `pane` and `pane_timing`.
    fn has_panes(&self) -> bool {
        !self.spec.trigger.is_default()
    }

    /// Takes records, with the ends of their windows if these are of event time.
    fn take(&mut self, batch: &Batch, ends: Option<&[i64]>, out: &mut Outbox) -> Result<()> {
        if ends.is_some() {
            self.groups.times(batch.times().map(|times| &times[..]));
        }
        let last = ends.map(|ends| Arc::new(Int64Array::from(ends.to_vec())) as ArrayRef);
        self.groups.prepare_keys(batch.data(), last, None)?;
        let mut noted: Vec<(u32, Timing)> = Vec::new();
        let results = if let KeptWindow::Count(CountWindow { rows, .. }) = self.spec.window {
            let fill = |_: usize, tally: &mut Tally| tally.fill(rows);
            self.groups.update_counted(batch.rows(), true, fill)?
        } else {
            let times = Times { watermark: self.watermark, fires_late: self.spec.trigger.late.is_some() };
            let firings = [Timing::Early, Timing::OnTime, Timing::Late].map(|timing| self.triggers.firing(timing));
            let count = |record: usize, tally: &mut Tally| {
                tally.records += 1;
                let timing = ends.map_or(Timing::Early, |ends| times.now(ends[record]));
                match firings[timing as usize] {
                    Some(Firing::Rows(rows)) if tally.new_records() >= rows => Some(tally.emit(times.first(timing, tally))),
                    Some(Firing::Every(_) | Firing::Each) if tally.new_records() == 1 => {
                        noted.push((record as u32, timing));
                        None
                    }
                    Some(_) | None => None,
                }
            };
            self.groups.update_counted(batch.rows(), false, count)?
        };
        let firsts = self.groups.take_firsts();
        if let Some(ends) = ends {
            self.open.add_of(&self.groups, firsts, ends);
        }
        for (record, timing) in noted {
            if let Some(changed) = self.triggers.waiting(timing) {
                changed.push_of(&self.groups, record, ends.map_or(i64::MAX, |ends| ends[record as usize]));
            }
        }
        self.groups.reject_problems(batch.data(), out);
        self.emit_all(results, out)
    }

    fn times(&self) -> Times {
        Times { watermark: self.watermark, fires_late: self.spec.trigger.late.is_some() }
    }

    fn go_on(&mut self, out: &mut Outbox) -> Result<Progress> {
        let Some(work) = self.work.take() else { return Ok(Progress::Done) };
        self.work = match work {
            Work::Due => self.fire_due(out)?.then_some(Work::Due),
            Work::Changed(mut lists, mut from) => {
                let Some((timing, listed)) = lists.last() else { return Ok(Progress::Done) };
                let until = listed.len().min(from + EMIT_ROWS);
                self.fire_changed(*timing, listed, from..until, out)?;
                from = until;
                if until == listed.len() {
                    lists.pop();
                    from = 0;
                }
                (!lists.is_empty()).then_some(Work::Changed(lists, from))
            }
            Work::End(cursor) => self.emit_rest(cursor, out)?.map(Work::End),
        };
        Ok(if self.work.is_some() { Progress::More } else { Progress::Done })
    }

    /// Fires rows of windows that the watermark completes or whose end it has reached; whether there may be more.
    fn fire_due(&mut self, out: &mut Outbox) -> Result<bool> {
        let Some(aligned) = self.aligned else { return Ok(false) };
        let (at, fires_late) = (self.watermark, self.spec.trigger.late.is_some());
        let over = self.open.take(|end| aligned.is_complete(end, at), EMIT_ROWS);
        if over.len() > 0 {
            let last = |_: usize, tally: &mut Tally| match tally.is_on_time {
                false => Some(tally.emit(Timing::OnTime)),
                true => (tally.new_records() > 0).then(|| tally.emit(Timing::Late)),
            };
            let results = self.groups.emit_written(over.keys.iter(), true, last)?;
            self.emit_all(results.into_iter().collect(), out)?;
            return Ok(true);
        }
        if !fires_late {
            return Ok(false);
        }
        let ended = self.open.ask(at.0, EMIT_ROWS);
        if ended.len() == 0 {
            return Ok(false);
        }
        let on_time = |_: usize, tally: &mut Tally| (!tally.is_on_time).then(|| tally.emit(Timing::OnTime));
        let results = self.groups.emit_written(ended.keys.iter(), false, on_time)?;
        self.emit_all(results.into_iter().collect(), out)?;
        Ok(true)
    }

    /// Fires those of these rows that have changed, where the trigger of this timing is the one that they still wait for.
    fn fire_changed(&mut self, of: Timing, listed: &Listed, range: std::ops::Range<usize>, out: &mut Outbox) -> Result<()> {
        let (times, first) = (self.times(), range.start);
        let changed = |place: usize, tally: &mut Tally| {
            let timing = times.now(listed.ends[first + place]);
            (timing == of && tally.new_records() > 0).then(|| tally.emit(times.first(timing, tally)))
        };
        let results = self.groups.emit_written(range.map(|key| listed.keys.get(key)), false, changed)?;
        self.emit_all(results.into_iter().collect(), out)
    }

    /// Emits what is left at the end; where to go on.
    fn emit_rest(&mut self, mut cursor: Cursor, out: &mut Outbox) -> Result<Option<Cursor>> {
        // A window that has had the result of its end is only read here to be looked at.
        let rest = |tally: &Tally| tally.next(if tally.is_on_time { Timing::Late } else { Timing::OnTime });
        match self.groups.counted_results(&mut cursor, EMIT_ROWS, rest)? {
            Some(results) => {
                self.emit_all(vec![results], out)?;
                Ok(Some(cursor))
            }
            None => {
                self.groups.close(0);
                Ok(None)
            }
        }
    }

    /// Emits all rows as they are, as if the input ended.
    pub(crate) fn emit_rows(&mut self, out: &mut Outbox) -> Result<Progress> {
        self.work = Some(Work::End(Cursor::default()));
        self.go_on(out)
    }

    /// Emits results, some at a time, and rejects those that do not fit.
    fn emit_all(&mut self, results: Vec<Results>, out: &mut Outbox) -> Result<()> {
        let (schema, keys, aligned) = (Arc::clone(&self.schema), self.keys.len(), self.aligned);
        let bounds = |row: &UnfitRow| match (&aligned, row.keys.last()) {
            (Some(aligned), Some(end)) => bound_columns(aligned, ends_of(end)?, &schema, keys),
            _ => Ok(Vec::new()),
        };
        self.groups.reject_unfit(&self.schema, bounds, out)?;
        let (mut gathered, mut rows) = (Vec::new(), 0);
        for piece in results {
            rows += piece.0.last().map_or(0, |column| column.len());
            gathered.push(piece);
            if rows >= EMIT_ROWS {
                self.emit(std::mem::take(&mut gathered), out)?;
                rows = 0;
            }
        }
        self.emit(gathered, out)
    }

    fn emit(&self, results: Vec<Results>, out: &mut Outbox) -> Result<()> {
        let Some((mut columns, results)) = together(results)? else { return Ok(()) };
        let beside = columns.split_off(columns.len() - BESIDE);
        if beside[0].is_empty() {
            return Ok(());
        }
        let mut times = None;
        if let Some(aligned) = &self.aligned {
            let ends = columns.pop().ok_or_else(|| Error::internal("rows of windows have their end"))?;
            let ends = ends_of(&ends)?;
            columns.extend(bound_columns(aligned, ends, &self.schema, self.keys.len())?);
            times = Some(ends.iter().map(|end| end.saturating_sub(1)).collect());
        }
        if self.has_panes() {
            columns.extend(beside);
        }
        columns.extend(results);
        out.push(records(&self.schema, columns)?.with_times(times));
        Ok(())
    }
}

/// What decides about the timing of results.
#[derive(Clone, Copy)]
struct Times {
    watermark: Watermark,
    /// Whether a window has a result when the watermark reaches its end, and others for records that come later.
    fires_late: bool,
}

impl Times {
    /// The timing of what comes into a window with this end now.
    #[inline(always)]
    fn now(self, end: i64) -> Timing {
        if self.fires_late && self.watermark.0 >= end && end < i64::MAX { Timing::Late } else { Timing::Early }
    }

    /// What a result at this timing counts as: after the end the first is that of the end.
    #[inline(always)]
    fn first(self, timing: Timing, tally: &Tally) -> Timing {
        if timing == Timing::Late && !tally.is_on_time { Timing::OnTime } else { timing }
    }
}

fn ends_of(column: &ArrayRef) -> Result<&[i64]> {
    let ends = column.as_primitive_opt::<Int64Type>();
    ends.map(|ends| &ends.values()[..]).ok_or_else(|| Error::internal("ends of windows are numbers"))
}

/// `window_start` and `window_end` of windows with these ends. They come in `schema` after so many keys.
fn bound_columns(windows: &Aligned, ends: &[i64], schema: &SchemaRef, keys: usize) -> Result<Vec<ArrayRef>> {
    Ok(vec![
        time_values(ends.iter().map(|&end| Some(windows.start_of(end))), schema.field(keys).data_type())?,
        time_values(ends.iter().map(|&end| Some(end)), schema.field(keys + 1).data_type())?,
    ])
}

/// Results as one.
fn together(mut results: Vec<Results>) -> Result<Option<Results>> {
    if results.len() < 2 {
        return Ok(results.pop());
    }
    let of = |side: fn(&Results) -> &Vec<ArrayRef>| {
        let columns = 0..side(&results[0]).len();
        let joined = columns.map(|place| concat(&results.iter().map(|piece| side(piece)[place].as_ref()).collect::<Vec<_>>()));
        joined.collect::<std::result::Result<Vec<_>, _>>().map_err(|error| Error::internal(error.to_string()))
    };
    Ok(Some((of(|piece| &piece.0)?, of(|piece| &piece.1)?)))
}

impl Operator for TriggeredAggregate {
    fn on_batch(&mut self, _input: usize, batch: Batch, out: &mut Outbox) -> Result<Progress> {
        let Some(aligned) = self.aligned else {
            self.take(&batch, None, out)?;
            return self.fire_noted(out);
        };
        let bound_type = self.schema.field(self.keys.len()).data_type();
        let batch = within_reach(batch, aligned.reach(), Some(bound_type), out)?;
        let (mut late, mut next) = (Vec::new(), 0);
        while next < batch.rows() {
            let pairs = assign(&aligned, &batch, self.watermark, next, &mut late)?;
            next = pairs.next;
            match pairs.records {
                None => self.take(&batch, Some(&pairs.ends), out)?,
                Some(records) if records.is_empty() => {}
                Some(records) => {
                    let taken = batch.take(&records.into()).map_err(|error| Error::internal(error.to_string()))?;
                    self.take(&taken, Some(&pairs.ends), out)?;
                }
            }
        }
        push_late(&batch, late, out)?;
        self.fire_noted(out)
    }

    fn on_watermark(&mut self, _input: usize, at: Watermark, out: &mut Outbox) -> Result<Progress> {
        self.watermark = self.watermark.max(at);
        self.work = Some(Work::Due);
        self.go_on(out)
    }

    fn earliest_result(&self) -> Watermark {
        self.aligned.map_or(Watermark::MAX, |aligned| aligned.earliest_result(self.watermark))
    }

    fn next_time(&self) -> Option<i64> {
        self.triggers.next_time()
    }

    fn on_time(&mut self, now: i64, out: &mut Outbox) -> Result<Progress> {
        let due = self.triggers.on_time(now);
        self.fire_lists(due, out)
    }

    fn on_end(&mut self, out: &mut Outbox) -> Result<Progress> {
        match self.spec.window {
            KeptWindow::Aligned(_) => self.on_watermark(0, Watermark::MAX, out),
            KeptWindow::Count(CountWindow { is_partial: false, .. }) => {
                self.groups.close(0);
                Ok(Progress::Done)
            }
            _ => self.emit_rows(out),
        }
    }

    fn resume(&mut self, out: &mut Outbox) -> Result<Progress> {
        self.go_on(out)
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
            let Ok(bytes) = <[u8; 8]>::try_from(own) else { return Err(unreadable(bytes)) };
            let at = i64::from_le_bytes(bytes);
            least = Some(least.map_or(at, |least| least.min(at)));
        }
        // At an aligned barrier all instances have the same; without alignment nothing may be lost.
        self.watermark = least.map_or(Watermark::MIN, Watermark);
        self.groups.restore(restored)?;
        self.open.clear();
        self.triggers.clear();
        let times = self.times();
        let mut cursor = Cursor::default();
        while let Some((columns, keys, tallies)) = self.groups.counted_keys(&mut cursor)? {
            let ends = match (&self.aligned, columns.last()) {
                (Some(_), Some(ends)) => Some(ends_of(ends)?),
                _ => None,
            };
            for (place, tally) in tallies.iter().enumerate() {
                let end = ends.map_or(i64::MAX, |ends| ends[place]);
                if ends.is_some() {
                    self.open.add(keys.get(place), end);
                }
                if tally.new_records() > 0
                    && let Some(changed) = self.triggers.waiting(times.now(end))
                {
                    changed.push(keys.get(place), end);
                }
            }
        }
        Ok(())
    }
}

impl TriggeredAggregate {
    /// Fires rows that wait for the end of the batch.
    fn fire_noted(&mut self, out: &mut Outbox) -> Result<Progress> {
        let due = self.triggers.after_batch();
        self.fire_lists(due, out)
    }

    fn fire_lists(&mut self, lists: Vec<(Timing, Listed)>, out: &mut Outbox) -> Result<Progress> {
        let lists: Vec<_> = lists.into_iter().filter(|(_, listed)| listed.len() > 0).collect();
        if lists.is_empty() {
            return Ok(Progress::Done);
        }
        self.work = Some(Work::Changed(lists, 0));
        self.go_on(out)
    }
}

/// Why the state of an instance is of no use.
fn unreadable(bytes: &[u8]) -> Error {
    match Description::read(bytes) {
        Ok(Description { shape: Shape::Kept { .. }, .. }) => Error::checkpoint(
            "the windows of this step kept their records when the checkpoint was written, and this version of Millstream keeps a row of \
             accumulators of each; go on with the version of Millstream that wrote it, or give an empty directory",
        ),
        Ok(_) | Err(_) => Error::checkpoint("the watermark of a window has 8 bytes, and the state of this one is of another length"),
    }
}

#[cfg(test)]
mod tests;
