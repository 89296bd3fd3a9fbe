//! Rows in the state of a step, many to an entry.
//!
//! ```text
//!   (order, number of the run) ──► how many rows u32 │ of each: time i64, behind i64, flags u8, length u32 │ rows, encoded
//! ```
//!
//! Rows that come together and belong to one key group share a run, so that what a row costs is its bytes and not an entry. A
//! run leaves the state as a whole. `docs/format/operator-state.md` draws the bytes.

use arrow::datatypes::SchemaRef;
use mill_frame::hash::{KEY_GROUPS, key_group};
use mill_protocol::{Batch, Error, Result};
use mill_state::{OrderedState, StateBackend};

use crate::accumulator::state_error;
use crate::row_codec::RowCodec;

/// A run ends with the row that makes it longer than this.
const RUN_BYTES: usize = 32 << 10;

/// How many bytes come before the rows for each of them.
const HEAD_BYTES: usize = 21;
/// The row withdraws its key.
const IS_DELETE: u8 = 1;
/// It has an event time.
const HAS_TIME: u8 = 2;
/// It has the watermark that it was read behind.
const HAS_BEHIND: u8 = 4;

/// Rows of one schema in one state.
pub(crate) struct Runs {
    codec: RowCodec,
    state: OrderedState,
    next: u64,
    /// Whether runs leave by the greatest time of their rows; else they stay in the order they came.
    is_timed: bool,
}

/// Rows to be written.
pub(crate) struct Written<'a> {
    pub(crate) batch: &'a Batch,
    /// The hashes of their keys.
    pub(crate) hashes: &'a [u64],
    /// Which rows; all of them if `None`.
    pub(crate) rows: Option<&'a [u32]>,
}

impl Runs {
    pub(crate) fn new(backend: &mut StateBackend, name: &str, schema: &SchemaRef, is_timed: bool) -> Result<Runs> {
        let codec = RowCodec::new(SchemaRef::clone(schema))?;
        let state = backend.ordered(name, &format!("runs of {}", codec.signature()));
        Ok(Runs { codec, state, next: 0, is_timed })
    }

    /// Adds rows.
    pub(crate) fn write(&mut self, backend: &mut StateBackend, written: &Written<'_>) -> Result<()> {
        let Written { batch, hashes, rows } = *written;
        let encoded = self.codec.encode(batch.data().columns())?;
        let all: Vec<u32>;
        let rows = match rows {
            Some(rows) => rows,
            None => {
                all = (0..batch.rows() as u32).collect();
                &all[..]
            }
        };
        let (times, behind, deletes) = (batch.times(), batch.behind(), batch.deletes());
        let flags = if times.is_some() { HAS_TIME } else { 0 } | if behind.is_some() { HAS_BEHIND } else { 0 };
        for rows in by_group(rows, hashes).chunk_by(|&a, &b| group_of(hashes, a) == group_of(hashes, b)) {
            let (mut heads, mut bytes, mut count, mut latest) = (Vec::new(), Vec::new(), 0_u32, i64::MIN);
            for (index, &row) in rows.iter().enumerate() {
                let row = row as usize;
                let data = encoded.row(row).data();
                let time = times.map_or(0, |times| times[row]);
                let length = u32::try_from(data.len()).map_err(|_| Error::data("a row of a join is longer than 4 GiB"))?;
                let is_delete = deletes.is_some_and(|deletes| deletes.value(row));
                heads.extend_from_slice(&time.to_le_bytes());
                heads.extend_from_slice(&behind.map_or(0, |behind| behind[row]).to_le_bytes());
                heads.push(flags | if is_delete { IS_DELETE } else { 0 });
                heads.extend_from_slice(&length.to_le_bytes());
                bytes.extend_from_slice(data);
                count += 1;
                latest = latest.max(time);
                if heads.len() + bytes.len() >= RUN_BYTES || index + 1 == rows.len() {
                    let mut value = Vec::with_capacity(4 + heads.len() + bytes.len());
                    value.extend_from_slice(&count.to_le_bytes());
                    value.append(&mut heads);
                    value.append(&mut bytes);
                    let order = if self.is_timed { latest } else { self.next as i64 };
                    let table = &mut backend[self.state];
                    table.insert(order, hashes[row], &self.next.to_be_bytes(), &value).map_err(state_error)?;
                    self.next += 1;
                    (count, latest) = (0, i64::MIN);
                }
            }
        }
        Ok(())
    }

    /// Removes the runs all of whose rows are before this time.
    pub(crate) fn remove_before(&self, backend: &mut StateBackend, time: i64) {
        if let Some(last) = time.checked_sub(1) {
            while !backend[self.state].pop_until(last, 64).is_empty() {}
        }
    }

    /// Removes all runs.
    pub(crate) fn clear(&self, backend: &mut StateBackend) {
        while !backend[self.state].pop_until(i64::MAX, 64).is_empty() {}
    }

    /// The number of the next run, which is part of a snapshot.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Takes up the number of the next run; the greatest of all instances counts.
    pub(crate) fn restored(&mut self, next: u64) {
        self.next = self.next.max(next);
    }

    /// All rows, those of a key group in the order of their runs. `None` if there are none.
    pub(crate) fn read(&self, backend: &StateBackend) -> Result<Option<Batch>> {
        let table = &backend[self.state];
        let mut read = Read::default();
        for group in table.groups() {
            let mut runs: Vec<(&[u8], &[u8])> = table.range(group, i64::MIN..i64::MAX).map(|run| (run.key, run.value)).collect();
            runs.sort_unstable_by_key(|(number, _)| *number);
            for (_, value) in runs {
                read.run(value).ok_or_else(|| Error::checkpoint("a run of a join's rows is damaged"))?;
            }
        }
        let Read { rows, times, behind, flags } = read;
        if rows.is_empty() {
            return Ok(None);
        }
        let batch = Batch::from(self.codec.decode(rows)?);
        // Where some rows have none, none of them is behind a watermark.
        let behind = flags.iter().any(|flags| flags & HAS_BEHIND != 0).then(|| {
            let behind = behind.iter().zip(&flags).map(|(&behind, flags)| if flags & HAS_BEHIND != 0 { behind } else { i64::MIN });
            behind.collect()
        });
        let has_times = flags.iter().all(|flags| flags & HAS_TIME != 0);
        let deletes = flags.iter().any(|flags| flags & IS_DELETE != 0).then(|| {
            flags.iter().map(|flags| flags & IS_DELETE != 0).collect()
        });
        Ok(Some(batch.with_times(has_times.then(|| times.into())).with_behind(behind).with_deletes(deletes)))
    }
}

/// What has been read of runs.
#[derive(Default)]
struct Read<'a> {
    rows: Vec<&'a [u8]>,
    times: Vec<i64>,
    behind: Vec<i64>,
    flags: Vec<u8>,
}

impl<'a> Read<'a> {
    /// Adds the rows of a run; `None` if it is none.
    fn run(&mut self, value: &'a [u8]) -> Option<()> {
        let (count, rest) = value.split_first_chunk::<4>()?;
        let count = u32::from_le_bytes(*count) as usize;
        let (mut heads, mut bytes) = rest.split_at_checked(count.checked_mul(HEAD_BYTES)?)?;
        while let Some((time, rest)) = heads.split_first_chunk::<8>() {
            let (behind, rest) = rest.split_first_chunk::<8>()?;
            let (flags, rest) = rest.split_first()?;
            let (length, rest) = rest.split_first_chunk::<4>()?;
            let (row, after) = bytes.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            self.times.push(i64::from_le_bytes(*time));
            self.behind.push(i64::from_le_bytes(*behind));
            self.flags.push(*flags);
            self.rows.push(row);
            (heads, bytes) = (rest, after);
        }
        bytes.is_empty().then_some(())
    }
}

fn group_of(hashes: &[u64], row: u32) -> u16 {
    key_group(hashes[row as usize])
}

/// The rows by key group, in their order within each.
fn by_group(rows: &[u32], hashes: &[u64]) -> Vec<u32> {
    let mut starts = [0_usize; KEY_GROUPS as usize + 1];
    for &row in rows {
        starts[group_of(hashes, row) as usize + 1] += 1;
    }
    for group in 0..KEY_GROUPS as usize {
        starts[group + 1] += starts[group];
    }
    let mut sorted = vec![0; rows.len()];
    for &row in rows {
        let start = &mut starts[group_of(hashes, row) as usize];
        sorted[*start] = row;
        *start += 1;
    }
    sorted
}
