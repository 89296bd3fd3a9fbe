//! The description of a step's states, as a checkpoint has it. Little-endian.
//!
//! ```text
//!   "MSTB"  version u8 = 1
//!   encodings u8, each:  version u8, bytes of the name u16, name     all that occur in blocks; each must be as it is here
//!   states u16, each:    number u16, kind u8 (1 rows by key, 2 rows in order of time, 3 entries per key),
//!                        bytes of the name u16, name
//! ```

use super::Kind;
use crate::error::{Result, StateError};
use crate::{image, sorted};

const MAGIC: &[u8; 4] = b"MSTB";
const VERSION: u8 = 1;
/// The encodings that blocks consist of, with the versions that this build writes and reads: chunks of rows, rows in order,
/// the bytes and words of keys, and the rows of the `arrow-row` crate.
const ENCODINGS: [(&str, u8); 4] =
    [("rows by key", image::VERSION as u8), ("sorted rows", sorted::VERSION as u8), ("keys", 2), ("Arrow rows", 1)];

pub(super) struct Description {
    states: Vec<(String, u16, Kind)>,
}

impl Description {
    pub(super) fn of<'s>(states: impl Iterator<Item = (&'s str, u16, Kind)>) -> Description {
        Description { states: states.map(|(name, number, kind)| (name.to_owned(), number, kind)).collect() }
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.states.iter().map(|(name, ..)| name.as_str())
    }

    pub(super) fn find(&self, wanted: &str) -> Option<(u16, Kind)> {
        self.states.iter().find(|(name, ..)| name == wanted).map(|&(_, number, kind)| (number, kind))
    }

    pub(super) fn write(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        let put_name = |out: &mut Vec<u8>, name: &str| {
            out.extend(u16::try_from(name.len()).expect("the name of a state is short").to_le_bytes());
            out.extend(name.as_bytes());
        };
        out.extend([VERSION, ENCODINGS.len() as u8]);
        for (name, version) in ENCODINGS {
            out.push(version);
            put_name(&mut out, name);
        }
        out.extend((self.states.len() as u16).to_le_bytes());
        for (name, number, kind) in &self.states {
            out.extend(number.to_le_bytes());
            out.push(*kind as u8);
            put_name(&mut out, name);
        }
        out
    }

    pub(super) fn read(bytes: &[u8]) -> Result<Description> {
        let mut reader = Reader { rest: bytes };
        if reader.take(MAGIC.len())? != MAGIC {
            return Err(damaged("it does not describe states"));
        }
        check("description of states", reader.u8()?, VERSION)?;
        let encodings = reader.u8()?;
        let mut found = Vec::new();
        for _ in 0..encodings {
            let version = reader.u8()?;
            found.push((reader.name()?, version));
        }
        for (name, version) in &found {
            let known = ENCODINGS.iter().find(|(known, _)| known == name).map_or(0, |&(_, version)| version);
            check(name, *version, known)?;
        }
        for (name, version) in ENCODINGS {
            let has = found.iter().find(|(found, _)| found == name).map_or(0, |&(_, version)| version);
            check(name, has, version)?;
        }
        let mut states: Vec<(String, u16, Kind)> = Vec::new();
        for _ in 0..reader.u16()? {
            let number = reader.u16()?;
            let kind = match reader.u8()? {
                1 => Kind::Keyed,
                2 => Kind::Ordered,
                3 => Kind::MultiMap,
                kind => return Err(damaged(&format!("there is no kind {kind} of state"))),
            };
            let name = reader.name()?;
            if states.iter().any(|(other, of_other, _)| *other == name || *of_other == number) {
                return Err(damaged(&format!("state {name:?} or its number occurs twice")));
            }
            states.push((name, number, kind));
        }
        if reader.rest.is_empty() { Ok(Description { states }) } else { Err(damaged("bytes follow its end")) }
    }
}

fn check(of: &str, found: u8, expected: u8) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(StateError::Encoding { of: of.to_owned(), found: found.into(), expected: expected.into() })
}

fn damaged(what: &str) -> StateError {
    StateError::Description(format!("it is damaged: {what}"))
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or_else(|| damaged("it ends too early"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn u8(&mut self) -> Result<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn u16(&mut self) -> Result<u16> {
        self.take(2).map(|bytes| u16::from_le_bytes([bytes[0], bytes[1]]))
    }

    fn name(&mut self) -> Result<String> {
        let length = self.u16()?;
        let bytes = self.take(length.into())?;
        String::from_utf8(bytes.to_vec()).map_err(|_| damaged("a name is not text"))
    }
}
