//! Columns of files, libraries and functions, which cannot say that their bytes are Python objects.
//!
//! Objects are pickled, and unpickling runs what the bytes ask for. The mark in a field's metadata that makes bytes objects
//! is the engine's own: only columns that it has pickled itself have it. What comes from outside loses the mark at every way
//! in, at all depths, and so is what Arrow says it is: a column of bytes.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema};

use super::TYPE_KEY;
use crate::types::children_fields;

/// The columns of a schema from outside: none of them are objects.
pub fn foreign_schema(schema: &Schema) -> Schema {
    let fields: Vec<FieldRef> = schema.fields().iter().map(foreign_field).collect();
    Schema::new_with_metadata(fields, schema.metadata().clone())
}

/// A column from outside: bytes that are marked as Python objects are bytes.
///
/// # Examples
/// ```
/// use std::sync::Arc;
/// use mill_frame::schema::{foreign_field, is_object, object_field};
///
/// let claimed = Arc::new(object_field("state", true));
/// assert!(!is_object(&foreign_field(&claimed)));
/// ```
pub fn foreign_field(field: &FieldRef) -> FieldRef {
    if !has_mark(field) {
        return Arc::clone(field);
    }
    let mut metadata = field.metadata().clone();
    metadata.remove(TYPE_KEY);
    let plain = field.as_ref().clone().with_data_type(foreign_type(field.data_type())).with_metadata(metadata);
    Arc::new(plain)
}

/// Whether the column, or something within it, has a mark of any kind.
fn has_mark(field: &Field) -> bool {
    field.metadata().contains_key(TYPE_KEY) || children_fields(field.data_type()).iter().any(|child| has_mark(child))
}

fn foreign_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::List(item) => DataType::List(foreign_field(item)),
        DataType::LargeList(item) => DataType::LargeList(foreign_field(item)),
        DataType::ListView(item) => DataType::ListView(foreign_field(item)),
        DataType::LargeListView(item) => DataType::LargeListView(foreign_field(item)),
        DataType::FixedSizeList(item, size) => DataType::FixedSizeList(foreign_field(item), *size),
        DataType::Map(entries, is_sorted) => DataType::Map(foreign_field(entries), *is_sorted),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(foreign_field).collect()),
        DataType::RunEndEncoded(ends, values) => DataType::RunEndEncoded(Arc::clone(ends), foreign_field(values)),
        DataType::Dictionary(codes, values) => DataType::Dictionary(codes.clone(), Box::new(foreign_type(values))),
        other => other.clone(),
    }
}
