//! Column pruning: only what someone needs is read, computed and moved.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use mill_protocol::Result;

use super::rewrite::keep;
use super::steps::{Graph, Tap, Work};
use crate::compiled::CompiledExpr;
use crate::expr::Expr;
use crate::stream::{AggregateParts, Op, Port, UserStepKind};

type Names = BTreeSet<String>;

/// Drops columns that nobody needs, from the sinks to the sources, then works out the columns of each step anew.
pub(super) fn prune(graph: &mut Graph) -> Result<()> {
    let needed = needed(graph)?;
    for (step, needed) in needed.iter().enumerate() {
        drop_unneeded(graph, step, needed);
    }
    // Records are cut to size before they move to other tasks, and the inputs of a union are made alike.
    for step in 0..needed.len() {
        let op = match &graph.steps[step].work {
            Work::Op(op @ (Op::Union | Op::Rebalance | Op::Limit(_))) => op.clone(),
            _ => continue,
        };
        if graph.steps[step].schema == crate::physical::error_schema() && matches!(op, Op::Union) {
            continue;
        }
        let schema = Arc::clone(&graph.steps[step].schema);
        let columns: Vec<String> =
            schema.fields().iter().map(|field| field.name().clone()).filter(|name| needed[step].contains(name)).collect();
        for input in 0..graph.steps[step].inputs.len() {
            let tap = graph.steps[step].inputs[input];
            let found = current_columns(graph, tap, &needed);
            if found != columns {
                let (name, uid) = (graph.steps[step].name.clone(), format!("{}/input{input}", graph.steps[step].uid));
                let kept = keep(graph, tap, &columns, &name, uid);
                graph.steps[step].inputs[input] = kept;
            }
        }
    }
    graph.sort();
    for step in 0..graph.steps.len() {
        graph.steps[step].schema = schema_after(graph, step)?;
    }
    Ok(())
}

/// The columns that an output will have once its step is pruned.
fn current_columns(graph: &Graph, tap: Tap, needed: &[Names]) -> Vec<String> {
    let names = |schema: &SchemaRef| schema.fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
    let step = &graph.steps[tap.step];
    if matches!(tap.port, Port::Errors | Port::Late) || tap.step >= needed.len() {
        return names(&graph.schema_of(tap));
    }
    match &step.work {
        Work::Op(Op::Source(source)) => names(&source.schema()),
        Work::Op(Op::Project { exprs, .. }) => exprs.iter().map(Expr::output_name).collect(),
        Work::Op(Op::Filter(_) | Op::Branch(_) | Op::EventTime { .. }) => current_columns(graph, step.inputs[0], needed),
        Work::Op(Op::User { kind: UserStepKind::Filter | UserStepKind::Inspect, .. }) => {
            current_columns(graph, step.inputs[0], needed)
        }
        Work::Op(Op::Union | Op::Rebalance | Op::Limit(_)) => {
            names(&step.schema).into_iter().filter(|name| needed[tap.step].contains(name)).collect()
        }
        Work::Op(Op::Explode { .. }) => current_columns(graph, step.inputs[0], needed),
        Work::Op(Op::Unnest(column)) => {
            let before = graph.schema_of(step.inputs[0]);
            let fields: Vec<String> = match before.field_with_name(column).map(|field| field.data_type()) {
                Ok(DataType::Struct(fields)) => fields.iter().map(|field| field.name().clone()).collect(),
                _ => Vec::new(),
            };
            let columns = current_columns(graph, step.inputs[0], needed);
            columns.into_iter().flat_map(|name| if name == *column { fields.clone() } else { vec![name] }).collect()
        }
        _ => names(&step.schema),
    }
}

/// What is needed of each step's result.
fn needed(graph: &Graph) -> Result<Vec<Names>> {
    let mut needed: Vec<Names> = vec![Names::new(); graph.steps.len()];
    let all = |schema: &SchemaRef| schema.fields().iter().map(|field| field.name().clone()).collect::<Names>();
    for at in (0..graph.steps.len()).rev() {
        let step = &graph.steps[at];
        if needed[at].is_empty() && !step.schema.fields().is_empty() {
            // A count of rows needs no column, but a batch has to have one.
            needed[at].insert(narrowest(&step.schema));
        }
        let own = needed[at].clone();
        for (i, tap) in step.inputs.iter().enumerate() {
            if tap.port == Port::Errors {
                // Whoever asks which records fail asks for all that the step computes, and to see the whole record.
                let computed = all(&graph.steps[tap.step].schema);
                needed[tap.step].extend(computed);
                continue;
            }
            let before = graph.schema_of(*tap);
            let mut names = Names::new();
            match &step.work {
                Work::Sink(_) | Work::Op(Op::User { .. } | Op::Reduce { .. }) => names = all(&before),
                Work::Op(Op::Project { exprs, .. }) => {
                    let used = exprs.iter().filter(|expr| own.contains(&expr.output_name()));
                    used.for_each(|expr| expr.add_columns(&mut names));
                }
                Work::Op(Op::Filter(predicate) | Op::Branch(predicate)) => {
                    names = own.clone();
                    predicate.add_columns(&mut names);
                }
                Work::Op(Op::Explode { column, .. } | Op::EventTime { column, .. }) => {
                    names = own.clone();
                    names.insert(column.clone());
                }
                Work::Op(Op::Unnest(column)) => {
                    names = own.iter().filter(|name| before.field_with_name(name).is_ok()).cloned().collect();
                    names.insert(column.clone());
                }
                Work::Op(Op::Aggregate { keys, aggregates, .. } | Op::Window { keys, aggregates, .. }) => {
                    for expr in AggregateParts::new(&before, keys, aggregates)?.inputs {
                        expr.add_columns(&mut names);
                    }
                    if graph.is_taken(at, Port::Late) {
                        names = all(&before);
                    }
                }
                Work::Op(_) => names = own.clone(),
            }
            debug_assert!(i == 0 || matches!(step.work, Work::Op(Op::Union)));
            match tap.port {
                // Late records are the input of the window step, which then needs all of it anyway.
                Port::Late | Port::Errors => {}
                Port::Out | Port::No => needed[tap.step].extend(names),
            }
        }
    }
    Ok(needed)
}

/// The column that costs least to carry.
fn narrowest(schema: &Schema) -> String {
    let width = |field: &Field| field.data_type().primitive_width().unwrap_or(match field.data_type() {
        DataType::Null | DataType::Boolean => 1,
        _ => 1000,
    });
    schema.fields().iter().min_by_key(|field| width(field)).map(|field| field.name().clone()).unwrap_or_default()
}

fn drop_unneeded(graph: &mut Graph, at: usize, needed: &Names) {
    let step = &mut graph.steps[at];
    match &mut step.work {
        Work::Op(Op::Project { exprs, .. }) => exprs.retain(|expr| needed.contains(&expr.output_name())),
        Work::Op(Op::Source(source)) => {
            let schema = source.schema();
            let columns: Vec<usize> =
                (0..schema.fields().len()).filter(|&i| needed.contains(schema.field(i).name())).collect();
            if columns.len() < schema.fields().len()
                && let Some(projected) = source.project(&columns)
            {
                *source = projected;
            }
        }
        _ => {}
    }
}

/// The columns of a step's result, worked out from those of its inputs.
fn schema_after(graph: &Graph, at: usize) -> Result<SchemaRef> {
    let step = &graph.steps[at];
    let declared = || Arc::clone(&step.schema);
    let Work::Op(op) = &step.work else { return Ok(declared()) };
    let before = || graph.schema_of(step.inputs[0]);
    Ok(match op {
        Op::Source(source) => source.schema(),
        Op::Project { exprs, verb } => {
            let before = before();
            let is_generator = *verb == "generate";
            let compiled = exprs.iter().map(|expr| CompiledExpr::compile(expr, &before, is_generator));
            let fields = compiled.map(|expr| Ok(expr?.field().clone())).collect::<Result<Vec<Field>>>()?;
            Arc::new(Schema::new_with_metadata(fields, before.metadata().clone()))
        }
        Op::Filter(_) | Op::Branch(_) | Op::Limit(_) | Op::Rebalance | Op::EventTime { .. } => before(),
        Op::User { kind: UserStepKind::Filter | UserStepKind::Inspect, .. } | Op::Reduce { .. } => before(),
        Op::Explode { .. } | Op::Unnest(_) | Op::Union => {
            // The declared columns that are still there: the order is that of the declaration.
            let declared = declared();
            let inputs: Vec<SchemaRef> = step.inputs.iter().map(|tap| graph.schema_of(*tap)).collect();
            let gone = |name: &str| match op {
                Op::Unnest(column) => {
                    let is_field = match graph_field(&inputs[0], column) {
                        Some(DataType::Struct(fields)) => fields.iter().any(|field| field.name() == name),
                        _ => false,
                    };
                    !is_field && inputs[0].field_with_name(name).is_err()
                }
                _ => inputs[0].field_with_name(name).is_err(),
            };
            let fields: Vec<_> = declared.fields().iter().filter(|field| !gone(field.name())).cloned().collect();
            Arc::new(Schema::new_with_metadata(fields, declared.metadata().clone()))
        }
        Op::User { .. } | Op::Aggregate { .. } | Op::Window { .. } | Op::Named(_) => declared(),
    })
}

fn graph_field(schema: &Schema, name: &str) -> Option<DataType> {
    schema.field_with_name(name).ok().map(|field| field.data_type().clone())
}
