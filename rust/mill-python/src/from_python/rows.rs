//! Records taken apart into one list of values a column.
//!
//! The shape of a record is decided once a type of record.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, SchemaRef};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyMapping, PyString, PyTuple, PyType};

use super::{Fit, Misfit};
use crate::error::repr_text;
use crate::types::is_object;

/// How the columns are found in a row of some type.
enum Shape {
    /// By key, in a dict.
    Dict,
    /// By key, in another mapping.
    Mapping,
    /// By name, in a tuple with names: the place of each column.
    Named(Vec<usize>),
    /// By place.
    Positional,
    /// By attribute.
    Attributes,
    /// The row is the value of the one column.
    Scalar,
}

pub(super) fn gather<'py>(rows: Vec<Bound<'py, PyAny>>, schema: &SchemaRef) -> Fit<Vec<Vec<Bound<'py, PyAny>>>> {
    let mut shapes = Shapes::default();
    let is_scalar = |row: &Bound<'py, PyAny>| matches!(shapes.of(row, schema), Ok(Shape::Scalar));
    if schema.fields().len() == 1 && rows.iter().all(is_scalar) {
        return Ok(vec![rows]);
    }
    let mut columns: Vec<Vec<Bound<'py, PyAny>>> =
        schema.fields().iter().map(|_| Vec::with_capacity(rows.len())).collect();
    let Some(first) = rows.first() else { return Ok(columns) };
    let py = first.py();
    // Interned, as the names in the user's code are, so that a dict finds them by identity.
    let names: Vec<Bound<'py, PyString>> =
        schema.fields().iter().map(|field| PyString::intern(py, field.name())).collect();
    for (place, row) in rows.iter().enumerate() {
        let taken = shapes.of(row, schema).and_then(|shape| take_apart(row, shape, &names, &mut columns));
        taken.map_err(|message| Misfit { row: place, message })?;
    }
    Ok(columns)
}

/// The shapes of the types of rows seen so far; the last one seen stands at the end.
#[derive(Default)]
struct Shapes<'py> {
    known: Vec<(Bound<'py, PyType>, Shape)>,
}

impl<'py> Shapes<'py> {
    fn of(&mut self, row: &Bound<'py, PyAny>, schema: &SchemaRef) -> Result<&Shape, String> {
        let class = row.get_type_ptr();
        let found = self.known.iter().rposition(|(of, _)| of.as_type_ptr() == class);
        let last = self.known.len().wrapping_sub(1);
        match found {
            Some(place) if place != last => self.known.swap(place, last),
            Some(_) => {}
            None => {
                let class = row.get_type();
                let shape = shape_of(row, &class, schema)?;
                self.known.push((class, shape));
            }
        }
        self.known.last().map(|(_, shape)| shape).ok_or_else(String::new)
    }
}

fn take_apart<'py>(
    row: &Bound<'py, PyAny>,
    shape: &Shape,
    names: &[Bound<'py, PyString>],
    columns: &mut [Vec<Bound<'py, PyAny>>],
) -> Result<(), String> {
    let py = row.py();
    let none = || py.None().into_bound(py);
    let failed = |error: PyErr| error.to_string();
    match shape {
        Shape::Scalar => columns[0].push(row.clone()),
        Shape::Dict => {
            let row = row.cast::<PyDict>().map_err(|error| error.to_string())?;
            let mut found = 0;
            for (name, column) in names.iter().zip(columns) {
                let value = row.get_item(name).map_err(failed)?;
                found += usize::from(value.is_some());
                column.push(value.unwrap_or_else(none));
            }
            if found != row.len() {
                return Err(unknown_keys(row.as_any(), names));
            }
        }
        Shape::Mapping => {
            let row = row.cast::<PyMapping>().map_err(|error| error.to_string())?;
            let mut found = 0;
            for (name, column) in names.iter().zip(columns) {
                let is_there = row.contains(name).map_err(failed)?;
                found += usize::from(is_there);
                column.push(if is_there { row.get_item(name).map_err(failed)? } else { none() });
            }
            if found != row.len().map_err(failed)? {
                return Err(unknown_keys(row.as_any(), names));
            }
        }
        Shape::Named(places) => {
            let row = row.cast::<PyTuple>().map_err(|error| error.to_string())?;
            for (&place, column) in places.iter().zip(columns) {
                column.push(row.get_item(place).map_err(failed)?);
            }
        }
        Shape::Positional => {
            let length = row.len().map_err(failed)?;
            if length != columns.len() {
                return Err(format!("{} for {} ({})", mill_frame::words::counted(length, "value"), mill_frame::words::counted(columns.len(), "column"), joined(names)));
            }
            match row.cast::<PyTuple>() {
                Ok(row) => {
                    for (place, column) in columns.iter_mut().enumerate() {
                        column.push(row.get_item(place).map_err(failed)?);
                    }
                }
                Err(_) => {
                    for (place, column) in columns.iter_mut().enumerate() {
                        column.push(row.get_item(place).map_err(failed)?);
                    }
                }
            }
        }
        Shape::Attributes => {
            for (name, column) in names.iter().zip(columns) {
                column.push(row.getattr(name).map_err(failed)?);
            }
        }
    }
    Ok(())
}

fn joined(names: &[Bound<'_, PyString>]) -> String {
    names.iter().map(|name| name.to_string_lossy().into_owned()).collect::<Vec<_>>().join(", ")
}

fn unknown_keys(row: &Bound<'_, PyAny>, names: &[Bound<'_, PyString>]) -> String {
    let mut unknown = Vec::new();
    if let Ok(keys) = row.try_iter() {
        for key in keys.flatten() {
            if !names.iter().any(|name| name.as_any().eq(&key).unwrap_or(false)) {
                unknown.push(repr_text(&key));
            }
        }
    }
    format!("unknown column {}; the schema has {}", unknown.join(", "), joined(names))
}

fn shape_of(row: &Bound<'_, PyAny>, class: &Bound<'_, PyType>, schema: &SchemaRef) -> Result<Shape, String> {
    let py = row.py();
    let only = match schema.fields().as_ref() {
        [field] => Some(field),
        _ => None,
    };
    let is_whole_struct = |has_column: bool| {
        only.is_some_and(|field| !has_column && matches!(field.data_type(), DataType::Struct(_)) || only_object(only))
    };
    if let Ok(row) = row.cast::<PyDict>() {
        let has_column = only.is_some_and(|field| row.contains(field.name()).unwrap_or(false));
        return Ok(if is_whole_struct(has_column) && !has_column { Shape::Scalar } else { Shape::Dict });
    }
    let fields = class.getattr(intern!(py, "_fields")).ok().and_then(|fields| fields.extract::<Vec<String>>().ok());
    if let (Ok(_), Some(fields)) = (row.cast::<PyTuple>(), fields) {
        let place = |name: &String| fields.iter().position(|field| field == name);
        let places: Option<Vec<usize>> = schema.fields().iter().map(|field| place(field.name())).collect();
        return match places {
            Some(places) => Ok(Shape::Named(places)),
            None if fields.len() == schema.fields().len() => Ok(Shape::Positional),
            None => Err(format!("a record with the fields {} does not have all columns", fields.join(", "))),
        };
    }
    if let Some(field) = only {
        let is_list =
            matches!(field.data_type(), DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(_, _));
        let is_sequence = row.cast::<PyTuple>().is_ok() || row.cast::<PyList>().is_ok();
        let is_record = class.hasattr(intern!(py, "__dataclass_fields__")).unwrap_or(false);
        if only_object(only) || (!is_record && (is_list || !is_sequence)) {
            return Ok(Shape::Scalar);
        }
        if is_record
            && matches!(field.data_type(), DataType::Struct(_))
            && !row.hasattr(field.name().as_str()).unwrap_or(false)
        {
            return Ok(Shape::Scalar);
        }
    }
    if row.cast::<PyTuple>().is_ok() || row.cast::<PyList>().is_ok() {
        return Ok(Shape::Positional);
    }
    if row.cast::<PyMapping>().is_ok() {
        return Ok(Shape::Mapping);
    }
    let has_all = schema.fields().iter().all(|field| row.hasattr(field.name().as_str()).unwrap_or(false));
    if has_all && row.cast::<PyString>().is_err() {
        return Ok(Shape::Attributes);
    }
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    Err(format!(
        "{} is no record of the columns {}; give a dict, a tuple or a dataclass",
        repr_text(row),
        names.join(", ")
    ))
}

fn only_object(field: Option<&Arc<Field>>) -> bool {
    field.is_some_and(|field| is_object(field))
}
