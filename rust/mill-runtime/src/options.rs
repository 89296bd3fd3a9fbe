//! How a job is to be run.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mill_protocol::{Clock, Ending, Error, ManualClock, SystemClock};
use mill_snapshot::{Checkpoint, Store};

use crate::comparison::Changes;

/// What a restart after a failure means for the results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// As if nothing had failed.
    #[default]
    ExactlyOnce,
    /// No record is missing; some may be counted or written twice.
    AtLeastOnce,
    /// As if nothing had failed, and a task that fails goes back alone: it repeats what it has taken since the last checkpoint, and
    /// output that was passed on before is not passed on again.
    Dedup,
    /// No record is processed twice; those in flight are lost.
    None,
}

impl Mode {
    /// Whether a task sees nothing after a barrier before its snapshot.
    pub(crate) fn is_aligned(self) -> bool {
        matches!(self, Mode::ExactlyOnce | Mode::Dedup)
    }

    /// The name in options and in manifests.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::ExactlyOnce => "exactly_once",
            Mode::AtLeastOnce => "at_least_once",
            Mode::Dedup => "dedup",
            Mode::None => "none",
        }
    }
}

/// Says of each failure of a task whether that task is to go back alone, and after which pause.
pub type TaskRestarts = Arc<dyn Fn(&Error) -> Option<Duration> + Send + Sync>;

/// What happens to a record that cannot be processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OnError {
    /// The job fails.
    Fail,
    /// It is left out and counted.
    Skip,
    /// It goes to the `errors` targets of its step.
    Route,
}

/// Copies a checkpoint to where the user keeps it, which it knows by that path.
#[derive(Clone)]
pub struct SavepointCopier(pub Arc<CopySavepoint>);

type CopySavepoint = dyn Fn(&Store, u64, &Path) -> mill_snapshot::Result<()> + Send + Sync;

impl Default for SavepointCopier {
    fn default() -> SavepointCopier {
        SavepointCopier(Arc::new(|store, id, path| store.savepoint(id, path).map(drop)))
    }
}

/// How a job is to be run.
pub struct RunOptions {
    /// How many worker threads.
    pub workers: usize,
    /// What a restart means for the results.
    pub mode: Mode,
    /// How often a checkpoint is taken; `None`: only on demand and at the end.
    pub interval: Option<Duration>,
    /// Where checkpoints go; without one nothing outlives the process.
    pub store: Option<Store>,
    /// What to continue from.
    pub restore: Option<Checkpoint>,
    /// How many checkpoints are kept.
    pub retain: usize,
    /// What happens to records that cannot be processed.
    pub on_error: OnError,
    /// Tells the processing time.
    pub clock: Arc<dyn Clock>,
    /// How many rows a frame has under load.
    pub frame_rows: usize,
    /// How many frames a queue holds.
    pub queue_capacity: usize,
    /// Whether workers are pinned to cores when there are enough.
    pub is_pinned: bool,
    /// What identifies the plan; stored in the manifest.
    pub fingerprint: String,
    /// What is to be known of the plan in a later run; the manifest keeps it as a note.
    pub outline: String,
    /// What the user has said of differences between the plan and the checkpoint.
    pub changes: Changes,
    /// Runs everything on the caller's thread under a schedule drawn from this seed: for tests.
    pub schedule_seed: Option<u64>,
    /// With a schedule seed: the clock of the job, which somebody else moves. The schedule then takes no checkpoints of its own
    /// accord, and ends when nothing can happen before new input or a later time.
    pub hand_clock: Option<Arc<ManualClock>>,
    /// In mode [`Dedup`](Mode::Dedup): which failures a task survives; without it none does.
    pub task_restarts: Option<TaskRestarts>,
    /// How savepoints are copied: into a directory, unless somebody knows more places.
    pub savepoints: SavepointCopier,
    /// Lets the start of the job give up what it waits for, and later the job itself.
    pub ending: Ending,
}

impl Default for RunOptions {
    fn default() -> RunOptions {
        RunOptions {
            workers: 1,
            mode: Mode::ExactlyOnce,
            interval: Some(Duration::from_secs(1)),
            store: None,
            restore: None,
            retain: 3,
            on_error: OnError::Fail,
            clock: Arc::new(SystemClock),
            frame_rows: 8192,
            queue_capacity: 8,
            is_pinned: true,
            fingerprint: String::new(),
            outline: String::new(),
            changes: Changes::default(),
            schedule_seed: None,
            hand_clock: None,
            task_restarts: None,
            savepoints: SavepointCopier::default(),
            ending: Ending::default(),
        }
    }
}
