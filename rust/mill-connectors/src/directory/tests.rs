use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Decimal128Array, Float64Array, Int64Array, ListArray, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use mill_protocol::{Batch, Commit, Delivery, Epoch, ErrorKind, Recovered, Run, Sink, SinkWriter, Source, TaskContext};
use proptest::prelude::*;

use super::{DirectorySink, FileFormat, OnExisting};
use crate::file::PathSpec;
use crate::testing::{check, rows_of};
use crate::{ArrowOptions, ArrowSource, CsvOptions, CsvSource, JsonOptions, JsonSource, ParquetOptions, ParquetSource};

const FORMATS: [FileFormat; 4] = FileFormat::ALL;

fn batch(values: std::ops::Range<i64>) -> RecordBatch {
    let x = Arc::new(Int64Array::from_iter_values(values)) as ArrayRef;
    RecordBatch::try_from_iter([("x", x)]).unwrap()
}

fn sink(directory: &Path, format: FileFormat) -> DirectorySink {
    DirectorySink::new(directory, format).unwrap()
}

fn writer(sink: &DirectorySink, task: usize, data: &RecordBatch) -> Box<dyn SinkWriter> {
    let context = TaskContext { step: "s".into(), index: task, parallelism: 2, threads: 2, groups: 0..128, is_persistent: true, waker: std::task::Waker::noop().clone() };
    sink.writer(&data.schema(), &context).unwrap()
}

fn pre_commit(writer: &mut dyn SinkWriter, epoch: u64) -> Option<Commit> {
    let epoch = Epoch(epoch);
    writer.pre_commit(epoch).unwrap().map(|finish| Commit { epoch, handle: finish().unwrap() })
}

fn files(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(directory).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn visible(directory: &Path) -> Vec<String> {
    files(directory).into_iter().filter(|name| !name.starts_with('.')).collect()
}

#[test]
fn output_is_hidden_until_committed_and_there_is_a_file_an_epoch_and_task_with_rows() {
    for format in FORMATS {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().join("a/b");
        let sink = sink(&out, format);
        let mut committer = sink.committer().unwrap();
        committer.begin().unwrap();
        let (mut a, mut b) = (writer(&sink, 0, &batch(0..1)), writer(&sink, 1, &batch(0..1)));
        a.write(Batch::new(batch(0..10))).unwrap();
        a.write(Batch::new(batch(10..20))).unwrap();
        b.write(Batch::new(batch(20..30))).unwrap();
        let commits = [pre_commit(a.as_mut(), 1).unwrap(), pre_commit(b.as_mut(), 1).unwrap()];
        assert!(pre_commit(a.as_mut(), 2).is_none());
        assert!(visible(&out).is_empty());
        committer.commit(&commits).unwrap();
        committer.commit(&commits).unwrap();
        let extension = format.extension();
        let expected = [format!("part-0000000001-0.{extension}"), format!("part-0000000001-1.{extension}")];
        assert_eq!(files(&out), expected);
    }
}

#[test]
fn recovery_after_a_kill_at_any_step_commits_what_is_named_and_removes_the_rest() {
    // The steps: 0 writing, 1 pre-committed, 2 named by a checkpoint, 3 one of two files renamed, 4 all renamed.
    for step in 0..=4 {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path();
        let former = sink(out, FileFormat::Csv);
        let mut committer = former.committer().unwrap();
        committer.begin().unwrap();
        let (mut a, mut b) = (writer(&former, 0, &batch(0..1)), writer(&former, 1, &batch(0..1)));
        a.write(Batch::new(batch(0..3))).unwrap();
        b.write(Batch::new(batch(3..5))).unwrap();
        let mut named = Vec::new();
        if step >= 1 {
            let commits = vec![pre_commit(a.as_mut(), 1).unwrap(), pre_commit(b.as_mut(), 1).unwrap()];
            if step >= 2 {
                named = commits;
            }
        }
        if step >= 3 {
            committer.commit(&named[..step - 2]).unwrap();
        }
        // Work on the epoch after it, which nothing names, goes on as the process is killed.
        a.write(Batch::new(batch(100..101))).unwrap();
        std::mem::forget((a, b));
        drop(committer);

        let resumed = sink(out, FileFormat::Csv);
        let mut committer = resumed.committer().unwrap();
        committer.recover(&Recovered { commits: &named, ..Recovered::default() }).unwrap();
        let count = if step >= 2 { 2 } else { 0 };
        assert_eq!(files(out).len(), count, "step {step}: {:?}", files(out));
        if step >= 2 {
            let source = CsvSource::new(PathSpec::from(out), None, CsvOptions::default()).unwrap();
            assert_eq!(check(&source, 10), ["0", "1", "2", "3", "4"]);
        }
        // The epoch is produced again under the same number if it was not named.
        if step < 2 {
            let mut a = writer(&resumed, 0, &batch(0..1));
            a.write(Batch::new(batch(0..3))).unwrap();
            committer.commit(&[pre_commit(a.as_mut(), 1).unwrap()]).unwrap();
            assert_eq!(files(out), ["part-0000000001-0.csv"]);
        }
    }
}

#[test]
fn lost_and_foreign_output_are_errors_that_say_whether_it_happened() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path();
    let sink = sink(out, FileFormat::Csv);
    let mut committer = sink.committer().unwrap();
    let mut a = writer(&sink, 0, &batch(0..1));
    a.write(Batch::new(batch(0..3))).unwrap();
    let commit = pre_commit(a.as_mut(), 1).unwrap();
    let hidden = out.join(&files(out)[0]);
    std::fs::write(out.join("part-0000000001-0.csv"), "foreign").unwrap();
    let error = committer.commit(std::slice::from_ref(&commit)).unwrap_err();
    assert!(error.message().contains("already exists") && error.message().contains("nothing was changed"), "{error}");
    committer.abort().unwrap();
    assert!(hidden.exists(), "a checkpoint may name it");
    std::fs::remove_file(out.join("part-0000000001-0.csv")).unwrap();
    std::fs::remove_file(&hidden).unwrap();
    let error = committer.commit(std::slice::from_ref(&commit)).unwrap_err();
    assert!(error.message().contains("is lost") && error.message().contains("is not known"), "{error}");
    let error = committer.commit(&[Commit { epoch: Epoch(1), handle: b"{\"hidden\":\"/etc/x\",\"name\":\"y\"}".to_vec() }]);
    assert!(error.unwrap_err().message().contains("damaged"));
}

#[test]
fn files_that_were_taken_away_after_their_commit_are_not_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path();
    let sink = sink(out, FileFormat::Json);
    let mut committer = sink.committer().unwrap();
    let mut a = writer(&sink, 0, &batch(0..1));
    a.write(Batch::new(batch(0..3))).unwrap();
    let commits = [pre_commit(a.as_mut(), 1).unwrap()];
    let hidden = out.join(&files(out)[0]);
    let settled = Recovered { commits: &commits, is_settled: true, ..Recovered::default() };
    // A directory that was put back from a copy made before the commit: the file is shown now.
    committer.recover(&settled).unwrap();
    assert_eq!(files(out), ["part-0000000001-0.json"]);
    std::fs::copy(out.join("part-0000000001-0.json"), &hidden).unwrap();
    committer.recover(&settled).unwrap();
    assert_eq!(files(out), ["part-0000000001-0.json"]);
    std::fs::remove_file(out.join("part-0000000001-0.json")).unwrap();
    committer.recover(&settled).unwrap();
    assert_eq!(files(out), [""; 0]);
    let error = committer.recover(&Recovered { is_settled: false, ..settled }).unwrap_err();
    assert!(error.message().contains("is lost"), "{error}");
}

#[test]
fn a_handle_names_only_a_file_of_its_own_epoch_task_and_kind() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path();
    let sink = sink(out, FileFormat::Csv);
    let mut committer = sink.committer().unwrap();
    let hidden = ".part-0123456789abcdef-2-7";
    for name in [".bashrc", "../x.csv", "part-0000000001-2.csv", &format!("{hidden}.csv/x"), &format!("{hidden}.json")] {
        std::fs::create_dir_all(out.join("x")).unwrap();
        for target in ["part-0000000005-2.csv", "part-0000000005-2.json", "part-0000000004-2.csv"] {
            if name.ends_with(".json") && target.ends_with(".json") {
                continue;
            }
            let handle = format!("{{\"hidden\":{name:?},\"name\":{target:?}}}").into_bytes();
            let error = committer.commit(&[Commit { epoch: Epoch(5), handle }]).unwrap_err();
            assert!(error.message().contains("damaged"), "{name} {target}: {error}");
        }
    }
    for (task, target) in [(1, "part-0000000005-2.csv"), (2, "part-0000000005-2-3.csv")] {
        let handle = format!("{{\"hidden\":\".part-0123456789abcdef-{task}-7.csv\",\"name\":{target:?}}}").into_bytes();
        assert!(committer.commit(&[Commit { epoch: Epoch(5), handle }]).unwrap_err().message().contains("damaged"));
    }
    // A former run may have written another format: its files are looked for.
    let handle = format!("{{\"hidden\":\"{hidden}.json\",\"name\":\"part-0000000005-2.json\"}}").into_bytes();
    assert!(committer.commit(&[Commit { epoch: Epoch(5), handle }]).unwrap_err().message().contains("is lost"));
    // A link under the name of what was written is not followed, and not shown.
    std::os::unix::fs::symlink("/etc/hostname", out.join(format!("{hidden}.csv"))).unwrap();
    let handle = format!("{{\"hidden\":\"{hidden}.csv\",\"name\":\"part-0000000005-2.csv\"}}").into_bytes();
    assert!(committer.commit(&[Commit { epoch: Epoch(5), handle }]).unwrap_err().message().contains("is lost"));
}

#[test]
fn directories_are_made_with_all_their_parents() {
    let directory = tempfile::tempdir().unwrap();
    let sink = sink(&directory.path().join("a/b/c"), FileFormat::Csv);
    sink.committer().unwrap().begin().unwrap();
    assert!(directory.path().join("a/b/c").is_dir());
    assert!(sink.target().unwrap().ends_with("/a/b/c"));
}

#[test]
fn output_of_later_checkpoints_than_the_restored_one_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path();
    for epoch in [3, 4, 5] {
        std::fs::write(out.join(format!("part-{epoch:010}-0.csv")), "x\n1\n").unwrap();
    }
    let sink = sink(out, FileFormat::Csv);
    let mut committer = sink.committer().unwrap();
    let run = |delivery, restored| Run { delivery, restored: Some(Epoch(restored)), ..Run::default() };
    committer.promise(&run(Delivery::ExactlyOnce, 5)).unwrap();
    committer.promise(&run(Delivery::AtLeastOnce, 3)).unwrap();
    let error = committer.promise(&run(Delivery::ExactlyOnce, 4)).unwrap_err();
    assert!(error.message().contains("remove \"part-0000000005-0.csv\""), "{error}");
}

#[test]
fn at_least_once_publishes_an_epoch_that_died_before_its_checkpoint_again() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path();
    for expected in 1..=3 {
        let sink = sink(out, FileFormat::Csv);
        let mut committer = sink.committer().unwrap();
        committer.promise(&Run { delivery: Delivery::AtLeastOnce, ..Run::default() }).unwrap();
        committer.recover(&Recovered::default()).unwrap();
        let mut a = writer(&sink, 0, &batch(0..1));
        a.write(Batch::new(batch(0..3))).unwrap();
        committer.commit(&[pre_commit(a.as_mut(), 1).unwrap()]).unwrap();
        assert_eq!(files(out).len(), expected);
    }
    assert_eq!(files(out)[0], "part-0000000001-0-2.csv");
}

#[test]
fn a_fresh_job_refuses_or_replaces_the_output_of_another_run() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path();
    std::fs::write(out.join("part-0000000003-0.csv"), "x\n1\n").unwrap();
    std::fs::write(out.join("notes.txt"), "mine").unwrap();
    let error = sink(out, FileFormat::Csv).committer().unwrap().begin().unwrap_err();
    assert!(error.message().contains("part-0000000003-0.csv") && error.message().contains("checkpoint"), "{error}");
    sink(out, FileFormat::Csv).on_existing(OnExisting::Replace).committer().unwrap().begin().unwrap();
    assert_eq!(files(out), ["notes.txt"]);
}

#[test]
fn two_jobs_cannot_write_into_one_directory() {
    let directory = tempfile::tempdir().unwrap();
    let first = sink(directory.path(), FileFormat::Csv);
    let committer = first.committer().unwrap();
    let again = first.committer().unwrap();
    let error = sink(directory.path(), FileFormat::Json).committer().err().unwrap();
    assert!(error.message().contains("another job"), "{error}");
    drop((committer, again));
    sink(directory.path(), FileFormat::Json).committer().unwrap();
}

#[test]
fn abort_and_a_dropped_writer_leave_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path();
    let sink = sink(out, FileFormat::Parquet);
    let mut a = writer(&sink, 0, &batch(0..1));
    a.write(Batch::new(batch(0..3))).unwrap();
    pre_commit(a.as_mut(), 1).unwrap();
    a.write(Batch::new(batch(0..3))).unwrap();
    drop(a);
    assert_eq!(files(out).len(), 1);
    sink.committer().unwrap().abort().unwrap();
    assert!(files(out).is_empty());
}

fn write_all(out: &Path, format: FileFormat, data: &RecordBatch) -> String {
    let sink = sink(out, format);
    sink.check(&data.schema(), None).unwrap();
    let mut a = writer(&sink, 0, data);
    a.write(Batch::new(data.slice(0, 1))).unwrap();
    a.write(Batch::new(data.slice(1, data.num_rows() - 1))).unwrap();
    let commit = pre_commit(a.as_mut(), 1).unwrap();
    sink.committer().unwrap().commit(&[commit]).unwrap();
    let bytes = std::fs::read(out.join(&visible(out)[0])).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn table() -> RecordBatch {
    let at = TimestampMicrosecondArray::from(vec![Some(1_357_017_300_000_000), Some(1_357_017_300_250_000), None]);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("text", Arc::new(StringArray::from(vec![Some("a,\"b\"\nc"), Some(""), None]))),
        ("real", Arc::new(Float64Array::from(vec![Some(1.0), Some(0.1 + 0.2), None]))),
        ("at", Arc::new(at.clone())),
        ("utc", Arc::new(at.with_timezone("UTC"))),
        ("money", Arc::new(Decimal128Array::from(vec![Some(12345), Some(-5), None]).with_precision_and_scale(10, 2).unwrap())),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true))).unwrap()
}

#[test]
fn a_result_without_rows_is_one_file_with_the_columns() {
    for format in FORMATS {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path();
        let sink = sink(out, format);
        let mut committer = sink.committer().unwrap();
        let mut writers = [writer(&sink, 0, &table()), writer(&sink, 1, &table())];
        let end = |writers: &mut [Box<dyn SinkWriter>; 2], epoch| -> Vec<Commit> {
            writers.iter_mut().for_each(|writer| writer.end().unwrap());
            writers.iter_mut().filter_map(|writer| pre_commit(writer.as_mut(), epoch)).collect()
        };
        let commits = end(&mut writers, 1);
        assert_eq!((commits.len(), visible(out).len()), (1, 0));
        for _ in 0..2 {
            // As after a kill between the two.
            committer.commit(&commits).unwrap();
            assert_eq!(files(out), [format!("part-0000000001-0.{}", format.extension())]);
        }
        let source: Box<dyn Source> = match format {
            FileFormat::Csv => {
                Box::new(CsvSource::new(out.into(), Some(table().schema()), CsvOptions::default()).unwrap())
            }
            FileFormat::Json => {
                Box::new(JsonSource::new(out.into(), Some(table().schema()), JsonOptions::default()).unwrap())
            }
            FileFormat::Parquet => {
                let source = ParquetSource::new(out.into(), None, ParquetOptions::default()).unwrap();
                assert_eq!(source.schema(), table().schema());
                Box::new(source)
            }
            FileFormat::Arrow => {
                let source = ArrowSource::new(out.into(), None, ArrowOptions::default()).unwrap();
                assert_eq!(source.schema(), table().schema());
                Box::new(source)
            }
        };
        assert!(check(source.as_ref(), 10).is_empty());
    }
}

#[test]
fn a_file_without_rows_is_left_out_beside_any_other() {
    // Rows of the other task in the same epoch, and rows of an epoch before.
    for is_same_epoch in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path();
        let sink = sink(out, FileFormat::Csv);
        let mut committer = sink.committer().unwrap();
        let (mut a, mut b) = (writer(&sink, 0, &batch(0..1)), writer(&sink, 1, &batch(0..1)));
        b.write(Batch::new(batch(0..3))).unwrap();
        let mut commits = Vec::new();
        if !is_same_epoch {
            committer.commit(&[pre_commit(b.as_mut(), 1).unwrap()]).unwrap();
        }
        a.end().unwrap();
        b.end().unwrap();
        commits.extend(pre_commit(a.as_mut(), 2));
        commits.extend(pre_commit(b.as_mut(), 2));
        committer.commit(&commits).unwrap();
        let expected = if is_same_epoch { "part-0000000002-1.csv" } else { "part-0000000001-1.csv" };
        assert_eq!(files(out), [expected]);
        // The same after a kill between the two.
        committer.recover(&Recovered { commits: &commits, ..Recovered::default() }).unwrap();
        assert_eq!(files(out), [expected]);
    }
}

#[test]
fn a_task_that_had_rows_leaves_no_file_without_any() {
    let directory = tempfile::tempdir().unwrap();
    let sink = sink(directory.path(), FileFormat::Csv);
    let mut a = writer(&sink, 0, &batch(0..1));
    a.write(Batch::new(batch(0..3))).unwrap();
    pre_commit(a.as_mut(), 1).unwrap();
    a.end().unwrap();
    assert!(pre_commit(a.as_mut(), 2).is_none());
}

#[test]
fn csv_reads_back_as_what_was_written() {
    let directory = tempfile::tempdir().unwrap();
    let text = write_all(directory.path(), FileFormat::Csv, &table());
    assert_eq!(
        text,
        "text,real,at,utc,money\n\
         \"a,\"\"b\"\"\nc\",1.0,2013-01-01T05:15:00,2013-01-01T05:15:00Z,123.45\n\
         \"\",0.30000000000000004,2013-01-01T05:15:00.250,2013-01-01T05:15:00.250Z,-0.05\n\
         ,,,,\n"
    );
    let source =
        CsvSource::new(PathSpec::from(directory.path()), Some(table().schema()), CsvOptions::default()).unwrap();
    assert_eq!(check(&source, 10), rows_of(&table()));
}

#[test]
fn json_has_every_column_in_every_line() {
    let directory = tempfile::tempdir().unwrap();
    let text = write_all(directory.path(), FileFormat::Json, &table());
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3);
    assert!(lines[0].contains(r#""at":"2013-01-01T05:15:00","utc":"2013-01-01T05:15:00Z""#), "{}", lines[0]);
    assert!(lines[2].starts_with(r#"{"text":null,"real":null,"at":null"#), "{}", lines[2]);
}

#[test]
fn json_stays_json_whatever_the_values() {
    let directory = tempfile::tempdir().unwrap();
    let real = Arc::new(Float64Array::from(vec![f64::NAN, f64::INFINITY, -0.0, 1e300])) as ArrayRef;
    let text = Arc::new(StringArray::from(vec!["\u{2028}\"\\\n\u{1}", "", "é", "null"])) as ArrayRef;
    let data = RecordBatch::try_from_iter([("real", real), ("text", text)]).unwrap();
    let written = write_all(directory.path(), FileFormat::Json, &data);
    let records: Vec<serde_json::Value> = written.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(records.len(), 4, "{written}");
    assert_eq!((records[0]["real"].as_str(), records[1]["real"].as_str()), (Some("NaN"), Some("inf")));
    assert_eq!(records[3]["real"], 1e300);
    assert_eq!(records[0]["text"], "\u{2028}\"\\\n\u{1}");
    let source = JsonSource::new(PathSpec::from(directory.path()), Some(data.schema()), JsonOptions::default()).unwrap();
    assert_eq!(check(&source, 3), rows_of(&data));
}

#[test]
fn moments_in_named_zones_are_written_with_their_offset_and_read_again() {
    let directory = tempfile::tempdir().unwrap();
    let at = TimestampMicrosecondArray::from(vec![1_357_017_300_000_000]).with_timezone("America/New_York");
    let data = RecordBatch::try_from_iter_with_nullable([("at", Arc::new(at) as ArrayRef, true)]).unwrap();
    let text = write_all(directory.path(), FileFormat::Csv, &data);
    assert_eq!(text, "at\n2013-01-01T00:15:00-05:00\n");
    let source = CsvSource::new(PathSpec::from(directory.path()), Some(data.schema()), CsvOptions::default()).unwrap();
    assert_eq!(check(&source, 10), rows_of(&data));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn any_text_and_number_survives_csv(
        rows in proptest::collection::vec((proptest::option::of("[a,\"\r\n é\u{0}]{0,6}"), proptest::option::of(any::<f64>())), 2..30),
        rows_max in 1usize..10,
    ) {
        let directory = tempfile::tempdir().unwrap();
        let text = Arc::new(StringArray::from_iter(rows.iter().map(|row| row.0.as_deref()))) as ArrayRef;
        let real = Arc::new(Float64Array::from_iter(rows.iter().map(|row| row.1))) as ArrayRef;
        let data = RecordBatch::try_from_iter_with_nullable([("text", text, true), ("real", real, true)]).unwrap();
        write_all(directory.path(), FileFormat::Csv, &data);
        let paths = PathSpec::from(directory.path());
        let source = CsvSource::new(paths, Some(data.schema()), CsvOptions::default()).unwrap();
        prop_assert_eq!(check(&source, rows_max), rows_of(&data));
    }
}

#[test]
fn parquet_reads_back_as_what_was_written() {
    let directory = tempfile::tempdir().unwrap();
    write_all(directory.path(), FileFormat::Parquet, &table());
    let source = ParquetSource::new(PathSpec::from(directory.path()), None, ParquetOptions::default()).unwrap();
    assert_eq!(source.schema(), table().schema());
    assert_eq!(check(&source, 10), rows_of(&table()));
}

#[test]
fn arrow_reads_back_as_what_was_written() {
    let directory = tempfile::tempdir().unwrap();
    write_all(directory.path(), FileFormat::Arrow, &table());
    let source = ArrowSource::new(PathSpec::from(directory.path()), None, ArrowOptions::default()).unwrap();
    assert_eq!(source.schema(), table().schema());
    assert_eq!(check(&source, 10), rows_of(&table()));
}

#[test]
fn what_cannot_be_written_is_refused_before_anything_runs() {
    let directory = tempfile::tempdir().unwrap();
    let of = |format| sink(directory.path(), format);
    let list = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1)])]);
    let list = Arc::new(Schema::new(vec![Field::new("tags", list_type(&list), true)]));
    let error = of(FileFormat::Csv).check(&list, None).unwrap_err();
    assert!(error.message().contains("column \"tags\"") && error.message().contains("explode"), "{error}");
    of(FileFormat::Json).check(&list, None).unwrap();
    of(FileFormat::Parquet).check(&list, None).unwrap();
    let object = mill_frame::schema::object_field("o", true);
    let within = Field::new("o", DataType::Struct(vec![object.clone()].into()), true);
    let schemas = [Arc::new(Schema::new(vec![object])), Arc::new(Schema::new(vec![within]))];
    for format in FORMATS {
        for schema in &schemas {
            assert!(of(format).check(schema, None).unwrap_err().message().contains("Python objects"));
        }
        let error = of(format).check(&batch(0..1).schema(), Some(&["x".to_owned()])).unwrap_err();
        assert_eq!(error.message(), "it only adds rows", "the plan adds what to do");
    }
    std::fs::write(directory.path().join("f"), "").unwrap();
    assert!(DirectorySink::new(directory.path().join("f"), FileFormat::Csv).is_err());
}

#[test]
fn an_ending_of_another_file_is_refused_and_any_other_is_a_directory() {
    let directory = tempfile::tempdir().unwrap();
    let one_file = |name: &str, format| {
        let path = format!("{}/{name}", directory.path().display());
        DirectorySink::new(path, format).map(|sink| sink.one_file().is_some()).map_err(|error| error.kind())
    };
    for (name, format) in [
        ("a.csv.bz2", FileFormat::Csv),
        ("a.gz", FileFormat::Csv),
        ("a.csv.BZ2", FileFormat::Csv),
        ("a.tsv", FileFormat::Csv),
        ("a.parquet", FileFormat::Json),
        ("a.parquet.gz", FileFormat::Parquet),
        ("a.orc", FileFormat::Parquet),
        ("a.arrow.zst", FileFormat::Arrow),
        ("a.arrow", FileFormat::Parquet),
    ] {
        assert_eq!(one_file(name, format), Err(ErrorKind::Plan), "{name}");
        assert_eq!(one_file(&format!("{name}/"), format), Ok(false), "{name}/");
    }
    for (name, is_file) in [("a.csv", true), ("A.CSV", true), ("a.txt.zst", true), ("v1.2", false), ("out.d", false), ("csv", false), (".gz", false)] {
        assert_eq!(one_file(name, FileFormat::Csv), Ok(is_file), "{name}");
    }
}

fn list_type(array: &ListArray) -> DataType {
    arrow::array::Array::data_type(array).clone()
}
