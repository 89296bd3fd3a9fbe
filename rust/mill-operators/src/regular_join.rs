//! The regular join: all rows of two inputs that have the same key, as they are added, changed and removed.
//!
//! ```text
//!   row of a side that        for each row of its key of the other side       the row alone
//!   comes                     the pair; alone no more, if it was              if there is none
//!   changes                   the pair again                                  again, if there is none
//!   goes                      the pair is withdrawn; alone, if it was the     is withdrawn, if there was none
//!                             last of its side
//! ```
//!
//! *Alone* is the row that a record makes without a partner: with nulls for a padded side, and that of an anti join. The left
//! row of a semi join is the other way round: it is there while there is a partner. Each kept row knows whether it is in the
//! result so ([`Row::is_single`](rows::Row::is_single)), so nothing is withdrawn that is not there.
//!
//! The rows of the other side do not change by a batch, but for that mark and the time of their last use. So a batch is one walk
//! over its records. Their keys are looked up together before, each once for both sides; rows are numbers on the way, and what is
//! emitted is gathered column by column, some thousand rows at a time. Where nothing is ever withdrawn and no row has an age, the walk
//! only puts numbers side by side. Of several records of a batch that have the same key and identity only the last one is looked at.
//!
//! In a job without checkpoints, records of a side that only records of the other one would find are kept until that one ends.
//!
//! **Age.** With a TTL each row has the time of its last use: when it came, was changed or was joined with a row that came or was
//! changed. A row whose last use is `ttl` ago is not there any more, whether or not it has been dropped: what it made stays in the
//! result as it is, and no longer changes. By event time *now* is the time of the record at hand, and rows are dropped as the lesser
//! of both watermarks passes their end; a record older than the watermark of its own side is late, as partners of it may be gone.

mod durable;
mod kept;
mod keys;
mod lists;
mod piece;
mod records;
mod rows;
mod view;

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use mill_frame::hash::KEY_GROUPS;
use mill_plan::{How, RegularJoinPlan, RowIdentity, Stage, TimerClock};
use mill_protocol::{Batch, Error, Operator, Outbox, Progress, Restored, Result, Snapshot, TaskContext, Watermark};
use mill_state::KeyEncoder;

use self::kept::Kept;
use self::piece::Piece;
use self::records::Records;
use self::rows::Row;
use self::view::Own;
pub(crate) use self::view::{kept_rows, shown_schema};
use crate::accumulator::state_error;
use crate::description::{Described, Description, JoinShape, Shape, own};
use crate::join::assemble::Assembler;
use crate::join::heads::NONE;
use crate::row_codec::RowCodec;

/// How many rows are emitted at a time.
const EMIT_ROWS: usize = 8192;
/// How many rows are dropped at a time.
const DROP_ROWS: usize = 16_384;

/// When a row of a side is in the result without a partner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Single {
    Never,
    WhenAlone,
    WhenMatched,
}

impl Single {
    fn of(how: How, side: usize) -> Single {
        match how {
            How::Semi if side == 0 => Single::WhenMatched,
            how if how.is_padded(side) => Single::WhenAlone,
            _ => Single::Never,
        }
    }

    fn is_wanted(self, has_partner: bool) -> bool {
        match self {
            Single::Never => false,
            Single::WhenAlone => !has_partner,
            Single::WhenMatched => has_partner,
        }
    }
}

/// What is the same for all rows of a side.
struct Side {
    single: Single,
    /// Whether the row of a record alone has the key of the pairs that come instead.
    shares_key: bool,
    identity: RowIdentity,
    encoder: Option<KeyEncoder>,
    /// The number of the next record of each key group.
    numbers: Vec<u64>,
}

/// Joins all rows of two inputs.
pub(crate) struct RegularJoin {
    plan: RegularJoinPlan,
    assembler: Assembler,
    encoder: KeyEncoder,
    sides: [Side; 2],
    kept: Kept,
    /// Whether records of a side are no longer kept, as nobody will look for them.
    is_over: [bool; 2],
    is_persistent: bool,
    watermarks: [Watermark; 2],
    now: i64,
    next_time: Option<i64>,
    work: Option<Work>,
    described: Described,
}

/// What is under way while the operator says that there is more.
enum Work {
    /// Records of a batch are joined.
    Records(Box<Records>),
    /// Rows that were last used at a time are dropped.
    Drop(i64),
    /// Rows without a partner are emitted at the end: those of a side from a number on.
    End(usize, u32),
}

/// A record that has been looked at and whose partners are gone through.
struct Current {
    is_delete: bool,
    /// Whether nothing has changed: its partners are used, and that is all.
    is_same: bool,
    /// Whether the partners had no row of this record before.
    is_first: bool,
    /// Whether no other row of its side has its key.
    is_only: bool,
    /// How many of its partners have been gone through.
    after: usize,
}

impl RegularJoin {
    pub(crate) fn new(stage: &Stage, context: &TaskContext, plan: &RegularJoinPlan) -> Result<RegularJoin> {
        let assembler = Assembler::new(&plan.columns, &stage.schema);
        let types: Vec<DataType> = plan.keys[0].iter().map(|&key| plan.inputs[0].field(key).data_type().clone()).collect();
        let mut kept = Vec::with_capacity(2);
        let mut codecs = Vec::with_capacity(2);
        let mut sides = Vec::with_capacity(2);
        for side in 0..2 {
            let schema = assembler.kept_schema(side, &numbered(&plan.inputs[side], plan.numbers[side]))?;
            let identity = plan.identities[side].clone();
            let encoder = match &identity {
                RowIdentity::Columns(columns) => {
                    let types: Vec<DataType> =
                        columns.iter().map(|&column| plan.inputs[side].field(column).data_type().clone()).collect();
                    Some(KeyEncoder::new(&types).map_err(state_error)?)
                }
                RowIdentity::Key | RowIdentity::Number => None,
            };
            sides.push(Side {
                single: Single::of(plan.how, side),
                shares_key: plan.how.has_pairs() && !plan.tells_apart[1 - side],
                identity,
                encoder,
                numbers: vec![0; usize::from(KEY_GROUPS)],
            });
            codecs.push(RowCodec::new(Arc::clone(&schema))?);
            kept.push(schema);
        }
        let two = |_| Error::internal("a join has two sides");
        let sides: [Side; 2] = sides.try_into().map_err(|_| two(()))?;
        let kept: [SchemaRef; 2] = kept.try_into().map_err(|_| two(()))?;
        let codecs: [RowCodec; 2] = codecs.try_into().map_err(|_| two(()))?;
        let state = Kept::new(context, codecs, plan.identities.clone(), plan.is_timed, plan.ttl.map(|(us, _)| us));
        let shape = JoinShape { kept, columns: assembler.kept_columns(), window: None };
        let shape = Shape::RegularJoin(shape);
        let described = Description { schema: Arc::clone(&stage.schema), keeps_pending: false, shape }.described();
        Ok(RegularJoin {
            plan: plan.clone(),
            assembler,
            encoder: KeyEncoder::new(&types).map_err(state_error)?,
            sides,
            kept: state,
            is_over: [false; 2],
            is_persistent: context.is_persistent,
            watermarks: [Watermark::MIN; 2],
            now: 0,
            next_time: None,
            work: None,
            described,
        })
    }

    fn is_by_event_time(&self) -> bool {
        matches!(self.plan.ttl, Some((_, TimerClock::Event)))
    }

    /// Whether rows come and are joined, and that is all: they do not go, do not change and are in the result by pairs alone.
    fn is_plain(&self) -> bool {
        let is_numbered = |identity: &RowIdentity| *identity == RowIdentity::Number;
        self.plan.how == How::Inner && self.plan.ttl.is_none() && self.plan.identities.iter().all(is_numbered)
    }

    /// Joins records until there are enough rows to be emitted; whether there are more.
    fn join(&mut self, records: &mut Records, out: &mut Outbox) -> Result<bool> {
        let mut piece = Piece::default();
        if self.is_plain() {
            self.join_plain(records, &mut piece);
        }
        // A join without pairs may look at many partners and emit nothing.
        while records.next < records.rows() && piece.rows() < EMIT_ROWS && piece.looked_at < EMIT_ROWS {
            let is_done = self.join_record(records, &mut piece)?;
            if is_done {
                records.next += 1;
                records.current = None;
            }
        }
        self.push(records, piece, out)?;
        let has_more = records.next < records.rows();
        if !has_more {
            self.kept.settle()?;
        }
        Ok(has_more)
    }

    /// Joins records where only pairs count, and keeps them once the last one is joined.
    fn join_plain(&mut self, records: &mut Records, piece: &mut Piece) {
        let side = records.side;
        let (keys, other) = (&self.kept.keys, &self.kept.sides[1 - side]);
        while records.next < records.rows() {
            let (row, after) = (records.next, records.after);
            let partners = &keys.rows(records.slots[row], 1 - side)[after..];
            let taken = partners.len().min(EMIT_ROWS - piece.rows());
            piece.pairs(row, &partners[..taken]);
            if let Some(times) = &records.times {
                piece.times.extend(partners[..taken].iter().map(|&partner| times[row].max(other.time(partner))));
            }
            if taken < partners.len() {
                records.after += taken;
                return;
            }
            (records.next, records.after) = (row + 1, 0);
        }
        if let Some(first) = records.first {
            let keys = &mut self.kept.keys;
            let place = |(&slot, row): (&u32, u32)| if slot == NONE { 0 } else { keys.push(slot, side, row) };
            let places: Vec<u32> = records.slots.iter().zip(first..).map(place).collect();
            self.kept.sides[side].keep_all(first, &records.slots, &places, records.times.as_deref());
        }
    }

    /// Joins the next record, or continues with it; whether it is done.
    fn join_record(&mut self, records: &mut Records, piece: &mut Piece) -> Result<bool> {
        let (row, side) = (records.next, records.side);
        if records.is_superseded(row) {
            return Ok(true);
        }
        if records.has_key.as_ref().is_some_and(|has_key| has_key.is_null(row)) {
            return self.join_nothing(records, piece);
        }
        let current = match records.current.take() {
            Some(current) => current,
            None => match self.begin(records, piece)? {
                Some(current) => current,
                None => return Ok(true),
            },
        };
        let single = self.sides[1 - side].single;
        let changes_partners = current.is_first || (current.is_delete && current.is_only);
        let uses_partners = self.plan.ttl.is_some() && !current.is_delete;
        if !self.plan.how.has_pairs() && !uses_partners && (single == Single::Never || !changes_partners) {
            return Ok(true);
        }
        let (is_done, after) = self.join_partners(records, &current, piece);
        records.current = Some(Current { after, ..current });
        Ok(is_done)
    }

    /// Keeps a record, in place of a row if there is one.
    fn keep(&mut self, records: &Records, replaced: Option<u32>, is_single: bool) {
        let row = records.next;
        let Some(first) = records.first else { return };
        let known = Row { time: records.time(row), last: records.at(row), due: 0, is_single };
        let identity = records.identities.get(row);
        self.kept.set(records.side, records.slots[row], first + row as u32, replaced, identity, known);
    }

    /// Whether a record is the same as a row of its side.
    fn is_same(&self, records: &mut Records, old: u32) -> Result<bool> {
        let Some(first) = records.first else { return Ok(false) };
        self.kept.sides[records.side].is_same(&mut records.alike, old, first + records.next as u32)
    }

    /// Emits the row that a record without a key makes alone; such a row is kept only where it may change.
    fn join_nothing(&mut self, records: &mut Records, piece: &mut Piece) -> Result<bool> {
        let (row, side) = (records.next, records.side);
        if self.sides[side].single != Single::WhenAlone {
            return Ok(true);
        }
        let (at, time) = (records.at(row), records.time(row));
        if self.sides[side].identity == RowIdentity::Number {
            piece.single(row, time, false);
            return Ok(true);
        }
        let kept = self.kept.find(side, records.slots[row], records.identities.get(row));
        let old = kept.filter(|&old| self.kept.is_there(self.kept.sides[side].last(old), at));
        if records.is_delete(row) {
            if let Some(old) = old {
                self.kept.remove(side, old);
                piece.single(row, time, true);
            }
            return Ok(true);
        }
        let is_same = match old {
            Some(old) => self.is_same(records, old)?,
            None => false,
        };
        if !is_same {
            piece.single(row, time, false);
        }
        self.keep(records, kept, true);
        Ok(true)
    }

    /// Takes a record up into its side, and emits what it makes alone; `None` if nothing is to be said of its partners.
    fn begin(&mut self, records: &mut Records, piece: &mut Piece) -> Result<Option<Current>> {
        let (row, side) = (records.next, records.side);
        let (slot, is_delete) = (records.slots[row], records.is_delete(row));
        let (at, time) = (records.at(row), records.time(row));
        let Side { single, shares_key, ref identity, .. } = self.sides[side];
        let is_key = *identity == RowIdentity::Key;
        let kept = self.kept.find(side, slot, records.identities.get(row));
        // One that is too old is replaced as well, and was not there.
        let old = kept.filter(|&old| self.kept.is_there(self.kept.sides[side].last(old), at));
        let was_single = old.is_some_and(|old| self.kept.sides[side].row(old).is_single);
        if is_delete {
            let Some(old) = old else { return Ok(None) };
            self.kept.remove(side, old);
            if was_single {
                piece.single(row, time, true);
            }
            let is_only = is_key || !self.kept.has_any(side, slot, at);
            return Ok(Some(Current { is_delete, is_same: false, is_first: false, is_only, after: 0 }));
        }
        let is_same = match old {
            Some(old) => self.is_same(records, old)?,
            None => false,
        };
        let has_partner = match single {
            Single::Never => false,
            Single::WhenAlone | Single::WhenMatched => self.kept.has_any(1 - side, slot, at),
        };
        let is_single = single.is_wanted(has_partner);
        // Only the first row of a key changes what its partners are without pairs.
        let is_first = match (old, self.plan.how.has_pairs()) {
            (Some(_), _) => false,
            (None, true) => true,
            (None, false) => !self.kept.has_other(side, slot, kept.unwrap_or(NONE), at),
        };
        self.keep(records, kept, is_single);
        if is_same && was_single == is_single {
            // What has changed may be in a column that nobody reads, so it is a use all the same.
            let current = Current { is_delete, is_same, is_first: false, is_only: false, after: 0 };
            return Ok(self.plan.ttl.map(|_| current));
        }
        if is_single && !self.plan.waits_for_end {
            piece.single(row, time, false);
        } else if was_single && !is_single && !shares_key {
            piece.single(row, time, true);
        }
        Ok(Some(Current { is_delete, is_same: false, is_first, is_only: false, after: 0 }))
    }

    /// Goes through the partners of a record, as many as there is room for; whether these were all, and how many have been gone through.
    fn join_partners(&mut self, records: &Records, current: &Current, piece: &mut Piece) -> (bool, usize) {
        let (row, side) = (records.next, records.side);
        let (at, other) = (records.at(row), 1 - side);
        let Side { single, shares_key, .. } = self.sides[other];
        let (has_pairs, is_delete) = (self.plan.how.has_pairs() && !current.is_same, current.is_delete);
        let has_ttl = self.plan.ttl.is_some();
        let Kept { keys, sides, .. } = &self.kept;
        let partners = &keys.rows(records.slots[row], other)[current.after..];
        // A partner makes two rows at most.
        let room = (EMIT_ROWS.saturating_sub(piece.rows()) / 2).max(1);
        let taken = partners.len().min(room);
        piece.looked_at += taken;
        let mut changes = Vec::new();
        for &partner in &partners[..taken] {
            let Row { time, last, is_single: was_single, .. } = sides[other].row(partner);
            if has_ttl && !self.kept.is_there(last, at) {
                continue;
            }
            let is_single = match (is_delete, single) {
                (_, Single::Never) => false,
                (false, single) => single.is_wanted(true),
                (true, single) if current.is_only => single.is_wanted(false),
                (true, _) => was_single,
            };
            let pair_time = time.max(records.time(row));
            let is_alone_again = is_single && !was_single;
            let is_alone_no_more = was_single && !is_single && !shares_key && !self.plan.waits_for_end;
            if is_alone_no_more {
                piece.partner(partner, pair_time, true);
            }
            // Where the row alone takes the place of the pair, the pair needs not be withdrawn.
            if has_pairs && !(is_alone_again && shares_key) {
                piece.pair(row, partner, pair_time, is_delete);
            }
            if is_alone_again {
                piece.partner(partner, pair_time, false);
            }
            let is_used = has_ttl && !is_delete && at > last;
            if is_single != was_single || is_used {
                changes.push((partner, is_single, is_used));
            }
        }
        let is_done = taken == partners.len();
        let rows = &mut self.kept.sides[other];
        for (partner, is_single, is_used) in changes {
            if is_used {
                rows.set_last(partner, at);
            }
            if rows.row(partner).is_single != is_single {
                rows.set_single(partner, is_single);
                rows.change(partner);
            }
        }
        (is_done, current.after + taken)
    }

    /// Emits what has been put together.
    fn push(&self, records: &Records, piece: Piece, out: &mut Outbox) -> Result<()> {
        let side = records.side;
        let Some(made) = piece.rows_of(side, &records.columns, &self.kept.sides[1 - side], &self.assembler)? else { return Ok(()) };
        let times = self.plan.is_timed.then(|| made.times.into());
        out.push(Batch::new(made.data).with_times(times).with_deletes(made.deletes));
        Ok(())
    }

    /// Emits rows of a side without a partner at the end; the number to continue with, if there are more.
    fn push_singles(&mut self, side: usize, from: u32, out: &mut Outbox) -> Result<Option<u32>> {
        let rows = &self.kept.sides[side];
        let Some((mut found, next)) = rows.some_from(from, EMIT_ROWS) else { return Ok(None) };
        found.retain(|&row| rows.row(row).is_single);
        if self.sides[side].single == Single::WhenAlone && !found.is_empty() {
            let columns = rows.gather(&found)?;
            let sides = if side == 0 { [Some(&columns[..]), None] } else { [None, Some(&columns[..])] };
            out.push(Batch::new(self.assembler.rows(sides, found.len(), None)?));
        }
        Ok(Some(next))
    }

    fn go_on(&mut self, out: &mut Outbox) -> Result<Progress> {
        let has_more = match self.work.take() {
            None => false,
            Some(Work::Records(mut records)) => {
                let has_more = self.join(&mut records, out)?;
                self.work = has_more.then_some(Work::Records(records));
                has_more
            }
            Some(Work::Drop(at)) => {
                let has_more = self.kept.drop_unused(at, DROP_ROWS)?;
                self.work = has_more.then_some(Work::Drop(at));
                has_more
            }
            Some(Work::End(side, from)) => {
                self.work = match self.push_singles(side, from, out)? {
                    Some(next) => Some(Work::End(side, next)),
                    None => (side == 0).then_some(Work::End(1, 0)),
                };
                self.work.is_some()
            }
        };
        if !has_more {
            self.next_time = if self.is_by_event_time() { None } else { self.kept.first_due() };
        }
        Ok(if has_more { Progress::More } else { Progress::Done })
    }
}

/// The columns of an input, with the number of each record after them if the result has it.
fn numbered(input: &SchemaRef, has_number: bool) -> SchemaRef {
    if !has_number {
        return Arc::clone(input);
    }
    let mut fields: Vec<Arc<Field>> = input.fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new("number", DataType::Int64, true)));
    Arc::new(Schema::new(fields))
}

impl Operator for RegularJoin {
    fn on_batch(&mut self, input: usize, batch: Batch, out: &mut Outbox) -> Result<Progress> {
        let records = self.records(input, batch, out)?;
        self.work = Some(Work::Records(Box::new(records)));
        self.go_on(out)
    }

    fn on_watermark(&mut self, input: usize, at: Watermark, out: &mut Outbox) -> Result<Progress> {
        self.watermarks[input] = self.watermarks[input].max(at);
        let least = self.watermarks[0].min(self.watermarks[1]);
        if self.is_by_event_time() && least != Watermark::MAX {
            self.work = Some(Work::Drop(least.0));
        }
        self.go_on(out)
    }

    fn next_time(&self) -> Option<i64> {
        self.next_time
    }

    fn on_time(&mut self, now: i64, out: &mut Outbox) -> Result<Progress> {
        if !self.is_by_event_time() {
            self.work = Some(Work::Drop(now));
        }
        self.go_on(out)
    }

    fn uses_now(&self) -> bool {
        matches!(self.plan.ttl, Some((_, TimerClock::Processing)))
    }

    fn set_now(&mut self, now: i64) {
        self.now = self.now.max(now);
    }

    fn on_input_end(&mut self, input: usize, _out: &mut Outbox) -> Result<Progress> {
        let side = 1 - input;
        let is_found_again = self.sides[side].identity != RowIdentity::Number || self.sides[side].single == Single::WhenAlone;
        // A checkpoint could be gone on from with more records.
        if !self.is_persistent && !is_found_again {
            self.is_over[side] = true;
            self.kept.forget(side);
            self.kept.settle()?;
        }
        Ok(Progress::Done)
    }

    fn on_end(&mut self, out: &mut Outbox) -> Result<Progress> {
        if self.plan.waits_for_end {
            self.work = Some(Work::End(0, 0));
        }
        self.go_on(out)
    }

    fn resume(&mut self, out: &mut Outbox) -> Result<Progress> {
        self.go_on(out)
    }

    fn snapshot(&mut self, snapshot: &mut Snapshot) -> Result<()> {
        let mut bytes: Vec<u8> = self.watermarks.iter().flat_map(|at| at.0.to_le_bytes()).collect();
        for side in &self.sides {
            let used: Vec<(u16, u64)> = (0..).zip(side.numbers.iter().copied()).filter(|(_, next)| *next > 0).collect();
            bytes.extend_from_slice(&(used.len() as u32).to_le_bytes());
            for (group, next) in used {
                bytes.extend_from_slice(&group.to_le_bytes());
                bytes.extend_from_slice(&next.to_le_bytes());
            }
        }
        bytes.extend_from_slice(&self.kept.snapshot(snapshot)?);
        snapshot.bytes = Some(self.described.of(&bytes));
        Ok(())
    }

    fn restore(&mut self, restored: &Restored) -> Result<()> {
        let own = restored.bytes.iter().map(|bytes| Own::read(own(bytes)?)).collect::<Result<Vec<Own<'_>>>>()?;
        // At an aligned barrier all instances have the same watermarks; without alignment nothing may be lost.
        for side in 0..2 {
            self.watermarks[side] = own.iter().map(|own| own.watermarks[side]).min().unwrap_or(Watermark::MIN);
            for &(group, next) in own.iter().flat_map(|own| &own.numbers[side]) {
                let known = &mut self.sides[side].numbers[usize::from(group)];
                *known = next.max(*known);
            }
        }
        let states: Vec<&[u8]> = own.iter().map(|own| own.states).collect();
        self.kept.restore(&states, restored)?;
        self.next_time = if self.is_by_event_time() { None } else { self.kept.first_due() };
        Ok(())
    }
}

#[cfg(test)]
mod tests;
