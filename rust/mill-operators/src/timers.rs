//! A service of timers: which keys are to be called when, by event time and by processing time.
//!
//! ```text
//!   set, delete ──► table of (time, key) for each clock, in order ──take──► what is due, the first first
//! ```
//!
//! Timers are a set: a key has one timer, at most, of a clock and time; setting it again replaces its value. They are
//! state: they are in snapshots, and go with the key group of their key. Deadlines, which no user sees, need the same, so a
//! step that drops state after a while uses the service as well.

use mill_plan::TimerClock;
use mill_protocol::Result;
use mill_state::{KeyBatch, OrderedRows, OrderedState, OrderedTable, StateBackend};

use crate::accumulator::state_error;

/// Leads to the timers in the backend that keeps them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timers {
    event: OrderedState,
    processing: OrderedState,
}

impl Timers {
    /// Declares them under the name of each clock followed by this word; `value` says in words what their values are.
    pub(crate) fn new(backend: &mut StateBackend, word: &str, value: &str) -> Timers {
        let mut declare = |clock: TimerClock| backend.ordered(&format!("{} {word}", clock.as_str()), value);
        Timers { event: declare(TimerClock::Event), processing: declare(TimerClock::Processing) }
    }

    fn state(self, clock: TimerClock) -> OrderedState {
        match clock {
            TimerClock::Event => self.event,
            TimerClock::Processing => self.processing,
        }
    }

    fn of(self, backend: &mut StateBackend, clock: TimerClock) -> &mut OrderedTable {
        &mut backend[self.state(clock)]
    }

    /// Sets a timer of a key, as [`KeyBatch::write_key`] writes it.
    pub(crate) fn set(self, backend: &mut StateBackend, clock: TimerClock, at: i64, key: &[u8], value: &[u8]) -> Result<()> {
        let hash = KeyBatch::hash_of(key).unwrap_or_default();
        self.of(backend, clock).insert(at, hash, key, value).map(drop).map_err(state_error)
    }

    /// Deletes a timer of a key, if it is set.
    pub(crate) fn delete(self, backend: &mut StateBackend, clock: TimerClock, at: i64, key: &[u8]) {
        self.of(backend, clock).remove(at, KeyBatch::hash_of(key).unwrap_or_default(), key);
    }

    /// Takes out what is due at this time, this one included, in order of time and key: so many at most.
    pub(crate) fn take(self, backend: &mut StateBackend, clock: TimerClock, until: i64, timers_max: usize) -> OrderedRows {
        self.of(backend, clock).pop_until(until, timers_max)
    }

    /// When the next one is due.
    pub(crate) fn next(self, backend: &StateBackend, clock: TimerClock) -> Option<i64> {
        backend[self.state(clock)].first_time()
    }

    /// How many are set.
    pub(crate) fn count(self, backend: &StateBackend, clock: TimerClock) -> usize {
        backend[self.state(clock)].len()
    }

    /// All that are set, in order within each key group.
    pub(crate) fn all(self, backend: &StateBackend, clock: TimerClock) -> impl Iterator<Item = mill_state::OrderedRow<'_>> {
        let table = &backend[self.state(clock)];
        table.groups().flat_map(|group| table.range(group, i64::MIN..i64::MAX))
    }
}
