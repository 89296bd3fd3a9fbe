//! The one place where bytes are trusted.
//!
//! Invariants, on which every `unsafe` of this crate stands:
//!
//! - **A1** The bytes of a [`FrameBytes`] are aligned to 64, never change and never move while it lives.
//! - **A2** An [`Access`] exists only for bytes that this process has just written, or that passed rkyv's check: so all
//!   its relative pointers lie within the bytes, and no two overlap.
//! - **A3** A [`Trust::Whole`] is given only for the schema that a frame was encoded from, or for one that all its
//!   arrays were validated against.
//!
//! What is safe about a column still depends on its content (offsets that grow, text that is UTF-8, codes within their
//! dictionary). Arrow validates that for outside bytes, once; afterwards, and for our own, A3 lets it be skipped.

use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::ptr::NonNull;
use std::sync::Arc;

use arrow::array::{ArrayData, ArrayDataBuilder};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer};
use rkyv::rancor::{BoxedError, Error as RkyvError};
use rkyv::util::AlignedVec;

use super::format::{ALIGNMENT, ArchivedForm, Form, Slab};
use crate::FrameError;
use crate::block::SharedBytes;

/// Bytes that are aligned to 64 and stay where they are.
pub(crate) struct FrameBytes {
    start: NonNull<u8>,
    len: usize,
    /// Keeps the bytes alive.
    _owner: Owner,
}

enum Owner {
    Own { _bytes: AlignedVec<ALIGNMENT> },
    Shared { _bytes: SharedBytes },
}

// SAFETY: the bytes are only ever read (A1), and both owners may be shared and sent.
unsafe impl Send for FrameBytes {}
// SAFETY: as above.
unsafe impl Sync for FrameBytes {}

// Bytes that never change cannot be left half-changed by a panic.
impl UnwindSafe for FrameBytes {}
impl RefUnwindSafe for FrameBytes {}

impl FrameBytes {
    /// Takes over bytes, without a copy if they are aligned.
    pub fn new(bytes: SharedBytes) -> FrameBytes {
        if !(bytes.as_ptr() as usize).is_multiple_of(ALIGNMENT) {
            let mut aligned = AlignedVec::with_capacity(bytes.len());
            aligned.extend_from_slice(&bytes);
            return FrameBytes::from_aligned(aligned);
        }
        let slice: &[u8] = &bytes;
        let (start, len) = (NonNull::from(slice).cast(), slice.len());
        FrameBytes { start, len, _owner: Owner::Shared { _bytes: bytes } }
    }

    fn from_aligned(bytes: AlignedVec<ALIGNMENT>) -> FrameBytes {
        let (start, len) = (NonNull::from(bytes.as_slice()).cast(), bytes.len());
        FrameBytes { start, len, _owner: Owner::Own { _bytes: bytes } }
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: start and len were taken from a slice of the owner, which is kept alive here and gives its bytes out
        // for reading only (A1).
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl fmt::Debug for FrameBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FrameBytes({})", self.len)
    }
}

/// Bytes that are an archive.
#[derive(Clone, Debug)]
pub(crate) struct Access(Arc<FrameBytes>);

impl Access {
    /// Writes an archive. `bytes` is about how large it will be.
    pub fn write(form: &Form, bytes: usize) -> Result<Access, FrameError> {
        let writer = AlignedVec::<ALIGNMENT>::with_capacity(bytes);
        let written = rkyv::api::high::to_bytes_in::<_, RkyvError>(form, writer)
            .map_err(|error| FrameError::corrupt(format!("cannot be written: {error}")))?;
        Ok(Access(Arc::new(FrameBytes::from_aligned(written))))
    }

    /// Checks that bytes from outside are an archive: that every pointer in it stays within it.
    pub fn check(bytes: FrameBytes) -> Result<Access, FrameError> {
        rkyv::access::<ArchivedForm, BoxedError>(bytes.as_slice())
            .map_err(|error| FrameError::corrupt(format!("not an archive: {error}")))?;
        Ok(Access(Arc::new(bytes)))
    }

    /// The root of the archive.
    #[inline]
    pub fn form(&self) -> &ArchivedForm {
        // SAFETY: A2, and by A1 the bytes are still those that were written or checked.
        unsafe { rkyv::access_unchecked::<ArchivedForm>(self.0.as_slice()) }
    }

    /// All bytes of the archive.
    pub fn bytes(&self) -> &Arc<FrameBytes> {
        &self.0
    }

    /// A slab as an Arrow buffer that keeps the archive alive; no byte is copied.
    ///
    /// # Errors
    /// When the slab claims more bytes than it has.
    pub fn buffer(&self, slab: &<Slab as rkyv::Archive>::Archived) -> Result<Buffer, FrameError> {
        let blocks = slab.blocks();
        let all = size_of_val(blocks);
        let start = NonNull::from(blocks).cast::<u8>();
        let within = self.0.as_slice().as_ptr_range();
        // A slab is of this archive, which is what the proof below needs; asking costs nothing.
        let is_within = within.start <= start.as_ptr() && start.as_ptr().wrapping_add(all) <= within.end as *mut u8;
        if slab.len() > all || !is_within {
            return Err(FrameError::corrupt(format!("a slab of {all} bytes claims {}", slab.len())));
        }
        // SAFETY: start and len are within the bytes of the archive, which the owner given along keeps alive and
        // unchanged (A1).
        Ok(unsafe { Buffer::from_custom_allocation(start, slab.len(), self.0.clone()) })
    }
}

/// Whether the content of columns must be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// Nothing is known: Arrow validates everything.
    None,
    /// A3 holds: the content was made by this process, or was validated before.
    Whole,
}

impl Trust {
    /// Makes an array, validating it unless it is trusted.
    pub fn build(self, builder: ArrayDataBuilder) -> Result<ArrayData, FrameError> {
        match self {
            Trust::None => builder.build().map_err(|error| FrameError::corrupt(error.to_string())),
            // SAFETY: A3.
            Trust::Whole => Ok(unsafe { builder.build_unchecked() }),
        }
    }

    /// Makes a validity bitmap, counting its nulls unless the count is trusted.
    pub fn nulls(self, bits: BooleanBuffer, nulls: usize) -> Result<NullBuffer, FrameError> {
        match self {
            Trust::None => {
                let counted = NullBuffer::new(bits);
                if counted.null_count() != nulls {
                    let found = counted.null_count();
                    return Err(FrameError::corrupt(format!("a column claims {nulls} nulls and has {found}")));
                }
                Ok(counted)
            }
            // SAFETY: A3; the count was written with the bits, or was compared with them above.
            Trust::Whole => Ok(unsafe { NullBuffer::new_unchecked(bits, nulls) }),
        }
    }
}
