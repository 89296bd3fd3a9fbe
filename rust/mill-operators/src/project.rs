//! `select`, `with_columns`, `drop`, `rename`, `cast`: new columns for the same records.

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use mill_plan::CompiledExpr;
use mill_protocol::{Batch, Error, Operator, Outbox, Progress, Result};

use crate::attempt::attempt;

/// Computes one column an expression.
pub(crate) struct Project {
    exprs: Vec<CompiledExpr>,
    schema: SchemaRef,
}

impl Project {
    pub(crate) fn new(exprs: Vec<CompiledExpr>, schema: SchemaRef) -> Project {
        assert_eq!(exprs.len(), schema.fields().len(), "one expression a column");
        Project { exprs, schema }
    }
}

impl Operator for Project {
    fn is_stateless(&self) -> bool {
        true
    }

    fn on_batch(&mut self, _input: usize, batch: Batch, out: &mut Outbox) -> Result<Progress> {
        attempt(batch, out, &mut |batch, out| {
            let data = project(&self.exprs, &self.schema, batch.data())?;
            out.push(batch.with_data(data));
            Ok(())
        })?;
        Ok(Progress::Done)
    }
}

fn project(exprs: &[CompiledExpr], schema: &SchemaRef, data: &RecordBatch) -> Result<RecordBatch> {
    let columns = exprs.iter().map(|expr| expr.evaluate(data)).collect::<Result<Vec<ArrayRef>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(data.num_rows()));
    RecordBatch::try_new_with_options(SchemaRef::clone(schema), columns, &options)
        .map_err(|error| Error::internal(format!("the columns computed are not those planned: {error}")))
}

#[cfg(test)]
mod tests;
