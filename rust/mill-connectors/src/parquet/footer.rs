//! What is known of a file once its footer was read.

use std::path::Path;
use std::sync::Arc;

use ::parquet::arrow::RowNumber;
use ::parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use ::parquet::errors::ParquetError;
use ::parquet::file::metadata::PageIndexPolicy;
use arrow::datatypes::{DataType, Field, SchemaRef};
use mill_frame::schema::foreign_schema;
use mill_frame::types::plain_schema;
use mill_protocol::{Error, Result};

use super::ROW_COLUMN;
use crate::guard::guarded;
use super::layout::Layout;
use super::mend::mended;
use crate::file::FileIdentity;

/// A file whose footer was read.
pub(super) struct OpenFile {
    /// The columns in the types that a stream of this file alone has.
    pub(super) schema: SchemaRef,
    /// How the columns are read, `INT96` times in microseconds.
    pub(super) metadata: ArrowReaderMetadata,
    /// The same with row numbers.
    pub(super) with_rows: ArrowReaderMetadata,
    /// The same with `INT96` times in nanoseconds, if there are any.
    pub(super) nanos: Option<ArrowReaderMetadata>,
    /// Which columns hold `INT96` times.
    pub(super) has_int96: Vec<bool>,
    pub(super) has_row_numbers: bool,
}

/// Reads the footer, with the index of pages if it is wanted and there.
pub(super) fn read(path: &Path, identity: &FileIdentity, has_pages: bool) -> Result<OpenFile> {
    let policy = if has_pages { PageIndexPolicy::Optional } else { PageIndexPolicy::Skip };
    let loaded = guarded(path, "read", || {
        ArrowReaderMetadata::load(identity.file(), ArrowReaderOptions::new().with_page_index_policy(policy))
    });
    let metadata = loaded.map_err(|e| incomplete(path, identity, e))?;
    let footer_start = footer_start(identity);
    guarded(path, "read", || {
        let layout = Layout::of(&metadata)?;
        let whole = &mended(metadata.metadata(), footer_start)?;
        let options = |schema: &SchemaRef| match schema == metadata.schema() {
            true => ArrowReaderOptions::new(),
            false => ArrowReaderOptions::new().with_schema(Arc::clone(schema)),
        };
        let numbered = Field::new(ROW_COLUMN, DataType::Int64, false).with_extension_type(RowNumber);
        let with_rows = options(&layout.micros).with_virtual_columns(vec![Arc::new(numbered)])?;
        let nanos = match layout.has_int96.contains(&true) {
            true => Some(ArrowReaderMetadata::try_new(Arc::clone(whole), options(&layout.nanos))?),
            false => None,
        };
        Ok::<_, ParquetError>(OpenFile {
            schema: Arc::new(plain_schema(&foreign_schema(&layout.nanos))),
            metadata: ArrowReaderMetadata::try_new(Arc::clone(whole), options(&layout.micros))?,
            with_rows: ArrowReaderMetadata::try_new(Arc::clone(whole), with_rows)?,
            nanos,
            has_int96: layout.has_int96,
            has_row_numbers: whole.row_groups().iter().all(|group| group.ordinal().is_some()),
        })
    })
}

/// Where the footer of a complete file begins.
fn footer_start(identity: &FileIdentity) -> u64 {
    let mut end = [0; 8];
    let size = identity.size().unwrap_or(0);
    let is_read = size >= 8 && identity.file().read_exact_at(&mut end, size - 8).is_ok();
    let [a, b, c, d, ..] = end;
    if is_read { (size - 8).saturating_sub(u64::from(u32::from_le_bytes([a, b, c, d]))) } else { size }
}

/// The same error, which says what to do if the file may not be written to its end yet.
fn incomplete(path: &Path, identity: &FileIdentity, error: Error) -> Error {
    let mut ends = [0; 4];
    let file = identity.file();
    let size = identity.size().unwrap_or(0);
    let is_there = size >= 8 && file.read_exact_at(&mut ends, size - 4).is_ok();
    match &ends {
        b"PARE" if is_there => Error::connector(format!(
            "{path:?} is an encrypted Parquet file, which cannot be read; decrypt it first"
        )),
        b"PAR1" if is_there => error,
        _ => Error::connector(format!(
            "{path:?} is not a complete Parquet file; write such files under a name beginning with '.' and rename them \
             when they are complete: {}",
            error.message()
        )),
    }
}
