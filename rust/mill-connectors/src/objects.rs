//! Columns of Python objects, which stay in the process and its state directories: files and databases have none.
//!
//! Objects are pickled bytes, and unpickling can run any code. So no reader takes bytes of a file for objects, and
//! no writer leaves objects where a reader might.

use arrow::datatypes::{DataType, Schema};
use mill_frame::schema::holds_objects;
use mill_protocol::{Error, Result};

/// Refuses to write columns that hold Python objects, at any depth.
pub(crate) fn check_written(schema: &Schema) -> Result<()> {
    match schema.fields().iter().find(|field| holds_objects(field)) {
        None => Ok(()),
        Some(field) => Err(Error::schema(format!(
            "column {:?} holds Python objects, which cannot be written: drop it, or map it to a column with a type",
            field.name()
        ))),
    }
}

/// Refuses to read columns as Python objects, at any depth.
pub(crate) fn check_read(reader: &str, schema: &Schema) -> Result<()> {
    match schema.fields().iter().find(|field| holds_objects(field)) {
        None => Ok(()),
        Some(field) => Err(Error::schema(format!(
            "{reader}: column {:?} cannot be read as Python objects: unpickling the bytes of a file runs whatever they ask for; \
             read it as binary, and make objects in map() of bytes that you trust",
            field.name()
        ))),
    }
}

/// What to do with a column that a text format or a database has no form for.
pub(crate) fn advice(data_type: &DataType) -> &'static str {
    match data_type {
        DataType::Interval(_) => "cast it to str, or write it with write_arrow()",
        _ => "unnest() or explode() it, or write JSON or Parquet",
    }
}
