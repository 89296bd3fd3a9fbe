//! The types of MySQL that have an exact form as columns, and which of them hold which columns.
//!
//! A column that is wider than that of the stream is fine, and one that would round, pad, cut or change a value is refused by name
//! before the first record.

use ::mysql::Column;
use ::mysql::consts::{ColumnFlags, ColumnType};
use arrow::datatypes::{DataType, TimeUnit};
use mill_frame::types::type_name;

/// The most digits of a decimal, and the most after the point that every server takes.
const PRECISION_MAX: i32 = 65;
const SCALE_MAX: i32 = 30;
/// The number of the character set that is none.
const BINARY: u16 = 63;

/// A type of MySQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// So many bits.
    Bit(u32),
    Int { bits: u8, is_unsigned: bool },
    Year,
    Float,
    Double,
    /// With how many digits, of which so many after the point.
    Decimal(u8, u8),
    Text,
    /// One or several of the texts of an `ENUM` or `SET`.
    Label,
    Json,
    Binary,
    Date,
    /// Times have so many digits after the seconds.
    Time(u8),
    Datetime(u8),
    Timestamp(u8),
}

impl Form {
    /// The form of a column of a result; `None` if it has none.
    pub(super) fn of_result(column: &Column) -> Option<Form> {
        use ColumnType as T;
        let flags = column.flags();
        let integer = |bits| Form::Int { bits, is_unsigned: flags.contains(ColumnFlags::UNSIGNED_FLAG) };
        // Where it is not known, a value has as many digits as it has.
        let digits = column.decimals().min(6);
        Some(match column.column_type() {
            T::MYSQL_TYPE_TINY => integer(8),
            T::MYSQL_TYPE_SHORT => integer(16),
            T::MYSQL_TYPE_INT24 | T::MYSQL_TYPE_LONG => integer(32),
            T::MYSQL_TYPE_LONGLONG => integer(64),
            T::MYSQL_TYPE_YEAR => Form::Year,
            T::MYSQL_TYPE_BIT => Form::Bit(column.column_length()),
            T::MYSQL_TYPE_FLOAT => Form::Float,
            T::MYSQL_TYPE_DOUBLE => Form::Double,
            T::MYSQL_TYPE_DECIMAL | T::MYSQL_TYPE_NEWDECIMAL => {
                let scale = i32::from(column.decimals());
                let sign = i32::from(!flags.contains(ColumnFlags::UNSIGNED_FLAG));
                let length = i32::try_from(column.column_length()).unwrap_or(i32::MAX);
                let precision = (length - sign - i32::from(scale > 0)).clamp(scale.max(1), PRECISION_MAX.max(scale));
                Form::Decimal(precision as u8, scale as u8)
            }
            T::MYSQL_TYPE_DATE | T::MYSQL_TYPE_NEWDATE => Form::Date,
            T::MYSQL_TYPE_TIME | T::MYSQL_TYPE_TIME2 => Form::Time(digits),
            T::MYSQL_TYPE_DATETIME | T::MYSQL_TYPE_DATETIME2 => Form::Datetime(digits),
            T::MYSQL_TYPE_TIMESTAMP | T::MYSQL_TYPE_TIMESTAMP2 => Form::Timestamp(digits),
            T::MYSQL_TYPE_JSON => Form::Json,
            T::MYSQL_TYPE_ENUM | T::MYSQL_TYPE_SET => Form::Label,
            T::MYSQL_TYPE_VARCHAR | T::MYSQL_TYPE_VAR_STRING | T::MYSQL_TYPE_STRING | T::MYSQL_TYPE_TINY_BLOB
            | T::MYSQL_TYPE_MEDIUM_BLOB | T::MYSQL_TYPE_LONG_BLOB | T::MYSQL_TYPE_BLOB => {
                if flags.intersects(ColumnFlags::ENUM_FLAG | ColumnFlags::SET_FLAG) {
                    Form::Label
                } else if column.character_set() == BINARY {
                    Form::Binary
                } else {
                    Form::Text
                }
            }
            _ => return None,
        })
    }

    /// The form in which a column is written where the table is made for it; `None` if there is none.
    pub(super) fn for_column(data_type: &DataType) -> Option<Form> {
        use DataType as D;
        let integer = |bits, is_unsigned| Form::Int { bits, is_unsigned };
        Some(match data_type {
            D::Null | D::Utf8 | D::LargeUtf8 | D::Utf8View => Form::Text,
            D::Boolean | D::Int8 => integer(8, false),
            D::UInt8 => integer(8, true),
            D::Int16 => integer(16, false),
            D::UInt16 => integer(16, true),
            D::Int32 => integer(32, false),
            D::UInt32 => integer(32, true),
            D::Int64 => integer(64, false),
            D::UInt64 => integer(64, true),
            D::Float16 | D::Float32 => Form::Float,
            D::Float64 => Form::Double,
            D::Decimal32(precision, scale) | D::Decimal64(precision, scale) | D::Decimal128(precision, scale)
            | D::Decimal256(precision, scale) => {
                let (precision, scale) = (i32::from(*precision), i32::from(*scale));
                let (precision, scale) = if scale < 0 { (precision - scale, 0) } else { (precision.max(scale), scale) };
                if precision > PRECISION_MAX || scale > SCALE_MAX {
                    return None;
                }
                Form::Decimal(precision as u8, scale as u8)
            }
            D::Binary | D::LargeBinary | D::BinaryView | D::FixedSizeBinary(_) => Form::Binary,
            D::Date32 | D::Date64 => Form::Date,
            D::Time32(_) | D::Time64(_) | D::Duration(_) => Form::Time(6),
            D::Timestamp(_, None) => Form::Datetime(6),
            D::Timestamp(_, Some(_)) => Form::Timestamp(6),
            D::Dictionary(_, value) => return Form::for_column(value),
            D::List(_) | D::LargeList(_) | D::FixedSizeList(..) | D::Struct(_) | D::Map(..) => Form::Json,
            _ => return None,
        })
    }

    /// As SQL declares it, for a column that is not part of a key.
    pub(super) fn declared(self) -> String {
        match self {
            Form::Bit(bits) => format!("BIT({bits})"),
            Form::Int { bits, is_unsigned } => {
                let name = match bits {
                    8 => "TINYINT",
                    16 => "SMALLINT",
                    24 => "MEDIUMINT",
                    32 => "INT",
                    _ => "BIGINT",
                };
                format!("{name}{}", if is_unsigned { " UNSIGNED" } else { "" })
            }
            Form::Year => "YEAR".to_owned(),
            Form::Float => "FLOAT".to_owned(),
            Form::Double => "DOUBLE".to_owned(),
            Form::Decimal(precision, scale) => format!("DECIMAL({precision},{scale})"),
            Form::Text => "LONGTEXT".to_owned(),
            Form::Label => "ENUM".to_owned(),
            Form::Json => "JSON".to_owned(),
            Form::Binary => "LONGBLOB".to_owned(),
            Form::Date => "DATE".to_owned(),
            Form::Time(digits) => format!("TIME({digits})"),
            Form::Datetime(digits) => format!("DATETIME({digits})"),
            Form::Timestamp(digits) => format!("TIMESTAMP({digits})"),
        }
    }

    /// The type as messages have it: texts and bytes have several.
    pub(super) fn noun(self) -> String {
        match self {
            Form::Text => "text".to_owned(),
            Form::Label => "ENUM or SET".to_owned(),
            Form::Binary => "bytes".to_owned(),
            other => other.declared(),
        }
    }

    /// Whether a column of the table holds every value of a column of the stream, or says of one that it does not.
    pub(super) fn holds(self, data_type: &DataType) -> bool {
        use DataType as D;
        let value_type = match data_type {
            D::Dictionary(_, value) => value.as_ref(),
            other => other,
        };
        let Some(own) = Form::for_column(value_type) else { return false };
        let digits_needed = match value_type {
            D::Time32(unit) | D::Time64(unit) | D::Duration(unit) | D::Timestamp(unit, _) => match unit {
                TimeUnit::Second => 0,
                TimeUnit::Millisecond => 3,
                TimeUnit::Microsecond | TimeUnit::Nanosecond => 6,
            },
            _ => 6,
        };
        match (own, self) {
            (_, _) if value_type == &D::Null => true,
            (_, Form::Bit(_)) => value_type == &D::Boolean,
            (Form::Int { bits: own, is_unsigned: false }, Form::Int { bits, is_unsigned: false }) => bits >= own,
            (Form::Int { bits: own, is_unsigned: true }, Form::Int { bits, is_unsigned }) => bits > own || (is_unsigned && bits == own),
            // 0 and 1 are in every whole number.
            (_, Form::Int { .. }) if value_type == &D::Boolean => true,
            (Form::Int { bits, is_unsigned }, Form::Decimal(precision, scale)) => {
                let digits = match (bits, is_unsigned) {
                    (8, _) => 3,
                    (16, _) => 5,
                    (32, _) => 10,
                    (_, false) => 19,
                    (_, true) => 20,
                };
                precision - scale >= digits
            }
            (Form::Decimal(own, own_scale), Form::Decimal(precision, scale)) => {
                scale >= own_scale && precision - scale >= own - own_scale
            }
            (Form::Float, Form::Float | Form::Double) => true,
            (Form::Json, Form::Json | Form::Text) => true,
            (Form::Time(_), Form::Time(digits))
            | (Form::Datetime(_), Form::Datetime(digits))
            | (Form::Timestamp(_), Form::Timestamp(digits)) => digits >= digits_needed,
            (own, other) => own == other,
        }
    }

    /// The column that a column of MySQL is read as.
    pub(super) fn column(self) -> DataType {
        match self {
            Form::Bit(1) => DataType::Boolean,
            Form::Bit(_) => DataType::UInt64,
            Form::Int { bits, is_unsigned } => match (bits, is_unsigned) {
                (8, false) => DataType::Int8,
                (8, true) => DataType::UInt8,
                (16, false) => DataType::Int16,
                (16, true) => DataType::UInt16,
                (24 | 32, false) => DataType::Int32,
                (24 | 32, true) => DataType::UInt32,
                (_, false) => DataType::Int64,
                (_, true) => DataType::UInt64,
            },
            Form::Year => DataType::Int16,
            Form::Float => DataType::Float32,
            Form::Double => DataType::Float64,
            Form::Decimal(precision, scale) if precision <= 38 => DataType::Decimal128(precision, scale as i8),
            Form::Decimal(precision, scale) => DataType::Decimal256(precision, scale as i8),
            Form::Text | Form::Label | Form::Json => DataType::Utf8,
            Form::Binary => DataType::Binary,
            Form::Date => DataType::Date32,
            // Hours go from -838 to 838.
            Form::Time(_) => DataType::Duration(TimeUnit::Microsecond),
            Form::Datetime(_) => DataType::Timestamp(TimeUnit::Microsecond, None),
            Form::Timestamp(_) => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        }
    }
}

/// The name of a type of the stream, for messages.
pub(super) fn shown(data_type: &DataType) -> String {
    type_name(data_type)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_that_would_change_a_value_is_refused() {
        let integer = |bits, is_unsigned| Form::Int { bits, is_unsigned };
        let decimal = DataType::Decimal128(10, 2);
        for (form, data_type, holds) in [
            (integer(32, false), DataType::Int32, true),
            (integer(32, false), DataType::Int64, false),
            (integer(64, true), DataType::Int64, false),
            (integer(32, true), DataType::UInt32, true),
            (integer(32, false), DataType::UInt32, false),
            (integer(64, false), DataType::UInt32, true),
            (integer(24, false), DataType::UInt16, true),
            (integer(8, true), DataType::Boolean, true),
            (Form::Bit(1), DataType::Boolean, true),
            (Form::Bit(8), DataType::UInt8, false),
            (Form::Decimal(20, 0), DataType::UInt64, true),
            (Form::Decimal(19, 0), DataType::UInt64, false),
            (Form::Decimal(12, 3), decimal.clone(), true),
            (Form::Decimal(10, 3), decimal.clone(), false),
            (Form::Double, decimal, false),
            (Form::Double, DataType::Float32, true),
            (Form::Float, DataType::Float64, false),
            (Form::Label, DataType::Utf8, false),
            (Form::Json, DataType::Utf8, false),
            (Form::Datetime(3), DataType::Timestamp(TimeUnit::Millisecond, None), true),
            (Form::Datetime(3), DataType::Timestamp(TimeUnit::Microsecond, None), false),
            (Form::Timestamp(6), DataType::Timestamp(TimeUnit::Microsecond, None), false),
        ] {
            assert_eq!(form.holds(&data_type), holds, "{form:?} {data_type}");
        }
        assert_eq!(Form::for_column(&DataType::Decimal256(70, 2)), None);
    }
}
