//! Joins within sessions, which the records of both sides make up together.
//!
//! ```text
//!   record ──► buffer of its side, by key and time
//!
//!   both watermarks past the end of a session ──cut──► sessions of the key ──► each left record with each right one
//! ```
//!
//! What a session is follows from the records of both sides, so it is known only when both watermarks have passed its end. A
//! record is late if it is older than the watermark of its own side. No other record can join a session that has had its rows: it is at the
//! end of that session or after it. So sessions of a key never overlap, and depend on no timing.
//!
//! A row is on the list of those that will be due until `time + gap`. The last row of an open session always is, so no session is
//! forgotten.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use arrow::array::{ArrayRef, UInt32Array};
use mill_plan::{How, JoinPlan, Stage};
use mill_protocol::{
    Batch, Error, Operator, Outbox, Progress, Restored, Result, Snapshot, TaskContext, Watermark,
};
use mill_state::{KeyBatch, KeyEncoder};

use super::assemble::{Assembler, Bounds};
use super::buffer::{Buffer, Row};
use super::durable::{Durable, NewRows};
use super::index::Entry;
use super::late::{push_late, time_at, with_key};
use super::{DECODE_ROWS, EMIT_ROWS, split, taken};
use crate::accumulator::state_error;
use crate::description::{Described, Description, JoinShape, JoinWindow, Shape};
use crate::windows::within_reach;

/// Joins two inputs within sessions.
pub(crate) struct SessionJoin {
    plan: JoinPlan,
    gap: i64,
    assembler: Assembler,
    encoder: KeyEncoder,
    buffers: [Buffer; 2],
    durable: Option<Durable>,
    watermarks: [Watermark; 2],
    work: Option<Work>,
    described: Described,
}

/// Sessions whose rows are on their way out.
#[derive(Default)]
struct Work {
    sessions: VecDeque<Session>,
    /// The pair of the first session to go on with.
    next: usize,
    /// Sessions that have had their rows.
    over: Vec<Session>,
}

/// A session that has ended: the numbers of its rows on both sides.
struct Session {
    rows: [Vec<u64>; 2],
    start: i64,
    end: i64,
}

/// Joined rows that are gathered: the numbers of both sides, and the bounds of their sessions.
#[derive(Default)]
struct Found {
    rows: [Vec<u64>; 2],
    starts: Vec<i64>,
    ends: Vec<i64>,
}

impl Found {
    fn add(&mut self, session: &Session) {
        self.starts.push(session.start);
        self.ends.push(session.end);
    }
}

impl SessionJoin {
    pub(crate) fn new(stage: &Stage, context: &TaskContext, plan: &JoinPlan, gap: i64) -> Result<SessionJoin> {
        let assembler = Assembler::new(&plan.columns, &stage.schema);
        let types: Vec<_> = plan.keys[0].iter().map(|&key| plan.inputs[0].field(key).data_type().clone()).collect();
        let kept = [assembler.kept_schema(0, &plan.inputs[0])?, assembler.kept_schema(1, &plan.inputs[1])?];
        let durable = match context.is_persistent {
            true => Some(Durable::new([&kept[0], &kept[1]], context)?),
            false => None,
        };
        let shape = JoinShape { kept, columns: assembler.kept_columns(), window: Some(JoinWindow::Session(gap)) };
        let shape = Shape::Join(shape);
        let described = Description { schema: Arc::clone(&stage.schema), keeps_pending: false, shape }.described();
        Ok(SessionJoin {
            plan: plan.clone(),
            gap,
            assembler,
            encoder: KeyEncoder::new(&types).map_err(state_error)?,
            buffers: [Buffer::default(), Buffer::default()],
            durable,
            watermarks: [Watermark::MIN; 2],
            work: None,
            described,
        })
    }

    /// How far both sides have come.
    fn least(&self) -> Watermark {
        self.watermarks[0].min(self.watermarks[1])
    }

    /// Keeps the records of a batch.
    fn keep(&mut self, side: usize, batch: &Batch, out: &mut Outbox) -> Result<()> {
        let times = batch.times().ok_or_else(|| Error::internal("a join needs event time"))?;
        let keys = &self.plan.keys[side];
        let columns: Vec<ArrayRef> = keys.iter().map(|&key| ArrayRef::clone(batch.column(key))).collect();
        self.encoder.encode(&columns, batch.rows()).map_err(state_error)?;
        let has_key = with_key(batch, keys);
        let (mut late, mut keyless, mut kept) = (Vec::new(), Vec::new(), Vec::new());
        for (row, &time) in times.iter().enumerate() {
            let at = time_at(batch, row, time, self.watermarks[side]);
            if time < at.0 || at == Watermark::MAX {
                late.push(row as u32);
            } else if has_key.as_ref().is_some_and(|has_key| has_key.is_null(row)) {
                keyless.push(row as u32);
            } else {
                kept.push(row as u32);
            }
        }
        push_late(1 + side, batch, self.plan.own[side], late, out)?;
        let columns = self.assembler.columns_of(side, batch.data().columns());
        if !keyless.is_empty() && self.plan.how.is_padded(side) {
            // It is in no session with another record.
            let starts: Vec<i64> = keyless.iter().map(|&row| times[row as usize]).collect();
            let ends: Vec<i64> = starts.iter().map(|start| start.saturating_add(self.gap)).collect();
            let columns = taken(&columns, &UInt32Array::from(keyless))?;
            let sides = if side == 0 { [Some(&columns[..]), None] } else { [None, Some(&columns[..])] };
            self.push(sides, &Bounds { starts: &starts, ends: &ends }, out)?;
        }
        if kept.is_empty() {
            return Ok(());
        }
        let columns = match kept.len() == batch.rows() {
            true => columns,
            false => taken(&columns, &UInt32Array::from(kept.clone()))?,
        };
        let (mut bytes, mut places) = (Vec::new(), Vec::with_capacity(kept.len()));
        for &row in &kept {
            let start = bytes.len();
            self.encoder.batch().write_key(self.encoder.kind(), row as usize, &mut bytes);
            places.push(start..bytes.len());
        }
        let key = |place: usize| &bytes[places[place].clone()];
        let of_kept: Vec<i64> = kept.iter().map(|&row| times[row as usize]).collect();
        let hashes: Vec<u64> = kept.iter().map(|&row| self.encoder.batch().hashes()[row as usize]).collect();
        let mut first = 0;
        if let Some(durable) = &mut self.durable {
            let is_matched = vec![false; kept.len()];
            let new = NewRows {
                columns: &columns,
                hashes: &hashes,
                times: &of_kept,
                dues: &of_kept,
                is_matched: &is_matched,
            };
            first = durable.insert(side, &new, key)?;
        }
        let rows = of_kept.iter().zip(&hashes).enumerate();
        let rows = rows.map(|(place, (&time, &hash))| Row::new(time, hash, first + place as u64));
        self.buffers[side].add(columns, rows.collect(), |place| (hashes[place], key(place)))
    }

    /// Finds the sessions that both watermarks have passed.
    fn find(&mut self) -> VecDeque<Session> {
        let least = self.least();
        let before = match least {
            Watermark::MAX => i64::MAX,
            // A record ends a session at `time + gap` at the earliest.
            Watermark(at) => at.saturating_sub(self.gap).saturating_add(1),
        };
        let mut sessions = VecDeque::new();
        let mut seen: HashSet<&[u8]> = HashSet::new();
        let due = [self.buffers[0].take_due(before), self.buffers[1].take_due(before)];
        for (side, due) in due.iter().enumerate() {
            for &number in due {
                let (hash, key) = self.buffers[side].key_of(number);
                if seen.insert(key) {
                    let rows = [0, 1].map(|side| self.buffers[side].of_key(hash, key));
                    cut(rows, self.gap, least, &mut sessions);
                }
            }
        }
        sessions
    }

    /// Emits rows of sessions; whether there are more.
    fn emit(&self, work: &mut Work, out: &mut Outbox) -> Result<bool> {
        let how = self.plan.how;
        let mut found = [Found::default(), Found::default(), Found::default()];
        let mut count = 0;
        while let Some(session) = work.sessions.front() {
            if count >= EMIT_ROWS {
                break;
            }
            let [left, right] = &session.rows;
            if !left.is_empty() && !right.is_empty() && how.has_pairs() {
                let (pairs, room) = (left.len() * right.len(), EMIT_ROWS - count);
                let end = pairs.min(work.next + room);
                for pair in work.next..end {
                    found[2].rows[0].push(left[pair / right.len()]);
                    found[2].rows[1].push(right[pair % right.len()]);
                    found[2].add(session);
                }
                count += end - work.next;
                work.next = end;
                if end < pairs {
                    break;
                }
            } else {
                for side in 0..2 {
                    let (own, others) = (&session.rows[side], &session.rows[1 - side]);
                    let is_single = match how {
                        How::Semi => side == 0 && !others.is_empty(),
                        _ => how.is_padded(side) && others.is_empty(),
                    };
                    if is_single {
                        found[side].rows[side].extend(own);
                        own.iter().for_each(|_| found[side].add(session));
                        count += own.len();
                    }
                }
            }
            work.next = 0;
            work.over.extend(work.sessions.pop_front());
        }
        for (sides, found) in [[true, false], [false, true], [true, true]].into_iter().zip(&found) {
            if found.starts.is_empty() {
                continue;
            }
            let gathered = |side: usize| match sides[side] {
                true => self.buffers[side].gather(&found.rows[side]).map(Some),
                false => Ok(None),
            };
            let (left, right) = (gathered(0)?, gathered(1)?);
            self.push([left.as_deref(), right.as_deref()], &Bounds { starts: &found.starts, ends: &found.ends }, out)?;
        }
        Ok(!work.sessions.is_empty())
    }

    fn push(&self, sides: [Option<&[ArrayRef]>; 2], bounds: &Bounds<'_>, out: &mut Outbox) -> Result<()> {
        let data = self.assembler.rows(sides, bounds.ends.len(), Some(bounds))?;
        let times = bounds.ends.iter().map(|end| end.saturating_sub(1)).collect();
        out.push(Batch::new(data).with_times(Some(times)));
        Ok(())
    }

    /// Drops the rows of sessions that are over.
    fn drop_sessions(&mut self, over: &[Session]) -> Result<()> {
        for side in 0..2 {
            let buffer = &mut self.buffers[side];
            for session in over {
                if let Some(durable) = &mut self.durable {
                    for row in buffer.known(&session.rows[side]) {
                        durable.remove(side, row.due, row.hash, row.durable);
                    }
                }
                buffer.remove(&session.rows[side], session.end);
            }
            buffer.sweep()?;
        }
        Ok(())
    }

    fn go_on(&mut self, out: &mut Outbox) -> Result<Progress> {
        let Some(mut work) = self.work.take() else { return Ok(Progress::Done) };
        if self.emit(&mut work, out)? {
            self.work = Some(work);
            return Ok(Progress::More);
        }
        self.drop_sessions(&work.over)?;
        Ok(Progress::Done)
    }
}

/// Adds the sessions of a key that end at this watermark or before; `rows` are those of both sides, by time.
fn cut(rows: [&[Entry]; 2], gap: i64, least: Watermark, sessions: &mut VecDeque<Session>) {
    let mut next = [0, 0];
    let first = |next: [usize; 2]| {
        let heads = [0, 1].map(|side: usize| rows[side].get(next[side]).map(|&(time, _)| time));
        match heads {
            [Some(left), Some(right)] if right < left => Some((1, right)),
            [Some(left), _] => Some((0, left)),
            [None, right] => right.map(|right| (1, right)),
        }
    };
    while let Some((_, start)) = first(next) {
        let mut session = Session { rows: [Vec::new(), Vec::new()], start, end: start.saturating_add(gap) };
        while let Some((side, time)) = first(next).filter(|&(_, time)| time < session.end) {
            session.rows[side].push(rows[side][next[side]].1);
            session.end = time.saturating_add(gap);
            next[side] += 1;
        }
        if least != Watermark::MAX && session.end > least.0 {
            return;
        }
        sessions.push_back(session);
    }
}

impl Operator for SessionJoin {
    fn on_batch(&mut self, input: usize, batch: Batch, out: &mut Outbox) -> Result<Progress> {
        let batch = within_reach(batch, self.gap.saturating_add(1), self.assembler.bound_type(), out)?;
        self.keep(input, &batch, out)?;
        Ok(Progress::Done)
    }

    fn on_watermark(&mut self, input: usize, at: Watermark, out: &mut Outbox) -> Result<Progress> {
        let before = self.least();
        self.watermarks[input] = self.watermarks[input].max(at);
        if self.least() == before {
            return Ok(Progress::Done);
        }
        let sessions = self.find();
        self.work = Some(Work { sessions, ..Work::default() });
        self.go_on(out)
    }

    fn resume(&mut self, out: &mut Outbox) -> Result<Progress> {
        self.go_on(out)
    }

    fn snapshot(&mut self, snapshot: &mut Snapshot) -> Result<()> {
        let durable = self.durable.as_mut().ok_or_else(|| Error::internal("a join that is not persistent has no snapshot"))?;
        let mut bytes: Vec<u8> = self.watermarks.iter().flat_map(|at| at.0.to_le_bytes()).collect();
        durable.snapshot(snapshot, &mut bytes);
        snapshot.bytes = Some(self.described.of(&bytes));
        Ok(())
    }

    fn restore(&mut self, restored: &Restored) -> Result<()> {
        let Some(durable) = &mut self.durable else {
            return Err(Error::internal("a join that is not persistent takes up no state"));
        };
        let (watermarks, parts) = split(restored)?;
        self.watermarks = watermarks.unwrap_or([Watermark::MIN; 2]);
        durable.restore(&parts, &restored.blocks)?;
        for (side, buffer) in self.buffers.iter_mut().enumerate() {
            durable.for_each(side, DECODE_ROWS, |kept, data| {
                let hash = |key: &[u8]| KeyBatch::hash_of(key).unwrap_or_default();
                let rows = kept.iter().map(|row| Row::new(row.due, hash(row.key), row.number));
                let columns = data.map(|data| data.columns().to_vec()).unwrap_or_default();
                buffer.add(columns, rows.collect(), |place| (hash(kept[place].key), kept[place].key))
            })?;
        }
        Ok(())
    }
}
