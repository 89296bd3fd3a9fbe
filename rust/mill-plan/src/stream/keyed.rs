//! Keyed streams and what can be done with them.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use mill_protocol::{Error, Result};

use super::checks::{append_only, check_hashable, check_unique, column_index, in_step};
use super::{AggregateParts, Emit, EventTime, Facts, Op, Stream};
use crate::aggregate::plain_type;
use crate::expr::Expr;
use crate::function::ReduceFunction;
use crate::types::type_name;
use crate::window::{Window, WindowSpec};

/// How often results are given by default on unbounded input.
const EMIT_EVERY_US: i64 = 1_000_000;

/// A stream and the columns that are its key.
#[derive(Clone, Debug)]
pub struct KeyedStream {
    stream: Stream,
    keys: Vec<String>,
}

/// A keyed stream cut into windows.
#[derive(Clone, Debug)]
pub struct WindowedStream {
    keyed: KeyedStream,
    window: WindowSpec,
}

impl Stream {
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

    /// One row a key with these aggregates.
    ///
    /// # Errors
    /// When an expression is no aggregate, or is wrong.
    pub fn agg(&self, aggregates: Vec<Expr>, emit: Emit) -> Result<Stream> {
        let parts = self.parts(&aggregates)?;
        let emit = self.emit(emit)?;
        let mut fields = self.key_fields()?;
        fields.extend(parts.output_fields()?);
        check_unique(fields.iter().map(|field| field.name().clone()), "agg")?;
        let op = Op::Aggregate { keys: self.keys.clone(), aggregates, emit };
        Stream::step(op, vec![self.stream.clone()], Arc::new(Schema::new(fields)), self.result_facts(emit))
    }

    /// One row a key: a user's fold over its records.
    ///
    /// # Errors
    /// When `emit` is wrong.
    pub fn reduce(&self, function: Arc<dyn ReduceFunction>, emit: Emit) -> Result<Stream> {
        let emit = self.emit(emit)?;
        let op = Op::Reduce { keys: self.keys.clone(), function, emit };
        Stream::step(op, vec![self.stream.clone()], self.stream.schema(), self.result_facts(emit))
    }

    /// The stream cut into windows of event time.
    ///
    /// # Errors
    /// When the stream has no event time, or a duration is wrong.
    pub fn window(&self, window: Window, allowed_lateness_us: i64) -> Result<WindowedStream> {
        let window = window.checked()?;
        if allowed_lateness_us < 0 {
            return Err(Error::plan(format!(
                "allowed_lateness must not be negative, found {}",
                super::duration(allowed_lateness_us)
            )));
        }
        let Some(time) = self.stream.facts().event_time else {
            return Err(Error::plan(
                "a window needs event time: call event_time(\"column\", watermark=\"5s\") before key_by()",
            ));
        };
        for (what, us) in window.lengths().chain([("allowed_lateness", allowed_lateness_us)]) {
            check_unit(&time, what, us)?;
        }
        Ok(WindowedStream { keyed: self.clone(), window: WindowSpec::new(window, allowed_lateness_us) })
    }

    fn parts(&self, aggregates: &[Expr]) -> Result<AggregateParts> {
        AggregateParts::new(&self.stream.schema(), &self.keys, aggregates).map_err(in_step("agg"))
    }

    fn key_fields(&self) -> Result<Vec<Field>> {
        key_fields(&self.stream.schema(), &self.keys)
    }

    fn emit(&self, emit: Emit) -> Result<Emit> {
        match emit {
            Emit::Default if self.stream.is_bounded() => Ok(Emit::End),
            Emit::Default => Ok(Emit::Every(EMIT_EVERY_US)),
            Emit::Every(us) if us <= 0 => {
                Err(Error::plan(format!("emit must be a positive duration, found {}", super::duration(us))))
            }
            other => Ok(other),
        }
    }

    fn result_facts(&self, emit: Emit) -> Facts {
        let updating = (emit != Emit::End).then(|| self.keys.clone());
        Facts { is_bounded: self.stream.is_bounded(), event_time: None, updating }
    }
}

/// Refuses a duration that the unit of the event time cannot hold: the bounds of windows would be cut, and records would be
/// outside of their own window.
fn check_unit(time: &EventTime, what: &str, us: i64) -> Result<()> {
    let DataType::Timestamp(unit, zone) = &time.data_type else {
        return Err(Error::internal(format!("event time of type {}", type_name(&time.data_type))));
    };
    let (unit_us, counted) = match unit {
        TimeUnit::Second => (1_000_000, "whole seconds"),
        TimeUnit::Millisecond => (1000, "whole milliseconds"),
        TimeUnit::Microsecond | TimeUnit::Nanosecond => return Ok(()),
    };
    if us % unit_us == 0 {
        return Ok(());
    }
    let column = time.column.as_deref().unwrap_or("…");
    let zone = zone.as_ref().map(|zone| format!(", {zone:?}")).unwrap_or_default();
    let finer = if us % 1000 == 0 { "ms" } else { "us" };
    Err(Error::plan(format!(
        "window(): the {what} is {}, and the event time counts {counted} (it is {}), which cannot hold such bounds; cast it \
         before event_time(), as in cast({{{column:?}: mill.Timestamp({finer:?}{zone})}}), or choose {counted}",
        super::duration(us),
        type_name(&time.data_type),
    )))
}

/// The key columns as a keyed step gives them.
pub(crate) fn key_fields(schema: &SchemaRef, keys: &[String]) -> Result<Vec<Field>> {
    keys.iter()
        .map(|key| {
            let field = schema.field(column_index(schema, key)?);
            Ok(Field::new(key, plain_type(field.data_type()), true).with_metadata(field.metadata().clone()))
        })
        .collect()
}

impl WindowedStream {
    /// One row a key and window with these aggregates, when the watermark has passed the window and its lateness.
    ///
    /// # Errors
    /// When an expression is no aggregate, or is wrong.
    pub fn agg(&self, aggregates: Vec<Expr>) -> Result<Stream> {
        let parts = self.keyed.parts(&aggregates)?;
        let mut facts = self.keyed.stream.facts();
        let Some(time) = &mut facts.event_time else {
            return Err(Error::internal("a windowed stream has no event time"));
        };
        time.column = None;
        let bound = |name: &str| Field::new(name, time.data_type.clone(), true);
        let mut fields = self.keyed.key_fields()?;
        fields.extend([bound("window_start"), bound("window_end")]);
        fields.extend(parts.output_fields()?);
        check_unique(fields.iter().map(|field| field.name().clone()), "agg")?;
        let op = Op::Window {
            keys: self.keyed.keys.clone(),
            aggregates,
            window: self.window,
        };
        Stream::step(op, vec![self.keyed.stream.clone()], Arc::new(Schema::new(fields)), facts)
    }
}
