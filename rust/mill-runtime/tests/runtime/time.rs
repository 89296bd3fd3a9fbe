//! Timers in processing time, idle inputs, and splits that turn up.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use mill_protocol::{
    Batch, Operator, Outbox, Progress, Result, Source, SourceProperties, Split, SplitId, SplitReader, Watermark,
};
use mill_runtime::{EdgeKind, JobGraph, RunOptions, Status, Target, start};

use crate::support::*;

const WAIT: Option<Duration> = Some(Duration::from_secs(30));

/// Withholds records and emits them every ten milliseconds.
#[derive(Default)]
struct Every {
    held: Vec<Batch>,
    at: Option<i64>,
}

impl Operator for Every {
    fn on_batch(&mut self, _input: usize, batch: Batch, _out: &mut Outbox) -> Result<Progress> {
        self.held.push(batch);
        self.at.get_or_insert(0);
        Ok(Progress::Done)
    }
    fn next_time(&self) -> Option<i64> {
        self.at
    }
    fn on_time(&mut self, now: i64, out: &mut Outbox) -> Result<Progress> {
        assert!(self.at.is_some_and(|at| at <= now));
        self.at = Some(now + 10_000);
        self.held.drain(..).for_each(|batch| out.push(batch));
        Ok(Progress::Done)
    }
}

#[test]
fn timers_fire_on_threads_and_under_a_schedule() {
    for seed in [None, Some(1), Some(2)] {
        let mut from = MemorySource::new(vec![(0..100).map(|i| (i % 7, i, i)).collect()]);
        from.is_bounded = false;
        let target = MemorySink::default();
        let every = operator("every", "", vec![vec![Target::Stage(1, 0)]], |_| Every::default());
        let all = chain("all", 1, Some(source("source", from)), vec![every, sink("sink", &target)]);
        let graph = JobGraph { chains: vec![all], edges: vec![] };
        let interval = Some(Duration::from_millis(5));
        let job = start(graph, RunOptions { schedule_seed: seed, interval, ..options() }).unwrap();
        while target.sorted().len() < 100 {
            job.run_steps(100);
            std::thread::yield_now();
        }
        job.cancel();
        assert_eq!(job.wait(WAIT).unwrap().unwrap().status, Status::Cancelled);
    }
}

/// Emits each watermark it sees as a row.
struct Watermarks;

impl Operator for Watermarks {
    fn on_batch(&mut self, _input: usize, _batch: Batch, _out: &mut Outbox) -> Result<Progress> {
        Ok(Progress::Done)
    }
    fn on_watermark(&mut self, _input: usize, at: Watermark, out: &mut Outbox) -> Result<Progress> {
        out.push(Batch::new(batch_of(&["watermark"], &[vec![at.0]])));
        Ok(Progress::Done)
    }
}

/// May still emit results of seven microseconds ago.
#[derive(Default)]
struct Lagging(i64);

impl Operator for Lagging {
    fn on_batch(&mut self, _input: usize, _batch: Batch, _out: &mut Outbox) -> Result<Progress> {
        Ok(Progress::Done)
    }
    fn on_watermark(&mut self, _input: usize, at: Watermark, _out: &mut Outbox) -> Result<Progress> {
        self.0 = at.0;
        Ok(Progress::Done)
    }
    fn earliest_result(&self) -> Watermark {
        if self.0 == i64::MAX { Watermark::MAX } else { Watermark(self.0 - 7) }
    }
}

#[test]
fn a_watermark_stops_at_the_earliest_result_of_a_step() {
    let from = MemorySource::new(vec![(0..100).map(|i| (0, i, i)).collect()]);
    let target = MemorySink::default();
    let time = operator("time", "", vec![vec![Target::Stage(1, 0)]], |_| EventTime::new(0));
    let lagging = operator("lagging", "", vec![vec![Target::Stage(2, 0)]], |_| Lagging::default());
    let watermarks = operator("watermarks", "", vec![vec![Target::Stage(3, 0)]], |_| Watermarks);
    let all = chain("all", 1, Some(source("source", from)), vec![time, lagging, watermarks, sink("sink", &target)]);
    let job = start(JobGraph { chains: vec![all], edges: vec![] }, RunOptions { schedule_seed: Some(1), ..options() }).unwrap();
    assert_eq!(job.wait(None).unwrap().unwrap().status, Status::Finished);
    let rows = target.sorted();
    assert_eq!(rows[rows.len() - 2..], [vec![92], vec![i64::MAX]]);
}

#[test]
fn a_task_without_splits_sends_the_time_of_the_others() {
    // Two tasks, one split.
    let mut from = MemorySource::new(vec![(0..100).map(|i| (i % 7, i, i)).collect()]);
    from.is_bounded = false;
    let target = MemorySink::default();
    let time = operator("time", "", vec![vec![Target::Edge(0)]], |_| EventTime::new(0));
    let watermarks = operator("watermarks", "", vec![vec![Target::Stage(1, 0)]], |_| Watermarks);
    let graph = JobGraph {
        chains: vec![
            chain("head", 2, Some(source("source", from)), vec![time]),
            chain("tail", 1, None, vec![watermarks, sink("sink", &target)]),
        ],
        edges: vec![edge(0, 1, EdgeKind::Gather)],
    };
    let interval = Some(Duration::from_millis(5));
    let job = start(graph, RunOptions { interval, ..options() }).unwrap();
    while target.sorted().last() != Some(&vec![99]) {
        assert!(!job.status().is_over());
        std::thread::yield_now();
    }
    let rows = target.target.lock().unwrap().visible.clone();
    assert!(rows.is_sorted(), "the watermark went back: {rows:?}");
    job.cancel();
}

/// A source whose splits turn up while it is read.
#[derive(Clone, Debug)]
struct Growing {
    inner: Arc<Mutex<MemorySource>>,
}

impl Source for Growing {
    fn name(&self) -> String {
        "growing".to_owned()
    }
    fn schema(&self) -> SchemaRef {
        self.inner.lock().unwrap().schema()
    }
    fn properties(&self) -> SourceProperties {
        SourceProperties { is_bounded: false, is_replayable: true, discovers_splits: true, may_block: false }
    }
    fn splits(&self, is_ordered: bool) -> Result<Vec<Split>> {
        self.inner.lock().unwrap().splits(is_ordered)
    }
    fn open(&self, split: &Split, position: Option<&[u8]>) -> Result<Box<dyn SplitReader>> {
        self.inner.lock().unwrap().open(split, position)
    }
}

/// Notes which splits it is told of, and passes records on.
struct Told(Arc<Mutex<Vec<SplitId>>>);

impl Operator for Told {
    fn on_batch(&mut self, _input: usize, batch: Batch, out: &mut Outbox) -> Result<Progress> {
        assert!(self.0.lock().unwrap().contains(&batch.split()), "records of a split nobody was told of");
        out.push(batch);
        Ok(Progress::Done)
    }
    fn on_splits(&mut self, open: &[SplitId], _out: &mut Outbox) -> Result<()> {
        self.0.lock().unwrap().extend(open);
        Ok(())
    }
}

#[test]
fn splits_that_turn_up_are_read_by_one_task_each() {
    let mut inner = MemorySource::new(vec![(0..50).map(|i| (0, i, i)).collect()]);
    inner.is_bounded = false;
    let inner = Arc::new(Mutex::new(inner));
    let target = MemorySink::default();
    let told = Arc::new(Mutex::new(Vec::new()));
    let stage = {
        let told = told.clone();
        operator("told", "", vec![vec![Target::Stage(1, 0)]], move |_| Told(told.clone()))
    };
    let from = source("source", Growing { inner: inner.clone() });
    let graph =
        JobGraph { chains: vec![chain("all", 3, Some(from), vec![stage, sink("sink", &target)])], edges: vec![] };
    let job = start(graph, RunOptions { schedule_seed: Some(5), ..options() }).unwrap();
    let mut expected = 50;
    for split in 1..6 {
        while target.sorted().len() < expected {
            job.run_steps(50);
        }
        let rows = (0..20).map(|i| (split, i, i)).collect();
        inner.lock().unwrap().splits.push((format!("split-{split}"), Arc::new(rows)));
        expected += 20;
    }
    while target.sorted().len() < expected {
        job.run_steps(50);
    }
    job.stop();
    assert_eq!(job.wait(None).unwrap().unwrap().status, Status::Stopped);
    let rows = target.sorted();
    assert_eq!(rows.len(), 150);
    assert!(rows.windows(2).all(|pair| pair[0] != pair[1]), "a record was read twice");
}

/// Passes records on, and wants all tasks to know of the splits that turned up together with theirs.
struct Together(Arc<Mutex<Vec<SplitId>>>);

impl Operator for Together {
    fn on_batch(&mut self, _input: usize, batch: Batch, out: &mut Outbox) -> Result<Progress> {
        let told = self.0.lock().unwrap();
        let rounds: Vec<Vec<SplitId>> = (0..4).map(|round| (0..5).map(|i| SplitId::of(&name(round, i))).collect()).collect();
        let round = rounds.iter().find(|round| round.contains(&batch.split())).expect("a split of some round");
        let unknown = round.iter().filter(|split| !told.contains(split)).count();
        assert_eq!(unknown, 0, "a split was read while some task did not know of others that turned up with it");
        out.push(batch);
        Ok(Progress::Done)
    }
    fn on_splits(&mut self, open: &[SplitId], _out: &mut Outbox) -> Result<()> {
        self.0.lock().unwrap().extend(open);
        Ok(())
    }
}

fn name(round: usize, split: usize) -> String {
    format!("round-{round}-{split}")
}

/// A task without a split follows the time of the others. One that had not been handed its new split yet followed the records of
/// a split that was found in the same look, and its own records were late.
#[test]
fn what_turns_up_is_read_once_all_tasks_know_of_it() {
    for seed in 0..40 {
        let mut inner = MemorySource::new(vec![]);
        inner.is_bounded = false;
        let inner = Arc::new(Mutex::new(inner));
        let target = MemorySink::default();
        let told = Arc::new(Mutex::new(Vec::new()));
        let stage = {
            let told = told.clone();
            operator("together", "", vec![vec![Target::Stage(1, 0)]], move |_| Together(told.clone()))
        };
        let from = source("source", Growing { inner: inner.clone() });
        let graph =
            JobGraph { chains: vec![chain("all", 3, Some(from), vec![stage, sink("sink", &target)])], edges: vec![] };
        let job = start(graph, RunOptions { schedule_seed: Some(seed), ..options() }).unwrap();
        for round in 0..4 {
            let rows = |split: usize| Arc::new((0..20).map(|i| ((round * 5 + split) as i64, i, i)).collect::<Vec<_>>());
            let splits = (0..5).map(|split| (name(round, split), rows(split)));
            inner.lock().unwrap().splits.extend(splits);
            while target.sorted().len() < 100 * (round + 1) {
                assert!(!job.status().is_over(), "seed {seed}: {:?}", job.wait(None));
                job.run_steps(50);
            }
        }
        job.stop();
        assert_eq!(job.wait(None).unwrap().unwrap().status, Status::Stopped);
    }
}
