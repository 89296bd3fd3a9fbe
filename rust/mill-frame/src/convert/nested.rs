//! Conversions of lists, structs, maps and dictionaries: their values convert, one by one.
//!
//! What is below a null is no value and is not looked at. An error of a value deep inside names the row of the array at
//! the top; a value that becomes null becomes null where it is.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, FixedSizeListArray, GenericListArray, MapArray, OffsetSizeTrait,
    StructArray, UInt64Array, new_null_array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::{nullif, take};
use arrow::datatypes::{DataType, Field, FieldRef};
use arrow::error::ArrowError;

use super::rules::{element, entries, verdict};
use super::{Ask, Inexact, Miss, Verdict, flat, reason};

type Converted = Result<ArrayRef, Inexact>;

/// Converts any array.
pub(super) fn convert(array: &ArrayRef, to: &DataType, ask: Ask, miss: Miss) -> Converted {
    let from = array.data_type();
    if from == to {
        return Ok(Arc::clone(array));
    }
    if array.is_empty() || from == &DataType::Null {
        return if verdict(from, to, ask) == Verdict::Refused { Err(refused(array, to, ask)) } else { Ok(new_null_array(to, array.len())) };
    }
    match verdict(from, to, ask) {
        Verdict::Refused => return Err(refused(array, to, ask)),
        Verdict::Same | Verdict::Exact | Verdict::Checked => {}
    }
    match (from, to) {
        (_, DataType::Null) => match first_value(array) {
            Some(row) if miss == Miss::Refuse => Err(Inexact {
                row,
                value: reason::show(array, row),
                reason: "is a value, where only null may be".to_owned(),
            }),
            _ => Ok(new_null_array(to, array.len())),
        },
        (DataType::RunEndEncoded(_, values), _) => {
            let plain = flat::kernel(array, values.data_type()).map_err(|error| internal(array, &error))?;
            convert(&plain, to, ask, miss)
        }
        (_, DataType::Dictionary(_, values)) => into_dictionary(array, values, to, ask, miss),
        (DataType::Dictionary(..), _) => from_dictionary(array, to, ask, miss),
        (DataType::Struct(_), DataType::Struct(_)) => structs(array, to, ask, miss),
        (DataType::Map(..), DataType::Map(..)) => maps(array, to, ask, miss),
        _ if element(to).is_some() => lists(array, to, ask, miss),
        _ => one_by_one(array, to, ask, miss),
    }
}

fn one_by_one(array: &ArrayRef, to: &DataType, ask: Ask, miss: Miss) -> Converted {
    let converted = flat::convert(array, to, ask).map_err(|error| internal(array, &error))?;
    if miss == Miss::Null {
        return Ok(converted.values);
    }
    if let Some((row, reason)) = converted.misfit {
        return Err(Inexact { row, value: reason::show(array, row), reason });
    }
    match first_loss(array, &converted.values) {
        None => Ok(converted.values),
        Some(row) => {
            Err(Inexact { row, value: reason::show(array, row), reason: reason::misfit(array, row, to, ask) })
        }
    }
}

/// The first row that had a value and has none.
fn first_loss(before: &ArrayRef, after: &ArrayRef) -> Option<usize> {
    if after.logical_null_count() <= before.logical_null_count() {
        return None;
    }
    let (before, after) = (before.logical_nulls(), after.logical_nulls()?);
    (0..after.len()).find(|&row| after.is_null(row) && before.as_ref().is_none_or(|nulls| nulls.is_valid(row)))
}

fn first_value(array: &ArrayRef) -> Option<usize> {
    match array.logical_nulls() {
        None => (!array.is_empty()).then_some(0),
        Some(nulls) => nulls.valid_indices().next(),
    }
}

fn refused(array: &ArrayRef, to: &DataType, ask: Ask) -> Inexact {
    let row = first_value(array).unwrap_or(0);
    let value = if array.is_empty() { "a column".to_owned() } else { reason::show(array, row) };
    Inexact { row, value, reason: reason::refused(array.data_type(), to, ask) }
}

/// Arrow refused a whole array: its values do not fit one, since there are too many of them.
fn internal(array: &ArrayRef, error: &ArrowError) -> Inexact {
    Inexact { row: 0, value: format!("a column of {} rows", array.len()), reason: format!("cannot be converted at once: {error}") }
}

fn from_dictionary(array: &ArrayRef, to: &DataType, ask: Ask, miss: Miss) -> Converted {
    let DataType::Dictionary(_, values) = array.data_type() else { return Err(refused(array, to, ask)) };
    let plain = flat::kernel(array, values).map_err(|error| internal(array, &error))?;
    convert(&plain, to, ask, miss)
}

fn into_dictionary(array: &ArrayRef, values: &DataType, to: &DataType, ask: Ask, miss: Miss) -> Converted {
    let encode = |array: &ArrayRef| flat::kernel(array, to);
    if let DataType::Dictionary(_, own) = array.data_type()
        && own.as_ref() == values
        && let Ok(encoded) = encode(array)
        && first_loss(array, &encoded).is_none()
    {
        return Ok(encoded);
    }
    let plain = convert(array, values, ask, miss)?;
    if let Ok(encoded) = encode(&plain) {
        return Ok(encoded);
    }
    // More values than keys: the most rows that can be encoded end before the row to name.
    let (mut fits, mut fails) = (0, plain.len());
    while fails - fits > 1 {
        let half = fits + (fails - fits) / 2;
        if encode(&plain.slice(0, half)).is_ok() { fits = half } else { fails = half }
    }
    Err(Inexact {
        row: fits,
        value: reason::show(array, fits),
        reason: "is one value more than the keys of the dictionary can number: use a wider type of keys".to_owned(),
    })
}

fn structs(array: &ArrayRef, to: &DataType, ask: Ask, miss: Miss) -> Converted {
    let DataType::Struct(fields) = to else { return Err(refused(array, to, ask)) };
    let from = array.as_struct();
    let mut nulls = from.nulls().cloned();
    let mut columns = Vec::with_capacity(fields.len());
    for field in fields {
        let Some(column) = from.column_by_name(field.name()) else { return Err(refused(array, to, ask)) };
        let column = if column.data_type() == field.data_type() { Arc::clone(column) } else { visible(column, from.nulls()) };
        let column = convert(&column, field.data_type(), ask, miss).map_err(|inexact| within_field(field, inexact))?;
        nulls = without_nulls(field, &column, nulls, miss)?;
        columns.push(column);
    }
    let built = StructArray::try_new_with_length(fields.clone(), columns, nulls, from.len());
    Ok(Arc::new(built.map_err(|error| internal(array, &error))?))
}

fn within_field(field: &Field, inexact: Inexact) -> Inexact {
    Inexact { reason: format!("in field {:?} {}", field.name(), inexact.reason), ..inexact }
}

/// The column with null wherever its parent is null.
fn visible(column: &ArrayRef, parent: Option<&NullBuffer>) -> ArrayRef {
    match parent {
        Some(parent) if parent.null_count() > 0 && column.data_type() != &DataType::Null => {
            let hidden = BooleanArray::new(!parent.inner(), None);
            nullif(column, &hidden).unwrap_or_else(|_| Arc::clone(column))
        }
        _ => Arc::clone(column),
    }
}

/// The nulls of the rows around a column that may have none.
fn without_nulls(field: &Field, column: &ArrayRef, nulls: Option<NullBuffer>, miss: Miss) -> Result<Option<NullBuffer>, Inexact> {
    if field.is_nullable() {
        return Ok(nulls);
    }
    let Some(own) = column.logical_nulls() else { return Ok(nulls) };
    let bad = (0..own.len()).find(|&row| own.is_null(row) && nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row)));
    match bad {
        None => Ok(nulls),
        Some(row) if miss == Miss::Refuse => Err(Inexact {
            row,
            value: "None".to_owned(),
            reason: format!("is in field {:?}, which allows no null", field.name()),
        }),
        Some(_) => Ok(NullBuffer::union(nulls.as_ref(), Some(&own))),
    }
}

/// The values of lists one after the other: where each row's begin, none below a null.
struct Lists {
    offsets: Vec<i64>,
    values: ArrayRef,
    nulls: Option<NullBuffer>,
}

impl Lists {
    fn new(values: &ArrayRef, bounds: impl Fn(usize) -> (usize, usize), rows: usize, nulls: Option<&NullBuffer>) -> Result<Lists, ArrowError> {
        let is_valid = |row: usize| nulls.is_none_or(|nulls| nulls.is_valid(row));
        let mut offsets = Vec::with_capacity(rows + 1);
        let mut end = 0;
        offsets.push(0);
        let (first, mut is_dense) = (if rows == 0 { 0 } else { bounds(0).0 }, true);
        for row in 0..rows {
            let (start, stop) = bounds(row);
            is_dense &= start == first + end as usize && (is_valid(row) || start == stop);
            end += if is_valid(row) { (stop - start) as i64 } else { 0 };
            offsets.push(end);
        }
        let values = if is_dense {
            values.slice(first, end as usize)
        } else {
            let places = (0..rows).filter(|row| is_valid(*row)).flat_map(|row| {
                let (start, stop) = bounds(row);
                start as u64..stop as u64
            });
            take(values, &UInt64Array::from_iter_values(places), None)?
        };
        Ok(Lists { offsets, values, nulls: nulls.cloned() })
    }

    fn of(array: &ArrayRef) -> Result<Lists, ArrowError> {
        fn generic<O: OffsetSizeTrait>(list: &GenericListArray<O>) -> Result<Lists, ArrowError> {
            let offsets = list.value_offsets();
            let bounds = |row: usize| (offsets[row].as_usize(), offsets[row + 1].as_usize());
            Lists::new(list.values(), bounds, list.len(), list.nulls())
        }
        match array.data_type() {
            DataType::List(_) => generic(array.as_list::<i32>()),
            DataType::LargeList(_) => generic(array.as_list::<i64>()),
            DataType::ListView(field) => Lists::of(&flat::kernel(array, &DataType::List(Arc::clone(field)))?),
            DataType::LargeListView(field) => Lists::of(&flat::kernel(array, &DataType::LargeList(Arc::clone(field)))?),
            _ => {
                let list = array.as_fixed_size_list();
                let size = list.value_length() as usize;
                let start = list.value_offset(0) as usize;
                Lists::new(list.values(), |row| (start + row * size, start + (row + 1) * size), list.len(), list.nulls())
            }
        }
    }

    /// The row in which a value is.
    fn row_of(&self, place: usize) -> usize {
        self.offsets.partition_point(|&offset| offset <= place as i64) - 1
    }

    /// Converts the values. A row with a null where none may be is an error, or null.
    fn convert(&mut self, field: &Field, ask: Ask, miss: Miss) -> Result<(), Inexact> {
        let values = convert(&self.values, field.data_type(), ask, miss);
        self.values = values.map_err(|inexact| Inexact { row: self.row_of(inexact.row), ..inexact })?;
        self.require(field, &Arc::clone(&self.values), miss)
    }

    fn require(&mut self, field: &Field, values: &ArrayRef, miss: Miss) -> Result<(), Inexact> {
        if field.is_nullable() || values.logical_null_count() == 0 {
            return Ok(());
        }
        let nulls = values.logical_nulls();
        let bad: Vec<usize> = (0..values.len())
            .filter(|&place| nulls.as_ref().is_some_and(|nulls| nulls.is_null(place)))
            .map(|place| self.row_of(place))
            .collect();
        if miss == Miss::Refuse
            && let Some(&row) = bad.first()
        {
            return Err(Inexact { row, value: "None".to_owned(), reason: "is in a list that allows no null".to_owned() });
        }
        self.drop_rows(&bad).map_err(|error| internal(values, &error))
    }

    /// Makes rows null, and takes their values away.
    fn drop_rows(&mut self, rows: &[usize]) -> Result<(), ArrowError> {
        let count = self.offsets.len() - 1;
        let mut is_valid: Vec<bool> = (0..count).map(|row| self.nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row))).collect();
        for row in rows {
            is_valid[*row] = false;
        }
        let nulls = NullBuffer::from(is_valid);
        let offsets = self.offsets.clone();
        let bounds = |row: usize| (offsets[row] as usize, offsets[row + 1] as usize);
        *self = Lists::new(&self.values, bounds, count, Some(&nulls))?;
        Ok(())
    }

    fn offsets<O: OffsetSizeTrait>(&self) -> Option<OffsetBuffer<O>> {
        let last = usize::try_from(*self.offsets.last()?).ok()?;
        O::from_usize(last)?;
        let offsets: Vec<O> = self.offsets.iter().map(|&offset| O::usize_as(offset as usize)).collect();
        Some(OffsetBuffer::new(ScalarBuffer::from(offsets)))
    }

    fn into_list<O: OffsetSizeTrait>(self, field: &FieldRef) -> Result<ArrayRef, ArrowError> {
        let Some(offsets) = self.offsets::<O>() else {
            return Err(ArrowError::InvalidArgumentError("there are more values than one list array holds".to_owned()));
        };
        Ok(Arc::new(GenericListArray::<O>::try_new(Arc::clone(field), offsets, self.values, self.nulls)?))
    }

    fn into_fixed(mut self, field: &FieldRef, size: i32, miss: Miss) -> Result<Result<ArrayRef, ArrowError>, Inexact> {
        let rows = self.offsets.len() - 1;
        let length = |row: usize| self.offsets[row + 1] - self.offsets[row];
        let is_valid = |row: usize| self.nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row));
        let bad: Vec<usize> = (0..rows).filter(|&row| is_valid(row) && length(row) != i64::from(size)).collect();
        if let Some(&row) = bad.first() {
            if miss == Miss::Refuse {
                let reason = format!("values are in a list that must have {size}");
                return Err(Inexact { row, value: length(row).to_string(), reason });
            }
            if let Err(error) = self.drop_rows(&bad) {
                return Ok(Err(error));
            }
        }
        let built = || -> Result<ArrayRef, ArrowError> {
            let values = match &self.nulls {
                Some(nulls) if nulls.null_count() > 0 => {
                    let places = (0..rows).flat_map(|row| {
                        let start = self.offsets[row] as u64;
                        (0..size as u64).map(move |place| (row, start + place))
                    });
                    let places: UInt64Array = places.map(|(row, place)| nulls.is_valid(row).then_some(place)).collect();
                    take(&self.values, &places, None)?
                }
                _ => Arc::clone(&self.values),
            };
            Ok(Arc::new(FixedSizeListArray::try_new_with_length(Arc::clone(field), size, values, self.nulls.clone(), rows)?))
        };
        Ok(built())
    }
}

fn lists(array: &ArrayRef, to: &DataType, ask: Ask, miss: Miss) -> Converted {
    let failed = |error: ArrowError| internal(array, &error);
    let Some(field) = element(to) else { return Err(refused(array, to, ask)) };
    let mut lists = Lists::of(array).map_err(failed)?;
    lists.convert(field, ask, miss)?;
    match to {
        DataType::List(field) => lists.into_list::<i32>(field),
        DataType::LargeList(field) => lists.into_list::<i64>(field),
        DataType::FixedSizeList(field, size) => lists.into_fixed(field, *size, miss)?,
        DataType::ListView(field) => {
            lists.into_list::<i32>(field).and_then(|list| flat::kernel(&list, to))
        }
        DataType::LargeListView(field) => lists.into_list::<i64>(field).and_then(|list| flat::kernel(&list, to)),
        _ => return Err(refused(array, to, ask)),
    }
    .map_err(failed)
}

fn maps(array: &ArrayRef, to: &DataType, ask: Ask, miss: Miss) -> Converted {
    let failed = |error: ArrowError| internal(array, &error);
    let (DataType::Map(entry_field, is_sorted), Some([key, value])) = (to, entries(to)) else {
        return Err(refused(array, to, ask));
    };
    let DataType::Struct(parts) = entry_field.data_type() else { return Err(refused(array, to, ask)) };
    let from = array.as_map();
    let offsets = from.value_offsets();
    let bounds = |row: usize| (offsets[row] as usize, offsets[row + 1] as usize);
    let pairs: ArrayRef = Arc::new(from.entries().clone());
    let mut pairs = Lists::new(&pairs, bounds, from.len(), from.nulls()).map_err(failed)?;
    // Key and value by position, since writers name them differently.
    let convert_part = |pairs: &Lists, part: usize, field: &Field| {
        let column = pairs.values.as_struct().column(part);
        convert(column, field.data_type(), ask, miss).map_err(|inexact| Inexact { row: pairs.row_of(inexact.row), ..inexact })
    };
    for (part, field) in [key, value].into_iter().enumerate() {
        let column = convert_part(&pairs, part, field)?;
        let required = if part == 0 { field.clone().with_nullable(false) } else { field.clone() };
        pairs.require(&required, &column, miss)?;
    }
    let columns = vec![convert_part(&pairs, 0, key)?, convert_part(&pairs, 1, value)?];
    let offsets = pairs.offsets::<i32>().ok_or_else(|| failed(ArrowError::OffsetOverflowError(pairs.values.len())))?;
    let structs = StructArray::try_new_with_length(parts.clone(), columns, None, pairs.values.len()).map_err(failed)?;
    let map = MapArray::try_new(Arc::clone(entry_field), offsets, structs, pairs.nulls, *is_sorted);
    Ok(Arc::new(map.map_err(failed)?))
}
