//! Jobs without a store, on threads.

use std::sync::Arc;
use std::time::Duration;

use mill_protocol::Source;
use mill_runtime::{RunOptions, Status, start};

use crate::support::*;

fn check(splits: Vec<Vec<Record>>, change: impl Fn(&mut MemorySource), parallelism: [usize; 3], options: RunOptions) {
    let (windows, totals) = expected(&splits);
    let rows: usize = splits.iter().map(Vec::len).sum();
    let mut source = MemorySource::new(splits);
    change(&mut source);
    let sinks = [MemorySink::default(), MemorySink::default()];
    let sources: Vec<Arc<dyn Source>> = vec![Arc::new(source)];
    let job = start(windows_and_totals(sources, &parallelism, &sinks), options).unwrap();
    let Some(report) = job.wait(Some(Duration::from_secs(20))) else { panic!("{:#?}", job.metrics()) };
    let report = report.unwrap();
    assert_eq!(report.status, Status::Finished);
    assert_eq!(report.metrics.progress.rows_read, rows as u64);
    assert_eq!(report.metrics.progress.rows_total, Some(rows as u64));
    assert_eq!(sinks[0].sorted(), windows);
    assert_eq!(sinks[1].sorted(), totals);
}

#[test]
fn a_job_gives_the_same_whatever_the_parallelism() {
    let mut random = Random(1);
    let splits: Vec<_> = (0..3).map(|_| records(&mut random, 500, 20)).collect();
    for parallelism in [[1, 1, 1], [2, 2, 1], [3, 5, 2], [8, 1, 1]] {
        check(splits.clone(), |_| {}, parallelism, options());
    }
}

#[test]
fn a_source_that_hesitates_or_blocks_gives_the_same() {
    let mut random = Random(2);
    let splits: Vec<_> = (0..2).map(|_| records(&mut random, 200, 20)).collect();
    check(splits.clone(), |source| source.hesitates = true, [2, 2, 1], options());
    check(splits.clone(), |source| source.may_block = true, [2, 2, 1], options());
    check(splits, |source| (source.may_block, source.hesitates) = (true, true), [1, 3, 1], options());
}

#[test]
fn an_empty_input_ends_at_once() {
    check(vec![Vec::new()], |_| {}, [2, 2, 1], options());
    check(Vec::new(), |_| {}, [2, 2, 1], options());
}

#[test]
fn a_schedule_drawn_from_a_seed_gives_the_same() {
    let mut random = Random(3);
    let splits: Vec<_> = (0..3).map(|_| records(&mut random, 60, 9)).collect();
    for seed in 0..30 {
        let options = RunOptions { schedule_seed: Some(seed), queue_capacity: 1, frame_rows: 5, ..options() };
        check(splits.clone(), |source| source.hesitates = seed % 2 == 0, [2, 3, 1], options);
    }
}
