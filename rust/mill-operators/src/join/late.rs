//! Records that a join cannot take: those that are late, and those whose key is null.
//!
//! A record is late if it is older than the watermark of its own split, or of its input: then the other side may have dropped
//! partners of it. How far the other side has come does not matter, so lateness depends on no timing.

use arrow::array::{Array, UInt32Array};
use arrow::buffer::NullBuffer;
use mill_protocol::{Batch, Error, Outbox, Result, Watermark};

/// How far time had come for a record when it was read: its input's watermark, or its split's if that is further.
#[inline]
pub(crate) fn time_at(batch: &Batch, row: usize, time: i64, input: Watermark) -> Watermark {
    match batch.behind() {
        Some(behind) if behind[row] > time => input.max(Watermark(behind[row])),
        _ => input,
    }
}

/// Which records have a key without nulls, if not all have.
pub(crate) fn with_key(batch: &Batch, keys: &[usize]) -> Option<NullBuffer> {
    let nulls = keys.iter().map(|&key| batch.column(key).logical_nulls());
    nulls.reduce(|a, b| NullBuffer::union(a.as_ref(), b.as_ref())).flatten().filter(|nulls| nulls.null_count() > 0)
}

/// Hands late records on as they came, on a port, and counts them; `own` is how many columns they came with.
pub(crate) fn push_late(port: usize, batch: &Batch, own: usize, late: Vec<u32>, out: &mut Outbox) -> Result<()> {
    if late.is_empty() {
        return Ok(());
    }
    out.count_late(late.len() as u64);
    let late = batch.take(&UInt32Array::from(late)).map_err(|error| Error::internal(error.to_string()))?;
    let columns: Vec<usize> = (0..own).collect();
    let data = late.data().project(&columns).map_err(|error| Error::internal(error.to_string()))?;
    out.push_to(port, late.with_data(data));
    Ok(())
}
