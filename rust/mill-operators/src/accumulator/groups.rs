//! Keys and accumulators together: what the aggregating operators share.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::DataType;
use mill_frame::block::RestoredBlock;
use mill_plan::AggregateSpec;
use mill_protocol::{Batch, Error, Outbox, Rejected, Restored, Result, Snapshot};
use mill_state::{Cursor, Flag, KeyDecoder, KeyEncoder, LOOKUP_ROWS_MAX, PaneTables, RowLayout, Span, TableOptions};

use super::input::state_error;
use super::{Accumulator, Problems, Selection, accumulator};
use crate::record::record_text;

/// How many records go through the table at a time: their rows stay in the nearest cache from kernel to kernel.
const LOOKUP_ROWS: usize = 256;

/// Rows of keys and accumulators, a table a pane.
pub(crate) struct Groups {
    keys: Vec<usize>,
    encoder: KeyEncoder,
    decoder: KeyDecoder,
    accumulators: Vec<Box<dyn Accumulator>>,
    panes: PaneTables,
    /// Set in a row from its change until it is emitted, if that may be after a checkpoint.
    pending: Option<Flag>,
    lookup_rows: usize,
    problems: Problems,
}

/// What the step asks of its groups.
pub(crate) struct GroupOptions {
    pub(crate) table: TableOptions,
    pub(crate) is_partial: bool,
    /// Whether changes may be emitted later than the checkpoint that holds them.
    pub(crate) keeps_pending: bool,
}

impl Groups {
    pub(crate) fn new(
        keys: &[usize],
        key_types: &[DataType],
        aggregates: &[AggregateSpec],
        options: &GroupOptions,
    ) -> Result<Groups> {
        let encoder = KeyEncoder::new(key_types).map_err(state_error)?;
        let decoder = KeyDecoder::new(key_types).map_err(state_error)?;
        let mut layout = RowLayout::builder(encoder.kind().clone());
        let mut distinct = 0;
        let mut accumulators = Vec::with_capacity(aggregates.len());
        for spec in aggregates {
            accumulators.push(accumulator(
                spec,
                options.is_partial,
                keys,
                key_types,
                &mut distinct,
                &mut layout,
                &options.table,
            )?);
        }
        let pending = options.keeps_pending.then(|| layout.flag());
        // Where the filter is applied (here, or ahead of the exchange) does not change what a row means.
        let described = |spec: &AggregateSpec| {
            format!("{} {}", AggregateSpec { filter: None, ..spec.clone() }, spec.output_type)
        };
        let signature: Vec<String> = aggregates.iter().map(described).collect();
        let layout = layout.finish(&signature.join("; ")).map_err(state_error)?;
        let is_costly = accumulators.iter().any(|accumulator| accumulator.is_costly());
        Ok(Groups {
            keys: keys.to_vec(),
            encoder,
            decoder,
            accumulators,
            panes: PaneTables::new(Arc::new(layout), options.table.clone()),
            pending,
            lookup_rows: if is_costly { LOOKUP_ROWS_MAX } else { LOOKUP_ROWS },
            problems: Problems::new(),
        })
    }

    /// Takes up a frame; updates then speak of its records by their place.
    pub(crate) fn prepare(&mut self, batch: &RecordBatch) -> Result<()> {
        let columns: Vec<ArrayRef> = self.keys.iter().map(|&key| Arc::clone(batch.column(key))).collect();
        let keys = self.encoder.encode(&columns, batch.num_rows()).map_err(state_error)?;
        for accumulator in &mut self.accumulators {
            accumulator.prepare(batch, keys.hashes())?;
        }
        Ok(())
    }

    /// Takes up the values of a frame and not its keys: enough for [`singles`](Groups::singles).
    pub(crate) fn prepare_values(&mut self, batch: &RecordBatch) -> Result<()> {
        self.accumulators.iter_mut().try_for_each(|accumulator| accumulator.prepare(batch, &[]))
    }

    /// Takes consecutive records of the frame into a pane.
    pub(crate) fn update_span(&mut self, pane: i64, span: Span) -> Result<()> {
        self.open(pane);
        let mut start = span.start;
        while start < span.start + span.len {
            let len = (span.start + span.len - start).min(self.lookup_rows);
            self.update(pane, Selection::Span(Span { start, len }))?;
            start += len;
        }
        Ok(())
    }

    /// Takes these records of the frame into a pane.
    pub(crate) fn update_picked(&mut self, pane: i64, records: &[u32]) -> Result<()> {
        self.open(pane);
        for records in records.chunks(self.lookup_rows) {
            self.update(pane, Selection::Picked(records))?;
        }
        Ok(())
    }

    fn open(&mut self, pane: i64) {
        for accumulator in &mut self.accumulators {
            accumulator.open(pane);
        }
    }

    fn update(&mut self, pane: i64, select: Selection<'_>) -> Result<()> {
        let table = self.panes.open(pane);
        let keys = self.encoder.batch();
        let mut rows = match select {
            Selection::Span(span) => table.find_or_insert(keys, span),
            Selection::Picked(picked) => table.find_or_insert(keys, picked),
        };
        if let Some(pending) = self.pending {
            rows.set_flag(pending);
        }
        for accumulator in &mut self.accumulators {
            accumulator.update(&mut rows, select, &mut self.problems)?;
        }
        Ok(())
    }

    /// Hands over the records that could not be taken in.
    pub(crate) fn reject_problems(&mut self, batch: &RecordBatch, out: &mut Outbox) {
        reject(&mut self.problems, batch, out);
    }

    /// Reads on in a pane: keys and results of the next rows, about `rows_max` of them; `None` at the end.
    pub(crate) fn results(
        &mut self,
        pane: i64,
        cursor: &mut Cursor,
        rows_max: usize,
        is_changed: bool,
    ) -> Result<Option<(Vec<ArrayRef>, Vec<ArrayRef>)>> {
        self.read(pane, cursor, rows_max, is_changed, |accumulator, rows| Ok(vec![accumulator.finish(rows)?]))
    }

    /// Reads on in a pane: keys and partial results.
    pub(crate) fn partials(
        &mut self,
        pane: i64,
        cursor: &mut Cursor,
        rows_max: usize,
    ) -> Result<Option<(Vec<ArrayRef>, Vec<ArrayRef>)>> {
        self.read(pane, cursor, rows_max, false, |accumulator, rows| accumulator.partial(rows))
    }

    fn read(
        &mut self,
        pane: i64,
        cursor: &mut Cursor,
        rows_max: usize,
        is_changed: bool,
        columns: impl Fn(&dyn Accumulator, &mill_state::RowsRead<'_>) -> Result<Vec<ArrayRef>>,
    ) -> Result<Option<(Vec<ArrayRef>, Vec<ArrayRef>)>> {
        let Some(table) = self.panes.pane(pane) else { return Ok(None) };
        let rows =
            if is_changed { table.scan_changed(cursor, rows_max, self.pending) } else { table.scan(cursor, rows_max) };
        if rows.is_empty() {
            return Ok(None);
        }
        let mut results = Vec::new();
        for accumulator in &self.accumulators {
            results.extend(columns(accumulator.as_ref(), &rows)?);
        }
        let mut keys = self.decoder.decode(&rows).map_err(state_error)?;
        keys.truncate(self.keys.len());
        Ok(Some((keys, results)))
    }

    /// Partial results of the frame's records, one by one, without any table.
    pub(crate) fn singles(&self) -> Result<Vec<ArrayRef>> {
        let mut columns = Vec::new();
        for accumulator in &self.accumulators {
            columns.extend(accumulator.singles()?);
        }
        Ok(columns)
    }

    pub(crate) fn panes(&self) -> &PaneTables {
        &self.panes
    }

    /// Forgets a pane.
    pub(crate) fn close(&mut self, pane: i64) {
        self.panes.close(pane);
        for accumulator in &mut self.accumulators {
            accumulator.close(pane);
        }
    }

    /// Empties a pane but keeps its memory.
    pub(crate) fn reset(&mut self, pane: i64) {
        self.panes.reset(pane);
    }

    pub(crate) fn snapshot(&mut self, snapshot: &mut Snapshot) {
        self.panes.snapshot(snapshot.is_full, &mut snapshot.blocks);
        for accumulator in &mut self.accumulators {
            accumulator.snapshot(snapshot.is_full, &mut snapshot.blocks);
        }
    }

    pub(crate) fn restore(&mut self, restored: &Restored) -> Result<()> {
        let blocks: &[RestoredBlock] = &restored.blocks;
        self.panes.restore(blocks).map_err(state_error)?;
        for accumulator in &mut self.accumulators {
            accumulator.restore(blocks)?;
        }
        if self.pending.is_some() {
            let starts: Vec<i64> = self.panes.starts().collect();
            for start in starts {
                self.panes.open(start).mark_changed();
            }
        }
        Ok(())
    }
}

/// Hands over records that could not be taken in, in their order.
pub(crate) fn reject(problems: &mut Problems, batch: &RecordBatch, out: &mut Outbox) {
    problems.sort_by_key(|(record, _)| *record);
    for (record, mut error) in problems.drain(..) {
        let mut rejected = Rejected::new(error.message(), record_text(batch, record));
        rejected.cause = error.take_source().map(Arc::from);
        out.reject(rejected);
    }
}

/// Columns as records of this schema.
pub(crate) fn records(schema: &arrow::datatypes::SchemaRef, columns: Vec<ArrayRef>) -> Result<Batch> {
    let rows = columns.first().map_or(0, |column| column.len());
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows));
    let data = RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
        .map_err(|error| Error::internal(format!("results do not fit their columns: {error}")))?;
    Ok(data.into())
}
