//! Chains: where each step runs, and where records change the task.
//!
//! Steps are placed in the order of the graph. A step goes into the chain of its input, behind an edge only where it must:
//! before a keyed step (hash), before a limit (gather), at a rebalance, where streams of several chains meet, and before
//! a sink that cannot be written in so many parts. Without chaining every step gets a chain of its own, except between a
//! source and its event time: watermarks are made per split, and behind an edge splits are no longer told apart.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use mill_protocol::{Error, Result, Sink};

use super::PlanOptions;
use super::keyed;
use super::steps::{Graph, Tap, Work};
use crate::compiled::CompiledExpr;
use crate::expr::Expr;
use crate::physical::{Chain, Edge, EdgeKind, PhysicalPlan, SourceStage, Stage, StageKind, Target};
use crate::stream::{Op, Port};

/// Where an output is in the chains.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) chain: usize,
    pub(super) outlet: Outlet,
    pub(super) schema: SchemaRef,
}

/// What records come out of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outlet {
    /// The source of the chain, or the edges that lead to it.
    Entry,
    /// A stage's port.
    Port(usize, usize),
    /// Records that failed in a stage.
    Errors(usize),
    /// Records that could not be read.
    SourceErrors,
}

/// Puts stages into chains.
pub(super) struct Builder<'a> {
    pub(super) graph: &'a Graph,
    pub(super) options: &'a PlanOptions,
    chains: Vec<Chain>,
    edges: Vec<Edge>,
    /// The outputs of the steps placed so far; a step's errors may come out of several stages.
    places: HashMap<Tap, Vec<Place>>,
}

/// Cuts a pruned plan into chains.
pub(super) fn place(graph: &Graph, options: &PlanOptions) -> Result<PhysicalPlan> {
    let mut builder = Builder { graph, options, chains: Vec::new(), edges: Vec::new(), places: HashMap::new() };
    let ordered = ordered_sources(graph)?;
    let fused = ahead_of_event_time(graph);
    for step in 0..graph.steps.len() {
        builder
            .place_step(step, ordered.contains(&step), fused.contains(&step))
            .map_err(|error| error.in_step(&graph.steps[step].name))?;
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
    Ok(PhysicalPlan { chains: builder.chains, edges: builder.edges, options: options.clone() })
}

/// Sources behind which something depends on the order of their records.
fn ordered_sources(graph: &Graph) -> Result<HashSet<usize>> {
    let mut is_ordered = vec![false; graph.steps.len()];
    let mut sources = HashSet::new();
    for at in (0..graph.steps.len()).rev() {
        let step = &graph.steps[at];
        let Work::Op(op) = &step.work else { continue };
        let needs_order = match op {
            Op::Source(_) => {
                if is_ordered[at] {
                    sources.insert(at);
                }
                continue;
            }
            Op::EventTime { .. } | Op::Limit(_) | Op::Reduce { .. } => true,
            Op::Aggregate { keys, aggregates, .. } | Op::Window { keys, aggregates, .. } => {
                let before = graph.schema_of(step.inputs[0]);
                let parts = crate::stream::AggregateParts::new(&before, keys, aggregates)?;
                parts.specs.iter().any(|spec| spec.kind.is_ordered())
            }
            // Behind a rebalance there is no order left to keep.
            Op::Rebalance => false,
            _ => is_ordered[at],
        };
        for tap in step.inputs.iter().filter(|_| needs_order) {
            is_ordered[tap.step] = true;
        }
    }
    Ok(sources)
}

/// Steps that an event time stands behind, and event times themselves: they stay in the chain of their source.
fn ahead_of_event_time(graph: &Graph) -> HashSet<usize> {
    let mut fused = HashSet::new();
    for at in (0..graph.steps.len()).rev() {
        let is_event_time = matches!(graph.steps[at].work, Work::Op(Op::EventTime { .. }));
        if is_event_time || fused.contains(&at) {
            fused.insert(at);
            fused.extend(graph.steps[at].inputs.iter().map(|tap| tap.step));
        }
    }
    fused
}

impl Builder<'_> {
    fn place_step(&mut self, at: usize, is_ordered: bool, is_fused: bool) -> Result<()> {
        let step = &self.graph.steps[at];
        match &step.work {
            Work::Sink(sink) => return self.sink(at, &Arc::clone(sink)),
            Work::Op(Op::Source(source)) => {
                let source = SourceStage {
                    uid: step.uid.clone(),
                    name: step.name.clone(),
                    source: Arc::clone(source),
                    is_ordered,
                    errors: Vec::new(),
                };
                let chain = self.new_chain(self.options.parallelism, Some(source));
                self.put(at, Port::Out, Place { chain, outlet: Outlet::Entry, schema: Arc::clone(&step.schema) });
                let schema = crate::physical::error_schema();
                self.put(at, Port::Errors, Place { chain, outlet: Outlet::SourceErrors, schema });
                return Ok(());
            }
            Work::Op(Op::Union) => return self.union(at),
            Work::Op(Op::Aggregate { .. } | Op::Window { .. } | Op::Reduce { .. }) => return keyed::place(self, at),
            Work::Op(_) => {}
        }
        let Work::Op(op) = &step.work else { return Ok(()) };
        let mut input = self.input(at, 0)?;
        let before = Arc::clone(&input.schema);
        let column = |name: &str| crate::stream::column_index(&before, name);
        let compile = |expr: &Expr, is_generator: bool| CompiledExpr::compile(expr, &before, is_generator);
        let mut signature = String::new();
        let kind = match op {
            Op::Project { exprs, verb } => {
                let is_generator = *verb == "generate";
                StageKind::Project { exprs: exprs.iter().map(|e| compile(e, is_generator)).collect::<Result<_>>()? }
            }
            Op::Filter(predicate) => StageKind::Filter(compile(predicate, false)?),
            Op::Branch(predicate) => StageKind::Branch(compile(predicate, false)?),
            Op::Explode { column: name, keep_empty } => {
                StageKind::Explode { column: column(name)?, keep_empty: *keep_empty }
            }
            Op::Unnest(name) => StageKind::Unnest { column: column(name)? },
            Op::Limit(rows) => {
                if self.chains[input.chain].parallelism > 1 {
                    input = self.exchange(&input, EdgeKind::Gather, 1);
                }
                signature = format!("limit({rows})");
                StageKind::Limit(*rows)
            }
            Op::Rebalance => {
                input = self.exchange(&input, EdgeKind::Rebalance, self.options.parallelism);
                StageKind::Pass
            }
            Op::EventTime { column: name, strategy } => {
                let index = column(name)?;
                signature = format!("event_time({})", step.lineage.described(name, before.field(index).data_type()));
                StageKind::EventTime { column: index, strategy: *strategy }
            }
            Op::User { kind, function } => StageKind::User { kind: *kind, function: Arc::clone(function) },
            other => return Err(Error::internal(format!("a step {} was not lowered", other.label()))),
        };
        let stage = self.stage(&input, kind, at, Arc::clone(&step.schema), signature, is_fused)?;
        let ports = if matches!(op, Op::Branch(_)) { 2 } else { 1 };
        self.chains[stage.chain].stages[stage.index].ports.resize(ports, Vec::new());
        self.publish(at, &stage, ports);
        Ok(())
    }

    /// The output that a step takes. Where several stages make up that output, they are brought together first.
    pub(super) fn input(&mut self, at: usize, number: usize) -> Result<Place> {
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

    pub(super) fn put(&mut self, step: usize, port: Port, place: Place) {
        self.places.entry(Tap { step, port }).or_default().push(place);
    }

    /// Makes a stage's ports and errors the outputs of a step.
    fn publish(&mut self, at: usize, stage: &Placed, ports: usize) {
        let schema = &self.chains[stage.chain].stages[stage.index].schema;
        let schema = Arc::clone(schema);
        for (i, port) in [Port::Out, Port::No].into_iter().take(ports).enumerate() {
            let outlet = Outlet::Port(stage.index, i);
            self.put(at, port, Place { chain: stage.chain, outlet, schema: Arc::clone(&schema) });
        }
        self.publish_errors(at, stage);
    }

    pub(super) fn publish_errors(&mut self, at: usize, stage: &Placed) {
        let schema = crate::physical::error_schema();
        self.put(at, Port::Errors, Place { chain: stage.chain, outlet: Outlet::Errors(stage.index), schema });
    }

    fn new_chain(&mut self, parallelism: usize, source: Option<SourceStage>) -> usize {
        self.chains.push(Chain { name: String::new(), parallelism, source, entry: Vec::new(), stages: Vec::new() });
        self.chains.len() - 1
    }

    pub(super) fn parallelism(&self, place: &Place) -> usize {
        self.chains[place.chain].parallelism
    }

    fn connect(&mut self, from: &Place, target: Target) {
        let chain = &mut self.chains[from.chain];
        let targets = match from.outlet {
            Outlet::Entry => &mut chain.entry,
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

    /// A new chain behind an edge.
    pub(super) fn exchange(&mut self, from: &Place, kind: EdgeKind, parallelism: usize) -> Place {
        let chain = self.new_chain(parallelism, None);
        self.edge(from, chain, kind);
        Place { chain, outlet: Outlet::Entry, schema: Arc::clone(&from.schema) }
    }

    fn edge(&mut self, from: &Place, to: usize, kind: EdgeKind) {
        self.edges.push(Edge { from: from.chain, to, kind, schema: Arc::clone(&from.schema) });
        let edge = self.edges.len() - 1;
        self.connect(from, Target::Edge(edge));
    }

    /// Puts a stage behind an output: into its chain, or without chaining into one of its own.
    pub(super) fn stage(
        &mut self,
        input: &Place,
        kind: StageKind,
        at: usize,
        schema: SchemaRef,
        signature: String,
        is_fused: bool,
    ) -> Result<Placed> {
        let step = &self.graph.steps[at];
        let before = &step.inputs.first().map(|tap| self.graph.steps[tap.step].facts.updating.clone());
        let keys = before.clone().flatten().filter(|_| matches!(step.inputs[0].port, Port::Out | Port::No));
        let updating = match keys {
            Some(keys) => Some(
                keys.iter().map(|key| crate::stream::column_index(&input.schema, key)).collect::<Result<Vec<usize>>>()?,
            ),
            None => None,
        };
        let is_entry_of_own = input.outlet == Outlet::Entry && self.chains[input.chain].source.is_none();
        let input = match self.options.is_chaining || is_fused || is_entry_of_own {
            true => input.clone(),
            false => self.exchange(input, EdgeKind::Forward, self.parallelism(input)),
        };
        let index = self.chains[input.chain].stages.len();
        let stage = Stage {
            uid: step.uid.clone(),
            name: step.name.clone(),
            kind,
            schema,
            ports: vec![Vec::new()],
            errors: Vec::new(),
            signature,
            updating,
        };
        self.chains[input.chain].stages.push(stage);
        self.connect(&input, Target::Stage(index));
        Ok(Placed { chain: input.chain, index })
    }

    /// The stage that was placed last at this place.
    pub(super) fn stage_at(&mut self, placed: &Placed) -> &mut Stage {
        &mut self.chains[placed.chain].stages[placed.index]
    }

    fn union(&mut self, at: usize) -> Result<()> {
        let step = &self.graph.steps[at];
        let places = (0..step.inputs.len()).map(|number| self.input(at, number)).collect::<Result<Vec<Place>>>()?;
        let (uid, name) = (step.uid.clone(), step.name.clone());
        let mut place = self.merge(&places, uid, name);
        place.schema = Arc::clone(&self.graph.steps[at].schema);
        if let Outlet::Port(stage, _) = place.outlet {
            self.chains[place.chain].stages[stage].schema = Arc::clone(&place.schema);
        }
        self.put(at, Port::Out, place);
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
                self.edge(place, chain, kind);
            }
            chain
        };
        let index = self.chains[chain].stages.len();
        self.chains[chain].stages.push(Stage {
            uid,
            name,
            kind: StageKind::Pass,
            schema: Arc::clone(&schema),
            ports: vec![Vec::new()],
            errors: Vec::new(),
            signature: String::new(),
            updating: None,
        });
        match is_local {
            true => places.iter().for_each(|place| self.connect(place, Target::Stage(index))),
            false => self.chains[chain].entry.push(Target::Stage(index)),
        }
        Place { chain, outlet: Outlet::Port(index, 0), schema }
    }

    fn sink(&mut self, at: usize, sink: &Arc<dyn Sink>) -> Result<()> {
        let mut input = self.input(at, 0)?;
        let most = sink.parallelism_max().unwrap_or(usize::MAX).max(1);
        if self.parallelism(&input) > most {
            let updating = self.graph.steps[at].facts.updating.clone();
            let kind = match updating {
                _ if most == 1 => EdgeKind::Gather,
                // The rows of a key must arrive in their order, so they take one way.
                Some(keys) => EdgeKind::Hash(
                    keys.iter().map(|key| crate::stream::column_index(&input.schema, key)).collect::<Result<_>>()?,
                ),
                None => EdgeKind::Rebalance,
            };
            input = self.exchange(&input, kind, most);
        }
        let schema = Arc::clone(&input.schema);
        let signature = format!("sink {}", super::steps::call_name(&sink.name()));
        self.stage(&input, StageKind::Sink(Arc::clone(sink)), at, schema, signature, false)?;
        Ok(())
    }
}

/// A stage's place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placed {
    pub(super) chain: usize,
    pub(super) index: usize,
}

impl Placed {
    /// What comes out of a port.
    pub(super) fn port(&self, port: usize, schema: SchemaRef) -> Place {
        Place { chain: self.chain, outlet: Outlet::Port(self.index, port), schema }
    }
}
