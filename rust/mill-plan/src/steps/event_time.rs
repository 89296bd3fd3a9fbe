//! `event_time`: takes each record's time from a column and makes watermarks.

use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use mill_protocol::{Alignment, Error, Result};

use super::{Changes, Inputs, Names, Need, Splits, Step};
use crate::logical::{Parameters, parameters};
use crate::lower::{Builder, Lineage};
use crate::physical::{StageKind, WatermarksOf};
use crate::stream::checks::{append_only, column_index, in_step};
use crate::stream::{Content, EventTime, OutputSpec, Stream, duration};
use crate::types::type_name;
use crate::watermark::{WatermarkStrategy, WatermarksFrom};

/// Takes event time from a column.
#[derive(Debug)]
pub(crate) struct EventTimeStep {
    column: String,
    strategy: WatermarkStrategy,
}

impl Stream {
    /// Takes each record's event time from a column.
    ///
    /// # Errors
    /// When the column does not exist or holds no time, or the stream has been aggregated.
    pub fn event_time(&self, column: &str, strategy: WatermarkStrategy) -> Result<Stream> {
        append_only(self, "event_time")?;
        let schema = self.schema();
        let index = column_index(&schema, column).map_err(in_step("event_time"))?;
        let data_type = match schema.field(index).data_type() {
            DataType::Timestamp(unit, zone) => DataType::Timestamp(*unit, zone.clone()),
            DataType::Date32 | DataType::Date64 => DataType::Timestamp(TimeUnit::Microsecond, None),
            other => {
                return Err(Error::schema(format!(
                    "event_time() needs a timestamp or date column; {column:?} is {}; cast it, or use .str.to_datetime()",
                    type_name(other)
                )));
            }
        };
        check(&strategy, &schema).map_err(in_step("event_time"))?;
        if let Some(op) = self.keyed_step_before() {
            return Err(Error::plan(format!(
                "event_time() after {op}(): records of different keys come out of it in no fixed order, so what is late would depend \
                 on timing; call event_time() before {op}() and its key_by()"
            )));
        }
        if let Some(op) = self.exchange_before(true) {
            return Err(Error::plan(format!(
                "event_time() after {op}(): records of different tasks come out of it in no fixed order, so what is late would depend \
                 on timing; call event_time() before {op}()"
            )));
        }
        let mut facts = self.facts();
        facts.event_time = Some(EventTime { column: Some(column.to_owned()), data_type });
        let step = EventTimeStep { column: column.to_owned(), strategy };
        Stream::add(Arc::new(step), vec![self.clone()], schema, facts)
    }

    /// The keyed step that this stream comes from, if any.
    fn keyed_step_before(&self) -> Option<&'static str> {
        if self.output().content == Content::Errors {
            return None;
        }
        match self.node.step.splits() {
            Splits::Keys => Some(self.node.step.label()),
            Splits::Keeps | Splits::Needs | Splits::Mixes | Splits::Ends => {
                self.node.inputs.iter().find_map(Stream::keyed_step_before)
            }
        }
    }

    /// The step after which the splits of the sources are no longer told apart, if any. A union or rebalance right before
    /// does no harm: event time is then taken before it.
    fn exchange_before(&self, is_direct: bool) -> Option<&'static str> {
        if self.output().content == Content::Errors {
            return None;
        }
        let is_direct = match self.node.step.splits() {
            Splits::Ends => return Some(self.node.step.label()),
            Splits::Mixes if !is_direct => return Some(self.node.step.label()),
            Splits::Mixes => true,
            Splits::Keeps | Splits::Needs | Splits::Keys => false,
        };
        self.node.inputs.iter().find_map(|input| input.exchange_before(is_direct))
    }
}

/// Refuses a strategy that cannot be followed over these columns.
fn check(strategy: &WatermarkStrategy, schema: &SchemaRef) -> Result<()> {
    if strategy.idleness_us.is_some_and(|idle| idle <= 0) || strategy.drift.as_ref().is_some_and(|drift| drift.us_max <= 0) {
        return Err(Error::plan("the idleness and the drift of a watermark strategy are more than zero"));
    }
    match &strategy.from {
        WatermarksFrom::Bound(bound) if *bound < 0 => {
            Err(Error::plan("the bound of a watermark strategy is not negative"))
        }
        WatermarksFrom::Bound(_) => Ok(()),
        WatermarksFrom::Column(column) => {
            let index = column_index(schema, column)?;
            match schema.field(index).data_type() {
                DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => Ok(()),
                other => Err(Error::schema(format!(
                    "watermarks are times, and column {column:?} is {}; cast it, or use .str.to_datetime()",
                    type_name(other)
                ))),
            }
        }
        WatermarksFrom::Function(function) => {
            if function.period_us().is_some_and(|period| period <= 0) {
                return Err(Error::plan(format!("the period of {} is more than zero", function.name())));
            }
            function.columns().into_iter().flatten().try_for_each(|column| column_index(schema, column).map(drop))
        }
    }
}

/// An idleness as the logical plan shows it.
fn idleness(idleness_us: Option<i64>) -> Option<String> {
    idleness_us.map(|idle| if idle == WatermarkStrategy::WAITS_FOR_EVER { "never".to_owned() } else { duration(idle) })
}

impl Step for EventTimeStep {
    fn label(&self) -> &'static str {
        "event_time"
    }

    fn parameters(&self) -> Parameters {
        let (out_of_orderness, watermarks) = match &self.strategy.from {
            WatermarksFrom::Bound(us) => (Some(*us), None),
            WatermarksFrom::Column(column) => (None, Some(column.clone())),
            WatermarksFrom::Function(function) => (None, Some(function.name())),
        };
        parameters([
            ("column", self.column.as_str().into()),
            ("out_of_orderness", out_of_orderness.map(duration).into()),
            ("watermarks", watermarks.into()),
            ("idleness", idleness(self.strategy.idleness_us).into()),
            ("drift", self.strategy.drift.as_ref().map(|drift| duration(drift.us_max)).into()),
            ("group", self.strategy.drift.as_ref().and_then(|drift| drift.group.clone()).into()),
        ])
    }

    fn outputs(&self) -> &[OutputSpec] {
        static OUTPUTS: [OutputSpec; 2] = [OutputSpec::RESULT, OutputSpec::ERRORS];
        &OUTPUTS
    }

    fn changes(&self) -> Changes {
        Changes::Refuses
    }

    fn is_stateful(&self) -> bool {
        true
    }

    fn splits(&self) -> Splits {
        Splits::Needs
    }

    fn needs_order(&self, _of_result: bool, _before: &SchemaRef) -> Result<bool> {
        Ok(true)
    }

    fn needs(&self, need: &Need<'_>) -> Result<Names> {
        Ok(match &self.strategy.from {
            WatermarksFrom::Bound(_) => need.columns_and(&self.column),
            WatermarksFrom::Column(watermark) => {
                let mut names = need.columns_and(&self.column);
                names.insert(watermark.clone());
                names
            }
            WatermarksFrom::Function(function) => match function.columns() {
                None => need.all(),
                Some(columns) => {
                    let mut names = need.columns_and(&self.column);
                    names.extend(columns.iter().cloned());
                    names
                }
            },
        })
    }

    fn schema(&self, inputs: &[SchemaRef], _declared: &SchemaRef) -> Result<SchemaRef> {
        Ok(Arc::clone(&inputs[0]))
    }

    fn lineage(&self, inputs: &Inputs<'_>) -> Lineage {
        inputs.first()
    }

    fn alignment_group(&self) -> Option<&str> {
        self.strategy.drift.as_ref()?.group.as_deref()
    }

    fn lower(&self, builder: &mut Builder<'_>, at: usize) -> Result<()> {
        let input = builder.input(at, 0)?;
        let column = column_index(&input.schema, &self.column)?;
        let described = builder.graph.steps[at].lineage.described(&self.column, input.schema.field(column).data_type());
        let (watermarks, signature) = match &self.strategy.from {
            WatermarksFrom::Bound(us) => (WatermarksOf::Bound(*us), format!("event_time({described})")),
            WatermarksFrom::Column(name) => {
                let watermark = column_index(&input.schema, name)?;
                let of = builder.graph.steps[at].lineage.described(name, input.schema.field(watermark).data_type());
                (WatermarksOf::Column(watermark), format!("event_time({described}, watermarks of {of})"))
            }
            WatermarksFrom::Function(function) => {
                let columns = match function.columns() {
                    None => (0..input.schema.fields().len()).collect(),
                    Some(names) => names.iter().map(|name| column_index(&input.schema, name)).collect::<Result<Vec<usize>>>()?,
                };
                let function = Arc::clone(function);
                (WatermarksOf::Function { function, columns }, format!("event_time({described}, watermarks of a function)"))
            }
        };
        let idleness_us = self.strategy.effective_idleness(builder.source_of(&input));
        let alignment = self.strategy.drift.as_ref().map(|drift| {
            // A step that was moved before a union is several stages of one name.
            let step = || format!("step {}", builder.graph.steps[at].name);
            let group = drift.group.as_ref().map_or_else(step, |group| format!("group {group}"));
            Alignment { group: group.into(), drift_us_max: drift.us_max }
        });
        if let (Some(_), Some(other)) = (&alignment, builder.aligned_step(&input)) {
            return Err(Error::plan(format!(
                "the step {other:?} aligns the splits of the same source already, and two alignments of one source could wait \
                 for each other for ever; use with_alignment() in one of them"
            )));
        }
        builder.place(at, &input, StageKind::EventTime { column, watermarks, idleness_us, alignment }, signature)
    }
}
