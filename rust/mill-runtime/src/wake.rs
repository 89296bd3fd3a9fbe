//! How something outside wakes a stage that waits for it.
//!
//! A wake-up leaves a mark and wakes the worker; the worker takes the mark and calls the stage. Whoever brings an answer
//! publishes it before it wakes, and the mark is taken before the stage looks, so no answer is overlooked. A mark that is
//! left over costs one call in which the stage finds nothing.

use std::sync::Arc;
use std::task::Wake;

use mill_queue::Unparker;
use mill_queue::sync::atomic::{AtomicBool, Ordering};

/// The mark of one stage, and the worker to wake.
pub(crate) struct StageWake {
    is_woken: AtomicBool,
    unparker: Unparker,
}

impl StageWake {
    /// Without a mark.
    pub(crate) fn new(unparker: Unparker) -> StageWake {
        StageWake { is_woken: AtomicBool::new(false), unparker }
    }

    /// Takes the mark; returns whether there was one.
    pub(crate) fn take(&self) -> bool {
        // Acquire pairs with the Release in wake_by_ref: what was published before it can be seen.
        self.is_woken.swap(false, Ordering::Acquire)
    }
}

impl Wake for StageWake {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Release pairs with the Acquire in take.
        self.is_woken.store(true, Ordering::Release);
        self.unparker.unpark();
    }
}
