//! Reads the records of one CSV file.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Schema, SchemaRef};
use mill_protocol::{Error, Result};

use super::column::{BadRows, Fields};
use super::tokens::{Field, Tokens, tokenize};
use crate::file::pipe;
use super::{CsvOptions, CsvSource, KnownHeader, other_columns};
use crate::nearest::quoted;
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
    header: KnownHeader,
    /// For each column that is read its place among those that are kept, if the file has it; set by `prepare`.
    places: Vec<Option<usize>>,
    /// How many columns the file has; set by `prepare`.
    width: usize,
    tokens: Tokens,
}

/// The header of a file: where its records begin, how many columns they have, and the place of each column of the schema
/// among them, if it has one.
pub(super) struct Header {
    pub(super) bytes: u64,
    pub(super) width: usize,
    pub(super) places: Vec<Option<usize>>,
}

impl CsvFormat {
    /// Reads a file of this source.
    pub(super) fn new(source: &CsvSource) -> CsvFormat {
        CsvFormat {
            options: Arc::clone(&source.options),
            columns: Arc::clone(&source.columns),
            schema: Arc::clone(&source.schema),
            is_inferred: source.is_inferred,
            header: Arc::clone(&source.header),
            places: Vec::new(),
            width: 0,
            tokens: Tokens::default(),
        }
    }
}

/// Reads what comes before the records of a file, and matches its header with the schema; `None` if that is not complete
/// (yet).
pub(super) fn read_header(
    mut content: Content,
    schema: &Schema,
    options: &CsvOptions,
    known: &KnownHeader,
) -> Result<Option<Header>> {
    const READ_BYTES: usize = 16 << 10;
    if options.begins_with_records() {
        return Ok(Some(Header { bytes: 0, width: schema.fields().len(), places: options.places_by_position(schema)? }));
    }
    let path = content.path().to_owned();
    let path = path.as_path();
    let mut head = Vec::new();
    let mut is_whole = false;
    let found = loop {
        let mark = if head.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
        if let Some(found) = Begin::of(&head[mark..], false, options, path)? {
            break Some((mark, found));
        }
        if is_whole {
            let found = if options.files.follow && !pipe::is_pipe(path) || content.may_go_on() { None } else { Begin::of(&head[mark..], true, options, path)? };
            break found.map(|found| (mark, found));
        }
        if head.len() > RECORD_BYTES_MAX {
            return Err(Error::data(format!("{path:?} has no end of its header in the first {} MiB", head.len() >> 20)));
        }
        let filled = head.len();
        head.resize(filled + READ_BYTES.max(filled), 0);
        let bytes = content.read(&mut head[filled..])?;
        head.truncate(filled + bytes);
        is_whole = bytes == 0;
    };
    let Some((mark, begin)) = found else { return Ok(None) };
    let (width, places) = match begin.names {
        None => (schema.fields().len(), options.places_by_position(schema)?),
        Some(names) => {
            let names = match &options.new_columns {
                None => names,
                Some(new) => {
                    options.check_count(&names, new, path)?;
                    // The names say nothing of a file whose columns are others, or in another order.
                    let first = known.get_or_init(|| names.clone());
                    if *first != names {
                        return Err(Error::schema(format!(
                            "{path:?} has the columns {}, and another file has {}: new_columns names the columns of files that \
                             have the same header; leave it out and use rename()",
                            quoted(&names, ", "),
                            quoted(first, ", ")
                        )));
                    }
                    new.clone()
                }
            };
            if let Some(error) = other_columns(path, &names, schema, &options.files) {
                return Err(error);
            }
            let place = |name: &String| names.iter().position(|other| other == name);
            (names.len(), schema.fields().iter().map(|field| place(field.name())).collect())
        }
    };
    Ok(Some(Header { bytes: (mark + begin.bytes) as u64, width, places }))
}

/// What comes before the records of a file: lines and rows that are skipped, and a header.
pub(super) struct Begin {
    /// How many bytes it takes.
    pub(super) bytes: usize,
    /// The names of the columns, if there is a header.
    pub(super) names: Option<Vec<String>>,
}

impl Begin {
    /// What these bytes, the first of a file, begin with; `None` if that is not complete.
    pub(super) fn of(data: &[u8], is_whole: bool, options: &CsvOptions, path: &Path) -> Result<Option<Begin>> {
        let dialect = options.dialect();
        let mut bytes = 0;
        for _ in 0..options.skip_lines {
            let Some(line_end) = memchr::memchr(b'\n', &data[bytes..]) else { return Ok(None) };
            bytes += line_end + 1;
        }
        let Some(skipped) = dialect.skip(&data[bytes..], options.skip_rows) else { return Ok(None) };
        bytes += skipped;
        if !options.has_header {
            return Ok(Some(Begin { bytes, names: None }));
        }
        // Lines without anything are no header, as they are no records.
        loop {
            match &data[bytes..] {
                [b'\n', ..] => bytes += 1,
                [b'\r', b'\n', ..] => bytes += 2,
                _ => break,
            }
        }
        let data = &data[bytes..];
        let mut tokens = Tokens::default();
        tokenize(data, dialect, None, is_whole, 1, &mut tokens);
        if let Some(malformed) = tokens.malformed.first() {
            return Err(Error::schema(format!("{path:?}: the header is malformed: {}", malformed.message)));
        }
        if tokens.records.is_empty() {
            return Ok(None);
        }
        let names = names_of(data, &tokens.fields, options, path)?;
        bytes += tokens.bytes;
        let Some(skipped) = dialect.skip(&data[tokens.bytes..], options.skip_rows_after_header) else {
            // Where there are fewer rows than are to be skipped, there are none left.
            return Ok(is_whole.then_some(Begin { bytes: bytes + data.len() - tokens.bytes, names: Some(names) }));
        };
        Ok(Some(Begin { bytes: bytes + skipped, names: Some(names) }))
    }
}

/// The names in a header.
fn names_of(data: &[u8], fields: &[Field], options: &CsvOptions, path: &Path) -> Result<Vec<String>> {
    let mut names: Vec<String> = Vec::with_capacity(fields.len());
    for (index, field) in fields.iter().enumerate() {
        let mut bytes = Vec::new();
        match field.is_quoted() {
            true => options.dialect().unescape(field.bytes(data), &mut bytes),
            false => bytes.extend_from_slice(field.bytes(data)),
        }
        let name = match String::from_utf8(bytes) {
            Ok(name) => name,
            Err(e) if options.is_lossy => String::from_utf8_lossy(e.as_bytes()).into_owned(),
            Err(_) => return Err(Error::schema(format!("{path:?}: the name of column {} is not UTF-8", index + 1))),
        };
        if !field.is_quoted() && name.contains('\r') {
            return Err(Error::schema(format!("{path:?}: {BARE_RETURN}")));
        }
        // Quotes keep the spaces of a name.
        let name = match name.trim() {
            "" => format!("column_{}", index + 1),
            _ if field.is_quoted() => name,
            trimmed => trimmed.to_owned(),
        };
        let is_read = options.files.columns.as_ref().is_none_or(|chosen| chosen.contains(&name));
        if is_read && names.contains(&name) && options.new_columns.is_none() {
            return Err(Error::schema(format!(
                "{path:?} has two columns {name:?}: give them different names in its header, or all columns other names with \
                 new_columns="
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

impl LineFormat for CsvFormat {
    fn prepare(&mut self, content: Content, _is_followed: bool) -> Result<Option<u64>> {
        let Some(header) = read_header(content, &self.columns, &self.options, &self.header)? else { return Ok(None) };
        // `header.places` are those of all columns; `places` then are those of the columns that are read.
        let place = |name: &String| header.places[self.columns.index_of(name).ok()?];
        let places: Vec<Option<usize>> = self.schema.fields().iter().map(|field| place(field.name())).collect();
        let is_kept = &mut self.tokens.is_kept;
        *is_kept = (0..header.width).map(|column| places.contains(&Some(column))).collect();
        let kept_before = |column: usize| is_kept[..column].iter().filter(|is_kept| **is_kept).count();
        self.places = places.iter().map(|place| place.map(kept_before)).collect();
        self.width = header.width;
        Ok(Some(header.bytes))
    }

    fn parse(&mut self, data: &[u8], is_last: bool, rows_max: usize) -> Result<Parsed> {
        let tokens = &mut self.tokens;
        tokenize(data, self.options.dialect(), Some(self.width), is_last, rows_max, tokens);
        let columns = tokens.is_kept.iter().filter(|is_kept| **is_kept).count();
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(self.places.len());
        let mut bad_rows: Vec<(usize, String)> = Vec::new();
        let dialect = self.options.dialect();
        let has_quotes = dialect.find_quote(&data[..tokens.bytes]).is_some();
        let is_utf8 = !self.options.is_lossy || std::str::from_utf8(&data[..tokens.bytes]).is_ok();
        for (&place, field) in self.places.iter().zip(self.schema.fields()) {
            let Some(column) = place else {
                arrays.push(new_null_array(field.data_type(), tokens.records.len()));
                continue;
            };
            let nulls = self.options.nulls_of(field.name());
            let (options, fields) = (self.options.as_ref(), tokens.fields.as_slice());
            let fields = Fields { data, fields, columns, column, options, nulls: &nulls, has_quotes, is_utf8 };
            let mut bad = BadRows { name: field.name(), rows: Vec::new() };
            arrays.push(fields.read(field.data_type(), &mut bad));
            bad_rows.append(&mut bad.rows);
        }
        if self.is_inferred {
            bad_rows.iter_mut().for_each(|(_, message)| message.push_str(crate::infer::ADVICE));
        }
        if has_bare_return(&data[..tokens.bytes]) {
            for (row, &(start, end)) in tokens.records.iter().enumerate() {
                if dialect.any_unquoted(&data[start as usize..end as usize], |byte| byte == b'\r') {
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
            // Of a record with several bad fields the first is reported.
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
