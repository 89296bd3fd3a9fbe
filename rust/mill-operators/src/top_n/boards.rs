//! The boards of all keys: a table with one row a key.
//!
//! ```text
//!   frame ──sort keys──► which rows may enter at all: compared with the worst of their key, nothing is changed
//!              └──────► those alone are encoded as rows, in order of arrival, into the board of their key
//! ```
//!
//! A row of the table has the board in a cell and, where changes are emitted, a word: how many places from the end changed
//! since the key was last emitted. A row that enters at a place moves all that come after it, so the places that changed are
//! always the last ones.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float16Array, Float32Array, Float64Array, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::{SortOptions, take_record_batch};
use arrow::datatypes::{DataType, Float16Type, Float32Type, Float64Type, SchemaRef};
use arrow_row::{RowConverter, Rows, SortField};
use mill_plan::Ordering;
use mill_protocol::{Error, Result};
use mill_state::{Flag, KeyEncoder, LOOKUP_ROWS_MAX, RowLayout, RowsRead, Select, StateTable};

use super::board::{Board, insert};
use crate::accumulator::state_error;
use crate::row_codec::RowCodec;

/// How many boards are fetched into the cache at a time, where they are only read.
const FETCHED_BOARDS: usize = 128;

/// Sorts rows and puts them into tables.
pub(crate) struct Boards {
    keys: Vec<usize>,
    rows_max: usize,
    sorter: Sorter,
    codec: RowCodec,
    encoder: KeyEncoder,
    layout: Arc<RowLayout>,
    cell: usize,
    changes: Option<Changes>,
}

/// What a row keeps of changes that are yet to be emitted.
#[derive(Clone, Copy)]
struct Changes {
    /// Whether there are any.
    pending: Flag,
    /// How many places from the end they are.
    word: usize,
}

/// Makes bytes that compare as rows are sorted.
struct Sorter {
    by: Vec<Ordering>,
    converter: RowConverter,
}

/// A frame with its sort keys and keys.
pub(crate) struct Sorted {
    data: RecordBatch,
    sorts: Rows,
}

impl Sorter {
    fn new(by: Vec<Ordering>) -> Result<Sorter> {
        let field = |by: &Ordering| {
            let options = SortOptions { descending: by.is_descending, nulls_first: false };
            SortField::new_with_options(by.expr.field().data_type().clone(), options)
        };
        let converter = RowConverter::new(by.iter().map(field).collect())
            .map_err(|error| Error::schema(format!("rows cannot be sorted by this: {error}")))?;
        Ok(Sorter { by, converter })
    }

    fn sorts(&self, data: &RecordBatch) -> Result<Rows> {
        let columns = self.by.iter().map(|by| Ok(one_zero(by.expr.evaluate(data)?))).collect::<Result<Vec<_>>>()?;
        match columns.is_empty() {
            true => Ok(self.converter.empty_rows(0, 0)),
            false => self.converter.convert_columns(&columns).map_err(|error| Error::internal(error.to_string())),
        }
    }
}

/// Floats in which equal values are equal bits: one zero and one NaN.
fn one_zero(column: ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Float64 => {
            let one = |x: f64| if x.is_nan() { f64::NAN } else { x + 0.0 };
            let column: Float64Array = column.as_primitive::<Float64Type>().unary(one);
            Arc::new(column)
        }
        DataType::Float32 => {
            let one = |x: f32| if x.is_nan() { f32::NAN } else { x + 0.0 };
            let column: Float32Array = column.as_primitive::<Float32Type>().unary(one);
            Arc::new(column)
        }
        DataType::Float16 => {
            let nan = <Float16Type as arrow::datatypes::ArrowPrimitiveType>::Native::NAN;
            let zero = <Float16Type as arrow::datatypes::ArrowPrimitiveType>::Native::ZERO;
            let column: Float16Array = column.as_primitive::<Float16Type>().unary(|x| {
                if x.is_nan() {
                    nan
                } else if x == zero {
                    zero
                } else {
                    x
                }
            });
            Arc::new(column)
        }
        _ => column,
    }
}

impl Boards {
    /// Boards of rows with these columns. `tracks_changes`: whether changes are emitted.
    pub(crate) fn new(
        schema: SchemaRef,
        keys: &[usize],
        by: Vec<Ordering>,
        rows_max: usize,
        tracks_changes: bool,
    ) -> Result<Boards> {
        let types: Vec<DataType> = keys.iter().map(|&key| schema.field(key).data_type().clone()).collect();
        let encoder = KeyEncoder::new(&types).map_err(state_error)?;
        let codec = RowCodec::new(schema)?;
        let mut layout = RowLayout::builder(encoder.kind().clone());
        let cell = layout.cell();
        let changes = tracks_changes.then(|| Changes { pending: layout.flag(), word: layout.words(1) });
        let layout = layout.finish(&format!("top_n {}", codec.signature())).map_err(state_error)?;
        let sorter = Sorter::new(by)?;
        Ok(Boards { keys: keys.to_vec(), rows_max, sorter, codec, encoder, layout: Arc::new(layout), cell, changes })
    }

    pub(crate) fn layout(&self) -> &Arc<RowLayout> {
        &self.layout
    }

    pub(crate) fn pending(&self) -> Option<Flag> {
        self.changes.map(|changes| changes.pending)
    }

    /// How many rows a key has at most.
    pub(crate) fn rows_max(&self) -> usize {
        self.rows_max
    }

    /// Computes what rows are sorted by. Updates are then of records of this frame.
    pub(crate) fn prepare(&mut self, data: &RecordBatch) -> Result<Sorted> {
        let sorts = self.sorter.sorts(data)?;
        let columns: Vec<ArrayRef> = self.keys.iter().map(|&key| Arc::clone(data.column(key))).collect();
        self.encoder.encode(&columns, data.num_rows()).map_err(state_error)?;
        Ok(Sorted { data: data.clone(), sorts })
    }

    /// Puts these records of the frame that was prepared last onto the boards of a table.
    pub(crate) fn update<S: Select>(&mut self, table: &mut StateTable, frame: &Sorted, select: S) -> Result<()> {
        let candidates = self.candidates(table, frame, select);
        let broken = |error: arrow::error::ArrowError| Error::internal(error.to_string());
        for records in candidates.chunks(LOOKUP_ROWS_MAX) {
            let data = match records.len() == frame.data.num_rows() {
                true => frame.data.clone(),
                false => take_record_batch(&frame.data, &UInt32Array::from(records.to_vec())).map_err(broken)?,
            };
            let encoded = self.codec.encode(data.columns())?;
            let mut rows = table.find_or_insert(self.encoder.batch(), records);
            rows.fetch_cells();
            for (index, &record) in records.iter().enumerate() {
                let sort = frame.sorts.row(record as usize);
                let board = rows.cell_mut(index, self.cell);
                let Some(place) = insert(board, self.rows_max, sort.data(), encoded.row(index).data()) else { continue };
                let Some(Changes { pending, word }) = self.changes else { continue };
                let row = rows.row(index);
                let changed = if row[pending.word] & pending.mask == 0 { 0 } else { row[word] };
                row[pending.word] |= pending.mask;
                row[word] = changed.max((self.rows_max - place) as u64);
            }
        }
        Ok(())
    }

    /// The records that are better than the worst of their key as it is now, or whose key has room.
    fn candidates<S: Select>(&self, table: &mut StateTable, frame: &Sorted, select: S) -> Vec<u32> {
        let (rows, found) = table.find_selected(self.encoder.batch(), select);
        let mut known = found.iter().enumerate().peekable();
        let mut candidates = Vec::new();
        for record in (0..select.len()).map(|index| select.at(index) as u32) {
            let is_known = known.next_if(|(_, found)| **found == record);
            let board = is_known.and_then(|(row, _)| {
                if row.is_multiple_of(FETCHED_BOARDS) {
                    rows.fetch_cell(self.cell, row..rows.len().min(row + FETCHED_BOARDS));
                }
                rows.cell(row, self.cell).map(Board::new)
            });
            let sort = frame.sorts.row(record as usize);
            if board.is_none_or(|board| board.takes(sort.data(), self.rows_max)) {
                candidates.push(record);
            }
        }
        candidates
    }

    /// The rows on these boards with their ranks, or those whose places changed.
    pub(crate) fn read(&self, rows: &RowsRead<'_>, is_changed: bool) -> Result<(RecordBatch, ArrayRef)> {
        let (mut found, mut ranks) = (Vec::new(), Vec::new());
        for row in 0..rows.len() {
            let board = Board::new(rows.cell(row, self.cell).unwrap_or_default());
            let first = match self.changes.filter(|_| is_changed) {
                Some(changes) => self.rows_max.saturating_sub(rows.word(row, changes.word) as usize),
                None => 0,
            };
            let before = found.len();
            for (place, entry) in board.entries().enumerate().skip(first) {
                found.push(entry.row);
                ranks.push(place as i64 + 1);
            }
            if found.len() - before != board.rows().saturating_sub(first) {
                return Err(Error::checkpoint("the state of top_n is damaged: the rows of a key are not all there"));
            }
        }
        Ok((self.codec.decode(found)?, Arc::new(Int64Array::from(ranks))))
    }
}
