//! Names in a state directory that somebody else has made: links, pipes, directories, numbers that cannot be.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use mill_snapshot::{RealDisk, Store, verify};
use crate::support::{Job, assert_is};

/// A directory with three checkpoints.
fn filled(path: &Path) -> Job {
    let mut job = Job::new(5);
    let store = Store::open(path, Arc::new(RealDisk)).unwrap();
    (0..3).for_each(|_| drop(job.checkpoint(&store).unwrap()));
    store.positions().unwrap();
    job
}

/// Opens a directory as a job does; returns what is wrong. Fails if that takes long.
fn open(path: &Path) -> Result<Store, String> {
    let (send, receive) = channel();
    let path = path.to_path_buf();
    std::thread::spawn(move || {
        let opened = Store::open(&path, Arc::new(RealDisk)).and_then(|store| {
            store.latest(&mut Vec::new())?;
            store.read_positions()?;
            Ok(store)
        });
        drop(send.send(opened.map_err(|error| error.to_string())));
    });
    receive.recv_timeout(Duration::from_secs(20)).expect("a name in the directory keeps it from being opened")
}

fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The newest file of each kind.
fn kinds(path: &Path) -> Vec<String> {
    ["MILLSTREAM", "lock", "positions", "manifest-", "segment-"]
        .into_iter()
        .map(|kind| names(path).into_iter().rfind(|name| name.starts_with(kind)).unwrap())
        .collect()
}

#[test]
fn a_link_is_not_followed_to_a_file_elsewhere() {
    for kind in 0..5 {
        for size in [0, 6, 4096, 8192] {
            let directory = tempfile::tempdir().unwrap();
            let (path, outside) = (directory.path().join("state"), directory.path().join("outside"));
            filled(&path);
            let name = &kinds(&path)[kind];
            fs::write(&outside, vec![b'x'; size]).unwrap();
            fs::remove_file(path.join(name)).unwrap();
            symlink("../outside", path.join(name)).unwrap();
            let error = open(&path).unwrap_err();
            assert!(error.contains("symbolic link") && error.contains(name.as_str()), "{name}: {error}");
            assert_eq!(fs::read(&outside).unwrap(), vec![b'x'; size], "{name}");
        }
    }
}

#[test]
fn a_link_to_nowhere_makes_no_file_there() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    fs::create_dir(&path).unwrap();
    symlink("../outside", path.join("lock")).unwrap();
    let error = open(&path).unwrap_err();
    assert!(error.contains("symbolic link"), "{error}");
    assert!(!directory.path().join("outside").exists());
}

#[test]
fn a_pipe_or_a_directory_is_refused_and_not_waited_for() {
    for kind in 0..5 {
        for is_pipe in [true, false] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("state");
            filled(&path);
            let name = &kinds(&path)[kind];
            fs::remove_file(path.join(name)).unwrap();
            if is_pipe {
                assert!(Command::new("mkfifo").arg(path.join(name)).status().unwrap().success());
            } else {
                fs::create_dir(path.join(name)).unwrap();
            }
            let error = open(&path).unwrap_err();
            assert!(error.contains("not a regular file") && error.contains(name.as_str()), "{name}: {error}");
        }
    }
}

#[test]
fn only_the_owner_may_read_what_is_made() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("some/state");
    filled(&path);
    let store = open(&path).unwrap();
    store.savepoint(3, directory.path().join("saved")).unwrap();
    for made in [path, directory.path().join("saved")] {
        assert_eq!(fs::metadata(&made).unwrap().permissions().mode() & 0o777, 0o700, "{}", made.display());
        for name in names(&made) {
            let mode = fs::metadata(made.join(&name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name} has {mode:o}");
        }
    }
    // What is on the way there is not ours to close.
    assert_ne!(fs::metadata(directory.path().join("some")).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn names_with_numbers_that_cannot_be_are_ignored_and_told() {
    let impossible = [
        "segment-18446744073709551614-0000",
        "segment-09223372036854775807-0000",
        "segment-99999999999999999999-0000",
        "segment-+0000000000000000009-0000",
        "manifest-18446744073709551615",
        "manifest-99999999999999999999",
        "manifest-09223372036854775807-new",
    ];
    for name in impossible {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let mut job = filled(&path);
        fs::write(path.join(name), b"").unwrap();
        let store = open(&path).unwrap();
        let mut notes = Vec::new();
        let found = store.latest(&mut notes).unwrap().unwrap();
        assert_is(&found, 3, &job.model);
        assert!(notes.iter().any(|note| note.contains(name) && note.contains("ignored")), "{name}: {notes:?}");
        store.continue_from(&found).unwrap();
        assert_eq!(store.next_epoch(), 4, "{name}");
        let manifest = job.checkpoint(&store).unwrap();
        store.retire(1, manifest.id).unwrap();
        drop(store);
        assert_is(&open(&path).unwrap().latest(&mut Vec::new()).unwrap().unwrap(), 4, &job.model);
        assert!(path.join(name).exists(), "what is not understood is not removed");
        assert!(verify(&path, Arc::new(RealDisk)).unwrap().checkpoints.iter().all(|(_, damage)| damage.is_none()));
    }
}
