//! Moving and truncating times by spans such as `1h30m`, `1w`, `3mo`.
//!
//! Days, weeks, months and years are of the calendar, hours and less are of the clock: `1d` after noon is noon, also where
//! the clock is put forward or back in between, and `24h` after noon then is eleven or one.

use std::sync::Arc;

use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit};
use chrono::{Datelike, Months, NaiveDate, NaiveDateTime};
use datafusion_common::ScalarValue;
use mill_frame::zone::Zone;
use mill_protocol::{Error, Result};

use super::super::arguments::{constant_str, first, mapped};
use super::{Clock, as_timestamp, each, from_local, local_units, naive_local, offset_at, to_local};
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

/// Spans one after another, by the clock of a zone. Weeks start on Monday, spans of days and less at the epoch.
///
/// Where the clock shows the start twice, a span of hours and less starts at the later that is not after the time, so that
/// the hour that comes twice is two hours; a span of days starts at the earlier. Where it skips the start, the span starts
/// with the first time that there is.
struct Grid {
    unit: TimeUnit,
    zone: Option<Zone>,
    /// How long spans of months are, else 0.
    months: i64,
    /// How long spans of weeks and less are, in units.
    size: i64,
    /// Where one of them starts.
    origin: i64,
    is_of_clock: bool,
}

impl Grid {
    /// The grid of `truncate(every)` and `round(every)`, and their argument as a timestamp.
    fn of(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<(Grid, Typed)> {
        let span = Span::of(name, &args[1])?;
        let kinds = [span.months != 0, span.weeks != 0, span.days != 0, span.nanos != 0];
        let is_negative = span.months < 0 || span.weeks < 0 || span.days < 0 || span.nanos < 0;
        if kinds.iter().filter(|kind| **kind).count() != 1 || is_negative {
            return Err(Error::plan(format!(
                "{name}() takes one positive span, of months, of weeks, of days, or of hours and less; found {}",
                args[1].text
            )));
        }
        let described = args[0].describe();
        let is_date = matches!(args[0].data_type, DataType::Date32 | DataType::Date64);
        if is_date && span.nanos > 0 && NANOS_PER_DAY % span.nanos != 0 && span.nanos % NANOS_PER_DAY != 0 {
            let done = if name == "dt.round" { "rounded" } else { "truncated" };
            return Err(Error::plan(format!(
                "{name}(): {described} cannot be {done} to {}: a date has no time of day; cast it first, as in \
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
                "{name}(): {text} is no multiple of the unit of {described}; cast it to a finer one, as in \
                 .dt.cast_time_unit(\"ns\")"
            )));
        }
        let size = i64::try_from(in_units).unwrap_or(i64::MAX);
        // The first Monday after the epoch.
        let origin = if span.weeks > 0 { 4 * day } else { 0 };
        Ok((Grid { unit, zone, months: span.months, size, origin, is_of_clock: span.nanos != 0 }, arg))
    }

    /// Whether spans need no look at the calendar or a clock.
    fn is_plain(&self) -> bool {
        self.months == 0 && (self.size <= 1 || self.zone.is_none())
    }

    /// The start of the span that holds the time; `None` if it is out of range.
    fn start(&self, value: i64) -> Option<i64> {
        if self.is_plain() {
            return match self.size {
                ..=1 => Some(value),
                // The remainder of the difference, which itself may be out of range.
                size => value.checked_sub((value.rem_euclid(size) - self.origin.rem_euclid(size)).rem_euclid(size)),
            };
        }
        self.point(self.local_start(value)?, value)
    }

    /// The same of the span after it.
    fn next(&self, value: i64) -> Option<i64> {
        if self.is_plain() {
            return self.start(value)?.checked_add(self.size.max(1));
        }
        let start = self.local_start(value)?;
        let next = match self.months {
            0 => start + i128::from(self.size),
            months => {
                let by = Months::new(u32::try_from(months).ok()?);
                local_units(naive_local(start, self.unit)?.checked_add_months(by)?, self.unit)
            }
        };
        if !self.is_of_clock {
            return self.point(next, value);
        }
        // Until the clock shows it, unless it is changed before: then there may be a start at once.
        let offset = |at: i64| offset_at(at, self.unit, self.zone);
        let passed = next - to_local(value, self.unit, self.zone);
        let point = i64::try_from(i128::from(value) + passed).ok()?;
        if offset(point) == offset(value) {
            return Some(point);
        }
        let (mut low, mut high) = (value, point);
        while i128::from(high) - i128::from(low) > 1 {
            let middle = low.midpoint(high);
            if offset(middle) == offset(value) { low = middle } else { high = middle }
        }
        if self.start(high)? == high { Some(high) } else { self.next(high) }
    }

    /// What the clock shows at the start of the span that holds the time.
    fn local_start(&self, value: i64) -> Option<i128> {
        let local = to_local(value, self.unit, self.zone);
        Some(match self.months {
            0 => local - (local - i128::from(self.origin)).rem_euclid(i128::from(self.size)),
            months => local_units(start_of_months(naive_local(local, self.unit)?, months)?, self.unit),
        })
    }

    /// The point in time at which the clock shows this, at or before a time where that is so twice.
    fn point(&self, local: i128, before: i64) -> Option<i64> {
        Some(match from_local(local, self.unit, self.zone)? {
            Clock::Once(point) => point,
            Clock::Twice(_, later) if self.is_of_clock && later <= before => later,
            Clock::Twice(earlier, _) => earlier,
            Clock::Skipped(end, _) => end,
        })
    }
}

/// Each time as another one, in the type that the column has.
fn moved_by(arg: Typed, to: DataType, text: &Arc<str>, f: impl Fn(i64) -> Option<i64> + Send + Sync + 'static) -> Result<Typed> {
    let result_type = to.clone();
    let kernel = mapped(move |array| {
        let result = cast(&each(array, &f)?, array.data_type()).map_err(failed)?;
        cast(&result, &to).map_err(failed)
    });
    Typed::call(kernel, vec![arg], result_type, text)
}

/// `truncate(every)`: the start of the span that holds the time.
pub(super) fn truncate(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let to = args[0].data_type.clone();
    let (grid, arg) = Grid::of(name, args, text)?;
    moved_by(arg, to, text, move |value| grid.start(value))
}

/// `round(every)`: the start of a span that is nearest to the time; of two, the later.
pub(super) fn round(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let to = args[0].data_type.clone();
    let (grid, arg) = Grid::of(name, args, text)?;
    moved_by(arg, to, text, move |value| {
        let start = grid.start(value)?;
        let since = i128::from(value) - i128::from(start);
        if since == 0 {
            return Some(start);
        }
        // Beyond the range of the type there is no time that could be nearer.
        match grid.next(value) {
            Some(next) if i128::from(next) - i128::from(value) <= since => Some(next),
            Some(_) => Some(start),
            None => None,
        }
    })
}

fn start_of_months(time: NaiveDateTime, months: i64) -> Option<NaiveDateTime> {
    let month = i64::from(time.year()) * 12 + i64::from(time.month0());
    let start = month - month.rem_euclid(months);
    let (year, month0) = (start.div_euclid(12), start.rem_euclid(12));
    NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, month0 as u32 + 1, 1)?.and_hms_opt(0, 0, 0)
}

/// The time moved by a span: first by its months and days, which keep what the clock shows, then by its hours and less,
/// which pass. A day that a month lacks becomes its last.
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
    moved_by(arg, original, text, move |value| {
        if span.months == 0 && days == Some(0) {
            return value.checked_add(clock?);
        }
        let moved = by_calendar(value, unit, zone, |mut local| {
            if span.months != 0 {
                let by = Months::new(u32::try_from(span.months.unsigned_abs()).ok()?);
                let time = naive_local(local, unit)?;
                let time = if span.months > 0 { time.checked_add_months(by)? } else { time.checked_sub_months(by)? };
                local = local_units(time, unit);
            }
            Some(local + i128::from(days?))
        });
        moved?.checked_add(clock?)
    })
}

/// `month_start()` and `month_end()`: the first or last day of the month, at the same time of day.
pub(super) fn month_bound(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let is_start = name == "dt.month_start";
    let original = args[0].data_type.clone();
    let (arg, unit, zone) = as_timestamp(name, first(args)?)?;
    moved_by(arg, original, text, move |value| {
        by_calendar(value, unit, zone, |local| {
            let time = naive_local(local, unit)?;
            let bound = if is_start { 1 } else { i64::from(time.num_days_in_month()) };
            Some(local + i128::from(bound - i64::from(time.day())) * i128::from(86_400 * per_second(unit)))
        })
    })
}

/// Moves what the clock shows. Where it shows the result twice, the one with the offset of the time before is meant, or the
/// earlier; where it skips it, the result is later by what was skipped.
fn by_calendar(value: i64, unit: TimeUnit, zone: Option<Zone>, moved: impl Fn(i128) -> Option<i128>) -> Option<i64> {
    let before = to_local(value, unit, zone);
    let local = moved(before)?;
    Some(match from_local(local, unit, zone)? {
        Clock::Once(point) | Clock::Skipped(_, point) => point,
        Clock::Twice(_, later) if local - i128::from(later) == before - i128::from(value) => later,
        Clock::Twice(earlier, _) => earlier,
    })
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
