//! Values of any type in cells, and lists of them.

use std::sync::Arc;

use arrow::array::{ArrayRef, ListArray, RecordBatch};
use arrow::buffer::{BooleanBuffer, NullBuffer, OffsetBuffer};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow_row::{RowConverter, SortField};
use mill_protocol::{Error, Result};
use mill_state::{LayoutBuilder, Rows, RowsRead, Select};

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

/// All values as a list: the cell holds each as a length of 4 bytes and its bytes. If times count, the time of each comes first,
/// in 8 bytes.
pub(super) struct Collect {
    input: Input,
    output: DataType,
    codec: Codec,
    cell: usize,
    encoded: Option<arrow_row::Rows>,
    times: Option<Vec<i64>>,
    filter: Option<BooleanBuffer>,
}

impl Collect {
    pub(super) fn new(input: Input, output: &DataType, is_timed: bool, layout: &mut LayoutBuilder) -> Result<Collect> {
        let DataType::List(field) = output else { return Err(Error::internal("collect() gives a list")) };
        let codec = Codec::new(field.data_type())?;
        let times = is_timed.then(Vec::new);
        Ok(Collect { input, output: output.clone(), codec, cell: layout.cell(), encoded: None, times, filter: None })
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
        self.encoded = Some(self.codec.encode(&values)?);
        Ok(())
    }

    fn update(&mut self, rows: &mut Rows<'_>, select: Selection<'_>, _problems: &mut Problems) -> Result<()> {
        let encoded = self.encoded.as_ref().expect("prepared");
        for i in 0..select.len() {
            let record = select.at(i);
            if passes(self.filter.as_ref(), record) {
                let value = encoded.row(record);
                let cell = rows.cell_mut(i, self.cell);
                if let Some(times) = &self.times {
                    cell.extend_from_slice(&times[record].to_le_bytes());
                }
                cell.extend_from_slice(&(value.as_ref().len() as u32).to_le_bytes());
                cell.extend_from_slice(value.as_ref());
            }
        }
        Ok(())
    }

    fn finish(&self, rows: &RowsRead<'_>) -> Result<ArrayRef> {
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
        let DataType::List(field) = &self.output else { return Err(Error::internal("collect() gives a list")) };
        let values = self.codec.decode(values.into_iter())?;
        let list = ListArray::try_new(Arc::clone(field), OffsetBuffer::from_lengths(lengths), values, None::<NullBuffer>)
            .map_err(|error| Error::data(format!("a list grew too long: {error}")))?;
        Ok(Arc::new(list))
    }
}
