//! Makes values in Avro of columns.
//!
//! A value goes into a field of its kind (a whole number into `int` or `long`, a timestamp into one of another unit) only if it is
//! there what it was: it is converted, converted back and compared. What is not is rejected with its column.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, DictionaryArray, Int32Array, RecordBatch, RecordBatchOptions, StringArray};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow_avro::schema::{AVRO_ENUM_SYMBOLS_METADATA_KEY, SCHEMA_METADATA_KEY};
use arrow_avro::writer::format::AvroBinaryFormat;
use arrow_avro::writer::{Encoder, WriterBuilder};
use mill_frame::convert::show;
use mill_frame::types::type_name;
use mill_protocol::{Error, Result};
use serde_json::{Value as Json, json};

use super::{HEAD_BYTES, MAGIC, SchemaRegistry, decoder, plain, prepared, told};
use crate::nearest::quoted;

/// How values of a topic are written.
#[derive(Debug)]
pub struct AvroWriting {
    schema: Option<String>,
    registry: Option<Arc<dyn SchemaRegistry>>,
    topic: String,
    /// The number of the schema, once it is known.
    id: Mutex<Option<u32>>,
}

impl AvroWriting {
    /// Records of this schema; without one, of a schema that the columns make. A registry gets the schema of the topic's values.
    pub fn new(topic: &str, schema: Option<String>, registry: Option<Arc<dyn SchemaRegistry>>) -> AvroWriting {
        AvroWriting { schema, registry, topic: topic.to_owned(), id: Mutex::default() }
    }

    fn id(&self, schema: &str) -> Result<Option<u32>> {
        let Some(registry) = &self.registry else { return Ok(None) };
        let mut known = self.id.lock().unwrap_or_else(PoisonError::into_inner);
        let id = match *known {
            Some(id) => id,
            None => registry.register(&format!("{}-value", self.topic), schema)?,
        };
        *known = Some(id);
        Ok(known.as_ref().copied())
    }
}

/// Writes records of some columns.
pub(in crate::kafka) struct AvroEncoder {
    writing: Arc<AvroWriting>,
    /// The schema as it was given, or made.
    source: String,
    /// The column of each field.
    places: Vec<usize>,
    /// The fields as the encoder takes them.
    fields: SchemaRef,
    encoder: Encoder,
    /// What is before each record.
    head: Vec<u8>,
}

impl AvroEncoder {
    /// Of these columns of a stream.
    ///
    /// # Errors
    /// When the schema is none, or not one of these columns.
    pub(in crate::kafka) fn new(writing: &Arc<AvroWriting>, schema: &SchemaRef, columns: &[usize]) -> Result<AvroEncoder> {
        let wrong = |text: String| Error::schema(format!("write_kafka(format=\"avro\"): {text}"));
        let source = match &writing.schema {
            Some(given) => given.clone(),
            None => made(schema, columns, &writing.topic).map_err(wrong)?.to_string(),
        };
        let of_schema = |text: String| wrong(format!("the Avro schema: {text}"));
        let prepared = prepared(&source).map_err(of_schema)?;
        let found = decoder(&prepared, &prepared).map_err(of_schema)?.schema();
        let mut places = Vec::with_capacity(columns.len());
        for field in found.fields() {
            let place = columns.iter().find(|place| schema.field(**place).name() == field.name());
            let Some(&place) = place else {
                return Err(wrong(format!("the schema has a field {:?}, and the stream no such column", field.name())));
            };
            let from = schema.field(place).data_type();
            let to = plain(field.data_type()).map_err(|what| wrong(format!("field {:?} is {what}, which no column becomes", field.name())))?;
            if has_enum_within(field.data_type()) {
                return Err(wrong(format!("field {:?} has an enum within a list, map or record, which cannot be written", field.name())));
            }
            if !is_alike(from, &to) {
                return Err(wrong(format!(
                    "column {:?} is {}, and the field of the schema {}; cast() it",
                    field.name(),
                    type_name(from),
                    type_name(&to)
                )));
            }
            places.push(place);
        }
        let extra: Vec<String> =
            columns.iter().filter(|place| !places.contains(place)).map(|place| schema.field(*place).name().clone()).collect();
        if !extra.is_empty() {
            return Err(wrong(format!("the schema has no field for {}; drop() it", quoted(&extra, ", "))));
        }
        let metadata = [(SCHEMA_METADATA_KEY.to_owned(), prepared)].into();
        let fields = Arc::new(Schema::new_with_metadata(found.fields().clone(), metadata));
        let encoder = WriterBuilder::new(fields.as_ref().clone()).build_encoder::<AvroBinaryFormat>().map_err(|e| of_schema(told(&e)))?;
        Ok(AvroEncoder { writing: Arc::clone(writing), source, places, fields, encoder, head: Vec::new() })
    }

    /// Asks the registry for the number of the schema, if there is one.
    ///
    /// # Errors
    /// When it does not answer, or refuses the schema.
    pub(in crate::kafka) fn register(&mut self) -> Result<()> {
        if let Some(id) = self.writing.id(&self.source)? {
            self.head.clear();
            self.head.push(MAGIC);
            self.head.extend_from_slice(&id.to_be_bytes());
            debug_assert_eq!(self.head.len(), HEAD_BYTES);
        }
        Ok(())
    }

    /// The value of each row but the `deleted` ones, or what is wrong with it.
    pub(in crate::kafka) fn encode(
        &mut self,
        batch: &RecordBatch,
        deleted: Option<&BooleanBuffer>,
    ) -> Result<Vec<std::result::Result<Vec<u8>, String>>> {
        let rows = batch.num_rows();
        let is_set: Vec<bool> = (0..rows).map(|row| deleted.is_none_or(|deleted| !deleted.value(row))).collect();
        let mut values: Vec<std::result::Result<Vec<u8>, String>> = vec![Ok(Vec::new()); rows];
        let set: Vec<usize> = (0..rows).filter(|row| is_set[*row]).collect();
        let whole = match set.len() == rows {
            true => batch.clone(),
            false => filter_record_batch(batch, &BooleanArray::from(is_set)).map_err(|e| Error::internal(e.to_string()))?,
        };
        match self.encode_all(&whole) {
            Ok(encoded) => set.iter().zip(encoded).for_each(|(&row, value)| values[row] = Ok(value)),
            // Some row cannot be written: which one?
            Err(_) => {
                for (at, &row) in set.iter().enumerate() {
                    values[row] = self.encode_all(&whole.slice(at, 1)).map(|mut one| one.pop().unwrap_or_default());
                }
            }
        }
        Ok(values)
    }

    fn encode_all(&mut self, batch: &RecordBatch) -> std::result::Result<Vec<Vec<u8>>, String> {
        let arrays = self.places.iter().zip(self.fields.fields()).map(|(&place, field)| converted(batch.column(place), field));
        let arrays = arrays.collect::<std::result::Result<Vec<ArrayRef>, String>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let records = RecordBatch::try_new_with_options(Arc::clone(&self.fields), arrays, &options).map_err(|e| told(&e))?;
        let result = self.encoder.encode(&records);
        // What was encoded before an error goes, too.
        let encoded = self.encoder.flush();
        result.map_err(|e| told(&e))?;
        let record = |bytes: &[u8]| [self.head.as_slice(), bytes].concat();
        Ok(encoded.iter().map(|bytes| record(&bytes)).collect())
    }
}

/// A column as the values of a field.
fn converted(column: &ArrayRef, field: &Field) -> std::result::Result<ArrayRef, String> {
    let name = field.name();
    let wrong = |row: usize, why: &str| format!("column {name:?} is {}, {why}", show(column, row));
    if !field.is_nullable() && column.logical_null_count() > 0 {
        return Err(format!("column {name:?} is null, and the field of the schema has no null"));
    }
    let to = plain(field.data_type()).map_err(|what| format!("column {name:?}: {what}"))?;
    let failed = |e: arrow::error::ArrowError| format!("column {name:?}: {}", told(&e));
    let mut values = Arc::clone(column);
    if *column.data_type() != to {
        values = cast(column, &to).map_err(failed)?;
        let back = cast(&values, column.data_type()).map_err(failed)?;
        if back.to_data() != column.to_data() {
            let differs = |row: &usize| back.slice(*row, 1).to_data() != column.slice(*row, 1).to_data();
            if let Some(row) = (0..column.len()).find(differs) {
                return Err(wrong(row, &format!("which the field of the schema, {}, does not hold", type_name(&to))));
            }
        }
    }
    if let Some(symbols) = symbols(field) {
        let texts = values.as_string::<i32>();
        let numbers = (0..texts.len()).map(|row| {
            if texts.is_null(row) {
                return Ok(None);
            }
            let found = symbols.iter().position(|symbol| symbol == texts.value(row));
            found.map(|at| Some(at as i32)).ok_or_else(|| wrong(row, "which is no symbol of the enum in the schema"))
        });
        let numbers: Int32Array = numbers.collect::<std::result::Result<Vec<_>, _>>()?.into();
        let dictionary = DictionaryArray::try_new(numbers, Arc::new(StringArray::from(symbols)));
        return dictionary.map(|array| Arc::new(array) as ArrayRef).map_err(failed);
    }
    // Another layout of the same: the fields of records within say how Avro calls them.
    if values.data_type() == field.data_type() { Ok(values) } else { cast(&values, field.data_type()).map_err(failed) }
}

/// The symbols of a field that is an enum.
fn symbols(field: &Field) -> Option<Vec<String>> {
    matches!(field.data_type(), DataType::Dictionary(..)).then(|| {
        let text = field.metadata().get(AVRO_ENUM_SYMBOLS_METADATA_KEY);
        text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    })
}

fn has_enum_within(found: &DataType) -> bool {
    let has = |inner: &DataType| matches!(inner, DataType::Dictionary(..)) || has_enum_within(inner);
    match found {
        DataType::List(item) | DataType::Map(item, _) => has(item.data_type()),
        DataType::Struct(fields) => fields.iter().any(|field| has(field.data_type())),
        _ => false,
    }
}

/// Whether values of one type may be values of another.
fn is_alike(from: &DataType, to: &DataType) -> bool {
    use DataType as T;
    let is_text = |found: &DataType| matches!(found, T::Utf8 | T::LargeUtf8 | T::Utf8View);
    let is_bytes = |found: &DataType| matches!(found, T::Binary | T::LargeBinary | T::BinaryView | T::FixedSizeBinary(_));
    match (from, to) {
        (T::Dictionary(_, value), to) => is_alike(value, to),
        (T::Null, _) => true,
        (T::Date32 | T::Date64, T::Date32) => true,
        (T::Time32(_) | T::Time64(_), T::Time32(_) | T::Time64(_)) => true,
        (T::Timestamp(_, from), T::Timestamp(_, to)) => from.is_some() == to.is_some(),
        (T::List(from) | T::LargeList(from) | T::FixedSizeList(from, _), T::List(to)) => is_alike(from.data_type(), to.data_type()),
        (T::Struct(from), T::Struct(to)) => {
            let alike = |(from, to): (&Arc<Field>, &Arc<Field>)| from.name() == to.name() && is_alike(from.data_type(), to.data_type());
            from.len() == to.len() && from.iter().zip(to).all(alike)
        }
        (T::Map(from, _), T::Map(to, _)) => match (from.data_type(), to.data_type()) {
            (T::Struct(from), T::Struct(to)) => {
                is_alike(from[0].data_type(), to[0].data_type()) && is_alike(from[1].data_type(), to[1].data_type())
            }
            _ => false,
        },
        (from, to) => {
            from == to
                || (from.is_integer() && to.is_integer())
                || (from.is_floating() && to.is_floating())
                || (from.is_decimal() && to.is_decimal())
                || (is_text(from) && is_text(to))
                || (is_bytes(from) && is_bytes(to))
        }
    }
}

/// The schema that columns make; each may be null.
fn made(schema: &SchemaRef, columns: &[usize], topic: &str) -> std::result::Result<Json, String> {
    let name: String = topic.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    let name = if name.starts_with(|c: char| c.is_ascii_digit()) { format!("_{name}") } else { name };
    record(&name, columns.iter().map(|place| schema.field(*place)))
}

fn record<'f>(name: &str, fields: impl Iterator<Item = &'f Field>) -> std::result::Result<Json, String> {
    let fields = fields.map(|field| {
        let called = field.name();
        let is_name = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && !text.starts_with(|c: char| c.is_ascii_digit());
        if called.is_empty() || !is_name(called) {
            return Err(format!("Avro has no fields called {called:?}: names are letters, digits and _; rename() the column"));
        }
        let of = nullable(&format!("{name}_{called}"), called, field)?;
        let default = if field.is_nullable() { json!({"name": called, "type": of, "default": null}) } else { json!({"name": called, "type": of}) };
        Ok(default)
    });
    Ok(json!({"type": "record", "name": name, "fields": fields.collect::<std::result::Result<Vec<Json>, String>>()?}))
}

/// The type of a field, with null where its column may have it.
fn nullable(name: &str, column: &str, field: &Field) -> std::result::Result<Json, String> {
    let of = type_of(name, column, field.data_type())?;
    Ok(if field.is_nullable() && of != json!("null") { json!(["null", of]) } else { of })
}

fn type_of(name: &str, column: &str, found: &DataType) -> std::result::Result<Json, String> {
    use DataType as T;
    let logical = |of: &str, called: &str| json!({"type": of, "logicalType": called});
    Ok(match found {
        T::Null => json!("null"),
        T::Boolean => json!("boolean"),
        T::Int8 | T::Int16 | T::Int32 | T::UInt8 | T::UInt16 => json!("int"),
        T::Int64 | T::UInt32 => json!("long"),
        T::Float16 | T::Float32 => json!("float"),
        T::Float64 => json!("double"),
        T::Utf8 | T::LargeUtf8 | T::Utf8View => json!("string"),
        T::Binary | T::LargeBinary | T::BinaryView => json!("bytes"),
        T::FixedSizeBinary(size) => json!({"type": "fixed", "name": name, "size": size}),
        T::Dictionary(_, value) => type_of(name, column, value)?,
        T::Date32 | T::Date64 => logical("int", "date"),
        T::Time32(_) => logical("int", "time-millis"),
        T::Time64(TimeUnit::Microsecond) => logical("long", "time-micros"),
        T::Timestamp(unit, zone) => {
            let called = match unit {
                TimeUnit::Second | TimeUnit::Millisecond => "timestamp-millis",
                TimeUnit::Microsecond => "timestamp-micros",
                TimeUnit::Nanosecond => "timestamp-nanos",
            };
            let local = if zone.is_some() { "" } else { "local-" };
            logical("long", &format!("{local}{called}"))
        }
        T::Decimal32(precision, scale) | T::Decimal64(precision, scale) | T::Decimal128(precision, scale) | T::Decimal256(precision, scale)
            if *scale >= 0 =>
        {
            json!({"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale})
        }
        T::List(item) | T::LargeList(item) | T::FixedSizeList(item, _) => {
            json!({"type": "array", "items": nullable(&format!("{name}_item"), column, item)?})
        }
        T::Struct(fields) => record(name, fields.iter().map(|field| field.as_ref()))?,
        T::Map(entries, _) => match entries.data_type() {
            T::Struct(fields) if matches!(fields[0].data_type(), T::Utf8 | T::LargeUtf8 | T::Utf8View) => {
                json!({"type": "map", "values": nullable(&format!("{name}_value"), column, &fields[1])?})
            }
            _ => return Err(format!("column {column:?} is a map whose keys are no text, which Avro has not")),
        },
        other => return Err(format!("column {column:?} is {}, for which Avro has no type; cast() it", type_name(other))),
    })
}
