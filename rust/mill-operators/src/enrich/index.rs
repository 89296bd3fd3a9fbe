//! The right rows by key.
//!
//! ```text
//!   all rows of a key      key ──table──► first row ──next──► second ──next──► … (in the order of arrival)
//!   the latest of a key    key ──table──► the row
//! ```
//!
//! Where all rows count nobody asks before the last has come. So they are indexed then, a part at a time; and if their keys are
//! numbers near each other, by the number itself ([`NearIndex`]) instead of in the table.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::SchemaRef;
use mill_plan::TableRows;
use mill_protocol::{Batch, Error, Result, TaskContext};
use mill_state::{Cursor, LOOKUP_ROWS_MAX, RowLayout, Select, Span, StateBackend, StateTable, TableOptions};

use crate::accumulator::state_error;
use crate::pair::{Keys, NO_ROW, RowStore, Runs, Written};
use super::near::{Bounds, NearIndex};

/// Below this number of rows nobody looks for rows that no longer count.
const ROWS_MIN: usize = 8192;
/// How many rows of the table are looked at at a time.
const SCAN_ROWS: usize = 4096;
/// How many rows are indexed at a time.
const PIECE_ROWS: usize = 1 << 16;

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
    /// Instead of the table, where all rows count: the position of the first row by key, and by it that of the last one.
    near: Option<(NearIndex, Vec<u32>)>,
    /// How many rows, from the first on, are in the table or in `near`.
    indexed: usize,
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
    /// The row to continue with, and the position of its next match.
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
        let store = RowStore::new(SchemaRef::clone(schema));
        Ok(Index {
            keys,
            rows,
            layout,
            options,
            table,
            first,
            last,
            next: Vec::new(),
            near: None,
            indexed: 0,
            is_unique: true,
            store,
            runs,
            rows_before: 0,
        })
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
        let is_indexed = self.rows == TableRows::Latest;
        let hashed = match is_indexed || backend.is_some() {
            true => Some(self.keys.encode(batch.data().columns(), batch.rows())?),
            false => None,
        };
        if let (Some(backend), Some(whole)) = (backend, &hashed) {
            let hashes = self.keys.encoder().batch().hashes();
            self.runs.write(backend, &Written { batch, hashes, rows: whole.as_deref() })?;
        }
        let start = self.store.push(batch.data().clone())?;
        if let (true, Some(whole)) = (is_indexed, hashed) {
            self.index_all(whole, batch.rows(), start, batch.deletes());
            self.indexed = self.store.rows();
        }
        Ok(())
    }

    /// Whether rows have to be indexed before anything is looked up.
    pub(super) fn is_behind(&self) -> bool {
        self.indexed < self.store.rows()
    }

    /// Indexes more rows, some of them.
    pub(super) fn catch_up(&mut self) -> Result<()> {
        if self.indexed == 0 {
            self.near = self.near_index()?;
            self.next.clear();
        }
        let Some(rows) = self.store.piece(self.indexed, PIECE_ROWS) else { return Ok(()) };
        let (start, end) = (self.indexed, self.indexed + rows.num_rows());
        self.indexed = end;
        self.next.resize(end, NO_ROW);
        let Some((near, lasts)) = &mut self.near else {
            let whole = self.keys.encode(rows.columns(), rows.num_rows())?;
            self.index_all(whole, rows.num_rows(), start as u32, None);
            return Ok(());
        };
        let (words, nulls) = self.keys.words(rows.columns(), rows.num_rows())?.ok_or_else(not_a_word)?;
        for (at, &word) in (start as u32..).zip(words) {
            if nulls.as_ref().is_some_and(|nulls| nulls.is_null(at as usize - start)) {
                continue;
            }
            let first = near.first(word);
            if *first == NO_ROW {
                *first = at;
                continue;
            }
            // Most tables have no second row of a key, and don't need the last ones.
            lasts.resize(end, NO_ROW);
            let last = &mut lasts[*first as usize];
            self.next[if *last == NO_ROW { *first } else { *last } as usize] = at;
            *last = at;
            self.is_unique = false;
        }
        Ok(())
    }

    /// An empty index by number, if the keys of all rows are near each other.
    fn near_index(&mut self) -> Result<Option<(NearIndex, Vec<u32>)>> {
        let (mut bounds, mut from) = (Bounds::NONE, 0);
        while let Some(rows) = self.store.piece(from, PIECE_ROWS) {
            let Some((words, nulls)) = self.keys.words(rows.columns(), rows.num_rows())? else { return Ok(None) };
            bounds = bounds.and(words, nulls.as_ref());
            from += rows.num_rows();
        }
        Ok(NearIndex::new(bounds, from).map(|index| (index, Vec::new())))
    }

    /// Notes rows in the table: those whose key has no null, or all of a batch.
    fn index_all(&mut self, whole: Option<Vec<u32>>, rows: usize, start: u32, deletes: Option<&BooleanBuffer>) {
        match whole {
            None => {
                for from in (0..rows).step_by(LOOKUP_ROWS_MAX) {
                    self.index(Span { start: from, len: (rows - from).min(LOOKUP_ROWS_MAX) }, start, deletes);
                }
            }
            Some(whole) => whole.chunks(LOOKUP_ROWS_MAX).for_each(|rows| self.index(rows, start, deletes)),
        }
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

    /// The position of the first row of each of these keys, [`NO_ROW`] of those that have none.
    pub(super) fn find(&mut self, keys: &mut Keys, columns: &[ArrayRef], rows: usize) -> Result<Vec<u32>> {
        if let Some((near, _)) = &self.near {
            let (words, nulls) = keys.words(columns, rows)?.ok_or_else(not_a_word)?;
            return Ok(near.find(words, nulls.as_ref()));
        }
        let whole = keys.encode(columns, rows)?;
        let keys = keys.encoder().batch();
        let mut positions = vec![NO_ROW; rows];
        // A key whose row was withdrawn has the word of none.
        let found = |row: usize, word: u64| positions[row] = (word as u32).wrapping_sub(1);
        match &whole {
            None => self.table.find_word(keys, Span { start: 0, len: rows }, self.first, found),
            Some(whole) => self.table.find_word(keys, whole.as_slice(), self.first, found),
        }
        Ok(positions)
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
        self.near = None;
        self.indexed = 0;
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

fn not_a_word() -> Error {
    Error::internal("keys that are looked up by number are more than a number")
}
