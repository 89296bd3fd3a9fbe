//! The rows that a join makes of left rows and the positions of their matches.

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use mill_plan::JoinedColumn;
use mill_protocol::{Batch, Error, Result};

use super::store::{NO_ROW, RowStore};
use super::taken;

/// The columns of joined rows, each of which is of the left input or of the right one.
pub(crate) struct Joined {
    schema: SchemaRef,
    columns: Vec<Side>,
    /// The columns of the right input that are among them.
    right: Vec<usize>,
}

#[derive(Clone, Copy)]
enum Side {
    Left(usize),
    /// The place among the columns of the right input that are needed.
    Right(usize),
}

impl Joined {
    /// Every row has a left side, so a column of the key is that of the left input.
    pub(crate) fn new(schema: &SchemaRef, columns: &[JoinedColumn]) -> Result<Joined> {
        let mut right = Vec::new();
        let mut place = |column: &JoinedColumn| match *column {
            JoinedColumn::Left(place) | JoinedColumn::Key { left: place, .. } => Ok(Side::Left(place)),
            JoinedColumn::Right(place) => {
                right.push(place);
                Ok(Side::Right(right.len() - 1))
            }
            JoinedColumn::WindowStart | JoinedColumn::WindowEnd => Err(Error::internal("this join has no windows")),
        };
        let columns = columns.iter().map(&mut place).collect::<Result<Vec<Side>>>()?;
        Ok(Joined { schema: SchemaRef::clone(schema), columns, right })
    }

    /// A row for each row of `left`, beside the row of `store` at its position.
    pub(crate) fn rows(&self, left: &Batch, store: &RowStore, positions: &[u32]) -> Result<Batch> {
        let right = store.gather(&self.right, positions)?;
        let column = |from: &Side| match *from {
            Side::Left(place) => ArrayRef::clone(left.column(place)),
            Side::Right(place) => ArrayRef::clone(&right[place]),
        };
        let columns: Vec<ArrayRef> = self.columns.iter().map(column).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(left.rows()));
        let data = RecordBatch::try_new_with_options(SchemaRef::clone(&self.schema), columns, &options);
        let data = data.map_err(|error| Error::internal(format!("joined rows have other columns: {error}")))?;
        Ok(left.clone().with_data(data))
    }

    /// The same without the rows that have no match.
    pub(crate) fn matching_rows(&self, left: &Batch, store: &RowStore, positions: Vec<u32>) -> Result<Batch> {
        if !positions.contains(&NO_ROW) {
            return self.rows(left, store, &positions);
        }
        let (rows, positions): (Vec<u32>, Vec<u32>) =
            positions.iter().zip(0..).filter(|(at, _)| **at != NO_ROW).map(|(&at, row)| (row, at)).unzip();
        self.rows(&taken(left, rows)?, store, &positions)
    }
}
