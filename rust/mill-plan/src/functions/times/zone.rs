//! Clock time and points in time.
//!
//! The clock of a zone shows some times twice, where it is put back, and skips others, where it is put forward. Whoever
//! turns clock time into a point in time says which of two is meant, and what becomes of a time that is skipped.
//!
//! What a clock shows is a number of 128 bits: at the ends of the range of a column it is not in that range itself.

use arrow::datatypes::TimeUnit;
use chrono::LocalResult;
use mill_frame::zone::Zone;

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

/// The seconds by which the clock of a zone is ahead of UTC at a number of units since the epoch.
#[inline]
pub(super) fn offset_at(value: i64, unit: TimeUnit, zone: Option<Zone>) -> i64 {
    zone.map_or(0, |zone| i64::from(zone.offset_at(value.div_euclid(per_second(unit)))))
}

/// A number of units since the epoch as the number that the clock on the wall shows.
#[inline]
pub(super) fn to_local(value: i64, unit: TimeUnit, zone: Option<Zone>) -> i128 {
    i128::from(value) + i128::from(offset_at(value, unit, zone)) * i128::from(per_second(unit))
}

/// What the clock shows, as a point in time; `None` if that is out of range.
pub(super) fn from_local(value: i128, unit: TimeUnit, zone: Option<Zone>) -> Option<Clock> {
    let per = i128::from(per_second(unit));
    let point = |offset: i32| i64::try_from(value - i128::from(offset) * per).ok();
    let Some(zone) = zone else { return Some(Clock::Once(point(0)?)) };
    let local = i64::try_from(value.div_euclid(per)).ok()?;
    Some(match zone.offsets_of_local(local) {
        LocalResult::Single(offset) => Clock::Once(point(offset)?),
        LocalResult::Ambiguous(a, b) => {
            let (a, b) = (point(a)?, point(b)?);
            Clock::Twice(a.min(b), a.max(b))
        }
        LocalResult::None => {
            // No zone is so far from UTC, nor changes its clock by so much at once.
            const SECONDS_AROUND: i64 = 36 * 3600;
            let (mut low, mut high) = (local.checked_sub(SECONDS_AROUND)?, local.checked_add(SECONDS_AROUND)?);
            let offset_before = zone.offset_at(low);
            while high - low > 1 {
                let middle = low + (high - low) / 2;
                if zone.offset_at(middle) == offset_before { low = middle } else { high = middle }
            }
            Clock::Skipped(i64::try_from(i128::from(high) * per).ok()?, point(offset_before)?)
        }
    })
}
