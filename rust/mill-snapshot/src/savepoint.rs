//! Savepoints: copies of a checkpoint that belong to the user.
//!
//! A savepoint is a state directory of its own with one checkpoint in it: it needs nothing from elsewhere, nothing in it is
//! ever removed by the engine, and it can be moved. Its manifest is published as the last thing, so that a savepoint that
//! was cut short by a crash is not taken for one. One that fails leaves nothing: its files are removed, and the directory
//! too, unless it existed before.

use std::path::Path;
use std::sync::Arc;

use crate::blobs::{Blobs, OnlyIf, Put};
use crate::checkpoint::open_chain;
use crate::compact::copy_merged;
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::head::{HEAD, Head};
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

    /// The same into an object store, under a prefix where there is nothing. The directory is an empty one that is needed meanwhile.
    ///
    /// # Errors
    /// If there is something, or the checkpoint is not whole, or the store does not answer. What was written there is deleted, as far as
    /// it answers.
    pub fn savepoint_remote(&self, id: u64, path: impl AsRef<Path>, blobs: &dyn Blobs) -> Result<Manifest> {
        let (disk, path) = (&self.inner.disk, path.as_ref());
        if blobs.any().map_err(Error::unreachable)?.is_some() {
            return Err(Error::NotEmpty { path: blobs.url().into() });
        }
        let manifest = self.savepoint(id, path)?;
        let outcome = put(&**disk, path, &manifest, self.inner.record().settled.min(id), blobs);
        if outcome.is_err() {
            // The head goes first: without it the rest is no savepoint.
            let segments = manifest.segments.iter().map(|segment| segment.file.clone());
            let _ = blobs.delete(&[HEAD.to_owned()]);
            let _ = blobs.delete(&[Manifest::file_name(id)].into_iter().chain(segments).collect::<Vec<_>>());
        }
        outcome.map(|()| manifest)
    }
}

/// Puts a savepoint into a store, its head last.
fn put(disk: &dyn Disk, path: &Path, manifest: &Manifest, settled: u64, blobs: &dyn Blobs) -> Result<()> {
    let uploads = manifest.segments.iter().map(|segment| -> Result<_> {
        let file = path.join(&segment.file);
        let bytes = disk.map(&file).map_err(|error| Error::io("read", &file, error))?;
        mill_fault::reach("remote.upload").map_err(Error::unreachable)?;
        Ok(blobs.upload(&segment.file, bytes))
    });
    for upload in uploads.collect::<Result<Vec<_>>>()? {
        upload.wait(&|| false).map_err(Error::unreachable)?;
    }
    let head = Head { state: manifest.state, checkpoints: vec![manifest.id], settled, ..Head::default() };
    for (name, bytes) in [(Manifest::file_name(manifest.id), manifest.encode()), (HEAD.to_owned(), head.encode())] {
        mill_fault::reach("remote.savepoint").map_err(Error::unreachable)?;
        let outcome = blobs.put(&name, bytes.clone(), OnlyIf::Absent);
        let is_there = || blobs.read(&name).map_err(Error::unreachable).map(|blob| blob.is_some_and(|blob| blob.bytes == bytes));
        match outcome {
            Ok(Put::Done(_)) => {}
            Ok(Put::Refused) if !is_there()? => return Err(Error::NotEmpty { path: blobs.url().into() }),
            Err(error) if !is_there()? => return Err(Error::unreachable(error)),
            _ => {}
        }
    }
    Ok(())
}

/// Writes a savepoint into an empty directory; what it holds open is closed when this returns.
fn copy(disk: &Arc<dyn Disk>, path: &Path, chain: &[Segment], manifest: Manifest, is_settled: bool) -> Result<Manifest> {
    let id = manifest.id;
    let target = Store::open(path, Arc::clone(disk))?;
    let segment = copy_merged(&**disk, path, target.inner.state, chain, &manifest)?;
    let savepoint = Manifest {
        state: target.inner.state,
        is_savepoint: true,
        files: Vec::new(),
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
