//! Writes JSON, an object a line: every column in every line, null where there is no value, moments in ISO 8601.

use std::fs::File;
use std::io::BufWriter;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, new_empty_array};
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::json::writer::{EncoderOptions, LineDelimited, Writer, WriterBuilder, make_encoder};
use mill_protocol::{Error, Result};

use super::Encoder;
use super::csv::WRITE_BYTES;
use crate::timestamp::utc_as_offset;

/// Refuses columns that have no form in JSON.
pub(super) fn check(schema: &SchemaRef) -> Result<()> {
    let options = EncoderOptions::default();
    for field in schema.fields() {
        let array = utc_as_offset(&new_empty_array(field.data_type()));
        let relaid = Arc::new(Field::new(field.name(), array.data_type().clone(), true));
        make_encoder(&relaid, array.as_ref(), &options).map_err(|e| {
            Error::schema(format!(
                "column {:?} is a {}, which cannot be written as JSON: {e}",
                field.name(),
                field.data_type()
            ))
        })?;
    }
    Ok(())
}

pub(super) struct JsonEncoder {
    writer: Writer<BufWriter<File>, LineDelimited>,
}

impl JsonEncoder {
    pub(super) fn new(file: File) -> JsonEncoder {
        let file = BufWriter::with_capacity(WRITE_BYTES, file);
        JsonEncoder { writer: WriterBuilder::new().with_explicit_nulls(true).build(file) }
    }
}

fn failed(e: arrow::error::ArrowError) -> Error {
    Error::connector(format!("cannot write JSON: {e}")).because(e)
}

impl Encoder for JsonEncoder {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let columns: Vec<ArrayRef> = batch.columns().iter().map(utc_as_offset).collect();
        let fields: Vec<Field> = batch
            .schema_ref()
            .fields()
            .iter()
            .zip(&columns)
            .map(|(field, column)| Field::new(field.name(), column.data_type().clone(), true))
            .collect();
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(failed)?;
        self.writer.write(&batch).map_err(failed)
    }

    fn finish(mut self: Box<Self>) -> Result<File> {
        self.writer.finish().map_err(failed)?;
        let file = self.writer.into_inner();
        file.into_inner().map_err(|e| Error::connector(format!("cannot write JSON: {e}")))
    }
}
