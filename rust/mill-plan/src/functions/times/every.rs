//! Moving and truncating times by spans such as `1h30m`, `1w`, `3mo`.

use std::sync::Arc;

use arrow::array::Int64Array;
use arrow::array::timezone::Tz;
use arrow::compute::cast;
use arrow::datatypes::TimeUnit;
use chrono::{Datelike, Months, NaiveDate, NaiveDateTime};
use datafusion_common::ScalarValue;
use mill_protocol::{Error, Result};

use super::super::arguments::{constant_str, first, mapped};
use super::{as_timestamp, from_local, naive, numbers, to_local, units};
use crate::compiled::bind::Typed;
use crate::compiled::value::failed;
use crate::types::per_second;

/// A span of the calendar and of the clock. A day of the calendar is not `24h`: where clocks change it is longer or
/// shorter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
        let of_clock = |nanos: i128| Ok(Span { nanos, ..Span::default() });
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
        let mut span = Span::default();
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

    /// Refuses a span that times in this unit cannot hold.
    fn check_unit(self, name: &str, text: &str, unit: TimeUnit) -> Result<()> {
        if self.nanos % i128::from(1_000_000_000 / per_second(unit)) == 0 {
            return Ok(());
        }
        let (held, finer) = match unit {
            TimeUnit::Second => ("seconds", "ms"),
            TimeUnit::Millisecond => ("milliseconds", "us"),
            _ => ("microseconds", "ns"),
        };
        Err(Error::plan(format!(
            "{name}({text}): the times are whole {held}, which cannot hold such a span; cast them first: \
             .dt.cast_time_unit({finer:?})"
        )))
    }
}

/// The instant of a local time that was made of another one: with the same offset from UTC where that is right, so that
/// the hours that a clock shows twice stay apart.
fn from_local_near(local: i64, value: i64, of_value: i64, unit: TimeUnit, zone: Option<Tz>) -> Option<i64> {
    let same_offset = local.checked_sub(of_value.checked_sub(value)?)?;
    if to_local(same_offset, unit, zone)? == local { Some(same_offset) } else { from_local(local, unit, zone) }
}

/// The start of the span that holds the time, by the local clock. Weeks start on Monday, spans of days and less at the
/// epoch.
pub(super) fn truncate(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let span = Span::of(name, &args[1])?;
    let kinds =
        [span.months != 0, span.weeks != 0, span.days != 0, span.nanos != 0].into_iter().filter(|&is_there| is_there).count();
    if kinds != 1 || span.months < 0 || span.weeks < 0 || span.days < 0 || span.nanos < 0 {
        return Err(Error::plan(format!(
            "{name}() takes one positive span, of months, of weeks, of days, or of hours and less; found {}",
            args[1].text
        )));
    }
    let original = args[0].data_type.clone();
    let span_text = Arc::clone(&args[1].text);
    let (arg, unit, zone) = as_timestamp(name, first(args)?)?;
    if span.nanos > i128::from(1_000_000_000 / per_second(unit)) {
        span.check_unit(name, &span_text, unit)?;
    }
    let day = 86_400 * 1_000_000_000_i128;
    let in_units = |nanos: i128| i64::try_from(nanos / i128::from(1_000_000_000 / per_second(unit))).unwrap_or(i64::MAX);
    let size = in_units(span.nanos + (i128::from(span.weeks) * 7 + i128::from(span.days)) * day);
    // The first Monday after the epoch.
    let origin = if span.weeks > 0 { 4 * 86_400 * per_second(unit) } else { 0 };
    let months = span.months;
    let to = original.clone();
    let kernel = mapped(move |array| {
        let times = numbers(array)?;
        let start = |value: i64| -> Option<i64> {
            let local = to_local(value, unit, zone)?;
            let start = match months {
                0 if size <= 1 => local,
                0 => local.checked_sub(local.checked_sub(origin)?.rem_euclid(size))?,
                months => units(start_of_months(naive(local, unit)?, months)?, unit)?,
            };
            from_local_near(start, value, local, unit, zone)
        };
        let result: Int64Array = match zone {
            None if months == 0 => arrow::compute::unary(&times, |value: i64| {
                if size <= 1 { value } else { value.saturating_sub(value.wrapping_sub(origin).rem_euclid(size)) }
            }),
            _ => times.iter().map(|value| start(value?)).collect(),
        };
        let result = cast(&result, array.data_type()).map_err(failed)?;
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

/// The time moved by a span; days of the calendar keep what the clock shows, and a day that a month lacks becomes its
/// last.
pub(super) fn offset_by(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let span = Span::of(name, &args[1])?;
    let original = args[0].data_type.clone();
    let span_text = Arc::clone(&args[1].text);
    let (arg, unit, zone) = as_timestamp(name, first(args)?)?;
    span.check_unit(name, &span_text, unit)?;
    let (days, rest) = (i128::from(span.weeks) * 7 + i128::from(span.days), span.nanos);
    let day = 86_400 * 1_000_000_000_i128;
    let in_units = move |nanos: i128| i64::try_from(nanos / i128::from(1_000_000_000 / per_second(unit))).ok();
    let to = original.clone();
    let kernel = mapped(move |array| {
        let moved = |value: i64| -> Option<i64> {
            let of_value = to_local(value, unit, zone)?;
            let mut local = of_value;
            if span.months != 0 {
                let by = Months::new(u32::try_from(span.months.unsigned_abs()).ok()?);
                let time = naive(local, unit)?;
                let time = if span.months > 0 { time.checked_add_months(by)? } else { time.checked_sub_months(by)? };
                local = units(time, unit)?;
            }
            local = local.checked_add(in_units(days * day)?)?;
            from_local_near(local, value, of_value, unit, zone)?.checked_add(in_units(rest)?)
        };
        let mut result = Vec::with_capacity(array.len());
        for value in &numbers(array)? {
            let moved = value.map(|value| moved(value).ok_or_else(|| Error::data(format!("{value} moved is out of range"))));
            result.push(moved.transpose()?);
        }
        let result = cast(&Int64Array::from(result), array.data_type()).map_err(failed)?;
        cast(&result, &to).map_err(failed)
    });
    Typed::call(kernel, vec![arg], original, text)
}

#[cfg(test)]
mod tests {
    use super::Span;

    #[test]
    fn spans_are_read_as_polars_writes_them() {
        let clock = |nanos| Some(Span { nanos, ..Span::default() });
        assert_eq!(Span::parse("1h30m"), clock(5_400_000_000_000));
        assert_eq!(Span::parse("-2d"), Some(Span { days: -2, ..Span::default() }));
        assert_eq!(Span::parse("24h"), clock(86_400_000_000_000));
        assert_eq!(Span::parse("1q"), Some(Span { months: 3, ..Span::default() }));
        assert_eq!(Span::parse("2w"), Some(Span { weeks: 2, ..Span::default() }));
        for wrong in ["", "h", "1", "1x", "1.5h"] {
            assert_eq!(Span::parse(wrong), None, "{wrong}");
        }
    }
}
