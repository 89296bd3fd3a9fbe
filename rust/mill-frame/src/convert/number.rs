//! Integers and floats.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ArrowPrimitiveType, BooleanArray, PrimitiveArray};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{max, min};
use arrow::datatypes::{
    ArrowNativeType, DataType, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};

use super::flat::{Converted, kernel, null_where};

/// The largest float16.
const FLOAT16_MAX: u64 = 65_504;

/// Integers as floats that are the same numbers.
pub(super) fn int_to_float(array: &ArrayRef, to: &DataType) -> Converted {
    let (bits, largest) = match to {
        DataType::Float16 => (11, FLOAT16_MAX),
        DataType::Float32 => (24, u64::MAX),
        _ => (53, u64::MAX),
    };
    let floats = kernel(array, to)?;
    let mask = if array.data_type().is_unsigned_integer() {
        let wide = kernel(array, &DataType::UInt64)?;
        let wide = wide.as_primitive::<UInt64Type>();
        if is_below(wide.values(), |value| value, bits) { None } else { inexact_where(wide, bits, largest, |value| value) }
    } else {
        let wide = kernel(array, &DataType::Int64)?;
        let wide = wide.as_primitive::<Int64Type>();
        // From -2^bits up to 2^bits, moved so that none is negative.
        let moved = |value: i64| value.wrapping_add(1 << bits) as u64;
        if is_below(wide.values(), moved, bits + 1) { None } else { inexact_where(wide, bits, largest, i64::unsigned_abs) }
    };
    match mask {
        None => Ok(floats),
        Some(mask) => null_where(&floats, &mask),
    }
}

/// Whether all numbers are below 2^bits, those in the places of nulls too: a pass without a branch, which settles it for most columns.
fn is_below<N: Copy>(values: &[N], number: impl Fn(N) -> u64, bits: u32) -> bool {
    values.iter().fold(0, |all, &value| all | number(value)) >> bits == 0
}

/// Where an integer has more digits than so many bits hold; `None` if nowhere.
fn inexact_where<T: ArrowPrimitiveType<Native: Ord>>(
    array: &PrimitiveArray<T>,
    bits: u32,
    largest: u64,
    magnitude: impl Fn(T::Native) -> u64,
) -> Option<BooleanArray>
where
    T::Native: arrow::array::ArrowNativeTypeOp,
{
    let limit = 1u64 << bits;
    let is_small = |extreme: Option<T::Native>| extreme.is_none_or(|value| magnitude(value) <= limit);
    if is_small(min(array)) && is_small(max(array)) {
        return None;
    }
    let is_inexact = |value: T::Native| {
        let magnitude = magnitude(value);
        magnitude > largest || magnitude != 0 && 64 - magnitude.leading_zeros() - magnitude.trailing_zeros() > bits
    };
    let values = array.values();
    let mask = BooleanBuffer::collect_bool(values.len(), |row| is_inexact(values[row]));
    Some(BooleanArray::new(mask, array.nulls().cloned()))
}

/// Floats as integers, if they are whole and in range.
pub(super) fn float_to_int(array: &ArrayRef, to: &DataType) -> Converted {
    if array.data_type() == &DataType::Float16 {
        return float_to_int(&kernel(array, &DataType::Float32)?, to);
    }
    macro_rules! convert {
        ($int:ty, $native:ty) => {
            if let Some(floats) = array.as_primitive_opt::<Float32Type>() {
                whole::<Float32Type, $int>(floats, |value| {
                    let is_whole = value.trunc() == value && value >= <$native>::MIN as f32 && value < above(<$native>::MAX as f32);
                    is_whole.then_some(value as $native)
                })
            } else {
                whole::<Float64Type, $int>(array.as_primitive(), |value| {
                    let is_whole = value.trunc() == value && value >= <$native>::MIN as f64 && value < <$native>::MAX as f64 + 1.0;
                    is_whole.then_some(value as $native)
                })
            }
        };
    }
    Ok(match to {
        DataType::Int8 => convert!(Int8Type, i8),
        DataType::Int16 => convert!(Int16Type, i16),
        DataType::Int32 => convert!(Int32Type, i32),
        DataType::Int64 => convert!(Int64Type, i64),
        DataType::UInt8 => convert!(UInt8Type, u8),
        DataType::UInt16 => convert!(UInt16Type, u16),
        DataType::UInt32 => convert!(UInt32Type, u32),
        _ => convert!(UInt64Type, u64),
    })
}

/// The first whole number above the range of an integer type, whose largest number this is, perhaps rounded up.
fn above(largest: f32) -> f32 {
    // From 24 bits on the largest has been rounded up to the power of two already.
    if largest < 16_777_216.0 { largest + 1.0 } else { largest }
}

fn whole<F: ArrowPrimitiveType, I: ArrowPrimitiveType>(floats: &PrimitiveArray<F>, f: impl Fn(F::Native) -> Option<I::Native>) -> ArrayRef {
    // The usual case is that all fit: one pass without a branch on nulls, then the check of what it could not do.
    Arc::new(floats.unary_opt::<_, I>(f))
}

/// Floats of another width, the nearest ones; what is finite stays finite.
pub(super) fn float_to_float(array: &ArrayRef, to: &DataType) -> Converted {
    let floats = kernel(array, to)?;
    if array.data_type() == &DataType::Float16 || to == &DataType::Float64 {
        return Ok(floats);
    }
    let wide = kernel(array, &DataType::Float64)?;
    let wide = wide.as_primitive::<Float64Type>().values();
    let mask = match to {
        DataType::Float32 => {
            let narrow = floats.as_primitive::<Float32Type>().values();
            BooleanBuffer::collect_bool(wide.len(), |row| narrow[row].is_infinite() && wide[row].is_finite())
        }
        _ => {
            let narrow = floats.as_primitive::<Float16Type>().values();
            BooleanBuffer::collect_bool(wide.len(), |row| narrow[row].is_infinite() && wide[row].is_finite())
        }
    };
    null_where(&floats, &BooleanArray::new(mask, floats.nulls().cloned()))
}

/// The zero of a type; for masks over values.
pub(super) fn is_zero<T: ArrowPrimitiveType>(value: T::Native) -> bool {
    value == T::Native::usize_as(0)
}
