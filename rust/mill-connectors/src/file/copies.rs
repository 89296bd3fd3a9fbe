//! Copies that a rotation makes of a followed file before it truncates the file.
//!
//! ```text
//!   app.log     aaaaaaaa|bbbb        the reader is at |
//!   app.log.1   aaaaaaaabbbb         the rotation copies the file …
//!   app.log     cc                   … and truncates it
//! ```
//!
//! If the copy is among the followed files, `a` must not be read twice, and `b` is not lost. So whoever finds that a file was
//! truncated looks for its copy, and leaves there how far the file had been read: the reader of the copy starts from that position.
//! A copy may be found before its original is truncated. Then its reader waits until that has happened, or until the copy has not
//! changed for some seconds: it is a file of its own then.
//!
//! A copy is known by its name, which a rotation makes of that of the original, and by its content: its first bytes, and those before
//! the position. Where that cannot be compared, it is read from its start, as any new file.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::content::Compression;
use super::identity::{FileIdentity, Since};
use super::input::{stamp_at, try_open};
use super::path::PathSpec;
use super::position::{FilePosition, PRINT_BYTES, Print};
use super::stamp::{FileKey, Stamp};
use super::whereabouts;

/// How many copies are known at most whose readers have not started.
const COPIES_MAX: usize = 10_000;
/// So many originals of a name are looked for at most.
const ORIGINALS_MAX: usize = 32;
/// How often a reader asks whether the original was truncated, while its copy does not change: about five seconds.
const LOOKS_MAX: u32 = 250;
/// The same once the original was truncated, and its reader has yet to find that out.
const LOOKS_AFTER_MAX: u32 = 3000;

/// The copies among the followed files of a source.
#[derive(Debug)]
pub(crate) struct Copies {
    paths: PathSpec,
    /// How far the original of a copy had been read.
    read: Mutex<HashMap<FileKey, FilePosition>>,
}

/// The copy of a file that was truncated.
#[derive(Debug)]
pub(super) struct RotatedCopy {
    pub(super) path: PathBuf,
    pub(super) size: u64,
    pub(super) is_followed: bool,
}

/// Where the reader of a new file starts.
#[derive(Debug)]
pub(super) enum Start {
    /// At the start of the file.
    First,
    /// At this position.
    At(FilePosition),
    /// Not yet: it may be a copy.
    NotYet,
}

/// A new file that is the same as another one so far.
#[derive(Debug)]
pub(super) struct Suspect {
    original: PathBuf,
    key: FileKey,
    /// Its size, and how much of it was compared with the original.
    size: u64,
    compared: u64,
    looks: u32,
}

impl Copies {
    pub(super) fn new(paths: PathSpec) -> Copies {
        Copies { paths, read: Mutex::default() }
    }

    fn read(&self) -> MutexGuard<'_, HashMap<FileKey, FilePosition>> {
        // A map that was being changed when a thread panicked holds what it held before, or after.
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A run begins: what is known is of another one.
    pub(super) fn clear(&self) {
        self.read().clear();
    }

    /// Looks for the copy of a file that was truncated after it had been read up to this position. If the copy is followed, its
    /// reader starts from there.
    pub(super) fn find(&self, path: &Path, position: &FilePosition) -> Option<RotatedCopy> {
        let name = path.file_name()?.to_str()?;
        let mut found: Option<RotatedCopy> = None;
        for candidate in whereabouts::names(path) {
            let is_named_so = candidate.to_str().is_some_and(|candidate| originals(candidate).any(|original| original == name));
            let candidate = path.with_file_name(candidate);
            if !is_named_so || Compression::of(&candidate) != Compression::None {
                continue;
            }
            let Ok(identity) = try_open(&candidate).map(|file| FileIdentity::new(&candidate, file)) else { continue };
            let Ok(stamp) = identity.stamp() else { continue };
            let is_copy = position.offset == 0 || is_copy(&identity, stamp.size, position);
            if !is_copy || stamp.size == 0 {
                continue;
            }
            let is_followed = self.paths.has(&candidate);
            if is_followed {
                let mut read = self.read();
                if read.len() < COPIES_MAX {
                    read.insert(stamp.key, *position);
                }
            }
            let is_whole = stamp.size >= position.offset;
            if is_whole && found.as_ref().is_none_or(|found| (is_followed, stamp.size) > (found.is_followed, found.size)) {
                found = Some(RotatedCopy { path: candidate, size: stamp.size, is_followed });
            }
        }
        found
    }

    /// Where the reader of a new file starts; `suspect` is what it knows of it from the last time it asked.
    pub(super) fn start(&self, path: &Path, identity: &FileIdentity, suspect: &mut Option<Suspect>) -> Start {
        let Ok(stamp) = identity.stamp() else { return Start::First };
        if let Some(position) = self.read().remove(&stamp.key) {
            let is_compared = suspect.as_ref().is_some_and(|suspect| suspect.compared == stamp.size);
            return start_at(identity, stamp, &position, is_compared);
        }
        match suspect {
            Some(suspect) => suspect.look(identity, stamp.size),
            None => match self.suspect(path, identity, stamp) {
                Some(found) => {
                    *suspect = Some(found);
                    Start::NotYet
                }
                None => Start::First,
            },
        }
    }

    /// The followed file that this one may be a copy of.
    fn suspect(&self, path: &Path, identity: &FileIdentity, stamp: Stamp) -> Option<Suspect> {
        originals(path.file_name()?.to_str()?).find_map(|name| {
            let original = path.with_file_name(name);
            let of_original = stamp_at(&original).ok().filter(|found| found.key != stamp.key)?;
            let is_same = stamp.size == 0 || is_beginning(identity, stamp.size, &original);
            let key = of_original.key;
            (is_same && self.paths.has(&original)).then_some(Suspect { original, key, size: stamp.size, compared: stamp.size, looks: 0 })
        })
    }
}

impl Suspect {
    fn look(&mut self, identity: &FileIdentity, size: u64) -> Start {
        let Some(original) = stamp_at(&self.original).ok().filter(|found| found.key == self.key) else { return Start::First };
        let has_changed = size != self.size;
        self.looks = if has_changed { 0 } else { self.looks.saturating_add(1) };
        self.size = size;
        let is_original = size == 0 || original.size >= size && is_beginning(identity, size, &self.original);
        if is_original {
            self.compared = size;
        }
        match is_original {
            true if self.looks < LOOKS_MAX => Start::NotYet,
            // Nothing of it was ever compared with the original, or more has come that is not the original's.
            false if self.compared == 0 || has_changed && original.size >= size => Start::First,
            false if self.looks < LOOKS_AFTER_MAX => Start::NotYet,
            _ => Start::First,
        }
    }
}

/// Where a copy is read from, of which the original had been read up to this position. `is_compared`: all of the copy was in the original.
fn start_at(identity: &FileIdentity, stamp: Stamp, position: &FilePosition, is_compared: bool) -> Start {
    if position.offset == 0 {
        return Start::First;
    }
    let offset = if is_compared { position.offset.min(stamp.size) } else { position.offset };
    let tail = offset.min(PRINT_BYTES as u64) as u32;
    let at = |tail: Print| FilePosition { offset, known: offset, head: position.head, tail, stamp: Stamp::default(), ..FilePosition::default() };
    if offset == position.offset && identity.since(&at(position.tail), false).is_ok_and(|since| since == Since::Same) {
        return Start::At(at(position.tail));
    }
    match identity.print(offset.saturating_sub(u64::from(tail)), tail).filter(|_| is_compared) {
        Some(print) => Start::At(FilePosition { head: identity.head(offset), ..at(print) }),
        None => Start::First,
    }
}

/// Whether a file has what had been read of another one up to this position, as far as it goes.
fn is_copy(identity: &FileIdentity, size: u64, position: &FilePosition) -> bool {
    if size < u64::from(position.head.bytes) || position.head.bytes == 0 {
        return false;
    }
    match size >= position.offset {
        true => identity.since(&FilePosition { stamp: Stamp::default(), ..*position }, false).is_ok_and(|since| since == Since::Same),
        false => identity.print(0, position.head.bytes) == Some(position.head),
    }
}

/// Whether all of a file, as far as its first and last bytes tell, is what another one begins with.
fn is_beginning(identity: &FileIdentity, size: u64, of: &Path) -> bool {
    let Ok(other) = try_open(of).map(|file| FileIdentity::new(of, file)) else { return false };
    let bytes = size.min(PRINT_BYTES as u64) as u32;
    let is_same = |start: u64| match (identity.print(start, bytes), other.print(start, bytes)) {
        (Some(here), Some(there)) => here == there,
        _ => false,
    };
    is_same(0) && is_same(size - u64::from(bytes))
}

/// The names of files that a rotation may have made this name of: `app.log` of `app.log.1`, `app-20240131.log` and `app.log-20240131`.
fn originals(name: &str) -> impl Iterator<Item = String> + '_ {
    let extension = name.rfind('.').map(|dot| &name[dot..]);
    let stems = name.match_indices(['.', '-', '_']).map(|(at, _)| &name[..at]).filter(|stem| !stem.is_empty());
    stems
        .flat_map(move |stem| [Some(stem.to_owned()), extension.map(|extension| format!("{stem}{extension}"))])
        .flatten()
        .filter(move |original| original != name)
        .take(ORIGINALS_MAX)
}

#[cfg(test)]
mod tests;
