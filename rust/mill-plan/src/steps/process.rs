//! `key_by(…).process(…)`: a user's function of the records and timers of each key, with state.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use mill_protocol::{Error, Result};

use super::parts::check_kept;
use super::{Changes, Inputs, Names, Need, Splits, Step};
use crate::logical::{Parameters, parameters};
use crate::lower::{Builder, Lineage};
use crate::physical::{ProcessStage, StageKind, described_state};
use crate::process::{ProcessFunction, StateSpec, TimerClock};
use crate::stream::checks::{check_unique, column_index};
use crate::stream::{ERRORS, Facts, KeyedStream, OutputSpec, RESULT, Stream};

/// Calls a user's function with the records and timers of each key.
#[derive(Debug)]
pub(crate) struct Process {
    keys: Vec<String>,
    function: Arc<dyn ProcessFunction>,
    states: Vec<StateSpec>,
    outputs: Vec<OutputSpec>,
    is_timed: bool,
}

impl KeyedStream {
    /// What a user's function makes of the records and timers of each key. `schema` is that of its result, `sides` are its
    /// other outputs with theirs.
    ///
    /// # Errors
    /// When a schema has no column, an output or a state has a name that cannot be, or a state goes by event time and the
    /// stream has none.
    pub fn process(
        &self,
        function: Arc<dyn ProcessFunction>,
        states: Vec<StateSpec>,
        schema: SchemaRef,
        sides: Vec<(String, SchemaRef)>,
    ) -> Result<Stream> {
        let is_timed = self.stream.has_event_time();
        let mut outputs = vec![OutputSpec::RESULT];
        for (name, side) in &sides {
            if name.is_empty() || [RESULT, ERRORS].contains(&name.as_str()) {
                return Err(Error::plan(format!("process(): a side output cannot be named {name:?}; give it another name")));
            }
            check_columns(side, &format!("side output {name:?}"))?;
            outputs.push(OutputSpec::side(name, Arc::clone(side)));
        }
        check_unique(sides.iter().map(|(name, _)| name.clone()), "process(side_outputs=…)")?;
        outputs.push(OutputSpec::ERRORS);
        check_columns(&schema, "its result")?;
        for state in &states {
            check_kept(&arrow::datatypes::Schema::new(state.columns.clone()))
                .map_err(|error| Error::new(error.kind(), format!("process(): {}", error.message())))?;
            if !is_timed && state.ttl.is_some_and(|ttl| ttl.clock == TimerClock::Event) {
                return Err(Error::plan(format!(
                    "process(): the ttl of state {:?} goes by event time, and the stream has none; call event_time() before \
                     key_by(), or give the state clock=\"processing\"",
                    state.name
                )));
            }
        }
        let mut facts = Facts { updating: None, withdraws: false, ..self.stream.facts() };
        if let Some(time) = &mut facts.event_time {
            time.column = None;
        }
        let step = Process { keys: self.keys.clone(), function, states, outputs, is_timed };
        Stream::add(Arc::new(step), vec![self.stream.clone()], schema, facts)
    }
}

fn check_columns(schema: &SchemaRef, of: &str) -> Result<()> {
    if schema.fields().is_empty() {
        return Err(Error::plan(format!("process(): {of} needs a schema with at least one column")));
    }
    check_unique(schema.fields().iter().map(|field| field.name().clone()), "process")
}

impl Step for Process {
    fn label(&self) -> &'static str {
        "process"
    }

    fn parameters(&self) -> Parameters {
        let states: Vec<String> = self.states.iter().map(described_state).collect();
        let sides: Vec<String> = self.sides().map(|output| output.name.to_string()).collect();
        parameters([
            ("keys", self.keys.clone().into()),
            ("function", self.function.name().into()),
            ("rung", self.function.rung().as_str().into()),
            ("states", states.into()),
            ("side_outputs", sides.into()),
        ])
    }

    fn outputs(&self) -> &[OutputSpec] {
        &self.outputs
    }

    fn changes(&self) -> Changes {
        Changes::Refuses
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

    fn schema(&self, _inputs: &[SchemaRef], declared: &SchemaRef) -> Result<SchemaRef> {
        Ok(Arc::clone(declared))
    }

    fn lineage(&self, _inputs: &Inputs<'_>) -> Lineage {
        Lineage::default()
    }

    fn lower(&self, builder: &mut Builder<'_>, at: usize) -> Result<()> {
        let input = builder.input(at, 0)?;
        let records = Arc::clone(&input.schema);
        let keys = self.keys.iter().map(|key| column_index(&records, key)).collect::<Result<Vec<usize>>>()?;
        let input = builder.exchange_by_key(&input, &keys);
        // What is kept may change from run to run; the operator compares it with what the checkpoint has.
        let signature = format!("key({}) process", builder.described_keys(at, &records, &self.keys)?);
        let sides = self.sides().filter_map(|output| output.own.clone()).collect();
        let stage = ProcessStage {
            keys,
            records,
            function: Arc::clone(&self.function),
            states: self.states.clone(),
            sides,
            is_timed: self.is_timed,
        };
        let schema = Arc::clone(&builder.graph.steps[at].schema);
        let placed = builder.stage(&input, StageKind::Process(Box::new(stage)), at, schema, signature)?;
        builder.publish(at, &placed);
        Ok(())
    }
}

impl Process {
    fn sides(&self) -> impl Iterator<Item = &OutputSpec> {
        self.outputs.iter().filter(|output| output.own.is_some())
    }
}
