//! The bytes of a file, decompressed where its name says so.
//!
//! A compressed file is a sequence of members (gzip), streams (bzip2, xz) or frames (zstd, LZ4), each of which can be read
//! without those before it; all of them are called members here:
//!
//! ```text
//!   on disk   [member 0][member 1][member 2] …      a log that is compressed piece by piece is appended to by the member
//!   content   aaaaaaaaaaabbbbbbbbbbbcccccccc
//! ```
//!
//! So reading can begin at a member whose two offsets are known.

use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use bzip2::bufread::BzDecoder;
use flate2::bufread::GzDecoder;
use lz4_flex::frame::FrameDecoder;
use lzma_rust2::XzReader;
use mill_protocol::{Error, Result};

use super::input::{Cursor, Input};
use super::pipe;
use super::position::Member;
use super::stamp::open_file;

/// How a file is compressed; its name's ending says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Bzip2,
    Gzip,
    Lz4,
    Xz,
    Zstd,
}

impl Compression {
    pub(crate) fn of(path: &Path) -> Compression {
        match path.extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase).as_deref() {
            Some("bz2") => Compression::Bzip2,
            Some("gz" | "gzip") => Compression::Gzip,
            Some("lz4") => Compression::Lz4,
            Some("xz") => Compression::Xz,
            Some("zst" | "zstd") => Compression::Zstd,
            _ => Compression::None,
        }
    }
}

/// An open file, read front to back.
pub(crate) struct Content {
    path: PathBuf,
    bytes: Bytes,
    /// The offset in the content of what is read next, and the member it is in.
    at: u64,
    member: Member,
    /// Whether a compressed file that ends within a member is taken to grow.
    may_be_cut: bool,
    is_cut: bool,
}

enum Bytes {
    Plain(Input),
    /// The first bytes of standard input, and whether they are all.
    Held(Vec<u8>, bool),
    /// Not held open for now; only of a plain file.
    Closed,
    Packed(Compression, Packed),
}

type Stream = BufReader<Cursor>;

enum Packed {
    Between(Stream),
    Bzip2(Box<BzDecoder<Stream>>),
    Gzip(Box<GzDecoder<Stream>>),
    Lz4(Box<FrameDecoder<Watched>>),
    Xz(Box<XzReader<Stream>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, Stream>>),
    /// It has failed, or is being looked at.
    Nothing,
}

/// Takes note of a read beyond the end: the library for LZ4 takes a file that ends between two blocks for one that has ended.
struct Watched {
    input: Stream,
    is_beyond: bool,
}

impl Read for Watched {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let bytes = self.input.read(out)?;
        self.is_beyond |= bytes == 0 && !out.is_empty();
        Ok(bytes)
    }
}

/// Where on disk the next byte of this input is.
fn disk_at(input: &Stream) -> u64 {
    input.get_ref().at - input.buffer().len() as u64
}

/// How much compressed input is read at once.
const COMPRESSED_READ_BYTES: usize = 128 << 10;

impl Content {
    /// The content of the file at this path, from its start.
    pub(crate) fn open(path: &Path) -> Result<Content> {
        if pipe::is_pipe(path) {
            return pipe::content();
        }
        Ok(Content::of(path, Compression::of(path), open_file(path)?, Member::default()))
    }

    /// The content of an open file from this member on.
    pub(crate) fn of(path: &Path, compression: Compression, file: Input, member: Member) -> Content {
        let bytes = if compression == Compression::None {
            Bytes::Plain(file)
        } else {
            let input = Cursor { input: file, at: member.disk };
            Bytes::Packed(compression, Packed::Between(BufReader::with_capacity(COMPRESSED_READ_BYTES, input)))
        };
        Content { path: path.to_owned(), bytes, at: member.content, member, may_be_cut: false, is_cut: false }
    }

    /// The first bytes of standard input; `is_whole`: nothing follows them.
    pub(super) fn held(path: &Path, data: Vec<u8>, is_whole: bool) -> Content {
        let bytes = Bytes::Held(data, is_whole);
        Content { path: path.to_owned(), bytes, at: 0, member: Member::default(), may_be_cut: false, is_cut: false }
    }

    /// Whether more may follow what can be read now.
    pub(crate) fn may_go_on(&self) -> bool {
        matches!(self.bytes, Bytes::Held(_, false))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Goes to this offset of a plain file.
    pub(crate) fn seek_plain(&mut self, offset: u64) {
        assert!(!matches!(self.bytes, Bytes::Packed(..)), "the content of a compressed file is read in order");
        self.at = offset;
    }

    /// The offset of what is read next.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// The member that was read from last.
    pub(crate) fn member(&self) -> Member {
        self.member
    }

    /// Takes a file that ends within a member as one that is being written: [`read`](Content::read) then returns 0.
    pub(crate) fn allow_cut(&mut self) {
        self.may_be_cut = true;
    }

    /// Whether the file ended within a member. What follows can only be read from the member's start.
    pub(crate) fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// Lets go of a plain file.
    pub(crate) fn close(&mut self) {
        self.bytes = Bytes::Closed;
    }

    /// Takes up a plain file again.
    pub(crate) fn reopen(&mut self, file: Input) {
        self.bytes = Bytes::Plain(file);
    }

    /// Up to where the file on disk has been read, once its end was seen.
    pub(crate) fn disk_end(&self) -> u64 {
        match &self.bytes {
            Bytes::Packed(_, Packed::Between(input)) => disk_at(input),
            _ => self.at,
        }
    }

    /// Reads some bytes; 0 at the end.
    pub(crate) fn read(&mut self, out: &mut [u8]) -> Result<usize> {
        if out.is_empty() || self.is_cut {
            return Ok(0);
        }
        let result = loop {
            match self.try_read(out) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                result => break result,
            }
        };
        match result {
            Ok(bytes) => {
                self.at += bytes as u64;
                Ok(bytes)
            }
            Err(e) if self.may_be_cut && self.is_packed() && e.kind() == io::ErrorKind::UnexpectedEof => {
                self.is_cut = true;
                Ok(0)
            }
            Err(e) => Err(self.failed(e)),
        }
    }

    /// Reads as much of a plain file as there is at this offset, without moving on.
    pub(crate) fn read_plain_at(&self, out: &mut [u8], offset: u64) -> Result<usize> {
        let Bytes::Plain(file) = &self.bytes else { return Ok(0) };
        let mut filled = 0;
        while filled < out.len() {
            match file.read_at(&mut out[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(bytes) => filled += bytes,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.failed(e)),
            }
        }
        Ok(filled)
    }

    fn is_packed(&self) -> bool {
        matches!(self.bytes, Bytes::Packed(..))
    }

    fn try_read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let (compression, packed) = match &mut self.bytes {
            Bytes::Plain(file) => return file.read_at(out, self.at),
            Bytes::Held(data, _) => {
                let rest = data.get(self.at as usize..).unwrap_or_default();
                let bytes = rest.len().min(out.len());
                out[..bytes].copy_from_slice(&rest[..bytes]);
                return Ok(bytes);
            }
            Bytes::Closed => return Ok(0),
            Bytes::Packed(compression, packed) => (*compression, packed),
        };
        loop {
            match std::mem::replace(packed, Packed::Nothing) {
                Packed::Between(mut input) => {
                    let is_end = loop {
                        let bytes = match input.fill_buf() {
                            Ok(bytes) => bytes,
                            Err(e) => {
                                *packed = Packed::Between(input);
                                return Err(e);
                            }
                        };
                        // Between streams of xz there may be zeros.
                        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
                        if compression != Compression::Xz || zeros == 0 {
                            break bytes.is_empty();
                        }
                        input.consume(zeros);
                    };
                    if is_end {
                        *packed = Packed::Between(input);
                        return Ok(0);
                    }
                    self.member = Member { disk: disk_at(&input), content: self.at };
                    *packed = match compression {
                        Compression::Zstd => {
                            Packed::Zstd(Box::new(zstd::stream::read::Decoder::with_buffer(input)?.single_frame()))
                        }
                        Compression::Bzip2 => Packed::Bzip2(Box::new(BzDecoder::new(input))),
                        Compression::Lz4 => Packed::Lz4(Box::new(FrameDecoder::new(Watched { input, is_beyond: false }))),
                        Compression::Xz => Packed::Xz(Box::new(XzReader::new(input, false))),
                        Compression::Gzip | Compression::None => Packed::Gzip(Box::new(GzDecoder::new(input))),
                    };
                }
                Packed::Gzip(mut decoder) => match decoder.read(out) {
                    Ok(0) => *packed = Packed::Between(decoder.into_inner()),
                    result => {
                        *packed = Packed::Gzip(decoder);
                        return result;
                    }
                },
                Packed::Bzip2(mut decoder) => match decoder.read(out) {
                    Ok(0) => *packed = Packed::Between(decoder.into_inner()),
                    result => {
                        *packed = Packed::Bzip2(decoder);
                        return result;
                    }
                },
                Packed::Lz4(mut decoder) => match decoder.read(out) {
                    Ok(0) => {
                        let Watched { input, is_beyond } = decoder.into_inner();
                        if is_beyond {
                            return Err(io::ErrorKind::UnexpectedEof.into());
                        }
                        *packed = Packed::Between(input);
                    }
                    result => {
                        *packed = Packed::Lz4(decoder);
                        return result;
                    }
                },
                Packed::Xz(mut decoder) => match decoder.read(out) {
                    Ok(0) => *packed = Packed::Between(decoder.into_inner()),
                    result => {
                        *packed = Packed::Xz(decoder);
                        return result;
                    }
                },
                Packed::Zstd(mut decoder) => match decoder.read(out) {
                    Ok(0) => *packed = Packed::Between(decoder.finish()),
                    result => {
                        *packed = Packed::Zstd(decoder);
                        return result;
                    }
                },
                Packed::Nothing => return Err(io::Error::other("it failed before")),
            }
        }
    }

    fn failed(&self, e: io::Error) -> Error {
        let path = &self.path;
        let message = match (self.is_packed(), e.kind()) {
            (false, _) => format!("cannot read {path:?}: {e}"),
            (true, io::ErrorKind::UnexpectedEof) => return self.cut_error(),
            (true, _) => format!("{path:?} is not readable as its compressed format: {e}"),
        };
        Error::connector(message).because(e)
    }

    /// The error for a compressed file that ends within a member.
    pub(crate) fn cut_error(&self) -> Error {
        Error::connector(format!(
            "{:?} ends in the middle of its compressed data; write such files under a name beginning with '.' and rename \
             them when they are complete",
            self.path
        ))
    }
}
