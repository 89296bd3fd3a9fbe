//! `agg`: one result a key, emitted at the end or as it changes.
//!
//! ```text
//!   emit        results are emitted                     what a checkpoint must know beside the rows
//!   end         once a key, at the end                  nothing
//!   each        after every frame, changed keys         nothing: all is emitted before the barrier
//!   checkpoint  at the barrier and the end, changed     nothing, as above
//!   every       every so often and at the end, changed  which rows changed but were not emitted yet: a flag in the row;
//!                                                       these are emitted before the first record after it
//! ```
//!
//! Results are emitted in chunks; the runtime calls back for more, and nothing else comes between. A checkpoint also gets a
//! description of the step (see `description`), so that its state can be read without the plan.

use arrow::datatypes::SchemaRef;
use mill_plan::{AggregateSpec, Emit, Stage};
use mill_protocol::{
    Batch, Epoch, Operator, Outbox, Progress, Restored, Result, Snapshot, TaskContext,
};
use mill_state::{Cursor, Span, TableOptions};

use crate::accumulator::{GroupOptions, Groups, former_aggregates, records};
use crate::description::{Described, Description, Shape, own};

/// How many rows one emitted batch has at most.
pub(crate) const EMIT_ROWS: usize = 8192;

/// When changed results are emitted; shared by `agg` and `reduce`.
pub(crate) struct Schedule {
    emit: Emit,
    next: Option<i64>,
    /// Whether anything changed since the last time results were emitted.
    is_due: bool,
    /// Results withheld until the checkpoint are emitted at once, and not at the next time: someone has waited for it already.
    is_restored: bool,
}

impl Schedule {
    pub(crate) fn new(emit: Emit) -> Schedule {
        // The first call tells what time it is.
        Schedule { emit, next: matches!(emit, Emit::Every(_)).then_some(i64::MIN), is_due: false, is_restored: false }
    }

    pub(crate) fn tracks_changes(&self) -> bool {
        !matches!(self.emit, Emit::End | Emit::Default)
    }

    pub(crate) fn keeps_pending(&self) -> bool {
        matches!(self.emit, Emit::Every(_))
    }

    /// Something changed; whether to give it now.
    pub(crate) fn on_change(&mut self) -> bool {
        self.is_due = true;
        matches!(self.emit, Emit::Each)
    }

    pub(crate) fn on_barrier(&self) -> bool {
        matches!(self.emit, Emit::Checkpoint)
    }

    pub(crate) fn next_time(&self) -> Option<i64> {
        self.next
    }

    /// Processing time has come this far; whether to give what changed.
    pub(crate) fn on_time(&mut self, now: i64) -> bool {
        let Emit::Every(every) = self.emit else { return false };
        let is_first = self.next == Some(i64::MIN);
        if !is_first && self.next.is_some_and(|next| now < next) {
            return false;
        }
        // In step with the clock, so that all instances give their results at the same times.
        let every = every.max(1);
        self.next = Some(now.saturating_sub(now.rem_euclid(every)).saturating_add(every));
        let is_early = is_first && !std::mem::take(&mut self.is_restored);
        !is_early && std::mem::take(&mut self.is_due)
    }

    pub(crate) fn on_restore(&mut self) {
        (self.is_due, self.is_restored) = (true, true);
    }
}

/// Keeps one row of accumulators a key.
pub(crate) struct Aggregate {
    groups: Groups,
    schema: SchemaRef,
    schedule: Schedule,
    described: Described,
    /// Where the emission that is under way goes on, and whether it is of changed rows alone.
    emitting: Option<(Cursor, bool)>,
}

impl Aggregate {
    pub(crate) fn new(
        stage: &Stage,
        context: &TaskContext,
        keys: &[usize],
        aggregates: &[AggregateSpec],
        is_partial: bool,
        emit: Emit,
    ) -> Result<Aggregate> {
        let schedule = Schedule::new(emit);
        let key_types: Vec<_> =
            stage.schema.fields()[..keys.len()].iter().map(|field| field.data_type().clone()).collect();
        let options = GroupOptions {
            table: TableOptions {
                groups: context.groups.clone(),
                state: 0,
                is_persistent: context.is_persistent,
                tracks_changes: schedule.tracks_changes(),
            },
            is_partial,
            keeps_pending: schedule.keeps_pending(),
            is_ahead: false,
            is_timed: false,
            owner_columns: None,
            has_tally: false,
            carries_at: None,
        };
        let groups = Groups::new(keys, &key_types, aggregates, &options)?;
        let shape = Shape::Aggregate { keys: keys.len(), aggregates: aggregates.to_vec(), window: None };
        let described =
            Description { schema: stage.schema.clone(), keeps_pending: schedule.keeps_pending(), shape }.described();
        Ok(Aggregate { groups, schema: stage.schema.clone(), schedule, described, emitting: None })
    }

    /// Emits all results, or those that changed.
    pub(crate) fn emit(&mut self, is_changed: bool, out: &mut Outbox) -> Result<Progress> {
        self.emitting = Some((Cursor::default(), is_changed));
        self.resume(out)
    }
}

impl Operator for Aggregate {
    fn on_batch(&mut self, _input: usize, batch: Batch, out: &mut Outbox) -> Result<Progress> {
        self.groups.times(batch.times().map(|times| &times[..]));
        self.groups.prepare(batch.data())?;
        self.groups.update_span(0, Span { start: 0, len: batch.rows() })?;
        self.groups.reject_problems(batch.data(), out);
        if self.schedule.on_change() { self.emit(true, out) } else { Ok(Progress::Done) }
    }

    fn can_replay(&self) -> bool {
        !self.schedule.keeps_pending()
    }

    fn next_time(&self) -> Option<i64> {
        self.schedule.next_time()
    }

    fn on_time(&mut self, now: i64, out: &mut Outbox) -> Result<Progress> {
        if self.schedule.on_time(now) { self.emit(true, out) } else { Ok(Progress::Done) }
    }

    fn on_barrier(&mut self, _epoch: Epoch, out: &mut Outbox) -> Result<Progress> {
        if self.schedule.on_barrier() { self.emit(true, out) } else { Ok(Progress::Done) }
    }

    fn on_end(&mut self, out: &mut Outbox) -> Result<Progress> {
        // All records together have a result also if there are none: a count of zero.
        self.groups.fill(0)?;
        let is_changed = self.schedule.tracks_changes();
        self.emit(is_changed, out)
    }

    fn resume(&mut self, out: &mut Outbox) -> Result<Progress> {
        let Some((cursor, is_changed)) = &mut self.emitting else { return Ok(Progress::Done) };
        let results = self.groups.results(0, cursor, EMIT_ROWS, *is_changed)?;
        self.groups.reject_unfit(&self.schema, |_| Ok(Vec::new()), out)?;
        match results {
            Some((mut columns, results)) => {
                columns.extend(results);
                out.push(records(&self.schema, columns)?);
                Ok(Progress::More)
            }
            None => {
                self.emitting = None;
                Ok(Progress::Done)
            }
        }
    }

    fn snapshot(&mut self, snapshot: &mut Snapshot) -> Result<()> {
        self.groups.snapshot(snapshot);
        snapshot.bytes = Some(self.described.of(&[]));
        Ok(())
    }

    fn restore(&mut self, restored: &Restored) -> Result<()> {
        restored.bytes.iter().try_for_each(|bytes| own(bytes).map(drop))?;
        self.schedule.on_restore();
        self.groups.restore(restored, former_aggregates(restored)?.as_deref())
    }
}

#[cfg(test)]
mod tests;
