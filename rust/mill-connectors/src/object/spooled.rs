//! An object as a file: its fetched data is in an unnamed file.
//!
//! ```text
//!   object   [ block ][ block ][ block ] …      256 KiB each
//!   spool      there    there     hole          a sparse file in the system's directory for temporary files
//! ```
//!
//! A read of missing bytes fetches their blocks, in one request for a run of them, and more of them at once the longer the
//! reader has read sequentially. Every request asks for the version that existed when the object was opened; an answer of
//! another version is an error. The spool goes with the reader.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mill_protocol::{Error, Result};
use object_store::ObjectMeta;
use xxhash_rust::xxh3::xxh3_64;

use super::bucket::Bucket;
use super::place::Place;
use crate::directory::fresh_nonce;

const BLOCK_BYTES: u64 = 256 << 10;
/// At most so many blocks are fetched that nobody has asked for yet.
const BLOCKS_AHEAD: u64 = 32;
/// The most that one request asks for.
const REQUEST_BLOCKS_MAX: u64 = 64;
/// What was found out about an object is taken to be so for so long, so that a list of objects is not followed by a request for each.
const FRESH: Duration = Duration::from_secs(10);
/// Of so many objects it is kept.
const METAS_MAX: usize = 1_000_000;

/// What a store says of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) size: u64,
    /// A strong tag, which requests can ask for.
    tag: Option<String>,
    /// Tells the object from others that were or will be at its place.
    pub(crate) mark: u64,
}

impl Meta {
    pub(super) fn of(object: &ObjectMeta) -> Meta {
        let mark = match (&object.e_tag, &object.version) {
            // Azure lists tags without the quotes that they have elsewhere.
            (Some(tag), _) => format!("tag {}", tag.trim_start_matches("W/").trim_matches('"')),
            (None, Some(version)) => format!("version {version}"),
            (None, None) => format!("time {}", object.last_modified.timestamp_millis()),
        };
        let strong = object.e_tag.as_deref().filter(|tag| !tag.starts_with("W/"));
        let tag = strong.map(|tag| format!("\"{}\"", tag.trim_matches('"')));
        Meta { size: object.size, tag, mark: xxh3_64(mark.as_bytes()) }
    }
}

static METAS: LazyLock<Mutex<HashMap<PathBuf, (Meta, Instant)>>> = LazyLock::new(Mutex::default);

fn metas() -> std::sync::MutexGuard<'static, HashMap<PathBuf, (Meta, Instant)>> {
    // Each change is a single insertion or removal, so a panic elsewhere leaves the map whole.
    METAS.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn remember(path: &Path, meta: Meta) {
    let mut metas = metas();
    if metas.len() >= METAS_MAX {
        metas.clear();
    }
    metas.insert(path.to_owned(), (meta, Instant::now()));
}

/// What the store says of the object at this path, or has said just now; `None` if there is none.
///
/// # Errors
/// When the store does not answer, or refuses.
pub(crate) fn look(path: &Path) -> Result<Option<Meta>> {
    if let Some((meta, _)) = metas().get(path).filter(|(_, at)| at.elapsed() < FRESH) {
        return Ok(Some(meta.clone()));
    }
    let place = Place::of(path)?;
    let found = Bucket::of(&place)?.look(&place.location()?, false, None)?.map(|object| Meta::of(&object));
    match &found {
        Some(meta) => remember(path, meta.clone()),
        None => drop(metas().remove(path)),
    }
    Ok(found)
}

/// An object that is read.
#[derive(Debug)]
pub(crate) struct Object {
    path: PathBuf,
    key: object_store::path::Path,
    bucket: Arc<Bucket>,
    is_web: bool,
    pub(crate) meta: Meta,
    spool: File,
    /// Which blocks are there; held while one is fetched.
    there: Mutex<Vec<bool>>,
}

impl Object {
    /// The object that is at this path now; `None` if there is none.
    ///
    /// # Errors
    /// When the store does not answer, or refuses, or no temporary file can be made.
    pub(crate) fn open(path: &Path) -> Result<Option<Object>> {
        let Some(meta) = look(path)? else { return Ok(None) };
        let place = Place::of(path)?;
        let (key, bucket) = (place.location()?, Bucket::of(&place)?);
        let blocks = usize::try_from(meta.size.div_ceil(BLOCK_BYTES)).unwrap_or(usize::MAX);
        let (spool, is_web) = (spool()?, place.scheme.is_web());
        Ok(Some(Object { path: path.to_owned(), key, bucket, is_web, meta, spool, there: Mutex::new(vec![false; blocks]) }))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads some bytes; 0 at the end.
    pub(crate) fn read_at(&self, out: &mut [u8], at: u64) -> io::Result<usize> {
        let end = self.meta.size.min(at.saturating_add(out.len() as u64));
        if at >= end {
            return Ok(0);
        }
        self.fetch(at..end).map_err(|e| io::Error::other(unnamed(e.message(), &self.path)))?;
        self.spool.read_exact_at(&mut out[..(end - at) as usize], at)?;
        Ok((end - at) as usize)
    }

    /// Fetches what is not there of these bytes.
    pub(crate) fn fetch(&self, bytes: Range<u64>) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        // Blocks are marked after they have been written, so a panic leaves the marks true.
        let mut there = self.there.lock().unwrap_or_else(PoisonError::into_inner);
        let blocks = there.len() as u64;
        let (mut block, last) = (bytes.start / BLOCK_BYTES, (bytes.end - 1) / BLOCK_BYTES);
        while block <= last {
            if there[block as usize] {
                block += 1;
                continue;
            }
            let before = there[..block as usize].iter().rev().take(BLOCKS_AHEAD as usize).take_while(|is_there| **is_there).count() as u64;
            let most = last.max(block + before.saturating_sub(1)).min(block + REQUEST_BLOCKS_MAX - 1);
            let mut end = block + 1;
            while end <= most && end < blocks && !there[end as usize] {
                end += 1;
            }
            let is_whole = self.fetch_blocks(block..end)?;
            if is_whole {
                there.fill(true);
                return Ok(());
            }
            there[block as usize..end as usize].fill(true);
            block = end;
        }
        Ok(())
    }

    /// Fetches a run of blocks; whether all of the object came, as some servers know no ranges.
    fn fetch_blocks(&self, blocks: Range<u64>) -> Result<bool> {
        let (start, end) = (blocks.start * BLOCK_BYTES, (blocks.end * BLOCK_BYTES).min(self.meta.size));
        // Servers of the web have tags that they do not compare.
        let tag = self.meta.tag.clone().filter(|_| !self.is_web);
        mill_fault::reach("object.read").map_err(|e| Error::connector(format!("cannot read {:?}: {e}", self.path)).because(e))?;
        let got = self.bucket.get(&self.key, start..end, tag);
        let (object, data) = got.inspect_err(|_| drop(metas().remove(&self.path)))?;
        let Some(data) = data else { return self.fetch_all().map(|()| true) };
        self.check(&object)?;
        if data.len() as u64 != end - start {
            return Err(Error::connector(format!("{:?}: the store returned {} bytes instead of {}", self.path, data.len(), end - start)));
        }
        self.spool.write_all_at(&data, start).map_err(|e| self.no_room(&e))?;
        Ok(false)
    }

    fn fetch_all(&self) -> Result<()> {
        let spool = self.spool.try_clone().map_err(|e| self.no_room(&e))?;
        let mut at = 0;
        let object = self.bucket.get_all(&self.key, move |piece| {
            spool.write_all_at(&piece, at)?;
            at += piece.len() as u64;
            Ok(())
        })?;
        self.check(&object)
    }

    /// Refuses an answer of another version.
    fn check(&self, object: &ObjectMeta) -> Result<()> {
        let now = Meta::of(object);
        if (now.mark, now.size) == (self.meta.mark, self.meta.size) {
            return Ok(());
        }
        metas().remove(&self.path);
        Err(Error::connector(format!(
            "{:?} was changed while it was read: run the job again, and write objects under new names instead of replacing them",
            self.path
        )))
    }

    fn no_room(&self, e: &io::Error) -> Error {
        Error::connector(format!("cannot keep what was read of {:?} in {:?} (TMPDIR chooses another directory): {e}", self.path, std::env::temp_dir()))
    }
}

/// What happened to an object, for an error that begins with its name.
fn unnamed(message: &str, path: &Path) -> String {
    let quoted = format!("{path:?}");
    let beginnings = [(format!("cannot read {quoted}: "), ""), (format!("{quoted}: "), ""), (format!("{}: ", path.display()), ""), (format!("{quoted} "), "it ")];
    let found = beginnings.iter().find_map(|(beginning, instead)| Some((message.strip_prefix(beginning)?, instead)));
    found.map_or_else(|| message.to_owned(), |(rest, instead)| format!("{instead}{rest}"))
}

#[cfg(test)]
mod unnamed_tests {
    use super::*;

    #[test]
    fn an_error_names_its_object_once() {
        let path = Path::new("s3://bucket/a.csv");
        for (message, rest) in [
            ("cannot read \"s3://bucket/a.csv\": it is not there (NoSuchKey)", "it is not there (NoSuchKey)"),
            ("\"s3://bucket/a.csv\" was changed while it was read", "it was changed while it was read"),
            ("\"s3://bucket/a.csv\": the store returned 1 bytes instead of 2", "the store returned 1 bytes instead of 2"),
            ("s3://bucket/a.csv: the request was dropped", "the request was dropped"),
            ("no room", "no room"),
        ] {
            assert_eq!(unnamed(message, path), rest);
        }
    }
}

/// A file without a name, which goes with the process.
pub(crate) fn spool() -> Result<File> {
    let path = std::env::temp_dir().join(format!("millstream-{:016x}.object", fresh_nonce()));
    let made = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
    let made = made.and_then(|file| std::fs::remove_file(&path).map(|()| file));
    made.map_err(|e| Error::connector(format!("cannot make a temporary file {path:?}: {e}")).because(e))
}
