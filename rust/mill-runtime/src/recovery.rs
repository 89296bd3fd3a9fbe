//! What a job continues from: checks that it fits the plan, and hands every task its share.
//!
//! [`compare`] decides whether it fits.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use mill_protocol::{Commit, Committer, Delivery, Ending, Epoch, Error, Recovered, Restored, Result, Run};
use mill_snapshot::{Checkpoint, Manifest, OperatorInfo, Store};

use crate::comparison::{Comparison, check_without_checkpoint, compare, steps};
use crate::graph::JobGraph;
use crate::job_result::{Report, Status};
use crate::metrics::Registry;
use crate::options::{Mode, RunOptions};
use crate::positions::{self, Positions};
use crate::storage::{self, ENDED_NOTE, JOB_NOTE, PositionNotes, SinkNote, Storage};

/// What a job continues from, if anything.
#[derive(Default)]
pub(crate) struct Recovery {
    checkpoint: Option<Checkpoint>,
    /// How the plan differs from the one of the checkpoint.
    comparison: Comparison,
    /// The steps whose input had ended in all tasks.
    ended: HashSet<String>,
    /// What the job promises; exactly once where nothing is stored.
    mode: Mode,
    /// Whether a former run of this job took up epochs, even if none of its checkpoints came to be.
    has_former_epochs: bool,
    /// The last number that was used.
    epoch: u64,
    /// The identity of the job, if it keeps state.
    job: Option<u64>,
    /// The newest checkpoint that the state directory knows of.
    newest: Option<Epoch>,
    /// The state directory, if the checkpoint is its own.
    own: Option<Store>,
    /// The state directory.
    directory: Option<PathBuf>,
    /// What the checkpoint knows of the targets of sinks.
    sinks: BTreeMap<String, SinkNote>,
    /// In a job that replays nothing: where it notes positions, and what was noted before.
    positions: Option<Arc<mill_snapshot::Positions>>,
    noted: Vec<(String, Vec<u8>)>,
}

impl Recovery {
    /// Looks at what there is, and checks it against the plan.
    ///
    /// # Errors
    /// When it does not fit, naming the steps.
    pub(crate) fn open(graph: &JobGraph, options: &mut RunOptions) -> Result<Recovery> {
        let mut recovery = Recovery { checkpoint: options.restore.take(), mode: options.mode, ..Recovery::default() };
        if let Some(store) = &options.store {
            if options.mode == Mode::None {
                recovery.open_positions(store, options.clock.now())?;
                recovery.refuse_renamed_sources(graph, &options.changes.renamed)?;
            } else {
                recovery.refuse_positions(store)?;
                recovery.epoch = store.next_epoch().saturating_sub(1);
                recovery.has_former_epochs = recovery.epoch > 0;
                recovery.job = Some(store.id());
                recovery.directory = Some(store.path().to_owned());
                let newest = store.newest_published().map_err(storage::error)?;
                recovery.newest = (newest > 0).then_some(Epoch(newest));
            }
        }
        let Some(checkpoint) = &recovery.checkpoint else {
            check_without_checkpoint(graph, &options.changes)?;
            return Ok(recovery);
        };
        check_mode(checkpoint, options.mode)?;
        recovery.comparison = compare(graph, checkpoint, &options.changes)?;
        recovery.comparison.check(checkpoint)?;
        if let Some(store) = &options.store {
            store.continue_from(checkpoint).map_err(storage::error)?;
            if recovery.comparison.is_rewritten {
                store.rebase().map_err(storage::error)?;
            }
            recovery.own = (checkpoint.path() == store.path()).then(|| store.clone());
            recovery.job = Some(job(checkpoint.manifest())?);
        }
        recovery.sinks = storage::sink_notes_of(checkpoint.manifest())?;
        recovery.epoch = recovery.epoch.max(checkpoint.id());
        recovery.ended = ended(checkpoint.manifest())?;
        Ok(recovery)
    }

    /// The last number of a checkpoint that was used.
    pub(crate) fn epoch(&self) -> Epoch {
        Epoch(self.epoch)
    }

    /// Whether the job had come to its end.
    pub(crate) fn is_finished(&self) -> bool {
        self.checkpoint.as_ref().is_some_and(|checkpoint| checkpoint.manifest().is_finished)
    }

    /// The checkpoint the job continues from.
    pub(crate) fn restored_id(&self) -> Option<u64> {
        self.checkpoint.as_ref().map(Checkpoint::id)
    }

    /// The report of a job that had come to its end before.
    pub(crate) fn finished_report(&self) -> Report {
        let id = self.restored_id();
        let note = format!(
            "nothing to do: the job had finished with checkpoint {}, and what has come into its input since is not read; \
             mill.Checkpoint(…, restart=True) starts over, and files that are read with follow=True have no end",
            id.unwrap_or_default()
        );
        Report {
            status: Status::Finished,
            metrics: Registry::default().collect(None),
            notes: vec![note],
            duration: std::time::Duration::ZERO,
            restored: id,
            checkpoint: id,
        }
    }

    /// Where the checkpoints of this job go.
    pub(crate) fn storage(&self, graph: &JobGraph, options: &RunOptions) -> Option<Storage> {
        let store = options.store.as_ref().filter(|_| options.mode != Mode::None)?;
        Some(Storage {
            store: store.clone(),
            retain: options.retain,
            mode: options.mode.as_str(),
            fingerprint: options.fingerprint.clone(),
            outline: options.outline.clone(),
            job: self.job.unwrap_or_else(|| store.id()),
            operators: operators(graph),
            dropped: self.comparison.dropped.clone(),
            renamed: options.changes.renamed.clone(),
            committed: self.restored_id().unwrap_or(0),
            copies: 0,
            savepoints: options.savepoints.clone(),
        })
    }

    /// Lets a sink take up what the checkpoint holds for it, or begin from nothing.
    pub(crate) fn recover_sink(&self, uid: &str, committer: &mut dyn Committer, ending: &Ending) -> Result<()> {
        self.recover(self.former(uid), self.identity(uid), committer, ending)
    }

    /// Commits what is pending of sinks that the plan does not have any more.
    pub(crate) fn commit_left(&self, ending: &Ending) -> Result<()> {
        for (uid, name, left) in &self.comparison.left {
            let mut committer = left.0.committer().map_err(|error| error.in_step(name))?;
            let identity = self.sinks.get(uid).and_then(|note| note.identity.as_ref()).unwrap_or(uid);
            self.recover(uid, identity, &mut *committer, ending).map_err(|error| error.in_step(name))?;
        }
        Ok(())
    }

    /// The same for a sink with this identity in the checkpoint, and this one in its target.
    fn recover(&self, former: &str, sink: &str, committer: &mut dyn Committer, ending: &Ending) -> Result<()> {
        let failed = |error: std::io::Error| Error::connector(format!("sink.recover: {error}")).because(error);
        mill_fault::reach("sink.recover").map_err(failed)?;
        let delivery = match self.mode {
            Mode::ExactlyOnce | Mode::Dedup => Delivery::ExactlyOnce,
            Mode::AtLeastOnce => Delivery::AtLeastOnce,
            Mode::None => Delivery::AtMostOnce,
        };
        let restored = self.restored_id().map(Epoch);
        let (newest, directory) = (self.newest, self.directory.as_deref());
        committer.promise(&Run { delivery, job: self.job, sink, restored, newest, directory, ending: Some(ending) })?;
        let Some(checkpoint) = &self.checkpoint else {
            // Output that is published before its checkpoint may be of this job though there is no checkpoint.
            let is_published = self.mode == Mode::AtLeastOnce && self.has_former_epochs;
            return if self.noted.is_empty() && !is_published { committer.begin() } else { committer.recover(&Recovered::default()) };
        };
        let handles = checkpoint.handles(former).iter();
        let commits: Vec<Commit> =
            handles.map(|(epoch, handle)| Commit { epoch: Epoch(*epoch), handle: handle.to_vec() }).collect();
        let note = self.sinks.get(former);
        committer.recover(&Recovered {
            commits: &commits,
            is_settled: checkpoint.is_settled(),
            receipt: note.and_then(|note| note.receipt.as_deref()),
            target: note.and_then(|note| note.target.as_deref()),
            directory: Some(checkpoint.path()),
        })
    }

    /// All sinks have recovered: notes that what the checkpoint names is committed, and lets go of the former runs of a directory in
    /// which the job starts over.
    pub(crate) fn settle(&self, store: Option<&Store>) -> Result<()> {
        if let Some(store) = store {
            store.forget_former().map_err(storage::error)?;
        }
        match (&self.own, &self.checkpoint) {
            // Where output was dropped that the checkpoint names, not all of it is committed.
            (Some(store), Some(checkpoint)) if !checkpoint.is_settled() && !self.comparison.is_output_dropped => {
                store.settle(checkpoint.id(), false).map_err(storage::error)
            }
            _ => Ok(()),
        }
    }

    /// Whether the input of a step had ended, in all tasks.
    pub(crate) fn is_ended(&self, uid: &str) -> bool {
        !self.is_fresh(uid) && self.ended.contains(self.former(uid))
    }

    /// How far the splits of a source had been read, in all tasks.
    pub(crate) fn positions(&self, uid: &str) -> Result<Positions> {
        let mut found = storage::noted_positions(&self.noted, uid)?;
        if let Some(checkpoint) = self.checkpoint.as_ref().filter(|_| !self.is_fresh(uid)) {
            for bytes in checkpoint.restored(self.former(uid), 0..0).0 {
                found.extend(positions::decode(&bytes)?);
            }
        }
        Ok(found)
    }

    /// Where a task of a source notes its positions, in a job that replays nothing.
    pub(crate) fn notes(&self, uid: &str) -> Option<PositionNotes> {
        self.positions.as_ref().map(|positions| PositionNotes::new(Arc::clone(positions), uid))
    }

    /// The state of a step for a task with these key groups.
    pub(crate) fn restored(&self, uid: &str, groups: Range<u16>) -> Option<Restored> {
        let checkpoint = self.checkpoint.as_ref()?;
        if self.is_fresh(uid) {
            return Some(Restored::default());
        }
        let (bytes, blocks) = checkpoint.restored(self.former(uid), groups);
        Some(Restored { bytes, blocks, has_other_parts: self.comparison.evolved.contains(uid) })
    }

    /// The identity that a step has in the checkpoint.
    fn former<'a>(&'a self, uid: &'a str) -> &'a str {
        self.comparison.former.get(uid).map_or(uid, String::as_str)
    }

    /// The identity under which the target of a sink knows it.
    pub(crate) fn identity<'a>(&'a self, uid: &'a str) -> &'a str {
        self.comparison.identities.get(uid).map_or(uid, String::as_str)
    }

    /// Whether a step begins empty, whatever the checkpoint has under its identity.
    fn is_fresh(&self, uid: &str) -> bool {
        self.comparison.fresh.contains(uid)
    }

    fn open_positions(&mut self, store: &Store, now: i64) -> Result<()> {
        self.noted = store.read_positions().map_err(storage::error)?;
        let published = store.list().map_err(storage::error)?;
        if let Some(newest) = published.first() {
            return Err(Error::checkpoint(format!(
                "{} holds checkpoint {} of a job in another mode; mode none keeps no state: give another directory or mode",
                store.location().display(),
                newest.id
            )));
        }
        // Without checkpoints there is no state to lose but the positions that are to be forgotten.
        store.forget_former().map_err(storage::error)?;
        self.positions = Some(Arc::new(store.positions().map_err(storage::error)?));
        // No manifest counts the epochs here, and sinks must not see a number twice: time goes on over restarts.
        self.epoch = now.max(0) as u64;
        Ok(())
    }

    /// The notes of positions name the sources, and are not renamed: a source with another name would be read from its beginning.
    fn refuse_renamed_sources(&self, graph: &JobGraph, renamed: &[(String, String)]) -> Result<()> {
        if self.noted.is_empty() {
            return Ok(());
        }
        for source in graph.chains.iter().filter_map(|chain| chain.source.as_ref()) {
            let is_of = |name: &str| {
                let rest = source.uid.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
                rest || source.uid.strip_suffix(name).is_some_and(|rest| rest.ends_with('/'))
            };
            let Some((name, was)) = renamed.iter().find(|(name, _)| is_of(name)) else { continue };
            if storage::noted_positions(&self.noted, &source.uid)?.is_empty() {
                return Err(Error::checkpoint(format!(
                    "name({name:?}, was={was:?}): in mode none a source keeps its place under its name and cannot be renamed: it would be \
                     read from its beginning; give it the name {was:?} again, or leave was= out to read it from its beginning"
                ))
                .in_step(&source.name));
            }
        }
        Ok(())
    }

    fn refuse_positions(&self, store: &Store) -> Result<()> {
        let noted = store.read_positions().map_err(storage::error)?;
        if noted.is_empty() {
            return Ok(());
        }
        Err(Error::checkpoint(format!(
            "{} belongs to a job in mode none, which kept no state to continue from; use another directory, or mode none",
            store.location().display()
        )))
    }
}

/// Checks that a job in this mode can continue from a checkpoint.
///
/// # Errors
/// When it keeps no state.
pub fn check_mode(checkpoint: &Checkpoint, mode: Mode) -> Result<()> {
    if mode == Mode::None {
        return Err(Error::checkpoint(format!(
            "checkpoint {} in {} cannot be used in mode none, which keeps no state; give another directory or mode",
            checkpoint.id(),
            checkpoint.location().display()
        )));
    }
    Ok(())
}

/// The identity of the job that took a checkpoint.
fn job(manifest: &Manifest) -> Result<u64> {
    match manifest.notes.get(JOB_NOTE) {
        None => Ok(manifest.state),
        Some(text) => u64::from_str_radix(text, 16)
            .map_err(|error| Error::checkpoint("the identity of the job in the checkpoint is damaged").because(error)),
    }
}

fn ended(manifest: &Manifest) -> Result<HashSet<String>> {
    let Some(list) = manifest.notes.get(ENDED_NOTE) else { return Ok(HashSet::new()) };
    serde_json::from_str(list)
        .map_err(|error| Error::checkpoint("the list of ended steps in the checkpoint is damaged").because(error))
}

/// All steps of a plan as a manifest names them.
fn operators(graph: &JobGraph) -> Vec<OperatorInfo> {
    steps(graph).into_iter().map(|step| step.info).collect()
}
