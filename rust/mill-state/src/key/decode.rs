//! From keys back to columns.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BinaryBuilder, BooleanArray, Decimal128Array, Float64Array, Int64Array, NullArray, UInt64Array,
};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow_row::{RowConverter, SortField};
use mill_frame::types::canonical_type;

use super::encode::LENGTH_FOLLOWS;
use super::{Column, KeyKind, Kind};
use crate::error::{Result, StateError};
use crate::layout::TAG_NULL;
use crate::rows::RowsRead;

/// Turns the keys of rows into columns.
#[derive(Debug)]
pub struct KeyDecoder {
    kind: KeyKind,
    types: Vec<DataType>,
    nested: Vec<Option<RowConverter>>,
}

impl KeyDecoder {
    /// A decoder for key columns of these types.
    ///
    /// # Errors
    /// When a type cannot be a key.
    pub fn new(types: &[DataType]) -> Result<KeyDecoder> {
        let kind = KeyKind::of(types)?;
        let mut nested = Vec::new();
        for data_type in types {
            nested.push(match Column::of(data_type)? {
                Column::Nested => Some(RowConverter::new(vec![SortField::new(canonical_type(data_type))])?),
                _ => None,
            });
        }
        Ok(KeyDecoder { kind, types: types.to_vec(), nested })
    }

    /// The key columns of these rows.
    ///
    /// # Errors
    /// When the bytes of a key, as read from a checkpoint, are not what its type allows.
    pub fn decode(&self, rows: &RowsRead<'_>) -> Result<Vec<ArrayRef>> {
        match &self.kind.0 {
            Kind::Word => {
                let words: Vec<u64> = rows.words(1);
                let nulls = null_buffer(rows.words(0).iter().map(|tag| tag & TAG_NULL != 0));
                Ok(vec![word_column(words, nulls, &self.types[0])?])
            }
            Kind::Words { columns, words } => {
                let nulls_at = 1 + words - columns.len().div_ceil(64);
                let mut at = 1;
                let mut out = Vec::with_capacity(columns.len());
                let (mut null_bits, mut all_bits) = (Vec::new(), 0);
                for (index, (column, data_type)) in columns.iter().zip(&self.types).enumerate() {
                    if index.is_multiple_of(64) {
                        null_bits = rows.words(nulls_at + index / 64);
                        all_bits = null_bits.iter().fold(0, |all, bits| all | bits);
                    }
                    let bit = 1u64 << (index % 64);
                    let nulls = match all_bits & bit {
                        0 => None,
                        _ => null_buffer(null_bits.iter().map(|word| word & bit != 0)),
                    };
                    if *column == Column::Pair {
                        out.push(pair_column(&rows.words(at), &rows.words(at + 1), nulls, data_type)?);
                        at += 2;
                    } else {
                        out.push(word_column(rows.words(at), nulls, data_type)?);
                        at += 1;
                    }
                }
                Ok(out)
            }
            Kind::Bytes => {
                let mut builder = BinaryBuilder::with_capacity(rows.len(), rows.len() * 8);
                let tags = rows.words(0);
                rows.each_view(1, |row, bytes| {
                    if tags[row] & TAG_NULL != 0 {
                        builder.append_null();
                    } else {
                        builder.append_value(bytes);
                    }
                })?;
                Ok(vec![bytes_column(builder.finish(), &self.types[0])?])
            }
            Kind::Mixed { columns } => self.decode_mixed(columns, rows),
        }
    }

    fn decode_mixed(&self, columns: &[Column], rows: &RowsRead<'_>) -> Result<Vec<ArrayRef>> {
        enum Open {
            Words(Vec<u64>, Vec<bool>),
            Pairs(Vec<u64>, Vec<u64>, Vec<bool>),
            Bytes(BinaryBuilder),
            Rows(Vec<Vec<u8>>),
        }
        let mut open: Vec<Open> = columns
            .iter()
            .map(|column| match column {
                Column::Word => Open::Words(Vec::new(), Vec::new()),
                Column::Pair => Open::Pairs(Vec::new(), Vec::new(), Vec::new()),
                Column::Bytes => Open::Bytes(BinaryBuilder::new()),
                Column::Nested => Open::Rows(Vec::new()),
            })
            .collect();
        let mut is_damaged = false;
        rows.each_view(1, |_, bytes| {
            let mut rest = bytes;
            for (index, column) in open.iter_mut().enumerate() {
                let head = match (&column, rest.split_last()) {
                    // The last number has it at its end.
                    (Open::Words(..), Some((head, before))) if index + 1 == columns.len() => {
                        rest = before;
                        *head
                    }
                    _ => take(&mut rest, 1, &mut is_damaged)[0],
                };
                match column {
                    Open::Words(words, nulls) => {
                        words.push(take_number(&mut rest, head, 8, &mut is_damaged) as u64);
                        nulls.push(head == 0);
                    }
                    Open::Pairs(low, high, nulls) => {
                        let value = take_number(&mut rest, head, 16, &mut is_damaged);
                        low.push(value as u64);
                        high.push((value >> 64) as u64);
                        nulls.push(head == 0);
                    }
                    Open::Bytes(builder) if head == 0 => builder.append_null(),
                    Open::Bytes(builder) => builder.append_value(take_sized(&mut rest, head, &mut is_damaged)),
                    Open::Rows(encoded) => {
                        is_damaged |= head == 0;
                        encoded.push(take_sized(&mut rest, head, &mut is_damaged).to_vec());
                    }
                }
            }
            is_damaged |= !rest.is_empty();
        })?;
        if is_damaged {
            return Err(StateError::Damaged { group: 0, chunk: 0, what: "a key is not what its columns make".to_owned() });
        }
        let mut out = Vec::with_capacity(columns.len());
        for (index, column) in open.into_iter().enumerate() {
            let data_type = &self.types[index];
            out.push(match column {
                Open::Words(words, nulls) => word_column(words, null_buffer(nulls.into_iter()), data_type)?,
                Open::Pairs(low, high, nulls) => pair_column(&low, &high, null_buffer(nulls.into_iter()), data_type)?,
                Open::Bytes(mut builder) => bytes_column(builder.finish(), data_type)?,
                Open::Rows(encoded) => {
                    let converter = self.nested[index].as_ref().expect("nested columns have a converter");
                    let parser = converter.parser();
                    let columns = converter.convert_rows(encoded.iter().map(|bytes| parser.parse(bytes)))?;
                    cast(&columns[0], data_type)?
                }
            });
        }
        Ok(out)
    }
}

const PADDING: [u8; 16] = [0; 16];

fn take<'a>(rest: &mut &'a [u8], count: usize, is_damaged: &mut bool) -> &'a [u8] {
    match rest.split_at_checked(count) {
        Some((taken, behind)) => {
            *rest = behind;
            taken
        }
        None => {
            *is_damaged = true;
            &PADDING[..count.min(PADDING.len())]
        }
    }
}

/// The number with this head, whose bytes come next; zero for null.
fn take_number(rest: &mut &[u8], head: u8, bytes_max: usize, is_damaged: &mut bool) -> i128 {
    let length = usize::from(head).saturating_sub(1);
    *is_damaged |= length > bytes_max;
    signed(take(rest, length.min(16), is_damaged))
}

/// The number of these bytes, of sixteen at most, with its sign in the lowest bit.
fn signed(bytes: &[u8]) -> i128 {
    let mut value = [0; 16];
    value[..bytes.len()].copy_from_slice(bytes);
    let value = u128::from_le_bytes(value);
    (value >> 1) as i128 ^ -((value & 1) as i128)
}

/// The number of a word that an encoding of several columns ends with; `None` if it ends with none.
pub(crate) fn last_number(key: &[u8]) -> Option<i64> {
    let (head, before) = key.split_last()?;
    let start = before.len().checked_sub(usize::from(head.checked_sub(1).filter(|length| *length <= 8)?))?;
    Some(signed(&before[start..]) as i64)
}

fn take_sized<'a>(rest: &mut &'a [u8], head: u8, is_damaged: &mut bool) -> &'a [u8] {
    let length = match head {
        LENGTH_FOLLOWS => {
            let length = take(rest, 4, is_damaged);
            u32::from_le_bytes(length.try_into().expect("four bytes were taken")) as usize
        }
        head => usize::from(head).saturating_sub(1),
    };
    take(rest, length, is_damaged)
}

fn null_buffer(is_null: impl Iterator<Item = bool>) -> Option<NullBuffer> {
    let nulls: NullBuffer = is_null.map(|is_null| !is_null).collect::<Vec<bool>>().into();
    Some(nulls).filter(|nulls| nulls.null_count() > 0)
}

/// The column of this type whose values, widened to words, are these.
pub(crate) fn word_column(words: Vec<u64>, nulls: Option<NullBuffer>, data_type: &DataType) -> Result<ArrayRef> {
    use DataType::*;
    let plain: ArrayRef = match data_type {
        Null => return Ok(Arc::new(NullArray::new(words.len()))),
        Dictionary(_, values) => return Ok(cast(&word_column(words, nulls, values)?, data_type)?),
        Boolean => {
            let values: Vec<bool> = words.iter().map(|&word| word != 0).collect();
            return Ok(Arc::new(BooleanArray::new(values.into(), nulls)));
        }
        Float16 | Float32 | Float64 => {
            let values: Vec<f64> = words.iter().map(|&word| f64::from_bits(word)).collect();
            Arc::new(Float64Array::new(values.into(), nulls))
        }
        UInt64 => Arc::new(UInt64Array::new(words.into(), nulls)),
        Decimal32(precision, scale) | Decimal64(precision, scale) => {
            let values: Vec<i128> = words.iter().map(|&word| i128::from(word as i64)).collect();
            Arc::new(Decimal128Array::new(values.into(), nulls).with_precision_and_scale(*precision, *scale)?)
        }
        _ => {
            let values: Vec<i64> = words.into_iter().map(|word| word as i64).collect();
            Arc::new(Int64Array::new(values.into(), nulls))
        }
    };
    if plain.data_type() == data_type {
        return Ok(plain);
    }
    match data_type {
        // These stand for a number of units; a cast between units would scale it.
        Date32 | Time32(_) => Ok(cast(&cast(&plain, &Int32)?, data_type)?),
        _ => Ok(cast(&plain, data_type)?),
    }
}

fn pair_column(low: &[u64], high: &[u64], nulls: Option<NullBuffer>, data_type: &DataType) -> Result<ArrayRef> {
    let values: Vec<i128> =
        low.iter().zip(high).map(|(&low, &high)| ((u128::from(high) << 64) | u128::from(low)) as i128).collect();
    let DataType::Decimal128(precision, scale) = canonical_type(data_type) else { return Err(StateError::KeyType(data_type.clone())) };
    let array: ArrayRef = Arc::new(Decimal128Array::new(values.into(), nulls).with_precision_and_scale(precision, scale)?);
    Ok(cast(&array, data_type)?)
}

fn bytes_column(array: BinaryArray, data_type: &DataType) -> Result<ArrayRef> {
    use DataType::*;
    let array: ArrayRef = Arc::new(array);
    match data_type {
        Binary => Ok(array),
        // Checked: the bytes may stem from a checkpoint.
        Utf8 | LargeUtf8 | Utf8View | LargeBinary | BinaryView | FixedSizeBinary(_) => {
            Ok(arrow::compute::cast_with_options(
                &array,
                data_type,
                &arrow::compute::CastOptions { safe: false, ..Default::default() },
            )?)
        }
        Dictionary(_, values) => Ok(cast(&bytes_column(arrow::array::AsArray::as_binary::<i32>(array.as_ref()).clone(), values)?, data_type)?),
        other => Err(StateError::KeyType(other.clone())),
    }
}
