//! What a process function has of a broadcast stream: states that are the same in every task, and keyed records that wait.
//!
//! ```text
//!   broadcast records ──call──► the row of its states ──► read by every later call
//!   keyed records ─► `waiting`, until a bounded broadcast stream has ended ─► as if they came then
//! ```
//!
//! Every task gets the same records in the same order and calls the same function, so at a barrier the row is the same in all
//! of them: the first task alone writes it, and each of the next run reads it, however many there are.
//!
//! While a bounded stream is read, the operator asks for its records alone, as `enrich` does. Keyed records come all the same
//! before a barrier, or where their source cannot wait. Those are kept, and event time does not advance as long as there are any.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions, new_null_array};
use arrow::datatypes::{Schema, SchemaRef};
use mill_frame::schema;
use mill_plan::{BroadcastStage, BroadcastStates, ProcessTask, StateSpec, UntilLoaded};
use mill_protocol::{Batch, Error, Result, TaskContext, Watermark};
use mill_state::{KeyEncoder, StateBackend};

use super::evolve;
use crate::accumulator::state_error;
use crate::pair::{Runs, Written};
use crate::row_codec::RowCodec;

/// The number of the keyed input.
pub(super) const KEYED: usize = 0;

/// The broadcast side of a process function.
pub(super) struct Broadcast {
    codec: RowCodec,
    states: Vec<StateSpec>,
    /// The states, in one row: null where nothing is set.
    row: RecordBatch,
    /// Counts the changes of the row.
    version: u64,
    /// Whether this task writes the row.
    is_writer: bool,
    is_timed: bool,
    until_loaded: UntilLoaded,
    /// Whether keyed records need not wait any more.
    is_loaded: bool,
    /// Keyed records that wait, and whether the state has them.
    waiting: VecDeque<(Batch, bool)>,
    runs: Runs,
    records: SchemaRef,
    /// How far both inputs have come.
    times: [Watermark; 2],
}

impl Broadcast {
    /// That of an instance whose keyed records have these columns.
    pub(super) fn new(
        stage: &BroadcastStage,
        records: &SchemaRef,
        backend: &mut StateBackend,
        context: &TaskContext,
    ) -> Result<Broadcast> {
        let states: SchemaRef = Arc::new(Schema::new(columns(&stage.states)));
        let row = states.fields().iter().map(|field| new_null_array(field.data_type(), 1)).collect();
        Ok(Broadcast {
            row: one_row(&states, row)?,
            codec: RowCodec::new(states)?,
            states: stage.states.clone(),
            version: 0,
            is_writer: context.index == 0,
            is_timed: stage.is_timed,
            until_loaded: stage.until_loaded,
            is_loaded: stage.until_loaded == UntilLoaded::Pass,
            waiting: VecDeque::new(),
            runs: waiting_runs(backend, records)?,
            records: Arc::clone(records),
            times: [Watermark::MIN; 2],
        })
    }

    /// The states, as a call gets them.
    pub(super) fn states(&self) -> BroadcastStates<'_> {
        BroadcastStates { version: self.version, row: &self.row }
    }

    /// Replaces the states by those that a call has returned.
    pub(super) fn set(&mut self, row: RecordBatch) -> Result<()> {
        if row.num_rows() != 1 {
            return Err(Error::internal(format!("{} rows of broadcast states", row.num_rows())));
        }
        self.row = one_row(self.codec.schema(), row.columns().to_vec())?;
        self.version += 1;
        Ok(())
    }

    /// Whether keyed records should come now.
    pub(super) fn wants_keyed(&self) -> bool {
        self.is_loaded || self.until_loaded != UntilLoaded::Hold
    }

    /// Whether records that come now can be processed at once.
    pub(super) fn is_ready(&self) -> bool {
        self.is_loaded && self.waiting.is_empty()
    }

    /// Has keyed records wait.
    pub(super) fn keep(&mut self, batch: Batch) {
        self.waiting.push_back((batch, false));
    }

    /// Records that need not wait any more.
    pub(super) fn take_waiting(&mut self) -> Option<Batch> {
        if !self.is_loaded {
            return None;
        }
        self.waiting.pop_front().map(|(batch, _)| batch)
    }

    /// The broadcast stream has ended.
    pub(super) fn set_loaded(&mut self) {
        self.is_loaded = true;
    }

    /// An input has come this far.
    pub(super) fn note_time(&mut self, input: usize, at: Watermark) {
        self.times[input] = self.times[input].max(at);
        if input != KEYED && at == Watermark::MAX {
            self.is_loaded = true;
        }
    }

    /// Whether the time of the keyed stream is the time of the step.
    pub(super) fn is_timed_by_keyed(&self) -> bool {
        !self.is_timed && self.until_loaded == UntilLoaded::Pass
    }

    /// How far event time has come; `None` while records wait that were ahead of it.
    pub(super) fn time(&self) -> Option<Watermark> {
        let [keyed, own] = self.times;
        self.is_ready().then(|| if self.is_timed_by_keyed() { keyed } else { keyed.min(own) })
    }

    /// Brings the records of the state up to date that wait. `keys` are their key columns.
    pub(super) fn write_waiting(&mut self, backend: &mut StateBackend, encoder: &mut KeyEncoder, keys: &[usize]) -> Result<()> {
        if self.waiting.is_empty() {
            self.runs.clear(backend);
        }
        for (batch, is_written) in self.waiting.iter_mut().filter(|(_, is_written)| !is_written) {
            let columns: Vec<_> = keys.iter().map(|&key| Arc::clone(batch.column(key))).collect();
            encoder.encode(&columns, batch.rows()).map_err(state_error)?;
            self.runs.write(backend, &Written { batch, hashes: encoder.batch().hashes(), rows: None })?;
            *is_written = true;
        }
        Ok(())
    }

    /// What of it a snapshot has beside blocks.
    ///
    /// ```text
    ///   next run u64, columns of keyed records, columns of the states, row     each but the first: length u32, bytes
    /// ```
    ///
    /// The row is empty in every task but the first.
    pub(super) fn write(&self, out: &mut Vec<u8>) -> Result<()> {
        out.extend_from_slice(&self.runs.next().to_le_bytes());
        for schema in [&self.records, self.codec.schema()] {
            piece(out, &schema::to_bytes(schema).map_err(|error| Error::schema(error.to_string()))?);
        }
        match self.is_writer {
            true => piece(out, self.codec.encode(self.row.columns())?.row(0).as_ref()),
            false => piece(out, &[]),
        }
        Ok(())
    }

    /// Takes up what all instances have written.
    pub(super) fn restore(&mut self, own: &[OwnBroadcast<'_>], task: &mut dyn ProcessTask) -> Result<()> {
        own.iter().for_each(|own| self.runs.restored(own.next_run));
        let Some(of_writer) = own.iter().find(|own| !own.row.is_empty()) else { return Ok(()) };
        evolve::check(&of_writer.states, &self.states)?;
        let former = RowCodec::new(Arc::new(of_writer.states.clone()))?.decode([of_writer.row])?;
        self.row = evolve::evolved(&former, &self.states, self.codec.schema(), task)?;
        self.version += 1;
        Ok(())
    }

    /// Takes up the records that waited.
    pub(super) fn restore_waiting(&mut self, backend: &StateBackend) -> Result<()> {
        self.waiting.extend(self.runs.read(backend)?.map(|batch| (batch, true)));
        Ok(())
    }
}

/// The state with the records that wait.
pub(super) fn waiting_runs(backend: &mut StateBackend, records: &SchemaRef) -> Result<Runs> {
    Runs::new(backend, "waiting", records, false)
}

fn columns(states: &[StateSpec]) -> Vec<arrow::datatypes::FieldRef> {
    states.iter().flat_map(|state| state.columns.iter().cloned()).collect()
}

fn one_row(schema: &SchemaRef, columns: Vec<arrow::array::ArrayRef>) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
        .map_err(|error| Error::internal(format!("broadcast states do not fit their columns: {error}")))
}

fn piece(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// What an instance has written of its broadcast side.
pub(super) struct OwnBroadcast<'a> {
    next_run: u64,
    /// The columns of keyed records.
    pub(super) records: Schema,
    /// The columns of the states.
    states: Schema,
    row: &'a [u8],
}

impl OwnBroadcast<'_> {
    /// Reads it; what follows comes back as well.
    pub(super) fn read(bytes: &[u8]) -> Option<(OwnBroadcast<'_>, &[u8])> {
        let (next_run, rest) = bytes.split_first_chunk::<8>()?;
        let (records, rest) = read_piece(rest)?;
        let (states, rest) = read_piece(rest)?;
        let (row, rest) = read_piece(rest)?;
        let written = OwnBroadcast {
            next_run: u64::from_le_bytes(*next_run),
            records: schema::from_bytes(records).ok()?,
            states: schema::from_bytes(states).ok()?,
            row,
        };
        Some((written, rest))
    }
}

fn read_piece(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_le_bytes(*length) as usize)
}

#[cfg(test)]
mod tests;
