//! Functions of points in time and spans of it.
//!
//! What depends on the calendar is told in the time zone of the column, if it has one.

mod every;
mod parse;

use std::sync::Arc;

use arrow::array::timezone::Tz;
use arrow::array::{Array, ArrayRef, AsArray, Date32Array, Int64Array, StringBuilder, Time64NanosecondArray};
use arrow::compute::{DatePart, cast, date_part};
use arrow::datatypes::{DataType, Int64Type, TimeUnit};
use chrono::format::{Item, StrftimeItems};
use chrono::{DateTime, NaiveDateTime, Offset, TimeZone};
use mill_protocol::{Error, Result};

use self::every::{offset_by, truncate};
use self::parse::{to_date, to_datetime};
use super::arguments::{constant_str, first, mapped, needs};
use super::{Function, method};
use crate::compiled::bind::Typed;
use crate::compiled::value::failed;
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
    method("dt.offset_by", 2, 2, offset_by),
    method("dt.cast_time_unit", 2, 2, cast_time_unit),
    method("dt.convert_time_zone", 2, 2, time_zone),
    method("dt.replace_time_zone", 2, 2, time_zone),
    method("dt.total_days", 1, 1, total),
    method("dt.total_hours", 1, 1, total),
    method("dt.total_minutes", 1, 1, total),
    method("dt.total_seconds", 1, 1, total),
    method("dt.total_milliseconds", 1, 1, total),
    method("dt.total_microseconds", 1, 1, total),
    method("dt.total_nanoseconds", 1, 1, total),
    method("str.to_date", 1, 3, to_date),
    method("str.to_datetime", 1, 4, to_datetime),
];

const DAY_S: i64 = 86_400;

/// A point in time as a timestamp, with its unit and zone; dates are their midnight.
fn as_timestamp(name: &str, arg: Typed) -> Result<(Typed, TimeUnit, Option<Tz>)> {
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

fn parse_zone(zone: &str) -> Result<Tz> {
    zone.parse().map_err(|_| Error::plan(format!("{zone:?} is no time zone; give one such as \"Europe/Berlin\" or \"UTC\"")))
}

/// The numbers that an array of times is made of.
fn numbers(array: &ArrayRef) -> Result<Int64Array> {
    Ok(cast(array, &DataType::Int64).map_err(failed)?.as_primitive::<Int64Type>().clone())
}

/// A number of units since the epoch as a date and time in UTC.
fn naive(value: i64, unit: TimeUnit) -> Option<NaiveDateTime> {
    let per = per_second(unit);
    let nanos = value.rem_euclid(per) * (1_000_000_000 / per);
    Some(DateTime::from_timestamp(value.div_euclid(per), nanos as u32)?.naive_utc())
}

/// The reverse of [`naive`].
fn units(time: NaiveDateTime, unit: TimeUnit) -> Option<i64> {
    let time = time.and_utc();
    let per = per_second(unit);
    let rest = i64::from(time.timestamp_subsec_nanos()) / (1_000_000_000 / per);
    time.timestamp().checked_mul(per)?.checked_add(rest)
}

/// A number of units since the epoch as the number that the clock on the wall shows.
fn to_local(value: i64, unit: TimeUnit, zone: Option<Tz>) -> Option<i64> {
    let Some(zone) = zone else { return Some(value) };
    let offset = zone.offset_from_utc_datetime(&naive(value, unit)?).fix().local_minus_utc();
    value.checked_add(i64::from(offset) * per_second(unit))
}

/// The reverse of [`to_local`]: the earlier of two, and what follows the gap where the clock was put forward.
fn from_local(value: i64, unit: TimeUnit, zone: Option<Tz>) -> Option<i64> {
    let Some(zone) = zone else { return Some(value) };
    let local = naive(value, unit)?;
    if let Some(found) = zone.from_local_datetime(&local).earliest() {
        return units(found.naive_utc(), unit);
    }
    // In a gap, which is at most a day (Samoa, 2011): the offset of before the gap leads to after it.
    let before = local.checked_sub_signed(chrono::TimeDelta::hours(26))?;
    let offset = zone.offset_from_utc_datetime(&before).fix().local_minus_utc();
    value.checked_sub(i64::from(offset) * per_second(unit))
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
    let is_of_day = matches!(name, "dt.hour" | "dt.minute" | "dt.second" | "dt.millisecond" | "dt.microsecond" | "dt.nanosecond");
    match &arg.data_type {
        DataType::Timestamp(_, zone) => {
            zone.as_deref().map(parse_zone).transpose()?;
        }
        DataType::Date32 | DataType::Date64 => {}
        DataType::Time32(_) | DataType::Time64(_) if is_of_day => {}
        _ => return Err(needs(name, "a date or timestamp", &arg)),
    }
    let kernel = mapped(move |array| cast(&date_part(array, part).map_err(failed)?, &DataType::Int64).map_err(failed));
    Typed::call(kernel, vec![arg], DataType::Int64, text)
}

fn date(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let (arg, unit, zone) = as_timestamp(name, first(args)?)?;
    let day = DAY_S * per_second(unit);
    let kernel = mapped(move |array| {
        let days = numbers(array)?.iter().map(|value| to_local(value?, unit, zone).map(|local| local.div_euclid(day) as i32)).collect::<Date32Array>();
        Ok(Arc::new(days) as _)
    });
    Typed::call(kernel, vec![arg], DataType::Date32, text)
}

fn time(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let (arg, unit, zone) = as_timestamp(name, first(args)?)?;
    let (day, scale) = (DAY_S * per_second(unit), 1_000_000_000 / per_second(unit));
    let kernel = mapped(move |array| {
        let of_day = |value: i64| Some(to_local(value, unit, zone)?.rem_euclid(day) * scale);
        Ok(Arc::new(numbers(array)?.iter().map(|value| of_day(value?)).collect::<Time64NanosecondArray>()) as _)
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
        let mut result = Vec::with_capacity(array.len());
        for value in &numbers(array)? {
            result.push(match (value, to) {
                (None, _) => None,
                (Some(value), None) => Some(value.div_euclid(day)),
                (Some(value), Some(to)) => {
                    let scaled = rescale(value, unit, to);
                    Some(scaled.ok_or_else(|| Error::data("a timestamp does not fit in the unit asked for"))?)
                }
            });
        }
        Ok(Arc::new(Int64Array::from(result)) as _)
    });
    Typed::call(kernel, vec![arg], DataType::Int64, text)
}

fn strftime(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let Some(format) = constant_str(name, "format", &args[1])? else {
        return Err(Error::plan(format!("{name}() needs a format such as \"%Y-%m-%d\"")));
    };
    let format = parse::python_format(&format, false);
    if StrftimeItems::new(&format).any(|item| item == Item::Error) {
        return Err(Error::plan(format!("{name}(): {format:?} is no format; see chrono's strftime for what there is")));
    }
    let (arg, unit, zone) = as_timestamp(name, first(args)?)?;
    let kernel = mapped(move |array| {
        use std::fmt::Write;
        let items: Vec<Item<'_>> = StrftimeItems::new(&format).collect();
        let times = numbers(array)?;
        let mut result = StringBuilder::with_capacity(times.len(), times.len() * 20);
        let mut written = String::new();
        for value in &times {
            let Some(time) = value.and_then(|value| naive(value, unit)) else {
                result.append_null();
                continue;
            };
            written.clear();
            let done = match zone {
                Some(zone) => write!(written, "{}", zone.from_utc_datetime(&time).format_with_items(items.iter())),
                None => write!(written, "{}", time.format_with_items(items.iter())),
            };
            done.map_err(|_| Error::data(format!("{format:?} asks for a zone, and {time} has none")))?;
            result.append_value(&written);
        }
        Ok(Arc::new(result.finish()) as _)
    });
    Typed::call(kernel, vec![arg], DataType::Utf8, text)
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
    let kernel = mapped(move |array| {
        let scaled = |value: i64| {
            rescale(value, from, unit).ok_or_else(|| Error::data(format!("{value} does not fit in {}", crate::types::type_name(&to))))
        };
        let times = numbers(array)?;
        let result = times.iter().map(|value| value.map(scaled).transpose()).collect::<Result<Vec<Option<i64>>>>()?;
        cast(&Int64Array::from(result), &to).map_err(failed)
    });
    Typed::call(kernel, vec![arg], data_type, text)
}

/// `convert_time_zone` keeps the point in time, `replace_time_zone` what the clock shows.
fn time_zone(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let zone = constant_str(name, "time zone", &args[1])?;
    let to = zone.as_deref().map(parse_zone).transpose()?;
    let keeps_point = name == "dt.convert_time_zone";
    if keeps_point && zone.is_none() {
        return Err(Error::plan(format!("{name}() needs a time zone; dt.replace_time_zone(None) takes it away")));
    }
    let (arg, unit, from) = as_timestamp(name, first(args)?)?;
    let data_type = DataType::Timestamp(unit, zone.map(Into::into));
    let result_type = data_type.clone();
    let kernel = mapped(move |array| {
        let times = numbers(array)?;
        let times = match keeps_point {
            true => times,
            false => times.iter().map(|value| from_local(to_local(value?, unit, from)?, unit, to)).collect::<Int64Array>(),
        };
        cast(&times, &result_type).map_err(failed)
    });
    Typed::call(kernel, vec![arg], data_type, text)
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
