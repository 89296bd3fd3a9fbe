//! What readers tell of the time of their splits, and jobs whose clock somebody else moves.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use mill_protocol::{
    Batch, ManualClock, Mark, Operator, Outbox, Position, Progress, Read, Result, Source, SourceProperties, Split, SplitId,
    SplitReader, Watermark,
};
use mill_runtime::{JobGraph, RunOptions, Status, Target, start};

use crate::support::*;

const WAIT: Option<Duration> = Some(Duration::from_secs(30));

/// Tells the latest time after each batch.
#[derive(Clone, Debug)]
struct Marking(MemorySource);

struct MarkingReader {
    inner: Box<dyn SplitReader>,
    mark: Option<Mark>,
}

impl Source for Marking {
    fn name(&self) -> String {
        self.0.name()
    }
    fn schema(&self) -> SchemaRef {
        self.0.schema()
    }
    fn properties(&self) -> SourceProperties {
        self.0.properties()
    }
    fn splits(&self, is_ordered: bool) -> Result<Vec<Split>> {
        self.0.splits(is_ordered)
    }
    fn open(&self, split: &Split, position: Option<&[u8]>) -> Result<Box<dyn SplitReader>> {
        Ok(Box::new(MarkingReader { inner: self.0.open(split, position)?, mark: None }))
    }
}

impl SplitReader for MarkingReader {
    fn next(&mut self, rows_max: usize) -> Result<Read> {
        if let Some(mark) = self.mark.take() {
            return Ok(Read::Mark(mark));
        }
        let read = self.inner.next(rows_max)?;
        if let Read::Batch(batch) = &read {
            self.mark = rows_of(batch).iter().map(|row| row[2]).max().map(|at| Mark::Watermark(Watermark(at)));
        }
        Ok(read)
    }
    fn position(&self) -> Position {
        self.inner.position()
    }
}

/// Passes on what each batch ends with, and what is told after it.
#[derive(Default)]
struct Told(Option<i64>);

impl Operator for Told {
    fn on_batch(&mut self, _input: usize, batch: Batch, _out: &mut Outbox) -> Result<Progress> {
        self.0 = rows_of(batch.data()).iter().map(|row| row[2]).max();
        Ok(Progress::Done)
    }
    fn on_mark(&mut self, split: SplitId, mark: Mark, out: &mut Outbox) -> Result<()> {
        assert_ne!(split, SplitId::NONE);
        assert_eq!(Some(mark), self.0.map(|at| Mark::Watermark(Watermark(at))), "a mark in the wrong place");
        out.push(Batch::new(batch_of(&["at"], &[vec![self.0.unwrap()]])));
        Ok(())
    }
}

#[test]
fn a_mark_comes_after_the_records_that_its_reader_returned_before_it() {
    for (seed, may_block) in [(None, false), (None, true), (Some(3), false)] {
        let mut from = MemorySource::new(vec![(0..20).map(|i| (i % 7, i, i)).collect()]);
        from.may_block = may_block;
        let target = MemorySink::default();
        let told = operator("told", "", vec![vec![Target::Stage(1, 0)]], |_| Told::default());
        let all = chain("all", 1, Some(source("source", Marking(from))), vec![told, sink("sink", &target)]);
        let graph = JobGraph { chains: vec![all], edges: vec![] };
        let job = start(graph, RunOptions { schedule_seed: seed, frame_rows: 5, ..options() }).unwrap();
        assert_eq!(job.wait(WAIT).unwrap().unwrap().status, Status::Finished);
        assert_eq!(target.sorted(), vec![vec![4_i64], vec![9], vec![14], vec![19]]);
    }
}

/// Holds records back until a second is over since the first.
#[derive(Default)]
struct AfterSecond {
    held: Vec<Batch>,
    at: Option<i64>,
}

impl Operator for AfterSecond {
    fn on_batch(&mut self, _input: usize, batch: Batch, _out: &mut Outbox) -> Result<Progress> {
        self.held.push(batch);
        self.at.get_or_insert(1_000_000);
        Ok(Progress::Done)
    }
    fn next_time(&self) -> Option<i64> {
        self.at
    }
    fn on_time(&mut self, now: i64, out: &mut Outbox) -> Result<Progress> {
        assert!(self.at.take().is_some_and(|at| at <= now));
        self.held.drain(..).for_each(|batch| out.push(batch));
        Ok(Progress::Done)
    }
}

#[test]
fn a_job_whose_clock_is_held_is_quiet_until_the_clock_moves() {
    for seed in 0..5 {
        // A source that hesitates is asked again though time stands still.
        let mut from = MemorySource::new(vec![(0..50).map(|i| (i % 7, i, i)).collect()]);
        (from.is_bounded, from.hesitates) = (false, true);
        let target = MemorySink::default();
        let after = operator("after", "", vec![vec![Target::Stage(1, 0)]], |_| AfterSecond::default());
        let all = chain("all", 1, Some(source("source", from)), vec![after, sink("sink", &target)]);
        let graph = JobGraph { chains: vec![all], edges: vec![] };
        let clock = Arc::new(ManualClock::default());
        let hand_clock = Some(Arc::clone(&clock));
        let job = start(graph, RunOptions { schedule_seed: Some(seed), hand_clock, interval: None, ..options() }).unwrap();
        let settled = |now: i64| {
            clock.set(now);
            for _ in 0..20 {
                while job.step() {}
            }
            job.checkpoint_now().unwrap();
            assert!(!job.status().is_over());
            target.sorted().len()
        };
        assert_eq!((settled(0), job.next_time()), (0, Some(1_000_000)));
        assert_eq!((settled(999_999), job.next_time()), (0, Some(1_000_000)));
        assert_eq!((settled(1_000_000), job.next_time()), (50, None));
    }
}
