//! Left rows that wait for the right watermark to pass them.
//!
//! They stay batches as they came, each with an order by time and a place up to which its rows have been answered. Only at a
//! barrier those that still wait are written into the state; most have been answered by then. What a restored state
//! holds of rows before the watermark of its snapshot had been answered.

use std::collections::VecDeque;

use arrow::datatypes::SchemaRef;
use mill_protocol::{Batch, Result};
use mill_state::StateBackend;

use super::times_of;
use crate::pair::{Keys, Runs, Written, taken};

/// Rows that came together.
struct Part {
    /// Sorted by time.
    rows: Batch,
    /// How many have been answered.
    answered: usize,
    is_written: bool,
}

impl Part {
    fn times(&self) -> &[i64] {
        self.rows.times().map_or(&[][..], |times| &times[self.answered..])
    }
}

/// The left rows that wait.
pub(super) struct Waiting {
    keys: Keys,
    parts: VecDeque<Part>,
    /// How many parts are yet to be looked at whether they are due.
    to_look_at: usize,
    runs: Runs,
    /// The least time of all that wait.
    first: i64,
}

/// Whether the right watermark has passed this time.
fn has_passed(watermark: i64, time: i64) -> bool {
    time < watermark || watermark == i64::MAX
}

impl Waiting {
    pub(super) fn new(schema: &SchemaRef, keys: &[usize], runs: Runs) -> Result<Waiting> {
        Ok(Waiting { keys: Keys::new(schema, keys)?, parts: VecDeque::new(), to_look_at: 0, runs, first: i64::MAX })
    }

    pub(super) fn next_run(&self) -> u64 {
        self.runs.next()
    }

    pub(super) fn restored_run(&mut self, next: u64) {
        self.runs.restored(next);
    }

    /// Takes rows; returns those that the watermark has passed already.
    pub(super) fn push(&mut self, rows: Batch, watermark: i64) -> Result<Option<Batch>> {
        let times = times_of(&rows)?;
        let due = times.iter().filter(|&&time| has_passed(watermark, time)).count();
        if due == rows.rows() {
            return Ok((due > 0).then_some(rows));
        }
        if due == 0 {
            self.add(rows, false)?;
            return Ok(None);
        }
        let (due, rest): (Vec<u32>, Vec<u32>) =
            (0..rows.rows() as u32).partition(|&row| has_passed(watermark, times[row as usize]));
        let due = taken(&rows, due)?;
        self.add(taken(&rows, rest)?, false)?;
        Ok(Some(due))
    }

    fn add(&mut self, rows: Batch, is_written: bool) -> Result<()> {
        let times = times_of(&rows)?;
        let rows = if times.is_sorted() {
            rows
        } else {
            let mut order: Vec<u32> = (0..times.len() as u32).collect();
            order.sort_by_key(|&row| times[row as usize]);
            taken(&rows, order)?
        };
        self.first = self.first.min(times_of(&rows)?[0]);
        self.parts.push_back(Part { rows, answered: 0, is_written });
        Ok(())
    }

    /// The watermark has risen: all parts are looked at again if any of their rows is due.
    pub(super) fn look_again(&mut self, watermark: i64) {
        if has_passed(watermark, self.first) {
            self.to_look_at = self.parts.len();
            self.first = i64::MAX;
        }
    }

    /// Takes out rows that the watermark has passed, of one part.
    pub(super) fn pop(&mut self, watermark: i64) -> Result<Option<Batch>> {
        while self.to_look_at > 0 {
            self.to_look_at -= 1;
            let Some(mut part) = self.parts.pop_front() else { break };
            let times = part.times();
            let due = if watermark == i64::MAX { times.len() } else { times.partition_point(|&time| time < watermark) };
            let rows = part.rows.slice(part.answered, due);
            part.answered += due;
            if let Some(&first) = part.times().first() {
                self.first = self.first.min(first);
                self.parts.push_back(part);
            }
            if due > 0 {
                return Ok(Some(rows));
            }
        }
        Ok(None)
    }

    /// Brings the state up to date.
    pub(super) fn write(&mut self, backend: &mut StateBackend, watermark: i64) -> Result<()> {
        self.runs.remove_before(backend, watermark);
        for part in self.parts.iter_mut().filter(|part| !part.is_written) {
            let rows = part.rows.slice(part.answered, part.rows.rows() - part.answered);
            self.keys.encode(rows.data().columns(), rows.rows())?;
            let hashes = self.keys.encoder().batch().hashes();
            self.runs.write(backend, &Written { batch: &rows, hashes, rows: None })?;
            part.is_written = true;
        }
        Ok(())
    }

    /// Takes up the rows of the state that had not been answered at this watermark.
    pub(super) fn restore(&mut self, backend: &StateBackend, watermark: i64) -> Result<()> {
        let Some(rows) = self.runs.read(backend)? else { return Ok(()) };
        let times = times_of(&rows)?;
        let left: Vec<u32> = (0..times.len() as u32).filter(|&row| !has_passed(watermark, times[row as usize])).collect();
        let rows = taken(&rows, left)?;
        if rows.rows() > 0 {
            self.add(rows, true)?;
        }
        Ok(())
    }
}
