//! A user's function of records: `map`, `flat_map`, `filter`, `map_batches`, `inspect`.
//!
//! ```text
//!   batch ──function──► columns + origin of each row + records that failed
//!                           │
//!                           └ carries event time, lateness and split from the input row to the output row
//! ```
//!
//! A function that says nothing of origins (`map_batches`) keeps event time only as long as it returns one row for each row. In a
//! stream with event time another number of rows is an error: a guess would put records into wrong windows.
//!
//! A function that may make many records of one (`flat_map`) returns its results in pieces. One piece is emitted a call,
//! and the runtime passes it on before it asks for the next, so that memory is bounded by a piece whatever the function
//! makes of a batch. Barriers and watermarks wait until the batch has been processed.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use mill_plan::{BatchFunction, Origin, UserCall, UserOutput, UserPieces, UserStepKind, type_name};
use mill_protocol::{Batch, Error, ErrorKind, Operator, Outbox, Progress, Result};

/// Calls a user's function once a batch.
pub(crate) struct User {
    kind: UserStepKind,
    function: Arc<dyn BatchFunction>,
    schema: SchemaRef,
    /// The batch whose results are being emitted, and those that are still to come.
    rest: Option<(Batch, Box<dyn UserPieces>)>,
}

impl User {
    pub(crate) fn new(kind: UserStepKind, function: Arc<dyn BatchFunction>, schema: SchemaRef) -> User {
        User { kind, function, schema, rest: None }
    }

    fn emit(&self, batch: Batch, output: UserOutput, out: &mut Outbox) -> Result<()> {
        let UserOutput { data, origin, rejected } = output;
        for rejected in rejected {
            out.reject(rejected);
        }
        out.push(self.output(batch, data, origin)?);
        Ok(())
    }

    fn output(&self, batch: Batch, data: RecordBatch, origin: Origin) -> Result<Batch> {
        let broken = |error: arrow::error::ArrowError| {
            Error::internal(format!("{} says its rows stem from rows that are not there: {error}", self.function.name()))
        };
        if self.kind == UserStepKind::Inspect {
            // What it looked at is passed on, whatever it returned.
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
                     after {}() instead of before it",
                    self.function.name(),
                    batch.rows(),
                    data.num_rows(),
                    self.kind.label()
                ),
            )),
            Origin::Same | Origin::Rows(_) => Err(Error::internal(format!(
                "{} returned {} rows without the origin of each",
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
    fn is_stateless(&self) -> bool {
        true
    }

    fn on_batch(&mut self, _input: usize, batch: Batch, out: &mut Outbox) -> Result<Progress> {
        if batch.rows() == 0 {
            return Ok(Progress::Done);
        }
        match self.function.call(batch.data())? {
            UserCall::Whole(output) => {
                self.emit(batch, output, out)?;
                Ok(Progress::Done)
            }
            UserCall::Pieces(pieces) => {
                self.rest = Some((batch, pieces));
                self.resume(out)
            }
        }
    }

    fn resume(&mut self, out: &mut Outbox) -> Result<Progress> {
        let Some((batch, mut pieces)) = self.rest.take() else { return Ok(Progress::Done) };
        let (output, progress) = pieces.next()?;
        self.emit(batch.clone(), output, out)?;
        if progress == Progress::More {
            self.rest = Some((batch, pieces));
        }
        Ok(progress)
    }
}

#[cfg(test)]
mod tests;
