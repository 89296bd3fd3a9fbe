//! The records of a side of a join in windows, found by key and window, and dropped with the window.
//!
//! ```text
//!   grain   one window, by the number of its end
//!   pane    grains that follow each other; dropped as a whole, so no record is ever removed
//!     places   tag of (key, grain) → newest row             1 read finds the chain
//!     rows     key │ due │ the row with the same tag before   the chain is walked
//!     parts    columns as they came                           joined rows are gathered
//! ```
//!
//! A chain has the rows of one key in one window, and hardly ever others: what a record looks at is what it finds.
//!
//! A pane has one window where windows have many rows, or else so many that it has about [`PANE_ROWS`]: a window of few rows costs no table
//! of its own. Then rows stay until the last window of the pane is over. Nobody finds them: a record that could is late. A pane that gets
//! more rows than that takes no windows after those that it has rows of; if those are few rows of windows far ahead, they leave it.
//!
//! Rows are put into chains only when somebody looks: a pane that nobody asks has none.

use arrow::array::{Array, ArrayRef, UInt32Array};
use arrow::compute::{concat, interleave, take};
use mill_protocol::{Error, Result};

use super::dues::Dues;
use super::heads::NONE;

/// So many rows are worth a table of their own.
const PANE_ROWS: usize = 4096;
/// A pane of so many rows takes no further grains.
const PANE_ROWS_MAX: usize = 4 * PANE_ROWS;
/// A pane has at most so many times the grains of the one before it.
const GROWTH: i64 = 8;
/// How many records are looked up together.
const TOGETHER: usize = 64;
/// Parts are put together up to this many rows.
const PART_ROWS: usize = 2048;
const PLACES_MIN: usize = 64;
/// The most rows of a pane.
const ROWS_MAX: usize = 1 << 30;

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

/// Memory of a pane that is gone, for another one: what is new has to be cleared.
#[derive(Default)]
struct Spare {
    rows: Vec<Row>,
    places: Vec<Place>,
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
}

struct Row {
    /// The key, or its hash.
    word: u64,
    due: i64,
    /// The row with the same tag before it.
    next: u32,
    /// The hash of key and grain.
    tag: u32,
    part: u32,
    /// Whether it is in no chain any more.
    is_out: bool,
}

/// What is known of a row beside its columns.
#[derive(Clone, Copy, Debug)]
pub(super) struct Noted {
    /// The hash that decides which task has its key.
    pub(super) hash: u64,
    /// Its number in checkpoints.
    pub(super) durable: u64,
    pub(super) is_matched: bool,
}

struct Part {
    start: usize,
    rows: usize,
    columns: Vec<ArrayRef>,
}

/// The bytes of keys.
#[derive(Default)]
pub(super) struct Keys {
    pub(super) bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Keys {
    /// Room for so many keys of one number each, with its hash, and the end of a window.
    pub(super) fn with_capacity(keys: usize) -> Keys {
        Keys { bytes: Vec::with_capacity(25 * keys), ends: Vec::with_capacity(keys) }
    }

    /// Ends the key whose bytes were added.
    pub(super) fn end(&mut self) {
        self.ends.push(self.bytes.len());
    }

    /// Adds a key.
    pub(super) fn push(&mut self, key: &[u8]) {
        self.bytes.extend_from_slice(key);
        self.end();
    }

    /// A key; empty if there are none.
    #[inline]
    pub(super) fn get(&self, place: usize) -> &[u8] {
        match self.ends.get(place) {
            Some(&end) => &self.bytes[if place == 0 { 0 } else { self.ends[place - 1] }..end],
            None => &[],
        }
    }
}

/// Records, column by column.
#[derive(Default)]
pub(super) struct Records {
    /// The key of each, or its hash if the key is in `keys`.
    pub(super) words: Vec<u64>,
    /// The hash that decides about the task.
    pub(super) hashes: Vec<u64>,
    pub(super) dues: Vec<i64>,
    /// Needed where words are hashes.
    pub(super) keys: Keys,
}

impl Records {
    /// Only these of them.
    pub(super) fn chosen(&self, places: &[usize]) -> Records {
        let mut keys = Keys::default();
        if !self.keys.ends.is_empty() {
            places.iter().for_each(|&place| keys.push(self.keys.get(place)));
        }
        Records {
            words: places.iter().map(|&place| self.words[place]).collect(),
            hashes: places.iter().map(|&place| self.hashes[place]).collect(),
            dues: places.iter().map(|&place| self.dues[place]).collect(),
            keys,
        }
    }
}

/// Where the partners of a record are.
#[derive(Clone, Copy)]
pub(super) struct Found {
    pane: u32,
    /// The first row of the chain, or [`NONE`].
    row: u32,
}

/// A record that looks for partners in the window that is over at this time.
pub(super) struct Wanted<'a> {
    pub(super) word: u64,
    /// Empty where the word is the key.
    pub(super) key: &'a [u8],
    pub(super) due: i64,
}

impl Found {
    pub(super) const NOTHING: Found = Found { pane: NONE, row: NONE };

    /// Whether there is no chain.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.row == NONE
    }

    /// The same chain from another row on.
    #[inline]
    pub(super) fn from(self, row: u32) -> Found {
        Found { row, ..self }
    }
}

/// A row: its pane and its place there.
#[inline]
fn number(pane: u32, row: u32) -> u64 {
    u64::from(pane) << 32 | u64::from(row)
}

#[inline]
fn place(number: u64) -> (usize, usize) {
    ((number >> 32) as usize, number as u32 as usize)
}

/// What is added to the hash of a key for a grain.
#[inline]
fn salt(grain: i64) -> u64 {
    (grain as u64).wrapping_mul(0xd6e8_feb8_6659_fd93)
}

#[inline]
fn tag(hash: u64, salt: u64) -> u32 {
    ((hash ^ salt).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
}

/// The grain of the last record that was looked at: most have the same as the one before them.
struct Grain {
    number: i64,
    start: i64,
    /// The first time after it, unless it is the last one.
    end: i64,
}

impl Grain {
    /// Holds no time.
    const NONE: Grain = Grain { number: 0, start: i64::MAX, end: i64::MIN };

    fn of(time: i64, length: i64) -> Grain {
        let number = time.div_euclid(length);
        let start = number.saturating_mul(length);
        Grain { number, start, end: start.saturating_add(length) }
    }

    #[inline]
    fn holds(&self, time: i64) -> bool {
        self.start <= time && time < self.end
    }
}

impl Pane {
    fn new(first: i64, last: i64, memory: Spare) -> Pane {
        Pane {
            first,
            last,
            latest: i64::MIN,
            expected: 0,
            look_at: PANE_ROWS_MAX,
            places: memory.places,
            linked: 0,
            rows: memory.rows,
            keys: Keys::default(),
            parts: Vec::new(),
            noted: Vec::new(),
            dues: Dues::default(),
        }
    }

    #[inline]
    fn holds(&self, grain: i64) -> bool {
        self.first <= grain && grain <= self.last
    }

    /// Whether a grain that it has no rows of yet belongs to another pane.
    fn is_full_for(&self, grain: i64) -> bool {
        self.expected >= PANE_ROWS_MAX && grain > self.latest
    }

    /// Where a tag lies unless others are in its way.
    #[inline]
    fn home(&self, tag: u32) -> usize {
        // There are fewer than 2^32 of them: twice as many as there is room for rows.
        (u64::from(tag) * self.places.len() as u64 >> 32) as usize
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
    fn first_of(&self, tag: u32) -> u32 {
        match self.places[self.place_of(tag)].row {
            TAKEN_OUT => NONE,
            row => row,
        }
    }

    /// Puts the rows into chains that are in none.
    fn link(&mut self) {
        if self.places.is_empty() || 2 * self.rows.len() > self.places.len() {
            // For as many rows as it has room for.
            let places = (2 * self.rows.capacity()).max(PLACES_MIN);
            self.places.clear();
            self.places.resize(places, FREE);
            self.linked = 0;
        }
        for from in (self.linked..self.rows.len()).step_by(TOGETHER) {
            let rows = from..self.rows.len().min(from + TOGETHER);
            // All homes are read before anything depends on what is there, so that the reads from memory overlap.
            let home = |row: usize| self.places[self.home(self.rows[row].tag)].row;
            std::hint::black_box(rows.clone().fold(0, |all, row| all ^ home(row)));
            for row in rows {
                let Row { tag, is_out, .. } = self.rows[row];
                if !is_out {
                    let at = self.place_of(tag);
                    self.rows[row].next = match self.places[at].row {
                        TAKEN_OUT => NONE,
                        next => next,
                    };
                    self.places[at] = Place { tag, row: row as u32 };
                }
            }
        }
        self.linked = self.rows.len();
    }

    #[inline]
    fn is_wanted(&self, row: u32, wanted: &Wanted<'_>) -> bool {
        let found = &self.rows[row as usize];
        found.word == wanted.word
            && found.due == wanted.due
            && (wanted.key.is_empty() || self.keys.get(row as usize) == wanted.key)
    }

    /// Takes a row out of its chain; `before` is the one that leads to it.
    fn take_out(&mut self, row: u32, before: u32) {
        let Row { next, tag, .. } = self.rows[row as usize];
        self.rows[row as usize].is_out = true;
        match before {
            NONE => {
                let at = self.place_of(tag);
                self.places[at].row = if next == NONE { TAKEN_OUT } else { next };
            }
            before => self.rows[before as usize].next = next,
        }
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
        let number = u32::try_from(self.parts.len()).expect("a pane has fewer parts than rows");
        self.rows[part.start..].iter_mut().for_each(|row| row.part = number);
        self.parts.push(part);
        Ok(())
    }
}

impl Chains {
    /// None yet; windows end every `grain`.
    pub(super) fn new(grain: i64, is_noted: bool) -> Chains {
        Chains { panes: Vec::new(), grain: grain.max(1), is_noted, latest: (1, i64::MIN), rows_before: 0, spare: Spare::default() }
    }

    /// Whether it is known of rows when they are dropped and whether they had a partner.
    pub(super) fn is_noted(&self) -> bool {
        self.is_noted
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
        let is_ahead = |row: &Row| row.due >= after && !row.is_out;
        let ahead: Vec<u32> = (0..pane.rows.len() as u32).filter(|&row| is_ahead(&pane.rows[row as usize])).collect();
        if ahead.len() > pane.rows.len() / 4 {
            return Ok(());
        }
        let (last, latest) = (pane.last, pane.latest);
        (pane.last, pane.latest) = (grain, grain);
        if ahead.is_empty() {
            // Those that were ahead have been taken out.
            return Ok(());
        }
        let numbers: Vec<u64> = ahead.iter().map(|&row| number(at as u32, row)).collect();
        let columns = self.gather(&numbers)?;
        let pane = &mut self.panes[at];
        let mut own = Pane::new(grain + 1, last, Spare::default());
        (own.latest, own.expected) = (latest, ahead.len());
        for &row in &ahead {
            let left = &mut pane.rows[row as usize];
            own.rows.push(Row { next: NONE, part: 0, ..*left });
            left.is_out = true;
            if !pane.keys.ends.is_empty() {
                own.keys.push(pane.keys.get(row as usize));
            }
            if let Some(noted) = pane.noted.get_mut(row as usize) {
                own.noted.push(*noted);
                // It is emitted there, if at all.
                noted.is_matched = true;
            }
        }
        // The others are put into chains again, without those.
        pane.places.clear();
        if self.is_noted {
            own.dues.add(own.rows.iter().zip(0..).map(|(row, number)| (row.due, number)).collect());
        }
        own.push(Part { start: 0, rows: ahead.len(), columns })?;
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
        let mut memory = std::mem::take(&mut self.spare);
        if rows < PANE_ROWS || memory.rows.capacity() > 4 * rows {
            memory = Spare::default();
        }
        if rows >= PANE_ROWS {
            memory.rows.reserve(rows + rows / 8);
        }
        self.panes.insert(at, Pane::new(first, last, memory));
        at
    }

    /// Keeps records with these columns; `noted` has what is known of them, if they are noted.
    pub(super) fn add(&mut self, columns: &[ArrayRef], records: &Records, noted: &[Noted]) -> Result<()> {
        // Mostly all of them are of one pane.
        let Some(&due) = records.dues.first() else { return Ok(()) };
        let mut grain = Grain::of(due, self.grain);
        let mut at = self.pane_for(grain.number, 0)?;
        let mut is_one = true;
        for &due in &records.dues {
            if !grain.holds(due) {
                grain = Grain::of(due, self.grain);
                let (first, panes) = (self.panes[at].first, self.panes.len());
                at = self.pane_for(grain.number, at)?;
                is_one &= self.panes[at].first == first && self.panes.len() == panes;
            }
            let pane = &mut self.panes[at];
            pane.latest = pane.latest.max(grain.number);
            pane.expected += 1;
        }
        if is_one {
            return self.add_to(at, columns, records, noted, 0..records.dues.len(), None);
        }
        let mut panes: Vec<u32> = Vec::with_capacity(records.dues.len());
        let mut grain = Grain::NONE;
        for &due in &records.dues {
            if !grain.holds(due) {
                grain = Grain::of(due, self.grain);
                at = self.pane_of(grain.number, at).expect("it was made above");
            }
            panes.push(at as u32);
        }
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
        let length = self.grain;
        let pane = &mut self.panes[at];
        let (start, count) = (pane.rows.len(), places.len());
        assert!(start + count <= ROWS_MAX, "a join keeps at most 2^30 rows of a side and a window a task");
        let mut grain = Grain::of(records.dues[places.clone().next().unwrap_or_default()], length);
        let mut of_grain = salt(grain.number);
        pane.rows.extend(places.clone().map(|place| {
            let due = records.dues[place];
            if !grain.holds(due) {
                grain = Grain::of(due, length);
                of_grain = salt(grain.number);
            }
            Row { word: records.words[place], due, next: NONE, tag: tag(records.hashes[place], of_grain), part: 0, is_out: false }
        }));
        if !records.keys.ends.is_empty() {
            places.clone().for_each(|place| pane.keys.push(records.keys.get(place)));
        }
        if self.is_noted {
            pane.noted.extend(places.clone().map(|place| noted[place]));
            let rows = places.zip(start as u64..);
            pane.dues.add(rows.map(|(place, row)| (records.dues[place], row)).collect());
        }
        let columns = match taken {
            Some(taken) => super::taken(columns, taken)?,
            None => columns.to_vec(),
        };
        pane.push(Part { start, rows: count, columns })
    }

    /// Finds the chains where the partners of records are, given their hashes and when their windows are over.
    pub(super) fn find_all(&mut self, found: &mut [Found], hashes: &[u64], dues: &[i64]) {
        found.fill(Found::NOTHING);
        if self.panes.is_empty() {
            return;
        }
        let mut grain = Grain::NONE;
        let (mut pane, mut of_grain) = (None, 0);
        for ((found, &hash), &due) in found.iter_mut().zip(hashes).zip(dues) {
            if !grain.holds(due) {
                grain = Grain::of(due, self.grain);
                pane = self.pane_of(grain.number, pane.unwrap_or(0));
                of_grain = salt(grain.number);
                if let Some(at) = pane {
                    self.panes[at].link();
                }
            }
            // Its tag, until all homes have been read.
            if let Some(at) = pane {
                *found = Found { pane: at as u32, row: tag(hash, of_grain) };
            }
        }
        for found in found.chunks_mut(TOGETHER) {
            // All homes are read before anything depends on what is there, so that the reads from memory overlap; and then all first rows.
            let home = |found: &Found| match found.pane {
                NONE => 0,
                pane => {
                    let pane = &self.panes[pane as usize];
                    pane.places[pane.home(found.row)].row
                }
            };
            std::hint::black_box(found.iter().fold(0, |all, found| all ^ home(found)));
            for found in found.iter_mut().filter(|found| found.pane != NONE) {
                found.row = self.panes[found.pane as usize].first_of(found.row);
            }
            let first = |found: &Found| match found.row {
                NONE => 0,
                row => self.panes[found.pane as usize].rows[row as usize].tag,
            };
            std::hint::black_box(found.iter().fold(0, |all, found| all ^ first(found)));
        }
    }

    /// Adds the partners of a record to `out` until that has `rows_max`; returns the row to go on with, or [`NONE`].
    #[inline]
    pub(super) fn walk(&self, found: Found, wanted: &Wanted<'_>, rows_max: usize, out: &mut Vec<u64>) -> u32 {
        let mut row = found.row;
        while row != NONE {
            let pane = &self.panes[found.pane as usize];
            if pane.is_wanted(row, wanted) {
                if out.len() == rows_max {
                    break;
                }
                out.push(number(found.pane, row));
            }
            row = pane.rows[row as usize].next;
        }
        row
    }

    /// Whether a record has a partner.
    pub(super) fn has_any(&self, found: Found, wanted: &Wanted<'_>) -> bool {
        let mut row = found.row;
        while row != NONE {
            let pane = &self.panes[found.pane as usize];
            if pane.is_wanted(row, wanted) {
                return true;
            }
            row = pane.rows[row as usize].next;
        }
        false
    }

    /// Takes the partners of a record out of their chain, into `out`, until that has `rows_max`; whether there may be more. They are to be
    /// [marked](Chains::mark). Chains that were found for others before are so no longer.
    pub(super) fn take_out(&mut self, found: Found, wanted: &Wanted<'_>, rows_max: usize, out: &mut Vec<u64>) -> bool {
        let (mut before, mut row) = (NONE, found.row);
        while row != NONE {
            let pane = &mut self.panes[found.pane as usize];
            let next = pane.rows[row as usize].next;
            if pane.is_wanted(row, wanted) {
                if out.len() == rows_max {
                    return true;
                }
                out.push(number(found.pane, row));
                pane.take_out(row, before);
            } else {
                before = row;
            }
            row = next;
        }
        false
    }

    /// When rows are dropped, and what is noted of them.
    pub(super) fn known<'c>(&'c self, numbers: &'c [u64]) -> impl ExactSizeIterator<Item = (i64, Noted)> + 'c {
        numbers.iter().map(|&number| {
            let (pane, row) = place(number);
            (self.panes[pane].rows[row].due, self.panes[pane].noted[row])
        })
    }

    /// Marks rows as having a partner; those that had none before are left in `numbers`.
    pub(super) fn mark(&mut self, numbers: &mut Vec<u64>) {
        numbers.retain(|&number| {
            let (pane, row) = place(number);
            !std::mem::replace(&mut self.panes[pane].noted[row].is_matched, true)
        });
    }

    /// The columns of these rows, in this order.
    pub(super) fn gather(&self, numbers: &[u64]) -> Result<Vec<ArrayRef>> {
        // The parts of the panes that are needed, one after the other.
        let mut parts: Vec<&Part> = Vec::new();
        let mut starts: Vec<usize> = vec![usize::MAX; self.panes.len()];
        let mut places: Vec<(usize, usize)> = Vec::with_capacity(numbers.len());
        for &number in numbers {
            let (at, row) = place(number);
            let pane = &self.panes[at];
            if starts[at] == usize::MAX {
                starts[at] = parts.len();
                parts.extend(&pane.parts);
            }
            let part = pane.rows[row].part as usize;
            places.push((starts[at] + part, row - pane.parts[part].start));
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

    /// The rows that are dropped before this time and had no partner, `rows_max` of those that are dropped at most; whether there are more.
    /// Rows are noted. They stay until they are [swept](Chains::sweep).
    pub(super) fn drop_before(&mut self, before: i64, rows_max: usize, unmatched: &mut Vec<u64>) -> bool {
        let (mut gone, mut left) = (Vec::new(), rows_max);
        let over = self.over(before);
        for (at, pane) in self.panes.iter_mut().enumerate().take_while(|(_, pane)| pane.first <= over) {
            gone.clear();
            let has_more = pane.dues.take(before, left, &mut gone);
            left -= gone.len();
            gone.sort_unstable();
            let unmatched_rows = gone.iter().filter(|&&row| !pane.noted[row as usize].is_matched);
            unmatched.extend(unmatched_rows.map(|&row| number(at as u32, row as u32)));
            if has_more || left == 0 {
                return true;
            }
        }
        false
    }

    /// Gives the memory of rows back that are dropped before this time.
    pub(super) fn sweep(&mut self, before: i64) {
        let over = self.over(before);
        let gone = self.panes.partition_point(|pane| pane.last < over);
        if let Some(Pane { rows, places, .. }) = self.panes.drain(..gone).max_by_key(|pane| pane.rows.len()) {
            self.rows_before = rows.len();
            self.spare = Spare { rows, places };
            self.spare.rows.clear();
            self.spare.places.clear();
        }
    }

    /// The first grain that is not over at this time.
    fn over(&self, before: i64) -> i64 {
        if before == i64::MAX { i64::MAX } else { before.div_euclid(self.grain) }
    }

    /// How many rows there are.
    #[cfg(test)]
    pub(super) fn rows(&self) -> usize {
        self.panes.iter().map(|pane| pane.rows.len()).sum()
    }

    /// How many panes there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.panes.len()
    }
}

fn failed(error: arrow::error::ArrowError) -> Error {
    Error::internal(error.to_string())
}
