//! The description of a stage that joins two streams, as the operators read it.
//!
//! Every kind of join has the same parts: which columns of each input are its key, which columns of which side make up the
//! result, and for which records without a partner there is a row all the same. The kinds differ only in which records of
//! one key are partners, and how long each side keeps its own.

use std::fmt;

use arrow::datatypes::SchemaRef;

use crate::window::{Window, duration};

/// Which rows a join has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum How {
    /// One for each pair.
    Inner,
    /// Also one for each left record without a partner.
    Left,
    /// Also one for each right record without a partner.
    Right,
    /// Also one for each record without a partner, of both sides.
    Full,
    /// Each left record that has a partner, once.
    Semi,
    /// Each left record that has none.
    Anti,
}

impl How {
    /// All of them.
    pub const ALL: [How; 6] = [How::Inner, How::Left, How::Right, How::Full, How::Semi, How::Anti];

    /// The word users write.
    pub fn as_str(self) -> &'static str {
        match self {
            How::Inner => "inner",
            How::Left => "left",
            How::Right => "right",
            How::Full => "full",
            How::Semi => "semi",
            How::Anti => "anti",
        }
    }

    /// The one that users write so.
    pub fn of(word: &str) -> Option<How> {
        How::ALL.into_iter().find(|how| how.as_str() == word)
    }

    /// Whether pairs make rows with the columns of both sides.
    pub fn has_pairs(self) -> bool {
        !matches!(self, How::Semi | How::Anti)
    }

    /// Whether a record of this side (0: left, 1: right) without a partner makes a row.
    pub fn is_padded(self, side: usize) -> bool {
        match self {
            How::Inner | How::Semi => false,
            How::Left | How::Anti => side == 0,
            How::Right => side == 1,
            How::Full => true,
        }
    }
}

/// Where a column of a joined row comes from; columns are places in the input of a side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinedColumn {
    /// The left record.
    Left(usize),
    /// The right record.
    Right(usize),
    /// The key, which both have, or the one that is there.
    Key {
        /// Its place in the left input.
        left: usize,
        /// Its place in the right input.
        right: usize,
    },
    /// The start of the window.
    WindowStart,
    /// The end of the window.
    WindowEnd,
}

/// Which records of one key are partners, and for how long each side keeps its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinKind {
    /// Those whose times are so far apart: right minus left, both bounds included, in microseconds.
    Interval {
        /// The least distance.
        lower_us: i64,
        /// The greatest distance.
        upper_us: i64,
    },
    /// Those in one window, once for each window that has both.
    Window(Window),
    /// Those in one session, which records of both sides make up together.
    Session {
        /// How long after its last record a session ends, in microseconds.
        gap_us: i64,
    },
}

impl JoinKind {
    /// The word for it in plans and messages.
    pub fn label(&self) -> &'static str {
        match self {
            JoinKind::Interval { .. } => "join_interval",
            JoinKind::Window(_) | JoinKind::Session { .. } => "join",
        }
    }
}

/// What a stage with two inputs does that joins them.
#[derive(Clone, Debug)]
pub struct JoinPlan {
    /// Which records are partners.
    pub kind: JoinKind,
    /// Which rows there are.
    pub how: How,
    /// The key columns of each input, of the same types.
    pub keys: [Vec<usize>; 2],
    /// The columns of each input.
    pub inputs: [SchemaRef; 2],
    /// How many columns each input has of its own; those after them were computed for the join.
    pub own: [usize; 2],
    /// The columns of the result.
    pub columns: Vec<JoinedColumn>,
    /// The key as people read it.
    pub on: String,
}

/// For how long a side keeps a record, for people.
fn kept(side: &str, other: &str, after_us: i64) -> String {
    match after_us {
        0 => format!("{side} until the {other} watermark has passed a record"),
        1.. => format!("{side} until the {other} watermark is {} after a record", duration(after_us)),
        _ => format!("{side} until the {other} watermark is {} before a record", duration(after_us.saturating_neg())),
    }
}

impl fmt::Display for JoinPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "on {}, how={:?}, ", self.on, self.how.as_str())?;
        match &self.kind {
            JoinKind::Interval { lower_us, upper_us } => write!(
                f,
                "right within {} to {}; keeps {} and {}",
                signed(*lower_us),
                signed(*upper_us),
                kept("left", "right", *upper_us),
                kept("right", "left", lower_us.saturating_neg())
            ),
            JoinKind::Window(window) => write!(
                f,
                "{window}; keeps a record of each side until the watermark of the other has passed the end of its window"
            ),
            JoinKind::Session { gap_us } => write!(
                f,
                "session({:?}); keeps both sides until the watermarks of both have passed the end of a session",
                duration(*gap_us)
            ),
        }
    }
}

/// A distance in time with its sign.
pub(crate) fn signed(us: i64) -> String {
    if us < 0 { format!("-{}", duration(us.saturating_neg())) } else { duration(us) }
}
