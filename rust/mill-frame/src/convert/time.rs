//! Points in time, times of day and durations: whole numbers of a unit.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, make_array};
use arrow::datatypes::{DataType, Int32Type, Int64Type, TimeUnit};
use arrow::error::ArrowError;

use super::Ask;
use super::flat::{Converted, kernel};
use super::rules::{per_second, unit};
use crate::zone::{Zone, is_utc};

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
    let (units, per_second, zone) = parts(array)?;
    // In seconds: as a number of nanoseconds what the clock shows may be out of range where its date is not.
    let days = units.unary_opt::<_, Int64Type>(|value| {
        let second = value.div_euclid(per_second);
        let local = second.checked_add(offset_at(zone, second))?;
        let is_midnight = value.rem_euclid(per_second) == 0 && local.rem_euclid(DAY_S) == 0;
        (is_midnight || ask == Ask::Cast).then(|| local.div_euclid(DAY_S))
    });
    days_to_date(&days, to)
}

/// The times of day that a clock in the zone shows, rounded down to the unit.
pub(super) fn time_of_day(array: &ArrayRef, to: &DataType) -> Converted {
    let (units, per_second_from, zone) = parts(array)?;
    let per_second = unit(to).map_or(1, per_second);
    let of_day = |value: i64| {
        let second = value.div_euclid(per_second_from);
        // Each is reduced to a day before they are added up, which could overflow.
        let second_of_day = (second.rem_euclid(DAY_S) + offset_at(zone, second)).rem_euclid(DAY_S);
        let rest = value.rem_euclid(per_second_from);
        second_of_day * per_second
            + if per_second >= per_second_from { rest * (per_second / per_second_from) } else { rest / (per_second_from / per_second) }
    };
    from_units(&units.unary(of_day), to)
}

/// Points in time as units since the epoch, how many of them make a second, and the zone if its clock is not that of UTC.
fn parts(array: &ArrayRef) -> Result<(Int64Array, i64, Option<Zone>), ArrowError> {
    let units = units(array)?;
    let DataType::Timestamp(unit, zone) = array.data_type() else { return Ok((units, 1, None)) };
    let zone = zone.as_deref().filter(|zone| !is_utc(zone)).map(str::parse).transpose()?;
    Ok((units, per_second(*unit), zone))
}

#[inline]
fn offset_at(zone: Option<Zone>, second: i64) -> i64 {
    zone.map_or(0, |zone| i64::from(zone.offset_at(second)))
}
