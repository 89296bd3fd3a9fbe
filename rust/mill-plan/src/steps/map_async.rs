//! `map_async`, `map_batches_async`: a user's asynchronous function of records.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use mill_protocol::{Error, Result};

use super::{Changes, Inputs, Names, Need, Splits, Step};
use crate::asynchronous::{AsyncCalls, AsyncFunction};
use crate::logical::{Parameters, parameters};
use crate::lower::{Builder, Lineage};
use crate::physical::{AsyncStage, StageKind};
use crate::stream::checks::{append_only, check_unique};
use crate::stream::{OutputSpec, Stream};
use crate::types::type_name;

/// Calls a user's asynchronous function.
#[derive(Debug)]
struct MapAsync {
    function: Arc<dyn AsyncFunction>,
    calls: AsyncCalls,
}

impl Stream {
    /// What a user's asynchronous function makes of each record; `schema` is that of its results.
    ///
    /// # Errors
    /// When the schema has no column, a call may take no record, or the stream is an updating one.
    pub fn map_async(&self, function: Arc<dyn AsyncFunction>, calls: AsyncCalls, schema: SchemaRef) -> Result<Stream> {
        let label = calls.label();
        append_only(self, label)?;
        check_unique(schema.fields().iter().map(|field| field.name().clone()), label)?;
        if schema.fields().is_empty() {
            return Err(Error::plan(format!("{label}() needs a schema with at least one column")));
        }
        if calls.capacity == 0 || calls.batch_rows == Some(0) {
            return Err(Error::plan(format!("{label}(): capacity= and batch_rows= are at least 1")));
        }
        let mut facts = self.facts();
        if let Some(time) = &mut facts.event_time {
            time.column = time.column.take().filter(|column| schema.field_with_name(column).is_ok());
        }
        Stream::add(Arc::new(MapAsync { function, calls }), vec![self.clone()], schema, facts)
    }
}

impl Step for MapAsync {
    fn label(&self) -> &'static str {
        self.calls.label()
    }

    fn parameters(&self) -> Parameters {
        parameters([
            ("function", self.function.name().into()),
            ("rung", self.function.rung().as_str().into()),
            ("capacity", self.calls.capacity.into()),
            ("batch_rows", self.calls.batch_rows.into()),
            ("ordered", self.calls.is_ordered.into()),
        ])
    }

    fn print(&self) -> String {
        // How many calls are in flight is, like the number of tasks, not of the plan.
        format!("{:?}, ordered: {}", self.function.name(), self.calls.is_ordered)
    }

    fn is_opaque(&self) -> bool {
        true
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

    fn splits(&self) -> Splits {
        // Records that wait here are of splits that may have ended since.
        Splits::Ends
    }

    fn needs_order(&self, of_result: bool, _before: &SchemaRef) -> Result<bool> {
        Ok(of_result && self.calls.is_ordered)
    }

    fn needs(&self, need: &Need<'_>) -> Result<Names> {
        Ok(need.all())
    }

    fn schema(&self, _inputs: &[SchemaRef], declared: &SchemaRef) -> Result<SchemaRef> {
        Ok(Arc::clone(declared))
    }

    fn lineage(&self, _inputs: &Inputs<'_>) -> Lineage {
        Lineage::default()
    }

    fn lower(&self, builder: &mut Builder<'_>, at: usize) -> Result<()> {
        let input = builder.input(at, 0)?;
        let records = Arc::clone(&input.schema);
        let columns: Vec<String> =
            records.fields().iter().map(|field| format!("{} {}", field.name(), type_name(field.data_type()))).collect();
        // Calls of records and of batches keep the same; a step with a name may become the other.
        let signature = format!("records in flight: {}", columns.join(", "));
        let stage = AsyncStage { function: Arc::clone(&self.function), calls: self.calls, records };
        builder.place(at, &input, StageKind::MapAsync(Box::new(stage)), signature)
    }
}
