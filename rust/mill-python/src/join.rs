//! What joins are told, as Python holds it.

use mill_plan::{How, JoinCall, JoinOn};
use pyo3::prelude::*;

use crate::error::PlanError;
use crate::expr::{RawExpr, expressions};

/// The keys of a join, which rows it has, and how columns of the right side are named.
#[pyclass(frozen, skip_from_py_object, module = "millstream._millstream")]
pub struct RawJoin(pub JoinCall);

#[pymethods]
impl RawJoin {
    /// Joins by columns that both sides have, or by expressions of each.
    #[new]
    fn new(
        on: Option<Vec<String>>,
        left_on: Vec<PyRef<'_, RawExpr>>,
        right_on: Vec<PyRef<'_, RawExpr>>,
        how: &str,
        suffix: String,
    ) -> PyResult<RawJoin> {
        let how = How::of(how).ok_or_else(|| PlanError::new_err(format!("no join has how={how:?}")))?;
        let on = match on {
            Some(names) => JoinOn::Columns(names),
            None => JoinOn::Expressions { left: expressions(&left_on), right: expressions(&right_on) },
        };
        Ok(RawJoin(JoinCall { on, how, suffix }))
    }
}
