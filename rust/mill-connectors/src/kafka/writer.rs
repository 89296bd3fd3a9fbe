//! Makes messages of records, and sends them or keeps them for their epoch.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;
use std::time::Duration;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int32Type, SchemaRef, TimeUnit, TimestampMillisecondType};
use mill_frame::json::names;
use mill_frame::convert::show;
use mill_frame::text::record_json;
use mill_frame::types::type_name;
use mill_protocol::{Batch, Epoch, Error, PreCommit, Rejected, Result, SinkWriter};

use super::avro::AvroEncoder;
use super::limits::Limits;
use super::producer::{Part, Producer, Refused};
use super::sink::{MessageColumns, Shared};
use super::spool::{self, HELD_BYTES_MAX, Handle, Held, INLINE_BYTES_MAX, Outgoing, Place, Spool};
use crate::directory::json::rows as json_rows;

/// How long a barrier waits for messages to be delivered.
const FLUSH_WAIT: Duration = Duration::from_secs(300);
/// Messages are handed to the client when so many bytes of them are made: few enough to be in the cache still.
const PIECE_BYTES: usize = 64 << 10;
/// A buffer larger than this is not kept.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// Whether headers can be made of a column of this type.
pub(super) fn is_headers(found: &DataType) -> bool {
    let is_value = |value: &DataType| is_text(value) || is_bytes(value) || *value == DataType::Null;
    match found {
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) => is_text(fields[0].data_type()) && is_value(fields[1].data_type()),
            _ => false,
        },
        DataType::List(item) => match item.data_type() {
            DataType::Struct(fields) => {
                let names: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
                names == ["key", "value"] && is_text(fields[0].data_type()) && is_value(fields[1].data_type())
            }
            _ => false,
        },
        DataType::Struct(fields) => fields.iter().all(|field| is_value(field.data_type())),
        _ => false,
    }
}

fn is_text(found: &DataType) -> bool {
    matches!(found, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

fn is_bytes(found: &DataType) -> bool {
    matches!(found, DataType::Binary | DataType::LargeBinary | DataType::BinaryView)
}

/// Knows what of a record becomes what of its message.
pub(super) struct Encoder {
    columns: MessageColumns,
    /// The columns of the value, and their names as JSON has them; `None`: the value is one column as it is.
    value: Option<(Vec<usize>, Vec<String>)>,
    raw_value: usize,
    avro: Option<AvroEncoder>,
    key: Key,
    partition: Option<usize>,
    timestamp: Option<usize>,
    headers: Option<usize>,
    row: String,
    key_row: String,
}

enum Key {
    None,
    /// One column as it is.
    Bytes(usize),
    /// Text of other values: one alone, several as an object.
    Json(Vec<usize>, Vec<String>),
}

impl Encoder {
    /// For a stream of these columns.
    ///
    /// # Errors
    /// When the value is to be one column as it is, and there are others that nothing is made of.
    pub(super) fn new(columns: &MessageColumns, schema: &SchemaRef) -> Result<Encoder> {
        let place = |name: &String| schema.index_of(name).map_err(|_| Error::schema(format!("there is no column {name:?}")));
        let optional = |name: &Option<String>| name.as_ref().map(place).transpose();
        let (partition, timestamp) = (optional(&columns.partition)?, optional(&columns.timestamp)?);
        let headers = optional(&columns.headers)?;
        let mut key = columns.key.clone();
        if columns.is_raw && key.is_none() && schema.index_of("key").is_ok() {
            key = Some(vec!["key".to_owned()]);
        }
        let key = match key.as_deref() {
            None => Key::None,
            Some([one]) if is_text(schema.field(place(one)?).data_type()) || is_bytes(schema.field(place(one)?).data_type()) => {
                Key::Bytes(place(one)?)
            }
            Some(several) => {
                let places = several.iter().map(place).collect::<Result<_>>()?;
                Key::Json(places, names(several.iter().map(String::as_str)))
            }
        };
        let mut raw_value = 0;
        let value = if columns.is_raw {
            raw_value = schema.index_of("value").map_err(|_| {
                Error::schema("write_kafka(format=\"raw\"): the stream needs a column \"value\" of text or bytes; select it so")
            })?;
            let found = schema.field(raw_value).data_type();
            if !is_text(found) && !is_bytes(found) {
                return Err(Error::schema(format!(
                    "write_kafka(format=\"raw\"): column \"value\" is {}; it has to be text or bytes",
                    mill_frame::words::with_article(type_name(found))
                )));
            }
            let mut used = vec![raw_value];
            used.extend([partition, timestamp, headers].into_iter().flatten());
            match &key {
                Key::None => {}
                Key::Bytes(place) => used.push(*place),
                Key::Json(places, _) => used.extend(places),
            }
            let unused = (0..schema.fields().len()).filter(|place| !used.contains(place));
            let unused: Vec<String> = unused.map(|place| schema.field(place).name().clone()).collect();
            if !unused.is_empty() {
                return Err(Error::schema(format!(
                    "write_kafka(format=\"raw\"): nothing of a message is made of {}: drop() it, or use format=\"json\"",
                    crate::nearest::quoted(&unused, ", ")
                )));
            }
            None
        } else {
            let is_part = |place: &usize| !columns.left_out.contains(schema.field(*place).name());
            let places: Vec<usize> = (0..schema.fields().len()).filter(is_part).collect();
            let names = names(places.iter().map(|place| schema.field(*place).name().as_str()));
            Some((places, names))
        };
        let avro = match (&columns.avro, &value) {
            (Some(writing), Some((places, _))) => Some(AvroEncoder::new(writing, schema, places)?),
            _ => None,
        };
        let (row, key_row) = (String::new(), String::new());
        Ok(Encoder { columns: columns.clone(), value, raw_value, avro, key, partition, timestamp, headers, row, key_row })
    }

    /// Makes known to others what values are written with.
    ///
    /// # Errors
    /// When a registry does not answer, or refuses.
    pub(super) fn register(&mut self) -> Result<()> {
        self.avro.as_mut().map_or(Ok(()), AvroEncoder::register)
    }

    /// Calls with the message of each record that the topic takes, and rejects the others.
    fn for_each_fitting(
        &mut self,
        batch: &Batch,
        limits: &Limits,
        rejected: &mut Vec<Rejected>,
        mut each: impl FnMut(&Outgoing<'_>) -> Result<()>,
    ) -> Result<()> {
        let columns = self.columns.clone();
        let mut has_looked = false;
        self.for_each(batch, |row, message| {
            let wrong = match message {
                Ok(message) => match limits.refuses(message, &columns, &mut has_looked)? {
                    None => return each(message),
                    Some(wrong) => wrong,
                },
                Err(wrong) => wrong,
            };
            rejected.push(Rejected::new(wrong, record_json(batch.data(), row)));
            Ok(())
        })
    }

    /// Calls with the message of each record, or with what is wrong with it; that of a withdrawal has no value.
    pub(super) fn for_each(
        &mut self,
        batch: &Batch,
        mut each: impl FnMut(usize, std::result::Result<&Outgoing<'_>, String>) -> Result<()>,
    ) -> Result<()> {
        let columns = batch.data().columns();
        let failed = |e: arrow::error::ArrowError| Error::data(format!("write_kafka: {e}")).because(e);
        let cast_to = |place: Option<usize>, to: &DataType| place.map(|place| cast(&columns[place], to)).transpose().map_err(failed);
        let partition = cast_to(self.partition, &DataType::Int32)?;
        let timestamp = cast_to(self.timestamp, &DataType::Timestamp(TimeUnit::Millisecond, None))?;
        let headers = self.headers.map(|place| Headers::new(&columns[place])).transpose()?;
        let chosen = |places: &[usize]| places.iter().map(|place| Arc::clone(&columns[*place])).collect::<Vec<ArrayRef>>();
        let avro = self.avro.as_mut().map(|avro| avro.encode(batch.data(), batch.deletes())).transpose()?;
        let rows = match &self.value {
            Some(_) if avro.is_some() => None,
            Some((places, names)) => Some(json_rows(names, &chosen(places))?),
            None => None,
        };
        let raw = match &rows {
            None if avro.is_none() => Some(cast(&columns[self.raw_value], &DataType::Binary).map_err(failed)?),
            _ => None,
        };
        let (mut key_bytes, mut key_rows, mut key_columns) = (None, None, Vec::new());
        match &self.key {
            Key::None => {}
            Key::Bytes(place) => key_bytes = Some(cast(&columns[*place], &DataType::Binary).map_err(failed)?),
            Key::Json(places, names) => {
                key_columns = chosen(places);
                key_rows = Some((json_rows(names, &key_columns)?, names));
            }
        }
        for row in 0..batch.rows() {
            let is_delete = batch.deletes().is_some_and(|deletes| deletes.value(row));
            self.row.clear();
            let record = avro.as_ref().map(|avro| &avro[row]);
            let value = match (&rows, &raw) {
                _ if is_delete => None,
                _ if record.is_some() => record.and_then(|record| record.as_deref().ok()),
                (Some(rows), _) => {
                    rows.push(row, &mut self.row);
                    Some(self.row.as_bytes())
                }
                (None, Some(raw)) => bytes_at(raw, row),
                (None, None) => None,
            };
            let key = match (&key_bytes, &key_rows) {
                (Some(bytes), _) => bytes_at(bytes, row),
                (None, Some((rows, names))) => {
                    self.key_row.clear();
                    match names.as_slice() {
                        [_] if key_columns[0].is_null(row) => None,
                        [name] => {
                            rows.push(row, &mut self.key_row);
                            // One value stands alone: the braces and the name around it go.
                            Some(self.key_row[1 + name.len()..self.key_row.len() - 1].as_bytes())
                        }
                        _ => {
                            rows.push(row, &mut self.key_row);
                            Some(self.key_row.as_bytes())
                        }
                    }
                }
                (None, None) => None,
            };
            let partition = partition.as_ref().map(|array| array.as_primitive::<Int32Type>());
            let partition = partition.filter(|array| array.is_valid(row)).map(|array| array.value(row));
            let time = timestamp.as_ref().map(|array| array.as_primitive::<TimestampMillisecondType>());
            let time = time.filter(|array| array.is_valid(row)).map(|array| array.value(row));
            // A cast leaves null of what it cannot represent.
            let original = |place: Option<usize>| place.map(|place| &columns[place]).filter(|column| column.is_valid(row));
            let partition_of = original(self.partition).filter(|_| partition.is_none_or(|partition| partition < 0));
            let time_of = original(self.timestamp).filter(|_| time.is_none_or(|time| time <= 0));
            let is_nameless = headers.as_ref().is_some_and(|headers| headers.has_nameless(row));
            let headers = headers.as_ref().map(|headers| headers.at(row)).unwrap_or_default();
            let message = Outgoing { partition, timestamp: time, key, value, headers };
            let wrong = if let Some(Err(wrong)) = record.filter(|_| !is_delete) {
                Some(wrong.clone())
            } else if let Some(column) = partition_of {
                let what = self.columns.named("the partition", self.columns.partition.as_deref());
                Some(format!("{what} is {}, which is no partition; they are numbered from 0", show(column, row)))
            } else if let Some(column) = time_of {
                let what = self.columns.named("the timestamp", self.columns.timestamp.as_deref());
                Some(format!("{what} is {}, and a message has a time after 1970", show(column, row)))
            } else {
                let nameless = || is_nameless.then(|| "a header has no name: its key is null".to_owned());
                message.wrong_headers().or_else(nameless).map(|wrong| {
                    let what = self.columns.named("the headers", self.columns.headers.as_deref());
                    format!("{what}: {wrong}")
                })
            };
            match wrong {
                Some(wrong) => each(row, Err(wrong))?,
                None => each(row, Ok(&message))?,
            }
        }
        Ok(())
    }
}

fn bytes_at(array: &ArrayRef, row: usize) -> Option<&[u8]> {
    array.is_valid(row).then(|| array.as_binary::<i32>().value(row))
}

/// A column of headers.
struct Headers {
    column: ArrayRef,
    /// Of a struct, one of each field; else one.
    names: Vec<String>,
    keys: Option<ArrayRef>,
    values: Vec<ArrayRef>,
}

impl Headers {
    fn new(column: &ArrayRef) -> Result<Headers> {
        let failed = |e: arrow::error::ArrowError| Error::data(format!("write_kafka: {e}")).because(e);
        let bytes = |array: &ArrayRef| cast(array, &DataType::Binary).map_err(failed);
        let (names, keys, values) = match column.data_type() {
            DataType::Map(..) => {
                let map = column.as_map();
                (Vec::new(), Some(cast(map.keys(), &DataType::Utf8).map_err(failed)?), vec![bytes(map.values())?])
            }
            DataType::List(_) => {
                let entries = column.as_list::<i32>().values().as_struct();
                (Vec::new(), Some(cast(entries.column(0), &DataType::Utf8).map_err(failed)?), vec![bytes(entries.column(1))?])
            }
            DataType::Struct(fields) => {
                let names = fields.iter().map(|field| field.name().clone()).collect();
                (names, None, column.as_struct().columns().iter().map(bytes).collect::<Result<_>>()?)
            }
            other => return Err(Error::internal(format!("headers are made of {}", mill_frame::words::with_article(type_name(other))))),
        };
        Ok(Headers { column: Arc::clone(column), names, keys, values })
    }

    /// Where the entries of a row are, in a map or a list.
    fn entries(&self, row: usize) -> std::ops::Range<usize> {
        let offsets = match self.column.data_type() {
            DataType::Map(..) => self.column.as_map().value_offsets(),
            _ => self.column.as_list::<i32>().value_offsets(),
        };
        offsets[row] as usize..offsets[row + 1] as usize
    }

    /// Whether a header of a row has no name.
    fn has_nameless(&self, row: usize) -> bool {
        let Some(keys) = self.keys.as_ref().filter(|keys| keys.null_count() > 0) else { return false };
        self.column.is_valid(row) && self.entries(row).any(|entry| keys.is_null(entry))
    }

    fn at(&self, row: usize) -> Vec<(&str, Option<&[u8]>)> {
        if self.column.is_null(row) {
            return Vec::new();
        }
        let Some(keys) = &self.keys else {
            return self.names.iter().zip(&self.values).map(|(name, values)| (name.as_str(), bytes_at(values, row))).collect();
        };
        let keys = keys.as_string::<i32>();
        self.entries(row).filter(|entry| keys.is_valid(*entry)).map(|entry| (keys.value(entry), bytes_at(&self.values[0], entry))).collect()
    }
}

/// Sends records as they come.
pub(super) struct DirectWriter {
    shared: Arc<Shared>,
    encoder: Encoder,
    limits: Arc<Limits>,
    producer: Arc<Producer>,
    waker: Waker,
    waiting: Arc<Mutex<Waiting>>,
    /// The messages since the last barrier.
    part: Part,
    has_sent: bool,
    rejected: Vec<Rejected>,
}

/// Messages that were made and not handed over, in their order: what the client has no room for stays, and what comes after it waits,
/// too. A barrier may end the part of the first of them while others are of the next.
#[derive(Default)]
struct Waiting {
    messages: Vec<u8>,
    /// How many bytes of them are done with.
    done: usize,
    /// Where the messages of a part end.
    parts: VecDeque<(Part, usize)>,
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.done == self.messages.len()
    }

    fn push(&mut self, message: &Outgoing<'_>, part: &Part) -> Result<()> {
        message.encode(&mut self.messages)?;
        let end = self.messages.len();
        match self.parts.back_mut() {
            Some((last, at)) if last.is(part) => *at = end,
            _ => self.parts.push_back((part.clone(), end)),
        }
        Ok(())
    }

    /// Whether messages of this part wait.
    fn has(&self, part: &Part) -> bool {
        self.parts.iter().any(|(waiting, _)| waiting.is(part))
    }

    /// Hands over what there is room for.
    fn send(&mut self, producer: &Producer) -> Result<()> {
        while let Some((part, end)) = self.parts.front() {
            let taken = producer.try_send(&self.messages[self.done..*end], part).map_err(|refused| match refused {
                Refused::Damaged => Error::internal("a message that waits is whole"),
                Refused::Failed(error) => producer.error("send", error),
            })?;
            self.done += taken;
            if self.done < *end {
                return Ok(());
            }
            self.parts.pop_front();
        }
        if self.messages.capacity() > KEPT_BYTES_MAX {
            self.messages = Vec::new();
        }
        self.messages.clear();
        self.done = 0;
        Ok(())
    }
}

impl DirectWriter {
    pub(super) fn new(
        shared: Arc<Shared>,
        encoder: Encoder,
        limits: Arc<Limits>,
        producer: Arc<Producer>,
        waker: Waker,
    ) -> DirectWriter {
        let (waiting, part) = (Arc::default(), producer.part());
        DirectWriter { shared, encoder, limits, producer, waker, waiting, part, has_sent: false, rejected: Vec::new() }
    }
}

impl SinkWriter for DirectWriter {
    fn write(&mut self, batch: Batch) -> Result<()> {
        self.shared.reach("kafka.send")?;
        self.has_sent |= batch.rows() > 0;
        let (producer, part) = (&self.producer, &self.part);
        producer.check().map_err(|e| producer.error("deliver what was sent", e))?;
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.send(producer)?;
        let mut has_room = waiting.is_empty();
        self.encoder.for_each_fitting(&batch, &self.limits, &mut self.rejected, |message| {
            waiting.push(message, part)?;
            if has_room && waiting.messages.len() >= PIECE_BYTES {
                waiting.send(producer)?;
                has_room = waiting.is_empty();
            }
            Ok(())
        })?;
        if has_room { waiting.send(producer) } else { Ok(()) }
    }

    fn take_rejected(&mut self) -> Vec<Rejected> {
        std::mem::take(&mut self.rejected)
    }

    fn pre_commit(&mut self, _epoch: Epoch) -> Result<Option<PreCommit>> {
        if !std::mem::take(&mut self.has_sent) {
            return Ok(None);
        }
        let part = std::mem::replace(&mut self.part, self.producer.part());
        let (producer, waiting) = (Arc::clone(&self.producer), Arc::clone(&self.waiting));
        Ok(Some(Box::new(move || {
            let failed = |error| producer.error("deliver what was sent", error);
            let mut patience = producer.patience(FLUSH_WAIT);
            loop {
                {
                    let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
                    waiting.send(&producer)?;
                    if !waiting.has(&part) {
                        break;
                    }
                }
                patience.pause(producer.under_way()).map_err(failed)?;
            }
            producer.flush(&part, FLUSH_WAIT).map_err(failed)?;
            Ok(Vec::new())
        })))
    }

    fn is_ready(&self) -> bool {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        // What goes wrong here is reported by the next write.
        if waiting.send(&self.producer).is_err() {
            return true;
        }
        if !waiting.is_empty() {
            self.producer.wake(&self.waker);
            return false;
        }
        self.producer.is_ready(&self.waker)
    }
}

/// Keeps the messages of an epoch until it is committed.
pub(super) struct SpoolWriter {
    shared: Arc<Shared>,
    encoder: Encoder,
    limits: Arc<Limits>,
    place: Place,
    task: usize,
    held: Vec<u8>,
    spool: Option<Spool>,
    rejected: Vec<Rejected>,
}

impl SpoolWriter {
    pub(super) fn new(shared: Arc<Shared>, encoder: Encoder, limits: Arc<Limits>, place: Place, task: usize) -> SpoolWriter {
        SpoolWriter { shared, encoder, limits, place, task, held: Vec::new(), spool: None, rejected: Vec::new() }
    }

    /// Moves what is held into the file, which is made if there is none.
    fn spill(&mut self) -> Result<()> {
        let spool = match &mut self.spool {
            Some(spool) => spool,
            none => {
                let part = spool::part(self.shared.run(), self.task, self.shared.part_number());
                none.insert(self.place.create(&part)?)
            }
        };
        spool.push(&self.held)?;
        self.held.clear();
        Ok(())
    }
}

impl SinkWriter for SpoolWriter {
    fn write(&mut self, batch: Batch) -> Result<()> {
        let (held, rejected) = (&mut self.held, &mut self.rejected);
        self.encoder.for_each_fitting(&batch, &self.limits, rejected, |message| message.encode(held))?;
        if self.held.len() > HELD_BYTES_MAX {
            self.spill()?;
        }
        Ok(())
    }

    fn take_rejected(&mut self) -> Vec<Rejected> {
        std::mem::take(&mut self.rejected)
    }

    fn pre_commit(&mut self, _epoch: Epoch) -> Result<Option<PreCommit>> {
        if self.held.is_empty() && self.spool.is_none() {
            return Ok(None);
        }
        let run = self.shared.run();
        if self.spool.is_none() && self.held.len() <= INLINE_BYTES_MAX {
            let held = Held::Inline(std::mem::take(&mut self.held));
            return Ok(Some(Box::new(move || Handle { run, held }.encode())));
        }
        self.spill()?;
        let Some(spool) = self.spool.take() else { return Ok(None) };
        Ok(Some(Box::new(move || Handle { run, held: Held::Spooled(spool.finish()?) }.encode())))
    }
}
