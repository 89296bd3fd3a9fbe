//! User code as the engine sees it: batches in, batches out.
//!
//! The engine knows nothing of Python or any other language a function is written in. A language binding implements these
//! traits for its functions; a function that works record by record loops inside its own [`BatchFunction::call`].

use std::fmt::Debug;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::datatypes::DataType;
use datafusion_common::ScalarValue;
use mill_protocol::{Progress, Rejected, Result};

/// On which rung of the ladder a user's function stands, fastest first; `explain()` shows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rung {
    /// Runs inside the engine.
    Native,
    /// Compiled machine code, called without the interpreter.
    Compiled,
    /// One call of the interpreter a batch.
    #[default]
    Batch,
    /// One call of the interpreter a record.
    Record,
}

impl Rung {
    /// The word `explain()` uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Rung::Native => "native",
            Rung::Compiled => "compiled",
            Rung::Batch => "batch",
            Rung::Record => "record",
        }
    }
}

/// A user's function of columns, usable inside expressions.
pub trait ColumnFunction: Send + Sync + Debug {
    /// What it is called in messages and default column names.
    fn name(&self) -> String;

    /// The type it returns for arguments of these types.
    ///
    /// # Errors
    /// When it does not take such arguments.
    fn return_type(&self, args: &[DataType]) -> Result<DataType>;

    /// Computes one value a row.
    ///
    /// # Errors
    /// When the user's code fails.
    fn call(&self, args: &[ArrayRef], rows: usize) -> Result<ArrayRef>;

    /// How it is run, for `explain()`.
    fn rung(&self) -> Rung {
        Rung::Batch
    }

    /// Whether it is one of the engine's own: it fails for no record, and its name says all that it does.
    fn is_builtin(&self) -> bool {
        false
    }
}

/// A user's function of whole records: `map`, `flat_map`, `filter`, `map_batches`, `inspect`.
pub trait BatchFunction: Send + Sync + Debug {
    /// What it is called in messages.
    fn name(&self) -> String;

    /// Turns a batch into another one.
    ///
    /// # Errors
    /// When the user's code fails as a whole; records that fail one by one are given as [`UserOutput::rejected`].
    fn call(&self, batch: &RecordBatch) -> Result<UserCall>;

    /// How many records a call gets at most, if the user has said so. Without that the engine chooses, by how long they
    /// take.
    fn batch_rows(&self) -> Option<usize> {
        None
    }

    /// How it is run, for `explain()`.
    fn rung(&self) -> Rung {
        Rung::Batch
    }
}

/// What a call of a [`BatchFunction`] returns.
pub enum UserCall {
    /// All results.
    Whole(UserOutput),
    /// The first results come with the first call of [`UserPieces::next`].
    Pieces(Box<dyn UserPieces>),
}

/// The results of one batch where there may be many more of them than records: they are made as they are asked for, so
/// that memory does not grow with their number.
pub trait UserPieces: Send {
    /// Makes the next results, a bounded number of them, and reports whether more follow.
    ///
    /// # Errors
    /// When the user's code fails as a whole.
    fn next(&mut self) -> Result<(UserOutput, Progress)>;
}

/// What a [`BatchFunction`] made of a batch, or of a part of it.
#[derive(Debug)]
pub struct UserOutput {
    /// The resulting records.
    pub data: RecordBatch,
    /// Which input each of them stems from.
    pub origin: Origin,
    /// Records that failed.
    pub rejected: Vec<Rejected>,
}

/// Which input row each output row stems from; what carries event time through a user's function.
#[derive(Clone, Debug)]
pub enum Origin {
    /// Row `i` stems from row `i`.
    Same,
    /// Row `i` stems from row `rows[i]`.
    Rows(UInt32Array),
    /// Nobody knows: the records have no event time any more.
    Unknown,
}

/// A user's fold over the records of one key.
pub trait ReduceFunction: Send + Sync + Debug {
    /// What it is called in messages.
    fn name(&self) -> String;

    /// Folds records of one key, in order, into what was folded before: one row, or nothing yet.
    ///
    /// # Errors
    /// When the user's code fails.
    fn reduce(&self, accumulator: Option<&RecordBatch>, rows: &RecordBatch) -> Result<RecordBatch>;

    /// How it is run, for `explain()`.
    fn rung(&self) -> Rung {
        Rung::Record
    }
}

/// A user's function of whole windows: `window(…).apply(…)`.
pub trait WindowFunction: Send + Sync + Debug {
    /// What it is called in messages.
    fn name(&self) -> String;

    /// The results of one window: any number of records.
    ///
    /// # Errors
    /// When the user's code fails.
    fn apply(&self, window: &WindowRecords<'_>) -> Result<RecordBatch>;

    /// How it is run, for `explain()`.
    fn rung(&self) -> Rung {
        Rung::Batch
    }
}

/// The records of a window, as a user's function gets them.
#[derive(Debug)]
pub struct WindowRecords<'a> {
    /// The key: one row, no columns if there is none.
    pub key: &'a RecordBatch,
    /// `window_start` and `window_end`, one row each, of windows that have bounds.
    pub bounds: Option<&'a [ArrayRef; 2]>,
    /// The records: by event time where windows are of event time, then by arrival.
    pub rows: RecordBatch,
}

/// A user's aggregate, whose state between calls is bytes that the engine keeps, checkpoints and merges.
pub trait AggregateFunction: Send + Sync + Debug {
    /// What it is called in messages and default column names.
    fn name(&self) -> String;

    /// The type of the result for input of this type.
    ///
    /// # Errors
    /// When it does not take such input.
    fn return_type(&self, input: &DataType) -> Result<DataType>;

    /// Takes values of one key into the state.
    ///
    /// # Errors
    /// When the user's code fails.
    fn update(&self, state: Option<&[u8]>, values: &ArrayRef) -> Result<Vec<u8>>;

    /// Unites two states of one key.
    ///
    /// # Errors
    /// When the user's code fails.
    fn merge(&self, a: &[u8], b: &[u8]) -> Result<Vec<u8>>;

    /// The result of a state.
    ///
    /// # Errors
    /// When the user's code fails.
    fn finish(&self, state: Option<&[u8]>) -> Result<ScalarValue>;
}

/// A user's way to make watermarks.
pub trait WatermarkFunction: Send + Sync + Debug {
    /// What it is called in messages.
    fn name(&self) -> String;

    /// The columns it looks at besides the event time; `None`: all.
    fn columns(&self) -> Option<&[String]>;

    /// How often [`WatermarkGenerator::on_periodic`] is to be called, in microseconds, if at all.
    fn period_us(&self) -> Option<i64>;

    /// The generator of one split; from the state it had at a checkpoint, if there was one.
    ///
    /// # Errors
    /// When the user's code fails, or the state is not one of this function.
    fn open(&self, state: Option<&[u8]>) -> Result<Box<dyn WatermarkGenerator>>;
}

/// What makes the watermarks of one split.
pub trait WatermarkGenerator: Send {
    /// Records have come, with these event times and columns.
    ///
    /// # Errors
    /// When the user's code fails.
    fn on_batch(&mut self, times: &ArrayRef, columns: &RecordBatch) -> Result<Watermarked>;

    /// The period has passed.
    ///
    /// # Errors
    /// When the user's code fails.
    fn on_periodic(&mut self) -> Result<Option<i64>>;

    /// What it needs to continue from here.
    ///
    /// # Errors
    /// When the user's code fails.
    fn state(&self) -> Result<Vec<u8>>;
}

/// The watermarks that a [`WatermarkGenerator`] makes of a batch. One that is less than another before it changes nothing.
#[derive(Clone, Debug)]
pub enum Watermarked {
    /// None.
    No,
    /// One after the last record, in microseconds.
    AfterAll(i64),
    /// One after each record, as times; null where there is none.
    AfterEach(ArrayRef),
}
