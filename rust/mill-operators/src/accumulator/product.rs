//! Products.
//!
//! That of integers is a size, and signs and zeros beside it: sizes other than 0 only grow, so whether a product fits does not
//! depend on the order of its factors. That of floats has its digits in twice the precision of a float, between 1 and 2, and
//! its exponent apart: nothing is too large or too small on the way, and the order of the factors does not show but in
//! rounding of more than 30 digits.
//!
//! ```text
//!   integers   size u64 | seen u64                        seen: which kinds of factors there were
//!   floats     digits f64, lost f64 | exponent i64 | seen u64
//! ```

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, UInt64Array};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{DataType, Float64Type, Int64Type, UInt64Type};
use mill_protocol::Result;
use mill_state::{LayoutBuilder, Rows, RowsRead, Select};

use super::carries::Unfit;
use super::input::{Input, passes};
use super::number::overflow;
use super::{Accumulator, Problems, Selection};

/// A factor that was neither zero nor infinite nor NaN.
const USUAL: u64 = 1;
/// An odd number of negative factors.
const NEGATIVE: u64 = 2;
const ZERO: u64 = 4;
/// The size has more than 64 bits.
const TOO_LARGE: u64 = 8;
const INFINITE: u64 = 16;
const NAN: u64 = 32;

pub(super) struct Product {
    input: Input,
    name: String,
    output: DataType,
    word: usize,
    values: Option<ArrayRef>,
    mask: Option<BooleanBuffer>,
}

impl Product {
    pub(super) fn new(input: Input, name: String, output: &DataType, layout: &mut LayoutBuilder) -> Product {
        let word = layout.words(if *output == DataType::Float64 { 4 } else { 2 });
        Product { input, name, output: output.clone(), word, values: None, mask: None }
    }

    /// Takes sizes and signs of integers into their rows.
    fn multiply(&self, rows: &mut Rows<'_>, select: Selection<'_>, factor: impl Fn(usize) -> (u64, bool)) {
        let mask = self.mask.as_ref();
        rows.each::<2>(self.word, |i, words| {
            let record = select.at(i);
            if !passes(mask, record) {
                return;
            }
            let ([size, seen], (factor, is_negative)) = (*words, factor(record));
            let sign = if is_negative { NEGATIVE } else { 0 };
            *words = match (factor, seen & USUAL) {
                (0, _) => [size, seen | ZERO],
                (_, 0) => [factor, (seen | USUAL) ^ sign],
                _ => match size.checked_mul(factor) {
                    Some(product) => [product, seen ^ sign],
                    None => [size, (seen | TOO_LARGE) ^ sign],
                },
            };
        });
    }

    /// The product of integers in a row; `Err` with what it is, if that is known, where it does not fit.
    fn whole(&self, rows: &RowsRead<'_>, row: usize) -> std::result::Result<Option<i128>, Option<String>> {
        let (size, seen) = (rows.word(row, self.word), rows.word(row, self.word + 1));
        if seen & ZERO != 0 || seen == 0 {
            return Ok((seen != 0).then_some(0));
        }
        if seen & TOO_LARGE != 0 {
            return Err(None);
        }
        let product = if seen & NEGATIVE != 0 { -i128::from(size) } else { i128::from(size) };
        let fits = if self.output == DataType::UInt64 { u64::try_from(product).is_ok() } else { i64::try_from(product).is_ok() };
        if fits { Ok(Some(product)) } else { Err(Some(product.to_string())) }
    }

    fn column(&self, products: Vec<Option<i128>>) -> ArrayRef {
        match self.output {
            DataType::UInt64 => Arc::new(products.into_iter().map(|value| value.map(|value| value as u64)).collect::<UInt64Array>()),
            _ => Arc::new(products.into_iter().map(|value| value.map(|value| value as i64)).collect::<Int64Array>()),
        }
    }

    fn float(&self, rows: &RowsRead<'_>, row: usize) -> Option<f64> {
        let word = |at: usize| rows.word(row, self.word + at);
        let seen = word(3);
        let sign = if seen & NEGATIVE != 0 { -1.0 } else { 1.0 };
        let size = match seen {
            0 => return None,
            _ if seen & NAN != 0 || seen & ZERO != 0 && seen & INFINITE != 0 => return Some(f64::NAN),
            _ if seen & ZERO != 0 => 0.0,
            _ if seen & INFINITE != 0 => f64::INFINITY,
            _ => scaled(f64::from_bits(word(0)), f64::from_bits(word(1)), word(2) as i64),
        };
        Some(sign * size)
    }
}

/// A size of 1 to 2, and the power of two that it is to be multiplied with; of a number that is neither zero nor infinite.
fn split(size: f64) -> (f64, i64) {
    const FRACTION: u64 = (1 << 52) - 1;
    const BIAS: i64 = 1023;
    let exponent = |bits: u64| (bits >> 52) as i64 - BIAS;
    let bits = size.to_bits();
    match bits >> 52 {
        // Less than the least normal number.
        0 => {
            let (digits, power) = split(size * 2f64.powi(64));
            (digits, power - 64)
        }
        _ => (f64::from_bits(bits & FRACTION | (BIAS as u64) << 52), exponent(bits)),
    }
}

/// The number with these digits, rounded once.
fn scaled(digits: f64, lost: f64, exponent: i64) -> f64 {
    let digits = digits + lost;
    match exponent {
        ..-1100 => 0.0,
        1100.. => f64::INFINITY,
        // The step into the subnormal numbers is the last, and the only one that rounds.
        ..-1000 => digits * 2f64.powi(exponent as i32 + 100) * 2f64.powi(-100),
        1000.. => digits * 2f64.powi(exponent as i32 - 100) * 2f64.powi(100),
        _ => digits * 2f64.powi(exponent as i32),
    }
}

/// A product in twice the precision, brought back to 1 to 2.
fn times([digits, lost, exponent]: [u64; 3], factor: f64) -> [u64; 3] {
    let (a, rest, power) = (f64::from_bits(digits), f64::from_bits(lost), exponent as i64);
    let (b, more) = split(factor.abs());
    let near = a * b;
    let error = a.mul_add(b, -near) + rest * b;
    let (sum, half) = (near + error, if near + error >= 2.0 { 0.5 } else { 1.0 });
    let left = error - (sum - near);
    [(sum * half).to_bits(), (left * half).to_bits(), (power + more + i64::from(half == 0.5)) as u64]
}

impl Accumulator for Product {
    fn prepare(&mut self, batch: &RecordBatch, _hashes: &[u64]) -> Result<()> {
        let values = self.input.column(batch, 0, &self.output)?;
        self.mask = self.input.mask(batch, values.as_ref())?;
        self.values = Some(values);
        Ok(())
    }

    fn update(&mut self, rows: &mut Rows<'_>, select: Selection<'_>, _problems: &mut Problems) -> Result<()> {
        let values = self.values.as_ref().expect("prepared");
        match self.output {
            DataType::UInt64 => {
                let values = values.as_primitive::<UInt64Type>().values();
                self.multiply(rows, select, |record| (values[record], false));
            }
            DataType::Int64 => {
                let values = values.as_primitive::<Int64Type>().values();
                self.multiply(rows, select, |record| (values[record].unsigned_abs(), values[record] < 0));
            }
            _ => {
                let (values, mask) = (values.as_primitive::<Float64Type>().values(), self.mask.as_ref());
                rows.each::<4>(self.word, |i, words| {
                    let record = select.at(i);
                    if !passes(mask, record) {
                        return;
                    }
                    let [digits, lost, exponent, seen] = *words;
                    let factor = values[record];
                    let sign = if factor.is_sign_negative() { NEGATIVE } else { 0 };
                    let (number, kind) = match factor {
                        _ if factor.is_nan() => ([digits, lost, exponent], NAN),
                        _ if factor.is_infinite() => ([digits, lost, exponent], INFINITE),
                        0.0 => ([digits, lost, exponent], ZERO),
                        _ if seen & USUAL == 0 => (times([1f64.to_bits(), 0, 0], factor), USUAL),
                        _ => (times([digits, lost, exponent], factor), USUAL),
                    };
                    *words = [number[0], number[1], number[2], (seen | kind) ^ sign];
                });
            }
        }
        Ok(())
    }

    fn finish_fitting(&self, rows: &RowsRead<'_>) -> Result<(ArrayRef, Unfit)> {
        if self.output == DataType::Float64 {
            return Ok((self.finish(rows)?, Unfit::new()));
        }
        let mut unfit = Unfit::new();
        let products = (0..rows.len()).map(|row| {
            self.whole(rows, row).unwrap_or_else(|total| {
                unfit.push((row, overflow("product", &self.name, &self.output, total)));
                None
            })
        });
        Ok((self.column(products.collect()), unfit))
    }

    fn finish(&self, rows: &RowsRead<'_>) -> Result<ArrayRef> {
        if self.output == DataType::Float64 {
            return Ok(Arc::new((0..rows.len()).map(|row| self.float(rows, row)).collect::<Float64Array>()));
        }
        let product = |row| self.whole(rows, row).map_err(|total| overflow("product", &self.name, &self.output, total));
        Ok(self.column((0..rows.len()).map(product).collect::<Result<_>>()?))
    }
}
