//! Writes JSON, an object a line: every column in every line, null where there is no value, every value in the form that
//! `read_json` reads back ([`mill_frame::json`]).

use std::fs::File;
use std::io::Write as _;
use std::ops::Range;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use mill_frame::json::{JsonRows, check_writable, names};
use mill_protocol::{Error, Result};

use super::Encoder;
use super::lines::Lines;
use super::output::{Output, Packing};

/// Refuses columns that have no form in JSON.
pub(crate) fn check(schema: &SchemaRef) -> Result<()> {
    for field in schema.fields() {
        check_writable(field.data_type())
            .map_err(|e| Error::schema(format!("column {:?} cannot be written as JSON: {}", field.name(), unfit(e).message())))?;
    }
    Ok(())
}

/// The rows of these columns, whose names are as [`names`] returns them.
pub(crate) fn rows<'n>(names: &'n [String], columns: &[ArrayRef]) -> Result<JsonRows<'n>> {
    JsonRows::new(names, columns).map_err(unfit)
}

fn unfit(e: ArrowError) -> Error {
    match e {
        ArrowError::SchemaError(message) => Error::schema(message),
        other => Error::data(format!("a column cannot be written as JSON: {other}")).because(other),
    }
}

pub(super) struct JsonEncoder {
    output: Output,
    names: Vec<String>,
    lines: Lines,
}

fn failed(e: std::io::Error) -> Error {
    Error::connector(format!("cannot write JSON: {e}")).because(e)
}

impl JsonEncoder {
    pub(super) fn new(schema: &SchemaRef, file: File, packing: Packing, threads: usize) -> Result<JsonEncoder> {
        let names = names(schema.fields().iter().map(|field| field.name().as_str()));
        Ok(JsonEncoder { output: Output::new(file, packing).map_err(failed)?, names, lines: Lines::new(threads) })
    }
}

impl Encoder for JsonEncoder {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let rows = rows(&self.names, batch.columns())?;
        let push = |range: Range<usize>, text: &mut String| {
            for row in range {
                rows.push(row, text);
                text.push('\n');
            }
            Ok(())
        };
        self.lines.write(batch.num_rows(), &mut self.output, push, failed)
    }

    fn flush(&mut self) -> Result<()> {
        self.output.flush().map_err(failed)
    }

    fn bytes(&self) -> u64 {
        self.output.bytes()
    }

    fn finish(self: Box<Self>) -> Result<File> {
        self.output.finish().map_err(failed)
    }
}
