//! A user's asynchronous function, as the engine sees it: many records are in flight at a time, and results arrive in any
//! order.
//!
//! ```text
//!   AsyncFunction ──open──► AsyncTask, one for each parallel instance
//!   AsyncTask::start(tickets, records)          returns at once
//!             ::take() ──► AsyncAnswers         what has come since, in any order
//! ```
//!
//! Each record has a ticket. The engine keeps the records that wait, orders results, and stores what is in flight. So a
//! function knows neither order nor checkpoints.

use std::fmt::Debug;
use std::ops::Range;
use std::task::Waker;

use arrow::array::RecordBatch;
use mill_protocol::{Rejected, Result};

use crate::function::Rung;

/// A user's asynchronous function of records or batches: `map_async`, `map_batches_async`.
pub trait AsyncFunction: Send + Sync + Debug {
    /// What it is called in messages.
    fn name(&self) -> String;

    /// Makes what one parallel instance calls. It wakes the waker after it has published answers.
    ///
    /// # Errors
    /// When the user's code fails.
    fn open(&self, waker: Waker) -> Result<Box<dyn AsyncTask>>;

    /// How it is run, for `explain()`.
    fn rung(&self) -> Rung {
        Rung::Record
    }
}

/// An asynchronous function at work in one parallel instance. What it has been given and not answered is given up when it is
/// dropped.
pub trait AsyncTask: Send {
    /// Starts on these records, whose tickets are `first` and those that follow. Does not wait for anything.
    ///
    /// # Errors
    /// When the function cannot be called at all; what fails for a record is an answer.
    fn start(&mut self, first: u64, records: &RecordBatch) -> Result<()>;

    /// Takes the answers that have come since they were last taken.
    ///
    /// # Errors
    /// When the function is not to be called again, such as after an interrupt.
    fn take(&mut self) -> Result<AsyncAnswers>;
}

/// What has come of calls, in any order.
#[derive(Debug, Default)]
pub struct AsyncAnswers {
    /// Resulting records with the ticket of the record that each stems from. Those of one ticket follow each other.
    pub results: Vec<(RecordBatch, Vec<u64>)>,
    /// Records that failed, by their tickets, with the reason but without the record.
    pub failed: Vec<(Range<u64>, Rejected)>,
    /// The tickets that are answered: those of results and failures, and those that have neither.
    pub answered: Vec<Range<u64>>,
    /// How many calls have ended.
    pub calls: usize,
}

/// How an asynchronous function is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AsyncCalls {
    /// How many calls a task has in flight at most.
    pub capacity: usize,
    /// How many records a call takes at most. `None`: one, and calls for many of them are started together.
    pub batch_rows: Option<usize>,
    /// Whether results come in the order of the records.
    pub is_ordered: bool,
    /// Whether it adds to each record what a look-up has found.
    pub is_lookup: bool,
}

impl AsyncCalls {
    /// The method's name.
    pub fn label(&self) -> &'static str {
        match (self.is_lookup, self.batch_rows) {
            (true, _) => "enrich",
            (false, Some(_)) => "map_batches_async",
            (false, None) => "map_async",
        }
    }
}
