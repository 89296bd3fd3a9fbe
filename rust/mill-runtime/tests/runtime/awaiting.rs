//! Steps that take records whose results come later: nothing waits for the results but the end.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::thread;
use std::time::Duration;

use mill_protocol::{Batch, Operator, Outbox, Progress, Restored, Result, Room, Snapshot, TaskContext, Watermark};
use mill_runtime::{EdgeKind, JobGraph, RunOptions, Status, Target, start};

use crate::exactly_once::World;
use crate::support::*;

const WAIT: Option<Duration> = Some(Duration::from_secs(30));
/// How many batches one instance works on.
const CAPACITY: usize = 3;

/// What answers, from outside.
#[derive(Clone, Debug, Default)]
struct Outside {
    /// Whether it answers nothing for now; who asks is noted.
    is_closed: Arc<AtomicBool>,
    asked: Arc<Mutex<Vec<(Arc<Mutex<Vec<usize>>>, usize, Waker)>>>,
    /// How many batches an instance held at most.
    most: Arc<AtomicUsize>,
}

impl Outside {
    fn ask(&self, answers: &Arc<Mutex<Vec<usize>>>, number: usize, waker: &Waker) {
        let (answers, waker) = (answers.clone(), waker.clone());
        if self.is_closed.load(Ordering::Relaxed) {
            self.asked.lock().unwrap().push((answers, number, waker));
            return;
        }
        thread::spawn(move || {
            thread::sleep(Duration::from_micros(50 * (number as u64 * 7 % 5)));
            answers.lock().unwrap().push(number);
            waker.wake();
        });
    }

    fn open(&self) {
        self.is_closed.store(false, Ordering::Relaxed);
        for (answers, number, waker) in self.asked.lock().unwrap().drain(..) {
            answers.lock().unwrap().push(number);
            waker.wake();
        }
    }
}

/// Emits each batch when the answer to it has come.
struct Later {
    outside: Outside,
    answers: Arc<Mutex<Vec<usize>>>,
    held: Vec<(usize, Batch)>,
    next: usize,
    context: TaskContext,
}

impl Later {
    fn new(context: &TaskContext, outside: &Outside) -> Later {
        let (outside, context) = (outside.clone(), context.clone());
        Later { outside, answers: Arc::default(), held: Vec::new(), next: 0, context }
    }

    fn hold(&mut self, batch: Batch) {
        self.outside.ask(&self.answers, self.next, &self.context.waker);
        self.held.push((self.next, batch));
        self.next += 1;
        self.outside.most.fetch_max(self.held.len(), Ordering::Relaxed);
    }
}

impl Operator for Later {
    fn on_batch(&mut self, _input: usize, batch: Batch, _out: &mut Outbox) -> Result<Progress> {
        self.hold(batch);
        Ok(Progress::Done)
    }
    fn on_end(&mut self, _out: &mut Outbox) -> Result<Progress> {
        assert!(self.held.is_empty(), "the end came before the last answer");
        Ok(Progress::Done)
    }
    fn room(&self) -> Room {
        if self.held.len() < CAPACITY { Room::ForAll } else { Room::ForBarrier }
    }
    fn awaits(&self) -> bool {
        !self.held.is_empty()
    }
    fn on_wake(&mut self, out: &mut Outbox) -> Result<Progress> {
        let answered = std::mem::take(&mut *self.answers.lock().unwrap());
        for (number, batch) in std::mem::take(&mut self.held) {
            match answered.contains(&number) {
                true => out.push(batch),
                false => self.held.push((number, batch)),
            }
        }
        Ok(Progress::Done)
    }
    fn earliest_result(&self) -> Watermark {
        let times = self.held.iter().filter_map(|(_, batch)| batch.times()?.iter().min().copied());
        Watermark(times.min().unwrap_or(i64::MAX))
    }
    fn snapshot(&mut self, snapshot: &mut Snapshot) -> Result<()> {
        let rows = self.held.iter().flat_map(|(_, batch)| rows_of(batch.data())).flatten();
        snapshot.bytes = Some(rows.flat_map(i64::to_le_bytes).collect());
        Ok(())
    }
    fn restore(&mut self, restored: &Restored) -> Result<()> {
        let mine = restored.bytes.iter().skip(self.context.index).step_by(self.context.parallelism);
        for bytes in mine.filter(|bytes| !bytes.is_empty()) {
            let words: Vec<i64> = bytes.chunks_exact(8).map(|word| i64::from_le_bytes(word.try_into().unwrap())).collect();
            let rows: Vec<Vec<i64>> = words.chunks_exact(3).map(<[i64]>::to_vec).collect();
            let times = rows.iter().map(|row| row[2]).collect();
            self.hold(Batch::new(batch_of(&["key", "value", "time"], &rows)).with_times(Some(times)));
        }
        Ok(())
    }
}

/// source ─► time ─► later ─rebalance─► later ─► later ─hash─► windows ─► sink
fn graph(from: MemorySource, parallelism: [usize; 2], outside: &Outside, target: &MemorySink) -> JobGraph {
    let later = |name: &str, to: Target| {
        let outside = outside.clone();
        operator(name, "later", vec![vec![to]], move |context| Later::new(context, &outside))
    };
    let time = operator("time", "time", vec![vec![Target::Stage(1, 0)]], |_| EventTime::new(DELAY));
    let window = operator("window", "sum", vec![vec![Target::Stage(1, 0)]], |c| WindowSum::new(WINDOW, c));
    let head = vec![time, later("first", Target::Edge(0))];
    let middle = vec![later("second", Target::Stage(1, 0)), later("third", Target::Edge(1))];
    JobGraph {
        chains: vec![
            chain("head", parallelism[0], Some(source("source", from)), head),
            chain("middle", parallelism[1], None, middle),
            chain("tail", parallelism[1], None, vec![window, sink("sink", target)]),
        ],
        edges: vec![edge(0, 1, EdgeKind::Rebalance), edge(1, 2, EdgeKind::Hash(vec![0]))],
    }
}

#[test]
fn kills_and_rescales_change_nothing_of_what_is_in_flight() {
    for seed in 0..60 {
        let mut random = Random(seed);
        let splits: Vec<Vec<Record>> = (0..1 + random.below(3)).map(|_| records(&mut random, 60, 8)).collect();
        let (expected, _) = expected(&splits);
        let mut world = World::new();
        for attempt in 0.. {
            let parallelism = [1 + random.below(2) as usize, 1 + random.below(3) as usize];
            let graph = graph(MemorySource::new(splits.clone()), parallelism, &Outside::default(), &world.sinks[0]);
            let job = start(graph, world.options(random.below(u64::MAX))).unwrap();
            let steps = if attempt < 5 { random.below(900) } else { u64::MAX };
            if job.run_steps(steps) {
                assert_eq!(job.wait(None).unwrap().unwrap().status, Status::Finished);
                break;
            }
            drop(job);
            world.disk = Arc::new(world.disk.after_kill());
        }
        assert_eq!(world.sinks[0].sorted(), expected, "seed {seed}");
    }
}

#[test]
fn checkpoints_come_by_while_nothing_is_answered_and_the_end_does_not() {
    // Of so few records all are taken, and the end is kept back; of more of them some wait in their source.
    for (rows, parallelism) in [(14, [1, 1]), (14, [2, 2]), (40, [1, 1]), (40, [2, 2])] {
        let outside = Outside::default();
        outside.is_closed.store(true, Ordering::Relaxed);
        let splits = vec![records(&mut Random(3), rows, 8)];
        let (expected, _) = expected(&splits);
        let world = World::new();
        let graph = graph(MemorySource::new(splits), parallelism, &outside, &world.sinks[0]);
        let options = RunOptions { schedule_seed: None, interval: None, queue_capacity: 2, ..world.options(1) };
        let job = start(graph, options).unwrap();
        for _ in 0..4 {
            job.checkpoint_now().unwrap();
            assert_eq!(job.status(), Status::Running);
        }
        assert!(!outside.asked.lock().unwrap().is_empty());
        assert!(world.sinks[0].sorted().is_empty());
        while job.status() == Status::Running {
            outside.open();
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(job.wait(WAIT).unwrap().unwrap().status, Status::Finished);
        assert_eq!(world.sinks[0].sorted(), expected);
    }
}

#[test]
fn no_more_is_taken_than_there_is_room_for() {
    let outside = Outside::default();
    let splits = vec![records(&mut Random(5), 3_000, 8)];
    let (expected, _) = expected(&splits);
    let target = MemorySink::default();
    let graph = graph(MemorySource::new(splits), [1, 1], &outside, &target);
    let job = start(graph, RunOptions { interval: None, ..options() }).unwrap();
    assert_eq!(job.wait(WAIT).unwrap().unwrap().status, Status::Finished);
    assert_eq!(target.sorted(), expected);
    // A step that follows in the same chain gets at once what those before it were holding.
    assert!(outside.most.load(Ordering::Relaxed) <= 2 * CAPACITY, "{outside:?}");
}
