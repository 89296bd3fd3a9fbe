//! Looking keys up in one chunk: the innermost loops.
//!
//! Linear probing over rows of `row_words` words. What makes the unsafe reads sound, for every function here: `base`
//! points to `(mask + 1) * row_words` readable words, aligned to 8, `mask + 1` is a power of two, and `1 + key.len() <=
//! row_words`. At least one row is empty (the load is limited, and checked when rows come from a disk), so every search
//! ends.

use crate::key::{VIEW_INLINE, view_length};
use crate::layout::TAG_MATCH;

/// Where a search ended.
#[derive(Clone, Copy)]
pub(crate) struct Found {
    pub(crate) slot: u32,
    pub(crate) is_match: bool,
}

/// Asks the processor to fetch the row at which the search for this hash will start.
///
/// # Safety
/// - `base` and `mask` are as the module says.
#[inline(always)]
pub(crate) unsafe fn prefetch(base: *const u64, mask: u32, row_words: usize, hash: u64) {
    let slot = (hash as u32 & mask) as usize;
    // SAFETY: slot <= mask, so the row lies within the memory of the chunk.
    let row = unsafe { base.add(slot * row_words) };
    #[cfg(target_arch = "x86_64")]
    // SAFETY: prefetching has no effect that can be observed; any address will do.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(row.cast::<i8>());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = row;
}

/// Searches for a key of exactly one word.
///
/// # Safety
/// - `base`, `mask` and `row_words` are as the module says, with a key of one word.
#[inline(always)]
pub(crate) unsafe fn find_word(base: *const u64, mask: u32, row_words: usize, tag: u64, key: u64) -> Found {
    let mut slot = tag as u32 & mask;
    loop {
        // SAFETY: slot <= mask, so the row lies within the memory of the chunk.
        let row = unsafe { base.add(slot as usize * row_words) };
        // SAFETY: the first word of a row.
        let found = unsafe { *row };
        // SAFETY: a row has at least the tag and the key.
        if found & TAG_MATCH == tag && unsafe { *row.add(1) } == key {
            return Found { slot, is_match: true };
        }
        if found == 0 {
            return Found { slot, is_match: false };
        }
        slot = (slot + 1) & mask;
    }
}

/// Searches for a key of any number of words.
///
/// # Safety
/// - `base`, `mask` and `row_words` are as the module says.
#[inline(always)]
pub(crate) unsafe fn find_words(base: *const u64, mask: u32, row_words: usize, tag: u64, key: &[u64]) -> Found {
    let mut slot = tag as u32 & mask;
    loop {
        // SAFETY: slot <= mask, so the row lies within the memory of the chunk.
        let row = unsafe { base.add(slot as usize * row_words) };
        // SAFETY: the first word of a row.
        let found = unsafe { *row };
        if found & TAG_MATCH == tag {
            // SAFETY: the key's words follow the tag within the row.
            let words = unsafe { std::slice::from_raw_parts(row.add(1), key.len()) };
            if words == key {
                return Found { slot, is_match: true };
            }
        }
        if found == 0 {
            return Found { slot, is_match: false };
        }
        slot = (slot + 1) & mask;
    }
}

/// Searches for a key that is a view of `bytes`; long keys of the chunk lie in `arena`.
///
/// # Safety
/// - `base`, `mask` and `row_words` are as the module says, with a key of two words.
#[inline(always)]
pub(crate) unsafe fn find_view<'a>(
    base: *const u64,
    mask: u32,
    row_words: usize,
    tag: u64,
    view: &[u64],
    bytes: &[u8],
    arena: impl Fn() -> &'a [u8],
) -> Found {
    let length = view_length(view);
    let mut slot = tag as u32 & mask;
    loop {
        // SAFETY: slot <= mask, so the row lies within the memory of the chunk.
        let row = unsafe { base.add(slot as usize * row_words) };
        // SAFETY: the first word of a row.
        let found = unsafe { *row };
        // SAFETY: the two words of the view follow the tag within the row.
        if found & TAG_MATCH == tag && unsafe { *row.add(1) } == view[0] {
            // SAFETY: as above.
            let second = unsafe { *row.add(2) };
            let is_equal = if length <= VIEW_INLINE {
                second == view[1]
            } else {
                let (start, wanted) = (second as usize, view[1] as usize);
                arena().get(start..start.saturating_add(length)) == Some(&bytes[wanted..wanted + length])
            };
            if is_equal {
                return Found { slot, is_match: true };
            }
        }
        if found == 0 {
            return Found { slot, is_match: false };
        }
        slot = (slot + 1) & mask;
    }
}
