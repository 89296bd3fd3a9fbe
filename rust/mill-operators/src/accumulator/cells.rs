//! Values of any type in cells, and lists of them.

use std::sync::Arc;

use arrow::array::{ArrayRef, ListArray, RecordBatch};
use arrow::buffer::{BooleanBuffer, NullBuffer, OffsetBuffer};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow_row::{RowConverter, SortField};
use mill_protocol::{Error, Result};
use mill_state::{LayoutBuilder, Rows, RowsRead, Select};

use super::fixed::{FIXED_BYTES, Fixed, FixedReader, FixedValues};
use super::input::{Input, passes};
use super::{Accumulator, Problems, Selection};

fn damaged(what: &str) -> Error {
    Error::checkpoint(format!("state that came from a checkpoint is damaged: {what}"))
}

/// Values of any type as bytes whose order is theirs, and back.
pub(super) struct Codec {
    converter: RowConverter,
    data_type: DataType,
}

impl Codec {
    pub(super) fn new(data_type: &DataType) -> Result<Codec> {
        let converter = RowConverter::new(vec![SortField::new(data_type.clone())])
            .map_err(|error| Error::schema(format!("values of type {data_type} cannot be kept as state: {error}")))?;
        Ok(Codec { converter, data_type: data_type.clone() })
    }

    pub(super) fn encode(&self, values: &ArrayRef) -> Result<arrow_row::Rows> {
        self.converter.convert_columns(std::slice::from_ref(values)).map_err(|error| Error::schema(error.to_string()))
    }

    /// The bytes of null.
    pub(super) fn null(&self) -> Result<Vec<u8>> {
        let null = arrow::array::new_null_array(&self.data_type, 1);
        Ok(self.encode(&null)?.row(0).as_ref().to_vec())
    }

    pub(super) fn decode<'a>(&self, encoded: impl Iterator<Item = &'a [u8]>) -> Result<ArrayRef> {
        let parser = self.converter.parser();
        let columns = self
            .converter
            .convert_rows(encoded.map(|bytes| parser.parse(bytes)))
            .map_err(|error| damaged(&error.to_string()))?;
        cast(&columns[0], &self.data_type).map_err(|error| damaged(&error.to_string()))
    }
}

/// The values of a frame that go into lists.
enum Values {
    Fixed(FixedValues),
    Encoded(arrow_row::Rows),
}

/// All values as a list: the cell holds each as a length of 4 bytes and its bytes. If times count, the time of each comes first,
/// in 8 bytes.
pub(super) struct Collect {
    input: Input,
    output: DataType,
    codec: Codec,
    /// If values have 8 bytes.
    fixed: Option<Fixed>,
    cell: usize,
    values: Option<Values>,
    times: Option<Vec<i64>>,
    filter: Option<BooleanBuffer>,
}

impl Collect {
    pub(super) fn new(input: Input, output: &DataType, is_timed: bool, layout: &mut LayoutBuilder) -> Result<Collect> {
        let DataType::List(field) = output else { return Err(Error::internal("collect() returns a list")) };
        let codec = Codec::new(field.data_type())?;
        let times = is_timed.then(Vec::new);
        let fixed = Fixed::of(field.data_type());
        Ok(Collect { input, output: output.clone(), codec, fixed, cell: layout.cell(), values: None, times, filter: None })
    }

    /// The lists of values of 8 bytes, so many of each row. A value takes as many bytes as any other, so all of a list are at hand.
    fn finish_fixed(&self, fixed: Fixed, rows: &RowsRead<'_>) -> Result<(ArrayRef, Vec<usize>)> {
        let mut values = FixedReader::new(fixed);
        let mut lengths = Vec::with_capacity(rows.len());
        for row in 0..rows.len() {
            let bytes = rows.cell(row, self.cell).unwrap_or_default();
            match self.times {
                None => {
                    let items = items::<{ ITEM_BYTES }>(bytes)?;
                    items.iter().try_for_each(|item| read_item(item, &mut values))?;
                    lengths.push(items.len());
                }
                Some(_) => {
                    let items = items::<{ TIME_BYTES + ITEM_BYTES }>(bytes)?;
                    let mut items: Vec<(i64, &[u8])> = items
                        .iter()
                        .map(|item| {
                            let (time, item) = item.split_first_chunk().expect("an item begins with its time");
                            (i64::from_le_bytes(*time), item)
                        })
                        .collect();
                    // Stable: values of one time stay in the order in which they came.
                    items.sort_by_key(|&(time, _)| time);
                    items.iter().try_for_each(|(_, item)| read_item(item, &mut values))?;
                    lengths.push(items.len());
                }
            }
        }
        Ok((values.finish(&self.codec.data_type)?, lengths))
    }

    /// The lists of values of any type.
    fn finish_encoded(&self, rows: &RowsRead<'_>) -> Result<(ArrayRef, Vec<usize>)> {
        let mut values: Vec<&[u8]> = Vec::new();
        let mut lengths = Vec::with_capacity(rows.len());
        let mut of_row: Vec<(i64, &[u8])> = Vec::new();
        for row in 0..rows.len() {
            let mut rest = rows.cell(row, self.cell).unwrap_or_default();
            of_row.clear();
            let mut time = 0;
            while !rest.is_empty() {
                if self.times.is_some() {
                    let (first, behind) = rest.split_first_chunk().ok_or_else(|| damaged("a list ends within a time"))?;
                    (time, rest) = (i64::from_le_bytes(*first), behind);
                }
                let Some((length, behind)) = rest.split_first_chunk::<4>() else {
                    return Err(damaged("a list ends within a length"));
                };
                let length = u32::from_le_bytes(*length) as usize;
                let Some((value, behind)) = behind.split_at_checked(length) else {
                    return Err(damaged("a list ends within a value"));
                };
                of_row.push((time, value));
                rest = behind;
            }
            // Stable: values of one time stay in the order in which they came.
            of_row.sort_by_key(|&(time, _)| time);
            values.extend(of_row.iter().map(|&(_, value)| value));
            lengths.push(of_row.len());
        }
        Ok((self.codec.decode(values.into_iter())?, lengths))
    }
}

/// The bytes of a time, and of a value of 8 bytes with its length before it.
const TIME_BYTES: usize = 8;
const LENGTH: [u8; 4] = (FIXED_BYTES as u32).to_le_bytes();
const ITEM_BYTES: usize = LENGTH.len() + FIXED_BYTES;

/// The items of a list, each of so many bytes.
fn items<const N: usize>(bytes: &[u8]) -> Result<&[[u8; N]]> {
    let (items, rest) = bytes.as_chunks::<N>();
    if rest.is_empty() { Ok(items) } else { Err(damaged("a list ends within a value")) }
}

#[inline(always)]
fn read_item(item: &[u8], values: &mut FixedReader) -> Result<()> {
    match item.split_first_chunk() {
        Some((&LENGTH, value)) if value.len() == FIXED_BYTES => {
            values.read(value.first_chunk().expect("the length was just seen"));
            Ok(())
        }
        _ => Err(damaged("a value in a list has another length than its type")),
    }
}

impl Accumulator for Collect {
    fn asks_for_times(&self) -> bool {
        self.times.is_some()
    }

    fn times(&mut self, times: &[i64]) {
        if let Some(own) = &mut self.times {
            own.clear();
            own.extend_from_slice(times);
        }
    }

    fn prepare(&mut self, batch: &RecordBatch, _hashes: &[u64]) -> Result<()> {
        let values = self.input.column(batch, 0, &self.codec.data_type)?;
        if self.times.as_ref().is_some_and(|times| times.len() != batch.num_rows()) {
            return Err(Error::internal("lists of windows are by event time"));
        }
        self.filter = self.input.filter(batch)?;
        self.values = Some(match self.fixed {
            Some(fixed) => Values::Fixed(FixedValues::new(fixed, &values)),
            None => Values::Encoded(self.codec.encode(&values)?),
        });
        Ok(())
    }

    fn update(&mut self, rows: &mut Rows<'_>, select: Selection<'_>, _problems: &mut Problems) -> Result<()> {
        let passing = (0..select.len()).map(|i| (i, select.at(i))).filter(|&(_, record)| passes(self.filter.as_ref(), record));
        let (cell, times) = (self.cell, self.times.as_deref());
        match self.values.as_ref().expect("prepared") {
            Values::Fixed(values) => {
                for (i, record) in passing {
                    let cell = rows.cell_mut(i, cell);
                    let mut item = [0; ITEM_BYTES];
                    item[..LENGTH.len()].copy_from_slice(&LENGTH);
                    item[LENGTH.len()..].copy_from_slice(&values.write(record));
                    if let Some(times) = times {
                        cell.extend_from_slice(&times[record].to_le_bytes());
                    }
                    cell.extend_from_slice(&item);
                }
            }
            Values::Encoded(encoded) => {
                for (i, record) in passing {
                    let value = encoded.row(record);
                    let cell = rows.cell_mut(i, cell);
                    if let Some(times) = times {
                        cell.extend_from_slice(&times[record].to_le_bytes());
                    }
                    cell.extend_from_slice(&(value.as_ref().len() as u32).to_le_bytes());
                    cell.extend_from_slice(value.as_ref());
                }
            }
        }
        Ok(())
    }

    fn finish(&self, rows: &RowsRead<'_>) -> Result<ArrayRef> {
        let (values, lengths) = match self.fixed {
            Some(fixed) => self.finish_fixed(fixed, rows)?,
            None => self.finish_encoded(rows)?,
        };
        let DataType::List(field) = &self.output else { return Err(Error::internal("collect() returns a list")) };
        let list = ListArray::try_new(Arc::clone(field), OffsetBuffer::from_lengths(lengths), values, None::<NullBuffer>)
            .map_err(|error| Error::data(format!("a list grew too long: {error}")))?;
        Ok(Arc::new(list))
    }
}
