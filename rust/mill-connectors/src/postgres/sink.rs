//! A table as a sink.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::SchemaRef;
use mill_frame::json::check_writable;
use mill_protocol::{Committer, Error, Result, Sink, SinkKind, SinkWriter, TaskContext};

use super::address::{Address, Failure};
use super::committer::PostgresCommitter;
use super::form::{self, Form};
use super::name::TableName;
use super::notes;
use super::table::Layout;
use super::two_phase::Preparing;
use super::writer::PostgresWriter;
use crate::directory::fresh_nonce;
use crate::nearest::did_you_mean;
use crate::objects::check_written;
use crate::spool::Place;
use crate::target;
use crate::updating::check_key;

/// As many columns as a table of PostgreSQL can have.
const COLUMNS_MAX: usize = 1600;
/// As many bytes as a name of PostgreSQL has; longer ones are cut.
const NAME_BYTES_MAX: usize = 63;

/// How a table is written.
#[derive(Clone, Default)]
pub struct PostgresSinkOptions {
    /// The password, where the URL has none.
    pub password: Option<String>,
    /// With a key a row replaces the row of its key.
    pub key: Option<Vec<String>>,
    /// Whether a table that does not exist is an error.
    pub must_exist: bool,
    /// Whether transactions are prepared before their checkpoint.
    pub is_two_phase: bool,
}

/// A table as a sink.
pub struct PostgresSink {
    shared: Arc<Shared>,
}

/// How rows are written: for these columns, kept there, and how they are prepared, if they are.
pub(super) type Way = (Arc<Layout>, Place, Option<Arc<Preparing>>);

/// What sink, writers and the committer share.
pub(super) struct Shared {
    pub(super) address: Address,
    /// The table as the user wrote it.
    shown: String,
    pub(super) table: TableName,
    pub(super) key: Option<Vec<String>>,
    pub(super) creates: bool,
    pub(super) is_two_phase: bool,
    /// Tells what this run writes from what others do; another for each committer.
    run: AtomicU64,
    /// Numbers the parts.
    parts: AtomicU64,
    /// The columns of the stream, known once it was checked.
    schema: Mutex<Option<SchemaRef>>,
    /// How rows are written, and where they are kept, once the committer was told.
    way: Mutex<Option<Way>>,
}

impl PostgresSink {
    /// Rows of this table.
    ///
    /// # Errors
    /// When something is wrong that can be known without asking the server.
    pub fn new(url: &str, table: &str, options: PostgresSinkOptions) -> Result<PostgresSink> {
        let call = "write_postgres()";
        let address = Address::new(call, url, options.password.as_deref())?;
        let name = TableName::parse(call, table)?;
        if name.table == notes::TABLE {
            return Err(Error::plan(format!("{call}: {:?} is where the engine notes what it has written", name.table)));
        }
        check_name(call, &name.table)?;
        if options.key.as_ref().is_some_and(Vec::is_empty) {
            return Err(Error::plan(format!("{call}: the key needs at least one column; leave it out to append rows")));
        }
        let shared = Shared {
            address,
            shown: table.to_owned(),
            table: name,
            key: options.key,
            creates: !options.must_exist,
            is_two_phase: options.is_two_phase,
            run: AtomicU64::new(0),
            parts: AtomicU64::new(0),
            schema: Mutex::new(None),
            way: Mutex::new(None),
        };
        Ok(PostgresSink { shared: Arc::new(shared) })
    }
}

fn check_name(call: &str, name: &str) -> Result<()> {
    if name.len() > NAME_BYTES_MAX {
        return Err(Error::plan(format!("{call}: {name:?} has {} bytes, and a name in PostgreSQL {NAME_BYTES_MAX} at most", name.len())));
    }
    Ok(())
}

impl Shared {
    /// The call, for messages.
    pub(super) fn call(&self) -> String {
        format!("write_postgres({:?}, {:?})", self.address.shown(), self.shown)
    }

    /// The run that writes now.
    pub(super) fn run(&self) -> u64 {
        // Relaxed: the committer sets it before writers are made, which is when threads are started.
        self.run.load(Ordering::Relaxed)
    }

    /// Another number for a part.
    pub(super) fn part_number(&self) -> u64 {
        // Relaxed: only that each gets another one counts.
        self.parts.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn schema(&self) -> Result<SchemaRef> {
        let schema = self.schema.lock().unwrap_or_else(PoisonError::into_inner).clone();
        schema.ok_or_else(|| Error::internal("a sink is checked before it is used"))
    }

    pub(super) fn set_way(&self, way: Option<Way>) {
        *self.way.lock().unwrap_or_else(PoisonError::into_inner) = way;
    }

    /// A step that a test may let fail.
    pub(super) fn reach(&self, step: &'static str) -> Result<()> {
        mill_fault::reach(step).map_err(|error| Error::connector(format!("{}: {step}: {error}", self.call())).because(error))
    }

    /// What went wrong at the server, and whether it passes.
    pub(super) fn failure(&self, doing: &str, error: &::postgres::Error) -> Failure {
        self.address.failure(&self.call(), doing, error)
    }

    /// The table, the same however the server is reached.
    pub(super) fn target(&self) -> String {
        self.table.sql()
    }

    /// Refuses another table than the one that the checkpoint has written to.
    pub(super) fn check_target(&self, was: &str) -> Result<()> {
        let is = self.target();
        if was == is {
            return Ok(());
        }
        Err(target::moved(&self.call(), "table", was, &is))
    }
}

impl fmt::Debug for PostgresSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

impl Sink for PostgresSink {
    fn name(&self) -> String {
        format!("write_postgres({:?})", self.shared.shown)
    }

    fn identity(&self) -> Option<String> {
        Some(format!("write_postgres({:?}, {})", self.shared.address.shown(), self.shared.target()))
    }

    fn kind(&self) -> SinkKind {
        match &self.shared.key {
            _ if self.shared.is_two_phase => SinkKind::Transactional,
            Some(_) => SinkKind::Idempotent,
            None => SinkKind::WriteAhead,
        }
    }

    fn parallelism_max(&self) -> Option<usize> {
        // An epoch is one transaction: two that are prepared could wait for one another.
        self.shared.is_two_phase.then_some(1)
    }

    fn check(&self, schema: &SchemaRef, key: Option<&[String]>) -> Result<()> {
        let call = "write_postgres()";
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        if names.is_empty() || names.len() >= COLUMNS_MAX {
            return Err(Error::schema(format!("{call}: the stream has {}, and a table 1 to {}", mill_frame::words::counted(names.len(), "column"), COLUMNS_MAX - 1)));
        }
        check_written(schema)?;
        for field in schema.fields() {
            check_name(call, field.name())?;
            if field.name().is_empty() || field.name().contains('\0') {
                return Err(Error::schema(format!("{call}: {:?} is no name of a column in PostgreSQL; rename() it", field.name())));
            }
            let form = Form::for_column(field.data_type()).filter(|form| {
                !matches!(form, Form::Jsonb) || check_writable(field.data_type()).is_ok()
            });
            if form.is_none() {
                return Err(Error::schema(format!(
                    "{call}: column {:?} is {}, which PostgreSQL has no type for: unnest(), explode() or cast() it",
                    field.name(),
                    mill_frame::words::with_article(form::shown(field.data_type()))
                )));
            }
        }
        for column in self.shared.key.iter().flatten() {
            let Ok(field) = schema.field_with_name(column) else {
                return Err(Error::schema(format!(
                    "{call}: key column {column:?} is not a column of the stream{}",
                    did_you_mean(column, names.iter().copied())
                )));
            };
            if matches!(Form::for_column(field.data_type()), Some(Form::Json | Form::Jsonb)) {
                return Err(Error::schema(format!(
                    "{call}: key column {column:?} is {}, which is written as jsonb, and that is no key; unnest() it",
                    mill_frame::words::with_article(form::shown(field.data_type()))
                )));
            }
        }
        check_key(key, self.shared.key.as_deref())?;
        *self.shared.schema.lock().unwrap_or_else(PoisonError::into_inner) = Some(std::sync::Arc::clone(schema));
        Ok(())
    }

    fn target(&self) -> Option<String> {
        // Without the server: the same one can be reached by other addresses.
        Some(self.shared.target())
    }

    fn writer(&self, _schema: &SchemaRef, context: &TaskContext) -> Result<Box<dyn SinkWriter>> {
        let way = self.shared.way.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (layout, place, preparing) = way.ok_or_else(|| Error::internal("a committer learns of its run before writers are made"))?;
        Ok(Box::new(PostgresWriter::new(Arc::clone(&self.shared), layout, place, preparing, context.index)))
    }

    fn of_run(&self) -> Result<Option<Arc<dyn Sink>>> {
        // Several runs of one plan may write at a time, each with its own number and place.
        let from = &self.shared;
        let shared = Shared {
            address: from.address.clone(),
            shown: from.shown.clone(),
            table: from.table.clone(),
            key: from.key.clone(),
            creates: from.creates,
            is_two_phase: from.is_two_phase,
            run: AtomicU64::new(0),
            parts: AtomicU64::new(0),
            schema: Mutex::new(from.schema.lock().unwrap_or_else(PoisonError::into_inner).clone()),
            way: Mutex::new(None),
        };
        Ok(Some(Arc::new(PostgresSink { shared: Arc::new(shared) })))
    }

    fn committer(&self) -> Result<Box<dyn Committer>> {
        // Relaxed: as in `Shared::run`.
        self.shared.run.store(fresh_nonce(), Ordering::Relaxed);
        Ok(Box::new(PostgresCommitter::new(Arc::clone(&self.shared))))
    }
}
