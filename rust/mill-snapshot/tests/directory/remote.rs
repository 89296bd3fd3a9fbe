//! Checkpoints in an object store: requests that fail at every place, caches that are lost or lie, jobs that were taken for dead.

use std::sync::Arc;

use mill_snapshot::{Checkpoint, Error, FaultDisk, Holder, Remote, Result, Store};

use crate::objects::{Fate, Objects};
use crate::support::{Job, restored};

const PLACE: &str = "s3://bucket/place";
const STEPS: usize = 5;

/// A run on a machine with this disk, which takes the lease whoever has it.
fn open(disk: &FaultDisk, objects: &Objects, run: u64) -> Result<Store> {
    open_so(disk, objects, run, false)
}

fn open_so(disk: &FaultDisk, objects: &Objects, run: u64, is_anew: bool) -> Result<Store> {
    Store::open_remote("cache", PLACE, Arc::new(disk.clone()), is_anew, || {
        let holder = Holder { host: "machine".to_owned(), pid: run as u32, ..Holder::default() };
        let found = Remote::look(objects)?;
        let taken = Remote::acquire(Arc::new(objects.clone()), found, holder, run, Box::new(|| false))?;
        Ok(taken.expect("nobody else is here"))
    })
}

fn assert_restores(checkpoint: &Checkpoint, job: &Job) {
    assert_eq!(restored(checkpoint, 1), job.model, "state of checkpoint {}", checkpoint.id());
}

fn newest(store: &Store) -> Option<Checkpoint> {
    store.latest(&mut Vec::new()).unwrap()
}

#[test]
fn another_machine_goes_on() {
    let objects = Objects::default();
    let mut job = Job::new(1);
    for run in 1..=6 {
        // Every run has a cache of its own, but for the last two.
        let disk = FaultDisk::new();
        for run in if run == 6 { vec![6, 7] } else { vec![run] } {
            let store = open(&disk, &objects, run).unwrap();
            let found = newest(&store);
            if run > 1 {
                assert_restores(found.as_ref().unwrap(), &job);
                store.continue_from(&found.unwrap()).unwrap();
            }
            for _ in 0..7 {
                let manifest = job.checkpoint(&store).unwrap();
                store.settle(manifest.id, false).unwrap();
                store.retire(3, manifest.id).unwrap();
                store.sweep().unwrap();
            }
            assert_eq!(store.list().unwrap().len(), 3);
        }
    }
    let manifests = objects.names().into_iter().filter(|name| name.starts_with("manifest-")).count();
    assert_eq!(manifests, 3, "{:?}", objects.names());
}

/// Runs a job until a checkpoint fails for good or all are taken; returns the state after the last that was published, and the one after the
/// next if it may have been.
fn run_until_failure(objects: &Objects, disk: &FaultDisk, run: u64) -> (Option<Job>, Option<Job>) {
    let Ok(store) = open(disk, objects, run) else { return (None, None) };
    let (mut job, mut published, mut doubtful) = (Job::new(3), None, None);
    for _ in 0..STEPS {
        match job.checkpoint(&store) {
            Ok(manifest) => {
                (published, doubtful) = (Some(job.clone()), None);
                let _ = store.settle(manifest.id, false);
                let _ = store.retire(2, manifest.id);
                let _ = store.sweep();
            }
            Err(Error::Indeterminate { .. }) => doubtful = Some(job.clone()),
            Err(error) => assert!(error.is_transient(), "{error}"),
        }
    }
    // A kill gives nothing back.
    std::mem::forget(store);
    (published, doubtful)
}

fn restores(objects: &Objects, disk: &FaultDisk, published: Option<Job>, doubtful: Option<Job>, what: &str) {
    let store = open(&disk.after_kill(), objects, 99).unwrap_or_else(|error| panic!("{what}: {error}"));
    let found = newest(&store);
    let is = |job: &Option<Job>| match (&found, job) {
        (None, None) => true,
        (Some(found), Some(job)) => restored(found, 1) == job.model,
        _ => false,
    };
    assert!(is(&published) || (doubtful.is_some() && is(&doubtful)), "{what}: found {:?}", found.map(|found| found.id()));
}

#[test]
fn every_request_may_fail() {
    let total = {
        let objects = Objects::default();
        run_until_failure(&objects, &FaultDisk::new(), 1);
        objects.requests()
    };
    assert!(total > 20, "{total}");
    for request in 1..=total {
        for fate in [Fate::Fail, Fate::Lose, Fate::Delay] {
            for is_lost in [false, true] {
                let (objects, disk) = (Objects::default(), FaultDisk::new());
                objects.set_fate(request, fate);
                let (published, doubtful) = run_until_failure(&objects, &disk, 1);
                let disk = if is_lost { FaultDisk::new() } else { disk };
                if is_lost {
                    objects.land();
                }
                restores(&objects, &disk, published, doubtful, &format!("request {request} {fate:?}, cache lost: {is_lost}"));
            }
        }
        // The process dies there.
        let (objects, disk) = (Objects::default(), FaultDisk::new());
        objects.set_down_from(Some(request));
        let (published, doubtful) = run_until_failure(&objects, &disk, 1);
        objects.set_down_from(None);
        restores(&objects, &disk, published, doubtful, &format!("dead from request {request}"));
    }
}

#[test]
fn whoever_lost_the_lease_publishes_nothing() {
    for is_delayed in [false, true] {
        let objects = Objects::default();
        let first = open(&FaultDisk::new(), &objects, 1).unwrap();
        let mut job = Job::new(1);
        job.checkpoint(&first).unwrap();
        let mut other = job.clone();
        if is_delayed {
            // All requests of the next checkpoint are under way when the job is taken for dead.
            (1..=40).for_each(|next| objects.set_fate(objects.requests() + next, Fate::Delay));
            other.checkpoint(&first).unwrap_err();
        }
        let requests = objects.requests();
        (0..60).for_each(|next| objects.set_fate(requests + next, Fate::Fail));
        let second = loop {
            // Those fates are over after some attempts.
            match open(&FaultDisk::new(), &objects, 2) {
                Ok(store) => break store,
                Err(error) => assert!(matches!(error, Error::Unreachable { .. }), "{error}"),
            }
        };
        let found = newest(&second).unwrap();
        assert_restores(&found, &job);
        second.continue_from(&found).unwrap();
        objects.land();
        let error = other.checkpoint(&first).unwrap_err();
        assert!(matches!(error, Error::LeaseLost { .. }), "{error}");
        assert!(error.to_string().contains("process 2 on host \"machine\" has taken over"), "{error}");
        assert!(matches!(first.remote().unwrap().renew(), Err(Error::LeaseLost { .. })));
        // The end of the first gives no lease back that is not its own.
        drop(first);
        while job.checkpoint(&second).is_err() {
            // A manifest of the first may have taken the number.
        }
        assert_restores(&newest(&second).unwrap(), &job);
        drop(second);
        let third = open(&FaultDisk::new(), &objects, 3).unwrap();
        assert_restores(&newest(&third).unwrap(), &job);
    }
}

#[test]
fn a_cache_is_believed_only_what_the_store_says() {
    let objects = Objects::default();
    let (ahead, mut job) = (FaultDisk::new(), Job::new(1));
    let store = open(&ahead, &objects, 1).unwrap();
    job.checkpoint(&store).unwrap();
    drop(store);
    // On another machine, which knows more than the store that was put back.
    let before: Vec<(String, Vec<u8>)> = objects.names().into_iter().map(|name| (name.clone(), read(&objects, &name))).collect();
    let published = job.clone();
    let store = open(&ahead, &objects, 2).unwrap();
    let found = newest(&store).unwrap();
    store.continue_from(&found).unwrap();
    job.checkpoint(&store).unwrap();
    drop(store);
    let older = Objects::default();
    before.into_iter().for_each(|(name, bytes)| drop(mill_snapshot::Blobs::upload(&older, &name, bytes.into())));
    let store = open(&ahead, &older, 3).unwrap();
    let found = newest(&store).unwrap();
    assert_restores(&found, &published);
    assert!(store.next_epoch() > found.id() + 1, "a number that was used elsewhere is not used again");
}

fn read(objects: &Objects, name: &str) -> Vec<u8> {
    mill_snapshot::Blobs::read(objects, name).unwrap().unwrap().bytes
}

#[test]
fn damage_in_the_cache_is_mended_and_damage_in_the_store_is_passed_over() {
    let (objects, disk, mut job) = (Objects::default(), FaultDisk::new(), Job::new(1));
    let store = open(&disk, &objects, 1).unwrap();
    job.checkpoint(&store).unwrap();
    let older = job.clone();
    let manifest = job.checkpoint(&store).unwrap();
    drop(store);
    let segment = &manifest.segments.last().unwrap().file;
    let path = std::path::Path::new("cache").join(segment);
    let flip = |disk: &FaultDisk| {
        use mill_snapshot::Disk as _;
        let mut file = disk.open(&path).unwrap();
        let middle = file.bytes().len() / 2;
        file.bytes()[middle] ^= 1;
        file.sync().unwrap();
    };
    flip(&disk);
    let store = open(&disk, &objects, 2).unwrap();
    assert_restores(&newest(&store).unwrap(), &job);
    drop(store);
    objects.change(segment, |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    });
    let store = open(&FaultDisk::new(), &objects, 3).unwrap();
    let mut notes = Vec::new();
    assert_restores(&store.latest(&mut notes).unwrap().unwrap(), &older);
    assert!(notes[0].contains(&format!("{PLACE}/{segment} is damaged")) && notes[0].contains("going back to checkpoint 1"), "{notes:?}");
    drop(store);
    objects.remove(segment);
    let store = open(&FaultDisk::new(), &objects, 4).unwrap();
    let mut notes = Vec::new();
    assert_restores(&store.latest(&mut notes).unwrap().unwrap(), &older);
    assert!(notes[0].contains("the object is gone"), "{notes:?}");
}

#[test]
fn what_killed_runs_have_left_is_deleted() {
    let (objects, mut job) = (Objects::default(), Job::new(1));
    let store = open(&FaultDisk::new(), &objects, 1).unwrap();
    job.checkpoint(&store).unwrap();
    let before = objects.names();
    // The head is not written any more, but the manifest is.
    let last = objects.requests() + 2;
    objects.set_down_from(Some(last + 1));
    job.checkpoint(&store).unwrap_err();
    objects.set_down_from(None);
    std::mem::forget(store);
    assert!(objects.names().len() > before.len());
    let store = open(&FaultDisk::new(), &objects, 2).unwrap();
    assert_eq!(newest(&store).unwrap().id(), 1);
    store.sweep().unwrap();
    assert_eq!(objects.names(), before);
    let anew = {
        drop(store);
        open_so(&FaultDisk::new(), &objects, 3, true).unwrap()
    };
    assert!(newest(&anew).is_none() && objects.names() == before, "nothing is deleted before all has started");
    anew.forget_former().unwrap();
    anew.sweep().unwrap();
    assert_eq!(objects.names(), ["MILLSTREAM"]);
    let mut job = Job::new(2);
    job.checkpoint(&anew).unwrap();
    drop(anew);
    let store = open(&FaultDisk::new(), &objects, 4).unwrap();
    assert_restores(&newest(&store).unwrap(), &job);
}

#[test]
fn a_savepoint_is_there_once_its_head_is() {
    let (objects, saved, mut job) = (Objects::default(), Objects::default(), Job::new(1));
    let disk = FaultDisk::new();
    let store = open(&disk, &objects, 1).unwrap();
    job.checkpoint(&store).unwrap();
    let id = job.checkpoint(&store).unwrap().id;
    saved.set_fate(4, Fate::Fail);
    store.savepoint_remote(id, "scratch-1", &saved).unwrap_err();
    assert!(saved.names().is_empty(), "{:?}", saved.names());
    store.savepoint_remote(id, "scratch-2", &saved).unwrap();
    let error = store.savepoint_remote(id, "scratch-3", &saved).unwrap_err();
    assert!(matches!(error, Error::NotEmpty { .. }), "{error}");
    let looked = Store::inspect_remote("looked", Arc::new(FaultDisk::new()), Arc::new(saved)).unwrap();
    let found = looked.restored(&mut Vec::new()).unwrap();
    assert_restores(&found, &job);
    assert!(found.manifest().is_savepoint && found.location() == std::path::Path::new(PLACE));
    assert!(mill_snapshot::verify_all(&looked).unwrap().is_whole());
}

#[test]
fn files_of_sinks_travel() {
    use mill_snapshot::Disk as _;
    let (objects, disk, mut job) = (Objects::default(), FaultDisk::new(), Job::new(1));
    let store = open(&disk, &objects, 1).unwrap();
    disk.create_dir(std::path::Path::new("cache/kafka")).unwrap();
    let mut file = disk.create(std::path::Path::new("cache/kafka/1-2.messages"), 5).unwrap();
    file.bytes().copy_from_slice(b"12345");
    drop(file);
    let writer = store.begin(store.next_epoch(), true).unwrap();
    let files = vec!["kafka/1-2.messages".to_owned()];
    let first = writer.finish(mill_snapshot::ManifestParts { files, ..Default::default() }).unwrap();
    assert!(objects.names().contains(&"kafka/1-2.messages".to_owned()));
    let other = FaultDisk::new();
    drop(store);
    let store = open(&other, &objects, 2).unwrap();
    newest(&store).unwrap();
    assert_eq!(&*other.map(std::path::Path::new("cache/kafka/1-2.messages")).unwrap(), b"12345");
    // Once no checkpoint names it, it is deleted.
    for _ in 0..3 {
        let manifest = job.checkpoint(&store).unwrap();
        store.retire(1, manifest.id).unwrap();
        store.sweep().unwrap();
        assert!(manifest.id > first.id);
    }
    assert!(!objects.names().contains(&"kafka/1-2.messages".to_owned()), "{:?}", objects.names());
}
