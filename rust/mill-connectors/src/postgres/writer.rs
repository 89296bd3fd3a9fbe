//! Encodes records as the server takes them, and keeps those of an epoch until it is committed.
//!
//! What a table can never hold is found here, where it is still known which record it is of: it would be in a checkpoint, and every
//! restart would try to write it.

use std::sync::Arc;

use mill_frame::text::record_json;
use mill_protocol::{Batch, Epoch, PreCommit, Rejected, Result, SinkWriter};

use super::encode::Values;
use super::sink::Shared;
use super::table::Layout;
use super::two_phase::Preparing;
use crate::spool::{self, HELD_BYTES_MAX, Handle, Held, INLINE_BYTES_MAX, Place, Spool};

const NULL: [u8; 4] = (-1i32).to_be_bytes();

pub(super) struct PostgresWriter {
    shared: Arc<Shared>,
    layout: Arc<Layout>,
    place: Place,
    preparing: Option<Arc<Preparing>>,
    task: usize,
    held: Vec<u8>,
    spool: Option<Spool>,
    rows: u64,
    deletes: u64,
    rejected: Vec<Rejected>,
}

impl PostgresWriter {
    pub(super) fn new(shared: Arc<Shared>, layout: Arc<Layout>, place: Place, preparing: Option<Arc<Preparing>>, task: usize) -> PostgresWriter {
        PostgresWriter { shared, layout, place, preparing, task, held: Vec::new(), spool: None, rows: 0, deletes: 0, rejected: Vec::new() }
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
}

impl PostgresWriter {
    /// Makes the handle of an epoch, and prepares its transaction, if they are prepared.
    fn prepared(&self, epoch: Epoch, handle: impl FnOnce() -> Result<Handle> + Send + 'static) -> PreCommit {
        let (shared, layout, place) = (Arc::clone(&self.shared), Arc::clone(&self.layout), self.place.clone());
        let preparing = self.preparing.clone();
        Box::new(move || {
            let handle = handle()?;
            if let Some(preparing) = preparing {
                preparing.prepare(&shared, &layout, &place, &handle, epoch)?;
            }
            handle.encode()
        })
    }
}

/// Appends a row.
///
/// # Errors
/// What is wrong with it, in words; then what was appended is to be taken off again.
fn push_row(layout: &Layout, values: &[Values], row: usize, is_delete: bool, out: &mut Vec<u8>) -> std::result::Result<(), String> {
    let is_keyed = layout.key.is_some();
    let fields = values.len() + usize::from(is_keyed);
    out.extend_from_slice(&(fields as i16).to_be_bytes());
    if is_keyed {
        out.extend_from_slice(&1i32.to_be_bytes());
        out.push(u8::from(is_delete));
    }
    for (place, (column, values)) in layout.columns.iter().zip(values).enumerate() {
        let is_key = layout.key.as_ref().is_some_and(|key| key.contains(&place));
        if is_delete && !is_key {
            out.extend_from_slice(&NULL);
            continue;
        }
        if !column.takes_null && values.is_null(row) {
            let why = if is_key { "is part of the key, and a key of the table is never null" } else { "is NOT NULL in the table" };
            return Err(format!("column {:?} is null, and {why}; fill_null() it or leave such records out", column.name));
        }
        values.push(row, out).map_err(|why| format!("column {:?} is {}: it {why}", column.name, values.shown(row)))?;
    }
    Ok(())
}

impl SinkWriter for PostgresWriter {
    fn write(&mut self, batch: Batch) -> Result<()> {
        self.shared.reach("postgres.encode")?;
        let columns = batch.data().columns();
        let values = self.layout.columns.iter().zip(columns).map(|(column, array)| Values::new(array, &column.form));
        let values = values.collect::<Result<Vec<_>>>()?;
        for row in 0..batch.rows() {
            let is_delete = batch.deletes().is_some_and(|deletes| deletes.value(row));
            let start = self.held.len();
            match push_row(&self.layout, &values, row, is_delete, &mut self.held) {
                Ok(()) => {
                    self.rows += 1;
                    self.deletes += u64::from(is_delete);
                }
                Err(why) => {
                    self.held.truncate(start);
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

    fn pre_commit(&mut self, epoch: Epoch) -> Result<Option<PreCommit>> {
        let (rows, deletes) = (std::mem::take(&mut self.rows), std::mem::take(&mut self.deletes));
        if rows == 0 {
            return Ok(None);
        }
        let (run, columns) = (self.shared.run(), self.layout.fingerprint());
        if self.spool.is_none() && self.held.len() <= INLINE_BYTES_MAX {
            let held = Held::Inline(std::mem::take(&mut self.held));
            return Ok(Some(self.prepared(epoch, move || Ok(Handle { run, rows, deletes, columns, held }))));
        }
        self.spill()?;
        let Some(spool) = self.spool.take() else { return Ok(None) };
        Ok(Some(self.prepared(epoch, move || Ok(Handle { run, rows, deletes, columns, held: Held::Spooled(spool.finish()?) }))))
    }
}
