//! What was found in a file, as long as it is the same file.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use mill_protocol::Result;

use super::FileIdentity;
use super::stamp::Stamp;

/// Of so many files it is kept, so that a file is not looked into again for each of its splits.
const FILES_MAX: usize = 256;

/// What was found in the files read last.
pub(crate) struct Known<T>(Mutex<HashMap<PathBuf, (Stamp, Arc<T>)>>);

impl<T> Default for Known<T> {
    fn default() -> Known<T> {
        Known(Mutex::default())
    }
}

impl<T> Known<T> {
    /// Opens a file, and looks into it unless what it holds is known.
    pub(crate) fn open(&self, path: &Path, look: impl FnOnce(&FileIdentity) -> Result<T>) -> Result<(FileIdentity, Arc<T>)> {
        let identity = FileIdentity::open(path)?;
        let stamp = identity.stamp()?;
        // Each change is a single insertion or removal, so a panic elsewhere leaves the map whole.
        let files = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, known)) = files().get(path).filter(|(of, _)| *of == stamp) {
            return Ok((identity, Arc::clone(known)));
        }
        let known = Arc::new(look(&identity)?);
        let mut files = files();
        if files.len() >= FILES_MAX {
            files.clear();
        }
        files.insert(path.to_owned(), (stamp, Arc::clone(&known)));
        Ok((identity, known))
    }
}
