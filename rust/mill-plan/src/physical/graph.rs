//! The plan as a picture: nodes and what joins them.

use super::explain::{edge_detail, port_name, source_detail};
use super::{PhysicalPlan, Stage, StageKind, Target};

/// A plan as nodes and edges, for a picture.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Graph {
    /// The steps.
    pub nodes: Vec<GraphNode>,
    /// What joins them.
    pub edges: Vec<GraphEdge>,
}

/// A step in a picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GraphNode {
    /// Its identity.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What kind of step it is.
    pub kind: String,
    /// What it does, in a line.
    pub detail: String,
    /// The chain it belongs to.
    pub chain: usize,
    /// How many tasks run it.
    pub parallelism: usize,
    /// What it keeps, and for how long; empty if it keeps nothing.
    pub state: String,
    /// What it guarantees; empty but for sinks.
    pub guarantee: String,
}

/// What joins two steps in a picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GraphEdge {
    /// The place of the node it comes from.
    pub from: usize,
    /// The place of the node it leads to.
    pub to: usize,
    /// What travels or how: empty, `hash(word)`, `late`, `errors`, …
    pub label: String,
}

impl PhysicalPlan {
    /// The plan as nodes and edges.
    pub fn graph(&self) -> Graph {
        let mut graph = Graph::default();
        // The place of the first node of each chain's stages, and of its source.
        let mut stages = Vec::new();
        let mut sources = Vec::new();
        for (i, chain) in self.chains.iter().enumerate() {
            sources.push(chain.source.as_ref().map(|_| graph.nodes.len()));
            if let Some(source) = &chain.source {
                graph.nodes.push(GraphNode {
                    id: source.uid.clone(),
                    name: source.name.clone(),
                    kind: "source".to_owned(),
                    detail: source_detail(source),
                    chain: i,
                    parallelism: chain.parallelism,
                    state: String::new(),
                    guarantee: String::new(),
                });
            }
            stages.push(graph.nodes.len());
            graph.nodes.extend(chain.stages.iter().map(|stage| GraphNode {
                id: stage.uid.clone(),
                name: stage.name.clone(),
                kind: stage.kind.label().to_owned(),
                detail: stage.kind.detail(&stage.schema),
                chain: i,
                parallelism: chain.parallelism,
                state: self.state(i, stage),
                guarantee: self.guarantees(stage).join("; "),
            }));
        }
        for (i, chain) in self.chains.iter().enumerate() {
            if let Some(from) = sources[i] {
                self.join(&mut graph, &stages, i, from, &chain.entries[0], "");
                let errors = chain.source.as_ref().map(|source| source.errors.as_slice()).unwrap_or_default();
                self.join(&mut graph, &stages, i, from, errors, "errors");
            }
            for (index, stage) in chain.stages.iter().enumerate() {
                let from = stages[i] + index;
                for (port, targets) in stage.ports.iter().enumerate() {
                    self.join(&mut graph, &stages, i, from, targets, port_name(stage, port));
                }
                self.join(&mut graph, &stages, i, from, &stage.errors, "errors");
            }
        }
        graph
    }

    /// What a stage keeps, or where its state is if there is nothing to say about it.
    fn state(&self, chain: usize, stage: &Stage) -> String {
        match self.kept(chain, stage) {
            kept if !kept.is_empty() => kept.join("; "),
            _ if stage.kind.is_stateful() && !matches!(stage.kind, StageKind::Sink(_)) => format!("state {:?}", stage.uid),
            _ => String::new(),
        }
    }

    fn join(&self, graph: &mut Graph, stages: &[usize], chain: usize, from: usize, targets: &[Target], label: &str) {
        for target in targets {
            match *target {
                Target::Stage(index, _) => {
                    graph.edges.push(GraphEdge { from, to: stages[chain] + index, label: label.to_owned() });
                }
                Target::Edge(edge) => {
                    let edge = &self.edges[edge];
                    let way = edge_detail(&edge.kind, &edge.schema);
                    let label = if label.is_empty() { way } else { format!("{label}, {way}") };
                    for entry in &self.chains[edge.to].entries[edge.entry] {
                        match *entry {
                            Target::Stage(index, _) => {
                                let to = stages[edge.to] + index;
                                graph.edges.push(GraphEdge { from, to, label: label.clone() });
                            }
                            // A chain that only passes records on; edges lead to higher chains, so this ends.
                            onward @ Target::Edge(_) => self.join(graph, stages, edge.to, from, &[onward], &label),
                        }
                    }
                }
            }
        }
    }
}
