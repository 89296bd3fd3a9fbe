//! Schemas into bytes.

use std::collections::{BTreeMap, HashMap};

use arrow::datatypes::{DataType, Field, Fields, IntervalUnit, TimeUnit};

use super::is_object;

/// Version of the form.
pub(super) const VERSION: u8 = 1;

/// Writes the form; with `is_whole` all of it, otherwise what the fingerprint is of.
pub(super) struct Writer<'a> {
    pub out: &'a mut Vec<u8>,
    pub is_whole: bool,
}

/// The tags of types. They are stored, so each is fixed forever.
pub(super) mod tag {
    pub const NULL: u8 = 0;
    pub const BOOLEAN: u8 = 1;
    pub const INT8: u8 = 2;
    pub const INT16: u8 = 3;
    pub const INT32: u8 = 4;
    pub const INT64: u8 = 5;
    pub const UINT8: u8 = 6;
    pub const UINT16: u8 = 7;
    pub const UINT32: u8 = 8;
    pub const UINT64: u8 = 9;
    pub const FLOAT16: u8 = 10;
    pub const FLOAT32: u8 = 11;
    pub const FLOAT64: u8 = 12;
    pub const TIMESTAMP: u8 = 13;
    pub const DATE32: u8 = 14;
    pub const DATE64: u8 = 15;
    pub const TIME32: u8 = 16;
    pub const TIME64: u8 = 17;
    pub const DURATION: u8 = 18;
    pub const INTERVAL: u8 = 19;
    pub const BINARY: u8 = 20;
    pub const FIXED_SIZE_BINARY: u8 = 21;
    pub const LARGE_BINARY: u8 = 22;
    pub const BINARY_VIEW: u8 = 23;
    pub const UTF8: u8 = 24;
    pub const LARGE_UTF8: u8 = 25;
    pub const UTF8_VIEW: u8 = 26;
    pub const LIST: u8 = 27;
    pub const FIXED_SIZE_LIST: u8 = 28;
    pub const LARGE_LIST: u8 = 29;
    pub const STRUCT: u8 = 30;
    pub const DICTIONARY: u8 = 31;
    pub const DECIMAL32: u8 = 32;
    pub const DECIMAL64: u8 = 33;
    pub const DECIMAL128: u8 = 34;
    pub const DECIMAL256: u8 = 35;
    pub const MAP: u8 = 36;
    /// A type that is not carried; in fingerprints only.
    pub const OTHER: u8 = 255;
}

impl Writer<'_> {
    pub fn metadata(&mut self, metadata: &HashMap<String, String>) {
        let sorted: BTreeMap<_, _> = metadata.iter().collect();
        self.count(sorted.len());
        for (key, value) in sorted {
            self.text(key);
            self.text(value);
        }
    }

    /// Returns a type that is not carried, if there is one.
    pub fn fields(&mut self, fields: &Fields) -> Option<DataType> {
        self.count(fields.len());
        fields.iter().fold(None, |other, field| other.or(self.field(field)))
    }

    fn field(&mut self, field: &Field) -> Option<DataType> {
        self.text(field.name());
        if self.is_whole {
            self.out.push(u8::from(field.is_nullable()));
            self.metadata(field.metadata());
        } else {
            self.out.push(u8::from(is_object(field)));
        }
        self.data_type(field.data_type())
    }

    fn count(&mut self, count: usize) {
        self.out.extend_from_slice(&(count as u32).to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.count(text.len());
        self.out.extend_from_slice(text.as_bytes());
    }

    fn data_type(&mut self, data_type: &DataType) -> Option<DataType> {
        let unit = |unit: &TimeUnit| match unit {
            TimeUnit::Second => 0,
            TimeUnit::Millisecond => 1,
            TimeUnit::Microsecond => 2,
            TimeUnit::Nanosecond => 3,
        };
        match data_type {
            DataType::Null => self.out.push(tag::NULL),
            DataType::Boolean => self.out.push(tag::BOOLEAN),
            DataType::Int8 => self.out.push(tag::INT8),
            DataType::Int16 => self.out.push(tag::INT16),
            DataType::Int32 => self.out.push(tag::INT32),
            DataType::Int64 => self.out.push(tag::INT64),
            DataType::UInt8 => self.out.push(tag::UINT8),
            DataType::UInt16 => self.out.push(tag::UINT16),
            DataType::UInt32 => self.out.push(tag::UINT32),
            DataType::UInt64 => self.out.push(tag::UINT64),
            DataType::Float16 => self.out.push(tag::FLOAT16),
            DataType::Float32 => self.out.push(tag::FLOAT32),
            DataType::Float64 => self.out.push(tag::FLOAT64),
            DataType::Timestamp(u, zone) => {
                self.out.extend_from_slice(&[tag::TIMESTAMP, unit(u), u8::from(zone.is_some())]);
                if let Some(zone) = zone {
                    self.text(zone);
                }
            }
            DataType::Date32 => self.out.push(tag::DATE32),
            DataType::Date64 => self.out.push(tag::DATE64),
            DataType::Time32(u) => self.out.extend_from_slice(&[tag::TIME32, unit(u)]),
            DataType::Time64(u) => self.out.extend_from_slice(&[tag::TIME64, unit(u)]),
            DataType::Duration(u) => self.out.extend_from_slice(&[tag::DURATION, unit(u)]),
            DataType::Interval(u) => {
                let unit = match u {
                    IntervalUnit::YearMonth => 0,
                    IntervalUnit::DayTime => 1,
                    IntervalUnit::MonthDayNano => 2,
                };
                self.out.extend_from_slice(&[tag::INTERVAL, unit]);
            }
            DataType::Binary => self.out.push(tag::BINARY),
            DataType::FixedSizeBinary(size) => self.sized(tag::FIXED_SIZE_BINARY, *size),
            DataType::LargeBinary => self.out.push(tag::LARGE_BINARY),
            DataType::BinaryView => self.out.push(tag::BINARY_VIEW),
            DataType::Utf8 => self.out.push(tag::UTF8),
            DataType::LargeUtf8 => self.out.push(tag::LARGE_UTF8),
            DataType::Utf8View => self.out.push(tag::UTF8_VIEW),
            DataType::List(field) => return self.parent(tag::LIST, field),
            DataType::LargeList(field) => return self.parent(tag::LARGE_LIST, field),
            DataType::FixedSizeList(field, size) => {
                self.sized(tag::FIXED_SIZE_LIST, *size);
                return self.field(field);
            }
            DataType::Map(field, is_sorted) => {
                self.out.extend_from_slice(&[tag::MAP, u8::from(*is_sorted)]);
                return self.field(field);
            }
            DataType::Struct(fields) => {
                self.out.push(tag::STRUCT);
                return self.fields(fields);
            }
            DataType::Dictionary(key, value) => {
                self.out.push(tag::DICTIONARY);
                return self.data_type(key).or(self.data_type(value));
            }
            DataType::Decimal32(precision, scale) => self.decimal(tag::DECIMAL32, *precision, *scale),
            DataType::Decimal64(precision, scale) => self.decimal(tag::DECIMAL64, *precision, *scale),
            DataType::Decimal128(precision, scale) => self.decimal(tag::DECIMAL128, *precision, *scale),
            DataType::Decimal256(precision, scale) => self.decimal(tag::DECIMAL256, *precision, *scale),
            other => {
                self.out.push(tag::OTHER);
                self.text(&other.to_string());
                return Some(other.clone());
            }
        }
        None
    }

    fn sized(&mut self, tag: u8, size: i32) {
        self.out.push(tag);
        self.out.extend_from_slice(&size.to_le_bytes());
    }

    fn decimal(&mut self, tag: u8, precision: u8, scale: i8) {
        self.out.extend_from_slice(&[tag, precision, scale as u8]);
    }

    fn parent(&mut self, tag: u8, field: &Field) -> Option<DataType> {
        self.out.push(tag);
        self.field(field)
    }
}
