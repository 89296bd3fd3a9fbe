//! Follows the rows that are added to a table, in the order of a column that a sequence fills.
//!
//! ```text
//!   the greatest key that is visible, H ─► who writes into the table now ─► all of them have ended ─► rows up to H, in a new snapshot
//! ```
//!
//! A row whose key is not above H got it from the sequence before the row of H did. The statement that adds a row holds its lock on the
//! table before it asks the sequence, and keeps it until its transaction ends. So such a row is either visible once H is, or its
//! transaction is among those that hold the lock after H was seen, and is visible when they have ended. Nothing comes later at or
//! below H, and H is the position. `docs/design/074` has the whole argument and what it asks of writers.

use std::collections::HashSet;
use std::thread::sleep;
use std::time::{Duration, Instant};

use ::postgres::types::ToSql;
use ::postgres::{Client, Row};
use mill_protocol::Error;

use super::address::{Address, Attempt, Failure};
use super::form::Form;
use super::keys::{At, KeyColumn};
use super::name::{TableName, identifier};
use super::reader::{begin, copy_rows};
use super::source::Shared;
use crate::table_reader::{Chunk, Link};

/// How often the server is asked for new rows.
const POLL: Duration = Duration::from_millis(100);
/// How often it is asked whether those who write have ended.
const WRITERS_POLL: Duration = Duration::from_millis(10);
/// In such steps a pause ends when nobody wants more rows.
const STEP: Duration = Duration::from_millis(10);

/// A table and its partitions, or those that inherit from it.
const PARTS: &str = "WITH RECURSIVE parts AS (SELECT to_regclass($1)::oid AS part \
                     UNION SELECT i.inhrelid FROM pg_inherits AS i JOIN parts ON i.inhparent = parts.part)";

/// Those who insert, and those who make parts or attach them. The latter hold a lock that maintenance takes, too.
const WRITERS: &str = "SELECT DISTINCT l.virtualtransaction FROM pg_locks AS l JOIN parts ON l.relation = parts.part \
                       WHERE l.locktype = 'relation' AND l.granted \
                       AND (l.mode IN ('RowExclusiveLock', 'AccessExclusiveLock') OR l.mode = 'ShareUpdateExclusiveLock' \
                            AND l.pid NOT IN (SELECT v.pid FROM pg_stat_progress_vacuum AS v)) \
                       AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())";

const LOOK: &str = "SELECT c.relkind::text, coalesce(a.attidentity::text, ''), coalesce(pg_get_expr(d.adbin, d.adrelid), ''), \
                    quote_ident(n.nspname) || '.' || quote_ident(k.relname), s.seqincrement, s.seqcache, s.seqcycle, \
                    has_sequence_privilege(k.oid, 'SELECT'), pg_is_in_recovery(), \
                    EXISTS (SELECT FROM pg_index AS i JOIN pg_class AS j ON j.oid = i.indexrelid JOIN pg_am AS m ON m.oid = j.relam \
                            WHERE i.indrelid = c.oid AND i.indkey[0] = a.attnum AND i.indisvalid AND i.indpred IS NULL AND m.amname = 'btree'), \
                    c.relpersistence::text, c.oid || '/' || k.oid || '/' || k.relfilenode, \
                    (SELECT min(x.attrelid::regclass::text) FROM parts JOIN pg_attribute AS x ON x.attrelid = parts.part AND x.attname = $2 \
                     LEFT JOIN pg_attrdef AS e ON e.adrelid = x.attrelid AND e.adnum = x.attnum \
                     JOIN pg_depend AS y ON y.classid = 'pg_attrdef'::regclass AND y.objid = e.oid AND y.refclassid = 'pg_class'::regclass \
                          OR y.classid = 'pg_class'::regclass AND y.refclassid = 'pg_class'::regclass AND y.deptype = 'i' \
                             AND y.refobjid = x.attrelid AND y.refobjsubid = x.attnum \
                     JOIN pg_sequence AS z ON z.seqrelid = CASE WHEN y.classid = 'pg_class'::regclass THEN y.objid ELSE y.refobjid END \
                     WHERE z.seqrelid <> s.seqrelid) \
                    FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attname = $2 AND NOT a.attisdropped \
                    LEFT JOIN pg_attrdef AS d ON d.adrelid = c.oid AND d.adnum = a.attnum \
                    LEFT JOIN pg_depend AS p ON CASE WHEN a.attidentity IN ('a', 'd') \
                        THEN p.classid = 'pg_class'::regclass AND p.refclassid = 'pg_class'::regclass AND p.deptype = 'i' \
                             AND p.refobjid = c.oid AND p.refobjsubid = a.attnum \
                        ELSE p.classid = 'pg_attrdef'::regclass AND p.objid = d.oid AND p.refclassid = 'pg_class'::regclass \
                             AND p.refobjid IN (SELECT seqrelid FROM pg_sequence) END \
                    LEFT JOIN pg_sequence AS s ON s.seqrelid = CASE WHEN a.attidentity IN ('a', 'd') THEN p.objid ELSE p.refobjid END \
                    LEFT JOIN pg_class AS k ON k.oid = s.seqrelid LEFT JOIN pg_namespace AS n ON n.oid = k.relnamespace \
                    WHERE c.oid = to_regclass($1)";

/// The table and the sequence, and whether that was restarted since: it then has another file.
const IDENTITY: &str = "SELECT (SELECT c.oid || '/' || k.oid || '/' || k.relfilenode FROM pg_class AS c, pg_class AS k \
                        WHERE c.oid = to_regclass($1) AND k.oid = to_regclass($2))";

/// How a table grows.
#[derive(Clone)]
pub(super) struct Growth {
    /// The table, as SQL.
    table: String,
    /// The column that a sequence fills.
    column: String,
    /// The sequence, as SQL.
    sequence: String,
    /// Which table and sequence these are: another table of the name has other rows under the same numbers.
    pub(super) identity: String,
}

impl Growth {
    /// Looks whether rows of a table can be followed in the order of a key.
    ///
    /// # Errors
    /// When rows could come later with a smaller key, and why.
    pub(super) fn of(
        call: &str,
        address: &Address,
        client: &mut Client,
        table: Option<&TableName>,
        what: &str,
        key: &[KeyColumn],
    ) -> Attempt<Growth> {
        let refused = |why: String| {
            Failure::Final(Error::plan(format!(
                "{call}: follow=True reads a table in the order of a column that a sequence fills (GENERATED … AS IDENTITY, or serial): \
                 {why}; read_postgres_changes() follows any table with a key"
            )))
        };
        let Some(table) = table else { return Err(refused("this is a query".to_owned())) };
        let names = key.iter().map(|column| format!("{:?}", column.name)).collect::<Vec<_>>().join(", ");
        let [KeyColumn { name, form: Form::Int2 | Form::Int4 | Form::Int8, .. }] = key else {
            return Err(refused(format!("order_by is {names} here, which is not one column of whole numbers")));
        };
        let rows = client.query(&format!("{PARTS} {LOOK}"), &[&table.sql(), name]).map_err(|e| address.failure(call, "look at the table", &e))?;
        let row = rows.into_iter().next();
        let Some(row) = row else { return Err(refused(format!("{what} is not there"))) };
        if !matches!(row.get::<_, &str>(0), "r" | "p") {
            return Err(refused(format!("{what} is a view or a foreign table")));
        }
        if row.get::<_, &str>(10) != "p" {
            return Err(refused(format!("{what} is UNLOGGED or temporary, and a crash of the server would empty it and set its sequence back")));
        }
        if row.get(8) {
            return Err(refused("the server is a standby, where it cannot be seen who writes".to_owned()));
        }
        let Some(sequence) = row.get::<_, Option<String>>(3).filter(|_| is_filled(&row)) else {
            return Err(refused(format!("no sequence fills column {name:?} of {what}")));
        };
        if let Some(part) = row.get::<_, Option<String>>(12) {
            return Err(refused(format!("column {name:?} of {part}, which is a part of {what}, is filled by another sequence")));
        }
        let (step, cache, cycles): (i64, i64, bool) = (row.get(4), row.get(5), row.get(6));
        if step < 1 || cycles {
            return Err(refused(format!("sequence {sequence} of column {name:?} {}", if cycles { "cycles" } else { "counts down" })));
        }
        if cache != 1 {
            return Err(refused(format!(
                "sequence {sequence} of column {name:?} has CACHE {cache}, so sessions hand out smaller numbers later; ALTER SEQUENCE \
                 {sequence} CACHE 1"
            )));
        }
        if !row.get::<_, bool>(7) {
            return Err(refused(format!(
                "sequence {sequence} of column {name:?} must be readable, to notice when it is set back; GRANT SELECT ON SEQUENCE {sequence}"
            )));
        }
        if !row.get::<_, bool>(9) {
            return Err(refused(format!("column {name:?} of {what} needs a B-tree index, because the greatest number is asked for again and again")));
        }
        Ok(Growth { table: table.sql(), column: name.clone(), sequence, identity: row.get(11) })
    }

    /// The greatest key after one, if there is any.
    ///
    /// # Errors
    /// When the sequence has not come so far: it will hand out numbers that were passed.
    fn greatest(&self, shared: &Shared, client: &mut Client, after: Option<i64>) -> Attempt<Option<i64>> {
        let call = shared.call();
        let (table, column) = (&self.table, identifier(&self.column));
        // The number is part of the text, so that the server can plan with it.
        let condition = after.map(|key| format!("WHERE q.{column} > ({key})")).unwrap_or_default();
        let sql = format!(
            "SELECT (SELECT q.{column}::int8 FROM {table} AS q {condition} ORDER BY q.{column} DESC LIMIT 1), \
             CASE WHEN s.is_called THEN s.last_value ELSE s.last_value - 1 END FROM {} AS s",
            self.sequence
        );
        let row = client.query_one(&sql, &[]).map_err(|e| shared.address.failure(&call, "look for new rows", &e))?;
        let (greatest, reached): (Option<i64>, i64) = (row.get(0), row.get(1));
        match greatest.or(after) {
            Some(key) if key > reached => Err(Failure::Final(Error::data(format!(
                "{call}: a row has {:?} {key}, but its sequence {} has only reached {reached}: either the sequence was set back, or the row \
                 did not get its number from it. Rows with numbers up to {key} that were added since are not read: add them again after the \
                 sequence is at {key} or more, with SELECT setval('{}', {key})",
                self.column, self.sequence, self.sequence
            )))),
            _ => Ok(greatest),
        }
    }

    /// Whether it is the table still, and its sequence was not restarted.
    fn check_identity(
        &self,
        shared: &Shared,
        ask: impl FnOnce(&str, &[&(dyn ToSql + Sync)]) -> std::result::Result<Row, ::postgres::Error>,
    ) -> Attempt<()> {
        let call = shared.call();
        let row = ask(IDENTITY, &[&self.table, &self.sequence]).map_err(|e| shared.address.failure(&call, "look at the table", &e))?;
        let is_same = row.get::<_, Option<String>>(0).is_some_and(|now| now == self.identity);
        if is_same { Ok(()) } else { Err(Failure::Final(replaced(&call))) }
    }

    /// Whether a position is one of this table.
    pub(super) fn continues(&self, call: &str, at: &At) -> mill_protocol::Result<()> {
        match &at.of {
            Some(of) if *of != self.identity => Err(replaced(call)),
            _ => Ok(()),
        }
    }

    /// The transactions that write into the table.
    fn writers(&self, shared: &Shared, client: &mut Client) -> Attempt<HashSet<String>> {
        let rows = client.query(&format!("{PARTS} {WRITERS}"), &[&self.table]).map_err(|e| shared.address.failure(&shared.call(), "see who writes", &e))?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// Returns when those who write into the table now have ended, or nobody wants more rows.
    fn wait(&self, shared: &Shared, client: &mut Client, link: &Link) -> Attempt<()> {
        let mut awaited = self.writers(shared, client)?;
        while !awaited.is_empty() && pause(link, WRITERS_POLL) {
            let now = self.writers(shared, client)?;
            link.hear();
            let before = awaited.len();
            let were_sessions = awaited.iter().any(|writer| !is_prepared(writer));
            awaited.retain(|writer| now.contains(writer));
            // One that has gone may have been prepared, under another name. This ends: only sessions become prepared ones.
            if were_sessions && awaited.len() < before {
                awaited.extend(now.into_iter().filter(|writer| is_prepared(writer)));
            }
        }
        Ok(())
    }
}

/// That the table is another one now, or its sequence was restarted.
fn replaced(call: &str) -> Error {
    Error::data(format!(
        "{call}: since rows were read, the table was replaced by another one, or its sequence was restarted (as by TRUNCATE … RESTART \
         IDENTITY): rows would have numbers that were passed, and would be missed. Start with another checkpoint path to read the table as it is now"
    ))
}

/// Whether the column's values come from its sequence and nothing else.
fn is_filled(row: &Row) -> bool {
    let (identity, default): (&str, &str) = (row.get(1), row.get(2));
    let is_serial = default.starts_with("nextval('") && default.ends_with("'::regclass)") && default.matches('(').count() == 1;
    !identity.is_empty() || is_serial
}

/// Whether a transaction in `pg_locks` is a prepared one.
fn is_prepared(writer: &str) -> bool {
    writer.starts_with('-')
}

/// Waits; returns whether anybody still wants rows.
fn pause(link: &Link, time: Duration) -> bool {
    let end = Instant::now() + time;
    loop {
        let rest = end.saturating_duration_since(Instant::now());
        if rest.is_zero() || link.is_over() {
            return !link.is_over();
        }
        sleep(rest.min(STEP));
    }
}

/// Passes on the rows after a key, and those that are added later, until nobody wants them.
pub(super) fn follow(
    shared: &Shared,
    growth: &Growth,
    client: &mut Client,
    after: Option<&At>,
    rows_most: usize,
    link: &Link,
    give: &mut dyn FnMut(Chunk, At) -> bool,
) -> Attempt<()> {
    let call = shared.call();
    let failed = |e: &::postgres::Error| shared.address.failure(&call, "read rows", e);
    let key_of = |at: &At| at.at.first().and_then(|text| text.parse::<i64>().ok());
    let mut last = after.map(|at| key_of(at).ok_or_else(|| Error::internal("the key was checked when it was read"))).transpose()?;
    let mut is_first = true;
    while is_first || pause(link, POLL) {
        is_first = false;
        let greatest = growth.greatest(shared, client, last)?;
        link.hear();
        let Some(greatest) = greatest else {
            growth.check_identity(shared, |sql, names| client.query_one(sql, names))?;
            continue;
        };
        check(shared, growth, client)?;
        growth.wait(shared, client, link)?;
        if link.is_over() {
            return Ok(());
        }
        let at = |key: i64| At { by: vec![growth.column.clone()], at: vec![key.to_string()], of: None };
        let mut transaction = begin(client).map_err(|e| failed(&e))?;
        // Before the snapshot: from here on nobody can empty the table or replace it.
        transaction.batch_execute(&format!("LOCK TABLE {} IN ACCESS SHARE MODE", growth.table)).map_err(|e| failed(&e))?;
        growth.check_identity(shared, |sql, names| transaction.query_one(sql, names))?;
        let (from, to) = (last.map(at), at(greatest));
        if !copy_rows(shared, &mut transaction, from.as_ref(), Some(&to), rows_most, give)? {
            return Ok(());
        }
        transaction.commit().map_err(|e| failed(&e))?;
        last = Some(greatest);
    }
    Ok(())
}

/// Looks at the table again: it may have been altered since the source was declared.
pub(super) fn check(shared: &Shared, growth: &Growth, client: &mut Client) -> Attempt<()> {
    let call = shared.call();
    let table = TableName::parse(&call, &shared.shown)?;
    let now = Growth::of(&call, &shared.address, client, Some(&table), &format!("table {:?}", shared.shown), &shared.key)?;
    if now.identity == growth.identity { Ok(()) } else { Err(Failure::Final(replaced(&call))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_ends_when_nobody_wants_rows() {
        let link = Link::default();
        assert!(pause(&link, Duration::from_millis(1)));
        link.end();
        assert!(!pause(&link, Duration::from_secs(600)));
    }

    #[test]
    fn prepared_transactions_are_told_from_sessions() {
        assert!(is_prepared("-1/723"));
        assert!(!is_prepared("3/45"));
    }
}
