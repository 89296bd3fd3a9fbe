//! How something outside wakes a stage that waits for it: [`mill_queue::Signal`] as a [`Wake`].
//!
//! Whoever brings an answer publishes it and then wakes; the stage takes the signal and then looks, so no answer is
//! overlooked. A waker may outlive its task: waking then does nothing but unpark the worker, or nothing at all.

use std::sync::Arc;
use std::task::Wake;

use mill_queue::{Signal, Unparker};

/// The signal of one stage to its worker.
pub(crate) struct StageWake(Signal);

impl StageWake {
    /// A signal that is not raised.
    pub(crate) fn new(unparker: Unparker) -> StageWake {
        StageWake(Signal::new(unparker))
    }

    /// Takes the signal; returns whether the stage was woken since it was last taken.
    pub(crate) fn take(&self) -> bool {
        self.0.take()
    }
}

impl Wake for StageWake {
    fn wake(self: Arc<Self>) {
        self.0.raise();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.raise();
    }
}
