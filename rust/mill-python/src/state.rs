//! Looking at plans and into state directories from Python.

use std::path::PathBuf;
use std::sync::Arc;

use mill_plan::{PlanOptions, SinkNode};
use millstream::connectors::CollectSink;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use crate::error::IntoPython;
use crate::job::{Settings, interruptible};
use crate::stream::{RawSink, RawStream};
use crate::table::RawTable;

/// Returns the plan of a stream as text.
#[pyfunction]
pub fn explain(stream: PyRef<'_, RawStream>, settings: &Bound<'_, PyDict>) -> PyResult<String> {
    stream.stream.explain(&plan_options(settings)?).into_python()
}

/// What the planner needs to know of a run.
fn plan_options(settings: &Bound<'_, PyDict>) -> PyResult<PlanOptions> {
    let options = settings.extract::<Settings>()?.options()?;
    Ok(PlanOptions {
        parallelism: options.effective_parallelism().into_python()?,
        mode: options.mode(),
        is_checkpointed: options.checkpoint.is_some(),
        is_chaining: options.is_chaining,
        on_error: options.on_error,
    })
}

/// A step: name, kind, detail, chain, number of tasks, what it keeps, what it guarantees.
type Node = (String, String, String, usize, usize, String, String);

fn node(node: mill_plan::GraphNode) -> Node {
    (node.name, node.kind, node.detail, node.chain, node.parallelism, node.state, node.guarantee)
}

/// Returns the plan of a job as text, nodes and edges (from, to, label).
#[pyfunction]
#[allow(clippy::type_complexity)]
pub fn plan_of(
    sinks: Vec<PyRef<'_, RawSink>>,
    settings: &Bound<'_, PyDict>,
) -> PyResult<(String, Vec<Node>, Vec<(usize, usize, String)>)> {
    let nodes: Vec<SinkNode> = sinks.iter().map(|sink| sink.node.clone()).collect();
    let plan = mill_plan::lower(&nodes, &plan_options(settings)?).into_python()?;
    let (text, graph) = (plan.explain(), plan.graph());
    let nodes = graph.nodes.into_iter().map(node).collect();
    Ok((text, nodes, graph.edges.into_iter().map(|edge| (edge.from, edge.to, edge.label)).collect()))
}

/// Returns the plan of a stream as nodes and edges (from, to, label).
#[pyfunction]
#[allow(clippy::type_complexity)]
pub fn graph(
    stream: PyRef<'_, RawStream>,
    settings: &Bound<'_, PyDict>,
) -> PyResult<(Vec<Node>, Vec<(usize, usize, String)>)> {
    let plan = plan_options(settings)?;
    let (sink, _receiver) = CollectSink::new(None, 1);
    let sink = stream.stream.sink(Arc::new(sink)).into_python()?;
    let graph = mill_plan::lower(&[sink], &plan).into_python()?.graph();
    let nodes = graph.nodes.into_iter().map(node).collect();
    Ok((nodes, graph.edges.into_iter().map(|edge| (edge.from, edge.to, edge.label)).collect()))
}

/// Compares the plan of a job with a checkpoint: its number, where it is, the steps (name, change, text), and why the job would be
/// refused.
#[pyfunction]
#[pyo3(signature = (sinks, settings, id))]
#[allow(clippy::type_complexity)]
pub fn state_diff(
    py: Python<'_>,
    sinks: Vec<PyRef<'_, RawSink>>,
    settings: &Bound<'_, PyDict>,
    id: Option<u64>,
) -> PyResult<(u64, String, Vec<(String, String, String)>, Vec<String>)> {
    let nodes: Vec<SinkNode> = sinks.iter().map(|sink| sink.node.clone()).collect();
    let options = settings.extract::<Settings>()?.options()?;
    let found = interruptible(py, move || millstream::diff(&nodes, &options, id))?;
    let steps = found.steps.into_iter().map(|step| (step.step, step.change.to_owned(), step.text)).collect();
    Ok((found.checkpoint, found.path.display().to_string(), steps, found.refusals))
}

/// Lists the checkpoints in a state directory, oldest first.
#[pyfunction]
pub fn checkpoints<'py>(py: Python<'py>, path: &str) -> PyResult<Bound<'py, PyList>> {
    let path = PathBuf::from(path);
    let found = interruptible(py, move || millstream::checkpoints(&path))?;
    let out = PyList::empty(py);
    for info in found {
        let one = PyDict::new(py);
        one.set_item("id", info.id)?;
        one.set_item("created_us", info.created)?;
        one.set_item("mode", info.mode)?;
        one.set_item("bytes", info.bytes)?;
        one.set_item("new_bytes", info.new_bytes)?;
        one.set_item("is_savepoint", info.is_savepoint)?;
        one.set_item("is_finished", info.is_finished)?;
        one.set_item("steps", info.operators.into_values().collect::<Vec<_>>())?;
        one.set_item("damage", info.damage)?;
        out.append(one)?;
    }
    Ok(out)
}

/// Reads every byte of a state directory: what is wrong with each checkpoint, newest first, and notes.
#[pyfunction]
#[allow(clippy::type_complexity)]
pub fn verify(py: Python<'_>, path: &str) -> PyResult<(Vec<(u64, Option<String>)>, Vec<String>)> {
    let path = PathBuf::from(path);
    let report = interruptible(py, move || millstream::verify(&path))?;
    Ok((report.checkpoints, report.notes))
}

/// The pickled state in a directory: checkpoint, step and part of the state.
#[pyfunction]
pub fn pickled_state(py: Python<'_>, path: &str) -> PyResult<Vec<(u64, String, String)>> {
    let path = PathBuf::from(path);
    let found = interruptible(py, move || millstream::pickled_state(&path))?;
    Ok(found.into_iter().map(|one| (one.checkpoint, one.step, one.state)).collect())
}

/// The keyed state of a step as a table.
#[pyfunction]
#[pyo3(signature = (path, step, id))]
pub fn read_state(py: Python<'_>, path: &str, step: &str, id: Option<u64>) -> PyResult<RawTable> {
    let (path, step) = (PathBuf::from(path), step.to_owned());
    let rows = interruptible(py, move || millstream::read_state(&path, &step, id))?;
    Ok(RawTable::new(rows.schema(), vec![rows]))
}
