//! The logical plan as plain data, for readers outside of the engine.
//!
//! ```json
//! {"steps": [
//!   {"uid": "read_csv", "name": "read_csv", "label": "source", "is_stateful": true,
//!    "parameters": {"source": "read_csv(\"a.csv\")"}, "inputs": [],
//!    "outputs": [{"name": "result", "columns": [{"name": "x", "type": "int64", "is_nullable": true}],
//!                 "is_bounded": true, "event_time": null, "updating": null, "withdraws": false}, {"name": "errors", …}]},
//!   {"uid": "read_csv/filter", "name": "filter", "label": "filter", "is_stateful": false,
//!    "parameters": {"predicate": "col(\"x\") > 1"}, "inputs": [{"step": 0, "output": "result"}],
//!    "outputs": [{"name": "result", …}, {"name": "errors", …}]}
//! ]}
//! ```
//!
//! Steps are as the user wrote them, before any of them is rewritten or pruned. Each comes after its inputs.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::Field;
use mill_protocol::Result;
use serde_json::{Map, Value, json};

use crate::lower::StepGraph;
use crate::steps::{SinkNode, preview};
use crate::stream::{Facts, Output, Stream};
use crate::types::type_name;

/// The parameters of a step by name.
pub type Parameters = Map<String, Value>;

/// Parameters out of names and values.
pub(crate) fn parameters<const N: usize>(entries: [(&str, Value); N]) -> Parameters {
    entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Things as a list of what they print as.
pub(crate) fn texts(of: impl Iterator<Item = impl fmt::Display>) -> Value {
    of.map(|it| Value::from(it.to_string())).collect()
}

/// A plan as the user wrote it.
#[derive(Clone, Debug)]
pub struct LogicalPlan {
    /// The steps, each after its inputs.
    pub steps: Vec<LogicalStep>,
}

/// A step of a [`LogicalPlan`].
#[derive(Clone, Debug)]
pub struct LogicalStep {
    /// The identity of its state.
    pub uid: String,
    /// The name users know it by.
    pub name: String,
    /// What kind of step it is, as users call it: `filter`, `agg`, `source`, `sink`, …
    pub label: &'static str,
    /// Whether it keeps state or positions.
    pub is_stateful: bool,
    /// Its parameters; expressions as text.
    pub parameters: Parameters,
    /// Its inputs: the place of a step in the plan, and the name of one of that step's outputs.
    pub inputs: Vec<(usize, String)>,
    /// Its outputs, the result first; of a sink none.
    pub outputs: Vec<Output>,
}

impl LogicalPlan {
    /// The plan that ends in these sinks.
    ///
    /// # Errors
    /// When two steps have one name, or a step has two.
    pub fn new(sinks: &[SinkNode]) -> Result<LogicalPlan> {
        let graph = StepGraph::new(sinks)?;
        let mut steps: Vec<LogicalStep> = Vec::with_capacity(graph.steps.len());
        for vertex in &graph.steps {
            let inputs: Vec<&Output> = vertex.inputs.iter().map(|tap| &steps[tap.step].outputs[tap.output]).collect();
            let outputs = vertex.step.outputs().iter().map(|spec| Output::of(spec, &vertex.schema, &vertex.facts, &inputs));
            let outputs = outputs.collect();
            steps.push(LogicalStep {
                uid: vertex.uid.clone(),
                name: vertex.name.clone(),
                label: vertex.step.label(),
                is_stateful: vertex.step.is_stateful(),
                parameters: vertex.step.parameters(),
                inputs: vertex.inputs.iter().map(|tap| (tap.step, graph.output(*tap).name.to_string())).collect(),
                outputs,
            });
        }
        Ok(LogicalPlan { steps })
    }

    /// The plan as JSON: `{"steps": […]}`, each step an object with `uid`, `name`, `label`, `is_stateful`, `parameters`,
    /// `inputs` (of `step` and `output`) and `outputs` (of `name`, `columns`, `is_bounded`, `event_time`, `updating`, `withdraws`).
    pub fn to_json(&self) -> Value {
        json!({ "steps": self.steps.iter().map(LogicalStep::to_json).collect::<Vec<_>>() })
    }
}

impl LogicalStep {
    fn to_json(&self) -> Value {
        let inputs: Vec<Value> =
            self.inputs.iter().map(|(step, output)| json!({ "step": step, "output": output })).collect();
        json!({
            "uid": self.uid,
            "name": self.name,
            "label": self.label,
            "is_stateful": self.is_stateful,
            "parameters": self.parameters,
            "inputs": inputs,
            "outputs": self.outputs.iter().map(output).collect::<Vec<_>>(),
        })
    }
}

fn output(output: &Output) -> Value {
    let column = |field: &Arc<Field>| {
        json!({ "name": field.name(), "type": type_name(field.data_type()), "is_nullable": field.is_nullable() })
    };
    let columns: Vec<Value> = output.schema.fields().iter().map(column).collect();
    let Facts { is_bounded, event_time, updating, withdraws } = &output.facts;
    let event_time = event_time.as_ref().map(|time| json!({ "column": time.column, "type": type_name(&time.data_type) }));
    json!({
        "name": output.name,
        "columns": columns,
        "is_bounded": is_bounded,
        "event_time": event_time,
        "updating": updating,
        "withdraws": withdraws,
    })
}

impl Stream {
    /// The steps that lead to this stream.
    ///
    /// # Errors
    /// When two steps have one name, or a step has two.
    pub fn logical(&self) -> Result<LogicalPlan> {
        let mut plan = LogicalPlan::new(&[preview(self)?])?;
        // The sink, which is the last, is no part of the stream.
        plan.steps.pop();
        Ok(plan)
    }

    /// The steps that lead to this stream, as JSON.
    ///
    /// # Errors
    /// When two steps have one name, or a step has two.
    pub fn to_json(&self) -> Result<Value> {
        Ok(self.logical()?.to_json())
    }
}
