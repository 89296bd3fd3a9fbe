//! Opens the state directory of a job and finds what to go on from.

use std::sync::Arc;

use mill_plan::Outline;
use mill_protocol::{Error, Result};
use mill_runtime::PLAN_NOTE;
use mill_snapshot::{Checkpoint, Disk, RealDisk, Store};

use crate::options::CheckpointOptions;

/// What a job starts with.
#[derive(Default)]
pub(crate) struct Recovered {
    pub(crate) store: Option<Store>,
    pub(crate) checkpoint: Option<Checkpoint>,
    pub(crate) notes: Vec<String>,
}

/// Opens the state directory, if there is to be one. What the directory itself holds goes before `restore_from`, so
/// that the same script, run again, goes on.
///
/// What has changed in the plan since then is among the notes.
///
/// # Errors
/// When the directory cannot be used, or the job had finished and its plan is another one now.
pub(crate) fn open(options: Option<&CheckpointOptions>, outline: &Outline, disk: Arc<dyn Disk>) -> Result<Recovered> {
    let Some(options) = options else { return Ok(Recovered::default()) };
    let mut notes = Vec::new();
    if let (true, Some(from)) = (options.restart, &options.restore_from)
        && let (Ok(own), Ok(from)) = (options.path.canonicalize(), from.canonicalize())
        && own == from
    {
        return Err(Error::checkpoint(format!(
            "restart=True removes what {} holds, and restore_from= names the same directory; leave restart out to go on from it, \
             or take a savepoint elsewhere first",
            own.display()
        )));
    }
    let open = if options.restart { Store::open_anew } else { Store::open };
    let store = open(&options.path, Arc::clone(&disk)).map_err(failed)?;
    let mut checkpoint = store.latest_inspected(&mut notes, mill_state::inspect).map_err(failed)?;
    if let (None, Some(from)) = (&checkpoint, &options.restore_from) {
        checkpoint = Some(Checkpoint::restore_from(from, disk, &mut notes).map_err(failed)?);
    }
    if let Some(checkpoint) = &checkpoint {
        notes.extend(changes(checkpoint, outline)?);
    }
    Ok(Recovered { store: Some(store), checkpoint, notes })
}

/// The newest checkpoint of a directory that another job may be using; nothing is locked or changed.
///
/// # Errors
/// As [`open`].
pub(crate) fn look(options: &CheckpointOptions, outline: &Outline) -> Result<Option<Checkpoint>> {
    let store = Store::inspect(&options.path, Arc::new(RealDisk)).map_err(failed)?;
    let newest = store.latest(&mut Vec::new()).map_err(failed)?;
    newest.iter().try_for_each(|newest| changes(newest, outline).map(drop))?;
    Ok(newest)
}

/// How the plan differs from the one that a checkpoint was taken with, a line each.
fn changes(checkpoint: &Checkpoint, outline: &Outline) -> Result<Vec<String>> {
    let manifest = checkpoint.manifest();
    // Checkpoints of older versions keep no plan.
    let former = manifest.notes.get(PLAN_NOTE).and_then(|text| Outline::decode(text));
    let changes = former.map(|former| outline.changes_since(&former)).unwrap_or_default();
    let id = checkpoint.id();
    if manifest.is_finished && !changes.is_empty() {
        return Err(Error::checkpoint(format!(
            "the job had finished with checkpoint {id} in {}, and its plan has changed since: {}; start over with \
             mill.Checkpoint(…, restart=True), or give another directory",
            checkpoint.path().display(),
            changes.join("; ")
        )));
    }
    Ok(changes.into_iter().map(|change| format!("the plan has changed since checkpoint {id}: {change}")).collect())
}

/// A failure of the state directory, as users see it.
pub(crate) fn failed(error: mill_snapshot::Error) -> Error {
    Error::checkpoint(error.to_string()).because(error)
}
