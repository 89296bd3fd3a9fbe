//! The reading side of a task whose records come from a source: the splits it owns, and where each of them stands.
//!
//! Who owns a split depends on the split and the parallelism alone: by its place in the list for a source whose splits
//! are fixed, by its identity for one that discovers splits, so that a new one moves no other. A bounded source is read
//! split after split, where one that has nothing to give for a while (a rate) makes way for the next; an unbounded one, or
//! one that discovers splits, in turn over all that have something to give.
//!
//! Invariant: positions are asked for between two reads, when the chain is drained. So what was given is in front of
//! the barrier, and what was not is behind it.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use mill_protocol::{Batch, Clock, Error, Read, Rejected, Result, Source, Split, SplitId};

use crate::channel::WorkerRef;
use crate::positions::{self, Positions, SplitPosition};
use crate::reader::OpenSplit;

/// How often a source that discovers splits is asked for them, in microseconds.
const LISTING_INTERVAL_US: i64 = 500_000;

/// What reading gave.
#[derive(Debug)]
pub(crate) enum SourceRead {
    /// Records, and those that could not be read.
    Records(Batch, Vec<Rejected>),
    /// The set of unfinished splits has changed; to be told to the operators before anything else.
    Splits(Arc<[SplitId]>),
    /// A split that was asked for records has none for now; told once, until it has some again.
    Quiet(SplitId),
    /// Nothing before this time (microseconds), unless the worker is woken.
    Pending(i64),
    /// All splits have ended, and no new ones will turn up.
    End,
}

/// What a source task needs to know of itself.
pub(crate) struct SourceContext {
    pub(crate) source: Arc<dyn Source>,
    pub(crate) is_ordered: bool,
    pub(crate) index: usize,
    pub(crate) parallelism: usize,
    pub(crate) rows_max: usize,
    pub(crate) clock: Arc<dyn Clock>,
    /// The worker to wake, when splits are to be read on threads of their own.
    pub(crate) wake: Option<WorkerRef>,
}

/// The splits of one source task.
pub(crate) struct SourceTask {
    context: SourceContext,
    splits: Vec<OwnedSplit>,
    /// Positions from the checkpoint, of all instances.
    restored: Positions,
    /// The split to read next.
    turn: usize,
    /// The split that was read last.
    last: Option<usize>,
    is_in_turn: bool,
    has_news: bool,
    /// When to ask for new splits.
    list_at: Option<i64>,
}

struct OwnedSplit {
    split: Split,
    reader: Option<OpenSplit>,
    position: Option<Vec<u8>>,
    is_ended: bool,
    /// Not before this time.
    read_at: i64,
    /// Whether it had nothing when it was last asked.
    is_quiet: bool,
}

impl SourceTask {
    /// Takes the splits that this task owns of those there are, each behind its position in the checkpoint. All tasks are
    /// given one list, so that a file that turns up meanwhile is not read twice, or by nobody.
    ///
    /// # Errors
    /// When a split that the checkpoint has not finished is no longer there.
    pub(crate) fn new(context: SourceContext, listed: Vec<Split>, restored: Positions) -> Result<SourceTask> {
        let properties = context.source.properties();
        let list_at = properties.discovers_splits.then(|| context.clock.now());
        let mut task = SourceTask {
            is_in_turn: !properties.is_bounded || properties.discovers_splits,
            context,
            splits: Vec::new(),
            restored,
            turn: 0,
            last: None,
            has_news: true,
            list_at,
        };
        let there = task.take_listed(listed)?;
        let gone = task.restored.iter().find(|(id, split)| !split.is_ended && !there.contains_key(id));
        match gone {
            Some((_, split)) => Err(Error::checkpoint(format!(
                "the checkpoint stands in the middle of {:?}, which {} no longer has; put it back, or start without this \
                 checkpoint",
                split.name,
                task.context.source.name()
            ))),
            None => Ok(task),
        }
    }

    /// Reads from the split whose turn it is.
    pub(crate) fn read(&mut self) -> Result<SourceRead> {
        if let Some(at) = self.list_at {
            if self.context.clock.now() >= at {
                let listed = self.context.source.splits(self.context.is_ordered)?;
                self.take_listed(listed)?;
                self.list_at = Some(self.context.clock.now() + LISTING_INTERVAL_US);
            }
        }
        if std::mem::take(&mut self.has_news) {
            return Ok(SourceRead::Splits(self.open_splits()));
        }
        let mut wait_until = self.list_at.unwrap_or(i64::MAX);
        // Time is asked for only when some split is waiting: in a flowing stream it costs nothing.
        let mut now = None;
        for _ in 0..self.splits.len() {
            let index = self.turn;
            let owned = &mut self.splits[index];
            if owned.is_ended {
                self.turn = (index + 1) % self.splits.len();
                continue;
            }
            let is_waiting = owned.read_at > i64::MIN;
            if is_waiting && self.context.wake.is_none() {
                let now = *now.get_or_insert_with(|| self.context.clock.now());
                if owned.read_at > now {
                    wait_until = wait_until.min(owned.read_at);
                    self.turn = (index + 1) % self.splits.len();
                    continue;
                }
            }
            owned.read_at = i64::MIN;
            let read = owned.next(&self.context)?;
            self.last = Some(index);
            if self.is_in_turn || matches!(read, Read::End) {
                self.turn = (index + 1) % self.splits.len();
            }
            let owned = &mut self.splits[index];
            let split = owned.split.id;
            let was_quiet = std::mem::replace(&mut owned.is_quiet, matches!(read, Read::Pending(_)));
            match read {
                Read::Batch(data) => return Ok(SourceRead::Records(batch(data, split), Vec::new())),
                Read::Partial(data, rejected) => return Ok(SourceRead::Records(batch(data, split), rejected)),
                Read::Pending(pause) => {
                    let pause = i64::try_from(pause.as_micros()).unwrap_or(i64::MAX);
                    owned.read_at = self.context.clock.now().saturating_add(pause);
                    wait_until = wait_until.min(owned.read_at);
                    // One that is read ahead by a thread is waited for; the others are not opened before their turn.
                    let is_waited_for = !self.is_in_turn && self.context.wake.is_some();
                    if !is_waited_for {
                        self.turn = (index + 1) % self.splits.len();
                    }
                    if !was_quiet {
                        return Ok(SourceRead::Quiet(split));
                    }
                    if is_waited_for {
                        return Ok(SourceRead::Pending(wait_until));
                    }
                }
                Read::End => {
                    owned.end();
                    return Ok(SourceRead::Splits(self.open_splits()));
                }
            }
        }
        let is_end = self.list_at.is_none() && self.splits.iter().all(|owned| owned.is_ended);
        Ok(if is_end { SourceRead::End } else { SourceRead::Pending(wait_until) })
    }

    /// Where all splits of this task stand, those that have ended among them.
    pub(crate) fn positions(&self) -> Positions {
        self.splits.iter().map(|owned| (owned.split.id, owned.stand())).collect()
    }

    /// The split that was read last, and where it stands now.
    pub(crate) fn last_read(&self) -> Option<(SplitId, SplitPosition)> {
        let owned = self.splits.get(self.last?)?;
        Some((owned.split.id, owned.stand()))
    }

    /// [`positions`](SourceTask::positions) as bytes.
    pub(crate) fn snapshot(&self) -> Vec<u8> {
        positions::encode(&self.positions())
    }

    fn open_splits(&self) -> Arc<[SplitId]> {
        self.splits.iter().filter(|owned| !owned.is_ended).map(|owned| owned.split.id).collect()
    }

    /// Takes those splits that are new and owned; gives all there are.
    fn take_listed(&mut self, listed: Vec<Split>) -> Result<HashMap<SplitId, usize>> {
        let context = &self.context;
        let there: HashMap<SplitId, usize> = listed.iter().enumerate().map(|(place, split)| (split.id, place)).collect();
        if there.len() < listed.len() {
            return Err(Error::connector(format!("{} names a split twice", context.source.name())));
        }
        let by_identity = context.source.properties().discovers_splits;
        for (place, split) in listed.into_iter().enumerate() {
            let number = if by_identity { split.id.0 } else { place as u64 };
            let is_owned = number % context.parallelism as u64 == context.index as u64;
            if !is_owned || self.splits.iter().any(|owned| owned.split.id == split.id) {
                continue;
            }
            let restored = self.restored.get(&split.id);
            self.splits.push(OwnedSplit {
                position: restored.and_then(|split| split.position.clone()),
                is_ended: restored.is_some_and(|split| split.is_ended),
                split,
                reader: None,
                read_at: i64::MIN,
                is_quiet: false,
            });
            self.has_news = true;
        }
        Ok(there)
    }
}

impl OwnedSplit {
    fn next(&mut self, context: &SourceContext) -> Result<Read> {
        let reader = match &mut self.reader {
            Some(reader) => reader,
            closed => {
                let position = self.position.clone();
                let wake = context.wake.as_ref();
                closed.insert(OpenSplit::open(&context.source, &self.split, position, context.rows_max, wake)?)
            }
        };
        reader.next(context.rows_max)
    }

    fn stand(&self) -> SplitPosition {
        let position = self.reader.as_ref().map_or_else(|| self.position.clone(), OpenSplit::position);
        SplitPosition { name: self.split.name.clone(), position, is_ended: self.is_ended }
    }

    fn end(&mut self) {
        self.position = self.reader.take().and_then(|reader| reader.position());
        self.is_ended = true;
    }
}

fn batch(data: RecordBatch, split: SplitId) -> Batch {
    Batch::new(data).with_split(split)
}
