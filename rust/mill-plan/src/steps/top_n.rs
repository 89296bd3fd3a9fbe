//! `key_by(…).top_n(…)`: the first rows of each key, or of each key and window.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use mill_protocol::{Error, Result};

use super::parts::check_kept;
use super::{Changes, Inputs, Names, Need, Splits, Step};
use crate::compiled::CompiledExpr;
use crate::expr::Expr;
use crate::logical::{Parameters, parameters, texts};
use crate::lower::{Builder, Lineage};
use crate::physical::{Ordering, StageKind};
use crate::stream::checks::{append_only, column_index, in_step};
use crate::stream::{Emit, Facts, KeyedStream, OutputSpec, Stream, duration};
use crate::types::{is_object, type_name};
use crate::window::{Window, WindowSpec};

/// How many rows a key may keep.
const ROWS_MAX: u64 = 10_000;
/// The place of a row among those of its key, from 1.
const RANK: &str = "rank";

/// What `top_n` sorts by: an expression, and whether the greatest comes first.
type By = (Expr, bool);

/// Keeps the first rows of each key.
#[derive(Debug)]
pub(crate) struct TopN {
    keys: Vec<String>,
    by: Vec<By>,
    rows: usize,
    emit: Emit,
    window: Option<WindowSpec>,
}

impl KeyedStream {
    /// The first rows of each key with their `rank`, sorted by expressions, each of which says whether the greatest comes
    /// first. Nulls come last; of equal rows the one that came first.
    ///
    /// # Errors
    /// When the number of rows, an expression or `emit` is wrong.
    pub fn top_n(&self, rows: u64, by: Vec<By>, emit: Emit) -> Result<Stream> {
        let rows = self.check_top_n(rows, &by)?;
        let emit = self.emit(emit)?;
        let step = TopN { keys: self.keys.clone(), by, rows, emit, window: None };
        let facts = Facts { is_bounded: self.stream.is_bounded(), event_time: None, updating: None, withdraws: false };
        let schema = self.with_added(&[rank()])?;
        Stream::add(Arc::new(step), vec![self.stream.clone()], schema, facts)
    }

    /// The same of each window, when the watermark has passed the window and its lateness.
    ///
    /// # Errors
    /// When the number of rows, an expression or a window is wrong, or the stream has no event time.
    pub fn top_n_within(&self, rows: u64, by: Vec<By>, window: Window, allowed_lateness_us: i64) -> Result<Stream> {
        let rows = self.check_top_n(rows, &by)?;
        self.window(window, allowed_lateness_us)?;
        let window = WindowSpec::new(window.checked()?, allowed_lateness_us);
        let mut facts = self.stream.facts();
        let Some(time) = &mut facts.event_time else {
            return Err(Error::internal("a windowed stream has no event time"));
        };
        time.column = None;
        let bound = |name: &str| Field::new(name, time.data_type.clone(), true);
        let schema = self.with_added(&[bound("window_start"), bound("window_end"), rank()])?;
        let step = TopN { keys: self.keys.clone(), by, rows, emit: Emit::End, window: Some(window) };
        Stream::add(Arc::new(step), vec![self.stream.clone()], schema, facts)
    }

    fn check_top_n(&self, rows: u64, by: &[By]) -> Result<usize> {
        append_only(&self.stream, "top_n")?;
        let rows = match rows {
            1..=ROWS_MAX => usize::try_from(rows).unwrap_or(usize::MAX),
            _ => {
                return Err(Error::plan(format!(
                    "top_n() keeps from 1 to {ROWS_MAX} rows a key, found {rows}; it sorts all that it keeps at each row"
                )));
            }
        };
        if by.is_empty() {
            return Err(Error::plan("top_n() needs a column to sort by, as in top_n(3, by=\"price\")"));
        }
        let schema = self.stream.schema();
        for (expr, _) in by {
            let compiled = CompiledExpr::new(expr, &schema).map_err(in_step("top_n"))?;
            let found = compiled.field().data_type();
            let values = match found {
                DataType::Dictionary(_, values) => values.as_ref(),
                other => other,
            };
            if is_object(compiled.field()) || values.is_nested() {
                return Err(Error::schema(format!(
                    "top_n() sorts by numbers, texts, times and truth values; {expr} is {}",
                    if is_object(compiled.field()) { "object".to_owned() } else { type_name(found) }
                )));
            }
        }
        check_kept(&schema).map_err(in_step("top_n"))?;
        Ok(rows)
    }

    /// The columns and these.
    fn with_added(&self, added: &[Field]) -> Result<SchemaRef> {
        let schema = self.stream.schema();
        if let Some(field) = added.iter().find(|field| schema.field_with_name(field.name()).is_ok()) {
            let name = field.name();
            return Err(Error::plan(format!(
                "top_n() adds a column {name:?} and there is one already; before it, drop({name:?}) or rename it, as in \
                 rename({{{name:?}: \"old_{name}\"}})"
            )));
        }
        let mut fields: Vec<Arc<Field>> = schema.fields().iter().cloned().collect();
        fields.extend(added.iter().cloned().map(Arc::new));
        Ok(Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone())))
    }
}

fn rank() -> Field {
    Field::new(RANK, DataType::Int64, false)
}

impl TopN {
    /// `col("price") desc, col("at")`
    fn order(&self) -> Vec<String> {
        let direction = |is_descending: bool| if is_descending { " desc" } else { "" };
        self.by.iter().map(|(expr, is_descending)| format!("{expr}{}", direction(*is_descending))).collect()
    }
}

impl Step for TopN {
    fn label(&self) -> &'static str {
        "top_n"
    }

    fn parameters(&self) -> Parameters {
        let mut parameters = parameters([
            ("keys", self.keys.clone().into()),
            ("rows", self.rows.into()),
            ("by", texts(self.order().iter())),
        ]);
        match &self.window {
            Some(spec) => {
                parameters.insert("window".to_owned(), spec.window.to_string().into());
                parameters.insert("allowed_lateness".to_owned(), duration(spec.allowed_lateness_us).into());
            }
            None => _ = parameters.insert("emit".to_owned(), self.emit.to_string().into()),
        }
        parameters
    }

    fn exprs(&self) -> Vec<&Expr> {
        self.by.iter().map(|(expr, _)| expr).collect()
    }

    fn outputs(&self) -> &[OutputSpec] {
        static PLAIN: [OutputSpec; 2] = [OutputSpec::RESULT, OutputSpec::ERRORS];
        static WINDOWED: [OutputSpec; 3] = [OutputSpec::RESULT, OutputSpec::LATE, OutputSpec::ERRORS];
        if self.window.is_some() { &WINDOWED } else { &PLAIN }
    }

    fn changes(&self) -> Changes {
        // Rows are only added to a key, so a rank that has a row always has one.
        self.emit.changes(&[self.keys.as_slice(), &[RANK.to_owned()]].concat())
    }

    fn is_stateful(&self) -> bool {
        true
    }

    fn splits(&self) -> Splits {
        Splits::Keys
    }

    fn needs_order(&self, _of_result: bool, _before: &SchemaRef) -> Result<bool> {
        // Of equal rows the first one counts.
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
        let before = Arc::clone(&input.schema);
        let keys = self.keys.iter().map(|key| column_index(&before, key)).collect::<Result<Vec<usize>>>()?;
        let order = |(expr, is_descending): &By| {
            Ok(Ordering { expr: CompiledExpr::new(expr, &before)?, is_descending: *is_descending })
        };
        let by = self.by.iter().map(order).collect::<Result<Vec<Ordering>>>()?;
        let input = builder.exchange_by_key(&input, &keys);
        let row: Vec<String> = before.fields().iter().map(|f| format!("{} {}", f.name(), type_name(f.data_type()))).collect();
        let mut signature = format!(
            "key({}) top_n({}, by {}, of {})",
            builder.described_keys(at, &before, &self.keys)?,
            self.rows,
            self.order().join(", "),
            row.join(", ")
        );
        if let Some(spec) = &self.window {
            signature = format!("{signature} window {}", spec.window);
        }
        let schema = Arc::clone(&builder.graph.steps[at].schema);
        let kind = StageKind::TopN { keys, by, rows: self.rows, emit: self.emit, window: self.window };
        let placed = builder.stage(&input, kind, at, schema, signature)?;
        builder.publish_with_input(at, &placed, &before);
        Ok(())
    }
}
