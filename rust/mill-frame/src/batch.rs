//! Records inside an operator chain.

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::buffer::{BooleanBuffer, ScalarBuffer};
use arrow::compute::{filter, filter_record_batch, take, take_record_batch};
use arrow::datatypes::{DataType, Int64Type, SchemaRef};
use arrow::error::ArrowError;

/// The stable identity of a split: one independently ordered part of a source (a file, a partition of a topic).
///
/// It outlives the process, so that a restored job finds the position and the watermark of the same split again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SplitId(pub u64);

impl SplitId {
    /// The split of records that no longer come straight from a source, as after an exchange.
    pub const NONE: SplitId = SplitId(0);

    /// The identity of the split with this name; equal names have equal identities in every process.
    pub fn of(name: &str) -> SplitId {
        SplitId::of_bytes(name.as_bytes())
    }

    /// The same for a name that need not be text.
    pub fn of_bytes(name: &[u8]) -> SplitId {
        SplitId(xxhash_rust::xxh3::xxh3_64(name).max(1))
    }
}

/// A batch of records as Arrow columns, with what the stream knows of each record beside its columns.
///
/// The parts beside the columns are absent in streams that have no use for them, so a stream without event time pays
/// nothing for it. All of them have one entry a row.
///
/// # Examples
/// ```
/// use std::sync::Arc;
/// use arrow::array::{ArrayRef, Int64Array, RecordBatch};
/// use mill_frame::Batch;
///
/// let delay: ArrayRef = Arc::new(Int64Array::from(vec![5, -2, 11]));
/// let batch = Batch::new(RecordBatch::try_from_iter([("delay", delay)])?).with_times(Some(vec![30, 10, 20].into()));
/// let sorted = batch.take(&vec![1, 2, 0].into())?;
/// assert_eq!(sorted.times().unwrap().as_ref(), [10, 20, 30]);
/// # Ok::<(), arrow::error::ArrowError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Batch {
    data: RecordBatch,
    times: Option<ScalarBuffer<i64>>,
    behind: Option<ScalarBuffer<i64>>,
    deletes: Option<BooleanBuffer>,
    split: SplitId,
}

impl Batch {
    /// A batch of records without event time.
    pub fn new(data: RecordBatch) -> Batch {
        Batch { data, times: None, behind: None, deletes: None, split: SplitId::NONE }
    }

    /// The columns.
    pub fn data(&self) -> &RecordBatch {
        &self.data
    }

    /// The schema of the columns.
    pub fn schema(&self) -> SchemaRef {
        self.data.schema()
    }

    /// The column at this place.
    pub fn column(&self, index: usize) -> &ArrayRef {
        self.data.column(index)
    }

    /// How many records there are.
    pub fn rows(&self) -> usize {
        self.data.num_rows()
    }

    /// Event time of each record, in microseconds since the epoch; `None` in a stream without event time.
    pub fn times(&self) -> Option<&ScalarBuffer<i64>> {
        self.times.as_ref()
    }

    /// For each record the watermark of its own split when it was read, in microseconds.
    ///
    /// Present only when at least one record is behind that watermark: without it no record of the batch can be late
    /// for anything. It depends on the order of the split alone, never on threads or timing, which is what makes
    /// lateness the same in every run.
    pub fn behind(&self) -> Option<&ScalarBuffer<i64>> {
        self.behind.as_ref()
    }

    /// In an updating stream: which rows withdraw the row of their key instead of setting it; `None` means none does.
    pub fn deletes(&self) -> Option<&BooleanBuffer> {
        self.deletes.as_ref()
    }

    /// The split the records were read from.
    pub fn split(&self) -> SplitId {
        self.split
    }

    /// The same records with event times.
    ///
    /// # Panics
    /// If there is not one time a row.
    pub fn with_times(mut self, times: Option<ScalarBuffer<i64>>) -> Batch {
        assert!(times.as_ref().is_none_or(|t| t.len() == self.rows()), "times must have one entry a row");
        self.times = times;
        self
    }

    /// The same records with the watermark each was read behind.
    ///
    /// # Panics
    /// If there is not one entry a row.
    pub fn with_behind(mut self, behind: Option<ScalarBuffer<i64>>) -> Batch {
        assert!(behind.as_ref().is_none_or(|b| b.len() == self.rows()), "behind must have one entry a row");
        self.behind = behind;
        self
    }

    /// The same records, some of them withdrawing the row of their key.
    ///
    /// # Panics
    /// If there is not one entry a row.
    pub fn with_deletes(mut self, deletes: Option<BooleanBuffer>) -> Batch {
        assert!(deletes.as_ref().is_none_or(|d| d.len() == self.rows()), "deletes must have one entry a row");
        self.deletes = deletes;
        self
    }

    /// The same records as coming from this split.
    pub fn with_split(mut self, split: SplitId) -> Batch {
        self.split = split;
        self
    }

    /// Other columns for the same records, row by row; what the stream knows of each record stays.
    ///
    /// # Panics
    /// If the number of rows differs.
    pub fn with_data(mut self, data: RecordBatch) -> Batch {
        assert_eq!(data.num_rows(), self.rows(), "with_data keeps the rows; use take or filter to change them");
        self.data = data;
        self
    }

    /// The rows from `offset`, `length` of them, without a copy.
    pub fn slice(&self, offset: usize, length: usize) -> Batch {
        Batch {
            data: self.data.slice(offset, length),
            times: self.times.as_ref().map(|t| t.slice(offset, length)),
            behind: self.behind.as_ref().map(|b| b.slice(offset, length)),
            deletes: self.deletes.as_ref().map(|d| d.slice(offset, length)),
            split: self.split,
        }
    }

    /// The rows at these places, in this order; a row may come several times (as `explode` needs).
    ///
    /// # Errors
    /// When an index is out of bounds, or a column outgrows its offsets.
    pub fn take(&self, rows: &UInt32Array) -> Result<Batch, ArrowError> {
        let data = match self.data.num_columns() {
            0 => {
                let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
                RecordBatch::try_new_with_options(self.data.schema(), Vec::new(), &options)?
            }
            _ => take_record_batch(&self.data, rows)?,
        };
        self.reindex(data, rows)
    }

    /// Other columns, already gathered, whose row `i` stems from this batch's row `rows[i]`.
    ///
    /// # Errors
    /// When an index is out of bounds.
    pub fn reindex(&self, data: RecordBatch, rows: &UInt32Array) -> Result<Batch, ArrowError> {
        let gather = |values: &ScalarBuffer<i64>| -> ScalarBuffer<i64> {
            rows.values().iter().map(|&row| values[row as usize]).collect()
        };
        let deletes = match &self.deletes {
            None => None,
            Some(d) => {
                let taken = take(&BooleanArray::new(d.clone(), None), rows, None)?;
                Some(arrow::array::AsArray::as_boolean(taken.as_ref()).values().clone())
            }
        };
        Ok(Batch {
            data,
            times: self.times.as_ref().map(gather),
            behind: self.behind.as_ref().map(gather),
            deletes,
            split: self.split,
        })
    }

    /// The rows for which the mask is true (a null counts as false).
    ///
    /// # Errors
    /// When the mask has another length than the batch.
    pub fn filter(&self, mask: &BooleanArray) -> Result<Batch, ArrowError> {
        let column = |values: &Option<ScalarBuffer<i64>>| -> Result<Option<ScalarBuffer<i64>>, ArrowError> {
            let Some(values) = values else { return Ok(None) };
            let array = arrow::array::Int64Array::new(values.clone(), None);
            let kept = filter(&array, mask)?;
            debug_assert_eq!(kept.data_type(), &DataType::Int64);
            Ok(Some(arrow::array::AsArray::as_primitive::<Int64Type>(kept.as_ref()).values().clone()))
        };
        let deletes = match &self.deletes {
            None => None,
            Some(d) => {
                let kept = filter(&BooleanArray::new(d.clone(), None), mask)?;
                Some(arrow::array::AsArray::as_boolean(kept.as_ref()).values().clone())
            }
        };
        Ok(Batch {
            data: filter_record_batch(&self.data, mask)?,
            times: column(&self.times)?,
            behind: column(&self.behind)?,
            deletes,
            split: self.split,
        })
    }
}

impl From<RecordBatch> for Batch {
    fn from(data: RecordBatch) -> Batch {
        Batch::new(data)
    }
}

#[cfg(test)]
mod tests;
