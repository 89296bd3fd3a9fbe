//! The records of a side of a join within a time, found by key, and dropped as time goes on.
//!
//! ```text
//!   pane    a span of dues, and the records that are due then; dropped as a whole once all of them are
//!     rows    in chains by tag of the key, newest first
//! ```
//!
//! A record looks into the panes that have rows which are due when its partners are: mostly one to three. Nobody finds rows that are due
//! but not yet dropped: a record that could is late.
//!
//! Spans follow from the rows, so there are few panes however long the interval is, and rows that are due stay for little longer than
//! they must. A pane that has half of all rows takes none that are due later than those that it has. If the last of them are far ahead of the
//! others, they get a pane of their own: otherwise a record of a clock that is ahead would hold the others in memory. A pane that gets as many
//! rows once more, because rows come in no order, is divided in the middle.
//!
//! A chain has all rows of a key in a pane. That is best where keys have few: one chain is looked for a pane. Where keys have many and panes are
//! longer than the interval, most of them are no partners. Once many rows were passed in vain, a chain has only the rows that are due in one
//! grain of time, as long as the interval, and a record looks for two of them.

use arrow::array::{ArrayRef, UInt32Array};
use mill_protocol::Result;

use super::grain::{Grain, salt, tag};
use super::linked::{Linked, Spare};
use super::panes::{Found, Panes, look_up, number};
use super::records::{Noted, Records};

/// So many rows are passed in vain without grains for each row.
const VAIN_FACTOR: usize = 2;
/// So many rows are worth a table of their own.
const PANE_ROWS: usize = 8192;
/// A pane has about this part of all rows.
const PART: usize = 2;
/// By how many rows of a pane it is judged how they lie in time.
const JUDGED: usize = 1024;
/// This part of the rows of a pane may be far ahead.
const AHEAD: usize = 16;

/// The kept records of a side.
pub(super) struct Spans {
    /// In order of time; they do not overlap.
    panes: Vec<Pane>,
    /// Whether it is known of rows when they are dropped and whether they had a partner.
    is_noted: bool,
    /// The length of grains, and whether panes that are made have them.
    grain: i64,
    has_grains: bool,
    /// How many rows there are.
    rows: usize,
    /// Before which time they have been dropped.
    dropped: i64,
    spare: Spare,
}

struct Pane {
    /// The dues that it takes.
    first: i64,
    last: i64,
    /// Those of the rows that it has.
    least: i64,
    greatest: i64,
    /// Whether it takes no rows that are due later than those that it has.
    is_closed: bool,
    /// Whether a chain has only rows that are due in one grain.
    has_grains: bool,
    /// With how many rows it is closed, or divided.
    look_at: usize,
    rows: Linked,
}

impl Pane {
    fn new(first: i64, last: i64, has_grains: bool, rows: Linked) -> Pane {
        let dues = (0..rows.len() as u32).map(|row| rows.due(row));
        let (least, greatest) = dues.fold((i64::MAX, i64::MIN), |(least, greatest), due| (least.min(due), greatest.max(due)));
        Pane { first, last, least, greatest, is_closed: false, has_grains, look_at: PANE_ROWS.max(2 * rows.len()), rows }
    }

    /// Divides chains by grains of this length if there are several of them, and many rows were passed in vain.
    fn take_grains(&mut self, grain: i64) {
        let is_long = self.greatest.saturating_sub(self.least) > grain;
        if !self.has_grains && is_long && self.rows.vain() > PANE_ROWS + VAIN_FACTOR * self.rows.len() {
            self.has_grains = true;
            self.rows.add_to_tags(salts(grain));
        }
    }
}

/// What is added to tags for times.
fn salts(length: i64) -> impl FnMut(i64) -> u32 {
    let (mut grain, mut salt) = (Grain::NONE, 0);
    move |time| {
        if !grain.holds(time) {
            grain = Grain::of(time, length);
            salt = grain.salt();
        }
        salt
    }
}

impl Spans {
    /// None yet; partners are due within this length.
    pub(super) fn new(length: i64, is_noted: bool) -> Spans {
        let grain = length.saturating_add(1).max(1);
        Spans { panes: Vec::new(), is_noted, grain, has_grains: false, rows: 0, dropped: i64::MIN, spare: Spare::default() }
    }

    /// The pane that takes rows of this due; makes one if there is none.
    fn pane_for(&mut self, due: i64) -> usize {
        let at = self.panes.partition_point(|pane| pane.last < due);
        if self.panes.get(at).is_some_and(|pane| pane.first <= due) {
            return at;
        }
        let first = at.checked_sub(1).map_or(i64::MIN, |before| self.panes[before].last.saturating_add(1));
        let last = self.panes.get(at).map_or(i64::MAX, |after| after.first - 1);
        let memory = std::mem::take(&mut self.spare).for_rows(self.rows / PART, PANE_ROWS);
        self.panes.insert(at, Pane::new(first, last, self.has_grains, Linked::new(true, memory)));
        at
    }

    /// Keeps those of the records at these places in a pane; `columns` has only them.
    fn add_to(
        &mut self,
        at: usize,
        columns: Vec<ArrayRef>,
        records: &Records,
        noted: &[Noted],
        places: impl ExactSizeIterator<Item = usize> + Clone,
    ) -> Result<()> {
        let pane = &mut self.panes[at];
        for place in places.clone() {
            pane.least = pane.least.min(records.dues[place]);
            pane.greatest = pane.greatest.max(records.dues[place]);
        }
        if !pane.has_grains {
            return pane.rows.add(columns, records, noted, places, |place| tag(records.hashes[place]));
        }
        let mut salt_of = salts(self.grain);
        pane.rows.add(columns, records, noted, places, |place| tag(records.hashes[place]) ^ salt_of(records.dues[place]))
    }

    /// Closes or divides a pane that has many rows.
    fn close(&mut self, at: usize) -> Result<()> {
        let pane = &mut self.panes[at];
        let rows = pane.rows.len();
        if rows < pane.look_at || rows < self.rows / PART {
            return Ok(());
        }
        pane.look_at = 2 * rows;
        let judged = (0..rows).step_by(rows.div_ceil(JUDGED)).map(|row| row as u32).filter(|&row| !pane.rows.is_out(row));
        let mut judged: Vec<i64> = judged.map(|row| pane.rows.due(row)).collect();
        judged.sort_unstable();
        let most = judged.len().checked_sub(1 + judged.len() / AHEAD);
        let Some((&least, &most)) = judged.first().zip(most.map(|most| &judged[most])) else { return Ok(()) };
        let middle = judged[judged.len() / 2];
        let is_far = pane.greatest.saturating_sub(most) > most.saturating_sub(least) / 2;
        let to = match pane.is_closed {
            true => middle,
            false if is_far => most,
            false => pane.greatest,
        };
        pane.is_closed = true;
        if to == pane.greatest {
            pane.last = to;
            return Ok(());
        }
        let is_kept = |row: &u32| !pane.rows.is_out(*row) && pane.rows.due(*row) >= self.dropped;
        let (lower, upper): (Vec<u32>, Vec<u32>) = (0..rows as u32).filter(is_kept).partition(|&row| pane.rows.due(row) <= to);
        let last = std::mem::replace(&mut pane.last, to);
        if upper.is_empty() {
            return Ok(());
        }
        let mut after = Pane::new(to + 1, last, pane.has_grains, pane.rows.divide(&upper)?);
        after.first = after.least;
        pane.greatest = to;
        if AHEAD * upper.len() > 2 * rows && !lower.is_empty() {
            // Rows that are out would be most of what is kept.
            let rows = pane.rows.divide(&lower)?;
            *pane = Pane { is_closed: true, ..Pane::new(pane.first, to, pane.has_grains, rows) };
        }
        self.panes.insert(at + 1, after);
        self.rows = self.panes.iter().map(|pane| pane.rows.len()).sum();
        Ok(())
    }

    /// How many rows there are.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.panes.iter().map(|pane| pane.rows.len()).sum()
    }
}

impl Panes for Spans {
    fn is_noted(&self) -> bool {
        self.is_noted
    }

    fn add(&mut self, columns: &[ArrayRef], records: &Records, noted: &[Noted]) -> Result<()> {
        let dues = &records.dues;
        let (Some(&least), Some(&greatest)) = (dues.iter().min(), dues.iter().max()) else { return Ok(()) };
        self.rows += dues.len();
        let at = self.pane_for(least);
        if greatest <= self.panes[at].last {
            self.add_to(at, columns.to_vec(), records, noted, 0..dues.len())?;
            return self.close(at);
        }
        let mut left: Vec<u32> = (0..dues.len() as u32).collect();
        while let Some(&first) = left.first() {
            let at = self.pane_for(dues[first as usize]);
            let takes = self.panes[at].first..=self.panes[at].last;
            let places: Vec<u32> = left.extract_if(.., |place| takes.contains(&dues[*place as usize])).collect();
            let columns = super::taken(columns, &UInt32Array::from(places.clone()))?;
            self.add_to(at, columns, records, noted, places.iter().map(|&place| place as usize))?;
            self.close(at)?;
        }
        Ok(())
    }

    fn find_all(&mut self, found: &mut Vec<Found>, first: usize, hashes: &[u64], from: &[i64], length: i64) {
        found.clear();
        let (Some(&least), Some(&greatest)) = (from.iter().min(), from.iter().max()) else { return };
        let greatest = greatest.saturating_add(length);
        for (at, pane) in self.panes.iter_mut().enumerate().skip_while(|(_, pane)| pane.last < least) {
            if pane.first > greatest {
                break;
            }
            if pane.greatest < least || pane.least > greatest {
                continue;
            }
            pane.take_grains(self.grain);
            self.has_grains |= pane.has_grains;
            pane.rows.link();
            let records = (first as u32..).zip(hashes).zip(from).map(|((record, &hash), &from)| (record, tag(hash), from));
            let records = records.filter(|&(_, _, from)| from <= pane.greatest && pane.least <= from.saturating_add(length));
            if !pane.has_grains {
                found.extend(records.map(|(record, tag, _)| Found::new(record, at, tag)));
                continue;
            }
            let mut grain = Grain::NONE;
            for (record, tag, from) in records {
                if !grain.holds(from) {
                    grain = Grain::of(from, self.grain);
                }
                if pane.least < grain.end || grain.end == i64::MAX {
                    found.push(Found::new(record, at, tag ^ grain.salt()));
                }
                if grain.end <= pane.greatest.min(from.saturating_add(length)) && grain.end < i64::MAX {
                    found.push(Found::new(record, at, tag ^ salt(grain.number + 1)));
                }
            }
        }
        look_up(self, found);
    }

    fn drop_before(&mut self, before: i64, rows_max: usize, unmatched: &mut Vec<u64>) -> bool {
        let mut left = rows_max;
        for (at, pane) in self.panes.iter_mut().enumerate().take_while(|(_, pane)| pane.first < before) {
            let (gone, has_more) = pane.rows.drop_before(before, left, |row| unmatched.push(number(at as u32, row)));
            left -= gone;
            if has_more || left == 0 {
                return true;
            }
        }
        false
    }

    fn sweep(&mut self, before: i64) {
        self.dropped = before;
        let gone = self.panes.partition_point(|pane| pane.greatest < before);
        self.rows -= self.panes[..gone].iter().map(|pane| pane.rows.len()).sum::<usize>();
        if let Some(pane) = self.panes.drain(..gone).max_by_key(|pane| pane.rows.len()) {
            self.spare = pane.rows.into_spare();
        }
    }

    fn panes(&self) -> usize {
        self.panes.len()
    }

    fn rows(&self, pane: usize) -> &Linked {
        &self.panes[pane].rows
    }

    fn rows_mut(&mut self, pane: usize) -> &mut Linked {
        &mut self.panes[pane].rows
    }
}
