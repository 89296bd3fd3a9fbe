//! How far the changes of a table were read: what a checkpoint keeps of them.
//!
//! ```json
//!   {"system": "74…", "table": 16384, "lsn": "0/16B3748", "parts": [{"to": {"by": ["id"], "at": ["17"]}, "point": "0/16B3748"}],
//!    "snapshot": {"point": "0/16B3800", "at": {"by": ["id"], "at": ["20"]}}}
//!   {"system": "74…", "table": 16384, "lsn": "0/16B3900", "within": {"commit": "0/16B3A00", "at": "0/16B3950"},
//!    "parts": [{"point": "0/16B3748"}]}
//! ```
//!
//! A table is read in the order of its key, each part of it from one snapshot: a snapshot ends with its connection, so a reading that
//! was interrupted continues from a later one. A snapshot has a point in the log, and shows just those transactions whose commit lies
//! before it. So of the changes that follow, those are left out which the part of their key shows already.

use std::cmp::Ordering;
use std::sync::Arc;

use mill_protocol::{Error, Result};
use serde::{Deserialize, Serialize};

use super::keys::{At, KeyColumn};
use super::pgoutput::Lsn;

/// How far was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// Which server it is; a copy of one that continues by itself has the same number.
    pub(super) system: String,
    /// The number of the table in the catalog: one that is dropped and created again has another.
    pub(super) table: u32,
    /// Transactions whose commit is before it were read.
    pub(super) lsn: Lsn,
    /// The transaction of which a part was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) within: Option<Within>,
    /// The parts of the table that were read from other snapshots, as long as that matters.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub(super) parts: Arc<Vec<Part>>,
    /// The snapshot that is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) snapshot: Option<Snapshot>,
}

/// A part of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Within {
    /// The place of its commit, which tells it from others.
    pub(super) commit: Lsn,
    /// The place of the last change that was read; changes come in the order of their places.
    pub(super) at: Lsn,
}

/// The rows up to a key, from the end of the part before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Part {
    /// The last key; none in the last part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) to: Option<At>,
    /// The point of the snapshot that shows them.
    pub(super) point: Lsn,
}

/// A snapshot that is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Snapshot {
    pub(super) point: Lsn,
    /// The last key that was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) at: Option<At>,
}

fn is_empty(parts: &Arc<Vec<Part>>) -> bool {
    parts.is_empty()
}

impl Place {
    pub(super) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("names and texts have a form in JSON")
    }

    /// Reads what a checkpoint has kept; `None` if nothing was read yet.
    pub(super) fn decode(call: &str, bytes: &[u8], key: &[KeyColumn]) -> Result<Option<Place>> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let place: Place = serde_json::from_slice(bytes)
            .map_err(|_| Error::checkpoint(format!("{call}: the position in the checkpoint is damaged")))?;
        let of_parts = place.parts.iter().filter_map(|part| part.to.as_ref());
        for at in of_parts.chain(place.snapshot.as_ref().and_then(|snapshot| snapshot.at.as_ref())) {
            // It may become SQL, so it is looked at as a position of a table is.
            At::decode(call, &at.encode(), key)?;
        }
        Ok(Some(place))
    }

    /// Ends the part that is read, as its snapshot is gone.
    pub(super) fn leave_snapshot(&mut self) {
        if let Some(Snapshot { point, at: Some(at) }) = self.snapshot.take() {
            Arc::make_mut(&mut self.parts).push(Part { to: Some(at), point });
        }
    }

    /// The key after which the table has to be read on.
    pub(super) fn last_key(&self) -> Option<&At> {
        self.snapshot.as_ref().and_then(|snapshot| snapshot.at.as_ref()).or_else(|| self.parts.last().and_then(|part| part.to.as_ref()))
    }

    /// The whole table was read.
    pub(super) fn end_snapshot(&mut self) {
        if let Some(snapshot) = self.snapshot.take() {
            Arc::make_mut(&mut self.parts).push(Part { to: None, point: snapshot.point });
        }
    }

    /// Where no part shows more than the log up to there.
    pub(super) fn whole_at(&self) -> Lsn {
        self.parts.iter().map(|part| part.point).max().unwrap_or_default()
    }

    /// Forgets the parts once they do not matter.
    pub(super) fn forget_parts(&mut self) {
        if !self.parts.is_empty() && self.lsn >= self.whole_at() {
            self.parts = Arc::default();
        }
    }

    /// Whether the rows that were read show a change of this key in a transaction with this commit already.
    pub(super) fn shows(&self, key: &At, commit: Lsn, columns: &[KeyColumn]) -> bool {
        let part = self.parts.iter().find(|part| part.to.as_ref().is_none_or(|to| key.compare(to, columns) != Ordering::Greater));
        part.is_some_and(|part| commit < part.point)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::form::Form;

    fn key() -> [KeyColumn; 1] {
        [KeyColumn { name: "id".to_owned(), form: Form::Int8, place: 0, is_never_null: true, is_by_bytes: true }]
    }

    fn at(id: i64) -> At {
        serde_json::from_str(&format!(r#"{{"by": ["id"], "at": ["{id}"]}}"#)).unwrap()
    }

    #[test]
    fn each_part_shows_what_its_snapshot_has() {
        let mut place = Place { system: "7".to_owned(), table: 9, lsn: Lsn(100), within: None, parts: Arc::default(), snapshot: None };
        place.snapshot = Some(Snapshot { point: Lsn(100), at: Some(at(9)) });
        place.leave_snapshot();
        assert_eq!(place.last_key(), Some(&at(9)));
        // A snapshot of which no row was read leaves no part.
        place.snapshot = Some(Snapshot { point: Lsn(150), at: None });
        place.leave_snapshot();
        assert_eq!(place.last_key(), Some(&at(9)));
        place.snapshot = Some(Snapshot { point: Lsn(200), at: Some(at(20)) });
        place.end_snapshot();
        assert_eq!(Place::decode("f()", &place.encode(), &key()).unwrap(), Some(place.clone()));
        for (id, commit, shows) in [(9, 99, true), (9, 100, false), (10, 150, true), (10, 200, false), (99, 199, true), (-10, 150, false)] {
            assert_eq!(place.shows(&at(id), Lsn(commit), &key()), shows, "{id} {commit}");
        }
        place.lsn = Lsn(199);
        place.forget_parts();
        assert_eq!(place.parts.len(), 2);
        place.lsn = place.whole_at();
        place.forget_parts();
        assert!(place.parts.is_empty() && !place.shows(&at(1), Lsn(1), &key()));
    }

    #[test]
    fn a_position_that_is_none_is_refused() {
        assert_eq!(Place::decode("f()", b"", &key()).unwrap(), None);
        let wrong = [
            r#"{"system": "7", "table": 9, "lsn": "0/1", "parts": [{"to": {"by": ["id"], "at": ["1 or true"]}, "point": "0/1"}]}"#,
            r#"{"system": "7", "table": 9, "lsn": "0/1", "snapshot": {"at": {"by": ["x"], "at": ["1"]}, "point": "0/1"}}"#,
            r#"{"system": "7", "table": 9, "lsn": "1"}"#,
            r#"{"system": "7", "lsn": "0/1"}"#,
        ];
        for text in wrong {
            assert!(Place::decode("f()", text.as_bytes(), &key()).is_err(), "{text}");
        }
    }
}
