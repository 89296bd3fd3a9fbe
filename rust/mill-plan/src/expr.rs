//! Column expressions: what the user writes as `col("price") * 2`, before it is bound to a schema.
//!
//! An [`Expr`] is plain data: it names columns and functions and knows no types. [`CompiledExpr`](crate::CompiledExpr)
//! is the same expression bound to a schema, typed, checked and ready to run.

mod display;

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema};
use datafusion_common::ScalarValue;
use mill_protocol::Result;

use crate::aggregate::AggregateCall;
use crate::compiled::CompiledExpr;
use crate::function::ColumnFunction;
use crate::functions;
use crate::now::Now;

/// How deep an expression may be nested; deeper ones are refused instead of overflowing the stack.
pub const DEPTH_MAX: usize = 256;

/// An expression over the columns of a stream.
#[derive(Clone, Debug)]
pub enum Expr {
    /// The column with this name.
    Column(String),
    /// A constant. `Int64`, `Float64` and `Utf8` constants take the type of the column they meet, if they fit.
    Literal(ScalarValue),
    /// The same values under another name.
    Alias(Box<Expr>, String),
    /// An operator between two expressions.
    Binary {
        /// Left side.
        left: Box<Expr>,
        /// The operator.
        op: BinaryOp,
        /// Right side.
        right: Box<Expr>,
    },
    /// An operator on one expression.
    Unary {
        /// The operator.
        op: UnaryOp,
        /// What it is applied to.
        input: Box<Expr>,
    },
    /// A built-in function; see [`Expr::functions`].
    Function {
        /// Polars' name, with its namespace: `str.to_lowercase`.
        name: String,
        /// The arguments, the column it is called on first.
        args: Vec<Expr>,
    },
    /// A conversion to another type.
    Cast {
        /// What is converted.
        input: Box<Expr>,
        /// The type wanted.
        to: DataType,
        /// Whether a value that does not fit is an error of its record; otherwise it becomes null.
        strict: bool,
    },
    /// `when(a).then(b).when(c).then(d).otherwise(e)`.
    Case {
        /// Conditions and values; the first condition that is true decides.
        branches: Vec<(Expr, Expr)>,
        /// The value when none is true; null if absent.
        otherwise: Option<Box<Expr>>,
    },
    /// An expression over the elements of a list, each of which it makes another of.
    ListEval {
        /// The list.
        input: Box<Expr>,
        /// What becomes of an element, which is the [column of elements](ELEMENT_COLUMN) in it.
        body: Box<Expr>,
    },
    /// An aggregate; allowed only inside `agg(...)`.
    Aggregate(AggregateCall),
    /// A user's function.
    User {
        /// The function.
        function: Arc<dyn ColumnFunction>,
        /// Its arguments.
        args: Vec<Expr>,
    },
    /// The number of the record: 0, 1, 2, …; allowed only inside `generate(...)`.
    Index,
    /// A number in [0, 1) that looks random and depends on the seed and the record's number alone; allowed only inside
    /// `generate(...)`.
    Random {
        /// Distinguishes independent sequences.
        seed: u64,
    },
}

/// An operator between two expressions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BinaryOp {
    /// `+`
    Add,
    /// `-`
    Sub,
    /// `*`
    Mul,
    /// `/`: true division.
    Div,
    /// `//`: rounds down; null where the divisor is an integer zero.
    FloorDiv,
    /// `%`: has the divisor's sign; null where the divisor is an integer zero.
    Mod,
    /// `**`
    Pow,
    /// `==`
    Eq,
    /// `!=`
    NotEq,
    /// `<`
    Lt,
    /// `<=`
    LtEq,
    /// `>`
    Gt,
    /// `>=`
    GtEq,
    /// `&`
    And,
    /// `|`
    Or,
    /// `^`
    Xor,
    /// Equality in which null equals null; never null itself.
    EqMissing,
}

impl BinaryOp {
    /// The operator as Python writes it.
    pub fn symbol(self) -> &'static str {
        match self {
            BinaryOp::Add => "+",
            BinaryOp::Sub => "-",
            BinaryOp::Mul => "*",
            BinaryOp::Div => "/",
            BinaryOp::FloorDiv => "//",
            BinaryOp::Mod => "%",
            BinaryOp::Pow => "**",
            BinaryOp::Eq => "==",
            BinaryOp::NotEq => "!=",
            BinaryOp::Lt => "<",
            BinaryOp::LtEq => "<=",
            BinaryOp::Gt => ">",
            BinaryOp::GtEq => ">=",
            BinaryOp::And => "&",
            BinaryOp::Or => "|",
            BinaryOp::Xor => "^",
            BinaryOp::EqMissing => "eq_missing",
        }
    }

    /// Whether the result is a truth value made by comparing.
    pub fn is_comparison(self) -> bool {
        use BinaryOp::{Eq, EqMissing, Gt, GtEq, Lt, LtEq, NotEq};
        matches!(self, Eq | NotEq | Lt | LtEq | Gt | GtEq | EqMissing)
    }

    /// Whether both sides must be truth values (or integers, bit by bit).
    pub fn is_logical(self) -> bool {
        matches!(self, BinaryOp::And | BinaryOp::Or | BinaryOp::Xor)
    }
}

/// An operator on one expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UnaryOp {
    /// `~`
    Not,
    /// `-`
    Negate,
    /// `.is_null()`
    IsNull,
    /// `.is_not_null()`
    IsNotNull,
}

impl Expr {
    /// The column with this name.
    pub fn column(name: impl Into<String>) -> Expr {
        Expr::Column(name.into())
    }

    /// The time of the clock when a batch passes, in UTC.
    pub fn now() -> Expr {
        Expr::User { function: Arc::new(Now), args: Vec::new() }
    }

    /// A constant.
    pub fn literal(value: impl Into<ScalarValue>) -> Expr {
        Expr::Literal(value.into())
    }

    /// The same values under another name.
    #[must_use]
    pub fn alias(self, name: impl Into<String>) -> Expr {
        Expr::Alias(Box::new(self), name.into())
    }

    /// An operator between this and another expression.
    #[must_use]
    pub fn binary(self, op: BinaryOp, right: Expr) -> Expr {
        Expr::Binary { left: Box::new(self), op, right: Box::new(right) }
    }

    /// A chain of one logical operator as a tree that is as flat as it can be: `a | b | c | d` is `(a | b) | (c | d)`, which has
    /// the same value, of nulls too.
    #[must_use]
    pub fn balanced(self, op: BinaryOp) -> Expr {
        let (mut operands, mut left) = (Vec::new(), self);
        // From the right: a chain that was written out leans to the left.
        let mut rest = Vec::new();
        loop {
            match left {
                Expr::Binary { left: first, op: own, right } if own == op && op.is_logical() => {
                    rest.push(*first);
                    left = *right;
                    continue;
                }
                operand => operands.push(operand),
            }
            match rest.pop() {
                Some(next) => left = next,
                None => break,
            }
        }
        operands.reverse();
        while operands.len() > 1 {
            let mut pairs = Vec::with_capacity(operands.len().div_ceil(2));
            let mut operand = operands.into_iter();
            while let Some(first) = operand.next() {
                pairs.push(match operand.next() {
                    Some(second) => first.binary(op, second),
                    None => first,
                });
            }
            operands = pairs;
        }
        operands.pop().unwrap_or(Expr::Literal(ScalarValue::Null))
    }

    /// An operator on this expression.
    #[must_use]
    pub fn unary(self, op: UnaryOp) -> Expr {
        Expr::Unary { op, input: Box::new(self) }
    }

    /// This expression converted to another type.
    #[must_use]
    pub fn cast(self, to: DataType, strict: bool) -> Expr {
        Expr::Cast { input: Box::new(self), to, strict }
    }

    /// A built-in function by its name.
    ///
    /// # Errors
    /// When there is no such function (the message names the nearest ones), or it takes another number of arguments.
    pub fn function(name: &str, args: Vec<Expr>) -> Result<Expr> {
        functions::check_call(name, args.len())?;
        Ok(Expr::Function { name: name.to_owned(), args })
    }

    /// The names of all built-in functions, sorted.
    pub fn functions() -> &'static [&'static str] {
        functions::names()
    }

    /// The name of the resulting column: an alias, or else that of the leftmost column.
    pub fn output_name(&self) -> String {
        match self {
            Expr::Column(name) | Expr::Alias(_, name) => name.clone(),
            Expr::Literal(_) => "literal".to_owned(),
            Expr::Binary { left, right, .. } => match (left.has_root(), right.has_root()) {
                (false, true) => right.output_name(),
                _ => left.output_name(),
            },
            Expr::Unary { input, .. } | Expr::Cast { input, .. } | Expr::ListEval { input, .. } => input.output_name(),
            Expr::Function { name, args } => match (name.as_str(), args.as_slice()) {
                ("struct.field", [_, Expr::Literal(field)]) => field.try_as_str().flatten().unwrap_or("field").to_owned(),
                (_, [first, rest @ ..]) => {
                    let root = std::iter::once(first).chain(rest).find(|arg| arg.has_root());
                    root.unwrap_or(first).output_name()
                }
                (name, []) => name.rsplit('.').next().unwrap_or(name).to_owned(),
            },
            Expr::Case { branches, otherwise } => match (branches.first(), otherwise) {
                (Some((_, value)), _) => value.output_name(),
                (None, Some(value)) => value.output_name(),
                (None, None) => "literal".to_owned(),
            },
            Expr::Aggregate(call) => call.output_name(),
            Expr::User { function, args } => {
                args.iter().find(|arg| arg.has_root()).map_or_else(|| function.name(), Expr::output_name)
            }
            Expr::Index => "index".to_owned(),
            Expr::Random { .. } => "random".to_owned(),
        }
    }

    /// Whether the name of the result comes from a column, an alias or an aggregate rather than from a constant.
    fn has_root(&self) -> bool {
        match self {
            Expr::Literal(_) => false,
            Expr::Binary { left, right, .. } => left.has_root() || right.has_root(),
            Expr::Unary { input, .. } | Expr::Cast { input, .. } | Expr::ListEval { input, .. } => input.has_root(),
            Expr::Function { args, .. } => args.iter().any(Expr::has_root),
            Expr::Case { branches, .. } => branches.first().is_some_and(|(_, value)| value.has_root()),
            _ => true,
        }
    }

    /// The type of the result over columns of this schema.
    ///
    /// # Errors
    /// When a column does not exist, or types don't fit.
    pub fn data_type(&self, schema: &Schema) -> Result<DataType> {
        Ok(CompiledExpr::new(self, schema)?.field().data_type().clone())
    }

    /// The expression without aliases on the outside.
    pub fn without_alias(&self) -> &Expr {
        match self {
            Expr::Alias(inner, _) => inner.without_alias(),
            other => other,
        }
    }

    /// Adds the names of all columns the expression reads.
    pub fn add_columns(&self, names: &mut BTreeSet<String>) {
        if let Expr::Column(name) = self {
            names.insert(name.clone());
        }
        if matches!(self, Expr::Index | Expr::Random { .. }) {
            names.insert(INDEX_COLUMN.to_owned());
        }
        self.for_each_child(&mut |child| child.add_columns(names));
    }

    /// Whether the predicate holds for this expression or any within it.
    pub fn any(&self, predicate: &dyn Fn(&Expr) -> bool) -> bool {
        if predicate(self) {
            return true;
        }
        let mut found = false;
        self.for_each_child(&mut |child| found = found || child.any(predicate));
        found
    }

    /// How deep the expression is nested.
    pub fn depth(&self) -> usize {
        let mut deepest = if let Expr::ListEval { body, .. } = self { body.depth() } else { 0 };
        self.for_each_child(&mut |child| deepest = deepest.max(child.depth()));
        deepest + 1
    }

    /// Calls `visit` with every direct part of the expression.
    pub fn for_each_child(&self, visit: &mut dyn FnMut(&Expr)) {
        match self {
            Expr::Column(_) | Expr::Literal(_) | Expr::Index | Expr::Random { .. } => {}
            // The columns within the body are not those of the stream.
            Expr::Alias(input, _) | Expr::Unary { input, .. } | Expr::Cast { input, .. } | Expr::ListEval { input, .. } => visit(input),
            Expr::Binary { left, right, .. } => {
                visit(left);
                visit(right);
            }
            Expr::Function { args, .. } | Expr::User { args, .. } => args.iter().for_each(visit),
            Expr::Case { branches, otherwise } => {
                for (condition, value) in branches {
                    visit(condition);
                    visit(value);
                }
                otherwise.iter().for_each(|value| visit(value));
            }
            Expr::Aggregate(call) => {
                call.input.iter().for_each(|input| visit(input));
                call.filter.iter().for_each(|filter| visit(filter));
            }
        }
    }

    /// The same expression with every part for which `replace` returns one replaced, outermost first.
    #[must_use]
    pub fn rewrite(&self, replace: &mut dyn FnMut(&Expr) -> Option<Expr>) -> Expr {
        if let Some(replacement) = replace(self) {
            return replacement;
        }
        let boxed = |input: &Expr, replace: &mut dyn FnMut(&Expr) -> Option<Expr>| Box::new(input.rewrite(replace));
        match self {
            Expr::Column(_) | Expr::Literal(_) | Expr::Index | Expr::Random { .. } => self.clone(),
            Expr::Alias(input, name) => Expr::Alias(boxed(input, replace), name.clone()),
            Expr::ListEval { input, body } => Expr::ListEval { input: boxed(input, replace), body: body.clone() },
            Expr::Unary { op, input } => Expr::Unary { op: *op, input: boxed(input, replace) },
            Expr::Cast { input, to, strict } => {
                Expr::Cast { input: boxed(input, replace), to: to.clone(), strict: *strict }
            }
            Expr::Binary { left, op, right } => {
                Expr::Binary { left: boxed(left, replace), op: *op, right: boxed(right, replace) }
            }
            Expr::Function { name, args } => {
                Expr::Function { name: name.clone(), args: args.iter().map(|arg| arg.rewrite(replace)).collect() }
            }
            Expr::User { function, args } => Expr::User {
                function: Arc::clone(function),
                args: args.iter().map(|arg| arg.rewrite(replace)).collect(),
            },
            Expr::Case { branches, otherwise } => Expr::Case {
                branches: branches.iter().map(|(c, v)| (c.rewrite(replace), v.rewrite(replace))).collect(),
                otherwise: otherwise.as_ref().map(|value| boxed(value, replace)),
            },
            Expr::Aggregate(call) => Expr::Aggregate(AggregateCall {
                kind: call.kind.clone(),
                input: call.input.as_ref().map(|input| boxed(input, replace)),
                filter: call.filter.as_ref().map(|filter| boxed(filter, replace)),
            }),
        }
    }
}

/// The column in which a generator stores the number of the record.
pub const INDEX_COLUMN: &str = "index";

/// The column of elements in the body of [`Expr::ListEval`].
pub const ELEMENT_COLUMN: &str = "element()";
