//! Records that wait for their turn or their answer, in the order in which they came.
//!
//! ```text
//!   tickets   0 1 2 3 4 5 6 7 │ 8 9 10 11 12 │ 13 …        a part is a batch as it came
//!             ✓ ✓ · ✓ · · · · │ · · ·  ·  ·  │ ·           ✓ settled
//!                     ▲ next: those before it have been started
//! ```
//!
//! A part goes as soon as all of its records are settled. The least event time of a part is found by an order of its rows by
//! time, in which settled ones are skipped once.

use std::collections::VecDeque;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::datatypes::SchemaRef;
use mill_frame::Frame;
use mill_frame::block::SharedBytes;
use mill_frame::text::record_json;
use mill_protocol::{Batch, Error, Outbox, Result, Watermark};


/// What the bytes of a snapshot begin with.
const MAGIC: &[u8; 8] = b"MILLWAIT";
const VERSION: u8 = 1;
/// Frames begin at multiples of this, so that they can be read where they are.
const ALIGNMENT: usize = 64;

/// Records that came together.
struct Part {
    /// The ticket of its first record.
    first: u64,
    batch: Batch,
    is_settled: Vec<bool>,
    /// How many are not settled.
    left: usize,
    /// Its rows by event time, unless they are in that order; empty where there is none.
    by_time: Vec<u32>,
    /// How many of the rows in that order are settled, at its beginning.
    passed: usize,
}

impl Part {
    fn new(first: u64, batch: Batch) -> Part {
        let rows = batch.rows();
        let mut by_time = Vec::new();
        if let Some(times) = batch.times().filter(|times| !times.is_sorted()) {
            by_time = (0..rows as u32).collect();
            by_time.sort_unstable_by_key(|&row| times[row as usize]);
        }
        Part { first, is_settled: vec![false; rows], left: rows, by_time, passed: 0, batch }
    }

    fn end(&self) -> u64 {
        self.first + self.batch.rows() as u64
    }

    fn row_in_time(&self, place: usize) -> usize {
        self.by_time.get(place).map_or(place, |&row| row as usize)
    }

    fn settle(&mut self, row: usize) {
        if std::mem::replace(&mut self.is_settled[row], true) {
            return;
        }
        self.left -= 1;
        while self.passed < self.is_settled.len() && self.is_settled[self.row_in_time(self.passed)] {
            self.passed += 1;
        }
    }

    /// The least event time of what is not settled.
    fn earliest(&self) -> i64 {
        let times = self.batch.times().filter(|_| self.left > 0);
        times.map_or(i64::MAX, |times| times[self.row_in_time(self.passed)])
    }
}

/// All records that wait.
pub(super) struct Waiting {
    schema: SchemaRef,
    parts: VecDeque<Part>,
    /// The ticket of the next record that comes, and of the next one that is started.
    end: u64,
    next: u64,
    /// How many are not settled.
    rows: usize,
}

impl Waiting {
    pub(super) fn new(schema: SchemaRef) -> Waiting {
        Waiting { schema, parts: VecDeque::new(), end: 0, next: 0, rows: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows == 0
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Whether records wait for their turn.
    pub(super) fn has_next(&self) -> bool {
        self.next < self.end
    }

    pub(super) fn push(&mut self, batch: Batch) {
        let rows = batch.rows();
        if rows > 0 {
            self.parts.push_back(Part::new(self.end, batch));
            self.end += rows as u64;
            self.rows += rows;
        }
    }

    /// Takes the next records whose turn it is, at most so many, with the ticket of the first.
    pub(super) fn next(&mut self, rows_max: usize) -> Option<(u64, RecordBatch)> {
        if !self.has_next() {
            return None;
        }
        let first = self.next;
        let part = &self.parts[self.part_of(first)?];
        let row = (first - part.first) as usize;
        let rows = rows_max.min(part.batch.rows() - row);
        self.next += rows as u64;
        Some((first, part.batch.data().slice(row, rows)))
    }

    /// The part that holds this ticket.
    fn part_of(&self, ticket: u64) -> Option<usize> {
        let place = self.parts.partition_point(|part| part.first <= ticket).checked_sub(1)?;
        (ticket < self.parts[place].end()).then_some(place)
    }

    /// The record with this ticket as text.
    pub(super) fn record_json(&self, ticket: u64) -> Option<String> {
        let part = &self.parts[self.part_of(ticket)?];
        Some(record_json(part.batch.data(), (ticket - part.first) as usize))
    }

    /// Emits results with the event times of the records that they stem from.
    pub(super) fn emit(
        &self,
        data: &RecordBatch,
        origin: &[u64],
        out: &mut Outbox,
    ) -> std::result::Result<(), &'static str> {
        if origin.len() != data.num_rows() {
            return Err("it returned results without the origin of each");
        }
        let mut start = 0;
        while start < origin.len() {
            let place = self.part_of(origin[start]).ok_or("it returned a result of a record that is not there")?;
            let part = &self.parts[place];
            let is_of_part = |ticket: &&u64| (part.first..part.end()).contains(ticket);
            let rows: Vec<u32> = origin[start..].iter().take_while(is_of_part).map(|ticket| (ticket - part.first) as u32).collect();
            if rows.iter().any(|&row| part.is_settled[row as usize]) {
                return Err("it answered a record twice");
            }
            let data = data.slice(start, rows.len());
            start += rows.len();
            out.push(part.batch.reindex(data, &rows.into()).map_err(|_| "its results have no origin")?);
        }
        Ok(())
    }

    /// Notes that this record has its results, or was rejected.
    pub(super) fn settle(&mut self, ticket: u64) {
        if let Some(place) = self.part_of(ticket) {
            let part = &mut self.parts[place];
            let left = part.left;
            part.settle((ticket - part.first) as usize);
            self.rows -= left - part.left;
        }
    }

    /// Lets go of parts that are settled.
    pub(super) fn drop_settled(&mut self) {
        self.parts.retain(|part| part.left > 0);
    }

    /// The least event time of all that is not settled.
    pub(super) fn earliest(&self) -> Watermark {
        Watermark(self.parts.iter().map(Part::earliest).min().unwrap_or(i64::MAX))
    }

    /// All that is not settled as bytes: see `docs/format/operator-state.md`.
    pub(super) fn write(&self) -> Result<Vec<u8>> {
        let failed = |error: mill_frame::FrameError| Error::checkpoint(format!("records in flight cannot be stored: {error}"));
        let parts = self.parts.iter().filter(|part| part.left > 0);
        let mut bytes = MAGIC.to_vec();
        bytes.push(VERSION);
        bytes.extend_from_slice(&(parts.clone().count() as u32).to_le_bytes());
        for part in parts {
            let left = match part.left == part.batch.rows() {
                true => part.batch.clone(),
                false => {
                    let rows = (0..part.batch.rows() as u32).filter(|&row| !part.is_settled[row as usize]);
                    let rows: UInt32Array = rows.collect::<Vec<u32>>().into();
                    part.batch.take(&rows).map_err(|error| Error::internal(error.to_string()))?
                }
            };
            let frame = Frame::encode(&left).map_err(failed)?;
            bytes.extend_from_slice(&(frame.as_bytes().len() as u64).to_le_bytes());
            bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
            bytes.extend_from_slice(frame.as_bytes());
        }
        Ok(bytes)
    }

    /// Takes up records that were stored.
    pub(super) fn read(&mut self, bytes: &SharedBytes) -> Result<()> {
        let damaged = || Error::checkpoint("the records in flight are damaged in the checkpoint");
        let head = bytes.get(..MAGIC.len() + 5).filter(|head| head.starts_with(MAGIC)).ok_or_else(damaged)?;
        if head[MAGIC.len()] != VERSION {
            return Err(Error::checkpoint(format!(
                "the records in flight have format {}, this version of Millstream reads {VERSION}",
                head[MAGIC.len()]
            )));
        }
        let number = |at: usize, len: usize| -> Result<u64> {
            let mut word = [0; 8];
            word[..len].copy_from_slice(bytes.get(at..at + len).ok_or_else(damaged)?);
            Ok(u64::from_le_bytes(word))
        };
        let parts = number(MAGIC.len() + 1, 4)?;
        let mut at = MAGIC.len() + 5;
        for _ in 0..parts {
            let length = usize::try_from(number(at, 8)?).map_err(|_| damaged())?;
            at = (at + 8).next_multiple_of(ALIGNMENT);
            let end = at.checked_add(length).filter(|&end| end <= bytes.len()).ok_or_else(damaged)?;
            let frame = Frame::from_bytes(bytes.slice(at, end), &self.schema);
            let batch = frame.and_then(|frame| frame.decode(&self.schema));
            self.push(batch.map_err(|error| Error::checkpoint(format!("the records in flight are damaged: {error}")))?);
            at = end;
        }
        if at == bytes.len() { Ok(()) } else { Err(damaged()) }
    }
}
