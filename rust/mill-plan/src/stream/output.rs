//! The outputs of a step: a list, each with a name, columns and what is known of it.
//!
//! ```text
//!   filter           result, errors
//!   branch           yes, no, errors
//!   window + agg     result, late, errors
//! ```
//!
//! The first output is the result. Whatever needs a number for an output (the ports of a stage) takes it from this list.

use std::borrow::Cow;

use arrow::datatypes::{DataType, SchemaRef};

use crate::physical::error_schema;

/// The name of what most steps are for.
pub(crate) const RESULT: &str = "result";
/// The name of what came too late for its window.
pub(crate) const LATE: &str = "late";
/// The name of what came too late on the second input of a step.
pub(crate) const LATE_RIGHT: &str = "late_right";
/// The name of what could not be processed.
pub(crate) const ERRORS: &str = "errors";

/// One output of a step.
#[derive(Clone, Debug)]
pub struct Output {
    /// Its name, unique among the outputs of the step.
    pub name: Cow<'static, str>,
    /// Its columns.
    pub schema: SchemaRef,
    /// What is known of it besides.
    pub facts: Facts,
    pub(crate) content: Content,
}

/// An output as a step describes it.
#[derive(Clone, Debug)]
pub(crate) struct OutputSpec {
    pub(crate) name: Cow<'static, str>,
    pub(crate) content: Content,
    /// The columns, of an output that has columns of its own.
    pub(crate) own: Option<SchemaRef>,
}

/// What the records of an output are; their columns follow from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// What the step computes, or a share of it.
    Result,
    /// Records of the input with this number as they came.
    Input(usize),
    /// Records with columns of their own.
    Side,
    /// Descriptions of records that failed, with the columns of [`error_schema`].
    Errors,
}

impl OutputSpec {
    /// What the step is for.
    pub(crate) const RESULT: OutputSpec = OutputSpec::new(RESULT, Content::Result);
    /// What came too late.
    pub(crate) const LATE: OutputSpec = OutputSpec::new(LATE, Content::Input(0));
    /// What came too late on the second input.
    pub(crate) const LATE_RIGHT: OutputSpec = OutputSpec::new(LATE_RIGHT, Content::Input(1));
    /// What could not be processed: of steps in which single records can fail.
    pub(crate) const ERRORS: OutputSpec = OutputSpec::new(ERRORS, Content::Errors);

    pub(crate) const fn new(name: &'static str, content: Content) -> OutputSpec {
        OutputSpec { name: Cow::Borrowed(name), content, own: None }
    }

    /// An output of this name with these columns.
    pub(crate) fn side(name: &str, schema: SchemaRef) -> OutputSpec {
        OutputSpec { name: Cow::Owned(name.to_owned()), content: Content::Side, own: Some(schema) }
    }
}

impl Output {
    /// An output of a step with this result and these inputs.
    pub(crate) fn of(spec: &OutputSpec, schema: &SchemaRef, facts: &Facts, inputs: &[&Output]) -> Output {
        let (schema, facts) = match spec.content {
            Content::Input(number) => {
                let input = inputs[number];
                (SchemaRef::clone(&input.schema), input.facts.clone())
            }
            Content::Side => {
                (spec.own.as_ref().map_or_else(|| SchemaRef::clone(schema), SchemaRef::clone), facts.clone())
            }
            Content::Result => (SchemaRef::clone(schema), facts.clone()),
            Content::Errors => {
                (error_schema(), Facts { is_bounded: facts.is_bounded, event_time: None, updating: None, withdraws: false })
            }
        };
        Output { name: spec.name.clone(), schema, facts, content: spec.content }
    }
}

/// What is known of a stream besides its columns.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Whether it ends.
    pub is_bounded: bool,
    /// Where its event time came from, if it has one.
    pub event_time: Option<EventTime>,
    /// The key columns whose latest row counts, in an updating stream.
    pub updating: Option<Vec<String>>,
    /// Whether rows of an updating stream may withdraw their key instead of setting its row.
    pub withdraws: bool,
}

impl Facts {
    /// The column no longer holds what it held.
    pub(crate) fn forget(&mut self, column: &str) {
        if let Some(time) = &mut self.event_time {
            time.column = time.column.take().filter(|name| name != column);
        }
    }
}

/// Where a stream's event time came from.
#[derive(Clone, Debug)]
pub struct EventTime {
    /// The column that still holds it, if any.
    pub column: Option<String>,
    /// The timestamp type of window bounds.
    pub data_type: DataType,
}
