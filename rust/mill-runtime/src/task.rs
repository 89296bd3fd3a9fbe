//! A task: one parallel instance of a chain with its input, polled by its worker.
//!
//! ```text
//!   Running ──end of input, or nothing needed any more──► Ended (answers requests for snapshots directly)
//! ```
//!
//! It takes as many records at once as it can process in a short time, including the wait for room in the queues after it.
//! A source reads that many, and producers send that many ([`TaskPortion`]). So tasks upstream of a slow one slow down as
//! well, up to the source, and few records are queued before a barrier.
//!
//! A task takes its next event when its chain is drained, so it can be left at any point: between two steps all work in
//! progress is in inboxes and unsent envelopes. A barrier is acknowledged when the chain is drained after it. A task that
//! has ended stays until the job is over: its state belongs to every later checkpoint, and it says so itself, since it sees
//! no barrier any more. That is consistent: all its producers had ended before their barrier.

use std::sync::Arc;

use mill_protocol::{Clock, Epoch, Result, Snapshot};

use crate::alignment::AlignmentSlot;
use crate::chain::{Chain, ChainStep};
use crate::envelope::Event;
use crate::held::HeldWriter;
use crate::input::{Input, Polled};
use crate::metrics::{Level, StageCounters, TaskNotes};
use crate::portion::{Allowance, TaskPortion};
use crate::reader::Closing;
use crate::rejects::{self, Routed};
use crate::shared::{Acknowledgement, Message, Shared};
use crate::source_task::{Pace, SourceRead, SourceTask};
use crate::stage::Part;
use crate::storage::PositionNotes;

mod alone;

pub(crate) use self::alone::Alone;

/// After how many inputs without a pause what was gathered is sent, however little.
const INPUTS_GATHERED_MAX: u32 = 32;

/// After how long a step makes room for the next task even though it has not taken all inputs it may. Inputs are counted
/// because that is cheap and a frame is mostly soon done; but where state is in a checkpoint yet, as after a recovery,
/// each may take long, and what comes out would wait with it.
const STEP_US_MAX: i64 = 2_000;

/// Where the events of a task come from.
pub(crate) enum TaskInput {
    /// From other tasks.
    Channels(Input),
    /// From a source.
    Source(SourceInput),
}

/// A source at the head of a task.
pub(crate) struct SourceInput {
    pub(crate) uid: Arc<str>,
    pub(crate) name: String,
    pub(crate) task: SourceTask,
    pub(crate) counters: Arc<StageCounters>,
    /// Where it notes what the user should know.
    pub(crate) told: Arc<TaskNotes>,
    /// Where positions are noted before the records go out, in a job that replays nothing.
    pub(crate) notes: Option<PositionNotes>,
}

/// What a step of a task did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Something.
    Worked,
    /// Nothing: a queue after it is full.
    Blocked,
    /// Nothing: a stage waits for something outside, which wakes it.
    Waiting,
    /// Nothing, before this time (microseconds) unless it is woken.
    Idle(Option<i64>),
}

/// One parallel instance of a chain.
pub(crate) struct Task {
    pub(crate) index: usize,
    pub(crate) name: String,
    pub(crate) chain: Chain,
    pub(crate) input: TaskInput,
    shared: Arc<Shared>,
    clock: Arc<dyn Clock>,
    /// The barrier that is in the chain.
    barrier: Option<Epoch>,
    /// What the source had to say at that barrier.
    source_part: Option<Part>,
    /// The last barrier that was acknowledged.
    acknowledged: Epoch,
    /// Nothing is to be read after the last barrier.
    is_held: bool,
    /// The end, or that nothing is needed any more, has entered the chain.
    is_ending: bool,
    is_ended: bool,
    /// Whether state is stored.
    is_persistent: bool,
    /// Inputs since what was gathered was last sent.
    gathered: u32,
    /// The records that are in the chain, and since when.
    entered: Option<(usize, i64)>,
    portion: TaskPortion,
    /// What those may send who send to it, over so many channels.
    allowance: Option<(Arc<Allowance>, usize)>,
    /// How full its queues are, for each writer.
    fills: Vec<Arc<Level>>,
    /// The stages that make watermarks of an unbounded source, and where it is noted what they wait for.
    held: Vec<(usize, HeldWriter)>,
    /// The stage whose splits keep together with others, and where it is noted how far they are.
    pub(crate) aligned: Option<(usize, AlignmentSlot)>,
    /// How it goes back alone after a failure, if it can.
    pub(crate) alone: Option<Alone>,
}

impl Task {
    /// A task before its first step.
    #[expect(clippy::too_many_arguments, reason = "each is a part of the task, and there is one caller")]
    pub(crate) fn new(
        index: usize,
        name: String,
        chain: Chain,
        input: TaskInput,
        shared: Arc<Shared>,
        is_persistent: bool,
        fills: Vec<Arc<Level>>,
        held: Vec<(usize, HeldWriter)>,
        portion: TaskPortion,
        allowance: Option<(Arc<Allowance>, usize)>,
    ) -> Task {
        let clock = Arc::clone(&chain.context.clock);
        let acknowledged = shared.request().epoch;
        let task = Task {
            index,
            name,
            chain,
            input,
            shared,
            clock,
            barrier: None,
            source_part: None,
            acknowledged,
            is_held: false,
            is_ending: false,
            is_ended: false,
            is_persistent,
            gathered: 0,
            entered: None,
            portion,
            allowance,
            fills,
            held,
            aligned: None,
            alone: None,
        };
        task.tell_portion();
        task
    }

    /// Works on up to that many inputs.
    pub(crate) fn step(&mut self, inputs_max: u32) -> Result<Step> {
        if let Some(step) = self.step_failed()? {
            return Ok(step);
        }
        let mut has_worked = false;
        let mut inputs = 0;
        let mut now = self.clock.now();
        let until = now + STEP_US_MAX;
        loop {
            match self.chain.step()? {
                ChainStep::Worked => {
                    has_worked = true;
                    now = self.clock.now();
                    if now >= until {
                        self.note();
                        return Ok(Step::Worked);
                    }
                }
                ChainStep::Blocked => {
                    self.note();
                    return Ok(if has_worked { Step::Worked } else { Step::Blocked });
                }
                ChainStep::Waiting => {
                    // What was emitted before goes out: who waits may wait for long.
                    self.gathered = 0;
                    self.chain.quiet()?;
                    if self.chain.step()? != ChainStep::Waiting {
                        has_worked = true;
                    }
                    self.note();
                    return Ok(if has_worked { Step::Worked } else { Step::Waiting });
                }
                ChainStep::Drained => {
                    if let Some((rows, since)) = self.entered.take() {
                        now = self.clock.now();
                        self.measure(rows, now - since);
                    }
                    if inputs >= inputs_max {
                        self.note();
                        return Ok(Step::Worked);
                    }
                    inputs += 1;
                    self.chain.begin_round();
                    match self.advance(now)? {
                        Advance::Entered => has_worked = true,
                        Advance::Quiet(until) => {
                            self.gathered = 0;
                            self.chain.quiet()?;
                            if self.chain.step()? != ChainStep::Drained {
                                has_worked = true;
                            }
                            self.note();
                            return Ok(if has_worked { Step::Worked } else { Step::Idle(until) });
                        }
                    }
                }
            }
        }
    }

    /// The step that was being called, if a call did not come back.
    pub(crate) fn calling(&self) -> &str {
        self.chain.calling().unwrap_or(match &self.input {
            TaskInput::Source(source) => &source.name,
            TaskInput::Channels(_) => &self.name,
        })
    }

    /// Lets go of the readers of its source; returns those that threads have to close. Nothing is read any more.
    pub(crate) fn take_readers(&mut self) -> Vec<Closing> {
        match &mut self.input {
            TaskInput::Source(source) => source.task.take_readers(),
            TaskInput::Channels(_) => Vec::new(),
        }
    }

    /// Takes note of how long it had records in its chain.
    fn measure(&mut self, rows: usize, us: i64) {
        self.portion.note(rows, us, self.chain.floor());
        self.tell_portion();
    }

    /// Lets those know how many records it takes at once who bring them.
    fn tell_portion(&self) {
        if let Some((allowance, channels)) = &self.allowance {
            allowance.set(&self.portion, *channels);
        }
        if let TaskInput::Source(source) = &self.input {
            source.task.set_rows(self.portion.rows());
        }
    }

    /// Finishes what has left the chain, and lets the next event in; `since` is when that begins.
    fn advance(&mut self, since: i64) -> Result<Advance> {
        if self.chain.is_replaying() {
            self.replay()?;
            return Ok(Advance::Entered);
        }
        if self.chain.log.as_mut().is_some_and(|log| log.asks_for_checkpoint()) {
            self.shared.tell(Message::LogLong);
        }
        if let Some(epoch) = self.barrier.take() {
            self.acknowledge(epoch)?;
            return Ok(Advance::Entered);
        }
        if self.is_ending && !self.is_ended {
            if self.chain.keeps_end() {
                // Nothing comes from the producers any more, no barrier either; those after this task wait for one.
                let request = self.shared.request();
                if request.epoch > self.acknowledged {
                    self.note_source();
                    self.chain.enter_ahead_of_end(request.epoch, request.is_full);
                    self.barrier = Some(request.epoch);
                    return Ok(Advance::Entered);
                }
                return Ok(Advance::Quiet(self.chain.next_time()));
            }
            self.is_ended = true;
            self.shared.tell(Message::Ended);
        }
        if self.is_ended {
            let request = self.shared.request();
            if request.epoch > self.acknowledged {
                self.note_source();
                self.acknowledge(request.epoch)?;
                return Ok(Advance::Entered);
            }
            return Ok(Advance::Quiet(None));
        }
        if self.chain.is_finished() {
            // Nothing more is needed from the input; those that read its errors still have to be told.
            self.is_ending = true;
            if let TaskInput::Channels(input) = &mut self.input {
                input.close();
            }
            self.chain.enter(Event::End, false)?;
            return Ok(Advance::Entered);
        }
        let has_room = self.chain.has_room(self.shared.request().epoch > self.acknowledged);
        let event = match &mut self.input {
            TaskInput::Channels(input) => match input.poll(|entry| has_room && self.chain.is_wanted(entry))? {
                Polled::Event(event) => event,
                // Room was made in a queue, whose producer may be a task of the same worker that is blocked.
                Polled::Taken => return Ok(Advance::Entered),
                Polled::Nothing if self.chain.follow()? => return Ok(Advance::Entered),
                Polled::Nothing => return Ok(Advance::Quiet(self.chain.next_time())),
            },
            TaskInput::Source(_) => match self.read(has_room)? {
                Taken::Event(event) => event,
                Taken::Nothing(advance) => return Ok(advance),
            },
        };
        match &event {
            Event::Barrier(epoch) => self.barrier = Some(*epoch),
            Event::End => self.is_ending = true,
            Event::Batch(_, batch) => self.entered = Some((batch.rows(), since)),
            _ => {}
        }
        let is_full = self.shared.request().is_full;
        self.chain.enter(event, is_full)?;
        self.gathered += 1;
        if self.gathered >= INPUTS_GATHERED_MAX {
            self.gathered = 0;
            self.chain.quiet()?;
        }
        Ok(Advance::Entered)
    }

    /// Takes the next event from the source, and records only if there is room for them.
    fn read(&mut self, has_room: bool) -> Result<Taken> {
        let request = self.shared.request();
        if request.epoch > self.acknowledged {
            self.is_held = request.is_last;
            self.note_source();
            return Ok(Taken::Event(Event::Barrier(request.epoch)));
        }
        let timer = self.chain.next_time();
        if self.is_held || !(self.shared.is_open() || self.shared.is_draining()) {
            return Ok(Taken::Nothing(Advance::Quiet(timer)));
        }
        if self.chain.follow()? {
            return Ok(Taken::Nothing(Advance::Entered));
        }
        self.note_alignment();
        let TaskInput::Source(source) = &mut self.input else {
            unreachable!("only a task with a source reads");
        };
        if self.shared.is_draining() {
            return Ok(Taken::Event(Event::End));
        }
        if !has_room {
            return Ok(Taken::Nothing(Advance::Quiet(timer)));
        }
        let read = match &mut self.aligned {
            None => source.read(None)?,
            Some((stage, slot)) => {
                let stage = &self.chain.stages[*stage];
                loop {
                    let pace = Pace { limit: slot.limit(), time_of: &|split| stage.time_of(split) };
                    let read = source.read(Some(pace))?;
                    let may_go_on = slot.pause(source.task.paused(), |split| source.task.split_name(split).unwrap_or_default().into());
                    // Of a task that sleeps, nobody else looks whether its splits may continue.
                    if !(may_go_on && matches!(read, SourceRead::Pending(_))) {
                        break read;
                    }
                }
            }
        };
        match read {
            SourceRead::Records(batch, rejected) => {
                let context = &self.chain.context;
                let routed = Routed::of(!self.chain.entry.errors.is_empty());
                let on_error = context.on_error;
                if rejects::is_routed(on_error, &rejected, routed, &source.name, &source.counters)? {
                    let name = source.name.clone();
                    self.chain.enter_rejected(&name, rejected)?;
                }
                let is_empty = batch.rows() == 0;
                Ok(if is_empty { Taken::Nothing(Advance::Entered) } else { Taken::Event(Event::Batch(0, batch)) })
            }
            SourceRead::Splits(open) => Ok(Taken::Event(Event::Splits(open))),
            SourceRead::Quiet(split) => Ok(Taken::Event(Event::Quiet(split))),
            SourceRead::Mark(split, mark) => Ok(Taken::Event(Event::Mark(split, mark))),
            SourceRead::Truncated(truncation) => {
                source.counters.truncations.add(1);
                source.counters.bytes_lost.add(truncation.bytes_lost);
                source.told.add(truncation.note);
                Ok(Taken::Nothing(Advance::Entered))
            }
            SourceRead::Pending(until) => {
                Ok(Taken::Nothing(Advance::Quiet(Some(timer.unwrap_or(i64::MAX).min(until)))))
            }
            SourceRead::End => Ok(Taken::Event(Event::End)),
        }
    }

    fn note_source(&mut self) {
        if let TaskInput::Source(source) = &mut self.input {
            if self.is_persistent {
                let snapshot = Snapshot { bytes: Some(source.task.snapshot()), ..Snapshot::default() };
                self.source_part = Some(Part::State(Arc::clone(&source.uid), snapshot, false));
            }
        }
    }

    fn acknowledge(&mut self, epoch: Epoch) -> Result<()> {
        let request = self.shared.request();
        let mut parts = self.chain.complete_snapshot(epoch, request.is_full)?;
        self.chain.is_resting = request.is_last;
        parts.extend(self.source_part.take());
        self.acknowledged = epoch;
        self.shared.tell(Message::Acknowledged(Acknowledgement { task: self.index, epoch, parts }));
        Ok(())
    }

    /// Notes for others how full its queues are, and what its watermarks wait for.
    fn note(&mut self) {
        for (level, (writer, _)) in self.fills.iter().zip(&self.chain.writers) {
            level.set(writer.fill() as i64);
        }
        self.note_alignment();
        let TaskInput::Source(source) = &self.input else { return };
        for (stage, writer) in &mut self.held {
            writer.note(self.chain.stages[*stage].waiting(), &*self.clock, |split| source.task.split_name(split));
        }
    }

    /// Notes for others how far its splits have come, if they keep together.
    fn note_alignment(&mut self) {
        let (Some((stage, slot)), TaskInput::Source(source)) = (&mut self.aligned, &self.input) else { return };
        if source.task.is_told() || self.is_ending {
            let slowest = self.chain.stages[*stage].waiting().and_then(|waiting| waiting.split);
            slot.report(slowest, |split| source.task.split_name(split));
        }
    }

    /// The next time at which something happens though nothing comes in.
    pub(crate) fn next_time(&self) -> Option<i64> {
        if self.is_ended {
            return None;
        }
        if let Some(at) = self.order_time() {
            return Some(at);
        }
        let now = self.clock.now();
        let read = match &self.input {
            TaskInput::Source(source) => source.task.look_time(),
            TaskInput::Channels(_) => None,
        };
        [self.chain.next_time(), read].into_iter().flatten().filter(|&at| at > now).min()
    }

    /// Whether a step of it awaits results from outside.
    pub(crate) fn awaits(&self) -> bool {
        self.chain.awaits()
    }

    /// The clock that timers go by.
    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }
}

impl SourceInput {
    fn read(&mut self, pace: Option<Pace<'_>>) -> Result<SourceRead> {
        let read = self.task.read(pace).map_err(|error| error.in_step(&self.name))?;
        if let SourceRead::Records(batch, _) = &read {
            self.counters.rows_out.add(batch.rows() as u64);
        }
        if let (Some(notes), SourceRead::Records(..) | SourceRead::Splits(_)) = (&mut self.notes, &read) {
            if let Some(state) = self.task.last_read() {
                notes.note(&state)?;
            }
        }
        Ok(read)
    }
}

/// What letting the next event in came to.
enum Advance {
    /// Something was done.
    Entered,
    /// There is nothing to do before this time.
    Quiet(Option<i64>),
}

/// What the source had.
enum Taken {
    /// An event for the chain.
    Event(Event),
    /// No event.
    Nothing(Advance),
}
