//! The rows of an epoch as a database takes them, kept until they are known to be in their table.
//!
//! ```text
//!   rows     as the sink has encoded them
//!   handle   header length u32 | header as JSON | xxh3 of the rows u64 | rows         few: they lie in the checkpoint
//!            header length u32 | header as JSON with file, bytes, hash                 many: they lie in a file
//!   file     <state directory>/<directory of the connector>/<sink>-<run>-<task>-<n>.rows
//! ```
//!
//! A handle can only name a file of its own sink, and that only as a regular file of the length and the checksum it says. A job
//! that keeps no state keeps such files in the system's directory for temporary files, without a name: they go with the process.

use std::collections::HashMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use mill_protocol::{Error, Result};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::directory::fresh_nonce;

/// Rows up to this many bytes are in the checkpoint itself.
pub(crate) const INLINE_BYTES_MAX: usize = 32 << 10;
/// Rows beyond this many bytes are not held in memory.
pub(crate) const HELD_BYTES_MAX: usize = 1 << 20;
/// How much is read of a file at a time.
const PIECE_BYTES: usize = 128 << 10;
const SUFFIX: &str = ".rows";

/// What a connector calls its files, itself and the steps that a test may let fail.
#[derive(Debug)]
pub(crate) struct Names {
    /// The directory within the state directory.
    pub(crate) directory: &'static str,
    /// What the user has called.
    pub(crate) function: &'static str,
    pub(crate) create: &'static str,
    pub(crate) write: &'static str,
    pub(crate) sync: &'static str,
    pub(crate) remove: &'static str,
}

/// Where a sink keeps its files.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    names: &'static Names,
    /// `None`: files have no names, and are in the list.
    directory: Option<PathBuf>,
    unnamed: Arc<Mutex<HashMap<String, File>>>,
    /// Tells the sink from the others of the job.
    sink: String,
}

impl Place {
    pub(crate) fn new(names: &'static Names, state: Option<&Path>, sink: &str) -> Place {
        let directory = state.map(|state| state.join(names.directory));
        Place { names, directory, unnamed: Arc::default(), sink: format!("{:016x}", xxh3_64(sink.as_bytes())) }
    }

    /// Creates a file for a part.
    pub(crate) fn create(&self, part: &str) -> Result<Spool> {
        let name = format!("{}-{part}{SUFFIX}", self.sink);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        let path = match &self.directory {
            Some(directory) => {
                // As all of the state directory: records are for nobody else's eyes.
                let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
                made.map_err(|e| self.names.cannot("create", directory, e))?;
                directory.join(&name)
            }
            None => std::env::temp_dir().join(format!("millstream-{:016x}{SUFFIX}", fresh_nonce())),
        };
        let file = mill_fault::reach(self.names.create).and_then(|()| options.open(&path));
        let file = file.map_err(|e| self.names.cannot("create", &path, e))?;
        if self.directory.is_none() {
            std::fs::remove_file(&path).map_err(|e| self.names.cannot("remove", &path, e))?;
        }
        Ok(Spool { place: self.clone(), name, path, file: Some(file), bytes: 0, hash: Box::new(Xxh3::new()), is_kept: false })
    }

    /// Removes all files of the sink.
    pub(crate) fn clear(&self) -> Result<()> {
        self.unnamed.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let Some(directory) = &self.directory else { return Ok(()) };
        let entries = match std::fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(self.names.cannot("list", directory, e)),
        };
        for entry in entries {
            let path = entry.map_err(|e| self.names.cannot("list", directory, e))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.starts_with(&format!("{}-", self.sink)) && name.ends_with(SUFFIX) {
                self.remove(name)?;
            }
        }
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<()> {
        let Some(directory) = &self.directory else {
            self.unnamed.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
            return Ok(());
        };
        let path = directory.join(name);
        match mill_fault::reach(self.names.remove).and_then(|()| std::fs::remove_file(&path)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(self.names.cannot("remove", &path, e)),
            _ => Ok(()),
        }
    }
}

/// A file that rows go to; it goes again unless a handle names it.
pub(crate) struct Spool {
    place: Place,
    name: String,
    path: PathBuf,
    file: Option<File>,
    bytes: u64,
    hash: Box<Xxh3>,
    is_kept: bool,
}

impl Spool {
    pub(crate) fn push(&mut self, rows: &[u8]) -> Result<()> {
        let Some(file) = &mut self.file else { return Err(Error::internal("a spool is not written after its end")) };
        mill_fault::reach(self.place.names.write).and_then(|()| file.write_all(rows)).map_err(|e| self.place.names.cannot("write", &self.path, e))?;
        self.hash.update(rows);
        self.bytes += rows.len() as u64;
        Ok(())
    }

    /// Makes it durable, and says what a checkpoint has to know of it.
    pub(crate) fn finish(mut self) -> Result<Spooled> {
        let Some(file) = self.file.take() else { return Err(Error::internal("a spool ends once")) };
        match &self.place.directory {
            Some(directory) => {
                mill_fault::reach(self.place.names.sync).and_then(|()| file.sync_data()).map_err(|e| self.place.names.cannot("sync", &self.path, e))?;
                let sync = |path: &Path| File::open(path).and_then(|directory| directory.sync_all());
                sync(directory).map_err(|e| self.place.names.cannot("sync", directory, e))?;
                if let Some(parent) = directory.parent() {
                    sync(parent).map_err(|e| self.place.names.cannot("sync", parent, e))?;
                }
            }
            None => {
                self.place.unnamed.lock().unwrap_or_else(PoisonError::into_inner).insert(self.name.clone(), file);
            }
        }
        self.is_kept = true;
        Ok(Spooled { file: std::mem::take(&mut self.name), bytes: self.bytes, hash: self.hash.digest() })
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        if !self.is_kept && self.place.directory.is_some() {
            // Nothing names this file. What cannot be removed now is removed by the next recovery.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Names {
    fn cannot(&self, doing: &str, path: &Path, e: std::io::Error) -> Error {
        Error::connector(format!("{}: cannot {doing} {path:?}: {e}", self.function)).because(e)
    }
}

/// What a checkpoint knows of a file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Spooled {
    file: String,
    bytes: u64,
    hash: u64,
}

/// What a checkpoint holds of a task's share of an epoch.
#[derive(Debug)]
pub(crate) struct Handle {
    /// The run that wrote it.
    pub(crate) run: u64,
    pub(crate) rows: u64,
    pub(crate) deletes: u64,
    /// The columns of the table that the rows were written for.
    pub(crate) columns: String,
    pub(crate) held: Held,
}

/// Where the rows are.
#[derive(Debug)]
pub(crate) enum Held {
    Inline(Vec<u8>),
    Spooled(Spooled),
}

#[derive(Serialize, Deserialize)]
struct Header {
    run: String,
    rows: u64,
    deletes: u64,
    columns: String,
    spooled: Option<Spooled>,
}

impl Handle {
    pub(crate) fn encode(self) -> Result<Vec<u8>> {
        let (spooled, rows) = match self.held {
            Held::Inline(rows) => (None, rows),
            Held::Spooled(spooled) => (Some(spooled), Vec::new()),
        };
        let run = format!("{:016x}", self.run);
        let header = Header { run, rows: self.rows, deletes: self.deletes, columns: self.columns, spooled };
        let header = serde_json::to_vec(&header).map_err(|e| Error::internal("a header is names and numbers").because(e))?;
        let mut bytes = (header.len() as u32).to_le_bytes().to_vec();
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(&xxh3_64(&rows).to_le_bytes());
        bytes.extend_from_slice(&rows);
        Ok(bytes)
    }

    /// The file of the state directory that the rows are in, if they are not in the handle.
    pub(crate) fn file(&self, place: &Place) -> Option<String> {
        match &self.held {
            Held::Inline(_) => None,
            Held::Spooled(spooled) => Some(format!("{}/{}", place.names.directory, spooled.file)),
        }
    }

    /// Reads a handle; `None` if it is damaged, or not of this sink.
    pub(crate) fn decode(bytes: &[u8], place: &Place) -> Option<Handle> {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (header, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        let (hash, rest) = rest.split_first_chunk::<8>()?;
        let Header { run, rows, deletes, columns, spooled } = serde_json::from_slice(header).ok()?;
        if xxh3_64(rest) != u64::from_le_bytes(*hash) {
            return None;
        }
        let held = match spooled {
            None => Held::Inline(rest.to_vec()),
            Some(spooled) => {
                let part = spooled.file.strip_prefix(&format!("{}-", place.sink)).and_then(|name| name.strip_suffix(SUFFIX))?;
                let is_own = part.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-') && rest.is_empty();
                Held::Spooled(is_own.then_some(spooled)?)
            }
        };
        Some(Handle { run: u64::from_str_radix(&run, 16).ok()?, rows, deletes, columns, held })
    }

    /// Calls with the rows, piece by piece.
    ///
    /// # Errors
    /// When they are lost or damaged: then what was called with must not count.
    pub(crate) fn for_each(&self, place: &Place, mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let damaged = |what: &str| Error::checkpoint(format!("{}: the rows kept for an epoch are damaged: {what}", place.names.function));
        let Spooled { file: name, bytes, hash } = match &self.held {
            Held::Inline(rows) => return each(rows),
            Held::Spooled(spooled) => spooled,
        };
        let (path, mut file) = match &place.directory {
            Some(directory) => {
                let path = directory.join(name);
                let found = std::fs::symlink_metadata(&path).map_err(|e| match e.kind() {
                    std::io::ErrorKind::NotFound => Error::checkpoint(format!(
                        "{}: the rows of an epoch are lost: {path:?} does not exist, and they were not committed; put the \
                         state directory back as it was, restore an older checkpoint, or start over with another one",
                        place.names.function
                    )),
                    _ => place.names.cannot("look at", &path, e),
                })?;
                if !found.is_file() || found.len() != *bytes {
                    return Err(damaged(&format!("{path:?} has {} bytes, and had {bytes}", found.len())));
                }
                let file = File::open(&path).map_err(|e| place.names.cannot("open", &path, e))?;
                (path, file)
            }
            None => {
                let unnamed = place.unnamed.lock().unwrap_or_else(PoisonError::into_inner);
                let file = unnamed.get(name).ok_or_else(|| damaged("the file is not one of this run"))?;
                let path = PathBuf::from(name);
                let mut file = file.try_clone().map_err(|e| place.names.cannot("open", &path, e))?;
                file.seek(SeekFrom::Start(0)).map_err(|e| place.names.cannot("read", &path, e))?;
                (path, file)
            }
        };
        let (mut left, mut sum, mut piece) = (*bytes, Xxh3::new(), vec![0; PIECE_BYTES]);
        while left > 0 {
            let count = PIECE_BYTES.min(usize::try_from(left).unwrap_or(PIECE_BYTES));
            file.read_exact(&mut piece[..count]).map_err(|e| place.names.cannot("read", &path, e))?;
            sum.update(&piece[..count]);
            each(&piece[..count])?;
            left -= count as u64;
        }
        if sum.digest() == *hash { Ok(()) } else { Err(damaged("the checksum does not match")) }
    }

    /// Removes its file; what cannot be removed now is removed by the next recovery.
    pub(crate) fn remove(&self, place: &Place) {
        if let Held::Spooled(spooled) = &self.held {
            let _ = place.remove(&spooled.file);
        }
    }
}

/// `<run>-<task>-<n>`: tells a handle from every other one of every run.
pub(crate) fn part(run: u64, task: usize, number: u64) -> String {
    format!("{run:016x}-{task}-{number}")
}

#[cfg(test)]
mod tests {
    use super::*;

    static NAMES: Names =
        Names { directory: "x", function: "write_x", create: "x.create", write: "x.spool", sync: "x.sync", remove: "x.remove" };

    fn handle(held: Held) -> Handle {
        Handle { run: 7, rows: 3, deletes: 1, columns: "(a bigint)".to_owned(), held }
    }

    fn content(handle: &Handle, place: &Place) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        handle.for_each(place, |piece| {
            all.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(all)
    }

    #[test]
    fn rows_come_back_from_the_checkpoint_and_from_files() {
        let directory = tempfile::tempdir().unwrap();
        let rows: Vec<u8> = (0..300_000u32).map(|n| (n % 251) as u8).collect();
        for state in [Some(directory.path()), None] {
            let place = Place::new(&NAMES, state, "sink");
            let mut spool = place.create(&part(7, 0, 1)).unwrap();
            spool.push(&rows[..1000]).unwrap();
            spool.push(&rows[1000..]).unwrap();
            let spooled = spool.finish().unwrap();
            for (held, expected) in [(Held::Spooled(spooled), &rows[..]), (Held::Inline(rows[..9].to_vec()), &rows[..9])] {
                let bytes = handle(held).encode().unwrap();
                let back = Handle::decode(&bytes, &place).unwrap();
                assert_eq!((back.run, back.rows, back.deletes, back.columns.as_str()), (7, 3, 1, "(a bigint)"));
                for _ in 0..2 {
                    assert_eq!(content(&back, &place).unwrap(), expected);
                }
                assert!(Handle::decode(&bytes[..bytes.len() - 1], &place).is_none());
                back.remove(&place);
                assert!(expected.len() < 10 || content(&back, &place).is_err());
            }
        }
    }

    #[test]
    fn a_file_of_somebody_else_is_not_read() {
        let directory = tempfile::tempdir().unwrap();
        let place = Place::new(&NAMES, Some(directory.path()), "sink");
        for file in ["../../etc/passwd", "x.rows", &format!("{}-../x.rows", place.sink)] {
            let held = Held::Spooled(Spooled { file: file.to_owned(), bytes: 1, hash: 0 });
            assert!(Handle::decode(&handle(held).encode().unwrap(), &place).is_none(), "{file}");
        }
    }

    #[test]
    fn a_file_that_was_changed_is_found_out() {
        let directory = tempfile::tempdir().unwrap();
        let place = Place::new(&NAMES, Some(directory.path()), "sink");
        let mut spool = place.create(&part(7, 0, 1)).unwrap();
        spool.push(b"some rows").unwrap();
        let path = spool.path.clone();
        let handle = handle(Held::Spooled(spool.finish().unwrap()));
        std::fs::write(&path, b"some rowz").unwrap();
        assert!(content(&handle, &place).unwrap_err().message().contains("checksum"));
        std::fs::write(&path, b"some").unwrap();
        assert!(content(&handle, &place).is_err());
        place.clear().unwrap();
        assert!(!path.exists());
    }
}
