//! Rows of dense integer keys, in a direct-addressed array.
//!
//! ```text
//!   key        1007            first key 1000, rows of 4 words
//!                │
//!                └─ 1007 − 1000 = 7 ─► memory[7 × 4 ..]    tag 0: the row is empty
//! ```
//!
//! Nothing is hashed and nothing searched for, so a look-up costs a third of one in a [`StateTable`](crate::StateTable). It
//! fits where the keys of a frame are in a narrow range, as consecutively assigned numbers are. Such a table only combines
//! records for a while: it is read and emptied as a whole, and no checkpoint holds it.
//!
//! Invariants: `memory` has `slots` whole rows after `begin`; it is not resized while a table lives, so rows do not move;
//! rows outside of `used` are zero.

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

use crate::key::Kind;
use crate::layout::{RowLayout, TAG_OCCUPIED};
use crate::rows::{Rows, RowsRead};
use crate::select::Select;

/// How many bytes of rows a table has at most: what is touched of it by turns should stay in the caches of a core.
const TABLE_BYTES_MAX: usize = 4 << 20;
/// The words of a cache line, where the first row begins.
const LINE_WORDS: usize = 8;
/// What part of the room to spare is left below the first keys, as the next ones may be a little lower.
const ROOM_BELOW: u64 = 8;

/// The lowest and the highest key of a frame, as the words that rows hold; in the order of signed numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRange {
    low: i64,
    high: i64,
}

impl KeyRange {
    /// The range of these words; `None` of none.
    pub(crate) fn of(words: &[u64]) -> Option<KeyRange> {
        let first = *words.first()? as i64;
        let (low, high) =
            words.iter().fold((first, first), |(low, high), &word| (low.min(word as i64), high.max(word as i64)));
        Some(KeyRange { low, high })
    }

    /// The range of so many numbers from zero on.
    pub(crate) fn up_to(keys: u64) -> KeyRange {
        KeyRange { low: 0, high: keys as i64 - 1 }
    }

    /// The word of its lowest key.
    pub(crate) fn low(self) -> u64 {
        self.low as u64
    }

    /// How many keys may be in it.
    pub fn keys(self) -> u64 {
        self.high.abs_diff(self.low).saturating_add(1)
    }
}

/// Rows of one layout, addressed by their key.
#[derive(Debug)]
pub struct DirectTable {
    row_words: usize,
    /// The first word after the key.
    value_word: usize,
    memory: Vec<u64>,
    /// The first word of the first row.
    begin: usize,
    slots: usize,
    /// The key of the first row.
    first: i64,
    /// Where rows may be taken.
    used: Range<usize>,
    rows: usize,
    pointers: Vec<*mut u64>,
    scanned: Vec<*const u64>,
}

// SAFETY: the pointers lead into `memory`, which moves with the table, and are used only within the call that made them or
// by what borrows the table for as long.
unsafe impl Send for DirectTable {}

impl DirectTable {
    /// How many rows of this layout a table has room for; none if its rows cannot be addressed by their keys, or by numbers of these
    /// if they are `numbered`.
    pub fn slots_of(layout: &RowLayout, is_numbered: bool) -> usize {
        let is_fit = (layout.key.0 == Kind::Word || is_numbered && layout.key.words() > 0) && layout.cells == 0;
        if is_fit { TABLE_BYTES_MAX / (layout.row_words * size_of::<u64>()) } else { 0 }
    }

    /// An empty table for keys of this range and near it.
    ///
    /// # Panics
    /// If there is no room for the range.
    pub fn new(layout: &Arc<RowLayout>, range: KeyRange) -> DirectTable {
        let slots = DirectTable::slots_of(layout, true);
        let memory = vec![0_u64; slots * layout.row_words + LINE_WORDS];
        let begin = memory.as_ptr().align_offset(LINE_WORDS * size_of::<u64>()).min(LINE_WORDS);
        let mut table = DirectTable {
            row_words: layout.row_words,
            value_word: layout.value_word(),
            memory,
            begin,
            slots,
            first: 0,
            used: 0..0,
            rows: 0,
            pointers: Vec::new(),
            scanned: Vec::new(),
        };
        table.aim(range);
        table
    }

    /// Makes an empty table one for keys of this range and near it.
    ///
    /// # Panics
    /// If it is not empty, or there is no room for the range.
    pub fn aim(&mut self, range: KeyRange) {
        assert!(self.used.is_empty(), "rows of a table that is to be aimed anew");
        let spare = (self.slots as u64).checked_sub(range.keys()).expect("room for the range");
        self.first = range.low.saturating_sub_unsigned(spare / ROOM_BELOW);
    }

    /// Whether keys of this range have rows here.
    pub fn holds(&self, range: KeyRange) -> bool {
        range.low >= self.first && range.high.abs_diff(self.first) < self.slots as u64
    }

    /// How many rows are taken.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// The rows of these keys, which the selection picks from `words`; a key without one gets a row of zeros.
    ///
    /// # Panics
    /// If the table does not hold one of the keys, or a record does not exist.
    pub fn find_or_insert<S: Select>(&mut self, words: &[u64], select: S) -> Rows<'_> {
        let row_words = self.row_words;
        let rows = self.memory[self.begin..][..self.slots * row_words].as_mut_ptr();
        let (first, mut low, mut high) = (self.first as u64, u64::MAX, 0);
        self.pointers.clear();
        self.pointers.extend((0..select.len()).map(|index| {
            let slot = words[select.at(index)].wrapping_sub(first);
            low = low.min(slot);
            high = high.max(slot);
            rows.wrapping_add((slot as usize).wrapping_mul(row_words))
        }));
        if !self.pointers.is_empty() {
            assert!(high < self.slots as u64, "a key that lies {high} above the first of {} rows", self.slots);
            self.used = if self.used.is_empty() {
                low as usize..high as usize + 1
            } else {
                self.used.start.min(low as usize)..self.used.end.max(high as usize + 1)
            };
        }
        let mut taken = 0;
        for (index, &row) in self.pointers.iter().enumerate() {
            // SAFETY: the slot is below `slots` by the assertion above, so the row is in `memory`, which is borrowed
            // exclusively; a row has a tag and a word of key, and this is the only reference to it.
            let head = unsafe { &mut *row.cast::<[u64; 2]>() };
            taken += usize::from(head[0] == 0);
            head[0] |= TAG_OCCUPIED;
            head[1] = words[select.at(index)];
        }
        self.rows += taken;
        Rows { pointers: &self.pointers, cells: &[], row_words, cells_per_row: 0, inserted: &[], table: PhantomData }
    }

    /// How many rows, taken or not, are looked at to read all that are taken.
    pub fn span(&self) -> usize {
        self.used.len()
    }

    /// After which slot all rows are empty.
    pub fn end(&self) -> usize {
        self.used.end
    }

    /// The next rows, at most `rows_max` of them, from slot `from` on, which then is where to read on.
    pub fn scan(&mut self, from: &mut usize, rows_max: usize) -> RowsRead<'_> {
        let (row_words, value_word, memory) = (self.row_words, self.value_word, &self.memory[self.begin..]);
        self.scanned.clear();
        let start = (*from).max(self.used.start);
        let end = self.used.end.max(start);
        *from = end;
        for (slot, row) in memory[start * row_words..end * row_words].chunks_exact(row_words).enumerate() {
            if row[0] == 0 {
                continue;
            }
            if self.scanned.len() == rows_max {
                *from = start + slot;
                break;
            }
            self.scanned.push(row.as_ptr());
        }
        RowsRead { pointers: &self.scanned, places: &[], chunks: &[], row_words, value_word, cells_per_row: 0 }
    }

    /// Moves all rows into an empty table, where they have the keys that `renumbered` returns for theirs: others for each.
    ///
    /// # Panics
    /// If the other table does not hold one of the keys, or has another layout.
    pub fn move_into(&mut self, other: &mut DirectTable, renumbered: impl Fn(u64) -> u64) {
        let row_words = self.row_words;
        assert!(other.is_empty() && other.row_words == row_words, "rows are moved into an empty table of their layout");
        let used = self.used.clone();
        for row in self.memory[self.begin..][used.start * row_words..used.end * row_words].chunks_exact(row_words) {
            if row[0] != 0 {
                let key = renumbered(row[1]);
                let slot = key.wrapping_sub(other.first as u64) as usize;
                let moved = &mut other.memory[other.begin..][..other.slots * row_words][slot * row_words..][..row_words];
                moved.copy_from_slice(row);
                moved[1] = key;
                let used = &mut other.used;
                *used = if Range::is_empty(used) { slot..slot + 1 } else { used.start.min(slot)..used.end.max(slot + 1) };
            }
        }
        other.rows = self.rows;
        self.clear();
    }

    /// Empties the table; its memory stays.
    pub fn clear(&mut self) {
        let used = std::mem::replace(&mut self.used, 0..0);
        self.memory[self.begin..][used.start * self.row_words..used.end * self.row_words].fill(0);
        self.rows = 0;
    }
}

#[cfg(test)]
mod tests;
