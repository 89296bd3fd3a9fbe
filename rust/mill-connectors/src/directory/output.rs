//! The bytes of a file of text on their way to disk: counted, and compressed if that is asked for.

use std::fs::File;
use std::io::{self, BufWriter, Write};

use flate2::write::GzEncoder;

/// How much is gathered before it goes to the file.
pub(super) const WRITE_BYTES: usize = 256 << 10;

/// How a file of text is compressed, and how hard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    None,
    Gzip(u32),
    Zstd(i32),
}

impl Packing {
    /// What is added to the name of a file.
    pub(super) fn ending(self) -> &'static str {
        match self {
            Packing::None => "",
            Packing::Gzip(_) => ".gz",
            Packing::Zstd(_) => ".zst",
        }
    }
}

/// A file whose bytes are counted.
pub(super) struct Counted {
    file: BufWriter<File>,
    bytes: u64,
}

impl Write for Counted {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let bytes = self.file.write(data)?;
        self.bytes += bytes as u64;
        Ok(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Where a format of text writes to.
pub(super) enum Output {
    Plain(Counted),
    Gzip(GzEncoder<Counted>),
    Zstd(Box<zstd::stream::write::Encoder<'static, Counted>>),
}

impl Output {
    pub(super) fn new(file: File, packing: Packing) -> io::Result<Output> {
        let file = Counted { file: BufWriter::with_capacity(WRITE_BYTES, file), bytes: 0 };
        Ok(match packing {
            Packing::None => Output::Plain(file),
            Packing::Gzip(level) => Output::Gzip(GzEncoder::new(file, flate2::Compression::new(level))),
            Packing::Zstd(level) => {
                let mut encoder = zstd::stream::write::Encoder::new(file, level)?;
                encoder.include_checksum(true)?;
                Output::Zstd(Box::new(encoder))
            }
        })
    }

    /// How many bytes have come out so far.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Output::Plain(file) => file.bytes,
            Output::Gzip(encoder) => encoder.get_ref().bytes,
            Output::Zstd(encoder) => encoder.get_ref().bytes,
        }
    }

    /// Writes what is still buffered and returns the file, not yet synced.
    pub(super) fn finish(self) -> io::Result<File> {
        let file = match self {
            Output::Plain(file) => file,
            Output::Gzip(encoder) => encoder.finish()?,
            Output::Zstd(encoder) => encoder.finish()?,
        };
        file.file.into_inner().map_err(io::IntoInnerError::into_error)
    }
}

impl Write for Output {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self {
            Output::Plain(file) => file.write(data),
            Output::Gzip(encoder) => encoder.write(data),
            Output::Zstd(encoder) => encoder.write(data),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Output::Plain(file) => file.flush(),
            Output::Gzip(encoder) => encoder.flush(),
            Output::Zstd(encoder) => encoder.flush(),
        }
    }
}
