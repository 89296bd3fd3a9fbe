//! Files and databases: the readers and writers of `mill-connectors` with what Python says of them.

use std::sync::Arc;

use millstream::connectors::{
    CsvOptions, CsvSource, DirectorySink, FileFormat, JsonOptions, JsonSource, OnExisting, ParquetOptions, ParquetSource,
    PathSpec, SqliteSink, TextOptions, TextSource,
};
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
        "text" => TextSource::new(paths, TextOptions { follow }).and_then(RawStream::of).into_python(),
        "csv" => {
            let options = CsvOptions { follow, ..CsvOptions::default() };
            CsvSource::new(paths, schema, options).and_then(RawStream::of).into_python()
        }
        "json" => JsonSource::new(paths, schema, JsonOptions { follow }).and_then(RawStream::of).into_python(),
        "parquet" => ParquetSource::new(paths, schema, ParquetOptions { follow }).and_then(RawStream::of).into_python(),
        _ => Err(PlanError::new_err(format!("no files of the kind {kind:?}"))),
    })
}

/// Writes files of a kind into a directory; `replaces` says whether those of earlier runs may go.
#[pyfunction]
pub fn write_files(stream: PyRef<'_, RawStream>, kind: &str, path: &str, replaces: bool) -> PyResult<RawSink> {
    let format = match kind {
        "csv" => FileFormat::Csv,
        "json" => FileFormat::Json,
        "parquet" => FileFormat::Parquet,
        _ => return Err(PlanError::new_err(format!("no files of the kind {kind:?}"))),
    };
    let on_existing = if replaces { OnExisting::Replace } else { OnExisting::Refuse };
    let sink = DirectorySink::new(path, format).into_python()?.on_existing(on_existing);
    Ok(RawSink { node: stream.stream.sink(Arc::new(sink)).into_python()? })
}

/// Writes into a table of an SQLite database; with a key the latest row of each is kept.
#[pyfunction]
#[pyo3(signature = (stream, path, table, key))]
pub fn write_sqlite(
    stream: PyRef<'_, RawStream>,
    path: &str,
    table: &str,
    key: Option<Vec<String>>,
) -> PyResult<RawSink> {
    let sink = SqliteSink::new(path, table, key).into_python()?;
    Ok(RawSink { node: stream.stream.sink(Arc::new(sink)).into_python()? })
}
