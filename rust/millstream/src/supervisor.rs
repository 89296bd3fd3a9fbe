//! Supervises a job: opens its state, runs it, and restarts it after a failure according to its restart strategy.
//!
//! ```text
//!   launch ──► Running ──ended──► Finished
//!     ▲           │ failed
//!     │           ▼
//!     └─pause─ Restarting ──no attempts left──► Failed
//! ```
//!
//! The store is opened again for every attempt: its lock belongs to the attempt, and recovery finds the same state as a new
//! process would.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mill_plan::{PhysicalPlan, Rung, StageKind};
use mill_protocol::{Ending, Error, ErrorKind, Result, Source, SystemClock};
use mill_runtime::{JobHandle, Monitor, Owner, Report, RunOptions, guarded, spawn_thread};
use mill_snapshot::RealDisk;

use crate::{graph, place};
use crate::job::{JobState, Status};
use crate::options::{OnHeld, OnText, Options, Restart};
use crate::recovery::{self, Recovered};

/// How often it is looked whether a watermark is held back, or a task has noted something.
const LOOK: Duration = Duration::from_secs(1);
/// How many notes a job keeps; the oldest go first.
const NOTES_MAX: usize = 100;
/// How many frames a queue holds.
const QUEUE_CAPACITY: usize = 8;
/// Rows a frame has under load, unless the user says otherwise: its columns stay in the second-level cache.
const FRAME_ROWS: usize = 8192;
/// The same where the interpreter is called once a frame: the call, and the way in and out through Arrow's C interface,
/// cost as much for many rows as for few (about 80 µs).
const FRAME_ROWS_OF_BATCH_FUNCTIONS: usize = 65_536;

/// What the supervisor and the user's [`Job`](crate::Job) share.
pub(crate) struct Supervision {
    shared: Monitor<Shared>,
}

struct Shared {
    state: JobState,
    handle: Option<Arc<JobHandle>>,
    restarts: u32,
    notes: Vec<String>,
    /// Those of the notes that a listener was told.
    told: HashSet<String>,
    command: Command,
    /// Ends the waiting of the attempt that runs or begins.
    ending: Ending,
    outcome: Option<Result<Report>>,
}

impl Shared {
    fn note(&mut self, note: String) {
        if self.notes.len() == NOTES_MAX {
            let first = self.notes.remove(0);
            self.told.remove(&first);
        }
        self.notes.push(note);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Command {
    Run,
    Stop,
    Cancel,
}

impl Supervision {
    pub(crate) fn new() -> Supervision {
        Supervision {
            shared: Monitor::new(Shared {
                state: JobState::Starting,
                handle: None,
                restarts: 0,
                notes: Vec::new(),
                told: HashSet::new(),
                command: Command::Run,
                ending: Ending::default(),
                outcome: None,
            }),
        }
    }

    pub(crate) fn status(&self) -> Status {
        let shared = self.shared.lock();
        let mut notes = shared.notes.clone();
        if let Some(error) = shared.handle.as_ref().and_then(|handle| handle.metrics().checkpoints.last_error) {
            notes.push(error);
        }
        let error = match &shared.outcome {
            Some(Err(error)) if shared.state == JobState::Failed => Some(error.to_string()),
            _ => None,
        };
        Status { state: shared.state, restarts: shared.restarts, notes, error }
    }

    /// The notes that a listener was told.
    pub(crate) fn told(&self) -> Vec<String> {
        self.shared.lock().told.iter().cloned().collect()
    }

    pub(crate) fn handle(&self) -> Option<Arc<JobHandle>> {
        self.shared.lock().handle.clone()
    }

    pub(crate) fn stop(&self) {
        self.command(Command::Stop);
    }

    pub(crate) fn cancel(&self) {
        self.command(Command::Cancel);
    }

    /// Whether the calling thread is one of the job's own.
    pub(crate) fn is_own_thread(&self) -> bool {
        self.handle().is_some_and(|handle| handle.is_own_thread())
    }

    /// The thread that sees to the job has panicked: ends the job, and tells what it should have told.
    pub(crate) fn broken(&self, error: Error) {
        if let Some(handle) = self.handle() {
            handle.cancel();
            // Whoever hears of the end may start the next run: the locks have to be free by then.
            drop(handle.wait(None));
        }
        let mut shared = self.shared.lock();
        shared.handle = None;
        shared.state = JobState::Failed;
        shared.outcome.get_or_insert(Err(error));
        self.shared.notify_all();
    }

    fn command(&self, command: Command) {
        let mut shared = self.shared.lock();
        if shared.command != Command::Cancel {
            shared.command = command;
        }
        if shared.command == Command::Cancel {
            shared.ending.set();
        }
        if let Some(handle) = &shared.handle {
            match command {
                Command::Run => {}
                Command::Stop => handle.stop(),
                Command::Cancel => handle.cancel(),
            }
        }
        self.shared.notify_all();
    }

    /// Waits for the outcome. The failure itself is given once; asked again, the same without its cause.
    pub(crate) fn wait(&self, timeout: Option<Duration>) -> Option<Result<Report>> {
        let mut shared = self.shared.wait_while(self.shared.lock(), timeout, |shared| shared.outcome.is_none());
        let remembered = match shared.outcome.as_ref()? {
            Ok(report) => Ok(report.clone()),
            Err(error) => {
                let copy = Error::new(error.kind(), error.message());
                Err(match error.step() {
                    Some(step) => copy.in_step(step),
                    None => copy,
                })
            }
        };
        shared.outcome.replace(remembered)
    }

    /// What ends the waiting of the attempt that begins.
    fn set_ending(&self, ending: Ending) {
        let mut shared = self.shared.lock();
        if shared.command == Command::Cancel {
            ending.set();
        }
        shared.ending = ending;
    }

    fn note(&self, note: String) {
        self.shared.lock().note(note);
    }

    /// Adds a note of a task, which a listener is told at once if there is one.
    fn note_of_task(&self, note: &str, is_told: bool) {
        let mut shared = self.shared.lock();
        shared.note(note.to_owned());
        if is_told {
            shared.told.insert(note.to_owned());
        }
    }

    /// The pause before the next restart, of the job or of one of its tasks, which share the attempts of the strategy; `None` if
    /// none is left.
    fn next_restart(&self, restart: Restart, of: &str, error: &Error) -> Option<Duration> {
        let (pause, attempt) = {
            let mut shared = self.shared.lock();
            let pause = restart.pause(shared.restarts)?;
            shared.restarts += 1;
            (pause, shared.restarts)
        };
        self.note(format!("restart {attempt} after {pause:?}, of {of}, because {error}"));
        Some(pause)
    }

    /// Pauses before a restart; returns false if the user wants the job to end.
    fn pause(&self, pause: Duration) -> bool {
        let shared = self.shared.wait_while(self.shared.lock(), Some(pause), |shared| shared.command == Command::Run);
        shared.command == Command::Run
    }
}

/// What the runtime is told of one attempt.
pub(crate) fn run_options(plan: &PhysicalPlan, options: &Options, recovered: Recovered) -> Result<RunOptions> {
    let checkpoint = options.checkpoint.as_ref();
    Ok(RunOptions {
        workers: options.effective_parallelism()?,
        mode: graph::mode(options.mode()),
        interval: checkpoint.map(|checkpoint| checkpoint.every),
        store: recovered.store,
        restore: recovered.checkpoint,
        retain: checkpoint.map_or(1, |checkpoint| checkpoint.retain),
        on_error: graph::on_error(options.on_error),
        clock: Arc::new(SystemClock),
        frame_rows: options.frame_rows.unwrap_or_else(|| frame_rows(plan)),
        queue_capacity: QUEUE_CAPACITY,
        is_pinned: true,
        fingerprint: plan.fingerprint(),
        outline: plan.outline.encode(),
        changes: recovery::changes(plan, checkpoint),
        schedule_seed: None,
        hand_clock: None,
        task_restarts: None,
        savepoints: place::savepoints(),
        ending: Ending::default(),
    })
}

/// How many rows a frame is to have for the functions in a plan, where these are fast: slow ones get fewer at once. One that is
/// called once a record gains nothing by large frames.
fn frame_rows(plan: &PhysicalPlan) -> usize {
    let calls = |rung: Rung| plan.chains.iter().flat_map(|chain| &chain.stages).any(|stage| stage.kind.rung() == rung);
    if calls(Rung::Batch) && !calls(Rung::Record) { FRAME_ROWS_OF_BATCH_FUNCTIONS } else { FRAME_ROWS }
}

/// Tells a listener of steps whose watermark is held back.
struct HeldWatch<'a> {
    listener: &'a OnHeld,
    /// The steps that were told of and are still held.
    told: HashSet<String>,
}

impl<'a> HeldWatch<'a> {
    fn new(listener: &'a OnHeld) -> HeldWatch<'a> {
        HeldWatch { listener, told: HashSet::new() }
    }

    fn look(&mut self, handle: &JobHandle) {
        let held = handle.held();
        self.told.retain(|step| held.iter().any(|(held, _)| *held == step.as_str()));
        for (step, held) in held {
            if held.others.is_none() || !self.told.insert(step.to_owned()) {
                continue;
            }
            let (listener, step) = (self.listener.clone(), step.to_owned());
            tell(handle.owner(), move || (listener.0)(&step, &held));
        }
    }
}

/// Tells a listener something. It may wait for an interpreter that is busy; the job must not.
fn tell(owner: Owner, call: impl FnOnce() + Send + 'static) {
    // A thread that cannot be had costs a line in a log.
    drop(spawn_thread("mill-log", owner, call, |_| {}));
}

/// Runs on a thread of its own, one a job.
pub(crate) struct Supervisor {
    plan: PhysicalPlan,
    options: Options,
    supervision: Arc<Supervision>,
    until: Option<Instant>,
}

impl Supervisor {
    pub(crate) fn new(plan: PhysicalPlan, options: Options, supervision: Arc<Supervision>) -> Supervisor {
        let until = options.until.map(|until| Instant::now() + until);
        Supervisor { plan, options, supervision, until }
    }

    /// What hears why the job has failed.
    pub(crate) fn on_failed(&self) -> Option<OnText> {
        self.options.on_failed.clone()
    }

    /// Opens the state and starts one attempt. A panic on the way is an error like any other: whoever waits hears of it.
    pub(crate) fn launch(&mut self) -> Result<Arc<JobHandle>> {
        guarded("the start of the job", || self.launch_unguarded())
    }

    fn launch_unguarded(&mut self) -> Result<Arc<JobHandle>> {
        mill_fault::pass("thread.supervisor");
        let ending = Ending::default();
        self.supervision.set_ending(ending.clone());
        let said = |text: &str| {
            self.supervision.note(text.to_owned());
            if let Some(OnText(told)) = &self.options.on_wait {
                told(text);
            }
        };
        let mut recovered = recovery::open(self.options.checkpoint.as_ref(), &self.plan, Arc::new(RealDisk), &ending, &said)?;
        if let Some(checkpoint) = &mut self.options.checkpoint {
            // From here on the directory holds this job, which continues from its own checkpoints after a failure.
            checkpoint.restart = false;
        }
        for note in recovered.notes.drain(..) {
            self.supervision.note(note);
        }
        let scratch = recovered.scratch.take();
        let (supervision, restart) = (Arc::clone(&self.supervision), self.options.restart);
        let run = RunOptions {
            ending,
            task_restarts: Some(Arc::new(move |error| supervision.next_restart(restart, "one task alone", error))),
            ..run_options(&self.plan, &self.options, recovered)?
        };
        let handle = Arc::new(mill_runtime::start(graph::job_graph(&self.plan), run)?);
        // All sinks have taken up what the checkpoint held for them.
        drop(scratch);
        let mut shared = self.supervision.shared.lock();
        shared.state = JobState::Running;
        shared.handle = Some(Arc::clone(&handle));
        match shared.command {
            Command::Run => {}
            Command::Stop => handle.stop(),
            Command::Cancel => handle.cancel(),
        }
        Ok(handle)
    }

    /// Sees the job through to its end.
    pub(crate) fn run(mut self, first: Arc<JobHandle>) {
        let mut handle = first;
        let outcome = loop {
            mill_fault::pass("thread.supervisor");
            let error = match self.watch(&handle) {
                Ok(report) => break Ok(report),
                Err(error) => error,
            };
            match self.relaunch(error) {
                Ok(next) => handle = next,
                Err(error) => break Err(error),
            }
        };
        let mut shared = self.supervision.shared.lock();
        // Whoever has only the report must hear of a checkpoint that was skipped, too.
        let outcome = outcome.map(|mut report| {
            report.notes.splice(0..0, shared.notes.iter().cloned());
            report
        });
        shared.state = match &outcome {
            Ok(report) if report.status == mill_runtime::Status::Cancelled => JobState::Cancelled,
            Ok(report) if report.status == mill_runtime::Status::Stopped => JobState::Stopped,
            Ok(_) => JobState::Finished,
            Err(error) if error.kind() == ErrorKind::Cancelled => JobState::Cancelled,
            Err(_) => JobState::Failed,
        };
        let failure = outcome.as_ref().err().filter(|_| shared.state == JobState::Failed).map(Error::to_string);
        shared.outcome = Some(outcome);
        self.supervision.shared.notify_all();
        drop(shared);
        if let (Some(failure), Some(OnText(listener))) = (failure, self.options.on_failed.clone()) {
            tell(Owner::new(), move || listener(&failure));
        }
    }

    /// Takes up what the tasks have noted.
    fn take_notes(&self, handle: &JobHandle) {
        for note in handle.take_notes() {
            let listener = self.options.on_note.clone();
            self.supervision.note_of_task(&note, listener.is_some());
            if let Some(OnText(listener)) = listener {
                tell(handle.owner(), move || listener(&note));
            }
        }
    }

    /// Waits for the end of an attempt, and stops it when its time is over.
    fn watch(&self, handle: &JobHandle) -> Result<Report> {
        let mut until = self.until;
        let is_followed = self.sources().any(|source| !source.properties().is_bounded);
        let mut listener = self.options.on_held.as_ref().filter(|_| self.may_be_held()).map(HeldWatch::new);
        loop {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            let pause = is_followed.then_some(LOOK);
            let outcome = handle.wait([left, pause].into_iter().flatten().min());
            self.take_notes(handle);
            if let Some(outcome) = outcome {
                return outcome;
            }
            if let Some(listener) = &mut listener {
                listener.look(handle);
            }
            if until.is_some_and(|until| until <= Instant::now()) {
                until = None;
                handle.stop();
            }
        }
    }

    fn sources(&self) -> impl Iterator<Item = &dyn Source> {
        self.plan.chains.iter().filter_map(|chain| chain.source.as_ref()).map(|stage| &*stage.source)
    }

    /// Whether a split without an end could hold back a watermark; otherwise nobody need look.
    fn may_be_held(&self) -> bool {
        self.plan.chains.iter().any(|chain| {
            chain.source.as_ref().is_some_and(|stage| !stage.source.properties().is_bounded)
                && chain.stages.iter().any(|stage| matches!(stage.kind, StageKind::EventTime { .. }))
        })
    }

    /// Starts the job again, if its restart strategy has an attempt left.
    fn relaunch(&mut self, error: Error) -> Result<Arc<JobHandle>> {
        let mut error = error;
        loop {
            let pause = match error.kind() {
                // Starting again changes nothing about these.
                ErrorKind::Cancelled | ErrorKind::Plan | ErrorKind::Schema => None,
                _ => self.supervision.next_restart(self.options.restart, "the job", &error),
            };
            let Some(pause) = pause else { return Err(self.given_up(error)) };
            {
                let mut shared = self.supervision.shared.lock();
                shared.state = JobState::Restarting;
                // Dropped here so that its lock on the state directory is gone before the next attempt.
                shared.handle = None;
            }
            if !self.supervision.pause(pause) {
                return Err(error);
            }
            match self.launch() {
                Ok(handle) => return Ok(handle),
                Err(next) => error = next,
            }
        }
    }

    fn given_up(&self, error: Error) -> Error {
        let attempts = self.supervision.status().restarts;
        if attempts > 0 && self.options.restart != Restart::Never {
            self.supervision.note(format!("gave up after {}", mill_frame::words::counted(attempts, "restart")));
        }
        error
    }
}
