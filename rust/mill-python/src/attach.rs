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
//! Invariant: the level a [`Kept`] stands for is taken only where the thread had no state, and is released once, by the
//! same thread, while it is attached.
//!
//! # When the interpreter ends
//!
//! [`end`] is called as the last thing before it does. A thread that waits for the interpreter after that is ended by
//! CPython before 3.14 by unwinding its stack, which must not pass frames of Rust. There are two kinds of such threads:
//!
//! * Inside a function of the user's. Such functions are called by [`call`], whose frame is the first of Rust that the
//!   unwinding meets, and which stops the thread there, as CPython 3.14 does.
//! * Inside the engine's own use of the interpreter: making values, an import. That is short, so [`end`] waits until
//!   nobody is there: `BUSY` counts them, a thread that wants to come in stops where it is, and one that comes back from a
//!   function of the user's stops as well. They stay there until the process is gone.

use std::cell::Cell;
use std::ffi::c_long;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use millstream::Owner;
use parking_lot::Mutex;
use pyo3::exceptions::PySystemExit;
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use pyo3::{BoundObject, ffi};

/// Whether the interpreter ends.
static HAS_ENDED: AtomicBool = AtomicBool::new(false);
/// How many threads of the engine use the interpreter, or wait for it, outside the functions of the user's.
static BUSY: AtomicUsize = AtomicUsize::new(0);
/// How long the end of the interpreter waits for those.
const BUSY_MAX: Duration = Duration::from_secs(2);
/// How often it looks.
const BUSY_PAUSE: Duration = Duration::from_millis(1);
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
    /// How often this thread has come in and not left again, since it was last outside or in a function of the user's.
    static LEVEL: Cell<usize> = const { Cell::new(0) };
}

impl Kept {
    fn new() -> Option<Kept> {
        // SAFETY: may be called on any thread once the interpreter is initialised, which it is: it loaded this module.
        let state = unsafe { ffi::PyGILState_GetThisThreadState() };
        if !state.is_null() {
            return None;
        }
        let _busy = Busy::enter().unwrap_or_else(|| stop_here());
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
    if !is_engine() {
        return Python::attach(f);
    }
    let _busy = Busy::enter().unwrap_or_else(|| stop_here());
    Python::attach(|py| {
        // The end may have come while this thread waited.
        stop_if_ended(py);
        let _ = KEPT.try_with(|kept| kept.as_ref().map(|kept| kept.register(py)));
        f(py)
    })
}

/// Runs a function with the interpreter held, unless there is none any more.
pub fn try_attach<F, R>(f: F) -> Option<R>
where
    F: for<'py> FnOnce(Python<'py>) -> R,
{
    let _busy = Busy::enter()?;
    Python::try_attach(f)
}

/// Runs a function where a value is dropped, with the interpreter held, unless there is none any more. Values are dropped while
/// an exception is on its way, too: the function finds none raised, gets the one that is on its way, and that one continues after it.
pub fn in_drop<F, R>(f: F) -> Option<R>
where
    F: for<'py> FnOnce(Python<'py>, Option<&PyErr>) -> R,
{
    try_attach(|py| {
        let raised = PyErr::take(py);
        let result = f(py, raised.as_ref());
        if let Some(raised) = raised {
            raised.restore(py);
        }
        result
    })
}

/// Notes that the interpreter ends: no thread of the engine enters it from now on. Waits for those that use it.
pub fn end(py: Python<'_>) {
    // SeqCst, as in `Busy::enter`: either this thread sees the other's count, or the other sees the end.
    HAS_ENDED.store(true, Ordering::SeqCst);
    py.detach(|| {
        let until = Instant::now() + BUSY_MAX;
        while BUSY.load(Ordering::SeqCst) > 0 && Instant::now() < until {
            thread::sleep(BUSY_PAUSE);
        }
    });
}

/// Counts a thread of the engine that uses the interpreter, once for all levels.
struct Busy;

impl Busy {
    /// `None` if the interpreter has ended.
    fn enter() -> Option<Busy> {
        let level = LEVEL.replace(LEVEL.get() + 1);
        if level == 0 {
            BUSY.fetch_add(1, Ordering::SeqCst);
        }
        let busy = Busy;
        (!HAS_ENDED.load(Ordering::SeqCst)).then_some(busy)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        LEVEL.set(LEVEL.get() - 1);
        if LEVEL.get() == 0 {
            BUSY.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// Whether this thread is the engine's. One that is ending has given its state back, and is a stranger to Python.
fn is_engine() -> bool {
    KEPT.try_with(Option::is_some).unwrap_or(true)
}

/// Stops a thread of the engine that holds the interpreter, without it, if the interpreter ends.
fn stop_if_ended(py: Python<'_>) {
    if HAS_ENDED.load(Ordering::SeqCst) {
        py.detach(|| {
            BUSY.fetch_sub(1, Ordering::SeqCst);
            stop_here()
        });
    }
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
    // Levels are zero on threads of Python's, and outside `attach`.
    let level = LEVEL.take();
    if level > 0 {
        BUSY.fetch_sub(1, Ordering::SeqCst);
    }
    let process = std::process::id();
    let stop = Stop;
    // SAFETY: the interpreter is held, both are objects of it that live until the call returns, and the third may be null.
    let result = unsafe { function(callable.as_ptr(), args.as_ptr(), std::ptr::null_mut()) };
    std::mem::forget(stop);
    // Only a thread of the engine would continue with a job here: one of Python's returns to whoever forked.
    if level > 0 && std::process::id() != process {
        end_child(py, process, result);
    }
    if level > 0 {
        LEVEL.set(level);
        BUSY.fetch_add(1, Ordering::SeqCst);
        stop_if_ended(py);
    }
    // SAFETY: the call returns a new reference, or null with an exception set.
    unsafe { Bound::from_owned_ptr_or_err(py, result) }
}

/// Ends a process that was forked inside a function of the user's, which has returned or raised: none of the threads of the
/// job, nor those that hold its locks, are here. It ends as `os._exit()` does, so that nothing of the parent's is written or
/// deleted twice. `SystemExit` says with what status.
fn end_child(py: Python<'_>, parent: u32, result: *mut ffi::PyObject) -> ! {
    let status = if result.is_null() { exit_status(py) } else { None };
    if status.is_none() {
        eprintln!(
            "millstream: process {} was forked from {parent} inside a function of a job, and the function has come back. The job \
             runs in {parent} alone, so the forked process ends here; let it end in the function, with os._exit(0)",
            std::process::id()
        );
    }
    let status = status.unwrap_or(1);
    let _ = py.import("os").and_then(|os| os.call_method1("_exit", (status,)));
    std::process::abort()
}

/// The status that a raised `SystemExit` asks for; `None` for any other exception.
fn exit_status(py: Python<'_>) -> Option<i32> {
    let raised = PyErr::fetch(py);
    if !raised.is_instance_of::<PySystemExit>(py) {
        raised.print(py);
        return None;
    }
    let code = raised.value(py).getattr("code").ok()?;
    if code.is_none() { Some(0) } else { Some(code.extract().unwrap_or(1)) }
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
