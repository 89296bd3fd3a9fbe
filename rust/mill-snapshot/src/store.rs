//! The store: one state directory, owned by one process.
//!
//! ```text
//! open ─► latest ─► continue_from ─► begin(n) ─► write_task … ─► finish ─► retire ─► begin(n+1) …
//! ```
//!
//! Invariants:
//! * a file is written once, under a name that was never used before in this directory; numbers of checkpoints only grow;
//! * a manifest gets its name only after everything it refers to is durable;
//! * only [`Store::retire`] removes what was ever published, and only after something newer was;
//! * state that is missing where it was expected is an error, never an empty start.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mill_frame::block::Inspect;

use crate::checkpoint::Checkpoint;
use crate::disk::{Disk, Held};
use crate::error::{Error, Result};
use crate::manifest::Manifest;
use crate::marks::{self, Found, LOCK, MARKER, Marks, Record};
use crate::positions::POSITIONS;
use crate::remote::{self, Remote};
use crate::segment::SegmentRef;

pub(crate) const SEGMENT_PREFIX: &str = "segment-";
const MANIFEST_PREFIX: &str = "manifest-";
/// The highest number that a checkpoint can have: one every microsecond, for thirty thousand years.
pub(crate) const EPOCH_MAX: u64 = 1 << 60;

/// A state directory. Clones share it; the lock is released with the last one.
#[derive(Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub path: PathBuf,
    /// What users call it: the path, or where in an object store that is.
    pub place: PathBuf,
    pub disk: Arc<dyn Disk>,
    pub state: u64,
    /// The object store whose checkpoints are here; without one they are only here.
    pub remote: Option<Arc<Remote>>,
    /// `None` in a store that was opened for looking.
    pub owned: Option<Mutex<Owned>>,
    pub found: Record,
    pub notes: Vec<String>,
    // Dropped after the marks, so that nobody else writes them first.
    pub _locks: Vec<Box<dyn Held>>,
}

/// What changes while the store is used.
pub(crate) struct Owned {
    pub marks: Marks,
    /// What the next checkpoint of changes builds on; `None` if it must be full.
    pub base: Option<Base>,
    /// The newest checkpoint that failed since the base was set.
    pub failed: u64,
    /// The newest number that occurs on disk or was given out.
    pub highest: u64,
    /// Checkpoints that are being written: nobody removes their files.
    pub writing: BTreeSet<u64>,
    /// Manifests that were read or written by this process.
    pub manifests: BTreeMap<u64, Arc<Manifest>>,
    /// Counts the files of merged segments.
    pub merges: u64,
    /// Whether a merge is under way; its file is not yet referred to by anything.
    pub is_merging: bool,
    /// Whether the files of former runs, which are to be removed, are still there.
    pub has_former: bool,
}

impl Owned {
    /// Nothing is under way yet, and the next checkpoint is a full one.
    pub(crate) fn new(marks: Marks, highest: u64, has_former: bool) -> Owned {
        Owned {
            marks,
            base: None,
            failed: 0,
            highest,
            writing: BTreeSet::new(),
            manifests: BTreeMap::new(),
            merges: 0,
            is_merging: false,
            has_former,
        }
    }
}

/// What the next checkpoint of changes builds on.
#[derive(Clone, Debug)]
pub(crate) struct Base {
    pub segments: Vec<SegmentRef>,
    /// `since` of each operator.
    pub since: BTreeMap<String, u64>,
}

/// What [`Store::list`] tells of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointInfo {
    /// Its number.
    pub id: u64,
    /// When its barrier was sent, in microseconds since the Unix epoch.
    pub created: i64,
    /// The guarantee the job ran with.
    pub mode: String,
    /// How many bytes all it needs has.
    pub bytes: u64,
    /// How many of these were written for it.
    pub new_bytes: u64,
    /// Whether the user asked for it.
    pub is_savepoint: bool,
    /// Whether the job had come to its end.
    pub is_finished: bool,
    /// Names of the steps, by the identity of their state.
    pub operators: BTreeMap<String, String>,
    /// What is wrong with its manifest, if anything; the other fields then say nothing.
    pub damage: Option<String>,
}

impl Store {
    /// Opens a state directory to work in it, creates it if it is not there, and locks it.
    ///
    /// # Errors
    /// If another process uses it, if it is of a newer format, if it may not be written, or if it holds something else.
    pub fn open(path: impl AsRef<Path>, disk: Arc<dyn Disk>) -> Result<Store> {
        let path = path.as_ref();
        disk.create_dir(path).map_err(|error| Error::io("create the directory", path, error))?;
        let names = list(&*disk, path)?;
        check_is_ours(path, &names)?;
        let lock = marks::lock(&*disk, path, LOCK)?;
        let mut notes = Vec::new();
        let (record, is_new) = settle(&*disk, path, &mut notes)?;
        if is_new {
            marks::create_marker(&*disk, path, record)?;
        }
        let marker = marks::lock(&*disk, path, MARKER)?;
        let marks = Marks::open(&*disk, path, record, std::process::id())?;
        let names = list(&*disk, path)?;
        notes.extend(impossible_names(&names).map(|name| {
            format!("{name} in {} has a number that no checkpoint can have, and was ignored", path.display())
        }));
        let highest = highest_number(&names).max(record.published);
        let owned = Owned::new(marks, highest, false);
        let inner = Inner {
            path: path.to_path_buf(),
            place: path.to_path_buf(),
            disk,
            state: record.state,
            remote: None,
            owned: Some(Mutex::new(owned)),
            found: record,
            notes,
            _locks: vec![marker, lock],
        };
        Ok(Store { inner: Arc::new(inner) })
    }

    /// Opens a state directory to start over in it, under another identity: nothing of former runs is found. Their files stay until
    /// [`forget_former`](Store::forget_former), which has to come before the first checkpoint.
    ///
    /// # Errors
    /// As [`open`](Store::open).
    pub fn open_anew(path: impl AsRef<Path>, disk: Arc<dyn Disk>) -> Result<Store> {
        let store = Store::open(path, disk)?;
        let mut inner = Arc::into_inner(store.inner).expect("nobody else has seen the store");
        inner.state = inner.disk.unique();
        let mut owned = inner.owned()?;
        owned.highest = 0;
        owned.has_former = true;
        drop(owned);
        Ok(Store { inner: Arc::new(inner) })
    }

    /// In a store that [started over](Store::open_anew): removes all that the directory holds of former runs. Otherwise nothing.
    ///
    /// A kill on the way leaves either what there was, or a directory that [`open`](Store::open) refuses because its checkpoints are
    /// gone; [`open_anew`](Store::open_anew) takes both.
    ///
    /// # Errors
    /// If a file cannot be removed.
    pub fn forget_former(&self) -> Result<()> {
        let inner = &*self.inner;
        let mut owned = inner.owned()?;
        if !owned.has_former {
            return Ok(());
        }
        if let Some(remote) = &inner.remote {
            // The directory is as it should be already.
            remote.forget(inner.state)?;
            owned.has_former = false;
            return Ok(());
        }
        let names = list(&*inner.disk, &inner.path)?;
        // The newest manifest goes last of all manifests: until then the directory is what it was.
        let (others, mut manifests): (Vec<&String>, Vec<&String>) =
            names.iter().filter(|name| is_state(name)).partition(|name| Manifest::id_of(name).is_none());
        manifests.sort_unstable();
        for name in manifests.into_iter().chain(others) {
            let path = inner.path.join(name);
            inner.disk.remove(&path).map_err(|error| Error::io("remove", &path, error))?;
        }
        inner.disk.sync_dir(&inner.path).map_err(|source| Error::SyncFailed { path: inner.path.clone(), source })?;
        owned.marks.forget(inner.state)?;
        owned.has_former = false;
        Ok(())
    }

    /// Opens a state directory or a savepoint to look into it: takes no lock and changes nothing.
    ///
    /// # Errors
    /// If it is not there or not one of ours.
    pub fn inspect(path: impl AsRef<Path>, disk: Arc<dyn Disk>) -> Result<Store> {
        let path = path.as_ref();
        let names = list(&*disk, path)?;
        check_is_ours(path, &names)?;
        if names.is_empty() {
            return Err(Error::NotACheckpoint { path: path.to_path_buf(), what: "it is empty".to_owned() });
        }
        let mut notes = Vec::new();
        let (record, _) = settle(&*disk, path, &mut notes)?;
        let (path, place) = (path.to_path_buf(), path.to_path_buf());
        let inner = Inner { path, place, disk, state: record.state, remote: None, owned: None, found: record, notes, _locks: Vec::new() };
        Ok(Store { inner: Arc::new(inner) })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// What users call the directory: its path, or the URL of what it is a cache of.
    pub fn location(&self) -> &Path {
        &self.inner.place
    }

    /// The object store whose checkpoints are in the directory, if there is one.
    pub fn remote(&self) -> Option<&Arc<Remote>> {
        self.inner.remote.as_ref()
    }

    /// Whether objects are to be deleted that no checkpoint refers to any more.
    pub fn should_sweep(&self) -> bool {
        self.inner.remote.as_ref().is_some_and(|remote| remote.has_spare())
    }

    /// Deletes them. Runs beside the job, on the caller's thread.
    ///
    /// # Errors
    /// If the store does not answer; what is left is deleted by a later call.
    pub fn sweep(&self) -> Result<()> {
        self.inner.remote.as_ref().map_or(Ok(()), |remote| remote.sweep())
    }

    /// The identity of the directory, which all of its files carry.
    pub fn id(&self) -> u64 {
        self.inner.state
    }

    /// The newest checkpoint that is known to have been published, whether or not it can still be used; 0 for none.
    ///
    /// # Errors
    /// If the directory cannot be listed.
    pub fn newest_published(&self) -> Result<u64> {
        if self.inner.has_former() {
            return Ok(0);
        }
        let names = list(&*self.inner.disk, &self.inner.path)?;
        Ok(self.inner.record().published.max(manifest_ids(&names).last().copied().unwrap_or(0)))
    }

    /// Notes that what the sinks wrote up to this checkpoint is committed: a later run no longer needs what the handles
    /// of the checkpoint refer to. `is_durable`: the note is to survive a crash of the machine at once, not only soon.
    ///
    /// # Errors
    /// If a durable note cannot be synced.
    pub fn settle(&self, epoch: u64, is_durable: bool) -> Result<()> {
        self.inner.owned()?.marks.settled(epoch, is_durable)?;
        // Otherwise the next checkpoint takes the note along.
        self.inner.remote.as_ref().filter(|_| is_durable).map_or(Ok(()), |remote| remote.settle(epoch))
    }

    /// The smallest number that the next checkpoint can have: above every number that occurs on disk, so that nothing
    /// is ever written under a name that was used before.
    pub fn next_epoch(&self) -> u64 {
        match &self.inner.owned {
            Some(_) => self.inner.owned().map_or(1, |owned| owned.highest + 1),
            None => self.inner.found.published + 1,
        }
    }

    /// Whether the next checkpoint must be, or had better be, a full one: nothing to build on yet, the last one failed,
    /// or the changes have come to cost more than they save.
    pub fn should_rebase(&self) -> bool {
        let Ok(owned) = self.inner.owned() else { return false };
        match &owned.base {
            None => true,
            Some(base) => owned.failed > 0 || crate::compact::should_rebase(&base.segments),
        }
    }

    /// Lets the next checkpoint of changes build on the one that was restored. If it is elsewhere (a savepoint), the
    /// next checkpoint has to be full, as [`should_rebase`](Store::should_rebase) will say.
    pub fn continue_from(&self, checkpoint: &Checkpoint) -> Result<()> {
        let mut owned = self.inner.owned()?;
        owned.failed = 0;
        owned.base = (checkpoint.path() == self.inner.path).then(|| Base::of(checkpoint.manifest()));
        Ok(())
    }

    /// Makes the next checkpoint a full one, which refers to nothing of those before it.
    ///
    /// # Errors
    /// When the directory is only looked at.
    pub fn rebase(&self) -> Result<()> {
        self.inner.owned()?.base = None;
        Ok(())
    }

    /// The newest checkpoint that is whole, with every byte of it checked. `None` if none was ever published.
    ///
    /// What was skipped, and why, is added to `notes`, a line each.
    ///
    /// # Errors
    /// If checkpoints were published, but none of them is whole or left.
    pub fn latest(&self, notes: &mut Vec<String>) -> Result<Option<Checkpoint>> {
        self.newest(notes, None)
    }

    /// The same, for another job that begins with it.
    ///
    /// # Errors
    /// As [`latest`](Store::latest); and if there is none.
    pub fn restored(&self, notes: &mut Vec<String>) -> Result<Checkpoint> {
        self.latest(notes)?.ok_or_else(|| Error::NotACheckpoint {
            path: self.inner.place.clone(),
            what: "no checkpoint was ever completed in it".to_owned(),
        })
    }

    /// The same, and every full block of keyed state is looked over as it is checked.
    ///
    /// # Errors
    /// As [`latest`](Store::latest).
    pub fn latest_inspected(&self, notes: &mut Vec<String>, inspect: Inspect) -> Result<Option<Checkpoint>> {
        self.newest(notes, Some(inspect))
    }

    fn newest(&self, notes: &mut Vec<String>, inspect: Option<Inspect>) -> Result<Option<Checkpoint>> {
        let inner = &*self.inner;
        notes.extend(inner.notes.iter().cloned());
        if inner.has_former() {
            return Ok(None);
        }
        let names = list(&*inner.disk, &inner.path)?;
        let ids = manifest_ids(&names);
        let published = inner.record().published;
        let Some(newest) = ids.last() else {
            if published > 0 {
                return Err(Error::StateMissing { path: inner.place.clone(), epoch: published });
            }
            return Ok(None);
        };
        let mut reasons = Vec::new();
        if published > *newest {
            reasons.push(format!("checkpoint {published} was published, but its manifest is gone"));
        }
        for id in ids.iter().rev() {
            match inner.load(*id, inspect) {
                Ok(checkpoint) => {
                    let checkpoint = checkpoint.settled_as_of(inner.record().settled);
                    notes.extend(reasons.iter().map(|reason| format!("{reason}; going back to checkpoint {id}")));
                    inner.remember(checkpoint.manifest());
                    return Ok(Some(checkpoint));
                }
                Err(error) if error.allows_fallback() => {
                    reasons.push(format!("checkpoint {id} cannot be used: {error}"));
                }
                Err(error) => return Err(error),
            }
        }
        Err(Error::NothingVerifies { path: inner.place.clone(), reasons })
    }

    /// One checkpoint by its number, with every byte of it checked.
    pub fn checkpoint(&self, id: u64) -> Result<Checkpoint> {
        let inner = &*self.inner;
        let names = list(&*inner.disk, &inner.path)?;
        if !manifest_ids(&names).contains(&id) {
            return Err(Error::NoSuchCheckpoint { path: inner.place.clone(), epoch: id });
        }
        let checkpoint = inner.load(id, None)?;
        Ok(checkpoint.settled_as_of(inner.record().settled))
    }

    /// The checkpoints there are, newest first, by their manifests alone.
    pub fn list(&self) -> Result<Vec<CheckpointInfo>> {
        let inner = &*self.inner;
        if inner.has_former() {
            return Ok(Vec::new());
        }
        let names = list(&*inner.disk, &inner.path)?;
        let mut infos = Vec::new();
        for id in manifest_ids(&names).into_iter().rev() {
            match Manifest::load(&*inner.disk, &inner.path, inner.state, id) {
                Ok(manifest) => infos.push(CheckpointInfo::of(&manifest)),
                Err(error) => infos.push(CheckpointInfo::damaged(id, &error)),
            }
        }
        Ok(infos)
    }

    /// Removes checkpoints that are no longer needed, and files that nothing refers to; returns how many files went.
    ///
    /// Kept are the newest `retain` checkpoints (at least one), all from `committed` on (the newest whose sinks have
    /// committed: before, a sink may still need what it refers to), and all they refer to.
    pub fn retire(&self, retain: usize, committed: u64) -> Result<usize> {
        crate::retire::retire(&self.inner, retain, committed)
    }
}

impl Base {
    pub(crate) fn of(manifest: &Manifest) -> Base {
        let since = manifest.operators.iter().map(|(uid, entry)| (uid.clone(), entry.since)).collect();
        // State without key and handles count in their own checkpoint only.
        let keyed = manifest.segments.iter().filter(|segment| segment.keyed_bytes > 0);
        Base { segments: keyed.cloned().collect(), since }
    }
}

impl CheckpointInfo {
    fn of(manifest: &Manifest) -> CheckpointInfo {
        CheckpointInfo {
            id: manifest.id,
            created: manifest.created,
            mode: manifest.mode.clone(),
            bytes: manifest.bytes,
            new_bytes: manifest.new_bytes,
            is_savepoint: manifest.is_savepoint,
            is_finished: manifest.is_finished,
            operators: manifest.operators.iter().map(|(uid, entry)| (uid.clone(), entry.name.clone())).collect(),
            damage: None,
        }
    }

    fn damaged(id: u64, error: &Error) -> CheckpointInfo {
        CheckpointInfo {
            id,
            created: 0,
            mode: String::new(),
            bytes: 0,
            new_bytes: 0,
            is_savepoint: false,
            is_finished: false,
            operators: BTreeMap::new(),
            damage: Some(error.to_string()),
        }
    }
}

impl Inner {
    /// What changes, in a store that may change it.
    pub(crate) fn owned(&self) -> Result<MutexGuard<'_, Owned>> {
        let owned = self.owned.as_ref().ok_or_else(|| Error::ReadOnly { path: self.path.clone() })?;
        // A panic while the lock was held leaves plain values that each make sense on their own.
        Ok(owned.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A checkpoint with every byte of it checked; of one in an object store, what is not here is fetched.
    pub(crate) fn load(&self, id: u64, inspect: Option<Inspect>) -> Result<Checkpoint> {
        let load = || Checkpoint::load(&self.disk, &self.path, self.state, id, inspect);
        let Some(remote) = &self.remote else { return load() };
        let fetched = || -> Result<Checkpoint> {
            let manifest = Manifest::load(&*self.disk, &self.path, self.state, id)?;
            let there = remote.fetch(&self.disk, &self.path, &manifest)?;
            match load() {
                // What was here may have been damaged here.
                Err(Error::Damaged { .. }) if !there.is_empty() => {
                    there.iter().try_for_each(|name| remote::remove(&*self.disk, &self.path.join(name)))?;
                    remote.fetch(&self.disk, &self.path, &manifest)?;
                    load()
                }
                outcome => outcome,
            }
        };
        let checkpoint = fetched().map_err(|error| match error {
            Error::Damaged { path, offset, what } => {
                let name = path.strip_prefix(&self.path).map(|name| remote.shown(&name.to_string_lossy()));
                Error::Damaged { path: name.unwrap_or(path), offset, what }
            }
            other => other,
        })?;
        Ok(checkpoint.placed(&self.place))
    }

    /// Whether what is there is of former runs, and to be removed.
    pub(crate) fn has_former(&self) -> bool {
        self.owned().is_ok_and(|owned| owned.has_former)
    }

    /// What the marks know.
    pub(crate) fn record(&self) -> Record {
        self.owned().map_or(self.found, |owned| owned.marks.record())
    }

    /// What names of segments have of the run: nobody else writes an object under such a name.
    pub(crate) fn run(&self) -> String {
        self.remote.as_ref().map_or_else(String::new, |remote| format!("{:016x}-", remote.run()))
    }

    fn remember(&self, manifest: &Manifest) {
        if let Ok(mut owned) = self.owned() {
            owned.manifests.insert(manifest.id, Arc::new(manifest.clone()));
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Whoever hears of the end of a job may start the next one; others may still have the remote place.
        if let Some(remote) = &self.remote {
            remote.release();
        }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("path", &self.inner.path).field("is_owned", &self.inner.owned.is_some()).finish()
    }
}

/// The names in a directory.
pub(crate) fn list(disk: &dyn Disk, path: &Path) -> Result<Vec<String>> {
    let entries = disk.list(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => {
            Error::NotACheckpoint { path: path.to_path_buf(), what: "there is no such directory".to_owned() }
        }
        _ => Error::io("list", path, error),
    })?;
    Ok(entries.into_iter().map(|entry| entry.name).collect())
}

/// The numbers of the checkpoints that have a manifest, in order.
pub(crate) fn manifest_ids(names: &[String]) -> Vec<u64> {
    let mut ids: Vec<u64> = names.iter().filter_map(|name| Manifest::id_of(name)).collect();
    ids.sort_unstable();
    ids
}

/// The checkpoint that a segment was written for, by its name.
pub(crate) fn segment_epoch(name: &str) -> Option<u64> {
    number(name.strip_prefix(SEGMENT_PREFIX)?.get(..20)?)
}

/// The number of a checkpoint as names have it; `None` for what no checkpoint can have.
pub(crate) fn number(digits: &str) -> Option<u64> {
    let is_number = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|number| is_number && *number <= EPOCH_MAX)
}

/// Names that look like ours, but for a number that no checkpoint can have: nothing is done with them.
fn impossible_names(names: &[String]) -> impl Iterator<Item = &String> {
    names.iter().filter(|name| {
        let plain = name.strip_suffix("-new").unwrap_or(name);
        let is_segment = plain.starts_with(SEGMENT_PREFIX) && segment_epoch(plain).is_none();
        is_segment || (plain.starts_with(MANIFEST_PREFIX) && Manifest::id_of(plain).is_none())
    })
}

pub(crate) fn highest_number(names: &[String]) -> u64 {
    let segments = names.iter().filter_map(|name| segment_epoch(name));
    let manifests = names.iter().filter_map(|name| Manifest::id_of(name.strip_suffix("-new").unwrap_or(name)));
    segments.chain(manifests).max().unwrap_or(0)
}

/// Refuses a directory that holds something else.
fn check_is_ours(path: &Path, names: &[String]) -> Result<()> {
    let is_ours = |name: &String| {
        [MARKER, LOCK, POSITIONS].iter().any(|ours| name.starts_with(ours))
            || segment_epoch(name).is_some()
            || name.starts_with(MANIFEST_PREFIX)
    };
    if names.is_empty() || names.iter().any(is_ours) {
        return Ok(());
    }
    let what = format!("it holds {:?}; give a new or an empty directory", names[0]);
    Err(Error::NotACheckpoint { path: path.to_path_buf(), what })
}

/// Whether a file of this name holds state.
fn is_state(name: &str) -> bool {
    let name = name.strip_suffix("-new").unwrap_or(name);
    segment_epoch(name).is_some() || Manifest::id_of(name).is_some() || name.starts_with(POSITIONS)
}

/// Finds out from both marks what is to be expected, and whether the marker has to be rewritten.
fn settle(disk: &dyn Disk, path: &Path, notes: &mut Vec<String>) -> Result<(Record, bool)> {
    let marker = marks::look(disk, &path.join(MARKER), true)?;
    let lock = marks::look(disk, &path.join(LOCK), false)?;
    let newest = match (marker.record(), lock.record()) {
        // A crash while the directory started over leaves one of the two as it was.
        (Some(marker), Some(lock)) if marker.state != lock.state && marker.former != lock.state && lock.former != marker.state => {
            let what = format!("{MARKER} and {LOCK} are of two different state directories");
            return Err(Error::damaged(&path.join(LOCK), 1024, what));
        }
        (marker, lock) => marker.into_iter().chain(lock).max_by_key(|record| record.sequence),
    };
    if let Some(record) = newest {
        for (name, found) in [(MARKER, &marker), (LOCK, &lock)] {
            match found {
                Found::Damaged(what) => notes.push(format!("{name} is damaged ({what}) and was rewritten")),
                Found::Absent if name == MARKER => notes.push(format!("{name} was missing and was rewritten")),
                _ => {}
            }
        }
        return Ok((record, marker.record().is_none()));
    }
    let names = list(disk, path)?;
    if let Some(name) = names.iter().find(|name| is_state(name)) {
        let what = format!("{name} is here, but neither {MARKER} nor {LOCK} can be read; put one of them back");
        return Err(Error::damaged(&path.join(MARKER), 0, what));
    }
    match (&marker, &lock) {
        (Found::Damaged(what), _) => Err(Error::damaged(&path.join(MARKER), 0, what.clone())),
        (_, Found::Damaged(what)) => Err(Error::damaged(&path.join(LOCK), 0, what.clone())),
        _ => Ok((Record { state: disk.unique(), ..Record::default() }, true)),
    }
}
