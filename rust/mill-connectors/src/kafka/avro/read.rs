//! Makes columns of values in Avro.
//!
//! A decoder that has met a malformed value has parts of it in its columns. So if something is wrong with a batch, its values are
//! read anew one by one, each bad one with a decoder that is thrown away.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::{cast, concat};
use arrow::datatypes::{DataType, Decimal128Type, Decimal256Type, SchemaRef, Time32MillisecondType, Time64MicrosecondType};
use arrow_avro::reader::Decoder;
use mill_protocol::{Error, Result};

use super::{Avro, HEAD_BYTES, MAGIC, decoder, prepared};

/// So many values are read at once.
pub(super) const ROWS_MAX: usize = 16_384;

/// The values of messages as columns.
pub(in crate::kafka) struct Read {
    /// The columns of those that are records.
    pub(in crate::kafka) columns: Vec<ArrayRef>,
    /// Which values these are.
    pub(in crate::kafka) kept: Vec<usize>,
    /// Which values are none, and why.
    pub(in crate::kafka) rejected: Vec<(usize, String)>,
}

/// Reads values.
pub(in crate::kafka) struct AvroDecoder {
    avro: Arc<Avro>,
    /// The columns that are wanted, among all.
    places: Vec<usize>,
    /// What reads values of a schema.
    decoders: HashMap<u32, Decoder>,
    /// A value as the decoder wants it.
    framed: Vec<u8>,
}

impl AvroDecoder {
    /// Reads these columns.
    pub(in crate::kafka) fn new(avro: Arc<Avro>, wanted: &SchemaRef) -> Result<AvroDecoder> {
        let places = wanted.fields().iter().map(|field| avro.columns.index_of(field.name()));
        let places = places.collect::<std::result::Result<_, _>>().map_err(|e| Error::internal(e.to_string()))?;
        Ok(AvroDecoder { avro, places, decoders: HashMap::new(), framed: Vec::new() })
    }

    /// Reads values; each comes with its number.
    pub(in crate::kafka) fn read(&mut self, values: &[(usize, Option<&[u8]>)]) -> Result<Read> {
        let (mut parts, mut kept, mut rejected) = (Vec::new(), Vec::new(), Vec::new());
        let mut run: Vec<(usize, &[u8])> = Vec::new();
        let mut run_id = 0;
        for &(index, value) in values {
            match self.record(value) {
                Err(wrong) => rejected.push((index, wrong)),
                Ok((id, record)) => {
                    if id != run_id || run.len() == ROWS_MAX {
                        self.read_run(run_id, &run, &mut parts, &mut kept, &mut rejected)?;
                        run.clear();
                    }
                    run_id = id;
                    run.push((index, record));
                }
            }
        }
        self.read_run(run_id, &run, &mut parts, &mut kept, &mut rejected)?;
        rejected.sort_by_key(|(index, _)| *index);
        Ok(Read { columns: self.columns(&parts)?, kept, rejected })
    }

    /// The number of a value's schema, and the bytes of its record.
    fn record<'v>(&self, value: Option<&'v [u8]>) -> std::result::Result<(u32, &'v [u8]), String> {
        let value = value.ok_or("the message has no value, as where a compacted topic deletes a key")?;
        if self.avro.registry.is_none() {
            return Ok((0, value));
        }
        match value.split_first_chunk::<HEAD_BYTES>() {
            Some(([MAGIC, id @ ..], record)) => Ok((u32::from_be_bytes(*id), record)),
            _ => Err("the value does not begin with a 0 and the number of its schema, as one does that is written with a registry".to_owned()),
        }
    }

    /// Reads values of one schema.
    fn read_run(
        &mut self,
        id: u32,
        run: &[(usize, &[u8])],
        parts: &mut Vec<RecordBatch>,
        kept: &mut Vec<usize>,
        rejected: &mut Vec<(usize, String)>,
    ) -> Result<()> {
        if run.is_empty() {
            return Ok(());
        }
        let made = match self.decoders.remove(&id) {
            Some(decoder) => Ok(decoder),
            None => self.make(id)?,
        };
        let mut decoder = match made {
            Ok(decoder) => decoder,
            Err(wrong) => {
                rejected.extend(run.iter().map(|(index, _)| (*index, wrong.clone())));
                return Ok(());
            }
        };
        if let Ok(batch) = decode(&mut decoder, run, &mut self.framed) {
            parts.push(batch);
            kept.extend(run.iter().map(|(index, _)| *index));
            self.decoders.insert(id, decoder);
            return Ok(());
        }
        let again = |made: &mut AvroDecoder| made.make(id)?.map_err(|wrong| Error::internal(format!("a schema was read before: {wrong}")));
        decoder = again(self)?;
        for value in run {
            match decode(&mut decoder, std::slice::from_ref(value), &mut self.framed) {
                Ok(batch) => {
                    parts.push(batch);
                    kept.push(value.0);
                }
                Err(wrong) => {
                    rejected.push((value.0, wrong));
                    decoder = again(self)?;
                }
            }
        }
        self.decoders.insert(id, decoder);
        Ok(())
    }

    /// What reads values of a schema, or why nothing does.
    fn make(&self, id: u32) -> Result<std::result::Result<Decoder, String>> {
        let writer = match self.avro.writer(id)? {
            Ok(writer) => writer,
            Err(reason) => return Ok(Err(format!("the value was written with schema {id}, {reason}"))),
        };
        let made = prepared(&writer).and_then(|writer| decoder(&writer, &self.avro.schema));
        Ok(made.map_err(|wrong| format!("the value was written with schema {id}, of which no record of the schema here can be made: {wrong}")))
    }

    /// The wanted columns of all parts.
    fn columns(&self, parts: &[RecordBatch]) -> Result<Vec<ArrayRef>> {
        let all = self.places.iter().map(|&place| {
            let to = self.avro.columns.field(place).data_type();
            let arrays = parts.iter().map(|part| cast(part.column(place), to));
            let arrays = arrays.collect::<std::result::Result<Vec<ArrayRef>, _>>()?;
            match arrays.as_slice() {
                [] => Ok(arrow::array::new_empty_array(to)),
                [one] => Ok(Arc::clone(one)),
                several => concat(&several.iter().map(|array| array.as_ref()).collect::<Vec<&dyn Array>>()),
            }
        });
        all.collect::<std::result::Result<_, _>>().map_err(|e| Error::internal("values of one schema are of one type").because(e))
    }
}

/// Finds numbers that their type does not have: Avro allows any.
fn in_range(array: &ArrayRef) -> std::result::Result<(), String> {
    match array.data_type() {
        DataType::Time32(_) => of_a_day(array.as_primitive::<Time32MillisecondType>().iter().map(|time| time.map(i64::from)), 86_400_000),
        DataType::Time64(_) => of_a_day(array.as_primitive::<Time64MicrosecondType>().iter(), 86_400_000_000),
        DataType::Decimal128(precision, _) => array.as_primitive::<Decimal128Type>().validate_decimal_precision(*precision).map_err(|e| super::told(&e)),
        DataType::Decimal256(precision, _) => array.as_primitive::<Decimal256Type>().validate_decimal_precision(*precision).map_err(|e| super::told(&e)),
        DataType::List(_) => in_range(array.as_list::<i32>().values()),
        DataType::Map(..) => in_range(array.as_map().values()),
        DataType::Struct(_) => array.as_struct().columns().iter().try_for_each(in_range),
        _ => Ok(()),
    }
}

fn of_a_day(times: impl Iterator<Item = Option<i64>>, units: i64) -> std::result::Result<(), String> {
    match times.flatten().find(|time| !(0..units).contains(time)) {
        None => Ok(()),
        Some(time) => Err(format!("{time} is no time of a day")),
    }
}

/// Reads all of these values, or none.
fn decode(decoder: &mut Decoder, values: &[(usize, &[u8])], framed: &mut Vec<u8>) -> std::result::Result<RecordBatch, String> {
    const BROKEN: &str = "the value is no record of its schema: ";
    for (_, record) in values {
        framed.clear();
        // The decoder knows its one schema under the number 0.
        framed.extend_from_slice(&[0; HEAD_BYTES]);
        framed.extend_from_slice(record);
        let used = decoder.decode(framed).map_err(|e| format!("{BROKEN}{}", super::told(&e)))?;
        if used < framed.len() {
            return Err(format!("{BROKEN}it ends too early"));
        }
    }
    let batch = decoder.flush().map_err(|e| format!("{BROKEN}{}", super::told(&e)))?;
    match batch {
        Some(batch) if batch.num_rows() == values.len() => {
            batch.columns().iter().try_for_each(|column| in_range(column)).map_err(|wrong| format!("{BROKEN}{wrong}"))?;
            Ok(batch)
        }
        _ => Err(format!("{BROKEN}there are bytes after the record")),
    }
}
