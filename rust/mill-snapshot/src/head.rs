//! The head of a place in an object store: which checkpoints exist there, and who may add one.
//!
//! It is the only object that changes, and each change is conditional on the version before. So all changes have one order,
//! and a job that has not seen the newest change cannot make the next: a job that lost its lease publishes nothing more,
//! however long its requests were in flight. `docs/format/store.md` draws it.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The name of the object.
pub const HEAD: &str = "MILLSTREAM";
/// The version of its format that this program writes, and the newest that it reads.
pub const HEAD_VERSION: u32 = 1;

const TITLE: &str = "millstream head ";
const TRAILER: &str = "crc32c ";
const TRAILER_BYTES: usize = TRAILER.len() + 9;

/// What the head says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The identity of the place, which all of its files carry.
    pub state: u64,
    /// The identity that it had before it started over; 0 if it never did.
    pub former: u64,
    /// The checkpoints that exist, oldest first. A manifest that is not listed is none.
    pub checkpoints: Vec<u64>,
    /// The newest checkpoint whose output is known to be committed; 0 for none.
    pub settled: u64,
    /// Who works here, if anybody.
    pub lease: Option<Lease>,
}

/// The right to publish checkpoints, as long as it is renewed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Who has it.
    pub holder: Holder,
    /// The run that has it; no other run has this number.
    pub run: u64,
    /// Grows with every change of the head: as long as it does, the holder lives.
    pub renewals: u64,
}

/// A process that works at a place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The name of its machine.
    pub host: String,
    /// What tells one start of the machine from another, as far as that is known.
    pub boot: String,
    /// In which of the machine's spaces of processes it has its number, as far as that is known.
    pub space: String,
    /// Its number.
    pub pid: u32,
    /// When it was started, in what the system counts; 0 if that is not known.
    pub started: u64,
}

impl Head {
    /// The newest checkpoint; 0 for none.
    pub fn published(&self) -> u64 {
        self.checkpoints.last().copied().unwrap_or(0)
    }

    /// The head as it is stored.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = format!("{TITLE}{HEAD_VERSION}\n").into_bytes();
        serde_json::to_writer_pretty(&mut out, self).expect("text and numbers always become JSON");
        out.push(b'\n');
        let crc = crc32c::crc32c(&out);
        out.extend(format!("{TRAILER}{crc:08x}\n").bytes());
        out
    }

    /// Reads what is stored; `url` is for messages.
    ///
    /// # Errors
    /// If the bytes are not those of a head that this program can read.
    pub fn decode(url: &str, raw: &[u8]) -> Result<Head> {
        let path = std::path::PathBuf::from(format!("{url}/{HEAD}"));
        let damaged = |what: &str| Error::damaged(&path, 0, what);
        let Some((covered, trailer)) = raw.len().checked_sub(TRAILER_BYTES).map(|end| raw.split_at(end)) else {
            return Err(damaged("it ends too early"));
        };
        if trailer != format!("{TRAILER}{:08x}\n", crc32c::crc32c(covered)).as_bytes() {
            return Err(damaged("its checksum does not match"));
        }
        let line = covered.iter().position(|byte| *byte == b'\n').unwrap_or(0);
        let version = std::str::from_utf8(&covered[..line]).ok().and_then(|title| title.strip_prefix(TITLE)?.parse::<u32>().ok());
        match version {
            None => Err(damaged("it is not the head of checkpoints")),
            Some(found) if found > HEAD_VERSION => Err(Error::NewerFormat { path, found, known: HEAD_VERSION }),
            Some(_) => serde_json::from_slice(&covered[line + 1..]).map_err(|error| damaged(&format!("it cannot be understood: {error}"))),
        }
    }
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {} on host {:?}", self.pid, self.host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_as_it_was_written() {
        let holder = Holder { host: "a".to_owned(), pid: 7, ..Holder::default() };
        let lease = Some(Lease { holder, run: u64::MAX, renewals: 3 });
        let head = Head { state: u64::MAX, former: 1, checkpoints: vec![4, 9], settled: 4, lease };
        let raw = head.encode();
        assert_eq!(Head::decode("s3://b/p", &raw).unwrap(), head);
        assert_eq!(head.published(), 9);
        for at in 0..raw.len() {
            let mut broken = raw.clone();
            broken[at] ^= 1;
            assert!(Head::decode("s3://b/p", &broken).is_err(), "byte {at}");
            assert!(Head::decode("s3://b/p", &raw[..at]).is_err(), "cut at {at}");
        }
        let newer = String::from_utf8(raw).unwrap().replace("head 1", "head 2");
        let covered = &newer[..newer.len() - TRAILER_BYTES];
        let newer = format!("{covered}{TRAILER}{:08x}\n", crc32c::crc32c(covered.as_bytes()));
        assert!(matches!(Head::decode("s3://b/p", newer.as_bytes()), Err(Error::NewerFormat { found: 2, .. })));
    }
}
