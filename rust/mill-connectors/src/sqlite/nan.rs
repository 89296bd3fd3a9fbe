//! Keys that are not a number.
//!
//! NaN and null are different keys, and SQLite knows only null: a NaN is stored as one. Two rows that become the same
//! row in the table would overwrite each other in silence, so a side table notes which rows with a null in a float key
//! stand for a NaN, and a key that would meet a row of the other meaning is refused. Only keys with a null or NaN in a
//! float column are looked up.

use mill_protocol::{Error, Result};
use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use rusqlite::{Connection, OptionalExtension, params, params_from_iter};

use super::Shared;
use super::statement::{identifier, matches};
use super::value::Column;

/// The side table.
pub(super) const TABLE: &str = "_millstream_nan";

/// The key of a row as SQLite sees it, and which of its columns are NaN in truth.
struct Seen {
    key: Vec<u8>,
    nans: i64,
}

/// Whether a key has to be looked up.
pub(super) fn is_doubtful(key: &[&Column], row: usize) -> bool {
    key.iter().any(|column| column.is_float() && (column.is_null(row) || column.is_nan(row)))
}

/// Refuses a key that would share its row with another; notes it, or takes the note back when its row is deleted.
pub(super) fn check(
    shared: &Shared,
    connection: &Connection,
    names: &[String],
    key: &[&Column],
    row: usize,
    is_delete: bool,
) -> Result<()> {
    let failed = |e| shared.failed("compare keys that are not a number", e);
    let seen = Seen::of(key, row);
    let table = shared.table.to_ascii_lowercase();
    let exists: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = ?1", [TABLE], |row| row.get(0))
        .map_err(failed)?;
    let mut noted: Option<i64> = None;
    if exists > 0 {
        let sql = format!("SELECT nans FROM {TABLE} WHERE \"table\" = ?1 AND key = ?2");
        noted = connection.query_row(&sql, params![table, seen.key], |row| row.get(0)).optional().map_err(failed)?;
    } else if seen.nans == 0 {
        return Ok(());
    }
    let meaning = match noted {
        Some(noted) => Some(noted),
        None if seen.nans == 0 => None,
        // Without a note a row that is there has a null.
        None => {
            let sql = format!("SELECT 1 FROM {} WHERE {}", identifier(&shared.table), matches(names));
            let values = key.iter().map(|column| column.value(row));
            connection.query_row(&sql, params_from_iter(values), |_| Ok(0)).optional().map_err(failed)?
        }
    };
    if meaning.is_some_and(|meaning| meaning != seen.nans) {
        return Err(Error::data(format!(
            "{}: the keys NaN and null in {} are different keys, and SQLite can only store both as null: one would \
             overwrite the other; replace one of them before the sink, as with fill_nan() or fill_null()",
            shared.name(),
            crate::nearest::quoted(names, ", ")
        )));
    }
    if seen.nans == 0 {
        return Ok(());
    }
    let sql = match is_delete {
        true if exists == 0 => return Ok(()),
        true => format!("DELETE FROM {TABLE} WHERE \"table\" = ?1 AND key = ?2 AND nans = ?3"),
        false => {
            let sql = format!(
                "CREATE TABLE IF NOT EXISTS {TABLE} (\"table\" TEXT NOT NULL, key BLOB NOT NULL, nans INTEGER NOT NULL, \
                 PRIMARY KEY (\"table\", key)) WITHOUT ROWID"
            );
            connection.execute(&sql, []).map_err(failed)?;
            format!("INSERT INTO {TABLE} (\"table\", key, nans) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING")
        }
    };
    connection.execute(&sql, params![table, seen.key, seen.nans]).map(drop).map_err(failed)
}

impl Seen {
    fn of(columns: &[&Column], row: usize) -> Seen {
        let (mut key, mut nans) = (Vec::new(), 0);
        for (place, column) in columns.iter().enumerate() {
            if column.is_nan(row) {
                nans |= 1 << (place % 63);
            }
            // A tag and the value; what varies in length is preceded by it.
            match column.value(row) {
                ToSqlOutput::Owned(Value::Integer(value)) => {
                    key.push(1);
                    key.extend(value.to_le_bytes());
                }
                ToSqlOutput::Owned(Value::Real(value)) => {
                    key.push(2);
                    key.extend((value + 0.0).to_le_bytes());
                }
                ToSqlOutput::Borrowed(ValueRef::Text(bytes) | ValueRef::Blob(bytes)) => {
                    key.push(3);
                    key.extend((bytes.len() as u64).to_le_bytes());
                    key.extend(bytes);
                }
                _ => key.push(0),
            }
        }
        Seen { key, nans }
    }
}
