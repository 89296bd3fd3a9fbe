//! What the fields of a sample have in common, column by column.
//!
//! Integers with leading zeros or a plus sign stay text: they are codes rather than numbers. A column without any value
//! is text.

use super::tokens::Field;
use crate::infer::Common;

/// What each column of a sample holds.
pub(crate) fn infer_columns(data: &[u8], fields: &[Field], columns: usize, nulls: &[String]) -> Vec<Common> {
    let mut common = vec![Common::Nothing; columns];
    for record in fields.chunks_exact(columns) {
        for (common, field) in common.iter_mut().zip(record) {
            let value = field.bytes(data).trim_ascii();
            // Blanks are neither a number nor nothing: a column that has them is text, and keeps them.
            let is_null = field.bytes(data).is_empty() || nulls.iter().any(|null| null.as_bytes() == value);
            if *common != Common::Text && !is_null {
                let found = if value.is_empty() { Common::Text } else { Common::of_field(value) };
                *common = std::mem::replace(common, Common::Nothing).and(found);
            }
        }
    }
    common
}
