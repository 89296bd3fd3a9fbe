//! Sources: where records come from, and how to continue from a position.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use mill_frame::SplitId;
use mill_frame::convert::show;

use crate::error::{Error, Rejected, Result};
use crate::operator::Watermark;
use crate::snapshot::Epoch;

/// Where a reader stands in its split, in a form of its own; what it means is the source's to say.
pub type Position = Vec<u8>;

/// What a source promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceProperties {
    /// Whether the input ends.
    pub is_bounded: bool,
    /// Whether a reader opened at a position returns the same records again: what exactly-once stands on.
    pub is_replayable: bool,
    /// Whether new splits may turn up while the job runs; the runtime then asks for them again now and then.
    pub discovers_splits: bool,
    /// Whether reading may block (a network, a Python iterator), so that it needs a thread of its own.
    pub may_block: bool,
}

/// One independently ordered part of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// Its identity, stable across runs and independent of the parallelism.
    pub id: SplitId,
    /// Its name, for messages: a path, a topic and partition.
    pub name: String,
    /// What the source needs to open it, in a form of its own; a checkpoint keeps it. The name is never parsed.
    pub detail: Vec<u8>,
}

impl Split {
    /// The split with this name.
    pub fn new(name: impl Into<String>) -> Split {
        let name = name.into();
        Split { id: SplitId::of(&name), name, detail: Vec::new() }
    }

    /// The split with this identity and name, opened by what `detail` says.
    pub fn with_detail(id: SplitId, name: impl Into<String>, detail: Vec<u8>) -> Split {
        Split { id, name: name.into(), detail }
    }
}

/// A split, and how far it has been read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitState {
    /// The split.
    pub split: Split,
    /// Where its reader is; `None` at the start.
    pub position: Option<Position>,
    /// Whether it has been read to its end.
    pub is_ended: bool,
}

impl SplitState {
    /// A split of which nothing has been read.
    pub fn unread(split: Split) -> SplitState {
        SplitState { split, position: None, is_ended: false }
    }
}

/// Looks for new splits while a job runs; one a source and run, shared by the tasks of the source.
pub trait Discovery: Send {
    /// The splits that are new since the last call, and those known ones that may have more to give: one of these that had
    /// ended is opened again at its position.
    fn look(&mut self) -> Result<Vec<Split>>;
}

/// Is told how far a source has been read, for others who want to know: no recovery asks it. One a source and run.
pub trait PositionListener: Send {
    /// A checkpoint is complete and its output visible; the splits of the source are in it as they were read by then. Whoever
    /// calls waits meanwhile: what takes time is done elsewhere, and what fails is no failure of the job.
    fn completed(&mut self, epoch: Epoch, read: Vec<SplitState>);
}

/// What a reader returns.
#[derive(Debug)]
pub enum Read {
    /// Records.
    Batch(RecordBatch),
    /// Records that could not be read (malformed lines), and the good ones around them.
    Partial(RecordBatch, Vec<Rejected>),
    /// A word about event time, in its place among the records.
    Mark(Mark),
    /// The input of the split was truncated while it was read; what follows comes from its new content.
    Truncated(Truncation),
    /// Nothing now; ask again after about this long.
    Pending(Duration),
    /// The split has ended.
    End,
}

/// What became of an input that was truncated: a log that is rotated by copy and truncate, for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Truncation {
    /// How many bytes were seen, had not been read, and cannot be read any more.
    pub bytes_lost: u64,
    /// A sentence for the user.
    pub note: String,
}

/// What a reader knows of the time of its split beside the records. It reaches the steps of the source's own chain: after an
/// exchange nobody knows splits any more.
///
/// A position counts the marks before it as returned. What a watermark has led to is in the checkpoint; a reader that is
/// opened right after it had been idle has to tell that again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// No record of the split that is older than this follows, but late ones.
    Watermark(Watermark),
    /// The split has nothing for now, and nobody need wait for it until it has something again.
    Idle,
}

/// What the records of a source are, if they are changes of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceChanges {
    /// The columns of the key, of which the latest row counts.
    pub key: Vec<String>,
    /// The column of text that says what becomes of the key: `insert`, `update` or `delete`. It is no column of the stream.
    pub op: String,
}

/// A description of a source: cheap to clone and share, opened once a split when the job runs.
pub trait Source: Send + Sync + fmt::Debug {
    /// What it is, for messages and `explain()`: `read_csv("a.csv")`.
    fn name(&self) -> String;

    /// What tells it from every source that reads something else: the same text in every run, however the user spelt it.
    /// `None`: nothing does, so two sources of one name may differ.
    fn identity(&self) -> Option<String> {
        None
    }

    /// The same, where it must not take long: what two sources that read something else nearly always differ in.
    fn quick_identity(&self) -> Option<String> {
        self.identity()
    }

    /// Whether its readers may say that a split is idle ([`Mark::Idle`]).
    fn marks_idle(&self) -> bool {
        false
    }

    /// The columns it returns.
    fn schema(&self) -> SchemaRef;

    /// That its records are changes of keys, and how: the stream of such a source is an updating one. The changes of a key have to
    /// come from one split. `None`: every record stands for itself.
    fn changes(&self) -> Option<SourceChanges> {
        None
    }

    /// What it promises.
    fn properties(&self) -> SourceProperties;

    /// The splits there are now. The same input has the same splits in every run, whatever the parallelism.
    ///
    /// `is_ordered`: something downstream of the source depends on the order of records, so what is one sequence must stay one
    /// split; otherwise a source may cut itself finer to be read in parallel.
    fn splits(&self, is_ordered: bool) -> Result<Vec<Split>>;

    /// Whether a job that starts again from nothing begins with the same records, unless they are gone. Where it does not (it reads
    /// what comes from now on), nothing is read before a checkpoint holds where it has begun.
    fn begins_alike(&self) -> bool {
        true
    }

    /// The splits of a job that continues from a checkpoint, in the order in which they are to be read: those of the
    /// checkpoint, as the input is now, and new ones.
    ///
    /// # Errors
    /// When what the checkpoint has not finished is no longer there, or what it has read is no longer what it was.
    fn resume(&self, is_ordered: bool, left: Vec<SplitState>) -> Result<Vec<SplitState>> {
        go_on(&self.name(), self.splits(is_ordered)?, left)
    }

    /// What looks for new splits while the job runs, beside those it begins with. `None`: the runtime compares
    /// [`splits`](Source::splits) with them now and then.
    fn discovery(&self, begun_with: &[SplitState]) -> Result<Option<Box<dyn Discovery>>> {
        let _ = begun_with;
        Ok(None)
    }

    /// The same source with what belongs to one run alone, if its listener and its readers share such. Asked once a run, before
    /// anything else of it.
    ///
    /// # Errors
    /// When it cannot be made.
    fn of_run(&self) -> Result<Option<Arc<dyn Source>>> {
        Ok(None)
    }

    /// What is told of the checkpoints of a run. `None`: nobody wants to know.
    fn position_listener(&self) -> Result<Option<Box<dyn PositionListener>>> {
        Ok(None)
    }

    /// Whether it reads the file at this path, or would if there were one: a job must not read what it writes.
    fn reads(&self, path: &Path) -> bool {
        let _ = path;
        false
    }

    /// Opens a split at its start, or after the records that an earlier reader had returned when it stood at `position`.
    fn open(&self, split: &Split, position: Option<&[u8]>) -> Result<Box<dyn SplitReader>>;

    /// The same source giving only these of its columns, in this order, if it can do with less work that way.
    fn project(&self, columns: &[usize]) -> Option<Arc<dyn Source>> {
        let _ = columns;
        None
    }

    /// The same source free to leave out records that do not meet all of these conditions, if it can do with less work that
    /// way; the caller still looks at what it is given. A position means the same as without conditions: a job that is
    /// resumed may have others.
    fn filter(&self, conditions: &[Condition]) -> Option<Arc<dyn Source>> {
        let _ = conditions;
        None
    }

    /// Whether one task reads it all, as fast as memory gives it, once it has to be read in order: then what follows is
    /// better spread over all tasks than left to that one.
    fn is_single_when_ordered(&self) -> bool {
        false
    }

    /// Whether its splits cover the same time side by side, so that a task reads its splits in turn. The splits of a bounded
    /// source are otherwise read one after another, and windows stay open until the last one is read.
    fn is_read_in_turn(&self) -> bool {
        false
    }

    /// How many rows it will give, where known: for progress bars.
    fn rows_hint(&self) -> Option<u64> {
        None
    }
}

/// Where the splits that a source has now were left, and those that are new, unread.
///
/// # Errors
/// When a split that a checkpoint has not finished is none of them.
pub fn go_on(source: &str, splits: Vec<Split>, left: Vec<SplitState>) -> Result<Vec<SplitState>> {
    let mut left: HashMap<SplitId, SplitState> = left.into_iter().map(|state| (state.split.id, state)).collect();
    let mut states = Vec::with_capacity(splits.len());
    for split in splits {
        let known = left.remove(&split.id);
        states.push(match known {
            Some(state) => SplitState { split, ..state },
            None => SplitState::unread(split),
        });
    }
    match left.into_values().find(|state| !state.is_ended) {
        Some(state) => Err(Error::checkpoint(format!(
            "the checkpoint is in the middle of {:?}, which {source} no longer has; put it back, or start with another \
             checkpoint directory",
            state.split.name
        ))),
        None => Ok(states),
    }
}

/// How a column is compared with a constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// Equal.
    Eq,
    /// Less.
    Lt,
    /// Less or equal.
    LtEq,
    /// Greater.
    Gt,
    /// Greater or equal.
    GtEq,
}

/// What holds for all records that are wanted of a source: `column` compares with `value` so. Null meets no condition. NaN
/// equals itself and is greater than all other numbers; -0.0 equals 0.0.
#[derive(Clone, Debug)]
pub struct Condition {
    /// The column's name.
    pub column: String,
    /// How it compares.
    pub comparison: Comparison,
    /// With what: one value of the column's type, neither null nor NaN.
    pub value: ArrayRef,
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let symbol = match self.comparison {
            Comparison::Eq => "==",
            Comparison::Lt => "<",
            Comparison::LtEq => "<=",
            Comparison::Gt => ">",
            Comparison::GtEq => ">=",
        };
        write!(f, "{} {symbol} {}", self.column, show(&self.value, 0))
    }
}

/// Reads one split.
pub trait SplitReader: Send {
    /// The next records, at most about `rows_max` of them.
    fn next(&mut self, rows_max: usize) -> Result<Read>;

    /// How many rows [`next`](SplitReader::next) will be asked for at most. How many it is asked for changes from call to
    /// call: a reader that decodes its input in blocks chooses their size by this number. Called once, before the first
    /// read.
    fn set_rows_most(&mut self, rows: usize) {
        let _ = rows;
    }

    /// The position of the reader: after all records returned so far.
    fn position(&self) -> Position;
}
