//! Names of tables and columns as SQL.

use mill_protocol::{Error, Result};

use crate::relation::parts;

/// A name as an identifier, whatever is in it.
pub(super) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Names as a list of identifiers.
pub(super) fn identifiers<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(identifier).collect::<Vec<_>>().join(", ")
}

/// A text as a constant. A backslash in it is a backslash, whatever the server is set to.
pub(super) fn constant(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') { format!(" E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}

/// The name of a table, with its schema if there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TableName {
    pub(super) schema: Option<String>,
    pub(super) table: String,
}

impl TableName {
    /// Reads `table` or `schema.table`. Names are taken as they are written; a dot in a name asks for double quotes around it.
    ///
    /// # Errors
    /// When it is no such name.
    pub(super) fn parse(call: &str, text: &str) -> Result<TableName> {
        let wrong = || {
            Error::plan(format!(
                "{call}: {text:?} is not the name of a table; it is written table or schema.table, with double quotes around a name \
                 that has a dot"
            ))
        };
        let mut parts = parts(text, '"').ok_or_else(wrong)?;
        match (parts.pop(), parts.pop(), parts.pop()) {
            (Some(table), schema, None) => Ok(TableName { schema, table }),
            _ => Err(wrong()),
        }
    }

    /// As SQL.
    pub(super) fn sql(&self) -> String {
        match &self.schema {
            Some(schema) => format!("{}.{}", identifier(schema), identifier(&self.table)),
            None => identifier(&self.table),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_as_they_are_written() {
        for (text, sql) in [
            ("orders", "\"orders\""),
            ("Shop.Orders", "\"Shop\".\"Orders\""),
            ("\"a.b\".c", "\"a.b\".\"c\""),
            ("\"say \"\"x\"\"\"", "\"say \"\"x\"\"\""),
            ("ä b; drop", "\"ä b; drop\""),
            ("in\"side", "\"in\"\"side\""),
        ] {
            assert_eq!(TableName::parse("f()", text).unwrap().sql(), sql);
        }
        for text in ["", ".", "a.", ".a", "a.b.c", "\"a", "\"a\"b", "a.\"\""] {
            assert!(TableName::parse("f()", text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_constant_is_no_more_than_text() {
        assert_eq!(constant("it's"), "'it''s'");
        assert_eq!(constant("a\\' or 1=1"), " E'a\\\\'' or 1=1'");
    }
}
