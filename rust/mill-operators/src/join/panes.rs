//! Rows of a side by number, over all of its panes.

use arrow::array::{Array, ArrayRef, UInt32Array};
use arrow::compute::{interleave, take};
use mill_protocol::{Error, Result};

use super::heads::NONE;
use super::linked::{Linked, TOGETHER};
use super::records::{Noted, Records};

/// The kept records of a side, in panes: the number of a row has the place of its pane. It holds until rows are added or dropped.
pub(super) trait Panes: Send {
    /// Whether it is known of rows when they are dropped and whether they had a partner.
    fn is_noted(&self) -> bool;

    /// Keeps records with these columns; `noted` has what is known of them, if they are noted.
    fn add(&mut self, columns: &[ArrayRef], records: &Records, noted: &[Noted]) -> Result<()>;

    /// Finds where partners of records may be, which are due from these times on for this length; `first` is the number of the first record.
    /// It holds until rows are added or dropped. `found` is in no order.
    fn find_all(&mut self, found: &mut Vec<Found>, first: usize, hashes: &[u64], from: &[i64], length: i64);

    /// The rows that are dropped before this time and had no partner, `rows_max` of those that are dropped at most; whether there are more.
    /// Rows are noted. They stay until they are [swept](Panes::sweep).
    fn drop_before(&mut self, before: i64, rows_max: usize, unmatched: &mut Vec<u64>) -> bool;

    /// Gives the memory of rows back that are dropped before this time.
    fn sweep(&mut self, before: i64);

    fn panes(&self) -> usize;

    fn rows(&self, pane: usize) -> &Linked;

    fn rows_mut(&mut self, pane: usize) -> &mut Linked;

    /// When rows are dropped, and what is noted of them.
    fn known(&self, numbers: &[u64]) -> Vec<(i64, Noted)> {
        let known = |&number: &u64| {
            let (pane, row) = place(number);
            (self.rows(pane).due(row as u32), self.rows(pane).noted(row))
        };
        numbers.iter().map(known).collect()
    }

    /// Marks rows as having a partner; those that had none before are left in `numbers`.
    fn mark(&mut self, numbers: &mut Vec<u64>) {
        numbers.retain(|&number| {
            let (pane, row) = place(number);
            !self.rows_mut(pane).mark(row)
        });
    }

    /// The columns of these rows, in this order.
    fn gather(&self, numbers: &[u64]) -> Result<Vec<ArrayRef>> {
        gather_of(self.panes(), |pane| self.rows(pane), numbers)
    }
}

/// Where partners of a record may be.
#[derive(Clone, Copy)]
pub(super) struct Found {
    /// The record.
    pub(super) record: u32,
    pub(super) pane: u32,
    pub(super) tag: u32,
    /// The first row of the chain.
    pub(super) row: u32,
}

impl Found {
    /// In the chain of a tag, which [`look_up`] finds.
    #[inline]
    pub(super) fn new(record: u32, pane: usize, tag: u32) -> Found {
        Found { record, pane: pane as u32, tag, row: NONE }
    }
}

/// Finds the chains; leaves out what has none.
pub(super) fn look_up(panes: &impl Panes, found: &mut Vec<Found>) {
    for found in found.chunks_mut(TOGETHER) {
        // All homes are read before anything depends on what is there, so that the reads from memory overlap; and then all first rows.
        let home = |found: &Found| panes.rows(found.pane as usize).look_ahead(found.tag);
        std::hint::black_box(found.iter().fold(0, |all, found| all ^ home(found)));
        for found in found.iter_mut() {
            found.row = panes.rows(found.pane as usize).first_of(found.tag);
        }
        let first = |found: &Found| match found.row {
            NONE => 0,
            row => panes.rows(found.pane as usize).look_at(row),
        };
        std::hint::black_box(found.iter().fold(0, |all, found| all ^ first(found)));
    }
    found.retain(|found| found.row != NONE);
}

/// A row: its pane and its place there.
#[inline]
pub(super) fn number(pane: u32, row: u32) -> u64 {
    u64::from(pane) << 32 | u64::from(row)
}

#[inline]
fn place(number: u64) -> (usize, usize) {
    ((number >> 32) as usize, number as u32 as usize)
}

/// The columns of these rows of panes, in this order.
pub(super) fn gather_of<'p>(panes: usize, rows: impl Fn(usize) -> &'p Linked, numbers: &[u64]) -> Result<Vec<ArrayRef>> {
    // The parts of the panes that are needed, one after the other.
    let mut parts: Vec<&[ArrayRef]> = Vec::new();
    let mut starts: Vec<usize> = vec![usize::MAX; panes];
    let mut places: Vec<(usize, usize)> = Vec::with_capacity(numbers.len());
    for &number in numbers {
        let (pane, row) = place(number);
        let of_pane = rows(pane);
        if starts[pane] == usize::MAX {
            starts[pane] = parts.len();
            parts.extend(of_pane.columns_of());
        }
        let (part, row) = of_pane.part_of(row);
        places.push((starts[pane] + part, row));
    }
    if let [columns] = parts[..] {
        let rows = UInt32Array::from_iter_values(places.iter().map(|&(_, row)| row as u32));
        let columns = columns.iter().map(|column| take(column, &rows, None));
        return columns.collect::<std::result::Result<Vec<ArrayRef>, _>>().map_err(failed);
    }
    let column = |column: usize| {
        let arrays: Vec<&dyn Array> = parts.iter().map(|columns| columns[column].as_ref()).collect();
        interleave(&arrays, &places).map_err(failed)
    };
    (0..parts.first().map_or(0, |columns| columns.len())).map(column).collect()
}

pub(super) fn failed(error: arrow::error::ArrowError) -> Error {
    Error::internal(error.to_string())
}
