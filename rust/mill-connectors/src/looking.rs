//! Looks for new splits from time to time, on a thread of its own: a server that does not answer holds up nobody.

use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mill_protocol::{Discovery, Result, Split};

use crate::client_thread;

/// Between two looks passes so many times what one takes, so that a server is not asked all the time where a look is long; but at most so
/// long, unless the interval is longer.
const IDLE_FACTOR: u32 = 5;
const IDLE_MAX: Duration = Duration::from_secs(30);

/// What has been found and not yet been asked for. It stops to look when it is dropped.
pub(crate) struct Looking {
    found: Receiver<Result<Vec<Split>>>,
    stop: Arc<(Mutex<bool>, Condvar)>,
}

impl Looking {
    /// Calls `look` after each interval; a look that fails is the last one, and its error is that of the source.
    ///
    /// # Errors
    /// When the thread of this name cannot be started.
    pub(crate) fn start(name: &str, interval: Duration, mut look: impl FnMut() -> Result<Vec<Split>> + Send + 'static) -> Result<Looking> {
        let (send, found) = channel();
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let stopped = Arc::clone(&stop);
        let is_stopped = move |wait: Duration| {
            let (flag, changed) = &*stopped;
            let guard = flag.lock().unwrap_or_else(PoisonError::into_inner);
            let result = changed.wait_timeout_while(guard, wait, |is_stopped| !*is_stopped);
            *result.unwrap_or_else(PoisonError::into_inner).0
        };
        client_thread::start(name, move || {
            let mut wait = interval;
            while !is_stopped(wait) {
                let began = Instant::now();
                let found = look();
                wait = interval.max(IDLE_MAX.min(IDLE_FACTOR * began.elapsed()));
                let is_last = found.is_err();
                let is_empty = found.as_ref().is_ok_and(Vec::is_empty);
                if (!is_empty && send.send(found).is_err()) || is_last {
                    return;
                }
            }
        })?;
        Ok(Looking { found, stop })
    }
}

impl Discovery for Looking {
    fn look(&mut self) -> Result<Vec<Split>> {
        let mut all = Vec::new();
        for found in self.found.try_iter() {
            all.extend(found?);
        }
        Ok(all)
    }
}

impl Drop for Looking {
    fn drop(&mut self) {
        *self.stop.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stop.1.notify_all();
    }
}
