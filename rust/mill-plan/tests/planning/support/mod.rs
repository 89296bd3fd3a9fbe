//! Sources and sinks that describe themselves and do nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use mill_protocol::{
    Committer, Error, Result, Sink, SinkKind, SinkWriter, Source, SourceProperties, Split, SplitReader, TaskContext,
};

/// A source with a name and columns.
#[derive(Clone, Debug)]
pub struct Memory {
    name: String,
    schema: SchemaRef,
    properties: SourceProperties,
    reads: Option<PathBuf>,
}

#[allow(dead_code, reason = "not every test binary needs them all")]
impl Memory {
    /// A bounded, replayable source.
    pub fn new(name: &str, columns: &[(&str, DataType)]) -> Memory {
        Memory::of_fields(name, columns.iter().map(|(name, t)| Field::new(*name, t.clone(), true)).collect())
    }

    /// The same, of whole fields.
    pub fn of_fields(name: &str, fields: Vec<Field>) -> Memory {
        let properties =
            SourceProperties { is_bounded: true, is_replayable: true, discovers_splits: false, may_block: false };
        Memory { name: name.to_owned(), schema: Arc::new(Schema::new(fields)), properties, reads: None }
    }

    /// The same, unbounded or not replayable.
    pub fn with(mut self, is_bounded: bool, is_replayable: bool) -> Memory {
        self.properties.is_bounded = is_bounded;
        self.properties.is_replayable = is_replayable;
        self
    }

    /// The same, reading the file at this path.
    pub fn reading(mut self, path: &str) -> Memory {
        self.reads = Some(path.into());
        self
    }
}

impl Source for Memory {
    fn name(&self) -> String {
        self.name.clone()
    }
    fn identity(&self) -> Option<String> {
        Some(self.name.clone())
    }
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
    fn properties(&self) -> SourceProperties {
        self.properties
    }
    fn splits(&self, _: bool) -> Result<Vec<Split>> {
        Ok(Vec::new())
    }
    fn open(&self, _: &Split, _: Option<&[u8]>) -> Result<Box<dyn SplitReader>> {
        Err(Error::internal("never opened"))
    }
    fn reads(&self, path: &Path) -> bool {
        self.reads.as_deref() == Some(path)
    }
    fn project(&self, columns: &[usize]) -> Option<Arc<dyn Source>> {
        let schema = Arc::new(self.schema.project(columns).ok()?);
        Some(Arc::new(Memory { schema, ..self.clone() }))
    }
}

/// A sink with a name and a kind.
#[derive(Debug)]
pub struct TestSink {
    name: String,
    kind: SinkKind,
    is_keyed: bool,
    parallelism_max: Option<usize>,
    writes: Option<PathBuf>,
}

#[allow(dead_code, reason = "not every test binary needs them all")]
impl TestSink {
    /// Appends, in two phases.
    pub fn files(name: &str) -> Arc<dyn Sink> {
        Arc::new(TestSink { name: name.to_owned(), kind: SinkKind::Transactional, is_keyed: false, parallelism_max: None, writes: None })
    }
    /// The same, writing the file at this path.
    pub fn writing(name: &str, path: &str) -> Arc<dyn Sink> {
        let writes = Some(path.into());
        Arc::new(TestSink { name: name.to_owned(), kind: SinkKind::Transactional, is_keyed: false, parallelism_max: None, writes })
    }
    /// Upserts, from one task.
    pub fn keyed(name: &str) -> Arc<dyn Sink> {
        Arc::new(TestSink { name: name.to_owned(), kind: SinkKind::Idempotent, is_keyed: true, parallelism_max: Some(1), writes: None })
    }
    /// Delivers at once, from one task.
    pub fn single(name: &str) -> Arc<dyn Sink> {
        Arc::new(TestSink { name: name.to_owned(), kind: SinkKind::Immediate, is_keyed: false, parallelism_max: Some(1), writes: None })
    }
}

impl Sink for TestSink {
    fn name(&self) -> String {
        self.name.clone()
    }
    fn identity(&self) -> Option<String> {
        Some(self.name.clone())
    }
    fn kind(&self) -> SinkKind {
        self.kind
    }
    fn check(&self, _: &SchemaRef, key: Option<&[String]>) -> Result<()> {
        match key {
            Some(_) if !self.is_keyed => Err(Error::plan("rows are only ever added")),
            _ => Ok(()),
        }
    }
    fn parallelism_max(&self) -> Option<usize> {
        self.parallelism_max
    }
    fn writes(&self) -> Option<PathBuf> {
        self.writes.clone()
    }
    fn writer(&self, _: &SchemaRef, _: &TaskContext) -> Result<Box<dyn SinkWriter>> {
        Err(Error::internal("never written"))
    }
    fn committer(&self) -> Result<Box<dyn Committer>> {
        Err(Error::internal("never written"))
    }
}
