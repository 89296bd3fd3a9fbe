//! Bytes into schemas. Every length is checked before it is used, and nesting is limited.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, IntervalUnit, Schema, TimeUnit};

use super::write::{VERSION, tag};
use crate::FrameError;

/// How deep types may nest.
const DEPTH_MAX: usize = 64;

pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

type Result<T> = std::result::Result<T, FrameError>;

fn damaged(what: &str) -> FrameError {
    FrameError::corrupt(format!("schema: {what}"))
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    pub fn schema(mut self) -> Result<Schema> {
        let version = self.byte()?;
        if version != VERSION {
            return Err(damaged(&format!("version {version} is not known")));
        }
        let metadata = self.metadata()?;
        let fields = self.fields(0)?;
        if !self.rest.is_empty() {
            return Err(damaged("there are bytes after its end"));
        }
        Ok(Schema::new_with_metadata(fields, metadata))
    }

    fn take(&mut self, bytes: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(bytes).ok_or_else(|| damaged("it ends too early"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    fn flag(&mut self) -> Result<bool> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(damaged(&format!("{other} is neither 0 nor 1"))),
        }
    }

    fn number(&mut self) -> Result<u32> {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(self.take(4)?);
        Ok(u32::from_le_bytes(bytes))
    }

    /// A count of things that take at least one byte each, so that it cannot ask for more memory than there are bytes.
    fn count(&mut self) -> Result<usize> {
        let count = self.number()? as usize;
        if count > self.rest.len() {
            return Err(damaged("it ends too early"));
        }
        Ok(count)
    }

    fn size(&mut self) -> Result<i32> {
        i32::try_from(self.number()?).map_err(|_| damaged("a size is negative"))
    }

    fn text(&mut self) -> Result<&'a str> {
        let bytes = self.count()?;
        std::str::from_utf8(self.take(bytes)?).map_err(|_| damaged("a text is not UTF-8"))
    }

    fn metadata(&mut self) -> Result<HashMap<String, String>> {
        let count = self.count()?;
        (0..count).map(|_| Ok((self.text()?.to_owned(), self.text()?.to_owned()))).collect()
    }

    fn fields(&mut self, depth: usize) -> Result<Fields> {
        let count = self.count()?;
        (0..count).map(|_| self.field(depth).map(Arc::new)).collect()
    }

    fn field(&mut self, depth: usize) -> Result<Field> {
        let name = self.text()?.to_owned();
        let is_nullable = self.flag()?;
        let metadata = self.metadata()?;
        Ok(Field::new(name, self.data_type(depth)?, is_nullable).with_metadata(metadata))
    }

    fn unit(&mut self) -> Result<TimeUnit> {
        Ok(match self.byte()? {
            0 => TimeUnit::Second,
            1 => TimeUnit::Millisecond,
            2 => TimeUnit::Microsecond,
            3 => TimeUnit::Nanosecond,
            other => return Err(damaged(&format!("unit {other} is not known"))),
        })
    }

    fn decimal(&mut self) -> Result<(u8, i8)> {
        Ok((self.byte()?, self.byte()? as i8))
    }

    fn data_type(&mut self, depth: usize) -> Result<DataType> {
        if depth > DEPTH_MAX {
            return Err(damaged("its types nest too deep"));
        }
        Ok(match self.byte()? {
            tag::NULL => DataType::Null,
            tag::BOOLEAN => DataType::Boolean,
            tag::INT8 => DataType::Int8,
            tag::INT16 => DataType::Int16,
            tag::INT32 => DataType::Int32,
            tag::INT64 => DataType::Int64,
            tag::UINT8 => DataType::UInt8,
            tag::UINT16 => DataType::UInt16,
            tag::UINT32 => DataType::UInt32,
            tag::UINT64 => DataType::UInt64,
            tag::FLOAT16 => DataType::Float16,
            tag::FLOAT32 => DataType::Float32,
            tag::FLOAT64 => DataType::Float64,
            tag::TIMESTAMP => {
                let unit = self.unit()?;
                let zone = if self.flag()? { Some(self.text()?.into()) } else { None };
                DataType::Timestamp(unit, zone)
            }
            tag::DATE32 => DataType::Date32,
            tag::DATE64 => DataType::Date64,
            tag::TIME32 => match self.unit()? {
                unit @ (TimeUnit::Second | TimeUnit::Millisecond) => DataType::Time32(unit),
                _ => return Err(damaged("a time of 32 bits has seconds or milliseconds")),
            },
            tag::TIME64 => match self.unit()? {
                unit @ (TimeUnit::Microsecond | TimeUnit::Nanosecond) => DataType::Time64(unit),
                _ => return Err(damaged("a time of 64 bits has microseconds or nanoseconds")),
            },
            tag::DURATION => DataType::Duration(self.unit()?),
            tag::INTERVAL => DataType::Interval(match self.byte()? {
                0 => IntervalUnit::YearMonth,
                1 => IntervalUnit::DayTime,
                2 => IntervalUnit::MonthDayNano,
                other => return Err(damaged(&format!("unit {other} is not known"))),
            }),
            tag::BINARY => DataType::Binary,
            tag::FIXED_SIZE_BINARY => DataType::FixedSizeBinary(self.size()?),
            tag::LARGE_BINARY => DataType::LargeBinary,
            tag::BINARY_VIEW => DataType::BinaryView,
            tag::UTF8 => DataType::Utf8,
            tag::LARGE_UTF8 => DataType::LargeUtf8,
            tag::UTF8_VIEW => DataType::Utf8View,
            tag::LIST => DataType::List(Arc::new(self.field(depth + 1)?)),
            tag::LARGE_LIST => DataType::LargeList(Arc::new(self.field(depth + 1)?)),
            tag::FIXED_SIZE_LIST => {
                let size = self.size()?;
                DataType::FixedSizeList(Arc::new(self.field(depth + 1)?), size)
            }
            tag::MAP => {
                let is_sorted = self.flag()?;
                DataType::Map(Arc::new(self.field(depth + 1)?), is_sorted)
            }
            tag::STRUCT => DataType::Struct(self.fields(depth + 1)?),
            tag::DICTIONARY => {
                let key = self.data_type(depth + 1)?;
                if !key.is_dictionary_key_type() {
                    return Err(damaged("the codes of a dictionary are integers"));
                }
                DataType::Dictionary(Box::new(key), Box::new(self.data_type(depth + 1)?))
            }
            tag::DECIMAL32 => self.decimal().map(|(p, s)| DataType::Decimal32(p, s))?,
            tag::DECIMAL64 => self.decimal().map(|(p, s)| DataType::Decimal64(p, s))?,
            tag::DECIMAL128 => self.decimal().map(|(p, s)| DataType::Decimal128(p, s))?,
            tag::DECIMAL256 => self.decimal().map(|(p, s)| DataType::Decimal256(p, s))?,
            other => return Err(damaged(&format!("type {other} is not known"))),
        })
    }
}
