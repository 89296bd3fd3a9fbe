//! The join keys of both sides: one table, where a key is looked up once for its own side and for the other.
//!
//! ```text
//!   hash ──► slot    the key, and of each side the list of its rows        64 bytes, a line of the cache
//! ```
//!
//! The keys of a batch are looked up together, so that the reads from memory overlap.

use super::lists::{List, Lists};
use crate::join::heads::{Heads, NONE, TOGETHER};
use crate::join::index::Key;

/// The keys with rows of either side.
#[derive(Default)]
pub(super) struct Keys {
    heads: Heads,
    slots: Vec<Slot>,
    free: Vec<u32>,
    lists: Lists,
    /// Keys that may have no rows any more.
    emptied: Vec<u32>,
}

#[derive(Default)]
struct Slot {
    hash: u64,
    key: Key,
    lists: [List; 2],
}

impl Keys {
    /// Looks up keys, given by their hashes and bytes, of those records of which `is_wanted` says so. One that is not there gets
    /// a slot if `is_added`, and has [`NONE`] otherwise.
    pub(super) fn find_all<'k>(
        &mut self,
        found: &mut [u32],
        is_added: bool,
        is_wanted: impl Fn(usize) -> bool,
        key: impl Fn(usize) -> (u64, &'k [u8]),
    ) {
        for (chunk, found) in found.chunks_mut(TOGETHER).enumerate() {
            let first = chunk * TOGETHER;
            let (_, firsts) = self.heads.begin_all(found.len(), |place| key(first + place).0);
            let mut hashes = [0; TOGETHER];
            for (hash, &slot) in hashes.iter_mut().zip(&firsts[..found.len()]) {
                *hash = self.slots.get(slot as usize).map_or(0, |slot| slot.hash);
            }
            for (place, found) in found.iter_mut().enumerate() {
                *found = NONE;
                if !is_wanted(first + place) {
                    continue;
                }
                let (hash, key) = key(first + place);
                let slot = firsts[place];
                let is_it = slot != NONE && hashes[place] == hash && self.slots[slot as usize].key.bytes() == key;
                *found = match is_it {
                    true => slot,
                    // Another record of these may have added it.
                    false => match self.find(hash, key) {
                        NONE if is_added => self.add(hash, key),
                        found => found,
                    },
                };
            }
        }
    }

    fn find(&self, hash: u64, key: &[u8]) -> u32 {
        let mut search = self.heads.begin(hash);
        loop {
            let slot = self.heads.next(&mut search);
            if slot == NONE || self.slots[slot as usize].key.bytes() == key {
                return slot;
            }
        }
    }

    fn add(&mut self, hash: u64, key: &[u8]) -> u32 {
        let at = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() as u32 - 1
        });
        assert!(at != NONE, "a join keeps fewer than 2^32 - 1 keys a task");
        let slot = &mut self.slots[at as usize];
        (slot.hash, slot.key) = (hash, Key::new(key));
        self.heads.insert(hash, at);
        at
    }

    /// The hash and the bytes of a key.
    pub(super) fn key(&self, slot: u32) -> (u64, &[u8]) {
        let slot = &self.slots[slot as usize];
        (slot.hash, slot.key.bytes())
    }

    /// The rows of a side.
    #[inline]
    pub(super) fn rows(&self, slot: u32, side: usize) -> &[u32] {
        if slot == NONE { &[] } else { self.lists.rows(&self.slots[slot as usize].lists[side]) }
    }

    /// Adds a row of a side; returns its place among them.
    #[inline]
    pub(super) fn push(&mut self, slot: u32, side: usize, row: u32) -> u32 {
        self.lists.push(&mut self.slots[slot as usize].lists[side], row)
    }

    /// Removes the row of a side at this place; returns the row that is there now.
    pub(super) fn remove(&mut self, slot: u32, side: usize, place: u32) -> Option<u32> {
        let list = &mut self.slots[slot as usize].lists[side];
        let moved = self.lists.remove(list, place);
        if list.is_empty() {
            self.emptied.push(slot);
        }
        moved
    }

    /// A key was looked for and may have no rows.
    pub(super) fn may_be_empty(&mut self, slot: u32) {
        self.emptied.push(slot);
    }

    /// Forgets the keys that have no rows. Slots hold until then.
    pub(super) fn forget_emptied(&mut self) {
        let mut emptied = std::mem::take(&mut self.emptied);
        emptied.sort_unstable();
        emptied.dedup();
        for at in emptied {
            let slot = &mut self.slots[at as usize];
            if slot.lists.iter().any(|list| !list.is_empty()) {
                continue;
            }
            let hash = slot.hash;
            if matches!(slot.key, Key::Long(_)) {
                slot.key = Key::default();
            }
            let search = self.heads.begin(hash);
            self.heads.remove(hash, at, search);
            self.free.push(at);
        }
    }

    /// Forgets all rows of a side.
    pub(super) fn forget(&mut self, side: usize) {
        for (at, slot) in self.slots.iter().enumerate() {
            if !slot.lists[side].is_empty() && slot.lists[1 - side].is_empty() {
                self.emptied.push(at as u32);
            }
        }
        self.rebuild(|of| of != side);
    }

    /// Rebuilds all lists of these sides, without blocks in no use; those of others are emptied.
    fn rebuild(&mut self, is_kept: impl Fn(usize) -> bool) {
        let former = std::mem::take(&mut self.lists);
        for slot in &mut self.slots {
            let lists = std::mem::take(&mut slot.lists);
            for (_, (list, new)) in lists.iter().zip(&mut slot.lists).enumerate().filter(|(side, _)| is_kept(*side)) {
                former.rows(list).iter().for_each(|&row| _ = self.lists.push(new, row));
            }
        }
    }

    /// Renumbers the rows of a side from 0 on, in the order of these keys of theirs and places among the rows of those.
    pub(super) fn renumber(&mut self, side: usize, slots: &[u32], places: &[u32]) {
        for ((&slot, &place), row) in slots.iter().zip(places).zip(0..) {
            if slot != NONE {
                self.lists.set(&mut self.slots[slot as usize].lists[side], place, row);
            }
        }
        // Where that costs no more than the rows of the side do.
        if self.slots.len() + self.lists.places() <= 4 * slots.len() {
            self.rebuild(|_| true);
        }
    }

    /// About how many bytes it takes.
    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.slots.capacity() * size_of::<Slot>() + self.free.capacity() * size_of::<u32>() + self.lists.memory()
    }
}
