//! Reads the records of one JSON file.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use memchr::{memchr, memrchr};
use mill_frame::json::{Fault, Misfits, Names, Scanner, Source, Told, Value, Values, twice, unknown};
use mill_protocol::{Error, Result};

use super::JsonLayout;
use super::values::{Layout, cut, layout_of, no_whole, no_whole_at};
use crate::file::{BadRecord, Content, LineFormat, Parsed};

/// Reads JSON records into the columns of a schema.
pub(crate) struct JsonFormat {
    /// What a record is called: a line, a value.
    unit: &'static str,
    /// What the user says of the layout of files, and what that of this one is; set by `prepare`.
    told: JsonLayout,
    layout: Layout,
    /// Of a file that is not lines: its name, and whether a value was read.
    path: PathBuf,
    after_value: bool,
    /// Where in the data the file stopped being JSON, and why.
    fault: Option<(usize, String)>,
    schema: SchemaRef,
    is_inferred: bool,
    /// Whether a key that no column has is an error.
    refuses_unknown: bool,
    /// The names of all columns.
    names: Names,
    /// For each of all columns its place among those that are read, if it is.
    places: Vec<Option<usize>>,
    /// For each of all columns the last line that had it, counted from 1.
    last_seen: Vec<u32>,
    /// Values of the columns that are read, record after record.
    values: Vec<Value>,
    /// Where each record's line begins and ends.
    lines: Vec<(usize, usize)>,
}

impl JsonFormat {
    /// Reads `schema`, some of `columns`.
    pub(crate) fn new(columns: &SchemaRef, schema: SchemaRef, is_inferred: bool) -> JsonFormat {
        let places = columns.fields().iter().map(|field| schema.index_of(field.name()).ok()).collect();
        JsonFormat {
            unit: "line",
            told: JsonLayout::Lines,
            layout: Layout::Lines,
            path: PathBuf::new(),
            after_value: false,
            fault: None,
            schema,
            is_inferred,
            refuses_unknown: is_inferred,
            names: Names::new(columns.fields()),
            places,
            last_seen: Vec::new(),
            values: Vec::new(),
            lines: Vec::new(),
        }
    }

    /// The same, with files of this layout.
    pub(super) fn of_layout(self, layout: JsonLayout) -> JsonFormat {
        JsonFormat { told: layout, ..self }
    }

    /// The same, with keys passed over that no column has.
    pub(super) fn of_some_columns(self, is_of_some: bool) -> JsonFormat {
        JsonFormat { refuses_unknown: self.refuses_unknown && !is_of_some, ..self }
    }

    /// Makes records of values that are not lines.
    fn parse_values(&mut self, data: &[u8], is_last: bool, rows_max: usize) -> Result<Parsed> {
        let found = cut(data, self.layout, self.after_value, is_last, rows_max).map_err(|(at, why)| {
            const SHOWN_BYTES: usize = 40;
            let near = String::from_utf8_lossy(&data[at.min(data.len())..data.len().min(at + SHOWN_BYTES)]).into_owned();
            let near = if near.is_empty() { "the end".to_owned() } else { format!("{near:?}") };
            self.fault = Some((at, no_whole_at(&near, why)));
            no_whole(&self.path, &near, why)
        })?;
        self.after_value |= !found.values.is_empty();
        let read = self.read_values(data, &found.values)?;
        let options = RecordBatchOptions::new().with_row_count(Some(read.rows.len()));
        let mut batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), read.columns, &options)
            .map_err(|e| Error::schema("the records do not fit their schema").because(e))?;
        let mut rejected = Vec::with_capacity(read.rejected.len());
        if !read.rejected.is_empty() {
            let bad: HashSet<usize> = read.rejected.iter().map(|(value, _)| *value).collect();
            let is_good: Vec<bool> = read.rows.iter().map(|value| !bad.contains(value)).collect();
            batch = filter_record_batch(&batch, &BooleanArray::from(is_good))
                .map_err(|e| Error::internal("the mask has a row for each record").because(e))?;
            let of_record: HashSet<usize> = read.rows.into_iter().collect();
            for (value, mut message) in read.rejected {
                if self.is_inferred && of_record.contains(&value) {
                    message.push_str(crate::infer::ADVICE);
                }
                let (start, end) = found.values[value];
                rejected.push(BadRecord { start, end, message });
            }
        }
        Ok(Parsed { bytes: found.bytes, batch, rejected })
    }

    /// Reads values that are not lines of a file: a record each.
    pub(crate) fn of_values(columns: &SchemaRef, schema: SchemaRef) -> JsonFormat {
        JsonFormat { unit: "value", ..JsonFormat::new(columns, schema, false) }
    }

    /// Makes records of the values that are between these bounds; before each there is nothing that matters.
    pub(crate) fn read_values(&mut self, data: &[u8], bounds: &[(usize, usize)]) -> Result<ReadValues> {
        self.begin();
        let (mut rows, mut rejected) = (Vec::with_capacity(bounds.len()), Vec::new());
        let is_utf8 = std::str::from_utf8(data).is_ok();
        for (index, &(start, end)) in bounds.iter().enumerate() {
            let before = self.lines.len();
            match self.cut_line(&data[..end], start, index as u32 + 1, is_utf8) {
                Err(message) => rejected.push((index, message)),
                Ok(()) if self.lines.len() == before => rejected.push((index, "the value is empty".to_owned())),
                Ok(()) => rows.push(index),
            }
        }
        let (columns, misfits) = self.columns(data)?;
        rejected.extend(misfits.into_iter().map(|(row, message)| (rows[row], message)));
        rejected.sort_by_key(|(index, _)| *index);
        Ok(ReadValues { columns, rows, rejected })
    }

    fn begin(&mut self) {
        self.values.clear();
        self.lines.clear();
        self.last_seen.clear();
        self.last_seen.resize(self.places.len(), 0);
    }

    /// Cuts complete lines into values, at most `rows_max` of them; returns how many bytes they take.
    fn cut(&mut self, data: &[u8], is_last: bool, rows_max: usize, rejected: &mut Vec<BadRecord>) -> usize {
        let data = match is_last {
            true => data,
            false => &data[..memrchr(b'\n', data).map_or(0, |at| at + 1)],
        };
        let bytes = self.cut_lines(data, rows_max, true, rejected);
        if std::str::from_utf8(&data[..bytes]).is_ok() {
            return bytes;
        }
        rejected.clear();
        self.cut_lines(data, rows_max, false, rejected)
    }

    /// The same of complete lines; unless all of them are known to be UTF-8, each is looked at for itself.
    fn cut_lines(&mut self, data: &[u8], rows_max: usize, is_utf8: bool, rejected: &mut Vec<BadRecord>) -> usize {
        self.begin();
        let (mut at, mut number) = (0, 0);
        while at < data.len() && self.lines.len() + rejected.len() < rows_max {
            let end = memchr(b'\n', &data[at..]).map_or(data.len(), |end| at + end);
            number += 1;
            let line = &data[..end];
            if let Err(message) = self.cut_line(line, at, number, is_utf8) {
                rejected.push(BadRecord { start: at, end, message });
            }
            at = (end + 1).min(data.len());
        }
        at
    }

    /// Takes the values of the record on a line, if there is one: of a record that is none nothing is kept.
    #[inline]
    fn cut_line(&mut self, line: &[u8], start: usize, number: u32, is_utf8: bool) -> std::result::Result<(), String> {
        let mut scanner = Scanner::new(line, start);
        scanner.spaces();
        if scanner.at >= line.len() {
            return Ok(());
        }
        if !is_utf8 && std::str::from_utf8(&line[start..]).is_err() {
            return Err(format!("the {} is not UTF-8", self.unit));
        }
        if line[scanner.at] != b'{' {
            return Err(format!("the {} is not a JSON object", self.unit));
        }
        let Self { names, places, last_seen, values, refuses_unknown, schema, .. } = self;
        let first = values.len();
        values.resize(first + schema.fields().len(), Value::MISSING);
        let mut next = 0;
        let mut failed = None;
        let result = scanner.object(1, |key, value| {
            let Some(column) = names.find(key, line, &mut next) else {
                return if *refuses_unknown { Err(Why::Told(unknown(None, key, line))) } else { Ok(()) };
            };
            if std::mem::replace(&mut last_seen[column], number) == number {
                return Err(Why::Told(twice(None, key, line)));
            }
            if let Some(place) = places[column] {
                values[first + place] = value;
            }
            Ok(())
        });
        if let Err(why) = result {
            failed = Some(match why {
                Why::Told(message) => message,
                Why::Fault(fault) => fault.message_of(self.unit, "object", line, start),
            });
        } else if !scanner.is_at_end() {
            failed = Some(Fault::At(scanner.at).message_of(self.unit, "object", line, start));
        }
        if let Some(message) = failed {
            values.truncate(first);
            return Err(message);
        }
        self.lines.push((start, line.len()));
        Ok(())
    }

    /// The columns of what was cut, and what is wrong with which row: of one with several bad values, the first column's.
    fn columns(&self, data: &[u8]) -> Result<(Vec<ArrayRef>, Misfits)> {
        let (rows, width) = (self.lines.len(), self.schema.fields().len());
        let source = Source { data, is_inferred: self.is_inferred };
        let mut misfits = Misfits::new();
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(width);
        for (at, field) in self.schema.fields().iter().enumerate() {
            let values = Values { values: &self.values, width, at };
            let column = source.column(values, rows, field.name(), field.data_type(), &mut misfits);
            columns.push(column.map_err(|e| Error::schema(format!("column {:?}: {e}", field.name())).because(e))?);
        }
        misfits.sort_by_key(|(row, _)| *row);
        misfits.dedup_by_key(|(row, _)| *row);
        Ok((columns, misfits))
    }
}

/// What values were read as.
pub(crate) struct ReadValues {
    /// A row for each value that is a record, those among them that do not fit their columns.
    pub(crate) columns: Vec<ArrayRef>,
    /// For each row the value that it was.
    pub(crate) rows: Vec<usize>,
    /// Which values are none, or do not fit, and why.
    pub(crate) rejected: Vec<(usize, String)>,
}

/// Why a line is no record.
enum Why {
    Fault(Fault),
    Told(String),
}

impl From<Fault> for Why {
    fn from(fault: Fault) -> Why {
        Why::Fault(fault)
    }
}

impl From<Told> for Why {
    fn from(told: Told) -> Why {
        Why::Told(told.0)
    }
}

impl LineFormat for JsonFormat {
    fn prepare(&mut self, content: Content, is_followed: bool) -> Result<Option<u64>> {
        self.path = content.path().to_owned();
        let (layout, first) = layout_of(content, self.told)?;
        if layout != Layout::Lines {
            self.unit = "value";
            if is_followed {
                return Err(Error::connector(format!(
                    "{:?} is one JSON array, and a file that is followed grows by lines; read it without follow",
                    self.path
                )));
            }
        }
        self.layout = layout;
        Ok(Some(first))
    }

    fn fault(&self) -> Option<(usize, &str)> {
        self.fault.as_ref().map(|(at, message)| (*at, message.as_str()))
    }

    fn parse(&mut self, data: &[u8], is_last: bool, rows_max: usize) -> Result<Parsed> {
        if self.layout != Layout::Lines {
            return self.parse_values(data, is_last, rows_max);
        }
        let mut rejected = Vec::new();
        let bytes = self.cut(data, is_last, rows_max, &mut rejected);
        let rows = self.lines.len();
        let (columns, misfits) = self.columns(data)?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let mut batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)
            .map_err(|e| Error::schema("the records do not fit their schema").because(e))?;
        if !misfits.is_empty() {
            let mut is_good = vec![true; rows];
            for (row, mut message) in misfits {
                is_good[row] = false;
                if self.is_inferred {
                    message.push_str(crate::infer::ADVICE);
                }
                let (start, end) = self.lines[row];
                rejected.push(BadRecord { start, end, message });
            }
            batch = filter_record_batch(&batch, &BooleanArray::from(is_good))
                .map_err(|e| Error::internal("the mask has a row for each record").because(e))?;
            rejected.sort_by_key(|bad| bad.start);
        }
        Ok(Parsed { bytes, batch, rejected })
    }
}
