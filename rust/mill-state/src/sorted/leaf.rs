//! A leaf: some rows of sorted state, with their keys and values in one run of bytes.
//!
//! Invariants: the rows ascend strictly by (order, key); `bytes` holds the key and then the value of every row, and
//! `garbage` bytes of no row, which are at most half of it.

use std::ops::Range;

use super::Entry;

/// How many rows a leaf has at most.
pub(super) const ROWS_MAX: usize = 256;
/// How many bytes the keys and values of a leaf have at most, if it has more than one row.
pub(super) const BYTES_MAX: usize = 64 << 10;

#[derive(Clone, Copy, Debug)]
struct Row {
    order: i64,
    start: usize,
    key: u32,
    value: u32,
}

impl Row {
    fn bytes(&self) -> usize {
        self.key as usize + self.value as usize
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Leaf {
    rows: Vec<Row>,
    bytes: Vec<u8>,
    garbage: usize,
}

impl Leaf {
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.rows.len() >= ROWS_MAX || self.live_bytes() >= BYTES_MAX
    }

    /// How many bytes its keys and values have.
    pub(super) fn live_bytes(&self) -> usize {
        self.bytes.len() - self.garbage
    }

    pub(super) fn memory(&self) -> usize {
        size_of::<Leaf>() + self.rows.capacity() * size_of::<Row>() + self.bytes.capacity()
    }

    pub(super) fn entry(&self, row: usize) -> Entry<'_> {
        let Row { order, start, key, value } = self.rows[row];
        let end = start + key as usize;
        Entry { order, key: &self.bytes[start..end], value: &self.bytes[end..end + value as usize] }
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        (0..self.len()).map(|row| self.entry(row))
    }

    /// The first row of which this does not hold.
    pub(super) fn position(&self, is_before: impl Fn(Entry<'_>) -> bool) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            if is_before(self.entry(middle)) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    pub(super) fn insert(&mut self, row: usize, entry: Entry<'_>) {
        let stored = self.store(entry);
        self.rows.insert(row, stored);
    }

    pub(super) fn replace(&mut self, row: usize, entry: Entry<'_>) {
        let stored = self.store(entry);
        let old = std::mem::replace(&mut self.rows[row], stored);
        self.garbage += old.bytes();
        self.collect();
    }

    pub(super) fn remove(&mut self, rows: Range<usize>) {
        self.garbage += self.rows.drain(rows).map(|row| row.bytes()).sum::<usize>();
        self.collect();
    }

    /// Splits off the upper half of its rows.
    pub(super) fn split(&mut self) -> Leaf {
        let middle = self.len() / 2;
        let mut high = Leaf::default();
        for row in middle..self.len() {
            let stored = high.store(self.entry(row));
            high.rows.push(stored);
        }
        self.remove(middle..self.len());
        high
    }

    /// Adds the rows of another leaf, all of which come after its own.
    pub(super) fn append(&mut self, high: &Leaf) {
        for entry in high.entries() {
            let stored = self.store(entry);
            self.rows.push(stored);
        }
    }

    fn store(&mut self, entry: Entry<'_>) -> Row {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(entry.key);
        self.bytes.extend_from_slice(entry.value);
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).expect("keys and values are checked to be shorter than 4 GiB");
        Row { order: entry.order, start, key: length(entry.key), value: length(entry.value) }
    }

    /// Frees the memory of removed rows once it is more than the others take.
    fn collect(&mut self) {
        if self.garbage * 2 <= self.bytes.len() && self.rows.capacity() <= (self.len() * 4).max(16) {
            return;
        }
        let mut bytes = Vec::with_capacity(self.live_bytes());
        for row in &mut self.rows {
            let start = bytes.len();
            bytes.extend_from_slice(&self.bytes[row.start..row.start + row.bytes()]);
            row.start = start;
        }
        (self.bytes, self.garbage) = (bytes, 0);
        self.rows.shrink_to_fit();
    }
}
