//! Names of tables and columns as SQL.

use mill_protocol::{Error, Result};

use crate::relation::parts;

/// A name as an identifier, whatever is in it.
pub(super) fn identifier(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// Names as a list of identifiers.
pub(super) fn identifiers<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(identifier).collect::<Vec<_>>().join(", ")
}

/// A text as a constant in UTF-8, whatever the server is set to.
pub(super) fn constant(text: &str) -> String {
    format!("_utf8mb4 {}", bytes(text.as_bytes()))
}

/// Bytes as a constant.
pub(super) fn bytes(bytes: &[u8]) -> String {
    let mut out = Vec::with_capacity(3 + 2 * bytes.len());
    push_bytes(bytes, &mut out);
    String::from_utf8(out).expect("hexadecimal digits are text")
}

/// Appends bytes as a constant.
pub(super) fn push_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.extend_from_slice(b"X'");
    for byte in bytes {
        out.extend_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
    out.push(b'\'');
}

/// The name of a table, with its database if there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TableName {
    pub(super) database: Option<String>,
    pub(super) table: String,
}

impl TableName {
    /// Reads `table` or `database.table`. Names are taken as they are written; a dot in a name asks for backticks around it.
    ///
    /// # Errors
    /// When it is no such name.
    pub(super) fn parse(call: &str, text: &str) -> Result<TableName> {
        let wrong = || {
            Error::plan(format!(
                "{call}: {text:?} is not the name of a table; it is written table or database.table, with backticks around a name that \
                 has a dot"
            ))
        };
        let mut parts = parts(text, '`').ok_or_else(wrong)?;
        match (parts.pop(), parts.pop(), parts.pop()) {
            (Some(table), database, None) => Ok(TableName { database, table }),
            _ => Err(wrong()),
        }
    }

    /// As SQL.
    pub(super) fn sql(&self) -> String {
        match &self.database {
            Some(database) => format!("{}.{}", identifier(database), identifier(&self.table)),
            None => identifier(&self.table),
        }
    }

    /// The database that it is in, as SQL.
    pub(super) fn database_sql(&self) -> String {
        self.database.as_deref().map_or_else(|| "DATABASE()".to_owned(), constant)
    }

    /// The condition for its rows in a table of `information_schema`.
    pub(super) fn is_in_catalog(&self) -> String {
        format!("TABLE_SCHEMA = {} AND TABLE_NAME = {}", self.database_sql(), constant(&self.table))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_as_they_are_written() {
        for (text, sql) in [
            ("orders", "`orders`"),
            ("Shop.Orders", "`Shop`.`Orders`"),
            ("`a.b`.c", "`a.b`.`c`"),
            ("say \"x\"", "`say \"x\"`"),
            ("ä b; drop", "`ä b; drop`"),
            ("in`side", "`in``side`"),
        ] {
            assert_eq!(TableName::parse("f()", text).unwrap().sql(), sql);
        }
        for text in ["", ".", "a.", ".a", "a.b.c", "`a", "`a`b", "a.``"] {
            assert!(TableName::parse("f()", text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_constant_is_no_more_than_text() {
        assert_eq!(constant("a'\\"), "_utf8mb4 X'61275C'");
        assert_eq!(bytes(&[]), "X''");
    }
}
