//! Inspects a state directory without running anything.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use mill_frame::schema::{TYPE_KEY, TYPE_OBJECT};
use mill_operators::has_keyed_state;
use mill_plan::{DifferenceKind, SinkNode, lower, nearest};
use mill_protocol::{Error, Result};
use mill_runtime::{Verdict, check_mode};
use mill_snapshot::{Checkpoint, CheckpointInfo, RealDisk, Store, VerifyReport};

use crate::{graph, place};
use crate::job::plan_options;
use crate::options::{CheckpointOptions, Options};
use crate::recovery::{Differences, failed, finished};

/// The checkpoints in a state directory, oldest first. Does not lock it, so a job may be running on it.
///
/// # Errors
/// When there is no state directory at this path, or it cannot be read.
pub fn checkpoints(path: &Path) -> Result<Vec<CheckpointInfo>> {
    place::looking(path, |store| store.list().map_err(failed))
}

/// Reads every byte of a state directory and tells what is damaged.
///
/// # Errors
/// When there is no state directory at this path, or it cannot be read.
pub fn verify(path: &Path) -> Result<VerifyReport> {
    place::looking(path, |store| mill_snapshot::verify_all(store).map_err(failed))
}

/// State that is pickled Python objects, which whoever continues from the directory unpickles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pickled {
    /// The checkpoint.
    pub checkpoint: u64,
    /// The name of the step.
    pub step: String,
    /// The part of its state.
    pub state: String,
}

/// The pickled state in a state directory or savepoint: all of it, in every checkpoint, in that order. Nothing is unpickled.
///
/// # Errors
/// When there is no state directory at this path, it cannot be read, or a checkpoint is damaged.
pub fn pickled_state(path: &Path) -> Result<Vec<Pickled>> {
    place::looking(path, pickled_state_of)
}

fn pickled_state_of(store: &Store) -> Result<Vec<Pickled>> {
    let mut ids: Vec<u64> = store.list().map_err(failed)?.into_iter().map(|info| info.id).collect();
    ids.sort_unstable();
    let mut found = Vec::new();
    for id in ids {
        let checkpoint = store.checkpoint(id).map_err(failed)?;
        for (uid, entry) in &checkpoint.manifest().operators {
            let mut states = match mill_operators::pickled_state(&checkpoint.restored(uid, 0..0).0) {
                Ok(states) => states,
                Err(error) => vec![format!("state that cannot be described ({})", error.message())],
            };
            if checkpoint.handles(uid).iter().any(|(_, handle)| has_object_columns(handle)) {
                states.push("rows kept for the sink, with columns of type object".to_owned());
            }
            let of_step = |state| Pickled { checkpoint: id, step: entry.name.clone(), state };
            found.extend(states.into_iter().map(of_step));
        }
    }
    Ok(found)
}

/// Whether what a sink keeps are rows with columns of type object: a schema says so in these words.
fn has_object_columns(handle: &[u8]) -> bool {
    let has = |word: &[u8]| handle.windows(word.len()).any(|window| window == word);
    has(TYPE_KEY.as_bytes()) && has(TYPE_OBJECT.as_bytes())
}

/// The keyed state of a step, as the newest checkpoint or the one with this number has it: a row a key, or a key and
/// open window, with the results as of that moment. Rows come in any order. Does not lock the directory.
///
/// A step is known by its name or by the identity of its state. Aggregates of the user's own are given as their bytes.
///
/// # Errors
/// When there is no such checkpoint or step, or the step keeps no keyed state.
pub fn read_state(path: &Path, step: &str, id: Option<u64>) -> Result<RecordBatch> {
    let checkpoint = place::looking(path, |store| match id {
        Some(id) => store.checkpoint(id).map(Some).map_err(failed),
        None => store.latest(&mut Vec::new()).map_err(failed),
    })?;
    let checkpoint = checkpoint.ok_or_else(|| {
        Error::checkpoint(format!("no checkpoint was ever completed in {}", path.display()))
    })?;
    let uid = identity(&checkpoint, step)?;
    let (bytes, blocks) = checkpoint.restored(uid, ALL_GROUPS);
    if !has_keyed_state(&bytes) {
        return Err(Error::checkpoint(format!("step {step:?} keeps no keyed state; {}", readable(&checkpoint))));
    }
    mill_operators::read_state(&bytes, &blocks).map_err(|error| error.in_step(step))
}

/// What would become of a job that continues from a checkpoint with this plan.
#[derive(Clone, Debug)]
pub struct PlanDiff {
    /// The checkpoint.
    pub checkpoint: u64,
    /// Where it is.
    pub path: PathBuf,
    /// The steps: those of the plan in its order, then those that are gone.
    pub steps: Vec<StepDiff>,
    /// Why the job would be refused; empty if it would not.
    pub refusals: Vec<String>,
}

/// What becomes of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepDiff {
    /// Its name.
    pub step: String,
    /// `kept`, `changed`, `new`, `gone`, `dropped` (it is gone, with its state) or `refused`.
    pub change: &'static str,
    /// What differs, and what to do about it if it is refused; empty for a step that is kept.
    pub text: String,
}

/// Compares a plan with the checkpoint that a run with these options would continue from, or the one with this number. Nothing runs,
/// and nothing is locked or written: a job may be running on the directory.
///
/// Inputs, and what is at the targets of sinks, are looked at when a job starts, not here.
///
/// # Errors
/// When there is no checkpoint, or the plan does not hold together.
pub fn diff(sinks: &[SinkNode], options: &Options, id: Option<u64>) -> Result<PlanDiff> {
    options.check()?;
    let plan = lower(sinks, &plan_options(options)?)?;
    let Some(settings) = &options.checkpoint else {
        return Err(Error::plan("there is nothing to compare the plan with: the job has no checkpoint"));
    };
    if settings.restart && settings.restore_from.is_none() && id.is_none() {
        return Err(Error::plan("there is nothing to compare the plan with: with restart=True the job would start over"));
    }
    let checkpoint = found(settings, id)?;
    check_mode(&checkpoint, graph::mode(settings.mode))?;
    let differ = Differences::find(&checkpoint, &plan, Some(settings))?;
    let mut names: Vec<&str> = Vec::new();
    let all = plan.outline.steps().chain(differ.states.steps.iter().map(|step| step.step.as_str()));
    for name in all.chain(differ.plan.iter().map(|difference| difference.step.as_str())) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let is_finished = checkpoint.manifest().is_finished && !differ.is_none();
    Ok(PlanDiff {
        checkpoint: checkpoint.id(),
        path: checkpoint.location().to_owned(),
        steps: names.into_iter().map(|name| step_diff(name, &differ)).collect(),
        refusals: if is_finished { vec![finished(&checkpoint, &differ)] } else { differ.states.refusals() },
    })
}

/// The checkpoint that a run would continue from, or one of the directory.
fn found(settings: &CheckpointOptions, id: Option<u64>) -> Result<Checkpoint> {
    // A running job removes old checkpoints: the newest one may be another a moment later.
    let mut outcome = find(settings, id);
    for _ in 0..2 {
        if outcome.is_ok() {
            break;
        }
        outcome = find(settings, id);
    }
    outcome
}

fn find(settings: &CheckpointOptions, id: Option<u64>) -> Result<Checkpoint> {
    let disk = || Arc::new(RealDisk);
    let own = match (id, place::look(&settings.path, disk())) {
        (None, _) if settings.restart => None,
        (Some(id), looked) => Some(looked?.store.checkpoint(id).map_err(failed)?),
        (None, Ok(looked)) => looked.store.latest(&mut Vec::new()).map_err(failed)?,
        // A run makes the directory where there is none; anything else in its place stops it.
        (None, Err(_)) if settings.restore_from.is_some() && is_nothing(&settings.path) => None,
        (None, Err(error)) => return Err(error),
    };
    match (own, &settings.restore_from) {
        (Some(own), _) => Ok(own),
        (None, Some(from)) => place::look(from, disk())?.store.restored(&mut Vec::new()).map_err(failed),
        (None, None) => Err(Error::checkpoint(format!("no checkpoint was ever completed in {}", settings.path.display()))),
    }
}

fn is_nothing(path: &Path) -> bool {
    if place::is_remote(path) {
        return place::is_nothing(path);
    }
    match std::fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}

fn step_diff(name: &str, differ: &Differences) -> StepDiff {
    let states = || differ.states.steps.iter().filter(|step| step.step == name);
    let plan = || differ.plan.iter().filter(|difference| difference.step == name);
    let is = |verdict: Verdict| states().any(|step| step.verdict == verdict);
    let has = |kind: DifferenceKind| plan().any(|difference| difference.kind == kind);
    let change = if is(Verdict::Refused) {
        "refused"
    } else if is(Verdict::Dropped) && !is(Verdict::Kept) {
        "dropped"
    } else if is(Verdict::New) || (has(DifferenceKind::New) && !is(Verdict::Changed)) {
        "new"
    } else if is(Verdict::Changed) || has(DifferenceKind::Changed) {
        "changed"
    } else if has(DifferenceKind::Gone) || is(Verdict::Gone) {
        "gone"
    } else {
        "kept"
    };
    let texts = plan().map(|difference| &difference.text).chain(states().map(|step| &step.text));
    let texts: Vec<&str> = texts.map(String::as_str).filter(|text| !text.is_empty()).collect();
    StepDiff { step: name.to_owned(), change, text: texts.join("; ") }
}

/// The key groups of all instances.
const ALL_GROUPS: std::ops::Range<u16> = 0..128;

/// The identity of the state of a step, by its name or by itself.
fn identity<'a>(checkpoint: &'a Checkpoint, step: &str) -> Result<&'a str> {
    let operators = &checkpoint.manifest().operators;
    let by_name = operators.iter().find(|(_, entry)| entry.name == step);
    if let Some((uid, _)) = by_name.or_else(|| operators.get_key_value(step)) {
        return Ok(uid);
    }
    let near: Vec<String> = nearest(step, operators.values().map(|entry| entry.name.as_str()))
        .into_iter()
        .map(|name| format!("{name:?}"))
        .collect();
    let hint = if near.is_empty() { String::new() } else { format!("did you mean {}? ", near.join(" or ")) };
    Err(Error::checkpoint(format!(
        "there is no step {step:?} in checkpoint {}; {hint}{}",
        checkpoint.id(),
        readable(checkpoint)
    )))
}

/// Names the steps that can be read.
fn readable(checkpoint: &Checkpoint) -> String {
    let operators = checkpoint.manifest().operators.iter();
    let names: Vec<&str> = operators
        .filter(|(uid, _)| has_keyed_state(&checkpoint.restored(uid, 0..0).0))
        .map(|(_, entry)| entry.name.as_str())
        .collect();
    match names.is_empty() {
        true => "no step of this checkpoint keeps keyed state".to_owned(),
        false => format!("steps with keyed state: {}", names.join(", ")),
    }
}
