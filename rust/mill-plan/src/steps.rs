//! The steps of a plan, a file each.
//!
//! A file holds all that the plan knows of its step: the method of [`Stream`](crate::Stream) that adds it, its parameters
//! and its [`Step`]. The passes of lowering ask the step and know none by name. A new step is a new file and a line in the
//! list below.
//!
//! ```text
//!   Stream::filter(…)   checks, columns and facts of the result  ──►  Stream::add(Filter { … })
//!   lower()             names, order, needed columns, lineage    ──►  Filter::needs(), ::schema(), …
//!                       stages                                   ──►  Filter::lower()
//! ```
//!
//! A method without a default is one that a step must not forget: a wrong answer would silently lose columns, state or
//! order. Methods with a default are abilities that a step may have.

mod aggregate;
mod branch;
mod casts;
mod changelog;
mod deduplicate;
mod event_time;
mod explode;
mod filter;
mod join;
mod kept_window;
mod limit;
mod lookup;
mod map_async;
pub(crate) mod parts;
mod process;
mod project;
mod rebalance;
mod reduce;
mod shift;
mod sink;
mod source;
mod top_n;
mod union;
mod unnest;
mod user;
mod window;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use mill_protocol::{Result, Sink, Source};

pub(crate) use self::filter::Filter;
pub use self::join::{JoinCall, JoinOn};
pub(crate) use self::join::JoinKeys;
pub(crate) use self::parts::{AggregateParts, KeyedAggregates};
pub use self::process::BroadcastCall;
pub(crate) use self::project::select;
pub use self::sink::SinkNode;
pub(crate) use self::sink::{SinkStep, preview};
pub(crate) use self::source::SourceStep;
pub(crate) use self::union::Union;
pub use self::user::UserStepKind;
pub use self::window::WindowedStream;
use crate::aggregate::AggregateKind;
use crate::compiled::CompiledExpr;
use crate::expr::{ELEMENT_COLUMN, Expr};
use crate::functions;
use crate::logical::Parameters;
use crate::lower::{Builder, Lineage};
use crate::stream::OutputSpec;

/// Names of columns.
pub(crate) type Names = BTreeSet<String>;

/// A step: what it is, what it needs, what it computes and how it is run.
pub(crate) trait Step: fmt::Debug + Send + Sync {
    /// The word for it in messages.
    fn label(&self) -> &'static str;

    /// What it is named if the user has not named it.
    fn called(&self) -> String {
        self.label().to_owned()
    }

    /// Its parameters, for readers of the logical plan.
    fn parameters(&self) -> Parameters;

    /// What tells it from other steps of its kind, the same in every run and however the user spelt it.
    fn print(&self) -> String {
        let mut parameters = self.parameters();
        // How a function is called, and with how many rows at once, is nothing of what it computes.
        parameters.remove("rung");
        parameters.remove("batch_rows");
        serde_json::Value::Object(parameters).to_string()
    }

    /// The expressions that it computes.
    fn exprs(&self) -> Vec<&Expr> {
        Vec::new()
    }

    /// Whether another step may have its [`print`](Step::print) and yet compute something else, as it calls a function of the
    /// user's that the plan knows only by name.
    fn is_opaque(&self) -> bool {
        call_functions(self.exprs())
    }

    /// Whether records are expected to fail in it, as a function of the user's raises or a value cannot be converted. Records may
    /// fail in other steps too, such as malformed lines in a source or a sum that leaves its range. `inputs` are the columns of
    /// its inputs.
    fn may_fail(&self, inputs: &[SchemaRef]) -> bool {
        self.is_opaque() || convert_strictly(self.exprs(), inputs)
    }

    /// Its outputs, the result first.
    fn outputs(&self) -> &[OutputSpec];

    /// What it makes of streams in which the latest row of a key counts.
    fn changes(&self) -> Changes;

    /// Whether it keeps state or positions of its own. In [`lower`](Step::lower), the stage with the state then gets a
    /// signature: what must be the same for the state to be restored. The fingerprint of a plan consists of the identities
    /// and signatures of stages with state.
    fn is_stateful(&self) -> bool;

    /// Whether the identities of the steps after it begin with its own. A step without state normally leaves no trace in
    /// them, so that adding one loses no state; only where streams part or meet it does.
    fn is_landmark(&self) -> bool {
        self.is_stateful()
    }

    /// Whether the splits of the sources can be told apart after it.
    fn splits(&self) -> Splits;

    /// Whether the order of its input matters. `of_result`: whether the order of its result matters to a later step.
    /// `before` are the columns of its first input.
    fn needs_order(&self, of_result: bool, before: &SchemaRef) -> Result<bool>;

    /// Whether the order that it needs is one of this input.
    fn orders_input(&self, _number: usize) -> bool {
        true
    }

    /// Whether the records of this input have to come in one order that is the same each time, and not only those of each
    /// split: one task reads them then, split by split.
    fn takes_in_turn(&self, _number: usize) -> bool {
        false
    }

    /// Whether it takes no more of its first input until its second one has ended, if the first one can wait.
    fn holds_first(&self) -> bool {
        false
    }

    /// The columns it needs of an input for its result. If someone takes an output of whole input records, such as late
    /// ones, all columns of that input are needed, and the step is not asked.
    fn needs(&self, need: &Need<'_>) -> Result<Names>;

    /// The columns of its result, over inputs of which only the needed columns are left. `declared` are those of the result
    /// before anything was left out.
    fn schema(&self, inputs: &[SchemaRef], declared: &SchemaRef) -> Result<SchemaRef>;

    /// What the columns of its result are made of.
    fn lineage(&self, inputs: &Inputs<'_>) -> Lineage;

    /// Adds its stages to the chains: step `at` of the builder's graph.
    fn lower(&self, builder: &mut Builder<'_>, at: usize) -> Result<()>;

    /// The step without the columns that nobody needs, if it reads or computes them itself.
    fn pruned(&self, _needed: &Names) -> Option<Arc<dyn Step>> {
        None
    }

    /// The group of splits that keep together in time, of a step that makes them do so.
    fn alignment_group(&self) -> Option<&str> {
        None
    }

    /// Whether its inputs are cut to the needed columns, in the order of its result, before they reach it: worth it where
    /// records move to another task, and needed where inputs must be alike. `declared` are the columns of its result.
    fn cuts_inputs(&self, _declared: &SchemaRef) -> bool {
        false
    }

    /// The predicate, of a step that only keeps the records for which one holds.
    fn predicate(&self) -> Option<&Expr> {
        None
    }

    /// A predicate over its result as one over its input, which has the columns `before`. `None` where filtering the input
    /// instead of the result could change anything.
    fn predicate_before(&self, _predicate: &Expr, _before: &Schema) -> Option<Expr> {
        None
    }

    /// The source, of a step that reads one.
    fn source(&self) -> Option<&Arc<dyn Source>> {
        None
    }

    /// The sink, of a step that writes into one.
    fn sink(&self) -> Option<&Arc<dyn Sink>> {
        None
    }
}

/// What a step makes of updating streams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Changes {
    /// It takes them, and its result is one if its input is.
    Passes,
    /// It takes none, and its result is none.
    Refuses,
    /// The same, but of inputs other than the first it takes any.
    RefusesFirst,
    /// It takes none, and its result is one.
    Makes {
        /// The columns of its key.
        key: Vec<String>,
        /// Whether rows may withdraw their key.
        withdraws: bool,
    },
    /// It takes nothing else, and its result is none.
    Ends,
    /// It takes any, and its result is one if it has a key.
    Takes {
        /// The columns of its key.
        key: Option<Vec<String>>,
        /// Whether rows may withdraw their key.
        withdraws: bool,
    },
}

/// What becomes of the splits of the sources in a step. Watermarks are made per split, so event time needs them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Splits {
    /// They are told apart after it as before it.
    Keeps,
    /// The same, and it needs them itself: it runs in the chain of its source.
    Needs,
    /// Records of all splits are mixed; an event time right after it can as well be taken right before it.
    Mixes,
    /// Records of all splits are mixed for good.
    Ends,
    /// Records of all splits are put together by key.
    Keys,
}

/// What is asked of a step's inputs.
pub(crate) struct Need<'a> {
    /// The columns needed of its result.
    pub(crate) columns: &'a Names,
    /// The columns of the input.
    pub(crate) input: &'a SchemaRef,
    /// Which of the inputs it is.
    pub(crate) number: usize,
}

impl Need<'_> {
    /// Every column of the input.
    pub(crate) fn all(&self) -> Names {
        self.input.fields().iter().map(|field| field.name().clone()).collect()
    }

    /// What is needed of the result, and the columns of an expression.
    pub(crate) fn columns_and_those_of(&self, expr: &Expr) -> Names {
        let mut names = self.columns.clone();
        expr.add_columns(&mut names);
        names
    }

    /// What is needed of the result, and a column.
    pub(crate) fn columns_and(&self, column: &str) -> Names {
        let mut names = self.columns.clone();
        names.insert(column.to_owned());
        names
    }
}

/// What is known of a step's inputs and result before anything is left out.
pub(crate) struct Inputs<'a> {
    /// What the columns of each input are made of.
    pub(crate) lineages: &'a [Lineage],
    /// The columns of the first input, if there is one.
    pub(crate) before: Option<&'a SchemaRef>,
    /// The columns of the result.
    pub(crate) result: &'a SchemaRef,
}

impl Inputs<'_> {
    /// What the columns of the first input are made of.
    pub(crate) fn first(&self) -> Lineage {
        self.lineages.first().cloned().unwrap_or_default()
    }
}

/// Whether a function of the user's is called in one of these.
fn call_functions<'a>(exprs: impl IntoIterator<Item = &'a Expr>) -> bool {
    let is_call = |part: &Expr| match part {
        Expr::User { function, .. } => !function.is_builtin(),
        Expr::Aggregate(call) => matches!(call.kind, AggregateKind::User(_)),
        _ => false,
    };
    exprs.into_iter().any(|expr| expr.any(&is_call))
}

/// Whether one of these converts values in such a way that one that does not fit is an error of its record, and values that do
/// not fit are to be expected.
fn convert_strictly<'a>(exprs: impl IntoIterator<Item = &'a Expr>, inputs: &[SchemaRef]) -> bool {
    // Which of the inputs an expression is over is not known here: its types in all of them.
    let types = |expr: &Expr| -> Vec<DataType> {
        let compiled = inputs.iter().filter_map(|columns| CompiledExpr::compile(expr, columns, true).ok());
        compiled.map(|compiled| compiled.field().data_type().clone()).collect()
    };
    let is_strict = |part: &Expr| match part {
        Expr::Cast { strict: false, .. } => false,
        // A constant is converted when the plan is made.
        Expr::Cast { input, .. } if is_constant(input) => false,
        Expr::Cast { input, to, .. } => {
            let types = types(input);
            types.is_empty() || types.iter().any(|from| !casts::fits(from, to))
        }
        Expr::Function { name, args } => functions::converts_strictly(name, args),
        Expr::ListEval { input, body } => {
            let elements = types(input).into_iter().filter_map(|list| match list {
                DataType::List(element) | DataType::LargeList(element) | DataType::FixedSizeList(element, _) => {
                    Some(Arc::new(Schema::new(vec![element.as_ref().clone().with_name(ELEMENT_COLUMN)])))
                }
                _ => None,
            });
            convert_strictly([body.as_ref()], &elements.collect::<Vec<SchemaRef>>())
        }
        _ => false,
    };
    exprs.into_iter().any(|expr| expr.any(&is_strict))
}

/// Whether the expression has one value, which is known when the plan is made.
fn is_constant(expr: &Expr) -> bool {
    !expr.any(&|part| !matches!(part, Expr::Literal(_) | Expr::Alias(..) | Expr::Cast { .. } | Expr::Unary { .. }))
}

/// The declared columns that a test leaves, in their order.
fn remaining(declared: &SchemaRef, is_left: impl Fn(&str) -> bool) -> SchemaRef {
    let fields: Vec<_> = declared.fields().iter().filter(|field| is_left(field.name())).cloned().collect();
    Arc::new(Schema::new_with_metadata(fields, declared.metadata().clone()))
}

#[cfg(test)]
mod tests;
