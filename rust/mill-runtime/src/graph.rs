//! What a job consists of: chains of stages, and the edges between them.
//!
//! The shape mirrors the physical plan, with factories in the place of descriptions, so that the runtime knows no
//! operator and no expression.
//!
//! ```text
//!   chain 0 (parallelism 2)                     chain 1 (parallelism 2)
//!   source ─► stage 0 ─► stage 1 ──edge 0 (hash)──► stage 0 ─► stage 1 (sink)
//!             └─ port 1 ──edge 1 (gather)──► …
//! ```

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use mill_frame::hash::KEY_GROUPS;
use mill_frame::block::SharedBytes;
use mill_protocol::{Error, Operator, Result, Sink, Source, TaskContext};

/// A whole job.
#[derive(Clone, Debug, Default)]
pub struct JobGraph {
    /// The chains, each of which becomes as many tasks as its parallelism says.
    pub chains: Vec<ChainDef>,
    /// What connects them.
    pub edges: Vec<EdgeDef>,
}

/// Stages that run by plain calls on one thread.
#[derive(Clone, Debug)]
pub struct ChainDef {
    /// What it is called in messages.
    pub name: String,
    /// How many tasks it becomes.
    pub parallelism: usize,
    /// Where its records come from, if not from edges.
    pub source: Option<SourceDef>,
    /// Who gets the records of each entry: the source is entry 0, and an edge names its own. Edges with the same entry
    /// come together there.
    pub entries: Vec<Vec<Target>>,
    /// Its stages in topological order.
    pub stages: Vec<StageDef>,
}

/// A source at the head of a chain.
#[derive(Clone, Debug)]
pub struct SourceDef {
    /// The identity of its positions in a checkpoint.
    pub uid: String,
    /// The name of the step.
    pub name: String,
    /// What is read.
    pub source: Arc<dyn Source>,
    /// Whether the order within what the source calls one sequence matters.
    pub is_ordered: bool,
    /// Who gets the records that could not be read.
    pub errors: Vec<Target>,
}

/// One stage of a chain.
#[derive(Clone, Debug)]
pub struct StageDef {
    /// The identity of its state in a checkpoint.
    pub uid: String,
    /// Its name in checkpoints and figures.
    pub name: String,
    /// The name of the user's step it is of, for messages.
    pub step: String,
    /// What must be equal for its state to be taken up again; readable by people.
    pub signature: String,
    /// The parts of the signature that may come and go without the rest, by name.
    pub parts: Vec<(String, String)>,
    /// Says whether it can continue from what a former run has stored.
    pub check: Option<StateCheck>,
    /// What it does.
    pub body: StageBody,
    /// How many inputs it has. Targets with the same input come together there.
    pub inputs: usize,
    /// Who gets the records of each output port.
    pub ports: Vec<Vec<Target>>,
    /// Who gets the records that could not be processed.
    pub errors: Vec<Target>,
    /// The code of the user's that it calls, if it calls any.
    pub user_code: Option<UserCode>,
}

/// What is known of code of the user's before it runs: not what it costs. So it gets few records at first, and then as
/// many as it works on in a short time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserCode {
    /// How many records the first call gets at most.
    pub rows_first: usize,
    /// How many records each call gets at most, where the user has said that: then time is no matter.
    pub batch_rows: Option<usize>,
}

/// Fails if an operator cannot continue from the state without key of its former instances, and says why.
#[derive(Clone)]
pub struct StateCheck(pub Arc<CheckOfState>);

/// What a [`StateCheck`] calls; the flag says that the step has other parts than the one that stored it.
pub type CheckOfState = dyn Fn(&[SharedBytes], bool) -> Result<()> + Send + Sync;

impl fmt::Debug for StateCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StateCheck")
    }
}

/// Makes one instance of an operator.
pub type OperatorFactory = Arc<dyn Fn(&TaskContext) -> Result<Box<dyn Operator>> + Send + Sync>;

/// What a stage does.
#[derive(Clone)]
pub enum StageBody {
    /// Runs an operator.
    Operator(OperatorFactory),
    /// Writes records to a sink.
    Sink {
        /// Where to.
        sink: Arc<dyn Sink>,
        /// The columns that come.
        schema: SchemaRef,
    },
}

impl fmt::Debug for StageBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StageBody::Operator(_) => f.write_str("Operator"),
            StageBody::Sink { sink, .. } => write!(f, "Sink({})", sink.name()),
        }
    }
}

/// Where records go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// A later stage of the same chain, and the number of its input.
    Stage(usize, usize),
    /// An edge of the job.
    Edge(usize),
}

/// All queues between two chains.
#[derive(Clone, Debug)]
pub struct EdgeDef {
    /// The chain that the records come from.
    pub from: usize,
    /// The chain that they go to.
    pub to: usize,
    /// The entry of that chain, and with it the stages and inputs where it ends.
    pub entry: usize,
    /// Which task gets which record.
    pub kind: EdgeKind,
    /// The columns.
    pub schema: SchemaRef,
}

/// Which task gets which record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EdgeKind {
    /// Task i sends to task i.
    Forward,
    /// The owner of the key in these columns.
    Hash(Vec<usize>),
    /// All tasks in turn.
    Rebalance,
    /// The first task.
    Gather,
    /// All tasks, from the one task of a chain: each gets all records, in the same order.
    Broadcast,
}

impl JobGraph {
    /// Checks that the parts fit together.
    ///
    /// # Errors
    /// Names the first part that does not. Such an error is a mistake of whoever built the graph, not of a user.
    pub fn check(&self) -> Result<()> {
        let wrong = |message: String| Err(Error::internal(format!("the job graph is not sound: {message}")));
        let mut uids = HashSet::new();
        for (index, chain) in self.chains.iter().enumerate() {
            if chain.parallelism == 0 || chain.parallelism > usize::from(KEY_GROUPS) {
                return wrong(format!("chain {:?} has parallelism {}", chain.name, chain.parallelism));
            }
            let incoming = self.edges.iter().filter(|edge| edge.to == index).count();
            if chain.source.is_some() == (incoming > 0) {
                return wrong(format!("chain {:?} needs a source or incoming edges, and not both", chain.name));
            }
            let source = chain.source.iter();
            for uid in source.map(|s| &s.uid).chain(chain.stages.iter().map(|s| &s.uid)) {
                if !uids.insert(uid.as_str()) {
                    return wrong(format!("uid {uid:?} is taken twice"));
                }
            }
            for (number, stage) in chain.stages.iter().enumerate() {
                if matches!(stage.body, StageBody::Sink { .. }) && stage.inputs != 1 {
                    return wrong(format!("the sink {:?} has {} inputs", stage.name, stage.inputs));
                }
                for input in 0..stage.inputs {
                    let mut targets = chain.targets().flat_map(|(_, targets)| targets);
                    if !targets.any(|target| *target == Target::Stage(number, input)) {
                        return wrong(format!("nothing leads to input {input} of {:?}", stage.name));
                    }
                }
            }
            for entry in 0..chain.entries.len() {
                if chain.source.is_some() && entry > 0 {
                    return wrong(format!("chain {:?} has a source and {} entries", chain.name, chain.entries.len()));
                }
                if chain.source.is_none() && !self.edges.iter().any(|edge| edge.to == index && edge.entry == entry) {
                    return wrong(format!("nothing leads to entry {entry} of chain {:?}", chain.name));
                }
            }
            for (from, targets) in chain.targets() {
                for target in targets {
                    let is_sound = match *target {
                        Target::Stage(stage, input) => {
                            let is_input = chain.stages.get(stage).is_some_and(|stage| input < stage.inputs);
                            is_input && from.is_none_or(|from| stage > from)
                        }
                        Target::Edge(edge) => self.edges.get(edge).is_some_and(|edge| edge.from == index),
                    };
                    if !is_sound {
                        return wrong(format!("chain {:?} has a target {target:?} that cannot be", chain.name));
                    }
                }
            }
        }
        for edge in &self.edges {
            let (Some(from), Some(to)) = (self.chains.get(edge.from), self.chains.get(edge.to)) else {
                return wrong(format!("an edge connects chain {} with chain {}", edge.from, edge.to));
            };
            if edge.entry >= to.entries.len() {
                return wrong(format!("an edge leads to entry {} of chain {:?}, which has {}", edge.entry, to.name, to.entries.len()));
            }
            if edge.kind == EdgeKind::Broadcast && from.parallelism != 1 {
                return wrong(format!("the broadcast edge from {:?} comes from {} tasks", from.name, from.parallelism));
            }
            if edge.kind == EdgeKind::Forward && from.parallelism != to.parallelism {
                return wrong(format!("the forward edge from {:?} to {:?} changes parallelism", from.name, to.name));
            }
        }
        Ok(())
    }
}

impl JobGraph {
    /// For each of these stages, given by chain and place, which of them its stream meets further down: stages with the same
    /// number meet, directly or by way of others. A stream ends at the next of these stages; records that could not be
    /// processed have no time in common with anybody.
    pub(crate) fn meetings(&self, makers: &[(usize, usize)]) -> Vec<usize> {
        let mut meeting: Vec<usize> = (0..makers.len()).collect();
        let mut reached_by: HashMap<(usize, usize), usize> = HashMap::new();
        for maker in 0..makers.len() {
            let mut stack = vec![makers[maker]];
            while let Some((chain, stage)) = stack.pop() {
                for target in self.chains[chain].stages[stage].ports.iter().flatten() {
                    let reached: Vec<(usize, usize)> = match *target {
                        Target::Stage(next, _) => vec![(chain, next)],
                        Target::Edge(edge) => {
                            let EdgeDef { to, entry, .. } = self.edges[edge];
                            let entry = self.chains[to].entries[entry].iter();
                            entry.filter_map(|target| if let Target::Stage(next, _) = *target { Some((to, next)) } else { None }).collect()
                        }
                    };
                    for next in reached.into_iter().filter(|next| !makers.contains(next)) {
                        match reached_by.insert(next, maker) {
                            None => stack.push(next),
                            Some(other) => {
                                let (from, to) = (meeting[maker], meeting[other]);
                                meeting.iter_mut().filter(|of| **of == from).for_each(|of| *of = to);
                            }
                        }
                    }
                }
            }
        }
        meeting
    }
}

impl ChainDef {
    /// Every list of targets, with the stage it belongs to.
    pub(crate) fn targets(&self) -> impl Iterator<Item = (Option<usize>, &Vec<Target>)> {
        let source = self.source.iter().map(|source| (None, &source.errors));
        let stages = self.stages.iter().enumerate().flat_map(|(index, stage)| {
            stage.ports.iter().chain(std::iter::once(&stage.errors)).map(move |targets| (Some(index), targets))
        });
        self.entries.iter().map(|entry| (None, entry)).chain(source).chain(stages)
    }
}
