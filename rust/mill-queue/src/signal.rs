//! How one thread tells a worker that something it waits for has come.
//!
//! ```text
//!   who answers      publish the answer ─► raise: set the mark, unpark the worker
//!   the worker       take the mark ─► look for the answer ─► none: park
//! ```
//!
//! The mark is taken *before* the worker looks. An answer that is published after that look raises the mark again, and the
//! token of the parker ends the next park at once. So no answer is overlooked. A mark that was raised for an answer which
//! has been found already costs one look that finds nothing.

use std::fmt;

use crate::park::Unparker;
use crate::sync::atomic::{AtomicBool, Ordering};

/// A mark that any thread raises and one worker takes.
///
/// # Examples
/// ```
/// let mut parker = mill_queue::Parker::new();
/// let signal = std::sync::Arc::new(mill_queue::Signal::new(parker.unparker()));
/// let raised = std::sync::Arc::clone(&signal);
/// std::thread::spawn(move || raised.raise());
/// while !signal.take() {
///     parker.park();
/// }
/// assert!(!signal.take());
/// ```
pub struct Signal {
    is_raised: AtomicBool,
    unparker: Unparker,
}

impl Signal {
    /// A signal that is not raised, for the worker that this unparks.
    pub fn new(unparker: Unparker) -> Signal {
        Signal { is_raised: AtomicBool::new(false), unparker }
    }

    /// Sets the mark and wakes the worker. Call it after the answer can be seen.
    pub fn raise(&self) {
        // Release pairs with the Acquire in take: who takes the mark sees what was published before. A swap and no store, for
        // then it also sees what others had published who raised the mark before: a store would hide their answers, which no
        // mark would tell of.
        self.is_raised.swap(true, Ordering::Release);
        self.unparker.unpark();
    }

    /// Takes the mark; returns whether it was set.
    pub fn take(&self) -> bool {
        // Acquire pairs with the Release in raise.
        self.is_raised.swap(false, Ordering::Acquire)
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signal")
    }
}
