//! What a keyed step writes about itself into a checkpoint, so that its state can be read without the plan.
//!
//! ```text
//!   the step ──Description──► Described ──of(own)──► Snapshot::bytes = own state without key + description
//!   Snapshot::bytes ──own()──► the step again                      (the plan knows the rest)
//!                   ──Description::read()──► read_state()          (there is no plan)
//! ```
//!
//! `docs/format/operator-state.md` draws the bytes. A step that continues from a checkpoint reads its own part alone: whether
//! it fits is decided by signatures and by the fingerprint of the rows. The description is for readers, who rebuild the
//! very operator from it; so it names what decides about the layout of rows and about results, and nothing else.
//!
//! Invariant: nothing in the bytes is trusted. Each length is checked before it is used, and what they describe is
//! checked as a plan would check it, so that no bytes make a reader panic.

mod read;
mod write;

use arrow::datatypes::SchemaRef;
use mill_plan::{AggregateSpec, JoinedColumn, KeptWindowSpec, TableRows, Window, WindowSpec};
use mill_protocol::{Error, Restored, Result, Watermark};

use self::read::Reader;
use self::write::put_bytes;

/// What the bytes begin with.
const MAGIC: &[u8; 8] = b"MILLKEYS";
/// The version that is written; version 1, which did not name the encoding of rows, is read too.
const VERSION: u8 = 2;
/// The version of Arrow's row encoding, in which keys of lists and structs, rows of a reduce and values too large for words
/// are kept. `arrow-row` does not promise that its bytes stay: a test compares them with those of this version, and when they
/// change the number goes up.
const ROW_ENCODING: u8 = 1;

const FLAG_PENDING: u8 = 1;
const AGGREGATE: u8 = 1;
const AGGREGATE_WINDOWED: u8 = 2;
const REDUCE: u8 = 3;
const TOP_N: u8 = 32;
const TOP_N_WINDOWED: u8 = 33;
const DEDUPLICATE: u8 = 34;
const DEDUPLICATE_WITHIN: u8 = 35;
const CHANGELOG: u8 = 36;
const SESSIONS: u8 = 37;
const TRIGGERED: u8 = 38;
const SHIFT: u8 = 39;
const JOIN: u8 = 48;
const ASOF: u8 = 49;
const ENRICH: u8 = 50;
const REGULAR_JOIN: u8 = 51;
const PROCESS: u8 = 64;
const TUMBLING: u8 = 1;
const SLIDING: u8 = 2;
const CUMULATIVE: u8 = 3;
const HAS_INPUT: u8 = 1;
const HAS_FILTER: u8 = 2;
const BY_TIME: u8 = 4;

/// The part of a keyed step that decides how its state reads.
#[derive(Clone, Debug)]
pub(crate) struct Description {
    /// The resulting columns.
    pub(crate) schema: SchemaRef,
    /// Whether rows tell if they changed since they were last emitted.
    pub(crate) keeps_pending: bool,
    /// What the step is.
    pub(crate) shape: Shape,
}

/// Which keyed step it is.
#[derive(Clone, Debug)]
pub(crate) enum Shape {
    /// The results are the keys, the start and end of the window if there is one, and the aggregates.
    Aggregate { keys: usize, aggregates: Vec<AggregateSpec>, window: Option<WindowSpec> },
    /// The same with the start and end of a session.
    Sessions { keys: usize, aggregates: Vec<AggregateSpec> },
    /// The same with the start and end of windows of event time, and `pane` and `pane_timing` if there is a trigger.
    Triggered { keys: usize, spec: KeptWindowSpec, aggregates: Vec<AggregateSpec> },
    /// The results are right rows. Left rows with these columns wait; these are the key columns of both.
    Asof { left: SchemaRef, keys: [Vec<usize>; 2], tolerance_us: Option<i64> },
    /// The same.
    Enrich { left: SchemaRef, keys: [Vec<usize>; 2], rows: TableRows },
    /// These columns are the keys.
    Reduce { keys: Vec<usize> },
    /// Records with these columns are kept, of which these are the keys; results are as those of [`Shape::Aggregate`], or
    /// what a function returns.
    Kept { keys: Vec<usize>, records: SchemaRef, spec: KeptWindowSpec, aggregates: Option<Vec<AggregateSpec>> },
    /// The results are the columns of a row, of which these are the keys, then the start and end of the window if there is
    /// one, then the rank.
    TopN { keys: Vec<usize>, window: Option<WindowSpec> },
    /// The results are the keys, and with `within_us` when the row of each has passed.
    Deduplicate { keys: usize, within_us: Option<i64> },
    /// The results are so many keys, and what is kept of each of the latest rows.
    Shift { keys: usize },
    /// The results are the columns of a row, of which these are the keys.
    Changelog { keys: Vec<usize> },
    /// The results are so many keys, the states of a user's function, and its timers.
    Process { keys: usize },
    /// Records of two inputs are kept.
    Join(JoinShape),
    /// The same by a join whose result changes with them, without windows.
    RegularJoin(JoinShape),
}

/// What a join keeps.
#[derive(Clone, Debug)]
pub(crate) struct JoinShape {
    /// The columns that are kept of each side.
    pub(crate) kept: [SchemaRef; 2],
    /// The columns of the result; places are among those that are kept.
    pub(crate) columns: Vec<JoinedColumn>,
    /// The windows, if any.
    pub(crate) window: Option<JoinWindow>,
}

/// In which windows a join joins.
#[derive(Clone, Copy, Debug)]
pub(crate) enum JoinWindow {
    /// Those whose bounds follow from the time of a record.
    Aligned(Window),
    /// Sessions of this gap in microseconds.
    Session(i64),
}

/// A description in bytes; empty if a type cannot be written, which readers are told.
pub(crate) struct Described(Vec<u8>);

impl Described {
    /// The state of a step: `own`, and what it is.
    pub(crate) fn of(&self, own: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(MAGIC.len() + 10 + own.len() + self.0.len());
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&[VERSION, ROW_ENCODING]);
        put_bytes(&mut out, own);
        put_bytes(&mut out, &self.0);
        out
    }
}

/// Whether these bytes are those of a keyed step.
pub(crate) fn is_described(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// What the step itself keeps without key.
pub(crate) fn own(bytes: &[u8]) -> Result<&[u8]> {
    Ok(parts(bytes)?.0)
}

/// The watermark of an operator whose own part it is: the least of the former instances. At an aligned barrier all have the same;
/// without alignment nothing may be lost.
pub(crate) fn restored_watermark(restored: &Restored) -> Result<Watermark> {
    let mut least: Option<i64> = None;
    for bytes in &restored.bytes {
        let own = own(bytes)?;
        let bytes: [u8; 8] = own
            .try_into()
            .map_err(|_| Error::checkpoint(format!("the watermark of a step has 8 bytes, found {}", own.len())))?;
        let at = i64::from_le_bytes(bytes);
        least = Some(least.map_or(at, |least| least.min(at)));
    }
    Ok(least.map_or(Watermark::MIN, Watermark))
}

/// The step's own part and the description.
fn parts(bytes: &[u8]) -> Result<(&[u8], &[u8])> {
    if !is_described(bytes) {
        return Err(damaged("it does not begin as such state does"));
    }
    let mut reader = Reader(&bytes[MAGIC.len()..]);
    let version = reader.byte()?;
    if !(1..=VERSION).contains(&version) {
        return Err(Error::checkpoint(format!(
            "the state of the step has format {version}, this version of Millstream reads up to {VERSION}"
        )));
    }
    let encoding = if version == 1 { 1 } else { reader.byte()? };
    if encoding != ROW_ENCODING {
        return Err(Error::checkpoint(format!(
            "the state of the step keeps rows in version {encoding} of their encoding, this version of Millstream reads \
             version {ROW_ENCODING}; go on with the version of Millstream that wrote it, or give an empty directory"
        )));
    }
    let (own, description) = (reader.bytes()?, reader.bytes()?);
    reader.end()?;
    Ok((own, description))
}

impl Description {
    /// The description in bytes.
    pub(crate) fn described(&self) -> Described {
        Described(self.write().unwrap_or_default())
    }
}

fn damaged(what: &str) -> Error {
    Error::checkpoint(format!("the state of a keyed step is damaged: {what}"))
}

#[cfg(test)]
mod tests;
