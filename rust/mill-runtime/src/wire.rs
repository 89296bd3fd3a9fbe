//! Records on their way between tasks: joined into pieces worth sending, cut by consumer, and made into frames.

use arrow::array::RecordBatch;
use arrow::buffer::{BooleanBuffer, ScalarBuffer};
use arrow::compute::concat_batches;
use mill_frame::{Frame, FrameError, partition_by_hash};
use mill_protocol::{Batch, Error, Result, SplitId};

/// The frames for the owners of these keys; `None` for a consumer that gets nothing.
pub(crate) fn frames_by_key(batch: &Batch, columns: &[usize], consumers: usize) -> Result<Vec<Option<Frame>>> {
    partition_by_hash(batch, columns, consumers).map_err(error)
}

/// All records for one consumer, as they are but for the split: after an exchange nobody tells splits apart.
pub(crate) fn whole(batch: &Batch) -> Batch {
    batch.clone().with_split(SplitId::NONE)
}

/// The records of a frame, where they are.
pub(crate) fn batch(frame: &Frame) -> Result<Batch> {
    frame.decode(frame.schema()).map_err(error)
}

/// Several batches of one stream as one; what some know of their records is filled up for the others.
pub(crate) fn join(batches: &[Batch]) -> Result<Batch> {
    let [first, rest @ ..] = batches else { return Err(Error::internal("no batches to join")) };
    if rest.is_empty() {
        return Ok(first.clone());
    }
    let data: Vec<&RecordBatch> = batches.iter().map(Batch::data).collect();
    let data = concat_batches(&first.schema(), data)
        .map_err(|error| Error::internal("batches of one stream do not fit together").because(error))?;
    // A stream has event times or has none; without `behind` no record is late, whatever it is compared with.
    let times = column(batches, |batch| batch.times(), i64::MIN);
    let behind = column(batches, |batch| batch.behind(), i64::MIN);
    let deletes = batches.iter().any(|batch| batch.deletes().is_some()).then(|| {
        let rows = |batch: &Batch| batch.deletes().cloned().unwrap_or_else(|| BooleanBuffer::new_unset(batch.rows()));
        batches.iter().flat_map(|batch| rows(batch).iter().collect::<Vec<_>>()).collect::<BooleanBuffer>()
    });
    Ok(Batch::new(data).with_times(times).with_behind(behind).with_deletes(deletes))
}

fn column(
    batches: &[Batch],
    of: impl Fn(&Batch) -> Option<&ScalarBuffer<i64>>,
    missing: i64,
) -> Option<ScalarBuffer<i64>> {
    batches.iter().any(|batch| of(batch).is_some()).then(|| {
        let rows = batches.iter().map(Batch::rows).sum();
        let mut values = Vec::with_capacity(rows);
        for batch in batches {
            match of(batch) {
                Some(column) => values.extend_from_slice(column),
                None => values.resize(values.len() + batch.rows(), missing),
            }
        }
        values.into()
    })
}

fn error(error: FrameError) -> Error {
    Error::internal("records cannot be sent to another task").because(error)
}

#[cfg(test)]
mod tests;
