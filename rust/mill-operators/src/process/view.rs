//! What a process function has kept, as a table: a row a key, with its states and its timers.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, ListArray, ListBuilder, MapArray, RecordBatch, StructArray, TimestampMicrosecondBuilder,
    new_null_array,
};
use arrow::compute::concat;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit};
use mill_plan::{Migration, StateSpec, TimerClock};
use mill_protocol::{Error, Restored, Result, TaskContext};
use mill_state::KeyDecoder;

use super::store::{Store, types_of};
use super::values::{KEYS, WRITTEN};
use super::{Own, broadcast, own};
use crate::accumulator::state_error;

/// How many rows are read at a time.
const ROWS: usize = 4096;

/// The columns of the table: those of the key, the states, and the times of timers.
pub(super) fn schema(keys: &SchemaRef, states: &SchemaRef) -> SchemaRef {
    let mut fields: Vec<Field> = keys.fields().iter().map(|field| field.as_ref().clone()).collect();
    let mut add = |field: Field| {
        let mut name = field.name().clone();
        while fields.iter().any(|other| *other.name() == name) {
            name.push('_');
        }
        fields.push(field.with_name(name));
    };
    for field in states.fields().iter().filter(|field| !field.name().contains('@')) {
        let keys = states.field_with_name(&format!("{}{KEYS}", field.name())).ok();
        add(match keys.and_then(|keys| map_type(keys, field)) {
            Some(kind) => Field::new(field.name(), kind, true),
            None => field.as_ref().clone(),
        });
    }
    add(Field::new("event_timers", times_type(TimerClock::Event), true));
    add(Field::new("processing_timers", times_type(TimerClock::Processing), true));
    Arc::new(Schema::new(fields))
}

/// The type of a map whose keys and values are in two columns of lists.
fn map_type(keys: &Field, values: &Field) -> Option<DataType> {
    let (DataType::List(key), DataType::List(value)) = (keys.data_type(), values.data_type()) else { return None };
    let entry = |name: &str, field: &Field, is_nullable: bool| {
        Field::new(name, field.data_type().clone(), is_nullable).with_metadata(field.metadata().clone())
    };
    let entries = Fields::from(vec![entry("key", key, false), entry("value", value, true)]);
    Some(DataType::Map(Arc::new(Field::new("entries", DataType::Struct(entries), false)), false))
}

fn time_type(clock: TimerClock) -> DataType {
    let zone = (clock == TimerClock::Processing).then(|| Arc::from("UTC"));
    DataType::Timestamp(TimeUnit::Microsecond, zone)
}

fn times_type(clock: TimerClock) -> DataType {
    DataType::List(Arc::new(Field::new("item", time_type(clock), true)))
}

/// The timers of a key.
#[derive(Default)]
struct OfKey {
    row: Vec<u8>,
    times: [Vec<i64>; 2],
}

/// The table, of what a checkpoint has; `schema` is that of the description, whose first columns are the key.
pub(crate) fn read(
    schema: &SchemaRef,
    keys: usize,
    restored: &Restored,
    context: &TaskContext,
) -> Result<Vec<RecordBatch>> {
    let damaged = || Error::checkpoint("the state of a process function is damaged: it describes other columns than it has");
    let key_schema: SchemaRef = Arc::new(Schema::new(schema.fields().get(..keys).ok_or_else(damaged)?.to_vec()));
    let owns = restored.bytes.iter().map(|bytes| Own::read(own(bytes)?)).collect::<Result<Vec<Own<'_>>>>()?;
    let versions = owns.first().map(|own| own.versions.clone()).unwrap_or_default();
    let columns = versions.last().map(|last| last.fields().to_vec()).unwrap_or_default();
    let states = own_states(columns);
    let mut store = Store::new(Arc::clone(&key_schema), &states, context)?;
    if self::schema(&key_schema, &store.values.schema).fields().len() != schema.fields().len() {
        return Err(damaged());
    }
    if let Some(broadcast) = owns.iter().find_map(|own| own.broadcast.as_ref()) {
        broadcast::waiting_runs(&mut store.backend, &Arc::new(broadcast.records.clone()))?;
    }
    store.values.restore_versions(versions, &states)?;
    let descriptions: Vec<&[u8]> = owns.iter().map(|own| own.description).collect();
    store.backend.restore(&descriptions, &restored.blocks).map_err(state_error)?;
    let mut timers = timers_of(&store)?;
    let mut encoder = store.encoder()?;
    let decoder = KeyDecoder::new(&types_of(&key_schema)).map_err(state_error)?;
    let mut batches = Vec::new();
    let Store { backend, values, key_rows, .. } = &mut store;
    values.scan(backend, ROWS, |rows, states| {
        let keys = decoder.decode(rows).map_err(state_error)?;
        encoder.encode(&keys, rows.len()).map_err(state_error)?;
        let mut key = Vec::new();
        let mut of_keys = Vec::with_capacity(rows.len());
        for row in 0..rows.len() {
            key.clear();
            encoder.batch().write_key(encoder.kind(), row, &mut key);
            of_keys.push(timers.remove(&key).unwrap_or_default());
        }
        batches.push(table(schema, keys, shown(&states)?, &of_keys)?);
        Ok(())
    })?;
    let left: Vec<OfKey> = timers.into_values().collect();
    if !left.is_empty() {
        let keys = key_rows.decode(left.iter().map(|of_key| of_key.row.as_slice()))?;
        let states = schema.fields()[keys.num_columns()..schema.fields().len() - 2].iter();
        let states = states.map(|field| new_null_array(field.data_type(), left.len())).collect();
        batches.push(table(schema, keys.columns().to_vec(), states, &left)?);
    }
    Ok(batches)
}

/// States with these columns.
fn own_states(columns: Vec<FieldRef>) -> Vec<StateSpec> {
    let mut states: Vec<StateSpec> = Vec::new();
    for column in columns {
        let name = column.name().split('@').next().unwrap_or_default().to_owned();
        match states.last_mut().filter(|last| last.name == name) {
            Some(last) => last.columns.push(column),
            None => {
                let (kind, migration) = (String::new(), Migration::None);
                states.push(StateSpec { name, kind, columns: vec![column], default: None, ttl: None, migration });
            }
        }
    }
    states
}

fn timers_of(store: &Store) -> Result<BTreeMap<Vec<u8>, OfKey>> {
    let mut timers: BTreeMap<Vec<u8>, OfKey> = BTreeMap::new();
    for (place, clock) in [TimerClock::Event, TimerClock::Processing].into_iter().enumerate() {
        for timer in store.timers.all(&store.backend, clock) {
            let of_key = timers.entry(timer.key.to_vec()).or_default();
            of_key.row = timer.value.get(size_of::<i64>()..).unwrap_or_default().to_vec();
            of_key.times[place].push(timer.time);
        }
    }
    Ok(timers)
}

/// The states as they are shown: maps in one column, and without the times at which values were written.
fn shown(states: &RecordBatch) -> Result<Vec<ArrayRef>> {
    let schema = states.schema();
    let mut columns = Vec::new();
    for (field, column) in schema.fields().iter().zip(states.columns()) {
        if field.name().contains('@') {
            debug_assert!(field.name().ends_with(WRITTEN) || field.name().ends_with(KEYS));
            continue;
        }
        let keys = states.column_by_name(&format!("{}{KEYS}", field.name()));
        columns.push(match keys {
            Some(keys) => map_of(keys.as_list(), column.as_list(), keys, field)?,
            None => ArrayRef::clone(column),
        });
    }
    Ok(columns)
}

/// One column of maps, of one with lists of keys and one with lists of values.
fn map_of(keys: &ListArray, values: &ListArray, column: &ArrayRef, field: &Field) -> Result<ArrayRef> {
    let damaged = || Error::checkpoint("the state of a process function is damaged: a map has not as many keys as values");
    let keys_field = Field::new("keys", column.data_type().clone(), true);
    let Some(DataType::Map(entries, is_sorted)) = map_type(&keys_field, field) else { return Err(damaged()) };
    let DataType::Struct(fields) = entries.data_type() else { return Err(damaged()) };
    // Put together again, as the two columns may begin at other places of their values.
    let lists = |list: &ListArray| -> Result<ArrayRef> {
        let lists: Vec<ArrayRef> = (0..list.len()).filter(|&row| list.is_valid(row)).map(|row| list.value(row)).collect();
        let lists: Vec<&dyn Array> = lists.iter().map(AsRef::as_ref).collect();
        if lists.is_empty() { Ok(list.values().slice(0, 0)) } else { concat(&lists).map_err(|_| damaged()) }
    };
    let lengths = (0..keys.len()).map(|row| if keys.is_valid(row) { keys.value_length(row) as usize } else { 0 });
    let offsets = arrow::buffer::OffsetBuffer::from_lengths(lengths);
    let entries_of = StructArray::try_new(fields.clone(), vec![lists(keys)?, lists(values)?], None).map_err(|_| damaged())?;
    let map = MapArray::try_new(Arc::clone(&entries), offsets, entries_of, keys.nulls().cloned(), is_sorted);
    Ok(Arc::new(map.map_err(|_| damaged())?))
}

fn table(schema: &SchemaRef, keys: Vec<ArrayRef>, states: Vec<ArrayRef>, timers: &[OfKey]) -> Result<RecordBatch> {
    let mut columns = keys;
    columns.extend(states);
    for (place, clock) in [TimerClock::Event, TimerClock::Processing].into_iter().enumerate() {
        let values = TimestampMicrosecondBuilder::new().with_data_type(time_type(clock));
        let mut times = ListBuilder::new(values).with_field(Field::new("item", time_type(clock), true));
        for of_key in timers {
            times.values().append_slice(&of_key.times[place]);
            times.append(!of_key.times[place].is_empty());
        }
        columns.push(Arc::new(times.finish()));
    }
    RecordBatch::try_new(Arc::clone(schema), columns)
        .map_err(|error| Error::checkpoint(format!("the state of a process function is damaged: {error}")))
}
