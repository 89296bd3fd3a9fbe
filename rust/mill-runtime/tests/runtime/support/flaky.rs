use std::sync::Arc;

use mill_protocol::{
    Batch, Epoch, Error, ErrorKind, Mark, Operator, Outbox, Progress, Restored, Result, Snapshot, SplitId, Watermark, Watermarks,
};
use mill_runtime::{JobGraph, StageBody};
use parking_lot::Mutex;

use super::Random;

/// An operator that fails now and then, before or after it has done what it was asked to: by an error or a panic.
struct Flaky {
    inner: Box<dyn Operator>,
    dice: Arc<Dice>,
}

/// How often operators fail.
pub struct Dice {
    random: Mutex<Random>,
    /// One call in so many fails; 0: none.
    one_in: u64,
}

impl Dice {
    pub fn new(seed: u64, one_in: u64) -> Arc<Dice> {
        Arc::new(Dice { random: Mutex::new(Random(seed)), one_in })
    }

    /// Whether they make anything fail.
    pub fn is_loaded(&self) -> bool {
        self.one_in > 0
    }

    fn roll(&self) -> Result<()> {
        let drawn = if self.one_in == 0 { 1 } else { self.random.lock().below(self.one_in) };
        if drawn > 0 {
            return Ok(());
        }
        if self.random.lock().below(4) == 0 {
            // A panic without its message on the terminal.
            std::panic::resume_unwind(Box::new("it slipped"));
        }
        Err(Error::new(ErrorKind::UserFunction, "bad luck"))
    }
}

/// Lets the operators of a job fail.
pub fn flaky(mut graph: JobGraph, dice: &Arc<Dice>) -> JobGraph {
    for stage in graph.chains.iter_mut().flat_map(|chain| &mut chain.stages) {
        if let StageBody::Operator(make) = &mut stage.body {
            let (inner, dice) = (Arc::clone(make), Arc::clone(dice));
            *make = Arc::new(move |context| Ok(Box::new(Flaky { inner: inner(context)?, dice: Arc::clone(&dice) })));
        }
    }
    graph
}

impl Flaky {
    fn call<T>(&mut self, call: impl FnOnce(&mut dyn Operator) -> Result<T>) -> Result<T> {
        self.dice.roll()?;
        let done = call(&mut *self.inner)?;
        self.dice.roll()?;
        Ok(done)
    }
}

impl Operator for Flaky {
    fn on_batch(&mut self, input: usize, batch: Batch, out: &mut Outbox) -> Result<Progress> {
        self.call(|inner| inner.on_batch(input, batch, out))
    }
    fn on_watermark(&mut self, input: usize, at: Watermark, out: &mut Outbox) -> Result<Progress> {
        self.call(|inner| inner.on_watermark(input, at, out))
    }
    fn on_barrier(&mut self, epoch: Epoch, out: &mut Outbox) -> Result<Progress> {
        self.call(|inner| inner.on_barrier(epoch, out))
    }
    fn on_input_end(&mut self, input: usize, out: &mut Outbox) -> Result<Progress> {
        self.call(|inner| inner.on_input_end(input, out))
    }
    fn on_end(&mut self, out: &mut Outbox) -> Result<Progress> {
        self.call(|inner| inner.on_end(out))
    }
    fn resume(&mut self, out: &mut Outbox) -> Result<Progress> {
        self.call(|inner| inner.resume(out))
    }
    fn on_time(&mut self, now: i64, out: &mut Outbox) -> Result<Progress> {
        self.call(|inner| inner.on_time(now, out))
    }
    fn snapshot(&mut self, snapshot: &mut Snapshot) -> Result<()> {
        self.call(|inner| inner.snapshot(snapshot))
    }
    fn on_splits(&mut self, open: &[SplitId], out: &mut Outbox) -> Result<()> {
        self.inner.on_splits(open, out)
    }
    fn on_quiet(&mut self, split: SplitId) {
        self.inner.on_quiet(split);
    }
    fn on_mark(&mut self, split: SplitId, mark: Mark, out: &mut Outbox) -> Result<()> {
        self.inner.on_mark(split, mark, out)
    }
    fn combine(&self, times: &Watermarks) -> Watermark {
        self.inner.combine(times)
    }
    fn earliest_result(&self) -> Watermark {
        self.inner.earliest_result()
    }
    fn makes_watermarks(&self) -> bool {
        self.inner.makes_watermarks()
    }
    fn follow(&mut self, at: Watermark) {
        self.inner.follow(at);
    }
    fn next_time(&self) -> Option<i64> {
        self.inner.next_time()
    }
    fn restore(&mut self, restored: &Restored) -> Result<()> {
        self.inner.restore(restored)
    }
}
