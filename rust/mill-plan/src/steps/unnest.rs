//! `unnest`: the fields of a struct column in its place.

use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use mill_protocol::{Error, Result};

use super::{Changes, Inputs, Names, Need, Splits, Step, remaining};
use crate::expr::Expr;
use crate::logical::{Parameters, parameters};
use crate::lower::{Builder, Lineage};
use crate::physical::StageKind;
use crate::stream::checks::{append_only, check_unique, column_index, in_step, replace_column};
use crate::stream::{OutputSpec, Stream};
use crate::types::type_name;

/// Puts the fields of a struct column in its place.
#[derive(Debug)]
pub(crate) struct Unnest {
    column: String,
}

impl Stream {
    /// The fields of a struct column in its place.
    ///
    /// # Errors
    /// When the column does not exist or holds no structs, or a field has the name of another column.
    pub fn unnest(&self, column: &str) -> Result<Stream> {
        append_only(self, "unnest")?;
        let schema = self.schema();
        let index = column_index(&schema, column).map_err(in_step("unnest"))?;
        let DataType::Struct(fields) = schema.field(index).data_type() else {
            return Err(Error::schema(format!(
                "unnest() needs a struct column; {column:?} is {}",
                type_name(schema.field(index).data_type())
            )));
        };
        let fields = fields.iter().map(|field| Arc::new(field.as_ref().clone().with_nullable(true))).collect();
        let schema = replace_column(&schema, index, fields);
        check_unique(schema.fields().iter().map(|field| field.name().clone()), "unnest")?;
        Stream::add(Arc::new(Unnest { column: column.to_owned() }), vec![self.clone()], schema, self.facts())
    }
}

impl Step for Unnest {
    fn label(&self) -> &'static str {
        "unnest"
    }

    fn parameters(&self) -> Parameters {
        parameters([("column", self.column.as_str().into())])
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
        let is_there = |name: &&String| need.input.field_with_name(name).is_ok();
        let mut names: Names = need.columns.iter().filter(is_there).cloned().collect();
        names.insert(self.column.clone());
        Ok(names)
    }

    fn schema(&self, inputs: &[SchemaRef], declared: &SchemaRef) -> Result<SchemaRef> {
        let before = &inputs[0];
        let is_field = |name: &str| match before.field_with_name(&self.column).map(|field| field.data_type()) {
            Ok(DataType::Struct(fields)) => fields.iter().any(|field| field.name() == name),
            _ => false,
        };
        Ok(remaining(declared, |name| is_field(name) || before.field_with_name(name).is_ok()))
    }

    fn lineage(&self, inputs: &Inputs<'_>) -> Lineage {
        let lineage = inputs.first();
        let made = inputs.result.fields().iter().filter(|field| {
            let is_new = inputs.before.is_none_or(|before| before.field_with_name(field.name()).is_err());
            *field.name() == self.column || is_new
        });
        let field = |name: &String| {
            let args = vec![lineage.of(&self.column), Expr::Column(name.clone())];
            Expr::Function { name: "struct.field".to_owned(), args }
        };
        made.fold(lineage.clone(), |lineage, of| lineage.with(of.name(), field(of.name())))
    }

    fn lower(&self, builder: &mut Builder<'_>, at: usize) -> Result<()> {
        let input = builder.input(at, 0)?;
        let column = column_index(&input.schema, &self.column)?;
        builder.place(at, &input, StageKind::Unnest { column }, String::new())
    }

    fn predicate_before(&self, predicate: &Expr, before: &Schema) -> Option<Expr> {
        let mut columns = Names::new();
        predicate.add_columns(&mut columns);
        let is_there = |name: &String| *name != self.column && before.field_with_name(name).is_ok();
        columns.iter().all(is_there).then(|| predicate.clone())
    }
}
