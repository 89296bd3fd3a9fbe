//! What comes out of groups: results, partial results, and rows by their written keys.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array, new_null_array};
use arrow::compute::filter;
use arrow::datatypes::{Field, FieldRef, Schema, SchemaRef};
use mill_frame::text::record_json;
use mill_plan::AggregateSpec;
use mill_protocol::{Error, Outbox, Rejected, Result};
use mill_state::{Cursor, Flag, KeyBatch, KeyDecoder, LOOKUP_ROWS_MAX, PaneTables, RowValues, RowsRead, Span};

use super::{Groups, records};
use crate::accumulator::Accumulator;
use crate::accumulator::carries::Carries;
use crate::accumulator::input::state_error;

/// A row of which a result does not fit its type.
pub(crate) struct UnfitRow {
    /// Its key columns, one value each.
    pub(crate) keys: Vec<ArrayRef>,
    /// Its results; those that do not fit are null.
    pub(crate) results: Vec<ArrayRef>,
    /// Why it does not fit.
    pub(crate) error: Error,
}

/// Rows on their way into another table.
pub(in crate::accumulator) struct MovedRows {
    keys: Vec<ArrayRef>,
    /// What each has beside its key.
    values: Vec<RowValues>,
    /// How often sums wrapped around: of each accumulator, one count a row.
    carries: Vec<(usize, Vec<i64>)>,
}

impl MovedRows {
    /// The same with other values, and with counts of other accumulators: those of which nothing is left are left out.
    pub(in crate::accumulator) fn mapped(
        self,
        values: impl Fn(&RowValues) -> RowValues,
        accumulator: impl Fn(usize) -> Option<usize>,
    ) -> MovedRows {
        let carries = self.carries.into_iter().filter_map(|(of, counts)| Some((accumulator(of)?, counts)));
        MovedRows { keys: self.keys, values: self.values.iter().map(values).collect(), carries: carries.collect() }
    }
}

impl Groups {
    /// Takes the rows of written keys out of a pane: their keys and results.
    pub(crate) fn take_written<'k>(
        &mut self,
        pane: i64,
        keys: impl IntoIterator<Item = &'k [u8]>,
    ) -> Result<(Vec<ArrayRef>, Vec<ArrayRef>)> {
        let keys = KeyBatch::of_written(self.encoder.kind(), keys).map_err(state_error)?;
        let table = self.panes.open(pane);
        let (rows, found) = table.find(&keys);
        if found.len() != keys.len() {
            return Err(Error::internal("a row of a window is not there"));
        }
        let of_rows = decoded(&self.decoder, &rows, self.keys.len())?;
        let taken = finished(&self.accumulators, &mut self.carries, &mut self.unfit, pane, (of_rows.clone(), Vec::new()), &rows)?;
        for record in 0..keys.len() {
            table.remove(&keys, record);
        }
        if let Some(carries) = &mut self.carries {
            carries.remove(pane, &of_rows, |_| true, keys.len())?;
        }
        Ok(taken)
    }

    /// Which of these written keys have a row in a pane; their key columns, and the results of one aggregate.
    pub(crate) fn find_written<'k>(
        &mut self,
        pane: i64,
        keys: impl IntoIterator<Item = &'k [u8]>,
        aggregate: usize,
    ) -> Result<(Vec<u32>, Vec<ArrayRef>, ArrayRef)> {
        let keys = KeyBatch::of_written(self.encoder.kind(), keys).map_err(state_error)?;
        let (rows, found) = self.panes.open(pane).find(&keys);
        let columns = decoded(&self.decoder, &rows, self.keys.len())?;
        Ok((found, columns, self.accumulators[aggregate].finish(&rows)?))
    }

    /// Goes over the keys of a pane: the columns of the next ones with the results of the first aggregates, so many, and each
    /// key as it is written. `None` at the end.
    pub(crate) fn written_keys(
        &mut self,
        pane: i64,
        cursor: &mut Cursor,
        aggregates: usize,
        mut each: impl FnMut(usize, &[u8]),
    ) -> Result<Option<(Vec<ArrayRef>, Vec<ArrayRef>)>> {
        let Some(table) = self.panes.pane(pane) else { return Ok(None) };
        let rows = table.scan(cursor, LOOKUP_ROWS_MAX);
        if rows.is_empty() {
            return Ok(None);
        }
        let columns = self.decoder.decode(&rows).map_err(state_error)?;
        let results = self.accumulators[..aggregates].iter().map(|accumulator| accumulator.finish(&rows)).collect::<Result<_>>()?;
        let count = rows.len();
        self.encode(&columns, count)?;
        let mut bytes = Vec::new();
        for row in 0..count {
            bytes.clear();
            self.encoder.batch().write_key(self.encoder.kind(), row, &mut bytes);
            each(row, &bytes);
        }
        Ok(Some((columns, results)))
    }

    /// Reads on in a pane: keys and results of the next rows, about `rows_max` of them; `None` at the end. Results that do
    /// not fit are left out, see [`reject_unfit`](Groups::reject_unfit).
    pub(crate) fn results(
        &mut self,
        pane: i64,
        cursor: &mut Cursor,
        rows_max: usize,
        is_changed: bool,
    ) -> Result<Option<(Vec<ArrayRef>, Vec<ArrayRef>)>> {
        let Some(rows) = next_rows(&mut self.panes, pane, cursor, rows_max, is_changed, self.pending) else {
            return Ok(None);
        };
        let keys = decoded(&self.decoder, &rows, self.keys.len())?;
        finished(&self.accumulators, &mut self.carries, &mut self.unfit, pane, (keys, Vec::new()), &rows).map(Some)
    }

    /// The same of those rows alone whose last key column, which is a number, is within a range, if one is given.
    pub(crate) fn results_within(
        &mut self,
        pane: i64,
        cursor: &mut Cursor,
        rows_max: usize,
        within: Option<RangeInclusive<i64>>,
    ) -> Result<Option<(Vec<ArrayRef>, Vec<ArrayRef>)>> {
        let Some(within) = within else { return self.results(pane, cursor, rows_max, false) };
        let Some(table) = self.panes.pane(pane) else { return Ok(None) };
        let rows = table.scan_within(cursor, rows_max, within);
        if rows.is_empty() {
            return Ok(None);
        }
        let keys = decoded(&self.decoder, &rows, self.keys.len())?;
        finished(&self.accumulators, &mut self.carries, &mut self.unfit, pane, (keys, Vec::new()), &rows).map(Some)
    }

    /// Reads on in a pane: the keys of the next rows; `None` at the end.
    pub(crate) fn keys(&mut self, pane: i64, cursor: &mut Cursor) -> Result<Option<Vec<ArrayRef>>> {
        let Some(rows) = next_rows(&mut self.panes, pane, cursor, LOOKUP_ROWS_MAX, false, None) else { return Ok(None) };
        decoded(&self.decoder, &rows, self.keys.len()).map(Some)
    }

    /// Moves all rows of a pane into another one, which has none of their keys.
    pub(crate) fn move_rows(&mut self, from: i64, into: i64) -> Result<()> {
        let mut cursor = Cursor::default();
        while let Some(moved) = self.next_moved(from, &mut cursor)? {
            self.put_moved(into, moved)?;
        }
        self.close(from);
        Ok(())
    }

    /// Moves all rows of a pane of other groups into a pane of these, which has none of their keys. The groups are alike, but
    /// that keys here have a number more as their last column, which is that of the other pane.
    pub(crate) fn adopt_rows(&mut self, into: i64, groups: &mut Groups, pane: i64) -> Result<()> {
        let mut cursor = Cursor::default();
        while let Some(mut moved) = groups.next_moved(pane, &mut cursor)? {
            moved.keys.push(Arc::new(Int64Array::from_value(pane, moved.values.len())));
            self.put_moved(into, moved)?;
        }
        groups.close(pane);
        Ok(())
    }

    pub(in crate::accumulator) fn next_moved(&mut self, pane: i64, cursor: &mut Cursor) -> Result<Option<MovedRows>> {
        let Some(rows) = next_rows(&mut self.panes, pane, cursor, LOOKUP_ROWS_MAX, false, None) else { return Ok(None) };
        let keys = decoded(&self.decoder, &rows, self.keys.len())?;
        let values: Vec<RowValues> = (0..rows.len()).map(|row| rows.values(row)).collect();
        let carries = match &mut self.carries {
            Some(carries) if carries.has(pane) => carries.of_keys(pane, &keys, values.len())?,
            _ => Vec::new(),
        };
        Ok(Some(MovedRows { keys, values, carries }))
    }

    pub(in crate::accumulator) fn put_moved(&mut self, pane: i64, moved: MovedRows) -> Result<()> {
        let count = moved.values.len();
        self.encode(&moved.keys, count)?;
        let keys = self.encoder.batch();
        let mut rows = self.panes.open(pane).find_or_insert(keys, Span { start: 0, len: count });
        for (row, values) in moved.values.into_iter().enumerate() {
            rows.put_values(row, values);
        }
        let Some(carries) = &mut self.carries else { return Ok(()) };
        for (accumulator, counts) in moved.carries {
            let some: Vec<(usize, i64)> = counts.into_iter().enumerate().filter(|&(_, count)| count != 0).collect();
            if !some.is_empty() {
                carries.add(pane, keys, accumulator, &some);
            }
        }
        Ok(())
    }

    /// The keys of results that do not fit, and why.
    pub(crate) fn take_unfit(&mut self) -> Vec<UnfitRow> {
        std::mem::take(&mut self.unfit)
    }

    /// The results of such a row that are among these columns.
    pub(crate) fn named_results(&self, row: &UnfitRow, columns: &[FieldRef]) -> Vec<(FieldRef, ArrayRef)> {
        named_results(&self.recipe.aggregates, row, columns)
    }

    /// Adds results that do not fit.
    pub(crate) fn put_unfit(&mut self, unfit: Vec<UnfitRow>) {
        self.unfit.extend(unfit);
    }

    /// Hands over the results that do not fit their type, as records of the key columns, which `schema` begins with, of the bounds
    /// that `bounds` finds, which come next in `schema`, and of the results; those that do not fit are null.
    pub(crate) fn reject_unfit(
        &mut self,
        schema: &SchemaRef,
        bounds: impl Fn(&UnfitRow) -> Result<Vec<ArrayRef>>,
        out: &mut Outbox,
    ) -> Result<()> {
        let mut found = Vec::with_capacity(self.unfit.len());
        let shown = self.owners.as_ref().map_or(self.keys.len(), |(owners, _)| *owners);
        for row in self.unfit.drain(..) {
            let bounds = bounds(&row)?;
            let mut columns: Vec<ArrayRef> = row.keys.iter().take(shown).cloned().collect();
            columns.extend(bounds);
            let mut fields: Vec<FieldRef> = schema.fields().iter().take(columns.len()).cloned().collect();
            for (field, result) in named_results(&self.recipe.aggregates, &row, &schema.fields()[columns.len()..]) {
                fields.push(field);
                columns.push(result);
            }
            let record = match columns.is_empty() {
                true => "{}".to_owned(),
                false => record_json(records(&Arc::new(Schema::new(fields)), columns)?.data(), 0),
            };
            found.push((record, row.error));
        }
        // Rows are in the order of a table, which says nothing to anyone.
        found.sort_by(|(a, _), (b, _)| a.cmp(b));
        found.into_iter().for_each(|(record, error)| out.reject(Rejected::of(error, record)));
        Ok(())
    }

    /// The columns of counts that come last in the partial results of rows that are kept.
    pub(crate) fn carry_fields(&self) -> Vec<Field> {
        self.carries.as_ref().map(Carries::fields).unwrap_or_default()
    }

    /// Reads on in a pane: keys and partial results, those of dense keys first if they are wanted; these are gone once the next
    /// ones are read.
    pub(crate) fn partials(
        &mut self,
        pane: i64,
        cursor: &mut Cursor,
        rows_max: usize,
        is_near_wanted: bool,
    ) -> Result<Option<(Vec<ArrayRef>, Vec<ArrayRef>)>> {
        if is_near_wanted
            && let Some(near) = &mut self.near
            && let Some(rows) = near.read(pane, rows_max)
        {
            let keys = match &mut self.coded {
                Some(coded) => coded.decode(rows.words(1))?,
                None => decoded(&self.decoder, &rows, self.keys.len())?,
            };
            return Ok(Some((keys, partial_columns(&self.accumulators, &rows)?)));
        }
        let Some(rows) = next_rows(&mut self.panes, pane, cursor, rows_max, false, self.pending) else { return Ok(None) };
        let keys = decoded(&self.decoder, &rows, self.keys.len())?;
        let mut columns = partial_columns(&self.accumulators, &rows)?;
        if let Some(carries) = &mut self.carries {
            columns.extend(carries.columns(pane, &keys, rows.len())?);
        }
        Ok(Some((keys, columns)))
    }

    /// The partial results of those keys that have a row in the pane, and which of them these are.
    pub(crate) fn partials_of(
        &mut self,
        pane: i64,
        keys: &[ArrayRef],
        rows: usize,
    ) -> Result<(Vec<u32>, Vec<ArrayRef>)> {
        self.encode(keys, rows)?;
        let (rows, found) = self.panes.open(pane).find(self.encoder.batch());
        let mut columns = partial_columns(&self.accumulators, &rows)?;
        if let Some(carries) = &mut self.carries {
            let keys = decoded(&self.decoder, &rows, self.keys.len())?;
            columns.extend(carries.columns(pane, &keys, rows.len())?);
        }
        Ok((found, columns))
    }

    /// Partial results of the frame's records one by one, to which only this accumulator has anything to add.
    pub(crate) fn singles_of(&self, accumulator: usize) -> Result<Vec<ArrayRef>> {
        let mut columns = Vec::new();
        for (index, of) in self.accumulators.iter().enumerate() {
            let own = of.singles()?.into_iter();
            columns.extend(own.map(|column| match index == accumulator {
                true => column,
                false => new_null_array(column.data_type(), column.len()),
            }));
        }
        Ok(columns)
    }

    /// Partial results of the frame's records, one by one, without any table.
    pub(crate) fn singles(&self) -> Result<Vec<ArrayRef>> {
        let mut columns = Vec::new();
        for accumulator in &self.accumulators {
            columns.extend(accumulator.singles()?);
        }
        Ok(columns)
    }
}

/// The results of a row that are among these columns. Those of which an expression makes a column are not, and neither are the
/// bounds that come before the aggregates of a session, whatever the user's are called.
fn named_results(aggregates: &[AggregateSpec], row: &UnfitRow, columns: &[FieldRef]) -> Vec<(FieldRef, ArrayRef)> {
    let found = aggregates.iter().zip(&row.results).enumerate().filter_map(|(place, (spec, result))| {
        let is_hidden = spec.name.starts_with("__") || aggregates[place + 1..].iter().any(|later| later.name == spec.name);
        let column = columns.iter().find(|column| !is_hidden && *column.name() == spec.name)?;
        Some((Arc::new(column.as_ref().clone().with_nullable(true)), Arc::clone(result)))
    });
    found.collect()
}

/// Keys and results of these rows; of results that do not fit the keys go to `unfit`. What is known beside the keys of the rows
/// comes after these.
pub(super) fn finished(
    accumulators: &[Box<dyn Accumulator>],
    carries: &mut Option<Carries>,
    unfit: &mut Vec<UnfitRow>,
    pane: i64,
    (mut keys, beside): (Vec<ArrayRef>, Vec<ArrayRef>),
    rows: &RowsRead<'_>,
) -> Result<(Vec<ArrayRef>, Vec<ArrayRef>)> {
    let carries = match carries {
        Some(carries) if carries.has(pane) => carries.of_keys(pane, &keys, rows.len())?,
        _ => Vec::new(),
    };
    let mut results = Vec::with_capacity(accumulators.len());
    let mut failed: Vec<(usize, usize, Error)> = Vec::new();
    for (index, accumulator) in accumulators.iter().enumerate() {
        let (result, own) = match carries.iter().find(|(of, _)| *of == index) {
            None => accumulator.finish_fitting(rows)?,
            Some((_, counts)) => accumulator.finish_carried(rows, counts)?,
        };
        failed.extend(own.into_iter().map(|(row, error)| (row, index, error)));
        results.push(result);
    }
    let has_failed = !failed.is_empty();
    let mut is_fit = vec![true; if has_failed { rows.len() } else { 0 }];
    let first = unfit.len();
    let mut places = HashMap::new();
    for (row, aggregate, error) in failed {
        // A row that fails twice is one result that there is not.
        if std::mem::replace(&mut is_fit[row], false) {
            let of_row = |columns: &[ArrayRef]| columns.iter().map(|column| column.slice(row, 1)).collect();
            places.insert(row, unfit.len() - first);
            unfit.push(UnfitRow { keys: of_row(&keys), results: of_row(&results), error });
        }
        let result = &mut unfit[first + places[&row]].results[aggregate];
        *result = new_null_array(result.data_type(), 1);
    }
    keys.extend(beside);
    if has_failed {
        let is_fit = BooleanArray::from(is_fit);
        for column in keys.iter_mut().chain(&mut results) {
            *column = filter(column, &is_fit).map_err(|error| Error::internal(error.to_string()))?;
        }
    }
    Ok((keys, results))
}

/// The next rows of a pane; `None` if there are no more.
fn next_rows<'p>(
    panes: &'p mut PaneTables,
    pane: i64,
    cursor: &mut Cursor,
    rows_max: usize,
    is_changed: bool,
    pending: Option<Flag>,
) -> Option<RowsRead<'p>> {
    let table = panes.pane(pane)?;
    let rows = if is_changed { table.scan_changed(cursor, rows_max, pending) } else { table.scan(cursor, rows_max) };
    (!rows.is_empty()).then_some(rows)
}

/// The key columns of these rows.
pub(super) fn decoded(decoder: &KeyDecoder, rows: &RowsRead<'_>, columns: usize) -> Result<Vec<ArrayRef>> {
    let mut keys = decoder.decode(rows).map_err(state_error)?;
    keys.truncate(columns);
    Ok(keys)
}

fn partial_columns(accumulators: &[Box<dyn Accumulator>], rows: &RowsRead<'_>) -> Result<Vec<ArrayRef>> {
    let mut columns = Vec::new();
    for accumulator in accumulators {
        columns.extend(accumulator.partial(rows)?);
    }
    Ok(columns)
}
