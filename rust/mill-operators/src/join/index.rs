//! The buffered rows of each key, in the order in which they are dropped.
//!
//! A key is found by its hash and compared by its bytes. What is dropped of a key is always the first of its rows, so a list
//! has a start that moves, and is moved itself once half of it is gone.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// No further slot of this hash.
const NONE: u32 = u32::MAX;

/// A row: when it is dropped, and its number.
pub(super) type Entry = (i64, u64);

/// Leads from keys to rows.
#[derive(Default)]
pub(super) struct Index {
    heads: HashMap<u64, u32, BuildHasherDefault<AsItIs>>,
    slots: Vec<Slot>,
    free: Vec<u32>,
}

/// The rows of a key.
#[derive(Default)]
struct Slot {
    hash: u64,
    key: Key,
    /// The next slot of the same hash.
    next: u32,
    rows: Rows,
}

/// How many bytes of a key need no memory of their own.
const KEY_INLINE: usize = 30;

/// The bytes of a key.
enum Key {
    Short(u8, [u8; KEY_INLINE]),
    Long(Box<[u8]>),
}

impl Default for Key {
    fn default() -> Key {
        Key::Short(0, [0; KEY_INLINE])
    }
}

impl Key {
    fn new(bytes: &[u8]) -> Key {
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
    fn bytes(&self) -> &[u8] {
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

    fn insert(&mut self, row: Entry) {
        match self {
            Rows::None => *self = Rows::One(row),
            Rows::One(other) => {
                let rows = if *other <= row { vec![*other, row] } else { vec![row, *other] };
                *self = Rows::Many { rows, start: 0 };
            }
            Rows::Many { rows, start } => match rows.last() {
                Some(last) if *last > row => {
                    let place = *start + rows[*start..].partition_point(|other| *other < row);
                    rows.insert(place, row);
                }
                _ => rows.push(row),
            },
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

/// Takes a hash as its own hash.
#[derive(Default)]
pub(super) struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        let word = bytes.first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
        self.write_u64(word);
    }
    fn write_u64(&mut self, word: u64) {
        self.0 = word;
    }
}

impl Index {
    /// The slot of a key, if it has rows.
    #[inline]
    pub(super) fn find(&self, hash: u64, key: &[u8]) -> Option<u32> {
        let mut slot = *self.heads.get(&hash)?;
        while slot != NONE {
            let found = &self.slots[slot as usize];
            if found.key.bytes() == key {
                return Some(slot);
            }
            slot = found.next;
        }
        None
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

    /// Adds a row; returns the slot of its key.
    pub(super) fn insert(&mut self, hash: u64, key: &[u8], row: Entry) -> u32 {
        let at = self.find(hash, key).unwrap_or_else(|| self.add(hash, key));
        self.slots[at as usize].rows.insert(row);
        at
    }

    fn add(&mut self, hash: u64, key: &[u8]) -> u32 {
        let next = self.heads.get(&hash).copied().unwrap_or(NONE);
        let at = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() as u32 - 1
        });
        assert!(at != NONE, "a join buffers fewer than 2^32 - 1 keys a task");
        let slot = &mut self.slots[at as usize];
        (slot.hash, slot.key, slot.next) = (hash, Key::new(key), next);
        self.heads.insert(hash, at);
        at
    }

    /// Forgets the rows of a slot that are dropped before this time.
    pub(super) fn forget(&mut self, at: u32, before: i64) {
        let rows = &mut self.slots[at as usize].rows;
        let count = rows.all().partition_point(|&(due, _)| due < before);
        if count == 0 {
            return;
        }
        rows.leave_out(count);
        if rows.all().is_empty() {
            self.release(at);
        }
    }

    fn release(&mut self, at: u32) {
        let Slot { hash, next, .. } = std::mem::take(&mut self.slots[at as usize]);
        let head = self.heads.get_mut(&hash).expect("a slot with rows is found by its hash");
        if *head == at && next == NONE {
            self.heads.remove(&hash);
        } else if *head == at {
            *head = next;
        } else {
            let mut before = *head;
            while self.slots[before as usize].next != at {
                before = self.slots[before as usize].next;
            }
            self.slots[before as usize].next = next;
        }
        self.free.push(at);
    }

    /// Gives every row another number.
    pub(super) fn renumber(&mut self, number: impl Fn(u64) -> u64) {
        for slot in &mut self.slots {
            slot.rows.all_mut().iter_mut().for_each(|(_, row)| *row = number(*row));
        }
    }
}
