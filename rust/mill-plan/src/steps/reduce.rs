//! `key_by(…).reduce(…)`: a user's fold, one row a key.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use mill_protocol::Result;

use super::parts::check_kept;
use super::{Changes, Inputs, Names, Need, Splits, Step};
use crate::function::ReduceFunction;
use crate::logical::{Parameters, parameters};
use crate::lower::{Builder, Lineage};
use crate::physical::StageKind;
use crate::stream::checks::{column_index, in_step};
use crate::stream::{Emit, Facts, KeyedStream, OutputSpec, Stream};
use crate::types::type_name;

/// Folds the records of each key.
#[derive(Debug)]
pub(crate) struct Reduce {
    keys: Vec<String>,
    function: Arc<dyn ReduceFunction>,
    emit: Emit,
}

impl KeyedStream {
    /// One row a key: a user's fold over its records.
    ///
    /// # Errors
    /// When `emit` is wrong.
    pub fn reduce(&self, function: Arc<dyn ReduceFunction>, emit: Emit) -> Result<Stream> {
        check_kept(&self.stream.schema()).map_err(in_step("reduce"))?;
        let emit = self.emit(emit)?;
        let step = Reduce { keys: self.keys.clone(), function, emit };
        let facts = Facts { is_bounded: self.stream.is_bounded(), event_time: None, updating: None, withdraws: false };
        Stream::add(Arc::new(step), vec![self.stream.clone()], self.stream.schema(), facts)
    }
}

impl Step for Reduce {
    fn label(&self) -> &'static str {
        "reduce"
    }

    fn parameters(&self) -> Parameters {
        parameters([
            ("keys", self.keys.clone().into()),
            ("function", self.function.name().into()),
            ("rung", self.function.rung().as_str().into()),
            ("emit", self.emit.to_string().into()),
        ])
    }

    fn is_opaque(&self) -> bool {
        true
    }

    fn outputs(&self) -> &[OutputSpec] {
        static OUTPUTS: [OutputSpec; 2] = [OutputSpec::RESULT, OutputSpec::ERRORS];
        &OUTPUTS
    }

    fn changes(&self) -> Changes {
        self.emit.changes(&self.keys)
    }

    fn is_stateful(&self) -> bool {
        true
    }

    fn splits(&self) -> Splits {
        Splits::Keys
    }

    fn needs_order(&self, _of_result: bool, _before: &SchemaRef) -> Result<bool> {
        Ok(true)
    }

    fn needs(&self, need: &Need<'_>) -> Result<Names> {
        Ok(need.all())
    }

    fn schema(&self, inputs: &[SchemaRef], _declared: &SchemaRef) -> Result<SchemaRef> {
        Ok(Arc::clone(&inputs[0]))
    }

    fn lineage(&self, _inputs: &Inputs<'_>) -> Lineage {
        Lineage::default()
    }

    fn lower(&self, builder: &mut Builder<'_>, at: usize) -> Result<()> {
        let input = builder.input(at, 0)?;
        let schema = Arc::clone(&input.schema);
        let keys = self.keys.iter().map(|key| column_index(&schema, key)).collect::<Result<Vec<usize>>>()?;
        let input = builder.exchange_by_key(&input, &keys);
        let row: Vec<String> =
            schema.fields().iter().map(|f| format!("{} {}", f.name(), type_name(f.data_type()))).collect();
        let signature = format!("key({}) reduce({})", builder.described_keys(at, &schema, &self.keys)?, row.join(", "));
        let kind = StageKind::Reduce { keys, function: Arc::clone(&self.function), emit: self.emit };
        let placed = builder.stage(&input, kind, at, schema, signature)?;
        builder.publish(at, &placed);
        Ok(())
    }
}
