//! Integers that need more than 64 bits on the way, and quotients of integers.
//!
//! An unsigned and a signed integer of 64 bits meet as int64: each result is computed in 128 bits, and one that does not
//! fit is an error of its record. `/` of integers is the float nearest to the exact quotient, as in Python.

use std::sync::Arc;

use arrow::array::{ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveBuilder};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type, UInt64Type};
use mill_protocol::{Error, Result};

use super::compare::spread;
use super::numbers::{self, Integer};
use super::value::{One, Value, failed};
use crate::expr::BinaryOp;

/// Up to here all integers are floats.
const FLOAT_MAX: u64 = 1 << 53;

/// Whether an operation meets an unsigned and a signed integer of 64 bits as int64.
pub(super) fn is_mixed(met: &DataType, left: &DataType, right: &DataType) -> bool {
    *met == DataType::Int64 && (*left == DataType::UInt64) != (*right == DataType::UInt64)
}

/// An operation between uint64 and int64, in either order, as int64; null where the divisor is zero.
pub(super) fn mixed(op: BinaryOp, left: &Value, right: &Value, rows: usize) -> Result<Value> {
    match left.data_type() {
        DataType::UInt64 => {
            pairs::<UInt64Type, Int64Type, Int64Type>(left, right, rows, |a, b| mixed_one(op, a.into(), b.into()))
        }
        _ => pairs::<Int64Type, UInt64Type, Int64Type>(left, right, rows, |a, b| mixed_one(op, a.into(), b.into())),
    }
}

fn mixed_one(op: BinaryOp, a: i128, b: i128) -> Result<Option<i64>> {
    match op {
        BinaryOp::FloorDiv | BinaryOp::Mod if b == 0 => return Ok(None),
        BinaryOp::Pow if b < 0 => return Err(numbers::negative_power(b)),
        _ => {}
    }
    // Most values fit in 64 bits, and divide much faster there.
    if let (Ok(a), Ok(b)) = (i64::try_from(a), i64::try_from(b))
        && let (value, false) = apply(op, a, b)
    {
        return Ok(Some(value));
    }
    let (value, is_over) = apply(op, a, b);
    match i64::try_from(value) {
        Ok(value) if !is_over => Ok(Some(value)),
        _ => Err(beyond(op, a, b, (!is_over).then_some(value))),
    }
}

/// The result, and whether it is wrong because it does not fit; for divisors other than zero.
fn apply<T: Integer>(op: BinaryOp, a: T, b: T) -> (T, bool) {
    match op {
        BinaryOp::Add => a.add(b),
        BinaryOp::Sub => a.sub(b),
        BinaryOp::Mul => a.mul(b),
        BinaryOp::FloorDiv => a.floor_div(b),
        BinaryOp::Mod => a.floor_mod(b),
        BinaryOp::Pow => a.power(b).unwrap_or((T::default(), true)),
        _ => (a.bits(b, op), false),
    }
}

fn beyond(op: BinaryOp, a: i128, b: i128, value: Option<i128>) -> Error {
    let fits_unsigned = a >= 0 && b >= 0 && value.is_some_and(|value| u64::try_from(value).is_ok());
    let help = match op {
        _ if fits_unsigned => "cast the signed side to uint64 first, as in .cast(mill.DataType.parse(\"uint64\"))",
        BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul => "cast both sides to decimal first, as in .cast(mill.types.Decimal(38, 0))",
        _ => "cast both sides to float first if a rounded result will do",
    };
    Error::data(format!(
        "integer overflow: {a} {} {b} does not fit in int64, in which uint64 and signed integers meet; {help}",
        op.symbol()
    ))
}

/// `/` of integers of 64 bits; by zero as floats are.
pub(super) fn quotients(left: &Value, right: &Value, rows: usize) -> Result<Value> {
    if are_floats(left) && are_floats(right) {
        let float = |value: &Value| value.map(|array| cast(array, &DataType::Float64).map_err(failed));
        return super::arithmetic::of_arrow(BinaryOp::Div, &float(left)?, &float(right)?);
    }
    match (left.data_type(), right.data_type()) {
        (DataType::UInt64, DataType::UInt64) => {
            pairs::<UInt64Type, UInt64Type, Float64Type>(left, right, rows, |a, b| Ok(Some(quotient(a.into(), b.into()))))
        }
        (DataType::UInt64, _) => {
            pairs::<UInt64Type, Int64Type, Float64Type>(left, right, rows, |a, b| Ok(Some(quotient(a.into(), b.into()))))
        }
        (_, DataType::UInt64) => {
            pairs::<Int64Type, UInt64Type, Float64Type>(left, right, rows, |a, b| Ok(Some(quotient(a.into(), b.into()))))
        }
        _ => pairs::<Int64Type, Int64Type, Float64Type>(left, right, rows, |a, b| Ok(Some(quotient(a.into(), b.into())))),
    }
}

/// Whether all values are integers that floats hold.
fn are_floats(value: &Value) -> bool {
    let bits = match value.data_type() {
        DataType::UInt64 => value.values().as_primitive::<UInt64Type>().values().iter().fold(0_u64, |bits, x| bits | *x),
        _ => value.values().as_primitive::<Int64Type>().values().iter().fold(0_u64, |bits, x| bits | x.unsigned_abs()),
    };
    bits < FLOAT_MAX
}

/// The float nearest to `a / b`, half to even; `b` has up to 64 bits.
pub(crate) fn quotient(a: i128, b: i128) -> f64 {
    let (dividend, divisor) = (a.unsigned_abs(), b.unsigned_abs());
    let limit = u128::from(FLOAT_MAX);
    if divisor == 0 || dividend <= limit && divisor <= limit {
        return a as f64 / b as f64;
    }
    // The quotient has at least 57 bits, more than a float. What is cut off is kept as its last bit, so that it is rounded
    // once and to the right side.
    let bits = |x: u128| u128::BITS - x.leading_zeros();
    let shift = (57 + bits(divisor)).saturating_sub(bits(dividend));
    let dividend = dividend << shift;
    let whole = dividend / divisor | u128::from(dividend % divisor != 0);
    let near = whole as f64 * 2f64.powi(-(shift as i32));
    if (a < 0) != (b < 0) { -near } else { near }
}

/// `n / d` rounded to the nearest integer, half to even; `d` is positive and its double fits.
pub(super) fn half_even(n: i128, d: i128) -> i128 {
    let (whole, rest) = (n.div_euclid(d), n.rem_euclid(d));
    let is_up = match (2 * rest).cmp(&d) {
        std::cmp::Ordering::Less => false,
        std::cmp::Ordering::Equal => whole % 2 != 0,
        std::cmp::Ordering::Greater => true,
    };
    whole + i128::from(is_up)
}

/// Applies `f` to each pair of values; null where either is, or where there is no result.
pub(super) fn pairs<A: ArrowPrimitiveType, B: ArrowPrimitiveType, O: ArrowPrimitiveType>(
    left: &Value,
    right: &Value,
    rows: usize,
    f: impl Fn(A::Native, B::Native) -> Result<Option<O::Native>>,
) -> Result<Value> {
    let is_array = left.is_array() || right.is_array();
    let rows = if is_array { rows } else { 1 };
    let (l, r) = (left.values().as_primitive::<A>().values(), right.values().as_primitive::<B>().values());
    let (l_step, r_step) = (usize::from(left.is_array()), usize::from(right.is_array()));
    let nulls = NullBuffer::union(spread(left, rows).as_ref(), spread(right, rows).as_ref());
    let mut result = PrimitiveBuilder::<O>::with_capacity(rows);
    for row in 0..rows {
        match &nulls {
            Some(nulls) if nulls.is_null(row) => result.append_null(),
            _ => result.append_option(f(l[row * l_step], r[row * r_step])?),
        }
    }
    let array: ArrayRef = Arc::new(result.finish());
    Ok(if is_array { Value::Array(array) } else { Value::Scalar(One::new(array)) })
}

#[cfg(test)]
mod tests {
    use super::{half_even, quotient};

    #[test]
    fn quotients_are_rounded_once() {
        for (a, b, expected) in [
            ((1 << 53) + 1, 3, 3_002_399_751_580_331.0),
            (i64::MAX.into(), (1 << 53) + 1, 1023.999_999_999_999_9),
            (u64::MAX.into(), u64::MAX.into(), 1.0),
            (u64::MAX.into(), i64::MIN.into(), -2.0),
            ((1 << 60) + 1, 1 << 60, 1.0),
            ((1 << 53) + 1, 1, 9_007_199_254_740_992.0),
            ((1 << 53) + 3, 1, 9_007_199_254_740_996.0),
            (0, i64::MIN.into(), -0.0),
            (-7, 2, -3.5),
            (1, u64::MAX.into(), 5.421_010_862_427_522e-20),
        ] {
            assert_eq!(quotient(a, b).to_bits(), f64::to_bits(expected), "{a} / {b}: {}", quotient(a, b));
        }
        assert_eq!(quotient(i64::MIN.into(), 0), f64::NEG_INFINITY);
        assert!(quotient(0, 0).is_nan());
    }

    #[test]
    fn halves_go_to_the_even_side() {
        for (n, d, expected) in [(1, 2, 0), (3, 2, 2), (-1, 2, 0), (-3, 2, -2), (7, 3, 2), (8, 3, 3), (-8, 3, -3), (5, 1, 5)] {
            assert_eq!(half_even(n, d), expected, "{n} / {d}");
        }
    }
}
