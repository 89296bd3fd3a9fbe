//! A source that a test pushes records, watermarks, idleness and the end into by hand.
//!
//! ```text
//!   split 0   [rows 0..3)  watermark  [rows 0..2)  idle  [rows …         ◄── push
//!   reader         ▲ entry 2, row 1
//! ```
//!
//! Every split is a log that only grows. A position is an entry and a row within it, so a reader that is opened at a position
//! continues where another one stopped, and several jobs may read one log. An [`Allowance`] bounds how many records all
//! readers hand out, so that a test can stop a job at a chosen record.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use mill_frame::types::{check_fields, plain_batch, plain_schema};
use mill_protocol::{Error, Mark, Position, Read, Result, Source, SourceProperties, Split, SplitReader};

/// How long a reader that has come to the end of its log waits.
const PAUSE: Duration = Duration::from_millis(10);

/// How many records readers may still hand out. Clones share it.
#[derive(Clone, Debug)]
pub struct Allowance(Arc<AtomicU64>);

impl Allowance {
    /// So many records.
    pub fn new(records: u64) -> Allowance {
        Allowance(Arc::new(AtomicU64::new(records)))
    }

    /// How many are left. Relaxed: no other memory is published with the number, and a job under test reads on one thread.
    pub fn left(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn use_up(&self, records: u64) {
        self.0.fetch_sub(records, Ordering::Relaxed);
    }
}

/// A source of what is pushed into it. Clones share one log.
#[derive(Clone)]
pub struct PushedSource {
    shared: Arc<Shared>,
}

struct Shared {
    name: String,
    schema: SchemaRef,
    is_bounded: bool,
    state: Mutex<State>,
}

struct State {
    splits: Vec<Vec<Entry>>,
    allowance: Option<Allowance>,
}

enum Entry {
    Rows(RecordBatch),
    Mark(Mark),
    End,
}

impl PushedSource {
    /// A source of these columns with that many splits, whose logs are empty.
    ///
    /// # Errors
    /// When it has columns that no stream carries.
    pub fn new(name: impl Into<String>, schema: &SchemaRef, splits: usize, is_bounded: bool) -> Result<PushedSource> {
        check_fields(schema.fields()).map_err(|error| Error::schema(error.to_string()))?;
        let schema = Arc::new(plain_schema(schema));
        let state = State { splits: (0..splits).map(|_| Vec::new()).collect(), allowance: None };
        Ok(PushedSource { shared: Arc::new(Shared { name: name.into(), schema, is_bounded, state: Mutex::new(state) }) })
    }

    /// Adds records to the log of a split.
    ///
    /// # Errors
    /// When there is no such split, it has ended, or the batch has other columns.
    pub fn push(&self, split: usize, batch: &RecordBatch) -> Result<()> {
        if batch.schema_ref().fields().len() != self.shared.schema.fields().len() {
            return Err(Error::schema(format!("a batch for {} has other columns", self.shared.name)));
        }
        let batch = plain_batch(batch, &self.shared.schema).map_err(|error| Error::schema(error.to_string()))?;
        self.add(split, Entry::Rows(batch))
    }

    /// Adds a word about event time to the log of a split.
    ///
    /// # Errors
    /// When there is no such split, or it has ended.
    pub fn mark(&self, split: usize, mark: Mark) -> Result<()> {
        self.add(split, Entry::Mark(mark))
    }

    /// Ends a split; to end it again changes nothing.
    ///
    /// # Errors
    /// When there is no such split.
    pub fn end(&self, split: usize) -> Result<()> {
        if self.has_ended(split) { Ok(()) } else { self.add(split, Entry::End) }
    }

    /// Whether the log of a split has come to its end.
    pub fn has_ended(&self, split: usize) -> bool {
        matches!(self.shared.lock().splits.get(split).and_then(|log| log.last()), Some(Entry::End))
    }

    /// Bounds how many records readers may hand out from now on, or no longer does.
    pub fn allow(&self, allowance: Option<Allowance>) {
        self.shared.lock().allowance = allowance;
    }

    fn add(&self, split: usize, entry: Entry) -> Result<()> {
        let name = &self.shared.name;
        let mut state = self.shared.lock();
        let count = state.splits.len();
        let Some(log) = state.splits.get_mut(split) else {
            return Err(Error::plan(format!("{name} has no split {split}; there are {count}, numbered from 0")));
        };
        if let Some(Entry::End) = log.last() {
            return Err(Error::plan(format!("split {split} of {name} has ended; nothing follows its end")));
        }
        if !matches!(&entry, Entry::Rows(batch) if batch.num_rows() == 0) {
            log.push(entry);
        }
        Ok(())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves the logs whole: every change is a single push.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for PushedSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushedSource").field("name", &self.shared.name).finish_non_exhaustive()
    }
}

impl Source for PushedSource {
    fn name(&self) -> String {
        self.shared.name.clone()
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.shared.schema)
    }

    fn properties(&self) -> SourceProperties {
        SourceProperties {
            is_bounded: self.shared.is_bounded,
            is_replayable: true,
            discovers_splits: false,
            may_block: false,
        }
    }

    fn marks_idle(&self) -> bool {
        true
    }

    fn splits(&self, _is_ordered: bool) -> Result<Vec<Split>> {
        let count = self.shared.lock().splits.len();
        Ok((0..count).map(|split| Split::new(format!("{} split {split}", self.shared.name))).collect())
    }

    fn open(&self, split: &Split, position: Option<&[u8]>) -> Result<Box<dyn SplitReader>> {
        let splits = self.splits(true)?;
        let index = splits.iter().position(|other| other.id == split.id);
        let index = index.ok_or_else(|| Error::internal(format!("{} has no split {:?}", self.shared.name, split.name)))?;
        let (entry, row) = position.map(decode).transpose()?.unwrap_or((0, 0));
        let state = self.shared.lock();
        let log = &state.splits[index];
        let is_there = match log.get(entry) {
            Some(Entry::Rows(batch)) => row < batch.num_rows(),
            Some(_) => row == 0,
            None => entry == log.len() && row == 0,
        };
        if !is_there {
            return Err(Error::checkpoint(format!(
                "the checkpoint has read more of {:?} than was pushed into it; push the same once more, or start without that \
                 checkpoint",
                split.name
            )));
        }
        let was_idle = row == 0 && entry > 0 && matches!(log[entry - 1], Entry::Mark(Mark::Idle));
        drop(state);
        Ok(Box::new(PushedReader { shared: Arc::clone(&self.shared), split: index, entry, row, was_idle }))
    }
}

/// Reads the log of one split.
struct PushedReader {
    shared: Arc<Shared>,
    split: usize,
    entry: usize,
    row: usize,
    /// The reader before this one had told that the split is idle, which is to be told again.
    was_idle: bool,
}

impl SplitReader for PushedReader {
    fn next(&mut self, rows_max: usize) -> Result<Read> {
        if std::mem::take(&mut self.was_idle) {
            return Ok(Read::Mark(Mark::Idle));
        }
        let state = self.shared.lock();
        let allowed = state.allowance.as_ref().map_or(u64::MAX, Allowance::left);
        let Some(entry) = state.splits[self.split].get(self.entry).filter(|_| allowed > 0) else {
            return Ok(Read::Pending(PAUSE));
        };
        let batch = match entry {
            Entry::Rows(batch) => batch,
            Entry::Mark(mark) => {
                self.entry += 1;
                return Ok(Read::Mark(*mark));
            }
            Entry::End => return Ok(Read::End),
        };
        let left = batch.num_rows() - self.row;
        let rows = left.min(rows_max.max(1)).min(usize::try_from(allowed).unwrap_or(usize::MAX));
        let read = batch.slice(self.row, rows);
        if let Some(allowance) = &state.allowance {
            allowance.use_up(rows as u64);
        }
        (self.entry, self.row) = if rows == left { (self.entry + 1, 0) } else { (self.entry, self.row + rows) };
        Ok(Read::Batch(read))
    }

    fn position(&self) -> Position {
        [(self.entry as u64).to_le_bytes(), (self.row as u64).to_le_bytes()].concat()
    }
}

fn decode(position: &[u8]) -> Result<(usize, usize)> {
    let number = |bytes: &[u8]| bytes.try_into().ok().map(|bytes| u64::from_le_bytes(bytes) as usize);
    let parts = position.split_at_checked(8).and_then(|(entry, row)| Some((number(entry)?, number(row)?)));
    parts.ok_or_else(|| Error::checkpoint("a position in a source of a test is damaged"))
}

#[cfg(test)]
mod tests;
