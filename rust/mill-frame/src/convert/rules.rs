//! What two types alone decide.

use arrow::datatypes::{DataType, Field, TimeUnit};

use super::{Ask, Verdict};
use crate::types::type_name;
use crate::zone::is_utc;

/// Types that follow the same rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Bool,
    Int,
    Float,
    Decimal,
    Text,
    Bytes,
    Date,
    Time,
    Naive,
    Zoned,
    Duration,
    Interval,
    /// Nested, encoded, null and union types.
    Other,
}

pub(super) fn class(data_type: &DataType) -> Class {
    match data_type {
        DataType::Boolean => Class::Bool,
        t if t.is_integer() => Class::Int,
        t if t.is_floating() => Class::Float,
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..) => {
            Class::Decimal
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Class::Text,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => Class::Bytes,
        DataType::Date32 | DataType::Date64 => Class::Date,
        DataType::Time32(_) | DataType::Time64(_) => Class::Time,
        DataType::Timestamp(_, None) => Class::Naive,
        DataType::Timestamp(_, Some(_)) => Class::Zoned,
        DataType::Duration(_) => Class::Duration,
        DataType::Interval(_) => Class::Interval,
        _ => Class::Other,
    }
}

/// The precision and scale of a decimal; an integer is one without a scale.
pub(super) fn digits(data_type: &DataType) -> Option<(u8, i8)> {
    use DataType::{Int8, Int16, Int32, Int64, UInt8, UInt16, UInt32, UInt64};
    Some(match data_type {
        DataType::Decimal32(p, s) | DataType::Decimal64(p, s) | DataType::Decimal128(p, s) | DataType::Decimal256(p, s) => (*p, *s),
        Int8 | UInt8 => (3, 0),
        Int16 | UInt16 => (5, 0),
        Int32 | UInt32 => (10, 0),
        Int64 => (19, 0),
        UInt64 => (20, 0),
        _ => return None,
    })
}

/// The bits in which a number's digits are kept: those of an integer without its sign, the significand of a float.
fn bits(data_type: &DataType) -> u32 {
    use DataType::{Float16, Float32, Float64, Int8, Int16, Int32, Int64, UInt8, UInt16, UInt32};
    match data_type {
        Int8 => 7,
        UInt8 => 8,
        Float16 => 11,
        Int16 => 15,
        UInt16 => 16,
        Float32 => 24,
        Int32 => 31,
        UInt32 => 32,
        Float64 => 53,
        Int64 => 63,
        _ => 64,
    }
}

/// The unit in which a type counts time.
pub(super) fn unit(data_type: &DataType) -> Option<TimeUnit> {
    match data_type {
        DataType::Timestamp(unit, _) | DataType::Duration(unit) | DataType::Time32(unit) | DataType::Time64(unit) => Some(*unit),
        _ => None,
    }
}

/// How many of a unit make a second.
pub(super) fn per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

fn zone(data_type: &DataType) -> &str {
    match data_type {
        DataType::Timestamp(_, Some(zone)) => zone,
        _ => "",
    }
}

/// The field of a list's values.
pub(super) fn element(data_type: &DataType) -> Option<&Field> {
    match data_type {
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::ListView(field)
        | DataType::LargeListView(field)
        | DataType::FixedSizeList(field, _) => Some(field),
        _ => None,
    }
}

/// The fields of a map's keys and values.
pub(super) fn entries(data_type: &DataType) -> Option<[&Field; 2]> {
    match data_type {
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) if fields.len() == 2 => Some([&fields[0], &fields[1]]),
            _ => None,
        },
        _ => None,
    }
}

/// Types whose values Arrow can collect in a dictionary.
fn can_be_collected(values: &DataType) -> bool {
    !matches!(class(values), Class::Bool | Class::Duration | Class::Interval | Class::Other)
}

/// What the types decide.
pub(super) fn verdict(from: &DataType, to: &DataType, ask: Ask) -> Verdict {
    use Verdict::{Checked, Exact, Refused, Same};
    if from == to {
        return Same;
    }
    // A container is as exact as the least exact of its parts, and never the same.
    let within = |parts: &mut dyn Iterator<Item = (&Field, &Field)>| {
        parts.fold(Exact, |found, (from, to)| {
            let part = verdict(from.data_type(), to.data_type(), ask);
            let tightened = from.is_nullable() && !to.is_nullable();
            match (found, part) {
                (Refused, _) | (_, Refused) => Refused,
                (Checked, _) | (_, Checked) => Checked,
                _ if tightened => Checked,
                _ => Exact,
            }
        })
    };
    match (from, to) {
        (DataType::Null, DataType::Union(..)) => Refused,
        (DataType::Null, _) => Exact,
        (DataType::Union(..), _) | (_, DataType::Union(..) | DataType::RunEndEncoded(..)) => Refused,
        (_, DataType::Null) => Checked,
        (DataType::RunEndEncoded(_, values), to) => checked_if_same(verdict(values.data_type(), to, ask)),
        (DataType::Dictionary(_, from), DataType::Dictionary(_, to)) if from == to => Checked,
        (from, DataType::Dictionary(_, values)) => {
            let from = if let DataType::Dictionary(_, values) = from { values } else { from };
            match verdict(from, values, ask) {
                _ if !can_be_collected(values) => Refused,
                Refused => Refused,
                // There may be more values than the keys can number.
                _ => Checked,
            }
        }
        (DataType::Dictionary(_, values), to) => match verdict(values, to, ask) {
            Same => Exact,
            other => other,
        },
        (from, to) if element(from).is_some() || element(to).is_some() => {
            let (Some(inner_from), Some(inner_to)) = (element(from), element(to)) else { return Refused };
            let inner = within(&mut [(inner_from, inner_to)].into_iter());
            match (from, to) {
                (_, _) if inner == Refused => Refused,
                (DataType::FixedSizeList(_, a), DataType::FixedSizeList(_, b)) if a == b => inner,
                (DataType::FixedSizeList(..), DataType::FixedSizeList(..)) => Refused,
                (_, DataType::FixedSizeList(..)) => Checked,
                (DataType::LargeList(_) | DataType::LargeListView(_), DataType::List(_) | DataType::ListView(_)) => Checked,
                _ => inner,
            }
        }
        (DataType::Struct(a), DataType::Struct(b)) => {
            let found = |field: &&std::sync::Arc<Field>| a.iter().find(|other| other.name() == field.name());
            let has_all = b.iter().all(|field| found(&field).is_some());
            // What arrives must be wholly in what was declared; a cast picks the fields that it names.
            let is_wanted = ask == Ask::Cast || a.len() == b.len();
            if !has_all || !is_wanted {
                return Refused;
            }
            within(&mut b.iter().filter_map(|field| Some((found(&field)?.as_ref(), field.as_ref()))))
        }
        (DataType::Map(..), DataType::Map(..)) => match (entries(from), entries(to)) {
            (Some(a), Some(b)) => within(&mut a.into_iter().zip(b)),
            _ => Refused,
        },
        (from, to) => flat(from, to, ask),
    }
}

fn checked_if_same(verdict: Verdict) -> Verdict {
    if verdict == Verdict::Same { Verdict::Exact } else { verdict }
}

fn flat(from: &DataType, to: &DataType, ask: Ask) -> Verdict {
    use Class::{Bool, Bytes, Date, Decimal, Duration, Float, Int, Interval, Naive, Other, Text, Time, Zoned};
    use Verdict::{Checked, Exact, Refused};
    let exact_if = |holds: bool| if holds { Exact } else { Checked };
    let is_cast = ask == Ask::Cast;
    match (class(from), class(to)) {
        (Other, _) | (_, Other) => Refused,
        (Int, Int) => {
            let keeps_sign = from.is_unsigned_integer() || to.is_signed_integer();
            exact_if(keeps_sign && bits(from) <= bits(to))
        }
        (Int, Float) | (Float, Float) => exact_if(bits(from) <= bits(to)),
        (Int | Decimal, Decimal) => match (digits(from), digits(to)) {
            (Some((p1, s1)), Some((p2, s2))) => {
                let whole = |p: u8, s: i8| i16::from(p) - i16::from(s);
                exact_if(s2 >= s1 && whole(p2, s2) >= whole(p1, s1))
            }
            _ => Refused,
        },
        (Float, Int | Decimal) | (Decimal, Int | Float) => Checked,
        // The offsets of the smaller types hold 2 GiB.
        (Text, Text) => exact_if(!matches!((from, to), (DataType::LargeUtf8 | DataType::Utf8View, DataType::Utf8))),
        (Bytes, Bytes) | (Text, Bytes) => exact_if(matches!(to, DataType::LargeBinary | DataType::BinaryView)
            || matches!((from, to), (DataType::Utf8 | DataType::FixedSizeBinary(_), DataType::Binary))),
        (Bytes, Text) => Checked,
        (Date, Date) => exact_if(matches!(to, DataType::Date64)),
        (Date, Naive) | (Naive, Date) => Checked,
        (Time, Time) | (Naive, Naive) | (Zoned, Zoned) | (Duration, Duration) => match (unit(from), unit(to)) {
            (Some(a), Some(b)) => exact_if(a == b || class(from) == Time && per_second(a) < per_second(b)),
            _ => Refused,
        },
        (Interval, Interval) => match to {
            DataType::Interval(arrow::datatypes::IntervalUnit::MonthDayNano) => Exact,
            _ => Refused,
        },
        _ if !is_cast => Refused,
        (Naive, Zoned) => if is_utc(zone(to)) { Checked } else { Refused },
        (Zoned, Naive) => if is_utc(zone(from)) { Checked } else { Refused },
        (Date, Zoned) => if is_utc(zone(to)) { Checked } else { Refused },
        (Zoned, Date) | (Naive | Zoned, Time) => Checked,
        (Bool, Int | Float) | (Int | Float | Decimal, Bool) => Exact,
        (Bool, Decimal) => Checked,
        (Bool | Int | Float | Decimal, Text) => Exact,
        (Date | Time | Naive | Zoned | Duration | Interval, Text) => Checked,
        (Text, Bool | Int | Float | Decimal | Date | Time | Naive | Zoned | Duration) => Checked,
        (Int | Float | Decimal, Date | Time | Naive | Zoned | Duration) => Checked,
        (Date | Time | Naive | Zoned | Duration, Int | Float | Decimal) => Checked,
        _ => Refused,
    }
}

/// What to do instead of a conversion that there is not.
pub(super) fn advice(from: &DataType, to: &DataType) -> Option<String> {
    let missing = |a: &arrow::datatypes::Fields, b: &arrow::datatypes::Fields| {
        b.iter().find(|field| !a.iter().any(|other| other.name() == field.name())).map(|field| field.name().clone())
    };
    match (from, to) {
        (DataType::Dictionary(_, values), to) if !matches!(to, DataType::Dictionary(..)) => return advice(values, to),
        (DataType::Struct(a), DataType::Struct(b)) => {
            if let Some(name) = missing(a, b) {
                return Some(format!("there is no field {name:?} in {}", type_name(from)));
            }
            if let Some(name) = missing(b, a) {
                return Some(format!("field {name:?} would be lost, as {} has none of that name", type_name(to)));
            }
            return b.iter().find_map(|field| {
                let other = a.iter().find(|other| other.name() == field.name())?;
                let inner = advice(other.data_type(), field.data_type())?;
                Some(format!("field {:?}: {inner}", field.name()))
            });
        }
        _ => {}
    }
    if let (Some(a), Some(b)) = (element(from), element(to)) {
        return advice(a.data_type(), b.data_type());
    }
    Some(match (class(from), class(to)) {
        (Class::Naive, Class::Zoned) => format!(
            "{} has no time zone; say which it is with dt.replace_time_zone(\"UTC\") or the zone in which it was written",
            type_name(from)
        ),
        (Class::Zoned, Class::Naive) => format!(
            "{} has a time zone and {} has none; use dt.replace_time_zone(None) for what the clock there shows",
            type_name(from),
            type_name(to)
        ),
        (Class::Date, Class::Zoned) => format!(
            "a date has no time zone; use .cast(mill.Timestamp(\"us\")).dt.replace_time_zone({:?})",
            zone(to)
        ),
        _ if element(from).is_some() && class(to) == Class::Text => {
            "use list.join() for the values of a list as one text".to_owned()
        }
        _ => return None,
    })
}
