//! Rewrites that move steps: each leaves the results as they are.

use std::sync::Arc;

use super::graph::{StepGraph, Tap, Vertex};
use super::identities;
use super::lineage::Lineage;
use crate::expr::Expr;
use crate::steps::{Filter, Splits, Union, select};
use crate::stream::ERRORS;

/// Moves `event_time` before a union or rebalance right before it, so that each split has watermarks of its own.
///
/// After an exchange the order of records depends on the schedule, and with it would lateness.
pub(super) fn event_time_before_exchange(graph: &mut StepGraph) {
    let mut next = 0;
    while next < graph.steps.len() {
        let at = next;
        next += 1;
        if graph.steps[at].step.splits() != Splits::Needs {
            continue;
        }
        let exchange = graph.steps[at].inputs[0];
        if exchange.output != 0 || graph.steps[exchange.step].step.splits() != Splits::Mixes {
            continue;
        }
        let mixing = Arc::clone(&graph.steps[exchange.step].step);
        let inputs = graph.steps[exchange.step].inputs.clone();
        let original = graph.steps[at].clone();
        let mut moved = Vec::with_capacity(inputs.len());
        let uids = identities::of_copies(graph, &original.uid, &inputs);
        for (&input, uid) in inputs.iter().zip(uids) {
            let mut step = original.clone();
            step.inputs = vec![input];
            if inputs.len() > 1 {
                (step.uid, step.path) = (uid.clone(), uid);
            }
            graph.steps.push(step);
            moved.push(graph.steps.len() - 1);
        }
        // Whoever took the errors of the one step now takes those of all.
        if let Some(errors) = graph.tap(at, ERRORS).filter(|_| graph.is_taken(at, ERRORS)) {
            let mut union = original.clone();
            union.step = Arc::new(Union);
            union.inputs = moved.iter().map(|&step| Tap { step, ..errors }).collect();
            union.schema = crate::physical::error_schema();
            union.uid = format!("{}/errors", original.uid);
            let place = graph.steps.len();
            for tap in graph.steps.iter_mut().flat_map(|step| &mut step.inputs).filter(|tap| **tap == errors) {
                *tap = Tap::result(place);
            }
            graph.steps.push(union);
        }
        graph.steps[at] = Vertex {
            step: mixing,
            inputs: moved.iter().map(|&step| Tap::result(step)).collect(),
            uid: format!("{}/exchange", original.uid),
            ..original
        };
    }
    // Where it moved past several exchanges they are numbered; none of them has state.
    identities::number(graph);
    graph.sort();
}

/// Moves filters towards the sources, past steps that only compute, repeat or move columns.
pub(super) fn filters_down(graph: &mut StepGraph) {
    loop {
        let consumers = graph.consumers();
        let swap = (0..graph.steps.len()).find_map(|at| Some((at, lowered(graph, at, &consumers)?)));
        let Some((at, predicate)) = swap else { break };
        // The two steps trade places in the graph, so that whoever takes the later one needs no change.
        let below = graph.steps[at].inputs[0].step;
        let (mut filter, mut other) = (graph.steps[at].clone(), graph.steps[below].clone());
        filter.inputs = other.inputs.clone();
        filter.schema = graph.schema_of(other.inputs[0]);
        filter.step = Arc::new(Filter { predicate });
        filter.facts = graph.steps[filter.inputs[0].step].facts.clone();
        other.inputs = vec![Tap::result(below)];
        graph.steps[below] = filter;
        graph.steps[at] = other;
    }
}

/// The predicate of the filter at this place as it would stand before the step it follows; `None` if it cannot.
fn lowered(graph: &StepGraph, at: usize, consumers: &[usize]) -> Option<Expr> {
    let filter = &graph.steps[at];
    let predicate = filter.step.predicate()?;
    let input = filter.inputs[0];
    if input.output != 0 || consumers[input.step] != 1 || filter.facts.updating.is_some() {
        return None;
    }
    // With errors taken from either step, moving would change which step a record fails in.
    if graph.is_taken(at, ERRORS) || predicate.any(&|part| matches!(part, Expr::User { .. })) {
        return None;
    }
    let below = &graph.steps[input.step];
    let before = graph.schema_of(*below.inputs.first()?);
    below.step.predicate_before(predicate, &before)
}

/// A step that keeps only these columns, in this order.
pub(super) fn keep(graph: &mut StepGraph, tap: Tap, columns: &[String], name: &str, uid: String) -> Tap {
    let schema = graph.schema_of(tap);
    let fields: Vec<_> = columns.iter().filter_map(|column| schema.field_with_name(column).ok().cloned()).collect();
    let step = Vertex {
        step: select(columns),
        inputs: vec![tap],
        name: name.to_owned(),
        uid,
        path: String::new(),
        print: 0,
        schema: Arc::new(arrow::datatypes::Schema::new_with_metadata(fields, schema.metadata().clone())),
        facts: graph.steps[tap.step].facts.clone(),
        lineage: Lineage::default(),
    };
    graph.steps.push(step);
    Tap::result(graph.steps.len() - 1)
}
