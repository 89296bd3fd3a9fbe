//! A batch of records on its way to their partners: keys, identities and rows as bytes, for all records at once.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use mill_frame::hash::{KEY_GROUPS, key_group};
use mill_frame::text::record_json;
use mill_plan::{RowIdentity, TimerClock};
use mill_protocol::{Batch, Error, Outbox, Rejected, Result, Watermark};

use super::rows::{Alike, identity_hash};
use super::{Current, RegularJoin, Single};
use crate::accumulator::state_error;
use crate::join::heads::{Heads, NONE};
use crate::join::late::{push_late, time_at, with_key};
use crate::pair::taken;

/// The records of a batch.
pub(super) struct Records {
    pub(super) side: usize,
    /// The columns that are kept of the side.
    pub(super) columns: Vec<ArrayRef>,
    pub(super) deletes: Option<BooleanBuffer>,
    /// Which records have a key without nulls, if not all have.
    pub(super) has_key: Option<NullBuffer>,
    rows: usize,
    /// The place of each key, [`NONE`] where it has none, and the number under which the first record is kept, if records are.
    pub(super) slots: Vec<u32>,
    pub(super) first: Option<u32>,
    /// The bytes of identities, where rows have one that is neither their key nor their number.
    pub(super) identities: Texts,
    /// The records after which another one of the batch has the same key and identity, if there are any: those need not be looked at.
    superseded: Option<Vec<bool>>,
    /// The event time, if there is one, and the time by which rows are used.
    pub(super) times: Option<Vec<i64>>,
    pub(super) clock: Clock,
    pub(super) next: usize,
    /// What is under way of the next record.
    pub(super) current: Option<Current>,
    /// How many partners of the next record have been gone through, where nothing else is under way of it.
    pub(super) after: usize,
    pub(super) alike: Alike,
}

/// The time at which a record uses rows.
pub(super) enum Clock {
    Now(i64),
    Of(Vec<i64>),
}

/// Byte strings, one after another.
#[derive(Default)]
pub(super) struct Texts {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Texts {
    fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.bytes);
        self.ends.push(self.bytes.len());
    }

    pub(super) fn get(&self, row: usize) -> &[u8] {
        let Some(&end) = self.ends.get(row) else { return &[] };
        let start = if row == 0 { 0 } else { self.ends[row - 1] };
        &self.bytes[start..end]
    }
}

/// The rows of which a later one has the same key and identity; `None` if there are none.
fn superseded(slots: &[u32], identities: &Texts) -> Option<Vec<bool>> {
    let mut later = Heads::default();
    let mut superseded = vec![false; slots.len()];
    for row in (0..slots.len()).rev().filter(|&row| slots[row] != NONE) {
        let (slot, identity) = (slots[row], identities.get(row));
        let hash = identity_hash(slot, identity);
        let mut search = later.begin(hash);
        superseded[row] = loop {
            match later.next(&mut search) {
                NONE => break false,
                other if slots[other as usize] == slot && identities.get(other as usize) == identity => break true,
                _ => {}
            }
        };
        if !superseded[row] {
            later.insert(hash, row as u32);
        }
    }
    superseded.contains(&true).then_some(superseded)
}

impl Records {
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn at(&self, row: usize) -> i64 {
        match &self.clock {
            Clock::Now(now) => *now,
            Clock::Of(times) => times[row],
        }
    }

    /// Whether a later record of the batch takes the place of this one.
    pub(super) fn is_superseded(&self, row: usize) -> bool {
        self.superseded.as_ref().is_some_and(|superseded| superseded[row])
    }

    pub(super) fn is_delete(&self, row: usize) -> bool {
        self.deletes.as_ref().is_some_and(|deletes| deletes.value(row))
    }

    pub(super) fn time(&self, row: usize) -> i64 {
        self.times.as_ref().map_or(0, |times| times[row])
    }
}

impl RegularJoin {
    /// Encodes the records of a batch, without those that are late or cannot be told apart.
    pub(super) fn records(&mut self, side: usize, batch: Batch, out: &mut Outbox) -> Result<Records> {
        let batch = self.on_time_only(side, batch, out)?;
        let batch = self.told_apart(side, batch, out)?;
        let rows = batch.rows();
        let key_columns = &self.plan.keys[side];
        let columns: Vec<ArrayRef> = key_columns.iter().map(|&key| ArrayRef::clone(batch.column(key))).collect();
        self.encoder.encode(&columns, rows).map_err(state_error)?;
        let has_key = with_key(&batch, key_columns);
        let keys = self.encoder.batch();
        let hashes = keys.hashes().to_vec();
        let mut key_bytes = Texts::default();
        (0..rows).for_each(|row| key_bytes.push(|out| keys.write_key(self.encoder.kind(), row, out)));
        let mut identities = Texts::default();
        let (mut numbers, mut kept_numbers) = (Vec::new(), Vec::new());
        let of_side = &mut self.sides[side];
        match (&of_side.identity, &mut of_side.encoder) {
            (RowIdentity::Columns(columns), Some(encoder)) => {
                let columns: Vec<ArrayRef> = columns.iter().map(|&column| ArrayRef::clone(batch.column(column))).collect();
                encoder.encode(&columns, rows).map_err(state_error)?;
                (0..rows).for_each(|row| identities.push(|out| encoder.batch().write_key(encoder.kind(), row, out)));
            }
            (RowIdentity::Number, _) => {
                let has_number = self.plan.numbers[side];
                numbers.reserve(if has_number { rows } else { 0 });
                kept_numbers.reserve(rows);
                for &hash in &hashes {
                    let group = key_group(hash);
                    let next = &mut of_side.numbers[usize::from(group)];
                    kept_numbers.push(*next);
                    if has_number {
                        numbers.push((*next * u64::from(KEY_GROUPS) + u64::from(group)) as i64);
                    }
                    *next += 1;
                }
            }
            (RowIdentity::Key | RowIdentity::Columns(_), _) => {}
        }
        let is_numbered = of_side.identity == RowIdentity::Number;
        let mut columns = batch.data().columns().to_vec();
        if self.plan.numbers[side] {
            columns.push(Arc::new(Int64Array::from(numbers)));
        }
        let columns = self.assembler.columns_of(side, &columns);
        let is_kept = !self.is_over[side];
        let mut slots = vec![NONE; rows];
        // A record without a key is kept only where it makes a row alone, which may change.
        let is_kept_alone = !is_numbered && of_side.single == Single::WhenAlone;
        let is_wanted = |row: usize| is_kept_alone || has_key.as_ref().is_none_or(|has_key| has_key.is_valid(row));
        self.kept.keys.find_all(&mut slots, is_kept, is_wanted, |row| (hashes[row], key_bytes.get(row)));
        if let Some(deletes) = batch.deletes() {
            deletes.set_indices().filter(|&row| slots[row] != NONE).for_each(|row| self.kept.keys.may_be_empty(slots[row]));
        }
        let superseded = if is_numbered { None } else { superseded(&slots, &identities) };
        let first = match is_kept {
            true => Some(self.kept.sides[side].append(columns.clone(), rows, &kept_numbers)?),
            false => None,
        };
        let times = match (self.plan.is_timed, batch.times()) {
            (true, Some(times)) => Some(times.to_vec()),
            (true, None) => return Err(Error::internal("a join by event time got records without one")),
            (false, _) => None,
        };
        let clock = match (self.plan.ttl, &times) {
            (Some((_, TimerClock::Event)), Some(times)) => Clock::Of(times.clone()),
            _ => Clock::Now(self.now),
        };
        Ok(Records {
            side,
            columns,
            deletes: batch.deletes().cloned(),
            has_key,
            rows,
            slots,
            first,
            identities,
            superseded,
            times,
            clock,
            next: 0,
            current: None,
            after: 0,
            alike: Alike::default(),
        })
    }

    /// The batch without its late records, which go out on a port of their own.
    fn on_time_only(&self, side: usize, batch: Batch, out: &mut Outbox) -> Result<Batch> {
        let Some(times) = batch.times().filter(|_| self.is_by_event_time()) else { return Ok(batch) };
        let watermark = self.watermarks[side];
        let is_late = |row: usize| {
            let at = time_at(&batch, row, times[row], watermark);
            times[row] < at.0 || at == Watermark::MAX
        };
        if !(0..batch.rows()).any(is_late) {
            return Ok(batch);
        }
        let (late, rest) = (0..batch.rows() as u32).partition(|&row| is_late(row as usize));
        push_late(1 + side, &batch, self.plan.own[side], late, out)?;
        taken(&batch, rest)
    }

    /// The batch without records whose row without a partner could have the key of another one.
    fn told_apart(&self, side: usize, batch: Batch, out: &mut Outbox) -> Result<Batch> {
        let Some(ambiguous) = &self.plan.ambiguous else { return Ok(batch) };
        let has_key = with_key(&batch, &self.plan.keys[side]);
        let nulls: Vec<Option<NullBuffer>> = ambiguous[side].iter().map(|&column| batch.column(column).logical_nulls()).collect();
        let is_ambiguous = |row: usize| {
            (!self.plan.is_shared || has_key.as_ref().is_some_and(|has_key| has_key.is_null(row)))
                && nulls.iter().all(|nulls| nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)))
        };
        if !(0..batch.rows()).any(is_ambiguous) {
            return Ok(batch);
        }
        let (unclear, rest): (Vec<u32>, Vec<u32>) = (0..batch.rows() as u32).partition(|&row| is_ambiguous(row as usize));
        for row in unclear {
            let message = format!(
                "the key of this {} row is null, and with how=\"full\" the result could not tell it from a {} row whose key is null; \
                 leave such rows out with filter(col(\"…\").is_not_null()) before join(), whose key is {}",
                ["left", "right"][side],
                ["right", "left"][side],
                self.plan.on
            );
            out.reject(Rejected::new(message, record_json(batch.data(), row as usize)));
        }
        taken(&batch, rest)
    }
}
