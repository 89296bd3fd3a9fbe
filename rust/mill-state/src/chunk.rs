//! The memory of chunks: rows, the bytes of long keys, and cells.
//!
//! A [`ChunkData`] is what a table shares with the writer of a checkpoint, see [`shared`]. Invariants:
//!
//! - `rows` holds exactly `capacity * row_words` words, aligned to 64 bytes, where `capacity` is a power of two.
//! - `cells` holds exactly `capacity * cells_per_row` cells.

use mill_frame::block::SharedBytes;

use crate::cell::Cell;
use crate::pool::{Pool, PoolBlock};

const LINE_WORDS: usize = 8;

#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Line([u64; LINE_WORDS]);

impl Line {
    /// Zeros: what empty rows are made of.
    pub(crate) const ZERO: Line = Line([0; LINE_WORDS]);
}

#[cfg(test)]
impl Line {
    pub(crate) const ONES: Line = Line([u64::MAX; LINE_WORDS]);

    pub(crate) fn is_zero(&self) -> bool {
        self.0 == [0; LINE_WORDS]
    }
}

/// The rows of a chunk: its own memory, or bytes of a mapped checkpoint used in place.
pub(crate) enum RowMemory {
    Owned(Vec<Line>),
    Pooled(PoolBlock),
    Mapped(SharedBytes),
}

/// The bytes of long keys of a chunk.
pub(crate) enum Arena {
    Owned(Vec<u8>),
    Mapped(SharedBytes),
}

impl Arena {
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Arena::Owned(bytes) => bytes,
            Arena::Mapped(bytes) => bytes,
        }
    }
}

/// What a chunk keeps.
pub(crate) struct ChunkData {
    rows: RowMemory,
    words: usize,
    pub(crate) arena: Arena,
    pub(crate) cells: Vec<Cell>,
}

impl ChunkData {
    /// Empty rows of the chunk's own; out of the pool, if there is one and they are of its size.
    pub(crate) fn zeroed(words: usize, cells: usize, pool: Option<&Pool>) -> ChunkData {
        let lines = words.div_ceil(LINE_WORDS);
        let block = pool.filter(|pool| pool.lines() == lines).and_then(Pool::take);
        ChunkData {
            rows: block.map_or_else(|| RowMemory::Owned(vec![Line::ZERO; lines]), RowMemory::Pooled),
            words,
            arena: Arena::Owned(Vec::new()),
            cells: vec![Cell::default(); cells],
        }
    }

    /// Rows that are in mapped bytes. `None` if the bytes are not aligned for use in place.
    pub(crate) fn mapped(rows: SharedBytes, arena: Option<SharedBytes>, cells: Vec<Cell>) -> Option<ChunkData> {
        if !rows.as_ptr().cast::<u64>().is_aligned() || rows.len() % 8 != 0 || cfg!(target_endian = "big") {
            return None;
        }
        let words = rows.len() / 8;
        let arena = arena.map_or(Arena::Owned(Vec::new()), Arena::Mapped);
        Some(ChunkData { rows: RowMemory::Mapped(rows), words, arena, cells })
    }

    /// The rows as words.
    pub(crate) fn words(&self) -> &[u64] {
        // SAFETY: the memory starts with `words` initialised, aligned words (the invariant of the type) and outlives the
        // borrow; who writes has `&mut ChunkData`, or is a table that does not read by this meanwhile (see `shared`).
        unsafe { std::slice::from_raw_parts(self.start(), self.words) }
    }

    /// The rows as bytes.
    pub(crate) fn row_bytes(&self) -> &[u8] {
        let words = self.words();
        // SAFETY: a u64 has no padding and u8 no alignment, so the same memory is valid as eight times as many bytes.
        unsafe { std::slice::from_raw_parts(words.as_ptr().cast::<u8>(), words.len() * 8) }
    }

    /// The rows for writing, if the memory is the chunk's own.
    pub(crate) fn words_mut(&mut self) -> Option<&mut [u64]> {
        let words = self.words;
        let lines = match &mut self.rows {
            RowMemory::Owned(lines) => lines.as_mut_slice(),
            RowMemory::Pooled(block) => block.lines_mut(),
            RowMemory::Mapped(_) => return None,
        };
        // SAFETY: `lines` holds at least `words` initialised words (the invariant of the type), Line is eight u64 without
        // padding, and the exclusive borrow of self makes this the only access.
        Some(unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast::<u64>(), words) })
    }

    /// Whether the memory is mapped.
    pub(crate) fn is_mapped(&self) -> bool {
        matches!(self.rows, RowMemory::Mapped(_))
    }

    /// The first word of the first row.
    pub(crate) fn start(&self) -> *const u64 {
        match &self.rows {
            RowMemory::Owned(lines) => lines.as_ptr().cast::<u64>(),
            RowMemory::Pooled(block) => block.lines().as_ptr().cast::<u64>(),
            RowMemory::Mapped(bytes) => bytes.as_ptr().cast::<u64>(),
        }
    }

    /// The arena for appending; mapped bytes are copied first.
    pub(crate) fn arena_mut(&mut self) -> &mut Vec<u8> {
        if let Arena::Mapped(bytes) = &self.arena {
            self.arena = Arena::Owned(bytes.to_vec());
        }
        match &mut self.arena {
            Arena::Owned(bytes) => bytes,
            Arena::Mapped(_) => unreachable!("mapped bytes were copied above"),
        }
    }

    /// How many bytes of memory it takes; mapped bytes do not count.
    pub(crate) fn memory(&self) -> usize {
        let rows = match &self.rows {
            RowMemory::Owned(lines) => lines.len() * size_of::<Line>(),
            RowMemory::Pooled(block) => block.lines().len() * size_of::<Line>(),
            RowMemory::Mapped(_) => 0,
        };
        let arena = match &self.arena {
            Arena::Owned(bytes) => bytes.capacity(),
            Arena::Mapped(_) => 0,
        };
        rows + arena + self.cells.len() * size_of::<Cell>()
    }

    /// The same in memory of its own; cells stay shared.
    pub(crate) fn copy(&self, pool: Option<&Pool>) -> ChunkData {
        let mut copy = ChunkData::zeroed(self.words, 0, pool);
        copy.words_mut().expect("zeroed memory is owned").copy_from_slice(self.words());
        copy.arena = Arena::Owned(self.arena.bytes().to_vec());
        copy.cells = self.cells.clone();
        copy
    }
}

impl std::fmt::Debug for ChunkData {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ChunkData({} words, mapped: {})", self.words, self.is_mapped())
    }
}
