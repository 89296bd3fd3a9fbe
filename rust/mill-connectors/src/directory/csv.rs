//! Writes CSV: a header, an empty field for null, `""` for empty text, moments in ISO 8601.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufWriter, Write as _};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use mill_protocol::{Error, Result};

use super::Encoder;
use crate::timestamp::utc_as_offset;

/// How much is gathered before it goes to the file.
pub(super) const WRITE_BYTES: usize = 256 << 10;

/// Refuses columns that have no form in CSV.
pub(super) fn check(schema: &SchemaRef) -> Result<()> {
    for field in schema.fields() {
        let data_type = field.data_type();
        let is_binary = matches!(
            data_type,
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_)
        );
        if is_nested(data_type) || is_binary {
            return Err(Error::schema(format!(
                "column {:?} is a {data_type}, which CSV cannot hold: unnest() or explode() it, or write JSON or Parquet",
                field.name()
            )));
        }
        let empty = utc_as_offset(&arrow::array::new_empty_array(data_type));
        ArrayFormatter::try_new(empty.as_ref(), &FormatOptions::new()).map_err(|e| {
            Error::schema(format!("column {:?}: a {data_type} cannot be written as text: {e}", field.name()))
        })?;
    }
    Ok(())
}

fn is_nested(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, value) => is_nested(value),
        other => other.is_nested(),
    }
}

pub(super) struct CsvEncoder {
    file: BufWriter<File>,
    row: String,
    header: Option<String>,
}

impl CsvEncoder {
    pub(super) fn new(schema: &SchemaRef, file: File) -> CsvEncoder {
        let mut header = String::new();
        for (index, field) in schema.fields().iter().enumerate() {
            if index > 0 {
                header.push(',');
            }
            push_text(field.name(), &mut header);
        }
        header.push('\n');
        CsvEncoder { file: BufWriter::with_capacity(WRITE_BYTES, file), row: String::new(), header: Some(header) }
    }
}

/// A column and how it becomes text.
enum Column<'a> {
    Text(&'a StringArray),
    Other(&'a dyn Array, ArrayFormatter<'a>),
}

/// Text with quotes where it needs them.
fn push_text(text: &str, out: &mut String) {
    let needs_quotes = text.is_empty() || text.bytes().any(|byte| matches!(byte, b',' | b'"' | b'\n' | b'\r'));
    if !needs_quotes {
        out.push_str(text);
        return;
    }
    out.push('"');
    for (index, part) in text.split('"').enumerate() {
        if index > 0 {
            out.push_str("\"\"");
        }
        out.push_str(part);
    }
    out.push('"');
}

fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, value) => is_text(value),
        _ => false,
    }
}

impl Encoder for CsvEncoder {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let failed = |e| Error::connector(format!("cannot write CSV: {e}"));
        if let Some(header) = self.header.take() {
            self.file.write_all(header.as_bytes()).map_err(failed)?;
        }
        let arrays: Vec<ArrayRef> = batch
            .columns()
            .iter()
            .map(|column| match column.data_type() {
                DataType::Utf8 => Ok(column.clone()),
                other if is_text(other) => cast(column, &DataType::Utf8),
                _ => Ok(utc_as_offset(column)),
            })
            .collect::<std::result::Result<_, _>>()
            .map_err(|e| Error::internal("text casts to text").because(e))?;
        let options = FormatOptions::new();
        let columns: Vec<Column<'_>> = arrays
            .iter()
            .map(|array| {
                Ok(match array.data_type() {
                    DataType::Utf8 => Column::Text(array.as_string()),
                    _ => Column::Other(array.as_ref(), ArrayFormatter::try_new(array.as_ref(), &options)?),
                })
            })
            .collect::<std::result::Result<_, arrow::error::ArrowError>>()
            .map_err(|e| Error::internal("the types were checked").because(e))?;
        for row in 0..batch.num_rows() {
            self.row.clear();
            for (index, column) in columns.iter().enumerate() {
                if index > 0 {
                    self.row.push(',');
                }
                match column {
                    Column::Text(array) if array.is_valid(row) => push_text(array.value(row), &mut self.row),
                    Column::Other(array, formatter) if array.is_valid(row) => write!(self.row, "{}", formatter.value(row))
                        .map_err(|_| Error::data(format!("row {row}: a value cannot be written as text")))?,
                    _ => {}
                }
            }
            self.row.push('\n');
            self.file.write_all(self.row.as_bytes()).map_err(failed)?;
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<File> {
        self.file.into_inner().map_err(|e| Error::connector(format!("cannot write CSV: {e}")))
    }
}
