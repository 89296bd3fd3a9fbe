//! The versions of each key.
//!
//! ```text
//!   key ──table──► list of the key: (time, position), by time and then by arrival ──► row in the store
//! ```

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use mill_plan::LookupPlan;
use mill_protocol::{Batch, Error, Result, TaskContext};
use mill_state::{LOOKUP_ROWS_MAX, RowLayout, Select, Span, StateBackend, StateTable, TableOptions};

use super::times_of;
use crate::accumulator::state_error;
use crate::pair::{Keys, NO_ROW, OutOfOrder, RowStore, Runs, Written, put_in_order};

/// Below this number of rows nobody looks for versions to be dropped.
const ROWS_MIN: usize = 8192;

/// One row of a key.
#[derive(Clone, Copy, Debug)]
struct Version {
    time: i64,
    position: u32,
}

/// The versions of a key.
#[derive(Default)]
struct List {
    /// By time, and then in the order in which they came.
    versions: Vec<Version>,
    /// The version that was found last. Left rows mostly come in order of time, so the next one is this one or soon after it; it need
    /// not be one at all.
    found: usize,
}

/// How many versions are looked at after the one that was found last, before the others are searched.
const STEPS_MAX: usize = 4;

/// The right rows that may still be asked for.
pub(super) struct Versions {
    left: Keys,
    right: Keys,
    tolerance_us: Option<i64>,
    layout: Arc<RowLayout>,
    options: TableOptions,
    /// By key: one more than the place of its list.
    table: StateTable,
    /// The word of a row that holds it.
    word: usize,
    lists: Vec<List>,
    store: RowStore,
    runs: Runs,
    /// How many rows there were when versions were last dropped.
    rows_before: usize,
}

impl Versions {
    pub(super) fn new(
        plan: &LookupPlan,
        tolerance_us: Option<i64>,
        context: &TaskContext,
        runs: Runs,
    ) -> Result<Versions> {
        let (left, right) = (Keys::new(&plan.inputs[0], &plan.keys[0])?, Keys::new(&plan.inputs[1], &plan.keys[1])?);
        if left.encoder().kind() != right.encoder().kind() {
            return Err(Error::internal("the keys of a join are of two kinds"));
        }
        let mut layout = RowLayout::builder(right.encoder().kind().clone());
        let word = layout.words(1);
        let layout = Arc::new(layout.finish("versions of a key").map_err(state_error)?);
        let options = TableOptions::new(context.groups.clone());
        let table = StateTable::new(Arc::clone(&layout), options.clone());
        let store = RowStore::new(SchemaRef::clone(&plan.inputs[1]));
        Ok(Versions { left, right, tolerance_us, layout, options, table, word, lists: Vec::new(), store, runs, rows_before: 0 })
    }

    pub(super) fn store(&self) -> &RowStore {
        &self.store
    }

    pub(super) fn next_run(&self) -> u64 {
        self.runs.next()
    }

    pub(super) fn restored_run(&mut self, next: u64) {
        self.runs.restored(next);
    }

    /// Adds rows, and writes them into the state if there is one to be kept.
    pub(super) fn insert(&mut self, batch: &Batch, backend: Option<&mut StateBackend>) -> Result<()> {
        let times = times_of(batch)?;
        let (data, rows) = (batch.data(), batch.rows());
        if rows == 0 {
            return Ok(());
        }
        let whole = self.right.encode(data.columns(), rows)?;
        if let Some(backend) = backend {
            let hashes = self.right.encoder().batch().hashes();
            self.runs.write(backend, &Written { batch, hashes, rows: whole.as_deref() })?;
        }
        let start = self.store.push(data.clone())?;
        let mut out_of_order = OutOfOrder::default();
        match whole {
            None => {
                for from in (0..rows).step_by(LOOKUP_ROWS_MAX) {
                    let span = Span { start: from, len: (rows - from).min(LOOKUP_ROWS_MAX) };
                    self.index(span, start, times, &mut out_of_order);
                }
            }
            Some(whole) => {
                whole.chunks(LOOKUP_ROWS_MAX).for_each(|rows| self.index(rows, start, times, &mut out_of_order));
            }
        }
        for (list, in_order) in out_of_order.lists() {
            put_in_order(&mut self.lists[list as usize].versions, in_order, |version| version.time);
        }
        Ok(())
    }

    /// Notes these rows, the first of which is at this position, in the lists of their keys.
    fn index<S: Select>(&mut self, select: S, start: u32, times: &[i64], out_of_order: &mut OutOfOrder) {
        let (word, lists) = (self.word, &mut self.lists);
        let mut rows = self.table.find_or_insert(self.right.encoder().batch(), select);
        rows.each::<1>(word, |index, place| {
            let row = select.at(index);
            if place[0] == 0 {
                lists.push(List::default());
                place[0] = lists.len() as u64;
            }
            let list = place[0] as u32 - 1;
            let version = Version { time: times[row], position: start + row as u32 };
            out_of_order.add(list, &mut lists[list as usize].versions, 0, version, |version| version.time);
        });
    }

    /// No more rows come: puts them where they are gathered fastest.
    pub(super) fn settle(&mut self) {
        self.store.unite();
    }

    /// The position of the version of each left row.
    pub(super) fn probe(&mut self, left: &Batch) -> Result<Vec<u32>> {
        let times = times_of(left)?;
        let mut positions = vec![NO_ROW; left.rows()];
        let whole = self.left.encode(left.data().columns(), left.rows())?;
        let keys = self.left.encoder().batch();
        let (lists, tolerance_us) = (&mut self.lists, self.tolerance_us);
        let found = |row: usize, word: u64| {
            positions[row] = lists[word as usize - 1].newest(times[row], tolerance_us);
        };
        match &whole {
            None => self.table.find_word(keys, Span { start: 0, len: left.rows() }, self.word, found),
            Some(whole) => self.table.find_word(keys, &whole[..], self.word, found),
        }
        Ok(positions)
    }

    /// Drops versions that no left row from this time on can ask for, if there may be many of them.
    pub(super) fn compact(&mut self, watermark: i64, backend: &mut StateBackend, is_persistent: bool) -> Result<()> {
        if self.store.rows() < ROWS_MIN.max(2 * self.rows_before) {
            return Ok(());
        }
        self.drop_before(watermark, backend, is_persistent)
    }

    /// Drops versions that no left row from this time on can ask for.
    pub(super) fn drop_before(&mut self, watermark: i64, backend: &mut StateBackend, is_persistent: bool) -> Result<()> {
        let mut kept: Vec<Version> = Vec::new();
        let earliest = self.tolerance_us.map_or(i64::MIN, |tolerance| watermark.saturating_sub(tolerance));
        for List { versions: list, .. } in &self.lists {
            let asked_from = list.partition_point(|version| version.time <= watermark).saturating_sub(1);
            kept.extend(list[asked_from..].iter().filter(|version| version.time >= earliest));
        }
        if kept.len() == self.store.rows() {
            self.rows_before = kept.len();
            return Ok(());
        }
        kept.sort_unstable_by_key(|version| version.position);
        let positions: Vec<u32> = kept.iter().map(|version| version.position).collect();
        let times: Vec<i64> = kept.iter().map(|version| version.time).collect();
        let data = self.store.rows_at(&positions)?;
        if is_persistent {
            self.runs.clear(backend);
        }
        let rows = Batch::from(data).with_times(Some(times.into()));
        self.reset(&rows, is_persistent.then_some(backend))
    }

    /// Makes these rows all that there are.
    fn reset(&mut self, rows: &Batch, backend: Option<&mut StateBackend>) -> Result<()> {
        self.table = StateTable::new(Arc::clone(&self.layout), self.options.clone());
        self.lists.clear();
        self.store = RowStore::new(SchemaRef::clone(self.store.schema()));
        self.rows_before = rows.rows();
        self.insert(rows, backend)
    }

    /// Takes up the rows that the state holds.
    pub(super) fn restore(&mut self, backend: &StateBackend) -> Result<()> {
        match self.runs.read(backend)? {
            Some(rows) => self.reset(&rows, None),
            None => Ok(()),
        }
    }

    /// All rows.
    pub(super) fn all(&self) -> Result<Vec<RecordBatch>> {
        let positions: Vec<u32> = (0..self.store.rows() as u32).collect();
        Ok(vec![self.store.rows_at(&positions)?])
    }
}

impl List {
    /// The position of the last version that is not after this time, unless it is too old.
    #[inline]
    fn newest(&mut self, time: i64, tolerance_us: Option<i64>) -> u32 {
        let versions = &self.versions[..];
        let is_before = |at: usize| versions.get(at).is_some_and(|version| version.time <= time);
        let mut at = self.found;
        if is_before(at) {
            let last = at + STEPS_MAX;
            while at < last && is_before(at + 1) {
                at += 1;
            }
            if at == last && is_before(at + 1) {
                at += versions[at + 1..].partition_point(|version| version.time <= time);
            }
        } else {
            match versions.partition_point(|version| version.time <= time) {
                0 => return NO_ROW,
                after => at = after - 1,
            }
        }
        self.found = at;
        let found = &versions[at];
        let is_too_old = tolerance_us.is_some_and(|tolerance| time.saturating_sub(found.time) > tolerance);
        if is_too_old { NO_ROW } else { found.position }
    }
}
