//! `filter` by an expression.
//!
//! In an append-only stream a record that does not pass is dropped. In an updating stream its key may have passed before,
//! and whoever keeps the latest row must learn that it no longer does: the record is passed on as a delete of its key.

use arrow::array::{Array, BooleanArray};
use arrow::buffer::BooleanBuffer;
use mill_plan::CompiledExpr;
use mill_protocol::{Batch, Error, Operator, Outbox, Progress, Result};

use crate::attempt::attempt;

/// Keeps the records for which the predicate is true.
pub(crate) struct Filter {
    predicate: CompiledExpr,
    is_updating: bool,
}

impl Filter {
    pub(crate) fn new(predicate: CompiledExpr, is_updating: bool) -> Filter {
        Filter { predicate, is_updating }
    }
}

impl Operator for Filter {
    fn is_stateless(&self) -> bool {
        true
    }

    fn on_batch(&mut self, _input: usize, batch: Batch, out: &mut Outbox) -> Result<Progress> {
        attempt(batch, out, &mut |batch, out| {
            let mask = self.predicate.evaluate_mask(batch.data())?;
            if self.is_updating || batch.deletes().is_some() {
                out.push(withdraw(batch, &mask));
            } else if is_all(&mask) {
                out.push(batch);
            } else {
                out.push(batch.filter(&mask).map_err(|error| Error::internal(error.to_string()))?);
            }
            Ok(())
        })?;
        Ok(Progress::Done)
    }
}

/// Whether the mask is true in every row.
fn is_all(mask: &BooleanArray) -> bool {
    mask.null_count() == 0 && mask.values().count_set_bits() == mask.len()
}

/// The same records; those that do not pass, or were deletes already, withdraw their key.
fn withdraw(batch: Batch, mask: &BooleanArray) -> Batch {
    let passes = passing(mask);
    let mut deletes = !&passes;
    if let Some(before) = batch.deletes() {
        deletes = &deletes | before;
    }
    batch.with_deletes(Some(deletes))
}

/// The mask with null counted as false.
pub(crate) fn passing(mask: &BooleanArray) -> BooleanBuffer {
    match mask.nulls() {
        None => mask.values().clone(),
        Some(nulls) => mask.values() & nulls.inner(),
    }
}

#[cfg(test)]
mod tests;
