//! A user's aggregate: the cell holds the state's bytes, the function does the rest.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array, new_empty_array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{cast, take};
use arrow::datatypes::DataType;
use mill_plan::{AggregateFunction, ScalarValue};
use mill_protocol::{Error, Result};
use mill_state::{LayoutBuilder, Rows, RowsRead, Select};

use super::input::{Input, passes};
use super::{Accumulator, Problems, Selection};

/// A user's aggregate.
pub(super) struct User {
    input: Input,
    function: Arc<dyn AggregateFunction>,
    output: DataType,
    cell: usize,
    values: Option<ArrayRef>,
    filter: Option<BooleanBuffer>,
}

impl User {
    pub(super) fn new(
        input: Input,
        function: Arc<dyn AggregateFunction>,
        output: &DataType,
        layout: &mut LayoutBuilder,
    ) -> User {
        User { input, function, output: output.clone(), cell: layout.cell(), values: None, filter: None }
    }

    fn call(&self, rows: &mut Rows<'_>, first: usize, records: &[u32]) -> Result<()> {
        let values = self.values.as_ref().expect("prepared");
        let of_key = take(values, &UInt32Array::from(records.to_vec()), None)
            .map_err(|error| Error::internal(error.to_string()))?;
        let cell = rows.cell(first, self.cell);
        let state = self.function.update(cell.bytes(), &of_key)?;
        cell.set(&state);
        Ok(())
    }
}

/// The records of each row, in order, by the first of them; rows in the order of their first records.
pub(crate) fn by_row(rows: &Rows<'_>, is_in: impl Fn(usize) -> bool) -> Vec<(usize, Vec<usize>)> {
    let mut places: HashMap<usize, usize> = HashMap::new();
    let mut groups: Vec<(usize, Vec<usize>)> = Vec::new();
    for i in (0..rows.len()).filter(|&i| is_in(i)) {
        let place = *places.entry(rows.identity(i)).or_insert_with(|| {
            groups.push((i, Vec::new()));
            groups.len() - 1
        });
        groups[place].1.push(i);
    }
    groups
}

impl Accumulator for User {
    fn prepare(&mut self, batch: &RecordBatch, _hashes: &[u64]) -> Result<()> {
        self.values = Some(self.input.plain(batch, 0)?);
        self.filter = self.input.filter(batch)?;
        Ok(())
    }

    fn update(&mut self, rows: &mut Rows<'_>, select: Selection<'_>, problems: &mut Problems) -> Result<()> {
        for (first, of_key) in by_row(rows, |i| passes(self.filter.as_ref(), select.at(i))) {
            let records: Vec<u32> = of_key.iter().map(|&i| select.at(i) as u32).collect();
            let Err(error) = self.call(rows, first, &records) else { continue };
            if let [record] = records[..] {
                problems.push((record as usize, error));
                continue;
            }
            // The function changed nothing, so each record is tried by itself and the failing ones are reported.
            for record in records {
                if let Err(error) = self.call(rows, first, &[record]) {
                    problems.push((record as usize, error));
                }
            }
        }
        Ok(())
    }

    fn finish(&self, rows: &RowsRead<'_>) -> Result<ArrayRef> {
        if rows.is_empty() {
            return Ok(new_empty_array(&self.output));
        }
        let mut results = Vec::with_capacity(rows.len());
        for row in 0..rows.len() {
            results.push(self.function.finish(rows.cell(row, self.cell))?);
        }
        let array = ScalarValue::iter_to_array(results).map_err(|error| {
            Error::schema(format!("aggregate {:?} returned results of different types: {error}", self.function.name()))
        })?;
        cast(&array, &self.output).map_err(|error| {
            Error::schema(format!("aggregate {:?} should return {}: {error}", self.function.name(), self.output))
        })
    }

    fn is_costly(&self) -> bool {
        true
    }
}
