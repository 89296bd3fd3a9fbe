//! Rows of a checkpoint whose step had other aggregates.
//!
//! ```text
//!   former row   tag  key  n  sum of x, any  max of x, any
//!   row of now   tag  key  sum of x, any  n  mean of y           max is gone; mean starts empty
//! ```
//!
//! An aggregate that is in both has taken alike places in either row, in the same order, so its values are copied place by
//! place. All rows are rewritten once, when the checkpoint is restored; the next checkpoint has to be a full one, as the chunks
//! are others.

use arrow::datatypes::Schema;
use mill_plan::{AggregateKind, AggregateSpec, StageKind};
use mill_protocol::{Error, Restored, Result};
use mill_state::{Cursor, RowValues, Taken};

use super::Groups;
use super::groups::described;
use crate::description::{Description, Shape};
use crate::windows::{Aligned, shares_panes};

impl Groups {
    /// Whether rows of these aggregates are such as these groups have.
    pub(super) fn is_of(&self, former: &[AggregateSpec]) -> bool {
        is_alike(former, &self.recipe.aggregates, self.recipe.options.is_timed)
    }

    /// Takes up rows of other aggregates.
    pub(super) fn evolve(&mut self, restored: &Restored, former: &[AggregateSpec]) -> Result<()> {
        let mut old = Groups::new(&self.keys, &self.recipe.key_types, former, &self.recipe.options)?;
        old.restore_alike(restored)?;
        let all = &self.recipe.aggregates;
        // Names may come twice where the step has columns of its own before those of the user.
        let place = |index: usize| {
            let name = &all[index].name;
            let earlier = all[..index].iter().filter(|spec| spec.name == *name).count();
            (0..former.len()).filter(|&place| former[place].name == *name).nth(earlier)
        };
        // Where each of the former ones is now.
        let mut now: Vec<Option<usize>> = vec![None; former.len()];
        let mut copies: Vec<(Taken, Taken)> = Vec::new();
        let mut copy = |to: &[Taken], from: &[Taken]| match to.len() == from.len() {
            true => Ok(copies.extend(to.iter().copied().zip(from.iter().copied()))),
            false => Err(Error::internal(format!("an aggregate has {} places in a row and had {}", to.len(), from.len()))),
        };
        for index in 0..all.len() {
            if let Some(before) = place(index) {
                now[before] = Some(index);
                copy(&self.recipe.taken[index], &old.recipe.taken[before])?;
            }
        }
        // What is of no aggregate: the flag of rows that are yet to be emitted, and the tally.
        copy(&self.recipe.taken[self.recipe.aggregates.len()], &old.recipe.taken[former.len()])?;
        let (layout, of) = (self.panes.layout().clone(), old.panes.layout().clone());
        for pane in old.panes.starts().collect::<Vec<_>>() {
            self.panes.open(pane);
            let mut cursor = Cursor::default();
            while let Some(moved) = old.next_moved(pane, &mut cursor)? {
                let evolved = |before: &RowValues| {
                    let mut values = RowValues::new(&layout);
                    copies.iter().for_each(|&(to, from)| values.copy(&layout, to, before, &of, from));
                    values
                };
                self.put_moved(pane, moved.mapped(evolved, |accumulator| now[accumulator]))?;
            }
        }
        Ok(())
    }
}

fn is_alike(former: &[AggregateSpec], now: &[AggregateSpec], is_timed: bool) -> bool {
    former.len() == now.len() && former.iter().zip(now).all(|(a, b)| described(a, is_timed) == described(b, is_timed))
}

/// The aggregates whose rows a checkpoint has, if they are others than those of the plan.
pub(crate) fn former_aggregates(restored: &Restored) -> Result<Option<Vec<AggregateSpec>>> {
    match restored.bytes.first().filter(|_| restored.has_other_parts) {
        None => Ok(None),
        Some(bytes) => Ok(aggregates_of(Description::read(bytes)?.shape)),
    }
}

fn aggregates_of(shape: Shape) -> Option<Vec<AggregateSpec>> {
    match shape {
        Shape::Aggregate { aggregates, .. } | Shape::Sessions { aggregates, .. } | Shape::Triggered { aggregates, .. } => Some(aggregates),
        _ => None,
    }
}

/// Fails if a step cannot continue from the rows that another list of its aggregates has left, and says why.
pub(crate) fn check(kind: &StageKind, bytes: &[u8], has_other_aggregates: bool) -> Result<()> {
    let refused = |why: &str| Err(Error::checkpoint(format!("its aggregates cannot change: {why}")));
    let (now, is_timed) = match kind {
        StageKind::Aggregate { aggregates, .. } | StageKind::TriggeredAggregate { aggregates, .. } => (aggregates, false),
        StageKind::WindowAggregate { aggregates, .. } | StageKind::SessionAggregate { aggregates, .. } => (aggregates, true),
        StageKind::KeptWindow { .. } => return check_kept(kind, bytes, has_other_aggregates),
        _ => return Ok(()),
    };
    // Where nothing has changed nobody needs it; otherwise whoever restores fails.
    let Ok(Description { shape: former, .. }) = Description::read(bytes) else { return Ok(()) };
    let is_same_kind = match (kind, &former) {
        (StageKind::Aggregate { .. }, Shape::Aggregate { window, .. }) => window.is_none(),
        (StageKind::WindowAggregate { window, aggregates, .. }, Shape::Aggregate { window: Some(_), aggregates: of, .. }) => {
            let windows = Aligned::of(window);
            if shares_panes(&windows, aggregates) != shares_panes(&windows, of) {
                return refused("one of them cannot be combined out of panes, so these windows would be kept in another way");
            }
            true
        }
        (StageKind::SessionAggregate { .. }, Shape::Sessions { .. }) => true,
        (StageKind::TriggeredAggregate { .. }, Shape::Triggered { .. }) => true,
        _ => false,
    };
    let Some(former) = aggregates_of(former).filter(|_| is_same_kind) else {
        return refused("with one of them these windows keep their records, and without it they keep none");
    };
    if is_alike(&former, now, is_timed) {
        return Ok(());
    }
    if former.iter().chain(now).any(|spec| matches!(spec.kind, AggregateKind::NUnique)) {
        return refused("n_unique() keeps a table of its own beside the rows");
    }
    Ok(())
}

/// The same of windows that keep records. What aggregates are made of was computed when a record came: a new one would find the columns of
/// another, which may mean something else.
fn check_kept(kind: &StageKind, bytes: &[u8], has_other_aggregates: bool) -> Result<()> {
    let StageKind::KeptWindow { records, .. } = kind else { return Ok(()) };
    let is_of = |former: &Schema| {
        let named = |schema: &Schema| schema.fields().iter().map(|field| (field.name().clone(), field.data_type().clone())).collect::<Vec<_>>();
        named(former) == named(records)
    };
    match Description::read(bytes).map(|description| description.shape) {
        Ok(Shape::Kept { records: former, .. }) if has_other_aggregates || !is_of(&former) => {
            Err(Error::checkpoint("its aggregates cannot change: these windows keep the columns that they need of records, and would need others"))
        }
        Ok(Shape::Kept { .. }) | Err(_) => Ok(()),
        Ok(_) => Err(Error::checkpoint("its aggregates cannot change: with one of them these windows keep their records, and without it they keep none")),
    }
}
