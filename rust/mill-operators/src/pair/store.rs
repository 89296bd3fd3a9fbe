//! Rows in memory, as columns, each at a position: the number of rows that came before it.
//!
//! ```text
//!   part 0: rows 0 ..      part 1: rows 4000 ..      part 2: rows 6000 ..        each at least twice as long as the next
//! ```
//!
//! A part that is at most twice as long as the one after it is joined with it, so there are few parts, and each row is
//! copied a few times. Positions do not change by that.

use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array, new_null_array};
use arrow::compute::{concat_batches, interleave, take};
use arrow::datatypes::SchemaRef;
use mill_protocol::{Error, Result};

/// The position of no row, whose columns are null.
pub(crate) const NO_ROW: u32 = u32::MAX;
/// Parts are joined up to this many rows.
const PART_ROWS_MAX: usize = 1 << 22;

struct Part {
    start: u32,
    data: RecordBatch,
}

impl Part {
    fn end(&self) -> usize {
        self.start as usize + self.data.num_rows()
    }
}

/// Rows by position.
pub(crate) struct RowStore {
    schema: SchemaRef,
    parts: Vec<Part>,
}

impl RowStore {
    pub(crate) fn new(schema: SchemaRef) -> RowStore {
        RowStore { schema, parts: Vec::new() }
    }

    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// How many rows there are.
    pub(crate) fn rows(&self) -> usize {
        self.parts.last().map_or(0, Part::end)
    }

    /// Adds rows after all others; returns the position of the first.
    ///
    /// # Errors
    /// When there would be more rows than positions.
    pub(crate) fn push(&mut self, data: RecordBatch) -> Result<u32> {
        let start = self.rows();
        if start + data.num_rows() >= NO_ROW as usize {
            return Err(Error::data(format!("a join keeps at most {NO_ROW} rows in a task; raise the parallelism")));
        }
        let start = start as u32;
        if data.num_rows() > 0 {
            self.parts.push(Part { start, data });
            self.join_parts();
        }
        Ok(start)
    }

    fn join_parts(&mut self) {
        while let [.., before, last] = &self.parts[..] {
            let rows = before.data.num_rows() + last.data.num_rows();
            if before.data.num_rows() > 2 * last.data.num_rows() || rows > PART_ROWS_MAX {
                return;
            }
            // Text can be too much for the offsets of one column; then the parts stay two.
            let Ok(data) = concat_batches(&self.schema, [&before.data, &last.data]) else { return };
            let start = before.start;
            self.parts.truncate(self.parts.len() - 2);
            self.parts.push(Part { start, data });
        }
    }

    /// The rows from this position on, at most so many, as they are in one part; `None` after the last.
    pub(crate) fn piece(&self, from: usize, rows_max: usize) -> Option<RecordBatch> {
        let part = self.parts.iter().find(|part| part.end() > from)?;
        let skipped = from - part.start as usize;
        Some(part.data.slice(skipped, rows_max.min(part.data.num_rows() - skipped)))
    }

    /// Joins all parts, as far as the offsets of text allow.
    pub(crate) fn unite(&mut self) {
        if self.parts.len() < 2 {
            return;
        }
        if let Ok(data) = concat_batches(&self.schema, self.parts.iter().map(|part| &part.data)) {
            self.parts = vec![Part { start: 0, data }];
        }
    }

    /// These columns of the rows at these positions; [`NO_ROW`] makes nulls.
    pub(crate) fn gather(&self, columns: &[usize], positions: &[u32]) -> Result<Vec<ArrayRef>> {
        let failed = |error: arrow::error::ArrowError| Error::data(format!("the rows of a join do not fit into one frame: {error}"));
        if columns.is_empty() {
            return Ok(Vec::new());
        }
        if let [part] = &self.parts[..] {
            let has_gaps = positions.contains(&NO_ROW);
            let rows: UInt32Array = match has_gaps {
                true => positions.iter().map(|&at| (at != NO_ROW).then_some(at)).collect(),
                false => positions.to_vec().into(),
            };
            return columns.iter().map(|&column| take(part.data.column(column), &rows, None).map_err(failed)).collect();
        }
        let places: Vec<(usize, usize)> = positions.iter().map(|&at| self.place(at)).collect();
        let gathered = columns.iter().map(|&column| {
            let gap = new_null_array(self.schema.field(column).data_type(), 1);
            let mut values: Vec<&dyn Array> = self.parts.iter().map(|part| part.data.column(column).as_ref()).collect();
            values.push(gap.as_ref());
            interleave(&values, &places).map_err(failed)
        });
        gathered.collect()
    }

    /// Part and row of a position.
    fn place(&self, at: u32) -> (usize, usize) {
        if at == NO_ROW {
            return (self.parts.len(), 0);
        }
        let part = self.parts.partition_point(|part| part.start <= at) - 1;
        (part, (at - self.parts[part].start) as usize)
    }

    /// The rows at these positions, all of their columns.
    pub(crate) fn rows_at(&self, positions: &[u32]) -> Result<RecordBatch> {
        let columns: Vec<usize> = (0..self.schema.fields().len()).collect();
        let columns = self.gather(&columns, positions)?;
        RecordBatch::try_new(SchemaRef::clone(&self.schema), columns).map_err(|error| Error::internal(error.to_string()))
    }
}
