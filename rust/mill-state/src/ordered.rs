//! Rows in order of time: timers, deadlines, whatever is due at a time.

use std::ops::Range;

use mill_frame::block::{Blocks, RestoredBlock};
use mill_frame::hash::key_group;

use crate::error::{Result, StateError};
use crate::sorted::{Entry, SortedTable};

/// Keys and values have at most so many bytes.
const BYTES_MAX: usize = 1 << 30;

/// A table of rows (time, key) → value, sorted by time and then by the bytes of the key.
///
/// A row belongs to the key group of its key's hash. There may be a row for each pair of time and key; adding one that is
/// there replaces its value. A task that takes up rows of other tasks (another parallelism) holds those of its groups.
///
/// A look-up by key alone would go through all times: for that, keep a [`MultiMap`](crate::MultiMap) of the key's times.
///
/// # Examples
/// ```
/// use mill_state::OrderedTable;
///
/// let mut timers = OrderedTable::new(0..128, 0, "timers");
/// timers.insert(20, 7, b"key", b"")?;
/// timers.insert(10, 7, b"key", b"first")?;
/// let due = timers.pop_until(15, 1000);
/// assert_eq!(due.iter().map(|row| (row.time, row.value)).collect::<Vec<_>>(), [(10, &b"first"[..])]);
/// assert_eq!(timers.first_time(), Some(20));
/// # Ok::<(), mill_state::StateError>(())
/// ```
#[derive(Debug)]
pub struct OrderedTable(SortedTable);

/// A row of an [`OrderedTable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrderedRow<'a> {
    /// The time.
    pub time: i64,
    /// The bytes of the key.
    pub key: &'a [u8],
    /// The value.
    pub value: &'a [u8],
}

impl<'a> From<Entry<'a>> for OrderedRow<'a> {
    fn from(Entry { order, key, value }: Entry<'a>) -> OrderedRow<'a> {
        OrderedRow { time: order, key, value }
    }
}

/// Rows that were taken out of an [`OrderedTable`], in their order.
#[derive(Debug, Default)]
pub struct OrderedRows {
    /// Of each row: its time, and where its key and its value end in `bytes`.
    rows: Vec<(i64, usize, usize)>,
    bytes: Vec<u8>,
}

impl OrderedRows {
    /// How many rows they are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The rows, in their order.
    pub fn iter(&self) -> impl Iterator<Item = OrderedRow<'_>> {
        let starts = std::iter::once(0).chain(self.rows.iter().map(|&(.., end)| end));
        self.rows.iter().zip(starts).map(|(&(time, middle, end), start)| OrderedRow {
            time,
            key: &self.bytes[start..middle],
            value: &self.bytes[middle..end],
        })
    }

    fn push(&mut self, entry: Entry<'_>) {
        self.bytes.extend_from_slice(entry.key);
        let middle = self.bytes.len();
        self.bytes.extend_from_slice(entry.value);
        self.rows.push((entry.order, middle, self.bytes.len()));
    }
}

/// Checks that keys and values are not too long.
pub(crate) fn check_length(bytes: usize) -> Result<()> {
    if bytes > BYTES_MAX { Err(StateError::ValueTooLong { bytes, bytes_max: BYTES_MAX }) } else { Ok(()) }
}

impl OrderedTable {
    /// An empty table of these key groups, which is this state of its step; `signature` says in words what its rows mean.
    ///
    /// # Panics
    /// If the key groups are none or more than there are.
    pub fn new(groups: Range<u16>, state: u16, signature: &str) -> OrderedTable {
        OrderedTable(SortedTable::new(groups, state, &format!("ordered: {signature}")))
    }

    /// Makes it another state of its step, before it is restored.
    pub(crate) fn set_state(&mut self, state: u16) {
        self.0.set_state(state);
    }

    /// Adds a row, or replaces the value of the row of this time and key. Whether it is new.
    ///
    /// # Errors
    /// When key and value together are longer than a gibibyte.
    ///
    /// # Panics
    /// If the hash belongs to a key group that the table does not hold; so do the others that take one.
    pub fn insert(&mut self, time: i64, hash: u64, key: &[u8], value: &[u8]) -> Result<bool> {
        check_length(key.len().saturating_add(value.len()))?;
        Ok(self.0.insert(key_group(hash), Entry { order: time, key, value }))
    }

    /// Removes a row. Whether it was there.
    pub fn remove(&mut self, time: i64, hash: u64, key: &[u8]) -> bool {
        self.0.remove(key_group(hash), time, key)
    }

    /// The value of a row, if it is there.
    pub fn get(&self, time: i64, hash: u64, key: &[u8]) -> Option<&[u8]> {
        let found = self.0.entries_from(key_group(hash), time, key).next()?;
        ((found.order, found.key) == (time, key)).then_some(found.value)
    }

    /// The rows of one key group whose time is in the range, in order.
    pub fn range(&self, group: u16, times: Range<i64>) -> impl Iterator<Item = OrderedRow<'_>> {
        self.0.entries_from(group, times.start, b"").take_while(move |entry| entry.order < times.end).map(OrderedRow::from)
    }

    /// The rows of one key whose time is in the range, in order. Reads the rows of its group in that range.
    pub fn range_of<'a>(&'a self, hash: u64, key: &'a [u8], times: Range<i64>) -> impl Iterator<Item = OrderedRow<'a>> {
        self.range(key_group(hash), times).filter(move |row| row.key == key)
    }

    /// The earliest time of all rows.
    pub fn first_time(&self) -> Option<i64> {
        self.0.first()
    }

    /// Takes out the rows whose time has come, up to `time` and this one included, in order of time and key: `rows_max`
    /// of them at most.
    pub fn pop_until(&mut self, time: i64, rows_max: usize) -> OrderedRows {
        let mut taken = OrderedRows::default();
        self.0.pop_until(time, rows_max, |_, entry| taken.push(entry));
        taken
    }

    /// The key groups that the table holds.
    pub fn groups(&self) -> Range<u16> {
        self.0.groups()
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// About how many bytes of memory it takes.
    pub fn memory(&self) -> usize {
        self.0.memory()
    }

    /// Returns what changed since the last snapshot (or everything), to be made blocks of.
    pub fn snapshot(&mut self, is_full: bool, out: &mut Blocks) {
        self.0.snapshot(is_full, out);
    }

    /// Takes up the rows that these blocks leave, oldest first, in place of those that are there. Blocks of other states
    /// and of key groups that the table does not hold are skipped.
    ///
    /// # Errors
    /// When blocks are of rows that mean something else, or contradict each other or themselves.
    pub fn restore<'b>(&mut self, blocks: impl IntoIterator<Item = &'b RestoredBlock>) -> Result<()> {
        self.0.restore(blocks)
    }
}
