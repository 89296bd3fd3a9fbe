//! The plan as a graph of steps, each once, with its name and identity.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use mill_protocol::{Error, Result};

use super::identities;
use super::lineage::{self, Lineage};
use crate::physical::error_schema;
use crate::steps::{SinkNode, SinkStep, Step};
use crate::stream::{Content, Facts, OutputSpec, Stream};

/// The steps of a plan; inputs stand before those who take them once the graph is sorted.
pub(crate) struct StepGraph {
    pub(crate) steps: Vec<Vertex>,
    /// The names of steps with state that nothing the plan knows tells apart, though they may differ.
    pub(crate) alike: Vec<Vec<String>>,
    /// Steps with a name, and the one that they had in former runs.
    pub(crate) renamed: Vec<(String, String)>,
}

/// A step of the plan.
#[derive(Clone)]
pub(crate) struct Vertex {
    pub(crate) step: Arc<dyn Step>,
    pub(crate) inputs: Vec<Tap>,
    /// The name users know it by.
    pub(crate) name: String,
    /// The identity of its state.
    pub(crate) uid: String,
    /// What the identities of the steps after it begin with.
    pub(super) path: String,
    /// A hash of the step and all that is upstream, as the user wrote it.
    pub(super) print: u64,
    /// The columns of the result.
    pub(crate) schema: SchemaRef,
    pub(crate) facts: Facts,
    /// What the columns of its first input are made of.
    pub(crate) lineage: Lineage,
}

/// An output of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Tap {
    pub(crate) step: usize,
    /// Its place in the step's list of outputs.
    pub(crate) output: usize,
}

impl Tap {
    /// The result of a step.
    pub(super) fn result(step: usize) -> Tap {
        Tap { step, output: 0 }
    }
}

/// `read_csv("a.csv")` without its arguments.
pub(crate) fn call_name(name: &str) -> String {
    name.split('(').next().unwrap_or(name).to_owned()
}

impl StepGraph {
    /// The steps that the sinks need.
    pub(crate) fn new(sinks: &[SinkNode]) -> Result<StepGraph> {
        let mut collector = Collector::default();
        for sink in sinks {
            let input = collector.visit(&sink.input)?;
            let step = Arc::new(SinkStep { sink: Arc::clone(&sink.sink) });
            collector.push(step, vec![input], sink.input.schema(), sink.input.facts());
            if let Some(name) = &sink.name {
                let step = collector.steps.len() - 1;
                collector.names.insert(step, name.clone());
                if let Some(was) = &sink.was {
                    collector.renamed.insert(name.clone(), was.clone());
                }
            }
        }
        let mut graph = StepGraph { steps: collector.steps, alike: Vec::new(), renamed: collector.renamed.into_iter().collect() };
        identities::give(&mut graph, &collector.names)?;
        let lineages = lineage::of_inputs(&graph);
        graph.steps.iter_mut().zip(lineages).for_each(|(step, lineage)| step.lineage = lineage);
        Ok(graph)
    }

    /// An output as its step describes it.
    pub(crate) fn output(&self, tap: Tap) -> &OutputSpec {
        &self.steps[tap.step].step.outputs()[tap.output]
    }

    /// What the records of an output are.
    pub(super) fn content(&self, tap: Tap) -> Content {
        self.output(tap).content
    }

    /// The output of this name, if the step has one.
    pub(super) fn tap(&self, step: usize, name: &str) -> Option<Tap> {
        let output = self.steps[step].step.outputs().iter().position(|output| output.name == name)?;
        Some(Tap { step, output })
    }

    /// The columns of an output.
    pub(super) fn schema_of(&self, tap: Tap) -> SchemaRef {
        match self.content(tap) {
            Content::Result => Arc::clone(&self.steps[tap.step].schema),
            Content::Input(number) => self.schema_of(self.steps[tap.step].inputs[number]),
            Content::Side => {
                let own = self.output(tap).own.as_ref();
                own.map_or_else(|| Arc::clone(&self.steps[tap.step].schema), Arc::clone)
            }
            Content::Errors => error_schema(),
        }
    }

    /// The columns of a step's first input.
    pub(crate) fn before(&self, step: usize) -> SchemaRef {
        self.schema_of(self.steps[step].inputs[0])
    }

    /// How many steps take each step's outputs.
    pub(super) fn consumers(&self) -> Vec<usize> {
        let mut counts = vec![0; self.steps.len()];
        for tap in self.steps.iter().flat_map(|step| &step.inputs) {
            counts[tap.step] += 1;
        }
        counts
    }

    /// Whether anyone takes the output of this name.
    pub(super) fn is_taken(&self, step: usize, name: &str) -> bool {
        self.tap(step, name).is_some_and(|tap| self.steps.iter().any(|other| other.inputs.contains(&tap)))
    }

    /// Whether anyone takes records of this input of a step as they came.
    pub(super) fn passes_input(&self, step: usize, number: usize) -> bool {
        let outputs = self.steps[step].step.outputs();
        outputs.iter().any(|output| output.content == Content::Input(number) && self.is_taken(step, &output.name))
    }

    /// Puts inputs before those who take them, after steps were added; what no sink needs any more is left out.
    pub(super) fn sort(&mut self) {
        let mut order: Vec<usize> = Vec::with_capacity(self.steps.len());
        let mut is_placed = vec![false; self.steps.len()];
        // Depth first with a stack of our own: a plan may be deep.
        let is_sink = |&step: &usize| self.steps[step].step.sink().is_some();
        for root in (0..self.steps.len()).filter(is_sink) {
            let mut stack = vec![(root, 0)];
            while let Some((step, next)) = stack.pop() {
                if is_placed[step] {
                    continue;
                }
                match self.steps[step].inputs.get(next) {
                    Some(tap) => {
                        stack.push((step, next + 1));
                        stack.push((tap.step, 0));
                    }
                    None => {
                        is_placed[step] = true;
                        order.push(step);
                    }
                }
            }
        }
        let mut new_place = vec![0; self.steps.len()];
        for (place, &step) in order.iter().enumerate() {
            new_place[step] = place;
        }
        let mut sorted: Vec<Vertex> = order.iter().map(|&step| self.steps[step].clone()).collect();
        for tap in sorted.iter_mut().flat_map(|step| &mut step.inputs) {
            tap.step = new_place[tap.step];
        }
        self.steps = sorted;
    }

    /// What the identities of the steps that take this output begin with.
    pub(super) fn path_of(&self, tap: Tap) -> String {
        let (vertex, output) = (&self.steps[tap.step], self.output(tap));
        match output.content {
            Content::Errors => format!("{}/{}", vertex.uid, output.name),
            Content::Result | Content::Input(_) | Content::Side if tap.output > 0 => format!("{}/{}", vertex.path, output.name),
            Content::Result | Content::Input(_) | Content::Side => vertex.path.clone(),
        }
    }
}

#[derive(Default)]
struct Collector {
    steps: Vec<Vertex>,
    seen: HashMap<*const (), usize>,
    names: BTreeMap<usize, String>,
    /// The former names of steps by their own.
    renamed: BTreeMap<String, String>,
}

impl Collector {
    fn push(&mut self, step: Arc<dyn Step>, inputs: Vec<Tap>, schema: SchemaRef, facts: Facts) -> usize {
        let (name, uid, path, lineage) = (String::new(), String::new(), String::new(), Lineage::default());
        self.steps.push(Vertex { step, inputs, name, uid, path, print: 0, schema, facts, lineage });
        self.steps.len() - 1
    }

    /// Collects a stream's step and all before it.
    fn visit(&mut self, stream: &Stream) -> Result<Tap> {
        let key = Arc::as_ptr(&stream.node).cast::<()>();
        let step = match self.seen.get(&key) {
            Some(&step) => step,
            None => {
                let node = &stream.node;
                let inputs = node.inputs.iter().map(|input| self.visit(input)).collect::<Result<Vec<Tap>>>()?;
                let step = self.push(Arc::clone(&node.step), inputs, Arc::clone(&node.schema), node.facts.clone());
                self.seen.insert(key, step);
                step
            }
        };
        if let Some(name) = stream.name.as_deref() {
            let given = self.names.entry(step).or_insert_with(|| name.to_owned());
            if given != name {
                return Err(Error::plan(format!("one step has two names, {given:?} and {name:?}; give it one")));
            }
            if let Some(was) = stream.was.as_deref() {
                let before = self.renamed.entry(name.to_owned()).or_insert_with(|| was.to_owned());
                if before != was {
                    return Err(Error::plan(format!("step {name:?} had two names, {before:?} and {was:?}; it can continue from one")));
                }
            }
        }
        Ok(Tap { step, output: stream.output })
    }
}
