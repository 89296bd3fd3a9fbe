//! The plain form of each type: the one layout of its kind that streams carry.
//!
//! | from outside | plain |
//! | --- | --- |
//! | list, large list and list view, element of any name, nullable or not | list with a nullable element `item` |
//! | struct with fields that must not be null | the same with nullable fields |
//! | map with any names of its parts | map of `entries`, `key` and `value`, not marked as sorted |
//! | dictionary with codes of any width | dictionary with codes of 32 bits, which a stream does not outgrow |
//! | values in runs | the values |
//! | decimal of 32 or 64 bits | decimal of 128 bits |
//! | text and binary with large offsets or as views, within lists, structs, maps and dictionaries | with 32-bit offsets |
//!
//! A column that is text or binary itself keeps its layout, because converting would copy it.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, DictionaryArray, FixedSizeListArray, ListArray, MapArray, RecordBatch, RecordBatchOptions,
    StructArray,
};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, FieldRef, Int32Type, Schema, SchemaRef};

use crate::FrameError;
use crate::schema::TYPE_KEY;
use crate::types::type_name;

/// Metadata under keys of this kind names an extension type (a UUID, say) of which the column has the storage.
const EXTENSION_PREFIX: &str = "ARROW:extension:";

/// These columns in their plain form, all of them nullable.
pub fn plain_schema(schema: &Schema) -> Schema {
    let fields: Vec<FieldRef> = schema.fields().iter().map(plain_field).collect();
    Schema::new_with_metadata(fields, schema.metadata().clone())
}

/// A column in its plain form.
pub fn plain_field(field: &FieldRef) -> FieldRef {
    let plain = Field::new(field.name(), plain_type(field.data_type()), true);
    Arc::new(plain.with_metadata(field.metadata().clone()))
}

/// The plain form of the type of a column.
///
/// # Examples
/// ```
/// use std::sync::Arc;
/// use arrow::datatypes::{DataType, Field};
/// use mill_frame::types::plain_type;
///
/// let polars = DataType::LargeList(Arc::new(Field::new("element", DataType::LargeUtf8, false)));
/// assert_eq!(plain_type(&polars), DataType::new_list(DataType::Utf8, true));
/// ```
pub fn plain_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::LargeUtf8 | DataType::Utf8View | DataType::LargeBinary | DataType::BinaryView => data_type.clone(),
        DataType::RunEndEncoded(_, values) => plain_type(values.data_type()),
        other => inner_type(other),
    }
}

/// The plain form of a type within another.
fn inner_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView => DataType::Binary,
        DataType::List(item) | DataType::LargeList(item) | DataType::ListView(item) | DataType::LargeListView(item) => {
            DataType::List(inner_field(item, "item", true))
        }
        DataType::FixedSizeList(item, size) => DataType::FixedSizeList(inner_field(item, "item", true), *size),
        DataType::Struct(fields) => {
            DataType::Struct(fields.iter().map(|field| inner_field(field, field.name(), true)).collect())
        }
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(parts) if parts.len() == 2 => {
                let parts = [inner_field(&parts[0], "key", false), inner_field(&parts[1], "value", true)];
                let entries = Field::new("entries", DataType::Struct(parts.into_iter().collect()), false);
                DataType::Map(Arc::new(entries), false)
            }
            _ => data_type.clone(),
        },
        DataType::Dictionary(_, values) => {
            DataType::Dictionary(Box::new(DataType::Int32), Box::new(undictionaried(&inner_type(values))))
        }
        DataType::RunEndEncoded(_, values) => inner_type(values.data_type()),
        DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) => {
            DataType::Decimal128(*precision, *scale)
        }
        other => other.clone(),
    }
}

/// The type of the values of a dictionary, which may be dictionaries themselves.
fn undictionaried(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Dictionary(_, values) => undictionaried(values),
        other => other.clone(),
    }
}

fn inner_field(field: &FieldRef, name: &str, is_nullable: bool) -> FieldRef {
    let kept = field.metadata().iter().filter(|(key, _)| *key == TYPE_KEY || key.starts_with(EXTENSION_PREFIX));
    let metadata = kept.map(|(key, value)| (key.clone(), value.clone())).collect();
    Arc::new(Field::new(name, inner_type(field.data_type()), is_nullable).with_metadata(metadata))
}

/// The same values in the layout `to`, which is the plain or the canonical form of the array's own type. Where only
/// names and nullability differ, no value is copied.
///
/// # Errors
/// When the array does not fit the layout: more values than 32-bit offsets reach, or a map with a null key.
pub fn plain_array(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, FrameError> {
    use DataType::{Dictionary, FixedSizeList, LargeList, LargeListView, List, ListView, Map, RunEndEncoded, Struct};
    let from = array.data_type();
    if from == to {
        return Ok(Arc::clone(array));
    }
    Ok(match (from, to) {
        (List(_), List(item)) => {
            let list = array.as_list::<i32>();
            let values = plain_array(list.values(), item.data_type())?;
            Arc::new(ListArray::try_new(Arc::clone(item), list.offsets().clone(), values, list.nulls().cloned())?)
        }
        (LargeList(item) | ListView(item) | LargeListView(item), List(_)) => {
            plain_array(&exact_cast(array, &List(Arc::clone(item)))?, to)?
        }
        (FixedSizeList(_, size), FixedSizeList(item, _)) => {
            let list = array.as_fixed_size_list();
            let first = list.value_offset(0) as usize;
            let elements = list.values().slice(first, list.len() * list.value_length() as usize);
            let values = plain_array(&elements, item.data_type())?;
            let nulls = list.nulls().cloned();
            Arc::new(FixedSizeListArray::try_new_with_length(Arc::clone(item), *size, values, nulls, list.len())?)
        }
        (FixedSizeList(item, _), List(_)) => plain_array(&exact_cast(array, &List(Arc::clone(item)))?, to)?,
        (Struct(_), Struct(fields)) => {
            let parts = array.as_struct();
            let columns: Result<Vec<ArrayRef>, FrameError> =
                parts.columns().iter().zip(fields).map(|(column, field)| plain_array(column, field.data_type())).collect();
            let nulls = parts.nulls().cloned();
            Arc::new(StructArray::try_new_with_length(fields.clone(), columns?, nulls, parts.len())?)
        }
        (Map(..), Map(entries, is_sorted)) => {
            let map = array.as_map();
            let plain = plain_array(&(Arc::new(map.entries().clone()) as ArrayRef), entries.data_type())?;
            let (offsets, nulls) = (map.offsets().clone(), map.nulls().cloned());
            Arc::new(MapArray::try_new(Arc::clone(entries), offsets, plain.as_struct().clone(), nulls, *is_sorted)?)
        }
        (Dictionary(..), Dictionary(_, values)) => {
            let dictionary = array.as_any_dictionary();
            let codes: ArrayRef = arrow::array::make_array(dictionary.keys().to_data());
            let codes = exact_cast(&codes, &DataType::Int32)?;
            let values = plain_array(dictionary.values(), values)?;
            Arc::new(DictionaryArray::<Int32Type>::try_new(codes.as_primitive().clone(), values)?)
        }
        (Dictionary(_, values), _) => plain_array(&exact_cast(array, values)?, to)?,
        (RunEndEncoded(_, values), _) => plain_array(&exact_cast(array, values.data_type())?, to)?,
        _ => exact_cast(array, to)?,
    })
}

/// The batch with its columns in the plain form of their types, which `schema` has.
///
/// # Errors
/// When a column does not fit the plain form of its type, naming it.
pub fn plain_batch(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, FrameError> {
    let mut columns = Vec::with_capacity(batch.num_columns());
    for (column, field) in batch.columns().iter().zip(schema.fields()) {
        columns.push(plain_array(column, field.data_type()).map_err(|error| FrameError::Columns {
            what: format!("column {:?} does not fit its type {}: {error}", field.name(), type_name(field.data_type())),
        })?);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}

/// A change of layout; a value that does not survive it is an error.
fn exact_cast(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, FrameError> {
    if array.data_type() == to {
        return Ok(Arc::clone(array));
    }
    Ok(cast_with_options(array, to, &CastOptions { safe: false, ..CastOptions::default() })?)
}
