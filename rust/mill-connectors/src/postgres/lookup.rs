//! A lookup table for `enrich`: it is queried for the rows of keys.
//!
//! ```sql
//!   SELECT a.n, t.… FROM unnest($1::bigint[], …) WITH ORDINALITY AS a (k0, …, n) JOIN "table" AS t ON t."key" = a.k0
//! ```

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ::postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};
use ::postgres::{Client, Statement};
use arrow::array::{Array, ArrayRef, AsArray, Int64Array, ListArray, RecordBatch, UInt32Array};
use arrow::buffer::OffsetBuffer;
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, UInt64Type};
use bytes::BytesMut;
use mill_frame::convert::{Verdict, exact, verdict};
use mill_protocol::{Error, Result};

use super::address::{Address, Attempt, Failure};
use super::decode::Builder;
use super::encode::Values;
use super::form::{self, Form};
use super::name::{TableName, identifier};
use crate::nearest::{did_you_mean, quoted};

const CALL: &str = "lookup_postgres()";
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// How a table is asked.
#[derive(Clone)]
pub struct PostgresLookupOptions {
    /// The password, where the URL has none.
    pub password: Option<String>,
    /// The columns that are looked up.
    pub key: Vec<String>,
    /// The columns that are wanted; `None`: all but the key.
    pub schema: Option<SchemaRef>,
    /// How long a server that went away is asked again, and a query may take.
    pub timeout: Duration,
}

/// A table that is asked for the rows of keys.
pub struct PostgresLookup {
    address: Address,
    table: String,
    key: Vec<(String, Form)>,
    schema: SchemaRef,
    forms: Vec<Form>,
    sql: String,
    timeout: Duration,
    idle: Mutex<Vec<Link>>,
}

struct Link {
    client: Client,
    statement: Statement,
}

/// Rows by the number of their key.
pub struct FoundRows {
    /// Which key each row has.
    pub numbers: Int64Array,
    /// The rows.
    pub rows: RecordBatch,
    /// The keys whose row cannot be read, and why.
    pub bad: Vec<(i64, String)>,
}

/// A value that is there in its binary form.
#[derive(Debug)]
struct Raw(Vec<u8>);

impl ToSql for Raw {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> std::result::Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.extend_from_slice(&self.0);
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

/// The bytes of a value.
struct Bytes<'a>(&'a [u8]);

impl<'a> FromSql<'a> for Bytes<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> std::result::Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Bytes(raw))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

impl PostgresLookup {
    /// Asks which columns the table has.
    ///
    /// # Errors
    /// When the server cannot be reached, or a column does not exist or cannot be read.
    pub fn new(url: &str, table: &str, options: PostgresLookupOptions) -> Result<PostgresLookup> {
        let address = Address::new(CALL, url, options.password.as_deref())?;
        let name = TableName::parse(CALL, table)?;
        let mut client = address.connect(CALL).map_err(Failure::into_error)?;
        let failed = |e: &::postgres::Error| address.failure(CALL, &format!("read table {table:?}"), e).into_error();
        let statement = client.prepare(&format!("SELECT * FROM {}", name.sql())).map_err(|e| failed(&e))?;
        let names: Vec<&str> = statement.columns().iter().map(|column| column.name()).collect();
        let find = |wanted: &str| {
            statement.columns().iter().find(|column| column.name() == wanted).ok_or_else(|| {
                Error::schema(format!(
                    "{CALL}: table {table:?} has no column {wanted:?}{}; it has {}",
                    did_you_mean(wanted, names.iter().copied()),
                    quoted(&names, ", ")
                ))
            })
        };
        let mut key = Vec::new();
        for own in &options.key {
            let column = find(own)?;
            let form = Form::of(column.type_(), column.type_modifier()).and_then(|form| match form {
                // Whole numbers of all sizes are compared with one another.
                Form::Int2 | Form::Int4 | Form::Int8 => Some(Form::Int8),
                Form::Text(_) => Some(Form::Text(None)),
                Form::Bool | Form::Uuid | Form::Bytea | Form::Date => Some(form),
                _ => None,
            });
            let form = form.ok_or_else(|| {
                Error::schema(format!(
                    "{CALL}: key column {own:?} of table {table:?} is {}, and keys are whole numbers, text, bytes, dates, booleans or UUIDs",
                    column.type_().name()
                ))
            })?;
            if form == Form::Text(None) {
                let sql = "SELECT collisdeterministic FROM pg_attribute JOIN pg_collation AS c ON c.oid = attcollation \
                           WHERE attrelid = to_regclass($1)::oid AND attname = $2";
                let row = client.query_opt(sql, &[&name.sql(), own]).map_err(|e| failed(&e))?;
                if row.is_some_and(|row| !row.get::<_, bool>(0)) {
                    return Err(Error::schema(format!(
                        "{CALL}: key column {own:?} of table {table:?} has a collation that takes different keys for the same"
                    )));
                }
            }
            key.push((own.clone(), form));
        }
        let wanted: Vec<String> = match &options.schema {
            Some(schema) => schema.fields().iter().map(|field| field.name().clone()).collect(),
            None => names.iter().filter(|name| !options.key.iter().any(|own| own == *name)).map(|name| (*name).to_owned()).collect(),
        };
        if wanted.is_empty() {
            return Err(Error::schema(format!("{CALL}: table {table:?} has no column but the key; list columns in schema=")));
        }
        let (mut fields, mut forms) = (Vec::new(), Vec::new());
        for own in &wanted {
            let column = find(own)?;
            let refused = |why: String| {
                Error::schema(format!("{CALL}: column {own:?} of table {table:?} is {}, which {why}", column.type_().name()))
            };
            let form = Form::of(column.type_(), column.type_modifier())
                .ok_or_else(|| refused("no column here has; cast it in a view, or list other columns in schema=".to_owned()))?;
            let data_type = form.column().map_err(|why| refused(format!("{why} in a view")))?;
            let data_type = match options.schema.as_ref().and_then(|schema| schema.field_with_name(own).ok()) {
                Some(given) if given.data_type() != &data_type && !matches!(verdict(&data_type, given.data_type()), Verdict::Same | Verdict::Exact) => {
                    return Err(refused(format!(
                        "is read as {}, and schema= says {}, which may not fit every value",
                        form::shown(&data_type),
                        form::shown(given.data_type())
                    )));
                }
                Some(given) => given.data_type().clone(),
                None => data_type,
            };
            fields.push(Field::new(own, data_type, true));
            forms.push(form);
        }
        let arrays: Vec<String> = key.iter().enumerate().map(|(n, (_, form))| format!("${}::{}[]", n + 1, form.declared())).collect();
        let asked: Vec<String> = (0..key.len()).map(|n| format!("k{n}")).collect();
        let columns: Vec<String> = wanted.iter().map(|name| format!("t.{}", identifier(name))).collect();
        let matches: Vec<String> = key.iter().enumerate().map(|(n, (own, _))| format!("t.{} = a.k{n}", identifier(own))).collect();
        let sql = format!(
            "SELECT a.n, {} FROM unnest({}) WITH ORDINALITY AS a ({}, n) JOIN {} AS t ON {}",
            columns.join(", "),
            arrays.join(", "),
            asked.join(", "),
            name.sql(),
            matches.join(" AND ")
        );
        let schema = Arc::new(Schema::new(fields));
        let (table, timeout) = (table.to_owned(), options.timeout);
        drop(statement);
        let lookup = PostgresLookup { address, table, key, schema, forms, sql, timeout, idle: Mutex::default() };
        let link = lookup.prepare(client).map_err(Failure::into_error)?;
        lookup.idle().push(link);
        Ok(lookup)
    }

    /// The columns that it returns.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// The columns of the key, in the types in which [`find`](PostgresLookup::find) takes them.
    ///
    /// # Errors
    /// Never: each has a type.
    pub fn key(&self) -> Result<SchemaRef> {
        let field = |(name, form): &(String, Form)| Ok(Field::new(name, form.column().map_err(Error::internal)?, true));
        Ok(Arc::new(Schema::new(self.key.iter().map(field).collect::<Result<Vec<_>>>()?)))
    }

    /// The server, without a password.
    pub fn shown(&self) -> &str {
        self.address.shown()
    }

    /// Refuses columns that cannot have the values of the key.
    ///
    /// # Errors
    /// When there are more or fewer of them, or one is of another type.
    pub fn check_keys(&self, on: &[(String, DataType)]) -> Result<()> {
        if on.len() != self.key.len() {
            let own: Vec<&str> = self.key.iter().map(|(name, _)| name.as_str()).collect();
            return Err(Error::plan(format!(
                "enrich(): on= names {}, and the key of table {:?} has {}: {}",
                mill_frame::words::counted(on.len(), "column"),
                self.table,
                own.len(),
                own.join(", ")
            )));
        }
        for ((name, data_type), (own, form)) in on.iter().zip(&self.key) {
            let is_whole = matches!(form, Form::Int8) && data_type.is_integer();
            if !is_whole && !form.holds(data_type) {
                return Err(Error::plan(format!(
                    "enrich(): column {name:?} is {}, and {own:?} of table {:?} is {}; cast {name:?}",
                    form::shown(data_type),
                    self.table,
                    form.declared()
                )));
            }
        }
        Ok(())
    }

    /// The rows of keys, one column for each column of the key.
    ///
    /// # Errors
    /// When the server cannot be asked within the time.
    pub fn find(&self, keys: &[ArrayRef]) -> Result<FoundRows> {
        let (parameters, numbers) = self.parameters(keys)?;
        if numbers.is_empty() {
            return self.rows(&[], &numbers);
        }
        let end = Instant::now() + self.timeout;
        let mut pause = Duration::from_millis(20);
        loop {
            let error = match self.ask(&parameters) {
                Ok(rows) => return self.rows(&rows, &numbers),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Again(error)) => error,
            };
            // What is idle was connected to the same server that went away.
            self.idle().clear();
            if Instant::now() >= end {
                return Err(error);
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Link>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, e: &::postgres::Error) -> Failure {
        self.address.failure(CALL, &format!("read table {:?}", self.table), e)
    }

    fn prepare(&self, mut client: Client) -> Attempt<Link> {
        let limit = format!("SET statement_timeout = {}", self.timeout.as_millis().clamp(1, i32::MAX as u128));
        client.batch_execute(&limit).map_err(|e| self.failed(&e))?;
        let statement = client.prepare(&self.sql).map_err(|e| self.failed(&e))?;
        // The table may have been altered since it was looked at, and binary values do not say what they are.
        for ((field, form), column) in self.schema.fields().iter().zip(&self.forms).zip(&statement.columns()[1..]) {
            if Form::of(column.type_(), column.type_modifier()).as_ref() != Some(form) {
                return Err(Failure::Final(Error::schema(format!(
                    "{CALL}: column {:?} of table {:?} is {} now, and was {} when the look-up was declared; declare it again",
                    field.name(),
                    self.table,
                    column.type_().name(),
                    form.declared()
                ))));
            }
        }
        Ok(Link { client, statement })
    }

    fn ask(&self, parameters: &[Raw]) -> Attempt<Vec<::postgres::Row>> {
        let idle = self.idle().pop();
        let mut link = match idle {
            Some(link) if !link.client.is_closed() => link,
            _ => self.prepare(self.address.connect(CALL)?)?,
        };
        let parameters: Vec<&(dyn ToSql + Sync)> = parameters.iter().map(|raw| raw as _).collect();
        let rows = link.client.query(&link.statement, &parameters).map_err(|e| self.failed(&e))?;
        self.idle().push(link);
        Ok(rows)
    }

    /// The keys as arrays, and the number of each; a key that no row can have is left out.
    fn parameters(&self, keys: &[ArrayRef]) -> Result<(Vec<Raw>, Vec<i64>)> {
        let mut columns: Vec<ArrayRef> = Vec::new();
        for (array, (_, form)) in keys.iter().zip(&self.key) {
            let is_whole = matches!(form, Form::Int8) && array.data_type() == &DataType::UInt64;
            columns.push(match is_whole {
                // Larger ones than there are become null, and a null equals nothing.
                true => Arc::new(array.as_primitive::<UInt64Type>().unary_opt::<_, Int64Type>(|key| i64::try_from(key).ok())),
                false => Arc::clone(array),
            });
        }
        let values = columns.iter().zip(&self.key).map(|(array, (_, form))| Values::new(array, form)).collect::<Result<Vec<_>>>()?;
        let rows = columns.first().map_or(0, |column| column.len());
        let mut scratch = Vec::new();
        let kept: Vec<u32> = (0..rows)
            .filter(|row| {
                scratch.clear();
                values.iter().all(|values| !values.is_null(*row) && values.push(*row, &mut scratch).is_ok())
            })
            .map(|row| row as u32)
            .collect();
        let numbers: Vec<i64> = kept.iter().map(|row| i64::from(*row)).collect();
        let kept = UInt32Array::from(kept);
        let mut parameters = Vec::new();
        for (array, (_, form)) in columns.iter().zip(&self.key) {
            let internal = |e: arrow::error::ArrowError| Error::internal(e.to_string());
            let items = take(array, &kept, None).map_err(internal)?;
            let field = Arc::new(Field::new("item", items.data_type().clone(), true));
            let offsets = OffsetBuffer::from_lengths([items.len()]);
            let list: ArrayRef = Arc::new(ListArray::try_new(field, offsets, items, None).map_err(internal)?);
            let values = Values::new(&list, &Form::Array(Box::new(form.clone()), form.number()))?;
            let mut bytes = Vec::new();
            values.push(0, &mut bytes).map_err(|why| Error::data(format!("{CALL}: a key {why}")))?;
            parameters.push(Raw(bytes.split_off(4)));
        }
        Ok((parameters, numbers))
    }

    fn rows(&self, rows: &[::postgres::Row], keys: &[i64]) -> Result<FoundRows> {
        let mut builders = self.forms.iter().map(Builder::new).collect::<std::result::Result<Vec<_>, _>>().map_err(Error::internal)?;
        let (mut numbers, mut bad) = (Vec::with_capacity(rows.len()), Vec::new());
        for row in rows {
            let number = usize::try_from(row.get::<_, i64>(0) - 1).ok().and_then(|place| keys.get(place));
            let number = *number.ok_or_else(|| Error::connector(format!("{CALL}: the server sends a row of no key that was asked for")))?;
            for (place, builder) in builders.iter_mut().enumerate() {
                let value: Option<Bytes<'_>> = row.try_get(place + 1).map_err(|e| self.failed(&e).into_error())?;
                if let Err(why) = builder.push(value.map(|value| value.0)) {
                    let _ = builder.push(None);
                    bad.push((number, format!("column {:?} of table {:?}: {why}", self.schema.field(place).name(), self.table)));
                }
            }
            numbers.push(number);
        }
        let mut columns = Vec::new();
        for (builder, field) in builders.iter_mut().zip(self.schema.fields()) {
            let column = builder.finish().map_err(Error::internal)?;
            columns.push(if column.data_type() == field.data_type() {
                column
            } else {
                exact(&column, field.data_type())
                    .map_err(|inexact| Error::data(format!("{CALL}: column {:?} of table {:?}: {inexact}", field.name(), self.table)))?
            });
        }
        let rows = RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(|e| Error::internal(e.to_string()))?;
        Ok(FoundRows { numbers: Int64Array::from(numbers), rows, bad })
    }
}
