//! Looking keys up in one chunk: the innermost loops.
//!
//! Open addressing. The rows of one cache line, but at least two, are a line of the probe: a search starts at the row that
//! the low bits of the hash name, goes through the other rows of its line, and then through line after line, in each in an
//! order of its own. So most searches touch one cache line, and almost all end within the first line.
//!
//! ```text
//!   lines of 2 rows, start 5:   5 4 | 7 6 | 9 8 | …          start 4:   4 5 | 6 7 | 8 9 | …
//! ```
//!
//! What makes the unsafe reads sound, for every function here: `base` points to `(mask + 1) * row_words` readable words,
//! aligned to 8, `mask + 1` is a power of two not below the rows of a line, and `1 + key.len() <= row_words`. At least one
//! row is empty (the load is limited, and checked when rows come from a disk), so every search ends.

use crate::key::{VIEW_INLINE, view_length};
use crate::layout::TAG_MATCH;

/// The rows of a chunk, for searching.
#[derive(Clone, Copy)]
pub(crate) struct Probe {
    pub(crate) base: *mut u64,
    pub(crate) mask: u32,
    pub(crate) row_words: usize,
    /// The rows of a line, less one.
    pub(crate) line: u32,
}

/// The rows of a line, less one: as many as a cache line holds, a power of two, and at least two.
#[inline(always)]
pub(crate) const fn line_mask(row_words: usize) -> u32 {
    if row_words <= 2 { 3 } else { 1 }
}

/// The row to look at after `step` others, for a search that starts at `start`.
#[inline(always)]
pub(crate) fn step_from(start: u32, step: u32, line: u32, mask: u32) -> u32 {
    (((start & !line) + (step & !line)) & mask) | ((start ^ step) & line)
}

/// Where a search ended.
#[derive(Clone, Copy)]
pub(crate) struct Found {
    pub(crate) slot: u32,
    pub(crate) is_match: bool,
}

/// Asks the processor to fetch what is at this address. Any address will do.
#[inline(always)]
pub(crate) fn prefetch<T>(address: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: prefetching has no effect that can be observed, whatever the address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address.cast::<i8>());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

impl Probe {
    /// Goes through the rows until one is empty or matches.
    ///
    /// # Safety
    /// - The fields are as the module says.
    #[inline(always)]
    unsafe fn search(self, tag: u64, is_match: impl Fn(*const u64) -> bool) -> Found {
        let start = tag as u32 & self.mask;
        let mut step = 0;
        let mut slot = start;
        loop {
            // SAFETY: slot <= mask, so the row is within the memory of the chunk.
            let row = unsafe { self.base.add(slot as usize * self.row_words) };
            // SAFETY: the first word of a row.
            let found = unsafe { *row };
            if found & TAG_MATCH == tag && is_match(row) {
                return Found { slot, is_match: true };
            }
            if found == 0 {
                return Found { slot, is_match: false };
            }
            step += 1;
            slot = step_from(start, step, self.line, self.mask);
        }
    }

    /// The first empty row that a search for this tag meets.
    ///
    /// # Safety
    /// - The fields are as the module says.
    #[inline(always)]
    pub(crate) unsafe fn empty_row(self, tag: u64) -> *mut u64 {
        let start = tag as u32 & self.mask;
        let mut step = 0;
        loop {
            let slot = step_from(start, step, self.line, self.mask);
            // SAFETY: slot <= mask, so the row is within the memory of the chunk.
            let row = unsafe { self.base.add(slot as usize * self.row_words) };
            // SAFETY: the first word of a row.
            if unsafe { *row } == 0 {
                return row;
            }
            step += 1;
        }
    }

    /// Searches for a key of exactly one word.
    ///
    /// # Safety
    /// - The fields are as the module says, with a key of one word.
    #[inline(always)]
    pub(crate) unsafe fn find_word(self, tag: u64, key: u64) -> Found {
        // SAFETY: passed on from the caller; the second word of a row is its key.
        unsafe { self.search(tag, |row| *row.add(1) == key) }
    }

    /// Searches for a key of any number of words.
    ///
    /// # Safety
    /// - The fields are as the module says.
    #[inline(always)]
    pub(crate) unsafe fn find_words(self, tag: u64, key: &[u64]) -> Found {
        // SAFETY: passed on from the caller; the key's words follow the tag within a row.
        unsafe { self.search(tag, |row| has_key(row, key)) }
    }

    /// Searches for a key that is a view of `bytes`; long keys of the chunk are in `arena`.
    ///
    /// # Safety
    /// - The fields are as the module says, with a key of two words.
    #[inline(always)]
    pub(crate) unsafe fn find_view<'a>(
        self,
        tag: u64,
        view: &[u64],
        bytes: &[u8],
        arena: impl Fn() -> &'a [u8],
    ) -> Found {
        let length = view_length(view);
        let is_match = |row: *const u64| {
            // SAFETY: the two words of the view follow the tag within a row.
            let (first, second) = unsafe { (*row.add(1), *row.add(2)) };
            if first != view[0] || length <= VIEW_INLINE {
                return first == view[0] && second == view[1];
            }
            let (start, wanted) = (second as usize, view[1] as usize);
            arena().get(start..start.saturating_add(length)) == Some(&bytes[wanted..wanted + length])
        };
        // SAFETY: passed on from the caller.
        unsafe { self.search(tag, is_match) }
    }
}

/// Whether the words after the tag of a row are those of a key. A loop, since keys have few words and a call of `memcmp` costs more.
///
/// # Safety
/// - The row has as many words after its tag as the key.
#[inline(always)]
pub(crate) unsafe fn has_key(row: *const u64, key: &[u64]) -> bool {
    // SAFETY: passed on from the caller.
    key.iter().enumerate().fold(0, |differing, (at, &word)| differing | (unsafe { *row.add(1 + at) } ^ word)) == 0
}
