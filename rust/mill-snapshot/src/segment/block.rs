//! What is before a payload: a header of 64 bytes, or a short one of 32.
//!
//! A change of a few rows is not much larger than the header before it. So blocks of keyed state that are not used where
//! they are mapped have the short one: it leaves out what is the same for all of them, has one checksum for itself and
//! the payload, and starts at a multiple of 8. How much padding follows stands in it, so that blocks tile the file
//! whatever comes next.

use mill_frame::block::{BlockAddress, BlockKind};
use mill_frame::hash::KEY_GROUP_BITS;

use super::{ALIGNMENT, Class, HEADER_BYTES, is_sealed, put, seal, u16_at, u32_at, u64_at};

pub(crate) const SHORT_BYTES: usize = 32;
const SHORT_ALIGNMENT: usize = 8;
const BLOCK_MAGIC: u32 = u32::from_le_bytes(*b"MBLK");
const SHORT_MAGIC: u16 = u16::from_le_bytes(*b"mb");
/// Where the checksum of a short block is stored, after all else of its header.
const SHORT_CHECKSUM: usize = 28;

/// How many bits the chunk has in a short header; the key group has the others of the four bytes.
const SHORT_CHUNK_BITS: u32 = u32::BITS - KEY_GROUP_BITS;
const SHORT_CHUNK_MAX: u32 = (1 << SHORT_CHUNK_BITS) - 1;

/// What is said of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockHeader {
    pub class: Class,
    pub kind: BlockKind,
    pub operator: u16,
    pub task: u16,
    pub address: BlockAddress,
    pub bytes: u64,
    pub epoch: u64,
    /// Of a block with a long header.
    pub payload_crc: u32,
}

/// How the header of a block is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Long,
    Short,
}

impl Form {
    /// How many bytes the header has.
    pub(crate) fn header_bytes(self) -> usize {
        match self {
            Form::Long => HEADER_BYTES,
            Form::Short => SHORT_BYTES,
        }
    }

    /// What the start of a block is a multiple of.
    pub(crate) fn alignment(self) -> usize {
        match self {
            Form::Long => ALIGNMENT,
            Form::Short => SHORT_ALIGNMENT,
        }
    }
}

/// A header as it was read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decoded {
    pub header: BlockHeader,
    pub form: Form,
    /// How many bytes of padding follow the payload.
    pub padding: usize,
    /// What of the header goes into the digest of the segment.
    pub crc: u32,
}

impl BlockHeader {
    /// How it is written in a segment of this epoch.
    pub(crate) fn form(&self, segment_epoch: u64) -> Form {
        let is_near = segment_epoch.checked_sub(self.epoch).is_some_and(|before| before <= u64::from(u16::MAX));
        let is_short = self.class == Class::Keyed && self.kind != BlockKind::Full && self.bytes <= u64::from(u32::MAX);
        let is_packed = usize::from(self.address.group) < 1 << KEY_GROUP_BITS && self.address.chunk <= SHORT_CHUNK_MAX;
        if is_near && is_short && is_packed { Form::Short } else { Form::Long }
    }

    /// Writes it before its payload, which is laid out already and fills `place` but for the padding. Returns the checksum.
    pub(crate) fn write(&mut self, form: Form, place: &mut [u8], segment_epoch: u64) -> u32 {
        match form {
            Form::Long => {
                let (head, body) = place.split_at_mut(HEADER_BYTES);
                self.payload_crc = crc32c::crc32c(body);
                head.copy_from_slice(&self.encode());
                u32_at(head, HEADER_BYTES - 4)
            }
            Form::Short => {
                let padding = place.len() - SHORT_BYTES - self.bytes as usize;
                assert!(padding < ALIGNMENT, "{padding} bytes of padding");
                put(place, 0, &self.encode_short(padding as u8, segment_epoch));
                let crc = short_checksum(place);
                put(place, SHORT_CHECKSUM, &crc.to_le_bytes());
                crc
            }
        }
    }

    fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        put(&mut out, 0, &BLOCK_MAGIC.to_le_bytes());
        out[4] = self.class as u8;
        out[5] = self.kind as u8;
        put(&mut out, 6, &self.operator.to_le_bytes());
        put(&mut out, 8, &self.address.namespace.to_le_bytes());
        put(&mut out, 16, &self.address.chunk.to_le_bytes());
        put(&mut out, 20, &self.address.group.to_le_bytes());
        put(&mut out, 22, &self.task.to_le_bytes());
        put(&mut out, 24, &self.bytes.to_le_bytes());
        put(&mut out, 32, &self.epoch.to_le_bytes());
        put(&mut out, 40, &self.payload_crc.to_le_bytes());
        put(&mut out, 44, &self.address.state.to_le_bytes());
        seal(&mut out);
        out
    }

    fn encode_short(&self, padding: u8, segment_epoch: u64) -> [u8; SHORT_BYTES] {
        let mut out = [0; SHORT_BYTES];
        put(&mut out, 0, &SHORT_MAGIC.to_le_bytes());
        out[2] = self.kind as u8;
        out[3] = padding;
        let group_and_chunk = u32::from(self.address.group) << SHORT_CHUNK_BITS | self.address.chunk;
        put(&mut out, 4, &group_and_chunk.to_le_bytes());
        put(&mut out, 8, &self.address.namespace.to_le_bytes());
        put(&mut out, 16, &self.address.state.to_le_bytes());
        put(&mut out, 18, &self.operator.to_le_bytes());
        put(&mut out, 20, &self.task.to_le_bytes());
        put(&mut out, 22, &((segment_epoch - self.epoch) as u16).to_le_bytes());
        put(&mut out, 24, &(self.bytes as u32).to_le_bytes());
        out
    }

    /// Reads the header at the start of `rest`. The checksum of a short block covers its payload too, so it is left to
    /// [`is_whole`]; what it says may be anything until then.
    pub(crate) fn decode(rest: &[u8], segment_epoch: u64) -> std::result::Result<Decoded, &'static str> {
        const SHORT_OF_BYTES: &str = "the file ends too early";
        if rest.len() >= SHORT_BYTES && u16_at(rest, 0) == SHORT_MAGIC {
            return BlockHeader::decode_short(&rest[..SHORT_BYTES], segment_epoch);
        }
        let raw: &[u8; HEADER_BYTES] = rest.first_chunk().ok_or(SHORT_OF_BYTES)?;
        if !is_sealed(raw) {
            return Err("the checksum of a block header does not match");
        }
        if u32_at(raw, 0) != BLOCK_MAGIC {
            return Err("there is no block header where one is expected");
        }
        let class = match raw[4] {
            1 => Class::Keyed,
            2 => Class::Bytes,
            3 => Class::Handle,
            _ => return Err("a block header names an unknown class"),
        };
        let header = BlockHeader {
            class,
            kind: kind(raw[5])?,
            operator: u16_at(raw, 6),
            task: u16_at(raw, 22),
            address: BlockAddress {
                state: u16_at(raw, 44),
                namespace: u64_at(raw, 8) as i64,
                group: u16_at(raw, 20),
                chunk: u32_at(raw, 16),
            },
            bytes: u64_at(raw, 24),
            epoch: u64_at(raw, 32),
            payload_crc: u32_at(raw, 40),
        };
        let padding = (header.bytes.wrapping_neg() % ALIGNMENT as u64) as usize;
        Ok(Decoded { header, form: Form::Long, padding, crc: u32_at(raw, HEADER_BYTES - 4) })
    }

    fn decode_short(raw: &[u8], segment_epoch: u64) -> std::result::Result<Decoded, &'static str> {
        let before = u64::from(u16_at(raw, 22));
        let group_and_chunk = u32_at(raw, 4);
        let header = BlockHeader {
            class: Class::Keyed,
            kind: kind(raw[2])?,
            operator: u16_at(raw, 18),
            task: u16_at(raw, 20),
            address: BlockAddress {
                state: u16_at(raw, 16),
                namespace: u64_at(raw, 8) as i64,
                group: (group_and_chunk >> SHORT_CHUNK_BITS) as u16,
                chunk: group_and_chunk & SHORT_CHUNK_MAX,
            },
            bytes: u64::from(u32_at(raw, 24)),
            epoch: segment_epoch.checked_sub(before).ok_or("a block is older than the first checkpoint")?,
            payload_crc: 0,
        };
        let padding = usize::from(raw[3]);
        if header.kind == BlockKind::Full {
            return Err("a full block has a short header");
        }
        if padding >= ALIGNMENT || (header.bytes + padding as u64) % SHORT_ALIGNMENT as u64 != 0 {
            return Err("a block does not end where another can begin");
        }
        Ok(Decoded { header, form: Form::Short, padding, crc: u32_at(raw, SHORT_CHECKSUM) })
    }

    /// Whether the checksum over the payload is right; `block` is all of it, from the header to the padding.
    pub(crate) fn is_whole(&self, form: Form, block: &[u8]) -> bool {
        match form {
            Form::Long => crc32c::crc32c(&block[HEADER_BYTES..]) == self.payload_crc,
            Form::Short => short_checksum(block) == u32_at(block, SHORT_CHECKSUM),
        }
    }
}

fn kind(number: u8) -> std::result::Result<BlockKind, &'static str> {
    match number {
        1 => Ok(BlockKind::Full),
        2 => Ok(BlockKind::Rows),
        3 => Ok(BlockKind::Drop),
        4 => Ok(BlockKind::DropTable),
        _ => Err("a block header names an unknown kind"),
    }
}

/// The checksum of a short block: all of it but the place of the checksum.
pub(crate) fn short_checksum(block: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&block[..SHORT_CHECKSUM]), &block[SHORT_BYTES..])
}
