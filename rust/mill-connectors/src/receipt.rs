//! What a checkpoint knows of a database: up to which epoch rows were committed to it.

use mill_protocol::{Epoch, Error};

use crate::attempt::Failure;

/// The last epoch that is known to be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Receipt {
    pub(crate) run: u64,
    pub(crate) epoch: Epoch,
}

impl Receipt {
    pub(crate) fn encode(self) -> String {
        format!("{:016x}:{}", self.run, self.epoch.0)
    }

    pub(crate) fn decode(text: &str) -> Option<Receipt> {
        let (run, epoch) = text.split_once(':')?;
        Some(Receipt { run: u64::from_str_radix(run, 16).ok()?, epoch: Epoch(epoch.parse().ok()?) })
    }
}

/// The error for a database without rows that were committed to it.
pub(crate) fn lost(call: &str, receipt: Receipt, found: &str) -> Failure {
    Failure::Final(Error::checkpoint(format!(
        "{call}: the checkpoint knows that the rows of epoch {} were committed, and the database {found}: it was removed, put back from an \
         older copy, or replaced; no rows were written: put the database back as it was when the job last ran, or start over with \
         another checkpoint path and an empty table",
        receipt.epoch.0
    )))
}
