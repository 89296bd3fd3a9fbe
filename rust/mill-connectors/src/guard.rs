//! The boundary to the Parquet and Arrow libraries: their errors and panics become errors that name the file.
//!
//! They assume that some kinds of damage cannot happen, and panic. Such a panic is a fact about the file, so it is caught
//! here, around the smallest calls that read bytes of the file, and becomes an error like any other. Nothing that a caught
//! call was changing is used afterwards: metadata that could not be read is never stored, and a reader that panicked is
//! dropped.

use std::any::Any;
use std::cell::Cell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::path::Path;
use std::sync::Once;

use ::parquet::errors::ParquetError;
use arrow::error::ArrowError;
use mill_protocol::{Error, Result};

thread_local! {
    /// Whether this thread is within [`guarded`], where a panic becomes an error and need not be printed.
    static IS_GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// What such a library reports.
pub(crate) trait Reported: std::error::Error + Send + Sync + 'static {
    /// What is wrong with the file, without the kind of the error.
    fn text(&self) -> String;
}

impl Reported for ParquetError {
    fn text(&self) -> String {
        match self {
            ParquetError::General(text) | ParquetError::EOF(text) | ParquetError::ArrowError(text) => text.clone(),
            ParquetError::NYI(text) => format!("it is written in a way that is not supported: {text}"),
            ParquetError::External(error) => error.to_string(),
            other => other.to_string(),
        }
    }
}

impl Reported for ArrowError {
    fn text(&self) -> String {
        match self {
            ArrowError::IpcError(text)
            | ArrowError::ParseError(text)
            | ArrowError::InvalidArgumentError(text)
            | ArrowError::IoError(text, _) => text.clone(),
            ArrowError::NotYetImplemented(text) => format!("it is written in a way that is not supported: {text}"),
            other => other.to_string(),
        }
    }
}

/// Calls such a library; `doing` completes "cannot … the file".
///
/// # Errors
/// When it fails, or panics.
pub(crate) fn guarded<T, E: Reported>(
    path: &Path,
    doing: &str,
    call: impl FnOnce() -> std::result::Result<T, E>,
) -> Result<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let printed = take_hook();
        set_hook(Box::new(move |panic| {
            if !IS_GUARDED.get() {
                printed(panic);
            }
        }));
    });
    IS_GUARDED.set(true);
    let called = catch_unwind(AssertUnwindSafe(call));
    IS_GUARDED.set(false);
    match called {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Error::connector(format!("cannot {doing} {path:?}: {}", error.text())).because(error)),
        Err(panic) => Err(Error::connector(format!(
            "cannot {doing} {path:?}: the file is damaged, or written in a way that is not supported; write it again, or leave it out"
        ))
        .because(Panicked(text_of(panic.as_ref()).to_owned()))),
    }
}

/// What a library panicked about.
#[derive(Debug)]
pub(crate) struct Panicked(String);

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the library that reads it panicked: {}", self.0)
    }
}

impl std::error::Error for Panicked {}

fn text_of(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no reason is known")
}
