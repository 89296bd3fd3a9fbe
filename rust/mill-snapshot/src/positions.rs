//! The positions file, for jobs that promise at most once: how far each split was read, stored before its records are
//! emitted. `docs/format/positions.md` draws it.
//!
//! A note is a copy into a mapped file: no system call and no sync, so it survives the death of the process (the kernel
//! has the page) but not always that of the machine; [`Positions::sync`] syncs it where that is needed.
//!
//! Every slot has two copies of its position, written in turn, and two words beside them: `intent` is set to the number
//! of a note before its copy is touched, `done` after. So a copy that was cut short by a kill (`intent` is ahead) can be
//! told from one that was damaged later (`done` says that it was whole): the first is fine, as its records were not yet
//! sent; the second is an error, because continuing from the copy before it would send records again.
//!
//! Only the order of the stores matters here, and only as the compiler emits them: a thread that is killed has executed
//! its stores up to some point, and all of those are in the page.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{Ordering, compiler_fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::disk::MappedFile;
use crate::error::{Error, Result};
use crate::segment::{HEADER_BYTES, is_sealed, put, seal, u16_at, u32_at, u64_at};
use crate::store::{Inner, Store};

/// The version of the format of positions that this program writes, and the newest that it reads.
pub const POSITIONS_VERSION: u32 = 1;
/// The name of the file.
pub const POSITIONS: &str = "positions";
/// The longest name of a slot, in bytes.
pub const SLOT_NAME_BYTES_MAX: usize = 248;
/// The largest position, in bytes.
pub const POSITION_BYTES_MAX: usize = 16 << 20;
/// The highest number of slots.
pub const SLOTS_MAX: usize = 1 << 20;

const TEMPORARY: &str = "positions-new";
const MAGIC: &[u8; 8] = b"MILLPOS\0";
const NAME_BYTES: usize = 256;
const INTENT_AT: usize = 256;
const DONE_AT: usize = 272;
const COPIES_AT: usize = 320;
const COPY_HEAD_BYTES: usize = 16;
/// The largest file that is read: no one that this program writes comes near.
const FILE_BYTES_MAX: u64 = 1 << 40;
const SLOTS_AT_FIRST: usize = 16;
const COPY_BYTES_AT_FIRST: usize = 128;

/// How far each split was read.
pub struct Positions {
    inner: Arc<Inner>,
    table: Mutex<Table>,
}

struct Table {
    file: Box<dyn MappedFile>,
    shape: Shape,
    slots: Vec<Slot>,
}

#[derive(Clone, Debug)]
struct Slot {
    name: String,
    sequence: u64,
}

/// How the file is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    slots: usize,
    copy_bytes: usize,
}

impl Shape {
    fn slot_bytes(self) -> usize {
        COPIES_AT + 2 * self.copy_bytes
    }
    fn file_bytes(self) -> usize {
        HEADER_BYTES + self.slots * self.slot_bytes()
    }
    fn slot_at(self, slot: usize) -> usize {
        HEADER_BYTES + slot * self.slot_bytes()
    }
}

/// A position as it was last noted.
type Noted = Option<(u64, Vec<u8>)>;

impl Store {
    /// Opens the positions of this directory, or creates them.
    ///
    /// # Errors
    /// If there were positions, but the file is gone or damaged.
    pub fn positions(&self) -> Result<Positions> {
        let inner = Arc::clone(&self.inner);
        let has_positions = inner.owned()?.marks.record().has_positions;
        let path = inner.path.join(POSITIONS);
        let (table, is_new) = match inner.disk.read(&path, FILE_BYTES_MAX) {
            Ok(raw) => {
                let (shape, slots) = read(&path, &raw, inner.state)?;
                let file = inner.disk.open(&path).map_err(|error| Error::io("open", &path, error))?;
                (Table { file, shape, slots: slots.into_iter().map(|(slot, _)| slot).collect() }, false)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && has_positions => {
                return Err(is_gone(&path));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let shape = Shape { slots: SLOTS_AT_FIRST, copy_bytes: COPY_BYTES_AT_FIRST };
                (replace(&inner, shape, &[])?, true)
            }
            Err(error) => return Err(Error::io("read", &path, error)),
        };
        if is_new || !has_positions {
            inner.owned()?.marks.has_positions()?;
        }
        Ok(Positions { inner, table: Mutex::new(table) })
    }

    /// The positions as they stand on disk, by name; empty if there are none. Works in a store opened for looking.
    ///
    /// # Errors
    /// If there were positions, but the file is gone or damaged.
    pub fn read_positions(&self) -> Result<Vec<(String, Vec<u8>)>> {
        if self.inner.has_former() {
            return Ok(Vec::new());
        }
        let path = self.inner.path.join(POSITIONS);
        let raw = match self.inner.disk.read(&path, FILE_BYTES_MAX) {
            Ok(raw) => raw,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return if self.inner.record().has_positions { Err(is_gone(&path)) } else { Ok(Vec::new()) };
            }
            Err(error) => return Err(Error::io("read", &path, error)),
        };
        let (_, slots) = read(&path, &raw, self.inner.state)?;
        Ok(slots.into_iter().filter_map(|(slot, noted)| Some((slot.name, noted?.1))).collect())
    }
}

impl Positions {
    /// The slot of this name, made if there is none yet. Names are chosen by the caller: operator and split.
    pub fn slot(&self, name: &str) -> Result<usize> {
        let mut table = self.lock();
        if let Some(slot) = table.slots.iter().position(|slot| slot.name == name) {
            return Ok(slot);
        }
        limit("the name of a slot in bytes", name.len(), SLOT_NAME_BYTES_MAX)?;
        let slot = table.slots.len();
        limit("the count of splits", slot + 1, SLOTS_MAX)?;
        if slot == table.shape.slots {
            let shape = Shape { slots: 2 * slot, ..table.shape };
            self.grow(&mut table, shape)?;
        }
        let at = table.shape.slot_at(slot);
        write_slot(table.file.bytes(), at, name);
        table.slots.push(Slot { name: name.to_owned(), sequence: 0 });
        Ok(slot)
    }

    /// Notes how far a split was read. Call it before what was read goes out.
    ///
    /// # Panics
    /// If the slot was not given by [`slot`](Positions::slot).
    pub fn note(&self, slot: usize, position: &[u8]) -> Result<()> {
        limit("a position in bytes", position.len(), POSITION_BYTES_MAX)?;
        let mut table = self.lock();
        assert!(slot < table.slots.len(), "slot {slot} of {}", table.slots.len());
        if position.len() + COPY_HEAD_BYTES > table.shape.copy_bytes {
            let copy_bytes = (position.len() + COPY_HEAD_BYTES).next_power_of_two();
            let shape = Shape { copy_bytes, ..table.shape };
            self.grow(&mut table, shape)?;
        }
        table.slots[slot].sequence += 1;
        let (at, copy_bytes, sequence) =
            (table.shape.slot_at(slot), table.shape.copy_bytes, table.slots[slot].sequence);
        write_note(&mut table.file.bytes()[at..], copy_bytes, sequence, position);
        Ok(())
    }

    /// What was last noted for this name.
    pub fn position(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let mut table = self.lock();
        let Some(slot) = table.slots.iter().position(|slot| slot.name == name) else { return Ok(None) };
        let (shape, path) = (table.shape, self.inner.path.join(POSITIONS));
        let at = shape.slot_at(slot);
        let raw = &table.file.bytes()[at..at + shape.slot_bytes()];
        let noted = read_note(raw, shape.copy_bytes).map_err(|what| Error::damaged(&path, at as u64, what))?;
        Ok(noted.map(|(_, position)| position))
    }

    /// Makes all notes so far durable, against the death of the machine too.
    pub fn sync(&self) -> Result<()> {
        let path = || self.inner.path.join(POSITIONS);
        self.lock().file.sync().map_err(|source| Error::SyncFailed { path: path(), source })
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves everything into a larger file.
    fn grow(&self, table: &mut Table, shape: Shape) -> Result<()> {
        let (old, path) = (table.shape, self.inner.path.join(POSITIONS));
        let mut kept = Vec::with_capacity(table.slots.len());
        for (number, slot) in table.slots.iter().enumerate() {
            let at = old.slot_at(number);
            let raw = &table.file.bytes()[at..at + old.slot_bytes()];
            let noted = read_note(raw, old.copy_bytes).map_err(|what| Error::damaged(&path, at as u64, what))?;
            kept.push((slot.clone(), noted));
        }
        *table = replace(&self.inner, shape, &kept)?;
        Ok(())
    }
}

impl fmt::Debug for Positions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Positions").field("path", &self.inner.path).field("slots", &self.lock().slots.len()).finish()
    }
}

fn is_gone(path: &Path) -> Error {
    Error::damaged(path, 0, "the file is gone, so nobody knows how far the input was read")
}

/// Writes a new file with these slots and puts it in the place of the old one.
fn replace(inner: &Inner, shape: Shape, slots: &[(Slot, Noted)]) -> Result<Table> {
    let (path, temporary) = (inner.path.join(POSITIONS), inner.path.join(TEMPORARY));
    match inner.disk.remove(&temporary) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(Error::io("remove", &temporary, error)),
    }
    let create = inner.disk.create(&temporary, shape.file_bytes() as u64);
    let mut file = create.map_err(|error| Error::io("create", &temporary, error))?;
    let out = file.bytes();
    let mut header = [0; HEADER_BYTES];
    put(&mut header, 0, MAGIC);
    put(&mut header, 8, &POSITIONS_VERSION.to_le_bytes());
    put(&mut header, 12, &(shape.slots as u32).to_le_bytes());
    put(&mut header, 16, &(shape.copy_bytes as u64).to_le_bytes());
    put(&mut header, 24, &inner.state.to_le_bytes());
    seal(&mut header);
    put(out, 0, &header);
    for (number, (slot, noted)) in slots.iter().enumerate() {
        let at = shape.slot_at(number);
        write_slot(out, at, &slot.name);
        if let Some((sequence, position)) = noted {
            write_note(&mut out[at..], shape.copy_bytes, *sequence, position);
        }
    }
    file.sync().map_err(|source| Error::SyncFailed { path: temporary.clone(), source })?;
    inner.disk.rename(&temporary, &path).map_err(|error| Error::io("create", &path, error))?;
    inner.disk.sync_dir(&inner.path).map_err(|source| Error::SyncFailed { path: inner.path.clone(), source })?;
    Ok(Table { file, shape, slots: slots.iter().map(|(slot, _)| slot.clone()).collect() })
}

/// Makes a slot: its words first, its name last, as the name is what makes it exist.
fn write_slot(out: &mut [u8], at: usize, name: &str) {
    put_word(out, at + INTENT_AT, 0);
    put_word(out, at + DONE_AT, 0);
    compiler_fence(Ordering::SeqCst);
    let mut raw = [0; NAME_BYTES];
    put(&mut raw, 0, &(name.len() as u16).to_le_bytes());
    put(&mut raw, 2, name.as_bytes());
    put(out, at, &raw);
    compiler_fence(Ordering::SeqCst);
    // The checksum goes last; a name that was cut short belongs to a split of which nothing was read yet.
    let crc = crc32c::crc32c(&raw[..252]);
    put(out, at + 252, &crc.to_le_bytes());
    compiler_fence(Ordering::SeqCst);
}

fn write_note(slot: &mut [u8], copy_bytes: usize, sequence: u64, position: &[u8]) {
    put_word(slot, INTENT_AT, sequence);
    compiler_fence(Ordering::SeqCst);
    let copy = &mut slot[COPIES_AT + (sequence as usize % 2) * copy_bytes..][..copy_bytes];
    put(copy, 0, &sequence.to_le_bytes());
    put(copy, 8, &(position.len() as u32).to_le_bytes());
    put(copy, COPY_HEAD_BYTES, position);
    let crc = copy_crc(copy, position.len());
    put(copy, 12, &crc.to_le_bytes());
    compiler_fence(Ordering::SeqCst);
    put_word(slot, DONE_AT, sequence);
    compiler_fence(Ordering::SeqCst);
}

fn copy_crc(copy: &[u8], length: usize) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&copy[..12]), &copy[COPY_HEAD_BYTES..COPY_HEAD_BYTES + length])
}

/// A word and its complement, so that a word that was cut short or flipped shows.
fn put_word(out: &mut [u8], at: usize, value: u64) {
    put(out, at, &value.to_le_bytes());
    put(out, at + 8, &(!value).to_le_bytes());
}

fn word_at(raw: &[u8], at: usize) -> Option<u64> {
    let value = u64_at(raw, at);
    (u64_at(raw, at + 8) == !value).then_some(value)
}

fn read_copy(slot: &[u8], copy_bytes: usize, copy: usize) -> Noted {
    let raw = &slot[COPIES_AT + copy * copy_bytes..][..copy_bytes];
    let (sequence, length) = (u64_at(raw, 0), u32_at(raw, 8) as usize);
    let is_whole = sequence > 0
        && sequence as usize % 2 == copy
        && length <= copy_bytes - COPY_HEAD_BYTES
        && copy_crc(raw, length) == u32_at(raw, 12);
    is_whole.then(|| (sequence, raw[COPY_HEAD_BYTES..COPY_HEAD_BYTES + length].to_vec()))
}

/// The newest whole position of a slot; says what is wrong if a newer one was lost.
fn read_note(slot: &[u8], copy_bytes: usize) -> std::result::Result<Noted, &'static str> {
    let newest = (0..2).filter_map(|copy| read_copy(slot, copy_bytes, copy)).max_by_key(|(sequence, _)| *sequence);
    let sequence = newest.as_ref().map_or(0, |(sequence, _)| *sequence);
    // A kill can cut short one word at most. `done` missing means that its note was complete.
    let least = word_at(slot, DONE_AT).or(word_at(slot, INTENT_AT));
    match least {
        None => Err("both words of a slot are damaged"),
        Some(least) if sequence < least => Err("the newest position of a split is damaged"),
        Some(_) => Ok(newest),
    }
}

/// Reads and checks a whole file.
fn read(path: &Path, raw: &[u8], state: u64) -> Result<(Shape, Vec<(Slot, Noted)>)> {
    let damaged = |at: usize, what: &str| Error::damaged(path, at as u64, what);
    let header: &[u8; HEADER_BYTES] = raw.first_chunk().ok_or_else(|| damaged(0, "the file ends too early"))?;
    if &header[..8] != MAGIC || !is_sealed(header) {
        return Err(damaged(0, "the checksum of the header does not match"));
    }
    let version = u32_at(header, 8);
    if version > POSITIONS_VERSION {
        let path = PathBuf::from(path);
        return Err(Error::NewerFormat { path, found: version, known: POSITIONS_VERSION });
    }
    let shape = Shape { slots: u32_at(header, 12) as usize, copy_bytes: u64_at(header, 16) as usize };
    if shape.slots > 2 * SLOTS_MAX || !(COPY_HEAD_BYTES..=2 * POSITION_BYTES_MAX).contains(&shape.copy_bytes) {
        return Err(damaged(12, "the header asks for more than there can be"));
    }
    if shape.file_bytes() != raw.len() {
        return Err(damaged(raw.len(), "the file has another length than its header says"));
    }
    if u64_at(header, 24) != state {
        return Err(damaged(24, "the file belongs to another state directory"));
    }
    let mut slots = Vec::new();
    let mut has_ended = false;
    for number in 0..shape.slots {
        let at = shape.slot_at(number);
        let slot = &raw[at..at + shape.slot_bytes()];
        if slot[..NAME_BYTES].iter().all(|byte| *byte == 0) {
            has_ended = true;
            if slot[COPIES_AT..].iter().any(|byte| *byte != 0) {
                return Err(damaged(at, "the name of a split is gone"));
            }
            continue;
        }
        let is_whole = crc32c::crc32c(&slot[..252]) == u32_at(slot, 252);
        if !is_whole && slot[COPIES_AT..].iter().all(|byte| *byte == 0) && u32_at(slot, 252) == 0 {
            // Cut short by a kill while it was made, before anything was noted in it.
            has_ended = true;
            continue;
        }
        let length = usize::from(u16_at(slot, 0));
        let name = slot.get(2..2 + length).filter(|_| length <= SLOT_NAME_BYTES_MAX);
        let name = name.and_then(|name| std::str::from_utf8(name).ok());
        let (Some(name), true, false) = (name, is_whole, has_ended) else {
            return Err(damaged(at, "the name of a split is damaged"));
        };
        let noted = read_note(slot, shape.copy_bytes).map_err(|what| damaged(at + INTENT_AT, what))?;
        let sequence = noted.as_ref().map_or(0, |(sequence, _)| *sequence);
        slots.push((Slot { name: name.to_owned(), sequence }, noted));
    }
    Ok((shape, slots))
}

fn limit(what: &str, size: usize, limit: usize) -> Result<()> {
    if size <= limit {
        return Ok(());
    }
    Err(Error::TooLarge { what: what.to_owned(), size: size as u64, limit: limit as u64 })
}

#[cfg(test)]
mod tests;
