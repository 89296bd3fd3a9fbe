//! The input of a task since the last checkpoint, so that the task can be restored alone: the second way to exactly once.
//!
//! ```text
//!   mark of checkpoint 7 │ entry entry entry │ mark of 8 (under way) │ entry entry │ pending
//!   └ operators are rebuilt from 7 ──► entries once more, output dropped ──────► └ goes in once more, output counts
//! ```
//!
//! An *entry* is what goes into the chain between two moments at which its operators have nothing to do: records, a
//! watermark, a timer. The output of the operators for an entry is held until they have finished the entry. Only then all
//! of it goes to the queues and sinks of the task, and the entry has been *applied*. So a task that fails has applied each
//! entry whole or not at all, its neighbours have seen the output of just those that were applied, and nobody but the task
//! itself has to go back. The order of the entries is the order in which the task took them, whichever channels they came
//! from: the log is the sequence number of every channel, and what it holds is shared with the rest of the engine, not
//! copied.
//!
//! A chain without state has nothing to repeat: only its mark and the contents of the mark are maintained.
//!
//! The work of an operator is repeated by calling it in the same way. Inputs from elsewhere are stored with the entry: the
//! time, the watermarks that were made, which depend on other tasks and on the clock, and how records were split for user
//! code, which depends on how long that takes. Anything outside its state by which an operator decides when to emit is
//! forgotten at each barrier ([`Operator::forget`](mill_protocol::Operator::forget)). An operator whose results come from
//! outside or by the clock says that it cannot be restored in this way
//! ([`Operator::can_replay`](mill_protocol::Operator::can_replay)); then, and when the log got too large or an entry made
//! more output than is held, the job as a whole goes back to its checkpoint.

use std::collections::VecDeque;
use std::sync::Arc;

use mill_frame::shown_bytes;
use mill_protocol::{Batch, Epoch, Quiet, SplitId, Watermark};
use mill_queue::sync::atomic::{AtomicU64, Ordering};

use crate::chain::Route;
use crate::envelope::Event;
use crate::stage::StageMark;

/// So many bytes of output are held for one entry at most; beyond it the entry can no longer be taken back.
const HELD_BYTES_MAX: usize = 64 << 20;

/// What went into a chain.
#[derive(Debug)]
pub(crate) enum Taken {
    /// An event of the task's input.
    Event(Event),
    /// Records of the source that could not be read.
    Rejected(Batch),
    /// The timers of this stage.
    Timer(usize),
    /// The wake-up of this stage.
    Wake(usize),
    /// The time of others, which the maker of watermarks in this stage passes on, and takes on if it has none of its own.
    Follow { stage: usize, at: Watermark, is_quiet: bool },
}

/// What went into a chain at once.
#[derive(Debug, Default)]
pub(crate) struct Entry {
    pub(crate) taken: Vec<Taken>,
    /// The processing time at which it did.
    pub(crate) now: i64,
    /// The watermarks that were made on it.
    pub(crate) watermarks: Vec<Made>,
    /// How stages of the user's code cut the records, each by the stage: that goes by how long they take.
    pub(crate) cuts: Vec<(usize, Vec<usize>)>,
}

/// A watermark that was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Made {
    /// By which stage.
    pub(crate) stage: usize,
    /// After how many batches of that stage, of those that it made of the entry.
    pub(crate) batches: usize,
    pub(crate) at: Watermark,
}

/// How the chain stood at a barrier, as far as its operators don't know it themselves.
#[derive(Debug)]
pub(crate) struct Mark {
    pub(crate) epoch: Epoch,
    /// The processing time.
    now: i64,
    pub(crate) stages: Vec<StageMark>,
    /// The splits that the operators were told of last.
    pub(crate) splits: Option<Arc<[SplitId]>>,
    /// The last watermark of each stage that makes them.
    pub(crate) watermarks: Vec<Watermark>,
}

#[derive(Debug)]
struct Segment {
    mark: Arc<Mark>,
    entries: Vec<Entry>,
    bytes: usize,
}

/// Where a task is that goes through its log once more.
#[derive(Debug, Default)]
struct Replay {
    segment: usize,
    entry: usize,
    /// Whether that entry has gone in, and whether the watermarks have that were made of it.
    is_in: bool,
    is_timed: bool,
    /// Those of them that have not.
    left: Vec<Made>,
    replayed: Replayed,
}

/// How much was repeated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Replayed {
    /// Records that went into the chain once more.
    pub(crate) rows: u64,
    /// Frames, watermarks and timers that did.
    pub(crate) entries: u64,
}

/// What a task that goes through its log once more does next.
pub(crate) enum ReplayStep {
    /// This goes into the chain, and is cut like this.
    Input(Vec<Taken>, Vec<(usize, Vec<usize>)>),
    /// What was made of it of watermarks, and has not gone on yet.
    Watermarks(Vec<Made>),
    /// The barrier comes by.
    Barrier(Epoch),
    /// All was repeated.
    Done(Replayed),
}

/// The checkpoints that a task can go back to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// None: what it failed at cannot be taken back.
    Nothing,
    /// These.
    To(Vec<Epoch>),
    /// It has no state, so whichever it is makes no difference.
    Anywhere,
}

/// The log of one task.
pub(crate) struct InputLog {
    segments: VecDeque<Segment>,
    /// What is in the chain.
    pending: Option<Entry>,
    held: Vec<(Route, Event)>,
    held_bytes: usize,
    /// Whether some of the output of what is in the chain is out already.
    is_torn: bool,
    replay: Option<Replay>,
    splits: Option<Arc<[SplitId]>>,
    watermarks: Vec<Watermark>,
    /// What each stage that makes watermarks said last of itself, while it repeats the log.
    quiet: Vec<Option<Quiet>>,
    /// How many batches each stage that makes watermarks has made of what is in the chain.
    batches: Vec<usize>,
    bytes: usize,
    bytes_max: usize,
    /// Whether there is state that has to be brought back by repeating what went in.
    has_state: bool,
    /// The newest checkpoint of the job that is complete.
    published: Arc<AtomicU64>,
    /// Whether a checkpoint was asked for, since the log has become large.
    is_asked: bool,
}

impl InputLog {
    /// A log that begins at this mark.
    pub(crate) fn new(
        epoch: Epoch,
        stages: Vec<StageMark>,
        has_state: bool,
        bytes_max: usize,
        published: Arc<AtomicU64>,
    ) -> InputLog {
        let watermarks = vec![Watermark::MIN; stages.len()];
        let mark = Arc::new(Mark { epoch, now: 0, stages, splits: None, watermarks: watermarks.clone() });
        InputLog {
            segments: VecDeque::from([Segment { mark, entries: Vec::new(), bytes: 0 }]),
            pending: None,
            held: Vec::new(),
            held_bytes: 0,
            is_torn: false,
            replay: None,
            splits: None,
            quiet: vec![None; watermarks.len()],
            batches: vec![0; watermarks.len()],
            watermarks,
            bytes: 0,
            bytes_max,
            has_state,
            published,
            is_asked: false,
        }
    }

    /// Whether the task goes through its log once more.
    pub(crate) fn is_replaying(&self) -> bool {
        self.replay.is_some()
    }

    /// Whether something is in the chain.
    pub(crate) fn has_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// Something goes into the chain at this time.
    pub(crate) fn begin(&mut self, taken: Taken, now: impl FnOnce() -> i64) {
        if self.replay.is_none() {
            let entry = self.pending.get_or_insert_with(|| Entry { now: now(), ..Entry::default() });
            entry.taken.push(taken);
        }
    }

    /// The time that operators are told while they work on what is in the chain.
    pub(crate) fn now(&self) -> Option<i64> {
        match &self.replay {
            // A barrier comes before the first entry of its segment.
            Some(replay) if replay.entry == 0 && !replay.is_in => Some(self.segments[replay.segment].mark.now),
            Some(replay) => Some(self.segments[replay.segment].entries.get(replay.entry)?.now),
            None => self.pending.as_ref().map(|entry| entry.now),
        }
    }

    /// A watermark was made and is passed on from this stage.
    pub(crate) fn note_watermark(&mut self, stage: usize, at: Watermark) {
        if let Some(entry) = self.pending.as_mut().filter(|_| self.replay.is_none()) {
            entry.watermarks.push(Made { stage, batches: self.batches[stage], at });
        }
    }

    /// What a stage that makes watermarks says of itself while it repeats the log: that it has none to make, or that it has.
    pub(crate) fn note_quiet(&mut self, stage: usize, quiet: Option<Quiet>) {
        self.quiet[stage] = quiet;
    }

    /// What those stages said last.
    pub(crate) fn take_quiet(&mut self) -> Vec<Option<Quiet>> {
        let none = vec![None; self.quiet.len()];
        std::mem::replace(&mut self.quiet, none)
    }

    /// The stage, which makes watermarks, has made a batch.
    pub(crate) fn note_batch(&mut self, stage: usize) {
        self.batches[stage] += 1;
    }

    /// The watermarks that the stage had made once it had made so many batches, and that have not gone on.
    pub(crate) fn due_watermarks(&mut self, stage: usize) -> Vec<Watermark> {
        let Some(replay) = &mut self.replay else { return Vec::new() };
        let so_many = self.batches[stage];
        replay.left.extract_if(.., |made| made.stage == stage && made.batches <= so_many).map(|made| made.at).collect()
    }

    /// Holds output of the operators until they are through; while they repeat what was applied, drops it. Returns whether more is held
    /// than may be.
    pub(crate) fn hold(&mut self, route: Route, event: Event) -> bool {
        if self.replay.is_some() {
            return false;
        }
        if let Event::Batch(_, batch) = &event {
            self.held_bytes += bytes(batch);
        }
        self.held.push((route, event));
        self.held_bytes > HELD_BYTES_MAX
    }

    /// Takes what is held though the operators are not through: from here on what is in the chain cannot be taken back.
    pub(crate) fn tear(&mut self) -> Vec<(Route, Event)> {
        self.is_torn = true;
        self.held_bytes = 0;
        std::mem::take(&mut self.held)
    }

    /// The operators are through with what went in: it is applied. Returns what they made of it. At a barrier this is how the chain
    /// stands. What is before the newest complete checkpoint is let go of.
    pub(crate) fn apply(
        &mut self,
        cuts: Vec<(usize, Vec<usize>)>,
        stages: impl FnOnce() -> Vec<StageMark>,
    ) -> Vec<(Route, Event)> {
        let Some(mut entry) = self.pending.take() else { return Vec::new() };
        entry.cuts = cuts;
        self.batches.fill(0);
        self.is_torn = false;
        self.held_bytes = 0;
        for (stage, at) in entry.made() {
            self.watermarks[stage] = self.watermarks[stage].max(at);
        }
        for taken in &entry.taken {
            if let Taken::Event(Event::Splits(open)) = taken {
                self.splits = Some(Arc::clone(open));
            }
        }
        if !self.has_state {
            if entry.moves_marks() {
                let (splits, watermarks) = (self.splits.clone(), self.watermarks.clone());
                let mark = Mark { epoch: Epoch(0), now: entry.now, stages: stages(), splits, watermarks };
                self.segments = VecDeque::from([Segment { mark: Arc::new(mark), entries: Vec::new(), bytes: 0 }]);
            }
            return std::mem::take(&mut self.held);
        }
        if let Some(epoch) = entry.barrier() {
            let (splits, watermarks) = (self.splits.clone(), self.watermarks.clone());
            let mark = Mark { epoch, now: entry.now, stages: stages(), splits, watermarks };
            self.segments.push_back(Segment { mark: Arc::new(mark), entries: Vec::new(), bytes: 0 });
        } else if let Some(segment) = self.segments.back_mut() {
            let bytes = entry.bytes();
            segment.bytes += bytes;
            segment.entries.push(entry);
            self.bytes += bytes;
        }
        // Relaxed: the number stands for itself, and an old one only keeps more.
        let published = self.published.load(Ordering::Relaxed);
        while self.segments.get(1).is_some_and(|next| next.mark.epoch.0 <= published) {
            self.bytes -= self.segments.pop_front().map_or(0, |segment| segment.bytes);
            self.is_asked = false;
        }
        if self.bytes > self.bytes_max {
            self.give_up();
        }
        std::mem::take(&mut self.held)
    }

    /// Lets go of everything: from the next barrier on there is a log again.
    pub(crate) fn give_up(&mut self) {
        self.segments.clear();
        self.bytes = 0;
    }

    /// Whether a checkpoint should be taken soon, so that the log becomes shorter; said once.
    pub(crate) fn asks_for_checkpoint(&mut self) -> bool {
        self.bytes > self.bytes_max / 2 && !std::mem::replace(&mut self.is_asked, true)
    }

    /// The chain has failed: takes back what was in it.
    pub(crate) fn take_back(&mut self) -> Reach {
        self.held.clear();
        self.held_bytes = 0;
        self.batches.fill(0);
        if self.is_torn || (self.pending.is_none() && self.replay.is_none()) {
            return Reach::Nothing;
        }
        if let Some(entry) = &mut self.pending {
            entry.watermarks.clear();
        }
        match self.segments.iter().map(|segment| segment.mark.epoch).collect::<Vec<_>>() {
            epochs if epochs.is_empty() => Reach::Nothing,
            _ if !self.has_state => Reach::Anywhere,
            epochs => Reach::To(epochs),
        }
    }

    /// Begins to go through the log once more, from this checkpoint on; returns how the chain stood there.
    pub(crate) fn rewind(&mut self, epoch: Epoch) -> Option<Arc<Mark>> {
        let is_it = |segment: &Segment| !self.has_state || segment.mark.epoch == epoch;
        let segment = self.segments.iter().position(is_it)?;
        self.replay = Some(Replay { segment, ..Replay::default() });
        self.quiet.fill(None);
        Some(Arc::clone(&self.segments[segment].mark))
    }

    /// What comes next; the chain is through with what came before.
    pub(crate) fn replay(&mut self) -> ReplayStep {
        let Some(replay) = &mut self.replay else { return ReplayStep::Done(Replayed::default()) };
        if replay.is_timed {
            (replay.entry, replay.is_in, replay.is_timed) = (replay.entry + 1, false, false);
        }
        self.batches.fill(0);
        match self.segments[replay.segment].entries.get(replay.entry) {
            Some(_) if replay.is_in => {
                replay.is_timed = true;
                ReplayStep::Watermarks(std::mem::take(&mut replay.left))
            }
            Some(entry) => {
                replay.is_in = true;
                replay.replayed.entries += 1;
                replay.replayed.rows += entry.rows();
                replay.left.clone_from(&entry.watermarks);
                ReplayStep::Input(entry.taken.iter().map(Taken::again).collect(), entry.cuts.clone())
            }
            None if replay.segment + 1 < self.segments.len() => {
                (replay.segment, replay.entry) = (replay.segment + 1, 0);
                ReplayStep::Barrier(self.segments[replay.segment].mark.epoch)
            }
            None => {
                let replayed = replay.replayed;
                self.replay = None;
                ReplayStep::Done(replayed)
            }
        }
    }

    /// Takes what had been in the chain when it failed, to let it in again.
    pub(crate) fn take_pending(&mut self) -> Vec<Taken> {
        self.pending.take().map(|entry| entry.taken).unwrap_or_default()
    }
}

impl Taken {
    /// The same once more; columns are shared.
    fn again(&self) -> Taken {
        match self {
            Taken::Event(event) => Taken::Event(event.clone_for_targets()),
            Taken::Rejected(batch) => Taken::Rejected(batch.clone()),
            Taken::Timer(stage) => Taken::Timer(*stage),
            Taken::Wake(stage) => Taken::Wake(*stage),
            Taken::Follow { stage, at, is_quiet } => Taken::Follow { stage: *stage, at: *at, is_quiet: *is_quiet },
        }
    }
}

impl Entry {
    fn barrier(&self) -> Option<Epoch> {
        self.taken.iter().find_map(|taken| match taken {
            Taken::Event(Event::Barrier(epoch)) => Some(*epoch),
            _ => None,
        })
    }

    /// How far the makers of watermarks came by it.
    fn made(&self) -> impl Iterator<Item = (usize, Watermark)> + '_ {
        let followed = self.taken.iter().filter_map(|taken| match taken {
            Taken::Follow { stage, at, .. } => Some((*stage, *at)),
            _ => None,
        });
        followed.chain(self.watermarks.iter().map(|made| (made.stage, made.at)))
    }

    fn batches(&self) -> impl Iterator<Item = &Batch> {
        self.taken.iter().filter_map(|taken| match taken {
            Taken::Event(Event::Batch(_, batch)) | Taken::Rejected(batch) => Some(batch),
            _ => None,
        })
    }

    /// Whether the chain stands otherwise after it, though its operators have no state.
    fn moves_marks(&self) -> bool {
        !self.watermarks.is_empty()
            || self.taken.iter().any(|taken| !matches!(taken, Taken::Event(Event::Batch(..)) | Taken::Rejected(_)))
    }

    fn rows(&self) -> u64 {
        self.batches().map(|batch| batch.rows() as u64).sum()
    }

    fn bytes(&self) -> usize {
        self.batches().map(bytes).sum::<usize>() + size_of::<Entry>()
    }
}

/// How much memory a batch keeps, as far as that is its own.
fn bytes(batch: &Batch) -> usize {
    let columns = batch.data().columns().iter().map(|column| shown_bytes(&**column));
    let times = [batch.times(), batch.behind()].into_iter().flatten().map(|times| size_of_val(&**times));
    columns.chain(times).sum()
}

#[cfg(test)]
mod tests;
