//! The state of a job, and its outcome.

use std::time::Duration;

use mill_protocol::{Error, Result};

use crate::metrics::Metrics;
use crate::monitor::Monitor;

/// The state of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// It works, or waits for input.
    Running,
    /// It takes its last checkpoint, or clears up.
    Ending,
    /// All input was processed and all output is visible.
    Finished,
    /// It was stopped with a last checkpoint.
    Stopped,
    /// It was cancelled.
    Cancelled,
    /// It failed.
    Failed,
}

impl Status {
    /// Whether nothing will happen any more.
    pub fn is_over(self) -> bool {
        !matches!(self, Status::Running | Status::Ending)
    }
}

/// What a job that ended well has to say.
#[derive(Clone, Debug)]
pub struct Report {
    /// Finished, stopped or cancelled.
    pub status: Status,
    /// The final figures.
    pub metrics: Metrics,
    /// What a user should know: checkpoints that failed, what recovery found.
    pub notes: Vec<String>,
    /// From start to end.
    pub duration: Duration,
    /// The checkpoint that the job continued from.
    pub restored: Option<u64>,
    /// The last checkpoint.
    pub checkpoint: Option<u64>,
}

/// Where the outcome of a job is left for whoever waits.
pub(crate) struct Outcome {
    state: Monitor<(Status, Option<Result<Report>>)>,
}

impl Outcome {
    /// Of a job that runs.
    pub(crate) fn new() -> Outcome {
        Outcome { state: Monitor::new((Status::Running, None)) }
    }

    /// The state of the job.
    pub(crate) fn status(&self) -> Status {
        self.state.lock().0
    }

    /// The job has begun to end.
    pub(crate) fn set_ending(&self) {
        let mut state = self.state.lock();
        if state.0 == Status::Running {
            state.0 = Status::Ending;
        }
    }

    /// The job is over.
    pub(crate) fn set(&self, result: Result<Report>) {
        let status = result.as_ref().map_or(Status::Failed, |report| report.status);
        *self.state.lock() = (status, Some(result));
        self.state.notify_all();
    }

    /// Waits for the end; `None` if it does not come in time. The cause of an error is given to the first who asks.
    pub(crate) fn wait(&self, timeout: Option<Duration>) -> Option<Result<Report>> {
        let mut state = self.state.wait_while(self.state.lock(), timeout, |state| state.1.is_none());
        let result = state.1.take()?;
        state.1 = Some(match &result {
            Ok(report) => Ok(report.clone()),
            Err(error) => {
                let again = Error::new(error.kind(), error.message());
                Err(error.step().map_or_else(|| Error::new(error.kind(), error.message()), |step| again.in_step(step)))
            }
        });
        Some(result)
    }
}
