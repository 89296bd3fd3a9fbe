//! Samples of files, from which schemas are inferred.
//!
//! ```text
//!   first file   [ head, 1 MiB ]    [piece]    [piece]    [piece]  [ tail ]     pieces: plain files only, whole lines
//!   some others  [ head, 256 KiB ]                                 [ tail ]
//! ```
//!
//! Data that change their form mostly do so from one file to the next or as time goes by, so a sample of the head of the
//! first file alone would miss what a few more reads find.

use std::path::{Path, PathBuf};

use memchr::{memchr, memrchr};
use mill_protocol::{Error, Result};

use super::content::{Compression, Content};
use super::pipe;
use super::stamp::open_file;
use super::{BYTE_ORDER_MARK, RECORD_BYTES_MAX};

/// How many bytes at the head of the first file, and of the others, are looked at.
const HEAD_BYTES: usize = 1 << 20;
const OTHER_HEAD_BYTES: usize = 256 << 10;
/// How many bytes a piece has.
const PIECE_BYTES: u64 = 128 << 10;
/// How many pieces of the first file are looked at after its head, the last one at its end.
const PIECES: u64 = 4;
/// How many files are looked at.
const FILES_MAX: usize = 8;
/// How many bytes of a head are looked at only to compare its names with a schema.
pub(crate) const NAMES_BYTES: usize = 64 << 10;

/// The head of a file.
pub(crate) struct Head {
    /// Its bytes, without a byte order mark.
    pub(crate) data: Vec<u8>,
    /// Whether it is all of the file.
    pub(crate) is_whole: bool,
    mark_bytes: u64,
}

/// The head of a file: at least `bytes` of it, and more until it is enough.
pub(crate) fn head(path: &Path, bytes: usize, is_enough: impl Fn(&[u8]) -> bool) -> Result<Head> {
    if pipe::is_pipe(path) {
        let (mut data, is_whole) = pipe::look(bytes, is_enough)?;
        let mark_bytes = if data.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
        data.drain(..mark_bytes);
        return Ok(Head { data, is_whole, mark_bytes: mark_bytes as u64 });
    }
    let mut content = Content::open(path)?;
    let mut data = Vec::new();
    let mut is_whole = false;
    let mut wanted = bytes;
    loop {
        let mut filled = data.len();
        data.resize(wanted, 0);
        while filled < wanted && !is_whole {
            match content.read(&mut data[filled..])? {
                0 => is_whole = true,
                bytes => filled += bytes,
            }
        }
        data.truncate(filled);
        if is_whole || filled >= RECORD_BYTES_MAX || is_enough(&data) {
            break;
        }
        wanted = 2 * filled;
    }
    let mark_bytes = if data.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
    data.drain(..mark_bytes);
    Ok(Head { data, is_whole, mark_bytes: mark_bytes as u64 })
}

/// Whole lines out of the rest of a plain file, evenly spread, the last ones at its end; nothing of a compressed one.
pub(crate) fn pieces(path: &Path, head: &Head, count: u64) -> Result<Vec<Vec<u8>>> {
    let mut pieces = Vec::new();
    if head.is_whole || pipe::is_pipe(path) || Compression::of(path) != Compression::None {
        return Ok(pieces);
    }
    let failed = |e: std::io::Error| Error::connector(format!("cannot read {path:?}: {e}")).because(e);
    let file = open_file(path)?;
    let size = file.size().map_err(failed)?;
    let begin = head.data.len() as u64 + head.mark_bytes;
    let mut done = begin;
    for number in 1..=count {
        let end = begin + (size.saturating_sub(begin)) * number / count;
        // One byte before it, to see whether a line begins there.
        let start = end.saturating_sub(PIECE_BYTES).max(done).saturating_sub(1);
        let mut data = vec![0; end.saturating_sub(start) as usize];
        file.read_exact_at(&mut data, start).map_err(failed)?;
        done = end;
        let first = memchr(b'\n', &data).map_or(data.len(), |at| at + 1);
        let last = memrchr(b'\n', &data).map_or(0, |at| at + 1);
        // The last line of a file needs no line end.
        let last = if end == size { data.len() } else { last };
        if first < last {
            pieces.push(data[first..last].to_vec());
        }
    }
    Ok(pieces)
}

/// Which files to look at, how many bytes of their heads, and how many pieces: the first, the last, and some between.
pub(crate) fn chosen(files: &[PathBuf]) -> impl Iterator<Item = (&PathBuf, usize, u64)> {
    let count = files.len().min(FILES_MAX);
    (0..count).map(move |number| {
        let at = if count > 1 { number * (files.len() - 1) / (count - 1) } else { 0 };
        let (bytes, pieces) = if number == 0 { (HEAD_BYTES, PIECES) } else { (OTHER_HEAD_BYTES, 1) };
        (&files[at], bytes, pieces)
    })
}

/// The files that [`chosen`] passes over, to look at one after the other if the chosen ones decide nothing.
pub(crate) fn others(files: &[PathBuf]) -> impl Iterator<Item = &PathBuf> {
    let chosen: Vec<&PathBuf> = chosen(files).map(|(path, _, _)| path).collect();
    files.iter().filter(move |path| !chosen.contains(path))
}

/// How many bytes of the head of one of [`others`] are looked at.
pub(crate) const OTHERS_BYTES: usize = 64 << 10;
