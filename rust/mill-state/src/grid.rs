//! Rows for records that are aggregated and emitted at once, with dense integer keys.
//!
//! ```text
//!   key (1007, window 12)      1000 … 1499 by window 10 … 13
//!                │
//!                └─ (12 − 10) × 500 + (1007 − 1000) = 1007 ─► places[1007] = 3 ─► the third row     0: there is none yet
//! ```
//!
//! The ranges are those of the records at hand, so nothing is hashed, nothing searched for, and no room is left for others. Rows are in
//! the order in which their keys came first, and have no keys: those are the keys of these first records.
//!
//! Invariants: `memory` has `room` whole rows after `begin`, and at most so many are taken; it is not resized while rows are borrowed;
//! rows that are not taken are zero, and so are all of `places` while no row is taken.

use std::marker::PhantomData;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::DataType;

use crate::direct::KeyRange;
use crate::error::Result;
use crate::key::column_words;
use crate::layout::{RowLayout, TAG_OCCUPIED};
use crate::rows::{Rows, RowsRead};
use crate::select::Select;

/// How many places there are for each record at most, and in all.
const PLACES_PER_RECORD: u64 = 16;
const PLACES_MAX: u64 = 1 << 20;
/// Of how many records the keys are looked at before those of all are.
const SAMPLE: usize = 64;
/// The words of a cache line, where the first row begins.
const LINE_WORDS: usize = 8;

/// Rows of one layout, found by the numbers of their key.
#[derive(Debug)]
pub struct GridTable {
    row_words: usize,
    /// The first word after the key.
    value_word: usize,
    /// The row of each place, counted from one.
    places: Vec<u32>,
    memory: Vec<u64>,
    /// The first word of the first row.
    begin: usize,
    room: usize,
    /// The record with which each row began.
    firsts: Vec<u32>,
    /// Of the records at hand: their places, and the numbers of one column.
    numbers: Vec<u32>,
    words: Vec<u64>,
    pointers: Vec<*mut u64>,
    scanned: Vec<*const u64>,
}

// SAFETY: the pointers lead into `memory`, which moves with the table, and are used only within the call that made them or
// by what borrows the table for as long.
unsafe impl Send for GridTable {}

impl GridTable {
    /// A table for rows of this layout; `None` if they have something beside them.
    pub fn new(layout: &Arc<RowLayout>) -> Option<GridTable> {
        (layout.cells == 0).then(|| GridTable {
            row_words: layout.row_words,
            value_word: layout.value_word(),
            places: Vec::new(),
            memory: Vec::new(),
            begin: 0,
            room: 0,
            firsts: Vec::new(),
            numbers: Vec::new(),
            words: Vec::new(),
            pointers: Vec::new(),
            scanned: Vec::new(),
        })
    }

    /// Gets ready for the records with these keys, if they are few places apart; the numbers of the last column are multiples of `step`
    /// apart. Returns whether they are.
    ///
    /// # Errors
    /// When a column has another type than it should.
    ///
    /// # Panics
    /// If there are rows.
    pub fn aim(&mut self, keys: &[ArrayRef], records: usize, step: u64) -> Result<bool> {
        assert!(self.is_empty(), "rows of a grid that is to be aimed anew");
        let most = (records as u64).saturating_mul(PLACES_PER_RECORD).min(PLACES_MAX);
        let Some((last, others)) = keys.split_last().filter(|_| keys.iter().all(is_number)) else { return Ok(false) };
        // Keys that are far from each other mostly show it soon, and then cost next to nothing here.
        let mut sample = [0; SAMPLE];
        let sample = &mut sample[..records.min(SAMPLE)];
        for key in others {
            column_words(&key.slice(0, sample.len()), sample, 1, 0)?;
            if KeyRange::of(sample).is_none_or(|range| range.keys() > most) {
                return Ok(false);
            }
        }
        let (words, numbers) = (&mut self.words, &mut self.numbers);
        words.resize(records, 0);
        numbers.clear();
        numbers.resize(records, 0);
        // The last column is the outermost: what is of one window lies together.
        column_words(last, words, 1, 0)?;
        let Some(range) = KeyRange::of(words) else { return Ok(false) };
        let step = step.max(1);
        let mut places = (range.keys() - 1) / step + 1;
        if places > most {
            return Ok(false);
        }
        // Mostly records of one window come one after the other.
        let (mut known, mut at) = (range.low(), 0);
        for (number, &word) in numbers.iter_mut().zip(&*words) {
            if word != known {
                (known, at) = (word, (word.wrapping_sub(range.low()) / step) as u32);
            }
            *number = at;
        }
        for key in others {
            column_words(key, words, 1, 0)?;
            let Some(range) = KeyRange::of(words) else { return Ok(false) };
            match places.checked_mul(range.keys()).filter(|places| *places <= most) {
                Some(all) => places = all,
                None => return Ok(false),
            }
            let (low, keys) = (range.low(), range.keys() as u32);
            numbers.iter_mut().zip(&*words).for_each(|(number, word)| *number = *number * keys + word.wrapping_sub(low) as u32);
        }
        self.places.resize(places as usize, 0);
        if self.room < records {
            self.memory.clear();
            self.memory.resize(records * self.row_words + LINE_WORDS, 0);
            self.begin = self.memory.as_ptr().align_offset(LINE_WORDS * size_of::<u64>()).min(LINE_WORDS);
            self.room = records;
        }
        Ok(true)
    }

    /// The rows of the records that the selection picks; a key without one gets a row of zeros.
    ///
    /// # Panics
    /// If it was not aimed at a record.
    pub fn find_or_insert<S: Select>(&mut self, select: S) -> Rows<'_> {
        let GridTable { row_words, places, memory, begin, firsts, numbers, pointers, room, .. } = self;
        let row_words = *row_words;
        let before = firsts.len();
        firsts.resize(before + select.len(), 0);
        let mut taken = before;
        pointers.clear();
        let rows = memory[*begin..][..*room * row_words].as_mut_ptr();
        pointers.extend((0..select.len()).map(|index| {
            let record = select.at(index);
            let place = &mut places[numbers[record] as usize];
            // Whether a key is new cannot be foretold, so there is no branch.
            let is_new = *place == 0;
            firsts[taken] = record as u32;
            taken += usize::from(is_new);
            *place = if is_new { taken as u32 } else { *place };
            rows.wrapping_add((*place as usize - 1).wrapping_mul(row_words))
        }));
        firsts.truncate(taken);
        assert!(taken <= *room, "{taken} rows, and room for {room}");
        for row in pointers.iter() {
            // SAFETY: the row is one of those that are taken, which by the assertion are in `memory`; that is borrowed exclusively, and
            // this is the only reference to it.
            unsafe { **row |= TAG_OCCUPIED };
        }
        Rows { pointers, cells: &[], row_words, cells_per_row: 0, inserted: &[], table: PhantomData }
    }

    /// The next rows, at most `rows_max` of them, from this one on, and the records with which they began; `None` if there are none.
    pub fn scan(&mut self, from: usize, rows_max: usize) -> Option<(RowsRead<'_>, &[u32])> {
        let firsts = &self.firsts[from.min(self.firsts.len())..];
        let firsts = &firsts[..firsts.len().min(rows_max)];
        if firsts.is_empty() {
            return None;
        }
        let words = &self.memory[self.begin..][from * self.row_words..(from + firsts.len()) * self.row_words];
        self.scanned.clear();
        self.scanned.extend(words.chunks_exact(self.row_words).map(<[u64]>::as_ptr));
        let (row_words, value_word) = (self.row_words, self.value_word);
        Some((RowsRead { pointers: &self.scanned, places: &[], chunks: &[], row_words, value_word, cells_per_row: 0 }, firsts))
    }

    /// Empties the table; its memory stays.
    pub fn clear(&mut self) {
        self.memory[self.begin..][..self.firsts.len() * self.row_words].fill(0);
        self.places.clear();
        self.firsts.clear();
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.firsts.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.firsts.is_empty()
    }
}

/// Whether a column has whole numbers, and no null.
fn is_number(column: &ArrayRef) -> bool {
    use DataType::{
        Date32, Date64, Decimal32, Decimal64, Duration, Int8, Int16, Int32, Int64, Time32, Time64, Timestamp, UInt8, UInt16, UInt32, UInt64,
    };
    let is_whole = matches!(
        column.data_type(),
        Int8 | Int16
            | Int32
            | Int64
            | UInt8
            | UInt16
            | UInt32
            | UInt64
            | Date32
            | Date64
            | Time32(_)
            | Time64(_)
            | Timestamp(..)
            | Duration(_)
            | Decimal32(..)
            | Decimal64(..)
    );
    is_whole && column.null_count() == 0
}

#[cfg(test)]
mod tests;
