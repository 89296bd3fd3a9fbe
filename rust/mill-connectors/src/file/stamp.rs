//! What the file system says of a file: which one it is, how large, and when it was written to.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::UNIX_EPOCH;

use mill_protocol::{Error, Result};
use xxhash_rust::xxh3::xxh3_64;

use super::input::{Input, try_open};
use super::path::missing;
use crate::object::Meta;

/// Which file it is, whatever its name. A number that the file system gives to a new file once the old one is gone is told
/// apart by the time of birth, where the file system notes that (else it is 0).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct FileKey {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) born: i64,
}

/// A file at some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) key: FileKey,
    pub(crate) size: u64,
    /// When it was last written to, in nanoseconds.
    pub(crate) changed: i64,
}

/// The device of objects: no file system has this number.
const OBJECTS: u64 = u64::MAX;

impl Stamp {
    pub(crate) fn of(metadata: &Metadata) -> Stamp {
        let since_epoch = |time: std::time::SystemTime| time.duration_since(UNIX_EPOCH).ok().map(|since| since.as_nanos() as i64);
        let born = metadata.created().ok().and_then(since_epoch).unwrap_or(0);
        Stamp {
            key: FileKey { device: metadata.dev(), inode: metadata.ino(), born },
            size: metadata.size(),
            changed: metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec()),
        }
    }

    /// An object: its place is which one it is, its tag what stands for the time.
    pub(crate) fn of_object(path: &Path, meta: &Meta) -> Stamp {
        let inode = xxh3_64(path.as_os_str().as_bytes());
        Stamp { key: FileKey { device: OBJECTS, inode, born: 0 }, size: meta.size, changed: meta.mark as i64 }
    }

    /// The same, where another version of an object is another file.
    pub(crate) fn of_version(self) -> Stamp {
        Stamp { key: FileKey { born: self.changed, ..self.key }, ..self }
    }

    /// Whether it is an object: it is the same only if its tag is.
    pub(crate) fn is_of_object(&self) -> bool {
        self.key.device == OBJECTS
    }
}

/// Opens a file for reading. What is not a regular file is refused: a pipe, for one, would be waited for without end, and
/// could not be read again after a restart.
pub(crate) fn open_file(path: &Path) -> Result<Input> {
    try_open(path).map_err(|e| if e.kind() == io::ErrorKind::NotFound { missing(path) } else { open_failed(path, e) })
}

/// The error for a file that is there and cannot be opened.
pub(crate) fn open_failed(path: &Path, e: io::Error) -> Error {
    match e.kind() {
        io::ErrorKind::InvalidInput => Error::connector(e.to_string()),
        _ => Error::connector(format!("cannot open {path:?}: {e}")).because(e),
    }
}

/// Opens a file of this machine, for callers who look at the reason.
pub(super) fn open_here(path: &Path) -> io::Result<File> {
    let check = |metadata: &Metadata| match kind_if_irregular(metadata) {
        None => Ok(()),
        Some(kind) => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{path:?} is {kind}, not a file; only files can be read again after a restart: write it to one first"),
        )),
    };
    check(&std::fs::metadata(path)?)?;
    // It may have been replaced since: opening a pipe must not wait either.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    check(&file.metadata()?)?;
    Ok(file)
}

/// What it is if it is not a regular file.
pub(crate) fn kind_if_irregular(metadata: &Metadata) -> Option<&'static str> {
    let kind = metadata.file_type();
    if kind.is_file() {
        None
    } else if kind.is_dir() {
        Some("a directory")
    } else if kind.is_fifo() {
        Some("a named pipe")
    } else if kind.is_socket() {
        Some("a socket")
    } else {
        Some("a device")
    }
}
