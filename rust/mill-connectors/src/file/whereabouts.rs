//! Where a followed file is now.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, DirEntry, Metadata};
use std::os::unix::fs::DirEntryExt;
use std::path::{Path, PathBuf};

use super::stamp::{FileKey, Stamp};

/// Where a file is that was under a name.
#[derive(Debug)]
pub(super) enum Whereabouts {
    /// Under that name still.
    Here(Stamp),
    /// In the same directory under another name.
    Renamed(PathBuf, Stamp),
    /// In none of both.
    Gone,
}

/// Looks for a file under its name, then in its directory.
pub(super) fn look(path: &Path, key: FileKey) -> Whereabouts {
    match fs::metadata(path).ok().and_then(|metadata| stamp_if(&metadata, key)) {
        Some(stamp) => Whereabouts::Here(stamp),
        None => find(path, key).map_or(Whereabouts::Gone, |(path, stamp)| Whereabouts::Renamed(path, stamp)),
    }
}

/// Looks for a file in the directory of this path.
pub(super) fn find(path: &Path, key: FileKey) -> Option<(PathBuf, Stamp)> {
    let mut named = entries(path.parent().unwrap_or(Path::new(""))).filter(|entry| entry.ino() == key.inode);
    named.find_map(|entry| {
        let stamp = stamp_if(&entry.metadata().ok()?, key)?;
        Some((entry.path(), stamp))
    })
}

/// The names in the directory of this path.
pub(super) fn names(path: &Path) -> impl Iterator<Item = OsString> {
    entries(path.parent().unwrap_or(Path::new(""))).map(|entry| entry.file_name())
}

/// The numbers of the files in a directory.
pub(super) fn inodes(directory: &Path) -> HashSet<u64> {
    entries(directory).map(|entry| entry.ino()).collect()
}

fn entries(directory: &Path) -> impl Iterator<Item = DirEntry> {
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    fs::read_dir(directory).into_iter().flatten().filter_map(std::result::Result::ok)
}

fn stamp_if(metadata: &Metadata, key: FileKey) -> Option<Stamp> {
    let stamp = Stamp::of(metadata);
    (stamp.key == key).then_some(stamp)
}
