//! Finding the rows of many keys at once.
//!
//! ```text
//!   aim     where each search starts; the rows are fetched into the cache          chunks are made ready
//!   hit     the row aimed at and the one beside it, without a branch a record      almost all are found
//!   behind  the pair after that one, likewise                                      unless most keys are new
//!   search  what is not there, one by one; what is in no row gets one              chunks may grow
//! ```
//!
//! A row that moves while its chunk grows leaves a pointer stale, so then all of it is done once more: every key is in
//! place by now, and nothing moves.

use std::marker::PhantomData;

use super::directory::{DirectoryView, Entry, NO_CHUNK};
use super::{LOOKUP_ROWS_MAX, StateTable};
use crate::bucket::{Chunk, SHAPE_VIEW, SHAPE_WORD, SHAPE_WORDS};
use crate::key::{KeyBatch, VIEW_INLINE, view_length};
use crate::layout::{TAG_DIRTY, TAG_HASH, TAG_MATCH, TAG_OCCUPIED};
use crate::probe::{Found, Probe, has_key, line_mask, prefetch, step_from};
use crate::rows::{Rows, RowsRead};
use crate::select::{Select, Span};

/// For how many keys rows are fetched at a time where they are only read.
const FETCHED_ROWS: usize = 32;

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
            (false, 0) => self.resolve_only(keys, select),
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

    /// Finds or inserts the one key that there is without key columns: all records have its row.
    fn resolve_only<S: Select>(&mut self, keys: &KeyBatch, select: S) {
        let len = select.len();
        let start = if len == 0 { 0 } else { select.at(0) };
        self.resolve::<Span, SHAPE_WORDS>(keys, Span { start, len: len.min(1) });
        let (row, cells) = (self.pointers.first().copied(), self.cell_pointers.first().copied());
        self.pointers.resize(len, row.unwrap_or(std::ptr::null_mut()));
        self.cell_pointers.resize(cells.map_or(0, |_| len), cells.unwrap_or(std::ptr::null_mut()));
    }

    /// Finds or inserts each key.
    fn resolve<S: Select, const SHAPE: u8>(&mut self, keys: &KeyBatch, select: S) {
        let cells = self.layout.cells;
        // Who tracks changes or has cells must know the slots; the others save themselves the look at the chunk.
        let is_placed = self.options.tracks_changes || cells > 0;
        self.moved.clear();
        self.resolve_rows::<S, SHAPE>(keys, select);
        if !self.moved.is_empty() {
            self.point_anew::<S, SHAPE>(keys, select);
        }
        if self.options.is_persistent {
            // In a loop of its own: by now the rows are in the nearest cache, and no store waits for memory.
            for &row in &self.pointers {
                // SAFETY: the pointer points to a row of a writable chunk, and nothing else refers to it now.
                unsafe { *row |= TAG_DIRTY };
            }
        }
        self.cell_pointers.clear();
        if !is_placed {
            return;
        }
        let row_words = self.layout.row_words as u32;
        for (index, pointer) in self.pointers.iter().enumerate() {
            let entry = self.directory.at(keys.hashes[select.at(index)]);
            // A chunk has fewer than 2^32 words.
            let slot = ((pointer.addr() - entry.base.addr()) / size_of::<u64>()) as u32 / row_words;
            let chunk = &mut self.chunks[entry.chunk_index() as usize];
            chunk.mark(slot);
            if cells > 0 {
                self.cell_pointers.push(chunk.cells.wrapping_add(slot as usize * cells));
            }
        }
    }

    /// Finds or inserts each key. `moved` lists the chunks that rows have moved into meanwhile: pointers to these are stale.
    fn resolve_rows<S: Select, const SHAPE: u8>(&mut self, keys: &KeyBatch, select: S) {
        let row_words = self.layout.row_words;
        let len = select.len();
        self.pointers.resize(len, std::ptr::null_mut());
        self.missed.resize(len, 0);
        let (mut hashes_room, mut words_room) = std::mem::take(&mut self.rooms);
        let hashes = select.gather(&keys.hashes, &mut hashes_room);
        let words = if SHAPE == SHAPE_WORD { select.gather(&keys.words, &mut words_room) } else { hashes };
        let mut aimed = 0;
        loop {
            aimed += aim(&hashes[aimed..], self.directory.view(), row_words, &mut self.pointers[aimed..]);
            if aimed == len {
                break;
            }
            self.make_ready(hashes[aimed]);
        }
        let fetches_arenas = SHAPE == SHAPE_VIEW && !keys.bytes.as_slice().is_empty() && self.is_large();
        let reach = Reach { row_words, directory: self.directory.view(), chunks: &self.chunks };
        let (pointers, missed) = (&mut self.pointers[..len], &mut self.missed[..len]);
        if fetches_arenas {
            // SAFETY: as below.
            unsafe { reach.fetch_arenas(keys, select, hashes, pointers, missed) };
        }
        // SAFETY: `aim` has just pointed every pointer to a row of a chunk of this table, writable and so not shared.
        let missed = unsafe {
            let missed = if keys.nulls.is_empty() {
                hit::<S, SHAPE, false>(keys, select, hashes, words, reach, pointers, missed)
            } else {
                hit::<S, SHAPE, true>(keys, select, hashes, words, reach, pointers, missed)
            };
            for &index in &self.missed[..missed] {
                reach.fetch_behind(hashes[index as usize], pointers[index as usize]);
            }
            // Where most keys are new there is nothing after it either.
            if SHAPE == SHAPE_WORD && keys.nulls.is_empty() && missed <= len / 2 {
                hit_behind(hashes, words, reach, pointers, &mut self.missed[..missed])
            } else {
                missed
            }
        };
        self.rooms = (hashes_room, words_room);
        for missed in 0..missed {
            let index = self.missed[missed] as usize;
            let record = select.at(index);
            let entry = self.directory.at(keys.hashes[record]);
            let probe = Probe { base: entry.base, mask: entry.mask, row_words, line: line_mask(row_words) };
            // SAFETY: `aim` has seen the chunk to be writable, so the entry tells where its rows are.
            let found = unsafe { self.chunks[entry.chunk_index() as usize].find_from::<SHAPE>(probe, keys, record) };
            let row = entry.base.wrapping_add(found.slot as usize * row_words);
            self.pointers[index] = row;
            if !found.is_match {
                self.inserted.push(index as u32);
                self.insert(entry.chunk_index() as usize, row, keys, record, SHAPE == SHAPE_VIEW);
            }
        }
    }

    /// Points to the rows of those keys anew that are in chunks which have grown in this call.
    #[inline(never)]
    fn point_anew<S: Select, const SHAPE: u8>(&mut self, keys: &KeyBatch, select: S) {
        let row_words = self.layout.row_words;
        for index in 0..select.len() {
            let record = select.at(index);
            let place = self.directory.at(keys.hashes[record]).chunk_index();
            if self.moved.contains(&place) {
                let chunk = &self.chunks[place as usize];
                let found = chunk.find::<SHAPE>(row_words, keys, record);
                assert!(found.is_match, "every key of this call has a row by now");
                self.pointers[index] = chunk.row(found.slot, row_words);
            }
        }
    }

    /// What marks a row as changed since the last snapshot; nothing where none will be taken.
    #[inline(always)]
    pub(super) fn dirty_bit(&self) -> u64 {
        if self.options.is_persistent { TAG_DIRTY } else { 0 }
    }

    /// Makes the chunk of a key exist and writable.
    #[inline(never)]
    fn make_ready(&mut self, hash: u64) {
        let mut place = self.directory.at(hash).chunk_index();
        if place == NO_CHUNK {
            place = self.create(hash);
        }
        self.make_writable(place);
    }

    /// Makes a chunk writable, which the next snapshot will have to hand over.
    pub(super) fn make_writable(&mut self, place: u32) {
        if self.chunks[place as usize].epoch == self.epoch {
            return;
        }
        let pool = if self.is_large() { Some(&self.pool) } else { None };
        let chunk = &mut self.chunks[place as usize];
        chunk.make_writable(self.layout.row_words, pool, self.epoch);
        if self.options.is_persistent {
            chunk.touched = self.touched.len() as u32;
            self.touched.push(chunk.touched_again());
        }
        self.refresh(place as usize);
    }

    /// Fills an empty row with a key, and lets the chunk grow if it has become too full.
    #[inline(always)]
    fn insert(&mut self, place: usize, row: *mut u64, keys: &KeyBatch, record: usize, is_view: bool) {
        let dirty = self.dirty_bit();
        let chunk = &mut self.chunks[place];
        let key = keys.key(record);
        let mut long = None;
        if is_view && view_length(key) > VIEW_INLINE {
            let arena = chunk.data_mut(self.epoch).arena_mut();
            let start = key[1] as usize;
            long = Some(arena.len() as u64);
            arena.extend_from_slice(&keys.bytes.as_slice()[start..start + view_length(key)]);
        }
        // SAFETY: the row is in the chunk, which is writable; a row has the tag and the key's words.
        let words = unsafe { std::slice::from_raw_parts_mut(row, 1 + key.len()) };
        words[0] = keys.tag(record) | dirty;
        words[1..].copy_from_slice(key);
        if let Some(offset) = long {
            words[2] = offset;
        }
        chunk.count += 1;
        self.rows += 1;
        if chunk.count > chunk.limit {
            self.grow(place);
        }
    }

    /// The rows of those keys that have one, and which records these are.
    ///
    /// # Panics
    /// If a key belongs to a key group that the table does not hold.
    pub fn find(&mut self, keys: &KeyBatch) -> (RowsRead<'_>, Vec<u32>) {
        self.find_selected(keys, Span { start: 0, len: keys.len() })
    }

    /// The same of these records alone, in their order. Rows that are only read do not count as changed.
    ///
    /// # Panics
    /// If a key belongs to a key group that the table does not hold.
    pub fn find_selected<S: Select>(&mut self, keys: &KeyBatch, select: S) -> (RowsRead<'_>, Vec<u32>) {
        let row_words = self.layout.row_words;
        self.scanned.clear();
        self.places.clear();
        let mut found_records = Vec::new();
        for from in (0..select.len()).step_by(FETCHED_ROWS) {
            let records = (from..select.len().min(from + FETCHED_ROWS)).map(|index| select.at(index));
            for record in records.clone() {
                self.fetch(keys.hashes[record]);
            }
            for record in records {
                let place = self.directory.at(keys.hashes[record]).chunk_index();
                if place == NO_CHUNK {
                    continue;
                }
                let chunk = &self.chunks[place as usize];
                let found = self.find_in(chunk, keys, record);
                if found.is_match {
                    found_records.push(record as u32);
                    self.scanned.push(chunk.row(found.slot, row_words));
                    self.places.push((place, found.slot));
                }
            }
        }
        (self.read(), found_records)
    }

    /// Calls `found` with each of these records whose key has a row, and with one word of the row. For look-ups that need no more.
    ///
    /// # Panics
    /// If a key belongs to a key group that the table does not hold, or rows have no such word.
    pub fn find_word<S: Select>(&self, keys: &KeyBatch, select: S, word: usize, found: impl FnMut(usize, u64)) {
        match (self.layout.key.is_view(), keys.stride) {
            (true, _) => self.find_word_of::<S, SHAPE_VIEW>(keys, select, word, found),
            (false, 1) => self.find_word_of::<S, SHAPE_WORD>(keys, select, word, found),
            (false, _) => self.find_word_of::<S, SHAPE_WORDS>(keys, select, word, found),
        }
    }

    fn find_word_of<S: Select, const SHAPE: u8>(&self, keys: &KeyBatch, select: S, word: usize, mut found: impl FnMut(usize, u64)) {
        let row_words = self.layout.row_words;
        assert!(word < row_words, "word {word} of {row_words}");
        for from in (0..select.len()).step_by(FETCHED_ROWS) {
            let records = from..select.len().min(from + FETCHED_ROWS);
            records.clone().for_each(|index| self.fetch(keys.hashes[select.at(index)]));
            for record in records.map(|index| select.at(index)) {
                let place = self.directory.at(keys.hashes[record]).chunk_index();
                if place == NO_CHUNK {
                    continue;
                }
                let chunk = &self.chunks[place as usize];
                let end = chunk.find::<SHAPE>(row_words, keys, record);
                if end.is_match {
                    // SAFETY: the slot is in the chunk, and the assertion keeps the word within the row; nothing writes to it now.
                    found(record, unsafe { *chunk.row(end.slot, row_words).add(word) });
                }
            }
        }
    }

    /// Has fetched what the search for a key with this hash begins with.
    #[inline(always)]
    fn fetch(&self, hash: u64) {
        let entry = self.directory.at(hash);
        if entry.chunk_index() != NO_CHUNK {
            let slot = (hash as u32 & entry.mask) as usize;
            prefetch(entry.base.wrapping_add(slot * self.layout.row_words));
            prefetch(self.chunks.as_ptr().wrapping_add(entry.chunk_index() as usize));
        }
    }

    pub(super) fn find_in(&self, chunk: &Chunk, keys: &KeyBatch, record: usize) -> Found {
        let row_words = self.layout.row_words;
        match (self.layout.key.is_view(), keys.stride) {
            (true, _) => chunk.find::<SHAPE_VIEW>(row_words, keys, record),
            (false, 1) => chunk.find::<SHAPE_WORD>(row_words, keys, record),
            (false, _) => chunk.find::<SHAPE_WORDS>(row_words, keys, record),
        }
    }
}

/// Points to the rows where the searches start and has those rows fetched. Stops at a key whose chunk is not there or not
/// writable; returns its place.
#[inline(always)]
fn aim(
    hashes: &[u64],
    directory: DirectoryView<'_>,
    row_words: usize,
    pointers: &mut [*mut u64],
) -> usize {
    let row_bytes = row_words * size_of::<u64>();
    // A wide row may begin in one cache line and end in the next.
    let last_byte = if row_bytes > 32 { row_bytes - 1 } else { 0 };
    for (index, (&hash, pointer)) in hashes.iter().zip(pointers).enumerate() {
        let entry = directory.at(hash);
        if !entry.is_ready(directory.tag) {
            return index;
        }
        let slot = hash as u32 & entry.mask;
        let row = entry.base.wrapping_byte_add(slot as usize * row_bytes);
        prefetch(row);
        if last_byte > 0 {
            prefetch(row.wrapping_byte_add(last_byte));
        }
        *pointer = row;
    }
    hashes.len()
}

/// What [`hit`] knows of the table.
#[derive(Clone, Copy)]
struct Reach<'t> {
    row_words: usize,
    directory: DirectoryView<'t>,
    chunks: &'t [Chunk],
}

impl<'t> Reach<'t> {
    #[inline(always)]
    fn entry(self, hash: u64) -> Entry {
        self.directory.at(hash)
    }

    /// Where a search goes on that has come to this row of the pair it begins with: in the pair after it. If the row is
    /// empty, the search ends there and stays.
    ///
    /// # Safety
    /// - `row` is a row of the chunk with this entry.
    #[inline(always)]
    unsafe fn behind(self, entry: Entry, hash: u64, row: *mut u64) -> *mut u64 {
        let slot = step_from(hash as u32 & entry.mask, 2, line_mask(self.row_words), entry.mask);
        let behind = entry.base.wrapping_add(slot as usize * self.row_words);
        // The row that the search began with, which has the lowest bit of the hash.
        let other = (hash as usize & 1) * 2;
        let begin = row.wrapping_add(other * self.row_words).wrapping_sub(self.row_words);
        // SAFETY: passed on from the caller; the first word of a row.
        let is_taken = usize::from(unsafe { *row } != 0);
        // Computed rather than chosen, since half of the guesses would be wrong.
        begin.wrapping_byte_add(behind.addr().wrapping_sub(begin.addr()) & is_taken.wrapping_neg())
    }

    /// Has fetched what a search needs that continues from this row: the rows after the pair, and the chunk's count.
    ///
    /// # Safety
    /// - `row` is a row of the chunk of this hash.
    #[inline(always)]
    unsafe fn fetch_behind(self, hash: u64, row: *mut u64) {
        let entry = self.entry(hash);
        // SAFETY: passed on from the caller.
        prefetch(unsafe { self.behind(entry, hash, row) });
        prefetch(self.chunks.as_ptr().wrapping_add(entry.chunk_index() as usize));
    }

    /// Has fetched where the bytes of long keys lie if they are found, or will lie if they are new. That is three steps away from the
    /// directory, and a loop that takes each step for many keys does not wait for any of them. `long` is room for a number a key.
    ///
    /// # Safety
    /// - Every pointer points to a row of the chunk that the record's key belongs to.
    #[inline(never)]
    unsafe fn fetch_arenas<S: Select>(self, keys: &KeyBatch, select: S, hashes: &[u64], pointers: &[*mut u64], long: &mut [u32]) {
        let mut count = 0;
        for index in 0..hashes.len() {
            long[count] = index as u32;
            count += usize::from(view_length(keys.key(select.at(index))) > VIEW_INLINE);
        }
        let long = || long[..count].iter().map(|&index| index as usize);
        let chunk = |index: usize| self.entry(hashes[index]).chunk_index() as usize;
        long().for_each(|index| prefetch(self.chunks.as_ptr().wrapping_add(chunk(index))));
        long().for_each(|index| prefetch(&raw const self.chunks[chunk(index)].data().arena));
        long().for_each(|index| {
            let arena = self.chunks[chunk(index)].data().arena.bytes();
            // SAFETY: passed on from the caller; the first word of a row, and the second of its key.
            let (tag, start) = unsafe { (*pointers[index], *pointers[index].add(2)) };
            let is_here = tag & TAG_HASH == hashes[index] & TAG_HASH;
            prefetch(arena.as_ptr().wrapping_add(if is_here { start as usize } else { arena.len() }));
        });
    }

    /// The bytes of long keys of the chunk that has the keys with this hash.
    #[inline(never)]
    fn arena(self, hash: u64) -> &'t [u8] {
        self.chunks[self.entry(hash).chunk_index() as usize].data().arena.bytes()
    }
}

/// Looks for each key in the row aimed at and the one beside it; almost all are there. Nothing in this loop depends on
/// which it is, so that the processor need not guess. Returns how many were not found; `missed` lists them.
///
/// `hashes` are those of the records, and `words` their keys if these have one word each.
///
/// # Safety
/// - Every pointer points to a row of `row_words` words, the first of which are the tag and the key's, in a writable chunk,
///   at the slot that the low bits of the record's hash name.
#[inline(always)]
unsafe fn hit<S: Select, const SHAPE: u8, const HAS_NULLS: bool>(
    keys: &KeyBatch,
    select: S,
    hashes: &[u64],
    words: &[u64],
    reach: Reach<'_>,
    pointers: &mut [*mut u64],
    missed: &mut [u32],
) -> usize {
    let row_words = reach.row_words;
    let mut count = 0;
    for (index, ((&hash, &word), pointer)) in hashes.iter().zip(words).zip(pointers).enumerate() {
        let tag = if HAS_NULLS { keys.tag(select.at(index)) } else { hash & TAG_HASH | TAG_OCCUPIED };
        let first = *pointer;
        // The other row of the pair: after an even slot, before an odd one. The lowest bit of the slot is that of the hash.
        let is_odd = (hash & 1) as usize;
        let other = first.wrapping_add(row_words).wrapping_sub(is_odd * 2 * row_words);
        // SAFETY: both rows are in the chunk: slots of a pair differ in the lowest bit, and chunks have 16 rows or more.
        let (first_tag, other_tag) = unsafe { (*first, *other) };
        let is_first = first_tag & TAG_MATCH == tag;
        let is_second = other_tag & TAG_MATCH == tag;
        let row = if is_first { first } else { other };
        let is_key = match SHAPE {
            // SAFETY: a row has its tag and the key's word.
            SHAPE_WORD => unsafe { *row.add(1) == word },
            SHAPE_VIEW => {
                // SAFETY: a row has its tag and the two words of the key.
                let (first, second) = unsafe { (*row.add(1), *row.add(2)) };
                let key = keys.key(select.at(index));
                let length = view_length(key);
                if length <= VIEW_INLINE || first != key[0] {
                    first == key[0] && second == key[1]
                } else if !(is_first | is_second) {
                    // Another key of this length and beginning, whose bytes lie far away.
                    false
                } else {
                    let arena = reach.arena(hash);
                    let (start, wanted) = (second as usize, key[1] as usize);
                    arena.get(start..start.saturating_add(length))
                        == Some(&keys.bytes.as_slice()[wanted..wanted + length])
                }
            }
            // SAFETY: a row has its tag and the key's words.
            _ => unsafe { has_key(row, keys.key(select.at(index))) },
        };
        let is_hit = (is_first | is_second) & is_key;
        *pointer = row;
        missed[count] = index as u32;
        count += usize::from(is_hit) ^ 1;
    }
    count
}

/// Looks for each missed key in the pair after the one it was looked for in, in the same way; keys of one word without nulls.
/// Returns how many are left, which `missed` lists then.
///
/// # Safety
/// - Every missed record's pointer points to a row of the writable chunk that its key belongs to, of the pair at the slot
///   that the low bits of its hash name.
#[inline(always)]
unsafe fn hit_behind(hashes: &[u64], words: &[u64], reach: Reach<'_>, pointers: &mut [*mut u64], missed: &mut [u32]) -> usize {
    let row_words = reach.row_words;
    let mut count = 0;
    for place in 0..missed.len() {
        let index = missed[place] as usize;
        let (hash, word) = (hashes[index], words[index]);
        let tag = hash & TAG_HASH | TAG_OCCUPIED;
        // SAFETY: passed on from the caller.
        let first = unsafe { reach.behind(reach.entry(hash), hash, pointers[index]) };
        let is_odd = (hash & 1) as usize;
        let other = first.wrapping_add(row_words).wrapping_sub(is_odd * 2 * row_words);
        // SAFETY: both rows are in the chunk, whose place and size its entry tells; `step_from` keeps the lowest bit of the
        // slot, and slots of a pair differ in it alone.
        let (first_tag, other_tag) = unsafe { (*first, *other) };
        let is_first = first_tag & TAG_MATCH == tag;
        let row = if is_first { first } else { other };
        // SAFETY: a row has its tag and the key's word.
        let is_hit = (is_first | (other_tag & TAG_MATCH == tag)) & unsafe { *row.add(1) == word };
        pointers[index] = if is_hit { row } else { pointers[index] };
        missed[count] = index as u32;
        count += usize::from(is_hit) ^ 1;
    }
    count
}
