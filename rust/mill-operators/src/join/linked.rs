//! Rows of a side in chains: found by a tag, gathered by number, dropped together.
//!
//! ```text
//!   places   tag → newest row                                one read finds the chain
//!   rows     key │ due │ the row with the same tag before      the chain is walked
//!   parts    columns as they came                              joined rows are gathered
//! ```
//!
//! Rows are put into chains only when somebody looks: where nobody asks there are none.
//!
//! Rows come nearly in order of time, so a chain leads back in time, and a walk ends at a row from which on all are due too early. It may
//! begin with many rows that are due too late, where the rows' side was read far ahead, and rows may come in no order at all. So walks
//! count the rows that they pass in vain. After too many of them the rows are sorted: each chain has an order of its own then,
//! [in which a row is searched for](Linked::jump).

use arrow::array::ArrayRef;
use arrow::compute::concat;
use mill_protocol::Result;

use super::dues::Dues;
use super::heads::NONE;
use super::panes::{failed, gather_of};
use super::records::{Keys, Noted, Records, Wanted};

/// How many records are looked up together.
pub(super) const TOGETHER: usize = 64;
/// Parts are put together up to this many rows.
const PART_ROWS: usize = 2048;
const PLACES_MIN: usize = 64;
/// The most rows there can be.
const ROWS_MAX: usize = 1 << 30;
/// How many rows of a chain are looked at to know whether a new one is due last of all.
const LOOKED_BACK: usize = 8;
/// After so many rows that are due too late, a jump is worth it.
const JUMP_AFTER: usize = 8;
/// How many rows may be passed in vain before rows are sorted: so many, and so many for each row.
const VAIN_ROWS: usize = 65_536;
const VAIN_FACTOR: usize = 16;

/// Memory of rows that are gone, for others: what is new has to be cleared.
#[derive(Default)]
pub(super) struct Spare {
    rows: Vec<Row>,
    places: Vec<Place>,
}

impl Spare {
    /// Memory for about so many rows: this, if it is of that size. It is worth it from so many rows on.
    pub(super) fn for_rows(self, rows: usize, rows_min: usize) -> Spare {
        if rows < rows_min {
            return Spare::default();
        }
        let mut memory = if self.rows.capacity() > 4 * rows { Spare::default() } else { self };
        memory.rows.reserve(rows + rows / 8);
        memory
    }
}

/// The start of a chain: the newest row with this tag.
#[derive(Clone, Copy)]
struct Place {
    tag: u32,
    /// [`NONE`] if the place is free.
    row: u32,
}

const FREE: Place = Place { tag: 0, row: NONE };
/// No row, but the place is not free.
const TAKEN_OUT: u32 = NONE - 1;

struct Row {
    /// The key, or its hash.
    word: u64,
    due: i64,
    /// The row with the same tag before it.
    next: u32,
    tag: u32,
    part: u32,
    /// Whether it is in no chain any more. A walk that stands on it goes on to rows that are.
    is_out: bool,
    /// Whether no row after it in its chain is due later. If not, that may be so all the same.
    is_last_due: bool,
}

struct Part {
    start: usize,
    rows: usize,
    columns: Vec<ArrayRef>,
}

/// Rows in chains.
pub(super) struct Linked {
    /// At least twice as many as rows that are in it: from the home of a tag to its place none is free.
    places: Vec<Place>,
    /// How many rows are in it: the first ones.
    linked: usize,
    rows: Vec<Row>,
    /// Of rows whose words do not say all.
    keys: Keys,
    parts: Vec<Part>,
    /// Of each row, if they are noted.
    noted: Vec<Noted>,
    dues: Dues,
    /// Whether the rows of a chain are due at several times.
    is_timed: bool,
    /// How many rows were passed in vain.
    vain: usize,
    /// Rows by tag and due, and the place of each there: those that were linked when they were sorted.
    order: Vec<u32>,
    ranks: Vec<u32>,
}

impl Linked {
    /// None yet. If they are timed, the rows of a chain are due at several times.
    pub(super) fn new(is_timed: bool, memory: Spare) -> Linked {
        Linked {
            places: memory.places,
            linked: 0,
            rows: memory.rows,
            keys: Keys::default(),
            parts: Vec::new(),
            noted: Vec::new(),
            dues: Dues::default(),
            is_timed,
            vain: 0,
            order: Vec::new(),
            ranks: Vec::new(),
        }
    }

    /// Its memory, for others.
    pub(super) fn into_spare(mut self) -> Spare {
        self.rows.clear();
        self.places.clear();
        Spare { rows: self.rows, places: self.places }
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    #[inline]
    pub(super) fn due(&self, row: u32) -> i64 {
        self.rows[row as usize].due
    }

    /// Whether a row has been taken out.
    #[inline]
    pub(super) fn is_out(&self, row: u32) -> bool {
        self.rows[row as usize].is_out
    }

    #[inline]
    pub(super) fn noted(&self, row: usize) -> Noted {
        self.noted[row]
    }

    /// Marks a row as having a partner; whether it had one before.
    #[inline]
    pub(super) fn mark(&mut self, row: usize) -> bool {
        std::mem::replace(&mut self.noted[row].is_matched, true)
    }

    pub(super) fn columns_of(&self) -> impl ExactSizeIterator<Item = &[ArrayRef]> {
        self.parts.iter().map(|part| &part.columns[..])
    }

    /// The part that a row is in, and its place there.
    #[inline]
    pub(super) fn part_of(&self, row: usize) -> (usize, usize) {
        let part = self.rows[row].part as usize;
        (part, row - self.parts[part].start)
    }

    /// Adds those of the records at these places: `columns` has only them. `noted` has what is known of all records, if rows are noted.
    pub(super) fn add(
        &mut self,
        columns: Vec<ArrayRef>,
        records: &Records,
        noted: &[Noted],
        places: impl ExactSizeIterator<Item = usize> + Clone,
        mut tag: impl FnMut(usize) -> u32,
    ) -> Result<()> {
        let (start, count) = (self.rows.len(), places.len());
        assert!(start + count <= ROWS_MAX, "a join keeps at most 2^30 rows of a side at a time of a task");
        self.rows.extend(places.clone().map(|place| Row {
            word: records.words[place],
            due: records.dues[place],
            next: NONE,
            tag: tag(place),
            part: 0,
            is_out: false,
            is_last_due: false,
        }));
        if !records.keys.is_empty() {
            places.clone().for_each(|place| self.keys.push(records.keys.get(place)));
        }
        if !noted.is_empty() {
            self.noted.extend(places.clone().map(|place| noted[place]));
            self.dues.add(places.zip(start as u64..).map(|(place, row)| (records.dues[place], row)).collect());
        }
        self.push(Part { start, rows: count, columns })
    }

    /// Adds a part, and puts small ones together.
    fn push(&mut self, mut part: Part) -> Result<()> {
        while let Some(last) = self.parts.last()
            && last.rows <= 2 * part.rows
            && last.rows + part.rows <= PART_ROWS
        {
            let columns = last.columns.iter().zip(&part.columns).map(|(a, b)| concat(&[a.as_ref(), b.as_ref()]));
            let columns = columns.collect::<std::result::Result<Vec<ArrayRef>, _>>().map_err(failed)?;
            part = Part { start: last.start, rows: last.rows + part.rows, columns };
            self.parts.pop();
        }
        let number = u32::try_from(self.parts.len()).expect("there are fewer parts than rows");
        self.rows[part.start..].iter_mut().for_each(|row| row.part = number);
        self.parts.push(part);
        Ok(())
    }

    /// Takes these rows out, and returns them as rows of their own.
    pub(super) fn divide(&mut self, rows: &[u32]) -> Result<Linked> {
        let mut own = Linked::new(self.is_timed, Spare::default());
        let numbers: Vec<u64> = rows.iter().map(|&row| u64::from(row)).collect();
        let columns = gather_of(1, |_| self, &numbers)?;
        own.rows.reserve(rows.len());
        for &row in rows {
            let left = &mut self.rows[row as usize];
            own.rows.push(Row { next: NONE, part: 0, ..*left });
            left.is_out = true;
            if !self.keys.is_empty() {
                own.keys.push(self.keys.get(row as usize));
            }
            if let Some(noted) = self.noted.get_mut(row as usize) {
                own.noted.push(*noted);
                // It is emitted there, if at all.
                noted.is_matched = true;
            }
        }
        if !own.noted.is_empty() {
            own.dues.add(own.rows.iter().zip(0..).map(|(row, number)| (row.due, number)).collect());
        }
        own.push(Part { start: 0, rows: rows.len(), columns })?;
        // The others are put into chains again, without those.
        self.places.clear();
        Ok(own)
    }

    /// Where a tag lies unless others are in its way.
    #[inline]
    fn home(&self, tag: u32) -> usize {
        // There are fewer than 2^32 of them: twice as many as there is room for rows.
        (u64::from(tag) * self.places.len() as u64 >> 32) as usize
    }

    /// Reads where a tag would lie, so that what is there is near soon.
    #[inline]
    pub(super) fn look_ahead(&self, tag: u32) -> u32 {
        self.places[self.home(tag)].row
    }

    /// Reads a row, so that it is near soon.
    #[inline]
    pub(super) fn look_at(&self, row: u32) -> u32 {
        self.rows[row as usize].tag
    }

    /// Where a tag lies, or where it would lie.
    #[inline]
    fn place_of(&self, tag: u32) -> usize {
        let mut at = self.home(tag);
        loop {
            let place = self.places[at];
            if place.tag == tag || place.row == NONE {
                return at;
            }
            at = if at + 1 == self.places.len() { 0 } else { at + 1 };
        }
    }

    /// The first row of the chain of a tag.
    #[inline]
    pub(super) fn first_of(&self, tag: u32) -> u32 {
        match self.places[self.place_of(tag)].row {
            TAKEN_OUT => NONE,
            row => row,
        }
    }

    /// Puts the rows into chains that are in none.
    pub(super) fn link(&mut self) {
        let is_full = self.places.is_empty() || 2 * self.rows.len() > self.places.len();
        if self.is_tired() || (is_full && !self.order.is_empty()) {
            return self.sort();
        }
        if is_full {
            self.clear_places();
        }
        for from in (self.linked..self.rows.len()).step_by(TOGETHER) {
            let rows = from..self.rows.len().min(from + TOGETHER);
            // All homes are read before anything depends on what is there, so that the reads from memory overlap; and then first rows.
            let home = |row: usize| self.look_ahead(self.rows[row].tag);
            std::hint::black_box(rows.clone().fold(0, |all, row| all ^ home(row)));
            if self.is_timed {
                let head = |row: usize| self.rows.get(home(row) as usize).map_or(0, |head| head.tag);
                std::hint::black_box(rows.clone().fold(0, |all, row| all ^ head(row)));
            }
            for row in rows {
                let Row { tag, is_out, due, .. } = self.rows[row];
                if !is_out {
                    let at = self.place_of(tag);
                    let next = match self.places[at].row {
                        TAKEN_OUT => NONE,
                        next => next,
                    };
                    self.rows[row].is_last_due = self.is_timed && self.is_due_after(due, next);
                    self.rows[row].next = next;
                    self.places[at] = Place { tag, row: row as u32 };
                }
            }
        }
        self.linked = self.rows.len();
    }

    /// Makes places for as many rows as there is room for.
    fn clear_places(&mut self) {
        let places = (2 * self.rows.capacity()).max(PLACES_MIN);
        self.places.clear();
        self.places.resize(places, FREE);
        self.linked = 0;
        self.order.clear();
        self.ranks.clear();
    }

    /// Whether no row of a chain from here on is due after this time. If it takes long to find out, it says no.
    fn is_due_after(&self, due: i64, mut row: u32) -> bool {
        for _ in 0..LOOKED_BACK {
            let Some(before) = self.rows.get(row as usize) else { return true };
            if before.due > due {
                return false;
            }
            if before.is_last_due {
                return true;
            }
            row = before.next;
        }
        false
    }

    /// How many rows were passed in vain since the rows were [sorted](Linked::sort) or had other tags.
    pub(super) fn vain(&self) -> usize {
        self.vain
    }

    /// Changes the tags of rows by what is added for the time when they are due.
    pub(super) fn add_to_tags(&mut self, mut of_due: impl FnMut(i64) -> u32) {
        self.rows.iter_mut().for_each(|row| row.tag ^= of_due(row.due));
        self.places.clear();
        self.order.clear();
        self.ranks.clear();
        self.vain = 0;
    }

    /// Whether so many rows were passed in vain that it is worth it to [sort](Linked::sort) them.
    #[inline]
    pub(super) fn is_tired(&self) -> bool {
        self.is_timed && self.vain > VAIN_ROWS + VAIN_FACTOR * self.rows.len()
    }

    /// Puts all rows into chains again, in order of due.
    pub(super) fn sort(&mut self) {
        self.clear_places();
        self.vain = 0;
        let mut order: Vec<u32> = (0..self.rows.len() as u32).filter(|&row| !self.is_out(row)).collect();
        order.sort_unstable_by_key(|&row| (self.rows[row as usize].tag, self.rows[row as usize].due, row));
        self.ranks.resize(self.rows.len(), NONE);
        for (rank, &row) in order.iter().enumerate() {
            let tag = self.rows[row as usize].tag;
            let before = rank.checked_sub(1).map(|before| order[before]);
            let next = before.filter(|&before| self.rows[before as usize].tag == tag).unwrap_or(NONE);
            let known = &mut self.rows[row as usize];
            (known.next, known.is_last_due) = (next, true);
            self.ranks[row as usize] = rank as u32;
            if order.get(rank + 1).is_none_or(|&after| self.rows[after as usize].tag != tag) {
                let at = self.place_of(tag);
                self.places[at] = Place { tag, row };
            }
        }
        self.order = order;
        self.linked = self.rows.len();
    }

    /// The first row of a chain, from this one on, that is due at this time or before, if rows are sorted; otherwise the next row.
    fn jump(&self, row: u32, to: i64) -> u32 {
        let next = self.rows[row as usize].next;
        let Some(&rank) = self.ranks.get(row as usize).filter(|&&rank| rank != NONE) else { return next };
        let (rank, tag) = (rank as usize, self.rows[row as usize].tag);
        let is_too_late = |rank: usize| {
            let row = &self.rows[self.order[rank] as usize];
            row.tag == tag && row.due > to
        };
        // A place that is too late, and a distance at which none is.
        let (mut late, mut step) = (rank, 1);
        while late >= step && is_too_late(late - step) {
            late -= step;
            step *= 2;
        }
        let mut early = late.checked_sub(step);
        while late - early.map_or(0, |early| early + 1) > 0 {
            let from = early.map_or(0, |early| early + 1);
            let middle = from + (late - from) / 2;
            match is_too_late(middle) {
                true => late = middle,
                false => early = Some(middle),
            }
        }
        match late.checked_sub(1).map(|rank| self.order[rank]) {
            Some(row) if self.rows[row as usize].tag == tag => row,
            _ => NONE,
        }
    }

    #[inline]
    fn is_wanted(&self, row: u32, wanted: &Wanted<'_>) -> bool {
        let found = &self.rows[row as usize];
        found.word == wanted.word && !found.is_out && (wanted.key.is_empty() || self.keys.get(row as usize) == wanted.key)
    }

    /// Calls `visit` with the rows of a chain, from this one on, that are wanted, until it returns false; returns the row to go on with, or
    /// [`NONE`].
    #[inline]
    pub(super) fn walk(&mut self, mut row: u32, wanted: &Wanted<'_>, mut visit: impl FnMut(u32, i64) -> bool) -> u32 {
        let (mut vain, mut too_late) = (0, 0);
        while row != NONE {
            let Row { due, next, is_last_due, .. } = self.rows[row as usize];
            if due > wanted.to {
                (vain, too_late) = (vain + 1, too_late + 1);
                row = if too_late % JUMP_AFTER == 0 { self.jump(row, wanted.to) } else { next };
                continue;
            }
            if due < wanted.from {
                if is_last_due {
                    break;
                }
                vain += 1;
            } else if self.is_wanted(row, wanted) {
                if !visit(row, due) {
                    self.vain += vain;
                    return row;
                }
            } else {
                vain += 1;
            }
            row = next;
        }
        self.vain += vain;
        NONE
    }

    /// Takes the rows of a chain, from this one on, that are wanted out of it, `rows_max` at most, and calls `visit` with each; whether there
    /// may be more.
    pub(super) fn take_out(&mut self, mut row: u32, wanted: &Wanted<'_>, rows_max: usize, mut visit: impl FnMut(u32)) -> bool {
        let (mut before, mut too_late, mut taken) = (NONE, 0_usize, 0);
        while row != NONE {
            let Row { due, next, is_last_due, is_out, tag, .. } = self.rows[row as usize];
            if due < wanted.from && is_last_due {
                break;
            }
            if due > wanted.to {
                self.vain += 1;
                too_late += 1;
                let is_next = !too_late.is_multiple_of(JUMP_AFTER);
                let to = if is_next { next } else { self.jump(row, wanted.to) };
                // After a jump it is not known which row leads to this one: rows stay in the chain, as rows that are out.
                before = if to == next { row } else { NONE };
                row = to;
                continue;
            }
            let is_partner = due >= wanted.from && self.is_wanted(row, wanted);
            if is_partner {
                if taken == rows_max {
                    return true;
                }
                taken += 1;
                visit(row);
                self.rows[row as usize].is_out = true;
            } else {
                self.vain += 1;
            }
            if !is_partner && !is_out {
                before = row;
            } else if before != NONE {
                self.rows[before as usize].next = next;
            } else {
                let at = self.place_of(tag);
                if self.places[at].row == row {
                    self.places[at].row = if next == NONE { TAKEN_OUT } else { next };
                }
            }
            row = next;
        }
        false
    }

    /// The rows that are dropped before this time and had no partner, `rows_max` of those that are dropped at most; how many were dropped,
    /// and whether there are more.
    pub(super) fn drop_before(&mut self, before: i64, rows_max: usize, mut unmatched: impl FnMut(u32)) -> (usize, bool) {
        let mut gone = Vec::new();
        let has_more = self.dues.take(before, rows_max, &mut gone);
        gone.sort_unstable();
        gone.iter().filter(|&&row| !self.noted[row as usize].is_matched).for_each(|&row| unmatched(row as u32));
        (gone.len(), has_more)
    }
}
