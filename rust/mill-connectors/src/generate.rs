//! Generated records: the numbers 0, 1, 2, … as column `index`, from which expressions compute the other columns.
//!
//! ```text
//!   ordered     one split:   0 1 2 3 4 5 …
//!   else        eight:       split k has the blocks k, k+8, k+16, …  of 4096 numbers each (of one, if rate-limited,
//!                            so that every split moves at the same pace)
//! ```
//!
//! The number of splits and the blocks are fixed, so the same numbers come from the same split under any parallelism. A
//! position is how many numbers the split has returned. A split records which blocks it has, so that a run that continues
//! from a checkpoint keeps them, whether or not it has a rate. The rate counts from when the split was opened, by a
//! monotonic clock.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Int64Array, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use mill_protocol::{
    Clock, Error, Position, Read, Result, Source, SourceProperties, Split, SplitId, SplitReader, SplitState, SteadyClock, SystemClock, go_on,
};

/// How many splits an unordered generator has.
const SPLITS: u64 = 8;
/// How many consecutive numbers a split returns before it is the next split's turn.
const BLOCK_ROWS: u64 = 4096;
/// The longest a rate-limited reader asks to be left alone.
const PENDING_MAX: Duration = Duration::from_millis(50);

/// Numbers from 0, as fast as they are taken or at a rate.
#[derive(Clone)]
pub struct GenerateSource {
    rows: Option<u64>,
    rate: Option<f64>,
    has_index: bool,
    clock: Arc<dyn Clock>,
}

impl GenerateSource {
    /// `rows` numbers, or without end; at most `rate` a second, or as fast as they are taken.
    ///
    /// # Errors
    /// When there are more rows than numbers, or the rate is not a positive number.
    pub fn new(rows: Option<u64>, rate: Option<f64>) -> Result<GenerateSource> {
        if rows.is_some_and(|rows| rows > i64::MAX as u64) {
            return Err(Error::plan(format!("generate(rows={}) is more than an index can count", rows.unwrap_or(0))));
        }
        if let Some(rate) = rate
            && !(rate.is_finite() && rate > 0.0)
        {
            return Err(Error::plan(format!("generate(rate={rate}): the rate is rows a second, above 0")));
        }
        let clock = Arc::new(SteadyClock::agreeing_with(&SystemClock));
        Ok(GenerateSource { rows, rate, has_index: true, clock })
    }

    /// The same source with this clock to keep its rate by.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> GenerateSource {
        self.clock = clock;
        self
    }
}

impl fmt::Debug for GenerateSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GenerateSource").field("rows", &self.rows).field("rate", &self.rate).finish()
    }
}

impl Source for GenerateSource {
    fn name(&self) -> String {
        let rows = self.rows.map(|rows| format!("rows={rows}"));
        let rate = self.rate.map(|rate| format!("rate={rate}"));
        format!("generate({})", [rows, rate].into_iter().flatten().collect::<Vec<_>>().join(", "))
    }

    fn identity(&self) -> Option<String> {
        Some(self.name())
    }

    fn schema(&self) -> SchemaRef {
        let fields = if self.has_index { vec![Field::new("index", DataType::Int64, false)] } else { Vec::new() };
        Arc::new(Schema::new(fields))
    }

    fn properties(&self) -> SourceProperties {
        SourceProperties {
            is_bounded: self.rows.is_some(),
            is_replayable: true,
            discovers_splits: false,
            may_block: false,
        }
    }

    fn splits(&self, is_ordered: bool) -> Result<Vec<Split>> {
        Ok(splits_of(if self.rate.is_some() { 1 } else { BLOCK_ROWS }, is_ordered))
    }

    fn resume(&self, is_ordered: bool, left: Vec<SplitState>) -> Result<Vec<SplitState>> {
        // With other blocks, splits that are new here would have numbers that others have returned.
        let splits = match left.first() {
            Some(state) => splits_of(block_of(&state.split)?, is_ordered),
            None => self.splits(is_ordered)?,
        };
        go_on(&self.name(), splits, left)
    }

    fn open(&self, split: &Split, position: Option<&[u8]>) -> Result<Box<dyn SplitReader>> {
        let block = block_of(split)?;
        let lane = match split.name.as_str() {
            "generate" => Lane { index: 0, lanes: 1, block },
            name => {
                let index = name.strip_prefix("generate ").and_then(|rest| rest.split_once(" of "));
                let index = index.and_then(|(index, _)| index.parse().ok()).filter(|index| *index < SPLITS);
                let index = index.ok_or_else(|| Error::connector(format!("{} has no split {name:?}", self.name())))?;
                Lane { index, lanes: SPLITS, block }
            }
        };
        let given = match position {
            None => 0,
            Some(bytes) => u64::from_le_bytes(bytes.try_into().map_err(|_| {
                Error::checkpoint(format!("the position in {:?} is not readable", split.name))
            })?),
        };
        Ok(Box::new(GenerateReader {
            lane,
            given,
            rows: self.rows.unwrap_or(i64::MAX as u64),
            schema: self.schema(),
            pace: self.rate.map(|rate| Pace {
                rate: rate / lane.lanes as f64,
                clock: Arc::clone(&self.clock),
                started: self.clock.now(),
                given_before: given,
            }),
        }))
    }

    fn project(&self, columns: &[usize]) -> Option<Arc<dyn Source>> {
        match columns {
            [] => Some(Arc::new(GenerateSource { has_index: false, ..self.clone() })),
            _ => None,
        }
    }

    fn rows_hint(&self) -> Option<u64> {
        self.rows
    }
}

/// The splits whose numbers come in blocks of this size.
fn splits_of(block: u64, is_ordered: bool) -> Vec<Split> {
    let split = |name: String| Split::with_detail(SplitId::of(&name), name, block.to_le_bytes().to_vec());
    match is_ordered {
        true => vec![split("generate".to_owned())],
        false => (0..SPLITS).map(|index| split(format!("generate {index} of {SPLITS}"))).collect(),
    }
}

fn block_of(split: &Split) -> Result<u64> {
    let block = split.detail.as_slice().try_into().map(u64::from_le_bytes);
    block.ok().filter(|block| [1, BLOCK_ROWS].contains(block)).ok_or_else(|| {
        Error::checkpoint(format!("the blocks of {:?} are not readable", split.name))
    })
}

/// Which of the numbers a split has.
#[derive(Clone, Copy)]
struct Lane {
    index: u64,
    lanes: u64,
    block: u64,
}

impl Lane {
    /// The `nth` number of this lane.
    fn number(&self, nth: u64) -> u64 {
        let (block, offset) = (nth / self.block, nth % self.block);
        (block * self.lanes + self.index) * self.block + offset
    }
}

/// Keeps a reader to its rate.
struct Pace {
    rate: f64,
    clock: Arc<dyn Clock>,
    started: i64,
    given_before: u64,
}

struct GenerateReader {
    lane: Lane,
    given: u64,
    rows: u64,
    schema: SchemaRef,
    pace: Option<Pace>,
}

impl Pace {
    /// How many rows may be returned now, or how long to wait for the next.
    fn allowance(&self, given: u64) -> std::result::Result<u64, Duration> {
        let elapsed = (self.clock.now() - self.started).max(0) as f64 / 1e6;
        let given = given - self.given_before;
        let due = (elapsed * self.rate) as u64;
        if due > given {
            return Ok(due - given);
        }
        let wait = (given + 1) as f64 / self.rate - elapsed;
        Err(Duration::try_from_secs_f64(wait.max(0.0)).map_or(PENDING_MAX, |wait| wait.min(PENDING_MAX)))
    }
}

impl SplitReader for GenerateReader {
    fn next(&mut self, rows_max: usize) -> Result<Read> {
        let first = self.lane.number(self.given);
        if first >= self.rows {
            return Ok(Read::End);
        }
        let mut rows = rows_max.max(1) as u64;
        if let Some(pace) = &self.pace {
            match pace.allowance(self.given) {
                Ok(allowed) => rows = rows.min(allowed),
                Err(wait) => return Ok(Read::Pending(wait)),
            }
        }
        let mut values: Vec<i64> = Vec::with_capacity(rows as usize);
        while (values.len() as u64) < rows {
            let start = self.lane.number(self.given);
            let left = self.lane.block - self.given % self.lane.block;
            let end = (start + left.min(rows - values.len() as u64)).min(self.rows);
            if start >= end {
                break;
            }
            values.extend(start as i64..end as i64);
            self.given += end - start;
        }
        let count = values.len();
        let columns: Vec<arrow::array::ArrayRef> =
            if self.schema.fields().is_empty() { Vec::new() } else { vec![Arc::new(Int64Array::from(values))] };
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)
            .map(Read::Batch)
            .map_err(|e| Error::internal("generated columns do not fit their schema").because(e))
    }

    fn position(&self) -> Position {
        self.given.to_le_bytes().to_vec()
    }
}

#[cfg(test)]
mod tests;
