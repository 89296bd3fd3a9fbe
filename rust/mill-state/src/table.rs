//! The state table: extendible hashing whose buckets are the chunks.
//!
//! ```text
//!   hash of a key, 64 bits
//!   ┌──────────┬───────────────────┬───────────────────────────────┐
//!   │ group: 7 │ directory: 0..16  │              slot: low bits   │
//!   └────┬─────┴────────┬──────────┴───────────────┬───────────────┘
//!        └──────┬───────┘                          │
//!          directory[..] ──► chunk ──► rows: open addressing, see `probe`
//!
//!   chunk: 16 rows ─► 32 ─► … ─► 16 KiB ─► splits in two by the next bit of the hash
//! ```
//!
//! Invariants:
//!
//! - A chunk belongs to one key group. Its id says which prefix (behind the group) it holds: 1 is the whole group, the
//!   halves of `n` are `2n` and `2n + 1`. Every entry of the directory under that prefix points to it.
//! - At least one row of every chunk is empty: a chunk grows before its load passes three quarters.
//! - The table only writes to a chunk whose `is_writable` is set; then its data is shared with nobody. Handing data to
//!   a checkpoint clears it, and the next change makes a copy if the writer still holds the data.
//! - With persistence, `touched` lists exactly the chunks that became writable since the last snapshot, so a snapshot
//!   looks at those alone.
//!
//! Why extendible hashing: the table never rehashes as a whole, so no record ever waits for it, and what a checkpoint
//! writes, shares and drops is always one small chunk.

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

use mill_frame::hash::{KEY_GROUP_BITS, key_group};

use crate::chunk::{Cell, ChunkData, writable};
use crate::key::{KeyBatch, VIEW_INLINE, view_bytes, view_length};
use crate::layout::{Flag, RowLayout, TAG_FLAG_FIRST, TAG_HASH, TAG_MATCH};
use crate::probe::{Found, Probe, line_mask, prefetch, step_from};
use crate::rows::{Rows, RowsRead};

/// How many records one call may look up; fewer (a few hundred) keep their rows in the nearest cache.
pub const LOOKUP_ROWS_MAX: usize = 4096;
/// How large the rows of a chunk become before it splits.
const CHUNK_BYTES: usize = 16 << 10;
/// How many rows a chunk starts with.
pub(crate) const CHUNK_ROWS_FIRST: u32 = 16;
/// How many bits behind the key group the directory distinguishes at most; chunks of keys that agree in all of them
/// grow past their usual size instead.
const DEPTH_MAX: u32 = 16;
const NO_CHUNK: u32 = u32::MAX;

/// What a table is to keep track of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableOptions {
    /// The key groups it holds.
    pub groups: Range<u16>,
    /// Which of the tables at the same address it is, 0 to 15 (a step may keep several).
    pub part: u8,
    /// Whether snapshots will be taken: which rows changed since the last one.
    pub is_persistent: bool,
    /// Whether [`scan_changed`](StateTable::scan_changed) will be used: which rows changed since the last scan.
    pub tracks_changes: bool,
}

impl TableOptions {
    /// A table that keeps track of nothing.
    pub fn new(groups: Range<u16>) -> TableOptions {
        TableOptions { groups, part: 0, is_persistent: false, tracks_changes: false }
    }
}

/// One bucket. What every look-up needs stands first, in one cache line.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Chunk {
    base: *mut u64,
    dirty: Box<[u64]>,
    changed: Box<[u64]>,
    mask: u32,
    is_writable: bool,
    count: u32,
    limit: u32,
    group: u16,
    /// The checkpoints so far hold this chunk, under its id and with these slots.
    pub(crate) is_based: bool,
    /// The checkpoints so far hold something at its address.
    pub(crate) is_held: bool,
    cells: *mut Cell,
    data: Arc<ChunkData>,
    id: u32,
    /// How much of the arena the checkpoints so far hold.
    pub(crate) arena_based: usize,
}

// SAFETY: the pointers lead into `data`, which the chunk owns or shares through an Arc of immutable values; they move
// with it to another thread, and are written through only by the owner of the table.
unsafe impl Send for Chunk {}
// SAFETY: through a shared reference the pointers are only read, and nobody writes while shared references live.
unsafe impl Sync for Chunk {}

impl Chunk {
    fn new(group: u16, id: u32, capacity: u32, layout: &RowLayout, options: &TableOptions) -> Chunk {
        let data = ChunkData::zeroed(capacity as usize * layout.row_words, capacity as usize * layout.cells);
        let mut chunk = Chunk::of_data(group, id, capacity, 0, data, options);
        chunk.make_writable();
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
        let arena_based = data.arena.bytes().len();
        Chunk {
            base: data.start().cast_mut(),
            dirty: bits(options.is_persistent),
            changed: bits(options.tracks_changes),
            mask: capacity - 1,
            count,
            limit: capacity / 4 * 3,
            group,
            is_writable: false,
            is_based: false,
            is_held: false,
            cells: std::ptr::null_mut(),
            data: Arc::new(data),
            id,
            arena_based,
        }
    }

    fn make_writable(&mut self) {
        (self.base, self.cells) = writable(&mut self.data);
        self.is_writable = true;
    }

    pub(crate) fn data(&self) -> &Arc<ChunkData> {
        &self.data
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

    /// Gives the data to be read by someone else, with the marks of what changed, and starts new marks.
    pub(crate) fn share(&mut self) -> (Arc<ChunkData>, Box<[u64]>) {
        self.is_writable = false;
        let clean = vec![0; self.dirty.len()].into();
        self.arena_based = self.data.arena.bytes().len();
        (Arc::clone(&self.data), std::mem::replace(&mut self.dirty, clean))
    }

    #[inline(always)]
    fn mark(&mut self, slot: u32) {
        let (word, bit) = ((slot >> 6) as usize, 1u64 << (slot & 63));
        if let Some(word) = self.dirty.get_mut(word) {
            *word |= bit;
        }
        if let Some(word) = self.changed.get_mut(word) {
            *word |= bit;
        }
    }

    #[inline(always)]
    fn row(&self, slot: u32, row_words: usize) -> *mut u64 {
        debug_assert!(slot <= self.mask);
        self.base.wrapping_add(slot as usize * row_words)
    }

    /// The first empty row that a search for this tag meets.
    fn first_empty(&self, tag: u64, row_words: usize) -> u32 {
        let (start, line) = (tag as u32 & self.mask, line_mask(row_words));
        let mut step = 0;
        loop {
            let slot = step_from(start, step, line, self.mask);
            // SAFETY: the slot lies in the chunk.
            if unsafe { *self.row(slot, row_words) } == 0 {
                return slot;
            }
            step += 1;
        }
    }

    /// Empties a row of a writable chunk. The rows from its line on, up to the first line with an empty row, take new
    /// places: no search passed an empty row to find what lies behind that line, and none will.
    fn remove(&mut self, removed: u32, row_words: usize, cells: usize) {
        assert!(self.is_writable);
        let line = line_mask(row_words);
        let mut displaced = Vec::new();
        let mut first = removed & !line;
        loop {
            let mut has_empty = false;
            for slot in first..=first + line {
                let row = self.row(slot, row_words);
                // SAFETY: the row lies in the chunk, which is writable; this is the only reference into it.
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
                if slot != removed {
                    displaced.push((row.to_vec(), values, bit_of(&self.changed, slot)));
                }
                row.fill(0);
                self.mark(slot);
                set_bit(&mut self.changed, slot, false);
            }
            first = (first + line + 1) & self.mask;
            if has_empty {
                break;
            }
        }
        for (words, values, is_changed) in displaced {
            let slot = self.first_empty(words[0], row_words);
            // SAFETY: as above.
            unsafe { std::slice::from_raw_parts_mut(self.row(slot, row_words), row_words) }.copy_from_slice(&words);
            for (cell, value) in values.into_iter().enumerate() {
                // SAFETY: as above.
                unsafe { *self.cells.add(slot as usize * cells + cell) = value };
            }
            self.mark(slot);
            set_bit(&mut self.changed, slot, is_changed);
        }
        self.count -= 1;
    }

    #[inline(always)]
    fn probe(&self, row_words: usize) -> Probe {
        Probe { base: self.base, mask: self.mask, row_words, line: line_mask(row_words) }
    }

    #[inline(always)]
    fn find<const SHAPE: u8>(&self, row_words: usize, keys: &KeyBatch, record: usize) -> Found {
        let probe = self.probe(row_words);
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
const SHAPE_WORD: u8 = 0;
const SHAPE_WORDS: u8 = 1;
const SHAPE_VIEW: u8 = 2;

/// Which records of a batch are meant.
pub trait Select: Copy {
    /// How many.
    fn len(self) -> usize;
    /// The place in the batch of the `index`-th.
    fn at(self, index: usize) -> usize;
    /// Whether none are.
    fn is_empty(self) -> bool {
        self.len() == 0
    }
}

/// Consecutive records.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// The first.
    pub start: usize,
    /// How many.
    pub len: usize,
}

impl Select for Span {
    #[inline(always)]
    fn len(self) -> usize {
        self.len
    }
    #[inline(always)]
    fn at(self, index: usize) -> usize {
        self.start + index
    }
}

impl Select for &[u32] {
    #[inline(always)]
    fn len(self) -> usize {
        <[u32]>::len(self)
    }
    #[inline(always)]
    fn at(self, index: usize) -> usize {
        self[index] as usize
    }
}

/// A place in a table from which a scan goes on. Valid while no row is added or removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    chunk: usize,
    slot: u32,
}

/// Keyed rows of one layout.
#[derive(Debug)]
pub struct StateTable {
    layout: Arc<RowLayout>,
    options: TableOptions,
    pub(crate) chunks: Vec<Chunk>,
    /// `groups << depth` entries.
    directory: Vec<u32>,
    depth: u32,
    rows: usize,
    pub(crate) touched: Vec<u32>,
    /// Chunks that checkpoints hold and the table no longer has: key group and id.
    pub(crate) dropped: Vec<(u16, u32)>,
    capacity_max: u32,
    pointers: Vec<*mut u64>,
    cell_pointers: Vec<*mut Cell>,
    inserted: Vec<u32>,
    aims: Vec<Aim>,
    missed: Vec<u32>,
    scanned: Vec<*const u64>,
    places: Vec<(u32, u32)>,
}

// SAFETY: the pointers in the scratch vectors are used only within the call that has filled them, or by what borrows
// the table for as long.
unsafe impl Send for StateTable {}
// SAFETY: as above; a shared reference gives no access to the scratch vectors but through `&mut self` methods.
unsafe impl Sync for StateTable {}

impl StateTable {
    /// An empty table.
    ///
    /// # Panics
    /// If the key groups are none or more than there are, or the part is above 15.
    pub fn new(layout: Arc<RowLayout>, options: TableOptions) -> StateTable {
        let groups = options.groups.len();
        assert!((1..=1 << KEY_GROUP_BITS).contains(&groups) && options.groups.end <= 1 << KEY_GROUP_BITS);
        assert!(options.part < 16, "part {}", options.part);
        let fitting = (CHUNK_BYTES / (layout.row_words * 8)).max(CHUNK_ROWS_FIRST as usize);
        StateTable {
            capacity_max: 1 << fitting.ilog2(),
            layout,
            directory: vec![NO_CHUNK; groups],
            options,
            chunks: Vec::new(),
            depth: 0,
            rows: 0,
            touched: Vec::new(),
            dropped: Vec::new(),
            pointers: Vec::new(),
            cell_pointers: Vec::new(),
            inserted: Vec::new(),
            aims: Vec::new(),
            missed: Vec::new(),
            scanned: Vec::new(),
            places: Vec::new(),
        }
    }

    /// The layout of its rows.
    pub fn layout(&self) -> &Arc<RowLayout> {
        &self.layout
    }

    /// What it keeps track of.
    pub fn options(&self) -> &TableOptions {
        &self.options
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// About how many bytes of memory it takes, mapped checkpoints and the insides of cells aside.
    pub fn memory(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.data.memory() + size_of::<Chunk>()).sum::<usize>()
            + self.directory.len() * size_of::<u32>()
    }

    /// Forgets all rows.
    pub fn clear(&mut self) {
        self.note_drops();
        self.chunks.clear();
        self.touched.clear();
        self.directory.clear();
        self.directory.resize(self.options.groups.len(), NO_CHUNK);
        self.depth = 0;
        self.rows = 0;
    }

    /// Empties all rows but keeps their chunks, for a table that fills up again and again.
    ///
    /// # Panics
    /// If the table is persistent.
    pub fn reset(&mut self) {
        assert!(!self.options.is_persistent, "a persistent table is cleared, so that checkpoints see it");
        for chunk in &mut self.chunks {
            let data = Arc::get_mut(&mut chunk.data).expect("a table without persistence shares nothing");
            data.words_mut().expect("a table without persistence maps nothing").fill(0);
            data.arena_mut().clear();
            data.cells.fill(None);
            chunk.make_writable();
            chunk.changed.fill(0);
            chunk.count = 0;
        }
        self.rows = 0;
    }

    fn note_drops(&mut self) {
        for chunk in self.chunks.iter().filter(|chunk| chunk.is_held) {
            self.dropped.push((chunk.group, chunk.id));
        }
    }

    /// The chunks that checkpoints hold of it, for when it is dropped as a whole.
    pub(crate) fn into_drops(mut self) -> Vec<(u16, u32)> {
        self.note_drops();
        self.dropped
    }

    #[inline(always)]
    fn directory_index(&self, hash: u64) -> usize {
        ((hash >> (TAG_FLAG_FIRST - self.depth)) as usize).wrapping_sub((self.options.groups.start as usize) << self.depth)
    }

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

    fn create(&mut self, hash: u64) -> u32 {
        let group = key_group(hash);
        let chunk = Chunk::new(group, 1, CHUNK_ROWS_FIRST, &self.layout, &self.options);
        let place = self.push_chunk(chunk);
        let first = usize::from(group - self.options.groups.start) << self.depth;
        self.directory[first..first + (1 << self.depth)].fill(place);
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

    fn grow(&mut self, place: usize) {
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
            self.directory = self.directory.iter().flat_map(|&place| [place, place]).collect();
            self.depth += 1;
        }
        let below = self.depth - (depth + 1);
        let prefix = (id * 2 + 1 - (1 << (depth + 1))) as usize;
        let first = (usize::from(group - self.options.groups.start) << self.depth) + (prefix << below);
        self.directory[first..first + (1 << below)].fill(high as u32);
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
            chunk.mark(place);
            let (word, mask) = ((place >> 6) as usize, 1u64 << (place & 63));
            if let Some(changed) = chunk.changed.get_mut(word)
                && old.changed[(slot >> 6) as usize] >> (slot & 63) & 1 == 0
            {
                *changed &= !mask;
            }
        }
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
        let row_words = self.layout.row_words;
        self.scanned.clear();
        self.places.clear();
        while cursor.chunk < self.chunks.len() && self.scanned.len() < rows_max {
            let place = cursor.chunk;
            let chunk = &mut self.chunks[place];
            if cursor.slot == 0 && flag.is_some() && !chunk.is_writable && chunk.changed.iter().any(|&word| word != 0) {
                chunk.make_writable();
                if self.options.is_persistent {
                    self.touched.push(place as u32);
                }
            }
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
                    if let Some(dirty) = chunk.dirty.get_mut(word) {
                        *dirty |= 1 << (slot & 63);
                    }
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

    /// Takes up chunks of a checkpoint in place of what the table has. Their prefixes cover whole groups.
    pub(crate) fn adopt(&mut self, chunks: Vec<Chunk>) {
        self.clear();
        self.dropped.clear();
        self.depth = chunks.iter().map(|chunk| chunk.id.ilog2()).max().unwrap_or(0);
        self.directory.clear();
        self.directory.resize(self.options.groups.len() << self.depth, NO_CHUNK);
        for (place, chunk) in chunks.iter().enumerate() {
            let depth = chunk.id.ilog2();
            let prefix = (chunk.id - (1 << depth)) as usize;
            let below = self.depth - depth;
            let first = (usize::from(chunk.group - self.options.groups.start) << self.depth) + (prefix << below);
            self.directory[first..first + (1 << below)].fill(place as u32);
            self.rows += chunk.count as usize;
        }
        self.chunks = chunks;
    }

    /// Whether it holds chunks, be they empty.
    pub(crate) fn has_chunks(&self) -> bool {
        !self.chunks.is_empty()
    }

    /// The deepest prefix a chunk may have.
    pub(crate) fn depth_max() -> u32 {
        DEPTH_MAX
    }
}

/// Where the search for a key starts, and later where it ended.
#[derive(Clone, Copy, Debug)]
struct Aim {
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

fn bit_of(bits: &[u64], slot: u32) -> bool {
    bits.get((slot >> 6) as usize).is_some_and(|word| word >> (slot & 63) & 1 == 1)
}

fn set_bit(bits: &mut [u64], slot: u32, is_set: bool) {
    if let Some(word) = bits.get_mut((slot >> 6) as usize) {
        *word = *word & !(1 << (slot & 63)) | u64::from(is_set) << (slot & 63);
    }
}

const _: () = assert!(TAG_HASH == (1 << TAG_FLAG_FIRST) - 1);

#[cfg(test)]
pub(crate) mod tests;
