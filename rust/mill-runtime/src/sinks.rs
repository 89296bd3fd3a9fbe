//! The sinks of a job as the coordinator sees them: what is to be made visible, and when.
//!
//! A handle is *pending* from the moment its output was made durable until the sink has committed it. The pending handles of
//! a failed checkpoint go into the next one, so no output is forgotten and none becomes visible before a manifest names
//! it.

use mill_protocol::{Commit, Committer, Error, Result};

/// One sink of the job.
pub(crate) struct SinkState {
    pub(crate) uid: String,
    /// The identity under which its target knows it.
    pub(crate) identity: String,
    pub(crate) name: String,
    pub(crate) committer: Box<dyn Committer>,
    /// Where its output goes.
    pub(crate) target: Option<String>,
    /// What a run that does not have the sink any more needs to commit what is pending.
    pub(crate) handover: Option<String>,
    /// Handles that are durable and not yet visible.
    pub(crate) pending: Vec<Commit>,
}

/// All sinks of the job.
pub(crate) struct Sinks {
    pub(crate) sinks: Vec<SinkState>,
    /// A commit or a manifest went wrong: what was pending may or may not be visible, and only a recovery may touch it.
    is_in_doubt: bool,
}

impl Sinks {
    /// The sinks in the order in which stages name them.
    pub(crate) fn new(sinks: Vec<SinkState>) -> Sinks {
        Sinks { sinks, is_in_doubt: false }
    }

    /// Takes up a handle.
    pub(crate) fn owe(&mut self, sink: usize, commit: Commit) {
        self.sinks[sink].pending.push(commit);
    }

    /// Makes everything visible that is pending.
    ///
    /// # Errors
    /// When a sink refuses; its output stays pending, and is committed again by the next recovery.
    pub(crate) fn commit(&mut self) -> Result<()> {
        self.commit_where(|_| true)?;
        for sink in &mut self.sinks {
            sink.committer.keep_up().map_err(|error| error.in_step(&sink.name))?;
        }
        Ok(())
    }

    /// Makes visible what may be so before its checkpoint is durable.
    ///
    /// # Errors
    /// As of [`commit`](Sinks::commit).
    pub(crate) fn commit_early(&mut self) -> Result<()> {
        self.commit_where(|committer| committer.commits_early())
    }

    fn commit_where(&mut self, is_due: impl Fn(&dyn Committer) -> bool) -> Result<()> {
        for sink in self.sinks.iter_mut().filter(|sink| !sink.pending.is_empty() && is_due(&*sink.committer)) {
            sink.pending.sort_by_key(|commit| commit.epoch);
            if let Err(error) = reach("sink.commit").and_then(|()| sink.committer.commit(&sink.pending)) {
                self.is_in_doubt = true;
                return Err(error.in_step(&sink.name));
            }
            mill_fault::pass("sink.committed");
            sink.pending.clear();
        }
        self.is_in_doubt = false;
        Ok(())
    }

    /// A manifest that could not be published may still be found by a recovery: what it names must not be removed.
    pub(crate) fn set_in_doubt(&mut self) {
        self.is_in_doubt = true;
    }

    /// Removes what was not committed.
    ///
    /// # Errors
    /// Of the first sink that cannot; the others are still asked.
    pub(crate) fn abort(&mut self) -> Result<()> {
        if self.is_in_doubt {
            return Ok(());
        }
        let mut first: Option<Error> = None;
        for sink in &mut self.sinks {
            sink.pending.clear();
            if let Err(error) = reach("sink.abort").and_then(|()| sink.committer.abort()) {
                first.get_or_insert(error.in_step(&sink.name));
            }
        }
        first.map_or(Ok(()), Err)
    }
}

/// A step of the commit that a test may let fail.
fn reach(step: &'static str) -> Result<()> {
    mill_fault::reach(step).map_err(|error| Error::connector(format!("{step}: {error}")).because(error))
}
