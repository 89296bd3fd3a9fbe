//! An updating stream as a table: the latest row of each key, without the keys that were withdrawn.

use std::collections::HashMap;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::buffer::BooleanBuffer;
use arrow::compute::interleave_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::row::{RowConverter, SortField};
use mill_frame::FrameError;
use mill_frame::types::{canonical_array, canonical_type};
use mill_protocol::{Error, Result};

use crate::collect::Collected;
use crate::nearest::did_you_mean;

/// Superseded rows are kept until there are this many of them, and more of them than of live ones.
const SUPERSEDED_ROWS_MAX: usize = 64 * 1024;

/// What a row of an updating stream does to its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The key had no row.
    Insert,
    /// The key had another row, or the same.
    Update,
    /// The key has no row any more.
    Delete,
}

impl Change {
    /// The name in a changelog.
    pub fn as_str(self) -> &'static str {
        match self {
            Change::Insert => "insert",
            Change::Update => "update",
            Change::Delete => "delete",
        }
    }
}

/// Keeps the latest row of each key, in memory proportional to the number of keys.
#[derive(Debug)]
pub struct LatestRows {
    schema: SchemaRef,
    key: Vec<usize>,
    converter: RowConverter,
    batches: Vec<RecordBatch>,
    rows: usize,
    latest: HashMap<Box<[u8]>, (usize, usize)>,
}

impl LatestRows {
    /// An empty table of this schema, keyed by these columns.
    ///
    /// # Errors
    /// When a key column does not exist.
    pub fn new(schema: SchemaRef, key: &[String]) -> Result<LatestRows> {
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let key = key
            .iter()
            .map(|name| {
                names.iter().position(|other| other == name).ok_or_else(|| {
                    let near = did_you_mean(name, names.iter().copied());
                    Error::schema(format!("key column {name:?} is not a column of the stream{near}"))
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let fields = key.iter().map(|&index| SortField::new(canonical_type(schema.field(index).data_type()))).collect();
        let converter =
            RowConverter::new(fields).map_err(|e| Error::schema("a column of this type cannot be a key").because(e))?;
        Ok(LatestRows { schema, key, converter, batches: Vec::new(), rows: 0, latest: HashMap::new() })
    }

    /// Takes up rows, in the order they came; those marked in `deletes` withdraw the row of their key.
    ///
    /// # Errors
    /// When the columns are not those of the table.
    pub fn push(&mut self, data: RecordBatch, deletes: Option<&BooleanBuffer>) -> Result<()> {
        self.push_with(data, deletes, |_| {})
    }

    /// The same, reporting for each row what it does to its key.
    ///
    /// # Errors
    /// When the columns are not those of the table.
    pub fn push_with(
        &mut self,
        data: RecordBatch,
        deletes: Option<&BooleanBuffer>,
        mut report: impl FnMut(Change),
    ) -> Result<()> {
        let columns: std::result::Result<Vec<ArrayRef>, FrameError> =
            self.key.iter().map(|&index| canonical_array(data.column(index))).collect();
        let columns = columns.map_err(|e| Error::schema("rows do not fit the table they update").because(e))?;
        let keys = match columns.is_empty() {
            true => None,
            false => Some(
                self.converter
                    .convert_columns(&columns)
                    .map_err(|e| Error::schema("rows do not fit the table they update").because(e))?,
            ),
        };
        let batch = self.batches.len();
        for row in 0..data.num_rows() {
            // Without key columns all rows are of one key.
            let key = keys.as_ref().map(|keys| keys.row(row));
            let key: &[u8] = key.as_ref().map_or(&[], |key| key.as_ref());
            if deletes.is_some_and(|deletes| deletes.value(row)) {
                self.latest.remove(key);
                report(Change::Delete);
            } else if let Some(place) = self.latest.get_mut(key) {
                *place = (batch, row);
                report(Change::Update);
            } else {
                self.latest.insert(key.into(), (batch, row));
                report(Change::Insert);
            }
        }
        self.rows += data.num_rows();
        self.batches.push(data);
        if self.rows > 2 * self.latest.len() + SUPERSEDED_ROWS_MAX {
            self.compact()?;
        }
        Ok(())
    }

    /// How many keys have a row.
    pub fn len(&self) -> usize {
        self.latest.len()
    }

    /// Whether no key has a row.
    pub fn is_empty(&self) -> bool {
        self.latest.is_empty()
    }

    /// The table, ordered by when each row came.
    ///
    /// # Errors
    /// When the rows outgrow what one batch can hold.
    pub fn finish(mut self) -> Result<RecordBatch> {
        self.table()
    }

    /// The table as it is now, ordered by when each row came.
    ///
    /// # Errors
    /// When the rows outgrow what one batch can hold.
    pub fn table(&mut self) -> Result<RecordBatch> {
        self.compact()?;
        Ok(self.batches.first().cloned().unwrap_or_else(|| RecordBatch::new_empty(self.schema.clone())))
    }

    fn compact(&mut self) -> Result<()> {
        let mut places: Vec<(usize, usize, &mut (usize, usize))> =
            self.latest.values_mut().map(|place| (place.0, place.1, place)).collect();
        places.sort_unstable_by_key(|(batch, row, _)| (*batch, *row));
        let indices: Vec<(usize, usize)> = places.iter().map(|(batch, row, _)| (*batch, *row)).collect();
        let compacted = if indices.is_empty() {
            RecordBatch::new_empty(self.schema.clone())
        } else {
            let batches: Vec<&RecordBatch> = self.batches.iter().collect();
            interleave_record_batch(&batches, &indices)
                .map_err(|e| Error::data("the latest rows do not fit one batch").because(e))?
        };
        for (row, (_, _, place)) in places.into_iter().enumerate() {
            *place = (0, row);
        }
        self.rows = compacted.num_rows();
        self.batches = vec![compacted];
        Ok(())
    }
}

/// The latest row of each key in these batches.
///
/// # Errors
/// When a key column does not exist, or the rows outgrow one batch.
pub fn latest_rows(schema: SchemaRef, batches: &[Collected], key: &[String]) -> Result<RecordBatch> {
    let mut table = LatestRows::new(schema, key)?;
    for collected in batches {
        table.push(collected.data.clone(), collected.deletes.as_ref())?;
    }
    table.finish()
}

#[cfg(test)]
mod tests;
