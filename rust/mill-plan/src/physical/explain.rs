//! The plan as text for people.
//!
//! ```text
//!   exactly_once, checkpoints stored, 2 tasks a chain
//!
//!   chain 0 (2 tasks)
//!     read_text    read_text("books/*.txt"): line str
//!     select       word = col("line").str.to_lowercase()       native
//!     agg.partial  by word: n=count()                          native
//!     ══ hash(word) ══► chain 1
//! ```

use std::fmt::{self, Write};

use super::{EdgeKind, PhysicalPlan, SourceStage, Stage, StageKind, Target};
use crate::lower::{OnError, effective};
use crate::stream::RESULT;
use crate::types::type_name;
use crate::window::KeptWindow;

impl PhysicalPlan {
    /// The plan as a tree for people to read: chains, tasks, what each step does, how it is run, what state it keeps, how
    /// records travel, and what each sink guarantees.
    pub fn explain(&self) -> String {
        let mut text = String::new();
        // Writing into a string cannot fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        let options = &self.options;
        write!(out, "{}", options.mode.as_str())?;
        out.push_str(if options.is_checkpointed { ", checkpoints stored" } else { ", no checkpoints" });
        match options.on_error {
            OnError::Fail => {}
            OnError::Skip => out.push_str(", failing records skipped"),
            OnError::Route => out.push_str(", failing records routed"),
        }
        writeln!(out)?;
        for (i, chain) in self.chains.iter().enumerate() {
            let tasks = if chain.parallelism == 1 { "1 task".to_owned() } else { format!("{} tasks", chain.parallelism) };
            writeln!(out, "\nchain {i} ({tasks})")?;
            if let Some(source) = &chain.source {
                writeln!(out, "  {:<14} {}", source.name, source_detail(source))?;
                self.write_targets(out, i, &source.errors, 2, "errors")?;
            }
            for entry in &chain.entries {
                self.write_targets(out, i, entry, if entry.len() > 1 { 2 } else { 1 }, "")?;
            }
        }
        Ok(())
    }

    fn write_targets(&self, out: &mut String, chain: usize, targets: &[Target], depth: usize, label: &str) -> fmt::Result {
        let indent = "  ".repeat(depth);
        let label = if label.is_empty() { String::new() } else { format!("{label}: ") };
        for target in targets {
            match *target {
                Target::Edge(edge) => {
                    let edge = &self.edges[edge];
                    let side = if self.chains[edge.to].entries.len() < 2 { "" } else { [", left", ", right"][edge.entry.min(1)] };
                    writeln!(out, "{indent}{label}══ {} ══► chain {}{side}", edge_detail(&edge.kind, &edge.schema), edge.to)?;
                }
                // A stage is written where its first input leads to it.
                Target::Stage(_, input) if input > 0 => {}
                Target::Stage(index, _) => {
                    let stage = &self.chains[chain].stages[index];
                    self.write_stage(out, chain, stage, &indent, &label)?;
                    let ports = stage.ports.iter().filter(|targets| !targets.is_empty()).count();
                    let is_fork = ports > 1 || stage.ports.iter().any(|targets| targets.len() > 1);
                    let below = depth + usize::from(is_fork);
                    for (port, targets) in stage.ports.iter().enumerate() {
                        self.write_targets(out, chain, targets, below, port_name(stage, port))?;
                    }
                    self.write_targets(out, chain, &stage.errors, depth + 1, "errors")?;
                }
            }
        }
        Ok(())
    }

    /// When the order in which records of a key come into a chain depends on timing.
    fn timed_order(&self, chain: usize) -> &'static str {
        let mut inputs = self.edges.iter().filter(|edge| edge.to == chain);
        match (inputs.next(), inputs.next()) {
            // How many splits a source has is not known before it is read.
            (None, _) => "if the source has several splits",
            (Some(edge), None) if edge.kind != EdgeKind::Rebalance => self.timed_order(edge.from),
            _ => "as several tasks read its input",
        }
    }

    /// What a stage keeps, and for how long.
    pub(super) fn kept(&self, chain: usize, stage: &Stage) -> Vec<String> {
        let mut notes: Vec<String> = stage.kind.keeps().into_iter().collect();
        if let StageKind::KeptWindow { spec, .. } | StageKind::TriggeredAggregate { spec, .. } = &stage.kind
            && let KeptWindow::Count(_) = spec.window
        {
            notes.push(format!("what a window holds depends on timing, {}", self.timed_order(chain)));
        }
        notes
    }

    /// What a sink guarantees; nothing of other stages.
    pub(super) fn guarantees(&self, stage: &Stage) -> Vec<String> {
        let StageKind::Sink(sink) = &stage.kind else { return Vec::new() };
        let mut notes = vec![effective(sink.as_ref(), &self.options).to_owned()];
        notes.extend(stage.updating.as_ref().map(|keys| format!("latest row a key ({})", columns(stage, keys))));
        notes
    }

    fn write_stage(&self, out: &mut String, chain: usize, stage: &Stage, indent: &str, label: &str) -> fmt::Result {
        let mut notes: Vec<String> = Vec::new();
        if !matches!(stage.kind, StageKind::Sink(_) | StageKind::Pass) {
            notes.push(stage.kind.rung().as_str().to_owned());
        }
        if stage.kind.is_stateful() && !matches!(stage.kind, StageKind::Sink(_)) {
            notes.push(format!("state {:?}", stage.uid));
        }
        notes.extend(self.kept(chain, stage));
        notes.extend(self.guarantees(stage));
        let notes = if notes.is_empty() { String::new() } else { format!("  [{}]", notes.join("; ")) };
        let name = format!("{label}{}", stage.name);
        let line = format!("{indent}{name:<14} {}{notes}", stage.kind.detail(&stage.schema));
        writeln!(out, "{}", line.trim_end())
    }
}

fn columns(stage: &Stage, places: &[usize]) -> String {
    names(&stage.schema, places)
}

pub(super) fn names(schema: &arrow::datatypes::Schema, places: &[usize]) -> String {
    let names: Vec<&str> = places.iter().filter_map(|&i| schema.fields().get(i)).map(|f| f.name().as_str()).collect();
    names.join(", ")
}

/// What comes out of a port, where it needs saying.
pub(super) fn port_name(stage: &Stage, port: usize) -> &str {
    stage.outputs.get(port).map(AsRef::as_ref).filter(|name| *name != RESULT).unwrap_or_default()
}

/// How records travel along an edge.
pub(super) fn edge_detail(kind: &EdgeKind, schema: &arrow::datatypes::Schema) -> String {
    match kind {
        EdgeKind::Forward => "forward".to_owned(),
        EdgeKind::Rebalance => "rebalance".to_owned(),
        EdgeKind::Gather => "gather".to_owned(),
        EdgeKind::Broadcast => "broadcast".to_owned(),
        EdgeKind::Hash(keys) => format!("hash({})", names(schema, keys)),
    }
}

pub(super) fn source_detail(source: &SourceStage) -> String {
    let schema = source.source.schema();
    let columns: Vec<String> =
        schema.fields().iter().map(|field| format!("{} {}", field.name(), type_name(field.data_type()))).collect();
    let properties = source.source.properties();
    let mut text = format!("{}: {}", source.source.name(), columns.join(", "));
    if !properties.is_bounded {
        text.push_str("; unbounded");
    }
    if source.is_ordered {
        text.push_str("; in order");
    }
    text
}
