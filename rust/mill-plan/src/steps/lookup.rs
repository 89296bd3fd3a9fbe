//! `join_asof` and `enrich`: rows of the right side are looked up for those of the left one.

use std::sync::Arc;

use arrow::datatypes::{Field, SchemaRef};
use mill_protocol::{Error, Result};

use super::join::{JoinCall, JoinKeys, JoinedColumns, both_times, check_microseconds};
use super::parts::check_kept;
use super::{Changes, Inputs, Names, Need, Splits, Step, remaining};
use crate::expr::Expr;
use crate::join::How;
use crate::logical::{Parameters, parameters, texts};
use crate::lookup::{LookupKind, LookupPlan, TableRows, UntilLoaded};
use crate::lower::{Builder, Lineage};
use crate::physical::StageKind;
use crate::stream::checks::{append_only, of_key};
use crate::stream::{Facts, OutputSpec, Stream, duration};
use crate::types::type_name;

/// Looks right rows up.
#[derive(Debug)]
struct Lookup {
    kind: LookupKind,
    how: How,
    keys: JoinKeys,
    columns: JoinedColumns,
}

impl Stream {
    /// Each record beside the newest right one of its key that is not after it, and at most `tolerance_us` older.
    ///
    /// # Errors
    /// When a side has no event time or is an updating stream, or keys, names or `how` do not fit.
    pub fn join_asof(&self, right: &Stream, call: JoinCall, tolerance_us: Option<i64>) -> Result<Stream> {
        let verb = "join_asof";
        let time = both_times(self, right, verb)?;
        check_microseconds(verb, &time)?;
        check_how(verb, call.how, &[How::Left, How::Inner])?;
        if let Some(us) = tolerance_us.filter(|&us| us < 0) {
            return Err(Error::plan(format!("join_asof(): tolerance= must not be negative, found {us} microseconds")));
        }
        self.add_lookup(right, call, LookupKind::Asof { tolerance_us })
    }

    /// Each record beside the right ones of its key: all of a bounded right side, or the latest that has come.
    ///
    /// # Errors
    /// When the left side is an updating stream, the right one is one by another key, or keys, names or `how` do not fit.
    pub fn enrich(&self, right: &Stream, call: JoinCall) -> Result<Stream> {
        let verb = "enrich";
        append_only(self, verb)?;
        check_how(verb, call.how, &[How::Inner, How::Left, How::Semi, How::Anti])?;
        let is_updating = right.is_updating().is_some();
        let rows = if right.is_bounded() && !is_updating { TableRows::All } else { TableRows::Latest };
        // Whether a source can wait is seen when the whole plan is there.
        let until_loaded = if right.is_bounded() { UntilLoaded::Hold } else { UntilLoaded::Pass };
        self.add_lookup(right, call, LookupKind::Enrich { rows, until_loaded })
    }

    fn add_lookup(&self, right: &Stream, call: JoinCall, kind: LookupKind) -> Result<Stream> {
        let verb = kind.label();
        let JoinCall { on, how, suffix } = call;
        let keys = JoinKeys::new(verb, self, right, &on)?;
        check_updating_key(right, &keys, verb)?;
        let columns = JoinedColumns::new(verb, [&self.schema(), &right.schema()], &keys, how, &suffix)?;
        for side in [self, right] {
            check_kept(&side.schema()).map_err(|error| error.in_step(verb))?;
        }
        // A column of the left side keeps its values and its name, unless the key has another type.
        let mut event_time = self.facts().event_time;
        let schema = columns.schema(&self.schema());
        if let Some(time) = &mut event_time {
            let of = |schema: &SchemaRef, name: &str| schema.field_with_name(name).ok().map(|field| field.data_type().clone());
            time.column = time.column.take().filter(|name| of(&schema, name) == of(&self.schema(), name));
        }
        // With a bounded right side that is loaded first, it is the left one that decides when the result ends.
        let is_bounded = self.is_bounded() && right.is_bounded();
        let facts = Facts { is_bounded, event_time, updating: None, withdraws: false };
        Stream::add(Arc::new(Lookup { kind, how, keys, columns }), vec![self.clone(), right.clone()], schema, facts)
    }
}

/// Refuses a `how` that this step has not.
fn check_how(verb: &str, how: How, allowed: &[How]) -> Result<()> {
    if allowed.contains(&how) {
        return Ok(());
    }
    let words: Vec<String> = allowed.iter().map(|how| format!("{:?}", how.as_str())).collect();
    let why = "it looks right rows up, and does not know which of them nobody asked for";
    Err(Error::plan(format!("{verb}() takes how={}, not {:?}: {why}", words.join(", "), how.as_str())))
}

/// Refuses an updating right side whose rows count by another key than the one that is looked up.
fn check_updating_key(right: &Stream, keys: &JoinKeys, verb: &str) -> Result<()> {
    let Some(updating) = right.is_updating() else { return Ok(()) };
    let mut own: Vec<&str> = updating.iter().map(String::as_str).collect();
    let mut looked_up = keys.columns_of(1);
    own.sort_unstable();
    looked_up.sort_unstable();
    looked_up.dedup();
    if own == looked_up {
        return Ok(());
    }
    Err(Error::plan(format!(
        "{verb}(): in the right stream the latest row{} counts, so it can be looked up by all of these columns alone, not by {}",
        of_key(updating),
        keys.shown().join(", ")
    )))
}

impl Step for Lookup {
    fn label(&self) -> &'static str {
        self.kind.label()
    }

    fn parameters(&self) -> Parameters {
        let mut parameters = parameters([("how", self.how.as_str().into()), ("on", texts(self.keys.shown().iter()))]);
        if let LookupKind::Asof { tolerance_us: Some(us) } = self.kind {
            parameters.insert("tolerance".to_owned(), duration(us).into());
        }
        parameters
    }

    fn exprs(&self) -> Vec<&Expr> {
        self.keys.exprs()
    }

    fn outputs(&self) -> &[OutputSpec] {
        static TIMED: [OutputSpec; 4] = [OutputSpec::RESULT, OutputSpec::LATE, OutputSpec::LATE_RIGHT, OutputSpec::ERRORS];
        static UNTIMED: [OutputSpec; 2] = [OutputSpec::RESULT, OutputSpec::ERRORS];
        if let LookupKind::Asof { .. } = self.kind { &TIMED } else { &UNTIMED }
    }

    fn changes(&self) -> Changes {
        match self.kind {
            LookupKind::Asof { .. } => Changes::Refuses,
            LookupKind::Enrich { .. } => Changes::RefusesFirst,
        }
    }

    fn is_stateful(&self) -> bool {
        true
    }

    fn splits(&self) -> Splits {
        Splits::Keys
    }

    fn needs_order(&self, _of_result: bool, _before: &SchemaRef) -> Result<bool> {
        // Which of two right rows of one time came last, or which is the latest of all.
        Ok(!matches!(self.kind, LookupKind::Enrich { rows: TableRows::All, .. }))
    }

    fn orders_input(&self, number: usize) -> bool {
        number == 1
    }

    fn holds_first(&self) -> bool {
        matches!(self.kind, LookupKind::Enrich { until_loaded: UntilLoaded::Hold, .. })
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

    fn cuts_inputs(&self, _declared: &SchemaRef) -> bool {
        false
    }

    fn lower(&self, builder: &mut Builder<'_>, at: usize) -> Result<()> {
        let inputs = builder.join_inputs(at, &self.keys)?;
        let schema = Arc::clone(&builder.graph.steps[at].schema);
        let columns = self.columns.placed(&schema, &inputs)?;
        let kind = match self.kind {
            LookupKind::Enrich { rows, until_loaded: UntilLoaded::Hold } if !builder.graph.can_hold_first(at) => {
                LookupKind::Enrich { rows, until_loaded: UntilLoaded::Keep }
            }
            kind => kind,
        };
        // Both sides are kept as they come in.
        let kept = |side: usize| {
            let fields = inputs.places[side].schema.fields().iter();
            let fields: Vec<String> =
                fields.map(|field: &Arc<Field>| format!("{} {}", field.name(), type_name(field.data_type()))).collect();
            fields.join(", ")
        };
        let rows = match self.kind {
            LookupKind::Asof { tolerance_us: None } => "the newest row that is not after it".to_owned(),
            // With a greater one, rows would be missing that were dropped before.
            LookupKind::Asof { tolerance_us: Some(us) } => format!("the newest row that is not after it, and at most {us} us older"),
            LookupKind::Enrich { rows: TableRows::All, .. } => "all rows".to_owned(),
            LookupKind::Enrich { rows: TableRows::Latest, .. } => "the latest row".to_owned(),
        };
        let signature =
            format!("key({}) {}: {rows}, left({}) right({})", inputs.described, self.label(), kept(0), kept(1));
        let plan = LookupPlan {
            kind,
            how: self.how,
            keys: inputs.keys.clone(),
            inputs: [Arc::clone(&inputs.places[0].schema), Arc::clone(&inputs.places[1].schema)],
            own: [inputs.before[0].fields().len(), inputs.before[1].fields().len()],
            columns,
            on: self.keys.shown().join(", "),
        };
        let placed = builder.stage_of_two(&inputs.places, StageKind::Lookup(Arc::new(plan)), at, schema, signature)?;
        builder.publish_with_inputs(at, &placed, &inputs.before);
        Ok(())
    }
}
