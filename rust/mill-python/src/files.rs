//! Files and databases: the readers and writers of `mill-connectors` with the options from Python.

use std::sync::Arc;

use mill_protocol::Error;
use millstream::connectors::{
    ArrowOptions, ArrowSource, CsvOptions, CsvSource, CsvWriting, DirectorySink, FileFormat, FileOptions, JsonLayout, JsonOptions,
    JsonSource, OnExisting, ParquetOptions, ParquetSource, PathSpec, SqliteSink, StdoutSink, TextOptions, TextSource, WriteOptions,
};
use pyo3::prelude::*;

use crate::error::{IntoPython, PlanError};
use crate::job::interruptible;
use crate::stream::{RawSink, RawStream};
use crate::types::RawSchema;

/// What Python says of how files are read, whatever is in them.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct Reading<'py> {
    follow: bool,
    columns: Option<Vec<String>>,
    recursive: bool,
    include_file_paths: Option<String>,
    row_index: Option<(String, i64)>,
    hive_partitioning: bool,
    hive_schema: Option<PyRef<'py, RawSchema>>,
    insert_missing_columns: bool,
}

/// What it says of how CSV is read.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct ReadingCsv {
    separator: u8,
    quote_char: Option<u8>,
    escape_char: Option<u8>,
    has_header: bool,
    new_columns: Option<Vec<String>>,
    skip_lines: usize,
    skip_rows: usize,
    skip_rows_after_header: usize,
    comment_prefix: Option<String>,
    null_values: Vec<String>,
    column_nulls: Vec<(String, Vec<String>)>,
    truncate_ragged_lines: bool,
    try_parse_dates: bool,
    decimal_comma: bool,
    is_lossy: bool,
}

impl From<Reading<'_>> for FileOptions {
    fn from(reading: Reading<'_>) -> FileOptions {
        FileOptions {
            follow: reading.follow,
            columns: reading.columns,
            recursive: reading.recursive,
            include_file_paths: reading.include_file_paths,
            row_index: reading.row_index,
            hive_partitioning: reading.hive_partitioning,
            hive_schema: reading.hive_schema.map(|schema| Arc::clone(&schema.schema)),
            insert_missing_columns: reading.insert_missing_columns,
        }
    }
}

impl ReadingCsv {
    fn options(self, files: FileOptions) -> CsvOptions {
        CsvOptions {
            separator: self.separator,
            quote: self.quote_char,
            escape: self.escape_char,
            has_header: self.has_header,
            new_columns: self.new_columns,
            skip_lines: self.skip_lines,
            skip_rows: self.skip_rows,
            skip_rows_after_header: self.skip_rows_after_header,
            comment_prefix: self.comment_prefix,
            null_values: self.null_values,
            column_nulls: self.column_nulls,
            truncate_ragged_lines: self.truncate_ragged_lines,
            try_parse_dates: self.try_parse_dates,
            decimal_comma: self.decimal_comma,
            is_lossy: self.is_lossy,
            files,
        }
    }
}

/// Reads files of a kind.
#[pyfunction]
#[pyo3(signature = (kind, paths, schema, reading, csv=None, layout=None))]
pub fn read_files(
    py: Python<'_>,
    kind: &str,
    paths: Vec<String>,
    schema: Option<PyRef<'_, RawSchema>>,
    reading: Reading<'_>,
    csv: Option<ReadingCsv>,
    layout: Option<&str>,
) -> PyResult<RawStream> {
    let layout = match layout {
        Some("lines") => JsonLayout::Lines,
        Some("values") => JsonLayout::Values,
        _ => JsonLayout::Auto,
    };
    let may_wait = paths.iter().any(|path| path == "-" || path.contains("://"));
    let paths = PathSpec::new(paths);
    let schema = schema.map(|schema| Arc::clone(&schema.schema));
    let files = FileOptions::from(reading);
    let kind = kind.to_owned();
    let open = move || match (kind.as_str(), csv) {
        ("text", _) => TextSource::new(paths, TextOptions { files })?.with_options(),
        ("csv", Some(csv)) => CsvSource::new(paths, schema, csv.options(files))?.with_options(),
        ("json", _) => JsonSource::new(paths, schema, JsonOptions { layout, files })?.with_options(),
        ("arrow", _) => ArrowSource::open(paths, schema, ArrowOptions { files }),
        ("parquet", _) => ParquetSource::new(paths, schema, ParquetOptions { files })?.with_options(),
        (other, _) => Err(Error::plan(format!("no files of the kind {other:?}"))),
    };
    // Whoever writes into a pipe may take however long, and so may a store. Looking for files, and into the first of them, takes a
    // while only.
    let source = if may_wait { Ok(interruptible(py, open)?) } else { py.detach(open) };
    source.and_then(RawStream::of_shared).into_python()
}

/// Sets the options of the object stores whose URLs begin with this.
#[pyfunction]
pub fn configure_storage(prefix: &str, options: Vec<(String, String)>) -> PyResult<()> {
    millstream::connectors::configure_storage(prefix, options).into_python()
}

/// What Python says of how files are written.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct Writing {
    replaces: bool,
    compression: Option<String>,
    compression_level: Option<i32>,
    row_group_size: Option<usize>,
    partition_by: Vec<String>,
    max_rows_per_file: Option<u64>,
    approximate_bytes_per_file: Option<u64>,
    include_header: bool,
    separator: u8,
    quote_char: u8,
    null_value: String,
    decimal_comma: bool,
    datetime_format: Option<String>,
    date_format: Option<String>,
    time_format: Option<String>,
}

/// Writes files of a kind.
#[pyfunction]
pub fn write_files(py: Python<'_>, stream: PyRef<'_, RawStream>, kind: &str, path: &str, writing: Writing) -> PyResult<RawSink> {
    let format = match kind {
        "csv" => FileFormat::Csv,
        "json" => FileFormat::Json,
        "parquet" => FileFormat::Parquet,
        "arrow" => FileFormat::Arrow,
        _ => return Err(PlanError::new_err(format!("no files of the kind {kind:?}"))),
    };
    let on_existing = if writing.replaces { OnExisting::Replace } else { OnExisting::Refuse };
    let options = WriteOptions {
        compression: writing.compression,
        compression_level: writing.compression_level,
        csv: CsvWriting {
            include_header: writing.include_header,
            separator: writing.separator,
            quote: writing.quote_char,
            null_value: writing.null_value,
            decimal_comma: writing.decimal_comma,
            datetime_format: writing.datetime_format,
            date_format: writing.date_format,
            time_format: writing.time_format,
        },
        row_group_size: writing.row_group_size,
        partition_by: writing.partition_by,
        max_rows_per_file: writing.max_rows_per_file,
        approximate_bytes_per_file: writing.approximate_bytes_per_file,
    };
    if path == "-" {
        if writing.replaces {
            return Err(PlanError::new_err(format!(
                "write_{kind}(\"-\"): on_existing is about files, and standard output is none; leave it out"
            )));
        }
        let sink = StdoutSink::new(format, options).into_python()?;
        return Ok(RawSink { node: stream.stream.sink(Arc::new(sink)).into_python()? });
    }
    let target = path.to_owned();
    let open = move || DirectorySink::with_options(target, format, options);
    // A store may take however long to answer.
    let sink = if path.contains("://") { interruptible(py, open)? } else { open().into_python()? };
    let sink = sink.on_existing(on_existing);
    if let Some(file) = sink.one_file()
        && !stream.stream.is_bounded()
    {
        return Err(PlanError::new_err(format!(
            "write_{kind}({file:?}) makes one file at the end of the input, and this input has no end: give a directory, as in \
             \"out/\", which gets a file at each checkpoint"
        )));
    }
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
