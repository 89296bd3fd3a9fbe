//! The threads of the engine: the one place that starts them.
//!
//! Every thread has a name, belongs to a job, and has a guard: a panic in it becomes an error that names the thread, and
//! is handed to whoever can end the job with it. So a bug fails a job, and nothing waits for a thread that has ended.
//!
//! A thread knows the job it belongs to, so that a user function that waits for its own job, which would wait forever, gets
//! an error at once.

use std::cell::Cell;
use std::num::NonZeroU64;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{Builder, JoinHandle};

use mill_protocol::{Error, Result};
use mill_queue::sync::atomic::{AtomicU64, Ordering};

use crate::panics;

/// One attempt of a job, as its threads know it; no two of a process are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner(NonZeroU64);

thread_local! {
    static OWNER: Cell<Option<Owner>> = const { Cell::new(None) };
}

impl Owner {
    /// An owner of threads that are yet to be started.
    pub fn new() -> Owner {
        // The numbers are only compared, so nothing is ordered by them.
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Owner(NonZeroU64::new(number).expect("2^64 jobs are more than a process starts"))
    }

    /// Whose the calling thread is, if it is a thread of a job.
    pub fn current() -> Option<Owner> {
        OWNER.get()
    }

    /// Whether the calling thread is one of its threads.
    pub fn is_current(self) -> bool {
        OWNER.get() == Some(self)
    }
}

impl Default for Owner {
    fn default() -> Owner {
        Owner::new()
    }
}

/// Starts a thread of a job. If it panics, `failed` is called on it with an error that names the thread, after everything
/// that `run` owned has been dropped.
///
/// # Errors
/// If the system has no more threads.
pub fn spawn(
    name: &str,
    owner: Owner,
    run: impl FnOnce() + Send + 'static,
    failed: impl FnOnce(Error) + Send + 'static,
) -> Result<JoinHandle<()>> {
    let thread = name.to_owned();
    let body = move || {
        OWNER.set(Some(owner));
        if let Err(error) = guarded(&thread, || Ok(run())) {
            failed(error);
        }
    };
    let spawned = Builder::new().name(name.to_owned()).spawn(body);
    spawned.map_err(|error| Error::internal(format!("cannot start the thread {name}")).because(error))
}

/// Runs a function, with a panic turned into an error in the step of this name.
///
/// # Errors
/// Of the function, or of its panic.
pub fn guarded<T>(step: &str, run: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| Err(panics::as_error(panic).in_step(step)))
}

/// Counts the threads of a kind that have not ended.
pub(crate) struct Alive(AtomicU64);

impl Alive {
    pub(crate) fn new(count: usize) -> Alive {
        Alive(AtomicU64::new(count as u64))
    }

    /// One has ended; what it held is gone.
    pub(crate) fn end(&self) {
        // Release pairs with the Acquire in has_ended.
        self.0.fetch_sub(1, Ordering::Release);
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.0.load(Ordering::Acquire) == 0
    }
}
