//! How a table loses rows, and frees their memory.
//!
//! ```text
//!   a row goes                       its slot is noted for the next snapshot; cells are freed at once
//!   half of the arena is of no row   the chunk is rewritten, without
//!   an eighth of the slots is taken  the chunk merges with its other half, if both fit into a quarter of one; or it halves
//! ```
//!
//! So a chunk has at most eight times the slots that its rows take, or sixteen slots, and an arena at most twice as large
//! as its keys. Of a key group one chunk of sixteen slots stays for good. The directory stays as deep as it was: 16 bytes
//! for what was a chunk of 16 KiB.
//!
//! What is rewritten, the next snapshot has as a whole. That takes as many removals as the chunk has rows left, or more,
//! so that a removed row costs a checkpoint its place in a list and about a row more.

use super::directory::NO_CHUNK;
use super::{CHUNK_ROWS_FIRST, StateTable};
use crate::bucket::{Chunk, set_bit};
use crate::key::KeyBatch;

/// A chunk of which one slot in so many is taken is too large.
const SPARSE: u32 = 8;
/// Below this size an arena is not worth cleaning.
const ARENA_BYTES_MIN: usize = 256;

impl StateTable {
    /// Removes the row of a key, if there is one.
    pub fn remove(&mut self, keys: &KeyBatch, record: usize) -> bool {
        let place = self.directory.at(keys.hashes[record]).chunk_index();
        if place == NO_CHUNK {
            return false;
        }
        let found = self.find_in(&self.chunks[place as usize], keys, record);
        if !found.is_match {
            return false;
        }
        self.make_writable(place);
        let dirty = self.dirty_bit();
        let chunk = &mut self.chunks[place as usize];
        let mut emptied = match self.options.is_persistent {
            true => self.touched[chunk.touched as usize].emptied(chunk.capacity()),
            false => &mut [],
        };
        chunk.remove(found.slot, &self.layout, self.epoch, dirty, |slot| set_bit(&mut emptied, slot, true));
        self.rows -= 1;
        self.shrink(place as usize);
        true
    }

    /// Frees memory after a row of this chunk was removed, if there is enough to free.
    fn shrink(&mut self, place: usize) {
        let chunk = &self.chunks[place];
        let capacity = chunk.capacity();
        if chunk.count * SPARSE <= capacity {
            if let Some(other) = self.mergeable(place) {
                return self.merge(place, other);
            }
            if capacity > CHUNK_ROWS_FIRST {
                return self.resize(place, capacity / 2);
            }
        }
        let arena = chunk.data().arena.bytes().len();
        if arena >= ARENA_BYTES_MIN && chunk.garbage * 2 > arena {
            self.resize(place, capacity);
        }
    }

    /// The chunk with the other half of the prefix, if both have few rows.
    fn mergeable(&self, place: usize) -> Option<usize> {
        let chunk = &self.chunks[place];
        if chunk.id == 1 {
            return None;
        }
        let other = self.directory.place_of(chunk.group, chunk.id ^ 1) as usize;
        let is_whole_half = self.chunks[other].id == chunk.id ^ 1;
        let capacity = chunk.capacity().max(self.chunks[other].capacity());
        (is_whole_half && (chunk.count + self.chunks[other].count) * SPARSE / 2 <= capacity).then_some(other)
    }

    /// Merges two halves of a prefix into one chunk.
    fn merge(&mut self, place: usize, other: usize) {
        let (group, id) = (self.chunks[place].group, self.chunks[place].id / 2);
        self.make_writable(place as u32);
        for half in [place, other] {
            let chunk = &self.chunks[half];
            let is_held = chunk.epoch != self.epoch || self.is_held(half);
            if self.options.is_persistent && is_held {
                self.dropped.push((group, chunk.id));
            }
        }
        let rows = self.chunks[place].count + self.chunks[other].count;
        let capacity = (rows * SPARSE / 2).next_power_of_two().max(CHUNK_ROWS_FIRST);
        let first = self.replace_chunk(place, self.new_chunk(group, id, capacity));
        // From now on the directory leads to the new chunk for both halves.
        self.refresh(place);
        self.move_rows(&first, place, place);
        let (second, place) = self.take_chunk(other, place);
        self.move_rows(&second, place, place);
    }

    /// Takes a chunk out that the directory does not lead to any more. Returns it, and the place where the chunk is then that
    /// was in `place`.
    fn take_chunk(&mut self, taken: usize, place: usize) -> (Chunk, usize) {
        let chunk = self.chunks.swap_remove(taken);
        let place = if place == self.chunks.len() { taken } else { place };
        if taken < self.chunks.len() {
            self.refresh(taken);
        }
        if self.options.is_persistent && chunk.epoch == self.epoch {
            let at = chunk.touched as usize;
            self.touched.swap_remove(at);
            if let Some(moved) = self.touched.get(at) {
                let owner = self.directory.place_of(moved.group, moved.id);
                self.chunks[owner as usize].touched = chunk.touched;
            }
        }
        (chunk, place)
    }
}

#[cfg(test)]
mod tests;
