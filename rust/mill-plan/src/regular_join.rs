//! The description of a stage that joins all rows of two inputs by key, as the operators read it.
//!
//! Neither time nor a window says which rows are partners: all rows of one key are. Rows may be changed and removed, and
//! the result changes with them.

use std::fmt;

use arrow::datatypes::SchemaRef;

use crate::join::{How, JoinedColumn};
use crate::process::TimerClock;
use crate::window::duration;

/// What tells the rows of one join key apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowIdentity {
    /// There is one row of each join key at most.
    Key,
    /// These columns of the input: the key of an updating stream.
    Columns(Vec<usize>),
    /// Its number: each row stays as it came.
    Number,
}

/// Joins all rows of two inputs that have the same key.
#[derive(Clone, Debug)]
pub struct RegularJoinPlan {
    /// Which rows there are.
    pub how: How,
    /// For how many microseconds a row is kept that is neither changed nor joined, by which clock; without it, forever.
    pub ttl: Option<(i64, TimerClock)>,
    /// Whether rows have an event time, and those of the result with them.
    pub is_timed: bool,
    /// Whether the rows of records without a partner come once the inputs have ended, so that none is ever withdrawn.
    pub waits_for_end: bool,
    /// The key columns of each input, of the same types.
    pub keys: [Vec<usize>; 2],
    /// What tells the rows of each input apart.
    pub identities: [RowIdentity; 2],
    /// Whether the result has the number of a row of each input, which comes after the columns of the input.
    pub numbers: [bool; 2],
    /// Whether the key of the result has what tells the rows of each input apart.
    pub tells_apart: [bool; 2],
    /// Columns of each input, for joins in which two rows without a partner could have the same key: those that have a null in
    /// the join key, or in which it is not part of the result, and null in all of these columns.
    pub ambiguous: Option<[Vec<usize>; 2]>,
    /// Whether the columns of the join key are columns of the result.
    pub is_shared: bool,
    /// The columns of each input.
    pub inputs: [SchemaRef; 2],
    /// How many columns each input has of its own; those after them were computed for the join.
    pub own: [usize; 2],
    /// The columns of the result.
    pub columns: Vec<JoinedColumn>,
    /// The key as people read it.
    pub on: String,
}

impl fmt::Display for RegularJoinPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "on {}, how={:?}", self.on, self.how.as_str())?;
        match self.ttl {
            None => f.write_str("; keeps the rows of both sides for as long as the job runs"),
            Some((us, clock)) => {
                let ttl = duration(us);
                let by = match clock {
                    TimerClock::Event => "event time",
                    TimerClock::Processing => "the clock",
                };
                write!(f, ", ttl={ttl:?}; keeps a row of each side until it has been neither changed nor joined for {ttl} by {by}")
            }
        }
    }
}
