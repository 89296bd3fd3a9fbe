//! The states of each key: a row a key, kept in one cell.
//!
//! ```text
//!   cell = version of the columns u16, row in Arrow's row encoding
//! ```
//!
//! A row is written with the columns that the function has now and read with those it was written with, so that a function
//! that keeps more than before continues from a checkpoint without anything being rewritten. Where a type is another one, all rows are
//! rewritten first. A key of which nothing is set has
//! no row.
//!
//! Besides, a row has when the next of its values grows too old on each clock, as far as a deadline is set, and the latest
//! event time of its key for functions that are called at the end.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, UInt32Array, new_null_array};
use arrow::compute::{concat, take};
use arrow::datatypes::{Field, Int64Type, Schema, SchemaRef};
use mill_frame::schema;
use mill_plan::{StateSpec, TimerClock, Ttl};
use mill_protocol::{Error, Result};
use mill_state::{Cursor, KeyBatch, KeyKind, KeyedState, RowLayout, RowsRead, StateBackend};

use super::evolve;
use crate::accumulator::state_error;
use crate::row_codec::RowCodec;

/// The pane that all keys are in.
const PANE: i64 = 0;
/// What comes before the row in a cell.
const VERSION_BYTES: usize = 2;
/// How many versions the columns of one step may have had.
const VERSIONS_MAX: usize = 1000;

/// Where the states of a step are.
pub(super) struct Values {
    table: KeyedState,
    cell: usize,
    /// The words with the deadlines of both clocks.
    deadlines: [usize; 2],
    /// The word with the latest event time.
    latest: usize,
    /// Every version of the columns that rows may be written with; the last one is that of now.
    versions: Vec<RowCodec>,
    /// The columns of now, all of them.
    pub(super) schema: SchemaRef,
    /// Which of them say when another was written.
    is_written: Vec<bool>,
    aged: Vec<Aged>,
}

/// A state whose values grow too old.
struct Aged {
    ttl: Ttl,
    /// The column that says when its values were written.
    written: usize,
    /// All of its columns.
    columns: Range<usize>,
}

/// A time as a word: zero before all times.
fn word_of(time: i64) -> u64 {
    (time as u64) ^ (1 << 63)
}

fn time_of(word: u64) -> i64 {
    (word ^ (1 << 63)) as i64
}

fn place_of(clock: TimerClock) -> usize {
    match clock {
        TimerClock::Event => 0,
        TimerClock::Processing => 1,
    }
}

/// When a key is to be looked at.
pub(super) struct Deadline {
    pub(super) clock: TimerClock,
    pub(super) at: i64,
    /// The record that has the key.
    pub(super) record: usize,
}

/// Deadlines that change: those that are gone, and those to be set after that.
#[derive(Default)]
pub(super) struct Deadlines {
    pub(super) gone: Vec<Deadline>,
    pub(super) set: Vec<Deadline>,
}

impl Deadlines {
    /// Brings the deadline of a key forward to this time; the word is that of its row.
    fn advance(&mut self, word: &mut u64, at: i64, clock: TimerClock, record: usize) {
        let former = (*word != 0).then(|| time_of(*word));
        if former.is_some_and(|former| former <= at) {
            return;
        }
        self.gone.extend(former.map(|at| Deadline { clock, at, record }));
        self.set.push(Deadline { clock, at, record });
        *word = word_of(at);
    }
}

/// Before all times that are asked for, and not before all times.
const AT_ONCE: i64 = i64::MIN + 1;

impl Values {
    pub(super) fn new(backend: &mut StateBackend, kind: &KeyKind, states: &[StateSpec]) -> Result<Values> {
        let mut layout = RowLayout::builder(kind.clone());
        let cell = layout.cell();
        let deadlines = [layout.words(1), layout.words(1)];
        let latest = layout.words(1);
        let layout = layout.finish("states of a process function 1").map_err(state_error)?;
        let table = backend.keyed("values", Arc::new(layout), false);
        let fields: Vec<Arc<Field>> = states.iter().flat_map(|state| state.columns.iter().cloned()).collect();
        let (mut is_written, mut aged) = (vec![false; fields.len()], Vec::new());
        let mut first = 0;
        for state in states {
            if let Some(ttl) = state.ttl {
                is_written[first + ttl.written] = true;
                aged.push(Aged { ttl, written: first + ttl.written, columns: first..first + state.columns.len() });
            }
            first += state.columns.len();
        }
        let schema: SchemaRef = Arc::new(Schema::new(fields));
        let versions = vec![RowCodec::new(Arc::clone(&schema))?];
        Ok(Values { table, cell, deadlines, latest, versions, schema, is_written, aged })
    }

    /// The states of keys, null where none is set: a row for each of these records of the batch.
    pub(super) fn load(&self, backend: &mut StateBackend, keys: &KeyBatch, records: &[u32]) -> Result<RecordBatch> {
        self.load_as(&self.schema, backend, keys, records)
    }

    /// The same with other columns, which rows have been written with.
    pub(super) fn load_as(
        &self,
        schema: &SchemaRef,
        backend: &mut StateBackend,
        keys: &KeyBatch,
        records: &[u32],
    ) -> Result<RecordBatch> {
        if schema.fields().is_empty() {
            return batch(schema, Vec::new(), records.len());
        }
        let (rows, found) = backend[self.table].open(PANE).find_selected(keys, records);
        let read = self.read(&rows, schema)?;
        if found.len() == records.len() {
            return Ok(read);
        }
        let mut found = found.iter().enumerate().peekable();
        let places: UInt32Array = records
            .iter()
            .map(|record| found.next_if(|(_, of)| *of == record).map(|(place, _)| place as u32))
            .collect();
        let columns = read.columns().iter().map(|column| match read.num_rows() {
            0 => Ok(new_null_array(column.data_type(), records.len())),
            _ => take(column, &places, None).map_err(|error| Error::internal(error.to_string())),
        });
        batch(schema, columns.collect::<Result<Vec<ArrayRef>>>()?, records.len())
    }

    /// These columns of rows of the table.
    fn read(&self, rows: &RowsRead<'_>, schema: &SchemaRef) -> Result<RecordBatch> {
        let damaged = || Error::checkpoint("the state of a process function is damaged: a row names no version of its columns");
        // By version: the rows, and which of all they are.
        let mut of_versions: Vec<(Vec<&[u8]>, Vec<u32>)> = vec![Default::default(); self.versions.len()];
        for row in 0..rows.len() {
            let cell = rows.cell(row, self.cell).unwrap_or_default();
            let (version, bytes) = cell.split_first_chunk::<VERSION_BYTES>().ok_or_else(damaged)?;
            let of_version = of_versions.get_mut(usize::from(u16::from_le_bytes(*version))).ok_or_else(damaged)?;
            of_version.0.push(bytes);
            of_version.1.push(row as u32);
        }
        let mut parts = Vec::new();
        let mut order: Vec<u32> = vec![0; rows.len()];
        let mut count = 0;
        for (codec, (bytes, places)) in self.versions.iter().zip(of_versions) {
            if bytes.is_empty() {
                continue;
            }
            for place in places {
                order[place as usize] = count;
                count += 1;
            }
            parts.push(conformed(&codec.decode(bytes)?, schema)?);
        }
        match parts.as_slice() {
            [] => Ok(RecordBatch::new_empty(Arc::clone(schema))),
            [one] => Ok(one.clone()),
            several => {
                let order = UInt32Array::from(order);
                let column = |place: usize| {
                    let columns: Vec<&dyn Array> = several.iter().map(|part| part.column(place).as_ref()).collect();
                    concat(&columns).and_then(|all| take(&all, &order, None)).map_err(|error| Error::internal(error.to_string()))
                };
                let columns = (0..schema.fields().len()).map(column).collect::<Result<Vec<ArrayRef>>>()?;
                batch(schema, columns, rows.len())
            }
        }
    }

    /// Keeps the states of keys: a row for each of these records of the batch. Returns the deadlines that change by that.
    pub(super) fn store(
        &self,
        backend: &mut StateBackend,
        keys: &KeyBatch,
        records: &[u32],
        states: &RecordBatch,
    ) -> Result<Deadlines> {
        if self.schema.fields().is_empty() || records.is_empty() {
            return Ok(Deadlines::default());
        }
        let encoded = self.current().encode(states.columns())?;
        let values = || states.columns().iter().zip(&self.is_written).filter(|(_, is_written)| !**is_written);
        let is_set = |row: usize| values().any(|(column, _)| column.is_valid(row));
        let (kept, gone): (Vec<u32>, Vec<u32>) = (0..records.len() as u32).partition(|&row| is_set(row as usize));
        let records_of = |rows: &[u32]| -> Vec<u32> { rows.iter().map(|&row| records[row as usize]).collect() };
        let (kept_records, gone_records) = (records_of(&kept), records_of(&gone));
        let table = backend[self.table].open(PANE);
        let version = (self.versions.len() as u16 - 1).to_le_bytes();
        let expiries: Vec<(TimerClock, Vec<Option<i64>>)> =
            self.clocks().map(|clock| (clock, self.expiries(clock, states))).collect();
        let mut deadlines = Deadlines::default();
        let mut rows = table.find_or_insert(keys, &kept_records[..]);
        let mut state = Vec::new();
        for (place, &row) in kept.iter().enumerate() {
            state.clear();
            state.extend_from_slice(&version);
            state.extend_from_slice(encoded.row(row as usize).as_ref());
            rows.cell(place, self.cell).set(&state);
            for (clock, expiries) in &expiries {
                let Some(at) = expiries[row as usize] else { continue };
                let word = &mut rows.row(place)[self.deadlines[place_of(*clock)]];
                deadlines.advance(word, at, *clock, kept_records[place] as usize);
            }
        }
        if !gone.is_empty() {
            let (rows, found) = table.find_selected(keys, &gone_records[..]);
            for (clock, _) in &expiries {
                let words = rows.words(self.deadlines[place_of(*clock)]);
                let set = words.into_iter().zip(&found).filter(|(word, _)| *word != 0);
                let gone = set.map(|(word, &record)| Deadline { clock: *clock, at: time_of(word), record: record as usize });
                deadlines.gone.extend(gone);
            }
        }
        for record in gone_records {
            table.remove(keys, record as usize);
        }
        Ok(deadlines)
    }

    fn current(&self) -> &RowCodec {
        self.versions.last().expect("there is a version of the columns of now")
    }

    /// The clocks by which anything grows old.
    pub(super) fn clocks(&self) -> impl Iterator<Item = TimerClock> + '_ {
        let has = |clock: &TimerClock| self.aged.iter().any(|aged| aged.ttl.clock == *clock);
        [TimerClock::Event, TimerClock::Processing].into_iter().filter(has)
    }

    /// When the first value of each row grows too old by this clock.
    fn expiries(&self, clock: TimerClock, states: &RecordBatch) -> Vec<Option<i64>> {
        let mut out = vec![None; states.num_rows()];
        for Aged { ttl, written, .. } in self.aged.iter().filter(|aged| aged.ttl.clock == clock) {
            let column = states.column(*written);
            for (row, expiry) in out.iter_mut().enumerate().filter(|(row, _)| column.is_valid(*row)) {
                let written = match column.as_primitive_opt::<Int64Type>() {
                    Some(times) => Some(times.value(row)),
                    None => {
                        let times = column.as_list::<i32>().value(row);
                        times.as_primitive_opt::<Int64Type>().and_then(|times| times.iter().flatten().min())
                    }
                };
                let Some(at) = written.map(|written| written.saturating_add(ttl.us)) else { continue };
                *expiry = Some(expiry.map_or(at, |other: i64| other.min(at)));
            }
        }
        out
    }

    /// Whether rows may have values of a state with a ttl that they had before it had one: nothing says when those were written.
    pub(super) fn may_be_unwritten(&self) -> bool {
        let has = |version: &RowCodec, column: usize| version.schema().field_with_name(self.schema.field(column).name()).is_ok();
        let is_unwritten = |version: &RowCodec, aged: &Aged| {
            !has(version, aged.written) && aged.columns.clone().any(|column| has(version, column))
        };
        self.versions.iter().any(|version| self.aged.iter().any(|aged| is_unwritten(version, aged)))
    }

    /// The rows of states that have such values by this clock.
    pub(super) fn unwritten(&self, clock: TimerClock, states: &RecordBatch) -> Vec<u32> {
        let is_unwritten = |row: usize, aged: &Aged| {
            states.column(aged.written).is_null(row) && aged.columns.clone().any(|column| states.column(column).is_valid(row))
        };
        let of_clock: Vec<&Aged> = self.aged.iter().filter(|aged| aged.ttl.clock == clock).collect();
        (0..states.num_rows() as u32).filter(|&row| of_clock.iter().any(|aged| is_unwritten(row as usize, aged))).collect()
    }

    /// Keys that have states are to be looked at as soon as this clock advances. Returns the deadlines that change by that.
    pub(super) fn look_at_once(&self, backend: &mut StateBackend, clock: TimerClock, keys: &KeyBatch, records: &[u32]) -> Deadlines {
        let mut deadlines = Deadlines::default();
        let mut rows = backend[self.table].open(PANE).find_or_insert(keys, records);
        rows.each::<1>(self.deadlines[place_of(clock)], |place, word| {
            deadlines.advance(&mut word[0], AT_ONCE, clock, records[place] as usize);
        });
        deadlines
    }

    /// Of these records those whose keys have states; their deadlines are to be set again.
    pub(super) fn take_deadlines(
        &self,
        backend: &mut StateBackend,
        clock: TimerClock,
        keys: &KeyBatch,
        records: &[u32],
    ) -> Vec<u32> {
        let table = backend[self.table].open(PANE);
        let (_, found) = table.find_selected(keys, records);
        let mut rows = table.find_or_insert(keys, &found[..]);
        rows.each::<1>(self.deadlines[place_of(clock)], |_, word| word[0] = 0);
        found
    }

    /// Notes the latest event time of keys that have states.
    pub(super) fn note_latest(&self, backend: &mut StateBackend, keys: &KeyBatch, latest: &[(u32, i64)]) {
        let records: Vec<u32> = latest.iter().map(|(record, _)| *record).collect();
        let table = backend[self.table].open(PANE);
        let (_, found) = table.find_selected(keys, &records[..]);
        let mut times = latest.iter();
        let times: Vec<i64> =
            found.iter().filter_map(|found| times.find(|(record, _)| record == found)).map(|(_, time)| *time).collect();
        let mut rows = table.find_or_insert(keys, &found[..]);
        rows.each::<1>(self.latest, |place, word| word[0] = word[0].max(word_of(times[place])));
    }

    /// The latest event time of keys that have states.
    pub(super) fn latest(&self, backend: &mut StateBackend, keys: &KeyBatch, records: &[u32]) -> Vec<i64> {
        let (rows, _) = backend[self.table].open(PANE).find_selected(keys, records);
        rows.words(self.latest).into_iter().map(time_of).collect()
    }

    /// Calls `each` with rows of keys and their states, some at a time.
    pub(super) fn scan(
        &self,
        backend: &mut StateBackend,
        rows_max: usize,
        mut each: impl FnMut(&RowsRead<'_>, RecordBatch) -> Result<()>,
    ) -> Result<()> {
        let mut cursor = Cursor::default();
        loop {
            let rows = backend[self.table].open(PANE).scan(&mut cursor, rows_max);
            if rows.is_empty() {
                return Ok(());
            }
            each(&rows, self.read(&rows, &self.schema)?)?;
        }
    }

    /// Calls `each` with rows of keys alone, some at a time.
    pub(super) fn scan_keys(
        &self,
        backend: &mut StateBackend,
        rows_max: usize,
        mut each: impl FnMut(&RowsRead<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut cursor = Cursor::default();
        loop {
            let rows = backend[self.table].open(PANE).scan(&mut cursor, rows_max);
            if rows.is_empty() {
                return Ok(());
            }
            each(&rows)?;
        }
    }

    /// The versions of the columns, for a snapshot.
    pub(super) fn write_versions(&self, out: &mut Vec<u8>) -> Result<()> {
        out.extend_from_slice(&(self.versions.len() as u32).to_le_bytes());
        for version in &self.versions {
            let bytes = schema::to_bytes(version.schema()).map_err(|error| Error::schema(error.to_string()))?;
            out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
            out.extend_from_slice(&bytes);
        }
        Ok(())
    }

    /// Takes up the versions of a snapshot. What the function kept then it must still keep, as the same type or one that the old
    /// values can be made of. Returns the columns of the last run if all rows have to be rewritten.
    pub(super) fn restore_versions(&mut self, former: Vec<Schema>, states: &[StateSpec]) -> Result<Option<SchemaRef>> {
        let Some(last) = former.last() else { return Ok(None) };
        let rewritten = evolve::check(last, states)?.then(|| Arc::new(last.clone()));
        let is_same = *last == *self.schema;
        let kept = former.len() - usize::from(is_same);
        if kept >= VERSIONS_MAX {
            return Err(Error::checkpoint(format!("the states of the function have changed {kept} times; start over on a new path")));
        }
        let former = former.into_iter().take(kept).map(|schema| RowCodec::new(Arc::new(schema)));
        let mut versions = former.collect::<Result<Vec<RowCodec>>>()?;
        versions.append(&mut self.versions);
        self.versions = versions;
        Ok(rewritten)
    }
}

/// Rows of an earlier version with the columns of now.
pub(super) fn conformed(rows: &RecordBatch, now: &SchemaRef) -> Result<RecordBatch> {
    if rows.schema_ref() == now {
        return Ok(rows.clone());
    }
    let column = |field: &Arc<Field>| match rows.column_by_name(field.name()) {
        Some(column) => ArrayRef::clone(column),
        None => new_null_array(field.data_type(), rows.num_rows()),
    };
    batch(now, now.fields().iter().map(column).collect(), rows.num_rows())
}

fn batch(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
        .map_err(|error| Error::internal(format!("states do not fit their columns: {error}")))
}

/// What the name of a column ends with that has the keys of a map.
pub(super) const KEYS: &str = "@keys";
/// What the name of a column ends with that says when another one was written.
pub(super) const WRITTEN: &str = "@written";

/// The versions that a snapshot has; what follows them.
pub(super) fn read_versions(bytes: &[u8]) -> Option<(Vec<Schema>, &[u8])> {
    let (count, mut rest) = number(bytes)?;
    let mut versions = Vec::new();
    for _ in 0..count {
        let (length, after) = number(rest)?;
        let (schema, after) = after.split_at_checked(length)?;
        versions.push(schema::from_bytes(schema).ok()?);
        rest = after;
    }
    Some((versions, rest))
}

fn number(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<4>()?;
    Some((u32::from_le_bytes(*number) as usize, rest))
}
