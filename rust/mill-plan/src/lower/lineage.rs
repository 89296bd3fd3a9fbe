//! What columns are made of: the expressions between the sources and a step with state.
//!
//! State is of use only to a plan that puts the same records to the same keys. So the signature of a keyed step has its keys
//! and the inputs of its aggregates as expressions over what the sources (or steps with state of their own) give, wherever
//! in the plan they are computed:
//!
//! ```text
//!   with_columns(hour=col("at").dt.hour()) ─► key_by(k=col("hour") % 6)      k = col("at").dt.hour() % 6
//! ```
//!
//! Filters and other steps that only choose records leave no trace. Neither do the user's functions: the same step with
//! another function is the same plan, so of a call the arguments count, and a column out of `map()` is just its name.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::DataType;

use super::graph::{StepGraph, Tap};
use crate::expr::Expr;
use crate::steps::Inputs;
use crate::stream::Content;
use crate::types::type_name;

/// Longer expressions are stood for by a hash, so that columns computed from each other over and over stay small.
const TEXT_MAX: usize = 200;

/// What the columns of a stream are made of; a column that is missing is made by the source, or by a step with state.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lineage(Arc<HashMap<String, Arc<Expr>>>);

impl Lineage {
    /// Columns and what they are made of.
    pub(crate) fn new(columns: impl Iterator<Item = (String, Expr)>) -> Lineage {
        Lineage(Arc::new(columns.map(|(name, expr)| (name, shortened(expr))).collect()))
    }

    /// What a column is made of.
    pub(crate) fn of(&self, column: &str) -> Expr {
        self.0.get(column).map_or_else(|| Expr::column(column), |expr| expr.as_ref().clone())
    }

    /// An expression over the columns of the stream as one over what they are made of, without the user's functions.
    pub(crate) fn resolve(&self, expr: &Expr) -> Expr {
        expr.without_alias().rewrite(&mut |part| match part {
            Expr::Column(name) => Some(self.of(name)),
            Expr::Alias(inner, _) => Some(self.resolve(inner)),
            Expr::User { args, .. } => {
                let args = args.iter().map(|arg| self.resolve(arg)).collect();
                Some(Expr::Function { name: "udf".to_owned(), args })
            }
            _ => None,
        })
    }

    /// `bucket int64 = col("x") % 10`, or only `x int64` for a column that the source has.
    pub(crate) fn described(&self, column: &str, data_type: &DataType) -> String {
        match self.of(column) {
            Expr::Column(name) if name == column => format!("{column} {}", type_name(data_type)),
            expr => format!("{column} {} = {expr}", type_name(data_type)),
        }
    }

    /// These columns with what one of them is made of now.
    pub(crate) fn with(&self, name: &str, expr: Expr) -> Lineage {
        let mut columns = self.0.as_ref().clone();
        columns.insert(name.to_owned(), shortened(expr));
        Lineage(Arc::new(columns))
    }
}

/// The expression, or a column named by its hash if it is long.
fn shortened(expr: Expr) -> Arc<Expr> {
    let text = expr.to_string();
    if text.len() <= TEXT_MAX {
        return Arc::new(expr);
    }
    let hash = crate::physical::fnv(text.bytes());
    Arc::new(Expr::Column(format!("an expression with hash {hash:016x}")))
}

/// What the columns that each step takes from its first input are made of. Inputs stand before those who take them.
pub(super) fn of_inputs(graph: &StepGraph) -> Vec<Lineage> {
    let mut results: Vec<Lineage> = Vec::with_capacity(graph.steps.len());
    let mut inputs: Vec<Vec<Lineage>> = Vec::with_capacity(graph.steps.len());
    for vertex in &graph.steps {
        let of = |tap: &Tap| match graph.content(*tap) {
            Content::Result => results[tap.step].clone(),
            Content::Input(number) => inputs[tap.step][number].clone(),
            Content::Side | Content::Errors => Lineage::default(),
        };
        let lineages: Vec<Lineage> = vertex.inputs.iter().map(of).collect();
        let before = vertex.inputs.first().map(|&tap| graph.schema_of(tap));
        let known = Inputs { lineages: &lineages, before: before.as_ref(), result: &vertex.schema };
        results.push(vertex.step.lineage(&known));
        inputs.push(lineages);
    }
    inputs.into_iter().map(|lineages| lineages.into_iter().next().unwrap_or_default()).collect()
}
