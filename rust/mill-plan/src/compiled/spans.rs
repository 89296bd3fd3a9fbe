//! Arithmetic of times and durations.
//!
//! | left, right | result |
//! | --- | --- |
//! | timestamp - timestamp, date - date | duration |
//! | timestamp ± duration | timestamp |
//! | date ± duration of whole days | date |
//! | duration ± duration, duration * or / number | duration |
//! | duration / duration | float64 |

use std::sync::Arc;

use arrow::datatypes::{DataType, Date32Type, Float64Type, Int64Type, TimeUnit};
use datafusion_common::ScalarValue;
use mill_frame::convert;
use mill_protocol::{Error, Result};

use super::Kernel;
use super::arithmetic::{of_arrow, refused};
use super::bind::{Typed, meet};
use super::value::inexact;
use super::{numbers, wide};
use crate::expr::BinaryOp;
use crate::types::{finer, is_number, per_second, supertype, type_name};

const DAY_S: i64 = 86_400;

/// Binds an operator between times, durations and numbers.
pub(super) fn bind(op: BinaryOp, left: Typed, right: Typed, text: &Arc<str>) -> Result<Typed> {
    use DataType::{Date32, Date64, Duration, Timestamp};
    let us = TimeUnit::Microsecond;
    let plain: Kernel = Arc::new(move |args, _| of_arrow(op, &args[0], &args[1]));
    // A null takes the type that makes sense.
    let (left, right) = match (&left.data_type, &right.data_type) {
        (DataType::Null, other) => {
            let to = if op == BinaryOp::Add && !matches!(other, Duration(_)) { Duration(us) } else { other.clone() };
            (left.coerce(&to)?, right)
        }
        (other, DataType::Null) => {
            let to = if matches!(other, Duration(_)) && matches!(op, BinaryOp::Mul | BinaryOp::Div) {
                DataType::Int64
            } else {
                Duration(us)
            };
            let to = to.clone();
            (left, right.coerce(&to)?)
        }
        _ => (left, right),
    };
    match (op, left.data_type.clone(), right.data_type.clone()) {
        (BinaryOp::Sub, Timestamp(..) | Date32 | Date64, Timestamp(..) | Date32 | Date64) => {
            let both_dates = !matches!(left.data_type, Timestamp(..)) && !matches!(right.data_type, Timestamp(..));
            let met = if both_dates { Some(Timestamp(us, None)) } else { meet(&left, &right) };
            let Some(met @ Timestamp(unit, _)) = met else { return Err(refused(op, &left, &right)) };
            let args = vec![left.coerce(&met)?, right.coerce(&met)?];
            Typed::call(plain, args, Duration(unit), text)
        }
        (BinaryOp::Add | BinaryOp::Sub, Timestamp(unit, zone), Duration(other)) => {
            let unit = moved_unit(unit, other, &right);
            let args = vec![left.coerce(&Timestamp(unit, zone.clone()))?, right.coerce(&Duration(unit))?];
            Typed::call(plain, args, Timestamp(unit, zone), text)
        }
        (BinaryOp::Add | BinaryOp::Sub, Date32 | Date64, Duration(unit)) => moved_date(op, left, right, unit, text),
        (BinaryOp::Add, Duration(_), Timestamp(..) | Date32 | Date64) => bind(op, right, left, text),
        (BinaryOp::Add | BinaryOp::Sub, Duration(a), Duration(b)) => {
            let met = meet(&left, &right).unwrap_or(Duration(finer(a, b)));
            let args = vec![left.coerce(&met)?, right.coerce(&met)?];
            Typed::call(plain, args, met, text)
        }
        (BinaryOp::Mul, Duration(_), number) if is_number(&number) => scaled(op, left, right, text),
        (BinaryOp::Mul, number, Duration(_)) if is_number(&number) => scaled(op, right, left, text),
        (BinaryOp::Div, Duration(_), number) if is_number(&number) => scaled(op, left, right, text),
        (BinaryOp::Div, Duration(a), Duration(b)) => {
            let met = supertype(&Duration(a), &Duration(b)).unwrap_or(Duration(a));
            let as_number = |side: Typed| side.coerce(&met)?.coerce(&DataType::Int64);
            let args = vec![as_number(left)?, as_number(right)?];
            let kernel: Kernel = Arc::new(|args, rows| wide::quotients(&args[0], &args[1], rows));
            Typed::call(kernel, args, DataType::Float64, text)
        }
        _ => Err(refused(op, &left, &right)),
    }
}

/// The unit of a time moved by a duration: that of the time, unless the duration needs a finer one.
fn moved_unit(time: TimeUnit, duration: TimeUnit, by: &Typed) -> TimeUnit {
    let fits = by.is_literal
        && by.constant.as_ref().is_some_and(|value| {
            let back = value.cast_to(&DataType::Duration(time)).and_then(|v| v.cast_to(&value.data_type()));
            back.is_ok_and(|back| back == *value)
        });
    if fits { time } else { finer(time, duration) }
}

/// A date some days later or earlier. A date has no hours, so a duration of other than whole days is an error.
fn moved_date(op: BinaryOp, date: Typed, duration: Typed, unit: TimeUnit, text: &Arc<str>) -> Result<Typed> {
    const HELP: &str = "a date moves by whole days; cast it to a timestamp first, as in .cast(datetime)";
    let per_day = DAY_S * per_second(unit);
    let duration_text = duration.describe();
    let duration = duration.coerce(&DataType::Int64)?;
    if let Some(ScalarValue::Int64(Some(units))) = &duration.constant
        && units % per_day != 0
    {
        return Err(Error::schema(format!("{text}: {duration_text} is not a number of whole days, and {HELP}")));
    }
    let args = vec![date.coerce(&DataType::Date32)?, duration];
    let kernel: Kernel = Arc::new(move |args, rows| {
        wide::pairs::<Date32Type, Int64Type, Date32Type>(&args[0], &args[1], rows, |date, units| {
            if units % per_day != 0 {
                let days = units as f64 / per_day as f64;
                return Err(Error::data(format!("a duration of {days} days is not a number of whole days, and {HELP}")));
            }
            let days = if op == BinaryOp::Sub { -(units / per_day) } else { units / per_day };
            let moved = i32::try_from(i64::from(date) + days).ok();
            Ok(Some(moved.ok_or_else(|| Error::data(format!("a date {days} days from it is out of range")))?))
        })
    });
    Typed::call(kernel, args, DataType::Date32, text)
}

/// A duration times or divided by a number: the unit nearest to the exact result, half to even as Python does.
fn scaled(op: BinaryOp, duration: Typed, number: Typed, text: &Arc<str>) -> Result<Typed> {
    let data_type = duration.data_type.clone();
    let is_integer = number.data_type.is_integer();
    let to = if is_integer { DataType::Int64 } else { DataType::Float64 };
    let args = vec![duration.coerce(&DataType::Int64)?, number.coerce(&to)?];
    let result = data_type.clone();
    let kernel: Kernel = Arc::new(move |args, rows| {
        let (l, r) = (&args[0], &args[1]);
        let numbers = match (op, is_integer) {
            (BinaryOp::Mul, true) => numbers::integers(op, l, r, rows)?,
            (_, true) => wide::pairs::<Int64Type, Int64Type, Int64Type>(l, r, rows, |a, b| {
                let (a, b) = (i128::from(a), i128::from(b));
                if b == 0 {
                    return Err(Error::data("division by zero"));
                }
                whole(Some(wide::half_even(a * b.signum(), b.abs())), &result)
            })?,
            _ => wide::pairs::<Int64Type, Float64Type, Int64Type>(l, r, rows, |a, b| {
                if !b.is_finite() {
                    let what = if op == BinaryOp::Mul { "multiplied" } else { "divided" };
                    return Err(Error::data(format!("a duration cannot be {what} by {b}")));
                }
                match op {
                    BinaryOp::Mul => whole(times(a, b), &result),
                    _ if b == 0.0 => Err(Error::data("division by zero")),
                    _ => whole(over(a, b), &result),
                }
            })?,
        };
        numbers.map(|array| convert::cast(array, &result).map_err(inexact))
    });
    Typed::call(kernel, args, data_type, text)
}

/// A number of units, if it fits.
fn whole(units: Option<i128>, to: &DataType) -> Result<Option<i64>> {
    match units.and_then(|units| i64::try_from(units).ok()) {
        Some(units) => Ok(Some(units)),
        None => Err(Error::data(format!("the result does not fit in {}", type_name(to)))),
    }
}

/// The parts of a float, which is `mantissa * 2^exponent`.
fn parts(x: f64) -> (i128, i32) {
    let bits = x.abs().to_bits();
    let (exponent, fraction) = ((bits >> 52) as i32, i128::from(bits & ((1 << 52) - 1)));
    let (mantissa, exponent) = if exponent == 0 { (fraction, -1074) } else { (fraction | 1 << 52, exponent - 1075) };
    (if x < 0.0 { -mantissa } else { mantissa }, exponent)
}

/// `a * b`, rounded half to even; `None` if it is too large for 64 bits.
fn times(a: i64, b: f64) -> Option<i128> {
    let (mantissa, exponent) = parts(b);
    let product = i128::from(a) * mantissa;
    match exponent {
        _ if product == 0 => Some(0),
        64.. => None,
        0.. => i64::try_from(product).ok().map(|product| i128::from(product) << exponent),
        // The product has up to 116 bits, and is less than a quarter here.
        ..=-118 => Some(0),
        _ => Some(wide::half_even(product, 1 << -exponent)),
    }
}

/// `a / b`, rounded half to even; `None` if it is too large for 64 bits.
fn over(a: i64, b: f64) -> Option<i128> {
    let (mantissa, exponent) = parts(b);
    let (a, divisor) = (i128::from(a) * mantissa.signum(), mantissa.abs());
    let bits = i128::BITS - a.unsigned_abs().leading_zeros();
    match exponent {
        _ if a == 0 => Some(0),
        // The divisor is more than twice as large.
        66.. => Some(0),
        0.. => Some(wide::half_even(a, divisor << exponent)),
        // The divisor has up to 53 bits, so the quotient has 64 or more.
        _ if bits as i32 - exponent > 120 => None,
        _ => Some(wide::half_even(a << -exponent, divisor)),
    }
}

#[cfg(test)]
mod tests {
    use super::{over, times};

    #[test]
    fn a_duration_times_or_by_a_float_is_rounded_once() {
        let large = (1 << 53) + 1;
        for (a, b, product, quotient) in [
            (large, 1.0, Some(large), Some(large)),
            (3, 0.5, Some(2), Some(6)),
            (-5, 0.5, Some(-2), Some(-10)),
            (5, -2.0, Some(-10), Some(-2)),
            (i64::MAX, 0.5, Some(1 << 62), None),
            (i64::MAX, 1e300, None, Some(0)),
            (i64::MAX, 5e-324, Some(0), None),
            (0, 1e300, Some(0), Some(0)),
            (10, 0.1, Some(1), Some(100)),
            (1, 18_446_744_073_709_551_616.0, None, Some(0)),
        ] {
            let fits = |found: Option<i128>| found.and_then(|found| i64::try_from(found).ok());
            assert_eq!(fits(times(a, b)), product, "{a} * {b}");
            assert_eq!(fits(over(a, b)), quotient, "{a} / {b}");
        }
    }
}
