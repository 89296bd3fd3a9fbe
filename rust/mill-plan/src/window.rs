//! Windows: which records of a key belong together, and when their results are emitted.

use std::fmt;

use mill_protocol::{Error, Result};

/// Which records of a key belong together. Times are in microseconds since the epoch, bounds are half-open.
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
    /// Windows of activity: a window ends when no record has come for the gap.
    Session {
        /// How long after its time a record keeps a session open; absent if each record has a gap of its own.
        gap_us: Option<i64>,
    },
    /// Windows of so many records of a key, in order of arrival.
    Count {
        /// How many records a window has.
        size: u64,
        /// After how many records the next window begins; at most the size.
        slide: u64,
        /// Whether windows that are incomplete at the end of the input have a result too.
        partial: bool,
    },
    /// One window for all records of a key.
    Global,
}

impl Window {
    /// The same windows with an offset between zero and their period.
    ///
    /// # Errors
    /// When there are no such windows.
    pub(crate) fn checked(self) -> Result<Window> {
        let positive = |what: &str, us: i64| match us {
            1.. => Ok(us),
            _ => Err(Error::plan(format!("a window's {what} must be positive, found {}", duration(us)))),
        };
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
                        "a sliding window's slide, {}, must not be longer than its size, {}: records between two windows \
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
                        "a cumulative window's size, {}, must be a multiple of its step, {}",
                        duration(size_us),
                        duration(step_us)
                    )));
                }
                Ok(Window::Cumulative { step_us, size_us, offset_us: offset_us.rem_euclid(size_us) })
            }
            Window::Session { gap_us } => {
                gap_us.map(|gap_us| positive("gap", gap_us)).transpose()?;
                Ok(self)
            }
            Window::Count { size, slide, .. } => {
                if slide == 0 || size == 0 {
                    return Err(Error::plan("a window of records must have at least one record, and slide by at least one"));
                }
                if slide > size {
                    return Err(Error::plan(format!(
                        "count_window({size}, slide={slide}): the slide must not be larger than the size, as records between two \
                         windows would belong to none"
                    )));
                }
                Ok(self)
            }
            Window::Global => Ok(self),
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
            Window::Session { gap_us } => gap_us.map(|gap_us| ("gap", gap_us)).into_iter().collect(),
            Window::Count { .. } | Window::Global => Vec::new(),
        }
        .into_iter()
    }

    /// Whether a window's bounds are known from the time of any of its records alone.
    pub fn is_aligned(&self) -> bool {
        matches!(self, Window::Tumbling { .. } | Window::Sliding { .. } | Window::Cumulative { .. })
    }

    /// Whether a record may belong to several windows whose bounds are known from its time.
    pub fn is_overlapping(&self) -> bool {
        match *self {
            Window::Sliding { size_us, slide_us, .. } => slide_us < size_us,
            Window::Cumulative { step_us, size_us, .. } => step_us < size_us,
            Window::Tumbling { .. } | Window::Session { .. } | Window::Count { .. } | Window::Global => false,
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
            Window::Session { gap_us: Some(gap_us) } => return write!(f, "session({:?})", duration(gap_us)),
            Window::Session { gap_us: None } => return f.write_str("session(by record)"),
            Window::Count { size, slide, partial } => {
                write!(f, "count_window({size}")?;
                if slide != size {
                    write!(f, ", slide={slide}")?;
                }
                if partial {
                    f.write_str(", partial=True")?;
                }
                0
            }
            Window::Global => f.write_str("global_window(").map(|()| 0)?,
        };
        if offset != 0 {
            write!(f, ", offset={:?}", duration(offset))?;
        }
        f.write_str(")")
    }
}

/// The windows of a step, and when they have results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WindowSpec {
    /// Which records belong together.
    pub window: Window,
    /// How late a record may be for its window, in microseconds.
    pub allowed_lateness_us: i64,
    /// When results are emitted besides when the window is complete.
    pub trigger: Trigger,
    /// The column with the gap of each record in microseconds (int64), of sessions without a common gap.
    pub gap: Option<usize>,
}

impl WindowSpec {
    /// These windows, with one result each.
    pub fn new(window: Window, allowed_lateness_us: i64) -> WindowSpec {
        WindowSpec { window, allowed_lateness_us, trigger: Trigger::default(), gap: None }
    }
}

/// When a window's results are emitted besides when it is complete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Trigger {
    /// Before the watermark has reached the end of the window.
    pub early: Option<Firing>,
    /// After that, for records that the allowed lateness still lets in.
    pub late: Option<Firing>,
}

/// How often results of a window that changed are emitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Firing {
    /// Every so many microseconds of processing time.
    Every(i64),
    /// When so many records have come since the last time; checked once a batch.
    Records(u64),
}

impl Trigger {
    /// Whether windows have no results but those of complete windows.
    pub fn is_default(&self) -> bool {
        *self == Trigger::default()
    }
}

impl fmt::Display for Firing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Firing::Every(us) => write!(f, "{:?}", duration(*us)),
            Firing::Records(1) => f.write_str("each()"),
            Firing::Records(count) => write!(f, "every({count})"),
        }
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [("early", self.early), ("late", self.late)];
        let parts: Vec<String> =
            parts.iter().filter_map(|(name, firing)| firing.map(|firing| format!("{name}={firing}"))).collect();
        write!(f, "on_watermark({})", parts.join(", "))
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
