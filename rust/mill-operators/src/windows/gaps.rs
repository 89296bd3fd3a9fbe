//! Gaps of sessions that records have of their own.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, DurationMicrosecondType, TimeUnit};
use mill_protocol::{Batch, Error, Result};

use super::bounds::times_of;

/// The gaps of records, in microseconds.
pub(crate) struct Gaps {
    gaps: ArrayRef,
    /// The last time at which a session may end.
    last: i64,
    /// How many microseconds the unit of the bounds has.
    unit_us: i64,
}

impl Gaps {
    /// The gaps in this column, of sessions whose bounds have this type, if they have any.
    pub(crate) fn of(batch: &Batch, column: usize, bound_type: Option<&DataType>) -> Result<Gaps> {
        let gaps = batch.column(column);
        match gaps.as_primitive_opt::<DurationMicrosecondType>() {
            Some(_) => {
                let unit_us = match bound_type {
                    Some(DataType::Timestamp(TimeUnit::Second, _)) => 1_000_000,
                    Some(DataType::Timestamp(TimeUnit::Millisecond, _)) => 1000,
                    _ => 1,
                };
                Ok(Gaps { gaps: ArrayRef::clone(gaps), last: *times_of(bound_type).end(), unit_us })
            }
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
            gap @ 1.. if gap % self.unit_us != 0 => {
                let (counted, finer) = if self.unit_us == 1000 { ("milliseconds", "us") } else { ("seconds", "ms") };
                Err(Error::data(format!(
                    "the gap of the record's session is {gap} microseconds, and event time counts whole {counted}, which cannot hold \
                     the end of such a session; cast the time before event_time() to a finer unit, such as mill.Timestamp({finer:?}), \
                     or round the gap"
                )))
            }
            gap @ 1.. => time.checked_add(gap).filter(|&end| end < i64::MAX && end <= self.last).ok_or_else(|| {
                Error::data(format!("the gap of the record's session, {gap} microseconds, ends it beyond all times; choose a shorter one"))
            }),
            gap => Err(Error::data(format!("the gap of the record's session is {gap} microseconds, and must be positive"))),
        }
    }
}
