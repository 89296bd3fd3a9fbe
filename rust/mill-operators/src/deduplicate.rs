//! `deduplicate`: the first row of each key passes at once, the others are dropped.
//!
//! The state is the keys alone. A known key is only looked up, so a checkpoint has the new keys and nothing else.

mod within;

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use mill_frame::types::canonical_type;
use mill_plan::Stage;
use mill_protocol::{Batch, Error, Operator, Outbox, Progress, Restored, Result, Snapshot, TaskContext};
use mill_state::{
    Cursor, KeyDecoder, KeyEncoder, LOOKUP_ROWS_MAX, RowLayout, Select, Span, StateTable, TableOptions,
};

pub(crate) use self::within::DeduplicateWithin;
use crate::accumulator::state_error;
use crate::aggregate::EMIT_ROWS;
use crate::description::{Described, Description, Shape, own};

/// Lets the first row of each key pass.
pub(crate) struct Deduplicate {
    keys: Vec<usize>,
    /// The key columns, as state is read.
    schema: SchemaRef,
    encoder: KeyEncoder,
    table: StateTable,
    described: Described,
}

/// The columns that are the key, without ways of saving space.
fn key_fields(stage: &Stage, keys: &[usize]) -> Vec<Field> {
    let field = |&key: &usize| {
        let field = stage.schema.field(key);
        Field::new(field.name(), canonical_type(field.data_type()), true).with_metadata(field.metadata().clone())
    };
    keys.iter().map(field).collect()
}

fn types_of(stage: &Stage, keys: &[usize]) -> Vec<DataType> {
    keys.iter().map(|&key| stage.schema.field(key).data_type().clone()).collect()
}

/// Encodes the keys of a batch.
fn encode(encoder: &mut KeyEncoder, keys: &[usize], batch: &Batch) -> Result<()> {
    let columns: Vec<ArrayRef> = keys.iter().map(|&key| Arc::clone(batch.column(key))).collect();
    encoder.encode(&columns, batch.rows()).map(drop).map_err(state_error)
}

/// Those of the records whose keys are not in the table.
fn unknown<S: Select>(table: &mut StateTable, encoder: &KeyEncoder, select: S) -> Vec<u32> {
    let (_, found) = table.find_selected(encoder.batch(), select);
    let mut known = found.into_iter().peekable();
    let records = (0..select.len()).map(|index| select.at(index) as u32);
    records.filter(|record| known.next_if_eq(record).is_none()).collect()
}

/// Passes these records on.
fn pass(batch: Batch, records: Vec<u32>, out: &mut Outbox) -> Result<()> {
    if records.len() == batch.rows() {
        out.push(batch);
    } else if !records.is_empty() {
        let records = UInt32Array::from(records);
        out.push(batch.take(&records).map_err(|error| Error::internal(error.to_string()))?);
    }
    Ok(())
}

impl Deduplicate {
    pub(crate) fn new(stage: &Stage, context: &TaskContext, keys: &[usize]) -> Result<Deduplicate> {
        let schema: SchemaRef = Arc::new(Schema::new(key_fields(stage, keys)));
        let encoder = KeyEncoder::new(&types_of(stage, keys)).map_err(state_error)?;
        let layout = RowLayout::builder(encoder.kind().clone()).finish("deduplicate").map_err(state_error)?;
        let options = TableOptions {
            groups: context.groups.clone(),
            state: 0,
            is_persistent: context.is_persistent,
            tracks_changes: false,
        };
        let table = StateTable::new(Arc::new(layout), options);
        let shape = Shape::Deduplicate { keys: keys.len(), within_us: None };
        let described = Description { schema: Arc::clone(&schema), keeps_pending: false, shape }.described();
        Ok(Deduplicate { keys: keys.to_vec(), schema, encoder, table, described })
    }

    /// The keys that are kept.
    pub(crate) fn kept(&mut self) -> Result<Vec<RecordBatch>> {
        let types: Vec<DataType> = self.schema.fields().iter().map(|field| field.data_type().clone()).collect();
        let decoder = KeyDecoder::new(&types).map_err(state_error)?;
        let (mut cursor, mut batches) = (Cursor::default(), Vec::new());
        loop {
            let rows = self.table.scan(&mut cursor, EMIT_ROWS);
            if rows.is_empty() {
                return Ok(batches);
            }
            let columns = decoder.decode(&rows).map_err(state_error)?;
            batches.push(crate::accumulator::records(&self.schema, columns)?.data().clone());
        }
    }
}

impl Operator for Deduplicate {
    fn on_batch(&mut self, _input: usize, batch: Batch, out: &mut Outbox) -> Result<Progress> {
        encode(&mut self.encoder, &self.keys, &batch)?;
        let mut passing = Vec::new();
        for start in (0..batch.rows()).step_by(LOOKUP_ROWS_MAX) {
            let span = Span { start, len: (batch.rows() - start).min(LOOKUP_ROWS_MAX) };
            let unknown = unknown(&mut self.table, &self.encoder, span);
            let rows = self.table.find_or_insert(self.encoder.batch(), &unknown[..]);
            passing.extend(rows.inserted().iter().map(|&index| unknown[index as usize]));
        }
        pass(batch, passing, out)?;
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
