//! Which sources can wait for which.
//!
//! A step that reads its second input to the end before it takes more of its first one makes the sources of the first one wait
//! for those of the second. Sources whose splits keep together in time wait for each other. That comes to an end as long as no source waits for itself, by whatever way. Steps are looked at in
//! the order of the graph: one that would close a circle cannot let its first input wait, and must keep what comes of it.

use std::collections::{BTreeMap, BTreeSet};

use super::graph::StepGraph;

/// Steps that are sources.
type Sources = BTreeSet<usize>;

impl StepGraph {
    /// Whether the sources of a step's first input can wait until those of its second one have ended.
    pub(crate) fn can_hold_first(&self, step: usize) -> bool {
        let mut waits = self.aligned();
        for at in 0..=step {
            if !self.steps[at].step.holds_first() {
                continue;
            }
            let [first, second] = [0, 1].map(|number| self.sources_of(self.steps[at].inputs[number].step));
            let is_free = !depends(&second, &first, &waits);
            if at == step {
                return is_free;
            }
            if is_free {
                waits.push((first, second));
            }
        }
        true
    }

    /// The sources that wait for each other as their splits keep together.
    fn aligned(&self) -> Vec<(Sources, Sources)> {
        let mut groups: BTreeMap<&str, Sources> = BTreeMap::new();
        for (at, vertex) in self.steps.iter().enumerate() {
            if let Some(group) = vertex.step.alignment_group() {
                groups.entry(group).or_default().extend(self.sources_of(at));
            }
        }
        groups.into_values().map(|sources| (sources.clone(), sources)).collect()
    }

    /// The sources that a step's records come from.
    fn sources_of(&self, step: usize) -> Sources {
        let (mut sources, mut seen, mut left) = (Sources::new(), BTreeSet::new(), vec![step]);
        while let Some(at) = left.pop() {
            if !seen.insert(at) {
                continue;
            }
            if self.steps[at].inputs.is_empty() {
                sources.insert(at);
            }
            left.extend(self.steps[at].inputs.iter().map(|tap| tap.step));
        }
        sources
    }
}

/// Whether some of these sources are among the others, or wait for one of them.
fn depends(sources: &Sources, others: &Sources, waits: &[(Sources, Sources)]) -> bool {
    let mut reached = sources.clone();
    loop {
        if !reached.is_disjoint(others) {
            return true;
        }
        let before = reached.len();
        for (waiting, for_these) in waits {
            if !reached.is_disjoint(waiting) {
                reached.extend(for_these);
            }
        }
        if reached.len() == before {
            return false;
        }
    }
}
