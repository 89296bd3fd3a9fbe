//! A table or a query as a source.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use mill_protocol::{Error, Result, Source, SourceProperties, Split, SplitReader};

use super::address::{Address, Failure};
use super::form::Form;
use super::growing::Growth;
use super::keys::{At, KeyColumn, can_order};
use super::name::{TableName, identifier};
use crate::nearest::{did_you_mean, quoted};
use crate::relation::is_query;
use crate::table_reader::TableReader;

/// How a table or a query is read.
#[derive(Clone, Default)]
pub struct PostgresSourceOptions {
    /// The password, where the URL has none.
    pub password: Option<String>,
    /// The columns whose order rows are read in; empty: the primary key of the table.
    pub order_by: Vec<String>,
    /// Whether rows that are added later are read, too. The stream does not end.
    pub is_followed: bool,
}

/// Rows of a database, in the order of a key.
#[derive(Clone)]
pub struct PostgresSource {
    shared: Arc<Shared>,
    schema: SchemaRef,
}

/// What a source and its reader share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) address: Address,
    /// What the user has called.
    pub(super) function: &'static str,
    /// The table or query as the user wrote it.
    pub(super) shown: String,
    /// The table or query, as SQL after FROM.
    pub(super) relation: String,
    /// The columns that are read, those of the key among them or after them.
    pub(super) columns: Vec<(Field, Form)>,
    pub(super) key: Vec<KeyColumn>,
    /// How many of the columns the stream has.
    pub(super) width: usize,
    /// How the table grows, if it is followed.
    pub(super) growth: Option<Growth>,
}

impl PostgresSource {
    /// The rows of a table or a query; the server is asked which columns it has.
    ///
    /// # Errors
    /// When the server cannot be reached, or a column cannot be read.
    pub fn new(url: &str, table_or_query: &str, options: PostgresSourceOptions) -> Result<PostgresSource> {
        let call = "read_postgres()";
        let address = Address::new(call, url, options.password.as_deref())?;
        let mut client = address.connect(call).map_err(Failure::into_error)?;
        let failed = |doing: &str, e: &::postgres::Error| address.failure(call, doing, e).into_error();
        let is_query = is_query(table_or_query);
        let (relation, what, table) = if is_query {
            let query = table_or_query.trim().trim_end_matches(';').trim_end();
            // The line break ends a comment that the query may end with.
            (format!("({query}\n)"), "the query".to_owned(), None)
        } else {
            let name = TableName::parse(call, table_or_query)?;
            (name.sql(), format!("table {table_or_query:?}"), Some(name))
        };
        let statement = client
            .prepare(&format!("SELECT * FROM {relation} AS q"))
            .map_err(|e| failed(&format!("read {what}"), &e))?;
        let mut columns: Vec<(Field, Form)> = Vec::new();
        for column in statement.columns() {
            let name = column.name();
            if columns.iter().any(|(field, _)| field.name() == name) {
                return Err(Error::schema(format!("{call}: {what} has two columns {name:?}; give one another name, with AS")));
            }
            let refused = |why: &str| {
                Error::schema(format!(
                    "{call}: column {name:?} of {what} is of type {}, which {why}{}",
                    column.type_().name(),
                    if is_query { "" } else { "; read a query, with the columns that you need" }
                ))
            };
            let form = Form::of(column.type_(), column.type_modifier())
                .ok_or_else(|| refused("no column here has; cast it in a query, as in CAST(x AS text)"))?;
            let data_type = form.column().map_err(refused)?;
            columns.push((Field::new(name, data_type, true), form));
        }
        if columns.is_empty() {
            return Err(Error::schema(format!("{call}: {what} has no columns")));
        }
        let (mut primary, mut never_null) = (Vec::new(), Vec::new());
        if let Some(table) = &table {
            let sql = "SELECT a.attname::text, a.attnotnull, coalesce(array_position(i.indkey::int2[], a.attnum), -1) \
                       FROM pg_attribute a LEFT JOIN pg_index i ON i.indrelid = a.attrelid AND i.indisprimary \
                       WHERE a.attrelid = to_regclass($1)::oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY 3";
            let rows = client.query(sql, &[&table.sql()]).map_err(|e| failed("look at the table", &e))?;
            for row in rows {
                let name: String = row.get(0);
                if row.get::<_, i32>(2) >= 0 {
                    primary.push(name.clone());
                }
                if row.get(1) {
                    never_null.push(name);
                }
            }
        }
        let order_by = if options.order_by.is_empty() { primary } else { options.order_by };
        if order_by.is_empty() {
            return Err(Error::plan(format!(
                "{call}: {what} has no primary key: say with order_by= by which columns its rows are read in order; a run that goes on \
                 after a failure continues after the last key"
            )));
        }
        let mut key: Vec<KeyColumn> = Vec::new();
        for name in order_by {
            let Some(place) = columns.iter().position(|(field, _)| *field.name() == name) else {
                let names = columns.iter().map(|(field, _)| field.name().as_str());
                return Err(Error::schema(format!(
                    "{call}: order_by names {name:?}, which is no column of {what}{}",
                    did_you_mean(&name, names)
                )));
            };
            if key.iter().any(|column| column.name == name) {
                return Err(Error::plan(format!("{call}: order_by names {name:?} twice")));
            }
            let form = columns[place].1.clone();
            if !can_order(&form) {
                return Err(Error::plan(format!(
                    "{call}: order_by names {name:?}, which is {}: rows are read in the order of whole numbers, decimals, text, bytes, \
                     dates or times",
                    form.declared()
                )));
            }
            let is_never_null = never_null.contains(&name);
            key.push(KeyColumn { name, form, place, is_never_null, is_by_bytes: false });
        }
        for column in key.iter().filter(|column| matches!(column.form, Form::Text(_))) {
            let name = identifier(&column.name);
            let sql = format!(
                "SELECT c.collisdeterministic FROM (SELECT pg_collation_for((SELECT q.{name} FROM {relation} AS q LIMIT 1)) AS named) AS x \
                 JOIN pg_collation AS c ON c.oid = x.named::regcollation::oid"
            );
            let rows = client.query(&sql, &[]).map_err(|e| failed("look at the order of text", &e))?;
            if rows.first().is_some_and(|row| !row.get::<_, bool>(0)) {
                return Err(Error::plan(format!(
                    "{call}: order_by names {:?}, whose collation takes different texts for the same; read a query with the column in \
                     another one, as in x COLLATE \"C\"",
                    column.name
                )));
            }
        }
        let growth = options.is_followed.then(|| Growth::of(call, &address, &mut client, table.as_ref(), &what, &key)).transpose();
        let growth = growth.map_err(Failure::into_error)?;
        let width = columns.len();
        let schema = Arc::new(Schema::new(columns.iter().map(|(field, _)| field.clone()).collect::<Vec<_>>()));
        let shown = table_or_query.trim().to_owned();
        let shared = Shared { address, function: "read_postgres", shown, relation, columns, key, width, growth };
        Ok(PostgresSource { shared: Arc::new(shared), schema })
    }
}

impl Shared {
    /// The call, for messages.
    pub(super) fn call(&self) -> String {
        format!("{}({:?}, {:?})", self.function, self.address.shown(), self.shown)
    }

    /// The key in the checkpoint.
    pub(super) fn position(&self, bytes: &[u8]) -> Result<At> {
        let at = At::decode(&self.call(), bytes, &self.key)?;
        self.growth.as_ref().map_or(Ok(()), |growth| growth.continues(&self.call(), &at))?;
        Ok(at)
    }
}

impl fmt::Debug for PostgresSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

impl Source for PostgresSource {
    fn name(&self) -> String {
        format!("read_postgres({:?})", self.shared.shown)
    }

    fn identity(&self) -> Option<String> {
        let by: Vec<&str> = self.shared.key.iter().map(|column| column.name.as_str()).collect();
        Some(format!("{} order by {}", self.shared.call(), quoted(&by, ", ")))
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn properties(&self) -> SourceProperties {
        SourceProperties { is_bounded: self.shared.growth.is_none(), is_replayable: true, discovers_splits: false, may_block: true }
    }

    fn splits(&self, _is_ordered: bool) -> Result<Vec<Split>> {
        Ok(vec![Split::new(self.name())])
    }

    fn open(&self, _split: &Split, position: Option<&[u8]>) -> Result<Box<dyn SplitReader>> {
        let at = position.filter(|position| !position.is_empty()).map(|position| self.shared.position(position)).transpose()?;
        Ok(Box::new(TableReader::new(Arc::clone(&self.shared), Arc::clone(&self.schema), at)))
    }

    fn project(&self, columns: &[usize]) -> Option<Arc<dyn Source>> {
        let schema = Arc::new(self.schema.project(columns).ok()?);
        let from = &self.shared;
        let mut chosen: Vec<usize> = columns.to_vec();
        let mut key = from.key.clone();
        for column in &mut key {
            column.place = chosen.iter().position(|place| *place == column.place).unwrap_or_else(|| {
                chosen.push(column.place);
                chosen.len() - 1
            });
        }
        let shared = Shared {
            address: from.address.clone(),
            function: from.function,
            shown: from.shown.clone(),
            relation: from.relation.clone(),
            columns: chosen.iter().map(|place| from.columns[*place].clone()).collect(),
            key,
            width: columns.len(),
            growth: from.growth.clone(),
        };
        Some(Arc::new(PostgresSource { shared: Arc::new(shared), schema }))
    }
}
