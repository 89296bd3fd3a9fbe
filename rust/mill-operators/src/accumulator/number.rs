//! Count and sum.
//!
//! A sum is exact whatever its parts: where it leaves the range of its word, it wraps around and that is noted (see
//! [`Wraps`]). Only the total decides whether there is a result, so neither order nor parallelism does.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Decimal128Array, Float64Array, Int64Array, RecordBatch, UInt64Array};
use arrow::buffer::{BooleanBuffer, NullBuffer, ScalarBuffer};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type, UInt64Type};
use mill_protocol::{Error, Result};
use mill_state::{Flag, LayoutBuilder, Rows, RowsRead, Select};

use super::carries::{Unfit, Wraps};
use super::double::Double;
use super::input::{Input, passes};
use super::{Accumulator, Problems, Selection, with_selection};

/// The number of records, or of values that are not null.
pub(super) struct Count {
    input: Input,
    is_partial: bool,
    word: usize,
    rows: usize,
    mask: Option<BooleanBuffer>,
    counts: Option<ScalarBuffer<i64>>,
}

impl Count {
    pub(super) fn new(input: Input, is_partial: bool, layout: &mut LayoutBuilder) -> Count {
        Count { input, is_partial, word: layout.words(1), rows: 0, mask: None, counts: None }
    }
}

impl Accumulator for Count {
    fn prepare(&mut self, batch: &RecordBatch, _hashes: &[u64]) -> Result<()> {
        self.rows = batch.num_rows();
        if self.is_partial {
            let counts = self.input.column(batch, 0, &DataType::Int64)?;
            self.counts = Some(counts.as_primitive::<Int64Type>().values().clone());
            return Ok(());
        }
        self.mask = if self.input.has_values() {
            let values = self.input.plain(batch, 0)?;
            self.input.mask(batch, values.as_ref())?
        } else {
            self.input.filter(batch)?
        };
        Ok(())
    }

    fn update(&mut self, rows: &mut Rows<'_>, select: Selection<'_>, _problems: &mut Problems) -> Result<()> {
        let mask = self.mask.as_ref();
        match &self.counts {
            Some(counts) => with_selection!(select, s => {
                rows.each::<1>(self.word, |i, n| n[0] = n[0].wrapping_add(counts[s.at(i)] as u64));
            }),
            None if mask.is_none() => rows.each::<1>(self.word, |_, n| n[0] += 1),
            None => with_selection!(select, s => {
                rows.each::<1>(self.word, |i, n| n[0] += u64::from(passes(mask, s.at(i))));
            }),
        }
        Ok(())
    }

    fn finish(&self, rows: &RowsRead<'_>) -> Result<ArrayRef> {
        Ok(Arc::new((0..rows.len()).map(|row| rows.word(row, self.word) as i64).collect::<ScalarBuffer<i64>>().into_array()))
    }

    fn partial(&self, rows: &RowsRead<'_>) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.finish(rows)?])
    }

    fn singles(&self) -> Result<Vec<ArrayRef>> {
        let counts = match &self.mask {
            None => vec![1; self.rows],
            Some(mask) => mask.iter().map(i64::from).collect(),
        };
        Ok(vec![Arc::new(ScalarBuffer::from(counts).into_array())])
    }
}

trait IntoArray {
    fn into_array(self) -> Int64Array;
}

impl IntoArray for ScalarBuffer<i64> {
    fn into_array(self) -> Int64Array {
        Int64Array::new(self, None)
    }
}

/// The sum of a column of this type.
pub(super) fn sum(
    input: Input,
    is_partial: bool,
    name: String,
    output: &DataType,
    is_ahead: bool,
    layout: &mut LayoutBuilder,
) -> Result<Box<dyn Accumulator>> {
    let output = output.clone();
    let wraps = Wraps::new(is_ahead);
    Ok(match &output {
        DataType::Float64 => {
            let (words, flag) = (layout.words(2), layout.flag());
            Box::new(FloatSum { input, is_partial, words, flag, wraps, values: None, lost: None, mask: None })
        }
        DataType::Decimal128(..) => {
            let (words, flag) = (layout.words(2), layout.flag());
            Box::new(DecimalSum { input, name, output, words, flag, wraps, values: None, mask: None })
        }
        DataType::UInt64 => {
            let (word, flag) = (layout.words(1), layout.flag());
            Box::new(Sum { input, name, output, word, flag, wraps, is_signed: false, values: None, mask: None })
        }
        DataType::Int64 | DataType::Duration(_) => {
            let (word, flag) = (layout.words(1), layout.flag());
            Box::new(Sum { input, name, output, word, flag, wraps, is_signed: true, values: None, mask: None })
        }
        other => return Err(Error::internal(format!("sum {name:?} has type {other}"))),
    })
}

pub(super) fn null_where(is_valid: Vec<bool>) -> Option<NullBuffer> {
    if is_valid.iter().all(|&is_valid| is_valid) { None } else { Some(NullBuffer::from(is_valid)) }
}

/// A sum, or something else, that does not fit; the total, if it can be shown.
pub(super) fn overflow(what: &str, name: &str, output: &DataType, total: Option<String>) -> Error {
    // An aggregate within an expression has no name that the user knows.
    let what = if name.starts_with("__agg") { format!("a {what}") } else { format!("{what} {name:?}") };
    let total = total.map(|total| format!(" is {total} and")).unwrap_or_default();
    let advice = match output {
        DataType::Duration(_) => "count it in a coarser unit, as in .dt.cast_time_unit(\"ms\")",
        _ => "cast its input to float or decimal",
    };
    Error::data(format!("{what}{total} overflows {}; {advice}", mill_plan::type_name(output)))
}

/// A sum of integers or durations, modulo 2^64.
struct Sum {
    input: Input,
    name: String,
    output: DataType,
    word: usize,
    flag: Flag,
    wraps: Wraps,
    is_signed: bool,
    values: Option<ScalarBuffer<i64>>,
    mask: Option<BooleanBuffer>,
}

/// Adds, and notes where that wraps around.
fn add<S: Select>(
    rows: &mut Rows<'_>,
    (word, flag): (usize, Flag),
    values: &[i64],
    mask: Option<&BooleanBuffer>,
    select: S,
    wraps: &mut Wraps,
    add: impl Fn(u64, u64) -> (u64, bool),
    times: impl Fn(i64) -> i64,
) {
    let mut one = |i: usize, sum: &mut [u64; 1], flags: &mut u64| {
        let value = values[select.at(i)];
        let (total, is_over) = add(sum[0], value as u64);
        if is_over && !wraps.note(select.at(i), times(value)) {
            return;
        }
        sum[0] = total;
        *flags |= flag.mask;
    };
    match mask {
        None => rows.each_with::<1>(word, flag.word, one),
        Some(mask) => rows.each_with::<1>(word, flag.word, |i, sum, flags| {
            if mask.value(select.at(i)) {
                one(i, sum, flags);
            }
        }),
    }
}

impl Accumulator for Sum {
    fn prepare(&mut self, batch: &RecordBatch, _hashes: &[u64]) -> Result<()> {
        let values = self.input.column(batch, 0, &self.output)?;
        self.mask = self.input.mask(batch, values.as_ref())?;
        self.values = Some(if self.is_signed {
            let plain = cast(&values, &DataType::Int64).map_err(|error| Error::schema(error.to_string()))?;
            plain.as_primitive::<Int64Type>().values().clone()
        } else {
            ScalarBuffer::from(values.as_primitive::<UInt64Type>().values().inner().clone())
        });
        Ok(())
    }

    fn update(&mut self, rows: &mut Rows<'_>, select: Selection<'_>, _problems: &mut Problems) -> Result<()> {
        let values = self.values.as_deref().expect("prepared");
        let (place, mask, wraps) = ((self.word, self.flag), self.mask.as_ref(), &mut self.wraps);
        let signed = |a: u64, b: u64| {
            let (sum, is_over) = (a as i64).overflowing_add(b as i64);
            (sum as u64, is_over)
        };
        with_selection!(select, s => if self.is_signed {
            add(rows, place, values, mask, s, wraps, signed, |value| if value < 0 { -1 } else { 1 });
        } else {
            add(rows, place, values, mask, s, wraps, u64::overflowing_add, |_| 1);
        });
        Ok(())
    }

    fn wraps(&mut self) -> Option<&mut Wraps> {
        Some(&mut self.wraps)
    }

    fn finish_carried(&self, rows: &RowsRead<'_>, carries: &[i64]) -> Result<(ArrayRef, Unfit)> {
        let total = |row: usize| {
            let word = rows.word(row, self.word);
            let low = if self.is_signed { i128::from(word as i64) } else { i128::from(word) };
            low + (i128::from(carries[row]) << 64)
        };
        let wrapped = (0..rows.len()).filter(|&row| carries[row] != 0);
        let unfit = wrapped.map(|row| (row, overflow("sum", &self.name, &self.output, Some(total(row).to_string())))).collect();
        Ok((self.finish(rows)?, unfit))
    }

    fn finish(&self, rows: &RowsRead<'_>) -> Result<ArrayRef> {
        let nulls = null_where(rows.flags(self.flag));
        let words = rows.words(self.word);
        if !self.is_signed {
            return Ok(Arc::new(UInt64Array::new(words.into(), nulls)));
        }
        let values: ScalarBuffer<i64> = words.into_iter().map(|word| word as i64).collect();
        let array: ArrayRef = Arc::new(Int64Array::new(values, nulls));
        cast(&array, &self.output).map_err(|error| Error::internal(error.to_string()))
    }

    fn partial(&self, rows: &RowsRead<'_>) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.finish(rows)?])
    }

    fn singles(&self) -> Result<Vec<ArrayRef>> {
        let values = self.values.clone().expect("prepared");
        let nulls = self.mask.clone().map(NullBuffer::new);
        if !self.is_signed {
            return Ok(vec![Arc::new(UInt64Array::new(ScalarBuffer::from(values.inner().clone()), nulls))]);
        }
        let array: ArrayRef = Arc::new(Int64Array::new(values, nulls));
        Ok(vec![cast(&array, &self.output).map_err(|error| Error::internal(error.to_string()))?])
    }
}

/// A sum of decimals, modulo 10^38.
struct DecimalSum {
    input: Input,
    name: String,
    output: DataType,
    words: usize,
    flag: Flag,
    wraps: Wraps,
    values: Option<ScalarBuffer<i128>>,
    mask: Option<BooleanBuffer>,
}

const DECIMAL_MAX: i128 = 10i128.pow(38) - 1;

/// The sum of two numbers of up to 38 digits, and how often it wraps around at 10^38.
pub(super) fn add_decimals(a: i128, b: i128) -> (i128, i64) {
    const AROUND: i128 = DECIMAL_MAX + 1;
    if b > 0 && a > DECIMAL_MAX - b {
        (a - AROUND + b, 1)
    } else if b < 0 && a < -DECIMAL_MAX - b {
        (a + AROUND + b, -1)
    } else {
        (a + b, 0)
    }
}

fn wide(words: [u64; 2]) -> i128 {
    ((u128::from(words[1]) << 64) | u128::from(words[0])) as i128
}

impl DecimalSum {
    fn column(&self, values: ScalarBuffer<i128>, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
        Ok(Arc::new(Decimal128Array::new(values, nulls).with_data_type(self.output.clone())))
    }
}

impl Accumulator for DecimalSum {
    fn prepare(&mut self, batch: &RecordBatch, _hashes: &[u64]) -> Result<()> {
        let values = self.input.column(batch, 0, &self.output)?;
        self.mask = self.input.mask(batch, values.as_ref())?;
        self.values = Some(values.as_primitive::<Decimal128Type>().values().clone());
        Ok(())
    }

    fn update(&mut self, rows: &mut Rows<'_>, select: Selection<'_>, _problems: &mut Problems) -> Result<()> {
        let values = self.values.as_deref().expect("prepared");
        let (flag, mask, wraps) = (self.flag, self.mask.as_ref(), &mut self.wraps);
        rows.each_with::<2>(self.words, flag.word, |i, words, flags| {
            let record = select.at(i);
            if !passes(mask, record) {
                return;
            }
            let (sum, times) = add_decimals(wide(*words), values[record]);
            if times != 0 && !wraps.note(record, times) {
                return;
            }
            *words = [sum as u64, (sum >> 64) as u64];
            *flags |= flag.mask;
        });
        Ok(())
    }

    fn wraps(&mut self) -> Option<&mut Wraps> {
        Some(&mut self.wraps)
    }

    fn finish_carried(&self, rows: &RowsRead<'_>, carries: &[i64]) -> Result<(ArrayRef, Unfit)> {
        let mut unfit = Unfit::new();
        let mut value = |row: usize| {
            let sum = wide([rows.word(row, self.words), rows.word(row, self.words + 1)]);
            match carries[row] {
                0 => sum,
                // A sum that wrapped around once and is on the other side of zero fits.
                1 if sum < 0 => sum + (DECIMAL_MAX + 1),
                -1 if sum > 0 => sum - (DECIMAL_MAX + 1),
                _ => {
                    unfit.push((row, overflow("sum", &self.name, &self.output, None)));
                    0
                }
            }
        };
        let values = (0..rows.len()).map(&mut value).collect();
        Ok((self.column(values, null_where(rows.flags(self.flag)))?, unfit))
    }

    fn finish(&self, rows: &RowsRead<'_>) -> Result<ArrayRef> {
        let nulls = null_where(rows.flags(self.flag));
        let value = |row| wide([rows.word(row, self.words), rows.word(row, self.words + 1)]);
        self.column((0..rows.len()).map(value).collect(), nulls)
    }

    fn partial(&self, rows: &RowsRead<'_>) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.finish(rows)?])
    }

    fn singles(&self) -> Result<Vec<ArrayRef>> {
        let values = self.values.clone().expect("prepared");
        Ok(vec![self.column(values, self.mask.clone().map(NullBuffer::new))?])
    }
}

pub(super) fn floats(array: &ArrayRef) -> ScalarBuffer<f64> {
    array.as_primitive::<Float64Type>().values().clone()
}

pub(super) fn float_column(values: Vec<f64>, nulls: Option<NullBuffer>) -> ArrayRef {
    Arc::new(Float64Array::new(values.into(), nulls))
}

/// A sum of floats, with what rounding has lost, modulo 2^1024.
struct FloatSum {
    input: Input,
    is_partial: bool,
    words: usize,
    flag: Flag,
    wraps: Wraps,
    values: Option<ScalarBuffer<f64>>,
    lost: Option<ScalarBuffer<f64>>,
    mask: Option<BooleanBuffer>,
}

impl Accumulator for FloatSum {
    fn prepare(&mut self, batch: &RecordBatch, _hashes: &[u64]) -> Result<()> {
        let values = self.input.column(batch, 0, &DataType::Float64)?;
        self.mask = self.input.mask(batch, values.as_ref())?;
        self.values = Some(floats(&values));
        if self.is_partial {
            self.lost = Some(floats(&self.input.column(batch, 1, &DataType::Float64)?));
        }
        Ok(())
    }

    fn update(&mut self, rows: &mut Rows<'_>, select: Selection<'_>, _problems: &mut Problems) -> Result<()> {
        let values = self.values.as_deref().expect("prepared");
        let (lost, flag, mask, wraps) = (self.lost.as_deref(), self.flag, self.mask.as_ref(), &mut self.wraps);
        with_selection!(select, s => rows.each_with::<2>(self.words, flag.word, |i, words, flags| {
            let record = s.at(i);
            if passes(mask, record) {
                let value = Double { sum: values[record], lost: lost.map_or(0.0, |lost| lost[record]) };
                let own = Double::from_words(*words);
                let mut sum = own.merge(value);
                if !sum.sum.is_finite() {
                    let (wrapped, times) = own.wrapped(value);
                    if times != 0 && !wraps.note(record, times) {
                        return;
                    }
                    sum = wrapped;
                }
                *words = sum.to_words();
                *flags |= flag.mask;
            }
        }));
        Ok(())
    }

    fn wraps(&mut self) -> Option<&mut Wraps> {
        Some(&mut self.wraps)
    }

    fn finish_carried(&self, rows: &RowsRead<'_>, carries: &[i64]) -> Result<(ArrayRef, Unfit)> {
        let value = |row| {
            let own = Double::from_words([rows.word(row, self.words), rows.word(row, self.words + 1)]);
            match carries[row] {
                0 => own.total(),
                times => own.unwrapped(times).total() * Double::UNWRAPPED,
            }
        };
        Ok((float_column((0..rows.len()).map(value).collect(), null_where(rows.flags(self.flag))), Unfit::new()))
    }

    fn finish(&self, rows: &RowsRead<'_>) -> Result<ArrayRef> {
        let value = |row| Double::from_words([rows.word(row, self.words), rows.word(row, self.words + 1)]).total();
        Ok(float_column((0..rows.len()).map(value).collect(), null_where(rows.flags(self.flag))))
    }

    fn partial(&self, rows: &RowsRead<'_>) -> Result<Vec<ArrayRef>> {
        let column = |word: usize| rows.words(word).into_iter().map(f64::from_bits).collect::<Vec<f64>>();
        let nulls = null_where(rows.flags(self.flag));
        Ok(vec![float_column(column(self.words), nulls), float_column(column(self.words + 1), None)])
    }

    fn singles(&self) -> Result<Vec<ArrayRef>> {
        let values = self.values.clone().expect("prepared");
        let zeros = float_column(vec![0.0; values.len()], None);
        Ok(vec![Arc::new(Float64Array::new(values, self.mask.clone().map(NullBuffer::new))), zeros])
    }
}
