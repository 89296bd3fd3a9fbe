//! Sums and means of lists, by the rules of the aggregates: only the total decides whether a sum fits, and sums and means
//! of floats are the floats nearest to the exact ones.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, Float64Array, ListArray, PrimitiveArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type, UInt64Type};
use mill_protocol::{Error, Result};

use super::super::arguments::{as_list, first, mapped, needs};
use super::total::Total;
use crate::compiled::bind::Typed;
use crate::compiled::value::failed;
use crate::compiled::wide::quotient;
use crate::types::type_name;

/// The sum (0 of none) or the mean (null of none); nulls are left out.
pub(super) fn sum(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let is_mean = name == "list.mean";
    let (list, element) = as_list(name, first(args)?)?;
    let wide = match &element {
        t if t.is_unsigned_integer() => DataType::UInt64,
        t if t.is_integer() || matches!(t, DataType::Boolean | DataType::Null) => DataType::Int64,
        t if t.is_floating() => DataType::Float64,
        _ => return Err(needs(name, "a list of numbers", &list)),
    };
    let data_type = if is_mean { DataType::Float64 } else { wide.clone() };
    let kernel = mapped(move |array| {
        let list = array.as_list::<i32>();
        let values = cast(list.values(), &wide).map_err(failed)?;
        match (&wide, is_mean) {
            (DataType::Float64, _) => Ok(of_floats(list, values.as_primitive(), is_mean)),
            (DataType::UInt64, true) => Ok(means::<UInt64Type>(list, values.as_primitive())),
            (DataType::UInt64, false) => sums::<UInt64Type>(list, values.as_primitive()),
            (_, true) => Ok(means::<Int64Type>(list, values.as_primitive())),
            (_, false) => sums::<Int64Type>(list, values.as_primitive()),
        }
    });
    Typed::call(kernel, vec![list], data_type, text)
}

/// The elements of a list that are not null.
fn elements<'a, T: ArrowPrimitiveType>(pair: &[i32], values: &'a PrimitiveArray<T>) -> impl Iterator<Item = T::Native> + 'a {
    let range = pair[0] as usize..pair[1] as usize;
    range.filter(move |&at| values.is_valid(at)).map(move |at| values.value(at))
}

fn sums<T: ArrowPrimitiveType>(list: &ListArray, values: &PrimitiveArray<T>) -> Result<ArrayRef>
where
    T::Native: Into<i128> + TryFrom<i128>,
{
    let mut result = Vec::with_capacity(list.len());
    for (row, pair) in list.value_offsets().windows(2).enumerate() {
        let total: i128 = if list.is_valid(row) { elements(pair, values).map(Into::<i128>::into).sum() } else { 0 };
        result.push(T::Native::try_from(total).map_err(|_| {
            Error::data(format!(
                "integer overflow: the sum of a list is {total}, which does not fit in {}; cast the list first, as in \
                 .cast(list[float])",
                type_name(&T::DATA_TYPE)
            ))
        })?);
    }
    Ok(Arc::new(PrimitiveArray::<T>::new(result.into(), list.nulls().cloned())))
}

fn means<T: ArrowPrimitiveType>(list: &ListArray, values: &PrimitiveArray<T>) -> ArrayRef
where
    T::Native: Into<i128>,
{
    let mean = |pair: &[i32]| {
        let add = |(total, count): (i128, i128), x: T::Native| (total + Into::<i128>::into(x), count + 1);
        let (total, count) = elements(pair, values).fold((0, 0), add);
        (count > 0).then(|| quotient(total, count))
    };
    each(list, mean)
}

fn of_floats(list: &ListArray, values: &Float64Array, is_mean: bool) -> ArrayRef {
    let mut total = Total::default();
    each(list, |pair| {
        total.clear();
        let mut count = 0;
        for x in elements::<Float64Type>(pair, values) {
            total.add(x);
            count += 1;
        }
        match is_mean {
            true => (count > 0).then(|| total.over(count)),
            false => Some(total.over(1)),
        }
    })
}

/// One number a list; null for a list that is null.
fn each(list: &ListArray, mut f: impl FnMut(&[i32]) -> Option<f64>) -> ArrayRef {
    let rows = list.value_offsets().windows(2).enumerate();
    let result: Float64Array = rows.map(|(row, pair)| if list.is_valid(row) { f(pair) } else { None }).collect();
    Arc::new(result)
}
