//! Sources that are told how far completed checkpoints have read them.
//!
//! ```text
//!   a task acknowledges ─► the positions of its source are kept beside the checkpoint under way
//!   published, committed ─► decoded, of all tasks, and told
//! ```
//!
//! It informs outside systems about the progress of a job; no recovery depends on it. So positions are reported only when
//! their results are complete and visible, and those of a failed checkpoint are never reported.

use std::sync::Arc;

use mill_protocol::{Epoch, PositionListener, Result};

use crate::graph::JobGraph;
use crate::positions;

/// Those that are told, by the identity of their source.
#[derive(Default)]
pub(crate) struct Listeners {
    of: Vec<(String, Box<dyn PositionListener>)>,
}

impl Listeners {
    /// Those of the sources of a job.
    ///
    /// # Errors
    /// When a source cannot make its own.
    pub(crate) fn open(graph: &JobGraph) -> Result<Listeners> {
        let mut of = Vec::new();
        for source in graph.chains.iter().filter_map(|chain| chain.source.as_ref()) {
            if let Some(listener) = source.source.position_listener().map_err(|error| error.in_step(&source.name))? {
                of.push((source.uid.clone(), listener));
            }
        }
        Ok(Listeners { of })
    }

    /// Whether the positions of this source are to be kept.
    pub(crate) fn has(&self, uid: &str) -> bool {
        self.of.iter().any(|(own, _)| own == uid)
    }

    /// Tells each what the tasks of its source have reported.
    pub(crate) fn tell(&mut self, epoch: Epoch, given: &[(Arc<str>, Vec<u8>)]) {
        for (uid, listener) in &mut self.of {
            let mut read = Vec::new();
            for (_, bytes) in given.iter().filter(|(of, _)| **of == **uid) {
                // They were encoded a moment ago, by this process.
                read.extend(positions::decode(bytes).into_iter().flat_map(|found| found.into_values()));
            }
            listener.completed(epoch, read);
        }
    }
}
