//! What no stream carries: two columns of one name, types that nest too deep, unions of types, types that cannot be.

use std::collections::HashSet;

use arrow::datatypes::{DataType, FieldRef, Fields};

use crate::FrameError;

/// How deep types may nest; a column of numbers has depth 1, a list of numbers 2.
///
/// Schemas, frames, hashes, readers and writers of files walk types by recursion; with this limit none of them can
/// exhaust its stack.
pub const NESTING_MAX: usize = 48;

/// Refuses columns that no stream carries.
///
/// # Errors
/// When two columns, or two fields of a struct, have one name; when a type nests deeper than [`NESTING_MAX`]; when a
/// column holds a union of types, bytes of length 0, or a decimal with more digits than there are.
///
/// # Examples
/// ```
/// use arrow::datatypes::{DataType, Field, Fields};
/// use mill_frame::types::check_fields;
///
/// let twice = Fields::from(vec![Field::new("a", DataType::Int64, true), Field::new("a", DataType::Utf8, true)]);
/// assert!(check_fields(&twice).unwrap_err().to_string().contains("two columns have the name \"a\""));
/// ```
pub fn check_fields(fields: &Fields) -> Result<(), FrameError> {
    if let Some(name) = repeated(fields) {
        return Err(refused(format!("two columns have the name {name:?}; rename one of them")));
    }
    fields.iter().try_for_each(check_column)
}

fn check_column(column: &FieldRef) -> Result<(), FrameError> {
    let name = column.name();
    let depth = depth_of(column.data_type());
    if depth > NESTING_MAX {
        return Err(refused(format!(
            "column {name:?} nests {depth} types; at most {NESTING_MAX} are supported, so flatten it, or keep it as JSON text"
        )));
    }
    let mut open = vec![column.data_type()];
    while let Some(data_type) = open.pop() {
        match data_type {
            DataType::Struct(fields) => {
                if let Some(field) = repeated(fields) {
                    return Err(refused(format!(
                        "column {name:?} has a struct with two fields of the name {field:?}; rename one of them"
                    )));
                }
            }
            DataType::Union(..) => {
                return Err(refused(format!(
                    "column {name:?} holds a union of types, which is not supported; give it one type before it is read"
                )));
            }
            DataType::FixedSizeBinary(0) => {
                return Err(refused(format!("column {name:?} holds bytes of length 0, which say nothing; drop it, or make it binary")));
            }
            other => {
                let digits = digits_max(other).filter(|(precision, most)| *precision == 0 || precision > most);
                if let Some((precision, most)) = digits {
                    return Err(refused(format!("column {name:?} is a decimal of {precision} digits, and it can have 1 to {most}")));
                }
            }
        }
        open.extend(children(data_type));
    }
    Ok(())
}

/// The digits of a decimal, and how many one of its size has at most.
fn digits_max(data_type: &DataType) -> Option<(u8, u8)> {
    match data_type {
        DataType::Decimal32(precision, _) => Some((*precision, 9)),
        DataType::Decimal64(precision, _) => Some((*precision, 18)),
        DataType::Decimal128(precision, _) => Some((*precision, 38)),
        DataType::Decimal256(precision, _) => Some((*precision, 76)),
        _ => None,
    }
}

fn refused(what: String) -> FrameError {
    FrameError::Columns { what }
}

fn repeated(fields: &Fields) -> Option<&str> {
    let mut seen = HashSet::with_capacity(fields.len());
    fields.iter().map(|field| field.name().as_str()).find(|name| !seen.insert(*name))
}

/// The depth, found without recursion: it is what recursion must be protected from.
fn depth_of(data_type: &DataType) -> usize {
    let mut open = vec![(data_type, 1)];
    let mut deepest = 0;
    while let Some((data_type, depth)) = open.pop() {
        deepest = deepest.max(depth);
        open.extend(children(data_type).into_iter().map(|child| (child, depth + 1)));
    }
    deepest
}

/// The fields directly inside a type. A dictionary has none: those within its values are counted as its own.
pub(crate) fn children_fields(data_type: &DataType) -> Vec<&FieldRef> {
    match data_type {
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _)
        | DataType::Map(item, _)
        | DataType::RunEndEncoded(_, item) => vec![item],
        DataType::Struct(fields) => fields.iter().collect(),
        DataType::Union(fields, _) => fields.iter().map(|(_, field)| field).collect(),
        DataType::Dictionary(_, values) => children_fields(values),
        _ => Vec::new(),
    }
}

/// The types directly inside a type: of elements, fields, values.
pub fn children(data_type: &DataType) -> Vec<&DataType> {
    match data_type {
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _)
        | DataType::Map(item, _) => vec![item.data_type()],
        DataType::RunEndEncoded(ends, values) => vec![ends.data_type(), values.data_type()],
        DataType::Struct(fields) => fields.iter().map(|field| field.data_type()).collect(),
        DataType::Union(fields, _) => fields.iter().map(|(_, field)| field.data_type()).collect(),
        DataType::Dictionary(_, values) => vec![values],
        _ => Vec::new(),
    }
}
