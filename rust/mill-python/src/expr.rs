//! Expressions for Python: a thin wrapper of [`mill_plan::Expr`].

use std::sync::Arc;

use mill_plan::{AggregateCall, AggregateKind, BinaryOp, ColumnFunction, DEPTH_MAX, Expr, ScalarValue, UnaryOp};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyInt, PyList};

use crate::error::{IntoPython, PlanError, SchemaError, repr_text};
use crate::from_python::values_to_array;
use crate::types::PyDataType;

/// An expression.
#[pyclass(frozen, skip_from_py_object, module = "millstream._millstream")]
#[derive(Clone, Debug)]
pub struct RawExpr {
    /// The expression as the plan has it.
    pub expr: Expr,
}

/// Refuses an expression that is nested too deep where it is made, not where it is used: a loop that makes one copies what
/// there is in each round.
fn shallow(expr: Expr) -> PyResult<RawExpr> {
    let depth = expr.depth();
    if depth > DEPTH_MAX {
        return Err(PlanError::new_err(format!(
            "an expression is nested {depth} deep, and {DEPTH_MAX} is the limit: give a part of it a name with with_columns(), and \
             go on with that column"
        )));
    }
    Ok(expr.into())
}

impl From<Expr> for RawExpr {
    fn from(expr: Expr) -> RawExpr {
        RawExpr { expr }
    }
}

impl RawExpr {
    /// A call of a function of the user's.
    pub fn of_function(function: Arc<dyn ColumnFunction>, args: &[PyRef<'_, RawExpr>]) -> RawExpr {
        Expr::User { function, args: args.iter().map(|arg| arg.expr.clone()).collect() }.into()
    }
}

#[pymethods]
impl RawExpr {
    /// Returns the column with this name.
    #[staticmethod]
    fn column(name: String) -> RawExpr {
        Expr::Column(name).into()
    }

    /// Returns a constant.
    #[staticmethod]
    fn literal(value: &Bound<'_, PyAny>) -> PyResult<RawExpr> {
        Ok(Expr::Literal(scalar(value)?).into())
    }

    /// Applies an operator to two expressions.
    #[staticmethod]
    fn binary(op: &str, left: PyRef<'_, RawExpr>, right: PyRef<'_, RawExpr>) -> PyResult<RawExpr> {
        let op = match op {
            "+" => BinaryOp::Add,
            "-" => BinaryOp::Sub,
            "*" => BinaryOp::Mul,
            "/" => BinaryOp::Div,
            "//" => BinaryOp::FloorDiv,
            "%" => BinaryOp::Mod,
            "**" => BinaryOp::Pow,
            "==" => BinaryOp::Eq,
            "!=" => BinaryOp::NotEq,
            "<" => BinaryOp::Lt,
            "<=" => BinaryOp::LtEq,
            ">" => BinaryOp::Gt,
            ">=" => BinaryOp::GtEq,
            "&" => BinaryOp::And,
            "|" => BinaryOp::Or,
            "^" => BinaryOp::Xor,
            "eq_missing" => BinaryOp::EqMissing,
            _ => return Err(PlanError::new_err(format!("no operator {op:?}"))),
        };
        let mut expr = left.expr.clone().binary(op, right.expr.clone());
        if matches!(op, BinaryOp::And | BinaryOp::Or) && expr.depth() > DEPTH_MAX / 2 {
            expr = expr.balanced(op);
        }
        shallow(expr)
    }

    /// Applies an operator to one expression.
    #[staticmethod]
    fn unary(op: &str, input: PyRef<'_, RawExpr>) -> PyResult<RawExpr> {
        let op = match op {
            "~" => UnaryOp::Not,
            "-" => UnaryOp::Negate,
            "is_null" => UnaryOp::IsNull,
            "is_not_null" => UnaryOp::IsNotNull,
            _ => return Err(PlanError::new_err(format!("no operator {op:?}"))),
        };
        shallow(input.expr.clone().unary(op))
    }

    /// Calls a built-in function.
    #[staticmethod]
    fn function(name: &str, args: Vec<PyRef<'_, RawExpr>>) -> PyResult<RawExpr> {
        let args = args.iter().map(|arg| arg.expr.clone()).collect();
        shallow(Expr::function(name, args).into_python()?)
    }

    /// Converts to another type.
    #[staticmethod]
    fn cast(input: PyRef<'_, RawExpr>, to: PyRef<'_, PyDataType>, strict: bool) -> PyResult<RawExpr> {
        if to.holds_objects() {
            return Err(SchemaError::new_err(
                "cast() makes no Python objects of a column: use map() with schema={...: object}, whose function returns them",
            ));
        }
        Ok(input.expr.clone().cast(to.data_type().clone(), strict).into())
    }

    /// Makes a list of what an expression makes of each element.
    #[staticmethod]
    fn list_eval(input: PyRef<'_, RawExpr>, body: PyRef<'_, RawExpr>) -> PyResult<RawExpr> {
        shallow(Expr::ListEval { input: Box::new(input.expr.clone()), body: Box::new(body.expr.clone()) })
    }

    /// The element of a list, in turn.
    #[staticmethod]
    fn element() -> RawExpr {
        Expr::column(mill_plan::ELEMENT_COLUMN).into()
    }

    /// Chooses by conditions.
    #[staticmethod]
    #[pyo3(signature = (branches, otherwise))]
    fn case(
        branches: Vec<(PyRef<'_, RawExpr>, PyRef<'_, RawExpr>)>,
        otherwise: Option<PyRef<'_, RawExpr>>,
    ) -> RawExpr {
        let branches = branches.iter().map(|(condition, value)| (condition.expr.clone(), value.expr.clone())).collect();
        Expr::Case { branches, otherwise: otherwise.map(|value| Box::new(value.expr.clone())) }.into()
    }

    /// Makes an aggregate.
    #[staticmethod]
    #[pyo3(signature = (kind, input, parameter))]
    fn aggregate(kind: &str, input: Option<PyRef<'_, RawExpr>>, parameter: Option<f64>) -> PyResult<RawExpr> {
        let parameter = parameter.unwrap_or(0.5);
        let kind = match kind {
            "count" => AggregateKind::Count,
            "sum" => AggregateKind::Sum,
            "mean" => AggregateKind::Mean,
            "min" => AggregateKind::Min,
            "max" => AggregateKind::Max,
            "first" => AggregateKind::First,
            "last" => AggregateKind::Last,
            "n_unique" => AggregateKind::NUnique,
            "approx_n_unique" => AggregateKind::ApproxNUnique,
            "std" => AggregateKind::Std,
            "var" => AggregateKind::Var,
            "quantile" => AggregateKind::Quantile(parameter),
            "approx_quantile" => AggregateKind::ApproxQuantile(parameter),
            "median" => AggregateKind::Median,
            "collect" => AggregateKind::Collect,
            "product" => AggregateKind::Product,
            "min_by" => AggregateKind::MinBy,
            "max_by" => AggregateKind::MaxBy,
            _ => return Err(PlanError::new_err(format!("no aggregate {kind:?}"))),
        };
        let input = input.map(|input| Box::new(input.expr.clone()));
        Ok(Expr::Aggregate(AggregateCall { kind, input, filter: None }).into())
    }

    /// Returns the number of the record in a generator.
    #[staticmethod]
    fn index() -> RawExpr {
        Expr::Index.into()
    }

    /// Returns the time of the clock.
    #[staticmethod]
    fn now() -> RawExpr {
        Expr::now().into()
    }

    /// Returns a number in [0, 1) in a generator.
    #[staticmethod]
    fn random(seed: u64) -> RawExpr {
        Expr::Random { seed }.into()
    }

    /// Returns the same values under another name.
    fn alias(&self, name: String) -> RawExpr {
        self.expr.clone().alias(name).into()
    }

    /// Restricts an aggregate.
    fn filter(&self, condition: PyRef<'_, RawExpr>) -> PyResult<RawExpr> {
        restrict(&self.expr, &condition.expr)
            .map(RawExpr::from)
            .ok_or_else(|| PlanError::new_err("filter() on an expression restricts an aggregate, and this is none; to keep some rows of a stream use stream.filter(...)"))
    }

    /// Returns the name of the column it makes.
    fn output_name(&self) -> String {
        self.expr.output_name()
    }

    fn __repr__(&self) -> String {
        self.expr.to_string()
    }
}

/// The aggregate over the rows for which the condition holds too.
fn restrict(expr: &Expr, condition: &Expr) -> Option<Expr> {
    match expr {
        Expr::Aggregate(call) => {
            let filter = match &call.filter {
                Some(filter) => filter.as_ref().clone().binary(BinaryOp::And, condition.clone()),
                None => condition.clone(),
            };
            Some(Expr::Aggregate(AggregateCall { filter: Some(Box::new(filter)), ..call.clone() }))
        }
        Expr::Alias(inner, name) => Some(restrict(inner, condition)?.alias(name.clone())),
        // One that is made of others, as any() is.
        whole if whole.any(&|part| matches!(part, Expr::Aggregate(_))) => Some(whole.rewrite(&mut |part| match part {
            Expr::Aggregate(_) => restrict(part, condition),
            _ => None,
        })),
        _ => None,
    }
}

/// A Python value as a constant.
fn scalar(value: &Bound<'_, PyAny>) -> PyResult<ScalarValue> {
    if value.is_none() {
        return Ok(ScalarValue::Null);
    }
    if value.is_exact_instance_of::<PyInt>() && value.extract::<i64>().is_err() {
        return match value.extract::<u64>() {
            Ok(number) => Ok(ScalarValue::UInt64(Some(number))),
            Err(_) => Err(SchemaError::new_err(format!(
                "{} does not fit in 64 bits; write it as a Decimal or a float",
                repr_text(value)
            ))),
        };
    }
    let py = value.py();
    let kind = py.import("millstream._infer")?.getattr("literal_type")?.call1((value,))?;
    let Ok(kind) = kind.cast::<PyDataType>() else {
        return Err(PyTypeError::new_err(format!(
            "{} is no constant of an expression; constants are bool, int, float, str, bytes, datetime, date, timedelta, \
             Decimal, and lists of them",
            repr_text(value)
        )));
    };
    let array = values_to_array(std::slice::from_ref(value), &kind.get().named("literal"))
        .map_err(|misfit| SchemaError::new_err(misfit.message))?;
    ScalarValue::try_from_array(&array, 0).map_err(|error| SchemaError::new_err(error.to_string()))
}

/// The names of all functions that expressions can call.
#[pyfunction]
pub fn expression_functions(py: Python<'_>) -> PyResult<Bound<'_, PyList>> {
    PyList::new(py, Expr::functions())
}

/// The expressions of a Python sequence.
pub fn expressions(exprs: &[PyRef<'_, RawExpr>]) -> Vec<Expr> {
    exprs.iter().map(|expr| expr.expr.clone()).collect()
}
