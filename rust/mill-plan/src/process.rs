//! A user's function of the records and timers of each key, with typed state, as the engine sees it.
//!
//! The engine keeps the states of each key as columns and passes a call those of the keys that it is about: a row a key,
//! null where nothing is set. The function returns the rows that it has changed. So a function knows no table, a call that
//! fails has changed nothing, and state is readable without the function.
//!
//! ```text
//!   ProcessFunction ──open──► ProcessTask, one for each parallel instance
//!   ProcessCall { events, keys, states } ──call──► ProcessOutput { rows, changed states, changes of timers }
//! ```

use std::fmt::Debug;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::FieldRef;
use mill_protocol::{Error, Result};

use crate::function::Rung;

/// What a timer goes by, and the age of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TimerClock {
    /// The time of records: watermarks.
    Event,
    /// The clock of the machine.
    Processing,
}

impl TimerClock {
    /// The word for it in plans and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            TimerClock::Event => "event",
            TimerClock::Processing => "processing",
        }
    }
}

/// What a process function keeps of each key under one name.
#[derive(Clone, Debug)]
pub struct StateSpec {
    /// Its name.
    pub name: String,
    /// What it is, for people: `value`, `list`, `map`, `reducing`.
    pub kind: String,
    /// Its columns, of which the first has its name. All are null where nothing is set.
    pub columns: Vec<FieldRef>,
    /// What is read where nothing is set, for people; nothing if that is none.
    pub default: Option<String>,
    /// For how long what is written may be read.
    pub ttl: Option<Ttl>,
    /// What becomes of values that a checkpoint has as another type.
    pub migration: Migration,
}

/// What a function does with values of a state that a checkpoint has as another type. A wider type needs none of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Migration {
    /// Nothing: fields that a struct has more are null.
    #[default]
    None,
    /// It fills in the fields that a struct has more; other changes are refused.
    Fields,
    /// It makes a new value of any old one.
    Any,
}

/// For how long a value may be read after it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ttl {
    /// From this age on it is never returned. Microseconds.
    pub us: i64,
    /// The clock that ages go by.
    pub clock: TimerClock,
    /// Which of the state's columns says when it was written: microseconds, or a list of them, one an entry.
    pub written: usize,
}

/// A user's function of records and timers: `key_by(…).process(…)`.
pub trait ProcessFunction: Send + Sync + Debug {
    /// What it is called in messages.
    fn name(&self) -> String;

    /// Makes what one parallel instance calls.
    ///
    /// # Errors
    /// When the user's code fails.
    fn open(&self) -> Result<Box<dyn ProcessTask>>;

    /// Whether it wants to be called for each key when the input has ended.
    fn has_end(&self) -> bool {
        false
    }

    /// How it is run, for `explain()`.
    fn rung(&self) -> Rung {
        Rung::Record
    }
}

/// A process function at work in one parallel instance.
pub trait ProcessTask: Send {
    /// Processes events, in their order.
    ///
    /// # Errors
    /// When it fails on one of them. Then nothing of the call counts; it is called again with fewer events.
    fn call(&mut self, call: &ProcessCall<'_>) -> std::result::Result<ProcessOutput, ProcessFailure>;

    /// Makes values of a state of those that a checkpoint has in a column of another type, `former`: a row a key.
    ///
    /// # Errors
    /// When the user's code fails, or what it returns is not of the state's type.
    fn migrate(&mut self, state: &StateSpec, former: &FieldRef, values: &ArrayRef) -> Result<ArrayRef> {
        let (from, to) = (former.data_type(), values.data_type());
        Err(Error::internal(format!("state {:?} cannot be migrated from {from} to {to}", state.name)))
    }
}

/// A call that failed.
#[derive(Debug)]
pub struct ProcessFailure {
    /// What went wrong.
    pub error: Error,
    /// The first event that failed, if it is known.
    pub at: Option<usize>,
}

impl From<Error> for ProcessFailure {
    fn from(error: Error) -> ProcessFailure {
        ProcessFailure { error, at: None }
    }
}

/// What a [`ProcessTask`] is called with.
#[derive(Debug)]
pub struct ProcessCall<'a> {
    /// What has happened.
    pub events: ProcessEvents<'a>,
    /// The key columns, a row for each key that the events are of.
    pub keys: &'a RecordBatch,
    /// The columns of all states, a row for each key.
    pub states: &'a RecordBatch,
    /// What is kept of a broadcast stream, if there is one.
    pub broadcast: Option<BroadcastStates<'a>>,
    /// How far event time has come.
    pub watermark: i64,
    /// How far event time had come before the timers fire that this call is about: no age is measured by an earlier time.
    pub floor: i64,
    /// Processing time.
    pub now: i64,
    /// Whether the input has ended.
    pub is_draining: bool,
}

/// The states of a broadcast stream.
#[derive(Clone, Copy, Debug)]
pub struct BroadcastStates<'a> {
    /// A number that changes with the states, so that a task need not read them again.
    pub version: u64,
    /// Their columns, in one row.
    pub row: &'a RecordBatch,
}

/// What has happened. Keys are numbers of rows of [`ProcessCall::keys`].
#[derive(Debug)]
pub enum ProcessEvents<'a> {
    /// Records have come.
    Records {
        /// The records.
        rows: &'a RecordBatch,
        /// The key of each.
        keys: &'a [u32],
        /// The event time of each, where there is one.
        times: Option<&'a [i64]>,
    },
    /// Records of the broadcast stream have come. They are of no key, emit nothing and change [`ProcessCall::broadcast`] alone:
    /// a call that has changed it returns its row as [`ProcessOutput::states`].
    Broadcast {
        /// The records.
        rows: &'a RecordBatch,
        /// The event time of each, where there is one.
        times: Option<&'a [i64]>,
    },
    /// Timers are due, in order of time and key. Keys are numbered in the order in which timers of one time fire.
    Timers {
        /// What they go by.
        clock: TimerClock,
        /// When they were due.
        times: &'a [i64],
        /// The key of each.
        keys: &'a [u32],
        /// The event time that their results have.
        stamps: &'a [i64],
        /// Up to which time, this one included, timers that are set meanwhile fire in this very call, in their turn.
        until: i64,
    },
    /// The input has ended; once a key that has state.
    End {
        /// The event time that results have, of each key.
        stamps: &'a [i64],
    },
    /// Values of these keys may have grown too old.
    Expire {
        /// The clock.
        clock: TimerClock,
    },
}

/// What a call of a [`ProcessTask`] has made.
#[derive(Debug, Default)]
pub struct ProcessOutput {
    /// How many of the events it has processed, the first ones. Of timers, those that are left count, not this.
    pub done: usize,
    /// Timers that it has not fired after all, in order, with their keys and stamps.
    pub left: Vec<(i64, u32, i64)>,
    /// Records for the step's outputs.
    pub rows: Vec<ProcessRows>,
    /// The keys whose states have changed.
    pub changed: Vec<u32>,
    /// The states of those keys, with the columns of [`ProcessCall::states`].
    pub states: Option<RecordBatch>,
    /// Changes of timers, in their order.
    pub timers: Vec<TimerChange>,
}

/// Records for one output.
#[derive(Debug)]
pub struct ProcessRows {
    /// The output: 0 is the result.
    pub port: usize,
    /// The records.
    pub data: RecordBatch,
    /// Of records: the event that each stems from. Of everything else: the event time of each.
    pub origin: ProcessOrigin,
}

/// Where results come from.
#[derive(Debug)]
pub enum ProcessOrigin {
    /// The record of each.
    Records(Vec<u32>),
    /// The event time of each.
    Times(Vec<i64>),
}

/// A change of a timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerChange {
    /// The key.
    pub key: u32,
    /// What the timer goes by.
    pub clock: TimerClock,
    /// When it is due.
    pub at: i64,
    /// What is done with it.
    pub action: TimerAction,
}

/// What is done with a timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimerAction {
    /// It is set; its results have this event time if it goes by processing time.
    Set {
        /// The event time.
        stamp: i64,
    },
    /// It is set while timers fire, and fires at the next watermark, since its turn is over.
    SetForNext {
        /// The event time of its results.
        stamp: i64,
    },
    /// It is deleted.
    Delete,
}
