//! Column pruning: only what someone needs is read, computed and moved.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use mill_protocol::Result;

use super::graph::{StepGraph, Tap};
use super::rewrite::keep;
use crate::steps::{Names, Need};
use crate::stream::{Content, ERRORS};

/// Drops columns that nobody needs, from the sinks to the sources, then recomputes the columns of each step.
pub(super) fn prune(graph: &mut StepGraph) -> Result<()> {
    let needed = needed(graph)?;
    for (vertex, needed) in graph.steps.iter_mut().zip(&needed) {
        if let Some(pruned) = vertex.step.pruned(needed) {
            vertex.step = pruned;
        }
    }
    cut_inputs(graph, &needed)?;
    graph.sort();
    for at in 0..graph.steps.len() {
        let inputs: Vec<SchemaRef> = graph.steps[at].inputs.iter().map(|&tap| graph.schema_of(tap)).collect();
        graph.steps[at].schema = graph.steps[at].step.schema(&inputs, &graph.steps[at].schema)?;
    }
    Ok(())
}

/// Cuts records to size where a step asks for it: before they move to other tasks, and where inputs are to be alike.
fn cut_inputs(graph: &mut StepGraph, needed: &[Names]) -> Result<()> {
    // The columns that will be left of each step's result; inputs stand before those who take them.
    let mut left: Vec<SchemaRef> = Vec::with_capacity(needed.len());
    for (at, needed) in needed.iter().enumerate() {
        let of = |graph: &StepGraph, tap: Tap| match graph.content(tap) {
            Content::Result => Arc::clone(&left[tap.step]),
            Content::Input(_) | Content::Side | Content::Errors => graph.schema_of(tap),
        };
        let vertex = &graph.steps[at];
        let result = if vertex.step.cuts_inputs(&vertex.schema) {
            let result = narrowed(&vertex.schema, needed);
            let columns = names(&result);
            for input in 0..vertex.inputs.len() {
                let vertex = &graph.steps[at];
                let tap = vertex.inputs[input];
                if names(&of(graph, tap)) != columns {
                    let (name, uid) = (vertex.name.clone(), format!("{}/input{input}", vertex.uid));
                    graph.steps[at].inputs[input] = keep(graph, tap, &columns, &name, uid);
                }
            }
            result
        } else {
            let inputs: Vec<SchemaRef> = vertex.inputs.iter().map(|&tap| of(graph, tap)).collect();
            vertex.step.schema(&inputs, &vertex.schema)?
        };
        left.push(result);
    }
    Ok(())
}

fn names(schema: &Schema) -> Vec<String> {
    schema.fields().iter().map(|field| field.name().clone()).collect()
}

/// These columns of a schema, in its order.
fn narrowed(schema: &Schema, needed: &Names) -> SchemaRef {
    let fields: Vec<_> = schema.fields().iter().filter(|field| needed.contains(field.name())).cloned().collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// What is needed of each step's result.
fn needed(graph: &StepGraph) -> Result<Vec<Names>> {
    let mut needed: Vec<Names> = vec![Names::new(); graph.steps.len()];
    for at in (0..graph.steps.len()).rev() {
        let vertex = &graph.steps[at];
        if needed[at].is_empty() && !vertex.schema.fields().is_empty() {
            // A count of rows needs no column, but a batch has to have one.
            needed[at].insert(narrowest(&vertex.schema));
        }
        let own = needed[at].clone();
        for (number, &tap) in vertex.inputs.iter().enumerate() {
            match graph.content(tap) {
                Content::Result => {
                    let input = graph.schema_of(tap);
                    let need = Need { columns: &own, input: &input, number };
                    // Records that come out as they came in have all their columns, and those that failed are shown so.
                    let is_whole = graph.passes_input(at, number) || graph.is_taken(at, ERRORS);
                    needed[tap.step].extend(if is_whole { need.all() } else { vertex.step.needs(&need)? });
                }
                // The step that these records went into needs all of its input anyway.
                Content::Input(_) => {}
                // Nor does a record with columns of its own need any of the result's.
                Content::Side => {}
                // Whoever asks which records fail asks for all that the step computes, and to see the whole record.
                Content::Errors => needed[tap.step].extend(names(&graph.steps[tap.step].schema)),
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
