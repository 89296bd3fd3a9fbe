//! A panic of a step while a checkpoint is written. What is armed is armed for the process, so there is one test here.

mod support;

use std::sync::Arc;

use mill_snapshot::{RealDisk, Store};
use support::{Job, assert_is};

#[test]
fn a_panic_after_the_manifest_has_its_name_takes_no_segment_away() {
    for step in ["state.sync_dir", "mark.sync", "manifest.rename", "manifest.sync", "segment.sync"] {
        for first in 1..8 {
            let directory = tempfile::tempdir().unwrap();
            let mut job = Job::new(1);
            let store = Store::open(directory.path(), Arc::new(RealDisk)).unwrap();
            let before = job.checkpoint(&store).unwrap();
            let mut next = job.clone();
            mill_fault::arm(mill_fault::Fault { step: step.to_owned(), first, times: 1, effect: mill_fault::Effect::Panic });
            let taken = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| next.checkpoint(&store).map(drop)));
            mill_fault::disarm();
            drop(store);
            let store = Store::open(directory.path(), Arc::new(RealDisk)).unwrap();
            let found = store.latest(&mut Vec::new()).unwrap().unwrap();
            // What is there is whole, whichever of the two it is.
            let is_new = found.id() > before.id;
            assert_is(&found, found.id(), if is_new { &next.model } else { &job.model });
            assert!(is_new || taken.is_err(), "{step} {first}");
        }
    }
}
