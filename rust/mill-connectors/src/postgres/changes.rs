//! The changes of a table as a source: logical replication.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::postgres::Client;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use mill_protocol::{Error, PositionListener, Result, Source, SourceChanges, SourceProperties, Split, SplitReader, SplitState, go_on};

use super::acknowledge::Acknowledge;
use super::address::{Address, Attempt, Failure};
use super::change_place::Place;
use super::change_reader::ChangeReader;
use super::form::Form;
use super::keys::{KeyColumn, can_order};
use super::name::{TableName, identifier, identifiers};
use super::pgoutput::Lsn;
use super::session::Session;
use super::source;
use crate::nearest::{did_you_mean, quoted};

/// Values have a binary form in a stream since this version.
const VERSION_MIN: i32 = 140_000;
/// The longest name of a slot.
const SLOT_BYTES_MAX: usize = 63;
/// How long a server is waited for before the first record.
const BEGIN_WAIT: Duration = Duration::from_secs(10);
const BEGIN_PAUSE: Duration = Duration::from_millis(100);
const FUNCTION: &str = "read_postgres_changes";

/// How the changes of a table are read.
#[derive(Clone, Default)]
pub struct PostgresChangesOptions {
    /// The password, where the URL has none.
    pub password: Option<String>,
    /// The table, where the publication has several.
    pub table: Option<String>,
    /// The columns that are read, the key among them; all of them by default.
    pub columns: Option<Vec<String>>,
    /// Whether a slot that does not exist is an error.
    pub must_exist: bool,
    /// Whether the rows that are there are left out.
    pub only_changes: bool,
    /// Whether reading ends at what the server has when the job starts.
    pub ends: bool,
}

/// The changes of a table.
#[derive(Clone)]
pub struct PostgresChanges {
    shared: Arc<Shared>,
    schema: SchemaRef,
}

/// What the source and its reader share.
pub(super) struct Shared {
    /// The table, as a source of rows.
    pub(super) rows: source::Shared,
    pub(super) publication: String,
    pub(super) slot: String,
    pub(super) creates: bool,
    pub(super) has_snapshot: bool,
    pub(super) ends: bool,
    /// As whom to connect, and to which database.
    pub(super) user: String,
    pub(super) database: String,
    /// The number and the name of the table.
    pub(super) number: u32,
    pub(super) table: TableName,
    /// The type of each column that is read, as the catalog has it.
    pub(super) kinds: Vec<(u32, i32)>,
    /// The column that says what becomes of a key.
    pub(super) op: String,
    /// Up to where the log was read by a completed checkpoint of this run.
    kept: Arc<AtomicU64>,
}

impl Shared {
    /// The call, for messages.
    pub(super) fn call(&self) -> String {
        self.rows.call()
    }

    /// Up to where this run has no need of the log any more.
    pub(super) fn kept(&self) -> Lsn {
        // Relaxed: no other data depends on the number.
        Lsn(self.kept.load(Ordering::Relaxed))
    }

    /// A completed checkpoint has read the log up to here.
    pub(super) fn keep(&self, lsn: Lsn) {
        // Relaxed: as above.
        self.kept.fetch_max(lsn.0, Ordering::Relaxed);
    }

    /// The same with other columns.
    fn with(&self, rows: source::Shared, kinds: Vec<(u32, i32)>) -> Shared {
        Shared {
            rows,
            publication: self.publication.clone(),
            slot: self.slot.clone(),
            creates: self.creates,
            has_snapshot: self.has_snapshot,
            ends: self.ends,
            user: self.user.clone(),
            database: self.database.clone(),
            number: self.number,
            table: self.table.clone(),
            kinds,
            op: self.op.clone(),
            kept: Arc::clone(&self.kept),
        }
    }
}

/// A table of a publication.
struct Published {
    table: TableName,
    columns: Option<Vec<String>>,
    filter: Option<String>,
}

impl PostgresChanges {
    /// The changes of a table that a publication has; the server is asked for its columns.
    ///
    /// # Errors
    /// When the server cannot be reached or replicates nothing, or the table cannot be read.
    pub fn new(url: &str, publication: &str, slot: &str, options: PostgresChangesOptions) -> Result<PostgresChanges> {
        let call = "read_postgres_changes()";
        let is_slot = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        if slot.is_empty() || slot.len() > SLOT_BYTES_MAX || !slot.bytes().all(is_slot) {
            return Err(Error::plan(format!(
                "{call}: {slot:?} is no name of a slot: it has lower-case letters, digits and underscores, {SLOT_BYTES_MAX} at most"
            )));
        }
        let address = Address::new(call, url, options.password.as_deref())?;
        let mut client = address.connect(call).map_err(Failure::into_error)?;
        Declared { call, address: &address, client: &mut client }.source(publication, slot, options).map_err(Failure::into_error)
    }

    /// Connects as replication asks for it, and compares the slot with places before the first record.
    fn begin(&self, places: &[Option<Place>]) -> Result<Session> {
        let end = Instant::now() + BEGIN_WAIT;
        loop {
            let once = || -> Attempt<Session> {
                let mut session = Session::open(&self.shared)?;
                for place in places {
                    session.check_slot(&self.shared, place.as_ref(), &|| false)?;
                }
                Ok(session)
            };
            match once() {
                Ok(session) => return Ok(session),
                Err(Failure::Again(_)) if Instant::now() < end => std::thread::sleep(BEGIN_PAUSE),
                Err(failure) => return Err(failure.into_error()),
            }
        }
    }

    /// The one split, with the place where reading ends.
    fn split(&self, session: &Session) -> Split {
        let detail = if self.shared.ends { session.flushed.to_string().into_bytes() } else { Vec::new() };
        let name = self.name();
        Split { detail, ..Split::new(name) }
    }
}

/// What the server says of a table when the source is declared.
struct Declared<'a> {
    call: &'a str,
    address: &'a Address,
    client: &'a mut Client,
}

impl Declared<'_> {
    fn failed(&self, doing: &str, error: &::postgres::Error) -> Failure {
        self.address.failure(self.call, doing, error)
    }

    fn source(mut self, publication: &str, slot: &str, options: PostgresChangesOptions) -> Attempt<PostgresChanges> {
        let call = self.call;
        let sql = "SELECT current_setting('server_version_num')::int, current_setting('wal_level'), session_user::text, \
                   current_database()::text, current_setting('server_encoding')";
        let row = self.client.query_one(sql, &[]).map_err(|e| self.failed("look at the server", &e))?;
        let (version, level, encoding): (i32, String, String) = (row.get(0), row.get(1), row.get(4));
        let (user, database): (String, String) = (row.get(2), row.get(3));
        if version < VERSION_MIN {
            return Err(Failure::Final(Error::connector(format!(
                "{call}: the server is PostgreSQL {}; changes are read from PostgreSQL 14 or newer",
                version / 10_000
            ))));
        }
        if level != "logical" {
            return Err(Failure::Final(Error::connector(format!(
                "{call}: wal_level is {level}, so the server does not write what changes are made of: set wal_level = logical in \
                 postgresql.conf and start the server anew"
            ))));
        }
        let published = self.published(publication, options.table.as_deref(), version)?;
        let sql = "SELECT c.oid, c.relreplident::text, c.relkind::text FROM pg_class AS c WHERE c.oid = to_regclass($1)::oid";
        let row = self.client.query_one(sql, &[&published.table.sql()]).map_err(|e| self.failed("look at the table", &e))?;
        let (number, identity, kind): (u32, String, String) = (row.get(0), row.get(1), row.get(2));
        let key_names = self.key(&published.table, number, &identity)?;
        let (columns, kinds) = self.columns(&published, number, options.columns.as_deref())?;
        let mut key = Vec::new();
        for name in key_names {
            let Some(place) = columns.iter().position(|(field, _)| *field.name() == name) else {
                return Err(Failure::Final(Error::plan(format!(
                    "{call}: {name:?} is part of the key of table {:?} and is not among the columns that are read",
                    published.table.table
                ))));
            };
            let form = columns[place].1.clone();
            let is_text = matches!(form, Form::Text(_) | Form::Label);
            if !can_order(&form) || (is_text && encoding != "UTF8") {
                let why = if is_text { format!("text in a database in {encoding}; UTF8 is needed for that") } else { form.declared() };
                return Err(Failure::Final(Error::schema(format!(
                    "{call}: {name:?} is part of the key of table {:?} and is {why}: a key is made of whole numbers, decimals, text, bytes, \
                     dates or times",
                    published.table.table
                ))));
            }
            key.push(KeyColumn { name, form, place, is_never_null: true, is_by_bytes: true });
        }
        let names = identifiers(columns.iter().map(|(field, _)| field.name().as_str()));
        let only = if kind == "r" { "ONLY " } else { "" };
        let filter = published.filter.map(|filter| format!(" WHERE ({filter}\n)")).unwrap_or_default();
        let relation = format!("(SELECT {names} FROM {only}{}{filter})", published.table.sql());
        let fields: Vec<Field> = columns.iter().map(|(field, _)| field.clone()).collect();
        let mut op = "__op".to_owned();
        while fields.iter().any(|field| *field.name() == op) {
            op.push('_');
        }
        let mut all = fields;
        all.push(Field::new(&op, DataType::Utf8, false));
        let width = columns.len();
        let shown = format!("{publication}.{}", published.table.table);
        let rows = source::Shared { address: self.address.clone(), function: FUNCTION, shown, relation, columns, key, width, growth: None };
        let shared = Shared {
            rows,
            publication: publication.to_owned(),
            slot: slot.to_owned(),
            creates: !options.must_exist,
            has_snapshot: !options.only_changes,
            ends: options.ends,
            user,
            database,
            number,
            table: published.table,
            kinds,
            op,
            kept: Arc::default(),
        };
        Ok(PostgresChanges { shared: Arc::new(shared), schema: Arc::new(Schema::new(all)) })
    }

    /// The table that is read, of those that the publication has.
    fn published(&mut self, publication: &str, table: Option<&str>, version: i32) -> Attempt<Published> {
        let call = self.call;
        let sql = "SELECT pubinsert, pubupdate, pubdelete FROM pg_publication WHERE pubname = $1";
        let row = self.client.query_opt(sql, &[&publication]).map_err(|e| self.failed("look at the publication", &e))?;
        let Some(row) = row else {
            let rows = self.client.query("SELECT pubname::text FROM pg_publication", &[]);
            let names: Vec<String> = rows.map_err(|e| self.failed("look for publications", &e))?.iter().map(|row| row.get(0)).collect();
            return Err(Failure::Final(Error::plan(format!(
                "{call}: the database has no publication {publication:?}{}; make it with CREATE PUBLICATION {} FOR TABLE …",
                did_you_mean(publication, names.iter().map(String::as_str)),
                identifier(publication)
            ))));
        };
        let published: [(&str, bool); 3] = [("insert", row.get(0)), ("update", row.get(1)), ("delete", row.get(2))];
        let missing: Vec<&str> = published.iter().filter(|(_, is_there)| !is_there).map(|(name, _)| *name).collect();
        if !missing.is_empty() {
            return Err(Failure::Final(Error::plan(format!(
                "{call}: publication {publication:?} leaves out {}, without which the stream is not what the table is; \
                 ALTER PUBLICATION … SET (publish = 'insert, update, delete')",
                missing.join(" and ")
            ))));
        }
        let more = if version >= 150_000 { "attnames::text[], rowfilter" } else { "NULL::text[], NULL::text" };
        let sql = format!("SELECT schemaname::text, tablename::text, {more} FROM pg_publication_tables WHERE pubname = $1 ORDER BY 1, 2");
        let rows = self.client.query(&sql, &[&publication]).map_err(|e| self.failed("look at the publication", &e))?;
        let mut found: Vec<Published> = rows
            .iter()
            .map(|row| Published {
                table: TableName { schema: Some(row.get(0)), table: row.get(1) },
                columns: row.get(2),
                filter: row.get(3),
            })
            .collect();
        let names: Vec<String> =
            found.iter().map(|one| format!("{}.{}", one.table.schema.as_deref().unwrap_or_default(), one.table.table)).collect();
        let Some(table) = table else {
            return match found.len() {
                1 => Ok(found.remove(0)),
                0 => Err(Failure::Final(Error::plan(format!("{call}: publication {publication:?} has no tables")))),
                _ => Err(Failure::Final(Error::plan(format!(
                    "{call}: publication {publication:?} has several tables, {}; say which one is read with table=",
                    quoted(&names, ", ")
                )))),
            };
        };
        let name = TableName::parse(call, table)?;
        let sql = "SELECT n.nspname::text, c.relname::text FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace \
                   WHERE c.oid = to_regclass($1)::oid";
        let row = self.client.query_opt(sql, &[&name.sql()]).map_err(|e| self.failed("look for the table", &e))?;
        let whole = row.map(|row| TableName { schema: Some(row.get(0)), table: row.get(1) });
        let place = found.iter().position(|one| whole.as_ref().is_some_and(|whole| *whole == one.table));
        place.map(|place| found.remove(place)).ok_or_else(|| {
            Failure::Final(Error::plan(format!(
                "{call}: publication {publication:?} has no table {table:?}{}",
                did_you_mean(table, names.iter().map(String::as_str))
            )))
        })
    }

    /// The columns by which the server says which row has changed.
    fn key(&mut self, table: &TableName, number: u32, identity: &str) -> Attempt<Vec<String>> {
        let call = self.call;
        let index = if identity == "i" { "i.indisreplident" } else { "i.indisprimary" };
        let sql = format!(
            "SELECT a.attname::text, i.indimmediate FROM pg_index AS i CROSS JOIN unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, place) \
             JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k.attnum \
             WHERE i.indrelid = $1 AND {index} AND k.place <= i.indnkeyatts ORDER BY k.place"
        );
        let rows = self.client.query(&sql, &[&number]).map_err(|e| self.failed("look at the key of the table", &e))?;
        if rows.is_empty() || identity == "n" {
            let why = if identity == "n" { "its replica identity is NOTHING" } else { "it has no primary key" };
            return Err(Failure::Final(Error::plan(format!(
                "{call}: the server does not say of table {:?} which row an update or a deletion is of: {why}. Give it a primary key \
                 and the identity of one (ALTER TABLE … REPLICA IDENTITY DEFAULT), or that of a unique index (REPLICA IDENTITY USING INDEX …)",
                table.table
            ))));
        }
        if rows.iter().any(|row| !row.get::<_, bool>(1)) {
            return Err(Failure::Final(Error::plan(format!(
                "{call}: the key of table {:?} is DEFERRABLE: within a transaction two rows may have the same key, so the order of their \
                 changes does not say which one stays. Make the key anew without DEFERRABLE, or take another unique index (REPLICA \
                 IDENTITY USING INDEX …)",
                table.table
            ))));
        }
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// The columns that are read, and their types in the catalog.
    fn columns(&mut self, published: &Published, number: u32, chosen: Option<&[String]>) -> Attempt<(Vec<(Field, Form)>, Vec<(u32, i32)>)> {
        let call = self.call;
        let sql = "SELECT attname::text, atttypid, atttypmod FROM pg_attribute \
                   WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attnum";
        let rows = self.client.query(sql, &[&number]).map_err(|e| self.failed("look at the table", &e))?;
        let mut all: Vec<(String, (u32, i32))> = rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect();
        if let Some(published) = &published.columns {
            all.retain(|(name, _)| published.contains(name));
        }
        let wanted: Vec<(String, (u32, i32))> = match chosen {
            None => all,
            Some(names) => {
                let mut wanted: Vec<(String, (u32, i32))> = Vec::new();
                for name in names {
                    let Some(one) = all.iter().find(|(column, _)| column == name) else {
                        return Err(Failure::Final(Error::schema(format!(
                            "{call}: columns names {name:?}, which the publication does not have of table {:?}{}",
                            published.table.table,
                            did_you_mean(name, all.iter().map(|(column, _)| column.as_str()))
                        ))));
                    };
                    if wanted.contains(one) {
                        return Err(Failure::Final(Error::plan(format!("{call}: columns names {name:?} twice"))));
                    }
                    wanted.push(one.clone());
                }
                wanted
            }
        };
        let names = identifiers(wanted.iter().map(|(name, _)| name.as_str()));
        let statement = self.client.prepare(&format!("SELECT {names} FROM {}", published.table.sql()));
        let statement = statement.map_err(|e| self.failed("read the table", &e))?;
        let mut columns = Vec::new();
        for column in statement.columns() {
            let refused = |why: &str| {
                Failure::Final(Error::schema(format!(
                    "{call}: column {:?} of table {:?} is of type {}, which {why}; leave it out: say with columns= which ones are read",
                    column.name(),
                    published.table.table,
                    column.type_().name()
                )))
            };
            let form = Form::of(column.type_(), column.type_modifier()).ok_or_else(|| refused("no column here has"))?;
            let data_type = match &form {
                Form::Numeric(None) => return Err(refused("has values of any number of digits, unless the table declares how many")),
                form => form.column().map_err(refused)?,
            };
            columns.push((Field::new(column.name(), data_type, true), form));
        }
        Ok((columns, wanted.into_iter().map(|(_, kind)| kind).collect()))
    }
}

impl fmt::Debug for PostgresChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

impl Source for PostgresChanges {
    fn name(&self) -> String {
        format!("{FUNCTION}({:?}, {:?})", self.shared.rows.shown, self.shared.slot)
    }

    fn identity(&self) -> Option<String> {
        let shared = &self.shared;
        let rows = if shared.has_snapshot { "" } else { " without the existing rows" };
        Some(format!("{} {} of slot {:?}{rows}", shared.call(), shared.table.sql(), shared.slot))
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn changes(&self) -> Option<SourceChanges> {
        let key = self.shared.rows.key.iter().map(|column| column.name.clone()).collect();
        Some(SourceChanges { key, op: self.shared.op.clone() })
    }

    fn properties(&self) -> SourceProperties {
        SourceProperties { is_bounded: self.shared.ends, is_replayable: true, discovers_splits: false, may_block: true }
    }

    fn splits(&self, _is_ordered: bool) -> Result<Vec<Split>> {
        Ok(vec![self.split(&self.begin(&[None])?)])
    }

    fn resume(&self, _is_ordered: bool, left: Vec<SplitState>) -> Result<Vec<SplitState>> {
        let place = |state: &SplitState| {
            Place::decode(&self.shared.call(), state.position.as_deref().unwrap_or_default(), &self.shared.rows.key)
        };
        let places = left.iter().filter(|state| !state.is_ended).map(place).collect::<Result<Vec<_>>>()?;
        let session = self.begin(&places)?;
        go_on(&self.name(), vec![self.split(&session)], left)
    }

    fn position_listener(&self) -> Result<Option<Box<dyn PositionListener>>> {
        Ok(Some(Box::new(Acknowledge::new(Arc::clone(&self.shared)))))
    }

    fn of_run(&self) -> Result<Option<Arc<dyn Source>>> {
        // What one run has kept says nothing of what another one still needs.
        let from = &self.shared;
        let (rows, kinds) = (from.rows.clone(), from.kinds.clone());
        let shared = Arc::new(Shared { kept: Arc::default(), ..from.with(rows, kinds) });
        Ok(Some(Arc::new(PostgresChanges { shared, schema: Arc::clone(&self.schema) })))
    }

    fn open(&self, split: &Split, position: Option<&[u8]>) -> Result<Box<dyn SplitReader>> {
        let place = Place::decode(&self.shared.call(), position.unwrap_or_default(), &self.shared.rows.key)?;
        let until = match split.detail.as_slice() {
            [] => None,
            detail => {
                let text = String::from_utf8_lossy(detail);
                Some(text.parse::<Lsn>().map_err(|e| Error::checkpoint(format!("{}: {e}", self.shared.call())))?)
            }
        };
        Ok(Box::new(ChangeReader::new(Arc::clone(&self.shared), Arc::clone(&self.schema), place, until)))
    }

    fn project(&self, columns: &[usize]) -> Option<Arc<dyn Source>> {
        let schema = Arc::new(self.schema.project(columns).ok()?);
        let from = &self.shared;
        let op = self.schema.index_of(&from.op).ok()?;
        let names: Vec<usize> = columns.iter().copied().filter(|column| *column != op).collect();
        let mut chosen = names.iter().map(|column| {
            let name = self.schema.field(*column).name();
            from.rows.columns.iter().position(|(field, _)| field.name() == name)
        }).collect::<Option<Vec<usize>>>()?;
        let mut key = from.rows.key.clone();
        for column in &mut key {
            column.place = chosen.iter().position(|place| *place == column.place).unwrap_or_else(|| {
                chosen.push(column.place);
                chosen.len() - 1
            });
        }
        let rows = source::Shared {
            address: from.rows.address.clone(),
            function: from.rows.function,
            shown: from.rows.shown.clone(),
            relation: from.rows.relation.clone(),
            columns: chosen.iter().map(|place| from.rows.columns[*place].clone()).collect(),
            key,
            width: chosen.len(),
            growth: None,
        };
        let shared = from.with(rows, chosen.iter().map(|place| from.kinds[*place]).collect());
        Some(Arc::new(PostgresChanges { shared: Arc::new(shared), schema }))
    }
}
