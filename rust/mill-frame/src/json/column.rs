//! Makes columns of values: numbers, texts and times by [`text`](crate::text), arrays and objects item by item.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, FixedSizeListArray, ListArray, MapArray, StringArray, StructArray};
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::{cast, nullif};
use arrow::datatypes::{DataType, Field, FieldRef, Fields};
use arrow::error::{ArrowError, Result};

use super::scan::{Fault, Kind, Scanner, Value, text_of, unescape};
use crate::text::{Cell, Misfit, can_read, read};
use crate::types::type_name;
use crate::words::counted;

/// The name of a value that is in no column: none that a column has.
const VALUE: &str = "\0";

/// Reads each text as a JSON value of this type. A text that is null has none; one that is not JSON, or of another type, is
/// null, with its row and why.
///
/// # Errors
/// When the type is none that [`is_readable`] admits.
///
/// # Examples
/// ```
/// use arrow::array::{Array, AsArray, StringArray};
/// use arrow::datatypes::{DataType, Int64Type};
/// use mill_frame::json::decode;
///
/// let texts = StringArray::from(vec!["[1, 2]", "[1.5]", "oops"]);
/// let (lists, misfits) = decode(&texts, &DataType::new_list(DataType::Int64, true))?;
/// assert_eq!(lists.as_list::<i32>().value(0).as_primitive::<Int64Type>().values(), &[1, 2]);
/// assert_eq!(misfits[0], (1, "$: 1.5 is not a whole number, which int64 needs".to_owned()));
/// assert!(lists.is_null(2));
/// # Ok::<(), arrow::error::ArrowError>(())
/// ```
pub fn decode(texts: &StringArray, data_type: &DataType) -> Result<(ArrayRef, Misfits)> {
    let data = texts.value_data();
    let mut misfits = Misfits::new();
    let mut values = Vec::with_capacity(texts.len());
    for (row, bounds) in texts.value_offsets().windows(2).enumerate() {
        if texts.is_null(row) {
            values.push(Value::MISSING);
            continue;
        }
        let mut scanner = Scanner::new(&data[..bounds[1] as usize], bounds[0] as usize);
        let value = scanner.value(0).and_then(|value| match scanner.is_at_end() {
            true => Ok(value),
            false => Err(Fault::At(scanner.at)),
        });
        values.push(value.unwrap_or_else(|fault| {
            misfits.push((row, fault.message_of("text", "value", &data[..bounds[1] as usize], bounds[0] as usize)));
            Value::MISSING
        }));
    }
    let source = Source { data, is_inferred: false };
    let column = source.column(Values::one(&values), values.len(), VALUE, data_type, &mut misfits)?;
    if misfits.is_empty() {
        return Ok((column, misfits));
    }
    misfits.sort_by_key(|(row, _)| *row);
    misfits.dedup_by_key(|(row, _)| *row);
    // A value that fits in part is none.
    let mut fits = vec![true; values.len()];
    misfits.iter().for_each(|(row, _)| fits[*row] = false);
    let is_bad = BooleanArray::from(fits.into_iter().map(|fits| !fits).collect::<Vec<bool>>());
    Ok((nullif(&column, &is_bad)?, misfits))
}

/// Whether values become columns of this type.
pub fn is_readable(data_type: &DataType) -> bool {
    match data_type {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => is_readable(item.data_type()),
        DataType::Struct(fields) => fields.iter().all(|field| is_readable(field.data_type())),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) => {
                fields.len() == 2 && can_read(fields[0].data_type()) && is_readable(fields[1].data_type())
            }
            _ => false,
        },
        other => can_read(other),
    }
}

/// Values that are no value of their column: a message for each, with its row.
pub type Misfits = Vec<(usize, String)>;

/// The values of one column, among those of all: every `width`-th from `at` on.
#[derive(Clone, Copy)]
pub struct Values<'v> {
    /// Those of all columns, record after record.
    pub values: &'v [Value],
    /// How many a record has.
    pub width: usize,
    /// Which of them is that of the column.
    pub at: usize,
}

impl<'v> Values<'v> {
    fn one(values: &'v [Value]) -> Values<'v> {
        Values { values, width: 1, at: 0 }
    }

    #[inline]
    fn iter(self) -> impl Iterator<Item = Value> + Clone + 'v {
        self.values.chunks_exact(self.width).map(move |record| record[self.at])
    }
}

/// The bytes that values are in, and what is said of them.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// What the places of values are in.
    pub data: &'a [u8],
    /// Whether the columns were inferred: then a key that they do not have is an error.
    pub is_inferred: bool,
}

impl<'a> Source<'a> {
    /// The column of these values, one a row, with its name for messages. What does not fit is null in a column of scalars;
    /// lists and objects with such a value in them stay, so whoever asks leaves out the rows of `misfits`.
    ///
    /// # Errors
    /// When the type is none that [`is_readable`] admits.
    pub fn column(
        self,
        values: Values<'_>,
        rows: usize,
        name: &str,
        data_type: &DataType,
        misfits: &mut Misfits,
    ) -> Result<ArrayRef> {
        match data_type {
            DataType::List(item) => self.list(values, name, item, misfits),
            DataType::LargeList(item) => {
                let list = self.list(values, name, item, misfits)?;
                cast(&list, data_type)
            }
            DataType::FixedSizeList(item, size) => self.fixed_list(values, name, item, *size, misfits),
            DataType::Struct(fields) => self.object(values, rows, name, fields, misfits),
            DataType::Map(entries, is_sorted) => self.map(values, name, entries, *is_sorted, misfits),
            _ => Ok(self.leaf(values, rows, name, data_type, misfits)),
        }
    }

    fn leaf(
        self,
        values: Values<'_>,
        rows: usize,
        name: &str,
        data_type: &DataType,
        misfits: &mut Misfits,
    ) -> ArrayRef {
        let data = self.data;
        let wants = Wants::of(data_type);
        let before = misfits.len();
        let mut has_escapes = false;
        for (row, value) in values.iter().enumerate() {
            has_escapes |= value.kind == Kind::Escaped;
            if !wants.takes(value, data) {
                misfits.push((row, misfit_of(name, value, data, data_type, Misfit::Form)));
            }
        }
        let mut unescaped = Vec::new();
        let mut ends = Vec::new();
        if has_escapes {
            for value in values.iter().filter(|value| value.kind == Kind::Escaped) {
                unescape(value.bytes(data), &mut unescaped);
                ends.push(unescaped.len());
            }
        }
        let (mut start, mut ends) = (0, ends.iter());
        let cells = values.iter().map(|value| {
            let cell = match value.kind {
                Kind::Missing | Kind::Null => Cell::Null,
                Kind::Number => Cell::Number(value.bytes(data)),
                Kind::Escaped => {
                    let end = *ends.next().expect("there is an end for each string with escapes");
                    let text = &unescaped[start..end];
                    start = end;
                    Cell::Text(text)
                }
                Kind::String | Kind::Boolean | Kind::List | Kind::Object => Cell::Text(value.bytes(data)),
            };
            if wants.takes(value, data) { cell } else { Cell::Null }
        });
        let array = read(cells, rows, data_type, |row, bytes, misfit| {
            misfits.push((row, message(name, shown(bytes), data_type, misfit)));
        });
        if misfits.len() > before {
            misfits[before..].sort_by_key(|(row, _)| *row);
        }
        array
    }

    /// Where the items of each row begin and end, the items themselves, and which rows have a list.
    fn items(
        self,
        values: Values<'_>,
        name: &str,
        item: &Field,
        misfits: &mut Misfits,
    ) -> (Vec<i32>, Vec<Value>, Vec<bool>) {
        let (mut offsets, mut items, mut is_valid) = (vec![0], Vec::new(), Vec::new());
        for (row, value) in values.iter().enumerate() {
            match value.kind {
                Kind::List => {
                    let mut scanner = Scanner::new(&self.data[..value.end as usize], value.start as usize);
                    let passed = scanner.list::<Fault>(0, |item| {
                        items.push(item);
                        Ok(())
                    });
                    debug_assert!(passed.is_ok(), "the scanner has passed it");
                }
                Kind::Missing | Kind::Null => {}
                _ => {
                    let list = DataType::List(Arc::new(item.clone()));
                    misfits.push((row, misfit_of(name, value, self.data, &list, Misfit::Form)));
                }
            }
            // A chunk has fewer bytes than offsets reach.
            offsets.push(items.len() as i32);
            is_valid.push(value.kind == Kind::List);
        }
        (offsets, items, is_valid)
    }

    fn list(
        self,
        values: Values<'_>,
        name: &str,
        item: &FieldRef,
        misfits: &mut Misfits,
    ) -> Result<ArrayRef> {
        let (offsets, items, is_valid) = self.items(values, name, item, misfits);
        let array = self.nested(&offsets, &items, name, item.data_type(), misfits)?;
        let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
        let list = ListArray::try_new(Arc::clone(item), offsets, array, Some(NullBuffer::from(is_valid)));
        list.map(|list| Arc::new(list) as _)
    }

    fn fixed_list(
        self,
        values: Values<'_>,
        name: &str,
        item: &FieldRef,
        size: i32,
        misfits: &mut Misfits,
    ) -> Result<ArrayRef> {
        let (offsets, items, mut is_valid) = self.items(values, name, item, misfits);
        // A list of another size is null, as is one that is not there; both have items all the same.
        let mut padded = Vec::with_capacity(is_valid.len() * size as usize);
        let mut ends = vec![0];
        for (row, bounds) in offsets.windows(2).enumerate() {
            let found = &items[bounds[0] as usize..bounds[1] as usize];
            if is_valid[row] && found.len() != size as usize {
                misfits.push((row, format!("{}: a list of {} where {size} {} expected", place(name), counted(found.len(), "item"), if size == 1 { "is" } else { "are" })));
                is_valid[row] = false;
            }
            match is_valid[row] {
                true => padded.extend_from_slice(found),
                false => padded.extend(std::iter::repeat_n(Value::MISSING, size as usize)),
            }
            ends.push(padded.len() as i32);
        }
        let array = self.nested(&ends, &padded, name, item.data_type(), misfits)?;
        let list = FixedSizeListArray::try_new(Arc::clone(item), size, array, Some(NullBuffer::from(is_valid)));
        list.map(|list| Arc::new(list) as _)
    }

    /// The column of the items of lists; what is wrong with an item is reported for the row of its list.
    fn nested(
        self,
        offsets: &[i32],
        items: &[Value],
        name: &str,
        data_type: &DataType,
        misfits: &mut Misfits,
    ) -> Result<ArrayRef> {
        let mut of_items = Misfits::new();
        let array = self.column(Values::one(items), items.len(), name, data_type, &mut of_items)?;
        let row_of = |item: usize| offsets.partition_point(|offset| *offset as usize <= item) - 1;
        misfits.extend(of_items.into_iter().map(|(item, message)| (row_of(item), message)));
        Ok(array)
    }

    fn object(
        self,
        values: Values<'_>,
        rows: usize,
        name: &str,
        fields: &Fields,
        misfits: &mut Misfits,
    ) -> Result<ArrayRef> {
        let data = self.data;
        let names = Names::new(fields);
        let mut found = vec![Value::MISSING; rows * fields.len()];
        let mut is_valid = Vec::with_capacity(rows);
        for (row, value) in values.iter().enumerate() {
            is_valid.push(value.kind == Kind::Object);
            match value.kind {
                Kind::Object => {
                    let here = &mut found[row * fields.len()..(row + 1) * fields.len()];
                    let mut next = 0;
                    let mut scanner = Scanner::new(&data[..value.end as usize], value.start as usize);
                    let passed = scanner.object(0, |key, value| {
                        let Some(column) = names.find(key, data, &mut next) else {
                            let is_unknown = self.is_inferred;
                            return if is_unknown { Err(Told(unknown(Some(name), key, data))) } else { Ok(()) };
                        };
                        if here[column].kind != Kind::Missing {
                            return Err(Told(twice(Some(name), key, data)));
                        }
                        here[column] = value;
                        Ok(())
                    });
                    if let Err(Told(message)) = passed {
                        misfits.push((row, message));
                    }
                }
                Kind::Missing | Kind::Null => {}
                _ => {
                    let object = DataType::Struct(fields.clone());
                    misfits.push((row, misfit_of(name, value, data, &object, Misfit::Form)));
                }
            }
        }
        let columns = fields
            .iter()
            .enumerate()
            .map(|(at, field)| {
                let values = Values { values: &found, width: fields.len(), at };
                self.column(values, rows, &format!("{name}.{}", field.name()), field.data_type(), misfits)
            })
            .collect::<Result<Vec<_>>>()?;
        let nulls = Some(NullBuffer::from(is_valid));
        if columns.is_empty() {
            return Ok(Arc::new(StructArray::new_empty_fields(rows, nulls)));
        }
        StructArray::try_new(fields.clone(), columns, nulls).map(|array| Arc::new(array) as _)
    }

    fn map(
        self,
        values: Values<'_>,
        name: &str,
        entries: &FieldRef,
        is_sorted: bool,
        misfits: &mut Misfits,
    ) -> Result<ArrayRef> {
        let DataType::Struct(fields) = entries.data_type() else {
            return Err(ArrowError::SchemaError("the entries of a map are a struct".to_owned()));
        };
        let is_boolean = Wants::of(fields[0].data_type()).is_boolean;
        let (mut offsets, mut keys, mut items, mut is_valid) = (vec![0], Vec::new(), Vec::new(), Vec::new());
        for (row, value) in values.iter().enumerate() {
            match value.kind {
                Kind::Object => {
                    let mut scanner = Scanner::new(&self.data[..value.end as usize], value.start as usize);
                    let passed = scanner.object::<Fault>(0, |key, item| {
                        keys.push(if is_boolean { self.as_boolean(key) } else { key });
                        items.push(item);
                        Ok(())
                    });
                    debug_assert!(passed.is_ok(), "the scanner has passed it");
                }
                Kind::Missing | Kind::Null => {}
                _ => misfits.push((row, format!("{}: {} is not an object", place(name), shown(value.bytes(self.data))))),
            }
            offsets.push(items.len() as i32);
            is_valid.push(value.kind == Kind::Object);
        }
        let before = misfits.len();
        let mut key_array = self.nested(&offsets, &keys, name, fields[0].data_type(), misfits)?;
        if misfits.len() > before {
            // A map has no null keys: a row with a key that does not fit is left without entries.
            let is_bad = |row: usize| misfits[before..].iter().any(|(bad, _)| *bad == row);
            let (mut kept_offsets, mut kept_keys, mut kept_items) = (vec![0], Vec::new(), Vec::new());
            for (row, bounds) in offsets.windows(2).enumerate() {
                if !is_bad(row) {
                    kept_keys.extend_from_slice(&keys[bounds[0] as usize..bounds[1] as usize]);
                    kept_items.extend_from_slice(&items[bounds[0] as usize..bounds[1] as usize]);
                }
                kept_offsets.push(kept_items.len() as i32);
            }
            (offsets, items) = (kept_offsets, kept_items);
            key_array = self.nested(&offsets, &kept_keys, name, fields[0].data_type(), &mut Misfits::new())?;
        }
        let items = self.nested(&offsets, &items, name, fields[1].data_type(), misfits)?;
        let entry_array = StructArray::try_new(fields.clone(), vec![key_array, items], None)?;
        let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
        let nulls = Some(NullBuffer::from(is_valid));
        let map = MapArray::try_new(Arc::clone(entries), offsets, entry_array, nulls, is_sorted);
        map.map(|map| Arc::new(map) as _)
    }

    /// A key that is true or false: JSON has no keys but strings.
    fn as_boolean(self, key: Value) -> Value {
        match key.kind == Kind::String && matches!(key.bytes(self.data), b"true" | b"false") {
            true => Value { kind: Kind::Boolean, ..key },
            false => key,
        }
    }
}

/// The names of columns or fields, found fastest in the order in which they come.
pub struct Names {
    names: Vec<String>,
}

impl Names {
    /// Of these fields.
    pub fn new(fields: &Fields) -> Names {
        Names { names: fields.iter().map(|field| field.name().clone()).collect() }
    }

    /// Which one a key is; `next` is where it is looked for first.
    #[inline]
    pub fn find(&self, key: Value, data: &[u8], next: &mut usize) -> Option<usize> {
        let bytes = key.bytes(data);
        let is_plain = key.kind != Kind::Escaped;
        if is_plain && self.names.get(*next).is_some_and(|name| name.as_bytes() == bytes) {
            *next += 1;
            return Some(*next - 1);
        }
        let found = match is_plain {
            true => self.names.iter().position(|name| name.as_bytes() == bytes),
            false => {
                let text = text_of(key, data);
                self.names.iter().position(|name| *name == text)
            }
        };
        if let Some(found) = found {
            *next = found + 1;
        }
        found
    }
}

/// A message in place of a fault.
#[derive(Debug)]
pub struct Told(pub String);

impl From<Fault> for Told {
    fn from(fault: Fault) -> Told {
        // Its values were passed before; only the order of reading could make this one.
        Told(fault.message(&[], 0))
    }
}

/// What messages call a column or a field of it. A value that is in no column is called as JSONPath does: `$`, `$.field`.
fn place(name: &str) -> String {
    match name.strip_prefix(VALUE) {
        Some(path) => format!("${path}"),
        None => format!("column {name:?}"),
    }
}

/// The message for a key that the columns do not have.
pub fn unknown(column: Option<&str>, key: Value, data: &[u8]) -> String {
    let of = column.map_or_else(String::new, |name| format!("{}: ", place(name)));
    format!(
        "{of}the key {:?} is in none of the records that the columns were inferred from; give schema= with it, or without \
         it to leave it out",
        text_of(key, data)
    )
}

/// The message for a key that an object has twice.
pub fn twice(column: Option<&str>, key: Value, data: &[u8]) -> String {
    let of = column.map_or_else(String::new, |name| format!("{}: ", place(name)));
    format!("{of}the object has the key {:?} twice", text_of(key, data))
}

/// The kinds of values that a type takes.
#[derive(Clone, Copy)]
struct Wants {
    is_text: bool,
    is_boolean: bool,
    is_binary: bool,
    is_null: bool,
}

impl Wants {
    fn of(data_type: &DataType) -> Wants {
        let value_type = match data_type {
            DataType::Dictionary(_, value) => value.as_ref(),
            other => other,
        };
        Wants {
            is_text: matches!(value_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View),
            is_boolean: *value_type == DataType::Boolean,
            is_binary: value_type.is_binary() || matches!(value_type, DataType::FixedSizeBinary(_)),
            is_null: *value_type == DataType::Null,
        }
    }

    #[inline]
    fn takes(self, value: Value, data: &[u8]) -> bool {
        match value.kind {
            Kind::Missing | Kind::Null => true,
            _ if self.is_text => true,
            Kind::Boolean => self.is_boolean,
            Kind::Number => !self.is_boolean && !self.is_binary && !self.is_null,
            Kind::List | Kind::Object => false,
            Kind::String | Kind::Escaped if self.is_binary => true,
            // Spaces are no number or time, and not null either.
            Kind::String | Kind::Escaped => {
                !self.is_boolean && !self.is_null && !value.bytes(data).trim_ascii().is_empty()
            }
        }
    }
}

fn misfit_of(name: &str, value: Value, data: &[u8], data_type: &DataType, misfit: Misfit) -> String {
    let text = match value.kind {
        Kind::String | Kind::Escaped => format!("{:?}", shown(value.bytes(data))),
        _ => shown(value.bytes(data)),
    };
    message(name, text, data_type, misfit)
}

fn message(name: &str, text: String, data_type: &DataType, misfit: Misfit) -> String {
    let reason = match (misfit, data_type) {
        (Misfit::Form, DataType::List(_) | DataType::Struct(_)) => format!("is not {}", type_name(data_type)),
        _ => misfit.reason(data_type),
    };
    format!("{}: {text} {reason}", place(name))
}

/// The head of a value.
fn shown(bytes: &[u8]) -> String {
    const VALUE_CHARS_MAX: usize = 100;
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(4 * VALUE_CHARS_MAX)]);
    let mut shown: String = text.chars().take(VALUE_CHARS_MAX).collect();
    if shown.len() < bytes.len() {
        shown.push('…');
    }
    shown
}
