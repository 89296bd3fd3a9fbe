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
//!
//! # When the interpreter ends
//!
//! [`end`] is called as the last thing before it does. From then on no thread of the engine enters or leaves the
//! interpreter: one that wants to stops where it is, until the process is gone, and thread states are left to the
//! interpreter. A thread that is inside a function of the user's then is a matter of its own: when such a function next
//! waits for the interpreter, CPython before 3.14 ends the thread by unwinding its stack, which must not pass frames of
//! Rust. So functions of the user's are called by [`call`], whose frame is the first of Rust that the unwinding meets, and
//! which stops the thread there, as CPython 3.14 does.

use std::cell::Cell;
use std::ffi::c_long;
use std::sync::atomic::{AtomicBool, Ordering};

use millstream::Owner;
use parking_lot::Mutex;
use pyo3::{BoundObject, ffi};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

/// Whether the interpreter ends.
static HAS_ENDED: AtomicBool = AtomicBool::new(false);
/// The threads of the engine that have been in the interpreter: their numbers in Python, and whose they are.
static INSIDE: Mutex<Vec<(c_long, Option<Owner>)>> = Mutex::new(Vec::new());

/// The level of a thread state that this thread keeps.
struct Kept {
    /// The number of the thread in Python, once it is known.
    number: Cell<Option<c_long>>,
}

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
        if HAS_ENDED.load(Ordering::Acquire) {
            stop_here();
        }
        // SAFETY: as above; the level is given back in `drop`.
        unsafe { ffi::PyGILState_Ensure() };
        // SAFETY: the line above has attached this thread.
        unsafe { ffi::PyEval_SaveThread() };
        Some(Kept { number: Cell::new(None) })
    }

    /// Notes which thread of Python's this is.
    fn register(&self, py: Python<'_>) {
        if self.number.get().is_some() {
            return;
        }
        let number = py.import("_thread").and_then(|module| module.call_method0("get_ident")?.extract::<c_long>());
        // A thread whose number is not known can be neither named nor interrupted, and works all the same.
        let Ok(number) = number else { return };
        self.number.set(Some(number));
        INSIDE.lock().push((number, Owner::current()));
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(number) = self.number.get() {
            INSIDE.lock().retain(|(other, _)| *other != number);
        }
        // An interpreter that is gone has taken the thread state with it.
        try_attach(|_| {
            // SAFETY: gives back the level of `new`; the thread is attached on a level of its own and stays so, which is
            // what "locked" says.
            unsafe { ffi::PyGILState_Release(ffi::PyGILState_STATE::PyGILState_LOCKED) };
        });
    }
}

/// Runs a function with the interpreter held. Does not return on a thread of the engine if the interpreter has ended.
pub fn attach<F, R>(f: F) -> R
where
    F: for<'py> FnOnce(Python<'py>) -> R,
{
    // A thread that is ending has given its state back; it may still enter, as a stranger.
    let is_python = KEPT.try_with(Option::is_none).unwrap_or(false);
    if !is_python && HAS_ENDED.load(Ordering::Acquire) {
        stop_here();
    }
    Python::attach(|py| {
        let _ = KEPT.try_with(|kept| kept.as_ref().map(|kept| kept.register(py)));
        f(py)
    })
}

/// Runs a function with the interpreter held, unless there is none any more.
pub fn try_attach<F, R>(f: F) -> Option<R>
where
    F: for<'py> FnOnce(Python<'py>) -> R,
{
    if HAS_ENDED.load(Ordering::Acquire) { None } else { Python::try_attach(f) }
}

/// Notes that the interpreter ends: no thread of the engine enters it from now on.
pub fn end() {
    // Release pairs with the Acquire in attach. A thread that has looked before waits for the interpreter and is stopped
    // by PyO3 when it would get it.
    HAS_ENDED.store(true, Ordering::Release);
}

/// The numbers of the engine's threads that have been in the interpreter.
pub fn threads() -> Vec<c_long> {
    INSIDE.lock().iter().map(|(number, _)| *number).collect()
}

/// Raises an exception in the engine's threads, or in those of one job, when they next run Python code.
pub fn interrupt(exception: &Bound<'_, PyAny>, owner: Option<Owner>) {
    let inside = INSIDE.lock().clone();
    for (number, of) in inside {
        if owner.is_none() || of == owner {
            // SAFETY: the interpreter is held, and the exception is an object of it, of which the call takes a reference.
            unsafe { ffi::PyThreadState_SetAsyncExc(number, exception.as_ptr()) };
        }
    }
}

/// `PyObject_Call` as it is: its stack may be unwound.
type Call = unsafe extern "C-unwind" fn(*mut ffi::PyObject, *mut ffi::PyObject, *mut ffi::PyObject) -> *mut ffi::PyObject;

/// Stops a thread whose stack is being unwound.
struct Stop;

impl Drop for Stop {
    fn drop(&mut self) {
        stop_here();
    }
}

/// Calls a function of the user's, or one that calls such.
pub fn call<'py, A>(callable: &Bound<'py, PyAny>, args: A) -> PyResult<Bound<'py, PyAny>>
where
    A: IntoPyObject<'py, Target = PyTuple>,
    PyErr: From<A::Error>,
{
    let py = callable.py();
    let args = args.into_pyobject(py)?.into_bound();
    // SAFETY: the ABIs differ only in what may be unwound.
    let function = unsafe { std::mem::transmute::<unsafe extern "C" fn(_, _, _) -> _, Call>(ffi::PyObject_Call) };
    // Hidden from the optimizer, which knows the function as one that does not unwind, and would leave the destructor out.
    let function = std::hint::black_box(function);
    let stop = Stop;
    // SAFETY: the interpreter is held, both are objects of it that live until the call returns, and the third may be null.
    let result = unsafe { function(callable.as_ptr(), args.as_ptr(), std::ptr::null_mut()) };
    std::mem::forget(stop);
    // SAFETY: the call returns a new reference, or null with an exception set.
    unsafe { Bound::from_owned_ptr_or_err(py, result) }
}

/// Calls a method of an object of the user's, or of one that calls such.
pub fn call_method<'py, A>(object: &Bound<'py, PyAny>, name: &str, args: A) -> PyResult<Bound<'py, PyAny>>
where
    A: IntoPyObject<'py, Target = PyTuple>,
    PyErr: From<A::Error>,
{
    call(&object.getattr(name)?, args)
}

/// Keeps this thread until the process ends.
fn stop_here() -> ! {
    loop {
        std::thread::park();
    }
}
