//! The messages of `pgoutput`, PostgreSQL's own format of changes, in version 1: transactions one after the other, each as a whole
//! once it is committed.
//!
//! ```text
//!   Begin ─► (Relation, before the first change of a table and after each change of its columns) ─► Insert, Update, Delete … ─► Commit
//! ```
//!
//! Values are in binary form. One that was not changed and lies out of line (TOAST) is not sent.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A place in the log of the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(super) struct Lsn(pub(super) u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

impl FromStr for Lsn {
    type Err = String;

    fn from_str(text: &str) -> Result<Lsn, String> {
        let parts = text.split_once('/').map(|(high, low)| (u32::from_str_radix(high, 16), u32::from_str_radix(low, 16)));
        match parts {
            Some((Ok(high), Ok(low))) => Ok(Lsn(u64::from(high) << 32 | u64::from(low))),
            _ => Err(format!("{text:?} is no place in a log")),
        }
    }
}

impl From<Lsn> for String {
    fn from(lsn: Lsn) -> String {
        lsn.to_string()
    }
}

impl TryFrom<String> for Lsn {
    type Error = String;

    fn try_from(text: String) -> Result<Lsn, String> {
        text.parse()
    }
}

/// A message in a stream of changes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Streamed<'a> {
    /// What was decoded at this place.
    Data(Lsn, Message<'a>),
    /// How far the server is, and whether it waits for an answer.
    Alive(Lsn, bool),
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message<'a> {
    /// A transaction, by the place of its commit.
    Begin(Lsn),
    /// Its end, and what follows it in the log.
    Commit(Lsn),
    Relation(Relation),
    Insert(u32, Vec<Value<'a>>),
    /// With the former row or its key, if it was sent.
    Update(u32, Option<Vec<Value<'a>>>, Vec<Value<'a>>),
    /// With the former row or its key.
    Delete(u32, Vec<Value<'a>>),
    Truncate(Vec<u32>),
    /// What does not matter here: the names of types, where a transaction came from.
    Other,
}

/// A table as it was when something in it was changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Relation {
    pub(super) number: u32,
    pub(super) schema: String,
    pub(super) table: String,
    pub(super) columns: Vec<RelationColumn>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct RelationColumn {
    pub(super) name: String,
    pub(super) kind: u32,
    pub(super) modifier: i32,
}

/// A value of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Null,
    /// It lies out of line and was not changed, so it is not sent.
    Unchanged,
    /// As text, which a type without a binary form is sent as.
    Text,
    Binary(&'a [u8]),
}

/// Reads a message of the server; `None` if it has a form that is not known.
pub(super) fn read(data: &[u8]) -> Option<Streamed<'_>> {
    let mut rest = Rest(data);
    match rest.u8()? {
        b'w' => {
            let at = Lsn(rest.u64()?);
            rest.take(16)?;
            Some(Streamed::Data(at, message(rest)?))
        }
        b'k' => {
            let at = Lsn(rest.u64()?);
            rest.take(8)?;
            Some(Streamed::Alive(at, rest.u8()? != 0))
        }
        _ => None,
    }
}

/// What the server is told: what has come, and what will not be asked for again.
pub(super) fn status(received: Lsn, kept: Lsn, asks: bool) -> Vec<u8> {
    let mut out = vec![b'r'];
    for lsn in [received, kept, kept] {
        out.extend_from_slice(&lsn.0.to_be_bytes());
    }
    // The time is for those who look at the server; nothing depends on it.
    out.extend_from_slice(&[0; 8]);
    out.push(u8::from(asks));
    out
}

fn message(mut rest: Rest<'_>) -> Option<Message<'_>> {
    let message = match rest.u8()? {
        b'B' => {
            let at = Lsn(rest.u64()?);
            rest.take(12)?;
            Message::Begin(at)
        }
        b'C' => {
            rest.take(9)?;
            let end = Lsn(rest.u64()?);
            rest.take(8)?;
            Message::Commit(end)
        }
        b'R' => {
            let number = rest.u32()?;
            let (schema, table) = (rest.text()?, rest.text()?);
            rest.take(1)?;
            let count = rest.u16()?;
            let column = |rest: &mut Rest<'_>| {
                rest.take(1)?;
                let name = rest.text()?;
                Some(RelationColumn { name, kind: rest.u32()?, modifier: rest.u32()? as i32 })
            };
            let columns = (0..count).map(|_| column(&mut rest)).collect::<Option<_>>()?;
            // What is in the system's own schema has no name.
            Message::Relation(Relation { number, schema: if schema.is_empty() { "pg_catalog".to_owned() } else { schema }, table, columns })
        }
        b'I' => {
            let number = rest.u32()?;
            (rest.u8()? == b'N').then_some(())?;
            Message::Insert(number, rest.row()?)
        }
        b'U' => {
            let number = rest.u32()?;
            let (mut kind, mut former) = (rest.u8()?, None);
            if matches!(kind, b'K' | b'O') {
                former = Some(rest.row()?);
                kind = rest.u8()?;
            }
            (kind == b'N').then_some(())?;
            Message::Update(number, former, rest.row()?)
        }
        b'D' => {
            let number = rest.u32()?;
            matches!(rest.u8()?, b'K' | b'O').then_some(())?;
            Message::Delete(number, rest.row()?)
        }
        b'T' => {
            let count = rest.u32()?;
            rest.take(1)?;
            Message::Truncate((0..count).map(|_| rest.u32()).collect::<Option<_>>()?)
        }
        _ => return Some(Message::Other),
    };
    rest.0.is_empty().then_some(message)
}

/// What was not read yet.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(front)
    }

    fn fixed<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.fixed::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Option<u16> {
        self.fixed().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.fixed().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.fixed().map(u64::from_be_bytes)
    }

    fn text(&mut self) -> Option<String> {
        let end = self.0.iter().position(|byte| *byte == 0)?;
        let text = String::from_utf8(self.take(end)?.to_vec()).ok()?;
        self.take(1)?;
        Some(text)
    }

    fn row(&mut self) -> Option<Vec<Value<'a>>> {
        let count = self.u16()?;
        (0..count).map(|_| self.value()).collect()
    }

    fn value(&mut self) -> Option<Value<'a>> {
        let kind = self.u8()?;
        if kind == b'n' {
            return Some(Value::Null);
        }
        if kind == b'u' {
            return Some(Value::Unchanged);
        }
        let length = self.u32()? as usize;
        let bytes = self.take(length)?;
        match kind {
            b'b' => Some(Value::Binary(bytes)),
            b't' => Some(Value::Text),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(message: &[u8]) -> Vec<u8> {
        [b"w".as_slice(), &7u64.to_be_bytes(), &[0; 16], message].concat()
    }

    #[test]
    fn places_are_written_as_the_server_writes_them() {
        for (lsn, text) in [(Lsn(0), "0/0"), (Lsn(0x16_0000_00ff), "16/FF"), (Lsn(u64::MAX), "FFFFFFFF/FFFFFFFF")] {
            assert_eq!((lsn.to_string(), text.parse()), (text.to_owned(), Ok(lsn)));
        }
        for text in ["", "1", "x/1", "1/100000000"] {
            assert!(text.parse::<Lsn>().is_err(), "{text}");
        }
    }

    #[test]
    fn changes_are_read_and_those_that_are_cut_are_refused() {
        let row = [b"\0\x03n".as_slice(), b"u", b"b\0\0\0\x02hi"].concat();
        let values = || vec![Value::Null, Value::Unchanged, Value::Binary(b"hi")];
        let update = [b"U\0\0\0\x05K".as_slice(), &row, b"N", &row].concat();
        for (bytes, message) in [
            ([b"I\0\0\0\x05N".as_slice(), &row].concat(), Message::Insert(5, values())),
            (update, Message::Update(5, Some(values()), values())),
            ([b"U\0\0\0\x05N".as_slice(), &row].concat(), Message::Update(5, None, values())),
            ([b"D\0\0\0\x05O".as_slice(), &row].concat(), Message::Delete(5, values())),
            (b"T\0\0\0\x01\0\0\0\0\x05".to_vec(), Message::Truncate(vec![5])),
            ([b"C\0".as_slice(), &1u64.to_be_bytes(), &2u64.to_be_bytes(), &[0; 8]].concat(), Message::Commit(Lsn(2))),
            (
                b"R\0\0\0\x05s\0t\0d\0\x01\x01id\0\0\0\0\x14\xff\xff\xff\xff".to_vec(),
                Message::Relation(Relation {
                    number: 5,
                    schema: "s".to_owned(),
                    table: "t".to_owned(),
                    columns: vec![RelationColumn { name: "id".to_owned(), kind: 20, modifier: -1 }],
                }),
            ),
        ] {
            let whole = data(&bytes);
            assert_eq!(read(&whole), Some(Streamed::Data(Lsn(7), message)));
            for end in 26..whole.len() {
                assert_eq!(read(&whole[..end]), None, "{end} of {bytes:?}");
            }
            assert_eq!(read(&[whole, vec![0]].concat()), None);
        }
        assert_eq!(read(&data(b"Y\0\0")), Some(Streamed::Data(Lsn(7), Message::Other)));
    }

    #[test]
    fn a_sign_of_life_says_how_far_the_server_is() {
        let alive = [b"k".as_slice(), &9u64.to_be_bytes(), &[0; 8], &[1]].concat();
        assert_eq!(read(&alive), Some(Streamed::Alive(Lsn(9), true)));
        assert_eq!(status(Lsn(3), Lsn(2), true).len(), 34);
    }
}
