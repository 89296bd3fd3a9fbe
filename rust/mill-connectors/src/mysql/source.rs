//! A table or a query as a source.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use ::mysql::prelude::Queryable as _;
use arrow::datatypes::{Field, Schema, SchemaRef};
use mill_protocol::{Error, Result, Source, SourceProperties, Split, SplitReader};

use super::address::{Address, Failure};
use super::form::Form;
use super::keys::{self, At, KeyColumn, can_order};
use super::name::TableName;
use crate::nearest::{did_you_mean, quoted};
use crate::relation::is_query;
use crate::table_reader::TableReader;

/// How a table or a query is read.
#[derive(Clone, Default)]
pub struct MysqlSourceOptions {
    /// The password, where the URL has none.
    pub password: Option<String>,
    /// The columns whose order rows are read in; empty: the primary key of the table.
    pub order_by: Vec<String>,
}

/// Rows of a database, in the order of a key.
#[derive(Clone)]
pub struct MysqlSource {
    shared: Arc<Shared>,
    schema: SchemaRef,
}

/// What a source and its reader share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) address: Address,
    /// The table or query as the user wrote it.
    shown: String,
    /// The table or query, as SQL after FROM.
    pub(super) relation: String,
    /// The columns that are read, those of the key among them or after them.
    pub(super) columns: Vec<(Field, Form)>,
    pub(super) key: Vec<KeyColumn>,
    /// How many of the columns the stream has.
    pub(super) width: usize,
}

impl MysqlSource {
    /// The rows of a table or a query; the server is asked which columns it has.
    ///
    /// # Errors
    /// When the server cannot be reached, or a column cannot be read.
    pub fn new(url: &str, table_or_query: &str, options: MysqlSourceOptions) -> Result<MysqlSource> {
        let call = "read_sql()";
        let address = Address::new(call, url, options.password.as_deref())?;
        let is_query = is_query(table_or_query);
        let (relation, what, table) = if is_query {
            let query = table_or_query.trim().trim_end_matches(';').trim_end();
            // The line break ends a comment that the query may end with.
            (format!("({query}\n)"), "the query".to_owned(), None)
        } else {
            let name = TableName::parse(call, table_or_query)?;
            if name.database.is_none() && address.database.is_none() {
                return Err(Error::plan(format!(
                    "{call}: in which database is {table_or_query:?}? Put it at the end of the URL, or write database.table"
                )));
            }
            (name.sql(), format!("table {table_or_query:?}"), Some(name))
        };
        let mut client = address.connect(call).map_err(Failure::into_error)?;
        let failed = |doing: &str, e: &::mysql::Error| address.failure(call, doing, e).into_error();
        let statement = client.prep(format!("SELECT * FROM {relation} AS q")).map_err(|e| failed(&format!("read {what}"), &e))?;
        let mut columns: Vec<(Field, Form)> = Vec::new();
        for column in statement.columns().iter() {
            let name = column.name_str().into_owned();
            let form = Form::of_result(column).ok_or_else(|| {
                Error::schema(format!(
                    "{call}: column {name:?} of {what} is of type {}, which no column here has; cast it in a query, as in CAST(x AS CHAR)",
                    type_name(column.column_type())
                ))
            })?;
            columns.push((Field::new(name, form.column(), true), form));
        }
        if columns.is_empty() {
            return Err(Error::schema(format!("{call}: {what} has no columns")));
        }
        let mut never_null = Vec::new();
        // The columns of each unique index; that of the primary key has this name, and no other can have it.
        let mut unique: BTreeMap<String, Vec<String>> = BTreeMap::new();
        if let Some(table) = &table {
            let looked = |e: ::mysql::Error| failed("look at the table", &e);
            let sql = format!("SELECT COLUMN_NAME FROM information_schema.COLUMNS WHERE {} AND IS_NULLABLE = 'NO'", table.is_in_catalog());
            never_null = client.query(sql).map_err(looked)?;
            let sql = format!(
                "SELECT INDEX_NAME, COLUMN_NAME, SUB_PART IS NULL FROM information_schema.STATISTICS \
                 WHERE {} AND NON_UNIQUE = 0 ORDER BY INDEX_NAME, SEQ_IN_INDEX",
                table.is_in_catalog()
            );
            let parts: Vec<(String, Option<String>, bool)> = client.query(sql).map_err(looked)?;
            let partial: Vec<String> =
                parts.iter().filter(|(_, column, is_whole)| !is_whole || column.is_none()).map(|(index, ..)| index.clone()).collect();
            for (index, column, _) in parts {
                if let (Some(column), false) = (column, partial.contains(&index)) {
                    unique.entry(index).or_default().push(column);
                }
            }
        }
        let order_by = if options.order_by.is_empty() { unique.get("PRIMARY").cloned().unwrap_or_default() } else { options.order_by };
        if order_by.is_empty() {
            return Err(Error::plan(format!(
                "{call}: {what} has no primary key: say with order_by= by which columns its rows are read in order; a run that goes on \
                 after a failure continues after the last key"
            )));
        }
        let is_unique = unique.values().any(|index| index.iter().all(|column| order_by.contains(column)));
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
            let form = columns[place].1;
            if !can_order(form) {
                return Err(Error::plan(format!(
                    "{call}: order_by names {name:?}, which is {}: rows are read in the order of whole numbers, decimals, text, bytes, \
                     dates or times",
                    form.declared()
                )));
            }
            let is_never_null = never_null.contains(&name);
            // The texts of an ENUM are compared as texts and ordered by their declaration, which no condition follows.
            let is_by_bytes = !is_unique || form == Form::Label;
            key.push(KeyColumn { name, form, place, is_never_null, is_by_bytes });
        }
        let width = columns.len();
        let schema = Arc::new(Schema::new(columns.iter().map(|(field, _)| field.clone()).collect::<Vec<_>>()));
        let shared = Shared { address, shown: table_or_query.trim().to_owned(), relation, columns, key, width };
        Ok(MysqlSource { shared: Arc::new(shared), schema })
    }
}

/// The name of a type as SQL has it.
fn type_name(kind: ::mysql::consts::ColumnType) -> String {
    let name = format!("{kind:?}");
    name.strip_prefix("MYSQL_TYPE_").unwrap_or(&name).to_owned()
}

impl Shared {
    /// The call, for messages.
    pub(super) fn call(&self) -> String {
        format!("read_sql({:?}, {:?})", self.address.shown(), self.shown)
    }

    /// The key in the checkpoint.
    fn position(&self, bytes: &[u8]) -> Result<At> {
        keys::decode(&self.call(), bytes, &self.key)
    }
}

impl fmt::Debug for MysqlSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

impl Source for MysqlSource {
    fn name(&self) -> String {
        format!("read_sql({:?})", self.shared.shown)
    }

    fn identity(&self) -> Option<String> {
        let by: Vec<&str> = self.shared.key.iter().map(|column| column.name.as_str()).collect();
        Some(format!("{} order by {}", self.shared.call(), quoted(&by, ", ")))
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn properties(&self) -> SourceProperties {
        SourceProperties { is_bounded: true, is_replayable: true, discovers_splits: false, may_block: true }
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
            shown: from.shown.clone(),
            relation: from.relation.clone(),
            columns: chosen.iter().map(|place| from.columns[*place].clone()).collect(),
            key,
            width: columns.len(),
        };
        Some(Arc::new(MysqlSource { shared: Arc::new(shared), schema }))
    }
}
