//! Lists as sets: `unique`, `set_union`, `set_intersection`, `set_difference`.
//!
//! Elements are compared as keys are: nulls are one, all NaN are one, and `-0.0` is `0.0`. Those that stay are the first
//! of their kind, as they are and in their order.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, UInt32Array};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::{concat, take};
use arrow::datatypes::DataType;
use arrow::row::{Row, RowConverter, Rows, SortField};
use mill_frame::types::canonical_array;
use mill_protocol::{Error, Result};

use super::super::arguments::{as_list, first, mapped, zipped};
use crate::compiled::bind::Typed;
use crate::compiled::value::failed;

pub(super) fn unique(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let (list, _) = as_list(name, first(args)?)?;
    let data_type = list.data_type.clone();
    let kernel = mapped(|array| {
        let list = array.as_list::<i32>();
        let keys = keys(list.values())?;
        let mut seen = HashSet::new();
        picked(list.data_type(), list.values(), list.nulls().cloned(), list.len(), |row, places| {
            seen.clear();
            places.extend(range(list, row).filter(|&at| seen.insert(keys.row(at))));
        })
    });
    Typed::call(kernel, vec![list], data_type, text)
}

/// A set operation of two lists; null where one of them is.
pub(super) fn set(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let mut args = args.into_iter();
    let (Some(left), Some(right)) = (args.next(), args.next()) else {
        return Err(Error::internal("a set operation without arguments"));
    };
    let ((left, a), (right, b)) = (as_list(name, left)?, as_list(name, right)?);
    let Some(met) = crate::types::supertype(&a, &b) else {
        return Err(Error::schema(format!("{name}() takes lists of one type, found {} and {}", left.describe(), right.describe())));
    };
    let data_type = DataType::new_list(met, true);
    let (is_union, is_intersection) = (name == "list.set_union", name == "list.set_intersection");
    let kernel = zipped(move |arrays| {
        let (l, r) = (arrays[0].as_list::<i32>(), arrays[1].as_list::<i32>());
        // The elements of both, those of the right list after all of the left.
        let start = l.values().len();
        let values = concat(&[l.values().as_ref(), r.values().as_ref()]).map_err(failed)?;
        let keys = keys(&values)?;
        let nulls = NullBuffer::union(l.nulls(), r.nulls());
        let (mut seen, mut others) = (HashSet::new(), HashSet::new());
        picked(l.data_type(), &values, nulls, l.len(), |row, places| {
            let right = range(r, row).map(|at| start + at);
            seen.clear();
            if is_union {
                places.extend(range(l, row).chain(right).filter(|&at| seen.insert(keys.row(at))));
                return;
            }
            others.clear();
            others.extend(right.map(|at| keys.row(at)));
            let stays = |key: Row<'_>| others.contains(&key) == is_intersection;
            places.extend(range(l, row).filter(|&at| stays(keys.row(at)) && seen.insert(keys.row(at))));
        })
    });
    Typed::call(kernel, vec![left.coerce(&data_type)?, right.coerce(&data_type)?], data_type, text)
}

/// What elements are compared by.
fn keys(values: &ArrayRef) -> Result<Rows> {
    let canonical = canonical_array(values).map_err(|error| Error::data(error.to_string()))?;
    let converter = RowConverter::new(vec![SortField::new(canonical.data_type().clone())]).map_err(failed)?;
    converter.convert_columns(&[canonical]).map_err(failed)
}

/// Where the elements of a list are.
fn range(list: &ListArray, row: usize) -> std::ops::Range<usize> {
    let offsets = list.value_offsets();
    offsets[row] as usize..offsets[row + 1] as usize
}

/// Lists of the elements at the places that `pick` adds for each row.
fn picked(
    data_type: &DataType,
    values: &ArrayRef,
    nulls: Option<NullBuffer>,
    rows: usize,
    mut pick: impl FnMut(usize, &mut Vec<usize>),
) -> Result<ArrayRef> {
    let mut places = Vec::new();
    let mut offsets: Vec<i32> = Vec::with_capacity(rows + 1);
    offsets.push(0);
    for row in 0..rows {
        if nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row)) {
            pick(row, &mut places);
        }
        offsets.push(i32::try_from(places.len()).map_err(|_| Error::data("lists of a frame have too many elements"))?);
    }
    let places: UInt32Array = places.into_iter().map(|at| at as u32).collect();
    let values = take(values, &places, None).map_err(failed)?;
    let DataType::List(field) = data_type else { return Err(Error::internal("a list that is none")) };
    let result = ListArray::try_new(Arc::clone(field), OffsetBuffer::new(offsets.into()), values, nulls);
    Ok(Arc::new(result.map_err(failed)?))
}
