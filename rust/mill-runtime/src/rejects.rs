//! Handling of records that cannot be processed.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use mill_protocol::{Batch, Error, Rejected, Result};

use crate::metrics::StageCounters;
use crate::options::OnError;

/// The columns of an `errors` stream.
pub fn errors_schema() -> SchemaRef {
    let text = |name: &str| Field::new(name, DataType::Utf8, false);
    Arc::new(Schema::new(vec![text("step"), text("error"), text("traceback"), text("record")]))
}

/// The records of an `errors` stream.
pub(crate) fn batch(step: &str, rejected: &[Rejected]) -> Result<Batch> {
    let column = |of: &dyn Fn(&Rejected) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(rejected.iter().map(of)))
    };
    let columns = vec![
        column(&|_| step.to_owned()),
        column(&|r| r.error.clone()),
        column(&|r| r.traceback.clone()),
        column(&|r| r.record.clone()),
    ];
    let data = RecordBatch::try_new(errors_schema(), columns)
        .map_err(|error| Error::internal("the errors of a step do not form a batch").because(error))?;
    Ok(Batch::new(data))
}

/// What becomes of records that are to be routed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Routed {
    /// A sink takes them.
    Taken,
    /// No sink takes them, though one could.
    Untaken,
    /// They failed in a sink, which has no stream of errors.
    Never,
}

impl Routed {
    /// Of a step or source, of whose errors this says whether they are taken.
    pub(crate) fn of(is_taken: bool) -> Routed {
        if is_taken { Routed::Taken } else { Routed::Untaken }
    }
}

/// Does with the records as the job says, and counts them: `true` if they are to be routed.
///
/// # Errors
/// Of the first record, when the job is to fail on such records, or no sink takes them.
pub(crate) fn is_routed(
    on_error: OnError,
    rejected: &[Rejected],
    routes: Routed,
    step: &str,
    counters: &StageCounters,
) -> Result<bool> {
    let Some(first) = rejected.first() else { return Ok(false) };
    match on_error {
        OnError::Fail => Err(first.clone().into_error().in_step(step)),
        OnError::Route if routes == Routed::Taken => {
            counters.rows_routed.add(rejected.len() as u64);
            Ok(true)
        }
        OnError::Route => {
            let mut first = first.clone();
            first.error.push_str(match routes {
                Routed::Never => "; a sink has no .errors that it could be routed to: filter such records out before, or use on_error=\"skip\"",
                _ => "; no sink takes the .errors of this step: write them, or mill.all_errors(…) of all streams that are written, or use on_error=\"skip\"",
            });
            Err(first.into_error().in_step(step))
        }
        OnError::Skip => {
            counters.rows_skipped.add(rejected.len() as u64);
            Ok(false)
        }
    }
}
