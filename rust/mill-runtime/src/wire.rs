//! Records on their way between tasks: partitioned, packed into one piece, and unpacked again.

use mill_frame::hash::hash_columns;
use mill_protocol::{Batch, Error, Result};

/// Records on their way from one task to another.
pub(crate) struct Parcel(Batch);

impl Parcel {
    /// Packs records for a queue.
    pub(crate) fn pack(batches: Vec<Batch>) -> Result<Vec<Parcel>> {
        Ok(batches.into_iter().map(Parcel).collect())
    }

    /// The records again.
    pub(crate) fn unpack(self) -> Result<Batch> {
        Ok(self.0)
    }
}

/// The stable hash of these columns, of each row.
pub(crate) fn hash_rows(batch: &Batch, columns: &[usize], hashes: &mut Vec<u64>) -> Result<()> {
    let columns: Vec<_> = columns.iter().map(|&column| batch.column(column).clone()).collect();
    hash_columns(&columns, hashes)
        .map_err(|error| Error::internal("the columns of a key cannot be hashed").because(error))
}

/// The rows of each consumer.
pub(crate) fn partition(
    batch: &Batch,
    consumers: usize,
    consumer_of: impl Fn(usize) -> usize,
) -> Result<Vec<Option<Batch>>> {
    let mut rows: Vec<Vec<u32>> = vec![Vec::new(); consumers];
    for row in 0..batch.rows() {
        rows[consumer_of(row)].push(row as u32);
    }
    rows.into_iter()
        .map(|rows| {
            if rows.is_empty() {
                return Ok(None);
            }
            batch.take(&rows.into()).map(Some).map_err(|e| mill_protocol::Error::internal("partition failed").because(e))
        })
        .collect()
}
