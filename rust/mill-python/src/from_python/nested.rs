//! Lists, maps and structs as columns, their parts filled like columns of their own.

use std::sync::Arc;

use arrow::array::{ArrayRef, ListArray, MapArray, StructArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, SchemaRef};
use arrow::error::ArrowError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};

use super::rows::gather;
use super::values::nulls;
use super::{Fit, Misfit, misfit, values_to_array};

pub(super) fn lists(values: &[Bound<'_, PyAny>], field: &Field, item: &Arc<Field>) -> Fit<ArrayRef> {
    let mut offsets: Vec<i32> = Vec::with_capacity(values.len() + 1);
    offsets.push(0);
    let mut validity: Vec<bool> = Vec::with_capacity(values.len());
    let mut flat: Vec<Bound<'_, PyAny>> = Vec::new();
    let mut owner: Vec<usize> = Vec::new();
    for (row, value) in values.iter().enumerate() {
        validity.push(!value.is_none());
        if !value.is_none() {
            let is_text =
                value.cast::<PyString>().is_ok() || value.cast::<PyBytes>().is_ok() || value.cast::<PyDict>().is_ok();
            if is_text {
                return Err(misfit(row, field, value));
            }
            for element in value.try_iter().map_err(|_| misfit(row, field, value))? {
                flat.push(element.map_err(|_| misfit(row, field, value))?);
                owner.push(row);
            }
        }
        offsets.push(i32::try_from(flat.len()).map_err(|_| misfit(row, field, value))?);
    }
    let named = item.as_ref().clone().with_name(field.name());
    let array = values_to_array(&flat, &named)
        .map_err(|error| Misfit { row: owner.get(error.row).copied().unwrap_or(0), message: error.message })?;
    let nulls = Some(NullBuffer::from(validity)).filter(|nulls| nulls.null_count() > 0);
    let array = ListArray::try_new(Arc::clone(item), OffsetBuffer::new(offsets.into()), array, nulls);
    Ok(Arc::new(array.map_err(|error| Misfit { row: 0, message: error.to_string() })?))
}

/// Maps: of dicts, or of sequences of pairs.
pub(super) fn maps(values: &[Bound<'_, PyAny>], field: &Field, entries: &Arc<Field>) -> Fit<ArrayRef> {
    let DataType::Struct(parts) = entries.data_type() else {
        return Err(Misfit { row: 0, message: format!("column {:?} is no map", field.name()) });
    };
    let mut offsets: Vec<i32> = Vec::with_capacity(values.len() + 1);
    offsets.push(0);
    let mut validity: Vec<bool> = Vec::with_capacity(values.len());
    let (mut keys, mut items, mut owner) = (Vec::new(), Vec::new(), Vec::new());
    for (row, value) in values.iter().enumerate() {
        validity.push(!value.is_none());
        if !value.is_none() {
            let pairs = match value.cast::<PyDict>() {
                Ok(dict) => dict.items().into_any(),
                Err(_) => value.clone(),
            };
            for pair in pairs.try_iter().map_err(|_| misfit(row, field, value))? {
                let pair = pair.and_then(|pair| pair.extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>)>().map_err(PyErr::from));
                let (key, item) = pair.map_err(|_| misfit(row, field, value))?;
                if key.is_none() {
                    let message = format!("column {:?} is a map, and a key of it is None", field.name());
                    return Err(Misfit { row, message });
                }
                keys.push(key);
                items.push(item);
                owner.push(row);
            }
        }
        offsets.push(i32::try_from(keys.len()).map_err(|_| misfit(row, field, value))?);
    }
    let fill = |values: &[Bound<'_, PyAny>], part: &Field| {
        values_to_array(values, &part.clone().with_name(field.name()))
            .map_err(|error| Misfit { row: owner.get(error.row).copied().unwrap_or(0), message: error.message })
    };
    let failed = |error: ArrowError| Misfit { row: 0, message: error.to_string() };
    let columns = vec![fill(&keys, &parts[0])?, fill(&items, &parts[1])?];
    let pairs = StructArray::try_new_with_length(parts.clone(), columns, None, keys.len()).map_err(failed)?;
    let nulls = Some(NullBuffer::from(validity)).filter(|nulls| nulls.null_count() > 0);
    let array = MapArray::try_new(Arc::clone(entries), OffsetBuffer::new(offsets.into()), pairs, nulls, false);
    Ok(Arc::new(array.map_err(failed)?))
}

pub(super) fn structs(values: &[Bound<'_, PyAny>], field: &Field) -> Fit<ArrayRef> {
    let DataType::Struct(fields) = field.data_type() else {
        return Err(Misfit { row: 0, message: format!("column {:?} is no struct", field.name()) });
    };
    let schema: SchemaRef = Arc::new(arrow::datatypes::Schema::new(fields.clone()));
    let present: Vec<Bound<'_, PyAny>> = values.iter().filter(|value| !value.is_none()).cloned().collect();
    let places: Vec<usize> = values.iter().enumerate().filter(|(_, v)| !v.is_none()).map(|(row, _)| row).collect();
    let of_row = |error: Misfit| Misfit {
        row: places.get(error.row).copied().unwrap_or(0),
        message: format!("column {:?}: {}", field.name(), error.message),
    };
    let mut columns = gather(present, &schema).map_err(of_row)?;
    if places.len() != values.len() {
        let Some(none) = values.iter().find(|value| value.is_none()) else { return nulls(values, field) };
        for column in &mut columns {
            let mut found = std::mem::take(column).into_iter();
            *column = values
                .iter()
                .map(|v| if v.is_none() { none.clone() } else { found.next().unwrap_or_else(|| none.clone()) })
                .collect();
        }
    }
    let arrays: Fit<Vec<ArrayRef>> =
        columns.iter().zip(fields).map(|(values, field)| values_to_array(values, field)).collect();
    let arrays =
        arrays.map_err(|error| Misfit { message: format!("column {:?}: {}", field.name(), error.message), ..error })?;
    let nulls = Some(NullBuffer::from_iter(values.iter().map(|value| !value.is_none()))).filter(|n| n.null_count() > 0);
    let array = StructArray::try_new_with_length(fields.clone(), arrays, nulls, values.len());
    Ok(Arc::new(array.map_err(|error| Misfit { row: 0, message: error.to_string() })?))
}
