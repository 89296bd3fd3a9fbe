//! The records of each key, in order, and when the key is due.
//!
//! ```text
//!   "records"    key → (time, number of arrival) → mark, row
//!   "deadlines"  (watermark, key) → hash of the key
//!   "fired"      key → (start, end of a window) → what has been fired of it       only used with triggers
//! ```
//!
//! The mark of a record is the end of its session if nothing extends it, or the end of the first window that takes it. A row
//! is in Arrow's row encoding.

use std::collections::HashSet;
use std::ops::Range;

use arrow::array::ArrayRef;
use arrow::datatypes::SchemaRef;
use arrow_row::{RowConverter, Rows, SortField};
use mill_frame::block::RestoredBlock;
use mill_protocol::{Batch, Error, Result, Snapshot, TaskContext};
use mill_state::{MultiMapState, OrderedState, StateBackend};

use crate::accumulator::state_error;

/// A key that is owned.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) hash: u64,
    pub(super) bytes: Vec<u8>,
}

/// A key.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeyRef<'a> {
    pub(super) hash: u64,
    pub(super) bytes: &'a [u8],
}

impl Key {
    pub(super) fn borrowed(&self) -> KeyRef<'_> {
        KeyRef { hash: self.hash, bytes: &self.bytes }
    }
}

impl KeyRef<'_> {
    pub(super) fn owned(self) -> Key {
        Key { hash: self.hash, bytes: self.bytes.to_vec() }
    }
}

/// A record as it is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record<'a> {
    pub(super) time: i64,
    pub(super) mark: i64,
    pub(super) row: &'a [u8],
    /// Its place among the records of the key.
    entry: &'a [u8],
}

/// What has been fired of a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fired {
    /// How many results it has had.
    pub(super) panes: i64,
    /// How many records the last of them was of.
    pub(super) records: u64,
    /// Whether it has had the result of its end.
    pub(super) is_on_time: bool,
}

/// The rows of a batch as they are kept.
pub(super) enum Encoded {
    /// Rows of at least one column.
    Rows(Rows),
    /// Rows without columns.
    Empty,
}

impl Encoded {
    pub(super) fn row(&self, row: usize) -> &[u8] {
        match self {
            Encoded::Rows(rows) => rows.row(row).data(),
            Encoded::Empty => &[],
        }
    }
}

/// The state of the step.
pub(super) struct Records {
    backend: StateBackend,
    records: MultiMapState,
    deadlines: OrderedState,
    fired: MultiMapState,
    converter: RowConverter,
    /// The number of the next record to arrive.
    next: u64,
}

/// Sorts like the number.
fn ordered(number: i64) -> [u8; 8] {
    ((number as u64) ^ (1 << 63)).to_be_bytes()
}

fn unordered(bytes: [u8; 8]) -> i64 {
    (u64::from_be_bytes(bytes) ^ (1 << 63)) as i64
}

fn word(bytes: &[u8], at: usize) -> [u8; 8] {
    let mut word = [0; 8];
    if let Some(found) = bytes.get(at..at + 8) {
        word.copy_from_slice(found);
    }
    word
}

/// How rows with these columns are encoded.
pub(super) fn converter(schema: &SchemaRef) -> Result<RowConverter> {
    let fields = schema.fields().iter().map(|field| SortField::new(field.data_type().clone())).collect();
    RowConverter::new(fields)
        .map_err(|error| Error::schema(format!("records with these columns cannot be kept as state: {error}")))
}

impl Records {
    pub(super) fn new(schema: &SchemaRef, context: &TaskContext) -> Result<Records> {
        let columns: Vec<String> =
            schema.fields().iter().map(|field| format!("{} {}", field.name(), field.data_type())).collect();
        let mut backend = StateBackend::new(context.groups.clone(), context.is_persistent);
        let records = backend.multimap("records", &format!("time, number, mark and row of {}", columns.join(", ")));
        let deadlines = backend.ordered("deadlines", "hash of the key");
        let fired = backend.multimap("fired", "window, panes, records, is on time");
        Ok(Records { backend, records, deadlines, fired, converter: converter(schema)?, next: 0 })
    }

    /// The rows of a batch as they are kept.
    pub(super) fn encode(&self, batch: &Batch, columns: &[usize]) -> Result<Encoded> {
        let columns: Vec<ArrayRef> = columns.iter().map(|&column| ArrayRef::clone(batch.column(column))).collect();
        if columns.is_empty() {
            return Ok(Encoded::Empty);
        }
        self.converter.convert_columns(&columns).map(Encoded::Rows).map_err(|error| Error::schema(error.to_string()))
    }

    /// Adds a record; whether it may be due before the records of its key that are there. It is not if it is neither before
    /// the first of them nor has an earlier mark: a record that was late for its first windows has a later one.
    pub(super) fn insert(&mut self, key: KeyRef<'_>, time: i64, mark: i64, row: &[u8]) -> Result<bool> {
        let first = self.of(key).next().map(|first| (first.time, first.mark));
        let mut entry = [0; 16];
        entry[..8].copy_from_slice(&ordered(time));
        entry[8..].copy_from_slice(&self.next.to_be_bytes());
        self.next += 1;
        let mut value = Vec::with_capacity(8 + row.len());
        value.extend_from_slice(&mark.to_le_bytes());
        value.extend_from_slice(row);
        self.backend[self.records].insert(key.hash, key.bytes, &entry, &value).map_err(state_error)?;
        Ok(first.is_none_or(|(first, first_mark)| time < first || mark < first_mark))
    }

    /// The records of a key, in order.
    pub(super) fn of<'s>(&'s self, key: KeyRef<'_>) -> impl Iterator<Item = Record<'s>> + use<'s> {
        self.backend[self.records].entries(key.hash, key.bytes).map(|entry| Record {
            time: unordered(word(entry.key, 0)),
            mark: i64::from_le_bytes(word(entry.value, 0)),
            row: entry.value.get(8..).unwrap_or_default(),
            entry: entry.key,
        })
    }

    /// The records of a key from this time on, in order.
    pub(super) fn from<'s>(&'s self, key: KeyRef<'_>, time: i64) -> impl Iterator<Item = Record<'s>> + use<'s> {
        self.backend[self.records].entries_from(key.hash, key.bytes, &ordered(time)).map(|entry| Record {
            time: unordered(word(entry.key, 0)),
            mark: i64::from_le_bytes(word(entry.value, 0)),
            row: entry.value.get(8..).unwrap_or_default(),
            entry: entry.key,
        })
    }

    /// Removes the first records of a key, so many.
    pub(super) fn remove_first(&mut self, key: KeyRef<'_>, count: usize) {
        let mut of_key = self.of(key);
        let entries: Vec<[u8; 16]> = of_key.by_ref().take(count).filter_map(|record| record.entry.try_into().ok()).collect();
        let is_all = of_key.next().is_none();
        drop(of_key);
        let records = &mut self.backend[self.records];
        if is_all {
            records.remove_all(key.hash, key.bytes);
        } else {
            for entry in entries {
                records.remove(key.hash, key.bytes, &entry);
            }
        }
    }

    /// Has the key asked when the watermark has come this far.
    pub(super) fn set_deadline(&mut self, at: i64, key: KeyRef<'_>) -> Result<()> {
        let deadlines = &mut self.backend[self.deadlines];
        deadlines.insert(at, key.hash, key.bytes, &key.hash.to_le_bytes()).map(drop).map_err(state_error)
    }

    /// The key need not be asked then.
    pub(super) fn remove_deadline(&mut self, at: i64, key: KeyRef<'_>) {
        self.backend[self.deadlines].remove(at, key.hash, key.bytes);
    }

    /// Takes out deadlines up to this watermark, so many at most: the keys to be asked, each once, with its first deadline.
    pub(super) fn pop_due(&mut self, at: i64, deadlines_max: usize) -> Vec<(i64, Key)> {
        let due = self.backend[self.deadlines].pop_until(at, deadlines_max);
        let mut seen = HashSet::with_capacity(due.len());
        let keys = due.iter().map(|row| {
            (row.time, Key { hash: u64::from_le_bytes(word(row.value, 0)), bytes: row.key.to_vec() })
        });
        keys.filter(|(_, key)| seen.insert(key.clone())).collect()
    }

    /// What has been fired of a window.
    pub(super) fn fired(&self, key: KeyRef<'_>, start: i64, end: i64) -> Option<Fired> {
        let value = self.backend[self.fired].get(key.hash, key.bytes, &bounds(start, end))?;
        Some(read_fired(value))
    }

    /// The windows of a key of which something has been fired, in order.
    pub(super) fn all_fired(&self, key: KeyRef<'_>) -> Vec<(i64, i64, Fired)> {
        let entries = self.backend[self.fired].entries(key.hash, key.bytes);
        entries
            .map(|entry| (unordered(word(entry.key, 0)), unordered(word(entry.key, 8)), read_fired(entry.value)))
            .collect()
    }

    pub(super) fn set_fired(&mut self, key: KeyRef<'_>, (start, end): (i64, i64), fired: Fired) -> Result<()> {
        let mut value = Vec::with_capacity(17);
        value.extend_from_slice(&fired.panes.to_le_bytes());
        value.extend_from_slice(&fired.records.to_le_bytes());
        value.push(u8::from(fired.is_on_time));
        let table = &mut self.backend[self.fired];
        table.insert(key.hash, key.bytes, &bounds(start, end), &value).map(drop).map_err(state_error)
    }

    pub(super) fn forget_fired(&mut self, key: KeyRef<'_>, start: i64, end: i64) {
        self.backend[self.fired].remove(key.hash, key.bytes, &bounds(start, end));
    }

    /// Windows of the key with ends up to this one take no more records, though records of theirs are still there.
    pub(super) fn dropped(&self, key: KeyRef<'_>) -> Option<i64> {
        self.fired(key, i64::MIN, i64::MIN).map(|fired| fired.panes)
    }

    /// Sets what [`dropped`](Records::dropped) returns.
    pub(super) fn set_dropped(&mut self, key: KeyRef<'_>, end: Option<i64>) -> Result<()> {
        match end {
            Some(end) => self.set_fired(key, (i64::MIN, i64::MIN), Fired { panes: end, ..Fired::default() }),
            None => {
                self.forget_fired(key, i64::MIN, i64::MIN);
                Ok(())
            }
        }
    }

    pub(super) fn groups(&self) -> Range<u16> {
        self.backend[self.records].groups()
    }

    /// The next key of a key group that has records.
    pub(super) fn next_key(&self, group: u16, after: Option<&Key>) -> Option<Key> {
        let after = after.map(|key| (key.hash, key.bytes.as_slice()));
        let (hash, bytes) = self.backend[self.records].next_key(group, after)?;
        Some(Key { hash, bytes: bytes.to_vec() })
    }

    /// All keys that have records.
    pub(super) fn all_keys(&self) -> Vec<Key> {
        let mut keys = Vec::new();
        for group in self.groups() {
            let mut last = self.next_key(group, None);
            while let Some(key) = last {
                last = self.next_key(group, Some(&key));
                keys.push(key);
            }
        }
        keys
    }

    /// Writes what is needed beside the blocks.
    pub(super) fn snapshot(&mut self, snapshot: &mut Snapshot, bytes: &mut Vec<u8>) {
        let description = self.backend.snapshot(snapshot.is_full, &mut snapshot.blocks);
        bytes.extend_from_slice(&self.next.to_le_bytes());
        bytes.extend_from_slice(&description);
    }

    /// Takes up what snapshots have written.
    pub(super) fn restore(&mut self, parts: &[&[u8]], blocks: &[RestoredBlock]) -> Result<()> {
        let mut descriptions = Vec::with_capacity(parts.len());
        for part in parts {
            let (next, description) = part
                .split_first_chunk::<8>()
                .ok_or_else(|| Error::checkpoint("the state of a window is damaged: it ends too early"))?;
            self.next = self.next.max(u64::from_le_bytes(*next));
            descriptions.push(description);
        }
        self.backend.restore(&descriptions, blocks).map_err(state_error)
    }
}

/// What a window is called in the state: by its bounds. One of all time has 0 as its start there, as earlier versions wrote it.
fn bounds(start: i64, end: i64) -> [u8; 16] {
    let start = if start == i64::MIN { 0 } else { start };
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&ordered(start));
    bytes[8..].copy_from_slice(&ordered(end));
    bytes
}

fn read_fired(value: &[u8]) -> Fired {
    Fired {
        panes: i64::from_le_bytes(word(value, 0)),
        records: u64::from_le_bytes(word(value, 8)),
        is_on_time: value.get(16).is_some_and(|&flag| flag != 0),
    }
}
