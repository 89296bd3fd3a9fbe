//! Reads a table and then its changes, on a thread of its own.
//!
//! ```text
//!   new slot, or a temporary one ─► its snapshot ─► COPY in the order of the key ─┐
//!                                                                                 ├─► pieces ─► a queue of two ─► the reader
//!   START_REPLICATION ─► transactions, each as a whole ─► changes of the table ───┘
//!        ▲    signs of life, and what completed checkpoints have read
//!        └────────────────────────────────────────────────────────────── also while the queue is full, or nothing happens
//! ```
//!
//! The place of a piece is that after its last row; it can be cut after any row of the table, and after all changes of one place in the
//! log (one record of the log may hold many rows of a `COPY`). Changes are counted by their places, so nothing depends on how the server
//! cuts its stream. A connection that is lost is made again, and reading continues after the last piece.
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use mill_protocol::{Error, Position, Read, Result, SplitReader};

use super::change_place::{Place, Snapshot};
use super::change_queue::{Item, Link, Piece, Places};
use super::changes::Shared;
use super::follow::Follow;
use super::keys::At;
use super::pgoutput::Lsn;
use crate::client_thread;
use crate::table_reader::{bad_within, delivered};

const ROWS_DEFAULT: usize = 8192;

/// Returns the rows of a table and their changes.
pub(super) struct ChangeReader {
    shared: Arc<Shared>,
    schema: SchemaRef,
    place: Option<Place>,
    until: Option<Lsn>,
    rows_most: usize,
    thread: Option<(JoinHandle<()>, Arc<Link>)>,
    /// The piece that is handed out, and how much of it was.
    piece: Option<(Piece, usize)>,
    is_ended: bool,
}

impl ChangeReader {
    pub(super) fn new(shared: Arc<Shared>, schema: SchemaRef, place: Option<Place>, until: Option<Lsn>) -> ChangeReader {
        ChangeReader { shared, schema, place, until, rows_most: ROWS_DEFAULT, thread: None, piece: None, is_ended: false }
    }

    fn link(&mut self) -> Result<Arc<Link>> {
        if let Some((_, link)) = &self.thread {
            return Ok(Arc::clone(link));
        }
        let link = Arc::new(Link::default());
        let mut follow = Follow::new(Arc::clone(&self.shared), self.place.clone(), self.until, self.rows_most, Arc::clone(&link));
        let thread = client_thread::start("mill-postgres", move || follow.run())?;
        self.thread = Some((thread, Arc::clone(&link)));
        Ok(link)
    }
}

impl SplitReader for ChangeReader {
    fn next(&mut self, rows_max: usize) -> Result<Read> {
        if self.is_ended {
            return Ok(Read::End);
        }
        let link = self.link()?;
        if self.piece.is_none() {
            match link.pop() {
                Some(Item::Piece(piece)) => self.piece = Some((piece, 0)),
                Some(Item::End) => {
                    self.is_ended = true;
                    return Ok(Read::End);
                }
                Some(Item::Failed(error)) => return Err(error),
                None => return Ok(Read::Pending(Duration::from_millis(1))),
            }
        }
        let Some((piece, from)) = self.piece.take() else { return Err(Error::internal("a piece has just come")) };
        let rows = piece.batch.num_rows();
        let (end, place) = match &piece.places {
            Places::Rows(start, point) => {
                let end = rows.min(from + rows_max.max(1));
                let at = At::of(&self.shared.rows.key, piece.batch.columns(), end - 1)?;
                (end, Place { snapshot: Some(Snapshot { point: *point, at: Some(at) }), ..start.clone() })
            }
            Places::Changes(start, marks) => {
                // As many changes as there is room for, and those of one place at least.
                let next = marks.partition_point(|mark| mark.end <= from && mark.end < rows);
                let fit = marks.partition_point(|mark| mark.end <= from + rows_max.max(1));
                let mark = marks[(fit.max(next + 1) - 1).min(marks.len() - 1)];
                let mut place = Place { lsn: mark.lsn, within: mark.within, ..start.clone() };
                place.forget_parts();
                (mark.end, place)
            }
        };
        self.place = Some(place);
        let part = piece.batch.slice(from, end - from);
        let bad = bad_within(&piece.bad, from..end);
        if end < rows {
            self.piece = Some((piece, end));
        }
        let chosen = self.schema.fields().iter().map(|field| part.schema().index_of(field.name())).collect::<std::result::Result<Vec<_>, _>>();
        let chosen = chosen.map_err(|e| Error::internal(e.to_string()))?;
        delivered(&part, &chosen, &self.schema, bad)
    }

    fn set_rows_most(&mut self, rows: usize) {
        self.rows_most = rows.max(1);
    }

    fn position(&self) -> Position {
        self.place.as_ref().map(Place::encode).unwrap_or_default()
    }
}

impl Drop for ChangeReader {
    fn drop(&mut self) {
        let Some((thread, link)) = self.thread.take() else { return };
        if let Some(token) = link.end() {
            self.shared.rows.address.cancel(&token, "read_postgres_changes()");
        }
        let _ = thread.join();
    }
}
