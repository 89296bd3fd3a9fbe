use super::*;

#[test]
fn numbers_meet_as_in_polars_or_as_integers() {
    use DataType::{Float32, Float64, Int8, Int16, Int32, Int64, UInt8, UInt32, UInt64};
    for (a, b, expected) in [
        (Int32, Int64, Int64),
        (UInt8, Int8, Int16),
        (UInt32, Int32, Int64),
        (UInt64, Int64, Int64),
        (Int16, Float32, Float32),
        (Int32, Float32, Float64),
    ] {
        assert_eq!(supertype(&a, &b), Some(expected.clone()), "{a} {b}");
        assert_eq!(supertype(&b, &a), Some(expected), "{b} {a}");
    }
    assert_eq!(supertype(&DataType::Utf8, &Int64), None);
}

#[test]
fn names_are_those_that_users_know() {
    assert_eq!(type_name(&DataType::new_list(DataType::Utf8, true)), "list[str]");
    assert_eq!(type_name(&DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()))), "timestamp[ms, UTC]");
}
