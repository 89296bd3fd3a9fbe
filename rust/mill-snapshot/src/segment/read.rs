//! Reading a segment: every byte is checked before any is handed out.

use std::path::{Path, PathBuf};

use mill_frame::block::{BlockKind, Inspect, SharedBytes};
use mill_frame::on_all_cores;
use rayon::prelude::*;

use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::segment::names::NamesRead;
use crate::segment::write::digest_of;
use crate::segment::block::{Decoded, Form, SHORT_BYTES};
use crate::segment::{
    BLOCK_BYTES_MAX, BlockHeader, Class, FOOTER_MAGIC, HEADER_BYTES, Header, SEGMENT_MAGIC, SEGMENT_VERSION,
    SegmentRef, TaskId, aligned, is_sealed, u32_at, u64_at,
};

/// A block of a mapped segment.
#[derive(Clone, Debug)]
pub(crate) struct StoredBlock {
    pub header: BlockHeader,
    /// Where the payload starts in the file.
    pub start: usize,
    /// Where its padding ends.
    pub end: usize,
    pub form: Form,
    /// What was seen in it, if it was looked at.
    pub seen: u32,
}

/// A segment whose every byte was checked.
#[derive(Debug)]
pub(crate) struct Segment {
    bytes: SharedBytes,
    names: NamesRead,
    pub blocks: Vec<StoredBlock>,
}

impl Segment {
    /// Maps and checks the segment that a manifest refers to.
    pub(crate) fn open(
        disk: &dyn Disk,
        dir: &Path,
        state: u64,
        wanted: &SegmentRef,
        inspect: Option<Inspect>,
    ) -> Result<Segment> {
        let path = dir.join(&wanted.file);
        let bytes = disk.map(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::damaged(&path, 0, "the file is gone"),
            _ => Error::io("read", &path, error),
        })?;
        if bytes.len() as u64 != wanted.bytes {
            let what = format!("the file has {} bytes, {} were written", bytes.len(), wanted.bytes);
            return Err(Error::damaged(&path, bytes.len() as u64, what));
        }
        let (segment, header, digest) = Segment::parse(&path, bytes, inspect)?;
        if header.state != state {
            return Err(Error::damaged(&path, 40, "the file belongs to another state directory"));
        }
        if header.epoch != wanted.epoch || header.blocks != wanted.blocks || digest != wanted.digest {
            return Err(Error::damaged(&path, 16, "the file is not the one that was written for this checkpoint"));
        }
        Ok(segment)
    }

    /// Checks the bytes of a segment, whoever it belongs to; returns its header and its digest too.
    pub(crate) fn parse(path: &Path, bytes: SharedBytes, inspect: Option<Inspect>) -> Result<(Segment, Header, u32)> {
        let reader = Reader { path: path.to_path_buf(), raw: &bytes };
        let header = reader.header()?;
        let (names, start) = reader.names(&header)?;
        let (mut blocks, crcs) = reader.blocks(&header, &names, start)?;
        let digest = digest_of(&crcs);
        reader.footer(&header, digest)?;
        reader.payloads(&mut blocks, inspect)?;
        Ok((Segment { bytes, names, blocks }, header, digest))
    }

    /// The operators that its blocks refer to by number.
    pub(crate) fn operators(&self) -> impl Iterator<Item = (u16, &str)> {
        self.names.operators.iter().map(|(&number, uid)| (number, uid.as_str()))
    }

    /// The task that wrote a block.
    pub(crate) fn task(&self, block: &StoredBlock) -> &TaskId {
        &self.names.tasks[&block.header.task]
    }

    /// The payload of a block, where it is mapped.
    pub(crate) fn payload(&self, block: &StoredBlock) -> SharedBytes {
        self.bytes.slice(block.start, block.start + block.header.bytes as usize)
    }
}

struct Reader<'a> {
    path: PathBuf,
    raw: &'a [u8],
}

impl Reader<'_> {
    fn damaged(&self, offset: usize, what: impl Into<String>) -> Error {
        Error::damaged(&self.path, offset as u64, what)
    }

    fn line(&self, at: usize) -> Result<&[u8; HEADER_BYTES]> {
        self.raw
            .get(at..)
            .and_then(|rest| rest.first_chunk())
            .ok_or_else(|| self.damaged(at, "the file ends too early"))
    }

    fn header(&self) -> Result<Header> {
        let raw = self.line(0)?;
        if &raw[..8] != SEGMENT_MAGIC {
            return Err(self.damaged(0, "this is not a segment"));
        }
        if !is_sealed(raw) {
            return Err(self.damaged(0, "the checksum of the header does not match"));
        }
        // Only now the version can be believed; magic, version and checksum stay where they are in all versions.
        let version = u32_at(raw, 8);
        if version > SEGMENT_VERSION {
            return Err(Error::NewerFormat { path: self.path.clone(), found: version, known: SEGMENT_VERSION });
        }
        if version < SEGMENT_VERSION {
            return Err(Error::OlderFormat { path: self.path.clone(), found: version, known: SEGMENT_VERSION });
        }
        let header = Header {
            names_bytes: u32_at(raw, 12),
            epoch: u64_at(raw, 16),
            file_bytes: u64_at(raw, 24),
            blocks: u64_at(raw, 32),
            state: u64_at(raw, 40),
            names_crc: u32_at(raw, 48),
        };
        if header.file_bytes != self.raw.len() as u64 {
            let what = format!("the file has {} bytes, its header says {}", self.raw.len(), header.file_bytes);
            return Err(self.damaged(24, what));
        }
        if header.blocks > header.file_bytes / SHORT_BYTES as u64 {
            return Err(self.damaged(32, "the header counts more blocks than the file can hold"));
        }
        Ok(header)
    }

    fn names(&self, header: &Header) -> Result<(NamesRead, usize)> {
        let length = header.names_bytes as usize;
        let end = HEADER_BYTES + aligned(length);
        let Some(section) = self.raw.get(HEADER_BYTES..end) else {
            return Err(self.damaged(HEADER_BYTES, "the names do not fit into the file"));
        };
        if crc32c::crc32c(section) != header.names_crc {
            return Err(self.damaged(HEADER_BYTES, "the checksum of the names does not match"));
        }
        let names = NamesRead::decode(&section[..length]).map_err(|what| self.damaged(HEADER_BYTES, what))?;
        Ok((names, end))
    }

    /// Walks the block headers, which must tile the file up to the footer.
    fn blocks(&self, header: &Header, names: &NamesRead, start: usize) -> Result<(Vec<StoredBlock>, Vec<u32>)> {
        let end = self.raw.len().checked_sub(HEADER_BYTES).filter(|end| *end >= start);
        let end = end.ok_or_else(|| self.damaged(start, "the file ends before its blocks"))?;
        let mut blocks = Vec::with_capacity(header.blocks as usize);
        let mut crcs = Vec::with_capacity(header.blocks as usize);
        let mut at = start;
        for _ in 0..header.blocks {
            let decoded = BlockHeader::decode(&self.raw[at..end], header.epoch).map_err(|what| self.damaged(at, what))?;
            let Decoded { header: block, form, padding, crc } = decoded;
            let start = at + form.header_bytes();
            if at % form.alignment() != 0 {
                return Err(self.damaged(at, "a block begins where none can"));
            }
            if block.bytes > BLOCK_BYTES_MAX || block.bytes + padding as u64 > end.saturating_sub(start) as u64 {
                return Err(self.damaged(at, "a block is longer than the rest of the file"));
            }
            if block.epoch > header.epoch {
                return Err(self.damaged(at, "a block is of a later checkpoint than its segment"));
            }
            if !names.operators.contains_key(&block.operator) || !names.tasks.contains_key(&block.task) {
                return Err(self.damaged(at, "a block refers to a name that the segment does not have"));
            }
            crcs.push(crc);
            at = start + block.bytes as usize + padding;
            blocks.push(StoredBlock { header: block, start, end: at, form, seen: 0 });
        }
        if at != end {
            return Err(self.damaged(at, "the blocks do not fill the file"));
        }
        Ok((blocks, crcs))
    }

    fn footer(&self, header: &Header, digest: u32) -> Result<()> {
        let at = self.raw.len() - HEADER_BYTES;
        let raw = self.line(at)?;
        if !is_sealed(raw) || &raw[..8] != FOOTER_MAGIC {
            return Err(self.damaged(at, "the checksum of the footer does not match"));
        }
        let is_same = u64_at(raw, 8) == header.blocks
            && u64_at(raw, 16) == header.file_bytes
            && u64_at(raw, 24) == header.epoch
            && u32_at(raw, 32) == digest;
        if is_same { Ok(()) } else { Err(self.damaged(at, "header, blocks and footer are not of one file")) }
    }

    fn payloads(&self, blocks: &mut [StoredBlock], inspect: Option<Inspect>) -> Result<()> {
        let check = |block: &mut StoredBlock| {
            let whole = &self.raw[block.start - block.form.header_bytes()..block.end];
            if block.header.is_whole(block.form, whole) {
                if let (Some(inspect), Class::Keyed, BlockKind::Full) = (inspect, block.header.class, block.header.kind) {
                    block.seen = inspect(&self.raw[block.start..][..block.header.bytes as usize]);
                }
                return Ok(());
            }
            let what = match block.header.class {
                Class::Keyed => "the checksum of a block of keyed state does not match",
                Class::Bytes => "the checksum of an operator's state does not match",
                Class::Handle => "the checksum of a sink's handle does not match",
            };
            Err(self.damaged(block.start, what))
        };
        on_all_cores(|| blocks.par_iter_mut().with_min_len(16).try_for_each(check))
    }
}
