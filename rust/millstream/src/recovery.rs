//! Opens the state directory of a job and finds what to continue from.

use std::sync::Arc;

use mill_connectors::left_sink;
use mill_plan::{Difference, Outline, PhysicalPlan, nearest};
use mill_protocol::{Ending, Error, Result};
use mill_runtime::{Changes, Comparison, PLAN_NOTE, check_mode};
use mill_snapshot::{Checkpoint, Disk, Store};

use crate::graph;
use crate::options::CheckpointOptions;
use crate::place::{self, Said, Scratch};

/// What a job starts with.
#[derive(Default)]
pub(crate) struct Recovered {
    pub(crate) store: Option<Store>,
    pub(crate) checkpoint: Option<Checkpoint>,
    pub(crate) notes: Vec<String>,
    /// Where a checkpoint of another place is, which sinks may still have to read from.
    pub(crate) scratch: Option<Scratch>,
}

/// Opens the state directory, if there is to be one. What the directory itself holds goes before `restore_from`, so
/// that the same script, run again, continues.
///
/// What has changed in the plan since then is among the notes.
///
/// # Errors
/// When the directory cannot be used, the plan cannot continue from what is there, or the job had finished and its plan is another one
/// now.
pub(crate) fn open(
    options: Option<&CheckpointOptions>,
    plan: &PhysicalPlan,
    disk: Arc<dyn Disk>,
    ending: &Ending,
    said: Said<'_>,
) -> Result<Recovered> {
    let Some(options) = options else { return Ok(Recovered::default()) };
    let mut notes = Vec::new();
    if let (true, Some(from)) = (options.restart, &options.restore_from)
        && place::is_same(&options.path, from)
    {
        return Err(Error::checkpoint(format!(
            "restart=True removes what {} holds, and restore_from= names the same directory; leave restart out to continue from it, \
             or take a savepoint elsewhere first",
            from.display()
        )));
    }
    let store = place::open(&options.path, options.restart, Arc::clone(&disk), ending, said)?;
    let mut checkpoint = store.latest_inspected(&mut notes, mill_state::inspect).map_err(failed)?;
    let mut scratch = None;
    if let (None, Some(from)) = (&checkpoint, &options.restore_from) {
        let looked = place::look(from, disk)?;
        checkpoint = Some(looked.store.restored(&mut notes).map_err(failed)?);
        scratch = looked.into_scratch();
    }
    if let Some(checkpoint) = &checkpoint {
        notes.extend(accepted(checkpoint, plan, options)?);
    }
    Ok(Recovered { store: Some(store), checkpoint, notes, scratch })
}

/// Checks that a job of this plan can continue from the newest checkpoint of a directory that another job may be using; nothing is
/// locked or changed. Returns whether there is one.
///
/// # Errors
/// As [`open`].
pub(crate) fn look(options: &CheckpointOptions, plan: &PhysicalPlan) -> Result<bool> {
    let newest = place::looking(&options.path, |store| store.latest(&mut Vec::new()).map_err(failed))?;
    let Some(newest) = newest else { return Ok(false) };
    accepted(&newest, plan, options)?;
    check_mode(&newest, graph::mode(options.mode))?;
    Ok(true)
}

/// What the user has said of differences between the plan and its checkpoint.
pub(crate) fn changes(plan: &PhysicalPlan, options: Option<&CheckpointOptions>) -> Changes {
    Changes {
        allow_new: options.map(|options| options.allow_new.clone()).unwrap_or_default(),
        drop: options.map(|options| options.drop.clone()).unwrap_or_default(),
        renamed: plan.renamed.clone(),
        left_sink: Some(left_sink),
        suggest: Some(|name, names| nearest(name, names.iter().copied()).into_iter().map(str::to_owned).collect()),
    }
}

/// How a plan and a checkpoint differ: in steps with state, and in the plan as the user wrote it.
pub(crate) struct Differences {
    pub(crate) states: Comparison,
    pub(crate) plan: Vec<Difference>,
}

impl Differences {
    pub(crate) fn find(checkpoint: &Checkpoint, plan: &PhysicalPlan, options: Option<&CheckpointOptions>) -> Result<Differences> {
        // Checkpoints of older versions keep no plan.
        let former = checkpoint.manifest().notes.get(PLAN_NOTE).and_then(|text| Outline::decode(text));
        let states = mill_runtime::compare(&graph::job_graph(plan), checkpoint, &changes(plan, options))?;
        let plan = former.map(|former| plan.outline.differences(&former, states.former())).unwrap_or_default();
        Ok(Differences { states, plan })
    }

    /// Whether nothing differs.
    pub(crate) fn is_none(&self) -> bool {
        self.plan.is_empty() && self.states.is_same()
    }

    /// All that differs and is accepted, a line each. What becomes of state is told after what the user has changed.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.plan.iter().map(|difference| difference.text.clone()).chain(self.states.notes()).collect()
    }
}

/// How the plan differs from the one that a checkpoint was taken with, a line each.
fn accepted(checkpoint: &Checkpoint, plan: &PhysicalPlan, options: &CheckpointOptions) -> Result<Vec<String>> {
    let differ = Differences::find(checkpoint, plan, Some(options))?;
    let id = checkpoint.id();
    if checkpoint.manifest().is_finished && !differ.is_none() {
        return Err(Error::checkpoint(finished(checkpoint, &differ)));
    }
    differ.states.check(checkpoint)?;
    Ok(differ.lines().into_iter().map(|change| format!("the plan has changed since checkpoint {id}: {change}")).collect())
}

/// Why a job that had finished does not continue with another plan.
pub(crate) fn finished(checkpoint: &Checkpoint, differ: &Differences) -> String {
    let lines: Vec<String> = differ.lines().into_iter().chain(differ.states.refusals()).collect();
    format!(
        "the job had finished with checkpoint {} in {}, and its plan has changed since: {}; start over with \
         mill.Checkpoint(…, restart=True), or give another directory",
        checkpoint.id(),
        checkpoint.location().display(),
        lines.join("; ")
    )
}

/// A failure of the state directory, as users see it.
pub(crate) fn failed(error: mill_snapshot::Error) -> Error {
    Error::checkpoint(error.to_string()).because(error)
}
