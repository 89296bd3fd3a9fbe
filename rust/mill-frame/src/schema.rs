//! Schemas: their bytes, their fingerprint, and the mark of columns that hold Python objects.
//!
//! The form is our own, so that neither it nor the fingerprint changes when Arrow does:
//!
//! ```text
//!   schema   = version:u8 metadata fields
//!   fields   = count:u32 { name:text is_nullable:u8 metadata type }
//!   type     = tag:u8 and what the tag asks for: unit, zone, precision and scale, size, child fields, key and value
//!   metadata = count:u32 { key:text value:text }           text = bytes:u32 utf8
//! ```
//!
//! The fingerprint is the hash of the same form without metadata and nullability: two schemas with one fingerprint have
//! the same names and types, and a frame of one can be read with the other.

mod foreign;
mod read;
mod write;

use arrow::datatypes::{DataType, Field, Schema};
use xxhash_rust::xxh3::xxh3_64;

use crate::FrameError;
use crate::types::children_fields;

pub use foreign::{foreign_field, foreign_schema};

/// The metadata key under which a field says what its bytes stand for.
pub const TYPE_KEY: &str = "millstream.type";
/// The value of [`TYPE_KEY`] for pickled Python objects.
pub const TYPE_OBJECT: &str = "object";

/// A column of Python objects: each value is pickled bytes.
///
/// # Examples
/// ```
/// use mill_frame::schema::{is_object, object_field};
/// let field = object_field("state", true);
/// assert!(is_object(&field));
/// ```
pub fn object_field(name: impl Into<String>, is_nullable: bool) -> Field {
    let metadata = [(TYPE_KEY.to_owned(), TYPE_OBJECT.to_owned())];
    Field::new(name, DataType::Binary, is_nullable).with_metadata(metadata.into())
}

/// Whether a column holds Python objects.
pub fn is_object(field: &Field) -> bool {
    field.metadata().get(TYPE_KEY).is_some_and(|value| value == TYPE_OBJECT)
}

/// The metadata key of columns that were computed for a step and are no part of its records.
const COMPUTED_KEY: &str = "millstream.computed";

/// The same column, marked as computed for a step: who shows a record leaves it out.
pub fn computed_field(field: Field) -> Field {
    let mut metadata = field.metadata().clone();
    metadata.insert(COMPUTED_KEY.to_owned(), String::new());
    field.with_metadata(metadata)
}

/// Whether a column was computed for a step.
pub fn is_computed(field: &Field) -> bool {
    field.metadata().contains_key(COMPUTED_KEY)
}

/// Whether a column, or something within it, holds Python objects.
pub fn holds_objects(field: &Field) -> bool {
    is_object(field) || children_fields(field.data_type()).iter().any(|child| holds_objects(child))
}

/// A number that stands for names and types of these columns, the same in every process and version. Nullability and
/// metadata do not count, but for the mark of objects.
pub fn fingerprint(schema: &Schema) -> u64 {
    let mut out = Vec::with_capacity(16 * schema.fields().len() + 16);
    write::Writer { out: &mut out, is_whole: false }.fields(schema.fields());
    xxh3_64(&out)
}

/// The schema as bytes, to be stored.
///
/// # Errors
/// When a column has a type that is not carried.
///
/// # Examples
/// ```
/// use arrow::datatypes::{DataType, Field, Schema};
/// use mill_frame::schema;
///
/// let flights = Schema::new(vec![Field::new("origin", DataType::Utf8, false)]);
/// let bytes = schema::to_bytes(&flights)?;
/// assert_eq!(schema::from_bytes(&bytes)?, flights);
/// assert!(schema::from_bytes(&bytes[1..]).unwrap_err().is_corrupt());
/// # Ok::<(), mill_frame::FrameError>(())
/// ```
pub fn to_bytes(schema: &Schema) -> Result<Vec<u8>, FrameError> {
    let mut out = vec![write::VERSION];
    let mut writer = write::Writer { out: &mut out, is_whole: true };
    writer.metadata(schema.metadata());
    match writer.fields(schema.fields()) {
        None => Ok(out),
        Some(data_type) => Err(FrameError::Unsupported { operation: "store", data_type }),
    }
}

/// The schema that [`to_bytes`] stored. Bytes from outside are as welcome: nothing in them is trusted.
///
/// # Errors
/// When the bytes are not a schema, or not all of them are.
pub fn from_bytes(bytes: &[u8]) -> Result<Schema, FrameError> {
    read::Reader::new(bytes).schema()
}

#[cfg(test)]
mod tests;
