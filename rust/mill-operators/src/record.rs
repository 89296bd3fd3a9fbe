//! A record as text, for messages about it.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::DataType;
use mill_frame::text::TextColumn;

/// How long the text may become, in bytes; what is longer ends in an ellipsis.
const TEXT_LENGTH_MAX: usize = 2000;

/// The record in this row: `{"user": "ann", "n": 3, "at": null}`, with the values as files have them.
pub(crate) fn record_text(data: &RecordBatch, row: usize) -> String {
    let mut text = String::new();
    let schema = data.schema();
    let fields = schema.fields().iter().map(|field| field.name().as_str());
    push_fields(fields.zip(data.columns()), row, &mut text);
    if text.len() > TEXT_LENGTH_MAX {
        text.truncate(text.floor_char_boundary(TEXT_LENGTH_MAX));
        text.push('…');
    }
    text
}

fn push_fields<'a>(fields: impl Iterator<Item = (&'a str, &'a ArrayRef)>, row: usize, text: &mut String) {
    text.push('{');
    for (place, (name, column)) in fields.enumerate() {
        if text.len() > TEXT_LENGTH_MAX {
            return;
        }
        text.push_str(if place == 0 { "" } else { ", " });
        text.push_str(&format!("{name:?}: "));
        push_value(column, row, text);
    }
    text.push('}');
}

fn push_value(column: &ArrayRef, row: usize, text: &mut String) {
    if column.is_null(row) {
        return text.push_str("null");
    }
    // One row of the column: that is all that is laid out anew.
    let value = column.slice(row, 1);
    match TextColumn::new(&value) {
        Ok(Some(found)) if found.is_null(0) => text.push_str("null"),
        Ok(Some(found)) => match found.text(0) {
            Some(found) => text.push_str(&format!("{found:?}")),
            None => found.push(0, text),
        },
        Ok(None) => match value.data_type() {
            DataType::List(_) => push_items(&value.as_list::<i32>().value(0), text),
            DataType::FixedSizeList(..) => push_items(&value.as_fixed_size_list().value(0), text),
            DataType::Map(..) => push_items(&(std::sync::Arc::new(value.as_map().value(0)) as ArrayRef), text),
            DataType::Struct(fields) => {
                push_fields(fields.iter().map(|field| field.name().as_str()).zip(value.as_struct().columns()), 0, text);
            }
            _ => text.push('…'),
        },
        Err(_) => text.push('…'),
    }
}

fn push_items(items: &ArrayRef, text: &mut String) {
    text.push('[');
    for row in 0..items.len() {
        if text.len() > TEXT_LENGTH_MAX {
            return;
        }
        text.push_str(if row == 0 { "" } else { ", " });
        push_value(items, row, text);
    }
    text.push(']');
}
