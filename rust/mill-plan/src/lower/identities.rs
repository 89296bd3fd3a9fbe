//! The identities of steps: under which a checkpoint keeps their state, positions and output.
//!
//! The identity of an unnamed step is its place: the steps with state that lead to it from the source, and its own kind.
//! Steps without state leave no trace in it, so adding a filter does not lose the state of the steps after it. Nor does the
//! order in which sinks, or the streams of a union, are listed: where several steps have one place, each gets a hash of what
//! tells it from the others, never a number.
//!
//! ```text
//!   read_csv/agg                    the only aggregation of the source
//!   read_csv/agg~5be1…, …~90c2…     two of them: hashes of all that is upstream (source, filters, …) and of the step itself
//!                                   where these are alike, of all that is downstream too
//!   read_csv/agg~5be1…#2            two steps that are alike in all of this: whichever is which, the job is the same
//! ```
//!
//! Steps are not known to be alike if a function, or a source or sink of the user's, is among what is compared: its name is
//! all that the plan sees of it. A job with checkpoints then needs a name for the steps; see [`StepGraph::alike`].
//!
//! So a change of the plan keeps state, or state is left over and the job is refused by the names of the steps; it never
//! moves state to another step.

use std::collections::{BTreeMap, HashMap, HashSet};

use mill_protocol::{Error, Result, SinkKind};

use super::graph::{StepGraph, Tap};
use crate::physical::fnv;
use crate::steps::Splits;
use crate::stream::Content;

/// Assigns each step its name and identity; `given` are the names of the user's.
pub(super) fn give(graph: &mut StepGraph, given: &BTreeMap<usize, String>) -> Result<()> {
    let mut taken: HashSet<String> = HashSet::new();
    for name in given.values() {
        if !taken.insert(name.clone()) {
            return Err(Error::plan(format!("two steps are named {name:?}; a name is the identity of a step's state")));
        }
    }
    let mut names = taken.clone();
    for i in 0..graph.steps.len() {
        let name = given.get(&i).cloned().unwrap_or_else(|| unique(&graph.steps[i].step.called(), " ", &mut names));
        graph.steps[i].name = name;
    }
    let has_errors_taken = graph.steps.iter().flat_map(|step| &step.inputs);
    let has_errors_taken = has_errors_taken.filter(|&&tap| graph.content(tap) == Content::Errors).map(|tap| tap.step).collect();
    let mut places = Places { graph, given, prints: None, taken, has_errors_taken };
    for level in places.levels() {
        places.identify(&level);
    }
    places.print_where_streams_meet();
    Ok(())
}

struct Places<'a> {
    graph: &'a mut StepGraph,
    given: &'a BTreeMap<usize, String>,
    /// Made when they are first needed: those of a table in memory are over all that it holds.
    prints: Option<Prints>,
    taken: HashSet<String>,
    has_errors_taken: HashSet<usize>,
}

impl Places<'_> {
    /// Whether the paths of the steps after it begin with its identity.
    fn is_mark(&self, step: usize) -> bool {
        let vertex = &self.graph.steps[step];
        vertex.inputs.is_empty() || vertex.step.is_landmark() || self.given.contains_key(&step)
    }

    /// The steps by how many marks lead to them: only steps of one level can have one place.
    fn levels(&self) -> Vec<Vec<usize>> {
        let (mut levels, mut own, mut after): (Vec<Vec<usize>>, Vec<usize>, Vec<usize>) = Default::default();
        for (i, vertex) in self.graph.steps.iter().enumerate() {
            let of = |tap: &Tap| match self.graph.content(*tap) {
                Content::Errors => own[tap.step] + 1,
                Content::Result | Content::Input(_) | Content::Side => after[tap.step],
            };
            let level = vertex.inputs.iter().map(of).max().unwrap_or(0);
            own.push(level);
            after.push(level + usize::from(self.is_mark(i)));
            levels.resize_with(levels.len().max(level + 1), Vec::new);
            levels[level].push(i);
        }
        levels
    }

    /// Assigns the steps of a level their identities; those of the levels before have theirs.
    fn identify(&mut self, level: &[usize]) {
        let mut members: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for &i in level {
            let from = self.from(i);
            let label = self.graph.steps[i].step.called();
            let place = from.as_ref().map_or_else(|| label.clone(), |from| format!("{from}/{label}"));
            match self.given.get(&i) {
                Some(name) => self.graph.steps[i].uid = name.clone(),
                None => members.entry(place).or_default().push(i),
            }
            if let (Some(from), false) = (from, self.is_mark(i)) {
                self.graph.steps[i].path = from;
            }
        }
        for (place, members) in members {
            self.tell_apart(&place, &members);
        }
        for &i in level {
            if self.is_mark(i) {
                self.graph.steps[i].path = self.graph.steps[i].uid.clone();
            }
        }
    }

    /// The path that leads to a step. That of several streams does not depend on their order.
    fn from(&self, step: usize) -> Option<String> {
        self.graph.steps[step].inputs.iter().map(|&tap| self.graph.path_of(tap)).min()
    }

    fn tell_apart(&mut self, place: &str, members: &[usize]) {
        let (kept, free): (Vec<usize>, Vec<usize>) = members.iter().copied().partition(|&i| self.is_kept(i));
        // A step that is alone in its place needs no more than the place.
        if kept.len() <= 1 {
            for i in kept.into_iter().chain(free) {
                self.graph.steps[i].uid = unique(place, "#", &mut self.taken);
            }
            return;
        }
        let prints = self.prints.get_or_insert_with(|| Prints::of(self.graph, self.given));
        let mut groups: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        for (_, group) in grouped(&kept, |i| prints.upstream[i]) {
            if let [one] = group[..] {
                groups.insert(prints.upstream[one], group);
            } else {
                groups.extend(grouped(&group, |i| prints.both(i)));
            }
        }
        for (print, group) in groups {
            let is_opaque = |&&i: &&usize| self.prints.as_ref().is_some_and(|prints| prints.is_opaque[i]);
            if group.len() > 1 && group.iter().filter(is_opaque).any(|&i| self.has_state(i)) {
                let names = group.iter().map(|&i| self.graph.steps[i].name.clone()).collect();
                self.graph.alike.push(names);
            }
            for i in group {
                self.graph.steps[i].uid = unique(&format!("{place}~{:012x}", print >> 16), "#", &mut self.taken);
            }
        }
        for i in free {
            self.graph.steps[i].uid = unique(place, "#", &mut self.taken);
        }
    }

    /// Notes what tells the streams apart that meet where a step may be moved ahead, if their paths do not.
    fn print_where_streams_meet(&mut self) {
        let meet = self.graph.steps.iter().filter(|step| step.step.splits() == Splits::Mixes);
        let mut paths = meet.map(|step| step.inputs.iter().map(|&tap| self.graph.path_of(tap)).collect::<Vec<_>>());
        if paths.any(|paths| paths.iter().collect::<HashSet<_>>().len() < paths.len()) {
            let prints = self.prints.get_or_insert_with(|| Prints::of(self.graph, self.given));
            self.graph.steps.iter_mut().zip(&prints.upstream).for_each(|(step, &print)| step.print = print);
        }
    }

    /// Whether a checkpoint keeps anything under its identity, or under one that begins with it.
    fn is_kept(&self, step: usize) -> bool {
        self.is_mark(step) || self.graph.steps[step].step.is_stateful() || self.has_errors_taken.contains(&step)
    }

    fn has_state(&self, step: usize) -> bool {
        let step = &self.graph.steps[step].step;
        step.is_stateful() && step.sink().is_none_or(|sink| sink.kind() != SinkKind::Immediate)
    }
}

/// What tells each step from others, as hashes.
struct Prints {
    /// Of the step and all that is upstream.
    upstream: Vec<u64>,
    /// Of the step and all that is downstream.
    downstream: Vec<u64>,
    /// Whether something that the plan knows only by name is among all this.
    is_opaque: Vec<bool>,
}

impl Prints {
    fn of(graph: &StepGraph, given: &BTreeMap<usize, String>) -> Prints {
        let count = graph.steps.len();
        let own: Vec<String> = (0..count)
            .map(|i| {
                let step = &graph.steps[i].step;
                format!("{} {:?} {}", step.label(), given.get(&i), step.print())
            })
            .collect();
        let mut upstream: Vec<u64> = Vec::with_capacity(count);
        let mut above: Vec<bool> = Vec::with_capacity(count);
        let mut consumers: Vec<Vec<(usize, usize, String)>> = vec![Vec::new(); count];
        for (i, vertex) in graph.steps.iter().enumerate() {
            let output = |tap: &Tap| graph.output(*tap).name.to_string();
            let mut inputs: Vec<(u64, String)> =
                vertex.inputs.iter().map(|tap| (upstream[tap.step], output(tap))).collect();
            let is_mixing = vertex.step.splits() == Splits::Mixes;
            if is_mixing {
                inputs.sort();
            }
            for (number, tap) in vertex.inputs.iter().enumerate() {
                consumers[tap.step].push((i, if is_mixing { 0 } else { number }, output(tap)));
            }
            upstream.push(fnv(format!("{} {inputs:?}", own[i]).bytes()));
            above.push(vertex.step.is_opaque() || vertex.inputs.iter().any(|tap| above[tap.step]));
        }
        let mut downstream = vec![0; count];
        let mut is_opaque = vec![false; count];
        for i in (0..count).rev() {
            let mut after: Vec<(u64, usize, &str)> =
                consumers[i].iter().map(|(step, number, output)| (downstream[*step], *number, output.as_str())).collect();
            after.sort_unstable();
            downstream[i] = fnv(format!("{} {after:?}", own[i]).bytes());
            is_opaque[i] = graph.steps[i].step.is_opaque() || consumers[i].iter().any(|(step, ..)| is_opaque[*step]);
        }
        for (below, above) in is_opaque.iter_mut().zip(above) {
            *below |= above;
        }
        Prints { upstream, downstream, is_opaque }
    }

    fn both(&self, step: usize) -> u64 {
        fnv([self.upstream[step], self.downstream[step]].into_iter().flat_map(u64::to_le_bytes))
    }
}

/// Steps by a hash of theirs.
fn grouped(steps: &[usize], print: impl Fn(usize) -> u64) -> BTreeMap<u64, Vec<usize>> {
    let mut groups: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    steps.iter().for_each(|&i| groups.entry(print(i)).or_default().push(i));
    groups
}

/// Numbers identities that are the same after a rewrite.
pub(super) fn number(graph: &mut StepGraph) {
    let mut taken = HashSet::new();
    for step in &mut graph.steps {
        step.uid = unique(&step.uid, "#", &mut taken);
    }
}

/// The identity of the copy of a step for each of the streams that it is moved to: the order of the streams leaves no trace.
pub(super) fn of_copies(graph: &StepGraph, uid: &str, inputs: &[Tap]) -> Vec<String> {
    let paths: Vec<String> = inputs.iter().map(|&tap| graph.path_of(tap)).collect();
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for path in &paths {
        *counts.entry(path).or_default() += 1;
    }
    let of = |(path, tap): (&String, &Tap)| match counts[path.as_str()] {
        1 => format!("{uid}/{path}"),
        _ => format!("{uid}/{path}~{:012x}", graph.steps[tap.step].print >> 16),
    };
    paths.iter().zip(inputs).map(of).collect()
}

/// The text, numbered from the second time on.
pub(super) fn unique(text: &str, separator: &str, taken: &mut HashSet<String>) -> String {
    let mut candidate = text.to_owned();
    let mut number = 1;
    while !taken.insert(candidate.clone()) {
        number += 1;
        candidate = format!("{text}{separator}{number}");
    }
    candidate
}
