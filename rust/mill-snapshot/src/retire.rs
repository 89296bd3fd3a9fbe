//! Retention: removes files that no retained checkpoint refers to.
//!
//! Order matters: first the manifests go, then their segments, so that a kill in between leaves files that nothing
//! refers to and never a manifest without its files. (A crash of the machine may undo the removal of an old manifest
//! alone: it is then one that is not whole, after newer ones that are, and goes with the next retirement.) A manifest
//! that cannot be read refers to nothing that could be used; it goes when it is older than all that are kept. In an object store
//! the same goes, a little later and beside the job ([`Store::sweep`](crate::Store::sweep)).

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::manifest::{Manifest, is_plain_path};
use crate::store::{Inner, list, manifest_ids, segment_epoch};

pub(crate) fn retire(inner: &Inner, retain: usize, committed: u64) -> Result<usize> {
    let names = list(&*inner.disk, &inner.path)?;
    let mut owned = inner.owned()?;
    let mut kept: BTreeMap<u64, Arc<Manifest>> = BTreeMap::new();
    let ids = manifest_ids(&names);
    for id in ids.iter().rev() {
        if kept.len() >= retain.max(1) && *id < committed {
            break;
        }
        let manifest = match owned.manifests.get(id) {
            Some(manifest) => Some(Arc::clone(manifest)),
            None => Manifest::load(&*inner.disk, &inner.path, inner.state, *id).ok().map(Arc::new),
        };
        if let Some(manifest) = manifest {
            kept.insert(*id, manifest);
        }
    }
    // Without a single good checkpoint nothing is known to be superfluous.
    let Some((&oldest, _)) = kept.first_key_value() else { return Ok(0) };
    let newest = kept.last_key_value().map_or(oldest, |(id, _)| *id);
    let mut needed: HashSet<&str> = HashSet::new();
    for manifest in kept.values() {
        needed.extend(manifest.segments.iter().map(|segment| segment.file.as_str()));
        needed.extend(manifest.files.iter().map(|file| file.name.as_str()));
    }
    if let Some(base) = &owned.base {
        needed.extend(base.segments.iter().map(|segment| segment.file.as_str()));
    }
    let oldest_writing = owned.writing.first().copied().unwrap_or(u64::MAX);
    let is_spare = |epoch: u64, name: &str| {
        epoch <= newest && epoch < oldest_writing && !owned.writing.contains(&epoch) && !needed.contains(name)
    };
    if let Some(remote) = &inner.remote {
        // What a sink's file was kept for is committed, once no checkpoint names it any more. What
        // checkpoints of a former run name was there when this run began.
        let retired: HashSet<&str> = owned.manifests.range(..oldest).flat_map(|(_, old)| &old.files).map(|file| file.name.as_str()).collect();
        remote.note_spare(|name, is_former| match (Manifest::id_of(name), segment_epoch(name)) {
            (Some(id), _) => id < newest && !kept.contains_key(&id),
            (_, Some(epoch)) => is_spare(epoch, name) && !(name.contains("-merged-") && owned.is_merging),
            _ => (is_former && is_plain_path(name) || retired.contains(name)) && !needed.contains(name),
        });
    }
    let old_manifests: Vec<&String> =
        names.iter().filter(|name| Manifest::id_of(name).is_some_and(|id| id < oldest)).collect();
    let leftovers = names.iter().filter(|name| {
        let unfinished = name.strip_suffix("-new").and_then(Manifest::id_of);
        unfinished.is_some_and(|id| id <= newest && id < oldest_writing)
    });
    let segments = names.iter().filter(|name| {
        let is_merged = name.contains("-merged-");
        segment_epoch(name).is_some_and(|epoch| is_spare(epoch, name)) && !(is_merged && owned.is_merging)
    });
    let mut count = 0;
    let mut remove = |name: &String| {
        let path = inner.path.join(name);
        match inner.disk.remove(&path) {
            Ok(()) => count += 1,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io("remove", &path, error)),
        }
        Ok(())
    };
    old_manifests.iter().try_for_each(|name| remove(name))?;
    leftovers.chain(segments).try_for_each(remove)?;
    owned.manifests.retain(|id, _| *id >= oldest);
    Ok(count)
}
