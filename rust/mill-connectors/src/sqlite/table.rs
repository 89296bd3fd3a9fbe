//! What the table in the database is declared as, and whether it can take the columns of the stream unchanged.
//!
//! SQLite converts what it stores to the affinity that a column was declared with, where it can: text that looks like a
//! number becomes one in a NUMERIC column ("007" is 7), a float becomes text with 15 digits in a TEXT column. So a table
//! that was made by somebody else is looked at first, and one that would change values is refused by name.

use std::collections::BTreeSet;

use arrow::datatypes::{DataType, Schema};
use mill_protocol::{Error, Result};
use rusqlite::{Connection, OpenFlags};

use super::owner::directory_of;
use super::value::Class;
use super::{BUSY_WAIT, Shared, locks, statement};
use crate::nearest::{did_you_mean, quoted};

/// How a column of the table is declared.
pub(super) struct Declared {
    name: String,
    declared: String,
    is_key: bool,
}

/// What SQLite does to values of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Affinity {
    Integer,
    Text,
    Blob,
    Real,
    Numeric,
}

impl Affinity {
    /// By the rules of SQLite ("Determination of column affinity").
    fn of(declared: &str) -> Affinity {
        let declared = declared.to_ascii_uppercase();
        let has = |words: &[&str]| words.iter().any(|word| declared.contains(word));
        if has(&["INT"]) {
            Affinity::Integer
        } else if has(&["CHAR", "CLOB", "TEXT"]) {
            Affinity::Text
        } else if declared.is_empty() || has(&["BLOB"]) {
            Affinity::Blob
        } else if has(&["REAL", "FLOA", "DOUB"]) {
            Affinity::Real
        } else {
            Affinity::Numeric
        }
    }
}

/// Checks, without changing the table, that one that exists can take these columns.
///
/// Not with a read-only connection: a killed process leaves a journal behind, and whoever looks first rolls it back.
pub(super) fn check(shared: &Shared, schema: &Schema) -> Result<()> {
    let failed = |e| shared.failed("open it", e);
    if !shared.path.exists() {
        let directory = directory_of(&shared.path);
        if !directory.is_dir() {
            return Err(Error::connector(format!("{}: there is no directory {directory:?}", shared.name())));
        }
        return Ok(());
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = locks::open_with(&shared.path, flags).map_err(failed)?;
    connection.busy_timeout(BUSY_WAIT).map_err(failed)?;
    let columns = columns_of(shared, &connection)?;
    if connection.is_readonly("main").map_err(failed)? {
        return Err(Error::connector(format!(
            "{}: the database can only be read; make the file writable, or write into another one",
            shared.name()
        )));
    }
    match columns {
        None => Ok(()),
        Some(columns) => check_columns(shared, &connection, schema, &columns),
    }
}

/// The columns of the table; `None` if there is none.
pub(super) fn columns_of(shared: &Shared, connection: &Connection) -> Result<Option<Vec<Declared>>> {
    let failed = |e| shared.failed("look at the table", e);
    let mut statement = connection.prepare("SELECT name, type, pk FROM pragma_table_info(?1)").map_err(failed)?;
    let rows = statement
        .query_map([&shared.table], |row| {
            Ok(Declared { name: row.get(0)?, declared: row.get(1)?, is_key: row.get::<_, i64>(2)? > 0 })
        })
        .map_err(failed)?;
    let columns = rows.collect::<std::result::Result<Vec<_>, _>>().map_err(failed)?;
    Ok((!columns.is_empty()).then_some(columns))
}

/// The column that is another name for the rowid, where there is one: a null in it would become a number that SQLite
/// chooses.
pub(super) fn rowid_alias(columns: &[Declared]) -> Option<&str> {
    let mut keys = columns.iter().filter(|column| column.is_key);
    match (keys.next(), keys.next()) {
        (Some(key), None) if key.declared.eq_ignore_ascii_case("INTEGER") => Some(&key.name),
        _ => None,
    }
}

pub(super) fn check_columns(
    shared: &Shared,
    connection: &Connection,
    schema: &Schema,
    columns: &[Declared],
) -> Result<()> {
    for field in schema.fields() {
        let Some(column) = columns.iter().find(|column| column.name.eq_ignore_ascii_case(field.name())) else {
            let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
            return Err(Error::schema(format!(
                "{}: the table has no column {:?}{} (it has {}); rename() the column, or write into another table",
                shared.name(),
                field.name(),
                did_you_mean(field.name(), names.iter().copied()),
                quoted(&names, ", ")
            )));
        };
        if let Some(change) = change(field.data_type(), Affinity::of(&column.declared)) {
            let declared = Class::of(field.data_type()).map_or("BLOB", Class::declared);
            return Err(Error::schema(format!(
                "{}: the column {:?} of the table is declared {:?}, in which SQLite would {change}; declare it {declared}, \
                 cast() the column, or write into another table",
                shared.name(),
                column.name,
                column.declared
            )));
        }
    }
    check_conflicts(shared, connection)?;
    // Preparing the statement shows whether the key is one in the table.
    let sql = statement::insert(&shared.table, schema, shared.key.as_deref());
    connection.prepare(&sql).map(|_| ()).map_err(|e| match &shared.key {
        Some(key) if e.to_string().contains("ON CONFLICT") => Error::schema(format!(
            "{}: the table has no primary key or unique index on ({}); make one, or write into another table",
            shared.name(),
            quoted(key, ", ")
        )),
        _ => shared.failed("write the table", e),
    })?;
    match &shared.key {
        Some(key) => check_collation(shared, connection, key),
        None => Ok(()),
    }
}

/// Refuses a table that lets rows vanish without an error: by a conflict clause of its own, or by a trigger.
fn check_conflicts(shared: &Shared, connection: &Connection) -> Result<()> {
    let failed = |e| shared.failed("look at the table", e);
    let sql = "SELECT type, name, coalesce(sql, '') FROM sqlite_master \
               WHERE tbl_name = ?1 COLLATE NOCASE AND type IN ('table', 'trigger')";
    let mut statement = connection.prepare(sql).map_err(failed)?;
    let rows = statement.query_map([&shared.table], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).map_err(failed)?;
    for (kind, name, sql) in rows.collect::<std::result::Result<Vec<(String, String, String)>, _>>().map_err(failed)? {
        let words = words(&sql);
        let has = |sought: &[&str]| words.windows(sought.len()).any(|window| window == sought);
        let found = if kind == "trigger" {
            has(&["RAISE", "IGNORE"]).then(|| format!("the trigger {name:?} leaves rows out, by RAISE(IGNORE)"))
        } else if has(&["ON", "CONFLICT", "IGNORE"]) {
            Some("a constraint of the table leaves rows out, by ON CONFLICT IGNORE".to_owned())
        } else if has(&["ON", "CONFLICT", "REPLACE"]) {
            Some("a constraint of the table deletes other rows, by ON CONFLICT REPLACE".to_owned())
        } else {
            None
        };
        if let Some(found) = found {
            return Err(Error::schema(format!(
                "{}: {found}, so rows would be missing without an error; declare it without, or write into another table",
                shared.name()
            )));
        }
    }
    Ok(())
}

/// The words of a statement in upper case, without comments and what is quoted.
fn words(sql: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut rest = sql;
    while let Some(first) = rest.chars().next() {
        let after = |end: &str, from: usize| rest[from..].find(end).map_or(rest.len(), |at| from + at + end.len());
        let skipped = match first {
            '-' if rest.starts_with("--") => after("\n", 2),
            '/' if rest.starts_with("/*") => after("*/", 2),
            // A quote within a quoted text comes twice, so it looks like the end of one text and the start of the next.
            '\'' | '"' | '`' => after(&first.to_string(), 1),
            '[' => after("]", 1),
            _ if first.is_alphanumeric() || first == '_' => {
                words.last_mut().expect("there is one").extend(first.to_uppercase());
                rest = &rest[first.len_utf8()..];
                continue;
            }
            _ => first.len_utf8(),
        };
        if words.last().is_some_and(|word| !word.is_empty()) {
            words.push(String::new());
        }
        rest = &rest[skipped..];
    }
    words
}

/// What the affinity of a column would do to values of this type, if it would change them.
fn change(data_type: &DataType, affinity: Affinity) -> Option<&'static str> {
    let value_type = match data_type {
        DataType::Dictionary(_, value) => value.as_ref(),
        other => other,
    };
    let is_number = matches!(affinity, Affinity::Integer | Affinity::Real | Affinity::Numeric);
    match value_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View if is_number => {
            Some("turn text that looks like a number into one, as \"007\" into 7")
        }
        t if t.is_decimal() && is_number => Some("turn exact decimals into floats"),
        DataType::Int64 | DataType::UInt64 if affinity == Affinity::Real => Some("round large integers"),
        t if t.is_floating() && affinity == Affinity::Text => Some("cut floats to 15 digits"),
        _ => None,
    }
}

/// Refuses an index that takes different keys for the same.
fn check_collation(shared: &Shared, connection: &Connection, key: &[String]) -> Result<()> {
    let failed = |e| shared.failed("look at the indexes of the table", e);
    let wanted: BTreeSet<String> = key.iter().map(|name| name.to_ascii_lowercase()).collect();
    let sql = "SELECT name FROM pragma_index_list(?1) WHERE \"unique\" = 1 AND partial = 0";
    let mut statement = connection.prepare(sql).map_err(failed)?;
    let indexes = statement.query_map([&shared.table], |row| row.get::<_, String>(0)).map_err(failed)?;
    for index in indexes.collect::<std::result::Result<Vec<_>, _>>().map_err(failed)? {
        let sql = "SELECT coalesce(name, ''), coll FROM pragma_index_xinfo(?1) WHERE key = 1";
        let mut statement = connection.prepare(sql).map_err(failed)?;
        let rows = statement.query_map([&index], |row| Ok((row.get(0)?, row.get(1)?))).map_err(failed)?;
        let columns: Vec<(String, String)> = rows.collect::<std::result::Result<_, _>>().map_err(failed)?;
        if columns.iter().map(|(name, _)| name.to_ascii_lowercase()).collect::<BTreeSet<_>>() != wanted {
            continue;
        }
        if let Some((name, collation)) = columns.iter().find(|(_, collation)| !collation.eq_ignore_ascii_case("BINARY")) {
            return Err(Error::schema(format!(
                "{}: the key column {name:?} of the table compares text with the collation {collation}, which takes \
                 different keys for the same; declare it without, or write into another table",
                shared.name()
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_that_sqlite_reads() {
        for (sql, expected) in [
            ("a UNIQUE on\n conflict(ignore),", "A UNIQUE ON CONFLICT IGNORE "),
            ("x -- on conflict ignore\ny /* z */z", "X Y Z"),
            ("d DEFAULT 'on ''conflict'' ignore' \"ON\" [CONFLICT] `IGNORE` e", "D DEFAULT E"),
            ("'open", ""),
        ] {
            assert_eq!(words(sql).join(" "), expected, "{sql}");
        }
    }

    #[test]
    fn affinities_are_those_of_sqlite() {
        for (declared, affinity) in [
            ("INT", Affinity::Integer), ("BIGINT UNSIGNED", Affinity::Integer), ("POINT", Affinity::Integer),
            ("VARCHAR(20)", Affinity::Text), ("clob", Affinity::Text), ("", Affinity::Blob), ("BLOB", Affinity::Blob),
            ("DOUBLE PRECISION", Affinity::Real), ("float", Affinity::Real), ("DECIMAL(10, 2)", Affinity::Numeric),
            ("DATETIME", Affinity::Numeric), ("BOOLEAN", Affinity::Numeric),
        ] {
            assert_eq!(Affinity::of(declared), affinity, "{declared}");
        }
    }
}
