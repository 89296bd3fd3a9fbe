//! Arithmetic: which types meet, what comes out, and which loop computes it.
//!
//! | left, right | result |
//! | --- | --- |
//! | integers | their common type, checked; of uint64 and a signed type int64, see `wide` |
//! | integers, by `/` | float64, rounded once, see `wide` |
//! | floats | their common type |
//! | decimals | decimals, as wide as it takes; `/` rounds, see `decimals` |
//! | times and durations | see `spans` |
//! | string + string | string |

use std::sync::Arc;

use arrow::array::{ArrayRef, new_empty_array};
use arrow::compute::kernels::numeric;
use arrow::datatypes::DataType;
use mill_protocol::{Error, Result};

use super::Kernel;
use super::bind::{Typed, meet};
use super::value::{One, Value, failed};
use super::{decimals, numbers, spans, wide};
use crate::expr::BinaryOp;
use crate::types::{is_decimal, is_number, is_string, is_temporal};

/// Binds an arithmetic operator.
pub(crate) fn bind(op: BinaryOp, left: Typed, right: Typed, text: &Arc<str>) -> Result<Typed> {
    let (l, r) = (left.data_type.clone(), right.data_type.clone());
    let is_plain = |t: &DataType| is_number(t) || matches!(t, DataType::Boolean | DataType::Null);
    if is_plain(&l) && is_plain(&r) {
        return of_numbers(op, left, right, text);
    }
    if is_temporal(&l) || is_temporal(&r) {
        return spans::bind(op, left, right, text);
    }
    let is_decimal_or_plain = |t: &DataType| is_decimal(t) || is_plain(t);
    if is_decimal_or_plain(&l) && is_decimal_or_plain(&r) {
        return of_decimals(op, left, right, text);
    }
    if op == BinaryOp::Add && (is_string(&l) || is_string(&r)) && meet(&left, &right).is_some_and(|t| is_string(&t)) {
        return concat(left, right, text);
    }
    Err(refused(op, &left, &right))
}

pub(super) fn refused(op: BinaryOp, left: &Typed, right: &Typed) -> Error {
    let is_mixed = is_string(&left.data_type) != is_string(&right.data_type);
    let hint = if is_mixed { "; cast one of them, as in .cast(float)" } else { "" };
    Error::schema(format!("{} does not work between {} and {}{hint}", op.symbol(), left.describe(), right.describe()))
}

fn of_numbers(op: BinaryOp, left: Typed, right: Typed, text: &Arc<str>) -> Result<Typed> {
    let mut met = meet(&left, &right).ok_or_else(|| refused(op, &left, &right))?;
    if matches!(met, DataType::Boolean | DataType::Null) {
        met = DataType::Int64;
    }
    if op == BinaryOp::Div && matches!(met, DataType::Int64 | DataType::UInt64) {
        let args = vec![as_wide(left)?, as_wide(right)?];
        let kernel: Kernel = Arc::new(|args, rows| wide::quotients(&args[0], &args[1], rows));
        return Typed::call(kernel, args, DataType::Float64, text);
    }
    if op == BinaryOp::Div && met != DataType::Float32 {
        met = DataType::Float64;
    }
    if wide::is_mixed(&met, &left.data_type, &right.data_type) {
        return mixed(op, left, right, text);
    }
    if met == DataType::Float16 {
        met = DataType::Float32;
    }
    let args = vec![left.coerce(&met)?, right.coerce(&met)?];
    let kernel: Kernel = if met.is_integer() {
        Arc::new(move |args, rows| numbers::integers(op, &args[0], &args[1], rows))
    } else {
        match op {
            BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul | BinaryOp::Div => {
                Arc::new(move |args, _| of_arrow(op, &args[0], &args[1]))
            }
            _ => Arc::new(move |args, rows| numbers::floats(op, &args[0], &args[1], rows)),
        }
    };
    Typed::call(kernel, args, met, text)
}

/// An integer as uint64 if it is that, or else as int64.
fn as_wide(side: Typed) -> Result<Typed> {
    if side.data_type == DataType::UInt64 { Ok(side) } else { side.coerce(&DataType::Int64) }
}

/// An operation between uint64 and a signed type.
fn mixed(op: BinaryOp, left: Typed, right: Typed, text: &Arc<str>) -> Result<Typed> {
    let args = vec![as_wide(left)?, as_wide(right)?];
    let kernel: Kernel = Arc::new(move |args, rows| wide::mixed(op, &args[0], &args[1], rows));
    Typed::call(kernel, args, DataType::Int64, text)
}

/// `&`, `|` and `^` of integers, bit by bit.
pub(super) fn bitwise(op: BinaryOp, left: Typed, right: Typed, text: &Arc<str>) -> Result<Typed> {
    let met = meet(&left, &right).filter(DataType::is_integer).ok_or_else(|| refused(op, &left, &right))?;
    if wide::is_mixed(&met, &left.data_type, &right.data_type) {
        return mixed(op, left, right, text);
    }
    let args = vec![left.coerce(&met)?, right.coerce(&met)?];
    let kernel: Kernel = Arc::new(move |args, rows| numbers::integers(op, &args[0], &args[1], rows));
    Typed::call(kernel, args, met, text)
}

/// `-x`.
pub(super) fn negate(input: Typed, text: &Arc<str>) -> Result<Typed> {
    let data_type = match &input.data_type {
        DataType::Null => DataType::Int64,
        t if t.is_signed_integer() || t.is_floating() || is_decimal(t) || matches!(t, DataType::Duration(_)) => t.clone(),
        t if t.is_unsigned_integer() => {
            return Err(Error::schema(format!(
                "- needs a signed type, found {}; cast it first, as in .cast(int)",
                input.describe()
            )));
        }
        _ => return Err(Error::schema(format!("- needs a number, found {}", input.describe()))),
    };
    let kernel: Kernel = Arc::new(|args, _| args[0].map(|array| numeric::neg(array).map_err(failed)));
    let args = vec![input.coerce(&data_type)?];
    Typed::call(kernel, args, data_type, text)
}

/// An operation that Arrow has a kernel for.
pub(super) fn of_arrow(op: BinaryOp, left: &Value, right: &Value) -> Result<Value> {
    let (l, r) = (left.datum(), right.datum());
    let result = match op {
        BinaryOp::Add => numeric::add(l, r),
        BinaryOp::Sub => numeric::sub(l, r),
        BinaryOp::Mul => numeric::mul(l, r),
        _ => numeric::div(l, r),
    }
    .map_err(failed)?;
    Ok(if left.is_array() || right.is_array() { Value::Array(result) } else { Value::Scalar(One::new(result)) })
}

fn of_decimals(op: BinaryOp, left: Typed, right: Typed, text: &Arc<str>) -> Result<Typed> {
    if left.data_type.is_floating() || right.data_type.is_floating() {
        let (left, right) = (left.coerce(&DataType::Float64)?, right.coerce(&DataType::Float64)?);
        return of_numbers(op, left, right, text);
    }
    if op == BinaryOp::Pow {
        return Err(Error::schema(format!(
            "{} does not work on decimals ({}); cast to float, as in .cast(float)",
            op.symbol(),
            left.describe()
        )));
    }
    let decimal = |side: Typed| match &side.data_type {
        t if is_decimal(t) => match t {
            DataType::Decimal128(..) => Ok(side),
            DataType::Decimal32(p, s) | DataType::Decimal64(p, s) | DataType::Decimal256(p, s) => {
                let (p, s) = ((*p).min(38), *s);
                side.coerce(&DataType::Decimal128(p, s))
            }
            _ => Ok(side),
        },
        t => {
            // As many digits as the integer type can have.
            let digits = match t {
                DataType::Int8 | DataType::UInt8 | DataType::Boolean | DataType::Null => 3,
                DataType::Int16 | DataType::UInt16 => 5,
                DataType::Int32 | DataType::UInt32 => 10,
                _ => 20,
            };
            side.coerce(&DataType::Decimal128(digits, 0))
        }
    };
    let args = vec![decimal(left)?, decimal(right)?];
    if op == BinaryOp::Div {
        return decimals::divide(args, text);
    }
    if matches!(op, BinaryOp::FloorDiv | BinaryOp::Mod) {
        return decimals::divide_whole(op, args, text);
    }
    if op == BinaryOp::Mul {
        decimals::check_places(&args[0], &args[1])?;
    }
    let empty = |side: &Typed| Value::Array(new_empty_array(&side.data_type));
    let data_type = of_arrow(op, &empty(&args[0]), &empty(&args[1]))?.data_type().clone();
    let kernel: Kernel = Arc::new(move |args, _| {
        let result = of_arrow(op, &args[0], &args[1]).map_err(|_| decimals::too_long())?;
        decimals::check(&result)?;
        Ok(result)
    });
    Typed::call(kernel, args, data_type, text)
}

fn concat(left: Typed, right: Typed, text: &Arc<str>) -> Result<Typed> {
    let args = vec![left.coerce(&DataType::Utf8)?, right.coerce(&DataType::Utf8)?];
    let kernel: Kernel = Arc::new(|args, rows| {
        let (l, r): (ArrayRef, ArrayRef) = (args[0].clone().into_array(rows)?, args[1].clone().into_array(rows)?);
        Ok(Value::Array(arrow_concat(&l, &r)?))
    });
    Typed::call(kernel, args, DataType::Utf8, text)
}

fn arrow_concat(l: &ArrayRef, r: &ArrayRef) -> Result<ArrayRef> {
    use arrow::array::AsArray;
    let joined = arrow::compute::kernels::concat_elements::concat_elements_utf8(l.as_string::<i32>(), r.as_string::<i32>()).map_err(failed)?;
    Ok(Arc::new(joined))
}
