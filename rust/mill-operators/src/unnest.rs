//! `unnest`: the fields of a struct column in its place.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::nullif;
use arrow::datatypes::SchemaRef;
use mill_protocol::{Batch, Error, Operator, Outbox, Progress, Result};

/// Puts the fields of a struct column in its place.
pub(crate) struct Unnest {
    column: usize,
    schema: SchemaRef,
}

impl Unnest {
    pub(crate) fn new(column: usize, schema: SchemaRef) -> Unnest {
        Unnest { column, schema }
    }
}

impl Operator for Unnest {
    fn is_stateless(&self) -> bool {
        true
    }

    fn on_batch(&mut self, _input: usize, batch: Batch, out: &mut Outbox) -> Result<Progress> {
        let mut columns = batch.data().columns().to_vec();
        let fields = fields(batch.column(self.column))?;
        columns.splice(self.column..=self.column, fields);
        let data = RecordBatch::try_new(SchemaRef::clone(&self.schema), columns)
            .map_err(|error| Error::internal(format!("unnest: {error}")))?;
        out.push(batch.with_data(data));
        Ok(Progress::Done)
    }
}

/// The fields of a struct as columns; where the struct is null, so is every field.
fn fields(column: &ArrayRef) -> Result<Vec<ArrayRef>> {
    let Some(structs) = column.as_struct_opt() else {
        return Err(Error::internal(format!("unnest() of a column of type {}", column.data_type())));
    };
    let Some(nulls) = structs.nulls().filter(|nulls| nulls.null_count() > 0) else {
        return Ok(structs.columns().to_vec());
    };
    let is_null = BooleanArray::new(!nulls.inner(), None);
    let field = |field: &ArrayRef| {
        nullif(field, &is_null).map_err(|error| Error::internal(format!("unnest: {error}")))
    };
    structs.columns().iter().map(field).collect()
}

#[cfg(test)]
mod tests;
