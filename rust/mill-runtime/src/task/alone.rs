//! A task that has failed and goes back alone, while all others go on.
//!
//! ```text
//!   Running ──fails──► Failed ──order, pause──► goes back ──► repeats its log ──► takes what it had failed at ──► Running
//!                        └──what it did cannot be taken back──► the job fails
//! ```

use mill_protocol::{Error, ErrorKind, Result};

use super::{Step, Task};
use crate::input_log::Reach;
use crate::rebuild::Rebuild;
use crate::shared::{Message, Order};
use crate::threads::guarded;

/// What a task knows of its going back.
pub(crate) struct Alone {
    rebuild: Rebuild,
    state: State,
}

enum State {
    Running,
    /// It has failed, and waits for what the coordinator says.
    Failed,
    /// It goes back at this time of the job's clock.
    Ordered(Order, i64),
    /// It cannot go back, not a second time either.
    Lost,
}

impl Alone {
    pub(crate) fn new(rebuild: Rebuild) -> Alone {
        Alone { rebuild, state: State::Running }
    }
}

impl Task {
    /// Takes note of a failure of its last step. Returns the error if the task cannot be brought back alone; otherwise the coordinator
    /// has been told, and decides.
    pub(crate) fn fail(&mut self, error: Error) -> Option<Error> {
        let Some(alone) = &mut self.alone else { return Some(error) };
        // A second attempt changes nothing about some of them.
        let is_final = matches!(error.kind(), ErrorKind::Cancelled | ErrorKind::Plan | ErrorKind::Schema);
        let reach = self.chain.take_back();
        if !matches!(alone.state, State::Running) || is_final || reach == Reach::Nothing {
            alone.state = State::Lost;
            return Some(error);
        }
        alone.state = State::Failed;
        self.entered = None;
        self.shared.tell(Message::TaskFailed(self.index, error, reach));
        None
    }

    /// What a step of a task comes to that has failed; `None` if it runs.
    pub(super) fn step_failed(&mut self) -> Result<Option<Step>> {
        let Some(alone) = &mut self.alone else { return Ok(None) };
        match alone.state {
            State::Running => Ok(None),
            State::Lost => Ok(Some(Step::Waiting)),
            State::Failed => {
                self.chain.flush()?;
                let Some(order) = self.shared.take_order(self.index) else { return Ok(Some(Step::Waiting)) };
                let pause = i64::try_from(order.pause.as_micros()).unwrap_or(i64::MAX);
                alone.state = State::Ordered(order, self.clock.now().saturating_add(pause));
                Ok(Some(Step::Worked))
            }
            State::Ordered(_, at) if at > self.clock.now() && !self.shared.is_hurried() => {
                self.chain.flush()?;
                Ok(Some(Step::Idle(Some(at))))
            }
            State::Ordered(order, _) => {
                // Until it is through with this, a failure is one of the job. Code of the user's may run when an operator is dropped,
                // and it has failed before.
                let former = self.chain.take_operators();
                if let Err(error) = guarded(&self.name, || Ok(drop(former))) {
                    self.shared.tell(Message::Note(format!("what was left of a failed step could not be let go of: {error}")));
                }
                self.chain.go_back(order.checkpoint, alone.rebuild.operators(order.checkpoint)?)?;
                if let super::TaskInput::Source(source) = &mut self.input {
                    source.task.tell_again();
                }
                alone.state = State::Running;
                Ok(Some(Step::Worked))
            }
        }
    }

    /// Goes on through the log.
    pub(super) fn replay(&mut self) -> Result<()> {
        let is_full = self.shared.request().is_full;
        if let Some(replayed) = self.chain.replay(is_full)? {
            self.shared.tell(Message::TaskBack(self.index, replayed));
        }
        Ok(())
    }

    /// When a task goes back that has failed, if that is known.
    pub(super) fn order_time(&self) -> Option<i64> {
        match self.alone.as_ref()?.state {
            State::Ordered(_, at) => Some(at),
            _ => None,
        }
    }
}
