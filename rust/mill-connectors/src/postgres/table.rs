//! The table that is written: made, or compared with the columns of the stream before the first record.

use ::postgres::{Client, Transaction};
use arrow::datatypes::SchemaRef;
use mill_protocol::{Error, Result};
use xxhash_rust::xxh3::xxh3_64;

use super::address::{Attempt, Failure};
use super::form::{self, Form};
use super::name::{TableName, identifier, identifiers};
use super::sink::Shared;
use crate::nearest::{did_you_mean, quoted};

/// The first version that has all that is asked of its catalog.
const VERSION_MIN: i32 = 120_000;

/// How rows are stored in the table.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    /// The table, with its schema.
    pub(super) table: TableName,
    /// In the order of the stream.
    pub(super) columns: Vec<Column>,
    /// Which of them are the key.
    pub(super) key: Option<Vec<usize>>,
    /// The table in which the rows of an epoch are gathered, if it is not a temporary one.
    stage: Option<TableName>,
}

/// A column of the table that is written.
#[derive(Clone, Debug)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) form: Form,
    /// As the server declares it.
    declared: String,
    pub(super) takes_null: bool,
}

/// A table as the server describes it.
struct Found {
    number: u32,
    schema: String,
    kind: i8,
    persistence: i8,
}

impl Layout {
    /// What kept rows were written for, to be compared when they are sent.
    pub(super) fn fingerprint(&self) -> String {
        let columns: Vec<String> = self.columns.iter().map(|column| format!("{} {}", identifier(&column.name), column.declared)).collect();
        let key: Vec<&str> = self.key.iter().flatten().map(|place| self.columns[*place].name.as_str()).collect();
        format!("({}) key ({})", columns.join(", "), identifiers(key))
    }

    fn names(&self) -> String {
        identifiers(self.columns.iter().map(|column| column.name.as_str()))
    }

    /// Adds rows to the table.
    pub(super) fn copy(&self) -> String {
        format!("COPY {} ({}) FROM STDIN (FORMAT binary)", self.table.sql(), self.names())
    }

    /// The same with a table of its own in which rows are gathered, for a transaction of this name.
    pub(super) fn with_own_stage(&self, name: &str) -> Layout {
        let table = format!("{STAGE}_{:016x}", xxh3_64(name.as_bytes()));
        Layout { stage: Some(TableName { schema: self.table.schema.clone(), table }), ..self.clone() }
    }

    fn stage(&self) -> String {
        self.stage.as_ref().map_or_else(|| format!("pg_temp.{STAGE}"), TableName::sql)
    }

    /// Removes a table of its own in which rows were gathered.
    pub(super) fn drop_stage(&self) -> String {
        format!("DROP TABLE {}", self.stage())
    }

    /// Where the rows of an epoch are gathered before those of the table are replaced: with their order, and whether they delete.
    pub(super) fn create_stage(&self) -> String {
        let columns: Vec<String> =
            self.columns.iter().enumerate().map(|(place, column)| format!("c{place} {}", column.declared)).collect();
        let (kind, end) = match self.stage {
            None => ("TEMP TABLE IF NOT EXISTS", " ON COMMIT DELETE ROWS"),
            Some(_) => ("UNLOGGED TABLE", ""),
        };
        format!(
            "CREATE {kind} {} (n bigint GENERATED ALWAYS AS IDENTITY (CACHE 1000), d boolean NOT NULL, {}){end}",
            self.stage(),
            columns.join(", ")
        )
    }

    pub(super) fn copy_to_stage(&self) -> String {
        let columns: Vec<String> = (0..self.columns.len()).map(|place| format!("c{place}")).collect();
        format!("COPY {} (d, {}) FROM STDIN (FORMAT binary)", self.stage(), columns.join(", "))
    }

    /// The last row of each key.
    fn latest(&self, key: &[usize]) -> String {
        let key: Vec<String> = key.iter().map(|place| format!("c{place}")).collect();
        let key = key.join(", ");
        format!("(SELECT DISTINCT ON ({key}) * FROM {} ORDER BY {key}, n DESC)", self.stage())
    }

    /// Whether a row of the table has the key of one that was gathered.
    fn matches(&self, key: &[usize]) -> String {
        let matches = key.iter().map(|place| {
            let column = &self.columns[*place];
            let equals = if column.takes_null { "IS NOT DISTINCT FROM" } else { "=" };
            format!("t.{} {equals} s.c{place}", identifier(&column.name))
        });
        matches.collect::<Vec<_>>().join(" AND ")
    }

    /// Deletes the rows whose last change was that.
    pub(super) fn delete(&self, key: &[usize]) -> String {
        format!("DELETE FROM {} AS t USING {} AS s WHERE s.d AND {}", self.table.sql(), self.latest(key), self.matches(key))
    }

    /// How many of the rows that were deleted are there nevertheless.
    pub(super) fn count_undeleted(&self, key: &[usize]) -> String {
        format!("SELECT count(*) FROM {} AS t, {} AS s WHERE s.d AND {}", self.table.sql(), self.latest(key), self.matches(key))
    }

    /// How many of the last rows that are not deletes have a row in the table.
    pub(super) fn count_there(&self, key: &[usize]) -> String {
        format!(
            "SELECT count(*) FROM {} AS s WHERE NOT s.d AND EXISTS (SELECT 1 FROM {} AS t WHERE {})",
            self.latest(key),
            self.table.sql(),
            self.matches(key)
        )
    }

    /// Inserts the other last rows, or replaces the rows of their keys.
    pub(super) fn upsert(&self, key: &[usize]) -> String {
        let columns: Vec<String> = (0..self.columns.len()).map(|place| format!("s.c{place}")).collect();
        let rest: Vec<String> = (0..self.columns.len())
            .filter(|place| !key.contains(place))
            .map(|place| format!("{0} = excluded.{0}", identifier(&self.columns[place].name)))
            .collect();
        let keys = identifiers(key.iter().map(|place| self.columns[*place].name.as_str()));
        let action = if rest.is_empty() { "NOTHING".to_owned() } else { format!("UPDATE SET {}", rest.join(", ")) };
        format!(
            "INSERT INTO {} ({}) SELECT {} FROM {} AS s WHERE NOT s.d ON CONFLICT ({keys}) DO {action}",
            self.table.sql(),
            self.names(),
            columns.join(", "),
            self.latest(key)
        )
    }

    /// How many of the last rows are not deletes.
    pub(super) fn count(&self, key: &[usize]) -> String {
        format!("SELECT count(*) FROM {} AS s WHERE NOT s.d", self.latest(key))
    }

    /// Whether an upsert says of every row that it was written.
    pub(super) fn counts_all(&self, key: &[usize]) -> bool {
        key.len() < self.columns.len()
    }
}

/// The temporary table of a connection.
const STAGE: &str = "_millstream_stage";

/// Whether there is such a table.
pub(super) fn exists(shared: &Shared, client: &mut Client) -> Attempt<bool> {
    Ok(find(shared, client)?.is_some())
}

fn find(shared: &Shared, client: &mut Client) -> Attempt<Option<Found>> {
    let sql = "SELECT c.oid, n.nspname::text, c.relkind, c.relpersistence FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
               WHERE c.oid = to_regclass($1)::oid";
    let rows = client.query(sql, &[&shared.table.sql()]).map_err(|e| shared.failure("look at the table", &e))?;
    Ok(rows.first().map(|row| Found { number: row.get(0), schema: row.get(1), kind: row.get(2), persistence: row.get(3) }))
}

/// Makes the table if there is none, and compares it with the columns of the stream.
pub(super) fn open(shared: &Shared, client: &mut Client) -> Attempt<Layout> {
    let schema = shared.schema()?;
    let version: String = client
        .query_one("SELECT current_setting('server_version_num')", &[])
        .map_err(|e| shared.failure("ask for the version of the server", &e))?
        .get(0);
    if version.parse::<i32>().is_ok_and(|version| version < VERSION_MIN) {
        return Err(Error::connector(format!("{}: the server is older than PostgreSQL 12", shared.call())).into());
    }
    let found = match find(shared, client)? {
        Some(found) => found,
        None if !shared.creates => {
            return Err(Error::schema(format!("{}: there is no table {}, and create is False", shared.call(), shared.table.sql())).into());
        }
        None => {
            let sql = create(&shared.table, &schema, shared.key.as_deref())?;
            client.batch_execute(&sql).map_err(|e| match e.code().map(|code| code.code()) {
                // Two that make it at once: it is there when the loser looks again.
                Some("23505" | "42P07" | "42710") => Failure::Again(shared.failure("make the table", &e).into_error()),
                _ => shared.failure("make the table", &e),
            })?;
            find(shared, client)?
                .ok_or_else(|| Error::connector(format!("{}: the table was made and is gone", shared.call())))?
        }
    };
    let refused = |why: &str| Error::schema(format!("{}: {} {why}", shared.call(), shared.table.sql()));
    match found.kind as u8 {
        b'r' | b'p' => {}
        b'v' | b'm' => return Err(refused("is a view; write into a table").into()),
        b'f' => return Err(refused("is a foreign table, which is not part of a transaction here; write into a table").into()),
        _ => return Err(refused("is not a table").into()),
    }
    match found.persistence as u8 {
        b'p' => {}
        b'u' => {
            return Err(refused("is UNLOGGED: a crash of the server would empty it; ALTER TABLE … SET LOGGED, or write into another one").into());
        }
        _ => return Err(refused("is a temporary table, which is gone with its connection").into()),
    }
    let table = TableName { schema: Some(found.schema), table: shared.table.table.clone() };
    let columns = columns(shared, client, &table, found.number, &schema)?;
    let mut layout = Layout { table, columns, key: None, stage: None };
    if let Some(key) = &shared.key {
        let places: Vec<usize> = key.iter().filter_map(|name| layout.columns.iter().position(|column| column.name == *name)).collect();
        let takes_null = unique(shared, client, found.number, key)?;
        for place in &places {
            layout.columns[*place].takes_null &= takes_null;
        }
        layout.key = Some(places);
    }
    Ok(layout)
}

/// Refuses a table that was altered since it was opened, and keeps it from being altered until the transaction ends: binary rows
/// do not say what they are.
pub(super) fn check_unchanged(shared: &Shared, layout: &Layout, transaction: &mut Transaction<'_>) -> Attempt<()> {
    let name = layout.table.sql();
    let locked = transaction.batch_execute(&format!("LOCK TABLE {name} IN ROW EXCLUSIVE MODE"));
    locked.map_err(|e| shared.failure("lock the table", &e))?;
    let sql = "SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute \
               WHERE attrelid = to_regclass($1)::oid AND attnum > 0 AND NOT attisdropped";
    let rows = transaction.query(sql, &[&name]).map_err(|e| shared.failure("look at the table", &e))?;
    for column in &layout.columns {
        let now = rows.iter().find(|row| row.get::<_, &str>(0) == column.name).map(|row| row.get::<_, String>(1));
        if now.as_ref() != Some(&column.declared) {
            let now = now.map_or("is gone".to_owned(), |now| format!("is {now} now"));
            return Err(Failure::Final(Error::schema(format!(
                "{}: the column {:?} of the table was {} when the job began, and {now}; put it back as it was, until the rows that wait are \
                 written",
                shared.call(),
                column.name,
                column.declared
            ))));
        }
    }
    Ok(())
}

/// Declares a table for these columns.
fn create(table: &TableName, schema: &SchemaRef, key: Option<&[String]>) -> Result<String> {
    let mut parts = Vec::new();
    for field in schema.fields() {
        let form = Form::for_column(field.data_type()).ok_or_else(|| Error::internal("the types were checked"))?;
        parts.push(format!("{} {}", identifier(field.name()), form.declared()));
    }
    if let Some(key) = key {
        parts.push(format!("PRIMARY KEY ({})", identifiers(key.iter().map(String::as_str))));
    }
    Ok(format!("CREATE TABLE IF NOT EXISTS {} ({})", table.sql(), parts.join(", ")))
}

/// The columns of the table in the order of the stream.
fn columns(shared: &Shared, client: &mut Client, table: &TableName, number: u32, schema: &SchemaRef) -> Attempt<Vec<Column>> {
    let call = shared.call();
    let statement = client
        .prepare(&format!("SELECT * FROM {}", table.sql()))
        .map_err(|e| shared.failure("look at the table", &e))?;
    let sql = "SELECT attname::text, attnotnull, atthasdef, attgenerated::text <> '', attidentity::text, format_type(atttypid, atttypmod) \
               FROM pg_attribute WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped ORDER BY attnum";
    let rows = client.query(sql, &[&number]).map_err(|e| shared.failure("look at the table", &e))?;
    let there: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let mut columns = Vec::new();
    for field in schema.fields() {
        let name = field.name();
        let (Some(row), Some(described)) = (
            rows.iter().find(|row| row.get::<_, &str>(0) == name),
            statement.columns().iter().find(|column| column.name() == name),
        ) else {
            return Err(Error::schema(format!(
                "{call}: the table has no column {name:?}{} (it has {}); rename() the column, or write into another table",
                did_you_mean(name, there.iter().map(String::as_str)),
                quoted(&there, ", ")
            ))
            .into());
        };
        let (not_null, is_generated, identity, declared): (bool, bool, String, String) = (row.get(1), row.get(3), row.get(4), row.get(5));
        if is_generated || identity == "a" {
            return Err(Error::schema(format!(
                "{call}: the column {name:?} of the table is GENERATED ALWAYS, so it takes no values; drop() it"
            ))
            .into());
        }
        let form = Form::of(described.type_(), described.type_modifier()).filter(|form| {
            form.holds(field.data_type()) && !form::rounds(described.type_(), described.type_modifier())
        });
        let Some(form) = form else {
            let wanted = Form::for_column(field.data_type()).map(|form| form.declared()).unwrap_or_default();
            return Err(Error::schema(format!(
                "{call}: the column {name:?} of the table is {declared}, which does not hold every {} of the stream as it is; declare it \
                 {wanted}, cast() the column, or write into another table",
                form::shown(field.data_type())
            ))
            .into());
        };
        columns.push(Column { name: name.clone(), form, declared, takes_null: !not_null });
    }
    for row in &rows {
        let (name, not_null, has_default, identity): (&str, bool, bool, String) = (row.get(0), row.get(1), row.get(2), row.get(4));
        if not_null && !has_default && identity.is_empty() && schema.field_with_name(name).is_err() {
            return Err(Error::schema(format!(
                "{call}: the column {name:?} of the table is NOT NULL and has no default, and the stream does not have it; add it with \
                 with_columns()"
            ))
            .into());
        }
    }
    Ok(columns)
}

/// Whether the unique index on the key takes two nulls for the same; an error if there is no such index.
fn unique(shared: &Shared, client: &mut Client, number: u32, key: &[String]) -> Attempt<bool> {
    let sql = "SELECT ARRAY(SELECT a.attname::text FROM unnest((i.indkey::int2[])[0:i.indnkeyatts - 1]) AS k \
                     JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k), \
                 coalesce((to_jsonb(i) ->> 'indnullsnotdistinct')::boolean, false), \
                 EXISTS (SELECT 1 FROM unnest(i.indcollation::oid[]) AS c JOIN pg_collation AS l ON l.oid = c WHERE NOT l.collisdeterministic) \
               FROM pg_index AS i \
               WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL";
    let rows = client.query(sql, &[&number]).map_err(|e| shared.failure("look at the indexes of the table", &e))?;
    let mut wanted: Vec<&str> = key.iter().map(String::as_str).collect();
    wanted.sort_unstable();
    let mut takes_null = None;
    for row in &rows {
        let mut names: Vec<String> = row.get(0);
        names.sort();
        if names != wanted {
            continue;
        }
        if row.get(2) {
            return Err(Error::schema(format!(
                "{}: the key of the table compares text with a collation that takes different keys for the same; declare it without, or \
                 write into another table",
                shared.call()
            ))
            .into());
        }
        takes_null = Some(takes_null.unwrap_or(true) && row.get::<_, bool>(1));
    }
    Ok(takes_null.ok_or_else(|| {
        Error::schema(format!(
            "{}: the table has no primary key or unique index on ({}); make one, or write into another table",
            shared.call(),
            quoted(key, ", ")
        ))
    })?)
}
