//! The columns of a joined row: from which side each of them is, and what it is called.
//!
//! ```text
//!   left: id, price, at      right: id, price, city      on="id", suffix="_right"
//!   ──► id (of either), price, at (left), price_right, city (right)
//! ```
//!
//! Names are settled when the step is declared. Columns that nobody needs are left out later, and no name changes by that.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use mill_protocol::{Error, Result};

use super::super::Names;
use super::keys::{JoinKeys, SIDES};
use crate::join::{How, JoinedColumn};
use crate::lower::JoinInputs;
use crate::stream::checks::column_index;

/// The columns of a join's result.
#[derive(Clone, Debug)]
pub(crate) struct JoinedColumns(Vec<Column>);

#[derive(Clone, Debug)]
struct Column {
    from: From,
    field: FieldRef,
}

/// Where a column comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum From {
    /// A side's column of this name.
    Side(usize, String),
    /// This part of the key, which is a column of this name on both sides.
    Key(usize, String),
    /// The start of the window.
    WindowStart,
    /// The end of the window.
    WindowEnd,
    /// The number of a side's record.
    Number(usize),
}

/// What the numbers of the records of each side are called.
const NUMBERS: [&str; 2] = ["left_row", "right_row"];

impl JoinedColumns {
    /// The columns of a join of these sides.
    pub(crate) fn new(
        verb: &'static str,
        [left, right]: [&SchemaRef; 2],
        keys: &JoinKeys,
        how: How,
        suffix: &str,
    ) -> Result<JoinedColumns> {
        let mut columns = JoinedColumns(Vec::with_capacity(left.fields().len() + right.fields().len()));
        let keys: Vec<(&str, &DataType)> = keys.shared().collect();
        let key = |name: &str| keys.iter().position(|(key, _)| *key == name).filter(|_| how.has_pairs());
        for field in left.fields() {
            let name = field.name();
            let (from, data_type) = match key(name) {
                Some(part) => (From::Key(part, name.clone()), keys[part].1.clone()),
                None => (From::Side(0, name.clone()), field.data_type().clone()),
            };
            columns.push(from, name, field.as_ref().clone().with_data_type(data_type));
        }
        if !how.has_pairs() {
            return Ok(columns);
        }
        for field in right.fields().iter().filter(|field| key(field.name()).is_none()) {
            let own = field.name();
            let is_clash = left.field_with_name(own).is_ok();
            let name = if is_clash { format!("{own}{suffix}") } else { own.clone() };
            if columns.has(&name) || (is_clash && right.field_with_name(&name).is_ok()) {
                return Err(Error::plan(format!(
                    "{verb}(): both sides have a column {own:?}, and with suffix={suffix:?} the one of the right side would be called {name:?}, \
                     which there is already; give another suffix=, or rename() or drop() one of them before"
                )));
            }
            columns.push(From::Side(1, own.clone()), &name, field.as_ref().clone());
        }
        Ok(columns)
    }

    /// Adds the bounds of windows.
    pub(crate) fn add_window(&mut self, verb: &'static str, time: &DataType) -> Result<()> {
        for (name, from) in [("window_start", From::WindowStart), ("window_end", From::WindowEnd)] {
            if self.has(name) {
                return Err(Error::plan(format!(
                    "{verb}() adds a column {name:?} and there is one already; before it, drop({name:?}) or rename it, as in \
                     rename({{{name:?}: \"old_{name}\"}})"
                )));
            }
            self.push(from, name, Field::new(name, time.clone(), true));
        }
        Ok(())
    }

    /// Adds the number of a side's record; returns its name.
    pub(crate) fn add_number(&mut self, verb: &'static str, side: usize) -> Result<String> {
        let name = NUMBERS[side];
        if self.has(name) {
            return Err(Error::plan(format!(
                "{verb}() adds a column {name:?}, which tells the records of the {} side apart, and there is one already; before it, \
                 drop({name:?}) or rename it, as in rename({{{name:?}: \"old_{name}\"}})",
                SIDES[side]
            )));
        }
        self.push(From::Number(side), name, Field::new(name, DataType::Int64, true));
        Ok(name.to_owned())
    }

    /// What a side's column is called in the result, if it is there.
    pub(crate) fn name_of(&self, side: usize, own: &str) -> Option<&str> {
        let is_it = |column: &&Column| match &column.from {
            From::Side(of, name) => *of == side && name == own,
            From::Key(_, name) => name == own,
            From::WindowStart | From::WindowEnd | From::Number(_) => false,
        };
        self.0.iter().find(is_it).map(|column| column.field.name().as_str())
    }

    fn push(&mut self, from: From, name: &str, field: Field) {
        // Of a row without a partner the columns of the other side are null.
        self.0.push(Column { from, field: Arc::new(field.with_name(name).with_nullable(true)) });
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|column| column.field.name() == name)
    }

    fn find(&self, name: &str) -> Option<&Column> {
        self.0.iter().find(|column| column.field.name() == name)
    }

    /// The columns as a schema with the metadata of the left side's.
    pub(crate) fn schema(&self, left: &Schema) -> SchemaRef {
        let fields: Vec<FieldRef> = self.0.iter().map(|column| FieldRef::clone(&column.field)).collect();
        Arc::new(Schema::new_with_metadata(fields, left.metadata().clone()))
    }

    /// The columns that a side must have for these columns of the result, besides its key.
    pub(crate) fn needed(&self, side: usize, result: &Names) -> Names {
        let column = |name: &String| match &self.find(name)?.from {
            From::Side(of, name) if *of == side => Some(name.clone()),
            _ => None,
        };
        result.iter().filter_map(column).collect()
    }

    /// Whether a column of the result is still there if the sides have these columns.
    pub(crate) fn is_left(&self, name: &str, sides: &[SchemaRef]) -> bool {
        self.find(name).is_some_and(|column| match &column.from {
            From::Side(side, name) => sides[*side].field_with_name(name).is_ok(),
            From::Key(..) | From::WindowStart | From::WindowEnd | From::Number(_) => true,
        })
    }

    /// Where each column of the result is, which may have lost some: places among the columns of the sides, and those of the
    /// key. The number of a record comes after all columns of its side.
    pub(crate) fn placed(&self, result: &Schema, inputs: &JoinInputs) -> Result<Vec<JoinedColumn>> {
        let (sides, keys) = (&inputs.before, &inputs.keys);
        let end = |side: usize| inputs.places[side].schema.fields().len();
        let place = |field: &FieldRef| {
            let column = self.find(field.name());
            let column = column.ok_or_else(|| Error::internal(format!("a join has no column {:?}", field.name())))?;
            Ok(match &column.from {
                From::Side(0, name) => JoinedColumn::Left(column_index(&sides[0], name)?),
                From::Side(_, name) => JoinedColumn::Right(column_index(&sides[1], name)?),
                From::Key(part, _) => JoinedColumn::Key { left: keys[0][*part], right: keys[1][*part] },
                From::WindowStart => JoinedColumn::WindowStart,
                From::WindowEnd => JoinedColumn::WindowEnd,
                From::Number(0) => JoinedColumn::Left(end(0)),
                From::Number(_) => JoinedColumn::Right(end(1)),
            })
        };
        result.fields().iter().map(place).collect()
    }

    /// The columns of a side that the result has, besides the key.
    pub(crate) fn kept(&self, side: usize, result: &Schema, schema: &Schema) -> Vec<Field> {
        let column = |field: &FieldRef| match &self.find(field.name())?.from {
            From::Side(of, name) if *of == side => schema.field_with_name(name).ok().cloned(),
            _ => None,
        };
        result.fields().iter().filter_map(column).collect()
    }
}
