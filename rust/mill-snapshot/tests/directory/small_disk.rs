//! A real file system that fills up. `MILL_SMALL_DIRECTORY` names an empty directory on one of a few megabytes, for
//! example `mount -t tmpfs -o size=4m none /mnt/small`; without it there is nothing to check.

use std::path::Path;
use std::sync::Arc;

use mill_snapshot::{Error, RealDisk, Store};
use crate::support::{Job, assert_is};

#[test]
fn a_disk_that_fills_up_fails_checkpoints_and_nothing_else() {
    let Some(directory) = std::env::var_os("MILL_SMALL_DIRECTORY") else { return };
    let path = Path::new(&directory).join("state");
    let mut store = Store::open(&path, Arc::new(RealDisk)).unwrap();
    let mut job = Job { payload: 20_000, changes: 40, ..Job::new(1) };
    let mut last = (0, job.model.clone());
    // Without retirement the disk is full sooner or later.
    let error = loop {
        match job.checkpoint(&store) {
            Ok(manifest) => last = (manifest.id, job.model.clone()),
            Err(error) => break error,
        }
        assert!(last.0 < 10_000, "give a smaller file system");
    };
    println!("full after checkpoint {}: {error}", last.0);
    assert!(matches!(error, Error::NoSpace { .. }), "{error}");
    for _ in 0..3 {
        assert!(matches!(job.checkpoint(&store), Err(Error::NoSpace { .. }) | Ok(_)));
    }
    // A start on a full disk still finds what there is.
    let found = store.latest(&mut Vec::new()).unwrap().unwrap();
    if found.id() == last.0 {
        assert_is(&found, last.0, &last.1);
    }
    drop(found);
    drop(store);
    store = Store::open(&path, Arc::new(RealDisk)).unwrap();
    // Space returns, and the next checkpoint succeeds.
    let newest = store.list().unwrap()[0].id;
    assert!(store.retire(1, newest).unwrap() > 0);
    let manifest = job.checkpoint(&store).unwrap();
    assert_is(&store.latest(&mut Vec::new()).unwrap().unwrap(), manifest.id, &job.model);
    std::fs::remove_dir_all(&path).unwrap();
}
