//! `to_changelog` and `from_changelog`: an updating stream as an append-only one, and back.
//!
//! ```text
//!   row of a key      kept before    emitted            kept after
//!   sets it           nothing        insert, the row    the row
//!   sets it           the same       nothing            the row
//!   sets it           another        update, the row    the row
//!   withdraws it      a row          delete, that row   nothing
//!   withdraws it      nothing        nothing            nothing
//! ```
//!
//! A row of an updating stream may repeat what is already known of its key: a filter withdraws keys that never passed, and
//! after a restart a result may be emitted again. The latest row of each key is state, so that only changes come out. A row
//! is the same if all of its values are, bit by bit.

mod latest_rows;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray, UInt32Array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{cast, interleave};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::error::ArrowError;
use mill_frame::text::record_json;
use mill_plan::Stage;
use mill_protocol::{Batch, Error, Operator, Outbox, Progress, Rejected, Restored, Result, Snapshot, TaskContext};
use mill_state::{Cell, Cursor, KeyEncoder, LOOKUP_ROWS_MAX, RowLayout, Span, StateTable, TableOptions};

pub(crate) use self::latest_rows::LatestRows;
use crate::accumulator::{records, state_error};
use crate::aggregate::EMIT_ROWS;
use crate::description::{Described, Description, Shape, own};
use crate::row_codec::RowCodec;

const INSERT: &str = "insert";
const UPDATE: &str = "update";
const DELETE: &str = "delete";

/// Names the changes of an updating stream.
pub(crate) struct ToChangelog {
    keys: Vec<usize>,
    schema: SchemaRef,
    codec: RowCodec,
    encoder: KeyEncoder,
    table: StateTable,
    cell: usize,
    described: Described,
}

/// The changes that a batch makes.
#[derive(Default)]
struct Found {
    ops: Vec<&'static str>,
    /// The record that made each change.
    records: Vec<u32>,
    /// The rows that are no longer there, and of which change each is.
    gone: Vec<Cell>,
    gone_at: Vec<usize>,
}

impl ToChangelog {
    /// The rows that go in have these columns; those that come out the kind of change before them.
    pub(crate) fn new(rows: SchemaRef, schema: SchemaRef, context: &TaskContext, keys: &[usize]) -> Result<ToChangelog> {
        let codec = RowCodec::new(Arc::clone(&rows))?;
        let types: Vec<DataType> = keys.iter().map(|&key| rows.field(key).data_type().clone()).collect();
        let encoder = KeyEncoder::new(&types).map_err(state_error)?;
        let mut layout = RowLayout::builder(encoder.kind().clone());
        let cell = layout.cell();
        let layout = layout.finish(&format!("to_changelog {}", codec.signature())).map_err(state_error)?;
        let options = TableOptions {
            groups: context.groups.clone(),
            state: 0,
            is_persistent: context.is_persistent,
            tracks_changes: false,
        };
        let table = StateTable::new(Arc::new(layout), options);
        let shape = Shape::Changelog { keys: keys.to_vec() };
        let described = Description { schema: rows, keeps_pending: false, shape }.described();
        Ok(ToChangelog { keys: keys.to_vec(), schema, codec, encoder, table, cell, described })
    }

    pub(crate) fn of(stage: &Stage, context: &TaskContext, keys: &[usize]) -> Result<ToChangelog> {
        let fields = stage.schema.fields()[1..].to_vec();
        let rows = Schema::new_with_metadata(fields, stage.schema.metadata().clone());
        ToChangelog::new(Arc::new(rows), Arc::clone(&stage.schema), context, keys)
    }

    /// Takes up the rows of a batch in their order. `change` gets the record, whether it sets its key, and the row that is kept
    /// for the key, which it may take. Rows that are kept as they are make no change.
    fn apply(&mut self, batch: &Batch, mut change: impl FnMut(usize, bool, &mut Cell)) -> Result<()> {
        let data = batch.data();
        let columns: Vec<ArrayRef> = self.keys.iter().map(|&key| Arc::clone(data.column(key))).collect();
        self.encoder.encode(&columns, batch.rows()).map_err(state_error)?;
        let encoded = self.codec.encode(data.columns())?;
        for start in (0..batch.rows()).step_by(LOOKUP_ROWS_MAX) {
            let span = Span { start, len: (batch.rows() - start).min(LOOKUP_ROWS_MAX) };
            let mut rows = self.table.find_or_insert(self.encoder.batch(), span);
            let mut withdrawn = Vec::new();
            for index in 0..span.len {
                let record = start + index;
                let is_set = batch.deletes().is_none_or(|deletes| !deletes.value(record));
                let row = encoded.row(record);
                let kept = rows.cell(index, self.cell);
                if is_set && kept.bytes() == Some(row.as_ref()) {
                    continue;
                }
                change(record, is_set, kept);
                if is_set {
                    kept.set(row.as_ref());
                } else {
                    kept.take();
                    withdrawn.push(index);
                }
            }
            // A later row may have set the key again.
            withdrawn.retain(|&index| rows.cell(index, self.cell).is_empty());
            for index in withdrawn {
                self.table.remove(self.encoder.batch(), start + index);
            }
        }
        Ok(())
    }

    /// The changes that a batch makes.
    fn found(&mut self, batch: &Batch) -> Result<Found> {
        let mut found = Found::default();
        self.apply(batch, |record, is_set, kept| match (is_set, !kept.is_empty()) {
            (true, true) => found.push(UPDATE, record),
            (true, false) => found.push(INSERT, record),
            (false, _) => {
                if !kept.is_empty() {
                    found.gone_at.push(found.ops.len());
                    found.gone.push(kept.take());
                    found.push(DELETE, record);
                }
            }
        })?;
        Ok(found)
    }

    /// The changes as records.
    fn changes(&self, batch: &Batch, found: Found) -> Result<Batch> {
        let broken = |error: ArrowError| Error::internal(error.to_string());
        let ops: ArrayRef = Arc::new(StringArray::from(found.ops));
        let records = UInt32Array::from(found.records);
        let mut columns = vec![ops];
        if found.gone.is_empty() {
            let rows = batch.take(&records).map_err(broken)?;
            columns.extend(rows.data().columns().iter().cloned());
        } else {
            let gone = self.codec.decode(found.gone.iter().filter_map(Cell::bytes))?;
            let mut places: Vec<(usize, usize)> = records.values().iter().map(|&record| (0, record as usize)).collect();
            for (row, &change) in found.gone_at.iter().enumerate() {
                places[change] = (1, row);
            }
            for (set, gone) in batch.data().columns().iter().zip(gone.columns()) {
                columns.push(interleave(&[set.as_ref(), gone.as_ref()], &places).map_err(broken)?);
            }
        }
        let data = RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(broken)?;
        Ok(batch.reindex(data, &records).map_err(broken)?.with_deletes(None))
    }

    /// The rows that are kept.
    pub(crate) fn kept(&mut self) -> Result<Vec<RecordBatch>> {
        let mut cursor = Cursor::default();
        let mut batches = Vec::new();
        loop {
            let rows = self.table.scan(&mut cursor, EMIT_ROWS);
            if rows.is_empty() {
                return Ok(batches);
            }
            batches.push(self.codec.decode((0..rows.len()).filter_map(|row| rows.cell(row, self.cell)))?);
        }
    }
}

impl Found {
    fn push(&mut self, op: &'static str, record: usize) {
        self.ops.push(op);
        self.records.push(record as u32);
    }
}

impl Operator for ToChangelog {
    fn on_batch(&mut self, _input: usize, batch: Batch, out: &mut Outbox) -> Result<Progress> {
        let found = self.found(&batch)?;
        if !found.ops.is_empty() {
            out.push(self.changes(&batch, found)?);
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

/// Takes changes as what they are.
pub(crate) struct FromChangelog {
    op: usize,
    schema: SchemaRef,
}

impl FromChangelog {
    pub(crate) fn new(op: usize, schema: SchemaRef) -> FromChangelog {
        FromChangelog { op, schema }
    }
}

/// Whether a change withdraws its key; `None` if it is no change that is known. The short forms are those of Flink; what an
/// update replaces (`-U`) is withdrawn, as the key of what comes instead may be another.
fn withdraws(op: &str) -> Option<bool> {
    match op {
        INSERT | UPDATE | "+I" | "+U" => Some(false),
        DELETE | "-D" | "-U" => Some(true),
        _ => None,
    }
}

impl Operator for FromChangelog {
    fn on_batch(&mut self, _input: usize, batch: Batch, out: &mut Outbox) -> Result<Progress> {
        let internal = |error: ArrowError| Error::internal(error.to_string());
        let ops = cast(batch.column(self.op), &DataType::Utf8).map_err(internal)?;
        let ops = ops.as_string::<i32>();
        let found: Vec<Option<bool>> =
            (0..ops.len()).map(|row| ops.is_valid(row).then(|| withdraws(ops.value(row))).flatten()).collect();
        let mut unknown = Vec::new();
        for row in (0..found.len()).filter(|&row| found[row].is_none()) {
            let value = if ops.is_valid(row) { format!("{:?}", ops.value(row)) } else { "null".to_owned() };
            let name = batch.schema().field(self.op).name().clone();
            let message = format!(
                "column {name:?} is {value}; a change is \"insert\", \"update\" or \"delete\" (or +I, +U, -U, -D)"
            );
            out.reject(Rejected::new(message, record_json(batch.data(), row)));
            unknown.push(row);
        }
        let columns = batch.data().columns().iter().enumerate().filter(|(index, _)| *index != self.op);
        let columns: Vec<ArrayRef> = columns.map(|(_, column)| Arc::clone(column)).collect();
        let deletes: BooleanBuffer = found.iter().map(|op| *op == Some(true)).collect();
        let deletes = (deletes.count_set_bits() > 0).then_some(deletes);
        let rows = batch.with_data(records(&self.schema, columns)?.data().clone()).with_deletes(deletes);
        if unknown.is_empty() {
            out.push(rows);
        } else {
            let known: BooleanArray = found.iter().map(|op| Some(op.is_some())).collect();
            out.push(rows.filter(&known).map_err(internal)?);
        }
        Ok(Progress::Done)
    }
}

#[cfg(test)]
mod tests;
