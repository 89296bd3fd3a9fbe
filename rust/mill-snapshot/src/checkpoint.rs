//! A checkpoint that was checked and can be restored from.
//!
//! Its blocks are what [`survivors`] leaves, oldest first, so that whoever restores applies one after the other.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mill_frame::block::{Inspect, RestoredBlock, SharedBytes};
use mill_frame::on_all_cores;
use rayon::prelude::*;

use crate::disk::Disk;
use crate::error::Result;
use crate::manifest::Manifest;
use crate::segment::{Class, Segment, TaskId};
use crate::store::Store;
use crate::survivors::{Survivor, survivors};

/// A checkpoint whose every byte was checked. Its segments stay mapped while anything of it is in use.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    path: PathBuf,
    place: PathBuf,
    manifest: Arc<Manifest>,
    operators: Arc<HashMap<String, Contents>>,
    is_settled: bool,
}

/// What a checkpoint holds for one operator.
#[derive(Debug, Default)]
struct Contents {
    bytes: Vec<(TaskId, SharedBytes)>,
    handles: Vec<(u64, SharedBytes)>,
    blocks: Vec<RestoredBlock>,
}

impl Checkpoint {
    /// Opens the newest whole checkpoint of a savepoint or of another state directory, without locking it.
    ///
    /// # Errors
    /// If there is none, or it is not whole.
    pub fn restore_from(path: impl AsRef<Path>, disk: Arc<dyn Disk>, notes: &mut Vec<String>) -> Result<Checkpoint> {
        Store::inspect(path, disk)?.restored(notes)
    }

    pub(crate) fn load(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        state: u64,
        id: u64,
        inspect: Option<Inspect>,
    ) -> Result<Checkpoint> {
        let manifest = Manifest::load(&**disk, dir, state, id)?;
        let segments = open_chain(&**disk, dir, state, &manifest, inspect)?;
        let found = survivors(&segments, false, |uid| manifest.operators.get(uid).map_or(u64::MAX, |e| e.since));
        let mut contents: Vec<Contents> = found.operators.iter().map(|_| Contents::default()).collect();
        let mut counts = vec![0; contents.len()];
        found.blocks.iter().for_each(|block| counts[block.operator] += 1);
        contents.iter_mut().zip(counts).for_each(|(contents, count)| contents.blocks.reserve_exact(count));
        for Survivor { segment, block, operator } in found.blocks {
            let contents = &mut contents[operator];
            let bytes = segment.payload(block);
            match block.header.class {
                Class::Keyed => {
                    let (address, kind) = (block.header.address, block.header.kind);
                    contents.blocks.push(RestoredBlock { address, kind, bytes, seen: block.seen });
                }
                // State without key is written again by every checkpoint: that of older ones no longer counts.
                _ if block.header.epoch != manifest.id => {}
                Class::Bytes => contents.bytes.push((segment.task(block).clone(), bytes)),
                Class::Handle => contents.handles.push((block.header.address.namespace as u64, bytes)),
            }
        }
        let mut operators: HashMap<String, Contents> =
            manifest.operators.keys().map(|uid| (uid.clone(), Contents::default())).collect();
        for (uid, contents) in found.operators.iter().zip(contents) {
            if let Some(place) = operators.get_mut(*uid) {
                *place = contents;
            }
        }
        for contents in operators.values_mut() {
            contents.bytes.sort_by(|(a, _), (b, _)| a.cmp(b));
            contents.handles.sort_by_key(|(epoch, _)| *epoch);
        }
        let (path, place) = (dir.to_path_buf(), dir.to_path_buf());
        Ok(Checkpoint { path, place, manifest: Arc::new(manifest), operators: Arc::new(operators), is_settled: false })
    }

    /// The same, in a directory whose checkpoints are settled up to this one.
    pub(crate) fn settled_as_of(mut self, settled: u64) -> Checkpoint {
        self.is_settled = self.id() <= settled;
        self
    }

    /// Whether everything that its handles refer to is known to have been committed.
    pub fn is_settled(&self) -> bool {
        self.is_settled
    }

    /// The number of the checkpoint.
    pub fn id(&self) -> u64 {
        self.manifest.id
    }

    /// The directory it is in.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What users call that directory.
    pub fn location(&self) -> &Path {
        &self.place
    }

    /// The same, in a directory that users call otherwise.
    pub(crate) fn placed(self, place: &Path) -> Checkpoint {
        Checkpoint { place: place.to_path_buf(), ..self }
    }

    /// All that the manifest says.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The state of one operator: the state without key of each of its former instances, and the blocks of these key
    /// groups, oldest first. The bytes are in the mapped files, aligned to 64. Empty for an operator it does not know.
    pub fn restored(&self, uid: &str, groups: Range<u16>) -> (Vec<SharedBytes>, Vec<RestoredBlock>) {
        let Some(contents) = self.operators.get(uid) else { return (Vec::new(), Vec::new()) };
        let bytes = contents.bytes.iter().map(|(_, bytes)| bytes.clone()).collect();
        let blocks = contents.blocks.iter().filter(|block| groups.contains(&block.address.group)).cloned().collect();
        (bytes, blocks)
    }

    /// The state without key of each former instance of an operator, with the task it was.
    pub fn bytes_by_task(&self, uid: &str) -> &[(TaskId, SharedBytes)] {
        self.operators.get(uid).map_or(&[], |contents| &contents.bytes)
    }

    /// What the sink of this operator needs to commit, with the epoch of each, oldest first.
    pub fn handles(&self, uid: &str) -> &[(u64, SharedBytes)] {
        self.operators.get(uid).map_or(&[], |contents| &contents.handles)
    }

    /// All handles, by operator: what is to be committed at recovery.
    pub fn all_handles(&self) -> BTreeMap<&str, &[(u64, SharedBytes)]> {
        let with_handles = self.operators.iter().filter(|(_, contents)| !contents.handles.is_empty());
        with_handles.map(|(uid, contents)| (uid.as_str(), contents.handles.as_slice())).collect()
    }

    /// How many bytes of state an operator has: without key, and with.
    pub fn size_of(&self, uid: &str) -> (u64, u64) {
        let Some(contents) = self.operators.get(uid) else { return (0, 0) };
        let bytes = contents.bytes.iter().map(|(_, bytes)| bytes.len() as u64).sum();
        (bytes, contents.blocks.iter().map(|block| block.bytes.len() as u64).sum())
    }
}

/// Maps and checks all segments of a checkpoint, oldest first.
pub(crate) fn open_chain(
    disk: &dyn Disk,
    dir: &Path,
    state: u64,
    manifest: &Manifest,
    inspect: Option<Inspect>,
) -> Result<Vec<Segment>> {
    on_all_cores(|| {
        manifest.segments.par_iter().map(|wanted| Segment::open(disk, dir, state, wanted, inspect)).collect()
    })
}
