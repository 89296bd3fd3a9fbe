//! The records of both sides of a join in windows, by when their windows end.
//!
//! ```text
//!   pane    windows that end in a stretch of time; dropped as a whole, so no key is ever removed
//!     keys    (key, end of the window) → first and last row of either side         one look-up finds partners and the own list
//!     sides   columns as they came │ of each row the next one of its key           a list is walked, joined rows are gathered
//! ```
//!
//! A record looks for the rows of the other side under the same key under which it is kept itself, so both sides share an index, and
//! a record is looked up once. All rows of a window are dropped together. A pane has one window where windows have many rows, or
//! else so many that it has about [`PANE_ROWS`]: a window of few rows costs no index of its own. Then rows stay until the last window
//! of the pane is over. Nobody finds them: a record that could is late. A pane that gets more records than that takes no windows
//! after those that it has records of.

use arrow::array::{Array, ArrayRef, UInt32Array};
use arrow::compute::{concat, interleave, take};
use mill_protocol::{Error, Result};

use super::buffer::Row;
use super::dues::Dues;
use super::heads::{Heads, NONE, Search};
use super::index::Key;

/// How many keys are looked for together, so that the reads from memory overlap.
const TOGETHER: usize = 32;
/// So many rows are worth an index of their own.
const PANE_ROWS: usize = 4096;
/// A pane of so many records takes no further windows.
const PANE_ROWS_MAX: usize = 4 * PANE_ROWS;
/// A pane has at most so many times the windows of the one before it.
const GROWTH: i64 = 8;
/// Parts are put together up to this many rows.
const PART_ROWS: usize = 16_384;

/// A record in one of its windows.
pub(super) struct Wanted<'a> {
    pub(super) due: i64,
    pub(super) hash: u64,
    pub(super) key: &'a [u8],
}

/// The kept records of both sides.
pub(super) struct Panes {
    /// In order of time; they do not overlap.
    panes: Vec<Pane>,
    slide: i64,
    /// Whether more than their columns is known of the rows of each side: when they are dropped, and whether they had a partner.
    is_noted: [bool; 2],
    /// How many windows the pane was made for that was made last, and when their first one is over.
    latest: (i64, i64),
}

struct Pane {
    /// When the first and the last of its windows are over: the last times that are in them.
    first: i64,
    last: i64,
    heads: Heads,
    slots: Vec<Slot>,
    sides: [Side; 2],
    /// How many records have been looked up, and when the last window of them is over.
    asked: usize,
    latest: i64,
}

/// The rows of a key in a window, as lists: the first and the last of each side.
struct Slot {
    hash: u64,
    key: Key,
    first: [u32; 2],
    last: [u32; 2],
}

#[derive(Default)]
struct Side {
    parts: Vec<Part>,
    /// The next row of the same key.
    next: Vec<u32>,
    /// Of each row, if it is noted.
    noted: Vec<Row>,
    dues: Dues,
    /// No record of the other side can find a row.
    is_over: bool,
}

struct Part {
    start: usize,
    rows: usize,
    columns: Vec<ArrayRef>,
}

impl Part {
    fn end(&self) -> usize {
        self.start + self.rows
    }
}

/// A row: its pane and its place there.
#[inline]
fn number(pane: usize, row: u32) -> u64 {
    (pane as u64) << 32 | u64::from(row)
}

#[inline]
fn place(number: u64) -> (usize, usize) {
    ((number >> 32) as usize, number as u32 as usize)
}

impl Pane {
    fn new(first: i64, last: i64) -> Pane {
        Pane { first, last, heads: Heads::default(), slots: Vec::new(), sides: Default::default(), asked: 0, latest: i64::MIN }
    }

    /// Whether windows that are over at this time, of which it has no records yet, belong to another pane.
    fn is_full_for(&self, due: i64) -> bool {
        self.asked >= PANE_ROWS_MAX && due > self.latest
    }

    fn find_on(&self, mut search: Search, wanted: &Wanted<'_>) -> u32 {
        loop {
            let slot = self.heads.next(&mut search);
            if slot == NONE || self.slots[slot as usize].key.bytes() == wanted.key {
                return slot;
            }
        }
    }

    fn find_or_add(&mut self, wanted: &Wanted<'_>) -> u32 {
        let found = self.find_on(self.heads.begin(wanted.hash), wanted);
        if found != NONE {
            return found;
        }
        let slot = self.slots.len() as u32;
        assert!(slot != NONE, "a join buffers fewer than 2^32 - 1 keys of a window a task");
        self.slots.push(Slot { hash: wanted.hash, key: Key::new(wanted.key), first: [NONE; 2], last: [NONE; 2] });
        self.heads.insert(wanted.hash, slot);
        slot
    }
}

impl Panes {
    /// None yet; windows end every `slide`.
    pub(super) fn new(slide: i64, is_noted: [bool; 2]) -> Panes {
        Panes { panes: Vec::new(), slide, is_noted, latest: (1, i64::MIN) }
    }

    /// Whether more than their columns is known of the rows of a side.
    pub(super) fn notes(&self, side: usize) -> bool {
        self.is_noted[side]
    }

    /// The pane of windows that are over at this time, if there is one.
    #[inline]
    fn pane_of(&self, due: i64, near: usize) -> Option<usize> {
        let holds = |pane: &Pane| pane.first <= due && due <= pane.last;
        if self.panes.get(near).is_some_and(holds) {
            return Some(near);
        }
        let at = self.panes.partition_point(|pane| pane.last < due);
        self.panes.get(at).is_some_and(holds).then_some(at)
    }

    /// Makes a pane for windows that are over at this time, of which there is none.
    fn add_pane(&mut self, due: i64) {
        let windows = match self.pane_of(self.latest.1, 0) {
            None => self.latest.0,
            Some(at) => {
                let wanted = self.latest.0.saturating_mul(PANE_ROWS as i64) / self.panes[at].asked.max(1) as i64;
                wanted.clamp(1, self.latest.0.saturating_mul(GROWTH))
            }
        };
        let length = self.slide.saturating_mul(windows);
        let first = due.saturating_sub(due.rem_euclid(length));
        let last = first.saturating_add(length - 1);
        let at = self.panes.partition_point(|pane| pane.last < due);
        let first = at.checked_sub(1).map_or(first, |before| first.max(self.panes[before].last + 1));
        let last = self.panes.get(at).map_or(last, |after| last.min(after.first - 1));
        self.latest = (windows, first);
        self.panes.insert(at, Pane::new(first, last));
    }

    /// Finds the panes and slots of records. Those of a pane that is not there, or of a key that has none, get one if they are kept:
    /// if their windows are not over at `over`. The others have [`NONE`].
    pub(super) fn find_all<'k>(&mut self, found: &mut [(u32, u32)], over: i64, wanted: impl Fn(usize) -> Wanted<'k>) {
        let mut near = 0;
        let mut before = None;
        for place in 0..found.len() {
            let due = wanted(place).due;
            if let Some((of, at)) = before
                && of == due
            {
                let pane: &mut Pane = &mut self.panes[at];
                pane.asked += 1;
                continue;
            }
            let mut pane = self.pane_of(due, near);
            if due >= over && pane.is_none_or(|pane| self.panes[pane].is_full_for(due)) {
                if let Some(pane) = pane {
                    self.panes[pane].last = self.panes[pane].latest;
                }
                self.add_pane(due);
                pane = self.pane_of(due, near);
            }
            if let Some(at) = pane {
                near = at;
                before = Some((due, at));
                let pane = &mut self.panes[at];
                pane.asked += 1;
                pane.latest = pane.latest.max(due);
            }
        }
        for (chunk, found) in found.chunks_mut(TOGETHER).enumerate() {
            let first = chunk * TOGETHER;
            let mut searches = [Search::default(); TOGETHER];
            for (place, (found, search)) in found.iter_mut().zip(&mut searches).enumerate() {
                let wanted = wanted(first + place);
                *found = (NONE, NONE);
                if let Some(pane) = self.pane_of(wanted.due, near) {
                    near = pane;
                    found.0 = pane as u32;
                    *search = self.panes[pane].heads.begin(wanted.hash);
                }
            }
            // The first slot of each, and what there is, before anything is decided.
            let mut hashes = [0; TOGETHER];
            for ((found, search), hash) in found.iter_mut().zip(&mut searches).zip(&mut hashes) {
                if found.0 != NONE {
                    let pane = &self.panes[found.0 as usize];
                    found.1 = pane.heads.next(search);
                    *hash = pane.slots.get(found.1 as usize).map_or(0, |slot| slot.hash);
                }
            }
            for (place, found) in found.iter_mut().enumerate() {
                if found.0 == NONE {
                    continue;
                }
                let (pane, wanted) = (&mut self.panes[found.0 as usize], wanted(first + place));
                let is_it = found.1 != NONE
                    && hashes[place] == wanted.hash
                    && pane.slots[found.1 as usize].key.bytes() == wanted.key;
                if !is_it {
                    found.1 = match wanted.due >= over {
                        true => pane.find_or_add(&wanted),
                        false => pane.find_on(pane.heads.begin(wanted.hash), &wanted),
                    };
                }
            }
        }
    }

    /// Adds the rows of a side to `out` that are of a pane and slot, from `row` on or else from the first, until there are
    /// `rows_max`; returns the row to go on with, or [`NONE`].
    #[inline]
    pub(super) fn rows_of(&self, side: usize, found: (u32, u32), row: u32, rows_max: usize, out: &mut Vec<u64>) -> u32 {
        let mut row = if row == NONE { self.first_of(side, found) } else { row };
        if row == NONE {
            return NONE;
        }
        let next = &self.panes[found.0 as usize].sides[side].next;
        while row != NONE && out.len() < rows_max {
            out.push(number(found.0 as usize, row));
            row = next[row as usize];
        }
        row
    }

    /// The first row of a side that is of a pane and slot, or [`NONE`].
    #[inline]
    pub(super) fn first_of(&self, side: usize, (pane, slot): (u32, u32)) -> u32 {
        if slot == NONE {
            return NONE;
        }
        let pane = &self.panes[pane as usize];
        if pane.sides[side].is_over { NONE } else { pane.slots[slot as usize].first[side] }
    }

    /// Takes the rows of a side that are of a pane and slot out of its list, up to this one, which is the next.
    pub(super) fn take_out(&mut self, side: usize, (pane, slot): (u32, u32), next: u32) {
        if slot != NONE {
            let slot = &mut self.panes[pane as usize].slots[slot as usize];
            slot.first[side] = next;
            if next == NONE {
                slot.last[side] = NONE;
            }
        }
    }

    /// Keeps rows of a side: `found` are their panes and slots.
    pub(super) fn add(&mut self, side: usize, columns: &[ArrayRef], rows: &[Row], found: &[(u32, u32)]) -> Result<()> {
        // Mostly all of them are of one pane, in the order they came.
        let mut panes: Vec<u32> = found.iter().map(|found| found.0).collect();
        panes.dedup();
        if panes.len() > 1 {
            panes.sort_unstable();
            panes.dedup();
        }
        let is_noted = self.is_noted[side];
        for &pane in &panes {
            let places: Option<UInt32Array> = (panes.len() > 1).then(|| {
                let of_pane = found.iter().enumerate().filter(|(_, found)| found.0 == pane);
                UInt32Array::from_iter_values(of_pane.map(|(place, _)| place as u32))
            });
            let Pane { slots, sides, .. } = &mut self.panes[pane as usize];
            let kept = &mut sides[side];
            let start = kept.next.len();
            let mut dues = Vec::new();
            let mut add = |place: usize| {
                let row = kept.next.len() as u32;
                kept.next.push(NONE);
                let slot = &mut slots[found[place].1 as usize];
                match slot.last[side] {
                    NONE => slot.first[side] = row,
                    last => kept.next[last as usize] = row,
                }
                slot.last[side] = row;
                if is_noted {
                    kept.noted.push(rows[place]);
                    dues.push((rows[place].due, u64::from(row)));
                }
            };
            match &places {
                Some(places) => places.values().iter().for_each(|&place| add(place as usize)),
                None => (0..found.len()).for_each(add),
            }
            assert!(kept.next.len() < NONE as usize, "a join buffers fewer than 2^32 - 1 rows of a window a task");
            if is_noted {
                kept.dues.add(dues);
            }
            let columns = match &places {
                Some(places) => super::taken(columns, places)?,
                None => columns.to_vec(),
            };
            kept.push(Part { start, rows: kept.next.len() - start, columns })?;
        }
        Ok(())
    }

    /// What is known of these rows of a side, which are noted.
    pub(super) fn known(&self, side: usize, numbers: &[u64]) -> Vec<Row> {
        let row = |&number: &u64| {
            let (pane, row) = place(number);
            self.panes[pane].sides[side].noted[row]
        };
        numbers.iter().map(row).collect()
    }

    /// Marks rows as having a partner; those that had none before are left in `numbers`.
    pub(super) fn mark(&mut self, side: usize, numbers: &mut Vec<u64>) {
        numbers.retain(|&number| {
            let (pane, row) = place(number);
            !std::mem::replace(&mut self.panes[pane].sides[side].noted[row].is_matched, true)
        });
    }

    /// The columns of these rows of a side, in this order.
    pub(super) fn gather(&self, side: usize, numbers: &[u64]) -> Result<Vec<ArrayRef>> {
        let failed = |error: arrow::error::ArrowError| Error::internal(error.to_string());
        // The parts of the panes that are needed, one after the other.
        let mut parts: Vec<&Part> = Vec::new();
        let mut starts: Vec<usize> = vec![usize::MAX; self.panes.len()];
        let mut places: Vec<(usize, usize)> = Vec::with_capacity(numbers.len());
        let mut near = usize::MAX;
        let mut of_near: &[Part] = &[];
        let mut start = 0;
        for &number in numbers {
            let (pane, row) = place(number);
            if pane != near {
                of_near = &self.panes[pane].sides[side].parts;
                if starts[pane] == usize::MAX {
                    starts[pane] = parts.len();
                    parts.extend(of_near);
                }
                (near, start) = (pane, starts[pane]);
            }
            let part = of_near.partition_point(|part| part.end() <= row);
            places.push((start + part, row - of_near[part].start));
        }
        let columns = parts.first().map_or(0, |part| part.columns.len());
        if let [part] = parts[..] {
            let rows = UInt32Array::from_iter_values(places.iter().map(|&(_, row)| row as u32));
            let columns = part.columns.iter().map(|column| take(column, &rows, None));
            return columns.collect::<std::result::Result<Vec<ArrayRef>, _>>().map_err(failed);
        }
        let column = |column: usize| {
            let arrays: Vec<&dyn Array> = parts.iter().map(|part| part.columns[column].as_ref()).collect();
            interleave(&arrays, &places).map_err(failed)
        };
        (0..columns).map(column).collect()
    }

    /// The rows of a side that are dropped before this time and had no partner, `rows_max` of them at most; whether there are more.
    /// The side is noted. They stay until they are [forgotten](Panes::sweep).
    pub(super) fn drop_before(&mut self, side: usize, before: i64, rows_max: usize, unmatched: &mut Vec<u64>) -> bool {
        let (mut gone, mut left) = (Vec::new(), rows_max);
        for (at, pane) in self.panes.iter_mut().enumerate().take_while(|(_, pane)| pane.first < before) {
            let Side { dues, noted, .. } = &mut pane.sides[side];
            gone.clear();
            let has_more = dues.take(before, left, &mut gone);
            left -= gone.len();
            gone.sort_unstable();
            unmatched.extend(gone.iter().filter(|&&row| !noted[row as usize].is_matched).map(|&row| number(at, row as u32)));
            if has_more || left == 0 {
                return true;
            }
        }
        false
    }

    /// Gives the memory of the rows of a side back that are dropped before this time.
    pub(super) fn sweep(&mut self, side: usize, before: i64) {
        for pane in self.panes.iter_mut().take_while(|pane| pane.last < before) {
            pane.sides[side] = Side { is_over: true, ..Side::default() };
        }
        self.panes.retain(|pane| !pane.sides.iter().all(|side| side.is_over));
    }

    /// How many rows there are of both sides.
    #[cfg(test)]
    pub(super) fn rows(&self) -> usize {
        self.panes.iter().flat_map(|pane| &pane.sides).map(|side| side.next.len()).sum()
    }

    /// How many panes there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.panes.len()
    }
}

impl Side {
    /// Adds a part, and puts small ones together.
    fn push(&mut self, mut part: Part) -> Result<()> {
        while let Some(last) = self.parts.last()
            && last.rows <= 2 * part.rows
            && last.rows + part.rows <= PART_ROWS
        {
            let columns = last.columns.iter().zip(&part.columns).map(|(a, b)| concat(&[a.as_ref(), b.as_ref()]));
            let columns = columns.collect::<std::result::Result<Vec<ArrayRef>, _>>();
            let columns = columns.map_err(|error| Error::internal(error.to_string()))?;
            part = Part { start: last.start, rows: last.rows + part.rows, columns };
            self.parts.pop();
        }
        self.parts.push(part);
        Ok(())
    }
}
