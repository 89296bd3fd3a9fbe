//! Segments: the write-once files that hold blocks. `docs/format/segment.md` draws them byte by byte.
//!
//! ```text
//! header 64 │ names, padded │ block header 64 or 32 │ payload, padded │ block header │ payload │ … │ footer 64
//! ```
//!
//! Invariants:
//! * every byte of the file is covered by a checksum, padding included;
//! * header and payload of a block that is used where it is mapped start at a multiple of 64; those of a short block (see
//!   `block`), which is applied to another or says that something is gone, at a multiple of 8;
//! * blocks tile the file without a gap, so that a length that is wrong cannot go unnoticed;
//! * the `digest` over all block checksums is in the manifest as well, so that a segment with the right name but of
//!   another checkpoint is noticed.
//!
//! There is no index at the end: the headers are their own index, and recovery reads every byte anyway.

mod block;
mod names;
mod read;
mod write;

pub(crate) use block::BlockHeader;
pub(crate) use names::{Names, NamesUsed};
pub(crate) use read::{Segment, StoredBlock};
pub(crate) use write::{Body, Item, Layout, Mapped, Part, Place, lay_out_part, write_segment};

use std::ops::Range;

use mill_frame::hash::groups_of_task;
use serde::{Deserialize, Serialize};

/// The version of the format of segments that this program writes, and the only one that it reads.
pub const SEGMENT_VERSION: u32 = 3;
/// The largest payload of one block.
pub const BLOCK_BYTES_MAX: u64 = 1 << 40;

pub(crate) const HEADER_BYTES: usize = 64;
pub(crate) const ALIGNMENT: usize = 64;
const SEGMENT_MAGIC: &[u8; 8] = b"MILLSEG\0";
const FOOTER_MAGIC: &[u8; 8] = b"MILLEND\0";

/// Names one parallel instance of a chain.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId {
    /// The chain.
    pub chain: String,
    /// Which of the parallel instances.
    pub index: u32,
    /// How many parallel instances there are; decides, with the index, the key groups the task owns.
    pub parallelism: u32,
}

impl TaskId {
    /// The key groups that the task owns.
    pub fn groups(&self) -> Range<u16> {
        groups_of_task(self.index as usize, self.parallelism as usize)
    }
}

/// A segment as a manifest refers to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentRef {
    /// The name of the file within the directory.
    pub file: String,
    /// The checkpoint it was written for; of a merged segment, the newest of those.
    pub epoch: u64,
    /// The exact size of the file.
    pub bytes: u64,
    /// How many of these bytes are keyed state, which later checkpoints build on.
    pub keyed_bytes: u64,
    /// How many blocks it has.
    pub blocks: u64,
    /// A checksum over the checksums of all blocks.
    pub digest: u32,
    /// Whether its checkpoint was full, so that nothing older counts.
    pub is_full: bool,
}

/// What a block holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Class {
    /// Keyed state; the address and the kind mean what `mill_frame::block` says.
    Keyed = 1,
    /// The state without key of one operator instance.
    Bytes = 2,
    /// What a sink needs to commit; `namespace` is the epoch it belongs to.
    Handle = 3,
}

/// The first 64 bytes of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub names_bytes: u32,
    pub names_crc: u32,
    pub epoch: u64,
    pub file_bytes: u64,
    pub blocks: u64,
    pub state: u64,
}

impl Header {
    fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        put(&mut out, 0, SEGMENT_MAGIC);
        put(&mut out, 8, &SEGMENT_VERSION.to_le_bytes());
        put(&mut out, 12, &self.names_bytes.to_le_bytes());
        put(&mut out, 16, &self.epoch.to_le_bytes());
        put(&mut out, 24, &self.file_bytes.to_le_bytes());
        put(&mut out, 32, &self.blocks.to_le_bytes());
        put(&mut out, 40, &self.state.to_le_bytes());
        put(&mut out, 48, &self.names_crc.to_le_bytes());
        seal(&mut out);
        out
    }
}

/// The last 64 bytes of the file.
fn encode_footer(header: &Header, digest: u32) -> [u8; HEADER_BYTES] {
    let mut out = [0; HEADER_BYTES];
    put(&mut out, 0, FOOTER_MAGIC);
    put(&mut out, 8, &header.blocks.to_le_bytes());
    put(&mut out, 16, &header.file_bytes.to_le_bytes());
    put(&mut out, 24, &header.epoch.to_le_bytes());
    put(&mut out, 32, &digest.to_le_bytes());
    seal(&mut out);
    out
}

/// Puts a checksum over the first 60 bytes into the last 4.
pub(crate) fn seal(raw: &mut [u8; HEADER_BYTES]) {
    let crc = crc32c::crc32c(&raw[..60]);
    put(raw, 60, &crc.to_le_bytes());
}

pub(crate) fn is_sealed(raw: &[u8; HEADER_BYTES]) -> bool {
    crc32c::crc32c(&raw[..60]) == u32_at(raw, 60)
}

pub(crate) fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    out[at..at + bytes.len()].copy_from_slice(bytes);
}

pub(crate) fn u16_at(raw: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([raw[at], raw[at + 1]])
}

pub(crate) fn u32_at(raw: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]])
}

pub(crate) fn u64_at(raw: &[u8], at: usize) -> u64 {
    u64::from(u32_at(raw, at)) | u64::from(u32_at(raw, at + 4)) << 32
}

/// A length rounded up to the alignment.
pub(crate) fn aligned(bytes: usize) -> usize {
    bytes.next_multiple_of(ALIGNMENT)
}

#[cfg(test)]
mod tests;
