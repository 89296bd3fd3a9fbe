//! Files as sources: how they are found, split, read and recognised again.
//!
//! ```text
//!   PathSpec ─► files ─► splits: a file each, or byte ranges of a large plain file
//!                          │
//!   Content (plain, gzip, zstd) ─► ChunkReader (whole records of one range) ─► LineFormat ─► Read
//! ```
//!
//! A position is the offset, in uncompressed bytes, of the first record not returned yet, together with what the file is
//! known again by. Ranges begin and end at multiples of a size that follows from the file's; a record belongs to the range
//! in which its first byte is. So neither the parallelism nor the sizes of reads decide which task reads a record. Files
//! that change are handled in three places: between two runs in [`resume`], while they are followed in [`follow`] (one
//! file) and [`followed`] (the set of files), where [`copies`] knows of those that a rotation makes.

mod chunk;
mod content;
mod copies;
mod follow;
mod followed;
mod identity;
mod input;
mod known;
mod options;
mod path;
pub(crate) mod pipe;
mod placed;
mod position;
mod reader;
mod replaced;
mod resume;
pub(crate) mod sample;
mod slots;
mod split;
mod stamp;
mod whereabouts;
mod whole;

pub(crate) use chunk::ChunkReader;
pub(crate) use content::Content;
pub(crate) use identity::FileIdentity;
pub(crate) use known::Known;
pub use options::FileOptions;
pub use path::PathSpec;
pub(crate) use path::real;
pub(crate) use placed::NULL_PARTITION;
pub(crate) use reader::{BadRecord, LineFormat, Parsed};
pub(crate) use resume::Growth;
pub(crate) use split::{FileSet, FileSplit, cut_lines};

/// A record may not be longer than this.
pub(crate) const RECORD_BYTES_MAX: usize = 64 << 20;

/// What some programs put before UTF-8; no part of the first record.
pub(crate) const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";
