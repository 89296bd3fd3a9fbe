//! The plan as a graph of steps, each once, with its name and identity.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use mill_protocol::{Error, Result, Sink};

use super::lineage::{self, Lineage};
use crate::physical::error_schema;
use crate::stream::{Facts, Op, Port, SinkNode, Stream};

/// The steps of a plan; inputs stand before those who take them once the graph is sorted.
pub(super) struct Graph {
    pub(super) steps: Vec<Step>,
}

/// A step of the plan.
#[derive(Clone)]
pub(super) struct Step {
    pub(super) work: Work,
    pub(super) inputs: Vec<Tap>,
    /// The name users know it by.
    pub(super) name: String,
    /// The identity of its state.
    pub(super) uid: String,
    /// The columns of the result.
    pub(super) schema: SchemaRef,
    pub(super) facts: Facts,
    /// What the columns of its first input are made of.
    pub(super) lineage: Lineage,
}

/// An output of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Tap {
    pub(super) step: usize,
    pub(super) port: Port,
}

/// What a step does.
#[derive(Clone)]
pub(super) enum Work {
    Op(Op),
    Sink(Arc<dyn Sink>),
}

impl Work {
    fn label(&self) -> String {
        match self {
            Work::Op(Op::Source(source)) => call_name(&source.name()),
            Work::Op(op) => op.label().to_owned(),
            Work::Sink(sink) => call_name(&sink.name()),
        }
    }
}

/// `read_csv("a.csv")` without its arguments.
pub(super) fn call_name(name: &str) -> String {
    name.split('(').next().unwrap_or(name).to_owned()
}

impl Graph {
    /// The steps that the sinks need.
    pub(super) fn new(sinks: &[SinkNode]) -> Result<Graph> {
        let mut collector = Collector::default();
        for sink in sinks {
            let input = collector.visit(&sink.input)?;
            collector.push(Work::Sink(Arc::clone(&sink.sink)), vec![input], sink.input.schema(), sink.input.facts());
            if let Some(name) = &sink.name {
                let step = collector.steps.len() - 1;
                collector.names.insert(step, name.clone());
            }
        }
        let mut graph = Graph { steps: collector.steps };
        graph.give_names(&collector.names)?;
        let lineages = lineage::of_inputs(&graph);
        graph.steps.iter_mut().zip(lineages).for_each(|(step, lineage)| step.lineage = lineage);
        Ok(graph)
    }

    /// The columns of an output.
    pub(super) fn schema_of(&self, tap: Tap) -> SchemaRef {
        match tap.port {
            Port::Out | Port::No => Arc::clone(&self.steps[tap.step].schema),
            Port::Late => self.schema_of(self.steps[tap.step].inputs[0]),
            Port::Errors => error_schema(),
        }
    }

    /// How many steps take each step's outputs.
    pub(super) fn consumers(&self) -> Vec<usize> {
        let mut counts = vec![0; self.steps.len()];
        for tap in self.steps.iter().flat_map(|step| &step.inputs) {
            counts[tap.step] += 1;
        }
        counts
    }

    /// Whether anyone takes this output.
    pub(super) fn is_taken(&self, step: usize, port: Port) -> bool {
        self.steps.iter().any(|other| other.inputs.contains(&Tap { step, port }))
    }

    /// Puts inputs before those who take them, after steps were added; what no sink needs any more is left out.
    pub(super) fn sort(&mut self) {
        let mut order: Vec<usize> = Vec::with_capacity(self.steps.len());
        let mut is_placed = vec![false; self.steps.len()];
        // Depth first with a stack of our own: a plan may be deep.
        let is_sink = |&step: &usize| matches!(self.steps[step].work, Work::Sink(_));
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
        let mut sorted: Vec<Step> = order.iter().map(|&step| self.steps[step].clone()).collect();
        for tap in sorted.iter_mut().flat_map(|step| &mut step.inputs) {
            tap.step = new_place[tap.step];
        }
        self.steps = sorted;
    }

    /// Gives each step its name and identity.
    ///
    /// The identity of an unnamed step is its place: the steps with state that lead to it from the source, and its own
    /// kind. Steps without state leave no trace in it, so adding a filter does not lose the state behind it.
    fn give_names(&mut self, given: &HashMap<usize, String>) -> Result<()> {
        let mut taken: HashSet<String> = HashSet::new();
        for name in given.values() {
            if !taken.insert(name.clone()) {
                return Err(Error::plan(format!("two steps are named {name:?}; a name is the identity of a step's state")));
            }
        }
        let mut names = taken.clone();
        // The path that the identities of the steps behind this one begin with.
        let mut paths: Vec<String> = Vec::with_capacity(self.steps.len());
        for i in 0..self.steps.len() {
            let step = &self.steps[i];
            let label = step.work.label();
            let from = step.inputs.first().map(|tap| match tap.port {
                Port::Out => paths[tap.step].clone(),
                Port::No => format!("{}/no", paths[tap.step]),
                Port::Late => format!("{}/late", paths[tap.step]),
                Port::Errors => format!("{}/errors", self.steps[tap.step].uid),
            });
            let place = from.as_ref().map_or_else(|| label.clone(), |from| format!("{from}/{label}"));
            let (uid, name) = match given.get(&i) {
                Some(name) => (name.clone(), name.clone()),
                None => (unique(&place, "#", &mut taken), unique(&label, " ", &mut names)),
            };
            let is_landmark = match &step.work {
                Work::Op(op) => op.is_stateful() || matches!(op, Op::Union | Op::Branch(_)),
                Work::Sink(_) => true,
            };
            paths.push(match from {
                Some(from) if !is_landmark && !given.contains_key(&i) => from,
                _ => uid.clone(),
            });
            let step = &mut self.steps[i];
            step.uid = uid;
            step.name = name;
        }
        Ok(())
    }
}

/// The text, numbered from the second time on.
fn unique(text: &str, separator: &str, taken: &mut HashSet<String>) -> String {
    let mut candidate = text.to_owned();
    let mut number = 1;
    while !taken.insert(candidate.clone()) {
        number += 1;
        candidate = format!("{text}{separator}{number}");
    }
    candidate
}

#[derive(Default)]
struct Collector {
    steps: Vec<Step>,
    seen: HashMap<*const (), usize>,
    names: HashMap<usize, String>,
}

impl Collector {
    fn push(&mut self, work: Work, inputs: Vec<Tap>, schema: SchemaRef, facts: Facts) -> usize {
        self.steps.push(Step { work, inputs, name: String::new(), uid: String::new(), schema, facts, lineage: Lineage::default() });
        self.steps.len() - 1
    }

    /// Collects a stream's step and all before it.
    fn visit(&mut self, stream: &Stream) -> Result<Tap> {
        let mut stream = stream;
        let mut name = None;
        while let Op::Named(given) = &stream.node.op {
            name.get_or_insert(given);
            stream = &stream.node.inputs[0];
        }
        let key = Arc::as_ptr(&stream.node).cast::<()>();
        let step = match self.seen.get(&key) {
            Some(&step) => step,
            None => {
                let inputs = stream.node.inputs.iter().map(|input| self.visit(input)).collect::<Result<Vec<Tap>>>()?;
                let node = &stream.node;
                let step = self.push(Work::Op(node.op.clone()), inputs, Arc::clone(&node.schema), node.facts.clone());
                self.seen.insert(key, step);
                step
            }
        };
        if let Some(name) = name {
            let given = self.names.entry(step).or_insert_with(|| name.clone());
            if given != name {
                return Err(Error::plan(format!("one step has two names, {given:?} and {name:?}; give it one")));
            }
        }
        Ok(Tap { step, port: stream.port })
    }
}
