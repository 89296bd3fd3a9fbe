//! What each stage keeps, and for how long, in words for `explain()`.

use mill_frame::words::counted;

use super::StageKind;
use super::kind::WindowCompute;
use crate::stream::{Emit, duration};
use crate::window::{CountWindow, KeptWindow, KeptWindowSpec, Window, WindowSpec};

impl StageKind {
    /// What it keeps between records and for how long; `None` if it keeps nothing, or what a sink keeps until its commit.
    pub(super) fn keeps(&self) -> Option<String> {
        Some(match self {
            StageKind::Limit(_) => "keeps how many rows it has passed on".to_owned(),
            StageKind::EventTime { .. } => "keeps the watermark of each split until the split ends".to_owned(),
            StageKind::Aggregate { keys, emit, .. } => format!("keeps a row{} {}", a_key(keys), until_emitted(*emit)),
            StageKind::Reduce { keys, emit, .. } => format!("keeps a record{} {}", a_key(keys), until_emitted(*emit)),
            StageKind::WindowAggregate { keys, window, .. } => format!("keeps {}", rows_of_windows(keys, window)),
            StageKind::SessionAggregate { keys, allowed_lateness_us, .. } => {
                let of_key = if keys.is_empty() { "" } else { "key and " };
                format!("keeps a row a {of_key}session until the watermark is {}", at_end("the session", *allowed_lateness_us))
            }
            StageKind::TriggeredAggregate { keys, spec, .. } => {
                let is_timed = spec.window.is_timed();
                let of = match (keys.is_empty(), is_timed) {
                    (true, true) => " a window",
                    (false, true) => " a key and window",
                    (true, false) => "",
                    (false, false) => " a key",
                };
                let until = match spec.window {
                    KeptWindow::Count(_) => "until its window is full".to_owned(),
                    KeptWindow::Global => "until the input ends".to_owned(),
                    _ => format!("until the watermark is {}", at_end("the window", spec.allowed_lateness_us)),
                };
                format!("keeps a row{of} {until}")
            }
            StageKind::KeptWindow { keys, spec, compute, .. } => format!("keeps {}", records_of_windows(keys, spec, compute)),
            StageKind::TopN { keys, rows, window: None, .. } => {
                format!("keeps {}{} for as long as the job runs", counted(rows, "row"), a_key(keys))
            }
            StageKind::TopN { keys, rows, window: Some(window), .. } => {
                let and_window = if keys.is_empty() { " a window" } else { " a key and window" };
                format!("keeps {}{and_window} until the watermark is {}", counted(rows, "row"), at_end("the window", window.allowed_lateness_us))
            }
            StageKind::Deduplicate { within_us: None, .. } => "keeps each key for as long as the job runs".to_owned(),
            StageKind::Deduplicate { within_us: Some(us), .. } => {
                format!("keeps each key until the watermark is {:?} after its row", duration(*us))
            }
            StageKind::Shift { keys, rows, .. } => format!("keeps {}{} for as long as the job runs", counted(rows, "row"), a_key(keys)),
            StageKind::ToChangelog { .. } | StageKind::LatestRows { .. } => "keeps the latest row a key for as long as the job runs".to_owned(),
            StageKind::Process(stage) => stage.keeps(),
            StageKind::MapAsync(_) => "keeps the records in flight until they are answered".to_owned(),
            // A join says what it keeps of each side in its own line.
            StageKind::Join(_) | StageKind::RegularJoin(_) | StageKind::Lookup(_) => return None,
            // Partial results have gone out when a barrier comes.
            StageKind::PartialAggregate { .. }
            | StageKind::Project { .. }
            | StageKind::Filter(_)
            | StageKind::Branch(_)
            | StageKind::Explode { .. }
            | StageKind::Unnest { .. }
            | StageKind::User { .. }
            | StageKind::FromChangelog { .. }
            | StageKind::Sink(_)
            | StageKind::Pass => return None,
        })
    }
}

fn a_key(keys: &[usize]) -> &'static str {
    if keys.is_empty() { "" } else { " a key" }
}

fn until_emitted(emit: Emit) -> &'static str {
    match emit {
        Emit::End => "until the input ends",
        Emit::Default | Emit::Every(_) | Emit::Checkpoint | Emit::Each => "for as long as the job runs",
    }
}

fn at_end(of: &str, allowed_lateness_us: i64) -> String {
    match allowed_lateness_us {
        0 => format!("at the end of {of}"),
        us => format!("{:?} after the end of {of}", duration(us)),
    }
}

fn rows_of_windows(keys: &[usize], spec: &WindowSpec) -> String {
    let of_key = if keys.is_empty() { "" } else { "key and " };
    let (piece, window) = match spec.window {
        Window::Sliding { slide_us, .. } if spec.window.is_overlapping() => {
            (format!("pane of {:?}", duration(slide_us)), "the last window that holds it")
        }
        Window::Cumulative { step_us, .. } => (format!("step of {:?}", duration(step_us)), "the last window that holds it"),
        Window::Tumbling { .. } | Window::Sliding { .. } => ("window".to_owned(), "the window"),
    };
    format!("a row a {of_key}{piece} until the watermark is {}", at_end(window, spec.allowed_lateness_us))
}

fn records_of_windows(keys: &[usize], spec: &KeptWindowSpec, compute: &WindowCompute) -> String {
    let of_key = if keys.is_empty() { "" } else { " of each key" };
    let columns = match compute {
        WindowCompute::Aggregates(_) => "the columns that it needs of the records",
        WindowCompute::Reduce(_) | WindowCompute::Apply(_) => "the records",
    };
    match spec.window {
        KeptWindow::Aligned(_) => {
            format!("{columns}{of_key} until the watermark is {}", at_end("their window", spec.allowed_lateness_us))
        }
        KeptWindow::Session(_) => {
            format!("{columns}{of_key} until the watermark is {}", at_end("their session", spec.allowed_lateness_us))
        }
        KeptWindow::Count(CountWindow { rows, .. }) => {
            format!("{columns}{of_key}, at most {}, until they fill a window", rows.saturating_sub(1))
        }
        KeptWindow::Global => format!("{columns}{of_key} until the input ends"),
        KeptWindow::Rolling(us) => {
            format!("the records{of_key} until the watermark is {:?} after them", duration(us))
        }
    }
}
