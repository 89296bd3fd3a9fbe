//! Toy sources, operators and sinks, and the graphs made of them.

mod event_time;
mod flaky;
mod graphs;
mod sink;
mod source;
mod window_sum;

pub use event_time::EventTime;
pub use flaky::{Dice, flaky};
pub use graphs::*;
pub use sink::MemorySink;
pub use source::{MemorySource, Record};
pub use window_sum::{KeyedSum, WindowSum};

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};

/// A schema of integer columns with these names.
pub fn integers(names: &[&str]) -> SchemaRef {
    Arc::new(Schema::new(names.iter().map(|name| Field::new(*name, DataType::Int64, false)).collect::<Vec<_>>()))
}

/// A batch of integer rows.
pub fn batch_of(names: &[&str], rows: &[Vec<i64>]) -> RecordBatch {
    let columns: Vec<ArrayRef> = (0..names.len())
        .map(|column| Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row[column]))) as ArrayRef)
        .collect();
    RecordBatch::try_new(integers(names), columns).unwrap()
}

/// The rows of a batch of integers.
pub fn rows_of(batch: &RecordBatch) -> Vec<Vec<i64>> {
    let columns: Vec<_> = batch.columns().iter().map(|column| column.as_primitive::<Int64Type>()).collect();
    (0..batch.num_rows()).map(|row| columns.iter().map(|column| column.value(row)).collect()).collect()
}

/// Numbers drawn from a seed.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let mut z = self.0 ^ (self.0 >> 33);
        z = z.wrapping_mul(0xff51afd7ed558ccd);
        (z ^ (z >> 29)) % limit
    }
}
