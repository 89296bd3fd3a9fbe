//! Reading a table row by row, or only what changed, from a place on.

use std::ops::RangeInclusive;

use super::StateTable;
use crate::key::view_bytes;
use crate::layout::Flag;
use crate::rows::RowsRead;

/// A place in a table from which a scan goes on. Valid while no row is added or removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    chunk: usize,
    slot: u32,
}
impl StateTable {
    /// Reads on from `cursor`: the next rows, about `rows_max` of them; none at the end.
    pub fn scan(&mut self, cursor: &mut Cursor, rows_max: usize) -> RowsRead<'_> {
        self.scan_where(cursor, rows_max, |row, _| row[0] != 0)
    }

    /// Reads on from `cursor` as [`scan`](StateTable::scan) does, but only the rows whose last key column, a whole number that is
    /// never null, is within a range.
    pub fn scan_within(&mut self, cursor: &mut Cursor, rows_max: usize, within: RangeInclusive<i64>) -> RowsRead<'_> {
        match self.layout.key.last_word() {
            Some(word) => {
                if within.is_empty() {
                    return self.scan_where(cursor, 0, |_, _| false);
                }
                // One comparison instead of two: what is below the start wraps round to far above.
                let (start, span) = (*within.start(), within.end().wrapping_sub(*within.start()) as u64);
                self.scan_where(cursor, rows_max, |row, _| (row[0] != 0) & ((row[word] as i64).wrapping_sub(start) as u64 <= span))
            }
            // Of a key that is damaged the decoder tells.
            None => self.scan_where(cursor, rows_max, |row, arena| {
                row[0] != 0 && within.contains(&last_number(&row[1..3], arena).unwrap_or(*within.start()))
            }),
        }
    }

    /// Reads on from `cursor`: those of the next rows that `is_wanted` picks by their words and the chunk's long keys, about
    /// `rows_max` of them.
    #[inline(always)]
    fn scan_where(&mut self, cursor: &mut Cursor, rows_max: usize, is_wanted: impl Fn(&[u64], &[u8]) -> bool) -> RowsRead<'_> {
        let row_words = self.layout.row_words;
        let mut count = 0;
        while cursor.chunk < self.chunks.len() && count < rows_max {
            let chunk = &self.chunks[cursor.chunk];
            let arena = chunk.data().arena.bytes();
            let slots = ((chunk.mask - cursor.slot + 1) as usize).min(rows_max - count);
            // Each slot is noted where the next row would be, and stays if it is one: which of them are rows cannot be guessed.
            self.scanned.resize(count + slots, std::ptr::null_mut());
            self.places.resize(count + slots, (0, 0));
            let (rows, places) = (&mut self.scanned[count..], &mut self.places[count..]);
            let mut found = 0;
            for slot in cursor.slot..cursor.slot + slots as u32 {
                let start = chunk.row(slot, row_words);
                (rows[found], places[found]) = (start, (cursor.chunk as u32, slot));
                // SAFETY: the slot is in the chunk, whose rows have `row_words` words; nothing writes to them meanwhile.
                let row = unsafe { std::slice::from_raw_parts(start.cast_const(), row_words) };
                found += usize::from(is_wanted(row, arena));
            }
            count += found;
            cursor.slot += slots as u32;
            if cursor.slot > chunk.mask {
                *cursor = Cursor { chunk: cursor.chunk + 1, slot: 0 };
            }
        }
        self.scanned.truncate(count);
        self.places.truncate(count);
        self.read()
    }

    /// Reads on from `cursor` the rows that changed since they were last read this way. With a flag they are those of the
    /// changed rows that have it, and it is cleared of each.
    pub fn scan_changed(&mut self, cursor: &mut Cursor, rows_max: usize, flag: Option<Flag>) -> RowsRead<'_> {
        assert!(self.options.tracks_changes, "the table does not track changes");
        let (row_words, dirty) = (self.layout.row_words, self.dirty_bit());
        self.scanned.clear();
        self.places.clear();
        while cursor.chunk < self.chunks.len() && self.scanned.len() < rows_max {
            let place = cursor.chunk;
            let mut chunk = &mut self.chunks[place];
            while cursor.slot <= chunk.mask && self.scanned.len() < rows_max {
                let (word, slot) = ((cursor.slot >> 6) as usize, cursor.slot);
                let rest = chunk.changed[word] >> (slot & 63);
                if rest == 0 {
                    cursor.slot = (word as u32 + 1) << 6;
                    continue;
                }
                let slot = slot + rest.trailing_zeros();
                chunk.changed[word] &= !(1 << (slot & 63));
                cursor.slot = slot + 1;
                if let Some(flag) = flag {
                    let row = chunk.row(slot, row_words);
                    // SAFETY: the slot is in the chunk and flags are within the row.
                    let (tag, flags) = unsafe { (*row, *row.add(flag.word)) };
                    if tag == 0 || flags & flag.mask == 0 {
                        continue;
                    }
                    if chunk.epoch != self.epoch {
                        self.make_writable(place as u32);
                        chunk = &mut self.chunks[place];
                    }
                    let row = chunk.row(slot, row_words);
                    // SAFETY: as above, and the chunk is writable.
                    unsafe { *row.add(flag.word) &= !flag.mask };
                    // SAFETY: as above; the first word of a row is its tag.
                    unsafe { *row |= dirty };
                }
                self.scanned.push(chunk.row(slot, row_words));
                self.places.push((place as u32, slot));
            }
            if cursor.slot > chunk.mask {
                *cursor = Cursor { chunk: place + 1, slot: 0 };
            }
        }
        self.read()
    }

    /// Lets the next scan of changes look at every row: what was changed but not yet read when a checkpoint was taken has
    /// the flag that the scan is given.
    pub fn mark_changed(&mut self) {
        assert!(self.options.tracks_changes, "the table does not track changes");
        for chunk in &mut self.chunks {
            let rows = u64::from(chunk.mask) + 1;
            chunk.changed.fill(if rows < 64 { (1 << rows) - 1 } else { u64::MAX });
        }
    }

    pub(super) fn read(&self) -> RowsRead<'_> {
        RowsRead {
            pointers: &self.scanned,
            places: &self.places,
            chunks: &self.chunks,
            row_words: self.layout.row_words,
            value_word: 1 + self.layout.key.words(),
            cells_per_row: self.layout.cells,
        }
    }
}

/// The number that an encoding of several key columns ends with.
fn last_number(view: &[u64], arena: &[u8]) -> Option<i64> {
    let mut inline = [0; 16];
    crate::key::last_number(view_bytes(view, &mut inline, arena)?)
}
