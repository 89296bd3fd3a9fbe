//! Reads the records of one CSV file.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Schema, SchemaRef};
use mill_protocol::{Error, Result};

use super::column::{BadRows, Fields};
use super::tokens::{Field, Tokens, tokenize, unescape};
use super::{CsvOptions, other_columns};
use crate::file::{BYTE_ORDER_MARK, BadRecord, Content, LineFormat, Parsed, RECORD_BYTES_MAX};

/// What is wrong with a file of a system that ended lines in another way.
const BARE_RETURN: &str = "a carriage return without a line feed does not end a line: convert the file \
                           (tr '\\r' '\\n'), or quote the field that has it";

/// Reads CSV records into the columns of a schema.
pub(super) struct CsvFormat {
    options: Arc<CsvOptions>,
    /// All columns of the files.
    columns: SchemaRef,
    schema: SchemaRef,
    is_inferred: bool,
    /// For each column that is read its place among those that are kept; set by `prepare`.
    places: Vec<usize>,
    tokens: Tokens,
}

/// The header of a file: where its records begin, and the place of each column of the schema in it.
pub(super) struct Header {
    pub(super) bytes: u64,
    pub(super) places: Vec<usize>,
}

impl CsvFormat {
    pub(super) fn new(options: Arc<CsvOptions>, columns: SchemaRef, schema: SchemaRef, is_inferred: bool) -> CsvFormat {
        CsvFormat { options, columns, schema, is_inferred, places: Vec::new(), tokens: Tokens::default() }
    }
}

/// Reads the header of a file and matches it with the schema; `None` if the file has none (yet).
pub(super) fn read_header(mut content: Content, schema: &Schema, options: &CsvOptions) -> Result<Option<Header>> {
    const READ_BYTES: usize = 16 << 10;
    if !options.has_header {
        return Ok(Some(Header { bytes: 0, places: (0..schema.fields().len()).collect() }));
    }
    let path = content.path().to_owned();
    let path = path.as_path();
    let mut head = Vec::new();
    let mut is_whole = false;
    let mut tokens = Tokens::default();
    loop {
        let mark = if head.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
        tokenize(&head[mark..], options.dialect(), None, false, 1, &mut tokens);
        if !tokens.records.is_empty() || !tokens.malformed.is_empty() || is_whole {
            break;
        }
        if head.len() > RECORD_BYTES_MAX {
            return Err(Error::data(format!("{path:?} has no end of its header in the first {} MiB", head.len() >> 20)));
        }
        let filled = head.len();
        head.resize(filled + READ_BYTES.max(filled), 0);
        let bytes = content.read(&mut head[filled..])?;
        head.truncate(filled + bytes);
        is_whole = bytes == 0;
    }
    let mark = if head.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
    if let Some(malformed) = tokens.malformed.first() {
        return Err(Error::schema(format!("{path:?} line 1: the header is malformed: {}", malformed.message)));
    }
    if tokens.records.is_empty() && !options.follow {
        tokenize(&head[mark..], options.dialect(), None, true, 1, &mut tokens);
    }
    if tokens.records.is_empty() {
        return Ok(None);
    }
    let names = names_of(&head[mark..], &tokens.fields, options.quote, path)?;
    if let Some(error) = other_columns(path, &names, schema) {
        return Err(error);
    }
    let place = |name: &String| names.iter().position(|other| other == name);
    let places = schema.fields().iter().filter_map(|field| place(field.name())).collect();
    Ok(Some(Header { bytes: (mark + tokens.bytes) as u64, places }))
}

/// The names in a header.
pub(super) fn names_of(data: &[u8], fields: &[Field], quote: u8, path: &Path) -> Result<Vec<String>> {
    let mut names: Vec<String> = Vec::with_capacity(fields.len());
    for (index, field) in fields.iter().enumerate() {
        let mut bytes = Vec::new();
        unescape(field.bytes(data), if field.is_quoted() { quote } else { b'\n' }, &mut bytes);
        let name = String::from_utf8(bytes)
            .map_err(|_| Error::schema(format!("{path:?}: the name of column {} is not UTF-8", index + 1)))?;
        if !field.is_quoted() && name.contains('\r') {
            return Err(Error::schema(format!("{path:?}: {BARE_RETURN}")));
        }
        // Quotes keep the spaces of a name.
        let name = match name.trim() {
            "" => format!("column_{}", index + 1),
            _ if field.is_quoted() => name,
            trimmed => trimmed.to_owned(),
        };
        if names.contains(&name) {
            return Err(Error::schema(format!(
                "{path:?} has two columns {name:?}: give them different names in its header"
            )));
        }
        names.push(name);
    }
    Ok(names)
}

/// Whether there is a carriage return that no line feed follows.
fn has_bare_return(data: &[u8]) -> bool {
    memchr::memchr_iter(b'\r', data).any(|at| data.get(at + 1).is_some_and(|next| *next != b'\n'))
}

/// The same for those of a record that are not within quotes.
fn has_unquoted_return(record: &[u8], quote: u8) -> bool {
    let mut is_open = false;
    record.iter().any(|byte| {
        is_open ^= *byte == quote;
        *byte == b'\r' && !is_open
    })
}

impl LineFormat for CsvFormat {
    fn prepare(&mut self, content: Content, _is_followed: bool) -> Result<Option<u64>> {
        let Some(header) = read_header(content, &self.columns, &self.options)? else { return Ok(None) };
        // Without a header the places are those of the schema; `places` then are those of the columns that are read.
        let place = |name: &String| Some(header.places[self.columns.index_of(name).ok()?]);
        let places: Vec<usize> = self.schema.fields().iter().filter_map(|field| place(field.name())).collect();
        let is_kept = &mut self.tokens.is_kept;
        *is_kept = (0..self.columns.fields().len()).map(|column| places.contains(&column)).collect();
        self.places = places.iter().map(|&column| is_kept[..column].iter().filter(|is_kept| **is_kept).count()).collect();
        Ok(Some(header.bytes))
    }

    fn parse(&mut self, data: &[u8], is_last: bool, rows_max: usize) -> Result<Parsed> {
        let columns = self.columns.fields().len();
        let tokens = &mut self.tokens;
        tokenize(data, self.options.dialect(), Some(columns), is_last, rows_max, tokens);
        let columns = tokens.is_kept.iter().filter(|is_kept| **is_kept).count();
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(self.places.len());
        let mut bad_rows: Vec<(usize, String)> = Vec::new();
        let has_quotes = memchr::memchr(self.options.quote, &data[..tokens.bytes]).is_some();
        for (&column, field) in self.places.iter().zip(self.schema.fields()) {
            let fields = Fields {
                data,
                fields: &tokens.fields,
                columns,
                column,
                quote: self.options.quote,
                nulls: &self.options.null_values,
                has_quotes,
            };
            let mut bad = BadRows { name: field.name(), rows: Vec::new() };
            arrays.push(fields.read(field.data_type(), &mut bad));
            bad_rows.append(&mut bad.rows);
        }
        if self.is_inferred {
            bad_rows.iter_mut().for_each(|(_, message)| message.push_str(crate::infer::ADVICE));
        }
        if has_bare_return(&data[..tokens.bytes]) {
            for (row, &(start, end)) in tokens.records.iter().enumerate() {
                if has_unquoted_return(&data[start as usize..end as usize], self.options.quote) {
                    bad_rows.push((row, BARE_RETURN.to_owned()));
                }
            }
        }
        let rows = tokens.records.len();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let mut batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options)
            .map_err(|e| Error::schema("the records do not fit their schema").because(e))?;
        let mut rejected: Vec<BadRecord> = tokens
            .malformed
            .drain(..)
            .map(|bad| BadRecord { start: bad.start, end: bad.end, message: bad.message })
            .collect();
        if !bad_rows.is_empty() {
            // Of a record with several bad fields the first is told.
            bad_rows.sort_by_key(|(row, _)| *row);
            bad_rows.dedup_by_key(|(row, _)| *row);
            let mut is_good = vec![true; rows];
            for (row, message) in bad_rows {
                is_good[row] = false;
                let (start, end) = tokens.records[row];
                rejected.push(BadRecord { start: start as usize, end: end as usize, message });
            }
            batch = filter_record_batch(&batch, &BooleanArray::from(is_good))
                .map_err(|e| Error::internal("the mask has a row for each record").because(e))?;
            rejected.sort_by_key(|bad| bad.start);
        }
        Ok(Parsed { bytes: tokens.bytes, batch, rejected })
    }
}
