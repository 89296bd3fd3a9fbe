//! Rows as the kernels of aggregates see them: many at once, field by field.
//!
//! [`Rows`] and [`RowsRead`] hold pointers into the chunks of a table, one a record. Invariants, kept by the table that
//! makes them:
//!
//! - every pointer points to the first word of a row of `row_words` words, aligned to 8, and to `cells_per_row` cells;
//! - they borrow the table, so that no row moves, grows or is handed to a checkpoint writer while they live;
//! - the pointers of [`Rows`] may be written through: each of their chunks has been made writable.
//!
//! Two records of one key have equal pointers. That is sound because every method hands out one row at a time and ends
//! that borrow before the next.

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use crate::cell::Cell;
use crate::error::{Result, StateError};
use crate::key::{KEY_BYTES_MAX, VIEW_INLINE, view_bytes, view_length};
use crate::layout::{Flag, RowLayout, TAG_DIRTY, Taken, TAG_FLAGS_MASK, TAG_MATCH};
use crate::bucket::Chunk;
use crate::probe::prefetch;

/// How many cells are fetched at a time at most.
const FETCHED_CELLS_MAX: usize = 8192;
/// Of how many rows the bytes of keys are fetched at a time.
const FETCHED_VIEWS: usize = 32;

/// What a row has beside its key, to be put into a row of another table whose values are laid out alike.
#[derive(Clone, Debug)]
pub struct RowValues {
    flags: u64,
    words: Vec<u64>,
    cells: Vec<Cell>,
}

impl RowValues {
    /// Those of a new row of this layout.
    pub fn new(layout: &RowLayout) -> RowValues {
        RowValues { flags: 0, words: vec![0; layout.row_words - layout.value_word()], cells: vec![Cell::default(); layout.cells] }
    }

    /// Makes one place what another one of values of another layout is.
    ///
    /// # Panics
    /// If the places are of different kinds, or beyond the values.
    pub fn copy(&mut self, layout: &RowLayout, to: Taken, from: &RowValues, of: &RowLayout, place: Taken) {
        match (to, place) {
            (Taken::Word(to), Taken::Word(place)) => self.words[to - layout.value_word()] = from.words[place - of.value_word()],
            (Taken::Cell(to), Taken::Cell(place)) => self.cells[to].clone_from(&from.cells[place]),
            (Taken::Flag(to), Taken::Flag(place)) => {
                let word = match place.word {
                    0 => from.flags,
                    word => from.words[word - of.value_word()],
                };
                let target = match to.word {
                    0 => &mut self.flags,
                    word => &mut self.words[word - layout.value_word()],
                };
                *target &= !to.mask;
                *target |= if word & place.mask != 0 { to.mask } else { 0 };
            }
            (to, place) => panic!("{place:?} is to become {to:?}"),
        }
    }
}

/// Rows to be changed, one a record, in the order of the records.
#[derive(Debug)]
pub struct Rows<'t> {
    pub(crate) pointers: &'t [*mut u64],
    pub(crate) cells: &'t [*mut Cell],
    pub(crate) row_words: usize,
    pub(crate) cells_per_row: usize,
    pub(crate) inserted: &'t [u32],
    pub(crate) table: PhantomData<&'t mut ()>,
}

impl Rows<'_> {
    /// How many records there are.
    pub fn len(&self) -> usize {
        self.pointers.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.pointers.is_empty()
    }

    /// Which records (of this call) made a new row, in ascending order.
    pub fn inserted(&self) -> &[u32] {
        self.inserted
    }

    /// An identity of the row of a record: equal for records of one key.
    #[inline(always)]
    pub fn identity(&self, record: usize) -> usize {
        self.pointers[record].addr()
    }

    /// Calls `change` with `N` words of each row, from `word` on.
    ///
    /// # Panics
    /// If the words are not within the row.
    #[inline(always)]
    pub fn each<const N: usize>(&mut self, word: usize, mut change: impl FnMut(usize, &mut [u64; N])) {
        assert!(word + N <= self.row_words, "words {word}..{} of {}", word + N, self.row_words);
        for (record, &row) in self.pointers.iter().enumerate() {
            // SAFETY: `row` points to `row_words` words and the assertion keeps word + N within them; the table is
            // borrowed exclusively and this is the only reference into it until the next turn of the loop.
            let words = unsafe { &mut *row.add(word).cast::<[u64; N]>() };
            change(record, words);
        }
    }

    /// Calls `change` with `N` words of each row, from `word` on, and with another word of it (one that holds flags).
    ///
    /// # Panics
    /// If the words are not within the row, or overlap.
    #[inline(always)]
    pub fn each_with<const N: usize>(
        &mut self,
        word: usize,
        other: usize,
        mut change: impl FnMut(usize, &mut [u64; N], &mut u64),
    ) {
        assert!(word + N <= self.row_words, "words {word}..{} of {}", word + N, self.row_words);
        assert!(other < self.row_words && !(word..word + N).contains(&other), "word {other} beside {word}..{}", word + N);
        for (record, &row) in self.pointers.iter().enumerate() {
            // SAFETY: as in `each`; the two places are within the row and do not overlap, by the assertions.
            let words = unsafe { &mut *row.add(word).cast::<[u64; N]>() };
            // SAFETY: as above.
            let flags = unsafe { &mut *row.add(other) };
            change(record, words, flags);
        }
    }

    /// Sets a flag of every row.
    pub fn set_flag(&mut self, flag: Flag) {
        self.each::<1>(flag.word, |_, word| word[0] |= flag.mask);
    }

    /// Makes every row what a new one of its key is: values and flags are zero, cells empty.
    pub fn clear(&mut self, layout: &RowLayout) {
        let first = 1 + layout.key.words();
        for record in 0..self.len() {
            let row = self.row(record);
            row[0] &= TAG_MATCH | TAG_DIRTY;
            row[first..].fill(0);
            (0..self.cells_per_row).for_each(|cell| *self.cell(record, cell) = Cell::default());
        }
    }

    /// Makes the values of a row those of another one.
    ///
    /// # Panics
    /// If there is no such record, or the values are not as many as the row has room for.
    pub fn put_values(&mut self, record: usize, values: RowValues) {
        assert!(values.words.len() < self.row_words && values.cells.len() == self.cells_per_row, "values of another layout");
        let first = self.row_words - values.words.len();
        let row = self.row(record);
        row[0] = row[0] & !TAG_FLAGS_MASK | values.flags;
        row[first..].copy_from_slice(&values.words);
        for (cell, value) in values.cells.into_iter().enumerate() {
            *self.cell(record, cell) = value;
        }
    }

    /// All words of the row of one record.
    ///
    /// # Panics
    /// If there is no such record.
    #[inline]
    pub fn row(&mut self, record: usize) -> &mut [u64] {
        let row = self.pointers[record];
        // SAFETY: the pointer points to `row_words` words; the borrow of self makes this the only reference.
        unsafe { std::slice::from_raw_parts_mut(row, self.row_words) }
    }

    /// A cell of the row of one record.
    ///
    /// # Panics
    /// If there is no such record or cell.
    #[inline]
    pub fn cell(&mut self, record: usize, cell: usize) -> &mut Cell {
        assert!(cell < self.cells_per_row, "cell {cell} of {}", self.cells_per_row);
        let cells = self.cells[record];
        // SAFETY: the pointer points to `cells_per_row` cells and the assertion keeps within them; the borrow of self
        // makes this the only reference.
        unsafe { &mut *cells.add(cell) }
    }

    /// The bytes of a cell for changing in place: empty if there were none, copied if a checkpoint is still being written from
    /// them. What replaces them as a whole is better [set](Cell::set).
    #[inline]
    pub fn cell_mut(&mut self, record: usize, cell: usize) -> &mut Vec<u8> {
        own(self.cell(record, cell).long_mut())
    }

    /// Has the bytes of all cells of these rows fetched into the cache, where they begin and where they end, since lists are appended
    /// to. Long ones lie two steps away from the cell, and a loop that takes the steps for many rows at once does not wait for each
    /// of them.
    pub fn fetch_cells(&self) {
        let (Some(first), Some(last)) = (self.cells.first(), self.cells.last()) else { return };
        let is_one_row = first == last && *first == self.cells[self.cells.len() / 2];
        if is_one_row || !(1..=FETCHED_CELLS_MAX).contains(&(self.cells_per_row * self.cells.len())) {
            // Those of one row stay in the cache, and too many would not.
            return;
        }
        let cells = || {
            self.cells.iter().flat_map(|&cells| {
                // SAFETY: the pointer points to `cells_per_row` cells, and the table is borrowed.
                unsafe { std::slice::from_raw_parts(cells.cast_const(), self.cells_per_row) }.iter().filter_map(Cell::long)
            })
        };
        self.cells.iter().for_each(|&cells| prefetch(cells));
        cells().for_each(|cell| prefetch(Arc::as_ptr(cell)));
        cells().for_each(fetch_ends);
    }
}

/// Has the lines fetched in which these bytes begin and end.
#[inline(always)]
fn fetch_ends(bytes: &Arc<Vec<u8>>) {
    prefetch(bytes.as_ptr());
    prefetch(bytes.as_ptr().wrapping_add(bytes.len().saturating_sub(1)));
}

/// The bytes of a cell for changing; copied if they are shared. Like [`Arc::make_mut`] without its locked instruction.
#[inline(always)]
fn own(cell: &mut Arc<Vec<u8>>) -> &mut Vec<u8> {
    if Arc::strong_count(cell) != 1 {
        return copied(cell);
    }
    // A checkpoint writer that had them has let go of them, and has read before.
    fence(Ordering::Acquire);
    // SAFETY: nobody makes a `Weak` of a cell, so the one strong reference is the only one, and it is borrowed exclusively: nobody
    // else can reach the bytes or clone it. The pointer is that of the allocation, which may be written through.
    unsafe { &mut *Arc::as_ptr(cell).cast_mut() }
}

/// The bytes of a cell that are shared, as a copy of its own.
#[cold]
fn copied(cell: &mut Arc<Vec<u8>>) -> &mut Vec<u8> {
    Arc::make_mut(cell)
}

/// Rows to be read.
#[derive(Debug)]
pub struct RowsRead<'t> {
    pub(crate) pointers: &'t [*const u64],
    pub(crate) places: &'t [(u32, u32)],
    pub(crate) chunks: &'t [Chunk],
    pub(crate) row_words: usize,
    /// The first word after the key.
    pub(crate) value_word: usize,
    pub(crate) cells_per_row: usize,
}

impl RowsRead<'_> {
    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.pointers.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.pointers.is_empty()
    }

    /// One word of a row.
    ///
    /// # Panics
    /// If there is no such row or word.
    #[inline(always)]
    pub fn word(&self, row: usize, word: usize) -> u64 {
        assert!(word < self.row_words, "word {word} of {}", self.row_words);
        // SAFETY: the pointer points to `row_words` words, and the assertion keeps within them; the table is borrowed,
        // so nobody changes them.
        unsafe { *self.pointers[row].add(word) }
    }

    /// What a row has beside its key.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn values(&self, row: usize) -> RowValues {
        let cells = (0..self.cells_per_row).map(|cell| self.cell(row, cell).map(Cell::from).unwrap_or_default());
        RowValues {
            flags: self.word(row, 0) & TAG_FLAGS_MASK,
            words: (self.value_word..self.row_words).map(|word| self.word(row, word)).collect(),
            cells: cells.collect(),
        }
    }

    /// One word of every row.
    pub fn words(&self, word: usize) -> Vec<u64> {
        (0..self.len()).map(|row| self.word(row, word)).collect()
    }

    /// A flag of every row.
    pub fn flags(&self, flag: Flag) -> Vec<bool> {
        (0..self.len()).map(|row| self.word(row, flag.word) & flag.mask != 0).collect()
    }

    /// A cell of a row.
    ///
    /// # Panics
    /// If there is no such row or cell.
    pub fn cell(&self, row: usize, cell: usize) -> Option<&[u8]> {
        assert!(cell < self.cells_per_row, "cell {cell} of {}", self.cells_per_row);
        let (chunk, slot) = self.places[row];
        let cells = &self.chunks[chunk as usize].data().cells;
        cells[slot as usize * self.cells_per_row + cell].bytes()
    }

    /// Has the bytes of a cell of some of these rows fetched into the cache; see [`Rows::fetch_cells`].
    pub fn fetch_cell(&self, cell: usize, rows: Range<usize>) {
        assert!(cell < self.cells_per_row, "cell {cell} of {}", self.cells_per_row);
        let cells = || {
            self.places[rows.clone()].iter().filter_map(|&(chunk, slot)| {
                self.chunks[chunk as usize].data().cells[slot as usize * self.cells_per_row + cell].long()
            })
        };
        cells().for_each(|cell| prefetch(Arc::as_ptr(cell)));
        cells().for_each(fetch_ends);
    }

    /// Has the bytes of long views of some of these rows fetched into the cache.
    fn fetch_views(&self, word: usize, rows: Range<usize>) {
        for row in rows.filter(|&row| view_length(&[self.word(row, word)]) > VIEW_INLINE) {
            let arena = self.chunks[self.places[row].0 as usize].data().arena.bytes();
            prefetch(arena.as_ptr().wrapping_add(self.word(row, word + 1) as usize));
        }
    }

    /// Calls `use_bytes` with the bytes of the view that each row has at `word`.
    pub(crate) fn each_view(&self, word: usize, mut use_bytes: impl FnMut(usize, &[u8])) -> Result<()> {
        for row in 0..self.len() {
            if row % FETCHED_VIEWS == 0 {
                self.fetch_views(word, row..self.len().min(row + FETCHED_VIEWS));
            }
            let view = [self.word(row, word), self.word(row, word + 1)];
            let chunk = &self.chunks[self.places[row].0 as usize];
            let mut inline = [0; 16];
            let bytes = view_bytes(&view, &mut inline, chunk.data().arena.bytes())
                .filter(|_| view_length(&view) <= KEY_BYTES_MAX)
                .ok_or_else(|| StateError::Damaged {
                    group: chunk.group(),
                    chunk: chunk.id(),
                    what: "a long key lies outside of its chunk".to_owned(),
                })?;
            use_bytes(row, bytes);
        }
        Ok(())
    }
}
