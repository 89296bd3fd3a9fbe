//! What an Arrow IPC file or stream says of itself: its columns, and where its batches are.

use std::error::Error as StdError;
use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::buffer::{Buffer, MutableBuffer};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow_ipc::convert::fb_to_schema;
use arrow_ipc::reader::{FileDecoder, read_footer_length};
use arrow_ipc::{Block, Endianness, Message, MessageHeader, MetadataVersion, root_as_footer, root_as_message};
use mill_frame::schema::foreign_schema;
use mill_frame::types::plain_schema;
use mill_protocol::{Error, Result};

use crate::file::FileIdentity;
use crate::guard::{Panicked, guarded};

/// What a file of the file format begins and ends with; a stream begins with its schema.
pub(super) const MAGIC: &[u8; 6] = b"ARROW1";
/// The magic, and bytes that align what follows.
const HEAD_BYTES: u64 = 8;
/// The length of the footer and the magic.
const TAIL_BYTES: u64 = 10;
/// What a message begins with, before the length of its description; old streams begin with the length.
const MARK: [u8; 4] = [0xff; 4];

/// What the library says.
pub(super) type Outcome<T> = std::result::Result<T, ArrowError>;

/// A file or stream that was looked into.
pub(super) struct OpenFile {
    /// The columns in the types that a stream of this file alone has.
    pub(super) schema: SchemaRef,
    /// The columns as they are in the file.
    of_file: SchemaRef,
    /// In their order. Those of a stream are of use from where they stand on, those of a file for all batches.
    dictionaries: Vec<Block>,
    is_stream: bool,
    pub(super) batches: Vec<Batch>,
}

/// A batch of a file.
pub(super) struct Batch {
    block: Block,
    pub(super) rows: u64,
}

impl Batch {
    /// How much of the file it takes.
    pub(super) fn bytes(&self) -> u64 {
        size_of(&self.block) as u64
    }
}

impl OpenFile {
    /// Reads the footer of a file, or the descriptions of a stream's messages.
    pub(super) fn look(path: &Path, identity: &FileIdentity) -> Result<OpenFile> {
        let mut head = [0; HEAD_BYTES as usize];
        let is_file = identity.file().read_exact_at(&mut head, 0).is_ok() && head.starts_with(MAGIC);
        let found = guarded(path, "read", || if is_file { of_file(identity) } else { of_stream(identity) });
        let Found { of_file, dictionaries, batches } = found.map_err(|error| incomplete(path, &head, error))?;
        let schema = Arc::new(plain_schema(&foreign_schema(&of_file)));
        Ok(OpenFile { schema, of_file, dictionaries, is_stream: !is_file, batches })
    }

    /// What decodes these columns.
    pub(super) fn decoder(&self, places: Vec<usize>) -> Decoder {
        // Each message says which version it is of. Some files say another one in their footer, which counts for nothing then.
        let decoder = FileDecoder::new(Arc::clone(&self.of_file), MetadataVersion::V1);
        Decoder { decoder: decoder.with_projection(places), dictionaries: 0 }
    }
}

/// Decodes batches in their order, and what they need of dictionaries.
pub(super) struct Decoder {
    decoder: FileDecoder,
    /// How many dictionaries have been read.
    dictionaries: usize,
}

impl Decoder {
    /// The rows of a batch.
    pub(super) fn batch(&mut self, file: &OpenFile, identity: &FileIdentity, at: usize) -> Outcome<RecordBatch> {
        let batch = file.batches.get(at).ok_or_else(|| damaged("there is no such batch"))?;
        let is_needed = |block: &&Block| !file.is_stream || block.offset() < batch.block.offset();
        while let Some(block) = file.dictionaries.get(self.dictionaries).filter(is_needed) {
            self.decoder.read_dictionary(block, &bytes_of(identity, block)?)?;
            self.dictionaries += 1;
        }
        let rows = self.decoder.read_record_batch(&batch.block, &bytes_of(identity, &batch.block)?)?;
        rows.filter(|rows| rows.num_rows() as u64 == batch.rows).ok_or_else(|| damaged("a batch does not have the rows that it says"))
    }
}

/// What a file says: its columns, and where its dictionaries and batches are.
struct Found {
    of_file: SchemaRef,
    dictionaries: Vec<Block>,
    batches: Vec<Batch>,
}

fn damaged(what: &str) -> ArrowError {
    ArrowError::IpcError(what.to_owned())
}

fn of_file(identity: &FileIdentity) -> Outcome<Found> {
    let file = identity.file();
    let size = file.size()?;
    let short = || damaged("it ends within its footer");
    let tail_at = size.checked_sub(TAIL_BYTES).ok_or_else(short)?;
    let mut tail = [0; TAIL_BYTES as usize];
    file.read_exact_at(&mut tail, tail_at)?;
    let length = read_footer_length(tail)?;
    let footer_at = tail_at.checked_sub(length as u64).filter(|at| *at >= HEAD_BYTES).ok_or_else(short)?;
    let mut footer = vec![0; length];
    file.read_exact_at(&mut footer, footer_at)?;
    let footer = root_as_footer(&footer).map_err(|e| damaged(&format!("its footer is damaged: {e}")))?;
    let schema = schema_of(footer.schema())?;
    let blocks = |blocks: &mut dyn Iterator<Item = Block>| -> Outcome<Vec<Block>> {
        blocks.map(|block| if fits(&block, footer_at) { Ok(block) } else { Err(damaged("a batch is not within the file")) }).collect()
    };
    let batches = blocks(&mut footer.recordBatches().into_iter().flat_map(|blocks| blocks.iter().copied()))?;
    let batches = batches.into_iter().map(|block| {
        let described = description(identity, &block)?;
        Ok(Batch { block, rows: rows_of(&message_of(&described)?)? })
    });
    let dictionaries = blocks(&mut footer.dictionaries().into_iter().flat_map(|blocks| blocks.iter().copied()))?;
    Ok(Found { of_file: schema, dictionaries, batches: batches.collect::<Outcome<_>>()? })
}

fn of_stream(identity: &FileIdentity) -> Outcome<Found> {
    let file = identity.file();
    let size = file.size()?;
    let mut found: Option<Found> = None;
    let mut at = 0;
    loop {
        let mut start = [0; 8];
        let short = |_| match at {
            0 => damaged("it is empty"),
            _ => damaged("the stream has no end mark: it was cut off, or is still being written"),
        };
        file.read_exact_at(&mut start[..4], at).map_err(short)?;
        let mut prefix = 4;
        if start[..4] == MARK {
            file.read_exact_at(&mut start[4..], at + 4).map_err(short)?;
            prefix = 8;
        }
        let [.., a, b, c, d] = start[..prefix] else { return Err(damaged("a message has no length")) };
        let length = i32::from_le_bytes([a, b, c, d]);
        if length == 0 {
            return match at + prefix as u64 == size {
                true => found.ok_or_else(|| damaged("it has no schema")),
                false => Err(damaged("there is more after the end mark of the stream: read the streams of a file one by one")),
            };
        }
        let described = length.checked_add(prefix as i32).filter(|_| length > 0);
        let described = described.ok_or_else(|| damaged("the length of a message is none"))?;
        let mut block = Block::new(at as i64, described, 0);
        if !fits(&block, size) {
            return Err(damaged("it ends within a message"));
        }
        let described = description(identity, &block)?;
        let message = message_of(&described)?;
        block = Block::new(block.offset(), block.metaDataLength(), message.bodyLength());
        if !fits(&block, size) {
            return Err(damaged("it ends within a message"));
        }
        match (&mut found, message.header_type()) {
            (None, MessageHeader::Schema) => {
                let of_file = schema_of(message.header_as_schema())?;
                found = Some(Found { of_file, dictionaries: Vec::new(), batches: Vec::new() });
            }
            (Some(found), MessageHeader::RecordBatch) => found.batches.push(Batch { block, rows: rows_of(&message)? }),
            (Some(found), MessageHeader::DictionaryBatch) => found.dictionaries.push(block),
            _ => return Err(damaged("it has a message that does not belong there")),
        }
        at += size_of(&block) as u64;
    }
}

fn schema_of(schema: Option<arrow_ipc::Schema<'_>>) -> Outcome<SchemaRef> {
    let schema = schema.ok_or_else(|| damaged("it has no schema"))?;
    if schema.endianness() != Endianness::Little {
        return Err(damaged("its numbers are big-endian; write it on a little-endian machine"));
    }
    Ok(Arc::new(fb_to_schema(schema)))
}

/// Whether a block is before this place.
fn fits(block: &Block, end: u64) -> bool {
    let is_size = block.offset() >= 0 && block.metaDataLength() >= 0 && block.bodyLength() >= 0;
    is_size && (block.offset() as u64).checked_add(block.bodyLength() as u64 + block.metaDataLength() as u64).is_some_and(|at| at <= end)
}

fn size_of(block: &Block) -> usize {
    block.metaDataLength().max(0) as usize + block.bodyLength().max(0) as usize
}

/// The bytes of a block, which its lengths do not contradict.
fn bytes_of(identity: &FileIdentity, block: &Block) -> Outcome<Buffer> {
    let mut bytes = MutableBuffer::from_len_zeroed(size_of(block));
    identity.file().read_exact_at(bytes.as_slice_mut(), block.offset() as u64)?;
    check_lengths(&bytes, block)?;
    Ok(bytes.into())
}

/// Checks that there is memory for what compressed buffers say that they are. The library takes it without asking, and a
/// length that is damaged would end the process.
fn check_lengths(bytes: &[u8], block: &Block) -> Outcome<()> {
    let (described, body) = bytes.split_at(block.metaDataLength() as usize);
    let message = message_of(described)?;
    let batch = message.header_as_record_batch().or_else(|| message.header_as_dictionary_batch()?.data());
    let Some(batch) = batch.filter(|batch| batch.compression().is_some()) else { return Ok(()) };
    for buffer in batch.buffers().iter().flatten() {
        let start = usize::try_from(buffer.offset()).ok().filter(|_| buffer.length() > 0);
        let Some(length) = start.and_then(|start| body.get(start..)?.first_chunk::<8>()) else { continue };
        let length = usize::try_from(i64::from_le_bytes(*length)).unwrap_or(0);
        Vec::<u8>::new().try_reserve_exact(length).map_err(|_| {
            damaged(&format!("a compressed buffer says that it has {length} bytes, for which there is no memory"))
        })?;
    }
    Ok(())
}

/// The description of a block.
fn description(identity: &FileIdentity, block: &Block) -> Outcome<Vec<u8>> {
    let mut described = vec![0; block.metaDataLength() as usize];
    identity.file().read_exact_at(&mut described, block.offset() as u64)?;
    Ok(described)
}

fn message_of(described: &[u8]) -> Outcome<Message<'_>> {
    let from = if described.starts_with(&MARK) { 8 } else { 4 };
    let described = described.get(from..).ok_or_else(|| damaged("the description of a message is damaged"))?;
    root_as_message(described).map_err(|e| damaged(&format!("the description of a message is damaged: {e}")))
}

/// How many rows a batch has, as its description says.
fn rows_of(message: &Message<'_>) -> Outcome<u64> {
    let batch = message.header_as_record_batch().ok_or_else(|| damaged("the description of a batch is that of something else"))?;
    u64::try_from(batch.length()).map_err(|_| damaged("a batch has a negative number of rows"))
}

/// What files of other kinds begin with, and what to do with them.
const OTHERS: [(&[u8], &str); 6] = [
    (b"FEA1", "it is Feather in its first version: write it again with pyarrow.feather or polars"),
    (b"PAR1", "it is Parquet: read it with read_parquet()"),
    (&[0x1f, 0x8b], "it is compressed as a whole, with gzip: decompress it; Arrow is compressed inside"),
    (&[0x28, 0xb5, 0x2f, 0xfd], "it is compressed as a whole, with Zstandard: decompress it; Arrow is compressed inside"),
    (&[0x04, 0x22, 0x4d, 0x18], "it is compressed as a whole, with LZ4: decompress it; Arrow is compressed inside"),
    (b"BZh", "it is compressed as a whole, with bzip2: decompress it; Arrow is compressed inside"),
];

/// The same error, which says what the file is instead, or what to do if it may not be written to its end yet.
fn incomplete(path: &Path, head: &[u8], error: Error) -> Error {
    let what = if head.starts_with(MAGIC) { "is not a complete Arrow file" } else { "is neither an Arrow file nor an Arrow stream" };
    if let Some((_, other)) = OTHERS.iter().find(|(begin, _)| head.starts_with(begin)) {
        return Error::connector(format!("{path:?} {what}: {other}"));
    }
    let source = error.source();
    let is_unsupported = |source: &(dyn StdError + 'static)| {
        source.is::<Panicked>() || matches!(source.downcast_ref(), Some(ArrowError::NotYetImplemented(_)))
    };
    if source.is_some_and(is_unsupported) {
        return error;
    }
    let message = error.message();
    Error::connector(format!(
        "{path:?} {what}; write such files under a name beginning with '.' and rename them when they are complete: {message}"
    ))
}
