//! The outcome of one attempt at a server that may be away for a while.

use std::time::{Duration, Instant};

use mill_protocol::{Ending, Error, Result};

/// The longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Why an attempt came to nothing.
pub(crate) enum Failure {
    /// It may succeed when it is done again, unless it did already.
    Again(Error),
    /// It never will.
    Final(Error),
}

impl Failure {
    pub(crate) fn into_error(self) -> Error {
        match self {
            Failure::Again(error) | Failure::Final(error) => error,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Final(error)
    }
}

/// What an attempt returns.
pub(crate) type Attempt<T> = std::result::Result<T, Failure>;

/// Tries until it succeeds, never will, the time is over, or the job ends.
pub(crate) fn retry<T>(call: &dyn Fn() -> String, ending: &Ending, wait: Duration, mut attempt: impl FnMut() -> Attempt<T>) -> Result<T> {
    let end = Instant::now() + wait;
    let mut pause = Duration::from_millis(50);
    loop {
        let error = match attempt() {
            Ok(outcome) => return Ok(outcome),
            Err(Failure::Final(error)) => return Err(error),
            Err(Failure::Again(error)) => error,
        };
        if ending.is_set() {
            return Err(Error::connector(format!("{}: the job ends before its rows are written", call())));
        }
        if Instant::now() >= end {
            return Err(error);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(PAUSE_MAX);
    }
}
