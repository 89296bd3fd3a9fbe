//! Rows as bytes, for state that keeps whole rows: Arrow's row encoding, for all rows of a frame at once.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow_row::{RowConverter, Rows, SortField};
use mill_protocol::{Error, Result};

/// Encodes rows of one schema and decodes them again, bit by bit the same.
pub(crate) struct RowCodec {
    converter: RowConverter,
    schema: SchemaRef,
}

impl RowCodec {
    pub(crate) fn new(schema: SchemaRef) -> Result<RowCodec> {
        let fields = schema.fields().iter().map(|field| SortField::new(field.data_type().clone())).collect();
        let converter = RowConverter::new(fields)
            .map_err(|error| Error::schema(format!("records with these columns cannot be kept as state: {error}")))?;
        Ok(RowCodec { converter, schema })
    }

    /// The columns.
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// What must be the same for bytes to be rows of this schema.
    pub(crate) fn signature(&self) -> String {
        let columns = self.schema.fields().iter().map(|field| format!("{} {}", field.name(), field.data_type()));
        columns.collect::<Vec<_>>().join(", ")
    }

    pub(crate) fn encode(&self, columns: &[ArrayRef]) -> Result<Rows> {
        self.converter.convert_columns(columns).map_err(|error| Error::schema(error.to_string()))
    }

    /// The columns of these rows.
    pub(crate) fn decode<'a>(&self, rows: impl IntoIterator<Item = &'a [u8]>) -> Result<RecordBatch> {
        let damaged = |error: ArrowError| Error::checkpoint(format!("a row that was kept as state is damaged: {error}"));
        let parser = self.converter.parser();
        let columns = self.converter.convert_rows(rows.into_iter().map(|bytes| parser.parse(bytes))).map_err(damaged)?;
        // Dictionaries come back as their values.
        let columns = columns.iter().zip(self.schema.fields()).map(|(column, field)| cast(column, field.data_type()));
        let columns = columns.collect::<std::result::Result<Vec<ArrayRef>, _>>().map_err(damaged)?;
        RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(damaged)
    }
}
