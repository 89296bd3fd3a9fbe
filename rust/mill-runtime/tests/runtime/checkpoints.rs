//! Checkpoints that fail, savepoints, and restores that do not fit.

use std::sync::Arc;

use mill_protocol::Source;
use mill_runtime::{RunOptions, Status, start};
use mill_snapshot::{Checkpoint, FaultDisk, Store};

use crate::exactly_once::World;
use crate::support::*;

fn splits() -> Vec<Vec<Record>> {
    let mut random = Random(7);
    (0..2).map(|_| records(&mut random, 600, 10)).collect()
}

fn sources(splits: &[Vec<Record>]) -> Vec<Arc<dyn Source>> {
    vec![Arc::new(MemorySource::new(splits.to_vec()))]
}

#[test]
fn a_full_disk_fails_checkpoints_and_never_the_job() {
    let splits = splits();
    let (windows, totals) = expected(&splits);
    for seed in 0..20 {
        let world = World::new();
        let graph = windows_and_totals(sources(&splits), &[2, 2, 1], &world.sinks);
        let job = start(graph, world.options(seed)).unwrap();
        assert!(!job.run_steps(200 + seed * 10));
        world.disk.set_space(Some(0));
        let error = job.checkpoint_now().unwrap_err();
        assert!(error.message().contains("no space left"), "{error}");
        assert!(!job.run_steps(300));
        world.disk.set_space(None);
        job.checkpoint_now().unwrap();
        let report = job.wait(None).unwrap().unwrap();
        assert_eq!(report.status, Status::Finished);
        assert!(report.metrics.checkpoints.failed > 0);
        assert!(report.notes.iter().any(|note| note.contains("no space left")), "{:?}", report.notes);
        assert_eq!(world.sinks[0].sorted(), windows, "seed {seed}");
        assert_eq!(world.sinks[1].sorted(), totals, "seed {seed}");
    }
}

#[test]
fn a_kill_behind_a_failed_checkpoint_loses_nothing() {
    let splits = splits();
    let (windows, totals) = expected(&splits);
    for seed in 0..40 {
        let mut world = World::new();
        let job = start(windows_and_totals(sources(&splits), &[2, 2, 1], &world.sinks), world.options(seed)).unwrap();
        assert!(!job.run_steps(100 + seed * 5));
        world.disk.set_space(Some(0));
        assert!(job.checkpoint_now().is_err());
        world.disk.set_space(None);
        if seed % 2 == 0 {
            job.checkpoint_now().unwrap();
        }
        assert!(!job.run_steps(100));
        drop(job);
        world.disk = Arc::new(world.disk.after_kill());
        let job = start(windows_and_totals(sources(&splits), &[1, 3, 1], &world.sinks), world.options(seed)).unwrap();
        assert_eq!(job.wait(None).unwrap().unwrap().status, Status::Finished);
        assert_eq!(world.sinks[0].sorted(), windows, "seed {seed}");
        assert_eq!(world.sinks[1].sorted(), totals, "seed {seed}");
    }
}

#[test]
fn a_job_goes_on_from_a_savepoint_in_a_directory_of_its_own() {
    let splits = splits();
    let (windows, totals) = expected(&splits);
    let world = World::new();
    let job = start(windows_and_totals(sources(&splits), &[2, 2, 1], &world.sinks), world.options(3)).unwrap();
    assert!(!job.run_steps(400));
    let id = job.savepoint("saved").unwrap();
    drop(job);
    let disk: Arc<FaultDisk> = Arc::new(world.disk.after_kill());
    let restore = Checkpoint::restore_from("saved", disk.clone(), &mut Vec::new()).unwrap();
    assert!(restore.manifest().is_savepoint);
    assert_eq!(restore.id(), id);
    let store = Store::open("elsewhere", disk).unwrap();
    let options =
        RunOptions { store: Some(store), restore: Some(restore), schedule_seed: Some(4), ..world_options() };
    let job = start(windows_and_totals(sources(&splits), &[1, 3, 1], &world.sinks), options).unwrap();
    let report = job.wait(None).unwrap().unwrap();
    assert_eq!(report.restored, Some(id));
    assert_eq!(world.sinks[0].sorted(), windows);
    assert_eq!(world.sinks[1].sorted(), totals);
}

fn world_options() -> RunOptions {
    RunOptions { queue_capacity: 1, frame_rows: 5, ..options() }
}

#[test]
fn a_savepoint_without_a_store_is_refused() {
    let sinks = [MemorySink::default(), MemorySink::default()];
    let options = RunOptions { schedule_seed: Some(1), ..options() };
    let job = start(windows_and_totals(sources(&splits()), &[1, 1, 1], &sinks), options).unwrap();
    assert!(job.savepoint("saved").unwrap_err().message().contains("checkpoint path"));
}

#[test]
fn another_plan_is_refused_with_a_list_of_names() {
    let splits = splits();
    let mut world = World::new();
    let job = start(windows_and_totals(sources(&splits), &[1, 1, 1], &world.sinks), world.options(3)).unwrap();
    assert!(!job.run_steps(100));
    job.checkpoint_now().unwrap();
    drop(job);
    world.disk = Arc::new(world.disk.after_kill());
    let mut graph = windows_and_totals(sources(&splits), &[1, 1, 1], &world.sinks);
    graph.chains[1].stages[0].signature = "sum by key, 30".to_owned();
    graph.chains[1].stages[1].uid = "other total".to_owned();
    graph.chains[1].stages[1].name = "other total".to_owned();
    let error = start(graph, world.options(1)).err().unwrap().to_string();
    for part in ["no longer in the plan: total", "not in the checkpoint: other total", "changed: window"] {
        assert!(error.contains(part), "{error}");
    }
    assert!(error.contains("was sum by key, is sum by key, 30") || error.contains("sum by key, 20"), "{error}");
}

#[test]
fn a_split_that_is_gone_is_named() {
    let splits = splits();
    let mut world = World::new();
    let job = start(windows_and_totals(sources(&splits), &[2, 1, 1], &world.sinks), world.options(3)).unwrap();
    assert!(!job.run_steps(60));
    job.checkpoint_now().unwrap();
    drop(job);
    world.disk = Arc::new(world.disk.after_kill());
    let fewer = sources(&splits[..1]);
    let error = start(windows_and_totals(fewer, &[1, 1, 1], &world.sinks), world.options(3)).err().unwrap();
    assert!(error.message().contains("split-1"), "{error}");
}

#[test]
fn a_broken_target_fails_the_job_and_the_next_run_repairs_it() {
    let splits = splits();
    let (windows, totals) = expected(&splits);
    let mut world = World::new();
    let job = start(windows_and_totals(sources(&splits), &[2, 2, 1], &world.sinks), world.options(5)).unwrap();
    assert!(!job.run_steps(300));
    world.sinks[0].target.lock().unwrap().is_broken = true;
    let error = job.wait(None).unwrap().unwrap_err();
    assert!(error.message().contains("the target is broken"), "{error}");
    assert_eq!(job.status(), Status::Failed);
    assert_eq!(world.sinks[0].target.lock().unwrap().aborts, 1);
    drop(job);
    world.sinks[0].target.lock().unwrap().is_broken = false;
    world.disk = Arc::new(world.disk.after_kill());
    let job = start(windows_and_totals(sources(&splits), &[2, 2, 1], &world.sinks), world.options(6)).unwrap();
    assert_eq!(job.wait(None).unwrap().unwrap().status, Status::Finished);
    assert_eq!(world.sinks[0].sorted(), windows);
    assert_eq!(world.sinks[1].sorted(), totals);
}
