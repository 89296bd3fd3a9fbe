//! Opening a place in an object store: the directory becomes what the store says.
//!
//! ```text
//!   lock of the directory ─► lease of the place ─► manifests that the head lists, marks that say the same ─► a store like any other
//! ```
//!
//! Segments are fetched when a checkpoint is loaded, and only those that are not here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::blobs::Blobs;
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::head::{HEAD, Head};
use crate::manifest::Manifest;
use crate::marks::{self, LOCK, MARKER, Marks, Record};
use crate::positions::POSITIONS;
use crate::remote::{self, FoundHead, Remote};
use crate::store::{Inner, Owned, Store, highest_number, list, segment_epoch};

impl Store {
    /// Opens a place in an object store to work in it. The directory is a cache of what is there, and is locked first; then the lease
    /// of the place is to be taken. What the directory holds and the store does not name is removed. `is_anew`: as in
    /// [`open_anew`](Store::open_anew).
    ///
    /// # Errors
    /// If another process uses the directory, or the lease cannot be had, or the store does not answer.
    pub fn open_remote(
        path: impl AsRef<Path>,
        place: &str,
        disk: Arc<dyn Disk>,
        is_anew: bool,
        acquire: impl FnOnce() -> Result<Remote>,
    ) -> Result<Store> {
        let (path, place) = (path.as_ref(), PathBuf::from(place));
        disk.create_dir(path).map_err(|error| Error::io("create the directory", path, error))?;
        let lock = marks::lock(&*disk, path, LOCK).map_err(|error| match error {
            Error::Locked { holder, .. } => Error::Locked { path: place.clone(), holder },
            other => other,
        })?;
        let remote = Arc::new(acquire()?);
        let head = remote.head();
        let highest = highest_number(&list(&*disk, path)?);
        let record = Record {
            state: if is_anew { disk.unique() } else { head.state },
            published: if is_anew { 0 } else { head.published() },
            settled: if is_anew { 0 } else { head.settled },
            ..Record::default()
        };
        let there = remote.list()?;
        let highest = there.keys().filter_map(|name| any_number(name)).chain(head.checkpoints.iter().copied()).fold(highest, u64::max);
        let found = if is_anew { Head::default() } else { head };
        let record = mirror(&remote, &disk, path, record, &found, &there)?;
        if !is_anew {
            note_leftovers(&remote, &*disk, path, &found);
        }
        let marker = marks::lock(&*disk, path, MARKER)?;
        let owned = Owned::new(Marks::open(&*disk, path, record, std::process::id())?, highest, is_anew);
        let inner = Inner {
            path: path.to_path_buf(),
            place,
            disk,
            state: record.state,
            remote: Some(remote),
            owned: Some(Mutex::new(owned)),
            found: record,
            notes: Vec::new(),
            _locks: vec![marker, lock],
        };
        Ok(Store { inner: Arc::new(inner) })
    }

    /// Opens a place in an object store to look into it: takes no lease there and changes nothing. What is read is brought into the
    /// directory, which is to be a new one.
    ///
    /// # Errors
    /// If there are no checkpoints at that place, or the store does not answer.
    pub fn inspect_remote(path: impl AsRef<Path>, disk: Arc<dyn Disk>, blobs: Arc<dyn Blobs>) -> Result<Store> {
        let (path, place) = (path.as_ref(), PathBuf::from(blobs.url()));
        disk.create_dir(path).map_err(|error| Error::io("create the directory", path, error))?;
        let Some(found) = Remote::look(&*blobs)? else {
            return Err(Error::NotACheckpoint { path: place, what: format!("there is no object {HEAD}") });
        };
        let FoundHead { head, .. } = &found;
        let record = Record { state: head.state, published: head.published(), settled: head.settled, ..Record::default() };
        let head = head.clone();
        let remote = Arc::new(Remote::looking(blobs, found));
        let there = remote.list()?;
        let record = mirror(&remote, &disk, path, record, &head, &there)?;
        let path = path.to_path_buf();
        let inner =
            Inner { path, place, disk, state: record.state, remote: Some(remote), owned: None, found: record, notes: Vec::new(), _locks: Vec::new() };
        Ok(Store { inner: Arc::new(inner) })
    }
}

/// The number of a checkpoint that a name has, whatever it is the name of.
fn any_number(name: &str) -> Option<u64> {
    segment_epoch(name).or_else(|| Manifest::id_of(name))
}

/// Lets the directory be what the head of a place in an object store says: its manifests, no others, and marks that say the same.
/// Returns the record of the marks.
fn mirror(
    remote: &Remote,
    disk: &Arc<dyn Disk>,
    path: &Path,
    record: Record,
    head: &Head,
    there: &BTreeMap<String, u64>,
) -> Result<Record> {
    for name in list(&**disk, path)? {
        let is_manifest = Manifest::id_of(name.strip_suffix("-new").unwrap_or(&name)).is_some();
        if is_manifest || name.starts_with(MARKER) || name.starts_with(POSITIONS) || name.ends_with("-new") {
            remote::remove(&**disk, &path.join(&name))?;
        }
    }
    let named = head.checkpoints.iter().map(|id| Manifest::file_name(*id));
    let manifests: Vec<(String, u64)> = named.filter_map(|name| there.get(&name).map(|bytes| (name.clone(), *bytes))).collect();
    remote.fetch_all(disk, path, &manifests)?;
    let mut needed = BTreeSet::new();
    for id in &head.checkpoints {
        // One that is damaged refers to nothing that could be used.
        if let Ok(manifest) = Manifest::load(&**disk, path, record.state, *id) {
            needed.extend(manifest.segments.into_iter().map(|segment| (segment.file, segment.bytes)));
        }
    }
    for (name, bytes) in remote::sizes(&**disk, path)? {
        if segment_epoch(&name).is_some() && !needed.contains(&(name.clone(), bytes)) {
            remote::remove(&**disk, &path.join(&name))?;
        }
    }
    let sequence = marks::look(&**disk, &path.join(LOCK), false).ok().and_then(|found| found.record()).map_or(0, |found| found.sequence);
    let record = Record { sequence: sequence + 1, ..record };
    marks::create_marker(&**disk, path, record)?;
    Ok(record)
}

/// Notes that objects are to be deleted that killed runs have left: those that no checkpoint refers to. If one cannot be read, nothing is
/// known of what it refers to, and all stay.
fn note_leftovers(remote: &Remote, disk: &dyn Disk, path: &Path, head: &Head) {
    let manifests: Result<Vec<Manifest>> = head.checkpoints.iter().map(|id| Manifest::load(disk, path, head.state, *id)).collect();
    let Ok(manifests) = manifests else { return };
    let mut needed: BTreeSet<String> = BTreeSet::new();
    for manifest in manifests {
        needed.insert(Manifest::file_name(manifest.id));
        needed.extend(manifest.segments.into_iter().map(|segment| segment.file));
        needed.extend(manifest.files.into_iter().map(|file| file.name));
    }
    remote.note_spare(|name, _| (any_number(name).is_some() || crate::manifest::is_plain_path(name)) && !needed.contains(name));
}
