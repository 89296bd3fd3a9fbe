//! A panic in every thread of the engine: the job fails and names the thread, or starts again, and nobody waits forever.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arrow::datatypes::SchemaRef;
use millstream::connectors::{DirectorySink, FileFormat, GenerateSource};
use millstream::fault::{Effect, Fault, arm, disarm};
use millstream::plan::Stream;
use millstream::{CheckpointOptions, Job, JobState, Options, Restart, Result, start};
use mill_protocol::{Read, Source, SourceProperties, Split, SplitReader};

const ROWS: u64 = 20_000;
const LONGEST: Option<Duration> = Some(Duration::from_secs(60));

/// What is armed is armed for the process, so the tests take turns.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    disarm();
    HOLDS_END.store(false, Ordering::Relaxed);
    turn
}

/// Whether input does not end yet, so that a job on a busy machine comes to the step that panics before it is through.
static HOLDS_END: AtomicBool = AtomicBool::new(false);

/// Numbers as the generator makes them, read by a thread of their own.
#[derive(Debug)]
struct Slow(GenerateSource);

impl Source for Slow {
    fn name(&self) -> String {
        "slow".to_owned()
    }
    fn schema(&self) -> SchemaRef {
        self.0.schema()
    }
    fn properties(&self) -> SourceProperties {
        SourceProperties { may_block: true, ..self.0.properties() }
    }
    fn splits(&self, is_ordered: bool) -> Result<Vec<Split>> {
        self.0.splits(is_ordered)
    }
    fn open(&self, split: &Split, position: Option<&[u8]>) -> Result<Box<dyn SplitReader>> {
        Ok(Box::new(InPieces(self.0.open(split, position)?)))
    }
}

/// Small reads, so that there are many.
struct InPieces(Box<dyn SplitReader>);

impl SplitReader for InPieces {
    fn next(&mut self, _rows_max: usize) -> Result<Read> {
        std::thread::sleep(Duration::from_millis(1));
        match self.0.next(200)? {
            Read::End if HOLDS_END.load(Ordering::Relaxed) => Ok(Read::Pending(Duration::from_millis(1))),
            read => Ok(read),
        }
    }
    fn position(&self) -> Vec<u8> {
        self.0.position()
    }
}

fn run(dir: &Path, restart: Restart) -> Result<Job> {
    let source = Slow(GenerateSource::new(Some(ROWS), None).expect("the generator is sound"));
    let sink = DirectorySink::new(dir.join("out"), FileFormat::Json).expect("the sink is sound");
    let sink = Stream::source(Arc::new(source)).sink(Arc::new(sink)).expect("the plan is sound");
    let every = Duration::from_millis(5);
    let checkpoint = Some(CheckpointOptions { every, ..CheckpointOptions::new(dir.join("state")) });
    start(&[sink], Options { checkpoint, restart, parallelism: Some(2), ..Options::default() })
}

fn written(dir: &Path) -> Vec<i64> {
    let mut rows = Vec::new();
    for entry in std::fs::read_dir(dir.join("out")).expect("the output is there") {
        let path = entry.expect("it can be listed").path();
        let is_shown = !path.file_name().expect("a name").to_string_lossy().starts_with('.');
        if is_shown && path.is_file() {
            for line in std::fs::read_to_string(&path).expect("it can be read").lines() {
                let digits: String = line.chars().filter(char::is_ascii_digit).collect();
                rows.push(digits.parse().expect("a number a line"));
            }
        }
    }
    rows.sort_unstable();
    rows
}

fn panics(step: &str, first: u64, times: u64) {
    arm(Fault { step: step.to_owned(), first, times, effect: Effect::Panic });
}

/// The named step that each thread passes, and what the error names.
const THREADS: [(&str, &str); 5] = [
    ("thread.worker", "mill-worker"),
    ("thread.coordinator", "mill-coordinator"),
    ("thread.writer", "mill-writer"),
    ("thread.reader", "mill-reader"),
    ("thread.supervisor", "mill-supervisor"),
];

#[test]
fn a_panic_in_any_thread_fails_the_job_and_names_the_thread() {
    let _turn = turn();
    for (step, thread) in THREADS {
        for first in [2, 3, 10] {
            // The supervisor takes few steps: one at the start, one when it begins to watch.
            let first = if step == "thread.supervisor" { 2 } else { first };
            let dir = tempfile::tempdir().expect("a directory for the test");
            panics(step, first, 1);
            HOLDS_END.store(true, Ordering::Relaxed);
            let job = run(dir.path(), Restart::Never).expect("the job starts");
            let outcome = job.wait(LONGEST).unwrap_or_else(|| panic!("{step} {first}: the job hangs"));
            let error = outcome.expect_err(step);
            assert!(error.to_string().contains(thread), "{step}: {error}");
            assert!(error.to_string().contains("panicked"), "{step}: {error}");
            assert_eq!(job.status().state, JobState::Failed, "{step}");
            disarm();
            HOLDS_END.store(false, Ordering::Relaxed);
            // Everything that it held is free, and the job continues from its last checkpoint.
            let job = run(dir.path(), Restart::Never).expect("the directory is free");
            job.wait(LONGEST).unwrap_or_else(|| panic!("{step}: the next run hangs")).expect("it ends well");
            assert_eq!(written(dir.path()), (0..ROWS as i64).collect::<Vec<_>>(), "{step} {first}");
        }
    }
}

#[test]
fn a_job_that_may_start_again_does_so_after_a_panic() {
    let _turn = turn();
    for (step, _) in THREADS.into_iter().filter(|(step, _)| *step != "thread.supervisor") {
        let dir = tempfile::tempdir().expect("a directory for the test");
        panics(step, 5, 2);
        HOLDS_END.store(true, Ordering::Relaxed);
        let job = run(dir.path(), Restart::FixedDelay { attempts: 10, delay: Duration::ZERO }).expect("the job starts");
        let since = Instant::now();
        while job.status().restarts == 0 && since.elapsed() < LONGEST.unwrap_or_default() {
            std::thread::sleep(Duration::from_millis(1));
        }
        HOLDS_END.store(false, Ordering::Relaxed);
        job.wait(LONGEST).unwrap_or_else(|| panic!("{step}: the job hangs")).expect(step);
        disarm();
        assert!(job.status().restarts > 0, "{step}");
        assert_eq!(written(dir.path()), (0..ROWS as i64).collect::<Vec<_>>(), "{step}");
    }
}

#[test]
fn a_panic_while_a_job_starts_again_is_heard_by_whoever_waits() {
    let _turn = turn();
    // A worker fails, and every attempt to start again panics in the recovery.
    for step in ["sink.recover", "thread.supervisor", "state.sync_dir"] {
        let dir = tempfile::tempdir().expect("a directory for the test");
        HOLDS_END.store(true, Ordering::Relaxed);
        let job = run(dir.path(), Restart::FixedDelay { attempts: 3, delay: Duration::from_millis(50) }).expect("the job starts");
        std::thread::sleep(Duration::from_millis(20));
        panics(step, 1, u64::MAX);
        if step != "state.sync_dir" {
            // Nothing of a job that runs meets these: something else has to fail it.
            job.checkpoint_now().ok();
            panics("thread.worker", 1, 1);
            while job.status().state == JobState::Running {
                std::thread::yield_now();
            }
            panics(step, 1, u64::MAX);
        }
        let outcome = job.wait(LONGEST).unwrap_or_else(|| panic!("{step}: the job hangs"));
        disarm();
        assert!(outcome.is_err(), "{step}");
        assert_eq!(job.status().state, JobState::Failed, "{step}");
    }
}

#[test]
fn a_panic_at_the_start_is_an_error_of_the_start() {
    let _turn = turn();
    for step in ["thread.supervisor", "sink.recover", "mark.create"] {
        let dir = tempfile::tempdir().expect("a directory for the test");
        panics(step, 1, 1);
        let error = run(dir.path(), Restart::Never).err().expect(step);
        disarm();
        assert!(error.to_string().contains("panicked"), "{step}: {error}");
        run(dir.path(), Restart::Never).expect("the directory is free").wait(LONGEST).expect("it ends").expect("it ends well");
    }
}

#[test]
fn panics_in_the_background_stop_neither_retention_nor_checkpoints() {
    let _turn = turn();
    for step in ["savepoint.copy", "checkpoint.write", "sink.pre_commit"] {
        let dir = tempfile::tempdir().expect("a directory for the test");
        let job = run(dir.path(), Restart::FixedDelay { attempts: 10, delay: Duration::ZERO }).expect("the job starts");
        panics(step, 1, 3);
        for number in 0..3 {
            if let Err(error) = job.savepoint(&dir.path().join(format!("saved-{number}"))) {
                assert!(!error.to_string().is_empty());
            }
        }
        disarm();
        job.wait(LONGEST).unwrap_or_else(|| panic!("{step}: the job hangs")).expect(step);
        let manifests = std::fs::read_dir(dir.path().join("state")).expect("it is there").filter(|entry| {
            entry.as_ref().expect("it can be listed").file_name().to_string_lossy().starts_with("manifest-")
        });
        assert!(manifests.count() <= 3, "{step}: old checkpoints are kept");
        assert_eq!(written(dir.path()), (0..ROWS as i64).collect::<Vec<_>>(), "{step}");
    }
}
