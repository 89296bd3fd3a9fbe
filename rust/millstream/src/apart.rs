//! Output and checkpoints are kept apart: a reader of one must not find files of the other.

use std::path::{Path, PathBuf, absolute};

use mill_plan::SinkNode;
use mill_protocol::{Error, Result};

use crate::place;

/// Refuses a state directory that is, or is within, a directory that a sink writes, and sinks that write into the state
/// directory.
pub(crate) fn check(state: &Path, sinks: &[SinkNode]) -> Result<()> {
    let state_path = real(state);
    for node in sinks {
        let sink = node.sink();
        let (Some(written), Some(target)) = (sink.writes(), sink.target()) else { continue };
        let (file, target) = (real(&written), real(Path::new(&target)));
        // A sink that writes files of its own choice into a directory has that as its target; others have the file itself.
        let is_within_output = file != target && state_path.starts_with(&target);
        if is_within_output || file.starts_with(&state_path) {
            let place = if is_within_output { "go into its output" } else { "have their directory where it writes" };
            return Err(Error::plan(format!(
                "{}: the checkpoints {place}, {state:?}, and whoever reads the output would find their files: give the \
                 checkpoints a directory of their own, neither within the output nor around it",
                sink.name()
            )));
        }
    }
    Ok(())
}

/// The path without links, as far as it exists.
fn real(path: &Path) -> PathBuf {
    if place::is_remote(path) {
        return path.to_owned();
    }
    let path = absolute(path).unwrap_or_else(|_| path.to_owned());
    let found = path.ancestors().find_map(|there| Some((there, there.canonicalize().ok()?)));
    match found {
        Some((there, real)) => path.strip_prefix(there).map_or_else(|_| path.clone(), |rest| real.join(rest)),
        None => path,
    }
}
