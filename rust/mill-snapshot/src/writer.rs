//! Writing a checkpoint, from several threads at once.
//!
//! ```text
//! begin(n) ─► write_task ┐                                    ┌─► sync of the directory ─► rename ─► sync again
//!             write_task ├─► segments, each synced ─► finish ─┤
//!             write_task ┘                                    └ manifest under a temporary name, synced
//! ```
//!
//! A large task gets a segment of its own, written by the thread that calls. Small tasks are laid out in memory and
//! share one segment that `finish` writes: a sync costs about the same for 1 KB and for 1 MB, and a job has many tasks.
//!
//! A failure affects this checkpoint alone: its files are removed, the next one uses new names, and has to be full, because
//! the changes of this one are stored nowhere.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use mill_frame::block::{Block, BlockAddress, BlockKind, BlockPayload};

use crate::error::{Error, Result};
use crate::manifest::{FileRef, Manifest, OperatorEntry};
use crate::segment::{
    BlockHeader, Body, Class, Item, Names, NamesUsed, Layout, Part, Place, SegmentRef, TaskId, lay_out_part,
    write_segment,
};
use crate::store::{Base, EPOCH_MAX, SEGMENT_PREFIX, Store, list, manifest_ids};

/// From this size on a task gets a segment of its own.
const OWN_SEGMENT_BYTES_MIN: usize = 1 << 20;

/// The state of one operator instance on its way into a checkpoint.
#[derive(Debug, Default)]
pub struct OperatorState {
    /// The identity of the operator's state.
    pub uid: String,
    /// State without key; must be part of every checkpoint, as that of older ones no longer counts.
    pub bytes: Option<Vec<u8>>,
    /// Keyed state: all of it, or what changed since the checkpoint before.
    pub blocks: Vec<Block>,
    /// What its sink needs to commit, with the epoch that each belongs to.
    pub handles: Vec<Handle>,
}

/// What a sink needs to make the output of an epoch visible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handle {
    /// The epoch.
    pub epoch: u64,
    /// What the sink's pre-commit returned.
    pub bytes: Vec<u8>,
}

/// What a manifest says beside the segments.
#[derive(Clone, Debug, Default)]
pub struct ManifestParts {
    /// When the barrier was sent, in microseconds since the Unix epoch.
    pub created: i64,
    /// The guarantee the job runs with.
    pub mode: String,
    /// Identifies the plan.
    pub plan_fingerprint: String,
    /// Whether the job has come to its end.
    pub is_finished: bool,
    /// Whether the user asked for it.
    pub is_savepoint: bool,
    /// All operators that have state or may have it.
    pub operators: Vec<OperatorInfo>,
    /// What else is to be kept, by name.
    pub notes: BTreeMap<String, String>,
    /// Files of sinks in the directory that their handles refer to, by their names in it.
    pub files: Vec<String>,
}

/// An operator as the manifest is to name it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OperatorInfo {
    /// The identity of its state.
    pub uid: String,
    /// The name of the step.
    pub name: String,
    /// What must match for its state to be restored.
    pub signature: String,
    /// How many instances there are.
    pub parallelism: u32,
    /// The parts of the signature that may come and go without the rest, by name: the aggregates of the step.
    pub parts: Vec<(String, String)>,
}

/// Writes one checkpoint. All methods may be called from any thread; dropped without `finish`, it is abandoned.
pub struct CheckpointWriter {
    store: Store,
    epoch: u64,
    is_full: bool,
    progress: Mutex<Progress>,
}

#[derive(Default)]
struct Progress {
    names: Names,
    files: u64,
    segments: Vec<(u64, SegmentRef)>,
    parts: Vec<(TaskId, Part)>,
    is_closed: bool,
    is_failed: bool,
}

impl Store {
    /// Begins checkpoint `epoch`, full or of changes.
    ///
    /// # Errors
    /// If the number is not above all that were used before (see [`next_epoch`](Store::next_epoch)), or if it is to hold
    /// changes only and there is nothing to build on.
    pub fn begin(&self, epoch: u64, is_full: bool) -> Result<CheckpointWriter> {
        let mut owned = self.inner.owned()?;
        if epoch <= owned.highest {
            return Err(Error::EpochTaken { epoch, next: owned.highest + 1 });
        }
        if epoch > EPOCH_MAX {
            return Err(Error::TooLarge { what: "the number of a checkpoint".to_owned(), size: epoch, limit: EPOCH_MAX });
        }
        if !is_full && (owned.base.is_none() || owned.failed > 0) {
            return Err(Error::NeedsFull { epoch });
        }
        owned.highest = epoch;
        owned.writing.insert(epoch);
        drop(owned);
        Ok(CheckpointWriter { store: self.clone(), epoch, is_full, progress: Mutex::default() })
    }
}

impl CheckpointWriter {
    /// The number of the checkpoint.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether it holds all state, not only changes.
    pub fn is_full(&self) -> bool {
        self.is_full
    }

    /// Stores the state of one task; returns how many bytes it takes.
    ///
    /// # Errors
    /// If it cannot be made durable. The checkpoint has then failed: abandon it.
    pub fn write_task(&self, task: &TaskId, operators: Vec<OperatorState>) -> Result<u64> {
        let written = self.write_task_unchecked(task, operators);
        if written.is_err() {
            self.lock().is_failed = true;
        }
        written
    }

    fn write_task_unchecked(&self, task: &TaskId, operators: Vec<OperatorState>) -> Result<u64> {
        let mut progress = self.lock();
        if progress.is_closed {
            return Err(Error::Closed { epoch: self.epoch });
        }
        let (items, used) = items_of(&mut progress.names, task, operators, self.epoch)?;
        let layout = Layout::of(&items, self.epoch);
        let total = layout.bytes;
        if items.is_empty() {
            return Ok(0);
        }
        if total < OWN_SEGMENT_BYTES_MIN {
            drop(progress);
            let part = lay_out_part(items, &layout, used, self.epoch)?;
            let mut progress = self.lock();
            if progress.is_closed {
                return Err(Error::Closed { epoch: self.epoch });
            }
            progress.parts.push((task.clone(), part));
            return Ok(total as u64);
        }
        let names = progress.names.encode(&used);
        progress.files += 1;
        let number = progress.files;
        drop(progress);
        let segment = self.write_segment(number, &names, Body::Items(items, layout))?;
        let bytes = segment.bytes;
        let mut progress = self.lock();
        if progress.is_closed {
            self.remove(&segment.file);
            return Err(Error::Closed { epoch: self.epoch });
        }
        progress.segments.push((number, segment));
        Ok(bytes)
    }

    /// Publishes the checkpoint: when this returns, it exists and is durable.
    ///
    /// Checkpoints are finished in the order of their numbers; one of changes builds on the one before.
    ///
    /// # Errors
    /// If anything cannot be made durable; the checkpoint is then abandoned. After [`Error::Indeterminate`] it may turn
    /// up at the next start nevertheless: go on as if it had failed, and keep what its sinks need in the next one.
    ///
    /// # Panics
    /// If state of an operator was written that `parts` does not name: it could not be restored.
    pub fn finish(&self, parts: ManifestParts) -> Result<Manifest> {
        let published = self.finish_unchecked(parts);
        match &published {
            Ok(_) => {}
            Err(Error::Indeterminate { .. }) => self.give_up(false),
            Err(_) => self.give_up(true),
        }
        published
    }

    fn finish_unchecked(&self, parts: ManifestParts) -> Result<Manifest> {
        let mut progress = self.lock();
        if progress.is_closed || progress.is_failed {
            return Err(Error::Closed { epoch: self.epoch });
        }
        for uid in progress.names.operators() {
            let is_named = parts.operators.iter().any(|info| info.uid == *uid);
            assert!(is_named, "state of operator {uid:?} was written, but the manifest does not name it");
        }
        let mut small = std::mem::take(&mut progress.parts);
        small.sort_by(|(a, _), (b, _)| a.cmp(b));
        if !small.is_empty() {
            let mut used = NamesUsed::default();
            small.iter().for_each(|(_, part)| used.merge(&part.used));
            let names = progress.names.encode(&used);
            let body = Body::Parts(small.into_iter().map(|(_, part)| part).collect());
            let segment = self.write_segment(0, &names, body)?;
            progress.segments.push((0, segment));
        }
        progress.segments.sort_by_key(|(number, _)| *number);
        let new: Vec<SegmentRef> = progress.segments.iter().map(|(_, segment)| segment.clone()).collect();
        drop(progress);
        let manifest = self.manifest(parts, new)?;
        // From here on a manifest may name the files: they are removed only when it is certain that none does. A panic on
        // the way drops this writer, too.
        let segments = std::mem::take(&mut self.lock().segments);
        match self.publish(&manifest) {
            Ok(()) => {}
            Err(error @ Error::Indeterminate { .. }) => return Err(error),
            Err(error) => {
                self.lock().segments = segments;
                return Err(error);
            }
        }
        self.settle(&manifest)?;
        Ok(manifest)
    }

    /// Removes what was written. The next checkpoint has to be full.
    pub fn abandon(&self) {
        self.give_up(true);
    }

    fn manifest(&self, parts: ManifestParts, new: Vec<SegmentRef>) -> Result<Manifest> {
        let owned = self.store.inner.owned()?;
        let published = owned.marks.record().published;
        if published >= self.epoch {
            return Err(Error::EpochTaken { epoch: self.epoch, next: owned.highest + 1 });
        }
        let is_first_to_finish = owned.writing.first() == Some(&self.epoch);
        let base = match &owned.base {
            _ if self.is_full => Base { segments: Vec::new(), since: BTreeMap::new() },
            Some(base) if owned.failed == 0 && is_first_to_finish => base.clone(),
            _ => return Err(Error::NeedsFull { epoch: self.epoch }),
        };
        let entry = |info: OperatorInfo| {
            let since = base.since.get(&info.uid).copied().unwrap_or(self.epoch);
            let OperatorInfo { uid, name, signature, parallelism, parts } = info;
            (uid, OperatorEntry { name, signature, parallelism, since, parts })
        };
        let operators = parts.operators.into_iter().map(entry).collect();
        let new_bytes = new.iter().map(|segment| segment.bytes).sum();
        let mut segments = base.segments;
        segments.extend(new);
        // On the disk, what handles refer to is where the checkpoint is.
        let inner = &self.store.inner;
        let named = parts.files.iter().filter(|_| inner.remote.is_some());
        let files = named.map(|name| FileRef::of(&*inner.disk, &inner.path, name)).collect::<Result<_>>()?;
        Ok(Manifest {
            id: self.epoch,
            state: self.store.inner.state,
            created: parts.created,
            mode: parts.mode,
            plan_fingerprint: parts.plan_fingerprint,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            is_finished: parts.is_finished,
            is_savepoint: parts.is_savepoint,
            operators,
            bytes: segments.iter().map(|segment| segment.bytes).sum(),
            new_bytes,
            segments,
            files,
            notes: parts.notes,
        })
    }

    fn publish(&self, manifest: &Manifest) -> Result<()> {
        publish(&self.store, manifest)
    }

    /// The checkpoint exists: the next one builds on it.
    fn settle(&self, manifest: &Manifest) -> Result<()> {
        let mut owned = self.store.inner.owned()?;
        if self.is_full && owned.failed < self.epoch {
            owned.failed = 0;
        }
        owned.base = Some(Base::of(manifest));
        owned.manifests.insert(manifest.id, std::sync::Arc::new(manifest.clone()));
        owned.writing.remove(&self.epoch);
        let marked = owned.marks.published(self.epoch);
        drop(owned);
        self.lock().is_closed = true;
        // The checkpoint is durable; a mark that could not be synced only weakens the search for deleted files.
        let _ = marked;
        Ok(())
    }

    fn write_segment(&self, number: u64, names: &[u8], body: Body) -> Result<SegmentRef> {
        let inner = &self.store.inner;
        let place = Place {
            disk: &*inner.disk,
            dir: &inner.path,
            file: format!("{SEGMENT_PREFIX}{:020}-{}{number:04}", self.epoch, inner.run()),
            epoch: self.epoch,
            state: inner.state,
            is_full: self.is_full,
        };
        let segment = write_segment(&place, names, body)?;
        if let Some(remote) = &inner.remote {
            remote.upload(&*inner.disk, &inner.path, &segment.file)?;
        }
        Ok(segment)
    }

    fn give_up(&self, is_removed: bool) {
        let mut progress = self.lock();
        if std::mem::replace(&mut progress.is_closed, true) {
            return;
        }
        progress.parts.clear();
        let segments = std::mem::take(&mut progress.segments);
        drop(progress);
        if let Ok(mut owned) = self.store.inner.owned() {
            owned.failed = owned.failed.max(self.epoch);
            owned.writing.remove(&self.epoch);
        }
        if is_removed {
            segments.iter().for_each(|(_, segment)| self.remove(&segment.file));
        }
    }

    fn remove(&self, file: &str) {
        // Best effort: what is left over goes with a later `retire`.
        let _ = self.store.inner.disk.remove(&self.store.inner.path.join(file));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes a manifest under a temporary name, makes all names before it durable, and renames it to its own name.
pub(crate) fn publish(store: &Store, manifest: &Manifest) -> Result<()> {
    let (disk, dir) = (&*store.inner.disk, &store.inner.path);
    let raw = manifest.encode();
    let path = dir.join(Manifest::file_name(manifest.id));
    let temporary = dir.join(format!("{}-new", Manifest::file_name(manifest.id)));
    let create = || -> Result<()> {
        let mut file = disk.create(&temporary, raw.len() as u64).map_err(|e| Error::io("create", &temporary, e))?;
        file.bytes().copy_from_slice(&raw);
        file.finish().map_err(|source| Error::SyncFailed { path: temporary.clone(), source })?;
        disk.sync_dir(dir).map_err(|source| Error::SyncFailed { path: dir.clone(), source })
    };
    if let Err(error) = create() {
        let _ = disk.remove(&temporary);
        return Err(error);
    }
    if let Some(remote) = &store.inner.remote {
        let (kept, settled) = {
            // Those that are here exist there, and no others: `retire` has removed those that are not needed.
            let mut kept = manifest_ids(&list(disk, dir)?);
            kept.retain(|id| *id < manifest.id);
            (kept, store.inner.owned()?.marks.record().settled)
        };
        if let Err(error) = remote.publish(disk, dir, manifest, &raw, &kept, settled) {
            let _ = disk.remove(&temporary);
            return Err(error);
        }
    }
    // From here on a crash may show the checkpoint or not.
    if let Err(source) = disk.rename(&temporary, &path) {
        let _ = disk.remove(&temporary);
        return Err(Error::Indeterminate { epoch: manifest.id, source });
    }
    disk.sync_dir(dir).map_err(|source| Error::Indeterminate { epoch: manifest.id, source })
}

fn items_of(
    names: &mut Names,
    task: &TaskId,
    operators: Vec<OperatorState>,
    epoch: u64,
) -> Result<(Vec<Item>, NamesUsed)> {
    let mut used = NamesUsed::default();
    let mut items = Vec::new();
    let task_number = names.task(task)?;
    used.tasks.insert(task_number);
    for state in operators {
        let operator = names.operator(&state.uid)?;
        used.operators.insert(operator);
        let nowhere = BlockAddress { state: 0, namespace: 0, group: 0, chunk: 0 };
        let mut push = |class, kind, address, payload: Box<dyn BlockPayload>| {
            let header =
                BlockHeader { class, kind, operator, task: task_number, address, bytes: 0, epoch, payload_crc: 0 };
            items.push(Item::new(header, payload));
        };
        if let Some(bytes) = state.bytes {
            push(Class::Bytes, BlockKind::Full, nowhere, Box::new(bytes));
        }
        for handle in state.handles {
            let address = BlockAddress { namespace: handle.epoch as i64, ..nowhere };
            push(Class::Handle, BlockKind::Full, address, Box::new(handle.bytes));
        }
        for block in state.blocks {
            push(Class::Keyed, block.settled_kind(), block.address, block.payload);
        }
    }
    Ok((items, used))
}

impl Drop for CheckpointWriter {
    fn drop(&mut self) {
        self.give_up(true);
    }
}

impl fmt::Debug for CheckpointWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckpointWriter").field("epoch", &self.epoch).field("is_full", &self.is_full).finish()
    }
}
