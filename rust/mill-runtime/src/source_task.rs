//! The reading side of a task whose records come from a source: the splits it owns, and where each of them stands.
//!
//! Who owns a split depends on the split and the parallelism alone: by its place in the list for a source whose splits are
//! fixed, by its identity for one that discovers splits, so that a new one moves no other. A bounded source is read split
//! after split, where one that has no records for a while (a rate) makes way for the next; an unbounded one, one that
//! discovers splits, or one that asks for it, in turn over all splits that have records.
//!
//! ```text
//!   ready    splits to be asked, the first one next          ◄── due, or found to have more
//!   waiting  splits that had nothing, by when to ask again   ──► ready
//!   new      splits that have turned up, until every task has told its operators of its own   ──► ready
//! ```
//!
//! There may be a million splits, so no step walks over all of them: not a read, and not the end of a split. That a split has
//! ended is therefore reported together with others, as soon as they are an eighth of those that are left; until then it only
//! holds the watermark back.
//!
//! Invariant: positions are asked for between two reads, when the chain is drained. So records that were returned are
//! before the barrier, and all others are after it.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use mill_protocol::{Batch, Clock, Mark, Read, Rejected, Result, Source, Split, SplitId, SplitState, Truncation, Watermark};

use crate::channel::WorkerRef;
use crate::discovered::{Discovered, owner};
use crate::positions::Encoded;
use crate::reader::{Closing, OpenSplit, ReadRows};
use crate::threads::Owner;

/// Of the splits that are left, one in so many must have ended before that is reported.
const REPORTED_SHARE: usize = 8;
/// How soon it is looked again whether new splits may be read, in microseconds.
const NEW_PAUSE_US: i64 = 1_000;
/// So many ends in a row are reported in any case, so that one read does not take long.
const ENDS_MAX: usize = 64;

/// The result of reading.
#[derive(Debug)]
pub(crate) enum SourceRead {
    /// Records, and those that could not be read.
    Records(Batch, Vec<Rejected>),
    /// The set of unfinished splits has changed; to be told to the operators before anything else.
    Splits(Arc<[SplitId]>),
    /// A split that was asked for records has none for now; told once, until it has some again.
    Quiet(SplitId),
    /// What the reader of a split has told of its time.
    Mark(SplitId, Mark),
    /// The input of a split was truncated.
    Truncated(Truncation),
    /// Nothing before this time (microseconds), unless the worker is woken.
    Pending(i64),
    /// All splits have ended, and no new ones will turn up.
    End,
}

/// What a source task needs to know of itself.
pub(crate) struct SourceContext {
    pub(crate) source: Arc<dyn Source>,
    pub(crate) index: usize,
    pub(crate) parallelism: usize,
    pub(crate) rows: Arc<ReadRows>,
    pub(crate) clock: Arc<dyn Clock>,
    /// Whether the clock stands still while the job runs: a split that has nothing is then asked again at each step.
    pub(crate) is_time_held: bool,
    /// The worker to wake, when splits are to be read on threads of their own.
    pub(crate) wake: Option<WorkerRef>,
    /// What finds splits that turn up later, for a source that discovers them.
    pub(crate) discovered: Option<Arc<Discovered>>,
    /// Whose such threads are.
    pub(crate) owner: Owner,
    /// Whether its splits keep together; then they are read in turn.
    pub(crate) is_aligned: bool,
}

/// How far each split has come, and may have come to be read.
pub(crate) struct Pace<'a> {
    pub(crate) limit: Option<Watermark>,
    pub(crate) time_of: &'a dyn Fn(SplitId) -> Option<Watermark>,
}

/// The splits of one source task.
pub(crate) struct SourceTask {
    context: SourceContext,
    splits: Vec<OwnedSplit>,
    places: HashMap<SplitId, usize>,
    /// The splits to be asked next, by their places.
    ready: VecDeque<usize>,
    /// Those that had nothing, by when to ask them again; an entry counts while the split waits for just that time.
    waiting: BinaryHeap<Reverse<(i64, usize)>>,
    /// Those that are too far ahead of others, by how far they have come.
    paused: BinaryHeap<Reverse<(Watermark, usize)>>,
    /// Those that have turned up and are not read yet.
    new: Vec<usize>,
    /// How many have not ended, and how many have since the operators were told last.
    open: usize,
    unreported: usize,
    /// The split that was read last.
    last: Option<usize>,
    is_in_turn: bool,
    has_news: bool,
    /// When to ask for new splits.
    look_at: Option<i64>,
    /// What checkpoints say of the splits that have ended; `None` when it is to be put together again.
    ended: Option<Encoded>,
    /// The readers of splits that have ended, which are closing.
    closing: Vec<Closing>,
}

struct OwnedSplit {
    split: Split,
    reader: Option<OpenSplit>,
    position: Option<Vec<u8>>,
    turn: Turn,
    /// Whether it had nothing when it was last asked.
    is_quiet: bool,
}

/// Whether a split is to be asked for records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Ready,
    /// Not before this time.
    Waiting(i64),
    /// Not before the slowest has come closer.
    Paused,
    /// Not before all tasks know of what has turned up.
    New,
    Ended,
}

impl SourceTask {
    /// Takes the splits that this task owns of those the job begins with. All tasks get one list, so that a file that
    /// turns up meanwhile is not read twice, or by nobody.
    pub(crate) fn new(context: SourceContext, begun_with: &[SplitState]) -> SourceTask {
        let properties = context.source.properties();
        let mut task = SourceTask {
            is_in_turn: !properties.is_bounded
                || properties.discovers_splits
                || context.is_aligned
                || context.source.is_read_in_turn(),
            look_at: context.discovered.is_some().then(|| context.clock.now()),
            splits: Vec::new(),
            places: HashMap::new(),
            ready: VecDeque::new(),
            waiting: BinaryHeap::new(),
            paused: BinaryHeap::new(),
            new: Vec::new(),
            open: 0,
            unreported: 0,
            last: None,
            has_news: true,
            ended: None,
            closing: Vec::new(),
            context,
        };
        for (place, state) in begun_with.iter().enumerate() {
            let is_owned = match task.context.discovered {
                Some(_) => task.owns(state.split.id),
                None => place % task.context.parallelism == task.context.index,
            };
            if is_owned {
                task.add(state.clone());
            }
        }
        task
    }

    fn owns(&self, split: SplitId) -> bool {
        owner(split, self.context.parallelism) == self.context.index
    }

    fn add(&mut self, state: SplitState) {
        let index = self.splits.len();
        self.places.insert(state.split.id, index);
        if !state.is_ended {
            self.ready.push_back(index);
            self.open += 1;
        }
        self.splits.push(OwnedSplit {
            split: state.split,
            reader: None,
            position: state.position,
            turn: if state.is_ended { Turn::Ended } else { Turn::Ready },
            is_quiet: false,
        });
    }

    /// Reads from the split whose turn it is, where splits keep together from one that is not too far ahead.
    pub(crate) fn read(&mut self, pace: Option<Pace<'_>>) -> Result<SourceRead> {
        if self.look_at.is_some_and(|at| self.context.clock.now() >= at) {
            self.look()?;
        }
        if std::mem::take(&mut self.has_news) {
            return Ok(SourceRead::Splits(self.open_splits()));
        }
        let is_waiting_for_others = !self.begin_new();
        self.wake_due();
        self.go_on(pace.as_ref().and_then(|pace| pace.limit));
        let mut ends = 0;
        for _ in 0..self.ready.len() {
            let Some(index) = self.ready.pop_front() else { break };
            let owned = &mut self.splits[index];
            if let Some(Pace { limit: Some(limit), time_of }) = &pace
                && let Some(at) = time_of(owned.split.id).filter(|at| at > limit)
            {
                owned.turn = Turn::Paused;
                self.paused.push(Reverse((at, index)));
                continue;
            }
            let read = owned.next(&self.context)?;
            self.last = Some(index);
            let split = owned.split.id;
            let was_quiet = std::mem::replace(&mut owned.is_quiet, matches!(read, Read::Pending(_)));
            match read {
                Read::Batch(data) => {
                    self.again(index);
                    return Ok(SourceRead::Records(batch(data, split), Vec::new()));
                }
                Read::Partial(data, rejected) => {
                    self.again(index);
                    return Ok(SourceRead::Records(batch(data, split), rejected));
                }
                Read::Truncated(truncation) => {
                    self.again(index);
                    return Ok(SourceRead::Truncated(truncation));
                }
                Read::Mark(mark) => {
                    self.again(index);
                    return Ok(SourceRead::Mark(split, mark));
                }
                Read::Pending(pause) => {
                    let pause = i64::try_from(pause.as_micros()).unwrap_or(i64::MAX);
                    let at = self.context.clock.now().saturating_add(pause);
                    // One that is read ahead by a thread is waited for; the others are not opened before their turn.
                    let is_waited_for = !self.is_in_turn && self.context.wake.is_some();
                    if is_waited_for {
                        self.ready.push_front(index);
                    } else {
                        owned.turn = Turn::Waiting(at);
                        self.waiting.push(Reverse((at, index)));
                    }
                    if !was_quiet {
                        return Ok(SourceRead::Quiet(split));
                    }
                    if is_waited_for {
                        return Ok(SourceRead::Pending(at.min(self.look_at.unwrap_or(i64::MAX))));
                    }
                }
                Read::End => {
                    self.end(index);
                    ends += 1;
                    if self.unreported * REPORTED_SHARE >= self.open || ends >= ENDS_MAX {
                        return Ok(SourceRead::Splits(self.open_splits()));
                    }
                }
            }
        }
        if self.unreported > 0 {
            return Ok(SourceRead::Splits(self.open_splits()));
        }
        if self.open == 0 && self.look_at.is_none() {
            return Ok(SourceRead::End);
        }
        let mut due = self.waiting.peek().map_or(i64::MAX, |Reverse((at, _))| *at);
        if is_waiting_for_others {
            due = due.min(self.context.clock.now().saturating_add(NEW_PAUSE_US));
        }
        Ok(SourceRead::Pending(due.min(self.look_at.unwrap_or(i64::MAX))))
    }

    /// Lets those be read that have turned up, once all tasks have told their operators of theirs. The operators of this one
    /// have been told: the chain is drained between two reads. Returns whether none is left.
    fn begin_new(&mut self) -> bool {
        let Some(discovered) = self.context.discovered.as_ref().filter(|_| !self.new.is_empty()) else { return true };
        if !discovered.announce(self.context.index, self.context.clock.now()) {
            return false;
        }
        for index in std::mem::take(&mut self.new) {
            self.splits[index].turn = Turn::Ready;
            self.ready.push_back(index);
        }
        true
    }

    /// When new splits are looked for.
    pub(crate) fn look_time(&self) -> Option<i64> {
        self.look_at
    }

    /// The name of a split that this task owns.
    pub(crate) fn split_name(&self, split: SplitId) -> Option<&str> {
        self.places.get(&split).map(|&place| self.splits[place].split.name.as_str())
    }

    /// The split that was read last, and its position now.
    pub(crate) fn last_read(&self) -> Option<SplitState> {
        let owned = self.splits.get(self.last?)?;
        let is_ended = owned.turn == Turn::Ended;
        Some(SplitState { split: owned.split.clone(), position: owned.position(), is_ended })
    }

    /// Where all splits of this task stand, those that have ended among them, as a checkpoint stores it.
    pub(crate) fn snapshot(&mut self) -> Vec<u8> {
        let ended = self.ended.get_or_insert_with(|| {
            let mut ended = Encoded::default();
            for owned in self.splits.iter().filter(|owned| owned.turn == Turn::Ended) {
                ended.add(&owned.split, owned.position.as_deref(), true);
            }
            ended
        });
        let mut all = ended.clone();
        for owned in self.splits.iter().filter(|owned| owned.turn != Turn::Ended) {
            all.add(&owned.split, owned.position().as_deref(), false);
        }
        all.finish()
    }

    /// Lets go of all readers; returns those that threads have to close. Nothing is read any more.
    pub(crate) fn take_readers(&mut self) -> Vec<Closing> {
        let open = self.splits.iter_mut().filter_map(|owned| owned.reader.take());
        self.closing.extend(open.filter_map(OpenSplit::close));
        std::mem::take(&mut self.closing)
    }

    fn open_splits(&mut self) -> Arc<[SplitId]> {
        self.unreported = 0;
        self.splits.iter().filter(|owned| owned.turn != Turn::Ended).map(|owned| owned.split.id).collect()
    }

    /// Takes what has turned up.
    fn look(&mut self) -> Result<()> {
        let Some(discovered) = self.context.discovered.clone() else { return Ok(()) };
        let (found, look_at) = discovered.take(self.context.index, self.context.clock.now())?;
        self.look_at = Some(look_at);
        for split in found {
            let Some(&index) = self.places.get(&split.id) else {
                let index = self.splits.len();
                self.add(SplitState::unread(split));
                // It was the last to be added to those that are read, and is not read yet.
                self.ready.pop_back();
                self.begin_later(index);
                continue;
            };
            match self.splits[index].turn {
                Turn::Ready | Turn::New | Turn::Paused => {}
                Turn::Waiting(_) => {
                    self.splits[index].turn = Turn::Ready;
                    self.ready.push_back(index);
                }
                Turn::Ended => {
                    self.open += 1;
                    self.ended = None;
                    self.begin_later(index);
                }
            }
        }
        // What was found may be in splits that are read already; then there is nothing to tell.
        if self.new.is_empty() {
            discovered.announce(self.context.index, self.context.clock.now());
        }
        Ok(())
    }

    /// A split that has turned up, or has turned out not to have ended.
    fn begin_later(&mut self, index: usize) {
        self.splits[index].turn = Turn::New;
        self.new.push(index);
        self.has_news = true;
    }

    /// Lets those splits be asked whose time has come; those that threads read, always.
    fn wake_due(&mut self) {
        // Time is asked for only when some split is waiting: in a flowing stream it costs nothing.
        let now = match self.context.wake {
            _ if self.waiting.is_empty() => return,
            None if !self.context.is_time_held => self.context.clock.now(),
            _ => i64::MAX,
        };
        while let Some(&Reverse((at, index))) = self.waiting.peek() {
            if at > now {
                break;
            }
            self.waiting.pop();
            if self.splits[index].turn == Turn::Waiting(at) {
                self.splits[index].turn = Turn::Ready;
                self.ready.push_back(index);
            }
        }
    }

    /// Lets those splits be read that are not too far ahead any more.
    fn go_on(&mut self, limit: Option<Watermark>) {
        while let Some(&Reverse((at, index))) = self.paused.peek() {
            if limit.is_some_and(|limit| at > limit) {
                break;
            }
            self.paused.pop();
            self.splits[index].turn = Turn::Ready;
            self.ready.push_back(index);
        }
    }

    /// From now on so many rows are read at once.
    pub(crate) fn set_rows(&self, rows: usize) {
        self.context.rows.set(rows);
    }

    /// How many splits pause, and the one of them that is the least ahead, with how far it has come.
    pub(crate) fn paused(&self) -> Option<(usize, SplitId, Watermark)> {
        let &Reverse((at, index)) = self.paused.peek()?;
        Some((self.paused.len(), self.splits[index].split.id, at))
    }

    /// The operators were rebuilt: they are told once more which splits are open, and which have nothing for now.
    pub(crate) fn tell_again(&mut self) {
        self.has_news = true;
        self.splits.iter_mut().for_each(|owned| owned.is_quiet = false);
    }

    /// Whether the operators know which splits are open.
    pub(crate) fn is_told(&self) -> bool {
        !self.has_news
    }

    /// The split may have more to give at once.
    fn again(&mut self, index: usize) {
        if self.is_in_turn {
            self.ready.push_back(index);
        } else {
            self.ready.push_front(index);
        }
    }

    fn end(&mut self, index: usize) {
        let owned = &mut self.splits[index];
        self.closing.retain_mut(|reader| !reader.closes_until(Instant::now()));
        if let Some(reader) = owned.reader.take() {
            owned.position = reader.position();
            self.closing.extend(reader.close());
        } else {
            owned.position = None;
        }
        owned.turn = Turn::Ended;
        if let Some(ended) = &mut self.ended {
            ended.add(&owned.split, owned.position.as_deref(), true);
        }
        self.open -= 1;
        self.unreported += 1;
    }
}

impl OwnedSplit {
    fn next(&mut self, context: &SourceContext) -> Result<Read> {
        let reader = match &mut self.reader {
            Some(reader) => reader,
            closed => {
                let position = self.position.clone();
                let wake = context.wake.as_ref().map(|wake| (wake, context.owner));
                closed.insert(OpenSplit::open(&context.source, &self.split, position, &context.rows, wake)?)
            }
        };
        reader.next(&context.rows)
    }

    fn position(&self) -> Option<Vec<u8>> {
        self.reader.as_ref().map_or_else(|| self.position.clone(), OpenSplit::position)
    }
}

fn batch(data: RecordBatch, split: SplitId) -> Batch {
    Batch::new(data).with_split(split)
}
