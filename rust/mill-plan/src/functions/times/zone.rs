//! Clock time and points in time.
//!
//! The clock of a zone shows some times twice, where it is put back, and skips others, where it is put forward. Whoever
//! turns clock time into a point in time says which of two is meant, and what becomes of a time that is skipped.

use arrow::array::timezone::Tz;
use arrow::datatypes::TimeUnit;
use chrono::{LocalResult, NaiveDateTime, Offset, TimeZone};

use super::{naive, units};
use crate::types::per_second;

/// What a time on the clock is.
pub(super) enum Clock {
    /// One point in time, in units since the epoch.
    Once(i64),
    /// Two, the earlier first.
    Twice(i64, i64),
    /// None: the clock was put forward over it at the first of these; the second is as long after what it showed before.
    Skipped(i64, i64),
}

/// A number of units since the epoch as the number that the clock on the wall shows.
pub(super) fn to_local(value: i64, unit: TimeUnit, zone: Option<Tz>) -> Option<i64> {
    let Some(zone) = zone else { return Some(value) };
    value.checked_add(offset_at(zone, naive(value, unit)?).checked_mul(per_second(unit))?)
}

/// The seconds that the clock of a zone is ahead of UTC.
fn offset_at(zone: Tz, utc: NaiveDateTime) -> i64 {
    i64::from(zone.offset_from_utc_datetime(&utc).fix().local_minus_utc())
}

/// What the clock shows, as a point in time.
pub(super) fn from_local(value: i64, unit: TimeUnit, zone: Option<Tz>) -> Option<Clock> {
    let Some(zone) = zone else { return Some(Clock::Once(value)) };
    let local = naive(value, unit)?;
    let point = |offset: i64| value.checked_sub(offset.checked_mul(per_second(unit))?);
    let seconds = |offset: <Tz as TimeZone>::Offset| i64::from(offset.fix().local_minus_utc());
    Some(match zone.offset_from_local_datetime(&local) {
        LocalResult::Single(offset) => Clock::Once(point(seconds(offset))?),
        LocalResult::Ambiguous(a, b) => {
            let (a, b) = (point(seconds(a))?, point(seconds(b))?);
            Clock::Twice(a.min(b), a.max(b))
        }
        LocalResult::None => {
            // No zone is so far from UTC, nor changes its clock by so much at once.
            let before = local.checked_sub_signed(chrono::TimeDelta::hours(36))?;
            let after = local.checked_add_signed(chrono::TimeDelta::hours(36))?;
            let offset_before = offset_at(zone, before);
            let (mut low, mut high) = (before.and_utc().timestamp(), after.and_utc().timestamp());
            while high - low > 1 {
                let middle = low + (high - low) / 2;
                let utc = naive(middle, TimeUnit::Second)?;
                if offset_at(zone, utc) == offset_before { low = middle } else { high = middle }
            }
            Clock::Skipped(units(naive(high, TimeUnit::Second)?, unit)?, point(offset_before)?)
        }
    })
}
