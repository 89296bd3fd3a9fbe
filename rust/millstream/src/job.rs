//! A running job, as its user holds it.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use mill_plan::{PlanOptions, SinkNode, lower};
use mill_protocol::{Error, ErrorKind, Result};
use mill_runtime::{Metrics, Report};
use parking_lot::Mutex;

use crate::options::Options;
use crate::supervisor::{Supervision, Supervisor};

/// Where a job is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobState {
    /// Opening its state and recovering.
    Starting,
    /// Working.
    Running,
    /// Waiting to be started again after a failure.
    Restarting,
    /// Done: the input ended, or it was stopped.
    Finished,
    /// Ended by the user without a last checkpoint.
    Cancelled,
    /// Failed for good.
    Failed,
}

impl JobState {
    /// The state in lower case, as users read it.
    pub fn as_str(self) -> &'static str {
        match self {
            JobState::Starting => "starting",
            JobState::Running => "running",
            JobState::Restarting => "restarting",
            JobState::Finished => "finished",
            JobState::Cancelled => "cancelled",
            JobState::Failed => "failed",
        }
    }
}

/// How a job stands.
#[derive(Clone, Debug)]
pub struct Status {
    /// Where it is in its life.
    pub state: JobState,
    /// How often it was started again after a failure.
    pub restarts: u32,
    /// What the user should know: checkpoints passed over in recovery, failed checkpoints, failures restarted from.
    pub notes: Vec<String>,
}

/// A job that runs in the background. Dropping it cancels the job.
pub struct Job {
    supervision: Arc<Supervision>,
    supervisor: Mutex<Option<JoinHandle<()>>>,
}

/// Starts a job that writes to these sinks.
///
/// # Errors
/// What can be known before the first record: options that cannot be, a plan that does not hold together, a source or
/// sink that cannot keep the guarantee asked for.
pub fn start(sinks: &[SinkNode], options: Options) -> Result<Job> {
    options.check()?;
    let plan = lower(sinks, &plan_options(&options)?)?;
    if let Some(checkpoint) = &options.checkpoint {
        let file = checkpoint.path.join("manifest");
        let mut sources = plan.chains.iter().filter_map(|chain| chain.source.as_ref());
        if let Some(stage) = sources.find(|stage| stage.source.reads(&file)) {
            return Err(Error::plan(format!(
                "{} reads the directory that the checkpoints go to, {:?}: give them a directory of their own",
                stage.source.name(),
                checkpoint.path
            ))
            .in_step(&stage.name));
        }
    }
    let supervision = Arc::new(Supervision::new());
    let mut supervisor = Supervisor::new(plan, options, Arc::clone(&supervision));
    // The first attempt is prepared on the caller's thread, so that a state directory that cannot be used is an error
    // of this call.
    let first = supervisor.launch()?;
    let thread = std::thread::Builder::new()
        .name("mill-supervisor".into())
        .spawn(move || supervisor.run(first))
        .map_err(|error| Error::internal("cannot start the job's thread").because(error))?;
    Ok(Job { supervision, supervisor: Mutex::new(Some(thread)) })
}

/// The plan that [`start`] would run, as text: chains, threads, state, and what each sink guarantees.
///
/// # Errors
/// As [`start`], as far as the plan is concerned.
pub fn explain(sinks: &[SinkNode], options: &Options) -> Result<String> {
    options.check()?;
    Ok(lower(sinks, &plan_options(options)?)?.explain())
}

/// What the planner needs to know of a run.
pub(crate) fn plan_options(options: &Options) -> Result<PlanOptions> {
    Ok(PlanOptions {
        parallelism: options.effective_parallelism()?,
        mode: options.mode(),
        is_checkpointed: options.checkpoint.is_some(),
        is_chaining: options.is_chaining,
        on_error: options.on_error,
    })
}

impl Job {
    /// How the job stands.
    pub fn status(&self) -> Status {
        self.supervision.status()
    }

    /// The figures of the attempt that runs now, or ran last.
    pub fn metrics(&self) -> Option<Metrics> {
        self.supervision.handle().map(|handle| handle.metrics())
    }

    /// Takes a checkpoint now and waits until it is durable.
    ///
    /// # Errors
    /// When the job does not run, or the checkpoint fails.
    pub fn checkpoint_now(&self) -> Result<()> {
        self.running()?.checkpoint_now().map(|_| ())
    }

    /// Writes a savepoint into this directory: a checkpoint that belongs to the user.
    ///
    /// # Errors
    /// When the job does not run or has no checkpoints, or the directory cannot be written.
    pub fn savepoint(&self, path: &Path) -> Result<()> {
        self.running()?.savepoint(path).map(|_| ())
    }

    /// Asks for the end: a last checkpoint, a last commit, then the job ends. Returns at once.
    pub fn stop(&self) {
        self.supervision.stop();
    }

    /// Ends the job now, without a last checkpoint. The newest one stays usable. Returns at once.
    pub fn cancel(&self) {
        self.supervision.cancel();
    }

    /// Waits for the end, at most this long; `None` if the job still runs then.
    pub fn wait(&self, timeout: Option<Duration>) -> Option<Result<Report>> {
        let outcome = self.supervision.wait(timeout)?;
        if let Some(thread) = self.supervisor.lock().take() {
            // The thread has told its outcome and only returns from here; a panic of it is in the outcome already.
            let _ = thread.join();
        }
        Some(outcome)
    }

    fn running(&self) -> Result<Arc<mill_runtime::JobHandle>> {
        let status = self.status();
        match (status.state, self.supervision.handle()) {
            (JobState::Running, Some(handle)) => Ok(handle),
            (state, _) => Err(Error::new(ErrorKind::Checkpoint, format!("the job is {}; nothing to save", state.as_str()))),
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if self.supervisor.lock().is_some() {
            self.cancel();
            let _ = self.wait(None);
        }
    }
}
