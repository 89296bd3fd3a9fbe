//! `key_by(…).window(…).agg(…)`: one row a key and window of event time.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use mill_protocol::{Error, Result};

use super::{Changes, Inputs, KeyedAggregates, Names, Need, Splits, Step};
use crate::expr::Expr;
use crate::logical::{Parameters, parameters, texts};
use crate::lower::{Builder, Lineage};
use crate::stream::checks::{append_only, check_unique};
use crate::stream::{Emit, EventTime, KeyedStream, OutputSpec, Stream, duration};
use crate::types::type_name;
use crate::window::{Window, WindowSpec};

/// Aggregates the records of each key and window.
#[derive(Debug)]
pub(crate) struct WindowStep {
    keyed: KeyedAggregates,
    window: WindowSpec,
}

/// A keyed stream cut into windows.
#[derive(Clone, Debug)]
pub struct WindowedStream {
    keyed: KeyedStream,
    window: WindowSpec,
}

impl KeyedStream {
    /// The stream cut into windows of event time.
    ///
    /// # Errors
    /// When the stream has no event time, or a duration is wrong.
    pub fn window(&self, window: Window, allowed_lateness_us: i64) -> Result<WindowedStream> {
        let lengths = window.lengths();
        let window = window.checked()?;
        if allowed_lateness_us < 0 {
            return Err(Error::plan(format!(
                "allowed_lateness must not be negative, found {}",
                duration(allowed_lateness_us)
            )));
        }
        // The call before which the stream has to be ready.
        let verb = if self.keys.is_empty() { "window_all" } else { "key_by" };
        append_only(&self.stream, verb)?;
        let Some(time) = self.stream.facts().event_time else {
            return Err(Error::plan(format!(
                "a window needs event time: call event_time(\"column\", watermark=\"5s\") before {verb}()"
            )));
        };
        for (what, us) in lengths.chain([("allowed_lateness", allowed_lateness_us)]) {
            check_unit(&time, what, us)?;
        }
        Ok(WindowedStream { keyed: self.clone(), window: WindowSpec::new(window, allowed_lateness_us) })
    }
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
        let step = WindowStep { keyed: KeyedAggregates { keys: self.keyed.keys.clone(), aggregates }, window: self.window };
        Stream::add(Arc::new(step), vec![self.keyed.stream.clone()], Arc::new(Schema::new(fields)), facts)
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
        duration(us),
        type_name(&time.data_type),
    )))
}

impl Step for WindowStep {
    fn label(&self) -> &'static str {
        "window"
    }

    fn parameters(&self) -> Parameters {
        parameters([
            ("keys", self.keyed.keys.clone().into()),
            ("aggregates", texts(self.keyed.aggregates.iter())),
            ("window", self.window.window.to_string().into()),
            ("allowed_lateness", duration(self.window.allowed_lateness_us).into()),
        ])
    }

    fn outputs(&self) -> &[OutputSpec] {
        static OUTPUTS: [OutputSpec; 3] = [OutputSpec::RESULT, OutputSpec::LATE, OutputSpec::ERRORS];
        &OUTPUTS
    }

    fn changes(&self) -> Changes {
        Changes::Refuses
    }

    fn is_stateful(&self) -> bool {
        true
    }

    fn splits(&self) -> Splits {
        Splits::Keys
    }

    fn needs_order(&self, _of_result: bool, before: &SchemaRef) -> Result<bool> {
        Ok(self.keyed.parts(before)?.is_ordered())
    }

    fn needs(&self, need: &Need<'_>) -> Result<Names> {
        Ok(self.keyed.parts(need.input)?.columns())
    }

    fn schema(&self, _inputs: &[SchemaRef], declared: &SchemaRef) -> Result<SchemaRef> {
        Ok(Arc::clone(declared))
    }

    fn lineage(&self, _inputs: &Inputs<'_>) -> Lineage {
        Lineage::default()
    }

    fn lower(&self, builder: &mut Builder<'_>, at: usize) -> Result<()> {
        self.keyed.lower(builder, at, Some(self.window), Emit::End)
    }
}
