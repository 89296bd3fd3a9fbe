//! Writes CSV: a header, an empty field for null, `""` for empty text, every value in the form that `read_csv` reads back.

use std::fs::File;
use std::io::{BufWriter, Write as _};

use arrow::array::{RecordBatch, new_empty_array};
use arrow::datatypes::{DataType, SchemaRef};
use mill_frame::text::TextColumn;
use mill_frame::types::type_name;
use mill_protocol::{Error, Result};

use super::Encoder;

/// How much is gathered before it goes to the file.
pub(super) const WRITE_BYTES: usize = 256 << 10;

/// Refuses columns that have no form in CSV.
pub(super) fn check(schema: &SchemaRef) -> Result<()> {
    for (index, field) in schema.fields().iter().enumerate() {
        if field.name().is_empty() {
            return Err(Error::schema(format!("column {} has no name, which a header of CSV cannot hold: rename() it", index + 1)));
        }
        let data_type = field.data_type();
        let column = TextColumn::new(&new_empty_array(data_type))
            .map_err(|e| Error::schema(format!("column {:?} cannot be written as CSV: {e}", field.name())).because(e))?;
        if column.is_none() || is_binary(data_type) {
            return Err(Error::schema(format!(
                "column {:?} is a {}, which CSV cannot hold: unnest() or explode() it, or write JSON or Parquet",
                field.name(),
                type_name(data_type)
            )));
        }
    }
    Ok(())
}

fn is_binary(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, value) => is_binary(value),
        DataType::FixedSizeBinary(_) => true,
        other => other.is_binary(),
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
            let name = field.name();
            // Spaces around a name are kept only within quotes; a mark at the front of a file is not taken for a name.
            match name.trim() != name || name.starts_with('\u{FEFF}') {
                true => push_quoted(name, &mut header),
                false => push_text(name, &mut header),
            }
        }
        header.push('\n');
        CsvEncoder { file: BufWriter::with_capacity(WRITE_BYTES, file), row: String::new(), header: Some(header) }
    }

    fn write_header(&mut self) -> Result<()> {
        match self.header.take() {
            Some(header) => self.file.write_all(header.as_bytes()).map_err(failed),
            None => Ok(()),
        }
    }
}

fn failed(e: std::io::Error) -> Error {
    Error::connector(format!("cannot write CSV: {e}")).because(e)
}

/// Text with quotes where it needs them.
fn push_text(text: &str, out: &mut String) {
    let needs_quotes = text.is_empty() || text.bytes().any(|byte| matches!(byte, b',' | b'"' | b'\n' | b'\r'));
    if needs_quotes {
        push_quoted(text, out);
    } else {
        out.push_str(text);
    }
}

fn push_quoted(text: &str, out: &mut String) {
    out.push('"');
    for (index, part) in text.split('"').enumerate() {
        if index > 0 {
            out.push_str("\"\"");
        }
        out.push_str(part);
    }
    out.push('"');
}

impl Encoder for CsvEncoder {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.write_header()?;
        let columns: Vec<TextColumn> = batch
            .columns()
            .iter()
            .map(|column| {
                TextColumn::new(column)
                    .map_err(|e| Error::data(format!("a column cannot be written as CSV: {e}")).because(e))?
                    .ok_or_else(|| Error::internal("the types were checked"))
            })
            .collect::<Result<_>>()?;
        for row in 0..batch.num_rows() {
            self.row.clear();
            for (index, column) in columns.iter().enumerate() {
                if index > 0 {
                    self.row.push(',');
                }
                if column.is_null(row) {
                    continue;
                }
                match column.text(row) {
                    Some(text) => push_text(text, &mut self.row),
                    None => column.push(row, &mut self.row),
                }
            }
            self.row.push('\n');
            self.file.write_all(self.row.as_bytes()).map_err(failed)?;
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<File> {
        self.write_header()?;
        self.file.into_inner().map_err(|e| Error::connector(format!("cannot write CSV: {e}")))
    }
}
