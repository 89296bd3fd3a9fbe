use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use mill_protocol::{Position, Read, Rejected, Result, Source, SourceProperties, Split, SplitReader};

use super::{batch_of, integers};

/// key, value, time
pub type Record = (i64, i64, i64);

pub const COLUMNS: [&str; 3] = ["key", "value", "time"];

/// Records in memory, in named splits.
#[derive(Clone, Debug)]
pub struct MemorySource {
    pub splits: Vec<(String, Arc<Vec<Record>>)>,
    pub is_bounded: bool,
    pub may_block: bool,
    /// Returns nothing on every second call.
    pub hesitates: bool,
    /// The value that cannot be read.
    pub bad_value: Option<i64>,
    /// At most so many rows at a time.
    pub rows_max: usize,
}

impl MemorySource {
    pub fn new(splits: Vec<Vec<Record>>) -> MemorySource {
        let splits = splits.into_iter().enumerate().map(|(i, rows)| (format!("split-{i}"), Arc::new(rows))).collect();
        MemorySource { splits, is_bounded: true, may_block: false, hesitates: false, bad_value: None, rows_max: 7 }
    }
}

impl Source for MemorySource {
    fn name(&self) -> String {
        "from_memory()".to_owned()
    }
    fn schema(&self) -> SchemaRef {
        integers(&COLUMNS)
    }
    fn properties(&self) -> SourceProperties {
        SourceProperties {
            is_bounded: self.is_bounded,
            is_replayable: true,
            discovers_splits: false,
            may_block: self.may_block,
        }
    }
    fn splits(&self, _is_ordered: bool) -> Result<Vec<Split>> {
        Ok(self.splits.iter().map(|(name, _)| Split::new(name.clone())).collect())
    }
    fn open(&self, split: &Split, position: Option<&[u8]>) -> Result<Box<dyn SplitReader>> {
        let rows = self.splits.iter().find(|(name, _)| *name == split.name).unwrap().1.clone();
        let at = position.map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().unwrap()) as usize);
        Ok(Box::new(Reader { source: self.clone(), rows, at, calls: 0 }))
    }
    fn rows_hint(&self) -> Option<u64> {
        Some(self.splits.iter().map(|(_, rows)| rows.len() as u64).sum())
    }
}

struct Reader {
    source: MemorySource,
    rows: Arc<Vec<Record>>,
    at: usize,
    calls: u64,
}

impl SplitReader for Reader {
    fn next(&mut self, rows_max: usize) -> Result<Read> {
        self.calls += 1;
        if self.source.hesitates && self.calls % 2 == 0 {
            return Ok(Read::Pending(Duration::from_millis(1)));
        }
        if self.at == self.rows.len() {
            let pause = Duration::from_secs(3600);
            return Ok(if self.source.is_bounded { Read::End } else { Read::Pending(pause) });
        }
        let end = self.rows.len().min(self.at + rows_max.min(self.source.rows_max));
        let read = &self.rows[self.at..end];
        let is_bad = |row: &&Record| Some(row.1) == self.source.bad_value;
        let good: Vec<Vec<i64>> = read.iter().filter(|row| !is_bad(row)).map(|r| vec![r.0, r.1, r.2]).collect();
        let rejected: Vec<Rejected> = read
            .iter()
            .zip(self.at..)
            .filter(|(row, _)| is_bad(row))
            .map(|(row, line)| Rejected::new(format!("memory, line {line}: bad value"), format!("{row:?}")))
            .collect();
        self.at = end;
        let batch = batch_of(&COLUMNS, &good);
        Ok(if rejected.is_empty() { Read::Batch(batch) } else { Read::Partial(batch, rejected) })
    }
    fn position(&self) -> Position {
        (self.at as u64).to_le_bytes().to_vec()
    }
}
