//! States whose types have changed since a checkpoint was written.
//!
//! What a wider type can hold is converted: an `int32` as an `int64`, a struct that has more fields. Everything else is the
//! user's to say: a function from the old value to the new one. All that neither covers is refused in one message.
//!
//! Rows are rewritten once, when the checkpoint is restored, some at a time. So a function is called with values of the last
//! run alone, and no later run needs it.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, RecordBatch, RecordBatchOptions, StructArray, new_null_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use mill_plan::{Migration, ProcessTask, StateSpec, type_name};
use mill_protocol::{Error, Result};

use super::values::{KEYS, WRITTEN};

/// Refuses states that a function kept and that it cannot continue with. Returns whether rows have to be rewritten.
pub(super) fn check(former: &Schema, states: &[StateSpec]) -> Result<bool> {
    let (mut mistakes, mut is_changed) = (Vec::new(), false);
    for field in former.fields().iter().filter(|field| !field.name().ends_with(WRITTEN)) {
        let name = field.name().split('@').next().unwrap_or_default();
        let has = |state: &&StateSpec| state.name == name || state.columns.iter().any(|column| column.name() == field.name());
        let Some(state) = states.iter().find(has) else {
            if !field.name().contains('@') {
                mistakes.push(format!("state {name:?} is in it, and the function keeps it no more; keep it, as it was"));
            }
            continue;
        };
        let column = |name: &str| state.columns.iter().find(|column| column.name() == name);
        let Some(now) = column(field.name()) else {
            mistakes.push(format!("state {name:?} was a map and is none any more; give it another name"));
            continue;
        };
        let keys = format!("{name}{KEYS}");
        if column(&keys).is_some() && former.field_with_name(&keys).is_err() {
            mistakes.push(format!("state {name:?} was no map and is one now; give it another name"));
        }
        if is_same(field, now) {
            continue;
        }
        is_changed = true;
        if state.migration == Migration::Any && !field.name().contains('@') {
            continue;
        }
        let what = if field.name().contains('@') { format!("the entry key of state {name:?}") } else { format!("state {name:?}") };
        let before = mistakes.len();
        differences(&what, field, now, &mut mistakes);
        if mistakes.len() > before && let Some(last) = mistakes.last_mut() {
            let advice = if field.name().contains('@') { "" } else { ", or a migrate= that makes a new value of an old one" };
            last.push_str(&format!("; give it another name, or its type back{advice}"));
        }
    }
    match mistakes.is_empty() {
        true => Ok(is_changed),
        false => Err(Error::checkpoint(format!("the checkpoint does not fit the function: {}", mistakes.join("; ")))),
    }
}

fn is_same(former: &Field, now: &Field) -> bool {
    former.data_type() == now.data_type() && former.metadata() == now.metadata()
}

/// What keeps values of one type from being values of the other.
fn differences(what: &str, former: &Field, now: &Field, out: &mut Vec<String>) {
    match (former.data_type(), now.data_type()) {
        _ if is_same(former, now) => {}
        _ if former.metadata() != now.metadata() => {
            out.push(format!("{what} holds {}, and would hold {}", shown(former), shown(now)));
        }
        (DataType::List(former), DataType::List(now)) => differences(what, former, now, out),
        (DataType::Struct(former), DataType::Struct(now)) => {
            for field in former {
                match now.iter().find(|other| other.name() == field.name()) {
                    Some(other) => differences(&format!("field {:?} of {what}", field.name()), field, other, out),
                    None => out.push(format!("field {:?} of {what} is gone", field.name())),
                }
            }
        }
        (former, now) if widens(former, now) => {}
        (former, now) => out.push(format!("{what} holds {} and would hold {}", type_name(former), type_name(now))),
    }
}

fn shown(field: &Field) -> String {
    if field.metadata().is_empty() { type_name(field.data_type()) } else { "Python objects".to_owned() }
}

/// Whether each value of one type is one of the other.
fn widens(former: &DataType, now: &DataType) -> bool {
    let bits = |of: &DataType| of.primitive_width().unwrap_or_default() * 8;
    let unit = |unit: &TimeUnit| *unit as u8;
    match (former, now) {
        (former, now) if former.is_signed_integer() && now.is_signed_integer() => bits(former) <= bits(now),
        (former, now) if former.is_unsigned_integer() && now.is_unsigned_integer() => bits(former) <= bits(now),
        (former, now) if former.is_unsigned_integer() && now.is_signed_integer() => bits(former) < bits(now),
        // A float has as many exact integers as its mantissa has bits: 11, 24, 53.
        (former, now) if former.is_integer() && now.is_floating() => bits(former) < bits(now),
        (former, now) if former.is_floating() && now.is_floating() => bits(former) <= bits(now),
        (DataType::Decimal128(digits, scale), DataType::Decimal128(now, of)) => scale == of && digits <= now,
        (DataType::Timestamp(former, zone), DataType::Timestamp(now, of)) => zone == of && unit(former) <= unit(now),
        (DataType::Duration(former), DataType::Duration(now)) => unit(former) <= unit(now),
        (DataType::Null, _) => true,
        _ => false,
    }
}

/// Rows of the last run with the columns of now.
pub(super) fn evolved(
    rows: &RecordBatch,
    states: &[StateSpec],
    now: &SchemaRef,
    task: &mut dyn ProcessTask,
) -> Result<RecordBatch> {
    let former = rows.schema();
    let mut columns = Vec::with_capacity(now.fields().len());
    for state in states {
        for field in &state.columns {
            let Some((place, of)) = former.column_with_name(field.name()) else {
                columns.push(new_null_array(field.data_type(), rows.num_rows()));
                continue;
            };
            let column = rows.column(place);
            let calls = match state.migration {
                _ if is_same(of, field) || field.name().contains('@') => false,
                Migration::None => false,
                Migration::Fields => true,
                Migration::Any => true,
            };
            columns.push(match calls {
                true => task.migrate(state, &former.fields()[place], column)?,
                false => converted(column, field).map_err(|error| Error::checkpoint(format!("state {:?}: {error}", state.name)))?,
            });
        }
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(now), columns, &options)
        .map_err(|error| Error::internal(format!("states do not fit their columns: {error}")))
}

/// Values of a type as those of another one that has all of them. A field that a struct has more is null.
fn converted(values: &ArrayRef, now: &FieldRef) -> std::result::Result<ArrayRef, arrow::error::ArrowError> {
    if values.data_type() == now.data_type() {
        return Ok(Arc::clone(values));
    }
    match (values.data_type(), now.data_type()) {
        (DataType::List(_), DataType::List(item)) => {
            let list = values.as_list::<i32>();
            let items = converted(list.values(), item)?;
            Ok(Arc::new(ListArray::try_new(Arc::clone(item), list.offsets().clone(), items, list.nulls().cloned())?))
        }
        (DataType::Struct(_), DataType::Struct(fields)) => {
            let of = values.as_struct();
            let column = |field: &FieldRef| match of.column_by_name(field.name()) {
                Some(column) => converted(column, field),
                None => Ok(new_null_array(field.data_type(), of.len())),
            };
            let columns = fields.iter().map(column).collect::<std::result::Result<Vec<ArrayRef>, _>>()?;
            Ok(Arc::new(StructArray::try_new(fields.clone(), columns, of.nulls().cloned())?))
        }
        (_, to) => cast_with_options(values, to, &CastOptions { safe: false, ..CastOptions::default() }),
    }
}
