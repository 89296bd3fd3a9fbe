use std::sync::Arc;

use arrow::array::*;
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::*;

use super::*;

fn texts(values: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from_iter(values.iter().map(|text| (*text != "∅").then_some(*text))))
}

/// A column from text, which is the form that the table below is written in.
fn column(data_type: &DataType, values: &[&str]) -> ArrayRef {
    cast(&texts(values), data_type).unwrap_or_else(|error| panic!("{data_type} {values:?}: {error}"))
}

/// Each value by itself: as text, or the reason why not.
fn each(array: &ArrayRef, to: &DataType, convert: fn(&ArrayRef, &DataType) -> Result<ArrayRef, Inexact>) -> Vec<String> {
    (0..array.len())
        .map(|row| match convert(&array.slice(row, 1), to) {
            Ok(one) => {
                assert_eq!(one.data_type(), to);
                show(&one, 0)
            }
            Err(inexact) => format!("! {inexact}"),
        })
        .collect()
}

const MS: DataType = DataType::Timestamp(TimeUnit::Millisecond, None);
const S: DataType = DataType::Timestamp(TimeUnit::Second, None);
const NS: DataType = DataType::Timestamp(TimeUnit::Nanosecond, None);

#[test]
fn numbers_are_exact_or_refused() {
    use DataType::{Decimal32, Decimal128, Float32, Float64, Int8, Int64, UInt8, UInt64};
    let cases: &[(DataType, &str, DataType, &str)] = &[
        (Int64, "127", Int8, "127"),
        (Int64, "128", Int8, "! 128 is out of the range of int8, -128 to 127"),
        (Int64, "-1", UInt8, "! -1 is out of the range of uint8, 0 to 255"),
        (UInt64, "18446744073709551615", Int64, "! 18446744073709551615 is out of the range of int64, -9223372036854775808 to 9223372036854775807"),
        (Int64, "9007199254740992", Float64, "9007199254740992.0"),
        (Int64, "9007199254740993", Float64, "! 9007199254740993 has more digits than float64 holds exactly"),
        (Int64, "-9223372036854775808", Float64, "-9.223372036854776e18"),
        (Int64, "9223372036854775807", Float64, "! 9223372036854775807 has more digits than float64 holds exactly"),
        (Int64, "65520", DataType::Float16, "! 65520 has more digits than float16 holds exactly"),
        (Int64, "16777217", Float32, "! 16777217 has more digits than float32 holds exactly"),
        (Float64, "1.5", Int64, "! 1.5 has a fraction, which int64 cannot hold: use floor(), round() or trunc() first"),
        (Float64, "NaN", Int64, "! NaN is not a whole number, which int64 needs: fill_nan() or filter() it first"),
        (Float64, "-9223372036854775808", Int64, "-9223372036854775808"),
        (Float64, "9223372036854775808", Int64, "! 9.223372036854776e18 is out of the range of int64, -9223372036854775808 to 9223372036854775807"),
        (Float64, "9223372036854775808", UInt64, "9223372036854775808"),
        (Float64, "18446744073709551616", UInt64, "! 1.8446744073709552e19 is out of the range of uint64, 0 to 18446744073709551615"),
        (Float64, "-0.0", UInt8, "0"),
        (Float32, "127", Int8, "127"),
        (Float32, "128", Int8, "! 128.0 is out of the range of int8, -128 to 127"),
        (Float32, "2147483648", DataType::Int32, "! 2147483600.0 is out of the range of int32, -2147483648 to 2147483647"),
        (Float64, "0.1", Float32, "0.1"),
        (Float64, "1e39", Float32, "! 1e39 is out of the range of float32"),
        (Float64, "inf", Float32, "inf"),
        (Float64, "65520", DataType::Float16, "! 65520.0 is out of the range of float16"),
        (Float64, "0.1", Decimal128(10, 2), "0.10"),
        (Float64, "0.125", Decimal128(10, 2), "! 0.125 has more digits than decimal[10, 2] holds: use round() first, or a decimal with more digits"),
        (Float64, "1e20", Decimal128(38, 2), "100000000000000000000.00"),
        (Float64, "NaN", Decimal128(10, 2), "! NaN is no decimal number, which decimal[10, 2] needs"),
        (Float32, "0.1", Decimal32(9, 3), "0.100"),
        (Int64, "4294967297", Decimal32(9, 0), "! 4294967297 has more digits than decimal[9, 0] holds: use round() first, or a decimal with more digits"),
        (Int64, "1200", Decimal32(9, -2), "1200"),
        (Int64, "1201", Decimal32(9, -2), "! 1201 has more digits than decimal[9, -2] holds: use round() first, or a decimal with more digits"),
        (Decimal128(10, 2), "1.50", Int64, "! 1.50 has a fraction, which int64 cannot hold: use floor(), round() or trunc() first"),
        (Decimal128(10, 2), "2.00", Int64, "2"),
        (Decimal128(10, 3), "1.250", Decimal128(5, 2), "1.25"),
        (Decimal128(10, 3), "1.255", Decimal128(5, 2), "! 1.255 has more digits than decimal[5, 2] holds: use round() first, or a decimal with more digits"),
        (Decimal128(38, 20), "0.30000000000000000001", Float64, "0.3"),
        (DataType::Decimal256(76, 0), "9007199254740993", Float64, "9007199254740992.0"),
        (DataType::Decimal256(76, 0), "1e60", Float32, &format!("! 1{} is out of the range of float32", "0".repeat(60))),
        (DataType::Boolean, "true", Int64, "! true is bool and not int64: convert it with cast()"),
        (Int64, "1", DataType::Boolean, "! 1 is int64 and not bool: convert it with cast()"),
        (DataType::Utf8, "1", Int64, "! \"1\" is str and not int64: convert it with cast()"),
    ];
    for (from, value, to, expected) in cases {
        let array = match from {
            DataType::Float64 if value.starts_with(|c: char| c.is_ascii_digit()) => Arc::new(Float64Array::from(vec![value.parse::<f64>().unwrap()])),
            _ => column(from, &[value]),
        };
        assert_eq!(each(&array, to, exact), [*expected], "{value} {from} to {to}");
        let lenient = exact_or_null(&array, to);
        match expected.contains("convert it with cast()") {
            true => assert!(lenient.is_err(), "types that never mix are no matter of a value"),
            false => assert_eq!(lenient.unwrap().null_count() == 1, expected.starts_with('!'), "{value} {from} to {to}"),
        }
    }
}

#[test]
fn times_are_divisible_or_floored() {
    let cases: &[(DataType, i64, DataType, &str, &str)] = &[
        (MS, 1000, S, "1970-01-01T00:00:01", "1970-01-01T00:00:01"),
        (MS, -1, S, "! 1969-12-31T23:59:59.999 is finer than timestamp[s] holds: use cast() to round it down, or declare the finer unit", "1969-12-31T23:59:59"),
        (S, i64::MAX, MS, "! 292277026596-12-04T15:30:07 is out of the range of timestamp[ms]", "!"),
        (S, 9_223_372_037, NS, "! 2262-04-11T23:47:17 is out of the range of timestamp[ns]", "!"),
        (MS, 86_400_000, DataType::Date32, "1970-01-02", "1970-01-02"),
        (MS, -1, DataType::Date32, "! 1969-12-31T23:59:59.999 has a time of day, which a date cannot hold: use dt.date(), or dt.truncate(\"1d\")", "1969-12-31"),
        (MS, -1, DataType::Time32(TimeUnit::Second), "! 1969-12-31T23:59:59.999 is timestamp[ms] and not time[s]: convert it with cast()", "23:59:59"),
        (DataType::Duration(TimeUnit::Millisecond), -1500, DataType::Duration(TimeUnit::Second), "! -PT1.5S is finer than duration[s] holds: use cast() to round it down, or declare the finer unit", "-PT2S"),
        (MS, 5, DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())), "! 1970-01-01T00:00:00.005 is timestamp[ms] and not timestamp[ms, UTC]: timestamp[ms] has no time zone; say which it is with dt.replace_time_zone(\"UTC\") or the zone in which it was written", "1970-01-01T00:00:00.005Z"),
        (MS, 5, DataType::Int64, "! 1970-01-01T00:00:00.005 is timestamp[ms] and not int64: convert it with cast()", "5"),
        (MS, 5, DataType::Utf8, "! 1970-01-01T00:00:00.005 is timestamp[ms] and not str: convert it with cast()", "\"1970-01-01T00:00:00.005\""),
        (S, i64::MAX, DataType::Utf8, "! 292277026596-12-04T15:30:07 is timestamp[s] and not str: convert it with cast()", "\"+292277026596-12-04T15:30:07\""),
        (DataType::Duration(TimeUnit::Second), i64::MIN, DataType::LargeUtf8, "!", "\"-PT9223372036854775808S\""),
    ];
    for (from, value, to, as_exact, as_cast) in cases {
        let array = cast(&(Arc::new(Int64Array::from(vec![*value])) as ArrayRef), from).unwrap();
        // Years beyond 9999 have a sign in ISO 8601.
        let found = each(&array, to, exact)[0].replace("! +", "! ");
        assert!(found == *as_exact || *as_exact == "!" && found.starts_with('!'), "{value} {from} to {to}: {found}");
        let found = each(&array, to, cast).remove(0);
        assert!(found == *as_cast || *as_cast == "!" && found.starts_with('!'), "{value} {from} to {to}: {found}");
    }
}

#[test]
fn dates_and_clocks_are_those_of_the_zone() {
    let berlin = DataType::Timestamp(TimeUnit::Second, Some("Europe/Berlin".into()));
    let array = column(&berlin, &["2024-06-30T23:30:00Z"]);
    assert_eq!(each(&array, &DataType::Date32, cast), ["2024-07-01"]);
    assert_eq!(each(&array, &DataType::Time64(TimeUnit::Microsecond), cast), ["01:30:00"]);
    let utc = DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
    assert_eq!(each(&array, &utc, exact), ["2024-06-30T23:30:00Z"]);
    assert!(cast(&array, &S).unwrap_err().reason.contains("dt.replace_time_zone(None)"));
}

#[test]
fn text_is_read_whole_or_not_at_all() {
    let cases: &[(&str, DataType, &str)] = &[
        ("2024-01-02T03:04", S, "2024-01-02T03:04:00"),
        ("2024-01-02", S, "2024-01-02T00:00:00"),
        ("2024-01-02T03:04:05.5", S, "! \"2024-01-02T03:04:05.5\" has a finer fraction of a second than timestamp[s] holds"),
        ("", DataType::Int64, "! \"\" is not "),
        (" ", DataType::Float64, "! \" \" is not "),
        ("1.5", DataType::Int64, "! \"1.5\" is not a whole number, which int64 needs"),
        ("1e400", DataType::Float64, "! \"1e400\" is too large or too small for float64"),
        ("1.005", DataType::Decimal128(10, 2), "! \"1.005\" has more digits than decimal[10, 2] holds"),
        ("true", DataType::Boolean, "true"),
    ];
    for (text, to, expected) in cases {
        let found = each(&texts(&[text]), to, cast).remove(0);
        assert!(found.starts_with(expected), "{text:?} to {to}: {found}");
    }
    let null = cast_or_null(&texts(&["1", "", "x", "∅"]), &DataType::Int64).unwrap();
    assert_eq!(null.null_count(), 3);
    let bytes: ArrayRef = Arc::new(BinaryArray::from_vec(vec![b"a", b"\xff"]));
    assert_eq!(exact(&bytes, &DataType::Utf8).unwrap_err().row, 1);
}

fn list(values: ArrayRef, ends: &[i32], nulls: Option<Vec<bool>>) -> ArrayRef {
    let offsets = OffsetBuffer::new(ScalarBuffer::from(ends.to_vec()));
    let field = Arc::new(Field::new_list_field(values.data_type().clone(), true));
    Arc::new(ListArray::new(field, offsets, values, nulls.map(NullBuffer::from)))
}

#[test]
fn an_error_deep_inside_names_the_row_at_the_top() {
    let ints: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3, 400, 5]));
    let lists = list(ints, &[0, 2, 2, 3, 5], None);
    let bytes = |to: DataType| DataType::new_list(to, true);
    let refused = exact(&lists, &bytes(DataType::Int8)).unwrap_err();
    assert_eq!((refused.row, refused.value.as_str()), (3, "400"));
    assert_eq!(exact(&lists.slice(2, 2), &bytes(DataType::Int8)).unwrap_err().row, 1);
    let lenient = exact_or_null(&lists, &bytes(DataType::Int8)).unwrap();
    assert_eq!(show(&lenient, 3), "[None, 5]");
    for to in [DataType::LargeList, DataType::ListView, DataType::LargeListView] {
        let to = to(Arc::new(Field::new("x", DataType::Float64, true)));
        assert_eq!(show(&exact(&lists, &to).unwrap(), 3), "[400.0, 5.0]");
    }
    let structs: ArrayRef = Arc::new(StructArray::from(vec![
        (Arc::new(Field::new("n", DataType::Int64, true)), Arc::new(Int64Array::from(vec![0; 4])) as ArrayRef),
        (Arc::new(Field::new("l", lists.data_type().clone(), true)), lists),
    ]));
    let to = |l: DataType| DataType::Struct(vec![Field::new("l", bytes(l), true), Field::new("n", DataType::Int32, true)].into());
    assert_eq!(exact(&structs, &to(DataType::Int16)).unwrap().as_struct().column_by_name("n").unwrap().data_type(), &DataType::Int32);
    let refused = exact(&structs, &to(DataType::Int8)).unwrap_err();
    assert_eq!((refused.row, refused.reason.as_str()), (3, "in field \"l\" is out of the range of int8, -128 to 127"));
    let fewer = DataType::Struct(vec![Field::new("n", DataType::Int64, true)].into());
    assert!(exact(&structs, &fewer).unwrap_err().reason.contains("field \"l\" would be lost"));
    assert_eq!(cast(&structs, &fewer).unwrap().as_struct().num_columns(), 1);
}

#[test]
fn what_is_below_a_null_is_no_value() {
    let ints: ArrayRef = Arc::new(Int64Array::from(vec![1, 1000, 1000, 2]));
    let lists = list(Arc::clone(&ints), &[0, 1, 3, 4], Some(vec![true, false, true]));
    let converted = exact(&lists, &DataType::new_list(DataType::Int8, false)).unwrap();
    assert_eq!((show(&converted, 0), show(&converted, 1), show(&converted, 2)), ("[1]".into(), "None".into(), "[2]".into()));
    let fixed: ArrayRef = Arc::new(FixedSizeListArray::new(
        Arc::new(Field::new_list_field(DataType::Int64, true)), 2, ints, Some(NullBuffer::from(vec![false, true])),
    ));
    let to = DataType::new_list(DataType::Int8, true);
    assert_eq!(exact(&fixed, &to).unwrap_err().row, 1, "the 1000 of the first row is below a null");
    let sizes = DataType::new_fixed_size_list(DataType::Int64, 1, true);
    assert_eq!(show(&exact(&lists, &sizes).unwrap(), 2), "[2]");
    let none: ArrayRef = Arc::new(NullArray::new(2));
    assert_eq!(exact(&none, &to).unwrap().null_count(), 2);
    let one: ArrayRef = Arc::new(Int8Array::from(vec![None, Some(1)]));
    assert_eq!(exact(&one, &DataType::Null).unwrap_err().row, 1);
}

#[test]
fn maps_convert_keys_and_values() {
    let mut builder = MapBuilder::new(None, StringBuilder::new(), Int64Builder::new());
    for row in [vec![("a", 1), ("b", 300)], vec![], vec![("c", 2)]] {
        for (key, value) in row {
            builder.keys().append_value(key);
            builder.values().append_value(value);
        }
        builder.append(true).unwrap();
    }
    let map: ArrayRef = Arc::new(builder.finish());
    let to = |value: DataType| {
        let entries = vec![Field::new("key", DataType::LargeUtf8, false), Field::new("value", value, true)];
        DataType::Map(Arc::new(Field::new("entries", DataType::Struct(entries.into()), false)), false)
    };
    assert_eq!(exact(&map, &to(DataType::Int16)).unwrap().as_map().value_length(0), 2);
    let refused = exact(&map.slice(0, 2), &to(DataType::Int8)).unwrap_err();
    assert_eq!((refused.row, refused.value.as_str()), (0, "300"));
    assert_eq!(exact_or_null(&map, &to(DataType::Int8)).unwrap().as_map().value(0).column(1).null_count(), 1);
    assert_eq!(exact(&map.slice(1, 2), &to(DataType::Int8)).unwrap().as_map().value_length(1), 1);
}

#[test]
fn dictionaries_convert_the_values_that_are_used() {
    let values: ArrayRef = Arc::new(Int64Array::from(vec![Some(7), Some(1000), None]));
    let dictionary = |keys: Vec<Option<i8>>| -> ArrayRef { Arc::new(DictionaryArray::new(Int8Array::from(keys), Arc::clone(&values))) };
    let used = dictionary(vec![Some(0), None, Some(2), Some(0)]);
    assert_eq!(each(&used, &DataType::Int8, exact), ["7", "None", "None", "7"]);
    let refused = exact(&dictionary(vec![Some(0), Some(0), Some(1)]), &DataType::Int8).unwrap_err();
    assert_eq!((refused.row, refused.value.as_str()), (2, "1000"));
    let many: ArrayRef = Arc::new(StringArray::from_iter_values((0..300).map(|i| i.to_string())));
    let small = DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8));
    assert_eq!(exact(&many, &small).unwrap_err().row, 128);
    let wide = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    assert_eq!(exact(&exact(&many, &wide).unwrap(), &DataType::Utf8View).unwrap().len(), 300);
}

#[test]
fn a_verdict_of_exact_holds_for_the_ends_of_every_type() {
    use DataType::{Decimal32, Decimal64, Decimal128, Float16, Float32, Float64, Int8, Int16, Int32, Int64, UInt8, UInt16, UInt32, UInt64};
    let types = [
        Int8, Int16, Int32, Int64, UInt8, UInt16, UInt32, UInt64, Float16, Float32, Float64, Decimal32(9, 2), Decimal64(18, 0),
        Decimal128(20, 0), Decimal128(38, 10),
    ];
    let ends = ["0", "-1", "127", "-128", "255", "2048", "32767", "65535", "16777216", "2147483647", "4294967295",
        "9007199254740992", "9223372036854775807", "-9223372036854775808", "18446744073709551615", "0.5", "1234567.25"];
    let mut checked = 0;
    for from in &types {
        let array = cast_or_null(&texts(&ends), from).unwrap();
        for to in &types {
            if verdict(from, to) != Verdict::Exact {
                continue;
            }
            let there = exact(&array, to).unwrap_or_else(|error| panic!("{from} to {to}: {error}"));
            assert_eq!(&exact(&there, from).unwrap(), &array, "{from} to {to} and back");
            checked += 1;
        }
    }
    assert!(checked > 40, "{checked}");
}

#[test]
fn a_dictionary_becomes_its_plain_values() {
    let texts: ArrayRef = Arc::new(arrow::array::DictionaryArray::<arrow::datatypes::Int32Type>::from_iter([
        Some("a"), None, Some("b"), Some("a"),
    ]));
    for converted in [super::exact(&texts, &DataType::Utf8), super::cast(&texts, &DataType::Utf8), super::cast_or_null(&texts, &DataType::Utf8)] {
        let converted = converted.unwrap();
        assert_eq!(converted.data_type(), &DataType::Utf8);
        let want: ArrayRef = Arc::new(arrow::array::StringArray::from(vec![Some("a"), None, Some("b"), Some("a")]));
        assert_eq!(&converted, &want);
    }
}

#[test]
fn a_decimal_that_rounds_beyond_its_digits_is_refused() {
    let decimals: ArrayRef =
        Arc::new(arrow::array::Decimal128Array::from(vec![99_999, -99_999, 99_900]).with_precision_and_scale(5, 2).unwrap());
    for to in [DataType::Int16, DataType::Int64, DataType::Decimal128(5, 0), DataType::Decimal128(38, 1), DataType::Decimal64(9, 1)] {
        assert_eq!(super::exact(&decimals, &to).unwrap_err().value, "999.99", "{to}");
        let kept = super::cast_or_null(&decimals, &to).unwrap();
        assert_eq!((kept.is_null(0), kept.is_null(1), kept.is_null(2)), (true, true, false), "{to}");
    }
}
