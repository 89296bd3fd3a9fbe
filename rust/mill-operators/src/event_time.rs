//! `event_time`: takes each record's event time from a column and makes the stream's watermarks.
//!
//! ```text
//!   split A   10 12 11 15 …      latest 15 ─┐
//!   split B   10 10 14 …         latest 14 ─┼─ least, less the allowed disorder ──► watermark
//!   split C   (not read yet)     none ──────┘    none holds the watermark back
//! ```
//!
//! Every split has a watermark of its own: the latest time it has given so far, less the allowed disorder. A record is
//! *behind* if its time lies before its own split's watermark when it is read; a batch with such records carries that
//! watermark beside each record ([`Batch::behind`]), and only those can be late for anything. So lateness depends on
//! the order within a split alone and not on how splits are spread over tasks.
//!
//! The watermark that travels is the least of all open splits: those read and those this task has yet to read. It never
//! goes back. With idleness, a split that has given nothing for that long (in processing time) no longer counts until it
//! gives records again.
//!
//! State: the latest time of each open split, and so small that every snapshot has all of it. Behind an exchange there
//! are no splits any more; all records then count as of one split per task.

mod splits;
mod times;

use arrow::datatypes::SchemaRef;
use mill_plan::WatermarkStrategy;
use mill_protocol::{Batch, Operator, Outbox, Progress, Restored, Result, Snapshot, SplitId, TaskContext, Watermark};

use self::splits::Splits;

/// Takes event time from a column.
pub(crate) struct EventTime {
    column: usize,
    name: String,
    strategy: WatermarkStrategy,
    splits: Splits,
    index: usize,
    parallelism: usize,
    /// The last watermark that was emitted.
    emitted: i64,
    /// Whether the stream has been said to be idle, and nothing came since.
    is_idle: bool,
    /// When [`Operator::on_time`] wants to be called; the first time at once, to learn what time it is.
    next_time: i64,
}

impl EventTime {
    pub(crate) fn new(
        column: usize,
        strategy: WatermarkStrategy,
        schema: &SchemaRef,
        context: &TaskContext,
    ) -> Result<EventTime> {
        times::check(schema.field(column))?;
        Ok(EventTime {
            column,
            name: schema.field(column).name().clone(),
            strategy,
            splits: Splits::default(),
            index: context.index,
            parallelism: context.parallelism,
            emitted: i64::MIN,
            is_idle: false,
            next_time: i64::MIN,
        })
    }

    /// Emits the watermark if it has advanced, or idleness if there is nothing left to wait for.
    fn advance(&mut self, out: &mut Outbox) {
        match self.splits.latest() {
            splits::Latest::Of(latest) => {
                self.is_idle = false;
                // The greatest watermark of all says that the input has ended, and that is not for records to say.
                let at = latest.saturating_sub(self.strategy.out_of_orderness_us).min(i64::MAX - 1);
                if at > self.emitted {
                    self.emitted = at;
                    out.watermark(Watermark(at));
                }
            }
            splits::Latest::Unknown => self.is_idle = false,
            splits::Latest::Idle => {
                if !self.is_idle {
                    self.is_idle = true;
                    out.idle();
                }
            }
        }
    }
}

impl Operator for EventTime {
    fn on_batch(&mut self, batch: Batch, out: &mut Outbox) -> Result<Progress> {
        let Some(batch) = times::with_times(batch, self.column, &self.name, out)? else {
            return Ok(Progress::Done);
        };
        let times = batch.times().expect("they were set just now");
        let split = batch.split();
        let (latest, behind) = times::behind(times, self.splits.latest_of(split), self.strategy.out_of_orderness_us);
        self.splits.saw(split, latest);
        out.push(batch.with_behind(behind));
        self.advance(out);
        Ok(Progress::Done)
    }

    fn on_watermark(&mut self, at: Watermark, out: &mut Outbox) -> Result<Progress> {
        if at == Watermark::MAX && self.emitted < i64::MAX {
            self.emitted = i64::MAX;
            out.watermark(at);
        }
        Ok(Progress::Done)
    }

    fn makes_watermarks(&self) -> bool {
        true
    }

    fn on_splits(&mut self, open: &[SplitId], out: &mut Outbox) -> Result<()> {
        self.splits.open(open);
        self.advance(out);
        Ok(())
    }

    fn next_time(&self) -> Option<i64> {
        self.strategy.idleness_us.map(|_| self.next_time)
    }

    fn on_time(&mut self, now: i64, out: &mut Outbox) -> Result<Progress> {
        if let Some(idleness) = self.strategy.idleness_us {
            self.splits.tick(now, idleness);
            // Finer than the idleness, so that it is noticed soon, and no finer than a millisecond.
            self.next_time = now.saturating_add((idleness / 4).max(1000));
            self.advance(out);
        }
        Ok(Progress::Done)
    }

    fn snapshot(&mut self, snapshot: &mut Snapshot) -> Result<()> {
        snapshot.bytes = Some(self.splits.encode(self.index, self.parallelism));
        Ok(())
    }

    fn restore(&mut self, restored: &Restored) -> Result<()> {
        self.splits = Splits::decode(&restored.bytes, self.index, self.parallelism)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
