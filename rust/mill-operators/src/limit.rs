//! `limit`: the first records and no more.
//!
//! Runs as one instance. The number of records that it may still emit is its state; at zero it is finished, and the runtime
//! ends the stream here, so that a source is not read for nothing.

use mill_protocol::{Batch, Error, Operator, Outbox, Progress, Restored, Result, Snapshot};

/// Passes on the first records.
pub(crate) struct Limit {
    left: u64,
}

impl Limit {
    pub(crate) fn new(rows: u64) -> Limit {
        Limit { left: rows }
    }
}

impl Operator for Limit {
    fn on_batch(&mut self, _input: usize, batch: Batch, out: &mut Outbox) -> Result<Progress> {
        let rows = batch.rows() as u64;
        if rows <= self.left {
            self.left -= rows;
            out.push(batch);
        } else {
            // Less than the rows of a batch, so it fits.
            let rows = self.left as usize;
            self.left = 0;
            out.push(batch.slice(0, rows));
        }
        Ok(Progress::Done)
    }

    fn snapshot(&mut self, snapshot: &mut Snapshot) -> Result<()> {
        snapshot.bytes = Some(self.left.to_le_bytes().to_vec());
        Ok(())
    }

    fn restore(&mut self, restored: &Restored) -> Result<()> {
        for bytes in &restored.bytes {
            let bytes: [u8; 8] = bytes[..].try_into().map_err(|_| {
                Error::checkpoint(format!("the state of a limit has 8 bytes, found {}", bytes.len()))
            })?;
            self.left = self.left.min(u64::from_le_bytes(bytes));
        }
        Ok(())
    }

    fn is_finished(&self) -> bool {
        self.left == 0
    }
}

#[cfg(test)]
mod tests;
