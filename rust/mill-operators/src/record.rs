//! A record as text, for messages about it.

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::DataType;
use arrow::util::display::{ArrayFormatter, FormatOptions};

/// How long the text may become, in bytes; what is longer ends in an ellipsis.
const TEXT_LENGTH_MAX: usize = 2000;

/// The record in this row: `{"user": "ann", "n": 3, "at": null}`.
pub(crate) fn record_text(data: &RecordBatch, row: usize) -> String {
    let options = FormatOptions::new().with_null("null");
    let mut text = String::from("{");
    for (place, (field, column)) in data.schema().fields().iter().zip(data.columns()).enumerate() {
        let separator = if place == 0 { "" } else { ", " };
        let value = match ArrayFormatter::try_new(column.as_ref(), &options) {
            Ok(shown) => shown.value(row).to_string(),
            Err(_) => "…".to_owned(),
        };
        let is_text = matches!(column.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
        if is_text && column.is_valid(row) {
            text.push_str(&format!("{separator}{:?}: {value:?}", field.name()));
        } else {
            text.push_str(&format!("{separator}{:?}: {value}", field.name()));
        }
        if text.len() > TEXT_LENGTH_MAX {
            text.truncate(text.floor_char_boundary(TEXT_LENGTH_MAX));
            text.push('…');
            return text;
        }
    }
    text.push('}');
    text
}
