//! Compares a plan with the checkpoint that it is to continue from, step by step.
//!
//! ```text
//!   checkpoint: totals ── old ── window        allow_new, drop and new names say what the user wants
//!   plan:       totals ── new ── window   ─►   kept   renamed or new and dropped   refused: all in one error
//! ```
//!
//! It never guesses (I4, I6): a step whose state the plan no longer has, a step that is new, and a step that was changed are
//! refused unless the user has named them, and all of them are in one report. The runtime knows what has state by the
//! signature: a step without one has none to lose.
//!
//! A step is found by its identity. A renamed step is found under its former one, and so are the steps whose identities begin
//! with its name. Names may change hands, as when two steps swap them; so the checkpoint notes which renames the plan that took it
//! named, and those are not made again. State under another identity, or of other aggregates, is in no segment of the checkpoint in
//! the form in which the next one needs it: so that one is full.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use mill_protocol::{Error, Result, Sink};
use mill_snapshot::{Checkpoint, OperatorEntry, OperatorInfo};

use crate::graph::{JobGraph, StageBody, StateCheck};
use crate::storage::{DROPPED_NOTE, RENAMED_NOTE, sink_notes_of};

/// Which steps with state may be new.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AllowNew {
    /// None.
    #[default]
    Nothing,
    /// All.
    Everything,
    /// Those with these names, and aggregates as `"step.column"`.
    Named(Vec<String>),
}

/// What a user has said of the differences between the plan and its checkpoint.
#[derive(Clone, Default)]
pub struct Changes {
    /// Which steps with state, and aggregates, may be new: they start empty.
    pub allow_new: AllowNew,
    /// The steps that are gone, and aggregates as `"step.column"`, whose state is dropped.
    pub drop: Vec<String>,
    /// Steps with a new name, and the name or identity that they had.
    pub renamed: Vec<(String, String)>,
    /// Makes a sink that can commit, of what one that is gone has handed over.
    pub left_sink: Option<fn(&str) -> Option<Arc<dyn Sink>>>,
    /// Finds the names that a wrong one may stand for.
    pub suggest: Option<fn(&str, &[&str]) -> Vec<String>>,
}

/// What becomes of the state of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is restored.
    Kept,
    /// It is restored, but for what the text says.
    Changed,
    /// There is none: the step starts empty.
    New,
    /// It is dropped.
    Dropped,
    /// The step is gone, and what was pending of it is committed.
    Gone,
    /// The job is refused.
    Refused,
}

/// A step, and what becomes of its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepVerdict {
    /// The name of the step.
    pub step: String,
    /// What becomes of its state.
    pub verdict: Verdict,
    /// What differs, and what to do about it if it is refused; empty if nothing does.
    pub text: String,
}

/// How a plan and a checkpoint differ.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    /// The steps with state: those of the plan in its order, then those that are in the checkpoint alone.
    pub steps: Vec<StepVerdict>,
    /// Names in what the user has said that stand for nothing.
    pub mistakes: Vec<String>,
    /// The identities that steps had in the checkpoint, where they have another one now.
    pub(crate) former: HashMap<String, String>,
    /// Steps that begin empty though the checkpoint has something under their identity.
    pub(crate) fresh: HashSet<String>,
    /// Steps with other aggregates than in the checkpoint.
    pub(crate) evolved: HashSet<String>,
    /// What was dropped now, or before and is still named, so that the same script can run again.
    pub(crate) dropped: BTreeSet<String>,
    /// The identities under which the targets of sinks know them, where those are others than the ones they have now.
    pub(crate) identities: HashMap<String, String>,
    /// Sinks that are gone, and whose output is still to be committed: identity and name in the checkpoint, and what can commit it.
    pub(crate) left: Vec<(String, String, LeftSink)>,
    /// Whether output that no sink has committed is dropped.
    pub(crate) is_output_dropped: bool,
    /// Whether the next checkpoint has to be full.
    pub(crate) is_rewritten: bool,
}

/// A sink that only commits.
#[derive(Clone)]
pub(crate) struct LeftSink(pub(crate) Arc<dyn Sink>);

impl fmt::Debug for LeftSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.name())
    }
}

impl Comparison {
    /// The identities that steps had in the checkpoint, where they have another one now.
    pub fn former(&self) -> &HashMap<String, String> {
        &self.former
    }

    /// What differs and is accepted, a line each.
    pub fn notes(&self) -> Vec<String> {
        let told = self.steps.iter().filter(|step| !matches!(step.verdict, Verdict::Kept | Verdict::Refused));
        told.map(|step| format!("{}: {}", step.step, step.text)).collect()
    }

    /// Whether nothing differs.
    pub fn is_same(&self) -> bool {
        self.mistakes.is_empty() && self.steps.iter().all(|step| step.verdict == Verdict::Kept)
    }

    /// What keeps the plan from going on, a line each.
    pub fn refusals(&self) -> Vec<String> {
        let refused = self.steps.iter().filter(|step| step.verdict == Verdict::Refused);
        refused.map(|step| step.text.clone()).chain(self.mistakes.iter().cloned()).collect()
    }

    /// Fails if anything keeps the plan from going on, with all of it.
    ///
    /// # Errors
    /// Names the steps, and says what to do.
    pub fn check(&self, checkpoint: &Checkpoint) -> Result<()> {
        let refusals = self.refusals();
        if refusals.is_empty() {
            return Ok(());
        }
        Err(Error::checkpoint(format!(
            "checkpoint {} in {} is of another plan:\n  {}\nor run the plan it was taken with, start over with \
             mill.Checkpoint(…, restart=True), or give another directory",
            checkpoint.id(),
            checkpoint.location().display(),
            refusals.join("\n  ")
        )))
    }
}

/// Compares a plan with a checkpoint.
///
/// # Errors
/// When a note of the checkpoint is damaged.
pub fn compare(graph: &JobGraph, checkpoint: &Checkpoint, changes: &Changes) -> Result<Comparison> {
    let stored = &checkpoint.manifest().operators;
    let steps = steps(graph);
    let former_drops = dropped(checkpoint)?;
    let named: BTreeSet<String> = changes.drop.iter().cloned().collect();
    let mut comparing = Comparing {
        current: steps.iter().map(|step| step.info.uid.as_str()).collect(),
        used: HashSet::new(),
        // What is named no longer is forgotten, so that it can be dropped again one day.
        found: Comparison { dropped: former_drops.intersection(&named).cloned().collect(), ..Comparison::default() },
        spent: former_drops,
        steps: &steps,
        stored,
        checkpoint,
        changes,
    };
    comparing.find_renamed(&renames_made(checkpoint)?);
    comparing.find_identities()?;
    comparing.check_targets()?;
    let mut claimed: HashSet<&str> = HashSet::new();
    for step in &steps {
        let former = comparing.former(step);
        claimed.extend(former.and_then(|former| stored.get_key_value(&former)).map(|(uid, _)| uid.as_str()));
        comparing.compare(step);
    }
    let gone: Vec<(&String, &OperatorEntry)> = stored.iter().filter(|(uid, _)| !claimed.contains(uid.as_str())).collect();
    for (uid, entry) in &gone {
        comparing.gone(uid, entry);
    }
    comparing.check_names();
    Ok(comparing.found)
}

/// Fails if the user names steps that are not there, where there is no checkpoint.
///
/// # Errors
/// Names them.
pub(crate) fn check_without_checkpoint(graph: &JobGraph, changes: &Changes) -> Result<()> {
    let steps = steps(graph);
    let mut mistakes = unknown_new(&steps, changes);
    mistakes.extend(changes.drop.iter().map(|name| format!("drop=[{name:?}]: there is no checkpoint yet that has it; leave it out")));
    if mistakes.is_empty() { Ok(()) } else { Err(Error::checkpoint(mistakes.join("\n  "))) }
}

/// A step of the plan as the manifest names it.
pub(crate) struct Current {
    pub(crate) info: OperatorInfo,
    is_source: bool,
    sink: Option<Arc<dyn Sink>>,
    check: Option<StateCheck>,
}

/// All steps as a manifest names them. A source's signature says that it has positions, and whether they come to an end.
pub(crate) fn steps(graph: &JobGraph) -> Vec<Current> {
    let mut found: Vec<Current> = Vec::new();
    for chain in &graph.chains {
        let parallelism = chain.parallelism as u32;
        if let Some(source) = &chain.source {
            // A bounded and an endless input of the same files are two plans: the one ends, the other goes on.
            let is_bounded = source.source.properties().is_bounded;
            let signature = if is_bounded { "bounded input" } else { "unbounded input" }.to_owned();
            let (uid, name) = (source.uid.clone(), source.name.clone());
            let info = OperatorInfo { uid, name, signature, parallelism, parts: Vec::new() };
            found.push(Current { info, is_source: true, sink: None, check: None });
        }
        for stage in &chain.stages {
            let sink = if let StageBody::Sink { sink, .. } = &stage.body { Some(Arc::clone(sink)) } else { None };
            let signature = if sink.is_some() { String::new() } else { stage.signature.clone() };
            let (uid, name, parts) = (stage.uid.clone(), stage.name.clone(), stage.parts.clone());
            let info = OperatorInfo { uid, name, signature, parallelism, parts };
            found.push(Current { info, is_source: false, sink, check: stage.check.clone() });
        }
    }
    found
}

struct Comparing<'a> {
    steps: &'a [Current],
    current: HashSet<&'a str>,
    stored: &'a BTreeMap<String, OperatorEntry>,
    checkpoint: &'a Checkpoint,
    changes: &'a Changes,
    /// The names in `drop` that stand for something.
    used: HashSet<String>,
    /// What former runs have dropped: a name that is still there from then allows nothing.
    spent: BTreeSet<String>,
    found: Comparison,
}

impl Comparing<'_> {
    /// The identity that a step has in the checkpoint, if it is there. Output that is not committed is that of a sink alone.
    fn former(&self, step: &Current) -> Option<String> {
        let uid = step.info.uid.as_str();
        let former = self.found.former.get(uid).map_or(uid, String::as_str);
        let is_its_own = step.sink.is_some() || !self.is_pending(former);
        (self.stored.contains_key(former) && is_its_own).then(|| former.to_owned())
    }

    /// Whether the checkpoint has output of this step that is not known to be committed.
    fn is_pending(&self, uid: &str) -> bool {
        !self.checkpoint.handles(uid).is_empty() && !self.checkpoint.is_settled()
    }

    /// Finds under which identities targets know the sinks: those with which they have begun, whatever was renamed since.
    fn find_identities(&mut self) -> Result<()> {
        let notes = sink_notes_of(self.checkpoint.manifest())?;
        let mut owners: HashMap<String, &str> = HashMap::new();
        for step in self.steps.iter().filter(|step| step.sink.is_some()) {
            let uid = &step.info.uid;
            let former = self.found.former.get(uid).unwrap_or(uid);
            let identity = notes.get(former).and_then(|note| note.identity.as_ref()).unwrap_or(former);
            if let Some(other) = owners.insert(identity.clone(), &step.info.name) {
                self.found.mistakes.push(format!(
                    "{}: its target could not tell it from {other:?}, which had this identity ({identity}) before a step was renamed; \
                     give one of the two sinks, if it is new, another name",
                    step.info.name
                ));
            }
            if identity != uid {
                self.found.identities.insert(uid.clone(), identity.clone());
            }
        }
        Ok(())
    }

    /// Refuses sinks that write elsewhere than in the checkpoint.
    fn check_targets(&mut self) -> Result<()> {
        let notes = sink_notes_of(self.checkpoint.manifest())?;
        for step in self.steps {
            let Some((sink, former)) = step.sink.as_ref().zip(self.former(step)) else { continue };
            let was = notes.get(&former).and_then(|note| note.target.as_ref());
            if let Some(Err(error)) = was.map(|was| sink.check_target(was)) {
                let name = &step.info.name;
                self.tell(name, Verdict::Refused, format!("changed: {name}: {}", error.message()));
            }
        }
        Ok(())
    }

    /// Finds the steps that have another name than in the checkpoint. What was renamed before is not renamed again.
    fn find_renamed(&mut self, made: &BTreeSet<(String, String)>) {
        let identity = |was: &String| {
            let by_name = || self.stored.iter().find(|(_, entry)| entry.name == *was);
            self.stored.get_key_value(was).or_else(by_name).map(|(uid, _)| uid.as_str())
        };
        let left = self.changes.renamed.iter().filter(|renamed| !made.contains(renamed));
        let wanted: Vec<(&str, &str, Option<&str>)> = left.map(|(name, was)| (name.as_str(), was.as_str(), identity(was))).collect();
        let moves = self.moves(&wanted);
        let mut taken: HashMap<&str, &str> = HashMap::new();
        for (name, was, old) in wanted {
            let call = format!("name({name:?}, was={was:?})");
            let is_move = moves.contains_key(name);
            if self.stored.contains_key(name) && !is_move {
                // It was renamed before, and the former name is free or that of another step since. Anything else is a guess.
                let is_renamed = |old: &str| self.changes.renamed.iter().any(|(name, _)| name == old);
                if old.is_some_and(|old| old != name && (!self.current.contains(old) || is_renamed(old))) {
                    self.found.mistakes.push(format!(
                        "{call}: the checkpoint has both {name:?} and {was:?}, and no step of the plan continues from {name:?}; rename to a name \
                         that is free, and leave was= out if it was renamed before"
                    ));
                }
                continue;
            }
            let Some(old) = old else {
                let names: Vec<&str> = self.stored.values().map(|entry| entry.name.as_str()).collect();
                self.found.mistakes.push(format!("{call}: the checkpoint has no step {was:?}{}", self.near(was, &names)));
                continue;
            };
            if self.current.contains(old) && !moves.contains_key(old) {
                self.found.mistakes.push(format!("{call}: {was:?} is another step of this plan, which has that state"));
                continue;
            }
            if let Some(other) = taken.insert(old, name) {
                self.found.mistakes.push(format!("{call}: step {other:?} continues from {was:?} already"));
                continue;
            }
            self.rename(name, old, &call);
        }
    }

    /// The renames that can be made, by the new name. One to a name that the checkpoint has needs another one that takes that over,
    /// and one from a name that the plan has needs another one that gives it a new owner: so two steps may swap their names.
    fn moves<'w>(&self, wanted: &[(&'w str, &'w str, Option<&'w str>)]) -> HashMap<&'w str, &'w str> {
        let mut moves: HashMap<&str, &str> =
            wanted.iter().filter_map(|&(name, _, old)| Some((name, old.filter(|&old| old != name)?))).collect();
        loop {
            let is_free = |name: &str| !self.stored.contains_key(name) || moves.values().any(|&old| old == name);
            let is_left = |old: &str| !self.current.contains(old) || moves.contains_key(old);
            let left: HashMap<&str, &str> =
                moves.iter().filter(|(name, old)| is_free(name) && is_left(old)).map(|(name, old)| (*name, *old)).collect();
            if left.len() == moves.len() {
                return left;
            }
            moves = left;
        }
    }

    /// Finds the steps whose identities begin or end with a name under what they had with the former one.
    fn rename(&mut self, name: &str, old: &str, call: &str) {
        // Whatever the checkpoint has under the name is that of the step that had it.
        let is_handed_on = self.stored.contains_key(name);
        let (head, tail) = (format!("{name}/"), format!("/{name}"));
        for step in self.steps {
            let uid = &step.info.uid;
            let candidate = match (uid.strip_prefix(&head), uid.strip_suffix(&tail)) {
                _ if uid == name => old.to_owned(),
                (Some(rest), _) => format!("{old}/{rest}"),
                (None, Some(rest)) => format!("{rest}/{old}"),
                (None, None) => continue,
            };
            let (is_known, is_found) = (self.stored.contains_key(uid), self.stored.contains_key(&candidate));
            if is_known && is_handed_on || !is_known && is_found {
                self.found.former.insert(uid.clone(), candidate);
                self.found.is_rewritten = true;
            } else if is_known && is_found && !self.current.contains(candidate.as_str()) {
                self.found.mistakes.push(format!("{call}: the checkpoint has both {uid:?} and {candidate:?}; rename to a name that is free"));
            }
        }
    }

    /// A signature with the identities of input streams, which those of joins have, as they are in the checkpoint.
    fn as_before(&self, signature: &str) -> String {
        let (mut text, mut rest) = (String::with_capacity(signature.len()), signature);
        while let Some(at) = rest.find([';', ',']).filter(|_| !self.found.former.is_empty()) {
            let (before, after) = rest.split_at(at + 1);
            text.push_str(before);
            rest = after;
            let Some(place) = after.strip_prefix(' ') else { continue };
            let is_whole = |uid: &&String| place.strip_prefix(uid.as_str()).is_some_and(|after| after.starts_with([',', ')']));
            if let Some((uid, former)) = self.found.former.iter().find(|(uid, _)| is_whole(uid)) {
                text.push(' ');
                text.push_str(former);
                rest = &place[uid.len()..];
            }
        }
        text + rest
    }

    fn compare(&mut self, step: &Current) {
        let info = &step.info;
        let Some(former) = self.former(step) else {
            if self.stored.contains_key(self.found.former.get(&info.uid).unwrap_or(&info.uid)) {
                self.found.fresh.insert(info.uid.clone());
                self.found.is_rewritten = true;
            }
            if !info.signature.is_empty() {
                self.new(step);
            }
            return;
        };
        let entry = &self.stored[&former];
        let renamed = (former != info.uid && entry.name != info.name).then(|| format!("its name was {:?}", entry.name));
        if info.signature.is_empty() && entry.signature.is_empty() {
            // A stage without state has nothing that a name could lead to, a sink what it has written.
            if let Some(text) = renamed.filter(|_| step.sink.is_some() && entry.name != info.name) {
                self.tell(&info.name, Verdict::Changed, text);
            }
            return;
        }
        let signature = self.as_before(&info.signature);
        if entry.signature != signature {
            let is_same_but_parts = !info.parts.is_empty()
                && !entry.parts.is_empty()
                && skeleton(&signature, &info.parts) == skeleton(&entry.signature, &entry.parts);
            match is_same_but_parts {
                true => self.parts(step, entry, &former, renamed),
                false => self.changed(step, entry),
            }
            return;
        }
        if self.refuse_unfit(step, &former, false) {
            return;
        }
        match renamed {
            Some(text) => self.tell(&info.name, Verdict::Changed, text),
            None => self.tell(&info.name, Verdict::Kept, String::new()),
        }
    }

    /// Refuses a step whose operator cannot continue from what is stored, which says why.
    fn refuse_unfit(&mut self, step: &Current, former: &str, has_other_parts: bool) -> bool {
        let bytes = self.checkpoint.restored(former, 0..0).0;
        let Some(Err(error)) = step.check.as_ref().map(|check| (check.0)(&bytes, has_other_parts)) else { return false };
        let name = &step.info.name;
        if self.replace(step) {
            return true;
        }
        self.tell(name, Verdict::Refused, format!("changed: {name}: {}; {}", error.message(), self.start_empty(step)));
        true
    }

    fn new(&mut self, step: &Current) {
        let name = &step.info.name;
        if self.is_allowed(name) {
            self.tell(name, Verdict::New, began(step).to_owned());
            return;
        }
        let is_gone = |uid: &String| !self.current.contains(uid.as_str()) && !self.found.former.values().any(|it| it == uid);
        // Perhaps it has only another name.
        let is_alike = |(uid, entry): &(&String, &OperatorEntry)| entry.signature == step.info.signature && is_gone(uid);
        // Steps without names that are in one place are told apart by what they read, and by what reads them.
        let place = |uid: &str| uid.rsplit_once('~').map(|(place, _)| place.to_owned());
        let is_there = |(uid, _): &(&String, &OperatorEntry)| {
            let (here, there) = (place(&step.info.uid), place(uid));
            (here.is_some() || there.is_some())
                && here.as_deref().unwrap_or(&step.info.uid) == there.as_deref().unwrap_or(uid)
                && is_gone(uid)
        };
        let there: Vec<&str> = self.stored.iter().filter(is_there).map(|(_, entry)| entry.name.as_str()).collect();
        let hint = match self.stored.iter().find(is_alike) {
            _ if !there.is_empty() => format!(
                "; steps without a name that are alike are told apart by what they read and what reads them, and that has changed: \
                 .name(\"…\", was={}) keeps what the checkpoint has of it",
                there.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(" or was=")
            ),
            Some((_, entry)) if entry.name != *name => {
                format!(", or .name({name:?}, was={:?}) if it is that step under a new name", entry.name)
            }
            _ => String::new(),
        };
        let what = if step.is_source { "be read from its beginning" } else { "start empty" };
        self.tell(
            name,
            Verdict::Refused,
            format!("not in the checkpoint: {name}, which would {what}; allow_new=[{name:?}] lets it{hint}"),
        );
    }

    fn changed(&mut self, step: &Current, entry: &OperatorEntry) {
        if self.replace(step) {
            return;
        }
        let (name, was, is) = (&step.info.name, or_nothing(&entry.signature), or_nothing(&step.info.signature));
        self.tell(name, Verdict::Refused, format!("changed: {name} (was {was}, is {is}); {}", self.start_empty(step)));
    }

    /// Lets a step start empty whose former state is dropped, if both are wanted. Where it keeps no state there is nothing to start.
    fn replace(&mut self, step: &Current) -> bool {
        let (name, is_stateless) = (&step.info.name, step.info.signature.is_empty());
        if !self.may_drop(name) {
            return false;
        }
        self.used.insert(name.clone());
        if !is_stateless && !self.is_allowed(name) {
            return false;
        }
        self.found.dropped.insert(name.clone());
        self.found.fresh.insert(step.info.uid.clone());
        self.found.is_rewritten = true;
        match is_stateless {
            true => self.tell(name, Verdict::Changed, "the state of its former form is dropped, and it keeps none".to_owned()),
            false => self.tell(name, Verdict::New, format!("the state of its former form is dropped, and it {}", began(step))),
        }
        true
    }

    /// Whether the user drops this, and not just because a former run of the same script did.
    fn may_drop(&self, name: &str) -> bool {
        self.changes.drop.iter().any(|drop| drop == name) && !self.spent.contains(name)
    }

    /// How to drop this: a name that a former run used up says nothing about what has come since.
    fn how_to_drop(&self, name: &str) -> String {
        match self.spent.contains(name) {
            true => format!(
                "drop=[{name:?}] was used up by a former run; once the former plan has run without it, drop=[{name:?}]"
            ),
            false => format!("drop=[{name:?}]"),
        }
    }

    fn start_empty(&self, step: &Current) -> String {
        let name = &step.info.name;
        match step.info.signature.is_empty() {
            true => format!("{} drops its state", self.how_to_drop(name)),
            false => format!("{} with allow_new=[{name:?}] drops its state and lets it start empty", self.how_to_drop(name)),
        }
    }

    /// Compares the aggregates of a step that is the same in everything else.
    fn parts(&mut self, step: &Current, entry: &OperatorEntry, former: &str, renamed: Option<String>) {
        if self.replace(step) {
            return;
        }
        let name = &step.info.name;
        let (mut told, mut refused): (Vec<String>, Vec<String>) = (renamed.into_iter().collect(), Vec::new());
        let find = |parts: &[(String, String)], column: &str| parts.iter().find(|(of, _)| of == column).map(|(_, what)| what.clone());
        for (column, what) in &step.info.parts {
            let full = format!("{name}.{column}");
            match find(&entry.parts, column) {
                Some(was) if was == *what => {}
                Some(was) => refused.push(format!(
                    "changed: {name}: aggregate {column} was {was}, is {what}; give the new one another name, and {} drops the former one; \
                     or {}",
                    self.how_to_drop(&full),
                    self.start_empty(step)
                )),
                None if self.is_allowed(&full) => told.push(format!("aggregate {what} is new and starts empty")),
                None => refused.push(format!(
                    "changed: {name}: aggregate {what} is new and would start empty, so it would count other records than the others; \
                     allow_new=[{full:?}] lets it"
                )),
            }
        }
        for (column, what) in entry.parts.iter().filter(|(column, _)| find(&step.info.parts, column).is_none()) {
            let full = format!("{name}.{column}");
            if self.may_drop(&full) {
                self.found.dropped.insert(full.clone());
                self.used.insert(full);
                told.push(format!("aggregate {what} is dropped"));
            } else {
                let drop = self.how_to_drop(&full);
                refused.push(format!("changed: {name}: aggregate {what} is gone, and its values would be lost; {drop} drops it"));
            }
        }
        let sorted = |parts: &[(String, String)]| parts.iter().cloned().collect::<BTreeSet<_>>();
        if self.refuse_unfit(step, former, sorted(&step.info.parts) != sorted(&entry.parts)) {
            return;
        }
        for text in &refused {
            self.tell(name, Verdict::Refused, text.clone());
        }
        if refused.is_empty() {
            self.found.is_rewritten = true;
            self.found.evolved.insert(step.info.uid.clone());
            let is_told = !told.is_empty();
            let text = if is_told { told.join("; ") } else { "its aggregates are in another order".to_owned() };
            self.tell(name, Verdict::Changed, text);
        }
    }

    /// A sink that can commit what is pending of one that is gone, if there is one.
    fn left(&self, uid: &str) -> Option<Arc<dyn Sink>> {
        let handover = sink_notes_of(self.checkpoint.manifest()).ok()?.remove(uid)?.handover?;
        (self.changes.left_sink?)(&handover)
    }

    /// A step of the checkpoint that the plan does not have.
    fn gone(&mut self, uid: &str, entry: &OperatorEntry) {
        let name = &entry.name;
        let is_pending = self.is_pending(uid);
        let has_state = self.checkpoint.size_of(uid) != (0, 0) || !entry.signature.is_empty();
        if !has_state && !is_pending {
            return;
        }
        if let Some(key) = [name.as_str(), uid].into_iter().find(|key| self.may_drop(key)) {
            self.used.insert(key.to_owned());
            self.found.dropped.insert(key.to_owned());
            self.found.is_output_dropped |= is_pending;
            let text = if is_pending && !has_state { "it is gone, and its output that was pending is never committed" } else { "it is gone, and its state is dropped" };
            self.tell(name, Verdict::Dropped, text.to_owned());
            return;
        }
        if !has_state && let Some(sink) = self.left(uid) {
            self.found.left.push((uid.to_owned(), name.clone(), LeftSink(sink)));
            self.tell(name, Verdict::Gone, "it is gone, and its output that was pending is committed first".to_owned());
            return;
        }
        let drop = self.how_to_drop(name);
        let text = match has_state {
            true => format!("no longer in the plan: {name}, whose state would be lost; {drop} drops it"),
            false => format!(
                "no longer in the plan: {name}, whose output of the last moments before the job ended is not committed yet; run the former \
                 plan for a moment, which commits it, or {drop} leaves it out for good"
            ),
        };
        self.tell(name, Verdict::Refused, text);
    }

    /// Finds names that stand for nothing.
    fn check_names(&mut self) {
        self.found.mistakes.extend(unknown_new(self.steps, self.changes));
        for name in &self.changes.drop {
            if self.used.contains(name) || self.found.dropped.contains(name) {
                continue;
            }
            let is_here = self.steps.iter().any(|step| step.info.name == *name || parts_of(step).contains(name));
            let mistake = match is_here {
                true => format!("drop=[{name:?}]: the plan has it as the checkpoint has it, so its state is kept; leave it out"),
                false => {
                    let gone: Vec<&str> = self.stored.values().map(|entry| entry.name.as_str()).collect();
                    let all: Vec<String> = self.stored.values().flat_map(names_of).collect();
                    let all: Vec<&str> = all.iter().map(String::as_str).chain(gone).collect();
                    match all.contains(&name.as_str()) {
                        true => format!("drop=[{name:?}]: it has no state; leave it out"),
                        false => format!("drop=[{name:?}]: the checkpoint has no such step{}", self.near(name, &all)),
                    }
                }
            };
            self.found.mistakes.push(mistake);
        }
    }

    fn is_allowed(&self, name: &str) -> bool {
        match &self.changes.allow_new {
            AllowNew::Nothing => false,
            AllowNew::Everything => true,
            AllowNew::Named(names) => names.iter().any(|of| of == name),
        }
    }

    fn tell(&mut self, step: &str, verdict: Verdict, text: String) {
        self.found.steps.push(StepVerdict { step: step.to_owned(), verdict, text });
    }

    fn near(&self, name: &str, names: &[&str]) -> String {
        near(self.changes, name, names)
    }
}

/// Names in `allow_new` that stand for no step with state and no aggregate of the plan.
fn unknown_new(steps: &[Current], changes: &Changes) -> Vec<String> {
    let AllowNew::Named(names) = &changes.allow_new else { return Vec::new() };
    let with_state = steps.iter().filter(|step| !step.info.signature.is_empty());
    let known: Vec<String> = with_state.flat_map(|step| [vec![step.info.name.clone()], parts_of(step)].concat()).collect();
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    let mistake = |name: &String| match steps.iter().any(|step| step.info.name == *name) {
        true => format!("allow_new=[{name:?}]: the step keeps no state, so it needs no leave; leave it out"),
        false => format!("allow_new=[{name:?}]: the plan has no such step{}", near(changes, name, &known)),
    };
    names.iter().filter(|name| !known.contains(&name.as_str())).map(mistake).collect()
}

fn near(changes: &Changes, name: &str, names: &[&str]) -> String {
    let found = changes.suggest.map(|suggest| suggest(name, names)).unwrap_or_default();
    let quoted = |names: &[String]| names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(" or ");
    match found.is_empty() {
        true if names.is_empty() => String::new(),
        true => format!("; it has {}", quoted(&sorted(names)).replace(" or ", ", ")),
        false => format!("; did you mean {}?", quoted(&found)),
    }
}

fn sorted(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect::<BTreeSet<_>>().into_iter().collect()
}

fn parts_of(step: &Current) -> Vec<String> {
    step.info.parts.iter().map(|(column, _)| format!("{}.{column}", step.info.name)).collect()
}

fn names_of(entry: &OperatorEntry) -> Vec<String> {
    entry.parts.iter().map(|(column, _)| format!("{}.{column}", entry.name)).collect()
}

fn began(step: &Current) -> &'static str {
    if step.is_source { "is new and is read from its beginning" } else { "is new and starts empty" }
}

/// A signature without the parts that may come and go.
fn skeleton(signature: &str, parts: &[(String, String)]) -> String {
    let listed: Vec<&str> = parts.iter().map(|(_, what)| what.as_str()).collect();
    signature.replacen(&listed.join(", "), "", 1)
}

fn or_nothing(signature: &str) -> &str {
    if signature.is_empty() { "without state" } else { signature }
}

/// What former runs have dropped.
fn dropped(checkpoint: &Checkpoint) -> Result<BTreeSet<String>> {
    let Some(list) = checkpoint.manifest().notes.get(DROPPED_NOTE) else { return Ok(BTreeSet::new()) };
    serde_json::from_str(list)
        .map_err(|error| Error::checkpoint("the list of dropped steps in the checkpoint is damaged").because(error))
}

/// The renames that the plan which took the checkpoint named: new and former name.
fn renames_made(checkpoint: &Checkpoint) -> Result<BTreeSet<(String, String)>> {
    let Some(list) = checkpoint.manifest().notes.get(RENAMED_NOTE) else { return Ok(BTreeSet::new()) };
    serde_json::from_str(list)
        .map_err(|error| Error::checkpoint("the list of renamed steps in the checkpoint is damaged").because(error))
}
