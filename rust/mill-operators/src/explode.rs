//! `explode`: one record for each element of a list.
//!
//! ```text
//!   lists      [a b] [] null [c]          rows of the output, by the row they stem from
//!   offsets    0 2 2 2 3                  0 0 3            keep_empty: 0 0 1 2 3
//! ```
//!
//! Where no list is empty or null the elements already lie one after the other, and their column is a slice. A batch is
//! exploded in pieces of limited size, so that long lists don't become one huge frame.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array, UInt64Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use mill_protocol::{Batch, Error, Operator, Outbox, Progress, Result};

/// How many rows a piece of the output has, unless one list alone has more.
const ROWS_PER_PIECE: usize = 32_768;
/// How many pieces may wait in the outbox.
const PIECES_MAX: usize = 4;

/// Emits one record for each element of a list column.
pub(crate) struct Explode {
    column: usize,
    keep_empty: bool,
    schema: SchemaRef,
    /// What is left of the batch being exploded, and the element ranges of its rows.
    pending: Option<Pending>,
}

struct Pending {
    batch: Batch,
    elements: ArrayRef,
    ranges: Vec<Range>,
    next: usize,
}

/// The elements of one list: where they start, and how many.
#[derive(Clone, Copy)]
struct Range {
    start: u64,
    length: u64,
}

impl Explode {
    pub(crate) fn new(column: usize, keep_empty: bool, schema: SchemaRef) -> Explode {
        Explode { column, keep_empty, schema, pending: None }
    }
}

impl Operator for Explode {
    fn is_stateless(&self) -> bool {
        true
    }

    fn on_batch(&mut self, _input: usize, batch: Batch, out: &mut Outbox) -> Result<Progress> {
        let (elements, ranges) = lists(batch.column(self.column))?;
        self.pending = Some(Pending { batch, elements, ranges, next: 0 });
        self.resume(out)
    }

    fn resume(&mut self, out: &mut Outbox) -> Result<Progress> {
        while let Some(pending) = &mut self.pending {
            if pending.next == pending.ranges.len() {
                self.pending = None;
                break;
            }
            if out.len() >= PIECES_MAX {
                return Ok(Progress::More);
            }
            let end = piece(&pending.ranges, pending.next, self.keep_empty);
            let exploded = explode(pending, end, self.column, self.keep_empty, &self.schema);
            out.push(exploded.map_err(|error| Error::internal(format!("explode: {error}")))?);
            pending.next = end;
        }
        Ok(Progress::Done)
    }
}

/// The elements of all lists, and where each list has its own; a null list has none.
fn lists(column: &ArrayRef) -> Result<(ArrayRef, Vec<Range>)> {
    let (elements, mut ranges) = match column.data_type() {
        DataType::List(_) => {
            let lists = column.as_list::<i32>();
            (lists.values(), lists.offsets().windows(2).map(|w| range(w[0] as u64, w[1] as u64)).collect())
        }
        DataType::LargeList(_) => {
            let lists = column.as_list::<i64>();
            (lists.values(), lists.offsets().windows(2).map(|w| range(w[0] as u64, w[1] as u64)).collect())
        }
        DataType::FixedSizeList(_, size) => {
            let lists = column.as_fixed_size_list();
            let size = *size as u64;
            let first = lists.value_offset(0) as u64;
            let ranges = (0..lists.len() as u64).map(|row| range(first + row * size, first + (row + 1) * size));
            (lists.values(), ranges.collect::<Vec<Range>>())
        }
        other => return Err(Error::internal(format!("explode() of a column of type {other}"))),
    };
    if let Some(nulls) = column.nulls().filter(|nulls| nulls.null_count() > 0) {
        for (row, range) in ranges.iter_mut().enumerate() {
            if nulls.is_null(row) {
                range.length = 0;
            }
        }
    }
    Ok((ArrayRef::clone(elements), ranges))
}

fn range(start: u64, end: u64) -> Range {
    Range { start, length: end - start }
}

/// Where the piece that starts at list `from` ends.
fn piece(ranges: &[Range], from: usize, keep_empty: bool) -> usize {
    let mut rows = 0;
    for (place, range) in ranges.iter().enumerate().skip(from) {
        rows += range.length.max(u64::from(keep_empty));
        if rows > ROWS_PER_PIECE as u64 && place > from {
            return place;
        }
    }
    ranges.len()
}

fn explode(
    pending: &Pending,
    end: usize,
    column: usize,
    keep_empty: bool,
    schema: &SchemaRef,
) -> std::result::Result<Batch, ArrowError> {
    let ranges = &pending.ranges[pending.next..end];
    let batch = &pending.batch;
    let elements = elements(&pending.elements, ranges, keep_empty)?;
    if batch.data().num_columns() == 1 && batch.times().is_none() && batch.deletes().is_none() {
        // Nothing is to be repeated beside the elements.
        let data = RecordBatch::try_new(SchemaRef::clone(schema), vec![elements])?;
        return Ok(Batch::new(data).with_split(batch.split()));
    }
    let origins = origins(ranges, pending.next as u32, keep_empty, elements.len());
    let columns = batch.data().columns().iter().enumerate().map(|(place, values)| match place == column {
        true => Ok(ArrayRef::clone(&elements)),
        false => take(values, &origins, None),
    });
    let columns = columns.collect::<std::result::Result<Vec<ArrayRef>, ArrowError>>()?;
    let data = RecordBatch::try_new(SchemaRef::clone(schema), columns)?;
    batch.reindex(data, &origins)
}

/// The elements of these lists as one column.
fn elements(values: &ArrayRef, ranges: &[Range], keep_empty: bool) -> std::result::Result<ArrayRef, ArrowError> {
    let has_empty = ranges.iter().any(|range| range.length == 0);
    let is_dense = ranges.windows(2).all(|pair| pair[0].start + pair[0].length == pair[1].start);
    if is_dense && !(keep_empty && has_empty) {
        let start = ranges.first().map_or(0, |range| range.start);
        let length: u64 = ranges.iter().map(|range| range.length).sum();
        return Ok(values.slice(start as usize, length as usize));
    }
    let mut places: Vec<Option<u64>> = Vec::new();
    for range in ranges {
        places.extend((range.start..range.start + range.length).map(Some));
        if keep_empty && range.length == 0 {
            places.push(None);
        }
    }
    take(values, &UInt64Array::from(places), None)
}

/// The row each element stems from.
fn origins(ranges: &[Range], first: u32, keep_empty: bool, rows: usize) -> UInt32Array {
    let mut origins = Vec::with_capacity(rows);
    for (row, range) in (first..).zip(ranges) {
        let rows = range.length.max(u64::from(keep_empty));
        origins.extend(std::iter::repeat_n(row, rows as usize));
    }
    UInt32Array::from(origins)
}

#[cfg(test)]
mod tests;
