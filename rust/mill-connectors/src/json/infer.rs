//! What the records of a sample have in common.
//!
//! Columns come in the order in which the records name them. The kinds of values that have nothing in common but that
//! they are JSON (a number and a text, an array and an object) are text: their source, which loses nothing.

use arrow::datatypes::Field;
use mill_frame::json::{Fault, Kind, Scanner, Value, text_of, unescape};

use crate::infer::{Common, add};

/// Names and kinds in the order they came.
#[derive(Debug, Default)]
pub(super) struct Shape {
    columns: Vec<(String, Common)>,
    records: usize,
}

impl Shape {
    /// Adds the record of a line.
    ///
    /// # Errors
    /// Why it is none, as a user should read it; then nothing is added.
    pub(super) fn add(&mut self, line: &[u8]) -> Result<(), String> {
        let start = line.len() - line.trim_ascii_start().len();
        if line.get(start) != Some(&b'{') {
            return Err("the line is not a JSON object".to_owned());
        }
        if std::str::from_utf8(line).is_err() {
            return Err("the line is not UTF-8".to_owned());
        }
        let mut scanner = Scanner::new(line, start);
        let mut columns = Vec::new();
        let result = scanner.object::<Fault>(1, |key, value| {
            add(&mut columns, text_of(key, line), common_of(value, line));
            Ok(())
        });
        if let Err(fault) = result {
            return Err(fault.message(line, 0));
        }
        if !scanner.is_at_end() {
            return Err(Fault::At(scanner.at).message(line, 0));
        }
        self.records += 1;
        columns.into_iter().for_each(|(name, common)| add(&mut self.columns, name, common));
        Ok(())
    }

    /// Whether there is no record with a key.
    pub(super) fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    pub(super) fn records(&self) -> usize {
        self.records
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|(name, _)| name.as_str())
    }

    pub(super) fn fields(&self) -> Vec<Field> {
        self.columns.iter().map(|(name, common)| Field::new(name, common.data_type(), true)).collect()
    }
}

/// Of a value that the scanner has passed, and so is JSON.
fn common_of(value: Value, data: &[u8]) -> Common {
    let bytes = value.bytes(data);
    match value.kind {
        Kind::Missing | Kind::Null => Common::Nothing,
        Kind::Boolean => Common::Boolean,
        Kind::Number => Common::of_number(bytes),
        Kind::String => Common::of_string(bytes),
        Kind::Escaped => {
            let mut text = Vec::with_capacity(bytes.len());
            unescape(bytes, &mut text);
            Common::of_string(&text)
        }
        Kind::List => {
            let mut common = Common::Nothing;
            let items = Scanner::new(&data[..value.end as usize], value.start as usize).list::<Fault>(0, |item| {
                common = std::mem::replace(&mut common, Common::Nothing).and(common_of(item, data));
                Ok(())
            });
            debug_assert!(items.is_ok(), "the scanner has passed it");
            Common::List(Box::new(common))
        }
        Kind::Object => {
            let mut columns = Vec::new();
            let fields = Scanner::new(&data[..value.end as usize], value.start as usize).object::<Fault>(0, |key, value| {
                add(&mut columns, text_of(key, data), common_of(value, data));
                Ok(())
            });
            debug_assert!(fields.is_ok(), "the scanner has passed it");
            Common::Struct(columns)
        }
    }
}
