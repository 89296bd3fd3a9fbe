//! Steps that wait for something outside and are woken.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::thread;
use std::time::{Duration, Instant};

use arrow::datatypes::SchemaRef;
use mill_protocol::{
    Batch, Committer, Epoch, Operator, Outbox, PreCommit, Progress, Result, Sink, SinkKind, SinkWriter, TaskContext,
    Watermark,
};
use mill_runtime::{EdgeKind, JobGraph, RunOptions, Status, Target, start};

use crate::exactly_once::World;
use crate::support::*;

const WAIT: Option<Duration> = Some(Duration::from_secs(30));

/// Hands each batch to a thread that answers after a pause, or never.
struct Asking {
    answer: Arc<Mutex<Option<Batch>>>,
    pause: Option<Duration>,
    waker: Waker,
    resumes: Arc<AtomicUsize>,
}

impl Asking {
    fn new(pause: Option<Duration>, context: &TaskContext, resumes: &Arc<AtomicUsize>) -> Asking {
        Asking { answer: Arc::default(), pause, waker: context.waker.clone(), resumes: resumes.clone() }
    }
}

impl Operator for Asking {
    fn on_batch(&mut self, _input: usize, batch: Batch, _out: &mut Outbox) -> Result<Progress> {
        assert!(self.answer.lock().unwrap().is_none(), "an event entered while the step was pending");
        if let Some(pause) = self.pause {
            let (answer, waker) = (self.answer.clone(), self.waker.clone());
            thread::spawn(move || {
                thread::sleep(pause);
                *answer.lock().unwrap() = Some(batch);
                waker.wake();
            });
        }
        Ok(Progress::Pending)
    }
    fn resume(&mut self, out: &mut Outbox) -> Result<Progress> {
        self.resumes.fetch_add(1, Ordering::Relaxed);
        match self.answer.lock().unwrap().take() {
            Some(batch) => out.push(batch),
            None => return Ok(Progress::Pending),
        }
        Ok(Progress::Done)
    }
}

fn graph(from: MemorySource, parallelism: usize, pause: Option<Duration>, target: &MemorySink) -> (JobGraph, Arc<AtomicUsize>) {
    let resumes = Arc::new(AtomicUsize::new(0));
    let counted = resumes.clone();
    let asking = operator("asking", "", vec![vec![Target::Stage(1, 0)]], move |context| Asking::new(pause, context, &counted));
    let time = operator("time", "", vec![vec![Target::Edge(0)]], |_| EventTime::new(0));
    let graph = JobGraph {
        chains: vec![
            chain("head", 1, Some(source("source", from)), vec![time]),
            chain("tail", parallelism, None, vec![asking, sink("sink", target)]),
        ],
        edges: vec![edge(0, 1, EdgeKind::Hash(vec![0]))],
    };
    (graph, resumes)
}

fn records(rows: i64) -> Vec<Record> {
    (0..rows).map(|i| (i % 7, i, i)).collect()
}

#[test]
fn an_answer_of_another_thread_wakes_the_step() {
    for parallelism in 1..=3 {
        for seed in [None, Some(3)] {
            let target = MemorySink::default();
            let pause = Some(Duration::from_millis(50));
            let (graph, resumes) = graph(MemorySource::new(vec![records(28)]), parallelism, pause, &target);
            let job = start(graph, RunOptions { schedule_seed: seed, ..options() }).unwrap();
            assert_eq!(job.wait(WAIT).unwrap().unwrap().status, Status::Finished);
            let mut expected: Vec<Vec<i64>> = records(28).iter().map(|r| vec![r.0, r.1, r.2]).collect();
            expected.sort();
            assert_eq!(target.sorted(), expected, "parallelism {parallelism}, seed {seed:?}");
            let resumes = resumes.load(Ordering::Relaxed);
            assert!(resumes <= 28, "{resumes} calls for 28 records");
        }
    }
}

#[test]
fn a_job_that_is_cancelled_or_dropped_while_pending_ends_at_once() {
    for parallelism in 1..=2 {
        for is_dropped in [false, true] {
            let target = MemorySink::default();
            let (graph, resumes) = graph(MemorySource::new(vec![records(1000)]), parallelism, None, &target);
            let job = start(graph, options()).unwrap();
            thread::sleep(Duration::from_millis(50));
            assert_eq!(job.status(), Status::Running);
            let begun = Instant::now();
            if is_dropped {
                drop(job);
            } else {
                job.cancel();
                assert_eq!(job.wait(WAIT).unwrap().unwrap().status, Status::Cancelled);
            }
            assert!(begun.elapsed() < Duration::from_secs(10));
            assert_eq!(resumes.load(Ordering::Relaxed), 0, "it was called though nobody woke it");
        }
    }
}

#[test]
fn a_job_that_is_stopped_while_pending_ends_after_the_answer() {
    let target = MemorySink::default();
    let mut from = MemorySource::new(vec![records(20)]);
    from.is_bounded = false;
    let (graph, _) = graph(from, 1, Some(Duration::from_millis(50)), &target);
    let job = start(graph, options()).unwrap();
    thread::sleep(Duration::from_millis(20));
    job.stop();
    assert_eq!(job.wait(WAIT).unwrap().unwrap().status, Status::Stopped);
}

/// A sink that takes nothing until it is opened, and counts how often it is asked.
#[derive(Clone, Debug, Default)]
struct Gate {
    inner: MemorySink,
    door: Arc<Mutex<(bool, Option<Waker>)>>,
    asked: Arc<AtomicUsize>,
}

struct GateWriter {
    inner: Box<dyn SinkWriter>,
    gate: Gate,
    waker: Waker,
}

impl Sink for Gate {
    fn name(&self) -> String {
        "gate()".to_owned()
    }
    fn kind(&self) -> SinkKind {
        self.inner.kind()
    }
    fn check(&self, _schema: &SchemaRef, _key: Option<&[String]>) -> Result<()> {
        Ok(())
    }
    fn writer(&self, schema: &SchemaRef, context: &TaskContext) -> Result<Box<dyn SinkWriter>> {
        let inner = self.inner.writer(schema, context)?;
        Ok(Box::new(GateWriter { inner, gate: self.clone(), waker: context.waker.clone() }))
    }
    fn committer(&self) -> Result<Box<dyn Committer>> {
        self.inner.committer()
    }
}

impl SinkWriter for GateWriter {
    fn write(&mut self, batch: Batch) -> Result<()> {
        self.inner.write(batch)
    }
    fn pre_commit(&mut self, epoch: Epoch) -> Result<Option<PreCommit>> {
        self.inner.pre_commit(epoch)
    }
    fn is_ready(&self) -> bool {
        self.gate.asked.fetch_add(1, Ordering::Relaxed);
        let mut door = self.gate.door.lock().unwrap();
        door.1 = Some(self.waker.clone());
        door.0
    }
}

#[test]
fn a_sink_that_takes_nothing_is_not_asked_until_it_wakes() {
    let gate = Gate::default();
    let mut stage = sink("sink", &gate.inner);
    stage.body = mill_runtime::StageBody::Sink { sink: Arc::new(gate.clone()), schema: integers(&["key", "value", "time"]) };
    let all = chain("all", 1, Some(source("source", MemorySource::new(vec![records(100)]))), vec![stage]);
    let job = start(JobGraph { chains: vec![all], edges: vec![] }, options()).unwrap();
    while gate.asked.load(Ordering::Relaxed) == 0 {
        thread::yield_now();
    }
    thread::sleep(Duration::from_millis(300));
    let asked = gate.asked.load(Ordering::Relaxed);
    assert!(asked <= 10, "it was asked {asked} times");
    let waker = {
        let mut door = gate.door.lock().unwrap();
        door.0 = true;
        door.1.take().unwrap()
    };
    waker.wake();
    assert_eq!(job.wait(WAIT).unwrap().unwrap().status, Status::Finished);
    assert_eq!(gate.inner.sorted().len(), 100);
}

#[test]
fn a_checkpoint_waits_for_a_sink_that_takes_nothing_and_a_cancel_does_not() {
    for is_opened in [true, false] {
        let gate = Gate::default();
        let mut stage = sink("sink", &gate.inner);
        stage.body =
            mill_runtime::StageBody::Sink { sink: Arc::new(gate.clone()), schema: integers(&["key", "value", "time"]) };
        let mut from = MemorySource::new(vec![records(100)]);
        from.is_bounded = false;
        let all = chain("all", 1, Some(source("source", from)), vec![stage]);
        let world = World::new();
        let job = start(
            JobGraph { chains: vec![all], edges: vec![] },
            RunOptions { schedule_seed: None, interval: None, ..world.options(1) },
        );
        let job = job.unwrap();
        while gate.asked.load(Ordering::Relaxed) == 0 {
            thread::yield_now();
        }
        thread::scope(|scope| {
            let asked = scope.spawn(|| job.checkpoint_now());
            thread::sleep(Duration::from_millis(50));
            assert!(!asked.is_finished(), "a checkpoint was taken though the sink had taken nothing");
            if is_opened {
                let waker = {
                    let mut door = gate.door.lock().unwrap();
                    door.0 = true;
                    door.1.take().unwrap()
                };
                waker.wake();
                asked.join().unwrap().unwrap();
                assert!(!gate.inner.sorted().is_empty());
                job.stop();
                assert_eq!(job.wait(WAIT).unwrap().unwrap().status, Status::Stopped);
                assert_eq!(gate.inner.sorted(), sorted(100));
            } else {
                job.cancel();
                assert!(asked.join().unwrap().is_err());
                assert_eq!(job.wait(WAIT).unwrap().unwrap().status, Status::Cancelled);
                assert!(gate.inner.sorted().is_empty());
            }
        });
    }
}

/// Waits at every event for an answer of another thread, and wakes once too often.
struct Hesitant {
    waker: Waker,
    answered: Arc<AtomicUsize>,
    asked: usize,
    held: Option<Batch>,
    left: Arc<Mutex<Vec<Waker>>>,
}

impl Hesitant {
    fn new(context: &TaskContext, left: &Arc<Mutex<Vec<Waker>>>) -> Hesitant {
        left.lock().unwrap().push(context.waker.clone());
        Hesitant { waker: context.waker.clone(), answered: Arc::default(), asked: 0, held: None, left: left.clone() }
    }

    fn ask(&mut self) -> Result<Progress> {
        assert_eq!(self.asked, self.answered.load(Ordering::Acquire), "an event entered while the step was pending");
        self.asked += 1;
        let (waker, answered, asked) = (self.waker.clone(), self.answered.clone(), self.asked);
        thread::spawn(move || {
            waker.wake_by_ref();
            if asked.is_multiple_of(3) {
                thread::sleep(Duration::from_micros(200));
            }
            answered.store(asked, Ordering::Release);
            waker.wake();
        });
        Ok(Progress::Pending)
    }
}

impl Operator for Hesitant {
    fn on_batch(&mut self, _input: usize, batch: Batch, _out: &mut Outbox) -> Result<Progress> {
        self.held = Some(batch);
        self.ask()
    }
    fn on_watermark(&mut self, _input: usize, _at: Watermark, _out: &mut Outbox) -> Result<Progress> {
        self.ask()
    }
    fn on_barrier(&mut self, _epoch: Epoch, _out: &mut Outbox) -> Result<Progress> {
        self.ask()
    }
    fn on_end(&mut self, _out: &mut Outbox) -> Result<Progress> {
        self.ask()
    }
    fn resume(&mut self, out: &mut Outbox) -> Result<Progress> {
        if self.answered.load(Ordering::Acquire) < self.asked {
            return Ok(Progress::Pending);
        }
        if let Some(batch) = self.held.take() {
            out.push(batch);
        }
        Ok(Progress::Done)
    }
}

impl Drop for Hesitant {
    fn drop(&mut self) {
        // A wake-up from the task itself, as it goes.
        self.left.lock().unwrap().iter().for_each(Waker::wake_by_ref);
    }
}

fn sorted(rows: i64) -> Vec<Vec<i64>> {
    let mut sorted: Vec<Vec<i64>> = records(rows).iter().map(|r| vec![r.0, r.1, r.2]).collect();
    sorted.sort();
    sorted
}

/// source ─► time ─hash─► three steps that wait at every event ─► sink
fn hesitant(from: MemorySource, parallelism: usize, target: &MemorySink, left: &Arc<Mutex<Vec<Waker>>>) -> JobGraph {
    let stages = (0..3).map(|stage| {
        let left = left.clone();
        operator(&format!("waits-{stage}"), "", vec![vec![Target::Stage(stage + 1, 0)]], move |context| {
            Hesitant::new(context, &left)
        })
    });
    let stages = stages.chain([sink("sink", target)]).collect();
    let time = operator("time", "", vec![vec![Target::Edge(0)]], |_| EventTime::new(0));
    JobGraph {
        chains: vec![chain("head", 1, Some(source("source", from)), vec![time]), chain("tail", parallelism, None, stages)],
        edges: vec![edge(0, 1, EdgeKind::Hash(vec![0]))],
    }
}

#[test]
fn several_steps_of_a_chain_wait_at_records_watermarks_barriers_and_the_end() {
    for parallelism in 1..=3 {
        for seed in [None, Some(5)] {
            let (world, left) = (World::new(), Arc::default());
            let graph = hesitant(MemorySource::new(vec![records(400), vec![]]), parallelism, &world.sinks[0], &left);
            let interval = Some(Duration::from_millis(2));
            let job = start(graph, RunOptions { schedule_seed: seed, interval, ..world.options(1) }).unwrap();
            let report = job.wait(WAIT).unwrap().unwrap();
            assert_eq!(report.status, Status::Finished);
            assert!(report.metrics.checkpoints.completed > 1, "no barrier met a step that waits");
            assert_eq!(report.metrics.checkpoints.failed, 0);
            assert_eq!(world.sinks[0].sorted(), sorted(400), "parallelism {parallelism}, seed {seed:?}");
            drop(job);
            // Whoever is late wakes a task that is gone.
            let left: Vec<Waker> = std::mem::take(&mut *left.lock().unwrap());
            assert_eq!(left.len(), 3 * parallelism);
            left.into_iter().for_each(Waker::wake);
        }
    }
}

#[test]
fn kills_while_steps_wait_change_nothing() {
    let mut world = World::new();
    let mut random = Random(11);
    for attempt in 0.. {
        let left = Arc::default();
        let graph = hesitant(MemorySource::new(vec![records(150)]), 1 + attempt % 3, &world.sinks[0], &left);
        let job = start(graph, world.options(random.below(u64::MAX))).unwrap();
        let steps = if attempt < 8 { random.below(600) } else { u64::MAX };
        if job.run_steps(steps) {
            assert_eq!(job.wait(None).unwrap().unwrap().status, Status::Finished);
            break;
        }
        drop(job);
        world.disk = Arc::new(world.disk.after_kill());
    }
    assert_eq!(world.sinks[0].sorted(), sorted(150));
}
