//! Makes columns of messages.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanArray, Int32Array, Int64Array, ListBuilder, RecordBatch, RecordBatchOptions, StringArray,
    StringBuilder, StructBuilder, TimestampMillisecondArray,
};
use arrow::compute::filter;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mill_protocol::{Error, Rejected, Result};

use super::avro::AvroDecoder;
use super::client::Partition;
use super::debezium::{Events, Op};
use super::message::Message;
use super::source::{KafkaFormat, Metadata};
use crate::json::JsonFormat;

/// Where a column of the result comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// The value, by its place among the columns of the value that are read.
    Value(usize),
    RawValue,
    RawKey,
    /// What becomes of the key.
    Op,
    Of(Metadata),
}

/// All columns of a format, with what is added to them.
pub(super) fn schema(format: &KafkaFormat, metadata: &[Metadata]) -> SchemaRef {
    let mut fields: Vec<FieldRef> = match format {
        KafkaFormat::Json(schema) => schema.fields().iter().cloned().collect(),
        KafkaFormat::Avro(avro) => avro.columns().fields().iter().cloned().collect(),
        KafkaFormat::Debezium { columns, .. } => {
            let op = Field::new(op_column(columns), DataType::Utf8, false);
            columns.fields().iter().cloned().chain([Arc::new(op)]).collect()
        }
        KafkaFormat::Raw => ["key", "value"].map(|name| Arc::new(Field::new(name, DataType::Binary, true))).to_vec(),
    };
    fields.extend(metadata.iter().map(|kind| Arc::new(Field::new(kind.column(), kind.data_type(), true))));
    Arc::new(Schema::new(fields))
}

/// The column that says what becomes of a key: under a name that no column has.
pub(super) fn op_column(columns: &Schema) -> String {
    let mut name = "__op".to_owned();
    while columns.field_with_name(&name).is_ok() {
        name.push('_');
    }
    name
}

impl Metadata {
    /// The name of its column.
    pub(super) fn column(self) -> &'static str {
        match self {
            Metadata::Key => "_key",
            Metadata::Topic => "_topic",
            Metadata::Partition => "_partition",
            Metadata::Offset => "_offset",
            Metadata::Timestamp => "_timestamp",
            Metadata::Headers => "_headers",
        }
    }

    fn data_type(self) -> DataType {
        match self {
            Metadata::Key => DataType::Binary,
            Metadata::Topic => DataType::Utf8,
            Metadata::Partition => DataType::Int32,
            Metadata::Offset => DataType::Int64,
            Metadata::Timestamp => DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
            Metadata::Headers => DataType::List(Arc::new(Field::new("item", DataType::Struct(header_fields()), true))),
        }
    }
}

/// What a header is.
fn header_fields() -> Fields {
    Fields::from(vec![Field::new("key", DataType::Utf8, true), Field::new("value", DataType::Binary, true)])
}

/// Reads the messages of one partition.
pub(super) struct Decoder {
    partition: Partition,
    schema: SchemaRef,
    origins: Vec<Origin>,
    json: Option<JsonFormat>,
    avro: Option<AvroDecoder>,
    events: Option<Events>,
    /// The values of the messages, and where each is.
    data: Vec<u8>,
    bounds: Vec<(usize, usize)>,
    /// What becomes of the key of each of them.
    ops: Vec<Op>,
}

impl Decoder {
    /// Reads `schema`, some columns of what the format and the metadata give.
    pub(super) fn new(format: &KafkaFormat, metadata: &[Metadata], schema: SchemaRef, partition: Partition) -> Result<Decoder> {
        let mut wanted: Vec<FieldRef> = Vec::new();
        let mut origins = Vec::with_capacity(schema.fields().len());
        for field in schema.fields() {
            let name = field.name().as_str();
            origins.push(match (format, metadata.iter().find(|kind| kind.column() == name)) {
                (_, Some(kind)) => Origin::Of(*kind),
                (KafkaFormat::Raw, None) if name == "key" => Origin::RawKey,
                (KafkaFormat::Raw, None) if name == "value" => Origin::RawValue,
                (KafkaFormat::Raw, None) => return Err(Error::internal(format!("messages have no column {name:?}"))),
                (KafkaFormat::Debezium { columns, .. }, None) if *name == op_column(columns) => Origin::Op,
                (KafkaFormat::Json(_) | KafkaFormat::Avro(_) | KafkaFormat::Debezium { .. }, None) => {
                    wanted.push(Arc::clone(field));
                    Origin::Value(wanted.len() - 1)
                }
            });
        }
        let events = match format {
            KafkaFormat::Debezium { columns, key } => Some(Events::new(columns, wanted.clone(), key)),
            KafkaFormat::Json(_) | KafkaFormat::Avro(_) | KafkaFormat::Raw => None,
        };
        let wanted = Arc::new(Schema::new(wanted));
        let avro = match format {
            KafkaFormat::Avro(avro) => Some(AvroDecoder::new(Arc::clone(avro), &wanted)?),
            KafkaFormat::Json(_) | KafkaFormat::Debezium { .. } | KafkaFormat::Raw => None,
        };
        let json = match format {
            KafkaFormat::Json(columns) | KafkaFormat::Debezium { columns, .. } => Some(JsonFormat::of_values(columns, wanted)),
            KafkaFormat::Avro(_) | KafkaFormat::Raw => None,
        };
        Ok(Decoder { partition, schema, origins, json, avro, events, data: Vec::new(), bounds: Vec::new(), ops: Vec::new() })
    }

    /// Makes records of messages; those that are none are told apart.
    pub(super) fn decode(&mut self, messages: &[Message<'_>]) -> Result<(RecordBatch, Vec<Rejected>)> {
        let mut rejected: Vec<(usize, String)> = Vec::new();
        let mut kept: Vec<usize> = (0..messages.len()).collect();
        let mut columns: Vec<ArrayRef> = Vec::new();
        let mut kept_ops: Vec<Op> = Vec::new();
        if let Some(avro) = &mut self.avro {
            let values: Vec<(usize, Option<&[u8]>)> = messages.iter().map(|message| message.value()).enumerate().collect();
            let read = avro.read(&values)?;
            (columns, kept, rejected) = (read.columns, read.kept, read.rejected);
        }
        if let Some(json) = &mut self.json {
            self.data.clear();
            self.bounds.clear();
            self.ops.clear();
            let mut with_value = Vec::with_capacity(messages.len());
            for (index, message) in messages.iter().enumerate() {
                let start = self.data.len();
                match (&mut self.events, message.value()) {
                    (Some(events), value) => match events.read(message.key(), value, &mut self.data) {
                        Ok(op) => self.ops.push(op),
                        Err(wrong) => {
                            self.data.truncate(start);
                            rejected.push((index, wrong));
                            continue;
                        }
                    },
                    (None, Some(value)) => self.data.extend_from_slice(value),
                    (None, None) => {
                        rejected.push((index, "the message has no value, as where a compacted topic deletes a key".to_owned()));
                        continue;
                    }
                }
                self.bounds.push((start, self.data.len()));
                // So that bytes of two values are never taken for one character.
                self.data.push(b'\n');
                with_value.push(index);
            }
            let read = json.read_values(&self.data, &self.bounds)?;
            let mut is_good = vec![true; self.bounds.len()];
            for (at, message) in read.rejected {
                is_good[at] = false;
                rejected.push((with_value[at], message));
            }
            let mask: Vec<bool> = read.rows.iter().map(|&at| is_good[at]).collect();
            columns = read.columns;
            if mask.contains(&false) {
                let mask = BooleanArray::from(mask.clone());
                let filtered = columns.iter().map(|column| filter(column, &mask)).collect::<std::result::Result<_, _>>();
                columns = filtered.map_err(|e| Error::internal("the mask has a row for each record").because(e))?;
            }
            if self.events.is_some() {
                kept_ops = read.rows.iter().zip(&mask).filter(|(_, is_good)| **is_good).map(|(&at, _)| self.ops[at]).collect();
            }
            kept = read.rows.iter().zip(&mask).filter(|(_, is_good)| **is_good).map(|(&at, _)| with_value[at]).collect();
            rejected.sort_by_key(|(index, _)| *index);
        }
        let of = |index: usize| messages[index];
        let arrays = self.origins.iter().map(|origin| match origin {
            Origin::Value(place) => Arc::clone(&columns[*place]),
            Origin::Op => Arc::new(StringArray::from(std::mem::take(&mut kept_ops))),
            Origin::RawValue => binary(&kept, |index| of(index).value()),
            Origin::RawKey | Origin::Of(Metadata::Key) => binary(&kept, |index| of(index).key()),
            Origin::Of(Metadata::Topic) => Arc::new(StringArray::from(vec![self.partition.topic.as_str(); kept.len()])),
            Origin::Of(Metadata::Partition) => Arc::new(Int32Array::from(vec![self.partition.number; kept.len()])),
            Origin::Of(Metadata::Offset) => Arc::new(kept.iter().map(|&index| of(index).offset()).collect::<Int64Array>()),
            Origin::Of(Metadata::Timestamp) => {
                let times: TimestampMillisecondArray = kept.iter().map(|&index| of(index).timestamp()).collect();
                Arc::new(times.with_timezone("UTC"))
            }
            Origin::Of(Metadata::Headers) => headers(kept.iter().map(|&index| of(index))),
        });
        let options = RecordBatchOptions::new().with_row_count(Some(kept.len()));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays.collect(), &options)
            .map_err(|e| Error::internal("messages fit their columns").because(e))?;
        let rejected = rejected.into_iter().map(|(index, message)| self.reject(of(index), &message)).collect();
        Ok((batch, rejected))
    }

    fn reject(&self, message: Message<'_>, error: &str) -> Rejected {
        let text = |bytes: Option<&[u8]>| match bytes.map(|bytes| (std::str::from_utf8(bytes), bytes)) {
            None => serde_json::Value::Null,
            Some((Ok(text), _)) => text.into(),
            Some((Err(_), bytes)) => STANDARD.encode(bytes).into(),
        };
        let record = serde_json::json!({
            "topic": self.partition.topic,
            "partition": self.partition.number,
            "offset": message.offset(),
            "key": text(message.key()),
            "value": text(message.value()),
        });
        Rejected::new(format!("{} offset {}: {error}", self.partition, message.offset()), record.to_string())
    }
}

fn binary<'m>(kept: &[usize], of: impl Fn(usize) -> Option<&'m [u8]>) -> ArrayRef {
    let bytes = kept.iter().map(|&index| of(index).map_or(0, <[u8]>::len)).sum();
    let mut builder = BinaryBuilder::with_capacity(kept.len(), bytes);
    for &index in kept {
        builder.append_option(of(index));
    }
    Arc::new(builder.finish())
}

fn headers<'m>(messages: impl Iterator<Item = Message<'m>>) -> ArrayRef {
    let entry = StructBuilder::new(header_fields(), vec![Box::new(StringBuilder::new()), Box::new(BinaryBuilder::new())]);
    let mut list = ListBuilder::new(entry);
    for message in messages {
        message.headers(|name, value| {
            let entry = list.values();
            if let Some(names) = entry.field_builder::<StringBuilder>(0) {
                names.append_value(name);
            }
            if let Some(values) = entry.field_builder::<BinaryBuilder>(1) {
                values.append_option(value);
            }
            entry.append(true);
        });
        list.append(true);
    }
    Arc::new(list.finish())
}
