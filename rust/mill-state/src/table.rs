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
//!   chunk: 16 rows ─► 32 ─► … ─► 16 KiB ─► splits in two by the next bit of the hash, and back as rows are removed
//! ```
//!
//! Invariants:
//!
//! - A chunk belongs to one key group. Its id says which prefix (after the group) it holds: 1 is the whole group, the
//!   halves of `n` are `2n` and `2n + 1`. Every entry of the directory under that prefix points to it.
//! - At least one row of every chunk is empty: a chunk grows before its load passes three quarters.
//! - The time between two snapshots is an epoch. The table only writes to a chunk that became writable in the present
//!   one; then nobody else reads its data. A snapshot ends the epoch, and the next change of a chunk makes a copy if the
//!   writer still holds the data (see `shared`). An entry of the directory says where the rows of its chunk are, and in
//!   which epoch they may be written to: a look-up reads the entry and the row, and nothing else.
//! - With persistence a bit in the row says that it changed since the last snapshot; becoming writable clears it.
//! - With persistence, `touched` has a record of exactly the chunks that are writable, each of which knows the place of
//!   its own; a snapshot hands that list on. Of all other chunks the checkpoints hold what they are.
//!
//! Why extendible hashing: the table never rehashes as a whole, so no record ever waits for it, and what a checkpoint
//! writes, shares and drops is always one small chunk.

mod directory;
mod growth;
mod lookup;
mod removal;
mod scan;

use std::ops::Range;
use std::sync::Arc;

use mill_frame::hash::KEY_GROUP_BITS;

use crate::bucket::Chunk;
use crate::cell::Cell;
use crate::chunk::Line;
use crate::handover::Touched;
use crate::layout::{RowLayout, TAG_FLAG_FIRST, TAG_HASH};
use crate::pool::Pool;
use directory::Directory;
pub use scan::Cursor;

/// How many records one call may look up; fewer (a few hundred) keep their rows in the nearest cache.
pub const LOOKUP_ROWS_MAX: usize = 4096;
/// How large the rows of a chunk become before it splits.
const CHUNK_BYTES: usize = 16 << 10;
/// How many rows a chunk starts with.
pub(crate) const CHUNK_ROWS_FIRST: u32 = 16;
/// How many bits after the key group the directory distinguishes at most; chunks of keys that agree in all of them
/// grow past their usual size instead.
const DEPTH_MAX: u32 = 16;
/// How many bytes of rows a table has at least when it takes memory from its pool: 2 MiB are too much for a small one. Keys
/// may come in the order of their groups, so it must not have to wait for the last chunk to know.
const POOLED_BYTES_MIN: usize = 128 << 10;
/// How full the chunks of an expected table are to be, in sixteenths: some become fuller than others.
const EXPECTED_SIXTEENTHS: usize = 9;
/// The epoch of a table of which no snapshot has been taken.
const FIRST_EPOCH: u64 = 1;
/// The chunks a key group begins with: `1 << depth` of them, with so many rows each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    depth: u32,
    capacity: u32,
}

impl Shape {
    /// One small chunk.
    pub(crate) const SMALL: Shape = Shape { depth: 0, capacity: CHUNK_ROWS_FIRST };
}

/// What a table is to keep track of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableOptions {
    /// The key groups it holds.
    pub groups: Range<u16>,
    /// The number of the state that it is, among those of the step.
    pub state: u16,
    /// Whether snapshots will be taken: which rows changed since the last one.
    pub is_persistent: bool,
    /// Whether [`scan_changed`](StateTable::scan_changed) will be used: which rows changed since the last scan.
    pub tracks_changes: bool,
}

impl TableOptions {
    /// A table that keeps track of nothing.
    pub fn new(groups: Range<u16>) -> TableOptions {
        TableOptions { groups, state: 0, is_persistent: false, tracks_changes: false }
    }
}

/// Keyed rows of one layout.
#[derive(Debug)]
pub struct StateTable {
    layout: Arc<RowLayout>,
    options: TableOptions,
    pool: Pool,
    /// What a key group begins with.
    expected: Shape,
    pub(crate) chunks: Vec<Chunk>,
    directory: Directory,
    /// Which epoch it is, from 1.
    epoch: u64,
    rows: usize,
    /// How many rows there were at most before it was emptied.
    rows_before: usize,
    /// What the next snapshot hands over.
    pub(crate) touched: Vec<Touched>,
    /// Chunks that checkpoints hold and the table no longer has: key group and id.
    pub(crate) dropped: Vec<(u16, u32)>,
    capacity_max: u32,
    pointers: Vec<*mut u64>,
    cell_pointers: Vec<*mut Cell>,
    inserted: Vec<u32>,
    /// Room for the hashes and the words of keys that do not lie side by side.
    rooms: (Vec<u64>, Vec<u64>),
    /// The places of chunks that rows have moved into in this call.
    moved: Vec<u32>,
    /// The rows of a chunk that is being split.
    moving: Vec<u64>,
    missed: Vec<u32>,
    scanned: Vec<*const u64>,
    places: Vec<(u32, u32)>,
}

// SAFETY: the pointers of the directory lead into the chunks of the table, which move with it (see `Chunk`); those in the
// scratch vectors are used only within the call that has filled them, or by what borrows the table for as long.
unsafe impl Send for StateTable {}
// SAFETY: as above; a shared reference gives no access to the scratch vectors, and none for writing through the directory,
// but through `&mut self` methods.
unsafe impl Sync for StateTable {}

impl StateTable {
    /// An empty table.
    ///
    /// # Panics
    /// If the key groups are none or more than there are.
    pub fn new(layout: Arc<RowLayout>, options: TableOptions) -> StateTable {
        let pool = StateTable::pool_for(&layout);
        StateTable::with_pool(layout, options, pool)
    }

    /// A pool for tables of this layout.
    pub(crate) fn pool_for(layout: &RowLayout) -> Pool {
        let words = StateTable::capacity_max(layout) as usize * layout.row_words;
        Pool::new((words * size_of::<u64>()).div_ceil(size_of::<Line>()))
    }

    fn capacity_max(layout: &RowLayout) -> u32 {
        let fitting = (CHUNK_BYTES / (layout.row_words * 8)).max(CHUNK_ROWS_FIRST as usize);
        1 << fitting.ilog2()
    }

    /// An empty table that takes its memory from a pool it shares.
    pub(crate) fn with_pool(layout: Arc<RowLayout>, options: TableOptions, pool: Pool) -> StateTable {
        let groups = options.groups.len();
        assert!((1..=1 << KEY_GROUP_BITS).contains(&groups) && options.groups.end <= 1 << KEY_GROUP_BITS);
        StateTable {
            capacity_max: StateTable::capacity_max(&layout),
            layout,
            pool,
            expected: Shape::SMALL,
            directory: Directory::new(&options.groups),
            epoch: FIRST_EPOCH,
            options,
            chunks: Vec::new(),
            rows: 0,
            rows_before: 0,
            touched: Vec::new(),
            dropped: Vec::new(),
            pointers: Vec::new(),
            cell_pointers: Vec::new(),
            inserted: Vec::new(),
            rooms: Default::default(),
            moved: Vec::new(),
            moving: Vec::new(),
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
            + self.directory.memory()
    }

    /// Forgets all rows.
    pub fn clear(&mut self) {
        self.note_drops();
        self.chunks.clear();
        self.touched.clear();
        self.directory.clear(0);
        self.rows = 0;
    }

    /// Empties all rows but keeps their chunks, for a table that fills up again and again.
    ///
    /// # Panics
    /// If the table is persistent.
    pub fn reset(&mut self) {
        assert!(!self.options.is_persistent, "a persistent table is cleared, so that checkpoints see it");
        self.empty();
    }

    /// Empties all rows but keeps their chunks, as those of a table that no snapshot has seen; whether that is what it is, and most
    /// of its chunks were of use: the next snapshot writes all of them.
    pub(crate) fn recycle(&mut self) -> bool {
        let is_own = self.chunks.iter().all(|chunk| chunk.epoch == FIRST_EPOCH);
        let used = self.chunks.iter().filter(|chunk| chunk.count > 0).count();
        if self.epoch != FIRST_EPOCH || !is_own || 2 * used < self.chunks.len() || !self.dropped.is_empty() || self.touched.iter().any(|touched| touched.is_held) {
            return false;
        }
        self.empty();
        self.rows_before = 0;
        self.touched.iter_mut().for_each(|touched| touched.emptied = None);
        true
    }

    fn empty(&mut self) {
        for chunk in &mut self.chunks {
            let data = chunk.data_mut(self.epoch);
            let words = data.words_mut().expect("the chunks of a table without persistence, or of its first epoch, are its own");
            words.fill(0);
            let base = words.as_mut_ptr();
            data.arena_mut().clear();
            data.cells.fill(Cell::default());
            chunk.base = base;
            chunk.changed.fill(0);
            chunk.count = 0;
            chunk.garbage = 0;
        }
        self.rows_before = self.rows_before.max(self.rows);
        self.rows = 0;
    }

    /// Whether it is worth large pages.
    fn is_large(&self) -> bool {
        let expected = (self.options.groups.len() << self.expected.depth) * self.expected.capacity as usize / 2;
        self.rows.max(expected) * self.layout.row_words * size_of::<u64>() >= POOLED_BYTES_MIN
    }

    /// Expects as many rows as a table of this shape had, and begins with the memory for them.
    pub(crate) fn expect(&mut self, shape: Shape) {
        assert!(self.chunks.is_empty() && shape.capacity <= self.capacity_max);
        self.expected = shape;
    }

    /// The shape in which its rows would have fitted from the start.
    pub(crate) fn shape(&self) -> Shape {
        StateTable::shape_for(&self.layout, self.options.groups.len(), self.rows.max(self.rows_before))
    }

    /// The shape in which so many rows fit.
    pub(crate) fn shape_for(layout: &RowLayout, groups: usize, rows: usize) -> Shape {
        let (rows, capacity_max) = (rows / groups, StateTable::capacity_max(layout));
        let fits = |capacity: usize, depth: u32| rows <= (capacity << depth) / 16 * EXPECTED_SIXTEENTHS;
        let capacity = (CHUNK_ROWS_FIRST..=capacity_max).find(|&rows| rows.is_power_of_two() && fits(rows as usize, 0));
        match capacity {
            Some(capacity) => Shape { depth: 0, capacity },
            None => {
                let depth = (1..DEPTH_MAX).find(|&depth| fits(capacity_max as usize, depth)).unwrap_or(DEPTH_MAX);
                Shape { depth, capacity: capacity_max }
            }
        }
    }

    /// Whether it was made for tables of this shape, and has not grown far beyond it since.
    pub(crate) fn is_like(&self, shape: Shape) -> bool {
        let capacity: usize = self.chunks.iter().map(|chunk| chunk.capacity() as usize).sum();
        self.expected == shape && 2 * capacity <= 3 * (self.options.groups.len() << shape.depth) * shape.capacity as usize
    }

    /// Where new chunks take their memory, if the table is large.
    fn pool(&self) -> Option<&Pool> {
        if self.is_large() { Some(&self.pool) } else { None }
    }

    fn note_drops(&mut self) {
        if !self.options.is_persistent {
            return;
        }
        let is_held = |chunk: &&Chunk| chunk.epoch != self.epoch || self.touched[chunk.touched as usize].is_held;
        self.dropped.extend(self.chunks.iter().filter(is_held).map(|chunk| (chunk.group, chunk.id)));
    }

    /// Ends the epoch, so that no chunk is writable; returns its number.
    pub(crate) fn end_epoch(&mut self) -> u64 {
        self.epoch += 1;
        self.directory.begin_epoch(self.epoch);
        self.epoch - 1
    }

    /// The chunks that checkpoints hold of it, for when it is dropped as a whole.
    pub(crate) fn into_drops(mut self) -> Vec<(u16, u32)> {
        self.note_drops();
        self.dropped
    }

    /// Takes up chunks of a checkpoint in place of what the table has. Their prefixes cover whole groups.
    pub(crate) fn adopt(&mut self, chunks: Vec<Chunk>) {
        self.clear();
        self.dropped.clear();
        self.directory.clear(chunks.iter().map(|chunk| chunk.id.ilog2()).max().unwrap_or(0));
        self.rows = chunks.iter().map(|chunk| chunk.count as usize).sum();
        self.chunks = chunks;
        (0..self.chunks.len()).for_each(|place| self.refresh(place));
    }

    /// Writes a chunk's entries of the directory anew, after it has become writable, or has moved.
    pub(crate) fn refresh(&mut self, place: usize) {
        let chunk = &self.chunks[place];
        self.directory.enter(chunk.group, chunk.id, place as u32, chunk.base, chunk.mask, chunk.epoch == self.epoch);
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
const _: () = assert!(TAG_HASH == (1 << TAG_FLAG_FIRST) - 1);

#[cfg(test)]
pub(crate) mod tests;
