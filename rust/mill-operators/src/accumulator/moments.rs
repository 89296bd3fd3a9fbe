//! Mean, standard deviation, variance.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::buffer::{BooleanBuffer, ScalarBuffer};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Int64Type, UInt64Type};
use mill_protocol::{Error, Result};
use mill_state::{LayoutBuilder, Rows, RowsRead, Select};

use super::carries::{Unfit, Wraps};
use super::double::Double;
use super::input::{Input, passes};
use super::number::{float_column, floats, null_where, overflow};
use super::spread::Spread;
use super::{Accumulator, Problems, Selection, with_selection};

/// What is made of number, sum and spread.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    Mean,
    Var,
    Std,
}

/// Mean, variance and standard deviation: words are n, the sum (2), the squared distances from the mean (2, not for the
/// mean). Those of durations and points in time are rounded to their unit.
pub(super) struct Moments {
    input: Input,
    name: String,
    output: DataType,
    is_partial: bool,
    moment: Moment,
    words: usize,
    /// The values, or sums of partial results, and what follows them.
    columns: Vec<ScalarBuffer<f64>>,
    /// What floats do not hold of the values, where that is anything.
    lost: Option<ScalarBuffer<f64>>,
    counts: Option<ScalarBuffer<i64>>,
    mask: Option<BooleanBuffer>,
    /// Where the sum of a mean wraps around.
    wraps: Wraps,
}

impl Moments {
    pub(super) fn new(
        input: Input,
        name: String,
        output: &DataType,
        is_partial: bool,
        moment: Moment,
        is_ahead: bool,
        layout: &mut LayoutBuilder,
    ) -> Moments {
        let wraps = Wraps::new(is_ahead);
        let words = layout.words(if moment == Moment::Mean { 3 } else { 5 });
        let output = output.clone();
        Moments { input, name, output, is_partial, moment, words, columns: Vec::new(), lost: None, counts: None, mask: None, wraps }
    }

    /// The partial result of each value of the frame by itself, of a variance.
    fn spreads(&self) -> Vec<ArrayRef> {
        let (values, lost, mask) = (&self.columns[0], self.lost.as_deref(), self.mask.as_ref());
        let mut columns: [Vec<u64>; 5] = std::array::from_fn(|_| Vec::with_capacity(values.len()));
        for (row, &sum) in values.iter().enumerate() {
            let value = Double { sum, lost: lost.map_or(0.0, |lost| lost[row]) };
            let words = if passes(mask, row) { Spread::of(value).to_words() } else { [0; 5] };
            columns.iter_mut().zip(words).for_each(|(column, word)| column.push(word));
        }
        let [counts, rest @ ..] = columns;
        let counts: ScalarBuffer<i64> = counts.into_iter().map(|word| word as i64).collect();
        let counts: ArrayRef = Arc::new(Int64Array::new(counts, None));
        let floats = |words: Vec<u64>| float_column(words.into_iter().map(f64::from_bits).collect(), None);
        std::iter::once(counts).chain(rest.into_iter().map(floats)).collect()
    }

    /// The result of durations and points in time, a whole number of their unit.
    fn unit(&self, rows: &RowsRead<'_>, row: usize) -> Option<i128> {
        let spread = self.of_row(rows, row);
        match self.moment {
            Moment::Mean => (spread.n > 0).then(|| spread.sum.whole_mean(spread.n)),
            _ => (spread.n > 1).then(|| Double::of(spread.deviation()).nearest(0)),
        }
    }

    fn finish_units(&self, rows: &RowsRead<'_>) -> Result<ArrayRef> {
        as_units((0..rows.len()).map(|row| self.unit(rows, row)), &self.output)
    }

    fn of_row(&self, rows: &RowsRead<'_>, row: usize) -> Spread {
        let word = |offset: usize| rows.word(row, self.words + offset);
        let squares = if self.moment == Moment::Mean { [0, 0] } else { [word(3), word(4)] };
        Spread::from_words([word(0), word(1), word(2), squares[0], squares[1]])
    }
}

/// Whole numbers of a unit as durations or points in time.
pub(super) fn as_units(units: impl Iterator<Item = Option<i128>>, output: &DataType) -> Result<ArrayRef> {
    let fits = |units: i128| {
        let misfit = |e| Error::data(format!("a result is {units} units, too many for {}", mill_plan::type_name(output))).because(e);
        i64::try_from(units).map_err(misfit)
    };
    let units = units.map(|units| units.map(fits).transpose()).collect::<Result<Int64Array>>()?;
    cast(&units, output).map_err(|e| Error::internal("a time is a number of units").because(e))
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
            let power = 10f64.powi(i32::from(scale.unsigned_abs()));
            let is_whole = *scale < 0;
            let pairs: Vec<Double> = array
                .as_primitive::<Decimal128Type>()
                .values()
                .iter()
                .map(|&value| {
                    let number = Double::of_whole(value);
                    if is_whole { number.scaled(power) } else { number.divided(power) }
                })
                .collect();
            (pairs.iter().map(|pair| pair.sum).collect(), Some(pairs.iter().map(|pair| pair.lost).collect()))
        }
        _ => (floats(array), None),
    }
}

/// Adds values to number and sum of a mean.
#[inline(always)]
fn add(
    words: &mut [u64; 3],
    count: u64,
    record: usize,
    wraps: &mut Wraps,
    add: impl Fn(Double) -> Double,
    value: impl Fn() -> Double,
) {
    let own = Double::from_words([words[1], words[2]]);
    let mut sum = add(own);
    if !sum.sum.is_finite() {
        let (wrapped, times) = own.wrapped(value());
        if times != 0 && !wraps.note(record, times) {
            return;
        }
        sum = wrapped;
    }
    let sum = sum.to_words();
    *words = [words[0].wrapping_add(count), sum[0], sum[1]];
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
            DataType::Duration(_) | DataType::Timestamp(..) => self.input.column(batch, 0, &DataType::Int64)?,
            _ => self.input.column(batch, 0, &DataType::Float64)?,
        };
        let (near, lost) = wide_floats(&values);
        self.columns.push(near);
        self.lost = lost;
        Ok(())
    }

    fn update(&mut self, rows: &mut Rows<'_>, select: Selection<'_>, _problems: &mut Problems) -> Result<()> {
        let (columns, mask, wraps) = (&self.columns, self.mask.as_ref(), &mut self.wraps);
        let pair = |at: usize, record: usize| Double { sum: columns[at][record], lost: columns[at + 1][record] };
        match (&self.counts, self.moment) {
            (Some(counts), Moment::Mean) => rows.each::<3>(self.words, |i, words| {
                let record = select.at(i);
                add(words, counts[record] as u64, record, wraps, |sum| sum.merge(pair(0, record)), || pair(0, record));
            }),
            (Some(counts), _) => rows.each::<5>(self.words, |i, words| {
                let record = select.at(i);
                let (sum, squares) = (pair(0, record).to_words(), pair(2, record).to_words());
                let other = Spread::from_words([counts[record] as u64, sum[0], sum[1], squares[0], squares[1]]);
                *words = Spread::from_words(*words).merge(other).to_words();
            }),
            (None, Moment::Mean) => {
                let (values, lost): (&[f64], _) = (&columns[0], self.lost.as_deref());
                with_selection!(select, s => rows.each::<3>(self.words, |i, words| {
                    let record = s.at(i);
                    if passes(mask, record) {
                        let value = || Double { sum: values[record], lost: lost.map_or(0.0, |lost| lost[record]) };
                        match lost {
                            None => add(words, 1, record, wraps, |sum| sum.add(values[record]), value),
                            Some(_) => add(words, 1, record, wraps, |sum| sum.merge(value()), value),
                        }
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
        if self.output != DataType::Float64 {
            return self.finish_units(rows);
        }
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
                Moment::Std => spread.deviation(),
            });
        }
        Ok(float_column(values, null_where(is_valid)))
    }

    /// The standard deviation of two durations can be longer than any duration.
    fn finish_fitting(&self, rows: &RowsRead<'_>) -> Result<(ArrayRef, Unfit)> {
        if self.output == DataType::Float64 || self.moment == Moment::Mean {
            return Ok((self.finish(rows)?, Unfit::new()));
        }
        let mut unfit = Unfit::new();
        let mut units = Vec::with_capacity(rows.len());
        for row in 0..rows.len() {
            let unit = self.unit(rows, row);
            let is_fit = unit.is_none_or(|unit| i64::try_from(unit).is_ok());
            if !is_fit {
                unfit.push((row, overflow("standard deviation", &self.name, &self.output, unit.map(|unit| unit.to_string()))));
            }
            units.push(unit.filter(|_| is_fit));
        }
        Ok((as_units(units.into_iter(), &self.output)?, unfit))
    }

    fn wraps(&mut self) -> Option<&mut Wraps> {
        (self.moment == Moment::Mean).then_some(&mut self.wraps)
    }

    fn finish_carried(&self, rows: &RowsRead<'_>, carries: &[i64]) -> Result<(ArrayRef, Unfit)> {
        if self.output != DataType::Float64 {
            // Sums of numbers of 64 bits are far from the largest float.
            return Ok((self.finish_units(rows)?, Unfit::new()));
        }
        let mut is_valid = Vec::with_capacity(rows.len());
        let mut values = Vec::with_capacity(rows.len());
        for row in 0..rows.len() {
            let Spread { n, sum, .. } = self.of_row(rows, row);
            is_valid.push(n > 0);
            values.push(match carries[row] {
                _ if n == 0 => 0.0,
                0 => Spread::mean(n, sum),
                times => Spread::mean(n, sum.unwrapped(times)) * Double::UNWRAPPED,
            });
        }
        Ok((float_column(values, null_where(is_valid)), Unfit::new()))
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
        if self.moment != Moment::Mean {
            return Ok(self.spreads());
        }
        let counts: ScalarBuffer<i64> = (0..values.len()).map(|row| i64::from(passes(mask, row))).collect();
        let sums = (0..values.len()).map(|row| if passes(mask, row) { values[row] } else { 0.0 });
        let losses = (0..values.len()).map(|row| if passes(mask, row) { lost.map_or(0.0, |lost| lost[row]) } else { 0.0 });
        let counts: ArrayRef = Arc::new(Int64Array::new(counts, None));
        Ok(vec![counts, float_column(sums.collect(), None), float_column(losses.collect(), None)])
    }
}
