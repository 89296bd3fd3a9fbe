//! User code in Python, as the traits of the plan ask for it.
//!
//! The interpreter is taken once a frame: columns become lists, an adapter in `millstream.functions` loops over them in C
//! (`list.extend(map(function, rows))`), and the results become columns again.
//!
//! ```text
//!   frame ─► lists ─► adapter(lists, rows) ─► (results, origin, failures) ─► frame + rejected
//! ```
//!
//! [`records`] calls a function once a record, [`batches`] once a frame, [`columns`] in expressions, [`folds`] for the
//! records of a key, [`windows`] for those of a window, [`process`] for records and timers, with state, [`watermarks`] to make
//! watermarks, [`asynchronous`] starts coroutines and takes their results when they have come.

mod asynchronous;
mod batches;
mod columns;
mod folds;
mod process;
mod records;
mod watermarks;
mod windows;

use std::fmt;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::Field;
use mill_frame::text::push_json_string;
use mill_protocol::Error;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyString};

pub use self::asynchronous::{PythonAsync, RawWaker};
pub use self::batches::{ArrowFunction, arrow_batch, conform};
pub use self::columns::column_function;
pub use self::folds::{FoldFunction, aggregate_function};
pub use self::process::{Declared, PythonProcess, state_specs};
pub use self::records::RecordFunction;
pub use self::watermarks::RawWatermarkFunction;
pub use self::windows::WholeWindowFunction;
use crate::attach::attach;
use crate::error::{describe, repr_text};
use crate::to_python::{column_to_list, column_to_sequence};

/// What every Python function has: what it is called, and the adapter that loops over it.
struct Adapter {
    name: String,
    call: Py<PyAny>,
}

impl fmt::Debug for Adapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

fn arrow_error(error: arrow::error::ArrowError) -> Error {
    Error::internal(format!("arrow: {error}"))
}

/// A frame's columns as sequences, without those that the function never looks at.
fn lists<'py>(py: Python<'py>, batch: &RecordBatch, used: Option<&[bool]>) -> PyResult<Bound<'py, PyList>> {
    let out = PyList::empty(py);
    for (index, (column, field)) in batch.columns().iter().zip(batch.schema().fields()).enumerate() {
        if used.is_some_and(|used| !used.get(index).copied().unwrap_or(true)) {
            continue;
        }
        out.append(column_to_sequence(py, column, field)?)?;
    }
    Ok(out)
}

/// The only value of a column of objects as JSON: what records show of it.
pub(crate) fn object_json(field: &Field, column: &ArrayRef) -> Option<String> {
    attach(|py| {
        let value = column_to_list(py, column, field).and_then(|values| values.get_item(0));
        Some(match value {
            Ok(value) => value_json(&value),
            // Its class has gone, or cannot be unpickled.
            Err(error) => value_json(&PyString::new(py, &format!("<an object that cannot be unpickled: {}>", describe(py, &error)))),
        })
    })
}

/// A value of Python's as JSON; what it has no JSON for is the text that Python shows of it.
pub(crate) fn value_json(value: &Bound<'_, PyAny>) -> String {
    let json = || value.py().import("millstream._objects")?.getattr("to_json")?.call1((value,))?.extract::<String>();
    json().unwrap_or_else(|_: PyErr| {
        let mut text = String::new();
        push_json_string(&repr_text(value), &mut text);
        text
    })
}
