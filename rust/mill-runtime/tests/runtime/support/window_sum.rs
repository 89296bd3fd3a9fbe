use std::collections::{BTreeMap, BTreeSet};

use mill_frame::block::{Block, BlockAddress, BlockKind};
use mill_frame::hash::{hash_columns, key_group};
use mill_protocol::{
    Batch, Epoch, Operator, Outbox, Progress, Restored, Result, Snapshot, TaskContext, Watermark,
};

use super::{batch_of, rows_of};

/// Sums of `value` by `key` and tumbling window of `time`; a window emits its rows when the watermark has passed it,
/// three at a time.
pub struct WindowSum {
    size: i64,
    /// window start, group, key
    sums: BTreeMap<(i64, u16, i64), i64>,
    changed: BTreeSet<(i64, u16)>,
    dropped: Vec<i64>,
    watermark: i64,
    context: TaskContext,
}

impl WindowSum {
    pub fn new(size: i64, context: &TaskContext) -> WindowSum {
        WindowSum {
            size,
            sums: BTreeMap::new(),
            changed: BTreeSet::new(),
            dropped: Vec::new(),
            watermark: i64::MIN,
            context: context.clone(),
        }
    }

    fn close(&mut self, out: &mut Outbox) -> Progress {
        let mut rows = Vec::new();
        while let Some((&(start, group, key), &sum)) = self.sums.first_key_value() {
            if self.watermark <= start + self.size - 1 {
                break;
            }
            if rows.len() == 3 {
                out.push(Batch::new(batch_of(&["key", "window", "sum"], &rows)));
                return Progress::More;
            }
            rows.push(vec![key, start, sum]);
            self.sums.pop_first();
            self.changed.remove(&(start, group));
            if self.sums.first_key_value().is_none_or(|((next, ..), _)| *next > start) {
                self.dropped.push(start);
            }
        }
        out.push(Batch::new(batch_of(&["key", "window", "sum"], &rows)));
        Progress::Done
    }
}

impl Operator for WindowSum {
    fn on_batch(&mut self, _input: usize, batch: Batch, _out: &mut Outbox) -> Result<Progress> {
        let mut hashes = Vec::new();
        hash_columns(&[batch.column(0).clone()], &mut hashes).unwrap();
        let times = batch.times().expect("times travel with the records").clone();
        for (row, (hash, time)) in rows_of(batch.data()).into_iter().zip(hashes.into_iter().zip(times.iter())) {
            assert_eq!(row[2], *time);
            let group = key_group(hash);
            assert!(self.context.groups.contains(&group), "group {group} of {:?}", self.context.groups);
            let start = time.div_euclid(self.size) * self.size;
            assert!(self.watermark <= start + self.size - 1, "a record for a window that is closed");
            *self.sums.entry((start, group, row[0])).or_default() += row[1];
            self.changed.insert((start, group));
        }
        Ok(Progress::Done)
    }
    fn on_watermark(&mut self, _input: usize, at: Watermark, out: &mut Outbox) -> Result<Progress> {
        assert!(at.0 > self.watermark, "the watermark went from {} to {}", self.watermark, at.0);
        self.watermark = at.0;
        Ok(self.close(out))
    }
    fn resume(&mut self, out: &mut Outbox) -> Result<Progress> {
        Ok(self.close(out))
    }
    fn on_barrier(&mut self, _epoch: Epoch, _out: &mut Outbox) -> Result<Progress> {
        Ok(Progress::Done)
    }
    fn snapshot(&mut self, snapshot: &mut Snapshot) -> Result<()> {
        let all: BTreeSet<(i64, u16)> = self.sums.keys().map(|&(start, group, _)| (start, group)).collect();
        let changed = std::mem::take(&mut self.changed);
        for start in self.dropped.drain(..) {
            let address = BlockAddress { state: 0, namespace: start, group: 0, chunk: 0 };
            snapshot.blocks.push(Block { address, kind: BlockKind::DropTable, payload: Box::new(Vec::new()) });
        }
        for (start, group) in if snapshot.is_full { all } else { changed } {
            let mut bytes = Vec::new();
            for (&(_, _, key), &sum) in self.sums.range((start, group, i64::MIN)..=(start, group, i64::MAX)) {
                bytes.extend(key.to_le_bytes());
                bytes.extend(sum.to_le_bytes());
            }
            let address = BlockAddress { state: 0, namespace: start, group, chunk: 0 };
            snapshot.blocks.push(Block { address, kind: BlockKind::Full, payload: Box::new(bytes) });
        }
        Ok(())
    }
    fn restore(&mut self, restored: &Restored) -> Result<()> {
        for block in &restored.blocks {
            let BlockAddress { namespace, group, .. } = block.address;
            assert!(self.context.groups.contains(&group));
            for pair in block.bytes.chunks_exact(16) {
                let word = |at: usize| i64::from_le_bytes(pair[at..at + 8].try_into().unwrap());
                self.sums.insert((namespace, group, word(0)), word(8));
            }
        }
        Ok(())
    }
}

/// Sums of `value` by `key`, given at the end, two at a time, and kept even then.
pub struct KeyedSum {
    inner: WindowSum,
    given: Option<(i64, u16, i64)>,
}

impl KeyedSum {
    pub fn new(context: &TaskContext) -> KeyedSum {
        KeyedSum { inner: WindowSum::new(i64::MAX / 4, context), given: None }
    }
}

impl Operator for KeyedSum {
    fn on_batch(&mut self, _input: usize, batch: Batch, out: &mut Outbox) -> Result<Progress> {
        self.inner.on_batch(0, batch, out)
    }
    fn on_end(&mut self, out: &mut Outbox) -> Result<Progress> {
        self.resume(out)
    }
    fn resume(&mut self, out: &mut Outbox) -> Result<Progress> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = self.given.map_or(Unbounded, Excluded);
        let rows: Vec<_> = self.inner.sums.range((from, Unbounded)).take(2).map(|(k, sum)| (*k, *sum)).collect();
        let Some((last, _)) = rows.last() else { return Ok(Progress::Done) };
        self.given = Some(*last);
        let rows: Vec<Vec<i64>> = rows.iter().map(|(key, sum)| vec![key.2, key.0, *sum]).collect();
        out.push(Batch::new(batch_of(&["key", "window", "sum"], &rows)));
        Ok(Progress::More)
    }
    fn snapshot(&mut self, snapshot: &mut Snapshot) -> Result<()> {
        self.inner.snapshot(snapshot)
    }
    fn restore(&mut self, restored: &Restored) -> Result<()> {
        self.inner.restore(restored)
    }
}
