//! One bucket of a table: a chunk's data, how it is marked and shared, and where rows are found in it.
//!
//! Invariants: `base` and `cells` lead to the rows and cells of `data`, whose capacity is `mask + 1`. They are written
//! through only in the epoch in which the data became the chunk's own (see `shared`). `count` rows are taken, fewer than
//! there are. `changed` has a bit a row, or none where changes are not tracked.

use crate::cell::Cell;
use crate::chunk::ChunkData;
use crate::handover::Touched;
use crate::image::slots_of;
use crate::key::{KeyBatch, VIEW_INLINE, view_length};
use crate::layout::{RowLayout, TAG_DIRTY};
use crate::pool::Pool;
use crate::probe::{Found, Probe, line_mask};
use crate::shared::TableData;
use crate::table::TableOptions;

/// How full a chunk becomes before it grows, in sixteenths of its rows.
const LIMIT_SIXTEENTHS: u32 = 11;

/// One bucket.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Chunk {
    pub(crate) base: *mut u64,
    pub(crate) changed: Box<[u64]>,
    pub(crate) mask: u32,
    pub(crate) count: u32,
    pub(crate) limit: u32,
    pub(crate) group: u16,
    /// The epoch of the table in which the data became the chunk's own; 0 for none. The chunk is written to in no other.
    pub(crate) epoch: u64,
    pub(crate) cells: *mut Cell,
    pub(crate) data: TableData,
    pub(crate) id: u32,
    /// Its place in the list of what the next barrier hands over, if it is written to in this epoch and that is kept.
    pub(crate) touched: u32,
    /// How many bytes of the arena no row has any more.
    pub(crate) garbage: usize,
}

// SAFETY: the pointers lead into `data`, which the chunk owns or shares with those who only read; they move with it to
// another thread, and are written through only by the owner of the table.
unsafe impl Send for Chunk {}
// SAFETY: through a shared reference the pointers are only read, and nobody writes while shared references live.
unsafe impl Sync for Chunk {}

impl Chunk {
    pub(crate) fn new(
        group: u16,
        id: u32,
        capacity: u32,
        layout: &RowLayout,
        options: &TableOptions,
        pool: Option<&Pool>,
        epoch: u64,
    ) -> Chunk {
        let data = ChunkData::zeroed(capacity as usize * layout.row_words, capacity as usize * layout.cells, pool);
        let mut chunk = Chunk::of_data(group, id, capacity, 0, data, options);
        (chunk.base, chunk.cells, _) = chunk.data.own(None);
        chunk.epoch = epoch;
        chunk
    }

    /// A chunk of data that stands as it is; its first change makes it writable.
    pub(crate) fn of_data(
        group: u16,
        id: u32,
        capacity: u32,
        count: u32,
        data: ChunkData,
        options: &TableOptions,
    ) -> Chunk {
        assert!(capacity.is_power_of_two() && count < capacity, "{count} rows of {capacity}");
        let bits = |is_used: bool| vec![0u64; if is_used { (capacity as usize).div_ceil(64) } else { 0 }].into();
        Chunk {
            base: data.start().cast_mut(),
            changed: bits(options.tracks_changes),
            mask: capacity - 1,
            count,
            limit: capacity / 16 * LIMIT_SIXTEENTHS,
            group,
            epoch: 0,
            cells: std::ptr::null_mut(),
            data: TableData::new(data),
            id,
            touched: 0,
            garbage: 0,
        }
    }

    /// Makes the data the chunk's own in this epoch, with no row marked as changed.
    pub(crate) fn make_writable(&mut self, row_words: usize, pool: Option<&Pool>, epoch: u64) {
        let changed;
        (self.base, self.cells, changed) = self.data.own(pool);
        self.epoch = epoch;
        let words = self.data_mut(epoch).words_mut().expect("mapped data was copied as it became the chunk's own");
        match changed {
            Some(changed) => slots_of(&changed).for_each(|slot| words[slot as usize * row_words] &= !TAG_DIRTY),
            None => words.iter_mut().step_by(row_words).for_each(|tag| *tag &= !TAG_DIRTY),
        }
        let base = words.as_mut_ptr();
        self.base = base;
    }

    pub(crate) fn data(&self) -> &ChunkData {
        &self.data
    }

    /// The data for changing, in the epoch in which it became the chunk's own.
    pub(crate) fn data_mut(&mut self, epoch: u64) -> &mut ChunkData {
        assert_eq!(self.epoch, epoch, "a chunk is changed in another epoch than it was made writable for");
        // SAFETY: the data became the chunk's own in the present epoch of the table, which `epoch` is.
        unsafe { self.data.write() }
    }

    /// What the next barrier is to hand over; nothing of it is in a checkpoint yet.
    pub(crate) fn touched_anew(&self) -> Touched {
        Touched {
            data: self.data.promise(),
            arena_from: 0,
            id: self.id,
            group: self.group,
            is_based: false,
            is_held: false,
            emptied: None,
        }
    }

    /// What the next barrier is to hand over of a chunk that checkpoints hold as it is.
    pub(crate) fn touched_again(&self) -> Touched {
        let arena_from = self.data.arena.bytes().len();
        Touched { arena_from, is_based: true, is_held: true, ..self.touched_anew() }
    }

    pub(crate) fn group(&self) -> u16 {
        self.group
    }

    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    pub(crate) fn capacity(&self) -> u32 {
        self.mask + 1
    }

    /// Notes that a row changed since changes were last read, where that is kept.
    #[inline(always)]
    pub(crate) fn mark(&mut self, slot: u32) {
        if let Some(word) = self.changed.get_mut((slot >> 6) as usize) {
            *word |= 1u64 << (slot & 63);
        }
    }

    #[inline(always)]
    pub(crate) fn row(&self, slot: u32, row_words: usize) -> *mut u64 {
        debug_assert!(slot <= self.mask);
        self.base.wrapping_add(slot as usize * row_words)
    }

    /// The first empty row that a search for this tag meets.
    pub(crate) fn first_empty(&self, tag: u64, row_words: usize) -> u32 {
        // SAFETY: `base` points to the rows of `data`, and the load limit leaves one of them empty.
        let row = unsafe { self.probe(row_words).empty_row(tag) };
        ((row.addr() - self.base.addr()) / (row_words * size_of::<u64>())) as u32
    }

    /// Empties a row of a writable chunk. The rows from its line on, up to the first line with an empty row, take new
    /// places: no search passed an empty row to find what is after that line, and none will. `emptied` hears of every slot
    /// whose row was taken out; those that rows were put into again have the bit `dirty`, unless they are as before.
    pub(crate) fn remove(
        &mut self,
        removed: u32,
        layout: &RowLayout,
        epoch: u64,
        dirty: u64,
        mut emptied: impl FnMut(u32),
    ) {
        let (row_words, cells, is_view) = (layout.row_words, layout.cells, layout.key.is_view());
        assert_eq!(self.epoch, epoch, "a row is removed in another epoch than its chunk was made writable for");
        let line = line_mask(row_words);
        let mut displaced = Vec::new();
        let mut first = removed & !line;
        loop {
            let mut has_empty = false;
            for slot in first..=first + line {
                let row = self.row(slot, row_words);
                // SAFETY: the row is in the chunk, which is writable; this is the only reference into it.
                let row = unsafe { std::slice::from_raw_parts_mut(row, row_words) };
                if row[0] == 0 {
                    has_empty = true;
                    continue;
                }
                let mut values = Vec::with_capacity(cells);
                for cell in 0..cells {
                    // SAFETY: the chunk has `cells` cells for each of its rows and is writable.
                    values.push(unsafe { (*self.cells.add(slot as usize * cells + cell)).take() });
                }
                emptied(slot);
                if slot != removed {
                    displaced.push((slot, row.to_vec(), values, bit_of(&self.changed, slot)));
                } else if is_view && view_length(&row[1..3]) > VIEW_INLINE {
                    self.garbage += view_length(&row[1..3]);
                }
                row.fill(0);
                set_bit(&mut self.changed, slot, false);
            }
            first = (first + line + 1) & self.mask;
            if has_empty {
                break;
            }
        }
        for (before, mut words, values, is_changed) in displaced {
            let slot = self.first_empty(words[0], row_words);
            words[0] |= if slot == before { 0 } else { dirty };
            // SAFETY: as above.
            unsafe { std::slice::from_raw_parts_mut(self.row(slot, row_words), row_words) }.copy_from_slice(&words);
            for (cell, value) in values.into_iter().enumerate() {
                // SAFETY: as above.
                unsafe { *self.cells.add(slot as usize * cells + cell) = value };
            }
            set_bit(&mut self.changed, slot, is_changed);
        }
        self.count -= 1;
    }

    #[inline(always)]
    pub(crate) fn probe(&self, row_words: usize) -> Probe {
        Probe { base: self.base, mask: self.mask, row_words, line: line_mask(row_words) }
    }

    #[inline(always)]
    pub(crate) fn find<const SHAPE: u8>(&self, row_words: usize, keys: &KeyBatch, record: usize) -> Found {
        // SAFETY: the chunk's own rows.
        unsafe { self.find_from::<SHAPE>(self.probe(row_words), keys, record) }
    }

    /// The same for who knows already where the rows are.
    ///
    /// # Safety
    /// - `probe` is what [`probe`](Chunk::probe) returns.
    #[inline(always)]
    pub(crate) unsafe fn find_from<const SHAPE: u8>(&self, probe: Probe, keys: &KeyBatch, record: usize) -> Found {
        let tag = keys.tag(record);
        // SAFETY: `base` points to the rows of `data`: `mask + 1` of them, with `row_words` words each, which the layout
        // made large enough for the key; a chunk has sixteen rows or more, and the load limit leaves one empty.
        unsafe {
            match SHAPE {
                SHAPE_WORD => probe.find_word(tag, keys.words[record]),
                SHAPE_VIEW => {
                    probe.find_view(tag, keys.key(record), keys.bytes.as_slice(), || self.data.arena.bytes())
                }
                _ => probe.find_words(tag, keys.key(record)),
            }
        }
    }
}

/// Keys of one word, of several, or views: the loops are compiled for each.
pub(crate) const SHAPE_WORD: u8 = 0;
pub(crate) const SHAPE_WORDS: u8 = 1;
pub(crate) const SHAPE_VIEW: u8 = 2;

pub(crate) fn bit_of(bits: &[u64], slot: u32) -> bool {
    bits.get((slot >> 6) as usize).is_some_and(|word| word >> (slot & 63) & 1 == 1)
}

pub(crate) fn set_bit(bits: &mut [u64], slot: u32, is_set: bool) {
    if let Some(word) = bits.get_mut((slot >> 6) as usize) {
        *word = *word & !(1 << (slot & 63)) | u64::from(is_set) << (slot & 63);
    }
}
