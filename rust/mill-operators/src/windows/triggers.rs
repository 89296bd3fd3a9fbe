//! When triggers fire, and what has changed since.
//!
//! ```text
//!   every(n)      counted with the records; nothing is noted
//!   each()        what changed ──► fired after the batch
//!   a duration    what changed ──► fired when processing time has come so far
//! ```
//!
//! What is noted for the time before the end of its window fires with the trigger for that time alone, and the same of the time
//! after. What was noted may have had another result meanwhile, or its window may be over: then nothing is left to be fired.

use mill_plan::{Firing, Trigger};

use super::Timing;

/// How windows fire at one timing, and what waits for it.
#[derive(Debug)]
struct Slot<C> {
    timing: Timing,
    firing: Firing,
    changed: C,
    /// When it fires next, if processing time says when; in the past until the first call tells what time it is.
    next: i64,
}

/// The triggers of a step, and what has changed, in a collection.
#[derive(Debug)]
pub(crate) struct Triggers<C> {
    slots: Vec<Slot<C>>,
}

impl<C: Default> Triggers<C> {
    pub(crate) fn new(trigger: Trigger) -> Triggers<C> {
        let slots = [(Timing::Early, trigger.early), (Timing::Late, trigger.late)].into_iter();
        let slot = |(timing, firing): (Timing, Option<Firing>)| {
            let firing = match firing? {
                Firing::Every(us) => Firing::Every(us.max(1)),
                firing @ (Firing::Rows(_) | Firing::Each) => firing,
            };
            Some(Slot { timing, firing, changed: C::default(), next: i64::MIN })
        };
        Triggers { slots: slots.filter_map(slot).collect() }
    }

    /// How windows fire at this timing.
    pub(crate) fn firing(&self, timing: Timing) -> Option<Firing> {
        self.slots.iter().find(|slot| slot.timing == timing).map(|slot| slot.firing)
    }

    /// After how many records of a window there is a result at this timing, if records decide.
    pub(crate) fn rows(&self, timing: Timing) -> Option<u64> {
        match self.firing(timing) {
            Some(Firing::Rows(rows)) => Some(rows),
            _ => None,
        }
    }

    /// What waits at this timing for something other than records of its window; `None` if nothing ever does.
    pub(crate) fn waiting(&mut self, timing: Timing) -> Option<&mut C> {
        let waits = |slot: &&mut Slot<C>| slot.timing == timing && !matches!(slot.firing, Firing::Rows(_));
        self.slots.iter_mut().find(waits).map(|slot| &mut slot.changed)
    }

    /// What fires after a batch.
    pub(crate) fn after_batch(&mut self) -> Vec<(Timing, C)> {
        self.take(|slot| slot.firing == Firing::Each)
    }

    /// Whether processing time fires something.
    pub(crate) fn are_by_clock(&self) -> bool {
        self.slots.iter().any(|slot| matches!(slot.firing, Firing::Every(_)))
    }

    /// When processing time may fire something.
    pub(crate) fn next_time(&self) -> Option<i64> {
        self.slots.iter().filter(|slot| matches!(slot.firing, Firing::Every(_))).map(|slot| slot.next).min()
    }

    /// Processing time has come this far; what fires.
    pub(crate) fn on_time(&mut self, now: i64) -> Vec<(Timing, C)> {
        self.take(|slot| {
            let Firing::Every(every) = slot.firing else { return false };
            let is_first = slot.next == i64::MIN;
            let is_due = now >= slot.next;
            if is_due {
                // In step with the clock, so that all instances fire at the same times.
                slot.next = now.saturating_sub(now.rem_euclid(every)).saturating_add(every);
            }
            is_due && !is_first
        })
    }

    /// Takes what waits in those slots for which this holds.
    fn take(&mut self, mut is_due: impl FnMut(&mut Slot<C>) -> bool) -> Vec<(Timing, C)> {
        let due = self.slots.iter_mut().filter_map(|slot| is_due(slot).then(|| (slot.timing, std::mem::take(&mut slot.changed))));
        due.collect()
    }

    /// Forgets what waits.
    pub(crate) fn clear(&mut self) {
        self.slots.iter_mut().for_each(|slot| slot.changed = C::default());
    }
}
