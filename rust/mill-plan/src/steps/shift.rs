//! `key_by(…).shift(…)` and `key_by(…).diff(…)`: a row with what an earlier row of its key had.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{Field, Schema, SchemaRef};
use mill_protocol::{Error, Result};

use super::parts::check_kept;
use super::{Changes, Inputs, Names, Need, Splits, Step};
use crate::compiled::CompiledExpr;
use crate::expr::{BinaryOp, Expr};
use crate::logical::{Parameters, parameters, texts};
use crate::lower::{Builder, Lineage};
use crate::physical::{Shifted, StageKind};
use crate::stream::checks::{append_only, check_unique, column_index, in_step};
use crate::stream::{KeyedStream, OutputSpec, Stream};
use crate::types::{is_object, type_name};

/// How many rows back a value may be.
const ROWS_MAX: u64 = 10_000;
/// What a difference is computed of.
const VALUE: &str = "value";
const EARLIER: &str = "earlier";

/// Adds values of an earlier row of the same key, or the differences to them.
#[derive(Debug)]
pub(crate) struct Shift {
    keys: Vec<String>,
    rows: usize,
    exprs: Vec<Expr>,
    is_difference: bool,
}

impl KeyedStream {
    /// The columns there are, and these of the row of the key that came `rows` before; null where there is none.
    ///
    /// # Errors
    /// When the number of rows or an expression is wrong, or there is a column of the same name.
    pub fn shift(&self, rows: u64, exprs: Vec<Expr>) -> Result<Stream> {
        self.shifted(rows, exprs, false)
    }

    /// The columns there are, and by how much these differ from those of the row of the key that came `rows` before.
    ///
    /// # Errors
    /// As of [`shift`](KeyedStream::shift), and when values of a type have no difference.
    pub fn diff(&self, rows: u64, exprs: Vec<Expr>) -> Result<Stream> {
        self.shifted(rows, exprs, true)
    }

    fn shifted(&self, rows: u64, exprs: Vec<Expr>, is_difference: bool) -> Result<Stream> {
        let verb = if is_difference { "diff" } else { "shift" };
        append_only(&self.stream, verb)?;
        let rows = match rows {
            1..=ROWS_MAX => usize::try_from(rows).unwrap_or(usize::MAX),
            _ => return Err(Error::plan(format!("{verb}() looks from 1 to {ROWS_MAX} rows back, found {rows}"))),
        };
        if exprs.is_empty() {
            let example = if is_difference { "change=\"price\"" } else { "before=\"price\"" };
            return Err(Error::plan(format!("{verb}() needs a column, under a new name, as in {verb}({example})")));
        }
        check_unique(exprs.iter().map(Expr::output_name), verb)?;
        let schema = self.stream.schema();
        if let Some(name) = exprs.iter().map(Expr::output_name).find(|name| schema.field_with_name(name).is_ok()) {
            return Err(Error::plan(format!(
                "{verb}() adds a column {name:?} and there is one already; give it another name, as in {verb}({name}_before=\"{name}\")"
            )));
        }
        let step = Shift { keys: self.keys.clone(), rows, exprs, is_difference };
        let columns = step.columns(&schema).map_err(in_step(verb))?;
        let values: Vec<Field> = columns.iter().map(|column| column.expr.field().clone()).collect();
        check_kept(&Schema::new(values)).map_err(in_step(verb))?;
        let result = step.result(&schema, &columns);
        Stream::add(Arc::new(step), vec![self.stream.clone()], result, self.stream.facts())
    }
}

impl Shift {
    fn columns(&self, before: &SchemaRef) -> Result<Vec<Shifted>> {
        self.exprs.iter().map(|expr| Shifted::new(expr, before, self.is_difference)).collect()
    }

    fn result(&self, before: &SchemaRef, columns: &[Shifted]) -> SchemaRef {
        let mut fields: Vec<Arc<Field>> = before.fields().iter().cloned().collect();
        fields.extend(columns.iter().map(|column| Arc::new(column.field())));
        Arc::new(Schema::new_with_metadata(fields, before.metadata().clone()))
    }

    fn verb(&self) -> &'static str {
        if self.is_difference { "diff" } else { "shift" }
    }
}

impl Shifted {
    /// Values of an expression over these columns, or their differences.
    ///
    /// # Errors
    /// When the expression is wrong, or its values have no difference.
    pub fn new(expr: &Expr, before: &SchemaRef, is_difference: bool) -> Result<Shifted> {
        let expr = CompiledExpr::new(expr, before)?;
        if !is_difference {
            return Ok(Shifted { expr, difference: None });
        }
        let (name, data_type) = (expr.field().name(), expr.field().data_type());
        let no_difference = || Error::schema(format!("{name:?} would be of values of type {}, which have no difference", type_name(data_type)));
        if is_object(expr.field()) {
            return Err(no_difference());
        }
        let both = [VALUE, EARLIER].map(|name| Field::new(name, data_type.clone(), true));
        let difference = Expr::column(VALUE).binary(BinaryOp::Sub, Expr::column(EARLIER)).alias(name);
        let difference = CompiledExpr::new(&difference, &Arc::new(Schema::new(both.to_vec()))).map_err(|error| no_difference().because(error))?;
        Ok(Shifted { expr, difference: Some(difference) })
    }

    /// The column that is added.
    pub fn field(&self) -> Field {
        let of = self.difference.as_ref().unwrap_or(&self.expr).field();
        Field::new(of.name(), of.data_type().clone(), true).with_metadata(of.metadata().clone())
    }

    /// What is added, of values and those of earlier rows.
    ///
    /// # Errors
    /// When a difference does not fit its type.
    pub fn added(&self, value: &ArrayRef, earlier: ArrayRef) -> Result<ArrayRef> {
        let Some(difference) = &self.difference else { return Ok(earlier) };
        let both = RecordBatch::try_from_iter_with_nullable([(VALUE, Arc::clone(value), true), (EARLIER, earlier, true)]);
        difference.evaluate(&both.map_err(|error| Error::internal(error.to_string()))?)
    }
}

impl Step for Shift {
    fn label(&self) -> &'static str {
        self.verb()
    }

    fn parameters(&self) -> Parameters {
        parameters([("keys", self.keys.clone().into()), ("rows", self.rows.into()), ("columns", texts(self.exprs.iter()))])
    }

    fn exprs(&self) -> Vec<&Expr> {
        self.exprs.iter().collect()
    }

    fn outputs(&self) -> &[OutputSpec] {
        static OUTPUTS: [OutputSpec; 2] = [OutputSpec::RESULT, OutputSpec::ERRORS];
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
        Ok(true)
    }

    fn needs(&self, need: &Need<'_>) -> Result<Names> {
        let mut names = need.columns.clone();
        for expr in &self.exprs {
            names.remove(&expr.output_name());
        }
        self.exprs.iter().for_each(|expr| expr.add_columns(&mut names));
        names.extend(self.keys.iter().cloned());
        Ok(names)
    }

    fn schema(&self, inputs: &[SchemaRef], _declared: &SchemaRef) -> Result<SchemaRef> {
        Ok(self.result(&inputs[0], &self.columns(&inputs[0])?))
    }

    fn lineage(&self, inputs: &Inputs<'_>) -> Lineage {
        inputs.first()
    }

    fn lower(&self, builder: &mut Builder<'_>, at: usize) -> Result<()> {
        let input = builder.input(at, 0)?;
        let before = Arc::clone(&input.schema);
        let keys = self.keys.iter().map(|key| column_index(&before, key)).collect::<Result<Vec<usize>>>()?;
        let columns = self.columns(&before)?;
        let input = builder.exchange_by_key(&input, &keys);
        let kept: Vec<String> = columns.iter().map(|of| format!("{} {}", of.expr, type_name(of.expr.field().data_type()))).collect();
        let key = builder.described_keys(at, &before, &self.keys)?;
        let signature = format!("key({key}) {}({}, {})", self.verb(), self.rows, kept.join(", "));
        let schema = self.result(&before, &columns);
        let kind = StageKind::Shift { keys, rows: self.rows, columns };
        let placed = builder.stage(&input, kind, at, schema, signature)?;
        builder.publish_with_input(at, &placed, &before);
        Ok(())
    }
}
