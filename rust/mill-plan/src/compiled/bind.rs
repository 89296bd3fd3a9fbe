//! Binding: from names to columns, from functions to kernels, and the coercions between.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::compute::{cast_with_options, is_not_null, is_null, not};
use arrow::datatypes::{DataType, Schema};
use datafusion_common::ScalarValue;
use mill_frame::convert::{self, Verdict};
use mill_protocol::{Error, Result};

use super::value::{STRICT, Value, failed, inexact, refused};
use super::{Kernel, Node, arithmetic, compare, mask_of};
use crate::expr::{BinaryOp, DEPTH_MAX, Expr, INDEX_COLUMN, UnaryOp};
use crate::functions;
use crate::suggest::unknown_operand;
use crate::types::{is_decimal, is_number, is_object, is_string, supertype, type_name};

/// The place of an expression.
pub(crate) struct Scope<'a> {
    pub(crate) schema: &'a Schema,
    pub(crate) is_generator: bool,
}

/// A node and what is known of it.
pub(crate) struct Typed {
    pub(crate) node: Node,
    pub(crate) data_type: DataType,
    /// Its value, if it is the same for all rows.
    pub(crate) constant: Option<ScalarValue>,
    /// Whether it is a constant as the user wrote it, which takes the type of what it meets.
    pub(crate) is_literal: bool,
    pub(crate) text: Arc<str>,
}

impl Typed {
    fn constant(value: ScalarValue, text: Arc<str>, is_literal: bool) -> Result<Typed> {
        let data_type = value.data_type();
        let node = Node::Constant(Value::scalar(&value)?);
        Ok(Typed { node, data_type, constant: Some(value), is_literal, text })
    }

    /// A constant of the engine's own.
    pub(crate) fn literal(value: ScalarValue) -> Result<Typed> {
        let text = Expr::Literal(value.clone()).to_string().into();
        Typed::constant(value, text, true)
    }

    /// The same argument once more; it is then computed twice.
    pub(crate) fn duplicate(&self) -> Result<Typed> {
        Ok(Typed { node: self.node.clone(), ..self.like() })
    }

    /// All that is known of it, without the way it is computed.
    pub(crate) fn like(&self) -> Typed {
        Typed {
            node: Node::Column(0),
            data_type: self.data_type.clone(),
            constant: self.constant.clone(),
            is_literal: self.is_literal,
            text: Arc::clone(&self.text),
        }
    }

    /// A kernel over arguments. What is the same for all rows is computed here and now.
    pub(crate) fn call(kernel: Kernel, args: Vec<Typed>, data_type: DataType, text: &Arc<str>) -> Result<Typed> {
        let is_constant = !args.is_empty() && args.iter().all(|arg| arg.constant.is_some());
        let args = args.into_iter().map(|arg| arg.node).collect();
        let node = Node::Call { kernel, args, text: Arc::clone(text) };
        if is_constant {
            let options = RecordBatchOptions::new().with_row_count(Some(1));
            let empty = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options).map_err(failed)?;
            let array = node.run(&empty)?.into_array(1)?;
            let value = ScalarValue::try_from_array(&array, 0).map_err(refused)?;
            return Typed::constant(value, Arc::clone(text), false);
        }
        Ok(Typed { node, data_type, constant: None, is_literal: false, text: Arc::clone(text) })
    }

    /// The same values as this type, numbers beside floats rounded as arithmetic does. A constant is converted at once.
    pub(crate) fn coerce(self, to: &DataType) -> Result<Typed> {
        self.coerced_by(to, coerced)
    }

    /// The same values as this type, none of them rounded: for functions that choose among values.
    pub(crate) fn coerce_exactly(self, to: &DataType) -> Result<Typed> {
        self.coerced_by(to, |array, to| match promotes(array.data_type(), to) && !is_date_in_zone(array.data_type(), to) {
            true => convert::cast(array, to).map_err(inexact),
            false => coerced(array, to),
        })
    }

    fn coerced_by(self, to: &DataType, coerced: fn(&ArrayRef, &DataType) -> Result<ArrayRef>) -> Result<Typed> {
        if self.data_type == *to {
            return Ok(self);
        }
        let text = Arc::clone(&self.text);
        if let Some(value) = &self.constant {
            let converted = value.to_array().map_err(refused).and_then(|array| coerced(&array, to)).map_err(|error| {
                Error::schema(format!("{text} cannot be {}: {}", type_name(to), error.message()))
            })?;
            let value = ScalarValue::try_from_array(&converted, 0).map_err(refused)?;
            return Typed::constant(value, text, self.is_literal);
        }
        let from = &self.data_type;
        if !promotes(from, to) && convert::cast_verdict(from, to) == Verdict::Refused {
            return Err(no_cast(&self, to));
        }
        let to_type = to.clone();
        let kernel: Kernel = Arc::new(move |args, _| args[0].map(|array| coerced(array, &to_type)));
        Typed::call(kernel, vec![self], to.clone(), &text)
    }

    /// The type name and the text, for messages.
    pub(crate) fn describe(&self) -> String {
        format!("{} ({})", self.text, type_name(&self.data_type))
    }
}

/// Binds an expression.
pub(crate) fn bind(expr: &Expr, scope: &Scope<'_>) -> Result<Typed> {
    let depth = expr.depth();
    if depth > DEPTH_MAX {
        return Err(Error::plan(format!("an expression is nested {depth} deep, and {DEPTH_MAX} is the limit; split it")));
    }
    bind_part(expr, scope)
}

/// Refuses columns of Python objects where their pickled bytes would be taken for values.
fn refuse_objects(expr: &Expr, scope: &Scope<'_>) -> Result<()> {
    let is_harmless = match expr {
        Expr::Unary { op: UnaryOp::IsNull | UnaryOp::IsNotNull, .. } => true,
        Expr::Function { name, .. } => name == "is_null" || name == "is_not_null",
        Expr::Binary { .. } | Expr::Unary { .. } | Expr::Cast { .. } | Expr::Case { .. } => false,
        _ => true,
    };
    let mut found = None;
    if !is_harmless {
        expr.for_each_child(&mut |child| {
            if let Expr::Column(name) = child.without_alias()
                && scope.schema.field_with_name(name).is_ok_and(is_object)
            {
                found = Some(name.clone());
            }
        });
    }
    match found {
        None => Ok(()),
        Some(name) => Err(Error::schema(format!(
            "column {name:?} holds Python objects, which expressions cannot look into; use map() or map_batches() to take \
             a column of a plain type out of it (in {expr})"
        ))),
    }
}

fn bind_part(expr: &Expr, scope: &Scope<'_>) -> Result<Typed> {
    refuse_objects(expr, scope)?;
    let text = || Arc::<str>::from(expr.to_string());
    match expr {
        Expr::Column(name) => bind_column(name, scope, text()),
        Expr::Literal(value) => Typed::constant(value.clone(), text(), true),
        Expr::Alias(input, _) => bind_part(input, scope),
        Expr::Binary { left, op, right } => {
            let (left, right) = (bind_part(left, scope)?, bind_part(right, scope)?);
            match op {
                op if op.is_comparison() => compare::bind(*op, left, right, &text()),
                op if op.is_logical() => logical(*op, left, right, &text()),
                op => arithmetic::bind(*op, left, right, &text()),
            }
        }
        Expr::Unary { op, input } => unary(*op, bind_part(input, scope)?, &text()),
        Expr::Function { name, args } => {
            let args: Result<Vec<Typed>> = args.iter().map(|arg| bind_part(arg, scope)).collect();
            functions::bind(name, args?, &text())
        }
        Expr::ListEval { input, body } => functions::list_eval(bind_part(input, scope)?, body, &text()),
        Expr::Cast { input, to, strict } => cast(bind_part(input, scope)?, to, *strict, &text()),
        Expr::Case { branches, otherwise } => case(branches, otherwise.as_deref(), scope, text()),
        Expr::Aggregate(_) => Err(Error::plan(format!(
            "{expr} is an aggregate and is allowed only in agg(...), after key_by(...)"
        ))),
        Expr::User { function, args } => {
            let args: Result<Vec<Typed>> = args.iter().map(|arg| bind_part(arg, scope)).collect();
            let args = args?;
            let types: Vec<DataType> = args.iter().map(|arg| arg.data_type.clone()).collect();
            let data_type = function.return_type(&types)?;
            let args = args.into_iter().map(|arg| arg.node).collect();
            let node = Node::User { function: Arc::clone(function), args, data_type: data_type.clone() };
            Ok(Typed { node, data_type, constant: None, is_literal: false, text: text() })
        }
        Expr::Index | Expr::Random { .. } if !scope.is_generator => {
            Err(Error::plan(format!("{expr} is allowed only in the columns of generate(...)")))
        }
        Expr::Index => bind_column(INDEX_COLUMN, scope, text()),
        Expr::Random { seed } => functions::random(*seed, bind_column(INDEX_COLUMN, scope, text())?, &text()),
    }
}

fn bind_column(name: &str, scope: &Scope<'_>, text: Arc<str>) -> Result<Typed> {
    let index = scope.schema.index_of(name).map_err(|_| unknown_operand(name, scope.schema))?;
    let data_type = scope.schema.field(index).data_type().clone();
    Ok(Typed { node: Node::Column(index), data_type, constant: None, is_literal: false, text })
}

/// The type in which two sides meet. A literal takes the type of the other side if its value fits.
pub(crate) fn meet(left: &Typed, right: &Typed) -> Option<DataType> {
    let of_literal = |literal: &Typed, other: &Typed| -> Option<DataType> {
        let value = literal.constant.as_ref()?;
        let to = &other.data_type;
        let fits = match value {
            ScalarValue::Int64(Some(_)) | ScalarValue::UInt64(Some(_)) => {
                to.is_floating() || to.is_integer() && value.cast_to(to).is_ok_and(|cast| !cast.is_null())
            }
            ScalarValue::Float64(Some(_)) => to.is_floating(),
            ScalarValue::Utf8(Some(_)) => is_string(to),
            ScalarValue::TimestampMicrosecond(Some(_), zone) => {
                let is_same = |back: ScalarValue| back == *value;
                matches!(to, DataType::Timestamp(_, other) if other.is_some() == zone.is_some())
                    && value.cast_to(to).and_then(|cast| cast.cast_to(&value.data_type())).is_ok_and(is_same)
            }
            ScalarValue::DurationMicrosecond(Some(_)) => {
                let is_same = |back: ScalarValue| back == *value;
                matches!(to, DataType::Duration(_))
                    && value.cast_to(to).and_then(|cast| cast.cast_to(&value.data_type())).is_ok_and(is_same)
            }
            _ => false,
        };
        fits.then(|| to.clone())
    };
    let met = match (left.is_literal, right.is_literal) {
        (true, false) => of_literal(left, right),
        (false, true) => of_literal(right, left),
        // Of two constants, the small one takes the type that the large one needs.
        (true, true) if left.data_type.is_integer() && right.data_type.is_integer() => {
            of_literal(left, right).or_else(|| of_literal(right, left))
        }
        _ => None,
    };
    met.or_else(|| supertype(&left.data_type, &right.data_type))
}

/// Whether numbers meet as floats, rounded to the nearest as in Python, or a date meets a time of a zone.
fn promotes(from: &DataType, to: &DataType) -> bool {
    to.is_floating() && (from.is_integer() || is_decimal(from))
        || is_date_in_zone(from, to)
}

/// Whether a date meets a time of a zone: it is taken for the start of its day there.
fn is_date_in_zone(from: &DataType, to: &DataType) -> bool {
    matches!((from, to), (DataType::Date32 | DataType::Date64, DataType::Timestamp(_, Some(_))))
}

/// Values in the type in which they meet others.
fn coerced(array: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    let from = array.data_type();
    if is_date_in_zone(from, to) {
        return functions::times::midnights(array, to);
    }
    if promotes(from, to) {
        return match is_decimal(from) {
            true => convert::cast(array, to).map_err(inexact),
            false => cast_with_options(array, to, &STRICT).map_err(failed),
        };
    }
    match convert::verdict(from, to) {
        Verdict::Refused => convert::cast(array, to),
        _ => convert::exact(array, to),
    }
    .map_err(inexact)
}

fn no_cast(input: &Typed, to: &DataType) -> Error {
    let hint = convert::why_refused(&input.data_type, to).map(|hint| format!(": {hint}")).unwrap_or_default();
    Error::schema(format!("{} cannot be cast to {}{hint}", input.describe(), type_name(to)))
}

/// A conversion the user asked for.
pub(crate) fn cast(input: Typed, to: &DataType, strict: bool, text: &Arc<str>) -> Result<Typed> {
    if input.data_type == *to {
        return Ok(input);
    }
    if convert::cast_verdict(&input.data_type, to) == Verdict::Refused {
        return Err(no_cast(&input, to));
    }
    let to_type = to.clone();
    let kernel: Kernel = Arc::new(move |args, _| {
        args[0].map(|array| match strict {
            true => convert::cast(array, &to_type).map_err(inexact),
            false => convert::cast_or_null(array, &to_type).map_err(inexact),
        })
    });
    Typed::call(kernel, vec![input], to.clone(), text)
}

pub(crate) fn unary(op: UnaryOp, input: Typed, text: &Arc<str>) -> Result<Typed> {
    match op {
        UnaryOp::IsNull | UnaryOp::IsNotNull => {
            let kernel: Kernel = Arc::new(move |args, _| {
                args[0].map(|array| {
                    // Arrays of type null and dictionaries have nulls that their own bitmap does not show.
                    let nulls = array.logical_nulls();
                    let result = match (op, nulls) {
                        (UnaryOp::IsNull, None) => BooleanArray::from(vec![false; array.len()]),
                        (_, None) => BooleanArray::from(vec![true; array.len()]),
                        (UnaryOp::IsNull, Some(_)) if array.data_type() == &DataType::Null => {
                            BooleanArray::from(vec![true; array.len()])
                        }
                        (_, Some(_)) if array.data_type() == &DataType::Null => BooleanArray::from(vec![false; array.len()]),
                        (UnaryOp::IsNull, Some(_)) => is_null(array).map_err(failed)?,
                        (_, Some(_)) => is_not_null(array).map_err(failed)?,
                    };
                    Ok(Arc::new(result) as _)
                })
            });
            Typed::call(kernel, vec![input], DataType::Boolean, text)
        }
        UnaryOp::Not => match input.data_type {
            DataType::Boolean | DataType::Null => {
                let kernel: Kernel = Arc::new(|args, _| {
                    args[0].map(|array| {
                        let mask = mask_of(Value::Array(Arc::clone(array)), array.len())?;
                        Ok(Arc::new(not(&mask).map_err(failed)?) as _)
                    })
                });
                Typed::call(kernel, vec![input], DataType::Boolean, text)
            }
            _ => Err(Error::schema(format!("~ needs a boolean, found {}", input.describe()))),
        },
        UnaryOp::Negate => arithmetic::negate(input, text),
    }
}

fn logical(op: BinaryOp, left: Typed, right: Typed, text: &Arc<str>) -> Result<Typed> {
    let is_truth = |side: &Typed| matches!(side.data_type, DataType::Boolean | DataType::Null);
    if is_truth(&left) && is_truth(&right) {
        let (left, right) = (left.coerce(&DataType::Boolean)?, right.coerce(&DataType::Boolean)?);
        let kernel: Kernel = Arc::new(move |args, rows| compare::logical(op, &args[0], &args[1], rows));
        return Typed::call(kernel, vec![left, right], DataType::Boolean, text);
    }
    if left.data_type.is_integer() && right.data_type.is_integer() {
        return arithmetic::bitwise(op, left, right, text);
    }
    Err(Error::schema(format!(
        "{} needs booleans on both sides, found {} and {}; put comparisons in brackets: (a > 1) {} (b < 2)",
        op.symbol(),
        left.describe(),
        right.describe(),
        op.symbol()
    )))
}

fn case(branches: &[(Expr, Expr)], otherwise: Option<&Expr>, scope: &Scope<'_>, text: Arc<str>) -> Result<Typed> {
    if branches.is_empty() {
        return Err(Error::plan("when() needs at least one condition and value"));
    }
    let mut conditions = Vec::with_capacity(branches.len());
    let mut values = Vec::with_capacity(branches.len() + 1);
    for (condition, value) in branches {
        let bound = bind_part(condition, scope)?;
        if !matches!(bound.data_type, DataType::Boolean | DataType::Null) {
            return Err(Error::schema(format!("when() needs a boolean condition, found {}", bound.describe())));
        }
        conditions.push(bound.coerce(&DataType::Boolean)?);
        values.push(bind_part(value, scope)?);
    }
    values.push(match otherwise {
        Some(value) => bind_part(value, scope)?,
        None => Typed::constant(ScalarValue::Null, "lit(None)".into(), true)?,
    });
    let data_type = common_type(&values, "when().then().otherwise()")?;
    let mut values = values.into_iter().map(|value| Ok(value.coerce_exactly(&data_type)?.node)).collect::<Result<Vec<Node>>>()?;
    let Some(otherwise) = values.pop() else { return Err(Error::internal("a case without values")) };
    let branches = conditions.into_iter().map(|condition| condition.node).zip(values).collect();
    let node = Node::Case { branches, otherwise: Box::new(otherwise), data_type: data_type.clone() };
    Ok(Typed { node, data_type, constant: None, is_literal: false, text })
}

/// The type that all of these can stand in together.
pub(crate) fn common_type(values: &[Typed], what: &str) -> Result<DataType> {
    let refused = |a: &Typed, b: &Typed| {
        Error::schema(format!("{what} needs values of one type, found {} and {}", a.describe(), b.describe()))
    };
    // Columns decide first; literals then take their type if they fit.
    let mut order: Vec<&Typed> = values.iter().filter(|value| !value.is_literal).collect();
    order.extend(values.iter().filter(|value| value.is_literal));
    let Some((&first, rest)) = order.split_first() else { return Ok(DataType::Null) };
    if let Some(of_constants) = constants_type(values) {
        return Ok(of_constants);
    }
    let mut met = first.data_type.clone();
    let mut is_literal = first.is_literal;
    for &value in rest {
        let so_far = Typed {
            node: Node::Column(0),
            data_type: met.clone(),
            constant: None,
            is_literal: false,
            text: Arc::clone(&first.text),
        };
        let next = if is_literal { supertype(&met, &value.data_type) } else { meet(&so_far, value) };
        let is_mixed = |a: &DataType, b: &DataType| (is_number(a) || is_decimal(a)) && b == &DataType::Boolean;
        if is_mixed(&met, &value.data_type) || is_mixed(&value.data_type, &met) {
            return Err(refused(first, value));
        }
        met = next.ok_or_else(|| refused(first, value))?;
        is_literal &= value.is_literal;
    }
    Ok(met)
}

/// The type of constants that are all integers, of which some need uint64; `None` of others.
fn constants_type(values: &[Typed]) -> Option<DataType> {
    let mut has_large = false;
    for value in values {
        match value.constant.as_ref().filter(|_| value.is_literal)? {
            ScalarValue::UInt64(Some(_)) => has_large = true,
            ScalarValue::Int64(Some(0..)) | ScalarValue::Null => {}
            _ => return None,
        }
    }
    has_large.then_some(DataType::UInt64)
}
