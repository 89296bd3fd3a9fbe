//! Mode none: nothing is replayed, and the notes of the positions are what a restart continues after.

use std::collections::BTreeMap;
use std::sync::Arc;

use mill_protocol::{Batch, Operator, Outbox, Progress, Result};
use mill_runtime::{JobGraph, Mode, Status, Target, start};

use crate::exactly_once::World;
use crate::support::*;

/// Passes records on: to a sink that shows each of them.
struct Pass;

impl Operator for Pass {
    fn on_batch(&mut self, _input: usize, batch: Batch, out: &mut Outbox) -> Result<Progress> {
        out.push(batch);
        Ok(Progress::Done)
    }
}

fn graph(splits: &[Vec<Record>], parallelism: usize, target: &MemorySink) -> JobGraph {
    let pass = operator("pass", "", vec![vec![Target::Stage(1, 0)]], |_| Pass);
    let from = source("source", MemorySource::new(splits.to_vec()));
    JobGraph { chains: vec![chain("pass", parallelism, Some(from), vec![pass, sink("sink", target)])], edges: vec![] }
}

#[test]
fn nothing_is_replayed_after_a_kill() {
    let mut was_lost = false;
    for seed in 0..60 {
        let mut random = Random(seed);
        let mut next = 0;
        // Every record has a value of its own.
        let splits: Vec<Vec<Record>> = (0..3)
            .map(|_| (0..60).map(|_| { next += 1; (next % 5, next, next) }).collect())
            .collect();
        let mut world = World::new();
        for kill in 0.. {
            let mut options = world.options(random.below(1000));
            options.mode = Mode::None;
            let parallelism = 1 + random.below(3) as usize;
            let job = start(graph(&splits, parallelism, &world.sinks[0]), options).unwrap();
            if job.run_steps(if kill < 3 { random.below(200) } else { u64::MAX }) {
                assert_eq!(job.wait(None).unwrap().unwrap().status, Status::Finished);
                break;
            }
            drop(job);
            world.disk = Arc::new(world.disk.after_kill());
        }
        let mut seen: BTreeMap<i64, u32> = BTreeMap::new();
        for row in world.sinks[0].sorted() {
            *seen.entry(row[1]).or_default() += 1;
        }
        assert!(seen.values().all(|count| *count == 1), "seed {seed}: something came twice");
        was_lost |= (seen.len() as i64) < next;
    }
    assert!(was_lost, "no run lost anything: the kills prove nothing");
}

#[test]
fn a_directory_of_another_mode_is_refused() {
    let splits = vec![(1..50).map(|i| (i, i, i)).collect::<Vec<Record>>()];
    let mut world = World::new();
    let job = start(graph(&splits, 1, &world.sinks[0]), world.options(1)).unwrap();
    job.wait(None).unwrap().unwrap();
    drop(job);
    world.disk = Arc::new(world.disk.after_kill());
    let mut options = world.options(1);
    options.mode = Mode::None;
    options.restore = None;
    assert!(start(graph(&splits, 1, &world.sinks[0]), options).err().unwrap().message().contains("another mode"));

    let mut world = World::new();
    let mut options = world.options(1);
    options.mode = Mode::None;
    let job = start(graph(&splits, 1, &world.sinks[0]), options).unwrap();
    job.run_steps(40);
    drop(job);
    world.disk = Arc::new(world.disk.after_kill());
    let error = start(graph(&splits, 1, &world.sinks[0]), world.options(1)).err().unwrap();
    assert!(error.message().contains("mode none"), "{error}");
}
