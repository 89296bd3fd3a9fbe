//! Checks a whole directory, for `millstream state verify`.

use std::path::Path;
use std::sync::Arc;

use crate::disk::Disk;
use crate::error::Result;
use crate::store::{Store, list, manifest_ids, segment_epoch};

/// What a check of a directory found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Every checkpoint, newest first, and what is wrong with it, if anything.
    pub checkpoints: Vec<(u64, Option<String>)>,
    /// What else was noticed.
    pub notes: Vec<String>,
}

impl VerifyReport {
    /// Whether nothing is wrong.
    pub fn is_whole(&self) -> bool {
        self.notes.is_empty() && self.checkpoints.iter().all(|(_, damage)| damage.is_none())
    }
}

/// Reads every byte of every checkpoint in a directory.
///
/// # Errors
/// If the directory cannot be read at all.
pub fn verify(path: impl AsRef<Path>, disk: Arc<dyn Disk>) -> Result<VerifyReport> {
    verify_all(&Store::inspect(path, disk)?)
}

/// The same, in a directory or a place in an object store that is open.
///
/// # Errors
/// If it cannot be read at all.
pub fn verify_all(store: &Store) -> Result<VerifyReport> {
    let names = list(&*store.inner.disk, &store.inner.path)?;
    let mut report = VerifyReport::default();
    for id in manifest_ids(&names).into_iter().rev() {
        let loaded = store.inner.load(id, None);
        if let Err(error @ crate::Error::Unreachable { .. }) = loaded {
            return Err(error);
        }
        report.checkpoints.push((id, loaded.err().map(|error| error.to_string())));
    }
    // What `latest` would say covers what no single manifest shows: files that are gone.
    if let Err(error) = store.latest(&mut report.notes) {
        report.notes.push(error.to_string());
    }
    let newest = report.checkpoints.first().map_or(0, |(id, _)| *id);
    let unfinished = names.iter().filter(|name| segment_epoch(name).is_some_and(|epoch| epoch > newest)).count();
    if unfinished > 0 {
        report.notes.push(format!(
            "{} of checkpoints that were not completed: that does no harm",
            mill_frame::words::counted(unfinished, "file")
        ));
    }
    Ok(report)
}
