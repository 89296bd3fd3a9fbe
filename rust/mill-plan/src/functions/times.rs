//! Functions of points in time and spans of it.
//!
//! What depends on the calendar is told in the time zone of the column, if it has one.

mod every;
mod format;
mod parse;
mod strptime;
mod zone;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, Int64Builder};
use arrow::compute::{DatePart, cast, date_part};
use arrow::datatypes::{DataType, Date32Type, Int64Type, Time64NanosecondType, TimeUnit};
use chrono::{DateTime, NaiveDateTime};
use mill_frame::convert::{self, show};
use mill_frame::zone::Zone;
use mill_protocol::{Error, Result};

use self::every::{month_bound, offset_by, round, truncate};
use self::format::strftime;
use self::parse::{to_date, to_datetime};
use self::zone::{Clock, from_local, offset_at, to_local};
use super::arguments::{constant_str, first, mapped, needs};
use super::{Function, method};
use crate::compiled::bind::Typed;
use crate::compiled::value::{failed, inexact};
use crate::types::per_second;

pub(super) const FUNCTIONS: &[Function] = &[
    method("dt.year", 1, 1, field),
    method("dt.iso_year", 1, 1, field),
    method("dt.quarter", 1, 1, field),
    method("dt.month", 1, 1, field),
    method("dt.week", 1, 1, field),
    method("dt.weekday", 1, 1, field),
    method("dt.day", 1, 1, field),
    method("dt.ordinal_day", 1, 1, field),
    method("dt.hour", 1, 1, field),
    method("dt.minute", 1, 1, field),
    method("dt.second", 1, 1, field),
    method("dt.millisecond", 1, 1, field),
    method("dt.microsecond", 1, 1, field),
    method("dt.nanosecond", 1, 1, field),
    method("dt.date", 1, 1, date),
    method("dt.time", 1, 1, time),
    method("dt.epoch", 1, 2, epoch),
    method("dt.timestamp", 1, 2, epoch),
    method("dt.strftime", 2, 2, strftime),
    method("dt.to_string", 2, 2, strftime),
    method("dt.truncate", 2, 2, truncate),
    method("dt.round", 2, 2, round),
    method("dt.offset_by", 2, 2, offset_by),
    method("dt.month_start", 1, 1, month_bound),
    method("dt.month_end", 1, 1, month_bound),
    method("dt.cast_time_unit", 2, 2, cast_time_unit),
    method("dt.convert_time_zone", 2, 2, time_zone),
    method("dt.replace_time_zone", 2, 4, time_zone),
    method("dt.total_days", 1, 1, total),
    method("dt.total_hours", 1, 1, total),
    method("dt.total_minutes", 1, 1, total),
    method("dt.total_seconds", 1, 1, total),
    method("dt.total_milliseconds", 1, 1, total),
    method("dt.total_microseconds", 1, 1, total),
    method("dt.total_nanoseconds", 1, 1, total),
    method("str.to_date", 1, 3, to_date).strict_at(2),
    method("str.to_datetime", 1, 4, to_datetime).strict_at(3),
];

const DAY_S: i64 = 86_400;

/// A point in time as a timestamp, with its unit and zone; dates are their midnight.
fn as_timestamp(name: &str, arg: Typed) -> Result<(Typed, TimeUnit, Option<Zone>)> {
    match arg.data_type.clone() {
        DataType::Timestamp(unit, zone) => {
            let zone = zone.map(|zone| parse_zone(&zone)).transpose()?;
            Ok((arg, unit, zone))
        }
        DataType::Date32 | DataType::Date64 => {
            Ok((arg.coerce(&DataType::Timestamp(TimeUnit::Microsecond, None))?, TimeUnit::Microsecond, None))
        }
        _ => Err(needs(name, "a date or timestamp", &arg)),
    }
}

fn parse_zone(zone: &str) -> Result<Zone> {
    zone.parse().map_err(|_| Error::plan(format!("{zone:?} is no time zone; give one such as \"Europe/Berlin\" or \"UTC\"")))
}

/// The numbers that an array of times is made of.
fn numbers(array: &ArrayRef) -> Result<Int64Array> {
    Ok(cast(array, &DataType::Int64).map_err(failed)?.as_primitive::<Int64Type>().clone())
}

/// A number of units since the epoch as a date and time in UTC.
fn naive(value: i64, unit: TimeUnit) -> Option<NaiveDateTime> {
    naive_local(i128::from(value), unit)
}

/// The same of a number that the clock of a zone shows.
fn naive_local(value: i128, unit: TimeUnit) -> Option<NaiveDateTime> {
    let per = i128::from(per_second(unit));
    let nanos = value.rem_euclid(per) * (1_000_000_000 / per);
    Some(DateTime::from_timestamp(i64::try_from(value.div_euclid(per)).ok()?, nanos as u32)?.naive_utc())
}

/// The reverse of [`naive_local`].
fn local_units(time: NaiveDateTime, unit: TimeUnit) -> i128 {
    let time = time.and_utc();
    let per = per_second(unit);
    let rest = i64::from(time.timestamp_subsec_nanos()) / (1_000_000_000 / per);
    i128::from(time.timestamp()) * i128::from(per) + i128::from(rest)
}

/// The reverse of [`naive`].
fn units(time: NaiveDateTime, unit: TimeUnit) -> Option<i64> {
    i64::try_from(local_units(time, unit)).ok()
}

/// Each time as another number; one that cannot be is an error.
fn each(array: &ArrayRef, f: impl Fn(i64) -> Option<i64>) -> Result<Int64Array> {
    let times = numbers(array)?;
    let result = times.unary_opt::<_, Int64Type>(&f);
    match (0..times.len()).find(|&row| result.is_null(row) && times.is_valid(row)) {
        None => Ok(result),
        Some(row) => Err(out_of_range(array, row)),
    }
}

fn out_of_range(array: &ArrayRef, row: usize) -> Error {
    Error::data(format!("{} is out of the range of times that this can be computed for", show(array, row)))
}

fn field(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let part = match name {
        "dt.year" => DatePart::Year,
        "dt.iso_year" => DatePart::YearISO,
        "dt.quarter" => DatePart::Quarter,
        "dt.month" => DatePart::Month,
        "dt.week" => DatePart::WeekISO,
        "dt.weekday" => DatePart::DayOfWeekMonday1,
        "dt.day" => DatePart::Day,
        "dt.ordinal_day" => DatePart::DayOfYear,
        "dt.hour" => DatePart::Hour,
        "dt.minute" => DatePart::Minute,
        "dt.second" => DatePart::Second,
        "dt.millisecond" => DatePart::Millisecond,
        "dt.microsecond" => DatePart::Microsecond,
        _ => DatePart::Nanosecond,
    };
    let arg = first(args)?;
    let zone = match &arg.data_type {
        DataType::Timestamp(_, zone) => zone.as_deref().map(parse_zone).transpose()?,
        _ => None,
    };
    let is_of_day = matches!(name, "dt.hour" | "dt.minute" | "dt.second" | "dt.millisecond" | "dt.microsecond" | "dt.nanosecond");
    match &arg.data_type {
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => {}
        DataType::Time32(_) | DataType::Time64(_) if is_of_day => {}
        _ => return Err(needs(name, "a date or timestamp", &arg)),
    }
    let is_fraction = matches!(part, DatePart::Millisecond | DatePart::Microsecond | DatePart::Nanosecond);
    let kernel = mapped(move |array| {
        let shown = match zone {
            Some(zone) => shown_by(zone, array, is_fraction)?,
            None => Arc::clone(array),
        };
        let parts = date_part(&shown, part).map_err(failed)?;
        if parts.null_count() > array.null_count()
            && let Some(row) = (0..parts.len()).find(|&row| parts.is_null(row) && array.is_valid(row))
        {
            return Err(out_of_range(array, row));
        }
        cast(&parts, &DataType::Int64).map_err(failed)
    });
    Typed::call(kernel, vec![arg], DataType::Int64, text)
}

/// What the clock of a zone shows: whole seconds, or, for a fraction, which no clock changes, the times in UTC.
fn shown_by(zone: Zone, array: &ArrayRef, is_fraction: bool) -> Result<ArrayRef> {
    let DataType::Timestamp(unit, _) = *array.data_type() else { return Err(Error::internal("only timestamps have zones")) };
    let (times, unit) = match is_fraction {
        true => (numbers(array)?, unit),
        false => (each(array, |value| value.div_euclid(per_second(unit)).checked_add(offset_at(value, unit, Some(zone))))?, TimeUnit::Second),
    };
    cast(&times, &DataType::Timestamp(unit, None)).map_err(failed)
}

fn date(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let (arg, unit, zone) = as_timestamp(name, first(args)?)?;
    let kernel = mapped(move |array| {
        let days = each(array, |value| {
            let local = value.div_euclid(per_second(unit)).checked_add(offset_at(value, unit, zone))?;
            i32::try_from(local.div_euclid(DAY_S)).ok().map(i64::from)
        })?;
        Ok(Arc::new(days.unary::<_, Date32Type>(|days| days as i32)) as _)
    });
    Typed::call(kernel, vec![arg], DataType::Date32, text)
}

fn time(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let (arg, unit, zone) = as_timestamp(name, first(args)?)?;
    let (day, scale) = (DAY_S * per_second(unit), 1_000_000_000 / per_second(unit));
    let kernel = mapped(move |array| {
        let of_day = |value: i64| {
            let of_day = value.rem_euclid(day) + offset_at(value, unit, zone) * per_second(unit);
            Some(of_day.rem_euclid(day) * scale)
        };
        Ok(Arc::new(each(array, of_day)?.unary::<_, Time64NanosecondType>(|nanos| nanos)) as _)
    });
    Typed::call(kernel, vec![arg], DataType::Time64(TimeUnit::Nanosecond), text)
}

fn unit_of(name: &str, unit: &str) -> Result<TimeUnit> {
    match unit {
        "s" => Ok(TimeUnit::Second),
        "ms" => Ok(TimeUnit::Millisecond),
        "us" => Ok(TimeUnit::Microsecond),
        "ns" => Ok(TimeUnit::Nanosecond),
        other => Err(Error::plan(format!("{name}() takes the unit \"s\", \"ms\", \"us\" or \"ns\", found {other:?}"))),
    }
}

/// A number in another unit, rounded down; `None` if it does not fit.
fn rescale(value: i64, from: TimeUnit, to: TimeUnit) -> Option<i64> {
    let (from, to) = (per_second(from), per_second(to));
    if to >= from { value.checked_mul(to / from) } else { Some(value.div_euclid(from / to)) }
}

/// `epoch(unit="us")`; also in days.
fn epoch(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let to = args.get(1).map(|arg| constant_str(name, "unit", arg)).transpose()?.flatten();
    let to = to.unwrap_or_else(|| "us".to_owned());
    let (arg, unit, _) = as_timestamp(name, first(args)?)?;
    let to = if to == "d" { None } else { Some(unit_of(name, &to)?) };
    let day = DAY_S * per_second(unit);
    let kernel = mapped(move |array| {
        let scaled = each(array, |value| match to {
            None => Some(value.div_euclid(day)),
            Some(to) => rescale(value, unit, to),
        });
        Ok(Arc::new(scaled?) as _)
    });
    Typed::call(kernel, vec![arg], DataType::Int64, text)
}

fn cast_time_unit(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let unit = unit_of(name, &constant_str(name, "unit", &args[1])?.unwrap_or_default())?;
    let arg = first(args)?;
    let (from, to) = match &arg.data_type {
        DataType::Timestamp(from, zone) => (*from, DataType::Timestamp(unit, zone.clone())),
        DataType::Duration(from) => (*from, DataType::Duration(unit)),
        _ => return Err(needs(name, "a timestamp or duration", &arg)),
    };
    let data_type = to.clone();
    let kernel = mapped(move |array| cast(&each(array, |value| rescale(value, from, unit))?, &to).map_err(failed));
    Typed::call(kernel, vec![arg], data_type, text)
}

/// Which of two points in time is meant by a time that the clock shows twice, or what becomes of one that it skips.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unclear {
    Raise,
    Earliest,
    Latest,
    Null,
}

fn unclear(name: &str, option: &str, arg: Option<&Typed>, choices: &[(&str, Unclear)]) -> Result<Unclear> {
    let chosen = arg.map(|arg| constant_str(name, option, arg)).transpose()?.flatten().unwrap_or_else(|| "raise".to_owned());
    choices.iter().find(|choice| choice.0 == chosen).map(|choice| choice.1).ok_or_else(|| {
        let choices: Vec<String> = choices.iter().map(|choice| format!("{:?}", choice.0)).collect();
        Error::plan(format!("{name}() takes {option}={}, found {chosen:?}", choices.join(" or ")))
    })
}

/// `convert_time_zone` keeps the point in time, `replace_time_zone` what the clock shows.
fn time_zone(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let zone = constant_str(name, "time zone", &args[1])?;
    let to = zone.as_deref().map(parse_zone).transpose()?;
    let keeps_point = name == "dt.convert_time_zone";
    if keeps_point && zone.is_none() {
        return Err(Error::plan(format!("{name}() needs a time zone; dt.replace_time_zone(None) takes it away")));
    }
    let choices =
        [("raise", Unclear::Raise), ("earliest", Unclear::Earliest), ("latest", Unclear::Latest), ("null", Unclear::Null)];
    let twice = unclear(name, "ambiguous", args.get(2), &choices)?;
    let skipped = unclear(name, "non_existent", args.get(3), &[choices[0], choices[3]])?;
    let (arg, unit, from) = as_timestamp(name, first(args)?)?;
    let data_type = DataType::Timestamp(unit, zone.map(Into::into));
    let result_type = data_type.clone();
    let kernel = mapped(move |array| {
        let times = numbers(array)?;
        let times = match keeps_point {
            true => times,
            false => replaced(array, unit, from, to, twice, skipped)?,
        };
        cast(&times, &result_type).map_err(failed)
    });
    Typed::call(kernel, vec![arg], data_type, text)
}

/// What the clock of one zone shows, taken as the time of another.
fn replaced(array: &ArrayRef, unit: TimeUnit, from: Option<Zone>, to: Option<Zone>, twice: Unclear, skipped: Unclear) -> Result<Int64Array> {
    if to.is_none() {
        return each(array, |value| i64::try_from(to_local(value, unit, from)).ok());
    }
    let times = numbers(array)?;
    let mut result = Int64Builder::with_capacity(times.len());
    for (row, value) in times.iter().enumerate() {
        let Some(value) = value else {
            result.append_null();
            continue;
        };
        let clock = from_local(to_local(value, unit, from), unit, to);
        match (clock.ok_or_else(|| out_of_range(array, row))?, twice, skipped) {
            (Clock::Once(point), ..) | (Clock::Twice(point, _), Unclear::Earliest, _) | (Clock::Twice(_, point), Unclear::Latest, _) => {
                result.append_value(point);
            }
            (Clock::Twice(..), Unclear::Null, _) | (Clock::Skipped(..), _, Unclear::Null) => result.append_null(),
            (Clock::Twice(..), ..) => {
                return Err(Error::data(format!(
                    "the clock of the zone shows {} twice, when it is set back: leave such records out, or take the zone's offset into \
                     account before, as texts with one (\"…+02:00\") do",
                    show(array, row)
                )));
            }
            (Clock::Skipped(..), ..) => {
                return Err(Error::data(format!(
                    "the clock of the zone never shows {}, as it is set forward then: leave such records out, or move them with \
                     .dt.offset_by() before",
                    show(array, row)
                )));
            }
        }
    }
    Ok(result.finish())
}

/// The first times of days in a zone: where midnight is skipped, the end of the gap, and where it comes twice, the earlier.
///
/// # Errors
/// The first day that begins out of the range of the type, and a zone that is not known.
pub(crate) fn midnights(dates: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    let DataType::Timestamp(unit, zone) = to else { return Err(Error::internal("only timestamps have zones")) };
    let zone = zone.as_deref().map(parse_zone).transpose()?;
    let naive = convert::exact(dates, &DataType::Timestamp(*unit, None)).map_err(inexact)?;
    let starts = each(&naive, |midnight| match from_local(i128::from(midnight), *unit, zone)? {
        Clock::Once(point) | Clock::Twice(point, _) | Clock::Skipped(point, _) => Some(point),
    })?;
    cast(&starts, to).map_err(failed)
}

/// A duration in whole units, cut towards zero.
fn total(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let arg = first(args)?;
    let DataType::Duration(unit) = arg.data_type else { return Err(needs(name, "a duration", &arg)) };
    let nanos: i128 = match name {
        "dt.total_days" => 86_400_000_000_000,
        "dt.total_hours" => 3_600_000_000_000,
        "dt.total_minutes" => 60_000_000_000,
        "dt.total_seconds" => 1_000_000_000,
        "dt.total_milliseconds" => 1_000_000,
        "dt.total_microseconds" => 1_000,
        _ => 1,
    };
    let own = i128::from(1_000_000_000 / per_second(unit));
    let kernel = mapped(move |array| {
        let mut result = Vec::with_capacity(array.len());
        for value in &numbers(array)? {
            let total = value.map(|value| i64::try_from(i128::from(value) * own / nanos));
            result.push(total.transpose().map_err(|_| Error::data("a duration does not fit in the unit asked for"))?);
        }
        Ok(Arc::new(Int64Array::from(result)) as _)
    });
    Typed::call(kernel, vec![arg], DataType::Int64, text)
}
