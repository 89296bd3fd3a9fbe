//! `rebalance`: the same records, spread evenly over all tasks.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use mill_protocol::Result;

use super::{Changes, Inputs, Names, Need, Splits, Step};
use crate::expr::Expr;
use crate::logical::Parameters;
use crate::lower::{Builder, Lineage};
use crate::physical::{EdgeKind, StageKind};
use crate::stream::checks::append_only;
use crate::stream::{OutputSpec, Stream};

/// Spreads records evenly over all tasks.
#[derive(Debug)]
pub(crate) struct Rebalance;

impl Stream {
    /// The same records, spread evenly over all tasks.
    ///
    /// # Errors
    /// When the stream is updating.
    pub fn rebalance(&self) -> Result<Stream> {
        append_only(self, "rebalance")?;
        Stream::add(Arc::new(Rebalance), vec![self.clone()], self.schema(), self.facts())
    }
}

impl Step for Rebalance {
    fn label(&self) -> &'static str {
        "rebalance"
    }

    fn parameters(&self) -> Parameters {
        Parameters::new()
    }

    fn outputs(&self) -> &[OutputSpec] {
        static OUTPUTS: [OutputSpec; 1] = [OutputSpec::RESULT];
        &OUTPUTS
    }

    fn changes(&self) -> Changes {
        Changes::Refuses
    }

    fn is_stateful(&self) -> bool {
        false
    }

    fn splits(&self) -> Splits {
        Splits::Mixes
    }

    fn needs_order(&self, _of_result: bool, _before: &SchemaRef) -> Result<bool> {
        // After it there is no order left to keep.
        Ok(false)
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
        let input = builder.input(at, 0)?;
        let input = builder.exchange(&input, EdgeKind::Rebalance, builder.options.parallelism);
        builder.place(at, &input, StageKind::Pass, String::new())
    }

    fn cuts_inputs(&self, _declared: &SchemaRef) -> bool {
        true
    }

    fn predicate_before(&self, predicate: &Expr, _before: &Schema) -> Option<Expr> {
        Some(predicate.clone())
    }
}
