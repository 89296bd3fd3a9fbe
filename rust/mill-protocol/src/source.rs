//! Sources: where records come from, and how to go on from a position.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::util::display::array_value_to_string;
use mill_frame::SplitId;

use crate::error::{Rejected, Result};

/// Where a reader stands in its split, in a form of its own; what it means is the source's to say.
pub type Position = Vec<u8>;

/// What a source promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceProperties {
    /// Whether the input ends.
    pub is_bounded: bool,
    /// Whether a reader opened at a position gives the same records again: what exactly-once stands on.
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
}

impl Split {
    /// The split with this name.
    pub fn new(name: impl Into<String>) -> Split {
        let name = name.into();
        Split { id: SplitId::of(&name), name }
    }
}

/// What a reader gives.
#[derive(Debug)]
pub enum Read {
    /// Records.
    Batch(RecordBatch),
    /// Records that could not be read (malformed lines), and the good ones around them.
    Partial(RecordBatch, Vec<Rejected>),
    /// Nothing now; ask again after about this long.
    Pending(Duration),
    /// The split has ended.
    End,
}

/// A description of a source: cheap to clone and share, opened once a split when the job runs.
pub trait Source: Send + Sync + fmt::Debug {
    /// What it is, for messages and `explain()`: `read_csv("a.csv")`.
    fn name(&self) -> String;

    /// The columns it gives.
    fn schema(&self) -> SchemaRef;

    /// What it promises.
    fn properties(&self) -> SourceProperties;

    /// The splits there are now. The same input gives the same splits in every run, whatever the parallelism.
    ///
    /// `is_ordered`: something behind the source depends on the order of records, so what is one sequence must stay one
    /// split; otherwise a source may cut itself finer to be read in parallel.
    fn splits(&self, is_ordered: bool) -> Result<Vec<Split>>;

    /// Opens a split at its start, or behind the records that an earlier reader had given when it stood at `position`.
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

    /// How many rows it will give, where known: for progress bars.
    fn rows_hint(&self) -> Option<u64> {
        None
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
        let value = array_value_to_string(&self.value, 0).map_err(|_| fmt::Error)?;
        let quote = if self.value.data_type() == &DataType::Utf8 { "\"" } else { "" };
        write!(f, "{} {symbol} {quote}{value}{quote}", self.column)
    }
}

/// Reads one split.
pub trait SplitReader: Send {
    /// The next records, at most about `rows_max` of them.
    fn next(&mut self, rows_max: usize) -> Result<Read>;

    /// Where the reader stands: behind all records given so far.
    fn position(&self) -> Position;
}
