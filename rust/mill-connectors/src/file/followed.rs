//! The files that turn up, grow or are rewritten while they are followed.
//!
//! A file is known by what it is, not by its name: renamed, it is the file of the same split still; another one under a
//! known name is the next generation of that name, a split of its own. So is an object that replaces one: objects do not grow.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use mill_protocol::{Discovery, Result, Split, SplitState};

use super::position::FilePosition;
use super::split::{FileSet, FileSplit};
use super::stamp::{FileKey, Stamp};
use crate::looking::Looking;

/// How often a store is asked for new objects.
const OBJECTS_INTERVAL: Duration = Duration::from_secs(1);

pub(super) struct Followed {
    files: FileSet,
    known: HashMap<FileKey, Known>,
    /// How many files have been known by a name.
    generations: HashMap<PathBuf, u32>,
    looks: u64,
}

struct Known {
    split: Split,
    /// Size and time of change, as last seen.
    stamp: Stamp,
    /// The look that last found it.
    look: u64,
    is_gone: bool,
}

impl FileSet {
    /// What looks for more than the files that a run has begun with.
    pub(crate) fn discovery(&self, begun_with: &[SplitState]) -> Result<Option<Box<dyn Discovery>>> {
        if self.is_pipe() {
            return Ok(None);
        }
        let mut followed =
            Followed { files: self.clone(), known: HashMap::new(), generations: HashMap::new(), looks: 0 };
        for state in begun_with {
            let file = FileSplit::of(&state.split)?;
            let generations = followed.generations.entry(file.path).or_default();
            *generations = (*generations).max(file.generation + 1);
            let Some(key) = file.key else { continue };
            let stamp = match &state.position {
                Some(position) => FilePosition::decode(position, &state.split.name)?.stamp,
                None => Stamp::default(),
            };
            followed.known.insert(key, Known { split: state.split.clone(), stamp, look: 0, is_gone: false });
        }
        if self.may_change() {
            return Ok(Some(Box::new(followed)));
        }
        let looking = Looking::start("mill-object-look", OBJECTS_INTERVAL, move || followed.new_objects())?;
        Ok(Some(Box::new(looking)))
    }
}

impl Followed {
    /// The objects that are new, and those that have replaced others.
    fn new_objects(&mut self) -> Result<Vec<Split>> {
        self.looks += 1;
        let mut found = Vec::new();
        for (path, stamp) in self.files.followed()? {
            if let Some(known) = self.known.get_mut(&stamp.key) {
                known.look = self.looks;
                continue;
            }
            let generations = self.generations.entry(path.clone()).or_default();
            let split = FileSplit { path, range: None, generation: *generations, key: Some(stamp.key) }.to_split();
            *generations += 1;
            self.known.insert(stamp.key, Known { split: split.clone(), stamp, look: self.looks, is_gone: false });
            found.push(split);
        }
        self.known.retain(|_, known| known.look == self.looks);
        Ok(found)
    }
}

impl Discovery for Followed {
    fn look(&mut self) -> Result<Vec<Split>> {
        self.looks += 1;
        let mut found = Vec::new();
        for (path, stamp) in self.files.followed()? {
            if let Some(known) = self.known.get_mut(&stamp.key) {
                known.look = self.looks;
                if known.is_gone || (known.stamp.size, known.stamp.changed) != (stamp.size, stamp.changed) {
                    known.stamp = stamp;
                    known.is_gone = false;
                    found.push(known.split.clone());
                }
                continue;
            }
            let generations = self.generations.entry(path.clone()).or_default();
            let split = FileSplit { path, range: None, generation: *generations, key: Some(stamp.key) }.to_split();
            *generations += 1;
            self.known.insert(stamp.key, Known { split: split.clone(), stamp, look: self.looks, is_gone: false });
            found.push(split);
        }
        // The reader of a file that is gone is asked once more: that it has ended holds time back no longer.
        for known in self.known.values_mut().filter(|known| known.look < self.looks && !known.is_gone) {
            known.is_gone = true;
            found.push(known.split.clone());
        }
        Ok(found)
    }
}
