//! Columns of files that have types, in the types of a stream: exactly, or with the records that do not fit.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array, new_null_array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{Field, SchemaRef};
use mill_frame::convert::exact;
use mill_frame::text::record_json;
use mill_frame::types::{plain_array, plain_type, too_many_digits};
use mill_protocol::{Error, Read, Rejected, Result};

/// What came of converting something.
pub(crate) enum Fit<T> {
    All(T),
    /// Column and value that do not fit, and why.
    Not(String),
}

/// A column of a file in the type of this field.
pub(crate) fn column(path: &Path, mut column: ArrayRef, field: &Field) -> Result<Fit<ArrayRef>> {
    let name = field.name();
    if column.data_type() != field.data_type() {
        let plain = plain_type(column.data_type());
        column = plain_array(&column, &plain)
            .map_err(|e| Error::connector(format!("cannot read {path:?}: column {name:?} is damaged; write the file again")).because(e))?;
    }
    // A type that is converted below may hold what the type of the file does not.
    if let Some(digits) = too_many_digits(&column) {
        return Ok(Fit::Not(format!("column {name:?}: {}", digits.message)));
    }
    if column.data_type() != field.data_type() {
        return Ok(match exact(&column, field.data_type()) {
            Ok(column) => Fit::All(column),
            Err(inexact) => Fit::Not(format!("column {name:?}: {inexact}")),
        });
    }
    Ok(Fit::All(column))
}

/// Rows of a file in the columns of a schema, null in those that it does not have. `found` returns each of the others.
pub(crate) fn rows(
    path: &Path,
    schema: &SchemaRef,
    is_missing: &[bool],
    rows: usize,
    mut found: impl FnMut(&Field) -> Result<Fit<ArrayRef>>,
) -> Result<Fit<RecordBatch>> {
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(is_missing.len());
    for (field, is_missing) in schema.fields().iter().zip(is_missing) {
        if *is_missing {
            columns.push(new_null_array(field.data_type(), rows));
            continue;
        }
        match found(field)? {
            Fit::All(column) => columns.push(column),
            Fit::Not(what) => return Ok(Fit::Not(what)),
        }
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
        .map(Fit::All)
        .map_err(|e| Error::schema(format!("{path:?} does not fit its schema: {e}")).because(e))
}

/// The rows of a batch that fit, and the others as records that were rejected. `fit` converts some rows, and `number` is the
/// number in its file of a row of the batch, from 1.
pub(crate) fn read(
    path: &Path,
    schema: &SchemaRef,
    batch: &RecordBatch,
    number: impl Fn(usize) -> u64,
    shown: impl Fn(&RecordBatch) -> String,
    fit: impl Fn(&RecordBatch, Option<usize>) -> Result<Fit<RecordBatch>>,
) -> Result<Read> {
    if let Fit::All(batch) = fit(batch, None)? {
        return Ok(Read::Batch(batch));
    }
    let mut kept = vec![RecordBatch::new_empty(Arc::clone(schema))];
    let mut rejected = Vec::new();
    for row in 0..batch.num_rows() {
        let one = alone(batch, row)?;
        match fit(&one, Some(row))? {
            Fit::All(batch) => kept.push(batch),
            Fit::Not(what) => rejected.push(Rejected::new(format!("{path:?}: row {}, {what}", number(row)), shown(&one))),
        }
    }
    let kept = concat_batches(schema, &kept).map_err(|e| Error::connector(format!("cannot read {path:?}: {e}")).because(e))?;
    Ok(Read::Partial(kept, rejected))
}

/// A row by itself. It is taken, not sliced: of a slice, the elements of other rows' lists would be looked at too.
pub(crate) fn alone(batch: &RecordBatch, row: usize) -> Result<RecordBatch> {
    take_record_batch(batch, &UInt32Array::from(vec![row as u32])).map_err(|e| Error::internal(e.to_string()))
}

/// A row as JSON.
pub(crate) fn record(row: &RecordBatch) -> String {
    record_json(row, 0)
}
