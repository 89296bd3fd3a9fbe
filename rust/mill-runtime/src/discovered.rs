//! The splits that turn up while a job runs: looked for once for all tasks of a source, and handed to their owners.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use mill_protocol::{Discovery, Result, Source, Split, SplitId, SplitState};

/// How often a source that discovers splits is asked for them, in microseconds.
const LOOK_INTERVAL_US: i64 = 500_000;

/// What the tasks of one source share.
pub(crate) struct Discovered(Mutex<Inner>);

struct Inner {
    discovery: Box<dyn Discovery>,
    /// What was found and not taken yet, for each task.
    found: Vec<Vec<Split>>,
    look_at: i64,
}

impl Discovered {
    /// What looks for splits beside those that a source begins with, if it discovers any.
    pub(crate) fn of(
        source: &Arc<dyn Source>,
        is_ordered: bool,
        begun_with: &[SplitState],
        parallelism: usize,
    ) -> Result<Option<Arc<Discovered>>> {
        if !source.properties().discovers_splits {
            return Ok(None);
        }
        let discovery = match source.discovery(begun_with)? {
            Some(discovery) => discovery,
            None => Box::new(Listing {
                source: Arc::clone(source),
                is_ordered,
                known: begun_with.iter().map(|state| state.split.id).collect(),
            }),
        };
        let found = (0..parallelism).map(|_| Vec::new()).collect();
        Ok(Some(Arc::new(Discovered(Mutex::new(Inner { discovery, found, look_at: i64::MIN })))))
    }

    /// What was found for this task, and when to ask again.
    pub(crate) fn take(&self, task: usize, now: i64) -> Result<(Vec<Split>, i64)> {
        // A look that panics leaves nothing half done: what it found is handed out in one step after it.
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if now >= inner.look_at {
            let tasks = inner.found.len();
            for split in inner.discovery.look()? {
                inner.found[owner(split.id, tasks)].push(split);
            }
            inner.look_at = now + LOOK_INTERVAL_US;
        }
        let look_at = inner.look_at;
        Ok((std::mem::take(&mut inner.found[task]), look_at))
    }
}

/// The task that reads a split of a source that discovers splits: a new one moves no other.
pub(crate) fn owner(split: SplitId, tasks: usize) -> usize {
    (split.0 % tasks as u64) as usize
}

/// Looks by listing all splits.
struct Listing {
    source: Arc<dyn Source>,
    is_ordered: bool,
    known: HashSet<SplitId>,
}

impl Discovery for Listing {
    fn look(&mut self) -> Result<Vec<Split>> {
        let mut listed = self.source.splits(self.is_ordered)?;
        listed.retain(|split| self.known.insert(split.id));
        Ok(listed)
    }
}
