//! Opens the state directory of a job and finds what to go on from.

use std::sync::Arc;

use mill_protocol::{Error, Result};
use mill_snapshot::{Checkpoint, Disk, Store};

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
pub(crate) fn open(options: Option<&CheckpointOptions>, disk: Arc<dyn Disk>) -> Result<Recovered> {
    let Some(options) = options else { return Ok(Recovered::default()) };
    let mut notes = Vec::new();
    let store = Store::open(&options.path, Arc::clone(&disk)).map_err(failed)?;
    let mut checkpoint = store.latest_inspected(&mut notes, mill_state::inspect).map_err(failed)?;
    if let (None, Some(from)) = (&checkpoint, &options.restore_from) {
        checkpoint = Some(Checkpoint::restore_from(from, disk, &mut notes).map_err(failed)?);
    }
    Ok(Recovered { store: Some(store), checkpoint, notes })
}

/// A failure of the state directory, as users see it.
pub(crate) fn failed(error: mill_snapshot::Error) -> Error {
    Error::checkpoint(error.to_string()).because(error)
}
