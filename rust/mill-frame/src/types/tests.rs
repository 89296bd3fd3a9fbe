use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, DictionaryArray, FixedSizeListArray, Float64Array, Int64Array, LargeListArray,
    LargeStringArray, ListArray, ListViewArray, MapArray, NullArray, RunArray, StringArray, StringViewArray, StructArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Fields, Float64Type, Int8Type, Int32Type, Schema, TimeUnit};

use super::*;
use crate::hash::hash_columns;

fn texts() -> Vec<Option<&'static str>> {
    vec![Some("a"), None, Some("a text longer than a view holds itself"), Some("a"), Some("")]
}

/// The same texts in every layout.
fn text_layouts() -> Vec<ArrayRef> {
    let plain: ArrayRef = Arc::new(StringArray::from(texts()));
    let runs: RunArray<Int32Type> = texts().into_iter().collect();
    vec![
        Arc::clone(&plain),
        Arc::new(LargeStringArray::from(texts())),
        Arc::new(StringViewArray::from_iter(texts())),
        Arc::new(texts().into_iter().collect::<DictionaryArray<Int8Type>>()),
        cast(&plain, &DataType::Dictionary(Box::new(DataType::UInt32), Box::new(DataType::LargeUtf8))).unwrap(),
        Arc::new(runs),
    ]
}

fn list_of(values: ArrayRef, name: &str) -> ArrayRef {
    let item = Arc::new(Field::new(name, values.data_type().clone(), true));
    let offsets = OffsetBuffer::new(vec![0, 2, 2, 5].into());
    Arc::new(ListArray::try_new(item, offsets, values, Some(NullBuffer::from(vec![true, false, true]))).unwrap())
}

fn struct_of(values: ArrayRef) -> ArrayRef {
    let fields = Fields::from(vec![Field::new("x", values.data_type().clone(), true)]);
    Arc::new(StructArray::try_new(fields, vec![values], None).unwrap())
}

/// The keys as text, by Arrow's formatter, which knows nothing of layouts or hashes.
fn shown(array: &ArrayRef) -> Vec<String> {
    let options = arrow::util::display::FormatOptions::new().with_null("null");
    let formatter = arrow::util::display::ArrayFormatter::try_new(array.as_ref(), &options).unwrap();
    (0..array.len()).map(|row| formatter.value(row).to_string()).collect()
}

#[test]
fn every_layout_has_one_plain_type_with_the_same_values() {
    let layouts = text_layouts();
    for wrap in [|values| list_of(values, "element"), struct_of] {
        let expected = shown(&wrap(Arc::clone(&layouts[0])));
        for values in &layouts {
            let array = wrap(Arc::clone(values));
            let plain_type = plain_type(array.data_type());
            let plain = plain_array(&array, &plain_type).unwrap();
            assert_eq!(plain.data_type(), &plain_type);
            assert_eq!(shown(&plain), expected, "{}", array.data_type());
        }
    }
    let list = list_of(Arc::clone(&layouts[0]), "item");
    for to in [
        DataType::LargeList(Arc::new(Field::new("element", DataType::Utf8View, false))),
        DataType::ListView(Arc::new(Field::new("item", DataType::Utf8, true))),
        DataType::LargeListView(Arc::new(Field::new("x", DataType::LargeUtf8, true))),
    ] {
        assert_eq!(plain_type(&to), DataType::new_list(DataType::Utf8, true));
    }
    let view = ListViewArray::from(list.as_list::<i32>().clone());
    let large: ArrayRef = cast(&list, &DataType::new_large_list(DataType::Utf8, true)).unwrap();
    assert!(large.as_any().is::<LargeListArray>());
    for array in [Arc::new(view) as ArrayRef, large] {
        let plain = plain_array(&array, &plain_type(array.data_type())).unwrap();
        assert_eq!(shown(&plain), shown(&list));
    }
}

#[test]
fn a_dictionary_gets_codes_that_it_does_not_outgrow() {
    let small: ArrayRef = Arc::new(texts().into_iter().collect::<DictionaryArray<Int8Type>>());
    let to = plain_type(small.data_type());
    assert_eq!(to, DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)));
    let plain = plain_array(&small, &to).unwrap();
    assert_eq!(shown(&plain), shown(&small));
    assert_eq!(shown(&plain_array(&small.slice(2, 2), &to).unwrap()), shown(&small.slice(2, 2)));
}

#[test]
fn a_map_has_one_form_and_no_null_key() {
    let entries = |keys: StringArray, is_key_null: bool| {
        let fields = Fields::from(vec![
            Field::new("the_key", DataType::Utf8, is_key_null),
            Field::new("the_value", DataType::Int64, true),
        ]);
        let values = Int64Array::from(vec![Some(1), None]);
        let entries = StructArray::try_new(fields.clone(), vec![Arc::new(keys), Arc::new(values)], None).unwrap();
        let field = Arc::new(Field::new("key_value", DataType::Struct(fields), false));
        Arc::new(MapArray::try_new(field, OffsetBuffer::new(vec![0, 1, 2].into()), entries, None, true).unwrap()) as ArrayRef
    };
    let map = entries(StringArray::from(vec!["a", "b"]), false);
    let plain = plain_array(&map, &plain_type(map.data_type())).unwrap();
    assert_eq!(shown(&plain), shown(&map));
    assert_eq!(type_name(plain.data_type()), "map[str, int64]");
    let DataType::Map(field, false) = plain.data_type() else { panic!("{}", plain.data_type()) };
    assert_eq!(field.name(), "entries");
}

#[test]
fn columns_that_no_stream_carries_are_named() {
    let message = |fields: Vec<Field>| check_fields(&Fields::from(fields)).map_err(|error| error.to_string());
    let number = |name: &str| Field::new(name, DataType::Int64, true);
    assert!(message(vec![number("a"), number("b")]).is_ok());
    assert!(message(vec![number("a"), number("b"), number("a")]).unwrap_err().contains("\"a\""));
    let inner = DataType::Struct(vec![number("x"), number("x")].into());
    let error = message(vec![Field::new("s", DataType::new_list(inner, true), true)]).unwrap_err();
    assert!(error.contains("\"s\"") && error.contains("\"x\""), "{error}");
    let nested = |depth: usize| {
        (1..depth).fold(DataType::Int64, |inner, _| DataType::Struct(vec![Field::new("a", inner, true)].into()))
    };
    assert!(message(vec![Field::new("deep", nested(NESTING_MAX), true)]).is_ok());
    let error = message(vec![Field::new("deep", nested(NESTING_MAX + 1), true)]).unwrap_err();
    assert!(error.contains("\"deep\" nests 49 types; at most 48"), "{error}");
    // Far deeper than any recursion could go.
    assert!(message(vec![Field::new("deep", nested(3000), true)]).unwrap_err().contains("3000"));
}

#[test]
fn what_may_nest_may_be_stored_and_framed() {
    let deep = (1..NESTING_MAX).fold(DataType::Int64, |inner, depth| match depth % 2 {
        0 => DataType::new_list(inner, true),
        _ => DataType::Struct(vec![Field::new("a", inner, true)].into()),
    });
    let schema = Arc::new(Schema::new(vec![Field::new("deep", deep.clone(), true)]));
    check_fields(schema.fields()).unwrap();
    assert_eq!(crate::schema::from_bytes(&crate::schema::to_bytes(&schema).unwrap()).unwrap(), *schema);
    let data = arrow::array::RecordBatch::try_new(schema, vec![arrow::array::new_null_array(&deep, 3)]).unwrap();
    let frame = crate::Frame::encode(&crate::Batch::new(data.clone())).unwrap();
    assert_eq!(frame.decode(&data.schema()).unwrap().data(), &data);
}

#[test]
fn equal_keys_have_one_form_and_one_hash_at_every_place() {
    let nan = f64::from_bits(0xfff8_0000_0000_0001);
    let one = Float64Array::from(vec![Some(0.0), Some(f64::NAN), None, Some(1.5), Some(-0.0)]);
    let other = Float64Array::from(vec![Some(-0.0), Some(nan), None, Some(1.5), Some(0.0)]);
    let (one, other): (ArrayRef, ArrayRef) = (Arc::new(one), Arc::new(other));
    let fixed = |values: &ArrayRef| {
        let item = Arc::new(Field::new("item", DataType::Float64, true));
        Arc::new(FixedSizeListArray::try_new(item, 5, Arc::clone(values), None).unwrap()) as ArrayRef
    };
    let pairs = [
        (Arc::clone(&one), Arc::clone(&other)),
        (struct_of(Arc::clone(&one)), struct_of(Arc::clone(&other))),
        (list_of(Arc::clone(&one), "item"), list_of(Arc::clone(&other), "element")),
        (fixed(&one), fixed(&other)),
        (struct_of(list_of(Arc::clone(&one), "item")), struct_of(list_of(other, "x"))),
    ];
    for (one, other) in pairs {
        let converter = arrow_row::RowConverter::new(vec![arrow_row::SortField::new(canonical_type(one.data_type()))]);
        let converter = converter.unwrap();
        let bytes = |array: &ArrayRef| {
            let rows = converter.convert_columns(&[canonical_array(array).unwrap()]).unwrap();
            rows.iter().map(|row| row.as_ref().to_vec()).collect::<Vec<_>>()
        };
        assert_eq!(bytes(&one), bytes(&other), "{}", one.data_type());
        let (mut a, mut b) = (Vec::new(), Vec::new());
        hash_columns(&[one], &mut a).unwrap();
        hash_columns(&[other], &mut b).unwrap();
        assert_eq!(a, b);
    }
    let zero = canonical_array(&(Arc::new(Float64Array::from(vec![-0.0])) as ArrayRef)).unwrap();
    assert!(zero.as_primitive::<Float64Type>().value(0).is_sign_positive());
}

#[test]
fn text_has_one_form_and_one_hash_in_every_layout() {
    for wrap in [|values| values, |values| list_of(values, "element"), struct_of] {
        let mut hashes = Vec::new();
        for values in text_layouts() {
            let array: ArrayRef = wrap(values);
            let canonical = canonical_array(&array).unwrap();
            let mut hash = Vec::new();
            let plain = plain_array(&array, &plain_type(array.data_type())).unwrap();
            hash_columns(&[plain], &mut hash).unwrap();
            hashes.push((canonical.data_type().clone(), shown(&canonical), hash));
        }
        assert!(hashes.iter().all(|other| other == &hashes[0]), "{hashes:?}");
    }
}

#[test]
fn a_null_key_is_null_in_every_type() {
    let typed: ArrayRef = Arc::new(Int64Array::from(vec![None::<i64>; 2]));
    let untyped: ArrayRef = Arc::new(NullArray::new(2));
    let (mut a, mut b) = (Vec::new(), Vec::new());
    hash_columns(&[typed], &mut a).unwrap();
    hash_columns(&[untyped], &mut b).unwrap();
    assert_eq!(a, b);
}

#[test]
fn types_unite_in_one_that_holds_both_or_not_at_all() {
    use DataType::{Boolean, Date32, Decimal128, Float32, Float64, Int8, Int16, Int32, Int64, Null, UInt8, UInt64, Utf8};
    let timestamp = |unit, zone: Option<&str>| DataType::Timestamp(unit, zone.map(Into::into));
    let (ms, us) = (TimeUnit::Millisecond, TimeUnit::Microsecond);
    let coded = DataType::Dictionary(Box::new(Int8), Box::new(Utf8));
    for (a, b, united) in [
        (Int32, Int64, Some(Int64)),
        (UInt8, Int8, Some(Int16)),
        (UInt64, Int64, None),
        (Int64, Float64, Some(Float64)),
        (Int32, Float32, Some(Float64)),
        (Int16, Float32, Some(Float32)),
        (Int64, Utf8, None),
        (Boolean, Int64, None),
        (Null, Utf8, Some(Utf8)),
        (DataType::LargeUtf8, DataType::Utf8View, Some(Utf8)),
        (coded, Utf8, Some(Utf8)),
        (Decimal128(10, 2), Decimal128(10, 4), Some(Decimal128(12, 4))),
        (Decimal128(10, 2), Int64, Some(Decimal128(21, 2))),
        (Decimal128(38, 20), Int64, None),
        (Decimal128(10, 2), Float64, None),
        (timestamp(ms, None), timestamp(us, None), Some(timestamp(us, None))),
        (timestamp(ms, None), timestamp(ms, Some("UTC")), None),
        (timestamp(ms, Some("UTC")), timestamp(us, Some("Etc/UTC")), Some(timestamp(us, Some("UTC")))),
        (timestamp(ms, Some("UTC")), timestamp(ms, Some("Europe/Berlin")), None),
        (Date32, timestamp(ms, None), None),
        (DataType::new_list(Int32, true), DataType::new_large_list(Int64, false), Some(DataType::new_list(Int64, true))),
    ] {
        assert_eq!(unite(&a, &b), united, "{a} {b}");
        let turned = unite(&b, &a);
        assert_eq!(turned.as_ref().map(type_name).is_some(), united.is_some(), "{b} {a}");
    }
    let record = |x: DataType, names: [&str; 2]| {
        DataType::Struct(vec![Field::new(names[0], x, true), Field::new(names[1], Utf8, true)].into())
    };
    assert_eq!(unite(&record(Int32, ["x", "y"]), &record(Int64, ["x", "y"])), Some(record(Int64, ["x", "y"])));
    assert_eq!(unite(&record(Int32, ["x", "y"]), &record(Int64, ["x", "z"])), None);
}

#[test]
fn names_are_those_that_users_know() {
    for (data_type, name) in [
        (DataType::Utf8View, "str"),
        (DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())), "timestamp[ms, UTC]"),
        (DataType::Interval(arrow::datatypes::IntervalUnit::MonthDayNano), "interval"),
        (DataType::Decimal256(40, 3), "decimal[40, 3]"),
        (DataType::Float16, "float16"),
        (DataType::new_list(DataType::new_list(DataType::Int8, true), true), "list[list[int8]]"),
    ] {
        assert_eq!(type_name(&data_type), name);
    }
}
