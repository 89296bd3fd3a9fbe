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

use crate::accumulator::{GroupOptions, Groups, Results, Tally, UnfitRow, former_aggregates, records};
use crate::aggregate::EMIT_ROWS;
use crate::description::{Described, Description, Shape, restored_watermark};
use crate::windows::{Aligned, Timing, Triggers, bound_columns, push_late, within_reach};
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
    /// The records of a batch from this one on, and those that have come too late.
    Records(Batch, usize, Vec<u32>),
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
    fn take(&mut self, batch: &Batch, ends: Option<Int64Array>, out: &mut Outbox) -> Result<()> {
        self.groups.times(batch.times().map(|times| &times[..]));
        self.groups.prepare_keys(batch.data(), ends.clone().map(|ends| Arc::new(ends) as ArrayRef), None)?;
        let ends = ends.as_ref().map(|ends| &ends.values()[..]);
        let mut noted: Vec<(u32, Timing)> = Vec::new();
        let results = if let KeptWindow::Count(CountWindow { rows, .. }) = self.spec.window {
            let fill = |_: usize, tally: &mut Tally| tally.fill(rows);
            self.groups.update_counted(batch.rows(), true, fill)?
        } else {
            let times = self.times();
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
            Work::Records(batch, next, late) => self.take_records(batch, next, late, out)?,
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

    /// Takes the next records of a batch, as many as make so many pairs of a record and a window; what is left to be done.
    fn take_records(&mut self, batch: Batch, next: usize, mut late: Vec<u32>, out: &mut Outbox) -> Result<Option<Work>> {
        let Some(aligned) = self.aligned else { return Ok(None) };
        if next < batch.rows() {
            let pairs = assign(&aligned, &batch, self.watermark, next, &mut late)?;
            let ends = Some(Int64Array::from(pairs.ends));
            match pairs.records {
                None => self.take(&batch, ends, out)?,
                Some(records) if records.is_empty() => {}
                Some(records) => {
                    let taken = batch.take(&records.into()).map_err(|error| Error::internal(error.to_string()))?;
                    self.take(&taken, ends, out)?;
                }
            }
            if pairs.next < batch.rows() {
                return Ok(Some(Work::Records(batch, pairs.next, late)));
            }
        }
        push_late(&batch, late, out)?;
        Ok(changed(self.triggers.after_batch()))
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
            let results = self.groups.emit_written(over.iter(), true, last)?;
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
        let results = self.groups.emit_written(ended.iter(), false, on_time)?;
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

    /// Emits what is left at the end; where to continue.
    fn emit_rest(&mut self, mut cursor: Cursor, out: &mut Outbox) -> Result<Option<Cursor>> {
        // Only who looks at the state reads a window here that has had the result of its end: see `emit_rows`.
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
            (Some(aligned), Some(end)) => bound_columns(aligned, ends_of(end)?.to_vec(), &schema, keys).map(Vec::from),
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
            columns.extend(bound_columns(aligned, ends.to_vec(), &self.schema, self.keys.len())?);
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
            self.work = changed(self.triggers.after_batch());
            return self.go_on(out);
        };
        let bound_type = self.schema.field(self.keys.len()).data_type();
        let batch = within_reach(batch, aligned.reach(), Some(bound_type), out)?;
        self.work = Some(Work::Records(batch, 0, Vec::new()));
        self.go_on(out)
    }

    fn on_watermark(&mut self, _input: usize, at: Watermark, out: &mut Outbox) -> Result<Progress> {
        self.watermark = self.watermark.max(at);
        self.work = Some(Work::Due);
        self.go_on(out)
    }

    fn earliest_result(&self) -> Watermark {
        self.aligned.map_or(Watermark::MAX, |aligned| aligned.earliest_result(self.watermark))
    }

    fn knows_time(&self) -> bool {
        true
    }

    fn can_replay(&self) -> bool {
        !self.triggers.are_by_clock()
    }

    fn next_time(&self) -> Option<i64> {
        self.triggers.next_time()
    }

    fn on_time(&mut self, now: i64, out: &mut Outbox) -> Result<Progress> {
        self.work = changed(self.triggers.on_time(now));
        self.go_on(out)
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
        self.watermark = restored_watermark(restored).map_err(|error| of_former_form(restored).unwrap_or(error))?;
        self.groups.restore(restored, former_aggregates(restored)?.as_deref())?;
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

/// What is to be done of rows that a trigger fires.
fn changed(lists: Vec<(Timing, Listed)>) -> Option<Work> {
    let lists: Vec<_> = lists.into_iter().filter(|(_, listed)| listed.len() > 0).collect();
    (!lists.is_empty()).then_some(Work::Changed(lists, 0))
}

/// Why the state is of no use if a version wrote it that kept the records of these windows.
fn of_former_form(restored: &Restored) -> Option<Error> {
    let is_kept = |bytes: &[u8]| matches!(Description::read(bytes), Ok(Description { shape: Shape::Kept { .. }, .. }));
    restored.bytes.iter().any(|bytes| is_kept(bytes)).then(|| {
        Error::checkpoint(
            "the windows of this step kept their records when the checkpoint was written, and this version of Millstream keeps a row \
             of accumulators of each; go on with the version of Millstream that wrote it, or give an empty directory",
        )
    })
}

#[cfg(test)]
mod tests;
