//! Change events of Debezium as changes of keys.
//!
//! ```text
//!   key {"id": 1}    value {"before": …, "after": {"id": 1, "name": "ann"}, "op": "c"}      insert 1 ann
//!   key {"id": 1}    value {"before": …, "after": {"id": 1, "name": "bob"}, "op": "u"}      update 1 bob
//!   key {"id": 1}    value {"before": …, "after": null, "op": "d"}                          delete 1
//!   key {"id": 1}    no value: a tombstone                                                  delete 1
//! ```
//!
//! The key of the message decides which row changes, so `before` is never needed: an update sets the row of its key, a deletion
//! withdraws it. Debezium writes an update of the key itself as a deletion and an insertion. After a compaction of the topic a
//! tombstone may be all that is left of a key, so it is a deletion, too.
//!
//! With `schemas.enable` a value is `{"schema": …, "payload": …}`, and the schema says what numbers and texts mean (`connect.rs`).

use arrow::datatypes::{DataType, FieldRef, Fields, SchemaRef};
use mill_frame::json::{Fault, Kind, Names, Scanner, Value, text_of};

use super::connect::{Shape, convert, source};

/// What happens to a key, as `from_changelog` calls it.
pub(super) type Op = &'static str;

const INSERT: Op = "insert";
const UPDATE: Op = "update";
const DELETE: Op = "delete";

/// Reads change events.
pub(super) struct Events {
    /// The columns that are read.
    columns: Vec<Column>,
    names: Names,
    /// The columns of the key, and how JSON begins them.
    key: Vec<(String, DataType, Vec<u8>)>,
    of_key: Schemas,
    of_value: Schemas,
    /// The values of the key as JSON, one after the other, and where each ends.
    key_values: Vec<u8>,
    key_ends: Vec<usize>,
}

/// A column that is read.
struct Column {
    field: FieldRef,
    /// How JSON begins it: its name, and a colon.
    head: Vec<u8>,
    /// Which column of the key it is.
    key: Option<usize>,
}

/// The last schema that came with a message, and how it was read.
#[derive(Default)]
struct Schemas {
    source: Vec<u8>,
    shape: Option<Shape>,
}

impl Schemas {
    /// The payload of an envelope that begins with the last schema as the converter writes it, which is not read again then.
    fn payload(&self, data: &[u8]) -> Option<Value> {
        if self.source.is_empty() {
            return None;
        }
        let rest = data.strip_prefix(b"{\"schema\":")?.strip_prefix(self.source.as_slice())?.strip_prefix(b",\"payload\":")?;
        let mut scanner = Scanner::new(data, data.len() - rest.len());
        let payload = scanner.value(1).ok()?;
        (data[scanner.at..].trim_ascii() == b"}").then_some(payload)
    }

    fn of(&mut self, source: &[u8]) -> Result<Option<&Shape>, String> {
        if self.source != source {
            let schema = serde_json::from_slice(source).map_err(|e| format!("the schema is not JSON: {e}"))?;
            self.shape = Shape::of(&schema)?;
            self.source = source.to_vec();
        }
        Ok(self.shape.as_ref())
    }
}

/// The values of the keys of a JSON object that matter; the scanner is at the object before, and after it when done.
fn members<const N: usize>(scanner: &mut Scanner<'_>, data: &[u8], unit: &str, names: [&str; N]) -> Result<[Value; N], String> {
    let mut found = [Value::MISSING; N];
    let mut twice = None;
    let passed = scanner.object::<Fault>(0, |key, value| {
        if let Some(at) = names.iter().position(|name| name.as_bytes() == key.bytes(data)) {
            if found[at].kind != Kind::Missing {
                twice = Some(names[at]);
            }
            found[at] = value;
        }
        Ok(())
    });
    passed.map_err(|fault| fault.message_of(unit, "object", data, 0))?;
    match twice {
        Some(name) => Err(format!("the object has the key {name:?} twice")),
        None => Ok(found),
    }
}

/// A value of a message, and what is known of it.
struct Unwrapped<'s> {
    value: Value,
    shape: Option<&'s Shape>,
    is_enveloped: bool,
}

/// The one JSON value that a message has as its key or its value, out of the envelope with its schema, if there is one.
fn unwrapped<'s>(schemas: &'s mut Schemas, data: &[u8], unit: &str) -> Result<Unwrapped<'s>, String> {
    if std::str::from_utf8(data).is_err() {
        return Err(format!("the {unit} is not UTF-8"));
    }
    if let Some(payload) = schemas.payload(data) {
        return Ok(Unwrapped { value: payload, shape: schemas.shape.as_ref(), is_enveloped: true });
    }
    let mut scanner = Scanner::new(data, 0);
    scanner.spaces();
    let start = scanner.at;
    let is_object = data.get(start) == Some(&b'{');
    let (value, envelope) = if is_object {
        let [schema, payload] = members(&mut scanner, data, unit, ["schema", "payload"])?;
        (Value { start: start as u32, end: scanner.at as u32, kind: Kind::Object }, Some((schema, payload)))
    } else {
        (scanner.value(0).map_err(|fault| fault.message_of(unit, "value", data, 0))?, None)
    };
    if !scanner.is_at_end() {
        return Err(Fault::At(scanner.at).message_of(unit, "value", data, 0));
    }
    match envelope {
        Some((schema, payload)) if matches!(schema.kind, Kind::Object | Kind::Null) && payload.kind != Kind::Missing => {
            Ok(Unwrapped { value: payload, shape: schemas.of(source(schema, data))?, is_enveloped: true })
        }
        _ => Ok(Unwrapped { value, shape: None, is_enveloped: false }),
    }
}

impl Events {
    /// Of rows with these columns, some of `all`, and this key, which is among them.
    pub(super) fn new(all: &SchemaRef, columns: Vec<FieldRef>, key: &[String]) -> Events {
        let names = Names::new(&Fields::from(columns.clone()));
        let place = |name: &String| key.iter().position(|key| key == name);
        let column = |field: FieldRef| Column { head: head(field.name()), key: place(field.name()), field };
        let columns = columns.into_iter().map(column).collect();
        let of_key = key.iter().filter_map(|name| Some((name.clone(), all.field_with_name(name).ok()?.data_type().clone(), head(name))));
        let key = of_key.collect();
        let (of_key, of_value) = (Schemas::default(), Schemas::default());
        Events { columns, names, key, of_key, of_value, key_values: Vec::new(), key_ends: Vec::new() }
    }

    /// Adds the row of an event to `out` as a JSON object, and returns what becomes of its key.
    ///
    /// # Errors
    /// What is wrong with the message. Then `out` may have a part of it.
    pub(super) fn read(&mut self, key: Option<&[u8]>, value: Option<&[u8]>, out: &mut Vec<u8>) -> Result<Op, String> {
        let mut schemas = std::mem::take(&mut self.of_value);
        let read = self.read_with(&mut schemas, key, value, out);
        self.of_value = schemas;
        read
    }

    fn read_with(
        &mut self,
        schemas: &mut Schemas,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        out: &mut Vec<u8>,
    ) -> Result<Op, String> {
        let key = key.ok_or("the message has no key, and the key says which row changes (message.key.columns in the connector sets one)")?;
        self.read_key(key)?;
        let Some(data) = value else {
            self.write_key(out);
            return Ok(DELETE);
        };
        let Unwrapped { value: event, shape, is_enveloped } = unwrapped(schemas, data, "value")?;
        match event.kind {
            Kind::Object => {}
            // In an envelope a tombstone has a schema.
            Kind::Null if is_enveloped => {
                self.write_key(out);
                return Ok(DELETE);
            }
            _ => return Err("the value is not a JSON object".to_owned()),
        }
        let mut scanner = Scanner::new(&data[..event.end as usize], event.start as usize);
        let [op, after] = members(&mut scanner, data, "value", ["op", "after"])?;
        let op = match (op.kind, op.bytes(data)) {
            (Kind::Missing, _) => {
                return Err("the value has no \"op\", so it is no change event of Debezium (rows without an envelope, as \
                            ExtractNewRecordState makes them, are format=\"json\")"
                    .to_owned());
            }
            (Kind::String, b"c" | b"r") => INSERT,
            (Kind::String, b"u") => UPDATE,
            (Kind::String, b"d") => DELETE,
            (Kind::String, b"t") => {
                return Err("the table was emptied by TRUNCATE, which says of no key that it is gone; start a job anew after that, \
                            or leave out such events in the connector (skipped.operations=t)"
                    .to_owned());
            }
            _ => return Err(format!("op is {}; it is \"c\", \"r\", \"u\" or \"d\"", String::from_utf8_lossy(source(op, data)))),
        };
        if op == DELETE {
            self.write_key(out);
            return Ok(op);
        }
        if after.kind != Kind::Object {
            return Err(format!("after is no JSON object, and an event with the op \"{}\" has the new row there", if op == INSERT { 'c' } else { 'u' }));
        }
        let shape = shape.and_then(|shape| shape.field("after"));
        self.write_row(after, data, shape, out)?;
        Ok(op)
    }

    /// Takes the values of the key of a message.
    fn read_key(&mut self, data: &[u8]) -> Result<(), String> {
        let Events { key: names, of_key, key_values, key_ends, .. } = self;
        key_values.clear();
        key_ends.clear();
        let Unwrapped { value, shape, .. } = unwrapped(of_key, data, "key")?;
        let mut values = vec![Value::MISSING; names.len()];
        let mut others = Vec::new();
        match value.kind {
            Kind::Object => {
                let mut scanner = Scanner::new(&data[..value.end as usize], value.start as usize);
                let passed = scanner.object::<Fault>(0, |name, value| {
                    let name = text_of(name, data);
                    match names.iter().position(|(wanted, ..)| *wanted == name) {
                        Some(at) if values[at].kind == Kind::Missing => values[at] = value,
                        _ => others.push(name),
                    }
                    Ok(())
                });
                passed.map_err(|fault| fault.message_of("key", "object", data, 0))?;
            }
            // A transformation may have taken the one value out of the struct.
            Kind::Number | Kind::String | Kind::Escaped | Kind::Boolean if names.len() == 1 => values[0] = value,
            _ => return Err("the key of the message is no JSON object".to_owned()),
        }
        let missing = names.iter().zip(&values).find(|(_, value)| value.kind == Kind::Missing);
        if missing.is_some() || !others.is_empty() {
            let wanted: Vec<&str> = names.iter().map(|(name, ..)| name.as_str()).collect();
            return Err(format!(
                "key= names {wanted:?}, and the key of the message is {}; they have to be the same, as the latest row of each key counts",
                String::from_utf8_lossy(&source(value, data)[..source(value, data).len().min(200)])
            ));
        }
        for ((name, to, _), value) in names.iter().zip(values) {
            let field = shape.and_then(|shape| if shape.is_struct() { shape.field(name) } else { Some(shape) });
            convert(value, data, to, field, key_values).map_err(|wrong| format!("column {name:?} of the key: {wrong}"))?;
            key_ends.push(key_values.len());
        }
        Ok(())
    }

    /// The value of a column of the key.
    fn key_value(&self, at: usize) -> &[u8] {
        let start = if at == 0 { 0 } else { self.key_ends[at - 1] };
        &self.key_values[start..self.key_ends[at]]
    }

    /// Adds a row that has the key alone.
    fn write_key(&self, out: &mut Vec<u8>) {
        out.push(b'{');
        for (at, (.., head)) in self.key.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            out.extend_from_slice(head);
            out.extend_from_slice(self.key_value(at));
        }
        out.push(b'}');
    }

    /// Adds a row with the columns that are read.
    fn write_row(&self, row: Value, data: &[u8], shape: Option<&Shape>, out: &mut Vec<u8>) -> Result<(), String> {
        let mut has_key = vec![false; self.key.len()];
        let mut is_first = true;
        let mut wrong = None;
        let mut next = 0;
        out.push(b'{');
        let mut scanner = Scanner::new(&data[..row.end as usize], row.start as usize);
        let passed = scanner.object::<Fault>(0, |name, value| {
            let Some(column) = self.names.find(name, data, &mut next).map(|at| &self.columns[at]) else { return Ok(()) };
            let name = column.field.name();
            if !std::mem::replace(&mut is_first, false) {
                out.push(b',');
            }
            out.extend_from_slice(&column.head);
            let start = out.len();
            let result = convert(value, data, column.field.data_type(), shape.and_then(|shape| shape.field(name)), out);
            if let Err(text) = result {
                wrong.get_or_insert(format!("column {name:?}: {text}"));
            } else if let Some(at) = column.key {
                has_key[at] = true;
                if &out[start..] != self.key_value(at) {
                    wrong.get_or_insert(format!(
                        "column {name:?} is {} in the key of the message and {} in its row",
                        String::from_utf8_lossy(self.key_value(at)),
                        String::from_utf8_lossy(&out[start..])
                    ));
                }
            }
            Ok(())
        });
        passed.map_err(|fault| fault.message_of("value", "object", data, 0))?;
        if let Some(wrong) = wrong {
            return Err(wrong);
        }
        for (at, (.., head)) in self.key.iter().enumerate().filter(|(at, _)| !has_key[*at]) {
            if !std::mem::replace(&mut is_first, false) {
                out.push(b',');
            }
            out.extend_from_slice(head);
            out.extend_from_slice(self.key_value(at));
        }
        out.push(b'}');
        Ok(())
    }
}

/// How JSON begins a value of this name in an object.
fn head(name: &str) -> Vec<u8> {
    format!("{}:", serde_json::Value::from(name)).into_bytes()
}
