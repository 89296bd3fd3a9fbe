//! The disk as the store sees it: few operations, all of which a test can break.
//!
//! Everything is written through [`MappedFile`]: a file whose space is allocated before it is mapped, so that a full
//! disk is an error of [`Disk::create`] and never a signal in the middle of a copy. A checkpoint's files are written
//! once and never opened for writing again, so they may be mapped for reading; only the marks (`MILLSTREAM`, `lock`) and the
//! positions are changed in place, and are read into memory instead.
//!
//! A name in a state directory may have been made by somebody else. No call follows a link there, waits for a pipe, or
//! opens anything but a regular file.

use std::fmt;
use std::io;
use std::path::Path;

use mill_frame::block::SharedBytes;

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// The name, without the directory.
    pub name: String,
    /// The size in bytes.
    pub bytes: u64,
}

/// A file that is mapped for writing.
pub trait MappedFile: Send {
    /// The bytes of the file; those of a new file are zero. Aligned to 64.
    fn bytes(&mut self) -> &mut [u8];

    /// Makes what was written durable.
    ///
    /// # Errors
    /// After a failure nothing is known of the bytes on disk, and a second call would wrongly succeed: give the file up.
    fn sync(&mut self) -> io::Result<()>;

    /// Makes what was written durable and lets go of the file, for one that is written once.
    ///
    /// # Errors
    /// As of [`sync`](MappedFile::sync).
    fn finish(self: Box<Self>) -> io::Result<()>;
}

/// A lock that is held until it is dropped or the process ends, however it ends.
pub trait Held: Send + Sync + fmt::Debug {}

/// What the store needs of a file system.
pub trait Disk: Send + Sync + fmt::Debug {
    /// Creates a directory and its parents, durably; one that is there already is fine. Returns whether it was made.
    fn create_dir(&self, path: &Path) -> io::Result<bool>;

    /// Removes an empty directory.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;

    /// The files in a directory, in no particular order.
    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>>;

    /// Creates a file of this size, all of it allocated, and maps it. Fails if the name is taken.
    fn create(&self, path: &Path, bytes: u64) -> io::Result<Box<dyn MappedFile>>;

    /// Maps an existing file for changes in place.
    fn open(&self, path: &Path) -> io::Result<Box<dyn MappedFile>>;

    /// Reads an existing file of at most this size, which somebody may be writing to.
    fn read(&self, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>>;

    /// Maps an existing file that nobody writes to; bytes that cannot be read from the medium are an error here, not later.
    fn map(&self, path: &Path) -> io::Result<SharedBytes>;

    /// Renames a file, replacing the one that has that name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Locks a file, which is created and grown to this size if need be; `None` if somebody else holds it.
    fn lock(&self, path: &Path, bytes: u64) -> io::Result<Option<Box<dyn Held>>>;

    /// How many bytes can still be written.
    fn free_space(&self, dir: &Path) -> io::Result<u64>;

    /// A number that no other state directory has.
    fn unique(&self) -> u64;
}
