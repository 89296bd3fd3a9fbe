//! Joins of two streams by key: what all kinds have in common, and the step of those that buffer both sides.
//!
//! ```text
//!   left  ──(key columns)──hash──┐
//!                                ├──► join ──► result, late, late_right, errors
//!   right ──(key columns)──hash──┘
//! ```
//!
//! `keys` brings the keys of both sides together, `columns` names the columns of the result. `regular` is the step that joins all
//! rows of both sides, whatever their times. What any kind of join needs of
//! the chains is in [`lower`](crate::lower): both inputs by the hash of their own key, and a stage with two inputs.

mod columns;
mod keys;
mod regular;

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, SchemaRef, TimeUnit};
use mill_protocol::{Error, Result};

pub(crate) use self::columns::JoinedColumns;
pub(crate) use self::keys::JoinKeys;
pub use self::keys::JoinOn;
use super::parts::check_kept;
use super::window::check_unit;
use super::{Changes, Inputs, Names, Need, Splits, Step, remaining};
use crate::expr::Expr;
use crate::join::{How, JoinKind, JoinPlan, signed};
use crate::logical::{Parameters, parameters, texts};
use crate::lower::{Builder, Lineage};
use crate::physical::StageKind;
use crate::stream::checks::append_only;
use crate::stream::{EventTime, Facts, OutputSpec, Stream};
use crate::types::type_name;
use crate::window::{Gap, WindowKind};

/// What every join is told.
#[derive(Clone, Debug)]
pub struct JoinCall {
    /// The key.
    pub on: JoinOn,
    /// Which rows there are.
    pub how: How,
    /// What is added to the name of a right column that the left side has too.
    pub suffix: String,
}

/// Joins two streams whose records are kept until they can have no more partners.
#[derive(Debug)]
struct Join {
    kind: JoinKind,
    how: How,
    keys: JoinKeys,
    columns: JoinedColumns,
}

impl Stream {
    /// Joins records of one key of which the right one is `lower_us` to `upper_us` microseconds after the left one.
    ///
    /// # Errors
    /// When a side has no event time or is an updating stream, or keys, names or bounds do not fit.
    pub fn join_interval(&self, right: &Stream, call: JoinCall, lower_us: i64, upper_us: i64) -> Result<Stream> {
        if lower_us > upper_us {
            return Err(Error::plan(format!(
                "join_interval(): lower={:?} is greater than upper={:?}; right records match from lower to upper after a left one",
                signed(lower_us),
                signed(upper_us)
            )));
        }
        self.add_join(right, call, JoinKind::Interval { lower_us, upper_us }, "join_interval")
    }

    /// Joins records of one key that are in the same window, once for each window that has both.
    ///
    /// # Errors
    /// When a side has no event time or is an updating stream, or keys, names or windows do not fit.
    pub fn join_window(&self, right: &Stream, call: JoinCall, window: &WindowKind) -> Result<Stream> {
        match window.clone().checked()? {
            WindowKind::Aligned(window) => self.add_join(right, call, JoinKind::Window(window), "join"),
            WindowKind::Session(Gap::Fixed(gap_us)) => self.add_join(right, call, JoinKind::Session { gap_us }, "join"),
            other => Err(Error::plan(format!(
                "join() takes tumbling(), sliding() and cumulative() windows and sessions of one gap, not {other}; join_interval() \
                 joins records that are close to each other in event time"
            ))),
        }
    }

    fn add_join(&self, right: &Stream, call: JoinCall, kind: JoinKind, verb: &'static str) -> Result<Stream> {
        let time = both_times(self, right, verb)?;
        let JoinCall { on, how, suffix } = call;
        let keys = JoinKeys::new(verb, self, right, &on)?;
        let mut columns = JoinedColumns::new(verb, [&self.schema(), &right.schema()], &keys, how, &suffix)?;
        match &kind {
            JoinKind::Interval { .. } => check_microseconds(verb, &time)?,
            JoinKind::Window(window) => window.lengths().try_for_each(|(what, us)| check_unit(&time, what, us))?,
            JoinKind::Session { gap_us } => {
                check_microseconds(verb, &time)?;
                check_unit(&time, "gap", *gap_us)?;
            }
        }
        if !matches!(kind, JoinKind::Interval { .. }) {
            columns.add_window(verb, &time.data_type)?;
        }
        for side in [self, right] {
            check_kept(&side.schema()).map_err(|error| error.in_step(verb))?;
        }
        // A left record alone keeps its time; every other row has one that no column holds.
        let event_time = match kind {
            JoinKind::Interval { .. } if !how.has_pairs() => time,
            _ => EventTime { column: None, data_type: time.data_type },
        };
        let is_bounded = self.is_bounded() && right.is_bounded();
        let facts = Facts { is_bounded, event_time: Some(event_time), updating: None, withdraws: false };
        let schema = columns.schema(&self.schema());
        let step = Join { kind, how, keys, columns };
        Stream::add(Arc::new(step), vec![self.clone(), right.clone()], schema, facts)
    }
}

/// Refuses event time in nanoseconds: which of two records less than a microsecond apart came first, event time does not know.
pub(crate) fn check_microseconds(verb: &'static str, time: &EventTime) -> Result<()> {
    let DataType::Timestamp(TimeUnit::Nanosecond, zone) = &time.data_type else { return Ok(()) };
    let column = time.column.as_deref().unwrap_or("…");
    let zone = zone.as_ref().map(|zone| format!(", {zone:?}")).unwrap_or_default();
    Err(Error::plan(format!(
        "{verb}(): event time counts microseconds, and that of the streams is {}, so it would not see which of two records less than a \
         microsecond apart came first; cast it before event_time(), as in cast({{{column:?}: mill.Timestamp(\"us\"{zone})}})",
        type_name(&time.data_type),
    )))
}

/// The event time of the left side, if both sides have one of one type.
pub(crate) fn both_times(left: &Stream, right: &Stream, verb: &'static str) -> Result<EventTime> {
    append_only(left, verb)?;
    append_only(right, verb)?;
    let time_of = |side: &Stream, name: &str| {
        side.facts().event_time.ok_or_else(|| {
            Error::plan(format!(
                "{verb}() goes by event time, and the {name} stream has none; call event_time(\"…\") on it before {verb}()"
            ))
        })
    };
    let (time, other) = (time_of(left, "left")?, time_of(right, "right")?);
    if time.data_type != other.data_type {
        return Err(Error::schema(format!(
            "{verb}(): event time is {} on the left and {} on the right; cast one of them before event_time()",
            type_name(&time.data_type),
            type_name(&other.data_type)
        )));
    }
    Ok(time)
}

impl Step for Join {
    fn label(&self) -> &'static str {
        self.kind.label()
    }

    fn parameters(&self) -> Parameters {
        let mut parameters = parameters([("how", self.how.as_str().into()), ("on", texts(self.keys.shown().iter()))]);
        match &self.kind {
            JoinKind::Interval { lower_us, upper_us } => {
                parameters.insert("lower".to_owned(), signed(*lower_us).into());
                parameters.insert("upper".to_owned(), signed(*upper_us).into());
            }
            JoinKind::Window(window) => _ = parameters.insert("window".to_owned(), window.to_string().into()),
            JoinKind::Session { gap_us } => {
                parameters.insert("window".to_owned(), WindowKind::Session(Gap::Fixed(*gap_us)).to_string().into());
            }
        }
        parameters
    }

    fn exprs(&self) -> Vec<&Expr> {
        self.keys.exprs()
    }

    fn outputs(&self) -> &[OutputSpec] {
        static OUTPUTS: [OutputSpec; 4] =
            [OutputSpec::RESULT, OutputSpec::LATE, OutputSpec::LATE_RIGHT, OutputSpec::ERRORS];
        &OUTPUTS
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
        // Which records are partners depends on their times alone.
        Ok(false)
    }

    fn needs(&self, need: &Need<'_>) -> Result<Names> {
        let mut names = self.columns.needed(need.number, need.columns);
        self.keys.add_columns(need.number, &mut names);
        Ok(names)
    }

    fn schema(&self, inputs: &[SchemaRef], declared: &SchemaRef) -> Result<SchemaRef> {
        Ok(remaining(declared, |name| self.columns.is_left(name, inputs)))
    }

    fn lineage(&self, _inputs: &Inputs<'_>) -> Lineage {
        Lineage::default()
    }

    fn lower(&self, builder: &mut Builder<'_>, at: usize) -> Result<()> {
        let inputs = builder.join_inputs(at, &self.keys)?;
        let schema = Arc::clone(&builder.graph.steps[at].schema);
        let columns = self.columns.placed(&schema, &inputs)?;
        let kept = |side: usize| {
            let fields = self.columns.kept(side, &schema, &inputs.before[side]);
            let fields: Vec<String> =
                fields.iter().map(|field: &Field| format!("{} {}", field.name(), type_name(field.data_type()))).collect();
            fields.join(", ")
        };
        let partners = match &self.kind {
            JoinKind::Interval { lower_us, upper_us } => format!("from {lower_us} to {upper_us} us"),
            JoinKind::Window(window) => format!("window {window}"),
            JoinKind::Session { gap_us } => format!("session {gap_us} us"),
        };
        let signature = format!(
            "key({}) {} {} {partners} left({}) right({})",
            inputs.described,
            self.label(),
            self.how.as_str(),
            kept(0),
            kept(1)
        );
        let plan = JoinPlan {
            kind: self.kind,
            how: self.how,
            keys: inputs.keys.clone(),
            inputs: [Arc::clone(&inputs.places[0].schema), Arc::clone(&inputs.places[1].schema)],
            own: [inputs.before[0].fields().len(), inputs.before[1].fields().len()],
            columns,
            on: self.keys.shown().join(", "),
        };
        let placed = builder.stage_of_two(&inputs.places, StageKind::Join(Arc::new(plan)), at, schema, signature)?;
        builder.publish_with_inputs(at, &placed, &inputs.before);
        Ok(())
    }
}
