//! The plan as a picture: nodes and what joins them.

use super::PhysicalPlan;

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
}

/// What joins two steps in a picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GraphEdge {
    /// The place of the node it comes from.
    pub from: usize,
    /// The place of the node it leads to.
    pub to: usize,
    /// What travels: empty, `hash(word)`, `late`, `errors`, …
    pub label: String,
}

impl PhysicalPlan {
    /// The plan as nodes and edges.
    pub fn graph(&self) -> Graph {
        Graph::default()
    }
}
