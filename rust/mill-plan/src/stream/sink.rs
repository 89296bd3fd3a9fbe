//! Sinks: where a plan ends.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use mill_protocol::{Committer, Error, Result, Sink, SinkKind, SinkWriter, TaskContext};

use super::Stream;

/// A stream and where it goes.
#[derive(Clone)]
pub struct SinkNode {
    pub(crate) input: Stream,
    pub(crate) sink: Arc<dyn Sink>,
    pub(crate) name: Option<String>,
}

impl SinkNode {
    /// The sink.
    pub fn sink(&self) -> &Arc<dyn Sink> {
        &self.sink
    }

    /// The stream it takes.
    pub fn input(&self) -> &Stream {
        &self.input
    }

    /// Names the sink; the name is its identity in checkpoints.
    #[must_use]
    pub fn named(mut self, name: &str) -> SinkNode {
        self.name = Some(name.to_owned());
        self
    }
}

impl fmt::Debug for SinkNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SinkNode({} <- {:?})", self.sink.name(), self.input)
    }
}

impl Stream {
    /// Lets the stream go into a sink.
    ///
    /// # Errors
    /// When the sink cannot take it: an updating stream into a sink that only appends, or types it has no form for.
    pub fn sink(&self, sink: Arc<dyn Sink>) -> Result<SinkNode> {
        let schema = self.schema();
        if let Err(error) = sink.check(&schema, self.is_updating()) {
            return Err(match self.is_updating() {
                Some(keys) if sink.check(&schema, None).is_ok() => Error::plan(format!(
                    "{} cannot take an updating stream, in which the latest row a key of ({}) counts: {}; use emit=\"end\" \
                     on bounded input (each key once), a window, or a sink with a key such as write_sqlite(…, key=[{}])",
                    sink.name(),
                    keys.join(", "),
                    error.message(),
                    keys.iter().map(|key| format!("{key:?}")).collect::<Vec<_>>().join(", ")
                )),
                _ => error.in_step(&sink.name()),
            });
        }
        Ok(SinkNode { input: self.clone(), sink, name: None })
    }
}

/// The stream into a table that only `explain()` sees.
pub(super) fn preview(stream: &Stream) -> Result<SinkNode> {
    stream.sink(Arc::new(Preview))
}

#[derive(Debug)]
struct Preview;

impl Sink for Preview {
    fn name(&self) -> String {
        "collect()".to_owned()
    }

    fn kind(&self) -> SinkKind {
        SinkKind::Transactional
    }

    fn check(&self, _: &SchemaRef, _: Option<&[String]>) -> Result<()> {
        Ok(())
    }

    fn writer(&self, _: &SchemaRef, _: &TaskContext) -> Result<Box<dyn SinkWriter>> {
        Err(Error::internal("a plan that was only explained does not run"))
    }

    fn committer(&self) -> Result<Box<dyn Committer>> {
        Err(Error::internal("a plan that was only explained does not run"))
    }
}
