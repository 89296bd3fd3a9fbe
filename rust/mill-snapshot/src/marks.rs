//! The marks: two small files, `MILLSTREAM` and `lock`, that say that state is to be expected, and up to which
//! checkpoint. `docs/format/directory.md` draws them.
//!
//! Both hold the same record, so that either can be lost without the knowledge that a checkpoint had been published. The
//! record is stored in two places that are written in turn: a process that is killed while it writes one leaves the other
//! intact. Within a sector a write is whole or not at all, and each place has a sector of its own.

use std::path::{Path, PathBuf};

use crate::disk::{Disk, Held, MappedFile};
use crate::error::{Error, Result};
use crate::segment::{HEADER_BYTES, is_sealed, put, seal, u32_at, u64_at};

/// The version of the format of the directory that this program writes, and the newest that it reads.
pub const DIRECTORY_VERSION: u32 = 1;
/// The name of the file that says that a directory holds state.
pub const MARKER: &str = "MILLSTREAM";
/// The name of the file that is locked while a job uses the directory.
pub const LOCK: &str = "lock";

const TEMPORARY_MARKER: &str = "MILLSTREAM-new";
const FILE_BYTES: u64 = 4096;
const TITLE_BYTES: usize = 512;
const PLACES: [usize; 2] = [1024, 1536];
const HOLDER_AT: usize = 2048;
const HOLDER_BYTES: usize = 64;
const TITLE: &[u8] = b"Millstream keeps checkpoints here. Do not change or remove single files:\n\
    `millstream state` lists and checks them. Format version in binary at byte 500.\n";

/// What the marks know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Record {
    /// Grows with every change.
    pub sequence: u64,
    /// The newest checkpoint that was published; 0 for none.
    pub published: u64,
    /// The identity of the directory, which all of its files carry.
    pub state: u64,
    /// Whether there is a file of positions.
    pub has_positions: bool,
    /// The newest checkpoint whose output is known to be committed; 0 for none.
    pub settled: u64,
    /// The identity that the directory had before it started over; 0 if it never did.
    pub former: u64,
}

impl Record {
    fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        put(&mut out, 0, b"MILLMARK");
        put(&mut out, 8, &self.sequence.to_le_bytes());
        put(&mut out, 16, &self.published.to_le_bytes());
        put(&mut out, 24, &self.state.to_le_bytes());
        out[32] = u8::from(self.has_positions);
        put(&mut out, 40, &self.settled.to_le_bytes());
        put(&mut out, 48, &self.former.to_le_bytes());
        seal(&mut out);
        out
    }

    fn decode(raw: &[u8]) -> Option<Record> {
        let raw: &[u8; HEADER_BYTES] = raw.first_chunk()?;
        (is_sealed(raw) && &raw[..8] == b"MILLMARK").then(|| Record {
            sequence: u64_at(raw, 8),
            published: u64_at(raw, 16),
            state: u64_at(raw, 24),
            has_positions: raw[32] == 1,
            settled: u64_at(raw, 40),
            former: u64_at(raw, 48),
        })
    }
}

/// What one of the two files says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// There is no such file.
    Absent,
    /// It is empty or all zero: whoever made it died before writing to it.
    Blank,
    /// It cannot be understood.
    Damaged(String),
    /// It says this.
    Says(Record),
}

impl Found {
    pub(crate) fn record(&self) -> Option<Record> {
        match self {
            Found::Says(record) => Some(*record),
            _ => None,
        }
    }
}

/// Reads one of the two files.
pub(crate) fn look(disk: &dyn Disk, path: &Path, has_title: bool) -> Result<Found> {
    let raw = match disk.read(path, FILE_BYTES) {
        Ok(raw) => raw,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Found::Absent),
        Err(error) if error.kind() == std::io::ErrorKind::FileTooLarge => {
            return Ok(Found::Damaged(format!("it has more than {FILE_BYTES} bytes")));
        }
        Err(error) => return Err(Error::io("read", path, error)),
    };
    if raw.len() as u64 != FILE_BYTES {
        let is_blank = !has_title && raw.is_empty();
        return Ok(if is_blank { Found::Blank } else { Found::Damaged(format!("it has {} bytes", raw.len())) });
    }
    if has_title {
        let title = &raw[..TITLE_BYTES];
        if crc32c::crc32c(&title[..508]) != u32_at(title, 508) {
            return Ok(Found::Damaged("the checksum of its title does not match".to_owned()));
        }
        let version = u32_at(title, 500);
        if version > DIRECTORY_VERSION {
            return Err(Error::NewerFormat { path: path.to_path_buf(), found: version, known: DIRECTORY_VERSION });
        }
    }
    let places = PLACES.map(|at| Record::decode(&raw[at..at + HEADER_BYTES]));
    if let Some(record) = places.into_iter().flatten().max_by_key(|record| record.sequence) {
        return Ok(Found::Says(record));
    }
    let is_blank = !has_title && PLACES.iter().all(|at| raw[*at..at + HEADER_BYTES].iter().all(|byte| *byte == 0));
    Ok(if is_blank { Found::Blank } else { Found::Damaged("neither of its two records can be read".to_owned()) })
}

/// The process that holds the lock, as it wrote it down itself.
pub(crate) fn holder(disk: &dyn Disk, dir: &Path) -> Option<u32> {
    let raw = disk.read(&dir.join(LOCK), FILE_BYTES).ok()?;
    let text = raw.get(HOLDER_AT..HOLDER_AT + HOLDER_BYTES)?;
    let text = std::str::from_utf8(text).ok()?.trim_end_matches('\0');
    text.strip_prefix("pid ")?.trim_end().parse().ok()
}

/// The marks of a directory that this process has locked.
pub(crate) struct Marks {
    record: Record,
    is_synced: bool,
    marker: (PathBuf, Box<dyn MappedFile>),
    lock: (PathBuf, Box<dyn MappedFile>),
}

/// Locks a directory.
pub(crate) fn lock(disk: &dyn Disk, dir: &Path, name: &str) -> Result<Box<dyn Held>> {
    let path = dir.join(name);
    match disk.lock(&path, FILE_BYTES) {
        Ok(Some(held)) => Ok(held),
        Ok(None) => Err(Error::Locked { path: dir.to_path_buf(), holder: holder(disk, dir) }),
        Err(error) => Err(Error::io("lock", &path, error)),
    }
}

/// Puts a fresh marker in place.
pub(crate) fn create_marker(disk: &dyn Disk, dir: &Path, record: Record) -> Result<()> {
    let temporary = dir.join(TEMPORARY_MARKER);
    match disk.remove(&temporary) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(Error::io("remove", &temporary, error)),
    }
    let mut file = disk.create(&temporary, FILE_BYTES).map_err(|error| Error::io("create", &temporary, error))?;
    let out = file.bytes();
    put(out, 0, TITLE);
    put(out, 500, &DIRECTORY_VERSION.to_le_bytes());
    let crc = crc32c::crc32c(&out[..508]);
    put(out, 508, &crc.to_le_bytes());
    put(out, PLACES[record.sequence as usize % 2], &record.encode());
    file.sync().map_err(|source| Error::SyncFailed { path: temporary.clone(), source })?;
    let path = dir.join(MARKER);
    disk.rename(&temporary, &path).map_err(|error| Error::io("create", &path, error))?;
    disk.sync_dir(dir).map_err(|source| Error::SyncFailed { path: dir.to_path_buf(), source })
}

impl Marks {
    /// Opens both files, which exist and are locked, and lets both say the same.
    pub(crate) fn open(disk: &dyn Disk, dir: &Path, record: Record, pid: u32) -> Result<Marks> {
        let open = |name: &str| {
            let path = dir.join(name);
            disk.open(&path).map(|file| (path.clone(), file)).map_err(|error| Error::io("open", &path, error))
        };
        let mut marks = Marks { record, is_synced: false, marker: open(MARKER)?, lock: open(LOCK)? };
        let mut text = [0; HOLDER_BYTES];
        let pid = format!("pid {pid}\n");
        put(&mut text, 0, pid.as_bytes());
        put(marks.lock.1.bytes(), HOLDER_AT, &text);
        marks.change(|_| {});
        Ok(marks)
    }

    pub(crate) fn record(&self) -> Record {
        self.record
    }

    /// Notes that a checkpoint was published. Durable after the first of this process; later ones survive the death of
    /// the process at once and that of the machine soon: the manifest is what counts, this only tells of its absence.
    pub(crate) fn published(&mut self, epoch: u64) -> Result<()> {
        self.change(|record| record.published = record.published.max(epoch));
        if self.is_synced { Ok(()) } else { self.sync() }
    }

    /// Notes that the output of a checkpoint is committed. Survives the death of the process at once; that of the machine
    /// soon, or at once if it is to be durable. A note that is lost costs nothing but that the output has to be there.
    pub(crate) fn settled(&mut self, epoch: u64, is_durable: bool) -> Result<()> {
        if epoch > self.record.settled {
            self.change(|record| record.settled = epoch);
        }
        if is_durable { self.sync() } else { Ok(()) }
    }

    /// Notes that there is a file of positions.
    pub(crate) fn has_positions(&mut self) -> Result<()> {
        if self.record.has_positions {
            return Ok(());
        }
        self.change(|record| record.has_positions = true);
        self.sync()
    }

    /// Starts over, under another identity: nothing was published. Durable.
    pub(crate) fn forget(&mut self, state: u64) -> Result<()> {
        self.change(|record| *record = Record { sequence: record.sequence, state, former: record.state, ..Record::default() });
        self.sync()
    }

    fn change(&mut self, change: impl FnOnce(&mut Record)) {
        change(&mut self.record);
        self.record.sequence += 1;
        let raw = self.record.encode();
        for (_, file) in [&mut self.marker, &mut self.lock] {
            put(file.bytes(), PLACES[self.record.sequence as usize % 2], &raw);
        }
    }

    fn sync(&mut self) -> Result<()> {
        for (path, file) in [&mut self.marker, &mut self.lock] {
            file.sync().map_err(|source| Error::SyncFailed { path: path.clone(), source })?;
        }
        self.is_synced = true;
        Ok(())
    }
}
