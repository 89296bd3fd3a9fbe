//! Whether a file is still the one that a position was taken in.
//!
//! A file that is only appended to keeps its head, and what is before the position. Both are looked at, the latter because
//! most edits of a text move what follows them. An edit in place, of the same length and far from either, is not noticed.

use std::cell::Cell;
use std::path::{Path, PathBuf};

use mill_protocol::{Error, Result};

use super::input::Input;
use super::position::{FilePosition, PRINT_BYTES, Print};
use super::stamp::{Stamp, open_file};

/// An open file.
#[derive(Clone, Debug)]
pub(crate) struct FileIdentity {
    path: PathBuf,
    file: Input,
    /// The fingerprint of the head that was last taken.
    head: Cell<Print>,
}

/// What became of the file since a position was taken in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Since {
    /// What was read of it is as it was.
    Same,
    /// It has lost bytes.
    Shorter,
    /// Something else is where the position was taken.
    Other,
}

impl FileIdentity {
    pub(crate) fn open(path: &Path) -> Result<FileIdentity> {
        Ok(FileIdentity::new(path, open_file(path)?))
    }

    pub(crate) fn new(path: &Path, file: Input) -> FileIdentity {
        FileIdentity { path: path.to_owned(), file, head: Cell::default() }
    }

    /// The same file, whose head had this fingerprint.
    pub(crate) fn with_head(self, head: Print) -> FileIdentity {
        self.head.set(head);
        self
    }

    /// The open file.
    pub(crate) fn file(&self) -> &Input {
        &self.file
    }

    /// The same, shared.
    pub(crate) fn shared(&self) -> Input {
        self.file.clone()
    }

    pub(crate) fn stamp(&self) -> Result<Stamp> {
        self.file.stamp().map_err(|e| Error::connector(format!("cannot stat {:?}: {e}", self.path)).because(e))
    }

    pub(crate) fn size(&self) -> Result<u64> {
        Ok(self.stamp()?.size)
    }

    /// The fingerprint of the head, at most as far as `end`.
    pub(crate) fn head(&self, end: u64) -> Print {
        // An object is known by its tag.
        if self.is_object() {
            return Print::default();
        }
        let bytes = end.min(PRINT_BYTES as u64) as u32;
        if bytes != self.head.get().bytes {
            // A failed read results in a fingerprint that fails to verify; a resume then reports that rather than guess.
            self.head.set(self.print(0, bytes).unwrap_or(Print { bytes, hash: 0 }));
        }
        self.head.get()
    }

    /// The fingerprint of the head as it was last taken, whatever the file has now.
    pub(crate) fn known_head(&self) -> Print {
        self.head.get()
    }

    /// Whether the head is what its fingerprint was last taken of.
    pub(crate) fn has_same_head(&self) -> bool {
        let head = self.head.get();
        self.print(0, head.bytes) == Some(head)
    }

    fn is_object(&self) -> bool {
        matches!(self.file, Input::Object(_))
    }

    /// The fingerprint of these bytes on disk; `None` if they cannot be read.
    pub(crate) fn print(&self, start: u64, bytes: u32) -> Option<Print> {
        let mut found = vec![0; bytes as usize];
        self.file.read_exact_at(&mut found, start).ok()?;
        Some(Print::of(&found))
    }

    /// The position in a file that is written as a whole: its head and its end are what identifies it.
    pub(crate) fn whole_position(&self, offset: u64, known: u64) -> FilePosition {
        let stamp = self.stamp().unwrap_or_default();
        let bytes = if self.is_object() { 0 } else { stamp.size.min(PRINT_BYTES as u64) as u32 };
        FilePosition {
            offset,
            known,
            is_at_end: offset == known,
            stamp,
            head: self.head(stamp.size),
            tail: self.print(stamp.size - u64::from(bytes), bytes).unwrap_or(Print { bytes, hash: 0 }),
            ..FilePosition::default()
        }
    }

    /// Whether a file that is written as a whole is still the one of this position.
    pub(crate) fn whole_since(&self, position: &FilePosition) -> Result<Since> {
        let stamp = self.stamp()?;
        if stamp == position.stamp {
            return Ok(Since::Same);
        }
        if stamp.is_of_object() {
            return Ok(Since::Other);
        }
        let tail = position.tail.bytes;
        let is_same = stamp.size == position.stamp.size
            && self.print(0, position.head.bytes) == Some(position.head)
            && self.print(stamp.size.saturating_sub(u64::from(tail)), tail) == Some(position.tail);
        Ok(if is_same { Since::Same } else { Since::Other })
    }

    /// What became of a file of lines since this position. Of a compressed one the content is not looked at: that is done
    /// on the way to the position.
    pub(crate) fn since(&self, position: &FilePosition, is_compressed: bool) -> Result<Since> {
        let stamp = self.stamp()?;
        if stamp == position.stamp {
            return Ok(Since::Same);
        }
        if stamp.is_of_object() {
            return Ok(Since::Other);
        }
        let head = self.print(0, position.head.bytes);
        if head.is_some_and(|head| head != position.head) {
            return Ok(Since::Other);
        }
        let (print, end) =
            if is_compressed { (position.disk, position.member.disk) } else { (position.tail, position.offset) };
        if head.is_none() || stamp.size < end || is_compressed && stamp.size < position.stamp.size {
            return Ok(Since::Shorter);
        }
        let is_same = self.print(end - u64::from(print.bytes), print.bytes) == Some(print);
        Ok(if is_same { Since::Same } else { Since::Other })
    }
}

impl Since {
    /// The error for a file that a job must continue reading and that has changed.
    pub(crate) fn refused(self, path: &Path) -> Option<Error> {
        let what = match self {
            Since::Same => return None,
            Since::Shorter => "is shorter than when the checkpoint was taken",
            Since::Other => "is another file than when the checkpoint was taken, or was changed in what had been read of it",
        };
        Some(Error::connector(format!(
            "{path:?} {what}; put the former file back, or start with another checkpoint directory"
        )))
    }
}
