//! Windows: which records of a key belong together.

use std::fmt;

use mill_protocol::{Error, Result};

use crate::aggregate::{AggregateKind, AggregateSpec};
use crate::expr::Expr;

/// Windows of any kind.
#[derive(Clone, Debug)]
pub enum WindowKind {
    /// Bounds that follow from the time of a record.
    Aligned(Window),
    /// Records that follow each other within a gap.
    Session(Gap),
    /// So many records, in their order.
    Count(CountWindow),
    /// All records of a key.
    Global,
    /// For each record what is this many microseconds back, itself and records of its time included.
    Rolling(i64),
}

/// How long after a record its session ends, if no other record extends it.
#[derive(Clone, Debug)]
pub enum Gap {
    /// The same for all records, in microseconds.
    Fixed(i64),
    /// A duration of each record.
    Each(Expr),
}

/// Windows of a number of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CountWindow {
    /// How many records a window has.
    pub rows: u64,
    /// After how many records the next window begins; at most the size.
    pub slide: u64,
    /// Whether what is incomplete at the end of the input has a result.
    pub is_partial: bool,
}

/// When windows have results besides that of their end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Trigger {
    /// Before the watermark has reached the end of the window.
    pub early: Option<Firing>,
    /// After that, as long as the window takes late records.
    pub late: Option<Firing>,
}

/// How often a window has results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Firing {
    /// Every so many microseconds of processing time, if it changed.
    Every(i64),
    /// After so many records of the window.
    Rows(u64),
    /// After each batch of records, if it changed.
    Each,
}

impl WindowKind {
    /// The same windows in their plain form.
    ///
    /// # Errors
    /// When there are no such windows.
    pub fn checked(self) -> Result<WindowKind> {
        Ok(match self {
            WindowKind::Aligned(window) => WindowKind::Aligned(window.checked()?),
            WindowKind::Session(Gap::Fixed(us)) => {
                positive("gap", us)?;
                WindowKind::Session(Gap::Fixed(us))
            }
            WindowKind::Count(CountWindow { rows: 0, .. } | CountWindow { slide: 0, .. }) => {
                return Err(Error::plan("count_window() needs a size and a slide of at least one record"));
            }
            WindowKind::Count(CountWindow { rows, slide, .. }) if slide > rows => {
                return Err(Error::plan(format!(
                    "a count window's slide, {slide}, must not be greater than its size, {rows}: records between two windows \
                     would belong to none"
                )));
            }
            WindowKind::Rolling(us) => {
                positive("length", us)?;
                WindowKind::Rolling(us)
            }
            WindowKind::Session(Gap::Each(_)) | WindowKind::Count(_) | WindowKind::Global => self,
        })
    }

    /// Whether its windows are spans of event time.
    pub fn is_timed(&self) -> bool {
        matches!(self, WindowKind::Aligned(_) | WindowKind::Session(_) | WindowKind::Rolling(_))
    }

    /// Whether results have the bounds of their windows.
    pub fn has_bounds(&self) -> bool {
        matches!(self, WindowKind::Aligned(_) | WindowKind::Session(_))
    }

    /// The lengths of time that make its bounds, by name.
    pub(crate) fn lengths(&self) -> Vec<(&'static str, i64)> {
        match self {
            WindowKind::Aligned(window) => window.lengths().collect(),
            WindowKind::Session(Gap::Fixed(us)) => vec![("gap", *us)],
            WindowKind::Rolling(us) => vec![("length", *us)],
            WindowKind::Session(Gap::Each(_)) | WindowKind::Count(_) | WindowKind::Global => Vec::new(),
        }
    }
}

impl fmt::Display for WindowKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WindowKind::Aligned(window) => window.fmt(f),
            WindowKind::Session(Gap::Fixed(us)) => write!(f, "session({:?})", duration(*us)),
            WindowKind::Session(Gap::Each(expr)) => write!(f, "session({expr})"),
            WindowKind::Count(CountWindow { rows, slide, is_partial }) => {
                write!(f, "count_window({rows}")?;
                if slide != rows {
                    write!(f, ", slide={slide}")?;
                }
                f.write_str(if *is_partial { ", partial=True)" } else { ")" })
            }
            WindowKind::Global => f.write_str("global_window()"),
            WindowKind::Rolling(us) => write!(f, "rolling({:?})", duration(*us)),
        }
    }
}

impl From<Window> for WindowKind {
    fn from(window: Window) -> WindowKind {
        WindowKind::Aligned(window)
    }
}

impl Trigger {
    /// Whether it says nothing.
    pub fn is_default(&self) -> bool {
        self.early.is_none() && self.late.is_none()
    }
}

impl fmt::Display for Firing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Firing::Every(us) => write!(f, "{:?}", duration(*us)),
            Firing::Rows(rows) => write!(f, "every({rows})"),
            Firing::Each => f.write_str("each()"),
        }
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [("early", self.early), ("late", self.late)];
        let parts: Vec<String> =
            parts.into_iter().filter_map(|(name, firing)| Some(format!("{name}={}", firing?))).collect();
        write!(f, "on_watermark({})", parts.join(", "))
    }
}

fn positive(what: &str, us: i64) -> Result<()> {
    match us {
        1.. => Ok(()),
        _ => Err(Error::plan(format!("a window's {what} must be positive, found {}", duration(us)))),
    }
}

/// Windows whose bounds follow from the time of a record. Times are in microseconds since the epoch, bounds are half-open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Window {
    /// Windows of one size, each beginning where the one before ends.
    Tumbling {
        /// How long a window is.
        size_us: i64,
        /// Where windows begin: at `offset + n * size`.
        offset_us: i64,
    },
    /// Windows of one size that overlap: one begins every slide.
    Sliding {
        /// How long a window is.
        size_us: i64,
        /// How far the next window begins after this one; at most the size.
        slide_us: i64,
        /// Where windows begin: at `offset + n * slide`.
        offset_us: i64,
    },
    /// Windows that begin together and end one step after the other, until the longest of them is complete.
    Cumulative {
        /// How much longer each window is than the one before.
        step_us: i64,
        /// How long the longest window is: a multiple of the step.
        size_us: i64,
        /// Where windows begin: at `offset + n * size`.
        offset_us: i64,
    },
}

impl Window {
    /// The same windows with an offset between zero and their period.
    ///
    /// # Errors
    /// When there are no such windows.
    pub fn checked(self) -> Result<Window> {
        match self {
            Window::Tumbling { size_us, offset_us } => {
                positive("size", size_us)?;
                Ok(Window::Tumbling { size_us, offset_us: offset_us.rem_euclid(size_us) })
            }
            Window::Sliding { size_us, slide_us, offset_us } => {
                positive("size", size_us)?;
                positive("slide", slide_us)?;
                if slide_us > size_us {
                    return Err(Error::plan(format!(
                        "a sliding window's slide, '{}', must not be longer than its size, '{}': records between two windows \
                         would belong to none; filter them out if that is what you want",
                        duration(slide_us),
                        duration(size_us)
                    )));
                }
                Ok(Window::Sliding { size_us, slide_us, offset_us: offset_us.rem_euclid(slide_us) })
            }
            Window::Cumulative { step_us, size_us, offset_us } => {
                positive("size", size_us)?;
                positive("step", step_us)?;
                if size_us % step_us != 0 {
                    return Err(Error::plan(format!(
                        "a cumulative window's size, '{}', must be a multiple of its step, '{}'",
                        duration(size_us),
                        duration(step_us)
                    )));
                }
                Ok(Window::Cumulative { step_us, size_us, offset_us: offset_us.rem_euclid(size_us) })
            }
        }
    }

    /// The lengths of time that make its bounds, by name.
    pub(crate) fn lengths(&self) -> impl Iterator<Item = (&'static str, i64)> + use<> {
        match *self {
            Window::Tumbling { size_us, offset_us } => vec![("size", size_us), ("offset", offset_us)],
            Window::Sliding { size_us, slide_us, offset_us } => {
                vec![("size", size_us), ("slide", slide_us), ("offset", offset_us)]
            }
            Window::Cumulative { step_us, size_us, offset_us } => {
                vec![("step", step_us), ("size", size_us), ("offset", offset_us)]
            }
        }
        .into_iter()
    }

    /// Whether a record may belong to several windows.
    pub fn is_overlapping(&self) -> bool {
        match *self {
            Window::Sliding { size_us, slide_us, .. } => slide_us < size_us,
            Window::Cumulative { step_us, size_us, .. } => step_us < size_us,
            Window::Tumbling { .. } => false,
        }
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let offset = match *self {
            Window::Tumbling { size_us, offset_us } => {
                write!(f, "tumbling({:?}", duration(size_us))?;
                offset_us
            }
            Window::Sliding { size_us, slide_us, offset_us } => {
                write!(f, "sliding({:?}, slide={:?}", duration(size_us), duration(slide_us))?;
                offset_us
            }
            Window::Cumulative { step_us, size_us, offset_us } => {
                write!(f, "cumulative(step={:?}, size={:?}", duration(step_us), duration(size_us))?;
                offset_us
            }
        };
        if offset != 0 {
            write!(f, ", offset={:?}", duration(offset))?;
        }
        f.write_str(")")
    }
}

/// The windows of a step that keeps records until their window has its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeptWindowSpec {
    /// Which records belong together.
    pub window: KeptWindow,
    /// How late a record may be for its window, in microseconds.
    pub allowed_lateness_us: i64,
    /// When there are results besides that of the window's end.
    pub trigger: Trigger,
}

impl KeptWindowSpec {
    /// Whether a row of accumulators a key and window is enough for these aggregates, so that no records have to be kept. Of
    /// sessions it is not asked here: whether two of them become one is not known before the record that joins them.
    pub fn is_of_rows(&self, aggregates: &[AggregateSpec]) -> bool {
        let is_of_fixed_size = |spec: &AggregateSpec| spec.kind.is_of_fixed_size();
        match self.window {
            KeptWindow::Aligned(_) => aggregates.iter().all(is_of_fixed_size),
            // Rows stay until the input ends, and so may the distinct values that are kept beside them.
            KeptWindow::Global => aggregates.iter().all(|spec| is_of_fixed_size(spec) || matches!(spec.kind, AggregateKind::NUnique)),
            KeptWindow::Count(window) => window.slide == window.rows && aggregates.iter().all(is_of_fixed_size),
            KeptWindow::Session(_) | KeptWindow::Rolling(_) => false,
        }
    }
}

/// Windows of kept records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeptWindow {
    /// Bounds that follow from the time of a record.
    Aligned(Window),
    /// Records that follow each other within a gap.
    Session(SessionGap),
    /// So many records, in their order.
    Count(CountWindow),
    /// All records of a key.
    Global,
    /// For each record what is this many microseconds back, itself and records of its time included.
    Rolling(i64),
}

/// How long after a record its session ends, if no other record extends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SessionGap {
    /// The same for all records, in microseconds.
    Fixed(i64),
    /// What this column of the input holds, a duration in microseconds.
    Column(usize),
}

impl KeptWindow {
    /// Whether its windows are spans of event time.
    pub fn is_timed(&self) -> bool {
        matches!(self, KeptWindow::Aligned(_) | KeptWindow::Session(_) | KeptWindow::Rolling(_))
    }

    /// Whether results have the bounds of their windows.
    pub fn has_bounds(&self) -> bool {
        matches!(self, KeptWindow::Aligned(_) | KeptWindow::Session(_))
    }

    /// Whether each record has a result, which begins with its columns.
    pub fn is_of_records(&self) -> bool {
        matches!(self, KeptWindow::Rolling(_))
    }
}

/// The windows of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WindowSpec {
    /// Which records belong together.
    pub window: Window,
    /// How late a record may be for its window, in microseconds.
    pub allowed_lateness_us: i64,
}

impl WindowSpec {
    /// These windows, with this allowed lateness in microseconds.
    pub fn new(window: Window, allowed_lateness_us: i64) -> WindowSpec {
        WindowSpec { window, allowed_lateness_us }
    }
}

/// Microseconds as a user writes a duration: `1m30s`.
pub(crate) fn duration(us: i64) -> String {
    const UNITS: [(&str, i64); 6] =
        [("d", 86_400_000_000), ("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1000), ("us", 1)];
    if us == 0 {
        return "0s".to_owned();
    }
    let mut rest = us.unsigned_abs();
    let mut text = if us < 0 { "-".to_owned() } else { String::new() };
    for (unit, size) in UNITS {
        let count = rest / size.unsigned_abs();
        rest %= size.unsigned_abs();
        if count > 0 {
            text.push_str(&format!("{count}{unit}"));
        }
    }
    text
}
