//! How a worker without work sleeps, and how it is woken.
//!
//! ```text
//!   EMPTY ──park──► PARKED ──unpark──► NOTIFIED ──park returns──► EMPTY
//!     └────unpark─────────────────────────►┘  (the next park returns at once)
//! ```
//!
//! A wake-up is a token, at most one, that stays until a park takes it. So none is lost as long as both sides keep the
//! order: *publish, then unpark* for who brings work, *park, then look again* for who sleeps. However the two
//! interleave, either the look that follows sees the work, or the token comes after that look and ends the next park at
//! once. A park may end without work; it never sleeps over it.
//!
//! Before it sleeps, a park spins a little and yields a little: with work under way on another core that is quicker
//! than the kernel. Both are bounded, so that an idle worker uses no CPU.

use std::fmt;
use std::time::{Duration, Instant};

use crate::sync::atomic::{AtomicU32, Ordering};
use crate::sync::{Arc, Condvar, Mutex, hint, thread};

const EMPTY: u32 = 0;
const PARKED: u32 = 1;
const NOTIFIED: u32 = 2;

/// How often a park looks for a token before it yields: about two microseconds.
const SPINS: u32 = if cfg!(loom) { 0 } else { 64 };
/// How often a park yields its core before it sleeps.
const YIELDS: u32 = if cfg!(loom) { 0 } else { 4 };

/// Sleeps until woken; one a worker, whatever the number of queues it reads.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// let mut parker = mill_queue::Parker::new();
/// let unparker = parker.unparker();
/// std::thread::spawn(move || unparker.unpark());
/// parker.park();
/// assert!(!parker.park_timeout(Duration::from_millis(1)));
/// ```
pub struct Parker {
    shared: Arc<Shared>,
}

/// Wakes a [`Parker`]; cheap to clone, one with each that may bring work.
#[derive(Clone)]
pub struct Unparker {
    shared: Arc<Shared>,
}

struct Shared {
    state: AtomicU32,
    lock: Mutex<()>,
    condition: Condvar,
}

impl Parker {
    /// A parker without a token.
    pub fn new() -> Parker {
        let shared = Shared { state: AtomicU32::new(EMPTY), lock: Mutex::new(()), condition: Condvar::new() };
        Parker { shared: Arc::new(shared) }
    }

    /// What wakes this parker.
    pub fn unparker(&self) -> Unparker {
        Unparker { shared: Arc::clone(&self.shared) }
    }

    /// Sleeps until there is a token, and takes it.
    pub fn park(&mut self) {
        self.shared.park(None);
    }

    /// Sleeps until there is a token, but no longer than `timeout`. Returns whether there was one.
    pub fn park_timeout(&mut self, timeout: Duration) -> bool {
        if timeout.is_zero() {
            return self.shared.try_take();
        }
        // A timeout beyond what the clock can tell is no timeout.
        self.shared.park(Instant::now().checked_add(timeout))
    }
}

impl Default for Parker {
    fn default() -> Parker {
        Parker::new()
    }
}

impl Unparker {
    /// Leaves a token and wakes the parker if it sleeps. Call it after the work can be seen.
    pub fn unpark(&self) {
        // Release pairs with the Acquire in try_take: who takes the token sees what was published before. Acquire pairs
        // with the Release that set PARKED.
        match self.shared.state.swap(NOTIFIED, Ordering::AcqRel) {
            EMPTY | NOTIFIED => return,
            PARKED => {}
            state => unreachable!("state={state}"),
        }
        // The parker set PARKED while it held the lock, and gives it up only by sleeping: having had the lock, we know
        // that it sleeps and hears the call.
        drop(self.shared.lock.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
        self.shared.condition.notify_one();
    }
}

impl Shared {
    #[inline]
    fn try_take(&self) -> bool {
        // Acquire pairs with the Release in unpark.
        self.state.compare_exchange(NOTIFIED, EMPTY, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    fn park(&self, deadline: Option<Instant>) -> bool {
        for _ in 0..SPINS {
            if self.try_take() {
                return true;
            }
            hint::spin_loop();
        }
        for _ in 0..YIELDS {
            if self.try_take() {
                return true;
            }
            thread::yield_now();
        }
        let mut guard = self.lock.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        // Acquire on failure pairs with the Release in unpark: the state is NOTIFIED then.
        if self.state.compare_exchange(EMPTY, PARKED, Ordering::AcqRel, Ordering::Acquire).is_err() {
            return self.take();
        }
        loop {
            let timeout = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if timeout.is_some_and(|timeout| timeout.is_zero()) {
                return self.take();
            }
            guard = match timeout {
                None => self.condition.wait(guard).unwrap_or_else(|poisoned| poisoned.into_inner()),
                Some(timeout) => {
                    self.condition.wait_timeout(guard, timeout).unwrap_or_else(|poisoned| poisoned.into_inner()).0
                }
            };
            if self.try_take() {
                return true;
            }
        }
    }

    /// Ends a park: back to empty, with the token if there is one.
    fn take(&self) -> bool {
        // Acquire pairs with the Release in unpark.
        self.state.swap(EMPTY, Ordering::Acquire) == NOTIFIED
    }
}

impl fmt::Debug for Parker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Parker")
    }
}

impl fmt::Debug for Unparker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unparker")
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
