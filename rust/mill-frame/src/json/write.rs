//! Writes values as JSON, in the form that is read back: null where there is no value, numbers and booleans bare, and what
//! JSON has no number for as a string: NaN and the infinities, times, durations, bytes in hexadecimal digits.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray, StringBuilder, new_empty_array};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow::error::{ArrowError, Result};

use crate::text::{TextColumn, push_json_string};
use crate::types::type_name;

/// A column whose values are written one at a time.
enum Column {
    Leaf(TextColumn),
    List { nulls: Option<NullBuffer>, offsets: OffsetBuffer<i32>, items: Box<Column> },
    FixedList { nulls: Option<NullBuffer>, size: usize, items: Box<Column> },
    /// The names are as they are written, with the colon.
    Struct { nulls: Option<NullBuffer>, names: Vec<String>, columns: Vec<Column> },
    Map { nulls: Option<NullBuffer>, offsets: OffsetBuffer<i32>, keys: TextColumn, items: Box<Column> },
}

impl Column {
    fn new(array: &ArrayRef) -> Result<Column> {
        Ok(match array.data_type() {
            DataType::List(_) => {
                let list = array.as_list::<i32>();
                Column::List {
                    nulls: list.nulls().cloned(),
                    offsets: list.offsets().clone(),
                    items: Box::new(Column::new(list.values())?),
                }
            }
            DataType::LargeList(item) | DataType::ListView(item) | DataType::LargeListView(item) => {
                Column::new(&cast(array, &DataType::List(Arc::clone(item)))?)?
            }
            DataType::FixedSizeList(_, size) => {
                let list = array.as_fixed_size_list();
                Column::FixedList {
                    nulls: list.nulls().cloned(),
                    size: usize::try_from(*size).unwrap_or(0),
                    items: Box::new(Column::new(list.values())?),
                }
            }
            DataType::Struct(fields) => {
                let columns = array.as_struct().columns();
                Column::Struct {
                    nulls: array.nulls().cloned(),
                    names: fields.iter().map(|field| key(field.name())).collect(),
                    columns: columns.iter().map(Column::new).collect::<Result<_>>()?,
                }
            }
            DataType::Map(_, _) => {
                let map = array.as_map();
                Column::Map {
                    nulls: map.nulls().cloned(),
                    offsets: map.offsets().clone(),
                    keys: leaf(map.keys())?,
                    items: Box::new(Column::new(map.values())?),
                }
            }
            DataType::Dictionary(_, value) if value.is_nested() => Column::new(&cast(array, value)?)?,
            _ => Column::Leaf(leaf(array)?),
        })
    }

    #[inline]
    fn push(&self, row: usize, out: &mut String) {
        let nulls = match self {
            Column::Leaf(column) => {
                return match column.is_null(row) {
                    true => out.push_str("null"),
                    false => push_leaf(column, row, out),
                };
            }
            Column::List { nulls, .. }
            | Column::FixedList { nulls, .. }
            | Column::Struct { nulls, .. }
            | Column::Map { nulls, .. } => nulls,
        };
        if nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
            out.push_str("null");
            return;
        }
        let bounds = |offsets: &OffsetBuffer<i32>| offsets[row] as usize..offsets[row + 1] as usize;
        match self {
            Column::Leaf(_) => {}
            Column::List { offsets, items, .. } => push_items(items, bounds(offsets), out),
            Column::FixedList { size, items, .. } => push_items(items, row * size..(row + 1) * size, out),
            Column::Struct { names, columns, .. } => push_object(names, columns, row, out),
            Column::Map { offsets, keys, items, .. } => {
                out.push('{');
                let entries = bounds(offsets);
                for entry in entries.clone() {
                    if entry > entries.start {
                        out.push(',');
                    }
                    match keys.text(entry) {
                        Some(text) => push_json_string(text, out),
                        None => {
                            out.push('"');
                            keys.push(entry, out);
                            out.push('"');
                        }
                    }
                    out.push(':');
                    items.push(entry, out);
                }
                out.push('}');
            }
        }
    }
}

fn leaf(array: &ArrayRef) -> Result<TextColumn> {
    let none = || ArrowError::SchemaError(format!("JSON has no form for {}; cast it to str, or write it with write_arrow()", type_name(array.data_type())));
    TextColumn::new(array)?.ok_or_else(none)
}

#[inline]
fn push_leaf(column: &TextColumn, row: usize, out: &mut String) {
    if column.is_bare(row) {
        column.push(row, out);
    } else if let Some(text) = column.text(row) {
        push_json_string(text, out);
    } else {
        // Digits, letters and signs: nothing to escape.
        out.push('"');
        column.push(row, out);
        out.push('"');
    }
}

fn push_items(items: &Column, range: std::ops::Range<usize>, out: &mut String) {
    out.push('[');
    for item in range.clone() {
        if item > range.start {
            out.push(',');
        }
        items.push(item, out);
    }
    out.push(']');
}

fn push_object(names: &[String], columns: &[Column], row: usize, out: &mut String) {
    out.push('{');
    for (index, (name, column)) in names.iter().zip(columns).enumerate() {
        if index > 0 {
            out.push(',');
        }
        out.push_str(name);
        column.push(row, out);
    }
    out.push('}');
}

/// A name with its quotes and colon.
fn key(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 3);
    push_json_string(name, &mut out);
    out.push(':');
    out
}

/// The rows of a batch, each as an object.
pub struct JsonRows<'n> {
    names: &'n [String],
    columns: Vec<Column>,
}

impl<'n> JsonRows<'n> {
    /// Of these columns, whose names are as [`names`] returns them.
    ///
    /// # Errors
    /// When a column is of a type that has no form in JSON, or has lists too long for it.
    pub fn new(names: &'n [String], columns: &[ArrayRef]) -> Result<JsonRows<'n>> {
        Ok(JsonRows { names, columns: columns.iter().map(Column::new).collect::<Result<_>>()? })
    }

    /// Adds a row to a text.
    #[inline]
    pub fn push(&self, row: usize, out: &mut String) {
        push_object(self.names, &self.columns, row, out);
    }
}

/// Each value as a JSON text; null for null.
///
/// # Errors
/// When the type has no form in JSON, or has lists too long for it, or the texts are longer than 2 GiB in total.
///
/// # Examples
/// ```
/// use std::sync::Arc;
/// use arrow::array::{Array, ArrayRef, Int64Array, StructArray};
/// use arrow::datatypes::{DataType, Field};
/// use mill_frame::json::encode;
///
/// let n = Arc::new(Int64Array::from(vec![Some(1), None])) as ArrayRef;
/// let points: ArrayRef = Arc::new(StructArray::from(vec![(Arc::new(Field::new("n", DataType::Int64, true)), n)]));
/// assert_eq!(encode(&points)?.value(1), r#"{"n":null}"#);
/// # Ok::<(), arrow::error::ArrowError>(())
/// ```
pub fn encode(array: &ArrayRef) -> Result<StringArray> {
    let column = Column::new(array)?;
    let mut texts = StringBuilder::with_capacity(array.len(), 16 * array.len());
    let (mut text, mut bytes) = (String::new(), 0);
    for row in 0..array.len() {
        if array.is_null(row) {
            texts.append_null();
            continue;
        }
        text.clear();
        column.push(row, &mut text);
        bytes += text.len();
        if i32::try_from(bytes).is_err() {
            return Err(ArrowError::ComputeError("the JSON texts of one batch are longer than 2 GiB".to_owned()));
        }
        texts.append_value(&text);
    }
    Ok(texts.finish())
}

/// Checks that values of this type can be written.
///
/// # Errors
/// When it has no form in JSON.
pub fn check_writable(data_type: &DataType) -> Result<()> {
    Column::new(&new_empty_array(data_type)).map(drop)
}

/// The names of columns as they are written, with their colons.
pub fn names<'a>(columns: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    columns.into_iter().map(key).collect()
}
