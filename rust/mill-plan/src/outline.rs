//! The outline of a plan that a checkpoint stores, so that a later run can report what has changed.
//!
//! ```text
//!   former   read_csv ── filter: col("x") > 1 ────────────────── agg       filter: predicate was col("x") > 1, is col("x") > 2
//!   now      read_csv ── filter: col("x") > 2 ── with_columns ── agg       new step: with_columns(…)
//! ```
//!
//! Steps are paired first by identity and content, then by content alone (a filter that has moved), then by identity alone (a
//! step that was changed). Two steps are alike if they [print](crate::steps::Step::print) alike, however the user spelt a path.
//! A sink with another name is another sink, whatever it writes: its name is what its target knows it by.
//! Of a function only its name and the columns that it returns are known: a body that was edited is no change here.
//!
//! Changed columns are reported where they first differ, at a source or a function, and not again at each later step.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::datatypes::Field;
use mill_frame::schema::is_object;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::logical::Parameters;
use crate::lower::{StepGraph, Vertex};
use crate::physical::fnv;
use crate::types::type_name;

/// How many characters of a parameter a message shows.
const SHOWN_MAX: usize = 200;

/// The steps of a plan, each after its inputs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outline {
    steps: Vec<Sketch>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Sketch {
    uid: String,
    name: String,
    label: String,
    parameters: Parameters,
    /// A hash of what tells it from others.
    print: String,
    /// The places of its inputs in the plan.
    inputs: Vec<usize>,
    /// The columns that it returns, as name and type; nothing where they are those of its first input, or not known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    columns: Vec<(String, String)>,
}

/// Something about a step that differs between two plans.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The name of the step, in the plan of now if it is in both.
    pub step: String,
    /// What has become of it.
    pub kind: DifferenceKind,
    /// The same in words, with what was and what is.
    pub text: String,
}

/// What has become of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DifferenceKind {
    /// It is another one, or reads from other steps.
    Changed,
    /// The former plan does not have it.
    New,
    /// The plan of now does not have it.
    Gone,
}

impl Outline {
    /// The outline of a plan before anything in it is rewritten.
    pub(crate) fn of(graph: &StepGraph) -> Outline {
        let column = |field: &Arc<Field>| match is_object(field) {
            true => (field.name().clone(), "object".to_owned()),
            false => (field.name().clone(), type_name(field.data_type())),
        };
        let sketch = |vertex: &Vertex| {
            let print = match vertex.step.source() {
                Some(source) => source.quick_identity().unwrap_or_else(|| source.name()),
                None => vertex.step.print(),
            };
            let mut parameters = vertex.step.parameters();
            parameters.remove("rung");
            Sketch {
                uid: vertex.uid.clone(),
                name: vertex.name.clone(),
                label: vertex.step.label().to_owned(),
                parameters,
                print: format!("{:016x}", fnv(format!("{} {print}", vertex.step.label()).bytes())),
                inputs: vertex.inputs.iter().map(|tap| tap.step).collect(),
                columns: match vertex.inputs.first() {
                    Some(first) if first.output == 0 && graph.steps[first.step].schema.fields() == vertex.schema.fields() => Vec::new(),
                    _ => vertex.schema.fields().iter().map(column).collect(),
                },
            }
        };
        Outline { steps: graph.steps.iter().map(sketch).collect() }
    }

    /// As a checkpoint keeps it.
    pub fn encode(&self) -> String {
        serde_json::to_string(self).expect("text and numbers are JSON")
    }

    /// What a checkpoint kept; `None` if it is of another format.
    pub fn decode(text: &str) -> Option<Outline> {
        let outline: Outline = serde_json::from_str(text).ok()?;
        let in_order = |(place, step): (usize, &Sketch)| step.inputs.iter().all(|&input| input < place);
        outline.steps.iter().enumerate().all(in_order).then_some(outline)
    }

    /// What has changed since the former plan, in the order of the plan. `renamed` returns the identity that a step had then, where it
    /// is another one.
    pub fn differences(&self, former: &Outline, renamed: &HashMap<String, String>) -> Vec<Difference> {
        let pairs = Pairs::of(self, former, renamed);
        let mut found = Vec::new();
        for (place, step) in self.steps.iter().enumerate() {
            let mut differ = |kind: DifferenceKind, text: String| found.push(Difference { step: step.name.clone(), kind, text });
            match pairs.of_now[place] {
                None => differ(DifferenceKind::New, format!("new step: {}", step.shown())),
                Some(other) => {
                    let before = &former.steps[other];
                    let changes = step.changes_since(before);
                    // Columns that follow from its parameters, or from its inputs, are told there.
                    let is_told = changes.is_some() && !step.inputs.is_empty() || self.inputs(place) != former.inputs(other);
                    if let Some(text) = changes {
                        differ(DifferenceKind::Changed, text);
                    }
                    if !is_told && let Some(text) = other_columns(former.columns(other), self.columns(place)) {
                        differ(DifferenceKind::Changed, format!("{}: {text}", step.name));
                    }
                    // Steps that come or go are told of themselves: what counts is what they stand between.
                    let now = pairs.inputs(&self.steps, place, |input| pairs.of_now[input]);
                    let then = pairs.inputs(&former.steps, other, |input| pairs.of_former[input].map(|_| input));
                    if now != then {
                        let names = |places: &[usize]| {
                            places.iter().map(|&place| former.steps[place].name.as_str()).collect::<Vec<_>>().join(", ")
                        };
                        let text = format!("{}: reads from {}, was {}", step.name, names(&now), names(&then));
                        differ(DifferenceKind::Changed, text);
                    }
                }
            }
        }
        let gone = former.steps.iter().zip(&pairs.of_former).filter(|(_, pair)| pair.is_none());
        found.extend(gone.map(|(step, _)| Difference {
            step: step.name.clone(),
            kind: DifferenceKind::Gone,
            text: format!("no longer there: {}", step.shown()),
        }));
        found
    }

    /// The columns that a step returns, as far as that is known.
    fn columns(&self, place: usize) -> &[(String, String)] {
        let step = &self.steps[place];
        match (step.columns.is_empty(), step.inputs.first()) {
            (true, Some(&input)) => self.columns(input),
            _ => &step.columns,
        }
    }

    /// The columns of the inputs of a step, in no order.
    fn inputs(&self, place: usize) -> BTreeSet<&[(String, String)]> {
        self.steps[place].inputs.iter().map(|&input| self.columns(input)).collect()
    }

    /// The names of the steps, in the order of the plan.
    pub fn steps(&self) -> impl Iterator<Item = &str> {
        self.steps.iter().map(|step| step.name.as_str())
    }
}

impl Sketch {
    fn changes_since(&self, former: &Sketch) -> Option<String> {
        if self.print == former.print {
            return None;
        }
        let keys = self.parameters.keys().chain(former.parameters.keys().filter(|key| !self.parameters.contains_key(*key)));
        let differ = keys.filter(|key| self.parameters.get(*key) != former.parameters.get(*key)).map(|key| {
            let (was, is) = apart(&shown(former.parameters.get(key)), &shown(self.parameters.get(key)));
            format!("{key} was {was}, is {is}")
        });
        let differ: Vec<String> = differ.collect();
        // A path may be spelt as before and lead elsewhere; a table may have the rows of another.
        let what = if differ.is_empty() { format!("{} has another content", self.shown()) } else { differ.join("; ") };
        Some(format!("{}: {what}", self.name))
    }

    /// Whether it is a sink that the user has named: the identity of one without a name is a path.
    fn is_named_sink(&self) -> bool {
        self.parameters.contains_key("sink") && self.uid == self.name
    }

    fn shown(&self) -> String {
        let parameters = self.parameters.iter().filter(|(_, value)| !value.is_null());
        let parameters: Vec<String> = parameters.map(|(key, value)| format!("{key}: {}", shown(Some(value)))).collect();
        match parameters.is_empty() {
            true => self.name.clone(),
            false => format!("{}({})", self.name, cut(&parameters.join(", "))),
        }
    }
}

/// Which steps of two plans are the same.
struct Pairs {
    of_now: Vec<Option<usize>>,
    of_former: Vec<Option<usize>>,
}

impl Pairs {
    fn of(now: &Outline, former: &Outline, renamed: &HashMap<String, String>) -> Pairs {
        let mut pairs = Pairs { of_now: vec![None; now.steps.len()], of_former: vec![None; former.steps.len()] };
        pairs.pair(now, former, renamed, |step, uid| format!("{uid} {} {}", step.label, step.print));
        pairs.pair(now, former, renamed, |step, uid| match step.is_named_sink() {
            true => format!("{uid} {} {}", step.label, step.print),
            false => format!("{} {}", step.label, step.print),
        });
        pairs.pair(now, former, renamed, |step, uid| format!("{uid} {}", step.label));
        pairs
    }

    /// Pairs those that are left and have one key, in the order of the plans.
    fn pair(&mut self, now: &Outline, former: &Outline, renamed: &HashMap<String, String>, key: impl Fn(&Sketch, &str) -> String) {
        let mut left: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (place, step) in former.steps.iter().enumerate().rev() {
            if self.of_former[place].is_none() {
                left.entry(key(step, &step.uid)).or_default().push(place);
            }
        }
        for (place, step) in now.steps.iter().enumerate() {
            let uid = renamed.get(&step.uid).unwrap_or(&step.uid);
            if self.of_now[place].is_none()
                && let Some(other) = left.get_mut(&key(step, uid)).and_then(Vec::pop)
            {
                self.of_now[place] = Some(other);
                self.of_former[other] = Some(place);
            }
        }
    }

    /// The former places of what a step reads, through steps that are in one of the plans alone; in no order.
    fn inputs(&self, steps: &[Sketch], place: usize, former: impl Fn(usize) -> Option<usize>) -> Vec<usize> {
        let (mut found, mut seen, mut left) = (BTreeSet::new(), BTreeSet::new(), vec![place]);
        while let Some(step) = left.pop() {
            for &input in &steps[step].inputs {
                match former(input) {
                    Some(place) => drop(found.insert(place)),
                    None if seen.insert(input) => left.push(input),
                    None => {}
                }
            }
        }
        found.into_iter().collect()
    }
}

/// How columns differ, if they do and both are known.
fn other_columns(former: &[(String, String)], now: &[(String, String)]) -> Option<String> {
    const TOLD_MAX: usize = 10;
    if former == now || former.is_empty() || now.is_empty() {
        return None;
    }
    let find = |columns: &[(String, String)], name: &str| columns.iter().find(|(other, _)| other == name).map(|(_, kind)| kind.clone());
    let mut found = Vec::new();
    for (name, kind) in now {
        match find(former, name) {
            None => found.push(format!("column {name} {kind} is new")),
            Some(was) if was != *kind => found.push(format!("column {name} was {was}, is {kind}")),
            Some(_) => {}
        }
    }
    let gone = former.iter().filter(|(name, _)| find(now, name).is_none());
    found.extend(gone.map(|(name, kind)| format!("column {name} {kind} is gone")));
    if found.is_empty() {
        return Some("its columns are in another order".to_owned());
    }
    let more = found.len().saturating_sub(TOLD_MAX);
    found.truncate(TOLD_MAX);
    Some(format!("{}{}", found.join("; "), if more > 0 { format!("; and {more} more") } else { String::new() }))
}

fn shown(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "none".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(values)) => values.iter().map(|value| shown(Some(value))).collect::<Vec<_>>().join(", "),
        Some(other) => other.to_string(),
    }
}

/// At most so many characters of each of two texts that differ, from shortly before where they begin to.
fn apart(was: &str, is: &str) -> (String, String) {
    if was.chars().count().max(is.chars().count()) <= SHOWN_MAX {
        return (was.to_owned(), is.to_owned());
    }
    let common = was.chars().zip(is.chars()).take_while(|(a, b)| a == b).count();
    let from = common.saturating_sub(SHOWN_MAX / 4);
    let part = |text: &str| {
        let rest: String = text.chars().skip(from).collect();
        format!("{}{}", if from > 0 { "…" } else { "" }, cut(&rest))
    };
    (part(was), part(is))
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(SHOWN_MAX) {
        None => text.to_owned(),
        Some((at, _)) => format!("{}…", &text[..at]),
    }
}
