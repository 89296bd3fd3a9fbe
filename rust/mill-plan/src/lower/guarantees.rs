//! Whether sources and sinks can keep what is asked for, known before the first record.

use std::collections::HashMap;
use std::path::Path;

use mill_protocol::{Delivery, Error, Result, Sink, SinkKind};

use super::graph::{StepGraph, Vertex};
use super::{Mode, OnError, PlanOptions};
use crate::stream::{Content, ERRORS};

/// Refuses a plan that cannot keep its guarantee.
pub(super) fn check(graph: &StepGraph, options: &PlanOptions) -> Result<()> {
    let reads: Vec<_> = graph.steps.iter().filter_map(|vertex| vertex.step.source()).collect();
    let promises = options.is_checkpointed && options.mode != Mode::None;
    if let Some(alike) = graph.alike.first()
        && options.is_checkpointed
    {
        return Err(Error::plan(format!(
            "the plan has several steps that nothing tells apart but functions, or sources or sinks of yours: {}. A later run \
             could give the state of one to another; name each with .name(\"...\")",
            alike.join(", ")
        )));
    }
    let mut routes = false;
    let mut directories = HashMap::new();
    for step in &graph.steps {
        if let Some(sink) = step.step.sink()
            && let (Some(file), Some(target)) = (sink.writes(), sink.target())
            // A database is shared by its tables; files of two sinks in one directory would have the same names.
            && file != Path::new(&target)
            && file.starts_with(&target)
            && let Some(other) = directories.insert((target, file.extension().map(ToOwned::to_owned)), sink.name())
        {
            return Err(Error::plan(format!(
                "{other} and {} write into one directory: give each a directory of its own, or unite the streams before",
                sink.name()
            ))
            .in_step(&step.name));
        }
        routes |= step.inputs.iter().any(|tap| graph.content(*tap) == Content::Errors);
        if let Some(sink) = step.step.sink()
            && let Some(path) = sink.writes()
            && let Some(source) = reads.iter().find(|source| source.reads(&path))
        {
            return Err(Error::plan(format!(
                "{} reads what {} writes, so that the job would read its own output: write into another directory, or name \
                 the input so that the output is no part of it",
                source.name(),
                sink.name()
            ))
            .in_step(&step.name));
        }
        if let Some(source) = step.step.source()
            && promises
            && !source.properties().is_replayable
        {
            return Err(Error::plan(format!(
                "{} cannot be read again from a position, so {:?} cannot be kept over a restart: give a source that can \
                 (a file, a table, a function of the start offset), or run with \
                 checkpoint=mill.Checkpoint(path, mode=\"none\") or without checkpoint",
                source.name(),
                options.mode.as_str()
            ))
            .in_step(&step.name));
        }
        if let Some(sink) = step.step.sink()
            && options.is_checkpointed
            && let Some(reason) = sink.refuses_checkpoints()
        {
            return Err(Error::plan(format!("{}: {reason}", sink.name())).in_step(&step.name));
        }
        if let Some(sink) = step.step.sink()
            && promises
            && options.mode.is_exactly_once()
            && sink.kind() == SinkKind::Immediate
        {
            return Err(Error::plan(format!(
                "{} delivers records as they come, so after a failure some are delivered again and {:?} \
                 cannot be kept: use checkpoint=mill.Checkpoint(path, mode=\"at_least_once\"), or a transactional or keyed sink",
                sink.name(),
                options.mode.as_str()
            ))
            .in_step(&step.name));
        }
    }
    match (routes, options.on_error) {
        (true, OnError::Fail | OnError::Skip) => {
            Err(Error::plan("the plan takes .errors of a step, which stay empty: run with on_error=\"route\""))
        }
        (false, OnError::Route) => Err(Error::plan(
            "on_error=\"route\" sends records that fail to .errors, and no sink takes the .errors of any step: write \
             mill.all_errors(…) of the streams that are written, or use on_error=\"skip\"",
        )),
        (true, OnError::Route) => check_routes(graph),
        (false, OnError::Fail | OnError::Skip) => Ok(()),
    }
}

/// Refuses steps in which records are expected to fail that would reach no sink.
fn check_routes(graph: &StepGraph) -> Result<()> {
    let is_lost = |(at, vertex): &(usize, &Vertex)| {
        let has_errors = vertex.step.outputs().iter().any(|output| output.name == ERRORS);
        let inputs = || vertex.inputs.iter().map(|tap| graph.schema_of(*tap)).collect::<Vec<_>>();
        has_errors && !graph.is_taken(*at, ERRORS) && vertex.step.may_fail(&inputs())
    };
    let lost: Vec<String> = graph.steps.iter().enumerate().filter(is_lost).map(|(_, vertex)| format!("{:?}", vertex.name)).collect();
    if lost.is_empty() {
        return Ok(());
    }
    let (them, their) = if lost.len() == 1 { ("that step", "its .errors") } else { ("these steps", "their .errors") };
    Err(Error::plan(format!(
        "on_error=\"route\": records that fail in {} would reach no sink: write {their}, or mill.all_errors(…) of all streams that are \
         written, which has those of {them} too",
        lost.join(", ")
    )))
}

/// What a sink keeps, in the words of the user.
pub(crate) fn effective(sink: &dyn Sink, options: &PlanOptions) -> &'static str {
    let kind = sink.kind();
    let delivery = options.is_checkpointed.then_some(match options.mode {
        Mode::ExactlyOnce | Mode::Dedup => Delivery::ExactlyOnce,
        Mode::AtLeastOnce => Delivery::AtLeastOnce,
        Mode::None => Delivery::AtMostOnce,
    });
    if let Some(words) = sink.keeps(delivery) {
        return words;
    }
    if !options.is_checkpointed {
        return match kind {
            SinkKind::Immediate => "none (no checkpoint): delivered as it comes",
            _ => "none (no checkpoint): complete when the job ends",
        };
    }
    match (options.mode, kind) {
        (Mode::None, _) => "none: nothing is replayed after a failure",
        (_, SinkKind::Immediate) => "at_least_once: delivered as it comes",
        (Mode::AtLeastOnce, SinkKind::Idempotent) => "at_least_once: upserts by key",
        (Mode::AtLeastOnce, _) => "at_least_once",
        (Mode::ExactlyOnce | Mode::Dedup, SinkKind::Idempotent) => "exactly_once: upserts by key",
        (Mode::ExactlyOnce | Mode::Dedup, SinkKind::Transactional) => "exactly_once: committed after the checkpoint",
        (Mode::ExactlyOnce | Mode::Dedup, SinkKind::WriteAhead) => "exactly_once: delivered after the checkpoint with its number",
        (Mode::ExactlyOnce | Mode::Dedup, _) => "at_least_once: the target cannot record which checkpoint it has",
    }
}
