//! Windows with few records each, in one table.
//!
//! ```text
//!   (key, window) ─► row          one table for all of them
//!   window ─► its keys            so that a window's rows are found when it fires
//! ```
//!
//! A table of its own is right for a window that gets many records. Where the records of a frame are scattered over many
//! windows, most windows have few rows, and what a table costs would be paid for each of them. Then the window is a part of the
//! key. A window is in one of the two forms from its first record on.

use std::collections::BTreeMap;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::Int64Type;
use mill_protocol::{Error, Restored, Result, Snapshot};
use mill_state::{Cursor, Span};

use crate::accumulator::{Groups, WrittenKeys};

/// Windows in one table, by their ids.
pub(crate) struct Sparse {
    /// The last key column is the id of the window.
    pub(crate) groups: Groups,
    windows: BTreeMap<i64, WrittenKeys>,
    /// Where the table is read on, once all windows are complete.
    draining: Option<Cursor>,
}

/// Rows of windows: their keys, the ids of their windows, their results.
pub(crate) type Taken = (Vec<ArrayRef>, Vec<i64>, Vec<ArrayRef>);

fn parted(mut keys: Vec<ArrayRef>, results: Vec<ArrayRef>) -> Result<Taken> {
    let ids = keys.pop().ok_or_else(|| Error::internal("rows of windows have their id"))?;
    let ids = ids.as_primitive_opt::<Int64Type>().ok_or_else(|| Error::internal("ids of windows are numbers"))?;
    Ok((keys, ids.values().to_vec(), results))
}

impl Sparse {
    pub(crate) fn new(groups: Groups) -> Sparse {
        Sparse { groups, windows: BTreeMap::new(), draining: None }
    }

    pub(crate) fn has(&self, window: i64) -> bool {
        self.windows.contains_key(&window)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }

    /// Takes records of the frame that was prepared; `ids` are the windows of all its records.
    pub(crate) fn update(&mut self, records: Option<&[u32]>, ids: &[i64]) -> Result<()> {
        match records {
            Some(records) => self.groups.update_picked(0, records)?,
            None => self.groups.update_span(0, Span { start: 0, len: ids.len() })?,
        }
        // By window, so that each is looked for once.
        let mut firsts = self.groups.take_firsts();
        firsts.sort_unstable_by_key(|&record| ids[record as usize]);
        for of_window in firsts.chunk_by(|&a, &b| ids[a as usize] == ids[b as usize]) {
            let keys = self.windows.entry(ids[of_window[0] as usize]).or_default();
            for &record in of_window {
                keys.push_of(&self.groups, record);
            }
        }
        Ok(())
    }

    /// Takes out the rows of the earliest windows for which this holds, about so many rows: their keys, the ids of their
    /// windows, their results.
    pub(crate) fn take(&mut self, is_complete: impl Fn(i64) -> bool, rows_max: usize) -> Result<Option<Taken>> {
        // Where nothing stays, the table is read from one end to the other.
        if self.draining.is_none() && self.windows.last_key_value().is_some_and(|(&last, _)| is_complete(last)) {
            self.draining = Some(Cursor::default());
            self.windows.clear();
        }
        if let Some(cursor) = &mut self.draining {
            if let Some((keys, results)) = self.groups.results(0, cursor, rows_max, false)? {
                return parted(keys, results).map(Some);
            }
            self.draining = None;
            self.groups.close(0);
        }
        let (mut taken, mut rows) = (Vec::new(), 0);
        while rows < rows_max
            && let Some(first) = self.windows.first_entry()
            && is_complete(*first.key())
        {
            let keys = first.remove();
            rows += keys.len();
            taken.push(keys);
        }
        if taken.is_empty() {
            return Ok(None);
        }
        let (keys, results) = self.groups.take_written(0, taken.iter().flat_map(WrittenKeys::iter))?;
        parted(keys, results).map(Some)
    }

    pub(crate) fn snapshot(&mut self, snapshot: &mut Snapshot) {
        self.groups.snapshot(snapshot);
    }

    pub(crate) fn restore(&mut self, restored: &Restored) -> Result<()> {
        self.groups.restore(restored)?;
        self.windows.clear();
        let mut cursor = Cursor::default();
        loop {
            let mut written: Vec<Vec<u8>> = Vec::new();
            let Some((columns, _)) = self.groups.written_keys(0, &mut cursor, 0, |_, key| written.push(key.to_vec()))? else {
                return Ok(());
            };
            let ids = columns.last().and_then(|ids| ids.as_primitive_opt::<Int64Type>());
            let ids = ids.ok_or_else(|| Error::internal("rows of windows have their id"))?;
            for (&id, key) in ids.values().iter().zip(&written) {
                self.windows.entry(id).or_default().push(key);
            }
        }
    }
}

/// In how many windows the records of a sample have to be for their frame to count as scattered.
const WINDOWS_MIN: usize = 16;
/// How many records a sample has at most.
const SAMPLE: usize = 128;

/// Whether these windows of records are so many that most of them have few records of the frame.
pub(crate) fn is_scattered(rows: usize, window_of: impl Fn(usize) -> i64) -> bool {
    if rows < WINDOWS_MIN {
        return false;
    }
    let step = rows.div_ceil(SAMPLE);
    let mut sample: Vec<i64> = (0..rows).step_by(step).map(window_of).collect();
    sample.sort_unstable();
    sample.dedup();
    sample.len() >= WINDOWS_MIN
}
