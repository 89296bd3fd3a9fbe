//! Failures of the engine as Python exceptions, and back. The only place that knows which kind is which exception.
//!
//! An exception of the user's travels through the engine as the source of a [`mill_protocol::Error`] and comes out as the
//! `__cause__` of a `UserFunctionError`, unharmed.

use std::error::Error as StdError;
use std::sync::Arc;

use mill_protocol::{Error, ErrorKind, Rejected};
use pyo3::exceptions::{PyException, PyKeyboardInterrupt};
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::attach::attach;

pyo3::import_exception!(millstream.errors, MillstreamError);
pyo3::import_exception!(millstream.errors, PlanError);
pyo3::import_exception!(millstream.errors, SchemaError);
pyo3::import_exception!(millstream.errors, DataError);
pyo3::import_exception!(millstream.errors, CheckpointError);
pyo3::import_exception!(millstream.errors, ConnectorError);
pyo3::import_exception!(millstream.errors, UserFunctionError);
pyo3::import_exception!(millstream._live, Ending);
pyo3::import_exception!(millstream._lookup_functions, OneKeyError);

/// How many characters of a record a message shows.
const RECORD_CHARACTERS_MAX: usize = 500;

/// The exception for a failure of the engine.
pub fn to_python(mut error: Error) -> PyErr {
    let message = error.to_string();
    let step = error.step().map(str::to_owned);
    let kind = error.kind();
    let source = error.take_source();
    attach(|py| {
        let cause = source.and_then(|source| python_cause(py, source));
        // Who pressed Ctrl-C is not told of a sink that failed.
        if let Some(interrupt) = cause.as_ref().filter(|cause| is_interrupt(py, cause)) {
            return interrupt.clone_ref(py);
        }
        let (message, reason) = match cause {
            Some(cause) => (message, Some(cause)),
            None => (message, None),
        };
        let exception = match kind {
            ErrorKind::Plan => PlanError::new_err(message),
            ErrorKind::Schema => SchemaError::new_err(message),
            ErrorKind::Data => DataError::new_err(message),
            ErrorKind::Connector => ConnectorError::new_err(message),
            ErrorKind::Checkpoint => CheckpointError::new_err(message),
            ErrorKind::UserFunction => UserFunctionError::new_err(message),
            _ => MillstreamError::new_err(message),
        };
        if let Some(step) = step {
            // An attribute that cannot be set is a loss of comfort only.
            let _ = exception.value(py).setattr("step", step);
        }
        exception.set_cause(py, reason);
        exception
    })
}

/// Finds the Python exception that caused a failure, or makes one of its cause.
fn python_cause(py: Python<'_>, source: Box<dyn StdError + Send + Sync>) -> Option<PyErr> {
    let source = match source.downcast::<PyErr>() {
        Ok(exception) => return Some(*exception),
        Err(source) => source,
    };
    // Boxed once more by `Error::because`, which takes any error as what it is.
    let source = match source.downcast::<Box<Arc<dyn StdError + Send + Sync>>>() {
        Ok(shared) => return Some(shared_cause(py, &shared)),
        Err(source) => source,
    };
    let source = match source.downcast::<Arc<dyn StdError + Send + Sync>>() {
        Ok(shared) => return Some(shared_cause(py, &shared)),
        Err(source) => source,
    };
    match source.downcast::<Error>() {
        Ok(inner) => Some(to_python(*inner)),
        Err(source) => Some(PyException::new_err(source.to_string())),
    }
}

fn shared_cause(py: Python<'_>, shared: &Arc<dyn StdError + Send + Sync>) -> PyErr {
    match shared.downcast_ref::<PyErr>() {
        Some(exception) => exception.clone_ref(py),
        None => PyException::new_err(shared.to_string()),
    }
}

/// Whether an exception is Ctrl-C that reached a function, and not a failure of it.
fn is_interrupt(py: Python<'_>, exception: &PyErr) -> bool {
    exception.is_instance_of::<PyKeyboardInterrupt>(py)
}

/// The kind of a failure, unless it was an interrupt, or the interpreter ends: then the function is not to be called again.
pub fn kind_of(py: Python<'_>, exception: &PyErr, kind: ErrorKind) -> ErrorKind {
    let is_to_end = is_interrupt(py, exception) || exception.is_instance_of::<Ending>(py);
    if is_to_end { ErrorKind::Cancelled } else { kind }
}

/// A failure of a user's function as the engine carries it.
pub fn from_python(py: Python<'_>, exception: PyErr, what: &str) -> Error {
    let traceback = traceback(py, &exception);
    let message = format!("{what} raised {}", describe(py, &exception));
    let kind = kind_of(py, &exception, ErrorKind::UserFunction);
    Error::new(kind, message).traced(traceback).because(exception)
}

/// A failure of a user's source or sink as the engine carries it.
pub fn connector(py: Python<'_>, exception: PyErr, what: &str) -> Error {
    Error::new(kind_of(py, &exception, ErrorKind::Connector), format!("{what} raised {}", describe(py, &exception))).because(exception)
}

/// What an exception of the engine's own says.
pub fn message(py: Python<'_>, exception: &PyErr) -> String {
    exception.value(py).str().map_or_else(|_| String::new(), |text| text.to_string_lossy().into_owned())
}

/// A result of a user's function that does not fit its column, for this reason.
pub fn misfit(what: &str, message: &str) -> Error {
    Error::new(ErrorKind::UserFunction, format!("{what} returned a result that does not fit: {message}"))
        .because(SchemaError::new_err(message.to_owned()))
}

/// `ValueError: bad price`.
pub fn describe(py: Python<'_>, exception: &PyErr) -> String {
    let name = exception.get_type(py).name().map_or_else(|_| "an exception".to_owned(), |name| name.to_string());
    let text = message(py, exception);
    if text.is_empty() { name } else { format!("{name}: {text}") }
}

/// A record on which a user's function raised.
pub fn rejected(py: Python<'_>, what: &str, exception: PyErr, record: String) -> Rejected {
    Rejected::of(from_python(py, exception, what), record)
}

/// A value of Python's as text, cut to a sensible length.
pub fn repr_text(value: &Bound<'_, PyAny>) -> String {
    let text = value.repr().unwrap_or_else(|_| PyString::new(value.py(), "<a value whose repr raises>"));
    let text = text.to_string_lossy();
    match text.char_indices().nth(RECORD_CHARACTERS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into_owned(),
    }
}

/// The traceback as Python prints it; empty where it cannot be printed.
pub fn traceback(py: Python<'_>, exception: &PyErr) -> String {
    let formatted = || -> PyResult<String> {
        // With its traceback, which an exception that was caught here keeps beside itself.
        let raised = exception.clone_ref(py).into_value(py);
        let formatted = py.import("traceback")?.call_method1("format_exception", (raised,))?;
        Ok(formatted.extract::<Vec<String>>()?.concat())
    };
    formatted().unwrap_or_default()
}

/// Turns results of the engine into results of Python.
pub trait IntoPython<T> {
    /// The same value, or the exception for the failure.
    fn into_python(self) -> PyResult<T>;
}

impl<T> IntoPython<T> for mill_protocol::Result<T> {
    fn into_python(self) -> PyResult<T> {
        self.map_err(to_python)
    }
}
