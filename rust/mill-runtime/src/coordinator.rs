//! The coordinator: takes checkpoints, commits sinks, and ends the job.
//!
//! ```text
//!            interval, request, or all input processed
//!   Running ────────────────────────────────────────► checkpoint under way ──► Running
//!      │                                                     │ stop or final one done
//!      │ failure, cancel                                     ▼
//!      └────────────────────────────────────────────► Closing (workers drop their tasks) ──► Over
//! ```
//!
//! It is a state machine that takes messages and the time as input, so that a test can step it. There is one checkpoint under
//! way at a time. What must hold:
//!
//! - exactly once: sinks commit only what a published manifest names (I3);
//! - a checkpoint that fails costs nothing but itself (I5): barriers pass as usual, output that its sinks made durable
//!   stays pending, and the store asks for a full one next, since the changes that were handed over are lost;
//! - a savepoint is a checkpoint that is copied; until it is, nothing is removed;
//! - a task that goes back alone goes back to the newest checkpoint: no other is begun and none is removed until it is where it had
//!   failed, and the next one holds all of the state if it has passed a barrier a second time;
//! - one that takes far longer than its interval is reported while it does ([`Overdue`]), with the tasks that it waits for.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mill_protocol::{Clock, Epoch, Error, Result};
use mill_queue::sync::atomic::Ordering;
use mill_snapshot::TaskId;

use crate::checkpoint::{Cause, CheckpointRequest, InFlight, Reply};
use crate::input_log::{Reach, Replayed};
use crate::job_result::{Outcome, Report, Status};
use crate::listeners::Listeners;
use crate::metrics::{Overdue, Registry};
use crate::options::{Mode, TaskRestarts};
use crate::rebuild::Origins;
use crate::shared::{Acknowledgement, Message, Order, Request, Shared};
use crate::sinks::Sinks;
use crate::storage::{self, Storage, Written};
use crate::threads::guarded;
use crate::writers::Writers;

/// How long a job that has processed everything keeps trying to write its last checkpoint. Long enough for a restart of a
/// file server; the newest checkpoint stays usable, so what is lost by giving up is work, not data.
const LAST_ATTEMPTS_US: i64 = 20_000_000;
/// The pause between two such attempts, where the interval is not longer.
const ATTEMPT_PAUSE_US: i64 = 200_000;
/// After so many intervals a checkpoint is overdue.
const OVERDUE_INTERVALS: i64 = 10;
/// Nor is it before this time: of short intervals, ten are soon over.
const OVERDUE_US_MIN: i64 = 1_000_000;
/// How often it is reported how long one has been overdue.
const OVERDUE_LOOK_US: i64 = 500_000;
/// How many notes a job keeps.
const NOTES_MAX: usize = 50;

/// What the user wants.
pub(crate) enum Command {
    /// A checkpoint now.
    Checkpoint(Reply),
    /// A checkpoint for keeps.
    Savepoint(PathBuf, Reply),
    /// A last checkpoint, then the end.
    Stop,
    /// The end.
    Cancel,
}

/// What a coordinator is made of.
pub(crate) struct CoordinatorParts {
    pub(crate) shared: Arc<Shared>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) tasks: Vec<TaskId>,
    pub(crate) workers: usize,
    pub(crate) sinks: Sinks,
    pub(crate) listeners: Listeners,
    pub(crate) storage: Option<Storage>,
    pub(crate) writers: Writers,
    pub(crate) mode: Mode,
    /// Which failures a task survives that can go back alone, and what such tasks go back to.
    pub(crate) task_restarts: Option<TaskRestarts>,
    pub(crate) origins: Option<Arc<Origins>>,
    pub(crate) interval: Option<Duration>,
    /// Whether time advances while nothing happens, so that a checkpoint can be overdue.
    pub(crate) is_timed: bool,
    /// The last number that was used.
    pub(crate) epoch: Epoch,
    pub(crate) registry: Arc<Registry>,
    pub(crate) outcome: Arc<Outcome>,
    pub(crate) notes: Vec<String>,
    pub(crate) restored: Option<u64>,
}

/// Takes checkpoints and ends the job.
pub(crate) struct Coordinator {
    parts: CoordinatorParts,
    phase: Phase,
    in_flight: Option<InFlight>,
    /// What the next checkpoint will answer.
    requests: Vec<CheckpointRequest>,
    /// Whether the job is to stop after its next checkpoint.
    is_stopping: bool,
    /// When the next checkpoint is due.
    due: Option<i64>,
    tasks_ended: usize,
    workers_gone: usize,
    /// When the last checkpoint of the job was first tried.
    last_since: Option<i64>,
    published: Option<u64>,
    /// Why the last checkpoint failed, if it did.
    failure: Option<String>,
    /// Whether a checkpoint is being published and committed.
    is_concluding: bool,
    /// When to look whether the checkpoint under way is overdue.
    overdue_look: Option<i64>,
    /// Whether it, or the one before it, was noted to be.
    is_overdue: bool,
    /// The tasks that are going back alone.
    going_back: Vec<usize>,
    /// Whether the next checkpoint has to hold all of the state.
    needs_full: bool,
}

enum Phase {
    Running,
    /// The workers were told to go; `Err` holds the first failure.
    Closing(Result<Status>),
    Over,
}

impl Coordinator {
    /// A coordinator at this time (microseconds since the start of the job).
    pub(crate) fn new(parts: CoordinatorParts, now: i64) -> Coordinator {
        let mut coordinator = Coordinator {
            parts,
            phase: Phase::Running,
            in_flight: None,
            requests: Vec::new(),
            is_stopping: false,
            due: None,
            tasks_ended: 0,
            workers_gone: 0,
            last_since: None,
            published: None,
            failure: None,
            is_concluding: false,
            overdue_look: None,
            is_overdue: false,
            going_back: Vec::new(),
            needs_full: false,
        };
        coordinator.plan_next(now);
        coordinator
    }

    /// When it wants to be called even if nothing happens.
    pub(crate) fn due(&self) -> Option<i64> {
        match self.phase {
            Phase::Running if self.in_flight.is_none() => self.due.filter(|_| self.going_back.is_empty()),
            Phase::Running => self.overdue_look,
            _ => None,
        }
    }

    /// Whether the job is over.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over)
    }

    /// Whether a checkpoint is under way.
    pub(crate) fn has_in_flight(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Where the outcome of the job is left.
    pub(crate) fn outcome(&self) -> Arc<Outcome> {
        Arc::clone(&self.parts.outcome)
    }

    /// Background work to be done by hand.
    pub(crate) fn writers(&mut self) -> &mut Writers {
        &mut self.parts.writers
    }

    /// Takes a message.
    pub(crate) fn handle(&mut self, message: Message, now: i64) {
        match message {
            Message::Acknowledged(given) => self.acknowledged(given),
            Message::Written(written) => self.written(written),
            Message::Ended => self.tasks_ended += 1,
            Message::Failed(error) => self.close(Err(error)),
            Message::TaskFailed(task, error, reach) => self.task_failed(task, error, &reach),
            Message::TaskBack(task, replayed) => self.task_back(task, replayed),
            Message::LogLong if self.in_flight.is_none() => self.due = Some(now),
            // The one under way makes it shorter.
            Message::LogLong => {}
            Message::WorkerGone => self.workers_gone += 1,
            Message::Command(command) => self.command(command),
            Message::Copied(outcome) => self.copied(outcome),
            Message::Note(note) => self.note(note),
        }
        self.tick(now);
    }

    /// Does what is due.
    pub(crate) fn tick(&mut self, now: i64) {
        if let Phase::Running = self.phase {
            if self.in_flight.as_ref().is_some_and(InFlight::is_complete) {
                self.is_concluding = true;
                self.conclude(now);
                self.is_concluding = false;
            }
        }
        if self.overdue_look.is_some_and(|at| at <= now) {
            self.report_overdue(now);
        }
        if let (Phase::Running, None, true) = (&self.phase, &self.in_flight, self.going_back.is_empty()) {
            let is_due = self.due.is_some_and(|due| due <= now);
            // The first attempt at the last checkpoint is made at once, further ones when they are due.
            let is_last_due = is_due || self.last_since.is_none();
            if self.tasks_ended == self.parts.tasks.len() {
                if is_last_due {
                    self.begin(Cause::Final, now);
                }
            } else if self.is_stopping {
                if is_last_due {
                    self.begin(Cause::Stop, now);
                }
            } else if is_due || !self.requests.is_empty() {
                self.begin(Cause::Regular, now);
            }
        }
        if let Phase::Closing(_) = self.phase {
            if self.workers_gone == self.parts.workers {
                self.finish(now);
            }
        }
    }

    /// Takes a regular checkpoint now, unless one is under way.
    pub(crate) fn trigger(&mut self, now: i64) {
        self.due = Some(now);
        self.tick(now);
    }

    /// A task has failed: lets it go back alone, if it can and may, or ends the job.
    fn task_failed(&mut self, task: usize, error: Error, reach: &Reach) {
        if !matches!(self.phase, Phase::Running) {
            return;
        }
        self.going_back.retain(|other| *other != task);
        let newest = match (&self.parts.origins, self.published) {
            (Some(_), Some(published)) => Some(Epoch(published)),
            (Some(origins), None) => Some(origins.first_id()),
            (None, _) => None,
        };
        let is_in_reach = |newest: &Epoch| match reach {
            Reach::Nothing => false,
            Reach::To(checkpoints) => checkpoints.contains(newest),
            Reach::Anywhere => true,
        };
        let Some(checkpoint) = newest.filter(is_in_reach) else {
            // It had taken too much since then.
            return self.close(Err(error));
        };
        let pause = self.parts.task_restarts.as_ref().and_then(|restarts| restarts(&error));
        let Some(pause) = pause else { return self.close(Err(error)) };
        // What it gave to the checkpoint under way was laid out by operators that are gone.
        self.needs_full |= matches!(reach, Reach::To(checkpoints) if checkpoints.iter().any(|other| *other > checkpoint));
        self.going_back.push(task);
        self.parts.shared.order(Order { task, checkpoint, pause });
    }

    /// A task that went back is where it had failed.
    fn task_back(&mut self, task: usize, Replayed { rows, entries }: Replayed) {
        let Some(at) = self.going_back.iter().position(|other| *other == task) else { return };
        self.going_back.swap_remove(at);
        let name = self.task_name(task);
        let from = self.published.or(self.parts.restored);
        let from = from.map_or_else(|| "the beginning".to_owned(), |id| format!("checkpoint {id}"));
        self.note(format!(
            "{name} went back alone to {from}: it took {} in {} once more, while all other tasks continued",
            mill_frame::words::counted(rows, "record"),
            mill_frame::words::counted(entries, "step")
        ));
    }

    fn task_name(&self, task: usize) -> String {
        let task = &self.parts.tasks[task];
        format!("task {} of {}", task.index, task.chain)
    }

    fn command(&mut self, command: Command) {
        if !matches!(self.phase, Phase::Running) {
            if let Command::Checkpoint(reply) | Command::Savepoint(_, reply) = command {
                drop(reply.send(Err(Error::checkpoint("the job is over; nothing to save"))));
            }
            return;
        }
        match command {
            Command::Checkpoint(reply) => self.requests.push(CheckpointRequest { reply, copy_to: None }),
            Command::Savepoint(_, reply) if self.parts.storage.is_none() => {
                let message = "a savepoint needs state that is kept: run the job with a checkpoint path";
                drop(reply.send(Err(Error::checkpoint(message))));
            }
            Command::Savepoint(path, reply) => self.requests.push(CheckpointRequest { reply, copy_to: Some(path) }),
            Command::Stop => {
                self.parts.outcome.set_ending();
                self.parts.shared.hurry();
                self.is_stopping = true;
            }
            Command::Cancel => self.close(Ok(Status::Cancelled)),
        }
    }

    fn begin(&mut self, cause: Cause, now: i64) {
        let parts = &mut self.parts;
        parts.epoch = Epoch(parts.epoch.0 + 1);
        if cause != Cause::Regular {
            self.last_since.get_or_insert(now);
            parts.outcome.set_ending();
        }
        let mut in_flight = InFlight::new(parts.epoch, cause, parts.tasks.len(), now, parts.clock.now());
        in_flight.requests = std::mem::take(&mut self.requests);
        let is_rebased = std::mem::take(&mut self.needs_full);
        match parts.storage.as_ref().map(|storage| storage.begin(parts.epoch, is_rebased)).transpose() {
            Ok(writer) => in_flight.writer = writer,
            Err(error) => {
                // Nothing was asked of anybody yet, so nothing is lost.
                self.needs_full = is_rebased;
                in_flight.error = Some(error);
                return self.failed(in_flight, now);
            }
        }
        let is_full = in_flight.writer.as_ref().is_some_and(|writer| writer.is_full());
        parts.shared.ask(Request { epoch: parts.epoch, is_full, is_last: cause == Cause::Stop });
        self.in_flight = Some(in_flight);
        let interval = self.interval().filter(|_| self.parts.is_timed);
        let after = |interval: i64| now.saturating_add(interval.saturating_mul(OVERDUE_INTERVALS).max(OVERDUE_US_MIN));
        self.overdue_look = interval.map(after);
    }

    /// The checkpoint under way has been so for too long.
    fn report_overdue(&mut self, now: i64) {
        let Some(in_flight) = self.in_flight.as_ref() else {
            self.overdue_look = None;
            return;
        };
        self.overdue_look = Some(now + OVERDUE_LOOK_US);
        let tasks = in_flight.missing().map(|task| self.parts.tasks[task].chain.clone());
        let mut waits_for: Vec<String> = tasks.collect();
        waits_for.dedup();
        let since = Duration::from_micros((now - in_flight.started).max(0) as u64);
        let overdue = Overdue { id: in_flight.epoch.0, since, waits_for };
        if !self.is_overdue {
            self.is_overdue = true;
            self.note(overdue.to_string());
        }
        self.parts.registry.checkpoints.lock().0.overdue = Some(overdue);
    }

    /// The checkpoint that was under way is over.
    fn clear_overdue(&mut self) {
        self.overdue_look = None;
        self.is_overdue = self.parts.registry.checkpoints.lock().0.overdue.take().is_some();
    }

    fn acknowledged(&mut self, given: Acknowledgement) {
        let Some(in_flight) = &mut self.in_flight else { return };
        mill_fault::pass("checkpoint.acknowledge");
        let task = &self.parts.tasks[given.task];
        if let Some(work) = in_flight.acknowledge(task, given, &self.parts.shared, &self.parts.listeners) {
            self.parts.writers.submit(work);
        }
    }

    fn written(&mut self, written: Written) {
        let Some(in_flight) = &mut self.in_flight else { return };
        match in_flight.written(written) {
            Ok(commits) => commits.into_iter().for_each(|(sink, commit)| self.parts.sinks.owe(sink, commit)),
            Err(error) => self.close_sink(error),
        }
    }

    /// All shares are there: the checkpoint becomes one, or has failed.
    fn conclude(&mut self, now: i64) {
        // Also what is published early would be so beside the job that has taken over.
        if let Some(lost) = self.parts.storage.as_ref().and_then(Storage::lost) {
            return self.close(Err(lost));
        }
        let Some(mut in_flight) = self.in_flight.take() else { return };
        self.clear_overdue();
        if in_flight.error.is_some() {
            return self.failed(in_flight, now);
        }
        // At least once makes output visible early, but not before the first checkpoint is published: a kill in between would leave output
        // that no state directory knows, and the next run would take it for somebody else's.
        let has_checkpoint = self.published.is_some() || self.parts.restored.is_some();
        let is_early = match self.parts.mode {
            Mode::ExactlyOnce | Mode::Dedup => false,
            Mode::AtLeastOnce => has_checkpoint,
            Mode::None => true,
        };
        if is_early {
            if let Err(error) = self.parts.sinks.commit_early() {
                return self.close_sink(error);
            }
        }
        if let (Some(storage), Some(writer)) = (&self.parts.storage, in_flight.writer.take()) {
            let is_finished = in_flight.cause == Cause::Final;
            let (sinks, created) = (&self.parts.sinks.sinks, in_flight.created);
            if let Err(error) = storage.publish(&writer, &in_flight.states, sinks, is_finished, created) {
                let lost = storage.lost();
                self.parts.sinks.set_in_doubt();
                in_flight.error = Some(error);
                self.failed(in_flight, now);
                return if let Some(lost) = lost { self.close(Err(lost)) };
            }
            self.published = Some(in_flight.epoch.0);
            // Relaxed: no other data depends on the number.
            self.parts.shared.published.store(in_flight.epoch.0, Ordering::Relaxed);
            if let Some(origins) = self.parts.origins.as_ref().filter(|_| self.going_back.is_empty()) {
                origins.forget_first();
            }
        }
        // What was not early, if anything.
        if let Err(error) = self.parts.sinks.commit() {
            return self.close_sink(error);
        }
        let is_last = in_flight.cause != Cause::Regular;
        if let Some(Err(error)) = self.parts.storage.as_ref().map(|storage| storage.settle(in_flight.epoch, is_last)) {
            self.note(format!("what was committed could not be noted, so a restart needs it to be there: {error}"));
        }
        if self.parts.storage.is_some() {
            self.parts.listeners.tell(in_flight.epoch, &in_flight.positions);
        }
        self.note_completed(&in_flight, now);
        self.failure = None;
        if !self.parts.shared.is_open() {
            self.parts.shared.open();
        }
        self.answer(std::mem::take(&mut in_flight.requests), in_flight.epoch);
        self.tidy(in_flight.epoch);
        self.plan_next(now);
        mill_fault::pass("checkpoint.done");
        match in_flight.cause {
            Cause::Final => self.close(Ok(Status::Finished)),
            Cause::Stop => self.close(Ok(Status::Stopped)),
            Cause::Regular => {}
        }
    }

    /// Answers the requests for the checkpoint; copies it first for those that asked for a savepoint.
    fn answer(&mut self, requests: Vec<CheckpointRequest>, epoch: Epoch) {
        for CheckpointRequest { reply, copy_to } in requests {
            let (Some(path), Some(storage)) = (copy_to, &mut self.parts.storage) else {
                drop(reply.send(Ok(epoch.0)));
                continue;
            };
            storage.copies += 1;
            let (store, shared) = (storage.store.clone(), Arc::clone(&self.parts.shared));
            let copier = storage.savepoints.clone();
            self.parts.writers.submit(Box::new(move || {
                let outcome = guarded("mill-writer", || {
                    mill_fault::pass("savepoint.copy");
                    (copier.0)(&store, epoch.0, &path).map_err(storage::error)
                });
                let text = outcome.as_ref().err().map(|error| format!("savepoint {} failed: {error}", path.display()));
                drop(reply.send(outcome.map(|()| epoch.0)));
                shared.tell(Message::Copied(text));
            }));
        }
    }

    fn copied(&mut self, failure: Option<String>) {
        if let Some(storage) = &mut self.parts.storage {
            storage.copies -= 1;
        }
        if let Some(note) = failure {
            self.note(note);
        }
    }

    /// Removes what is no longer needed, and keeps what is short; neither can fail the job.
    fn tidy(&mut self, committed: Epoch) {
        let Some(storage) = &mut self.parts.storage else { return };
        let retired = storage.retire(committed, !self.going_back.is_empty());
        if storage.store.should_compact() {
            let (store, shared) = (storage.store.clone(), Arc::clone(&self.parts.shared));
            self.parts.writers.submit(Box::new(move || {
                let compact = || {
                    mill_fault::pass("checkpoint.compact");
                    store.compact().map_err(storage::error)
                };
                if let Err(error) = guarded("mill-writer", compact) {
                    shared.tell(Message::Note(format!("checkpoints could not be compacted: {error}")));
                }
            }));
        }
        if storage.store.should_sweep() {
            let (store, shared) = (storage.store.clone(), Arc::clone(&self.parts.shared));
            self.parts.writers.submit(Box::new(move || {
                if let Err(error) = guarded("mill-writer", || store.sweep().map_err(storage::error)) {
                    shared.tell(Message::Note(format!("old checkpoints could not be removed: {error}")));
                }
            }));
        }
        if let Err(error) = retired {
            self.note(format!("old checkpoints could not be removed: {error}"));
        }
    }

    fn failed(&mut self, in_flight: InFlight, now: i64) {
        let error = in_flight.error.unwrap_or_else(|| Error::internal("a checkpoint failed for no reason"));
        if let Some(writer) = in_flight.writer {
            writer.abandon();
        }
        let text = format!("checkpoint {} failed: {error}", in_flight.epoch.0);
        let told = match in_flight.cause {
            Cause::Regular => format!("{text}; the job continues, and tries again at its next checkpoint"),
            Cause::Stop | Cause::Final => format!(
                "{text}; it is the last one and is tried again for {} s, after which the job ends with this error",
                LAST_ATTEMPTS_US / 1_000_000
            ),
        };
        {
            let mut figures = self.parts.registry.checkpoints.lock();
            figures.0.failed += 1;
            figures.0.last_error = Some(told.clone());
        }
        // What a note says of the first of several failures holds for all that are alike.
        let alike = format!("{:?} {error}", in_flight.cause);
        if self.failure.as_ref() != Some(&alike) {
            self.note(told);
            self.failure = Some(alike);
        }
        for request in in_flight.requests {
            drop(request.reply.send(Err(Error::checkpoint(text.clone()))));
        }
        self.plan_next(now);
        if in_flight.cause != Cause::Regular {
            if self.last_since.is_some_and(|since| now - since > LAST_ATTEMPTS_US) {
                return self.close(Err(Error::checkpoint(text)));
            }
            let pause = self.interval().map_or(ATTEMPT_PAUSE_US, |interval| interval.max(ATTEMPT_PAUSE_US));
            self.due = Some(now + pause.min(LAST_ATTEMPTS_US / 10));
        }
    }

    fn note_completed(&mut self, in_flight: &InFlight, now: i64) {
        let mut figures = self.parts.registry.checkpoints.lock();
        figures.0.completed += 1;
        figures.0.last_id = Some(in_flight.epoch.0);
        figures.0.last_duration = Duration::from_micros((now - in_flight.started).max(0) as u64);
        figures.0.last_bytes = in_flight.states.iter().map(|state| state.bytes).sum();
        figures.1.clear();
        for (uid, bytes) in in_flight.states.iter().flat_map(|state| &state.steps) {
            *figures.1.entry(uid.to_string()).or_default() += bytes;
        }
    }

    fn note(&mut self, note: String) {
        if self.parts.notes.len() < NOTES_MAX {
            self.parts.notes.push(note);
        }
    }

    fn interval(&self) -> Option<i64> {
        self.parts.interval.map(|interval| i64::try_from(interval.as_micros()).unwrap_or(i64::MAX / 2))
    }

    fn plan_next(&mut self, now: i64) {
        self.due = self.interval().map(|interval| now + interval);
        if !self.parts.shared.is_open() {
            // Nothing is read before the first checkpoint.
            let pause = if self.failure.is_some() { ATTEMPT_PAUSE_US } else { 0 };
            self.due = Some(self.due.map_or(now + pause, |due| due.min(now + pause)));
        }
    }

    /// Ends the job because of a sink; one that gave up its waiting since the job was cancelled has not failed.
    fn close_sink(&mut self, error: Error) {
        let is_cancelled = self.parts.shared.ending.is_set();
        self.close(if is_cancelled { Ok(Status::Cancelled) } else { Err(error) });
    }

    /// Ends the job; the first reason counts.
    fn close(&mut self, result: Result<Status>) {
        if let Phase::Running = self.phase {
            let is_well = matches!(result, Ok(Status::Finished | Status::Stopped));
            self.clear_overdue();
            self.phase = Phase::Closing(result);
            self.parts.outcome.set_ending();
            self.parts.shared.end();
            // Answered now, not when all tasks are gone: one of them may be where the answer is waited for.
            self.answer_last(is_well);
        }
    }

    /// Answers those who asked for a checkpoint that will not be taken any more.
    fn answer_last(&mut self, is_well: bool) {
        let in_flight = self.in_flight.as_mut().map(|in_flight| std::mem::take(&mut in_flight.requests));
        let requests = std::mem::take(&mut self.requests);
        for request in in_flight.into_iter().flatten().chain(requests) {
            // Whoever asked while the job took its last checkpoint has got that one.
            let last = self.published.filter(|_| is_well && request.copy_to.is_none());
            let over = || Error::checkpoint("the job ended before the checkpoint was taken");
            drop(request.reply.send(last.ok_or_else(over)));
        }
    }

    /// Its own thread has panicked and all tasks are gone: clears up what the sinks have begun, as after any other failure.
    /// Otherwise the next attempt would find rows in a sink of the user's that belong to no checkpoint.
    pub(crate) fn abandon(&mut self) {
        self.phase = Phase::Over;
        self.parts.writers.finish();
        self.in_flight = None;
        if self.is_concluding {
            self.parts.sinks.set_in_doubt();
        }
        // The job has failed already; recovery removes what is left.
        drop(self.parts.sinks.abort());
        self.parts.origins = None;
        self.parts.storage = None;
        self.parts.sinks.sinks.clear();
    }

    /// All tasks are gone: clears up and tells the outcome.
    fn finish(&mut self, now: i64) {
        let Phase::Closing(result) = std::mem::replace(&mut self.phase, Phase::Over) else { return };
        self.parts.writers.finish();
        self.in_flight = None;
        // A job that finished has left nothing; any other may have begun output that no checkpoint names.
        if !matches!(result, Ok(Status::Finished)) {
            if let Err(error) = self.parts.sinks.abort() {
                self.note(format!("output that was not committed could not be removed: {error}"));
            }
        }
        // After a good end, those who listen have got the last positions by then; after any other nobody waits for that.
        if matches!(result, Ok(Status::Finished | Status::Stopped)) {
            self.parts.listeners = Listeners::default();
        }
        // Whoever hears of the end may start the next run: the locks have to be free by then.
        self.parts.origins = None;
        self.parts.storage = None;
        self.parts.sinks.sinks.clear();
        let report = |status| Report {
            status,
            metrics: self.parts.registry.collect(None),
            notes: std::mem::take(&mut self.parts.notes),
            duration: Duration::from_micros(now.max(0) as u64),
            restored: self.parts.restored,
            checkpoint: self.published,
        };
        self.parts.outcome.set(result.map(report));
    }
}
