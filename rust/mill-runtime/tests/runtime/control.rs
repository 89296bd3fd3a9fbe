//! Stopping, draining, cancelling, failing; records that cannot be processed; steps that need no more.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mill_protocol::{Batch, Error, ErrorKind, Operator, Outbox, Progress, Restored, Result, Snapshot};
use mill_runtime::{
    EdgeDef, EdgeKind, JobGraph, OnError, RunOptions, Status, Target, errors_schema, start,
};

use crate::exactly_once::World;
use crate::support::*;

const WAIT: Option<Duration> = Some(Duration::from_secs(30));

/// Does with a batch what the closure does.
struct Apply<F>(F);

impl<F: FnMut(Batch, &mut Outbox) -> Result<()> + Send> Operator for Apply<F> {
    fn on_batch(&mut self, _input: usize, batch: Batch, out: &mut Outbox) -> Result<Progress> {
        (self.0)(batch, out)?;
        Ok(Progress::Done)
    }
}

/// Passes the first records on, and then needs no more.
struct Limit(usize);

impl Operator for Limit {
    fn on_batch(&mut self, _input: usize, batch: Batch, out: &mut Outbox) -> Result<Progress> {
        let rows = self.0.min(batch.rows());
        self.0 -= rows;
        out.push(batch.slice(0, rows));
        Ok(Progress::Done)
    }
    fn is_finished(&self) -> bool {
        self.0 == 0
    }
    fn snapshot(&mut self, snapshot: &mut Snapshot) -> Result<()> {
        snapshot.bytes = Some(self.0.to_le_bytes().to_vec());
        Ok(())
    }
    fn restore(&mut self, restored: &Restored) -> Result<()> {
        for bytes in &restored.bytes {
            self.0 = usize::from_le_bytes((**bytes).try_into().unwrap());
        }
        Ok(())
    }
}

fn endless() -> MemorySource {
    let mut source = MemorySource::new(vec![(0..200).map(|i| (i % 7, i, i)).collect()]);
    source.is_bounded = false;
    source
}

/// source ─► stage ─► sink, in one chain.
fn one_chain(from: MemorySource, stage: mill_runtime::StageDef, target: &MemorySink) -> JobGraph {
    let chain = chain("all", 1, Some(source("source", from)), vec![stage, sink("sink", target)]);
    JobGraph { chains: vec![chain], edges: vec![] }
}

fn pass() -> mill_runtime::StageDef {
    operator("step", "", vec![vec![Target::Stage(1, 0)]], |_| {
        Apply(|batch, out: &mut Outbox| {
            out.push(batch);
            Ok(())
        })
    })
}

#[test]
fn a_job_that_is_stopped_commits_what_it_has() {
    let target = MemorySink::default();
    let job = start(one_chain(endless(), pass(), &target), options()).unwrap();
    while job.metrics().progress.rows_read < 200 {
        std::thread::yield_now();
    }
    job.stop();
    assert_eq!(job.wait(WAIT).unwrap().unwrap().status, Status::Stopped);
    assert_eq!(target.sorted().len(), 200);
}

#[test]
fn an_unbounded_job_without_a_store_shows_its_output_now_and_then() {
    let target = MemorySink::default();
    let options = RunOptions { interval: Some(Duration::from_millis(20)), ..options() };
    let job = start(one_chain(endless(), pass(), &target), options).unwrap();
    let start = Instant::now();
    while target.sorted().len() < 200 {
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", job.metrics());
        std::thread::sleep(Duration::from_millis(5));
    }
    job.cancel();
    assert_eq!(job.wait(WAIT).unwrap().unwrap().status, Status::Cancelled);
}

#[test]
fn a_job_that_is_drained_closes_its_windows() {
    let mut random = Random(3);
    let splits = vec![records(&mut random, 100, 5)];
    let (windows, totals) = expected(&splits);
    let mut from = MemorySource::new(splits);
    from.is_bounded = false;
    let sinks = [MemorySink::default(), MemorySink::default()];
    let job = start(windows_and_totals(vec![Arc::new(from)], &[1, 2, 1], &sinks), options()).unwrap();
    while job.metrics().progress.rows_read < 100 {
        std::thread::yield_now();
    }
    job.drain();
    assert_eq!(job.wait(WAIT).unwrap().unwrap().status, Status::Finished);
    assert_eq!(sinks[0].sorted(), windows);
    assert_eq!(sinks[1].sorted(), totals);
}

#[test]
fn a_job_that_is_stopped_goes_on_where_it_stood() {
    let mut random = Random(4);
    let splits = vec![records(&mut random, 300, 5), records(&mut random, 200, 5)];
    let (windows, totals) = expected(&splits);
    let mut world = World::new();
    for round in 0.. {
        let from = Arc::new(MemorySource::new(splits.clone()));
        let graph = windows_and_totals(vec![from], &[1 + round % 2, 1 + round % 3, 1], &world.sinks);
        let job = start(graph, world.options(round as u64)).unwrap();
        job.run_steps(200);
        job.stop();
        let report = job.wait(None).unwrap().unwrap();
        drop(job);
        world.disk = Arc::new(world.disk.after_kill());
        if report.status == Status::Finished {
            assert!(round > 2, "the job was to be stopped some times");
            break;
        }
        assert_eq!(report.status, Status::Stopped);
        assert!(!world.sinks[0].target.lock().unwrap().has_prepared(), "what was prepared is committed");
    }
    assert_eq!(world.sinks[0].sorted(), windows);
    assert_eq!(world.sinks[1].sorted(), totals);
}

#[test]
fn a_job_that_is_cancelled_ends_within_a_second_and_aborts() {
    let target = MemorySink::default();
    let job = start(one_chain(endless(), pass(), &target), options()).unwrap();
    let start = Instant::now();
    job.cancel();
    assert_eq!(job.wait(WAIT).unwrap().unwrap().status, Status::Cancelled);
    assert!(start.elapsed() < Duration::from_secs(1));
    assert_eq!(target.target.lock().unwrap().aborts, 1);
    assert!(job.checkpoint_now().is_err());
}

#[test]
fn a_failure_and_a_panic_name_the_step() {
    let panics = operator("step", "", vec![vec![Target::Stage(1, 0)]], |_| {
        Apply(|batch: Batch, _: &mut Outbox| {
            assert!(batch.rows() > 1000, "too few rows");
            Ok(())
        })
    });
    let fails = operator("step", "", vec![vec![Target::Stage(1, 0)]], |_| {
        Apply(|_, _: &mut Outbox| Err(Error::data("no such thing").because("the cause")))
    });
    for (stage, message) in [(panics, "panicked: too few rows"), (fails, "no such thing")] {
        let target = MemorySink::default();
        let job = start(one_chain(endless(), stage, &target), options()).unwrap();
        let error = job.wait(WAIT).unwrap().unwrap_err();
        assert_eq!(error.step(), Some("step"));
        assert!(error.message().contains(message), "{error}");
        assert_eq!(job.wait(WAIT).unwrap().unwrap_err().step(), Some("step"), "a second wait is told too");
        assert_eq!(target.target.lock().unwrap().aborts, 1);
    }
}

#[test]
fn records_that_cannot_be_read_do_as_the_job_says() {
    for on_error in [OnError::Fail, OnError::Skip, OnError::Route] {
        let mut from = MemorySource::new(vec![(0..100).map(|i| (i % 7, i, i)).collect()]);
        from.bad_value = Some(42);
        let target = MemorySink::default();
        let errors = MemorySink::default();
        let mut graph = one_chain(from, pass(), &target);
        // The errors go over an edge of their own, through a step that makes integers of them.
        graph.chains[0].source.as_mut().unwrap().errors = vec![Target::Edge(0)];
        graph.edges.push(EdgeDef { from: 0, to: 1, entry: 0, kind: EdgeKind::Gather, schema: errors_schema() });
        let count = operator("count", "", vec![vec![Target::Stage(1, 0)]], |_| {
            Apply(|batch: Batch, out: &mut Outbox| {
                out.push(Batch::new(batch_of(&["rows"], &[vec![batch.rows() as i64]])));
                Ok(())
            })
        });
        graph.chains.push(chain("errors", 1, None, vec![count, sink("error sink", &errors)]));
        let job = start(graph, RunOptions { on_error, ..options() }).unwrap();
        let result = job.wait(WAIT).unwrap();
        match on_error {
            OnError::Fail => {
                let error = result.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Data);
                assert_eq!(error.step(), Some("source"));
                assert!(error.message().contains("line 42"), "{error}");
            }
            OnError::Skip => {
                assert_eq!(result.unwrap().metrics.steps[0].rows_skipped, 1);
                assert_eq!((target.sorted().len(), errors.sorted().len()), (99, 0));
            }
            OnError::Route => {
                assert_eq!(result.unwrap().metrics.steps[0].rows_routed, 1);
                assert_eq!((target.sorted().len(), errors.sorted()), (99, vec![vec![1]]));
            }
        }
    }
}

#[test]
fn a_limit_ends_an_endless_job() {
    for is_chained in [true, false] {
        for seed in [None, Some(1), Some(2)] {
            let target = MemorySink::default();
            let limit = || operator("limit", "limit", vec![vec![Target::Stage(1, 0)]], |_| Limit(10));
            let graph = if is_chained {
                one_chain(endless(), limit(), &target)
            } else {
                let mut head = pass();
                head.ports = vec![vec![Target::Edge(0)]];
                let from = source("source", endless());
                JobGraph {
                    chains: vec![
                        chain("head", 2, Some(from), vec![head]),
                        chain("tail", 1, None, vec![limit(), sink("sink", &target)]),
                    ],
                    edges: vec![edge(0, 1, EdgeKind::Gather)],
                }
            };
            let job = start(graph, RunOptions { schedule_seed: seed, ..options() }).unwrap();
            assert_eq!(job.wait(WAIT).expect("the job ends").unwrap().status, Status::Finished);
            assert_eq!(target.sorted().len(), 10);
        }
    }
}

#[test]
fn a_limit_beside_a_stream_that_goes_on_survives_kills() {
    let splits: Vec<Vec<Record>> = (0..2).map(|s| (0..150).map(|i| (s, i, i)).collect()).collect();
    for seed in 0..150 {
        let mut random = Random(seed);
        let mut world = World::new();
        for kill in 0.. {
            // Everything goes to one sink, and by way of a step of its own to a limit in another task.
            let mut head = pass();
            head.ports = vec![vec![Target::Stage(1, 0), Target::Stage(2, 0)]];
            let mut aside = pass();
            (aside.uid, aside.name, aside.ports) = ("aside".into(), "aside".into(), vec![vec![Target::Edge(0)]]);
            let limit = operator("limit", "limit", vec![vec![Target::Stage(1, 0)]], |_| Limit(10));
            let all = sink("all", &world.sinks[0]);
            let from = source("source", MemorySource::new(splits.clone()));
            let graph = JobGraph {
                chains: vec![
                    chain("head", 1 + random.below(2) as usize, Some(from), vec![head, aside, all]),
                    chain("tail", 1, None, vec![limit, sink("first", &world.sinks[1])]),
                ],
                edges: vec![edge(0, 1, EdgeKind::Gather)],
            };
            let job = start(graph, world.options(random.below(1 << 40))).unwrap();
            if job.run_steps(if kill < 6 { random.below(300) } else { u64::MAX }) {
                assert_eq!(job.wait(None).unwrap().unwrap().status, Status::Finished, "seed {seed}");
                break;
            }
            drop(job);
            world.disk = Arc::new(world.disk.after_kill());
        }
        let mut expected: Vec<Vec<i64>> = splits.iter().flatten().map(|r| vec![r.0, r.1, r.2]).collect();
        expected.sort();
        assert_eq!(world.sinks[0].sorted(), expected, "seed {seed}");
        assert_eq!(world.sinks[1].sorted().len(), 10, "seed {seed}");
    }
}
