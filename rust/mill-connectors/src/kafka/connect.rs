//! Values as the JSON converter of Kafka Connect writes them, turned into JSON that has the values themselves.
//!
//! Connect has few types. A date is a number of days, a timestamp a number of units, a decimal the digits of its bytes in base64;
//! the schema beside the value, if the converter writes one, says so by a name.
//!
//! ```text
//!   {"type": "int64", "name": "io.debezium.time.MicroTimestamp"}                                   1700000000000000
//!   {"type": "bytes", "name": "org.apache.kafka.connect.data.Decimal", "parameters": {"scale": "2"}}   "MDk="  (123.45)
//! ```
//!
//! With the schema every value is converted exactly or refused. Without it, what JSON itself says is taken (text, numbers, booleans,
//! lists, objects, and days for dates), and what could be one thing or another is refused: a number for a timestamp may count
//! milli-, micro- or nanoseconds, and a text for a number may be its digits, or bytes in base64 that look like digits.

use std::collections::HashMap;
use std::io::Write as _;

use arrow::datatypes::{DataType, Field, TimeUnit, i256};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mill_frame::json::{Fault, Kind, Scanner, Value, text_of, unescape};
use mill_frame::types::type_name;

/// What Debezium writes in place of a value that did not change and that the database did not tell it.
const UNAVAILABLE: &[u8] = b"__debezium_unavailable_value";
/// The same in base64, in place of bytes.
const UNAVAILABLE_BYTES: &[u8] = b"X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==";

/// A type of Connect.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Shape {
    /// `int64`, `string`, `struct` …
    base: String,
    meaning: Meaning,
    /// Of an array and a map.
    items: Option<Box<Shape>>,
    fields: HashMap<String, Shape>,
}

/// What a value is beyond its type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Meaning {
    #[default]
    Plain,
    Date,
    /// A time without a zone.
    Timestamp(TimeUnit),
    TimeOfDay(TimeUnit),
    Duration(TimeUnit),
    /// With so many digits after the point.
    Decimal(i32),
    /// The same, each value with a scale of its own.
    ScaledDecimal,
}

impl Shape {
    /// Reads a schema as the converter writes it beside a value; `None`: it is `null`.
    pub(super) fn of(schema: &serde_json::Value) -> Result<Option<Shape>, String> {
        if schema.is_null() {
            return Ok(None);
        }
        let text = |key: &str| schema.get(key).and_then(serde_json::Value::as_str);
        let base = text("type").ok_or("the schema has no type")?.to_owned();
        let meaning = match text("name").unwrap_or_default() {
            "io.debezium.time.Date" | "org.apache.kafka.connect.data.Date" => Meaning::Date,
            "io.debezium.time.Timestamp" | "org.apache.kafka.connect.data.Timestamp" => Meaning::Timestamp(TimeUnit::Millisecond),
            "io.debezium.time.MicroTimestamp" => Meaning::Timestamp(TimeUnit::Microsecond),
            "io.debezium.time.NanoTimestamp" => Meaning::Timestamp(TimeUnit::Nanosecond),
            "io.debezium.time.Time" | "org.apache.kafka.connect.data.Time" => Meaning::TimeOfDay(TimeUnit::Millisecond),
            "io.debezium.time.MicroTime" => Meaning::TimeOfDay(TimeUnit::Microsecond),
            "io.debezium.time.NanoTime" => Meaning::TimeOfDay(TimeUnit::Nanosecond),
            "io.debezium.time.MicroDuration" => Meaning::Duration(TimeUnit::Microsecond),
            "io.debezium.time.NanoDuration" => Meaning::Duration(TimeUnit::Nanosecond),
            "org.apache.kafka.connect.data.Decimal" => {
                let scale = schema.pointer("/parameters/scale").and_then(serde_json::Value::as_str);
                Meaning::Decimal(scale.and_then(|scale| scale.parse().ok()).ok_or("the schema of a decimal has no scale")?)
            }
            "io.debezium.data.VariableScaleDecimal" => Meaning::ScaledDecimal,
            _ => Meaning::Plain,
        };
        let items = schema.get("items").or_else(|| schema.get("values"));
        let items = items.map(Shape::of).transpose()?.flatten().map(Box::new);
        let mut fields = HashMap::new();
        for field in schema.get("fields").and_then(serde_json::Value::as_array).into_iter().flatten() {
            let name = field.get("field").and_then(serde_json::Value::as_str).ok_or("the schema has a field without a name")?;
            if let Some(shape) = Shape::of(field)? {
                fields.insert(name.to_owned(), shape);
            }
        }
        Ok(Some(Shape { base, meaning, items, fields }))
    }

    pub(super) fn is_struct(&self) -> bool {
        self.base == "struct"
    }

    /// The type of a field.
    pub(super) fn field(&self, name: &str) -> Option<&Shape> {
        self.fields.get(name)
    }
}

/// A value's text, a string with its quotes.
pub(super) fn source(value: Value, data: &[u8]) -> &[u8] {
    match value.kind {
        Kind::Missing => b"null",
        Kind::String | Kind::Escaped => &data[value.start as usize - 1..value.end as usize + 1],
        _ => value.bytes(data),
    }
}

/// Adds a value for a column of this type to `out`, as JSON that `read_json` reads to the same value.
pub(super) fn convert(
    value: Value,
    data: &[u8],
    to: &DataType,
    shape: Option<&Shape>,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    match (to, value.kind) {
        (_, Kind::Missing | Kind::Null) => out.extend_from_slice(b"null"),
        (DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _), Kind::List) => {
            let of_items = shape.and_then(|shape| shape.items.as_deref());
            out.push(b'[');
            let mut scanner = Scanner::new(&data[..value.end as usize], value.start as usize);
            let mut is_first = true;
            scanner.list::<Wrong>(0, |found| {
                separate(&mut is_first, out);
                convert(found, data, item.data_type(), of_items, out).map_err(Wrong)
            })?;
            out.push(b']');
        }
        (DataType::Struct(fields), Kind::Object) => {
            members(value, data, out, |name| {
                let field: Option<&Field> = fields.iter().find(|field| field.name() == name).map(|field| field.as_ref());
                field.map(|field| (field.data_type(), shape.and_then(|shape| shape.field(name))))
            })?;
        }
        (DataType::Map(entries, _), Kind::Object) => {
            let DataType::Struct(fields) = entries.data_type() else { return Err("a map has no entries".to_owned()) };
            let of_values = shape.and_then(|shape| shape.items.as_deref());
            members(value, data, out, |_| Some((fields[1].data_type(), of_values)))?;
        }
        (DataType::Dictionary(_, of), _) => convert(value, data, of, shape, out)?,
        _ => convert_leaf(value, data, to, shape, out)?,
    }
    Ok(())
}

/// What is wrong, while a list or an object is passed.
struct Wrong(String);

impl From<Fault> for Wrong {
    fn from(fault: Fault) -> Wrong {
        Wrong(fault.message_of("value", "value", &[], 0))
    }
}

impl From<Wrong> for String {
    fn from(wrong: Wrong) -> String {
        wrong.0
    }
}

fn separate(is_first: &mut bool, out: &mut Vec<u8>) {
    if !std::mem::replace(is_first, false) {
        out.push(b',');
    }
}

/// Adds an object; `of` says what its values become, and which are left out.
fn members<'t>(
    value: Value,
    data: &[u8],
    out: &mut Vec<u8>,
    of: impl Fn(&str) -> Option<(&'t DataType, Option<&'t Shape>)>,
) -> Result<(), String> {
    out.push(b'{');
    let mut is_first = true;
    let mut scanner = Scanner::new(&data[..value.end as usize], value.start as usize);
    scanner.object::<Wrong>(0, |key, found| {
        let Some((to, shape)) = of(&text_of(key, data)) else { return Ok(()) };
        separate(&mut is_first, out);
        out.extend_from_slice(source(key, data));
        out.push(b':');
        convert(found, data, to, shape, out).map_err(Wrong)
    })?;
    out.push(b'}');
    Ok(())
}

fn convert_leaf(value: Value, data: &[u8], to: &DataType, shape: Option<&Shape>, out: &mut Vec<u8>) -> Result<(), String> {
    if matches!(value.kind, Kind::String | Kind::Escaped) && is_unavailable(value.bytes(data)) {
        return Err("the value did not change, and the database does not tell what it is (in PostgreSQL, ALTER TABLE … REPLICA \
                    IDENTITY FULL makes it)"
            .to_owned());
    }
    let Some(shape) = shape else { return convert_unknown(value, data, to, out) };
    let wrong = |what: &str, advice: &str| Err(format!("the schema says {what}, and the column is {}; {advice}", type_name(to)));
    match (shape.meaning, to) {
        (Meaning::Decimal(_) | Meaning::ScaledDecimal, to) if value.kind == Kind::Number && (is_number(to) || is_text(to)) => {
            out.extend_from_slice(value.bytes(data));
        }
        (Meaning::Decimal(_) | Meaning::ScaledDecimal, to) if is_number(to) || is_text(to) => {
            let digits = match shape.meaning {
                Meaning::Decimal(scale) => decimal(&bytes_of(value, data)?, scale)?,
                _ => scaled_decimal(value, data)?,
            };
            let quote: &[u8] = if is_text(to) { b"\"" } else { b"" };
            out.extend_from_slice(quote);
            out.extend_from_slice(digits.as_bytes());
            out.extend_from_slice(quote);
        }
        (Meaning::Decimal(_) | Meaning::ScaledDecimal, _) => return wrong("decimal", "declare it as mill.types.Decimal(…) or str"),
        // Text has what JSON has, and whole numbers the number.
        (_, to) if is_text(to) => out.extend_from_slice(source(value, data)),
        (Meaning::Date | Meaning::Timestamp(_) | Meaning::TimeOfDay(_) | Meaning::Duration(_), to) if to.is_integer() => {
            out.extend_from_slice(source(value, data));
        }
        (Meaning::Date, DataType::Date32 | DataType::Date64) => out.extend_from_slice(source(value, data)),
        (Meaning::Date, _) => return wrong("date", "declare it as datetime.date"),
        (Meaning::Timestamp(from), DataType::Timestamp(unit, None)) => in_unit(value, data, from, *unit, out)?,
        (Meaning::Timestamp(_), DataType::Timestamp(_, Some(_))) => {
            return wrong("timestamp without a time zone", "declare it without one, as mill.Timestamp(\"us\")");
        }
        (Meaning::Timestamp(_), _) => return wrong("timestamp", "declare it as mill.Timestamp(\"us\")"),
        (Meaning::TimeOfDay(from), DataType::Time32(unit) | DataType::Time64(unit)) => in_unit(value, data, from, *unit, out)?,
        (Meaning::TimeOfDay(_), _) => return wrong("time of day", "declare it as datetime.time"),
        (Meaning::Duration(from), DataType::Duration(unit)) => in_unit(value, data, from, *unit, out)?,
        (Meaning::Duration(_), _) => return wrong("duration", "declare it as datetime.timedelta"),
        (Meaning::Plain, to) if is_bytes(to) => {
            if shape.base != "bytes" {
                return wrong(&shape.base, "declare it as str");
            }
            out.push(b'"');
            bytes_of(value, data)?.iter().try_for_each(|byte| write!(out, "{byte:02x}")).map_err(|e| e.to_string())?;
            out.push(b'"');
        }
        (Meaning::Plain, to) if shape.base == "bytes" && is_number(to) => return wrong("bytes", "declare it as bytes"),
        (Meaning::Plain, to) if value.kind == Kind::Number && is_time(to) => return wrong(&shape.base, "declare it as int"),
        (Meaning::Plain, _) => out.extend_from_slice(source(value, data)),
    }
    Ok(())
}

/// The same, where no schema says what the value means.
fn convert_unknown(value: Value, data: &[u8], to: &DataType, out: &mut Vec<u8>) -> Result<(), String> {
    let is_string = matches!(value.kind, Kind::String | Kind::Escaped);
    let is_float_word = to.is_floating() && matches!(value.bytes(data), b"NaN" | b"Infinity" | b"-Infinity");
    let why = if value.kind == Kind::Number && is_time(to) {
        "a number may count milli-, micro- or nanoseconds"
    } else if is_string && is_number(to) && !is_float_word {
        "a text may have the digits of a number, or its bytes in base64"
    } else if is_string && is_bytes(to) {
        "a text may have bytes in base64 or in hexadecimal digits"
    } else {
        out.extend_from_slice(source(value, data));
        return Ok(());
    };
    let instead = if is_time(to) { "int" } else { "str" };
    Err(format!(
        "{} for {}: {why}, and the message has no schema that says which; set value.converter.schemas.enable=true (and \
         key.converter…) in the connector, or declare the column as {instead} and convert it",
        String::from_utf8_lossy(&source(value, data)[..source(value, data).len().min(100)]),
        mill_frame::words::with_article(type_name(to))
    ))
}

fn is_text(to: &DataType) -> bool {
    matches!(to, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

fn is_number(to: &DataType) -> bool {
    to.is_integer() || to.is_floating() || to.is_decimal()
}

fn is_bytes(to: &DataType) -> bool {
    matches!(to, DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_))
}

/// Whether a number counts units of it.
fn is_time(to: &DataType) -> bool {
    matches!(to, DataType::Timestamp(..) | DataType::Time32(_) | DataType::Time64(_) | DataType::Duration(_))
}

fn is_unavailable(text: &[u8]) -> bool {
    text == UNAVAILABLE || text == UNAVAILABLE_BYTES
}

/// The bytes of a value in base64.
fn bytes_of(value: Value, data: &[u8]) -> Result<Vec<u8>, String> {
    let text = match value.kind {
        Kind::String => value.bytes(data).to_vec(),
        Kind::Escaped => {
            let mut text = Vec::new();
            unescape(value.bytes(data), &mut text);
            text
        }
        _ => return Err("the schema says bytes, and the value is no text".to_owned()),
    };
    STANDARD.decode(text).map_err(|e| format!("the schema says bytes, and the value is no base64: {e}"))
}

/// The digits of a big-endian number with its point.
pub(super) fn decimal(bytes: &[u8], scale: i32) -> Result<String, String> {
    const DIGITS_MAX: usize = 76;
    const SCALE_MAX: i32 = 1000;
    let is_negative = bytes.first().is_some_and(|byte| byte & 0x80 != 0);
    let sign = if is_negative { 0xFF } else { 0 };
    let significant = bytes.iter().position(|byte| *byte != sign).map_or(&bytes[bytes.len()..], |at| &bytes[at..]);
    if significant.len() >= 32 || scale.abs() > SCALE_MAX {
        return Err(format!("a decimal has more than {DIGITS_MAX} digits"));
    }
    let mut whole = [sign; 32];
    whole[32 - significant.len()..].copy_from_slice(significant);
    let number = i256::from_be_bytes(whole).to_string();
    let (minus, digits) = number.strip_prefix('-').map_or(("", number.as_str()), |digits| ("-", digits));
    if scale <= 0 {
        let zeros = if digits == "0" { 0 } else { scale.unsigned_abs() as usize };
        return Ok(format!("{minus}{digits}{}", "0".repeat(zeros)));
    }
    let scale = scale.unsigned_abs() as usize;
    let digits = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    Ok(format!("{minus}{whole}.{fraction}"))
}

/// A decimal that says its scale itself: `{"scale": 2, "value": "MDk="}`.
fn scaled_decimal(value: Value, data: &[u8]) -> Result<String, String> {
    let broken = "the schema says a decimal with a scale of its own, and the value is not {\"scale\": …, \"value\": …}";
    if value.kind != Kind::Object {
        return Err(broken.to_owned());
    }
    let (mut scale, mut digits) = (None, None);
    let mut scanner = Scanner::new(&data[..value.end as usize], value.start as usize);
    scanner.object::<Wrong>(0, |key, found| {
        match key.bytes(data) {
            b"scale" => scale = integer(found, data).ok(),
            b"value" => digits = Some(bytes_of(found, data).map_err(Wrong)?),
            _ => {}
        }
        Ok(())
    })?;
    let scale = scale.and_then(|scale| i32::try_from(scale).ok()).ok_or(broken)?;
    decimal(&digits.ok_or(broken)?, scale)
}

fn integer(value: Value, data: &[u8]) -> Result<i64, String> {
    let text = std::str::from_utf8(value.bytes(data)).unwrap_or_default();
    let number = (value.kind == Kind::Number).then(|| text.parse().ok()).flatten();
    number.ok_or_else(|| format!("the schema says a whole number of units, and the value is {}", String::from_utf8_lossy(source(value, data))))
}

/// Adds a number of units as one of other units.
fn in_unit(value: Value, data: &[u8], from: TimeUnit, to: TimeUnit, out: &mut Vec<u8>) -> Result<(), String> {
    let count = integer(value, data)?;
    let nanos = |unit: TimeUnit| match unit {
        TimeUnit::Second => 1_000_000_000i128,
        TimeUnit::Millisecond => 1_000_000,
        TimeUnit::Microsecond => 1_000,
        TimeUnit::Nanosecond => 1,
    };
    let total = i128::from(count) * nanos(from);
    if total % nanos(to) != 0 {
        let (count_of, wanted) = (words(from).0, words(to).0);
        return Err(format!("{count} {count_of} are no whole number of {wanted}, which the column counts; declare it with unit \"{}\"", words(from).1));
    }
    write!(out, "{}", total / nanos(to)).map_err(|e| e.to_string())
}

fn words(unit: TimeUnit) -> (&'static str, &'static str) {
    match unit {
        TimeUnit::Second => ("seconds", "s"),
        TimeUnit::Millisecond => ("milliseconds", "ms"),
        TimeUnit::Microsecond => ("microseconds", "us"),
        TimeUnit::Nanosecond => ("nanoseconds", "ns"),
    }
}
