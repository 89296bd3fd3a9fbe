//! The SQL for a table.

use arrow::datatypes::Schema;

use super::value::Class;

/// A name as an identifier, whatever is in it.
pub(super) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn identifiers<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(identifier).collect::<Vec<_>>().join(", ")
}

fn names(schema: &Schema) -> Vec<&str> {
    schema.fields().iter().map(|field| field.name().as_str()).collect()
}

pub(super) fn create(table: &str, schema: &Schema, key: Option<&[String]>) -> String {
    let mut parts: Vec<String> = schema
        .fields()
        .iter()
        .map(|field| {
            let mut declared = Class::of(field.data_type()).map_or("BLOB", Class::declared);
            // A single key of the very type INTEGER would be another name for the rowid, which a null takes for "choose
            // a number". INT is the same type for values, and an ordinary key.
            if declared == "INTEGER" && key.is_some_and(|key| key == [field.name().as_str()]) {
                declared = "INT";
            }
            format!("{} {declared}", identifier(field.name())).trim_end().to_owned()
        })
        .collect();
    if let Some(key) = key {
        parts.push(format!("PRIMARY KEY ({})", identifiers(key.iter().map(String::as_str))));
    }
    format!("CREATE TABLE {} ({})", identifier(table), parts.join(", "))
}

/// Inserts a row, or replaces the row of its key.
pub(super) fn insert(table: &str, schema: &Schema, key: Option<&[String]>) -> String {
    let names = names(schema);
    let places: Vec<String> = (1..=names.len()).map(|place| format!("?{place}")).collect();
    let columns = identifiers(names.iter().copied());
    let mut sql = format!("INSERT INTO {} ({columns}) VALUES ({})", identifier(table), places.join(", "));
    let Some(key) = key else { return sql };
    let rest: Vec<String> = names
        .iter()
        .filter(|name| !key.iter().any(|key| key == *name))
        .map(|name| format!("{0} = excluded.{0}", identifier(name)))
        .collect();
    sql += &format!(" ON CONFLICT ({}) DO ", identifiers(key.iter().map(String::as_str)));
    sql += &if rest.is_empty() { "NOTHING".to_owned() } else { format!("UPDATE SET {}", rest.join(", ")) };
    sql
}

/// Deletes the row of a key; a null in the key is a value like others.
pub(super) fn delete(table: &str, key: &[String]) -> String {
    format!("DELETE FROM {} WHERE {}", identifier(table), matches(key))
}

/// The condition for the row of a key.
pub(super) fn matches(key: &[String]) -> String {
    let conditions: Vec<String> =
        key.iter().enumerate().map(|(index, name)| format!("{} IS ?{}", identifier(name), index + 1)).collect();
    conditions.join(" AND ")
}
