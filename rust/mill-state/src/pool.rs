//! Memory for the chunks of large tables: equal blocks out of large pages.
//!
//! ```text
//!   region (2 MiB, then more, on a boundary of 2 MiB)   │ block │ block │ block │ …
//!                                                          ▲ taken: a chunk's rows
//!                                                          └ given back: on the list, to be taken next
//! ```
//!
//! A look-up in a large table touches memory at random, and with pages of 4 KiB it waits as long for the address to be
//! translated as for the row itself. So regions are mapped where a large page may lie, and the system is asked for large
//! pages; where it has none nothing else changes. Blocks that come back are taken again before new memory is, which also
//! spares the windows of a stream the first touch of new pages.
//!
//! Invariants: a block is taken by at most one [`PoolBlock`] at a time; it lies wholly within a region, is aligned to 64,
//! and its region stays mapped as long as any block of the pool lives. Only the owner of a block reads or writes it: a
//! region is kept as a raw mapping, of which no reference is ever made.

use std::ptr::NonNull;
use std::sync::Arc;

use memmap2::{Advice, MmapMut, MmapRaw};
use parking_lot::Mutex;

use crate::chunk::Line;

/// The size of a large page, and of the first region.
const REGION_BYTES: usize = 2 << 20;
const REGION_BYTES_MAX: usize = 32 << 20;
const ALIGNMENT: usize = size_of::<Line>();

/// Blocks of one size, shared by the tables of an operator.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    lines: usize,
    memory: Mutex<Memory>,
}

#[derive(Debug, Default)]
struct Memory {
    regions: Vec<MmapRaw>,
    free: Vec<Start>,
    /// What is left of the last region, as offsets.
    rest: std::ops::Range<usize>,
}

#[derive(Debug)]
struct Start(NonNull<Line>);

// SAFETY: a pointer to memory that nobody else refers to may be used from any thread.
unsafe impl Send for Start {}

/// A block of a pool; it goes back when dropped.
#[derive(Debug)]
pub(crate) struct PoolBlock {
    start: Start,
    shared: Arc<Shared>,
}

// SAFETY: the block gives shared references to its memory out of a shared borrow, and exclusive ones out of an exclusive one.
unsafe impl Sync for PoolBlock {}

impl Pool {
    /// A pool of blocks of that many lines; it takes no memory yet.
    pub(crate) fn new(lines: usize) -> Pool {
        assert!(lines > 0 && lines * size_of::<Line>() <= REGION_BYTES, "blocks of {lines} lines");
        Pool { shared: Arc::new(Shared { lines, memory: Mutex::default() }) }
    }

    /// How many lines a block has.
    pub(crate) fn lines(&self) -> usize {
        self.shared.lines
    }

    /// A block of zeros; `None` if the system has no memory left.
    pub(crate) fn take(&self) -> Option<PoolBlock> {
        let mut memory = self.shared.memory.lock();
        if let Some(start) = memory.free.pop() {
            drop(memory);
            let mut block = PoolBlock { start, shared: Arc::clone(&self.shared) };
            block.lines_mut().fill(Line::ZERO);
            return Some(block);
        }
        let start = memory.carve(self.shared.lines * size_of::<Line>())?;
        Some(PoolBlock { start, shared: Arc::clone(&self.shared) })
    }
}

impl Memory {
    /// The next bytes of the last region, or of a new one; they are zero, as the system gives them.
    fn carve(&mut self, bytes: usize) -> Option<Start> {
        if self.rest.len() < bytes {
            let size = (REGION_BYTES << (self.regions.len() / 2).min(8)).min(REGION_BYTES_MAX);
            // As much more as it takes to begin at a boundary of large pages; what is not touched takes no memory.
            let region = MmapRaw::from(MmapMut::map_anon(size + REGION_BYTES).ok()?);
            let _ = region.advise(Advice::HugePage);
            let begin = region.as_ptr().align_offset(REGION_BYTES).min(REGION_BYTES);
            self.rest = begin..begin + size;
            self.regions.push(region);
        }
        let region = self.regions.last()?;
        let offset = self.rest.start.next_multiple_of(ALIGNMENT);
        self.rest.start = offset + bytes;
        let start = region.as_mut_ptr().wrapping_add(offset).cast::<Line>();
        debug_assert!(start.is_aligned() && offset + bytes <= region.len());
        NonNull::new(start).map(Start)
    }
}

impl PoolBlock {
    pub(crate) fn lines(&self) -> &[Line] {
        // SAFETY: the block has so many lines, initialised (zero, or what the owner before wrote) and mapped as long as the
        // pool lives, which `shared` keeps alive; only this block refers to them, and it is borrowed.
        unsafe { std::slice::from_raw_parts(self.start.0.as_ptr(), self.shared.lines) }
    }

    pub(crate) fn lines_mut(&mut self) -> &mut [Line] {
        // SAFETY: as above, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.0.as_ptr(), self.shared.lines) }
    }
}

impl Drop for PoolBlock {
    fn drop(&mut self) {
        let start = Start(self.start.0);
        self.shared.memory.lock().free.push(start);
    }
}

#[cfg(test)]
mod tests;
