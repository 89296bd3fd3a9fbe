//! The steps that work on records as they are, without keys.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use mill_frame::types::{canonical_type, is_same_zone};
use mill_protocol::{Error, Result, Source};

use super::checks::{append_only, check_unique, column_index, in_step};
use super::{EventTime, Facts, Op, Port, Stream, UserStepKind, WatermarkStrategy};
use crate::compiled::CompiledExpr;
use crate::expr::{Expr, INDEX_COLUMN};
use crate::function::BatchFunction;
use crate::types::{is_object, type_name};

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
    pub(super) fn extend(&self, exprs: Vec<Expr>, verb: &'static str) -> Result<Stream> {
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
        Stream::step(Op::Project { exprs, verb }, vec![self.clone()], schema, facts)
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

    /// The records for which the predicate is true.
    ///
    /// # Errors
    /// When the predicate is wrong or not boolean.
    pub fn filter(&self, predicate: Expr) -> Result<Stream> {
        self.check_predicate(&predicate, "filter")?;
        Stream::step(Op::Filter(predicate), vec![self.clone()], self.schema(), self.facts())
    }

    /// The records for which the predicate is true, and the others.
    ///
    /// # Errors
    /// When the predicate is wrong or not boolean.
    pub fn branch(&self, predicate: Expr) -> Result<(Stream, Stream)> {
        append_only(self, "branch")?;
        self.check_predicate(&predicate, "branch")?;
        let yes = Stream::step(Op::Branch(predicate), vec![self.clone()], self.schema(), self.facts())?;
        let no = Stream { node: Arc::clone(&yes.node), port: Port::No };
        Ok((yes, no))
    }

    fn check_predicate(&self, predicate: &Expr, verb: &'static str) -> Result<()> {
        let compiled = CompiledExpr::new(predicate, &self.schema()).map_err(in_step(verb))?;
        match compiled.field().data_type() {
            DataType::Boolean | DataType::Null => Ok(()),
            other => Err(Error::schema(format!(
                "{verb}() needs a boolean expression; {predicate} is {}",
                type_name(other)
            ))),
        }
    }

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
        forget_column(&mut facts, column);
        let op = Op::Explode { column: column.to_owned(), keep_empty };
        Stream::step(op, vec![self.clone()], schema, facts)
    }

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
        Stream::step(Op::Unnest(column.to_owned()), vec![self.clone()], schema, self.facts())
    }

    /// The first records, this many.
    ///
    /// # Errors
    /// When the stream is updating.
    pub fn limit(&self, rows: u64) -> Result<Stream> {
        append_only(self, "limit")?;
        // A limit ends the stream even where its input never does.
        let facts = Facts { is_bounded: true, ..self.facts() };
        Stream::step(Op::Limit(rows), vec![self.clone()], self.schema(), facts)
    }

    /// The records of this stream and the others, in any order.
    ///
    /// # Errors
    /// When columns or types differ, or some have event time and some have not.
    pub fn union(&self, others: &[Stream]) -> Result<Stream> {
        append_only(self, "union")?;
        let mut schema = self.schema();
        for (i, other) in others.iter().enumerate() {
            append_only(other, "union")?;
            schema = united(&schema, &other.schema(), i + 2)?;
        }
        let mut facts = self.facts();
        let mut inputs = vec![self.with_layout_of(&schema)?];
        for (i, other) in others.iter().enumerate() {
            let other_facts = other.facts();
            facts.is_bounded &= other_facts.is_bounded;
            match (&mut facts.event_time, &other_facts.event_time) {
                (None, None) => {}
                (Some(time), Some(other)) if time.data_type == other.data_type => {
                    if time.column != other.column {
                        time.column = None;
                    }
                }
                (Some(time), Some(other)) => {
                    return Err(Error::schema(format!(
                        "union(): event time is {} in the first stream and {} in stream {}; cast one of them",
                        type_name(&time.data_type),
                        type_name(&other.data_type),
                        i + 2
                    )));
                }
                _ => {
                    return Err(Error::plan(format!(
                        "union(): the first stream and stream {} don't both have an event time; call event_time() on \
                         each of them, or once behind union()",
                        i + 2
                    )));
                }
            }
            inputs.push(other.with_layout_of(&schema)?);
        }
        Stream::step(Op::Union, inputs, schema, facts)
    }

    /// The same records with their columns in the order and the types of `schema`, which has the same columns.
    fn with_layout_of(&self, schema: &SchemaRef) -> Result<Stream> {
        let own = self.schema();
        let is_same = |(a, b): (&Arc<Field>, &Arc<Field>)| a.name() == b.name() && a.data_type() == b.data_type();
        if own.fields().iter().zip(schema.fields()).all(is_same) {
            return Ok(self.clone());
        }
        let column = |field: &Arc<Field>| match own.field_with_name(field.name()) {
            Ok(found) if found.data_type() != field.data_type() => {
                Expr::column(field.name()).cast(field.data_type().clone(), true).alias(field.name())
            }
            _ => Expr::column(field.name()),
        };
        self.select(schema.fields().iter().map(column).collect())
    }

    /// The same records, spread evenly over all tasks.
    ///
    /// # Errors
    /// When the stream is updating.
    pub fn rebalance(&self) -> Result<Stream> {
        append_only(self, "rebalance")?;
        Stream::step(Op::Rebalance, vec![self.clone()], self.schema(), self.facts())
    }

    /// Names the step before it; the name is the identity of its state.
    ///
    /// # Errors
    /// When the name is empty or too long, or the step has another name already.
    pub fn name(&self, name: &str) -> Result<Stream> {
        if name.is_empty() || name.len() > 200 || name.chars().any(char::is_control) {
            return Err(Error::plan(format!("a step's name is 1 to 200 printable characters, found {name:?}")));
        }
        if let Op::Named(other) = &self.node.op {
            if other != name {
                return Err(Error::plan(format!("the step is named {other:?} already; it cannot be {name:?} too")));
            }
            return Ok(self.clone());
        }
        if self.port != Port::Out {
            return Err(Error::plan(format!(
                "name({name:?}) stands on a side output; name the step itself, before .late, .errors or branch()"
            )));
        }
        Stream::step(Op::Named(name.to_owned()), vec![self.clone()], self.schema(), self.facts())
    }

    /// Takes each record's event time from a column.
    ///
    /// # Errors
    /// When the column does not exist or holds no time, or the stream has been aggregated.
    pub fn event_time(&self, column: &str, strategy: WatermarkStrategy) -> Result<Stream> {
        append_only(self, "event_time")?;
        let schema = self.schema();
        let index = column_index(&schema, column).map_err(in_step("event_time"))?;
        let data_type = match schema.field(index).data_type() {
            DataType::Timestamp(unit, zone) => DataType::Timestamp(*unit, zone.clone()),
            DataType::Date32 | DataType::Date64 => DataType::Timestamp(TimeUnit::Microsecond, None),
            other => {
                return Err(Error::schema(format!(
                    "event_time() needs a timestamp or date column; {column:?} is {}; cast it, or use .str.to_datetime()",
                    type_name(other)
                )));
            }
        };
        if strategy.out_of_orderness_us < 0 || strategy.idleness_us.is_some_and(|idle| idle <= 0) {
            return Err(Error::plan("a watermark's bounds are not negative, and its idleness is positive"));
        }
        if let Some(op) = self.keyed_step_before() {
            return Err(Error::plan(format!(
                "event_time() stands behind {op}(), where records come in no fixed order; put it before key_by()"
            )));
        }
        if let Some(op) = self.exchange_before(true) {
            return Err(Error::plan(format!(
                "event_time() stands behind {op}(), where records come in no fixed order; put it before {op}()"
            )));
        }
        let mut facts = self.facts();
        facts.event_time = Some(EventTime { column: Some(column.to_owned()), data_type });
        let op = Op::EventTime { column: column.to_owned(), strategy };
        Stream::step(op, vec![self.clone()], schema, facts)
    }

    /// The keyed step that this stream comes from, if any.
    fn keyed_step_before(&self) -> Option<&'static str> {
        if self.port == Port::Errors {
            return None;
        }
        match &self.node.op {
            op @ (Op::Aggregate { .. } | Op::Window { .. } | Op::Reduce { .. }) => Some(op.label()),
            _ => self.node.inputs.iter().find_map(Stream::keyed_step_before),
        }
    }

    /// The step behind which the splits of the sources are no longer told apart, if any. A union or rebalance right before
    /// does no harm: event time is then taken before it.
    fn exchange_before(&self, is_direct: bool) -> Option<&'static str> {
        let op = &self.node.op;
        match op {
            _ if self.port == Port::Errors => None,
            Op::Limit(_) => Some(op.label()),
            Op::Union | Op::Rebalance if !is_direct => Some(op.label()),
            Op::Union | Op::Rebalance | Op::Named(_) => {
                self.node.inputs.iter().find_map(|input| input.exchange_before(is_direct))
            }
            _ => self.node.inputs.iter().find_map(|input| input.exchange_before(false)),
        }
    }

    /// A user's function of whole records. `schema` is what it gives; for `Filter` and `Inspect` that of the input.
    ///
    /// # Errors
    /// When the schema does not fit the kind of step, or an updating stream meets anything but `Inspect`.
    pub fn apply(&self, kind: UserStepKind, function: Arc<dyn BatchFunction>, schema: SchemaRef) -> Result<Stream> {
        if kind != UserStepKind::Inspect {
            append_only(self, kind.label())?;
        }
        check_unique(schema.fields().iter().map(|field| field.name().clone()), kind.label())?;
        let mut facts = self.facts();
        let schema = match kind {
            UserStepKind::Filter | UserStepKind::Inspect => self.schema(),
            _ => {
                if schema.fields().is_empty() {
                    return Err(Error::plan(format!("{}() needs a schema with at least one column", kind.label())));
                }
                if let Some(time) = &mut facts.event_time {
                    time.column = time.column.take().filter(|column| schema.field_with_name(column).is_ok());
                }
                schema
            }
        };
        Stream::step(Op::User { kind, function }, vec![self.clone()], schema, facts)
    }

    /// What came too late for its window; only of a window step.
    ///
    /// # Errors
    /// When the step before is not a window.
    pub fn late(&self) -> Result<Stream> {
        let step = self.unnamed();
        match (&step.node.op, self.port) {
            (Op::Window { .. }, Port::Out) => Ok(Stream { node: Arc::clone(&step.node), port: Port::Late }),
            (op, _) => Err(Error::plan(format!(
                "late records come from a window step, and this is {}(); take .late right behind window(...).agg(...)",
                op.label()
            ))),
        }
    }

    /// The records that failed in the step before, with `step`, `error`, `traceback` and `record`.
    ///
    /// # Errors
    /// When no record can fail in that step.
    pub fn errors(&self) -> Result<Stream> {
        let step = self.unnamed();
        if !step.node.op.can_fail() || matches!(self.port, Port::Errors | Port::Late) {
            return Err(Error::plan(format!(
                "no record fails in {}(), so it has no errors; take .errors of the step whose records may fail",
                step.node.op.label()
            )));
        }
        Ok(Stream { node: Arc::clone(&step.node), port: Port::Errors })
    }
}

fn replace_column(schema: &Schema, index: usize, with: Vec<Arc<Field>>) -> SchemaRef {
    let mut fields: Vec<Arc<Field>> = schema.fields().iter().cloned().collect();
    fields.splice(index..=index, with);
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

fn forget_column(facts: &mut Facts, column: &str) {
    if let Some(time) = &mut facts.event_time {
        time.column = time.column.take().filter(|name| name != column);
    }
}

/// The columns of a union: those of `first`, each in a type that holds the values of both streams as they are.
fn united(first: &Schema, other: &Schema, number: usize) -> Result<SchemaRef> {
    let mut problems = Vec::new();
    let mut fields = Vec::with_capacity(first.fields().len());
    for field in first.fields() {
        let Ok(found) = other.field_with_name(field.name()) else {
            problems.push(format!("column {:?} is missing in stream {number}", field.name()));
            continue;
        };
        match same_values(field.data_type(), found.data_type()).filter(|_| is_object(field) == is_object(found)) {
            Some(data_type) => fields.push(field.as_ref().clone().with_data_type(data_type).with_nullable(true)),
            None => problems.push(format!(
                "column {:?} is {} in the first stream and {} in stream {number}",
                field.name(),
                type_name(field.data_type()),
                type_name(found.data_type())
            )),
        }
    }
    let extra = other.fields().iter().filter(|field| first.field_with_name(field.name()).is_err());
    problems.extend(extra.map(|field| format!("column {:?} of stream {number} is missing in the first", field.name())));
    match problems.is_empty() {
        true => Ok(Arc::new(Schema::new_with_metadata(fields, first.metadata().clone()))),
        false => Err(Error::schema(format!(
            "union() needs the same columns in all streams: {}; use select() or cast() before it",
            problems.join("; ")
        ))),
    }
}

/// The type in which columns of both types hold the same values: for types that are one but for their layout (text as a
/// dictionary and plain), for columns of nothing but nulls, for names of one time zone; also inside lists and structs.
fn same_values(a: &DataType, b: &DataType) -> Option<DataType> {
    match (a, b) {
        _ if a == b => Some(a.clone()),
        (DataType::Null, other) | (other, DataType::Null) => Some(other.clone()),
        (DataType::Timestamp(u1, Some(z1)), DataType::Timestamp(u2, Some(z2))) if u1 == u2 && is_same_zone(z1, z2) => {
            Some(a.clone())
        }
        _ => match (canonical_type(a), canonical_type(b)) {
            (a, b) if a == b => Some(a),
            (DataType::List(a), DataType::List(b)) => Some(DataType::List(same_field(&a, &b)?)),
            (DataType::FixedSizeList(a, size), DataType::FixedSizeList(b, other)) if size == other => {
                Some(DataType::FixedSizeList(same_field(&a, &b)?, size))
            }
            (DataType::Map(a, is_sorted), DataType::Map(b, other)) if is_sorted == other => {
                Some(DataType::Map(same_field(&a, &b)?, is_sorted))
            }
            (DataType::Struct(a), DataType::Struct(b)) if a.len() == b.len() => {
                let fields: Option<Vec<FieldRef>> = a.iter().zip(&b).map(|(a, b)| same_field(a, b)).collect();
                Some(DataType::Struct(fields?.into()))
            }
            _ => None,
        },
    }
}

/// The field in which both hold the same values, if they have one name.
fn same_field(a: &FieldRef, b: &FieldRef) -> Option<FieldRef> {
    let is_one = a.name() == b.name() && is_object(a) == is_object(b);
    let data_type = same_values(a.data_type(), b.data_type()).filter(|_| is_one)?;
    Some(Arc::new(a.as_ref().clone().with_data_type(data_type).with_nullable(a.is_nullable() || b.is_nullable())))
}
