//! Zeroed memory aligned to 64 bytes, for data that is laid out before it is written to a file.
//!
//! Invariant: `lines` holds at least `bytes` bytes, all of them initialised; a [`Line`] is 64 plain bytes without
//! padding, so any slice of lines may be seen as a slice of bytes.

use std::ops::{Deref, DerefMut};

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// A fixed number of bytes, aligned to 64 and zero at first.
#[derive(Clone)]
pub(crate) struct AlignedBytes {
    lines: Vec<Line>,
    bytes: usize,
}

impl AlignedBytes {
    pub(crate) fn zeroed(bytes: usize) -> AlignedBytes {
        AlignedBytes { lines: vec![Line([0; 64]); bytes.div_ceil(64)], bytes }
    }

    pub(crate) fn copy_of(bytes: &[u8]) -> AlignedBytes {
        let mut copy = AlignedBytes::zeroed(bytes.len());
        copy.copy_from_slice(bytes);
        copy
    }
}

impl Deref for AlignedBytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: the lines are initialised bytes without padding, at least `bytes` of them (module invariant).
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.bytes) }
    }
}

impl DerefMut for AlignedBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; the exclusive borrow of `self` makes this the only view.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.bytes) }
    }
}

impl AsRef<[u8]> for AlignedBytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}
