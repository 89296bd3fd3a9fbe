//! Checks that several steps share.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use mill_frame::types::plain_type;
use mill_protocol::{Error, Result};

use crate::stream::Stream;
use crate::suggest::unknown_column;
use crate::types::{is_object, type_name};

/// The place of a column.
pub(crate) fn column_index(schema: &Schema, name: &str) -> Result<usize> {
    schema.index_of(name).map_err(|_| unknown_column(name, schema))
}

/// Marks an error as of this step.
pub(crate) fn in_step(verb: &'static str) -> impl Fn(Error) -> Error {
    move |error| error.in_step(verb)
}

/// Refuses two columns with one name.
pub(crate) fn check_unique(names: impl IntoIterator<Item = String>, verb: &str) -> Result<()> {
    let mut seen = HashSet::new();
    for name in names {
        if seen.contains(&name) {
            return Err(Error::plan(format!(
                "{verb}() gives two columns the name {name:?}; name one of them otherwise with .alias(\"…\") or a keyword"
            )));
        }
        seen.insert(name);
    }
    Ok(())
}

/// Whose latest row counts in an updating stream: ` a key of (user, page)`; nothing without key columns.
pub(crate) fn of_key(keys: &[String]) -> String {
    if keys.is_empty() { String::new() } else { format!(" a key of ({})", keys.join(", ")) }
}

/// How to make a stream that is not updating.
pub(crate) const AS_APPEND_ONLY: &str =
    "use emit=\"end\" on bounded input, leave trigger= of a window out, or put to_changelog() before it for a stream of the changes";

/// Refuses an updating stream.
pub(crate) fn append_only(stream: &Stream, verb: &str) -> Result<()> {
    match stream.is_updating() {
        None => Ok(()),
        Some(keys) => Err(Error::plan(format!(
            "{verb}() does not take an updating stream, in which the latest row{} counts; {AS_APPEND_ONLY}; select, with_columns, \
             filter, drop, rename, cast, inspect, name and sinks with a key take it",
            of_key(keys)
        ))),
    }
}

/// Refuses a column that cannot be a key.
pub(crate) fn check_hashable(field: &Field) -> Result<()> {
    if is_object(field) {
        return Err(Error::schema(format!(
            "column {:?} cannot be a key: it holds Python objects; take a column of a plain type out of it first",
            field.name()
        )));
    }
    match field.data_type() {
        DataType::List(_)
        | DataType::LargeList(_)
        | DataType::FixedSizeList(..)
        | DataType::ListView(_)
        | DataType::LargeListView(_)
        | DataType::Map(..)
        | DataType::Union(..) => Err(Error::schema(format!(
            "column {:?} cannot be a key: it is {}; {}",
            field.name(),
            type_name(field.data_type()),
            match field.data_type() {
                DataType::Map(..) | DataType::Union(..) => "take what tells records apart out of it first, in map()",
                DataType::List(item) if plain_type(item.data_type()) == DataType::Utf8 => {
                    "use explode(), or .list.join(\",\") for a string"
                }
                _ => "use explode(), or .list.get(0) for one item",
            }
        ))),
        DataType::Struct(fields) => fields.iter().try_for_each(|field| check_hashable(field)),
        whole => match untold_apart(whole) {
            None => Ok(()),
            Some(part) => {
                let within = if part == whole { String::new() } else { format!(", which has {}", type_name(part)) };
                let advice = match part {
                    DataType::Interval(_) if part == whole => "cast it, as in .cast(str)",
                    _ => "take what tells records apart out of it first, in map()",
                };
                let (name, whole) = (field.name(), type_name(whole));
                Err(Error::schema(format!("column {name:?} cannot be a key: it is {whole}{within}; {advice}")))
            }
        },
    }
}

/// The type, or the part of it, whose values are not told apart.
pub(crate) fn untold_apart(data_type: &DataType) -> Option<&DataType> {
    match data_type {
        DataType::Interval(_) | DataType::Map(..) | DataType::Union(..) => Some(data_type),
        DataType::Dictionary(_, values) => untold_apart(values),
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::FixedSizeList(item, _)
        | DataType::ListView(item)
        | DataType::LargeListView(item) => untold_apart(item.data_type()),
        DataType::Struct(fields) => fields.iter().find_map(|field| untold_apart(field.data_type())),
        _ => None,
    }
}

/// The columns with others in the place of one.
pub(crate) fn replace_column(schema: &Schema, index: usize, with: Vec<Arc<Field>>) -> SchemaRef {
    let mut fields: Vec<Arc<Field>> = schema.fields().iter().cloned().collect();
    fields.splice(index..=index, with);
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}
