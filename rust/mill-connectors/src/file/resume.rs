//! What a job that continues from a checkpoint has to read: the files of the checkpoint as they are now, and new ones.
//!
//! | the checkpoint has | the file is | what happens |
//! | --- | --- | --- |
//! | read it to its end | as it was, or gone | nothing: it is no longer needed |
//! | read it to its end | longer, what was read as it was | what was appended is read |
//! | read it to its end | changed where it was read | bounded: refused; followed: truncated, read from its start |
//! | not read it to its end | as it was, or longer | read on |
//! | not read it to its end | changed where it was read | bounded: refused; followed: truncated, read from its start |
//! | not read it to its end | gone | refused |
//! | not begun it | gone | bounded: refused; followed: nothing |
//! | not begun it | there, and named no more by a bounded input | it is not read |
//! | read some of it, and not all | there, and named no more by a bounded input | refused |
//!
//! Whether it is as it was is decided by its stamp, and where that differs by fingerprints ([`identity`](super::identity)).
//! A followed file is looked for by what it is, then under its name: renamed by a rotation it is the same still. A file of a
//! bounded input that is no longer under its name is looked for by what it is among those that are new, so that a directory
//! may be moved with all that is in it. Paths are compared as the files they lead to, never as they were written. An input
//! that has nothing in common with the one in the checkpoint is refused.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use mill_protocol::{Error, Result, Split, SplitState};

use super::content::Compression;
use super::identity::{FileIdentity, Since};
use super::input::stamp_at;
use super::path::Places;
use super::position::FilePosition;
use super::split::{FileSet, FileSplit};
use super::stamp::{FileKey, Stamp};
use super::whereabouts;
use crate::object::is_object;

/// At most so many files and directories of a checkpoint are compared with those that are named.
const FILES_COMPARED_MAX: usize = 1000;
const DIRECTORIES_COMPARED_MAX: usize = 1000;

/// How a format's files change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Growth {
    /// By lines that are appended.
    Lines,
    /// Not at all: they are written as a whole.
    None,
}

struct Left {
    state: SplitState,
    file: FileSplit,
    position: Option<FilePosition>,
}

impl FileIdentity {
    /// What became of a file of this kind since this position.
    pub(crate) fn since_by(&self, path: &Path, position: &FilePosition, growth: Growth) -> Result<Since> {
        match growth {
            Growth::Lines => self.since(position, Compression::of(path) != Compression::None),
            Growth::None => self.whole_since(position),
        }
    }
}

impl FileSet {
    /// The splits of a job that continues; `listed` are those it would begin with.
    pub(crate) fn resume(&self, listed: Vec<Split>, left: Vec<SplitState>, growth: Growth) -> Result<Vec<SplitState>> {
        if self.is_pipe() {
            // What was read is gone, and what comes now is another input.
            return Ok(listed.into_iter().map(SplitState::unread).collect());
        }
        let mut known = Vec::with_capacity(left.len());
        let mut places = Places::default();
        for state in left {
            let file = FileSplit::of(&state.split)?;
            let position = match &state.position {
                Some(bytes) => Some(FilePosition::decode(bytes, &state.split.name)?),
                None => None,
            };
            let path = places.of(&file.path);
            let mut left = Left { state, file, position };
            if left.file.path != path {
                left.is_now_at(path);
            }
            known.push(left);
        }
        if self.is_followed { self.resume_followed(known, growth) } else { self.resume_bounded(listed, known, growth) }
    }

    fn resume_bounded(&self, listed: Vec<Split>, mut left: Vec<Left>, growth: Growth) -> Result<Vec<SplitState>> {
        let listed = listed.into_iter().map(|split| Ok((FileSplit::of(&split)?, split))).collect::<Result<Vec<_>>>()?;
        let names: HashSet<PathBuf> = left.iter().map(|left| left.file.path.clone()).collect();
        let (mut known, mut gone) = (HashSet::new(), HashSet::new());
        for path in names {
            match real_file(&path) {
                Some(real) => known.insert(real),
                None => gone.insert(path),
            };
        }
        let new: HashSet<&Path> =
            listed.iter().map(|(file, _)| file.path.as_path()).filter(|path| !known.contains(self.real(path))).collect();
        if !gone.is_empty() && !new.is_empty() {
            let moved = moved(&gone, &new, &left, growth);
            for left in &mut left {
                if let Some(path) = moved.get(&left.file.path) {
                    left.is_now_at((*path).to_owned());
                }
            }
            known.extend(moved.values().map(|path| self.real(path).to_owned()));
        }
        // Where a file of the checkpoint is listed, or would be, it is the same input.
        let is_listed = listed.iter().any(|(file, _)| known.contains(self.real(&file.path)));
        if !is_listed && !new.is_empty() {
            self.refuse_another(&left)?;
        }
        self.leave_out(&mut left, &listed)?;
        for left in &mut left {
            left.check(growth)?;
        }
        let mut all: Vec<(FileSplit, SplitState)> = left.into_iter().map(|left| (left.file, left.state)).collect();
        for (file, split) in listed {
            // A file that is known keeps the splits it has, whatever its size would make of it now.
            if !known.contains(self.real(&file.path)) {
                all.push((file, SplitState::unread(split)));
            }
        }
        all.sort_by(|(a, _), (b, _)| (&a.path, a.range).cmp(&(&b.path, b.range)));
        Ok(all.into_iter().map(|(_, state)| state).collect())
    }

    /// Leaves out files that were not begun and that the input names no more.
    fn leave_out(&self, left: &mut Vec<Left>, listed: &[(FileSplit, Split)]) -> Result<()> {
        let here: HashSet<&Path> = listed.iter().map(|(file, _)| self.real(&file.path)).collect();
        let is_named = |path: &Path| here.contains(self.real(path)) || self.paths.has(path);
        let unnamed: HashSet<PathBuf> =
            left.iter().filter(|left| !left.state.is_ended && !is_named(&left.file.path)).map(|left| left.file.path.clone()).collect();
        let is_begun = |left: &&Left| unnamed.contains(&left.file.path) && (left.state.is_ended || left.position.is_some());
        if let Some(begun) = left.iter().find(is_begun) {
            return Err(Error::checkpoint(format!(
                "the checkpoint has read a part of {:?}, which {} does not name any more; name it until it is read to its end, or start over \
                 with mill.Checkpoint(…, restart=True)",
                begun.file.path, self.paths
            )));
        }
        left.retain(|left| !unnamed.contains(&left.file.path));
        Ok(())
    }

    /// Refuses to continue where no file of the checkpoint is one that is named now: records of two inputs would be mixed, or,
    /// if the one is a copy of the other, read twice.
    fn refuse_another(&self, left: &[Left]) -> Result<()> {
        let Some(first) = left.first() else { return Ok(()) };
        let mut directories = HashSet::new();
        // Of files in one directory one decides: whether another is named can only differ by its name.
        let mut some = left.iter().filter(|left| directories.insert(left.file.path.parent())).take(DIRECTORIES_COMPARED_MAX);
        if some.any(|left| self.paths.has(&left.file.path)) || left.iter().take(FILES_COMPARED_MAX).any(|left| self.paths.has(&left.file.path)) {
            return Ok(());
        }
        Err(Error::checkpoint(format!(
            "the checkpoint is of another input: it has read {:?}, which {} does not name; read what the job has read before, \
             or start with another checkpoint directory",
            first.file.path, self.paths
        )))
    }

    fn resume_followed(&self, mut left: Vec<Left>, growth: Growth) -> Result<Vec<SplitState>> {
        let there = self.followed()?;
        let by_key: HashMap<FileKey, usize> = there.iter().enumerate().map(|(at, (_, stamp))| (stamp.key, at)).collect();
        let mut taken: HashSet<usize> = HashSet::new();
        let mut found: Vec<Option<usize>> = Vec::with_capacity(left.len());
        for left in &left {
            let at = left.file.key.and_then(|key| by_key.get(&key)).copied();
            found.push(at.filter(|&at| taken.insert(at)));
        }
        // What is not found so was copied or restored from elsewhere, if it is under its name or of its number and all that
        // was read of it is there.
        let mut by_name: HashMap<&Path, Vec<usize>> = HashMap::new();
        let mut by_inode: HashMap<u64, Vec<usize>> = HashMap::new();
        for (at, (path, stamp)) in there.iter().enumerate().filter(|(at, _)| !taken.contains(at)) {
            by_name.entry(path).or_default().push(at);
            by_inode.entry(stamp.key.inode).or_default().push(at);
        }
        for (left, found) in left.iter().zip(&mut found).filter(|(_, found)| found.is_none()) {
            let Some(position) = &left.position else { continue };
            let of_inode = left.file.key.and_then(|key| by_inode.get(&key.inode));
            for &at in of_inode.into_iter().chain(by_name.get(left.file.path.as_path())).flatten() {
                if !taken.contains(&at) && is_same(&there[at].0, position, growth) {
                    taken.insert(at);
                    *found = Some(at);
                    break;
                }
            }
        }
        if found.iter().all(Option::is_none) && !there.is_empty() {
            self.refuse_another(&left)?;
        }
        if taken.len() < there.len() {
            // One that is new may be the copy of one that was truncated.
            for (left, at) in left.iter().zip(&found).filter_map(|(left, found)| Some((left, (*found)?))) {
                let (path, stamp) = &there[at];
                let Some(position) = &left.position else { continue };
                let has_changed = (position.stamp.size, position.stamp.changed) != (stamp.size, stamp.changed);
                if has_changed && growth == Growth::Lines && !is_same(path, position, growth) {
                    self.copies.find(path, position);
                }
            }
        }
        let mut states = Vec::with_capacity(there.len());
        let mut generations: HashMap<PathBuf, u32> = HashMap::new();
        let mut inodes = HashMap::new();
        for (left, found) in left.drain(..).zip(found) {
            let generation = generations.entry(left.file.path.clone()).or_default();
            *generation = (*generation).max(left.file.generation + 1);
            match found {
                Some(at) => states.push(left.found(&there[at].0, there[at].1)),
                None if left.state.is_ended => {}
                None if left.is_elsewhere(&mut inodes) => states.push(left.state),
                None if left.is_done() => {}
                None => return Err(left.gone()),
            }
        }
        for (at, (path, stamp)) in there.into_iter().enumerate() {
            if !taken.contains(&at) {
                let generation = generations.get(&path).copied().unwrap_or(0);
                let file = FileSplit { path, range: None, generation, key: Some(stamp.key) };
                states.push(SplitState::unread(file.to_split()));
            }
        }
        Ok(states)
    }
}

/// The file that a path in a real directory leads to; `None` if there is none.
fn real_file(path: &Path) -> Option<PathBuf> {
    if is_object(path) {
        return match stamp_at(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            _ => Some(path.to_owned()),
        };
    }
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_symlink() => path.canonicalize().ok(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
        _ => Some(path.to_owned()),
    }
}

/// Where files that are gone from their place are among new ones: by what they are, and where nothing is known of one that
/// was not begun, under its name in the directory to which others have moved.
fn moved<'a>(
    gone: &HashSet<PathBuf>,
    new: &HashSet<&'a Path>,
    left: &[Left],
    growth: Growth,
) -> HashMap<PathBuf, &'a Path> {
    let key_of = |path: &&'a Path| Some((stamp_at(path).ok()?.key, *path));
    let by_key: HashMap<FileKey, &Path> = new.iter().filter_map(key_of).collect();
    let mut moved: HashMap<PathBuf, &Path> = HashMap::new();
    let mut directories: HashMap<&Path, &Path> = HashMap::new();
    for left in left.iter().filter(|left| gone.contains(&left.file.path)) {
        let Some(position) = &left.position else { continue };
        let Some(&path) = by_key.get(&position.stamp.key) else { continue };
        if is_same(path, position, growth) {
            moved.insert(left.file.path.clone(), path);
            if let (Some(from), Some(to)) = (left.file.path.parent(), path.parent()) {
                directories.insert(from, to);
            }
        }
    }
    for left in left.iter().filter(|left| gone.contains(&left.file.path) && left.position.is_none()) {
        let (Some(from), Some(name)) = (left.file.path.parent(), left.file.path.file_name()) else { continue };
        let to = directories.get(from).map(|to| to.join(name));
        if let Some(&path) = to.and_then(|to| new.get(to.as_path())) {
            moved.entry(left.file.path.clone()).or_insert(path);
        }
    }
    moved
}

fn is_same(path: &Path, position: &FilePosition, growth: Growth) -> bool {
    FileIdentity::open(path).and_then(|identity| identity.since_by(path, position, growth)).is_ok_and(|since| since == Since::Same)
}

impl Left {
    /// The same split under the path that its file has now. Another path is no other identity.
    fn is_now_at(&mut self, path: PathBuf) {
        self.file.path = path;
        self.state.split = Split { id: self.state.split.id, ..self.file.to_split() };
    }

    /// A file of a bounded input: must be there if it is still to be read, and be as it was where it was read.
    fn check(&mut self, growth: Growth) -> Result<()> {
        let path = &self.file.path;
        let stamp = match stamp_at(path) {
            Ok(stamp) => stamp,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && self.state.is_ended => return Ok(()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(self.gone()),
            Err(e) => return Err(Error::connector(format!("cannot stat {path:?}: {e}")).because(e)),
        };
        let (Some(position), true) = (&self.position, self.state.is_ended) else { return Ok(()) };
        if stamp == position.stamp {
            return Ok(());
        }
        if let Some(error) = FileIdentity::open(path)?.since_by(path, position, growth)?.refused(path) {
            return Err(error);
        }
        let has_grown = growth == Growth::Lines && stamp.size > position.stamp.size;
        self.state.is_ended = !(has_grown && self.file.is_to_the_end());
        Ok(())
    }

    /// Whether nothing is missing if the file is gone.
    fn is_done(&self) -> bool {
        self.state.is_ended || self.position.as_ref().is_none_or(|position| position.is_at_end)
    }

    /// A followed file, which is under this name now.
    fn found(mut self, path: &Path, stamp: Stamp) -> SplitState {
        let has_changed = self
            .position
            .as_ref()
            .is_none_or(|position| (position.stamp.size, position.stamp.changed) != (stamp.size, stamp.changed));
        self.file = FileSplit { path: path.to_owned(), key: Some(stamp.key), ..self.file };
        // Another name is no other identity.
        let split = Split { id: self.state.split.id, ..self.file.to_split() };
        SplitState { split, is_ended: self.state.is_ended && !has_changed, ..self.state }
    }

    /// Whether a followed file that is not among those that are followed is still in the directory where it was. `inodes` is
    /// what is known of directories.
    fn is_elsewhere(&self, inodes: &mut HashMap<PathBuf, HashSet<u64>>) -> bool {
        let Some(key) = self.file.key else { return false };
        let directory = self.file.path.parent().unwrap_or(Path::new("")).to_owned();
        let known = inodes.entry(directory).or_insert_with_key(|directory| whereabouts::inodes(directory));
        known.contains(&key.inode) && whereabouts::find(&self.file.path, key).is_some()
    }

    fn gone(&self) -> Error {
        let name = &self.state.split.name;
        match self.position.as_ref().filter(|position| position.offset > 0) {
            Some(position) => Error::checkpoint(format!(
                "the checkpoint is in the middle of {name:?} ({} of {} were read), which is gone; put it back, or start with \
                 another checkpoint directory",
                position.offset, position.known
            )),
            None => Error::checkpoint(format!(
                "{name:?}, which the job had yet to read, is gone; put it back, or start with another checkpoint directory"
            )),
        }
    }
}
