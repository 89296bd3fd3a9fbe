//! `write_…()`: where a plan ends.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use mill_protocol::{Committer, Error, Result, Sink, SinkKind, SinkWriter, TaskContext};

use super::{Changes, Inputs, Names, Need, Splits, Step};
use crate::logical::{Parameters, parameters};
use crate::lower::{Builder, Lineage, call_name};
use crate::physical::{EdgeKind, StageKind};
use crate::stream::checks::{AS_APPEND_ONLY, column_index, of_key};
use crate::stream::{OutputSpec, Stream};

/// A stream and where it goes.
#[derive(Clone)]
pub struct SinkNode {
    pub(crate) input: Stream,
    pub(crate) sink: Arc<dyn Sink>,
    pub(crate) name: Option<String>,
    pub(crate) was: Option<String>,
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

    /// Says which name, or identity, a named sink had in former runs.
    #[must_use]
    pub fn formerly(mut self, was: &str) -> SinkNode {
        self.was = Some(was.to_owned());
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
                    "{} cannot take an updating stream, in which the latest row{} counts: {}; {}{}",
                    sink.name(),
                    of_key(keys),
                    error.message(),
                    AS_APPEND_ONLY,
                    match keys {
                        [] => String::new(),
                        _ => {
                            let keys: Vec<String> = keys.iter().map(|key| format!("{key:?}")).collect();
                            format!("; or write to a sink with a key, such as write_sqlite(…, key=[{}])", keys.join(", "))
                        }
                    }
                )),
                _ => error.in_step(&sink.name()),
            });
        }
        Ok(SinkNode { input: self.clone(), sink, name: None, was: None })
    }
}

/// Writes into a sink.
#[derive(Debug)]
pub(crate) struct SinkStep {
    pub(crate) sink: Arc<dyn Sink>,
}

impl Step for SinkStep {
    fn label(&self) -> &'static str {
        "sink"
    }

    fn called(&self) -> String {
        call_name(&self.sink.name())
    }

    fn parameters(&self) -> Parameters {
        parameters([("sink", self.sink.name().into())])
    }

    fn print(&self) -> String {
        self.sink.identity().unwrap_or_else(|| self.sink.name())
    }

    fn is_opaque(&self) -> bool {
        self.sink.identity().is_none()
    }

    fn outputs(&self) -> &[OutputSpec] {
        &[]
    }

    fn changes(&self) -> Changes {
        Changes::Passes
    }

    fn is_stateful(&self) -> bool {
        true
    }

    fn splits(&self) -> Splits {
        Splits::Ends
    }

    fn needs_order(&self, _of_result: bool, _before: &SchemaRef) -> Result<bool> {
        Ok(false)
    }

    fn needs(&self, need: &Need<'_>) -> Result<Names> {
        Ok(need.all())
    }

    fn schema(&self, _inputs: &[SchemaRef], declared: &SchemaRef) -> Result<SchemaRef> {
        Ok(Arc::clone(declared))
    }

    fn lineage(&self, inputs: &Inputs<'_>) -> Lineage {
        inputs.first()
    }

    fn lower(&self, builder: &mut Builder<'_>, at: usize) -> Result<()> {
        let mut input = builder.input(at, 0)?;
        let most = self.sink.parallelism_max().unwrap_or(usize::MAX).max(1);
        if builder.parallelism(&input) > most {
            let kind = match &builder.graph.steps[at].facts.updating {
                _ if most == 1 => EdgeKind::Gather,
                // The rows of a key must arrive in their order, so they take one way.
                Some(keys) => {
                    EdgeKind::Hash(keys.iter().map(|key| column_index(&input.schema, key)).collect::<Result<_>>()?)
                }
                None => EdgeKind::Rebalance,
            };
            input = builder.exchange(&input, kind, most);
        }
        let schema = Arc::clone(&input.schema);
        let signature = format!("sink {}", call_name(&self.sink.name()));
        builder.stage(&input, StageKind::Sink(Arc::clone(&self.sink)), at, schema, signature)?;
        Ok(())
    }

    fn sink(&self) -> Option<&Arc<dyn Sink>> {
        Some(&self.sink)
    }
}

/// The stream into a table that only `explain()` sees.
pub(crate) fn preview(stream: &Stream) -> Result<SinkNode> {
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
