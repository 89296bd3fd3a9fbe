//! Rows of the result on their way out: which record and which kept row each is made of.

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, UInt32Array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::take;
use mill_protocol::{Error, Result};

use crate::join::assemble::Assembler;
use crate::row_codec::RowCodec;

/// Rows of the result, in their order.
#[derive(Default)]
pub(super) struct Piece {
    /// The record of each row, and the kept row of the other side.
    records: Vec<Option<u32>>,
    stored: Vec<Option<u32>>,
    times: Vec<i64>,
    deletes: Vec<bool>,
    /// The kept rows.
    bytes: Vec<u8>,
    ends: Vec<usize>,
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
        self.times.len()
    }

    /// Takes up a kept row, of which rows of the result can be made.
    pub(super) fn store(&mut self, bytes: &[u8]) -> u32 {
        self.bytes.extend_from_slice(bytes);
        self.ends.push(self.bytes.len());
        self.ends.len() as u32 - 1
    }

    /// Adds the row of a record alone.
    pub(super) fn single(&mut self, record: usize, time: i64, is_delete: bool) {
        self.push(Some(record as u32), None, time, is_delete);
    }

    /// Adds the row of a kept row alone.
    pub(super) fn partner(&mut self, stored: u32, time: i64, is_delete: bool) {
        self.push(None, Some(stored), time, is_delete);
    }

    /// Adds the row of a record and a kept row.
    pub(super) fn pair(&mut self, record: usize, stored: u32, time: i64, is_delete: bool) {
        self.push(Some(record as u32), Some(stored), time, is_delete);
    }

    fn push(&mut self, record: Option<u32>, stored: Option<u32>, time: i64, is_delete: bool) {
        self.records.push(record);
        self.stored.push(stored);
        self.times.push(time);
        self.deletes.push(is_delete);
    }

    /// The rows as columns; `None` if there are none. The records are of this side and have these columns, the kept rows are of
    /// the other one.
    pub(super) fn rows_of(
        self,
        side: usize,
        columns: &[ArrayRef],
        codec: &RowCodec,
        assembler: &Assembler,
    ) -> Result<Option<Made>> {
        if self.times.is_empty() {
            return Ok(None);
        }
        let rows = self.times.len();
        let has_records = self.records.iter().any(Option::is_some);
        let has_stored = self.stored.iter().any(Option::is_some);
        let own = if has_records { Some(gathered(columns, &self.records)?) } else { None };
        let theirs = match (has_stored, codec.schema().fields().is_empty()) {
            (false, _) => None,
            (true, true) => Some(Vec::new()),
            (true, false) => {
                let starts = std::iter::once(0).chain(self.ends.iter().copied());
                let kept = self.ends.iter().zip(starts).map(|(&end, start)| &self.bytes[start..end]);
                Some(gathered(codec.decode(kept)?.columns(), &self.stored)?)
            }
        };
        let of_left = if side == 0 { &self.records } else { &self.stored };
        let is_left: BooleanArray = of_left.iter().map(|row| Some(row.is_some())).collect();
        let sides = if side == 0 { [own.as_deref(), theirs.as_deref()] } else { [theirs.as_deref(), own.as_deref()] };
        let data = assembler.rows_of_either(sides, rows, &is_left)?;
        let deletes = self.deletes.contains(&true).then(|| self.deletes.into());
        Ok(Some(Made { data, times: self.times, deletes }))
    }
}

/// These rows of columns, with nulls where there is none.
fn gathered(columns: &[ArrayRef], rows: &[Option<u32>]) -> Result<Vec<ArrayRef>> {
    let is_whole = columns.first().is_some_and(|column| column.len() == rows.len())
        && rows.iter().zip(0..).all(|(row, place)| *row == Some(place));
    if is_whole {
        return Ok(columns.to_vec());
    }
    let rows = UInt32Array::from(rows.to_vec());
    let failed = |error: arrow::error::ArrowError| Error::data(format!("the rows of a join do not fit into one frame: {error}"));
    columns.iter().map(|column| take(column, &rows, None).map_err(failed)).collect()
}
