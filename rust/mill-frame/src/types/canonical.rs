//! The canonical form of keys: equal keys have one form, whatever layout they come in.
//!
//! - All NaN are one NaN, `-0.0` is `0.0`, null is a key of its own. What a key column shows downstream of a keyed step
//!   is the canonical value: `0.0`, never `-0.0`.
//! - A dictionary counts by its values, a list by its elements, text by its bytes, in whatever layout.
//!
//! Hashes, keys in state, distinct values and the latest row of each key all build on this module, so that none can
//! disagree with another.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, FixedSizeListArray, ListArray, MapArray, PrimitiveArray, StructArray,
};
use arrow::datatypes::{DataType, Field, FieldRef, Float16Type, Float32Type, Float64Type};

use super::plain::{plain_array, plain_type};
use crate::FrameError;

/// The bits of a float as a key: one NaN, one zero.
#[inline(always)]
pub fn float_bits(value: f64) -> u64 {
    if value.is_nan() {
        0x7ff8_0000_0000_0000
    } else if value == 0.0 {
        0
    } else {
        value.to_bits()
    }
}

/// The type in which values of this type are compared as keys: without dictionaries, text and binary in one layout, at
/// any depth.
pub fn canonical_type(data_type: &DataType) -> DataType {
    match plain_type(data_type) {
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView => DataType::Binary,
        DataType::Dictionary(_, values) => canonical_type(&values),
        DataType::List(item) => DataType::List(canonical_field(&item)),
        DataType::FixedSizeList(item, size) => DataType::FixedSizeList(canonical_field(&item), size),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(canonical_field).collect()),
        DataType::Map(entries, is_sorted) => DataType::Map(canonical_field(&entries), is_sorted),
        other => other,
    }
}

fn canonical_field(field: &FieldRef) -> FieldRef {
    Arc::new(Field::new(field.name(), canonical_type(field.data_type()), field.is_nullable()))
}

/// The same values as keys: in their [canonical type](canonical_type), with one NaN and one zero.
///
/// # Errors
/// When the values do not fit the layout of that type.
///
/// # Examples
/// ```
/// use std::sync::Arc;
/// use arrow::array::{ArrayRef, AsArray, Float64Array, types::Float64Type};
/// use mill_frame::types::canonical_array;
///
/// let values: ArrayRef = Arc::new(Float64Array::from(vec![-0.0, 1.5]));
/// let keys = canonical_array(&values)?;
/// assert!(keys.as_primitive::<Float64Type>().value(0).is_sign_positive());
/// # Ok::<(), mill_frame::FrameError>(())
/// ```
pub fn canonical_array(array: &ArrayRef) -> Result<ArrayRef, FrameError> {
    let array = plain_array(array, &canonical_type(array.data_type()))?;
    if has_floats(array.data_type()) { one_zero(&array) } else { Ok(array) }
}

fn has_floats(data_type: &DataType) -> bool {
    match data_type {
        DataType::List(item) | DataType::FixedSizeList(item, _) | DataType::Map(item, _) => has_floats(item.data_type()),
        DataType::Struct(fields) => fields.iter().any(|field| has_floats(field.data_type())),
        other => other.is_floating(),
    }
}

/// Replaces every NaN and zero in an array of a canonical type.
fn one_zero(array: &ArrayRef) -> Result<ArrayRef, FrameError> {
    Ok(match array.data_type() {
        DataType::Float64 => floats::<Float64Type>(array, |v| f64::from_bits(float_bits(v))),
        DataType::Float32 => floats::<Float32Type>(array, |v| f64::from_bits(float_bits(f64::from(v))) as f32),
        DataType::Float16 => floats::<Float16Type>(array, |v| {
            <Float16Type as ArrowPrimitiveType>::Native::from_f64(f64::from_bits(float_bits(v.to_f64())))
        }),
        DataType::List(item) => {
            let list = array.as_list::<i32>();
            let values = one_zero(list.values())?;
            Arc::new(ListArray::try_new(Arc::clone(item), list.offsets().clone(), values, list.nulls().cloned())?)
        }
        DataType::FixedSizeList(item, size) => {
            let list = array.as_fixed_size_list();
            let (values, nulls) = (one_zero(list.values())?, list.nulls().cloned());
            Arc::new(FixedSizeListArray::try_new_with_length(Arc::clone(item), *size, values, nulls, list.len())?)
        }
        DataType::Struct(fields) => {
            let parts = array.as_struct();
            let columns: Result<Vec<ArrayRef>, FrameError> = parts.columns().iter().map(one_zero).collect();
            Arc::new(StructArray::try_new_with_length(fields.clone(), columns?, parts.nulls().cloned(), parts.len())?)
        }
        DataType::Map(entries, is_sorted) => {
            let map = array.as_map();
            let parts = one_zero(&(Arc::new(map.entries().clone()) as ArrayRef))?;
            let (offsets, nulls) = (map.offsets().clone(), map.nulls().cloned());
            Arc::new(MapArray::try_new(Arc::clone(entries), offsets, parts.as_struct().clone(), nulls, *is_sorted)?)
        }
        _ => Arc::clone(array),
    })
}

fn floats<T: ArrowPrimitiveType>(array: &ArrayRef, canonical: impl Fn(T::Native) -> T::Native) -> ArrayRef {
    let array: &PrimitiveArray<T> = array.as_primitive();
    Arc::new(array.unary::<_, T>(canonical))
}
