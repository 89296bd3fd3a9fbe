//! The names that messages use for types.

use arrow::datatypes::{DataType, TimeUnit};

/// A type's name in messages: `int64`, `str`, `timestamp[us]`, `list[str]`.
///
/// # Examples
/// ```
/// use arrow::datatypes::DataType;
/// use mill_frame::types::type_name;
///
/// assert_eq!(type_name(&DataType::new_list(DataType::LargeUtf8, true)), "list[str]");
/// ```
pub fn type_name(data_type: &DataType) -> String {
    let unit = |unit: &TimeUnit| match unit {
        TimeUnit::Second => "s",
        TimeUnit::Millisecond => "ms",
        TimeUnit::Microsecond => "us",
        TimeUnit::Nanosecond => "ns",
    };
    match data_type {
        DataType::Null => "null".to_owned(),
        DataType::Boolean => "bool".to_owned(),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "str".to_owned(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "binary".to_owned(),
        DataType::FixedSizeBinary(size) => format!("binary[{size}]"),
        DataType::Date32 | DataType::Date64 => "date".to_owned(),
        DataType::Time32(u) | DataType::Time64(u) => format!("time[{}]", unit(u)),
        DataType::Timestamp(u, None) => format!("timestamp[{}]", unit(u)),
        DataType::Timestamp(u, Some(zone)) => format!("timestamp[{}, {zone}]", unit(u)),
        DataType::Duration(u) => format!("duration[{}]", unit(u)),
        DataType::Interval(_) => "interval".to_owned(),
        DataType::Decimal32(p, s) | DataType::Decimal64(p, s) | DataType::Decimal128(p, s) | DataType::Decimal256(p, s) => {
            format!("decimal[{p}, {s}]")
        }
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::FixedSizeList(field, _)
        | DataType::ListView(field)
        | DataType::LargeListView(field) => format!("list[{}]", type_name(field.data_type())),
        DataType::Struct(fields) => {
            let fields: Vec<String> =
                fields.iter().map(|f| format!("{}: {}", f.name(), type_name(f.data_type()))).collect();
            format!("struct[{}]", fields.join(", "))
        }
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) => {
                let fields: Vec<String> = fields.iter().map(|field| type_name(field.data_type())).collect();
                format!("map[{}]", fields.join(", "))
            }
            _ => "map".to_owned(),
        },
        DataType::Dictionary(_, values) => format!("dictionary[{}]", type_name(values)),
        DataType::RunEndEncoded(_, values) => format!("run_end_encoded[{}]", type_name(values.data_type())),
        DataType::Union(fields, _) => {
            let members: Vec<String> = fields.iter().map(|(_, field)| type_name(field.data_type())).collect();
            format!("union[{}]", members.join(", "))
        }
        // Booleans, integers and floats have the names that Arrow has for them.
        other => other.to_string().to_lowercase(),
    }
}
