//! The options of a run that a user can set.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mill_plan::{Mode, OnError};
use mill_protocol::{Error, Result};
use mill_runtime::{AllowNew, Held};

use crate::place;

/// The highest parallelism: more tasks than key groups would leave some without work.
const PARALLELISM_MAX: usize = mill_frame::hash::KEY_GROUPS as usize;

/// What hears of a step whose watermark is held back.
type HeldListener = dyn Fn(&str, &Held) + Send + Sync;

/// Called with the name of a step, and which split has held its watermark back for some seconds while others have come further:
/// once, until the watermark moves. It is called on a thread of its own, so it may block.
#[derive(Clone)]
pub struct OnHeld(pub Arc<HeldListener>);

impl fmt::Debug for OnHeld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnHeld")
    }
}

/// What hears a sentence about a job.
type TextListener = dyn Fn(&str) + Send + Sync;

/// Called with a sentence about a job.
#[derive(Clone)]
pub struct OnText(pub Arc<TextListener>);

impl fmt::Debug for OnText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnText")
    }
}

/// How a job is to be run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Checkpoints, if the job is to outlive its process.
    pub checkpoint: Option<CheckpointOptions>,
    /// How many parallel tasks a step has, and how many worker threads there are; `None` takes all cores that the
    /// process may use.
    pub parallelism: Option<usize>,
    /// What happens after a failure.
    pub restart: Restart,
    /// What happens to a record that cannot be processed.
    pub on_error: OnError,
    /// Stops the job, with a last checkpoint, after this long.
    pub until: Option<Duration>,
    /// How many rows a frame has under load; `None` lets the engine choose.
    pub frame_rows: Option<usize>,
    /// Whether neighbouring steps are fused into one thread's calls; only tests turn it off.
    pub is_chaining: bool,
    /// What hears of steps whose watermark is held back.
    pub on_held: Option<OnHeld>,
    /// What hears that the start of the job waits, for the lease of its checkpoints; on the thread that starts it.
    pub on_wait: Option<OnText>,
    /// What hears notes that a running job makes of its input; on a thread of its own, so it may block.
    pub on_note: Option<OnText>,
    /// What hears why the job has failed, once it has; on a thread of its own, so it may block.
    pub on_failed: Option<OnText>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            checkpoint: None,
            parallelism: None,
            restart: Restart::Never,
            on_error: OnError::Fail,
            until: None,
            frame_rows: None,
            is_chaining: true,
            on_held: None,
            on_wait: None,
            on_note: None,
            on_failed: None,
        }
    }
}

impl Options {
    /// The parallelism that counts: the one asked for, or one task a core.
    ///
    /// # Errors
    /// When it is zero or more than there are key groups.
    pub fn effective_parallelism(&self) -> Result<usize> {
        match self.parallelism {
            None => Ok(std::thread::available_parallelism().map_or(1, |cores| cores.get().min(PARALLELISM_MAX))),
            Some(wanted) if (1..=PARALLELISM_MAX).contains(&wanted) => Ok(wanted),
            Some(wanted) => {
                Err(Error::plan(format!("parallelism is {wanted}; it must lie between 1 and {PARALLELISM_MAX}")))
            }
        }
    }

    /// The guarantee asked for. Without checkpoints a job is not resumed, so nothing is asked of sources.
    pub fn mode(&self) -> Mode {
        self.checkpoint.as_ref().map_or(Mode::ExactlyOnce, |checkpoint| checkpoint.mode)
    }

    /// Checks what can be known before anything runs.
    ///
    /// # Errors
    /// Names the option that cannot be.
    pub fn check(&self) -> Result<()> {
        self.effective_parallelism()?;
        if let Some(checkpoint) = &self.checkpoint {
            if checkpoint.every.is_zero() {
                return Err(Error::plan("checkpoint every=0 leaves no time to work; give an interval such as \"1s\""));
            }
            if checkpoint.mode == Mode::None && place::is_remote(&checkpoint.path) {
                return Err(Error::plan(format!(
                    "mode=\"none\" notes how far inputs were read in a file that is changed in place, which no object store has; give a \
                     directory of this machine instead of {:?}, or another mode",
                    checkpoint.path
                )));
            }
            if checkpoint.retain == 0 {
                return Err(Error::plan("checkpoint retain=0 keeps nothing to continue from; pass at least 1"));
            }
        } else if self.restart != Restart::Never {
            return Err(Error::plan(
                "restart needs a checkpoint to continue from; pass checkpoint=\"state/\" or leave restart out",
            ));
        }
        if self.frame_rows == Some(0) {
            return Err(Error::plan("frame_rows is 0; a frame holds at least one row"));
        }
        Ok(())
    }
}

/// Where and how checkpoints are taken.
#[derive(Clone, Debug)]
pub struct CheckpointOptions {
    /// The state directory.
    pub path: PathBuf,
    /// How often one is taken.
    pub every: Duration,
    /// What a restart means for the results.
    pub mode: Mode,
    /// How many are kept.
    pub retain: usize,
    /// A savepoint or another job's state directory to begin with, if the own directory holds nothing yet.
    pub restore_from: Option<PathBuf>,
    /// Whether the job starts over: what the directory holds of former runs is removed.
    pub restart: bool,
    /// Which steps with state may be new; they start empty.
    pub allow_new: AllowNew,
    /// The steps, and aggregates as `"step.column"`, that are gone and whose state is dropped.
    pub drop: Vec<String>,
}

impl CheckpointOptions {
    /// Every second, exactly once, three kept.
    pub fn new(path: impl Into<PathBuf>) -> CheckpointOptions {
        CheckpointOptions {
            path: path.into(),
            every: Duration::from_secs(1),
            mode: Mode::ExactlyOnce,
            retain: 3,
            restore_from: None,
            restart: false,
            allow_new: AllowNew::Nothing,
            drop: Vec::new(),
        }
    }
}

/// What happens after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// The job fails.
    Never,
    /// It is started again from its last checkpoint, after the same pause each time.
    FixedDelay {
        /// How often at most.
        attempts: u32,
        /// The pause.
        delay: Duration,
    },
    /// It is started again after a pause that doubles from failure to failure.
    ExponentialDelay {
        /// How often at most.
        attempts: u32,
        /// The first pause.
        initial: Duration,
        /// The longest pause.
        max: Duration,
    },
}

impl Restart {
    /// The pause before restart number `attempt` (from 0), or `None` if there is to be none.
    pub(crate) fn pause(self, attempt: u32) -> Option<Duration> {
        match self {
            Restart::Never => None,
            Restart::FixedDelay { attempts, delay } => (attempt < attempts).then_some(delay),
            Restart::ExponentialDelay { attempts, initial, max } => {
                (attempt < attempts).then(|| initial.saturating_mul(1 << attempt.min(20)).min(max))
            }
        }
    }
}
