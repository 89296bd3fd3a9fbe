//! The keys that rows are read in the order of: as texts, which a checkpoint keeps, and as SQL.
//!
//! Whole numbers and decimals are their digits, dates the days and times the microseconds since 1970 or midnight, bytes hexadecimal
//! digits, everything else is its text. SQL is made of them only after they were checked to be of that form.

use std::cmp::Ordering;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{
    Date32Type, Decimal128Type, Decimal256Type, DecimalType, Int16Type, Int32Type, Int64Type, Time64MicrosecondType,
    TimestampMicrosecondType, UInt32Type,
};
use mill_protocol::{Error, Result};

use super::encode::{EPOCH_DAYS, EPOCH_MICROS};
use super::form::Form;
use super::name::{constant, identifier};
pub(super) use crate::table_reader::At;

const DAY_MICROS: i64 = 86_400_000_000;

/// A column of the key.
#[derive(Clone, Debug)]
pub(super) struct KeyColumn {
    pub(super) name: String,
    pub(super) form: Form,
    /// Where it is among the columns that are read.
    pub(super) place: usize,
    /// Whether the server promises that it is never null.
    pub(super) is_never_null: bool,
    /// Whether texts follow their bytes, so that two keys can be compared here as the server compares them; otherwise they follow
    /// the column's collation, and enums their declaration.
    pub(super) is_by_bytes: bool,
}

impl KeyColumn {
    /// What rows are ordered by, as SQL.
    pub(super) fn sql(&self) -> String {
        let name = format!("q.{}", identifier(&self.name));
        match self.form {
            Form::Text(_) if self.is_by_bytes => format!("{name} COLLATE \"C\""),
            Form::Label if self.is_by_bytes => format!("{name}::text COLLATE \"C\""),
            _ => name,
        }
    }
}

/// Whether rows can be read in the order of such a column: two values are equal if they have the same bytes.
pub(super) fn can_order(form: &Form) -> bool {
    match form {
        Form::Bool | Form::Int2 | Form::Int4 | Form::Int8 | Form::Oid | Form::Text(_) | Form::Label | Form::Uuid | Form::Bytea => true,
        Form::Date | Form::Time | Form::Timestamp | Form::Timestamptz => true,
        Form::Numeric(limits) => limits.is_some(),
        Form::Float4 | Form::Float8 | Form::Padded | Form::Interval | Form::Json | Form::Jsonb | Form::Array(..) => false,
    }
}

impl At {
    /// The key of a row.
    pub(super) fn of(columns: &[KeyColumn], arrays: &[ArrayRef], row: usize) -> Result<At> {
        let at = columns.iter().map(|column| text_of(&column.form, &arrays[column.place], row)).collect::<Result<_>>()?;
        Ok(At { by: columns.iter().map(|column| column.name.clone()).collect(), at, of: None })
    }

    /// Reads a key that a checkpoint has kept.
    pub(super) fn decode(call: &str, bytes: &[u8], columns: &[KeyColumn]) -> Result<At> {
        let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        At::read(call, bytes, &names, |at| at.after(columns).is_some())
    }

    /// The condition for the rows after this key; `None` if it is not of the form of these columns.
    pub(super) fn after(&self, columns: &[KeyColumn]) -> Option<String> {
        self.condition(columns, ">")
    }

    /// The condition for the rows up to this key; `None` if it is not of the form of these columns.
    pub(super) fn until(&self, columns: &[KeyColumn]) -> Option<String> {
        self.condition(columns, "<=")
    }

    fn condition(&self, columns: &[KeyColumn], comparison: &str) -> Option<String> {
        let constants = columns.iter().zip(&self.at).map(|(column, text)| sql_of(&column.form, text)).collect::<Option<Vec<_>>>()?;
        let names: Vec<String> = columns.iter().map(KeyColumn::sql).collect();
        Some(match (names.as_slice(), constants.as_slice()) {
            ([name], [constant]) => format!("{name} {comparison} {constant}"),
            _ => format!("({}) {comparison} ({})", names.join(", "), constants.join(", ")),
        })
    }

    /// Compares two keys of columns that follow their bytes, as the server does.
    pub(super) fn compare(&self, other: &At, columns: &[KeyColumn]) -> Ordering {
        let pairs = columns.iter().zip(self.at.iter().zip(&other.at));
        pairs.map(|(column, (left, right))| compare_texts(&column.form, left, right)).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
    }
}

fn compare_texts(form: &Form, left: &str, right: &str) -> Ordering {
    match form {
        Form::Int2 | Form::Int4 | Form::Int8 | Form::Oid | Form::Date | Form::Time | Form::Timestamp | Form::Timestamptz => {
            left.parse::<i64>().ok().cmp(&right.parse().ok())
        }
        Form::Numeric(_) => {
            let (left_digits, right_digits) = (left.strip_prefix('-'), right.strip_prefix('-'));
            // All values of a column have as many digits after the point, so more digits are more.
            let size = |digits: &str| (digits.len(), digits.to_owned());
            match (left_digits, right_digits) {
                (None, None) => size(left).cmp(&size(right)),
                (Some(left), Some(right)) => size(right).cmp(&size(left)),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
            }
        }
        // "false" is before "true", and hexadecimal digits follow the bytes that they stand for.
        _ => left.as_bytes().cmp(right.as_bytes()),
    }
}

fn text_of(form: &Form, array: &ArrayRef, row: usize) -> Result<String> {
    Ok(match form {
        Form::Bool => array.as_boolean().value(row).to_string(),
        Form::Int2 => array.as_primitive::<Int16Type>().value(row).to_string(),
        Form::Int4 => array.as_primitive::<Int32Type>().value(row).to_string(),
        Form::Int8 => array.as_primitive::<Int64Type>().value(row).to_string(),
        Form::Oid => array.as_primitive::<UInt32Type>().value(row).to_string(),
        Form::Text(_) | Form::Label | Form::Uuid => array.as_string::<i32>().value(row).to_owned(),
        Form::Bytea => array.as_binary::<i32>().value(row).iter().map(|byte| format!("{byte:02x}")).collect(),
        Form::Date => array.as_primitive::<Date32Type>().value(row).to_string(),
        Form::Time => array.as_primitive::<Time64MicrosecondType>().value(row).to_string(),
        Form::Timestamp | Form::Timestamptz => array.as_primitive::<TimestampMicrosecondType>().value(row).to_string(),
        Form::Numeric(Some((precision, scale))) => match array.as_primitive_opt::<Decimal128Type>() {
            Some(array) => Decimal128Type::format_decimal(array.value(row), *precision as u8, *scale as i8),
            None => Decimal256Type::format_decimal(array.as_primitive::<Decimal256Type>().value(row), *precision as u8, *scale as i8),
        },
        other => return Err(Error::internal(format!("a key is {}", other.declared()))),
    })
}

/// A value as SQL; `None` if it is not of this form.
fn sql_of(form: &Form, text: &str) -> Option<String> {
    let number = || text.parse::<i64>().ok();
    let day = |days: i64| format!("('2000-01-01'::date + ({}))", days - i64::from(EPOCH_DAYS));
    let clock = |micros: i64| {
        let seconds = micros / 1_000_000;
        format!("'{:02}:{:02}:{:02}.{:06}'", seconds / 3600, seconds / 60 % 60, seconds % 60, micros % 1_000_000)
    };
    Some(match form {
        Form::Bool => matches!(text, "true" | "false").then(|| text.to_owned())?,
        Form::Int2 | Form::Int4 | Form::Int8 | Form::Oid => format!("({})", number()?),
        // Of no type of their own: they take that of the column, and its collation.
        Form::Text(_) | Form::Label | Form::Uuid => (!text.contains('\0')).then(|| constant(text))?,
        Form::Bytea => text.bytes().all(|digit| digit.is_ascii_hexdigit()).then(|| format!("decode('{text}', 'hex')"))?,
        Form::Date => day(number()?),
        Form::Time => format!("{}::time", clock(number().filter(|micros| (0..DAY_MICROS).contains(micros))?)),
        Form::Timestamp | Form::Timestamptz => {
            let micros = number()?.checked_sub(EPOCH_MICROS)?;
            let days = micros.div_euclid(DAY_MICROS) + i64::from(EPOCH_DAYS);
            let moment = format!("({}::timestamp + {}::interval)", day(days), clock(micros.rem_euclid(DAY_MICROS)));
            if *form == Form::Timestamptz { format!("({moment} AT TIME ZONE 'UTC')") } else { moment }
        }
        Form::Numeric(_) => {
            let digits = text.strip_prefix('-').unwrap_or(text);
            let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
            is_number.then(|| format!("({text})"))?
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, form: Form) -> KeyColumn {
        KeyColumn { name: name.to_owned(), form, place: 0, is_never_null: true, is_by_bytes: false }
    }

    #[test]
    fn what_follows_a_key_is_asked_for_in_sql() {
        for (form, text, sql) in [
            (Form::Int8, "-5", "q.\"k\" > (-5)"),
            (Form::Text(None), "it's", "q.\"k\" > 'it''s'"),
            (Form::Date, "0", "q.\"k\" > ('2000-01-01'::date + (-10957))"),
            (Form::Timestamp, "-1", "q.\"k\" > (('2000-01-01'::date + (-10958))::timestamp + '23:59:59.999999'::interval)"),
            (Form::Bytea, "00ff", "q.\"k\" > decode('00ff', 'hex')"),
            (Form::Numeric(Some((5, 2))), "-1.50", "q.\"k\" > (-1.50)"),
        ] {
            let key = At { by: vec!["k".to_owned()], at: vec![text.to_owned()], of: None };
            assert_eq!(key.after(&[column("k", form)]).as_deref(), Some(sql));
        }
        let key = At { by: vec!["k".to_owned()], at: vec!["7".to_owned()], of: None };
        assert_eq!(key.until(&[column("k", Form::Int8)]).as_deref(), Some("q.\"k\" <= (7)"));
        let both = [column("a", Form::Int4), column("b", Form::Text(None))];
        let key = At { by: vec!["a".to_owned(), "b".to_owned()], at: vec!["1".to_owned(), "x".to_owned()], of: None };
        assert_eq!(key.after(&both).as_deref(), Some("(q.\"a\", q.\"b\") > ((1), 'x')"));
        assert_eq!(At::decode("f()", &key.encode(), &both).unwrap(), key);
    }

    #[test]
    fn what_a_checkpoint_has_is_checked_before_it_becomes_sql() {
        for (form, text) in [
            (Form::Int8, "1); drop table x; --"), (Form::Numeric(Some((5, 2))), "1 or 1=1"), (Form::Bytea, "zz"), (Form::Bool, "x"),
            (Form::Time, "-1"), (Form::Date, ""),
        ] {
            let key = At { by: vec!["k".to_owned()], at: vec![text.to_owned()], of: None };
            assert!(At::decode("f()", &key.encode(), &[column("k", form)]).is_err(), "{text}");
        }
    }

    #[test]
    fn keys_are_compared_as_the_server_does() {
        for (form, ascending) in [
            (Form::Int8, ["-10", "-9", "9", "10"]),
            (Form::Numeric(Some((6, 2))), ["-10.00", "-9.50", "0.00", "10.25"]),
            (Form::Text(None), ["", "B", "a", "é"]),
            (Form::Bytea, ["", "00", "00ff", "ff"]),
            (Form::Label, ["big", "large", "small", "tiny"]),
        ] {
            let columns = [KeyColumn { is_by_bytes: true, ..column("k", form) }];
            let keys = ascending.map(|text| At { by: vec!["k".to_owned()], at: vec![text.to_owned()], of: None });
            for (left, right) in (0..4).flat_map(|left| (0..4).map(move |right| (left, right))) {
                assert_eq!(keys[left].compare(&keys[right], &columns), left.cmp(&right), "{:?} {:?}", keys[left], keys[right]);
            }
        }
        let texts = KeyColumn { is_by_bytes: true, ..column("k", Form::Text(None)) };
        let key = At { by: vec!["k".to_owned()], at: vec!["x".to_owned()], of: None };
        assert_eq!(key.after(&[texts]).as_deref(), Some("q.\"k\" COLLATE \"C\" > 'x'"));
    }
}
