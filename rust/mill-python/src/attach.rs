//! The way into the interpreter from threads of the engine.
//!
//! A thread that Python does not know gets a thread state when it enters and loses it when it leaves: an allocation, a
//! mapping of pages for its stack of frames, and all `threading.local` values, once a frame of records. [`attach`] makes
//! the thread state once and keeps it until the thread ends.
//!
//! ```text
//!   first attach    no state ──Ensure──► level 1 ──SaveThread──► kept, interpreter free
//!   every attach    level 1 ──Ensure──► level 2 ── f ──Release──► level 1, interpreter free
//!   end of thread   level 1 ──Ensure──► level 2 ──Release──Release──► no state
//! ```
//!
//! Invariant: the level a [`Kept`] stands for is taken only where the thread had no state, and is given back once, by the
//! same thread, while it is attached.

use pyo3::ffi;
use pyo3::prelude::*;

/// The level of a thread state that this thread keeps.
struct Kept;

thread_local! {
    /// `None` on threads that Python made itself: their state is Python's to end.
    static KEPT: Option<Kept> = Kept::new();
}

impl Kept {
    fn new() -> Option<Kept> {
        // SAFETY: may be called on any thread once the interpreter is initialised, which it is: it loaded this module.
        let state = unsafe { ffi::PyGILState_GetThisThreadState() };
        if !state.is_null() {
            return None;
        }
        // SAFETY: as above; the level is given back in `drop`.
        unsafe { ffi::PyGILState_Ensure() };
        // SAFETY: the line above has attached this thread.
        unsafe { ffi::PyEval_SaveThread() };
        Some(Kept)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // An interpreter that is gone has taken the thread state with it.
        Python::try_attach(|_| {
            // SAFETY: gives back the level of `new`; the thread is attached on a level of its own and stays so, which is
            // what "locked" says.
            unsafe { ffi::PyGILState_Release(ffi::PyGILState_STATE::PyGILState_LOCKED) };
        });
    }
}

/// Runs a function with the interpreter held.
pub fn attach<F, R>(f: F) -> R
where
    F: for<'py> FnOnce(Python<'py>) -> R,
{
    // A thread that is ending has given its state back; it may still enter, as a stranger.
    let _ = KEPT.try_with(|_| ());
    Python::attach(f)
}
