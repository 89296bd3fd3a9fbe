//! Steps that call slow code of the user's: barriers and the end come through all the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mill_protocol::{Batch, Operator, Outbox, Progress, Result};
use mill_runtime::{EdgeKind, JobGraph, RunOptions, StageDef, Status, Target, UserCode, start};

use crate::support::*;

/// Takes so long for each record.
struct Slow(Duration);

impl Operator for Slow {
    fn on_batch(&mut self, _input: usize, batch: Batch, out: &mut Outbox) -> Result<Progress> {
        std::thread::sleep(self.0 * batch.rows() as u32);
        out.push(batch);
        Ok(Progress::Done)
    }
}

struct Pass;

impl Operator for Pass {
    fn on_batch(&mut self, _input: usize, batch: Batch, out: &mut Outbox) -> Result<Progress> {
        out.push(batch);
        Ok(Progress::Done)
    }
}

fn slow(per_row: Duration) -> StageDef {
    let stage = operator("slow", "", vec![vec![Target::Stage(1, 0)]], move |_| Slow(per_row));
    StageDef { user_code: Some(UserCode { rows_first: 8, batch_rows: None }), ..stage }
}

/// A job of a source, a slow step and a sink: in one chain, or with an edge of this kind before the step.
fn job(edge_kind: Option<EdgeKind>, parallelism: usize, per_row: Duration, may_block: bool) -> (JobGraph, MemorySink) {
    let mut from = MemorySource::new(vec![(0..100_000).map(|i| (i % 7, i, i)).collect(); parallelism]);
    (from.rows_max, from.may_block) = (usize::MAX, may_block);
    let target = MemorySink::default();
    let from = Some(source("source", from));
    let graph = match edge_kind {
        None => {
            let all = chain("all", parallelism, from, vec![slow(per_row), sink("sink", &target)]);
            JobGraph { chains: vec![all], edges: vec![] }
        }
        Some(kind) => {
            let head = operator("pass", "", vec![vec![Target::Edge(0)]], |_| Pass);
            let chains = vec![
                chain("head", parallelism, from, vec![head]),
                chain("tail", parallelism, None, vec![slow(per_row), sink("sink", &target)]),
            ];
            JobGraph { chains, edges: vec![edge(0, 1, kind)] }
        }
    };
    (graph, target)
}

fn wide() -> RunOptions {
    RunOptions { frame_rows: 8192, queue_capacity: 8, ..options() }
}

#[test]
fn a_barrier_passes_a_slow_step_long_before_a_frame_is_through() {
    // A frame takes sixteen seconds, and eight may be in a queue.
    let per_row = Duration::from_millis(2);
    for edge_kind in [None, Some(EdgeKind::Rebalance), Some(EdgeKind::Forward), Some(EdgeKind::Hash(vec![0]))] {
        for (parallelism, may_block) in [(1, false), (2, false), (2, true)] {
            let (graph, _) = job(edge_kind.clone(), parallelism, per_row, may_block);
            let job = start(graph, wide()).unwrap();
            for _ in 0..4 {
                std::thread::sleep(Duration::from_millis(50));
                let began = Instant::now();
                job.checkpoint_now().unwrap();
                let took = began.elapsed();
                assert!(took < Duration::from_secs(1), "{edge_kind:?} x{parallelism}: a checkpoint took {took:?}");
            }
            let began = Instant::now();
            job.stop();
            assert_eq!(job.wait(Some(Duration::from_secs(60))).unwrap().unwrap().status, Status::Stopped);
            let took = began.elapsed();
            assert!(took < Duration::from_secs(1), "{edge_kind:?} x{parallelism}: the end took {took:?}");
        }
    }
}

#[test]
fn what_is_in_front_of_two_slow_steps_is_bounded_as_well() {
    let per_row = Duration::from_millis(1);
    let mut from = MemorySource::new(vec![(0..100_000).map(|i| (i % 7, i, i)).collect()]);
    from.rows_max = usize::MAX;
    let target = MemorySink::default();
    let mut middle = slow(per_row / 10);
    (middle.uid, middle.ports) = ("middle".to_owned(), vec![vec![Target::Edge(1)]]);
    let head = operator("pass", "", vec![vec![Target::Edge(0)]], |_| Pass);
    let chains = vec![
        chain("head", 1, Some(source("source", from)), vec![head]),
        chain("middle", 2, None, vec![middle]),
        chain("tail", 1, None, vec![slow(per_row), sink("sink", &target)]),
    ];
    let edges = vec![edge(0, 1, EdgeKind::Hash(vec![0])), edge(1, 2, EdgeKind::Gather)];
    let job = start(JobGraph { chains, edges }, wide()).unwrap();
    for _ in 0..5 {
        std::thread::sleep(Duration::from_millis(100));
        let began = Instant::now();
        job.checkpoint_now().unwrap();
        assert!(began.elapsed() < Duration::from_secs(1), "a checkpoint took {:?}", began.elapsed());
    }
}

#[test]
fn a_step_whose_batches_the_user_has_sized_gets_no_more_than_that() {
    struct Sized {
        most: Arc<AtomicUsize>,
        calls: Arc<AtomicUsize>,
    }
    impl Operator for Sized {
        fn on_batch(&mut self, _input: usize, batch: Batch, out: &mut Outbox) -> Result<Progress> {
            self.most.fetch_max(batch.rows(), Ordering::SeqCst);
            self.calls.fetch_add(1, Ordering::SeqCst);
            out.push(batch);
            Ok(Progress::Done)
        }
    }
    for batch_rows in [1, 3, 16, 1000] {
        for seed in [None, Some(7)] {
            let rows: Vec<Record> = (0..500).map(|i| (i % 7, i, i)).collect();
            let mut from = MemorySource::new(vec![rows.clone()]);
            from.rows_max = usize::MAX;
            let (most, calls) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
            let counts = (Arc::clone(&most), Arc::clone(&calls));
            let stage = operator("sized", "", vec![vec![Target::Stage(1, 0)]], move |_| Sized {
                most: Arc::clone(&counts.0),
                calls: Arc::clone(&counts.1),
            });
            let user_code = Some(UserCode { rows_first: batch_rows, batch_rows: Some(batch_rows) });
            let target = MemorySink::default();
            let all = vec![StageDef { user_code, ..stage }, sink("sink", &target)];
            let graph = JobGraph { chains: vec![chain("all", 1, Some(source("source", from)), all)], edges: vec![] };
            let job = start(graph, RunOptions { schedule_seed: seed, ..options() }).unwrap();
            job.wait(Some(Duration::from_secs(60))).unwrap().unwrap();
            let expected: Vec<Vec<i64>> = rows.iter().map(|row| vec![row.0, row.1, row.2]).collect();
            assert_eq!(target.sorted().len(), expected.len());
            assert_eq!(most.load(Ordering::SeqCst), batch_rows.min(16), "frames have 16 rows");
            assert!(calls.load(Ordering::SeqCst) <= 500_usize.div_ceil(batch_rows.min(16)) + 1);
        }
    }
}

#[test]
fn a_checkpoint_that_takes_far_too_long_is_reported() {
    // One call takes longer than ten intervals, which nothing can cut.
    struct Stuck;
    impl Operator for Stuck {
        fn on_batch(&mut self, _input: usize, batch: Batch, out: &mut Outbox) -> Result<Progress> {
            std::thread::sleep(Duration::from_millis(2_500));
            out.push(batch);
            Ok(Progress::Done)
        }
    }
    let target = MemorySink::default();
    let stuck = operator("stuck", "", vec![vec![Target::Stage(1, 0)]], |_| Stuck);
    let mut from = MemorySource::new(vec![vec![(1, 1, 1)]]);
    from.is_bounded = false;
    let all = chain("all", 1, Some(source("source", from)), vec![stuck, sink("sink", &target)]);
    let graph = JobGraph { chains: vec![all], edges: vec![] };
    let job = start(graph, RunOptions { interval: Some(Duration::from_millis(20)), ..options() }).unwrap();
    let began = Instant::now();
    let overdue = loop {
        if let Some(overdue) = job.metrics().checkpoints.overdue {
            break overdue;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "nothing was reported");
        std::thread::sleep(Duration::from_millis(5));
    };
    assert_eq!(overdue.waits_for, ["all"]);
    assert!(overdue.since >= Duration::from_secs(1), "{overdue}");
    while job.metrics().checkpoints.overdue.is_some() {
        assert!(began.elapsed() < Duration::from_secs(30), "it was never over");
        std::thread::sleep(Duration::from_millis(5));
    }
    job.stop();
    let report = job.wait(Some(Duration::from_secs(30))).unwrap().unwrap();
    let notes: Vec<&String> = report.notes.iter().filter(|note| note.contains("has been under way for")).collect();
    assert_eq!(notes.len(), 1, "{:?}", report.notes);
    assert!(notes[0].contains("all is still at work on what came before it"), "{}", notes[0]);
}
