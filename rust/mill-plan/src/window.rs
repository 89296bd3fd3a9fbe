//! Windows: which records of a key belong together.

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
}

impl Window {
    /// The same windows with an offset between zero and their period.
    ///
    /// # Errors
    /// When there are no such windows.
    pub fn checked(self) -> Result<Window> {
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
