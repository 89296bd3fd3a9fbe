//! The regular join: all rows of both sides that have the same key, as they come, change and go.
//!
//! What is in the result changes with the rows of both sides: a row without a partner gets one, a row is withdrawn. So the
//! result is an updating stream, and needs a key. What the key is follows from the sides:
//!
//! ```text
//!   side                                  tells its rows apart
//!   updating, key within on               the join key, as there is one row of it at most
//!   any other updating one                its key
//!   append-only                           a number for each record: left_row, right_row
//!
//!   key of the result = columns of on + what tells the rows of each side apart, as far as it is needed
//! ```
//!
//! An updating side may be joined by columns that are not part of its key. Then a later row may belong to another join key, and to
//! another task. So its latest rows are kept before the exchange, and one that moves is withdrawn from the join key it had.
//!
//! Two append-only sides make an append-only result where no row of it is ever withdrawn: each pair of an inner join, each row
//! of a semi join, and of bounded sides that are kept forever every row, as those without a partner can wait for the end.

use std::sync::Arc;

use arrow::datatypes::{Field, SchemaRef};
use mill_protocol::{Error, Result};

use super::columns::JoinedColumns;
use super::keys::{JoinKeys, SIDES};
use super::{JoinCall, both_times};
use crate::expr::Expr;
use crate::join::How;
use crate::logical::{Parameters, parameters, texts};
use crate::lower::{Builder, Lineage};
use crate::physical::StageKind;
use crate::process::TimerClock;
use crate::regular_join::{RegularJoinPlan, RowIdentity};
use crate::steps::parts::check_kept;
use crate::steps::{Changes, Inputs, Names, Need, Splits, Step, remaining};
use crate::stream::checks::column_index;
use crate::stream::{EventTime, Facts, OutputSpec, Stream};
use crate::types::type_name;
use crate::window::duration;

/// Joins all rows of one key.
#[derive(Debug)]
struct RegularJoin {
    how: How,
    ttl: Option<(i64, TimerClock)>,
    is_timed: bool,
    waits_for_end: bool,
    keys: JoinKeys,
    columns: JoinedColumns,
    /// The keys of the sides that are updating streams.
    updating: [Option<Vec<String>>; 2],
    /// Of which of them rows may move from one join key to another.
    moves: [bool; 2],
    tells_apart: [bool; 2],
    numbers: [bool; 2],
    /// The key of the result.
    key: Option<Vec<String>>,
    withdraws: bool,
}

const VERB: &str = "join";

impl Stream {
    /// Joins all rows of both sides that have the same key. With `ttl_us`, a row is dropped that has been neither changed nor
    /// joined for so many microseconds.
    ///
    /// # Errors
    /// When a side never ends and there is no `ttl_us`, or when keys or names do not fit.
    pub fn join_regular(&self, right: &Stream, call: JoinCall, ttl_us: Option<i64>) -> Result<Stream> {
        let sides = [self, right];
        let JoinCall { on, how, suffix } = call;
        if ttl_us.is_some_and(|us| us <= 0) {
            return Err(Error::plan("join(): ttl= must be a positive duration, as in ttl=\"1h\""));
        }
        if let Some(side) = sides.iter().position(|side| !side.is_bounded()).filter(|_| ttl_us.is_none()) {
            return Err(Error::plan(format!(
                "join() would keep all rows of both sides for ever, and the {} stream has no end: ttl=\"1h\" drops rows that have not been \
                 changed or joined for so long; window= joins records in the same window, and join_interval() those that are close to \
                 each other in event time",
                SIDES[side]
            )));
        }
        let keys = JoinKeys::new(VERB, self, right, &on)?;
        let updating = [self, right].map(|side| side.is_updating().map(<[String]>::to_vec));
        let moves = [0, 1].map(|side| moves(side, updating[side].as_deref(), &keys));
        for side in sides {
            check_kept(&side.schema()).map_err(|error| error.in_step(VERB))?;
        }
        let mut columns = JoinedColumns::new(VERB, [&self.schema(), &right.schema()], &keys, how, &suffix)?;
        let is_appended = updating.iter().all(Option::is_none);
        let is_bounded = self.is_bounded() && right.is_bounded();
        let waits_for_end = is_appended && is_bounded && ttl_us.is_none() && !matches!(how, How::Inner | How::Semi);
        let is_updating = !is_appended || !(waits_for_end || matches!(how, How::Inner | How::Semi));
        let time = match sides.iter().all(|side| side.has_event_time()) && is_appended && !waits_for_end {
            true => Some(both_times(self, right, VERB)?),
            false => None,
        };
        let clock = if time.is_some() { TimerClock::Event } else { TimerClock::Processing };
        let is_unique = [0, 1].map(|side| is_unique(side, updating[side].as_deref(), &keys));
        let tells_apart = tells_apart(how, is_unique);
        let mut numbers = [false; 2];
        let key = match is_updating {
            false => None,
            true => {
                let mut key: Vec<String> = Vec::new();
                let mut add = |name: &str| {
                    if !key.iter().any(|other| other == name) {
                        key.push(name.to_owned());
                    }
                };
                for (name, _) in keys.shared() {
                    columns.name_of(0, name).into_iter().for_each(&mut add);
                }
                // The rows of one key come from one task, in their order: a row that moves to another join key has another key.
                for side in (0..2).filter(|&side| moves[side] && tells_apart[side]) {
                    let mut read = Names::new();
                    keys.add_columns(side, &mut read);
                    read.iter().filter_map(|name| columns.name_of(side, name)).for_each(&mut add);
                }
                for side in (0..2).filter(|&side| tells_apart[side]) {
                    match &updating[side] {
                        Some(own) => own.iter().filter_map(|name| columns.name_of(side, name)).for_each(&mut add),
                        None => {
                            numbers[side] = true;
                            add(&columns.add_number(VERB, side)?);
                        }
                    }
                }
                Some(key)
            }
        };
        // A row without a partner has another key than the pairs that come instead, unless that key is its own.
        let has_gaps = (0..2).any(|side| how.is_padded(side) && (tells_apart[1 - side] || how == How::Anti));
        let withdraws = is_updating && (has_gaps || moves.contains(&true) || sides.iter().any(|side| side.withdraws()));
        let event_time = time.map(|time| EventTime { column: None, data_type: time.data_type });
        let facts = Facts { is_bounded, event_time, updating: None, withdraws: false };
        let schema = columns.schema(&self.schema());
        let ttl = ttl_us.map(|us| (us, clock));
        let is_timed = facts.event_time.is_some();
        let step =
            RegularJoin { how, ttl, is_timed, waits_for_end, keys, columns, updating, moves, tells_apart, numbers, key, withdraws };
        Stream::add(Arc::new(step), vec![self.clone(), right.clone()], schema, facts)
    }
}

/// Whether a later row of an updating side may have another join key: then its key does not have all columns of it.
fn moves(side: usize, updating: Option<&[String]>, keys: &JoinKeys) -> bool {
    let mut read = Names::new();
    keys.add_columns(side, &mut read);
    updating.is_some_and(|updating| read.iter().any(|name| !updating.contains(name)))
}

/// Whether a side has one row of each join key at most.
fn is_unique(side: usize, updating: Option<&[String]>, keys: &JoinKeys) -> bool {
    let columns = keys.columns_of(side);
    updating.is_some_and(|updating| updating.iter().all(|name| columns.contains(&name.as_str())))
}

/// Of which sides the key of the result needs what tells their rows apart.
fn tells_apart(how: How, is_unique: [bool; 2]) -> [bool; 2] {
    match how {
        How::Inner => [!is_unique[0] || is_unique[1], !is_unique[1]],
        How::Left => [true, !is_unique[1]],
        How::Right => [!is_unique[0], true],
        How::Full => [true, true],
        How::Semi | How::Anti => [true, false],
    }
}

impl RegularJoin {
    fn is_by_event_time(&self) -> bool {
        matches!(self.ttl, Some((_, TimerClock::Event)))
    }
}

impl Step for RegularJoin {
    fn label(&self) -> &'static str {
        VERB
    }

    fn parameters(&self) -> Parameters {
        let mut parameters = parameters([("how", self.how.as_str().into()), ("on", texts(self.keys.shown().iter()))]);
        if let Some((us, _)) = self.ttl {
            parameters.insert("ttl".to_owned(), duration(us).into());
        }
        parameters
    }

    fn exprs(&self) -> Vec<&Expr> {
        self.keys.exprs()
    }

    fn outputs(&self) -> &[OutputSpec] {
        static TIMED: [OutputSpec; 4] = [OutputSpec::RESULT, OutputSpec::LATE, OutputSpec::LATE_RIGHT, OutputSpec::ERRORS];
        static UNTIMED: [OutputSpec; 2] = [OutputSpec::RESULT, OutputSpec::ERRORS];
        if self.is_by_event_time() { &TIMED } else { &UNTIMED }
    }

    fn changes(&self) -> Changes {
        Changes::Takes { key: self.key.clone(), withdraws: self.withdraws }
    }

    fn is_stateful(&self) -> bool {
        true
    }

    fn splits(&self) -> Splits {
        Splits::Keys
    }

    fn needs_order(&self, _of_result: bool, _before: &SchemaRef) -> Result<bool> {
        // The latest row of a key is the one that comes last, and by event time a row is there for as long as rows that came
        // before have used it. Which append-only rows are partners without that depends on no order.
        Ok(self.is_by_event_time() || self.updating.iter().any(Option::is_some))
    }

    fn orders_input(&self, number: usize) -> bool {
        self.is_by_event_time() || self.updating[number].is_some()
    }

    fn needs(&self, need: &Need<'_>) -> Result<Names> {
        let mut names = self.columns.needed(need.number, need.columns);
        self.keys.add_columns(need.number, &mut names);
        names.extend(self.updating[need.number].iter().flatten().cloned());
        Ok(names)
    }

    fn schema(&self, inputs: &[SchemaRef], declared: &SchemaRef) -> Result<SchemaRef> {
        Ok(remaining(declared, |name| self.columns.is_left(name, inputs)))
    }

    fn lineage(&self, _inputs: &Inputs<'_>) -> Lineage {
        Lineage::default()
    }

    fn lower(&self, builder: &mut Builder<'_>, at: usize) -> Result<()> {
        let moving = [0, 1].map(|side| self.updating[side].as_deref().filter(|_| self.moves[side]));
        let inputs = builder.join_moving_inputs(at, &self.keys, moving)?;
        let schema = Arc::clone(&builder.graph.steps[at].schema);
        let columns = self.columns.placed(&schema, &inputs)?;
        let mut identities = [RowIdentity::Number, RowIdentity::Number];
        let mut apart = [Vec::new(), Vec::new()];
        for (side, key) in self.updating.iter().enumerate() {
            let Some(key) = key else { continue };
            let places = key.iter().map(|name| column_index(&inputs.before[side], name)).collect::<Result<Vec<usize>>>()?;
            let is_on = |name: &str| self.keys.shared().any(|(on, _)| on == name);
            let outside = key.iter().zip(&places).filter(|(name, _)| !is_on(name));
            apart[side] = outside.map(|(_, place)| *place).collect();
            identities[side] = match is_unique(side, Some(key), &self.keys) {
                true => RowIdentity::Key,
                false => RowIdentity::Columns(places),
            };
        }
        let is_ambiguous = self.how == How::Full && self.updating.iter().all(Option::is_some);
        let kept = |side: usize| {
            let fields = self.columns.kept(side, &schema, &inputs.before[side]);
            let fields: Vec<String> =
                fields.iter().map(|field: &Field| format!("{} {}", field.name(), type_name(field.data_type()))).collect();
            let by = match &self.updating[side] {
                Some(key) => format!(" by {}", key.join(", ")),
                None => String::new(),
            };
            format!("({}){by}", fields.join(", "))
        };
        let signature = format!(
            "key({}) regular join {}{}{} left{} right{}",
            inputs.described,
            self.how.as_str(),
            self.ttl.map(|(_, clock)| format!(" until unused by {} time", clock.as_str())).unwrap_or_default(),
            if self.waits_for_end { " once" } else { "" },
            kept(0),
            kept(1)
        );
        let plan = RegularJoinPlan {
            how: self.how,
            ttl: self.ttl,
            is_timed: self.is_timed,
            waits_for_end: self.waits_for_end,
            keys: inputs.keys.clone(),
            identities,
            numbers: self.numbers,
            tells_apart: self.tells_apart,
            ambiguous: is_ambiguous.then_some(apart),
            is_shared: self.keys.shared().next().is_some(),
            inputs: [Arc::clone(&inputs.places[0].schema), Arc::clone(&inputs.places[1].schema)],
            own: [inputs.before[0].fields().len(), inputs.before[1].fields().len()],
            columns,
            on: self.keys.shown().join(", "),
        };
        let placed = builder.stage_of_two(&inputs.places, StageKind::RegularJoin(Arc::new(plan)), at, schema, signature)?;
        builder.publish_with_inputs(at, &placed, &inputs.before);
        Ok(())
    }
}
