//! Exact quantiles: the cell holds the values, in the order they came.
//!
//! Floats and integers have 8 bytes each, decimals their digits in 16. Numbers that are not floats are put in order and
//! interpolated as what they are, in twice the precision of a float; the result is rounded, that of durations and points in
//! time to their unit.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, RecordBatch};
use arrow::buffer::{BooleanBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type, UInt64Type};
use mill_plan::AggregateSpec;
use mill_protocol::Result;
use mill_state::{LayoutBuilder, Rows, RowsRead, Select};

use super::double::Double;
use super::input::{Input, passes};
use super::moments::as_units;
use super::{Accumulator, Problems, Selection};

/// The values of a frame.
enum Values {
    Floats(ScalarBuffer<f64>),
    Signed(ScalarBuffer<i64>),
    Unsigned(ScalarBuffer<u64>),
    Digits(ScalarBuffer<i128>),
}

/// The quantile of these values.
pub(super) struct Quantile {
    input: Input,
    at: f64,
    data_type: DataType,
    output: DataType,
    cell: usize,
    values: Option<Values>,
    mask: Option<BooleanBuffer>,
}

impl Quantile {
    pub(super) fn new(input: Input, at: f64, spec: &AggregateSpec, layout: &mut LayoutBuilder) -> Quantile {
        let data_type = match spec.input_type.as_ref() {
            Some(DataType::Duration(_) | DataType::Timestamp(..)) => DataType::Int64,
            Some(exact @ (DataType::Int64 | DataType::UInt64 | DataType::Decimal128(..))) => exact.clone(),
            _ => DataType::Float64,
        };
        Quantile { input, at, data_type, output: spec.output_type.clone(), cell: layout.cell(), values: None, mask: None }
    }
}

/// The lower neighbour of a quantile of so many values, and how far it is on the way to the next one.
fn place(count: usize, at: f64) -> Option<(usize, f64)> {
    let place = at.clamp(0.0, 1.0) * count.checked_sub(1)? as f64;
    Some((place.floor() as usize, place - place.floor()))
}

/// The quantile of floats, with linear interpolation between neighbours; NaN sorts last.
fn of_floats(values: &mut [f64], at: f64) -> Option<f64> {
    let (low, fraction) = place(values.len(), at)?;
    let order = |a: &f64, b: &f64| a.partial_cmp(b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()));
    let (_, &mut below, rest) = values.select_nth_unstable_by(low, order);
    if fraction == 0.0 {
        return Some(below);
    }
    let above = rest.iter().copied().min_by(order)?;
    Some(match (below, above) {
        _ if below == above => below,
        _ if below.is_nan() || above.is_nan() => f64::NAN,
        _ if below.is_finite() != above.is_finite() => if below.is_finite() { above } else { below },
        _ if !below.is_finite() => f64::NAN,
        _ => {
            // The difference of two floats may be beyond the largest, that of their halves is not.
            let scale = if (above - below).is_finite() { 1.0 } else { 0.5 };
            let (low, high) = (Double::of(below * scale), Double::of(above * scale));
            low.merge(high.minus(low).scaled(fraction)).total() / scale
        }
    })
}

/// The lower neighbour of the quantile of whole numbers, and how far above it the quantile is by linear interpolation.
fn between(values: &mut [i128], at: f64) -> Option<(i128, Double)> {
    let (low, fraction) = place(values.len(), at)?;
    let (_, &mut below, rest) = values.select_nth_unstable(low);
    let above = rest.iter().copied().min().filter(|_| fraction > 0.0).unwrap_or(below);
    // The distance of two decimals may be more than an i128 holds.
    let distance = above.abs_diff(below);
    let near = distance as f64;
    let distance = Double { sum: near, lost: distance.wrapping_sub(near as u128) as i128 as f64 };
    Some((below, distance.scaled(fraction)))
}

/// The quantile of whole numbers, to the nearest.
fn of_units(values: &mut [i128], at: f64) -> Option<i128> {
    let (below, distance) = between(values, at)?;
    Some(distance.nearest(below))
}

/// The quantile of numbers with so many decimal places.
fn of_digits(values: &mut [i128], at: f64, places: i8) -> Option<f64> {
    let (below, distance) = between(values, at)?;
    let number = Double::of_whole(below).merge(distance);
    let power = 10f64.powi(i32::from(places.unsigned_abs()));
    Some(match places {
        0 => number.total(),
        1.. => number.divided(power).total(),
        _ => number.scaled(power).total(),
    })
}

/// Appends the bytes of values to the cells of their rows.
fn append<const N: usize>(
    rows: &mut Rows<'_>,
    cell: usize,
    select: Selection<'_>,
    mask: Option<&BooleanBuffer>,
    bytes: impl Fn(usize) -> [u8; N],
) {
    for i in 0..select.len() {
        let record = select.at(i);
        if passes(mask, record) {
            rows.cell_mut(i, cell).extend_from_slice(&bytes(record));
        }
    }
}

/// Reads the values of a cell.
fn read<const N: usize, T>(bytes: &[u8], values: &mut Vec<T>, value: impl Fn([u8; N]) -> T) {
    values.clear();
    values.extend(bytes.as_chunks::<N>().0.iter().map(|bytes| value(*bytes)));
}

impl Accumulator for Quantile {
    fn prepare(&mut self, batch: &RecordBatch, _hashes: &[u64]) -> Result<()> {
        let values = self.input.column(batch, 0, &self.data_type)?;
        self.mask = self.input.mask(batch, values.as_ref())?;
        self.values = Some(match self.data_type {
            DataType::Int64 => Values::Signed(values.as_primitive::<Int64Type>().values().clone()),
            DataType::UInt64 => Values::Unsigned(values.as_primitive::<UInt64Type>().values().clone()),
            DataType::Decimal128(..) => Values::Digits(values.as_primitive::<Decimal128Type>().values().clone()),
            _ => Values::Floats(values.as_primitive::<Float64Type>().values().clone()),
        });
        Ok(())
    }

    fn update(&mut self, rows: &mut Rows<'_>, select: Selection<'_>, _problems: &mut Problems) -> Result<()> {
        let (cell, mask) = (self.cell, self.mask.as_ref());
        match self.values.as_ref().expect("prepared") {
            Values::Floats(values) => append(rows, cell, select, mask, |record| values[record].to_le_bytes()),
            Values::Signed(values) => append(rows, cell, select, mask, |record| values[record].to_le_bytes()),
            Values::Unsigned(values) => append(rows, cell, select, mask, |record| values[record].to_le_bytes()),
            Values::Digits(values) => append(rows, cell, select, mask, |record| values[record].to_le_bytes()),
        }
        Ok(())
    }

    fn finish(&self, rows: &RowsRead<'_>) -> Result<ArrayRef> {
        let (mut floats, mut digits) = (Vec::new(), Vec::new());
        if self.output != DataType::Float64 {
            let units = (0..rows.len()).map(|row| {
                let bytes = rows.cell(row, self.cell).unwrap_or_default();
                read(bytes, &mut digits, |value| i128::from(i64::from_le_bytes(value)));
                of_units(&mut digits, self.at)
            });
            return as_units(units, &self.output);
        }
        let of_row = |row| {
            let bytes = rows.cell(row, self.cell).unwrap_or_default();
            match self.data_type {
                DataType::Int64 => read(bytes, &mut digits, |value| i128::from(i64::from_le_bytes(value))),
                DataType::UInt64 => read(bytes, &mut digits, |value| i128::from(u64::from_le_bytes(value))),
                DataType::Decimal128(_, places) => {
                    read(bytes, &mut digits, i128::from_le_bytes);
                    return of_digits(&mut digits, self.at, places);
                }
                _ => {
                    read(bytes, &mut floats, f64::from_le_bytes);
                    return of_floats(&mut floats, self.at);
                }
            }
            of_digits(&mut digits, self.at, 0)
        };
        Ok(Arc::new((0..rows.len()).map(of_row).collect::<Float64Array>()))
    }
}
