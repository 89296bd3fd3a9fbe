//! Encodes records as SQL, and keeps those of an epoch until it is committed.
//!
//! What a table can never hold is found here, where it is still known which record it is of: it would be in a checkpoint, and every
//! restart would try to write it.

use std::sync::Arc;

use mill_frame::text::record_json;
use mill_frame::words::counted;
use mill_protocol::{Batch, Epoch, PreCommit, Rejected, Result, SinkWriter};

use super::encode::Values;
use super::send::{DELETE, ROW, STATEMENT_REST, push_record};
use super::sink::Shared;
use super::table::Layout;
use crate::spool::{self, HELD_BYTES_MAX, Handle, Held, INLINE_BYTES_MAX, Place, Spool};

pub(super) struct MysqlWriter {
    shared: Arc<Shared>,
    layout: Arc<Layout>,
    place: Place,
    task: usize,
    /// No row may be longer as SQL.
    row_max: usize,
    held: Vec<u8>,
    spool: Option<Spool>,
    rows: u64,
    deletes: u64,
    rejected: Vec<Rejected>,
}

impl MysqlWriter {
    pub(super) fn new(shared: Arc<Shared>, layout: Arc<Layout>, place: Place, task: usize) -> MysqlWriter {
        let rest = STATEMENT_REST + layout.insert().len() + layout.key.as_ref().map_or(0, |key| layout.replace(key).len());
        let row_max = layout.packet_max.saturating_sub(rest);
        MysqlWriter { shared, layout, place, task, row_max, held: Vec::new(), spool: None, rows: 0, deletes: 0, rejected: Vec::new() }
    }

    /// Moves what is held into the file, which is made if there is none.
    fn spill(&mut self) -> Result<()> {
        let spool = match &mut self.spool {
            Some(spool) => spool,
            none => {
                let part = spool::part(self.shared.run(), self.task, self.shared.part_number());
                none.insert(self.place.create(&part)?)
            }
        };
        spool.push(&self.held)?;
        self.held.clear();
        Ok(())
    }

    /// Makes the SQL of a key and a row.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    fn encode(&self, values: &[Values], row: usize, is_delete: bool, key: &mut Vec<u8>, out: &mut Vec<u8>) -> std::result::Result<(), String> {
        let layout = &self.layout;
        let is_key = |place: &usize| layout.key.as_ref().is_some_and(|key| key.contains(place));
        key.clear();
        out.clear();
        let push = |place: usize, out: &mut Vec<u8>| {
            let (column, values) = (&layout.columns[place], &values[place]);
            if !column.takes_null && values.is_null(row) {
                let why = if is_key(&place) { "is part of the key, and a key of the table is never null" } else { "is NOT NULL in the table" };
                return Err(format!("column {:?} is null, and {why}; fill_null() it or leave such records out", column.name));
            }
            out.push(if out.is_empty() { b'(' } else { b',' });
            values.push(column, row, out).map_err(|why| format!("column {:?} is {}: it {why}", column.name, values.shown(row)))
        };
        for place in layout.key.iter().flatten() {
            push(*place, key)?;
        }
        if !key.is_empty() {
            key.push(b')');
        }
        if is_delete {
            return Ok(());
        }
        for place in 0..values.len() {
            push(place, out)?;
        }
        out.push(b')');
        if out.len() > self.row_max {
            return Err(format!(
                "the record has {} as SQL, and the server takes {} at once; raise its max_allowed_packet",
                counted(out.len(), "byte"),
                self.layout.packet_max
            ));
        }
        Ok(())
    }
}

impl SinkWriter for MysqlWriter {
    fn write(&mut self, batch: Batch) -> Result<()> {
        self.shared.reach("mysql.encode")?;
        let columns = batch.data().columns();
        let values = self.layout.columns.iter().zip(columns).map(|(column, array)| Values::new(array, column.form));
        let values = values.collect::<Result<Vec<_>>>()?;
        let (mut key, mut sql) = (Vec::new(), Vec::new());
        for row in 0..batch.rows() {
            let is_delete = batch.deletes().is_some_and(|deletes| deletes.value(row));
            match self.encode(&values, row, is_delete, &mut key, &mut sql) {
                Ok(()) => {
                    push_record(if is_delete { DELETE } else { ROW }, &key, &sql, &mut self.held);
                    self.rows += 1;
                    self.deletes += u64::from(is_delete);
                }
                Err(why) => {
                    self.rejected.push(Rejected::new(format!("{}: {why}", self.shared.call()), record_json(batch.data(), row)));
                }
            }
            if self.held.len() > HELD_BYTES_MAX {
                self.spill()?;
            }
        }
        Ok(())
    }

    fn take_rejected(&mut self) -> Vec<Rejected> {
        std::mem::take(&mut self.rejected)
    }

    fn pre_commit(&mut self, _epoch: Epoch) -> Result<Option<PreCommit>> {
        let (rows, deletes) = (std::mem::take(&mut self.rows), std::mem::take(&mut self.deletes));
        if rows == 0 {
            return Ok(None);
        }
        let (run, columns) = (self.shared.run(), self.layout.fingerprint());
        if self.spool.is_none() && self.held.len() <= INLINE_BYTES_MAX {
            let held = Held::Inline(std::mem::take(&mut self.held));
            return Ok(Some(Box::new(move || Handle { run, rows, deletes, columns, held }.encode())));
        }
        self.spill()?;
        let Some(spool) = self.spool.take() else { return Ok(None) };
        Ok(Some(Box::new(move || Handle { run, rows, deletes, columns, held: Held::Spooled(spool.finish()?) }.encode())))
    }
}
