//! The records of a side of a join in windows, found by key and window, and dropped with the window.
//!
//! ```text
//!   grain   one window, by the number of its end
//!   pane    grains that follow each other; dropped as a whole, so no record is ever removed
//!     rows    in chains by tag of (key, grain)
//! ```
//!
//! A chain has the rows of one key in one window, and hardly ever others: what a record looks at is what it finds.
//!
//! A pane has one window where windows have many rows, or else so many that it has about [`PANE_ROWS`]: a window of few rows costs no table
//! of its own. Then rows stay until the last window of the pane is over. Nobody finds them: a record that could is late. A pane that gets
//! more rows than that takes no windows after those that it has rows of; if those are few rows of windows far ahead, they leave it.

use arrow::array::{ArrayRef, UInt32Array};
use mill_protocol::Result;

use super::grain::{Grain, tag};
use super::linked::{Linked, Spare};
use super::panes::{Found, Panes, look_up, number};
use super::records::{Noted, Records};

/// So many rows are worth a table of their own.
const PANE_ROWS: usize = 4096;
/// A pane of so many rows takes no further grains.
const PANE_ROWS_MAX: usize = 4 * PANE_ROWS;
/// A pane has at most so many times the grains of the one before it.
const GROWTH: i64 = 8;

/// The kept records of a side.
pub(super) struct Chains {
    /// In order of time; they do not overlap.
    panes: Vec<Pane>,
    /// How far apart the ends of windows are.
    grain: i64,
    /// Whether it is known of rows when they are dropped and whether they had a partner.
    is_noted: bool,
    /// How many grains the pane was made for that was made last, and which its first one was.
    latest: (i64, i64),
    /// How many rows the greatest of the panes had that were dropped last, and memory for as many.
    rows_before: usize,
    spare: Spare,
}

struct Pane {
    /// The first and the last of its grains, by number.
    first: i64,
    last: i64,
    /// The last grain that has rows.
    latest: i64,
    /// How many rows it has, with those of a batch that are about to be added.
    expected: usize,
    /// With how many rows it is looked whether some of them are far ahead.
    look_at: usize,
    rows: Linked,
}

impl Pane {
    fn new(first: i64, last: i64, memory: Spare) -> Pane {
        let rows = Linked::new(false, memory);
        Pane { first, last, latest: i64::MIN, expected: 0, look_at: PANE_ROWS_MAX, rows }
    }

    #[inline]
    fn holds(&self, grain: i64) -> bool {
        self.first <= grain && grain <= self.last
    }

    /// Whether a grain that it has no rows of yet belongs to another pane.
    fn is_full_for(&self, grain: i64) -> bool {
        self.expected >= PANE_ROWS_MAX && grain > self.latest
    }
}

impl Chains {
    /// None yet; windows end every `grain`.
    pub(super) fn new(grain: i64, is_noted: bool) -> Chains {
        Chains { panes: Vec::new(), grain: grain.max(1), is_noted, latest: (1, i64::MIN), rows_before: 0, spare: Spare::default() }
    }

    /// The pane that takes a grain, if there is one.
    #[inline]
    fn pane_of(&self, grain: i64, near: usize) -> Option<usize> {
        if self.panes.get(near).is_some_and(|pane| pane.holds(grain)) {
            return Some(near);
        }
        let at = self.panes.partition_point(|pane| pane.last < grain);
        self.panes.get(at).is_some_and(|pane| pane.holds(grain)).then_some(at)
    }

    /// The pane that takes a grain; makes one if there is none.
    fn pane_for(&mut self, grain: i64, near: usize) -> Result<usize> {
        let Some(at) = self.pane_of(grain, near) else { return Ok(self.add_pane(grain)) };
        let pane = &mut self.panes[at];
        if pane.is_full_for(grain) {
            pane.last = pane.latest;
            return Ok(self.add_pane(grain));
        }
        if grain < pane.latest && pane.rows.len() >= pane.look_at {
            self.part_with(at, grain)?;
        }
        Ok(at)
    }

    /// Gives the rows of a pane that are after this grain a pane of their own if they are few. Otherwise a record whose clock is far ahead
    /// would have the pane take all that come until then.
    fn part_with(&mut self, at: usize, grain: i64) -> Result<()> {
        let after = grain.saturating_add(1).saturating_mul(self.grain);
        let pane = &mut self.panes[at];
        pane.look_at = 2 * pane.rows.len();
        let is_ahead = |&row: &u32| pane.rows.due(row) >= after && !pane.rows.is_out(row);
        let ahead: Vec<u32> = (0..pane.rows.len() as u32).filter(is_ahead).collect();
        if ahead.len() > pane.rows.len() / 4 {
            return Ok(());
        }
        let (last, latest) = (pane.last, pane.latest);
        (pane.last, pane.latest) = (grain, grain);
        if ahead.is_empty() {
            // Those that were ahead have been taken out.
            return Ok(());
        }
        let rows = pane.rows.divide(&ahead)?;
        let own = Pane { first: grain + 1, last, latest, expected: ahead.len(), look_at: PANE_ROWS_MAX, rows };
        self.panes.insert(at + 1, own);
        Ok(())
    }

    /// Makes a pane for a grain that has none.
    fn add_pane(&mut self, grain: i64) -> usize {
        let former = self.pane_of(self.latest.1, 0).map(|at| self.panes[at].expected);
        let grains = match former {
            None => self.latest.0,
            Some(rows) => {
                let wanted = self.latest.0.saturating_mul(PANE_ROWS as i64) / rows.max(1) as i64;
                wanted.clamp(1, self.latest.0.saturating_mul(GROWTH))
            }
        };
        let first = grain.saturating_sub(grain.rem_euclid(grains));
        let last = first.saturating_add(grains - 1);
        let at = self.panes.partition_point(|pane| pane.last < grain);
        let first = at.checked_sub(1).map_or(first, |before| first.max(self.panes[before].last.saturating_add(1)));
        let last = self.panes.get(at).map_or(last, |after| last.min(after.first - 1));
        self.latest = (grains, first);
        // It may get as many rows as the one before it, if that is worth a table.
        let before = at.checked_sub(1).map(|before| &self.panes[before]);
        let rows = match before {
            Some(pane) if pane.last.saturating_add(1) == first => pane.rows.len(),
            None if self.panes.is_empty() => self.rows_before,
            _ => 0,
        };
        let memory = std::mem::take(&mut self.spare).for_rows(rows, PANE_ROWS);
        self.panes.insert(at, Pane::new(first, last, memory));
        at
    }

    /// The pane of each of these dues; a grain that has none, if there is one.
    fn panes_of(&self, dues: &[i64]) -> std::result::Result<Vec<u32>, i64> {
        let (mut grain, mut at) = (Grain::NONE, 0);
        let mut panes: Vec<u32> = Vec::with_capacity(dues.len());
        for &due in dues {
            if !grain.holds(due) {
                grain = Grain::of(due, self.grain);
                at = self.pane_of(grain.number, at).ok_or(grain.number)?;
            }
            panes.push(at as u32);
        }
        Ok(panes)
    }

    /// Keeps those of the records at these places in a pane: `taken` has them, unless they are all.
    fn add_to(
        &mut self,
        at: usize,
        columns: &[ArrayRef],
        records: &Records,
        noted: &[Noted],
        places: impl ExactSizeIterator<Item = usize> + Clone,
        taken: Option<&UInt32Array>,
    ) -> Result<()> {
        let columns = match taken {
            Some(taken) => super::taken(columns, taken)?,
            None => columns.to_vec(),
        };
        let (mut grain, mut of_grain) = (Grain::NONE, 0);
        self.panes[at].rows.add(columns, records, noted, places, |place| {
            let due = records.dues[place];
            if !grain.holds(due) {
                grain = Grain::of(due, self.grain);
                of_grain = grain.salt();
            }
            tag(records.hashes[place]) ^ of_grain
        })
    }

    /// The first grain that is not over at this time.
    fn over(&self, before: i64) -> i64 {
        if before == i64::MAX { i64::MAX } else { before.div_euclid(self.grain) }
    }

    /// How many rows there are.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.panes.iter().map(|pane| pane.rows.len()).sum()
    }
}

impl Panes for Chains {
    fn is_noted(&self) -> bool {
        self.is_noted
    }

    fn add(&mut self, columns: &[ArrayRef], records: &Records, noted: &[Noted]) -> Result<()> {
        // Mostly all of them are of one pane.
        let Some(&due) = records.dues.first() else { return Ok(()) };
        let mut grain = Grain::of(due, self.grain);
        let mut at = self.pane_for(grain.number, 0)?;
        let mut is_one = true;
        for &due in &records.dues {
            if !grain.holds(due) {
                grain = Grain::of(due, self.grain);
                let before = (self.panes[at].first, self.panes[at].last, self.panes.len());
                at = self.pane_for(grain.number, at)?;
                is_one &= (self.panes[at].first, self.panes[at].last, self.panes.len()) == before;
            }
            let pane = &mut self.panes[at];
            pane.latest = pane.latest.max(grain.number);
            pane.expected += 1;
        }
        if is_one {
            return self.add_to(at, columns, records, noted, 0..records.dues.len(), None);
        }
        let panes = loop {
            match self.panes_of(&records.dues) {
                Ok(panes) => break panes,
                // Its pane has parted with what is far ahead, when it had no rows there yet.
                Err(grain) => self.add_pane(grain),
            };
        };
        let mut all = panes.clone();
        all.sort_unstable();
        all.dedup();
        for pane in all {
            let places: Vec<u32> = (0..panes.len() as u32).filter(|&place| panes[place as usize] == pane).collect();
            let rows = places.iter().map(|&place| place as usize);
            let taken = UInt32Array::from(places.clone());
            self.add_to(pane as usize, columns, records, noted, rows, Some(&taken))?;
        }
        Ok(())
    }

    fn find_all(&mut self, found: &mut Vec<Found>, first: usize, hashes: &[u64], from: &[i64], _: i64) {
        found.clear();
        let mut grain = Grain::NONE;
        let (mut pane, mut of_grain) = (None, 0);
        for ((record, &hash), &due) in (first as u32..).zip(hashes).zip(from) {
            if !grain.holds(due) {
                grain = Grain::of(due, self.grain);
                pane = self.pane_of(grain.number, pane.unwrap_or(0));
                of_grain = grain.salt();
                if let Some(at) = pane {
                    self.panes[at].rows.link();
                }
            }
            if let Some(at) = pane {
                found.push(Found::new(record, at, tag(hash) ^ of_grain));
            }
        }
        look_up(self, found);
    }

    fn drop_before(&mut self, before: i64, rows_max: usize, unmatched: &mut Vec<u64>) -> bool {
        let (over, mut left) = (self.over(before), rows_max);
        for (at, pane) in self.panes.iter_mut().enumerate().take_while(|(_, pane)| pane.first <= over) {
            let (gone, has_more) = pane.rows.drop_before(before, left, |row| unmatched.push(number(at as u32, row)));
            left -= gone;
            if has_more || left == 0 {
                return true;
            }
        }
        false
    }

    fn sweep(&mut self, before: i64) {
        let over = self.over(before);
        let gone = self.panes.partition_point(|pane| pane.last < over);
        if let Some(pane) = self.panes.drain(..gone).max_by_key(|pane| pane.rows.len()) {
            self.rows_before = pane.rows.len();
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
