//! Changes of one table out of the stream of a slot: which rows they set and take away, and the places after them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use mill_protocol::Error;

use super::address::{Attempt, Failure};
use super::change_place::{Place, Within};
use super::change_queue::{Item, Mark, Piece, Places};
use super::changes::Shared;
use super::decode::Builder;
use super::follow::Follow;
use super::keys::{At, KeyColumn};
use super::pgoutput::{self, Lsn, Message, Relation, Streamed, Value};
use super::session::Session;
use super::wire;

/// A piece has about so many bytes at most.
const BYTES_MAX: usize = 8 << 20;
/// How often the server is told how far the job is, if there is nothing new about that. It gives up a silent reader after a minute.
const STATUS_EVERY: Duration = Duration::from_secs(1);
/// How long the server may be silent, though it was asked: one that goes through a large transaction of other tables does not answer.
const SILENCE_MAX: Duration = Duration::from_secs(300);
/// How often it is passed on that the log has grown without a change of the table.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);

pub(super) const INSERT: &str = "insert";
const UPDATE: &str = "update";
const DELETE: &str = "delete";

pub(super) fn with_ops(batch: &RecordBatch, op: &str, ops: ArrayRef) -> std::result::Result<RecordBatch, arrow::error::ArrowError> {
    let mut fields: Vec<Arc<Field>> = batch.schema().fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new(op, DataType::Utf8, false)));
    let mut columns = batch.columns().to_vec();
    columns.push(ops);
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

/// A stream of changes.
pub(super) struct Changes<'a> {
    follow: &'a mut Follow,
    shared: Arc<Shared>,
    session: Session,
    /// The places before and after what was gathered.
    start: Place,
    place: Place,
    /// Whether it is further than what was sent.
    has_moved: bool,
    sent: Instant,
    /// The commit of the transaction that comes, and the place of its last change.
    transaction: Option<(Lsn, Lsn)>,
    /// Where the columns are in the rows that come, once the table was told of.
    columns: Option<Vec<usize>>,
    /// Which of them belong to the key.
    is_key: Vec<bool>,
    gathered: Gathered,
    /// What was told to the server, and when.
    told: Lsn,
    told_at: Instant,
}

/// What is gathered of a piece.
struct Gathered {
    builders: Vec<Builder>,
    ops: Vec<&'static str>,
    bytes: usize,
    bad: Vec<(usize, String)>,
    marks: Vec<Mark>,
}

impl Changes<'_> {
    pub(super) fn new(follow: &mut Follow, session: Session, place: Place) -> Attempt<Changes<'_>> {
        let shared = Arc::clone(&follow.shared);
        let builders = shared.rows.columns.iter().map(|(_, form)| Builder::new(form)).collect::<std::result::Result<Vec<_>, _>>();
        let builders = builders.map_err(|e: String| Failure::Final(Error::internal(e)))?;
        let gathered = Gathered { builders, ops: Vec::new(), bytes: 0, bad: Vec::new(), marks: Vec::new() };
        let now = Instant::now();
        let is_key = (0..shared.rows.columns.len()).map(|number| shared.rows.key.iter().any(|column| column.place == number)).collect();
        Ok(Changes {
            is_key,
            follow,
            shared,
            session,
            start: place.clone(),
            place,
            // That the table was read to its end has to be told.
            has_moved: true,
            sent: now,
            transaction: None,
            columns: None,
            gathered,
            told: Lsn(0),
            told_at: now,
        })
    }

    pub(super) fn read(&mut self) -> Attempt<()> {
        loop {
            if self.is_at_end(self.place.lsn) {
                self.send()?;
                return Ok(());
            }
            if !self.session.wire.has_message() && self.transaction.is_none() && !self.gathered.ops.is_empty() && !self.send()? {
                return Ok(());
            }
            match self.session.wire.next()? {
                wire::Streamed::Data(data) => {
                    self.follow.heard = Instant::now();
                    if !self.take(&data)? {
                        return Ok(());
                    }
                }
                wire::Streamed::Nothing => {
                    if self.follow.link.is_over() {
                        return Ok(());
                    }
                    if self.follow.heard.elapsed() >= SILENCE_MAX {
                        let call = self.shared.call();
                        return Err(Failure::Again(Error::connector(format!("{call}: cannot read changes: the server does not answer"))));
                    }
                    self.tell(self.follow.until.is_some())?;
                }
            }
            self.tell(false)?;
            if self.has_moved && self.transaction.is_none() && self.sent.elapsed() >= PROGRESS_EVERY && !self.send()? {
                return Ok(());
            }
        }
    }

    /// Whether all is there that was to be read, where the log was read up to here.
    fn is_at_end(&self, lsn: Lsn) -> bool {
        self.transaction.is_none() && self.follow.until.is_some_and(|until| lsn >= until.max(self.place.whole_at()))
    }

    /// Takes a message; `false` if nobody wants more, or it is after the end.
    fn take(&mut self, data: &[u8]) -> Attempt<bool> {
        let (at, message) = match pgoutput::read(data).ok_or_else(|| damaged(&self.shared))? {
            Streamed::Alive(end, asks) => {
                // Within a transaction it says nothing: the server may be ahead of what it has sent.
                if self.transaction.is_none() && end > self.place.lsn {
                    // A transaction of which a part was read is still to come, unless its commit is before that.
                    let within = self.place.within.filter(|within| within.commit >= end);
                    self.move_to(end, within);
                }
                if asks {
                    self.tell(true)?;
                }
                return Ok(true);
            }
            Streamed::Data(at, message) => (at, message),
        };
        match message {
            Message::Begin(commit) => {
                if self.is_at_end(commit) {
                    self.move_to(commit, None);
                    self.send()?;
                    return Ok(false);
                }
                self.transaction = Some((commit, Lsn(0)));
            }
            Message::Commit(end) => {
                self.transaction = None;
                self.move_to(end, None);
                if self.gathered.is_full(self.follow.rows_most) {
                    return self.send();
                }
            }
            Message::Relation(relation) => self.meet(&relation)?,
            Message::Truncate(tables) if tables.contains(&self.shared.number) => {
                return Err(Failure::Final(Error::data(format!(
                    "{}: the table was emptied by TRUNCATE, which says of no key that it is gone. Start anew, with another checkpoint path \
                     and slot; a publication with publish = 'insert, update, delete' leaves TRUNCATE out",
                    self.shared.call()
                ))));
            }
            Message::Insert(table, row) if table == self.shared.number => return self.change(at, INSERT, None, Some(&row), data.len()),
            Message::Update(table, former, row) if table == self.shared.number => {
                return self.change(at, UPDATE, former.as_deref(), Some(&row), data.len());
            }
            Message::Delete(table, former) if table == self.shared.number => {
                return self.change(at, DELETE, Some(&former), None, data.len());
            }
            _ => {}
        }
        Ok(true)
    }

    /// All transactions whose commit is before this place were read.
    fn move_to(&mut self, lsn: Lsn, within: Option<Within>) {
        self.place.lsn = lsn;
        self.place.within = within;
        self.place.forget_parts();
        self.has_moved = true;
        self.gathered.mark(&self.place);
    }

    /// Compares a table, as it was when it was changed, with what it was when the source was declared.
    fn meet(&mut self, relation: &Relation) -> Attempt<()> {
        let shared = &self.shared;
        let call = shared.call();
        let is_ours = relation.number == shared.number;
        let is_named_so = relation.table == shared.table.table && shared.table.schema.as_deref() == Some(relation.schema.as_str());
        if !is_ours {
            if is_named_so {
                return Err(Failure::Final(Error::schema(format!(
                    "{call}: the table is another one now: it was dropped and created again; start over, with another checkpoint path and slot"
                ))));
            }
            return Ok(());
        }
        let mut columns = Vec::with_capacity(shared.kinds.len());
        for ((field, form), (kind, modifier)) in shared.rows.columns.iter().zip(&shared.kinds) {
            let Some(place) = relation.columns.iter().position(|column| column.name == *field.name()) else {
                return Err(Failure::Final(Error::schema(format!(
                    "{call}: column {:?} is not in the changes of the table after {}: it was dropped, renamed, added later or left out of the \
                     publication; leave it out with columns=, or start over, with another checkpoint path and slot",
                    field.name(),
                    self.place.lsn
                ))));
            };
            let column = &relation.columns[place];
            if (column.kind, column.modifier) != (*kind, *modifier) {
                return Err(Failure::Final(Error::schema(format!(
                    "{call}: column {:?} is of another type in the changes of the table after {} than {}, which it was when the source was \
                     declared: the table was altered; leave the column out with columns=, or start over, with another checkpoint path and slot",
                    field.name(),
                    self.place.lsn,
                    form.declared()
                ))));
            }
            columns.push(place);
        }
        self.columns = Some(columns);
        Ok(())
    }

    /// Takes up a change; `false` if nobody wants more.
    fn change(&mut self, at: Lsn, op: &'static str, former: Option<&[Value<'_>]>, row: Option<&[Value<'_>]>, bytes: usize) -> Attempt<bool> {
        let Some((commit, last)) = self.transaction.as_mut() else { return Err(damaged(&self.shared)) };
        let commit = *commit;
        if self.place.within.is_some_and(|within| within.commit == commit && at <= within.at && *last == Lsn(0)) {
            // It was read before the connection was lost.
            return Ok(true);
        }
        let is_next = *last < at;
        *last = at;
        if is_next && self.gathered.is_begun() {
            self.gathered.mark(&self.place);
            if self.gathered.is_full(self.follow.rows_most) && !self.send()? {
                return Ok(false);
            }
        }
        let Some(columns) = self.columns.take() else { return Err(damaged(&self.shared)) };
        let outcome = self.rows(&columns, op, commit, former, row, bytes);
        self.columns = Some(columns);
        outcome?;
        self.place.within = Some(Within { commit, at });
        self.has_moved = true;
        Ok(true)
    }

    /// Adds what a change does to its key, or to two if it changes the key.
    fn rows(
        &mut self,
        columns: &[usize],
        op: &'static str,
        commit: Lsn,
        former: Option<&[Value<'_>]>,
        row: Option<&[Value<'_>]>,
        bytes: usize,
    ) -> Attempt<()> {
        let key = &self.shared.rows.key;
        let keys_of = |row: &[Value<'_>]| key.iter().all(|column| columns.get(column.place).and_then(|place| row.get(*place)).is_some());
        if !former.is_none_or(keys_of) || !row.is_none_or(keys_of) {
            return Err(damaged(&self.shared));
        }
        let place = |column: &KeyColumn| columns[column.place];
        let key_has_changed = match (former, row) {
            (Some(former), Some(row)) => key.iter().any(|column| {
                let now = row[place(column)];
                now != Value::Unchanged && now != former[place(column)]
            }),
            _ => false,
        };
        let has_parts = !self.place.parts.is_empty();
        if let Some(former) = former.filter(|_| row.is_none() || key_has_changed)
            && !(has_parts && self.place.shows(&self.key_of(columns, former)?, commit, key))
        {
            self.push(columns, DELETE, None, former, bytes)?;
        }
        if let Some(row) = row {
            if has_parts {
                let whole: Vec<Value<'_>> = row.iter().enumerate().map(|(place, value)| whole(*value, former, place)).collect();
                if self.place.shows(&self.key_of(columns, &whole)?, commit, &self.shared.rows.key) {
                    return Ok(());
                }
            }
            self.push(columns, op, former, row, bytes)?;
        }
        Ok(())
    }

    /// The key of a row.
    fn key_of(&self, columns: &[usize], row: &[Value<'_>]) -> Attempt<At> {
        let mut arrays = Vec::new();
        let mut key = self.shared.rows.key.clone();
        for (number, column) in key.iter_mut().enumerate() {
            let mut builder = Builder::new(&column.form).map_err(|e| Failure::Final(Error::internal(e)))?;
            let pushed = match row[columns[column.place]] {
                Value::Binary(bytes) => builder.push(Some(bytes)),
                _ => Err("it is not sent".to_owned()),
            };
            pushed.map_err(|why| no_key(&self.shared, &column.name, &why))?;
            arrays.push(builder.finish().map_err(|e| Failure::Final(Error::internal(e)))?);
            column.place = number;
        }
        Ok(At::of(&key, &arrays, 0)?)
    }

    /// Adds a row; of one that is deleted only the key.
    fn push(&mut self, columns: &[usize], op: &'static str, former: Option<&[Value<'_>]>, row: &[Value<'_>], bytes: usize) -> Attempt<()> {
        let Changes { shared, gathered, is_key, .. } = self;
        let mut wrong = None;
        for (((field, form), builder), (&place, &is_key)) in shared.rows.columns.iter().zip(&mut gathered.builders).zip(columns.iter().zip(&*is_key)) {
            let pushed = match row.get(place).map(|value| whole(*value, former, place)) {
                _ if op == DELETE && !is_key => builder.push(None),
                Some(Value::Null) if is_key => Err("it is null".to_owned()),
                Some(Value::Null) => builder.push(None),
                Some(Value::Binary(bytes)) => builder.push(Some(bytes)),
                Some(Value::Unchanged) => Err("the server does not send a long value that an update leaves as it is; ALTER TABLE … REPLICA \
                                               IDENTITY FULL makes it do so, or leave the column out with columns="
                    .to_owned()),
                Some(Value::Text) => Err(format!("{} comes as text", mill_frame::words::with_article(form.declared()))),
                None => Err("it is not sent".to_owned()),
            };
            if let Err(why) = pushed {
                if is_key {
                    return Err(no_key(shared, field.name(), &why));
                }
                let _ = builder.push(None);
                wrong.get_or_insert_with(|| format!("{}: column {:?}: {why}", shared.call(), field.name()));
            }
        }
        if let Some(why) = wrong {
            gathered.bad.push((gathered.ops.len(), why));
        }
        gathered.ops.push(op);
        gathered.bytes += bytes;
        Ok(())
    }

    /// Sends what was gathered, and the place after it; `false` if nobody wants it any more.
    fn send(&mut self) -> Attempt<bool> {
        if !self.has_moved {
            return Ok(true);
        }
        self.follow.reach("postgres.changes")?;
        self.gathered.mark(&self.place);
        let piece = self.gathered.finish(&self.shared, std::mem::replace(&mut self.start, self.place.clone()))?;
        let (session, told_at, told, shared) = (&mut self.session, &mut self.told_at, &mut self.told, &self.shared);
        let received = self.place.lsn;
        let mut idle = || tell(session, shared, received, told, told_at, false);
        if !self.follow.link.push(Item::Piece(piece), &mut idle)? {
            return Ok(false);
        }
        self.follow.place = Some(self.place.clone());
        self.has_moved = false;
        self.sent = Instant::now();
        // The wait for room was not the server's.
        self.follow.heard = self.sent;
        Ok(true)
    }

    /// Tells the server how far the job is, if that is new or it is time to.
    fn tell(&mut self, asks: bool) -> Attempt<()> {
        tell(&mut self.session, &self.shared, self.place.lsn, &mut self.told, &mut self.told_at, asks)
    }
}

fn damaged(shared: &Shared) -> Failure {
    Failure::Final(Error::connector(format!("{}: changes come in a form that is not known", shared.call())))
}

fn no_key(shared: &Shared, name: &str, why: &str) -> Failure {
    Failure::Final(Error::data(format!("{}: column {name:?} of the key: {why}", shared.call())))
}

fn tell(session: &mut Session, shared: &Shared, received: Lsn, told: &mut Lsn, told_at: &mut Instant, asks: bool) -> Attempt<()> {
    let kept = shared.kept();
    if kept <= *told && told_at.elapsed() < STATUS_EVERY && !asks {
        return Ok(());
    }
    // A server that has nothing to send says that it is there if it is asked.
    session.wire.send(&pgoutput::status(received.max(kept), kept, asks || told_at.elapsed() >= STATUS_EVERY))?;
    (*told, *told_at) = (kept.max(*told), Instant::now());
    Ok(())
}

/// A value, or the former one if it was not changed and that is known.
fn whole<'a>(value: Value<'a>, former: Option<&[Value<'a>]>, place: usize) -> Value<'a> {
    match value {
        Value::Unchanged => former.and_then(|former| former.get(place)).copied().filter(|former| *former != Value::Null).unwrap_or(value),
        value => value,
    }
}

impl Gathered {
    fn is_full(&self, rows_most: usize) -> bool {
        self.ops.len() >= rows_most || self.bytes >= BYTES_MAX
    }

    /// Whether there are rows after the last place.
    fn is_begun(&self) -> bool {
        self.marks.last().map_or(0, |mark| mark.end) < self.ops.len()
    }

    /// What was gathered ends at this place.
    fn mark(&mut self, place: &Place) {
        let mark = Mark { end: self.ops.len(), lsn: place.lsn, within: place.within };
        match self.marks.last_mut() {
            Some(last) if last.end == mark.end => *last = mark,
            _ => self.marks.push(mark),
        }
    }

    fn finish(&mut self, shared: &Shared, start: Place) -> Attempt<Piece> {
        self.bytes = 0;
        let columns = self.builders.iter_mut().map(Builder::finish).collect::<std::result::Result<Vec<_>, _>>();
        let columns = columns.map_err(|e| Failure::Final(Error::internal(e)))?;
        let schema = Arc::new(Schema::new(shared.rows.columns.iter().map(|(field, _)| field.clone()).collect::<Vec<_>>()));
        let ops: ArrayRef = Arc::new(StringArray::from(std::mem::take(&mut self.ops)));
        let batch = RecordBatch::try_new(schema, columns).and_then(|batch| with_ops(&batch, &shared.op, ops));
        let batch = batch.map_err(|e| Failure::Final(Error::internal(e.to_string())))?;
        Ok(Piece { batch, bad: std::mem::take(&mut self.bad), places: Places::Changes(start, std::mem::take(&mut self.marks)) })
    }
}
