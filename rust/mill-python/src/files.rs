//! Files and databases: the readers and writers of `mill-connectors` with what Python says of them.

use std::sync::Arc;

use mill_connectors::{PathSpec, TextOptions, TextSource};
use mill_protocol::Sink;
use pyo3::prelude::*;

use crate::error::{IntoPython, PlanError};
use crate::stream::{RawSink, RawStream};
use crate::types::RawSchema;

/// Reads files of a kind.
#[pyfunction]
#[pyo3(signature = (kind, paths, schema, follow))]
pub fn read_files(
    py: Python<'_>,
    kind: &str,
    paths: Vec<String>,
    schema: Option<PyRef<'_, RawSchema>>,
    follow: bool,
) -> PyResult<RawStream> {
    let paths = PathSpec::new(paths);
    let schema = schema.map(|schema| Arc::clone(&schema.schema));
    // Looking for files, and into the first of them, may take a while.
    py.detach(|| match kind {
        "text" => TextSource::new(paths, TextOptions { follow }).map(RawStream::of).into_python(),
        _ => Err(PlanError::new_err(format!("no files of the kind {kind:?} {}", schema.is_some()))),
    })
}

/// Puts a sink behind a stream.
pub fn sink_to(stream: &RawStream, sink: Arc<dyn Sink>) -> PyResult<RawSink> {
    Ok(RawSink { node: stream.stream.sink(sink).into_python()? })
}
