//! The types of PostgreSQL that have an exact form as columns, and which of them hold which columns.
//!
//! A value is written in the binary form of the column that the table has, so a column that is wider than that of the stream is
//! fine, and one that would round, pad or cut a value is refused by name before the first record.

use std::sync::Arc;

use ::postgres::types::{Kind, Type};
use arrow::datatypes::{DataType, Field, TimeUnit};
use mill_frame::types::type_name;

/// The most digits of a decimal here.
const PRECISION_MAX: i32 = 76;

/// A type of PostgreSQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Bool,
    Int2,
    Int4,
    Int8,
    Oid,
    Float4,
    Float8,
    /// With how many digits, of which so many after the point; `None`: as many as a value has.
    Numeric(Option<(i32, i32)>),
    /// Text of at most so many characters.
    Text(Option<usize>),
    /// Text that PostgreSQL pads.
    Padded,
    /// One of the texts of an enum.
    Label,
    Uuid,
    Bytea,
    Date,
    Time,
    Timestamp,
    Timestamptz,
    Interval,
    Json,
    Jsonb,
    /// A list in one dimension; with the number of the type of its elements.
    Array(Box<Form>, u32),
}

impl Form {
    /// The form of a type; `None` if it has none.
    pub(super) fn of(kind: &Type, modifier: i32) -> Option<Form> {
        Some(match kind.kind() {
            Kind::Domain(base) => return Form::of(base, modifier),
            Kind::Enum(_) => Form::Label,
            Kind::Array(item) => match Form::of(item, modifier)? {
                Form::Array(..) => return None,
                form => Form::Array(Box::new(form), item.oid()),
            },
            Kind::Simple => match *kind {
                Type::BOOL => Form::Bool,
                Type::INT2 => Form::Int2,
                Type::INT4 => Form::Int4,
                Type::INT8 => Form::Int8,
                Type::OID => Form::Oid,
                Type::FLOAT4 => Form::Float4,
                Type::FLOAT8 => Form::Float8,
                Type::NUMERIC if modifier < 4 => Form::Numeric(None),
                Type::NUMERIC => {
                    let bits = modifier - 4;
                    // The scale has 11 bits, the highest of which is its sign.
                    Form::Numeric(Some(((bits >> 16) & 0xffff, ((bits & 0x7ff) ^ 0x400) - 0x400)))
                }
                Type::TEXT | Type::NAME => Form::Text(None),
                Type::VARCHAR => Form::Text(usize::try_from(modifier - 4).ok()),
                Type::BPCHAR => Form::Padded,
                Type::UUID => Form::Uuid,
                Type::BYTEA => Form::Bytea,
                Type::DATE => Form::Date,
                Type::TIME => Form::Time,
                Type::TIMESTAMP => Form::Timestamp,
                Type::TIMESTAMPTZ => Form::Timestamptz,
                Type::INTERVAL => Form::Interval,
                Type::JSON => Form::Json,
                Type::JSONB => Form::Jsonb,
                _ => return None,
            },
            _ => return None,
        })
    }

    /// The form in which a column is written where the table is made for it; `None` if there is none.
    pub(super) fn for_column(data_type: &DataType) -> Option<Form> {
        use DataType as D;
        Some(match data_type {
            D::Null => Form::Text(None),
            D::Boolean => Form::Bool,
            D::Int8 | D::UInt8 | D::Int16 => Form::Int2,
            D::UInt16 | D::Int32 => Form::Int4,
            D::UInt32 | D::Int64 => Form::Int8,
            D::UInt64 => Form::Numeric(Some((20, 0))),
            D::Float16 | D::Float32 => Form::Float4,
            D::Float64 => Form::Float8,
            D::Decimal32(precision, scale) | D::Decimal64(precision, scale) | D::Decimal128(precision, scale)
            | D::Decimal256(precision, scale) => match i32::from(*scale) {
                // PostgreSQL before 15 has no negative scales.
                scale if scale < 0 => Form::Numeric(Some((i32::from(*precision) - scale, 0))),
                scale => Form::Numeric(Some((i32::from(*precision), scale))),
            },
            D::Utf8 | D::LargeUtf8 | D::Utf8View => Form::Text(None),
            D::Binary | D::LargeBinary | D::BinaryView | D::FixedSizeBinary(_) => Form::Bytea,
            D::Date32 | D::Date64 => Form::Date,
            D::Time32(_) | D::Time64(_) => Form::Time,
            D::Timestamp(_, None) => Form::Timestamp,
            D::Timestamp(_, Some(_)) => Form::Timestamptz,
            D::Duration(_) => Form::Interval,
            D::Dictionary(_, value) => return Form::for_column(value),
            D::List(item) | D::LargeList(item) | D::FixedSizeList(item, _) => match Form::for_column(item.data_type())? {
                Form::Array(..) | Form::Json | Form::Jsonb => Form::Jsonb,
                form => {
                    let number = form.number();
                    Form::Array(Box::new(form), number)
                }
            },
            D::Struct(_) | D::Map(..) => Form::Jsonb,
            _ => return None,
        })
    }

    /// The number of the type, where it has the same everywhere.
    pub(super) fn number(&self) -> u32 {
        match self {
            Form::Bool => Type::BOOL,
            Form::Int2 => Type::INT2,
            Form::Int4 => Type::INT4,
            Form::Int8 => Type::INT8,
            Form::Oid => Type::OID,
            Form::Float4 => Type::FLOAT4,
            Form::Float8 => Type::FLOAT8,
            Form::Numeric(_) => Type::NUMERIC,
            Form::Text(None) | Form::Label => Type::TEXT,
            Form::Text(Some(_)) => Type::VARCHAR,
            Form::Padded => Type::BPCHAR,
            Form::Uuid => Type::UUID,
            Form::Bytea => Type::BYTEA,
            Form::Date => Type::DATE,
            Form::Time => Type::TIME,
            Form::Timestamp => Type::TIMESTAMP,
            Form::Timestamptz => Type::TIMESTAMPTZ,
            Form::Interval => Type::INTERVAL,
            Form::Json => Type::JSON,
            Form::Jsonb => Type::JSONB,
            Form::Array(..) => Type::ANYARRAY,
        }
        .oid()
    }

    /// As SQL declares it.
    pub(super) fn declared(&self) -> String {
        match self {
            Form::Bool => "boolean".to_owned(),
            Form::Int2 => "smallint".to_owned(),
            Form::Int4 => "integer".to_owned(),
            Form::Int8 => "bigint".to_owned(),
            Form::Oid => "oid".to_owned(),
            Form::Float4 => "real".to_owned(),
            Form::Float8 => "double precision".to_owned(),
            Form::Numeric(None) => "numeric".to_owned(),
            Form::Numeric(Some((precision, scale))) => format!("numeric({precision},{scale})"),
            Form::Text(None) => "text".to_owned(),
            Form::Text(Some(limit)) => format!("varchar({limit})"),
            Form::Padded => "char".to_owned(),
            Form::Label => "enum".to_owned(),
            Form::Uuid => "uuid".to_owned(),
            Form::Bytea => "bytea".to_owned(),
            Form::Date => "date".to_owned(),
            Form::Time => "time".to_owned(),
            Form::Timestamp => "timestamp".to_owned(),
            Form::Timestamptz => "timestamptz".to_owned(),
            Form::Interval => "interval".to_owned(),
            Form::Json => "json".to_owned(),
            Form::Jsonb => "jsonb".to_owned(),
            Form::Array(item, _) => format!("{}[]", item.declared()),
        }
    }

    /// Whether a column of the table holds every value of a column of the stream, or says of one that it does not.
    pub(super) fn holds(&self, data_type: &DataType) -> bool {
        use DataType as D;
        let value_type = match data_type {
            D::Dictionary(_, value) => value.as_ref(),
            other => other,
        };
        let Some(own) = Form::for_column(value_type) else { return false };
        match (&own, self) {
            (_, _) if value_type == &D::Null => !matches!(self, Form::Array(..)),
            (Form::Int2, Form::Int2 | Form::Int4 | Form::Int8) | (Form::Int4, Form::Int4 | Form::Int8) | (Form::Int8, Form::Int8) => true,
            (Form::Int2 | Form::Int4 | Form::Int8, Form::Numeric(limits)) => {
                let digits = match own {
                    Form::Int2 => 5,
                    Form::Int4 => 10,
                    _ => 19,
                };
                limits.is_none_or(|(precision, scale)| precision - scale >= digits && scale >= 0)
            }
            (Form::Numeric(Some(_)), Form::Numeric(None)) => true,
            (Form::Numeric(Some((own, own_scale))), Form::Numeric(Some((precision, scale)))) => {
                scale >= own_scale && precision - scale >= own - own_scale
            }
            (Form::Float4, Form::Float4 | Form::Float8) => true,
            (Form::Text(None), Form::Text(_) | Form::Uuid) => true,
            (Form::Jsonb, Form::Json) => true,
            (Form::Array(own, _), Form::Array(other, _)) => match value_type {
                D::List(item) | D::LargeList(item) | D::FixedSizeList(item, _) => {
                    // What is null has no type of its own.
                    other.holds(item.data_type()) && (own == other || !matches!(item.data_type(), D::Null))
                }
                _ => false,
            },
            (own, other) => own == other,
        }
    }

    /// The column that a column of PostgreSQL is read as, or why it is none.
    pub(super) fn column(&self) -> Result<DataType, &'static str> {
        Ok(match self {
            Form::Bool => DataType::Boolean,
            Form::Int2 => DataType::Int16,
            Form::Int4 => DataType::Int32,
            Form::Int8 => DataType::Int64,
            Form::Oid => DataType::UInt32,
            Form::Float4 => DataType::Float32,
            Form::Float8 => DataType::Float64,
            Form::Numeric(None) => {
                return Err("has values of any number of digits; give it a precision, as in CAST(x AS numeric(18, 4))");
            }
            Form::Numeric(Some((precision, scale))) if *scale < 0 || scale > precision || *precision > PRECISION_MAX => {
                return Err("has more digits than a decimal here; cast it to another numeric");
            }
            Form::Numeric(Some((precision, scale))) if *precision <= 38 => DataType::Decimal128(*precision as u8, *scale as i8),
            Form::Numeric(Some((precision, scale))) => DataType::Decimal256(*precision as u8, *scale as i8),
            Form::Text(_) | Form::Padded | Form::Label | Form::Uuid | Form::Json | Form::Jsonb => DataType::Utf8,
            Form::Bytea => DataType::Binary,
            Form::Date => DataType::Date32,
            Form::Time => DataType::Time64(TimeUnit::Microsecond),
            Form::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            Form::Timestamptz => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Form::Interval => DataType::Duration(TimeUnit::Microsecond),
            Form::Array(item, _) => DataType::List(Arc::new(Field::new("item", item.column()?, true))),
        })
    }
}

/// Whether a column of this type rounds the times written to it.
pub(super) fn rounds(kind: &Type, modifier: i32) -> bool {
    match *kind {
        Type::TIME | Type::TIMESTAMP | Type::TIMESTAMPTZ => (0..6).contains(&modifier),
        // The lower half has the digits, the upper one which fields there are.
        Type::INTERVAL => modifier >= 0 && (modifier & 0xffff < 6 || (modifier >> 16) & 0x7fff != 0x7fff),
        _ => matches!(kind.kind(), Kind::Array(item) if rounds(item, modifier)),
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
        let decimal = DataType::Decimal128(10, 2);
        for (form, data_type, holds) in [
            (Form::Int4, DataType::Int32, true),
            (Form::Int4, DataType::Int64, false),
            (Form::Int8, DataType::UInt32, true),
            (Form::Int8, DataType::UInt64, false),
            (Form::Numeric(Some((20, 0))), DataType::UInt64, true),
            (Form::Numeric(Some((19, 0))), DataType::UInt64, false),
            (Form::Numeric(None), DataType::Int64, true),
            (Form::Numeric(Some((12, 2))), decimal.clone(), true),
            (Form::Numeric(Some((12, 3))), decimal.clone(), true),
            (Form::Numeric(Some((10, 3))), decimal.clone(), false),
            (Form::Numeric(Some((12, 1))), decimal.clone(), false),
            (Form::Float8, decimal, false),
            (Form::Float8, DataType::Float32, true),
            (Form::Float4, DataType::Float64, false),
            (Form::Padded, DataType::Utf8, false),
            (Form::Text(Some(3)), DataType::Utf8, true),
            (Form::Timestamptz, DataType::Timestamp(TimeUnit::Microsecond, None), false),
            (Form::Array(Box::new(Form::Int8), 20), DataType::new_list(DataType::Int32, true), true),
            (Form::Array(Box::new(Form::Int4), 23), DataType::new_list(DataType::Int64, true), false),
        ] {
            assert_eq!(form.holds(&data_type), holds, "{form:?} {data_type}");
        }
    }

    #[test]
    fn modifiers_say_how_many_digits() {
        let numeric = |precision: i32, scale: i32| ((precision << 16) | (scale & 0x7ff)) + 4;
        assert_eq!(Form::of(&Type::NUMERIC, numeric(10, 2)), Some(Form::Numeric(Some((10, 2)))));
        assert_eq!(Form::of(&Type::NUMERIC, numeric(3, -2)), Some(Form::Numeric(Some((3, -2)))));
        assert_eq!(Form::of(&Type::NUMERIC, -1), Some(Form::Numeric(None)));
        assert_eq!(Form::of(&Type::VARCHAR, 14), Some(Form::Text(Some(10))));
        assert_eq!(Form::of(&Type::INT4_ARRAY, -1), Some(Form::Array(Box::new(Form::Int4), Type::INT4.oid())));
        assert_eq!(Form::of(&Type::POINT, -1), None);
    }
}
