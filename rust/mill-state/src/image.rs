//! How a chunk lies in a checkpoint. Little-endian; every part starts at a multiple of 8.
//!
//! ```text
//!     0  magic u32 = "MSTC"          4  version u32 = 2
//!     8  fingerprint of the layout u64
//!    16  words in a row u32         20  rows in the chunk u32 (a power of two)
//!    24  cells beside a row u32     28  rows given u32
//!    32  arena starts at u64        40  bytes of arena u64
//!    48  bytes of cells u64         56  zero
//!    64  which rows are given: a bit a row, in words      (absent in a whole chunk: all are)
//!        the rows given, whole, in ascending order        (an empty row is all zero)
//!        bytes of arena
//!        lengths of cells u32, a row given x a cell       (0xffff_ffff: no cell)
//!        bytes of cells, in the same order
//! ```
//!
//! A whole chunk has its rows at byte 64 of a block aligned to 64: they are used in place, as they are. Its arena starts
//! at 0. In a block of changed rows the arena is what was appended since the snapshot before.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use mill_frame::block::{BlockPayload, SharedBytes};

use crate::chunk::{Cell, ChunkData};
use crate::error::{Result, StateError};
use crate::key::{KEY_BYTES_MAX, VIEW_INLINE, le_word, view_length};
use crate::layout::{ROW_WORDS_MAX, RowLayout, TAG_DIRTY, TAG_OCCUPIED};
use crate::shared::Handed;
use crate::table::CHUNK_ROWS_FIRST;

const MAGIC: u32 = u32::from_le_bytes(*b"MSTC");
/// The version of the format.
pub(crate) const VERSION: u32 = 2;
const HEADER: usize = 64;
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
    /// The rows to give, a bit each; `None` for all. Looked for when it is first asked for.
    given: OnceLock<Option<Box<[u64]>>>,
}

impl ChunkImage {
    /// The image of a chunk; `arena` is what was appended since the last one.
    pub(crate) fn new(data: Handed, layout: Arc<RowLayout>, is_all: bool, arena: Range<usize>) -> ChunkImage {
        ChunkImage { data, layout, is_all, arena, given: OnceLock::new() }
    }

    fn given(&self) -> Option<&[u64]> {
        self.given.get_or_init(|| if self.is_all { None } else { changed(&self.data, &self.layout) }).as_deref()
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
            Some(bits) => {
                let of_word = |(place, &word): (usize, &u64)| {
                    (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| place as u32 * 64 + bit)
                };
                bits.iter().enumerate().flat_map(of_word).collect()
            }
        }
    }

    fn given_rows(&self) -> usize {
        self.given().map_or(self.capacity(), |bits| bits.iter().map(|word| word.count_ones() as usize).sum())
    }

    fn cell_bytes(&self) -> usize {
        if self.layout.cells == 0 {
            return 0;
        }
        let of_slot = |slot: u32| -> usize { self.cells_of(slot).iter().flatten().map(|cell| cell.len()).sum() };
        self.slots().into_iter().map(of_slot).sum()
    }

    fn cells_of(&self, slot: u32) -> &[Cell] {
        &self.data.cells[slot as usize * self.layout.cells..][..self.layout.cells]
    }
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
        let bits = self.given().map_or(0, |bits| bits.len() * 8);
        let rows = self.given_rows();
        HEADER
            + bits
            + rows * self.layout.row_words * 8
            + padded(self.arena().len())
            + padded(rows * self.layout.cells * 4)
            + padded(self.cell_bytes())
    }

    fn is_whole(&self) -> bool {
        self.given().is_none()
    }

    fn write(&self, out: &mut [u8]) {
        let row_bytes = self.layout.row_words * 8;
        let rows = self.given_rows();
        let arena_from = self.arena().start;
        let arena = &self.data.arena.bytes()[self.arena()];
        let mut writer = Writer { out, at: 0 };
        writer.put(&MAGIC.to_le_bytes());
        writer.put(&VERSION.to_le_bytes());
        writer.put(&self.layout.fingerprint.to_le_bytes());
        for value in [self.layout.row_words, self.capacity(), self.layout.cells, rows] {
            writer.put(&(value as u32).to_le_bytes());
        }
        for value in [arena_from, arena.len(), self.cell_bytes(), 0] {
            writer.put(&(value as u64).to_le_bytes());
        }
        match self.given() {
            None => writer.put(self.data.row_bytes()),
            Some(bits) => {
                for word in bits {
                    writer.put(&word.to_le_bytes());
                }
                for slot in self.slots() {
                    writer.put(&self.data.row_bytes()[slot as usize * row_bytes..][..row_bytes]);
                }
            }
        }
        writer.put(arena);
        writer.pad();
        if self.layout.cells > 0 {
            let slots = self.slots();
            for cell in slots.iter().flat_map(|&slot| self.cells_of(slot)) {
                writer.put(&cell.as_ref().map_or(NO_CELL, |cell| cell.len() as u32).to_le_bytes());
            }
            writer.pad();
            for cell in slots.iter().flat_map(|&slot| self.cells_of(slot)).flatten() {
                writer.put(cell);
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

/// A block of a checkpoint, taken apart; nothing in it is trusted but what has been checked here: every part lies
/// within the bytes.
pub(crate) struct ParsedImage {
    pub(crate) capacity: u32,
    /// The places of the rows given; `None` for all.
    slots: Option<Vec<u32>>,
    rows: SharedBytes,
    arena_from: usize,
    /// `None` if there are no bytes: sharing costs something where many threads do it.
    arena: Option<SharedBytes>,
    cells: Vec<Cell>,
}

/// Reads a block. The error is what is wrong with it, to be put into [`StateError::Damaged`] with its address.
pub(crate) fn parse(bytes: &SharedBytes, layout: &RowLayout, is_whole: bool) -> Result<std::result::Result<ParsedImage, String>> {
    let short = || Ok(Err(format!("it has {} bytes, fewer than it needs", bytes.len())));
    let Some(header) = bytes.get(..HEADER) else { return short() };
    let u32_at = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes were sliced"));
    let u64_at = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes were sliced"));
    if u32_at(0) != MAGIC {
        return Ok(Err("it is not a chunk of state".to_owned()));
    }
    if u32_at(4) != VERSION {
        return Err(StateError::Version { found: u32_at(4), expected: VERSION });
    }
    if u64_at(8) != layout.fingerprint {
        return Err(StateError::Layout { expected: layout.fingerprint, found: u64_at(8) });
    }
    let (row_words, capacity, cells, given) = (u32_at(16), u32_at(20), u32_at(24), u32_at(28));
    if row_words as usize != layout.row_words || cells as usize != layout.cells {
        return Ok(Err(format!("its rows have {row_words} words and {cells} cells")));
    }
    if !capacity.is_power_of_two() || capacity < CHUNK_ROWS_FIRST || capacity > 1 << 30 || given > capacity {
        return Ok(Err(format!("it has {given} of {capacity} rows")));
    }
    let mut at = HEADER;
    let mut part = |length: u64| -> Option<(usize, usize)> {
        let start = at;
        let end = start.checked_add(usize::try_from(length).ok()?)?;
        at = end.checked_next_multiple_of(8)?;
        (at <= bytes.len()).then_some((start, end))
    };
    let mut slots = None;
    if !is_whole {
        let Some((start, end)) = part(u64::from(capacity.div_ceil(64)) * 8) else { return short() };
        let mut places = Vec::new();
        for (word, chunk) in bytes[start..end].chunks_exact(8).enumerate() {
            let word_bits = u64::from_le_bytes(chunk.try_into().expect("chunks of eight"));
            places.extend((0..64).filter(|bit| word_bits >> bit & 1 == 1).map(|bit| word as u32 * 64 + bit));
        }
        if places.len() != given as usize || places.last().is_some_and(|&last| last >= capacity) {
            return Ok(Err(format!("it names {} rows and gives {given} of {capacity}", places.len())));
        }
        slots = Some(places);
    } else if given != capacity {
        return Ok(Err(format!("it is whole and gives {given} of {capacity} rows")));
    }
    let Some((start, end)) = part(u64::from(given) * u64::from(row_words) * 8) else { return short() };
    let rows = bytes.slice(start, end);
    let Some((start, end)) = part(u64_at(40)) else { return short() };
    let arena = (start < end).then(|| bytes.slice(start, end));
    let arena_from = u64_at(32);
    if is_whole && arena_from != 0 || arena_from > 1 << 40 {
        return Ok(Err(format!("its keys start at {arena_from}")));
    }
    let mut values = Vec::new();
    if cells > 0 {
        let Some((start, end)) = part(u64::from(given) * u64::from(cells) * 4) else { return short() };
        let lengths = &bytes[start..end];
        let Some((start, end)) = part(u64_at(48)) else { return short() };
        let mut rest = &bytes[start..end];
        values.reserve(lengths.len() / 4);
        for length in lengths.chunks_exact(4) {
            let length = u32::from_le_bytes(length.try_into().expect("chunks of four"));
            if length == NO_CELL {
                values.push(None);
                continue;
            }
            let Some((value, behind)) = rest.split_at_checked(length as usize) else { return short() };
            rest = behind;
            values.push(Some(Arc::new(value.to_vec())));
        }
    }
    Ok(Ok(ParsedImage { capacity, slots, rows, arena_from: arena_from as usize, arena, cells: values }))
}

impl ParsedImage {
    /// The chunk that a whole image is. Its rows stay where they are if their memory is aligned.
    pub(crate) fn into_data(self) -> ChunkData {
        let words = self.rows.len() / 8;
        if self.rows.as_ptr().cast::<u64>().is_aligned() && cfg!(target_endian = "little") {
            return ChunkData::mapped(self.rows, self.arena, self.cells).expect("alignment has just been checked");
        }
        let mut data = ChunkData::zeroed(words, 0, None);
        let own = data.words_mut().expect("zeroed memory is owned");
        for (word, bytes) in own.iter_mut().zip(self.rows.chunks_exact(8)) {
            *word = u64::from_le_bytes(bytes.try_into().expect("chunks of eight"));
        }
        data.arena_mut().extend_from_slice(self.arena.as_deref().unwrap_or_default());
        data.cells = self.cells;
        data
    }

    /// Applies changed rows to the chunk they were taken from. The error is what does not fit.
    pub(crate) fn apply(self, data: &mut ChunkData, layout: &RowLayout) -> std::result::Result<(), String> {
        let Some(slots) = &self.slots else { return Err("it is whole".to_owned()) };
        let arena = data.arena_mut();
        if arena.len() != self.arena_from {
            return Err(format!("its keys start at {}, those before it end at {}", self.arena_from, arena.len()));
        }
        arena.extend_from_slice(self.arena.as_deref().unwrap_or_default());
        let row_words = layout.row_words;
        let Some(words) = data.words_mut() else { return Err("its base is mapped".to_owned()) };
        for (&slot, row) in slots.iter().zip(self.rows.chunks_exact(row_words * 8)) {
            let target = &mut words[slot as usize * row_words..][..row_words];
            for (word, bytes) in target.iter_mut().zip(row.chunks_exact(8)) {
                *word = u64::from_le_bytes(bytes.try_into().expect("chunks of eight"));
            }
        }
        for (place, value) in self.cells.into_iter().enumerate() {
            let slot = slots[place / layout.cells] as usize;
            data.cells[slot * layout.cells + place % layout.cells] = value;
        }
        Ok(())
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

/// Checks the rows of a chunk that came from a disk and counts them, unless [`inspect`] has. The error is what is wrong.
pub(crate) fn check_rows(data: &ChunkData, layout: &RowLayout, seen: Option<u32>) -> std::result::Result<u32, String> {
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
    if layout.key.is_view() {
        check_views(data, layout)?;
    }
    Ok(count)
}

/// Checks that the long keys of a chunk lie within it.
fn check_views(data: &ChunkData, layout: &RowLayout) -> std::result::Result<(), String> {
    let arena = data.arena.bytes().len() as u64;
    for (slot, row) in data.words().chunks_exact(layout.row_words).enumerate().filter(|(_, row)| row[0] != 0) {
        let length = view_length(&row[1..3]);
        let is_inside = length <= VIEW_INLINE || row[2].checked_add(length as u64).is_some_and(|end| end <= arena);
        if length > KEY_BYTES_MAX || !is_inside {
            return Err(format!("the key of row {slot} lies outside of the chunk"));
        }
    }
    Ok(())
}
