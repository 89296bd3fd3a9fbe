//! An open file that is read at offsets: one of this machine, or an object of a store.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use ::parquet::errors::ParquetError;
use ::parquet::file::reader::{ChunkReader, Length};
use bytes::Bytes;
use mill_protocol::{Error, Result};

use super::stamp::{Stamp, open_here};
use crate::object::{self, Object, is_object};

/// An open file. Whoever reads it has a place of its own in it.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    Here(Arc<File>),
    Object(Arc<Object>),
}

impl Input {
    /// Reads some bytes at this offset; 0 at the end.
    pub(crate) fn read_at(&self, out: &mut [u8], at: u64) -> io::Result<usize> {
        match self {
            Input::Here(file) => file.read_at(out, at),
            Input::Object(object) => object.read_at(out, at),
        }
    }

    /// Fills a buffer from this offset on.
    pub(crate) fn read_exact_at(&self, out: &mut [u8], at: u64) -> io::Result<()> {
        match self {
            Input::Here(file) => file.read_exact_at(out, at),
            Input::Object(object) => match object.read_at(out, at)? {
                bytes if bytes == out.len() => Ok(()),
                _ => Err(io::ErrorKind::UnexpectedEof.into()),
            },
        }
    }

    /// What it is now, or, of an object, when it was opened.
    pub(crate) fn stamp(&self) -> io::Result<Stamp> {
        match self {
            Input::Here(file) => Ok(Stamp::of(&file.metadata()?)),
            Input::Object(object) => Ok(Stamp::of_object(object.path(), &object.meta)),
        }
    }

    pub(crate) fn size(&self) -> io::Result<u64> {
        match self {
            Input::Here(file) => Ok(file.metadata()?.len()),
            Input::Object(object) => Ok(object.meta.size),
        }
    }

    /// Says which bytes are going to be read, so that those of an object come in few requests.
    pub(crate) fn want(&self, ranges: impl IntoIterator<Item = (u64, u64)>) -> Result<()> {
        match self {
            Input::Here(_) => Ok(()),
            Input::Object(object) => ranges.into_iter().try_for_each(|(start, end)| object.fetch(start..end.min(object.meta.size))),
        }
    }
}

/// Reads front to back from a place of its own.
pub(crate) struct Cursor {
    pub(super) input: Input,
    pub(super) at: u64,
}

impl Read for Cursor {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let bytes = self.input.read_at(out, self.at)?;
        self.at += bytes as u64;
        Ok(bytes)
    }
}

impl Length for Input {
    fn len(&self) -> u64 {
        self.size().unwrap_or(0)
    }
}

impl ChunkReader for Input {
    type T = BufReader<Cursor>;

    fn get_read(&self, start: u64) -> std::result::Result<Self::T, ParquetError> {
        Ok(BufReader::new(Cursor { input: self.clone(), at: start }))
    }

    fn get_bytes(&self, start: u64, length: usize) -> std::result::Result<Bytes, ParquetError> {
        let size = self.size()?;
        // The length is what the file says of itself.
        if start.checked_add(length as u64).is_none_or(|end| end > size) {
            return Err(ParquetError::EOF(format!("expected to read {length} bytes at {start}, and there are {size}")));
        }
        let mut bytes = vec![0; length];
        self.read_exact_at(&mut bytes, start)?;
        Ok(bytes.into())
    }
}

/// Opens a file or an object, for callers who look at the reason of a failure.
pub(crate) fn try_open(path: &Path) -> io::Result<Input> {
    if !is_object(path) {
        return Ok(Input::Here(Arc::new(open_here(path)?)));
    }
    match Object::open(path) {
        Ok(Some(object)) => Ok(Input::Object(Arc::new(object))),
        Ok(None) => Err(io::ErrorKind::NotFound.into()),
        // What the store says names the object.
        Err(error) => Err(io::Error::new(io::ErrorKind::InvalidInput, error.message().to_owned())),
    }
}

/// What there is at a path now.
pub(crate) fn stamp_at(path: &Path) -> io::Result<Stamp> {
    if !is_object(path) {
        return Ok(Stamp::of(&std::fs::metadata(path)?));
    }
    match object::look(path) {
        Ok(Some(meta)) => Ok(Stamp::of_object(path, &meta)),
        Ok(None) => Err(io::ErrorKind::NotFound.into()),
        Err(error) => Err(io::Error::other(error.message().to_owned())),
    }
}

/// How large what is at a path is.
pub(crate) fn size_at(path: &Path) -> Result<u64> {
    Ok(stamp_at(path).map_err(|e| Error::connector(format!("cannot stat {path:?}: {e}")).because(e))?.size)
}
