//! The rows of both sides as a checkpoint keeps them.
//!
//! ```text
//!   "left", "right"   entries per key   join key, identity of the row ──► time, last use, due, mark, row
//!   "dues"            in order of time  when to look at a row again, its side, join key and identity
//! ```
//!
//! Each row has one due, which is not moved when the row is used: once it has come, the row is dropped, or has a later due
//! if it was used meanwhile. So a row that is used often is written once a checkpoint, and its due once a TTL.

use mill_protocol::{Error, Restored, Result, Snapshot, TaskContext};
use mill_state::{KeyBatch, MultiMapState, OrderedState, StateBackend};

use super::rows::Row;
use crate::accumulator::state_error;
use crate::row_codec::RowCodec;

/// What comes before a row: event time, last use and due as i64, and the mark.
const HEAD_BYTES: usize = 25;

/// Where rows are kept in checkpoints.
pub(super) struct Durable {
    backend: StateBackend,
    maps: [MultiMapState; 2],
    dues: OrderedState,
    has_age: bool,
    value: Vec<u8>,
    due: Vec<u8>,
}

/// What a row is found by: the hash and bytes of its join key, and the bytes of its identity.
#[derive(Clone, Copy, Debug)]
pub(super) struct Name<'a> {
    pub(super) hash: u64,
    pub(super) key: &'a [u8],
    pub(super) entry: &'a [u8],
}

/// A row as it was kept.
pub(super) struct KeptRow<'a> {
    pub(super) name: Name<'a>,
    pub(super) row: Row,
    /// Its columns.
    pub(super) bytes: &'a [u8],
}

fn row_of(value: &[u8]) -> Option<(Row, &[u8])> {
    let (head, bytes) = value.split_first_chunk::<HEAD_BYTES>()?;
    let word = |at: usize| head[at..].first_chunk().map(|bytes| i64::from_le_bytes(*bytes));
    Some((Row { time: word(0)?, last: word(8)?, due: word(16)?, is_single: head[24] != 0 }, bytes))
}

impl Durable {
    /// Nothing yet; `has_age`: rows have a due.
    pub(super) fn new(context: &TaskContext, codecs: [&RowCodec; 2], has_age: bool) -> Durable {
        let mut backend = StateBackend::new(context.groups.clone(), context.is_persistent);
        let maps = [("left", codecs[0]), ("right", codecs[1])]
            .map(|(name, codec)| backend.multimap(name, &format!("rows of a regular join 1: {}", codec.signature())));
        let dues = backend.ordered("dues", "rows of a regular join to be looked at");
        Durable { backend, maps, dues, has_age, value: Vec::new(), due: Vec::new() }
    }

    /// Writes a row, in place of the one of this identity if there is one, and its due unless that has been written.
    pub(super) fn write(&mut self, side: usize, name: Name<'_>, row: &Row, bytes: &[u8], has_due: bool) -> Result<()> {
        let Name { hash, key, entry } = name;
        self.value.clear();
        for word in [row.time, row.last, row.due] {
            self.value.extend_from_slice(&word.to_le_bytes());
        }
        self.value.push(u8::from(row.is_single));
        self.value.extend_from_slice(bytes);
        self.backend[self.maps[side]].insert(hash, key, entry, &self.value).map_err(state_error)?;
        if self.has_age && !has_due {
            due_key(&mut self.due, side, key, entry);
            self.backend[self.dues].insert(row.due, hash, &self.due, b"").map_err(state_error)?;
        }
        Ok(())
    }

    /// Removes a row with this due.
    pub(super) fn remove(&mut self, side: usize, name: Name<'_>, due: i64) {
        self.remove_due(side, name, due);
        self.backend[self.maps[side]].remove(name.hash, name.key, name.entry);
    }

    /// Removes the due of a row, which is written with another one afterwards.
    pub(super) fn remove_due(&mut self, side: usize, name: Name<'_>, due: i64) {
        if self.has_age {
            due_key(&mut self.due, side, name.key, name.entry);
            self.backend[self.dues].remove(due, name.hash, &self.due);
        }
    }

    /// All rows of a side, some at a time.
    pub(super) fn for_each(
        &self,
        side: usize,
        rows_max: usize,
        mut take: impl FnMut(&[KeptRow<'_>]) -> Result<()>,
    ) -> Result<()> {
        let damaged = || Error::checkpoint("the state of a join is damaged: a row ends too early");
        let map = &self.backend[self.maps[side]];
        let mut rows = Vec::new();
        for group in map.groups() {
            let mut after: Option<(u64, &[u8])> = None;
            while let Some((hash, key)) = map.next_key(group, after) {
                if KeyBatch::hash_of(key) != Some(hash) {
                    return Err(damaged());
                }
                for found in map.entries(hash, key) {
                    let (row, bytes) = row_of(found.value).ok_or_else(damaged)?;
                    rows.push(KeptRow { name: Name { hash, key, entry: found.key }, row, bytes });
                    if rows.len() == rows_max {
                        take(&rows)?;
                        rows.clear();
                    }
                }
                after = Some((hash, key));
            }
        }
        if rows.is_empty() { Ok(()) } else { take(&rows) }
    }

    /// Hands over what has changed; the description of the states.
    pub(super) fn snapshot(&mut self, snapshot: &mut Snapshot) -> Vec<u8> {
        self.backend.snapshot(snapshot.is_full, &mut snapshot.blocks)
    }

    pub(super) fn restore(&mut self, states: &[&[u8]], restored: &Restored) -> Result<()> {
        self.backend.restore(states, &restored.blocks).map_err(state_error)
    }

    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.backend.memory()
    }
}

/// What names a row in the order of dues: its side, its join key and its identity.
fn due_key(out: &mut Vec<u8>, side: usize, key: &[u8], entry: &[u8]) {
    out.clear();
    out.push(side as u8);
    out.extend_from_slice(&(key.len() as u32).to_be_bytes());
    out.extend_from_slice(key);
    out.extend_from_slice(entry);
}
