//! The records of one side that may still find a partner.
//!
//! ```text
//!   frames   columns as they came, a row a record, numbered through         gathered from by number
//!   index    key → numbers, in order of when they are dropped               probed
//!   dues     numbers by when they are dropped                               taken out as time goes on
//! ```
//!
//! Columns are kept as they came, so a joined row is a gather and nothing is decoded. Small frames are put together, a frame
//! goes when its last row does, and once most of all rows are gone the rest moves together. So there are few frames, and
//! memory is at most about twice that of the rows.

use arrow::array::{Array, ArrayRef, UInt32Array};
use arrow::compute::{concat, interleave, take};
use mill_protocol::{Error, Result};

use super::dues::Dues;
use super::heads::NONE;
use super::index::{Entry, Index};
use crate::pair::OutOfOrder;

/// Frames of fewer rows are put together.
const FRAME_ROWS: usize = 8192;
/// How many keys are looked up at once: so many that what was read of them is still near.
const LOOKED_UP: usize = 256;
/// So many rows that are gone do no harm.
const GONE_ROWS: usize = 32_768;

/// The buffered records of a side.
#[derive(Default)]
pub(super) struct Buffer {
    frames: Vec<Frame>,
    index: Index,
    dues: Dues,
    /// The number of the next row.
    next: u64,
    /// How many rows there are, and how many of them are not gone.
    rows: usize,
    live: usize,
}

/// Rows with numbers that follow each other.
struct Frame {
    first: u64,
    columns: Vec<ArrayRef>,
    rows: Vec<Row>,
    live: usize,
}

/// What is known of a row besides its columns.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    /// When it is dropped: once the watermark of the other side is greater.
    pub(super) due: i64,
    /// The hash that decides which task has its key.
    pub(super) hash: u64,
    /// Its number in checkpoints.
    pub(super) durable: u64,
    /// The slot of its key in the index.
    slot: u32,
    is_gone: bool,
}

impl Row {
    pub(super) fn new(due: i64, hash: u64, durable: u64) -> Row {
        Row { due, hash, durable, slot: NONE, is_gone: false }
    }
}

impl Frame {
    fn end(&self) -> u64 {
        self.first + self.rows.len() as u64
    }
}

impl Buffer {
    /// Adds rows; `key` returns the hash and bytes of the key of each.
    pub(super) fn add<'k>(
        &mut self,
        columns: Vec<ArrayRef>,
        mut rows: Vec<Row>,
        key: impl Fn(usize) -> (u64, &'k [u8]),
    ) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let first = self.next;
        let dues: Vec<Entry> = rows.iter().zip(first..).map(|(row, number)| (row.due, number)).collect();
        let mut found = vec![0; rows.len().min(LOOKED_UP)];
        let mut out_of_order = OutOfOrder::default();
        for (chunk, rows) in rows.chunks_mut(LOOKED_UP).enumerate() {
            let begin = chunk * LOOKED_UP;
            let found = &mut found[..rows.len()];
            self.index.find_all(found, |place| key(begin + place));
            for (place, (row, found)) in rows.iter_mut().zip(found).enumerate() {
                let (hash, key) = key(begin + place);
                let entry = (row.due, first + (begin + place) as u64);
                row.slot = self.index.insert(*found, hash, key, entry, &mut out_of_order);
            }
        }
        self.index.put_in_order(out_of_order);
        self.dues.add(dues);
        self.next += rows.len() as u64;
        self.rows += rows.len();
        self.live += rows.len();
        let mut frame = Frame { first, columns, live: rows.len(), rows };
        while let Some(last) = self.frames.last()
            && last.rows.len() <= 2 * frame.rows.len()
            && last.rows.len() + frame.rows.len() <= FRAME_ROWS
            && last.end() == frame.first
        {
            let last = self.frames.pop().expect("it was looked at");
            frame = together(last, frame)?;
        }
        self.frames.push(frame);
        Ok(())
    }

    /// The rows of a key, as when they are dropped and their number, in this order.
    #[inline]
    pub(super) fn of_key(&self, hash: u64, key: &[u8]) -> &[Entry] {
        self.index.find(hash, key).map(|slot| self.index.rows(slot)).unwrap_or_default()
    }

    /// The place of a row.
    #[inline]
    fn place(&self, number: u64, near: usize) -> (usize, usize) {
        let is_in = |frame: &Frame| frame.first <= number && number < frame.end();
        let at = match self.frames.get(near).is_some_and(is_in) {
            true => near,
            false => self.frames.partition_point(|frame| frame.end() <= number),
        };
        (at, (number - self.frames[at].first) as usize)
    }

    /// What is known of these rows.
    pub(super) fn known(&self, numbers: &[u64]) -> Vec<Row> {
        let mut near = 0;
        let mut row = |&number: &u64| {
            let (frame, row) = self.place(number, near);
            near = frame;
            self.frames[frame].rows[row]
        };
        numbers.iter().map(&mut row).collect()
    }

    /// The columns of these rows, in this order.
    pub(super) fn gather(&self, numbers: &[u64]) -> Result<Vec<ArrayRef>> {
        let failed = |error: arrow::error::ArrowError| Error::internal(error.to_string());
        let Some(columns) = self.frames.first().map(|frame| frame.columns.len()) else { return Ok(Vec::new()) };
        // The frames that are needed, by their own numbers from zero.
        let mut used: Vec<usize> = Vec::new();
        let mut of_frame = vec![usize::MAX; self.frames.len()];
        let mut places: Vec<(usize, usize)> = Vec::with_capacity(numbers.len());
        let mut near = 0;
        for &number in numbers {
            let (frame, row) = self.place(number, near);
            near = frame;
            if of_frame[frame] == usize::MAX {
                of_frame[frame] = used.len();
                used.push(frame);
            }
            places.push((of_frame[frame], row));
        }
        if used.is_empty() {
            used.push(0);
        }
        if let [frame] = used[..] {
            let rows = UInt32Array::from_iter_values(places.iter().map(|&(_, row)| row as u32));
            let columns = self.frames[frame].columns.iter().map(|column| take(column, &rows, None));
            return columns.collect::<std::result::Result<Vec<ArrayRef>, _>>().map_err(failed);
        }
        let column = |column: usize| {
            let parts: Vec<&dyn Array> = used.iter().map(|&frame| self.frames[frame].columns[column].as_ref()).collect();
            interleave(&parts, &places).map_err(failed)
        };
        (0..columns).map(column).collect()
    }

    /// Takes the rows that are due before this time off the list of those that will be; they stay until they are removed.
    pub(super) fn take_due(&mut self, before: i64) -> Vec<u64> {
        let mut due = Vec::new();
        self.dues.take(before, usize::MAX, &mut due);
        due
    }

    /// The hash and the bytes of the key of a row.
    pub(super) fn key_of(&self, number: u64) -> (u64, &[u8]) {
        let (frame, row) = self.place(number, 0);
        self.index.key(self.frames[frame].rows[row].slot)
    }

    /// Removes rows that are not on the list of those that will be due: all of their key that are due before this time.
    pub(super) fn remove(&mut self, numbers: &[u64], before: i64) {
        for &number in numbers {
            let (frame, row) = self.place(number, 0);
            let frame = &mut self.frames[frame];
            frame.rows[row].is_gone = true;
            frame.live -= 1;
            self.live -= 1;
            self.index.forget(&[frame.rows[row].slot], before);
        }
    }

    /// Gives the memory of rows back that are gone.
    pub(super) fn sweep(&mut self) -> Result<()> {
        if self.frames.iter().any(|frame| frame.live == 0) {
            self.frames.retain(|frame| frame.live > 0);
            self.rows = self.frames.iter().map(|frame| frame.rows.len()).sum();
        }
        if self.rows <= 2 * self.live + GONE_ROWS {
            return Ok(());
        }
        // Their numbers change.
        let mut live: Vec<u64> = Vec::with_capacity(self.live);
        for frame in &self.frames {
            let rows = frame.rows.iter().enumerate().filter(|(_, row)| !row.is_gone);
            live.extend(rows.map(|(place, _)| frame.first + place as u64));
        }
        let mut frames = Vec::with_capacity(live.len().div_ceil(FRAME_ROWS));
        for numbers in live.chunks(FRAME_ROWS) {
            let (columns, rows) = (self.gather(numbers)?, self.known(numbers));
            frames.push(Frame { first: (frames.len() * FRAME_ROWS) as u64, columns, live: rows.len(), rows });
        }
        let number = |old: u64| live.binary_search(&old).expect("a row that is not gone has a number") as u64;
        self.index.renumber(number);
        self.dues.renumber(number);
        self.frames = frames;
        (self.rows, self.next) = (live.len(), live.len() as u64);
        Ok(())
    }

    /// How many rows there are that may find a partner.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.live
    }

    /// How many rows its frames have.
    #[cfg(test)]
    pub(super) fn stored(&self) -> usize {
        self.rows
    }
}

/// Two frames as one.
fn together(first: Frame, second: Frame) -> Result<Frame> {
    let mut rows = first.rows;
    rows.extend_from_slice(&second.rows);
    let columns = first.columns.iter().zip(&second.columns).map(|(a, b)| concat(&[a.as_ref(), b.as_ref()]));
    let columns = columns.collect::<std::result::Result<Vec<ArrayRef>, _>>();
    let columns = columns.map_err(|error| Error::internal(error.to_string()))?;
    Ok(Frame { first: first.first, columns, rows, live: first.live + second.live })
}
