//! Streams: the logical plan, built step by step and checked at every step.
//!
//! A [`Stream`] is a handle on an output of a step; steps form an acyclic graph that handles share. The steps themselves
//! are in [`steps`](crate::steps), a file each, with the methods that add them. Adding a step checks it at once against
//! what is known of its input (columns and types, boundedness, event time, whether it is updating), so that a mistake is
//! an error at the user's line. Nothing is ever changed in place: the same stream may be used several times, and is then
//! read once.

pub(crate) mod checks;
mod keyed;
mod output;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use mill_frame::types::check_fields;
use mill_protocol::{Error, Result};

use self::checks::append_only;
pub use self::keyed::KeyedStream;
pub(crate) use self::keyed::key_fields;
pub(crate) use self::output::{Content, ERRORS, LATE, LATE_RIGHT, OutputSpec, RESULT};
pub use self::output::{EventTime, Facts, Output};
pub(crate) use crate::window::duration;
use crate::lower::PlanOptions;
use crate::steps::{Changes, Step, preview};

/// How many steps may follow one another.
pub const STEPS_MAX: usize = 2000;

/// The records that come out of a step.
#[derive(Clone)]
pub struct Stream {
    pub(crate) node: Arc<Node>,
    /// Which of the step's outputs.
    pub(crate) output: usize,
    /// The name that the user has given to the step, on this handle.
    pub(crate) name: Option<Arc<str>>,
    /// The name or identity that the step had in former runs.
    pub(crate) was: Option<Arc<str>>,
}

/// A step with its inputs.
pub(crate) struct Node {
    pub(crate) step: Arc<dyn Step>,
    pub(crate) inputs: Vec<Stream>,
    pub(crate) outputs: Vec<Output>,
    /// The columns of the result.
    pub(crate) schema: SchemaRef,
    /// What is known of the result.
    pub(crate) facts: Facts,
    depth: usize,
}

/// When a keyed step without windows emits results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Emit {
    /// `End` on bounded input, every second on unbounded.
    Default,
    /// Once a key, when the input ends.
    End,
    /// What changed, every so many microseconds.
    Every(i64),
    /// What changed, at each checkpoint.
    Checkpoint,
    /// At each record.
    Each,
}

impl Emit {
    /// What a keyed step that emits so makes of its input: only the last result of a key is no update.
    pub(crate) fn changes(self, keys: &[String]) -> Changes {
        match self {
            Emit::End => Changes::Refuses,
            Emit::Default | Emit::Every(_) | Emit::Checkpoint | Emit::Each => {
                Changes::Makes { key: keys.to_vec(), withdraws: false }
            }
        }
    }
}

impl fmt::Display for Emit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Emit::Default => f.write_str("default"),
            Emit::End => f.write_str("end"),
            Emit::Every(us) => f.write_str(&duration(*us)),
            Emit::Checkpoint => f.write_str("checkpoint"),
            Emit::Each => f.write_str("each"),
        }
    }
}

impl Stream {
    /// Whether both are handles of one output of one step.
    pub fn is_same(&self, other: &Stream) -> bool {
        Arc::ptr_eq(&self.node, &other.node) && self.output == other.output
    }

    /// The columns.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.output().schema)
    }

    /// What is known of the stream besides its columns.
    pub(crate) fn facts(&self) -> Facts {
        self.output().facts.clone()
    }

    /// Which of its step's outputs it is.
    pub fn output(&self) -> &Output {
        &self.node.outputs[self.output]
    }

    /// All outputs of the step that it comes from, the result first.
    pub fn outputs(&self) -> &[Output] {
        &self.node.outputs
    }

    /// Another output of the step that it comes from.
    ///
    /// # Errors
    /// When the step has no output of this name.
    pub fn side(&self, name: &str) -> Result<Stream> {
        match self.node.outputs.iter().position(|output| output.name == name) {
            Some(output) => Ok(Stream { output, ..self.clone() }),
            None => {
                let names: Vec<String> = self.node.outputs.iter().map(|output| format!("{:?}", output.name)).collect();
                Err(Error::plan(format!(
                    "{}() has no output {name:?}; its outputs are {}",
                    self.node.step.label(),
                    names.join(", ")
                )))
            }
        }
    }

    /// Whether the stream ends.
    pub fn is_bounded(&self) -> bool {
        self.output().facts.is_bounded
    }

    /// Whether records have an event time.
    pub fn has_event_time(&self) -> bool {
        self.output().facts.event_time.is_some()
    }

    /// The column that holds the event time, if there is one and it is still there.
    pub fn event_time_column(&self) -> Option<String> {
        self.facts().event_time.and_then(|time| time.column)
    }

    /// The key columns of an updating stream, one in which the latest row of a key counts; `None` for a stream that only
    /// grows.
    pub fn is_updating(&self) -> Option<&[String]> {
        self.output().facts.updating.as_deref()
    }

    /// Whether rows of an updating stream may withdraw their key instead of setting its row.
    pub fn withdraws(&self) -> bool {
        self.output().facts.withdraws
    }

    /// The plan as text, as it would run into a table with these options.
    ///
    /// # Errors
    /// When the plan as a whole cannot be run so.
    pub fn explain(&self, options: &PlanOptions) -> Result<String> {
        Ok(crate::lower::lower(&[preview(self)?], options)?.explain())
    }

    /// Names the step before it; the name is the identity of its state.
    ///
    /// # Errors
    /// When the name is empty or too long, or the step has another name already.
    pub fn name(&self, name: &str) -> Result<Stream> {
        if name.is_empty() || name.chars().count() > 200 || name.chars().any(char::is_control) {
            return Err(Error::plan(format!("a step's name is 1 to 200 printable characters, found {name:?}")));
        }
        if let Some(other) = self.name.as_deref() {
            if other != name {
                return Err(Error::plan(format!("the step is named {other:?} already; it cannot be {name:?} too")));
            }
            return Ok(self.clone());
        }
        if self.output != 0 {
            return Err(Error::plan(format!(
                "name({name:?}) is on a side output; name the step itself, before .late, .errors or branch()"
            )));
        }
        Ok(Stream { name: Some(name.into()), ..self.clone() })
    }

    /// Says which name, or identity, the step had in former runs: its state is found under that one if there is none under its
    /// own.
    ///
    /// # Errors
    /// When the step has no name of its own, or this is it.
    pub fn was(&self, former: &str) -> Result<Stream> {
        match self.name.as_deref() {
            Some(name) if name == former => Err(Error::plan(format!("name({name:?}, was={former:?}): the name is the former one"))),
            Some(_) => Ok(Stream { was: Some(former.into()), ..self.clone() }),
            None => Err(Error::plan(format!("a step that was {former:?} needs a name of its own"))),
        }
    }

    /// What came too late for its window; only of a window step.
    ///
    /// # Errors
    /// When the step before is not a window.
    pub fn late(&self) -> Result<Stream> {
        let has_late = self.outputs().iter().any(|output| output.name == LATE);
        if self.output != 0 || !has_late {
            return Err(Error::plan(format!(
                "late records come from a window step or a join, and this is {}(); take .late right after window(...).agg(...), \
                 top_n(..., within=...), deduplicate(within=...) or a join",
                self.node.step.label()
            )));
        }
        self.side(LATE)
    }

    /// A side output of the step that it comes from.
    ///
    /// # Errors
    /// When the step has no side output of this name.
    pub fn side_output(&self, name: &str) -> Result<Stream> {
        let is_side = |output: &Output| output.content == Content::Side;
        let found = self.outputs().iter().any(|output| is_side(output) && output.name == name);
        if self.output == 0 && found {
            return self.side(name);
        }
        let names: Vec<String> =
            self.outputs().iter().filter(|output| is_side(output)).map(|output| format!("{:?}", output.name)).collect();
        Err(Error::plan(match names.as_slice() {
            _ if self.output > 0 => format!("side_output({name:?}) is taken of the result of process(), not of another output"),
            [] => format!(
                "{}() has no side outputs; process(…, side_outputs={{{name:?}: {{…}}}}) declares them",
                self.node.step.label()
            ),
            names => format!("process() has no side output {name:?}; it has {}", names.join(", ")),
        }))
    }

    /// What came too late on the right side of the join before.
    ///
    /// # Errors
    /// When the step before is no join that has such an output.
    pub fn late_right(&self) -> Result<Stream> {
        let has_late = self.outputs().iter().any(|output| output.name == LATE_RIGHT);
        if self.output != 0 || !has_late {
            return Err(Error::plan(format!(
                "late records of the right side come from a join, and this is {}(); take .late_right right after join(), \
                 join_interval() or join_asof()",
                self.node.step.label()
            )));
        }
        self.side(LATE_RIGHT)
    }

    /// The records that failed in the step before, with `step`, `error`, `traceback` and `record`.
    ///
    /// # Errors
    /// When no record can fail in that step.
    pub fn errors(&self) -> Result<Stream> {
        let has_errors = self.outputs().iter().any(|output| output.name == ERRORS);
        if self.output().content != Content::Result || !has_errors {
            return Err(Error::plan(format!(
                "no record fails in {}(), so it has no errors; take .errors of the step whose records may fail",
                self.node.step.label()
            )));
        }
        self.side(ERRORS)
    }

    /// The records that failed in any step from the sources to this one, with the columns of [`errors`](Stream::errors).
    ///
    /// # Errors
    /// When no record can fail in any of them.
    pub fn all_errors(&self) -> Result<Stream> {
        Stream::all_errors_of(std::slice::from_ref(self))
    }

    /// The same of several streams: a step that several of them come from is there once.
    ///
    /// # Errors
    /// When no record can fail in any of the steps, or no stream is given.
    pub fn all_errors_of(streams: &[Stream]) -> Result<Stream> {
        let (mut waiting, mut seen, mut found) = (streams.iter().collect::<Vec<_>>(), HashSet::new(), Vec::new());
        while let Some(stream) = waiting.pop() {
            if !seen.insert(Arc::as_ptr(&stream.node)) {
                continue;
            }
            waiting.extend(&stream.node.inputs);
            if stream.node.outputs.iter().any(|output| output.name == ERRORS) {
                found.push(stream.side(ERRORS)?);
            }
        }
        // Sources first.
        found.sort_by_key(|errors| errors.node.depth);
        match found.split_first() {
            Some((only, [])) => Ok(only.clone()),
            Some((first, others)) => first.union(others),
            None => Err(Error::plan(match streams {
                [] => "all_errors() needs the streams whose errors it has",
                [_] => "no record fails in any step of this stream, so it has no errors",
                _ => "no record fails in any step of these streams, so they have no errors",
            })),
        }
    }

    /// A step without inputs.
    pub(crate) fn first(step: Arc<dyn Step>, schema: SchemaRef, facts: Facts) -> Stream {
        let outputs = step.outputs().iter().map(|spec| Output::of(spec, &schema, &facts, &[])).collect();
        let node = Node { step, inputs: Vec::new(), outputs, schema, facts, depth: 1 };
        Stream { node: Arc::new(node), output: 0, name: None, was: None }
    }

    /// A step on these inputs. `schema` and `facts` are those of its result. Of a step that does not pass updating streams
    /// on, [`Step::changes`] alone decides whether the result is one.
    pub(crate) fn add(step: Arc<dyn Step>, inputs: Vec<Stream>, schema: SchemaRef, mut facts: Facts) -> Result<Stream> {
        let depth = 1 + inputs.iter().map(|input| input.node.depth).max().unwrap_or(0);
        if depth > STEPS_MAX {
            return Err(Error::plan(format!("more than {STEPS_MAX} steps follow one another; split the job")));
        }
        check_fields(schema.fields()).map_err(|error| Error::schema(error.to_string()).in_step(step.label()))?;
        (facts.updating, facts.withdraws) = match step.changes() {
            Changes::Passes => (facts.updating, facts.withdraws),
            Changes::Ends => (None, false),
            Changes::Takes { key, withdraws } => (key, withdraws),
            Changes::RefusesFirst => {
                inputs.first().map_or(Ok(()), |input| append_only(input, step.label()))?;
                (None, false)
            }
            other => {
                inputs.iter().try_for_each(|input| append_only(input, step.label()))?;
                match other {
                    Changes::Makes { key, withdraws } => (Some(key), withdraws),
                    Changes::Passes | Changes::Ends | Changes::Takes { .. } | Changes::Refuses | Changes::RefusesFirst => (None, false),
                }
            }
        };
        let of_inputs: Vec<&Output> = inputs.iter().map(Stream::output).collect();
        let outputs = step.outputs().iter().map(|spec| Output::of(spec, &schema, &facts, &of_inputs)).collect();
        let node = Node { step, inputs, outputs, schema, facts, depth };
        Ok(Stream { node: Arc::new(node), output: 0, name: None, was: None })
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stream({}: ", if self.name.is_some() { "name" } else { self.node.step.label() })?;
        for (i, field) in self.schema().fields().iter().enumerate() {
            let separator = if i == 0 { "" } else { ", " };
            write!(f, "{separator}{} {}", field.name(), crate::types::type_name(field.data_type()))?;
        }
        f.write_str(")")
    }
}

#[cfg(test)]
mod tests;
