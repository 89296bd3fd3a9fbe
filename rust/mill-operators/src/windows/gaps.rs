//! Gaps of sessions that records have of their own.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, DurationMicrosecondType};
use mill_protocol::{Batch, Error, Result};

use super::bounds::times_of;

/// The gaps of records, in microseconds.
pub(crate) struct Gaps {
    gaps: ArrayRef,
    /// The last time at which a session may end.
    last: i64,
}

impl Gaps {
    /// The gaps in this column, of sessions whose bounds have this type, if they have any.
    pub(crate) fn of(batch: &Batch, column: usize, bound_type: Option<&DataType>) -> Result<Gaps> {
        let gaps = batch.column(column);
        match gaps.as_primitive_opt::<DurationMicrosecondType>() {
            Some(_) => Ok(Gaps { gaps: ArrayRef::clone(gaps), last: *times_of(bound_type).end() }),
            None => Err(Error::internal("the gap of a session is a duration in microseconds")),
        }
    }

    /// When the session of a record at this time ends, if nothing extends it.
    pub(crate) fn end(&self, record: usize, time: i64) -> Result<i64> {
        let gaps = self.gaps.as_primitive::<DurationMicrosecondType>();
        if gaps.is_null(record) {
            return Err(Error::data("the gap of the record's session is null; fill_null() it, or filter such records out"));
        }
        match gaps.value(record) {
            gap @ 1.. => time.checked_add(gap).filter(|&end| end < i64::MAX && end <= self.last).ok_or_else(|| {
                Error::data(format!("the gap of the record's session, {gap} microseconds, ends it beyond all times; choose a shorter one"))
            }),
            gap => Err(Error::data(format!("the gap of the record's session is {gap} microseconds, and must be positive"))),
        }
    }
}
