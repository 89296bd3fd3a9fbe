//! Checkpoints in an object store: which parts of the local state directory are stored there, too, and who may change them.
//!
//! ```text
//!                 segments, as they are written              ┌ manifest, if there is none of its name
//!   directory  ───────────── upload ─────────────► store ◄───┤
//!   (a cache)  ◄──────────── download ────────────           └ head, if it is the version that is known: the checkpoint exists
//! ```
//!
//! Invariants:
//! * a checkpoint exists once the [head](crate::head) lists it; all that it refers to is in the store before;
//! * only the holder of the lease changes the head, and every change is conditional on the last: a holder that lost the lease without
//!   noticing is refused at its next change, so it publishes nothing and commits nothing;
//! * names of segments have the number of the run: nobody writes an object under a name of somebody else's;
//! * nothing in the directory is trusted but what the store names and checksums prove;
//! * objects are deleted only after no checkpoint that the head lists refers to them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::blobs::{Blobs, OnlyIf, Pending, Put, Version};
use crate::disk::{Disk, MappedFile};
use crate::error::{Error, Result};
use crate::head::{HEAD, Head, Holder, Lease};
use crate::manifest::{FileRef, Manifest};

/// How often a change of the head is tried where its outcome is in doubt.
const ATTEMPTS: usize = 4;
/// For how long it is.
const DOUBT_MAX: Duration = Duration::from_secs(20);
/// What the name of a file ends with that is being fetched.
const FETCHED: &str = "-new";

/// Whether nobody waits for requests any more.
pub type IsEnding = Box<dyn Fn() -> bool + Send + Sync>;

/// A head as it was found.
#[derive(Clone, Debug)]
pub struct FoundHead {
    /// What it says.
    pub head: Head,
    /// Which version that is.
    pub version: Version,
}

/// The place in an object store of a state directory.
pub struct Remote {
    blobs: Arc<dyn Blobs>,
    /// The number of the run that has the lease; 0 if it only looks.
    run: u64,
    /// The process that it belongs to: a forked one must not give the lease back.
    process: u32,
    is_ending: IsEnding,
    known: Mutex<Known>,
    objects: Mutex<Objects>,
    on_lost: Mutex<Option<OnLost>>,
    is_released: Mutex<bool>,
    released: Condvar,
}

type OnLost = Box<dyn Fn(Error) + Send>;

/// What is known of the head.
struct Known {
    head: Head,
    version: Version,
    /// Who has the lease instead, or why it is gone.
    lost: Option<String>,
}

/// What is known of the objects.
#[derive(Default)]
struct Objects {
    there: BTreeSet<String>,
    /// Those that were there when the run began.
    former: BTreeSet<String>,
    uploads: HashMap<String, Pending>,
    /// Those to be deleted: manifests go first.
    spare: BTreeSet<String>,
}

impl Remote {
    /// What the head of a place is now; `None` if there is none.
    ///
    /// # Errors
    /// If the store does not answer, or the head is damaged.
    pub fn look(blobs: &dyn Blobs) -> Result<Option<FoundHead>> {
        let Some(blob) = blobs.read(HEAD).map_err(Error::unreachable)? else { return Ok(None) };
        Ok(Some(FoundHead { head: Head::decode(blobs.url(), &blob.bytes)?, version: blob.version }))
    }

    /// Takes the lease of a place whose head was found so; `None` if it was changed since, so that it has to be looked at again.
    ///
    /// Whether it may be taken, if somebody has it, is for the caller to know.
    ///
    /// # Errors
    /// If the store does not answer, or holds something else there.
    pub fn acquire(blobs: Arc<dyn Blobs>, found: Option<FoundHead>, holder: Holder, run: u64, is_ending: IsEnding) -> Result<Option<Remote>> {
        mill_fault::reach("remote.lease").map_err(Error::unreachable)?;
        let mut head = match &found {
            Some(found) => found.head.clone(),
            None => {
                check_is_empty(&*blobs)?;
                Head { state: run, ..Head::default() }
            }
        };
        head.lease = Some(Lease { holder, run, renewals: 0 });
        let only_if = found.as_ref().map_or(OnlyIf::Absent, |found| OnlyIf::Is(&found.version));
        let version = match blobs.put(HEAD, head.encode(), only_if) {
            Ok(Put::Done(version)) => version,
            outcome => match Remote::look(&*blobs)? {
                Some(now) if now.head == head => now.version,
                _ => return outcome.map(|_| None).map_err(Error::unreachable),
            },
        };
        check_conditions(&*blobs, &head)?;
        Ok(Some(Remote::new(blobs, Known { head, version, lost: None }, run, is_ending)))
    }

    /// A place that is only looked at.
    pub(crate) fn looking(blobs: Arc<dyn Blobs>, found: FoundHead) -> Remote {
        let known = Known { head: found.head, version: found.version, lost: None };
        Remote::new(blobs, known, 0, Box::new(|| false))
    }

    fn new(blobs: Arc<dyn Blobs>, known: Known, run: u64, is_ending: IsEnding) -> Remote {
        Remote {
            blobs,
            run,
            process: std::process::id(),
            is_ending,
            known: Mutex::new(known),
            objects: Mutex::default(),
            on_lost: Mutex::default(),
            is_released: Mutex::new(false),
            released: Condvar::new(),
        }
    }

    /// The place as users write it.
    pub fn url(&self) -> &str {
        self.blobs.url()
    }

    /// The number of the run, which no other has.
    pub(crate) fn run(&self) -> u64 {
        self.run
    }

    /// The head as it was last known.
    pub fn head(&self) -> Head {
        self.known().head.clone()
    }

    /// Whether the lease is still held.
    pub fn is_held(&self) -> bool {
        !*locked(&self.is_released) && self.known().lost.is_none()
    }

    /// Why nothing can be published any more, if the lease was lost.
    pub fn lost(&self) -> Option<Error> {
        self.known().lost.as_ref().map(|what| self.lease_lost(what))
    }

    /// Says whom to tell that the lease was lost; at once, if it was.
    pub fn on_lost(&self, told: impl Fn(Error) + Send + 'static) {
        if let Some(error) = self.lost() {
            told(error);
        }
        *locked(&self.on_lost) = Some(Box::new(told));
    }

    /// Shows that the holder of the lease lives.
    ///
    /// # Errors
    /// If the store does not answer, which need not mean anything; or if the lease was lost.
    pub fn renew(&self) -> Result<()> {
        if *locked(&self.is_released) {
            return Ok(());
        }
        self.change(|_| {})
    }

    /// Waits for so long; whether the lease is still held then.
    pub fn pause(&self, time: Duration) -> bool {
        let is_released = locked(&self.is_released);
        let waited = self.released.wait_timeout_while(is_released, time, |is_released| !*is_released);
        !*waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Releases the lease, if it is still held: another job may begin at once. Best effort: otherwise it runs out.
    pub(crate) fn release(&self) {
        if self.run == 0 || self.process != std::process::id() || std::mem::replace(&mut *locked(&self.is_released), true) {
            return;
        }
        self.released.notify_all();
        self.blobs.hurry();
        if self.known().lost.is_none() && mill_fault::reach("remote.release").is_ok() {
            let _ = self.change_within(Duration::ZERO, |head| head.lease = None);
        }
    }

    /// Changes the head.
    ///
    /// # Errors
    /// If the lease was lost; or if the store does not say whether it was changed.
    pub(crate) fn change(&self, change: impl Fn(&mut Head)) -> Result<()> {
        self.change_within(DOUBT_MAX, change)
    }

    /// The same, where nothing is tried again after so long.
    fn change_within(&self, time: Duration, change: impl Fn(&mut Head)) -> Result<()> {
        let begun = Instant::now();
        let mut known = self.known();
        if let Some(what) = &known.lost {
            return Err(self.lease_lost(what));
        }
        let mut doubt = None;
        for _ in 0..ATTEMPTS {
            mill_fault::reach("remote.head").map_err(Error::unreachable)?;
            let mut next = known.head.clone();
            if let Some(lease) = &mut next.lease {
                lease.renewals += 1;
            }
            change(&mut next);
            match self.blobs.put(HEAD, next.encode(), OnlyIf::Is(&known.version)) {
                Ok(Put::Done(version)) => {
                    (known.head, known.version) = (next, version);
                    return Ok(());
                }
                Ok(Put::Refused) => {}
                Err(error) => doubt = Some(error),
            }
            if doubt.is_some() && begun.elapsed() >= time {
                break;
            }
            // It was changed: by a request of ours that was taken for lost, or by somebody else.
            let now = match Remote::look(&*self.blobs) {
                Ok(now) => now,
                Err(error) => {
                    let error = doubt.map_or(error, Error::unreachable);
                    return Err(error);
                }
            };
            match now {
                Some(now) if now.head == next => {
                    (known.head, known.version) = (now.head, now.version);
                    return Ok(());
                }
                Some(now) if now.head.lease.as_ref().is_some_and(|lease| lease.run == self.run) => {
                    (known.head, known.version) = (now.head, now.version);
                }
                Some(now) => {
                    let what = match &now.head.lease {
                        Some(lease) => format!("{} has taken over", lease.holder),
                        None => "another process has taken over, and has ended since".to_owned(),
                    };
                    return Err(self.lose(&mut known, what));
                }
                None => return Err(self.lose(&mut known, format!("the object {HEAD} was removed"))),
            }
        }
        Err(Error::unreachable(doubt.unwrap_or_else(|| io::Error::other(format!("{}: the object {HEAD} changes all the time", self.url())))))
    }

    fn lose(&self, known: &mut Known, what: String) -> Error {
        let error = self.lease_lost(&what);
        known.lost = Some(what);
        if let Some(told) = &*locked(&self.on_lost) {
            told(self.lease_lost(known.lost.as_deref().unwrap_or_default()));
        }
        error
    }

    fn lease_lost(&self, what: &str) -> Error {
        Error::LeaseLost { url: self.url().to_owned(), what: what.to_owned() }
    }

    /// Begins to put a file of the directory into the store.
    pub(crate) fn upload(&self, disk: &dyn Disk, dir: &Path, name: &str) -> Result<()> {
        mill_fault::reach("remote.upload").map_err(Error::unreachable)?;
        let path = dir.join(name);
        let bytes = disk.map(&path).map_err(|error| Error::io("read", &path, error))?;
        let pending = self.blobs.upload(name, bytes);
        let mut objects = self.objects();
        objects.uploads.insert(name.to_owned(), pending);
        Ok(())
    }

    /// Waits until a file of the directory is in the store, which it may be already.
    fn uploaded(&self, disk: &dyn Disk, dir: &Path, name: &str) -> Result<()> {
        let objects = self.objects();
        if objects.there.contains(name) {
            return Ok(());
        }
        if !objects.uploads.contains_key(name) {
            drop(objects);
            self.upload(disk, dir, name)?;
        } else {
            drop(objects);
        }
        let pending = self.objects().uploads.remove(name);
        if let Some(pending) = pending {
            pending.wait(&self.is_ending).map_err(Error::unreachable)?;
        }
        mill_fault::reach("remote.uploaded").map_err(Error::unreachable)?;
        self.objects().there.insert(name.to_owned());
        Ok(())
    }

    /// Publishes a checkpoint: when this returns, it exists, and those that are `kept` beside it.
    ///
    /// # Errors
    /// If it does not exist; or if the store does not say whether it does.
    pub(crate) fn publish(&self, disk: &dyn Disk, dir: &Path, manifest: &Manifest, raw: &[u8], kept: &[u64], settled: u64) -> Result<()> {
        if let Some(error) = self.lost() {
            return Err(error);
        }
        let files = manifest.files.iter().map(|file| &file.name);
        let names: Vec<&String> = manifest.segments.iter().map(|segment| &segment.file).chain(files).collect();
        // All are begun before the first is waited for.
        for name in &names {
            let is_begun = {
                let objects = self.objects();
                objects.there.contains(*name) || objects.uploads.contains_key(*name)
            };
            if !is_begun {
                self.upload(disk, dir, name)?;
            }
        }
        names.iter().try_for_each(|name| self.uploaded(disk, dir, name))?;
        let name = Manifest::file_name(manifest.id);
        mill_fault::reach("remote.manifest").map_err(Error::unreachable)?;
        self.put_new(&name, raw)?;
        self.objects().there.insert(name);
        mill_fault::reach("remote.manifest_written").map_err(Error::unreachable)?;
        let list = |head: &mut Head| {
            head.checkpoints = kept.to_vec();
            head.checkpoints.push(manifest.id);
            head.settled = head.settled.max(settled);
        };
        self.change(list).map_err(|error| match error {
            Error::Unreachable { source } => Error::Indeterminate { epoch: manifest.id, source },
            other => other,
        })?;
        mill_fault::reach("remote.published").map_err(|source| Error::Indeterminate { epoch: manifest.id, source })
    }

    /// Writes an object that is not there yet, or was written by a request of ours.
    fn put_new(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let outcome = self.blobs.put(name, bytes.to_vec(), OnlyIf::Absent);
        if matches!(outcome, Ok(Put::Done(_))) {
            return Ok(());
        }
        let is_ours = self.blobs.read(name).map_err(Error::unreachable)?.is_some_and(|blob| blob.bytes == bytes);
        match outcome {
            _ if is_ours => Ok(()),
            Err(error) => Err(Error::unreachable(error)),
            Ok(_) => Err(Error::unreachable(io::Error::new(
                io::ErrorKind::AlreadyExists,
                format!("{}/{name} was written by another process", self.url()),
            ))),
        }
    }

    /// Notes in the head what its holder wants.
    pub(crate) fn settle(&self, settled: u64) -> Result<()> {
        self.change(|head| head.settled = head.settled.max(settled))
    }

    /// Starts over, under another identity; what the store holds of former runs is to be deleted.
    pub(crate) fn forget(&self, state: u64) -> Result<()> {
        self.change(|head| {
            let former = head.state;
            let lease = head.lease.take();
            *head = Head { state, former, lease, ..Head::default() };
        })?;
        let mut objects = self.objects();
        let all = std::mem::take(&mut objects.there);
        objects.spare.extend(all);
        Ok(())
    }

    /// All objects but the head.
    pub(crate) fn list(&self) -> Result<BTreeMap<String, u64>> {
        let entries = self.blobs.list().map_err(Error::unreachable)?;
        let found: BTreeMap<String, u64> =
            entries.into_iter().filter(|entry| entry.name != HEAD).map(|entry| (entry.name, entry.bytes)).collect();
        let mut objects = self.objects();
        objects.there = found.keys().cloned().collect();
        objects.former = objects.there.clone();
        drop(objects);
        Ok(found)
    }

    /// Notes which objects are to be deleted, of those that are there; `is_spare` is told of each whether it is of a former run.
    pub(crate) fn note_spare(&self, is_spare: impl Fn(&str, bool) -> bool) {
        let mut objects = self.objects();
        let objects = &mut *objects;
        let is_spare = |name: &str| is_spare(name, objects.former.contains(name));
        // What a checkpoint that failed had begun to upload may be there by now, or later.
        objects.uploads.retain(|name, pending| {
            let is_over = is_spare(name) && pending.outcome().is_some_and(|outcome| outcome.is_ok());
            if is_over {
                objects.there.insert(name.clone());
            }
            !is_over
        });
        let spare: Vec<String> = objects.there.iter().filter(|name| is_spare(name)).cloned().collect();
        for name in spare {
            objects.there.remove(&name);
            objects.spare.insert(name);
        }
    }

    /// Whether objects are to be deleted.
    pub(crate) fn has_spare(&self) -> bool {
        !self.objects().spare.is_empty()
    }

    /// Deletes what is to be deleted: manifests first, so that none is left without its segments.
    pub(crate) fn sweep(&self) -> Result<()> {
        if let Some(error) = self.lost() {
            return Err(error);
        }
        let spare = std::mem::take(&mut self.objects().spare);
        let (manifests, others): (Vec<String>, Vec<String>) = spare.into_iter().partition(|name| Manifest::id_of(name).is_some());
        let delete = |names: &[String]| -> Result<()> {
            if names.is_empty() {
                return Ok(());
            }
            mill_fault::reach("remote.delete").map_err(Error::unreachable)?;
            self.blobs.delete(names).map_err(Error::unreachable)
        };
        let outcome = delete(&manifests).and_then(|()| delete(&others));
        if outcome.is_err() {
            self.objects().spare.extend(manifests.into_iter().chain(others));
        }
        outcome
    }

    /// Brings objects into the directory that have these sizes.
    pub(crate) fn fetch_all(&self, disk: &Arc<dyn Disk>, dir: &Path, wanted: &[(String, u64)]) -> Result<()> {
        let mut fetches = Vec::new();
        for (name, bytes) in wanted {
            mill_fault::reach("remote.fetch").map_err(Error::unreachable)?;
            let temporary = dir.join(format!("{name}{FETCHED}"));
            remove(&**disk, &temporary)?;
            let file = disk.create(&temporary, *bytes).map_err(|error| Error::io("create", &temporary, error))?;
            let file: Arc<Mutex<Box<dyn MappedFile>>> = Arc::new(Mutex::new(file));
            let target = Arc::clone(&file);
            let take = move |at: u64, piece: &[u8]| {
                let mut file = locked(&target);
                let place = file.bytes().get_mut(at as usize..).and_then(|rest| rest.get_mut(..piece.len()));
                place.ok_or_else(|| io::Error::other("the store returned more than the object has"))?.copy_from_slice(piece);
                Ok(())
            };
            fetches.push((name, temporary, file, self.blobs.download(name, *bytes, Box::new(take))));
        }
        for (name, temporary, file, pending) in fetches {
            pending.wait(&self.is_ending).map_err(|error| self.fetch_failed(name, error))?;
            // Not synced: a file that a crash of the machine damages is fetched again.
            drop(file);
            let path = dir.join(name);
            disk.rename(&temporary, &path).map_err(|error| Error::io("create", &path, error))?;
        }
        Ok(())
    }

    fn fetch_failed(&self, name: &str, error: io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::NotFound => Error::damaged(&self.shown(name), 0, "the object is gone"),
            io::ErrorKind::InvalidData => Error::damaged(&self.shown(name), 0, error.to_string()),
            _ => Error::unreachable(error),
        }
    }

    /// Brings into the directory what a checkpoint refers to and is not there; returns the names of what was there.
    pub(crate) fn fetch(&self, disk: &Arc<dyn Disk>, dir: &Path, manifest: &Manifest) -> Result<Vec<String>> {
        let sizes = sizes(&**disk, dir)?;
        let segments = manifest.segments.iter().map(|segment| (segment.file.clone(), segment.bytes));
        let (there, mut missing): (Vec<_>, Vec<_>) = segments.partition(|(name, bytes)| sizes.get(name) == Some(bytes));
        // What is committed needs nothing that its handles refer to.
        let files = if manifest.id <= self.head().settled { &[] } else { manifest.files.as_slice() };
        for file in files {
            if let Some((folder, _)) = file.name.rsplit_once('/') {
                let folder = dir.join(folder);
                disk.create_dir(&folder).map_err(|error| Error::io("create the directory", &folder, error))?;
            }
            if !file.is_whole(&**disk, dir) {
                missing.push((file.name.clone(), file.bytes));
            }
        }
        for (name, _) in &missing {
            remove(&**disk, &dir.join(name))?;
        }
        self.fetch_all(disk, dir, &missing)?;
        match files.iter().find(|file| !file.is_whole(&**disk, dir)) {
            Some(file) => Err(Error::damaged(&self.shown(&file.name), 0, "its checksum does not match")),
            None => Ok(there.into_iter().map(|(name, _)| name).collect()),
        }
    }

    /// What an object is called in messages.
    pub(crate) fn shown(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("{}/{name}", self.url()))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        locked(&self.known)
    }

    fn objects(&self) -> MutexGuard<'_, Objects> {
        locked(&self.objects)
    }
}

impl FileRef {
    /// A file of the directory as it is now.
    pub(crate) fn of(disk: &dyn Disk, dir: &Path, name: &str) -> Result<FileRef> {
        let path = dir.join(name);
        let bytes = disk.map(&path).map_err(|error| Error::io("read", &path, error))?;
        Ok(FileRef { name: name.to_owned(), bytes: bytes.len() as u64, crc32c: crc32c::crc32c(&bytes) })
    }

    fn is_whole(&self, disk: &dyn Disk, dir: &Path) -> bool {
        FileRef::of(disk, dir, &self.name).is_ok_and(|found| found == *self)
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.release();
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("url", &self.url()).field("run", &self.run).finish_non_exhaustive()
    }
}

/// Refuses a store that passes over conditions: there nothing would keep two jobs apart. Writes what is there already, on a condition that
/// does not hold.
fn check_conditions(blobs: &dyn Blobs, head: &Head) -> Result<()> {
    let other = Version { tag: Some(format!("\"{:032}\"", 0)), number: Some("1".to_owned()) };
    match blobs.put(HEAD, head.encode(), OnlyIf::Is(&other)) {
        Ok(Put::Done(_)) => Err(Error::unreachable(io::Error::new(
            io::ErrorKind::Unsupported,
            format!(
                "the store of {} passes over conditions of writes (If-Match), without which two jobs could go on from the same checkpoint; \
                 use one that keeps them, or a directory of this machine",
                blobs.url()
            ),
        ))),
        // A store that does not understand the version refuses in words of its own.
        _ => Ok(()),
    }
}

/// Refuses a place without a head that holds something.
fn check_is_empty(blobs: &dyn Blobs) -> Result<()> {
    let Some(name) = blobs.any().map_err(Error::unreachable)? else { return Ok(()) };
    let is_ours = Manifest::id_of(&name).is_some() || crate::store::segment_epoch(&name).is_some();
    let what = match is_ours {
        true => format!("it holds {name:?} and no object {HEAD}: it was removed, or a savepoint was not completed; put it back, or give another prefix"),
        false => format!("it holds {name:?}; give a prefix under which there is nothing else"),
    };
    Err(Error::NotACheckpoint { path: PathBuf::from(blobs.url()), what })
}

/// The files in a directory, by name.
pub(crate) fn sizes(disk: &dyn Disk, dir: &Path) -> Result<BTreeMap<String, u64>> {
    let entries = disk.list(dir).map_err(|error| Error::io("list", dir, error))?;
    Ok(entries.into_iter().map(|entry| (entry.name, entry.bytes)).collect())
}

/// Removes a file, which need not be there.
pub(crate) fn remove(disk: &dyn Disk, path: &Path) -> Result<()> {
    match disk.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path, error)),
        _ => Ok(()),
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while one of these is held leaves plain values that each make sense on their own.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
