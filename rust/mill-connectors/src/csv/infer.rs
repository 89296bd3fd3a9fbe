//! What the fields of a sample have in common, column by column.
//!
//! Integers with leading zeros or a plus sign stay text: they are codes rather than numbers. A column without any value
//! is text.

use super::CsvOptions;
use super::column::{is_null, swap_points};
use super::tokens::Field;
use crate::infer::Common;

/// What each column of a sample holds; `nulls` are the texts that mean null in each.
pub(crate) fn infer_columns(data: &[u8], fields: &[Field], nulls: &[Vec<String>], options: &CsvOptions) -> Vec<Common> {
    let mut common = vec![Common::Nothing; nulls.len()];
    for record in fields.chunks_exact(nulls.len()) {
        for ((common, field), nulls) in common.iter_mut().zip(record).zip(nulls) {
            if *common != Common::Text && !is_null(*field, data, nulls, options.dialect()) {
                let value = field.bytes(data).trim_ascii();
                // Blanks are neither a number nor nothing: a column that has them is text, and keeps them.
                let found = match (value.is_empty(), field.bytes(data).is_empty()) {
                    (true, false) => Common::Text,
                    (true, true) => Common::Nothing,
                    (false, _) => infer_value(value, options),
                };
                *common = std::mem::replace(common, Common::Nothing).and(found);
            }
        }
    }
    common
}

fn infer_value(value: &[u8], options: &CsvOptions) -> Common {
    let is_number = |common: &Common| matches!(common, Common::Integer(..) | Common::Float);
    let mut common = Common::of_field(value);
    if options.decimal_comma && memchr::memchr2(b',', b'.', value).is_some() {
        let mut swapped = value.to_vec();
        swap_points(&mut swapped);
        let as_number = Common::of_field(&swapped);
        if is_number(&as_number) {
            return as_number;
        }
        if is_number(&common) {
            common = Common::Text;
        }
    }
    match common {
        Common::Date | Common::Moment(_) if !options.try_parse_dates => Common::Text,
        common => common,
    }
}
