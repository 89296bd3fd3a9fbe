//! Expressions against values worked out by hand.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, DurationMicrosecondArray, Float32Array, Float64Array, Int8Array,
    Int32Array, Int64Array, ListArray, RecordBatch, StringArray, StructArray, TimestampMillisecondArray, UInt64Array,
};
use arrow::datatypes::{DataType, Field, Int64Type, TimeUnit};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use mill_plan::{BinaryOp, CompiledExpr, Expr, ScalarValue, UnaryOp, type_name};

fn col(name: &str) -> Expr {
    Expr::column(name)
}

fn lit(value: impl Into<ScalarValue>) -> Expr {
    Expr::literal(value)
}

fn null() -> Expr {
    Expr::Literal(ScalarValue::Null)
}

fn f(name: &str, args: Vec<Expr>) -> Expr {
    Expr::function(name, args).expect("the function exists")
}

/// Six rows of every type.
fn batch() -> RecordBatch {
    let words = StringArray::from(vec![Some("Hello World"), Some(""), None, Some("grüße, the cat's"), Some("-42"), Some("a,b,,c")]);
    let mut lists = Vec::new();
    for list in [Some(vec![Some(3), Some(1), Some(2)]), Some(vec![]), None, Some(vec![Some(1), None, Some(1)]), Some(vec![Some(5)]), Some(vec![Some(2), Some(2)])] {
        lists.push(list);
    }
    let lists = ListArray::from_iter_primitive::<Int64Type, _, _>(lists);
    let structs = StructArray::from(vec![
        (Arc::new(Field::new("x", DataType::Int64, true)), Arc::new(Int64Array::from(vec![1, 2, 3, 4, 5, 6])) as ArrayRef),
        (Arc::new(Field::new("name", DataType::Utf8, true)), Arc::new(words.clone()) as ArrayRef),
    ]);
    let hour = 3_600_000_i64;
    // 2024-02-29 13:45:30.250, a Thursday, and others.
    let base = 1_709_214_330_250_i64;
    let times = TimestampMillisecondArray::from(vec![Some(base), Some(0), None, Some(-hour), Some(base + 24 * hour), Some(base)]);
    let zoned = times.clone().with_timezone("Europe/Berlin");
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("i", Arc::new(Int64Array::from(vec![Some(7), Some(-7), None, Some(0), Some(100), Some(i64::MAX)]))),
        ("j", Arc::new(Int64Array::from(vec![Some(2), Some(2), Some(1), Some(0), None, Some(-3)]))),
        ("small", Arc::new(Int8Array::from(vec![Some(1), Some(-1), None, Some(100), Some(2), Some(127)]))),
        ("n32", Arc::new(Int32Array::from(vec![Some(1), Some(2), None, Some(4), Some(5), Some(6)]))),
        ("u", Arc::new(UInt64Array::from(vec![Some(1), Some(2), None, Some(4), Some(5), Some(u64::MAX)]))),
        ("x", Arc::new(Float64Array::from(vec![Some(1.5), Some(-2.5), None, Some(f64::NAN), Some(0.0), Some(-0.0)]))),
        ("f32", Arc::new(Float32Array::from(vec![Some(1.5), Some(2.5), None, Some(f32::NAN), Some(0.0), Some(-0.0)]))),
        ("b", Arc::new(BooleanArray::from(vec![Some(true), Some(false), None, Some(true), Some(false), None]))),
        ("c", Arc::new(BooleanArray::from(vec![Some(true), Some(true), Some(true), Some(false), None, None]))),
        ("s", Arc::new(words)),
        ("l", Arc::new(lists)),
        ("st", Arc::new(structs)),
        ("t", Arc::new(times)),
        ("tz", Arc::new(zoned)),
        ("d", Arc::new(Date32Array::from(vec![Some(19782), Some(0), None, Some(-1), Some(19783), Some(31)]))),
        ("span", Arc::new(DurationMicrosecondArray::from(vec![Some(90_000_000), Some(-1_500_000), None, Some(0), Some(86_400_000_000), Some(1)]))),
        ("dec", Arc::new(Decimal128Array::from(vec![Some(1234), Some(-1250), None, Some(0), Some(5), Some(100)]).with_precision_and_scale(10, 2).unwrap())),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true))).unwrap()
}

/// The values of an expression as text, with the type ahead.
fn run(expr: &Expr) -> Result<String, String> {
    let batch = batch();
    let compiled = CompiledExpr::new(expr, &batch.schema()).map_err(|error| error.message().to_owned())?;
    let array = compiled.evaluate(&batch).map_err(|error| error.message().to_owned())?;
    assert_eq!(array.data_type(), compiled.field().data_type(), "{expr} gives another type than it said");
    assert_eq!(arrow::array::Array::len(&array), 6, "{expr} gives as many values as there are rows");
    // Records that fail are looked for in slices of the batch, so slices must give the same values.
    for (offset, length) in [(1, 4), (2, 2), (5, 1), (3, 0)] {
        let part = compiled.evaluate(&batch.slice(offset, length)).map_err(|error| error.message().to_owned())?;
        assert_eq!(&part, &array.slice(offset, length), "{expr} over rows {offset}..{}", offset + length);
    }
    let options = FormatOptions::new().with_null("null");
    let formatter = ArrayFormatter::try_new(&array, &options).unwrap();
    let values: Vec<String> = (0..6).map(|row| formatter.value(row).to_string()).collect();
    Ok(format!("{}: {}", type_name(array.data_type()), values.join(" | ")))
}

#[track_caller]
fn check(expr: Expr, expected: &str) {
    assert_eq!(run(&expr).unwrap_or_else(|error| format!("error: {error}")), expected, "{expr}");
}

#[track_caller]
fn refused(expr: Expr, expected: &str) {
    assert_eq!(run(&expr).expect_err("it must be refused"), expected, "{expr}");
}

#[test]
fn arithmetic_keeps_the_type_of_the_column() {
    use BinaryOp::*;
    check(col("n32").binary(Mul, lit(2_i64)), "int32: 2 | 4 | null | 8 | 10 | 12");
    check(col("n32").binary(Add, lit(1.5)), "float64: 2.5 | 3.5 | null | 5.5 | 6.5 | 7.5");
    check(col("f32").binary(Mul, lit(2.0)), "float32: 3.0 | 5.0 | null | NaN | 0.0 | -0.0");
    check(lit(10_i64).binary(Sub, col("n32")), "int32: 9 | 8 | null | 6 | 5 | 4");
    check(col("n32").binary(Add, lit(3_000_000_000_i64)), "int64: 3000000001 | 3000000002 | null | 3000000004 | 3000000005 | 3000000006");
    check(col("n32").binary(Div, lit(2_i64)), "float64: 0.5 | 1.0 | null | 2.0 | 2.5 | 3.0");
    check(col("b").binary(Add, col("n32")), "int32: 2 | 2 | null | 5 | 5 | null");
    check(lit(2_i64).binary(Mul, lit(3_i64)), "int64: 6 | 6 | 6 | 6 | 6 | 6");
    check(col("s").binary(Add, lit("!")), "str: Hello World! | ! | null | grüße, the cat's! | -42! | a,b,,c!");
}

#[test]
fn division_rounds_down_and_remainders_have_the_divisors_sign() {
    use BinaryOp::*;
    check(col("i").binary(FloorDiv, col("j")), "int64: 3 | -4 | null | null | null | -3074457345618258603");
    check(col("i").binary(Mod, col("j")), "int64: 1 | 1 | null | null | null | -2");
    check(col("i").binary(Mod, lit(5_i64)), "int64: 2 | 3 | null | 0 | 0 | 2");
    check(col("i").binary(FloorDiv, lit(0_i64)), "int64: null | null | null | null | null | null");
    check(col("i").binary(Mod, lit(-5_i64)), "int64: -3 | -2 | null | 0 | 0 | -3");
    check(col("x").binary(Mod, lit(2.0)), "float64: 1.5 | 1.5 | null | NaN | 0.0 | 0.0");
    check(col("x").binary(FloorDiv, lit(2.0)), "float64: 0.0 | -2.0 | null | NaN | 0.0 | -0.0");
    check(col("n32").binary(Pow, lit(2_i64)), "int32: 1 | 4 | null | 16 | 25 | 36");
}

#[test]
fn overflow_is_an_error_that_names_the_values() {
    use BinaryOp::*;
    refused(
        col("i").binary(Add, lit(1_i64)),
        "col(\"i\") + 1: integer overflow: 9223372036854775807 + 1 does not fit in int64; cast to a wider type first",
    );
    refused(
        col("small").binary(Mul, lit(2_i64)),
        "col(\"small\") * 2: integer overflow: 100 * 2 does not fit in int8; cast to a wider type first",
    );
    refused(
        col("s").cast(DataType::Int64, true),
        "col(\"s\").cast(int64): \"Hello World\" is not an integer (int64)",
    );
    check(col("s").cast(DataType::Int64, false), "int64: null | null | null | null | -42 | null");
    check(col("x").cast(DataType::Int64, false), "int64: null | null | null | null | 0 | 0");
    assert!(run(&col("x").cast(DataType::Int64, true)).is_err(), "NaN is no integer");
}

#[test]
fn comparisons_know_null_nan_and_negative_zero() {
    use BinaryOp::*;
    check(col("x").binary(Gt, lit(0_i64)), "bool: true | false | null | true | false | false");
    check(col("x").binary(Eq, lit(0.0)), "bool: false | false | null | false | true | true");
    check(col("x").binary(Eq, col("x")), "bool: true | true | null | true | true | true");
    check(col("x").binary(LtEq, lit(f64::NAN)), "bool: true | true | null | true | true | true");
    check(col("x").binary(EqMissing, null()), "bool: false | false | true | false | false | false");
    check(col("i").binary(EqMissing, col("j")), "bool: false | false | false | true | false | false");
    check(col("small").binary(Lt, lit(1000_i64)), "bool: true | true | null | true | true | true");
    check(lit(1_i64).binary(Lt, col("n32")), "bool: false | true | null | true | true | true");
    check(col("s").binary(GtEq, lit("a")), "bool: false | false | null | true | false | true");
    check(col("i").binary(Eq, null()), "bool: null | null | null | null | null | null");
    check(col("dec").binary(Lt, lit(1_i64)), "bool: false | true | null | true | true | false");
    refused(
        col("s").binary(Gt, lit(3_i64)),
        "cannot compare col(\"s\") (str) > lit(3) (int64); cast one of them, as in .cast(int)",
    );
}

#[test]
fn truth_has_three_values() {
    use BinaryOp::*;
    check(col("b").binary(And, col("c")), "bool: true | false | null | false | false | null");
    check(col("b").binary(Or, col("c")), "bool: true | true | true | true | null | null");
    check(col("b").binary(Xor, col("c")), "bool: false | true | null | true | null | null");
    check(col("b").unary(UnaryOp::Not), "bool: false | true | null | false | true | null");
    check(col("n32").binary(And, lit(1_i64)), "int32: 1 | 0 | null | 0 | 1 | 0");
    check(col("i").unary(UnaryOp::IsNull), "bool: false | false | true | false | false | false");
    refused(
        col("i").binary(And, col("b")),
        "& needs booleans on both sides, found col(\"i\") (int64) and col(\"b\") (bool); put comparisons in brackets: \
         (a > 1) & (b < 2)",
    );
}

#[test]
fn when_computes_each_branch_on_its_own_rows() {
    use BinaryOp::*;
    let case = Expr::Case {
        branches: vec![(col("i").binary(Gt, lit(50_i64)), lit("big")), (col("i").binary(Lt, lit(0_i64)), lit("neg"))],
        otherwise: Some(Box::new(col("s"))),
    };
    check(case, "str: Hello World | neg | null | grüße, the cat's | big | big");
    // The sum overflows on the last row, which the branch does not take.
    let case = Expr::Case {
        branches: vec![(col("i").binary(Lt, lit(1000_i64)), col("i").binary(Add, lit(1_i64)))],
        otherwise: None,
    };
    check(case, "int64: 8 | -6 | null | 1 | 101 | null");
}

#[test]
fn numbers() {
    check(f("abs", vec![col("j")]), "int64: 2 | 2 | 1 | 0 | null | 3");
    check(f("abs", vec![col("x")]), "float64: 1.5 | 2.5 | null | NaN | 0.0 | 0.0");
    check(f("abs", vec![col("span")]), "duration[us]: PT90S | PT1.5S | null | P0D | PT86400S | PT0.000001S");
    check(f("round", vec![col("x")]), "float64: 2.0 | -2.0 | null | NaN | 0.0 | -0.0");
    check(f("round", vec![col("dec"), lit(1_i64)]), "decimal[10, 2]: 12.30 | -12.50 | null | 0.00 | 0.00 | 1.00");
    check(f("floor", vec![col("dec")]), "decimal[10, 2]: 12.00 | -13.00 | null | 0.00 | 0.00 | 1.00");
    check(f("ceil", vec![col("i")]), "int64: 7 | -7 | null | 0 | 100 | 9223372036854775807");
    check(f("sqrt", vec![col("n32")]), "float64: 1.0 | 1.4142135623730951 | null | 2.0 | 2.23606797749979 | 2.449489742783178");
    check(f("log", vec![lit(8_i64), lit(2_i64)]), "float64: 3.0 | 3.0 | 3.0 | 3.0 | 3.0 | 3.0");
    check(f("sign", vec![col("j")]), "int64: 1 | 1 | 1 | 0 | null | -1");
    check(f("clip", vec![col("n32"), lit(2_i64), lit(5_i64)]), "int32: 2 | 2 | null | 4 | 5 | 5");
    check(f("clip", vec![col("n32"), null(), lit(3_i64)]), "int32: 1 | 2 | null | 3 | 3 | 3");
    check(col("small").unary(UnaryOp::Negate), "int8: -1 | 1 | null | -100 | -2 | -127");
    check(col("dec").binary(BinaryOp::Add, lit(1_i64)), "decimal[23, 2]: 13.34 | -11.50 | null | 1.00 | 1.05 | 2.00");
    check(col("dec").binary(BinaryOp::Mul, lit(0.5)), "float64: 6.17 | -6.25 | null | 0.0 | 0.025 | 0.5");
}

#[test]
fn choices() {
    check(f("fill_null", vec![col("i"), lit(0_i64)]), "int64: 7 | -7 | 0 | 0 | 100 | 9223372036854775807");
    check(f("coalesce", vec![col("i"), col("j"), lit(9_i64)]), "int64: 7 | -7 | 1 | 0 | 100 | 9223372036854775807");
    check(f("is_nan", vec![col("x")]), "bool: false | false | null | true | false | false");
    check(f("fill_nan", vec![col("x"), null()]), "float64: 1.5 | -2.5 | null | null | 0.0 | -0.0");
    check(f("is_in", vec![col("i"), lit(7_i64), lit(100_i64)]), "bool: true | false | null | false | true | false");
    check(f("is_in", vec![col("s"), lit(""), lit("x"), lit("-42"), lit("y"), lit("z")]), "bool: false | true | null | false | true | false");
    check(f("is_in", vec![col("small"), lit(1000_i64), lit(2_i64)]), "bool: false | false | null | false | true | false");
    check(f("is_between", vec![col("n32"), lit(2_i64), lit(5_i64)]), "bool: false | true | null | true | true | false");
    check(f("is_between", vec![col("n32"), lit(2_i64), lit(5_i64), lit("none")]), "bool: false | false | null | true | false | false");
    check(f("min_horizontal", vec![col("i"), col("j")]), "int64: 2 | -7 | 1 | 0 | 100 | -3");
    check(f("max_horizontal", vec![col("i"), lit(3_i64)]), "int64: 7 | 3 | 3 | 3 | 100 | 9223372036854775807");
    check(f("all_horizontal", vec![col("b"), col("c")]), "bool: true | false | null | false | false | null");
    check(f("concat_str", vec![lit("-"), col("n32"), col("b")]), "str: 1-true | 2-false | null | 4-true | 5-false | null");
}

#[test]
fn strings() {
    let s = || col("s");
    check(f("str.to_lowercase", vec![s()]), "str: hello world |  | null | grüße, the cat's | -42 | a,b,,c");
    check(f("str.to_uppercase", vec![s()]), "str: HELLO WORLD |  | null | GRÜSSE, THE CAT'S | -42 | A,B,,C");
    check(f("str.to_titlecase", vec![lit("hello world")]), "str: Hello World | Hello World | Hello World | Hello World | Hello World | Hello World");
    check(f("str.len_chars", vec![s()]), "int64: 11 | 0 | null | 16 | 3 | 6");
    check(f("str.len_bytes", vec![s()]), "int64: 11 | 0 | null | 18 | 3 | 6");
    check(f("str.contains", vec![s(), lit(r"\w\s\w")]), "bool: true | false | null | true | false | false");
    check(f("str.contains", vec![s(), lit(","), lit(true)]), "bool: false | false | null | true | false | true");
    check(f("str.starts_with", vec![s(), lit("-")]), "bool: false | false | null | false | true | false");
    check(f("str.ends_with", vec![s(), lit("c")]), "bool: false | false | null | false | false | true");
    check(f("str.find", vec![s(), lit(",")]), "int64: null | null | null | 7 | null | 1");
    check(f("str.count_matches", vec![s(), lit("[aeiou]")]), "int64: 3 | 0 | null | 3 | 0 | 1");
    check(f("str.replace", vec![s(), lit(","), lit(";")]), "str: Hello World |  | null | grüße; the cat's | -42 | a;b,,c");
    check(f("str.replace_all", vec![s(), lit(r"(\w)l"), lit("${1}L")]), "str: HeLlo WorLd |  | null | grüße, the cat's | -42 | a,b,,c");
    check(f("str.extract", vec![s(), lit(r"(\w+) (\w+)"), lit(2_i64)]), "str: World | null | null | cat | null | null");
    check(f("str.extract_all", vec![s(), lit("[a-z']+")]), "list[str]: [ello, orld] | [] | null | [gr, e, the, cat's] | [] | [a, b, c]");
    check(f("str.extract_all", vec![s(), lit(r"\w+")]), "list[str]: [Hello, World] | [] | null | [grüße, the, cat, s] | [42] | [a, b, c]");
    check(f("str.split", vec![s(), lit(",")]), "list[str]: [Hello World] | [] | null | [grüße,  the cat's] | [-42] | [a, b, , c]");
    check(f("str.strip_chars", vec![s(), lit("-Hc")]), "str: ello World |  | null | grüße, the cat's | 42 | a,b,,");
    check(f("str.slice", vec![s(), lit(-3_i64)]), "str: rld |  | null | t's | -42 | ,,c");
    check(f("str.slice", vec![s(), lit(2_i64), lit(2_i64)]), "str: ll |  | null | üß | 2 | b,");
    check(f("str.head", vec![s(), lit(2_i64)]), "str: He |  | null | gr | -4 | a,");
    check(f("str.tail", vec![s(), lit(2_i64)]), "str: ld |  | null | 's | 42 | ,c");
    check(f("str.tail", vec![s(), lit(-2_i64)]), "str: llo World |  | null | üße, the cat's | 2 | b,,c");
    check(f("str.pad_start", vec![s(), lit(5_i64), lit("*")]), "str: Hello World | ***** | null | grüße, the cat's | **-42 | a,b,,c");
    check(f("str.zfill", vec![s(), lit(5_i64)]), "str: Hello World | 00000 | null | grüße, the cat's | -0042 | a,b,,c");
    check(f("str.reverse", vec![s()]), "str: dlroW olleH |  | null | s'tac eht ,eßürg | 24- | c,,b,a");
    check(f("str.to_integer", vec![s(), lit(10_i64), lit(false)]), "int64: null | null | null | null | -42 | null");
    check(f("str.strip_prefix", vec![s(), lit("a,")]), "str: Hello World |  | null | grüße, the cat's | -42 | b,,c");
    refused(
        f("str.to_integer", vec![s()]),
        "col(\"s\").str.to_integer(): \"Hello World\" is no integer in base 10; strict=False makes it null",
    );
    refused(f("str.len_chars", vec![col("i")]), "str.len_chars() needs a string, found col(\"i\") (int64)");
    assert!(run(&f("str.contains", vec![s(), lit("(")])).unwrap_err().contains("is no regular expression"));
}

#[test]
fn times() {
    let t = || col("t");
    check(f("dt.year", vec![t()]), "int64: 2024 | 1970 | null | 1969 | 2024 | 2024");
    check(f("dt.month", vec![col("d")]), "int64: 2 | 1 | null | 12 | 3 | 2");
    check(f("dt.hour", vec![t()]), "int64: 13 | 0 | null | 23 | 13 | 13");
    check(f("dt.hour", vec![col("tz")]), "int64: 14 | 1 | null | 0 | 14 | 14");
    check(f("dt.weekday", vec![t()]), "int64: 4 | 4 | null | 3 | 5 | 4");
    check(f("dt.millisecond", vec![t()]), "int64: 250 | 0 | null | 0 | 250 | 250");
    check(f("dt.ordinal_day", vec![t()]), "int64: 60 | 1 | null | 365 | 61 | 60");
    check(f("dt.week", vec![t()]), "int64: 9 | 1 | null | 1 | 9 | 9");
    check(f("dt.date", vec![t()]), "date: 2024-02-29 | 1970-01-01 | null | 1969-12-31 | 2024-03-01 | 2024-02-29");
    check(f("dt.time", vec![t()]), "time[ns]: 13:45:30.250 | 00:00:00 | null | 23:00:00 | 13:45:30.250 | 13:45:30.250");
    check(f("dt.truncate", vec![t(), lit("1h")]), "timestamp[ms]: 2024-02-29T13:00:00 | 1970-01-01T00:00:00 | null | 1969-12-31T23:00:00 | 2024-03-01T13:00:00 | 2024-02-29T13:00:00");
    check(f("dt.truncate", vec![col("d"), lit("1mo")]), "date: 2024-02-01 | 1970-01-01 | null | 1969-12-01 | 2024-03-01 | 1970-02-01");
    check(f("dt.truncate", vec![col("d"), lit("1w")]), "date: 2024-02-26 | 1969-12-29 | null | 1969-12-29 | 2024-02-26 | 1970-01-26");
    check(f("dt.offset_by", vec![col("d"), lit("1mo")]), "date: 2024-03-29 | 1970-02-01 | null | 1970-01-31 | 2024-04-01 | 1970-03-01");
    check(f("dt.epoch", vec![t(), lit("s")]), "int64: 1709214330 | 0 | null | -3600 | 1709300730 | 1709214330");
    check(f("dt.strftime", vec![t(), lit("%d.%m.%y %H:%M")]), "str: 29.02.24 13:45 | 01.01.70 00:00 | null | 31.12.69 23:00 | 01.03.24 13:45 | 29.02.24 13:45");
    check(f("dt.total_seconds", vec![col("span")]), "int64: 90 | -1 | null | 0 | 86400 | 0");
    check(f("dt.total_milliseconds", vec![col("span")]), "int64: 90000 | -1500 | null | 0 | 86400000 | 0");
    check(f("dt.cast_time_unit", vec![t(), lit("s")]), "timestamp[s]: 2024-02-29T13:45:30 | 1970-01-01T00:00:00 | null | 1969-12-31T23:00:00 | 2024-03-01T13:45:30 | 2024-02-29T13:45:30");
    check(f("dt.replace_time_zone", vec![col("tz"), null()]), "timestamp[ms]: 2024-02-29T14:45:30.250 | 1970-01-01T01:00:00 | null | 1970-01-01T00:00:00 | 2024-03-01T14:45:30.250 | 2024-02-29T14:45:30.250");
    check(f("str.to_date", vec![lit("29.02.2024"), lit("%d.%m.%Y")]), &format!("date: {}", ["2024-02-29"; 6].join(" | ")));
    check(f("str.to_datetime", vec![lit("2024-02-29 13:45")  , lit("%Y-%m-%d %H:%M")]), &format!("timestamp[us]: {}", ["2024-02-29T13:45:00"; 6].join(" | ")));
    check(f("str.to_datetime", vec![lit("2024-02-29T13:45:30.25")]), &format!("timestamp[us]: {}", ["2024-02-29T13:45:30.250"; 6].join(" | ")));
    let error = run(&f("str.to_datetime", vec![col("s")])).unwrap_err();
    assert!(error.contains("\"Hello World\"") && error.contains("strict=False"), "{error}");
}

#[test]
fn arithmetic_of_times() {
    use BinaryOp::*;
    let minute = || Expr::Literal(ScalarValue::DurationMicrosecond(Some(60_000_000)));
    check(col("t").binary(Add, minute()), "timestamp[ms]: 2024-02-29T13:46:30.250 | 1970-01-01T00:01:00 | null | 1969-12-31T23:01:00 | 2024-03-01T13:46:30.250 | 2024-02-29T13:46:30.250");
    check(col("t").binary(Sub, col("t")), "duration[ms]: P0D | P0D | null | P0D | P0D | P0D");
    let error = run(&col("d").binary(Add, col("span"))).unwrap_err();
    assert!(error.contains("a date moves by whole days"), "{error}");
    let day = || Expr::Literal(ScalarValue::DurationMicrosecond(Some(86_400_000_000)));
    check(col("d").binary(Sub, day()), &run(&col("d").binary(Add, day()).binary(Sub, day()).binary(Sub, day())).unwrap());
    check(col("span").binary(Div, minute()), "float64: 1.5 | -0.025 | null | 0.0 | 1440.0 | 1.6666666666666667e-8");
    check(col("span").binary(Mul, lit(2_i64)), "duration[us]: PT180S | -PT3S | null | P0D | PT172800S | PT0.000002S");
    check(
        col("t").binary(GtEq, Expr::Literal(ScalarValue::TimestampMicrosecond(Some(0), None))),
        "bool: true | true | null | false | true | true",
    );
    refused(
        col("t").binary(Gt, lit("2024-01-01")),
        "cannot compare col(\"t\") (timestamp[ms]) > lit(\"2024-01-01\") (str); turn the string into a time with \
         .str.to_datetime() or a datetime",
    );
}

#[test]
fn lists_and_structs() {
    let l = || col("l");
    check(f("list.len", vec![l()]), "int64: 3 | 0 | null | 3 | 1 | 2");
    check(f("list.first", vec![l()]), "int64: 3 | null | null | 1 | 5 | 2");
    check(f("list.get", vec![l(), lit(-2_i64), lit(true)]), "int64: 1 | null | null | null | null | 2");
    check(f("list.contains", vec![l(), lit(1_i64)]), "bool: true | false | null | true | false | false");
    check(f("list.contains", vec![l(), null()]), "bool: false | false | null | true | false | false");
    check(f("list.sum", vec![l()]), "int64: 6 | 0 | null | 2 | 5 | 4");
    check(f("list.mean", vec![l()]), "float64: 2.0 | null | null | 1.0 | 5.0 | 2.0");
    check(f("list.min", vec![l()]), "int64: 1 | null | null | 1 | 5 | 2");
    check(f("list.max", vec![l()]), "int64: 3 | null | null | 1 | 5 | 2");
    check(f("list.sort", vec![l()]), "list[int64]: [1, 2, 3] | [] | null | [null, 1, 1] | [5] | [2, 2]");
    check(f("list.reverse", vec![l()]), "list[int64]: [2, 1, 3] | [] | null | [1, null, 1] | [5] | [2, 2]");
    check(f("list.unique", vec![l()]), "list[int64]: [3, 1, 2] | [] | null | [1, null] | [5] | [2]");
    check(f("list.slice", vec![l(), lit(1_i64), lit(1_i64)]), "list[int64]: [1] | [] | null | [null] | [] | [2]");
    check(f("list.slice", vec![l(), lit(-2_i64)]), "list[int64]: [1, 2] | [] | null | [null, 1] | [5] | [2, 2]");
    check(f("list.tail", vec![l(), lit(2_i64)]), "list[int64]: [1, 2] | [] | null | [null, 1] | [5] | [2, 2]");
    check(f("list.set_union", vec![l(), l()]), "list[int64]: [3, 1, 2] | [] | null | [1, null] | [5] | [2]");
    check(f("list.join", vec![f("str.split", vec![col("s"), lit(",")]), lit("+")]), "str: Hello World |  | null | grüße+ the cat's | -42 | a+b++c");
    check(f("struct.field", vec![col("st"), lit("x")]), "int64: 1 | 2 | 3 | 4 | 5 | 6");
    refused(
        f("struct.field", vec![col("st"), lit("nam")]),
        "col(\"st\") has no field \"nam\"; did you mean \"name\"? fields: x, name",
    );
    assert!(run(&f("list.get", vec![l(), lit(2_i64)])).unwrap_err().contains("index 2 is out of bounds of a list of 0"));
}

#[test]
fn mistakes_name_what_is_near() {
    refused(
        col("smal").binary(BinaryOp::Add, lit(1_i64)),
        "column \"smal\" does not exist; did you mean \"small\"? columns: i, j, small, n32, u, x, f32, b, c, s, l, st, t, tz, \
         d, span, dec; if a text is meant, write lit(\"smal\")",
    );
    let error = Expr::function("str.lower", vec![col("s")]).unwrap_err();
    assert_eq!(error.message(), "function \"str.lower\" does not exist; did you mean \"str.to_lowercase\"?");
    let error = Expr::function("str.contains", vec![col("s")]).unwrap_err();
    assert_eq!(error.message(), "str.contains() takes 1 to 2 arguments, found 0");
    let mut deep = col("i");
    for _ in 0..300 {
        deep = deep.unary(UnaryOp::Negate);
    }
    assert!(run(&deep).unwrap_err().contains("nested 301 deep"));
}

#[test]
fn expressions_read_as_python() {
    use BinaryOp::*;
    let cases = [
        (col("x").binary(Mul, lit(2_i64)), "col(\"x\") * 2"),
        (col("a").binary(Add, col("b")).binary(Mul, lit(0.5)), "(col(\"a\") + col(\"b\")) * 0.5"),
        (col("a").binary(Gt, lit(1_i64)).binary(And, col("b").unary(UnaryOp::IsNull)), "(col(\"a\") > 1) & col(\"b\").is_null()"),
        (f("str.to_lowercase", vec![col("s")]), "col(\"s\").str.to_lowercase()"),
        (f("fill_null", vec![col("s"), lit("x")]), "col(\"s\").fill_null(\"x\")"),
        (f("coalesce", vec![col("a"), col("b")]), "coalesce(col(\"a\"), col(\"b\"))"),
        (col("a").binary(Add, col("b")).alias("c"), "(col(\"a\") + col(\"b\")).alias(\"c\")"),
        (col("a").cast(DataType::Timestamp(TimeUnit::Millisecond, None), false), "col(\"a\").cast(timestamp[ms], strict=False)"),
        (
            Expr::Case { branches: vec![(col("a").binary(Gt, lit(0_i64)), lit("p"))], otherwise: Some(Box::new(null())) },
            "when(col(\"a\") > 0).then(\"p\").otherwise(None)",
        ),
    ];
    for (expr, expected) in cases {
        assert_eq!(expr.to_string(), expected);
    }
    assert_eq!(lit(2_i64).binary(Mul, col("x")).output_name(), "x");
    assert_eq!(f("struct.field", vec![col("st"), lit("x")]).output_name(), "x");
}
