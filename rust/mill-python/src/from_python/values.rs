//! Plain values as columns: one loop a type.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Decimal128Array, NullArray, PrimitiveArray, StringBuilder,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{ArrowPrimitiveType, Field, Float64Type};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyByteArray, PyBytes, PyFloat, PyInt, PyString};

use super::{Fit, Misfit, misfit};
use crate::error::repr_text;

pub(super) fn nulls(values: &[Bound<'_, PyAny>], field: &Field) -> Fit<ArrayRef> {
    match values.iter().position(|value| !value.is_none()) {
        Some(row) => Err(misfit(row, field, &values[row])),
        None => Ok(Arc::new(NullArray::new(values.len()))),
    }
}

pub(super) fn booleans(values: &[Bound<'_, PyAny>], field: &Field) -> Fit<ArrayRef> {
    let mut builder = BooleanBuilder::with_capacity(values.len());
    for (row, value) in values.iter().enumerate() {
        if value.is_none() {
            builder.append_null();
        } else {
            builder.append_value(value.extract::<bool>().map_err(|_| misfit(row, field, value))?);
        }
    }
    Ok(Arc::new(builder.finish()))
}

/// Whole numbers. What is no `int` itself (a number of numpy's, a float without a fraction, a `Decimal`) is taken if it is
/// the same number.
pub(super) fn integers<T>(values: &[Bound<'_, PyAny>], field: &Field) -> Fit<ArrayRef>
where
    T: ArrowPrimitiveType,
    for<'a, 'py> T::Native: FromPyObject<'a, 'py>,
{
    let mut out: Vec<T::Native> = Vec::with_capacity(values.len());
    let mut validity: Option<Vec<bool>> = None;
    for (row, value) in values.iter().enumerate() {
        if value.is_none() {
            validity.get_or_insert_with(|| vec![true; row]).push(false);
            out.push(T::Native::default());
            continue;
        }
        let number = match value.cast_exact::<PyInt>() {
            Ok(number) => number.extract::<T::Native>().ok(),
            Err(_) => exactly(value, "whole_number").ok().and_then(|number| number.extract::<T::Native>().ok()),
        };
        out.push(number.ok_or_else(|| misfit(row, field, value))?);
        if let Some(validity) = &mut validity {
            validity.push(true);
        }
    }
    Ok(Arc::new(PrimitiveArray::<T>::new(out.into(), validity.map(NullBuffer::from))))
}

/// Floats. What is no `float` itself is taken if it is the same number; only a `Decimal` is rounded to the nearest one, as
/// its text would be.
pub(super) fn floats(values: &[Bound<'_, PyAny>], field: &Field) -> Fit<ArrayRef> {
    let mut out: Vec<f64> = Vec::with_capacity(values.len());
    let mut validity: Option<Vec<bool>> = None;
    for (row, value) in values.iter().enumerate() {
        if value.is_none() {
            validity.get_or_insert_with(|| vec![true; row]).push(false);
            out.push(0.0);
            continue;
        }
        let number = match value.cast_exact::<PyFloat>() {
            Ok(number) => number.value(),
            Err(_) => {
                let number = exactly(value, "floating_number").and_then(|number| number.extract::<f64>());
                number.map_err(|_| misfit(row, field, value))?
            }
        };
        out.push(number);
        if let Some(validity) = &mut validity {
            validity.push(true);
        }
    }
    Ok(Arc::new(PrimitiveArray::<Float64Type>::new(out.into(), validity.map(NullBuffer::from))))
}

/// A value as the same number of another class, by a function of `millstream._numbers`.
#[cold]
fn exactly<'py>(value: &Bound<'py, PyAny>, function: &str) -> PyResult<Bound<'py, PyAny>> {
    value.py().import("millstream._numbers")?.getattr(function)?.call1((value,))
}

pub(super) fn texts(values: &[Bound<'_, PyAny>], field: &Field) -> Fit<ArrayRef> {
    let mut builder = StringBuilder::with_capacity(values.len(), values.len() * 8);
    for (row, value) in values.iter().enumerate() {
        if value.is_none() {
            builder.append_null();
            continue;
        }
        let text = value.cast::<PyString>().map_err(|_| misfit(row, field, value))?;
        builder.append_value(text.to_str().map_err(|_| misfit(row, field, value))?);
    }
    Ok(Arc::new(builder.finish()))
}

pub(super) fn binaries(values: &[Bound<'_, PyAny>], field: &Field) -> Fit<ArrayRef> {
    let mut builder = BinaryBuilder::with_capacity(values.len(), values.len() * 8);
    for (row, value) in values.iter().enumerate() {
        if value.is_none() {
            builder.append_null();
        } else if let Ok(value) = value.cast::<PyBytes>() {
            builder.append_value(value.as_bytes());
        } else if let Ok(value) = value.cast::<PyByteArray>() {
            builder.append_value(value.to_vec());
        } else {
            return Err(misfit(row, field, value));
        }
    }
    Ok(Arc::new(builder.finish()))
}

pub(super) fn objects(values: &[Bound<'_, PyAny>], field: &Field) -> Fit<ArrayRef> {
    static DUMPS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let mut builder = BinaryBuilder::with_capacity(values.len(), values.len() * 32);
    for (row, value) in values.iter().enumerate() {
        if value.is_none() {
            builder.append_null();
            continue;
        }
        let failed = |error: PyErr| Misfit {
            row,
            message: format!(
                "column {:?} holds Python objects and {} cannot be pickled: {error}",
                field.name(),
                repr_text(value)
            ),
        };
        let dumps = DUMPS.import(value.py(), "pickle", "dumps").map_err(failed)?;
        let pickled = dumps.call1((value, 5)).map_err(failed)?;
        builder.append_value(pickled.cast::<PyBytes>().map_err(|_| misfit(row, field, value))?.as_bytes());
    }
    Ok(Arc::new(builder.finish()))
}

pub(super) fn decimals(values: &[Bound<'_, PyAny>], field: &Field, precision: u8, scale: i8) -> Fit<ArrayRef> {
    static SCALED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let mut out: Vec<Option<i128>> = Vec::with_capacity(values.len());
    for (row, value) in values.iter().enumerate() {
        if value.is_none() {
            out.push(None);
            continue;
        }
        let number = SCALED
            .import(value.py(), "millstream._numbers", "scaled_decimal")
            .and_then(|scaled| scaled.call1((value, precision, scale)))
            .and_then(|number| number.extract::<i128>());
        out.push(Some(number.map_err(|_| misfit(row, field, value))?));
    }
    let array = Decimal128Array::from(out).with_precision_and_scale(precision, scale);
    Ok(Arc::new(array.map_err(|error| Misfit { row: 0, message: error.to_string() })?))
}
