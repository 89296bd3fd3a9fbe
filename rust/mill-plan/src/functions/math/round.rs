//! Rounding: `round`, `ceil`, `floor`, `trunc`.
//!
//! `round` is that of Python: to the nearest decimal of so many digits, and halves to the even neighbour, judged by the
//! exact value of the float. So 2.675, which is a little less than it looks, becomes 2.67, and what has no more digits
//! stays what it is, however large.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, PrimitiveArray};
use arrow::datatypes::{ArrowPrimitiveType, DataType, Decimal128Type, DecimalType, Int64Type, UInt64Type};
use mill_frame::convert;
use mill_protocol::{Error, Result};

use super::super::arguments::{as_float, constant_int, first, mapped};
use super::floats_mapped;
use crate::compiled::bind::Typed;
use crate::compiled::value::{failed, inexact};
use crate::types::{is_decimal, type_name};

/// How far a number of decimals may be from zero; no float has more digits on either side of the point.
const DECIMALS_MAX: i64 = 400;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Nearest,
    Up,
    Down,
    ToZero,
}

/// `ceil`, `floor`, `trunc`, and `round(decimals=0)`.
pub(super) fn rounded(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let decimals = args.get(1).map(|arg| constant_int(name, "number of decimals", arg)).transpose()?.flatten();
    let decimals = decimals.unwrap_or(0);
    if !(-DECIMALS_MAX..=DECIMALS_MAX).contains(&decimals) {
        return Err(Error::plan(format!("{name}() takes -{DECIMALS_MAX} to {DECIMALS_MAX} decimals, found {decimals}")));
    }
    let way = match name {
        "ceil" => Way::Up,
        "floor" => Way::Down,
        "trunc" => Way::ToZero,
        _ => Way::Nearest,
    };
    let arg = first(args)?;
    let data_type = arg.data_type.clone();
    if data_type.is_integer() {
        return if decimals >= 0 { Ok(arg) } else { of_integers(arg, decimals, text) };
    }
    if is_decimal(&data_type) {
        return of_decimals(arg, way, decimals, text);
    }
    let arg = as_float(name, arg)?;
    let data_type = arg.data_type.clone();
    let kernel = match way {
        Way::Up => floats_mapped(f64::ceil),
        Way::Down => floats_mapped(f64::floor),
        Way::ToZero => floats_mapped(f64::trunc),
        Way::Nearest if decimals == 0 => floats_mapped(f64::round_ties_even),
        Way::Nearest => floats_mapped(move |x| nearest(x, decimals as i32)),
    };
    Typed::call(kernel, vec![arg], data_type, text)
}

/// The float nearest to the decimal of so many digits that is nearest to a float.
fn nearest(x: f64, decimals: i32) -> f64 {
    /// The largest power of ten that is exact.
    const EXACT_MAX: i32 = 22;
    if !x.is_finite() || x == 0.0 || decimals > 0 && x.abs() >= 2f64.powi(52) {
        return x;
    }
    if (0..=EXACT_MAX).contains(&decimals) {
        let scale = 10f64.powi(decimals);
        let scaled = x * scale;
        let whole = scaled.round_ties_even();
        // The product is off by half a unit in its last place at most. Unless that could move it over a half, the whole
        // number is right, and one division rounds once.
        let from_half = ((scaled - whole).abs() - 0.5).abs();
        if scaled.abs() < 2f64.powi(51) && from_half > scaled.abs() * 2f64.powi(-51) {
            return whole / scale;
        }
    }
    by_digits(x, decimals)
}

/// The same by the exact digits of the float, which the formatter rounds half to even.
#[cold]
fn by_digits(x: f64, decimals: i32) -> f64 {
    let exponent = |text: &str| text.rsplit_once('e').and_then(|(_, exponent)| exponent.parse::<i32>().ok());
    // Eighteen digits tell a float from the power of ten above it.
    let Some(first) = exponent(&format!("{x:.17e}")) else { return x };
    let kept = first + decimals;
    match usize::try_from(kept) {
        Ok(kept) => format!("{x:.kept$e}").parse().unwrap_or(x),
        Err(_) => {
            let unit: f64 = format!("1e{}", -decimals).parse().unwrap_or(f64::INFINITY);
            // The even neighbour of half a unit is zero.
            let digits = format!("{:.40e}", x.abs());
            let digits = digits.split('e').next().unwrap_or_default();
            let is_more = kept == -1 && digits > format!("5.{:040}", 0).as_str();
            if is_more { unit.copysign(x) } else { 0f64.copysign(x) }
        }
    }
}

/// A whole number rounded to a unit; `None` if it does not fit.
fn to_unit(x: i128, unit: Option<i128>, way: Way) -> Option<i128> {
    let Some(unit) = unit else {
        // The unit is more than twice as large as any number.
        let is_zero = x == 0 || way == Way::Nearest || way == Way::ToZero || (way == Way::Up) == (x < 0);
        return is_zero.then_some(0);
    };
    let rest = x.rem_euclid(unit);
    let down = x.checked_sub(rest);
    let up = || x.checked_add(unit - rest);
    if rest == 0 {
        return Some(x);
    }
    match way {
        Way::Down => down,
        Way::Up => up(),
        Way::ToZero => if x < 0 { up() } else { down },
        // The half is between the neighbours; units are even but for 1.
        Way::Nearest => match rest.cmp(&(unit / 2)) {
            std::cmp::Ordering::Less => down,
            std::cmp::Ordering::Greater => up(),
            std::cmp::Ordering::Equal if x.div_euclid(unit) % 2 == 0 => down,
            std::cmp::Ordering::Equal => up(),
        },
    }
}

fn power(exponent: i64) -> Option<i128> {
    u32::try_from(exponent).ok().and_then(|exponent| 10_i128.checked_pow(exponent))
}

/// Integers rounded to tens, hundreds and so on.
fn of_integers(arg: Typed, decimals: i64, text: &Arc<str>) -> Result<Typed> {
    let data_type = arg.data_type.clone();
    let to = data_type.clone();
    let unit = power(-decimals);
    let kernel = mapped(move |array| {
        let wide_type = if to.is_unsigned_integer() { DataType::UInt64 } else { DataType::Int64 };
        let wide = convert::exact(array, &wide_type).map_err(inexact)?;
        let wide: ArrayRef = match wide_type {
            DataType::UInt64 => Arc::new(integers::<UInt64Type>(wide.as_primitive(), unit, &to)?),
            _ => Arc::new(integers::<Int64Type>(wide.as_primitive(), unit, &to)?),
        };
        convert::exact(&wide, &to).map_err(inexact)
    });
    Typed::call(kernel, vec![arg], data_type, text)
}

fn integers<T: ArrowPrimitiveType>(array: &PrimitiveArray<T>, unit: Option<i128>, to: &DataType) -> Result<PrimitiveArray<T>>
where
    T::Native: Into<i128> + TryFrom<i128>,
{
    arrow::compute::try_unary(array, |x: T::Native| {
        let wide: i128 = x.into();
        let rounded = to_unit(wide, unit, Way::Nearest).and_then(|x| T::Native::try_from(x).ok());
        rounded.ok_or_else(|| overflow(wide, to))
    })
    .map_err(failed)
}

fn overflow(x: impl std::fmt::Display, to: &DataType) -> arrow::error::ArrowError {
    arrow::error::ArrowError::ComputeError(format!("{x} rounded does not fit in {}", type_name(to)))
}

/// Decimals rounded, in their own type.
fn of_decimals(arg: Typed, way: Way, decimals: i64, text: &Arc<str>) -> Result<Typed> {
    let data_type = arg.data_type.clone();
    let (DataType::Decimal32(precision, scale)
    | DataType::Decimal64(precision, scale)
    | DataType::Decimal128(precision, scale)
    | DataType::Decimal256(precision, scale)) = data_type
    else {
        return Ok(arg);
    };
    let dropped = i64::from(scale) - decimals;
    if dropped <= 0 {
        return Ok(arg);
    }
    let unit = power(dropped);
    let to = data_type.clone();
    let wide = DataType::Decimal128(precision.min(38), scale);
    let limit = 10_i128.pow(u32::from(precision.min(38)));
    let kernel = mapped(move |array| {
        let numbers = convert::exact(array, &wide).map_err(inexact)?;
        let result: PrimitiveArray<Decimal128Type> = arrow::compute::try_unary(numbers.as_primitive::<Decimal128Type>(), |x: i128| {
            let rounded = to_unit(x, unit, way).filter(|x| x.abs() < limit);
            rounded.ok_or_else(|| overflow(Decimal128Type::format_decimal(x, precision, scale), &to))
        })
        .map_err(failed)?;
        let result: ArrayRef = Arc::new(result.with_precision_and_scale(precision.min(38), scale).map_err(failed)?);
        convert::exact(&result, &to).map_err(inexact)
    });
    Typed::call(kernel, vec![arg], data_type, text)
}

#[cfg(test)]
mod tests {
    use super::{nearest, to_unit, Way};

    #[test]
    fn floats_are_rounded_as_python_rounds_them() {
        for (x, decimals, expected) in [
            (2.675, 2, 2.67), (1.005, 2, 1.0), (0.285, 2, 0.28), (0.25, 1, 0.2), (0.35, 1, 0.3), (2.5, 0, 2.0),
            (7_398_496_086_372_649.0, 1, 7_398_496_086_372_649.0), (4_503_599_627_370_497.5, 1, 4_503_599_627_370_497.5),
            (1e300, 5, 1e300), (1.5e-5, 5, 2e-5), (123.456, 20, 123.456), (5e-324, 300, 0.0),
            (1234.5, -2, 1200.0), (1250.0, -2, 1200.0), (1350.0, -2, 1400.0), (1250.000001, -2, 1300.0), (50.0, -2, 0.0),
            (51.0, -2, 100.0), (-50.0, -2, -0.0), (49.0, -2, 0.0), (1e300, -300, 1e300), (6e300, -301, 1e301), (1e23, -22, 1e23),
            (0.5, 0, 0.0), (1.5, 0, 2.0), (-2.5, 0, -2.0), (1.0, 400, 1.0), (1e308, -400, 0.0),
        ] {
            let found = nearest(x, decimals);
            assert_eq!(found.to_bits(), f64::to_bits(expected), "round({x}, {decimals}): {found}");
        }
        assert!(nearest(f64::NAN, 2).is_nan());
        assert_eq!(nearest(f64::INFINITY, 2), f64::INFINITY);
    }

    #[test]
    fn whole_numbers_are_rounded_to_their_unit() {
        for (x, way, expected) in [
            (250, Way::Nearest, Some(200)), (350, Way::Nearest, Some(400)), (-250, Way::Nearest, Some(-200)),
            (-251, Way::Nearest, Some(-300)), (-1, Way::Down, Some(-100)), (-1, Way::ToZero, Some(0)), (1, Way::Up, Some(100)),
            (i128::MAX, Way::Up, None),
        ] {
            assert_eq!(to_unit(x, Some(100), way), expected, "{x}");
        }
        assert_eq!(to_unit(5, None, Way::Nearest), Some(0));
        assert_eq!(to_unit(5, None, Way::Up), None);
    }
}
