//! `reduce`: a user's fold, one row a key.
//!
//! The function is called once a key and frame with the key's records in order and the row folded so far. The row is kept
//! in a cell, in Arrow's row encoding, and decoded for all keys of a frame at once.
//!
//! A call that fails has changed nothing: each of its records is then tried by itself, and those that fail are rejected.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::SchemaRef;
use arrow_row::{RowConverter, SortField};
use mill_plan::{Emit, ReduceFunction, Stage};
use mill_protocol::{
    Batch, Epoch, Error, ErrorKind, Operator, Outbox, Progress, Restored, Result, Snapshot, TaskContext,
};
use mill_state::{Cell, Cursor, Flag, KeyEncoder, LOOKUP_ROWS_MAX, RowLayout, RowsRead, Span, StateTable, TableOptions};

use crate::accumulator::{Problems, by_row, reject, state_error};
use crate::aggregate::{EMIT_ROWS, Schedule};
use crate::description::{Described, Description, Shape, own};

/// Folds the records of each key.
pub(crate) struct Reduce {
    keys: Vec<usize>,
    function: Arc<dyn ReduceFunction>,
    schema: SchemaRef,
    converter: RowConverter,
    encoder: KeyEncoder,
    table: StateTable,
    cell: usize,
    pending: Option<Flag>,
    schedule: Schedule,
    described: Described,
    emitting: Option<(Cursor, bool)>,
}

impl Reduce {
    pub(crate) fn new(
        stage: &Stage,
        context: &TaskContext,
        keys: &[usize],
        function: Arc<dyn ReduceFunction>,
        emit: Emit,
    ) -> Result<Reduce> {
        let schema = Arc::clone(&stage.schema);
        let types: Vec<_> = keys.iter().map(|&key| schema.field(key).data_type().clone()).collect();
        let fields = schema.fields().iter().map(|field| SortField::new(field.data_type().clone())).collect();
        let converter = RowConverter::new(fields)
            .map_err(|error| Error::schema(format!("records with these columns cannot be kept as state: {error}")))?;
        let schedule = Schedule::new(emit);
        let encoder = KeyEncoder::new(&types).map_err(state_error)?;
        let mut layout = RowLayout::builder(encoder.kind().clone());
        let cell = layout.cell();
        let pending = schedule.keeps_pending().then(|| layout.flag());
        let columns: Vec<String> =
            schema.fields().iter().map(|field| format!("{} {}", field.name(), field.data_type())).collect();
        let layout = layout.finish(&format!("reduce {}", columns.join(", "))).map_err(state_error)?;
        let options = TableOptions {
            groups: context.groups.clone(),
            state: 0,
            is_persistent: context.is_persistent,
            tracks_changes: schedule.tracks_changes(),
        };
        let table = StateTable::new(Arc::new(layout), options);
        let keys = keys.to_vec();
        let shape = Shape::Reduce { keys: keys.clone() };
        let described =
            Description { schema: Arc::clone(&schema), keeps_pending: schedule.keeps_pending(), shape }.described();
        let emitting = None;
        Ok(Reduce { keys, function, schema, converter, encoder, table, cell, pending, schedule, described, emitting })
    }

    fn fold(&mut self, batch: &RecordBatch, span: Span, out: &mut Outbox) -> Result<()> {
        let mut rows = self.table.find_or_insert(self.encoder.batch(), span);
        if let Some(pending) = self.pending {
            rows.set_flag(pending);
        }
        let of_keys = by_row(&rows, |_| true);
        let known: Vec<Cell> = of_keys.iter().map(|(first, _)| rows.cell(*first, self.cell).clone()).collect();
        let former = decode(&self.converter, &self.schema, known.iter().filter_map(Cell::bytes))?;
        let mut next_former = 0;
        let mut problems = Problems::new();
        let mut folded: Vec<(usize, RecordBatch)> = Vec::with_capacity(of_keys.len());
        for (first, of_key) in of_keys {
            let mut accumulator = None;
            if !rows.cell(first, self.cell).is_empty() {
                accumulator = Some(former.slice(next_former, 1));
                next_former += 1;
            }
            let records: Vec<u32> = of_key.iter().map(|&i| (span.start + i) as u32).collect();
            let result = call(self.function.as_ref(), &self.schema, &self.keys, batch, accumulator, &records, &mut problems)?;
            if let Some(row) = result {
                folded.push((first, row));
            }
        }
        reject(&mut problems, batch, out);
        if !folded.is_empty() {
            let all = arrow::compute::concat_batches(&self.schema, folded.iter().map(|(_, row)| row))
                .map_err(|error| Error::schema(error.to_string()))?;
            let encoded = self.converter.convert_columns(all.columns()).map_err(|error| Error::schema(error.to_string()))?;
            for ((first, _), row) in folded.iter().zip(encoded.iter()) {
                rows.cell(*first, self.cell).set(row.as_ref());
            }
        }
        Ok(())
    }

    /// Emits all rows, or those that changed.
    pub(crate) fn emit(&mut self, is_changed: bool, out: &mut Outbox) -> Result<Progress> {
        self.emitting = Some((Cursor::default(), is_changed));
        self.resume(out)
    }
}

/// Whether the first values of two columns are one key: NaN is NaN, and zero has no sign.
fn is_same_key(a: &ArrayRef, b: &ArrayRef) -> bool {
    use arrow::datatypes::{DataType, Float32Type, Float64Type};
    let (a, b) = (a.slice(0, 1), b.slice(0, 1));
    let is_same = |a: f64, b: f64| a == b || a.is_nan() && b.is_nan();
    match a.data_type() {
        DataType::Float64 if a.is_valid(0) && b.is_valid(0) => {
            is_same(a.as_primitive::<Float64Type>().value(0), b.as_primitive::<Float64Type>().value(0))
        }
        DataType::Float32 if a.is_valid(0) && b.is_valid(0) => {
            is_same(a.as_primitive::<Float32Type>().value(0).into(), b.as_primitive::<Float32Type>().value(0).into())
        }
        _ => a.to_data() == b.to_data(),
    }
}

/// Refuses a row that a fold has given another key.
pub(crate) fn same_key(name: &str, keys: &[usize], row: &RecordBatch, records: &RecordBatch) -> Result<()> {
    match keys.iter().find(|&&key| !is_same_key(row.column(key), records.column(key))) {
        None => Ok(()),
        Some(&key) => Err(Error::new(
            ErrorKind::UserFunction,
            format!(
                "{name} returned a record of another key: column {:?} is part of the key, which a reduce keeps; take it from one \
                 of the records",
                records.schema().field(key).name(),
            ),
        )),
    }
}

/// Folds records of one key into its row. `None` if there was no row and every record failed.
fn call(
    function: &dyn ReduceFunction,
    schema: &SchemaRef,
    keys: &[usize],
    batch: &RecordBatch,
    accumulator: Option<RecordBatch>,
    records: &[u32],
    problems: &mut Problems,
) -> Result<Option<RecordBatch>> {
    let one = |accumulator: Option<&RecordBatch>, records: &[u32]| -> Result<RecordBatch> {
        let rows = take_record_batch(batch, &UInt32Array::from(records.to_vec()))
            .map_err(|error| Error::internal(error.to_string()))?;
        let row = function.reduce(accumulator, &rows)?;
        if row.num_rows() != 1 {
            let message = format!("{} returned {} rows; a reduce returns one", function.name(), row.num_rows());
            return Err(Error::new(ErrorKind::UserFunction, message));
        }
        let row = RecordBatch::try_new(Arc::clone(schema), row.columns().to_vec()).map_err(|error| {
            let message = format!("{} returned a row with other columns than the input: {error}", function.name());
            Error::new(ErrorKind::UserFunction, message)
        })?;
        same_key(&function.name(), keys, &row, &rows)?;
        Ok(row)
    };
    let is_of_records = |error: &Error| matches!(error.kind(), ErrorKind::Data | ErrorKind::UserFunction);
    match one(accumulator.as_ref(), records) {
        Ok(row) => return Ok(Some(row)),
        Err(error) if !is_of_records(&error) => return Err(error),
        Err(_) => {}
    }
    let mut folded = accumulator;
    for &record in records {
        match one(folded.as_ref(), &[record]) {
            Ok(row) => folded = Some(row),
            Err(error) if !is_of_records(&error) => return Err(error),
            Err(error) => problems.push((record as usize, error)),
        }
    }
    Ok(folded)
}

fn decode<'a>(
    converter: &RowConverter,
    schema: &SchemaRef,
    encoded: impl Iterator<Item = &'a [u8]>,
) -> Result<RecordBatch> {
    let damaged = |error: arrow::error::ArrowError| Error::checkpoint(format!("the state of a reduce is damaged: {error}"));
    let parser = converter.parser();
    let columns = converter.convert_rows(encoded.map(|bytes| parser.parse(bytes))).map_err(damaged)?;
    let columns = columns.iter().zip(schema.fields()).map(|(column, field)| arrow::compute::cast(column, field.data_type()));
    let columns = columns.collect::<std::result::Result<Vec<ArrayRef>, _>>().map_err(damaged)?;
    RecordBatch::try_new(Arc::clone(schema), columns).map_err(damaged)
}

impl Operator for Reduce {
    fn on_batch(&mut self, _input: usize, batch: Batch, out: &mut Outbox) -> Result<Progress> {
        let data = batch.data();
        let columns: Vec<ArrayRef> = self.keys.iter().map(|&key| Arc::clone(data.column(key))).collect();
        self.encoder.encode(&columns, data.num_rows()).map_err(state_error)?;
        for start in (0..data.num_rows()).step_by(LOOKUP_ROWS_MAX) {
            let len = (data.num_rows() - start).min(LOOKUP_ROWS_MAX);
            self.fold(data, Span { start, len }, out)?;
        }
        if self.schedule.on_change() { self.emit(true, out) } else { Ok(Progress::Done) }
    }

    fn can_replay(&self) -> bool {
        !self.schedule.keeps_pending()
    }

    fn next_time(&self) -> Option<i64> {
        self.schedule.next_time()
    }

    fn on_time(&mut self, now: i64, out: &mut Outbox) -> Result<Progress> {
        if self.schedule.on_time(now) { self.emit(true, out) } else { Ok(Progress::Done) }
    }

    fn on_barrier(&mut self, _epoch: Epoch, out: &mut Outbox) -> Result<Progress> {
        if self.schedule.on_barrier() { self.emit(true, out) } else { Ok(Progress::Done) }
    }

    fn on_end(&mut self, out: &mut Outbox) -> Result<Progress> {
        let is_changed = self.schedule.tracks_changes();
        self.emit(is_changed, out)
    }

    fn resume(&mut self, out: &mut Outbox) -> Result<Progress> {
        let Some((cursor, is_changed)) = &mut self.emitting else { return Ok(Progress::Done) };
        let rows: RowsRead<'_> = if *is_changed {
            self.table.scan_changed(cursor, EMIT_ROWS, self.pending)
        } else {
            self.table.scan(cursor, EMIT_ROWS)
        };
        if rows.is_empty() {
            self.emitting = None;
            return Ok(Progress::Done);
        }
        // A key all of whose records failed has no row to give.
        let encoded = (0..rows.len()).filter_map(|row| rows.cell(row, self.cell));
        out.push(decode(&self.converter, &self.schema, encoded)?.into());
        Ok(Progress::More)
    }

    fn snapshot(&mut self, snapshot: &mut Snapshot) -> Result<()> {
        self.table.snapshot(0, snapshot.is_full, &mut snapshot.blocks);
        snapshot.bytes = Some(self.described.of(&[]));
        Ok(())
    }

    fn restore(&mut self, restored: &Restored) -> Result<()> {
        restored.bytes.iter().try_for_each(|bytes| own(bytes).map(drop))?;
        self.schedule.on_restore();
        self.table.restore(&restored.blocks).map_err(state_error)?;
        if self.pending.is_some() {
            self.table.mark_changed();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
