use std::collections::BTreeMap;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use mill_protocol::{Batch, Operator, Outbox, Progress, Restored, Result, Snapshot, SplitId, Watermark};

/// Event times from column 2; a split's watermark is its latest time less `delay`, the task's the least of its splits.
pub struct EventTime {
    pub delay: i64,
    latest: BTreeMap<SplitId, i64>,
    open: Vec<SplitId>,
    given: i64,
}

impl EventTime {
    pub fn new(delay: i64) -> EventTime {
        EventTime { delay, latest: BTreeMap::new(), open: Vec::new(), given: i64::MIN }
    }

    fn emit(&mut self, out: &mut Outbox) {
        let at = self.open.iter().map(|split| self.latest.get(split).map_or(i64::MIN, |t| t - self.delay)).min();
        match at {
            Some(at) if at > self.given => {
                self.given = at;
                out.watermark(Watermark(at));
            }
            Some(_) => {}
            None => out.quiet(Watermark(self.given), false),
        }
    }
}

impl Operator for EventTime {
    fn on_batch(&mut self, _input: usize, batch: Batch, out: &mut Outbox) -> Result<Progress> {
        let times = batch.column(2).as_primitive::<Int64Type>().values().clone();
        let latest = times.iter().max().copied().unwrap();
        let entry = self.latest.entry(batch.split()).or_insert(i64::MIN);
        *entry = (*entry).max(latest);
        out.push(batch.with_times(Some(times)));
        self.emit(out);
        Ok(Progress::Done)
    }
    fn makes_watermarks(&self) -> bool {
        true
    }
    fn on_splits(&mut self, open: &[SplitId], out: &mut Outbox) -> Result<()> {
        self.open = open.to_vec();
        self.emit(out);
        Ok(())
    }
    fn follow(&mut self, at: Watermark) {
        self.given = self.given.max(at.0);
    }
    fn snapshot(&mut self, snapshot: &mut Snapshot) -> Result<()> {
        let mut bytes = Vec::new();
        for (split, latest) in &self.latest {
            bytes.extend(split.0.to_le_bytes());
            bytes.extend(latest.to_le_bytes());
        }
        snapshot.bytes = Some(bytes);
        Ok(())
    }
    fn restore(&mut self, restored: &Restored) -> Result<()> {
        for bytes in &restored.bytes {
            for pair in bytes.chunks_exact(16) {
                let word = |at: usize| u64::from_le_bytes(pair[at..at + 8].try_into().unwrap());
                self.latest.insert(SplitId(word(0)), word(8) as i64);
            }
        }
        Ok(())
    }
}
