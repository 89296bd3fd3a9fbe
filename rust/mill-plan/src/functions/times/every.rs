//! Moving and truncating times by spans such as `1h30m`, `1w`, `3mo`.
//!
//! Days, weeks, months and years are of the calendar, hours and less are of the clock: `1d` after noon is noon, also where
//! the clock is put forward or back in between, and `24h` after noon then is eleven or one.

use std::sync::Arc;

use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit};
use chrono::{Datelike, Months, NaiveDate, NaiveDateTime};
use datafusion_common::ScalarValue;
use mill_protocol::{Error, Result};

use super::super::arguments::{constant_str, first, mapped};
use super::{Clock, as_timestamp, each, from_local, local_units, naive_local, to_local};
use crate::compiled::bind::Typed;
use crate::compiled::value::failed;
use crate::types::per_second;

const NANOS_PER_DAY: i128 = 86_400 * 1_000_000_000;

/// A span of the calendar and of the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    months: i64,
    weeks: i64,
    days: i64,
    nanos: i128,
}

impl Span {
    /// From `-1mo`, `1w`, `1h30m`, or a duration.
    fn of(name: &str, arg: &Typed) -> Result<Span> {
        let nanos = |value: i64, unit: TimeUnit| i128::from(value) * i128::from(1_000_000_000 / per_second(unit));
        let of_clock = |nanos: i128| Ok(Span { months: 0, weeks: 0, days: 0, nanos });
        match &arg.constant {
            Some(ScalarValue::DurationSecond(Some(value))) => return of_clock(nanos(*value, TimeUnit::Second)),
            Some(ScalarValue::DurationMillisecond(Some(value))) => return of_clock(nanos(*value, TimeUnit::Millisecond)),
            Some(ScalarValue::DurationMicrosecond(Some(value))) => return of_clock(nanos(*value, TimeUnit::Microsecond)),
            Some(ScalarValue::DurationNanosecond(Some(value))) => return of_clock(nanos(*value, TimeUnit::Nanosecond)),
            _ => {}
        }
        let text = constant_str(name, "span", arg)?.unwrap_or_default();
        Span::parse(&text).ok_or_else(|| {
            Error::plan(format!("{name}() takes a span such as \"1h30m\", \"1d\", \"1w\", \"1mo\" or \"1y\", found {text:?}"))
        })
    }

    fn parse(text: &str) -> Option<Span> {
        let (sign, mut rest) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
        let mut span = Span { months: 0, weeks: 0, days: 0, nanos: 0 };
        if rest.is_empty() {
            return None;
        }
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit())?;
            let count = sign * rest[..digits].parse::<i64>().ok()?;
            rest = &rest[digits..];
            let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
            let second = 1_000_000_000_i128;
            let clock = match &rest[..end] {
                "ns" => 1,
                "us" => 1_000,
                "ms" => 1_000_000,
                "s" => second,
                "m" => 60 * second,
                "h" => 3600 * second,
                "d" => {
                    span.days = span.days.checked_add(count)?;
                    0
                }
                "w" => {
                    span.weeks = span.weeks.checked_add(count)?;
                    0
                }
                unit @ ("mo" | "q" | "y") => {
                    let months = if unit == "mo" { 1 } else if unit == "q" { 3 } else { 12 };
                    span.months = span.months.checked_add(count.checked_mul(months)?)?;
                    0
                }
                _ => return None,
            };
            span.nanos = span.nanos.checked_add(i128::from(count) * clock)?;
            rest = &rest[end..];
        }
        Some(span)
    }
}

/// The start of the span that holds the time, by the clock of its zone. Weeks start on Monday, spans of days and less at
/// the epoch.
///
/// Where the clock shows the start twice, a span of hours and less starts at the later that is not after the time, so that
/// the hour that comes twice is two hours; a span of days starts at the earlier. Where it skips the start, the span starts
/// with the first time that there is.
pub(super) fn truncate(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let span = Span::of(name, &args[1])?;
    let kinds = [span.months != 0, span.weeks != 0, span.days != 0, span.nanos != 0];
    if kinds.iter().filter(|kind| **kind).count() != 1 || span.months < 0 || span.weeks < 0 || span.days < 0 || span.nanos < 0 {
        return Err(Error::plan(format!(
            "{name}() takes one positive span, of months, of weeks, of days, or of hours and less; found {}",
            args[1].text
        )));
    }
    let original = args[0].data_type.clone();
    let described = args[0].describe();
    let is_date = !matches!(original, DataType::Timestamp(..));
    if is_date && span.nanos > 0 && NANOS_PER_DAY % span.nanos != 0 && span.nanos % NANOS_PER_DAY != 0 {
        return Err(Error::plan(format!(
            "{name}(): {described} cannot be truncated to {}: a date has no time of day; cast it first, as in \
             .cast(mill.Timestamp(\"us\"))",
            args[1].text
        )));
    }
    let (arg, unit, zone) = as_timestamp(name, first(args)?)?;
    let of_unit = i128::from(1_000_000_000 / per_second(unit));
    let day = 86_400 * per_second(unit);
    let in_units = span.nanos / of_unit + (i128::from(span.days) + i128::from(span.weeks) * 7) * i128::from(day);
    if span.months == 0 && in_units > 0 && span.nanos % of_unit != 0 && span.nanos > of_unit {
        return Err(Error::plan(format!(
            "{name}(): {} is no multiple of the unit of {}; cast it to a finer one, as in .dt.cast_time_unit(\"ns\")",
            text, described
        )));
    }
    let size = i64::try_from(in_units).unwrap_or(i64::MAX);
    // The first Monday after the epoch.
    let origin = if span.weeks > 0 { 4 * day } else { 0 };
    let is_calendar = span.nanos == 0;
    let months = span.months;
    let to = original.clone();
    let kernel = mapped(move |array| {
        let start = |value: i64| -> Option<i64> {
            if months == 0 && (size <= 1 || zone.is_none()) {
                return match size {
                    ..=1 => Some(value),
                    // The remainder of the difference, which itself may be out of range.
                    size => value.checked_sub((value.rem_euclid(size) - origin.rem_euclid(size)).rem_euclid(size)),
                };
            }
            let local = to_local(value, unit, zone);
            let start = match months {
                0 => local - (local - i128::from(origin)).rem_euclid(i128::from(size)),
                months => local_units(start_of_months(naive_local(local, unit)?, months)?, unit),
            };
            Some(match from_local(start, unit, zone)? {
                Clock::Once(point) => point,
                Clock::Twice(_, later) if !is_calendar && later <= value => later,
                Clock::Twice(earlier, _) => earlier,
                Clock::Skipped(end, _) => end,
            })
        };
        let result = cast(&each(array, start)?, array.data_type()).map_err(failed)?;
        cast(&result, &to).map_err(failed)
    });
    Typed::call(kernel, vec![arg], original, text)
}

fn start_of_months(time: NaiveDateTime, months: i64) -> Option<NaiveDateTime> {
    let month = i64::from(time.year()) * 12 + i64::from(time.month0());
    let start = month - month.rem_euclid(months);
    let (year, month0) = (start.div_euclid(12), start.rem_euclid(12));
    NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, month0 as u32 + 1, 1)?.and_hms_opt(0, 0, 0)
}

/// The time moved by a span: first by its months and days, which keep what the clock shows, then by its hours and less,
/// which pass. A day that a month lacks becomes its last. Where the clock shows the result twice, the one with the offset
/// of the time before is meant, or the earlier; where it skips it, the result is later by what was skipped.
pub(super) fn offset_by(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let span = Span::of(name, &args[1])?;
    let original = args[0].data_type.clone();
    let (described, by) = (args[0].describe(), Arc::clone(&args[1].text));
    let (arg, unit, zone) = as_timestamp(name, first(args)?)?;
    let of_unit = i128::from(1_000_000_000 / per_second(unit));
    let is_date = !matches!(original, DataType::Timestamp(..));
    if span.nanos % of_unit != 0 || is_date && span.nanos % NANOS_PER_DAY != 0 {
        let what = if is_date { "a date has no time of day" } else { "it is finer than the unit of the column" };
        return Err(Error::plan(format!(
            "{name}(): {described} cannot be moved by {by}: {what}; cast it first, as in .cast(mill.Timestamp(\"ns\"))"
        )));
    }
    let clock = i64::try_from(span.nanos / of_unit).ok();
    let days = span.weeks.checked_mul(7).and_then(|days| days.checked_add(span.days));
    let days = days.and_then(|days| days.checked_mul(86_400 * per_second(unit)));
    let to = original.clone();
    let kernel = mapped(move |array| {
        let moved = |value: i64| -> Option<i64> {
            if span.months == 0 && days == Some(0) {
                return value.checked_add(clock?);
            }
            let before = to_local(value, unit, zone);
            let mut local = before;
            if span.months != 0 {
                let by = Months::new(u32::try_from(span.months.unsigned_abs()).ok()?);
                let time = naive_local(local, unit)?;
                let time = if span.months > 0 { time.checked_add_months(by)? } else { time.checked_sub_months(by)? };
                local = local_units(time, unit);
            }
            local += i128::from(days?);
            let point = match from_local(local, unit, zone)? {
                Clock::Once(point) | Clock::Skipped(_, point) => point,
                Clock::Twice(_, later) if local - i128::from(later) == before - i128::from(value) => later,
                Clock::Twice(earlier, _) => earlier,
            };
            point.checked_add(clock?)
        };
        let result = cast(&each(array, moved)?, array.data_type()).map_err(failed)?;
        cast(&result, &to).map_err(failed)
    });
    Typed::call(kernel, vec![arg], original, text)
}

#[cfg(test)]
mod tests {
    use super::Span;

    #[test]
    fn spans_are_read_as_polars_writes_them() {
        let clock = |nanos| Some(Span { months: 0, weeks: 0, days: 0, nanos });
        assert_eq!(Span::parse("1h30m"), clock(5_400_000_000_000));
        assert_eq!(Span::parse("48h"), clock(172_800_000_000_000));
        assert_eq!(Span::parse("-2d"), Some(Span { months: 0, weeks: 0, days: -2, nanos: 0 }));
        assert_eq!(Span::parse("1q"), Some(Span { months: 3, weeks: 0, days: 0, nanos: 0 }));
        assert_eq!(Span::parse("2w"), Some(Span { months: 0, weeks: 2, days: 0, nanos: 0 }));
        for wrong in ["", "h", "1", "1x", "1.5h"] {
            assert_eq!(Span::parse(wrong), None, "{wrong}");
        }
    }
}
