//! Panics as errors: a panic is a bug in a step, and fails the job instead of the process.

use std::any::Any;

use mill_protocol::Error;

/// The error that stands for a panic.
pub(crate) fn as_error(panic: Box<dyn Any + Send>) -> Error {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    Error::internal(format!("panicked: {}", text.as_deref().unwrap_or("no message")))
}
