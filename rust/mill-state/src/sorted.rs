//! Sorted state: rows in order of a number and the bytes of a key, for timers and whatever else is asked for in order.
//!
//! ```text
//!   key group ──► leaf │ leaf │ leaf │ …       each a few hundred rows, sorted: (order, key) ─► value
//!                   │
//!                   └─ shared with the writer of a checkpoint until it changes again
//!
//!   snapshot of a group:  the log of its changes   Rows      (inserted, removed, the first n taken)
//!                         or all of its rows       Full      (the first time, and where the log would be larger)
//! ```
//!
//! Invariants:
//!
//! - The rows of a group ascend strictly by (order, key), within a leaf and from leaf to leaf. No leaf is empty.
//! - A group that checkpoints hold, with the operations of its log applied in their order, is what the group is now. Of
//!   a group that they do not hold, or whose log has become larger than its rows, there is no log: the next snapshot has
//!   all rows.
//!
//! So memory is in proportion to the rows that are there, the log included, and a snapshot to what changed. Why one block
//! a group and not one a leaf: leaves split and merge, and a log needs no names for them. The store writes everything anew
//! once the changes have come to be as large as what they build on (see `mill-snapshot`), which keeps a chain short.

mod image;
mod leaf;
mod log;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use mill_frame::block::{Block, BlockAddress, BlockKind, Blocks, RestoredBlock};
use mill_frame::hash::KEY_GROUP_BITS;
use xxhash_rust::xxh3::xxh3_64;

use crate::error::{Result, StateError};
pub(crate) use image::VERSION;
use image::RowsImage;
use leaf::{BYTES_MAX, Leaf, ROWS_MAX};
use log::{Change, Log};

/// Below this size a log is never too large.
const LOG_BYTES_MIN: usize = 4 << 10;

/// A row of sorted state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry<'a> {
    /// What rows are sorted by first.
    pub order: i64,
    /// What rows of the same order are sorted by.
    pub key: &'a [u8],
    /// What else the row holds.
    pub value: &'a [u8],
}

/// Sorted rows, each in a key group.
#[derive(Debug)]
pub(crate) struct SortedTable {
    fingerprint: u64,
    state: u16,
    first_group: u16,
    groups: Vec<Group>,
}

/// The rows of one key group.
#[derive(Debug, Default)]
struct Group {
    leaves: VecDeque<Arc<Leaf>>,
    rows: usize,
    /// What changed since the last snapshot; `None` if the next one has all rows.
    log: Option<Log>,
    /// Whether anything changed since the last snapshot.
    is_changed: bool,
    /// The checkpoints so far hold rows of the group.
    is_held: bool,
}

/// A place among the rows of a group.
#[derive(Clone, Copy, Debug)]
struct Place {
    leaf: usize,
    row: usize,
}

impl Group {
    /// The first row of which this does not hold; it holds of no row after such a one.
    fn position(&self, is_before: impl Fn(Entry<'_>) -> bool) -> Place {
        let leaf = self.leaves.partition_point(|leaf| is_before(leaf.entry(leaf.len() - 1)));
        Place { leaf, row: self.leaves.get(leaf).map_or(0, |leaf| leaf.position(is_before)) }
    }

    fn at(&self, place: Place) -> Option<Entry<'_>> {
        self.leaves.get(place.leaf).map(|leaf| leaf.entry(place.row))
    }

    fn next(&self, place: Place) -> Place {
        let is_last = place.row + 1 == self.leaves[place.leaf].len();
        if is_last { Place { leaf: place.leaf + 1, row: 0 } } else { Place { row: place.row + 1, ..place } }
    }

    fn from(&self, mut place: Place) -> impl Iterator<Item = Entry<'_>> {
        std::iter::from_fn(move || {
            let entry = self.at(place)?;
            place = self.next(place);
            Some(entry)
        })
    }

    fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        self.from(Place { leaf: 0, row: 0 })
    }

    /// Adds a row, or replaces the value of the row of this key. Whether it is new.
    fn insert(&mut self, entry: Entry<'_>) -> bool {
        let mut place = self.position(|other| (other.order, other.key) < (entry.order, entry.key));
        if place.leaf == self.leaves.len() {
            // After all rows. Rows that come in their order fill one leaf after the other.
            if self.leaves.back().is_none_or(|leaf| leaf.is_full()) {
                self.leaves.push_back(Arc::default());
            }
            place.leaf = self.leaves.len() - 1;
            place.row = self.leaves[place.leaf].len();
        }
        let leaf = Arc::make_mut(&mut self.leaves[place.leaf]);
        let is_there =
            place.row < leaf.len() && (leaf.entry(place.row).order, leaf.entry(place.row).key) == (entry.order, entry.key);
        if is_there {
            leaf.replace(place.row, entry);
        } else {
            leaf.insert(place.row, entry);
            self.rows += 1;
        }
        if leaf.len() > ROWS_MAX || (leaf.len() > 1 && leaf.live_bytes() > BYTES_MAX) {
            let high = leaf.split();
            self.leaves.insert(place.leaf + 1, Arc::new(high));
        }
        !is_there
    }

    /// Removes a row. Whether it was there.
    fn remove(&mut self, order: i64, key: &[u8]) -> bool {
        let place = self.position(|other| (other.order, other.key) < (order, key));
        if self.at(place).is_none_or(|entry| (entry.order, entry.key) != (order, key)) {
            return false;
        }
        self.remove_rows(place, 1);
        true
    }

    /// Removes the rows of this order whose keys begin like this. How many there were.
    fn remove_prefix(&mut self, order: i64, prefix: &[u8]) -> usize {
        let place = self.position(|other| (other.order, other.key) < (order, prefix));
        let count = self.from(place).take_while(|entry| entry.order == order && entry.key.starts_with(prefix)).count();
        self.remove_rows(place, count);
        count
    }

    /// Removes so many rows from a place on; all of them are there.
    fn remove_rows(&mut self, place: Place, count: usize) {
        let (mut at, mut left) = (place, count);
        while left > 0 {
            let leaf = &mut self.leaves[at.leaf];
            let taken = left.min(leaf.len() - at.row);
            if taken == leaf.len() {
                self.leaves.remove(at.leaf);
            } else {
                Arc::make_mut(leaf).remove(at.row..at.row + taken);
                at = Place { leaf: at.leaf + 1, row: 0 };
            }
            left -= taken;
        }
        self.rows -= count;
        // The leaf that lost rows, or the one that took its place, and the one before it.
        for leaf in [place.leaf, place.leaf.saturating_sub(1)] {
            self.merge(leaf);
        }
    }

    /// Merges a leaf with the one after it if they are small together.
    fn merge(&mut self, leaf: usize) {
        let (Some(low), Some(high)) = (self.leaves.get(leaf), self.leaves.get(leaf + 1)) else { return };
        if low.len() + high.len() > ROWS_MAX / 2 || low.live_bytes() + high.live_bytes() > BYTES_MAX / 2 {
            return;
        }
        if let Some(high) = self.leaves.remove(leaf + 1) {
            Arc::make_mut(&mut self.leaves[leaf]).append(&high);
        }
    }

    /// Notes a change for the next snapshot.
    fn note(&mut self, change: Change<'_>) {
        self.is_changed = true;
        if let Some(log) = &mut self.log {
            log.push(change);
            if log.bytes() > LOG_BYTES_MIN && log.bytes() > self.live_bytes_min() {
                self.log = None;
            }
        }
    }

    /// At least so many bytes its rows take in a checkpoint.
    fn live_bytes_min(&self) -> usize {
        self.rows * image::ROW_HEADER
    }

    fn memory(&self) -> usize {
        self.leaves.iter().map(|leaf| leaf.memory()).sum::<usize>() + self.log.as_ref().map_or(0, Log::memory)
    }

    /// What the next checkpoint is to hold of it.
    fn snapshot(&mut self, address: BlockAddress, fingerprint: u64, is_full: bool) -> Option<Block> {
        let is_changed = std::mem::take(&mut self.is_changed);
        let log = self.log.take();
        let was_held = self.is_held;
        self.is_held = self.rows > 0;
        self.log = (self.is_held).then(Log::default);
        if self.rows == 0 {
            let is_gone = was_held && !is_full;
            return is_gone.then(|| Block { address, kind: BlockKind::Drop, payload: Box::new(Vec::new()) });
        }
        if !is_changed && !is_full {
            return None;
        }
        Some(match log.filter(|_| !is_full && was_held) {
            Some(log) => Block { address, kind: BlockKind::Rows, payload: Box::new(log.into_bytes()) },
            None => {
                let image = RowsImage::new(fingerprint, self.leaves.clone());
                Block { address, kind: BlockKind::Full, payload: Box::new(image) }
            }
        })
    }
}

impl SortedTable {
    /// An empty table; `signature` says in words what its rows mean.
    ///
    /// # Panics
    /// If the key groups are none or more than there are.
    pub(crate) fn new(groups: Range<u16>, state: u16, signature: &str) -> SortedTable {
        assert!(!groups.is_empty() && groups.end <= 1 << KEY_GROUP_BITS, "key groups {groups:?}");
        SortedTable {
            fingerprint: xxh3_64(signature.as_bytes()),
            state,
            first_group: groups.start,
            groups: groups.map(|_| Group::default()).collect(),
        }
    }

    /// Makes it another state of its step, before it is restored.
    pub(crate) fn set_state(&mut self, state: u16) {
        self.state = state;
    }

    /// The key groups that it holds.
    pub(crate) fn groups(&self) -> Range<u16> {
        self.first_group..self.first_group + self.groups.len() as u16
    }

    fn group(&self, group: u16) -> &Group {
        let place = group.checked_sub(self.first_group).map(usize::from).and_then(|place| self.groups.get(place));
        place.unwrap_or_else(|| panic!("key group {group} belongs to another task"))
    }

    fn group_mut(&mut self, group: u16) -> &mut Group {
        let place = group.checked_sub(self.first_group).map(usize::from).and_then(|place| self.groups.get_mut(place));
        place.unwrap_or_else(|| panic!("key group {group} belongs to another task"))
    }

    /// Adds a row, or replaces the value of the row of this key. Whether it is new.
    pub(crate) fn insert(&mut self, group: u16, entry: Entry<'_>) -> bool {
        let group = self.group_mut(group);
        let is_new = group.insert(entry);
        group.note(Change::Insert(entry));
        is_new
    }

    /// Removes a row. Whether it was there.
    pub(crate) fn remove(&mut self, group: u16, order: i64, key: &[u8]) -> bool {
        let group = self.group_mut(group);
        let was_there = group.remove(order, key);
        if was_there {
            group.note(Change::Remove { order, key });
        }
        was_there
    }

    /// Removes the rows of this order whose keys begin like this. How many there were.
    pub(crate) fn remove_prefix(&mut self, group: u16, order: i64, prefix: &[u8]) -> usize {
        let group = self.group_mut(group);
        let count = group.remove_prefix(order, prefix);
        if count > 0 {
            group.note(Change::RemovePrefix { order, prefix });
        }
        count
    }

    /// The rows of a group, in order, from the first that is not before this one.
    pub(crate) fn entries_from<'s>(&'s self, group: u16, order: i64, key: &[u8]) -> impl Iterator<Item = Entry<'s>> + use<'s> {
        let group = self.group(group);
        group.from(group.position(|other| (other.order, other.key) < (order, key)))
    }

    /// The last row of this order whose key begins like this.
    pub(crate) fn last_of(&self, group: u16, order: i64, prefix: &[u8]) -> Option<Entry<'_>> {
        let group = self.group(group);
        let is_of = |entry: Entry<'_>| entry.order == order && entry.key.starts_with(prefix);
        let end = group.position(|other| (other.order, other.key) < (order, prefix) || is_of(other));
        let last = match end {
            Place { leaf: 0, row: 0 } => return None,
            Place { leaf, row: 0 } => Place { leaf: leaf - 1, row: group.leaves[leaf - 1].len() - 1 },
            Place { leaf, row } => Place { leaf, row: row - 1 },
        };
        group.at(last).filter(|&entry| is_of(entry))
    }

    /// The order of the first row.
    pub(crate) fn first(&self) -> Option<i64> {
        self.groups.iter().filter_map(|group| group.entries().next()).map(|entry| entry.order).min()
    }

    /// Takes rows out up to this order, this one included, `rows_max` of them at most; the first first.
    pub(crate) fn pop_until(&mut self, order: i64, rows_max: usize, mut taken: impl FnMut(u16, Entry<'_>)) -> usize {
        let mut counts = vec![0; self.groups.len()];
        let mut heads = BinaryHeap::with_capacity(self.groups.len());
        for (index, group) in self.groups.iter().enumerate() {
            let place = Place { leaf: 0, row: 0 };
            let first = group.at(place).filter(|entry| entry.order <= order);
            heads.extend(first.map(|entry| Reverse((entry, index, place.leaf, place.row))));
        }
        let mut count = 0;
        while count < rows_max {
            let Some(mut head) = heads.peek_mut() else { break };
            let Reverse((entry, index, leaf, row)) = *head;
            taken(self.first_group + index as u16, entry);
            count += 1;
            counts[index] += 1;
            let next = self.groups[index].next(Place { leaf, row });
            match self.groups[index].at(next).filter(|entry| entry.order <= order) {
                Some(entry) => *head = Reverse((entry, index, next.leaf, next.row)),
                None => drop(std::collections::binary_heap::PeekMut::pop(head)),
            }
        }
        drop(heads);
        for (group, count) in self.groups.iter_mut().zip(counts).filter(|(_, count)| *count > 0) {
            group.remove_rows(Place { leaf: 0, row: 0 }, count);
            group.note(Change::TakeFirst(count as u64));
        }
        count
    }

    /// How many rows there are.
    pub(crate) fn len(&self) -> usize {
        self.groups.iter().map(|group| group.rows).sum()
    }

    /// About how many bytes of memory it takes.
    pub(crate) fn memory(&self) -> usize {
        self.groups.iter().map(|group| group.memory() + size_of::<Group>()).sum()
    }

    /// Returns what changed since the last snapshot (or everything), to be made blocks of.
    pub(crate) fn snapshot(&mut self, is_full: bool, out: &mut Blocks) {
        let (state, fingerprint) = (self.state, self.fingerprint);
        for (number, group) in (self.first_group..).zip(&mut self.groups) {
            let address = BlockAddress { state, namespace: 0, group: number, chunk: 0 };
            if let Some(block) = group.snapshot(address, fingerprint, is_full) {
                out.push(block);
            }
        }
    }

    /// Takes up the rows that these blocks leave, oldest first, in place of those that are there. Blocks of other states
    /// and of key groups that the table does not hold are skipped.
    pub(crate) fn restore<'b>(&mut self, blocks: impl IntoIterator<Item = &'b RestoredBlock>) -> Result<()> {
        self.groups.iter_mut().for_each(|group| *group = Group::default());
        let Range { start: first, end } = self.groups();
        for block in blocks {
            let BlockAddress { state, group: number, chunk, .. } = block.address;
            if state != self.state {
                continue;
            }
            if block.kind == BlockKind::DropTable {
                self.groups.iter_mut().for_each(|group| *group = Group::default());
                continue;
            }
            if !(first..end).contains(&number) {
                continue;
            }
            let damaged = |what: String| StateError::Damaged { group: number, chunk, what };
            let group = &mut self.groups[usize::from(number - first)];
            match block.kind {
                BlockKind::Full => {
                    *group = Group { is_held: true, ..Group::default() };
                    let entries = image::parse(&block.bytes, self.fingerprint)?.map_err(damaged)?;
                    entries.into_iter().for_each(|entry| _ = group.insert(entry));
                }
                BlockKind::Rows if !group.is_held => {
                    return Err(damaged("rows of it changed, but it is not there".to_owned()));
                }
                BlockKind::Rows => log::apply(&block.bytes, group)?.map_err(damaged)?,
                BlockKind::Drop | BlockKind::DropTable => *group = Group::default(),
            }
        }
        for group in &mut self.groups {
            group.log = group.is_held.then(Log::default);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
