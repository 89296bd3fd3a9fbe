//! Records that are already in memory.
//!
//! ```text
//!   batches   [0 ── 1000)[1000 ── 1700)[1700 ── 5000)
//!   splits    |  rows 0..n   |  rows n..2n  |  …        cut by the numbers of rows and columns only, so equal in every run
//! ```
//!
//! Batches are handed on as slices, without a copy. A position is the number of rows returned within the split, with the
//! total of the table: other data under the same position is refused. A job that goes on has the splits that it began with, also
//! if they were cut by other numbers.

use std::fmt;
use std::sync::{Arc, OnceLock};

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use mill_frame::{Batch, Frame};
use mill_frame::types::{check_fields, plain_batch, plain_schema, type_name};
use mill_protocol::{Error, Position, Read, Result, Source, SourceProperties, Split, SplitId, SplitReader, SplitState, go_on};
use xxhash_rust::xxh3::Xxh3;

/// A split is not cut smaller than this many rows, or this many values if rows have many columns.
const SPLIT_ROWS_MIN: u64 = 32 * 1024;
const SPLIT_VALUES_MIN: u64 = 2 << 20;
/// A table is cut into at most about this many splits.
const SPLITS_MAX: u64 = 64;
/// How many rows at either end tell a table from most others.
const ENDS_ROWS: usize = 1024;

/// A table in memory as a bounded, replayable source.
#[derive(Clone)]
pub struct MemorySource {
    name: String,
    schema: SchemaRef,
    table: Arc<Table>,
    /// How many columns the table has, whichever of them are read: where it is cut depends on that.
    columns: usize,
}

/// The batches, and at which row each begins.
struct Table {
    batches: Vec<RecordBatch>,
    starts: Vec<u64>,
    rows: u64,
    content: OnceLock<Option<u64>>,
}

impl MemorySource {
    /// A source of these batches, which must all have this schema; their columns are laid out in the plain form of their
    /// types.
    ///
    /// # Errors
    /// When a batch has other columns than the schema, or the schema has columns that no stream carries.
    pub fn new(schema: SchemaRef, batches: Vec<RecordBatch>) -> Result<MemorySource> {
        check_fields(schema.fields()).map_err(|e| Error::schema(e.to_string()))?;
        let plain = Arc::new(plain_schema(&schema));
        let mut kept = Vec::with_capacity(batches.len());
        for (index, batch) in batches.into_iter().enumerate() {
            let same = batch.num_columns() == schema.fields().len()
                && batch.schema_ref().fields().iter().zip(schema.fields()).all(|(a, b)| {
                    a.name() == b.name() && a.data_type() == b.data_type()
                });
            if !same {
                return Err(Error::schema(format!(
                    "batch {index} has other columns than the schema: {} against {}",
                    columns(batch.schema_ref()),
                    columns(&schema)
                )));
            }
            if batch.num_rows() > 0 {
                kept.push(plain_batch(&batch, &plain).map_err(|e| Error::schema(e.to_string()))?);
            }
        }
        let columns = plain.fields().len();
        Ok(MemorySource { name: "from_arrow".to_owned(), schema: plain, table: Arc::new(Table::new(kept)), columns })
    }

    /// The same source under another name for messages and `explain()`, without the number of rows.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<String>) -> MemorySource {
        self.name = name.into();
        self
    }

    fn split(&self, start: u64, end: u64) -> Split {
        let name = if end == u64::MAX { "memory".to_owned() } else { format!("memory rows {start}-{end}") };
        Split::with_detail(SplitId::of(&name), name, [start.to_le_bytes(), end.to_le_bytes()].concat())
    }

    fn split_rows_min(&self) -> u64 {
        (SPLIT_VALUES_MIN / (self.columns as u64).max(1)).clamp(1, SPLIT_ROWS_MIN)
    }

    fn split_rows(&self) -> u64 {
        self.table.rows.div_ceil(SPLITS_MAX).max(self.split_rows_min())
    }

    /// Whether these splits are the whole table, cut where another version may have cut it; sorts them by their rows.
    fn is_made_of(&self, left: &mut [SplitState]) -> bool {
        let bounds = |state: &SplitState| decode(&state.split.detail);
        left.sort_by_key(bounds);
        let mut next = 0;
        let is_gapless = left.iter().map(bounds).all(|bounds| match bounds {
            Some((start, end)) => {
                let is_next = start == next && end > start && (start == 0 || start < self.table.rows);
                next = end;
                is_next
            }
            None => false,
        });
        is_gapless && next >= self.table.rows
    }
}

fn columns(schema: &Schema) -> String {
    let columns: Vec<String> =
        schema.fields().iter().map(|field| format!("{}: {}", field.name(), type_name(field.data_type()))).collect();
    format!("({})", columns.join(", "))
}

impl Table {
    fn new(batches: Vec<RecordBatch>) -> Table {
        let mut starts = Vec::with_capacity(batches.len());
        let mut rows = 0;
        for batch in &batches {
            starts.push(rows);
            rows += batch.num_rows() as u64;
        }
        Table { batches, starts, rows, content: OnceLock::new() }
    }

    /// A hash of the first and the last records.
    fn ends(&self) -> Option<u64> {
        let first = self.batches.first().map(|batch| batch.slice(0, batch.num_rows().min(ENDS_ROWS)));
        let last = self.batches.last().map(|batch| {
            let rows = batch.num_rows().min(ENDS_ROWS);
            batch.slice(batch.num_rows() - rows, rows)
        });
        hash([first, last].into_iter().flatten())
    }

    /// A hash of all records; `None` if they cannot be written into frames.
    fn content(&self) -> Option<u64> {
        *self.content.get_or_init(|| hash(self.batches.iter().cloned()))
    }
}

fn hash(batches: impl Iterator<Item = RecordBatch>) -> Option<u64> {
    let mut hash = Xxh3::new();
    for batch in batches {
        hash.update(Frame::encode(&Batch::new(batch)).ok()?.as_bytes());
    }
    Some(hash.digest())
}

impl fmt::Debug for MemorySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemorySource").field("name", &self.name).field("rows", &self.table.rows).finish()
    }
}

impl Source for MemorySource {
    fn name(&self) -> String {
        format!("{}({})", self.name, mill_frame::words::counted(self.table.rows, "row"))
    }

    fn identity(&self) -> Option<String> {
        Some(format!("{}({} rows) {:?} {:016x}", self.name, self.table.rows, self.schema, self.table.content()?))
    }

    fn quick_identity(&self) -> Option<String> {
        Some(format!("{} {:?} {} {:016x}", self.name, self.schema, self.table.rows, self.table.ends()?))
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn properties(&self) -> SourceProperties {
        SourceProperties { is_bounded: true, is_replayable: true, discovers_splits: false, may_block: false }
    }

    fn splits(&self, is_ordered: bool) -> Result<Vec<Split>> {
        if is_ordered || self.table.rows <= self.split_rows_min() {
            return Ok(vec![self.split(0, u64::MAX)]);
        }
        let step = self.split_rows();
        let cuts = (0..self.table.rows).step_by(step as usize);
        Ok(cuts.map(|start| self.split(start, start + step)).collect())
    }

    fn resume(&self, is_ordered: bool, mut left: Vec<SplitState>) -> Result<Vec<SplitState>> {
        if !is_ordered && self.is_made_of(&mut left) {
            return Ok(left);
        }
        go_on(&self.name(), self.splits(is_ordered)?, left)
    }

    fn open(&self, split: &Split, position: Option<&[u8]>) -> Result<Box<dyn SplitReader>> {
        let (start, end) = decode(&split.detail)
            .ok_or_else(|| Error::connector(format!("{} has no split {:?}", self.name(), split.name)))?;
        let end = end.min(self.table.rows);
        let given = match position {
            None => 0,
            Some(bytes) => {
                let (given, rows) = decode(bytes)
                    .ok_or_else(|| Error::checkpoint(format!("the position in {:?} is not readable", split.name)))?;
                if rows != self.table.rows || start + given > end {
                    return Err(Error::connector(format!(
                        "{} had {} when the checkpoint was taken; resume with the same data, or start with \
                         another checkpoint directory",
                        self.name(),
                        mill_frame::words::counted(rows, "row")
                    )));
                }
                given
            }
        };
        Ok(Box::new(MemoryReader {
            table: Arc::clone(&self.table),
            schema: Arc::clone(&self.schema),
            start: start.min(end),
            at: (start + given).min(end),
            end,
        }))
    }

    fn project(&self, columns: &[usize]) -> Option<Arc<dyn Source>> {
        let schema = Arc::new(self.schema.project(columns).ok()?);
        let batches = self.table.batches.iter().map(|batch| batch.project(columns)).collect::<std::result::Result<Vec<_>, _>>().ok()?;
        // The table's own row counts are kept: a projection to no column has batches of rows without columns.
        let (starts, rows) = (self.table.starts.clone(), self.table.rows);
        let table = Table { batches, starts, rows, content: OnceLock::new() };
        Some(Arc::new(MemorySource { name: self.name.clone(), schema, table: Arc::new(table), columns: self.columns }))
    }

    fn is_single_when_ordered(&self) -> bool {
        true
    }

    fn rows_hint(&self) -> Option<u64> {
        Some(self.table.rows)
    }
}

/// Two numbers: rows returned and of the table in a position, the first row and the one after the last in a split.
fn decode(position: &[u8]) -> Option<(u64, u64)> {
    let (given, rows) = position.split_at_checked(8)?;
    Some((u64::from_le_bytes(given.try_into().ok()?), u64::from_le_bytes(rows.try_into().ok()?)))
}

struct MemoryReader {
    table: Arc<Table>,
    schema: SchemaRef,
    start: u64,
    at: u64,
    end: u64,
}

impl SplitReader for MemoryReader {
    fn next(&mut self, rows_max: usize) -> Result<Read> {
        if self.at >= self.end {
            return Ok(Read::End);
        }
        let index = self.table.starts.partition_point(|&start| start <= self.at) - 1;
        let batch = &self.table.batches[index];
        let offset = (self.at - self.table.starts[index]) as usize;
        let rows = (batch.num_rows() - offset).min(rows_max.max(1)).min((self.end - self.at) as usize);
        self.at += rows as u64;
        let slice = batch.slice(offset, rows);
        debug_assert_eq!(slice.schema_ref().fields(), self.schema.fields());
        Ok(Read::Batch(slice))
    }

    fn position(&self) -> Position {
        let mut position = (self.at - self.start).to_le_bytes().to_vec();
        position.extend_from_slice(&self.table.rows.to_le_bytes());
        position
    }
}

#[cfg(test)]
mod tests;
