//! Confirms to the server which part of its log is no longer needed: the part that a completed checkpoint has read.
//!
//! The reader tells it in the stream of changes. What it has not told by the end of the job, since the last checkpoint comes after the
//! last change, is told here. If that does not arrive, the server keeps a little more of its log until the next run.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mill_protocol::{Epoch, PositionListener, SplitState};

use super::change_place::Place;
use super::changes::Shared;
use super::pgoutput::Lsn;

/// How long the end of a job waits for the server.
const LAST_WAIT: Duration = Duration::from_secs(3);

/// The listener of a run.
pub(super) struct Acknowledge {
    shared: Arc<Shared>,
}

impl Acknowledge {
    pub(super) fn new(shared: Arc<Shared>) -> Acknowledge {
        Acknowledge { shared }
    }

    /// Confirms the log up to here, if the slot is free and was not confirmed further.
    fn advance(&self, to: Lsn) -> Option<()> {
        let end = Instant::now() + LAST_WAIT;
        let mut client = self.shared.rows.address.connect(&self.shared.call()).ok()?;
        let sql = "SELECT active, confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = $1";
        while Instant::now() < end {
            let row = client.query_opt(sql, &[&self.shared.slot]).ok()??;
            let confirmed: Lsn = row.get::<_, Option<String>>(1)?.parse().ok()?;
            if confirmed >= to {
                return Some(());
            }
            if !row.get::<_, bool>(0) {
                let advance = "SELECT pg_replication_slot_advance($1, $2::text::pg_lsn)";
                if client.execute(advance, &[&self.shared.slot, &to.to_string()]).is_ok() {
                    return Some(());
                }
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        None
    }
}

impl PositionListener for Acknowledge {
    fn completed(&mut self, _epoch: Epoch, read: Vec<SplitState>) {
        for position in read.iter().filter_map(|state| state.position.as_deref()) {
            if let Ok(Some(place)) = Place::decode(&self.shared.call(), position, &self.shared.rows.key) {
                self.shared.keep(place.lsn);
            }
        }
    }
}

impl Drop for Acknowledge {
    fn drop(&mut self) {
        let kept = self.shared.kept();
        if kept.0 > 0 {
            // It is nobody's loss if the server does not hear of it.
            let _ = self.advance(kept);
        }
    }
}
