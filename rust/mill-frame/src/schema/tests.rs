use std::sync::Arc;

use arrow::datatypes::{Fields, TimeUnit};

use super::*;

fn schema() -> Schema {
    let list = DataType::List(Arc::new(Field::new_list_field(DataType::Decimal128(10, -2), false)));
    Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
        object_field("value", true),
        Field::new("nested", DataType::Struct(Fields::from(vec![Field::new("list", list, true)])), true),
        Field::new("code", DataType::Dictionary(Box::new(DataType::UInt8), Box::new(DataType::Utf8)), true),
    ])
    .with_metadata([("made by".to_owned(), "hand".to_owned())].into())
}

#[test]
fn bytes_give_the_same_schema_again() {
    let bytes = to_bytes(&schema()).unwrap();
    assert_eq!(from_bytes(&bytes).unwrap(), schema());
}

#[test]
fn the_fingerprint_never_changes() {
    // Frames on disk carry it.
    assert_eq!(fingerprint(&schema()), 0x180c_85c3_de8a_3214, "{:#018x}", fingerprint(&schema()));
}

#[test]
fn names_types_and_objects_count_and_the_rest_does_not() {
    let one = |field: Field| fingerprint(&Schema::new(vec![field]));
    let plain = one(Field::new("a", DataType::Binary, true));
    assert_eq!(plain, one(Field::new("a", DataType::Binary, false)));
    assert_eq!(plain, one(Field::new("a", DataType::Binary, true).with_metadata([("x".into(), "y".into())].into())));
    assert_ne!(plain, one(Field::new("b", DataType::Binary, true)));
    assert_ne!(plain, one(Field::new("a", DataType::Utf8, true)));
    assert_ne!(plain, one(object_field("a", true)));
    assert!(is_object(&object_field("a", true)) && !is_object(&Field::new("a", DataType::Binary, true)));
}

#[test]
fn damaged_bytes_are_refused() {
    let bytes = to_bytes(&schema()).unwrap();
    for cut in 0..bytes.len() {
        assert!(from_bytes(&bytes[..cut]).is_err(), "cut at {cut}");
    }
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            // A flip in a name results in another schema; what matters is that none panics.
            let _ = from_bytes(&flipped);
        }
    }
    let deep: Vec<u8> = [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        .into_iter()
        .chain([27, 0, 0, 0, 0, 0, 0, 0, 0, 0].into_iter().cycle().take(10_000))
        .collect();
    let error = from_bytes(&deep).unwrap_err().to_string();
    assert!(error.contains("nest too deep"), "{error}");
}

#[test]
fn a_type_that_is_not_carried_is_named() {
    let runs = DataType::RunEndEncoded(
        Arc::new(Field::new("run_ends", DataType::Int32, false)),
        Arc::new(Field::new("values", DataType::Utf8, true)),
    );
    let error = to_bytes(&Schema::new(vec![Field::new("a", runs, true)])).unwrap_err();
    assert!(error.to_string().contains("run_end_encoded[str]"), "{error}");
}

#[test]
fn columns_from_outside_are_no_objects_at_any_depth() {
    let object = Arc::new(object_field("item", true));
    let of_struct = DataType::Struct(vec![object_field("x", true)].into());
    let entries = DataType::Struct(vec![Field::new("key", DataType::Utf8, false), object_field("value", true)].into());
    let ends = Arc::new(Field::new("run_ends", DataType::Int32, false));
    let types = [
        DataType::List(Arc::clone(&object)),
        DataType::LargeList(Arc::clone(&object)),
        DataType::ListView(Arc::clone(&object)),
        DataType::LargeListView(Arc::clone(&object)),
        DataType::FixedSizeList(Arc::clone(&object), 2),
        DataType::Map(Arc::new(Field::new("entries", entries, false)), false),
        DataType::RunEndEncoded(ends, Arc::clone(&object)),
        DataType::Dictionary(Box::new(DataType::Int32), Box::new(of_struct.clone())),
        DataType::new_list(of_struct.clone(), true),
        of_struct,
    ];
    let mut fields = vec![object_field("a", true)];
    fields.extend(types.into_iter().enumerate().map(|(place, kind)| Field::new(place.to_string(), kind, true)));
    for field in &fields {
        assert!(holds_objects(field), "{field}");
    }
    let kept = [("theirs".to_owned(), "kept".to_owned()), (TYPE_KEY.to_owned(), "other".to_owned())];
    fields.push(Field::new("b", DataType::Int64, true).with_metadata(kept.into()));
    let foreign = foreign_schema(&Schema::new(fields));
    for field in foreign.fields() {
        assert!(!holds_objects(field) && !field.metadata().contains_key(TYPE_KEY), "{field}");
    }
    assert_eq!(foreign.field_with_name("b").unwrap().metadata()["theirs"], "kept");
    let plain = Arc::new(Field::new("c", DataType::Binary, true));
    assert!(Arc::ptr_eq(&foreign_field(&plain), &plain));
}
