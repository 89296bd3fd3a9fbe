//! The combined meaning of the CSV options.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::path::Path;

use arrow::datatypes::Schema;
use mill_protocol::{Error, Result};

use super::CsvOptions;
use super::tokens::Dialect;
use crate::nearest::{did_you_mean, quoted};

impl CsvOptions {
    /// How bytes are cut into fields.
    pub(super) fn dialect(&self) -> Dialect<'_> {
        Dialect {
            delimiter: self.separator,
            quote: self.quote,
            escape: self.escape,
            comment: self.comment_prefix.as_ref().map(String::as_bytes),
            is_ragged: self.truncate_ragged_lines,
        }
    }

    /// Whether the first byte of a file is that of its first record.
    pub(super) fn begins_with_records(&self) -> bool {
        !self.has_header && self.skip_lines == 0 && self.skip_rows == 0
    }

    /// The texts that mean null in this column.
    pub(super) fn nulls_of(&self, column: &str) -> Cow<'_, [String]> {
        match self.column_nulls.iter().find(|(name, _)| name == column) {
            Some((_, nulls)) if self.null_values.is_empty() => Cow::Borrowed(nulls),
            Some((_, nulls)) => Cow::Owned([self.null_values.as_slice(), nulls].concat()),
            None => Cow::Borrowed(&self.null_values),
        }
    }

    /// The names that the columns get instead of these.
    pub(super) fn renamed(&self, names: Vec<String>, path: &Path) -> Result<Vec<String>> {
        match &self.new_columns {
            None => Ok(names),
            Some(new) => self.check_count(&names, new, path).map(|()| new.clone()),
        }
    }

    /// Refuses other than one new name a column.
    pub(super) fn check_count(&self, names: &[String], new: &[String], path: &Path) -> Result<()> {
        if names.len() == new.len() {
            return Ok(());
        }
        let (columns, found) = (mill_frame::words::counted(names.len(), "column"), quoted(names, ", "));
        Err(Error::schema(format!("{path:?} has {columns} ({found}), and new_columns names {}", new.len())))
    }

    /// For each column of the schema its place in a file without a header.
    pub(super) fn places_by_position(&self, schema: &Schema) -> Result<Vec<Option<usize>>> {
        let Some(names) = &self.new_columns else { return Ok((0..schema.fields().len()).map(Some).collect()) };
        let place = |name: &String| names.iter().position(|other| other == name);
        if names.len() != schema.fields().len() {
            return Err(Error::schema(format!(
                "read_csv: the schema has {}, and new_columns names {}",
                mill_frame::words::counted(schema.fields().len(), "column"),
                names.len()
            )));
        }
        Ok(schema.fields().iter().map(|field| place(field.name())).collect())
    }

    /// The options that skip lines at the start of a file, as Python spells them.
    pub(super) fn skipped(&self) -> Option<String> {
        let skipped = [("skip_lines", self.skip_lines), ("skip_rows", self.skip_rows)];
        let named: Vec<String> = skipped.iter().filter(|(_, count)| *count > 0).map(|(name, count)| format!("{name}={count}")).collect();
        (!named.is_empty()).then(|| named.join(" with "))
    }

    /// Refuses options that contradict each other.
    pub(super) fn check(&self) -> Result<()> {
        let refused = |message: String| Err(Error::plan(format!("read_csv: {message}")));
        let marks = [("separator", Some(self.separator)), ("quote_char", self.quote), ("escape_char", self.escape)];
        for (index, (name, mark)) in marks.iter().enumerate() {
            let Some(byte) = *mark else { continue };
            if !byte.is_ascii() || matches!(byte, b'\n' | b'\r' | 0) {
                return refused(format!("{name} is one ASCII character that ends no line, not {:?}", byte as char));
            }
            // An escape that is the quote is what a doubled quote is anyway.
            let same = marks[..index].iter().find(|(other, mark)| *mark == Some(byte) && (*other, *name) != ("quote_char", "escape_char"));
            if let Some((other, _)) = same {
                return refused(format!("{other} and {name} are the same character {:?}", byte as char));
            }
        }
        if self.escape.is_some() && self.quote.is_none() {
            return refused("escape_char has a meaning within quotes only, and quote_char is None".to_owned());
        }
        if let Some(comment) = &self.comment_prefix {
            let first = comment.bytes().next();
            if comment.is_empty() || comment.contains(['\n', '\r']) {
                return refused("comment_prefix is a text that a line begins with, such as \"#\"".to_owned());
            }
            if first == Some(self.separator) || first == self.quote {
                return refused(format!("comment_prefix {comment:?} begins as a record may: with the separator or a quote"));
            }
        }
        if self.decimal_comma && self.separator == b',' {
            return refused("with decimal_comma the separator is another character: separator=\";\"".to_owned());
        }
        if !self.has_header && self.skip_rows_after_header > 0 {
            return refused("skip_rows_after_header has no meaning with has_header=False; use skip_rows".to_owned());
        }
        if !self.has_header && self.files.insert_missing_columns {
            return refused("missing_columns has no meaning with has_header=False, where columns have no names".to_owned());
        }
        if let Some(names) = &self.new_columns
            && let Some(twice) = names.iter().enumerate().find(|(index, name)| names[..*index].contains(name))
        {
            return refused(format!("new_columns has {:?} twice", twice.1));
        }
        Ok(())
    }

    /// Refuses names that no column has.
    pub(super) fn check_names(&self, columns: &Schema) -> Result<()> {
        let names: Vec<&str> = columns.fields().iter().map(|field| field.name().as_str()).collect();
        if let Some((name, _)) = self.column_nulls.iter().find(|(name, _)| !names.contains(&name.as_str())) {
            let near = did_you_mean(name, names.iter().copied());
            return Err(Error::schema(format!("read_csv(null_values=…): there is no column {name:?}{near} (there are {})", quoted(&names, ", "))));
        }
        if let Some(new) = &self.new_columns
            && let Some(name) = names.iter().find(|name| !new.iter().any(|new| new == *name))
        {
            let near = did_you_mean(name, new.iter().map(String::as_str));
            return Err(Error::schema(format!("read_csv: schema has a column {name:?}, and new_columns has none of this name{near}")));
        }
        Ok(())
    }

    /// The options that are not as they are by default, as Python spells them.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        let mut add = |name: &str, value: String| write!(text, ", {name}={value}").expect("a string takes all");
        let mark = |mark: Option<u8>| mark.map_or("None".to_owned(), |byte| format!("{:?}", (byte as char).to_string()));
        let flag = |is_set: bool| if is_set { "True" } else { "False" }.to_owned();
        let default = CsvOptions::default();
        if self.separator != default.separator {
            add("separator", mark(Some(self.separator)));
        }
        if self.quote != default.quote {
            add("quote_char", mark(self.quote));
        }
        if self.escape.is_some() {
            add("escape_char", mark(self.escape));
        }
        if !self.has_header {
            add("has_header", flag(false));
        }
        if let Some(names) = &self.new_columns {
            add("new_columns", format!("{names:?}"));
        }
        for (name, rows) in
            [("skip_lines", self.skip_lines), ("skip_rows", self.skip_rows), ("skip_rows_after_header", self.skip_rows_after_header)]
        {
            if rows > 0 {
                add(name, rows.to_string());
            }
        }
        if let Some(comment) = &self.comment_prefix {
            add("comment_prefix", format!("{comment:?}"));
        }
        if !self.null_values.is_empty() {
            add("null_values", format!("{:?}", self.null_values));
        }
        if !self.column_nulls.is_empty() {
            let pairs: Vec<String> = self.column_nulls.iter().map(|(name, nulls)| format!("{name:?}: {nulls:?}")).collect();
            add("null_values", format!("{{{}}}", pairs.join(", ")));
        }
        if self.truncate_ragged_lines {
            add("truncate_ragged_lines", flag(true));
        }
        if !self.try_parse_dates {
            add("try_parse_dates", flag(false));
        }
        if self.decimal_comma {
            add("decimal_comma", flag(true));
        }
        if self.is_lossy {
            add("encoding", "\"utf8-lossy\"".to_owned());
        }
        text
    }
}
