//! One stage of a chain at work: an operator or a sink with its inbox, as an explicit state machine.
//!
//! ```text
//!             take an event                operator says Done
//!   Ready ────────────────► call ───────────────────────────► finish the event ──► Ready, or Ended
//!                            │ operator says More                    ▲
//!                            ▼                                       │ Done
//!                         Resuming: call resume, pass on, again ─────┘
//! ```
//!
//! An operator that says Pending is resumed in the same way, once it was woken.
//!
//! An operator that awaits results from outside is Ready meanwhile: events come in, and wake-ups are events of their own. Only the
//! end stays in the inbox until the last result has come. A barrier that is asked for in the meantime is put in front of it.
//!
//! A stage that calls user code takes no more records at once than that code processes in a short time ([`Portion`]), or
//! than the user has set: the rest of a batch stays in the inbox as a batch of its own.
//!
//! Finishing an event is what the runtime does once the operator has processed it: pass a watermark on, though not beyond
//! the time of results that the operator may still emit; take the snapshot and then pass the barrier on; pass the end on.

use std::collections::VecDeque;
use std::sync::Arc;

use mill_protocol::{
    Alignment, Batch, Epoch, Error, Operator, Outbox, PreCommit, Progress, Result, Room, SinkWriter, Snapshot, SplitId, Waiting,
    Watermark, Watermarks,
};

use crate::envelope::Event;
use crate::graph::UserCode;
use crate::merge::Merge;
use crate::metrics::StageCounters;
use crate::portion::Portion;
use crate::time_board::{Slot, Standing};
use crate::wake::StageWake;

/// What a stage runs.
pub(crate) enum Body {
    /// An operator.
    Operator(Box<dyn Operator>),
    /// A sink; the index is the sink's place in the job.
    Sink(usize, Box<dyn SinkWriter>),
}

/// What a stage contributes to a checkpoint.
pub(crate) enum Part {
    /// The state of a step. The last flag says that its input had ended.
    State(Arc<str>, Snapshot, bool),
    /// Output of a sink.
    Output(usize, PreCommit),
}

/// How a stage stood at a barrier, as far as its operator does not know it itself.
#[derive(Clone, Debug)]
pub(crate) struct StageMark {
    merge: Merge,
    times: Watermarks,
    is_ended: bool,
    has_input_ended: bool,
    was_ended: bool,
}

/// What is being done until the operator is done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The next event may come.
    Ready,
    /// The operator has more to emit on the event that finishes like this.
    Resuming(Finish),
    /// The operator waits for something outside before it continues with that event.
    Pending(Finish),
    /// The stage has ended, and takes nothing more.
    Ended,
}

impl Phase {
    /// Where the stage is once the operator has said how far it is with the event that finishes like this.
    fn after(progress: Progress, finish: Finish) -> Phase {
        match progress {
            Progress::Done => Phase::Ready,
            Progress::More => Phase::Resuming(finish),
            Progress::Pending => Phase::Pending(finish),
        }
    }
}

/// What the runtime does once an operator is through with an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finish {
    Nothing,
    /// Time has gone on at an input.
    Watermark,
    Snapshot(Epoch),
    End,
}

/// How many records a stage takes at once.
enum Cut {
    /// As they come.
    No,
    /// So many as the user has said.
    Rows(usize),
    /// So many as are worked on in a short time, and what has been spent on those taken last.
    Time { portion: Portion, rows: usize, us: i64 },
}

/// What is passed on to all targets, in this order; what the operator emitted is in the outbox and comes first.
pub(crate) type Forward = [Option<Event>; 2];

const NOTHING: Forward = [None, None];

/// One stage at work.
pub(crate) struct Stage {
    pub(crate) uid: Arc<str>,
    /// The name of the user's step it is of.
    pub(crate) name: String,
    pub(crate) merge: Merge,
    /// How far each input has come, of what has been taken from the inbox.
    times: Watermarks,
    pub(crate) counters: Arc<StageCounters>,
    /// Wakes it, and knows whether it was woken.
    wake: Arc<StageWake>,
    /// Where it notes how far it has come, if it makes watermarks.
    pub(crate) slot: Option<Slot>,
    body: Body,
    inbox: VecDeque<Event>,
    cut: Cut,
    phase: Phase,
    /// The epoch of the last snapshot.
    snapshot: Option<Epoch>,
    /// Whether its input has ended; a stage may end before, when it or those after it need no more.
    has_input_ended: bool,
    /// Whether its input had ended already in the checkpoint this job continues from: nothing is emitted once more.
    was_ended: bool,
    /// Whether state is stored; without that nobody asks the operator for it.
    is_persistent: bool,
    /// Whether what it does may have to be done once more.
    is_logged: bool,
    /// How many records it took at once where that goes by time, of what is in the chain; and how many it is to take, in their
    /// order, where it repeats what it did.
    cuts: Vec<usize>,
    cuts_to_repeat: VecDeque<usize>,
}

impl Stage {
    /// A stage before its first event, with that many inputs; for each channel the input that it leads to.
    pub(crate) fn new(
        uid: Arc<str>,
        name: String,
        body: Body,
        inputs: usize,
        channels: Vec<usize>,
        counters: Arc<StageCounters>,
        wake: Arc<StageWake>,
    ) -> Stage {
        Stage {
            uid,
            name,
            merge: Merge::new(inputs, channels),
            times: Watermarks::new(inputs),
            counters,
            wake,
            slot: None,
            body,
            inbox: VecDeque::new(),
            cut: Cut::No,
            phase: Phase::Ready,
            snapshot: None,
            has_input_ended: false,
            was_ended: false,
            is_persistent: true,
            is_logged: false,
            cuts: Vec::new(),
            cuts_to_repeat: VecDeque::new(),
        }
    }

    /// What it does may have to be done once more.
    pub(crate) fn set_logged(&mut self) {
        self.is_logged = true;
    }

    /// How it cut the records of what was in the chain, if it did.
    pub(crate) fn take_cuts(&mut self) -> Option<Vec<usize>> {
        (!self.cuts.is_empty()).then(|| std::mem::take(&mut self.cuts))
    }

    /// It cuts the records that come next like this.
    pub(crate) fn cut_like(&mut self, rows: Vec<usize>) {
        self.cuts_to_repeat = rows.into();
    }

    /// What was in the chain was taken back.
    pub(crate) fn forget_cuts(&mut self) {
        self.cuts.clear();
        self.cuts_to_repeat.clear();
    }

    /// The input had ended in the checkpoint that the job continues from.
    pub(crate) fn set_was_ended(&mut self) {
        self.was_ended = true;
    }

    /// How it stands; nothing is under way in it.
    pub(crate) fn mark(&self) -> StageMark {
        StageMark {
            merge: self.merge.clone(),
            times: self.times.clone(),
            is_ended: self.is_ended(),
            has_input_ended: self.has_input_ended,
            was_ended: self.was_ended,
        }
    }

    /// Hands over its operator; another one has to take its place before the next event.
    pub(crate) fn take_operator(&mut self) -> Body {
        std::mem::replace(&mut self.body, Body::Operator(Box::new(Gone)))
    }

    /// Takes the operator that was rebuilt from the checkpoint of this epoch, and stands as it did there.
    pub(crate) fn go_back(&mut self, epoch: Epoch, mark: &StageMark, operator: Box<dyn Operator>) {
        self.merge = mark.merge.clone();
        self.times = mark.times.clone();
        (self.has_input_ended, self.was_ended) = (mark.has_input_ended, mark.was_ended);
        self.phase = if mark.is_ended { Phase::Ended } else { Phase::Ready };
        self.snapshot = Some(epoch);
        self.inbox.clear();
        self.body = Body::Operator(operator);
    }

    /// Tells an operator that was rebuilt how far its inputs have come, as a restart of the job would; it has emitted what follows
    /// from that before.
    ///
    /// # Errors
    /// Of the operator.
    pub(crate) fn prime(&mut self) -> Result<()> {
        if self.is_ended() || self.was_ended || self.makes_watermarks() {
            return Ok(());
        }
        let Body::Operator(operator) = &mut self.body else { return Ok(()) };
        for input in 0..self.merge.inputs() {
            let at = self.times.of(input);
            if at > Watermark::MIN && !operator.knows_time() {
                let mut out = Outbox::default();
                let progress = operator.on_watermark(input, at, &mut out)?;
                finish_silently(&mut **operator, progress, out)?;
            }
            if self.merge.has_ended(input) {
                let mut out = Outbox::default();
                let progress = operator.on_input_end(input, &mut out)?;
                finish_silently(&mut **operator, progress, out)?;
            }
        }
        Ok(())
    }

    /// Whether its operator comes to the same state when it is called in the same way once more.
    pub(crate) fn can_replay(&self) -> bool {
        match &self.body {
            Body::Operator(operator) => operator.can_replay(),
            Body::Sink(..) => true,
        }
    }

    /// Whether it has nothing to go back to.
    pub(crate) fn is_stateless(&self) -> bool {
        match &self.body {
            Body::Operator(operator) => operator.is_stateless(),
            Body::Sink(..) => true,
        }
    }

    /// Counts into these counters from now on; returns the former ones.
    pub(crate) fn set_counters(&mut self, counters: Arc<StageCounters>) -> Arc<StageCounters> {
        std::mem::replace(&mut self.counters, counters)
    }

    /// It calls code of the user's.
    pub(crate) fn set_user_code(&mut self, code: UserCode) {
        self.cut = match code.batch_rows {
            Some(rows) => Cut::Rows(rows.max(1)),
            None => Cut::Time { portion: Portion::new(code.rows_first), rows: 0, us: 0 },
        };
    }

    /// Whether it wants to know how long its calls take.
    pub(crate) fn is_timed(&self) -> bool {
        matches!(self.cut, Cut::Time { .. })
    }

    /// How many records its calls have to have, because they take long whatever their number.
    pub(crate) fn floor(&self) -> usize {
        if let Cut::Time { portion, .. } = &self.cut { portion.floor() } else { 1 }
    }

    /// Takes note of how long the last call took.
    pub(crate) fn note_time(&mut self, took_us: i64) {
        if let Cut::Time { portion, rows, us } = &mut self.cut {
            *us += took_us;
            if !matches!(self.phase, Phase::Resuming(_) | Phase::Pending(_)) {
                portion.note(*rows, *us);
                (*rows, *us) = (0, 0);
            }
        }
    }

    /// Whether the state is stored.
    pub(crate) fn set_persistent(&mut self, is_persistent: bool) {
        self.is_persistent = is_persistent;
    }

    /// Whether there is something to do.
    pub(crate) fn has_work(&self) -> bool {
        match self.phase {
            Phase::Resuming(_) | Phase::Pending(_) => true,
            Phase::Ready => !self.inbox.is_empty() && !self.keeps_end(),
            Phase::Ended => false,
        }
    }

    /// Whether the end is kept back, as results are still to come.
    pub(crate) fn keeps_end(&self) -> bool {
        self.phase == Phase::Ready && matches!(self.inbox.front(), Some(Event::End)) && self.awaits()
    }

    /// Whether results are still to come from outside.
    pub(crate) fn awaits(&self) -> bool {
        match &self.body {
            Body::Operator(operator) => !self.is_ended() && !self.was_ended && operator.awaits(),
            Body::Sink(..) => false,
        }
    }

    /// Which records it takes for now.
    pub(crate) fn room(&self) -> Room {
        match &self.body {
            Body::Operator(operator) if !self.is_ended() => operator.room(),
            Body::Operator(_) | Body::Sink(..) => Room::ForAll,
        }
    }

    /// Lets a barrier come by before the end that is withheld.
    pub(crate) fn accept_ahead_of_end(&mut self, barrier: Event) {
        self.inbox.push_front(barrier);
    }

    /// Takes the wake-up, if there is one, of an operator that awaits results.
    pub(crate) fn takes_wake(&self) -> bool {
        self.phase == Phase::Ready && self.awaits() && self.wake.take()
    }

    /// Calls the operator because it was woken; returns what is passed on after what it emits.
    pub(crate) fn on_wake(&mut self, out: &mut Outbox) -> Result<Option<Event>> {
        let Body::Operator(operator) = &mut self.body else { return Ok(None) };
        let progress = operator.on_wake(out)?;
        self.phase = Phase::after(progress, Finish::Watermark);
        Ok((progress == Progress::Done).then(|| Event::Watermark(0, self.time_after())))
    }

    /// Whether it has to wait for something outside. Takes the wake-up if there is one.
    pub(crate) fn is_waiting(&self) -> bool {
        match &self.body {
            Body::Sink(_, writer) => matches!(self.inbox.front(), Some(Event::Batch(..))) && !writer.is_ready(),
            Body::Operator(_) => matches!(self.phase, Phase::Pending(_)) && !self.wake.take(),
        }
    }

    /// Whether it takes nothing more.
    pub(crate) fn is_ended(&self) -> bool {
        self.phase == Phase::Ended
    }

    /// Whether it is a sink.
    pub(crate) fn is_sink(&self) -> bool {
        matches!(self.body, Body::Sink(..))
    }

    /// Puts an event into the inbox.
    pub(crate) fn accept(&mut self, event: Event) {
        if self.phase != Phase::Ended {
            self.has_input_ended |= matches!(event, Event::End);
            self.inbox.push_back(event);
        }
    }

    /// Ends without emitting anything: nobody needs it.
    pub(crate) fn end_silently(&mut self) {
        self.inbox.clear();
        self.end();
    }

    fn end(&mut self) {
        self.phase = Phase::Ended;
        if let Some(slot) = &mut self.slot {
            slot.end();
        }
    }

    /// Notes for others how far the watermarks made here have come.
    ///
    /// # Errors
    /// When the operator has not declared that it makes watermarks.
    pub(crate) fn report(&mut self, standing: Standing) -> Result<()> {
        let slot = self.slot.as_mut();
        slot.ok_or_else(|| Error::internal("a watermark of an operator that makes none"))?.report(standing);
        Ok(())
    }

    /// Takes on the time of others.
    pub(crate) fn follow(&mut self, at: Watermark) {
        if let Body::Operator(operator) = &mut self.body {
            operator.follow(at);
        }
    }

    /// What the watermark waits for that is made here.
    pub(crate) fn waiting(&self) -> Option<Waiting> {
        match &self.body {
            Body::Operator(operator) if !self.is_ended() => operator.waiting(),
            Body::Operator(_) | Body::Sink(..) => None,
        }
    }

    /// How the splits keep together whose watermarks are made here.
    pub(crate) fn alignment(&self) -> Option<Alignment> {
        match &self.body {
            Body::Operator(operator) => operator.alignment(),
            Body::Sink(..) => None,
        }
    }

    /// How far a split has come, by the operator that makes its watermarks.
    pub(crate) fn time_of(&self, split: SplitId) -> Option<Watermark> {
        match &self.body {
            Body::Operator(operator) if !self.is_ended() => operator.time_of(split),
            Body::Operator(_) | Body::Sink(..) => None,
        }
    }

    /// Whether the operator makes watermarks and does not wait for every split.
    pub(crate) fn passes_over_splits(&self) -> bool {
        matches!(&self.body, Body::Operator(operator) if operator.passes_over_splits())
    }

    /// Whether the operator makes watermarks.
    pub(crate) fn makes_watermarks(&self) -> bool {
        matches!(&self.body, Body::Operator(operator) if operator.makes_watermarks())
    }

    /// How far event time has come after this stage: by the operator's own rule, but not beyond the time that a record may
    /// still have that comes out of here.
    fn time_after(&self) -> Watermark {
        match &self.body {
            Body::Operator(operator) => operator.combine(&self.times).min(operator.earliest_result()),
            Body::Sink(..) => self.times.least(),
        }
    }

    /// Whether the operator needs nothing more, though its input has not ended.
    pub(crate) fn is_finished(&self) -> bool {
        match &self.body {
            Body::Operator(operator) => operator.is_finished(),
            Body::Sink(_, writer) => writer.is_finished(),
        }
    }

    /// Whether records of this channel should come now.
    pub(crate) fn wants(&self, channel: usize) -> bool {
        match &self.body {
            // One whose input had ended is told of no input that ends once more: it takes all, which is nothing but ends.
            Body::Operator(operator) => self.is_ended() || self.was_ended || operator.wants(self.merge.input(channel)),
            Body::Sink(..) => true,
        }
    }

    /// When it wants to be called next, in processing time.
    pub(crate) fn next_time(&self) -> Option<i64> {
        match &self.body {
            Body::Operator(operator) if self.phase == Phase::Ready && !self.was_ended => operator.next_time(),
            _ => None,
        }
    }

    /// Whether its operator wants to know what time it is.
    pub(crate) fn uses_now(&self) -> bool {
        matches!(&self.body, Body::Operator(operator) if operator.uses_now())
    }

    /// What time it is for the call that follows.
    pub(crate) fn set_now(&mut self, now: i64) {
        if let Body::Operator(operator) = &mut self.body {
            operator.set_now(now);
        }
    }

    /// Processes one event or continues with the last one.
    pub(crate) fn advance(&mut self, out: &mut Outbox, parts: &mut Vec<Part>, is_full: bool) -> Result<Forward> {
        let (progress, finish) = match self.phase {
            Phase::Ended => return Ok(NOTHING),
            Phase::Resuming(finish) | Phase::Pending(finish) => match &mut self.body {
                Body::Operator(operator) => (operator.resume(out)?, finish),
                Body::Sink(..) => return Err(Error::internal("a sink has nothing to resume")),
            },
            Phase::Ready => match self.next_event() {
                Some(event) => self.take(event, out)?,
                None => return Ok(NOTHING),
            },
        };
        self.phase = Phase::after(progress, finish);
        if progress != Progress::Done {
            return Ok(NOTHING);
        }
        let forward = self.finish(finish, parts, is_full)?;
        if self.phase == Phase::Ready && self.is_finished() {
            self.end_early();
        }
        Ok(forward)
    }

    /// Calls the operator because processing time has come as far as it asked for.
    pub(crate) fn on_time(&mut self, now: i64, out: &mut Outbox) -> Result<()> {
        if let Body::Operator(operator) = &mut self.body {
            if operator.uses_now() {
                operator.set_now(now);
            }
            let progress = operator.on_time(now, out)?;
            self.phase = Phase::after(progress, Finish::Nothing);
            if progress == Progress::Done && operator.is_finished() {
                self.end_early();
            }
        }
        Ok(())
    }

    /// Lets the end be the next event, though the input has not ended.
    pub(crate) fn end_early(&mut self) {
        self.inbox.clear();
        self.inbox.push_back(Event::End);
    }

    /// Takes the snapshot of this epoch unless it was taken already.
    pub(crate) fn snapshot(&mut self, epoch: Epoch, parts: &mut Vec<Part>, is_full: bool) -> Result<()> {
        if self.snapshot.replace(epoch) == Some(epoch) {
            return Ok(());
        }
        match &mut self.body {
            Body::Operator(_) if !self.is_persistent => {}
            Body::Operator(operator) => {
                let mut snapshot = Snapshot { is_full, ..Snapshot::default() };
                operator.snapshot(&mut snapshot)?;
                if self.is_logged {
                    operator.forget()?;
                }
                // What had ended stays so, even in a checkpoint that is taken before the end has come by again:
                // otherwise the next restart would emit once more what that end had emitted.
                let is_ended = self.was_ended || (self.phase == Phase::Ended && self.has_input_ended);
                parts.push(Part::State(Arc::clone(&self.uid), snapshot, is_ended));
            }
            Body::Sink(sink, writer) => parts.extend(writer.pre_commit(epoch)?.map(|run| Part::Output(*sink, run))),
        }
        Ok(())
    }

    /// The oldest event, or the front of it if it has more records than are taken at once.
    fn next_event(&mut self) -> Option<Event> {
        let rows_max = match &self.cut {
            Cut::No => usize::MAX,
            Cut::Rows(rows) => *rows,
            Cut::Time { portion, .. } => match self.inbox.front() {
                Some(Event::Batch(..)) => self.cuts_to_repeat.pop_front().unwrap_or_else(|| portion.rows()),
                _ => usize::MAX,
            },
        };
        let event = match self.inbox.pop_front()? {
            Event::Batch(input, batch) if batch.rows() > rows_max => {
                self.inbox.push_front(Event::Batch(input, batch.slice(rows_max, batch.rows() - rows_max)));
                Event::Batch(input, batch.slice(0, rows_max))
            }
            event => event,
        };
        if let (true, Event::Batch(_, batch)) = (self.is_logged && self.is_timed(), &event) {
            self.cuts.push(batch.rows());
        }
        Some(event)
    }

    fn take(&mut self, event: Event, out: &mut Outbox) -> Result<(Progress, Finish)> {
        if let Event::Batch(_, batch) = &event {
            self.counters.rows_in.add(batch.rows() as u64);
            if let Cut::Time { rows, .. } = &mut self.cut {
                *rows = batch.rows();
            }
        }
        if let Event::Watermark(input, at) = &event {
            if let Some(least) = self.times.advance(*input, *at) {
                self.counters.watermark.set(least.0);
            }
        }
        let operator = match &mut self.body {
            Body::Operator(operator) => operator,
            Body::Sink(_, writer) => {
                let finish = match event {
                    Event::Batch(_, batch) => {
                        writer.write(batch)?;
                        writer.take_rejected().into_iter().for_each(|rejected| out.reject(rejected));
                        Finish::Nothing
                    }
                    Event::Barrier(epoch) => Finish::Snapshot(epoch),
                    Event::End => {
                        writer.end()?;
                        Finish::End
                    }
                    Event::Watermark(..)
                    | Event::InputEnd(_)
                    | Event::Splits(_)
                    | Event::Quiet(_)
                    | Event::Mark(..) => Finish::Nothing,
                };
                return Ok((Progress::Done, finish));
            }
        };
        if self.was_ended && !matches!(event, Event::Barrier(_) | Event::End) {
            // Time and end have been seen before the checkpoint; records would be news.
            if let Event::Batch(..) = event {
                let message = "new records came, but in the checkpoint its input had ended; run the job on a new path";
                return Err(Error::checkpoint(message));
            }
            return Ok((Progress::Done, Finish::Nothing));
        }
        Ok(match event {
            Event::Batch(input, batch) => (operator.on_batch(input, batch, out)?, Finish::Nothing),
            Event::Watermark(input, at) => {
                let finish = if operator.makes_watermarks() { Finish::Nothing } else { Finish::Watermark };
                (operator.on_watermark(input, at, out)?, finish)
            }
            Event::InputEnd(input) => {
                // What was held back until the end of this input holds the time of the others up no more.
                let finish = if operator.makes_watermarks() { Finish::Nothing } else { Finish::Watermark };
                (operator.on_input_end(input, out)?, finish)
            }
            Event::Splits(open) => {
                operator.on_splits(&open, out)?;
                (Progress::Done, Finish::Nothing)
            }
            Event::Quiet(split) => {
                operator.on_quiet(split);
                (Progress::Done, Finish::Nothing)
            }
            Event::Mark(split, mark) => {
                operator.on_mark(split, mark, out)?;
                (Progress::Done, Finish::Nothing)
            }
            Event::Barrier(epoch) => (operator.on_barrier(epoch, out)?, Finish::Snapshot(epoch)),
            Event::End if self.was_ended => (Progress::Done, Finish::End),
            Event::End => (operator.on_end(out)?, Finish::End),
        })
    }

    fn finish(&mut self, finish: Finish, parts: &mut Vec<Part>, is_full: bool) -> Result<Forward> {
        Ok(match finish {
            Finish::Nothing => NOTHING,
            Finish::Watermark => [Some(Event::Watermark(0, self.time_after())), None],
            Finish::Snapshot(epoch) => {
                self.snapshot(epoch, parts, is_full)?;
                [Some(Event::Barrier(epoch)), None]
            }
            Finish::End => {
                self.end();
                [Some(Event::Watermark(0, Watermark::MAX)), Some(Event::End)]
            }
        })
    }
}

/// The place of an operator that was given away.
struct Gone;

impl Operator for Gone {
    fn on_batch(&mut self, _input: usize, _batch: Batch, _out: &mut Outbox) -> Result<Progress> {
        Err(Error::internal("records came to a step while it was rebuilt"))
    }
}

/// Lets an operator come to the end of an event of which nothing is passed on.
fn finish_silently(operator: &mut dyn Operator, mut progress: Progress, mut out: Outbox) -> Result<()> {
    while progress == Progress::More {
        while out.pop().is_some() {}
        progress = operator.resume(&mut out)?;
    }
    match progress {
        Progress::Pending => Err(Error::internal("a step waits for something outside before its first record")),
        Progress::More | Progress::Done => Ok(()),
    }
}
