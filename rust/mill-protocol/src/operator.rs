//! Operators: what happens to records between a source and a sink.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::task::Waker;

use mill_frame::{Batch, SplitId};

use crate::error::{Rejected, Result};
use crate::snapshot::{Epoch, Restored, Snapshot};
use crate::source::Mark;
use crate::watermarks::Watermarks;

/// A promise in the stream: no record with an older event time follows, but late ones. Microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Watermark(pub i64);

impl Watermark {
    /// Before any record.
    pub const MIN: Watermark = Watermark(i64::MIN);
    /// After all records: the stream has ended.
    pub const MAX: Watermark = Watermark(i64::MAX);
}

/// Whether a call did all there was to do.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// All done; the next event may come.
    Done,
    /// There is more to emit: the runtime passes on what is in the outbox, then calls [`Operator::resume`].
    More,
    /// The operator waits for something outside. The runtime passes on what is in the outbox, lets nothing else into the
    /// chain, and calls [`Operator::resume`] once [`TaskContext::waker`] was woken; now and then also without cause.
    Pending,
}

/// Which records an operator takes for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// All that come.
    ForAll,
    /// Those before a requested barrier, so that the checkpoint need not wait; others stay in their queues or in
    /// their source.
    ForBarrier,
    /// None.
    No,
}

/// Where an operator instance stands in its job.
#[derive(Clone, Debug)]
pub struct TaskContext {
    /// The name of the step.
    pub step: String,
    /// Which of the parallel instances this is.
    pub index: usize,
    /// How many parallel instances there are.
    pub parallelism: usize,
    /// How many threads the job has: an instance that is alone may spread its work over so many.
    pub threads: usize,
    /// The key groups this instance owns, if its input is keyed.
    pub groups: Range<u16>,
    /// Whether snapshots will be stored; without it an operator need not track what changed.
    pub is_persistent: bool,
    /// Wakes this instance, from any thread, where it waits for something outside. Publish the answer, then wake.
    pub waker: Waker,
}

/// What the watermark of an operator that makes watermarks waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// How far the records of its splits have come at most, those that no longer count among them.
    pub furthest: Watermark,
    /// The split that holds the watermark, and how far that one has come ([`Watermark::MIN`]: it has had no records yet).
    /// `None` while no split counts.
    pub split: Option<(SplitId, Watermark)>,
}

/// How an operator that makes watermarks wants its splits to keep together: one that is further ahead of the slowest split of
/// the group than this pauses until that one has come closer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alignment {
    /// Which operators keep together: those that name the same group.
    pub group: Arc<str>,
    /// How far a split may be ahead of the slowest one, in microseconds.
    pub drift_us_max: i64,
}

/// What an operator put into its outbox.
#[derive(Debug)]
pub enum Emission {
    /// Records for an output port. Port 0 is the result; what others mean is the operator's to say (late, errors).
    Batch(usize, Batch),
    /// A watermark of the operator's own making, for all ports.
    Watermark(Watermark),
    /// Only of an operator that makes watermarks: it has nothing to read for now, and takes on the time of others.
    Quiet(Quiet),
}

/// Why an instance that makes watermarks has none to make for now, until it emits a watermark again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quiet {
    /// How far its own records had come.
    pub at: Watermark,
    /// Whether its input is idle, so that other inputs need not wait for it. If not, it only has no split of its own for
    /// now: the other instances of the step decide what time it is, and if they have no split either, time does not move.
    pub is_idle: bool,
}

/// What an operator emits to the steps after it. Order is kept.
#[derive(Debug, Default)]
pub struct Outbox {
    emissions: VecDeque<Emission>,
    rejected: Vec<Rejected>,
    late: u64,
}

impl Outbox {
    /// Emits records on port 0; an empty batch is dropped.
    pub fn push(&mut self, batch: Batch) {
        self.push_to(0, batch);
    }

    /// Emits records on a port; an empty batch is dropped.
    pub fn push_to(&mut self, port: usize, batch: Batch) {
        if batch.rows() > 0 {
            self.emissions.push_back(Emission::Batch(port, batch));
        }
    }

    /// Emits a watermark.
    pub fn watermark(&mut self, at: Watermark) {
        self.emissions.push_back(Emission::Watermark(at));
    }

    /// Declares that this instance has nothing to read for now; see [`Quiet`].
    pub fn quiet(&mut self, at: Watermark, is_idle: bool) {
        self.emissions.push_back(Emission::Quiet(Quiet { at, is_idle }));
    }

    /// Hands over a record that could not be processed; the runtime fails, skips or routes as the job says.
    pub fn reject(&mut self, rejected: Rejected) {
        self.rejected.push(rejected);
    }

    /// Counts records that came too late for their window.
    pub fn count_late(&mut self, rows: u64) {
        self.late += rows;
    }

    /// Takes the oldest emission.
    pub fn pop(&mut self) -> Option<Emission> {
        self.emissions.pop_front()
    }

    /// How many batches wait; an operator that emits a lot returns [`Progress::More`] after a few.
    pub fn len(&self) -> usize {
        self.emissions.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.emissions.is_empty()
    }

    /// Takes the records that could not be processed.
    pub fn take_rejected(&mut self) -> Vec<Rejected> {
        std::mem::take(&mut self.rejected)
    }

    /// Takes the count of late records.
    pub fn take_late(&mut self) -> u64 {
        std::mem::take(&mut self.late)
    }
}

/// One parallel instance of a step.
///
/// Its inputs have numbers from zero; an operator with one input may ignore them. Records of one input come in their
/// order, those of different inputs in any. The runtime calls an operator from one thread at a time and in stream order. After any call that returned
/// [`Progress::More`] or [`Progress::Pending`], only [`resume`](Operator::resume) is called until it returns [`Progress::Done`]. A watermark is
/// passed on by the runtime once the operator is done with it, but never beyond
/// [`earliest_result`](Operator::earliest_result); one that [`makes_watermarks`](Operator::makes_watermarks) emits its own.
pub trait Operator: Send {
    /// Processes records of this input.
    fn on_batch(&mut self, input: usize, batch: Batch, out: &mut Outbox) -> Result<Progress>;

    /// Event time has come this far on this input. It never goes back, and is [`Watermark::MAX`] before the input ends.
    fn on_watermark(&mut self, input: usize, at: Watermark, out: &mut Outbox) -> Result<Progress> {
        let _ = (input, at, out);
        Ok(Progress::Done)
    }

    /// What time it is after this step, given how far each input has come: usually the least of them. An operator that
    /// does not wait for one of its inputs leaves that one out. The runtime asks after each watermark.
    fn combine(&self, times: &Watermarks) -> Watermark {
        times.least()
    }

    /// Whether records of this input should come now. The runtime leaves those of an input that is not wanted in their queues, so
    /// that whoever makes them waits, and asks again after each event. While a checkpoint is taken they come all the same, up to
    /// its barrier. Whoever wants no records of one input must want those of another one that does not depend on it.
    fn wants(&self, input: usize) -> bool {
        let _ = input;
        true
    }

    /// Which records should come into the chain now, of an operator that takes records whose results come later. The runtime asks
    /// before each event.
    fn room(&self) -> Room {
        Room::ForAll
    }

    /// Whether results of records that it has taken are still to come from outside. While they are, the runtime lets records,
    /// watermarks and barriers through, calls [`on_wake`](Operator::on_wake) when [`TaskContext::waker`] was woken, and keeps the
    /// end of the input back. So nothing waits for the results but the end, and barriers come by until then.
    fn awaits(&self) -> bool {
        false
    }

    /// Only while the operator [`awaits`](Operator::awaits) results: it was woken, and may emit what has come. The runtime then
    /// passes on the watermark that [`earliest_result`](Operator::earliest_result) allows now.
    fn on_wake(&mut self, out: &mut Outbox) -> Result<Progress> {
        let _ = out;
        Ok(Progress::Done)
    }

    /// This input has ended. One call an input, before [`on_end`](Operator::on_end); after a restart an input that had
    /// ended before the checkpoint ends again, possibly after records of others, so what was emitted here must be in
    /// the state.
    fn on_input_end(&mut self, input: usize, out: &mut Outbox) -> Result<Progress> {
        let _ = (input, out);
        Ok(Progress::Done)
    }

    /// The earliest event time that a result may still have, given the watermarks so far. The runtime passes on no
    /// watermark that is greater, so that no result of this step is late for the next one.
    fn earliest_result(&self) -> Watermark {
        Watermark::MAX
    }

    /// Whether this operator makes the stream's watermarks, so that those from before it end here.
    fn makes_watermarks(&self) -> bool {
        false
    }

    /// Whether a split that returns nothing is ignored after a while, of an operator that makes watermarks: what the split
    /// brings later may be older than all that the task has had. The runtime asks once.
    fn passes_over_splits(&self) -> bool {
        false
    }

    /// What its watermark waits for, as of the last call; `None` for an operator that makes none. The runtime asks after each
    /// step of the task, so the answer has to be at hand.
    fn waiting(&self) -> Option<Waiting> {
        None
    }

    /// How its splits keep together, of an operator that makes watermarks. The runtime asks once.
    fn alignment(&self) -> Option<Alignment> {
        None
    }

    /// How far this split has come, as of the last call; `None` where it has had no watermark yet. Asked before each read
    /// where splits keep together.
    fn time_of(&self, split: SplitId) -> Option<Watermark> {
        let _ = split;
        None
    }

    /// In a chain that starts with a source: the splits this task still reads or has yet to read.
    fn on_splits(&mut self, open: &[SplitId], out: &mut Outbox) -> Result<()> {
        let _ = (open, out);
        Ok(())
    }

    /// A split was asked for records and has none for now. It stays quiet until it has some.
    fn on_quiet(&mut self, split: SplitId) {
        let _ = split;
    }

    /// The reader of a split has told something of its time, after all records that it had returned before.
    fn on_mark(&mut self, split: SplitId, mark: Mark, out: &mut Outbox) -> Result<()> {
        let _ = (split, mark, out);
        Ok(())
    }

    /// Only while the operator is [`Quiet`]: the inputs whose time it takes on have come this far, and the runtime sends that
    /// watermark in its place. Its own next one is no less.
    fn follow(&mut self, at: Watermark) {
        let _ = at;
    }

    /// When, in processing time (microseconds), [`on_time`](Operator::on_time) wants to be called next.
    fn next_time(&self) -> Option<i64> {
        None
    }

    /// Processing time has reached what [`next_time`](Operator::next_time) asked for.
    fn on_time(&mut self, now: i64, out: &mut Outbox) -> Result<Progress> {
        let _ = (now, out);
        Ok(Progress::Done)
    }

    /// Whether [`set_now`](Operator::set_now) is to be called.
    fn uses_now(&self) -> bool {
        false
    }

    /// The processing time (microseconds) of the call that follows, for an operator that shows it to users or dates values
    /// by it.
    fn set_now(&mut self, now: i64) {
        let _ = now;
    }

    /// All inputs have ended, or nothing more is needed of them: emit what is still held back. Where they have ended, the
    /// runtime has sent [`Watermark::MAX`] and called [`on_input_end`](Operator::on_input_end) for each of them.
    fn on_end(&mut self, out: &mut Outbox) -> Result<Progress> {
        let _ = out;
        Ok(Progress::Done)
    }

    /// Goes on after [`Progress::More`], or after [`Progress::Pending`] and a wake-up.
    fn resume(&mut self, out: &mut Outbox) -> Result<Progress> {
        let _ = out;
        Ok(Progress::Done)
    }

    /// A barrier has come, before the snapshot: emit what must not be held back past it.
    fn on_barrier(&mut self, epoch: Epoch, out: &mut Outbox) -> Result<Progress> {
        let _ = (epoch, out);
        Ok(Progress::Done)
    }

    /// Returns the state at the barrier. Must be quick: what takes time is left to the snapshot's payloads.
    fn snapshot(&mut self, snapshot: &mut Snapshot) -> Result<()> {
        let _ = snapshot;
        Ok(())
    }

    /// Takes up state from a checkpoint, before the first event. Only key groups of this instance are to be used.
    fn restore(&mut self, restored: &Restored) -> Result<()> {
        let _ = restored;
        Ok(())
    }

    /// Whether the same calls in the same order bring an instance that was rebuilt from a checkpoint to the state, and to the results,
    /// that they brought this one to. Not so where results come from outside while calls go on ([`awaits`](Operator::awaits)), or where
    /// [`on_time`](Operator::on_time) emits by a schedule that a restart starts over. The runtime asks once.
    fn can_replay(&self) -> bool {
        true
    }

    /// Whether its state says how far its input has come: one that is rebuilt from it need not be told. A window that was made after
    /// its end waits for the next watermark, and must not take the last one for it.
    fn knows_time(&self) -> bool {
        false
    }

    /// Whether nothing that it was given before matters for the events that follow: it has no state, in a checkpoint or beside it.
    fn is_stateless(&self) -> bool {
        false
    }

    /// Only where the task may go back to this checkpoint alone: the snapshot was taken. An operator that decides by more than its
    /// state when it emits what forgets that, so that one that is rebuilt from the checkpoint decides alike.
    fn forget(&mut self) -> Result<()> {
        Ok(())
    }

    /// Whether the operator needs no further input (a limit that is reached); the runtime then ends the stream here.
    fn is_finished(&self) -> bool {
        false
    }
}
