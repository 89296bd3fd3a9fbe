use std::str::FromStr;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, Date32Array, Float32Array, Float64Array, Int64Array, StringArray, TimestampNanosecondArray,
    TimestampSecondArray, make_array,
};
use arrow::array::timezone::Tz;
use arrow::compute::cast;
use arrow::compute::kernels::cast_utils::string_to_datetime;
use arrow::datatypes::{DataType, TimeUnit, i256};
use proptest::prelude::*;

use super::*;

const UNITS: [TimeUnit; 4] = [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond];

/// Reads texts as a type: each value as Arrow's bytes see it, or why there is none.
fn read_all(texts: &[&str], to: &DataType) -> (ArrayRef, Vec<(usize, Misfit)>) {
    let mut misfits = Vec::new();
    let cells = texts.iter().map(|text| Cell::Text(text.as_bytes()));
    let array = read(cells, texts.len(), to, |row, _, misfit| misfits.push((row, misfit)));
    (array, misfits)
}

fn write_all(array: &ArrayRef) -> Vec<String> {
    let column = TextColumn::new(array).unwrap().unwrap();
    (0..array.len())
        .map(|row| {
            let mut text = String::new();
            if column.is_null(row) { "∅".to_owned() } else { column.push(row, &mut text); text }
        })
        .collect()
}

/// Writes a column and reads it back.
fn there_and_back(array: &ArrayRef) {
    let texts = write_all(array);
    let cells = texts.iter().map(|text| if text == "∅" { Cell::Null } else { Cell::Text(text.as_bytes()) });
    let back = read(cells, texts.len(), array.data_type(), |row, text, misfit| {
        panic!("row {row}: {:?} {misfit:?}", String::from_utf8_lossy(text))
    });
    assert_eq!(back.to_data(), array.to_data(), "{texts:?}");
}

#[test]
fn edges_of_integers() {
    assert_eq!(parse_integer::<i64>(b"-9223372036854775808"), Ok(i64::MIN));
    assert_eq!(parse_integer::<i64>(b"9223372036854775808"), Err(Misfit::Range));
    assert_eq!(parse_integer::<u64>(b"18446744073709551615"), Ok(u64::MAX));
    assert_eq!(parse_integer::<u64>(b"18446744073709551616"), Err(Misfit::Range));
    assert_eq!(parse_integer::<u8>(b"256"), Err(Misfit::Range));
    assert_eq!(parse_integer::<u8>(b"-1"), Err(Misfit::Range));
    assert_eq!(parse_integer::<i64>(b"1e999999999999999999999"), Err(Misfit::Range));
    for (text, value) in [("1.0", 1), ("1e3", 1000), ("-0", 0), ("0e99", 0), ("1.20e1", 12), ("+7", 7), ("007", 7)] {
        assert_eq!(parse_integer::<i64>(text.as_bytes()), Ok(value), "{text:?}");
    }
    for text in ["1.75", "1e-1", "0.1", "-1.000000000000000000000001"] {
        assert_eq!(parse_integer::<i64>(text.as_bytes()), Err(Misfit::Digits), "{text:?}");
    }
    for text in ["", "-", "+", "--1", "12a", "1e", ".", "0x10", "1_000", "NaN"] {
        assert_eq!(parse_integer::<i64>(text.as_bytes()), Err(Misfit::Form), "{text:?}");
    }
}

#[test]
fn odd_floats_are_read_as_std_does() {
    for text in ["0", "-0", ".5", "5.", ".", "", "-", "1e5", "inf", "NaN", "1.7976931348623157e308", "1..2", "0x1", "1e-400"] {
        let expected: Option<f64> = text.parse().ok();
        assert_eq!(parse_float(text.as_bytes()).ok().map(f64::to_bits), expected.map(f64::to_bits), "{text:?}");
    }
}

#[test]
fn floats_neither_overflow_nor_drop_digits_of_integers() {
    assert_eq!(parse_float(b"1e309"), Err(Misfit::Range));
    assert_eq!(parse_float(b"-2e308"), Err(Misfit::Range));
    assert_eq!(parse_float(b"-Infinity"), Ok(f64::NEG_INFINITY));
    for kept in ["9007199254740992", "9007199254740994", "123456789012345680000", "1180591620717411303424"] {
        assert_eq!(parse_float(kept.as_bytes()), Ok(f64::from_str(kept).unwrap()), "{kept}");
    }
    for cut in ["9007199254740993", "-9223372036854775807", "12345678901234567890"] {
        assert_eq!(parse_float(cut.as_bytes()), Err(Misfit::Digits), "{cut}");
    }
    let (array, misfits) = read_all(&["16777217", "16777216", "1e39", "0.1", "inf"], &DataType::Float32);
    assert_eq!(misfits, [(0, Misfit::Digits), (2, Misfit::Range)]);
    let expected: ArrayRef = Arc::new(Float32Array::from(vec![None, Some(16_777_216.0), None, Some(0.1), Some(f32::INFINITY)]));
    assert_eq!(array.to_data(), expected.to_data());
}

#[test]
fn decimals_keep_every_digit_or_are_refused() {
    for (text, precision, scale, expected) in [
        ("12.5", 5, 2, Ok(1250)),
        ("-0.01", 5, 2, Ok(-1)),
        ("1e2", 5, 2, Ok(10_000)),
        ("1000.00", 5, 2, Err(Misfit::Range)),
        ("0.001", 5, 2, Err(Misfit::Digits)),
        ("0.0100", 5, 2, Ok(1)),
        ("00000000000000000000000000000000000000000000001", 3, 0, Ok(1)),
        ("1e40", 38, 0, Err(Misfit::Range)),
        ("99999999999999999999999999999999999999", 38, 0, Ok(10i128.pow(38) - 1)),
        ("100", 1, -2, Ok(1)),
        ("110", 2, -2, Err(Misfit::Digits)),
        ("0", 1, 0, Ok(0)),
        ("0e-99", 1, 0, Ok(0)),
        ("1,5", 5, 2, Err(Misfit::Form)),
        ("NaN", 5, 2, Err(Misfit::Form)),
    ] {
        assert_eq!(parse_decimal::<i128>(text.as_bytes(), precision, scale), expected, "{text}");
    }
    let nines = "9".repeat(76);
    assert_eq!(parse_decimal::<i256>(nines.as_bytes(), 76, 0).unwrap().to_string(), nines);
}

#[test]
fn moments_are_read_as_arrow_reads_them() {
    let utc: Tz = "+00:00".parse().unwrap();
    for text in [
        "1970-01-01", "2013-01-01T05:15:00", "2013-01-01 05:15:00.5", "2000-02-29T23:59:59.123456789Z",
        "1600-03-01T00:00:00+02:00", "0001-01-01 00:00:00", "9999-12-31T23:59:59Z", "2013-06-01T00:00:00-0330",
    ] {
        let expected = string_to_datetime(&utc, text).unwrap();
        let found = Moments::default().parse(text.as_bytes()).unwrap();
        assert_eq!((found.seconds, found.nanos), (expected.timestamp(), expected.timestamp_subsec_nanos()), "{text}");
    }
    assert_eq!(Moments::default().parse(b"2013-01-01T05:15"), Moments::default().parse(b"2013-01-01T05:15:00"));
}

#[test]
fn what_is_no_moment_is_refused() {
    for text in [
        "", "2013", "2013-1-1", "2013-02-29", "2013-13-01", "2013-01-01T", "2013-01-01T24:00:00", "2013-01-01T1:2:3",
        "2013-01-01T05:15:00.", "2013-01-01T05:15:00+2", "2013-01-01x05:15", "2013-01-01T05:15:00Zx", "yesterday ",
        "\0\0\0\0\0\0\0\0\0\0", "2016-12-31T23:59:60", "2013-01-01T05:15:00.0000000001", "+99999999999999-01-01",
        "+999999999999-01-01", "-10-01-01", "+10000-02-30",
    ] {
        assert_eq!(Moments::default().parse(text.as_bytes()), None, "{text:?}");
    }
}

#[test]
fn times_neither_lose_digits_nor_wrap_nor_change_their_zone() {
    let millis = |zone: Option<&str>| DataType::Timestamp(TimeUnit::Millisecond, zone.map(Arc::from));
    let nanos = DataType::Timestamp(TimeUnit::Nanosecond, None);
    for (text, to, expected) in [
        ("2024-01-02T03:04:05.123456", millis(None), Misfit::Digits),
        ("2300-01-01", nanos, Misfit::Range),
        ("2024-01-02T03:04:05+02:00", millis(None), Misfit::Zone),
        ("2024-03-31T02:30:00", millis(Some("Europe/Berlin")), Misfit::Local),
        ("2024-10-27T02:30:00", millis(Some("Europe/Berlin")), Misfit::Local),
        ("1.5", millis(None), Misfit::Digits),
        ("9223372036854775808", millis(None), Misfit::Range),
        ("24:00", DataType::Time64(TimeUnit::Microsecond), Misfit::Form),
        ("86400000000", DataType::Time64(TimeUnit::Microsecond), Misfit::Range),
        ("05:15:00.0005", DataType::Time32(TimeUnit::Millisecond), Misfit::Digits),
        ("PT0.0001S", DataType::Duration(TimeUnit::Millisecond), Misfit::Digits),
        ("P1M", DataType::Duration(TimeUnit::Millisecond), Misfit::Form),
        ("P400000000000D", DataType::Duration(TimeUnit::Microsecond), Misfit::Range),
        ("2024-01-02T00:00:00", DataType::Date32, Misfit::Form),
        ("19000", DataType::Date32, Misfit::Form),
        ("+9999999-01-01", DataType::Date32, Misfit::Range),
    ] {
        assert_eq!(read_all(&[text], &to).1, [(0, expected)], "{text} as {to}");
    }
    let read_one = |text: &str, to: &DataType| {
        let (array, misfits) = read_all(&[text], to);
        assert_eq!(misfits, [], "{text} as {to}");
        write_all(&array).remove(0)
    };
    assert_eq!(read_one("2024-01-02T03:04:05Z", &millis(None)), "2024-01-02T03:04:05");
    assert_eq!(read_one("2024-07-02T03:04", &millis(Some("Europe/Berlin"))), "2024-07-02T03:04:00+02:00");
    assert_eq!(read_one("2024-07-02T03:04Z", &millis(Some("Europe/Berlin"))), "2024-07-02T05:04:00+02:00");
    assert_eq!(read_one("1704164645123", &millis(None)), "2024-01-02T03:04:05.123");
    assert_eq!(read_one("20240229", &DataType::Date32), "2024-02-29");
    assert_eq!(read_one("P1W2DT3H4M5.5S", &DataType::Duration(TimeUnit::Millisecond)), "PT788645.5S");
    assert_eq!(read_one("-P1D", &DataType::Duration(TimeUnit::Second)), "-PT86400S");
    assert_eq!(read_one("86399999", &DataType::Time32(TimeUnit::Millisecond)), "23:59:59.999");
}

#[test]
fn a_number_counts_days_of_a_date_and_digits_of_text_are_one() {
    let read_date = |cell| {
        let array = read([cell].into_iter(), 1, &DataType::Date32, |_, _, misfit| panic!("{misfit:?}"));
        write_all(&array).remove(0)
    };
    assert_eq!(read_date(Cell::Number(b"1")), "1970-01-02");
    assert_eq!(read_date(Cell::Text(b"20240102")), "2024-01-02");
}

#[test]
fn the_ends_of_every_unit_of_time_come_back() {
    let ends: ArrayRef = Arc::new(Int64Array::from(vec![
        Some(i64::MIN), Some(i64::MIN + 1), Some(-1), Some(0), None, Some(i64::MAX - 1), Some(i64::MAX),
        Some(253_402_300_800), Some(-62_135_596_801), Some(-62_167_219_201),
    ]));
    for unit in UNITS {
        for zone in [None, Some("UTC"), Some("Europe/Berlin"), Some("-05:30")] {
            there_and_back(&cast(&ends, &DataType::Timestamp(unit, zone.map(Arc::from))).unwrap());
        }
        there_and_back(&cast(&ends, &DataType::Duration(unit)).unwrap());
    }
    there_and_back(&(Arc::new(Date32Array::from(vec![i32::MIN, -719_529, -1, 0, 2_932_897, i32::MAX])) as ArrayRef));
    let seconds: ArrayRef = Arc::new(TimestampSecondArray::from(vec![253_402_300_800, -62_167_219_201]));
    assert_eq!(write_all(&seconds), ["+10000-01-01T00:00:00", "-0001-12-31T23:59:59"]);
}

#[test]
fn an_old_offset_with_seconds_is_written_in_utc() {
    let nanos = TimestampNanosecondArray::from(vec![-3_000_000_000_000_000_000]).with_timezone("Europe/Berlin");
    let array: ArrayRef = Arc::new(nanos);
    assert_eq!(write_all(&array), ["1874-12-07T18:40:00Z"]);
    there_and_back(&array);
}

#[test]
fn floats_and_other_values_come_back() {
    there_and_back(&(Arc::new(Float64Array::from(vec![
        0.0, -0.0, 0.1, 1e16, 1e300, 5e-324, f64::MAX, f64::MIN_POSITIVE, f64::INFINITY, f64::NEG_INFINITY, 1.0 / 3.0,
    ])) as ArrayRef));
    let nan: ArrayRef = Arc::new(Float64Array::from(vec![f64::NAN]));
    assert_eq!(write_all(&nan), ["NaN"]);
    there_and_back(&(Arc::new(StringArray::from(vec![Some(""), Some(" x "), None, Some("\0\r\n\"é")])) as ArrayRef));
    let values: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None, Some("a"), Some("")]));
    there_and_back(&cast(&values, &DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8))).unwrap());
    there_and_back(&cast(&values, &DataType::Binary).unwrap());
    there_and_back(&make_array(arrow::array::ArrayData::new_null(&DataType::Null, 2)));
}

proptest! {
    #[test]
    fn floats_round_as_std_does(value: f64, places in 0usize..12, scale in -3i32..9) {
        let value = value.sin() * 10f64.powi(scale);
        let text = format!("{value:.places$}");
        prop_assert_eq!(parse_float(text.as_bytes()).unwrap().to_bits(), text.parse::<f64>().unwrap().to_bits());
    }

    #[test]
    fn numbers_of_any_bits_come_back(bits: Vec<u64>) {
        there_and_back(&(Arc::new(Float64Array::from_iter_values(
            bits.iter().map(|bits| f64::from_bits(*bits)).filter(|value| !value.is_nan()))) as ArrayRef));
        there_and_back(&(Arc::new(Float32Array::from_iter_values(
            bits.iter().map(|bits| f32::from_bits(*bits as u32)).filter(|value| !value.is_nan()))) as ArrayRef));
        let integers: ArrayRef = Arc::new(Int64Array::from_iter_values(bits.iter().map(|bits| *bits as i64)));
        there_and_back(&integers);
        for unit in UNITS {
            there_and_back(&cast(&integers, &DataType::Timestamp(unit, None)).unwrap());
            there_and_back(&cast(&integers, &DataType::Timestamp(unit, Some("America/New_York".into()))).unwrap());
            there_and_back(&cast(&integers, &DataType::Duration(unit)).unwrap());
        }
    }

    #[test]
    fn no_bytes_make_a_reader_panic(bytes: Vec<u8>, digits in "[-+0-9.:TZPDHMSe ]{0,30}") {
        for bytes in [bytes.as_slice(), digits.as_bytes()] {
            for to in [
                DataType::Null, DataType::Boolean, DataType::Int8, DataType::UInt64, DataType::Float16, DataType::Float32,
                DataType::Float64, DataType::Decimal128(10, 3), DataType::Decimal256(50, -3), DataType::Date32,
                DataType::Date64, DataType::Time32(TimeUnit::Second), DataType::Time64(TimeUnit::Nanosecond),
                DataType::Duration(TimeUnit::Nanosecond), DataType::Timestamp(TimeUnit::Nanosecond, None),
                DataType::Timestamp(TimeUnit::Second, Some("Europe/Berlin".into())), DataType::Binary,
                DataType::FixedSizeBinary(2), DataType::Utf8View,
            ] {
                let array = read([Cell::Text(bytes)].into_iter(), 1, &to, |_, _, _| {});
                prop_assert_eq!(array.len(), 1);
            }
        }
    }
}

#[test]
fn an_object_is_shown_by_whoever_knows_its_language() {
    let bytes: ArrayRef = Arc::new(arrow::array::BinaryArray::from(vec![Some(&b"abc"[..]), None]));
    let schema = Arc::new(arrow::datatypes::Schema::new(vec![crate::schema::object_field("o", true)]));
    let data = arrow::array::RecordBatch::try_new(schema, vec![bytes]).unwrap();
    assert_eq!(record_json(&data, 0), r#"{"o":"<an object of 3 bytes>"}"#);
    assert_eq!(record_json(&data, 1), r#"{"o":null}"#);
    show_objects_with(|field, value| Some(format!("[{:?},{}]", field.name(), value.len())));
    assert_eq!(record_json(&data, 0), r#"{"o":["o",1]}"#);
}
