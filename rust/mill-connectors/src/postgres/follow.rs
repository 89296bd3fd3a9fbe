//! The thread that reads a table and then its changes: attempts, until one comes to the end or they have failed for too long.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, StringArray};
use mill_protocol::Error;

use super::address::{Attempt, Failure};
use super::change_place::{Place, Snapshot};
use super::change_queue::{Item, Link, Piece, Places};
use super::change_stream::{Changes, INSERT, with_ops};
use super::changes::Shared;
use super::keys::At;
use super::name::constant;
use super::pgoutput::Lsn;
use super::reader::{begin, copy_rows};
use super::session::Session;
use crate::table_reader::Chunk;

/// How long a server that went away is asked again, without an answer from it.
const RETRY_WAIT: Duration = Duration::from_secs(60);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// The thread's side.
pub(super) struct Follow {
    pub(super) shared: Arc<Shared>,
    /// The place after the last piece that was sent.
    pub(super) place: Option<Place>,
    pub(super) until: Option<Lsn>,
    pub(super) rows_most: usize,
    pub(super) link: Arc<Link>,
    /// When the server has answered last.
    pub(super) heard: Instant,
}

impl Follow {
    pub(super) fn new(shared: Arc<Shared>, place: Option<Place>, until: Option<Lsn>, rows_most: usize, link: Arc<Link>) -> Follow {
        Follow { shared, place, until, rows_most, link, heard: Instant::now() }
    }

    pub(super) fn run(&mut self) {
        let mut pause = Duration::from_millis(50);
        self.heard = Instant::now();
        // Since when attempts have failed without a word of the server between them.
        let mut failing: Option<Instant> = None;
        let item = loop {
            let before = self.heard;
            let outcome = self.follow();
            self.link.held().cancel = None;
            match outcome {
                Ok(()) if self.link.is_over() => return,
                Ok(()) => break Item::End,
                Err(Failure::Final(error)) => break Item::Failed(error),
                Err(Failure::Again(_)) if self.link.is_over() => return,
                Err(Failure::Again(error)) => {
                    if self.heard != before {
                        pause = Duration::from_millis(50);
                        failing = None;
                    }
                    // Not since its last word: one that is cut off is silent for longer before that is a failure.
                    if failing.get_or_insert_with(Instant::now).elapsed() >= RETRY_WAIT {
                        break Item::Failed(error);
                    }
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        };
        // Nobody is there to hear it if this fails.
        let _ = self.link.push(item, &mut || Ok(()));
    }

    fn call(&self) -> String {
        self.shared.call()
    }

    pub(super) fn reach(&self, step: &'static str) -> Attempt<()> {
        mill_fault::reach(step).map_err(|e| Failure::Again(Error::connector(format!("{}: {step}: {e}", self.call()))))
    }

    /// Reads on until the end, if there is one.
    fn follow(&mut self) -> Attempt<()> {
        let link = Arc::clone(&self.link);
        let is_over = || link.is_over();
        let shared = Arc::clone(&self.shared);
        self.reach("postgres.follow")?;
        let mut session = Session::open(&shared)?;
        let confirmed = session.check_slot(&shared, self.place.as_ref(), &is_over)?;
        let reads_table = match &self.place {
            None => shared.has_snapshot,
            Some(place) => place.snapshot.is_some(),
        };
        if reads_table {
            let exported = match confirmed {
                None => session.create_slot(&shared, true, &is_over)?,
                Some(_) => session.export(&shared, &is_over)?,
            };
            self.reach("postgres.exported")?;
            if !self.read_table(session, exported.point, &exported.name)? {
                return Ok(());
            }
            session = Session::open(&shared)?;
            session.check_slot(&shared, self.place.as_ref(), &is_over)?;
        } else if self.place.is_none() {
            let lsn = match confirmed {
                None => session.create_slot(&shared, false, &is_over)?.point,
                Some(confirmed) => confirmed,
            };
            self.place =
                Some(Place { system: session.system.clone(), table: shared.number, lsn, within: None, parts: Arc::default(), snapshot: None });
        }
        let place = self.place.clone().ok_or_else(|| Failure::Final(Error::internal("a place was just found")))?;
        self.reach("postgres.start")?;
        session.start(&shared, place.lsn, &is_over)?;
        self.heard = Instant::now();
        Changes::new(self, session, place)?.read()
    }

    /// Reads the rest of the table from a snapshot; `false` if nobody wants it any more.
    fn read_table(&mut self, session: Session, point: Lsn, snapshot: &str) -> Attempt<bool> {
        let shared = Arc::clone(&self.shared);
        let call = self.call();
        let failed = |e: &::postgres::Error| shared.rows.address.failure(&call, "read the table", e);
        let mut client = shared.rows.address.connect(&call)?;
        {
            let mut held = self.link.held();
            if held.is_over {
                return Ok(false);
            }
            held.cancel = Some(client.cancel_token());
        }
        let mut transaction = begin(&mut client).map_err(|e| failed(&e))?;
        // A policy that hides rows is an error: changes are sent without regard to it.
        let sql = format!("SET TRANSACTION SNAPSHOT {}; SET LOCAL row_security = off; SET LOCAL statement_timeout = 0", constant(snapshot));
        transaction.batch_execute(&sql).map_err(|e| match e.code().map(|code| code.code()) {
            // The session that has made the snapshot was cut off meanwhile.
            Some("22023" | "42704") => Failure::Again(failed(&e).into_error()),
            _ => failed(&e),
        })?;
        let system = session.system.clone();
        // The snapshot is the transaction's from here on.
        drop(session);
        let mut start = match self.place.take() {
            Some(mut place) => {
                place.leave_snapshot();
                place
            }
            None => Place { system, table: shared.number, lsn: point, within: None, parts: Arc::default(), snapshot: None },
        };
        let after = start.last_key().cloned();
        start.snapshot = Some(Snapshot { point, at: None });
        self.place = Some(start.clone());
        let (link, op) = (Arc::clone(&self.link), shared.op.clone());
        let (place, heard) = (&mut self.place, &mut self.heard);
        let mut broken = None;
        let mut give = |chunk: Chunk, last: At| {
            let ops: ArrayRef = Arc::new(StringArray::from(vec![INSERT; chunk.batch.num_rows()]));
            let batch = match with_ops(&chunk.batch, &op, ops) {
                Ok(batch) => batch,
                Err(error) => {
                    broken = Some(error);
                    return false;
                }
            };
            let piece = Piece { batch, bad: chunk.bad, places: Places::Rows(start.clone(), point) };
            let is_wanted = matches!(link.push(Item::Piece(piece), &mut || Ok(())), Ok(true));
            if is_wanted {
                *heard = Instant::now();
                *place = Some(Place { snapshot: Some(Snapshot { point, at: Some(last) }), ..start.clone() });
            }
            is_wanted
        };
        let is_whole = copy_rows(&shared.rows, &mut transaction, after.as_ref(), None, self.rows_most, &mut give)?;
        if let Some(error) = broken {
            return Err(Failure::Final(Error::internal(error.to_string())));
        }
        if !is_whole {
            return Ok(false);
        }
        transaction.commit().map_err(|e| failed(&e))?;
        self.heard = Instant::now();
        if let Some(place) = &mut self.place {
            place.end_snapshot();
        }
        Ok(true)
    }
}
