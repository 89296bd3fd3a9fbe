//! `event_time`: takes each record's event time from a column and makes the stream's watermarks.
//!
//! ```text
//!   split A   10 12 11 15 …      latest 15 ─┐
//!   split B   10 10 14 …         latest 14 ─┼─ least, less the allowed disorder ──► watermark
//!   split C   (not read yet)     none ──────┘    none holds the watermark back
//! ```
//!
//! Every split has a watermark of its own: the latest time among its records so far, less the allowed disorder, or what a column
//! or a function of the user's has raised it to ([`maker`]). A record is
//! *behind* if its time is before its own split's watermark when it is read; a batch with such records carries that
//! watermark beside each record ([`Batch::behind`]), and only those can be late for anything. So lateness depends on
//! the order within a split alone and not on how splits are spread over tasks.
//!
//! A watermark that the reader of a split tells counts as a record of that time plus the allowed disorder: the split's
//! watermark is the greater of the two, and everything that follows from it needs no second rule.
//!
//! The watermark that travels is the least of all open splits: those read and those this task has yet to read. It never
//! goes back. A task without open splits is *quiet*: the runtime sends the time of the other tasks in its place, and tells it
//! ([`Operator::follow`]). Where a split may turn up later or be skipped, a task that is not quiet sends no more than the
//! others have come to either ([`Operator::passes_over_splits`]). With idleness, a split that was asked for records and has had none for that long (in
//! processing time) no longer counts until it has some again; a split that nobody has asked yet is not idle. A task all of
//! whose splits are idle is quiet too.
//!
//! ```text
//!   Reading ──no split left────────► Empty ──for as long as the idleness──► Idle
//!      ▲  └───all splits idle───────────────────────────────────────────────► │
//!      └──────────────── a new split, or records ◄────────────────────────────┘
//! ```
//!
//! State: the mark of each open split and the greatest of all, the last watermark, and what a user's function keeps; so small
//! that every snapshot has all of it.
//! After a restart each instance begins with the least watermark that any instance had sent: it is no greater than what the
//! splits of any of them had come to, and no smaller than what any step after them had seen. After an exchange there are no
//! splits any more; all records then count as of one split per task.

mod maker;
mod splits;
mod times;

use arrow::datatypes::SchemaRef;
use mill_plan::WatermarksOf;
use mill_protocol::{
    Alignment, Batch, Mark, Operator, Outbox, Progress, Quiet, Restored, Result, Snapshot, SplitId, TaskContext, Waiting, Watermark,
};

use self::maker::Maker;
pub(crate) use self::splits::has_generators;
use self::splits::{Decoded, Latest, Splits};

/// Takes event time from a column.
pub(crate) struct EventTime {
    column: usize,
    name: String,
    maker: Maker,
    idleness_us: Option<i64>,
    alignment: Option<Alignment>,
    splits: Splits,
    index: usize,
    parallelism: usize,
    /// The last watermark that was emitted.
    emitted: i64,
    /// What was declared last, while the task is quiet.
    quiet: Option<Quiet>,
}

impl EventTime {
    pub(crate) fn new(
        column: usize,
        watermarks: &WatermarksOf,
        idleness_us: Option<i64>,
        alignment: Option<Alignment>,
        schema: &SchemaRef,
        context: &TaskContext,
    ) -> Result<EventTime> {
        times::check(schema.field(column))?;
        Ok(EventTime {
            column,
            name: schema.field(column).name().clone(),
            maker: Maker::new(watermarks, |column| schema.field(column).name().clone()),
            idleness_us,
            alignment,
            splits: Splits::default(),
            index: context.index,
            parallelism: context.parallelism,
            emitted: i64::MIN,
            quiet: None,
        })
    }

    fn watermark_at(&self, mark: i64) -> i64 {
        self.maker.watermark_at(mark)
    }

    /// The watermark that the records of the furthest split would allow.
    fn furthest(&self) -> Watermark {
        self.splits.greatest().map_or(Watermark::MIN, |latest| Watermark(self.watermark_at(latest)))
    }

    /// Emits the watermark if it has advanced, or that the task is quiet now, or no longer.
    fn advance(&mut self, out: &mut Outbox) {
        let quiet = match self.splits.latest() {
            Latest::Of(latest) => {
                let at = self.watermark_at(latest);
                if at > self.emitted {
                    self.emitted = at;
                    self.quiet = None;
                    out.watermark(Watermark(at));
                    return;
                }
                None
            }
            Latest::Unknown => None,
            Latest::Empty => Some(false),
            Latest::Idle => Some(true),
        };
        let greatest = self.furthest();
        let quiet = quiet.map(|is_idle| Quiet { at: greatest, is_idle });
        if quiet != self.quiet {
            self.quiet = quiet;
            match quiet {
                Some(Quiet { at, is_idle }) => out.quiet(at, is_idle),
                // From here on others wait for this task again.
                None => out.watermark(Watermark(self.emitted)),
            }
        }
    }
}

impl Operator for EventTime {
    fn on_batch(&mut self, _input: usize, batch: Batch, out: &mut Outbox) -> Result<Progress> {
        let Some(batch) = times::with_times(batch, self.column, &self.name, out)? else {
            return Ok(Progress::Done);
        };
        let Some(batch) = self.maker.usable(batch, out)? else {
            return Ok(Progress::Done);
        };
        if self.quiet.take().is_some() {
            // Others wait for this task before its records come.
            out.watermark(Watermark(self.emitted));
        }
        let split = batch.split();
        let marked = self.maker.mark(&batch, self.column, self.splits.latest_of(split))?;
        self.splits.saw(split, marked.mark);
        out.push(batch.with_behind(marked.behind));
        self.advance(out);
        Ok(Progress::Done)
    }

    fn on_watermark(&mut self, _input: usize, at: Watermark, out: &mut Outbox) -> Result<Progress> {
        if at == Watermark::MAX && self.emitted < i64::MAX {
            self.emitted = i64::MAX;
            out.watermark(at);
        }
        Ok(Progress::Done)
    }

    fn makes_watermarks(&self) -> bool {
        true
    }

    fn can_replay(&self) -> bool {
        !self.maker.is_by_clock()
    }

    fn passes_over_splits(&self) -> bool {
        self.idleness_us.is_some()
    }

    fn waiting(&self) -> Option<Waiting> {
        let at = |latest: Option<i64>| latest.map_or(Watermark::MIN, |latest| Watermark(self.watermark_at(latest)));
        let split = self.splits.holder().map(|(split, latest)| (split, at(latest)));
        Some(Waiting { furthest: self.furthest(), split })
    }

    fn alignment(&self) -> Option<Alignment> {
        self.alignment.clone()
    }

    fn time_of(&self, split: SplitId) -> Option<Watermark> {
        self.splits.latest_of(split).map(|mark| Watermark(self.watermark_at(mark)))
    }

    fn on_splits(&mut self, open: &[SplitId], out: &mut Outbox) -> Result<()> {
        self.maker.open(open)?;
        if self.splits.open(open) && self.emitted > i64::MIN {
            // What was known before a restart is known to all steps after this one.
            out.watermark(Watermark(self.emitted));
        }
        self.advance(out);
        Ok(())
    }

    fn on_quiet(&mut self, split: SplitId) {
        self.splits.is_asked_in_vain(split);
    }

    fn on_mark(&mut self, split: SplitId, mark: Mark, out: &mut Outbox) -> Result<()> {
        match mark {
            Mark::Watermark(at) => {
                let latest = self.maker.mark_at(at.0);
                let before = self.splits.latest_of(split).unwrap_or(i64::MIN);
                self.splits.saw(split, Some(before.max(latest)));
            }
            Mark::Idle => self.splits.is_idle(split),
        }
        self.advance(out);
        Ok(())
    }

    fn follow(&mut self, at: Watermark) {
        self.emitted = self.emitted.max(at.0);
    }

    fn next_time(&self) -> Option<i64> {
        let idle = self.idleness_us.and_then(|_| self.splits.deadline());
        [idle, self.maker.next_time()].into_iter().flatten().min()
    }

    fn on_time(&mut self, now: i64, out: &mut Outbox) -> Result<Progress> {
        if let Some(idleness) = self.idleness_us {
            self.splits.tick(now, idleness);
        }
        for (split, mark) in self.maker.on_time(now)? {
            self.splits.raise(split, mark.min(i64::MAX - 1));
        }
        self.advance(out);
        Ok(Progress::Done)
    }

    fn snapshot(&mut self, snapshot: &mut Snapshot) -> Result<()> {
        snapshot.bytes = Some(self.splits.encode(self.index, self.parallelism, self.emitted, &self.maker.states()?));
        Ok(())
    }

    fn restore(&mut self, restored: &Restored) -> Result<()> {
        let Decoded { splits, emitted, states } = Splits::decode(&restored.bytes, self.index, self.parallelism)?;
        (self.splits, self.emitted) = (splits, emitted);
        self.maker.restore(states);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
