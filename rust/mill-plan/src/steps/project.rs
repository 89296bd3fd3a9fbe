//! `select`, `with_columns`, `drop`, `rename`, `cast`, and `generate`: one expression a column.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use mill_protocol::{Error, Result, Source};

use super::{Changes, Inputs, Names, Need, Splits, Step};
use crate::compiled::CompiledExpr;
use crate::expr::{Expr, INDEX_COLUMN};
use crate::logical::{Parameters, parameters, texts};
use crate::lower::{Builder, Lineage};
use crate::physical::StageKind;
use crate::stream::checks::{check_unique, column_index, in_step};
use crate::stream::{Facts, OutputSpec, Stream};

/// Computes one expression a column.
#[derive(Debug)]
pub(crate) struct Project {
    exprs: Vec<Expr>,
    /// What the user called.
    verb: &'static str,
}

/// The step that keeps only these columns, in this order.
pub(crate) fn select(columns: &[String]) -> Arc<dyn Step> {
    Arc::new(Project { exprs: columns.iter().map(Expr::column).collect(), verb: "select" })
}

impl Stream {
    /// Records made by computing columns over the number of the record.
    ///
    /// # Errors
    /// When the source has no column `index` of type int64, or an expression is wrong.
    pub fn generate(source: Arc<dyn Source>, columns: Vec<Expr>) -> Result<Stream> {
        let stream = Stream::source(source);
        let index = stream.node.schema.field_with_name(INDEX_COLUMN).map(|field| field.data_type().clone());
        if index.ok() != Some(DataType::Int64) {
            return Err(Error::plan("generate() needs a source with a column \"index\" of type int64"));
        }
        let columns = if columns.is_empty() { vec![Expr::Index] } else { columns };
        stream.project(columns, "generate")
    }

    /// These columns and no others.
    ///
    /// # Errors
    /// When an expression is wrong, or two columns have one name.
    pub fn select(&self, exprs: Vec<Expr>) -> Result<Stream> {
        if exprs.is_empty() {
            return Err(Error::plan("select() needs at least one column"));
        }
        self.project(exprs, "select")
    }

    /// The columns there are, and these: one of the same name is replaced.
    ///
    /// # Errors
    /// When an expression is wrong, or two of them have one name.
    pub fn with_columns(&self, exprs: Vec<Expr>) -> Result<Stream> {
        self.extend(exprs, "with_columns")
    }

    /// As [`with_columns`](Stream::with_columns), under another name.
    pub(crate) fn extend(&self, exprs: Vec<Expr>, verb: &'static str) -> Result<Stream> {
        check_unique(exprs.iter().map(Expr::output_name), verb)?;
        let mut columns: Vec<Expr> = self.schema().fields().iter().map(|field| Expr::column(field.name())).collect();
        for expr in exprs {
            let name = expr.output_name();
            match columns.iter_mut().find(|column| column.output_name() == name) {
                Some(column) => *column = expr,
                None => columns.push(expr),
            }
        }
        self.project(columns, verb)
    }

    /// All columns but these.
    ///
    /// # Errors
    /// When one does not exist, or none would be left.
    pub fn drop(&self, names: &[String]) -> Result<Stream> {
        let schema = self.schema();
        for name in names {
            column_index(&schema, name).map_err(in_step("drop"))?;
        }
        let kept: Vec<Expr> =
            schema.fields().iter().filter(|f| !names.contains(f.name())).map(|f| Expr::column(f.name())).collect();
        if kept.is_empty() {
            return Err(Error::plan("drop() would leave no column"));
        }
        self.project(kept, "drop")
    }

    /// The same columns, some under new names: pairs of old and new.
    ///
    /// # Errors
    /// When one does not exist, or two would have one name.
    pub fn rename(&self, names: &[(String, String)]) -> Result<Stream> {
        let schema = self.schema();
        check_unique(names.iter().map(|(old, _)| old.clone()), "rename")?;
        for (old, _) in names {
            column_index(&schema, old).map_err(in_step("rename"))?;
        }
        let renamed: HashMap<&str, &str> = names.iter().map(|(old, new)| (old.as_str(), new.as_str())).collect();
        let column = |field: &Arc<Field>| match renamed.get(field.name().as_str()) {
            Some(new) if new != field.name() => Expr::column(field.name()).alias(*new),
            _ => Expr::column(field.name()),
        };
        self.project(schema.fields().iter().map(column).collect(), "rename")
    }

    /// The same columns, some converted; a value that does not fit is an error of its record.
    ///
    /// # Errors
    /// When one does not exist, or cannot be converted.
    pub fn cast(&self, types: &[(String, DataType)]) -> Result<Stream> {
        let schema = self.schema();
        check_unique(types.iter().map(|(name, _)| name.clone()), "cast")?;
        for (name, _) in types {
            column_index(&schema, name).map_err(in_step("cast"))?;
        }
        let column = |field: &Arc<Field>| match types.iter().find(|(name, _)| name == field.name()) {
            Some((name, to)) if to != field.data_type() => Expr::column(name).cast(to.clone(), true),
            _ => Expr::column(field.name()),
        };
        self.project(schema.fields().iter().map(column).collect(), "cast")
    }

    /// One expression a column.
    fn project(&self, exprs: Vec<Expr>, verb: &'static str) -> Result<Stream> {
        let schema = self.schema();
        check_unique(exprs.iter().map(Expr::output_name), verb)?;
        let mut fields = Vec::with_capacity(exprs.len());
        for expr in &exprs {
            let compiled = CompiledExpr::compile(expr, &schema, verb == "generate").map_err(in_step(verb))?;
            fields.push(compiled.field().clone());
        }
        let facts = self.projected_facts(&exprs, verb)?;
        let schema = Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()));
        Stream::add(Arc::new(Project { exprs, verb }), vec![self.clone()], schema, facts)
    }

    /// What stays known when columns are computed: where key and event time went.
    fn projected_facts(&self, exprs: &[Expr], verb: &str) -> Result<Facts> {
        let mut facts = self.facts();
        let new_name = |old: &str| {
            exprs.iter().find_map(|expr| match expr.without_alias() {
                Expr::Column(name) if name == old => Some(expr.output_name()),
                _ => None,
            })
        };
        if let Some(time) = &mut facts.event_time {
            time.column = time.column.as_deref().and_then(new_name);
        }
        if let Some(keys) = &mut facts.updating {
            for key in keys.iter_mut() {
                *key = new_name(key).ok_or_else(|| {
                    Error::plan(format!(
                        "{verb}() drops or changes column {key:?}, which is key of an updating stream: the latest row of \
                         each key counts; keep the column as it is, or use emit=\"end\" on bounded input"
                    ))
                })?;
            }
        }
        Ok(facts)
    }
}

impl Project {
    /// Whether its expressions are over the number of the record.
    fn is_generator(&self) -> bool {
        self.verb == "generate"
    }

    fn compiled(&self, before: &SchemaRef) -> Result<Vec<CompiledExpr>> {
        self.exprs.iter().map(|expr| CompiledExpr::compile(expr, before, self.is_generator())).collect()
    }
}

impl Step for Project {
    fn label(&self) -> &'static str {
        self.verb
    }

    fn parameters(&self) -> Parameters {
        parameters([("columns", texts(self.exprs.iter()))])
    }

    fn exprs(&self) -> Vec<&Expr> {
        self.exprs.iter().collect()
    }

    fn outputs(&self) -> &[OutputSpec] {
        static OUTPUTS: [OutputSpec; 2] = [OutputSpec::RESULT, OutputSpec::ERRORS];
        &OUTPUTS
    }

    fn changes(&self) -> Changes {
        Changes::Passes
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
        let mut names = Names::new();
        let used = self.exprs.iter().filter(|expr| need.columns.contains(&expr.output_name()));
        used.for_each(|expr| expr.add_columns(&mut names));
        Ok(names)
    }

    fn schema(&self, inputs: &[SchemaRef], _declared: &SchemaRef) -> Result<SchemaRef> {
        let fields: Vec<Field> = self.compiled(&inputs[0])?.iter().map(|expr| expr.field().clone()).collect();
        Ok(Arc::new(Schema::new_with_metadata(fields, inputs[0].metadata().clone())))
    }

    fn lineage(&self, inputs: &Inputs<'_>) -> Lineage {
        let before = inputs.first();
        Lineage::new(self.exprs.iter().map(|expr| (expr.output_name(), before.resolve(expr))))
    }

    fn lower(&self, builder: &mut Builder<'_>, at: usize) -> Result<()> {
        let input = builder.input(at, 0)?;
        let kind = StageKind::Project { exprs: self.compiled(&input.schema)? };
        builder.place(at, &input, kind, String::new())
    }

    fn pruned(&self, needed: &Names) -> Option<Arc<dyn Step>> {
        let exprs = self.exprs.iter().filter(|expr| needed.contains(&expr.output_name())).cloned().collect();
        Some(Arc::new(Project { exprs, verb: self.verb }))
    }

    fn predicate_before(&self, predicate: &Expr, _before: &Schema) -> Option<Expr> {
        if self.is_generator() {
            return None;
        }
        let source = |name: &str| {
            let expr = self.exprs.iter().find(|expr| expr.output_name() == name)?;
            match expr.without_alias() {
                Expr::Column(from) => Some(from.clone()),
                _ => None,
            }
        };
        let mut columns = Names::new();
        predicate.add_columns(&mut columns);
        if !columns.iter().all(|name| source(name).is_some()) {
            return None;
        }
        Some(predicate.rewrite(&mut |part| match part {
            Expr::Column(name) => source(name).map(Expr::Column),
            _ => None,
        }))
    }
}
