//! Several entries per key, in order: list state and map state.

use std::ops::Range;

use mill_frame::block::{Blocks, RestoredBlock};
use mill_frame::hash::key_group;

use crate::error::Result;
use crate::ordered::check_length;
use crate::sorted::{Entry, SortedTable};

/// A table of entries (key, entry key) → value; the entries of a key are sorted by the bytes of their entry keys.
///
/// Numbers sort as they should if they are entry keys in big-endian bytes, signed ones with their sign bit flipped.
///
/// # Examples
/// ```
/// use mill_state::MultiMap;
///
/// let mut carts = MultiMap::new(0..128, 0, "carts");
/// carts.insert(7, b"ann", b"pear", b"2")?;
/// carts.insert(7, b"ann", b"apple", b"1")?;
/// carts.push(9, b"bob", b"the first")?;
/// let of_ann: Vec<_> = carts.entries(7, b"ann").map(|entry| (entry.key, entry.value)).collect();
/// assert_eq!(of_ann, [(&b"apple"[..], &b"1"[..]), (&b"pear"[..], &b"2"[..])]);
/// assert_eq!(carts.remove_all(7, b"ann"), 2);
/// # Ok::<(), mill_state::StateError>(())
/// ```
#[derive(Debug)]
pub struct MultiMap {
    // A row's order is the hash of its key, so that few comparisons get as far as the bytes; its key is `row_key`.
    rows: SortedTable,
    room: Vec<u8>,
}

/// An entry of a [`MultiMap`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapEntry<'a> {
    /// The entry key, which is its place among the entries of its key.
    pub key: &'a [u8],
    /// The value.
    pub value: &'a [u8],
}

/// The key of a row: the length of the key, the key, the entry key. The entries of a key lie side by side.
fn row_key(room: &mut Vec<u8>, key: &[u8], entry: &[u8]) {
    room.clear();
    room.extend((key.len() as u32).to_be_bytes());
    room.extend(key);
    room.extend(entry);
}

impl MultiMap {
    /// An empty map of these key groups, which is this state of its step; `signature` says in words what its entries mean.
    ///
    /// # Panics
    /// If the key groups are none or more than there are.
    pub fn new(groups: Range<u16>, state: u16, signature: &str) -> MultiMap {
        MultiMap { rows: SortedTable::new(groups, state, &format!("multimap: {signature}")), room: Vec::new() }
    }

    /// Makes it another state of its step, before it is restored.
    pub(crate) fn set_state(&mut self, state: u16) {
        self.rows.set_state(state);
    }

    /// Adds an entry, or replaces the value of the entry of this key. Whether it is new.
    ///
    /// # Errors
    /// When key, entry key and value together are longer than a gibibyte.
    ///
    /// # Panics
    /// If the hash belongs to a key group that the map does not hold; so do the others that take one.
    pub fn insert(&mut self, hash: u64, key: &[u8], entry: &[u8], value: &[u8]) -> Result<bool> {
        check_length(key.len().saturating_add(entry.len()).saturating_add(value.len()))?;
        row_key(&mut self.room, key, entry);
        Ok(self.rows.insert(key_group(hash), Entry { order: hash as i64, key: &self.room, value }))
    }

    /// Adds a value after all others of the key, for a list: its entry key is one more than the last, as a u64 in
    /// big-endian bytes. Use it on keys alone whose entries all came this way.
    ///
    /// # Errors
    /// When key and value together are longer than a gibibyte.
    pub fn push(&mut self, hash: u64, key: &[u8], value: &[u8]) -> Result<()> {
        check_length(key.len().saturating_add(value.len()))?;
        row_key(&mut self.room, key, b"");
        let last = self.rows.last_of(key_group(hash), hash as i64, &self.room);
        let number = |entry: &[u8]| entry.last_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        let next = last.map_or(0, |last| number(last.key) + 1);
        self.room.extend(next.to_be_bytes());
        self.rows.insert(key_group(hash), Entry { order: hash as i64, key: &self.room, value });
        Ok(())
    }

    /// Removes an entry. Whether it was there.
    pub fn remove(&mut self, hash: u64, key: &[u8], entry: &[u8]) -> bool {
        row_key(&mut self.room, key, entry);
        self.rows.remove(key_group(hash), hash as i64, &self.room)
    }

    /// Removes all entries of a key. How many there were.
    pub fn remove_all(&mut self, hash: u64, key: &[u8]) -> usize {
        row_key(&mut self.room, key, b"");
        self.rows.remove_prefix(key_group(hash), hash as i64, &self.room)
    }

    /// The value of an entry, if it is there.
    pub fn get(&self, hash: u64, key: &[u8], entry: &[u8]) -> Option<&[u8]> {
        self.entries_from(hash, key, entry).next().filter(|found| found.key == entry).map(|found| found.value)
    }

    /// The entries of a key, in order.
    pub fn entries<'s>(&'s self, hash: u64, key: &[u8]) -> impl Iterator<Item = MapEntry<'s>> + use<'s> {
        self.entries_from(hash, key, b"")
    }

    /// The entries of a key, in order, from the first whose entry key is not less than this.
    pub fn entries_from<'s>(
        &'s self,
        hash: u64,
        key: &[u8],
        entry: &[u8],
    ) -> impl Iterator<Item = MapEntry<'s>> + use<'s> {
        let mut from = Vec::new();
        row_key(&mut from, key, entry);
        let found = self.rows.entries_from(key_group(hash), hash as i64, &from);
        from.truncate(size_of::<u32>() + key.len());
        let start = from.len();
        let of_key = found.take_while(move |row| row.order == hash as i64 && row.key.starts_with(&from));
        of_key.map(move |row| MapEntry { key: &row.key[start..], value: row.value })
    }

    /// The first key of a key group that is not before this one, in an order of the map's own, with its hash: what a walk
    /// over all keys asks for. `None` starts at the beginning.
    pub fn next_key(&self, group: u16, after: Option<(u64, &[u8])>) -> Option<(u64, &[u8])> {
        let key_of = |row: Entry<'_>| {
            let length = u32::from_be_bytes(*row.key.first_chunk()?) as usize;
            Some(length + size_of::<u32>())
        };
        let row = match after {
            None => self.rows.entries_from(group, i64::MIN, b"").next()?,
            Some((hash, key)) => {
                let mut from = Vec::new();
                row_key(&mut from, key, b"");
                let mut later = self.rows.entries_from(group, hash as i64, &from);
                later.find(|row| row.order != hash as i64 || !row.key.starts_with(&from))?
            }
        };
        let end = key_of(row)?;
        Some((row.order as u64, &row.key[size_of::<u32>()..end]))
    }

    /// The key groups that the map holds.
    pub fn groups(&self) -> Range<u16> {
        self.rows.groups()
    }

    /// How many entries all keys have.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// About how many bytes of memory it takes.
    pub fn memory(&self) -> usize {
        self.rows.memory()
    }

    /// Returns what changed since the last snapshot (or everything), to be made blocks of.
    pub fn snapshot(&mut self, is_full: bool, out: &mut Blocks) {
        self.rows.snapshot(is_full, out);
    }

    /// Takes up the entries that these blocks leave, oldest first, in place of those that are there. Blocks of other states
    /// and of key groups that the map does not hold are skipped.
    ///
    /// # Errors
    /// When blocks are of entries that mean something else, or contradict each other or themselves.
    pub fn restore<'b>(&mut self, blocks: impl IntoIterator<Item = &'b RestoredBlock>) -> Result<()> {
        self.rows.restore(blocks)
    }
}
