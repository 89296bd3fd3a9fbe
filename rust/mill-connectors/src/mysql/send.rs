//! Sends the rows of an epoch, many in a statement.
//!
//! ```text
//!   record   kind u8 (0: a row, 1: a delete) | length u32 | the key as SQL | length u32 | the row as SQL
//! ```
//!
//! With a key only the last record of each key counts, among those of one statement: they become one DELETE and one INSERT that replaces. No
//! key is in both, so their order does not matter, and that of the statements is the order of the records.

use std::collections::HashMap;

use ::mysql::Conn;
use ::mysql::prelude::Queryable as _;
use mill_protocol::Error;

use super::address::{Attempt, Failure};
use super::sink::Shared;
use super::table::Layout;
use crate::spool::{Handle, Place};

/// About as many bytes has a statement.
const STATEMENT_BYTES: usize = 512 << 10;
/// What a statement has beside its rows, its beginning and its end.
pub(super) const STATEMENT_REST: usize = 256;
/// Warnings that say that a value was changed.
const CHANGED: [u16; 8] = [1048, 1264, 1265, 1292, 1364, 1366, 1406, 1411];

pub(super) const ROW: u8 = 0;
pub(super) const DELETE: u8 = 1;

/// Appends a record.
pub(super) fn push_record(kind: u8, key: &[u8], row: &[u8], out: &mut Vec<u8>) {
    out.push(kind);
    for part in [key, row] {
        out.extend_from_slice(&(part.len() as u32).to_le_bytes());
        out.extend_from_slice(part);
    }
}

/// A record at the beginning of bytes: its kind, key and row, and its length.
type Record<'a> = (u8, &'a [u8], &'a [u8], usize);

/// Takes the record that bytes begin with; `None` if there is more to come of it.
fn record(bytes: &[u8]) -> Option<Record<'_>> {
    let (kind, rest) = bytes.split_first()?;
    let part = |bytes: &mut &[u8]| -> Option<usize> {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let length = u32::from_le_bytes(*length) as usize;
        *bytes = rest.get(length..)?;
        Some(length)
    };
    let mut tail = rest;
    let key = part(&mut tail)?;
    let row = part(&mut tail)?;
    Some((*kind, &bytes[5..5 + key], &bytes[9 + key..9 + key + row], 9 + key + row))
}

/// Sends records in statements.
pub(super) struct Sender<'a> {
    shared: &'a Shared,
    layout: &'a Layout,
    client: &'a mut Conn,
    /// What has come of a record that is not whole.
    cut: Vec<u8>,
    records: Vec<Pending>,
    /// Which of them is the last one of a key.
    last: HashMap<Vec<u8>, usize>,
    bytes: usize,
}

/// A record that waits for its statement.
struct Pending {
    key: Vec<u8>,
    /// `None`: the row of the key is deleted.
    row: Option<Vec<u8>>,
}

impl<'a> Sender<'a> {
    pub(super) fn new(shared: &'a Shared, layout: &'a Layout, client: &'a mut Conn) -> Sender<'a> {
        Sender { shared, layout, client, cut: Vec::new(), records: Vec::new(), last: HashMap::new(), bytes: 0 }
    }

    /// Sends the records of a handle; some may wait for [`Sender::flush`].
    pub(super) fn send(&mut self, handle: &Handle, place: &Place) -> Attempt<()> {
        let mut failed = None;
        let outcome = handle.for_each(place, |piece| {
            self.take(piece).map_err(|failure| {
                failed = Some(failure);
                Error::internal("told below")
            })
        });
        if let Err(error) = outcome {
            return Err(failed.unwrap_or(Failure::Final(error)));
        }
        if self.cut.is_empty() {
            return Ok(());
        }
        Err(Failure::Final(Error::checkpoint(format!("{}: the rows kept for an epoch end in the middle of one", self.shared.call()))))
    }

    fn take(&mut self, piece: &[u8]) -> Attempt<()> {
        let mut bytes = std::mem::take(&mut self.cut);
        bytes.extend_from_slice(piece);
        let mut rest = bytes.as_slice();
        while let Some((kind, key, row, length)) = record(rest) {
            self.push(kind, key, row)?;
            rest = &rest[length..];
        }
        self.cut = rest.to_vec();
        Ok(())
    }

    fn push(&mut self, kind: u8, key: &[u8], row: &[u8]) -> Attempt<()> {
        let size = key.len() + row.len() + 2;
        let limit = STATEMENT_BYTES.min(self.layout.packet_max / 2);
        if !self.records.is_empty() && self.bytes + size > limit {
            self.flush()?;
        }
        let pending = Pending { key: key.to_vec(), row: (kind == ROW).then(|| row.to_vec()) };
        match (&self.layout.key, self.last.get(key)) {
            // It takes the place of the one before, and the others keep theirs.
            (Some(_), Some(before)) => self.records[*before] = pending,
            _ => {
                self.last.insert(key.to_vec(), self.records.len());
                self.records.push(pending);
            }
        }
        self.bytes += size;
        Ok(())
    }

    /// Sends what waits.
    pub(super) fn flush(&mut self) -> Attempt<()> {
        let records = std::mem::take(&mut self.records);
        self.last.clear();
        self.bytes = 0;
        let deleted: Vec<&[u8]> = records.iter().filter(|record| record.row.is_none()).map(|record| record.key.as_slice()).collect();
        let rows: Vec<&[u8]> = records.iter().filter_map(|record| record.row.as_deref()).collect();
        if let (Some(key), false) = (&self.layout.key, deleted.is_empty()) {
            self.execute("delete rows", self.layout.delete(key), &deleted, ")")?;
        }
        if rows.is_empty() {
            return Ok(());
        }
        let end = self.layout.key.as_ref().map(|key| self.layout.replace(key)).unwrap_or_default();
        let written = self.execute("write rows", self.layout.insert(), &rows, &end)?;
        // A row that replaces counts twice, and one that changes nothing not at all.
        if self.layout.key.is_none() && written != rows.len() as u64 {
            return Err(Failure::Final(Error::schema(format!(
                "{}: {} sent and {written} arrived: a trigger of the table leaves rows out, so they would be missing without an error; \
                 nothing was written",
                self.shared.call(),
                if rows.len() == 1 { "1 row was".to_owned() } else { format!("{} rows were", rows.len()) }
            ))));
        }
        Ok(())
    }

    /// Sends a statement; returns how many rows it has changed.
    fn execute(&mut self, doing: &str, begin: String, parts: &[&[u8]], end: &str) -> Attempt<u64> {
        let mut sql = begin.into_bytes();
        for (number, part) in parts.iter().enumerate() {
            if number > 0 {
                sql.push(b',');
            }
            sql.extend_from_slice(part);
        }
        sql.extend_from_slice(end.as_bytes());
        let sql = String::from_utf8(sql).map_err(|e| Error::internal(format!("rows are SQL, and that is text: {e}")))?;
        self.client.query_drop(sql).map_err(|e| self.shared.failure(doing, &e))?;
        let changed = self.client.affected_rows();
        if self.client.warnings() == 0 {
            return Ok(changed);
        }
        let warnings: Vec<(String, u16, String)> =
            self.client.query("SHOW WARNINGS").map_err(|e| self.shared.failure("ask for warnings", &e))?;
        if let Some((_, code, message)) = warnings.iter().find(|(_, code, _)| CHANGED.contains(code)) {
            return Err(Failure::Final(Error::data(format!(
                "{}: the server would change a value: {message} [warning {code}]; nothing was written",
                self.shared.call()
            ))));
        }
        Ok(changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_however_they_are_cut() {
        let mut bytes = Vec::new();
        push_record(ROW, b"(1)", b"(1,'a')", &mut bytes);
        push_record(DELETE, b"(2)", b"", &mut bytes);
        let (kind, key, row, length) = record(&bytes).unwrap();
        assert_eq!((kind, key, row), (ROW, &b"(1)"[..], &b"(1,'a')"[..]));
        assert_eq!(record(&bytes[length..]).unwrap(), (DELETE, &b"(2)"[..], &b""[..], bytes.len() - length));
        for end in 0..length {
            assert!(record(&bytes[..end]).is_none());
        }
    }
}
