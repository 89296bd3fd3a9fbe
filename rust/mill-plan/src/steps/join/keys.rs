//! The key of a join: what each side computes it of, and the type in which both sides hold it.
//!
//! Keys are equal if their values are. So the types of both sides are brought together only where each value of either type
//! has exactly one counterpart; everything else is an error that names both types.

use arrow::datatypes::{DataType, Field, Schema};
use mill_protocol::{Error, Result};

use super::super::Names;
use super::super::union::same_values;
use crate::aggregate::plain_type;
use crate::compiled::CompiledExpr;
use crate::expr::Expr;
use crate::stream::Stream;
use crate::stream::checks::check_hashable;
use crate::types::{is_decimal, is_number, supertype, type_name};

/// The key as the user writes it.
#[derive(Clone, Debug)]
pub enum JoinOn {
    /// Columns that both sides have.
    Columns(Vec<String>),
    /// Expressions over each side.
    Expressions {
        /// Over the left side.
        left: Vec<Expr>,
        /// Over the right side, as many.
        right: Vec<Expr>,
    },
}

/// The key of a join.
#[derive(Clone, Debug)]
pub(crate) struct JoinKeys {
    parts: Vec<Part>,
    /// Whether the parts are columns that both sides have; the result then has each of them once.
    is_shared: bool,
}

/// One column of the key.
#[derive(Clone, Debug)]
struct Part {
    /// What each side computes it of.
    sides: [Expr; 2],
    /// Its type on both sides.
    data_type: DataType,
}

/// The word for a side.
pub(super) const SIDES: [&str; 2] = ["left", "right"];

impl JoinKeys {
    /// Checks the key of a join of these streams.
    pub(crate) fn new(verb: &'static str, left: &Stream, right: &Stream, on: &JoinOn) -> Result<JoinKeys> {
        let (left, right) = (left.schema(), right.schema());
        let (pairs, is_shared): (Vec<[Expr; 2]>, bool) = match on {
            JoinOn::Columns(names) => {
                (names.iter().map(|name| [Expr::column(name), Expr::column(name)]).collect(), true)
            }
            JoinOn::Expressions { left, right } if left.len() == right.len() => {
                (left.iter().zip(right).map(|(left, right)| [left.clone(), right.clone()]).collect(), false)
            }
            JoinOn::Expressions { left, right } => {
                return Err(Error::plan(format!(
                    "{verb}(): left_on= has {} and right_on= has {}; each on the left needs one on the right",
                    columns(left.len()),
                    columns(right.len())
                )));
            }
        };
        if pairs.is_empty() {
            return Err(Error::plan(format!(
                "{verb}() needs a key: on=\"id\" for a column that both sides have, or left_on= and right_on="
            )));
        }
        let mut parts = Vec::with_capacity(pairs.len());
        for sides in pairs {
            let found = [key_field(verb, &sides[0], &left, 0)?, key_field(verb, &sides[1], &right, 1)?];
            let [a, b] = [found[0].data_type(), found[1].data_type()];
            let Some(data_type) = common_type(a, b) else {
                return Err(Error::schema(format!(
                    "{verb}(): the key {} is {} on the left and {} on the right; cast one of them to the type of the other{}",
                    shown(&sides),
                    type_name(a),
                    type_name(b),
                    match &sides[0] {
                        Expr::Column(name) => format!(" before {verb}(), as in .cast({{{name:?}: …}})"),
                        _ => ", with .cast(…)".to_owned(),
                    }
                )));
            };
            parts.push(Part { sides, data_type });
        }
        let mut seen = Names::new();
        if let Some(twice) = parts.iter().map(|part| shown(&part.sides)).find(|text| !seen.insert(text.clone())) {
            return Err(Error::plan(format!("{verb}(): the key has {twice} twice; name it once")));
        }
        Ok(JoinKeys { parts, is_shared })
    }

    /// The columns that both sides have and the result has once, in the order of the key.
    pub(crate) fn shared(&self) -> impl Iterator<Item = (&str, &DataType)> {
        self.parts.iter().filter(|_| self.is_shared).filter_map(|part| match &part.sides[0] {
            Expr::Column(name) => Some((name.as_str(), &part.data_type)),
            _ => None,
        })
    }

    /// Adds the columns that a side computes the key of.
    pub(crate) fn add_columns(&self, side: usize, names: &mut Names) {
        self.parts.iter().for_each(|part| part.sides[side].add_columns(names));
    }

    /// What both sides compute.
    pub(crate) fn exprs(&self) -> Vec<&Expr> {
        self.parts.iter().flat_map(|part| &part.sides).collect()
    }

    /// The key of a side: the place of a column that holds it as it is, or what to compute.
    pub(crate) fn of_side(&self, side: usize, schema: &Schema) -> Vec<std::result::Result<usize, Expr>> {
        let part = |part: &Part| {
            let expr = part.sides[side].without_alias();
            let own = match expr {
                Expr::Column(name) => schema.index_of(name).ok(),
                _ => None,
            };
            match own.filter(|&place| *schema.field(place).data_type() == part.data_type) {
                Some(place) => Ok(place),
                None => Err(expr.clone().cast(part.data_type.clone(), true)),
            }
        };
        self.parts.iter().map(part).collect()
    }

    /// The columns of a side that are parts of the key as they are.
    pub(crate) fn columns_of(&self, side: usize) -> Vec<&str> {
        let sides = self.parts.iter().map(|part| part.sides[side].without_alias());
        let columns = sides.map(|expr| match expr {
            Expr::Column(name) => name.as_str(),
            // No column has this name, so that it is none of another key.
            _ => "",
        });
        columns.collect()
    }

    /// Each part as people read it: `"id"`, or `col("a") = col("b")`.
    pub(crate) fn shown(&self) -> Vec<String> {
        let name = |part: &Part| match &part.sides {
            [Expr::Column(left), Expr::Column(right)] if left == right => left.clone(),
            sides => shown(sides),
        };
        self.parts.iter().map(name).collect()
    }

    /// What of the key must stay the same for state to be of use; `resolve` says what a left expression is made of.
    pub(crate) fn described(&self, resolve: impl Fn(&Expr) -> Expr) -> String {
        let part = |part: &Part| {
            format!("{} = {} {}", resolve(&part.sides[0]), part.sides[1].without_alias(), type_name(&part.data_type))
        };
        self.parts.iter().map(part).collect::<Vec<String>>().join(", ")
    }
}

fn columns(count: usize) -> String {
    if count == 1 { "1 column".to_owned() } else { format!("{count} columns") }
}

/// `"id"`, or `col("a") = col("b")`.
fn shown(sides: &[Expr; 2]) -> String {
    match sides {
        [Expr::Column(left), Expr::Column(right)] if left == right => format!("{left:?}"),
        [left, right] => format!("{} = {}", left.without_alias(), right.without_alias()),
    }
}

/// What a side's part of the key is.
fn key_field(verb: &'static str, expr: &Expr, schema: &Schema, side: usize) -> Result<Field> {
    let of_side = |error: Error| {
        Error::new(error.kind(), format!("on the {} side, {}", SIDES[side], error.message())).in_step(verb)
    };
    let compiled = CompiledExpr::new(expr, schema).map_err(of_side)?;
    check_hashable(compiled.field()).map_err(of_side)?;
    Ok(compiled.field().clone())
}

/// The type in which both hold each of their values exactly, so that equal values are equal keys.
fn common_type(a: &DataType, b: &DataType) -> Option<DataType> {
    let (a, b) = (plain_type(a), plain_type(b));
    if let Some(same) = same_values(&a, &b) {
        return Some(same);
    }
    let digits = |data_type: &DataType| match data_type {
        DataType::Int8 | DataType::UInt8 => 3,
        DataType::Int16 | DataType::UInt16 => 5,
        DataType::Int32 | DataType::UInt32 => 10,
        DataType::Int64 => 19,
        _ => 20,
    };
    let common = supertype(&a, &b)?;
    let is_exact = match (&a, &b) {
        // No type holds the values of both.
        (DataType::UInt64, other) | (other, DataType::UInt64) if other.is_signed_integer() => false,
        // A float holds the integers of up to 32 bits; a 64-bit one is not among them.
        (a, b) if is_number(a) && is_number(b) => {
            let is_wide = |t: &DataType| matches!(t, DataType::Int64 | DataType::UInt64);
            !(common.is_floating() && (is_wide(a) || is_wide(b)))
        }
        (DataType::Decimal128(p1, s1), DataType::Decimal128(p2, s2)) => {
            let whole = (i16::from(*p1) - i16::from(*s1)).max(i16::from(*p2) - i16::from(*s2));
            whole + i16::from((*s1).max(*s2)) <= 38
        }
        (DataType::Decimal128(_, scale), other) | (other, DataType::Decimal128(_, scale)) if other.is_integer() => {
            digits(other) + i16::from(*scale) <= 38
        }
        (a, b) if is_decimal(a) || is_decimal(b) => false,
        (DataType::Timestamp(..), DataType::Timestamp(..)) | (DataType::Duration(_), DataType::Duration(_)) => true,
        (DataType::Date32, DataType::Date64) | (DataType::Date64, DataType::Date32) => true,
        _ => false,
    };
    is_exact.then_some(common)
}
