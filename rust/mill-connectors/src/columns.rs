//! The schema of several files that have one each: which columns they have in common, and in which types.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::{Field, Fields, Schema, SchemaRef};
use mill_frame::convert::{Verdict, verdict, why_refused};
use mill_frame::types::{check_fields, type_name, unite};
use mill_protocol::{Error, Result};

use crate::file::FileSet;
use crate::nearest::{did_you_mean, quoted};
use crate::objects::check_read;

/// So many files are looked at for the schema, evenly over all of them. The types of the others show when they are read.
const SAMPLED_FILES_MAX: usize = 256;

/// The columns that are read of files: those declared, which the first of them has to have, or else those that all have. Then
/// the names of these come with it: a file with another one is refused.
pub(crate) fn columns_of(
    reader: &str,
    files: &FileSet,
    declared: Option<SchemaRef>,
    schema_of_file: impl Fn(&Path) -> Result<SchemaRef>,
) -> Result<(SchemaRef, Option<Arc<HashSet<String>>>)> {
    let may_lack = files.inserts_missing_columns();
    let mut names: Vec<String> = Vec::new();
    if let Some(schema) = declared {
        check_read(reader, &schema)?;
        names.extend(schema.fields().iter().map(|field| field.name().clone()));
        files.check_chosen(reader, &names)?;
        let schema = chosen(&schema, files.chosen());
        if let Some(path) = files.files.first() {
            check_fields(schema.fields()).map_err(|e| Error::schema(e.to_string()))?;
            match_columns(path, &schema, schema_of_file(path)?.as_ref(), None, may_lack)?;
        }
        return Ok((schema, None));
    }
    if files.files.is_empty() {
        let paths = &files.paths;
        return Err(Error::plan(format!("{reader}({paths}): there is no file yet to take the columns from; give schema=")));
    }
    let schema = schema_of(&files.files, may_lack, |path| {
        let whole = schema_of_file(path)?;
        names.extend(whole.fields().iter().map(|field| field.name().clone()));
        let schema = chosen(&whole, files.chosen());
        check_fields(schema.fields()).map_err(|e| Error::schema(format!("{path:?}: {e}")))?;
        Ok(schema)
    });
    let mut seen = HashSet::new();
    names.retain(|name| seen.insert(name.clone()));
    files.check_chosen(reader, &names)?;
    let schema = schema?;
    let names = schema.fields().iter().map(|field| field.name().clone()).collect();
    Ok((schema, files.chosen().is_none().then(|| Arc::new(names))))
}

/// The columns of a schema that are read, all if none were named.
pub(crate) fn chosen(schema: &SchemaRef, names: Option<&[String]>) -> SchemaRef {
    let Some(names) = names else { return Arc::clone(schema) };
    let fields: Vec<_> = schema.fields().iter().filter(|field| names.contains(field.name())).cloned().collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// The schema that holds the rows of all these files, found from the schema of each.
///
/// A column that some file does not have is refused, unless it may be missing.
fn schema_of(
    files: &[PathBuf],
    may_lack: bool,
    mut schema_of_file: impl FnMut(&Path) -> Result<SchemaRef>,
) -> Result<SchemaRef> {
    let step = files.len().div_ceil(SAMPLED_FILES_MAX).max(1);
    let Some((first, others)) = files.split_first() else { return Ok(Arc::new(Schema::empty())) };
    let schema = schema_of_file(first)?;
    let mut fields: Vec<Field> = schema.fields().iter().map(|field| field.as_ref().clone()).collect();
    for path in others.iter().skip(step - 1).step_by(step) {
        let other = schema_of_file(path)?;
        let names: Vec<&str> = other.fields().iter().map(|field| field.name().as_str()).collect();
        for field in &mut fields {
            let Ok(found) = other.field_with_name(field.name()) else {
                if may_lack {
                    continue;
                }
                return Err(Error::schema(format!(
                    "{path:?} has no column {:?}, which {first:?} has{}; give schema= with the columns that all files have, or \
                     missing_columns=\"insert\" to read null",
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
        for extra in other.fields() {
            if fields.iter().any(|field| field.name() == extra.name()) {
                continue;
            }
            if !may_lack {
                return Err(unknown(path, extra.name()));
            }
            fields.push(extra.as_ref().clone());
        }
    }
    Ok(Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone())))
}

fn unknown(path: &Path, column: &str) -> Error {
    Error::schema(format!(
        "{path:?} has a column {column:?} that other files do not have; name those to read with columns=, or give schema= \
         with the columns that all files have, or with all columns and missing_columns=\"insert\" to read null"
    ))
}

/// For each column of the schema its place in the file; none of one that is missing, if it may be. `known` are the columns a file may have, unless it may have any.
pub(crate) fn match_columns(
    path: &Path,
    schema: &Schema,
    file: &Schema,
    known: Option<&HashSet<String>>,
    may_lack: bool,
) -> Result<Vec<Option<usize>>> {
    let names: Vec<&str> = file.fields().iter().map(|field| field.name().as_str()).collect();
    if let Some(extra) = known.and_then(|known| names.iter().find(|name| !known.contains(**name))) {
        return Err(unknown(path, extra));
    }
    let mut places = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        let Some(place) = names.iter().position(|name| name == field.name()) else {
            if may_lack {
                places.push(None);
                continue;
            }
            let near = did_you_mean(field.name(), names.iter().copied());
            return Err(Error::schema(format!(
                "{path:?} has no column {:?}{near} (it has {})",
                field.name(),
                quoted(&names, ", ")
            )));
        };
        // The others are not read, so what they are does not matter.
        if names.iter().filter(|name| *name == field.name()).count() > 1 {
            return Err(Error::schema(format!("{path:?}: two columns have the name {:?}; rename one of them", field.name())));
        }
        check_fields(&Fields::from(vec![file.field(place).clone()])).map_err(|e| Error::schema(format!("{path:?}: {e}")))?;
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
        places.push(Some(place));
    }
    Ok(places)
}
