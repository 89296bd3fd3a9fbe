//! Min and max.
//!
//! What fits one or two words is kept as an unsigned number in the order of the values; for min, its complement: so both
//! are a maximum, and the zero of a new row is less than or equal to anything. Everything else is kept in a cell, as bytes
//! in the order of the values.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Float64Array, Int64Array, RecordBatch, UInt64Array};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::compute::{cast, nullif};
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type, UInt64Type};
use mill_protocol::{Error, Result};
use mill_state::{Flag, LayoutBuilder, Rows, RowsRead, Select};

use super::cells::Codec;
use super::input::{Input, passes};
use super::{Accumulator, Problems, Selection, with_selection};

const SIGN: u64 = 1 << 63;
const WIDE_SIGN: u128 = 1 << 127;

/// Whether values of this type are held in a word.
pub(super) fn is_word(data_type: &DataType) -> bool {
    use DataType::*;
    data_type.is_integer()
        || matches!(data_type, Boolean | Float16 | Float32 | Float64 | Date32 | Date64 | Time32(_) | Time64(_))
        || matches!(data_type, Timestamp(..) | Duration(_))
}

fn converted(array: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    cast(array, to).map_err(|error| Error::schema(error.to_string()))
}

/// Values as numbers in their order; where there is null, anything.
pub(super) fn ordered_words(array: &ArrayRef) -> Result<Vec<u64>> {
    use DataType::*;
    Ok(match array.data_type() {
        Float16 | Float32 | Float64 => {
            let floats = converted(array, &Float64)?;
            let word = |value: &f64| {
                let bits = value.to_bits();
                match value {
                    _ if value.is_nan() => u64::MAX,
                    _ if bits & SIGN != 0 => !bits,
                    _ => bits | SIGN,
                }
            };
            floats.as_primitive::<Float64Type>().values().iter().map(word).collect()
        }
        Boolean | UInt8 | UInt16 | UInt32 | UInt64 => {
            converted(array, &UInt64)?.as_primitive::<UInt64Type>().values().to_vec()
        }
        _ => {
            let plain = match array.data_type() {
                Time32(_) | Date32 => converted(array, &Int32)?,
                _ => Arc::clone(array),
            };
            let plain = converted(&plain, &Int64)?;
            plain.as_primitive::<Int64Type>().values().iter().map(|&value| value as u64 ^ SIGN).collect()
        }
    })
}

/// The column of this type that `ordered_words` made these numbers of.
pub(super) fn from_ordered(words: Vec<u64>, nulls: Option<NullBuffer>, data_type: &DataType) -> Result<ArrayRef> {
    use DataType::*;
    let array: ArrayRef = match data_type {
        Float16 | Float32 | Float64 => {
            let value = |word: u64| match word {
                u64::MAX => f64::NAN,
                _ if word & SIGN != 0 => f64::from_bits(word & !SIGN),
                _ => f64::from_bits(!word),
            };
            Arc::new(Float64Array::new(words.into_iter().map(value).collect(), nulls))
        }
        Boolean => {
            let values: Vec<bool> = words.into_iter().map(|word| word != 0).collect();
            Arc::new(BooleanArray::new(values.into(), nulls))
        }
        UInt8 | UInt16 | UInt32 | UInt64 => Arc::new(UInt64Array::new(words.into(), nulls)),
        _ => {
            let array: ArrayRef = Arc::new(Int64Array::new(words.into_iter().map(|w| (w ^ SIGN) as i64).collect(), nulls));
            match data_type {
                Time32(_) | Date32 => converted(&array, &Int32)?,
                _ => array,
            }
        }
    };
    converted(&array, data_type)
}

/// The smallest or the largest value of a column.
pub(super) fn extreme(
    input: Input,
    output: &DataType,
    is_min: bool,
    layout: &mut LayoutBuilder,
) -> Result<Box<dyn Accumulator>> {
    let base = Base { input, output: output.clone(), is_min, values: None, mask: None };
    Ok(match output {
        _ if is_word(output) => {
            let (word, flag) = (layout.words(1), layout.flag());
            Box::new(WordExtreme { base, word, flag, words: Vec::new() })
        }
        DataType::Decimal128(..) => {
            let (words, flag) = (layout.words(2), layout.flag());
            Box::new(WideExtreme { base, words, flag })
        }
        _ => Box::new(BytesExtreme { base, codec: Codec::new(output)?, cell: layout.cell(), encoded: None }),
    })
}

struct Base {
    input: Input,
    output: DataType,
    is_min: bool,
    values: Option<ArrayRef>,
    mask: Option<BooleanBuffer>,
}

impl Base {
    fn prepare(&mut self, batch: &RecordBatch) -> Result<&ArrayRef> {
        let values = self.input.column(batch, 0, &self.output)?;
        self.mask = self.input.mask(batch, values.as_ref())?;
        Ok(self.values.insert(values))
    }

    fn singles(&self) -> Result<Vec<ArrayRef>> {
        let values = self.values.as_ref().expect("prepared");
        let Some(mask) = &self.mask else { return Ok(vec![Arc::clone(values)]) };
        let is_out = BooleanArray::new(!mask, None);
        Ok(vec![nullif(values, &is_out).map_err(|error| Error::internal(error.to_string()))?])
    }
}

struct WordExtreme {
    base: Base,
    word: usize,
    flag: Flag,
    words: Vec<u64>,
}

impl Accumulator for WordExtreme {
    fn prepare(&mut self, batch: &RecordBatch, _hashes: &[u64]) -> Result<()> {
        let values = self.base.prepare(batch)?;
        self.words = ordered_words(values)?;
        if self.base.is_min {
            self.words.iter_mut().for_each(|word| *word = !*word);
        }
        Ok(())
    }

    fn update(&mut self, rows: &mut Rows<'_>, select: Selection<'_>, _problems: &mut Problems) -> Result<()> {
        let (words, flag, mask) = (self.words.as_slice(), self.flag, self.base.mask.as_ref());
        with_selection!(select, s => rows.each_with::<1>(self.word, flag.word, |i, word, flags| {
            let record = s.at(i);
            if passes(mask, record) {
                word[0] = word[0].max(words[record]);
                *flags |= flag.mask;
            }
        }));
        Ok(())
    }

    fn finish(&self, rows: &RowsRead<'_>) -> Result<ArrayRef> {
        let mut words = rows.words(self.word);
        if self.base.is_min {
            words.iter_mut().for_each(|word| *word = !*word);
        }
        from_ordered(words, Some(NullBuffer::from(rows.flags(self.flag))), &self.base.output)
    }

    fn partial(&self, rows: &RowsRead<'_>) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.finish(rows)?])
    }

    fn singles(&self) -> Result<Vec<ArrayRef>> {
        self.base.singles()
    }
}

struct WideExtreme {
    base: Base,
    words: usize,
    flag: Flag,
}

impl Accumulator for WideExtreme {
    fn prepare(&mut self, batch: &RecordBatch, _hashes: &[u64]) -> Result<()> {
        self.base.prepare(batch)?;
        Ok(())
    }

    fn update(&mut self, rows: &mut Rows<'_>, select: Selection<'_>, _problems: &mut Problems) -> Result<()> {
        let values = self.base.values.as_ref().expect("prepared").as_primitive::<Decimal128Type>().values();
        let (flag, mask, is_min) = (self.flag, self.base.mask.as_ref(), self.base.is_min);
        rows.each_with::<2>(self.words, flag.word, |i, words, flags| {
            let record = select.at(i);
            if passes(mask, record) {
                let ordered = values[record] as u128 ^ WIDE_SIGN;
                let ordered = if is_min { !ordered } else { ordered };
                let largest = ordered.max((u128::from(words[1]) << 64) | u128::from(words[0]));
                *words = [largest as u64, (largest >> 64) as u64];
                *flags |= flag.mask;
            }
        });
        Ok(())
    }

    fn finish(&self, rows: &RowsRead<'_>) -> Result<ArrayRef> {
        let value = |row| {
            let word = |at| u128::from(rows.word(row, self.words + at));
            let ordered = word(1) << 64 | word(0);
            ((if self.base.is_min { !ordered } else { ordered }) ^ WIDE_SIGN) as i128
        };
        let nulls = NullBuffer::from(rows.flags(self.flag));
        let values = (0..rows.len()).map(|row| if nulls.is_valid(row) { value(row) } else { 0 }).collect();
        Ok(Arc::new(Decimal128Array::new(values, Some(nulls)).with_data_type(self.base.output.clone())))
    }

    fn partial(&self, rows: &RowsRead<'_>) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.finish(rows)?])
    }

    fn singles(&self) -> Result<Vec<ArrayRef>> {
        self.base.singles()
    }
}

struct BytesExtreme {
    base: Base,
    codec: Codec,
    cell: usize,
    encoded: Option<arrow_row::Rows>,
}

impl Accumulator for BytesExtreme {
    fn prepare(&mut self, batch: &RecordBatch, _hashes: &[u64]) -> Result<()> {
        let values = Arc::clone(self.base.prepare(batch)?);
        self.encoded = Some(self.codec.encode(&values)?);
        Ok(())
    }

    fn update(&mut self, rows: &mut Rows<'_>, select: Selection<'_>, _problems: &mut Problems) -> Result<()> {
        let encoded = self.encoded.as_ref().expect("prepared");
        for i in 0..select.len() {
            let record = select.at(i);
            if !passes(self.base.mask.as_ref(), record) {
                continue;
            }
            let value = encoded.row(record);
            let value: &[u8] = value.as_ref();
            let cell = rows.cell(i, self.cell);
            let is_better = match cell.bytes() {
                None => true,
                Some(best) if self.base.is_min => value < best,
                Some(best) => value > best,
            };
            if is_better {
                cell.set(value);
            }
        }
        Ok(())
    }

    fn finish(&self, rows: &RowsRead<'_>) -> Result<ArrayRef> {
        let null = self.codec.null()?;
        self.codec.decode((0..rows.len()).map(|row| rows.cell(row, self.cell).unwrap_or(&null)))
    }

    fn partial(&self, rows: &RowsRead<'_>) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.finish(rows)?])
    }

    fn singles(&self) -> Result<Vec<ArrayRef>> {
        self.base.singles()
    }
}
