//! What makes the watermarks of each split.
//!
//! [`Splits`](super::splits::Splits) keeps one number of each split, its *mark*. With a bound that is the latest event time,
//! and the watermark is the mark less the bound; in all other cases the mark is the watermark itself. A mark only grows, so a
//! watermark never goes back, whatever a column holds or a function returns.
//!
//! A record is behind if its time is less than the watermark of its split *before* it. What a function returns for a whole
//! batch counts after its last record; what it returns for each record, or a column holds, counts after that record. So only
//! in the first case does it matter for lateness how records are cut into batches.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::buffer::ScalarBuffer;
use mill_plan::{WatermarkFunction, WatermarkGenerator, Watermarked, WatermarksOf};
use mill_protocol::{Batch, Error, ErrorKind, Outbox, Result, SplitId};

use super::times;

/// What makes watermarks.
pub(super) enum Maker {
    /// The latest time, less this many microseconds.
    Bound(i64),
    /// The column at this place, and its name.
    Column(usize, String),
    /// A user's function.
    Function(Generators),
}

/// The generators of a user's function, one a split.
pub(super) struct Generators {
    function: Arc<dyn WatermarkFunction>,
    columns: Vec<usize>,
    open: HashMap<SplitId, Box<dyn WatermarkGenerator>>,
    /// The state of splits that have had no records since the restart.
    restored: HashMap<SplitId, Vec<u8>>,
    /// When they are to be called next, in processing time; `None` before it is known what time it is.
    due: Option<i64>,
}

/// What records do to their split.
pub(super) struct Marked {
    /// The mark after them, if there has been any.
    pub(super) mark: Option<i64>,
    /// The watermark before each of them, if any of them is behind it.
    pub(super) behind: Option<ScalarBuffer<i64>>,
}

impl Maker {
    pub(super) fn new(watermarks: &WatermarksOf, name: impl Fn(usize) -> String) -> Maker {
        match watermarks {
            WatermarksOf::Bound(us) => Maker::Bound(*us),
            WatermarksOf::Column(column) => Maker::Column(*column, name(*column)),
            WatermarksOf::Function { function, columns } => Maker::Function(Generators {
                function: Arc::clone(function),
                columns: columns.clone(),
                open: HashMap::new(),
                restored: HashMap::new(),
                due: None,
            }),
        }
    }

    /// The watermark at this mark. The greatest of all watermarks means that the input has ended, and no record means that.
    pub(super) fn watermark_at(&self, mark: i64) -> i64 {
        let bound = if let Maker::Bound(us) = self { *us } else { 0 };
        mark.saturating_sub(bound).min(i64::MAX - 1)
    }

    /// The mark at which the watermark is this one, at least.
    pub(super) fn mark_at(&self, watermark: i64) -> i64 {
        let bound = if let Maker::Bound(us) = self { *us } else { 0 };
        watermark.min(i64::MAX - 1).saturating_add(bound)
    }

    /// The records that can be processed: those whose column holds no watermark that is beyond all times are rejected.
    pub(super) fn usable(&self, batch: Batch, out: &mut Outbox) -> Result<Option<Batch>> {
        match self {
            Maker::Column(column, name) => times::with_watermarks(batch, *column, name, out),
            Maker::Bound(_) | Maker::Function(_) => Ok(Some(batch)),
        }
    }

    /// What these records do to their split, which had this mark before. The times are those of the column at this place.
    pub(super) fn mark(&mut self, batch: &Batch, column: usize, before: Option<i64>) -> Result<Marked> {
        let times = batch.times().expect("event times are taken before watermarks are made");
        match self {
            Maker::Bound(disorder) => {
                let (mark, behind) = times::behind(times, before, *disorder);
                Ok(Marked { mark: Some(mark), behind })
            }
            Maker::Column(column, name) => {
                let (marks, valid) = times::microseconds(batch.column(*column), name)?;
                let mark = |row: usize| valid.as_ref().is_none_or(|valid| valid.value(row)).then(|| marks[row]);
                Ok(marked(times, before, mark))
            }
            Maker::Function(generators) => {
                let name = generators.function.name();
                let columns = batch.data().project(&generators.columns);
                let columns = columns.map_err(|error| Error::internal(format!("event_time: {error}")))?;
                match generators.of(batch.split())?.on_batch(batch.column(column), &columns)? {
                    Watermarked::No => Ok(marked(times, before, |_| None)),
                    Watermarked::AfterAll(at) => {
                        let last = times.len() - 1;
                        Ok(marked(times, before, |row| (row == last).then_some(at)))
                    }
                    Watermarked::AfterEach(column) if column.len() == times.len() => {
                        let (marks, valid) = times::microseconds(&column, &name)?;
                        let is_given = |row: usize| valid.as_ref().is_none_or(|valid| valid.value(row));
                        if let Some(row) = (0..marks.len()).find(|&row| !is_given(row) && column.is_valid(row)) {
                            let message = format!("{name} returned a watermark in row {row} that 64 bits of microseconds don't hold");
                            return Err(Error::new(ErrorKind::UserFunction, message));
                        }
                        Ok(marked(times, before, |row| is_given(row).then(|| marks[row])))
                    }
                    Watermarked::AfterEach(column) => Err(Error::new(
                        ErrorKind::UserFunction,
                        format!(
                            "{name} returned {} for {}; return one for each record, or one for all of them",
                            mill_frame::words::counted(column.len(), "watermark"),
                            mill_frame::words::counted(times.len(), "record")
                        ),
                    )),
                }
            }
        }
    }

    /// These splits are read or yet to be read.
    pub(super) fn open(&mut self, open: &[SplitId]) -> Result<()> {
        let Maker::Function(generators) = self else { return Ok(()) };
        let is_open: HashSet<SplitId> = open.iter().copied().collect();
        generators.open.retain(|split, _| is_open.contains(split));
        generators.restored.retain(|split, _| is_open.contains(split));
        if generators.function.period_us().is_some() {
            // They are called though they have had no records.
            open.iter().try_for_each(|split| generators.of(*split).map(drop))?;
        }
        Ok(())
    }

    /// Whether processing time raises marks.
    pub(super) fn is_by_clock(&self) -> bool {
        matches!(self, Maker::Function(generators) if generators.function.period_us().is_some())
    }

    /// When [`on_time`](Maker::on_time) has something to do.
    pub(super) fn next_time(&self) -> Option<i64> {
        match self {
            Maker::Function(generators) if !generators.open.is_empty() => {
                generators.function.period_us().map(|_| generators.due.unwrap_or(i64::MIN))
            }
            Maker::Bound(_) | Maker::Column(..) | Maker::Function(_) => None,
        }
    }

    /// Processing time has come this far; returns the marks that splits have by that.
    pub(super) fn on_time(&mut self, now: i64) -> Result<Vec<(SplitId, i64)>> {
        let Maker::Function(generators) = self else { return Ok(Vec::new()) };
        let Some(period) = generators.function.period_us() else { return Ok(Vec::new()) };
        let due = generators.due.get_or_insert_with(|| now.saturating_add(period));
        // A clock that was set back would otherwise stop the calls until it has caught up.
        if now < *due && *due <= now.saturating_add(period) {
            return Ok(Vec::new());
        }
        *due = now.saturating_add(period);
        let mut marks = Vec::new();
        for (split, generator) in &mut generators.open {
            marks.extend(generator.on_periodic()?.map(|mark| (*split, mark)));
        }
        Ok(marks)
    }

    /// What the generators need to continue from here.
    pub(super) fn states(&self) -> Result<Vec<(SplitId, Vec<u8>)>> {
        let Maker::Function(generators) = self else { return Ok(Vec::new()) };
        let mut states: Vec<(SplitId, Vec<u8>)> =
            generators.restored.iter().map(|(split, state)| (*split, state.clone())).collect();
        for (split, generator) in &generators.open {
            states.push((*split, generator.state()?));
        }
        Ok(states)
    }

    /// Takes what the generators of a former run needed.
    pub(super) fn restore(&mut self, states: HashMap<SplitId, Vec<u8>>) {
        if let Maker::Function(generators) = self {
            generators.restored = states;
        }
    }
}

impl Generators {
    fn of(&mut self, split: SplitId) -> Result<&mut dyn WatermarkGenerator> {
        use std::collections::hash_map::Entry;
        let generator = match self.open.entry(split) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let generator = self.function.open(self.restored.get(&split).map(Vec::as_slice))?;
                self.restored.remove(&split);
                entry.insert(generator)
            }
        };
        Ok(&mut **generator)
    }
}

/// What records do to a split of this mark, given what each of them raises it to.
fn marked(times: &[i64], before: Option<i64>, mark: impl Fn(usize) -> Option<i64>) -> Marked {
    let mut now = before;
    let mut is_any_behind = false;
    let before_each: ScalarBuffer<i64> = times
        .iter()
        .enumerate()
        .map(|(row, &time)| {
            let watermark = now.unwrap_or(i64::MIN);
            is_any_behind |= time < watermark;
            now = now.max(mark(row).map(|mark| mark.min(i64::MAX - 1)));
            watermark
        })
        .collect();
    Marked { mark: now, behind: is_any_behind.then_some(before_each) }
}
