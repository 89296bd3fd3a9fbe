//! Which casts records are not expected to fail in.
//!
//! | from → to | values that do not fit |
//! | --- | --- |
//! | a type → the same, or one that holds all its values | none |
//! | integer → float64 | integers beyond 2**53, if the float is another number |
//! | decimal → float | none: a decimal has fewer digits than the range of a float |
//! | date → timestamp in microseconds or coarser | years beyond ±290,000 |
//! | timestamp or duration → microseconds or a coarser unit | as for dates; a coarser unit rounds down |
//! | timestamp → date or time of day, time of day → coarser unit | none before the year 5,000,000 |
//! | text, date, time, timestamp, duration → text | none |
//!
//! A value of that kind is as rare as a sum that leaves its range: it fails the job if nobody takes the errors of its step, but the
//! plan need not foresee it. Nanoseconds hold only the years 1677 to 2262, so a cast to them may well meet dates such as 9999-12-31.

use arrow::datatypes::{DataType, TimeUnit};
use mill_frame::convert::{Verdict, cast_verdict};

use crate::types::{is_decimal, per_second};

/// Whether values of one type are expected to fit in the other one.
pub(super) fn fits(from: &DataType, to: &DataType) -> bool {
    use DataType::{Date32, Date64, Duration, Float32, Float64, LargeUtf8, Time32, Time64, Timestamp, Utf8, Utf8View};
    let verdict = cast_verdict(from, to);
    let from = if let DataType::Dictionary(_, values) = from { values } else { from };
    match (verdict, from, to) {
        (Verdict::Same | Verdict::Exact, ..) => true,
        (Verdict::Refused, ..) => false,
        (Verdict::Checked, Utf8 | LargeUtf8 | Utf8View | Date32 | Date64, Utf8 | LargeUtf8 | Utf8View) => true,
        (Verdict::Checked, Time32(_) | Time64(_) | Timestamp(..) | Duration(_), Utf8 | LargeUtf8 | Utf8View) => true,
        (Verdict::Checked, from, Float64) => from.is_integer() || is_decimal(from),
        (Verdict::Checked, from, Float32) => is_decimal(from) && !matches!(from, DataType::Decimal256(..)),
        (Verdict::Checked, Date64, Date32) => true,
        (Verdict::Checked, Date32 | Date64, Timestamp(unit, _)) => is_wide(*unit),
        (Verdict::Checked, Timestamp(from, _), Timestamp(to, _)) | (Verdict::Checked, Duration(from), Duration(to)) => {
            is_wide(*to) || per_second(*to) <= per_second(*from)
        }
        (Verdict::Checked, Timestamp(..), Date32 | Date64) => true,
        (Verdict::Checked, Timestamp(..) | Time32(_) | Time64(_), Time32(_) | Time64(_)) => true,
        (Verdict::Checked, ..) => false,
    }
}

/// Whether the unit holds all years that anyone means.
fn is_wide(unit: TimeUnit) -> bool {
    unit != TimeUnit::Nanosecond
}
