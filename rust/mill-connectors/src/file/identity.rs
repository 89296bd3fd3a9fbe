//! Whether a file is still the one that a position was taken in.

use std::cell::Cell;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use mill_protocol::{Error, Result};
use xxhash_rust::xxh3::xxh3_64;

use super::content::{Compression, open_file};

/// How many bytes of a file's head its fingerprint covers.
const HEAD_BYTES: u64 = 4096;
/// The form of a position; another first byte is one this version cannot read.
const POSITION_VERSION: u8 = 1;
const POSITION_BYTES: usize = 1 + 8 + 4 + 8;

/// Where a reader stands in a file.
///
/// ```text
///   version u8 | offset u64 | head bytes u32 | xxh3 of the head u64      little endian
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FilePosition {
    /// What it counts is the reader's to say: uncompressed bytes, or rows.
    pub(crate) offset: u64,
    head_bytes: u32,
    head_hash: u64,
}

impl FilePosition {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(POSITION_BYTES);
        bytes.push(POSITION_VERSION);
        bytes.extend_from_slice(&self.offset.to_le_bytes());
        bytes.extend_from_slice(&self.head_bytes.to_le_bytes());
        bytes.extend_from_slice(&self.head_hash.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8], split: &str) -> Result<FilePosition> {
        let unreadable = || Error::checkpoint(format!("the position in {split:?} is not readable by this version"));
        let bytes: &[u8; POSITION_BYTES] = bytes.try_into().map_err(|_| unreadable())?;
        if bytes[0] != POSITION_VERSION {
            return Err(unreadable());
        }
        let u64_at = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let head_bytes = u32::from_le_bytes(std::array::from_fn(|i| bytes[9 + i]));
        Ok(FilePosition { offset: u64_at(1), head_bytes, head_hash: u64_at(13) })
    }
}

/// Which part of a file its fingerprint covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// The head, as far as it was read: the file may grow.
    HeadRead,
    /// The head as it is: a compressed file.
    Head,
    /// The tail, where a Parquet file says where everything is.
    Tail,
}

/// A file as it was when it was opened.
pub(crate) struct FileIdentity {
    path: PathBuf,
    file: File,
    part: Part,
    /// The fingerprint last taken: bytes and hash.
    taken: Cell<(u32, u64)>,
}

impl FileIdentity {
    /// A file of records a line, compressed if its name says so.
    pub(crate) fn open(path: &Path) -> Result<FileIdentity> {
        let is_plain = Compression::of(path) == Compression::None;
        FileIdentity::open_by(path, if is_plain { Part::HeadRead } else { Part::Head })
    }

    /// A file that is written as a whole and says at its end what is in it.
    pub(crate) fn open_whole(path: &Path) -> Result<FileIdentity> {
        FileIdentity::open_by(path, Part::Tail)
    }

    fn open_by(path: &Path, part: Part) -> Result<FileIdentity> {
        let file = open_file(path)?;
        Ok(FileIdentity { path: path.to_owned(), file, part, taken: Cell::new((0, xxh3_64(&[]))) })
    }

    /// The open file.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    pub(crate) fn size(&self) -> Result<u64> {
        let metadata = self.file.metadata();
        Ok(metadata.map_err(|e| Error::connector(format!("cannot stat {:?}: {e}", self.path)).because(e))?.len())
    }

    /// Reads at a place, filling `out`; fails if the file ends before.
    pub(crate) fn read_at(&self, out: &mut [u8], offset: u64) -> Result<()> {
        self.file
            .read_exact_at(out, offset)
            .map_err(|e| Error::connector(format!("cannot read {:?}: {e}", self.path)).because(e))
    }

    /// The position at this offset. Of a plain file, which may grow, the fingerprint covers only what lies before it.
    pub(crate) fn position(&self, offset: u64) -> FilePosition {
        let size = self.file.metadata().map_or(0, |metadata| metadata.len());
        let bytes = if self.part == Part::HeadRead { offset.min(size) } else { size }.min(HEAD_BYTES) as u32;
        if bytes != self.taken.get().0 {
            let mut head = vec![0; bytes as usize];
            // A failed read gives a fingerprint that fails to verify; a resume then says so rather than guess.
            let hash = self.file.read_exact_at(&mut head, self.start(size, bytes)).map_or(0, |()| xxh3_64(&head));
            self.taken.set((bytes, hash));
        }
        let (head_bytes, head_hash) = self.taken.get();
        FilePosition { offset, head_bytes, head_hash }
    }

    /// Where the fingerprint of a file of this size begins.
    fn start(&self, size: u64, bytes: u32) -> u64 {
        if self.part == Part::Tail { size.saturating_sub(u64::from(bytes)) } else { 0 }
    }

    /// Checks that the file is still the one this position was taken in.
    pub(crate) fn verify(&self, position: &FilePosition) -> Result<()> {
        let size = self.size()?;
        let is_shorter = size < u64::from(position.head_bytes) || self.part == Part::HeadRead && size < position.offset;
        if is_shorter {
            return Err(shorter(&self.path));
        }
        if u64::from(position.head_bytes) > HEAD_BYTES {
            return Err(Error::checkpoint(format!("the position in {:?} is damaged", self.path)));
        }
        let mut head = vec![0; position.head_bytes as usize];
        self.read_at(&mut head, self.start(size, position.head_bytes))?;
        if xxh3_64(&head) != position.head_hash {
            return Err(Error::connector(format!(
                "{:?} is another file than when the checkpoint was taken; put the former file back, \
                 or start with another checkpoint directory",
                self.path
            )));
        }
        Ok(())
    }

    /// Checks, while following, that the path still leads to this file and that nothing was cut off.
    pub(crate) fn verify_followed(&self, offset: u64) -> Result<()> {
        let path = &self.path;
        let found = std::fs::metadata(path).map_err(|e| {
            Error::connector(format!(
                "{path:?} was deleted while it was followed; delete files only when no job follows them: {e}"
            ))
        })?;
        let held = self.file.metadata().map_err(|e| Error::connector(format!("cannot stat {path:?}: {e}")))?;
        if (found.dev(), found.ino()) != (held.dev(), held.ino()) {
            return Err(Error::connector(format!(
                "{path:?} was replaced by another file while it was followed; give new data a new name"
            )));
        }
        if held.len() < offset {
            return Err(Error::connector(format!(
                "{path:?} was truncated while it was followed: {} bytes, {offset} were read; give new data a new name",
                held.len()
            )));
        }
        Ok(())
    }
}

/// The error for a file that lost bytes since the checkpoint.
pub(crate) fn shorter(path: &Path) -> Error {
    Error::connector(format!(
        "{path:?} is shorter than when the checkpoint was taken; put the former file back, or start with another \
         checkpoint directory"
    ))
}
