//! The right rows by key.
//!
//! ```text
//!   all rows of a key      key ──table──► first row ──next──► second ──next──► … (in the order of arrival)
//!   the latest of a key    key ──table──► the row
//! ```

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::SchemaRef;
use mill_plan::TableRows;
use mill_protocol::{Batch, Result, TaskContext};
use mill_state::{Cursor, KeyBatch, LOOKUP_ROWS_MAX, RowLayout, Select, Span, StateBackend, StateTable, TableOptions};

use crate::accumulator::state_error;
use crate::pair::{Keys, NO_ROW, RowStore, Runs, Written};

/// Below this number of rows nobody looks for rows that no longer count.
const ROWS_MIN: usize = 8192;
/// How many rows of the table are looked at at a time.
const SCAN_ROWS: usize = 4096;

/// The right rows that have come.
pub(super) struct Index {
    keys: Keys,
    rows: TableRows,
    layout: Arc<RowLayout>,
    options: TableOptions,
    /// By key: one more than the position of its first row and of its last one; 0 if there is none.
    table: StateTable,
    first: usize,
    last: usize,
    /// The next row of the key of each position, where all rows count.
    next: Vec<u32>,
    is_unique: bool,
    store: RowStore,
    runs: Runs,
    /// How many rows there were when those were last dropped that no longer count.
    rows_before: usize,
}

/// Left rows on the way to all of their matches.
pub(super) struct Matches {
    /// The position of the first match of each row.
    firsts: Vec<u32>,
    /// Whether a row without a match makes a pair with none.
    is_padded: bool,
    /// The row to go on with, and the position of its next match.
    row: usize,
    at: u32,
}

impl Matches {
    pub(super) fn new(firsts: Vec<u32>, is_padded: bool) -> Matches {
        let mut matches = Matches { firsts, is_padded, row: 0, at: NO_ROW };
        matches.begin(0);
        matches
    }

    fn begin(&mut self, row: usize) {
        self.row = row;
        self.at = self.firsts.get(row).copied().unwrap_or(NO_ROW);
    }

    /// Whether there are no more.
    pub(super) fn is_over(&self) -> bool {
        self.row >= self.firsts.len()
    }
}

impl Index {
    pub(super) fn new(
        schema: &SchemaRef,
        keys: &[usize],
        rows: TableRows,
        context: &TaskContext,
        runs: Runs,
    ) -> Result<Index> {
        let keys = Keys::new(schema, keys)?;
        let mut layout = RowLayout::builder(keys.encoder().kind().clone());
        let (first, last) = (layout.words(1), layout.words(1));
        let layout = Arc::new(layout.finish("rows of a key").map_err(state_error)?);
        let options = TableOptions::new(context.groups.clone());
        let table = StateTable::new(Arc::clone(&layout), options.clone());
        let (next, store) = (Vec::new(), RowStore::new(SchemaRef::clone(schema)));
        Ok(Index { keys, rows, layout, options, table, first, last, next, is_unique: true, store, runs, rows_before: 0 })
    }

    pub(super) fn keys(&self) -> &Keys {
        &self.keys
    }

    pub(super) fn store(&self) -> &RowStore {
        &self.store
    }

    /// Whether no key has two rows.
    pub(super) fn is_unique(&self) -> bool {
        self.is_unique
    }

    pub(super) fn next_run(&self) -> u64 {
        self.runs.next()
    }

    pub(super) fn restored_run(&mut self, next: u64) {
        self.runs.restored(next);
    }

    /// Adds rows, and writes them into the state if there is one to be kept.
    pub(super) fn insert(&mut self, batch: &Batch, mut backend: Option<&mut StateBackend>) -> Result<()> {
        self.add(batch, backend.as_deref_mut())?;
        let is_worth_it = self.rows == TableRows::Latest && self.store.rows() >= ROWS_MIN.max(2 * self.rows_before);
        if is_worth_it { self.compact(backend) } else { Ok(()) }
    }

    fn add(&mut self, batch: &Batch, backend: Option<&mut StateBackend>) -> Result<()> {
        let (rows, deletes) = (batch.rows(), batch.deletes());
        let whole = self.keys.encode(batch.data().columns(), rows)?;
        if let Some(backend) = backend {
            let hashes = self.keys.encoder().batch().hashes();
            self.runs.write(backend, &Written { batch, hashes, rows: whole.as_deref() })?;
        }
        let start = self.store.push(batch.data().clone())?;
        if self.rows == TableRows::All {
            self.next.resize(self.store.rows(), NO_ROW);
        }
        match whole {
            None => {
                for from in (0..rows).step_by(LOOKUP_ROWS_MAX) {
                    self.index(Span { start: from, len: (rows - from).min(LOOKUP_ROWS_MAX) }, start, deletes);
                }
            }
            Some(whole) => whole.chunks(LOOKUP_ROWS_MAX).for_each(|rows| self.index(rows, start, deletes)),
        }
        Ok(())
    }

    /// Notes these rows, the first of which is at this position, under their keys.
    fn index<S: Select>(&mut self, select: S, start: u32, deletes: Option<&BooleanBuffer>) {
        let (first, last) = (self.first, self.last);
        let position = |index: usize| start + select.at(index) as u32;
        let mut rows = self.table.find_or_insert(self.keys.encoder().batch(), select);
        match self.rows {
            TableRows::Latest => rows.each::<1>(first, |index, word| {
                let is_delete = deletes.is_some_and(|deletes| deletes.value(select.at(index)));
                word[0] = if is_delete { 0 } else { u64::from(position(index)) + 1 };
            }),
            TableRows::All => {
                let (next, is_unique) = (&mut self.next, &mut self.is_unique);
                rows.each_with::<1>(first, last, |index, first, last| {
                    let at = position(index);
                    match first[0] {
                        0 => first[0] = u64::from(at) + 1,
                        _ => {
                            next[*last as usize - 1] = at;
                            *is_unique = false;
                        }
                    }
                    *last = u64::from(at) + 1;
                });
            }
        }
    }

    /// The first row of each of these keys: `positions` has an entry a key, which stays as it is where there is none.
    pub(super) fn find(&mut self, keys: &KeyBatch, whole: Option<&[u32]>, positions: &mut [u32]) {
        let (rows, found) = match whole {
            None => self.table.find(keys),
            Some(whole) => self.table.find_selected(keys, whole),
        };
        for (index, &key) in found.iter().enumerate() {
            // A key whose row was withdrawn has the word of none.
            positions[key as usize] = (rows.word(index, self.first) as u32).wrapping_sub(1);
        }
    }

    /// The next pairs of a left row and the position of a match, so many at most.
    pub(super) fn next_pairs(&self, matches: &mut Matches, pairs_max: usize) -> (Vec<u32>, Vec<u32>) {
        let (mut rows, mut positions) = (Vec::new(), Vec::new());
        while rows.len() < pairs_max && !matches.is_over() {
            let at = matches.at;
            if at != NO_ROW || matches.is_padded {
                rows.push(matches.row as u32);
                positions.push(at);
            }
            matches.at = match at {
                NO_ROW => NO_ROW,
                at => self.next.get(at as usize).copied().unwrap_or(NO_ROW),
            };
            if matches.at == NO_ROW {
                matches.begin(matches.row + 1);
            }
        }
        (rows, positions)
    }

    /// No more rows come, as far as can be known: puts them where they are gathered fastest.
    pub(super) fn settle(&mut self) {
        self.store.unite();
    }

    /// Positions of the rows that count, in order.
    fn live(&mut self) -> Vec<u32> {
        if self.rows == TableRows::All {
            return (0..self.store.rows() as u32).collect();
        }
        let (mut cursor, mut positions) = (Cursor::default(), Vec::new());
        loop {
            let rows = self.table.scan(&mut cursor, SCAN_ROWS);
            if rows.is_empty() {
                break;
            }
            positions.extend(rows.words(self.first).into_iter().filter(|&word| word != 0).map(|word| word as u32 - 1));
        }
        positions.sort_unstable();
        positions
    }

    /// Drops rows that no longer count.
    fn compact(&mut self, mut backend: Option<&mut StateBackend>) -> Result<()> {
        let live = self.live();
        if live.len() == self.store.rows() {
            self.rows_before = live.len();
            return Ok(());
        }
        let data = self.store.rows_at(&live)?;
        if let Some(backend) = backend.as_deref_mut() {
            self.runs.clear(backend);
        }
        self.reset(&Batch::from(data), backend)
    }

    /// Makes these rows all that there are.
    fn reset(&mut self, rows: &Batch, backend: Option<&mut StateBackend>) -> Result<()> {
        self.table = StateTable::new(Arc::clone(&self.layout), self.options.clone());
        self.store = RowStore::new(SchemaRef::clone(self.store.schema()));
        self.next.clear();
        self.is_unique = true;
        self.rows_before = rows.rows();
        self.add(rows, backend)
    }

    /// Takes up the rows that the state holds.
    pub(super) fn restore(&mut self, backend: &StateBackend) -> Result<()> {
        match self.runs.read(backend)? {
            Some(rows) => self.reset(&rows, None),
            None => Ok(()),
        }
    }

    /// All rows that count.
    pub(super) fn all(&mut self) -> Result<Vec<RecordBatch>> {
        let live = self.live();
        Ok(vec![self.store.rows_at(&live)?])
    }
}
