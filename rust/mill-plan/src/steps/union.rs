//! `union`: the records of several streams, in any order.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use mill_frame::types::{canonical_type, is_same_zone};
use mill_protocol::{Error, Result};

use super::{Changes, Inputs, Names, Need, Splits, Step, remaining};
use crate::expr::Expr;
use crate::logical::Parameters;
use crate::lower::{Builder, Lineage};
use crate::physical::error_schema;
use crate::stream::checks::append_only;
use crate::stream::{OutputSpec, Stream};
use crate::types::{is_object, type_name};

/// Brings streams with the same columns together.
#[derive(Debug)]
pub(crate) struct Union;

impl Stream {
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
                         each of them, or once after union()",
                        i + 2
                    )));
                }
            }
            inputs.push(other.with_layout_of(&schema)?);
        }
        Stream::add(Arc::new(Union), inputs, schema, facts)
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
}

impl Step for Union {
    fn label(&self) -> &'static str {
        "union"
    }

    fn parameters(&self) -> Parameters {
        Parameters::new()
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

    fn is_landmark(&self) -> bool {
        true
    }

    fn splits(&self) -> Splits {
        Splits::Mixes
    }

    fn needs_order(&self, of_result: bool, _before: &SchemaRef) -> Result<bool> {
        Ok(of_result)
    }

    fn needs(&self, need: &Need<'_>) -> Result<Names> {
        Ok(need.columns.clone())
    }

    fn schema(&self, inputs: &[SchemaRef], declared: &SchemaRef) -> Result<SchemaRef> {
        Ok(remaining(declared, |name| inputs[0].field_with_name(name).is_ok()))
    }

    fn lineage(&self, inputs: &Inputs<'_>) -> Lineage {
        Lineage::new(inputs.result.fields().iter().map(|of| {
            let name = of.name();
            let mut args: Vec<Expr> = inputs.lineages.iter().map(|lineage| lineage.of(name)).collect();
            args.dedup_by_key(|expr| expr.to_string());
            let expr = if args.len() == 1 { args.remove(0) } else { Expr::Function { name: "union".to_owned(), args } };
            (name.clone(), expr)
        }))
    }

    fn lower(&self, builder: &mut Builder<'_>, at: usize) -> Result<()> {
        builder.union(at)
    }

    fn cuts_inputs(&self, declared: &SchemaRef) -> bool {
        // Descriptions of failed records are always whole, and so alike.
        *declared != error_schema()
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
pub(super) fn same_values(a: &DataType, b: &DataType) -> Option<DataType> {
    match (a, b) {
        _ if a == b => Some(a.clone()),
        (DataType::Null, other) | (other, DataType::Null) => Some(other.clone()),
        (DataType::Timestamp(u1, Some(z1)), DataType::Timestamp(u2, Some(z2))) if u1 == u2 && is_same_zone(z1, z2) => {
            Some(a.clone())
        }
        (DataType::Date32, DataType::Date64) | (DataType::Date64, DataType::Date32) => Some(DataType::Date64),
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
