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

/// Does a piece of work for each of these items, on at most so many threads; each takes the next item once it is done with one.
/// With one thread the caller's does it all.
///
/// # Errors
/// What the first of the items that failed returned, in the order of the items; the others were worked on as well.
///
/// # Examples
/// ```
/// let mut texts = vec![String::new(), String::new()];
/// let items: Vec<(usize, &mut String)> = texts.iter_mut().enumerate().collect();
/// mill_frame::spread(2, items, |(number, text)| {
///     text.push_str(&number.to_string());
///     Ok::<(), std::fmt::Error>(())
/// })?;
/// assert_eq!(texts, ["0", "1"]);
/// let failed = mill_frame::spread(2, vec![3, 1, 2], |number| if number > 2 { Ok(()) } else { Err(number) });
/// assert_eq!(failed, Err(1));
/// # Ok::<(), std::fmt::Error>(())
/// ```
pub fn spread<T: Send, E: Send>(threads: usize, items: Vec<T>, work: impl Fn(T) -> Result<(), E> + Sync) -> Result<(), E> {
    let threads = threads.min(items.len());
    if threads <= 1 {
        return items.into_iter().try_for_each(work);
    }
    let queue = Mutex::new(items.into_iter().enumerate());
    let next = || queue.lock().next();
    let failed: Mutex<Option<(usize, E)>> = Mutex::new(None);
    let run = || {
        while let Some((index, item)) = next() {
            let Err(error) = work(item) else { continue };
            let mut failed = failed.lock();
            if failed.as_ref().is_none_or(|(first, _)| index < *first) {
                *failed = Some((index, error));
            }
        }
    };
    on_all_cores(|| {
        rayon::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|_| run());
            }
        });
    });
    match failed.into_inner() {
        None => Ok(()),
        Some((_, error)) => Err(error),
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
