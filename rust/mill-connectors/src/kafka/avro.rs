//! Values in Avro, by a schema that the user passes or that a registry knows.
//!
//! ```text
//!   without a registry    the record alone                        written with the schema that the user passes
//!   with a registry       0, number (4 bytes), the record         written with the schema of this number
//! ```
//!
//! A schema decides the columns of the stream. Values that were written with another one become records of it by the rules
//! of Avro (fields by name, defaults, wider numbers). `arrow-avro` decodes the bytes; this module decides which columns
//! they become, and which messages are invalid.

mod read;
mod write;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use arrow_avro::codec::Tz;
use arrow_avro::reader::{Decoder, ReaderBuilder};
use arrow_avro::schema::{AvroSchema, Fingerprint, FingerprintAlgorithm, SchemaStore};
use mill_frame::types::type_name;
use mill_protocol::{Error, Result};
use serde_json::Value as Json;

pub(super) use read::AvroDecoder;
pub use write::AvroWriting;
pub(super) use write::AvroEncoder;

/// What a value begins with whose schema is in a registry.
const MAGIC: u8 = 0;
/// Bytes before the record of such a value.
const HEAD_BYTES: usize = 5;

/// Knows schemas by number.
pub trait SchemaRegistry: Send + Sync + fmt::Debug {
    /// The schema of this number, or why there is none with which a value in Avro can be read.
    ///
    /// # Errors
    /// When the registry does not answer.
    fn schema(&self, id: u32) -> Result<std::result::Result<String, String>>;

    /// The number of a schema under this subject, which gets it if it does not have it.
    ///
    /// # Errors
    /// When the registry does not answer, or refuses the schema.
    fn register(&self, subject: &str, schema: &str) -> Result<u32>;
}

/// For how long a number is taken to have no such schema, once the registry has said so.
const UNKNOWN_FOR: Duration = Duration::from_secs(30);

/// How values are read or written.
pub struct Avro {
    /// The schema as it was given.
    source: String,
    /// The same as `arrow-avro` reads it.
    schema: String,
    registry: Option<Arc<dyn SchemaRegistry>>,
    columns: SchemaRef,
    /// What the registry has answered: the schema of a number, or why there is none and when that was.
    known: Mutex<HashMap<u32, std::result::Result<String, (String, Instant)>>>,
}

impl Avro {
    /// Values of records of this schema.
    ///
    /// # Errors
    /// When it is no schema of a record, or has a field that cannot be a column.
    pub fn new(schema: &str, registry: Option<Arc<dyn SchemaRegistry>>) -> Result<Avro> {
        let prepared = prepared(schema).map_err(|wrong| Error::schema(format!("the Avro schema: {wrong}")))?;
        let decoder = decoder(&prepared, &prepared).map_err(|wrong| Error::schema(format!("the Avro schema: {wrong}")))?;
        let mut fields = Vec::new();
        for field in decoder.schema().fields() {
            let data_type = plain(field.data_type()).map_err(|found| {
                Error::schema(format!(
                    "the Avro schema: field {:?} is {found}, which no column holds; read format=\"raw\", or leave the field out of \
                     avro_schema=",
                    field.name()
                ))
            })?;
            fields.push(Field::new(field.name(), data_type, field.is_nullable()));
        }
        let columns = Arc::new(Schema::new(fields));
        Ok(Avro { source: schema.to_owned(), schema: prepared, registry, columns, known: Mutex::default() })
    }

    /// The columns of the records.
    pub fn columns(&self) -> &SchemaRef {
        &self.columns
    }

    /// The schema with which a value was written, or why it is not known.
    fn writer(&self, id: u32) -> Result<std::result::Result<String, String>> {
        let Some(registry) = &self.registry else { return Ok(Ok(self.schema.clone())) };
        match self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&id) {
            Some(Ok(known)) => return Ok(Ok(known.clone())),
            Some(Err((reason, asked))) if asked.elapsed() < UNKNOWN_FOR => return Ok(Err(reason.clone())),
            _ => {}
        }
        let found = registry.schema(id)?;
        let answer = found.clone().map_err(|reason| (reason, Instant::now()));
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(id, answer);
        Ok(found)
    }
}

impl fmt::Debug for Avro {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Avro").field("schema", &self.source).field("registry", &self.registry).finish()
    }
}

/// A schema as `arrow-avro` is to read it: texts that are said to be UUIDs stay texts.
fn prepared(schema: &str) -> std::result::Result<String, String> {
    let mut json: Json = serde_json::from_str(schema).map_err(|e| format!("it is not JSON: {e}"))?;
    if json.get("type").and_then(Json::as_str) != Some("record") {
        return Err("it has to be that of a record, {\"type\": \"record\", \"name\": …, \"fields\": […]}".to_owned());
    }
    check(&mut json, &mut Vec::new())?;
    Ok(json.to_string())
}

/// Finds what would not end or is not to be read as it says; `within` are the names of the records around.
fn check(json: &mut Json, within: &mut Vec<String>) -> std::result::Result<(), String> {
    match json {
        Json::String(name) => match within.iter().any(|outer| outer == name || outer.rsplit('.').next() == Some(name)) {
            true => Err(format!("record {name:?} has itself within it, and columns do not")),
            false => Ok(()),
        },
        Json::Array(branches) => branches.iter_mut().try_for_each(|branch| check(branch, within)),
        Json::Object(object) => {
            if object.get("logicalType").and_then(Json::as_str) == Some("uuid") && object.get("type").and_then(Json::as_str) == Some("string") {
                object.remove("logicalType");
            }
            let is_record = matches!(object.get("type").and_then(Json::as_str), Some("record" | "error"));
            if is_record {
                within.push(object.get("name").and_then(Json::as_str).unwrap_or_default().to_owned());
                let fields = object.get_mut("fields").and_then(Json::as_array_mut).ok_or("a record has no fields")?;
                for field in fields {
                    check(field.get_mut("type").ok_or("a field has no type")?, within)?;
                }
                within.pop();
                return Ok(());
            }
            for part in ["type", "items", "values"] {
                if let Some(inner) = object.get_mut(part) {
                    check(inner, within)?;
                }
            }
            Ok(())
        }
        _ => Err(format!("{json} is no type")),
    }
}

/// Reads what was written with one schema as records of another.
fn decoder(writer: &str, reader: &str) -> std::result::Result<Decoder, String> {
    let mut store = SchemaStore::new_with_type(FingerprintAlgorithm::Id);
    let id = Fingerprint::Id(0);
    store.set(id, AvroSchema::new(writer.to_owned())).map_err(|e| told(&e))?;
    let builder = ReaderBuilder::new().with_writer_schema_store(store).with_active_fingerprint(id).with_tz(Tz::Utc);
    let builder = builder.with_reader_schema(AvroSchema::new(reader.to_owned())).with_batch_size(read::ROWS_MAX);
    builder.build_decoder().map_err(|e| told(&e))
}

/// An error's words, without the name of its kind before them.
fn told(error: &dyn std::error::Error) -> String {
    let text = error.to_string();
    match text.split_once(": ") {
        Some((kind, rest)) if kind.to_ascii_lowercase().ends_with("error") => rest.to_owned(),
        _ => text,
    }
}

/// The type of a column that values of a type of `arrow-avro` become: enums are texts, and nothing says how Avro called it.
fn plain(found: &DataType) -> std::result::Result<DataType, String> {
    let field = |field: &FieldRef| -> std::result::Result<FieldRef, String> {
        Ok(Arc::new(Field::new(field.name(), plain(field.data_type())?, field.is_nullable())))
    };
    Ok(match found {
        DataType::Dictionary(_, value) => plain(value)?,
        DataType::List(item) => DataType::List(field(item)?),
        DataType::Map(entries, is_sorted) => DataType::Map(field(entries)?, *is_sorted),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(field).collect::<std::result::Result<Fields, _>>()?),
        DataType::Union(..) => return Err("a union of several types".to_owned()),
        DataType::Interval(_) => return Err("a duration of months, days and milliseconds".to_owned()),
        DataType::RunEndEncoded(..) => return Err(type_name(found)),
        other => other.clone(),
    })
}
