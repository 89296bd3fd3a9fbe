//! How a table grows: chunks come into being, double and split.

use std::sync::Arc;

use mill_frame::hash::key_group;

use super::{CHUNK_ROWS_FIRST, DEPTH_MAX, NO_CHUNK, StateTable};
use crate::bucket::{Chunk, bit_of, set_bit};
use crate::key::{VIEW_INLINE, view_bytes, view_length};
use crate::layout::TAG_FLAG_FIRST;

impl StateTable {
    pub(super) fn create(&mut self, hash: u64) -> u32 {
        let group = key_group(hash);
        let chunk = Chunk::new(group, 1, CHUNK_ROWS_FIRST, &self.layout, &self.options);
        let place = self.push_chunk(chunk);
        self.refresh(place as usize);
        place
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
    pub(super) fn grow(&mut self, place: usize) {
        let (group, id, capacity) = {
            let chunk = &self.chunks[place];
            (chunk.group, chunk.id, chunk.capacity())
        };
        let depth = id.ilog2();
        if capacity < self.capacity_max || depth == DEPTH_MAX {
            let double = Chunk::new(group, id, capacity.checked_mul(2).expect("2^31 rows of one prefix"), &self.layout, &self.options);
            let old = std::mem::replace(&mut self.chunks[place], double);
            // No drop is noted: the next snapshot gives the chunk as a whole, at the same address.
            self.chunks[place].is_held = old.is_held;
            self.refresh(place);
            self.move_rows(&old, place, place);
            return;
        }
        let low = Chunk::new(group, id * 2, capacity, &self.layout, &self.options);
        let high = Chunk::new(group, id * 2 + 1, capacity, &self.layout, &self.options);
        let old = std::mem::replace(&mut self.chunks[place], low);
        if old.is_held {
            self.dropped.push((group, id));
        }
        let high = self.push_chunk(high) as usize;
        if depth == self.depth {
            self.directory = self.directory.iter().flat_map(|&entry| [entry, entry]).collect();
            self.depth += 1;
        }
        self.refresh(place);
        self.refresh(high);
        self.move_rows(&old, place, high);
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
