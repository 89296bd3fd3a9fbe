//! `window(session).agg` of aggregates that can be merged: one row of accumulators an open session.
//!
//! ```text
//!   record ──► session of its key                        `sessions`
//!        └───► row of (key, id of the session)           accumulators; the first two are its start and its end
//!
//!   watermark ──► sessions that may be complete          `deadlines`
//!        └─► asked for their end ──► results, or a later deadline
//!                     └─► those with parts are added up  `merge`
//! ```
//!
//! Invariants:
//!
//! - Rows are all that a checkpoint holds. Their starts and ends say which sessions there are, and which rows are parts of one.
//! - Each row is in `deadlines` once, no later than its session's end.
//! - A record is taken only if no session that it could belong to has had its result; see
//!   [`kept_windows`](crate::kept_windows).

mod deadlines;
mod merge;
mod sessions;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use mill_frame::text::record_json;
use mill_plan::{AggregateKind, AggregateSpec, SessionGap, Stage};
use mill_protocol::{Batch, Error, Operator, Outbox, Progress, Rejected, Restored, Result, Snapshot, TaskContext, Watermark};
use mill_state::{Cursor, Span, TableOptions};

use crate::accumulator::{GroupOptions, Groups, UnfitRow, WrittenKeys, former_aggregates, records};
use crate::aggregate::EMIT_ROWS;
use crate::description::{Described, Description, Shape, restored_watermark};
use crate::windows::{Gaps, push_late, time_values, within_reach};
use deadlines::Deadlines;
use merge::Merger;
use sessions::{Asked, Sessions};

/// Into how many slots the gap of sessions is cut for their deadlines.
const SLOTS_OF_GAP: i64 = 16;
/// How long a slot is if records have gaps of their own.
const SLOT_US: i64 = 1_000_000;
/// The columns that are put before those of a record: its time, and when its session ends if nothing extends it.
const ADDED: usize = 2;

/// What a stage of this kind is made of.
#[derive(Clone, Copy)]
pub(crate) struct SessionParts<'a> {
    pub(crate) keys: &'a [usize],
    pub(crate) aggregates: &'a [AggregateSpec],
    pub(crate) gap: SessionGap,
    pub(crate) allowed_lateness_us: i64,
}

/// Keeps one row of accumulators a key and open session.
pub(crate) struct SessionAggregate {
    keys: Vec<usize>,
    gap: SessionGap,
    allowed_lateness_us: i64,
    schema: SchemaRef,
    /// The last key column is the id of the session.
    groups: Groups,
    sessions: Sessions,
    deadlines: Deadlines,
    merger: Merger,
    watermark: Watermark,
    described: Described,
}

/// The time or the end of records or sessions.
fn bound(name: &str, kind: AggregateKind, column: usize) -> AggregateSpec {
    AggregateSpec {
        name: name.to_owned(),
        kind,
        input: Some(column),
        filter: None,
        by_time: false,
        input_type: Some(DataType::Int64),
        output_type: DataType::Int64,
    }
}

fn numbers(column: &ArrayRef) -> Result<&[i64]> {
    let column = column.as_primitive_opt::<Int64Type>();
    column.map(|column| &column.values()[..]).ok_or_else(|| Error::internal("bounds and ids of sessions are numbers"))
}

/// What the rows of sessions have before the aggregates of the user.
fn own_aggregates() -> [AggregateSpec; 2] {
    [bound("start", AggregateKind::Min, 0), bound("end", AggregateKind::Max, 1)]
}

impl SessionAggregate {
    pub(crate) fn new(stage: &Stage, context: &TaskContext, parts: SessionParts<'_>) -> Result<SessionAggregate> {
        let SessionParts { keys, aggregates, gap, allowed_lateness_us } = parts;
        let mut key_types: Vec<DataType> =
            stage.schema.fields()[..keys.len()].iter().map(|field| field.data_type().clone()).collect();
        let sessions = Sessions::new(&key_types, context.groups.clone())?;
        key_types.push(DataType::Int64);
        let mut specs = own_aggregates().to_vec();
        specs.extend(aggregates.iter().map(|spec| AggregateSpec {
            input: spec.input.map(|input| input + ADDED),
            filter: spec.filter.map(|filter| filter + ADDED),
            ..spec.clone()
        }));
        let mut places: Vec<usize> = keys.iter().map(|key| key + ADDED).collect();
        // The id is none of the record's columns.
        places.push(usize::MAX);
        let options = GroupOptions {
            table: TableOptions {
                groups: context.groups.clone(),
                state: 0,
                is_persistent: context.is_persistent,
                tracks_changes: false,
            },
            is_partial: false,
            keeps_pending: false,
            is_ahead: false,
            is_timed: false,
            owner_columns: Some(keys.len()),
            has_tally: false,
            carries_at: None,
        };
        let shape = Shape::Sessions { keys: keys.len(), aggregates: aggregates.to_vec() };
        let width = match gap {
            SessionGap::Fixed(us) => us / SLOTS_OF_GAP,
            SessionGap::Column(_) => SLOT_US,
        };
        Ok(SessionAggregate {
            keys: keys.to_vec(),
            gap,
            allowed_lateness_us,
            schema: Arc::clone(&stage.schema),
            groups: Groups::new(&places, &key_types, &specs, &options)?,
            sessions,
            deadlines: Deadlines::new(width),
            merger: Merger::new(&key_types, &specs)?,
            watermark: Watermark::MIN,
            described: Description { schema: Arc::clone(&stage.schema), keeps_pending: false, shape }.described(),
        })
    }

    /// The type of the bounds of sessions.
    fn bound_type(&self) -> &DataType {
        self.schema.field(self.keys.len()).data_type()
    }

    /// Sessions that end by this time are complete.
    fn deadline(&self) -> i64 {
        match self.watermark {
            Watermark::MAX => i64::MAX,
            Watermark(at) => at.saturating_sub(self.allowed_lateness_us),
        }
    }

    /// The records that are not late, and when the session of each ends if nothing extends it.
    fn taken(&self, batch: Batch, out: &mut Outbox) -> Result<(Batch, Vec<i64>)> {
        let times = batch.times().ok_or_else(|| Error::internal("a window needs event time"))?;
        let is_late = |at: i64, watermark: Watermark| {
            watermark == Watermark::MAX || at.saturating_add(self.allowed_lateness_us) < watermark.0
        };
        let late: Vec<u32> = match batch.behind() {
            None if times.iter().all(|&at| !is_late(at, self.watermark)) => Vec::new(),
            behind => {
                let of_split = |record: usize| behind.map_or(Watermark::MIN, |behind| match behind[record] {
                    behind if behind > times[record] => Watermark(behind),
                    _ => Watermark::MIN,
                });
                let records = (0..times.len()).filter(|&record| is_late(times[record], self.watermark.max(of_split(record))));
                records.map(|record| record as u32).collect()
            }
        };
        let mut kept: Vec<u32> = Vec::new();
        let mut ends: Vec<i64> = Vec::with_capacity(times.len());
        let mut of_late = late.iter().copied().peekable();
        match self.gap {
            SessionGap::Fixed(gap) if late.is_empty() => ends.extend(times.iter().map(|at| at.saturating_add(gap))),
            gap => {
                let gaps = match gap {
                    SessionGap::Column(column) => Some(Gaps::of(&batch, column, Some(self.bound_type()))?),
                    SessionGap::Fixed(_) => None,
                };
                for (record, &at) in times.iter().enumerate() {
                    if of_late.next_if_eq(&(record as u32)).is_some() {
                        continue;
                    }
                    let end = match (&gaps, gap) {
                        (Some(gaps), _) => gaps.end(record, at),
                        (None, SessionGap::Fixed(gap)) => Ok(at.saturating_add(gap)),
                        (None, SessionGap::Column(_)) => Err(Error::internal("a session without its gap")),
                    };
                    match end {
                        Ok(end) => {
                            kept.push(record as u32);
                            ends.push(end);
                        }
                        Err(error) => out.reject(Rejected::of(error, record_json(batch.data(), record))),
                    }
                }
            }
        }
        let is_all = ends.len() == batch.rows();
        let taken = if is_all {
            batch.clone()
        } else {
            batch.take(&kept.into()).map_err(|error| Error::internal(error.to_string()))?
        };
        push_late(&batch, late, out)?;
        Ok((taken, ends))
    }

    /// The records with their times and ends before their columns.
    fn with_bounds(batch: &Batch, times: ArrayRef, ends: ArrayRef) -> Result<RecordBatch> {
        let bound = |name: &str| Arc::new(Field::new(name, DataType::Int64, false));
        let fields: Vec<_> =
            [bound("time"), bound("end")].into_iter().chain(batch.data().schema().fields().iter().cloned()).collect();
        let columns = [times, ends].into_iter().chain(batch.data().columns().iter().cloned()).collect();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(|error| Error::internal(error.to_string()))
    }

    /// Emits complete sessions, some at a time.
    fn fire(&mut self, out: &mut Outbox) -> Result<Progress> {
        let deadline = self.deadline();
        let asked = self.deadlines.take(deadline, EMIT_ROWS);
        if asked.len() == 0 {
            return Ok(Progress::Done);
        }
        self.fire_some(&asked, deadline, out)?;
        Ok(Progress::More)
    }

    /// Emits those of these sessions that are complete.
    fn fire_some(&mut self, asked: &WrittenKeys, deadline: i64, out: &mut Outbox) -> Result<()> {
        // Rows of parts have gone with their session.
        let (found, columns, ends) = self.groups.find_written(0, asked.iter(), 1)?;
        let ends = numbers(&ends)?;
        let mut candidates = Vec::with_capacity(found.len());
        for (place, (&key, &end)) in found.iter().zip(ends).enumerate() {
            if end > deadline {
                self.deadlines.add_again(asked.get(key as usize), end, deadline);
            } else {
                candidates.push(place as u32);
            }
        }
        let places = UInt32Array::from(candidates);
        let columns = columns.iter().map(|column| picked(column, &places)).collect::<Result<Vec<ArrayRef>>>()?;
        let Some((ids, keys)) = columns.split_last() else { return Err(Error::internal("rows of sessions have their id")) };
        let answers = self.sessions.ask(keys, numbers(ids)?, deadline)?;
        let mut singles = Vec::new();
        let mut merged: Vec<(u32, Vec<i64>)> = Vec::new();
        for (row, (answer, &place)) in (0..).zip(answers.into_iter().zip(places.values())) {
            let key = found[place as usize] as usize;
            match answer {
                Asked::Open(end) => self.deadlines.add_again(asked.get(key), end, deadline),
                Asked::Part => {}
                Asked::Complete => singles.push(key),
                Asked::Merged(ids) => merged.push((row, ids)),
            }
        }
        if !singles.is_empty() {
            let (keys, results) = self.groups.take_written(0, singles.iter().map(|&key| asked.get(key)))?;
            self.groups.reject_unfit(&self.schema, |row| bounds(row, &self.schema, self.keys.len()), out)?;
            self.emit(keys, results, out)?;
        }
        if !merged.is_empty() {
            self.fire_merged(&columns, &merged, out)?;
        }
        Ok(())
    }

    /// Emits sessions that have parts: the row of each among `columns`, and the ids of its parts.
    fn fire_merged(&mut self, columns: &[ArrayRef], merged: &[(u32, Vec<i64>)], out: &mut Outbox) -> Result<()> {
        let of_parts = merged.iter().flat_map(|(row, ids)| std::iter::repeat_n(*row, ids.len()));
        let rows = UInt32Array::from_iter_values(of_parts);
        let mut keys = columns.iter().map(|column| picked(column, &rows)).collect::<Result<Vec<ArrayRef>>>()?;
        // All parts of a session under one id.
        let of_session = keys.clone();
        let ids = Int64Array::from_iter_values(merged.iter().flat_map(|(_, ids)| ids.iter().copied()));
        if let Some(last) = keys.last_mut() {
            *last = Arc::new(ids);
        }
        let (found, partials) = self.groups.partials_of(0, &keys, rows.len())?;
        if found.len() != rows.len() {
            return Err(Error::internal("a part of a session is not there"));
        }
        self.groups.remove(0, &keys, &vec![true; rows.len()])?;
        let columns = of_session.into_iter().chain(partials).collect();
        let results = self.merger.merge(columns, out)?;
        for (mut keys, results) in results {
            keys.truncate(self.keys.len() + 1);
            self.emit(keys, results, out)?;
        }
        // The id is not for users.
        let unfit = self.merger.groups().take_unfit();
        self.groups.put_unfit(unfit);
        self.groups.reject_unfit(&self.schema, |row| bounds(row, &self.schema, self.keys.len()), out)
    }

    /// Emits rows of keys with an id, and results that begin with start and end.
    fn emit(&self, mut keys: Vec<ArrayRef>, results: Vec<ArrayRef>, out: &mut Outbox) -> Result<()> {
        keys.truncate(self.keys.len());
        let [starts, ends, ..] = &results[..] else { return Err(Error::internal("results of sessions begin with their bounds")) };
        let (starts, ends) = (numbers(starts)?, numbers(ends)?);
        if ends.is_empty() {
            return Ok(());
        }
        let mut columns = keys;
        for (place, bounds) in [(self.keys.len(), starts), (self.keys.len() + 1, ends)] {
            columns.push(time_values(bounds.iter().copied().map(Some), self.schema.field(place).data_type())?);
        }
        let times = ends.iter().map(|end| end.saturating_sub(1)).collect();
        columns.extend_from_slice(&results[ADDED..]);
        out.push(records(&self.schema, columns)?.with_times(Some(times)));
        Ok(())
    }
}

/// `window_start` and `window_end` of a session without a result. They come in `schema` after so many keys.
fn bounds(row: &UnfitRow, schema: &SchemaRef, keys: usize) -> Result<Vec<ArrayRef>> {
    let bound = |place: usize| {
        let values = row.results.get(place).ok_or_else(|| Error::internal("results of sessions begin with their bounds"))?;
        time_values(numbers(values)?.iter().copied().map(Some), schema.field(keys + place).data_type())
    };
    Ok(vec![bound(0)?, bound(1)?])
}

fn picked(column: &ArrayRef, rows: &UInt32Array) -> Result<ArrayRef> {
    take(column, rows, None).map_err(|error| Error::internal(error.to_string()))
}

impl Operator for SessionAggregate {
    fn on_batch(&mut self, _input: usize, batch: Batch, out: &mut Outbox) -> Result<Progress> {
        let reach = match self.gap {
            SessionGap::Fixed(us) => us,
            // A gap of its own is looked at with the record.
            SessionGap::Column(_) => 0,
        };
        let reach = reach.saturating_add(self.allowed_lateness_us).saturating_add(1);
        let batch = within_reach(batch, reach, Some(self.bound_type()), out)?;
        let (batch, ends) = self.taken(batch, out)?;
        if batch.rows() == 0 {
            return Ok(Progress::Done);
        }
        let times = batch.times().ok_or_else(|| Error::internal("a window needs event time"))?;
        let keys: Vec<ArrayRef> = self.keys.iter().map(|&key| ArrayRef::clone(batch.column(key))).collect();
        let ids = self.sessions.assign(&keys, times, &ends)?;
        let (times, ends) = (Int64Array::new(times.clone(), None), Int64Array::from(ends));
        let bounded = SessionAggregate::with_bounds(&batch, Arc::new(times), Arc::new(ends.clone()))?;
        self.groups.prepare_keys(&bounded, Some(Arc::new(Int64Array::from(ids))), Some(self.sessions.hashes()))?;
        self.groups.update_span(0, Span { start: 0, len: batch.rows() })?;
        for first in self.groups.take_firsts() {
            self.deadlines.add_of(&self.groups, first, ends.value(first as usize));
        }
        self.groups.reject_problems(batch.data(), out);
        Ok(Progress::Done)
    }

    fn on_watermark(&mut self, _input: usize, at: Watermark, out: &mut Outbox) -> Result<Progress> {
        self.watermark = self.watermark.max(at);
        self.fire(out)
    }

    fn earliest_result(&self) -> Watermark {
        let lateness = self.allowed_lateness_us;
        if lateness == 0 || matches!(self.watermark, Watermark::MIN | Watermark::MAX) {
            // Without lateness, sessions that are not complete end after the watermark.
            return Watermark::MAX;
        }
        Watermark(self.watermark.0.saturating_sub(lateness))
    }

    fn on_end(&mut self, out: &mut Outbox) -> Result<Progress> {
        self.on_watermark(0, Watermark::MAX, out)
    }

    fn resume(&mut self, out: &mut Outbox) -> Result<Progress> {
        self.fire(out)
    }

    fn snapshot(&mut self, snapshot: &mut Snapshot) -> Result<()> {
        self.groups.snapshot(snapshot);
        snapshot.bytes = Some(self.described.of(&self.watermark.0.to_le_bytes()));
        Ok(())
    }

    fn restore(&mut self, restored: &Restored) -> Result<()> {
        self.watermark = restored_watermark(restored)?;
        let former = former_aggregates(restored)?.map(|former| [own_aggregates().to_vec(), former].concat());
        self.groups.restore(restored, former.as_deref())?;
        self.sessions.clear();
        self.deadlines.clear();
        let mut cursor = Cursor::default();
        loop {
            let mut written = WrittenKeys::default();
            let Some((columns, bounds)) = self.groups.written_keys(0, &mut cursor, ADDED, |_, key| written.push(key))? else {
                return Ok(());
            };
            let (starts, ends) = (numbers(&bounds[0])?, numbers(&bounds[1])?);
            if starts.iter().zip(ends).any(|(start, end)| start >= end) || bounds.iter().any(|bounds| bounds.null_count() > 0) {
                return Err(Error::checkpoint("the state of a session is damaged: it ends before it starts"));
            }
            let Some((ids, keys)) = columns.split_last() else { return Err(Error::internal("rows of sessions have their id")) };
            let keys = &keys[..self.keys.len()];
            self.sessions.take_up(keys, numbers(ids)?, starts, ends)?;
            for (key, &end) in written.iter().zip(ends) {
                self.deadlines.add(key, end);
            }
        }
    }
}

#[cfg(test)]
mod tests;
