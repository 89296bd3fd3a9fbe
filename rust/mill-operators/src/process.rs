//! `process`: a user's function of the records and timers of each key, with state.
//!
//! ```text
//!   records ──► distinct keys ──load──► states as columns ──call──► rows, changed states, changes of timers
//!                                                                     │        │                 │
//!                                                                   ports    values            timers
//!   watermark ─► timers due by event time, in order ──call──► …  ─► values that grew too old
//!   clock ─────► timers due by processing time, in order ──call──► …
//!   end ───────► all timers, then each key that has state, then the timers that those have set
//! ```
//!
//! A call is about the records of a piece of a frame, or about a number of timers. State between calls is here alone, so a
//! call that fails has changed nothing. It is then made again with fewer events, until the one that fails is alone: that one
//! is rejected. Records of a key are processed in their order, and so are timers.
//!
//! Invariants:
//!
//! - A result of a timer has the time of the timer, though never less than the watermark that has been passed on before: a
//!   timer of the past fires at the next watermark, and what it makes is not late for the next step. A timer that goes by
//!   processing time has the event time of the record or timer that has set it, with the same bound.
//! - A timer fires before any value grows too old by the same watermark, so that what it reads does not depend on how often
//!   watermarks come.
//! - Nothing is left half done at a barrier: the timers of a watermark have all fired, or none of them was taken. At the
//!   end of the input, where timers may set others for long or forever, they fire in pieces, between which the operator
//!   *awaits* the next one: a barrier can pass, so that a checkpoint or a stop waits for one piece only. Its state is then
//!   the same as if the timers that have fired had been due before. Once keys are called at the end, nothing comes between.

mod broadcast;
mod evolve;
mod store;
mod values;
mod view;

use std::sync::Arc;
use std::task::Waker;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, TimestampMicrosecondArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use mill_frame::text::record_json;
use mill_frame::types::canonical_type;
use mill_plan::{
    ProcessCall, ProcessEvents, ProcessFailure, ProcessOrigin, ProcessOutput, ProcessRows, ProcessStage, ProcessTask, Stage,
    StateSpec, TimerClock,
};
use mill_protocol::{
    Batch, Epoch, Error, ErrorKind, Operator, Outbox, Progress, Rejected, Restored, Result, Snapshot, TaskContext, Watermark,
    Watermarks,
};
use mill_state::{DistinctKeys, KeyBatch, KeyEncoder, LOOKUP_ROWS_MAX, Span};

use crate::accumulator::state_error;
use crate::description::{Described, Description, Shape, own};
use broadcast::{Broadcast, KEYED, OwnBroadcast};
use store::{Keys, Store, timer_value};
use values::read_versions;
pub(crate) use view::read;

/// How many events a call is about at most.
const EVENTS_MAX: usize = LOOKUP_ROWS_MAX;
/// How many timers may fire after the input has ended, beside those that were set then.
const DRAINED_MIN: u64 = 1_000_000;
/// How many more for each timer that was set when the input ended.
const DRAINED_PER_TIMER: u64 = 1_000;

/// Calls a user's function with records and timers.
pub(crate) struct Process {
    name: String,
    keys: Vec<usize>,
    states: Vec<StateSpec>,
    task: Box<dyn ProcessTask>,
    has_end: bool,
    is_timed: bool,
    /// The columns of the result and of the side outputs.
    schemas: Vec<SchemaRef>,
    encoder: KeyEncoder,
    store: Store,
    described: Described,
    /// What every task has of a broadcast stream, if there is one.
    broadcast: Option<Broadcast>,
    watermark: Watermark,
    /// The watermark before the one whose timers fire.
    floor: i64,
    now: i64,
    /// When the next timer or deadline by processing time is due.
    next_time: Option<i64>,
    work: Option<Work>,
    /// How many events the next call is about at most: fewer after one that failed.
    events_max: usize,
    /// The keys that are to be called at the end, some at a time.
    ended: Vec<RecordBatch>,
    /// How many timers may still fire after the end, while they do.
    drained_left: Option<u64>,
    /// How far the end has come.
    end: End,
    /// Whether the end itself has come, after which there is no barrier.
    has_ended: bool,
    waker: Waker,
}

/// What is under way while the operator says that there is more.
#[derive(Debug)]
enum Work {
    /// Records of a batch, from this one on.
    Records(Batch, usize),
    /// Records of the broadcast stream, from this one on.
    Broadcast(Batch, usize),
    /// Timers that are due.
    Timers(TimerClock, i64),
    /// Values that may have grown too old.
    Expiry(TimerClock, i64),
    /// The keys that have state, at the end of the input.
    Keys,
}

/// How far the end of the input has been taken care of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    No,
    /// Timers have fired, and keys have been called.
    KeysCalled,
    /// Nothing is left to do.
    Over,
}

/// Keys that a call is about.
struct Called {
    batch: RecordBatch,
    states: RecordBatch,
}

impl Process {
    pub(crate) fn new(stage: &Stage, process: &ProcessStage, context: &TaskContext) -> Result<Process> {
        let mut schemas = vec![Arc::clone(&stage.schema)];
        schemas.extend(process.sides.iter().cloned());
        let types: Vec<DataType> =
            process.keys.iter().map(|&key| process.records.field(key).data_type().clone()).collect();
        let fields: Vec<Field> = process.keys.iter().map(|&key| key_field(process.records.field(key))).collect();
        let mut store = Store::new(Arc::new(Schema::new(fields)), &process.states, context)?;
        let broadcast = match &process.broadcast {
            Some(stage) => Some(Broadcast::new(stage, &process.records, &mut store.backend, context)?),
            None => None,
        };
        let described = Description {
            schema: view::schema(store.key_rows.schema(), &store.values.schema),
            keeps_pending: false,
            shape: Shape::Process { keys: process.keys.len() },
        }
        .described();
        Ok(Process {
            name: process.function.name(),
            keys: process.keys.clone(),
            states: process.states.clone(),
            task: process.function.open()?,
            has_end: process.function.has_end(),
            is_timed: process.is_timed,
            schemas,
            encoder: KeyEncoder::new(&types).map_err(state_error)?,
            store,
            described,
            broadcast,
            watermark: Watermark::MIN,
            floor: i64::MIN,
            now: 0,
            next_time: None,
            work: None,
            events_max: EVENTS_MAX,
            ended: Vec::new(),
            drained_left: None,
            end: End::No,
            has_ended: false,
            waker: context.waker.clone(),
        })
    }

    fn is_draining(&self) -> bool {
        self.watermark == Watermark::MAX
    }

    /// The least event time that a result of a timer of this clock may have: how far time has been passed on.
    fn time_min(&self, clock: TimerClock) -> i64 {
        // While timers fire by event time, their watermark has not been passed on yet.
        if self.is_draining() || clock == TimerClock::Event { self.floor } else { self.floor.max(self.watermark.0) }
    }

    /// Does a piece of the work that is under way.
    fn go_on(&mut self, out: &mut Outbox) -> Result<Progress> {
        if self.work.is_none() {
            self.next_work()?;
        }
        let Some(work) = self.work.take() else {
            self.note_next_time();
            return Ok(Progress::Done);
        };
        self.work = match work {
            Work::Records(batch, from) => self.process_records(batch, from, out)?,
            Work::Broadcast(batch, from) => self.process_broadcast(batch, from)?,
            Work::Timers(clock, until) => self.fire_timers(clock, until, out)?,
            Work::Expiry(clock, until) => self.expire(clock, until)?,
            Work::Keys => self.call_keys(out)?,
        };
        if self.work.is_none() {
            self.next_work()?;
        }
        if self.work.is_none() {
            self.note_next_time();
        }
        if self.awaits() {
            self.next_time = None;
            self.waker.wake_by_ref();
            return Ok(Progress::Done);
        }
        Ok(if self.work.is_some() { Progress::More } else { Progress::Done })
    }

    /// What comes next: records that have waited, the time that has, and at the end of the input timers as long as there are any, the keys once.
    fn next_work(&mut self) -> Result<()> {
        if let Some(batch) = self.broadcast.as_mut().and_then(Broadcast::take_waiting) {
            return self.begin(batch);
        }
        if let Some(at) = self.broadcast.as_ref().and_then(Broadcast::time) {
            self.advance(at);
            if self.work.is_some() {
                return Ok(());
            }
        }
        if !self.is_draining() || self.end == End::Over {
            return Ok(());
        }
        self.store.set_those_for_next()?;
        let counts = [TimerClock::Event, TimerClock::Processing].map(|clock| self.store.count(clock) as u64);
        let allowed = DRAINED_MIN + DRAINED_PER_TIMER * (counts[0] + counts[1]);
        self.drained_left.get_or_insert(allowed);
        self.work = match counts {
            [0, 0] => match self.end {
                End::No => {
                    self.end = End::KeysCalled;
                    if self.has_end {
                        self.ended = self.store.keys(EVENTS_MAX)?;
                        Some(Work::Keys)
                    } else {
                        self.end = End::Over;
                        None
                    }
                }
                End::KeysCalled | End::Over => {
                    self.end = End::Over;
                    None
                }
            },
            [0, _] => Some(Work::Timers(TimerClock::Processing, i64::MAX)),
            [_, _] => Some(Work::Timers(TimerClock::Event, i64::MAX)),
        };
        Ok(())
    }

    fn note_next_time(&mut self) {
        self.next_time = self.store.next_time();
    }

    /// Begins with records of the keyed stream.
    fn begin(&mut self, batch: Batch) -> Result<()> {
        let keys: Vec<ArrayRef> = self.keys.iter().map(|&key| ArrayRef::clone(batch.column(key))).collect();
        self.encoder.encode(&keys, batch.rows()).map_err(state_error)?;
        self.work = Some(Work::Records(batch, 0));
        Ok(())
    }

    /// Event time has come this far; timers that are due by it are the work then.
    fn advance(&mut self, at: Watermark) {
        if at <= self.watermark {
            return;
        }
        self.floor = self.floor.max(self.watermark.0);
        self.watermark = at;
        if !self.is_draining() {
            // Records of the watermark's own time may follow.
            self.work = Some(Work::Timers(TimerClock::Event, at.0.saturating_sub(1)));
        }
    }

    /// Has the function change what every task keeps. A record on which it fails fails the job: if one task passed it over and
    /// another one did not, they would not keep the same any more.
    fn process_broadcast(&mut self, batch: Batch, from: usize) -> Result<Option<Work>> {
        let len = (batch.rows() - from).min(self.events_max);
        let piece = batch.slice(from, len);
        let called = Called {
            batch: RecordBatch::new_empty(Arc::clone(self.store.key_rows.schema())),
            states: RecordBatch::new_empty(Arc::clone(&self.store.values.schema)),
        };
        let events = ProcessEvents::Broadcast { rows: piece.data(), times: piece.times().map(|times| &times[..]) };
        let output = match self.call(&called, events, self.watermark.0) {
            Ok(output) => output,
            Err(failure) => {
                let Some(error) = self.shorten(failure, len)? else { return Ok(Some(Work::Broadcast(batch, from))) };
                let mut rejected = Rejected::of(error, record_json(piece.data(), 0));
                rejected.error.push_str("; every task calls process_broadcast(), so an error in it fails the job whatever on_error is");
                return Err(rejected.into_error());
            }
        };
        self.lengthen();
        if let (Some(broadcast), Some(row)) = (&mut self.broadcast, output.states) {
            broadcast.set(row)?;
        }
        let done = output.done.min(len);
        Ok((from + done < batch.rows()).then_some(Work::Broadcast(batch, from + done)))
    }

    fn process_records(&mut self, batch: Batch, from: usize, out: &mut Outbox) -> Result<Option<Work>> {
        let len = (batch.rows() - from).min(self.events_max);
        let piece = batch.slice(from, len);
        let kind = self.encoder.kind().clone();
        let DistinctKeys { of_records, firsts } = self.encoder.batch().distinct(&kind, Span { start: from, len });
        let places: UInt32Array = firsts.iter().map(|first| first - from as u32).collect();
        let columns = self.keys.iter().map(|&key| taken(piece.column(key), &places)).collect::<Result<Vec<ArrayRef>>>()?;
        let called = Called {
            batch: self.key_batch(columns, firsts.len())?,
            states: self.store.load(self.encoder.batch(), &firsts)?,
        };
        let times = piece.times().map(|times| &times[..]);
        let events = ProcessEvents::Records { rows: piece.data(), keys: &of_records, times };
        let output = match self.call(&called, events, self.watermark.0) {
            Ok(output) => output,
            Err(failure) => {
                let Some(error) = self.shorten(failure, len)? else { return Ok(Some(Work::Records(batch, from))) };
                out.reject(Rejected::of(error, record_json(piece.data(), 0)));
                return Ok((from + 1 < batch.rows()).then_some(Work::Records(batch, from + 1)));
            }
        };
        let done = output.done.min(len);
        self.lengthen();
        self.emit(output.rows, Some(&piece), i64::MIN, out)?;
        let changed: Vec<u32> = output.changed.iter().map(|&key| firsts[key as usize]).collect();
        let keys = Keys { batch: self.encoder.batch(), kind: &kind, records: &firsts, columns: &called.batch };
        self.store.keep(&keys, &changed, output.states.as_ref(), &output.timers)?;
        if self.has_end && let Some(times) = times {
            let mut latest = vec![i64::MIN; firsts.len()];
            for (&key, &time) in of_records.iter().zip(times).take(done) {
                latest[key as usize] = latest[key as usize].max(time);
            }
            let latest: Vec<(u32, i64)> = firsts.iter().copied().zip(latest).collect();
            self.store.note_latest(self.encoder.batch(), &latest);
        }
        Ok((from + done < batch.rows()).then_some(Work::Records(batch, from + done)))
    }

    fn fire_timers(&mut self, clock: TimerClock, until: i64, out: &mut Outbox) -> Result<Option<Work>> {
        let due = self.store.take_timers(clock, until, self.events_max);
        if due.is_empty() {
            if !self.is_draining() {
                self.store.set_those_for_next()?;
                let by = if clock == TimerClock::Event { self.watermark.0 } else { until };
                return Ok(self.store.has_ages(clock).then_some(Work::Expiry(clock, by)));
            }
            return Ok(None);
        }
        let kind = self.encoder.kind().clone();
        // Keys in the order of their bytes, which is the order in which timers of one time fire.
        let mut keys: Vec<&[u8]> = due.iter().map(|row| row.key).collect();
        keys.sort_unstable();
        keys.dedup();
        let number = |key: &[u8]| keys.binary_search(&key).expect("every key of a timer is among the keys") as u32;
        let numbers: Vec<u32> = due.iter().map(|row| number(row.key)).collect();
        let times: Vec<i64> = due.iter().map(|row| row.time).collect();
        let stamps = due.iter().map(|row| stamp_of(row.value)).collect::<Result<Vec<i64>>>()?;
        let key_batch = KeyBatch::of_written(&kind, keys.iter().copied()).map_err(state_error)?;
        let records: Vec<u32> = (0..keys.len() as u32).collect();
        let mut key_rows: Vec<&[u8]> = vec![&[]; keys.len()];
        for (row, &number) in due.iter().zip(&numbers) {
            key_rows[number as usize] = row.value.get(8..).unwrap_or_default();
        }
        let called = Called {
            batch: self.store.key_rows.decode(key_rows.iter().copied())?,
            states: self.store.load(&key_batch, &records)?,
        };
        // If there may be more timers that are due, what is set after the last one has to wait for those.
        let last = times.last().copied().unwrap_or(until);
        let is_cut = due.len() == self.events_max;
        let bound = if is_cut { last.saturating_sub(1) } else { until };
        let events = ProcessEvents::Timers { clock, times: &times, keys: &numbers, stamps: &stamps, until: bound };
        let floor = self.time_min(clock);
        let output = match self.call(&called, events, floor) {
            Ok(output) => output,
            Err(failure) => {
                // A single timer may have been joined by others that it has set.
                let is_alone = due.len() == 1 && (is_cut || failure.at == Some(0));
                if let Some(error) = self.shorten(failure, if is_alone { 1 } else { due.len().max(2) })? {
                    out.reject(Rejected::of(error, timer_text(&called.batch, numbers[0] as usize, times[0])?));
                } else {
                    for row in due.iter() {
                        self.store.set_timer(clock, row.time, row.key, row.value)?;
                    }
                }
                return Ok(Some(Work::Timers(clock, until)));
            }
        };
        self.lengthen();
        self.count_drained(output.done as u64)?;
        self.emit(output.rows, None, floor, out)?;
        let of_call = Keys { batch: &key_batch, kind: &kind, records: &records, columns: &called.batch };
        self.store.keep(&of_call, &output.changed, output.states.as_ref(), &output.timers)?;
        if self.has_end && self.is_timed {
            // A key may have states that a timer alone has set.
            let mut latest = vec![i64::MIN; keys.len()];
            for (&number, &stamp) in numbers.iter().zip(&stamps) {
                latest[number as usize] = latest[number as usize].max(stamp);
            }
            let latest: Vec<(u32, i64)> = records.iter().copied().zip(latest).collect();
            self.store.note_latest(&key_batch, &latest);
        }
        // After the changes: one that was deleted and set again is among those that are left.
        for (at, key, stamp) in output.left {
            let value = timer_value(stamp, key_rows[key as usize]);
            self.store.set_timer(clock, at, keys[key as usize], &value)?;
        }
        Ok(Some(Work::Timers(clock, until)))
    }

    fn count_drained(&mut self, fired: u64) -> Result<()> {
        let Some(left) = &mut self.drained_left else { return Ok(()) };
        *left = left.checked_sub(fired).ok_or_else(|| {
            Error::new(
                ErrorKind::UserFunction,
                format!(
                    "{} goes on setting timers after its input has ended, and would never come to an end; look at \
                     ctx.is_draining before a timer sets the next one",
                    self.name
                ),
            )
        })?;
        Ok(())
    }

    /// Has the function look at keys of which a value may have grown too old.
    fn expire(&mut self, clock: TimerClock, until: i64) -> Result<Option<Work>> {
        let Some(due) = self.store.take_due(self.encoder.kind(), clock, until, EVENTS_MAX)? else { return Ok(None) };
        let called = Called {
            batch: RecordBatch::new_empty(Arc::clone(self.store.key_rows.schema())),
            states: self.store.load(&due.keys, &due.records)?,
        };
        let output = self.call(&called, ProcessEvents::Expire { clock }, until).map_err(|failure| failure.error)?;
        self.store.keep_due(self.encoder.kind(), &due, &called.states, &output)?;
        Ok(Some(Work::Expiry(clock, until)))
    }

    fn call_keys(&mut self, out: &mut Outbox) -> Result<Option<Work>> {
        let Some(all) = self.ended.pop() else { return Ok(None) };
        let len = all.num_rows().min(self.events_max);
        let batch = all.slice(0, len);
        let rest = |done: usize, ended: &mut Vec<RecordBatch>| {
            if done < all.num_rows() {
                ended.push(all.slice(done, all.num_rows() - done));
            }
        };
        let mut encoder = self.store.encoder()?;
        encoder.encode(batch.columns(), len).map_err(state_error)?;
        let records: Vec<u32> = (0..len as u32).collect();
        let states = self.store.load(encoder.batch(), &records)?;
        let stamps = match self.is_timed {
            // A run whose function was not called at the end has noted no times.
            true => self.store.latest(encoder.batch(), &records).into_iter().map(|at| if at == i64::MIN { self.floor } else { at }).collect(),
            false => vec![i64::MIN; len],
        };
        let called = Called { batch, states };
        let output = match self.call(&called, ProcessEvents::End { stamps: &stamps }, self.floor) {
            Ok(output) => output,
            Err(failure) => {
                match self.shorten(failure, len)? {
                    Some(error) => {
                        out.reject(Rejected::of(error, record_json(&called.batch, 0)));
                        rest(1, &mut self.ended);
                    }
                    None => rest(0, &mut self.ended),
                }
                return Ok(Some(Work::Keys));
            }
        };
        self.lengthen();
        rest(output.done.min(len), &mut self.ended);
        self.emit(output.rows, None, self.floor, out)?;
        let keys = Keys { batch: encoder.batch(), kind: encoder.kind(), records: &records, columns: &called.batch };
        self.store.keep(&keys, &output.changed, output.states.as_ref(), &output.timers)?;
        Ok(Some(Work::Keys))
    }

    /// Calls the function.
    fn call(&mut self, called: &Called, events: ProcessEvents<'_>, floor: i64) -> std::result::Result<ProcessOutput, ProcessFailure> {
        self.task.call(&ProcessCall {
            events,
            keys: &called.batch,
            states: &called.states,
            broadcast: self.broadcast.as_ref().map(Broadcast::states),
            watermark: self.watermark.0,
            floor,
            now: self.now,
            is_draining: self.is_draining(),
        })
    }

    /// After a call that failed: the error if it was about one event, which is to be rejected. Else the next one is about fewer.
    fn shorten(&mut self, failure: ProcessFailure, events: usize) -> Result<Option<Error>> {
        if !matches!(failure.error.kind(), ErrorKind::Data | ErrorKind::UserFunction) {
            return Err(failure.error);
        }
        if events <= 1 {
            self.lengthen();
            return Ok(Some(failure.error));
        }
        self.events_max = failure.at.filter(|&at| at > 0 && at < events).unwrap_or(if failure.at == Some(0) { 1 } else { events / 2 });
        Ok(None)
    }

    fn lengthen(&mut self) {
        self.events_max = self.events_max.saturating_mul(2).min(EVENTS_MAX);
    }

    fn key_batch(&self, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
        let schema = self.store.key_rows.schema();
        let columns = columns.iter().zip(schema.fields()).map(|(column, field)| {
            arrow::compute::cast(column, field.data_type()).map_err(|error| Error::internal(error.to_string()))
        });
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(Arc::clone(schema), columns.collect::<Result<Vec<ArrayRef>>>()?, &options)
            .map_err(|error| Error::internal(error.to_string()))
    }

    fn emit(&self, rows: Vec<ProcessRows>, records: Option<&Batch>, least: i64, out: &mut Outbox) -> Result<()> {
        for ProcessRows { port, data, origin } in rows {
            let schema = self.schemas.get(port).ok_or_else(|| Error::internal("a row for an output that there is not"))?;
            let options = RecordBatchOptions::new().with_row_count(Some(data.num_rows()));
            let data = RecordBatch::try_new_with_options(Arc::clone(schema), data.columns().to_vec(), &options)
                .map_err(|error| Error::internal(format!("results do not fit their columns: {error}")))?;
            let batch = match (origin, records) {
                (ProcessOrigin::Records(rows), Some(records)) => {
                    records.reindex(data, &rows.into()).map_err(|error| Error::internal(error.to_string()))?
                }
                (ProcessOrigin::Records(_), None) => return Err(Error::internal("a result of no record")),
                (ProcessOrigin::Times(times), _) => {
                    let times = self.is_timed.then(|| times.iter().map(|&time| time.max(least)).collect());
                    Batch::new(data).with_times(times)
                }
            };
            out.push_to(port, batch);
        }
        Ok(())
    }
}

/// A key column, as results and timers have it.
fn key_field(field: &Field) -> Field {
    Field::new(field.name(), canonical_type(field.data_type()), true).with_metadata(field.metadata().clone())
}

fn taken(column: &ArrayRef, rows: &UInt32Array) -> Result<ArrayRef> {
    take(column, rows, None).map_err(|error| Error::internal(error.to_string()))
}

fn stamp_of(value: &[u8]) -> Result<i64> {
    let stamp = value.first_chunk().map(|bytes| i64::from_le_bytes(*bytes));
    stamp.ok_or_else(|| Error::checkpoint("the timers of a process function are damaged: one has no event time"))
}

/// A timer, for messages.
fn timer_text(keys: &RecordBatch, key: usize, at: i64) -> Result<String> {
    let mut fields: Vec<Arc<Field>> = keys.schema().fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new("timer", DataType::Timestamp(TimeUnit::Microsecond, None), false)));
    let mut columns: Vec<ArrayRef> = keys.slice(key, 1).columns().to_vec();
    columns.push(Arc::new(TimestampMicrosecondArray::from(vec![at])));
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns);
    Ok(record_json(&batch.map_err(|error| Error::internal(error.to_string()))?, 0))
}

impl Operator for Process {
    fn on_batch(&mut self, input: usize, batch: Batch, out: &mut Outbox) -> Result<Progress> {
        if batch.rows() == 0 {
            return Ok(Progress::Done);
        }
        match &mut self.broadcast {
            // At the end of the keyed stream timers may fire; they are looked for again after this.
            Some(_) if input != KEYED => self.work = Some(Work::Broadcast(batch, 0)),
            Some(broadcast) if !broadcast.is_ready() => broadcast.keep(batch),
            _ => self.begin(batch)?,
        }
        self.go_on(out)
    }

    fn on_watermark(&mut self, input: usize, at: Watermark, out: &mut Outbox) -> Result<Progress> {
        match &mut self.broadcast {
            Some(broadcast) => broadcast.note_time(input, at),
            None if at <= self.watermark => return Ok(Progress::Done),
            None => self.advance(at),
        }
        self.go_on(out)
    }

    fn on_input_end(&mut self, input: usize, out: &mut Outbox) -> Result<Progress> {
        match &mut self.broadcast {
            Some(broadcast) if input != KEYED => broadcast.set_loaded(),
            _ => return Ok(Progress::Done),
        }
        self.go_on(out)
    }

    fn combine(&self, times: &Watermarks) -> Watermark {
        match &self.broadcast {
            Some(broadcast) if broadcast.is_timed_by_keyed() => times.of(KEYED),
            _ => times.least(),
        }
    }

    fn wants(&self, input: usize) -> bool {
        input != KEYED || self.broadcast.as_ref().is_none_or(Broadcast::wants_keyed)
    }

    fn uses_now(&self) -> bool {
        true
    }

    fn set_now(&mut self, now: i64) {
        self.now = now;
    }

    fn next_time(&self) -> Option<i64> {
        self.next_time
    }

    fn on_time(&mut self, now: i64, out: &mut Outbox) -> Result<Progress> {
        self.work = Some(Work::Timers(TimerClock::Processing, now));
        self.go_on(out)
    }

    /// While timers fire at the end of the input.
    fn awaits(&self) -> bool {
        self.is_draining() && self.end == End::No && !self.has_ended && matches!(self.work, Some(Work::Timers(..)))
    }

    fn on_wake(&mut self, out: &mut Outbox) -> Result<Progress> {
        self.go_on(out)
    }

    fn on_barrier(&mut self, _epoch: Epoch, _out: &mut Outbox) -> Result<Progress> {
        // Those that were to wait until the timers before them have fired are part of the state now.
        self.store.set_those_for_next()?;
        Ok(Progress::Done)
    }

    fn earliest_result(&self) -> Watermark {
        if self.broadcast.as_ref().is_some_and(|broadcast| !broadcast.is_ready()) {
            return Watermark::MIN;
        }
        if self.is_draining() && self.end != End::Over { Watermark(self.floor) } else { Watermark::MAX }
    }

    fn on_end(&mut self, out: &mut Outbox) -> Result<Progress> {
        self.has_ended = true;
        if let Some(broadcast) = &mut self.broadcast {
            broadcast.set_loaded();
        }
        if !self.is_draining() {
            self.floor = self.floor.max(self.watermark.0);
            self.watermark = Watermark::MAX;
        }
        self.go_on(out)
    }

    fn resume(&mut self, out: &mut Outbox) -> Result<Progress> {
        self.go_on(out)
    }

    fn snapshot(&mut self, snapshot: &mut Snapshot) -> Result<()> {
        let mut bytes = self.watermark.0.to_le_bytes().to_vec();
        bytes.extend_from_slice(&self.floor.to_le_bytes());
        let flags = if self.end == End::Over { IS_OVER } else { 0 } | if self.broadcast.is_some() { HAS_BROADCAST } else { 0 };
        bytes.push(flags);
        self.store.values.write_versions(&mut bytes)?;
        if let Some(broadcast) = &mut self.broadcast {
            broadcast.write_waiting(&mut self.store.backend, &mut self.encoder, &self.keys)?;
            broadcast.write(&mut bytes)?;
        }
        bytes.extend_from_slice(&self.store.backend.snapshot(snapshot.is_full, &mut snapshot.blocks));
        snapshot.bytes = Some(self.described.of(&bytes));
        Ok(())
    }

    fn restore(&mut self, restored: &Restored) -> Result<()> {
        let mut descriptions = Vec::with_capacity(restored.bytes.len());
        let mut least: Option<Own<'_>> = None;
        let mut of_broadcast = Vec::new();
        let mut rewritten = None;
        for bytes in &restored.bytes {
            let mut own = Own::read(own(bytes)?)?;
            descriptions.push(own.description);
            of_broadcast.extend(own.broadcast.take());
            match &mut least {
                None => least = Some(own),
                Some(least) if least.versions != own.versions => {
                    return Err(Error::checkpoint("the instances of the step keep different states"));
                }
                Some(least) => {
                    least.watermark = least.watermark.min(own.watermark);
                    least.floor = least.floor.min(own.floor);
                    least.is_over &= own.is_over;
                }
            }
        }
        if let Some(own) = least {
            self.watermark = Watermark(own.watermark);
            self.floor = own.floor;
            self.end = if own.is_over { End::Over } else { End::No };
            rewritten = self.store.values.restore_versions(own.versions, &self.states)?;
        }
        self.store.backend.restore(&descriptions, &restored.blocks).map_err(state_error)?;
        if let Some(former) = rewritten {
            let (task, states) = (&mut self.task, &self.states);
            self.store.rewrite(&former, |rows, now| evolve::evolved(&rows, states, now, task.as_mut()))?;
        }
        if let Some(broadcast) = &mut self.broadcast {
            broadcast.restore(&of_broadcast, self.task.as_mut())?;
            broadcast.restore_waiting(&self.store.backend)?;
        }
        self.store.look_at_unwritten()?;
        if self.is_draining() && self.end == End::No && self.store.has_timers() {
            self.next_work()?;
            // Nothing else may call the operator before the end of its input.
            self.waker.wake_by_ref();
        } else {
            self.note_next_time();
        }
        Ok(())
    }
}

/// Fails if a function with these states cannot continue from those of a former run, and names all that it cannot.
pub(crate) fn check_state(states: &[StateSpec], bytes: &[u8]) -> Result<()> {
    match Own::read(own(bytes)?)?.versions.last() {
        Some(last) => evolve::check(last, states).map(drop),
        None => Ok(()),
    }
}

/// What the operator writes beside blocks.
struct Own<'a> {
    watermark: i64,
    floor: i64,
    is_over: bool,
    versions: Vec<Schema>,
    broadcast: Option<OwnBroadcast<'a>>,
    description: &'a [u8],
}

/// A flag of a snapshot: the input had ended, and nothing was left to do.
const IS_OVER: u8 = 1;
/// There is a broadcast stream, and what was kept of it follows the versions.
const HAS_BROADCAST: u8 = 2;

impl Own<'_> {
    fn read(bytes: &[u8]) -> Result<Own<'_>> {
        let read = || {
            let (watermark, rest) = bytes.split_first_chunk::<8>()?;
            let (floor, rest) = rest.split_first_chunk::<8>()?;
            let (&flags, rest) = rest.split_first()?;
            let (versions, rest) = read_versions(rest)?;
            let (broadcast, description) = match flags & HAS_BROADCAST != 0 {
                true => OwnBroadcast::read(rest).map(|(own, rest)| (Some(own), rest))?,
                false => (None, rest),
            };
            let (watermark, floor) = (i64::from_le_bytes(*watermark), i64::from_le_bytes(*floor));
            Some(Own { watermark, floor, is_over: flags & IS_OVER != 0, versions, broadcast, description })
        };
        read().ok_or_else(|| Error::checkpoint("the state of a process function is damaged: it ends too early"))
    }
}

#[cfg(test)]
mod tests;
