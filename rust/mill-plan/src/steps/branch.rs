//! `branch`: the records for which a predicate is true, and the others.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use mill_protocol::Result;

use super::{Changes, Inputs, Names, Need, Splits, Step};
use crate::compiled::CompiledExpr;
use crate::expr::Expr;
use crate::logical::{Parameters, parameters};
use crate::lower::{Builder, Lineage};
use crate::physical::StageKind;
use crate::stream::checks::append_only;
use crate::stream::{Content, OutputSpec, Stream};

/// The name of the output of records for which the predicate is false or null.
const NO: &str = "no";

/// Sends each record one of two ways.
#[derive(Debug)]
pub(crate) struct Branch {
    predicate: Expr,
}

impl Stream {
    /// The records for which the predicate is true, and the others.
    ///
    /// # Errors
    /// When the predicate is wrong or not boolean.
    pub fn branch(&self, predicate: Expr) -> Result<(Stream, Stream)> {
        append_only(self, "branch")?;
        self.check_predicate(&predicate, "branch")?;
        let yes = Stream::add(Arc::new(Branch { predicate }), vec![self.clone()], self.schema(), self.facts())?;
        let no = yes.side(NO)?;
        Ok((yes, no))
    }
}

impl Step for Branch {
    fn label(&self) -> &'static str {
        "branch"
    }

    fn parameters(&self) -> Parameters {
        parameters([("predicate", self.predicate.to_string().into())])
    }

    fn exprs(&self) -> Vec<&Expr> {
        vec![&self.predicate]
    }

    fn outputs(&self) -> &[OutputSpec] {
        static OUTPUTS: [OutputSpec; 3] =
            [OutputSpec::new("yes", Content::Result), OutputSpec::new(NO, Content::Result), OutputSpec::ERRORS];
        &OUTPUTS
    }

    fn changes(&self) -> Changes {
        Changes::Refuses
    }

    fn is_stateful(&self) -> bool {
        false
    }

    fn is_landmark(&self) -> bool {
        true
    }

    fn splits(&self) -> Splits {
        Splits::Keeps
    }

    fn needs_order(&self, of_result: bool, _before: &SchemaRef) -> Result<bool> {
        Ok(of_result)
    }

    fn needs(&self, need: &Need<'_>) -> Result<Names> {
        Ok(need.columns_and_those_of(&self.predicate))
    }

    fn schema(&self, inputs: &[SchemaRef], _declared: &SchemaRef) -> Result<SchemaRef> {
        Ok(Arc::clone(&inputs[0]))
    }

    fn lineage(&self, inputs: &Inputs<'_>) -> Lineage {
        inputs.first()
    }

    fn lower(&self, builder: &mut Builder<'_>, at: usize) -> Result<()> {
        let input = builder.input(at, 0)?;
        let kind = StageKind::Branch(CompiledExpr::new(&self.predicate, &input.schema)?);
        builder.place(at, &input, kind, String::new())
    }
}
