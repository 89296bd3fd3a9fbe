//! The writer of checkpoints: what a table hands over becomes blocks, and the blocks a segment.

use std::sync::Arc;

use mill_frame::block::Blocks;
use mill_snapshot::{ManifestParts, OperatorInfo, OperatorState, RealDisk, Store, TaskId};
use mill_state::StateTable;
use tempfile::TempDir;

use crate::{Case, keys, table};

/// So few that a full checkpoint is laid out on the caller's thread, where its instructions are counted.
const KEYS: usize = 80_000;
/// How many checkpoints a round takes.
const CHECKPOINTS: usize = 4;

pub(crate) const CASES: &[Case] = &[
    Case { name: "checkpoint_full", records: CHECKPOINTS * KEYS, make: |rows| write(rows / CHECKPOINTS, 0) },
    Case { name: "checkpoint_1_percent", records: CHECKPOINTS * KEYS / 100, make: |rows| write(KEYS, rows / CHECKPOINTS) },
    Case { name: "checkpoint_10_percent", records: CHECKPOINTS * KEYS / 10, make: |rows| write(KEYS, rows / CHECKPOINTS) },
];

struct Job {
    store: Store,
    state: StateTable,
    _folder: TempDir,
}

impl Job {
    fn checkpoint(&mut self, is_full: bool) {
        let mut blocks = Blocks::default();
        self.state.snapshot(0, is_full, &mut blocks);
        let (uid, chain) = ("count".to_owned(), "count".to_owned());
        let operators = vec![OperatorInfo { uid: uid.clone(), parallelism: 1, ..OperatorInfo::default() }];
        let writer = self.store.begin(self.store.next_epoch(), is_full).expect("the last checkpoint was finished");
        let task = TaskId { chain, index: 0, parallelism: 1 };
        let state = OperatorState { uid, blocks: blocks.make(), ..OperatorState::default() };
        writer.write_task(&task, vec![state]).expect("there is room for temporary files");
        let done = writer.finish(ManifestParts { operators, ..ManifestParts::default() }).expect("as above");
        self.store.retire(1, done.id).expect("files that are no longer needed can be removed");
    }
}

/// Takes checkpoints of a table of which so many keys change before each, or full ones.
fn write(count: usize, changed: usize) -> Box<dyn FnMut()> {
    let folder = tempfile::tempdir().expect("temporary folders can be made");
    let store = Store::open(folder.path(), Arc::new(RealDisk)).expect("the folder is new");
    let (mut state, place) = table::table(2, true);
    let mut encoder = table::encoder();
    for column in table::columns(&(0..count as i64).collect::<Vec<_>>()) {
        table::run(&mut state, place, &mut encoder, &column);
    }
    let mut job = Job { store, state, _folder: folder };
    job.checkpoint(true);
    let changes = table::columns(&keys::even(changed, count as u64));
    Box::new(move || {
        for _ in 0..CHECKPOINTS {
            for column in &changes {
                table::run(&mut job.state, place, &mut encoder, column);
            }
            job.checkpoint(changed == 0);
        }
    })
}
