//! Count, sum, mean, standard deviation, variance.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Decimal128Array, Float64Array, Int64Array, RecordBatch, UInt64Array};
use arrow::buffer::{BooleanBuffer, NullBuffer, ScalarBuffer};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type, UInt64Type};
use mill_protocol::{Error, Result};
use mill_state::{Flag, LayoutBuilder, Rows, RowsRead, Select};

use super::double::Double;
use super::input::{Input, passes};
use super::spread::Spread;
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
    layout: &mut LayoutBuilder,
) -> Result<Box<dyn Accumulator>> {
    let output = output.clone();
    Ok(match &output {
        DataType::Float64 => {
            let (words, flag) = (layout.words(2), layout.flag());
            Box::new(FloatSum { input, is_partial, words, flag, values: None, lost: None, mask: None })
        }
        DataType::Decimal128(..) => {
            let (words, flag) = (layout.words(2), layout.flag());
            Box::new(DecimalSum { input, name, output, words, flag, values: None, mask: None })
        }
        DataType::UInt64 => {
            let (word, flag) = (layout.words(1), layout.flag());
            Box::new(Sum { input, name, output, word, flag, is_signed: false, values: None, mask: None })
        }
        DataType::Int64 | DataType::Duration(_) => {
            let (word, flag) = (layout.words(1), layout.flag());
            Box::new(Sum { input, name, output, word, flag, is_signed: true, values: None, mask: None })
        }
        other => return Err(Error::internal(format!("sum {name:?} has type {other}"))),
    })
}

fn null_where(is_valid: Vec<bool>) -> Option<NullBuffer> {
    let nulls = NullBuffer::from(is_valid);
    (nulls.null_count() > 0).then_some(nulls)
}

fn overflow(name: &str, output: &DataType) -> Error {
    Error::data(format!("sum {name:?} overflows {}; cast its input to float or decimal", mill_plan::type_name(output)))
}

/// A sum of integers or durations, checked.
struct Sum {
    input: Input,
    name: String,
    output: DataType,
    word: usize,
    flag: Flag,
    is_signed: bool,
    values: Option<ScalarBuffer<i64>>,
    mask: Option<BooleanBuffer>,
}

/// Adds; gives the records that would overflow.
fn add_checked<S: Select>(
    rows: &mut Rows<'_>,
    (word, flag): (usize, Flag),
    values: &[i64],
    mask: Option<&BooleanBuffer>,
    select: S,
    add: impl Fn(u64, u64) -> (u64, bool),
) -> Vec<usize> {
    let mut overflown = Vec::new();
    let mut one = |i: usize, sum: &mut [u64; 1], flags: &mut u64| {
        let (total, is_over) = add(sum[0], values[select.at(i)] as u64);
        if is_over {
            overflown.push(select.at(i));
        } else {
            sum[0] = total;
            *flags |= flag.mask;
        }
    };
    match mask {
        None => rows.each_with::<1>(word, flag.word, one),
        Some(mask) => rows.each_with::<1>(word, flag.word, |i, sum, flags| {
            if mask.value(select.at(i)) {
                one(i, sum, flags);
            }
        }),
    }
    overflown
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

    fn update(&mut self, rows: &mut Rows<'_>, select: Selection<'_>, problems: &mut Problems) -> Result<()> {
        let values = self.values.as_deref().expect("prepared");
        let (place, mask) = ((self.word, self.flag), self.mask.as_ref());
        let signed = |a: u64, b: u64| {
            let (sum, is_over) = (a as i64).overflowing_add(b as i64);
            (sum as u64, is_over)
        };
        let overflown = with_selection!(select, s => if self.is_signed {
            add_checked(rows, place, values, mask, s, signed)
        } else {
            add_checked(rows, place, values, mask, s, u64::overflowing_add)
        });
        problems.extend(overflown.into_iter().map(|record| (record, overflow(&self.name, &self.output))));
        Ok(())
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

/// A sum of decimals, checked against 38 digits.
struct DecimalSum {
    input: Input,
    name: String,
    output: DataType,
    words: usize,
    flag: Flag,
    values: Option<ScalarBuffer<i128>>,
    mask: Option<BooleanBuffer>,
}

const DECIMAL_MAX: i128 = 10i128.pow(38) - 1;

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

    fn update(&mut self, rows: &mut Rows<'_>, select: Selection<'_>, problems: &mut Problems) -> Result<()> {
        let values = self.values.as_deref().expect("prepared");
        let (flag, mask) = (self.flag, self.mask.as_ref());
        rows.each_with::<2>(self.words, flag.word, |i, words, flags| {
            let record = select.at(i);
            if !passes(mask, record) {
                return;
            }
            match wide(*words).checked_add(values[record]).filter(|sum| sum.abs() <= DECIMAL_MAX) {
                Some(sum) => {
                    *words = [sum as u64, (sum >> 64) as u64];
                    *flags |= flag.mask;
                }
                None => problems.push((record, overflow(&self.name, &self.output))),
            }
        });
        Ok(())
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

fn floats(array: &ArrayRef) -> ScalarBuffer<f64> {
    array.as_primitive::<Float64Type>().values().clone()
}

fn float_column(values: Vec<f64>, nulls: Option<NullBuffer>) -> ArrayRef {
    Arc::new(Float64Array::new(values.into(), nulls))
}

/// A sum of floats, with what rounding has lost.
struct FloatSum {
    input: Input,
    is_partial: bool,
    words: usize,
    flag: Flag,
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
        let (lost, flag, mask) = (self.lost.as_deref(), self.flag, self.mask.as_ref());
        with_selection!(select, s => rows.each_with::<2>(self.words, flag.word, |i, words, flags| {
            let record = s.at(i);
            if passes(mask, record) {
                let value = Double { sum: values[record], lost: lost.map_or(0.0, |lost| lost[record]) };
                *words = Double::from_words(*words).merge(value).to_words();
                *flags |= flag.mask;
            }
        }));
        Ok(())
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

/// What is made of number, sum and spread.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    Mean,
    Var,
    Std,
}

/// Mean, variance and standard deviation: words are n, the sum (2), the squared distances from the mean (2, not for the
/// mean).
pub(super) struct Moments {
    input: Input,
    is_partial: bool,
    moment: Moment,
    words: usize,
    /// The values, or sums of partial results, and what follows them.
    columns: Vec<ScalarBuffer<f64>>,
    /// What floats do not hold of the values, where that is anything.
    lost: Option<ScalarBuffer<f64>>,
    counts: Option<ScalarBuffer<i64>>,
    mask: Option<BooleanBuffer>,
}

impl Moments {
    pub(super) fn new(input: Input, is_partial: bool, moment: Moment, layout: &mut LayoutBuilder) -> Moments {
        let words = layout.words(if moment == Moment::Mean { 3 } else { 5 });
        Moments { input, is_partial, moment, words, columns: Vec::new(), lost: None, counts: None, mask: None }
    }

    fn of_row(&self, rows: &RowsRead<'_>, row: usize) -> Spread {
        let word = |offset: usize| rows.word(row, self.words + offset);
        let squares = if self.moment == Moment::Mean { [0, 0] } else { [word(3), word(4)] };
        Spread::from_words([word(0), word(1), word(2), squares[0], squares[1]])
    }
}

/// Numbers as floats, and what these do not hold of them; `None` if they hold all.
fn wide_floats(array: &ArrayRef) -> (ScalarBuffer<f64>, Option<ScalarBuffer<f64>>) {
    const FLOAT_MAX: u64 = 1 << 53;
    let of_integers = |values: &mut dyn Iterator<Item = i128>| {
        let pairs: Vec<(f64, f64)> = values
            .map(|value| {
                let near = value as f64;
                (near, (value - near as i128) as f64)
            })
            .collect();
        (pairs.iter().map(|pair| pair.0).collect(), Some(pairs.iter().map(|pair| pair.1).collect()))
    };
    match array.data_type() {
        DataType::Int64 => {
            let values = array.as_primitive::<Int64Type>().values();
            if values.iter().any(|value| value.unsigned_abs() > FLOAT_MAX) {
                return of_integers(&mut values.iter().map(|&value| i128::from(value)));
            }
            (values.iter().map(|&value| value as f64).collect(), None)
        }
        DataType::UInt64 => {
            let values = array.as_primitive::<UInt64Type>().values();
            if values.iter().any(|&value| value > FLOAT_MAX) {
                return of_integers(&mut values.iter().map(|&value| i128::from(value)));
            }
            (values.iter().map(|&value| value as f64).collect(), None)
        }
        DataType::Decimal128(_, scale) => {
            // A power of ten that is no float costs the last of some 30 digits.
            let power = 10f64.powi(i32::from(*scale));
            let pairs: Vec<Double> = array
                .as_primitive::<Decimal128Type>()
                .values()
                .iter()
                .map(|&value| {
                    let near = value as f64;
                    Double { sum: near, lost: (value - near as i128) as f64 }.divided(power)
                })
                .collect();
            (pairs.iter().map(|pair| pair.sum).collect(), Some(pairs.iter().map(|pair| pair.lost).collect()))
        }
        _ => (floats(array), None),
    }
}

impl Accumulator for Moments {
    fn prepare(&mut self, batch: &RecordBatch, _hashes: &[u64]) -> Result<()> {
        self.columns.clear();
        if self.is_partial {
            let counts = self.input.column(batch, 0, &DataType::Int64)?;
            self.counts = Some(counts.as_primitive::<Int64Type>().values().clone());
            let columns = if self.moment == Moment::Mean { 1..3 } else { 1..5 };
            for offset in columns {
                self.columns.push(floats(&self.input.column(batch, offset, &DataType::Float64)?));
            }
            return Ok(());
        }
        let plain = self.input.plain(batch, 0)?;
        self.mask = self.input.mask(batch, plain.as_ref())?;
        let values = match plain.data_type() {
            DataType::Int64 | DataType::UInt64 | DataType::Decimal128(..) => plain,
            _ => self.input.column(batch, 0, &DataType::Float64)?,
        };
        let (near, lost) = wide_floats(&values);
        self.columns.push(near);
        self.lost = lost;
        Ok(())
    }

    fn update(&mut self, rows: &mut Rows<'_>, select: Selection<'_>, _problems: &mut Problems) -> Result<()> {
        let (columns, mask) = (&self.columns, self.mask.as_ref());
        let pair = |at: usize, record: usize| Double { sum: columns[at][record], lost: columns[at + 1][record] };
        match (&self.counts, self.moment) {
            (Some(counts), Moment::Mean) => rows.each::<3>(self.words, |i, words| {
                let record = select.at(i);
                words[0] = words[0].wrapping_add(counts[record] as u64);
                let sum = Double::from_words([words[1], words[2]]).merge(pair(0, record)).to_words();
                (words[1], words[2]) = (sum[0], sum[1]);
            }),
            (Some(counts), _) => rows.each::<5>(self.words, |i, words| {
                let record = select.at(i);
                let other = Spread { n: counts[record], sum: pair(0, record), squares: pair(2, record) };
                *words = Spread::from_words(*words).merge(other).to_words();
            }),
            (None, Moment::Mean) => {
                let (values, lost): (&[f64], _) = (&columns[0], self.lost.as_deref());
                with_selection!(select, s => rows.each::<3>(self.words, |i, words| {
                    let record = s.at(i);
                    if passes(mask, record) {
                        words[0] += 1;
                        let sum = Double::from_words([words[1], words[2]]);
                        let sum = match lost {
                            None => sum.add(values[record]),
                            Some(lost) => sum.merge(Double { sum: values[record], lost: lost[record] }),
                        };
                        let sum = sum.to_words();
                        (words[1], words[2]) = (sum[0], sum[1]);
                    }
                }));
            }
            (None, _) => {
                let (values, lost): (&[f64], _) = (&columns[0], self.lost.as_deref());
                with_selection!(select, s => rows.each::<5>(self.words, |i, words| {
                    let record = s.at(i);
                    if passes(mask, record) {
                        let value = Double { sum: values[record], lost: lost.map_or(0.0, |lost| lost[record]) };
                        *words = Spread::from_words(*words).add(value).to_words();
                    }
                }));
            }
        }
        Ok(())
    }

    fn finish(&self, rows: &RowsRead<'_>) -> Result<ArrayRef> {
        let mut is_valid = Vec::with_capacity(rows.len());
        let mut values = Vec::with_capacity(rows.len());
        for row in 0..rows.len() {
            let spread = self.of_row(rows, row);
            let least = if self.moment == Moment::Mean { 1 } else { 2 };
            is_valid.push(spread.n >= least);
            values.push(match self.moment {
                _ if spread.n < least => 0.0,
                Moment::Mean => Spread::mean(spread.n, spread.sum),
                Moment::Var => spread.variance(),
                Moment::Std => spread.variance().sqrt(),
            });
        }
        Ok(float_column(values, null_where(is_valid)))
    }

    fn partial(&self, rows: &RowsRead<'_>) -> Result<Vec<ArrayRef>> {
        let counts: ScalarBuffer<i64> = rows.words(self.words).into_iter().map(|word| word as i64).collect();
        let mut columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::new(counts, None))];
        for offset in if self.moment == Moment::Mean { 1..3 } else { 1..5 } {
            let values = rows.words(self.words + offset).into_iter().map(f64::from_bits).collect();
            columns.push(float_column(values, None));
        }
        Ok(columns)
    }

    fn singles(&self) -> Result<Vec<ArrayRef>> {
        let (values, lost, mask) = (&self.columns[0], self.lost.as_deref(), self.mask.as_ref());
        let counts: ScalarBuffer<i64> = (0..values.len()).map(|row| i64::from(passes(mask, row))).collect();
        let sums = (0..values.len()).map(|row| if passes(mask, row) { values[row] } else { 0.0 });
        let losses = (0..values.len()).map(|row| if passes(mask, row) { lost.map_or(0.0, |lost| lost[row]) } else { 0.0 });
        let mut columns: Vec<ArrayRef> =
            vec![Arc::new(Int64Array::new(counts, None)), float_column(sums.collect(), None), float_column(losses.collect(), None)];
        if self.moment != Moment::Mean {
            let zeros = float_column(vec![0.0; values.len()], None);
            columns.extend([Arc::clone(&zeros), zeros]);
        }
        Ok(columns)
    }
}
