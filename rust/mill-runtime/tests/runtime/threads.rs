//! Checkpoints and recovery on real threads.

use std::sync::Arc;
use std::time::Duration;

use mill_protocol::Source;
use mill_runtime::{RunOptions, Status, start};
use mill_snapshot::Store;

use crate::exactly_once::World;
use crate::support::*;

const WAIT: Option<Duration> = Some(Duration::from_secs(60));

fn threaded(world: &World, workers: usize) -> RunOptions {
    let store = Store::open("state", world.disk.clone()).unwrap();
    let restore = store.latest(&mut Vec::new()).unwrap();
    let interval = Some(Duration::from_millis(1));
    RunOptions { store: Some(store), restore, workers, interval, ..options() }
}

#[test]
fn jobs_that_are_cancelled_and_resumed_lose_nothing() {
    let mut random = Random(11);
    let splits: Vec<_> = (0..4).map(|_| records(&mut random, 3000, 50)).collect();
    let (windows, totals) = expected(&splits);
    for may_block in [false, true] {
        let world = World::new();
        for round in 0.. {
            let mut source = MemorySource::new(splits.clone());
            (source.may_block, source.rows_max) = (may_block, 16);
            let sources: Vec<Arc<dyn Source>> = vec![Arc::new(source)];
            let parallelism = [1 + round % 3, 1 + (round + 1) % 4, 1];
            let job = start(windows_and_totals(sources, &parallelism, &world.sinks), threaded(&world, 1 + round % 3));
            let job = job.unwrap();
            if round < 8 {
                std::thread::sleep(Duration::from_micros(500 * round as u64));
                job.cancel();
            }
            // The next round opens the same directory at once: its lock is free when the job is over.
            let report = job.wait(WAIT).expect("the job ends").unwrap();
            if report.status == Status::Finished {
                break;
            }
        }
        assert_eq!(world.sinks[0].sorted(), windows, "may_block={may_block}");
        assert_eq!(world.sinks[1].sorted(), totals, "may_block={may_block}");
    }
}

#[test]
fn checkpoints_savepoints_and_metrics_of_a_running_job() {
    let mut random = Random(12);
    let splits: Vec<_> = (0..2).map(|_| records(&mut random, 500, 50)).collect();
    let mut source = MemorySource::new(splits);
    source.is_bounded = false;
    let world = World::new();
    let sources: Vec<Arc<dyn Source>> = vec![Arc::new(source)];
    let options = RunOptions { interval: None, ..threaded(&world, 2) };
    let job = start(windows_and_totals(sources, &[2, 2, 1], &world.sinks), options).unwrap();
    let window = || job.metrics().steps.into_iter().find(|step| step.uid == "window").unwrap();
    while window().rows_in < 1000 {
        std::thread::yield_now();
    }
    let first = job.checkpoint_now().unwrap();
    assert!(window().checkpoint_bytes > 0 && window().watermark.is_some());
    let second = job.savepoint("saved").unwrap();
    assert!(second > first);
    let metrics = job.metrics();
    assert_eq!(metrics.checkpoints.completed, 2);
    assert_eq!(metrics.checkpoints.last_id, Some(second));
    assert!(job.savepoint("saved").unwrap_err().message().contains("not empty"));
    assert_eq!(job.status(), Status::Running);
    job.stop();
    let report = job.wait(WAIT).unwrap().unwrap();
    assert_eq!(report.status, Status::Stopped);
    assert!(report.checkpoint.unwrap() > second);
    assert!(report.notes.iter().any(|note| note.contains("savepoint")), "{:?}", report.notes);
    assert_eq!(report.metrics.progress.rows_read, 1000);
}
