//! Repairs known faults that some writers leave in a footer.
//!
//! Other readers of Parquet know these faults and read such files; the library takes the footer by its word and would end
//! early or begin at the wrong byte. Only numbers that the rest of the footer proves wrong are changed:
//!
//! - The number of rows of the file is that of its row groups.
//! - A dictionary page that would begin at byte 0, or after the data pages, is not there.
//! - Writers of the first years left the header of the dictionary page out of the size of a column chunk. Their chunks
//!   reach to the next one, the last to the footer.

use std::sync::Arc;

use ::parquet::errors::{ParquetError, Result};
use ::parquet::file::metadata::{ColumnChunkMetaData, FileMetaData, ParquetMetaData, RowGroupMetaData};

/// The writer that left out the header of dictionary pages, in the versions before this one.
const SHORT_CHUNKS_BEFORE: (&str, [u32; 3]) = ("parquet-mr", [1, 2, 9]);

/// The metadata of a file whose footer begins at `footer_start`, without known faults.
pub(super) fn mended(metadata: &Arc<ParquetMetaData>, footer_start: u64) -> Result<Arc<ParquetMetaData>> {
    let file = metadata.file_metadata();
    let mut rows = 0i64;
    for (index, group) in metadata.row_groups().iter().enumerate() {
        rows = rows.checked_add(group.num_rows()).filter(|_| group.num_rows() >= 0).ok_or_else(|| {
            ParquetError::General(format!("row group {index} has {} rows", group.num_rows()))
        })?;
    }
    let ends = has_short_chunks(file).then(|| chunk_starts(metadata, footer_start));
    let is_wrong = |column: &ColumnChunkMetaData| has_no_dictionary(column) || ends.is_some();
    let has_wrong_chunks = metadata.row_groups().iter().flat_map(RowGroupMetaData::columns).any(is_wrong);
    if rows == file.num_rows() && !has_wrong_chunks {
        return Ok(Arc::clone(metadata));
    }
    let mut groups = Vec::with_capacity(metadata.num_row_groups());
    for group in metadata.row_groups() {
        let mut columns = Vec::with_capacity(group.num_columns());
        for column in group.columns() {
            let mut mended = column.clone().into_builder();
            if has_no_dictionary(column) {
                mended = mended.set_dictionary_page_offset(None);
            }
            if let Some(ends) = &ends {
                let start = start_of(column);
                let end = ends[ends.partition_point(|&other| other <= start).min(ends.len() - 1)];
                mended = mended.set_total_compressed_size(column.compressed_size().max(end.saturating_sub(start)));
            }
            columns.push(mended.build()?);
        }
        groups.push(group.clone().into_builder().set_column_metadata(columns).build()?);
    }
    let file = FileMetaData::new(
        file.version(),
        rows,
        file.created_by().map(str::to_owned),
        file.key_value_metadata().cloned(),
        file.schema_descr_ptr(),
        file.column_orders().cloned(),
    );
    let (columns, offsets) = (metadata.column_index().cloned(), metadata.offset_index().cloned());
    let mended = ParquetMetaData::new(file, groups).into_builder();
    Ok(Arc::new(mended.set_column_index(columns).set_offset_index(offsets).build()))
}

fn has_no_dictionary(column: &ColumnChunkMetaData) -> bool {
    column.dictionary_page_offset().is_some_and(|offset| offset <= 0 || offset >= column.data_page_offset())
}

fn start_of(column: &ColumnChunkMetaData) -> i64 {
    match column.dictionary_page_offset() {
        Some(offset) if !has_no_dictionary(column) => offset,
        _ => column.data_page_offset(),
    }
}

/// Where the column chunks begin, and the footer, in order.
fn chunk_starts(metadata: &ParquetMetaData, footer_start: u64) -> Vec<i64> {
    let columns = metadata.row_groups().iter().flat_map(RowGroupMetaData::columns);
    let mut starts: Vec<i64> = columns.map(start_of).collect();
    starts.push(i64::try_from(footer_start).unwrap_or(i64::MAX));
    starts.sort_unstable();
    starts
}

fn has_short_chunks(file: &FileMetaData) -> bool {
    let (name, fixed) = SHORT_CHUNKS_BEFORE;
    let Some(version) = file.created_by().and_then(|by| by.strip_prefix(name)) else { return false };
    let digits = version.trim_start_matches(" version ").split(['.', '-', ' ', '(']);
    let mut numbers = [0; 3];
    for (number, digits) in numbers.iter_mut().zip(digits) {
        *number = digits.parse().unwrap_or(0);
    }
    numbers < fixed
}
