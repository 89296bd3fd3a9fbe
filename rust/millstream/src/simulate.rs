//! Runs a job by hand: on the caller's thread, in an order drawn from a seed, for as many steps as are wanted.
//!
//! A job that is left before its end is left as a kill leaves it: nothing is closed, committed or cleaned up. The next call
//! on the same state directory recovers from its contents. The same holds if the process dies meanwhile, as `mill_fault`
//! simulates it, or the machine does, as [`FaultDisk`] does.

use std::sync::Arc;

use mill_plan::SinkNode;
use mill_protocol::{Clock, Error, ManualClock, Result, SystemClock};
use mill_runtime::{JobHandle, Report, guarded};
use mill_snapshot::{Disk, FaultDisk, RealDisk};

use crate::by_hand::{self, Opened};
use crate::options::Options;

/// In how many steps, on average, a jumping clock jumps.
const STEPS_PER_JUMP: u64 = 50;
/// How far it jumps at most, in microseconds: a day.
const JUMP_MAX_US: i64 = 86_400_000_000;

/// The world in which a job is run by hand.
#[derive(Clone, Debug, Default)]
pub struct Simulation {
    /// What the order of steps is drawn from.
    pub seed: u64,
    /// How many steps to take; all, if `None`.
    pub steps: Option<u64>,
    /// The disk of the state directory; that of the machine, if `None`.
    pub disk: Option<FaultDisk>,
    /// Whether the clock jumps to and fro, and starts up to a day off.
    pub is_clock_jumping: bool,
}

/// Takes steps of a job in this world. Returns its report if it ended, and `None` if it was left or died before.
///
/// # Errors
/// What the job fails with, or what [`start`](crate::start) would fail with.
pub fn simulate(sinks: &[SinkNode], options: &Options, simulation: &Simulation) -> Result<Option<Report>> {
    match guarded("the job", || attempt(sinks, options, simulation)) {
        // What the dead say is not heard.
        Err(_) if is_dead(simulation) => Ok(None),
        outcome => outcome,
    }
}

fn attempt(sinks: &[SinkNode], options: &Options, simulation: &Simulation) -> Result<Option<Report>> {
    let disk: Arc<dyn Disk> = match &simulation.disk {
        Some(disk) => Arc::new(disk.clone()),
        None => Arc::new(RealDisk),
    };
    let mut jumps = simulation.is_clock_jumping.then(|| Jumps(simulation.seed));
    let Opened { handle, notes } = by_hand::open(sinks, options, simulation.seed, disk, |run| {
        if let Some(jumps) = &mut jumps {
            let clock = ManualClock::default();
            clock.set(SystemClock.now() + jumps.distance());
            run.clock = Arc::new(clock);
        }
    })?;
    if !drive(&handle, simulation, jumps) {
        return match simulation.steps {
            None if !is_dead(simulation) => {
                Err(Error::internal("nothing can happen any more, and the job has not ended"))
            }
            _ => Ok(None),
        };
    }
    match handle.wait(None) {
        Some(outcome) => outcome.map(|mut report| {
            report.notes.splice(0..0, notes);
            Some(report)
        }),
        None => Err(Error::internal("the job is over and has no outcome")),
    }
}

/// Takes the steps; returns whether the job is over.
fn drive(handle: &JobHandle, simulation: &Simulation, mut jumps: Option<Jumps>) -> bool {
    for _ in 0..simulation.steps.unwrap_or(u64::MAX) {
        let is_going_on = handle.step();
        if is_dead(simulation) {
            return false;
        }
        if !is_going_on {
            break;
        }
        if let (Some(jumps), Some(clock)) = (&mut jumps, handle.manual_clock()) {
            if jumps.next() % STEPS_PER_JUMP == 0 {
                clock.set(clock.now() + jumps.distance());
            }
        }
    }
    handle.status().is_over()
}

fn is_dead(simulation: &Simulation) -> bool {
    mill_fault::is_dead() || simulation.disk.as_ref().is_some_and(FaultDisk::is_crashed)
}

/// When a clock jumps, and how far (splitmix64).
struct Jumps(u64);

impl Jumps {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Microseconds, to either side.
    fn distance(&mut self) -> i64 {
        (self.next() % (2 * JUMP_MAX_US as u64)) as i64 - JUMP_MAX_US
    }
}
