//! A record as a JSON object: what dead letters have, and messages show.
//!
//! Values have the form that JSON files have, and every value is there: a dead letter is the record. Messages show its
//! beginning.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef};

use super::TextColumn;
use crate::schema::{is_computed, is_object};

/// How much of a record a message shows, in bytes; what is longer ends in an ellipsis.
const SHOWN_MAX: usize = 2000;

/// The record in this row as JSON: `{"user": "ann", "n": 3, "at": null}`, with the values as JSON files have them. Columns that
/// were [computed](crate::schema::computed_field) for a step are left out.
///
/// # Examples
/// ```
/// use std::sync::{Arc, OnceLock};
/// use arrow::array::{Int64Array, RecordBatch, StringArray};
/// use mill_frame::text::record_json;
///
/// let users = Arc::new(StringArray::from(vec![Some("ann"), None]));
/// let data = RecordBatch::try_from_iter([("user", users as _), ("n", Arc::new(Int64Array::from(vec![3, 4])) as _)])?;
/// assert_eq!(record_json(&data, 1), r#"{"user":null,"n":4}"#);
/// # Ok::<(), arrow::error::ArrowError>(())
/// ```
pub fn record_json(data: &RecordBatch, row: usize) -> String {
    let mut json = Json { written: String::new() };
    let schema = data.schema();
    let own: Vec<usize> = (0..data.num_columns()).filter(|&place| !is_computed(schema.field(place))).collect();
    let fields: Vec<FieldRef> = own.iter().map(|&place| Arc::clone(&schema.fields()[place])).collect();
    let columns: Vec<ArrayRef> = own.iter().map(|&place| Arc::clone(data.column(place))).collect();
    json.push_fields(&fields, &columns, row);
    json.written
}

/// The JSON of the only value of a column of objects; `None` where there is no way to tell.
pub type ObjectJson = fn(&Field, &ArrayRef) -> Option<String>;

static OBJECT_JSON: OnceLock<ObjectJson> = OnceLock::new();

/// Sets what objects are in records. Their bytes mean something only to the language that they are of, which sets this once,
/// when it is loaded; of several calls the first counts.
pub fn show_objects_with(json: ObjectJson) {
    // Whoever was first is as good.
    let _ = OBJECT_JSON.set(json);
}

/// An object as JSON; its size where nobody can read it.
fn object_json(field: &Field, value: &ArrayRef) -> String {
    OBJECT_JSON.get().and_then(|json| json(field, value)).unwrap_or_else(|| {
        let bytes = value.as_binary_opt::<i32>().map_or(0, |values| values.value(0).len());
        format!("\"<an object of {bytes} bytes>\"")
    })
}

/// As much of a record's text as a message shows.
///
/// # Examples
/// ```
/// use mill_frame::text::shortened;
///
/// assert_eq!(shortened("{\"n\": 3}"), "{\"n\": 3}");
/// assert!(shortened(&"x".repeat(10_000)).ends_with("xx…"));
/// ```
pub fn shortened(record: &str) -> Cow<'_, str> {
    match record.len() > SHOWN_MAX {
        true => Cow::Owned(format!("{}…", &record[..record.floor_char_boundary(SHOWN_MAX)])),
        false => Cow::Borrowed(record),
    }
}

/// Adds a JSON string: with its quotes, escaped where JSON asks for it.
///
/// # Examples
/// ```
/// use mill_frame::text::push_json_string;
///
/// let mut out = String::new();
/// push_json_string("a \"b\"\n", &mut out);
/// assert_eq!(out, r#""a \"b\"\n""#);
/// ```
pub fn push_json_string(text: &str, out: &mut String) {
    out.push('"');
    let mut rest = text;
    while let Some(at) = rest.bytes().position(|byte| byte < 0x20 || matches!(byte, b'"' | b'\\')) {
        out.push_str(&rest[..at]);
        match rest.as_bytes()[at] {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            control => {
                const DIGITS: &[u8; 16] = b"0123456789abcdef";
                out.push_str("\\u00");
                out.push(DIGITS[usize::from(control >> 4)] as char);
                out.push(DIGITS[usize::from(control & 15)] as char);
            }
        }
        rest = &rest[at + 1..];
    }
    out.push_str(rest);
    out.push('"');
}

struct Json {
    written: String,
}

impl Json {
    fn push_fields(&mut self, fields: &[FieldRef], columns: &[ArrayRef], row: usize) {
        self.written.push('{');
        for (place, (field, column)) in fields.iter().zip(columns).enumerate() {
            self.written.push_str(if place == 0 { "" } else { "," });
            push_json_string(field.name(), &mut self.written);
            self.written.push(':');
            self.push_value(field, column, row);
        }
        self.written.push('}');
    }

    fn push_value(&mut self, field: &Field, column: &ArrayRef, row: usize) {
        if column.is_null(row) {
            return self.written.push_str("null");
        }
        // One row of the column: that is all that is laid out again.
        let value = column.slice(row, 1);
        if is_object(field) {
            return self.written.push_str(&object_json(field, &value));
        }
        match TextColumn::new(&value) {
            Ok(Some(found)) if found.is_null(0) => self.written.push_str("null"),
            Ok(Some(found)) if found.is_bare(0) => found.push(0, &mut self.written),
            Ok(Some(found)) => self.push_text(&found, 0),
            Ok(None) => self.push_nested(field, &value),
            Err(_) => push_json_string("…", &mut self.written),
        }
    }

    /// A value in quotes.
    fn push_text(&mut self, column: &TextColumn, row: usize) {
        match column.text(row) {
            Some(text) => push_json_string(text, &mut self.written),
            None => {
                let mut text = String::new();
                column.push(row, &mut text);
                push_json_string(&text, &mut self.written);
            }
        }
    }

    /// The only value of a column of lists, structs or maps.
    fn push_nested(&mut self, field: &Field, value: &ArrayRef) {
        match value.data_type() {
            DataType::List(item) => self.push_items(item, &value.as_list::<i32>().value(0)),
            DataType::FixedSizeList(item, _) => self.push_items(item, &value.as_fixed_size_list().value(0)),
            DataType::Struct(fields) => self.push_fields(fields, value.as_struct().columns(), 0),
            DataType::Map(entries, _) => self.push_entries(entries, value),
            other => {
                let relaid = match other {
                    DataType::LargeList(item) | DataType::ListView(item) | DataType::LargeListView(item) => {
                        DataType::List(Arc::clone(item))
                    }
                    DataType::Dictionary(_, value) => value.as_ref().clone(),
                    _ => return push_json_string("…", &mut self.written),
                };
                match cast(value, &relaid) {
                    Ok(relaid) => self.push_value(field, &relaid, 0),
                    Err(_) => push_json_string("…", &mut self.written),
                }
            }
        }
    }

    fn push_items(&mut self, field: &Field, items: &ArrayRef) {
        self.written.push('[');
        for row in 0..items.len() {
            self.written.push_str(if row == 0 { "" } else { "," });
            self.push_value(field, items, row);
        }
        self.written.push(']');
    }

    /// A map is an object whose names are the keys as text.
    fn push_entries(&mut self, entries: &Field, value: &ArrayRef) {
        let (DataType::Struct(fields), entries) = (entries.data_type(), value.as_map().value(0)) else { return };
        let (keys, items) = (entries.column(0), entries.column(1));
        self.written.push('{');
        for row in 0..entries.len() {
            self.written.push_str(if row == 0 { "" } else { "," });
            match TextColumn::new(&keys.slice(row, 1)) {
                Ok(Some(key)) => self.push_text(&key, 0),
                Ok(None) | Err(_) => push_json_string("…", &mut self.written),
            }
            self.written.push(':');
            self.push_value(&fields[1], items, row);
        }
        self.written.push('}');
    }
}
