//! `key_by(…).window(…).agg(…)`: one row a key and window of event time.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use mill_protocol::{Error, Result};

use super::{Changes, Inputs, KeyedAggregates, Names, Need, Splits, Step};
use crate::expr::Expr;
use crate::logical::{Parameters, parameters, texts};
use crate::lower::{Builder, Lineage, Windowing};
use crate::stream::checks::{append_only, check_unique, in_step};
use crate::stream::{Emit, EventTime, Facts, KeyedStream, OutputSpec, Stream, duration};
use crate::types::type_name;
use crate::window::{Firing, Gap, Trigger, WindowKind, WindowSpec};

/// Aggregates the records of each key and window.
#[derive(Debug)]
pub(crate) struct WindowStep {
    keyed: KeyedAggregates,
    window: WindowSpec,
}

/// A keyed stream cut into windows.
#[derive(Clone, Debug)]
pub struct WindowedStream {
    pub(super) keyed: KeyedStream,
    pub(super) kind: WindowKind,
    pub(super) allowed_lateness_us: i64,
    pub(super) trigger: Trigger,
}

impl KeyedStream {
    /// The stream cut into windows.
    ///
    /// # Errors
    /// When windows are of event time and the stream has none, or a duration is wrong.
    pub fn window(&self, kind: impl Into<WindowKind>, allowed_lateness_us: i64) -> Result<WindowedStream> {
        let kind = kind.into();
        let lengths = kind.lengths();
        let kind = kind.checked()?;
        if allowed_lateness_us < 0 {
            return Err(Error::plan(format!(
                "allowed_lateness must not be negative, found {}",
                duration(allowed_lateness_us)
            )));
        }
        // The call before which the stream has to be ready.
        let verb = if self.keys.is_empty() { "window_all" } else { "key_by" };
        append_only(&self.stream, verb)?;
        if kind.has_bounds() {
            check_names(&self.keys, &["window_start", "window_end"])?;
        }
        if kind.is_timed() {
            let Some(time) = self.stream.facts().event_time else {
                return Err(Error::plan(format!(
                    "a window needs event time: call event_time(\"column\", watermark=\"5s\") before {verb}()"
                )));
            };
            for (what, us) in lengths.into_iter().chain([("allowed_lateness", allowed_lateness_us)]) {
                check_unit(&time, what, us)?;
            }
        } else if allowed_lateness_us > 0 {
            return Err(Error::plan(format!("{kind} has no end in event time, so no record is late for it; leave allowed_lateness= out")));
        }
        if let WindowKind::Session(Gap::Each(gap)) = &kind {
            check_gap(gap, &self.stream)?;
        }
        Ok(WindowedStream { keyed: self.clone(), kind, allowed_lateness_us, trigger: Trigger::default() })
    }
}

/// Refuses keys that have the name of a column that the window adds.
fn check_names(keys: &[String], added: &[&str]) -> Result<()> {
    match keys.iter().find(|key| added.contains(&key.as_str())) {
        Some(key) => Err(Error::plan(format!(
            "window(): the key {key:?} has the name of a column that a window adds to its results; give the key another name, \
             as in key_by(earlier_{key}={key:?})"
        ))),
        None => Ok(()),
    }
}

/// Refuses a gap that is no duration.
fn check_gap(gap: &Expr, stream: &Stream) -> Result<()> {
    match gap.data_type(&stream.schema()).map_err(in_step("session"))? {
        DataType::Duration(TimeUnit::Nanosecond) => Err(Error::schema(format!(
            "session(): event time counts microseconds, and the gap {gap} nanoseconds; cast it, as in cast(mill.types.Duration(\"us\"))"
        ))),
        DataType::Duration(_) => Ok(()),
        other => Err(Error::schema(format!(
            "session(): a gap per record is a duration, and {gap} is {}; cast it, as in cast(mill.types.Duration(\"ms\")), or multiply \
             a number by lit(timedelta(seconds=1))",
            type_name(&other)
        ))),
    }
}

impl KeyedStream {
    /// For each record these aggregates over the records of its key that lie at most this many microseconds back: of
    /// `(time - length, time]`, records of the same time included. A result comes when the watermark has passed the record.
    ///
    /// # Errors
    /// When the stream has no event time, or an expression is no aggregate, or is wrong.
    pub fn rolling(&self, length_us: i64, aggregates: Vec<Expr>) -> Result<Stream> {
        self.window(WindowKind::Rolling(length_us), 0)?.agg(aggregates)
    }
}

impl WindowedStream {
    /// The stream that is cut.
    pub fn stream(&self) -> &Stream {
        self.keyed.stream()
    }

    /// The same windows with results also before or after their end.
    ///
    /// # Errors
    /// When windows have no end in event time after which results could be late, or are fired by their number of records.
    pub fn trigger(mut self, trigger: Trigger) -> Result<WindowedStream> {
        for firing in [trigger.early, trigger.late].into_iter().flatten() {
            match firing {
                Firing::Every(..=0) => return Err(Error::plan("a trigger's interval must be more than nothing")),
                Firing::Rows(0) => return Err(Error::plan("a trigger fires after at least one record: every(1)")),
                Firing::Every(_) | Firing::Rows(_) | Firing::Each => {}
            }
        }
        if !trigger.is_default() && matches!(self.kind, WindowKind::Count(_)) {
            return Err(Error::plan(format!("{} fires when it is full and takes no trigger", self.kind)));
        }
        if trigger.late.is_some() && !self.kind.is_timed() {
            return Err(Error::plan(format!(
                "late= fires when records come after the end of their window, and {} has no end in event time; fire it with early=, or \
                 with on_count() or on_processing_time()",
                self.kind
            )));
        }
        if trigger.late.is_some() && self.allowed_lateness_us == 0 && trigger.early.is_none() {
            return Err(Error::plan(
                "late= fires when records come after the end of their window, and without allowed_lateness= a window takes \
                 none; give both",
            ));
        }
        if !trigger.is_default() {
            check_names(&self.keyed.keys, &["pane", "pane_timing"])?;
        }
        self.trigger = trigger;
        Ok(self)
    }

    /// One row a key and window with these aggregates, when the watermark has passed the window and its lateness.
    ///
    /// # Errors
    /// When an expression is no aggregate, or is wrong.
    pub fn agg(&self, aggregates: Vec<Expr>) -> Result<Stream> {
        self.check_end()?;
        match &self.kind {
            WindowKind::Aligned(window) if self.trigger.is_default() => {
                let parts = self.keyed.parts(&aggregates)?;
                self.check_order(parts.is_ordered())?;
                let mut fields = self.result_fields()?;
                fields.extend(parts.output_fields()?);
                check_unique(fields.iter().map(|field| field.name().clone()), "agg")?;
                let window = WindowSpec::new(*window, self.allowed_lateness_us);
                let keyed = KeyedAggregates { keys: self.keyed.keys.clone(), aggregates, by_time: true };
                let schema = Arc::new(Schema::new(fields));
                Stream::add(Arc::new(WindowStep { keyed, window }), vec![self.keyed.stream.clone()], schema, self.facts())
            }
            WindowKind::Global if self.trigger.is_default() => self.keyed.agg_as(aggregates, Emit::End, true),
            _ => self.agg_kept(aggregates),
        }
    }

    /// Refuses event time in nanoseconds where records less than a microsecond apart have an order, which event time does not
    /// know.
    pub(super) fn check_order(&self, is_about_order: bool) -> Result<()> {
        let of_kind = self.kind.to_string();
        let what = match &self.kind {
            // Which records such a window has follows their arrival.
            WindowKind::Count(_) => None,
            WindowKind::Session(_) | WindowKind::Rolling(_) => Some(&of_kind[..]),
            WindowKind::Aligned(_) | WindowKind::Global => is_about_order.then_some("a function of the order of records"),
        };
        check_order(&self.keyed.stream, "window()", what)
    }

    /// Refuses windows that would never have a result.
    pub(super) fn check_end(&self) -> Result<()> {
        if matches!(self.kind, WindowKind::Global) && self.trigger.early.is_none() && !self.keyed.stream.is_bounded() {
            return Err(Error::plan(
                "global_window() ends with its input, and this input has no end; give it a trigger, as in \
                 window(mill.global_window(), trigger=mill.on_count(100))",
            ));
        }
        Ok(())
    }

    /// The columns that results begin with: the keys, the bounds of the window, and which of its results it is.
    pub(super) fn result_fields(&self) -> Result<Vec<Field>> {
        if matches!(self.kind, WindowKind::Rolling(_)) {
            // A record and what is before it.
            return Ok(self.keyed.stream.schema().fields().iter().map(|field| field.as_ref().clone()).collect());
        }
        let mut fields = self.keyed.key_fields()?;
        if self.kind.has_bounds() {
            let Some(time) = self.keyed.stream.facts().event_time else {
                return Err(Error::internal("a windowed stream has no event time"));
            };
            fields.extend(["window_start", "window_end"].map(|bound| Field::new(bound, time.data_type.clone(), true)));
        }
        if !self.trigger.is_default() {
            fields.push(Field::new("pane", DataType::Int64, true));
            fields.push(Field::new("pane_timing", DataType::Utf8, true));
        }
        Ok(fields)
    }

    /// What is known of the results.
    pub(super) fn facts(&self) -> Facts {
        let mut facts = self.keyed.stream.facts();
        match &mut facts.event_time {
            Some(_) if matches!(self.kind, WindowKind::Rolling(_)) => {}
            Some(time) if self.kind.is_timed() => time.column = None,
            _ => facts.event_time = None,
        }
        facts
    }
}

/// Refuses event time in nanoseconds for this, which asks for the order of records less than a microsecond apart.
pub(super) fn check_order(stream: &Stream, verb: &str, what: Option<&str>) -> Result<()> {
    let (Some(time), Some(what)) = (stream.facts().event_time, what) else { return Ok(()) };
    let DataType::Timestamp(TimeUnit::Nanosecond, zone) = &time.data_type else { return Ok(()) };
    let column = time.column.as_deref().unwrap_or("…");
    let zone = zone.as_ref().map(|zone| format!(", {zone:?}")).unwrap_or_default();
    Err(Error::plan(format!(
        "{verb}: event time counts microseconds, and that of the stream is {}, so {what} would not see which of two records \
         less than a microsecond apart came first; cast it before event_time(), as in \
         cast({{{column:?}: mill.Timestamp(\"us\"{zone})}})",
        type_name(&time.data_type),
    )))
}

/// Refuses a duration that the unit of the event time cannot hold: the bounds of windows would be cut, and records would be
/// outside of their own window.
pub(super) fn check_unit(time: &EventTime, what: &str, us: i64) -> Result<()> {
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

    fn exprs(&self) -> Vec<&Expr> {
        self.keyed.aggregates.iter().collect()
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
        self.keyed.lower(builder, at, Windowing::Panes(self.window), Emit::End)
    }
}
