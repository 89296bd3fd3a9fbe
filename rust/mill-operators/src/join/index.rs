//! The buffered rows of each key, in the order in which they are dropped.
//!
//! A key is found by its hash and compared by its bytes. What is dropped of a key is always the first of its rows, so a list
//! has a start that moves, and is moved itself once half of it is gone.

use super::heads::{Heads, NONE, Search, TOGETHER};
use crate::pair::{OutOfOrder, put_in_order};

/// A row: when it is dropped, and its number.
pub(crate) type Entry = (i64, u64);

/// Leads from keys to rows.
#[derive(Default)]
pub(super) struct Index {
    heads: Heads,
    slots: Vec<Slot>,
    free: Vec<u32>,
}

/// The rows of a key.
#[derive(Default)]
struct Slot {
    hash: u64,
    key: Key,
    rows: Rows,
}

/// How many bytes of a key need no memory of their own.
const KEY_INLINE: usize = 30;

/// The bytes of a key.
pub(crate) enum Key {
    Short(u8, [u8; KEY_INLINE]),
    Long(Box<[u8]>),
}

impl Default for Key {
    fn default() -> Key {
        Key::Short(0, [0; KEY_INLINE])
    }
}

impl Key {
    pub(crate) fn new(bytes: &[u8]) -> Key {
        match bytes.len() {
            length @ ..=KEY_INLINE => {
                let mut short = [0; KEY_INLINE];
                short[..length].copy_from_slice(bytes);
                Key::Short(length as u8, short)
            }
            _ => Key::Long(bytes.into()),
        }
    }

    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Key::Short(length, bytes) => &bytes[..usize::from(*length)],
            Key::Long(bytes) => bytes,
        }
    }
}

/// Rows in order; most keys have one.
#[derive(Default)]
enum Rows {
    #[default]
    None,
    One(Entry),
    Many {
        rows: Vec<Entry>,
        start: usize,
    },
}

impl Rows {
    #[inline]
    fn all(&self) -> &[Entry] {
        match self {
            Rows::None => &[],
            Rows::One(row) => std::slice::from_ref(row),
            Rows::Many { rows, start } => &rows[*start..],
        }
    }

    /// Adds a row to the rows of this slot.
    fn insert(&mut self, row: Entry, slot: u32, out_of_order: &mut OutOfOrder) {
        match self {
            Rows::None => *self = Rows::One(row),
            Rows::One(other) => {
                let rows = if *other <= row { vec![*other, row] } else { vec![row, *other] };
                *self = Rows::Many { rows, start: 0 };
            }
            Rows::Many { rows, start } => out_of_order.add(slot, rows, *start, row, |row| *row),
        }
    }

    /// Puts the rows in order after others were added; so many were, with those that have been left out.
    fn put_in_order(&mut self, in_order: usize) {
        if let Rows::Many { rows, start } = self {
            put_in_order(&mut rows[*start..], in_order - *start, |row| *row);
        }
    }

    /// Leaves the first rows out, so many.
    fn leave_out(&mut self, count: usize) {
        match self {
            Rows::Many { rows, start } if *start + count < rows.len() => {
                *start += count;
                if *start > rows.len() / 2 {
                    rows.drain(..*start);
                    *start = 0;
                }
            }
            Rows::One(_) | Rows::Many { .. } if count > 0 => *self = Rows::None,
            _ => {}
        }
    }

    fn all_mut(&mut self) -> &mut [Entry] {
        match self {
            Rows::None => &mut [],
            Rows::One(row) => std::slice::from_mut(row),
            Rows::Many { rows, start } => &mut rows[*start..],
        }
    }
}

impl Index {
    /// The slot of a key, if it has rows.
    #[inline]
    pub(super) fn find(&self, hash: u64, key: &[u8]) -> Option<u32> {
        Some(self.find_on(self.heads.begin(hash), key)).filter(|&slot| slot != NONE)
    }

    #[inline]
    fn find_on(&self, mut search: Search, key: &[u8]) -> u32 {
        loop {
            let slot = self.heads.next(&mut search);
            if slot == NONE || self.slots[slot as usize].key.bytes() == key {
                return slot;
            }
        }
    }

    /// The slots of several keys, given by their hashes and bytes: [`NONE`] for one that has no rows.
    pub(super) fn find_all<'k>(&self, found: &mut [u32], key: impl Fn(usize) -> (u64, &'k [u8])) {
        for (chunk, found) in found.chunks_mut(TOGETHER).enumerate() {
            let first = chunk * TOGETHER;
            let (searches, firsts) = self.heads.begin_all(found.len(), |place| key(first + place).0);
            let mut hashes = [0; TOGETHER];
            for (hash, &slot) in hashes.iter_mut().zip(&firsts[..found.len()]) {
                *hash = self.slots.get(slot as usize).map_or(0, |slot| slot.hash);
            }
            for (place, found) in found.iter_mut().enumerate() {
                let (hash, key) = key(first + place);
                let slot = firsts[place];
                let is_it = slot != NONE && hashes[place] == hash && self.slots[slot as usize].key.bytes() == key;
                *found = if is_it || slot == NONE { slot } else { self.find_on(searches[place], key) };
            }
        }
    }

    /// The rows of a slot, the first to be dropped first.
    #[inline]
    pub(super) fn rows(&self, slot: u32) -> &[Entry] {
        self.slots[slot as usize].rows.all()
    }

    /// The hash and the bytes of the key of a slot.
    pub(super) fn key(&self, slot: u32) -> (u64, &[u8]) {
        let slot = &self.slots[slot as usize];
        (slot.hash, slot.key.bytes())
    }

    /// Adds a row; returns the slot of its key. `found` is the slot as it was looked for before, if it had one. Once all rows of
    /// a batch are added, [`put_in_order`](Index::put_in_order) follows.
    pub(super) fn insert(&mut self, found: u32, hash: u64, key: &[u8], row: Entry, out_of_order: &mut OutOfOrder) -> u32 {
        let at = match found {
            // A row that was added since may have the same key.
            NONE => self.find(hash, key).unwrap_or_else(|| self.add(hash, key)),
            found => found,
        };
        self.slots[at as usize].rows.insert(row, at, out_of_order);
        at
    }

    /// Puts the rows of slots in order that were added far from their place.
    pub(super) fn put_in_order(&mut self, out_of_order: OutOfOrder) {
        for (slot, in_order) in out_of_order.lists() {
            self.slots[slot as usize].rows.put_in_order(in_order);
        }
    }

    fn add(&mut self, hash: u64, key: &[u8]) -> u32 {
        let at = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() as u32 - 1
        });
        assert!(at != NONE, "a join buffers fewer than 2^32 - 1 keys a task");
        let slot = &mut self.slots[at as usize];
        (slot.hash, slot.key) = (hash, Key::new(key));
        self.heads.insert(hash, at);
        at
    }

    /// Forgets the rows of these slots that are dropped before this time.
    pub(super) fn forget(&mut self, slots: &[u32], before: i64) {
        for slots in slots.chunks(TOGETHER) {
            let mut hashes = [0; TOGETHER];
            for (hash, &slot) in hashes.iter_mut().zip(slots) {
                *hash = self.slots[slot as usize].hash;
            }
            let mut searches = [Search::default(); TOGETHER];
            for (search, &hash) in searches.iter_mut().zip(&hashes[..slots.len()]) {
                *search = self.heads.begin(hash);
            }
            for (&search, &slot) in searches.iter().zip(slots) {
                self.forget_of(slot, before, search);
            }
        }
    }

    fn forget_of(&mut self, at: u32, before: i64, search: Search) {
        let rows = &mut self.slots[at as usize].rows;
        match rows {
            Rows::None => return,
            Rows::One((due, _)) if *due < before => *rows = Rows::None,
            Rows::One(_) => return,
            Rows::Many { .. } => match rows.all().partition_point(|&(due, _)| due < before) {
                0 => return,
                count => rows.leave_out(count),
            },
        }
        if matches!(rows, Rows::None) {
            self.free_slot(at, search);
        }
    }

    fn free_slot(&mut self, at: u32, search: Search) {
        let slot = &mut self.slots[at as usize];
        slot.rows = Rows::None;
        // The bytes of a short key need not go.
        if matches!(slot.key, Key::Long(_)) {
            slot.key = Key::default();
        }
        let hash = slot.hash;
        self.heads.remove(hash, at, search);
        self.free.push(at);
    }

    /// Gives every row another number.
    pub(super) fn renumber(&mut self, number: impl Fn(u64) -> u64) {
        for slot in &mut self.slots {
            slot.rows.all_mut().iter_mut().for_each(|(_, row)| *row = number(*row));
        }
    }
}
