//! Which session of its key a record belongs to.
//!
//! ```text
//!   key ─► start, end, id of one session, and where the others are     a row of a table
//!                                                 └─► others, parts    only of keys that have several sessions, or merged ones
//! ```
//!
//! The id of a session is the time of the record that began it. No two sessions of a key have the same: a record at that time
//! would be within the session. When a record joins two sessions, the id of one goes on, and the other becomes a part: its rows
//! stay where they are until the session has its result.
//!
//! All of it follows from the rows of accumulators, which know where they start and end. So no checkpoint holds it.

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use mill_protocol::Result;
use mill_state::{KeyEncoder, LOOKUP_ROWS_MAX, RowLayout, Span, StateTable, TableOptions};
use std::ops::Range;
use std::sync::Arc;

use crate::accumulator::state_error;

/// How many records go through the table at a time.
const LOOKUP_ROWS: usize = 1024;

/// The open sessions of all keys.
pub(super) struct Sessions {
    encoder: KeyEncoder,
    table: StateTable,
    /// Where in a row the words of its session begin: start, end, id, and 1 + the number of its crowd, or 0.
    word: usize,
    crowds: Crowds,
}

/// A session: half-open bounds in microseconds, and its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Session {
    start: i64,
    end: i64,
    id: i64,
}

/// What a key has beside one session.
#[derive(Debug, Default)]
struct Crowd {
    others: Vec<Session>,
    /// Sessions that became part of another one: the id of that, and their own.
    parts: Vec<(i64, i64)>,
}

#[derive(Debug, Default)]
struct Crowds {
    all: Vec<Crowd>,
    free: Vec<usize>,
}

/// What is known of a session that was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// It goes on until then.
    Open(i64),
    /// It has become a part of another one.
    Part,
    /// It is complete, and no longer known.
    Complete,
    /// It is complete and has these parts, its own id first, and is no longer known.
    Merged(Vec<i64>),
}

/// The words of a row.
type Words = [u64; 4];

impl Session {
    fn of(words: &Words) -> Option<Session> {
        let session = Session { start: words[0] as i64, end: words[1] as i64, id: words[2] as i64 };
        // A row of zeros has none.
        (session.start < session.end).then_some(session)
    }

    fn write(self, words: &mut Words) {
        words[..3].copy_from_slice(&[self.start as u64, self.end as u64, self.id as u64]);
    }

    #[inline(always)]
    fn overlaps(&self, start: i64, end: i64) -> bool {
        start < self.end && self.start < end
    }
}

impl Crowds {
    fn of(&mut self, words: &Words) -> Option<&mut Crowd> {
        (words[3] as usize).checked_sub(1).map(|place| &mut self.all[place])
    }

    fn open(&mut self, words: &mut Words) -> &mut Crowd {
        if words[3] == 0 {
            let place = self.free.pop().unwrap_or_else(|| {
                self.all.push(Crowd::default());
                self.all.len() - 1
            });
            words[3] = place as u64 + 1;
        }
        &mut self.all[words[3] as usize - 1]
    }

    /// Forgets the crowd of a row if nothing is left of it.
    fn close_empty(&mut self, words: &mut Words) {
        if let Some(crowd) = self.of(words)
            && crowd.others.is_empty()
            && crowd.parts.is_empty()
        {
            self.free.push(words[3] as usize - 1);
            words[3] = 0;
        }
    }
}

impl Crowd {
    /// Makes those of the others that overlap this session part of it.
    fn join(&mut self, session: &mut Session) {
        let (start, end) = (session.start, session.end);
        let Crowd { others, parts } = self;
        others.retain(|other| {
            if !other.overlaps(start, end) {
                return true;
            }
            session.start = session.start.min(other.start);
            session.end = session.end.max(other.end);
            parts.iter_mut().filter(|(of, _)| *of == other.id).for_each(|(of, _)| *of = session.id);
            parts.push((session.id, other.id));
            false
        });
    }
}

/// Puts a record that lasts from `start` to `end` into a session of its key; the id of that session, which is `id` if it is a
/// new one.
#[inline(always)]
fn place(words: &mut Words, crowds: &mut Crowds, start: i64, end: i64, id: i64) -> i64 {
    match Session::of(words) {
        Some(mut session) if session.overlaps(start, end) => {
            if start < session.start || end > session.end {
                session.start = session.start.min(start);
                session.end = session.end.max(end);
                if let Some(crowd) = crowds.of(words) {
                    crowd.join(&mut session);
                }
                session.write(words);
            }
            session.id
        }
        Some(session) => place_beside(words, session, crowds, Session { start, end, id }),
        None => {
            Session { start, end, id }.write(words);
            id
        }
    }
}

/// The same for a record that does not belong to the session in the row.
#[inline(never)]
fn place_beside(words: &mut Words, in_row: Session, crowds: &mut Crowds, new: Session) -> i64 {
    let crowd = crowds.open(words);
    if let Some(at) = crowd.others.iter().position(|other| other.overlaps(new.start, new.end)) {
        let mut session = crowd.others.swap_remove(at);
        session.start = session.start.min(new.start);
        session.end = session.end.max(new.end);
        crowd.join(&mut session);
        crowd.others.push(session);
        return session.id;
    }
    // The latest session is the one that records most likely belong to.
    if new.start > in_row.start {
        crowd.others.push(in_row);
        new.write(words);
    } else {
        crowd.others.push(new);
    }
    new.id
}

/// Takes a session out if it ends by `deadline`.
fn ask(words: &mut Words, crowds: &mut Crowds, id: i64, deadline: i64) -> Asked {
    let in_row = Session::of(words).filter(|session| session.id == id);
    let at = match (in_row, crowds.of(words)) {
        (Some(_), _) => None,
        (None, Some(crowd)) => match crowd.others.iter().position(|other| other.id == id) {
            Some(at) => Some(at),
            None => return Asked::Part,
        },
        (None, None) => return Asked::Part,
    };
    let end = match (in_row, at, crowds.of(words)) {
        (Some(session), _, _) => session.end,
        (None, Some(at), Some(crowd)) => crowd.others[at].end,
        _ => return Asked::Part,
    };
    if end > deadline {
        return Asked::Open(end);
    }
    let Some(crowd) = crowds.of(words) else {
        *words = [0; 4];
        return Asked::Complete;
    };
    match at {
        Some(at) => {
            crowd.others.swap_remove(at);
        }
        None => {
            let latest = (0..crowd.others.len()).max_by_key(|&at| crowd.others[at].start);
            match latest.map(|at| crowd.others.swap_remove(at)) {
                Some(next) => next.write(words),
                None => words[..3].fill(0),
            }
        }
    }
    let mut ids = vec![id];
    crowd.parts.retain(|&(of, part)| {
        if of == id {
            ids.push(part);
        }
        of != id
    });
    crowds.close_empty(words);
    if ids.len() == 1 { Asked::Complete } else { Asked::Merged(ids) }
}

impl Sessions {
    pub(super) fn new(key_types: &[DataType], groups: Range<u16>) -> Result<Sessions> {
        let encoder = KeyEncoder::new(key_types).map_err(state_error)?;
        let mut layout = RowLayout::builder(encoder.kind().clone());
        let word = layout.words(4);
        let layout = Arc::new(layout.finish("start, end, id, crowd").map_err(state_error)?);
        let table = StateTable::new(layout, TableOptions::new(groups));
        Ok(Sessions { encoder, table, word, crowds: Crowds::default() })
    }

    /// Puts records with these keys, that last so long, into sessions: the ids of these.
    pub(super) fn assign(&mut self, keys: &[ArrayRef], starts: &[i64], ends: &[i64]) -> Result<Vec<i64>> {
        self.encoder.encode(keys, starts.len()).map_err(state_error)?;
        let mut ids = vec![0; starts.len()];
        for from in (0..starts.len()).step_by(LOOKUP_ROWS) {
            let len = LOOKUP_ROWS.min(starts.len() - from);
            let mut rows = self.table.find_or_insert(self.encoder.batch(), Span { start: from, len });
            let (ids, starts, ends) = (&mut ids[from..from + len], &starts[from..from + len], &ends[from..from + len]);
            rows.each::<4>(self.word, |record, words| {
                ids[record] = place(words, &mut self.crowds, starts[record], ends[record], starts[record]);
            });
        }
        Ok(ids)
    }

    /// The hashes of the keys of the records that were assigned last.
    pub(super) fn hashes(&self) -> &[u64] {
        self.encoder.batch().hashes()
    }

    /// Takes up sessions as their rows know them, or parts of sessions.
    pub(super) fn take_up(&mut self, keys: &[ArrayRef], ids: &[i64], starts: &[i64], ends: &[i64]) -> Result<()> {
        self.encoder.encode(keys, ids.len()).map_err(state_error)?;
        for from in (0..ids.len()).step_by(LOOKUP_ROWS_MAX) {
            let len = LOOKUP_ROWS_MAX.min(ids.len() - from);
            let mut rows = self.table.find_or_insert(self.encoder.batch(), Span { start: from, len });
            rows.each::<4>(self.word, |record, words| {
                let record = from + record;
                let of = place(words, &mut self.crowds, starts[record], ends[record], ids[record]);
                if of != ids[record] {
                    self.crowds.open(words).parts.push((of, ids[record]));
                }
            });
        }
        Ok(())
    }

    /// Takes out those of these sessions that end by `deadline`.
    pub(super) fn ask(&mut self, keys: &[ArrayRef], ids: &[i64], deadline: i64) -> Result<Vec<Asked>> {
        self.encoder.encode(keys, ids.len()).map_err(state_error)?;
        let mut answers = Vec::with_capacity(ids.len());
        let mut emptied = Vec::new();
        for from in (0..ids.len()).step_by(LOOKUP_ROWS_MAX) {
            let len = LOOKUP_ROWS_MAX.min(ids.len() - from);
            let mut rows = self.table.find_or_insert(self.encoder.batch(), Span { start: from, len });
            rows.each::<4>(self.word, |record, words| {
                answers.push(ask(words, &mut self.crowds, ids[from + record], deadline));
                if *words == [0; 4] {
                    emptied.push(from + record);
                }
            });
            // Of a key that is there twice, one finds the row gone.
            for record in emptied.drain(..) {
                self.table.remove(self.encoder.batch(), record);
            }
        }
        Ok(answers)
    }

    pub(super) fn clear(&mut self) {
        self.table.clear();
        self.crowds = Crowds::default();
    }
}
