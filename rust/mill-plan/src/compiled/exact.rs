//! Comparisons of numbers of which neither type holds all of the other's: 2**53 + 1 and 2.0**53 are not equal, nor are
//! the decimal 0.1 and the float 0.1.
//!
//! ```text
//!   integer or decimal ──nearest──► float ┐
//!                                         ├─ they differ: their order is that of the numbers, as rounding keeps the order
//!                                   float ┘  they are equal: the exact values decide
//! ```
//!
//! Integers and decimals are compared as decimals with room for the digits of both.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::buffer::BooleanBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType, Decimal128Type, Float64Type, i256};
use datafusion_common::ScalarValue;
use mill_frame::convert;
use mill_protocol::Result;

use super::Kernel;
use super::bind::Typed;
use super::compare::{floats, plain, wrap};
use super::value::{Value, failed, inexact};
use crate::expr::BinaryOp;

/// Up to here all integers are floats.
const FLOAT_MAX: u64 = 1 << 53;

/// Binds a comparison of numbers that have no type in common which holds both; `None` of all others.
pub(super) fn bind(op: BinaryOp, left: &Typed, right: &Typed, met: &DataType, text: &Arc<str>) -> Option<Result<Typed>> {
    use DataType::{Decimal128, Int64, UInt64};
    let is_wide = |t: &DataType| matches!(t, Int64 | UInt64 | Decimal128(..));
    let (l, r) = (&left.data_type, &right.data_type);
    let kernel: Kernel = if is_wide(l) && r.is_floating() || l.is_floating() && is_wide(r) {
        // A constant that is the same number as a float is compared as one.
        let is_small = |side: &Typed| match &side.constant {
            Some(ScalarValue::Int64(Some(value))) => value.unsigned_abs() <= FLOAT_MAX,
            Some(ScalarValue::UInt64(Some(value))) => *value <= FLOAT_MAX,
            Some(ScalarValue::Float64(Some(value))) => value.abs() < 9e15,
            Some(value) => value.is_null(),
            None => false,
        };
        let has_decimals = matches!(l, Decimal128(..)) || matches!(r, Decimal128(..));
        if !has_decimals && (is_small(left) || is_small(right)) {
            return None;
        }
        Arc::new(move |args, rows| mixed(op, &args[0], &args[1], rows))
    } else {
        if *met == UInt64 {
            return None;
        }
        let met = with_all_digits(l, r)?;
        Arc::new(move |args, _| {
            let wide = |value: &Value| value.map(|array| cast(array, &met).map_err(failed));
            plain(op, &wide(&args[0])?, &wide(&args[1])?)
        })
    };
    Some(Typed::call(kernel, vec![left.duplicate().ok()?, right.duplicate().ok()?], DataType::Boolean, text))
}

/// The decimals that hold all integers and decimals of both types, unless that is one of the types in which they meet.
fn with_all_digits(left: &DataType, right: &DataType) -> Option<DataType> {
    use DataType::{Decimal128, Int8, Int16, Int32, Int64, UInt8, UInt16, UInt32, UInt64};
    let digits = |t: &DataType| match t {
        Decimal128(precision, scale) => Some((i16::from(*precision) - i16::from(*scale), i16::from(*scale))),
        Int8 | UInt8 => Some((3, 0)),
        Int16 | UInt16 => Some((5, 0)),
        Int32 | UInt32 => Some((10, 0)),
        Int64 => Some((19, 0)),
        UInt64 => Some((20, 0)),
        _ => None,
    };
    let ((l_whole, l_scale), (r_whole, r_scale)) = (digits(left)?, digits(right)?);
    let is_mixed_sign = *left == UInt64 && right.is_signed_integer() || left.is_signed_integer() && *right == UInt64;
    let has_decimals = matches!(left, Decimal128(..)) || matches!(right, Decimal128(..));
    let scale = l_scale.max(r_scale);
    let precision = l_whole.max(r_whole) + scale;
    let is_too_wide = has_decimals && left != right && precision > i16::from(DECIMAL128_MAX_PRECISION);
    let (precision, scale) = (u8::try_from(precision).ok()?, i8::try_from(scale).ok()?);
    match (is_mixed_sign, is_too_wide) {
        (true, _) => Some(Decimal128(precision, scale)),
        (_, true) => Some(DataType::Decimal256(precision.min(DECIMAL256_MAX_PRECISION), scale)),
        _ => None,
    }
}

/// The type for a comparison of small floats with a constant that they do not hold: 64 bits hold both.
pub(super) fn widened(met: DataType, left: &Typed, right: &Typed) -> DataType {
    let is_lost = |side: &Typed| match &side.constant {
        Some(ScalarValue::Float64(Some(value))) => !value.is_nan() && f64::from(*value as f32) != *value,
        Some(ScalarValue::Int64(Some(value))) => f64::from(*value as f32) != *value as f64,
        Some(ScalarValue::UInt64(Some(value))) => f64::from(*value as f32) != *value as f64,
        _ => false,
    };
    match met {
        DataType::Float16 | DataType::Float32 if is_lost(left) || is_lost(right) => DataType::Float64,
        other => other,
    }
}

/// Compares integers of 64 bits or decimals with floats: as floats, and where these are equal, exactly.
fn mixed(op: BinaryOp, left: &Value, right: &Value, rows: usize) -> Result<Value> {
    let count = if left.is_array() || right.is_array() { rows } else { 1 };
    let (l, r) = (nearest(left)?, nearest(right)?);
    let near = floats::<Float64Type>(op, &l, &r, rows)?;
    let is_turned = left.data_type().is_floating();
    let signs = match is_turned {
        true => signs(right, &r, &l, count)?,
        false => signs(left, &l, &r, count)?,
    };
    if signs.iter().all(|sign| *sign == 0) {
        return Ok(near);
    }
    let near = near.into_array(count)?;
    let near = near.as_boolean();
    let values = BooleanBuffer::collect_bool(count, |row| {
        let order = if is_turned { -signs[row] } else { signs[row] };
        match (order, op) {
            (0, _) => near.value(row),
            (_, BinaryOp::Eq | BinaryOp::EqMissing) => false,
            (_, BinaryOp::NotEq) => true,
            (order, BinaryOp::Lt | BinaryOp::LtEq) => order < 0,
            (order, _) => order > 0,
        }
    });
    Ok(wrap(Arc::new(BooleanArray::new(values, near.nulls().cloned())), left, right))
}

/// The floats nearest to numbers.
fn nearest(value: &Value) -> Result<Value> {
    value.map(|array| match array.data_type() {
        DataType::Decimal128(..) => convert::cast(array, &DataType::Float64).map_err(inexact),
        _ => cast(array, &DataType::Float64).map_err(failed),
    })
}

/// Where a float is equal to the one nearest to an exact number: whether the number is less, the same or more (-1, 0, 1).
fn signs(exact: &Value, near: &Value, other: &Value, count: usize) -> Result<Vec<i8>> {
    let all = |value: &Value| value.clone().into_array(count);
    let (exact, near, other) = (all(exact)?, all(near)?, all(other)?);
    let digits: ArrayRef = match exact.data_type() {
        DataType::Decimal128(..) => exact,
        _ => cast(&exact, &DataType::Decimal128(20, 0)).map_err(failed)?,
    };
    let digits = digits.as_primitive::<Decimal128Type>();
    let scale = digits.scale();
    let (near, other) = (near.as_primitive::<Float64Type>(), other.as_primitive::<Float64Type>());
    let sign = |row: usize| {
        let is_open = near.is_valid(row) && other.is_valid(row) && near.value(row) == other.value(row);
        if is_open { beyond(digits.value(row), scale, near.value(row)) } else { 0 }
    };
    Ok((0..count).map(sign).collect())
}

/// Whether `digits / 10^scale` is less than, the same as or more than the float nearest to it.
fn beyond(digits: i128, scale: i8, near: f64) -> i8 {
    if scale == 0 && near.abs() < 1e38 {
        return (digits - near as i128).signum() as i8;
    }
    // near = mantissa * 2^exponent; both sides are multiplied until they are whole.
    let bits = near.abs().to_bits();
    let (exponent, fraction) = ((bits >> 52) as i32, (bits & ((1 << 52) - 1)) as i64);
    let (mantissa, exponent) = if exponent == 0 { (fraction, -1074) } else { (fraction | 1 << 52, exponent - 1075) };
    let zeros = if mantissa == 0 { 0 } else { mantissa.trailing_zeros() as i32 };
    let (mantissa, exponent) = (mantissa >> zeros, if mantissa == 0 { 0 } else { exponent + zeros });
    let power = |base: i128, times: i32| i256::from_i128(base).wrapping_pow(times.max(0) as u32);
    let number = i256::from_i128(digits).wrapping_abs().wrapping_mul(power(10, -i32::from(scale))).wrapping_mul(power(2, -exponent));
    let float = i256::from_i128(i128::from(mantissa)).wrapping_mul(power(10, i32::from(scale))).wrapping_mul(power(2, exponent));
    let order = number.cmp(&float) as i8;
    if digits < 0 { -order } else { order }
}

#[cfg(test)]
mod tests;
