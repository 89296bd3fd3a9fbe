//! Chains: where each step runs, and where records change the task.
//!
//! Steps are placed in the order of the graph. A step goes into the chain of its input, after an edge only where it must:
//! before a keyed step (hash), before a limit (gather), at a rebalance, where streams of several chains meet, and before
//! a sink that cannot be written in so many parts. Without chaining every step gets a chain of its own, except between a
//! source and its event time: watermarks are made per split, and after an edge splits are no longer told apart.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use mill_protocol::{Error, Result, Source};

use super::PlanOptions;
use super::graph::{StepGraph, Tap};
use crate::outline::Outline;
use crate::physical::{Chain, Edge, EdgeKind, PhysicalPlan, SourceStage, Stage, StageKind, Target, error_schema};
use crate::steps::Splits;
use crate::stream::checks::column_index;
use crate::stream::{Content, ERRORS, RESULT};

/// Where an output is in the chains.
#[derive(Clone)]
pub(crate) struct Place {
    chain: usize,
    outlet: Outlet,
    pub(crate) schema: SchemaRef,
}

/// What records come out of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outlet {
    /// The source of the chain, or the edges that lead to this entry of it.
    Entry(usize),
    /// A stage's port.
    Port(usize, usize),
    /// Records that failed in a stage.
    Errors(usize),
    /// Records that could not be read.
    SourceErrors,
}

/// Puts stages into chains.
pub(crate) struct Builder<'a> {
    pub(crate) graph: &'a StepGraph,
    pub(crate) options: &'a PlanOptions,
    /// Sources whose records something downstream needs in their order.
    ordered: HashSet<usize>,
    /// Sources whose records come in one order, the same each time.
    in_turn: HashSet<usize>,
    /// Steps that stay in the chain of their source.
    fused: HashSet<usize>,
    chains: Vec<Chain>,
    edges: Vec<Edge>,
    /// The outputs of the steps placed so far; a step's errors may come out of several stages.
    places: HashMap<Tap, Vec<Place>>,
}

/// Cuts a pruned plan into chains.
pub(super) fn place(graph: &StepGraph, options: &PlanOptions, outline: Outline) -> Result<PhysicalPlan> {
    let (ordered, fused) = (ordered_sources(graph)?, ahead_of_event_time(graph));
    let (chains, edges, places) = (Vec::new(), Vec::new(), HashMap::new());
    let in_turn = sources_in_turn(graph);
    let mut builder = Builder { graph, options, ordered, in_turn, fused, chains, edges, places };
    for (at, vertex) in graph.steps.iter().enumerate() {
        vertex.step.lower(&mut builder, at).map_err(|error| error.in_step(&vertex.name))?;
    }
    let mut names = HashSet::new();
    for (i, chain) in builder.chains.iter_mut().enumerate() {
        let first = chain.source.as_ref().map(|source| source.name.clone());
        let mut parts: Vec<String> = first.into_iter().chain(chain.stages.iter().map(|stage| stage.name.clone())).collect();
        parts.dedup();
        chain.name = match parts.as_slice() {
            [] => format!("chain {i}"),
            [one] => one.clone(),
            [first, .., last] => format!("{first} … {last}"),
        };
        if !names.insert(chain.name.clone()) {
            chain.name = format!("{} ({i})", chain.name);
            names.insert(chain.name.clone());
        }
    }
    Ok(PhysicalPlan { chains: builder.chains, edges: builder.edges, options: options.clone(), outline, renamed: graph.renamed.clone() })
}

/// Sources whose records some later step needs in their order.
fn ordered_sources(graph: &StepGraph) -> Result<HashSet<usize>> {
    let mut is_ordered = vec![false; graph.steps.len()];
    for at in (0..graph.steps.len()).rev() {
        let vertex = &graph.steps[at];
        if !vertex.inputs.is_empty() && vertex.step.needs_order(is_ordered[at], &graph.before(at))? {
            let ordered = vertex.inputs.iter().zip(0..).filter(|(_, number)| vertex.step.orders_input(*number));
            ordered.for_each(|(tap, _)| is_ordered[tap.step] = true);
        }
    }
    Ok((0..graph.steps.len()).filter(|&at| is_ordered[at] && graph.steps[at].step.source().is_some()).collect())
}

/// Sources of which all records are needed in an order that is the same each time: one task reads them, split by split.
fn sources_in_turn(graph: &StepGraph) -> HashSet<usize> {
    // Who takes the records of each step: as which input, and whether these are the ones that failed.
    let mut takers: Vec<Vec<(usize, usize, bool)>> = vec![Vec::new(); graph.steps.len()];
    for (at, vertex) in graph.steps.iter().enumerate() {
        for (number, tap) in vertex.inputs.iter().enumerate() {
            takers[tap.step].push((at, number, graph.content(*tap) == Content::Errors));
        }
    }
    let mut in_turn = vec![false; graph.steps.len()];
    for at in (0..graph.steps.len()).rev() {
        let needs = |&(taker, number, _): &(usize, usize, bool)| {
            let vertex = &graph.steps[taker];
            let passes_on = vertex.inputs.len() == 1 && matches!(vertex.step.splits(), Splits::Keeps | Splits::Needs);
            vertex.step.takes_in_turn(number) || (passes_on && in_turn[taker])
        };
        // Those who take the records that failed in any order do not slow down the others, which need them in theirs.
        let is_for_all = takers[at].iter().all(|taker| taker.2 || needs(taker));
        in_turn[at] = is_for_all && takers[at].iter().any(needs);
    }
    (0..graph.steps.len()).filter(|&at| in_turn[at] && graph.steps[at].step.source().is_some()).collect()
}

/// Steps that need the splits of their source, and all steps before them: they stay in the chain of the source.
fn ahead_of_event_time(graph: &StepGraph) -> HashSet<usize> {
    let mut fused = HashSet::new();
    for at in (0..graph.steps.len()).rev() {
        if graph.steps[at].step.splits() == Splits::Needs || fused.contains(&at) {
            fused.insert(at);
            fused.extend(graph.steps[at].inputs.iter().map(|tap| tap.step));
        }
    }
    fused
}

impl Builder<'_> {
    /// A source at the head of a chain of its own. Records that are changes become rows that set or withdraw their key.
    pub(crate) fn source(&mut self, at: usize, source: &Arc<dyn Source>) -> Result<()> {
        let vertex = &self.graph.steps[at];
        let schema = source.schema();
        let changes = source.changes();
        let source = SourceStage {
            uid: vertex.uid.clone(),
            name: vertex.name.clone(),
            source: Arc::clone(source),
            is_ordered: self.ordered.contains(&at) || changes.is_some(),
            errors: Vec::new(),
        };
        let parallelism = if self.in_turn.contains(&at) { 1 } else { self.options.parallelism };
        let chain = self.new_chain(parallelism, Some(source));
        for output in 0..vertex.step.outputs().len() {
            let tap = Tap { step: at, output };
            let place = match self.graph.content(tap) {
                Content::Result => {
                    let records = Place { chain, outlet: Outlet::Entry(0), schema: Arc::clone(&schema) };
                    match &changes {
                        None => records,
                        Some(changes) => {
                            let op = column_index(&schema, &changes.op)?;
                            let rows = Arc::clone(&vertex.schema);
                            let kind = StageKind::FromChangelog { op };
                            let placed = self.attach(&records, kind, at, Arc::clone(&rows), String::new(), true)?;
                            self.stage_at(&placed).uid = format!("{}/changes", vertex.uid);
                            placed.port(0, rows)
                        }
                    }
                }
                Content::Errors => Place { chain, outlet: Outlet::SourceErrors, schema: error_schema() },
                Content::Input(_) | Content::Side => {
                    return Err(Error::internal(format!("the source {:?} has no such output", vertex.name)));
                }
            };
            self.put(tap, place);
        }
        Ok(())
    }

    /// The source at the head of a chain.
    pub(crate) fn source_of(&self, place: &Place) -> Option<&dyn Source> {
        self.chains[place.chain].source.as_ref().map(|stage| &*stage.source)
    }

    /// The step in the chain of this place whose splits keep together, if there is one.
    pub(crate) fn aligned_step(&self, place: &Place) -> Option<&str> {
        let is_aligned = |stage: &&Stage| matches!(stage.kind, StageKind::EventTime { alignment: Some(_), .. });
        self.chains[place.chain].stages.iter().find(is_aligned).map(|stage| stage.step.as_str())
    }

    /// The only stage of a step: in the chain of its input, with the step's outputs.
    pub(crate) fn place(&mut self, at: usize, input: &Place, kind: StageKind, signature: String) -> Result<()> {
        let schema = Arc::clone(&self.graph.steps[at].schema);
        let placed = self.attach(input, kind, at, schema, signature, self.fused.contains(&at))?;
        self.publish(at, &placed);
        Ok(())
    }

    /// The output that a step takes. Where several stages make up that output, they are brought together first.
    pub(crate) fn input(&mut self, at: usize, number: usize) -> Result<Place> {
        let tap = self.graph.steps[at].inputs[number];
        match self.places.get(&tap).map(Vec::as_slice) {
            Some([place]) => Ok(place.clone()),
            Some(places) if !places.is_empty() => {
                let places = places.to_vec();
                let (uid, name) = (format!("{}/errors", self.graph.steps[tap.step].uid), self.graph.steps[tap.step].name.clone());
                let place = self.merge(&places, uid, format!("{name}.errors"));
                self.places.insert(tap, vec![place.clone()]);
                Ok(place)
            }
            _ => Err(Error::internal(format!("output {tap:?} of {:?} has no place", self.graph.steps[tap.step].name))),
        }
    }

    /// Where an output comes out.
    pub(super) fn put(&mut self, tap: Tap, place: Place) {
        self.places.entry(tap).or_default().push(place);
    }

    /// The ports of a step's stages: its outputs but for errors, in their order.
    fn ports(&self, at: usize) -> Vec<usize> {
        let outputs = 0..self.graph.steps[at].step.outputs().len();
        outputs.filter(|&output| self.graph.content(Tap { step: at, output }) != Content::Errors).collect()
    }

    /// What comes out of a stage as this output of its step.
    pub(super) fn outlet(&self, tap: Tap, placed: &Placed, schema: SchemaRef) -> Result<Place> {
        match self.ports(tap.step).iter().position(|&output| output == tap.output) {
            Some(port) => Ok(placed.port(port, schema)),
            None => Err(Error::internal(format!("output {tap:?} is no port"))),
        }
    }

    /// Assigns a stage the ports of its step.
    pub(super) fn open_ports(&mut self, at: usize, placed: &Placed) {
        let ports = self.ports(at);
        let stage = &mut self.chains[placed.chain].stages[placed.index];
        stage.ports.resize(ports.len(), Vec::new());
        let outputs = self.graph.steps[at].step.outputs();
        stage.outputs = ports.iter().map(|&output| outputs[output].name.clone()).collect();
    }

    /// Makes a stage's ports and errors the outputs of a step.
    pub(crate) fn publish(&mut self, at: usize, placed: &Placed) {
        self.open_ports(at, placed);
        let result = Arc::clone(&self.chains[placed.chain].stages[placed.index].schema);
        for (port, output) in self.ports(at).into_iter().enumerate() {
            let tap = Tap { step: at, output };
            let schema = match self.graph.content(tap) {
                Content::Side => self.graph.schema_of(tap),
                Content::Result | Content::Input(_) | Content::Errors => Arc::clone(&result),
            };
            self.put(tap, placed.port(port, schema));
        }
        self.publish_errors(at, placed);
    }

    /// The same of a step some of whose outputs are records of its input as they came, with these columns.
    pub(crate) fn publish_with_input(&mut self, at: usize, placed: &Placed, input: &SchemaRef) {
        self.publish_with_inputs(at, placed, std::slice::from_ref(input));
    }

    /// The same of a step with several inputs.
    pub(crate) fn publish_with_inputs(&mut self, at: usize, placed: &Placed, inputs: &[SchemaRef]) {
        self.open_ports(at, placed);
        let result = Arc::clone(&self.chains[placed.chain].stages[placed.index].schema);
        for (port, output) in self.ports(at).into_iter().enumerate() {
            let tap = Tap { step: at, output };
            let schema = if let Content::Input(number) = self.graph.content(tap) { &inputs[number] } else { &result };
            self.put(tap, placed.port(port, Arc::clone(schema)));
        }
        self.publish_errors(at, placed);
    }

    /// Makes what fails in a stage come out as errors of its step, if it has such an output.
    pub(super) fn publish_errors(&mut self, at: usize, placed: &Placed) {
        if let Some(tap) = self.graph.tap(at, ERRORS) {
            let place = Place { chain: placed.chain, outlet: Outlet::Errors(placed.index), schema: error_schema() };
            self.put(tap, place);
        }
    }

    fn new_chain(&mut self, parallelism: usize, source: Option<SourceStage>) -> usize {
        self.chains.push(Chain { name: String::new(), parallelism, source, entries: vec![Vec::new()], stages: Vec::new() });
        self.chains.len() - 1
    }

    /// How many tasks an output comes from.
    pub(crate) fn parallelism(&self, place: &Place) -> usize {
        self.chains[place.chain].parallelism
    }

    fn connect(&mut self, from: &Place, target: Target) {
        let chain = &mut self.chains[from.chain];
        let targets = match from.outlet {
            Outlet::Entry(entry) => &mut chain.entries[entry],
            Outlet::Port(stage, port) => &mut chain.stages[stage].ports[port],
            Outlet::Errors(stage) => &mut chain.stages[stage].errors,
            Outlet::SourceErrors => match &mut chain.source {
                Some(source) => &mut source.errors,
                None => return,
            },
        };
        // A stream united with itself comes twice, so the same target may stand here twice.
        targets.push(target);
    }

    /// Whether all of this comes from one task, though it could keep more of them busy.
    pub(super) fn is_read_by_one(&self, place: &Place) -> bool {
        let source = self.chains[place.chain].source.as_ref();
        self.options.parallelism > 1 && source.is_some_and(|it| it.is_ordered && it.source.is_single_when_ordered())
    }

    /// A new chain that has the records of a key together: by the hash of these columns, and without any in one task.
    pub(crate) fn exchange_by_key(&mut self, from: &Place, keys: &[usize]) -> Place {
        match keys {
            [] => self.exchange(from, EdgeKind::Gather, 1),
            _ => self.exchange(from, EdgeKind::Hash(keys.to_vec()), self.options.parallelism),
        }
    }

    /// A new chain after an edge.
    pub(crate) fn exchange(&mut self, from: &Place, kind: EdgeKind, parallelism: usize) -> Place {
        let chain = self.new_chain(parallelism, None);
        self.edge(from, (chain, 0), kind);
        Place { chain, outlet: Outlet::Entry(0), schema: Arc::clone(&from.schema) }
    }

    /// An edge to an entry of a chain.
    fn edge(&mut self, from: &Place, (to, entry): (usize, usize), kind: EdgeKind) {
        self.edges.push(Edge { from: from.chain, to, entry, kind, schema: Arc::clone(&from.schema) });
        let edge = self.edges.len() - 1;
        self.connect(from, Target::Edge(edge));
    }

    /// A new chain with two entries: each has the records of a key of its own columns, and those of one key come to one task.
    pub(crate) fn exchange_two(&mut self, from: [&Place; 2], keys: [&[usize]; 2]) -> [Place; 2] {
        let chain = self.new_chain(self.options.parallelism, None);
        self.chains[chain].entries.push(Vec::new());
        let mut entry = 0;
        from.map(|from| {
            self.edge(from, (chain, entry), EdgeKind::Hash(keys[entry].to_vec()));
            entry += 1;
            Place { chain, outlet: Outlet::Entry(entry - 1), schema: Arc::clone(&from.schema) }
        })
    }

    /// A new chain with two entries: one has the records of a key together, of the other one every task gets all records. Those
    /// come from one task, so that every task gets them in the same order.
    pub(crate) fn exchange_and_broadcast(&mut self, from: &Place, keys: &[usize], broadcast: &Place) -> [Place; 2] {
        let (kind, parallelism) = match keys {
            [] => (EdgeKind::Gather, 1),
            _ => (EdgeKind::Hash(keys.to_vec()), self.options.parallelism),
        };
        assert_eq!(self.parallelism(broadcast), 1, "records that every task gets come from one task");
        let chain = self.new_chain(parallelism, None);
        self.chains[chain].entries.push(Vec::new());
        self.edge(from, (chain, 0), kind);
        self.edge(broadcast, (chain, 1), EdgeKind::Broadcast);
        let place = |entry: usize, from: &Place| Place { chain, outlet: Outlet::Entry(entry), schema: Arc::clone(&from.schema) };
        [place(0, from), place(1, broadcast)]
    }

    /// The stage of a step with two inputs that come out of [`exchange_two`](Builder::exchange_two) or its like.
    pub(crate) fn stage_of_two(
        &mut self,
        inputs: &[Place; 2],
        kind: StageKind,
        at: usize,
        schema: SchemaRef,
        signature: String,
    ) -> Result<Placed> {
        let placed = self.attach(&inputs[0], kind, at, schema, signature, false)?;
        self.connect(&inputs[1], Target::Stage(placed.index, 1));
        Ok(placed)
    }

    /// Puts a stage after an output: into its chain, or without chaining into one of its own.
    pub(crate) fn stage(
        &mut self,
        input: &Place,
        kind: StageKind,
        at: usize,
        schema: SchemaRef,
        signature: String,
    ) -> Result<Placed> {
        self.attach(input, kind, at, schema, signature, false)
    }

    fn attach(
        &mut self,
        input: &Place,
        kind: StageKind,
        at: usize,
        schema: SchemaRef,
        signature: String,
        is_fused: bool,
    ) -> Result<Placed> {
        let vertex = &self.graph.steps[at];
        if (kind.is_stateful() || !signature.is_empty()) && !vertex.step.is_stateful() {
            return Err(Error::internal(format!("{} has a stage with state and declares none", vertex.step.label())));
        }
        if kind.is_stateful() && signature.is_empty() {
            return Err(Error::internal(format!("a stage of {} has state and no signature", vertex.step.label())));
        }
        // A filter withdraws rows that no longer pass, and a sink writes by key; nobody else asks.
        let reads_key = matches!(kind, StageKind::Filter(_) | StageKind::Sink(_));
        let tap = vertex.inputs.first().filter(|tap| reads_key && self.graph.content(**tap) == Content::Result);
        let updating = match tap.and_then(|tap| self.graph.steps[tap.step].facts.updating.as_ref()) {
            Some(keys) => Some(keys.iter().map(|key| column_index(&input.schema, key)).collect::<Result<Vec<usize>>>()?),
            None => None,
        };
        let is_entry_of_own = matches!(input.outlet, Outlet::Entry(_)) && self.chains[input.chain].source.is_none();
        let input = match self.options.is_chaining || is_fused || is_entry_of_own {
            true => input.clone(),
            false => self.exchange(input, EdgeKind::Forward, self.parallelism(input)),
        };
        let index = self.chains[input.chain].stages.len();
        let stage = Stage {
            uid: vertex.uid.clone(),
            name: vertex.name.clone(),
            step: vertex.name.clone(),
            kind,
            schema,
            ports: vec![Vec::new()],
            outputs: vec![RESULT.into()],
            errors: Vec::new(),
            signature,
            parts: Vec::new(),
            updating,
        };
        self.chains[input.chain].stages.push(stage);
        self.connect(&input, Target::Stage(index, 0));
        Ok(Placed { chain: input.chain, index })
    }

    /// The stage that was placed last at this place.
    pub(super) fn stage_at(&mut self, placed: &Placed) -> &mut Stage {
        &mut self.chains[placed.chain].stages[placed.index]
    }

    /// Brings all inputs of a step together.
    pub(crate) fn union(&mut self, at: usize) -> Result<()> {
        let step = &self.graph.steps[at];
        let places = (0..step.inputs.len()).map(|number| self.input(at, number)).collect::<Result<Vec<Place>>>()?;
        let (uid, name) = (step.uid.clone(), step.name.clone());
        let mut place = self.merge(&places, uid, name);
        place.schema = Arc::clone(&self.graph.steps[at].schema);
        if let Outlet::Port(stage, _) = place.outlet {
            self.chains[place.chain].stages[stage].schema = Arc::clone(&place.schema);
        }
        self.put(Tap::result(at), place);
        Ok(())
    }

    /// Brings outputs together: in their chain if they share one, else in a new one.
    fn merge(&mut self, places: &[Place], uid: String, name: String) -> Place {
        let chain = places[0].chain;
        let is_local = self.options.is_chaining && places.iter().all(|place| place.chain == chain);
        let schema = Arc::clone(&places[0].schema);
        let chain = if is_local {
            chain
        } else {
            let parallelism = places.iter().map(|place| self.parallelism(place)).max().unwrap_or(1);
            let chain = self.new_chain(parallelism, None);
            for place in places {
                let kind = if self.parallelism(place) == parallelism { EdgeKind::Forward } else { EdgeKind::Rebalance };
                self.edge(place, (chain, 0), kind);
            }
            chain
        };
        let index = self.chains[chain].stages.len();
        self.chains[chain].stages.push(Stage {
            uid,
            step: name.clone(),
            name,
            kind: StageKind::Pass,
            schema: Arc::clone(&schema),
            ports: vec![Vec::new()],
            outputs: vec![RESULT.into()],
            errors: Vec::new(),
            signature: String::new(),
            parts: Vec::new(),
            updating: None,
        });
        match is_local {
            true => places.iter().for_each(|place| self.connect(place, Target::Stage(index, 0))),
            false => self.chains[chain].entries[0].push(Target::Stage(index, 0)),
        }
        Place { chain, outlet: Outlet::Port(index, 0), schema }
    }
}

/// A stage's place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placed {
    chain: usize,
    index: usize,
}

impl Placed {
    /// What comes out of a port.
    pub(crate) fn port(&self, port: usize, schema: SchemaRef) -> Place {
        Place { chain: self.chain, outlet: Outlet::Port(self.index, port), schema }
    }
}
