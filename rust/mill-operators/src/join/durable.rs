//! The buffered rows of both sides as a checkpoint keeps them.
//!
//! ```text
//!   "left", "right"                  (when it is dropped, number) → time, whether it had a partner, key, row
//!   "left matched", "right matched"  (when it is dropped, number) → of rows that found a partner after they were kept
//! ```
//!
//! Rows are in Arrow's row encoding, encoded and decoded a batch at a time. They are sorted by the time when they are dropped,
//! so dropping them is one entry in the log of changes, however many they are.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use mill_frame::block::RestoredBlock;
use mill_protocol::{Error, Result, Snapshot, TaskContext};
use mill_state::{KeyBatch, OrderedState, StateBackend};

use crate::accumulator::state_error;
use crate::row_codec::RowCodec;

/// Rows that are taken out of a table at a time.
const DROP_ROWS: usize = 16_384;
/// What comes before the key: time, whether there was a partner, the length of the key.
const HEADER: usize = 8 + 1 + 4;

/// Where rows are kept in checkpoints.
pub(super) struct Durable {
    backend: StateBackend,
    rows: [OrderedState; 2],
    matched: [OrderedState; 2],
    codecs: [Option<RowCodec>; 2],
    /// The number of the next row.
    next: u64,
}

/// Rows to be kept.
pub(super) struct NewRows<'a> {
    pub(super) columns: &'a [ArrayRef],
    pub(super) hashes: &'a [u64],
    pub(super) times: &'a [i64],
    pub(super) dues: &'a [i64],
    pub(super) is_matched: &'a [bool],
}

/// A row as it was kept.
pub(super) struct KeptRow<'a> {
    pub(super) number: u64,
    pub(super) time: i64,
    pub(super) due: i64,
    pub(super) is_matched: bool,
    pub(super) key: &'a [u8],
    row: &'a [u8],
}

impl Durable {
    /// Nothing yet; `schemas` are the columns of each side that are kept.
    pub(super) fn new(schemas: [&SchemaRef; 2], context: &TaskContext) -> Result<Durable> {
        let mut backend = StateBackend::new(context.groups.clone(), context.is_persistent);
        let codec = |schema: &SchemaRef| match schema.fields().is_empty() {
            true => Ok(None),
            false => RowCodec::new(SchemaRef::clone(schema)).map(Some),
        };
        let codecs = [codec(schemas[0])?, codec(schemas[1])?];
        let columns = |side: usize| codecs[side].as_ref().map(RowCodec::signature).unwrap_or_default();
        let rows = [0, 1].map(|side| {
            backend.ordered(["left", "right"][side], &format!("number, time, partner, key and row of {}", columns(side)))
        });
        let matched = [0, 1].map(|side| backend.ordered(["left matched", "right matched"][side], "number"));
        Ok(Durable { backend, rows, matched, codecs, next: 0 })
    }

    /// Keeps rows of a side; `key` returns the bytes of each key. Returns the number of the first, the others follow.
    pub(super) fn insert<'k>(&mut self, side: usize, new: &NewRows<'_>, key: impl Fn(usize) -> &'k [u8]) -> Result<u64> {
        let encoded = self.codecs[side].as_ref().map(|codec| codec.encode(new.columns)).transpose()?;
        let first = self.next;
        let table = &mut self.backend[self.rows[side]];
        let mut value = Vec::new();
        for (row, &due) in new.dues.iter().enumerate() {
            let key = key(row);
            value.clear();
            value.extend_from_slice(&new.times[row].to_le_bytes());
            value.push(u8::from(new.is_matched[row]));
            value.extend_from_slice(&(key.len() as u32).to_le_bytes());
            value.extend_from_slice(key);
            if let Some(encoded) = &encoded {
                value.extend_from_slice(encoded.row(row).data());
            }
            let number = self.next.to_be_bytes();
            table.insert(due, new.hashes[row], &number, &value).map_err(state_error)?;
            self.next += 1;
        }
        Ok(first)
    }

    /// A row has found a partner.
    pub(super) fn set_matched(&mut self, side: usize, due: i64, hash: u64, number: u64) -> Result<()> {
        let table = &mut self.backend[self.matched[side]];
        table.insert(due, hash, &number.to_be_bytes(), &[]).map(drop).map_err(state_error)
    }

    /// Drops the rows of a side that are due before this time.
    pub(super) fn drop_before(&mut self, side: usize, before: i64) {
        let Some(last) = before.checked_sub(1) else { return };
        for state in [self.rows[side], self.matched[side]] {
            while self.backend[state].pop_until(last, DROP_ROWS).len() == DROP_ROWS {}
        }
    }

    /// Removes a row of a side.
    pub(super) fn remove(&mut self, side: usize, due: i64, hash: u64, number: u64) {
        self.backend[self.rows[side]].remove(due, hash, &number.to_be_bytes());
    }

    /// Writes what is needed beside the blocks.
    pub(super) fn snapshot(&mut self, snapshot: &mut Snapshot, bytes: &mut Vec<u8>) {
        let description = self.backend.snapshot(snapshot.is_full, &mut snapshot.blocks);
        bytes.extend_from_slice(&self.next.to_le_bytes());
        bytes.extend_from_slice(&description);
    }

    /// Takes up what snapshots have written.
    pub(super) fn restore(&mut self, parts: &[&[u8]], blocks: &[RestoredBlock]) -> Result<()> {
        let mut descriptions = Vec::with_capacity(parts.len());
        for part in parts {
            let (next, description) = part.split_first_chunk::<8>().ok_or_else(|| damaged("it ends too early"))?;
            self.next = self.next.max(u64::from_le_bytes(*next));
            descriptions.push(description);
        }
        self.backend.restore(&descriptions, blocks).map_err(state_error)
    }

    /// All rows of a side, a batch at a time.
    pub(super) fn for_each(
        &self,
        side: usize,
        rows_max: usize,
        mut take: impl FnMut(&[KeptRow<'_>], Option<RecordBatch>) -> Result<()>,
    ) -> Result<()> {
        let (table, matched) = (&self.backend[self.rows[side]], &self.backend[self.matched[side]]);
        let mut rows: Vec<KeptRow<'_>> = Vec::new();
        let mut flush = |rows: &mut Vec<KeptRow<'_>>| {
            let codec = self.codecs[side].as_ref();
            let data = codec.map(|codec| codec.decode(rows.iter().map(|row| row.row))).transpose()?;
            take(&rows[..], data)?;
            rows.clear();
            Ok::<(), Error>(())
        };
        for group in table.groups() {
            for row in table.range(group, i64::MIN..i64::MAX) {
                let number = row.key.first_chunk().ok_or_else(|| damaged("a row has no number"))?;
                let (header, rest) = row.value.split_at_checked(HEADER).ok_or_else(|| damaged("a row ends too early"))?;
                let word = |at: usize| header[at..].first_chunk().copied().unwrap_or_default();
                let length = u32::from_le_bytes(header[9..].first_chunk().copied().unwrap_or_default()) as usize;
                let (key, bytes) = rest.split_at_checked(length).ok_or_else(|| damaged("a key ends too early"))?;
                let hash = KeyBatch::hash_of(key).ok_or_else(|| damaged("a key has no hash"))?;
                rows.push(KeptRow {
                    number: u64::from_be_bytes(*number),
                    time: i64::from_le_bytes(word(0)),
                    due: row.time,
                    is_matched: header[8] != 0 || matched.get(row.time, hash, row.key).is_some(),
                    key,
                    row: bytes,
                });
                if rows.len() == rows_max {
                    flush(&mut rows)?;
                }
            }
        }
        if rows.is_empty() { Ok(()) } else { flush(&mut rows) }
    }
}

fn damaged(what: &str) -> Error {
    Error::checkpoint(format!("the state of a join is damaged: {what}"))
}
