//! What needs a second process: the lock on a directory, and notes that outlive a kill.

mod support;

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;

use mill_snapshot::{Error, RealDisk, Store};
use support::{Job, assert_is};

const DIRECTORY: &str = "MILL_SNAPSHOT_TEST_DIRECTORY";

/// Runs one of the tests below as another process, with a directory to work in.
fn spawn(test: &str, directory: &Path) -> (Child, BufReader<ChildStdout>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--include-ignored"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap());
    (child, lines)
}

/// The next line that the child says to us.
fn told(lines: &mut BufReader<ChildStdout>) -> String {
    for line in lines.lines() {
        if let Some((_, told)) = line.unwrap().split_once("told: ") {
            return told.to_owned();
        }
    }
    panic!("the child ended without a word");
}

#[test]
fn two_processes_cannot_work_in_one_directory() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    let (mut child, mut lines) = spawn("child_that_holds_the_lock", &path);
    assert_eq!(told(&mut lines), "locked");
    let error = Store::open(&path, Arc::new(RealDisk)).unwrap_err();
    assert!(matches!(error, Error::Locked { holder: Some(holder), .. } if holder == child.id()), "{error}");
    assert!(error.to_string().contains(&format!("process {}", child.id())), "{error}");
    // Looking is allowed.
    let store = Store::inspect(&path, Arc::new(RealDisk)).unwrap();
    assert_eq!(store.latest(&mut Vec::new()).unwrap().unwrap().id(), 1);
    assert!(matches!(store.begin(2, true), Err(Error::ReadOnly { .. })));
    // However the holder ends, the lock is free.
    child.kill().unwrap();
    child.wait().unwrap();
    let store = Store::open(&path, Arc::new(RealDisk)).unwrap();
    let mut job = Job::new(1);
    job.step(false);
    assert_is(&store.latest(&mut Vec::new()).unwrap().unwrap(), 1, &job.model);
    // The same process cannot either.
    let error = Store::open(&path, Arc::new(RealDisk)).unwrap_err();
    assert!(error.to_string().contains("another job of this process"), "{error}");
    drop(store);
    Store::open(&path, Arc::new(RealDisk)).unwrap();
}

#[test]
#[ignore = "a part of another test"]
fn child_that_holds_the_lock() {
    let Some(path) = std::env::var_os(DIRECTORY) else { return };
    let store = Store::open(&path, Arc::new(RealDisk)).unwrap();
    Job::new(1).checkpoint(&store).unwrap();
    println!("told: locked");
    let _ = std::io::stdin().read(&mut [0]);
    std::thread::park();
}

#[test]
fn positions_outlive_a_kill_and_never_lag_behind_what_went_out() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    let mut last = 0;
    for round in 0..8 {
        let (mut child, mut lines) = spawn("child_that_notes_positions", &path);
        for _ in 0..20 + round * 7 {
            last = told(&mut lines).parse().unwrap();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let store = Store::open(&path, Arc::new(RealDisk)).unwrap();
        let noted = store.read_positions().unwrap();
        let noted: u64 = String::from_utf8(noted[0].1.clone()).unwrap().parse().unwrap();
        assert!(noted >= last, "{last} went out, {noted} was noted");
    }
    assert!(last > 0);
}

#[test]
#[ignore = "a part of another test"]
fn child_that_notes_positions() {
    let Some(path) = std::env::var_os(DIRECTORY) else { return };
    let store = Store::open(&path, Arc::new(RealDisk)).unwrap();
    let positions = store.positions().unwrap();
    let slot = positions.slot("source/split").unwrap();
    let start = positions.position("source/split").unwrap();
    let mut next = start.map_or(0, |bytes| String::from_utf8(bytes).unwrap().parse::<u64>().unwrap());
    loop {
        next += 1;
        positions.note(slot, next.to_string().as_bytes()).unwrap();
        println!("told: {next}");
    }
}

#[test]
fn a_directory_that_may_not_be_written_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    let mut job = Job::new(1);
    job.checkpoint(&Store::open(&path, Arc::new(RealDisk)).unwrap()).unwrap();
    for entry in std::fs::read_dir(&path).unwrap() {
        std::fs::set_permissions(entry.unwrap().path(), PermissionsExt::from_mode(0o444)).unwrap();
    }
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o555)).unwrap();
    match Store::open(&path, Arc::new(RealDisk)) {
        Err(error) => {
            assert!(matches!(error, Error::Permission { .. }), "{error}");
            assert!(error.to_string().contains("check owner and mode"), "{error}");
        }
        // The superuser may write everywhere.
        Ok(_) => println!("permissions do not apply to this user"),
    }
    let store = Store::inspect(&path, Arc::new(RealDisk)).unwrap();
    assert_is(&store.latest(&mut Vec::new()).unwrap().unwrap(), 1, &job.model);
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
}
