//! Results of windows: their records, gathered, and what is computed of them.
//!
//! ```text
//!   windows    w0            w1       w2
//!   rows       r r r r       r        r r       decoded at once, and aggregated at once with the window's number as key
//! ```

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, RecordBatchOptions, StringArray, UInt32Array, new_null_array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{cast, concat_batches, take};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, Schema, SchemaRef};
use arrow_row::RowConverter;
use mill_frame::text::record_json;
use mill_plan::{
    AggregateSpec, KeptWindowSpec, ReduceFunction, WindowCompute, WindowFunction, WindowRecords,
};
use mill_protocol::{Batch, Error, ErrorKind, Outbox, Rejected, Result};
use mill_state::{Cursor, Span, TableOptions};

use super::records::converter;
use crate::accumulator::{GroupOptions, Groups, UnfitRow};
use crate::reduce::same_key;
use crate::windows::{Timing, time_column, time_values};

/// A window that has a result.
#[derive(Clone, Copy, Debug)]
pub(super) struct WindowOf {
    pub(super) start: i64,
    pub(super) end: i64,
    pub(super) pane: i64,
    pub(super) timing: Timing,
}

impl WindowOf {
    /// A window without bounds, at its end.
    pub(super) fn whole() -> WindowOf {
        WindowOf { start: i64::MIN, end: i64::MAX, pane: 0, timing: Timing::OnTime }
    }
}

/// Windows that have results, with their records.
#[derive(Debug, Default)]
pub(super) struct Due {
    windows: Vec<WindowOf>,
    /// The first row of each window.
    firsts: Vec<usize>,
    /// The rows of each window, and the one that its result begins with, where windows are of records and overlap.
    rolling: Vec<(std::ops::Range<usize>, usize)>,
    /// How many rows those windows have together.
    rolled_rows: usize,
    rows: EncodedRows,
    /// Windows that no longer are, each with a row of its key.
    gone: Vec<(i64, i64)>,
    gone_rows: EncodedRows,
}

/// Rows as they are kept, one after the other.
#[derive(Debug, Default)]
struct EncodedRows {
    /// Where each row ends.
    ends: Vec<usize>,
    bytes: Vec<u8>,
}

impl EncodedRows {
    fn push(&mut self, row: &[u8]) {
        self.bytes.extend_from_slice(row);
        self.ends.push(self.bytes.len());
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, &end)| &self.bytes[start..end])
    }
}

impl Due {
    /// Begins a window; its rows follow.
    pub(super) fn begin(&mut self, window: WindowOf) {
        self.windows.push(window);
        self.firsts.push(self.rows());
    }

    /// Adds a window of rows that are there, for one of them.
    pub(super) fn roll(&mut self, window: WindowOf, rows: std::ops::Range<usize>, of: usize) {
        self.windows.push(window);
        self.firsts.push(of);
        self.rolled_rows += rows.len();
        self.rolling.push((rows, of));
    }

    /// Adds a row to the window that was begun last.
    pub(super) fn push(&mut self, row: &[u8]) {
        self.rows.push(row);
    }

    /// The result of this window no longer holds. The row is one of its key.
    pub(super) fn withdraw(&mut self, start: i64, end: i64, row: &[u8]) {
        self.gone.push((start, end));
        self.gone_rows.push(row);
    }

    /// How many rows there are.
    pub(super) fn rows(&self) -> usize {
        self.rows.ends.len()
    }

    /// How many rows results are computed of.
    pub(super) fn work(&self) -> usize {
        self.rows().max(self.rolled_rows)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.windows.is_empty() && self.gone.is_empty()
    }

    /// The rows of a window.
    fn range(&self, window: usize) -> std::ops::Range<usize> {
        if let Some((rows, _)) = self.rolling.get(window) {
            return rows.clone();
        }
        let end = self.firsts.get(window + 1).copied().unwrap_or(self.rows());
        self.firsts[window]..end
    }
}

/// What is computed of windows, in their order.
struct Results {
    /// The number of the window of each.
    windows: Vec<u32>,
    columns: Vec<ArrayRef>,
    /// Those that say that the window has no result any more, if there are any.
    deletes: Option<BooleanBuffer>,
}

/// Computes results.
pub(super) struct Computer {
    schema: SchemaRef,
    records: SchemaRef,
    converter: RowConverter,
    /// The key columns among the kept ones, or all columns of the record where results are of records.
    keys: Vec<usize>,
    is_timed: bool,
    has_bounds: bool,
    has_panes: bool,
    compute: Compute,
}

enum Compute {
    Aggregates(Box<Groups>, SchemaRef),
    Reduce(Arc<dyn ReduceFunction>),
    Apply(Arc<dyn WindowFunction>),
}

impl Computer {
    pub(super) fn new(
        schema: &SchemaRef,
        records: &SchemaRef,
        keys: &[usize],
        spec: &KeptWindowSpec,
        compute: &WindowCompute,
    ) -> Result<Computer> {
        let aggregates = if let WindowCompute::Aggregates(specs) = compute { specs.len() } else { 0 };
        let compute = match compute {
            WindowCompute::Aggregates(specs) => Compute::Aggregates(Box::new(groups(specs, records)?), numbered(records)),
            WindowCompute::Reduce(function) => Compute::Reduce(Arc::clone(function)),
            WindowCompute::Apply(function) => Compute::Apply(Arc::clone(function)),
        };
        Ok(Computer {
            schema: Arc::clone(schema),
            records: Arc::clone(records),
            converter: converter(records)?,
            keys: match spec.window.is_of_records() {
                // The aggregates' columns of the schema come last.
                true => (0..schema.fields().len().saturating_sub(aggregates)).collect(),
                false => keys.to_vec(),
            },
            is_timed: spec.window.is_timed(),
            has_bounds: spec.window.has_bounds(),
            has_panes: !spec.trigger.is_default(),
            compute,
        })
    }

    /// Emits the results of windows: what no longer holds first.
    pub(super) fn compute(&mut self, due: Due, out: &mut Outbox) -> Result<()> {
        self.withdraw(&due, out)?;
        let rows = self.decode(&due.rows)?;
        if due.windows.is_empty() {
            return Ok(());
        }
        let (results, is_function) = match &mut self.compute {
            Compute::Aggregates(..) => (self.aggregate(&due, &rows, out)?, false),
            Compute::Reduce(_) => (self.reduce(&due, &rows, out)?, true),
            Compute::Apply(_) => (self.apply(&due, &rows, out)?, true),
        };
        let (windows, columns) = results.unzip();
        let mut results = Results { windows: windows.unwrap_or_default(), columns: columns.unwrap_or_default(), deletes: None };
        if is_function && self.has_panes {
            results = self.with_withdrawals(&due, results)?;
        }
        if results.windows.is_empty() { Ok(()) } else { self.emit(&due, &rows, results, out) }
    }

    /// The results, with a withdrawal where the function returned nothing, or failed, of a window that had a result before. A
    /// window may be due several times, so all go out in the order of the windows.
    fn with_withdrawals(&self, due: &Due, results: Results) -> Result<Results> {
        let mut found = results.windows.iter().zip(0u32..).peekable();
        let (mut windows, mut places) = (Vec::new(), Vec::new());
        for (window, number) in due.windows.iter().zip(0u32..) {
            // With a trigger a window has one result at most.
            let place = found.next_if(|(of, _)| **of == number).map(|(_, place)| place);
            if place.is_some() || window.pane > 0 {
                windows.push(number);
                places.push(place);
            }
        }
        if places.len() == results.windows.len() {
            return Ok(results);
        }
        let columns = match results.columns.is_empty() {
            true => self.empty_results(windows.len()),
            false => {
                let rows = UInt32Array::from(places.clone());
                let columns = results.columns.iter().map(|column| take(column, &rows, None));
                columns.collect::<std::result::Result<Vec<ArrayRef>, _>>().map_err(|error| Error::internal(error.to_string()))?
            }
        };
        let deletes = BooleanBuffer::collect_bool(places.len(), |row| places[row].is_none());
        Ok(Results { windows, columns, deletes: Some(deletes) })
    }

    fn decode(&self, rows: &EncodedRows) -> Result<RecordBatch> {
        let damaged = |error: arrow::error::ArrowError| Error::checkpoint(format!("the state of a window is damaged: {error}"));
        let options = RecordBatchOptions::new().with_row_count(Some(rows.ends.len()));
        if self.records.fields().is_empty() {
            return RecordBatch::try_new_with_options(Arc::clone(&self.records), Vec::new(), &options).map_err(damaged);
        }
        let parser = self.converter.parser();
        let columns = self.converter.convert_rows(rows.iter().map(|row| parser.parse(row))).map_err(damaged)?;
        let columns = columns.iter().zip(self.records.fields()).map(|(column, field)| match column.data_type() == field.data_type() {
            true => Ok(Arc::clone(column)),
            false => cast(column, field.data_type()),
        });
        let columns = columns.collect::<std::result::Result<Vec<ArrayRef>, _>>().map_err(damaged)?;
        RecordBatch::try_new_with_options(Arc::clone(&self.records), columns, &options).map_err(damaged)
    }

    /// The number of the window of each result, and the columns of the results.
    fn aggregate(&mut self, due: &Due, rows: &RecordBatch, out: &mut Outbox) -> Result<Option<(Vec<u32>, Vec<ArrayRef>)>> {
        let Compute::Aggregates(groups, schema) = &mut self.compute else { return Ok(None) };
        let numbers: Int64Array =
            (0..due.windows.len()).flat_map(|window| due.range(window).map(move |_| window as i64)).collect();
        let expanded = match due.rolling.is_empty() {
            true => rows.clone(),
            false => {
                let places: UInt32Array =
                    due.rolling.iter().flat_map(|(range, _)| range.clone().map(|row| row as u32)).collect();
                arrow::compute::take_record_batch(rows, &places).map_err(|error| Error::internal(error.to_string()))?
            }
        };
        let mut columns = expanded.columns().to_vec();
        columns.push(Arc::new(numbers));
        let data = RecordBatch::try_new(Arc::clone(schema), columns).map_err(|error| Error::internal(error.to_string()))?;
        groups.prepare(&data)?;
        groups.update_span(0, Span { start: 0, len: data.num_rows() })?;
        groups.reject_problems(&expanded, out);
        let mut cursor = Cursor::default();
        let mut windows: Vec<u32> = Vec::with_capacity(due.windows.len());
        let mut parts: Vec<Vec<ArrayRef>> = Vec::new();
        while let Some((keys, results)) = groups.results(0, &mut cursor, usize::MAX >> 1, false)? {
            let numbers = keys.first().and_then(|column| column.as_primitive_opt::<Int64Type>());
            let numbers = numbers.ok_or_else(|| Error::internal("results of windows are numbered"))?;
            windows.extend(numbers.values().iter().map(|&number| number as u32));
            parts.push(results);
        }
        groups.close(0);
        let unfit = groups.take_unfit().into_iter().map(|row| (groups.named_results(&row, self.schema.fields()), row));
        for (results, UnfitRow { keys, error, .. }) in unfit.collect::<Vec<_>>() {
            let number = keys.first().and_then(|column| column.as_primitive_opt::<Int64Type>());
            let window = number.map_or(0, |number| number.value(0) as usize);
            out.reject(Rejected::of(error, self.shown(due, rows, window, results)?));
        }
        let columns = (0..parts.first().map_or(0, Vec::len)).map(|column| {
            let parts: Vec<&dyn Array> = parts.iter().map(|part| part[column].as_ref()).collect();
            arrow::compute::concat(&parts).map_err(|error| Error::internal(error.to_string()))
        });
        let columns = columns.collect::<Result<Vec<ArrayRef>>>()?;
        // In the order of the windows.
        let mut order: Vec<u32> = (0..windows.len() as u32).collect();
        order.sort_unstable_by_key(|&row| windows[row as usize]);
        windows.sort_unstable();
        let order = UInt32Array::from(order);
        let columns = columns.iter().map(|column| take(column, &order, None).map_err(|error| Error::internal(error.to_string())));
        Ok(Some((windows, columns.collect::<Result<Vec<ArrayRef>>>()?)))
    }

    fn reduce(&mut self, due: &Due, rows: &RecordBatch, out: &mut Outbox) -> Result<Option<(Vec<u32>, Vec<ArrayRef>)>> {
        let Compute::Reduce(function) = &self.compute else { return Ok(None) };
        let (mut windows, mut results) = (Vec::new(), Vec::new());
        for window in 0..due.windows.len() {
            let range = due.range(window);
            let records = rows.slice(range.start, range.len());
            let reduced = function.reduce(None, &records).and_then(|row| {
                let name = function.name();
                if row.num_rows() != 1 {
                    let message = format!("{name} returned {} rows; a reduce returns one", row.num_rows());
                    return Err(Error::new(ErrorKind::UserFunction, message));
                }
                same_key(&name, &self.keys, &row, &records)?;
                Ok(row)
            });
            match reduced {
                Ok(row) => {
                    windows.push(window as u32);
                    results.push(row);
                }
                Err(error) => self.refuse(error, due, rows, window, out)?,
            }
        }
        let Some(all) = concatenated(&self.records, &results)? else { return Ok(None) };
        let others = (0..all.num_columns()).filter(|column| !self.keys.contains(column));
        let columns = others.map(|column| Arc::clone(all.column(column))).collect();
        Ok(Some((windows, columns)))
    }

    fn apply(&mut self, due: &Due, rows: &RecordBatch, out: &mut Outbox) -> Result<Option<(Vec<u32>, Vec<ArrayRef>)>> {
        let Compute::Apply(function) = &self.compute else { return Ok(None) };
        let bound_type = self.bound_type();
        let keys = rows.project(&self.keys).map_err(|error| Error::internal(error.to_string()))?;
        let (mut windows, mut results) = (Vec::new(), Vec::new());
        for (window, of) in due.windows.iter().enumerate() {
            let range = due.range(window);
            let records = rows.slice(range.start, range.len());
            let bounds = match &bound_type {
                Some(bound_type) => {
                    Some([time_column(of.start, 1, bound_type)?, time_column(of.end, 1, bound_type)?])
                }
                None => None,
            };
            let key = keys.slice(range.start, 1);
            let call = WindowRecords { key: &key, bounds: bounds.as_ref(), rows: records.clone() };
            let applied = function.apply(&call).and_then(|batch| match batch.num_rows() {
                rows @ 2.. if self.has_panes => Err(Error::new(
                    ErrorKind::UserFunction,
                    format!(
                        "{} returned {rows} records for a window; with a trigger a later result replaces an earlier one, so it returns \
                         one, or none: return a list in a column, or leave trigger= out",
                        function.name()
                    ),
                )),
                _ => Ok(batch),
            });
            match applied {
                Ok(batch) => {
                    windows.extend(std::iter::repeat_n(window as u32, batch.num_rows()));
                    results.push(batch);
                }
                Err(error) => self.refuse(error, due, rows, window, out)?,
            }
        }
        let Some(first) = results.first() else { return Ok(None) };
        let schema = first.schema();
        let all = concatenated(&schema, &results)?;
        Ok(all.filter(|all| all.num_rows() > 0).map(|all| (windows, all.columns().to_vec())))
    }

    /// The type of the bounds, in the plan's words; `None` if results have none.
    pub(super) fn bound_type(&self) -> Option<DataType> {
        self.has_bounds.then(|| {
            let field = self.schema.field_with_name("window_start");
            field.map_or(DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, None), |field| field.data_type().clone())
        })
    }

    /// A window of which nothing can be computed is a record that cannot be processed; the job decides what becomes of it.
    fn refuse(&self, error: Error, due: &Due, rows: &RecordBatch, window: usize, out: &mut Outbox) -> Result<()> {
        if !matches!(error.kind(), ErrorKind::Data | ErrorKind::UserFunction) {
            return Err(error);
        }
        out.reject(Rejected::of(error, self.shown(due, rows, window, Vec::new())?));
        Ok(())
    }

    /// A window as a message shows it: its key and its bounds, or the record that it is of, and those of its results that there are.
    fn shown(&self, due: &Due, rows: &RecordBatch, window: usize, results: Vec<(FieldRef, ArrayRef)>) -> Result<String> {
        let first = due.firsts[window];
        // Keys have the names of the result, where they come first; those of a function are named as they are in the records.
        let name = |place: usize, key: usize| match self.compute {
            Compute::Apply(_) => self.records.field(key).name(),
            Compute::Aggregates(..) | Compute::Reduce(_) => self.schema.field(place).name(),
        };
        let mut fields: Vec<FieldRef> = Vec::new();
        let mut columns: Vec<ArrayRef> = Vec::new();
        for (place, &key) in self.keys.iter().enumerate() {
            fields.push(Arc::new(self.records.field(key).clone().with_name(name(place, key))));
            columns.push(rows.column(key).slice(first, 1));
        }
        if let Some(bound_type) = self.bound_type() {
            for (name, bound) in [("window_start", due.windows[window].start), ("window_end", due.windows[window].end)] {
                fields.push(Arc::new(Field::new(name, bound_type.clone(), true)));
                columns.push(time_column(bound, 1, &bound_type)?);
            }
        }
        for (field, result) in results {
            fields.push(field);
            columns.push(result);
        }
        if columns.is_empty() {
            return Ok("{}".to_owned());
        }
        let shown = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns);
        Ok(record_json(&shown.map_err(|error| Error::internal(error.to_string()))?, 0))
    }

    /// Emits that results of windows no longer hold.
    fn withdraw(&mut self, due: &Due, out: &mut Outbox) -> Result<()> {
        if due.gone.is_empty() {
            return Ok(());
        }
        let rows = self.decode(&due.gone_rows)?;
        let count = due.gone.len();
        let windows = due.gone.iter().map(|&(start, end)| WindowOf { start, end, ..WindowOf::whole() }).collect();
        let gone = Due { windows, firsts: (0..count).collect(), ..Due::default() };
        let deletes = Some(BooleanBuffer::new_set(count));
        let withdrawals = Results { windows: (0..count as u32).collect(), columns: self.empty_results(count), deletes };
        self.emit(&gone, &rows, withdrawals, out)
    }

    /// What is computed of windows that have no result any more.
    fn empty_results(&self, rows: usize) -> Vec<ArrayRef> {
        let first = self.keys.len() + self.own_columns();
        self.schema.fields().iter().skip(first).map(|field| new_null_array(field.data_type(), rows)).collect()
    }

    /// How many columns stand between the keys and what is computed.
    fn own_columns(&self) -> usize {
        2 * (usize::from(self.has_bounds) + usize::from(self.has_panes))
    }

    /// Emits results and withdrawals.
    fn emit(&self, due: &Due, rows: &RecordBatch, results: Results, out: &mut Outbox) -> Result<()> {
        let Results { windows, columns: results, deletes } = results;
        let is_withdrawn = |row: usize| deletes.as_ref().is_some_and(|deletes| deletes.value(row));
        let of = |row: usize| &due.windows[windows[row] as usize];
        let count = windows.len();
        let firsts: UInt32Array = windows.iter().map(|&window| due.firsts[window as usize] as u32).collect();
        let bound_type = self.bound_type();
        let mut own: Vec<(&str, ArrayRef)> = Vec::new();
        for &key in &self.keys {
            let column = take(rows.column(key), &firsts, None).map_err(|error| Error::internal(error.to_string()))?;
            own.push((self.records.field(key).name(), column));
        }
        if let Some(bound_type) = &bound_type {
            own.push(("window_start", time_values((0..count).map(|row| Some(of(row).start)), bound_type)?));
            own.push(("window_end", time_values((0..count).map(|row| Some(of(row).end)), bound_type)?));
        }
        if self.has_panes {
            let panes: Int64Array = (0..count).map(|row| (!is_withdrawn(row)).then(|| of(row).pane)).collect();
            let timings: StringArray = (0..count)
                .map(|row| {
                    (!is_withdrawn(row)).then(|| of(row).timing.as_str())
                })
                .collect();
            own.push(("pane", Arc::new(panes)));
            own.push(("pane_timing", Arc::new(timings)));
        }
        let fields = &self.schema.fields()[..self.schema.fields().len().saturating_sub(results.len())];
        let mut columns = Vec::with_capacity(self.schema.fields().len());
        for (place, (name, column)) in own.into_iter().enumerate() {
            let field = match self.compute {
                // The function may return columns of these names itself; then the plan has left ours out.
                Compute::Apply(_) => fields.iter().find(|field| field.name() == name),
                // A key that is computed has another name among the records than in the result.
                Compute::Aggregates(..) | Compute::Reduce(_) => fields.get(place),
            };
            if let Some(field) = field {
                // Keys of dictionaries are plain in results.
                columns.push(cast(&column, field.data_type()).map_err(|error| Error::internal(error.to_string()))?);
            }
        }
        columns.extend(results);
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        let data = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)
            .map_err(|error| Error::internal(format!("results do not fit their columns: {error}")))?;
        let mut batch = Batch::new(data);
        if self.is_timed {
            batch = batch.with_times(Some((0..count).map(|row| of(row).end.saturating_sub(1)).collect()));
        }
        if deletes.is_some() {
            batch = batch.with_deletes(deletes);
        }
        out.push(batch);
        Ok(())
    }
}

fn concatenated(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Option<RecordBatch>> {
    if batches.is_empty() {
        return Ok(None);
    }
    concat_batches(schema, batches).map(Some).map_err(|error| Error::internal(error.to_string()))
}

/// The kept columns with the number of the window.
fn numbered(records: &SchemaRef) -> SchemaRef {
    let mut fields: Vec<Arc<Field>> = records.fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new("__window", DataType::Int64, false)));
    Arc::new(Schema::new(fields))
}

fn groups(specs: &[AggregateSpec], records: &SchemaRef) -> Result<Groups> {
    let table = TableOptions { groups: 0..128, state: 0, is_persistent: false, tracks_changes: false };
    let options = GroupOptions { table, is_partial: false, keeps_pending: false, is_ahead: false, is_timed: false, owner_columns: None, has_tally: false, carries_at: None };
    Groups::new(&[records.fields().len()], &[DataType::Int64], specs, &options)
}
