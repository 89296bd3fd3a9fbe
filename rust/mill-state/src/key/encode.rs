//! From columns to keys.

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BinaryViewArray, GenericByteArray, PrimitiveArray,
};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::{
    ArrowNativeType, ArrowPrimitiveType, BinaryType, ByteArrayType, DataType, Date32Type, Date64Type, Decimal32Type, Decimal64Type,
    Decimal128Type, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, LargeBinaryType,
    LargeUtf8Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type, Utf8Type,
};
use arrow_row::{RowConverter, SortField};
use mill_frame::hash::hash_columns;
use mill_frame::types::{canonical_array, canonical_type, float_bits};

use super::{Column, KEY_BYTES_MAX, KeyBatch, KeyBytes, KeyKind, Kind, view_of};
use crate::direct::KeyRange;
use crate::error::{Result, StateError};

/// The first byte of text in a key of several columns, if its length comes after that byte …
pub(super) const LENGTH_FOLLOWS: u8 = 255;
/// … as it does from this length on.
const LENGTH_FOLLOWS_FROM: u8 = 254;
/// How many keys of a frame are looked at first.
const SAMPLE: usize = 64;

/// The hash of the one key that a step without key columns has.
pub const HASH_OF_NOTHING: u64 = 0x9e37_79b9_7f4a_7c15;

/// Turns key columns into keys, batch after batch, reusing its memory.
#[derive(Debug)]
pub struct KeyEncoder {
    kind: KeyKind,
    nested: Vec<Option<RowConverter>>,
    batch: KeyBatch,
}

impl KeyEncoder {
    /// An encoder for key columns of these types.
    ///
    /// # Errors
    /// When a type cannot be a key.
    pub fn new(types: &[DataType]) -> Result<KeyEncoder> {
        let kind = KeyKind::of(types)?;
        let mut nested = Vec::new();
        for data_type in types {
            nested.push(match Column::of(data_type)? {
                Column::Nested => Some(RowConverter::new(vec![SortField::new(canonical_type(data_type))])?),
                _ => None,
            });
        }
        let batch = KeyBatch { stride: kind.words(), ..KeyBatch::default() };
        Ok(KeyEncoder { kind, nested, batch })
    }

    /// How the keys are held.
    pub fn kind(&self) -> &KeyKind {
        &self.kind
    }

    /// The keys of the batch encoded last.
    pub fn batch(&self) -> &KeyBatch {
        &self.batch
    }

    /// Encodes the keys of `rows` records but for their hashes, if they are whole numbers in a range of at most `keys_max` and
    /// none is null; returns their range. [`words`](KeyBatch::words) has them then.
    ///
    /// # Errors
    /// When a column has another type than it should.
    pub fn encode_numbers(&mut self, columns: &[ArrayRef], rows: usize, keys_max: u64) -> Result<Option<KeyRange>> {
        use DataType::*;
        let [column] = columns else { return Ok(None) };
        let is_number = self.kind.0 == Kind::Word
            && !matches!(column.data_type(), Null | Boolean | Float16 | Float32 | Float64 | Dictionary(..));
        if !is_number || column.null_count() > 0 {
            return Ok(None);
        }
        // Keys that are far from each other mostly show it soon, and then cost next to nothing here.
        let mut sample = [0; SAMPLE];
        let sample = &mut sample[..rows.min(SAMPLE)];
        column_words(&column.slice(0, sample.len()), sample, 1, 0)?;
        if KeyRange::of(sample).is_none_or(|range| range.keys() > keys_max) {
            return Ok(None);
        }
        self.batch.words.clear();
        self.batch.words.resize(rows, 0);
        column_words(column, &mut self.batch.words, 1, 0)?;
        Ok(KeyRange::of(&self.batch.words).filter(|range| range.keys() <= keys_max))
    }

    /// Encodes the keys of `rows` records but for their hashes, if a key is one column that one word holds; returns the words, zero
    /// for null.
    ///
    /// # Errors
    /// When the column has another type than it should.
    pub fn encode_words(&mut self, columns: &[ArrayRef], rows: usize) -> Result<Option<&[u64]>> {
        let ([column], Kind::Word) = (columns, &self.kind.0) else { return Ok(None) };
        self.batch.words.clear();
        self.batch.words.resize(rows, 0);
        column_words(column, &mut self.batch.words, 1, 0)?;
        Ok(Some(&self.batch.words))
    }

    /// Encodes the keys of `rows` records.
    ///
    /// # Errors
    /// When a key is too long or a column has another type than it should.
    pub fn encode(&mut self, columns: &[ArrayRef], rows: usize) -> Result<&mut KeyBatch> {
        let batch = &mut self.batch;
        if columns.is_empty() {
            batch.hashes.clear();
            batch.hashes.resize(rows, HASH_OF_NOTHING);
        } else {
            hash_columns(columns, &mut batch.hashes)?;
        }
        batch.nulls.clear();
        match &self.kind.0 {
            Kind::Word => {
                batch.words.clear();
                batch.words.resize(rows, 0);
                column_words(&columns[0], &mut batch.words, 1, 0)?;
                note_nulls(columns[0].as_ref(), &mut batch.nulls);
            }
            Kind::Words { columns: kinds, words } => {
                batch.words.clear();
                batch.words.resize(rows * words, 0);
                let mut at = 0;
                let nulls_at = words - kinds.len().div_ceil(64);
                for (index, (column, kind)) in columns.iter().zip(kinds).enumerate() {
                    match kind {
                        Column::Pair => column_pairs(column, &mut batch.words, *words, at)?,
                        _ => column_words(column, &mut batch.words, *words, at)?,
                    }
                    at += if *kind == Column::Pair { 2 } else { 1 };
                    set_null_bits(column.as_ref(), &mut batch.words, *words, nulls_at + index / 64, 1 << (index % 64));
                }
            }
            Kind::Bytes => {
                note_nulls(columns[0].as_ref(), &mut batch.nulls);
                encode_bytes(&columns[0], batch)?;
            }
            Kind::Mixed { columns: kinds } => encode_mixed(columns, kinds, &self.nested, rows, batch)?,
        }
        Ok(&mut self.batch)
    }
}

fn note_nulls(array: &dyn Array, out: &mut Vec<bool>) {
    if let Some(nulls) = array.logical_nulls().filter(|nulls| nulls.null_count() > 0) {
        out.extend(nulls.iter().map(|is_valid| !is_valid));
    }
}

fn set_null_bits(array: &dyn Array, words: &mut [u64], stride: usize, at: usize, bit: u64) {
    let Some(nulls) = array.logical_nulls().filter(|nulls| nulls.null_count() > 0) else { return };
    for (row, is_valid) in words.chunks_exact_mut(stride).zip(nulls.iter()) {
        if !is_valid {
            row[at] |= bit;
        }
    }
}

/// Puts the values of a column, widened to words, at `at` of each row of `stride` words. Null is zero.
pub(crate) fn column_words(array: &ArrayRef, out: &mut [u64], stride: usize, at: usize) -> Result<()> {
    use DataType::*;
    macro_rules! words {
        ($type:ty, $word:expr) => {
            put_words::<$type>(array.as_ref(), out, stride, at, $word)
        };
    }
    match array.data_type() {
        Null => {}
        Boolean => {
            let array = array.as_boolean();
            for (index, row) in out.chunks_exact_mut(stride).enumerate() {
                row[at] = u64::from(array.is_valid(index) && array.value(index));
            }
        }
        Int8 => words!(Int8Type, |v| v as i64 as u64),
        Int16 => words!(Int16Type, |v| v as i64 as u64),
        Int32 => words!(Int32Type, |v| v as i64 as u64),
        Int64 => words!(Int64Type, |v| v as u64),
        UInt8 => words!(UInt8Type, u64::from),
        UInt16 => words!(UInt16Type, u64::from),
        UInt32 => words!(UInt32Type, u64::from),
        UInt64 => words!(UInt64Type, |v| v),
        Float16 => words!(Float16Type, |v| float_bits(v.to_f64())),
        Float32 => words!(Float32Type, |v| float_bits(f64::from(v))),
        Float64 => words!(Float64Type, float_bits),
        Decimal32(..) => words!(Decimal32Type, |v| v as i64 as u64),
        Decimal64(..) => words!(Decimal64Type, |v| v as u64),
        Date32 => words!(Date32Type, |v| v as i64 as u64),
        Date64 => words!(Date64Type, |v| v as u64),
        Time32(_) => return column_words(&cast(array, &Int32)?, out, stride, at),
        Time64(_) | Timestamp(..) | Duration(_) => return column_words(&cast(array, &Int64)?, out, stride, at),
        Dictionary(_, values) => return column_words(&cast(array, values)?, out, stride, at),
        other => return Err(StateError::KeyType(other.clone())),
    }
    Ok(())
}

#[inline(always)]
fn put_words<T: ArrowPrimitiveType>(
    array: &dyn Array,
    out: &mut [u64],
    stride: usize,
    at: usize,
    word: impl Fn(T::Native) -> u64,
) {
    let array: &PrimitiveArray<T> = array.as_primitive();
    let values = array.values();
    match array.nulls() {
        None if stride == 1 => {
            for (row, &value) in out.iter_mut().zip(values) {
                *row = word(value);
            }
        }
        None => {
            for (row, &value) in out.chunks_exact_mut(stride).zip(values) {
                row[at] = word(value);
            }
        }
        Some(nulls) => {
            for ((row, &value), is_valid) in out.chunks_exact_mut(stride).zip(values).zip(nulls.iter()) {
                row[at] = if is_valid { word(value) } else { 0 };
            }
        }
    }
}

pub(super) fn column_pairs(array: &ArrayRef, out: &mut [u64], stride: usize, at: usize) -> Result<()> {
    let array = match array.data_type() {
        DataType::Dictionary(_, values) => cast(array, values)?,
        _ => array.clone(),
    };
    let DataType::Decimal128(..) = array.data_type() else { return Err(StateError::KeyType(array.data_type().clone())) };
    let array = array.as_primitive::<Decimal128Type>();
    for (index, row) in out.chunks_exact_mut(stride).enumerate() {
        let value = if array.is_valid(index) { array.value(index) as u128 } else { 0 };
        row[at] = value as u64;
        row[at + 1] = (value >> 64) as u64;
    }
    Ok(())
}

fn check_length(bytes: usize) -> Result<()> {
    if bytes > KEY_BYTES_MAX {
        return Err(StateError::KeyTooLong { bytes, bytes_max: KEY_BYTES_MAX });
    }
    Ok(())
}

fn encode_bytes(array: &ArrayRef, batch: &mut KeyBatch) -> Result<()> {
    use DataType::*;
    batch.words.clear();
    batch.words.reserve(array.len() * 2);
    match array.data_type() {
        Utf8 => encode_offsets(array.as_bytes::<Utf8Type>(), batch),
        LargeUtf8 => encode_offsets(array.as_bytes::<LargeUtf8Type>(), batch),
        Binary => encode_offsets(array.as_bytes::<BinaryType>(), batch),
        LargeBinary => encode_offsets(array.as_bytes::<LargeBinaryType>(), batch),
        Utf8View => encode_views(&array.as_string_view().clone().to_binary_view(), batch),
        BinaryView => encode_views(array.as_binary_view(), batch),
        FixedSizeBinary(_) => encode_bytes(&cast(array, &Binary)?, batch),
        Dictionary(_, values) => encode_bytes(&cast(array, values)?, batch),
        other => Err(StateError::KeyType(other.clone())),
    }
}

fn encode_offsets<T: ByteArrayType>(array: &GenericByteArray<T>, batch: &mut KeyBatch) -> Result<()> {
    let data = array.value_data();
    let nulls = array.nulls();
    batch.words.resize(array.len() * 2, 0);
    let rows = batch.words.chunks_exact_mut(2).zip(array.value_offsets().windows(2));
    let mut longest = 0;
    for (row, (words, pair)) in rows.enumerate() {
        let (start, end) = (pair[0].as_usize(), pair[1].as_usize());
        if nulls.is_some_and(|nulls| nulls.is_null(row)) {
            continue;
        }
        longest = longest.max(end - start);
        words.copy_from_slice(&view_within(data, start, end));
    }
    batch.bytes = if longest > super::VIEW_INLINE { KeyBytes::Column(array.values().clone()) } else { KeyBytes::default() };
    check_length(longest)
}

/// The view of a part of `data`. Copies a fixed number of bytes where there are enough, and masks what is too many.
#[inline(always)]
pub(super) fn view_within(data: &[u8], start: usize, end: usize) -> [u64; 2] {
    let length = end - start;
    let Some(bytes) = data.get(start..start + 16).filter(|_| length <= super::VIEW_INLINE) else {
        return view_of(&data[start..end], start as u64);
    };
    let bytes = u128::from_le_bytes(bytes.try_into().expect("sixteen bytes were sliced"));
    let view = (bytes & ((1 << (length * 8)) - 1)) << 32 | length as u128;
    [view as u64, (view >> 64) as u64]
}

fn encode_views(array: &BinaryViewArray, batch: &mut KeyBatch) -> Result<()> {
    let mut own = Vec::new();
    for row in 0..array.len() {
        let bytes = if array.is_valid(row) { array.value(row) } else { &[] };
        check_length(bytes.len())?;
        batch.words.extend(view_of(bytes, own.len() as u64));
        if bytes.len() > super::VIEW_INLINE {
            own.extend_from_slice(bytes);
        }
    }
    batch.bytes = KeyBytes::Own(own);
    Ok(())
}

/// A key column of several, ready to be written row by row.
enum Part {
    Words(Vec<u64>, Option<NullBuffer>),
    Pairs(Vec<u64>, Option<NullBuffer>),
    Bytes(BinaryArray),
    Rows(arrow_row::Rows),
}

/// What a key column has in a row.
enum Value<'p> {
    Null,
    /// A number, of which so many bytes are not zero.
    Number(u128, usize),
    Bytes(&'p [u8]),
}

/// The number with the sign in its lowest bit, so that small ones of either sign have few bytes.
fn unsigned(value: i128) -> u128 {
    (value << 1) as u128 ^ (value >> 127) as u128
}

impl Part {
    fn new(column: &ArrayRef, kind: Column, converter: Option<&RowConverter>, rows: usize) -> Result<Part> {
        Ok(match kind {
            Column::Word => {
                let mut words = vec![0; rows];
                column_words(column, &mut words, 1, 0)?;
                Part::Words(words, column.logical_nulls())
            }
            Column::Pair => {
                let mut words = vec![0; rows * 2];
                column_pairs(column, &mut words, 2, 0)?;
                Part::Pairs(words, column.logical_nulls())
            }
            Column::Bytes => {
                let canonical = canonical_array(column)?;
                Part::Bytes(cast(&canonical, &DataType::Binary)?.as_binary::<i32>().clone())
            }
            Column::Nested => {
                let converter = converter.expect("nested columns have a converter");
                Part::Rows(converter.convert_columns(&[canonical_array(column)?])?)
            }
        })
    }

    #[inline(always)]
    fn value(&self, row: usize) -> Value<'_> {
        let number = |value: u128| Value::Number(value, (128 - value.leading_zeros() as usize).div_ceil(8));
        match self {
            Part::Words(_, Some(nulls)) | Part::Pairs(_, Some(nulls)) if nulls.is_null(row) => Value::Null,
            Part::Words(words, _) => number(unsigned(i128::from(words[row] as i64))),
            Part::Pairs(words, _) => {
                number(unsigned((u128::from(words[2 * row + 1]) << 64 | u128::from(words[2 * row])) as i128))
            }
            Part::Bytes(array) if array.is_null(row) => Value::Null,
            Part::Bytes(array) => Value::Bytes(array.value(row)),
            Part::Rows(encoded) => Value::Bytes(encoded.row(row).data()),
        }
    }

    /// The bytes of a row, if they can be read as sixteen, with what is too many masked: of short text, for the most part.
    #[inline(always)]
    fn short(&self, row: usize) -> Option<(u128, usize)> {
        match (self, self.value(row)) {
            (_, Value::Number(value, length)) => Some((value, length)),
            (Part::Bytes(array), Value::Bytes(bytes)) if bytes.len() <= super::VIEW_INLINE => {
                let start = array.value_offsets()[row] as usize;
                let wide = array.value_data().get(start..start + 16)?;
                let wide = u128::from_le_bytes(wide.try_into().expect("sixteen bytes were sliced"));
                Some((wide & ((1 << (bytes.len() * 8)) - 1), bytes.len()))
            }
            _ => None,
        }
    }
}

/// Each column as a byte, which is 0 for null, and bytes:
///
/// ```text
///   number           1 + how many bytes    so many bytes, the lowest first, of the number with its sign in the lowest bit
///   text, binary     1 + length            the bytes
///     from 254 on    255, length u32       the bytes
/// ```
///
/// If the last column is one of numbers of a word, its byte comes after the number, so that it can be read from the end.
///
/// Keys of a short text and a small number fit into the view then, and are compared without a look elsewhere.
fn encode_mixed(
    columns: &[ArrayRef],
    kinds: &[Column],
    nested: &[Option<RowConverter>],
    rows: usize,
    batch: &mut KeyBatch,
) -> Result<()> {
    let mut parts = Vec::with_capacity(columns.len());
    for ((column, kind), converter) in columns.iter().zip(kinds).zip(nested) {
        parts.push(Part::new(column, *kind, converter.as_ref(), rows)?);
    }
    let mut own = match std::mem::take(&mut batch.bytes) {
        KeyBytes::Own(mut bytes) => {
            bytes.clear();
            bytes
        }
        KeyBytes::Column(_) => Vec::new(),
    };
    batch.words.clear();
    batch.words.reserve(2 * rows);
    for row in 0..rows {
        if let Some(view) = short_view(&parts, kinds.last() == Some(&Column::Word), row) {
            batch.words.extend(view);
            continue;
        }
        let start = own.len();
        for (index, part) in parts.iter().enumerate() {
            match part.value(row) {
                Value::Null => own.push(0),
                Value::Number(value, length) => {
                    let at = own.len();
                    own.push(1 + length as u8);
                    own.extend_from_slice(&value.to_le_bytes()[..length]);
                    if index + 1 == parts.len() && kinds[index] == Column::Word {
                        own[at..].rotate_left(1);
                    }
                }
                Value::Bytes(bytes) => {
                    match u8::try_from(bytes.len()) {
                        Ok(length @ ..LENGTH_FOLLOWS_FROM) => own.push(1 + length),
                        _ => {
                            check_length(bytes.len())?;
                            own.push(LENGTH_FOLLOWS);
                            own.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
                        }
                    }
                    own.extend_from_slice(bytes);
                }
            }
        }
        check_length(own.len() - start)?;
        let view = view_of(&own[start..], start as u64);
        batch.words.extend(view);
        if own.len() - start <= super::VIEW_INLINE {
            own.truncate(start);
        }
    }
    batch.bytes = KeyBytes::Own(own);
    Ok(())
}

/// The view of a key that fits into it, put together in a register; `None` if it does not, or cannot be read in one go.
#[inline(always)]
fn short_view(parts: &[Part], ends_with_head: bool, row: usize) -> Option<[u64; 2]> {
    let (mut bytes, mut length) = (0u128, 0);
    for (index, part) in parts.iter().enumerate() {
        let (head, value, more) = match part.short(row) {
            Some((value, more)) => (1 + more as u128, value, more),
            None if matches!(part.value(row), Value::Null) => (0, 0, 0),
            None => return None,
        };
        if length + 1 + more > super::VIEW_INLINE {
            return None;
        }
        // A value of eleven bytes at most, so nothing is shifted out.
        let written = if ends_with_head && index + 1 == parts.len() { value | head << (8 * more) } else { head | value << 8 };
        bytes |= written << (8 * length);
        length += 1 + more;
    }
    let view = bytes << 32 | length as u128;
    Some([view as u64, (view >> 64) as u64])
}
