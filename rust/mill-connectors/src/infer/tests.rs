use arrow::datatypes::{DataType, TimeUnit};
use mill_frame::text::{Cell, read};

use super::Common;

fn field(values: &[&str]) -> DataType {
    values.iter().map(|value| Common::of_field(value.as_bytes())).fold(Common::Nothing, Common::and).data_type()
}

#[test]
fn only_what_every_value_is_becomes_the_type_and_what_is_inferred_is_read() {
    let micros = |zone: Option<&str>| DataType::Timestamp(TimeUnit::Microsecond, zone.map(Into::into));
    let nanos = DataType::Timestamp(TimeUnit::Nanosecond, None);
    let big = DataType::Decimal128(38, 0);
    for (values, expected) in [
        (&["1", "-5", "0"][..], DataType::Int64),
        (&["1", "2.5", "1e9"], DataType::Float64),
        (&["007", "1"], DataType::Utf8),
        (&["+1", "1"], DataType::Utf8),
        (&["0.5"], DataType::Float64),
        (&["00.5"], DataType::Utf8),
        (&["1e400"], DataType::Utf8),
        (&["1", "inf", "NaN"], DataType::Float64),
        (&["true", "1"], DataType::Utf8),
        (&["TRUE", "false"], DataType::Boolean),
        (&["9007199254740993", "9223372036854775808"], DataType::UInt64),
        (&["9007199254740993", "0.5"], DataType::Utf8),
        (&["9007199254740992", "0.5"], DataType::Float64),
        (&["-1", "9223372036854775808"], big.clone()),
        (&["-9223372036854775809"], big.clone()),
        (&["99999999999999999999999999999999999999"], big),
        (&["999999999999999999999999999999999999999"], DataType::Utf8),
        (&["2013-01-01"], DataType::Date32),
        (&["2013-01-01", "2013-01-01T05:00"], micros(None)),
        (&["2013-01-01T05:00:00Z", "2013-01-01T05:00:00+02:00"], micros(Some("UTC"))),
        (&["2013-01-01T05:00:00Z", "2013-01-01T05:00:00"], DataType::Utf8),
        (&["2013-01-01T05:00:00Z", "2013-01-01"], DataType::Utf8),
        (&["2013-01-01T05:00:00.123456789"], nanos),
        (&["2013-01-01T05:00:00.123456789", "0001-01-01T00:00:00"], DataType::Utf8),
        (&["2013-01-01T05:00:00.123456789", "9999-01-01"], DataType::Utf8),
        (&["+10000-01-01T00:00:00"], micros(None)),
        (&["+999999-01-01T00:00:00"], DataType::Utf8),
        (&["2013-01-01T24:00"], DataType::Utf8),
        (&["2016-12-31T23:59:60Z"], DataType::Utf8),
        (&["NA", "1"], DataType::Utf8),
    ] {
        assert_eq!(field(values), expected, "{values:?}");
        let cells = values.iter().map(|value| Cell::Text(value.as_bytes()));
        read(cells, values.len(), &expected, |row, _, misfit| panic!("{:?} as {expected}: {misfit:?}", values[row]));
    }
}

#[test]
fn the_order_of_the_values_does_not_matter() {
    let values = [
        "", "1", "9007199254740993", "9223372036854775808", "-1", "0.5", "NaN", "true", "2013-01-01", "9999-01-01",
        "2013-01-01T05:00", "2013-01-01T05:00:00.123456789", "0001-01-01T05:00", "2013-01-01T05:00Z", "x",
    ];
    let of = |value: &str| if value.is_empty() { Common::Nothing } else { Common::of_field(value.as_bytes()) };
    for a in values {
        for b in values {
            assert_eq!(of(a).and(of(b)).data_type(), of(b).and(of(a)).data_type(), "{a:?} {b:?}");
            for c in values {
                let left = of(a).and(of(b)).and(of(c)).data_type();
                let right = of(a).and(of(b).and(of(c))).data_type();
                assert_eq!(left, right, "{a:?} {b:?} {c:?}");
            }
        }
    }
}
