//! The bytes of a frame; drawn in `docs/format/frame.md`.
//!
//! ```text
//!   slab 0 │ slab 1 │ … │ nodes │ slab table │ root         relative pointers, so the place does not matter
//!   64-byte blocks          12 bytes each        ▲
//!                                                └ magic, version, schema, rows, times, pointers to nodes and slabs
//! ```
//!
//! A column is a tree of nodes, written parent first; a node says how many rows and nulls it has and how many slabs are
//! its own. A slab is one Arrow buffer, padded to blocks of 64 bytes and aligned to them, so that it can be read where
//! it lies. Slabs are written straight from the Arrow buffer, or straight through the gather of a partition, with one
//! copy either way.

use arrow::buffer::{Buffer, ScalarBuffer};
use arrow::datatypes::{ArrowNativeType, ToByteSlice, i256};
use rkyv::rancor::Fallible;
use rkyv::rend::u32_le;
use rkyv::ser::{Positional, Writer};
use rkyv::vec::{ArchivedVec, VecResolver};
use rkyv::{Archive, Place, Portable, Serialize, bytecheck::CheckBytes, munge::munge};

/// First bytes of the root.
pub(crate) const MAGIC: u32 = u32::from_le_bytes(*b"MSFR");
/// Version of the format.
pub(crate) const VERSION: u32 = 1;
/// Alignment of a frame and of each of its slabs.
pub(crate) const ALIGNMENT: usize = 64;
/// The most bytes a frame may have: half of what its relative pointers reach.
pub(crate) const BYTES_MAX: usize = 1 << 30;
/// The most rows a column or a list's elements may have.
pub(crate) const ROWS_MAX: usize = i32::MAX as usize;

/// The root has a slab of event times.
pub(crate) const HAS_TIMES: u32 = 1;
/// The root has a slab of watermarks that records were read behind.
pub(crate) const HAS_BEHIND: u32 = 2;
/// The root has a slab of delete marks.
pub(crate) const HAS_DELETES: u32 = 4;

/// What a frame is made of, ready to be written.
#[derive(Archive, Serialize)]
pub(crate) struct Form {
    pub magic: u32,
    pub version: u32,
    pub schema: u64,
    pub rows: u32,
    pub parts: u32,
    pub min_time: i64,
    pub max_time: i64,
    pub slabs: Vec<Slab>,
    pub nodes: Vec<Node>,
}

/// One array of the tree that a column is.
#[derive(Archive, Serialize, Clone, Copy, Debug)]
pub(crate) struct Node {
    pub rows: u32,
    pub nulls: u32,
    pub slabs: u32,
}

/// Where the bytes of a slab come from.
pub(crate) enum Slab {
    /// A buffer as it is.
    Whole(Buffer),
    /// Values of one width, those of the given rows.
    Gathered { values: Buffer, width: Width, rows: ScalarBuffer<u32> },
    /// Texts, those of the given rows, one after the other.
    Texts { values: Buffer, offsets: Offsets, rows: ScalarBuffer<u32>, bytes: usize },
}

/// How wide the values of a gathered slab are, in bytes.
#[derive(Clone, Copy)]
pub(crate) enum Width {
    W1,
    W2,
    W4,
    W8,
    W16,
    W32,
}

/// Offsets of texts.
pub(crate) enum Offsets {
    Small(ScalarBuffer<i32>),
    Large(ScalarBuffer<i64>),
}

/// 64 bytes.
#[derive(Portable, CheckBytes)]
#[bytecheck(crate = rkyv::bytecheck)]
#[rkyv(crate = rkyv)]
#[repr(C, align(64))]
pub(crate) struct Block([u8; ALIGNMENT]);

/// A slab in the archive.
#[derive(Portable, CheckBytes)]
#[bytecheck(crate = rkyv::bytecheck)]
#[rkyv(crate = rkyv)]
#[repr(C)]
pub(crate) struct ArchivedSlab {
    blocks: ArchivedVec<Block>,
    bytes: u32_le,
}

impl ArchivedSlab {
    /// The blocks, of which the first [`len`](ArchivedSlab::len) bytes count.
    pub fn blocks(&self) -> &[Block] {
        self.blocks.as_slice()
    }

    /// How many bytes of the blocks count.
    pub fn len(&self) -> usize {
        self.bytes.to_native() as usize
    }
}

impl Width {
    pub fn of(bytes: usize) -> Option<Width> {
        Some(match bytes {
            1 => Width::W1,
            2 => Width::W2,
            4 => Width::W4,
            8 => Width::W8,
            16 => Width::W16,
            32 => Width::W32,
            _ => return None,
        })
    }

    fn bytes(self) -> usize {
        1 << self as usize
    }
}

impl Slab {
    /// How many bytes the slab has, without padding.
    pub fn len(&self) -> usize {
        match self {
            Slab::Whole(buffer) => buffer.len(),
            Slab::Gathered { width, rows, .. } => rows.len() * width.bytes(),
            Slab::Texts { bytes, .. } => *bytes,
        }
    }

    fn write<E>(&self, write: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let mut write = write;
        match self {
            Slab::Whole(buffer) => write(buffer.as_slice()),
            Slab::Gathered { values, width, rows } => match width {
                Width::W1 => gather::<u8, E>(values.typed_data(), rows, write),
                Width::W2 => gather::<u16, E>(values.typed_data(), rows, write),
                Width::W4 => gather::<u32, E>(values.typed_data(), rows, write),
                Width::W8 => gather::<u64, E>(values.typed_data(), rows, write),
                Width::W16 => gather::<i128, E>(values.typed_data(), rows, write),
                Width::W32 => gather::<i256, E>(values.typed_data(), rows, write),
            },
            Slab::Texts { values, offsets: Offsets::Small(offsets), rows, .. } => {
                gather_texts(values, offsets, rows, write)
            }
            Slab::Texts { values, offsets: Offsets::Large(offsets), rows, .. } => {
                gather_texts(values, offsets, rows, write)
            }
        }
    }
}

/// How many bytes are collected before they are given to the writer: small enough to stay in the first cache.
const STAGE_BYTES: usize = 4096;
/// Texts of up to this many bytes are copied as if they had as many.
const SHORT: usize = 16;

fn gather<T: ArrowNativeType, E>(
    values: &[T],
    rows: &[u32],
    mut write: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut stage = [T::default(); STAGE_BYTES / 32];
    for rows in rows.chunks(stage.len()) {
        for (slot, &row) in stage.iter_mut().zip(rows) {
            *slot = values[row as usize];
        }
        write(stage[..rows.len()].to_byte_slice())?;
    }
    Ok(())
}

fn gather_texts<O: ArrowNativeType, E>(
    values: &[u8],
    offsets: &[O],
    rows: &[u32],
    mut write: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut stage = [0; STAGE_BYTES + SHORT];
    let mut filled = 0;
    for &row in rows {
        let (start, end) = (offsets[row as usize].as_usize(), offsets[row as usize + 1].as_usize());
        let bytes = end - start;
        if bytes > STAGE_BYTES - filled {
            write(&stage[..filled])?;
            filled = 0;
            if bytes > STAGE_BYTES {
                write(&values[start..end])?;
                continue;
            }
        }
        match values.get(start..start + SHORT) {
            // Short texts are copied with what follows them, which the next one overwrites: a copy of fixed size is a
            // pair of moves where one of any size is a call.
            Some(short) if bytes <= SHORT => stage[filled..filled + SHORT].copy_from_slice(short),
            _ => stage[filled..filled + bytes].copy_from_slice(&values[start..end]),
        }
        filled += bytes;
    }
    write(&stage[..filled])
}

impl Archive for Slab {
    type Archived = ArchivedSlab;
    type Resolver = VecResolver;

    fn resolve(&self, resolver: VecResolver, out: Place<ArchivedSlab>) {
        munge!(let ArchivedSlab { blocks, bytes } = out);
        ArchivedVec::resolve_from_len(self.len().div_ceil(ALIGNMENT), resolver, blocks);
        // The limit of a frame's size has been checked before.
        bytes.write(u32_le::from_native(self.len() as u32));
    }
}

impl<S: Fallible + Writer + Positional + ?Sized> Serialize<S> for Slab {
    fn serialize(&self, serializer: &mut S) -> Result<VecResolver, S::Error> {
        pad(serializer)?;
        let position = serializer.pos();
        self.write(|bytes| serializer.write(bytes))?;
        debug_assert_eq!(serializer.pos() - position, self.len());
        pad(serializer)?;
        Ok(VecResolver::from_pos(position))
    }
}

fn pad<S: Fallible + Writer + Positional + ?Sized>(serializer: &mut S) -> Result<(), S::Error> {
    let filled = serializer.pos() % ALIGNMENT;
    if filled > 0 {
        serializer.write(&[0; ALIGNMENT][filled..])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
