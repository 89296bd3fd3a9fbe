//! Sources: where records come from, and how to go on from a position.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
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

    /// How many rows it will give, where known: for progress bars.
    fn rows_hint(&self) -> Option<u64> {
        None
    }
}

/// Reads one split.
pub trait SplitReader: Send {
    /// The next records, at most about `rows_max` of them.
    fn next(&mut self, rows_max: usize) -> Result<Read>;

    /// Where the reader stands: behind all records given so far.
    fn position(&self) -> Position;
}
