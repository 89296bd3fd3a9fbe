//! Writes CSV: a header, an empty field for null, `""` for empty text, every value in the form that `read_csv` reads back.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray, new_empty_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use mill_frame::text::TextColumn;
use mill_frame::types::type_name;
use mill_protocol::{Error, Result};

use super::Encoder;
use crate::objects::advice;
use super::lines::Lines;
use super::output::{Output, Packing};

/// What CSV looks like.
#[derive(Clone, Debug)]
pub struct CsvWriting {
    /// Whether the first row of each file names the columns.
    pub include_header: bool,
    /// What separates fields.
    pub separator: u8,
    /// What encloses fields that need it.
    pub quote: u8,
    /// What is written for null.
    pub null_value: String,
    /// Whether numbers have a comma where others have a point.
    pub decimal_comma: bool,
    /// The forms of times with a date, dates, and times of day, as `strftime` has them; `None`: ISO 8601.
    pub datetime_format: Option<String>,
    /// The form of dates.
    pub date_format: Option<String>,
    /// The form of times of day.
    pub time_format: Option<String>,
}

impl Default for CsvWriting {
    fn default() -> CsvWriting {
        CsvWriting {
            include_header: true,
            separator: b',',
            quote: b'"',
            null_value: String::new(),
            decimal_comma: false,
            datetime_format: None,
            date_format: None,
            time_format: None,
        }
    }
}

impl CsvWriting {
    /// Refuses options that contradict each other.
    pub(super) fn check(&self) -> Result<()> {
        let refused = |message: &str| Err(Error::plan(format!("write_csv: {message}")));
        for (name, byte) in [("separator", self.separator), ("quote_char", self.quote)] {
            if !byte.is_ascii() || matches!(byte, b'\n' | b'\r' | 0) {
                return refused(&format!("{name} is one ASCII character that ends no line, not {:?}", byte as char));
            }
        }
        if self.separator == self.quote {
            return refused("separator and quote_char are the same character");
        }
        if self.decimal_comma && self.separator == b',' {
            return refused("with decimal_comma the separator is another character: separator=\";\"");
        }
        if self.decimal_comma && self.quote == b',' {
            return refused("with decimal_comma the quote_char is another character");
        }
        if self.needs_quotes(&self.null_value) && !self.null_value.is_empty() {
            return refused("null_value is written without quotes, and has a character that needs them");
        }
        for (name, format) in
            [("datetime_format", &self.datetime_format), ("date_format", &self.date_format), ("time_format", &self.time_format)]
        {
            if format.as_ref().is_some_and(String::is_empty) {
                return refused(&format!("{name} is empty, and would show nothing of a time"));
            }
        }
        Ok(())
    }

    /// The form that values of this type are written in, if it is another than ours.
    fn format_of(&self, data_type: &DataType) -> Option<&str> {
        match data_type {
            DataType::Timestamp(..) => self.datetime_format.as_deref(),
            DataType::Date32 | DataType::Date64 => self.date_format.as_deref(),
            DataType::Time32(_) | DataType::Time64(_) => self.time_format.as_deref(),
            _ => None,
        }
    }

    fn needs_quotes(&self, text: &str) -> bool {
        text.is_empty() || text.bytes().any(|byte| byte == self.separator || byte == self.quote || matches!(byte, b'\n' | b'\r'))
    }

    /// Text with quotes where it needs them.
    fn push_text(&self, text: &str, out: &mut String) {
        if self.needs_quotes(text) {
            self.push_quoted(text, out);
        } else {
            out.push_str(text);
        }
    }

    fn push_quoted(&self, text: &str, out: &mut String) {
        let quote = self.quote as char;
        out.push(quote);
        for (index, part) in text.split(quote).enumerate() {
            if index > 0 {
                out.push(quote);
                out.push(quote);
            }
            out.push_str(part);
        }
        out.push(quote);
    }

    /// The first row of a file.
    pub(super) fn header(&self, schema: &SchemaRef) -> String {
        let mut header = String::new();
        if !self.include_header {
            return header;
        }
        for (index, field) in schema.fields().iter().enumerate() {
            if index > 0 {
                header.push(self.separator as char);
            }
            let name = field.name();
            // Spaces around a name are kept only within quotes; a mark at the front of a file is not taken for a name.
            match name.trim() != name || name.starts_with('\u{FEFF}') {
                true => self.push_quoted(name, &mut header),
                false => self.push_text(name, &mut header),
            }
        }
        header.push('\n');
        header
    }

    /// The options that are not as they are by default, as Python spells them.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        let default = CsvWriting::default();
        if !self.include_header {
            text.push_str(", include_header=False");
        }
        for (name, byte, usual) in [("separator", self.separator, default.separator), ("quote_char", self.quote, default.quote)] {
            if byte != usual {
                write!(text, ", {name}={:?}", (byte as char).to_string()).expect("a string takes all");
            }
        }
        if !self.null_value.is_empty() {
            write!(text, ", null_value={:?}", self.null_value).expect("a string takes all");
        }
        if self.decimal_comma {
            text.push_str(", decimal_comma=True");
        }
        for (name, format) in
            [("datetime_format", &self.datetime_format), ("date_format", &self.date_format), ("time_format", &self.time_format)]
        {
            if let Some(format) = format {
                write!(text, ", {name}={format:?}").expect("a string takes all");
            }
        }
        text
    }
}

/// Refuses columns that have no form in CSV.
pub(super) fn check(schema: &SchemaRef, writing: &CsvWriting) -> Result<()> {
    for (index, field) in schema.fields().iter().enumerate() {
        if field.name().is_empty() {
            return Err(Error::schema(format!("column {} has no name, which a header of CSV cannot hold: rename() it", index + 1)));
        }
        let data_type = field.data_type();
        let column = TextColumn::new(&new_empty_array(data_type))
            .map_err(|e| Error::schema(format!("column {:?} cannot be written as CSV: {e}", field.name())).because(e))?;
        if column.is_none() || is_binary(data_type) {
            return Err(Error::schema(format!(
                "column {:?} is {}, which CSV cannot hold: {}",
                field.name(),
                type_name(data_type),
                advice(data_type)
            )));
        }
        if let Some(format) = writing.format_of(data_type) {
            // A moment shows whether the form is one: what it lacks, such as a time of day, no moment has.
            let zero = cast(&new_zero(data_type)?, data_type).map_err(|e| Error::schema(e.to_string()))?;
            formatted(&zero, format, field.name()).map_err(|e| Error::plan(format!("write_csv: {}", e.message())))?;
        }
    }
    Ok(())
}

/// The zero of a type of times, as an array of one row.
fn new_zero(data_type: &DataType) -> Result<ArrayRef> {
    let zero: ArrayRef = match data_type {
        DataType::Date32 | DataType::Time32(_) => Arc::new(Int32Array::from(vec![0])),
        _ => Arc::new(Int64Array::from(vec![0])),
    };
    Ok(zero)
}

/// Times as text of this form.
fn formatted(array: &ArrayRef, format: &str, column: &str) -> Result<ArrayRef> {
    let options = FormatOptions::new()
        .with_timestamp_format(Some(format))
        .with_timestamp_tz_format(Some(format))
        .with_datetime_format(Some(format))
        .with_date_format(Some(format))
        .with_time_format(Some(format));
    let failed = |error: String| {
        Error::data(format!("column {column:?}: {format:?} is no form of {}: {error}", mill_frame::words::with_article(type_name(array.data_type()))))
    };
    let formatter = ArrayFormatter::try_new(array.as_ref(), &options).map_err(|e| failed(e.to_string()))?;
    let texts = (0..array.len()).map(|row| match array.is_null(row) {
        true => Ok(None),
        false => formatter.value(row).try_to_string().map(Some).map_err(|e| failed(e.to_string())),
    });
    Ok(Arc::new(texts.collect::<Result<StringArray>>()?))
}

fn is_binary(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, value) => is_binary(value),
        DataType::FixedSizeBinary(_) => true,
        other => other.is_binary(),
    }
}

pub(super) struct CsvEncoder {
    output: Output,
    lines: Lines,
    header: Option<String>,
    writing: CsvWriting,
    names: Vec<String>,
}

/// A column on its way to fields.
struct Cells {
    column: TextColumn,
    has_decimal_comma: bool,
}

impl CsvEncoder {
    pub(super) fn new(schema: &SchemaRef, file: File, packing: Packing, writing: &CsvWriting, threads: usize) -> Result<CsvEncoder> {
        Ok(CsvEncoder {
            output: Output::new(file, packing).map_err(failed)?,
            lines: Lines::new(threads),
            header: Some(writing.header(schema)),
            writing: writing.clone(),
            names: schema.fields().iter().map(|field| field.name().clone()).collect(),
        })
    }

    fn write_header(&mut self) -> Result<()> {
        match self.header.take() {
            Some(header) => self.output.write_all(header.as_bytes()).map_err(failed),
            None => Ok(()),
        }
    }

    fn cells(&self, array: &ArrayRef, name: &str) -> Result<Cells> {
        let data_type = array.data_type();
        let array = match self.writing.format_of(data_type) {
            Some(format) => formatted(array, format, name)?,
            None => Arc::clone(array),
        };
        let column = TextColumn::new(&array)
            .map_err(|e| Error::data(format!("a column cannot be written as CSV: {e}")).because(e))?
            .ok_or_else(|| Error::internal("the types were checked"))?;
        let has_decimal_comma = self.writing.decimal_comma && data_type.is_numeric() && !data_type.is_integer();
        Ok(Cells { column, has_decimal_comma })
    }
}

/// The rows of a batch on their way to text.
struct Rows<'w> {
    cells: Vec<Cells>,
    names: &'w [String],
    writing: &'w CsvWriting,
    /// Whether no value of ours has a separator or a quote: digits, letters, signs, points and colons.
    is_usual: bool,
}

impl<'w> Rows<'w> {
    fn new(cells: Vec<Cells>, names: &'w [String], writing: &'w CsvWriting) -> Rows<'w> {
        let is_usual = matches!(writing.separator, b',' | b';' | b'\t' | b'|') && writing.quote == b'"';
        Rows { cells, names, writing, is_usual }
    }

    fn push(&self, range: Range<usize>, out: &mut String) -> Result<()> {
        for row in range {
            for (index, Cells { column, has_decimal_comma }) in self.cells.iter().enumerate() {
                if index > 0 {
                    out.push(self.writing.separator as char);
                }
                if column.is_null(row) {
                    out.push_str(&self.writing.null_value);
                    continue;
                }
                let start = out.len();
                match column.text(row) {
                    Some(text) => self.writing.push_text(text, out),
                    None if *has_decimal_comma => {
                        column.push(row, out);
                        if let Some(point) = out[start..].find('.') {
                            out.replace_range(start + point..=start + point, ",");
                        }
                    }
                    None => {
                        column.push(row, out);
                        // With another separator a value of ours may have it, as a time has colons and hyphens.
                        let is_unfit = |byte: u8| byte == self.writing.separator || byte == self.writing.quote;
                        if !self.is_usual && out[start..].bytes().any(is_unfit) {
                            let value = out.split_off(start);
                            self.writing.push_quoted(&value, out);
                        }
                    }
                }
                if !self.writing.null_value.is_empty() && out[start..] == self.writing.null_value {
                    return Err(Error::data(format!(
                        "column {:?} has the value {:?}, which null_value writes for null: choose another null_value",
                        self.names[index], self.writing.null_value
                    )));
                }
            }
            out.push('\n');
        }
        Ok(())
    }
}

fn failed(e: std::io::Error) -> Error {
    Error::connector(format!("cannot write CSV: {e}")).because(e)
}

impl Encoder for CsvEncoder {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.write_header()?;
        let cells: Vec<Cells> =
            batch.columns().iter().zip(&self.names).map(|(column, name)| self.cells(column, name)).collect::<Result<_>>()?;
        let rows = Rows::new(cells, &self.names, &self.writing);
        self.lines.write(batch.num_rows(), &mut self.output, |range, text| rows.push(range, text), failed)
    }

    fn flush(&mut self) -> Result<()> {
        self.output.flush().map_err(failed)
    }

    fn bytes(&self) -> u64 {
        self.output.bytes()
    }

    fn finish(mut self: Box<Self>) -> Result<File> {
        self.write_header()?;
        self.output.finish().map_err(failed)
    }
}
