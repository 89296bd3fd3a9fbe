//! Code shared by the steps that look up rows of one input for the rows of another.
//!
//! ```text
//!   right rows ──► RowStore    columns, by position (the order of arrival)       in memory, probed
//!        └───────► Runs        the same rows, many to an entry                   in the state, restored from
//!
//!   left rows ──keys──► position of the match ──► Joined: left columns + right columns gathered at the positions
//! ```
//!
//! Rows are probed a batch at a time: keys are encoded and looked up together, and columns are gathered together.

mod joined;
mod order;
mod runs;
mod store;

use arrow::array::{Array, ArrayRef};
use arrow::buffer::NullBuffer;
use arrow::datatypes::SchemaRef;
use mill_protocol::{Batch, Error, Result};
use mill_state::KeyEncoder;

pub(crate) use self::joined::Joined;
pub(crate) use self::order::{OutOfOrder, put_in_order};
pub(crate) use self::runs::{Runs, Written};
pub(crate) use self::store::{NO_ROW, RowStore};
use crate::accumulator::state_error;

/// The key columns of one input.
pub(crate) struct Keys {
    columns: Vec<usize>,
    encoder: KeyEncoder,
}

impl Keys {
    pub(crate) fn new(schema: &SchemaRef, columns: &[usize]) -> Result<Keys> {
        let types: Vec<_> = columns.iter().map(|&column| schema.field(column).data_type().clone()).collect();
        Ok(Keys { columns: columns.to_vec(), encoder: KeyEncoder::new(&types).map_err(state_error)? })
    }

    pub(crate) fn encoder(&self) -> &KeyEncoder {
        &self.encoder
    }

    /// The words of the keys of these columns, if one word holds a key, and which of them are null.
    pub(crate) fn words(&mut self, columns: &[ArrayRef], rows: usize) -> Result<Option<(&[u64], Option<NullBuffer>)>> {
        let keys: Vec<ArrayRef> = self.columns.iter().map(|&column| ArrayRef::clone(&columns[column])).collect();
        let words = self.encoder.encode_words(&keys, rows).map_err(state_error)?;
        let nulls = keys.first().and_then(|key| key.logical_nulls()).filter(|nulls| nulls.null_count() > 0);
        Ok(words.map(|words| (words, nulls)))
    }

    /// Encodes the keys of these columns; returns the rows whose key has no null, or `None` if that is all of them.
    pub(crate) fn encode(&mut self, columns: &[ArrayRef], rows: usize) -> Result<Option<Vec<u32>>> {
        let keys: Vec<ArrayRef> = self.columns.iter().map(|&column| ArrayRef::clone(&columns[column])).collect();
        self.encoder.encode(&keys, rows).map_err(state_error)?;
        let nulls: Vec<_> = keys.iter().filter_map(|key| key.logical_nulls()).filter(|nulls| nulls.null_count() > 0).collect();
        if nulls.is_empty() {
            return Ok(None);
        }
        let is_whole = |row: &u32| nulls.iter().all(|nulls| nulls.is_valid(*row as usize));
        Ok(Some((0..rows as u32).filter(is_whole).collect()))
    }
}

/// The records of a batch that came after the watermark had passed them, and the others; `None` of late ones if there are none.
pub(crate) fn split_late(batch: &Batch, watermark: i64) -> Result<Option<(Vec<u32>, Vec<u32>)>> {
    let times = batch.times().ok_or_else(|| Error::internal("a join by time needs event time"))?;
    let is_late = |row: usize| times[row] < batch.behind().map_or(watermark, |behind| behind[row].max(watermark));
    if !(0..times.len()).any(is_late) {
        return Ok(None);
    }
    Ok(Some((0..times.len() as u32).partition(|&row| is_late(row as usize))))
}

/// The rows of a batch at these places.
pub(crate) fn taken(batch: &Batch, rows: Vec<u32>) -> Result<Batch> {
    batch.take(&rows.into()).map_err(|error| Error::internal(error.to_string()))
}
