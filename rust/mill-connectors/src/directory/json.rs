//! Writes JSON, an object a line: every column in every line, null where there is no value, every value in the form that
//! `read_json` reads back.
//!
//! Numbers and booleans are bare. What JSON has no number for is a string: NaN and the infinities, times, durations,
//! bytes in hexadecimal digits.

use std::fs::File;
use std::io::Write as _;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, new_empty_array};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::cast;
use arrow::datatypes::{DataType, SchemaRef};
use mill_frame::text::{TextColumn, push_json_string};
use mill_frame::types::type_name;
use mill_protocol::{Error, Result};

use super::Encoder;
use super::output::{Output, Packing};

/// Refuses columns that have no form in JSON.
pub(crate) fn check(schema: &SchemaRef) -> Result<()> {
    for field in schema.fields() {
        JsonColumn::new(&new_empty_array(field.data_type()))
            .map_err(|e| Error::schema(format!("column {:?} cannot be written as JSON: {}", field.name(), e.message())))?;
    }
    Ok(())
}

/// A column whose values are written one at a time.
enum JsonColumn {
    Leaf(TextColumn),
    List { nulls: Option<NullBuffer>, offsets: OffsetBuffer<i32>, items: Box<JsonColumn> },
    FixedList { nulls: Option<NullBuffer>, size: usize, items: Box<JsonColumn> },
    /// The names are as they are written, with the colon.
    Struct { nulls: Option<NullBuffer>, names: Vec<String>, columns: Vec<JsonColumn> },
    Map { nulls: Option<NullBuffer>, offsets: OffsetBuffer<i32>, keys: TextColumn, items: Box<JsonColumn> },
}

impl JsonColumn {
    fn new(array: &ArrayRef) -> Result<JsonColumn> {
        let relaid = |to: &DataType| {
            cast(array, to).map_err(|e| Error::data(format!("a list is too long: {e}")).because(e))
        };
        Ok(match array.data_type() {
            DataType::List(_) => {
                let list = array.as_list::<i32>();
                JsonColumn::List {
                    nulls: list.nulls().cloned(),
                    offsets: list.offsets().clone(),
                    items: Box::new(JsonColumn::new(list.values())?),
                }
            }
            DataType::LargeList(item) | DataType::ListView(item) | DataType::LargeListView(item) => {
                JsonColumn::new(&relaid(&DataType::List(Arc::clone(item)))?)?
            }
            DataType::FixedSizeList(_, size) => {
                let list = array.as_fixed_size_list();
                JsonColumn::FixedList {
                    nulls: list.nulls().cloned(),
                    size: usize::try_from(*size).unwrap_or(0),
                    items: Box::new(JsonColumn::new(list.values())?),
                }
            }
            DataType::Struct(fields) => {
                let columns = array.as_struct().columns();
                JsonColumn::Struct {
                    nulls: array.nulls().cloned(),
                    names: fields.iter().map(|field| key(field.name())).collect(),
                    columns: columns.iter().map(JsonColumn::new).collect::<Result<_>>()?,
                }
            }
            DataType::Map(_, _) => {
                let map = array.as_map();
                JsonColumn::Map {
                    nulls: map.nulls().cloned(),
                    offsets: map.offsets().clone(),
                    keys: leaf(map.keys())?,
                    items: Box::new(JsonColumn::new(map.values())?),
                }
            }
            DataType::Dictionary(_, value) if value.is_nested() => JsonColumn::new(&relaid(value)?)?,
            _ => JsonColumn::Leaf(leaf(array)?),
        })
    }

    #[inline]
    fn push(&self, row: usize, out: &mut String) {
        let nulls = match self {
            JsonColumn::Leaf(column) => {
                return match column.is_null(row) {
                    true => out.push_str("null"),
                    false => push_leaf(column, row, out),
                };
            }
            JsonColumn::List { nulls, .. }
            | JsonColumn::FixedList { nulls, .. }
            | JsonColumn::Struct { nulls, .. }
            | JsonColumn::Map { nulls, .. } => nulls,
        };
        if nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
            out.push_str("null");
            return;
        }
        let bounds = |offsets: &OffsetBuffer<i32>| offsets[row] as usize..offsets[row + 1] as usize;
        match self {
            JsonColumn::Leaf(_) => {}
            JsonColumn::List { offsets, items, .. } => push_items(items, bounds(offsets), out),
            JsonColumn::FixedList { size, items, .. } => push_items(items, row * size..(row + 1) * size, out),
            JsonColumn::Struct { names, columns, .. } => push_object(names, columns, row, out),
            JsonColumn::Map { offsets, keys, items, .. } => {
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
    TextColumn::new(array)
        .map_err(|e| Error::data(e.to_string()).because(e))?
        .ok_or_else(|| Error::schema(format!("JSON has no form for a {}", type_name(array.data_type()))))
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

fn push_items(items: &JsonColumn, range: std::ops::Range<usize>, out: &mut String) {
    out.push('[');
    for item in range.clone() {
        if item > range.start {
            out.push(',');
        }
        items.push(item, out);
    }
    out.push(']');
}

fn push_object(names: &[String], columns: &[JsonColumn], row: usize, out: &mut String) {
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
pub(crate) struct JsonRows<'n> {
    names: &'n [String],
    columns: Vec<JsonColumn>,
}

impl<'n> JsonRows<'n> {
    /// Of these columns, whose names are as [`names`] gives them.
    pub(crate) fn new(names: &'n [String], columns: &[ArrayRef]) -> Result<JsonRows<'n>> {
        Ok(JsonRows { names, columns: columns.iter().map(JsonColumn::new).collect::<Result<_>>()? })
    }

    /// Adds a row to a text.
    #[inline]
    pub(crate) fn push(&self, row: usize, out: &mut String) {
        push_object(self.names, &self.columns, row, out);
    }
}

/// The names of columns as they are written, with their colons.
pub(crate) fn names<'a>(columns: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    columns.into_iter().map(key).collect()
}

pub(super) struct JsonEncoder {
    output: Output,
    names: Vec<String>,
    row: String,
}

fn failed(e: std::io::Error) -> Error {
    Error::connector(format!("cannot write JSON: {e}")).because(e)
}

impl JsonEncoder {
    pub(super) fn new(schema: &SchemaRef, file: File, packing: Packing) -> Result<JsonEncoder> {
        let names = names(schema.fields().iter().map(|field| field.name().as_str()));
        Ok(JsonEncoder { output: Output::new(file, packing).map_err(failed)?, names, row: String::new() })
    }
}

impl Encoder for JsonEncoder {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let rows = JsonRows::new(&self.names, batch.columns())?;
        for row in 0..batch.num_rows() {
            self.row.clear();
            rows.push(row, &mut self.row);
            self.row.push('\n');
            self.output.write_all(self.row.as_bytes()).map_err(failed)?;
        }
        Ok(())
    }

    fn bytes(&self) -> u64 {
        self.output.bytes()
    }

    fn finish(self: Box<Self>) -> Result<File> {
        self.output.finish().map_err(failed)
    }
}
