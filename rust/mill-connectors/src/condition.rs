//! Conditions that are pushed down to a source, evaluated column by column.
//!
//! Order is the engine's: NaN is greater than all other numbers, -0.0 equals 0.0. The bounds of a block of values, as file
//! formats store them, leave NaN out, so the upper bound of a float column does not exclude greater values.

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, Scalar};
use arrow::buffer::BooleanBuffer;
use arrow::compute::kernels::cmp;
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use arrow::error::ArrowError;
use mill_protocol::{Comparison, Condition};

/// Which values of a column, which is of the type of the condition's value, meet it.
pub(crate) fn meets(condition: &Condition, column: &ArrayRef) -> Result<BooleanArray, ArrowError> {
    match column.data_type() {
        DataType::Float64 => Ok(floats::<Float64Type>(condition, column)),
        DataType::Float32 => Ok(floats::<Float32Type>(condition, column)),
        _ => {
            let value = Scalar::new(ArrayRef::clone(&condition.value));
            match condition.comparison {
                Comparison::Eq => cmp::eq(column, &value),
                Comparison::Lt => cmp::lt(column, &value),
                Comparison::LtEq => cmp::lt_eq(column, &value),
                Comparison::Gt => cmp::gt(column, &value),
                Comparison::GtEq => cmp::gt_eq(column, &value),
            }
        }
    }
}

#[allow(clippy::eq_op, reason = "a value that differs from itself is NaN")]
fn floats<T: ArrowPrimitiveType>(condition: &Condition, column: &ArrayRef) -> BooleanArray
where
    T::Native: PartialOrd,
{
    let column = column.as_primitive::<T>();
    let (values, bound) = (column.values(), condition.value.as_primitive::<T>().value(0));
    let collect = |f: &dyn Fn(T::Native) -> bool| BooleanBuffer::collect_bool(values.len(), |i| f(values[i]));
    let found = match condition.comparison {
        Comparison::Eq => collect(&|value| value == bound),
        Comparison::Lt => collect(&|value| value < bound),
        Comparison::LtEq => collect(&|value| value <= bound),
        Comparison::Gt => collect(&|value| value > bound || value != value),
        Comparison::GtEq => collect(&|value| value >= bound || value != value),
    };
    BooleanArray::new(found, column.nulls().cloned())
}

/// Which blocks, of which the least and the greatest value are known, may have values that meet the condition; null where
/// that is not known.
pub(crate) fn may_meet(condition: &Condition, least: &ArrayRef, greatest: &ArrayRef) -> Result<BooleanArray, ArrowError> {
    let holds = |comparison, values: &ArrayRef| meets(&Condition { comparison, ..condition.clone() }, values);
    let is_float = least.data_type().is_floating();
    Ok(match condition.comparison {
        Comparison::Lt | Comparison::LtEq if !is_float => holds(condition.comparison, least)?,
        Comparison::Gt | Comparison::GtEq if !is_float => holds(condition.comparison, greatest)?,
        Comparison::Lt | Comparison::LtEq => known(&holds(condition.comparison, least)?, least),
        Comparison::Gt | Comparison::GtEq => BooleanArray::new_null(least.len()),
        Comparison::Eq => {
            let both = arrow::compute::and(&holds(Comparison::LtEq, least)?, &holds(Comparison::GtEq, greatest)?)?;
            if is_float { known(&known(&both, least), greatest) } else { both }
        }
    })
}

/// The same, null where the bound is NaN: some writers took it for one.
fn known(found: &BooleanArray, bounds: &ArrayRef) -> BooleanArray {
    let is_nan = |row: usize| match bounds.data_type() {
        DataType::Float32 => bounds.as_primitive::<Float32Type>().value(row).is_nan(),
        _ => bounds.as_primitive::<Float64Type>().value(row).is_nan(),
    };
    found.iter().enumerate().map(|(row, found)| found.filter(|_| !is_nan(row))).collect()
}

#[cfg(test)]
mod tests;
