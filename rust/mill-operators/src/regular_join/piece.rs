//! Rows of the result on their way out: which record and which kept row each is made of.

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, UInt32Array};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::compute::take;
use mill_protocol::{Error, Result};

use super::rows::Rows;
use crate::join::assemble::Assembler;
use crate::join::heads::NONE;

/// Rows of the result, in their order.
#[derive(Default)]
pub(super) struct Piece {
    /// The record of each row, and the kept row of the other side; [`NONE`] where there is none.
    records: Vec<u32>,
    stored: Vec<u32>,
    /// The event time of each row, if there are times.
    pub(super) times: Vec<i64>,
    /// Which rows withdraw their key; none of them if empty.
    deletes: Vec<bool>,
    has_single: bool,
    /// How many partners were looked at for it.
    pub(super) looked_at: usize,
}

/// Rows of the result as columns.
pub(super) struct Made {
    pub(super) data: RecordBatch,
    pub(super) times: Vec<i64>,
    pub(super) deletes: Option<BooleanBuffer>,
}

impl Piece {
    pub(super) fn rows(&self) -> usize {
        self.records.len()
    }

    /// Adds the row of a record alone.
    pub(super) fn single(&mut self, record: usize, time: i64, is_delete: bool) {
        self.has_single = true;
        self.push(record as u32, NONE, time, is_delete);
    }

    /// Adds the row of a kept row alone.
    pub(super) fn partner(&mut self, stored: u32, time: i64, is_delete: bool) {
        self.has_single = true;
        self.push(NONE, stored, time, is_delete);
    }

    /// Adds the row of a record and a kept row.
    pub(super) fn pair(&mut self, record: usize, stored: u32, time: i64, is_delete: bool) {
        self.push(record as u32, stored, time, is_delete);
    }

    /// Adds the rows of a record and kept rows; their times are added apart.
    pub(super) fn pairs(&mut self, record: usize, stored: &[u32]) {
        self.stored.extend_from_slice(stored);
        self.records.resize(self.stored.len(), record as u32);
    }

    fn push(&mut self, record: u32, stored: u32, time: i64, is_delete: bool) {
        if is_delete {
            self.deletes.resize(self.records.len(), false);
            self.deletes.push(true);
        }
        self.records.push(record);
        self.stored.push(stored);
        self.times.push(time);
    }

    /// The rows as columns; `None` if there are none. The records are of this side and have these columns, the kept rows are of
    /// the other one.
    pub(super) fn rows_of(
        mut self,
        side: usize,
        columns: &[ArrayRef],
        kept: &Rows,
        assembler: &Assembler,
    ) -> Result<Option<Made>> {
        if self.records.is_empty() {
            return Ok(None);
        }
        let rows = self.records.len();
        let is_there = |rows: &[u32]| !self.has_single || rows.iter().any(|&row| row != NONE);
        let own = if is_there(&self.records) { Some(self.gathered(columns)?) } else { None };
        let theirs = if is_there(&self.stored) { Some(kept.gather(&self.stored)?) } else { None };
        let sides = if side == 0 { [own.as_deref(), theirs.as_deref()] } else { [theirs.as_deref(), own.as_deref()] };
        let data = if self.has_single {
            let of_left = if side == 0 { &self.records } else { &self.stored };
            let is_left: BooleanArray = of_left.iter().map(|&row| Some(row != NONE)).collect();
            assembler.rows_of_either(sides, rows, &is_left)?
        } else {
            assembler.rows(sides, rows, None)?
        };
        let deletes = (!self.deletes.is_empty()).then(|| {
            self.deletes.resize(rows, false);
            self.deletes.into()
        });
        Ok(Some(Made { data, times: self.times, deletes }))
    }

    /// The columns of the records, with nulls where there is none.
    fn gathered(&self, columns: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
        let rows = &self.records;
        let is_whole = columns.first().is_some_and(|column| column.len() == rows.len())
            && rows.iter().zip(0..).all(|(row, place)| *row == place);
        if is_whole {
            return Ok(columns.to_vec());
        }
        let rows = match self.has_single {
            false => UInt32Array::from(rows.clone()),
            true => {
                let nulls = NullBuffer::from_iter(rows.iter().map(|&row| row != NONE));
                let rows = rows.iter().map(|&row| if row == NONE { 0 } else { row }).collect::<Vec<u32>>();
                UInt32Array::new(rows.into(), Some(nulls))
            }
        };
        let failed = |error: arrow::error::ArrowError| Error::data(format!("the rows of a join do not fit into one frame: {error}"));
        columns.iter().map(|column| take(column, &rows, None).map_err(failed)).collect()
    }
}
