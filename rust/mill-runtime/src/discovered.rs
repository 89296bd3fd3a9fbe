//! The splits that turn up while a job runs: looked for once for all tasks of a source, and handed to their owners.
//!
//! ```text
//!   a look finds splits of tasks 0 and 2 ─► each takes its own ─► tells its operators ─► announces ─► all have: read
//! ```
//!
//! Nobody reads what a look has found before all owners have told their operators of it. Otherwise the first of them would
//! advance time, a task that had no split until then would follow, and the older records of its own new split would be
//! late: which records those are would depend on which task is first. An owner that is slow to answer is waited for up to
//! one interval.

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
    /// The tasks that have yet to announce what was found for them, and until when they are waited for.
    unannounced: Vec<bool>,
    wait_until: i64,
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
        let inner = Inner {
            discovery,
            found: (0..parallelism).map(|_| Vec::new()).collect(),
            look_at: i64::MIN,
            unannounced: vec![false; parallelism],
            wait_until: i64::MIN,
        };
        Ok(Some(Arc::new(Discovered(Mutex::new(inner)))))
    }

    /// What was found for this task, and when to ask again.
    pub(crate) fn take(&self, task: usize, now: i64) -> Result<(Vec<Split>, i64)> {
        // A look that panics leaves nothing half done: what it found is handed out in one step after it.
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if now >= inner.look_at {
            let tasks = inner.found.len();
            let found = inner.discovery.look()?;
            if !inner.unannounced.contains(&true) {
                inner.wait_until = now.saturating_add(LOOK_INTERVAL_US);
            }
            for split in found {
                let owner = owner(split.id, tasks);
                inner.found[owner].push(split);
                inner.unannounced[owner] = true;
            }
            inner.look_at = now.saturating_add(LOOK_INTERVAL_US);
        }
        let look_at = inner.look_at;
        let found = std::mem::take(&mut inner.found[task]);
        Ok((found, look_at))
    }

    /// This task's operators know of what it has taken; returns whether that may be read now.
    pub(crate) fn announce(&self, task: usize, now: i64) -> bool {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.unannounced[task] = !inner.found[task].is_empty();
        !inner.unannounced.contains(&true) || now >= inner.wait_until
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
