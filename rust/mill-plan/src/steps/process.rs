//! `key_by(…).process(…)`: a user's function of the records and timers of each key, with state.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use mill_protocol::{Error, Result};

use super::parts::check_kept;
use super::{Changes, Inputs, Names, Need, Splits, Step};
use crate::logical::{Parameters, parameters};
use crate::lookup::UntilLoaded;
use crate::lower::{Builder, Lineage, rename};
use crate::physical::{BroadcastStage, EdgeKind, ProcessStage, StageKind, described_state};
use crate::process::{ProcessFunction, StateSpec, TimerClock};
use crate::stream::checks::{check_unique, column_index};
use crate::stream::{ERRORS, Facts, KeyedStream, OutputSpec, RESULT, Stream};
use crate::types::holds_objects;

/// Calls a user's function with the records and timers of each key.
#[derive(Debug)]
pub(crate) struct Process {
    keys: Vec<String>,
    function: Arc<dyn ProcessFunction>,
    states: Vec<StateSpec>,
    outputs: Vec<OutputSpec>,
    is_timed: bool,
    broadcast: Option<Broadcast>,
}

/// A stream of which every task gets all records.
#[derive(Debug)]
struct Broadcast {
    states: Vec<StateSpec>,
    is_timed: bool,
    is_bounded: bool,
}

/// A stream of which every task of a process function is to get all records, and what is kept of it.
#[derive(Clone, Debug)]
pub struct BroadcastCall {
    /// The stream.
    pub stream: Stream,
    /// The states.
    pub states: Vec<StateSpec>,
}

impl KeyedStream {
    /// What a user's function makes of the records and timers of each key. `schema` is that of its result, `sides` are its
    /// other outputs with theirs. All records of a `broadcast` stream reach every task; where that stream is bounded, the keyed
    /// one is read once it has ended.
    ///
    /// # Errors
    /// When a schema has no column, an output or a state has a name that cannot be, a state goes by event time and the
    /// stream has none, or the broadcast stream is an updating one or its states have a ttl.
    pub fn process(
        &self,
        function: Arc<dyn ProcessFunction>,
        states: Vec<StateSpec>,
        schema: SchemaRef,
        sides: Vec<(String, SchemaRef)>,
        broadcast: Option<BroadcastCall>,
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
        let of_broadcast = broadcast.iter().flat_map(|broadcast| &broadcast.states);
        if let Some(state) = of_broadcast.clone().find(|state| state.ttl.is_some()) {
            return Err(Error::plan(format!(
                "process(): broadcast state {:?} cannot have a ttl: the tasks would forget it at different times; delete what is \
                 over in process_broadcast()",
                state.name
            )));
        }
        let holds = |state: &&StateSpec| state.columns.iter().any(|column| holds_objects(column));
        if let Some(state) = of_broadcast.clone().find(holds) {
            return Err(Error::plan(format!(
                "process(): broadcast state {:?} holds Python objects, which a task could change unseen by the others; keep plain values",
                state.name
            )));
        }
        for state in states.iter().chain(of_broadcast) {
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
        let mut inputs = vec![self.stream.clone()];
        let broadcast = broadcast.map(|BroadcastCall { stream, states }| {
            facts.is_bounded &= stream.is_bounded();
            let broadcast = Broadcast { states, is_timed: stream.has_event_time(), is_bounded: stream.is_bounded() };
            inputs.push(stream);
            broadcast
        });
        if let Some(broadcast) = &broadcast {
            // Records that wait for the end of the broadcast stream are kept.
            let waiting = if broadcast.is_bounded { Some(self.stream.schema()) } else { None };
            waiting.map_or(Ok(()), |schema| check_kept(&schema)).map_err(|error| error.in_step("process"))?;
        }
        let step = Process { keys: self.keys.clone(), function, states, outputs, is_timed, broadcast };
        Stream::add(Arc::new(step), inputs, schema, facts)
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
        let mut parameters = parameters([
            ("keys", self.keys.clone().into()),
            ("function", self.function.name().into()),
            ("rung", self.function.rung().as_str().into()),
            ("states", states.into()),
            ("side_outputs", sides.into()),
        ]);
        if let Some(broadcast) = &self.broadcast {
            let states: Vec<String> = broadcast.states.iter().map(described_state).collect();
            parameters.insert("broadcast".to_owned(), states.into());
        }
        parameters
    }

    fn is_opaque(&self) -> bool {
        true
    }

    fn holds_first(&self) -> bool {
        self.broadcast.as_ref().is_some_and(|broadcast| broadcast.is_bounded)
    }

    fn takes_in_turn(&self, number: usize) -> bool {
        // Of two broadcast records of one key the same one is the latest each time.
        number == 1 && self.holds_first()
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
        // What is kept may change from run to run; the operator compares it with what the checkpoint has.
        let mut signature = format!("key({}) process", builder.described_keys(at, &records, &self.keys)?);
        let mut broadcast = None;
        let mut inputs = match &self.broadcast {
            None => vec![builder.exchange_by_key(&input, &keys)],
            Some(of) => {
                signature.push_str(" with a broadcast stream");
                let mut place = builder.input(at, 1)?;
                if builder.parallelism(&place) > 1 {
                    place = builder.exchange(&place, EdgeKind::Gather, 1);
                    let (uid, name) = (builder.graph.steps[at].uid.clone(), builder.graph.steps[at].name.clone());
                    let schema = Arc::clone(&place.schema);
                    let placed = builder.stage(&place, StageKind::Pass, at, Arc::clone(&schema), String::new())?;
                    rename(builder, &placed, &uid, &name, "broadcast");
                    place = placed.port(0, schema);
                }
                broadcast = Some(BroadcastStage {
                    records: Arc::clone(&place.schema),
                    states: of.states.clone(),
                    is_timed: of.is_timed,
                    until_loaded: match of.is_bounded {
                        false => UntilLoaded::Pass,
                        true if builder.graph.can_hold_first(at) => UntilLoaded::Hold,
                        true => UntilLoaded::Keep,
                    },
                });
                builder.exchange_and_broadcast(&input, &keys, &place).to_vec()
            }
        };
        let sides = self.sides().filter_map(|output| output.own.clone()).collect();
        let stage = ProcessStage {
            keys,
            records,
            function: Arc::clone(&self.function),
            states: self.states.clone(),
            sides,
            is_timed: self.is_timed,
            broadcast,
        };
        let schema = Arc::clone(&builder.graph.steps[at].schema);
        let kind = StageKind::Process(Box::new(stage));
        let placed = match inputs.pop() {
            Some(second) if !inputs.is_empty() => builder.stage_of_two(&[inputs.remove(0), second], kind, at, schema, signature)?,
            Some(only) => builder.stage(&only, kind, at, schema, signature)?,
            None => return Err(Error::internal("a step without an input")),
        };
        builder.publish(at, &placed);
        Ok(())
    }
}

impl Process {
    fn sides(&self) -> impl Iterator<Item = &OutputSpec> {
        self.outputs.iter().filter(|output| output.own.is_some())
    }
}
