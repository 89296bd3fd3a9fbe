//! Looking into a state directory without running anything.

use std::path::Path;
use std::sync::Arc;

use mill_protocol::Result;
use mill_snapshot::{CheckpointInfo, RealDisk, Store, VerifyReport};

use crate::recovery::failed;

/// The checkpoints in a state directory, oldest first. Does not lock it, so a job may be running on it.
///
/// # Errors
/// When there is no state directory at this path, or it cannot be read.
pub fn checkpoints(path: &Path) -> Result<Vec<CheckpointInfo>> {
    Store::inspect(path, Arc::new(RealDisk)).and_then(|store| store.list()).map_err(failed)
}

/// Reads every byte of a state directory and tells what is damaged.
///
/// # Errors
/// When there is no state directory at this path, or it cannot be read.
pub fn verify(path: &Path) -> Result<VerifyReport> {
    mill_snapshot::verify(path, Arc::new(RealDisk)).map_err(failed)
}
