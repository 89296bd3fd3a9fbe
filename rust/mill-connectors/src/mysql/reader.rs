//! Reads the rows after a key.
//!
//! ```text
//!   START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY
//!   SELECT … WHERE key > last ORDER BY key  ─►  rows as they come, in the binary protocol  ─►  chunks
//! ```
//!
//! The text protocol would round a `FLOAT` to six digits. What a position is, and what follows a lost connection:
//! `table_reader.rs`.

use std::sync::Arc;

use ::mysql::prelude::Queryable as _;
use ::mysql::Value;
use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::Schema;
use mill_protocol::{Error, Result};

use super::address::{Attempt, Failure};
use super::decode::{Builder, size};
use super::form::Form;
use super::keys::{self, At, KeyColumn};
use super::name::identifier;
use super::source::Shared;
use crate::table_reader::{BYTES_MAX, Chunk, GROUP_ROWS_MAX, KeyedRows, Link};

/// A row that is not wanted yet waits this long at the server.
const SETTING: &str = "SET SESSION net_write_timeout = 86400";

/// What is gathered of a chunk.
struct Gathered {
    builders: Vec<Builder>,
    rows: usize,
    bytes: usize,
    ends: Vec<usize>,
    bad: Vec<(usize, String)>,
    /// The key of the row before.
    key: Vec<Value>,
}

impl KeyedRows for Shared {
    const THREAD: &'static str = "mill-mysql";

    fn call(&self) -> String {
        self.call()
    }

    fn width(&self) -> usize {
        self.width
    }

    fn key_of(&self, columns: &[ArrayRef], row: usize) -> Result<At> {
        keys::key_of(&self.key, columns, row)
    }

    fn pull(&self, after: Option<&At>, rows_most: usize, link: &Link, give: &mut dyn FnMut(Chunk, At) -> bool) -> Attempt<()> {
        let call = self.call();
        let failed = |e: &::mysql::Error| self.address.failure(&call, "read rows", e);
        mill_fault::reach("mysql.read").map_err(|e| Failure::Again(Error::connector(format!("{call}: {e}"))))?;
        let mut client = self.address.connect(&call)?;
        let (address, number) = (self.address.clone(), client.connection_id());
        link.set_cancel(move || address.end(number, "read_sql()"));
        if link.is_over() {
            return Ok(());
        }
        // The null of a key is looked for in the snapshot that rows are read from.
        let isolation = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ";
        for setting in [SETTING, isolation, "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"] {
            client.query_drop(setting).map_err(|e| failed(&e))?;
        }
        for column in self.key.iter().filter(|column| !column.is_never_null) {
            let sql = format!("SELECT 1 FROM {} AS q WHERE q.{} IS NULL LIMIT 1", self.relation, identifier(&column.name));
            if client.query_first::<u8, _>(sql).map_err(|e| failed(&e))?.is_some() {
                return Err(Failure::Final(Error::data(format!(
                    "{call}: column {:?} of order_by has a null, which no key has; leave such rows out in a query, or read in another order",
                    column.name
                ))));
            }
        }
        let condition = match after {
            None => String::new(),
            Some(at) => {
                let condition = keys::after(at, &self.key).ok_or_else(|| Error::internal("the key was checked when it was read"))?;
                format!(" WHERE {condition}")
            }
        };
        let names: Vec<String> = self.columns.iter().map(|(field, _)| format!("q.{}", identifier(field.name()))).collect();
        let by: Vec<String> = self.key.iter().map(KeyColumn::sql).collect();
        let sql = format!("SELECT {} FROM {} AS q{condition} ORDER BY {}", names.join(", "), self.relation, by.join(", "));
        let statement = client.prep(sql).map_err(|e| failed(&e))?;
        // The table may have been altered since it was looked at.
        for ((field, form), column) in self.columns.iter().zip(statement.columns().iter()) {
            let now = Form::of_result(column);
            if now != Some(*form) {
                return Err(Failure::Final(Error::schema(format!(
                    "{call}: the column {:?} is {} now, and was {} when the source was declared; declare it again",
                    field.name(),
                    now.map_or("of another type".to_owned(), Form::noun),
                    form.noun()
                ))));
            }
        }
        let mut result = client.exec_iter(&statement, ()).map_err(|e| failed(&e))?;
        let mut gathered = Gathered::new(self)?;
        let mut take_all = || -> Attempt<bool> {
            for row in result.by_ref() {
                let values = row.map_err(|e| failed(&e))?.unwrap();
                let is_full = gathered.rows >= rows_most || gathered.bytes >= BYTES_MAX;
                if gathered.begins_key(self, &values)? && is_full && !gathered.give(self, give)? {
                    return Ok(false);
                }
                gathered.push(self, &values)?;
            }
            Ok(gathered.rows == 0 || gathered.give(self, give)?)
        };
        let outcome = take_all();
        if !matches!(outcome, Ok(true)) {
            // The client would read all other rows before it closes the connection. Now the server finds nobody to send them to.
            std::mem::forget(result);
        }
        outcome.map(drop)
    }
}

impl Gathered {
    fn new(shared: &Shared) -> Attempt<Gathered> {
        let builders = shared.columns.iter().map(|(_, form)| Builder::new(*form)).collect::<std::result::Result<_, _>>();
        let builders = builders.map_err(|e: String| Error::internal(e))?;
        Ok(Gathered { builders, rows: 0, bytes: 0, ends: Vec::new(), bad: Vec::new(), key: Vec::new() })
    }

    /// Whether a row has another key than the one before, which then is over.
    fn begins_key(&mut self, shared: &Shared, values: &[Value]) -> Attempt<bool> {
        let own = || shared.key.iter().map(|column| &values[column.place]);
        if let Some(column) = shared.key.iter().find(|column| values[column.place] == Value::NULL) {
            return Err(Failure::Final(Error::data(format!("{}: column {:?} of order_by is null", shared.call(), column.name))));
        }
        if self.rows > 0 && own().eq(&self.key) {
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
        self.key = own().cloned().collect();
        Ok(true)
    }

    fn push(&mut self, shared: &Shared, values: &[Value]) -> Attempt<()> {
        let mut wrong = None;
        for (place, (builder, value)) in self.builders.iter_mut().zip(values).enumerate() {
            if let Err(why) = builder.push(value) {
                let why = format!("{}: column {:?}: {why}", shared.call(), shared.columns[place].0.name());
                if shared.key.iter().any(|column| column.place == place) {
                    return Err(Failure::Final(Error::data(why)));
                }
                let _ = builder.push(&Value::NULL);
                wrong.get_or_insert(why);
            }
            self.bytes += size(value);
        }
        if let Some(why) = wrong {
            self.bad.push((self.rows, why));
        }
        self.rows += 1;
        Ok(())
    }

    /// Passes on what was gathered; `false` if nobody wants more.
    fn give(&mut self, shared: &Shared, give: &mut dyn FnMut(Chunk, At) -> bool) -> Attempt<bool> {
        let columns: Vec<ArrayRef> = self.builders.iter_mut().map(Builder::finish).collect();
        let schema = Arc::new(Schema::new(shared.columns.iter().map(|(field, _)| field.clone()).collect::<Vec<_>>()));
        let batch = RecordBatch::try_new(schema, columns).map_err(|e| Error::internal(e.to_string()))?;
        let mut ends = std::mem::take(&mut self.ends);
        if ends.last() != Some(&self.rows) {
            ends.push(self.rows);
        }
        (self.rows, self.bytes) = (0, 0);
        let last = keys::key_of(&shared.key, batch.columns(), batch.num_rows() - 1)?;
        Ok(give(Chunk { batch, ends, bad: std::mem::take(&mut self.bad) }, last))
    }
}
