//! The layout of a chunk in a checkpoint. Little-endian; every part starts at a multiple of 8.
//!
//! ```text
//!   the whole chunk                                     its changed rows
//!     0  magic u32 = "MSTC"   4  version u32 = 4          0  version u8 = 4      1  flags u8
//!     8  fingerprint of the layout u64                    2  rows in the chunk, as a power of two, u8
//!    16  words in a row u32  20  rows in the chunk u32    4  rows given u32
//!    24  cells beside a row  28  rows in the chunk u32       with flag 2: arena starts at u64, bytes of arena u64
//!    32  0 u64               40  bytes of arena u64          with flag 4: rows removed u32, 0 u32
//!    48  0 u64               56  0 u64                       which rows are given: places u16; with flag 1 a bit a row
//!    64  all rows; an empty row is all zero                  which rows are removed, likewise; flag 8 for bits
//!        bytes of arena                                      the rows given, whole, in ascending order
//!                                                            bytes of arena
//!                                                            lengths of cells, bytes of cells, as beside
//!        lengths of cells u32, a row x a cell (0xffff_ffff: no cell)
//!        bytes of cells, in the same order
//! ```
//!
//! A whole chunk has its rows at byte 64 of a block aligned to 64: they are used in place, as they are. Changed rows are
//! applied to a whole chunk, whose layout is known: so they contain little more than which rows they are. Their arena is
//! what was appended since the snapshot before.

mod parse;

pub(crate) use parse::parse;

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use mill_frame::block::BlockPayload;

use crate::bucket::set_bit;
use crate::cell::Cell;
use crate::chunk::ChunkData;
use crate::key::{KEY_BYTES_MAX, VIEW_INLINE, le_word, view_length};
use crate::layout::{ROW_WORDS_MAX, RowLayout, TAG_DIRTY, TAG_OCCUPIED};
use crate::shared::Handed;

const MAGIC: u32 = u32::from_le_bytes(*b"MSTC");
/// The version of the format.
pub(crate) const VERSION: u32 = 4;
const HEADER: usize = 64;
const ROWS_HEADER: usize = 8;
/// What the header of changed rows has more if bytes of arena are given.
const ROWS_ARENA: usize = 16;
const FLAG_BITS: u8 = 1;
const FLAG_ARENA: u8 = 2;
const FLAG_EMPTIED: u8 = 4;
const FLAG_EMPTIED_BITS: u8 = 8;
/// What the header of changed rows has more if rows were removed.
const ROWS_EMPTIED: usize = 8;
const NO_CELL: u32 = u32::MAX;

fn padded(bytes: usize) -> usize {
    bytes.next_multiple_of(8)
}

/// A chunk on its way into a checkpoint: the data as it stood at the barrier.
pub(crate) struct ChunkImage {
    data: Handed,
    layout: Arc<RowLayout>,
    /// All rows are to be given, changed or not.
    is_all: bool,
    arena: Range<usize>,
    /// The slots that rows were taken out of, a bit each.
    taken_out: Option<Box<[u64]>>,
    /// What to give; `None` for all. Looked for when it is first asked for.
    given: OnceLock<Option<Given>>,
}

/// What a block of changed rows contains.
struct Given {
    /// The rows that changed.
    rows: Places,
    /// The slots that became empty.
    emptied: Places,
}

/// Some slots of a chunk.
struct Places {
    bits: Box<[u64]>,
    count: usize,
    /// Whether bits say in less room than a list which slots they are; a list has u16.
    takes_bits: bool,
}

impl Places {
    fn new(bits: Box<[u64]>, capacity: usize) -> Places {
        let count = bits.iter().map(|word| word.count_ones() as usize).sum();
        let takes_bits = capacity > 1 << 16 || capacity.div_ceil(64) * 8 <= padded(count * 2);
        Places { bits, count, takes_bits }
    }

    fn bytes(&self) -> usize {
        if self.takes_bits { self.bits.len() * 8 } else { padded(self.count * 2) }
    }

    fn write(&self, writer: &mut Writer<'_>) {
        if self.takes_bits {
            self.bits.iter().for_each(|word| writer.put(&word.to_le_bytes()));
        } else {
            slots_of(&self.bits).for_each(|slot| writer.put(&(slot as u16).to_le_bytes()));
            writer.pad();
        }
    }
}

impl ChunkImage {
    /// The image of a chunk; `arena` is what was appended since the last one, `taken_out` are the slots that rows were taken
    /// out of since, a bit each.
    pub(crate) fn new(
        data: Handed,
        layout: Arc<RowLayout>,
        is_all: bool,
        arena: Range<usize>,
        taken_out: Option<Box<[u64]>>,
    ) -> ChunkImage {
        ChunkImage { data, layout, is_all, arena, taken_out, given: OnceLock::new() }
    }

    fn given(&self) -> Option<&Given> {
        let find = || {
            let rows = changed(&self.data, &self.layout)?;
            self.data.tell_changed(rows.clone());
            let (rows, emptied) = (Places::new(rows, self.capacity()), Places::new(self.emptied(), self.capacity()));
            Some(Given { rows, emptied })
        };
        self.given.get_or_init(|| if self.is_all { None } else { find() }).as_ref()
    }

    /// The slots that rows were taken out of and that are empty.
    fn emptied(&self) -> Box<[u64]> {
        let Some(taken_out) = &self.taken_out else { return Box::default() };
        let mut bits = taken_out.clone();
        let words = self.data.words();
        for slot in slots_of(taken_out).filter(|&slot| words[slot as usize * self.layout.row_words] != 0) {
            set_bit(&mut bits, slot, false);
        }
        bits
    }

    /// The part of the arena to give: with all rows all of it.
    fn arena(&self) -> Range<usize> {
        if self.given().is_some() { self.arena.clone() } else { 0..self.arena.end }
    }

    fn capacity(&self) -> usize {
        self.data.words().len() / self.layout.row_words
    }

    fn slots(&self) -> Vec<u32> {
        match self.given() {
            None => (0..self.capacity() as u32).collect(),
            Some(given) => slots_of(&given.rows.bits).collect(),
        }
    }

    fn given_rows(&self) -> usize {
        self.given().map_or(self.capacity(), |given| given.rows.count)
    }

    fn cell_bytes(&self) -> usize {
        if self.layout.cells == 0 {
            return 0;
        }
        let of_slot = |slot: u32| -> usize { self.cells_of(slot).iter().filter_map(Cell::bytes).map(<[u8]>::len).sum() };
        self.slots().into_iter().map(of_slot).sum()
    }

    fn cells_of(&self, slot: u32) -> &[Cell] {
        &self.data.cells[slot as usize * self.layout.cells..][..self.layout.cells]
    }
}

/// The places of the bits that are set.
pub(crate) fn slots_of(bits: &[u64]) -> impl Iterator<Item = u32> + '_ {
    bits.iter().enumerate().flat_map(|(word, &bits)| {
        let rest = |bits: &u64| Some(bits & (bits - 1)).filter(|&bits| bits != 0);
        std::iter::successors(Some(bits).filter(|&bits| bits != 0), rest)
            .map(move |bits| word as u32 * 64 + bits.trailing_zeros())
    })
}

/// The rows marked as changed, a bit each; `None` if they are so many that the whole chunk is as good.
fn changed(data: &ChunkData, layout: &RowLayout) -> Option<Box<[u64]>> {
    let rows = data.words().chunks_exact(layout.row_words);
    let capacity = rows.len();
    let mut bits = vec![0u64; capacity.div_ceil(64)].into_boxed_slice();
    let mut count = 0;
    for (slot, row) in rows.enumerate() {
        let is_changed = row[0] & TAG_DIRTY != 0;
        bits[slot / 64] |= u64::from(is_changed) << (slot % 64);
        count += usize::from(is_changed);
    }
    (count * 2 <= capacity).then_some(bits)
}

impl BlockPayload for ChunkImage {
    fn size(&self) -> usize {
        let rows = self.given_rows();
        let head = match self.given() {
            None => HEADER,
            Some(given) => {
                let arena = if self.arena().is_empty() { 0 } else { ROWS_ARENA };
                let emptied = if given.emptied.count == 0 { 0 } else { ROWS_EMPTIED + given.emptied.bytes() };
                ROWS_HEADER + arena + emptied + given.rows.bytes()
            }
        };
        head + rows * self.layout.row_words * 8
            + padded(self.arena().len())
            + padded(rows * self.layout.cells * 4)
            + padded(self.cell_bytes())
    }

    fn is_whole(&self) -> bool {
        self.given().is_none()
    }

    fn write(&self, out: &mut [u8]) {
        let row_bytes = self.layout.row_words * 8;
        let arena = &self.data.arena.bytes()[self.arena()];
        let mut writer = Writer { out, at: 0 };
        match self.given() {
            None => {
                writer.put(&MAGIC.to_le_bytes());
                writer.put(&VERSION.to_le_bytes());
                writer.put(&self.layout.fingerprint.to_le_bytes());
                for value in [self.layout.row_words, self.capacity(), self.layout.cells, self.capacity()] {
                    writer.put(&(value as u32).to_le_bytes());
                }
                for value in [0, arena.len(), 0, 0] {
                    writer.put(&(value as u64).to_le_bytes());
                }
                writer.put(self.data.row_bytes());
            }
            Some(Given { rows, emptied }) => {
                let mut flags = if rows.takes_bits { FLAG_BITS } else { 0 };
                flags |= if arena.is_empty() { 0 } else { FLAG_ARENA };
                flags |= match (emptied.count, emptied.takes_bits) {
                    (0, _) => 0,
                    (_, false) => FLAG_EMPTIED,
                    (_, true) => FLAG_EMPTIED | FLAG_EMPTIED_BITS,
                };
                writer.put(&[VERSION as u8, flags, self.capacity().ilog2() as u8, 0]);
                writer.put(&(self.given_rows() as u32).to_le_bytes());
                if !arena.is_empty() {
                    writer.put(&(self.arena().start as u64).to_le_bytes());
                    writer.put(&(arena.len() as u64).to_le_bytes());
                }
                if emptied.count > 0 {
                    writer.put(&(emptied.count as u64).to_le_bytes());
                }
                rows.write(&mut writer);
                if emptied.count > 0 {
                    emptied.write(&mut writer);
                }
                for slot in slots_of(&rows.bits) {
                    writer.put(&self.data.row_bytes()[slot as usize * row_bytes..][..row_bytes]);
                }
            }
        }
        writer.put(arena);
        writer.pad();
        if self.layout.cells > 0 {
            let slots = self.slots();
            for cell in slots.iter().flat_map(|&slot| self.cells_of(slot)) {
                writer.put(&cell.bytes().map_or(NO_CELL, |bytes| bytes.len() as u32).to_le_bytes());
            }
            writer.pad();
            for bytes in slots.iter().flat_map(|&slot| self.cells_of(slot)).filter_map(Cell::bytes) {
                writer.put(bytes);
            }
            writer.pad();
        }
        assert_eq!(writer.at, writer.out.len(), "a block has the size it was announced with");
    }
}

struct Writer<'a> {
    out: &'a mut [u8],
    at: usize,
}

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) {
        self.out[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }

    fn pad(&mut self) {
        let end = padded(self.at);
        self.out[self.at..end].fill(0);
        self.at = end;
    }
}

/// Looks a whole block over while its bytes are near: gives one more than the rows that are taken, or 0 if it is not such
/// a block, or if a row is neither taken nor empty. Fit for `mill_frame::block::Inspect`.
pub fn inspect(block: &[u8]) -> u32 {
    let u32_at = |at: usize| block.get(at..at + 4).map_or(0, |four| u32::from_le_bytes(four.try_into().unwrap_or_default()));
    let (row_words, capacity) = (u32_at(16) as usize, u32_at(20) as usize);
    let is_whole = u32_at(0) == MAGIC && u32_at(4) == VERSION && capacity == u32_at(28) as usize;
    if !is_whole || !(1..=ROW_WORDS_MAX).contains(&row_words) {
        return 0;
    }
    let Some(rows) = block.get(HEADER..).and_then(|rest| rest.get(..capacity * row_words * 8)) else { return 0 };
    let tags = rows.chunks_exact(row_words * 8).map(|row| le_word(row));
    let (count, strange) = count_tags(tags);
    if strange == 0 { count + 1 } else { 0 }
}

/// How many of these rows are taken, and how many are neither taken nor empty. Without a branch a row: memory is what this
/// waits for.
fn count_tags(tags: impl Iterator<Item = u64>) -> (u32, u32) {
    tags.fold((0, 0), |(count, strange), tag| {
        let is_taken = (tag >> TAG_OCCUPIED.trailing_zeros()) as u32;
        (count + is_taken, strange + (u32::from(tag != 0) & !is_taken))
    })
}

/// Checks the rows of a chunk that came from a disk and counts them, unless [`inspect`] has. Returns the count, and how many
/// bytes of the arena no row has. The error is what is wrong.
pub(crate) fn check_rows(data: &ChunkData, layout: &RowLayout, seen: Option<u32>) -> std::result::Result<(u32, usize), String> {
    let rows = data.words().chunks_exact(layout.row_words);
    let capacity = rows.len();
    let count = match seen {
        Some(count) => count,
        None => match count_tags(rows.clone().map(|row| row[0])) {
            (count, 0) => count,
            _ => {
                let slot = rows.clone().position(|row| row[0] != 0 && row[0] & TAG_OCCUPIED == 0).unwrap_or_default();
                return Err(format!("row {slot} is neither taken nor empty"));
            }
        },
    };
    if count as usize >= capacity {
        return Err(format!("it has {count} rows in {capacity} places"));
    }
    let garbage = if layout.key.is_view() { check_views(data, layout)? } else { 0 };
    Ok((count, garbage))
}

/// Checks that the long keys of a chunk are within it. Returns how many bytes of the arena are of none of them.
fn check_views(data: &ChunkData, layout: &RowLayout) -> std::result::Result<usize, String> {
    let arena = data.arena.bytes().len() as u64;
    let mut garbage = arena as usize;
    for (slot, row) in data.words().chunks_exact(layout.row_words).enumerate().filter(|(_, row)| row[0] != 0) {
        let length = view_length(&row[1..3]);
        let is_inside = length <= VIEW_INLINE || row[2].checked_add(length as u64).is_some_and(|end| end <= arena);
        if length > KEY_BYTES_MAX || !is_inside {
            return Err(format!("the key of row {slot} lies outside of the chunk"));
        }
        garbage = garbage.saturating_sub(if length > VIEW_INLINE { length } else { 0 });
    }
    Ok(garbage)
}
