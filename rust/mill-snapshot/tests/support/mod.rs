//! A job reduced to its state: keyed counters that change at random, and a plain copy of what they should be.
#![allow(dead_code, reason = "every test file uses a part of it")]

use std::collections::BTreeMap;

use mill_frame::block::{Block, BlockAddress, BlockKind};
use mill_frame::hash::task_of_group;
use mill_snapshot::{Checkpoint, Handle, Manifest, ManifestParts, OperatorInfo, OperatorState, Result, Store, TaskId};

/// What a table of counters holds: per address, a list of entries; `Full` replaces it, `Rows` adds to it.
pub type Model = BTreeMap<(u16, i64, u16, u32), Vec<Vec<u8>>>;

/// A small generator (splitmix64), so that every test can be repeated from its seed.
#[derive(Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// A job with one keyed operator, a source and a sink.
#[derive(Clone)]
pub struct Job {
    pub random: Random,
    pub parallelism: u32,
    pub model: Model,
    pub payload: usize,
    pub changes: usize,
}

impl Job {
    pub fn new(seed: u64) -> Job {
        Job { random: Random(seed), parallelism: 2, model: Model::new(), payload: 200, changes: 12 }
    }

    /// Changes the state and returns the blocks that say so, per task.
    pub fn step(&mut self, is_full: bool) -> Vec<Vec<Block>> {
        let mut blocks: Vec<Vec<Block>> = (0..self.parallelism).map(|_| Vec::new()).collect();
        for _ in 0..self.changes {
            let (state, namespace) = (self.random.below(2) as u16, self.random.below(3) as i64);
            let (group, chunk) = ((self.random.below(4) * 40) as u16, self.random.below(3) as u32);
            let key = (state, namespace, group, chunk);
            let bytes: Vec<u8> =
                (0..self.random.below(self.payload as u64)).map(|_| self.random.next() as u8).collect();
            let task = task_of_group(group, self.parallelism as usize);
            let choice = self.random.below(20);
            let (kind, address) = match choice {
                0 => (BlockKind::DropTable, BlockAddress { state, namespace, group: 0, chunk: 0 }),
                1 | 2 => (BlockKind::Drop, BlockAddress { state, namespace, group, chunk }),
                3..=8 => (BlockKind::Full, BlockAddress { state, namespace, group, chunk }),
                _ => (BlockKind::Rows, BlockAddress { state, namespace, group, chunk }),
            };
            match kind {
                BlockKind::DropTable => {
                    let owned = |group: u16| task_of_group(group, self.parallelism as usize) == task;
                    self.model.retain(|(s, n, g, _), _| (*s, *n) != (state, namespace) || !owned(*g));
                }
                BlockKind::Drop => {
                    self.model.remove(&key);
                }
                BlockKind::Full => {
                    self.model.insert(key, vec![bytes.clone()]);
                }
                BlockKind::Rows => self.model.entry(key).or_default().push(bytes.clone()),
            }
            let payload = if matches!(kind, BlockKind::Full | BlockKind::Rows) { bytes } else { Vec::new() };
            blocks[task].push(Block { address, kind, payload: Box::new(payload) });
        }
        if is_full {
            blocks.iter_mut().for_each(Vec::clear);
            for ((state, namespace, group, chunk), entries) in &self.model {
                let task = task_of_group(*group, self.parallelism as usize);
                for (number, entry) in entries.iter().enumerate() {
                    let kind = if number == 0 { BlockKind::Full } else { BlockKind::Rows };
                    let address = BlockAddress { state: *state, namespace: *namespace, group: *group, chunk: *chunk };
                    blocks[task].push(Block { address, kind, payload: Box::new(entry.clone()) });
                }
            }
        }
        blocks
    }

    /// Takes one checkpoint.
    pub fn checkpoint(&mut self, store: &Store) -> Result<Manifest> {
        let (epoch, is_full) = (store.next_epoch(), store.should_rebase());
        let blocks = self.step(is_full);
        let writer = store.begin(epoch, is_full)?;
        for (index, blocks) in blocks.into_iter().enumerate() {
            let task = TaskId { chain: "count".to_owned(), index: index as u32, parallelism: self.parallelism };
            let bytes = Some(format!("{epoch}/{index}").into_bytes());
            let handles = vec![Handle { epoch, bytes: format!("file-{epoch}-{index}").into_bytes() }];
            let count = OperatorState { uid: "count".to_owned(), bytes, blocks, handles: Vec::new() };
            let sink = OperatorState { uid: "sink".to_owned(), handles, ..OperatorState::default() };
            writer.write_task(&task, vec![count, sink])?;
        }
        writer.finish(parts(epoch, self.parallelism))
    }
}

pub fn parts(epoch: u64, parallelism: u32) -> ManifestParts {
    let info = |uid: &str| OperatorInfo {
        uid: uid.to_owned(),
        name: format!("step {uid}"),
        signature: "key int64".to_owned(),
        parallelism,
        parts: Vec::new(),
    };
    ManifestParts {
        created: epoch as i64 * 1000,
        mode: "exactly_once".to_owned(),
        plan_fingerprint: "plan".to_owned(),
        operators: vec![info("count"), info("sink")],
        ..ManifestParts::default()
    }
}

/// The state as a checkpoint has it, put together as an operator would, from these many tasks.
pub fn restored(checkpoint: &Checkpoint, parallelism: usize) -> Model {
    let mut model = Model::new();
    for task in 0..parallelism {
        let (_, blocks) = checkpoint.restored("count", mill_frame::hash::groups_of_task(task, parallelism));
        for block in blocks {
            let BlockAddress { state, namespace, group, chunk } = block.address;
            let key = (state, namespace, group, chunk);
            let alignment = if block.kind == BlockKind::Full { 64 } else { 8 };
            assert_eq!(block.bytes.as_ptr() as usize % alignment, 0, "bytes are aligned to {alignment}");
            match block.kind {
                BlockKind::Full => {
                    assert!(!model.contains_key(&key), "a chunk is given in full at most once, and first");
                    model.insert(key, vec![block.bytes.to_vec()]);
                }
                BlockKind::Rows => model.entry(key).or_default().push(block.bytes.to_vec()),
                other => panic!("{other:?} is not given back"),
            }
        }
    }
    model
}

/// Checks that a checkpoint is the one of this number and has this state.
pub fn assert_is(checkpoint: &Checkpoint, id: u64, model: &Model) {
    assert_eq!(checkpoint.id(), id);
    assert_eq!(&restored(checkpoint, 1), model, "state of checkpoint {id}");
    let (bytes, _) = checkpoint.restored("count", 0..128);
    let instances = checkpoint.manifest().operators["count"].parallelism;
    assert_eq!(bytes.len(), instances as usize);
    for (index, bytes) in bytes.iter().enumerate() {
        assert_eq!(&**bytes, format!("{id}/{index}").as_bytes());
        let (epoch, handle) = &checkpoint.handles("sink")[index];
        assert_eq!((*epoch, &**handle), (id, format!("file-{id}-{index}").as_bytes()));
    }
}
