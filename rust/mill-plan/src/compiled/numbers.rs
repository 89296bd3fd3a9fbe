//! Loops over numbers.
//!
//! Integer operations are checked without a branch a row: the loop computes wrapped results and gathers whether any
//! overflowed; only then the row is looked for, and rows that are null don't count.

use std::fmt::Display;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray};
use arrow::buffer::{BooleanBuffer, NullBuffer, ScalarBuffer};
use arrow::datatypes::{
    DataType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type,
};
use mill_protocol::{Error, Result};

use super::compare::spread;
use super::value::{One, Value};
use crate::expr::BinaryOp;

/// An integer that tells whether an operation overflowed.
pub(crate) trait Integer: Copy + Display + PartialEq + Default {
    const ONE: Self;
    fn add(self, other: Self) -> (Self, bool);
    fn sub(self, other: Self) -> (Self, bool);
    fn mul(self, other: Self) -> (Self, bool);
    /// Rounds down; `other` is not zero.
    fn floor_div(self, other: Self) -> (Self, bool);
    /// Has the sign of `other`, which is not zero.
    fn floor_mod(self, other: Self) -> (Self, bool);
    /// `None` where the exponent is negative.
    fn power(self, exponent: Self) -> Option<(Self, bool)>;
    fn bits(self, other: Self, op: BinaryOp) -> Self;
}

macro_rules! signed {
    ($($t:ty),*) => {$(
        impl Integer for $t {
            const ONE: $t = 1;
            #[inline] fn add(self, other: $t) -> ($t, bool) { self.overflowing_add(other) }
            #[inline] fn sub(self, other: $t) -> ($t, bool) { self.overflowing_sub(other) }
            #[inline] fn mul(self, other: $t) -> ($t, bool) { self.overflowing_mul(other) }
            #[inline] fn floor_div(self, other: $t) -> ($t, bool) {
                let (q, overflow) = self.overflowing_div(other);
                let r = self.wrapping_rem(other);
                (q - <$t>::from(r != 0 && ((r < 0) != (other < 0))), overflow)
            }
            #[inline] fn floor_mod(self, other: $t) -> ($t, bool) {
                let r = self.wrapping_rem(other);
                (if r != 0 && ((r < 0) != (other < 0)) { r + other } else { r }, false)
            }
            fn power(self, exponent: $t) -> Option<($t, bool)> {
                match u32::try_from(exponent).ok() {
                    Some(exponent) => Some(self.overflowing_pow(exponent)),
                    None if exponent < 0 => None,
                    // Only these have powers so large.
                    None if self == 0 || self == 1 => Some((self, false)),
                    None if self == -1 => Some((if exponent % 2 == 0 { 1 } else { -1 }, false)),
                    None => Some((0, true)),
                }
            }
            #[inline] fn bits(self, other: $t, op: BinaryOp) -> $t {
                match op { BinaryOp::And => self & other, BinaryOp::Or => self | other, _ => self ^ other }
            }
        }
    )*};
}

macro_rules! unsigned {
    ($($t:ty),*) => {$(
        impl Integer for $t {
            const ONE: $t = 1;
            #[inline] fn add(self, other: $t) -> ($t, bool) { self.overflowing_add(other) }
            #[inline] fn sub(self, other: $t) -> ($t, bool) { self.overflowing_sub(other) }
            #[inline] fn mul(self, other: $t) -> ($t, bool) { self.overflowing_mul(other) }
            #[inline] fn floor_div(self, other: $t) -> ($t, bool) { (self / other, false) }
            #[inline] fn floor_mod(self, other: $t) -> ($t, bool) { (self % other, false) }
            fn power(self, exponent: $t) -> Option<($t, bool)> {
                Some(match u32::try_from(exponent).ok() {
                    Some(exponent) => self.overflowing_pow(exponent),
                    None if self <= 1 => (self, false),
                    None => (0, true),
                })
            }
            #[inline] fn bits(self, other: $t, op: BinaryOp) -> $t {
                match op { BinaryOp::And => self & other, BinaryOp::Or => self | other, _ => self ^ other }
            }
        }
    )*};
}

signed!(i8, i16, i32, i64, i128);
unsigned!(u8, u16, u32, u64);

/// Calls a function with the Arrow type of an integer type.
macro_rules! with_integer {
    ($data_type:expr, $f:ident ( $($arg:expr),* )) => {
        match $data_type {
            DataType::Int8 => $f::<Int8Type>($($arg),*),
            DataType::Int16 => $f::<Int16Type>($($arg),*),
            DataType::Int32 => $f::<Int32Type>($($arg),*),
            DataType::Int64 => $f::<Int64Type>($($arg),*),
            DataType::UInt8 => $f::<UInt8Type>($($arg),*),
            DataType::UInt16 => $f::<UInt16Type>($($arg),*),
            DataType::UInt32 => $f::<UInt32Type>($($arg),*),
            DataType::UInt64 => $f::<UInt64Type>($($arg),*),
            other => Err(Error::internal(format!("{other} is no integer type"))),
        }
    };
}

/// An operation on integers of one type.
pub(super) fn integers(op: BinaryOp, left: &Value, right: &Value, rows: usize) -> Result<Value> {
    with_integer!(left.data_type(), integers_of(op, left, right, rows))
}

fn integers_of<T: ArrowPrimitiveType>(op: BinaryOp, left: &Value, right: &Value, rows: usize) -> Result<Value>
where
    T::Native: Integer,
{
    match op {
        BinaryOp::Add => checked::<T>(op, left, right, rows, T::Native::add),
        BinaryOp::Sub => checked::<T>(op, left, right, rows, T::Native::sub),
        BinaryOp::Mul => checked::<T>(op, left, right, rows, T::Native::mul),
        BinaryOp::FloorDiv | BinaryOp::Mod => divided::<T>(op, left, right, rows),
        BinaryOp::Pow => {
            if let Some(row) = (0..right.values().len()).find(|&row| {
                right.values().is_valid(row) && T::Native::ONE.power(right.values().as_primitive::<T>().value(row)).is_none()
            }) {
                let exponent = right.values().as_primitive::<T>().value(row);
                return Err(negative_power(exponent));
            }
            checked::<T>(op, left, right, rows, |a, b| a.power(b).unwrap_or_default())
        }
        _ => Ok(each::<T, T>(left, right, rows, |a, b| a.bits(b, op))),
    }
}

/// The error of an integer raised to a negative power.
pub(super) fn negative_power(exponent: impl Display) -> Error {
    Error::data(format!("an integer cannot be raised to the negative power {exponent}; cast the base to float"))
}

/// A checked operation: an error if it overflows on a row that is not null.
fn checked<T: ArrowPrimitiveType>(
    op: BinaryOp,
    left: &Value,
    right: &Value,
    rows: usize,
    f: impl Fn(T::Native, T::Native) -> (T::Native, bool),
) -> Result<Value> {
    let mut overflowed = false;
    let result = each::<T, T>(left, right, rows, |a, b| {
        let (value, overflow) = f(a, b);
        overflowed |= overflow;
        value
    });
    if overflowed {
        let (l, r) = (left.values().as_primitive::<T>(), right.values().as_primitive::<T>());
        let at = |value: &Value, row: usize| if value.is_array() { row } else { 0 };
        for row in 0..result.values().len() {
            let (i, j) = (at(left, row), at(right, row));
            if result.values().is_valid(row) && f(l.value(i), r.value(j)).1 {
                return Err(Error::data(format!(
                    "integer overflow: {:?} {} {:?} does not fit in {}; cast to a wider type first",
                    l.value(i),
                    op.symbol(),
                    r.value(j),
                    crate::types::type_name(&T::DATA_TYPE)
                )));
            }
        }
    }
    Ok(result)
}

/// `//` and `%`, null where the divisor is zero.
fn divided<T: ArrowPrimitiveType>(op: BinaryOp, left: &Value, right: &Value, rows: usize) -> Result<Value>
where
    T::Native: Integer,
{
    let zero = T::Native::default();
    let divisors = right.values().as_primitive::<T>();
    let f = move |a: T::Native, b: T::Native| if op == BinaryOp::Mod { a.floor_mod(b) } else { a.floor_div(b) };
    if let (BinaryOp::Mod, Value::Array(array), Value::Scalar(_), DataType::Int64) = (op, left, right, &T::DATA_TYPE) {
        let divisor = right.values().as_primitive::<Int64Type>();
        if divisor.is_valid(0) && (1..=i64::from(u32::MAX)).contains(&divisor.value(0)) {
            return Ok(Value::Array(remainders(array, divisor.value(0) as u64)));
        }
    }
    if !divisors.values().contains(&zero) {
        return checked::<T>(op, left, right, rows, f);
    }
    let is_divisible = BooleanBuffer::collect_bool(divisors.len(), |i| divisors.value(i) != zero);
    let nulls = NullBuffer::union(divisors.nulls(), Some(&NullBuffer::new(is_divisible)));
    let safe: Vec<T::Native> = divisors.values().iter().map(|&d| if d == zero { T::Native::ONE } else { d }).collect();
    let divisors = right.map(|_| Ok(Arc::new(PrimitiveArray::<T>::new(safe.into(), nulls)) as _))?;
    checked::<T>(op, left, &divisors, rows, f)
}

/// Remainders by one divisor below 2^32, by multiplication instead of division (Lemire, Kaser, Kurz: "Faster remainder by
/// direct computation", 2019). It holds for dividends below 2^32; others are divided.
fn remainders(array: &ArrayRef, divisor: u64) -> ArrayRef {
    let values = array.as_primitive::<Int64Type>();
    let magic = (u64::MAX / divisor).wrapping_add(1);
    let result: Vec<i64> = values
        .values()
        .iter()
        .map(|&value| match u32::try_from(value) {
            Ok(small) => {
                let low = magic.wrapping_mul(u64::from(small));
                ((u128::from(low) * u128::from(divisor)) >> 64) as i64
            }
            Err(_) => value.rem_euclid(divisor as i64),
        })
        .collect();
    Arc::new(PrimitiveArray::<Int64Type>::new(result.into(), values.nulls().cloned()))
}

/// An operation on floats of one type that Arrow has no kernel for.
pub(super) fn floats(op: BinaryOp, left: &Value, right: &Value, rows: usize) -> Result<Value> {
    match (left.data_type(), op) {
        (DataType::Float64, BinaryOp::FloorDiv) => Ok(each::<Float64Type, Float64Type>(left, right, rows, float_floor_div)),
        (DataType::Float64, BinaryOp::Mod) => Ok(each::<Float64Type, Float64Type>(left, right, rows, float_mod)),
        (DataType::Float64, _) => Ok(each::<Float64Type, Float64Type>(left, right, rows, f64::powf)),
        (_, BinaryOp::FloorDiv) => {
            Ok(each::<Float32Type, Float32Type>(left, right, rows, |a, b| float_floor_div(f64::from(a), f64::from(b)) as f32))
        }
        (_, BinaryOp::Mod) => {
            Ok(each::<Float32Type, Float32Type>(left, right, rows, |a, b| float_mod(f64::from(a), f64::from(b)) as f32))
        }
        _ => Ok(each::<Float32Type, Float32Type>(left, right, rows, f32::powf)),
    }
}

/// Python's `%`: the result has the divisor's sign, zero too.
fn float_mod(a: f64, b: f64) -> f64 {
    let r = a % b;
    match r {
        0.0 => 0f64.copysign(b),
        _ if (r < 0.0) != (b < 0.0) => r + b,
        _ => r,
    }
}

/// Python's `//`: what is left when the remainder is taken away, so that `a // b * b + a % b` is `a`. The quotient itself
/// may round up to a whole number that it does not reach: `1.0 / 0.1` is 10, and `1.0 // 0.1` is 9. By zero as `/`.
fn float_floor_div(a: f64, b: f64) -> f64 {
    if b == 0.0 {
        return a / b;
    }
    let r = a % b;
    let quotient = (a - r) / b - f64::from(r != 0.0 && ((r < 0.0) != (b < 0.0)));
    if quotient == 0.0 {
        return 0f64.copysign(a / b);
    }
    // The quotient is whole but for its rounding.
    let floor = quotient.floor();
    if quotient - floor > 0.5 { floor + 1.0 } else { floor }
}

/// Applies `f` to each pair of values; null where either is null.
pub(crate) fn each<A: ArrowPrimitiveType, O: ArrowPrimitiveType>(
    left: &Value,
    right: &Value,
    rows: usize,
    mut f: impl FnMut(A::Native, A::Native) -> O::Native,
) -> Value {
    let (l, r) = (left.values().as_primitive::<A>().values(), right.values().as_primitive::<A>().values());
    let is_array = left.is_array() || right.is_array();
    let values: ScalarBuffer<O::Native> = match (left.is_array(), right.is_array()) {
        (true, false) => {
            let r = r[0];
            l.iter().map(|&l| f(l, r)).collect()
        }
        (false, true) => {
            let l = l[0];
            r.iter().map(|&r| f(l, r)).collect()
        }
        _ => l.iter().zip(r.iter()).map(|(&l, &r)| f(l, r)).collect(),
    };
    let rows = if is_array { rows } else { 1 };
    let nulls = NullBuffer::union(spread(left, rows).as_ref(), spread(right, rows).as_ref());
    let array: ArrayRef = Arc::new(PrimitiveArray::<O>::new(values, nulls));
    if is_array { Value::Array(array) } else { Value::Scalar(One::new(array)) }
}
