//! The rows that a regular join keeps of both sides.
//!
//! ```text
//!   keys      join key ──► the numbers of its rows of either side          looked up a batch at a time
//!   sides     number ──► columns as they came, time, last use, due, mark   gathered from by number
//!   durable   what a checkpoint has of them, written where rows change     only in a job with checkpoints
//! ```

use mill_plan::RowIdentity;
use mill_protocol::{Error, Restored, Result, Snapshot, TaskContext};

use super::durable::{Durable, Name};
use super::keys::Keys;
use super::rows::{Parts, Row, Rows};
use crate::join::heads::NONE;
use crate::row_codec::RowCodec;

/// How many rows are decoded at a time.
const DECODE_ROWS: usize = 8192;

/// The rows of both sides.
pub(super) struct Kept {
    pub(super) keys: Keys,
    pub(super) sides: [Rows; 2],
    codecs: [RowCodec; 2],
    identities: [RowIdentity; 2],
    durable: Option<Durable>,
    ttl_us: Option<i64>,
    parts: [Parts; 2],
}

impl Kept {
    pub(super) fn new(
        context: &TaskContext,
        codecs: [RowCodec; 2],
        identities: [RowIdentity; 2],
        is_timed: bool,
        ttl_us: Option<i64>,
    ) -> Kept {
        let durable = context.is_persistent.then(|| Durable::new(context, [&codecs[0], &codecs[1]], ttl_us.is_some()));
        let parts = [0, 1].map(|side| Parts {
            is_timed,
            has_age: ttl_us.is_some(),
            has_identity: matches!(identities[side], RowIdentity::Columns(_)),
            is_persistent: context.is_persistent,
            has_number: context.is_persistent && identities[side] == RowIdentity::Number,
        });
        Kept { keys: Keys::default(), sides: parts.map(Rows::new), codecs, identities, durable, ttl_us, parts }
    }

    /// Whether a row that was last used then is there at this time, for a record that would be there then: by event time either
    /// may be the earlier one.
    #[inline]
    pub(super) fn is_there(&self, last: i64, at: i64) -> bool {
        self.ttl_us.is_none_or(|ttl| at < last.saturating_add(ttl) && last < at.saturating_add(ttl))
    }

    /// The row of this key and identity, however old it is.
    pub(super) fn find(&self, side: usize, slot: u32, identity: &[u8]) -> Option<u32> {
        match self.identities[side] {
            // Numbered rows come once.
            RowIdentity::Number => None,
            RowIdentity::Key => self.keys.rows(slot, side).first().copied(),
            RowIdentity::Columns(_) => self.sides[side].find(slot, identity),
        }
    }

    /// Whether a side has a row of this key at this time.
    pub(super) fn has_any(&self, side: usize, slot: u32, at: i64) -> bool {
        self.keys.rows(slot, side).iter().any(|&row| self.is_there(self.sides[side].last(row), at))
    }

    /// Whether a side has a row of this key but for this one at this time.
    pub(super) fn has_other(&self, side: usize, slot: u32, but: u32, at: i64) -> bool {
        self.keys.rows(slot, side).iter().any(|&row| row != but && self.is_there(self.sides[side].last(row), at))
    }

    /// Keeps a row that was taken up, in place of the one of this identity if there is one. Its due is made here.
    pub(super) fn set(&mut self, side: usize, slot: u32, row: u32, replaced: Option<u32>, identity: &[u8], known: Row) {
        // The due stays, which leads to whatever row has this identity.
        let (due, has_due) = match replaced {
            Some(old) => (self.sides[side].row(old).due, self.sides[side].has_due(old)),
            None => (known.last.saturating_add(self.ttl_us.unwrap_or(i64::MAX)), false),
        };
        if let Some(old) = replaced {
            self.take_out(side, old);
        }
        let place = self.keys.push(slot, side, row);
        self.sides[side].keep(row, slot, place, &Row { due, ..known });
        if has_due {
            self.sides[side].set_has_due(row);
        }
        if self.parts[side].has_identity {
            self.sides[side].add_identity(row, identity);
        }
    }

    /// Removes a row.
    pub(super) fn remove(&mut self, side: usize, row: u32) {
        if let Some(durable) = &mut self.durable {
            let number = self.sides[side].slot_and_number(row).1.to_be_bytes();
            let name = name_of(&self.keys, &self.sides[side], &self.identities[side], row, &number);
            durable.remove(side, name, self.sides[side].row(row).due);
        }
        self.take_out(side, row);
    }

    fn take_out(&mut self, side: usize, row: u32) {
        let rows = &mut self.sides[side];
        let (slot, place) = rows.remove(row);
        if self.parts[side].has_identity {
            rows.remove_identity(row);
        }
        if let Some(moved) = self.keys.remove(slot, side, place) {
            rows.set_place(moved, place);
        }
    }

    /// Forgets all rows of a side.
    pub(super) fn forget(&mut self, side: usize) {
        self.keys.forget(side);
        self.sides[side] = Rows::new(self.parts[side]);
    }

    /// Drops rows that are no longer there at this time; whether there may be more.
    pub(super) fn drop_unused(&mut self, at: i64, rows_max: usize) -> Result<bool> {
        let mut has_more = false;
        for side in 0..2 {
            let (due, is_more) = self.sides[side].take_due(at, rows_max);
            has_more |= is_more;
            for row in due {
                let Row { last, due: former, .. } = self.sides[side].row(row);
                let due = last.saturating_add(self.ttl_us.unwrap_or(i64::MAX));
                if due <= at {
                    self.remove(side, row);
                    continue;
                }
                if let Some(durable) = &mut self.durable {
                    let number = self.sides[side].slot_and_number(row).1.to_be_bytes();
                    let name = name_of(&self.keys, &self.sides[side], &self.identities[side], row, &number);
                    durable.remove_due(side, name, former);
                }
                self.sides[side].set_due(row, due);
            }
        }
        self.settle()?;
        Ok(has_more)
    }

    /// When a row is to be looked at next.
    pub(super) fn first_due(&self) -> Option<i64> {
        self.sides.iter().filter_map(Rows::first_due).min()
    }

    /// Writes what has changed where a checkpoint finds it; when rows were used last only if `with_used`.
    fn write_changed(&mut self, with_used: bool) -> Result<()> {
        let Some(durable) = &mut self.durable else { return Ok(()) };
        for side in 0..2 {
            let changed = self.sides[side].take_changed(with_used);
            // In parts, since the rows used since the last checkpoint may be more than fit into one array.
            for changed in changed.chunks(DECODE_ROWS) {
                let columns = self.sides[side].gather(changed)?;
                let encoded = if columns.is_empty() { None } else { Some(self.codecs[side].encode(&columns)?) };
                for (place, &row) in changed.iter().enumerate() {
                    let rows = &mut self.sides[side];
                    let has_due = rows.has_due(row);
                    rows.set_has_due(row);
                    let number = rows.slot_and_number(row).1.to_be_bytes();
                    let name = name_of(&self.keys, rows, &self.identities[side], row, &number);
                    let bytes = encoded.as_ref().map(|encoded| encoded.row(place));
                    durable.write(side, name, &rows.row(row), bytes.as_ref().map_or(&[], |row| row.data()), has_due)?;
                }
            }
        }
        Ok(())
    }

    /// What is done when a batch is over, or rows were dropped: keys without rows are forgotten, and memory comes back.
    pub(super) fn settle(&mut self) -> Result<()> {
        self.write_changed(false)?;
        self.keys.forget_emptied();
        for (side, rows) in self.sides.iter_mut().enumerate() {
            rows.settle();
            if rows.sweep()? {
                self.keys.renumber(side, rows.slots(), rows.places());
            }
        }
        Ok(())
    }

    /// Hands over what has changed; the description of the states.
    pub(super) fn snapshot(&mut self, snapshot: &mut Snapshot) -> Result<Vec<u8>> {
        // A row that is used in every batch is written once a checkpoint.
        self.write_changed(true)?;
        let durable = self.durable.as_mut().ok_or_else(|| Error::internal("a join without checkpoints has no snapshot"))?;
        Ok(durable.snapshot(snapshot))
    }

    pub(super) fn restore(&mut self, states: &[&[u8]], restored: &Restored) -> Result<()> {
        let Some(mut durable) = self.durable.take() else { return Ok(()) };
        durable.restore(states, restored)?;
        for side in 0..2 {
            durable.for_each(side, DECODE_ROWS, |kept| {
                let codec = &self.codecs[side];
                let columns = match codec.schema().fields().is_empty() {
                    true => Vec::new(),
                    false => codec.decode(kept.iter().map(|row| row.bytes))?.columns().to_vec(),
                };
                let number = |entry: &[u8]| entry.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
                let numbers: Vec<u64> = kept.iter().map(|row| number(row.name.entry)).collect();
                let first = self.sides[side].append(columns, kept.len(), &numbers)?;
                let mut slots = vec![NONE; kept.len()];
                self.keys.find_all(&mut slots, true, |_| true, |place| (kept[place].name.hash, kept[place].name.key));
                for ((row, kept), &slot) in (first..).zip(kept).zip(&slots) {
                    let place = self.keys.push(slot, side, row);
                    self.sides[side].keep(row, slot, place, &kept.row);
                    self.sides[side].set_has_due(row);
                    if self.parts[side].has_identity {
                        self.sides[side].add_identity(row, kept.name.entry);
                    }
                }
                Ok(())
            })?;
            // All of that is in the checkpoint.
            self.sides[side].take_changed(true);
            self.sides[side].settle();
        }
        self.durable = Some(durable);
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.keys.memory()
            + self.sides.iter().map(Rows::memory).sum::<usize>()
            + self.durable.as_ref().map_or(0, Durable::memory)
    }
}

/// What a checkpoint finds a row by; `number` are the bytes of its number.
fn name_of<'a>(keys: &'a Keys, rows: &'a Rows, identity: &RowIdentity, row: u32, number: &'a [u8]) -> Name<'a> {
    let (hash, key) = keys.key(rows.slot_and_number(row).0);
    let entry = match identity {
        RowIdentity::Number => number,
        RowIdentity::Key => &[],
        RowIdentity::Columns(_) => rows.identity(row),
    };
    Name { hash, key, entry }
}
