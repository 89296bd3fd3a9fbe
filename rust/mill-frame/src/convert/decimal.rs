//! Decimals: no digit is lost, save where a float cannot hold it.

use std::str::FromStr;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ArrowPrimitiveType, BooleanArray, PrimitiveArray};
use arrow::compute::kernels::cmp::distinct;
use arrow::datatypes::{
    DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType, Decimal32Type, Decimal64Type, Decimal128Type,
    Decimal256Type, DecimalType, Float32Type, Float64Type,
};

use super::flat::{Converted, kernel, null_where};
use super::number;
use super::rules::digits;
use crate::text::parse_decimal;

/// The decimal type that holds every number of an integer type.
pub(super) fn of_integers(integers: &DataType) -> DataType {
    DataType::Decimal128(digits(integers).map_or(20, |(precision, _)| precision), 0)
}

/// Decimals of another precision and scale, if no digit is lost.
pub(super) fn rescale(array: &ArrayRef, to: &DataType) -> Converted {
    let from = array.data_type();
    let rescaled = kernel(array, to)?;
    let (Some((_, s1)), Some((_, s2))) = (digits(from), digits(to)) else { return Ok(rescaled) };
    if s2 >= s1 {
        return Ok(rescaled);
    }
    // The kernel rounds to a smaller scale; what comes back as another number, or not at all, has lost digits.
    let is_other = distinct(&kernel(&rescaled, from)?, array)?;
    null_where(&rescaled, &is_other)
}

/// Decimals as integers, if they have no fraction.
pub(super) fn to_int(array: &ArrayRef, to: &DataType) -> Converted {
    // Every integer type fits in 20 digits.
    kernel(&rescale(array, &DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0))?, to)
}

pub(super) fn is_not_zero(array: &ArrayRef) -> Converted {
    fn mask<T: DecimalType>(array: &ArrayRef) -> ArrayRef {
        Arc::new(BooleanArray::from_unary(array.as_primitive::<T>(), |value| !number::is_zero::<T>(value)))
    }
    Ok(match array.data_type() {
        DataType::Decimal32(..) => mask::<Decimal32Type>(array),
        DataType::Decimal64(..) => mask::<Decimal64Type>(array),
        DataType::Decimal128(..) => mask::<Decimal128Type>(array),
        _ => mask::<Decimal256Type>(array),
    })
}

/// Powers of ten that are exact as floats.
const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

/// Decimals as the nearest floats; what would be infinite is null.
pub(super) fn to_float(array: &ArrayRef, to: &DataType) -> Converted {
    if to == &DataType::Float32 {
        return Ok(nearest::<Float32Type>(array, |digits, scale| {
            let is_exact = digits.unsigned_abs() <= 1 << 24 && scale <= 10;
            is_exact.then(|| digits as f32 / POWERS[usize::from(scale)] as f32)
        }));
    }
    let floats = nearest::<Float64Type>(array, |digits, scale| {
        let is_exact = digits.unsigned_abs() <= 1 << 53 && usize::from(scale) < POWERS.len();
        is_exact.then(|| digits as f64 / POWERS[usize::from(scale)])
    });
    if to == &DataType::Float64 { Ok(floats) } else { number::float_to_float(&floats, to) }
}

/// `fast` divides where that rounds once; the others go by their text.
fn nearest<F: ArrowPrimitiveType>(array: &ArrayRef, fast: impl Fn(i128, u8) -> Option<F::Native>) -> ArrayRef
where
    F::Native: FromStr + Into<f64> + Copy,
{
    fn of<T: DecimalType, F: ArrowPrimitiveType>(
        array: &PrimitiveArray<T>,
        narrow: impl Fn(T::Native) -> Option<i128>,
        fast: impl Fn(i128, u8) -> Option<F::Native>,
    ) -> ArrayRef
    where
        F::Native: FromStr + Into<f64> + Copy,
    {
        let (precision, scale) = (array.precision(), array.scale());
        let places = u8::try_from(scale).ok();
        Arc::new(array.unary_opt::<_, F>(|value| {
            if let (Some(digits), Some(places)) = (narrow(value), places)
                && let Some(float) = fast(digits, places)
            {
                return Some(float);
            }
            let float: F::Native = T::format_decimal(value, precision, scale).parse().ok()?;
            let wide: f64 = float.into();
            wide.is_finite().then_some(float)
        }))
    }
    match array.data_type() {
        DataType::Decimal32(..) => of::<Decimal32Type, F>(array.as_primitive(), |value| Some(value.into()), fast),
        DataType::Decimal64(..) => of::<Decimal64Type, F>(array.as_primitive(), |value| Some(value.into()), fast),
        DataType::Decimal128(..) => of::<Decimal128Type, F>(array.as_primitive(), Some, fast),
        _ => of::<Decimal256Type, F>(array.as_primitive(), |value| value.to_i128(), fast),
    }
}

/// Floats as the decimals that their shortest text is: 0.1 is 0.10, and 0.125 does not fit two places.
pub(super) fn from_float(array: &ArrayRef, to: &DataType) -> Converted {
    if array.data_type() == &DataType::Float16 {
        return from_float(&kernel(array, &DataType::Float32)?, to);
    }
    let Some((precision, scale)) = digits(to) else { return kernel(array, to) };
    if precision > DECIMAL128_MAX_PRECISION || matches!(to, DataType::Decimal256(..)) {
        let wide = by_text::<Decimal256Type>(array, DECIMAL256_MAX_PRECISION.min(precision), scale)?;
        return kernel(&wide, to);
    }
    let wide = if let Some(floats) = array.as_primitive_opt::<Float64Type>() {
        // With up to 15 digits only one decimal of this scale is nearest to the float.
        const DIGITS: f64 = 1e15;
        let power = usize::try_from(scale).ok().and_then(|scale| POWERS.get(scale)).copied();
        let limit = 10f64.powi(i32::from(precision)).min(DIGITS);
        let decimals = floats.unary_opt::<_, Decimal128Type>(|value| {
            if let Some(power) = power {
                let scaled = (value * power).round();
                if scaled.abs() < limit {
                    return (scaled / power == value).then_some(scaled as i128);
                }
            }
            parse_decimal(format!("{value:e}").as_bytes(), precision, scale).ok()
        });
        Arc::new(decimals.with_precision_and_scale(precision, scale)?) as ArrayRef
    } else {
        by_text::<Decimal128Type>(array, precision, scale)?
    };
    kernel(&wide, to)
}

fn by_text<T: DecimalType>(array: &ArrayRef, precision: u8, scale: i8) -> Converted {
    let parse = |text: String| parse_decimal::<T::Native>(text.as_bytes(), precision, scale).ok();
    let decimals: PrimitiveArray<T> = match array.as_primitive_opt::<Float32Type>() {
        Some(floats) => floats.unary_opt(|value| parse(format!("{value:e}"))),
        None => array.as_primitive::<Float64Type>().unary_opt(|value| parse(format!("{value:e}"))),
    };
    Ok(Arc::new(decimals.with_precision_and_scale(precision, scale)?))
}
