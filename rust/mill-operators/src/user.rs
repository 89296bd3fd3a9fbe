//! A user's function of records: `map`, `flat_map`, `filter`, `map_batches`, `inspect`.
//!
//! ```text
//!   batch ──function──► columns + origin of each row + records that failed
//!                           │
//!                           └ carries event time, lateness and split from the input row to the output row
//! ```
//!
//! A function that says nothing of origins (`map_batches`) keeps event time only as long as it gives row for row. In a
//! stream with event time another number of rows is an error: a guess would put records into wrong windows.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use mill_plan::{BatchFunction, Origin, UserOutput, UserStepKind, type_name};
use mill_protocol::{Batch, Error, ErrorKind, Operator, Outbox, Progress, Result};

/// Calls a user's function once a batch.
pub(crate) struct User {
    kind: UserStepKind,
    function: Arc<dyn BatchFunction>,
    schema: SchemaRef,
}

impl User {
    pub(crate) fn new(kind: UserStepKind, function: Arc<dyn BatchFunction>, schema: SchemaRef) -> User {
        User { kind, function, schema }
    }

    fn output(&self, batch: Batch, data: RecordBatch, origin: Origin) -> Result<Batch> {
        let broken = |error: arrow::error::ArrowError| {
            Error::internal(format!("{} says its rows stem from rows that are not there: {error}", self.function.name()))
        };
        if self.kind == UserStepKind::Inspect {
            // What it looked at goes on, whatever it gave.
            return match origin {
                Origin::Rows(rows) => batch.take(&rows).map_err(broken),
                Origin::Same | Origin::Unknown => Ok(batch),
            };
        }
        let data = self.with_schema(data)?;
        match origin {
            Origin::Rows(rows) if rows.len() == data.num_rows() => batch.reindex(data, &rows).map_err(broken),
            Origin::Same | Origin::Unknown if data.num_rows() == batch.rows() => Ok(batch.with_data(data)),
            Origin::Unknown if batch.times().is_none() => Ok(Batch::new(data).with_split(batch.split())),
            Origin::Unknown => Err(Error::new(
                ErrorKind::UserFunction,
                format!(
                    "{} was given {} records and returned {}, so their event time is not known; call event_time() \
                     behind {}() instead of before it",
                    self.function.name(),
                    batch.rows(),
                    data.num_rows(),
                    self.kind.label()
                ),
            )),
            Origin::Same | Origin::Rows(_) => Err(Error::internal(format!(
                "{} gave {} rows without the origin of each",
                self.function.name(),
                data.num_rows()
            ))),
        }
    }

    /// The columns under the planned schema, which may know more of them (metadata) than the function does.
    fn with_schema(&self, data: RecordBatch) -> Result<RecordBatch> {
        let planned = self.schema.fields();
        let found = data.schema();
        let fits = planned.len() == found.fields().len()
            && planned.iter().zip(found.fields()).all(|(planned, found)| planned.data_type() == found.data_type());
        if !fits {
            let describe = |fields: &arrow::datatypes::Fields| {
                let columns: Vec<String> =
                    fields.iter().map(|field| format!("{}: {}", field.name(), type_name(field.data_type()))).collect();
                columns.join(", ")
            };
            return Err(Error::schema(format!(
                "{} returned ({}), but its schema is ({}); return those columns or change schema=",
                self.function.name(),
                describe(found.fields()),
                describe(planned)
            )));
        }
        let options = RecordBatchOptions::new().with_row_count(Some(data.num_rows()));
        RecordBatch::try_new_with_options(SchemaRef::clone(&self.schema), data.columns().to_vec(), &options)
            .map_err(|error| Error::schema(format!("{} returned columns that don't fit: {error}", self.function.name())))
    }
}

impl Operator for User {
    fn on_batch(&mut self, batch: Batch, out: &mut Outbox) -> Result<Progress> {
        if batch.rows() == 0 {
            return Ok(Progress::Done);
        }
        let UserOutput { data, origin, rejected } = self.function.call(batch.data())?;
        for rejected in rejected {
            out.reject(rejected);
        }
        out.push(self.output(batch, data, origin)?);
        Ok(Progress::Done)
    }
}

#[cfg(test)]
mod tests;
