//! Makes a column of fields.
//!
//! What a field's text means is decided by [`mill_frame::text`]. A field that is not of its column's type is noted with
//! its row, and the row is left out later, so one bad field costs one record.

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use mill_frame::text::{Cell, Misfit, read};

use super::CsvOptions;
use super::tokens::{Dialect, Field};

/// Whether fields can be read as this type.
pub(crate) fn can_read(data_type: &DataType) -> bool {
    let is_binary = data_type.is_binary() || matches!(data_type, DataType::FixedSizeBinary(_));
    !is_binary && mill_frame::text::can_read(data_type)
}

/// The fields of one column.
pub(crate) struct Fields<'a> {
    pub(crate) data: &'a [u8],
    pub(crate) fields: &'a [Field],
    /// Fields a record, and which of them.
    pub(crate) columns: usize,
    pub(crate) column: usize,
    pub(crate) options: &'a CsvOptions,
    /// Fields that mean null.
    pub(crate) nulls: &'a [String],
    /// Whether any field of the data is quoted, and whether all of them are UTF-8 as far as it matters.
    pub(crate) has_quotes: bool,
    pub(crate) is_utf8: bool,
}

/// What the bytes of fields become before they are read as values.
#[derive(Clone, Copy)]
struct Rewrite<'a> {
    dialect: Dialect<'a>,
    has_quotes: bool,
    /// Commas are points in numbers, and points are commas, which no number has.
    has_decimal_comma: bool,
    /// What is not UTF-8 is replaced.
    is_lossy: bool,
}

impl Rewrite<'_> {
    fn may_change(self) -> bool {
        self.has_quotes || self.has_decimal_comma || self.is_lossy
    }

    #[inline]
    fn changes(self, field: Field, data: &[u8]) -> bool {
        let bytes = field.bytes(data);
        self.has_quotes && field.is_quoted() && self.dialect.is_escaped(bytes)
            || self.has_decimal_comma && memchr::memchr2(b',', b'.', bytes).is_some()
            || self.is_lossy && std::str::from_utf8(bytes).is_err()
    }

    fn push(self, field: Field, data: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        match field.is_quoted() {
            true => self.dialect.unescape(field.bytes(data), out),
            false => out.extend_from_slice(field.bytes(data)),
        }
        if self.has_decimal_comma {
            swap_points(&mut out[start..]);
        }
        if self.is_lossy && let Err(_) = std::str::from_utf8(&out[start..]) {
            let text = String::from_utf8_lossy(&out[start..]).into_owned();
            out.truncate(start);
            out.extend_from_slice(text.as_bytes());
        }
    }
}

/// Makes points of commas, and commas of points.
pub(super) fn swap_points(bytes: &mut [u8]) {
    for byte in bytes {
        match byte {
            b',' => *byte = b'.',
            b'.' => *byte = b',',
            _ => {}
        }
    }
}

/// Whether the unquoted empty field, or one of these, is this field.
pub(super) fn is_null(field: Field, data: &[u8], nulls: &[String], dialect: Dialect<'_>) -> bool {
    let bytes = field.bytes(data);
    if bytes.is_empty() && !field.is_quoted() {
        return true;
    }
    if nulls.is_empty() {
        return false;
    }
    if field.is_quoted() && dialect.is_escaped(bytes) {
        let mut text = Vec::with_capacity(bytes.len());
        dialect.unescape(bytes, &mut text);
        return nulls.iter().any(|null| null.as_bytes() == text);
    }
    nulls.iter().any(|null| null.as_bytes() == bytes)
}

/// Takes note of rows that are no record.
pub(crate) struct BadRows<'a> {
    pub(crate) name: &'a str,
    pub(crate) rows: Vec<(usize, String)>,
}

impl BadRows<'_> {
    fn push(&mut self, row: usize, value: &[u8], data_type: &DataType, misfit: Misfit, is_swapped: bool) {
        const VALUE_CHARS_MAX: usize = 100;
        let mut value = value.to_vec();
        if is_swapped {
            swap_points(&mut value);
        }
        let value: String = String::from_utf8_lossy(&value).chars().take(VALUE_CHARS_MAX).collect();
        self.rows.push((row, format!("column {:?}: {value:?} {}", self.name, misfit.reason(data_type))));
    }
}

impl<'a> Fields<'a> {
    fn rows(&self) -> usize {
        self.fields.len() / self.columns
    }

    /// Each row's field, `None` for null.
    #[inline]
    fn values(&self) -> impl Iterator<Item = Option<Field>> + '_ {
        let records = self.fields.chunks_exact(self.columns);
        records.map(|record| {
            let field = record[self.column];
            (!self.is_null(field)).then_some(field)
        })
    }

    #[inline]
    fn is_null(&self, field: Field) -> bool {
        if self.nulls.is_empty() {
            return !field.is_quoted() && field.bytes(self.data).is_empty();
        }
        is_null(field, self.data, self.nulls, self.options.dialect())
    }

    /// The column as this type.
    pub(crate) fn read(&self, data_type: &DataType, bad: &mut BadRows<'_>) -> ArrayRef {
        let rewrite = Rewrite {
            dialect: self.options.dialect(),
            has_quotes: self.has_quotes,
            has_decimal_comma: self.options.decimal_comma && is_numeric(data_type),
            is_lossy: self.options.is_lossy && !self.is_utf8 && is_text(data_type),
        };
        let is_swapped = rewrite.has_decimal_comma;
        // Doubled quotes are made single in a buffer of their own; most columns have none.
        let (mut rewritten, mut ends) = (Vec::new(), Vec::new());
        if rewrite.may_change() {
            for field in self.values().flatten().filter(|field| rewrite.changes(*field, self.data)) {
                rewrite.push(field, self.data, &mut rewritten);
                ends.push(rewritten.len());
            }
        }
        if ends.is_empty() {
            let cells = self.values().map(|field| field.map_or(Cell::Null, |field| Cell::Text(field.bytes(self.data))));
            return read(cells, self.rows(), data_type, |row, bytes, misfit| bad.push(row, bytes, data_type, misfit, is_swapped));
        }
        let (mut start, mut ends) = (0, ends.into_iter());
        let cells = self.values().map(|field| match field {
            None => Cell::Null,
            Some(field) if rewrite.changes(field, self.data) => {
                let end = ends.next().expect("there is an end for each field that was rewritten");
                let text = &rewritten[start..end];
                start = end;
                Cell::Text(text)
            }
            Some(field) => Cell::Text(field.bytes(self.data)),
        });
        read(cells, self.rows(), data_type, |row, bytes, misfit| bad.push(row, bytes, data_type, misfit, is_swapped))
    }
}

fn is_numeric(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, value) => is_numeric(value),
        other => other.is_numeric(),
    }
}

fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, value) => is_text(value),
        other => other.is_string(),
    }
}
