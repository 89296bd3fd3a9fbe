//! Operators with several inputs: watermarks and ends of their own, one barrier, the same result under any schedule.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mill_protocol::{
    Batch, Epoch, Operator, Outbox, Progress, Restored, Result, Snapshot, Source, SplitId, TaskContext, Watermark,
    Watermarks,
};
use mill_runtime::{EdgeDef, EdgeKind, JobGraph, RunOptions, Status, Target, start};

use crate::exactly_once::World;
use crate::support::*;

const WAIT: Option<Duration> = Some(Duration::from_secs(30));
/// The weight of the second input in a sum of both, beyond any sum of the first.
const SECOND: i64 = 1_000_000_000;

/// Sums of both inputs by window, of which it keeps the time itself.
struct Pair {
    inner: WindowSum,
    times: Watermarks,
    has_ended: [bool; 2],
    /// Whether it wants no records of the first input before the second one has ended.
    is_in_turn: bool,
}

impl Pair {
    fn new(context: &TaskContext) -> Pair {
        Pair { inner: WindowSum::new(WINDOW, context), times: Watermarks::new(2), has_ended: [false; 2], is_in_turn: false }
    }
}

impl Operator for Pair {
    fn on_batch(&mut self, input: usize, batch: Batch, out: &mut Outbox) -> Result<Progress> {
        assert!(!self.has_ended[input], "a record after the end of input {input}");
        let weight = [1, SECOND][input];
        let rows: Vec<Vec<i64>> = rows_of(batch.data()).iter().map(|r| vec![r[0], r[1] * weight, r[2]]).collect();
        let times = batch.times().cloned();
        self.inner.on_batch(0, Batch::new(batch_of(&["key", "value", "time"], &rows)).with_times(times), out)
    }
    fn on_watermark(&mut self, input: usize, at: Watermark, out: &mut Outbox) -> Result<Progress> {
        assert!(at > self.times.of(input), "the watermark of input {input} went back to {at:?}");
        match self.times.advance(input, at) {
            Some(least) => self.inner.on_watermark(0, least, out),
            None => Ok(Progress::Done),
        }
    }
    fn on_input_end(&mut self, input: usize, _out: &mut Outbox) -> Result<Progress> {
        assert!(!std::mem::replace(&mut self.has_ended[input], true), "input {input} ended twice");
        assert_eq!(self.times.of(input), Watermark::MAX, "input {input} ended before its time");
        Ok(Progress::Done)
    }
    fn wants(&self, input: usize) -> bool {
        !self.is_in_turn || input == 1 || self.has_ended[1]
    }
    fn on_end(&mut self, _out: &mut Outbox) -> Result<Progress> {
        assert_eq!(self.has_ended, [true; 2]);
        Ok(Progress::Done)
    }
    fn resume(&mut self, out: &mut Outbox) -> Result<Progress> {
        self.inner.resume(out)
    }
    fn on_barrier(&mut self, epoch: Epoch, out: &mut Outbox) -> Result<Progress> {
        self.inner.on_barrier(epoch, out)
    }
    fn snapshot(&mut self, snapshot: &mut Snapshot) -> Result<()> {
        self.inner.snapshot(snapshot)
    }
    fn restore(&mut self, restored: &Restored) -> Result<()> {
        self.inner.restore(restored)
    }
}

/// Counts the records of the first input that come before the second one has ended.
struct InTurn {
    has_ended: bool,
    early: Arc<AtomicUsize>,
}

impl Operator for InTurn {
    fn on_batch(&mut self, input: usize, batch: Batch, out: &mut Outbox) -> Result<Progress> {
        if input == 0 && !self.has_ended {
            self.early.fetch_add(batch.rows(), Ordering::Relaxed);
        }
        out.push(batch);
        Ok(Progress::Done)
    }
    fn on_input_end(&mut self, input: usize, _out: &mut Outbox) -> Result<Progress> {
        self.has_ended |= input == 1;
        Ok(Progress::Done)
    }
    fn wants(&self, input: usize) -> bool {
        input == 1 || self.has_ended
    }
}

#[test]
fn records_of_an_input_that_is_not_wanted_stay_where_they_are() {
    let mut random = Random(5);
    let target = MemorySink::default();
    let early = Arc::new(AtomicUsize::new(0));
    let sources = [records(&mut random, 30_000, 50), records(&mut random, 5_000, 50)];
    let mut graph = JobGraph::default();
    for (number, rows) in sources.iter().enumerate() {
        let time = operator(&format!("time-{number}"), "time", vec![vec![Target::Edge(number)]], |_| EventTime::new(DELAY));
        let mut def = source(&format!("source-{number}"), MemorySource::new(Vec::new()));
        def.source = Arc::new(MemorySource::new(vec![rows.clone()])) as Arc<dyn Source>;
        graph.chains.push(chain(&format!("head-{number}"), 1, Some(def), vec![time]));
        let mut to_tail = edge(number, 2, EdgeKind::Hash(vec![0]));
        to_tail.entry = number;
        graph.edges.push(to_tail);
    }
    let counted = Arc::clone(&early);
    let mut pair = operator("pair", "pair", vec![vec![Target::Stage(1, 0)]], move |_| {
        InTurn { has_ended: false, early: Arc::clone(&counted) }
    });
    pair.inputs = 2;
    let mut tail = chain("tail", 2, None, vec![pair, sink("sink", &target)]);
    tail.entries = vec![vec![Target::Stage(0, 0)], vec![Target::Stage(0, 1)]];
    graph.chains.push(tail);
    let job = start(graph, options()).unwrap();
    assert_eq!(job.wait(WAIT).unwrap().unwrap().status, Status::Finished);
    assert_eq!(target.sorted().len(), 35_000);
    assert_eq!(early.load(Ordering::Relaxed), 0);
}

/// Passes everything on.
struct Pass;

impl Operator for Pass {
    fn on_batch(&mut self, _input: usize, batch: Batch, out: &mut Outbox) -> Result<Progress> {
        out.push(batch);
        Ok(Progress::Done)
    }
}

/// How the sources lead to the two inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// Each has an edge to an input of its own.
    Edges,
    /// The first one leads there by way of another stage.
    Through,
    /// All come by one edge and go to both inputs.
    Both,
    /// The first two are one input, the third the other.
    Union,
    /// Each has an edge to an input of its own, of which the first is not wanted before the second has ended.
    InTurn,
}

fn graph(shape: Shape, sources: Vec<MemorySource>, parallelism: [usize; 2], target: &MemorySink) -> JobGraph {
    let tail = sources.len();
    let mut graph = JobGraph::default();
    for (number, from) in sources.into_iter().enumerate() {
        let name = format!("time-{number}");
        let time = operator(&name, "time", vec![vec![Target::Edge(number)]], |_| EventTime::new(DELAY));
        let mut def = source(&format!("source-{number}"), MemorySource::new(Vec::new()));
        def.source = Arc::new(from) as Arc<dyn Source>;
        graph.chains.push(chain(&format!("head-{number}"), parallelism[0], Some(def), vec![time]));
        let mut to_tail = edge(number, tail, EdgeKind::Hash(vec![0]));
        to_tail.entry = match shape {
            Shape::Edges | Shape::Through | Shape::InTurn => number,
            Shape::Both => 0,
            Shape::Union => number / 2,
        };
        graph.edges.push(to_tail);
    }
    let first = usize::from(shape == Shape::Through);
    let mut pair = operator("pair", "pair", vec![vec![Target::Stage(first + 1, 0)]], move |context| {
        Pair { is_in_turn: shape == Shape::InTurn, ..Pair::new(context) }
    });
    pair.inputs = 2;
    let mut stages = vec![pair, sink("sink", target)];
    if shape == Shape::Through {
        stages.insert(0, operator("pass", "", vec![vec![Target::Stage(1, 0)]], |_| Pass));
    }
    let mut def = chain("tail", parallelism[1], None, stages);
    def.entries = match shape {
        Shape::Edges | Shape::Union | Shape::InTurn => vec![vec![Target::Stage(0, 0)], vec![Target::Stage(0, 1)]],
        Shape::Through => vec![vec![Target::Stage(0, 0)], vec![Target::Stage(1, 1)]],
        Shape::Both => vec![vec![Target::Stage(0, 0), Target::Stage(0, 1)]],
    };
    graph.chains.push(def);
    graph
}

/// The records that input 0 and input 1 get, the latter with their weight.
fn expected_sums(shape: Shape, sources: &[Vec<Vec<Record>>]) -> Vec<Vec<i64>> {
    let mut splits = Vec::new();
    for (number, source) in sources.iter().enumerate() {
        let is_second = [number == 1, number == 1, true, number == 2, number == 1][shape as usize];
        for split in source {
            if shape == Shape::Both || !is_second {
                splits.push(split.clone());
            }
            if is_second {
                splits.push(split.iter().map(|(key, value, time)| (*key, value * SECOND, *time)).collect());
            }
        }
    }
    expected(&splits).0
}

#[test]
fn two_inputs_are_the_same_under_any_schedule_with_kills() {
    for seed in 0..300 {
        let mut random = Random(seed);
        let shape = [Shape::Edges, Shape::Through, Shape::Both, Shape::Union, Shape::InTurn][seed as usize % 5];
        let count = match shape {
            Shape::Edges | Shape::Through | Shape::InTurn => 2,
            Shape::Both => 1,
            Shape::Union => 3,
        };
        // Some inputs are empty or end long before the others.
        let mut sources: Vec<Vec<Vec<Record>>> = Vec::new();
        for _ in 0..count {
            let most = [1, 10, 90][random.below(3) as usize];
            let splits = (0..1 + random.below(2)).map(|_| random.below(most)).collect::<Vec<_>>();
            sources.push(splits.into_iter().map(|rows| records(&mut random, rows, 6)).collect());
        }
        let mut world = World::new();
        let mut kills = 0;
        loop {
            let made = sources.iter().map(|splits| {
                let mut source = MemorySource::new(splits.clone());
                source.hesitates = random.below(2) == 0;
                source.rows_max = 1 + random.below(6) as usize;
                source
            });
            let made = made.collect();
            let parallelism = [1 + random.below(3), 1 + random.below(3)].map(|p| p as usize);
            let options = world.options(random.below(u64::MAX));
            let job = start(graph(shape, made, parallelism, &world.sinks[0]), options).unwrap();
            let steps = if kills < 5 { random.below(900) } else { u64::MAX };
            if job.run_steps(steps) {
                let report = job.wait(None).unwrap();
                let report = report.unwrap_or_else(|error| panic!("seed {seed}, {shape:?}: {error}"));
                assert_eq!(report.status, Status::Finished, "seed {seed}");
                break;
            }
            kills += 1;
            drop(job);
            world.disk = Arc::new(world.disk.after_kill());
        }
        assert_eq!(world.sinks[0].sorted(), expected_sums(shape, &sources), "seed {seed}, {shape:?}");
    }
}

#[test]
fn two_inputs_on_threads() {
    for parallelism in 1..=3 {
        for shape in [Shape::Edges, Shape::Through, Shape::InTurn] {
            let mut random = Random(parallelism as u64);
            let sources = [records(&mut random, 2000, 50), records(&mut random, 30, 50)].map(|rows| vec![rows]);
            let target = MemorySink::default();
            let made = sources.iter().map(|splits| MemorySource::new(splits.clone())).collect();
            let graph = graph(shape, made, [parallelism, parallelism], &target);
            let job = start(graph, options()).unwrap();
            assert_eq!(job.wait(WAIT).unwrap().unwrap().status, Status::Finished);
            assert_eq!(target.sorted(), expected_sums(shape, &sources), "parallelism {parallelism}, {shape:?}");
        }
    }
}

/// Event times of an input that is idle as soon as it has nothing to read.
struct Idling {
    inner: EventTime,
    at: i64,
    is_quiet: bool,
}

impl Operator for Idling {
    fn on_batch(&mut self, input: usize, batch: Batch, out: &mut Outbox) -> Result<Progress> {
        self.is_quiet = false;
        let latest = rows_of(batch.data()).iter().map(|row| row[2]).max();
        self.at = self.at.max(latest.unwrap_or(i64::MIN));
        self.inner.on_batch(input, batch, out)
    }
    fn makes_watermarks(&self) -> bool {
        true
    }
    fn on_splits(&mut self, open: &[SplitId], out: &mut Outbox) -> Result<()> {
        self.inner.on_splits(open, out)
    }
    fn on_quiet(&mut self, _split: SplitId) {
        self.is_quiet = true;
    }
    fn next_time(&self) -> Option<i64> {
        self.is_quiet.then_some(0)
    }
    fn on_time(&mut self, _now: i64, out: &mut Outbox) -> Result<Progress> {
        self.is_quiet = false;
        out.quiet(Watermark(self.at), true);
        Ok(Progress::Done)
    }
    fn follow(&mut self, at: Watermark) {
        self.inner.follow(at);
    }
}

#[test]
fn an_input_that_goes_idle_does_not_hold_up_the_other() {
    for parallelism in 1..=3 {
        let rows = [20, 100].map(|rows: i64| (0..rows).map(|time| (time % 5, 1, time)).collect::<Vec<Record>>());
        let target = MemorySink::default();
        let mut sources: Vec<MemorySource> = rows.iter().map(|rows| MemorySource::new(vec![rows.clone()])).collect();
        sources.iter_mut().for_each(|source| source.is_bounded = false);
        let mut graph = graph(Shape::Edges, sources, [1, parallelism], &target);
        let idling = |name: &str, edge: usize| {
            let make = |_: &TaskContext| Idling { inner: EventTime::new(DELAY), at: i64::MIN, is_quiet: false };
            operator(name, "time", vec![vec![Target::Edge(edge)]], make)
        };
        graph.chains[0].stages[0] = idling("time-0", 0);
        let interval = Some(Duration::from_millis(5));
        let job = start(graph, RunOptions { interval, ..options() }).unwrap();
        // The second input stays at 94: windows up to 80 are complete.
        let sums = rows.map(|rows| vec![rows.into_iter().filter(|row| row.2 < 80).collect::<Vec<Record>>()]);
        let expected = expected_sums(Shape::Edges, &sums);
        while target.sorted().len() < expected.len() {
            assert!(!job.status().is_over());
            std::thread::yield_now();
        }
        assert_eq!(target.sorted(), expected);
        job.cancel();
    }
}

/// Waits for its first input alone, and emits each watermark of it as a row.
struct FirstAlone;

impl Operator for FirstAlone {
    fn on_batch(&mut self, _input: usize, _batch: Batch, _out: &mut Outbox) -> Result<Progress> {
        Ok(Progress::Done)
    }
    fn combine(&self, times: &Watermarks) -> Watermark {
        times.of(0)
    }
}

/// Emits each watermark as a row.
struct Seen;

impl Operator for Seen {
    fn on_batch(&mut self, _input: usize, _batch: Batch, _out: &mut Outbox) -> Result<Progress> {
        Ok(Progress::Done)
    }
    fn on_watermark(&mut self, _input: usize, at: Watermark, out: &mut Outbox) -> Result<Progress> {
        out.push(Batch::new(batch_of(&["watermark"], &[vec![at.0]])));
        Ok(Progress::Done)
    }
}

#[test]
fn an_operator_combines_watermarks_by_its_own_rule() {
    let rows: Vec<Record> = (0..100).map(|time| (0, 1, time)).collect();
    let target = MemorySink::default();
    let mut sources = vec![MemorySource::new(vec![rows]), MemorySource::new(vec![vec![(0, 1, 3)]])];
    sources.iter_mut().for_each(|source| source.is_bounded = false);
    let mut graph = graph(Shape::Edges, sources, [1, 1], &target);
    let mut first = operator("first", "", vec![vec![Target::Stage(1, 0)]], |_| FirstAlone);
    first.inputs = 2;
    let seen = operator("seen", "", vec![vec![Target::Stage(2, 0)]], |_| Seen);
    graph.chains[2].stages = vec![first, seen, sink("sink", &target)];
    let interval = Some(Duration::from_millis(5));
    let job = start(graph, RunOptions { interval, ..options() }).unwrap();
    while target.sorted().last() != Some(&vec![99 - DELAY]) {
        assert!(!job.status().is_over());
        std::thread::yield_now();
    }
    job.cancel();
}

#[test]
fn inputs_and_entries_that_cannot_be_are_refused() {
    let made = || {
        let sources = vec![MemorySource::new(vec![vec![]]), MemorySource::new(vec![vec![]])];
        graph(Shape::Edges, sources, [1, 1], &MemorySink::default())
    };
    assert!(made().check().is_ok());
    let cases: [(fn(&mut JobGraph), &str); 6] = [
        (|graph| graph.chains[2].entries[1] = vec![Target::Stage(0, 2)], "nothing leads to input 1 of \"pair\""),
        (|graph| graph.chains[2].entries[1].push(Target::Stage(0, 2)), "has a target Stage(0, 2) that cannot be"),
        (|graph| graph.edges[1].entry = 2, "nothing leads to entry 1"),
        (|graph| graph.edges.push(EdgeDef { entry: 2, ..graph.edges[0].clone() }), "leads to entry 2 of chain \"tail\", which has 2"),
        (|graph| graph.chains[2].stages[0].inputs = 1, "has a target Stage(0, 1) that cannot be"),
        (|graph| graph.chains[2].stages[1].inputs = 2, "the sink \"sink\" has 2 inputs"),
    ];
    for (spoil, expected) in cases {
        let mut graph = made();
        spoil(&mut graph);
        let error = graph.check().unwrap_err();
        assert!(error.message().contains(expected), "{error}");
    }
}
