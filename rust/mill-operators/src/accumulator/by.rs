//! `min_by` and `max_by`: the value beside the smallest or largest of another column.
//!
//! Both are kept in a cell, as the bytes of a struct in its order: first the value that decides, then the other. So of records
//! that are equally good the other value decides, and the result does not depend on the order of the records.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StructArray};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::datatypes::DataType;
use mill_frame::types::canonical_array;
use mill_plan::AggregateSpec;
use mill_protocol::{Error, Result};
use mill_state::{LayoutBuilder, Rows, RowsRead, Select};

use super::cells::Codec;
use super::input::{Input, passes};
use super::{Accumulator, Problems, Selection};

pub(super) struct By {
    input: Input,
    data_type: DataType,
    is_min: bool,
    codec: Codec,
    cell: usize,
    encoded: Option<arrow_row::Rows>,
    mask: Option<BooleanBuffer>,
}

impl By {
    pub(super) fn new(input: Input, spec: &AggregateSpec, is_min: bool, layout: &mut LayoutBuilder) -> Result<By> {
        let data_type = spec.input_type.clone().ok_or_else(|| Error::internal("min_by() without an input"))?;
        let codec = Codec::new(&data_type)?;
        Ok(By { input, data_type, is_min, codec, cell: layout.cell(), encoded: None, mask: None })
    }
}

impl Accumulator for By {
    fn prepare(&mut self, batch: &RecordBatch, _hashes: &[u64]) -> Result<()> {
        let pairs = self.input.column(batch, 0, &self.data_type)?;
        let pairs = pairs.as_struct();
        // NaN has several forms, of which some would be the smallest.
        let by = canonical_array(pairs.column(0)).map_err(|error| Error::internal(error.to_string()))?;
        let nulls = NullBuffer::union(by.logical_nulls().as_ref(), pairs.nulls());
        self.mask = match (nulls, self.input.filter(batch)?) {
            (Some(nulls), Some(filter)) => Some(nulls.inner() & &filter),
            (nulls, filter) => filter.or(nulls.map(NullBuffer::into_inner)),
        };
        let (fields, columns) = (pairs.fields().clone(), vec![by, Arc::clone(pairs.column(1))]);
        let pairs = StructArray::try_new(fields, columns, pairs.nulls().cloned());
        let pairs: ArrayRef = Arc::new(pairs.map_err(|error| Error::internal(error.to_string()))?);
        self.encoded = Some(self.codec.encode(&pairs)?);
        Ok(())
    }

    fn update(&mut self, rows: &mut Rows<'_>, select: Selection<'_>, _problems: &mut Problems) -> Result<()> {
        let encoded = self.encoded.as_ref().expect("prepared");
        for i in 0..select.len() {
            let record = select.at(i);
            if !passes(self.mask.as_ref(), record) {
                continue;
            }
            let value = encoded.row(record);
            let value: &[u8] = value.as_ref();
            let cell = rows.cell(i, self.cell);
            let is_better = match cell.bytes() {
                None => true,
                Some(best) if self.is_min => value < best,
                Some(best) => value > best,
            };
            if is_better {
                cell.set(value);
            }
        }
        Ok(())
    }

    fn finish(&self, rows: &RowsRead<'_>) -> Result<ArrayRef> {
        let null = self.codec.null()?;
        let pairs = self.codec.decode((0..rows.len()).map(|row| rows.cell(row, self.cell).unwrap_or(&null)))?;
        let pairs = pairs.as_struct();
        let values = pairs.column(1);
        let Some(own) = pairs.nulls() else { return Ok(Arc::clone(values)) };
        let nulls = NullBuffer::union(Some(own), values.logical_nulls().as_ref());
        let data = values.to_data().into_builder().nulls(nulls).build().map_err(|error| Error::internal(error.to_string()))?;
        Ok(arrow::array::make_array(data))
    }
}
