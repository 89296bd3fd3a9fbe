//! A chain at work: stages on one thread, and the edge writers after them.
//!
//! ```text
//!   entry ─► stage 0 ─► stage 1 ─┬► stage 2 (sink)
//!            inbox      inbox    └► edge writer ─► queues
//! ```
//!
//! A step picks the deepest stage that has work, so that all output of one event has left the chain before the next event
//! produces more: the inboxes stay short however much a stage multiplies its input. An event enters only when the chain is
//! *drained*. Hence nothing after a barrier is in the chain while the barrier is, and stages that come together again
//! inside a chain need no alignment of their own. When an edge writer has something unsent the chain is blocked: it does
//! nothing until the queue has room, and so the queue in front of it fills up as well.

use std::sync::Arc;

use mill_protocol::{Batch, Clock, Emission, Epoch, Error, Outbox, Quiet, Rejected, Result, Room, Watermark};

use crate::edge_writer::EdgeWriter;
use crate::envelope::Event;
use crate::input_log::{InputLog, Taken};
use crate::merge::Merge;
use crate::options::OnError;
use crate::metrics::StageCounters;
use crate::rejects::{self, Routed};
use crate::stage::{Part, Stage};
use crate::time_board::{Slot, Standing};

mod replay;

/// Where an event goes within a task: a channel into a stage or an edge writer, which leads to one of its inputs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Route {
    /// A channel into a stage.
    Stage {
        /// Which stage.
        stage: usize,
        /// Which of its channels.
        channel: usize,
    },
    /// A channel into an edge writer.
    Writer {
        /// Which edge writer of this task.
        writer: usize,
        /// Which of its channels.
        channel: usize,
    },
}

/// Where the output of a stage goes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Routes {
    /// For each port.
    pub(crate) ports: Vec<Vec<Route>>,
    /// For records that could not be processed.
    pub(crate) errors: Vec<Route>,
}

impl Routes {
    fn all(&self) -> impl Iterator<Item = Route> + '_ {
        self.ports.iter().flatten().chain(&self.errors).copied()
    }
}

/// What the steps of a chain have in common.
#[derive(Clone)]
pub(crate) struct ChainContext {
    /// What happens to records that cannot be processed.
    pub(crate) on_error: OnError,
    /// Tells the processing time.
    pub(crate) clock: Arc<dyn Clock>,
}

/// What a step of a chain did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChainStep {
    /// Something; there may be more.
    Worked,
    /// Nothing: a queue after it is full.
    Blocked,
    /// Nothing: a stage waits for something outside, which wakes it.
    Waiting,
    /// Nothing: all events have left the chain.
    Drained,
}

/// Stages on one thread.
pub(crate) struct Chain {
    pub(crate) stages: Vec<Stage>,
    /// For each stage where its output goes.
    pub(crate) routes: Vec<Routes>,
    pub(crate) writers: Vec<(EdgeWriter, Merge)>,
    /// Where the input goes, for each entry.
    pub(crate) entry: Routes,
    pub(crate) context: ChainContext,
    outbox: Outbox,
    /// What the stages have contributed to the barrier that is in the chain.
    parts: Vec<Part>,
    /// Whether the next snapshot must give everything.
    is_full: bool,
    /// The stage that is being called, for the message when it panics.
    calling: Option<usize>,
    /// Whether the end has entered.
    has_end: bool,
    /// The timers of the stages below this one may still fire before the next input.
    round: usize,
    /// The stages before this one may still take a wake-up in this round.
    wakes: usize,
    /// How many of the writers were found to have no consumer left that needs anything.
    closed: usize,
    /// Whether nothing is to be emitted for now that has come from outside: the last barrier has come by.
    pub(crate) is_resting: bool,
    /// What went in since the last checkpoint, where a task that fails is brought back alone.
    pub(crate) log: Option<Box<InputLog>>,
    /// The counters of the stages, while these repeat what was counted before.
    counters: Vec<Arc<StageCounters>>,
    /// What the stages had counted when the last entry of the log was applied.
    counted: Vec<[u64; 5]>,
    /// The barrier that is in the chain once more.
    repeated: Option<Epoch>,
}

impl Chain {
    /// A chain before its first event.
    pub(crate) fn new(
        stages: Vec<Stage>,
        routes: Vec<Routes>,
        writers: Vec<(EdgeWriter, Merge)>,
        entry: Routes,
        context: ChainContext,
    ) -> Chain {
        let round = stages.len();
        let mut chain = Chain {
            stages,
            routes,
            writers,
            entry,
            context,
            outbox: Outbox::default(),
            parts: Vec::new(),
            is_full: false,
            calling: None,
            has_end: false,
            round,
            wakes: round,
            closed: 0,
            is_resting: false,
            log: None,
            counters: Vec::new(),
            counted: Vec::new(),
            repeated: None,
        };
        // A step may need nothing from the start: a limit that had been reached before the checkpoint.
        for stage in chain.stages.iter_mut().filter(|stage| stage.is_finished()) {
            stage.end_early();
        }
        chain
    }

    /// Takes an event from the input of the task. The chain must be drained.
    pub(crate) fn enter(&mut self, event: Event, is_full: bool) -> Result<()> {
        if self.log.is_some() {
            self.note_taken(Taken::Event(event.clone_for_targets()), None);
        }
        match event {
            Event::Splits(_) | Event::Quiet(_) | Event::Mark(..) => {
                for stage in &mut self.stages {
                    stage.accept(event.clone_for_targets());
                }
                return Ok(());
            }
            Event::Barrier(_) => self.is_full = is_full,
            Event::End => self.has_end = true,
            Event::Batch(entry, batch) => return self.deliver_all(None, entry, Event::Batch(entry, batch)),
            Event::Watermark(entry, at) => return self.deliver_all(None, entry, Event::Watermark(entry, at)),
            Event::InputEnd(entry) => return self.deliver_all(None, entry, Event::End),
        }
        for entry in 0..self.entry.ports.len() {
            self.deliver_all(None, entry, event.clone_for_targets())?;
        }
        self.deliver_errors(None, event)
    }

    /// Routes records that the source could not read.
    pub(crate) fn enter_rejected(&mut self, step: &str, rejected: Vec<Rejected>) -> Result<()> {
        self.enter_errors(rejects::batch(step, &rejected)?)
    }

    fn enter_errors(&mut self, batch: Batch) -> Result<()> {
        self.note_taken(Taken::Rejected(batch.clone()), None);
        self.deliver_errors(None, Event::Batch(0, batch))
    }

    /// Does a piece of work.
    pub(crate) fn step(&mut self) -> Result<ChainStep> {
        let mut is_sent = true;
        for (writer, _) in &mut self.writers {
            is_sent &= writer.try_flush();
        }
        if !is_sent {
            return Ok(ChainStep::Blocked);
        }
        // A stage whose results are endless may have work forever that nobody needs.
        let closed = self.writers.iter().filter(|(writer, _)| writer.is_closed()).count();
        if closed > self.closed {
            self.closed = closed;
            self.end_unneeded();
        }
        let Some(index) = self.stages.iter().rposition(Stage::has_work) else {
            if self.apply()? {
                return Ok(ChainStep::Worked);
            }
            if self.is_replaying() {
                return Ok(ChainStep::Drained);
            }
            let has_worked = self.fire_timers()? || self.take_wakes()?;
            return Ok(if has_worked { ChainStep::Worked } else { ChainStep::Drained });
        };
        self.calling = Some(index);
        if self.stages[index].is_waiting() {
            self.calling = None;
            return Ok(ChainStep::Waiting);
        }
        if self.stages[index].uses_now() {
            let now = self.now();
            self.stages[index].set_now(now);
        }
        let stage = &mut self.stages[index];
        if self.log.is_some() {
            mill_fault::reach("task.call").map_err(|error| Error::connector(format!("task.call: {error}")))?;
        }
        let began = stage.is_timed().then(|| self.context.clock.now());
        let result = stage.advance(&mut self.outbox, &mut self.parts, self.is_full);
        if let Some(began) = began {
            stage.note_time(self.context.clock.now() - began);
        }
        let forward = result.map_err(|error| error.in_step(&stage.name))?;
        self.pass_on(index)?;
        for event in forward.into_iter().flatten() {
            let is_end = matches!(event, Event::End);
            self.forward(index, event)?;
            if is_end {
                self.end_unneeded();
            }
        }
        self.calling = None;
        Ok(ChainStep::Worked)
    }

    /// Lets the timers of every stage fire once more. Whoever drives the chain looks for inputs between two rounds.
    pub(crate) fn begin_round(&mut self) {
        self.round = self.stages.len();
        self.wakes = self.stages.len();
    }

    /// Sends what the writers have gathered, and lets those follow who take on the time that is made here.
    pub(crate) fn quiet(&mut self) -> Result<()> {
        self.stages.iter().filter_map(|stage| stage.slot.as_ref()).for_each(Slot::wake_followers);
        self.writers.iter_mut().try_for_each(|(writer, _)| writer.quiet())
    }

    /// Where a maker of watermarks is quiet or shares the time of its input: takes on that time if it has gone on. The chain
    /// must be drained.
    pub(crate) fn follow(&mut self) -> Result<bool> {
        let following = |stage: &Stage| Some(stage.slot.as_ref()?.follow()?);
        let Some((index, at)) = self.stages.iter().enumerate().find_map(|(i, stage)| Some((i, following(stage)?))) else {
            return Ok(false);
        };
        let is_quiet = self.stages[index].slot.as_ref().is_some_and(Slot::is_quiet);
        self.note_taken(Taken::Follow { stage: index, at, is_quiet }, None);
        if is_quiet {
            // It continues from there when it has records again.
            self.stages[index].follow(at);
        }
        self.forward(index, Event::Watermark(0, at))?;
        Ok(true)
    }

    /// How many records should enter at once at least: those calls take long whatever their number.
    pub(crate) fn floor(&self) -> usize {
        let own = self.stages.iter().map(Stage::floor);
        own.chain(self.writers.iter().map(|(writer, _)| writer.floor())).max().unwrap_or(1)
    }

    /// Whether someone wants records of this entry now.
    pub(crate) fn is_wanted(&self, entry: usize) -> bool {
        let mut routes = self.entry.ports[entry].iter();
        routes.len() == 0
            || routes.any(|route| match *route {
                Route::Stage { stage, channel } => self.stages[stage].wants(channel),
                Route::Writer { .. } => true,
            })
    }

    /// Whether records may come, of which some may be before a requested barrier.
    pub(crate) fn has_room(&self, is_barrier_due: bool) -> bool {
        self.stages.iter().all(|stage| match stage.room() {
            Room::ForAll => true,
            Room::ForBarrier => is_barrier_due,
            Room::No => false,
        })
    }

    /// Whether a stage awaits results from outside.
    pub(crate) fn awaits(&self) -> bool {
        self.stages.iter().any(Stage::awaits)
    }

    /// Whether the end has entered, and a stage keeps it back whose results are still needed. The chain must be drained.
    pub(crate) fn keeps_end(&mut self) -> bool {
        self.end_unneeded();
        self.stages.iter().any(Stage::keeps_end)
    }

    /// Takes a barrier though the end has entered. What has not ended comes after a stage that keeps the end back, so these have
    /// the barrier in front of it.
    pub(crate) fn enter_ahead_of_end(&mut self, epoch: Epoch, is_full: bool) {
        self.note_taken(Taken::Event(Event::Barrier(epoch)), None);
        self.is_full = is_full;
        for stage in self.stages.iter_mut().filter(|stage| stage.keeps_end()) {
            stage.accept_ahead_of_end(Event::Barrier(epoch));
        }
    }

    /// When the earliest operator wants to be called.
    pub(crate) fn next_time(&self) -> Option<i64> {
        self.stages.iter().filter_map(Stage::next_time).min()
    }

    /// Whether nothing is needed from the input any more.
    pub(crate) fn is_finished(&mut self) -> bool {
        if self.has_end {
            return true;
        }
        self.end_unneeded();
        let mut entry = self.entry.ports.iter().flatten().peekable();
        entry.peek().is_some() && entry.all(|&route| !self.is_needed(route))
    }

    /// Returns what all stages contribute to this epoch; those that had ended before it are asked now.
    pub(crate) fn complete_snapshot(&mut self, epoch: Epoch, is_full: bool) -> Result<Vec<Part>> {
        for stage in &mut self.stages {
            stage.snapshot(epoch, &mut self.parts, is_full).map_err(|error| error.in_step(&stage.name))?;
        }
        Ok(std::mem::take(&mut self.parts))
    }

    /// The step that was being called, if a call did not come back.
    pub(crate) fn calling(&self) -> Option<&str> {
        self.calling.map(|index| self.stages[index].name.as_str())
    }

    /// Passes on what the operator has put into the outbox.
    fn pass_on(&mut self, index: usize) -> Result<()> {
        while let Some(emission) = self.outbox.pop() {
            match emission {
                Emission::Batch(port, batch) => {
                    self.stages[index].counters.rows_out.add(batch.rows() as u64);
                    let is_repeated = self.is_replaying() && self.stages[index].makes_watermarks();
                    if is_repeated {
                        self.repeat_watermarks(index)?;
                    }
                    if let Some(log) = &mut self.log {
                        log.note_batch(index);
                    }
                    self.deliver_all(Some(index), port, Event::Batch(0, batch))?;
                    if is_repeated {
                        self.repeat_watermarks(index)?;
                    }
                }
                // What was made of time continues from the log, since it depends on others.
                Emission::Watermark(_) if self.is_replaying() => self.note_quiet(index, None),
                Emission::Quiet(quiet) if self.is_replaying() => self.note_quiet(index, Some(quiet)),
                Emission::Watermark(at) => {
                    // The end of time is no time that others could follow; the end itself is noted when it comes.
                    if at < Watermark::MAX {
                        self.stages[index].report(Standing::Active(at))?;
                    }
                    let at = match &self.stages[index].slot {
                        Some(slot) if slot.is_shared() && at < Watermark::MAX => slot.follow(),
                        _ => Some(at),
                    };
                    if let Some(at) = at {
                        if let Some(log) = &mut self.log {
                            log.note_watermark(index, at);
                        }
                        self.forward(index, Event::Watermark(0, at))?;
                    }
                }
                Emission::Quiet(Quiet { at, is_idle }) => {
                    self.stages[index].report(if is_idle { Standing::Idle(at) } else { Standing::Empty(at) })?;
                }
            }
        }
        let stage = &self.stages[index];
        stage.counters.rows_late.add(self.outbox.take_late());
        let rejected = self.outbox.take_rejected();
        if rejected.is_empty() {
            return Ok(());
        }
        let routed = if stage.is_sink() { Routed::Never } else { Routed::of(!self.routes[index].errors.is_empty()) };
        if rejects::is_routed(self.context.on_error, &rejected, routed, &stage.name, &stage.counters)? {
            let batch = rejects::batch(&stage.name, &rejected)?;
            self.deliver_errors(Some(index), Event::Batch(0, batch))?;
        }
        Ok(())
    }

    fn forward(&mut self, index: usize, event: Event) -> Result<()> {
        for port in 0..self.routes[index].ports.len() {
            self.deliver_all(Some(index), port, event.clone_for_targets())?;
        }
        self.deliver_errors(Some(index), event)
    }

    fn deliver_all(&mut self, from: Option<usize>, port: usize, event: Event) -> Result<()> {
        let routes = |chain: &Chain| -> Vec<Route> {
            let routes = from.map_or(&chain.entry, |from| &chain.routes[from]);
            routes.ports.get(port).cloned().unwrap_or_default()
        };
        self.deliver_to(routes(self), event)
    }

    fn deliver_errors(&mut self, from: Option<usize>, event: Event) -> Result<()> {
        let routes = from.map_or(&self.entry, |from| &self.routes[from]).errors.clone();
        self.deliver_to(routes, event)
    }

    fn deliver_to(&mut self, routes: Vec<Route>, event: Event) -> Result<()> {
        let mut routes = routes.into_iter().peekable();
        let mut event = Some(event);
        while let Some(route) = routes.next() {
            let given = if routes.peek().is_some() {
                event.as_ref().map(Event::clone_for_targets)
            } else {
                event.take()
            };
            if let Some(given) = given {
                self.deliver(route, given)?;
            }
        }
        Ok(())
    }

    /// What a maker of watermarks that repeats the log says of itself.
    fn note_quiet(&mut self, index: usize, quiet: Option<Quiet>) {
        if let Some(log) = &mut self.log {
            log.note_quiet(index, quiet);
        }
    }

    /// Something goes into the chain now, or at this time.
    fn note_taken(&mut self, taken: Taken, now: Option<i64>) {
        if let Some(log) = &mut self.log {
            let clock = &self.context.clock;
            log.begin(taken, || now.unwrap_or_else(|| clock.now()));
        }
    }

    /// Passes an event to its target; what leaves the task is withheld while it could still be taken back.
    fn deliver(&mut self, route: Route, event: Event) -> Result<()> {
        let leaves = |route| match route {
            Route::Writer { .. } => true,
            Route::Stage { stage, .. } => self.stages[stage].is_sink(),
        };
        match &mut self.log {
            Some(log) if leaves(route) => {
                if log.hold(route, event) {
                    let held = log.tear();
                    self.merge_all(held)?;
                }
                Ok(())
            }
            _ => self.merge(route, event),
        }
    }

    fn merge_all(&mut self, events: Vec<(Route, Event)>) -> Result<()> {
        events.into_iter().try_for_each(|(route, event)| self.merge(route, event))
    }

    /// Merges an event of one channel into the inputs of its target; what comes out of the merge is taken by the target.
    fn merge(&mut self, route: Route, event: Event) -> Result<()> {
        let (merge, channel) = match route {
            Route::Stage { stage, channel } => (&mut self.stages[stage].merge, channel),
            Route::Writer { writer, channel } => (&mut self.writers[writer].1, channel),
        };
        let merged = match event {
            Event::Batch(_, batch) => [Some(Event::Batch(merge.input(channel), batch)), None, None, None],
            Event::Watermark(_, at) => [merge.on_watermark(channel, at), None, None, None],
            Event::Barrier(epoch) => [merge.on_barrier(channel, epoch), None, None, None],
            Event::End => merge.on_end(channel),
            Event::InputEnd(_) | Event::Splits(_) | Event::Quiet(_) | Event::Mark(..) => [None, None, None, None],
        };
        for event in merged.into_iter().flatten() {
            match route {
                Route::Stage { stage, .. } => self.stages[stage].accept(event),
                Route::Writer { writer, .. } => self.writers[writer].0.push(event)?,
            }
        }
        Ok(())
    }

    /// Calls the next stage of which a timer is due, from the last one on, each once a [round](Chain::begin_round): timers that set
    /// themselves again at once leave room for inputs and barriers.
    fn fire_timers(&mut self) -> Result<bool> {
        let left = &self.stages[..self.round];
        if left.iter().all(|stage| stage.next_time().is_none()) {
            return Ok(false);
        }
        let now = self.context.clock.now();
        let Some(index) = left.iter().rposition(|stage| stage.next_time().is_some_and(|at| at <= now)) else {
            return Ok(false);
        };
        self.round = index;
        self.note_taken(Taken::Timer(index), Some(now));
        self.fire(index, now)?;
        Ok(true)
    }

    fn fire(&mut self, index: usize, now: i64) -> Result<()> {
        self.calling = Some(index);
        let stage = &mut self.stages[index];
        stage.on_time(now, &mut self.outbox).map_err(|error| error.in_step(&stage.name))?;
        self.pass_on(index)?;
        self.calling = None;
        Ok(())
    }

    fn take_wakes(&mut self) -> Result<bool> {
        if self.is_resting {
            return Ok(false);
        }
        // Each once a round: one that wakes itself leaves room for inputs and barriers.
        let Some(index) = self.stages[..self.wakes].iter().rposition(Stage::takes_wake) else { return Ok(false) };
        self.wakes = index;
        self.note_taken(Taken::Wake(index), None);
        self.wake(index)?;
        Ok(true)
    }

    fn wake(&mut self, index: usize) -> Result<()> {
        self.calling = Some(index);
        let now = self.now();
        let stage = &mut self.stages[index];
        if stage.uses_now() {
            stage.set_now(now);
        }
        let forward = stage.on_wake(&mut self.outbox).map_err(|error| error.in_step(&stage.name))?;
        self.pass_on(index)?;
        if let Some(event) = forward {
            self.forward(index, event)?;
        }
        self.calling = None;
        Ok(())
    }

    /// What time it is for the operators: that of the log, if there is one, so that they can be told the same once more.
    fn now(&self) -> i64 {
        let logged = self.log.as_ref().and_then(|log| log.now());
        logged.unwrap_or_else(|| self.context.clock.now())
    }

    fn is_needed(&self, route: Route) -> bool {
        match route {
            Route::Stage { stage, .. } => !self.stages[stage].is_ended(),
            Route::Writer { writer, .. } => !self.writers[writer].0.is_closed(),
        }
    }

    /// Ends the stages that give to nobody any more, from the deepest up.
    fn end_unneeded(&mut self) {
        for index in (0..self.stages.len()).rev() {
            if self.stages[index].is_ended() || self.stages[index].is_sink() {
                continue;
            }
            let mut routes = self.routes[index].all().peekable();
            if routes.peek().is_some() && routes.all(|route| !self.is_needed(route)) {
                self.stages[index].end_silently();
            }
        }
    }
}

impl Event {
    /// The same event for one more target; columns are shared.
    pub(crate) fn clone_for_targets(&self) -> Event {
        match self {
            Event::Batch(input, batch) => Event::Batch(*input, Batch::clone(batch)),
            Event::Watermark(input, at) => Event::Watermark(*input, *at),
            Event::InputEnd(input) => Event::InputEnd(*input),
            Event::Splits(open) => Event::Splits(Arc::clone(open)),
            Event::Quiet(split) => Event::Quiet(*split),
            Event::Mark(split, mark) => Event::Mark(*split, *mark),
            Event::Barrier(epoch) => Event::Barrier(*epoch),
            Event::End => Event::End,
        }
    }
}
