//! The kept rows of one side, by number: their columns as they came, and what is known of each besides.
//!
//! ```text
//!   frames   columns as they came, a row a record, numbered through          gathered from by number
//!   rows     mark, key, place among the rows of the key                      an array each
//!            with a TTL: last use and due; timed: event time; by identity: its bytes, and a table of them
//! ```
//!
//! A batch is taken up as a whole, before it is known which of its records are kept: the others are gone from the beginning. Small
//! frames are put together, a frame goes when its last row does, and once most of all rows are gone the rest moves together.

use arrow::array::{Array, ArrayRef, DynComparator, UInt32Array, make_comparator, new_null_array};
use arrow::compute::{concat, interleave, take};
use mill_protocol::{Error, Result};

use crate::join::dues::Dues;
use crate::join::heads::{Heads, NONE};
use crate::join::index::Key;

/// Frames are put together until they have so many rows, and more once there are many of them.
const FRAME_ROWS: u32 = if cfg!(test) { 8 } else { 4096 };
const FRAME_ROWS_MANY: u32 = if cfg!(test) { 64 } else { 65_536 };
/// So many frames are many.
const FRAMES: usize = if cfg!(test) { 8 } else { 512 };
/// So many rows that are gone do no harm.
const GONE_ROWS: usize = if cfg!(test) { 32 } else { 4096 };
/// Numbers start over before they are as great.
const NUMBER_MAX: u32 = 1 << 31;

/// The row is there.
const IS_KEPT: u8 = 1;
/// It is in the result by itself.
const IS_SINGLE: u8 = 2;
/// It is among those that have changed.
const IS_CHANGED: u8 = 4;
/// Its due is where a checkpoint finds it.
const HAS_DUE: u8 = 8;
/// It is among those that were used.
const IS_USED: u8 = 16;

/// What is known of a row besides its columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// Its event time; 0 without one.
    pub(super) time: i64,
    /// When it was last used, and when it is to be looked at, if it has an age.
    pub(super) last: i64,
    pub(super) due: i64,
    /// Whether it is in the result by itself.
    pub(super) is_single: bool,
}

/// Which parts of a row there are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parts {
    pub(super) is_timed: bool,
    pub(super) has_age: bool,
    pub(super) has_identity: bool,
    /// Whether there are checkpoints, and whether rows have a number in them.
    pub(super) is_persistent: bool,
    pub(super) has_number: bool,
}

/// The rows of a side.
pub(super) struct Rows {
    parts: Parts,
    frames: Vec<Frame>,
    next: u32,
    kept: usize,
    marks: Vec<u8>,
    slots: Vec<u32>,
    places: Vec<u32>,
    times: Vec<i64>,
    lasts: Vec<i64>,
    dues: Vec<i64>,
    numbers: Vec<u64>,
    identities: Vec<Key>,
    /// Leads from hashes of slots and identities to rows.
    by_identity: Heads,
    due: Dues,
    /// Those that are to be added to `due`.
    new_dues: Vec<(i64, u64)>,
    /// Rows that are new or have changed since these were taken.
    changed: Vec<u32>,
    /// Rows that were used, and are otherwise as they were, since the last checkpoint.
    used: Vec<u32>,
}

struct Frame {
    first: u32,
    rows: u32,
    kept: u32,
    columns: Vec<ArrayRef>,
}

impl Frame {
    fn end(&self) -> u32 {
        self.first + self.rows
    }
}

fn failed(error: arrow::error::ArrowError) -> Error {
    Error::data(format!("the rows of a join do not fit into one frame: {error}"))
}

/// The hash of an identity among the rows of a key.
pub(super) fn identity_hash(slot: u32, identity: &[u8]) -> u64 {
    // The bytes of an identity begin with a hash of it.
    let hash = identity.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
    hash ^ u64::from(slot).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Rows {
    pub(super) fn new(parts: Parts) -> Rows {
        Rows {
            parts,
            frames: Vec::new(),
            next: 0,
            kept: 0,
            marks: Vec::new(),
            slots: Vec::new(),
            places: Vec::new(),
            times: Vec::new(),
            lasts: Vec::new(),
            dues: Vec::new(),
            numbers: Vec::new(),
            identities: Vec::new(),
            by_identity: Heads::default(),
            due: Dues::default(),
            new_dues: Vec::new(),
            changed: Vec::new(),
            used: Vec::new(),
        }
    }

    /// Takes up the columns of records, none of which is kept yet; the number of the first. `numbers` are those that they have in their
    /// checkpoint, if they have any.
    pub(super) fn append(&mut self, columns: Vec<ArrayRef>, rows: usize, numbers: &[u64]) -> Result<u32> {
        let first = self.next;
        if rows == 0 {
            return Ok(first);
        }
        let mut frame = Frame { first, rows: rows as u32, kept: 0, columns };
        self.next += frame.rows;
        let rows_max = if self.frames.len() < FRAMES { FRAME_ROWS } else { FRAME_ROWS_MANY };
        while let Some(last) = self.frames.last()
            && last.rows <= 2 * frame.rows
            && last.rows + frame.rows <= rows_max
            && last.end() == frame.first
        {
            let columns = last.columns.iter().zip(&frame.columns).map(|(a, b)| concat(&[a.as_ref(), b.as_ref()]));
            let columns = columns.collect::<std::result::Result<Vec<ArrayRef>, _>>().map_err(failed)?;
            frame = Frame { first: last.first, rows: last.rows + frame.rows, kept: last.kept + frame.kept, columns };
            self.frames.pop();
        }
        self.frames.push(frame);
        let known = self.next as usize;
        self.marks.resize(known, 0);
        self.slots.resize(known, NONE);
        self.places.resize(known, 0);
        if self.parts.is_timed {
            self.times.resize(known, 0);
        }
        if self.parts.has_age {
            self.lasts.resize(known, 0);
            self.dues.resize(known, 0);
        }
        if self.parts.has_identity {
            self.identities.resize_with(known, Key::default);
        }
        if self.parts.has_number {
            self.numbers.extend_from_slice(numbers);
        }
        Ok(first)
    }

    /// What is known of a row.
    #[inline]
    pub(super) fn row(&self, row: u32) -> Row {
        let at = row as usize;
        let (last, due) = if self.parts.has_age { (self.lasts[at], self.dues[at]) } else { (0, i64::MAX) };
        Row { time: self.time(row), last, due, is_single: self.marks[at] & IS_SINGLE != 0 }
    }

    /// The event time of a row; 0 without one.
    #[inline]
    pub(super) fn time(&self, row: u32) -> i64 {
        if self.parts.is_timed { self.times[row as usize] } else { 0 }
    }

    /// When a row was last used; 0 if it has no age.
    #[inline]
    pub(super) fn last(&self, row: u32) -> i64 {
        if self.parts.has_age { self.lasts[row as usize] } else { 0 }
    }

    /// Keeps a row that was taken up, of this key and place among its rows. With an age it is looked at again when it is due.
    pub(super) fn keep(&mut self, row: u32, slot: u32, place: u32, known: &Row) {
        let at = row as usize;
        self.marks[at] = IS_KEPT;
        self.slots[at] = slot;
        self.places[at] = place;
        if self.parts.is_timed {
            self.times[at] = known.time;
        }
        if self.parts.has_age {
            (self.lasts[at], self.dues[at]) = (known.last, known.due);
            self.new_dues.push((known.due, u64::from(row)));
        }
        self.kept += 1;
        let frame = self.frame_of(row, usize::MAX);
        self.frames[frame].kept += 1;
        self.set_single(row, known.is_single);
        self.change(row);
    }

    /// Keeps the rows that were taken up last, of these keys and places; those without a key are not kept.
    pub(super) fn keep_all(&mut self, first: u32, slots: &[u32], places: &[u32], times: Option<&[i64]>) {
        let at = first as usize;
        let mut kept = 0;
        for (mark, &slot) in self.marks[at..].iter_mut().zip(slots) {
            *mark = if slot == NONE { 0 } else { IS_KEPT };
            kept += u32::from(slot != NONE);
        }
        self.slots[at..].copy_from_slice(slots);
        self.places[at..].copy_from_slice(places);
        if let (Some(times), true) = (times, self.parts.is_timed) {
            self.times[at..].copy_from_slice(times);
        }
        self.kept += kept as usize;
        if let Some(frame) = self.frames.last_mut() {
            frame.kept += kept;
        }
        if self.parts.is_persistent {
            let rows = slots.iter().zip(first..).filter(|(slot, _)| **slot != NONE);
            rows.for_each(|(_, row)| self.change(row));
        }
    }

    /// Removes a row; returns its key and its place among the rows of it.
    pub(super) fn remove(&mut self, row: u32) -> (u32, u32) {
        let at = row as usize;
        self.marks[at] &= !(IS_KEPT | IS_SINGLE);
        self.kept -= 1;
        let frame = self.frame_of(row, usize::MAX);
        self.frames[frame].kept -= 1;
        (self.slots[at], self.places[at])
    }

    /// Whether the due of a row is where a checkpoint finds it.
    pub(super) fn has_due(&self, row: u32) -> bool {
        self.marks[row as usize] & HAS_DUE != 0
    }

    /// The due of a row has been written.
    pub(super) fn set_has_due(&mut self, row: u32) {
        let at = row as usize;
        self.marks[at] |= HAS_DUE;
    }

    /// The row has another place among the rows of its key.
    pub(super) fn set_place(&mut self, row: u32, place: u32) {
        let at = row as usize;
        self.places[at] = place;
    }

    /// Whether a row is in the result by itself now.
    pub(super) fn set_single(&mut self, row: u32, is_single: bool) {
        let at = row as usize;
        let mark = self.marks[at] & !IS_SINGLE;
        self.marks[at] = if is_single { mark | IS_SINGLE } else { mark };
    }

    /// The row was used last at this time.
    pub(super) fn set_last(&mut self, row: u32, last: i64) {
        let at = row as usize;
        self.lasts[at] = last;
        if self.parts.is_persistent && self.marks[at] & IS_USED == 0 {
            self.marks[at] |= IS_USED;
            self.used.push(row);
        }
    }

    /// The row is to be looked at then; it is not on the list of those that will be.
    pub(super) fn set_due(&mut self, row: u32, due: i64) {
        let at = row as usize;
        self.dues[at] = due;
        self.marks[at] &= !HAS_DUE;
        self.new_dues.push((due, u64::from(row)));
        self.change(row);
    }

    /// What is known of a row has changed, which a checkpoint has to know.
    pub(super) fn change(&mut self, row: u32) {
        let at = row as usize;
        if self.parts.is_persistent && self.marks[at] & IS_CHANGED == 0 {
            self.marks[at] |= IS_CHANGED;
            self.changed.push(row);
        }
    }

    /// The rows that are there and have changed, and those that were used if `with_used`.
    pub(super) fn take_changed(&mut self, with_used: bool) -> Vec<u32> {
        let mut changed = std::mem::take(&mut self.changed);
        let mut listed = IS_CHANGED;
        if with_used {
            changed.append(&mut self.used);
            listed |= IS_USED;
        }
        changed.retain(|&row| {
            let mark = &mut self.marks[row as usize];
            // One that is on both lists is written once.
            let is_listed = *mark & listed != 0;
            *mark &= !listed;
            is_listed && *mark & IS_KEPT != 0
        });
        changed
    }

    /// The key of a row, and its number in checkpoints.
    pub(super) fn slot_and_number(&self, row: u32) -> (u32, u64) {
        let at = row as usize;
        (self.slots[at], self.numbers.get(at).copied().unwrap_or_default())
    }

    /// The keys of all rows, by number.
    pub(super) fn slots(&self) -> &[u32] {
        &self.slots
    }

    /// Their places among the rows of their keys.
    pub(super) fn places(&self) -> &[u32] {
        &self.places
    }

    /// The bytes of the identity of a row.
    pub(super) fn identity(&self, row: u32) -> &[u8] {
        self.identities.get(row as usize).map_or(&[], Key::bytes)
    }

    /// The row of this key and identity, if there is one.
    pub(super) fn find(&self, slot: u32, identity: &[u8]) -> Option<u32> {
        let mut search = self.by_identity.begin(identity_hash(slot, identity));
        loop {
            match self.by_identity.next(&mut search) {
                NONE => return None,
                row if self.slots[row as usize] == slot && self.identity(row) == identity => return Some(row),
                _ => {}
            }
        }
    }

    /// Adds a row that is kept to those that are found by identity.
    pub(super) fn add_identity(&mut self, row: u32, identity: &[u8]) {
        let at = row as usize;
        self.identities[at] = Key::new(identity);
        self.by_identity.insert(identity_hash(self.slots[at], identity), row);
    }

    /// Takes a row off those that are found by identity.
    pub(super) fn remove_identity(&mut self, row: u32) {
        let at = row as usize;
        let identity = std::mem::take(&mut self.identities[at]);
        let hash = identity_hash(self.slots[at], identity.bytes());
        let search = self.by_identity.begin(hash);
        self.by_identity.remove(hash, row, search);
    }

    /// The frame of a row; it is looked for in the one that is near first.
    #[inline]
    fn frame_of(&self, row: u32, near: usize) -> usize {
        let near = near.min(self.frames.len() - 1);
        let frame = &self.frames[near];
        match frame.first <= row && row < frame.end() {
            true => near,
            false => self.frames.partition_point(|frame| frame.end() <= row),
        }
    }

    /// The columns of these rows, in this order; nulls for [`NONE`].
    pub(super) fn gather(&self, rows: &[u32]) -> Result<Vec<ArrayRef>> {
        let Some(last) = self.frames.last() else { return Ok(Vec::new()) };
        // The frames that are needed, by their own numbers from zero.
        let mut used: Vec<usize> = Vec::new();
        let mut of_frame = vec![usize::MAX; self.frames.len()];
        let mut places: Vec<(usize, usize)> = Vec::with_capacity(rows.len());
        let (mut near, mut has_none) = (0, false);
        for &row in rows {
            if row == NONE {
                has_none = true;
                places.push((usize::MAX, 0));
                continue;
            }
            near = self.frame_of(row, near);
            if of_frame[near] == usize::MAX {
                of_frame[near] = used.len();
                used.push(near);
            }
            places.push((of_frame[near], (row - self.frames[near].first) as usize));
        }
        if let [frame] = used[..] {
            let place = |&(frame, row): &(usize, usize)| (frame != usize::MAX).then_some(row as u32);
            let rows: UInt32Array = match has_none {
                true => places.iter().map(place).collect(),
                false => places.iter().map(|&(_, row)| row as u32).collect::<Vec<u32>>().into(),
            };
            return self.frames[frame].columns.iter().map(|column| take(column, &rows, None).map_err(failed)).collect();
        }
        if has_none {
            places.iter_mut().filter(|place| place.0 == usize::MAX).for_each(|place| place.0 = used.len());
        }
        let column = |column: usize| {
            let nulls = new_null_array(last.columns[column].data_type(), usize::from(has_none));
            let parts = used.iter().map(|&frame| self.frames[frame].columns[column].as_ref());
            let parts: Vec<&dyn Array> = parts.chain(has_none.then_some(nulls.as_ref())).collect();
            if parts.is_empty() { Ok(nulls) } else { interleave(&parts, &places).map_err(failed) }
        };
        (0..last.columns.len()).map(column).collect()
    }

    /// Whether rows are the same in all columns; made for the rows of one batch, which are in the same frame.
    pub(super) fn is_same(&self, alike: &mut Alike, old: u32, new: u32) -> Result<bool> {
        let (old_frame, new_frame) = (self.frame_of(old, usize::MAX), self.frame_of(new, usize::MAX));
        let (old_at, new_at) = ((old - self.frames[old_frame].first) as usize, (new - self.frames[new_frame].first) as usize);
        let comparators = match alike.of_frames.iter().find(|(frame, _)| *frame == self.frames[old_frame].first) {
            Some((_, comparators)) => comparators,
            None => {
                let columns = self.frames[old_frame].columns.iter().zip(&self.frames[new_frame].columns);
                let comparators = columns.map(|(old, new)| make_comparator(old, new, Default::default()).map_err(failed));
                alike.of_frames.push((self.frames[old_frame].first, comparators.collect::<Result<Vec<_>>>()?));
                &alike.of_frames[alike.of_frames.len() - 1].1
            }
        };
        Ok(comparators.iter().all(|compare| compare(old_at, new_at).is_eq()))
    }

    /// Takes rows off the list of those that are due until this time, this one included, some of them at most; whether there are more.
    pub(super) fn take_due(&mut self, at: i64, rows_max: usize) -> (Vec<u32>, bool) {
        let mut taken = Vec::new();
        let has_more = self.due.take(at.saturating_add(1), rows_max, &mut taken);
        let mut rows: Vec<u32> = taken.iter().map(|&row| row as u32).collect();
        rows.retain(|&row| self.is_kept(row));
        rows.sort_unstable();
        (rows, has_more)
    }

    fn is_kept(&self, row: u32) -> bool {
        self.marks[row as usize] & IS_KEPT != 0
    }

    /// When a row is to be looked at first.
    pub(super) fn first_due(&self) -> Option<i64> {
        self.due.first()
    }

    /// The rows that are there from this number on, so many of them; and the number to continue with.
    pub(super) fn some_from(&self, from: u32, rows_max: usize) -> Option<(Vec<u32>, u32)> {
        let rows: Vec<u32> = (from..self.next).filter(|&row| self.is_kept(row)).take(rows_max).collect();
        let next = *rows.last()? + 1;
        Some((rows, next))
    }

    /// What is at the end of a batch: rows go on the list of those that are due.
    pub(super) fn settle(&mut self) {
        if !self.new_dues.is_empty() {
            self.due.add(std::mem::take(&mut self.new_dues));
        }
    }

    /// Frees the memory of removed rows; whether the remaining ones have other numbers now, from 0 on.
    pub(super) fn sweep(&mut self) -> Result<bool> {
        let before = self.frames.len();
        self.frames.retain(|frame| frame.kept > 0);
        let stored: usize = self.frames.iter().map(|frame| frame.rows as usize).sum();
        let is_sparse = stored > 2 * self.kept + GONE_ROWS;
        if self.frames.len() == before && !is_sparse {
            return Ok(false);
        }
        let known = self.marks.len();
        if !is_sparse && known <= 2 * stored + GONE_ROWS && self.next < NUMBER_MAX {
            return Ok(false);
        }
        let rows: Vec<u32> = (0..self.next).filter(|&row| self.is_kept(row)).collect();
        let of_frame = if rows.len() < FRAMES * FRAME_ROWS as usize { FRAME_ROWS } else { FRAME_ROWS_MANY } as usize;
        let mut frames = Vec::with_capacity(rows.len().div_ceil(of_frame));
        for (first, rows) in (0..).step_by(of_frame).zip(rows.chunks(of_frame)) {
            frames.push(Frame { first, rows: rows.len() as u32, kept: rows.len() as u32, columns: self.gather(rows)? });
        }
        fn chosen<T: Clone>(values: &mut Vec<T>, rows: &[u32]) {
            if !values.is_empty() {
                *values = rows.iter().map(|&row| values[row as usize].clone()).collect();
            }
        }
        chosen(&mut self.marks, &rows);
        chosen(&mut self.slots, &rows);
        chosen(&mut self.places, &rows);
        chosen(&mut self.times, &rows);
        chosen(&mut self.lasts, &rows);
        chosen(&mut self.dues, &rows);
        chosen(&mut self.numbers, &rows);
        if self.parts.has_identity {
            let identities = rows.iter().map(|&row| std::mem::take(&mut self.identities[row as usize]));
            self.identities = identities.collect();
            self.by_identity = Heads::default();
            for (row, identity) in (0..).zip(&self.identities) {
                self.by_identity.insert(identity_hash(self.slots[row as usize], identity.bytes()), row);
            }
        }
        // Those that have changed have been written.
        self.used = (0..).zip(&self.marks).filter(|(_, mark)| *mark & IS_USED != 0).map(|(row, _)| row).collect();
        self.due = Dues::default();
        self.new_dues = self.dues.iter().zip(0..).map(|(&due, row)| (due, row)).collect();
        (self.frames, self.next) = (frames, rows.len() as u32);
        self.settle();
        Ok(true)
    }

    /// About how many bytes it takes but for its columns.
    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        let frames: usize = self.frames.iter().flat_map(|frame| &frame.columns).map(|column| column.get_array_memory_size()).sum();
        frames + self.marks.capacity() * 9 + (self.times.capacity() + self.lasts.capacity() + self.dues.capacity()) * 8
    }
}

/// Compares rows of a side with those of a batch.
#[derive(Default)]
pub(super) struct Alike {
    of_frames: Vec<(u32, Vec<DynComparator>)>,
}
