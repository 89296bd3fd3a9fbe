//! A checkpoint under way: whose acknowledgement is missing, what is still being written.
//!
//! ```text
//!   requested ─► every task acknowledges ─► each share is written in the background ─► all is durable
//!                with state and output      segments; pre-commits of sinks             publish, commit
//! ```

use std::path::PathBuf;
use std::sync::Arc;

use crossbeam_channel::Sender;
use mill_protocol::{Commit, Epoch, Error, PreCommit, Result};
use mill_snapshot::{CheckpointWriter, TaskId};

use crate::listeners::Listeners;
use crate::shared::{Acknowledgement, Message, Shared};
use crate::stage::Part;
use crate::storage::{self, TaskState, Written};
use crate::threads::guarded;
use crate::writers::Work;

/// Where the answer to a request for a checkpoint goes: its number.
pub(crate) type Reply = Sender<Result<u64>>;

/// A request for a checkpoint.
pub(crate) struct CheckpointRequest {
    pub(crate) reply: Reply,
    /// Where to copy it, if the user wants to keep it.
    pub(crate) copy_to: Option<PathBuf>,
}

/// Why a checkpoint is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// It was time, or somebody asked.
    Regular,
    /// The job is to stop after it.
    Stop,
    /// All input has been processed.
    Final,
}

/// A checkpoint under way.
pub(crate) struct InFlight {
    pub(crate) epoch: Epoch,
    pub(crate) cause: Cause,
    pub(crate) started: i64,
    pub(crate) requests: Vec<CheckpointRequest>,
    /// When it was asked for, by the clock of the job.
    pub(crate) created: i64,
    /// Where it is written, if anywhere.
    pub(crate) writer: Option<Arc<CheckpointWriter>>,
    /// Why it has failed already; the barriers still run through.
    pub(crate) error: Option<Error>,
    pub(crate) states: Vec<TaskState>,
    /// The positions of sources that want to be told, as their tasks have reported them.
    pub(crate) positions: Vec<(Arc<str>, Vec<u8>)>,
    is_acknowledged: Vec<bool>,
    acknowledgements_missing: usize,
    writes_missing: usize,
}

impl InFlight {
    /// A checkpoint that was just asked for, of that many tasks.
    pub(crate) fn new(epoch: Epoch, cause: Cause, tasks: usize, started: i64, created: i64) -> InFlight {
        InFlight {
            epoch,
            cause,
            started,
            requests: Vec::new(),
            created,
            writer: None,
            error: None,
            states: Vec::new(),
            positions: Vec::new(),
            is_acknowledged: vec![false; tasks],
            acknowledgements_missing: tasks,
            writes_missing: 0,
        }
    }

    /// Takes what a task contributes; what has to be written comes back as work.
    ///
    /// # Panics
    /// If the task has contributed its share already, or means another checkpoint.
    pub(crate) fn acknowledge(
        &mut self,
        task: &TaskId,
        given: Acknowledgement,
        shared: &Arc<Shared>,
        listeners: &Listeners,
    ) -> Option<Work> {
        assert_eq!(given.epoch, self.epoch, "task {task:?} acknowledged a checkpoint that is not under way");
        let is_acknowledged = std::mem::replace(&mut self.is_acknowledged[given.task], true);
        assert!(!is_acknowledged, "task {task:?} acknowledged {:?} twice", self.epoch);
        self.acknowledgements_missing -= 1;
        let (mut states, mut outputs) = (Vec::new(), Vec::new());
        for part in given.parts {
            match part {
                Part::State(uid, snapshot, is_ended) => {
                    if let Some(bytes) = snapshot.bytes.as_ref().filter(|_| listeners.has(&uid)) {
                        self.positions.push((Arc::clone(&uid), bytes.clone()));
                    }
                    states.push((uid, snapshot, is_ended));
                }
                Part::Output(sink, run) => outputs.push((sink, run)),
            }
        }
        let writer = self.writer.clone().filter(|_| self.error.is_none());
        if outputs.is_empty() && writer.is_none() {
            return None;
        }
        self.writes_missing += 1;
        let (task, shared, epoch) = (task.clone(), Arc::clone(shared), self.epoch);
        Some(Box::new(move || {
            let write = || -> Result<TaskState> {
                writer.map_or_else(|| Ok(TaskState::default()), |writer| storage::write(&writer, &task, states))
            };
            let state = guarded("mill-writer", write);
            let output = guarded("mill-writer", || pre_commit(outputs, epoch));
            shared.tell(Message::Written(Written { epoch, state, output }));
        }))
    }

    /// Takes what was written; output that could not be made durable is an error of the job.
    pub(crate) fn written(&mut self, written: Written) -> Result<Vec<(usize, Commit)>> {
        assert_eq!(written.epoch, self.epoch, "a checkpoint was written that is not under way");
        self.writes_missing -= 1;
        match written.state {
            Ok(state) => self.states.push(state),
            Err(error) => self.error = Some(self.error.take().unwrap_or(error)),
        }
        written.output
    }

    /// The tasks that have not contributed their share yet, by their numbers.
    pub(crate) fn missing(&self) -> impl Iterator<Item = usize> + '_ {
        self.is_acknowledged.iter().enumerate().filter(|(_, is_acknowledged)| !**is_acknowledged).map(|(task, _)| task)
    }

    /// Whether everything is there.
    pub(crate) fn is_complete(&self) -> bool {
        self.acknowledgements_missing == 0 && self.writes_missing == 0
    }
}

fn pre_commit(outputs: Vec<(usize, PreCommit)>, epoch: Epoch) -> Result<Vec<(usize, Commit)>> {
    mill_fault::reach("sink.pre_commit")
        .map_err(|error| Error::connector(format!("sink.pre_commit: {error}")).because(error))?;
    outputs.into_iter().map(|(sink, run)| Ok((sink, Commit { epoch, handle: run()? }))).collect()
}
