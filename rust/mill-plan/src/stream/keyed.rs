//! Keyed streams. What can be done with them is in the files of the steps.

use arrow::datatypes::{DataType, Field, SchemaRef};
use mill_protocol::{Error, Result};

use super::checks::{append_only, check_hashable, check_unique, column_index, in_step};
use super::{Emit, Stream};
use crate::aggregate::plain_type;
use crate::expr::Expr;
use crate::steps::AggregateParts;

/// How often results are emitted by default on unbounded input.
const EMIT_EVERY_US: i64 = 1_000_000;

/// A stream and the columns that are its key.
#[derive(Clone, Debug)]
pub struct KeyedStream {
    pub(crate) stream: Stream,
    pub(crate) keys: Vec<String>,
}

impl Stream {
    /// The stream with all records together, as if they had one key: results have no key columns.
    pub fn ungrouped(&self) -> KeyedStream {
        KeyedStream { stream: self.clone(), keys: Vec::new() }
    }

    /// The stream with a key: columns, or expressions that become columns.
    ///
    /// # Errors
    /// When an expression is wrong, or a column cannot be a key (lists, Python objects).
    pub fn key_by(&self, exprs: Vec<Expr>) -> Result<KeyedStream> {
        append_only(self, "key_by")?;
        if exprs.is_empty() {
            return Err(Error::plan("key_by() needs at least one column"));
        }
        check_unique(exprs.iter().map(Expr::output_name), "key_by")?;
        let keys: Vec<String> = exprs.iter().map(Expr::output_name).collect();
        let is_plain = |expr: &Expr| matches!(expr, Expr::Column(_));
        for expr in exprs.iter().filter(|expr| is_plain(expr)) {
            column_index(&self.schema(), &expr.output_name()).map_err(in_step("key_by"))?;
        }
        let computed: Vec<Expr> = exprs.into_iter().filter(|expr| !is_plain(expr)).collect();
        let stream = if computed.is_empty() { self.clone() } else { self.extend(computed, "key_by")? };
        let schema = stream.schema();
        for key in &keys {
            check_hashable(schema.field(column_index(&schema, key)?)).map_err(in_step("key_by"))?;
        }
        Ok(KeyedStream { stream, keys })
    }
}

impl KeyedStream {
    /// The key columns.
    pub fn keys(&self) -> &[String] {
        &self.keys
    }

    /// The stream before it was keyed, with the columns of the key.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// The type of the event time of its records, if they have one.
    pub fn event_time_type(&self) -> Option<DataType> {
        self.stream.facts().event_time.map(|time| time.data_type)
    }

    /// The parts of aggregates over this stream.
    pub(crate) fn parts(&self, aggregates: &[Expr]) -> Result<AggregateParts> {
        AggregateParts::new(&self.stream.schema(), &self.keys, aggregates).map_err(in_step("agg"))
    }

    /// The key columns of results.
    pub(crate) fn key_fields(&self) -> Result<Vec<Field>> {
        key_fields(&self.stream.schema(), &self.keys)
    }

    /// When results are emitted, checked.
    pub(crate) fn emit(&self, emit: Emit) -> Result<Emit> {
        match emit {
            Emit::Default if self.stream.is_bounded() => Ok(Emit::End),
            Emit::Default => Ok(Emit::Every(EMIT_EVERY_US)),
            Emit::Every(us) if us <= 0 => {
                Err(Error::plan(format!("emit must be a positive duration, found {}", super::duration(us))))
            }
            other => Ok(other),
        }
    }
}

/// The key columns as a keyed step returns them.
pub(crate) fn key_fields(schema: &SchemaRef, keys: &[String]) -> Result<Vec<Field>> {
    keys.iter()
        .map(|key| {
            let field = schema.field(column_index(schema, key)?);
            Ok(Field::new(key, plain_type(field.data_type()), true).with_metadata(field.metadata().clone()))
        })
        .collect()
}
