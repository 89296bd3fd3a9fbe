//! Expressions written the way a user would write them in Python.

use std::fmt;

use datafusion_common::ScalarValue;

use super::{BinaryOp, ELEMENT_COLUMN, Expr, UnaryOp};
use crate::aggregate::{AggregateCall, AggregateKind};
use crate::types::type_name;

/// How tightly an expression binds in Python, loosest first.
fn precedence(expr: &Expr) -> u8 {
    match expr {
        Expr::Binary { op, .. } => match op {
            BinaryOp::Eq | BinaryOp::NotEq | BinaryOp::Lt | BinaryOp::LtEq | BinaryOp::Gt | BinaryOp::GtEq => 1,
            BinaryOp::Or => 2,
            BinaryOp::Xor => 3,
            BinaryOp::And => 4,
            BinaryOp::Add | BinaryOp::Sub => 5,
            BinaryOp::Mul | BinaryOp::Div | BinaryOp::FloorDiv | BinaryOp::Mod => 6,
            BinaryOp::Pow => 8,
            BinaryOp::EqMissing => 9,
        },
        Expr::Unary { op: UnaryOp::Not | UnaryOp::Negate, .. } => 7,
        _ => 9,
    }
}

/// Writes an operand, in brackets if it binds less tightly than its surroundings.
fn operand(f: &mut fmt::Formatter<'_>, expr: &Expr, least: u8) -> fmt::Result {
    if precedence(expr) < least { write!(f, "({expr})") } else { write!(f, "{expr}") }
}

fn joined(f: &mut fmt::Formatter<'_>, args: &[Expr]) -> fmt::Result {
    for (i, arg) in args.iter().enumerate() {
        let separator = if i == 0 { "" } else { ", " };
        write!(f, "{separator}")?;
        argument(f, arg)?;
    }
    Ok(())
}

/// Writes an argument: a constant stands there as it is, without `lit(...)`.
fn argument(f: &mut fmt::Formatter<'_>, arg: &Expr) -> fmt::Result {
    match arg {
        Expr::Literal(value) => literal(f, value),
        other => write!(f, "{other}"),
    }
}

fn literal(f: &mut fmt::Formatter<'_>, value: &ScalarValue) -> fmt::Result {
    match value {
        value if value.is_null() => f.write_str("None"),
        ScalarValue::Boolean(Some(true)) => f.write_str("True"),
        ScalarValue::Boolean(Some(false)) => f.write_str("False"),
        ScalarValue::Utf8(Some(text)) | ScalarValue::LargeUtf8(Some(text)) | ScalarValue::Utf8View(Some(text)) => {
            write!(f, "{text:?}")
        }
        ScalarValue::Float64(Some(number)) => write!(f, "{number:?}"),
        ScalarValue::Float32(Some(number)) => write!(f, "{number:?}"),
        other => write!(f, "{other}"),
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expr::Column(name) if name == ELEMENT_COLUMN => f.write_str(name),
            Expr::Column(name) => write!(f, "col({name:?})"),
            Expr::Literal(value) => {
                f.write_str("lit(")?;
                literal(f, value)?;
                f.write_str(")")
            }
            Expr::Alias(input, name) => {
                operand(f, input, 9)?;
                write!(f, ".alias({name:?})")
            }
            Expr::Binary { left, op: BinaryOp::EqMissing, right } => {
                operand(f, left, 9)?;
                f.write_str(".eq_missing(")?;
                argument(f, right)?;
                f.write_str(")")
            }
            Expr::Binary { left, op, right } => {
                let own = precedence(self);
                // `a < b < c` would mean something else in Python, and `**` binds to the right.
                let (least_left, least_right) = match op {
                    BinaryOp::Pow => (own + 1, own),
                    op if op.is_comparison() => (own + 1, own + 1),
                    _ => (own, own + 1),
                };
                match (left.as_ref(), right.as_ref()) {
                    (Expr::Literal(value), other) if !matches!(other, Expr::Literal(_)) => literal(f, value)?,
                    (other, _) => operand(f, other, least_left)?,
                }
                write!(f, " {} ", op.symbol())?;
                match (left.as_ref(), right.as_ref()) {
                    (Expr::Literal(_), Expr::Literal(_)) => write!(f, "{right}"),
                    (_, Expr::Literal(value)) => literal(f, value),
                    (_, other) => operand(f, other, least_right),
                }
            }
            Expr::Unary { op: UnaryOp::Not, input } => {
                f.write_str("~")?;
                operand(f, input, 7)
            }
            Expr::Unary { op: UnaryOp::Negate, input } => {
                f.write_str("-")?;
                operand(f, input, 7)
            }
            Expr::Unary { op, input } => {
                operand(f, input, 9)?;
                f.write_str(if *op == UnaryOp::IsNull { ".is_null()" } else { ".is_not_null()" })
            }
            Expr::ListEval { input, body } => {
                operand(f, input, 9)?;
                write!(f, ".list.eval({body})")
            }
            Expr::Function { name, args } => match args.split_first() {
                // A null stands for its type.
                Some((text, [Expr::Cast { to, .. }, rest @ ..])) if name == "str.json_decode" => {
                    operand(f, text, 9)?;
                    write!(f, ".{name}({}", type_name(to))?;
                    rest.iter().try_for_each(|arg| {
                        f.write_str(", ")?;
                        argument(f, arg)
                    })?;
                    f.write_str(")")
                }
                Some((first, rest)) if !crate::functions::is_free(name) => {
                    operand(f, first, 9)?;
                    write!(f, ".{name}(")?;
                    joined(f, rest)?;
                    f.write_str(")")
                }
                _ => {
                    write!(f, "{name}(")?;
                    joined(f, args)?;
                    f.write_str(")")
                }
            },
            Expr::Cast { input, to, strict } => {
                operand(f, input, 9)?;
                write!(f, ".cast({}{})", type_name(to), if *strict { "" } else { ", strict=False" })
            }
            Expr::Case { branches, otherwise } => {
                for (i, (condition, value)) in branches.iter().enumerate() {
                    write!(f, "{}when({condition}).then(", if i == 0 { "" } else { "." })?;
                    argument(f, value)?;
                    f.write_str(")")?;
                }
                match otherwise {
                    Some(value) => {
                        f.write_str(".otherwise(")?;
                        argument(f, value)?;
                        f.write_str(")")
                    }
                    None => Ok(()),
                }
            }
            Expr::Aggregate(call) => write!(f, "{call}"),
            Expr::User { function, args } => {
                write!(f, "{}(", function.name())?;
                joined(f, args)?;
                f.write_str(")")
            }
            Expr::Index => f.write_str("index()"),
            Expr::Random { seed } => write!(f, "random({seed})"),
        }
    }
}

impl fmt::Display for AggregateCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.input {
            Some(input) => {
                operand(f, input, 9)?;
                write!(f, ".{}(", self.kind.name())?;
            }
            None => write!(f, "{}(", self.kind.name())?,
        }
        if let AggregateKind::Quantile(q) | AggregateKind::ApproxQuantile(q) = &self.kind {
            write!(f, "{q}")?;
        }
        f.write_str(")")?;
        match &self.filter {
            Some(filter) => write!(f, ".filter({filter})"),
            None => Ok(()),
        }
    }
}
