//! Savepoints: copies of a checkpoint that belong to the user.
//!
//! A savepoint is a state directory of its own with one checkpoint in it: it needs nothing from elsewhere, nothing in it
//! is ever removed by the engine, and it can be moved. Its manifest is published as the last thing, so that a savepoint
//! that was cut short is seen to be none.

use std::path::Path;

use crate::checkpoint::open_chain;
use crate::compact::copy_merged;
use crate::error::{Error, Result};
use crate::manifest::Manifest;
use crate::store::{Store, list};

impl Store {
    /// Copies checkpoint `id` into a new directory, as a savepoint.
    ///
    /// # Errors
    /// If the directory is not empty, or the checkpoint is not whole, or there is no space.
    pub fn savepoint(&self, id: u64, path: impl AsRef<Path>) -> Result<Manifest> {
        let (inner, path) = (&self.inner, path.as_ref());
        let disk = &inner.disk;
        let manifest = Manifest::load(&**disk, &inner.path, inner.state, id)?;
        let chain = open_chain(&**disk, &inner.path, inner.state, &manifest, None)?;
        disk.create_dir(path).map_err(|error| Error::io("create the directory", path, error))?;
        if !list(&**disk, path)?.is_empty() {
            return Err(Error::NotEmpty { path: path.to_path_buf() });
        }
        let target = Store::open(path, std::sync::Arc::clone(disk))?;
        let segment = copy_merged(&**disk, path, target.inner.state, &chain, &manifest)?;
        let savepoint = Manifest {
            state: target.inner.state,
            is_savepoint: true,
            bytes: segment.bytes,
            new_bytes: segment.bytes,
            segments: vec![segment],
            ..manifest
        };
        crate::writer::publish(&target, &savepoint)?;
        let is_settled = inner.record().settled >= id;
        let mut owned = target.inner.owned()?;
        if is_settled {
            owned.marks.settled(id, false)?;
        }
        owned.marks.published(id)?;
        drop(owned);
        Ok(savepoint)
    }
}
