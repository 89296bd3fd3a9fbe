//! Where a reader is in a file, and what it knows of the file there.
//!
//! ```text
//!   version u8 = 2 | flags u8 (1 = at the end, 2 = the last record has no line end)
//!   offset u64 | known u64                   what the offset counts is the reader's to say: uncompressed bytes, or rows
//!   device u64 | inode u64 | born i64 | size u64 | changed i64         the file as it was then
//!   member on disk u64 | member in content u64                         0 in a file that is not compressed
//!   head, disk, tail: bytes u32 | xxh3 u64 each                        the fingerprints        all little endian
//! ```
//!
//! `head` covers the first bytes of the file as they are on disk, `tail` the bytes of content before the offset, and `disk`,
//! of a compressed file, the bytes on disk before the member (gzip) or frame (zstd) that the offset is in.

use mill_protocol::{Error, Result};
use xxhash_rust::xxh3::xxh3_64;

use super::stamp::{FileKey, Stamp};

/// How many bytes a fingerprint covers at most.
pub(crate) const PRINT_BYTES: usize = 4096;
/// The form of a position; another first byte is one this version cannot read.
const VERSION: u8 = 2;
const POSITION_BYTES: usize = 2 + 9 * 8 + 3 * 12;
const AT_END: u8 = 1;
const OPEN_RECORD: u8 = 2;

/// A fingerprint of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Print {
    pub(crate) bytes: u32,
    pub(crate) hash: u64,
}

impl Print {
    pub(crate) fn of(bytes: &[u8]) -> Print {
        assert!(bytes.len() <= PRINT_BYTES, "bytes={}", bytes.len());
        Print { bytes: bytes.len() as u32, hash: xxh3_64(bytes) }
    }
}

impl Default for Print {
    fn default() -> Print {
        Print::of(&[])
    }
}

/// Where a member of a compressed file begins, on disk and in the content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) disk: u64,
    pub(crate) content: u64,
}

/// Where a reader is in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FilePosition {
    pub(crate) offset: u64,
    /// How far the content is known to have gone, whether it was given or not.
    pub(crate) known: u64,
    /// Whether all that there was had been read.
    pub(crate) is_at_end: bool,
    /// Whether the last record that was read had no line end.
    pub(crate) has_open_record: bool,
    pub(crate) stamp: Stamp,
    pub(crate) member: Member,
    pub(crate) head: Print,
    pub(crate) disk: Print,
    pub(crate) tail: Print,
}

impl FilePosition {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(POSITION_BYTES);
        let flags = if self.is_at_end { AT_END } else { 0 } | if self.has_open_record { OPEN_RECORD } else { 0 };
        bytes.extend_from_slice(&[VERSION, flags]);
        let Stamp { key, size, changed } = self.stamp;
        let numbers = [
            self.offset,
            self.known,
            key.device,
            key.inode,
            key.born as u64,
            size,
            changed as u64,
            self.member.disk,
            self.member.content,
        ];
        for number in numbers {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        for print in [self.head, self.disk, self.tail] {
            bytes.extend_from_slice(&print.bytes.to_le_bytes());
            bytes.extend_from_slice(&print.hash.to_le_bytes());
        }
        bytes
    }

    pub(crate) fn decode(bytes: &[u8], split: &str) -> Result<FilePosition> {
        let unreadable = |what: &str| Error::checkpoint(format!("the position in {split:?} {what}"));
        let bytes: &[u8; POSITION_BYTES] =
            bytes.try_into().map_err(|_| unreadable("is not readable by this version of Millstream"))?;
        if bytes[0] != VERSION {
            return Err(unreadable("is not readable by this version of Millstream"));
        }
        let u64_at = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let number = |index: usize| u64_at(2 + 8 * index);
        let print = |index: usize| {
            let at = 2 + 9 * 8 + 12 * index;
            Print { bytes: u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i])), hash: u64_at(at + 4) }
        };
        let position = FilePosition {
            offset: number(0),
            known: number(1),
            is_at_end: bytes[1] & AT_END != 0,
            has_open_record: bytes[1] & OPEN_RECORD != 0,
            stamp: Stamp {
                key: FileKey { device: number(2), inode: number(3), born: number(4) as i64 },
                size: number(5),
                changed: number(6) as i64,
            },
            member: Member { disk: number(7), content: number(8) },
            head: print(0),
            disk: print(1),
            tail: print(2),
        };
        let prints = [position.head, position.disk, position.tail];
        let is_sound = prints.iter().all(|print| print.bytes as usize <= PRINT_BYTES)
            && position.member.content <= position.offset
            && u64::from(position.disk.bytes) <= position.member.disk;
        if is_sound { Ok(position) } else { Err(unreadable("is damaged")) }
    }
}
