//! The plan as text.

use super::PhysicalPlan;

impl PhysicalPlan {
    /// The plan as a tree for people to read.
    pub fn explain(&self) -> String {
        format!("{self:?}")
    }
}
