//! Checkpoints on disk as the coordinator sees them, and the notes of a job that replays nothing.
//!
//! What a manifest of this runtime holds beside the state of the steps:
//!
//! - the handles of all sinks, under a task of their own ([`SINKS_TASK`]): those of this epoch and those still pending from
//!   epochs whose checkpoint failed;
//! - a note [`JOB_NOTE`]: the identity of the job, that of the state directory in which it began; savepoints take it along;
//! - a note [`PLAN_NOTE`]: the plan as the user wrote it, so that a later run can say what has changed;
//! - a note [`SINKS_NOTE`]: where each sink writes, and what its target shows of all that was committed before;
//! - a note [`RENAMED_NOTE`]: the renames that the plan names, new and former name, so that none is made twice;
//! - a note [`DROPPED_NOTE`]: what was dropped in this run or former ones and is still named by `drop=`, so that the same script can
//!   run again, and drops nothing twice;
//! - a note [`ENDED_NOTE`]: the steps whose input had ended in all tasks. What such a step emits at the end is before
//!   the checkpoint, so after a restart it is not emitted again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use mill_protocol::{Commit, Epoch, Error, Result, Snapshot, SplitId, SplitState};
use mill_snapshot::{CheckpointWriter, Handle, Manifest, ManifestParts, OperatorInfo, OperatorState, Positions, Store, TaskId};
use serde::{Deserialize, Serialize};

use crate::options::SavepointCopier;
use crate::positions;
use crate::sinks::SinkState;

/// The chain name under which the handles of the sinks stand in a checkpoint.
const SINKS_TASK: &str = "(sinks)";
/// The name of the note that lists the steps whose input had ended.
pub(crate) const ENDED_NOTE: &str = "ended";

/// The name of the note that holds the identity of the job, in hexadecimal.
pub(crate) const JOB_NOTE: &str = "job";
/// The name of the note that holds what is known of each sink's target.
pub(crate) const SINKS_NOTE: &str = "sinks";
/// The note in a manifest with what the job's plan was.
pub const PLAN_NOTE: &str = "plan";

/// The name of the note that lists what was dropped of former plans.
pub(crate) const DROPPED_NOTE: &str = "dropped";

/// The name of the note that holds which steps had other names before.
pub(crate) const RENAMED_NOTE: &str = "renamed";

/// What a checkpoint knows of the target of a sink.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct SinkNote {
    /// Where the output goes.
    pub(crate) target: Option<String>,
    /// What the target shows of all that was committed before.
    pub(crate) receipt: Option<String>,
    /// The identity under which the target knows the sink, where a step was renamed since; otherwise it is that of the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) identity: Option<String>,
    /// What a run that does not have the sink any more needs to commit what is pending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) handover: Option<String>,
}

/// What background work on one task's share of a checkpoint came to.
pub(crate) struct Written {
    pub(crate) epoch: Epoch,
    /// The task's share of the state, or why it could not be written: then the checkpoint fails.
    pub(crate) state: Result<TaskState>,
    /// The handles of the task's sinks, or why output could not be made durable: then the job fails.
    pub(crate) output: Result<Vec<(usize, Commit)>>,
}

/// What one task has written for a checkpoint.
#[derive(Default)]
pub(crate) struct TaskState {
    /// How many bytes it takes in the checkpoint.
    pub(crate) bytes: u64,
    /// How many bytes each step has written.
    pub(crate) steps: Vec<(Arc<str>, u64)>,
    /// The steps whose input had ended in this task.
    pub(crate) ended: Vec<Arc<str>>,
}

/// Where the checkpoints of a job go.
pub(crate) struct Storage {
    pub(crate) store: Store,
    pub(crate) retain: usize,
    pub(crate) mode: &'static str,
    pub(crate) fingerprint: String,
    pub(crate) outline: String,
    /// The names of steps and aggregates of former plans whose state was dropped.
    pub(crate) dropped: BTreeSet<String>,
    /// New and former names of steps, as the plan has them.
    pub(crate) renamed: Vec<(String, String)>,
    /// The identity of the job.
    pub(crate) job: u64,
    /// All steps, with their parallelism.
    pub(crate) operators: Vec<OperatorInfo>,
    /// The newest checkpoint whose sinks have committed.
    pub(crate) committed: u64,
    /// How many savepoints are being copied: until they are, nothing is removed.
    pub(crate) copies: usize,
    /// How one is copied.
    pub(crate) savepoints: SavepointCopier,
}

impl Storage {
    /// Begins the checkpoint of this epoch; it is a full one where it has to be, or is to refer to none before it.
    pub(crate) fn begin(&self, epoch: Epoch, is_rebased: bool) -> Result<Arc<CheckpointWriter>> {
        reach("checkpoint.begin")?;
        if is_rebased {
            self.store.rebase().map_err(error)?;
        }
        let writer = self.store.begin(epoch.0, self.store.should_rebase()).map_err(error)?;
        Ok(Arc::new(writer))
    }

    /// Publishes a checkpoint that every task has written its share of. When this returns it exists.
    pub(crate) fn publish(
        &self,
        writer: &CheckpointWriter,
        states: &[TaskState],
        sinks: &[SinkState],
        is_finished: bool,
        created: i64,
    ) -> Result<()> {
        let pending = |sink: &SinkState| OperatorState {
            uid: sink.uid.clone(),
            handles: sink.pending.iter().map(|pending| Handle { epoch: pending.epoch.0, bytes: pending.handle.clone() }).collect(),
            ..OperatorState::default()
        };
        reach("checkpoint.publish")?;
        let task = TaskId { chain: SINKS_TASK.to_owned(), index: 0, parallelism: 1 };
        writer.write_task(&task, sinks.iter().map(pending).collect()).map_err(error)?;
        let mut notes = BTreeMap::from([(JOB_NOTE.to_owned(), format!("{:016x}", self.job))]);
        notes.insert(SINKS_NOTE.to_owned(), sink_notes(sinks)?);
        notes.insert(PLAN_NOTE.to_owned(), self.outline.clone());
        if !self.dropped.is_empty() {
            let list = serde_json::to_string(&self.dropped).map_err(|e| Error::internal("a list of names is no JSON").because(e))?;
            notes.insert(DROPPED_NOTE.to_owned(), list);
        }
        if !self.renamed.is_empty() {
            let list = serde_json::to_string(&self.renamed).map_err(|e| Error::internal("a list of names is no JSON").because(e))?;
            notes.insert(RENAMED_NOTE.to_owned(), list);
        }
        let ended = self.ended(states);
        if !ended.is_empty() {
            let list = serde_json::to_string(&ended).map_err(|e| Error::internal("a list of names is no JSON").because(e))?;
            notes.insert(ENDED_NOTE.to_owned(), list);
        }
        let parts = ManifestParts {
            created,
            mode: self.mode.to_owned(),
            plan_fingerprint: self.fingerprint.clone(),
            is_finished,
            is_savepoint: false,
            operators: self.operators.clone(),
            notes,
            files: sinks.iter().flat_map(|sink| sink.pending.iter().flat_map(|pending| sink.committer.files(pending))).collect(),
        };
        writer.finish(parts).map_err(error)?;
        mill_fault::pass("checkpoint.published");
        Ok(())
    }

    /// Notes that everything up to this checkpoint was committed; for good where nothing follows.
    pub(crate) fn settle(&self, committed: Epoch, is_last: bool) -> Result<()> {
        reach("checkpoint.settle")?;
        self.store.settle(committed.0, is_last).map_err(error)
    }

    /// Removes what is no longer needed; nothing, as long as somebody `is_reading` older checkpoints or a savepoint is being copied.
    pub(crate) fn retire(&mut self, committed: Epoch, is_reading: bool) -> Result<()> {
        self.committed = committed.0;
        if self.copies > 0 || is_reading {
            return Ok(());
        }
        reach("checkpoint.retire")?;
        self.store.retire(self.retain, self.committed).map(drop).map_err(error)
    }

    /// Why no checkpoint of this job can be published any more, if that is so.
    pub(crate) fn lost(&self) -> Option<Error> {
        self.store.remote().and_then(|remote| remote.lost()).map(error)
    }

    fn ended(&self, states: &[TaskState]) -> Vec<&str> {
        let mut counts: HashMap<&str, u32> = HashMap::new();
        for uid in states.iter().flat_map(|state| &state.ended) {
            *counts.entry(uid).or_default() += 1;
        }
        let is_ended = |info: &&OperatorInfo| counts.get(info.uid.as_str()) == Some(&info.parallelism);
        self.operators.iter().filter(is_ended).map(|info| info.uid.as_str()).collect()
    }
}

fn sink_notes(sinks: &[SinkState]) -> Result<String> {
    let note = |sink: &SinkState| SinkNote {
        target: sink.target.clone(),
        receipt: sink.committer.receipt(),
        identity: Some(&sink.identity).filter(|identity| **identity != sink.uid).cloned(),
        handover: sink.handover.clone(),
    };
    let notes: BTreeMap<&str, SinkNote> = sinks.iter().map(|sink| (sink.uid.as_str(), note(sink))).collect();
    serde_json::to_string(&notes).map_err(|e| Error::internal("notes of sinks are no JSON").because(e))
}

/// What a checkpoint knows of the targets of its sinks.
pub(crate) fn sink_notes_of(manifest: &Manifest) -> Result<BTreeMap<String, SinkNote>> {
    let Some(notes) = manifest.notes.get(SINKS_NOTE) else { return Ok(BTreeMap::new()) };
    serde_json::from_str(notes)
        .map_err(|error| Error::checkpoint("what the checkpoint knows of its sinks is damaged").because(error))
}

/// Writes one task's share of a checkpoint.
pub(crate) fn write(
    writer: &CheckpointWriter,
    task: &TaskId,
    states: Vec<(Arc<str>, Snapshot, bool)>,
) -> Result<TaskState> {
    reach("checkpoint.write")?;
    let mut written = TaskState::default();
    let mut operators = Vec::with_capacity(states.len());
    for (uid, snapshot, is_ended) in states {
        let Snapshot { bytes, blocks, .. } = snapshot;
        let blocks = blocks.make();
        let keyed: u64 = blocks.iter().map(|block| block.payload.size() as u64).sum();
        written.steps.push((Arc::clone(&uid), keyed + bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)));
        if is_ended {
            written.ended.push(Arc::clone(&uid));
        }
        operators.push(OperatorState { uid: uid.to_string(), bytes, blocks, handles: Vec::new() });
    }
    written.bytes = writer.write_task(task, operators).map_err(error)?;
    Ok(written)
}

/// Notes how far the splits of one source task were read, before the records go out.
pub(crate) struct PositionNotes {
    positions: Arc<Positions>,
    uid: String,
    slots: HashMap<SplitId, usize>,
}

impl PositionNotes {
    /// Notes of one task of this source.
    pub(crate) fn new(positions: Arc<Positions>, uid: &str) -> PositionNotes {
        PositionNotes { positions, uid: uid.to_owned(), slots: HashMap::new() }
    }

    /// Notes the position of this split.
    pub(crate) fn note(&mut self, state: &SplitState) -> Result<()> {
        let id = state.split.id;
        let slot = match self.slots.get(&id) {
            Some(&slot) => slot,
            None => {
                let slot = self.positions.slot(&slot_name(&self.uid, id)).map_err(error)?;
                self.slots.insert(id, slot);
                slot
            }
        };
        self.positions.note(slot, &positions::encode_one(state)).map_err(error)
    }
}

/// The notes of one source, from the notes of a job.
pub(crate) fn noted_positions(noted: &[(String, Vec<u8>)], uid: &str) -> Result<positions::Positions> {
    let mut found = positions::Positions::new();
    for (name, bytes) in noted {
        if name.rsplit_once('/').is_some_and(|(owner, _)| owner == uid) {
            found.extend(positions::decode(bytes)?);
        }
    }
    Ok(found)
}

fn slot_name(uid: &str, id: SplitId) -> String {
    format!("{uid}/{:016x}", id.0)
}

/// A step of a checkpoint that a test may let fail.
fn reach(step: &'static str) -> Result<()> {
    mill_fault::reach(step).map_err(|error| Error::checkpoint(format!("{step}: {error}")).because(error))
}

/// A failure of the store as the job tells it.
pub(crate) fn error(error: mill_snapshot::Error) -> Error {
    Error::checkpoint(error.to_string()).because(error)
}
