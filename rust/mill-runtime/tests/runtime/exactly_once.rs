//! A kill at any instant, a restart with any parallelism: the output is that of a run without failures.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mill_protocol::Source;
use mill_runtime::{JobGraph, Mode, RunOptions, Status, start};
use mill_snapshot::{FaultDisk, Store};

use crate::support::*;

/// What is outside the process.
pub struct World {
    pub disk: Arc<FaultDisk>,
    pub sinks: [MemorySink; 2],
}

impl World {
    pub fn new() -> World {
        World { disk: Arc::new(FaultDisk::new()), sinks: [MemorySink::default(), MemorySink::default()] }
    }

    /// The options of a job that continues where the last one was killed.
    pub fn options(&self, seed: u64) -> RunOptions {
        let store = Store::open("state", self.disk.clone()).unwrap();
        let restore = store.latest(&mut Vec::new()).unwrap();
        RunOptions { store: Some(store), restore, schedule_seed: Some(seed), queue_capacity: 1, frame_rows: 5, ..options() }
    }
}

fn graph(random: &mut Random, sources: &[Vec<Vec<Record>>], world: &World) -> JobGraph {
    let hesitates = random.below(2) == 0;
    let sources = sources.iter().map(|splits| {
        let mut source = MemorySource::new(splits.clone());
        source.hesitates = hesitates;
        source.rows_max = 1 + random.below(6) as usize;
        Arc::new(source) as Arc<dyn Source>
    });
    let sources = sources.collect();
    let parallelism = [1 + random.below(3), 1 + random.below(4), 1].map(|p| p as usize);
    windows_and_totals(sources, &parallelism, &world.sinks)
}

/// How often what was given differs from what had to be given.
#[derive(Debug, Default)]
struct Found {
    missing: usize,
    surplus: usize,
}

/// Runs a job of the seed's making, with kills, to its end.
fn run(seed: u64, mode: Mode) -> Found {
    run_with(seed, mode, &Dice::new(seed, 0)).0
}

/// The same, of operators that fail as the dice fall, and how often a task went back alone.
fn run_with(seed: u64, mode: Mode, dice: &Arc<Dice>) -> (Found, usize) {
    let mut random = Random(seed);
    let went_back = Arc::new(AtomicUsize::new(0));
    let sources: Vec<Vec<Vec<Record>>> = (0..1 + random.below(2))
        .map(|_| {
            let splits = 1 + random.below(3);
            let rows: Vec<u64> = (0..splits).map(|_| random.below(80)).collect();
            rows.into_iter().map(|rows| records(&mut random, rows, 8)).collect()
        })
        .collect();
    let splits: Vec<Vec<Record>> = sources.iter().flatten().cloned().collect();
    let (windows, totals) = expected(&splits);
    let mut world = World::new();
    let mut kills = 0;
    loop {
        let mut options = world.options(random.below(u64::MAX));
        options.mode = mode;
        let counted = Arc::clone(&went_back);
        options.task_restarts = Some(Arc::new(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
            Some(Duration::ZERO)
        }));
        let job = start(flaky(graph(&mut random, &sources, &world), dice), options).unwrap();
        let steps = if kills < 6 { random.below(1500) } else { u64::MAX };
        if job.run_steps(steps) {
            match job.wait(None).unwrap() {
                Ok(report) => {
                    assert_eq!(report.status, Status::Finished, "seed {seed}");
                    break;
                }
                // What a failed task had done could not be taken back: the job goes back, as after a kill.
                Err(error) => assert!(mode == Mode::Dedup && dice.is_loaded(), "seed {seed}: {error}"),
            }
        } else {
            kills += 1;
        }
        drop(job);
        world.disk = Arc::new(world.disk.after_kill());
    }
    // A finished job that is run again does nothing.
    world.disk = Arc::new(world.disk.after_kill());
    let mut options = world.options(1);
    options.mode = mode;
    let report = start(graph(&mut random, &sources, &world), options).unwrap().wait(None).unwrap().unwrap();
    assert_eq!(report.status, Status::Finished);
    assert!(report.notes[0].contains("nothing to do"), "{:?}", report.notes);
    let mut found = Found::default();
    for (given, expected) in [(world.sinks[0].sorted(), windows), (world.sinks[1].sorted(), totals)] {
        let keys = |rows: &[Vec<i64>]| rows.iter().map(|row| (row[0], row[1])).collect::<BTreeSet<_>>();
        found.missing += keys(&expected).difference(&keys(&given)).count();
        found.surplus += (given != expected) as usize;
    }
    (found, went_back.load(Ordering::Relaxed))
}

/// The seeds to run; `MILL_SEEDS=5000` or `MILL_SEEDS=1234..1235` asks for others.
fn seeds(usual: u64) -> Range<u64> {
    let Ok(asked) = std::env::var("MILL_SEEDS") else { return 0..usual };
    let number = |text: &str| text.parse().expect("MILL_SEEDS is a number or a range");
    asked.split_once("..").map_or_else(|| 0..number(&asked), |(from, to)| number(from)..number(to))
}

#[test]
fn kills_and_rescales_under_any_schedule_change_nothing() {
    for seed in seeds(300) {
        let found = run(seed, Mode::ExactlyOnce);
        assert!(found.missing == 0 && found.surplus == 0, "seed {seed}: {found:?}");
    }
}

#[test]
fn tasks_that_fail_go_back_alone_and_change_nothing() {
    let mut went_back = 0;
    for seed in seeds(300) {
        let (found, times) = run_with(seed, Mode::Dedup, &Dice::new(seed, 40 + seed % 200));
        assert!(found.missing == 0 && found.surplus == 0, "seed {seed}: {found:?}");
        went_back += times;
    }
    assert!(went_back > 300, "only {went_back} tasks went back alone");
}

#[test]
fn without_alignment_nothing_is_missing_and_some_comes_twice() {
    let mut differing = 0;
    for seed in 0..100 {
        let found = run(seed, Mode::AtLeastOnce);
        assert_eq!(found.missing, 0, "seed {seed}");
        differing += found.surplus;
    }
    assert!(differing > 0, "no duplicate in any run: the kills prove nothing");
}
