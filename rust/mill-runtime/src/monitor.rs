//! A value, and threads that wait until it has changed.
//!
//! It is made of the mutex and the condition of the standard library, which keep what they know in themselves. Those of `parking_lot` keep
//! who waits in a table of the process. In a child that was forked from a process with running jobs, that table would still lead to
//! threads of the parent, whose memory the child's own threads have taken over: a thread that waited there was never woken up.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A value behind a lock, whose changes can be waited for.
pub struct Monitor<T> {
    value: Mutex<T>,
    changed: Condvar,
}

impl<T> Monitor<T> {
    /// Of this value.
    pub const fn new(value: T) -> Monitor<T> {
        Monitor { value: Mutex::new(value), changed: Condvar::new() }
    }

    /// The value. What a thread that panicked has left of it is what it is.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes all that wait. The value has changed before.
    pub fn notify_all(&self) {
        self.changed.notify_all();
    }

    /// Waits while `waits` says so, but no longer than `timeout` if there is one.
    pub fn wait_while<'a>(
        &self,
        value: MutexGuard<'a, T>,
        timeout: Option<Duration>,
        waits: impl FnMut(&mut T) -> bool,
    ) -> MutexGuard<'a, T> {
        match timeout {
            None => self.changed.wait_while(value, waits).unwrap_or_else(PoisonError::into_inner),
            Some(timeout) => {
                self.changed.wait_timeout_while(value, timeout, waits).unwrap_or_else(PoisonError::into_inner).0
            }
        }
    }
}
