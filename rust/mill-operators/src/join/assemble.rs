//! Joined rows out of the columns of both sides.
//!
//! A join finds out which row of which side goes where; the rows of each side are gathered column by column, and the columns
//! become those of the result. The columns of a side that is not there are null.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::kernels::zip::zip;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use mill_plan::JoinedColumn;
use mill_protocol::{Error, Result};

use crate::windows::time_values;

/// Puts the columns of joined rows together.
pub(crate) struct Assembler {
    schema: SchemaRef,
    columns: Vec<From>,
    /// The columns of each side's input that the result has.
    kept: [Vec<usize>; 2],
}

/// Where a column comes from; columns of sides are places among those that are kept.
#[derive(Clone, Copy, Debug)]
enum From {
    Side(usize, usize),
    Key(usize, usize),
    WindowStart,
    WindowEnd,
}

/// The bounds of the window of each row.
pub(crate) struct Bounds<'a> {
    pub(crate) starts: &'a [i64],
    pub(crate) ends: &'a [i64],
}

impl Assembler {
    /// For a result with these columns.
    pub(crate) fn new(columns: &[JoinedColumn], schema: &SchemaRef) -> Assembler {
        let mut kept = [Vec::new(), Vec::new()];
        let mut place = |side: usize, column: usize| {
            let kept: &mut Vec<usize> = &mut kept[side];
            kept.iter().position(|&other| other == column).unwrap_or_else(|| {
                kept.push(column);
                kept.len() - 1
            })
        };
        let columns = columns
            .iter()
            .map(|column| match *column {
                JoinedColumn::Left(column) => From::Side(0, place(0, column)),
                JoinedColumn::Right(column) => From::Side(1, place(1, column)),
                JoinedColumn::Key { left, right } => From::Key(place(0, left), place(1, right)),
                JoinedColumn::WindowStart => From::WindowStart,
                JoinedColumn::WindowEnd => From::WindowEnd,
            })
            .collect();
        Assembler { schema: Arc::clone(schema), columns, kept }
    }

    /// The columns of a side that the result needs.
    pub(crate) fn kept_schema(&self, side: usize, input: &SchemaRef) -> Result<SchemaRef> {
        let schema = input.project(&self.kept[side]).map_err(|error| Error::internal(error.to_string()))?;
        // State does not depend on whether the plan knows that a column has no nulls.
        let fields: Vec<Field> =
            schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
        Ok(Arc::new(Schema::new(fields)))
    }

    /// The columns of the result, with places among those that are kept.
    pub(crate) fn kept_columns(&self) -> Vec<JoinedColumn> {
        let column = |from: &From| match *from {
            From::Side(0, place) => JoinedColumn::Left(place),
            From::Side(_, place) => JoinedColumn::Right(place),
            From::Key(left, right) => JoinedColumn::Key { left, right },
            From::WindowStart => JoinedColumn::WindowStart,
            From::WindowEnd => JoinedColumn::WindowEnd,
        };
        self.columns.iter().map(column).collect()
    }

    /// The type of the bounds of windows, if the result has them.
    pub(crate) fn bound_type(&self) -> Option<&DataType> {
        let place = self.columns.iter().position(|from| matches!(from, From::WindowStart | From::WindowEnd))?;
        Some(self.schema.field(place).data_type())
    }

    /// Those of a side's columns.
    pub(crate) fn columns_of(&self, side: usize, columns: &[ArrayRef]) -> Vec<ArrayRef> {
        self.kept[side].iter().map(|&column| ArrayRef::clone(&columns[column])).collect()
    }

    /// So many rows of the gathered columns of both sides, of which the left one is there where `is_left` says so: where it is not,
    /// the key is that of the right one.
    ///
    /// # Panics
    /// If no side is there.
    pub(crate) fn rows_of_either(
        &self,
        sides: [Option<&[ArrayRef]>; 2],
        rows: usize,
        is_left: &BooleanArray,
    ) -> Result<RecordBatch> {
        let ([Some(left), Some(right)], true) = (sides, is_left.has_false()) else { return self.rows(sides, rows, None) };
        let mut left = left.to_vec();
        for from in &self.columns {
            if let From::Key(place, other) = *from {
                left[place] = zip(is_left, &left[place], &right[other]).map_err(|error| Error::internal(error.to_string()))?;
            }
        }
        self.rows([Some(&left), Some(right)], rows, None)
    }

    /// So many rows of the gathered columns of both sides, or of the one that is there.
    ///
    /// # Panics
    /// If no side is there.
    pub(crate) fn rows(
        &self,
        sides: [Option<&[ArrayRef]>; 2],
        rows: usize,
        bounds: Option<&Bounds<'_>>,
    ) -> Result<RecordBatch> {
        assert!(sides.iter().any(Option::is_some), "a joined row has at least one side");
        let mut columns = Vec::with_capacity(self.columns.len());
        for (from, field) in self.columns.iter().zip(self.schema.fields()) {
            let time = |times: Option<&[i64]>| {
                let times = times.ok_or_else(|| Error::internal("a join without windows has bounds of windows"))?;
                time_values(times.iter().map(|&time| Some(time)), field.data_type())
            };
            columns.push(match *from {
                From::Side(side, place) => match sides[side] {
                    Some(columns) => ArrayRef::clone(&columns[place]),
                    None => new_null_array(field.data_type(), rows),
                },
                From::Key(left, right) => match sides {
                    [Some(columns), _] => ArrayRef::clone(&columns[left]),
                    [None, columns] => ArrayRef::clone(&columns.unwrap_or_default()[right]),
                },
                From::WindowStart => time(bounds.map(|bounds| bounds.starts))?,
                From::WindowEnd => time(bounds.map(|bounds| bounds.ends))?,
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)
            .map_err(|error| Error::internal(error.to_string()))
    }
}
