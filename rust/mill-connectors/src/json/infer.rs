//! The types of columns, as far as a sample of records tells them safely.
//!
//! Columns come in the order in which the records name them. A number is an integer if all are; text is a date or a
//! moment if all of it is in ISO 8601. A column whose values are of different kinds is taken as text: the records whose
//! value is none are told as malformed when they are read, and a given schema can do better.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, TimeUnit};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::timestamp::{has_zone, parse_moment};

/// What the records of a sample have in common: names in the order they came.
#[derive(Debug, Default)]
pub(super) struct Shape {
    columns: Vec<(String, Common)>,
}

#[derive(Clone, Debug, PartialEq)]
enum Common {
    Nothing,
    Boolean,
    Integer,
    Unsigned,
    Float,
    Date,
    Naive,
    Zoned,
    Text,
    List(Box<Common>),
    Struct(Vec<(String, Common)>),
    /// Values of different kinds.
    Mixed,
}

impl Shape {
    /// Adds the record of a line; a line that is none is passed over.
    pub(super) fn add(&mut self, line: &[u8]) {
        if let Ok(Common::Struct(columns)) = serde_json::from_slice(line) {
            columns.into_iter().for_each(|(name, common)| add(&mut self.columns, name, common));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|(name, _)| name.as_str())
    }

    pub(super) fn fields(&self) -> Vec<Field> {
        self.columns.iter().map(|(name, common)| Field::new(name, common.data_type(), true)).collect()
    }
}

fn add(columns: &mut Vec<(String, Common)>, name: String, common: Common) {
    match columns.iter_mut().find(|(other, _)| *other == name) {
        Some((_, known)) => *known = std::mem::replace(known, Common::Nothing).and(common),
        None => columns.push((name, common)),
    }
}

/// Reads what a value is, without the value: keys stay in the order of the text.
struct CommonVisitor;

impl<'de> Deserialize<'de> for Common {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Common, D::Error> {
        deserializer.deserialize_any(CommonVisitor)
    }
}

impl<'de> Visitor<'de> for CommonVisitor {
    type Value = Common;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Common, E> {
        Ok(Common::Nothing)
    }

    fn visit_bool<E>(self, _value: bool) -> Result<Common, E> {
        Ok(Common::Boolean)
    }

    fn visit_i64<E>(self, _value: i64) -> Result<Common, E> {
        Ok(Common::Integer)
    }

    fn visit_u64<E>(self, value: u64) -> Result<Common, E> {
        Ok(if i64::try_from(value).is_ok() { Common::Integer } else { Common::Unsigned })
    }

    fn visit_f64<E>(self, _value: f64) -> Result<Common, E> {
        Ok(Common::Float)
    }

    fn visit_str<E>(self, text: &str) -> Result<Common, E> {
        Ok(match text.as_bytes() {
            bytes if parse_moment(bytes).is_none() => Common::Text,
            bytes if bytes.len() == 10 => Common::Date,
            bytes if has_zone(bytes) => Common::Zoned,
            _ => Common::Naive,
        })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Common, A::Error> {
        let mut common = Common::Nothing;
        while let Some(item) = items.next_element()? {
            common = common.and(item);
        }
        Ok(Common::List(Box::new(common)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Common, A::Error> {
        let mut columns = Vec::new();
        while let Some((name, common)) = entries.next_entry()? {
            add(&mut columns, name, common);
        }
        Ok(Common::Struct(columns))
    }
}

impl Common {
    fn and(self, other: Common) -> Common {
        use Common::{Boolean, Date, Float, Integer, List, Mixed, Naive, Nothing, Struct, Text, Unsigned, Zoned};
        match (self, other) {
            (Nothing, one) | (one, Nothing) => one,
            (a, b) if a == b => a,
            (Integer | Unsigned | Float, Integer | Unsigned | Float) => Float,
            (Date, Naive) | (Naive, Date) => Naive,
            (Date | Naive | Zoned | Text, Date | Naive | Zoned | Text) => Text,
            (List(a), List(b)) => List(Box::new(a.and(*b))),
            (Struct(mut a), Struct(b)) => {
                b.into_iter().for_each(|(name, common)| add(&mut a, name, common));
                Struct(a)
            }
            (Boolean | Integer | Unsigned | Float | Date | Naive | Zoned | Text | List(_) | Struct(_) | Mixed, _) => Mixed,
        }
    }

    fn data_type(&self) -> DataType {
        match self {
            Common::Nothing | Common::Text | Common::Mixed => DataType::Utf8,
            Common::Boolean => DataType::Boolean,
            Common::Integer => DataType::Int64,
            Common::Unsigned => DataType::UInt64,
            Common::Float => DataType::Float64,
            Common::Date => DataType::Date32,
            Common::Naive => DataType::Timestamp(TimeUnit::Microsecond, None),
            Common::Zoned => DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::from("UTC"))),
            Common::List(item) => DataType::List(Arc::new(Field::new("item", item.data_type(), true))),
            Common::Struct(columns) => {
                let fields = columns.iter().map(|(name, common)| Field::new(name, common.data_type(), true));
                DataType::Struct(fields.collect::<Fields>())
            }
        }
    }
}
