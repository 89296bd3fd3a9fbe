//! Reads the rows after a key.
//!
//! ```text
//!   BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY
//!   COPY (SELECT … WHERE key > last ORDER BY key) TO STDOUT (FORMAT binary)  ─►  chunks ─►  a queue of two ─►  the reader
//! ```
//!
//! What a position is, and what follows a lost connection: `table_reader.rs`.

use std::sync::Arc;

use ::postgres::{Client, IsolationLevel, Transaction};
use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::Schema;
use mill_protocol::{Error, Result};

use super::address::{Attempt, Failure};
use super::decode::Builder;
use super::form::Form;
use super::growing;
use super::keys::{At, KeyColumn};
use super::name::identifier;
use super::source::Shared;
use crate::table_reader::{BYTES_MAX, Chunk, GROUP_ROWS_MAX, KeyedRows, Link};

/// A row that is longer is none.
const ROW_BYTES_MAX: usize = 1 << 31;
const BEGIN: &[u8] = b"PGCOPY\n\xff\r\n\0";

/// What is gathered of a chunk.
struct Gathered {
    builders: Vec<Builder>,
    rows: usize,
    bytes: usize,
    ends: Vec<usize>,
    bad: Vec<(usize, String)>,
    /// The key of the row before, as the server sends it.
    key: Vec<u8>,
}

impl KeyedRows for Shared {
    const THREAD: &'static str = "mill-postgres";

    fn call(&self) -> String {
        self.call()
    }

    fn width(&self) -> usize {
        self.width
    }

    fn key_of(&self, columns: &[ArrayRef], row: usize) -> Result<At> {
        let of = self.growth.as_ref().map(|growth| growth.identity.clone());
        Ok(At { of, ..At::of(&self.key, columns, row)? })
    }

    fn pull(&self, after: Option<&At>, rows_most: usize, link: &Link, give: &mut dyn FnMut(Chunk, At) -> bool) -> Attempt<()> {
        let call = self.call();
        let failed = |e: &::postgres::Error| self.address.failure(&call, "read rows", e);
        mill_fault::reach("postgres.read").map_err(|e| Failure::Again(Error::connector(format!("{call}: {e}"))))?;
        let mut client = self.address.connect(&call)?;
        let (address, token) = (self.address.clone(), client.cancel_token());
        link.set_cancel(move || address.cancel(&token, "read_postgres()"));
        if link.is_over() {
            return Ok(());
        }
        if let Some(growth) = &self.growth {
            growing::check(self, growth, &mut client)?;
            return growing::follow(self, growth, &mut client, after, rows_most, link, give);
        }
        let mut transaction = begin(&mut client).map_err(|e| failed(&e))?;
        if copy_rows(self, &mut transaction, after, None, rows_most, give)? {
            transaction.commit().map_err(|e| failed(&e))?;
        }
        Ok(())
    }
}

/// Begins to read: all that is read sees one state of the database.
pub(super) fn begin(client: &mut Client) -> std::result::Result<Transaction<'_>, ::postgres::Error> {
    client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true).start()
}

/// Passes on the rows after a key, and up to another if one is given, in chunks with their last keys, until there are no more or nobody
/// wants them; returns whether it was all.
pub(super) fn copy_rows(
    shared: &Shared,
    transaction: &mut Transaction<'_>,
    after: Option<&At>,
    until: Option<&At>,
    rows_most: usize,
    give: &mut dyn FnMut(Chunk, At) -> bool,
) -> Attempt<bool> {
    let call = shared.call();
    let failed = |e: &::postgres::Error| shared.address.failure(&call, "read rows", e);
    for column in shared.key.iter().filter(|column| !column.is_never_null) {
        let sql = format!("SELECT 1 FROM {} AS q WHERE q.{} IS NULL LIMIT 1", shared.relation, identifier(&column.name));
        if !transaction.query(&sql, &[]).map_err(|e| failed(&e))?.is_empty() {
            return Err(Failure::Final(Error::data(format!(
                "{call}: column {:?} of order_by has a null, which no key has; leave such rows out in a query, or read in another order",
                column.name
            ))));
        }
    }
    let conditions = [after.map(|at| at.after(&shared.key)), until.map(|at| at.until(&shared.key))].into_iter().flatten();
    let conditions: Vec<String> =
        conditions.collect::<Option<_>>().ok_or_else(|| Error::internal("the key was checked when it was read"))?;
    let condition = if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
    let names = shared.columns.iter().map(|(field, _)| format!("q.{}", identifier(field.name()))).collect::<Vec<_>>();
    let by = shared.key.iter().map(KeyColumn::sql).collect::<Vec<_>>();
    let sql = format!(
        "COPY (SELECT {} FROM {} AS q{condition} ORDER BY {}) TO STDOUT (FORMAT binary)",
        names.join(", "),
        shared.relation,
        by.join(", ")
    );
    // Binary rows do not say what they are, and the table may have been altered since it was looked at.
    let selected = format!("SELECT {} FROM {} AS q", names.join(", "), shared.relation);
    let statement = transaction.prepare(&selected).map_err(|e| failed(&e))?;
    for ((field, form), column) in shared.columns.iter().zip(statement.columns()) {
        if Form::of(column.type_(), column.type_modifier()).as_ref() != Some(form) {
            return Err(Failure::Final(Error::schema(format!(
                "{call}: the column {:?} is {} now, and was {} when the source was declared; declare it again",
                field.name(),
                column.type_().name(),
                form.declared()
            ))));
        }
    }
    let mut input = transaction.copy_out(&sql).map_err(|e| failed(&e))?;
    let mut buffer = Buffer { bytes: Vec::new(), start: 0, is_ended: false };
    let mut fill = |buffer: &mut Buffer| -> Attempt<bool> {
        buffer.fill(&mut input).map_err(|e| match e.get_ref().and_then(|inner| inner.downcast_ref::<::postgres::Error>()) {
            Some(inner) => failed(inner),
            None => Failure::Again(Error::connector(format!("{call}: cannot read rows: {e}"))),
        })
    };
    let damaged = || Failure::Final(Error::connector(format!("{call}: rows come in a form that is not known")));
    while buffer.rest().len() < 19 {
        if !fill(&mut buffer)? {
            return Err(damaged());
        }
    }
    if !buffer.rest().starts_with(BEGIN) {
        return Err(damaged());
    }
    let extra = u32::from_be_bytes(std::array::from_fn(|at| buffer.rest()[15 + at])) as usize;
    if extra > 1 << 20 {
        return Err(damaged());
    }
    while buffer.rest().len() < 19 + extra {
        if !fill(&mut buffer)? {
            return Err(damaged());
        }
    }
    buffer.start += 19 + extra;
    let mut gathered = Gathered::new(shared)?;
    let mut fields = Vec::with_capacity(shared.columns.len());
    loop {
        match row(buffer.rest(), shared.columns.len(), &mut fields).map_err(|()| damaged())? {
            Row::Cut => {
                if buffer.rest().len() > ROW_BYTES_MAX || !fill(&mut buffer)? {
                    return Err(damaged());
                }
            }
            Row::End => break,
            Row::Whole(length) => {
                let bytes = &buffer.rest()[..length];
                let is_full = gathered.rows >= rows_most || gathered.bytes >= BYTES_MAX;
                if gathered.begins_key(shared, &fields, bytes)? && is_full && !gathered.give(shared, give)? {
                    return Ok(false);
                }
                gathered.push(shared, &fields, bytes)?;
                buffer.start += length;
            }
        }
    }
    // What the server has to say at the end: that it was all.
    while fill(&mut buffer)? {}
    drop(input);
    Ok(gathered.rows == 0 || gathered.give(shared, give)?)
}

impl Gathered {
    fn new(shared: &Shared) -> Attempt<Gathered> {
        let builders = shared.columns.iter().map(|(_, form)| Builder::new(form)).collect::<std::result::Result<_, _>>();
        let builders = builders.map_err(|e: String| Error::internal(e))?;
        Ok(Gathered { builders, rows: 0, bytes: 0, ends: Vec::new(), bad: Vec::new(), key: Vec::new() })
    }

    /// Whether a row has another key than the one before, which then is over.
    fn begins_key(&mut self, shared: &Shared, fields: &[Field], bytes: &[u8]) -> Attempt<bool> {
        let mut rest = self.key.as_slice();
        let mut is_same = self.rows > 0;
        for column in &shared.key {
            let value = fields[column.place].of(bytes);
            let Some(value) = value else {
                return Err(Failure::Final(Error::data(format!("{}: column {:?} of order_by is null", shared.call(), column.name))));
            };
            let end = 4 + value.len();
            is_same = is_same && rest.len() >= end && rest[..4] == (value.len() as u32).to_be_bytes() && &rest[4..end] == value;
            rest = if is_same { &rest[end..] } else { &[] };
        }
        if is_same {
            let first = self.ends.last().copied().unwrap_or(0);
            if self.rows - first >= GROUP_ROWS_MAX {
                return Err(Failure::Final(Error::data(format!(
                    "{}: more than {GROUP_ROWS_MAX} rows have one key of order_by; add a column to it that tells them apart",
                    shared.call()
                ))));
            }
            return Ok(false);
        }
        if self.rows > 0 {
            self.ends.push(self.rows);
        }
        self.key.clear();
        for column in &shared.key {
            let value = fields[column.place].of(bytes).unwrap_or_default();
            self.key.extend_from_slice(&(value.len() as u32).to_be_bytes());
            self.key.extend_from_slice(value);
        }
        Ok(true)
    }

    fn push(&mut self, shared: &Shared, fields: &[Field], bytes: &[u8]) -> Attempt<()> {
        let mut wrong = None;
        for (place, (builder, field)) in self.builders.iter_mut().zip(fields).enumerate() {
            if let Err(why) = builder.push(field.of(bytes)) {
                let why = format!("{}: column {:?}: {why}", shared.call(), shared.columns[place].0.name());
                if shared.key.iter().any(|column| column.place == place) {
                    return Err(Failure::Final(Error::data(why)));
                }
                let _ = builder.push(None);
                wrong.get_or_insert(why);
            }
        }
        if let Some(why) = wrong {
            self.bad.push((self.rows, why));
        }
        self.rows += 1;
        self.bytes += bytes.len();
        Ok(())
    }

    /// Passes on what was gathered; `false` if nobody wants more.
    fn give(&mut self, shared: &Shared, give: &mut dyn FnMut(Chunk, At) -> bool) -> Attempt<bool> {
        let chunk = self.finish(shared)?;
        let last = At::of(&shared.key, chunk.batch.columns(), chunk.batch.num_rows() - 1)?;
        Ok(give(chunk, last))
    }

    fn finish(&mut self, shared: &Shared) -> Result<Chunk> {
        let columns = self.builders.iter_mut().map(Builder::finish).collect::<std::result::Result<Vec<_>, _>>();
        let columns = columns.map_err(Error::internal)?;
        let schema = Arc::new(Schema::new(shared.columns.iter().map(|(field, _)| field.clone()).collect::<Vec<_>>()));
        let batch = RecordBatch::try_new(schema, columns).map_err(|e| Error::internal(e.to_string()))?;
        let mut ends = std::mem::take(&mut self.ends);
        if ends.last() != Some(&self.rows) {
            ends.push(self.rows);
        }
        (self.rows, self.bytes) = (0, 0);
        Ok(Chunk { batch, ends, bad: std::mem::take(&mut self.bad) })
    }
}

/// Bytes that have come and were not read yet.
struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    /// The client must not be asked again after the end: it would wait for more.
    is_ended: bool,
}

impl Buffer {
    fn rest(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Adds what comes next; `false` at the end.
    fn fill(&mut self, input: &mut impl std::io::Read) -> std::io::Result<bool> {
        if self.is_ended {
            return Ok(false);
        }
        self.bytes.drain(..self.start);
        self.start = 0;
        let before = self.bytes.len();
        self.bytes.resize(before + (64 << 10), 0);
        let mut filled = before;
        // Each message of the protocol is a row: many of them are taken at once.
        let outcome = loop {
            match input.read(&mut self.bytes[filled..]) {
                Ok(0) => {
                    self.is_ended = true;
                    break Ok(filled > before);
                }
                Ok(count) => {
                    filled += count;
                    if filled == self.bytes.len() {
                        break Ok(true);
                    }
                }
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                // What came before it is whole.
                Err(e) => break Err(e),
            }
        };
        self.bytes.truncate(filled);
        outcome
    }
}

/// Where a value is in its row.
#[derive(Clone, Copy)]
pub(super) struct Field {
    start: usize,
    /// `None`: null.
    length: Option<usize>,
}

impl Field {
    fn of(self, row: &[u8]) -> Option<&[u8]> {
        self.length.map(|length| &row[self.start..self.start + length])
    }
}

enum Row {
    /// There is more to come of it.
    Cut,
    End,
    /// How many bytes it has.
    Whole(usize),
}

/// Takes a row apart into its values.
fn row(bytes: &[u8], width: usize, fields: &mut Vec<Field>) -> std::result::Result<Row, ()> {
    let Some((count, _)) = bytes.split_first_chunk::<2>() else { return Ok(Row::Cut) };
    match i16::from_be_bytes(*count) {
        -1 => return Ok(Row::End),
        count if usize::try_from(count) != Ok(width) => return Err(()),
        _ => {}
    }
    fields.clear();
    let mut at = 2;
    for _ in 0..width {
        let Some(length) = bytes.get(at..at + 4) else { return Ok(Row::Cut) };
        let length = i32::from_be_bytes(length.try_into().map_err(|_| ())?);
        at += 4;
        match usize::try_from(length) {
            Ok(length) => {
                fields.push(Field { start: at, length: Some(length) });
                at += length;
            }
            Err(_) if length == -1 => fields.push(Field { start: at, length: None }),
            Err(_) => return Err(()),
        }
    }
    Ok(if bytes.len() < at { Row::Cut } else { Row::Whole(at) })
}
