//! `shift` and `diff`: each row gets what an earlier row of its key had.
//!
//! ```text
//!   records ──values──► rows kept of these keys, then the records ──take──► the value so many rows before each
//!                            └── the last ones of each key are kept
//! ```
//!
//! A key has one cell, its latest values, the oldest first: `{ length: u32, values in Arrow's row encoding } …`. Records count in the
//! order in which they come. One that fails counts as if it had not come.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{concat, take};
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use mill_frame::types::canonical_type;
use mill_plan::{Shifted, Stage};
use mill_protocol::{Batch, Error, Operator, Outbox, Progress, Restored, Result, Snapshot, TaskContext};
use mill_state::{Cell, Cursor, KeyDecoder, KeyEncoder, LOOKUP_ROWS_MAX, RowLayout, Span, StateTable, TableOptions};

use crate::accumulator::{by_row, state_error};
use crate::aggregate::EMIT_ROWS;
use crate::attempt::attempt;
use crate::description::{Described, Description, Shape, own};
use crate::row_codec::RowCodec;

/// Adds columns of earlier rows.
pub(crate) struct Shift {
    of: Plan,
    table: StateTable,
    described: Described,
}

/// All but the state.
struct Plan {
    keys: Vec<usize>,
    rows_max: usize,
    columns: Vec<Shifted>,
    schema: SchemaRef,
    codec: RowCodec,
    encoder: KeyEncoder,
    cell: usize,
}

fn broken(error: ArrowError) -> Error {
    Error::internal(error.to_string())
}

/// The rows of a cell, the oldest first.
fn rows_in(mut cell: &[u8]) -> Result<Vec<&[u8]>> {
    let mut rows = Vec::new();
    while !cell.is_empty() {
        let split = cell.split_first_chunk::<4>().and_then(|(length, rest)| rest.split_at_checked(u32::from_le_bytes(*length) as usize));
        let Some((row, rest)) = split else { return Err(Error::checkpoint("the earlier values of a key are damaged")) };
        rows.push(row);
        cell = rest;
    }
    Ok(rows)
}

fn put(cell: &mut Vec<u8>, row: &[u8]) {
    let length = u32::try_from(row.len()).expect("a row has fewer than 2^32 bytes");
    cell.extend_from_slice(&length.to_le_bytes());
    cell.extend_from_slice(row);
}

/// The columns of the key, and those that are kept under the names of what they are for.
pub(crate) fn kept_fields(stage: &Stage, keys: &[usize], columns: &[Shifted]) -> Vec<Field> {
    let plain = |field: &Field| Field::new(field.name(), canonical_type(field.data_type()), true).with_metadata(field.metadata().clone());
    let values = columns.iter().map(|column| plain(column.expr.field()));
    keys.iter().map(|&key| plain(stage.schema.field(key))).chain(values).collect()
}

impl Shift {
    pub(crate) fn new(stage: &Stage, context: &TaskContext, keys: &[usize], rows_max: usize, columns: &[Shifted]) -> Result<Shift> {
        let kept: SchemaRef = Arc::new(Schema::new(kept_fields(stage, keys, columns)));
        let values: Vec<Field> = columns.iter().map(|column| column.expr.field().clone().with_nullable(true)).collect();
        let types: Vec<_> = keys.iter().map(|&key| stage.schema.field(key).data_type().clone()).collect();
        let (table, encoder, codec, cell) = parts(&types, Schema::new(values), context)?;
        let described = Description { schema: kept, keeps_pending: false, shape: Shape::Shift { keys: keys.len() } }.described();
        let schema = Arc::clone(&stage.schema);
        let of = Plan { keys: keys.to_vec(), rows_max, columns: columns.to_vec(), schema, codec, encoder, cell };
        Ok(Shift { of, table, described })
    }
}

/// The state of keys of these types and values of these columns, and what reads and writes it.
fn parts(keys: &[arrow::datatypes::DataType], values: Schema, context: &TaskContext) -> Result<(StateTable, KeyEncoder, RowCodec, usize)> {
    let codec = RowCodec::new(Arc::new(values))?;
    let encoder = KeyEncoder::new(keys).map_err(state_error)?;
    let mut layout = RowLayout::builder(encoder.kind().clone());
    let cell = layout.cell();
    let types: Vec<String> = codec.schema().fields().iter().map(|field| canonical_type(field.data_type()).to_string()).collect();
    let layout = layout.finish(&format!("shift {}", types.join(", "))).map_err(state_error)?;
    let options = TableOptions { groups: context.groups.clone(), state: 0, is_persistent: context.is_persistent, tracks_changes: false };
    Ok((StateTable::new(Arc::new(layout), options), encoder, codec, cell))
}

impl Plan {
    /// Adds the columns to records, and keeps the last values of their keys.
    fn add(&mut self, table: &mut StateTable, batch: Batch, out: &mut Outbox) -> Result<()> {
        let values = self.columns.iter().map(|column| column.expr.evaluate(batch.data())).collect::<Result<Vec<ArrayRef>>>()?;
        let keys: Vec<ArrayRef> = self.keys.iter().map(|&key| Arc::clone(batch.column(key))).collect();
        self.encoder.encode(&keys, batch.rows()).map_err(state_error)?;
        let mut rows = table.find_or_insert(self.encoder.batch(), Span { start: 0, len: batch.rows() });
        rows.fetch_cells();
        let of_keys = by_row(&rows, |_| true);
        let cells: Vec<Cell> = of_keys.iter().map(|(first, _)| rows.cell(*first, self.cell).clone()).collect();
        let former = cells.iter().map(|cell| rows_in(cell.bytes().unwrap_or_default())).collect::<Result<Vec<_>>>()?;
        // Of the former rows of a key only the oldest are taken, one for each of its records.
        let taken = |former: &[&[u8]], records: usize| {
            former.len().saturating_sub(self.rows_max)..(former.len() + records.min(self.rows_max)).saturating_sub(self.rows_max)
        };
        let count: usize = of_keys.iter().zip(&former).map(|((_, records), former)| taken(former, records.len()).len()).sum();
        let mut earlier: Vec<Option<u32>> = vec![None; batch.rows()];
        let mut before = 0;
        for ((_, records), former) in of_keys.iter().zip(&former) {
            let taken = taken(former, records.len());
            for (place, &record) in records.iter().enumerate() {
                earlier[record] = match place.checked_sub(self.rows_max) {
                    Some(place) => Some((count + records[place]) as u32),
                    // So many rows are missing in this batch.
                    None => former.len().checked_sub(self.rows_max - place).map(|place| (before + place - taken.start) as u32),
                };
            }
            before += taken.len();
        }
        let earlier = UInt32Array::from(earlier);
        let oldest = of_keys.iter().zip(&former).flat_map(|((_, records), former)| &former[taken(former, records.len())]);
        let decoded = self.codec.decode(oldest.copied())?;
        let mut columns = batch.data().columns().to_vec();
        for ((column, value), kept) in self.columns.iter().zip(&values).zip(decoded.columns()) {
            let all = concat(&[kept.as_ref(), value.as_ref()]).map_err(broken)?;
            columns.push(column.added(value, take(&all, &earlier, None).map_err(broken)?)?);
        }
        let encoded = self.codec.encode(&values)?;
        let result = RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(broken)?;
        // From here on nothing fails. The bytes of the rows that stay are left where they are.
        let gone = |((_, records), former): (&(usize, Vec<usize>), &Vec<&[u8]>)| {
            let stay = self.rows_max.saturating_sub(records.len()).min(former.len());
            former[..former.len() - stay].iter().map(|row| size_of::<u32>() + row.len()).sum()
        };
        let gone: Vec<usize> = of_keys.iter().zip(&former).map(gone).collect();
        // No handle is left, so that only what a checkpoint still reads is copied.
        drop(former);
        drop(cells);
        for ((first, records), gone) in of_keys.iter().zip(gone) {
            let cell = rows.cell_mut(*first, self.cell);
            cell.drain(..gone);
            let from_records = records.len().min(self.rows_max);
            records[records.len() - from_records..].iter().for_each(|&record| put(cell, encoded.row(record).data()));
        }
        out.push(batch.with_data(result));
        Ok(())
    }
}

/// The rows that are kept of each key: the key, and the values, the oldest first.
pub(crate) fn kept(schema: &SchemaRef, keys: usize, restored: &Restored, context: &TaskContext) -> Result<Vec<RecordBatch>> {
    let types: Vec<_> = schema.fields()[..keys].iter().map(|field| field.data_type().clone()).collect();
    let values = Schema::new(schema.fields()[keys..].to_vec());
    let (mut table, _, codec, cell) = parts(&types, values, context)?;
    table.restore(&restored.blocks).map_err(state_error)?;
    let decoder = KeyDecoder::new(&types).map_err(state_error)?;
    let (mut cursor, mut batches) = (Cursor::default(), Vec::new());
    loop {
        let rows = table.scan(&mut cursor, EMIT_ROWS);
        if rows.is_empty() {
            return Ok(batches);
        }
        let (mut found, mut places) = (Vec::new(), Vec::new());
        for row in 0..rows.len() {
            let of_key = rows_in(rows.cell(row, cell).unwrap_or_default())?;
            places.extend(of_key.iter().map(|_| row as u32));
            found.extend(of_key);
        }
        let places = UInt32Array::from(places);
        let mut columns = Vec::with_capacity(schema.fields().len());
        for key in decoder.decode(&rows).map_err(state_error)? {
            columns.push(take(&key, &places, None).map_err(broken)?);
        }
        columns.extend(codec.decode(found)?.columns().iter().cloned());
        batches.push(RecordBatch::try_new(Arc::clone(schema), columns).map_err(broken)?);
    }
}

impl Operator for Shift {
    fn on_batch(&mut self, _input: usize, batch: Batch, out: &mut Outbox) -> Result<Progress> {
        let (of, table) = (&mut self.of, &mut self.table);
        for start in (0..batch.rows()).step_by(LOOKUP_ROWS_MAX) {
            let records = batch.slice(start, (batch.rows() - start).min(LOOKUP_ROWS_MAX));
            attempt(records, out, &mut |records, out| of.add(table, records, out))?;
        }
        Ok(Progress::Done)
    }

    fn snapshot(&mut self, snapshot: &mut Snapshot) -> Result<()> {
        self.table.snapshot(0, snapshot.is_full, &mut snapshot.blocks);
        snapshot.bytes = Some(self.described.of(&[]));
        Ok(())
    }

    fn restore(&mut self, restored: &Restored) -> Result<()> {
        restored.bytes.iter().try_for_each(|bytes| own(bytes).map(drop))?;
        self.table.restore(&restored.blocks).map_err(state_error)
    }
}

#[cfg(test)]
mod tests;
