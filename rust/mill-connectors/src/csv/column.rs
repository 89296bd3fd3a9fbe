//! Makes a column of fields.
//!
//! What a field's text means is decided by [`mill_frame::text`]. A field that is not of its column's type is noted with
//! its row, and the row is left out later, so one bad field costs one record.

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use mill_frame::text::{Cell, Misfit, read};

use super::tokens::{Field, unescape};

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
    pub(crate) quote: u8,
    pub(crate) nulls: &'a [String],
    /// Whether any field of the data is quoted.
    pub(crate) has_quotes: bool,
}

/// Takes note of rows that are no record.
pub(crate) struct BadRows<'a> {
    pub(crate) name: &'a str,
    pub(crate) rows: Vec<(usize, String)>,
}

impl BadRows<'_> {
    fn push(&mut self, row: usize, value: &[u8], data_type: &DataType, misfit: Misfit) {
        const VALUE_CHARS_MAX: usize = 100;
        let value: String = String::from_utf8_lossy(value).chars().take(VALUE_CHARS_MAX).collect();
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
        let bytes = field.bytes(self.data);
        if bytes.is_empty() {
            return !field.is_quoted();
        }
        !self.nulls.is_empty() && !field.is_quoted() && self.nulls.iter().any(|null| null.as_bytes() == bytes)
    }

    /// The column as this type.
    pub(crate) fn read(&self, data_type: &DataType, bad: &mut BadRows<'_>) -> ArrayRef {
        let is_escaped = |field: Field| field.is_quoted() && memchr::memchr(self.quote, field.bytes(self.data)).is_some();
        // Doubled quotes are made single in a buffer of their own; most columns have none.
        let (mut unescaped, mut ends) = (Vec::new(), Vec::new());
        if self.has_quotes {
            for field in self.values().flatten().filter(|field| is_escaped(*field)) {
                unescape(field.bytes(self.data), self.quote, &mut unescaped);
                ends.push(unescaped.len());
            }
        }
        if ends.is_empty() {
            let cells = self.values().map(|field| field.map_or(Cell::Null, |field| Cell::Text(field.bytes(self.data))));
            return read(cells, self.rows(), data_type, |row, bytes, misfit| bad.push(row, bytes, data_type, misfit));
        }
        let (mut start, mut ends) = (0, ends.into_iter());
        let cells = self.values().map(|field| match field {
            None => Cell::Null,
            Some(field) if is_escaped(field) => {
                let end = ends.next().expect("there is an end for each field with doubled quotes");
                let text = &unescaped[start..end];
                start = end;
                Cell::Text(text)
            }
            Some(field) => Cell::Text(field.bytes(self.data)),
        });
        read(cells, self.rows(), data_type, |row, bytes, misfit| bad.push(row, bytes, data_type, misfit))
    }
}
