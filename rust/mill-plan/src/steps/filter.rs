//! `filter`: the records for which a predicate is true.

use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use mill_protocol::{Error, Result};

use super::{Changes, Inputs, Names, Need, Splits, Step};
use crate::compiled::CompiledExpr;
use crate::expr::Expr;
use crate::logical::{Parameters, parameters};
use crate::lower::{Builder, Lineage};
use crate::physical::StageKind;
use crate::stream::checks::in_step;
use crate::stream::{OutputSpec, Stream};
use crate::types::type_name;

/// Keeps the records for which the predicate is true. In an updating stream the others become deletes of their key.
#[derive(Debug)]
pub(crate) struct Filter {
    pub(crate) predicate: Expr,
}

impl Stream {
    /// The records for which the predicate is true.
    ///
    /// # Errors
    /// When the predicate is wrong or not boolean.
    pub fn filter(&self, predicate: Expr) -> Result<Stream> {
        self.check_predicate(&predicate, "filter")?;
        let mut facts = self.facts();
        facts.withdraws |= facts.updating.is_some();
        Stream::add(Arc::new(Filter { predicate }), vec![self.clone()], self.schema(), facts)
    }

    /// Refuses a predicate that is wrong or not boolean.
    pub(super) fn check_predicate(&self, predicate: &Expr, verb: &'static str) -> Result<()> {
        let compiled = CompiledExpr::new(predicate, &self.schema()).map_err(in_step(verb))?;
        match compiled.field().data_type() {
            DataType::Boolean | DataType::Null => Ok(()),
            other => Err(Error::schema(format!(
                "{verb}() needs a boolean expression; {predicate} is {}",
                type_name(other)
            ))),
        }
    }
}

impl Step for Filter {
    fn label(&self) -> &'static str {
        "filter"
    }

    fn parameters(&self) -> Parameters {
        parameters([("predicate", self.predicate.to_string().into())])
    }

    fn exprs(&self) -> Vec<&Expr> {
        vec![&self.predicate]
    }

    fn outputs(&self) -> &[OutputSpec] {
        static OUTPUTS: [OutputSpec; 2] = [OutputSpec::RESULT, OutputSpec::ERRORS];
        &OUTPUTS
    }

    fn changes(&self) -> Changes {
        Changes::Passes
    }

    fn is_stateful(&self) -> bool {
        false
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
        let kind = StageKind::Filter(CompiledExpr::new(&self.predicate, &input.schema)?);
        builder.place(at, &input, kind, String::new())
    }

    fn predicate(&self) -> Option<&Expr> {
        Some(&self.predicate)
    }
}
