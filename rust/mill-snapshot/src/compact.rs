//! Keeping the chain of segments short, in two ways.
//!
//! * A *rebase*: the next checkpoint is full, and nothing older is needed. Only the live state can do that for chunks
//!   of which single rows were written. Worth it when the changes have come to be as large as what they build on: then
//!   no more than half of what is ever written is for rebases, and a recovery reads no more than twice the state.
//! * A *merge*: blocks that newer ones supersede are left out and the rest is copied into one file. That needs no live
//!   state and runs while the job runs. The youngest segments are merged, as long as the next older one is not more than
//!   twice as large as all younger ones. So a large base is not copied for the sake of small changes, and every byte is
//!   copied a logarithmic number of times.

use std::path::Path;

use crate::disk::Disk;
use crate::error::Result;
use crate::segment::{Body, Class, Item, Mapped, Names, NamesUsed, Place, Segment, SegmentRef, write_segment};
use crate::store::{Inner, SEGMENT_PREFIX, Store};
use crate::survivors::{Survivor, survivors};

/// Below this size changes are never too large.
const CHANGES_BYTES_MIN: u64 = 1 << 20;
/// Below this size of the whole a rebase is cheaper than a merge.
const MERGE_BYTES_MIN: u64 = 16 << 20;
/// How many segments a chain has before it is shortened.
const SEGMENTS_MAX: usize = 32;

/// Whether changes have come to cost more than they save.
pub(crate) fn should_rebase(chain: &[SegmentRef]) -> bool {
    let full: u64 = chain.iter().filter(|segment| segment.is_full).map(|segment| segment.keyed_bytes).sum();
    let changes: u64 = chain.iter().filter(|segment| !segment.is_full).map(|segment| segment.keyed_bytes).sum();
    let is_cheap = full + changes < MERGE_BYTES_MIN;
    changes > full.max(CHANGES_BYTES_MIN) || (is_cheap && chain.len() > SEGMENTS_MAX)
}

/// Which segments of a chain to merge: a run at its end that is worth it.
fn run_to_merge(chain: &[SegmentRef]) -> Option<std::ops::Range<usize>> {
    if chain.len() <= SEGMENTS_MAX {
        return None;
    }
    let mut start = chain.len();
    let mut young = 0;
    while start > 0 && (chain.len() - start < SEGMENTS_MAX / 2 || chain[start - 1].bytes <= 2 * young) {
        start -= 1;
        young += chain[start].bytes;
    }
    Some(start..chain.len())
}

impl Store {
    /// Whether [`compact`](Store::compact) has something to do.
    pub fn should_compact(&self) -> bool {
        let Ok(owned) = self.inner.owned() else { return false };
        owned.base.as_ref().is_some_and(|base| !owned.is_merging && run_to_merge(&base.segments).is_some())
    }

    /// Merges young segments of the newest checkpoint into one, which the next checkpoint then refers to in their
    /// stead. Runs beside the job, on the caller's thread; returns the merged segment, or `None` if there was nothing to
    /// do or a full checkpoint has made it superfluous.
    pub fn compact(&self) -> Result<Option<SegmentRef>> {
        let (run, is_start, since, number) = {
            let mut owned = self.inner.owned()?;
            if owned.is_merging {
                return Ok(None);
            }
            let Some(base) = &owned.base else { return Ok(None) };
            let Some(range) = run_to_merge(&base.segments) else { return Ok(None) };
            let (run, is_start, since) = (base.segments[range.clone()].to_vec(), range.start == 0, base.since.clone());
            owned.is_merging = true;
            owned.merges += 1;
            (run, is_start, since, owned.merges)
        };
        let _merging = Merging(&self.inner);
        let is_current = |uid: &str| since.get(uid).copied().unwrap_or(u64::MAX);
        let merged = self.merge(&run, is_start, is_current, number);
        let mut owned = self.inner.owned()?;
        let place = owned.base.as_mut().and_then(|base| {
            let at = base.segments.windows(run.len()).position(|window| window == run)?;
            Some((base, at))
        });
        let merged = match merged {
            Ok(merged) => merged,
            // A full checkpoint has come and the segments are retired: nothing is lost but the work.
            Err(_) if place.is_none() => return Ok(None),
            Err(error) => return Err(error),
        };
        match place {
            Some((base, at)) => {
                base.segments.splice(at..at + run.len(), [merged.clone()]);
                Ok(Some(merged))
            }
            None => {
                drop(owned);
                // Best effort: retention removes it otherwise.
                let _ = self.inner.disk.remove(&self.inner.path.join(&merged.file));
                Ok(None)
            }
        }
    }

    fn merge(
        &self,
        run: &[SegmentRef],
        is_start: bool,
        since: impl Fn(&str) -> u64,
        number: u64,
    ) -> Result<SegmentRef> {
        let inner = &self.inner;
        let chain = run
            .iter()
            .map(|wanted| Segment::open(&*inner.disk, &inner.path, inner.state, wanted, None))
            .collect::<Result<Vec<_>>>()?;
        let epoch = run.iter().map(|segment| segment.epoch).max().expect("a run has segments");
        let place = Place {
            disk: &*inner.disk,
            dir: &inner.path,
            file: format!("{SEGMENT_PREFIX}{epoch:020}-{}merged-{number:04}", inner.run()),
            epoch,
            state: inner.state,
            is_full: is_start && run.iter().any(|segment| segment.is_full),
        };
        write_merged(&place, &chain, !is_start, since, None)
    }
}

/// Writes what counts of a chain into one segment. `instance_epoch`: state without key and handles of this checkpoint
/// are copied too.
pub(crate) fn write_merged(
    place: &Place<'_>,
    chain: &[Segment],
    keeps_marks: bool,
    since: impl Fn(&str) -> u64,
    instance_epoch: Option<u64>,
) -> Result<SegmentRef> {
    let mut names = Names::default();
    let mut used = NamesUsed::default();
    let mut items = Vec::new();
    let found = survivors(chain, keeps_marks, since);
    for Survivor { segment, block, operator } in found.blocks {
        let mut header = block.header;
        if header.class != Class::Keyed && instance_epoch != Some(header.epoch) {
            continue;
        }
        header.operator = names.operator(found.operators[operator])?;
        header.task = names.task(segment.task(block))?;
        used.operators.insert(header.operator);
        used.tasks.insert(header.task);
        items.push(Item::new(header, Box::new(Mapped(segment.payload(block)))));
    }
    write_segment(place, &names.encode(&used), Body::of(items, place.epoch))
}

/// Notes the end of a merge, however it ends.
struct Merging<'a>(&'a Inner);

impl Drop for Merging<'_> {
    fn drop(&mut self) {
        if let Ok(mut owned) = self.0.owned() {
            owned.is_merging = false;
        }
    }
}

/// Copies a checkpoint into another directory, all in one segment.
pub(crate) fn copy_merged(
    disk: &dyn Disk,
    dir: &Path,
    state: u64,
    chain: &[Segment],
    manifest: &crate::manifest::Manifest,
) -> Result<SegmentRef> {
    let place = Place {
        disk,
        dir,
        file: format!("{SEGMENT_PREFIX}{:020}-{:04}", manifest.id, 0),
        epoch: manifest.id,
        state,
        is_full: true,
    };
    let since = |uid: &str| manifest.operators.get(uid).map_or(u64::MAX, |entry| entry.since);
    write_merged(&place, chain, false, since, Some(manifest.id))
}
