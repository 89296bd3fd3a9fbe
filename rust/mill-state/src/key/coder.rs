//! Numbers for keys whose columns have few different values.
//!
//! ```text
//!   town   hour        dictionaries            number
//!   Ulm    7           Ulm 0   Bonn 1          0 + 2 × 0 = 0
//!   Bonn   9           7 0   9 1   8 2         1 + 2 × 1 = 3        there are 2 × 3
//! ```
//!
//! A value is looked up in the dictionary of its column alone, which stays in the nearest cache. What the columns say together is a
//! number, which addresses a row (see [`DirectTable`](crate::DirectTable)): the key is neither encoded nor hashed as a whole, and nothing is compared.
//!
//! Equal values have equal codes by the words that rows would hold of them, so whatever counts as one key there is one number here.
//! Numbers hold until [`encode`](KeyCoder::encode) gives a [`Renumbering`], which it does when a column has more values than there was room for.

use arrow::array::{Array, ArrayRef, AsArray, GenericByteArray, UInt32Array, new_null_array};
use arrow::buffer::NullBuffer;
use arrow::compute::{cast, concat, take};
use arrow::datatypes::{
    ArrowDictionaryKeyType, ArrowNativeType, BinaryType, BinaryViewType, ByteArrayType, DataType, Int8Type, Int16Type, Int32Type, Int64Type,
    LargeBinaryType, LargeUtf8Type, StringViewType, UInt8Type, UInt16Type, UInt32Type, UInt64Type, Utf8Type,
};
use xxhash_rust::xxh3::xxh3_64;

use super::encode::{column_pairs, column_words, view_within};
use super::{Column, VIEW_INLINE, view_length, view_of};
use crate::direct::KeyRange;
use crate::error::Result;

/// How many values a column has at most: their dictionary stays in a cache that is near.
const VALUES_MAX: usize = 4096;
/// How many bytes the long ones among them have at most.
const BYTES_MAX: usize = 1 << 20;
/// How many places of a dictionary are looked at for one value.
const PROBES_MAX: usize = 32;
/// How many places a dictionary begins with.
const PLACES_FIRST: usize = 256;
/// How many places it has a value: so many that almost every value is in the first place that it is looked for in.
const PLACES_PER_VALUE: usize = 4;
/// In place of a code: nothing is here.
const NOTHING: u32 = u32::MAX;

const A: u64 = 0x9e37_79b9_7f4a_7c15;
const B: u64 = 0xd1b5_4a32_d192_ed03;

/// The bytes of what is no text.
fn none(_: usize) -> &'static [u8] {
    &[]
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// What a row holds of the value; of a long text its length and beginning, and the hash of all of it.
    words: [u64; 2],
    code: u32,
    /// Where the bytes of a long text begin.
    start: u32,
}

const FREE: Entry = Entry { words: [0; 2], code: NOTHING, start: 0 };

/// The values of a column in the order in which they came; the code of a value is its place among them.
#[derive(Debug)]
struct Dictionary {
    entries: Vec<Entry>,
    shift: u32,
    count: usize,
    null: Option<u32>,
    bytes: Vec<u8>,
    /// All values, in as many arrays as there were occasions.
    values: Vec<ArrayRef>,
    /// Room for the words of a frame.
    words: Vec<u64>,
}

impl Dictionary {
    fn new() -> Dictionary {
        let shift = 64 - PLACES_FIRST.ilog2();
        Dictionary { entries: vec![FREE; PLACES_FIRST], shift, count: 0, null: None, bytes: Vec::new(), values: Vec::new(), words: Vec::new() }
    }

    #[inline(always)]
    fn place(&self, words: [u64; 2]) -> usize {
        let product = u128::from(words[0] ^ A) * u128::from(words[1] ^ B);
        ((product as u64 ^ (product >> 64) as u64) >> self.shift) as usize
    }

    /// The code of a value, which is a new one if it is not there yet; `None` if there are too many. `bytes` are those of a long text.
    #[inline(never)]
    fn search(&mut self, words: [u64; 2], bytes: Option<&[u8]>) -> Option<u32> {
        let (first, last) = (self.place(words), self.entries.len() - 1);
        for step in 0..PROBES_MAX {
            let place = (first + step) & last;
            let entry = self.entries[place];
            if entry.code == NOTHING {
                return self.insert(place, words, bytes);
            }
            if entry.words == words && bytes.is_none_or(|bytes| self.has_bytes(entry, bytes)) {
                return Some(entry.code);
            }
        }
        None
    }

    fn has_bytes(&self, entry: Entry, bytes: &[u8]) -> bool {
        &self.bytes[entry.start as usize..][..bytes.len()] == bytes
    }

    fn insert(&mut self, place: usize, words: [u64; 2], bytes: Option<&[u8]>) -> Option<u32> {
        let start = self.bytes.len();
        if self.count == VALUES_MAX || start + bytes.map_or(0, <[u8]>::len) > BYTES_MAX {
            return None;
        }
        self.bytes.extend_from_slice(bytes.unwrap_or_default());
        let code = self.count as u32;
        self.entries[place] = Entry { words, code, start: start as u32 };
        self.count += 1;
        if self.count * PLACES_PER_VALUE > self.entries.len() {
            self.grow();
        }
        Some(code)
    }

    fn grow(&mut self) {
        let places = self.entries.len() * 2;
        let before = std::mem::replace(&mut self.entries, vec![FREE; places]);
        self.shift -= 1;
        for entry in before.into_iter().filter(|entry| entry.code != NOTHING) {
            let mut place = self.place(entry.words);
            while self.entries[place].code != NOTHING {
                place = (place + 1) & (places - 1);
            }
            self.entries[place] = entry;
        }
    }

    /// The code of null.
    #[inline(never)]
    fn code_of_null(&mut self) -> u32 {
        let count = &mut self.count;
        *self.null.get_or_insert_with(|| {
            *count += 1;
            *count as u32 - 1
        })
    }

    /// Writes the codes of all values of an array, `value` returns the words of one and `bytes` its bytes; whether they are not too many.
    #[inline(always)]
    fn code_each<'a, const IS_TEXT: bool>(
        &mut self,
        array: &dyn Array,
        out: &mut Vec<u32>,
        value: impl Fn(usize) -> [u64; 2],
        bytes: impl Fn(usize) -> &'a [u8],
    ) -> Result<bool> {
        let nulls = array.logical_nulls().filter(|nulls| nulls.null_count() > 0);
        out.clear();
        out.resize(array.len(), 0);
        let before = self.count;
        let mut firsts = Vec::new();
        let mut is_full = false;
        for (record, out) in out.iter_mut().enumerate() {
            if nulls.as_ref().is_some_and(|nulls| nulls.is_null(record)) {
                *out = self.code_of_null();
            } else {
                let mut words = value(record);
                let is_long = IS_TEXT && view_length(&words) > VIEW_INLINE;
                if is_long {
                    words[1] = xxh3_64(bytes(record));
                }
                let entry = self.entries[self.place(words)];
                if !is_long && entry.words == words && entry.code != NOTHING {
                    *out = entry.code;
                    continue;
                }
                let Some(code) = self.search(words, is_long.then(|| bytes(record))) else {
                    is_full = true;
                    break;
                };
                *out = code;
            }
            if self.count > before + firsts.len() {
                firsts.push(record as u32);
            }
        }
        if !firsts.is_empty() {
            self.values.push(take(array, &UInt32Array::from(firsts), None)?);
        }
        Ok(!is_full)
    }

    /// Writes the codes of the values of a column that is held like this; whether they are not too many.
    fn code(&mut self, array: &ArrayRef, column: Column, out: &mut Vec<u32>) -> Result<bool> {
        use DataType::*;
        let rows = array.len();
        match (column, array.data_type()) {
            (_, Dictionary(key, _)) => match key.as_ref() {
                Int8 => self.code_dictionary::<Int8Type>(array, column, out),
                Int16 => self.code_dictionary::<Int16Type>(array, column, out),
                Int32 => self.code_dictionary::<Int32Type>(array, column, out),
                Int64 => self.code_dictionary::<Int64Type>(array, column, out),
                UInt8 => self.code_dictionary::<UInt8Type>(array, column, out),
                UInt16 => self.code_dictionary::<UInt16Type>(array, column, out),
                UInt32 => self.code_dictionary::<UInt32Type>(array, column, out),
                _ => self.code_dictionary::<UInt64Type>(array, column, out),
            },
            (Column::Word, _) => {
                let mut words = self.take_words(rows);
                column_words(array, &mut words, 1, 0)?;
                let fits = self.code_each::<false>(array, out, |record| [words[record], 0], none)?;
                self.words = words;
                Ok(fits)
            }
            (Column::Pair, _) => {
                let mut words = self.take_words(2 * rows);
                column_pairs(array, &mut words, 2, 0)?;
                let fits = self.code_each::<false>(array, out, |record| [words[2 * record], words[2 * record + 1]], none)?;
                self.words = words;
                Ok(fits)
            }
            (_, Utf8) => self.code_text(array.as_bytes::<Utf8Type>(), out),
            (_, LargeUtf8) => self.code_text(array.as_bytes::<LargeUtf8Type>(), out),
            (_, Binary) => self.code_text(array.as_bytes::<BinaryType>(), out),
            (_, LargeBinary) => self.code_text(array.as_bytes::<LargeBinaryType>(), out),
            (_, Utf8View) => {
                let bytes = |record| array.as_byte_view::<StringViewType>().value(record).as_bytes();
                self.code_each::<true>(array, out, |record| view_of(bytes(record), 0), bytes)
            }
            (_, BinaryView) => {
                let bytes = |record| array.as_byte_view::<BinaryViewType>().value(record);
                self.code_each::<true>(array, out, |record| view_of(bytes(record), 0), bytes)
            }
            (_, FixedSizeBinary(_)) => {
                let bytes = |record| array.as_fixed_size_binary().value(record);
                self.code_each::<true>(array, out, |record| view_of(bytes(record), 0), bytes)
            }
            _ => Ok(false),
        }
    }

    /// The room for the words of a frame, so many zeros.
    fn take_words(&mut self, count: usize) -> Vec<u64> {
        let mut words = std::mem::take(&mut self.words);
        words.clear();
        words.resize(count, 0);
        words
    }

    fn code_text<T: ByteArrayType>(&mut self, array: &GenericByteArray<T>, out: &mut Vec<u32>) -> Result<bool> {
        let (data, offsets) = (array.value_data(), array.value_offsets());
        let ends = |record: usize| (offsets[record].as_usize(), offsets[record + 1].as_usize());
        let value = |record| {
            let (start, end) = ends(record);
            view_within(data, start, end)
        };
        let bytes = |record| {
            let (start, end) = ends(record);
            &data[start..end]
        };
        self.code_each::<true>(array, out, value, bytes)
    }

    /// Of an array that has a dictionary itself, its values are coded and not its records.
    fn code_dictionary<K: ArrowDictionaryKeyType>(&mut self, array: &ArrayRef, column: Column, out: &mut Vec<u32>) -> Result<bool> {
        let array = array.as_dictionary::<K>();
        let values = array.values();
        if values.len() > VALUES_MAX || values.len() > array.len() {
            return Ok(false);
        }
        let mut codes = Vec::new();
        if !self.code(values, column, &mut codes)? {
            return Ok(false);
        }
        let nulls: Option<&NullBuffer> = array.keys().nulls().filter(|nulls| nulls.null_count() > 0);
        if nulls.is_some() && self.null.is_none() {
            self.code_of_null();
            self.values.push(new_null_array(values.data_type(), 1));
        }
        let null = self.null.unwrap_or_default();
        out.clear();
        out.extend(array.keys().values().iter().enumerate().map(|(record, key)| match nulls {
            Some(nulls) if nulls.is_null(record) => null,
            _ => codes[key.as_usize()],
        }));
        Ok(true)
    }

    /// All values, in the order of their codes.
    fn all(&mut self) -> Result<Option<&ArrayRef>> {
        if self.values.len() > 1 {
            let parts: Vec<&dyn Array> = self.values.iter().map(AsRef::as_ref).collect();
            self.values = vec![concat(&parts)?];
        }
        Ok(self.values.first())
    }
}

/// How numbers given so far become those of the same keys from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renumbering {
    from: Vec<u64>,
    to: Vec<u64>,
}

impl Renumbering {
    /// The number that this one becomes.
    pub fn of(&self, number: u64) -> u64 {
        let (mut rest, mut number, mut place) = (number, 0, 1);
        for (&from, &to) in self.from.iter().zip(&self.to) {
            number += rest % from * place;
            rest /= from;
            place *= to;
        }
        number
    }
}

/// Assigns numbers to keys, frame after frame.
#[derive(Debug)]
pub struct KeyCoder {
    types: Vec<DataType>,
    columns: Vec<Column>,
    dictionaries: Vec<Dictionary>,
    /// For how many values of each column there is room; none before the first frame.
    rooms: Vec<u64>,
    /// The codes of each column of the last frame.
    codes: Vec<Vec<u32>>,
    numbers: Vec<u64>,
}

impl KeyCoder {
    /// A coder for key columns of these types; `None` if such keys have no numbers: those without columns, those that are a number
    /// themselves, and lists and structs.
    ///
    /// # Errors
    /// When a type cannot be a key.
    pub fn new(types: &[DataType]) -> Result<Option<KeyCoder>> {
        let columns = types.iter().map(Column::of).collect::<Result<Vec<Column>>>()?;
        if columns.contains(&Column::Nested) || matches!(columns[..], [] | [Column::Word]) {
            return Ok(None);
        }
        let mut coder = KeyCoder {
            types: types.to_vec(),
            columns,
            dictionaries: Vec::new(),
            rooms: Vec::new(),
            codes: vec![Vec::new(); types.len()],
            numbers: Vec::new(),
        };
        coder.reset();
        Ok(Some(coder))
    }

    /// Forgets all values, and all numbers that were given.
    pub fn reset(&mut self) {
        self.dictionaries.clear();
        self.dictionaries.resize_with(self.types.len(), Dictionary::new);
        self.rooms.clear();
    }

    /// Assigns numbers to the keys of `rows` records, see [`numbers`](KeyCoder::numbers); the numbers given before change if there is a renumbering. `None`
    /// if there would be more than `keys_max` of them. Then those given before hold, until it is [`reset`](KeyCoder::reset).
    ///
    /// # Errors
    /// When a column has another type than it should.
    pub fn encode(&mut self, columns: &[ArrayRef], rows: usize, keys_max: u64) -> Result<Option<Option<Renumbering>>> {
        let before = self.rooms.clone();
        self.numbers.clear();
        self.numbers.resize(rows, 0);
        let mut rooms = before.clone();
        rooms.resize(columns.len(), 1);
        for (index, column) in columns.iter().enumerate() {
            let dictionary = &mut self.dictionaries[index];
            if !dictionary.code(column, self.columns[index], &mut self.codes[index])? {
                return Ok(None);
            }
            let count = dictionary.count as u64;
            if count > rooms[index] {
                // If there are more than before, there will be more still.
                rooms[index] = if before.is_empty() { count } else { count + count / 4 };
            }
            let least: u64 = self.dictionaries.iter().map(|dictionary| dictionary.count.max(1) as u64).product();
            if least > keys_max {
                return Ok(None);
            }
        }
        if rooms.iter().product::<u64>() > keys_max {
            rooms = self.dictionaries.iter().map(|dictionary| dictionary.count.max(1) as u64).collect();
        }
        let mut place = 1;
        for (codes, room) in self.codes.iter().zip(&rooms) {
            self.numbers.iter_mut().zip(codes).for_each(|(number, &code)| *number += u64::from(code) * place);
            place *= room;
        }
        self.rooms.clone_from(&rooms);
        let is_new = !before.is_empty() && before != rooms;
        Ok(Some(is_new.then_some(Renumbering { from: before, to: rooms })))
    }

    /// The numbers of the keys of the frame that was encoded last.
    pub fn numbers(&self) -> &[u64] {
        &self.numbers
    }

    /// The range of all numbers that there are at present.
    pub fn range(&self) -> KeyRange {
        KeyRange::up_to(self.rooms.iter().product())
    }

    /// The key columns of these numbers.
    ///
    /// # Errors
    /// When a column cannot have its type.
    pub fn decode(&mut self, mut numbers: Vec<u64>) -> Result<Vec<ArrayRef>> {
        let mut out = Vec::with_capacity(self.types.len());
        for ((dictionary, &room), data_type) in self.dictionaries.iter_mut().zip(&self.rooms).zip(&self.types) {
            let codes: UInt32Array = numbers.iter().map(|number| (number % room) as u32).collect::<Vec<u32>>().into();
            numbers.iter_mut().for_each(|number| *number /= room);
            let column = match dictionary.all()? {
                Some(values) => take(values.as_ref(), &codes, None)?,
                None => new_null_array(data_type, 0),
            };
            out.push(if column.data_type() == data_type { column } else { cast(&column, data_type)? });
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests;
