//! `key_by(…).agg(…)`: one row a key.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use mill_protocol::Result;

use super::window::check_order;
use super::{Changes, Inputs, KeyedAggregates, Names, Need, Splits, Step};
use crate::expr::Expr;
use crate::logical::{Parameters, parameters, texts};
use crate::lower::{Builder, Lineage, Windowing};
use crate::stream::checks::check_unique;
use crate::stream::{Emit, Facts, KeyedStream, OutputSpec, Stream};

/// Aggregates the records of each key.
#[derive(Debug)]
pub(crate) struct Aggregate {
    keyed: KeyedAggregates,
    emit: Emit,
    /// Whether it is a window of all records: like all windows it then has a stream of late records, though none is late.
    is_window: bool,
}

impl KeyedStream {
    /// One row a key with these aggregates.
    ///
    /// # Errors
    /// When an expression is no aggregate, or is wrong.
    pub fn agg(&self, aggregates: Vec<Expr>, emit: Emit) -> Result<Stream> {
        self.agg_as(aggregates, emit, false)
    }

    /// The same, as a window of all records or not.
    pub(super) fn agg_as(&self, aggregates: Vec<Expr>, emit: Emit, is_window: bool) -> Result<Stream> {
        let parts = self.parts(&aggregates)?;
        let emit = self.emit(emit)?;
        let mut fields = self.key_fields()?;
        fields.extend(parts.output_fields()?);
        check_unique(fields.iter().map(|field| field.name().clone()), "agg")?;
        check_order(&self.stream, "agg()", parts.is_ordered().then_some("a function of the order of records"))?;
        let keyed = KeyedAggregates { keys: self.keys.clone(), aggregates, by_time: self.stream.has_event_time() };
        let step = Aggregate { keyed, emit, is_window };
        let facts = Facts { is_bounded: self.stream.is_bounded(), event_time: None, updating: None, withdraws: false };
        Stream::add(Arc::new(step), vec![self.stream.clone()], Arc::new(Schema::new(fields)), facts)
    }
}

impl Step for Aggregate {
    fn label(&self) -> &'static str {
        "agg"
    }

    fn parameters(&self) -> Parameters {
        parameters([
            ("keys", self.keyed.keys.clone().into()),
            ("aggregates", texts(self.keyed.aggregates.iter())),
            ("emit", self.emit.to_string().into()),
        ])
    }

    fn exprs(&self) -> Vec<&Expr> {
        self.keyed.aggregates.iter().collect()
    }

    fn outputs(&self) -> &[OutputSpec] {
        static OUTPUTS: [OutputSpec; 2] = [OutputSpec::RESULT, OutputSpec::ERRORS];
        static OF_WINDOW: [OutputSpec; 3] = [OutputSpec::RESULT, OutputSpec::LATE, OutputSpec::ERRORS];
        if self.is_window { &OF_WINDOW } else { &OUTPUTS }
    }

    fn changes(&self) -> Changes {
        self.emit.changes(&self.keyed.keys)
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
        self.keyed.lower(builder, at, Windowing::None, self.emit)
    }
}
