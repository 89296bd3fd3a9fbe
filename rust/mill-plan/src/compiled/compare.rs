//! Comparisons and truth: null with anything is null, NaN equals itself and is larger than all numbers, -0.0 equals 0.0.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, PrimitiveArray};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::compute::kernels::cmp;
use arrow::compute::{and_kleene, or_kleene};
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use mill_protocol::{Error, Result};

use super::Kernel;
use super::bind::{Typed, meet};
use super::exact;
use super::value::{One, Value, failed};
use crate::expr::BinaryOp;
use crate::types::{is_decimal, is_number, is_string, is_temporal};

/// Binds a comparison.
pub(crate) fn bind(op: BinaryOp, left: Typed, right: Typed, text: &Arc<str>) -> Result<Typed> {
    let is_mixed = |a: &DataType, b: &DataType| (is_number(a) || is_decimal(a)) && b == &DataType::Boolean;
    let met = match meet(&left, &right) {
        Some(met) if !is_mixed(&left.data_type, &right.data_type) && !is_mixed(&right.data_type, &left.data_type) => met,
        _ => return Err(refused(op, &left, &right)),
    };
    if met.is_nested() && op != BinaryOp::Eq && op != BinaryOp::NotEq {
        return Err(Error::schema(format!("{} has no order, in {text}", left.describe())));
    }
    if let Some(exact) = exact::bind(op, &left, &right, &met, text) {
        return exact;
    }
    let met = exact::widened(met, &left, &right);
    let (left, right) = (left.coerce(&met)?, right.coerce(&met)?);
    let kernel: Kernel = match met {
        DataType::Float64 => Arc::new(move |args, rows| floats::<Float64Type>(op, &args[0], &args[1], rows)),
        DataType::Float32 => Arc::new(move |args, rows| floats::<Float32Type>(op, &args[0], &args[1], rows)),
        DataType::Null => Arc::new(move |args, _| {
            args[0].map(|array| {
                Ok(match op {
                    BinaryOp::EqMissing => Arc::new(BooleanArray::from(vec![true; array.len()])) as ArrayRef,
                    _ => Arc::new(BooleanArray::new_null(array.len())),
                })
            })
        }),
        ref nested if nested.is_nested() => Arc::new(move |args, rows| nested_equal(op, &args[0], &args[1], rows)),
        _ => Arc::new(move |args, _| plain(op, &args[0], &args[1])),
    };
    Typed::call(kernel, vec![left, right], DataType::Boolean, text)
}

/// Compares two arrays of one type row by row.
pub(crate) fn arrays(op: BinaryOp, left: &ArrayRef, right: &ArrayRef) -> Result<BooleanArray> {
    let (l, r) = (Value::Array(Arc::clone(left)), Value::Array(Arc::clone(right)));
    let result = match left.data_type() {
        DataType::Float64 => floats::<Float64Type>(op, &l, &r, left.len())?,
        DataType::Float32 => floats::<Float32Type>(op, &l, &r, left.len())?,
        _ => plain(op, &l, &r)?,
    };
    Ok(result.into_array(left.len())?.as_boolean().clone())
}

fn refused(op: BinaryOp, left: &Typed, right: &Typed) -> Error {
    let hint = match (&left.data_type, &right.data_type) {
        (a, b) if is_string(a) && is_number(b) || is_number(a) && is_string(b) => "cast one of them, as in .cast(int)",
        (a, b) if is_string(a) && is_temporal(b) || is_temporal(a) && is_string(b) => {
            "turn the string into a time with .str.to_datetime() or a datetime"
        }
        (DataType::Timestamp(..), DataType::Timestamp(..)) => "one has a time zone and the other has none",
        _ => "cast one of them",
    };
    Error::schema(format!("cannot compare {} {} {}; {hint}", left.describe(), op.symbol(), right.describe()))
}

pub(super) fn plain(op: BinaryOp, left: &Value, right: &Value) -> Result<Value> {
    let (l, r) = (left.datum(), right.datum());
    let result = match op {
        BinaryOp::Eq => cmp::eq(l, r),
        BinaryOp::NotEq => cmp::neq(l, r),
        BinaryOp::Lt => cmp::lt(l, r),
        BinaryOp::LtEq => cmp::lt_eq(l, r),
        BinaryOp::Gt => cmp::gt(l, r),
        BinaryOp::GtEq => cmp::gt_eq(l, r),
        _ => cmp::not_distinct(l, r),
    };
    Ok(wrap(Arc::new(result.map_err(failed)?), left, right))
}

/// One value for all rows if both sides are.
pub(super) fn wrap(result: ArrayRef, left: &Value, right: &Value) -> Value {
    if left.is_array() || right.is_array() { Value::Array(result) } else { Value::Scalar(One::new(result)) }
}

fn nested_equal(op: BinaryOp, left: &Value, right: &Value, rows: usize) -> Result<Value> {
    let (l, r) = (left.clone().into_array(rows)?, right.clone().into_array(rows)?);
    let comparator = arrow::array::make_comparator(&l, &r, arrow::compute::SortOptions::default()).map_err(failed)?;
    let equal = BooleanBuffer::collect_bool(l.len(), |i| comparator(i, i).is_eq());
    let nulls = NullBuffer::union(l.nulls(), r.nulls());
    Ok(Value::Array(Arc::new(match op {
        BinaryOp::NotEq => BooleanArray::new(!&equal, nulls),
        _ => BooleanArray::new(equal, nulls),
    })))
}

/// Compares floats; Arrow's own kernels order them by their bits, in which -0.0 is not 0.0.
pub(super) fn floats<T: ArrowPrimitiveType>(op: BinaryOp, left: &Value, right: &Value, rows: usize) -> Result<Value>
where
    T::Native: PartialOrd,
{
    let (l, r) = (left.values().as_primitive::<T>(), right.values().as_primitive::<T>());
    let rows = if left.is_array() || right.is_array() { rows } else { 1 };
    let values = match op {
        BinaryOp::Eq | BinaryOp::EqMissing => compare(l, r, left, right, rows, equal),
        BinaryOp::NotEq => !&compare(l, r, left, right, rows, equal),
        BinaryOp::Lt => compare(l, r, left, right, rows, less),
        BinaryOp::GtEq => !&compare(l, r, left, right, rows, less),
        BinaryOp::Gt => compare(r, l, right, left, rows, less),
        _ => !&compare(r, l, right, left, rows, less),
    };
    let (l_nulls, r_nulls) = (spread(left, rows), spread(right, rows));
    let result = match op {
        BinaryOp::EqMissing => {
            let valid = |nulls: &Option<NullBuffer>| {
                nulls.as_ref().map_or_else(|| BooleanBuffer::new_set(rows), |nulls| nulls.inner().clone())
            };
            let (l_valid, r_valid) = (valid(&l_nulls), valid(&r_nulls));
            let both = &(&l_valid & &r_valid) & &values;
            let neither = !&(&l_valid | &r_valid);
            BooleanArray::new(&both | &neither, None)
        }
        _ => BooleanArray::new(values, NullBuffer::union(l_nulls.as_ref(), r_nulls.as_ref())),
    };
    Ok(wrap(Arc::new(result), left, right))
}

/// The nulls of a value for this many rows.
pub(super) fn spread(value: &Value, rows: usize) -> Option<NullBuffer> {
    match value {
        Value::Array(array) => array.nulls().cloned(),
        Value::Scalar(_) if value.values().is_null(0) => Some(NullBuffer::new_null(rows)),
        Value::Scalar(_) => None,
    }
}

#[allow(clippy::eq_op, reason = "a value that differs from itself is NaN")]
fn equal<N: PartialOrd + Copy>(a: N, b: N) -> bool {
    a == b || (a != a && b != b)
}

#[allow(clippy::eq_op, reason = "a value that differs from itself is NaN")]
fn less<N: PartialOrd + Copy>(a: N, b: N) -> bool {
    a < b || (a == a && b != b)
}

#[inline]
fn compare<T: ArrowPrimitiveType>(
    l: &PrimitiveArray<T>,
    r: &PrimitiveArray<T>,
    left: &Value,
    right: &Value,
    rows: usize,
    f: impl Fn(T::Native, T::Native) -> bool,
) -> BooleanBuffer {
    let (l, r) = (l.values().as_ref(), r.values().as_ref());
    match (left.is_array(), right.is_array()) {
        (true, false) => {
            let r = r[0];
            BooleanBuffer::collect_bool(rows, |i| f(l[i], r))
        }
        (false, true) => {
            let l = l[0];
            BooleanBuffer::collect_bool(rows, |i| f(l, r[i]))
        }
        _ => BooleanBuffer::collect_bool(rows, |i| f(l[i], r[i])),
    }
}

/// `&`, `|` and `^` of truth values, where null is "not known".
pub(super) fn logical(op: BinaryOp, left: &Value, right: &Value, rows: usize) -> Result<Value> {
    if op == BinaryOp::Xor {
        return plain(BinaryOp::NotEq, left, right);
    }
    let rows = if left.is_array() || right.is_array() { rows } else { 1 };
    let (l, r) = (left.clone().into_array(rows)?, right.clone().into_array(rows)?);
    let (l, r) = (l.as_boolean(), r.as_boolean());
    let result = if op == BinaryOp::And { and_kleene(l, r) } else { or_kleene(l, r) };
    Ok(wrap(Arc::new(result.map_err(failed)?), left, right))
}
