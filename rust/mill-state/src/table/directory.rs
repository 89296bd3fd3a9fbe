//! The directory of a table: which chunk a hash belongs to, and all that a look-up needs of it.
//!
//! An entry names the epoch in which its chunk became writable by a tag of one byte, so that a barrier need not visit the
//! entries: with the next epoch none of them is ready any more. The tags come round after 255 epochs. Before that, every
//! entry of an older epoch is wiped: each barrier wipes a 128th part, in turn.

use std::ops::Range;

use crate::layout::TAG_FLAG_FIRST;

/// The place of a chunk that is not there.
pub(super) const NO_CHUNK: u32 = PLACE_MASK;
const PLACE_BITS: u32 = 24;
const PLACE_MASK: u32 = (1 << PLACE_BITS) - 1;
/// How many different tags epochs have; 0 is the tag of none.
const TAGS: u64 = 255;
/// In how many epochs each entry is wiped at least once. An entry that lies where the wiping has just been has one more
/// to go, and still its tag is gone long before it comes round.
const WIPE_EPOCHS: usize = 128;

/// An entry: what a look-up needs of the chunk, so that it need not look at the chunk itself.
///
/// Invariant: if the tag is that of the present epoch, `chunks[place]` is writable and `base` and `mask` are its own.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Entry {
    pub(super) base: *mut u64,
    pub(super) mask: u32,
    tag_and_place: u32,
}

const _: () = assert!(size_of::<Entry>() == 16);

impl Entry {
    const NONE: Entry = Entry { base: std::ptr::null_mut(), mask: 0, tag_and_place: NO_CHUNK };

    /// Whether its chunk may be written to in the epoch of this tag.
    #[inline(always)]
    pub(super) fn is_ready(self, tag: u8) -> bool {
        (self.tag_and_place >> PLACE_BITS) as u8 == tag
    }

    #[inline(always)]
    pub(super) fn chunk_index(self) -> u32 {
        self.tag_and_place & PLACE_MASK
    }
}

/// All entries: `groups << depth` of them.
#[derive(Debug)]
pub(super) struct Directory {
    entries: Vec<Entry>,
    groups: usize,
    first_group: usize,
    depth: u32,
    /// The tag of the present epoch.
    tag: u8,
    /// Where the next wiping goes on.
    wiped: usize,
}

impl Directory {
    /// No chunks yet, in the first epoch.
    pub(super) fn new(groups: &Range<u16>) -> Directory {
        let (groups, first_group) = (groups.len(), usize::from(groups.start));
        Directory { entries: vec![Entry::NONE; groups], groups, first_group, depth: 0, tag: tag_of(1), wiped: 0 }
    }

    /// Forgets all chunks, to tell so many bits of the hash.
    pub(super) fn clear(&mut self, depth: u32) {
        self.entries.clear();
        self.entries.resize(self.groups << depth, Entry::NONE);
        (self.depth, self.wiped) = (depth, 0);
    }

    /// How many bits of the hash after the key group it tells apart.
    pub(super) fn depth(&self) -> u32 {
        self.depth
    }

    /// Lets it tell one more.
    pub(super) fn deepen(&mut self) {
        self.entries = self.entries.iter().flat_map(|&entry| [entry, entry]).collect();
        self.depth += 1;
        self.wiped *= 2;
    }

    pub(super) fn memory(&self) -> usize {
        self.entries.len() * size_of::<Entry>()
    }

    #[inline(always)]
    pub(super) fn at(&self, hash: u64) -> Entry {
        self.view().at(hash)
    }

    #[inline(always)]
    pub(super) fn view(&self) -> DirectoryView<'_> {
        DirectoryView {
            entries: &self.entries,
            shift: TAG_FLAG_FIRST - self.depth,
            first: self.first_group << self.depth,
            tag: self.tag,
        }
    }

    /// The place of the chunk that holds this prefix, or the beginning of it.
    pub(super) fn place_of(&self, group: u16, id: u32) -> u32 {
        self.entries[self.first_entry(group, id)].chunk_index()
    }

    /// The first entry of a prefix.
    fn first_entry(&self, group: u16, id: u32) -> usize {
        let depth = id.ilog2();
        let prefix = (id - (1 << depth)) as usize;
        ((usize::from(group) - self.first_group) << self.depth) + (prefix << (self.depth - depth))
    }

    /// Writes the entries of a chunk.
    pub(super) fn enter(&mut self, group: u16, id: u32, place: u32, base: *mut u64, mask: u32, is_writable: bool) {
        assert!(place < NO_CHUNK, "a table has fewer than 2^{PLACE_BITS} chunks");
        let below = self.depth - id.ilog2();
        let first = self.first_entry(group, id);
        let tag = if is_writable { self.tag } else { 0 };
        let entry = Entry { base, mask, tag_and_place: u32::from(tag) << PLACE_BITS | place };
        self.entries[first..first + (1 << below)].fill(entry);
    }

    /// From now on no entry is ready.
    pub(super) fn begin_epoch(&mut self, epoch: u64) {
        self.tag = tag_of(epoch);
        let end = (self.wiped + self.entries.len().div_ceil(WIPE_EPOCHS)).min(self.entries.len());
        for entry in &mut self.entries[self.wiped..end] {
            entry.tag_and_place &= PLACE_MASK;
        }
        self.wiped = if end == self.entries.len() { 0 } else { end };
    }
}

/// The directory as loops read it.
#[derive(Clone, Copy)]
pub(super) struct DirectoryView<'t> {
    entries: &'t [Entry],
    shift: u32,
    first: usize,
    pub(super) tag: u8,
}

impl DirectoryView<'_> {
    #[inline(always)]
    pub(super) fn at(self, hash: u64) -> Entry {
        self.entries[((hash >> self.shift) as usize).wrapping_sub(self.first)]
    }
}

fn tag_of(epoch: u64) -> u8 {
    (epoch % TAGS) as u8 + 1
}

#[cfg(test)]
mod tests;
