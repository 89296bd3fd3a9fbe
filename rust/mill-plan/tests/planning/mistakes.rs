//! Wrong plans: each is refused when the step is added, or before the first record, and the message says what to do.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, TimeUnit};
use mill_plan::{
    AggregateCall, AggregateKind, BatchFunction, BinaryOp, Emit, Expr, Mode, OnError, Origin, PlanOptions, Stream,
    UserCall, UserOutput, UserStepKind, WatermarkStrategy, Window, lower,
};
use mill_protocol::{ErrorKind, Result};
use crate::support::{Memory, TestSink};

fn col(name: &str) -> Expr {
    Expr::column(name)
}

fn aggregate(kind: AggregateKind, input: &str) -> Expr {
    Expr::Aggregate(AggregateCall { kind, input: Some(Box::new(col(input))), filter: None })
}

fn sum() -> Vec<Expr> {
    vec![aggregate(AggregateKind::Sum, "price")]
}

fn orders() -> Stream {
    let object = Field::new("thing", DataType::Binary, true)
        .with_metadata([("millstream.type".to_owned(), "object".to_owned())].into());
    let source = Memory::of_fields(
        "from_iter(orders)",
        vec![
            Field::new("user", DataType::Utf8, true),
            Field::new("price", DataType::Float64, true),
            Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, None), true),
            Field::new("tags", DataType::new_list(DataType::Utf8, true), true),
            object,
        ],
    );
    Stream::source(Arc::new(source))
}

fn watermark() -> WatermarkStrategy {
    WatermarkStrategy::bounded(0)
}

#[track_caller]
fn refused<T>(result: Result<T>, kind: ErrorKind, parts: &[&str]) {
    let Err(error) = result else { panic!("it must be refused: {parts:?}") };
    assert_eq!(error.kind(), kind, "{error}");
    for part in parts {
        assert!(error.message().contains(part), "{part:?} is not in: {error}");
    }
}

#[test]
fn columns_must_exist_and_fit() {
    let schema = ErrorKind::Schema;
    refused(orders().select(vec![col("pirce")]), schema, &["column \"pirce\" does not exist; did you mean \"price\"?", "columns: user, price"]);
    refused(orders().filter(col("price")), schema, &["filter() needs a boolean expression", "float64"]);
    refused(orders().explode("user", false), schema, &["explode() needs a list column; \"user\" is str"]);
    refused(orders().unnest("price"), schema, &["needs a struct column"]);
    refused(orders().event_time("user", watermark()), schema, &["timestamp or date", "str.to_datetime"]);
    refused(orders().drop(&["pric".to_owned()]), schema, &["did you mean \"price\"?"]);
    refused(orders().cast(&[("tags".to_owned(), DataType::Int64)]), schema, &["cannot be cast to int64"]);
    refused(
        orders().with_columns(vec![col("user").binary(BinaryOp::Mul, Expr::literal(2_i64))]),
        schema,
        &["* does not work between col(\"user\") (str) and lit(2) (int64)"],
    );
}

#[test]
fn names_must_differ() {
    let plan = ErrorKind::Plan;
    refused(orders().select(vec![col("price"), col("price")]), plan, &["two columns the name \"price\"", ".alias"]);
    refused(orders().rename(&[("user".to_owned(), "price".to_owned())]), plan, &["two columns the name \"price\""]);
    let named = orders().filter(col("price").binary(BinaryOp::Gt, Expr::literal(1_i64))).unwrap().name("a").unwrap();
    refused(named.name("b"), plan, &["named \"a\" already"]);
    let again = named.select(vec![col("user")]).unwrap().name("a").unwrap();
    let sink = again.sink(TestSink::files("write_csv(\"out/\")")).unwrap();
    refused(lower(&[sink], &PlanOptions::default()), plan, &["two steps are named \"a\""]);
}

#[test]
fn keys_must_be_hashable() {
    refused(orders().key_by(vec![col("tags")]), ErrorKind::Schema, &["\"tags\" cannot be a key", "list[str]"]);
    refused(orders().key_by(vec![col("thing")]), ErrorKind::Schema, &["Python objects"]);
    refused(orders().key_by(vec![]), ErrorKind::Plan, &["at least one column"]);
}

#[test]
fn aggregates_stand_in_agg_and_nowhere_else() {
    let plan = ErrorKind::Plan;
    let keyed = orders().key_by(vec![col("user")]).unwrap();
    refused(orders().select(sum()), plan, &["is allowed only in agg(...)"]);
    refused(keyed.agg(vec![col("price")], Emit::Default), plan, &["col(\"price\").first()"]);
    refused(keyed.agg(vec![], Emit::Default), plan, &["at least one aggregate"]);
    refused(keyed.agg(vec![aggregate(AggregateKind::Sum, "user")], Emit::Default), ErrorKind::Schema, &["sum() needs a number", "found str"]);
    refused(keyed.agg(vec![aggregate(AggregateKind::Quantile(2.0), "price")], Emit::Default), plan, &["between 0 and 1"]);
    refused(keyed.agg(vec![aggregate(AggregateKind::Sum, "price").alias("user")], Emit::Default), plan, &["two columns the name \"user\""]);
    refused(orders().select(vec![Expr::Index.alias("n")]), plan, &["only in the columns of generate"]);
}

#[test]
fn python_objects_are_not_looked_into() {
    let keyed = orders().key_by(vec![col("user")]).unwrap();
    refused(orders().filter(col("thing").binary(BinaryOp::Eq, col("thing"))), ErrorKind::Schema, &["holds Python objects", "map()"]);
    refused(keyed.agg(vec![aggregate(AggregateKind::Max, "thing")], Emit::End), ErrorKind::Schema, &["no max()"]);
    let first = keyed.agg(vec![aggregate(AggregateKind::First, "thing")], Emit::End).unwrap();
    assert_eq!(first.schema().field(1).metadata().len(), 1, "a first object is an object");
    assert!(orders().filter(col("thing").unary(mill_plan::UnaryOp::IsNull)).is_ok());
}

#[test]
fn windows_need_event_time() {
    let window = Window::Tumbling { size_us: 1_000_000, offset_us: 0 };
    let keyed = orders().key_by(vec![col("user")]).unwrap();
    refused(keyed.window(window, 0), ErrorKind::Plan, &["event_time("]);
    let timed = orders().event_time("at", watermark()).unwrap().key_by(vec![col("user")]).unwrap();
    refused(timed.window(Window::Tumbling { size_us: 0, offset_us: 0 }, 0), ErrorKind::Plan, &["must be positive"]);
    refused(timed.window(window, -1), ErrorKind::Plan, &["not be negative"]);
    let windowed = timed.window(window, 0).unwrap().agg(sum()).unwrap();
    assert_eq!(windowed.schema().field(1).data_type(), &DataType::Timestamp(TimeUnit::Microsecond, None));
    assert!(windowed.late().is_ok());
    refused(orders().late(), ErrorKind::Plan, &["window(...).agg(...)"]);
    refused(windowed.event_time("window_end", watermark()), ErrorKind::Plan, &["call event_time() before window()"]);
}

#[test]
fn changes_are_taken_where_they_are_understood() {
    let updating = orders().key_by(vec![col("user")]).unwrap().agg(sum(), Emit::Each).unwrap();
    assert!(!updating.withdraws(), "an aggregate only sets rows");
    let filtered = updating.filter(col("user").unary(mill_plan::UnaryOp::IsNotNull)).unwrap();
    assert!(filtered.withdraws() && filtered.select(vec![col("user")]).unwrap().withdraws());
    let changes = filtered.to_changelog("op").unwrap();
    assert!(changes.is_updating().is_none() && !changes.withdraws());
    assert_eq!(changes.schema().field(0).name(), "op");
    let again = changes.from_changelog(&["user".to_owned()], "op").unwrap();
    assert_eq!(again.schema(), filtered.schema());
    assert!(again.withdraws() && again.is_updating() == Some(&["user".to_owned()]));
    refused(orders().to_changelog("op"), ErrorKind::Plan, &["takes an updating stream"]);
    refused(updating.to_changelog("user"), ErrorKind::Plan, &["adds a column \"user\"", "another name"]);
    refused(updating.key_by(vec![col("user")]), ErrorKind::Plan, &["to_changelog()"]);
    let timed = orders().event_time("at", watermark()).unwrap();
    let from = timed.from_changelog(&["price".to_owned()], "user").unwrap();
    assert_eq!(from.event_time_column().as_deref(), Some("at"));
    refused(timed.from_changelog(&["price".to_owned()], "tags"), ErrorKind::Schema, &["column of text", "list"]);
    refused(timed.from_changelog(&["tags".to_owned()], "user"), ErrorKind::Schema, &["cannot be a key"]);
}

#[test]
fn first_rows_need_an_order_and_names_of_their_own() {
    let keyed = orders().key_by(vec![col("user")]).unwrap();
    let by = |name: &str| vec![(col(name), true)];
    refused(keyed.top_n(0, by("price"), Emit::End), ErrorKind::Plan, &["from 1 to 10000 rows", "found 0"]);
    refused(keyed.top_n(1, Vec::new(), Emit::End), ErrorKind::Plan, &["a column to sort by"]);
    refused(keyed.top_n(1, by("thing"), Emit::End), ErrorKind::Schema, &["numbers, texts", "object"]);
    refused(keyed.top_n(1, by("tags"), Emit::End), ErrorKind::Schema, &["numbers, texts", "list"]);
    refused(keyed.deduplicate(Some(5)), ErrorKind::Plan, &["event_time("]);
    let before = || vec![col("price").alias("before")];
    refused(keyed.shift(0, before()), ErrorKind::Plan, &["from 1 to 10000 rows back", "found 0"]);
    refused(keyed.shift(1, Vec::new()), ErrorKind::Plan, &["needs a column", "shift(before=\"price\")"]);
    refused(keyed.shift(1, vec![col("price")]), ErrorKind::Plan, &["there is one already", "shift(price_before=\"price\")"]);
    refused(keyed.diff(1, vec![col("tags").alias("change")]), ErrorKind::Schema, &["\"change\"", "list", "no difference"]);
    refused(keyed.diff(1, vec![col("thing").alias("change")]), ErrorKind::Schema, &["\"change\"", "no difference"]);
    let window = Window::Tumbling { size_us: 1_000_000, offset_us: 0 };
    refused(keyed.top_n_within(1, by("price"), window, 0), ErrorKind::Plan, &["event_time("]);
    let timed = orders().event_time("at", watermark()).unwrap().key_by(vec![col("user")]).unwrap();
    let top = timed.top_n_within(1, by("price"), window, 0).unwrap();
    assert!(top.late().is_ok() && top.errors().is_ok() && top.is_updating().is_none());
    let again = top.key_by(vec![col("user")]).unwrap().top_n(1, by("price"), Emit::End);
    refused(again, ErrorKind::Plan, &["adds a column \"rank\"", "rename("]);
    let updating = keyed.top_n(2, by("price"), Emit::Each).unwrap();
    assert_eq!(updating.is_updating(), Some(&["user".to_owned(), "rank".to_owned()][..]));
    assert!(!updating.withdraws(), "a rank that has a row keeps one");
    assert!(timed.deduplicate(Some(5)).unwrap().late().is_ok());
    refused(timed.deduplicate(None).unwrap().late(), ErrorKind::Plan, &["deduplicate(within=...)"]);
}

#[test]
fn windows_of_all_records_name_their_own_call() {
    let window = Window::Tumbling { size_us: 1_000_000, offset_us: 0 };
    refused(orders().ungrouped().window(window, 0), ErrorKind::Plan, &["event_time(\"column\"", "before window_all()"]);
    let updating = orders().key_by(vec![col("user")]).unwrap().agg(sum(), Emit::Each).unwrap();
    refused(updating.ungrouped().window(window, 0), ErrorKind::Plan, &["window_all() does not take an updating stream"]);
    refused(updating.ungrouped().agg(vec![aggregate(AggregateKind::Count, "user")], Emit::End), ErrorKind::Plan, &["agg() does not take an updating stream"]);
}

#[test]
fn updating_streams_go_where_the_latest_row_counts() {
    let plan = ErrorKind::Plan;
    let keyed = orders().key_by(vec![col("user")]).unwrap();
    let updating = keyed.agg(sum(), Emit::Every(1_000_000)).unwrap();
    assert_eq!(updating.is_updating(), Some(["user".to_owned()].as_slice()));
    assert_eq!(keyed.agg(sum(), Emit::Default).unwrap().is_updating(), None, "bounded input gives each key once");
    refused(updating.sink(TestSink::files("write_csv(\"out/\")")), plan, &["write_csv", "emit=\"end\"", "sink with a key"]);
    assert!(updating.sink(TestSink::keyed("write_sqlite(…)")).is_ok());
    refused(updating.drop(&["user".to_owned()]), plan, &["key of an updating stream"]);
    let renamed = updating.rename(&[("user".to_owned(), "who".to_owned())]).unwrap();
    assert_eq!(renamed.is_updating(), Some(["who".to_owned()].as_slice()));
    refused(updating.limit(3), plan, &["limit() does not take an updating stream"]);
    refused(updating.key_by(vec![col("price")]), plan, &["key_by() does not take an updating stream"]);
    refused(updating.union(&[updating.clone()]), plan, &["union() does not take"]);
    refused(updating.apply(UserStepKind::Map, Arc::new(Nothing), updating.schema()), plan, &["map() does not take"]);
    assert!(updating.apply(UserStepKind::Inspect, Arc::new(Nothing), updating.schema()).is_ok());
    assert!(updating.filter(col("price").binary(BinaryOp::Gt, Expr::literal(1_i64))).is_ok());
}

#[derive(Debug)]
struct Nothing;

impl BatchFunction for Nothing {
    fn name(&self) -> String {
        "nothing".to_owned()
    }
    fn call(&self, batch: &RecordBatch) -> Result<UserCall> {
        Ok(UserCall::Whole(UserOutput { data: batch.clone(), origin: Origin::Same, rejected: Vec::new() }))
    }
}

#[test]
fn unions_have_one_schema() {
    let other = orders().cast(&[("price".to_owned(), DataType::Int64)]).unwrap().drop(&["tags".to_owned()]).unwrap();
    refused(
        orders().union(&[other]),
        ErrorKind::Schema,
        &["column \"price\" is float64 in the first stream and int64 in stream 2", "column \"tags\" is missing in stream 2"],
    );
    let timed = orders().event_time("at", watermark()).unwrap();
    refused(timed.union(&[orders()]), ErrorKind::Plan, &["don't both have an event time"]);
    let reordered = orders().select(["tags", "at", "price", "user", "thing"].map(col).to_vec()).unwrap();
    assert_eq!(orders().union(&[reordered]).unwrap().schema().fields(), orders().schema().fields());
}

#[test]
fn guarantees_are_checked_before_the_first_record() {
    let plan = ErrorKind::Plan;
    let options = PlanOptions { is_checkpointed: true, ..PlanOptions::default() };
    let at_once = orders().sink(TestSink::single("for_each(f)")).unwrap();
    refused(lower(std::slice::from_ref(&at_once), &options), plan, &["for_each(f)", "mode=\"at_least_once\""]);
    let relaxed = PlanOptions { mode: Mode::AtLeastOnce, ..options.clone() };
    assert!(lower(std::slice::from_ref(&at_once), &relaxed).is_ok());
    assert!(lower(&[at_once], &PlanOptions::default()).is_ok(), "without checkpoints nothing is promised");

    let once = Memory::new("from_iter(generator)", &[("value", DataType::Int64)]).with(true, false);
    let sink = Stream::source(Arc::new(once)).sink(TestSink::files("write_csv(\"out/\")")).unwrap();
    refused(lower(std::slice::from_ref(&sink), &options), plan, &["from_iter(generator)", "mode=\"none\""]);
    assert!(lower(&[sink], &PlanOptions { mode: Mode::None, ..options.clone() }).is_ok());

    let errors = orders().select(vec![col("price")]).unwrap().errors().unwrap();
    let sink = errors.sink(TestSink::files("write_csv(\"errors/\")")).unwrap();
    refused(lower(std::slice::from_ref(&sink), &options), plan, &["on_error=\"route\""]);
    assert!(lower(&[sink], &PlanOptions { on_error: OnError::Route, ..options }).is_ok());
    refused(orders().limit(1).unwrap().errors(), plan, &["no record fails in limit()"]);
    refused(lower(&[], &PlanOptions::default()), plan, &["nothing to run"]);
}

#[test]
fn identities_depend_on_neither_parallelism_nor_chaining_nor_stateless_steps() {
    let job = |has_filter: bool| {
        let mut stream = orders().event_time("at", watermark()).unwrap();
        if has_filter {
            stream = stream.filter(col("price").binary(BinaryOp::Gt, Expr::literal(1_i64))).unwrap();
        }
        let window = Window::Tumbling { size_us: 1_000_000, offset_us: 0 };
        let result = stream.key_by(vec![col("user")]).unwrap().window(window, 0).unwrap().agg(sum()).unwrap();
        [result.sink(TestSink::files("write_csv(\"out/\")")).unwrap()]
    };
    let one = lower(&job(false), &PlanOptions::default()).unwrap();
    for (parallelism, is_chaining, has_filter) in [(1, true, true), (4, true, false), (4, false, true), (7, false, false)] {
        let options = PlanOptions { parallelism, is_chaining, ..PlanOptions::default() };
        assert_eq!(lower(&job(has_filter), &options).unwrap().fingerprint(), one.fingerprint());
    }
    // State over one column is not taken for state over another.
    let over = |column: &str| {
        let sums = vec![aggregate(AggregateKind::Count, column).alias("n")];
        let result = orders().key_by(vec![col("user")]).unwrap().agg(sums, Emit::End).unwrap();
        lower(&[result.sink(TestSink::files("write_csv(\"out/\")")).unwrap()], &PlanOptions::default()).unwrap()
    };
    assert_ne!(over("price").fingerprint(), over("at").fingerprint());
}

#[test]
fn window_bounds_fit_the_unit_of_event_time() {
    let windowed = |unit: TimeUnit, [size_us, offset_us, lateness_us]: [i64; 3]| {
        let stream = orders().cast(&[("at".to_owned(), DataType::Timestamp(unit, Some("UTC".into())))]).unwrap();
        let keyed = stream.event_time("at", watermark()).unwrap().key_by(vec![col("user")]).unwrap();
        keyed.window(Window::Tumbling { size_us, offset_us }, lateness_us)
    };
    const SECOND: i64 = 1_000_000;
    let refusals: [(TimeUnit, [i64; 3], &[&str]); 5] = [
        (TimeUnit::Second, [1_500_000, 0, 0], &["size is 1s500ms", "whole seconds", "cast({\"at\": mill.Timestamp(\"ms\", \"UTC\")})"]),
        (TimeUnit::Second, [2 * SECOND, 500_000, 0], &["offset is 500ms", "mill.Timestamp(\"ms\", \"UTC\")"]),
        (TimeUnit::Second, [2 * SECOND, -1, 0], &["offset is -1us", "mill.Timestamp(\"us\", \"UTC\")"]),
        (TimeUnit::Second, [SECOND, 0, 1], &["allowed_lateness is 1us"]),
        (TimeUnit::Millisecond, [1_001, 0, 0], &["size is 1ms1us", "whole milliseconds"]),
    ];
    for (unit, bounds, parts) in refusals {
        refused(windowed(unit, bounds), ErrorKind::Plan, parts);
    }
    let fits = [
        (TimeUnit::Second, [2 * SECOND, -SECOND, 5 * SECOND]),
        (TimeUnit::Millisecond, [1_000, 7_000, 0]),
        (TimeUnit::Microsecond, [1, 0, 1]),
        (TimeUnit::Nanosecond, [1, -3, 1]),
    ];
    for (unit, bounds) in fits {
        assert!(windowed(unit, bounds).is_ok(), "{unit:?} {bounds:?}");
    }
}

#[test]
fn a_job_does_not_read_what_it_writes() {
    let input = |path| {
        let source = Memory::new("read_csv(\"io/*.csv\")", &[("price", DataType::Float64)]).reading(path);
        Stream::source(Arc::new(source))
    };
    let sink = || TestSink::writing("write_csv(\"io\")", "io/part-1-0.csv");
    let other = || TestSink::files("write_csv(\"out\")");
    let lowered = |sinks: Vec<Result<mill_plan::SinkNode>>| {
        let sinks: Vec<_> = sinks.into_iter().map(Result::unwrap).collect();
        lower(&sinks, &PlanOptions::default())
    };
    let (own, foreign) = (input("io/part-1-0.csv"), input("io/a.csv"));
    let parts = ["read_csv(\"io/*.csv\") reads what write_csv(\"io\") writes", "another directory"];
    refused(lowered(vec![own.sink(sink())]), ErrorKind::Plan, &parts);
    refused(lowered(vec![own.sink(other()), foreign.sink(sink())]), ErrorKind::Plan, &parts);
    lowered(vec![foreign.sink(sink()), foreign.sink(other())]).unwrap();
}
