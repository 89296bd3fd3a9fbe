//! The rows that a regular join keeps of both sides.
//!
//! ```text
//!   "left", "right"   entries per key   join key, identity of the row ──► time, last use, due, mark, row
//!   "dues"            in order of time  when to look at a row again, its side, join key and identity
//! ```
//!
//! Each kept row has one due, which is not moved when the row is used: once it has come, the row is dropped, or has a later due
//! if it was used meanwhile. So a row that is used often is written once a use, and its due once a TTL.

use mill_frame::hash::KEY_GROUPS;
use mill_protocol::{Error, Restored, Result, Snapshot, TaskContext};
use mill_state::{KeyBatch, MapEntry, MultiMapState, OrderedState, StateBackend};

use crate::accumulator::state_error;
use crate::row_codec::RowCodec;

/// What comes before a row: event time, last use and due as i64, and the mark.
const HEAD_BYTES: usize = 25;

/// A kept row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row<'a> {
    /// Its event time; 0 without one.
    pub(super) time: i64,
    /// When it was last used.
    pub(super) last: i64,
    /// Whether it is in the result by itself.
    pub(super) is_single: bool,
    /// Its columns.
    pub(super) bytes: &'a [u8],
}

/// The rows of both sides.
pub(super) struct Kept {
    backend: StateBackend,
    maps: [MultiMapState; 2],
    dues: OrderedState,
    groups: std::ops::Range<u16>,
    ttl_us: Option<i64>,
    value: Vec<u8>,
    due: Vec<u8>,
}

/// Rows of one key, copied.
#[derive(Default)]
pub(super) struct Copied {
    bytes: Vec<u8>,
    /// Of each row: where its entry key and its value end.
    ends: Vec<(usize, usize)>,
}

/// A row with its entry key.
pub(super) struct Partner<'a> {
    pub(super) entry: &'a [u8],
    pub(super) row: Row<'a>,
}

/// Partners of a record.
pub(super) struct Partners {
    pub(super) rows: Copied,
    /// Whether there are no more.
    pub(super) is_end: bool,
}

/// How far a walk over all rows has come.
#[derive(Debug, Default)]
pub(super) struct Walk {
    side: usize,
    group: u16,
    key: Option<(u64, Vec<u8>)>,
    entry: Option<Vec<u8>>,
}

fn row_of(value: &[u8]) -> Option<(Row<'_>, i64)> {
    let (head, bytes) = value.split_first_chunk::<HEAD_BYTES>()?;
    let word = |at: usize| head[at..].first_chunk().map(|bytes| i64::from_le_bytes(*bytes));
    let row = Row { time: word(0)?, last: word(8)?, is_single: head[24] != 0, bytes };
    Some((row, word(16)?))
}

impl Copied {
    fn push(&mut self, entry: MapEntry<'_>) {
        self.bytes.extend_from_slice(entry.key);
        let middle = self.bytes.len();
        self.bytes.extend_from_slice(entry.value);
        self.ends.push((middle, self.bytes.len()));
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Partner<'_>> {
        let starts = std::iter::once(0).chain(self.ends.iter().map(|&(_, end)| end));
        self.ends.iter().zip(starts).filter_map(|(&(middle, end), start)| {
            let (row, _) = row_of(&self.bytes[middle..end])?;
            Some(Partner { entry: &self.bytes[start..middle], row })
        })
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn last_entry(&self) -> Option<&[u8]> {
        self.iter().last().map(|partner| partner.entry)
    }
}

impl Kept {
    pub(super) fn new(context: &TaskContext, codecs: [&RowCodec; 2], ttl_us: Option<i64>) -> Kept {
        let mut backend = StateBackend::new(context.groups.clone(), context.is_persistent);
        let maps = [("left", codecs[0]), ("right", codecs[1])]
            .map(|(name, codec)| backend.multimap(name, &format!("rows of a regular join 1: {}", codec.signature())));
        let dues = backend.ordered("dues", "rows of a regular join to be looked at");
        Kept { backend, maps, dues, groups: context.groups.clone(), ttl_us, value: Vec::new(), due: Vec::new() }
    }

    /// Whether a row that was last used then is there at this time, for a record that would be there then: by event time either
    /// may be the earlier one.
    fn is_there(&self, last: i64, at: i64) -> bool {
        self.ttl_us.is_none_or(|ttl| at < last.saturating_add(ttl) && last < at.saturating_add(ttl))
    }

    /// A row that is there at this time.
    pub(super) fn get(&self, side: usize, hash: u64, key: &[u8], entry: &[u8], at: i64) -> Option<Row<'_>> {
        let (row, _) = row_of(self.backend[self.maps[side]].get(hash, key, entry)?)?;
        self.is_there(row.last, at).then_some(row)
    }

    /// Whether a side has a row of this key at this time.
    pub(super) fn has_any(&self, side: usize, hash: u64, key: &[u8], at: i64) -> bool {
        let mut entries = self.backend[self.maps[side]].entries(hash, key);
        entries.any(|entry| row_of(entry.value).is_some_and(|(row, _)| self.is_there(row.last, at)))
    }

    /// Whether a side has another row of this key at this time.
    pub(super) fn has_other(&self, side: usize, hash: u64, key: &[u8], entry: &[u8], at: i64) -> bool {
        let mut others = self.backend[self.maps[side]].entries(hash, key).filter(|other| other.key != entry);
        others.any(|entry| row_of(entry.value).is_some_and(|(row, _)| self.is_there(row.last, at)))
    }

    /// The rows of a key that are there at this time, after this entry, `rows_max` at most.
    pub(super) fn partners(
        &self,
        side: usize,
        hash: u64,
        key: &[u8],
        after: Option<&[u8]>,
        at: i64,
        rows_max: usize,
    ) -> Partners {
        let mut rows = Copied::default();
        let found = self.backend[self.maps[side]].entries_from(hash, key, after.unwrap_or_default());
        for entry in found.filter(|entry| after != Some(entry.key)) {
            if !row_of(entry.value).is_some_and(|(row, _)| self.is_there(row.last, at)) {
                continue;
            }
            if rows.ends.len() == rows_max {
                return Partners { rows, is_end: false };
            }
            rows.push(entry);
        }
        Partners { rows, is_end: true }
    }

    /// Keeps a row, in place of the one of this identity if there is one.
    pub(super) fn set(&mut self, side: usize, hash: u64, key: &[u8], entry: &[u8], row: &Row<'_>) -> Result<()> {
        let known = match self.ttl_us {
            Some(_) => self.backend[self.maps[side]].get(hash, key, entry).and_then(row_of).map(|(_, due)| due),
            None => None,
        };
        let due = known.unwrap_or_else(|| row.last.saturating_add(self.ttl_us.unwrap_or(i64::MAX)));
        self.write(side, hash, key, entry, row, due)?;
        if self.ttl_us.is_some() && known.is_none() {
            due_key(&mut self.due, side, key, entry);
            self.backend[self.dues].insert(due, hash, &self.due, b"").map_err(state_error)?;
        }
        Ok(())
    }

    fn write(&mut self, side: usize, hash: u64, key: &[u8], entry: &[u8], row: &Row<'_>, due: i64) -> Result<()> {
        self.value.clear();
        for word in [row.time, row.last, due] {
            self.value.extend_from_slice(&word.to_le_bytes());
        }
        self.value.push(u8::from(row.is_single));
        self.value.extend_from_slice(row.bytes);
        self.backend[self.maps[side]].insert(hash, key, entry, &self.value).map_err(state_error)?;
        Ok(())
    }

    /// Removes a row.
    pub(super) fn remove(&mut self, side: usize, hash: u64, key: &[u8], entry: &[u8]) {
        let found = self.backend[self.maps[side]].get(hash, key, entry).and_then(row_of);
        if let Some((_, due)) = found
            && self.ttl_us.is_some()
        {
            due_key(&mut self.due, side, key, entry);
            self.backend[self.dues].remove(due, hash, &self.due);
        }
        self.backend[self.maps[side]].remove(hash, key, entry);
    }

    /// Drops rows that are no longer there at this time; whether there may be more.
    pub(super) fn drop_unused(&mut self, at: i64, rows_max: usize) -> Result<bool> {
        let damaged = || Error::checkpoint("the state of a join is damaged: what is due names no row");
        let due = self.backend[self.dues].pop_until(at, rows_max);
        for named in due.iter() {
            let (side, key, entry) = named_row(named.key).ok_or_else(damaged)?;
            let hash = KeyBatch::hash_of(key).ok_or_else(damaged)?;
            let Some((row, _)) = self.backend[self.maps[side]].get(hash, key, entry).and_then(row_of) else { continue };
            let due = row.last.saturating_add(self.ttl_us.unwrap_or(i64::MAX));
            if due <= at {
                self.backend[self.maps[side]].remove(hash, key, entry);
                continue;
            }
            let (bytes, row) = (row.bytes.to_vec(), Row { bytes: &[], ..row });
            self.write(side, hash, key, entry, &Row { bytes: &bytes, ..row }, due)?;
            self.backend[self.dues].insert(due, hash, named.key, b"").map_err(state_error)?;
        }
        Ok(due.len() == rows_max)
    }

    /// When a row is to be looked at next.
    pub(super) fn first_due(&self) -> Option<i64> {
        self.backend[self.dues].first_time().filter(|_| self.ttl_us.is_some())
    }

    /// Some of the rows of a side, of a walk over all rows of both; `None` at its end.
    pub(super) fn walk(&self, walk: &mut Walk, rows_max: usize) -> Option<(usize, Vec<Row<'_>>)> {
        let mut rows = Vec::new();
        while walk.side < self.maps.len() {
            let map = &self.backend[self.maps[walk.side]];
            walk.group = walk.group.max(self.groups.start);
            while walk.group < self.groups.end.min(KEY_GROUPS) {
                if walk.entry.is_none() {
                    let after = walk.key.as_ref().map(|(hash, key)| (*hash, &key[..]));
                    let Some((hash, key)) = map.next_key(walk.group, after) else {
                        walk.group += 1;
                        walk.key = None;
                        continue;
                    };
                    walk.key = Some((hash, key.to_vec()));
                }
                let Some((hash, key)) = &walk.key else { break };
                let after = walk.entry.take();
                let entries = map.entries_from(*hash, key, after.as_deref().unwrap_or_default());
                for entry in entries.filter(|entry| after.as_deref() != Some(entry.key)) {
                    rows.extend(row_of(entry.value).map(|(row, _)| row));
                    if rows.len() == rows_max {
                        walk.entry = Some(entry.key.to_vec());
                        return Some((walk.side, rows));
                    }
                }
            }
            let side = walk.side;
            *walk = Walk { side: side + 1, ..Walk::default() };
            if !rows.is_empty() {
                return Some((side, rows));
            }
        }
        None
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

fn named_row(bytes: &[u8]) -> Option<(usize, &[u8], &[u8])> {
    let (&side, rest) = bytes.split_first()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (key, entry) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    (side < 2).then_some((usize::from(side), key, entry))
}
