//! Joins that buffer both sides: by distance in time, and within windows.
//!
//! ```text
//!   record of a side ──► late?  null key?
//!        │ probe: rows of its key in the buffer of the other side, of the right times     ──► joined rows
//!        └ keep: in the buffer of its own side, if partners may still come
//!
//!   watermark of a side ──► rows of the other side that can have no more partners are dropped
//!                                                                    ──► rows without a partner
//! ```
//!
//! A record is dropped when the watermark of the other side is past the latest time of a partner (its *due*). All partners are
//! records that are not late on their own side, so they come before that watermark; and as a pair is found when the later of its
//! records comes, it is found once. Which rows there are depends on no timing between the sides.
//!
//! Of an interval, each side has a buffer where the rows of a key are sorted by due, and a record at `t` finds the rows of the other
//! side with dues in `[t, t + upper - lower]`. Of windows, both sides share panes: the end of the window is part of the key, a record of
//! several windows is kept once for each, and rows are dropped by the window.
//!
//! ```text
//!   left at t:   partners in [t + lower, t + upper]     due t + upper
//!   right at u:  partners in [u - upper, u - lower]     due u - lower
//! ```

pub(crate) mod assemble;
mod buffer;
pub(crate) mod dues;
mod durable;
pub(crate) mod heads;
pub(crate) mod index;
pub(crate) mod late;
mod panes;
mod session;
mod unasked;

pub(crate) use self::session::SessionJoin;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, StringArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use mill_plan::{How, JoinKind, JoinPlan, Stage};
use mill_protocol::{
    Batch, Error, Operator, Outbox, Progress, Restored, Result, Snapshot, TaskContext, Watermark,
};
use mill_state::{KeyBatch, KeyEncoder};

use self::assemble::{Assembler, Bounds};
use self::buffer::{Buffer, LOOKED_UP, Row};
use self::durable::{Durable, KeptRow, NewRows};
use self::heads::NONE;
use self::late::{push_late, time_at, with_key};
use self::panes::{Panes, Wanted};
use crate::accumulator::state_error;
use crate::description::{Described, Description, JoinShape, JoinWindow, Shape, own};
use crate::windows::{Aligned, Pane, within_reach};

/// How many joined rows are emitted at a time.
const EMIT_ROWS: usize = 16_384;
/// How long a key mostly is: a number with its hash, and the end of a window.
const KEY_BYTES: usize = 25;
/// How many rows are decoded at a time.
const DECODE_ROWS: usize = 8192;

/// Joins two inputs of which records are kept.
pub(crate) struct BufferedJoin {
    plan: JoinPlan,
    assembler: Assembler,
    windows: Option<Aligned>,
    encoder: KeyEncoder,
    kept: Kept,
    durable: Option<Durable>,
    watermarks: [Watermark; 2],
    work: Option<Work>,
    described: Described,
}

/// Where records are kept.
enum Kept {
    /// Of an interval: those of each side.
    Buffers([Buffer; 2]),
    /// Of windows: those of both sides.
    Panes(Panes),
}

impl Kept {
    /// The columns of these rows of a side, in this order.
    fn gather(&self, side: usize, numbers: &[u64]) -> Result<Vec<ArrayRef>> {
        match self {
            Kept::Buffers(buffers) => buffers[side].gather(numbers),
            Kept::Panes(panes) => panes.gather(side, numbers),
        }
    }

    /// What is known of these rows of a side.
    fn known(&self, side: usize, numbers: &[u64]) -> Vec<Row> {
        match self {
            Kept::Buffers(buffers) => buffers[side].known(numbers),
            Kept::Panes(panes) => panes.known(side, numbers),
        }
    }

    /// Marks rows as having a partner; those that had none before are left in `numbers`.
    fn mark(&mut self, side: usize, numbers: &mut Vec<u64>) {
        match self {
            Kept::Buffers(buffers) => buffers[side].mark(numbers),
            Kept::Panes(panes) => panes.mark(side, numbers),
        }
    }
}

/// Records and their partners: the entries of the records, the numbers of the partners, and the times of the pairs if they have
/// rows.
#[derive(Default)]
struct Pairs {
    entries: Vec<u32>,
    partners: Vec<u64>,
    times: Vec<i64>,
}

/// What is under way while the operator says that there is more.
enum Work {
    /// Records look for partners.
    Probe(Box<Probe>),
    /// Rows of this side that are due are dropped.
    Drop(usize),
}

/// Records of a batch on the way to their partners.
struct Probe {
    side: usize,
    columns: Vec<ArrayRef>,
    entries: Vec<Entry>,
    /// The bytes of all keys.
    keys: Vec<u8>,
    /// Where the rows of the next entries are in a buffer, from this entry on.
    slots: Vec<u32>,
    slots_from: usize,
    /// The pane and slot of each entry.
    found: Vec<(u32, u32)>,
    /// The entry to continue with, and how many of its partners have had their row, or which of a list is the next.
    next: usize,
    skip: usize,
    resume: u32,
    is_matched: Vec<bool>,
}

/// A record, in one of its windows if there are any.
struct Entry {
    row: u32,
    time: i64,
    due: i64,
    /// The hash of the key, which decides about the task.
    hash: u64,
    /// The hash by which the buffers find it.
    index_hash: u64,
    /// Where the bytes of its key are.
    key: (usize, usize),
}

impl Probe {
    fn key(&self, entry: &Entry) -> &[u8] {
        &self.keys[entry.key.0..entry.key.1]
    }

    fn wanted(&self, place: usize) -> Wanted<'_> {
        let entry = &self.entries[place];
        Wanted { due: entry.due, hash: entry.index_hash, key: self.key(entry) }
    }
}

impl BufferedJoin {
    pub(crate) fn new(stage: &Stage, context: &TaskContext, plan: &JoinPlan) -> Result<BufferedJoin> {
        let assembler = Assembler::new(&plan.columns, &stage.schema);
        let types: Vec<_> = plan.keys[0].iter().map(|&key| plan.inputs[0].field(key).data_type().clone()).collect();
        let window = match plan.kind {
            JoinKind::Interval { .. } => None,
            JoinKind::Window(window) => Some(window),
            JoinKind::Session { .. } => return Err(Error::internal("a join of sessions has an operator of its own")),
        };
        let kept = [assembler.kept_schema(0, &plan.inputs[0])?, assembler.kept_schema(1, &plan.inputs[1])?];
        let durable = match context.is_persistent {
            true => Some(Durable::new([&kept[0], &kept[1]], context)?),
            false => None,
        };
        let shape = JoinShape { kept, columns: assembler.kept_columns(), window: window.map(JoinWindow::Aligned) };
        let shape = Shape::Join(shape);
        let described = Description { schema: Arc::clone(&stage.schema), keeps_pending: false, shape }.described();
        let windows = window.map(|window| Aligned::new(window, 0));
        let kept = match &windows {
            None => Kept::Buffers([Buffer::unasked(), Buffer::unasked()]),
            Some(windows) => Kept::Panes(Panes::new(windows.slide(), [0, 1].map(|side| notes_partners(plan.how, side)))),
        };
        Ok(BufferedJoin {
            plan: plan.clone(),
            assembler,
            windows,
            encoder: KeyEncoder::new(&types).map_err(state_error)?,
            kept,
            durable,
            watermarks: [Watermark::MIN; 2],
            work: None,
            described,
        })
    }

    /// How far the times of partners are from a record at most.
    fn reach(&self) -> i64 {
        match (&self.plan.kind, &self.windows) {
            (JoinKind::Interval { lower_us, upper_us }, _) => {
                lower_us.saturating_abs().max(upper_us.saturating_abs()).saturating_mul(2).saturating_add(1)
            }
            (_, Some(windows)) => windows.reach(),
            (JoinKind::Window(_) | JoinKind::Session { .. }, None) => 0,
        }
    }

    /// When a record of this side is dropped: once the watermark of the other is past this time.
    fn due(&self, side: usize, time: i64) -> i64 {
        match self.plan.kind {
            JoinKind::Interval { upper_us, .. } if side == 0 => time.saturating_add(upper_us),
            JoinKind::Interval { lower_us, .. } => time.saturating_sub(lower_us),
            JoinKind::Window(_) | JoinKind::Session { .. } => time,
        }
    }

    /// The event time of a record and a partner of this side with this due.
    #[inline]
    fn pair_time(&self, entry: &Entry, side: usize, due: i64) -> i64 {
        match self.plan.kind {
            // Records whose due would be out of range are refused, so that the time is what it was.
            JoinKind::Interval { upper_us, .. } if side == 0 => entry.time.max(due.saturating_sub(upper_us)),
            JoinKind::Interval { lower_us, .. } => entry.time.max(due.saturating_add(lower_us)),
            JoinKind::Window(_) | JoinKind::Session { .. } => entry.due,
        }
    }

    /// The dues of the partners of a record.
    fn partners(&self, entry: &Entry) -> (i64, i64) {
        match self.plan.kind {
            JoinKind::Interval { lower_us, upper_us } => {
                (entry.time, entry.time.saturating_add(upper_us.saturating_sub(lower_us)))
            }
            JoinKind::Window(_) | JoinKind::Session { .. } => (i64::MIN, i64::MAX),
        }
    }

    /// Sorts a batch: late records and those without a key go their own way, the others look for partners.
    fn sort(&mut self, side: usize, batch: &Batch, out: &mut Outbox) -> Result<Probe> {
        let times = batch.times().ok_or_else(|| Error::internal("a join needs event time"))?;
        let keys = &self.plan.keys[side];
        let columns: Vec<ArrayRef> = keys.iter().map(|&key| ArrayRef::clone(batch.column(key))).collect();
        self.encoder.encode(&columns, batch.rows()).map_err(state_error)?;
        let has_key = with_key(batch, keys);
        let watermark = self.watermarks[side];
        let (mut late, mut keyless) = (Vec::new(), Vec::new());
        let mut keys = Vec::with_capacity(batch.rows() * KEY_BYTES);
        let mut entries = Vec::with_capacity(batch.rows());
        let (mut of_pane, mut ends): (Option<(Pane, Watermark)>, Vec<i64>) = (None, Vec::new());
        for (row, &time) in times.iter().enumerate() {
            let at = time_at(batch, row, time, watermark);
            let is_null = has_key.as_ref().is_some_and(|has_key| has_key.is_null(row));
            let mut add = |due: i64, window: Option<i64>, keys: &mut Vec<u8>| {
                if is_null {
                    keyless.push((row as u32, due));
                    return;
                }
                let start = keys.len();
                self.encoder.batch().write_key(self.encoder.kind(), row, keys);
                let hash = self.encoder.batch().hashes()[row];
                if let Some(end) = window {
                    keys.extend_from_slice(&end.to_le_bytes());
                }
                let index_hash = index_hash(hash, window);
                entries.push(Entry { row: row as u32, time, due, hash, index_hash, key: (start, keys.len()) });
            };
            match &self.windows {
                None if time < at.0 || at == Watermark::MAX => late.push(row as u32),
                None => add(self.due(side, time), None, &mut keys),
                Some(windows) => {
                    // Most records have the windows of the one before them.
                    if !of_pane.as_ref().is_some_and(|(pane, known)| *known == at && (pane.start..pane.end).contains(&time)) {
                        let pane = windows.pane(time);
                        ends.clear();
                        ends.extend(windows.open_ids(&pane, at).map(|id| windows.end_of(id)));
                        of_pane = Some((pane, at));
                    }
                    for &end in &ends {
                        add(end.saturating_sub(1), Some(end), &mut keys);
                    }
                    if ends.is_empty() {
                        late.push(row as u32);
                    }
                }
            }
        }
        push_late(1 + side, batch, self.plan.own[side], late, out)?;
        let columns = self.assembler.columns_of(side, batch.data().columns());
        if !keyless.is_empty() && self.plan.how.is_padded(side) {
            let time = |&(row, due): &(u32, i64)| if self.windows.is_some() { due } else { times[row as usize] };
            let of_rows: Vec<i64> = keyless.iter().map(time).collect();
            let rows = UInt32Array::from_iter_values(keyless.iter().map(|&(row, _)| row));
            self.push_single(side, &taken(&columns, &rows)?, of_rows, out)?;
        }
        let is_matched = vec![false; entries.len()];
        let (slots, found) = (Vec::new(), Vec::new());
        Ok(Probe { side, columns, entries, keys, slots, slots_from: 0, found, next: 0, skip: 0, resume: NONE, is_matched })
    }

    /// Looks for partners of records; whether there are more.
    fn probe(&mut self, probe: &mut Probe, out: &mut Outbox) -> Result<bool> {
        let other = 1 - probe.side;
        let pairs = match &self.kept {
            Kept::Buffers(_) => self.close_pairs(probe),
            Kept::Panes(_) => self.window_pairs(probe),
        };
        let has_more = probe.next < probe.entries.len();
        let Pairs { entries, mut partners, times } = pairs;
        if partners.is_empty() {
            return Ok(has_more);
        }
        if self.plan.how.has_pairs() {
            self.push_pairs(probe, &entries, &partners, times, out)?;
        }
        if notes_partners(self.plan.how, other) {
            self.kept.mark(other, &mut partners);
            if let Some(durable) = &mut self.durable {
                for row in self.kept.known(other, &partners) {
                    durable.set_matched(other, row.due, row.hash, row.durable)?;
                }
            }
            if self.plan.how == How::Semi {
                self.push_buffered(other, &partners, out)?;
            }
        }
        Ok(has_more)
    }

    /// The next pairs of records with those in the buffer of the other side. Without pairs in the result, the left record with a partner
    /// is what counts: of a right one, all that it is the first partner of.
    fn close_pairs(&mut self, probe: &mut Probe) -> Pairs {
        let Kept::Buffers(buffers) = &self.kept else { return Pairs::default() };
        let other = 1 - probe.side;
        let has_pairs = self.plan.how.has_pairs();
        let wants_all = has_pairs || other == 0;
        let mut pairs = Pairs::default();
        while let Some(entry) = probe.entries.get(probe.next) {
            if probe.next >= probe.slots_from + probe.slots.len() {
                let mut slots = std::mem::take(&mut probe.slots);
                let ahead = &probe.entries[probe.next..];
                slots.resize(ahead.len().min(LOOKED_UP), 0);
                buffers[other].find_all(&mut slots, |place| (ahead[place].index_hash, probe.key(&ahead[place])));
                (probe.slots, probe.slots_from) = (slots, probe.next);
            }
            let of_key = buffers[other].of_slot(probe.slots[probe.next - probe.slots_from]);
            if !of_key.is_empty() {
                let (from, to) = self.partners(entry);
                let start = of_key.partition_point(|&(due, _)| due < from);
                let found = of_key[start..].iter().skip(probe.skip).take_while(|&&(due, _)| due <= to);
                if wants_all {
                    let (before, room) = (pairs.partners.len(), EMIT_ROWS - pairs.partners.len());
                    for &(due, number) in found.take(room) {
                        pairs.partners.push(number);
                        if has_pairs {
                            pairs.times.push(self.pair_time(entry, other, due));
                        }
                    }
                    let count = pairs.partners.len() - before;
                    pairs.entries.resize(pairs.partners.len(), probe.next as u32);
                    probe.is_matched[probe.next] |= count > 0;
                    if count == room {
                        // Without pairs, those that were found are taken out below.
                        probe.skip += if has_pairs { count } else { 0 };
                        break;
                    }
                } else {
                    probe.is_matched[probe.next] = found.take(1).count() > 0;
                }
            }
            probe.next += 1;
            probe.skip = 0;
        }
        if !has_pairs && let Kept::Buffers(buffers) = &mut self.kept {
            // Left records that have been judged are asked for no more.
            buffers[other].take_out(&pairs.partners);
        }
        pairs
    }

    /// The next pairs of records with those of the other side in the same windows, as [`close_pairs`](BufferedJoin::close_pairs).
    fn window_pairs(&mut self, probe: &mut Probe) -> Pairs {
        let Kept::Panes(panes) = &mut self.kept else { return Pairs::default() };
        let other = 1 - probe.side;
        let has_pairs = self.plan.how.has_pairs();
        let wants_all = has_pairs || other == 0;
        if probe.found.len() < probe.entries.len() {
            let mut found = vec![(NONE, NONE); probe.entries.len()];
            panes.find_all(&mut found, self.watermarks[other].0, |place| probe.wanted(place));
            probe.found = found;
        }
        let mut pairs = Pairs::default();
        while let Some(entry) = probe.entries.get(probe.next) {
            let found = probe.found[probe.next];
            if wants_all {
                let before = pairs.partners.len();
                let resume = panes.rows_of(other, found, probe.resume, EMIT_ROWS, &mut pairs.partners);
                if pairs.partners.len() > before {
                    pairs.entries.resize(pairs.partners.len(), probe.next as u32);
                    probe.is_matched[probe.next] = true;
                    if has_pairs {
                        pairs.times.resize(pairs.partners.len(), entry.due);
                    } else {
                        // Left records that have been judged are asked for no more.
                        panes.take_out(other, found, resume);
                    }
                }
                if resume != NONE {
                    probe.resume = if has_pairs { resume } else { NONE };
                    break;
                }
            } else {
                probe.is_matched[probe.next] = panes.first_of(other, found) != NONE;
            }
            probe.next += 1;
            probe.resume = NONE;
        }
        pairs
    }

    /// What is done with the records of a batch that have had all partners that are there: some have rows of their own, and those
    /// that may find more are kept.
    fn keep(&mut self, probe: Probe, out: &mut Outbox) -> Result<()> {
        let (side, how) = (probe.side, self.plan.how);
        let over = self.watermarks[1 - side].0;
        let (is_padded, is_judged) = (how.is_padded(side), !how.has_pairs() && side == 0);
        // No partner can come of records whose due is over; a left record that has been judged needs none.
        let is_kept = |place: usize, entry: &Entry| entry.due >= over && !(is_judged && probe.is_matched[place]);
        let single = |place: usize, entry: &Entry| match how {
            How::Semi => is_judged && probe.is_matched[place],
            _ => is_padded && !probe.is_matched[place] && entry.due < over,
        };
        let places = |chosen: &dyn Fn(usize, &Entry) -> bool| -> Vec<usize> {
            (0..probe.entries.len()).filter(|&place| chosen(place, &probe.entries[place])).collect()
        };
        let kept = places(&is_kept);
        let singles = if is_padded || how == How::Semi { places(&single) } else { Vec::new() };
        if !singles.is_empty() {
            let rows = UInt32Array::from_iter_values(singles.iter().map(|&place| probe.entries[place].row));
            let times = singles.iter().map(|&place| self.result_time(&probe.entries[place])).collect();
            self.push_single(side, &taken(&probe.columns, &rows)?, times, out)?;
        }
        if kept.is_empty() {
            return Ok(());
        }
        let is_whole = kept.iter().enumerate().all(|(place, &row)| place as u32 == probe.entries[row].row);
        let columns = match is_whole && probe.columns.first().is_none_or(|column| column.len() == kept.len()) {
            true => probe.columns.clone(),
            false => {
                let rows = kept.iter().map(|&place| probe.entries[place].row);
                taken(&probe.columns, &UInt32Array::from_iter_values(rows))?
            }
        };
        let entry = |place: usize| &probe.entries[kept[place]];
        let mut first = 0;
        if let Some(durable) = &mut self.durable {
            let hashes: Vec<u64> = kept.iter().map(|&place| probe.entries[place].hash).collect();
            let times: Vec<i64> = kept.iter().map(|&place| probe.entries[place].time).collect();
            let dues: Vec<i64> = kept.iter().map(|&place| probe.entries[place].due).collect();
            let is_matched: Vec<bool> = kept.iter().map(|&place| probe.is_matched[place]).collect();
            let new =
                NewRows { columns: &columns, hashes: &hashes, times: &times, dues: &dues, is_matched: &is_matched };
            first = durable.insert(side, &new, |place| probe.key(entry(place)))?;
        }
        let rows = kept.iter().enumerate().map(|(number, &place)| {
            let entry = &probe.entries[place];
            Row::new(entry.time, entry.due, entry.hash, first + number as u64, probe.is_matched[place])
        });
        match &mut self.kept {
            Kept::Buffers(buffers) => {
                buffers[side].add(columns, rows.collect(), |place| (entry(place).index_hash, probe.key(entry(place))))
            }
            Kept::Panes(panes) => {
                let rows: Vec<Row> = if panes.notes(side) { rows.collect() } else { Vec::new() };
                let found: Vec<(u32, u32)> = kept.iter().map(|&place| probe.found[place]).collect();
                panes.add(side, &columns, &rows, &found)
            }
        }
    }

    /// The event time of a row that a record makes alone.
    fn result_time(&self, entry: &Entry) -> i64 {
        if self.windows.is_some() { entry.due } else { entry.time }
    }

    /// Drops rows of a side that can have no more partners; whether there are more.
    fn drop_due(&mut self, side: usize, out: &mut Outbox) -> Result<bool> {
        let before = self.watermarks[1 - side].0;
        let is_padded = self.plan.how.is_padded(side);
        let mut unmatched = Vec::new();
        let has_more = match &mut self.kept {
            Kept::Buffers(buffers) => buffers[side].drop_before(before, EMIT_ROWS, &mut unmatched),
            Kept::Panes(panes) => is_padded && panes.drop_before(side, before, EMIT_ROWS, &mut unmatched),
        };
        if is_padded && !unmatched.is_empty() {
            self.push_buffered(side, &unmatched, out)?;
        }
        match &mut self.kept {
            Kept::Buffers(buffers) => buffers[side].sweep()?,
            Kept::Panes(panes) if !has_more => panes.sweep(side, before),
            Kept::Panes(_) => {}
        }
        Ok(has_more)
    }

    /// Emits a row for each pair of a record and a buffered one.
    fn push_pairs(&self, probe: &Probe, places: &[u32], partners: &[u64], times: Vec<i64>, out: &mut Outbox) -> Result<()> {
        let entry = |&place: &u32| &probe.entries[place as usize];
        let rows = UInt32Array::from_iter_values(places.iter().map(|place| entry(place).row));
        let (own, theirs) = (taken(&probe.columns, &rows)?, self.kept.gather(1 - probe.side, partners)?);
        let sides = match probe.side {
            0 => [Some(&own[..]), Some(&theirs[..])],
            _ => [Some(&theirs[..]), Some(&own[..])],
        };
        self.push(sides, times, out)
    }

    /// Emits rows of records of a side alone, whose columns these are.
    fn push_single(&self, side: usize, columns: &[ArrayRef], times: Vec<i64>, out: &mut Outbox) -> Result<()> {
        let sides = if side == 0 { [Some(columns), None] } else { [None, Some(columns)] };
        self.push(sides, times, out)
    }

    /// Emits rows of buffered records of a side alone.
    fn push_buffered(&self, side: usize, numbers: &[u64], out: &mut Outbox) -> Result<()> {
        if numbers.is_empty() {
            return Ok(());
        }
        let known = self.kept.known(side, numbers);
        let time = |row: &Row| if self.windows.is_some() { row.due } else { row.time };
        self.push_single(side, &self.kept.gather(side, numbers)?, known.iter().map(time).collect(), out)
    }

    fn push(&self, sides: [Option<&[ArrayRef]>; 2], times: Vec<i64>, out: &mut Outbox) -> Result<()> {
        let data = match &self.windows {
            None => self.assembler.rows(sides, times.len(), None)?,
            Some(windows) => {
                let ends: Vec<i64> = times.iter().map(|time| time.saturating_add(1)).collect();
                let starts: Vec<i64> = ends.iter().map(|&end| windows.start_of(end)).collect();
                self.assembler.rows(sides, times.len(), Some(&Bounds { starts: &starts, ends: &ends }))?
            }
        };
        out.push(Batch::new(data).with_times(Some(times.into())));
        Ok(())
    }

    fn go_on(&mut self, out: &mut Outbox) -> Result<Progress> {
        let has_more = match self.work.take() {
            None => false,
            Some(Work::Probe(mut probe)) => {
                if self.probe(&mut probe, out)? {
                    self.work = Some(Work::Probe(probe));
                    true
                } else {
                    self.keep(*probe, out)?;
                    false
                }
            }
            Some(Work::Drop(side)) => {
                let has_more = self.drop_due(side, out)?;
                self.work = has_more.then_some(Work::Drop(side));
                has_more
            }
        };
        Ok(if has_more { Progress::More } else { Progress::Done })
    }
}

/// Whether it matters of a row of this side if it has had a partner.
fn notes_partners(how: How, side: usize) -> bool {
    how.is_padded(side) || (how == How::Semi && side == 0)
}

fn taken(columns: &[ArrayRef], rows: &UInt32Array) -> Result<Vec<ArrayRef>> {
    let columns = columns.iter().map(|column| take(column, rows, None));
    columns.collect::<std::result::Result<Vec<ArrayRef>, _>>().map_err(|error| Error::internal(error.to_string()))
}

impl Operator for BufferedJoin {
    fn on_batch(&mut self, input: usize, batch: Batch, out: &mut Outbox) -> Result<Progress> {
        let batch = within_reach(batch, self.reach(), self.assembler.bound_type(), out)?;
        let probe = self.sort(input, &batch, out)?;
        if let Kept::Buffers(buffers) = &mut self.kept {
            buffers[1 - input].ask(probe.entries.iter().map(|entry| entry.index_hash));
        }
        self.work = Some(Work::Probe(Box::new(probe)));
        self.go_on(out)
    }

    fn on_watermark(&mut self, input: usize, at: Watermark, out: &mut Outbox) -> Result<Progress> {
        if at <= self.watermarks[input] {
            return Ok(Progress::Done);
        }
        self.watermarks[input] = at;
        if let Some(durable) = &mut self.durable {
            durable.drop_before(1 - input, at.0);
        }
        self.work = Some(Work::Drop(1 - input));
        self.go_on(out)
    }

    fn earliest_result(&self) -> Watermark {
        // A record without a partner has its row, at its own time, when it is dropped. In windows that time is its due.
        let JoinKind::Interval { lower_us, upper_us } = self.plan.kind else { return Watermark::MAX };
        let earliest = |side: usize, after: i64| match self.watermarks[1 - side] {
            at @ (Watermark::MIN | Watermark::MAX) => at,
            _ if !notes_partners(self.plan.how, side) => Watermark::MAX,
            Watermark(at) => Watermark(at.saturating_sub(after)),
        };
        earliest(0, upper_us).min(earliest(1, lower_us.saturating_neg()))
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
        // At an aligned barrier all instances have the same; without alignment nothing may be lost.
        self.watermarks = watermarks.unwrap_or([Watermark::MIN; 2]);
        durable.restore(&parts, &restored.blocks)?;
        let is_windowed = self.windows.is_some();
        for side in 0..2 {
            durable.for_each(side, DECODE_ROWS, |kept, data| {
                let mut rows = Vec::with_capacity(kept.len());
                let mut keys = Vec::with_capacity(kept.len());
                for row in kept {
                    let hash = KeyBatch::hash_of(row.key).unwrap_or_default();
                    rows.push(Row::new(row.time, row.due, hash, row.number, row.is_matched));
                    keys.push((index_hash(hash, is_windowed.then(|| row.due.saturating_add(1))), row.key));
                }
                let columns = data.map(|data| data.columns().to_vec()).unwrap_or_default();
                match &mut self.kept {
                    Kept::Buffers(buffers) => buffers[side].add(columns, rows, |place| keys[place]),
                    Kept::Panes(panes) => {
                        let mut found = vec![(NONE, NONE); rows.len()];
                        let wanted = |place: usize| Wanted { due: rows[place].due, hash: keys[place].0, key: keys[place].1 };
                        panes.find_all(&mut found, i64::MIN, wanted);
                        panes.add(side, &columns, &rows, &found)
                    }
                }
            })?;
        }
        Ok(())
    }
}

/// The hash by which buffers find a key, with the end of its window if there are windows.
#[inline]
fn index_hash(hash: u64, end: Option<i64>) -> u64 {
    end.map_or(hash, |end| (hash ^ end as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// The least watermarks of all instances, and the rest of what each of them wrote.
fn split(restored: &Restored) -> Result<(Option<[Watermark; 2]>, Vec<&[u8]>)> {
    let damaged = || Error::checkpoint("the state of a join is damaged: it ends too early");
    let mut least: Option<[Watermark; 2]> = None;
    let mut parts = Vec::with_capacity(restored.bytes.len());
    for bytes in &restored.bytes {
        let (left, rest) = own(bytes)?.split_first_chunk::<8>().ok_or_else(damaged)?;
        let (right, rest) = rest.split_first_chunk::<8>().ok_or_else(damaged)?;
        let own = [left, right].map(|bytes| Watermark(i64::from_le_bytes(*bytes)));
        least = Some(least.map_or(own, |least| [least[0].min(own[0]), least[1].min(own[1])]));
        parts.push(rest);
    }
    Ok((least, parts))
}

/// The kept records of both sides out of a checkpoint, as rows without a partner: the side, whether it has had one, and the
/// columns of the result.
pub(crate) fn kept_rows(shape: &JoinShape, schema: &SchemaRef, restored: &Restored, context: &TaskContext) -> Result<Vec<RecordBatch>> {
    let shown = shown_schema(schema);
    let assembler = Assembler::new(&shape.columns, schema);
    let mut durable = Durable::new([&shape.kept[0], &shape.kept[1]], context)?;
    durable.restore(&split(restored)?.1, &restored.blocks)?;
    let mut batches = Vec::new();
    for side in 0..2 {
        durable.for_each(side, DECODE_ROWS, |kept, data| {
            let columns = data.map(|data| data.columns().to_vec()).unwrap_or_default();
            let columns = assembler.columns_of(side, &columns);
            // A session that is still open may get longer.
            let bounds_of = |row: &KeptRow<'_>| match shape.window {
                Some(JoinWindow::Aligned(window)) => {
                    let end = row.due.saturating_add(1);
                    (Aligned::new(window, 0).start_of(end), end)
                }
                Some(JoinWindow::Session(gap)) => (row.time, row.time.saturating_add(gap)),
                None => (row.time, row.time),
            };
            let (starts, ends): (Vec<i64>, Vec<i64>) = kept.iter().map(bounds_of).unzip();
            let bounds = shape.window.map(|_| Bounds { starts: &starts, ends: &ends });
            let sides = if side == 0 { [Some(&columns[..]), None] } else { [None, Some(&columns[..])] };
            let rows = assembler.rows(sides, kept.len(), bounds.as_ref())?;
            let names: ArrayRef = Arc::new(StringArray::from(vec![["left", "right"][side]; kept.len()]));
            let matched: ArrayRef = Arc::new(kept.iter().map(|row| Some(row.is_matched)).collect::<BooleanArray>());
            let all = [names, matched].into_iter().chain(rows.columns().iter().cloned()).collect();
            batches.push(RecordBatch::try_new(Arc::clone(&shown), all).map_err(|error| Error::internal(error.to_string()))?);
            Ok(())
        })?;
    }
    Ok(batches)
}

/// The columns of [`kept_rows`].
pub(crate) fn shown_schema(schema: &SchemaRef) -> SchemaRef {
    // The result may have columns of these names itself.
    let unique = |name: &str| {
        let names = std::iter::successors(Some(name.to_owned()), |name| Some(format!("{name}_")));
        names.into_iter().find(|name| schema.field_with_name(name).is_err()).unwrap_or_default()
    };
    let own = [
        Field::new(unique("side"), DataType::Utf8, false),
        Field::new(unique("has_partner"), DataType::Boolean, false),
    ];
    Arc::new(Schema::new(own.into_iter().map(Arc::new).chain(schema.fields().iter().cloned()).collect::<Vec<_>>()))
}

#[cfg(test)]
mod tests;
