//! A connection that replicates, and what it asks of the server and its slot.

use mill_protocol::Error;

use super::address::{Attempt, Failure};
use super::change_place::Place;
use super::changes::Shared;
use super::name::{constant, identifier};
use super::pgoutput::Lsn;
use super::wire::Wire;
use crate::directory::fresh_nonce;

/// A connection that replicates.
pub(super) struct Session {
    pub(super) wire: Wire,
    /// Which server it is.
    pub(super) system: String,
    /// Up to where its log is on its disk.
    pub(super) flushed: Lsn,
}

/// A snapshot of the database, as long as the session that has made it is open.
pub(super) struct Exported {
    /// It shows the transactions whose commit is before it.
    pub(super) point: Lsn,
    pub(super) name: String,
}

impl Session {
    /// Connects.
    pub(super) fn open(shared: &Shared) -> Attempt<Session> {
        let call = shared.call();
        let mut wire = Wire::connect(&shared.rows.address, &call, &shared.user, &shared.database)?;
        let rows = wire.query("IDENTIFY_SYSTEM", &|| false)?;
        let text = |column: usize| rows.first().and_then(|row| row.get(column)).cloned().flatten().unwrap_or_default();
        let flushed = text(2).parse().map_err(|e| Failure::Final(Error::connector(format!("{call}: {e}"))))?;
        Ok(Session { system: text(0), flushed, wire })
    }

    /// Refuses a slot that does not have the changes after a place; `None` if there is no such slot, and nothing was read of one. Returns
    /// how far its reader has confirmed the log otherwise.
    pub(super) fn check_slot(&mut self, shared: &Shared, place: Option<&Place>, is_over: &dyn Fn() -> bool) -> Attempt<Option<Lsn>> {
        let (call, slot) = (shared.call(), &shared.slot);
        let anew = "start over, with another checkpoint path and another slot: the rows of the table are read again then";
        if let Some(place) = place {
            if place.system != self.system {
                return Err(Failure::Final(Error::checkpoint(format!(
                    "{call}: the checkpoint is of another server (its system identifier is {}, and that of this one {}), whose log has \
                     nothing to do with what was read; {anew}",
                    place.system, self.system
                ))));
            }
            if place.table != shared.number {
                return Err(dropped(shared, anew));
            }
            if place.lsn > self.flushed {
                return Err(Failure::Final(Error::checkpoint(format!(
                    "{call}: the checkpoint has the changes up to {}, and the server is at {}: it was restored from an older backup; {anew}",
                    place.lsn, self.flushed
                ))));
            }
        }
        self.check_table(shared, anew, is_over)?;
        let sql = format!(
            "SELECT slot_type, plugin, database, temporary, wal_status, confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = {}",
            constant(slot)
        );
        let rows = self.wire.query(&sql, is_over)?;
        let Some(row) = rows.first() else {
            return match place {
                Some(place) => Err(Failure::Final(Error::checkpoint(format!(
                    "{call}: the slot {slot:?} is gone, and with it the changes after {}, where the checkpoint continues; {anew}",
                    place.lsn
                )))),
                None if !shared.creates => Err(Failure::Final(Error::connector(format!(
                    "{call}: there is no slot {slot:?}, and create_slot is False"
                )))),
                None => Ok(None),
            };
        };
        let column = |place: usize| row.get(place).and_then(Option::as_deref).unwrap_or_default();
        let wrong = |why: String| Err(Failure::Final(Error::connector(format!("{call}: the slot {slot:?} {why}; name another one"))));
        if column(0) != "logical" || column(1) != "pgoutput" {
            let plugin = if column(1).is_empty() { String::new() } else { format!(" of {}", column(1)) };
            return wrong(format!("is a {} one{plugin}, not a logical one of pgoutput", column(0)));
        }
        if column(2) != shared.database {
            return wrong(format!("is of database {:?}, not {:?}", column(2), shared.database));
        }
        if column(3) == "t" {
            return wrong("is a temporary one of another session".to_owned());
        }
        if column(4) == "lost" {
            return Err(Failure::Final(Error::checkpoint(format!(
                "{call}: the server has removed changes that the slot {slot:?} was to keep, since they were more than \
                 max_slot_wal_keep_size; drop the slot, and {anew}"
            ))));
        }
        if column(5).is_empty() {
            return Err(Failure::Again(Error::connector(format!(
                "{call}: the slot {slot:?} is just being made by another session, which waits for the transactions that write to end"
            ))));
        }
        let confirmed: Lsn = column(5).parse().map_err(|e| Failure::Final(Error::connector(format!("{call}: {e}"))))?;
        match place {
            Some(place) if confirmed > place.lsn => Err(Failure::Final(Error::checkpoint(format!(
                "{call}: the slot {slot:?} was confirmed up to {confirmed}, and the checkpoint goes on at {}: the changes between are gone. \
                 Another reader has used the slot, or an older checkpoint was restored; {anew}",
                place.lsn
            )))),
            _ => Ok(Some(confirmed)),
        }
    }

    /// Refuses a table that is not there any more: nothing in the log says so.
    fn check_table(&mut self, shared: &Shared, anew: &str, is_over: &dyn Fn() -> bool) -> Attempt<()> {
        let rows = self.wire.query(&format!("SELECT 1 FROM pg_class WHERE oid = {}", shared.number), is_over)?;
        if rows.is_empty() { Err(dropped(shared, anew)) } else { Ok(()) }
    }

    /// Makes the slot.
    pub(super) fn create_slot(&mut self, shared: &Shared, exports: bool, is_over: &dyn Fn() -> bool) -> Attempt<Exported> {
        let exports = if exports { "EXPORT_SNAPSHOT" } else { "NOEXPORT_SNAPSHOT" };
        self.exported(shared, &format!("CREATE_REPLICATION_SLOT {} LOGICAL pgoutput {exports}", identifier(&shared.slot)), is_over)
    }

    /// Makes a snapshot, by a slot that goes with the session.
    pub(super) fn export(&mut self, shared: &Shared, is_over: &dyn Fn() -> bool) -> Attempt<Exported> {
        let name = format!("millstream_{:016x}", fresh_nonce());
        self.exported(shared, &format!("CREATE_REPLICATION_SLOT {name} TEMPORARY LOGICAL pgoutput EXPORT_SNAPSHOT"), is_over)
    }

    fn exported(&mut self, shared: &Shared, sql: &str, is_over: &dyn Fn() -> bool) -> Attempt<Exported> {
        let rows = self.wire.query(sql, is_over)?;
        let text = |column: usize| rows.first().and_then(|row| row.get(column)).cloned().flatten().unwrap_or_default();
        let point = text(1).parse().map_err(|e| Failure::Final(Error::connector(format!("{}: {e}", shared.call()))))?;
        Ok(Exported { point, name: text(2) })
    }

    /// Begins the stream of changes after a place.
    pub(super) fn start(&mut self, shared: &Shared, from: Lsn, is_over: &dyn Fn() -> bool) -> Attempt<()> {
        let sql = format!(
            "START_REPLICATION SLOT {} LOGICAL {from} (proto_version '1', publication_names {}, binary 'true')",
            identifier(&shared.slot),
            // Without the blank that the form with backslashes begins with: the grammar has no such form.
            format_args!("'{}'", identifier(&shared.publication).replace('\'', "''"))
        );
        self.wire.start(&sql, is_over)
    }
}

/// Of the rows of a table that was dropped no change says that they are gone.
fn dropped(shared: &Shared, anew: &str) -> Failure {
    Failure::Final(Error::checkpoint(format!(
        "{}: table {} was dropped, or dropped and created again, so that no change says which keys were deleted; {anew}",
        shared.call(),
        shared.table.sql()
    )))
}
