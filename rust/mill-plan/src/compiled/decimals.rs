//! What Arrow's arithmetic of decimals leaves open: quotients, which it cuts, and results of more than 38 digits, which it
//! lets pass.
//!
//! A quotient has four more decimal places than the dividend and at least six, rounded half to even as `decimal` does in
//! Python. One that does not fit in 38 digits at that scale is an error, as is a division by zero.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Decimal128Array};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DECIMAL128_MAX_SCALE, DataType, Decimal128Type, i256};
use mill_protocol::{Error, Result};

use crate::expr::BinaryOp;
use super::Kernel;
use super::bind::Typed;
use super::compare::spread;
use super::value::{One, Value, failed};

/// The largest number of 38 digits.
const DIGITS_MAX: u128 = 10u128.pow(38) - 1;
/// How many more places than the dividend a quotient has.
const PLACES_MORE: i8 = 4;
const PLACES_MIN: i8 = 6;

/// Refuses results of more digits than the type has.
pub(super) fn check(result: &Value) -> Result<()> {
    let Some(array) = result.values().as_primitive_opt::<Decimal128Type>() else { return Ok(()) };
    let beyond = |value: &i128| value.unsigned_abs() > DIGITS_MAX;
    if !array.values().iter().any(beyond) {
        return Ok(());
    }
    match array.iter().flatten().find(beyond) {
        Some(_) => Err(too_long()),
        None => Ok(()),
    }
}

pub(super) fn too_long() -> Error {
    Error::data("decimal overflow: the result has more than 38 digits; use round() first, or cast to float")
}

/// Refuses a product of more decimal places than a decimal has.
pub(super) fn check_places(left: &Typed, right: &Typed) -> Result<()> {
    let places = |side: &Typed| match side.data_type {
        DataType::Decimal128(_, scale) => i16::from(scale),
        _ => 0,
    };
    let (l, r) = (places(left), places(right));
    let most = i16::from(DECIMAL128_MAX_SCALE);
    if l + r <= most {
        return Ok(());
    }
    let (fewer, other) = if l >= r { (left, r) } else { (right, l) };
    let left_over = most - other.max(0);
    Err(Error::schema(format!(
        "the product of {} and {} has {} decimal places, and decimals have {most} at most; round one of them first, as in \
         {}.round({left_over}).cast(mill.types.Decimal(38, {left_over}))",
        left.describe(),
        right.describe(),
        l + r,
        fewer.text
    )))
}

/// `/` of two decimals.
pub(super) fn divide(args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let (DataType::Decimal128(precision, left), DataType::Decimal128(_, right)) = (&args[0].data_type, &args[1].data_type)
    else {
        return Err(Error::internal("a quotient of decimals is of decimals of 128 bits"));
    };
    let (left, right) = (*left, *right);
    let scale = left.saturating_add(PLACES_MORE).max(PLACES_MIN).min(DECIMAL128_MAX_SCALE);
    // The quotient is largest where the divisor is the smallest of its scale.
    let digits = i16::from(*precision) - i16::from(left) + i16::from(right) + i16::from(scale);
    let precision = digits.clamp(i16::from(scale).max(1), i16::from(DECIMAL128_MAX_PRECISION)) as u8;
    let data_type = DataType::Decimal128(precision, scale);
    let to = data_type.clone();
    let power = i32::from(scale) - i32::from(left) + i32::from(right);
    let kernel: Kernel = Arc::new(move |args, rows| quotients(&args[0], &args[1], rows, power, &to));
    Typed::call(kernel, args, data_type, text)
}

/// `//` of two decimals, which rounds down, and `%`, which has the sign of the divisor: exact, as `a == a // b * b + a % b`.
pub(super) fn divide_whole(op: BinaryOp, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let (DataType::Decimal128(_, left), DataType::Decimal128(digits, right)) = (&args[0].data_type, &args[1].data_type) else {
        return Err(Error::internal("a quotient of decimals is of decimals of 128 bits"));
    };
    let (left, right, digits) = (*left, *right, *digits);
    let scale = left.max(right);
    let is_rest = op == BinaryOp::Mod;
    let data_type = match is_rest {
        // A rest is nearer to zero than the divisor.
        true => {
            let digits = i16::from(digits) - i16::from(right) + i16::from(scale);
            DataType::Decimal128(digits.clamp(i16::from(scale).max(1), i16::from(DECIMAL128_MAX_PRECISION)) as u8, scale)
        }
        false => DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0),
    };
    let to = data_type.clone();
    let ten = |places: i8| i256::from_i128(10).checked_pow((i16::from(scale) - i16::from(places)) as u32).ok_or_else(too_long);
    let (of_left, of_right) = (ten(left)?, ten(right)?);
    let kernel: Kernel = Arc::new(move |args, rows| {
        each(&args[0], &args[1], rows, &to, |a, b| whole(a, b, of_left, of_right, is_rest))
    });
    Typed::call(kernel, args, data_type, text)
}

/// The quotient of two numbers, each times its power of ten, rounded down; or the rest.
fn whole(a: i128, b: i128, of_a: i256, of_b: i256, is_rest: bool) -> Result<i128> {
    if b == 0 {
        return Err(Error::data("division by zero"));
    }
    let wide = |value: i128, by: i256| i256::from_i128(value).checked_mul(by).ok_or_else(too_long);
    let (dividend, divisor) = (wide(a, of_a)?, wide(b, of_b)?);
    let (mut quotient, mut rest) = (dividend.wrapping_div(divisor), dividend.wrapping_rem(divisor));
    if rest != i256::ZERO && (rest < i256::ZERO) != (divisor < i256::ZERO) {
        quotient = quotient.wrapping_sub(i256::ONE);
        rest = rest.wrapping_add(divisor);
    }
    let result = if is_rest { rest } else { quotient };
    result.to_i128().filter(|value| value.unsigned_abs() <= DIGITS_MAX).ok_or_else(too_long)
}

/// Quotients, each of the dividend times a power of ten.
fn quotients(left: &Value, right: &Value, rows: usize, power: i32, to: &DataType) -> Result<Value> {
    let ten = |times: i32| i256::from_i128(10).checked_pow(times.max(0) as u32).ok_or_else(too_long);
    let (more, less) = (ten(power)?, ten(-power)?);
    each(left, right, rows, to, |a, b| quotient(a, b, more, less))
}

/// A function of two decimals, row by row.
fn each(left: &Value, right: &Value, rows: usize, to: &DataType, of: impl Fn(i128, i128) -> Result<i128>) -> Result<Value> {
    let count = if left.is_array() || right.is_array() { rows } else { 1 };
    let (l, r) = (left.values().as_primitive::<Decimal128Type>(), right.values().as_primitive::<Decimal128Type>());
    let nulls = NullBuffer::union(spread(left, count).as_ref(), spread(right, count).as_ref());
    let at = |value: &Value, row: usize| if value.is_array() { row } else { 0 };
    let mut values = Vec::with_capacity(count);
    for row in 0..count {
        values.push(match &nulls {
            Some(nulls) if nulls.is_null(row) => 0,
            _ => of(l.value(at(left, row)), r.value(at(right, row)))?,
        });
    }
    let array = Decimal128Array::try_new(values.into(), nulls).map_err(failed)?.with_data_type(to.clone());
    let array: ArrayRef = Arc::new(array);
    Ok(if left.is_array() || right.is_array() { Value::Array(array) } else { Value::Scalar(One::new(array)) })
}

/// `a * more / (b * less)`, rounded half to even.
fn quotient(a: i128, b: i128, more: i256, less: i256) -> Result<i128> {
    if b == 0 {
        return Err(Error::data("division by zero"));
    }
    let wide = |value: i128, by: i256| i256::from_i128(value).wrapping_abs().checked_mul(by).ok_or_else(too_long);
    let (dividend, divisor) = (wide(a, more)?, wide(b, less)?);
    let (whole, rest) = (dividend.wrapping_div(divisor), dividend.wrapping_rem(divisor));
    // Compares the rest with the other part of the divisor, as its double may not fit.
    let half = rest.cmp(&divisor.wrapping_sub(rest));
    let is_odd = whole.to_parts().0 & 1 == 1;
    let is_up = half.is_gt() || half.is_eq() && is_odd;
    let rounded = whole.wrapping_add(if is_up { i256::ONE } else { i256::ZERO });
    let rounded = rounded.to_i128().filter(|value| value.unsigned_abs() <= DIGITS_MAX).ok_or_else(too_long)?;
    Ok(if (a < 0) != (b < 0) { -rounded } else { rounded })
}
