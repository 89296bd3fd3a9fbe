//! `event_time`: takes each record's time from a column and makes watermarks.

use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use mill_protocol::{Error, Result};

use super::{Changes, Inputs, Names, Need, Splits, Step};
use crate::logical::{Parameters, parameters};
use crate::lower::{Builder, Lineage};
use crate::physical::StageKind;
use crate::stream::checks::{append_only, column_index, in_step};
use crate::stream::{Content, EventTime, OutputSpec, Stream, WatermarkStrategy, duration};
use crate::types::type_name;

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
        if strategy.out_of_orderness_us < 0 || strategy.idleness_us.is_some_and(|idle| idle <= 0) {
            return Err(Error::plan("a watermark's bounds are not negative, and its idleness is positive"));
        }
        if let Some(op) = self.keyed_step_before() {
            return Err(Error::plan(format!(
                "event_time() stands behind {op}(), where records come in no fixed order; put it before key_by()"
            )));
        }
        if let Some(op) = self.exchange_before(true) {
            return Err(Error::plan(format!(
                "event_time() stands behind {op}(), where records come in no fixed order; put it before {op}()"
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

/// An idleness as the logical plan shows it.
fn idleness(idleness_us: Option<i64>) -> Option<String> {
    idleness_us.map(|idle| if idle == WatermarkStrategy::WAITS_FOR_EVER { "never".to_owned() } else { duration(idle) })
}

impl Step for EventTimeStep {
    fn label(&self) -> &'static str {
        "event_time"
    }

    fn parameters(&self) -> Parameters {
        parameters([
            ("column", self.column.as_str().into()),
            ("out_of_orderness", duration(self.strategy.out_of_orderness_us).into()),
            ("idleness", idleness(self.strategy.idleness_us).into()),
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
        Ok(need.columns_and(&self.column))
    }

    fn schema(&self, inputs: &[SchemaRef], _declared: &SchemaRef) -> Result<SchemaRef> {
        Ok(Arc::clone(&inputs[0]))
    }

    fn lineage(&self, inputs: &Inputs<'_>) -> Lineage {
        inputs.first()
    }

    fn lower(&self, builder: &mut Builder<'_>, at: usize) -> Result<()> {
        let input = builder.input(at, 0)?;
        let column = column_index(&input.schema, &self.column)?;
        let described = builder.graph.steps[at].lineage.described(&self.column, input.schema.field(column).data_type());
        let idleness_us = self.strategy.effective_idleness(builder.source_of(&input));
        let kind = StageKind::EventTime { column, strategy: WatermarkStrategy { idleness_us, ..self.strategy } };
        builder.place(at, &input, kind, format!("event_time({described})"))
    }
}
