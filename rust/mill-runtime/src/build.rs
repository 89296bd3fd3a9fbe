//! From the graph to tasks: operators are made, stages wired, queues laid.
//!
//! Task i of a chain goes to worker `(offset + i) % workers`. The offset is 0 for a chain that fills all workers, so that
//! what is forwarded stays on its core; narrower chains are distributed one after another, so that not all of them end up
//! on the first worker. A chain after a forward edge is on the worker of its producer.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use mill_frame::hash::groups_of_task;
use mill_protocol::{Alignment, Clock, Error, Result, SplitId, SplitState, TaskContext};
use mill_snapshot::TaskId;
use parking_lot::Mutex;

use crate::alignment::AlignmentBoard;
use crate::chain::{Chain, ChainContext, Route, Routes};
use crate::channel::{Receiver, Sender, WorkerRef, channel};
use crate::discovered::Discovered;
use crate::edge_writer::EdgeWriter;
use crate::graph::{ChainDef, EdgeKind, JobGraph, SourceDef, StageBody, StageDef, Target};
use crate::held::{HeldNote, HeldStep, HeldWriter};
use crate::input::Input;
use crate::input_log::InputLog;
use crate::merge::Merge;
use crate::metrics::{Level, RegisteredStep, Registry, StageCounters};
use crate::options::{Mode, OnError};
use crate::portion::{Allowance, TaskPortion};
use crate::reader::ReadRows;
use crate::rebuild::{OperatorParts, Origins, Rebuild};
use crate::recovery::Recovery;
use crate::shared::Shared;
use crate::source_task::{SourceContext, SourceTask};
use crate::stage::{Body, Stage};
use crate::task::{Alone, SourceInput, Task, TaskInput};
use crate::time_board::TimeBoard;
use crate::wake::StageWake;

/// How much tasks that can go back alone keep for that, all together, and each at least. A log that gets longer is given up until the
/// next checkpoint, and one that is half as long asks for one.
const LOG_BYTES: usize = 1 << 30;
const LOG_BYTES_MIN: usize = 16 << 20;

/// Builds the tasks of a job.
pub(crate) struct TaskBuilder<'a> {
    pub(crate) graph: &'a JobGraph,
    pub(crate) mode: Mode,
    pub(crate) on_error: OnError,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) frame_rows: usize,
    pub(crate) queue_capacity: usize,
    /// Whether snapshots are stored.
    pub(crate) is_persistent: bool,
    /// Whether everything runs on the caller's thread.
    pub(crate) is_by_hand: bool,
    /// Whether the clock stands still while the job runs.
    pub(crate) is_time_held: bool,
    pub(crate) workers: Vec<WorkerRef>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) recovery: &'a Recovery,
    /// What tasks go back to that go back alone.
    pub(crate) origins: Option<Arc<Origins>>,
}

/// The tasks of a job, each with its worker.
pub(crate) struct Built {
    pub(crate) tasks: Vec<(usize, Task)>,
    pub(crate) ids: Vec<TaskId>,
    pub(crate) registry: Registry,
}

impl TaskBuilder<'_> {
    /// Makes all tasks.
    ///
    /// # Errors
    /// When an operator, a sink or a source cannot be opened or restored.
    pub(crate) fn build(&self) -> Result<Built> {
        let offsets = self.offsets();
        let worker_of = |chain: usize, index: usize| (offsets[chain] + index) % self.workers.len();
        let mut senders: HashMap<(usize, usize), Vec<Sender>> = HashMap::new();
        let mut receivers: HashMap<(usize, usize), Vec<(usize, Receiver)>> = HashMap::new();
        let mut allowances: HashMap<(usize, usize), Arc<Allowance>> = HashMap::new();
        for (edge_index, edge) in self.graph.edges.iter().enumerate() {
            let consumers = self.graph.chains[edge.to].parallelism;
            for from in 0..self.graph.chains[edge.from].parallelism {
                let to = match edge.kind {
                    EdgeKind::Forward => from..from + 1,
                    EdgeKind::Gather => 0..1,
                    EdgeKind::Hash(_) | EdgeKind::Rebalance | EdgeKind::Broadcast => 0..consumers,
                };
                for to in to {
                    let producer = &self.workers[worker_of(edge.from, from)];
                    let consumer = &self.workers[worker_of(edge.to, to)];
                    let allowance = allowances.entry((edge.to, to)).or_insert_with(Allowance::unlimited);
                    let (send, receive) = channel(self.queue_capacity, producer, consumer, allowance);
                    senders.entry((edge_index, from)).or_default().push(send);
                    receivers.entry((edge.to, to)).or_default().push((edge.entry, receive));
                }
            }
        }
        let mut built = Built { tasks: Vec::new(), ids: Vec::new(), registry: Registry::default() };
        for edge in &self.graph.edges {
            let name = |chain: usize| self.graph.chains[chain].name.clone();
            built.registry.edges.push((name(edge.from), name(edge.to), self.queue_capacity, Vec::new()));
        }
        let codes = self.user_codes();
        let mut sinks = 0;
        for (chain_index, chain) in self.graph.chains.iter().enumerate() {
            self.register(chain, &mut built.registry);
            let begun_with = self.begin(chain)?;
            for index in 0..chain.parallelism {
                let worker = worker_of(chain_index, index);
                let inputs = receivers.remove(&(chain_index, index)).unwrap_or_default();
                let allowance = allowances.remove(&(chain_index, index)).map(|allowance| (allowance, inputs.len()));
                let place = Place { chain: chain_index, index, worker, sinks, code: codes[chain_index], allowance };
                let task = self.task(place, inputs, &begun_with, &mut senders, &mut built)?;
                let parallelism = chain.parallelism as u32;
                built.ids.push(TaskId { chain: chain.name.clone(), index: index as u32, parallelism });
                built.tasks.push((worker, task));
            }
            sinks += chain.stages.iter().filter(|stage| matches!(stage.body, StageBody::Sink { .. })).count();
        }
        self.lay_time_boards(&mut built, &worker_of);
        self.lay_alignment_boards(&mut built);
        let hints = self.graph.chains.iter().filter_map(|chain| chain.source.as_ref());
        built.registry.rows_total = hints.map(|source| source.source.rows_hint()).sum();
        Ok(built)
    }

    /// Connects the makers of watermarks whose streams meet to a common board.
    fn lay_time_boards(&self, built: &mut Built, worker_of: &dyn Fn(usize, usize) -> usize) {
        let (tasks, registry) = (&mut built.tasks, &mut built.registry);
        let mut first_tasks = Vec::with_capacity(self.graph.chains.len());
        let mut makers = Vec::new();
        let mut next = 0;
        for (chain, def) in self.graph.chains.iter().enumerate() {
            first_tasks.push(next);
            let stages = tasks[next].1.chain.stages.iter().enumerate();
            makers.extend(stages.filter(|(_, stage)| stage.makes_watermarks()).map(|(stage, _)| (chain, stage)));
            next += def.parallelism;
        }
        let mut boards: HashMap<usize, Arc<TimeBoard>> = HashMap::new();
        for (&(chain, stage), meeting) in makers.iter().zip(self.graph.meetings(&makers)) {
            let parallelism = self.graph.chains[chain].parallelism;
            let unparkers = (0..parallelism).map(|index| self.workers[worker_of(chain, index)].unparker.clone()).collect();
            let uid = &self.graph.chains[chain].stages[stage].uid;
            if let Some(held) = registry.held.iter_mut().find(|held| registry.steps[held.step].uid == *uid) {
                held.meeting = meeting;
            }
            let waits_for_all = |source: &SourceDef| source.source.properties().is_bounded && !source.source.marks_idle();
            let waits_for_all = self.graph.chains[chain].source.as_ref().is_none_or(waits_for_all);
            let is_shared = !waits_for_all || tasks[first_tasks[chain]].1.chain.stages[stage].passes_over_splits();
            let slots = boards.entry(meeting).or_default().add_input(unparkers, is_shared && parallelism > 1);
            for (index, slot) in slots.into_iter().enumerate() {
                tasks[first_tasks[chain] + index].1.chain.stages[stage].slot = Some(slot);
            }
        }
    }

    /// Connects the tasks whose splits keep together to a common board.
    fn lay_alignment_boards(&self, built: &mut Built) {
        let mut boards: HashMap<Arc<str>, Arc<AlignmentBoard>> = HashMap::new();
        for (worker, task) in &mut built.tasks {
            let TaskInput::Source(_) = &task.input else { continue };
            let aligned = task.chain.stages.iter().enumerate().find_map(|(index, stage)| Some((index, stage.alignment()?)));
            let Some((index, Alignment { group, drift_us_max })) = aligned else { continue };
            let stage = &task.chain.stages[index];
            let slot = boards.entry(group).or_default().add(&stage.name, drift_us_max, self.workers[*worker].unparker.clone());
            let registry = &mut built.registry;
            let step = registry.steps.iter().position(|step| *step.uid == *stage.uid).expect("every step was registered");
            match registry.aligned.iter_mut().find(|aligned| aligned.0 == step) {
                Some(aligned) => aligned.2.push(slot.entry()),
                None => registry.aligned.push((step, Arc::clone(slot.board()), vec![slot.entry()])),
            }
            task.aligned = Some((index, slot));
        }
    }

    fn offsets(&self) -> Vec<usize> {
        let mut next = 0;
        let mut offsets = vec![0; self.graph.chains.len()];
        for (index, chain) in self.graph.chains.iter().enumerate() {
            let forward = self.graph.edges.iter().find(|edge| edge.to == index && edge.kind == EdgeKind::Forward);
            if let Some(edge) = forward {
                offsets[index] = offsets[edge.from];
            } else if chain.parallelism % self.workers.len() != 0 {
                offsets[index] = next;
                next += chain.parallelism;
            }
        }
        offsets
    }

    /// What each chain has to know of the user's code, its own and that of the chains after it.
    fn user_codes(&self) -> Vec<ChainCode> {
        let own = |chain: &ChainDef| {
            let codes = || chain.stages.iter().filter_map(|stage| stage.user_code);
            let rows_first = codes().map(|code| code.batch_rows.unwrap_or(code.rows_first)).min();
            let unit = codes().filter_map(|code| code.batch_rows).max();
            let unit = unit.unwrap_or(1).clamp(1, self.frame_rows);
            ChainCode { rows_first: rows_first.unwrap_or(usize::MAX).max(1), unit }
        };
        let mut codes: Vec<ChainCode> = self.graph.chains.iter().map(own).collect();
        // A graph without circles is through after as many rounds as it has chains.
        for _ in 0..codes.len() {
            for edge in &self.graph.edges {
                let after = codes[edge.to];
                let code = &mut codes[edge.from];
                code.rows_first = code.rows_first.min(after.rows_first);
                code.unit = code.unit.max(after.unit);
            }
        }
        codes
    }

    fn register(&self, chain: &ChainDef, registry: &mut Registry) {
        let registered = |uid: &str, name: &str, step: &str| RegisteredStep {
            uid: uid.to_owned(),
            name: name.to_owned(),
            step: step.to_owned(),
            counters: Vec::new(),
        };
        if let Some(source) = &chain.source {
            registry.sources.push(registry.steps.len());
            registry.steps.push(registered(&source.uid, &source.name, &source.name));
        }
        for stage in &chain.stages {
            registry.steps.push(registered(&stage.uid, &stage.name, &stage.step));
        }
    }

    /// The splits that a chain's source begins with, once for all its tasks.
    fn begin(&self, chain: &ChainDef) -> Result<BegunWith> {
        let Some(SourceDef { uid, name, source, is_ordered, .. }) = &chain.source else { return Ok(BegunWith::default()) };
        let begin = || {
            let left: Vec<SplitState> = self.recovery.positions(uid)?.into_values().collect();
            let is_complete = self.recovery.restored_id().is_some() && source.properties().is_bounded;
            let has_ended = is_complete && left.iter().all(|state| state.is_ended);
            let states = match left.is_empty() {
                true => source.splits(*is_ordered)?.into_iter().map(SplitState::unread).collect(),
                // An input that has been read to its end stays so, whatever has come to it since.
                false if has_ended => left,
                false => source.resume(*is_ordered, left)?,
            };
            let ids: HashSet<SplitId> = states.iter().map(|state| state.split.id).collect();
            if ids.len() < states.len() {
                return Err(Error::connector(format!("{} names a split twice", source.name())));
            }
            let discovered = Discovered::of(source, *is_ordered, &states, chain.parallelism)?;
            Ok(BegunWith { states, discovered })
        };
        begin().map_err(|error: Error| error.in_step(name))
    }

    fn task(
        &self,
        place: Place,
        inputs: Vec<(usize, Receiver)>,
        begun_with: &BegunWith,
        senders: &mut HashMap<(usize, usize), Vec<Sender>>,
        built: &mut Built,
    ) -> Result<Task> {
        let Place { chain: chain_index, index, worker, mut sinks, code, allowance } = place;
        let chain = &self.graph.chains[chain_index];
        let registry = &mut built.registry;
        let counters = |registry: &mut Registry, uid: &str| {
            let counters = Arc::new(StageCounters::default());
            let step = registry.steps.iter_mut().find(|step| step.uid == uid);
            step.expect("every step was registered").counters.push(Arc::clone(&counters));
            counters
        };
        let mut wiring = Wiring::new(chain, &self.graph.edges.iter().map(|edge| edge.from).collect::<Vec<_>>(), chain_index);
        let source_errors = chain.source.as_ref().map(|source| wiring.routes(&source.errors)).unwrap_or_default();
        let entries = chain.entries.iter().map(|targets| wiring.routes(targets)).collect();
        let entry = Routes { ports: entries, errors: source_errors };
        let mut routes = Vec::new();
        for stage in &chain.stages {
            let ports = stage.ports.iter().map(|targets| wiring.routes(targets)).collect();
            routes.push(Routes { ports, errors: wiring.routes(&stage.errors) });
        }
        let mut stages = Vec::new();
        let mut wakes = Vec::new();
        for (stage_index, stage) in chain.stages.iter().enumerate() {
            let wake = Arc::new(StageWake::new(self.workers[worker].unparker.clone()));
            let body = self.body(stage, chain, index, &mut sinks, &wake).map_err(|error| error.in_step(&stage.step))?;
            wakes.push(Arc::clone(&wake));
            let uid: Arc<str> = stage.uid.as_str().into();
            let counters = counters(registry, &stage.uid);
            let channels = std::mem::take(&mut wiring.stage_channels[stage_index]);
            let mut stage_run = Stage::new(uid, stage.step.clone(), body, stage.inputs, channels, counters, wake);
            stage_run.set_persistent(self.is_persistent);
            if let Some(code) = stage.user_code {
                stage_run.set_user_code(code);
            }
            if self.recovery.is_ended(&stage.uid) {
                stage_run.set_was_ended();
            }
            stages.push(stage_run);
        }
        let mut writers = Vec::new();
        let mut fills = Vec::new();
        for (writer, &edge_index) in wiring.edges.iter().enumerate() {
            let edge = &self.graph.edges[edge_index];
            let queues = senders.remove(&(edge_index, index)).expect("every edge was laid");
            let edge_writer = EdgeWriter::new(edge.kind.clone(), queues, index, self.frame_rows);
            writers.push((edge_writer, Merge::new(1, vec![0; wiring.writer_channels[writer]])));
            let level = Arc::new(Level::default());
            registry.edges[edge_index].3.push(Arc::clone(&level));
            fills.push(level);
        }
        let context = ChainContext { on_error: self.on_error, clock: Arc::clone(&self.clock) };
        let input = match &chain.source {
            None => TaskInput::Channels(Input::new(chain.entries.len(), inputs, self.mode.is_aligned())),
            Some(source) => {
                let may_block = source.source.properties().may_block && !self.is_by_hand;
                let context = SourceContext {
                    source: Arc::clone(&source.source),
                    index,
                    parallelism: chain.parallelism,
                    rows: ReadRows::new(self.frame_rows),
                    clock: Arc::clone(&self.clock),
                    is_time_held: self.is_time_held,
                    wake: may_block.then(|| self.workers[worker].clone()),
                    discovered: begun_with.discovered.clone(),
                    owner: self.shared.owner,
                    is_aligned: stages.iter().any(|stage| stage.alignment().is_some()),
                };
                let task = SourceTask::new(context, &begun_with.states);
                TaskInput::Source(SourceInput {
                    uid: source.uid.as_str().into(),
                    name: source.name.clone(),
                    task,
                    counters: counters(registry, &source.uid),
                    told: Arc::clone(&registry.notes),
                    notes: self.recovery.notes(&source.uid),
                })
            }
        };
        let held = self.held(chain, &stages, registry);
        let mut chain_run = Chain::new(stages, routes, writers, entry, context);
        let alone = self.alone(chain, index, &mut chain_run, wakes);
        let name = format!("{}-{index}", chain.name);
        let number = built.tasks.len();
        let portion = TaskPortion::new(code.rows_first, code.unit, self.frame_rows);
        let shared = Arc::clone(&self.shared);
        let mut task = Task::new(number, name, chain_run, input, shared, self.is_persistent, fills, held, portion, allowance);
        task.alone = alone;
        Ok(task)
    }

    /// How a task goes back alone, if it can; its chain keeps a log then.
    fn alone(&self, chain: &ChainDef, index: usize, run: &mut Chain, wakes: Vec<Arc<StageWake>>) -> Option<Alone> {
        let origins = self.origins.as_ref().filter(|_| run.stages.iter().all(Stage::can_replay))?;
        let tasks: usize = self.graph.chains.iter().map(|chain| chain.parallelism).sum();
        let bytes_max = (LOG_BYTES / tasks).max(LOG_BYTES_MIN);
        let marks = run.stages.iter().map(Stage::mark).collect();
        let has_state = !run.stages.iter().all(Stage::is_stateless);
        let published = Arc::clone(&self.shared.published);
        run.log = Some(Box::new(InputLog::new(origins.first_id(), marks, has_state, bytes_max, published)));
        let parts = |(stage, wake): (&StageDef, &Arc<StageWake>)| match &stage.body {
            StageBody::Operator(make) => Some(OperatorParts {
                uid: stage.uid.clone(),
                step: stage.step.clone(),
                make: Arc::clone(make),
                context: self.context(stage, chain, index, wake),
            }),
            StageBody::Sink { .. } => None,
        };
        run.stages.iter_mut().for_each(Stage::set_logged);
        let parts = chain.stages.iter().zip(&wakes).map(parts).collect();
        Some(Alone::new(Rebuild::new(Arc::clone(origins), parts, has_state)))
    }

    fn context(&self, stage: &StageDef, chain: &ChainDef, index: usize, wake: &Arc<StageWake>) -> TaskContext {
        TaskContext {
            step: stage.step.clone(),
            index,
            parallelism: chain.parallelism,
            threads: self.workers.len(),
            groups: groups_of_task(index, chain.parallelism),
            is_persistent: self.is_persistent,
            waker: Arc::clone(wake).into(),
        }
    }

    /// The stages of a task that make watermarks of an unbounded source, each with a note of its own.
    fn held(&self, chain: &ChainDef, stages: &[Stage], registry: &mut Registry) -> Vec<(usize, HeldWriter)> {
        let is_unbounded = chain.source.as_ref().is_some_and(|source| !source.source.properties().is_bounded);
        let makers = stages.iter().enumerate().filter(|(_, stage)| is_unbounded && stage.makes_watermarks());
        let writers = makers.map(|(index, stage)| {
            let note = Arc::new(HeldNote::default());
            let step = registry.steps.iter().position(|step| *step.uid == *stage.uid).expect("every step was registered");
            match registry.held.iter_mut().find(|held| held.step == step) {
                Some(held) => held.notes.push(Arc::clone(&note)),
                // Which inputs it meets is known once all tasks are there.
                None => registry.held.push(HeldStep { step, meeting: step, notes: vec![Arc::clone(&note)], seen: Mutex::default() }),
            }
            (index, HeldWriter::new(note))
        });
        writers.collect()
    }

    fn body(
        &self,
        stage: &StageDef,
        chain: &ChainDef,
        index: usize,
        sinks: &mut usize,
        wake: &Arc<StageWake>,
    ) -> Result<Body> {
        let context = self.context(stage, chain, index, wake);
        match &stage.body {
            StageBody::Operator(make) => {
                let mut operator = make(&context)?;
                if let Some(restored) = self.recovery.restored(&stage.uid, context.groups.clone()) {
                    operator.restore(&restored)?;
                }
                Ok(Body::Operator(operator))
            }
            StageBody::Sink { sink, schema } => {
                let writer = sink.writer(schema, &context)?;
                *sinks += 1;
                Ok(Body::Sink(*sinks - 1, writer))
            }
        }
    }
}

/// The splits that a source begins with, and what finds others.
#[derive(Default)]
struct BegunWith {
    states: Vec<SplitState>,
    discovered: Option<Arc<Discovered>>,
}

/// The worker of a task.
struct Place {
    chain: usize,
    index: usize,
    worker: usize,
    /// How many sinks the chains before have.
    sinks: usize,
    code: ChainCode,
    /// What its producers may send, over so many channels.
    allowance: Option<(Arc<Allowance>, usize)>,
}

/// What is known of the user's code in a chain and in those that its records go on to.
#[derive(Clone, Copy)]
struct ChainCode {
    /// How many records are taken at once at first.
    rows_first: usize,
    /// How many of them the user wants to have together.
    unit: usize,
}

/// Numbers the channels into stages and writers while routes are laid to them.
struct Wiring {
    /// For each stage, for each channel the input that it leads to.
    stage_channels: Vec<Vec<usize>>,
    /// For each writer how many channels lead to it.
    writer_channels: Vec<usize>,
    /// The edges that leave this chain, in the order of their writers.
    edges: Vec<usize>,
}

impl Wiring {
    fn new(chain: &ChainDef, edge_from: &[usize], chain_index: usize) -> Wiring {
        let edges: Vec<usize> = (0..edge_from.len()).filter(|&edge| edge_from[edge] == chain_index).collect();
        Wiring { stage_channels: vec![Vec::new(); chain.stages.len()], writer_channels: vec![0; edges.len()], edges }
    }

    fn routes(&mut self, targets: &[Target]) -> Vec<Route> {
        let route = |target: &Target| match *target {
            Target::Stage(stage, input) => {
                self.stage_channels[stage].push(input);
                Route::Stage { stage, channel: self.stage_channels[stage].len() - 1 }
            }
            Target::Edge(edge) => {
                let writer = self.edges.iter().position(|&own| own == edge).expect("the graph was checked");
                self.writer_channels[writer] += 1;
                Route::Writer { writer, channel: self.writer_channels[writer] - 1 }
            }
        };
        targets.iter().map(route).collect()
    }
}
