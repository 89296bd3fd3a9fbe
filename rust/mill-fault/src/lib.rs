//! Named steps at which a test lets the process die, or lets the step fail.
//!
//! The steps of a checkpoint, of a commit and of a recovery call [`reach`] with their name right before they change
//! anything outside the process, and every thread of the engine calls [`pass`] with a step of its own once a round.
//! Unless a test has armed a fault, that is one relaxed load and a branch; no step is on a path that is taken per record,
//! so the hook is always there and no second build is needed to test the first.
//!
//! One fault at a time is armed, for the whole process: by [`arm`], or, for a process that somebody else starts, by
//! `MILLSTREAM_FAIL_POINT=step:n` (killed when it reaches that step for the `n`th time), `step:n:fail` or
//! `step:n:panic`. The step `*` is any step.
//!
//! A death can be simulated: after [`Effect::Die`] every further step fails, so nothing outside the process changes any
//! more, which is all that the world sees of a kill. The test that drives the job by hand then drops it.
//!
//! # Examples
//! ```
//! use mill_fault::{Effect, Fault};
//!
//! mill_fault::arm(Fault { step: "file.rename".into(), first: 2, times: 1, effect: Effect::Fail });
//! assert!(mill_fault::reach("file.rename").is_ok());
//! assert!(mill_fault::reach("file.rename").is_err());
//! assert!(mill_fault::reach("file.rename").is_ok());
//! assert_eq!(mill_fault::disarm()["file.rename"], 3);
//! ```

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The variable that arms a fault in a process that somebody else starts.
pub const VARIABLE: &str = "MILLSTREAM_FAIL_POINT";
/// Stands for every step.
pub const ANY: &str = "*";

const UNKNOWN: u8 = 0;
const OFF: u8 = 1;
const ON: u8 = 2;

static STATE: AtomicU8 = AtomicU8::new(UNKNOWN);
static ARMED: Mutex<Armed> = Mutex::new(Armed { fault: None, all: 0, reached: BTreeMap::new(), is_dead: false });

/// What happens at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Effect {
    /// Nothing: steps are only counted.
    Count,
    /// The process is killed, as by somebody else.
    Kill,
    /// This and all later steps fail: for the world outside the process is dead.
    Die,
    /// The step fails, as on a broken disk.
    Fail,
    /// The step fails, as on a full disk.
    Full,
    /// The step panics, as on a bug of the engine.
    Panic,
}

/// When what happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The step; [`ANY`] for every one.
    pub step: String,
    /// The how-manieth time, from 1.
    pub first: u64,
    /// How many times in a row, for what does not end the process.
    pub times: u64,
    /// What.
    pub effect: Effect,
}

struct Armed {
    fault: Option<Fault>,
    all: u64,
    reached: BTreeMap<&'static str, u64>,
    is_dead: bool,
}

/// A step is about to be taken.
///
/// # Errors
/// When a test wants it to fail.
///
/// # Panics
/// When a test wants it to panic.
#[inline]
pub fn reach(step: &'static str) -> io::Result<()> {
    // Relaxed: a fault is armed before the job that is to meet it is started.
    if STATE.load(Ordering::Relaxed) == OFF { Ok(()) } else { reach_armed(step) }
}

/// A step that cannot fail by itself is about to be taken: the process may die here.
///
/// # Panics
/// When a test wants it to panic.
#[inline]
pub fn pass(step: &'static str) {
    // Only a death counts here, and that makes every step after this one fail.
    let _ = reach(step);
}

/// Arms a fault; what was reached before is forgotten.
pub fn arm(fault: Fault) {
    let mut armed = locked();
    *armed = Armed { fault: Some(fault), all: 0, reached: BTreeMap::new(), is_dead: false };
    STATE.store(ON, Ordering::Relaxed);
}

/// Lets everything work again; returns how often each step was reached.
pub fn disarm() -> BTreeMap<&'static str, u64> {
    let mut armed = locked();
    STATE.store(OFF, Ordering::Relaxed);
    armed.fault = None;
    armed.is_dead = false;
    std::mem::take(&mut armed.reached)
}

/// Whether the process is as good as dead.
#[inline]
pub fn is_dead() -> bool {
    STATE.load(Ordering::Relaxed) == ON && locked().is_dead
}

#[cold]
fn reach_armed(step: &'static str) -> io::Result<()> {
    if STATE.load(Ordering::Relaxed) == UNKNOWN {
        match std::env::var(VARIABLE) {
            Err(_) => {
                // Another thread may have armed a fault meanwhile: that one stays.
                let _ = STATE.compare_exchange(UNKNOWN, OFF, Ordering::Relaxed, Ordering::Relaxed);
                return Ok(());
            }
            Ok(text) => {
                let wrong = || format!("{VARIABLE}={text:?} is not step:n, step:n:kill, step:n:fail or step:n:panic");
                arm(parse(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, wrong()))?);
            }
        }
    }
    let mut armed = locked();
    *armed.reached.entry(step).or_default() += 1;
    armed.all += 1;
    if armed.is_dead {
        return Err(io::Error::other("the process is dead (simulated)"));
    }
    let Some(fault) = &armed.fault else { return Ok(()) };
    let nth = if fault.step == ANY { armed.all } else { armed.reached[step] };
    let is_meant = (fault.step == ANY || fault.step == step) && nth >= fault.first && nth - fault.first < fault.times;
    if !is_meant {
        return Ok(());
    }
    match fault.effect {
        Effect::Count => Ok(()),
        Effect::Kill => kill(),
        Effect::Die => {
            armed.is_dead = true;
            Err(io::Error::other("the process died here (simulated)"))
        }
        Effect::Fail => Err(io::Error::other("the step failed (simulated)")),
        Effect::Full => Err(io::Error::new(io::ErrorKind::StorageFull, "no space left on device (simulated)")),
        // A panic while another is on its way out would end the process.
        Effect::Panic if std::thread::panicking() => Ok(()),
        Effect::Panic => {
            drop(armed);
            // As a panic unwinds, without the words that the hook of panics would write for each.
            std::panic::resume_unwind(Box::new(format!("step {step} panicked (simulated)")));
        }
    }
}

fn parse(text: &str) -> Option<Fault> {
    let mut parts = text.split(':');
    let (step, first) = (parts.next()?.to_owned(), parts.next()?.parse().ok()?);
    let effect = match parts.next() {
        None | Some("kill") => Effect::Kill,
        Some("fail") => Effect::Fail,
        Some("panic") => Effect::Panic,
        Some(_) => return None,
    };
    (first > 0 && parts.next().is_none()).then_some(Fault { step, first, times: 1, effect })
}

#[cfg(unix)]
fn kill() -> ! {
    // SAFETY: sends a signal to this process; no memory is involved.
    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    // Not reached: the signal cannot be caught. Should it not come, nothing of the process may continue.
    std::process::abort()
}

#[cfg(not(unix))]
fn kill() -> ! {
    std::process::abort()
}

fn locked() -> MutexGuard<'static, Armed> {
    ARMED.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
