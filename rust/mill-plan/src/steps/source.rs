//! `read_…()`: where records come from.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use mill_protocol::{Result, Source};

use super::{Changes, Inputs, Names, Need, Splits, Step, remaining};
use crate::logical::{Parameters, parameters};
use crate::lower::{Builder, Lineage, call_name};
use crate::stream::{Facts, OutputSpec, Stream};

/// Reads a source.
#[derive(Debug)]
pub(crate) struct SourceStep {
    pub(crate) source: Arc<dyn Source>,
}

impl Stream {
    /// The records of a source.
    pub fn source(source: Arc<dyn Source>) -> Stream {
        let schema = rows(&source);
        let changes = source.changes();
        let is_bounded = source.properties().is_bounded;
        let withdraws = changes.is_some();
        let facts = Facts { is_bounded, event_time: None, updating: changes.map(|changes| changes.key), withdraws };
        Stream::first(Arc::new(SourceStep { source }), schema, facts)
    }
}

/// The columns of the records: without the one that says what becomes of a key.
fn rows(source: &Arc<dyn Source>) -> SchemaRef {
    match source.changes() {
        None => source.schema(),
        Some(changes) => remaining(&source.schema(), |name| name != changes.op),
    }
}

impl Step for SourceStep {
    fn label(&self) -> &'static str {
        "source"
    }

    fn called(&self) -> String {
        call_name(&self.source.name())
    }

    fn parameters(&self) -> Parameters {
        parameters([("source", self.source.name().into())])
    }

    fn print(&self) -> String {
        self.source.identity().unwrap_or_else(|| self.source.name())
    }

    fn is_opaque(&self) -> bool {
        self.source.identity().is_none()
    }

    fn outputs(&self) -> &[OutputSpec] {
        static OUTPUTS: [OutputSpec; 2] = [OutputSpec::RESULT, OutputSpec::ERRORS];
        &OUTPUTS
    }

    fn changes(&self) -> Changes {
        match self.source.changes() {
            None => Changes::Refuses,
            Some(changes) => Changes::Makes { key: changes.key, withdraws: true },
        }
    }

    fn is_stateful(&self) -> bool {
        true
    }

    fn may_fail(&self, _inputs: &[SchemaRef]) -> bool {
        // A source of files may have malformed lines, but it need not: the plan does not ask for a sink for them.
        false
    }

    fn splits(&self) -> Splits {
        Splits::Keeps
    }

    fn needs_order(&self, of_result: bool, _before: &SchemaRef) -> Result<bool> {
        Ok(of_result)
    }

    fn needs(&self, _need: &Need<'_>) -> Result<Names> {
        Ok(Names::new())
    }

    fn schema(&self, _inputs: &[SchemaRef], _declared: &SchemaRef) -> Result<SchemaRef> {
        Ok(rows(&self.source))
    }

    fn lineage(&self, _inputs: &Inputs<'_>) -> Lineage {
        Lineage::default()
    }

    fn lower(&self, builder: &mut Builder<'_>, at: usize) -> Result<()> {
        builder.source(at, &self.source)
    }

    fn pruned(&self, needed: &Names) -> Option<Arc<dyn Step>> {
        let schema = self.source.schema();
        let changes = self.source.changes();
        let is_of_changes = |name: &String| changes.as_ref().is_some_and(|changes| *name == changes.op || changes.key.contains(name));
        let is_needed = |name: &String| needed.contains(name) || is_of_changes(name);
        let columns: Vec<usize> = (0..schema.fields().len()).filter(|&i| is_needed(schema.field(i).name())).collect();
        if columns.len() == schema.fields().len() {
            return None;
        }
        Some(Arc::new(SourceStep { source: self.source.project(&columns)? }))
    }

    fn source(&self) -> Option<&Arc<dyn Source>> {
        Some(&self.source)
    }
}
