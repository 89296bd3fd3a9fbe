//! Reads the events of one kind in one split.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use mill_protocol::{Clock, Error, Position, Read, Result, SplitReader};

use super::columns::{Column, EPOCH_EVENTS, Rules, Run};

/// How many consecutive events a split has before the next split's turn: whole epochs.
const BLOCK_EVENTS: u64 = 20 * EPOCH_EVENTS;
/// The offsets of a column of texts count to 2^31; so many auctions are far from it.
const ROWS_MAX: u64 = 1 << 20;
/// The longest a rate-limited reader asks to be left alone.
const PENDING_MAX: Duration = Duration::from_millis(50);

/// Which of the events a split has.
#[derive(Clone, Copy)]
pub(super) struct Lane {
    pub(super) index: u64,
    pub(super) lanes: u64,
}

impl Lane {
    /// The `nth` event of this lane.
    pub(super) fn number(self, nth: u64) -> u64 {
        let (block, offset) = (nth / BLOCK_EVENTS, nth % BLOCK_EVENTS);
        (block * self.lanes + self.index) * BLOCK_EVENTS + offset
    }
}

/// Keeps a reader to its rate, which is that of all events.
pub(super) struct Pace {
    pub(super) rate: f64,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) started: i64,
    /// The event that the reader began with.
    pub(super) base: u64,
}

impl Pace {
    /// The first event that is not due yet.
    fn end(&self) -> u64 {
        self.base.saturating_add((self.elapsed() * self.rate) as u64)
    }

    /// How long it takes until an event is due.
    fn wait(&self, number: u64) -> Duration {
        let wait = (number + 1).saturating_sub(self.base) as f64 / self.rate - self.elapsed();
        Duration::try_from_secs_f64(wait.max(0.0)).map_or(PENDING_MAX, |wait| wait.min(PENDING_MAX))
    }

    fn elapsed(&self) -> f64 {
        (self.clock.now() - self.started).max(0) as f64 / 1e6
    }
}

/// A reader. Its position is how many events of the split it has passed, of whatever kind; so it means the same for each kind.
pub(super) struct NexmarkReader {
    pub(super) lane: Lane,
    pub(super) passed: u64,
    pub(super) events: u64,
    /// Which events of an epoch are wanted.
    pub(super) offsets: Range<u64>,
    pub(super) rules: Rules,
    pub(super) columns: Vec<&'static Column>,
    pub(super) schema: SchemaRef,
    pub(super) pace: Option<Pace>,
}

impl NexmarkReader {
    /// Goes to the next event of the kind; returns its number.
    fn seek(&mut self) -> u64 {
        // Blocks are whole epochs, so the place in the epoch is the same in the lane.
        let offset = self.passed % EPOCH_EVENTS;
        if offset >= self.offsets.end {
            self.passed += EPOCH_EVENTS - offset + self.offsets.start;
        } else if offset < self.offsets.start {
            self.passed += self.offsets.start - offset;
        }
        self.lane.number(self.passed)
    }

    /// The next events, at most so many of them and all before `end`.
    fn runs(&mut self, rows: u64, end: u64) -> Vec<Run> {
        let mut runs = Vec::with_capacity((rows / (self.offsets.end - self.offsets.start)) as usize + 2);
        let mut left = rows;
        while left > 0 {
            let first = self.seek();
            if first >= end {
                break;
            }
            let of_epoch = self.offsets.end - self.passed % EPOCH_EVENTS;
            let events = of_epoch.min(left).min(end - first);
            runs.push(Run { epoch: first / EPOCH_EVENTS, first, events });
            self.passed += events;
            left -= events;
        }
        runs
    }
}

impl SplitReader for NexmarkReader {
    fn next(&mut self, rows_max: usize) -> Result<Read> {
        let first = self.seek();
        if first >= self.events {
            return Ok(Read::End);
        }
        let end = match &self.pace {
            None => self.events,
            Some(pace) => match pace.end() {
                due if due <= first => return Ok(Read::Pending(pace.wait(first))),
                due => due.min(self.events),
            },
        };
        let runs = self.runs((rows_max.max(1) as u64).min(ROWS_MAX), end);
        let columns = self.columns.iter().map(|column| column.make(&self.rules, &runs)).collect();
        let rows = runs.iter().map(|run| run.events as usize).sum();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)
            .map(Read::Batch)
            .map_err(|e| Error::internal("the columns of nexmark do not fit their schema").because(e))
    }

    fn position(&self) -> Position {
        self.passed.to_le_bytes().to_vec()
    }
}
