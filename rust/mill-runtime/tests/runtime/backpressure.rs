//! Bounded memory, and idleness that costs nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use mill_protocol::{Batch, Operator, Outbox, Progress, Result};
use mill_runtime::{EdgeKind, JobGraph, Target, start};

use crate::support::*;

/// Says when it has been given records, and waits until it may continue.
struct Gate {
    is_open: Arc<AtomicBool>,
    waiting: Arc<AtomicU64>,
}

impl Operator for Gate {
    fn on_batch(&mut self, _input: usize, batch: Batch, out: &mut Outbox) -> Result<Progress> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        while !self.is_open.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
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

#[test]
fn a_slow_step_holds_the_source_back() {
    let (is_open, waiting) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let rows = 20_000;
    let mut from = MemorySource::new(vec![(0..rows).map(|i| (i % 7, i, i)).collect()]);
    from.rows_max = 16;
    let target = MemorySink::default();
    let head = operator("pass", "", vec![vec![Target::Edge(0)]], |_| Pass);
    let gate = {
        let (is_open, waiting) = (is_open.clone(), waiting.clone());
        operator("gate", "", vec![vec![Target::Stage(1, 0)]], move |_| Gate {
            is_open: is_open.clone(),
            waiting: waiting.clone(),
        })
    };
    let graph = JobGraph {
        chains: vec![
            chain("head", 1, Some(source("source", from)), vec![head]),
            chain("tail", 1, None, vec![gate, sink("sink", &target)]),
        ],
        edges: vec![edge(0, 1, EdgeKind::Rebalance)],
    };
    let job = start(graph, options()).unwrap();
    while waiting.load(Ordering::SeqCst) == 0 {
        std::thread::yield_now();
    }
    // One frame at the gate, two in the queue, and what the head has gathered and not sent.
    let mut before = u64::MAX;
    loop {
        let read = job.metrics().progress.rows_read;
        if read == before {
            break;
        }
        before = read;
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(before <= 16 * 8, "{before} rows were read ahead of a step that takes none");
    is_open.store(true, Ordering::SeqCst);
    job.wait(Some(Duration::from_secs(30))).unwrap().unwrap();
    assert_eq!(target.sorted().len(), rows as usize);
}

#[test]
fn an_idle_job_uses_no_processor_time() {
    let mut from = MemorySource::new(vec![(0..100).map(|i| (i % 7, i, i)).collect(); 2]);
    from.is_bounded = false;
    let sinks = [MemorySink::default(), MemorySink::default()];
    let job = start(windows_and_totals(vec![Arc::new(from)], &[2, 2, 1], &sinks), options()).unwrap();
    while job.metrics().progress.rows_read < 200 {
        std::thread::yield_now();
    }
    std::thread::sleep(Duration::from_millis(50));
    let before = switches_of_workers();
    std::thread::sleep(Duration::from_millis(500));
    let woken = switches_of_workers() - before;
    // Other tests of this process may run workers at the same time, so this can only be judged when they are alone.
    if std::env::args().any(|arg| arg == "--test-threads=1") {
        assert!(woken < 50, "the workers were woken {woken} times in half a second");
    }
    job.cancel();
    job.wait(Some(Duration::from_secs(10))).unwrap().unwrap();
}

/// How often threads with the name of a worker have been put to sleep.
fn switches_of_workers() -> u64 {
    let mut switches = 0;
    for task in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
        let read = |file: &str| std::fs::read_to_string(task.path().join(file)).unwrap_or_default();
        if read("comm").starts_with("mill-worker") {
            let status = read("status");
            let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches"));
            switches += line.and_then(|line| line.split_whitespace().last()?.parse::<u64>().ok()).unwrap_or(0);
        }
    }
    switches
}
