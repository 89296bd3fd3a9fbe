//! How a chain goes back alone: with operators rebuilt from a checkpoint, through its log, to where it had failed.
//!
//! Its queues, its sinks and its source stay as they are. What the operators make of the log a second time is dropped at the edge of
//! the task, so nobody else notices.

use std::sync::Arc;

use mill_protocol::{Epoch, Error, Operator, Outbox, Quiet, Result, Watermark};

use super::Chain;
use crate::envelope::Event;
use crate::input_log::{Reach, Replayed, ReplayStep, Taken};
use crate::metrics::StageCounters;
use crate::stage::{Body, Stage};
use crate::time_board::Standing;

impl Chain {
    /// Whether it goes through its log once more.
    pub(crate) fn is_replaying(&self) -> bool {
        self.log.as_ref().is_some_and(|log| log.is_replaying())
    }

    /// The operators have nothing to do: what went in last has been applied, and its output goes on. Returns whether there was any
    /// such thing.
    pub(super) fn apply(&mut self) -> Result<bool> {
        let Some(log) = self.log.as_mut().filter(|log| !log.is_replaying() && log.has_pending()) else { return Ok(false) };
        let cuts = self.stages.iter_mut().enumerate().filter_map(|(index, stage)| Some((index, stage.take_cuts()?))).collect();
        let stages = &self.stages;
        let held = log.apply(cuts, || stages.iter().map(Stage::mark).collect());
        if stages.iter().any(Stage::keeps_end) {
            // What waits in the stage that keeps the end back is in no mark.
            log.give_up();
        }
        self.counted.clear();
        self.counted.extend(stages.iter().map(|stage| stage.counters.values()));
        self.merge_all(held)?;
        Ok(true)
    }

    /// A call of it has failed: takes back what was in it. Returns the checkpoints that it can go back to.
    pub(crate) fn take_back(&mut self) -> Reach {
        // Those of a chain that repeats its log count what nobody sees.
        if self.counters.is_empty() {
            self.counted.resize(self.stages.len(), [0; 5]);
            for (stage, counted) in self.stages.iter().zip(&self.counted).filter(|(stage, _)| !stage.is_sink()) {
                stage.counters.set(*counted);
            }
        }
        self.stages.iter_mut().for_each(Stage::forget_cuts);
        let is_sink = self.calling.take().is_some_and(|index| self.stages[index].is_sink());
        match &mut self.log {
            Some(log) if !is_sink => log.take_back(),
            _ => Reach::Nothing,
        }
    }

    /// Lets go of the operators, before others are made: what they hold may be there once only.
    pub(crate) fn take_operators(&mut self) -> Vec<Body> {
        self.stages.iter_mut().filter(|stage| !stage.is_sink()).map(Stage::take_operator).collect()
    }

    /// Sends what was applied before the failure.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.quiet()?;
        for (writer, _) in &mut self.writers {
            writer.try_flush();
        }
        Ok(())
    }

    /// Goes back to the checkpoint of this epoch, from which these operators were made; `None` stands for a sink.
    ///
    /// # Errors
    /// When an operator fails at once.
    pub(crate) fn go_back(&mut self, epoch: Epoch, operators: Vec<Option<Box<dyn Operator>>>) -> Result<()> {
        let mark = self.log.as_mut().and_then(|log| log.rewind(epoch));
        let mark = mark.ok_or_else(|| Error::internal(format!("a task that does not know {epoch:?} goes back to it")))?;
        self.outbox = Outbox::default();
        self.parts.clear();
        (self.has_end, self.closed, self.repeated) = (false, 0, None);
        self.begin_round();
        for (index, (stage, operator)) in self.stages.iter_mut().zip(operators).enumerate() {
            let Some(operator) = operator else { continue };
            stage.go_back(epoch, &mark.stages[index], operator);
            stage.prime().map_err(|error| error.in_step(&stage.name))?;
            if mark.watermarks[index] > Watermark::MIN {
                stage.follow(mark.watermarks[index]);
            }
        }
        if self.counters.is_empty() {
            // What is repeated has been counted.
            let uncounted = |stage: &mut Stage| stage.set_counters(Arc::new(StageCounters::default()));
            self.counters = self.stages.iter_mut().map(uncounted).collect();
        }
        if let Some(open) = &mark.splits {
            for stage in self.stages.iter_mut().filter(|stage| !stage.is_sink()) {
                stage.accept(Event::Splits(Arc::clone(open)));
            }
        }
        Ok(())
    }

    /// Takes the snapshots of a barrier that has come by once more. What the checkpoint needs of them was given before, and sinks give
    /// nothing: they did not go back.
    fn repeat_snapshot(&mut self, epoch: Epoch) -> Result<()> {
        for stage in self.stages.iter_mut().filter(|stage| !stage.is_sink()) {
            stage.snapshot(epoch, &mut self.parts, false).map_err(|error| error.in_step(&stage.name))?;
        }
        self.parts.clear();
        Ok(())
    }

    /// Lets in what comes next in the log; the chain must be drained. Once all was repeated, lets in what it had failed at, and
    /// returns how much it was.
    ///
    /// # Errors
    /// When what comes next cannot be passed on.
    pub(crate) fn replay(&mut self, is_full: bool) -> Result<Option<Replayed>> {
        if let Some(epoch) = self.repeated.take() {
            self.repeat_snapshot(epoch)?;
        }
        self.stages.iter_mut().for_each(Stage::forget_cuts);
        let Some(log) = &mut self.log else { return Ok(Some(Replayed::default())) };
        match log.replay() {
            ReplayStep::Input(taken, cuts) => {
                cuts.into_iter().for_each(|(index, rows)| self.stages[index].cut_like(rows));
                taken.into_iter().try_for_each(|taken| self.enter_once_more(taken, false))?;
            }
            ReplayStep::Watermarks(made) => {
                made.into_iter().try_for_each(|made| self.repeat_watermark(made.stage, made.at))?;
            }
            ReplayStep::Barrier(epoch) => {
                self.repeated = Some(epoch);
                self.enter(Event::Barrier(epoch), false)?;
            }
            ReplayStep::Done(replayed) => {
                for (stage, counters) in self.stages.iter_mut().zip(std::mem::take(&mut self.counters)) {
                    stage.set_counters(counters);
                }
                self.stand_again()?;
                let pending = self.log.as_mut().map(|log| log.take_pending()).unwrap_or_default();
                pending.into_iter().try_for_each(|taken| self.enter_once_more(taken, is_full))?;
                return Ok(Some(replayed));
            }
        }
        Ok(None)
    }

    /// Lets others know how the makers of watermarks stand that were rebuilt: as they said last while they repeated the log.
    fn stand_again(&mut self) -> Result<()> {
        let Some(log) = &mut self.log else { return Ok(()) };
        for (stage, quiet) in self.stages.iter_mut().zip(log.take_quiet()) {
            match (&mut stage.slot, quiet) {
                (None, _) => {}
                (Some(_), Some(Quiet { at, is_idle })) => {
                    stage.report(if is_idle { Standing::Idle(at) } else { Standing::Empty(at) })?;
                }
                (Some(slot), None) => slot.count_again(),
            }
        }
        Ok(())
    }

    /// Passes on those watermarks that the stage had made by now.
    pub(super) fn repeat_watermarks(&mut self, index: usize) -> Result<()> {
        let due = self.log.as_mut().map(|log| log.due_watermarks(index)).unwrap_or_default();
        due.into_iter().try_for_each(|at| self.repeat_watermark(index, at))
    }

    fn repeat_watermark(&mut self, index: usize, at: Watermark) -> Result<()> {
        self.stages[index].follow(at);
        self.forward(index, Event::Watermark(0, at))
    }

    fn enter_once_more(&mut self, taken: Taken, is_full: bool) -> Result<()> {
        match taken {
            Taken::Event(event) => self.enter(event, is_full),
            Taken::Rejected(batch) => self.enter_errors(batch),
            Taken::Timer(index) => {
                let now = self.now();
                self.note_taken(Taken::Timer(index), Some(now));
                self.fire(index, now)
            }
            Taken::Wake(index) => {
                self.note_taken(Taken::Wake(index), None);
                self.wake(index)
            }
            Taken::Follow { stage, at, is_quiet } => {
                self.note_taken(Taken::Follow { stage, at, is_quiet }, None);
                if is_quiet {
                    self.stages[stage].follow(at);
                }
                self.forward(stage, Event::Watermark(0, at))
            }
        }
    }
}
