//! Finding the records that fail.
//!
//! Kernels work on whole batches, and one bad value fails the batch. The batch is then tried again in halves, until each
//! record that fails stands alone: it is rejected with its text, and all others are processed, in order. A batch without
//! a failure costs nothing extra; `k` failures among `n` records cost about `k log n` more calls.

use mill_frame::text::record_json;
use mill_protocol::{Batch, ErrorKind, Outbox, Rejected, Result};


/// Processes the records by `work`, which emits nothing before it fails; rejects those for which it fails.
///
/// # Errors
/// When `work` fails for a reason that is in no single record.
pub(crate) fn attempt(
    batch: Batch,
    out: &mut Outbox,
    work: &mut dyn FnMut(Batch, &mut Outbox) -> Result<()>,
) -> Result<()> {
    // A slice shares its columns, so keeping the batch for a second try copies nothing.
    let error = match work(batch.clone(), out) {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    if !matches!(error.kind(), ErrorKind::Data | ErrorKind::UserFunction) {
        return Err(error);
    }
    let rows = batch.rows();
    if rows <= 1 {
        out.reject(Rejected::of(error, if rows == 1 { record_json(batch.data(), 0) } else { String::new() }));
        return Ok(());
    }
    attempt(batch.slice(0, rows / 2), out, work)?;
    attempt(batch.slice(rows / 2, rows - rows / 2), out, work)
}
