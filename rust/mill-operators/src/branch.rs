//! `branch`: records for which a predicate is true, and the others.

use arrow::array::BooleanArray;
use mill_plan::CompiledExpr;
use mill_protocol::{Batch, Error, Operator, Outbox, Progress, Result};

use crate::attempt::attempt;
use crate::filter::passing;

/// The port of records for which the predicate is true.
const YES: usize = 0;
/// The port of all others, also those for which it is null: every record goes to exactly one port.
const NO: usize = 1;

/// Sends each record one way or the other.
pub(crate) struct Branch {
    predicate: CompiledExpr,
}

impl Branch {
    pub(crate) fn new(predicate: CompiledExpr) -> Branch {
        Branch { predicate }
    }
}

impl Operator for Branch {
    fn is_stateless(&self) -> bool {
        true
    }

    fn on_batch(&mut self, _input: usize, batch: Batch, out: &mut Outbox) -> Result<Progress> {
        attempt(batch, out, &mut |batch, out| {
            let passing = passing(&self.predicate.evaluate_mask(batch.data())?);
            match passing.count_set_bits() {
                0 => out.push_to(NO, batch),
                all if all == batch.rows() => out.push_to(YES, batch),
                _ => {
                    let failed = |error: arrow::error::ArrowError| Error::internal(error.to_string());
                    let no = BooleanArray::new(!&passing, None);
                    let yes = batch.filter(&BooleanArray::new(passing, None)).map_err(failed)?;
                    let no = batch.filter(&no).map_err(failed)?;
                    out.push_to(YES, yes);
                    out.push_to(NO, no);
                }
            }
            Ok(())
        })?;
        Ok(Progress::Done)
    }
}

#[cfg(test)]
mod tests;
