//! A record as text, for messages about it.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, FieldRef};

use super::TextColumn;
use crate::schema::is_object;

/// How long the text may become, in bytes; what is longer ends in an ellipsis.
const TEXT_LENGTH_MAX: usize = 2000;

/// The record in this row: `{"user": "ann", "n": 3, "at": null}`, with the values as files have them. Messages show records in
/// this form alone.
///
/// # Examples
/// ```
/// use std::sync::Arc;
/// use arrow::array::{Int64Array, RecordBatch, StringArray};
/// use mill_frame::text::record_text;
///
/// let users = Arc::new(StringArray::from(vec![Some("ann"), None]));
/// let data = RecordBatch::try_from_iter([("user", users as _), ("n", Arc::new(Int64Array::from(vec![3, 4])) as _)])?;
/// assert_eq!(record_text(&data, 1), r#"{"user": null, "n": 4}"#);
/// # Ok::<(), arrow::error::ArrowError>(())
/// ```
pub fn record_text(data: &RecordBatch, row: usize) -> String {
    record_text_with(data, row, &|_, _| None)
}

/// As [`record_text`], with what a function returns for a column of objects, which are bytes here. Without it they are `…`.
pub fn record_text_with(data: &RecordBatch, row: usize, object: &dyn Fn(&Field, &ArrayRef) -> Option<String>) -> String {
    let mut text = Text { written: String::new(), object };
    text.push_fields(data.schema().fields(), data.columns(), row);
    let mut written = text.written;
    if written.len() > TEXT_LENGTH_MAX {
        written.truncate(written.floor_char_boundary(TEXT_LENGTH_MAX));
        written.push('…');
    }
    written
}

struct Text<'a> {
    written: String,
    object: &'a dyn Fn(&Field, &ArrayRef) -> Option<String>,
}

impl Text<'_> {
    fn is_full(&self) -> bool {
        self.written.len() > TEXT_LENGTH_MAX
    }

    fn push_fields(&mut self, fields: &[FieldRef], columns: &[ArrayRef], row: usize) {
        self.written.push('{');
        for (place, (field, column)) in fields.iter().zip(columns).enumerate() {
            if self.is_full() {
                return;
            }
            self.written.push_str(if place == 0 { "" } else { ", " });
            self.written.push_str(&format!("{:?}: ", field.name()));
            self.push_value(field, column, row);
        }
        self.written.push('}');
    }

    fn push_value(&mut self, field: &Field, column: &ArrayRef, row: usize) {
        if column.is_null(row) {
            return self.written.push_str("null");
        }
        // One row of the column: that is all that is laid out anew.
        let value = column.slice(row, 1);
        if is_object(field) {
            let shown = (self.object)(field, &value);
            return self.written.push_str(shown.as_deref().unwrap_or("…"));
        }
        match TextColumn::new(&value) {
            Ok(Some(found)) if found.is_null(0) => self.written.push_str("null"),
            Ok(Some(found)) => match found.text(0) {
                Some(found) => self.written.push_str(&format!("{found:?}")),
                None => found.push(0, &mut self.written),
            },
            Ok(None) => match value.data_type() {
                DataType::List(item) => self.push_items(item, &value.as_list::<i32>().value(0)),
                DataType::FixedSizeList(item, _) => self.push_items(item, &value.as_fixed_size_list().value(0)),
                DataType::Map(item, _) => self.push_items(item, &(Arc::new(value.as_map().value(0)) as ArrayRef)),
                DataType::Struct(fields) => self.push_fields(fields, value.as_struct().columns(), 0),
                _ => self.written.push('…'),
            },
            Err(_) => self.written.push('…'),
        }
    }

    fn push_items(&mut self, field: &Field, items: &ArrayRef) {
        self.written.push('[');
        for row in 0..items.len() {
            if self.is_full() {
                return;
            }
            self.written.push_str(if row == 0 { "" } else { ", " });
            self.push_value(field, items, row);
        }
        self.written.push(']');
    }
}
