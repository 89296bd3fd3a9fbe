//! `read_…()`: where records come from.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use mill_protocol::{Result, Source};

use super::{Changes, Inputs, Names, Need, Splits, Step};
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
        let schema = source.schema();
        let facts = Facts { is_bounded: source.properties().is_bounded, event_time: None, updating: None, withdraws: false };
        Stream::first(Arc::new(SourceStep { source }), schema, facts)
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
        Changes::Refuses
    }

    fn is_stateful(&self) -> bool {
        true
    }

    fn may_fail(&self) -> bool {
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
        Ok(self.source.schema())
    }

    fn lineage(&self, _inputs: &Inputs<'_>) -> Lineage {
        Lineage::default()
    }

    fn lower(&self, builder: &mut Builder<'_>, at: usize) -> Result<()> {
        builder.source(at, &self.source)
    }

    fn pruned(&self, needed: &Names) -> Option<Arc<dyn Step>> {
        let schema = self.source.schema();
        let columns: Vec<usize> =
            (0..schema.fields().len()).filter(|&i| needed.contains(schema.field(i).name())).collect();
        if columns.len() == schema.fields().len() {
            return None;
        }
        Some(Arc::new(SourceStep { source: self.source.project(&columns)? }))
    }

    fn source(&self) -> Option<&Arc<dyn Source>> {
        Some(&self.source)
    }
}
