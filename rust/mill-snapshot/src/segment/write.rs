//! Laying blocks out and writing them.
//!
//! A block is laid out in place: its payload writes itself into the mapping of the file, or into memory if its task is
//! so small that it shares a file with others. The checksum is taken from what was laid out.

use std::path::Path;

use mill_frame::block::{BlockPayload, SharedBytes};
use mill_frame::on_all_cores;
use rayon::prelude::*;

use crate::aligned::AlignedBytes;
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::segment::{
    BLOCK_BYTES_MAX, BlockHeader, Class, HEADER_BYTES, Header, NamesUsed, SegmentRef, aligned, encode_footer, put,
};

/// From this size on blocks are laid out on several threads.
const PARALLEL_BYTES_MIN: usize = 8 << 20;

/// A block that is yet to be laid out; its header says how many bytes the payload has.
pub(crate) struct Item {
    pub header: BlockHeader,
    pub payload: Box<dyn BlockPayload>,
}

impl Item {
    pub(crate) fn new(mut header: BlockHeader, payload: Box<dyn BlockPayload>) -> Item {
        header.bytes = payload.size() as u64;
        Item { header, payload }
    }
}

/// A payload that is mapped already, on its way into a merged segment.
pub(crate) struct Mapped(pub SharedBytes);

impl BlockPayload for Mapped {
    fn size(&self) -> usize {
        self.0.len()
    }
    fn write(&self, out: &mut [u8]) {
        out.copy_from_slice(&self.0);
    }
}

/// Blocks that are laid out in memory, to share a file with others.
pub(crate) struct Part {
    pub bytes: AlignedBytes,
    pub laid: Laid,
    pub used: NamesUsed,
}

/// What is known of blocks once they are laid out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Laid {
    /// The checksums of the block headers, in order.
    pub crcs: Vec<u32>,
    /// How many bytes are keyed state.
    pub keyed_bytes: u64,
}

/// How blocks lie one after the other.
pub(crate) struct Layout {
    /// How many bytes each takes, up to the start of the next one.
    extents: Vec<usize>,
    /// How many they take together, a multiple of 64.
    pub bytes: usize,
}

impl Layout {
    /// The layout of these blocks in a segment of this epoch.
    pub(crate) fn of(items: &[Item], segment_epoch: u64) -> Layout {
        let mut extents: Vec<usize> = Vec::with_capacity(items.len());
        let (mut start, mut end) = (0, 0_usize);
        for item in items {
            let form = item.header.form(segment_epoch);
            let next = end.next_multiple_of(form.alignment());
            extents.push(next - start);
            start = next;
            end = start + form.header_bytes() + (item.header.bytes as usize).next_multiple_of(form.alignment());
        }
        let bytes = aligned(end);
        extents.push(bytes - start);
        // Before the first block there is nothing.
        extents.remove(0);
        Layout { extents, bytes }
    }
}

/// Lays blocks out one after the other; `out` is as long as the layout says, aligned to 64, and zero.
pub(crate) fn lay_out(out: &mut [u8], items: Vec<Item>, layout: &Layout, segment_epoch: u64) -> Result<Laid> {
    let total = out.len();
    let mut rest = out;
    let mut places = Vec::with_capacity(items.len());
    let mut keyed_bytes = 0;
    for (item, &extent) in items.into_iter().zip(&layout.extents) {
        if item.header.bytes > BLOCK_BYTES_MAX {
            return Err(Error::TooLarge {
                what: "a block of state in bytes".to_owned(),
                size: item.header.bytes,
                limit: BLOCK_BYTES_MAX,
            });
        }
        if item.header.class == Class::Keyed {
            keyed_bytes += extent as u64;
        }
        let (place, behind) = rest.split_at_mut(extent);
        places.push((item, place));
        rest = behind;
    }
    assert!(rest.is_empty(), "{} of {total} bytes are left over after all blocks", rest.len());
    let lay_out_one = |(mut item, place): (Item, &mut [u8])| {
        let form = item.header.form(segment_epoch);
        item.payload.write(&mut place[form.header_bytes()..][..item.header.bytes as usize]);
        item.header.write(form, place, segment_epoch)
    };
    let crcs = if total < PARALLEL_BYTES_MIN {
        places.into_iter().map(lay_out_one).collect()
    } else {
        on_all_cores(|| places.into_par_iter().map(lay_out_one).collect())
    };
    Ok(Laid { crcs, keyed_bytes })
}

/// What goes into a segment.
pub(crate) enum Body {
    Items(Vec<Item>, Layout),
    Parts(Vec<Part>),
}

impl Body {
    /// Blocks for a segment of this epoch.
    pub(crate) fn of(items: Vec<Item>, segment_epoch: u64) -> Body {
        let layout = Layout::of(&items, segment_epoch);
        Body::Items(items, layout)
    }
}

/// Where a segment belongs.
#[derive(Clone, Debug)]
pub(crate) struct Place<'a> {
    pub disk: &'a dyn Disk,
    pub dir: &'a Path,
    pub file: String,
    pub epoch: u64,
    pub state: u64,
    pub is_full: bool,
}

/// Writes a segment and makes its bytes durable; its name becomes durable with the directory. A file that could not be
/// written is removed and never used again.
pub(crate) fn write_segment(place: &Place<'_>, names: &[u8], body: Body) -> Result<SegmentRef> {
    let path = place.dir.join(&place.file);
    let written = write_unchecked(place, &path, names, body);
    if written.is_err() {
        // Best effort: retention removes what nothing refers to.
        let _ = place.disk.remove(&path);
    }
    written
}

fn write_unchecked(place: &Place<'_>, path: &Path, names: &[u8], body: Body) -> Result<SegmentRef> {
    let start = HEADER_BYTES + aligned(names.len());
    let (blocks, bytes) = match &body {
        Body::Items(items, layout) => (items.len(), layout.bytes),
        Body::Parts(parts) => {
            (parts.iter().map(|part| part.laid.crcs.len()).sum(), parts.iter().map(|part| part.bytes.len()).sum())
        }
    };
    let file_bytes = (start + bytes + HEADER_BYTES) as u64;
    let mut file = place.disk.create(path, file_bytes).map_err(|error| match Error::io("create", path, error) {
        Error::NoSpace { path, .. } => {
            Error::NoSpace { path, needed: file_bytes, free: place.disk.free_space(place.dir).ok() }
        }
        other => other,
    })?;
    let out = file.bytes();
    assert_eq!(out.len() as u64, file_bytes, "the disk returned a file of another size");
    put(out, HEADER_BYTES, names);
    let names_crc = crc32c::crc32c(&out[HEADER_BYTES..start]);
    let header = Header {
        names_bytes: names.len() as u32,
        names_crc,
        epoch: place.epoch,
        file_bytes,
        blocks: blocks as u64,
        state: place.state,
    };
    put(out, 0, &header.encode());
    let laid = match body {
        Body::Items(items, layout) => lay_out(&mut out[start..start + bytes], items, &layout, place.epoch)?,
        Body::Parts(parts) => place_parts(&mut out[start..start + bytes], parts),
    };
    let digest = digest_of(&laid.crcs);
    put(out, start + bytes, &encode_footer(&header, digest));
    file.finish().map_err(|source| Error::SyncFailed { path: path.to_path_buf(), source })?;
    Ok(SegmentRef {
        file: place.file.clone(),
        epoch: place.epoch,
        bytes: file_bytes,
        keyed_bytes: laid.keyed_bytes,
        blocks: blocks as u64,
        digest,
        is_full: place.is_full,
    })
}

fn place_parts(out: &mut [u8], parts: Vec<Part>) -> Laid {
    let mut laid = Laid::default();
    let mut at = 0;
    for part in parts {
        put(out, at, &part.bytes);
        at += part.bytes.len();
        laid.crcs.extend(part.laid.crcs);
        laid.keyed_bytes += part.laid.keyed_bytes;
    }
    laid
}

/// A checksum over the checksums of all blocks.
pub(crate) fn digest_of(crcs: &[u32]) -> u32 {
    crcs.iter().fold(0, |digest, crc| crc32c::crc32c_append(digest, &crc.to_le_bytes()))
}

/// Lays blocks out in memory.
pub(crate) fn lay_out_part(items: Vec<Item>, layout: &Layout, used: NamesUsed, segment_epoch: u64) -> Result<Part> {
    let mut bytes = AlignedBytes::zeroed(layout.bytes);
    let laid = lay_out(&mut bytes, items, layout, segment_epoch)?;
    Ok(Part { bytes, laid, used })
}
