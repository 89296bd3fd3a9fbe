//! `limit`: the first records.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use mill_protocol::Result;

use super::{Changes, Inputs, Names, Need, Splits, Step};
use crate::logical::{Parameters, parameters};
use crate::lower::{Builder, Lineage};
use crate::physical::{EdgeKind, StageKind};
use crate::stream::checks::append_only;
use crate::stream::{Facts, OutputSpec, Stream};

/// Passes on the first records, this many.
#[derive(Debug)]
pub(crate) struct Limit {
    rows: u64,
}

impl Stream {
    /// The first records, this many.
    ///
    /// # Errors
    /// When the stream is updating.
    pub fn limit(&self, rows: u64) -> Result<Stream> {
        append_only(self, "limit")?;
        // A limit ends the stream even where its input never does.
        let facts = Facts { is_bounded: true, ..self.facts() };
        Stream::add(Arc::new(Limit { rows }), vec![self.clone()], self.schema(), facts)
    }
}

impl Step for Limit {
    fn label(&self) -> &'static str {
        "limit"
    }

    fn parameters(&self) -> Parameters {
        parameters([("rows", self.rows.into())])
    }

    fn outputs(&self) -> &[OutputSpec] {
        static OUTPUTS: [OutputSpec; 1] = [OutputSpec::RESULT];
        &OUTPUTS
    }

    fn changes(&self) -> Changes {
        Changes::Refuses
    }

    fn is_stateful(&self) -> bool {
        true
    }

    fn splits(&self) -> Splits {
        Splits::Ends
    }

    fn needs_order(&self, _of_result: bool, _before: &SchemaRef) -> Result<bool> {
        Ok(true)
    }

    fn takes_in_turn(&self, _number: usize) -> bool {
        // The first records are the same ones each time.
        true
    }

    fn needs(&self, need: &Need<'_>) -> Result<Names> {
        Ok(need.columns.clone())
    }

    fn schema(&self, inputs: &[SchemaRef], _declared: &SchemaRef) -> Result<SchemaRef> {
        Ok(Arc::clone(&inputs[0]))
    }

    fn lineage(&self, inputs: &Inputs<'_>) -> Lineage {
        inputs.first()
    }

    fn lower(&self, builder: &mut Builder<'_>, at: usize) -> Result<()> {
        let mut input = builder.input(at, 0)?;
        if builder.parallelism(&input) > 1 {
            input = builder.exchange(&input, EdgeKind::Gather, 1);
        }
        builder.place(at, &input, StageKind::Limit(self.rows), format!("limit({})", self.rows))
    }

    fn cuts_inputs(&self, _declared: &SchemaRef) -> bool {
        true
    }
}
