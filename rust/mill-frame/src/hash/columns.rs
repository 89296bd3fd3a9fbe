//! Hashes of whole columns, a column at a time.
//!
//! ```text
//!   h(row) = mix(mix(mix(START, v0), v1), v2)        one v a column, in order
//!   v      = fold(bits ^ A, B)                       for what fits 64 bits
//!          = xxh3(bytes)                             for text and binary
//!          = NULL                                    for null
//!   mix(h, v) = fold(rotate(h, 32) ^ v, C)
//!   fold(a, b) = low64(a * b) ^ high64(a * b)
//! ```
//!
//! Equal values have equal hashes whatever array they are in: integers are widened to 64 bits, floats to `f64` with one
//! NaN and one zero, dictionaries and views hash the value and not the code. So a stream keyed by a plain string meets
//! its state again after the reader starts to give dictionaries. Two folds stand behind each bit of the result, which
//! is what lets key group (high bits) and slot (low bits) be taken from the same hash; a test counts both.

use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeListArray, GenericByteArray, GenericByteViewArray, GenericListArray,
    OffsetSizeTrait, PrimitiveArray,
};
use arrow::buffer::NullBuffer;
use arrow::compute::{cast, take};
use arrow::datatypes::{
    ArrowDictionaryKeyType, ArrowPrimitiveType, BinaryType, BinaryViewType, ByteArrayType, ByteViewType, DataType,
    Date32Type, Date64Type, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, DurationMicrosecondType,
    DurationMillisecondType, DurationNanosecondType, DurationSecondType, Float16Type, Float32Type, Float64Type,
    Int8Type, Int16Type, Int32Type, Int64Type, LargeBinaryType, LargeUtf8Type, StringViewType, Time32MillisecondType,
    Time32SecondType, Time64MicrosecondType, Time64NanosecondType, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type, Utf8Type, i256,
};
use xxhash_rust::xxh3::xxh3_64;

use crate::FrameError;
use crate::types::float_bits;

const START: u64 = 0x243f_6a88_85a3_08d3;
const NULL: u64 = 0x1319_8a2e_0370_7344;
const LIST: u64 = 0xa409_3822_299f_31d0;
const A: u64 = 0x082e_fa98_ec4e_6c89;
const B: u64 = 0x9e37_79b9_7f4a_7c15;
const C: u64 = 0xd1b5_4a32_d192_ed03;

/// Hashes rows of these columns, which have one length: `out[i]` becomes the hash of row `i`.
///
/// # Errors
/// When a column has a type that cannot be a key, or the columns differ in length.
///
/// # Examples
/// ```
/// use std::sync::Arc;
/// use arrow::array::{ArrayRef, DictionaryArray, StringArray, types::Int32Type};
/// use mill_frame::hash::hash_columns;
///
/// let plain: ArrayRef = Arc::new(StringArray::from(vec!["EWR", "JFK", "EWR"]));
/// let coded: ArrayRef = Arc::new(vec!["EWR", "JFK", "EWR"].into_iter().collect::<DictionaryArray<Int32Type>>());
/// let (mut a, mut b) = (Vec::new(), Vec::new());
/// hash_columns(&[plain], &mut a)?;
/// hash_columns(&[coded], &mut b)?;
/// assert_eq!(a, b);
/// assert_eq!(a[0], a[2]);
/// # Ok::<(), mill_frame::FrameError>(())
/// ```
pub fn hash_columns(columns: &[ArrayRef], out: &mut Vec<u64>) -> Result<(), FrameError> {
    out.clear();
    let Some(first) = columns.first() else { return Ok(()) };
    out.resize(first.len(), START);
    for column in columns {
        if column.len() != out.len() {
            return Err(FrameError::Length { expected: out.len(), found: column.len() });
        }
        mix_array(column.as_ref(), out)?;
    }
    Ok(())
}

#[inline(always)]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

#[inline(always)]
fn mix(hash: u64, value: u64) -> u64 {
    fold(hash.rotate_left(32) ^ value, C)
}

#[inline(always)]
fn hash_u64(bits: u64) -> u64 {
    fold(bits ^ A, B)
}

#[inline(always)]
fn hash_f64(value: f64) -> u64 {
    hash_u64(float_bits(value))
}

#[inline(always)]
fn hash_u128(bits: u128) -> u64 {
    fold(hash_u64(bits as u64) ^ ((bits >> 64) as u64), B)
}

#[inline(always)]
fn hash_i256(value: i256) -> u64 {
    let (low, high) = value.to_parts();
    mix(hash_u128(low), hash_u128(high as u128))
}

/// Mixes the values of one array into the hashes of its rows.
fn mix_array(array: &dyn Array, out: &mut [u64]) -> Result<(), FrameError> {
    use DataType::*;
    macro_rules! ints {
        ($type:ty) => {
            mix_primitive::<$type>(array, out, |v| hash_u64(v as i64 as u64))
        };
    }
    match array.data_type() {
        Null => out.iter_mut().for_each(|h| *h = mix(*h, NULL)),
        Boolean => {
            let array = array.as_boolean();
            mix_each(array.nulls(), out, |i| hash_u64(u64::from(array.value(i))));
        }
        Int8 => ints!(Int8Type),
        Int16 => ints!(Int16Type),
        Int32 => ints!(Int32Type),
        Int64 => ints!(Int64Type),
        UInt8 => ints!(UInt8Type),
        UInt16 => ints!(UInt16Type),
        UInt32 => ints!(UInt32Type),
        UInt64 => ints!(UInt64Type),
        Date32 => ints!(Date32Type),
        Date64 => ints!(Date64Type),
        Time32(TimeUnit::Second) => ints!(Time32SecondType),
        Time32(_) => ints!(Time32MillisecondType),
        Time64(TimeUnit::Microsecond) => ints!(Time64MicrosecondType),
        Time64(_) => ints!(Time64NanosecondType),
        Timestamp(TimeUnit::Second, _) => ints!(TimestampSecondType),
        Timestamp(TimeUnit::Millisecond, _) => ints!(TimestampMillisecondType),
        Timestamp(TimeUnit::Microsecond, _) => ints!(TimestampMicrosecondType),
        Timestamp(TimeUnit::Nanosecond, _) => ints!(TimestampNanosecondType),
        Duration(TimeUnit::Second) => ints!(DurationSecondType),
        Duration(TimeUnit::Millisecond) => ints!(DurationMillisecondType),
        Duration(TimeUnit::Microsecond) => ints!(DurationMicrosecondType),
        Duration(TimeUnit::Nanosecond) => ints!(DurationNanosecondType),
        Decimal32(..) => ints!(Decimal32Type),
        Decimal64(..) => ints!(Decimal64Type),
        Decimal128(..) => mix_primitive::<Decimal128Type>(array, out, |v| hash_u128(v as u128)),
        Decimal256(..) => mix_primitive::<Decimal256Type>(array, out, hash_i256),
        Float16 => mix_primitive::<Float16Type>(array, out, |v| hash_f64(v.to_f64())),
        Float32 => mix_primitive::<Float32Type>(array, out, |v| hash_f64(f64::from(v))),
        Float64 => mix_primitive::<Float64Type>(array, out, hash_f64),
        Utf8 => mix_bytes(array.as_bytes::<Utf8Type>(), out),
        LargeUtf8 => mix_bytes(array.as_bytes::<LargeUtf8Type>(), out),
        Binary => mix_bytes(array.as_bytes::<BinaryType>(), out),
        LargeBinary => mix_bytes(array.as_bytes::<LargeBinaryType>(), out),
        Utf8View => mix_views(array.as_byte_view::<StringViewType>(), out),
        BinaryView => mix_views(array.as_byte_view::<BinaryViewType>(), out),
        FixedSizeBinary(_) => {
            let array = array.as_fixed_size_binary();
            mix_each(array.nulls(), out, |i| xxh3_64(array.value(i)));
        }
        List(_) => mix_list(array.as_list::<i32>(), out)?,
        LargeList(_) => mix_list(array.as_list::<i64>(), out)?,
        FixedSizeList(..) => mix_fixed_list(array.as_fixed_size_list(), out)?,
        Struct(_) => {
            let array = array.as_struct();
            let mut inner = vec![START; array.len()];
            for column in array.columns() {
                mix_array(column.as_ref(), &mut inner)?;
            }
            mix_each(array.nulls(), out, |i| inner[i]);
        }
        Dictionary(key, _) => match key.as_ref() {
            Int8 => mix_dictionary::<Int8Type>(array, out)?,
            Int16 => mix_dictionary::<Int16Type>(array, out)?,
            Int32 => mix_dictionary::<Int32Type>(array, out)?,
            Int64 => mix_dictionary::<Int64Type>(array, out)?,
            UInt8 => mix_dictionary::<UInt8Type>(array, out)?,
            UInt16 => mix_dictionary::<UInt16Type>(array, out)?,
            UInt32 => mix_dictionary::<UInt32Type>(array, out)?,
            _ => mix_dictionary::<UInt64Type>(array, out)?,
        },
        other => return Err(FrameError::Unsupported { operation: "hash", data_type: other.clone() }),
    }
    Ok(())
}

#[inline(always)]
fn mix_each(nulls: Option<&NullBuffer>, out: &mut [u64], value: impl Fn(usize) -> u64) {
    match nulls {
        None => {
            for (i, hash) in out.iter_mut().enumerate() {
                *hash = mix(*hash, value(i));
            }
        }
        Some(nulls) => {
            for (i, hash) in out.iter_mut().enumerate() {
                *hash = mix(*hash, if nulls.is_valid(i) { value(i) } else { NULL });
            }
        }
    }
}

#[inline(always)]
fn mix_primitive<T: ArrowPrimitiveType>(array: &dyn Array, out: &mut [u64], value: impl Fn(T::Native) -> u64) {
    let array: &PrimitiveArray<T> = array.as_primitive();
    let values = &array.values()[..out.len()];
    match array.nulls() {
        None => {
            for (hash, &v) in out.iter_mut().zip(values) {
                *hash = mix(*hash, value(v));
            }
        }
        Some(nulls) => {
            for ((hash, &v), is_valid) in out.iter_mut().zip(values).zip(nulls.iter()) {
                *hash = mix(*hash, if is_valid { value(v) } else { NULL });
            }
        }
    }
}

fn mix_bytes<T: ByteArrayType>(array: &GenericByteArray<T>, out: &mut [u64]) {
    mix_each(array.nulls(), out, |i| xxh3_64(array.value(i).as_ref()));
}

fn mix_views<T: ByteViewType + ?Sized>(array: &GenericByteViewArray<T>, out: &mut [u64]) {
    mix_each(array.nulls(), out, |i| xxh3_64(array.value(i).as_ref()));
}

fn mix_list<O: OffsetSizeTrait>(array: &GenericListArray<O>, out: &mut [u64]) -> Result<(), FrameError> {
    let offsets = array.value_offsets();
    let (first, last) = (offsets[0].as_usize(), offsets[array.len()].as_usize());
    let mut elements = vec![START; last - first];
    mix_array(array.values().slice(first, last - first).as_ref(), &mut elements)?;
    mix_each(array.nulls(), out, |i| {
        hash_elements(&elements[offsets[i].as_usize() - first..offsets[i + 1].as_usize() - first])
    });
    Ok(())
}

fn mix_fixed_list(array: &FixedSizeListArray, out: &mut [u64]) -> Result<(), FrameError> {
    let width = array.value_length() as usize;
    let first = array.value_offset(0) as usize;
    let mut elements = vec![START; width * array.len()];
    mix_array(array.values().slice(first, width * array.len()).as_ref(), &mut elements)?;
    mix_each(array.nulls(), out, |i| hash_elements(&elements[i * width..(i + 1) * width]));
    Ok(())
}

fn hash_elements(elements: &[u64]) -> u64 {
    elements.iter().fold(hash_u64(elements.len() as u64 ^ LIST), |hash, &element| mix(hash, element))
}

fn mix_dictionary<K: ArrowDictionaryKeyType>(array: &dyn Array, out: &mut [u64]) -> Result<(), FrameError> {
    let array = array.as_dictionary::<K>();
    // Text in a small dictionary is hashed once a value. Anything else is gathered into a plain column first, also
    // where the dictionary is larger than what uses it.
    let is_hashable_once = array.values().len() <= array.len()
        && matches!(
            array.values().data_type(),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Binary | DataType::LargeBinary
        );
    if !is_hashable_once {
        let plain = match array.keys().data_type() {
            DataType::Int32 | DataType::Int64 | DataType::UInt32 | DataType::UInt64 => {
                take(array.values(), array.keys(), None)?
            }
            _ => take(array.values(), &cast(array.keys(), &DataType::UInt32)?, None)?,
        };
        return mix_array(plain.as_ref(), out);
    }
    let values = array.values();
    let hash_of = |i: usize| match values.data_type() {
        _ if values.is_null(i) => NULL,
        DataType::Utf8 => xxh3_64(values.as_bytes::<Utf8Type>().value(i).as_bytes()),
        DataType::LargeUtf8 => xxh3_64(values.as_bytes::<LargeUtf8Type>().value(i).as_bytes()),
        DataType::Binary => xxh3_64(values.as_bytes::<BinaryType>().value(i)),
        _ => xxh3_64(values.as_bytes::<LargeBinaryType>().value(i)),
    };
    let hashes: Vec<u64> = (0..values.len()).map(hash_of).collect();
    use arrow::datatypes::ArrowNativeType;
    let keys = array.keys().values();
    mix_each(array.keys().nulls(), out, |i| hashes.get(keys[i].as_usize()).copied().unwrap_or(NULL));
    Ok(())
}

#[cfg(test)]
mod tests;
