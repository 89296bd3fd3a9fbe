//! Columns that say where a record is from: the path of its file, the partition that the path names, the row's number.
//!
//! ```text
//!   file       /data/day=2024-01-31/part-0.csv     a,b
//!   records    row, a, b, day, path
//! ```
//!
//! A source of files is wrapped: what it reads is the same, and each batch gets the columns of its split. A directory
//! `key=value` on the way to a file names a partition, as Hive writes them; all files must have the same keys, and the type
//! of a key is one that holds its values in all files.
//!
//! Rows are numbered by those that the file has, so a file whose rows are numbered is one split, and a position carries the
//! number: the position of the reader, then a `u64`. Records that cannot be read are not counted.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, RecordBatchOptions, StringArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use mill_frame::text::{Cell, can_read, read};
use mill_frame::types::type_name;
use mill_protocol::{
    Condition, Discovery, Error, Position, Read, Result, Source, SourceProperties, Split, SplitReader, SplitState,
};

use super::options::FileOptions;
use super::split::FileSplit;
use crate::infer::Common;
use crate::nearest::{did_you_mean, quoted};

/// What Hive calls the directory of records whose key is null.
pub(crate) const NULL_PARTITION: &str = "__HIVE_DEFAULT_PARTITION__";
/// How many bytes a position has more where rows are numbered.
const NUMBER_BYTES: usize = 8;

/// A source of files with columns that say where a record is from.
#[derive(Clone)]
pub(super) struct PlacedSource {
    inner: Arc<dyn Source>,
    columns: Vec<Column>,
    schema: SchemaRef,
    /// The keys of partitions.
    keys: Arc<[FieldRef]>,
}

/// What a column shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    /// This column of the file.
    Inner(usize),
    /// The key of partitions in this place.
    Key(usize),
    /// The path of the file.
    Path,
    /// The number of the row, the first one's being this.
    Row(i64),
}

impl PlacedSource {
    /// The same source with the columns that the options ask for; `files` are those that there are now.
    pub(super) fn new(inner: Arc<dyn Source>, files: &[PathBuf], options: &FileOptions) -> Result<PlacedSource> {
        let name = inner.name();
        let keys = if options.hive_partitioning { keys_of(files, options.hive_schema.as_deref(), &name)? } else { Vec::new() };
        // Some writers put the keys into the files too. The directory says their values.
        let is_key = |field: &FieldRef| keys.iter().any(|key| key.name() == field.name());
        let others: Vec<usize> =
            inner.schema().fields().iter().enumerate().filter(|(_, field)| !is_key(field)).map(|(place, _)| place).collect();
        let inner = match others.len() < inner.schema().fields().len() {
            true => inner.project(&others).ok_or_else(|| Error::schema(format!("{name}: the files have no column but the keys")))?,
            false => inner,
        };
        let schema = inner.schema();
        let mut columns = Vec::new();
        let mut fields: Vec<FieldRef> = Vec::new();
        let mut add = |column: Column, field: FieldRef| {
            if fields.iter().any(|other| other.name() == field.name()) {
                return Err(Error::schema(format!(
                    "{name}: {:?} is a column of the files or a key of the partitions, and an option of the reader; choose another \
                     name",
                    field.name()
                )));
            }
            columns.push(column);
            fields.push(field);
            Ok(())
        };
        if let Some((name, first)) = &options.row_index {
            add(Column::Row(*first), Arc::new(Field::new(name, DataType::Int64, true)))?;
        }
        for (place, field) in schema.fields().iter().enumerate() {
            if options.row_index.as_ref().is_some_and(|(name, _)| name == field.name()) {
                return Err(Error::schema(format!(
                    "{name}: {:?} is a column of the files; choose another row_index_name",
                    field.name()
                )));
            }
            add(Column::Inner(place), Arc::clone(field))?;
        }
        for (place, field) in keys.iter().enumerate() {
            add(Column::Key(place), Arc::clone(field))?;
        }
        if let Some(name) = &options.include_file_paths {
            add(Column::Path, Arc::new(Field::new(name, DataType::Utf8, true)))?;
        }
        let schema = Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()));
        Ok(PlacedSource { inner, columns, schema, keys: keys.into() })
    }

    fn counts_rows(&self) -> bool {
        self.columns.iter().any(|column| matches!(column, Column::Row(_)))
    }

    /// The columns of a file that have one value, as arrays of one row.
    fn constants(&self, path: &Path) -> Result<Vec<Option<ArrayRef>>> {
        let mut values: Option<Vec<ArrayRef>> = None;
        let mut constants = Vec::with_capacity(self.columns.len());
        for column in &self.columns {
            constants.push(match column {
                Column::Inner(_) | Column::Row(_) => None,
                Column::Path => {
                    let text = path.to_str().ok_or_else(|| {
                        Error::connector(format!("include_file_paths: {path:?} is not UTF-8; rename the file"))
                    })?;
                    Some(Arc::new(StringArray::from(vec![text])) as ArrayRef)
                }
                Column::Key(place) => {
                    let values = match &values {
                        Some(values) => values,
                        None => values.insert(values_of(path, &self.keys)?),
                    };
                    Some(Arc::clone(&values[*place]))
                }
            });
        }
        Ok(constants)
    }
}

/// The keys and values in the names of the directories of a file.
fn partitions(path: &Path) -> Result<Vec<(String, Option<String>)>> {
    let mut found: Vec<(String, Option<String>)> = Vec::new();
    for component in path.parent().into_iter().flat_map(Path::components) {
        let Component::Normal(name) = component else { continue };
        let Some((key, value)) = name.to_str().and_then(|name| name.split_once('=')) else { continue };
        let decoded = |text: &str| {
            decode(text).ok_or_else(|| Error::schema(format!("{path:?}: the directory {name:?} has an escape that is no UTF-8")))
        };
        let key = decoded(key)?;
        if found.iter().any(|(other, _)| *other == key) {
            return Err(Error::schema(format!("{path:?} is in two directories of the key {key:?}")));
        }
        let value = if value == NULL_PARTITION { None } else { Some(decoded(value)?) };
        found.push((key, value));
    }
    Ok(found)
}

/// Decodes a text in which `%` and two hexadecimal digits are a byte.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = after.get(..2).filter(|_| byte == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        match escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+'))) {
            Some(escaped) => {
                bytes.push(escaped);
                rest = &after[2..];
            }
            None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

/// The keys that all these files have, in types that hold their values.
fn keys_of(files: &[PathBuf], declared: Option<&Schema>, reader: &str) -> Result<Vec<FieldRef>> {
    let declared_type = |key: &str| declared.and_then(|declared| declared.field_with_name(key).ok());
    if let Some(field) = declared.and_then(|declared| declared.fields().iter().find(|field| !can_read(field.data_type()))) {
        return Err(Error::schema(format!(
            "{reader}: hive_schema: {:?} is {}, and no name of a directory is one",
            field.name(),
            type_name(field.data_type())
        )));
    }
    let Some(first) = files.first() else {
        return match declared {
            Some(declared) => Ok(declared.fields().to_vec()),
            None => Err(Error::plan(format!("{reader}: there is no file yet to take the partitions from; give hive_schema="))),
        };
    };
    let mut keys: Vec<(String, Common)> = partitions(first)?.into_iter().map(|(key, _)| (key, Common::Nothing)).collect();
    let names: Vec<String> = keys.iter().map(|(key, _)| key.clone()).collect();
    if keys.is_empty() {
        return Err(Error::schema(format!(
            "{reader}: {first:?} is in no directory key=value; leave out hive_partitioning"
        )));
    }
    if let Some(unknown) = declared.and_then(|declared| declared.fields().iter().find(|field| !names.contains(field.name()))) {
        let near = did_you_mean(unknown.name(), names.iter().map(String::as_str));
        return Err(Error::schema(format!(
            "{reader}: hive_schema has {:?}, which is no key of the partitions{near} (they have {})",
            unknown.name(),
            quoted(&names, ", ")
        )));
    }
    // Files of one directory have the same values: the first stands for all of them.
    let (mut seen, mut firsts) = (HashSet::new(), Vec::new());
    for path in files {
        if seen.insert(path.parent().unwrap_or(path)) {
            firsts.push(path);
        } else {
            continue;
        }
        let found = partitions(path)?;
        if !found.iter().map(|(key, _)| key).eq(&names) {
            return Err(other_keys(path, &found, &names));
        }
        for ((_, common), (_, value)) in keys.iter_mut().zip(&found) {
            let Some(value) = value else { continue };
            let of_value = if value.is_empty() || value.trim() != value { Common::Text } else { Common::of_field(value.as_bytes()) };
            *common = std::mem::replace(common, Common::Nothing).and(of_value);
        }
    }
    let fields: Vec<FieldRef> = keys
        .iter()
        .map(|(key, common)| match declared_type(key) {
            Some(field) => Arc::new(field.clone()),
            None => Arc::new(Field::new(key, common.data_type(), true)),
        })
        .collect();
    for path in firsts {
        values_of(path, &fields)?;
    }
    Ok(fields)
}

fn other_keys(path: &Path, found: &[(String, Option<String>)], names: &[String]) -> Error {
    let found: Vec<&str> = found.iter().map(|(key, _)| key.as_str()).collect();
    Error::schema(format!(
        "{path:?} is in partitions of {}, and other files in those of {}: all files must have the same keys",
        if found.is_empty() { "no key".to_owned() } else { quoted(&found, ", ") },
        quoted(names, ", ")
    ))
}

/// The values of these keys for a file, as arrays of one row.
fn values_of(path: &Path, keys: &[FieldRef]) -> Result<Vec<ArrayRef>> {
    let found = partitions(path)?;
    if !found.iter().map(|(key, _)| key).eq(keys.iter().map(|field| field.name())) {
        let names: Vec<String> = keys.iter().map(|field| field.name().clone()).collect();
        return Err(other_keys(path, &found, &names));
    }
    keys.iter()
        .zip(&found)
        .map(|(field, (key, value))| {
            let mut why = None;
            let cell = value.as_ref().map_or(Cell::Null, |value| Cell::Text(value.as_bytes()));
            let array = read([cell].into_iter(), 1, field.data_type(), |_, _, misfit| why = Some(misfit));
            // Blanks are null where they are fields; in the name of a directory they are a value that no number is.
            match (why, value) {
                (Some(misfit), Some(value)) => Err(Error::schema(format!(
                    "{path:?}: the partition {key}={value} {}; give its type with hive_schema=",
                    misfit.reason(field.data_type())
                ))),
                (None, Some(value)) if array.is_null(0) => Err(Error::schema(format!(
                    "{path:?}: the partition {key}={value} has no value; give its type with hive_schema="
                ))),
                _ => Ok(array),
            }
        })
        .collect()
}

/// Takes the number of rows off the end of a position.
fn split_position(position: &[u8], split: &str) -> Result<(Position, u64)> {
    let unreadable = || {
        Error::checkpoint(format!("the position in {split:?} has no row number: the checkpoint was made without row_index_name"))
    };
    let at = position.len().checked_sub(NUMBER_BYTES).ok_or_else(unreadable)?;
    let (inner, number) = position.split_at(at);
    Ok((inner.to_vec(), u64::from_le_bytes(std::array::from_fn(|i| number[i]))))
}

impl fmt::Debug for PlacedSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

impl Source for PlacedSource {
    fn name(&self) -> String {
        self.inner.name()
    }

    fn identity(&self) -> Option<String> {
        self.inner.identity()
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn properties(&self) -> SourceProperties {
        self.inner.properties()
    }

    fn splits(&self, is_ordered: bool) -> Result<Vec<Split>> {
        self.inner.splits(is_ordered || self.counts_rows())
    }

    fn resume(&self, is_ordered: bool, mut left: Vec<SplitState>) -> Result<Vec<SplitState>> {
        if !self.counts_rows() {
            return self.inner.resume(is_ordered, left);
        }
        let mut numbers = HashMap::new();
        for state in &mut left {
            let Some(position) = &state.position else { continue };
            let (inner, number) = split_position(position, &state.split.name)?;
            numbers.insert(state.split.id, number);
            state.position = Some(inner);
        }
        let mut states = self.inner.resume(true, left)?;
        for state in &mut states {
            if let (Some(position), Some(number)) = (&mut state.position, numbers.get(&state.split.id)) {
                position.extend_from_slice(&number.to_le_bytes());
            }
        }
        Ok(states)
    }

    fn discovery(&self, begun_with: &[SplitState]) -> Result<Option<Box<dyn Discovery>>> {
        // Rows are numbered in bounded inputs alone, which discover nothing.
        self.inner.discovery(begun_with)
    }

    fn reads(&self, path: &Path) -> bool {
        self.inner.reads(path)
    }

    fn open(&self, split: &Split, position: Option<&[u8]>) -> Result<Box<dyn SplitReader>> {
        let constants = self.constants(&FileSplit::of(split)?.path)?;
        let (position, number) = match (position, self.counts_rows()) {
            (Some(position), true) => split_position(position, &split.name).map(|(inner, number)| (Some(inner), number))?,
            (position, _) => (position.map(<[u8]>::to_vec), 0),
        };
        Ok(Box::new(PlacedReader {
            inner: self.inner.open(split, position.as_deref())?,
            columns: self.columns.clone(),
            schema: Arc::clone(&self.schema),
            constants,
            number,
            counts_rows: self.counts_rows(),
        }))
    }

    fn project(&self, columns: &[usize]) -> Option<Arc<dyn Source>> {
        let schema = Arc::new(self.schema.project(columns).ok()?);
        let chosen: Vec<Column> = columns.iter().map(|&column| self.columns[column]).collect();
        let mut needed: Vec<usize> = Vec::new();
        for column in &chosen {
            if let Column::Inner(place) = column {
                needed.push(*place);
            }
        }
        // A source that cannot do with less is read as a whole.
        let (inner, places) = match self.inner.project(&needed) {
            Some(inner) => (inner, needed.iter().enumerate().map(|(new, &old)| (old, new)).collect::<HashMap<_, _>>()),
            None => (Arc::clone(&self.inner), needed.iter().map(|&place| (place, place)).collect()),
        };
        let columns = chosen
            .into_iter()
            .map(|column| match column {
                Column::Inner(place) => Column::Inner(places[&place]),
                other => other,
            })
            .collect();
        Some(Arc::new(PlacedSource { inner, columns, schema, keys: Arc::clone(&self.keys) }))
    }

    fn filter(&self, conditions: &[Condition]) -> Option<Arc<dyn Source>> {
        // Of rows that are left out nobody knows how many there were.
        if self.counts_rows() {
            return None;
        }
        let inner = self.inner.schema();
        let of_files: Vec<Condition> =
            conditions.iter().filter(|condition| inner.index_of(&condition.column).is_ok()).cloned().collect();
        if of_files.is_empty() {
            return None;
        }
        Some(Arc::new(PlacedSource { inner: self.inner.filter(&of_files)?, ..self.clone() }))
    }

    fn is_single_when_ordered(&self) -> bool {
        self.inner.is_single_when_ordered()
    }

    fn rows_hint(&self) -> Option<u64> {
        self.inner.rows_hint()
    }
}

struct PlacedReader {
    inner: Box<dyn SplitReader>,
    columns: Vec<Column>,
    schema: SchemaRef,
    /// For each column its value, if it has one value in the file: an array of at least one row.
    constants: Vec<Option<ArrayRef>>,
    /// How many rows have been read.
    number: u64,
    counts_rows: bool,
}

impl PlacedReader {
    fn place(&mut self, batch: &RecordBatch) -> Result<RecordBatch> {
        let rows = batch.num_rows();
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(self.columns.len());
        for (column, constant) in self.columns.iter().zip(&mut self.constants) {
            arrays.push(match (column, constant) {
                (Column::Inner(place), _) => Arc::clone(batch.column(*place)),
                (Column::Row(first), _) => {
                    let number = i64::try_from(self.number).ok().and_then(|number| first.checked_add(number));
                    let numbers = number.and_then(|number| Some(number..number.checked_add(rows as i64)?));
                    let numbers = numbers.ok_or_else(|| Error::data("row_index_offset: a row number is out of the range of int64"))?;
                    Arc::new(Int64Array::from_iter_values(numbers))
                }
                (_, Some(constant)) => {
                    if constant.len() < rows {
                        let zeros = UInt32Array::from(vec![0; rows]);
                        *constant = take(constant, &zeros, None).map_err(|e| Error::internal(e.to_string()))?;
                    }
                    constant.slice(0, rows)
                }
                (_, None) => return Err(Error::internal("a column of a file has no value")),
            });
        }
        self.number += rows as u64;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options)
            .map_err(|e| Error::internal("columns of a file fit their schema").because(e))
    }
}

impl SplitReader for PlacedReader {
    fn next(&mut self, rows_max: usize) -> Result<Read> {
        Ok(match self.inner.next(rows_max)? {
            Read::Batch(batch) => Read::Batch(self.place(&batch)?),
            Read::Partial(batch, rejected) => Read::Partial(self.place(&batch)?, rejected),
            other => other,
        })
    }

    fn set_rows_most(&mut self, rows: usize) {
        self.inner.set_rows_most(rows);
    }

    fn position(&self) -> Position {
        let mut position = self.inner.position();
        if self.counts_rows {
            position.extend_from_slice(&self.number.to_le_bytes());
        }
        position
    }
}

#[cfg(test)]
mod tests;
