//! The Python binding of Millstream: the only crate that knows Python.
//!
//! ```text
//!   millstream/*.py ──_engine.py──► this module ──► mill-plan (streams, expressions) ──► millstream (jobs)
//!        ▲                             │
//!        └── adapters, one call a frame ┘            functions.rs, sources.rs, sinks.rs
//! ```
//!
//! The classes here are thin: everything users see is Python, and everything that runs is in the crates below. This crate
//! adds conversion (`types`, `to_python`, `from_python`), the mapping of failures to exceptions (`error`), and
//! implementations of the engine's traits that call Python code. The interpreter is held while Python objects are touched
//! and at no other time.

mod allocator;
mod attach;
mod compiled;
mod error;
mod expr;
mod faults;
mod files;
mod from_python;
mod functions;
mod import;
mod job;
mod join;
mod kafka;
mod keyed;
mod mysql;
mod polars;
mod postgres;
mod sinks;
mod sources;
mod state;
mod stream;
mod table;
mod testing;
mod to_python;
mod types;
mod window;

use pyo3::prelude::*;

/// The version of the engine.
#[pyfunction]
fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

/// The compiled module behind the package `millstream`; only `millstream._engine` imports it.
#[pymodule]
mod _millstream {
    #[pymodule_export]
    use super::compiled::compiled_function;
    #[pymodule_export]
    use super::expr::{RawExpr, expression_functions};
    #[pymodule_export]
    use super::faults::{RawDisk, arm, disarm};
    #[pymodule_export]
    use super::files::{configure_storage, read_files, write_files, write_sqlite};
    #[pymodule_export]
    use super::functions::{RawWaker, RawWatermarkFunction, aggregate_function, column_function};
    #[pymodule_export]
    use super::job::{
        RawJob, RawReceiver, check_start, end_interpreter, engine_threads, interrupt_threads, receive, simulate, start,
    };
    #[pymodule_export]
    use super::join::RawJoin;
    #[pymodule_export]
    use super::kafka::{read_kafka, write_kafka};
    #[pymodule_export]
    use super::keyed::RawKeyedStream;
    #[pymodule_export]
    use super::mysql::{read_mysql, write_mysql};
    #[pymodule_export]
    use super::postgres::{RawPostgresTable, read_postgres, read_postgres_changes, write_postgres};
    #[pymodule_export]
    use super::sinks::RawEnding;
    #[pymodule_export]
    use super::state::{checkpoints, explain, graph, pickled_state, plan_of, read_state, state_diff, verify};
    #[pymodule_export]
    use super::stream::{RawSink, RawStream, stream_of_table};
    #[pymodule_export]
    use super::table::{RawTable, rows_to_table};
    #[pymodule_export]
    use super::testing::{RawClock, RawHandJob, RawLedger, RawPushedSource};
    #[pymodule_export]
    use super::types::{PyDataType, RawSchema};
    #[pymodule_export]
    use super::version;
    #[pymodule_export]
    use super::window::{RawWindow, RawWindowedStream};

    #[pymodule_init]
    fn init(_module: &pyo3::Bound<'_, pyo3::types::PyModule>) -> pyo3::PyResult<()> {
        super::allocator::keep_what_is_freed();
        mill_frame::text::show_objects_with(super::functions::object_json);
        Ok(())
    }
}
