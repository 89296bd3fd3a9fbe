//! A job on a disk that fails or loses power at every single operation. Whatever happens, the next start finds the
//! newest checkpoint that was published, or one that may have been, with the state it had.

use std::collections::BTreeMap;
use std::sync::Arc;

use mill_snapshot::{Error, Fault, FaultDisk, Store};
use crate::support::{Job, Model, assert_is};

/// What a run knows of its own checkpoints.
#[derive(Default)]
struct History {
    /// The state at every attempt.
    attempts: BTreeMap<u64, Model>,
    /// The newest one that was said to exist.
    published: u64,
}

/// Runs for a while: opens, takes checkpoints, compacts, retires, opens again; continues after errors as a job would.
fn run(disk: &FaultDisk, job: &mut Job, history: &mut History) {
    for _ in 0..3 {
        let Ok(store) = Store::open("state", Arc::new(disk.clone())) else { continue };
        let mut notes = Vec::new();
        match store.latest(&mut notes) {
            Ok(Some(checkpoint)) => {
                assert!(checkpoint.id() >= history.published, "{} was published: {notes:?}", history.published);
                job.model = history.attempts[&checkpoint.id()].clone();
                assert_is(&checkpoint, checkpoint.id(), &job.model);
                history.published = checkpoint.id();
                store.continue_from(&checkpoint).unwrap();
            }
            Ok(None) => {
                assert_eq!(history.published, 0, "started from nothing");
                job.model.clear();
            }
            // The disk failed while it was read: nothing can be said of what is on it.
            Err(_) => continue,
        }
        for _ in 0..4 {
            let epoch = store.next_epoch();
            let taken = job.checkpoint(&store);
            history.attempts.insert(epoch, job.model.clone());
            match taken {
                Ok(manifest) => {
                    history.published = manifest.id;
                    // A failure to clean up or to merge harms nothing.
                    let _ = store.retire(2, manifest.id);
                    let _ = store.compact();
                }
                Err(error) => assert!(error.is_transient(), "{error}"),
            }
        }
    }
}

/// Checks what a start after a crash finds.
fn check(disk: &FaultDisk, history: &History, what: &str) {
    let store = Store::open("state", Arc::new(disk.clone())).unwrap_or_else(|error| panic!("{what}: {error}"));
    let mut notes = Vec::new();
    match store.latest(&mut notes).unwrap_or_else(|error| panic!("{what}: {error}")) {
        Some(checkpoint) => {
            assert!(checkpoint.id() >= history.published, "{what}: {} < {}", checkpoint.id(), history.published);
            assert_is(&checkpoint, checkpoint.id(), &history.attempts[&checkpoint.id()]);
            store.continue_from(&checkpoint).unwrap();
            let mut job = Job { model: history.attempts[&checkpoint.id()].clone(), ..Job::new(1) };
            let manifest = job.checkpoint(&store).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_is(&store.latest(&mut Vec::new()).unwrap().unwrap(), manifest.id, &job.model);
        }
        None => assert_eq!(history.published, 0, "{what}: started from nothing"),
    }
}

fn run_with(fault: Option<(u64, Fault)>) -> (FaultDisk, History) {
    let disk = FaultDisk::new();
    if let Some((operation, fault)) = fault {
        disk.fail_at(operation, fault);
    }
    let mut history = History::default();
    run(&disk, &mut Job { changes: 8, ..Job::new(17) }, &mut history);
    (disk, history)
}

#[test]
fn a_crash_at_any_operation_loses_nothing_that_was_published() {
    let operations = run_with(None).0.operations();
    assert!(operations > 150, "{operations}");
    for operation in 0..operations {
        let (disk, history) = run_with(Some((operation, Fault::Crash)));
        for seed in 0..4 {
            check(&disk.after_crash(seed), &history, &format!("crash at {operation}, seed {seed}"));
        }
        check(&disk.after_kill(), &history, &format!("kill at {operation}"));
    }
}

#[test]
fn a_crash_at_the_end_loses_nothing_that_was_published() {
    let (disk, history) = run_with(None);
    assert_eq!(history.published, 12);
    (0..50).for_each(|seed| check(&disk.after_crash(seed), &history, &format!("seed {seed}")));
}

#[test]
fn a_failure_of_any_operation_fails_one_checkpoint_at_most() {
    let operations = run_with(None).0.operations();
    for operation in 0..operations {
        let (disk, history) = run_with(Some((operation, Fault::Fail)));
        assert!(history.published >= 8, "failure at {operation}: {}", history.published);
        for seed in 0..3 {
            check(&disk.after_crash(seed), &history, &format!("failure at {operation}, seed {seed}"));
        }
        check(&disk.after_kill(), &history, &format!("failure at {operation}, then a kill"));
    }
}

#[test]
fn a_full_disk_fails_checkpoints_until_there_is_space_again() {
    let disk = FaultDisk::new();
    let store = Store::open("state", Arc::new(disk.clone())).unwrap();
    let mut job = Job::new(1);
    job.checkpoint(&store).unwrap();
    let model = job.model.clone();
    disk.set_space(Some(500));
    for _ in 0..5 {
        let error = job.checkpoint(&store).unwrap_err();
        assert!(matches!(error, Error::NoSpace { needed: 501.., free: Some(_), .. }), "{error:?}");
        assert!(error.to_string().contains("free some space"), "{error}");
    }
    assert_is(&store.latest(&mut Vec::new()).unwrap().unwrap(), 1, &model);
    let files = disk.files().len();
    assert_eq!(files, 4, "failed checkpoints leave nothing behind: {:?}", disk.files());
    disk.set_space(None);
    let manifest = job.checkpoint(&store).unwrap();
    assert_is(&store.latest(&mut Vec::new()).unwrap().unwrap(), manifest.id, &job.model);
}

#[test]
fn a_full_disk_at_the_manifest_fails_the_checkpoint_alone() {
    for space in (0..20_000).step_by(97) {
        let disk = FaultDisk::new();
        let store = Store::open("state", Arc::new(disk.clone())).unwrap();
        let mut job = Job::new(1);
        job.checkpoint(&store).unwrap();
        disk.set_space(Some(space));
        while job.checkpoint(&store).is_ok() {}
        disk.set_space(None);
        let manifest = job.checkpoint(&store).unwrap();
        drop(store);
        let store = Store::open("state", Arc::new(disk)).unwrap();
        assert_is(&store.latest(&mut Vec::new()).unwrap().unwrap(), manifest.id, &job.model);
    }
}

#[test]
fn a_savepoint_that_was_cut_short_is_seen_to_be_none() {
    let prepared = FaultDisk::new();
    let mut job = Job::new(1);
    let store = Store::open("state", Arc::new(prepared.clone())).unwrap();
    (0..3).for_each(|_| drop(job.checkpoint(&store).unwrap()));
    drop(store);
    let mut operation = 0;
    loop {
        let disk = prepared.after_kill();
        let store = Store::open("state", Arc::new(disk.clone())).unwrap();
        disk.fail_at(disk.operations() + operation, Fault::Crash);
        let taken = store.savepoint(3, "savepoint");
        for seed in 0..5 {
            let after: Arc<FaultDisk> = Arc::new(disk.after_crash(seed));
            let found = mill_snapshot::Checkpoint::restore_from("savepoint", after, &mut Vec::new());
            match found {
                Ok(checkpoint) => assert_is(&checkpoint, 3, &job.model),
                Err(error) => {
                    assert!(taken.is_err(), "operation {operation}, seed {seed}: {error}");
                }
            }
        }
        if taken.is_ok() {
            assert!(operation > 10);
            return;
        }
        operation += 1;
    }
}

#[test]
fn a_crash_while_a_directory_begins_anew_is_never_an_empty_start() {
    let prepared = FaultDisk::new();
    let mut job = Job::new(1);
    let store = Store::open("state", Arc::new(prepared.clone())).unwrap();
    let mut models = BTreeMap::new();
    for _ in 0..3 {
        let manifest = job.checkpoint(&store).unwrap();
        models.insert(manifest.id, job.model.clone());
    }
    drop(store);
    let mut operation = 0;
    loop {
        let disk = prepared.after_kill();
        disk.fail_at(disk.operations() + operation, Fault::Crash);
        let anew = Store::open_anew("state", Arc::new(disk.clone()));
        let is_done = anew.is_ok_and(|store| store.forget_former().is_ok());
        for seed in 0..5 {
            let after: Arc<FaultDisk> = Arc::new(disk.after_crash(seed));
            let store = Store::open("state", Arc::clone(&after) as Arc<dyn mill_snapshot::Disk>).unwrap();
            let mut notes = Vec::new();
            match store.latest(&mut notes) {
                Ok(Some(checkpoint)) => {
                    assert!(!is_done, "operation {operation}, seed {seed}: it had begun anew");
                    assert_is(&checkpoint, checkpoint.id(), &models[&checkpoint.id()]);
                    assert!(checkpoint.id() == 3 || !notes.is_empty(), "an older one without a word");
                }
                Ok(None) => {}
                Err(error) => assert!(!is_done, "operation {operation}, seed {seed}: {error}"),
            }
            drop(store);
            // To try again always helps.
            let store = Store::open_anew("state", after).unwrap();
            store.forget_former().unwrap();
            assert!(store.latest(&mut Vec::new()).unwrap().is_none());
        }
        if is_done {
            assert!(operation > 5, "only {operation} operations");
            return;
        }
        operation += 1;
    }
}
