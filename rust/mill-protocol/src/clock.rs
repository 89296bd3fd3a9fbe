//! Processing time, passed in from outside so that tests decide what time it is.
//!
//! The clock of the machine can be set, by a user or by the time service, and then jumps. So all waiting is measured by a
//! clock that cannot be set ([`SteadyClock`], or `std::time::Instant`): deadlines, pauses, intervals, rates and idleness.
//! [`SystemClock`] only provides times that users see: `now()`, and when a checkpoint was made.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

thread_local! {
    /// The clock that stands for that of the machine while a job is driven by hand on this thread.
    static HELD: RefCell<Option<Arc<ManualClock>>> = const { RefCell::new(None) };
}

/// Tells the processing time.
pub trait Clock: Send + Sync {
    /// Microseconds since the Unix epoch.
    fn now(&self) -> i64;
}

/// The clock of the machine, which somebody may set: for times that users see, never for waiting.
#[derive(Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> i64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as i64)
    }
}

/// The time that users see, of an expression such as `now()`, which gets no clock: that of the machine, or of the clock of
/// the job that is driven by hand on this thread.
pub fn shown_time() -> i64 {
    HELD.with_borrow(|held| held.as_ref().map_or_else(|| SystemClock.now(), |clock| clock.now()))
}

/// Calls a function during which users see the time of this clock on this thread.
pub fn with_shown_time<T>(clock: &Arc<ManualClock>, call: impl FnOnce() -> T) -> T {
    struct Former(Option<Arc<ManualClock>>);
    impl Drop for Former {
        fn drop(&mut self) {
            HELD.set(self.0.take());
        }
    }
    let _former = Former(HELD.replace(Some(Arc::clone(clock))));
    call()
}

/// A clock that agrees with another one when it is made and from then on follows the monotonic clock of the machine, so that
/// deadlines and idleness do not move when somebody sets the time.
#[derive(Debug)]
pub struct SteadyClock {
    from: Instant,
    at: i64,
}

impl SteadyClock {
    /// A clock that agrees with this one now.
    pub fn agreeing_with(clock: &dyn Clock) -> SteadyClock {
        SteadyClock { from: Instant::now(), at: clock.now() }
    }
}

impl Clock for SteadyClock {
    fn now(&self) -> i64 {
        let micros = i64::try_from(self.from.elapsed().as_micros()).unwrap_or(i64::MAX);
        self.at.saturating_add(micros)
    }
}

/// A clock that stands still until it is set.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// Sets the time, in microseconds since the Unix epoch.
    pub fn set(&self, now: i64) {
        // Relaxed: no other memory is published with the value.
        self.0.store(now, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests;
