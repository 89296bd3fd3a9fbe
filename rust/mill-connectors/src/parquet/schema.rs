//! The schema of several files: which columns they have in common, and in which types.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use mill_frame::convert::{Verdict, verdict, why_refused};
use mill_frame::types::{type_name, unite};
use mill_protocol::{Error, Result};

use crate::nearest::{did_you_mean, quoted};

/// So many files are looked at for the schema, evenly over all of them. The types of the others show when they are read.
const SAMPLED_FILES_MAX: usize = 256;

/// The schema that holds the rows of all these files, found from the schema of each.
pub(super) fn schema_of(files: &[PathBuf], schema_of_file: impl Fn(&Path) -> Result<SchemaRef>) -> Result<SchemaRef> {
    let step = files.len().div_ceil(SAMPLED_FILES_MAX).max(1);
    let Some((first, others)) = files.split_first() else { return Ok(Arc::new(Schema::empty())) };
    let schema = schema_of_file(first)?;
    let mut fields: Vec<Field> = schema.fields().iter().map(|field| field.as_ref().clone()).collect();
    for path in others.iter().skip(step - 1).step_by(step) {
        let other = schema_of_file(path)?;
        let names: Vec<&str> = other.fields().iter().map(|field| field.name().as_str()).collect();
        for field in &mut fields {
            let Ok(found) = other.field_with_name(field.name()) else {
                return Err(Error::schema(format!(
                    "{path:?} has no column {:?}, which {first:?} has{}; give schema= with the columns that all files have",
                    field.name(),
                    did_you_mean(field.name(), names.iter().copied())
                )));
            };
            let united = unite(field.data_type(), found.data_type()).ok_or_else(|| {
                Error::schema(format!(
                    "column {:?} is {} in {path:?} and {} in {first:?}, and no type holds both exactly; give schema= with \
                     the type it should have, or read the files apart",
                    field.name(),
                    type_name(found.data_type()),
                    type_name(field.data_type())
                ))
            })?;
            field.set_data_type(united);
        }
        if let Some(extra) = other.fields().iter().find(|field| schema.field_with_name(field.name()).is_err()) {
            return Err(unknown(path, extra.name()));
        }
    }
    Ok(Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone())))
}

fn unknown(path: &Path, column: &str) -> Error {
    Error::schema(format!(
        "{path:?} has a column {column:?} that other files do not have; give schema= with the columns that all files have"
    ))
}

/// For each column of the schema its place in the file. `known` are the columns a file may have, unless it may have any.
pub(super) fn match_columns(
    path: &Path,
    schema: &Schema,
    file: &Schema,
    known: Option<&HashSet<String>>,
) -> Result<Vec<usize>> {
    let names: Vec<&str> = file.fields().iter().map(|field| field.name().as_str()).collect();
    if let Some(extra) = known.and_then(|known| names.iter().find(|name| !known.contains(**name))) {
        return Err(unknown(path, extra));
    }
    let mut places = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        let Some(place) = names.iter().position(|name| name == field.name()) else {
            let near = did_you_mean(field.name(), names.iter().copied());
            return Err(Error::schema(format!(
                "{path:?} has no column {:?}{near} (it has {})",
                field.name(),
                quoted(&names, ", ")
            )));
        };
        let from = file.field(place).data_type();
        if verdict(from, field.data_type()) == Verdict::Refused {
            let advice = why_refused(from, field.data_type());
            return Err(Error::schema(format!(
                "{path:?}: column {:?} is {} and cannot be read as {}; {}",
                field.name(),
                type_name(from),
                type_name(field.data_type()),
                advice.as_deref().unwrap_or("read it as what it is, and convert it with cast()")
            )));
        }
        places.push(place);
    }
    Ok(places)
}
