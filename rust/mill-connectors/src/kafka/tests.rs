//! Tests that need no broker: librdkafka's mock cluster stands in. It knows neither transactions that hide messages nor offsets
//! that are committed in them; those are tested against a real broker (`tests/servers`).

use std::collections::HashMap;
use std::sync::Arc;
use std::task::Waker;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array, MapBuilder, RecordBatch, StringArray, StringBuilder};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use mill_protocol::{Batch, Epoch, ErrorKind, Read, Rejected, Run, Sink, Source, SplitState, TaskContext};
use proptest::prelude::*;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use super::client::Asker;
use super::config::Cluster;
use super::source::{Metadata, Start, Until};
use super::spool::{Handle, Held, Outgoing, Place};
use super::writer::Encoder;
use super::*;

type Mock = MockCluster<'static, DefaultProducerContext>;

fn cluster(topics: &[(&str, i32)]) -> Mock {
    let mock = MockCluster::new(1).unwrap();
    for (topic, partitions) in topics {
        mock.create_topic(topic, *partitions, 1).unwrap();
    }
    mock
}

fn columns() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("k", DataType::Utf8, true), Field::new("n", DataType::Int64, true)]))
}

fn batch(rows: &[(Option<&str>, i64)]) -> RecordBatch {
    let key = Arc::new(StringArray::from_iter(rows.iter().map(|row| row.0))) as ArrayRef;
    let number = Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.1))) as ArrayRef;
    RecordBatch::try_new(columns(), vec![key, number]).unwrap()
}

fn source(mock: &Mock, topics: &[&str], start: Start, until: Option<Until>) -> KafkaSource {
    let options = KafkaSourceOptions {
        format: KafkaFormat::Json(columns()),
        metadata: vec![Metadata::Partition, Metadata::Offset],
        start,
        until,
        group: None,
        options: Vec::new(),
    };
    KafkaSource::new(&mock.bootstrap_servers(), topics.iter().map(|name| (*name).to_owned()).collect(), options).unwrap()
}

/// Writes rows into a topic in a job without state.
fn write(mock: &Mock, topic: &str, columns: MessageColumns, batches: Vec<Batch>) {
    let options = KafkaSinkOptions { columns, ..KafkaSinkOptions::default() };
    let sink = KafkaSink::new(&mock.bootstrap_servers(), topic, options).unwrap();
    let schema = batches[0].schema();
    sink.check(&schema, None).unwrap();
    let mut committer = sink.committer().unwrap();
    committer.promise(&Run::default()).unwrap();
    committer.begin().unwrap();
    let waker = Waker::noop().clone();
    let context = TaskContext { step: "s".into(), index: 0, parallelism: 1, threads: 1, groups: 0..128, is_persistent: false, waker };
    let mut writer = sink.writer(&schema, &context).unwrap();
    for batch in batches {
        assert!(writer.is_ready());
        writer.write(batch).unwrap();
    }
    assert_eq!(writer.pre_commit(Epoch(1)).unwrap().unwrap()().unwrap(), b"");
    assert!(writer.pre_commit(Epoch(2)).unwrap().is_none());
}

/// All rows of the splits, and what was rejected; each split is opened again after so many reads, at its position.
fn read(source: &dyn Source, states: Vec<SplitState>, reads_max: usize) -> (Vec<(i32, i64, i64)>, Vec<Rejected>) {
    let (mut rows, mut bad) = (Vec::new(), Vec::new());
    for mut state in states {
        'split: loop {
            let mut reader = source.open(&state.split, state.position.as_deref()).unwrap();
            let mut reads = 0;
            while reads < reads_max {
                let data = match reader.next(7).unwrap() {
                    Read::Batch(data) => data,
                    Read::Partial(data, rejected) => {
                        bad.extend(rejected);
                        data
                    }
                    Read::End => break 'split,
                    Read::Pending(_) | Read::Mark(_) | Read::Truncated(_) => continue,
                };
                reads += 1;
                let number = |name: &str| data.column_by_name(name).unwrap().as_primitive::<Int64Type>().values().to_vec();
                let part = data.column_by_name("_partition").unwrap().as_primitive::<arrow::datatypes::Int32Type>().values().to_vec();
                rows.extend(part.into_iter().zip(number("_offset")).zip(number("n")).map(|((part, offset), n)| (part, offset, n)));
            }
            state.position = Some(reader.position());
        }
    }
    rows.sort_unstable();
    (rows, bad)
}

fn unread(source: &dyn Source) -> Vec<SplitState> {
    source.splits(true).unwrap().into_iter().map(SplitState::unread).collect()
}

#[test]
fn what_is_written_is_read_from_any_position() {
    let mock = cluster(&[("out", 3)]);
    let columns = MessageColumns { key: Some(vec!["k".to_owned()]), partition: Some("n".to_owned()), ..MessageColumns::default() };
    let rows: Vec<_> = (0..3).map(|n| (Some("x"), n)).collect();
    write(&mock, "out", columns, (0..40).map(|_| Batch::new(batch(&rows))).collect());
    let source = source(&mock, &["out"], Start::Earliest, Some(Until::End));
    let expected: Vec<(i32, i64, i64)> = (0..3).flat_map(|part| (0..40).map(move |offset| (part, offset, i64::from(part)))).collect();
    for reads_max in [1, 2, 100] {
        let (rows, rejected) = read(&source, unread(&source), reads_max);
        assert_eq!(rows, expected);
        assert!(rejected.is_empty());
    }
    // The end is that of the first look: what comes later is not read by a job that is resumed.
    let left = unread(&source);
    write(&mock, "out", MessageColumns::default(), vec![Batch::new(batch(&[(None, 9)]))]);
    let resumed = source.resume(true, left).unwrap();
    assert_eq!(read(&source, resumed, 2).0, expected);
}

#[test]
fn begins_and_ends_where_it_is_told() {
    let mock = cluster(&[("in", 1)]);
    let rows: Vec<_> = (0..20).map(|n| (None, n)).collect();
    write(&mock, "in", MessageColumns::default(), vec![Batch::new(batch(&rows))]);
    let at = |offset: i64| HashMap::from([(KafkaPartition { topic: "in".to_owned(), number: 0 }, offset)]);
    let numbers = |start, until| {
        let source = source(&mock, &["in"], start, Some(until));
        read(&source, unread(&source), 100).0.into_iter().map(|row| row.2).collect::<Vec<_>>()
    };
    assert_eq!(numbers(Start::Offsets(at(18)), Until::End), [18, 19]);
    assert_eq!(numbers(Start::Earliest, Until::Offsets(at(2))), [0, 1]);
    assert_eq!(numbers(Start::Offsets(at(5)), Until::Offsets(at(3))), [0; 0]);
    assert_eq!(numbers(Start::Latest, Until::End), [0; 0]);
    let beyond = source(&mock, &["in"], Start::Offsets(at(21)), None).splits(true).unwrap_err();
    assert!(beyond.message().contains("begin at offset 21 of in[0], which is not there, as if the topic were a new one; in[0] has messages from offset 0 to 20"), "{beyond}");
}

#[test]
fn a_topic_that_is_not_there_is_told_with_names_that_are() {
    let mock = cluster(&[("clicks", 1), ("orders", 1)]);
    let error = source(&mock, &["click"], Start::Earliest, None).splits(true).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connector);
    assert!(error.message().contains("has no topic \"click\"; did you mean \"clicks\"?"), "{error}");
    let found = source(&mock, &["^(click|order)s"], Start::Earliest, Some(Until::End)).splits(true).unwrap();
    assert_eq!(found.iter().map(|split| split.name.as_str()).collect::<Vec<_>>(), ["clicks[0]", "orders[0]"]);
    assert!(source(&mock, &["^click"], Start::Earliest, Some(Until::End)).splits(true).is_err());
}

#[test]
fn what_is_no_record_is_told_with_its_offset() {
    let mock = cluster(&[("in", 1)]);
    let values = [Some("{\"n\": 1}"), Some("{"), None, Some("{\"n\": \"x\"}"), Some("{\"n\": 2}"), Some("")];
    let value: ArrayRef = Arc::new(StringArray::from_iter(values));
    let key: ArrayRef = Arc::new(StringArray::from_iter((0..6).map(|n| Some(n.to_string()))));
    let rows = RecordBatch::try_from_iter_with_nullable([("key", key, true), ("value", value, true)]).unwrap();
    write(&mock, "in", MessageColumns { is_raw: true, ..MessageColumns::default() }, vec![Batch::new(rows)]);
    let source = source(&mock, &["in"], Start::Earliest, Some(Until::End));
    let (rows, bad) = read(&source, unread(&source), 100);
    assert_eq!(rows, [(0, 0, 1), (0, 4, 2)]);
    let told: Vec<&str> = bad.iter().map(|rejected| rejected.error.as_str()).collect();
    assert_eq!(told.len(), 4);
    for (error, offset) in told.iter().zip([1, 2, 3, 5]) {
        assert!(error.starts_with(&format!("in[0] offset {offset}: ")), "{error}");
    }
    assert_eq!(bad[0].record, r#"{"key":"1","offset":1,"partition":0,"topic":"in","value":"{"}"#);
    assert_eq!(bad[1].record, r#"{"key":"2","offset":2,"partition":0,"topic":"in","value":null}"#);
}

#[test]
fn only_the_columns_that_are_wanted_are_read() {
    let mock = cluster(&[("in", 1)]);
    write(&mock, "in", MessageColumns::default(), vec![Batch::new(batch(&[(Some("a"), 1)]))]);
    let source = source(&mock, &["in"], Start::Earliest, Some(Until::End));
    let some = source.project(&[3, 1]).unwrap();
    let split = &some.splits(true).unwrap()[0];
    let mut reader = some.open(split, None).unwrap();
    let data = loop {
        if let Read::Batch(data) = reader.next(10).unwrap() {
            break data;
        }
    };
    assert_eq!(data.schema().fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>(), ["_offset", "n"]);
    assert_eq!(data.column(1).as_primitive::<Int64Type>().values(), &[1]);
    // Whether a value is a record must not depend on who reads it.
    assert!(source.project(&[3]).is_none());
}

#[test]
fn options_are_checked_at_once() {
    let with = |name: &str, value: &str| {
        let options = vec![(name.to_owned(), value.to_owned())];
        KafkaSink::new("localhost:9092", "out", KafkaSinkOptions { options, ..KafkaSinkOptions::default() }).map(drop)
    };
    with("linger.ms", "5").unwrap();
    for (name, value, expected) in [
        ("linger.mss", "5", "did you mean \"linger.ms\""),
        ("linger.ms", "x", "option \"linger.ms\" cannot be \"x\""),
        ("transactional.id", "x", "not for you to set"),
    ] {
        let error = with(name, value).unwrap_err();
        assert!(error.kind() == ErrorKind::Plan && error.message().contains(expected), "{error}");
    }
    assert!(KafkaSink::new(" , ", "out", KafkaSinkOptions::default()).is_err());
}

#[test]
fn no_text_has_a_secret() {
    const SECRET: &str = "hunter2-hunter2";
    let option = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let options = vec![option("sasl.password", SECRET), option("linger.ms", "5")];
    let cluster = Cluster::new("call()", "localhost:1", options.clone()).unwrap();
    let sink = KafkaSinkOptions { options, ..KafkaSinkOptions::default() };
    for shown in [format!("{cluster:?}"), format!("{sink:?}")] {
        assert!(shown.contains("sasl.password") && shown.contains("linger.ms\": \"5") && !shown.contains(SECRET), "{shown}");
    }
    assert_eq!(cluster.without_secrets(&format!("cannot use {SECRET}!")), "cannot use …!");
    // librdkafka refuses what is no number, and repeats it.
    let wrong = vec![option("sasl.kerberos.min.time.before.relogin", "5"), option("ssl.keystore.password.x", SECRET)];
    let error = Cluster::new("call()", "localhost:1", wrong).unwrap_err();
    assert!(error.message().contains("there is no option \"ssl.keystore.password.x\"") && !error.message().contains(SECRET), "{error}");
}

#[test]
fn a_topic_that_has_no_leader_yet_is_asked_for_again() {
    let mock = cluster(&[("in", 2)]);
    mock.topic_error("in", rdkafka::types::RDKafkaRespErr::RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE).unwrap();
    let brokers = mock.bootstrap_servers();
    let look = std::thread::spawn(move || {
        let cluster = Cluster::new("call()", &brokers, Vec::new()).unwrap();
        Asker::new("call()", &cluster).unwrap().partitions("in")
    });
    std::thread::sleep(std::time::Duration::from_millis(500));
    mock.topic_error("in", rdkafka::types::RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR).unwrap();
    assert_eq!(look.join().unwrap().unwrap(), 2);
}

#[test]
fn what_a_message_cannot_hold_is_told_with_its_column() {
    let number: ArrayRef = Arc::new(Int64Array::from(vec![0, -1, i64::from(i32::MAX) + 1]));
    let rows = RecordBatch::try_from_iter([("p", number)]).unwrap();
    let columns = MessageColumns { partition: Some("p".to_owned()), ..MessageColumns::default() };
    let mut told = Vec::new();
    let mut encoder = Encoder::new(&columns, &rows.schema()).unwrap();
    let each = |row, message: std::result::Result<&Outgoing<'_>, String>| {
        told.push((row, message.err()));
        Ok(())
    };
    encoder.for_each(&Batch::new(rows), each).unwrap();
    assert_eq!(told[0], (0, None));
    assert_eq!(told[1], (1, Some("column \"p\" is -1, which is no partition; they are numbered from 0".to_owned())));
    assert_eq!(told[2], (2, Some("column \"p\" is 2147483648, which is no partition; they are numbered from 0".to_owned())));
}

/// All messages of a batch, in a form to compare.
fn encoded(columns: &MessageColumns, batch: &Batch) -> Vec<String> {
    let mut found = Vec::new();
    let mut encoder = Encoder::new(columns, &batch.schema()).unwrap();
    let text = |bytes: Option<&[u8]>| bytes.map_or("∅".to_owned(), |bytes| String::from_utf8_lossy(bytes).into_owned());
    let each = |_, message: std::result::Result<&Outgoing<'_>, String>| {
        let message = message.unwrap();
        let headers: Vec<String> = message.headers.iter().map(|(name, value)| format!("{name}={}", text(*value))).collect();
        found.push(format!("{} {} {}", text(message.key), text(message.value), headers.join(",")).trim_end().to_owned());
        Ok(())
    };
    encoder.for_each(batch, each).unwrap();
    found
}

#[test]
fn keys_are_bytes_or_json() {
    let data = batch(&[(Some("a"), 1), (None, 2)]);
    let of = |key: &[&str]| MessageColumns { key: Some(key.iter().map(|name| (*name).to_owned()).collect()), ..MessageColumns::default() };
    assert_eq!(encoded(&of(&["k"]), &Batch::new(data.clone())), [r#"a {"k":"a","n":1}"#, r#"∅ {"k":null,"n":2}"#]);
    assert_eq!(encoded(&of(&["n"]), &Batch::new(data.clone())), [r#"1 {"k":"a","n":1}"#, r#"2 {"k":null,"n":2}"#]);
    let both = encoded(&MessageColumns { left_out: vec!["k".to_owned()], ..of(&["n", "k"]) }, &Batch::new(data.clone()));
    assert_eq!(both, [r#"{"n":1,"k":"a"} {"n":1}"#, r#"{"n":2,"k":null} {"n":2}"#]);
    let deletes = Batch::new(data).with_deletes(Some(BooleanArray::from(vec![false, true]).values().clone()));
    assert_eq!(encoded(&of(&["n"]), &deletes), [r#"1 {"k":"a","n":1}"#, "2 ∅"]);
}

#[test]
fn headers_are_maps_and_structs() {
    let mut map = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
    map.keys().append_value("a");
    map.values().append_value("1");
    map.keys().append_value("b");
    map.values().append_null();
    map.append(true).unwrap();
    map.append(false).unwrap();
    let value: ArrayRef = Arc::new(StringArray::from(vec!["x", "y"]));
    let rows = RecordBatch::try_from_iter_with_nullable([("value", value, true), ("h", Arc::new(map.finish()) as ArrayRef, true)]);
    let columns = MessageColumns { is_raw: true, headers: Some("h".to_owned()), ..MessageColumns::default() };
    assert_eq!(encoded(&columns, &Batch::new(rows.unwrap())), ["∅ x a=1,b=∅", "∅ y"]);
}

fn outgoing() -> impl Strategy<Value = (Option<i32>, Option<i64>, Option<Vec<u8>>, Option<Vec<u8>>, Vec<(String, Option<Vec<u8>>)>)> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..40);
    (
        proptest::option::of(0..i32::MAX),
        proptest::option::of(any::<i64>()),
        proptest::option::of(bytes()),
        proptest::option::of(bytes()),
        proptest::collection::vec((".{0,8}", proptest::option::of(bytes())), 0..4),
    )
}

/// Calls with each message of a handle.
fn for_each(handle: &Handle, place: &Place, mut each: impl FnMut(Outgoing<'_>)) -> mill_protocol::Result<()> {
    handle.for_each_piece(place, |mut messages| {
        while !messages.is_empty() {
            each(Outgoing::decode(&mut messages).ok_or_else(|| super::spool::damaged("a message"))?);
        }
        Ok(())
    })
}

proptest! {
    #[test]
    fn messages_on_disk_are_what_they_were(messages in proptest::collection::vec(outgoing(), 0..20), is_spooled: bool) {
        let directory = tempfile::tempdir().unwrap();
        let place = Place::new(directory.path(), "sink");
        let messages: Vec<Outgoing<'_>> = messages
            .iter()
            .map(|(partition, timestamp, key, value, headers)| Outgoing {
                partition: *partition,
                timestamp: *timestamp,
                key: key.as_deref(),
                value: value.as_deref(),
                headers: headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect(),
            })
            .collect();
        let mut bytes = Vec::new();
        for message in &messages {
            message.encode(&mut bytes).unwrap();
        }
        let held = if is_spooled {
            let mut spool = place.create("00000000000000aa-0-0").unwrap();
            spool.push(&bytes).unwrap();
            Held::Spooled(spool.finish().unwrap())
        } else {
            Held::Inline(bytes)
        };
        let encoded = Handle { run: 7, held }.encode().unwrap();
        let handle = Handle::decode(&encoded, &place).unwrap();
        prop_assert_eq!(handle.run, 7);
        let mut at = 0;
        for_each(&handle, &place, |message| {
            assert_eq!(message, messages[at]);
            at += 1;
        }).unwrap();
        prop_assert_eq!(at, messages.len());
        // Any byte that is cut off is noticed.
        for end in [0, 4, encoded.len() / 2, encoded.len() - 1] {
            let cut = Handle::decode(&encoded[..end], &place);
            prop_assert!(cut.is_none());
        }
        prop_assert!(is_spooled && Handle::decode(&encoded, &Place::new(directory.path(), "other")).is_none() || !is_spooled);
        handle.remove(&place);
        prop_assert!(!is_spooled || for_each(&handle, &place, |_| ()).is_err());
    }
}

#[test]
fn a_file_that_was_changed_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let place = Place::new(directory.path(), "sink");
    let mut spool = place.create("00000000000000aa-0-0").unwrap();
    let mut bytes = Vec::new();
    Outgoing { value: Some(b"value"), ..Outgoing::default() }.encode(&mut bytes).unwrap();
    spool.push(&bytes).unwrap();
    let handle = Handle { run: 1, held: Held::Spooled(spool.finish().unwrap()) };
    let path = std::fs::read_dir(directory.path().join("kafka")).unwrap().next().unwrap().unwrap().path();
    for (place_, byte) in [(bytes.len() - 1, b'X'), (0, 200), (4, 0)] {
        let mut changed = bytes.clone();
        changed[place_] = byte;
        std::fs::write(&path, &changed).unwrap();
        assert!(for_each(&handle, &place, |_| ()).is_err(), "byte {place_}");
    }
    std::fs::write(&path, &bytes).unwrap();
    for_each(&handle, &place, |_| ()).unwrap();
    // A file that no handle names goes with its writer, and all of a sink's with the next recovery.
    drop(place.create("00000000000000aa-0-1").unwrap());
    assert_eq!(std::fs::read_dir(directory.path().join("kafka")).unwrap().count(), 1);
    Place::new(directory.path(), "other").clear().unwrap();
    assert_eq!(std::fs::read_dir(directory.path().join("kafka")).unwrap().count(), 1);
    place.clear().unwrap();
    assert_eq!(std::fs::read_dir(directory.path().join("kafka")).unwrap().count(), 0);
}

#[test]
fn decimals_of_connect_are_the_digits_of_their_bytes() {
    use super::connect::decimal;

    // As Java's BigInteger.toByteArray writes them.
    let found: [(&[u8], i32, &str); 9] = [
        (&[0], 0, "0"),
        (&[0], 2, "0.00"),
        (&[0x7F], 0, "127"),
        (&[0x00, 0x80], 1, "12.8"),
        (&[0x80], 0, "-128"),
        (&[0xFF], 3, "-0.001"),
        (&[0xCF, 0xC7], 2, "-123.45"),
        (&[5], -3, "5000"),
        (&[0x00, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF], 4, "1844674407370955.1615"),
    ];
    for (bytes, scale, digits) in found {
        assert_eq!(decimal(bytes, scale).as_deref(), Ok(digits));
    }
    assert!(decimal(&[1; 33], 0).is_err());
    assert!(decimal(&[1], 2000).is_err());
}
