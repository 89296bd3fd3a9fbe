//! The bytes of a description.

use arrow::datatypes::{DataType, Field, Schema};
use mill_frame::schema;
use mill_plan::{
    AggregateKind, AggregateSpec, CountWindow, JoinedColumn, KeptWindow, KeptWindowSpec, SessionGap, TableRows,
    Window,
};

use super::{
    AGGREGATE, AGGREGATE_WINDOWED, ASOF, BY_TIME, CHANGELOG, CUMULATIVE, DEDUPLICATE, DEDUPLICATE_WITHIN, Description, ENRICH,
    FLAG_PENDING, HAS_FILTER, HAS_INPUT, JOIN, JoinShape, JoinWindow, PROCESS, REDUCE, REGULAR_JOIN, SESSIONS,
    SHIFT, SLIDING, Shape, TOP_N, TOP_N_WINDOWED, TRIGGERED, TUMBLING,
};

impl Description {
    /// The bytes; `None` if a type cannot be written.
    pub(super) fn write(&self) -> Option<Vec<u8>> {
        let mut out = vec![if self.keeps_pending { FLAG_PENDING } else { 0 }];
        put_bytes(&mut out, &schema::to_bytes(&self.schema).ok()?);
        match &self.shape {
            Shape::Aggregate { keys, aggregates, window } => {
                out.push(if window.is_some() { AGGREGATE_WINDOWED } else { AGGREGATE });
                put_number(&mut out, *keys);
                if let Some(spec) = window {
                    put_window(&mut out, &spec.window);
                }
                put_number(&mut out, aggregates.len());
                for spec in aggregates {
                    put_aggregate(&mut out, spec)?;
                }
            }
            Shape::Sessions { keys, aggregates } => {
                out.push(SESSIONS);
                put_number(&mut out, *keys);
                put_number(&mut out, aggregates.len());
                for spec in aggregates {
                    put_aggregate(&mut out, spec)?;
                }
            }
            Shape::Triggered { keys, spec, aggregates } => {
                out.push(TRIGGERED);
                put_number(&mut out, *keys);
                put_kept_window(&mut out, spec);
                put_number(&mut out, aggregates.len());
                for spec in aggregates {
                    put_aggregate(&mut out, spec)?;
                }
            }
            Shape::Asof { left, keys, tolerance_us } => {
                out.push(ASOF);
                put_bytes(&mut out, &schema::to_bytes(left).ok()?);
                keys.iter().for_each(|keys| put_keys(&mut out, keys));
                out.extend_from_slice(&tolerance_us.unwrap_or(i64::MAX).to_le_bytes());
            }
            Shape::Enrich { left, keys, rows } => {
                out.push(ENRICH);
                put_bytes(&mut out, &schema::to_bytes(left).ok()?);
                keys.iter().for_each(|keys| put_keys(&mut out, keys));
                out.push(u8::from(*rows == TableRows::Latest));
            }
            Shape::Reduce { keys } => {
                out.push(REDUCE);
                put_keys(&mut out, keys);
            }
            Shape::TopN { keys, window: None } => {
                out.push(TOP_N);
                put_keys(&mut out, keys);
            }
            Shape::TopN { keys, window: Some(spec) } => {
                out.push(TOP_N_WINDOWED);
                put_keys(&mut out, keys);
                put_window(&mut out, &spec.window);
            }
            Shape::Deduplicate { keys, within_us: None } => {
                out.push(DEDUPLICATE);
                put_number(&mut out, *keys);
            }
            Shape::Deduplicate { keys, within_us: Some(us) } => {
                out.push(DEDUPLICATE_WITHIN);
                put_number(&mut out, *keys);
                out.extend_from_slice(&us.to_le_bytes());
            }
            Shape::Shift { keys } => {
                out.push(SHIFT);
                put_number(&mut out, *keys);
            }
            Shape::Changelog { keys } => {
                out.push(CHANGELOG);
                put_keys(&mut out, keys);
            }
            Shape::Process { keys } => {
                out.push(PROCESS);
                put_number(&mut out, *keys);
            }
            Shape::Join(shape) | Shape::RegularJoin(shape) => {
                let JoinShape { kept, columns, window } = shape;
                out.push(if let Shape::Join(_) = self.shape { JOIN } else { REGULAR_JOIN });
                for schema in kept {
                    put_bytes(&mut out, &schema::to_bytes(schema).ok()?);
                }
                put_number(&mut out, columns.len());
                for column in columns {
                    let (code, place, other) = match *column {
                        JoinedColumn::Left(place) => (1, place, 0),
                        JoinedColumn::Right(place) => (2, place, 0),
                        JoinedColumn::Key { left, right } => (3, left, right),
                        JoinedColumn::WindowStart => (4, 0, 0),
                        JoinedColumn::WindowEnd => (5, 0, 0),
                    };
                    out.push(code);
                    put_number(&mut out, place);
                    put_number(&mut out, other);
                }
                match window {
                    None => out.push(0),
                    Some(JoinWindow::Aligned(window)) => {
                        out.push(1);
                        put_window(&mut out, window);
                    }
                    Some(JoinWindow::Session(gap)) => {
                        out.push(2);
                        out.extend_from_slice(&gap.to_le_bytes());
                    }
                }
            }
            Shape::Kept { keys, records, spec, aggregates } => {
                out.push(4);
                put_number(&mut out, keys.len());
                keys.iter().for_each(|&key| put_number(&mut out, key));
                put_bytes(&mut out, &schema::to_bytes(records).ok()?);
                put_kept_window(&mut out, spec);
                out.push(u8::from(aggregates.is_some()));
                let aggregates = aggregates.as_deref().unwrap_or_default();
                put_number(&mut out, aggregates.len());
                for spec in aggregates {
                    put_aggregate(&mut out, spec)?;
                    put_number(&mut out, spec.input.unwrap_or(0));
                    put_number(&mut out, spec.filter.unwrap_or(0));
                }
            }
        }
        Some(out)
    }
}

fn put_keys(out: &mut Vec<u8>, keys: &[usize]) {
    put_number(out, keys.len());
    keys.iter().for_each(|&key| put_number(out, key));
}

fn put_number(out: &mut Vec<u8>, number: usize) {
    let number = u32::try_from(number).expect("a step has fewer than 2^32 columns and bytes of description");
    out.extend_from_slice(&number.to_le_bytes());
}

pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn put_window(out: &mut Vec<u8>, window: &Window) {
    let (kind, numbers) = match *window {
        Window::Tumbling { size_us, offset_us } => (TUMBLING, vec![size_us, offset_us]),
        Window::Sliding { size_us, slide_us, offset_us } => (SLIDING, vec![size_us, slide_us, offset_us]),
        Window::Cumulative { step_us, size_us, offset_us } => (CUMULATIVE, vec![step_us, size_us, offset_us]),
    };
    out.push(kind);
    numbers.iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
}

fn put_kept_window(out: &mut Vec<u8>, spec: &KeptWindowSpec) {
    match &spec.window {
        KeptWindow::Aligned(window) => {
            out.push(1);
            put_window(out, window);
        }
        KeptWindow::Session(SessionGap::Fixed(us)) => {
            out.push(2);
            out.extend_from_slice(&us.to_le_bytes());
        }
        KeptWindow::Session(SessionGap::Column(_)) => out.push(3),
        KeptWindow::Count(CountWindow { rows, slide, is_partial }) => {
            out.push(4);
            out.extend_from_slice(&rows.to_le_bytes());
            out.extend_from_slice(&slide.to_le_bytes());
            out.push(u8::from(*is_partial));
        }
        KeptWindow::Global => out.push(5),
        KeptWindow::Rolling(us) => {
            out.push(6);
            out.extend_from_slice(&us.to_le_bytes());
        }
    }
    out.push(u8::from(!spec.trigger.is_default()));
}

/// The number of an aggregate in the format, and its parameter.
fn code(kind: &AggregateKind) -> (u8, f64) {
    match kind {
        AggregateKind::Count => (1, 0.0),
        AggregateKind::Sum => (2, 0.0),
        AggregateKind::Mean => (3, 0.0),
        AggregateKind::Min => (4, 0.0),
        AggregateKind::Max => (5, 0.0),
        AggregateKind::First => (6, 0.0),
        AggregateKind::Last => (7, 0.0),
        AggregateKind::NUnique => (8, 0.0),
        AggregateKind::ApproxNUnique => (9, 0.0),
        AggregateKind::Std => (10, 0.0),
        AggregateKind::Var => (11, 0.0),
        AggregateKind::Quantile(at) => (12, *at),
        AggregateKind::ApproxQuantile(at) => (13, *at),
        AggregateKind::Median => (14, 0.0),
        AggregateKind::Collect => (15, 0.0),
        AggregateKind::User(_) => (16, 0.0),
        AggregateKind::Product => (17, 0.0),
        AggregateKind::MinBy => (18, 0.0),
        AggregateKind::MaxBy => (19, 0.0),
    }
}

fn put_aggregate(out: &mut Vec<u8>, spec: &AggregateSpec) -> Option<()> {
    let (code, parameter) = code(&spec.kind);
    out.push(code);
    let flags = [(spec.input_type.is_some(), HAS_INPUT), (spec.filter.is_some(), HAS_FILTER), (spec.by_time, BY_TIME)];
    out.push(flags.into_iter().filter(|(is_set, _)| *is_set).fold(0, |all, (_, flag)| all | flag));
    out.extend_from_slice(&parameter.to_bits().to_le_bytes());
    put_bytes(out, spec.name.as_bytes());
    put_bytes(out, if code == 16 { spec.kind.name() } else { String::new() }.as_bytes());
    let input = spec.input_type.clone().unwrap_or(DataType::Null);
    let types = Schema::new(vec![Field::new("input", input, true), Field::new("output", spec.output_type.clone(), true)]);
    put_bytes(out, &schema::to_bytes(&types).ok()?);
    Some(())
}
