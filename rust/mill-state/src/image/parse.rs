//! Taking the blocks of a checkpoint apart. Nothing in them is trusted but what has been checked here: every part lies
//! within the bytes. What the rows say is checked by [`check_rows`](super::check_rows), once all is applied.

use std::ops::Range;

use mill_frame::block::SharedBytes;

use super::{
    FLAG_ARENA, FLAG_BITS, FLAG_EMPTIED, FLAG_EMPTIED_BITS, HEADER, MAGIC, NO_CELL, ROWS_EMPTIED, ROWS_HEADER, VERSION, slots_of,
};
use crate::cell::Cell;
use crate::chunk::ChunkData;
use crate::error::{Result, StateError};
use crate::layout::RowLayout;
use crate::table::CHUNK_ROWS_FIRST;

/// How many bytes the arena of a chunk can have.
const ARENA_BYTES_MAX: u64 = 1 << 40;

/// A block of a checkpoint, taken apart.
pub(crate) struct ParsedImage {
    pub(crate) capacity: u32,
    /// The places of the rows given; `None` for all.
    slots: Option<Vec<u32>>,
    /// The places of rows that were removed.
    emptied: Vec<u32>,
    rows: SharedBytes,
    /// Where in the chunk's arena, and which bytes; `None` if there are none: sharing costs something where many threads
    /// do it.
    arena: Option<(usize, SharedBytes)>,
    cells: Vec<Cell>,
}

/// What is wrong with a block, to be put into [`StateError::Damaged`] with its address.
type Parsed<T> = std::result::Result<T, String>;

/// Reads a block. The inner error is what is wrong with it.
pub(crate) fn parse(bytes: &SharedBytes, layout: &RowLayout, is_whole: bool) -> Result<Parsed<ParsedImage>> {
    let version = if is_whole {
        if u32_at(bytes, 0) != Some(MAGIC) {
            return Ok(Err("it is not a chunk of state".to_owned()));
        }
        u32_at(bytes, 4).unwrap_or_default()
    } else {
        u32::from(bytes.first().copied().unwrap_or_default())
    };
    if version != VERSION {
        return Err(StateError::Version { found: version, expected: VERSION });
    }
    if is_whole {
        let found = u64_at(bytes, 8).unwrap_or_default();
        if found != layout.fingerprint {
            return Err(StateError::Layout { expected: layout.fingerprint, found });
        }
    }
    Ok(if is_whole { parse_whole(bytes, layout) } else { parse_rows(bytes, layout) })
}

fn parse_whole(bytes: &SharedBytes, layout: &RowLayout) -> Parsed<ParsedImage> {
    let mut parts = Parts { bytes, at: 0 };
    parts.take(HEADER as u64)?;
    let field = |at: usize| u32_at(bytes, at).unwrap_or_default();
    let (row_words, capacity, cells, given) = (field(16), field(20), field(24), field(28));
    if row_words as usize != layout.row_words || cells as usize != layout.cells {
        return Err(format!("its rows have {row_words} words and {cells} cells"));
    }
    check_capacity(capacity, given)?;
    if given != capacity {
        return Err(format!("it is whole and gives {given} of {capacity} rows"));
    }
    let rows = parts.take(u64::from(capacity) * u64::from(row_words) * 8)?;
    if u64_at(bytes, 32) != Some(0) {
        return Err("its keys do not start at 0".to_owned());
    }
    let arena = parts.take(u64_at(bytes, 40).unwrap_or_default())?;
    let arena = (!arena.is_empty()).then(|| (0, bytes.slice(arena.start, arena.end)));
    let values = cells_of(&mut parts, layout, capacity)?;
    Ok(ParsedImage { capacity, slots: None, emptied: Vec::new(), rows: bytes.slice(rows.start, rows.end), arena, cells: values })
}

fn parse_rows(bytes: &SharedBytes, layout: &RowLayout) -> Parsed<ParsedImage> {
    let mut parts = Parts { bytes, at: 0 };
    let header = parts.take(ROWS_HEADER as u64)?;
    let (flags, shift) = (bytes[header.start + 1], bytes[header.start + 2]);
    let given = u32_at(bytes, 4).unwrap_or_default();
    let capacity = 1u32.checked_shl(u32::from(shift)).unwrap_or_default();
    check_capacity(capacity, given)?;
    let (mut arena_from, mut arena_bytes) = (0, 0);
    if flags & FLAG_ARENA != 0 {
        let place = parts.take(16)?;
        arena_from = u64_at(bytes, place.start).unwrap_or_default();
        arena_bytes = u64_at(bytes, place.start + 8).unwrap_or_default();
        if arena_from > ARENA_BYTES_MAX {
            return Err(format!("its keys start at {arena_from}"));
        }
    }
    if flags & !(FLAG_BITS | FLAG_ARENA | FLAG_EMPTIED | FLAG_EMPTIED_BITS) != 0 {
        return Err(format!("it has unknown flags {flags:#x}"));
    }
    let mut removed = 0;
    if flags & FLAG_EMPTIED != 0 {
        let place = parts.take(ROWS_EMPTIED as u64)?;
        let count = u64_at(bytes, place.start).unwrap_or_default();
        removed = u32::try_from(count).ok().filter(|&count| count <= capacity).ok_or_else(|| {
            format!("{count} of {capacity} rows are removed from it")
        })?;
    }
    let slots = places(&mut parts, given, capacity, flags & FLAG_BITS != 0)?;
    let emptied = match removed {
        0 => Vec::new(),
        _ => places(&mut parts, removed, capacity, flags & FLAG_EMPTIED_BITS != 0)?,
    };
    if let Some(both) = emptied.iter().find(|&slot| slots.binary_search(slot).is_ok()) {
        return Err(format!("row {both} is given and removed"));
    }
    let rows = parts.take(u64::from(given) * layout.row_words as u64 * 8)?;
    let arena = parts.take(arena_bytes)?;
    let arena = (!arena.is_empty()).then(|| (arena_from as usize, bytes.slice(arena.start, arena.end)));
    let cells = cells_of(&mut parts, layout, given)?;
    if parts.at != bytes.len() {
        return Err(format!("it has {} bytes, its rows end at {}", bytes.len(), parts.at));
    }
    Ok(ParsedImage { capacity, slots: Some(slots), emptied, rows: bytes.slice(rows.start, rows.end), arena, cells })
}

/// So many places out of all.
fn places(parts: &mut Parts<'_>, count: u32, capacity: u32, is_bits: bool) -> Parsed<Vec<u32>> {
    let slots: Vec<u32> = if is_bits {
        let place = parts.take(u64::from(capacity.div_ceil(64)) * 8)?;
        let words: Vec<u64> = parts.bytes[place].chunks_exact(8).map(crate::key::le_word).collect();
        slots_of(&words).collect()
    } else {
        let place = parts.take(u64::from(count) * 2)?;
        parts.bytes[place].chunks_exact(2).map(|two| u32::from(u16::from_le_bytes([two[0], two[1]]))).collect()
    };
    if slots.len() != count as usize || !slots.is_sorted_by(|a, b| a < b) || slots.last().is_some_and(|&last| last >= capacity) {
        return Err(format!("it does not name the {count} of {capacity} rows that it gives or removes"));
    }
    Ok(slots)
}

fn check_capacity(capacity: u32, given: u32) -> Parsed<()> {
    if !capacity.is_power_of_two() || capacity < CHUNK_ROWS_FIRST || capacity > 1 << 30 || given > capacity {
        return Err(format!("it has {given} of {capacity} rows"));
    }
    Ok(())
}

/// The cells of so many rows.
fn cells_of(parts: &mut Parts<'_>, layout: &RowLayout, rows: u32) -> Parsed<Vec<Cell>> {
    if layout.cells == 0 {
        return Ok(Vec::new());
    }
    let place = parts.take(u64::from(rows) * layout.cells as u64 * 4)?;
    let lengths = parts.bytes[place].chunks_exact(4).map(|four| u32_at(four, 0).unwrap_or(NO_CELL));
    let place = parts.take(lengths.clone().filter(|&length| length != NO_CELL).map(u64::from).sum())?;
    let mut rest = &parts.bytes[place];
    let mut values = Vec::with_capacity(lengths.len());
    for length in lengths {
        if length == NO_CELL {
            values.push(Cell::default());
            continue;
        }
        let (value, behind) = rest.split_at(length as usize);
        rest = behind;
        values.push(Cell::from(value));
    }
    Ok(values)
}

/// The parts of a block, one after the other, each at a multiple of 8.
struct Parts<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Parts<'_> {
    fn take(&mut self, length: u64) -> Parsed<Range<usize>> {
        let start = self.at;
        let end = usize::try_from(length).ok().and_then(|length| start.checked_add(length));
        let padded = end.and_then(|end| end.checked_next_multiple_of(8));
        match (end, padded) {
            (Some(end), Some(padded)) if padded <= self.bytes.len() => {
                self.at = padded;
                Ok(start..end)
            }
            _ => Err(format!("it has {} bytes, fewer than it needs", self.bytes.len())),
        }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).map(|four| u32::from_le_bytes(four.try_into().expect("four bytes were sliced")))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8).map(crate::key::le_word)
}

impl ParsedImage {
    /// The chunk that a whole image is. Its rows stay where they are if their memory is aligned.
    pub(crate) fn into_data(self) -> ChunkData {
        let words = self.rows.len() / 8;
        if self.rows.as_ptr().cast::<u64>().is_aligned() && cfg!(target_endian = "little") {
            let arena = self.arena.map(|(_, bytes)| bytes);
            return ChunkData::mapped(self.rows, arena, self.cells).expect("alignment has just been checked");
        }
        let mut data = ChunkData::zeroed(words, 0, None);
        let own = data.words_mut().expect("zeroed memory is owned");
        for (word, bytes) in own.iter_mut().zip(self.rows.chunks_exact(8)) {
            *word = u64::from_le_bytes(bytes.try_into().expect("chunks of eight"));
        }
        if let Some((_, bytes)) = &self.arena {
            data.arena_mut().extend_from_slice(bytes);
        }
        data.cells = self.cells;
        data
    }

    /// Applies changed rows to the chunk they were taken from. The error is what does not fit.
    pub(crate) fn apply(self, data: &mut ChunkData, layout: &RowLayout) -> std::result::Result<(), String> {
        let Some(slots) = &self.slots else { return Err("it is whole".to_owned()) };
        if let Some((from, bytes)) = &self.arena {
            let arena = data.arena_mut();
            if arena.len() != *from {
                return Err(format!("its keys start at {from}, those before it end at {}", arena.len()));
            }
            arena.extend_from_slice(bytes);
        }
        let row_words = layout.row_words;
        let Some(words) = data.words_mut() else { return Err("its base is mapped".to_owned()) };
        for &slot in &self.emptied {
            words[slot as usize * row_words..][..row_words].fill(0);
        }
        for (&slot, row) in slots.iter().zip(self.rows.chunks_exact(row_words * 8)) {
            let target = &mut words[slot as usize * row_words..][..row_words];
            for (word, bytes) in target.iter_mut().zip(row.chunks_exact(8)) {
                *word = u64::from_le_bytes(bytes.try_into().expect("chunks of eight"));
            }
        }
        for &slot in &self.emptied {
            data.cells[slot as usize * layout.cells..][..layout.cells].fill(Cell::default());
        }
        for (place, value) in self.cells.into_iter().enumerate() {
            let slot = slots[place / layout.cells] as usize;
            data.cells[slot * layout.cells + place % layout.cells] = value;
        }
        Ok(())
    }
}
