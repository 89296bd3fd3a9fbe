//! How much memory the rows of a column take.

use arrow::array::{Array, AsArray, OffsetSizeTrait};
use arrow::datatypes::{DataType, Int32Type};

/// About how many bytes the rows of a column take that it shows: of a slice its own, and not those of all that it is a slice of.
/// The values of a dictionary belong to all who share them and are not counted.
///
/// # Examples
/// ```
/// use arrow::array::{Array, Int64Array, StringArray};
/// use mill_frame::shown_bytes;
/// assert_eq!(shown_bytes(&Int64Array::from_iter_values(0..100).slice(10, 5)), 5 * 8);
/// assert_eq!(shown_bytes(&StringArray::from(vec!["one", "three"]).slice(1, 1)), 4 + 5);
/// ```
pub fn shown_bytes(column: &dyn Array) -> usize {
    use DataType::*;
    let rows = column.len();
    let values = match column.data_type() {
        Utf8 => offsets_and(rows, column.as_string::<i32>().value_offsets()),
        LargeUtf8 => offsets_and(rows, column.as_string::<i64>().value_offsets()),
        Binary => offsets_and(rows, column.as_binary::<i32>().value_offsets()),
        LargeBinary => offsets_and(rows, column.as_binary::<i64>().value_offsets()),
        Utf8View => of_views(column.as_string_view().views()),
        BinaryView => of_views(column.as_binary_view().views()),
        List(_) => of_lists(rows, column.as_list::<i32>().value_offsets(), column.as_list::<i32>().values()),
        LargeList(_) => of_lists(rows, column.as_list::<i64>().value_offsets(), column.as_list::<i64>().values()),
        Map(..) => of_lists(rows, column.as_map().value_offsets(), column.as_map().entries()),
        FixedSizeList(..) => shown_bytes(column.as_fixed_size_list().values()),
        Struct(_) => column.as_struct().columns().iter().map(|field| shown_bytes(&**field)).sum(),
        Dictionary(..) => column.as_dictionary_opt::<Int32Type>().map_or(rows * 8, |column| column.keys().len() * 4),
        Boolean => rows.div_ceil(8),
        FixedSizeBinary(width) => rows * *width as usize,
        other => rows * other.primitive_width().unwrap_or(0),
    };
    values + column.nulls().map_or(0, |_| rows.div_ceil(8))
}

fn offsets_and<O: OffsetSizeTrait>(rows: usize, offsets: &[O]) -> usize {
    rows * size_of::<O>() + span(offsets).1
}

/// Where the first value begins, and how many there are.
fn span<O: OffsetSizeTrait>(offsets: &[O]) -> (usize, usize) {
    let (Some(first), Some(last)) = (offsets.first(), offsets.last()) else { return (0, 0) };
    (first.as_usize(), last.as_usize() - first.as_usize())
}

/// Those of more than 12 bytes have them elsewhere.
fn of_views(views: &[u128]) -> usize {
    let long = views.iter().map(|view| *view as u32 as usize).filter(|length| *length > 12);
    size_of_val(views) + long.sum::<usize>()
}

fn of_lists<O: OffsetSizeTrait>(rows: usize, offsets: &[O], values: &dyn Array) -> usize {
    let (start, len) = span(offsets);
    rows * size_of::<O>() + shown_bytes(&*values.slice(start, len))
}

#[cfg(test)]
mod tests;
