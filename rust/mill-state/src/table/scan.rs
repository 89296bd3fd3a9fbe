//! Reading a table row by row, or only what changed, from a place on.

use super::StateTable;
use crate::bucket::set_bit;
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
        let row_words = self.layout.row_words;
        self.scanned.clear();
        self.places.clear();
        while cursor.chunk < self.chunks.len() && self.scanned.len() < rows_max {
            let chunk = &self.chunks[cursor.chunk];
            while cursor.slot <= chunk.mask && self.scanned.len() < rows_max {
                let row = chunk.row(cursor.slot, row_words);
                // SAFETY: the slot lies in the chunk.
                if unsafe { *row } != 0 {
                    self.scanned.push(row);
                    self.places.push((cursor.chunk as u32, cursor.slot));
                }
                cursor.slot += 1;
            }
            if cursor.slot > chunk.mask {
                *cursor = Cursor { chunk: cursor.chunk + 1, slot: 0 };
            }
        }
        self.read()
    }

    /// Reads on from `cursor` the rows that changed since they were last read this way, and clears `flag` of each.
    pub fn scan_changed(&mut self, cursor: &mut Cursor, rows_max: usize, flag: Option<Flag>) -> RowsRead<'_> {
        assert!(self.options.tracks_changes, "the table does not track changes");
        let (row_words, dirty) = (self.layout.row_words, self.dirty_bit());
        self.scanned.clear();
        self.places.clear();
        while cursor.chunk < self.chunks.len() && self.scanned.len() < rows_max {
            let place = cursor.chunk;
            if cursor.slot == 0 && flag.is_some() && self.chunks[place].changed.iter().any(|&word| word != 0) {
                self.make_writable(place as u32);
            }
            let chunk = &mut self.chunks[place];
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
                let row = chunk.row(slot, row_words);
                if let Some(flag) = flag {
                    // SAFETY: the slot lies in the chunk, which is writable; flags lie within the row.
                    unsafe { *row.add(flag.word) &= !flag.mask };
                    // SAFETY: as above; the first word of a row is its tag.
                    unsafe { *row |= dirty };
                }
                self.scanned.push(row);
                self.places.push((place as u32, slot));
            }
            if cursor.slot > chunk.mask {
                *cursor = Cursor { chunk: place + 1, slot: 0 };
            }
        }
        self.read()
    }

    /// Marks the rows with this flag as changed: what was changed but not yet read when a checkpoint was taken.
    pub fn mark_changed(&mut self, flag: Flag) {
        assert!(self.options.tracks_changes, "the table does not track changes");
        for chunk in &mut self.chunks {
            for slot in 0..=chunk.mask {
                let row = chunk.row(slot, self.layout.row_words);
                // SAFETY: the slot lies in the chunk and flags lie within the row.
                let (tag, word) = unsafe { (*row, *row.add(flag.word)) };
                if tag != 0 && word & flag.mask != 0 {
                    set_bit(&mut chunk.changed, slot, true);
                }
            }
        }
    }

    fn read(&self) -> RowsRead<'_> {
        RowsRead {
            pointers: &self.scanned,
            places: &self.places,
            chunks: &self.chunks,
            row_words: self.layout.row_words,
            cells_per_row: self.layout.cells,
        }
    }
}
