//! Windows that keep their records until they have a result: sessions, windows of a number of records, windows with
//! triggers, and functions of whole windows.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use mill_protocol::{Error, Result};

use super::{AggregateParts, Changes, Inputs, Names, Need, Splits, Step, WindowedStream};
use crate::expr::Expr;
use crate::function::{ReduceFunction, WindowFunction};
use crate::logical::{Parameters, parameters, texts};
use crate::lower::{Aggregation, Builder, KeptWindows, Lineage, WindowCall, Windowing};
use crate::physical::WindowCompute;
use super::parts::check_kept;
use crate::stream::checks::check_unique;
use crate::stream::{Emit, OutputSpec, Stream, duration};
use crate::window::{Gap, WindowKind};

/// Computes a result of the records of each key and window.
#[derive(Debug)]
pub(crate) struct KeptWindowStep {
    keys: Vec<String>,
    windows: KeptWindows,
    compute: Compute,
}

/// What is computed of the records of a window.
#[derive(Debug)]
enum Compute {
    Aggregates(Vec<Expr>),
    Reduce(Arc<dyn ReduceFunction>),
    Apply(Arc<dyn WindowFunction>),
}

impl WindowedStream {
    /// Aggregates over kept records.
    pub(super) fn agg_kept(&self, aggregates: Vec<Expr>) -> Result<Stream> {
        let mut fields = self.result_fields()?;
        fields.extend(self.keyed.parts(&aggregates)?.output_fields()?);
        self.add_kept(Compute::Aggregates(aggregates), fields, "agg")
    }

    /// One row a key and window: a user's fold over its records.
    ///
    /// # Errors
    /// When the windows never have a result.
    pub fn reduce(&self, function: Arc<dyn ReduceFunction>) -> Result<Stream> {
        self.check_end()?;
        let mut fields = self.result_fields()?;
        let input = self.keyed.stream.schema();
        let others = input.fields().iter().filter(|field| !self.keyed.keys.contains(field.name()));
        fields.extend(others.map(|field| field.as_ref().clone()));
        self.add_kept(Compute::Reduce(function), fields, "reduce")
    }

    /// What a user's function makes of the records of each key and window. `schema` is what it returns; key and bounds come
    /// before it, but for those that it returns itself.
    ///
    /// # Errors
    /// When the windows never have a result, or the schema has no column.
    pub fn apply(&self, function: Arc<dyn WindowFunction>, schema: &SchemaRef) -> Result<Stream> {
        self.check_end()?;
        if schema.fields().is_empty() {
            return Err(Error::plan("apply() needs a schema with at least one column"));
        }
        let mut fields = self.result_fields()?;
        let is_updating = !self.trigger.is_default();
        if let Some(field) = fields.iter().find(|field| is_updating && schema.field_with_name(field.name()).is_ok()) {
            return Err(Error::plan(format!(
                "apply(): with a trigger, column {:?} says which row a later result replaces; leave it out of schema=, it comes \
                 by itself",
                field.name()
            )));
        }
        fields.retain(|field| schema.field_with_name(field.name()).is_err());
        fields.extend(schema.fields().iter().map(|field| field.as_ref().clone()));
        self.add_kept(Compute::Apply(function), fields, "apply")
    }

    fn add_kept(&self, compute: Compute, fields: Vec<Field>, verb: &str) -> Result<Stream> {
        check_unique(fields.iter().map(|field| field.name().clone()), verb)?;
        let is_about_order = match &compute {
            Compute::Aggregates(aggregates) => self.keyed.parts(aggregates)?.is_ordered(),
            Compute::Reduce(_) | Compute::Apply(_) => true,
        };
        self.check_order(is_about_order)?;
        // Of an aggregate only the columns that it is over are kept.
        if matches!(self.kind, WindowKind::Rolling(_)) || !matches!(compute, Compute::Aggregates(_)) {
            check_kept(&self.keyed.stream.schema()).map_err(|error| error.in_step(verb))?;
        }
        if matches!(compute, Compute::Apply(_)) && !self.trigger.is_default() && matches!(self.kind, WindowKind::Global) {
            return Err(Error::plan("apply() over global_window() has its result at the end of the input and takes no trigger"));
        }
        let windows = KeptWindows {
            kind: self.kind.clone(),
            allowed_lateness_us: self.allowed_lateness_us,
            trigger: self.trigger,
            by_time: matches!(self.kind, WindowKind::Global) && self.keyed.stream.has_event_time(),
        };
        let step = KeptWindowStep { keys: self.keyed.keys.clone(), windows, compute };
        Stream::add(Arc::new(step), vec![self.keyed.stream.clone()], Arc::new(Schema::new(fields)), self.facts())
    }
}

impl KeptWindowStep {
    fn parts(&self, before: &SchemaRef, aggregates: &[Expr]) -> Result<AggregateParts> {
        Ok(AggregateParts::new(before, &self.keys, aggregates)?.by_time(self.windows.by_time))
    }
}

impl Step for KeptWindowStep {
    fn label(&self) -> &'static str {
        if matches!(self.windows.kind, WindowKind::Rolling(_)) { "rolling" } else { "window" }
    }

    fn parameters(&self) -> Parameters {
        let compute = match &self.compute {
            Compute::Aggregates(aggregates) => ("aggregates", texts(aggregates.iter())),
            Compute::Reduce(function) => ("function", function.name().into()),
            Compute::Apply(function) => ("function", function.name().into()),
        };
        parameters([
            ("keys", self.keys.clone().into()),
            compute,
            ("window", self.windows.kind.to_string().into()),
            ("allowed_lateness", duration(self.windows.allowed_lateness_us).into()),
            ("trigger", self.windows.trigger.to_string().into()),
        ])
    }

    fn exprs(&self) -> Vec<&Expr> {
        let gap = if let WindowKind::Session(Gap::Each(gap)) = &self.windows.kind { Some(gap) } else { None };
        let aggregates = if let Compute::Aggregates(aggregates) = &self.compute { aggregates.as_slice() } else { &[] };
        gap.into_iter().chain(aggregates).collect()
    }

    fn is_opaque(&self) -> bool {
        !matches!(self.compute, Compute::Aggregates(_)) || super::call_functions(self.exprs())
    }

    fn outputs(&self) -> &[OutputSpec] {
        static OUTPUTS: [OutputSpec; 3] = [OutputSpec::RESULT, OutputSpec::LATE, OutputSpec::ERRORS];
        &OUTPUTS
    }

    fn changes(&self) -> Changes {
        if self.windows.trigger.is_default() {
            return Changes::Refuses;
        }
        let mut key = self.keys.clone();
        if self.windows.kind.has_bounds() {
            key.extend(["window_start".to_owned(), "window_end".to_owned()]);
        }
        // A session that grew takes the place of another one, and a function may return nothing for a window that had a result.
        let is_function = !matches!(self.compute, Compute::Aggregates(_));
        Changes::Makes { key, withdraws: is_function || matches!(self.windows.kind, WindowKind::Session(_)) }
    }

    fn is_stateful(&self) -> bool {
        true
    }

    fn splits(&self) -> Splits {
        Splits::Keys
    }

    fn needs_order(&self, _of_result: bool, before: &SchemaRef) -> Result<bool> {
        match &self.compute {
            _ if matches!(self.windows.kind, WindowKind::Count(_)) => Ok(true),
            Compute::Aggregates(aggregates) => Ok(self.parts(before, aggregates)?.is_ordered()),
            Compute::Reduce(_) | Compute::Apply(_) => Ok(true),
        }
    }

    fn needs(&self, need: &Need<'_>) -> Result<Names> {
        let Compute::Aggregates(aggregates) = &self.compute else { return Ok(need.all()) };
        if matches!(self.windows.kind, WindowKind::Rolling(_)) {
            return Ok(need.all());
        }
        let mut names = self.parts(need.input, aggregates)?.columns();
        if let WindowKind::Session(Gap::Each(gap)) = &self.windows.kind {
            gap.add_columns(&mut names);
        }
        Ok(names)
    }

    fn schema(&self, _inputs: &[SchemaRef], declared: &SchemaRef) -> Result<SchemaRef> {
        Ok(Arc::clone(declared))
    }

    fn lineage(&self, _inputs: &Inputs<'_>) -> Lineage {
        Lineage::default()
    }

    fn lower(&self, builder: &mut Builder<'_>, at: usize) -> Result<()> {
        let (keys, windows) = (self.keys.clone(), self.windows.clone());
        let (compute, name) = match &self.compute {
            Compute::Aggregates(aggregates) => {
                let parts = self.parts(&builder.graph.before(at), aggregates)?;
                let windowing = Windowing::Kept(windows);
                return builder.aggregate(at, Aggregation { keys, parts, windowing, emit: Emit::End });
            }
            Compute::Reduce(function) => (WindowCompute::Reduce(Arc::clone(function)), "reduce"),
            Compute::Apply(function) => (WindowCompute::Apply(Arc::clone(function)), "apply"),
        };
        builder.window_function(at, WindowCall { keys, windows, compute, name })
    }
}
