//! `explode`: one record for each element of a list column.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use mill_protocol::{Error, Result};

use super::{Changes, Inputs, Names, Need, Splits, Step, remaining};
use crate::expr::Expr;
use crate::logical::{Parameters, parameters};
use crate::lower::{Builder, Lineage};
use crate::physical::StageKind;
use crate::stream::checks::{append_only, column_index, in_step, replace_column};
use crate::stream::{OutputSpec, Stream};
use crate::types::type_name;

/// Makes a record of each element of a list; the other columns are repeated.
#[derive(Debug)]
pub(crate) struct Explode {
    column: String,
    /// Whether an empty or null list makes one record with null, instead of none.
    keep_empty: bool,
}

impl Stream {
    /// One record for each element of a list column.
    ///
    /// # Errors
    /// When the column does not exist or holds no lists.
    pub fn explode(&self, column: &str, keep_empty: bool) -> Result<Stream> {
        append_only(self, "explode")?;
        let schema = self.schema();
        let index = column_index(&schema, column).map_err(in_step("explode"))?;
        let element = match schema.field(index).data_type() {
            DataType::List(element) | DataType::LargeList(element) | DataType::FixedSizeList(element, _) => element,
            other => {
                return Err(Error::schema(format!(
                    "explode() needs a list column; {column:?} is {}",
                    type_name(other)
                )));
            }
        };
        let exploded = Field::new(column, element.data_type().clone(), true).with_metadata(element.metadata().clone());
        let schema = replace_column(&schema, index, vec![Arc::new(exploded)]);
        let mut facts = self.facts();
        facts.forget(column);
        let step = Explode { column: column.to_owned(), keep_empty };
        Stream::add(Arc::new(step), vec![self.clone()], schema, facts)
    }
}

impl Step for Explode {
    fn label(&self) -> &'static str {
        "explode"
    }

    fn parameters(&self) -> Parameters {
        parameters([("column", self.column.as_str().into()), ("keep_empty", self.keep_empty.into())])
    }

    fn outputs(&self) -> &[OutputSpec] {
        static OUTPUTS: [OutputSpec; 1] = [OutputSpec::RESULT];
        &OUTPUTS
    }

    fn changes(&self) -> Changes {
        Changes::Refuses
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
        Ok(need.columns_and(&self.column))
    }

    fn schema(&self, inputs: &[SchemaRef], declared: &SchemaRef) -> Result<SchemaRef> {
        Ok(remaining(declared, |name| inputs[0].field_with_name(name).is_ok()))
    }

    fn lineage(&self, inputs: &Inputs<'_>) -> Lineage {
        let before = inputs.first();
        let args = vec![before.of(&self.column)];
        before.with(&self.column, Expr::Function { name: "explode".to_owned(), args })
    }

    fn lower(&self, builder: &mut Builder<'_>, at: usize) -> Result<()> {
        let input = builder.input(at, 0)?;
        let column = column_index(&input.schema, &self.column)?;
        builder.place(at, &input, StageKind::Explode { column, keep_empty: self.keep_empty }, String::new())
    }

    fn predicate_before(&self, predicate: &Expr, _before: &Schema) -> Option<Expr> {
        let mut columns = Names::new();
        predicate.add_columns(&mut columns);
        (!columns.contains(&self.column)).then(|| predicate.clone())
    }
}
