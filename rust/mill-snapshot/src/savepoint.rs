//! Savepoints: copies of a checkpoint that belong to the user.
//!
//! A savepoint is a state directory of its own with one checkpoint in it: it needs nothing from elsewhere, nothing in it
//! is ever removed by the engine, and it can be moved. Its manifest is published as the last thing, so that a savepoint
//! that was cut short by a crash is seen to be none. One that fails leaves nothing: what was written is removed, and the
//! directory too, unless it was there before.

use std::path::Path;
use std::sync::Arc;

use crate::checkpoint::open_chain;
use crate::compact::copy_merged;
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::manifest::Manifest;
use crate::segment::Segment;
use crate::store::{Store, list};

impl Store {
    /// Copies checkpoint `id` into a new directory, as a savepoint.
    ///
    /// # Errors
    /// If the directory is not empty, or the checkpoint is not whole, or there is no space. The directory is then as it
    /// was before.
    pub fn savepoint(&self, id: u64, path: impl AsRef<Path>) -> Result<Manifest> {
        let (inner, path) = (&self.inner, path.as_ref());
        let disk = &inner.disk;
        let manifest = Manifest::load(&**disk, &inner.path, inner.state, id)?;
        let chain = open_chain(&**disk, &inner.path, inner.state, &manifest, None)?;
        let is_new = disk.create_dir(path).map_err(|error| Error::io("create the directory", path, error))?;
        if !is_new && !list(&**disk, path)?.is_empty() {
            return Err(Error::NotEmpty { path: path.to_path_buf() });
        }
        let unfinished = Unfinished { disk, path, is_new };
        let savepoint = copy(disk, path, &chain, manifest, inner.record().settled >= id)?;
        std::mem::forget(unfinished);
        Ok(savepoint)
    }
}

/// Writes a savepoint into an empty directory; what it holds open is closed when this returns.
fn copy(disk: &Arc<dyn Disk>, path: &Path, chain: &[Segment], manifest: Manifest, is_settled: bool) -> Result<Manifest> {
    let id = manifest.id;
    let target = Store::open(path, Arc::clone(disk))?;
    let segment = copy_merged(&**disk, path, target.inner.state, chain, &manifest)?;
    let savepoint = Manifest {
        state: target.inner.state,
        is_savepoint: true,
        bytes: segment.bytes,
        new_bytes: segment.bytes,
        segments: vec![segment],
        ..manifest
    };
    crate::writer::publish(&target, &savepoint)?;
    let mut owned = target.inner.owned()?;
    if is_settled {
        owned.marks.settled(id, false)?;
    }
    owned.marks.published(id)?;
    drop(owned);
    Ok(savepoint)
}

/// A directory that was empty, and is so again when this is dropped.
struct Unfinished<'a> {
    disk: &'a Arc<dyn Disk>,
    path: &'a Path,
    is_new: bool,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        // Best effort: on a disk that fails the removal may fail too, and what is left is seen to be no savepoint.
        for name in list(&**self.disk, self.path).unwrap_or_default() {
            let _ = self.disk.remove(&self.path.join(name));
        }
        if self.is_new {
            let _ = self.disk.remove_dir(self.path);
        }
    }
}
