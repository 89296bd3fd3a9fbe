//! `map`, `flat_map`, `filter`, `map_batches`, `inspect`: a user's function of whole records.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use mill_protocol::{Error, Result};

use super::{Changes, Inputs, Names, Need, Splits, Step};
use crate::function::BatchFunction;
use crate::logical::{Parameters, parameters};
use crate::lower::{Builder, Lineage};
use crate::physical::StageKind;
use crate::stream::checks::{append_only, check_unique};
use crate::stream::{OutputSpec, Stream};

/// How the user called a function of whole records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UserStepKind {
    /// One record in, one out.
    Map,
    /// One record in, any number out.
    FlatMap,
    /// Keeps records or not.
    Filter,
    /// Batches in, batches out.
    MapBatches,
    /// Batches in, the same with what a look-up has found out.
    Lookup,
    /// Looks at records and passes them on as they are.
    Inspect,
}

impl UserStepKind {
    /// The method's name.
    pub fn label(self) -> &'static str {
        match self {
            UserStepKind::Map => "map",
            UserStepKind::FlatMap => "flat_map",
            UserStepKind::Filter => "filter",
            UserStepKind::MapBatches => "map_batches",
            UserStepKind::Lookup => "enrich",
            UserStepKind::Inspect => "inspect",
        }
    }
}

/// Calls a user's function.
#[derive(Debug)]
pub(crate) struct User {
    kind: UserStepKind,
    function: Arc<dyn BatchFunction>,
}

impl Stream {
    /// A user's function of whole records. `schema` is what it gives; for `Filter` and `Inspect` that of the input.
    ///
    /// # Errors
    /// When the schema does not fit the kind of step, or an updating stream meets anything but `Inspect`.
    pub fn apply(&self, kind: UserStepKind, function: Arc<dyn BatchFunction>, schema: SchemaRef) -> Result<Stream> {
        if kind != UserStepKind::Inspect {
            append_only(self, kind.label())?;
        }
        check_unique(schema.fields().iter().map(|field| field.name().clone()), kind.label())?;
        let mut facts = self.facts();
        let schema = match kind {
            UserStepKind::Filter | UserStepKind::Inspect => self.schema(),
            _ => {
                if schema.fields().is_empty() {
                    return Err(Error::plan(format!("{}() needs a schema with at least one column", kind.label())));
                }
                if let Some(time) = &mut facts.event_time {
                    time.column = time.column.take().filter(|column| schema.field_with_name(column).is_ok());
                }
                schema
            }
        };
        Stream::add(Arc::new(User { kind, function }), vec![self.clone()], schema, facts)
    }
}

impl User {
    /// Whether its results are records of its input as they came.
    fn passes_records(&self) -> bool {
        match self.kind {
            UserStepKind::Filter | UserStepKind::Inspect => true,
            UserStepKind::Map | UserStepKind::FlatMap | UserStepKind::MapBatches | UserStepKind::Lookup => false,
        }
    }
}

impl Step for User {
    fn label(&self) -> &'static str {
        self.kind.label()
    }

    fn parameters(&self) -> Parameters {
        let rung = self.function.rung().as_str();
        let mut told = parameters([("function", self.function.name().into()), ("rung", rung.into())]);
        if let Some(rows) = self.function.batch_rows() {
            told.insert("batch_rows".to_owned(), rows.into());
        }
        told
    }

    fn is_opaque(&self) -> bool {
        true
    }

    fn outputs(&self) -> &[OutputSpec] {
        static OUTPUTS: [OutputSpec; 2] = [OutputSpec::RESULT, OutputSpec::ERRORS];
        &OUTPUTS
    }

    fn changes(&self) -> Changes {
        match self.kind {
            UserStepKind::Inspect => Changes::Passes,
            UserStepKind::Map
            | UserStepKind::FlatMap
            | UserStepKind::Filter
            | UserStepKind::MapBatches
            | UserStepKind::Lookup => Changes::Refuses,
        }
    }

    fn is_stateful(&self) -> bool {
        false
    }

    fn splits(&self) -> Splits {
        Splits::Keeps
    }

    fn needs_order(&self, of_result: bool, _before: &SchemaRef) -> Result<bool> {
        Ok(of_result)
    }

    fn needs(&self, need: &Need<'_>) -> Result<Names> {
        Ok(need.all())
    }

    fn schema(&self, inputs: &[SchemaRef], declared: &SchemaRef) -> Result<SchemaRef> {
        Ok(Arc::clone(if self.passes_records() { &inputs[0] } else { declared }))
    }

    fn lineage(&self, inputs: &Inputs<'_>) -> Lineage {
        if self.passes_records() { inputs.first() } else { Lineage::default() }
    }

    fn lower(&self, builder: &mut Builder<'_>, at: usize) -> Result<()> {
        let input = builder.input(at, 0)?;
        let kind = StageKind::User { kind: self.kind, function: Arc::clone(&self.function) };
        builder.place(at, &input, kind, String::new())
    }
}
