//! What a job that goes on from a checkpoint has to read: the files of the checkpoint as they are now, and new ones.
//!
//! | the checkpoint has | the file is | what happens |
//! | --- | --- | --- |
//! | read it to its end | as it was, or gone | nothing: it is no longer needed |
//! | read it to its end | longer, what was read as it was | what was appended is read |
//! | read it to its end | changed where it was read | bounded: refused; followed: read as a new file |
//! | not read it to its end | as it was, or longer | read on |
//! | not read it to its end | changed where it was read, or gone | refused |
//! | not begun it | gone | bounded: refused; followed: nothing |
//!
//! Whether it is as it was is decided by its stamp, and where that differs by fingerprints ([`identity`](super::identity)).
//! A followed file is looked for by what it is, then under its name: renamed by a rotation it is the same still.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use mill_protocol::{Error, Result, Split, SplitState};

use super::content::Compression;
use super::identity::{FileIdentity, Since};
use super::position::FilePosition;
use super::split::{FileSet, FileSplit};
use super::stamp::{FileKey, Stamp};
use super::whereabouts;

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
    /// The splits of a job that goes on; `listed` are those it would begin with.
    pub(crate) fn resume(&self, listed: Vec<Split>, left: Vec<SplitState>, growth: Growth) -> Result<Vec<SplitState>> {
        let mut known = Vec::with_capacity(left.len());
        for state in left {
            let file = FileSplit::of(&state.split)?;
            let position = match &state.position {
                Some(bytes) => Some(FilePosition::decode(bytes, &state.split.name)?),
                None => None,
            };
            known.push(Left { state, file, position });
        }
        if self.is_followed { self.resume_followed(known, growth) } else { self.resume_bounded(listed, known, growth) }
    }

    fn resume_bounded(&self, listed: Vec<Split>, mut left: Vec<Left>, growth: Growth) -> Result<Vec<SplitState>> {
        let known: HashSet<PathBuf> = left.iter().map(|left| left.file.path.clone()).collect();
        for left in &mut left {
            left.check(growth)?;
        }
        let mut all: Vec<(FileSplit, SplitState)> = left.into_iter().map(|left| (left.file, left.state)).collect();
        for split in listed {
            let file = FileSplit::of(&split)?;
            // A file that is known keeps the splits it has, whatever its size would make of it now.
            if !known.contains(&file.path) {
                all.push((file, SplitState::unread(split)));
            }
        }
        all.sort_by(|(a, _), (b, _)| (&a.path, a.range).cmp(&(&b.path, b.range)));
        Ok(all.into_iter().map(|(_, state)| state).collect())
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

fn is_same(path: &Path, position: &FilePosition, growth: Growth) -> bool {
    FileIdentity::open(path).and_then(|identity| identity.since_by(path, position, growth)).is_ok_and(|since| since == Since::Same)
}

impl Left {
    /// A file of a bounded input: must be there if it is still to be read, and be as it was where it was read.
    fn check(&mut self, growth: Growth) -> Result<()> {
        let path = &self.file.path;
        let metadata = match std::fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && self.state.is_ended => return Ok(()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(self.gone()),
            Err(e) => return Err(Error::connector(format!("cannot stat {path:?}: {e}")).because(e)),
        };
        let (Some(position), true) = (&self.position, self.state.is_ended) else { return Ok(()) };
        let stamp = Stamp::of(&metadata);
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
