//! Points in time, times of day and durations: whole numbers of a unit.

use std::sync::Arc;

use arrow::array::timezone::Tz;
use arrow::array::{Array, ArrayRef, AsArray, Int64Array, make_array};
use arrow::datatypes::{DataType, Int32Type, Int64Type, TimeUnit};
use arrow::error::ArrowError;
use chrono::{DateTime, Offset, TimeZone};

use super::Ask;
use super::flat::{Converted, kernel};
use super::rules::{is_utc, per_second, unit};

const DAY_S: i64 = 86_400;
const DAY_MS: i64 = DAY_S * 1000;

/// The numbers that times are made of.
pub(super) fn units(array: &ArrayRef) -> Result<Int64Array, ArrowError> {
    let array = match array.data_type() {
        DataType::Time32(_) => kernel(array, &DataType::Int32)?,
        _ => Arc::clone(array),
    };
    Ok(kernel(&array, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
}

/// Times of a type from the numbers that they are made of.
pub(super) fn from_units(units: &Int64Array, to: &DataType) -> Converted {
    match to {
        DataType::Time32(_) => {
            let narrow = units.unary_opt::<_, Int32Type>(|value| i32::try_from(value).ok());
            kernel(&(Arc::new(narrow) as ArrayRef), to)
        }
        // Numbers of 64 bits all, with a zone or without.
        _ => Ok(make_array(units.to_data().into_builder().data_type(to.clone()).build()?)),
    }
}

/// Numbers divided and rounded down; exactly, a rest does not fit.
fn divide(units: &Int64Array, by: i64, ask: Ask) -> Int64Array {
    match ask {
        Ask::Cast => units.unary(|value: i64| value.div_euclid(by)),
        Ask::Exact => units.unary_opt(|value| (value % by == 0).then_some(value / by)),
    }
}

/// Times of the same kind in another unit or zone.
pub(super) fn rescale(array: &ArrayRef, to: &DataType, ask: Ask) -> Converted {
    let (Some(a), Some(b)) = (unit(array.data_type()), unit(to)) else { return kernel(array, to) };
    let (a, b) = (per_second(a), per_second(b));
    let units = units(array)?;
    let rescaled = if b > a {
        let factor = b / a;
        units.unary_opt(|value: i64| value.checked_mul(factor))
    } else if b < a {
        divide(&units, a / b, ask)
    } else {
        units
    };
    from_units(&rescaled, to)
}

pub(super) fn date_to_date(array: &ArrayRef, to: &DataType, ask: Ask) -> Converted {
    if array.data_type() == to || to == &DataType::Date64 {
        return kernel(array, to);
    }
    let days = divide(&units(array)?, DAY_MS, ask);
    days_to_date(&days, to)
}

fn days_to_date(days: &Int64Array, to: &DataType) -> Converted {
    let days = days.unary_opt::<_, Int32Type>(|days| i32::try_from(days).ok());
    kernel(&kernel(&(Arc::new(days) as ArrayRef), &DataType::Date32)?, to)
}

/// The midnights of dates.
pub(super) fn date_to_timestamp(array: &ArrayRef, to: &DataType) -> Converted {
    let per_second = unit(to).map_or(1, per_second);
    let (units, factor) = match array.data_type() {
        DataType::Date32 => {
            let days = kernel(&kernel(array, &DataType::Int32)?, &DataType::Int64)?;
            (days.as_primitive::<Int64Type>().clone(), DAY_S * per_second)
        }
        // Some programs keep a time of day in it.
        _ => return rescale(&from_units(&units(array)?, &DataType::Timestamp(TimeUnit::Millisecond, None))?, to, Ask::Exact),
    };
    from_units(&units.unary_opt(|value: i64| value.checked_mul(factor)), to)
}

/// The dates that hold times, by the clock of their zone; exactly, only midnights are dates.
pub(super) fn timestamp_to_date(array: &ArrayRef, to: &DataType, ask: Ask) -> Converted {
    let (local, per_second) = wall_clock(array)?;
    days_to_date(&divide(&local, DAY_S * per_second, ask), to)
}

/// The times of day that a clock in the zone shows, rounded down to the unit.
pub(super) fn time_of_day(array: &ArrayRef, to: &DataType) -> Converted {
    let (local, per_second_from) = wall_clock(array)?;
    let day = DAY_S * per_second_from;
    let per_second = unit(to).map_or(1, per_second);
    let of_day = |value: i64| {
        let value = value.rem_euclid(day);
        if per_second >= per_second_from { value * (per_second / per_second_from) } else { value / (per_second_from / per_second) }
    };
    from_units(&local.unary(of_day), to)
}

/// What the clock of the zone shows, in units, and how many make a second.
fn wall_clock(array: &ArrayRef) -> Result<(Int64Array, i64), ArrowError> {
    let units = units(array)?;
    let DataType::Timestamp(unit, zone) = array.data_type() else { return Ok((units, 1)) };
    let per_second = per_second(*unit);
    let zone: Tz = match zone.as_deref() {
        None => return Ok((units, per_second)),
        Some(zone) if is_utc(zone) => return Ok((units, per_second)),
        Some(zone) => zone.parse()?,
    };
    let local = units.unary_opt::<_, Int64Type>(|value| {
        let moment = DateTime::from_timestamp(value.div_euclid(per_second), 0)?;
        let offset = zone.offset_from_utc_datetime(&moment.naive_utc()).fix().local_minus_utc();
        value.checked_add(i64::from(offset) * per_second)
    });
    Ok((local, per_second))
}
