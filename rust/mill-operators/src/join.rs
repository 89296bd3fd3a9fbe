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
//! Rows lie in panes that are dropped as a whole, in chains of rows of a key ([`linked`]). Of an interval, panes have [spans] of dues, and a
//! record at `t` finds the rows of the other side with dues in `[t, t + upper - lower]`. Of windows, a [chain](chains) has the rows of a key
//! and a window: a record of several windows is kept once for each, due at the last time of the window, and finds rows of the other side with
//! the same due.
//!
//! ```text
//!   left at t:   partners in [t + lower, t + upper]     due t + upper
//!   right at u:  partners in [u - upper, u - lower]     due u - lower
//! ```

pub(crate) mod assemble;
mod buffer;
mod chains;
pub(crate) mod dues;
mod durable;
mod grain;
pub(crate) mod heads;
pub(crate) mod index;
pub(crate) mod late;
mod linked;
mod panes;
mod records;
mod session;
mod spans;

pub(crate) use self::session::SessionJoin;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, StringArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use mill_plan::{How, JoinKind, JoinPlan, Stage};
use mill_protocol::{
    Batch, Error, Operator, Outbox, Progress, Restored, Result, Snapshot, TaskContext, Watermark,
};
use mill_state::{KeyBatch, KeyEncoder, KeyKind};

use self::assemble::{Assembler, Bounds};
use self::chains::Chains;
use self::durable::{Durable, KeptRow, NewRows};
use self::heads::NONE;
use self::late::{push_late, time_at, with_key};
use self::panes::{Found, Panes, number};
use self::records::{Keys, Noted, Records, Wanted};
use self::spans::Spans;
use crate::accumulator::state_error;
use crate::description::{Described, Description, JoinShape, JoinWindow, Shape, own};
use crate::windows::{Aligned, Pane, within_reach};

/// How many joined rows are emitted at a time.
const EMIT_ROWS: usize = 16_384;
/// How many rows are decoded at a time.
const DECODE_ROWS: usize = 8192;
/// How many records are looked up at once: so many that what was read of them is still near.
const LOOKED_UP: usize = 256;

/// Joins two inputs of which records are kept.
pub(crate) struct BufferedJoin {
    plan: JoinPlan,
    assembler: Assembler,
    windows: Option<Aligned>,
    /// How long after the first partner of a record the last one is due.
    length: i64,
    encoder: KeyEncoder,
    /// The records of each side.
    kept: [Box<dyn Panes>; 2],
    durable: Option<Durable>,
    watermarks: [Watermark; 2],
    work: Option<Work>,
    described: Described,
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

/// Records of a batch on the way to their partners: of each an entry, or one for each of its windows.
struct Probe {
    side: usize,
    columns: Vec<ArrayRef>,
    /// Of each entry: the row of its record, and when that was.
    rows: Vec<u32>,
    times: Vec<i64>,
    records: Records,
    /// Up to which entry it has been looked where their partners are, and where those are, from the next on that has not been visited.
    looked_up: usize,
    found: Vec<Found>,
    next: usize,
    /// The partner to go on with, in the middle of a chain.
    resume: u32,
    is_matched: Vec<bool>,
}

impl Probe {
    fn entries(&self) -> usize {
        self.rows.len()
    }

    fn has_more(&self) -> bool {
        self.next < self.found.len() || self.looked_up < self.entries()
    }

    /// Only these of its entries.
    fn chosen(self, places: &[usize]) -> Probe {
        Probe {
            rows: places.iter().map(|&place| self.rows[place]).collect(),
            times: places.iter().map(|&place| self.times[place]).collect(),
            records: self.records.chosen(places),
            is_matched: places.iter().map(|&place| self.is_matched[place]).collect(),
            ..self
        }
    }
}

/// Whether words are whole keys.
fn is_word(kind: &KeyKind) -> bool {
    kind.words() == 1 && !kind.is_view()
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
        let length = match plan.kind {
            JoinKind::Interval { lower_us, upper_us } => upper_us.saturating_sub(lower_us),
            JoinKind::Window(_) | JoinKind::Session { .. } => 0,
        };
        let kept = [0, 1].map(|side| -> Box<dyn Panes> {
            let is_noted = notes_partners(plan.how, side);
            match &windows {
                None => Box::new(Spans::new(length, is_noted)),
                Some(windows) => Box::new(Chains::new(windows.slide(), is_noted)),
            }
        });
        Ok(BufferedJoin {
            plan: plan.clone(),
            assembler,
            windows,
            length,
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

    /// The time of a record of this side with this due.
    #[inline]
    fn time_of(&self, side: usize, due: i64) -> i64 {
        match self.plan.kind {
            // Records whose due would be out of range are refused, so that the time is what it was.
            JoinKind::Interval { upper_us, .. } if side == 0 => due.saturating_sub(upper_us),
            JoinKind::Interval { lower_us, .. } => due.saturating_add(lower_us),
            JoinKind::Window(_) | JoinKind::Session { .. } => due,
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
        let mut rows: Vec<u32> = Vec::with_capacity(batch.rows());
        // Of each entry when it is dropped; of windows, that is when the window is over.
        let mut dues: Vec<i64> = Vec::with_capacity(batch.rows());
        let mut add = |row: usize, due: i64| match has_key.as_ref().is_some_and(|has_key| has_key.is_null(row)) {
            true => keyless.push((row as u32, due)),
            false => {
                rows.push(row as u32);
                dues.push(due);
            }
        };
        match &self.windows {
            None => {
                for (row, &time) in times.iter().enumerate() {
                    let at = time_at(batch, row, time, watermark);
                    if time < at.0 || at == Watermark::MAX {
                        late.push(row as u32);
                    } else {
                        add(row, self.due(side, time));
                    }
                }
            }
            Some(windows) => {
                let (mut of_pane, mut ends): (Option<(Pane, Watermark)>, Vec<i64>) = (None, Vec::new());
                for (row, &time) in times.iter().enumerate() {
                    let at = time_at(batch, row, time, watermark);
                    // Most records have the windows of the one before them.
                    if !of_pane.as_ref().is_some_and(|(pane, known)| *known == at && (pane.start..pane.end).contains(&time)) {
                        let pane = windows.pane(time);
                        ends.clear();
                        ends.extend(windows.open_ids(&pane, at).map(|id| windows.end_of(id)));
                        of_pane = Some((pane, at));
                    }
                    ends.iter().for_each(|&end| add(row, end.saturating_sub(1)));
                    if ends.is_empty() {
                        late.push(row as u32);
                    }
                }
            }
        }
        push_late(1 + side, batch, self.plan.own[side], late, out)?;
        let columns = self.assembler.columns_of(side, batch.data().columns());
        if !keyless.is_empty() && self.plan.how.is_padded(side) {
            let of_rows: Vec<i64> = keyless.iter().map(|&(_, due)| self.time_of(side, due)).collect();
            let rows = UInt32Array::from_iter_values(keyless.iter().map(|&(row, _)| row));
            self.push_single(side, &taken(&columns, &rows)?, of_rows, out)?;
        }
        let encoded = self.encoder.batch();
        let (kind, is_word) = (self.encoder.kind(), is_word(self.encoder.kind()));
        let mut records = Records { dues, ..Records::default() };
        records.hashes = rows.iter().map(|&row| encoded.hashes()[row as usize]).collect();
        records.words = match is_word {
            true => rows.iter().map(|&row| encoded.words()[row as usize]).collect(),
            false => records.hashes.clone(),
        };
        // A checkpoint has the bytes of all keys, with the end of the window.
        if !is_word || self.durable.is_some() {
            records.keys = Keys::with_capacity(rows.len());
            let keys = &mut records.keys;
            for (&row, &due) in rows.iter().zip(&records.dues) {
                encoded.write_key(kind, row as usize, &mut keys.bytes);
                if self.windows.is_some() {
                    keys.bytes.extend_from_slice(&due.saturating_add(1).to_le_bytes());
                }
                keys.end();
            }
        }
        let times = rows.iter().map(|&row| times[row as usize]).collect();
        let is_matched = vec![false; rows.len()];
        Ok(Probe { side, columns, rows, times, records, looked_up: 0, found: Vec::new(), next: 0, resume: NONE, is_matched })
    }

    /// Looks for partners of records; whether there are more.
    fn probe(&mut self, probe: &mut Probe, out: &mut Outbox) -> Result<bool> {
        let other = 1 - probe.side;
        let Pairs { entries, mut partners, times } = self.pairs(probe);
        let has_more = probe.has_more();
        if partners.is_empty() {
            return Ok(has_more);
        }
        if self.plan.how.has_pairs() {
            self.push_pairs(probe, &entries, &partners, times, out)?;
        }
        if notes_partners(self.plan.how, other) {
            self.kept[other].mark(&mut partners);
            if let Some(durable) = &mut self.durable {
                for (due, noted) in self.kept[other].known(&partners) {
                    durable.set_matched(other, due, noted.hash, noted.durable)?;
                }
            }
            if self.plan.how == How::Semi {
                self.push_kept(other, &partners, out)?;
            }
        }
        Ok(has_more)
    }

    /// The next pairs of records with those of the other side. Without pairs in the result, the left record with a partner is what counts: of
    /// a right one, all that it is the first partner of.
    fn pairs(&mut self, probe: &mut Probe) -> Pairs {
        let (side, other) = (probe.side, 1 - probe.side);
        let (has_pairs, is_word) = (self.plan.how.has_pairs(), is_word(self.encoder.kind()));
        // A pair is at the later time of its two records, or at the last time of the window, when both are due.
        let before = match (self.plan.kind, other) {
            (JoinKind::Interval { upper_us, .. }, 0) => upper_us,
            (JoinKind::Interval { lower_us, .. }, _) => lower_us.saturating_neg(),
            (JoinKind::Window(_) | JoinKind::Session { .. }, _) => 0,
        };
        let kept = &mut self.kept[other];
        let entries = probe.entries();
        let Probe { records, times, looked_up, found, next, resume, is_matched, .. } = probe;
        let first = if self.windows.is_some() { &records.dues } else { &*times };
        let mut pairs = Pairs::default();
        while *next < found.len() || *looked_up < entries {
            let Some(&at) = found.get(*next) else {
                let ahead = *looked_up..entries.min(*looked_up + LOOKED_UP);
                kept.find_all(found, ahead.start, &records.hashes[ahead.clone()], &first[ahead.clone()], self.length);
                (*looked_up, *next) = (ahead.end, 0);
                continue;
            };
            let entry = at.record as usize;
            let (from, key) = (first[entry], if is_word { &[] } else { records.keys.get(entry) });
            let wanted = Wanted { word: records.words[entry], key, from, to: from.saturating_add(self.length) };
            let rows = kept.rows_mut(at.pane as usize);
            let Pairs { entries, partners, times } = &mut pairs;
            let had = partners.len();
            if has_pairs {
                let row = if *resume == NONE { at.row } else { *resume };
                *resume = rows.walk(row, &wanted, |row, due| {
                    let has_room = partners.len() < EMIT_ROWS;
                    if has_room {
                        partners.push(number(at.pane, row));
                        times.push(from.max(due.saturating_sub(before)));
                    }
                    has_room
                });
                entries.resize(partners.len(), at.record);
                is_matched[entry] |= partners.len() > had;
                if *resume != NONE {
                    break;
                }
            } else if side == 0 {
                is_matched[entry] = is_matched[entry] || rows.walk(at.row, &wanted, |_, _| false) != NONE;
            } else if rows.take_out(at.row, &wanted, EMIT_ROWS - had, |row| partners.push(number(at.pane, row))) {
                // Left records that have been judged are asked for no more.
                break;
            }
            *next += 1;
            if rows.is_tired() {
                rows.sort();
                let left = found[*next..].iter_mut().filter(|left| left.pane == at.pane);
                left.for_each(|left| left.row = rows.first_of(left.tag));
            }
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
        let dues = &probe.records.dues;
        let single = |&place: &usize| match how {
            How::Semi => is_judged && probe.is_matched[place],
            _ => is_padded && !probe.is_matched[place] && dues[place] < over,
        };
        let all = 0..probe.entries();
        let singles: Vec<usize> = if is_padded || how == How::Semi { all.clone().filter(single).collect() } else { Vec::new() };
        if !singles.is_empty() {
            let rows = UInt32Array::from_iter_values(singles.iter().map(|&place| probe.rows[place]));
            let times = singles.iter().map(|&place| self.time_of(side, dues[place])).collect();
            self.push_single(side, &taken(&probe.columns, &rows)?, times, out)?;
        }
        let is_kept = |place: usize| dues[place] >= over && !(is_judged && probe.is_matched[place]);
        let Probe { columns, rows, times, records, is_matched, .. } = match all.clone().all(is_kept) {
            true => probe,
            false => {
                let kept: Vec<usize> = all.filter(|&place| is_kept(place)).collect();
                probe.chosen(&kept)
            }
        };
        if rows.is_empty() {
            return Ok(());
        }
        let is_whole = rows.iter().enumerate().all(|(place, &row)| place as u32 == row);
        let columns = match is_whole && columns.first().is_none_or(|column| column.len() == rows.len()) {
            true => columns,
            false => taken(&columns, &UInt32Array::from(rows))?,
        };
        let Records { hashes, dues, keys, .. } = &records;
        let mut first = 0;
        if let Some(durable) = &mut self.durable {
            let new = NewRows { columns: &columns, hashes, times: &times, dues, is_matched: &is_matched };
            first = durable.insert(side, &new, |place| keys.get(place))?;
        }
        let noted = hashes.iter().zip(&is_matched).zip(first..);
        let noted = noted.map(|((&hash, &is_matched), durable)| Noted { hash, durable, is_matched });
        let noted: Vec<Noted> = if self.kept[side].is_noted() { noted.collect() } else { Vec::new() };
        // The bytes of keys are kept only where the words do not say all.
        let keys = if is_word(self.encoder.kind()) { Keys::default() } else { records.keys };
        self.kept[side].add(&columns, &Records { keys, ..records }, &noted)
    }

    /// Drops rows of a side that can have no more partners; whether there are more.
    fn drop_due(&mut self, side: usize, out: &mut Outbox) -> Result<bool> {
        let before = self.watermarks[1 - side].0;
        let is_padded = self.plan.how.is_padded(side);
        let mut unmatched = Vec::new();
        let has_more = is_padded && self.kept[side].drop_before(before, EMIT_ROWS, &mut unmatched);
        if !unmatched.is_empty() {
            self.push_kept(side, &unmatched, out)?;
        }
        if !has_more {
            self.kept[side].sweep(before);
        }
        Ok(has_more)
    }

    /// Emits a row for each pair of a record and a kept one.
    fn push_pairs(&self, probe: &Probe, places: &[u32], partners: &[u64], times: Vec<i64>, out: &mut Outbox) -> Result<()> {
        let rows = UInt32Array::from_iter_values(places.iter().map(|&place| probe.rows[place as usize]));
        let (own, theirs) = (taken(&probe.columns, &rows)?, self.kept[1 - probe.side].gather(partners)?);
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

    /// Emits rows of kept records of a side alone.
    fn push_kept(&self, side: usize, numbers: &[u64], out: &mut Outbox) -> Result<()> {
        if numbers.is_empty() {
            return Ok(());
        }
        let times = self.kept[side].known(numbers).iter().map(|&(due, _)| self.time_of(side, due)).collect();
        self.push_single(side, &self.kept[side].gather(numbers)?, times, out)
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
        let (is_windowed, kind) = (self.windows.is_some(), self.encoder.kind());
        for side in 0..2 {
            durable.for_each(side, DECODE_ROWS, |kept, data| {
                let mut records = Records { dues: kept.iter().map(|row| row.due).collect(), ..Records::default() };
                // The end of the window comes after the key.
                let end = if is_windowed { size_of::<i64>() } else { 0 };
                let keys = kept.iter().map(|row| &row.key[..row.key.len().saturating_sub(end)]);
                let encoded = KeyBatch::of_written(kind, keys).map_err(state_error)?;
                records.hashes = encoded.hashes().to_vec();
                records.words = if is_word(kind) { encoded.words().to_vec() } else { records.hashes.clone() };
                let hashed = kept.iter().zip(&records.hashes);
                let columns = data.map(|data| data.columns().to_vec()).unwrap_or_default();
                let noted = hashed.map(|(row, &hash)| Noted { hash, durable: row.number, is_matched: row.is_matched });
                let noted: Vec<Noted> = if self.kept[side].is_noted() { noted.collect() } else { Vec::new() };
                if !is_word(kind) {
                    kept.iter().for_each(|row| records.keys.push(row.key));
                }
                self.kept[side].add(&columns, &records, &noted)
            })?;
        }
        Ok(())
    }
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
