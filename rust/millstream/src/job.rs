//! A running job, as its user holds it.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use mill_plan::{PhysicalPlan, PlanOptions, SinkNode, lower};
use mill_protocol::{Error, ErrorKind, Result};
use mill_runtime::{Metrics, Owner, Report, spawn_thread};
use parking_lot::Mutex;

use crate::options::{OnText, Options};
use crate::{apart, recovery};
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
    /// Done: the input ended.
    Finished,
    /// Ended by the user, or after a given time, with a last checkpoint: a later run continues from there.
    Stopped,
    /// Ended by the user without a last checkpoint.
    Cancelled,
    /// Failed for good.
    Failed,
    /// The job runs in the process that this one was forked from, and is not known here.
    Elsewhere,
}

impl JobState {
    /// The state in lower case, as users read it.
    pub fn as_str(self) -> &'static str {
        match self {
            JobState::Starting => "starting",
            JobState::Running => "running",
            JobState::Restarting => "restarting",
            JobState::Finished => "finished",
            JobState::Stopped => "stopped",
            JobState::Cancelled => "cancelled",
            JobState::Failed => "failed",
            JobState::Elsewhere => "elsewhere",
        }
    }
}

/// The state of a job.
#[derive(Clone, Debug)]
pub struct Status {
    /// Where it is in its life.
    pub state: JobState,
    /// How often it was started again after a failure.
    pub restarts: u32,
    /// What the user should know: checkpoints passed over in recovery, failed checkpoints, failures restarted from.
    pub notes: Vec<String>,
    /// Why the job has failed, once it has.
    pub error: Option<String>,
}

/// A job that runs in the background. Dropping it cancels the job and waits until its threads are gone, unless it is
/// dropped by one of them, or was [let go](Job::let_go).
///
/// A process that is forked has none of the job's threads: there every call is an error, and dropping does nothing.
pub struct Job {
    supervision: Arc<Supervision>,
    supervisor: Mutex<Option<JoinHandle<()>>>,
    /// The process that the threads belong to.
    process: u32,
}

/// Starts a job that writes to these sinks.
///
/// # Errors
/// What can be known before the first record: options that cannot be, a plan that does not hold together, a source or
/// sink that cannot keep the guarantee asked for.
pub fn start(sinks: &[SinkNode], options: Options) -> Result<Job> {
    let plan = checked_plan(sinks, &options)?;
    let supervision = Arc::new(Supervision::new());
    let mut supervisor = Supervisor::new(plan, options, Arc::clone(&supervision));
    // The first attempt is prepared on the caller's thread, so that a state directory that cannot be used is an error
    // of this call.
    let first = supervisor.launch()?;
    let (told, on_failed) = (Arc::clone(&supervision), supervisor.on_failed());
    let broken = move |error: Error| {
        let text = error.to_string();
        told.broken(error);
        if let Some(OnText(listener)) = on_failed {
            listener(&text);
        }
    };
    let thread = spawn_thread("mill-supervisor", Owner::new(), move || supervisor.run(first), broken)?;
    Ok(Job { supervision, supervisor: Mutex::new(Some(thread)), process: std::process::id() })
}

/// Checks what [`start`] checks of the plan, the options and the newest checkpoint, and changes nothing: the job that the state
/// directory belongs to may be running. Returns whether there is a checkpoint to continue from.
///
/// # Errors
/// As [`start`], as far as the job that runs does not have to end first.
pub fn check(sinks: &[SinkNode], options: &Options) -> Result<bool> {
    let plan = checked_plan(sinks, options)?;
    let Some(checkpoint) = options.checkpoint.as_ref().filter(|checkpoint| !checkpoint.restart) else { return Ok(false) };
    recovery::look(checkpoint, &plan)
}

/// The plan of a job, after what can be said of it without looking into the state directory.
fn checked_plan(sinks: &[SinkNode], options: &Options) -> Result<PhysicalPlan> {
    options.check()?;
    let plan = lower(sinks, &plan_options(options)?)?;
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
        apart::check(&checkpoint.path, sinks)?;
    }
    Ok(plan)
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
    /// The state of the job.
    pub fn status(&self) -> Status {
        if let Err(error) = self.check_process() {
            return Status { state: JobState::Elsewhere, restarts: 0, notes: vec![error.message().to_owned()], error: None };
        }
        self.supervision.status()
    }

    /// The notes that [`Options::on_note`] was told.
    pub fn told_notes(&self) -> Vec<String> {
        self.supervision.told()
    }

    /// The figures of the attempt that runs now, or ran last.
    pub fn metrics(&self) -> Option<Metrics> {
        self.check_process().ok()?;
        self.supervision.handle().map(|handle| handle.metrics())
    }

    /// Takes a checkpoint now and waits until it is durable.
    ///
    /// # Errors
    /// When the job does not run, the checkpoint fails, or a function of the job itself asks for it.
    pub fn checkpoint_now(&self) -> Result<()> {
        self.running()?.checkpoint_now().map(|_| ())
    }

    /// Writes a savepoint into this directory: a checkpoint that belongs to the user.
    ///
    /// # Errors
    /// When the job does not run or has no checkpoints, the directory cannot be written, or a function of the job itself
    /// asks for it.
    pub fn savepoint(&self, path: &Path) -> Result<()> {
        self.running()?.savepoint(path).map(|_| ())
    }

    /// Asks for the end: a last checkpoint, a last commit, then the job ends. Returns at once.
    ///
    /// # Errors
    /// In a process that was forked from that of the job.
    pub fn stop(&self) -> Result<()> {
        self.check_process()?;
        self.supervision.stop();
        Ok(())
    }

    /// Ends the job now, without a last checkpoint. The newest one stays usable. Returns at once.
    ///
    /// # Errors
    /// In a process that was forked from that of the job.
    pub fn cancel(&self) -> Result<()> {
        self.check_process()?;
        self.supervision.cancel();
        Ok(())
    }

    /// Waits for the end, at most this long; `None` if the job still runs then. A function of the job itself gets an
    /// error: the job would wait for the function.
    pub fn wait(&self, timeout: Option<Duration>) -> Option<Result<Report>> {
        if let Err(error) = self.check_wait() {
            return Some(Err(error));
        }
        let outcome = self.supervision.wait(timeout)?;
        if let Some(thread) = self.supervisor.lock().take() {
            // The thread has told its outcome and only returns from here; a panic of it is in the outcome already.
            let _ = thread.join();
        }
        Some(outcome)
    }

    /// Whose the threads of the present attempt are.
    pub fn owner(&self) -> Option<Owner> {
        self.check_process().ok()?;
        self.supervision.handle().map(|handle| handle.owner())
    }

    /// Whether the job has neither been seen to end nor been [let go](Job::let_go).
    pub fn is_held(&self) -> bool {
        self.check_process().is_ok() && self.supervisor.lock().is_some()
    }

    /// Cancels the job, which is then not waited for any more, also not by [`drop`]: a call inside it may not come back.
    pub fn let_go(&self) {
        if self.check_process().is_ok() {
            self.supervision.cancel();
            drop(self.supervisor.lock().take());
        }
    }

    /// Whether waiting for the job can come to an end.
    ///
    /// # Errors
    /// On a thread of the job itself, and in a process that was forked from that of the job.
    pub fn check_wait(&self) -> Result<()> {
        self.check_process()?;
        if self.is_own_thread() {
            let message = "a function of a job cannot wait for the end of that job, which would wait for the function; \
                           call stop() and return";
            return Err(Error::new(ErrorKind::Cancelled, message));
        }
        Ok(())
    }

    /// Whether waiting for a checkpoint or a savepoint can come to an end.
    ///
    /// # Errors
    /// On a thread of the job itself, and in a process that was forked from that of the job.
    pub fn check_ask(&self) -> Result<()> {
        self.check_process()?;
        self.supervision.handle().map_or(Ok(()), |handle| handle.check_ask())
    }

    fn is_own_thread(&self) -> bool {
        let current = std::thread::current().id();
        self.supervision.is_own_thread()
            || self.supervisor.lock().as_ref().is_some_and(|thread| thread.thread().id() == current)
    }

    fn check_process(&self) -> Result<()> {
        let here = std::process::id();
        if here == self.process {
            return Ok(());
        }
        let message = format!(
            "the job runs in process {}, and this is process {here}, which was forked from it; use the job there, or start \
             one here",
            self.process
        );
        Err(Error::new(ErrorKind::Cancelled, message))
    }

    fn running(&self) -> Result<Arc<mill_runtime::JobHandle>> {
        self.check_process()?;
        let status = self.status();
        match (status.state, self.supervision.handle()) {
            (JobState::Running, Some(handle)) => Ok(handle),
            (state, _) => Err(Error::new(ErrorKind::Checkpoint, format!("the job is {}; nothing to save", state.as_str()))),
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if self.check_process().is_err() {
            // Its locks may be held by threads that do not exist here, and its files belong to the other process.
            std::mem::forget(Arc::clone(&self.supervision));
            std::mem::forget(self.supervisor.get_mut().take());
            return;
        }
        let is_own = self.is_own_thread();
        if self.supervisor.get_mut().is_some() {
            self.supervision.cancel();
            if !is_own {
                let _ = self.wait(None);
            }
        }
    }
}
