//! The keys that rows are read in the order of: as texts, which a checkpoint keeps, and as SQL.
//!
//! Whole numbers and decimals are their digits, dates the days and times the microseconds since 1970 or midnight, bytes hexadecimal
//! digits, everything else is its text. SQL is made of them only after they were checked to be of that form.
//!
//! A collation takes different texts for the same ("a" and "A", "a" and "a "), so rows of one key would not be next to each other, and
//! the condition for the rows after a text would leave some out. Where the server promises that no two rows have the same key,
//! that cannot happen, and rows follow the collation, which an index helps with. Everywhere else texts follow their bytes.

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Decimal256Type, DecimalType, DurationMicrosecondType, Int8Type, Int16Type, Int32Type, Int64Type,
    TimestampMicrosecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use mill_protocol::{Error, Result};

use super::calendar;
use super::form::Form;
use super::name::{bytes, constant, identifier};
pub(super) use crate::table_reader::At;

/// A column of the key.
#[derive(Clone, Debug)]
pub(super) struct KeyColumn {
    pub(super) name: String,
    pub(super) form: Form,
    /// Where it is among the columns that are read.
    pub(super) place: usize,
    /// Whether the server promises that it is never null.
    pub(super) is_never_null: bool,
    /// Whether texts follow their bytes, and not their collation.
    pub(super) is_by_bytes: bool,
}

impl KeyColumn {
    /// What rows are ordered by, as SQL.
    pub(super) fn sql(&self) -> String {
        let name = format!("q.{}", identifier(&self.name));
        match self.form {
            Form::Text | Form::Label if self.is_by_bytes => format!("CAST(CONVERT({name} USING utf8mb4) AS BINARY)"),
            _ => name,
        }
    }

    /// A value as SQL; `None` if it is not of this form.
    fn constant(&self, text: &str) -> Option<String> {
        let number = || text.parse::<i64>().ok();
        Some(match self.form {
            Form::Bit(_) | Form::Int { .. } | Form::Year => text.parse::<i128>().ok().filter(|n| n.to_string() == text)?.to_string(),
            Form::Decimal(..) => {
                let digits = text.strip_prefix('-').unwrap_or(text);
                let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
                is_number.then(|| text.to_owned())?
            }
            Form::Text | Form::Label if self.is_by_bytes => bytes(text.as_bytes()),
            Form::Text | Form::Label => constant(text),
            Form::Binary => {
                (text.len() % 2 == 0 && text.bytes().all(|digit| digit.is_ascii_hexdigit())).then(|| format!("X'{text}'"))?
            }
            Form::Date => format!("DATE'{}'", calendar::day_text(number()?)?),
            Form::Datetime(_) | Form::Timestamp(_) => format!("TIMESTAMP'{}'", calendar::moment_text(number()?)?),
            Form::Time(_) => {
                let micros = number().filter(|micros| micros.abs() < 839 * 3_600_000_000)?;
                let sign = if micros < 0 { "-" } else { "" };
                format!("TIME'{sign}{}'", calendar::clock_text(micros.abs()))
            }
            Form::Float | Form::Double | Form::Json => return None,
        })
    }
}

/// Whether rows can be read in the order of such a column: two values are equal if they have the same text here.
pub(super) fn can_order(form: Form) -> bool {
    !matches!(form, Form::Float | Form::Double | Form::Json)
}

/// The key of a row.
pub(super) fn key_of(columns: &[KeyColumn], arrays: &[ArrayRef], row: usize) -> Result<At> {
    let at = columns.iter().map(|column| text_of(column.form, &arrays[column.place], row)).collect::<Result<_>>()?;
    Ok(At { by: columns.iter().map(|column| column.name.clone()).collect(), at, of: None })
}

/// Reads a key that a checkpoint has kept.
pub(super) fn decode(call: &str, bytes: &[u8], columns: &[KeyColumn]) -> Result<At> {
    let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
    At::read(call, bytes, &names, |at| after(at, columns).is_some())
}

/// The condition for the rows after a key; `None` if it is not of the form of these columns.
///
/// `(a, b) > (1, 2)` would be shorter, and servers read the whole index for it.
pub(super) fn after(at: &At, columns: &[KeyColumn]) -> Option<String> {
    let mut condition: Option<String> = None;
    for (column, text) in columns.iter().zip(&at.at).rev() {
        let (name, constant) = (column.sql(), column.constant(text)?);
        condition = Some(match condition {
            None => format!("{name} > {constant}"),
            Some(rest) => format!("{name} >= {constant} AND ({name} > {constant} OR {rest})"),
        });
    }
    condition
}

fn text_of(form: Form, array: &ArrayRef, row: usize) -> Result<String> {
    macro_rules! number {
        ($kind:ty) => {
            array.as_primitive::<$kind>().value(row).to_string()
        };
    }
    Ok(match form {
        Form::Bit(1) => u8::from(array.as_boolean().value(row)).to_string(),
        Form::Bit(_) | Form::Int { .. } | Form::Year => match array.data_type() {
            DataType::Int8 => number!(Int8Type),
            DataType::Int16 => number!(Int16Type),
            DataType::Int32 => number!(Int32Type),
            DataType::Int64 => number!(Int64Type),
            DataType::UInt8 => number!(UInt8Type),
            DataType::UInt16 => number!(UInt16Type),
            DataType::UInt32 => number!(UInt32Type),
            DataType::UInt64 => number!(UInt64Type),
            other => return Err(Error::internal(format!("a key is {other}"))),
        },
        Form::Text | Form::Label => array.as_string::<i32>().value(row).to_owned(),
        Form::Binary => array.as_binary::<i32>().value(row).iter().map(|byte| format!("{byte:02x}")).collect(),
        Form::Date => number!(Date32Type),
        Form::Time(_) => number!(DurationMicrosecondType),
        Form::Datetime(_) | Form::Timestamp(_) => number!(TimestampMicrosecondType),
        Form::Decimal(precision, scale) => match array.as_primitive_opt::<Decimal128Type>() {
            Some(array) => Decimal128Type::format_decimal(array.value(row), precision, scale as i8),
            None => Decimal256Type::format_decimal(array.as_primitive::<Decimal256Type>().value(row), precision, scale as i8),
        },
        other => return Err(Error::internal(format!("a key is {}", other.declared()))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, form: Form) -> KeyColumn {
        KeyColumn { name: name.to_owned(), form, place: 0, is_never_null: true, is_by_bytes: true }
    }

    fn at(texts: &[&str]) -> At {
        At { by: (0..texts.len()).map(|n| format!("k{n}")).collect(), at: texts.iter().map(|text| (*text).to_owned()).collect(), of: None }
    }

    #[test]
    fn what_follows_a_key_is_asked_for_in_sql() {
        for (form, text, sql) in [
            (Form::Int { bits: 64, is_unsigned: true }, "18446744073709551615", "q.`k0` > 18446744073709551615"),
            (Form::Text, "a'", "CAST(CONVERT(q.`k0` USING utf8mb4) AS BINARY) > X'6127'"),
            (Form::Date, "0", "q.`k0` > DATE'1970-01-01'"),
            (Form::Datetime(6), "-1", "q.`k0` > TIMESTAMP'1969-12-31 23:59:59.999999'"),
            (Form::Time(6), "-3600000001", "q.`k0` > TIME'-01:00:00.000001'"),
            (Form::Binary, "00ff", "q.`k0` > X'00ff'"),
            (Form::Decimal(5, 2), "-1.50", "q.`k0` > -1.50"),
        ] {
            assert_eq!(after(&at(&[text]), &[column("k0", form)]).as_deref(), Some(sql));
        }
        let both = [column("k0", Form::Int { bits: 32, is_unsigned: false }), KeyColumn { is_by_bytes: false, ..column("k1", Form::Text) }];
        let key = at(&["1", "x"]);
        assert_eq!(after(&key, &both).as_deref(), Some("q.`k0` >= 1 AND (q.`k0` > 1 OR q.`k1` > _utf8mb4 X'78')"));
        assert_eq!(decode("f()", &key.encode(), &both).unwrap(), key);
    }

    #[test]
    fn what_a_checkpoint_has_is_checked_before_it_becomes_sql() {
        for (form, text) in [
            (Form::Int { bits: 64, is_unsigned: false }, "1); drop table x; --"),
            (Form::Decimal(5, 2), "1 or 1=1"),
            (Form::Binary, "zz"),
            (Form::Time(6), "x"),
            (Form::Date, "99999999999"),
        ] {
            assert!(decode("f()", &at(&[text]).encode(), &[column("k0", form)]).is_err(), "{text}");
        }
    }
}
