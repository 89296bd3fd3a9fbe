//! The description of a stage that looks up rows of one input for rows of another, as the operators read it.

use std::fmt;

use arrow::datatypes::SchemaRef;

use crate::join::{How, JoinedColumn};
use crate::window::duration;

/// Which right rows belong to a left one, and when that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupKind {
    /// The newest one that is not after it.
    Asof {
        /// How much older it may be, in microseconds.
        tolerance_us: Option<i64>,
    },
    /// Those that are there.
    Enrich {
        /// Which of the right rows of a key count.
        rows: TableRows,
        /// What becomes of left rows before the right side has ended.
        until_loaded: UntilLoaded,
    },
}

impl LookupKind {
    /// The word for it in plans and messages.
    pub fn label(&self) -> &'static str {
        match self {
            LookupKind::Asof { .. } => "join_asof",
            LookupKind::Enrich { .. } => "enrich",
        }
    }
}

/// Which rows of a key count on the side that is looked up in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableRows {
    /// All of them.
    All,
    /// The one that came last; none if that one withdraws the key.
    Latest,
}

/// What becomes of left rows before the side that they are looked up in has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UntilLoaded {
    /// They are looked up in what is there by then.
    Pass,
    /// They stay in their queues, so that their source waits.
    Hold,
    /// They are kept in the state: their source cannot wait, as the other side depends on it.
    Keep,
}

/// What a stage with two inputs does that looks rows up.
#[derive(Clone, Debug)]
pub struct LookupPlan {
    /// Which right rows belong to a left one.
    pub kind: LookupKind,
    /// Which rows there are.
    pub how: How,
    /// The key columns of each input, of the same types.
    pub keys: [Vec<usize>; 2],
    /// The columns of each input.
    pub inputs: [SchemaRef; 2],
    /// How many columns each input has of its own; those after them were computed for the key.
    pub own: [usize; 2],
    /// The columns of the result.
    pub columns: Vec<JoinedColumn>,
    /// The key as people read it.
    pub on: String,
}

impl fmt::Display for LookupPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "on {}, how={:?}", self.on, self.how.as_str())?;
        match self.kind {
            LookupKind::Asof { tolerance_us: None } => f.write_str(
                "; keeps left rows until the right watermark has passed them, and right rows until a later one of their key is at or \
                 before both watermarks",
            ),
            LookupKind::Asof { tolerance_us: Some(us) } => {
                let tolerance = duration(us);
                write!(
                    f,
                    ", tolerance={tolerance:?}; keeps left rows until the right watermark has passed them, and right rows until a later \
                     one of their key is at or before both watermarks, or both are more than {tolerance} after them"
                )
            }
            LookupKind::Enrich { rows, until_loaded } => {
                f.write_str(match rows {
                    TableRows::All => "; keeps all right rows for ever",
                    TableRows::Latest => "; keeps the latest right row of each key for ever",
                })?;
                f.write_str(match until_loaded {
                    UntilLoaded::Pass => "; which one is the latest when a left row comes depends on timing",
                    UntilLoaded::Hold => "; the left side is read once the right one has ended",
                    UntilLoaded::Keep => "; keeps left rows until the right side has ended, as it depends on the source of the left one",
                })
            }
        }
    }
}
