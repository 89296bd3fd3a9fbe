//! How a table grows: chunks come into being, double and split.

use std::sync::Arc;

use mill_frame::hash::key_group;

use super::{DEPTH_MAX, NO_CHUNK, Shape, StateTable};
use crate::bucket::{Chunk, bit_of, set_bit};
use crate::key::{VIEW_INLINE, view_bytes, view_length};
use crate::layout::TAG_FLAG_FIRST;

impl StateTable {
    /// Makes the chunks of the key group of this hash: one small one, or as many as are expected to be needed. Gives the
    /// place of the one that the hash belongs to.
    pub(super) fn create(&mut self, hash: u64) -> u32 {
        let group = key_group(hash);
        let Shape { depth, capacity } = self.expected;
        while self.depth < depth {
            self.deepen();
        }
        for id in 1 << depth..2 << depth {
            let chunk = Chunk::new(group, id, capacity, &self.layout, &self.options, self.pool());
            let place = self.push_chunk(chunk);
            self.refresh(place as usize);
        }
        self.directory[self.directory_index(hash)].place
    }

    /// Lets the directory tell one more bit of the hash.
    fn deepen(&mut self) {
        self.directory = self.directory.iter().flat_map(|&entry| [entry, entry]).collect();
        self.depth += 1;
    }

    fn push_chunk(&mut self, chunk: Chunk) -> u32 {
        let place = self.chunks.len() as u32;
        assert!(place < NO_CHUNK, "a table has at most 2^32 - 1 chunks");
        if chunk.is_writable && self.options.is_persistent {
            self.touched.push(place);
        }
        self.chunks.push(chunk);
        place
    }
    /// Doubles a chunk, or splits it in two.
    pub(super) fn grow(&mut self, place: usize) {
        self.moved.push(place as u32);
        let (group, id, capacity) = {
            let chunk = &self.chunks[place];
            (chunk.group, chunk.id, chunk.capacity())
        };
        let depth = id.ilog2();
        if capacity < self.capacity_max || depth == DEPTH_MAX {
            let capacity = capacity.checked_mul(2).expect("2^31 rows of one prefix");
            let double = Chunk::new(group, id, capacity, &self.layout, &self.options, self.pool());
            let old = std::mem::replace(&mut self.chunks[place], double);
            // No drop is noted: the next snapshot gives the chunk as a whole, at the same address.
            self.chunks[place].is_held = old.is_held;
            self.refresh(place);
            self.move_rows(&old, place, place);
            return;
        }
        if self.chunks[place].is_held {
            self.dropped.push((group, id));
        }
        let is_plain = self.layout.cells == 0 && !self.layout.key.is_view() && !self.options.tracks_changes;
        let high = Chunk::new(group, id * 2 + 1, capacity, &self.layout, &self.options, self.pool());
        let high = self.push_chunk(high) as usize;
        self.moved.push(high as u32);
        let old = if is_plain {
            self.chunks[place].become_low_half();
            None
        } else {
            let low = Chunk::new(group, id * 2, capacity, &self.layout, &self.options, self.pool());
            Some(std::mem::replace(&mut self.chunks[place], low))
        };
        if depth == self.depth {
            self.deepen();
        }
        self.refresh(place);
        self.refresh(high);
        match old {
            Some(old) => self.move_rows(&old, place, high),
            None => self.split_in_place(place, high),
        }
    }

    /// Moves rows without cells and long keys: those of the low half stay in the memory they are in. New memory is what
    /// growing costs most, and so it takes only what it needs.
    fn split_in_place(&mut self, low: usize, high: usize) {
        let row_words = self.layout.row_words;
        let bit = TAG_FLAG_FIRST - self.chunks[low].id.ilog2();
        let data = Arc::get_mut(&mut self.chunks[low].data).expect("a writable chunk is not shared");
        let words = data.words_mut().expect("a writable chunk is not mapped");
        self.moving.clear();
        self.moving.extend_from_slice(words);
        words.fill(0);
        self.chunks[low].base = words.as_mut_ptr();
        let halves = [self.chunks[low].probe(row_words), self.chunks[high].probe(row_words)];
        let mut counts = [0; 2];
        for row in self.moving.chunks_exact(row_words).filter(|row| row[0] != 0) {
            let half = (row[0] >> bit) as usize & 1;
            // SAFETY: both chunks are writable and have an empty row: together they take the rows of one.
            let target = unsafe { halves[half].empty_row(row[0]) };
            // SAFETY: the row lies in the chunk and has `row_words` words; nothing else refers into it.
            unsafe { std::ptr::copy_nonoverlapping(row.as_ptr(), target, row_words) };
            counts[half] += 1;
        }
        self.chunks[low].count = counts[0];
        self.chunks[high].count = counts[1];
        self.refresh(low);
    }

    /// Moves the rows of a chunk into one or two others, by the bit of the hash that distinguishes them.
    fn move_rows(&mut self, old: &Chunk, low: usize, high: usize) {
        let row_words = self.layout.row_words;
        let cells = self.layout.cells;
        let is_view = self.layout.key.is_view();
        let bit = TAG_FLAG_FIRST - 1 - old.id.ilog2().min(TAG_FLAG_FIRST - 1);
        for slot in 0..old.capacity() {
            // SAFETY: the rows of `old` are alive, and it is no longer part of the table, so nothing writes to them.
            let row = unsafe { std::slice::from_raw_parts(old.row(slot, row_words), row_words) };
            if row[0] == 0 {
                continue;
            }
            let target = if low != high && (row[0] >> bit) & 1 == 1 { high } else { low };
            let chunk = &mut self.chunks[target];
            let place = chunk.first_empty(row[0], row_words);
            // SAFETY: the target is writable and this is the only reference into it.
            let new = unsafe { std::slice::from_raw_parts_mut(chunk.row(place, row_words), row_words) };
            new.copy_from_slice(row);
            chunk.count += 1;
            if is_view && view_length(&row[1..3]) > VIEW_INLINE {
                let mut inline = [0; 16];
                let bytes = view_bytes(&row[1..3], &mut inline, old.data.arena.bytes())
                    .expect("views are checked when they come from a disk, and made by the table otherwise");
                let arena = Arc::get_mut(&mut chunk.data).expect("a writable chunk is not shared").arena_mut();
                new[2] = arena.len() as u64;
                arena.extend_from_slice(bytes);
            }
            for cell in 0..cells {
                let value = old.data.cells[slot as usize * cells + cell].clone();
                // SAFETY: the chunk has `cells` cells for each of its rows and is writable.
                unsafe { *chunk.cells.add(place as usize * cells + cell) = value };
            }
            if bit_of(&old.changed, slot) {
                set_bit(&mut chunk.changed, place, true);
            }
        }
    }
}
