//! Records passed on as they are: where streams are united or spread.

use mill_protocol::{Batch, Operator, Outbox, Progress, Result};

/// Passes everything on.
pub(crate) struct Pass;

impl Operator for Pass {
    fn is_stateless(&self) -> bool {
        true
    }

    fn on_batch(&mut self, _input: usize, batch: Batch, out: &mut Outbox) -> Result<Progress> {
        out.push(batch);
        Ok(Progress::Done)
    }
}
