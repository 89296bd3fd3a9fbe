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

use ::postgres::{Client, IsolationLevel, Row};
use mill_protocol::Error;

use super::address::{Address, Attempt, Failure};
use super::form::Form;
use super::keys::{At, KeyColumn};
use super::name::{TableName, identifier};
use super::reader::copy_rows;
use super::source::Shared;
use crate::table_reader::{Chunk, Link};

/// How often the server is asked for new rows.
const POLL: Duration = Duration::from_millis(100);
/// How often it is asked whether those who write have ended.
const WRITERS_POLL: Duration = Duration::from_millis(10);
/// In such steps a pause ends when nobody wants more rows.
const STEP: Duration = Duration::from_millis(10);

const WRITERS: &str = "WITH RECURSIVE parts AS (SELECT to_regclass($1)::oid AS part \
                       UNION SELECT i.inhrelid FROM pg_inherits AS i JOIN parts ON i.inhparent = parts.part) \
                       SELECT DISTINCT l.virtualtransaction FROM pg_locks AS l JOIN parts ON l.relation = parts.part \
                       WHERE l.locktype = 'relation' AND l.mode = 'RowExclusiveLock' AND l.granted \
                       AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())";

const LOOK: &str = "SELECT c.relkind::text, coalesce(a.attidentity::text, ''), coalesce(pg_get_expr(d.adbin, d.adrelid), ''), \
                    quote_ident(n.nspname) || '.' || quote_ident(k.relname), s.seqincrement, s.seqcache, s.seqcycle, \
                    has_sequence_privilege(k.oid, 'SELECT'), pg_is_in_recovery(), \
                    EXISTS (SELECT FROM pg_index AS i WHERE i.indrelid = c.oid AND i.indkey[0] = a.attnum AND i.indisvalid \
                            AND i.indpred IS NULL) \
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

/// How a table grows.
#[derive(Clone)]
pub(super) struct Growth {
    /// The table, as SQL.
    table: String,
    /// The column that a sequence fills.
    column: String,
    /// The sequence, as SQL.
    sequence: String,
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
        let rows = client.query(LOOK, &[&table.sql(), name]).map_err(|e| address.failure(call, "look at the table", &e))?;
        let row = rows.into_iter().next();
        let Some(row) = row else { return Err(refused(format!("{what} is not there"))) };
        if !matches!(row.get::<_, &str>(0), "r" | "p") {
            return Err(refused(format!("{what} is a view or a foreign table")));
        }
        if row.get(8) {
            return Err(refused("the server is a standby, where it cannot be seen who writes".to_owned()));
        }
        let Some(sequence) = row.get::<_, Option<String>>(3).filter(|_| is_filled(&row)) else {
            return Err(refused(format!("no sequence fills column {name:?} of {what}")));
        };
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
            return Err(refused(format!("column {name:?} of {what} needs an index, because the greatest number is asked for again and again")));
        }
        Ok(Growth { table: table.sql(), column: name.clone(), sequence })
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
                 did not get its number from it. Rows added later would get numbers that were passed, and would be missed. Set the sequence \
                 to {key} or more: SELECT setval('{}', {key})",
                self.column, self.sequence, self.sequence
            )))),
            _ => Ok(greatest),
        }
    }

    /// The transactions that write into the table.
    fn writers(&self, shared: &Shared, client: &mut Client) -> Attempt<HashSet<String>> {
        let rows = client.query(WRITERS, &[&self.table]).map_err(|e| shared.address.failure(&shared.call(), "see who writes", &e))?;
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
        let Some(greatest) = greatest else { continue };
        growth.wait(shared, client, link)?;
        if link.is_over() {
            return Ok(());
        }
        let at = |key: i64| At { by: vec![growth.column.clone()], at: vec![key.to_string()] };
        let mut transaction = client
            .build_transaction()
            .isolation_level(IsolationLevel::RepeatableRead)
            .read_only(true)
            .start()
            .map_err(|e| failed(&e))?;
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
pub(super) fn check(shared: &Shared, client: &mut Client) -> Attempt<()> {
    let table = TableName::parse(&shared.call(), &shared.shown)?;
    Growth::of(&shared.call(), &shared.address, client, Some(&table), &format!("table {:?}", shared.shown), &shared.key).map(|_| ())
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
