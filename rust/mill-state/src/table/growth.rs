//! How a table grows: chunks come into being, double and split.

use mill_frame::hash::key_group;

use super::{DEPTH_MAX, Shape, StateTable};
use crate::bucket::{Chunk, bit_of, set_bit};
use crate::key::{VIEW_INLINE, view_bytes, view_length};
use crate::layout::TAG_FLAG_FIRST;

impl StateTable {
    /// Makes the chunks of the key group of this hash: one small one, or as many as are expected to be needed. Returns the
    /// place of the one that the hash belongs to.
    pub(super) fn create(&mut self, hash: u64) -> u32 {
        let group = key_group(hash);
        let Shape { depth, capacity } = self.expected;
        while self.directory.depth() < depth {
            self.directory.deepen();
        }
        for id in 1 << depth..2 << depth {
            let chunk = self.new_chunk(group, id, capacity);
            let place = self.push_chunk(chunk);
            self.refresh(place as usize);
        }
        self.directory.at(hash).chunk_index()
    }

    /// A chunk without rows, to be written to in this epoch.
    pub(super) fn new_chunk(&self, group: u16, id: u32, capacity: u32) -> Chunk {
        Chunk::new(group, id, capacity, &self.layout, &self.options, self.pool(), self.epoch)
    }

    fn push_chunk(&mut self, mut chunk: Chunk) -> u32 {
        if self.options.is_persistent {
            chunk.touched = self.touched.len() as u32;
            self.touched.push(chunk.touched_anew());
        }
        self.chunks.push(chunk);
        self.chunks.len() as u32 - 1
    }

    /// Puts a new chunk in the place of another, also of what the next snapshot hands over of that.
    pub(super) fn replace_chunk(&mut self, place: usize, mut chunk: Chunk) -> Chunk {
        chunk.touched = self.chunks[place].touched;
        let old = std::mem::replace(&mut self.chunks[place], chunk);
        self.touch_anew(place);
        old
    }

    /// What the next snapshot is to hand over of a chunk has become another one.
    fn touch_anew(&mut self, place: usize) {
        if self.options.is_persistent {
            let chunk = &self.chunks[place];
            self.touched[chunk.touched as usize] = chunk.touched_anew();
        }
    }

    /// Whether the checkpoints so far hold something at the address of a chunk that is being written to.
    pub(super) fn is_held(&self, place: usize) -> bool {
        self.options.is_persistent && self.touched[self.chunks[place].touched as usize].is_held
    }

    /// Writes a chunk that is being written to anew, in so many slots and without bytes of keys that are gone.
    pub(super) fn resize(&mut self, place: usize, capacity: u32) {
        let (group, id) = (self.chunks[place].group, self.chunks[place].id);
        let is_held = self.is_held(place);
        let old = self.replace_chunk(place, self.new_chunk(group, id, capacity));
        if is_held {
            // No drop is noted: the next snapshot contains the whole chunk, at the same address.
            self.touched[self.chunks[place].touched as usize].is_held = true;
        }
        self.refresh(place);
        self.move_rows(&old, place, place);
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
            return self.resize(place, capacity.checked_mul(2).expect("2^31 rows of one prefix"));
        }
        if self.is_held(place) {
            self.dropped.push((group, id));
        }
        let is_plain = self.layout.cells == 0 && !self.layout.key.is_view() && !self.options.tracks_changes;
        let high = self.push_chunk(self.new_chunk(group, id * 2 + 1, capacity)) as usize;
        self.moved.push(high as u32);
        let old = if is_plain {
            self.chunks[place].id = id * 2;
            self.touch_anew(place);
            None
        } else {
            Some(self.replace_chunk(place, self.new_chunk(group, id * 2, capacity)))
        };
        if depth == self.directory.depth() {
            self.directory.deepen();
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
        let words = self.chunks[low].data_mut(self.epoch).words_mut().expect("a writable chunk is not mapped");
        self.moving.clear();
        self.moving.extend_from_slice(words);
        words.fill(0);
        let base = words.as_mut_ptr();
        self.chunks[low].base = base;
        let halves = [self.chunks[low].probe(row_words), self.chunks[high].probe(row_words)];
        let mut counts = [0; 2];
        for row in self.moving.chunks_exact(row_words).filter(|row| row[0] != 0) {
            let half = (row[0] >> bit) as usize & 1;
            // SAFETY: both chunks are writable and have an empty row: together they take the rows of one.
            let target = unsafe { halves[half].empty_row(row[0]) };
            // SAFETY: the row is in the chunk and has `row_words` words; nothing else refers into it.
            unsafe { std::ptr::copy_nonoverlapping(row.as_ptr(), target, row_words) };
            counts[half] += 1;
        }
        self.chunks[low].count = counts[0];
        self.chunks[high].count = counts[1];
        self.refresh(low);
    }

    /// Moves the rows of a chunk into one or two others, by the bit of the hash that distinguishes them.
    pub(super) fn move_rows(&mut self, old: &Chunk, low: usize, high: usize) {
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
                let arena = chunk.data_mut(self.epoch).arena_mut();
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
