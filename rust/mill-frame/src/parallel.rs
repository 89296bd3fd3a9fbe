//! Work on all cores, in a process that may have been forked.
//!
//! A pool of threads does not survive a fork: the child has its memory and none of its threads, and code that submits work
//! to it there waits forever. So there is one pool a process, made when it is first wanted, and a child makes its own.

use std::sync::Arc;

use parking_lot::Mutex;
use rayon::{ThreadPool, ThreadPoolBuilder};

/// The pool, and the process that its threads belong to.
static POOL: Mutex<Option<(u32, Arc<ThreadPool>)>> = Mutex::new(None);

/// Runs a function in which `rayon` uses all cores. A panic of any piece of the work is a panic of this call.
pub fn on_all_cores<R: Send>(run: impl FnOnce() -> R + Send) -> R {
    match pool() {
        Some(pool) => pool.install(run),
        // The system has no threads left: rayon then does the work where it is, or says so itself.
        None => run(),
    }
}

fn pool() -> Option<Arc<ThreadPool>> {
    let here = std::process::id();
    let mut made = POOL.lock();
    if let Some((process, pool)) = &*made {
        if *process == here {
            return Some(Arc::clone(pool));
        }
    }
    let name = |index: usize| format!("mill-pool-{index}");
    let pool = Arc::new(ThreadPoolBuilder::new().thread_name(name).build().ok()?);
    if let Some(parents) = made.replace((here, Arc::clone(&pool))) {
        // Dropping it would wait for threads that are not there.
        std::mem::forget(parents);
    }
    Some(pool)
}
