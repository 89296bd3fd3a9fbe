//! All that a process function has kept: states, timers, and when values grow too old.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, SchemaRef};
use mill_plan::{ProcessOutput, StateSpec, TimerAction, TimerChange, TimerClock};
use mill_protocol::{Error, Result, TaskContext};
use mill_state::{KeyBatch, KeyDecoder, KeyEncoder, KeyKind, LOOKUP_ROWS_MAX, OrderedRows, StateBackend};

use super::values::{Deadline, Deadlines, Values};
use crate::accumulator::state_error;
use crate::row_codec::RowCodec;
use crate::timers::Timers;

/// What is kept of each key.
pub(super) struct Store {
    pub(super) backend: StateBackend,
    pub(super) values: Values,
    pub(super) timers: Timers,
    /// When keys are to be looked at because a value may have grown too old.
    deadlines: Timers,
    /// The columns of the key, which timers have beside them: a key may have timers and no state.
    pub(super) key_rows: RowCodec,
    /// Timers that were set when their turn was over: they fire at the next watermark.
    set_for_next: Vec<ForNext>,
}

/// A timer that fires at the next watermark.
struct ForNext {
    clock: TimerClock,
    at: i64,
    key: Vec<u8>,
    value: Vec<u8>,
}

/// The keys that a call was about.
#[derive(Clone, Copy)]
pub(super) struct Keys<'a> {
    pub(super) batch: &'a KeyBatch,
    pub(super) kind: &'a KeyKind,
    /// The record of the batch that has each key.
    pub(super) records: &'a [u32],
    /// The columns of the keys.
    pub(super) columns: &'a RecordBatch,
}

/// Keys of which a value may have grown too old.
pub(super) struct DueKeys {
    pub(super) keys: KeyBatch,
    /// Those that have states.
    pub(super) records: Vec<u32>,
}

/// What is kept with a timer: the event time of its results, and the columns of its key.
pub(super) fn timer_value(stamp: i64, key_row: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(size_of::<i64>() + key_row.len());
    value.extend_from_slice(&stamp.to_le_bytes());
    value.extend_from_slice(key_row);
    value
}

impl Store {
    pub(super) fn new(key_schema: SchemaRef, states: &[StateSpec], context: &TaskContext) -> Result<Store> {
        let mut backend = StateBackend::new(context.groups.clone(), context.is_persistent);
        let kind = KeyKind::of(&types_of(&key_schema)).map_err(state_error)?;
        let values = Values::new(&mut backend, &kind, states)?;
        let timers = Timers::new(&mut backend, "timers", "event time of the results, columns of the key");
        let deadlines = Timers::new(&mut backend, "deadlines", "nothing");
        Ok(Store { backend, values, timers, deadlines, key_rows: RowCodec::new(key_schema)?, set_for_next: Vec::new() })
    }

    /// An encoder for the columns of keys as they are kept.
    pub(super) fn encoder(&self) -> Result<KeyEncoder> {
        KeyEncoder::new(&types_of(self.key_rows.schema())).map_err(state_error)
    }

    /// The states of keys, a row for each of these records of the batch.
    pub(super) fn load(&mut self, keys: &KeyBatch, records: &[u32]) -> Result<RecordBatch> {
        self.values.load(&mut self.backend, keys, records)
    }

    /// How many timers are set.
    pub(super) fn count(&self, clock: TimerClock) -> usize {
        self.timers.count(&self.backend, clock)
    }

    /// Whether any timer is set.
    pub(super) fn has_timers(&self) -> bool {
        self.count(TimerClock::Event) + self.count(TimerClock::Processing) > 0
    }

    /// Whether values may have grown too old by this clock, or may have in a former run: one that no state goes by any more can
    /// still have deadlines, which are to be taken out like others.
    pub(super) fn has_ages(&self, clock: TimerClock) -> bool {
        self.values.clocks().any(|of| of == clock) || self.deadlines.count(&self.backend, clock) > 0
    }

    /// When the next timer or deadline by processing time is due.
    pub(super) fn next_time(&self) -> Option<i64> {
        let next = |timers: Timers| timers.next(&self.backend, TimerClock::Processing);
        [next(self.timers), next(self.deadlines)].into_iter().flatten().min()
    }

    /// Takes out timers that are due, in their order.
    pub(super) fn take_timers(&mut self, clock: TimerClock, until: i64, timers_max: usize) -> OrderedRows {
        self.timers.take(&mut self.backend, clock, until, timers_max)
    }

    pub(super) fn set_timer(&mut self, clock: TimerClock, at: i64, key: &[u8], value: &[u8]) -> Result<()> {
        self.timers.set(&mut self.backend, clock, at, key, value)
    }

    /// Sets the timers that were to wait for the next watermark.
    pub(super) fn set_those_for_next(&mut self) -> Result<()> {
        for ForNext { clock, at, key, value } in std::mem::take(&mut self.set_for_next) {
            self.set_timer(clock, at, &key, &value)?;
        }
        Ok(())
    }

    /// Keeps what a call has changed: the states of some records of the batch, and timers.
    pub(super) fn keep(
        &mut self,
        keys: &Keys<'_>,
        changed: &[u32],
        states: Option<&RecordBatch>,
        timers: &[TimerChange],
    ) -> Result<()> {
        if let Some(states) = states {
            let deadlines = self.values.store(&mut self.backend, keys.batch, changed, states)?;
            self.set_deadlines(keys.batch, keys.kind, deadlines)?;
        }
        if timers.is_empty() {
            return Ok(());
        }
        let key_rows = self.key_rows.encode(keys.columns.columns())?;
        let mut key = Vec::new();
        for &TimerChange { key: number, clock, at, action } in timers {
            key.clear();
            keys.batch.write_key(keys.kind, keys.records[number as usize] as usize, &mut key);
            let value = |stamp: i64| timer_value(stamp, key_rows.row(number as usize).data());
            match action {
                TimerAction::Set { stamp } => self.set_timer(clock, at, &key, &value(stamp))?,
                TimerAction::SetForNext { stamp } => {
                    self.set_for_next.push(ForNext { clock, at, key: key.clone(), value: value(stamp) });
                }
                TimerAction::Delete => {
                    self.timers.delete(&mut self.backend, clock, at, &key);
                    self.set_for_next.retain(|other| (other.clock, other.at, &other.key) != (clock, at, &key));
                }
            }
        }
        Ok(())
    }

    /// Takes out keys of which a value may have grown too old by now.
    pub(super) fn take_due(
        &mut self,
        kind: &KeyKind,
        clock: TimerClock,
        until: i64,
        keys_max: usize,
    ) -> Result<Option<DueKeys>> {
        let due = self.deadlines.take(&mut self.backend, clock, until, keys_max);
        if due.is_empty() {
            return Ok(None);
        }
        let mut keys: Vec<&[u8]> = due.iter().map(|row| row.key).collect();
        keys.sort_unstable();
        keys.dedup();
        let all: Vec<u32> = (0..keys.len() as u32).collect();
        let keys = KeyBatch::of_written(kind, keys).map_err(state_error)?;
        let records = self.values.take_deadlines(&mut self.backend, clock, &keys, &all);
        Ok(Some(DueKeys { keys, records }))
    }

    /// Keeps what is left of the states of such keys, and sets their next deadlines.
    pub(super) fn keep_due(
        &mut self,
        kind: &KeyKind,
        due: &DueKeys,
        former: &RecordBatch,
        output: &ProcessOutput,
    ) -> Result<()> {
        let mut is_changed = vec![false; due.records.len()];
        output.changed.iter().for_each(|&key| is_changed[key as usize] = true);
        let same: Vec<u32> = (0..due.records.len() as u32).filter(|&key| !is_changed[key as usize]).collect();
        let records = |keys: &[u32]| -> Vec<u32> { keys.iter().map(|&key| due.records[key as usize]).collect() };
        let of_same = rows_of(former, &same)?;
        let deadlines = self.values.store(&mut self.backend, &due.keys, &records(&same), &of_same)?;
        self.set_deadlines(&due.keys, kind, deadlines)?;
        let Some(states) = &output.states else { return Ok(()) };
        let deadlines = self.values.store(&mut self.backend, &due.keys, &records(&output.changed), states)?;
        self.set_deadlines(&due.keys, kind, deadlines)
    }

    /// Rewrites all rows, of which each had these columns, as `evolve` says.
    pub(super) fn rewrite(
        &mut self,
        former: &SchemaRef,
        mut evolve: impl FnMut(RecordBatch, &SchemaRef) -> Result<RecordBatch>,
    ) -> Result<()> {
        let mut encoder = self.encoder()?;
        let kind = encoder.kind().clone();
        for columns in self.keys(LOOKUP_ROWS_MAX)? {
            encoder.encode(columns.columns(), columns.num_rows()).map_err(state_error)?;
            let records: Vec<u32> = (0..columns.num_rows() as u32).collect();
            let rows = self.values.load_as(former, &mut self.backend, encoder.batch(), &records)?;
            let rows = evolve(rows, &self.values.schema)?;
            let deadlines = self.values.store(&mut self.backend, encoder.batch(), &records, &rows)?;
            self.set_deadlines(encoder.batch(), &kind, deadlines)?;
        }
        Ok(())
    }

    /// Has keys looked at as soon as time advances that have values from before their state had a ttl: they count as written then.
    pub(super) fn look_at_unwritten(&mut self) -> Result<()> {
        if !self.values.may_be_unwritten() {
            return Ok(());
        }
        let decoder = KeyDecoder::new(&types_of(self.key_rows.schema())).map_err(state_error)?;
        let mut encoder = self.encoder()?;
        let kind = encoder.kind().clone();
        for clock in self.values.clocks().collect::<Vec<_>>() {
            let mut unwritten = Vec::new();
            self.values.scan(&mut self.backend, LOOKUP_ROWS_MAX, |rows, states| {
                let found = self.values.unwritten(clock, &states);
                if !found.is_empty() {
                    unwritten.push((decoder.decode(rows).map_err(state_error)?, rows.len(), found));
                }
                Ok(())
            })?;
            for (columns, rows, found) in unwritten {
                encoder.encode(&columns, rows).map_err(state_error)?;
                let deadlines = self.values.look_at_once(&mut self.backend, clock, encoder.batch(), &found);
                self.set_deadlines(encoder.batch(), &kind, deadlines)?;
            }
        }
        Ok(())
    }

    fn set_deadlines(&mut self, keys: &KeyBatch, kind: &KeyKind, deadlines: Deadlines) -> Result<()> {
        let mut key = Vec::new();
        for Deadline { clock, at, record } in deadlines.gone {
            key.clear();
            keys.write_key(kind, record, &mut key);
            self.deadlines.delete(&mut self.backend, clock, at, &key);
        }
        for Deadline { clock, at, record } in deadlines.set {
            key.clear();
            keys.write_key(kind, record, &mut key);
            self.deadlines.set(&mut self.backend, clock, at, &key, &[])?;
        }
        Ok(())
    }

    /// Notes the latest event time of keys that have states.
    pub(super) fn note_latest(&mut self, keys: &KeyBatch, latest: &[(u32, i64)]) {
        self.values.note_latest(&mut self.backend, keys, latest);
    }

    /// The latest event time of keys that have states.
    pub(super) fn latest(&mut self, keys: &KeyBatch, records: &[u32]) -> Vec<i64> {
        self.values.latest(&mut self.backend, keys, records)
    }

    /// The columns of all keys that have states, some at a time.
    pub(super) fn keys(&mut self, rows_max: usize) -> Result<Vec<RecordBatch>> {
        let schema = Arc::clone(self.key_rows.schema());
        let decoder = KeyDecoder::new(&types_of(&schema)).map_err(state_error)?;
        let mut keys = Vec::new();
        self.values.scan_keys(&mut self.backend, rows_max, |rows| {
            let columns = decoder.decode(rows).map_err(state_error)?;
            let batch = RecordBatch::try_new(Arc::clone(&schema), columns);
            keys.push(batch.map_err(|error| Error::internal(error.to_string()))?);
            Ok(())
        })?;
        Ok(keys)
    }
}

pub(super) fn types_of(schema: &SchemaRef) -> Vec<DataType> {
    schema.fields().iter().map(|field| field.data_type().clone()).collect()
}

fn rows_of(batch: &RecordBatch, rows: &[u32]) -> Result<RecordBatch> {
    let places = UInt32Array::from(rows.to_vec());
    let columns = batch.columns().iter().map(|column| take(column, &places, None));
    let columns = columns.collect::<std::result::Result<Vec<ArrayRef>, _>>();
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    columns
        .and_then(|columns| RecordBatch::try_new_with_options(batch.schema(), columns, &options))
        .map_err(|error| Error::internal(error.to_string()))
}
