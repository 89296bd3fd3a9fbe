//! The manifest: the file whose name makes a checkpoint exist. `docs/format/manifest.md` draws it.
//!
//! ```text
//! millstream manifest 1
//! { … JSON … }
//! crc32c 89abcdef
//! ```
//!
//! Text, because a person who looks into a state directory should be able to read it. The checksum covers every byte
//! before its own line, the version included, so that a version can be believed.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::segment::SegmentRef;

/// The version of the format of manifests that this program writes, and the newest that it reads.
pub const MANIFEST_VERSION: u32 = 1;
/// The largest manifest.
pub const MANIFEST_BYTES_MAX: u64 = 256 << 20;

const TITLE: &str = "millstream manifest ";
const TRAILER: &str = "crc32c ";
/// `crc32c 89abcdef\n`
const TRAILER_BYTES: usize = 16;
const PREFIX: &str = "manifest-";

/// All that a checkpoint is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The number of the checkpoint; numbers grow and are never used twice in a directory.
    pub id: u64,
    /// The state directory it belongs to.
    pub state: u64,
    /// When its barrier was sent, in microseconds since the Unix epoch.
    pub created: i64,
    /// The guarantee the job ran with: `exactly_once`, `at_least_once` or `none`.
    pub mode: String,
    /// What must be equal for a job to continue from here without a look at the single operators.
    pub plan_fingerprint: String,
    /// The version of Millstream that wrote it.
    pub version: String,
    /// Whether the job had come to its end.
    pub is_finished: bool,
    /// Whether the user asked for it and owns it.
    pub is_savepoint: bool,
    /// What is known of each operator, by the identity of its state.
    pub operators: BTreeMap<String, OperatorEntry>,
    /// All segments that are needed, oldest first.
    pub segments: Vec<SegmentRef>,
    /// Files of sinks in the state directory that handles refer to; in an object store only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileRef>,
    /// How many bytes all of it has.
    pub bytes: u64,
    /// How many of these were written for this checkpoint.
    pub new_bytes: u64,
    /// What else the job wants to keep, by name.
    pub notes: BTreeMap<String, String>,
}

/// An operator as a checkpoint knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorEntry {
    /// The name of the step.
    pub name: String,
    /// What must match for its state to be restored; readable, so that a mismatch can be shown.
    pub signature: String,
    /// How many instances there were.
    pub parallelism: u32,
    /// The first checkpoint that had it without a gap up to this one: blocks of older ones are of a former operator.
    pub since: u64,
    /// The parts of the signature that may come and go without the rest: the name of each, and what it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<(String, String)>,
}

/// A file of a sink as a manifest refers to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRef {
    /// The name within the directory, with that of the folder.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// The checksum of all its bytes.
    pub crc32c: u32,
}

impl Manifest {
    /// The name of the file of checkpoint `id`.
    pub fn file_name(id: u64) -> String {
        format!("{PREFIX}{id:020}")
    }

    /// The checkpoint that a file is the manifest of, by its name.
    pub fn id_of(file: &str) -> Option<u64> {
        crate::store::number(file.strip_prefix(PREFIX)?)
    }

    /// The manifest as it is in its file.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = format!("{TITLE}{MANIFEST_VERSION}\n").into_bytes();
        serde_json::to_writer_pretty(&mut out, self).expect("text and numbers always become JSON");
        out.push(b'\n');
        let crc = crc32c::crc32c(&out);
        out.extend(format!("{TRAILER}{crc:08x}\n").bytes());
        out
    }

    /// Reads the contents of a file; `path` is for messages.
    ///
    /// # Errors
    /// If the bytes are not those of a manifest that this program can read.
    pub fn decode(path: &Path, raw: &[u8]) -> Result<Manifest> {
        let damaged = |offset: usize, what: String| Error::damaged(path, offset as u64, what);
        if raw.len() as u64 > MANIFEST_BYTES_MAX {
            return Err(damaged(0, format!("a manifest of {} bytes is beyond reason", raw.len())));
        }
        let Some(end) = raw.len().checked_sub(TRAILER_BYTES) else {
            return Err(damaged(raw.len(), "the manifest ends too early".to_owned()));
        };
        let (covered, trailer) = raw.split_at(end);
        if trailer != format!("{TRAILER}{:08x}\n", crc32c::crc32c(covered)).as_bytes() {
            return Err(damaged(end, "the checksum of the manifest does not match".to_owned()));
        }
        let Some(line) = covered.iter().position(|byte| *byte == b'\n') else {
            return Err(damaged(0, "the manifest has no first line".to_owned()));
        };
        let version = std::str::from_utf8(&covered[..line])
            .ok()
            .and_then(|title| title.strip_prefix(TITLE))
            .and_then(|version| version.parse::<u32>().ok())
            .ok_or_else(|| damaged(0, "this is not a manifest".to_owned()))?;
        if version > MANIFEST_VERSION {
            return Err(Error::NewerFormat { path: path.to_path_buf(), found: version, known: MANIFEST_VERSION });
        }
        let manifest: Manifest = serde_json::from_slice(&covered[line + 1..])
            .map_err(|error| damaged(line + 1, format!("the manifest cannot be understood: {error}")))?;
        if let Some(segment) = manifest.segments.iter().find(|segment| !is_plain_name(&segment.file)) {
            return Err(damaged(line + 1, format!("{:?} is not the name of a segment", segment.file)));
        }
        match manifest.files.iter().find(|file| !is_plain_path(&file.name)) {
            Some(file) => Err(damaged(line + 1, format!("{:?} is not the name of a file of a sink", file.name))),
            None => Ok(manifest),
        }
    }

    /// Reads the manifest of checkpoint `id` in a directory.
    pub(crate) fn load(disk: &dyn Disk, dir: &Path, state: u64, id: u64) -> Result<Manifest> {
        let path = dir.join(Manifest::file_name(id));
        let raw = disk.map(&path).map_err(|error| Error::io("read", &path, error))?;
        let manifest = Manifest::decode(&path, &raw)?;
        if manifest.id != id {
            return Err(Error::damaged(&path, 0, format!("the file holds checkpoint {}", manifest.id)));
        }
        if manifest.state != state {
            return Err(Error::damaged(&path, 0, "the file belongs to another state directory"));
        }
        Ok(manifest)
    }
}

/// Whether a name stays within its directory.
fn is_plain_name(name: &str) -> bool {
    name.starts_with(crate::store::SEGMENT_PREFIX) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// Whether a name is that of a file in a folder of its directory.
pub(crate) fn is_plain_path(name: &str) -> bool {
    let is_plain = |part: &str| {
        !part.is_empty() && !part.starts_with('.') && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
    };
    name.split_once('/').is_some_and(|(folder, file)| is_plain(folder) && is_plain(file))
}

#[cfg(test)]
mod tests;
