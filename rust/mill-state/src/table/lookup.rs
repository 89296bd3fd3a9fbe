//! Finding the rows of many keys at once.
//!
//! ```text
//!   aim     where each search starts; the rows are fetched into the cache          chunks are made ready
//!   hit     the row aimed at and the one beside it, without a branch a record      almost all are found
//!   search  what is not there, one by one; what is in no row gets one              chunks may grow
//! ```
//!
//! A row that moves while its chunk grows leaves a pointer stale, so then all of it is done once more: every key is in
//! place by now, and nothing moves.

use std::marker::PhantomData;
use std::sync::Arc;

use super::{LOOKUP_ROWS_MAX, NO_CHUNK, StateTable};
use crate::bucket::{Chunk, SHAPE_VIEW, SHAPE_WORD, SHAPE_WORDS};
use crate::key::{KeyBatch, VIEW_INLINE, view_length};
use crate::layout::{TAG_FLAG_FIRST, TAG_MATCH};
use crate::probe::{line_mask, prefetch};
use crate::rows::Rows;
use crate::select::Select;

impl StateTable {
    /// The rows of these keys; a key without one gets a row of zeros. All of them count as changed.
    ///
    /// # Panics
    /// If more than [`LOOKUP_ROWS_MAX`] records are selected, a record does not exist, or a key belongs to a key group
    /// that the table does not hold.
    pub fn find_or_insert<S: Select>(&mut self, keys: &KeyBatch, select: S) -> Rows<'_> {
        assert!(select.len() <= LOOKUP_ROWS_MAX, "{} records in one look-up", select.len());
        self.inserted.clear();
        match (self.layout.key.is_view(), keys.stride) {
            (true, _) => self.resolve::<S, SHAPE_VIEW>(keys, select),
            (false, 1) => self.resolve::<S, SHAPE_WORD>(keys, select),
            (false, _) => self.resolve::<S, SHAPE_WORDS>(keys, select),
        }
        Rows {
            pointers: &self.pointers,
            cells: &self.cell_pointers,
            row_words: self.layout.row_words,
            cells_per_row: self.layout.cells,
            inserted: &self.inserted,
            table: PhantomData,
        }
    }
    /// Finds or inserts each key.
    fn resolve<S: Select, const SHAPE: u8>(&mut self, keys: &KeyBatch, select: S) {
        // A row that moves while its chunk grows leaves a pointer of this call stale. The second round finds every key in
        // place and moves nothing.
        while self.resolve_once::<S, SHAPE>(keys, select) {}
        if self.options.is_persistent || self.options.tracks_changes {
            for aim in &self.aims {
                self.chunks[aim.place as usize].mark(aim.slot);
            }
        }
        let cells = self.layout.cells;
        self.cell_pointers.clear();
        if cells > 0 {
            let of_row = |aim: &Aim| self.chunks[aim.place as usize].cells.wrapping_add(aim.slot as usize * cells);
            self.cell_pointers.extend(self.aims.iter().map(of_row));
        }
    }

    /// Finds or inserts each key; tells whether rows moved meanwhile.
    fn resolve_once<S: Select, const SHAPE: u8>(&mut self, keys: &KeyBatch, select: S) -> bool {
        let row_words = self.layout.row_words;
        self.aims.clear();
        self.aims.resize(select.len(), Aim::default());
        let mut aimed = 0;
        loop {
            let shift = TAG_FLAG_FIRST - self.depth;
            let first = (self.options.groups.start as usize) << self.depth;
            aimed = aim(&keys.hashes, select, &self.directory, shift, first, &self.chunks, row_words, &mut self.aims, aimed);
            if aimed == select.len() {
                break;
            }
            self.make_ready(keys.hashes[select.at(aimed)]);
        }
        self.pointers.clear();
        self.pointers.resize(select.len(), std::ptr::null_mut());
        self.missed.clear();
        self.missed.resize(select.len(), 0);
        // SAFETY: `aim` has just pointed every aim to a row of a chunk of this table, writable and so not shared.
        let missed = unsafe {
            hit::<S, SHAPE>(keys, select, row_words, &self.chunks, &mut self.aims, &mut self.pointers, &mut self.missed)
        };
        let mut is_moved = false;
        for missed in 0..missed {
            let index = self.missed[missed] as usize;
            let record = select.at(index);
            let place = self.directory[self.directory_index(keys.hashes[record])];
            let chunk = &mut self.chunks[place as usize];
            let found = chunk.find::<SHAPE>(row_words, keys, record);
            self.pointers[index] = chunk.row(found.slot, row_words);
            self.aims[index] = Aim { row: std::ptr::null_mut(), place, slot: found.slot };
            if !found.is_match {
                self.inserted.push(index as u32);
                is_moved |= self.insert(place as usize, found.slot, keys, record, SHAPE == SHAPE_VIEW);
            }
        }
        is_moved
    }

    /// Makes the chunk of a key exist and writable.
    #[inline(never)]
    fn make_ready(&mut self, hash: u64) {
        let entry = self.directory_index(hash);
        let mut place = self.directory[entry];
        if place == NO_CHUNK {
            place = self.create(hash);
        }
        let chunk = &mut self.chunks[place as usize];
        if !chunk.is_writable {
            chunk.make_writable();
            if self.options.is_persistent {
                self.touched.push(place);
            }
        }
    }

    /// Fills an empty row with a key; tells whether rows moved because the chunk had to grow.
    #[inline(never)]
    fn insert(&mut self, place: usize, slot: u32, keys: &KeyBatch, record: usize, is_view: bool) -> bool {
        let row_words = self.layout.row_words;
        let chunk = &mut self.chunks[place];
        let row = chunk.row(slot, row_words);
        let key = keys.key(record);
        let mut long = None;
        if is_view && view_length(key) > VIEW_INLINE {
            // The only reference to the data: the chunk is writable.
            let arena = Arc::get_mut(&mut chunk.data).expect("a writable chunk is not shared").arena_mut();
            let start = key[1] as usize;
            long = Some(arena.len() as u64);
            arena.extend_from_slice(&keys.bytes.as_slice()[start..start + view_length(key)]);
        }
        // SAFETY: the row lies in the chunk, which is writable; a row has the tag and the key's words.
        let words = unsafe { std::slice::from_raw_parts_mut(row, 1 + key.len()) };
        words[0] = keys.tag(record);
        words[1..].copy_from_slice(key);
        if let Some(offset) = long {
            words[2] = offset;
        }
        chunk.count += 1;
        self.rows += 1;
        if chunk.count <= chunk.limit {
            return false;
        }
        self.grow(place);
        true
    }
    /// Removes the row of a key, if there is one.
    pub fn remove(&mut self, keys: &KeyBatch, record: usize) -> bool {
        let row_words = self.layout.row_words;
        let place = self.directory[self.directory_index(keys.hashes[record])];
        if place == NO_CHUNK {
            return false;
        }
        let chunk = &mut self.chunks[place as usize];
        let found = match (self.layout.key.is_view(), keys.stride) {
            (true, _) => chunk.find::<SHAPE_VIEW>(row_words, keys, record),
            (false, 1) => chunk.find::<SHAPE_WORD>(row_words, keys, record),
            (false, _) => chunk.find::<SHAPE_WORDS>(row_words, keys, record),
        };
        if !found.is_match {
            return false;
        }
        if !chunk.is_writable {
            chunk.make_writable();
            if self.options.is_persistent {
                self.touched.push(place);
            }
        }
        chunk.remove(found.slot, row_words, self.layout.cells);
        self.rows -= 1;
        true
    }
}

/// Where the search for a key starts, and later where it ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Aim {
    row: *mut u64,
    place: u32,
    slot: u32,
}

impl Default for Aim {
    fn default() -> Aim {
        Aim { row: std::ptr::null_mut(), place: 0, slot: 0 }
    }
}

/// Points aims, from `from` on, to the rows where the searches start, and has those rows fetched. Stops at a key whose
/// chunk is not there or not writable; gives its place.
#[allow(clippy::too_many_arguments)]
#[inline(always)]
fn aim<S: Select>(
    hashes: &[u64],
    select: S,
    directory: &[u32],
    shift: u32,
    first: usize,
    chunks: &[Chunk],
    row_words: usize,
    aims: &mut [Aim],
    from: usize,
) -> usize {
    for (index, aim) in aims.iter_mut().enumerate().skip(from) {
        let hash = hashes[select.at(index)];
        let place = directory[((hash >> shift) as usize).wrapping_sub(first)];
        let Some(chunk) = chunks.get(place as usize).filter(|chunk| chunk.is_writable) else { return index };
        let slot = hash as u32 & chunk.mask;
        let row = chunk.row(slot, row_words);
        prefetch(row);
        if let Some(marks) = chunk.dirty.get((slot >> 6) as usize) {
            prefetch(marks);
        }
        *aim = Aim { row, place, slot };
    }
    aims.len()
}

/// Looks for each key in the row aimed at and the one beside it; almost all are there. Nothing in this loop depends on
/// which it is, so that the processor need not guess. Gives how many were not found; `missed` lists them.
///
/// # Safety
/// - Every aim points to its slot of a chunk with rows of `row_words` words, which holds the keys' words.
#[inline(always)]
unsafe fn hit<S: Select, const SHAPE: u8>(
    keys: &KeyBatch,
    select: S,
    row_words: usize,
    chunks: &[Chunk],
    aims: &mut [Aim],
    pointers: &mut [*mut u64],
    missed: &mut [u32],
) -> usize {
    let beside = (line_mask(row_words) & 1) as usize;
    let mut count = 0;
    for (index, (aim, pointer)) in aims.iter_mut().zip(pointers).enumerate() {
        let record = select.at(index);
        let tag = keys.tag(record);
        // The other row of the pair: behind an even one, ahead of an odd one.
        let other = aim.row.wrapping_add(beside * row_words).wrapping_sub((aim.slot as usize & beside) * 2 * row_words);
        // SAFETY: both rows lie in the chunk: slots of a pair differ in the lowest bit, and chunks have 16 rows or more.
        let (is_first, is_second) = unsafe { (*aim.row & TAG_MATCH == tag, *other & TAG_MATCH == tag) };
        let row = if is_first { aim.row } else { other };
        let is_key = match SHAPE {
            // SAFETY: a row has its tag and the key's word.
            SHAPE_WORD => unsafe { *row.add(1) == keys.words[record] },
            SHAPE_VIEW => {
                // SAFETY: a row has its tag and the two words of the key.
                let (first, second) = unsafe { (*row.add(1), *row.add(2)) };
                let key = keys.key(record);
                let length = view_length(key);
                if length <= VIEW_INLINE || first != key[0] {
                    first == key[0] && second == key[1]
                } else {
                    let arena = chunks[aim.place as usize].data.arena.bytes();
                    let (start, wanted) = (second as usize, key[1] as usize);
                    arena.get(start..start.saturating_add(length))
                        == Some(&keys.bytes.as_slice()[wanted..wanted + length])
                }
            }
            // SAFETY: a row has its tag and the key's words.
            _ => unsafe { std::slice::from_raw_parts(row.add(1), keys.stride) == keys.key(record) },
        };
        let is_hit = (is_first | is_second) & is_key;
        *pointer = row;
        aim.slot ^= u32::from(!is_first) & beside as u32;
        missed[count] = index as u32;
        count += usize::from(!is_hit);
    }
    count
}
