//! What a source may say of itself: that its records are changes of keys, and that it wants to know how far it was read.

use std::sync::{Arc, Mutex};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::SchemaRef;
use mill_protocol::{
    Epoch, PositionListener, Source, SourceChanges, SourceProperties, Split, SplitReader, SplitState,
};
use millstream::connectors::{DirectorySink, FileFormat, MemorySource};
use millstream::plan::{Expr, Stream};
use millstream::{CheckpointOptions, Options, Result, start};

type Told = Arc<Mutex<Vec<(Epoch, Vec<SplitState>)>>>;

/// Changes in memory.
#[derive(Clone, Debug)]
struct Changing {
    rows: Arc<dyn Source>,
    told: Told,
}

struct Listener(Told);

impl PositionListener for Listener {
    fn completed(&mut self, epoch: Epoch, read: Vec<SplitState>) {
        self.0.lock().unwrap().push((epoch, read));
    }
}

impl Source for Changing {
    fn name(&self) -> String {
        "changing()".to_owned()
    }
    fn identity(&self) -> Option<String> {
        Some("changing()".to_owned())
    }
    fn schema(&self) -> SchemaRef {
        self.rows.schema()
    }
    fn changes(&self) -> Option<SourceChanges> {
        Some(SourceChanges { key: vec!["k".to_owned()], op: "what".to_owned() })
    }
    fn position_listener(&self) -> Result<Option<Box<dyn PositionListener>>> {
        Ok(Some(Box::new(Listener(Arc::clone(&self.told)))))
    }
    fn properties(&self) -> SourceProperties {
        self.rows.properties()
    }
    fn splits(&self, is_ordered: bool) -> Result<Vec<Split>> {
        self.rows.splits(is_ordered)
    }
    fn open(&self, split: &Split, position: Option<&[u8]>) -> Result<Box<dyn SplitReader>> {
        self.rows.open(split, position)
    }
    fn project(&self, columns: &[usize]) -> Option<Arc<dyn Source>> {
        Some(Arc::new(Changing { rows: self.rows.project(columns)?, ..self.clone() }))
    }
}

fn changing() -> (Changing, Told) {
    let text = |values: Vec<&str>| Arc::new(StringArray::from(values)) as ArrayRef;
    let number = |values: Vec<i64>| Arc::new(Int64Array::from(values)) as ArrayRef;
    let rows = RecordBatch::try_from_iter([
        ("x", number(vec![1, 2, 3, 0])),
        ("what", text(vec!["insert", "insert", "update", "delete"])),
        ("k", text(vec!["a", "b", "a", "b"])),
        ("y", number(vec![0; 4])),
    ])
    .unwrap();
    let told = Told::default();
    (Changing { rows: Arc::new(MemorySource::new(rows.schema(), vec![rows]).unwrap()), told: Arc::clone(&told) }, told)
}

fn lines(stream: &Stream, with_checkpoint: bool) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let sink = stream.to_changelog("op").and_then(|s| s.sink(Arc::new(DirectorySink::new(dir.path().join("out"), FileFormat::Json)?))).unwrap();
    let checkpoint = with_checkpoint.then(|| CheckpointOptions::new(dir.path().join("state")));
    start(&[sink], Options { checkpoint, parallelism: Some(2), ..Options::default() }).unwrap().wait(None).unwrap().unwrap();
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir.path().join("out")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() && !path.file_name().unwrap().to_string_lossy().starts_with('.') {
            found.extend(std::fs::read_to_string(path).unwrap().lines().map(str::to_owned));
        }
    }
    // Of two keys, each with its changes in order.
    found.sort_by_key(|line| line.contains("\"k\":\"b\""));
    found
}

#[test]
fn a_source_of_changes_is_an_updating_stream() {
    let (source, _) = changing();
    let stream = Stream::source(Arc::new(source));
    assert_eq!(stream.is_updating().unwrap(), ["k".to_owned()]);
    let names: Vec<String> = stream.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["x", "k", "y"]);
    let all = [
        r#"{"op":"insert","x":1,"k":"a","y":0}"#,
        r#"{"op":"update","x":3,"k":"a","y":0}"#,
        r#"{"op":"insert","x":2,"k":"b","y":0}"#,
        r#"{"op":"delete","x":2,"k":"b","y":0}"#,
    ];
    assert_eq!(lines(&stream, false), all);
    // Whoever needs few columns reads few, and the key and what becomes of it all the same.
    let few = stream.select(vec![Expr::Column("k".into())]).unwrap();
    assert_eq!(lines(&few, true), [r#"{"op":"insert","k":"a"}"#, r#"{"op":"insert","k":"b"}"#, r#"{"op":"delete","k":"b"}"#]);
    assert!(stream.from_changelog(&["k".to_owned()], "x").is_err());
}

#[test]
fn a_listener_is_told_of_checkpoints_that_are_complete() {
    let (source, told) = changing();
    let stream = Stream::source(Arc::new(source));
    lines(&stream, false);
    assert!(told.lock().unwrap().is_empty());
    lines(&stream, true);
    let told = told.lock().unwrap();
    let (_, last) = told.last().unwrap();
    assert!(last.iter().all(|state| state.is_ended), "{told:?}");
    assert!(!last.is_empty());
    assert!(told.is_sorted_by_key(|(epoch, _)| *epoch));
}
