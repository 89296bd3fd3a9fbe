//! Starting a job, and the handle of one that runs.
//!
//! ```text
//!   start ─► restore ─► recover sinks ─► build tasks ─► worker threads, coordinator thread ─► JobHandle
//!                                                   └─► or, with a seed, a schedule driven by hand
//! ```

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded, unbounded};
use mill_protocol::{Clock, Ending, Error, ManualClock, Result, SteadyClock};
use mill_queue::Parker;
use mill_snapshot::Store;
use parking_lot::Mutex;

use crate::build::TaskBuilder;
use crate::channel::WorkerRef;
use crate::checkpoint::Reply;
use crate::coordinator::{Command, Coordinator, CoordinatorParts};
use crate::graph::{JobGraph, StageBody};
use crate::held::Held;
use crate::listeners::Listeners;
use crate::job_result::{Outcome, Report, Status};
use crate::metrics::{Metrics, Registry};
use crate::options::{Mode, RunOptions};
use crate::rebuild::Origins;
use crate::recovery::Recovery;
use crate::schedule::Schedule;
use crate::shared::{Message, Shared};
use crate::sinks::{SinkState, Sinks};
use crate::storage;
use crate::task::Task;
use crate::threads::{self, Owner};
use crate::worker;
use crate::writers::Writers;

/// How often an ephemeral job with unbounded input makes its output visible.
const EPHEMERAL_INTERVAL: Duration = Duration::from_secs(1);
/// How many threads write checkpoints.
const WRITER_THREADS: usize = 2;
/// How often a coordinator that has failed looks whether the workers are gone, should their word not come.
const WORKERS_LOOK: Duration = Duration::from_millis(10);

/// A job that runs, or has run. Dropping it cancels the job.
pub struct JobHandle {
    shared: Arc<Shared>,
    outcome: Arc<Outcome>,
    registry: Arc<Registry>,
    /// With a seed: what is driven by whoever waits.
    schedule: Option<Mutex<Schedule>>,
    clock: Option<Arc<ManualClock>>,
    /// What the job's waiting is measured by.
    time: Arc<dyn Clock>,
}

/// Starts a job.
///
/// # Errors
/// When the graph is not sound, the checkpoint does not fit the plan, or a source, operator or sink cannot be opened.
pub fn start(mut graph: JobGraph, mut options: RunOptions) -> Result<JobHandle> {
    graph.check()?;
    // One plan may be run several times, also at the same time.
    for source in graph.chains.iter_mut().filter_map(|chain| chain.source.as_mut()) {
        if let Some(own) = source.source.of_run().map_err(|error| error.in_step(&source.name))? {
            source.source = own;
        }
    }
    for stage in graph.chains.iter_mut().flat_map(|chain| &mut chain.stages) {
        if let StageBody::Sink { sink, .. } = &mut stage.body
            && let Some(own) = sink.of_run().map_err(|error| error.in_step(&stage.name))?
        {
            *sink = own;
        }
    }
    if options.workers == 0 || options.frame_rows == 0 || options.queue_capacity == 0 {
        return Err(Error::plan("workers, frame_rows and queue_capacity must be at least 1"));
    }
    let is_by_hand = options.schedule_seed.is_some();
    let is_time_held = options.hand_clock.is_some();
    let manual = is_by_hand.then(|| {
        options.hand_clock.take().unwrap_or_else(|| {
            let clock = Arc::new(ManualClock::default());
            clock.set(options.clock.now());
            clock
        })
    });
    if let Some(clock) = &manual {
        options.clock = Arc::clone(clock) as _;
    }
    let time: Arc<dyn Clock> = match is_by_hand {
        true => Arc::clone(&options.clock),
        false => Arc::new(SteadyClock::agreeing_with(&*options.clock)),
    };
    let outcome = Arc::new(Outcome::new());
    let (send, receive) = unbounded();

    let recovery = Arc::new(Recovery::open(&graph, &mut options)?);
    let parkers: Vec<Parker> = (0..if is_by_hand { 1 } else { options.workers }).map(|_| Parker::new()).collect();
    let unparkers = parkers.iter().map(Parker::unparker);
    let is_open = recovery.restored_id().is_some() || options.store.is_none() || options.mode == Mode::None || begins_alike(&graph);
    let shared = Shared::new(recovery.epoch(), send, unparkers.clone().collect(), options.ending.clone(), is_open);
    let shared = Arc::new(shared);
    if let Some(remote) = options.store.as_ref().and_then(|store| store.remote()) {
        let told = Arc::downgrade(&shared);
        remote.on_lost(move |error| {
            if let Some(shared) = told.upgrade() {
                shared.tell(Message::Failed(storage::error(error)));
            }
        });
    }
    if recovery.is_finished() {
        // A job that has nothing to do leaves what its directory holds.
        drop(open_sinks(&graph, &recovery, None, &shared.ending)?);
        let registry = Arc::new(Registry::default());
        outcome.set(Ok(recovery.finished_report()));
        return Ok(JobHandle { shared, outcome, registry, schedule: None, clock: manual, time });
    }
    let sinks = open_sinks(&graph, &recovery, options.store.as_ref(), &shared.ending)?;
    let is_persistent = options.store.is_some() && options.mode != Mode::None;
    let kept = options.store.as_ref().filter(|_| options.mode == Mode::Dedup);
    let origins = kept.map(|store| Origins::new(store.clone(), Arc::clone(&recovery)));
    let builder = TaskBuilder {
        graph: &graph,
        mode: options.mode,
        on_error: options.on_error,
        clock: Arc::clone(&time),
        frame_rows: options.frame_rows,
        queue_capacity: options.queue_capacity,
        is_persistent,
        is_by_hand,
        is_time_held,
        workers: unparkers.enumerate().map(|(index, unparker)| WorkerRef { index, unparker }).collect(),
        shared: Arc::clone(&shared),
        recovery: &recovery,
        origins: origins.clone(),
    };
    let built = builder.build()?;
    let registry = Arc::new(built.registry);
    let interval = match (&options.store, is_unbounded(&graph)) {
        _ if is_time_held => None,
        (Some(_), _) => options.interval,
        (None, true) => Some(options.interval.unwrap_or(EPHEMERAL_INTERVAL)),
        (None, false) => None,
    };
    let parts = CoordinatorParts {
        shared: Arc::clone(&shared),
        clock: Arc::clone(&options.clock),
        tasks: built.ids,
        workers: parkers.len(),
        sinks,
        listeners: if is_persistent { Listeners::open(&graph)? } else { Listeners::default() },
        storage: recovery.storage(&graph, &options),
        writers: if is_by_hand { Writers::ByHand(Default::default()) } else { Writers::start(WRITER_THREADS, &shared)? },
        mode: options.mode,
        task_restarts: options.task_restarts.clone(),
        origins,
        interval,
        is_timed: !is_by_hand,
        epoch: recovery.epoch(),
        registry: Arc::clone(&registry),
        outcome: Arc::clone(&outcome),
        notes: Vec::new(),
        restored: recovery.restored_id(),
    };
    let coordinator = Coordinator::new(parts, 0);
    let mut handle =
        JobHandle { shared: Arc::clone(&shared), outcome, registry, schedule: None, clock: manual.clone(), time };
    if let (Some(seed), Some(clock)) = (options.schedule_seed, manual) {
        let tasks = built.tasks.into_iter().map(|(_, task)| task).collect();
        let parker = parkers.into_iter().next().ok_or_else(|| Error::internal("a schedule without a parker"))?;
        let schedule = Schedule::new(seed, tasks, coordinator, receive, shared, clock, is_time_held, parker);
        handle.schedule = Some(Mutex::new(schedule));
        return Ok(handle);
    }
    if let Err(error) = spawn(built.tasks, parkers, coordinator, receive, &shared, options.is_pinned) {
        // Those threads that were started wait for a coordinator that will not come.
        shared.end();
        return Err(error);
    }
    Ok(handle)
}

impl JobHandle {
    /// The state of the job.
    pub fn status(&self) -> Status {
        self.outcome.status()
    }

    /// What it has done so far.
    pub fn metrics(&self) -> Metrics {
        self.registry.collect(self.time_if_running())
    }

    /// What the tasks have noted for the user since this was last called.
    pub fn take_notes(&self) -> Vec<String> {
        self.registry.notes.take()
    }

    /// The steps whose watermark has been held back for some seconds, and by what.
    pub fn held(&self) -> Vec<(&str, Held)> {
        self.time_if_running().map(|now| self.registry.held(now)).unwrap_or_default()
    }

    fn time_if_running(&self) -> Option<i64> {
        (self.status() == Status::Running).then(|| self.time.now())
    }

    /// Takes a checkpoint and waits for it; returns its number.
    ///
    /// # Errors
    /// When the checkpoint fails, or the job ends before it is taken. The job itself continues after the former.
    pub fn checkpoint_now(&self) -> Result<u64> {
        self.ask(Command::Checkpoint)
    }

    /// Takes a savepoint into a directory of the user's and waits for it; returns its number.
    ///
    /// # Errors
    /// When it cannot be written, or the job ends before it is taken. The job itself continues after the former.
    pub fn savepoint(&self, path: impl Into<PathBuf>) -> Result<u64> {
        let path = path.into();
        self.ask(|reply| Command::Savepoint(path, reply))
    }

    /// Lets the job take a last checkpoint, make its output visible, and end. Does not wait.
    pub fn stop(&self) {
        self.shared.tell(Message::Command(Command::Stop));
    }

    /// Lets the sources end as if their input had: windows close, results come out, the job finishes. Does not wait.
    pub fn drain(&self) {
        self.shared.drain();
    }

    /// Lets the job end now, as of its last checkpoint. Does not wait.
    pub fn cancel(&self) {
        // The coordinator may be what waits.
        self.shared.ending.set();
        self.shared.tell(Message::Command(Command::Cancel));
    }

    /// Waits for the end; `None` if it does not come in time. The cause of an error is given to the first who asks.
    ///
    /// With a schedule seed this is what drives the job: until it is over, or until nothing can happen any more (an
    /// unbounded input that has nothing more to give), whatever the timeout.
    pub fn wait(&self, timeout: Option<Duration>) -> Option<Result<Report>> {
        let Some(schedule) = &self.schedule else { return self.outcome.wait(timeout) };
        schedule.lock().run(u64::MAX);
        self.outcome.wait(Some(Duration::ZERO))
    }

    /// Whether the calling thread may wait for a checkpoint of the job.
    ///
    /// # Errors
    /// When it is one of the job's own.
    pub fn check_ask(&self) -> Result<()> {
        if !self.is_own_thread() {
            return Ok(());
        }
        Err(Error::checkpoint(
            "a function of a job cannot wait for a checkpoint of that job, which would wait for the function; ask for it from \
             outside the job",
        ))
    }

    /// Whose the threads of the job are.
    pub fn owner(&self) -> Owner {
        self.shared.owner
    }

    /// Whether the calling thread is one of the job's: it must not wait for the job.
    pub fn is_own_thread(&self) -> bool {
        self.shared.owner.is_current()
    }

    /// With a schedule seed: takes up to that many steps; returns whether the job is over.
    pub fn run_steps(&self, steps: u64) -> bool {
        if let Some(schedule) = &self.schedule {
            schedule.lock().run(steps);
        }
        self.status().is_over()
    }

    /// With a schedule seed: takes one step; returns whether more could follow.
    pub fn step(&self) -> bool {
        self.schedule.as_ref().is_some_and(|schedule| schedule.lock().run(1))
    }

    /// With a schedule seed: the next time at which something happens though nothing comes in.
    pub fn next_time(&self) -> Option<i64> {
        self.schedule.as_ref().and_then(|schedule| schedule.lock().next_time())
    }

    /// With a schedule seed: the clock of the job.
    pub fn manual_clock(&self) -> Option<&Arc<ManualClock>> {
        self.clock.as_ref()
    }

    fn ask(&self, command: impl FnOnce(Reply) -> Command) -> Result<u64> {
        let over = || Error::checkpoint("the job is over; nothing to save");
        if self.status().is_over() {
            return Err(over());
        }
        self.check_ask()?;
        let (reply, answer) = bounded(1);
        self.shared.tell(Message::Command(command(reply)));
        if let Some(schedule) = &self.schedule {
            while answer.is_empty() && schedule.lock().run(1) {}
            return answer.try_recv().unwrap_or_else(|_| Err(over()));
        }
        loop {
            // The coordinator may have gone between the look at the status and the command: look again now and then.
            match answer.recv_timeout(Duration::from_millis(100)) {
                Ok(result) => return result,
                Err(RecvTimeoutError::Timeout) if !self.status().is_over() => {}
                Err(_) => return answer.try_recv().unwrap_or_else(|_| Err(over())),
            }
        }
    }
}

impl Drop for JobHandle {
    fn drop(&mut self) {
        if !self.status().is_over() {
            self.cancel();
        }
    }
}

fn open_sinks(graph: &JobGraph, recovery: &Recovery, store: Option<&Store>, ending: &Ending) -> Result<Sinks> {
    // One that is new may write where one that is gone has written.
    recovery.commit_left(ending)?;
    let mut sinks = Vec::new();
    for stage in graph.chains.iter().flat_map(|chain| &chain.stages) {
        if let StageBody::Sink { sink, .. } = &stage.body {
            let mut committer = sink.committer().map_err(|error| error.in_step(&stage.name))?;
            recovery.recover_sink(&stage.uid, &mut *committer, ending).map_err(|error| error.in_step(&stage.name))?;
            let (uid, name, target) = (stage.uid.clone(), stage.name.clone(), sink.target());
            let identity = recovery.identity(&uid).to_owned();
            let handover = sink.handover();
            sinks.push(SinkState { uid, identity, name, committer, target, handover, pending: Vec::new() });
        }
    }
    recovery.settle(store)?;
    Ok(Sinks::new(sinks))
}

fn is_unbounded(graph: &JobGraph) -> bool {
    let mut sources = graph.chains.iter().filter_map(|chain| chain.source.as_ref());
    sources.any(|source| !source.source.properties().is_bounded)
}

fn begins_alike(graph: &JobGraph) -> bool {
    let mut sources = graph.chains.iter().filter_map(|chain| chain.source.as_ref());
    sources.all(|source| source.source.begins_alike())
}

fn spawn(
    tasks: Vec<(usize, Task)>,
    parkers: Vec<Parker>,
    coordinator: Coordinator,
    messages: Receiver<Message>,
    shared: &Arc<Shared>,
    is_pinned: bool,
) -> Result<()> {
    let mut shares: Vec<Vec<Task>> = parkers.iter().map(|_| Vec::new()).collect();
    for (worker, task) in tasks {
        shares[worker].push(task);
    }
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    // A core has to be left for whatever else the process does: Python, readers, writers.
    let has_cores = is_pinned && parkers.len() > 1 && cores.len() > parkers.len();
    for (index, (tasks, parker)) in shares.into_iter().zip(parkers).enumerate() {
        let shared = Arc::clone(shared);
        let core = if has_cores { cores.get(index).copied() } else { None };
        let (owner, told) = (shared.owner, Arc::clone(&shared));
        let run = move || {
            if let Some(core) = core {
                // A refusal costs speed and nothing else.
                core_affinity::set_for_current(core);
            }
            worker::run(tasks, parker, &shared);
        };
        // The tasks have been dropped when this is called.
        let failed = move |error| {
            told.tell(Message::Failed(error));
            told.worker_gone();
        };
        threads::spawn(&format!("mill-worker-{index}"), owner, run, failed)?;
    }
    let (shared, outcome) = (Arc::clone(shared), coordinator.outcome());
    let (owner, left) = (shared.owner, messages.clone());
    let coordinator = Arc::new(Mutex::new(coordinator));
    let abandoned = Arc::clone(&coordinator);
    let run = move || coordinate(&mut coordinator.lock(), &messages);
    let failed = move |error| {
        shared.end();
        // Whoever hears of the end may start the next attempt: what the tasks hold has to be free by then.
        while !shared.alive.has_ended() {
            drop(left.recv_timeout(WORKERS_LOOK));
        }
        drop(threads::guarded("mill-coordinator", || Ok(abandoned.lock().abandon())));
        drop(abandoned);
        outcome.set(Err(error));
    };
    threads::spawn("mill-coordinator", owner, run, failed).map(drop)
}

fn coordinate(coordinator: &mut Coordinator, messages: &Receiver<Message>) {
    let start = Instant::now();
    let now = || start.elapsed().as_micros() as i64;
    while !coordinator.is_over() {
        mill_fault::pass("thread.coordinator");
        let message = match coordinator.due() {
            None => messages.recv().ok(),
            Some(due) => {
                let pause = Duration::from_micros((due - now()).max(0) as u64);
                messages.recv_timeout(pause).ok()
            }
        };
        match message {
            Some(message) => coordinator.handle(message, now()),
            None => coordinator.tick(now()),
        }
    }
}
