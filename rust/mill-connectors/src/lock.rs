//! Locks that go with the process: on a directory, or on a file of their own.
//!
//! The kernel releases a lock when the last descriptor of it is closed. A process that was forked from this one has such a
//! descriptor, too, so closing ours would not be enough: a lock is released explicitly when it is dropped, whoever else
//! still has the file open.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// How often the file of a lock may be replaced while it is being taken.
const ATTEMPTS_MAX: usize = 100;

/// A lock that is held until it is dropped or the process ends.
#[derive(Debug)]
pub(crate) struct FileLock {
    file: File,
    /// The file to remove with the lock, if it was made for it.
    path: Option<PathBuf>,
}

impl FileLock {
    /// Locks a directory; `None` if somebody else has.
    pub(crate) fn of_directory(directory: &Path) -> io::Result<Option<FileLock>> {
        let file = File::open(directory)?;
        match file.try_lock() {
            // A filesystem without locks can only be trusted.
            Ok(()) | Err(TryLockError::Error(_)) => Ok(Some(FileLock { file, path: None })),
            Err(TryLockError::WouldBlock) => Ok(None),
        }
    }

    /// Makes an empty file and locks it; `None` if somebody else has. The file goes with the lock.
    pub(crate) fn of_file(path: &Path) -> io::Result<Option<FileLock>> {
        for _ in 0..ATTEMPTS_MAX {
            let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
            if let Err(TryLockError::WouldBlock) = file.try_lock() {
                return Ok(None);
            }
            // Whoever held it may have removed the file between our two calls: then this is a lock on nothing.
            match std::fs::symlink_metadata(path) {
                Ok(found) if is_same(&found, &file.metadata()?) => {
                    return Ok(Some(FileLock { file, path: Some(path.to_owned()) }));
                }
                Ok(found) if found.file_type().is_symlink() => {
                    return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is a symbolic link; remove it"));
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other("it is replaced again and again"))
    }
}

fn is_same(a: &std::fs::Metadata, b: &std::fs::Metadata) -> bool {
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

impl Drop for FileLock {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // Only the holder removes the file. One that stays does no harm: the next holder takes it over.
            let _ = std::fs::remove_file(path);
        }
        // An error would mean that the kernel has already released the lock.
        let _ = self.file.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_held_once_and_its_file_goes_with_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let held = FileLock::of_file(&path).unwrap().unwrap();
        assert!(FileLock::of_file(&path).unwrap().is_none());
        drop(held);
        assert!(!path.exists());
        let held = FileLock::of_directory(directory.path()).unwrap().unwrap();
        assert!(FileLock::of_directory(directory.path()).unwrap().is_none());
        drop(held);
        FileLock::of_directory(directory.path()).unwrap().unwrap();
    }

    #[test]
    fn a_lock_is_given_back_though_another_process_has_the_file_open() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        type Take = fn(&Path) -> io::Result<Option<FileLock>>;
        let ways: [(Take, &Path); 2] = [(FileLock::of_file, &path), (FileLock::of_directory, directory.path())];
        for (lock, path) in ways {
            let held = lock(path).unwrap().unwrap();
            // What a fork leaves: a second descriptor of the same open file.
            let inherited = held.file.try_clone().unwrap();
            drop(held);
            drop(lock(path).unwrap().unwrap());
            drop(inherited);
        }
    }

    #[test]
    fn a_link_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (path, elsewhere) = (directory.path().join("lock"), directory.path().join("precious"));
        std::fs::write(&elsewhere, "precious").unwrap();
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        assert!(FileLock::of_file(&path).unwrap_err().to_string().contains("symbolic link"));
        assert_eq!(std::fs::read_to_string(elsewhere).unwrap(), "precious");
    }
}
