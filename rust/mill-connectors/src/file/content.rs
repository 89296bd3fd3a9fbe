//! The bytes of a file, decompressed where its name says so.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use mill_protocol::{Error, Result};

use super::path::missing;

/// How a file is compressed; its name's ending says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    pub(crate) fn of(path: &Path) -> Compression {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("gz" | "gzip") => Compression::Gzip,
            Some("zst" | "zstd") => Compression::Zstd,
            _ => Compression::None,
        }
    }
}

/// An open file, read front to back.
pub(crate) struct Content {
    path: PathBuf,
    bytes: Bytes,
}

enum Bytes {
    Plain(File),
    Gzip(Box<MultiGzDecoder<BufReader<File>>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, BufReader<File>>>),
}

/// How much compressed input is read at once.
const COMPRESSED_READ_BYTES: usize = 128 << 10;

/// Opens a file, telling names that are near if it does not exist.
pub(crate) fn open_file(path: &Path) -> Result<File> {
    File::open(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => missing(path),
        _ => Error::connector(format!("cannot open {path:?}: {e}")).because(e),
    })
}

impl Content {
    pub(crate) fn open(path: &Path) -> Result<Content> {
        let file = open_file(path)?;
        let bytes = match Compression::of(path) {
            Compression::None => Bytes::Plain(file),
            Compression::Gzip => {
                Bytes::Gzip(Box::new(MultiGzDecoder::new(BufReader::with_capacity(COMPRESSED_READ_BYTES, file))))
            }
            Compression::Zstd => {
                let input = BufReader::with_capacity(COMPRESSED_READ_BYTES, file);
                let decoder = zstd::stream::read::Decoder::with_buffer(input)
                    .map_err(|e| Error::connector(format!("cannot read {path:?} as zstd: {e}")).because(e))?;
                Bytes::Zstd(Box::new(decoder))
            }
        };
        Ok(Content { path: path.to_owned(), bytes })
    }

    /// Reads some bytes; 0 at the end.
    pub(crate) fn read(&mut self, out: &mut [u8]) -> Result<usize> {
        let result = loop {
            let result = match &mut self.bytes {
                Bytes::Plain(file) => file.read(out),
                Bytes::Gzip(decoder) => decoder.read(out),
                Bytes::Zstd(decoder) => decoder.read(out),
            };
            match result {
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                result => break result,
            }
        };
        result.map_err(|e| {
            let path = &self.path;
            let message = match (&self.bytes, e.kind()) {
                (Bytes::Plain(_), _) => format!("cannot read {path:?}: {e}"),
                (_, std::io::ErrorKind::UnexpectedEof) => format!(
                    "{path:?} ends in the middle of its compressed data; write such files under a name beginning \
                     with '.' and rename them when they are complete"
                ),
                _ => format!("{path:?} is not readable as its compressed format: {e}"),
            };
            Error::connector(message).because(e)
        })
    }

    /// Goes forward to this offset of the uncompressed bytes, calling `passed` with what a compressed file has before
    /// it. Only to be called before anything was read.
    pub(crate) fn skip_to(&mut self, offset: u64, mut passed: impl FnMut(&[u8])) -> Result<()> {
        if let Bytes::Plain(file) = &mut self.bytes {
            file.seek(SeekFrom::Start(offset))
                .map_err(|e| Error::connector(format!("cannot seek in {:?}: {e}", self.path)).because(e))?;
            return Ok(());
        }
        let mut scratch = vec![0; COMPRESSED_READ_BYTES];
        let mut left = offset;
        while left > 0 {
            let wanted = scratch.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let bytes = self.read(&mut scratch[..wanted])?;
            if bytes == 0 {
                return Err(super::identity::shorter(&self.path));
            }
            passed(&scratch[..bytes]);
            left -= bytes as u64;
        }
        Ok(())
    }
}
