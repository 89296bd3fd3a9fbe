//! What `agg(...)` is made of: columns computed before, aggregates over them, expressions over the results.
//!
//! ```text
//!   (col("x") * 2).sum() / count()      inputs:  col("x") * 2 as __0
//!                                       specs:   __agg0 = sum(__0), __agg1 = count()
//!                                       post:    col("__agg0") / col("__agg1")
//! ```

use std::collections::HashMap;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::row::{RowConverter, SortField};
use mill_protocol::{Error, Result};

use crate::aggregate::{AggregateCall, AggregateKind, AggregateSpec, plain_type};
use crate::compiled::CompiledExpr;
use super::Names;
use crate::expr::Expr;
use crate::lower::{Aggregation, Builder, Windowing};
use crate::stream::Emit;
use crate::stream::checks::column_index;
use crate::types::{is_object, type_name};

/// The parts of `agg(...)`.
#[derive(Clone, Debug)]
pub(crate) struct AggregateParts {
    /// Columns to be computed first: the keys, then what the aggregates need. All have different names.
    pub(crate) inputs: Vec<Expr>,
    /// How many of the inputs are keys.
    pub(crate) keys: usize,
    /// The aggregates; their columns are places in `inputs`.
    pub(crate) specs: Vec<AggregateSpec>,
    /// The metadata of the results: a first or last Python object is still one.
    metadata: Vec<HashMap<String, String>>,
    /// One expression a result over the columns of the specs, unless the specs are the results.
    pub(crate) post: Option<Vec<Expr>>,
}

/// Keys and aggregates over them, as a step with or without windows has them.
#[derive(Debug)]
pub(crate) struct KeyedAggregates {
    pub(crate) keys: Vec<String>,
    pub(crate) aggregates: Vec<Expr>,
    /// Whether the records have event time, which aggregates of their order follow.
    pub(crate) by_time: bool,
}

impl KeyedAggregates {
    /// The parts over input of these columns.
    pub(super) fn parts(&self, before: &SchemaRef) -> Result<AggregateParts> {
        Ok(AggregateParts::new(before, &self.keys, &self.aggregates)?.by_time(self.by_time))
    }

    /// Adds the stages of step `at`.
    pub(super) fn lower(
        &self,
        builder: &mut Builder<'_>,
        at: usize,
        windowing: Windowing,
        emit: Emit,
    ) -> Result<()> {
        let parts = self.parts(&builder.graph.before(at))?;
        builder.aggregate(at, Aggregation { keys: self.keys.clone(), parts, windowing, emit })
    }
}

impl AggregateParts {
    /// Takes the expressions apart and checks them.
    pub(crate) fn new(schema: &SchemaRef, keys: &[String], exprs: &[Expr]) -> Result<AggregateParts> {
        if exprs.is_empty() {
            return Err(Error::plan("agg() needs at least one aggregate, such as n=count()"));
        }
        let mut parts = AggregateParts { inputs: Vec::new(), keys: keys.len(), specs: Vec::new(), metadata: Vec::new(), post: None };
        for key in keys {
            let data_type = schema.field(column_index(schema, key)?).data_type();
            let column = Expr::column(key);
            let plain = plain_type(data_type);
            parts.inputs.push(match plain == *data_type {
                true => column,
                false => column.cast(plain, true).alias(key),
            });
        }
        let mut places = HashMap::new();
        // The column of each aggregate that there is, so that expressions with equal ones share it.
        let mut shared: HashMap<String, String> = HashMap::new();
        let mut post = Vec::with_capacity(exprs.len());
        let mut is_plain = true;
        for expr in exprs {
            check_shape(expr, expr)?;
            let name = expr.output_name();
            if let Expr::Aggregate(call) = expr.without_alias() {
                parts.add(schema, call, name.clone(), &mut places)?;
                if is_shareable(call) {
                    shared.entry(format!("{call:?}")).or_insert_with(|| name.clone());
                }
                post.push(Expr::column(name));
                continue;
            }
            is_plain = false;
            let mut failure = None;
            let rewritten = expr.rewrite(&mut |part| match part {
                Expr::Aggregate(call) => {
                    // Not what it looks like in messages: that leaves out types, and the end of long values.
                    let text = is_shareable(call).then(|| format!("{call:?}"));
                    if let Some(name) = text.as_ref().and_then(|text| shared.get(text)) {
                        return Some(Expr::Column(name.clone()));
                    }
                    let name = format!("__agg{}", parts.specs.len());
                    if let Some(text) = text {
                        shared.insert(text, name.clone());
                    }
                    if let Err(error) = parts.add(schema, call, name.clone(), &mut places) {
                        failure = Some(error);
                    }
                    Some(Expr::Column(name))
                }
                _ => None,
            });
            if let Some(error) = failure {
                return Err(error);
            }
            post.push(rewritten.without_alias().clone().alias(name));
        }
        if !is_plain {
            parts.post = Some(post);
        }
        Ok(parts)
    }

    /// The same where aggregates of the order of records follow event time, or do not.
    pub(crate) fn by_time(mut self, by_time: bool) -> AggregateParts {
        for spec in &mut self.specs {
            spec.by_time = by_time && spec.kind.is_ordered();
        }
        self
    }

    /// Whether a result depends on the order of the records.
    pub(crate) fn is_ordered(&self) -> bool {
        self.specs.iter().any(|spec| spec.kind.is_ordered())
    }

    /// The columns that keys and aggregates are over.
    pub(crate) fn columns(&self) -> Names {
        let mut names = Names::new();
        self.inputs.iter().for_each(|expr| expr.add_columns(&mut names));
        names
    }

    /// The columns of the aggregates as such.
    pub(crate) fn spec_fields(&self) -> Vec<Field> {
        let fields = self.specs.iter().zip(&self.metadata);
        fields.map(|(spec, metadata)| spec.field().with_metadata(metadata.clone())).collect()
    }

    /// The columns of the results, without keys.
    pub(crate) fn output_fields(&self) -> Result<Vec<Field>> {
        let fields = self.spec_fields();
        match &self.post {
            None => Ok(fields),
            Some(post) => {
                let schema = Schema::new(fields);
                post.iter().map(|expr| Ok(CompiledExpr::new(expr, &schema)?.field().clone())).collect()
            }
        }
    }

    fn add(
        &mut self,
        schema: &Schema,
        call: &AggregateCall,
        name: String,
        places: &mut HashMap<String, usize>,
    ) -> Result<()> {
        let mut metadata = HashMap::new();
        let mut input_type = None;
        let mut input = None;
        if let Some(expr) = &call.input {
            let compiled = CompiledExpr::new(expr, schema)?;
            let found = compiled.field().data_type().clone();
            if is_object(compiled.field()) {
                match call.kind {
                    AggregateKind::Count => {}
                    AggregateKind::First | AggregateKind::Last => metadata = compiled.field().metadata().clone(),
                    _ => {
                        return Err(Error::schema(format!(
                            "{call}: Python objects have a count, a first and a last, and no {}(); take a column of a plain \
                             type out of them first, or use reduce()",
                            call.kind.name()
                        )));
                    }
                }
            }
            let wanted = call.kind.input_type(&found).map_err(|error| {
                Error::new(error.kind(), format!("{} (in {call})", error.message()))
            })?;
            let cast = (wanted != found).then(|| expr.without_alias().clone().cast(wanted.clone(), true));
            input = Some(self.place(cast.as_ref().unwrap_or(expr.without_alias()), places));
            input_type = Some(wanted);
        } else if !matches!(call.kind, AggregateKind::Count) {
            return Err(Error::plan(format!("{}() needs a column: col(\"…\").{}()", call.kind.name(), call.kind.name())));
        }
        if let AggregateKind::Quantile(q) | AggregateKind::ApproxQuantile(q) = call.kind
            && !(0.0..=1.0).contains(&q)
        {
            return Err(Error::plan(format!("a quantile is between 0 and 1, found {q}")));
        }
        let filter = match &call.filter {
            None => None,
            Some(expr) => match expr.data_type(schema)? {
                DataType::Boolean => Some(self.place(expr.without_alias(), places)),
                other => {
                    return Err(Error::schema(format!(
                        "filter() of an aggregate needs a boolean expression; {expr} is {}",
                        type_name(&other)
                    )));
                }
            },
        };
        let output_type = call.kind.output_type(input_type.as_ref())?;
        self.metadata.push(metadata);
        self.specs.push(AggregateSpec { kind: call.kind.clone(), input, filter, by_time: false, name, input_type, output_type });
        Ok(())
    }

    /// The place of an expression among the inputs; equal expressions are computed once.
    fn place(&mut self, expr: &Expr, places: &mut HashMap<String, usize>) -> usize {
        let text = (!has_user_function(expr)).then(|| format!("{expr:?}"));
        if let Some(&place) = text.as_ref().and_then(|text| places.get(text)) {
            return place;
        }
        let key = self.inputs[..self.keys].iter().position(|key| match (key, expr) {
            (Expr::Column(a), Expr::Column(b)) => a == b,
            _ => false,
        });
        let place = key.unwrap_or_else(|| {
            self.inputs.push(expr.clone().alias(format!("__{}", self.inputs.len())));
            self.inputs.len() - 1
        });
        if let Some(text) = text {
            places.insert(text, place);
        }
        place
    }
}

/// Whether a function of the user's is in it. Two different ones may look alike, so they are never shared.
fn has_user_function(expr: &Expr) -> bool {
    expr.any(&|part| match part {
        Expr::User { .. } => true,
        Expr::ListEval { body, .. } => has_user_function(body),
        _ => false,
    })
}

/// Whether another aggregate that looks like this one is the same.
fn is_shareable(call: &AggregateCall) -> bool {
    !matches!(call.kind, AggregateKind::User(_)) && !call.input.iter().chain(&call.filter).any(|part| has_user_function(part))
}

/// Refuses columns outside of aggregates, and aggregates within aggregates.
fn check_shape(expr: &Expr, whole: &Expr) -> Result<()> {
    match expr {
        Expr::Column(name) => Err(Error::plan(format!(
            "agg() takes aggregates, and in {whole} the column {name:?} stands outside of one; use col({name:?}).first(), \
             .sum(), .max() …, or add it to key_by()"
        ))),
        Expr::Aggregate(call) => {
            let is_aggregate = |part: &Expr| matches!(part, Expr::Aggregate(_));
            let parts = call.input.iter().chain(&call.filter);
            match parts.into_iter().any(|part| part.any(&is_aggregate)) {
                true => Err(Error::plan(format!("{whole} has an aggregate within an aggregate; use two key_by().agg() steps"))),
                false => Ok(()),
            }
        }
        Expr::Literal(_) if std::ptr::eq(expr, whole) => {
            Err(Error::plan(format!("agg() takes aggregates, and {whole} is a constant")))
        }
        _ => {
            let mut result = Ok(());
            expr.for_each_child(&mut |child| {
                if result.is_ok() {
                    result = check_shape(child, whole);
                }
            });
            result
        }
    }
}

/// Refuses columns whose rows cannot be kept as state.
pub(crate) fn check_kept(schema: &Schema) -> Result<()> {
    match schema.fields().iter().find(|of| !is_kept(of.data_type())) {
        None => Ok(()),
        Some(of) => Err(Error::schema(format!(
            "column {:?} is {}, which cannot be kept as state; drop it or cast it to another type before",
            of.name(),
            type_name(of.data_type())
        ))),
    }
}

/// Whether values of a type can be kept as state.
pub(crate) fn is_kept(data_type: &DataType) -> bool {
    RowConverter::supports_fields(&[SortField::new(data_type.clone())])
}
