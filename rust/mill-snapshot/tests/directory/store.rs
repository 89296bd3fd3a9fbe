//! What a store promises while nothing goes wrong.

use std::sync::Arc;

use mill_snapshot::{Checkpoint, Disk, Error, Fault as DiskFault, FaultDisk, Handle, OperatorState, RealDisk, Store, TaskId, verify};
use crate::support::{Job, Model, assert_is, parts, restored};

fn latest(store: &Store) -> Checkpoint {
    let mut notes = Vec::new();
    let checkpoint = store.latest(&mut notes).unwrap().expect("a checkpoint was published");
    assert_eq!(notes, Vec::<String>::new());
    checkpoint
}

fn run_many(path: &std::path::Path, disk: Arc<dyn Disk>) {
    let mut job = Job::new(7);
    let store = Store::open(path, Arc::clone(&disk)).unwrap();
    assert!(store.latest(&mut Vec::new()).unwrap().is_none());
    let mut store = store;
    for round in 0..60 {
        let manifest = job.checkpoint(&store).unwrap();
        store.retire(2, manifest.id).unwrap();
        assert_is(&latest(&store), manifest.id, &job.model);
        assert_eq!(restored(&latest(&store), 3), job.model, "under another parallelism");
        if round % 7 == 6 {
            drop(store);
            store = Store::open(path, Arc::clone(&disk)).unwrap();
            store.continue_from(&latest(&store)).unwrap();
            job.parallelism = 1 + round % 5;
        }
    }
    assert!(store.list().unwrap().len() <= 2);
    let report = verify(path, disk).unwrap();
    assert!(report.is_whole(), "{report:?}");
}

#[test]
fn state_comes_back_after_any_number_of_checkpoints() {
    run_many("state".as_ref(), Arc::new(FaultDisk::new()));
}

#[test]
fn state_comes_back_from_a_real_disk() {
    let directory = tempfile::tempdir().unwrap();
    run_many(&directory.path().join("a/b"), Arc::new(RealDisk));
}

#[test]
fn large_tasks_get_segments_of_their_own() {
    let disk: Arc<dyn Disk> = Arc::new(FaultDisk::new());
    let store = Store::open("state", disk).unwrap();
    let mut job = Job { payload: 400_000, changes: 30, ..Job::new(3) };
    let manifest = job.checkpoint(&store).unwrap();
    assert!(manifest.segments.len() > 1, "{:?}", manifest.segments);
    let manifest = job.checkpoint(&store).unwrap();
    assert_is(&latest(&store), manifest.id, &job.model);
}

#[test]
fn numbers_are_never_used_twice() {
    let store = Store::open("state", Arc::new(FaultDisk::new())).unwrap();
    let mut job = Job::new(1);
    let first = job.checkpoint(&store).unwrap();
    assert!(matches!(store.begin(first.id, true), Err(Error::EpochTaken { next: 2, .. })));
    let writer = store.begin(9, true).unwrap();
    writer.abandon();
    assert_eq!(store.next_epoch(), 10);
}

#[test]
fn after_a_failed_checkpoint_the_next_must_be_full() {
    let store = Store::open("state", Arc::new(FaultDisk::new())).unwrap();
    let mut job = Job::new(1);
    job.checkpoint(&store).unwrap();
    assert!(!store.should_rebase());
    drop(store.begin(2, false).unwrap());
    assert!(store.should_rebase());
    assert!(matches!(store.begin(3, false), Err(Error::NeedsFull { epoch: 3 })));
    let manifest = job.checkpoint(&store).unwrap();
    assert!(!store.should_rebase());
    assert_is(&latest(&store), manifest.id, &job.model);
}

#[test]
fn a_finished_writer_takes_nothing_more() {
    let store = Store::open("state", Arc::new(FaultDisk::new())).unwrap();
    let writer = store.begin(1, true).unwrap();
    writer.finish(parts(1, 1)).unwrap();
    assert!(matches!(writer.finish(parts(1, 1)), Err(Error::Closed { epoch: 1 })));
    drop(writer);
    assert_eq!(latest(&store).id(), 1);
}

#[test]
fn blocks_of_a_former_operator_of_the_same_name_do_not_come_back() {
    let store = Store::open("state", Arc::new(FaultDisk::new())).unwrap();
    let mut job = Job::new(5);
    job.checkpoint(&store).unwrap();
    // The operator is not in the plan for one checkpoint, then it is again.
    let mut without = parts(2, 1);
    without.operators.retain(|info| info.uid != "count");
    store.begin(2, false).unwrap().finish(without).unwrap();
    store.begin(3, false).unwrap().finish(parts(3, 1)).unwrap();
    assert_eq!(restored(&latest(&store), 1), Model::new());
}

#[test]
fn a_savepoint_stands_alone() {
    let disk: Arc<dyn Disk> = Arc::new(FaultDisk::new());
    let mut job = Job::new(11);
    let store = Store::open("state", Arc::clone(&disk)).unwrap();
    for _ in 0..5 {
        job.checkpoint(&store).unwrap();
    }
    let wanted = job.model.clone();
    let savepoint = store.savepoint(5, "savepoint").unwrap();
    assert!(savepoint.is_savepoint && savepoint.segments.len() == 1);
    assert!(matches!(store.savepoint(5, "savepoint"), Err(Error::NotEmpty { .. })));
    for _ in 0..5 {
        job.checkpoint(&store).unwrap();
    }
    store.retire(1, 10).unwrap();
    let checkpoint = Checkpoint::restore_from("savepoint", Arc::clone(&disk), &mut Vec::new()).unwrap();
    assert_is(&checkpoint, 5, &wanted);
    // Going on from it in another directory begins with a full checkpoint.
    let other = Store::open("other", disk).unwrap();
    other.continue_from(&checkpoint).unwrap();
    assert!(other.should_rebase());
    job.model = wanted;
    let manifest = job.checkpoint(&other).unwrap();
    assert_is(&latest(&other), manifest.id, &job.model);
}

#[test]
fn a_long_chain_is_merged_beside_the_job() {
    let disk: Arc<dyn Disk> = Arc::new(FaultDisk::new());
    let store = Store::open("state", Arc::clone(&disk)).unwrap();
    let mut job = Job { payload: 4_000_000, changes: 30, ..Job::new(3) };
    job.checkpoint(&store).unwrap();
    (job.payload, job.changes) = (300, 6);
    let mut merges = 0;
    for _ in 0..120 {
        let manifest = job.checkpoint(&store).unwrap();
        if store.should_compact() {
            merges += usize::from(store.compact().unwrap().is_some());
            let manifest = job.checkpoint(&store).unwrap();
            assert!(manifest.segments.iter().any(|segment| segment.file.contains("merged")), "{manifest:?}");
            assert_is(&latest(&store), manifest.id, &job.model);
        }
        store.retire(1, manifest.id).unwrap();
        assert!(manifest.segments.len() <= 34, "{} segments", manifest.segments.len());
    }
    assert!(merges >= 3, "{merges} merges");
    let manifest = job.checkpoint(&store).unwrap();
    assert_is(&latest(&store), manifest.id, &job.model);
    drop(store);
    let store = Store::open("state", disk).unwrap();
    assert_is(&latest(&store), manifest.id, &job.model);
}

#[test]
fn retirement_keeps_what_a_sink_has_not_committed() {
    let store = Store::open("state", Arc::new(FaultDisk::new())).unwrap();
    let mut job = Job::new(1);
    for _ in 0..5 {
        job.checkpoint(&store).unwrap();
    }
    store.retire(1, 3).unwrap();
    let ids: Vec<u64> = store.list().unwrap().iter().map(|info| info.id).collect();
    assert_eq!(ids, [5, 4, 3]);
}

#[test]
fn the_directory_of_something_else_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("thesis.tex"), "text").unwrap();
    let error = Store::open(directory.path(), Arc::new(RealDisk)).unwrap_err();
    assert!(matches!(error, Error::NotACheckpoint { .. }), "{error}");
    assert!(error.to_string().contains("thesis.tex"), "{error}");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "nothing was left behind");
}

#[test]
fn tasks_are_written_merged_and_retired_from_many_threads() {
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path().join("state"), Arc::new(RealDisk)).unwrap();
    let mut job = Job { payload: 2_000_000, changes: 40, parallelism: 4, ..Job::new(23) };
    let (is_done, published) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Ordering::Acquire) {
                store.compact().unwrap();
                store.retire(1, published.load(Ordering::Acquire)).unwrap();
                std::thread::yield_now();
            }
        });
        for round in 0..80 {
            let (epoch, is_full) = (store.next_epoch(), store.should_rebase() || round == 50);
            let blocks = job.step(is_full);
            let writer = store.begin(epoch, is_full).unwrap();
            std::thread::scope(|tasks| {
                for (index, blocks) in blocks.into_iter().enumerate() {
                    let (writer, parallelism) = (&writer, job.parallelism);
                    tasks.spawn(move || {
                        let task = TaskId { chain: "count".to_owned(), index: index as u32, parallelism };
                        let bytes = Some(format!("{epoch}/{index}").into_bytes());
                        let handles = vec![Handle { epoch, bytes: format!("file-{epoch}-{index}").into_bytes() }];
                        let count = OperatorState { uid: "count".to_owned(), bytes, blocks, handles: Vec::new() };
                        let sink = OperatorState { uid: "sink".to_owned(), handles, ..OperatorState::default() };
                        writer.write_task(&task, vec![count, sink]).unwrap();
                    });
                }
            });
            writer.finish(parts(epoch, job.parallelism)).unwrap();
            published.store(epoch, Ordering::Release);
            (job.payload, job.changes) = (200, 5);
            if round % 10 == 9 {
                assert_is(&store.checkpoint(epoch).unwrap(), epoch, &job.model);
            }
        }
        is_done.store(true, Ordering::Release);
    });
    let epoch = published.load(Ordering::Acquire);
    assert_is(&latest(&store), epoch, &job.model);
    store.retire(1, epoch).unwrap();
    let files = std::fs::read_dir(store.path()).unwrap().count();
    assert!(files <= 40, "{files} files are left");
}

#[test]
fn what_holds_no_keyed_state_is_not_kept_for_later() {
    let store = Store::open("state", Arc::new(FaultDisk::new())).unwrap();
    for epoch in 1..50 {
        let writer = store.begin(epoch, store.should_rebase()).unwrap();
        let task = TaskId { chain: "read".to_owned(), index: 0, parallelism: 1 };
        let source = OperatorState { uid: "count".to_owned(), bytes: Some(vec![7; 100]), ..OperatorState::default() };
        writer.write_task(&task, vec![source]).unwrap();
        assert_eq!(writer.finish(parts(epoch, 1)).unwrap().segments.len(), 1);
    }
    assert_eq!(&*latest(&store).restored("count", 0..128).0[0], [7; 100]);
}

#[test]
fn a_checkpoint_is_settled_once_it_was_noted_and_so_is_its_savepoint() {
    let disk: Arc<dyn Disk> = Arc::new(FaultDisk::new());
    let store = Store::open("state", Arc::clone(&disk)).unwrap();
    let mut job = Job::new(3);
    let (first, second) = (job.checkpoint(&store).unwrap().id, job.checkpoint(&store).unwrap().id);
    assert!(!latest(&store).is_settled());
    store.savepoint(second, "unsettled").unwrap();
    store.settle(first, false).unwrap();
    assert!(store.checkpoint(first).unwrap().is_settled() && !store.checkpoint(second).unwrap().is_settled());
    store.settle(second, true).unwrap();
    store.settle(first, false).unwrap();
    store.savepoint(second, "settled").unwrap();
    drop(store);
    let store = Store::open("state", Arc::clone(&disk)).unwrap();
    assert!(latest(&store).is_settled());
    assert_eq!(store.newest_published().unwrap(), second);
    store.continue_from(&latest(&store)).unwrap();
    job.checkpoint(&store).unwrap();
    assert!(!latest(&store).is_settled());
    for (path, is_settled) in [("settled", true), ("unsettled", false)] {
        let savepoint = Checkpoint::restore_from(path, Arc::clone(&disk), &mut Vec::new()).unwrap();
        assert_eq!(savepoint.is_settled(), is_settled, "{path}");
    }
}

#[test]
fn a_savepoint_that_fails_leaves_nothing_at_whatever_operation() {
    let prepared = FaultDisk::new();
    let mut job = Job::new(1);
    let store = Store::open("state", Arc::new(prepared.clone())).unwrap();
    (0..3).for_each(|_| drop(job.checkpoint(&store).unwrap()));
    drop(store);
    for is_there in [false, true] {
        let mut failures = 0;
        loop {
            let disk = prepared.after_kill();
            if is_there {
                disk.create_dir("savepoint".as_ref()).unwrap();
            }
            let store = Store::open("state", Arc::new(disk.clone())).unwrap();
            disk.fail_at(disk.operations() + failures, DiskFault::Fail);
            let taken = store.savepoint(3, "savepoint");
            if taken.is_ok() {
                break;
            }
            failures += 1;
            let left: Vec<_> = disk.files().into_iter().filter(|path| path.starts_with("savepoint")).collect();
            assert!(left.is_empty(), "operation {failures}: {left:?}");
            assert_eq!(disk.list("savepoint".as_ref()).is_ok(), is_there, "operation {failures}");
            // The job continues, and the next one to the same place succeeds.
            store.savepoint(3, "savepoint").unwrap();
        }
        assert!(failures > 10, "only {failures} operations failed");
    }
}

#[test]
fn a_directory_that_begins_anew_has_nothing_of_before() {
    for is_killed in [false, true] {
        let disk = Arc::new(FaultDisk::new());
        let store = Store::open("state", Arc::clone(&disk) as Arc<dyn Disk>).unwrap();
        let mut job = Job::new(3);
        for _ in 0..5 {
            job.checkpoint(&store).unwrap();
        }
        let former = store.id();
        assert!(matches!(Store::open_anew("state", Arc::clone(&disk) as Arc<dyn Disk>), Err(Error::Locked { .. })));
        drop(store);
        // Until it is said to be forgotten, what was there stays.
        drop(Store::open_anew("state", Arc::clone(&disk) as Arc<dyn Disk>).unwrap());
        assert_is(&latest(&Store::open("state", Arc::clone(&disk) as Arc<dyn Disk>).unwrap()), 5, &job.model);
        let store = Store::open_anew("state", Arc::clone(&disk) as Arc<dyn Disk>).unwrap();
        assert_ne!(store.id(), former);
        assert!(store.latest(&mut Vec::new()).unwrap().is_none());
        assert_eq!((store.newest_published().unwrap(), store.next_epoch()), (0, 1));
        store.forget_former().unwrap();
        assert!(store.latest(&mut Vec::new()).unwrap().is_none());
        assert_eq!(store.newest_published().unwrap(), 0);
        assert!(store.list().unwrap().is_empty());
        let mut job = Job::new(8);
        if is_killed {
            // Before its first checkpoint: the next run finds a directory in which nothing was published.
            drop(store);
            let store = Store::open("state", Arc::clone(&disk) as Arc<dyn Disk>).unwrap();
            assert!(store.latest(&mut Vec::new()).unwrap().is_none());
            continue;
        }
        let manifest = job.checkpoint(&store).unwrap();
        drop(store);
        let store = Store::open("state", disk as Arc<dyn Disk>).unwrap();
        assert_is(&latest(&store), manifest.id, &job.model);
    }
}
