//! A job stepped by hand: everything on the caller's thread, in an order drawn from a seed.
//!
//! One step is one of: a task takes one input; the coordinator takes one message; a piece of background work is done; a
//! checkpoint is triggered; time advances to the next timer, when nothing else can happen. The same seed leads to the same
//! order, so a failure can be reproduced.
//!
//! If the clock is moved from outside, the schedule does not advance time and takes no checkpoint by itself: it ends when
//! the job is *quiet*, with nothing to do before new input or a later time.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Receiver;
use mill_protocol::{Clock, ManualClock};
use mill_queue::Parker;

use crate::coordinator::Coordinator;
use crate::shared::{Message, Shared};
use crate::task::{Step, Task};
use crate::worker;

/// In how many steps, on average, a checkpoint is triggered.
const STEPS_PER_CHECKPOINT: u64 = 100;
/// How long something outside is waited for before other things are tried again.
const OUTSIDE_WAIT: Duration = Duration::from_millis(1);

/// A job that is stepped by hand.
pub(crate) struct Schedule {
    random: Random,
    tasks: Vec<Task>,
    coordinator: Coordinator,
    messages: Receiver<Message>,
    shared: Arc<Shared>,
    clock: Arc<ManualClock>,
    /// Whether somebody else moves the clock and asks for checkpoints.
    is_time_held: bool,
    /// Woken by what tasks wait for outside.
    parker: Parker,
    /// The time of the coordinator, in steps.
    now: i64,
}

impl Schedule {
    #[expect(clippy::too_many_arguments, reason = "each is a part of the job, and there is one caller")]
    pub(crate) fn new(
        seed: u64,
        tasks: Vec<Task>,
        coordinator: Coordinator,
        messages: Receiver<Message>,
        shared: Arc<Shared>,
        clock: Arc<ManualClock>,
        is_time_held: bool,
        parker: Parker,
    ) -> Schedule {
        let random = Random::new(seed);
        Schedule { random, tasks, coordinator, messages, shared, clock, is_time_held, parker, now: 0 }
    }

    /// The next time at which something happens though nothing comes in.
    pub(crate) fn next_time(&self) -> Option<i64> {
        self.tasks.iter().filter_map(Task::next_time).min().filter(|&at| at < i64::MAX)
    }

    /// Takes up to that many steps. Returns whether more could follow: `false` when the job is over or nothing can happen
    /// any more.
    pub(crate) fn run(&mut self, steps: u64) -> bool {
        for _ in 0..steps {
            if self.coordinator.is_over() {
                return false;
            }
            if !self.step() && !self.settle() {
                return false;
            }
        }
        !self.coordinator.is_over()
    }

    /// One thing drawn at random; returns whether it did something.
    fn step(&mut self) -> bool {
        self.now += 1;
        if !self.is_time_held && self.random.below(STEPS_PER_CHECKPOINT) == 0 && !self.coordinator.has_in_flight() {
            self.coordinator.trigger(self.now);
            return true;
        }
        match self.random.below(self.tasks.len() as u64 + 2) as usize {
            0 => self.take_message(),
            1 => self.do_work(),
            choice => {
                let task = choice - 2;
                self.step_task(task) == Some(Step::Worked)
            }
        }
    }

    fn take_message(&mut self) -> bool {
        let Ok(message) = self.messages.try_recv() else { return false };
        self.coordinator.handle(message, self.now);
        if self.shared.is_over() && !self.tasks.is_empty() {
            self.tasks.clear();
            self.shared.worker_gone();
        }
        true
    }

    fn do_work(&mut self) -> bool {
        let random = &mut self.random;
        let work = self.coordinator.writers().take(|count| random.below(count as u64) as usize);
        work.map(|work| work()).is_some()
    }

    fn step_task(&mut self, task: usize) -> Option<Step> {
        if self.shared.is_over() {
            return None;
        }
        match worker::guarded_step(&mut self.tasks[task], 1) {
            Ok(step) => Some(step),
            Err(error) => {
                if let Some(error) = self.tasks[task].fail(error) {
                    self.shared.tell(Message::Failed(error));
                }
                None
            }
        }
    }

    /// The draw did nothing: tries everything once, and then lets time advance. Returns whether something happened.
    fn settle(&mut self) -> bool {
        if self.random.below(4) != 0 {
            // Mostly draws again, so that the order stays the seed's.
            return true;
        }
        let mut wake_at: Option<i64> = None;
        let mut is_waiting = false;
        for task in 0..self.tasks.len() {
            match self.step_task(task) {
                Some(Step::Worked) => return true,
                Some(Step::Idle(at)) => {
                    wake_at = [wake_at, at].into_iter().flatten().min();
                    is_waiting |= self.tasks[task].awaits();
                }
                Some(Step::Waiting) => is_waiting = true,
                Some(Step::Blocked) | None => {}
            }
        }
        if self.do_work() || self.take_message() {
            return true;
        }
        // What is waited for outside takes real time; it comes before time is moved here.
        if is_waiting && self.parker.park_timeout(OUTSIDE_WAIT) {
            return true;
        }
        // Only time is left to move: that of the operators, or that of the coordinator.
        let wake_at = wake_at.filter(|at| *at < i64::MAX && !self.is_time_held);
        match (wake_at, self.coordinator.due()) {
            (Some(at), due) if due.is_none() || self.random.below(2) == 0 => self.clock.set(self.clock.now().max(at)),
            (_, Some(due)) => {
                self.now = self.now.max(due);
                self.coordinator.tick(self.now);
            }
            _ => return is_waiting,
        }
        true
    }
}

/// Numbers drawn from a seed (splitmix64).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// A number below `limit`, which is not zero.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % limit
    }
}
